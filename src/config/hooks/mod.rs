//! Applications in the configuration: a file a kind, with the settings of its section and the reader of its
//! keys.
//!
//! In: sections of a file. Out: [`Hook`]s, plain values. They are also what the journal keeps, so that
//! whoever cleans up after a dead run knows what it owes. Must never: keep a password.
//!
//! What is done with each kind is in [`crate::quiesce`]. A new kind is a file here with its
//! [`Section`](section::Section), one there with its verbs, and a line in [`HookKind`], in [`with_settings`]
//! and in [`section::SECTIONS`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod command;
mod container;
mod directory;
mod mysql;
mod postgresql;
mod redis;
pub(super) mod section;
mod session;
mod systemd;

pub use command::CommandHook;
pub use container::{ContainerEngine, ContainerHook};
pub use directory::{DirectoryHook, ScriptHook};
pub use mysql::{Mysql, MysqlMethod};
pub use postgresql::{Postgresql, PostgresqlMode};
pub use redis::{Redis, RedisMode};
pub use session::SessionHook;
pub use systemd::{SystemdHook, UnitMethod};

/// One application's quiesce and release: a section of the configuration, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Name, in messages and in the environment variable `STILLPOINT_HOOK`.
    pub name: String,
    /// The section's kind, with its own settings.
    #[serde(flatten)]
    pub kind: HookKind,
    /// Longest time that quiescing may take, and releasing.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// What it means when the application cannot be quiesced.
    pub on_failure: OnFailure,
}

/// The kind of a hook, with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HookKind {
    /// `[[hook]]`.
    Hook(CommandHook),
    /// `[[session]]`.
    Session(SessionHook),
    /// `[[hook_directory]]`; becomes a [`HookKind::Script`] for each of its files.
    HookDirectory(DirectoryHook),
    /// One executable of a hook directory. Not a section.
    Script(ScriptHook),
    /// `[[systemd]]`.
    Systemd(SystemdHook),
    /// `[[container]]`.
    Container(ContainerHook),
    /// `[[postgresql]]`.
    Postgresql(Postgresql),
    /// `[[mysql]]`.
    Mysql(Mysql),
    /// `[[redis]]`.
    Redis(Redis),
}

/// Evaluates `$do` with the settings of the hook's kind as `$settings`. This is the only place that matches
/// on the kind; all other code uses a trait of the settings.
macro_rules! with_settings {
    ($kind:expr, $settings:ident => $do:expr) => {
        match $kind {
            $crate::config::settings::HookKind::Hook($settings) => $do,
            $crate::config::settings::HookKind::Session($settings) => $do,
            $crate::config::settings::HookKind::HookDirectory($settings) => $do,
            $crate::config::settings::HookKind::Script($settings) => $do,
            $crate::config::settings::HookKind::Systemd($settings) => $do,
            $crate::config::settings::HookKind::Container($settings) => $do,
            $crate::config::settings::HookKind::Postgresql($settings) => $do,
            $crate::config::settings::HookKind::Mysql($settings) => $do,
            $crate::config::settings::HookKind::Redis($settings) => $do,
        }
    };
}
pub(crate) use with_settings;

macro_rules! from_settings {
    ($($variant:ident($settings:ident))*) => {
        $(impl From<$settings> for HookKind {
            fn from(settings: $settings) -> Self {
                Self::$variant(settings)
            }
        })*
    };
}
from_settings! {
    Hook(CommandHook) Session(SessionHook) HookDirectory(DirectoryHook) Script(ScriptHook) Systemd(SystemdHook)
    Container(ContainerHook) Postgresql(Postgresql) Mysql(Mysql) Redis(Redis)
}

/// What is asked of the settings of every kind.
trait Kind {
    /// The section that it comes from, without the brackets.
    const SECTION: &'static str;

    /// True when it quiesces an application, so that its success counts for the label.
    fn quiesces(&self) -> bool {
        true
    }

    /// True when a process of this kind has to run across the window to keep the application quiesced.
    fn is_session(&self) -> bool {
        false
    }

    /// True when its release can be repeated without harm.
    fn releases_again(&self) -> bool {
        false
    }

    /// The commands that the user has configured: the setting of each, and its argv.
    fn commands(&self) -> Vec<(&'static str, &[String])> {
        Vec::new()
    }
}

/// What a failure to quiesce does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Stop before anything is frozen, exit 20 (default).
    Abort,
    /// Go on; the set is at most filesystem-consistent.
    Degrade,
}

impl HookKind {
    /// The section it is configured in, without the brackets; an executable of a directory has its
    /// directory's.
    #[must_use]
    pub fn section(&self) -> &'static str {
        fn of<K: Kind>(_: &K) -> &'static str {
            K::SECTION
        }
        with_settings!(self, settings => of(settings))
    }
}

impl Hook {
    /// The commands that the user has configured: the setting of each, and its argv.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        with_settings!(&self.kind, settings => settings.commands()).into_iter()
    }

    /// True when its release can be repeated without harm.
    #[must_use]
    pub(crate) fn releases_again(&self) -> bool {
        with_settings!(&self.kind, settings => settings.releases_again())
    }

    /// True when a process of this kind has to run across the window to keep the application quiesced.
    #[must_use]
    pub(crate) fn is_session(&self) -> bool {
        with_settings!(&self.kind, settings => settings.is_session())
    }

    /// True when it quiesces an application, so that its success counts for the label.
    #[must_use]
    pub(crate) fn quiesces(&self) -> bool {
        with_settings!(&self.kind, settings => settings.quiesces())
    }
}

/// Times as people write them: `1m 30s`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match d {
            Some(d) => super::duration::serialize(d, s),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "super::duration")] Duration);
        Ok(Option::<Text>::deserialize(d)?.map(|text| text.0))
    }
}
