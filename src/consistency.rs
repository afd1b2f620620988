//! The label of a set, and the method for one filesystem of it: two types that settings, plans, sets and
//! reports share.
//!
//! In: nothing. Out: two small types. Must never: depend on the settings or on the plan, because both depend
//! on it.

use serde::{Deserialize, Serialize};

/// The label of a snapshot set. Ordered: crash < filesystem < application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// What a power cut leaves.
    Crash,
    /// Every filesystem of the set was frozen, unmounted or proven quiet over the point in time.
    Filesystem,
    /// That, and every configured hook and quiescer succeeded.
    Application,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Crash => "crash",
            Self::Filesystem => "filesystem",
            Self::Application => "application",
        })
    }
}

impl std::str::FromStr for Consistency {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Crash, Self::Filesystem, Self::Application]
            .into_iter()
            .find(|c| c.to_string() == word)
            .ok_or(())
    }
}

/// How a filesystem is made quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// FIFREEZE and FITHAW.
    Freeze,
    /// syncfs, then proven quiet by the write counter (for filesystems that cannot freeze).
    Sync,
    /// Unmounted over the point in time, its device claimed so that nobody can mount it, and mounted again
    /// after it.
    Unmount,
}

impl Method {
    /// The word for it, as in the setting `methods` and in tags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Sync => "sync",
            Self::Unmount => "unmount",
        }
    }

    /// The method with this word.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Freeze, Self::Sync, Self::Unmount].into_iter().find(|m| m.as_str() == word)
    }
}
