//! The shipped files and the documented examples are valid, and no text makes the reader panic.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::files::MAIN_FILE;
use super::super::*;
use super::{get, put};

const EXAMPLE: &str = include_str!("../../../packaging/examples/stillpoint.toml");

#[test]
fn the_shipped_example_is_a_configuration() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, EXAMPLE);
    let checked = check(root.path(), None).unwrap();
    assert!(checked.faults.is_empty(), "{:?}", checked.faults);
    let db = get(root.path(), Some("db"), &Overrides::default()).unwrap();
    assert_eq!(db.settings.plan.hooks.len(), 1);
    assert_eq!(db.settings.plan.tags.len(), 2);
    assert!(get(root.path(), None, &Overrides::default()).unwrap().settings.plan.hooks.is_empty());
}

#[test]
fn the_example_of_a_group_is_a_configuration_and_is_shown_as_it_is_meant() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, include_str!("../../../packaging/examples/group.toml"));
    let checked = check(root.path(), None).unwrap();
    assert!(checked.faults.is_empty(), "{:?}", checked.faults);
    let loaded = get(root.path(), Some("orders"), &Overrides::default()).unwrap();
    assert_eq!(loaded.settings.plan.group.as_ref().unwrap().members.len(), 3);
    let shown = loaded.show();
    put(root.path(), "shown.toml", &shown);
    let file = root.path().join("shown.toml");
    let again = load(root.path(), Some(&file), Some("orders"), &Overrides::default());
    assert_eq!(again.expect(&shown).settings, loaded.settings, "{shown}");
    assert_eq!(get(root.path(), None, &Overrides::default()).unwrap().settings.plan.group, None);
}

/// What the example has in comments can be uncommented.
#[test]
fn every_setting_in_a_comment_of_the_example_is_one() {
    let setting = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let key = rest.split([' ', '.']).next()?;
        let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (rest.starts_with('[') || (is_key && rest[key.len()..].starts_with(" = "))).then(|| rest.to_owned())
    };
    let lines: Vec<_> =
        EXAMPLE.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned())).collect();
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, &lines.join("\n"));
    let checked = check(root.path(), None).unwrap();
    assert!(checked.faults.is_empty(), "{:?}", checked.faults);
    let keep = get(root.path(), Some("db"), &Overrides::default()).unwrap().settings.plan.keep.unwrap();
    assert!(keep.sets.daily.is_some() && keep.sets.within_hourly.is_some() && keep.copies.is_some());
}

#[test]
fn show_is_a_configuration_that_means_the_same() {
    let root = tempfile::tempdir().unwrap();
    let text = EXAMPLE.replace("[plan.db]", "[plan.db]\nmethods = { \"/boot/efi.d\" = \"sync\" }");
    put(root.path(), MAIN_FILE, &text);
    for plan in ["default", "db"] {
        let loaded = get(root.path(), Some(plan), &Overrides::default()).unwrap();
        let shown = loaded.show();
        put(root.path(), "shown.toml", &shown);
        let file = root.path().join("shown.toml");
        let again = load(root.path(), Some(&file), Some(plan), &Overrides::default());
        assert_eq!(again.expect(&shown).settings, loaded.settings, "{shown}");
    }
    let db = get(root.path(), Some("db"), &Overrides::default()).unwrap();
    let shown = db.show().replace(&format!("{}/", root.path().display()), "");
    let shown = shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let shown = format!("{}\n", shown.join("\n"));
    assert!(shown.contains("\n[plan.db]\n"), "{shown}");
    assert!(shown.contains("\nwindow = \"5s\" # etc/stillpoint/stillpoint.toml:"), "{shown}");
    assert!(shown.contains("\nfreeze_timeout = \"2s 500ms\" # built-in default\n"), "{shown}");
    assert!(shown.contains("\nmethods.\"/boot/efi.d\" = \"sync\" "), "{shown}");
    assert!(shown.contains("\n# description: not set "), "{shown}");
    assert!(shown.contains("\nvolume_tags = {} # built-in default\n"), "{shown}");
    let json = db.show_json();
    let window = json["values"].as_array().unwrap().iter().find(|v| v["key"] == "plan.window").unwrap();
    assert_eq!((&window["value"], &window["origin"]["kind"]), (&"5s".into(), &"file".into()));
}

#[test]
fn every_toml_block_in_the_documentation_is_a_configuration() {
    let docs = [
        ("configuration.md", include_str!("../../../docs/configuration.md")),
        ("hooks.md", include_str!("../../../docs/hooks.md")),
        ("databases.md", include_str!("../../../docs/databases.md")),
        ("retention.md", include_str!("../../../docs/retention.md")),
        ("monitoring.md", include_str!("../../../docs/monitoring.md")),
        ("copies.md", include_str!("../../../docs/copies.md")),
        ("README.md", include_str!("../../../README.md")),
    ];
    for (name, text) in docs {
        let blocks: Vec<_> = text.split("```toml\n").skip(1).filter_map(|b| b.split_once("```")).collect();
        assert!(!blocks.is_empty(), "{name} has no example");
        for (block, _) in blocks {
            let root = tempfile::tempdir().unwrap();
            put(root.path(), MAIN_FILE, block);
            let checked = check(root.path(), None).unwrap();
            assert!(checked.faults.is_empty(), "{name}:\n{block}\n{:?}", checked.faults);
        }
    }
}

