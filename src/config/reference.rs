//! What the documentation says of each key.
//!
//! In: the rows beside the keys, where they are read. Out: [`tables`], from which docs/configuration.md,
//! stillpoint.toml(5) and `config default` are made. Must never: know a key that no file may have, or leave one
//! out.

use super::hooks::section::{COMMON, SECTIONS};
use super::input::Input as _;
use super::raw::{Ec2Input, IdentityInput, PlanInput, TopInput};
use super::{checks, copies, group, keep, lock, notify};
use crate::report::page::Page;

/// A key, as the documentation has it: each text is Markdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub name: &'static str,
    /// What its value is, with its limits.
    pub kind: &'static str,
    /// What counts where it is not set: a value between backticks, or words.
    pub default: &'static str,
    /// What it says, without a capital and a full stop.
    pub meaning: &'static str,
    /// A value, where the default is none.
    pub like: Option<&'static str>,
}

impl Key {
    /// Of its row: kind, default, meaning and, where the default is no value, one that it may have.
    pub(super) fn of(name: &'static str, doc: &'static str) -> Self {
        let mut cells = doc.split(" | ").map(str::trim);
        let mut cell = || cells.next().unwrap_or_default();
        let (kind, default, meaning) = (cell(), cell(), cell());
        Self { name, kind, default, meaning, like: cells.next() }
    }

    /// A value in TOML: the default, else an example. None of a table.
    pub(crate) fn value(&self) -> Option<&'static str> {
        let value = self.like.unwrap_or(self.default).strip_prefix('`')?.strip_suffix('`')?;
        (!value.contains('`')).then_some(value)
    }

    /// Is [`Key::value`] what counts where the key is not set?
    pub(crate) fn has_default(&self) -> bool {
        self.like.is_none() && self.value().is_some()
    }
}

/// Keys that belong together, under one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// What a page calls it.
    pub id: &'static str,
    /// What is in it, as a heading.
    pub title: &'static str,
    /// Its header in a file; of plans that of their defaults.
    pub header: String,
    pub keys: Vec<Key>,
}

/// The keys of a plan in the order in which they are explained.
const GROUPS: [(&str, &str, &[&str]); 4] = [
    (
        "taken",
        "What is taken",
        &[
            "mounts",
            "volumes",
            "volume_tags",
            "exclude_mounts",
            "exclude_volumes",
            "exclude_boot_volume",
            "allow_partial",
            "unmounted_volumes",
            "automounts",
            "missing_mounts",
        ],
    ),
    (
        "quiet",
        "How it is made quiet",
        &[
            "methods",
            "stop_units",
            "unmount_timeout",
            "consistency",
            "on_degraded",
            "allow_pid_namespace",
            "window",
            "freeze_timeout",
            "busy_timeout",
            "flush_timeout",
            "rcu_expedited",
        ],
    ),
    (
        "marked",
        "How the snapshots are marked",
        &["copy_volume_tags", "wait", "tags", "host_key", "description"],
    ),
    ("verified", "How a set is verified", &["luks_key_files"]),
];

/// Keys that are tables, with keys of their own in tables of their own.
const TABLES: [&str; 4] = ["keep", "lock", "copy", "copies"];

/// Every key of a file, in documented order.
pub(crate) fn tables() -> Vec<Table> {
    let of_plan = PlanInput::documented();
    let chosen = |names: &[&str]| -> Vec<Key> {
        names.iter().filter_map(|name| of_plan.iter().find(|k| k.name == *name)).copied().collect()
    };
    let table = |id, title, header: &str, keys| Table { id, title, header: header.to_owned(), keys };
    let mut all = vec![
        table("top", "Top level", "", TopInput::documented()),
        table("identity", "This instance", "[identity]", IdentityInput::documented()),
        table("ec2", "EC2", "[ec2]", Ec2Input::documented()),
        table("group", "One point in time of several hosts", "[group]", group::GroupInput::documented()),
    ];
    all.extend(GROUPS.map(|(id, title, names)| table(id, title, "[defaults]", chosen(names))));
    let own = [
        ("kept", "keep", "What is kept", "[defaults.keep]", keep::KeepInput::documented()),
        ("locked", "lock", "How new sets are locked", "[defaults.lock]", lock::LockInput::documented()),
        ("copied", "copy", "What is copied", "[[defaults.copy]]", copies::CopyInput::documented()),
    ];
    for (id, key, title, header, keys) in own {
        all.push(table(id, title, "[defaults]", chosen(&[key])));
        all.push(table(key, title, header, keys));
    }
    let common = |key: &Key| COMMON.contains(&key.name);
    for (at, section) in SECTIONS.iter().enumerate() {
        let header = format!("[[{}]]", section.name);
        let (of_all, its_own): (Vec<_>, Vec<_>) = (section.documented)().into_iter().partition(common);
        if at == 0 {
            all.push(table("common", "Applications: what every section has", &header, of_all));
        }
        all.push(table(section.name, section.title, &header, its_own));
    }
    all.push(table("notify", "Who is told how a run ended", "[[notify]]", notify::documented()));
    all.push(table("check", "Who looks at a restored set", "[[check]]", checks::documented()));
    all
}

/// What `config default` says before its first key.
const HEAD: &str = "The configuration of stillpoint: stillpoint.toml(5), docs/configuration.md. Every key is here, \
     with its default or, where it has none, with an example. None is set: to set one, take off the # before it, and \
     the # before the header above it. `stillpoint config check` reads it all, `stillpoint config show` prints what \
     counts.";

/// What it says of the tables of plans.
const OF_PLANS: &str = "[defaults] is for all plans. One plan has a table of its own with the same keys, such as \
     [plan.db], [plan.db.keep] or [[plan.db.copy]]; they go before those of [defaults].";

/// A file with every key in a comment: it sets nothing.
pub(crate) fn commented() -> String {
    let mut page = Page::new(80);
    page.wrapped("# ", "# ", HEAD);
    let mut last = String::new();
    for table in tables() {
        let keys: Vec<_> = table.keys.iter().filter(|key| !TABLES.contains(&key.name)).collect();
        if keys.is_empty() {
            continue;
        }
        page.line("");
        page.wrapped("# ", "# ", &format!("== {}", table.title));
        if !table.header.is_empty() && table.header != last {
            if table.header == "[defaults]" {
                page.wrapped("# ", "# ", OF_PLANS);
            }
            page.line(&format!("#{}", table.header));
        }
        last = table.header;
        for key in keys {
            let default = match (key.has_default(), key.default) {
                (true, _) => String::new(),
                (false, words) => format!("; default: {words}"),
            };
            let text = format!("{} ({}{default}).", sentence(&plain(key.meaning)), plain(key.kind));
            page.line("");
            page.wrapped("# ", "# ", &text);
            page.line(&format!("#{} = {}", key.name, key.value().unwrap_or_default()));
        }
    }
    page.finish()
}

/// With a capital at its start, where that is a word.
pub(crate) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Markdown without the targets of its links.
pub(crate) fn plain(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some(at) = rest.find("](") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        match (before.rfind('['), after.find(')')) {
            (Some(open), Some(close)) => {
                out.push_str(&before[..open]);
                out.push_str(&before[open + 1..]);
                rest = &after[close + 1..];
            }
            _ => break,
        }
    }
    out.push_str(rest);
    out
}
