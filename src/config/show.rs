//! `config show` and `config check`: every effective value with its origin, and the files that were
//! considered.
//!
//! In: what [`super::load`] and [`super::check`] return. Out: text that is itself a configuration file, and
//! JSON. Must never: leave out a value because it is a default.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::error::Origin;
use super::files::{ConfigFile, FileStatus};
use super::input::Input as _;
use super::raw::{Ec2Input, IdentityInput, PlanInput, TopInput};
use super::{Checked, Loaded};

/// One effective value.
struct Entry<'a> {
    /// The key, as in [`super::Origins`].
    key: String,
    /// `null` when it is not set and has no default.
    value: Value,
    origin: &'a Origin,
}

impl Loaded {
    /// The values of the plan, table by table in documented order.
    fn entries(&self) -> Vec<(&'static str, Vec<Entry<'_>>)> {
        // Serializing plain values cannot fail; if it did, every value would be shown as not set.
        let all = serde_json::to_value(&self.settings).unwrap_or_default();
        let one = |table: &str, keys: &[&str]| -> Vec<Entry<'_>> {
            let values = if table.is_empty() { &all } else { &all[table] };
            let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
            keys.iter().flat_map(|key| self.entries_of(&format!("{prefix}{key}"), &values[key])).collect()
        };
        vec![
            ("", one("", TopInput::KEYS)),
            ("identity", one("identity", IdentityInput::KEYS)),
            ("ec2", one("ec2", Ec2Input::KEYS)),
            ("plan", one("plan", PlanInput::KEYS)),
        ]
    }

    /// A value, or the entries of a table, each with its own origin.
    fn entries_of(&self, key: &str, value: &Value) -> Vec<Entry<'_>> {
        match value {
            Value::Object(table) if !table.is_empty() => table
                .iter()
                .map(|(k, v)| {
                    let key = format!("{key}.{k}");
                    Entry { value: v.clone(), origin: self.origin(&key), key }
                })
                .collect(),
            _ => vec![Entry { key: key.to_owned(), value: value.clone(), origin: self.origin(key) }],
        }
    }

    /// Where the value of a key came from; [`Origin::Default`] also for keys that do not exist.
    #[must_use]
    pub(crate) fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// `config show`: TOML, with the origin of each value behind it.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        for (table, entries) in self.entries() {
            let prefix = match table {
                "" => String::new(),
                "plan" => format!("\n[plan.{}]\n", quoted_key(&self.settings.plan.name)),
                other => format!("\n[{other}]\n"),
            };
            out.push_str(&prefix);
            for entry in entries {
                // Only the table's name is removed: mount points and tags may have dots in their names.
                let short = entry.key.strip_prefix(&format!("{table}.")).unwrap_or(&entry.key);
                let (head, tail) = short.split_once('.').map_or((short, None), |(h, t)| (h, Some(t)));
                let key = tail.map_or_else(|| head.to_owned(), |t| format!("{head}.{}", quoted_key(t)));
                line(&mut out, &key, &entry.value, entry.origin);
            }
        }
        for hook in &self.settings.plan.hooks {
            let origin = self.origin(&format!("plan.hooks.{}", hook.name));
            let value = serde_json::to_value(hook).unwrap_or_default();
            let section = value["type"].as_str().unwrap_or_default();
            let _ = writeln!(out, "\n[[{section}]]  # {origin}");
            let unset = |v: &Value| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty);
            for (key, value) in value.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
                if !unset(value) {
                    let _ = writeln!(out, "{key} = {}", toml_text(value));
                }
            }
        }
        out
    }

    /// `config show --output json`.
    #[must_use]
    pub(crate) fn show_json(&self) -> Value {
        let mut values = Vec::new();
        for entry in self.entries().into_iter().flat_map(|(_, entries)| entries) {
            values.push(json!({"key": entry.key, "value": entry.value, "origin": entry.origin}));
        }
        for hook in &self.settings.plan.hooks {
            let key = format!("plan.hooks.{}", hook.name);
            values.push(json!({"key": key, "value": hook, "origin": self.origin(&key)}));
        }
        json!({"plan": self.settings.plan.name, "values": values, "files": self.files})
    }
}

impl Checked {
    /// `config check`: files in order, plans, and every fault that was found.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::from("files, later over earlier:\n");
        for file in &self.files {
            let _ = writeln!(out, "  {}", file_line(file));
        }
        let _ = writeln!(out, "plans: {}", self.plans.join(", "));
        for fault in &self.faults {
            let _ = writeln!(out, "error: {fault}");
            if let Some(hint) = fault.hint() {
                let _ = writeln!(out, "hint: {hint}");
            }
        }
        if self.faults.is_empty() && super::not_read(&self.files).next().is_none() {
            out.push_str("no faults found\n");
        }
        out
    }
}

fn file_line(file: &ConfigFile) -> String {
    let path = file.path.display();
    match &file.status {
        FileStatus::Read => path.to_string(),
        FileStatus::Masked => format!("{path} (masked: empty or a link to /dev/null)"),
        FileStatus::Replaced { by } => format!("{path} (not read: replaced by {})", by.display()),
        FileStatus::NeedsRoot => format!("{path} (not read: needs root)"),
        FileStatus::Missing => format!("{path} (does not exist)"),
    }
}

fn line(out: &mut String, key: &str, value: &Value, origin: &Origin) {
    let text =
        if value.is_null() { format!("# {key}: not set") } else { format!("{key} = {}", toml_text(value)) };
    // Comments are aligned only up to this column, since some values are long.
    let _ = writeln!(out, "{text:<40}  # {origin}");
}

/// JSON values are also TOML values, except `null`, which does not occur here.
fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |v| v.to_string())
}

/// A key, quoted where TOML needs it.
fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}