/// The example in the head of each shipped hook.
#[test]
fn the_example_of_every_shipped_hook_is_a_configuration() {
    for (name, text) in [
        ("sql-session", include_str!("../../../packaging/hooks/sql-session")),
        ("mongodb-fsynclock", include_str!("../../../packaging/hooks/mongodb-fsynclock")),
    ] {
        let lines = text.lines().filter_map(|l| l.strip_prefix("#   ")).collect::<Vec<_>>().join("\n");
        let root = tempfile::tempdir().unwrap();
        put(root.path(), MAIN_FILE, &lines);
        let checked = check(root.path(), None).unwrap();
        assert!(checked.faults.is_empty(), "{name}:\n{lines}\n{:?}", checked.faults);
        let hooks = get(root.path(), None, &Overrides::default()).unwrap().settings.plan.hooks;
        let argv: Vec<_> = hooks.iter().flat_map(|h| h.commands()).collect();
        assert!(
            !argv.is_empty() && argv.iter().all(|(_, argv)| argv[0].ends_with(&format!("/hooks/{name}")))
        );
    }
}

/// Text that is similar enough to a configuration that the TOML parser sometimes accepts it.
fn likely_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "[defaults]",
            "[plan.a]",
            "[plan]",
            "[[hook]]",
            "[hook]",
            "[identity]",
            "plan.a.",
            "tags",
            "methods",
            "window",
            "mounts",
            "timeout",
            "pre",
            " = ",
            "\n",
            "[",
            "]",
            "{",
            "}",
            ",",
            "\"10s\"",
            "10",
            "\"/a\"",
            "true",
            "'",
            "\"",
            ".",
            "#",
            "é",
            "\"aws:x\"",
            "1979-05-27",
            "-inf",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), likely_text()]) {
        if let Err(e) = raw::parse(Path::new("/x.toml"), &text) {
            prop_assert!(e.to_string().starts_with("/x.toml:"), "{}", e);
        }
    }

    #[test]
    fn no_value_makes_a_check_panic(text in any::<String>()) {
        let _ = (duration(&text), consistency(&text), key_value(&text));
        let flags = Overrides { mounts: Some(vec![text.clone().into()]), endpoint_url: Some(text), ..Overrides::default() };
        let _ = load(Path::new("/nonexistent"), None, None, &flags);
    }
}

/// The script timeout of Data Lifecycle Manager is 120 s at most (DLM API reference, Script), and everything that
/// `freeze` may wait for has to fit: what was begun is undone within it, too.
#[test]
fn the_limits_of_the_document_for_data_lifecycle_manager_add_up_to_less_than_its_script_timeout() {
    const SCRIPT_TIMEOUT: u64 = 120;
    let document = include_str!("../../../packaging/examples/ssm-data-lifecycle-manager.yaml");
    let docs = include_str!("../../../docs/orchestrated.md");
    let number = |before: &str, after: &str| -> u64 {
        let rest = document.split_once(before).unwrap_or_else(|| panic!("{before}")).1;
        rest.split_once(after).unwrap().0.trim().parse().unwrap_or_else(|e| panic!("{before}: {e}"))
    };
    // The plan that its head shows.
    let plan: Vec<_> = document.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
    let from = plan.iter().position(|l| l.starts_with("[plan.dlm]")).unwrap();
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, &plan[from..].join("\n"));
    let settings = get(root.path(), Some("dlm"), &Overrides::default()).unwrap().settings;
    // A mount by an automount may take 90 s.
    assert_eq!(settings.plan.automounts, crate::config::settings::Automounts::Name);
    let hooks = Duration::from_secs(number("`timeout`s add up to ", " s."));
    let imds = Duration::from_secs(5);
    let calls = settings.ec2.call_timeout;
    // Each hook is ended by two signals.
    let freeze = imds + calls + hooks + settings.plan.flush_timeout + settings.plan.freeze_timeout;
    let undo = hooks + crate::quiesce::process::GRACE * 2;
    let limit = Duration::from_secs(number("timeout --kill-after=5 ", "'"));
    assert!(freeze + undo <= limit, "{:?} of {limit:?}", freeze + undo);
    assert!(limit.as_secs() + 5 < SCRIPT_TIMEOUT && SCRIPT_TIMEOUT < number("timeoutSeconds: '", "'"));
    assert_eq!(number("script timeout of ", " s (ExecutionTimeout"), SCRIPT_TIMEOUT);
    assert!(docs.contains(&format!("\"ExecutionTimeout\": {SCRIPT_TIMEOUT}")));
}

/// What the documentation gives to be copied is JSON.
#[test]
fn every_policy_in_the_documentation_is_json() {
    let mut seen = 0;
    for text in [
        include_str!("../../../README.md"),
        include_str!("../../../docs/orchestrated.md"),
        include_str!("../../../docs/configuration.md"),
    ] {
        for block in text.split("```json\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(block);
            assert!(parsed.is_ok(), "{parsed:?}: {block}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}
