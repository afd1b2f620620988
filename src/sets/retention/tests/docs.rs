//! docs/retention.md: its examples are run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const DOCS: &str = include_str!("../../../../docs/retention.md");

/// The policy of a block of TOML, as a run would load it.
fn load(toml: &str) -> Policy {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("stillpoint.toml");
    fs::write(&file, toml).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let nothing = crate::config::Overrides::default();
    let loaded = crate::config::load(root.path(), Some(&file), None, &nothing).unwrap();
    loaded.settings.plan.keep.unwrap().sets
}

fn section(title: &str) -> &'static str {
    let from = DOCS.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("{title}")).1;
    from.split_once("\n## ").map_or(from, |(section, _)| section)
}

fn block<'a>(section: &'a str, language: &str) -> &'a str {
    let from = section.split_once(&format!("```{language}\n")).unwrap().1;
    from.split_once("```").unwrap().0
}

/// What a list of the documentation says is left, with why.
#[test]
fn the_example_of_400_runs_is_what_is_left_of_them() {
    let section = section("An example, counted out");
    let policy = load(block(section, "toml"));
    let plan = decide(&request(&policy, "2027-01-20T04:00:00Z"), &daily(400, "2027-01-20"));
    let mut found = String::new();
    for set in plan.sets.iter().filter(|set| set.verdict == Verdict::Keep).rev() {
        let rules: Vec<_> = set.reasons.iter().map(ToString::to_string).collect();
        found += &format!("{}  {}\n", set.time.strftime("%Y-%m-%d"), rules.join(", "));
    }
    assert_eq!(block(section, "text"), found);
}

/// Every rule has a line in the table of rules, and nothing else has one.
#[test]
fn the_table_of_rules_has_every_rule() {
    let keys: Vec<_> = section("The rules")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key))
        .collect();
    let policy = serde_json::to_value(Policy::default()).unwrap();
    let known = policy.as_object().unwrap();
    for key in known.keys() {
        assert!(keys.contains(&key.as_str()), "{key} has no line");
    }
    assert_eq!(keys.len(), known.len());
}
