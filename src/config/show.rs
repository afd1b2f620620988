//! `config show` and `config check`: every effective value with its origin, and the files that were
//! considered.
//!
//! In: what [`super::load`] and [`super::check`] return. Out: text that is itself a configuration file, and
//! JSON. Must never: leave out a value because it is a default.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::error::{ConfigError, Origin};
use super::files::{ConfigFile, FileStatus};
use super::group::GroupInput;
use super::input::Input as _;
use super::raw::{Ec2Input, IdentityInput, PlanInput, TopInput};
use super::{Checked, Loaded};
use crate::error::chain;
use crate::exit::Exit;

/// Version of the JSON of `config show` and `config check`.
const VERSION: u32 = 1;

/// One effective value.
struct Entry<'a> {
    /// The table and the keys in it. A mount point or a tag may have dots in its name.
    path: Vec<String>,
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
            let path =
                |key: &str| [table, key].iter().filter(|k| !k.is_empty()).map(|k| (*k).to_owned()).collect();
            keys.iter().flat_map(|key| self.entries_of(path(key), &values[key])).collect()
        };
        let of_group = |key: &&str| {
            let path = ["plan", "group", key].map(str::to_owned).to_vec();
            self.entries_of(path, &all["plan"]["group"][key])
        };
        let mut tables = vec![
            ("", one("", TopInput::KEYS)),
            ("identity", one("identity", IdentityInput::KEYS)),
            ("ec2", one("ec2", Ec2Input::KEYS)),
        ];
        if self.settings.plan.group.is_some() {
            tables.push(("group", GroupInput::KEYS.iter().flat_map(of_group).collect()));
        }
        tables.push(("plan", one("plan", PlanInput::KEYS)));
        tables
    }

    /// A value, or the entries of a table and of the tables in it, each with its own origin.
    fn entries_of(&self, path: Vec<String>, value: &Value) -> Vec<Entry<'_>> {
        match value {
            Value::Object(table) if !table.is_empty() => {
                let below = |key: &String| path.iter().chain([key]).cloned().collect();
                table.iter().flat_map(|(key, value)| self.entries_of(below(key), value)).collect()
            }
            _ => vec![Entry { value: value.clone(), origin: self.origin(&path.join(".")), path }],
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
                let below = match table {
                    "" => 0,
                    "group" => 2,
                    _ => 1,
                };
                let key: Vec<_> = entry.path[below..].iter().map(|key| quoted_key(key)).collect();
                line(&mut out, &key.join("."), &entry.value, entry.origin);
            }
        }
        for hook in &self.settings.plan.hooks {
            let value = serde_json::to_value(hook).unwrap_or_default();
            let name = value["type"].as_str().unwrap_or_default();
            section(&mut out, name, &value, self.origin(&format!("plan.hooks.{}", hook.name)));
        }
        for notify in &self.settings.plan.notify {
            let value = serde_json::to_value(notify).unwrap_or_default();
            section(&mut out, "notify", &value, self.origin(&format!("plan.notify.{}", notify.name)));
        }
        for check in &self.settings.plan.checks {
            let value = serde_json::to_value(check).unwrap_or_default();
            section(&mut out, "check", &value, self.origin(&format!("plan.checks.{}", check.name)));
        }
        out
    }

    /// `config show --output json`.
    #[must_use]
    pub(crate) fn show_json(&self) -> Value {
        let mut values = Vec::new();
        for entry in self.entries().into_iter().flat_map(|(_, entries)| entries) {
            let key = entry.path.join(".");
            values.push(json!({"key": key, "value": entry.value, "origin": entry.origin}));
        }
        for hook in &self.settings.plan.hooks {
            let key = format!("plan.hooks.{}", hook.name);
            values.push(json!({"key": key, "value": hook, "origin": self.origin(&key)}));
        }
        for notify in &self.settings.plan.notify {
            let key = format!("plan.notify.{}", notify.name);
            values.push(json!({"key": key, "value": notify, "origin": self.origin(&key)}));
        }
        for check in &self.settings.plan.checks {
            let key = format!("plan.checks.{}", check.name);
            values.push(json!({"key": key, "value": check, "origin": self.origin(&key)}));
        }
        json!({"version": VERSION, "plan": self.settings.plan.name, "values": values, "files": self.files})
    }
}

impl Checked {
    /// `config check --output json`. `exit_code` is that of the command.
    #[must_use]
    pub(crate) fn show_json(&self, exit_code: Exit) -> Value {
        let fault = |fault: &ConfigError| json!({"what": chain(fault), "hint": fault.hint()});
        json!({
            "version": VERSION,
            "files": self.files,
            "plans": self.plans,
            "faults": self.faults.iter().map(fault).collect::<Vec<_>>(),
            "exit_code": exit_code,
        })
    }

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

/// A section of an application or of whom to tell, with what is set in it.
fn section(out: &mut String, name: &str, value: &Value, origin: &Origin) {
    let _ = writeln!(out, "\n[[{name}]]  # {origin}");
    let unset = |v: &Value| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty);
    for (key, value) in value.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
        if !unset(value) {
            let _ = writeln!(out, "{key} = {}", toml_text(value));
        }
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
