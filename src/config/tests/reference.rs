//! What the documentation says of a key is what the code does.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::super::hooks::section::SECTIONS;
use super::super::input::Input;
use super::super::node::{Document, Table};
use super::super::raw::{Ec2Input, IdentityInput, PlanInput, TopInput};
use super::super::reference::{Key, commented, plain, tables};
use super::super::{checks, copies, group, keep, lock, notify};
use super::super::{files::MAIN_FILE, *};
use super::{get, put};

const DOCUMENTED: &str = include_str!("../../../docs/configuration.md");

#[test]
fn docs_configuration_md_has_each_key_as_it_is_here_and_no_other() {
    let all = tables();
    let mut missing = String::new();
    for key in all.iter().flat_map(|table| &table.keys) {
        let row = format!("| `{}` | {} | {} | {} |\n", key.name, key.kind, key.default, key.meaning);
        if !DOCUMENTED.contains(&row) {
            missing.push_str(&row);
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md lacks:\n{missing}");
    let blocks = DOCUMENTED.split("| Key | Type | Default | Meaning |\n").skip(1);
    let rows = blocks.flat_map(|block| block.lines().skip(1).take_while(|line| line.starts_with('|')));
    assert_eq!(rows.count(), all.iter().map(|table| table.keys.len()).sum::<usize>(), "rows of no key");
}

/// hooks.md and databases.md say more about the keys of each section.
#[test]
fn each_key_of_a_section_is_where_the_section_is_described() {
    let text = concat!(include_str!("../../../docs/hooks.md"), include_str!("../../../docs/databases.md"));
    for key in SECTIONS.iter().flat_map(|section| (section.documented)()) {
        assert!(text.contains(&format!("| `{}`", key.name)), "{} is not documented", key.name);
    }
}

#[test]
fn every_key_has_words_for_all_that_is_asked_of_it() {
    for table in tables() {
        for key in &table.keys {
            let all = [key.kind, key.default, key.meaning];
            assert!(all.iter().all(|text| !text.is_empty() && text.trim() == *text), "{key:?}");
            assert!(!key.meaning.ends_with('.'), "{key:?}");
            // The pages and the default configuration have no links.
            assert!(!plain(key.meaning).contains("]("), "{key:?}");
            assert!(!plain(key.meaning).contains(" below"), "{key:?}");
            let is_table = ["keep", "lock", "copy", "copies"].contains(&key.name);
            assert!(is_table || key.value().is_some(), "{key:?} has no value");
        }
    }
}

/// What a key of a plan means is in one group; the groups know no other.
#[test]
fn every_key_of_a_plan_is_in_one_group() {
    let found: Vec<_> = tables()
        .iter()
        .filter(|table| table.header == "[defaults]")
        .flat_map(|table| table.keys.iter().map(|key| key.name).collect::<Vec<_>>())
        .collect();
    let mut known = PlanInput::KEYS.to_vec();
    let mut found_once = found.clone();
    known.sort_unstable();
    found_once.sort_unstable();
    assert_eq!(found_once, known);
}

/// What reads a table.
type Reader = fn(&Table<'_>) -> Result<(), ConfigError>;

/// Reads `key = value` by the reader of the key.
fn read(of: Reader, key: &Key) -> Result<(), String> {
    let Some(value) = key.value() else { return Ok(()) };
    let text = format!("{} = {value}\n", key.name);
    let doc = Document { file: Arc::from(Path::new("/x.toml")), text: &text };
    let parsed = DeTable::parse(&text).map_err(|e| format!("{text}: {e}"))?;
    of(&Table::top(&doc, parsed.get_ref())).map_err(|e| format!("{text}: {e}"))
}

#[test]
fn what_the_documentation_gives_as_a_value_is_one() {
    fn keys<T: Input>() -> (Reader, Vec<Key>) {
        (|table| T::read(table).map(drop), T::documented())
    }
    let mut all = vec![
        keys::<TopInput>(),
        keys::<IdentityInput>(),
        keys::<Ec2Input>(),
        keys::<group::GroupInput>(),
        keys::<PlanInput>(),
        keys::<keep::KeepInput>(),
        keys::<lock::LockInput>(),
        keys::<copies::CopyInput>(),
        (notify::values, notify::documented()),
        (checks::values, checks::documented()),
    ];
    all.extend(SECTIONS.iter().map(|section| (section.values, (section.documented)())));
    let mut values = 0;
    for (of, keys) in all {
        for key in &keys {
            read(of, key).unwrap_or_else(|e| panic!("{e}"));
            values += usize::from(key.value().is_some());
        }
        let unknown = Key { name: "no_such_key", ..keys[0] };
        assert!(read(of, &unknown).is_err(), "the reader takes anything");
    }
    assert!(values > 100, "{values}");
}

/// What the code does without a key is what the documentation says.
#[test]
fn the_documented_defaults_count() {
    let root = tempfile::tempdir().unwrap();
    let shown = get(root.path(), None, &Overrides::default()).unwrap().show_json();
    let values = shown["values"].as_array().unwrap();
    let mut compared = 0;
    for table in tables() {
        let prefix = match (table.id, table.header.as_str()) {
            (_, "") => "",
            (_, "[identity]") => "identity.",
            (_, "[ec2]") => "ec2.",
            (_, "[defaults]") => "plan.",
            _ => continue,
        };
        for key in &table.keys {
            let name = format!("{prefix}{}", key.name);
            let counts = &values.iter().find(|v| v["key"] == name.as_str()).expect(&name)["value"];
            if key.has_default() {
                let text = format!("value = {}", key.value().unwrap());
                let parsed: toml::Table = toml::from_str(&text).unwrap();
                let said = serde_json::to_value(&parsed["value"]).unwrap();
                assert_eq!(&said, counts, "{name}");
                compared += 1;
            } else if key.default == "not set" {
                assert!(counts.is_null(), "{name}: {counts}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn the_default_configuration_sets_nothing_and_has_every_key() {
    let text = commented();
    let root = tempfile::tempdir().unwrap();
    let without = get(root.path(), None, &Overrides::default()).unwrap().settings;
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "something is set");
    put(root.path(), MAIN_FILE, &text);
    let checked = check(root.path(), None).unwrap();
    assert!(checked.faults.is_empty(), "{:?}", checked.faults);
    assert_eq!(get(root.path(), None, &Overrides::default()).unwrap().settings, without);
    // The list of tables `copy` has a table of its own.
    let has_line = |key: &&Key| key.value().is_some() && key.kind != "list of tables";
    for key in tables().iter().flat_map(|table| &table.keys).filter(has_line) {
        let line = format!("\n#{} = {}\n", key.name, key.value().unwrap());
        assert!(text.contains(&line), "{line}");
    }
    for line in text.lines() {
        // A key and its value stay on one line.
        assert!(line.chars().count() <= 80 || line.starts_with('#') && !line.starts_with("# "), "{line}");
        assert!(!line.contains("]("), "a link: {line}");
    }
}

/// A header and a key whose number signs are taken off are what they were written for.
#[test]
fn each_table_of_the_default_configuration_can_be_uncommented() {
    for (header, keys) in [
        ("[identity]", ["region", "imds_timeout"].as_slice()),
        ("[ec2]", &["retry_timeout"]),
        ("[defaults]", &["window", "freeze_timeout", "tags", "consistency"]),
        ("[defaults.keep]", &["daily", "within_weekly"]),
        ("[defaults.lock]", &["mode", "days", "cool_off"]),
        ("[[defaults.copy]]", &["region", "key"]),
        ("[[hook]]", &["pre", "post", "timeout"]),
        ("[[notify]]", &["command", "on", "timeout"]),
    ] {
        let mut here = false;
        let whole = commented();
        let lines = whole.lines().map(|line| {
            let bare = line.strip_prefix('#').unwrap_or(line);
            if bare.starts_with('[') {
                here = bare == header;
                return if here { bare.to_owned() } else { line.to_owned() };
            }
            let key = bare.split(' ').next().unwrap_or_default();
            if here && keys.contains(&key) { bare.to_owned() } else { line.to_owned() }
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let set = text.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(set, keys.len(), "{header}: {text}");
        let root = tempfile::tempdir().unwrap();
        put(root.path(), MAIN_FILE, &text);
        let checked = check(root.path(), None).unwrap();
        assert!(checked.faults.is_empty(), "{header}: {:?}", checked.faults);
    }
}
