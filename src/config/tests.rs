//! The whole way: files below a root → settings, origins and errors.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::settings::{OnFailure, OnLower, UnmountedVolumes};
use super::*;
use crate::plan::{Consistency, Method};

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn get(root: &Path, plan: Option<&str>, flags: &Overrides) -> Result<Loaded, ConfigError> {
    load_with(root, None, plan, flags, &|_| None)
}

/// The settings of the plan `default` with `text` as the main file.
fn parse(text: &str) -> Result<Loaded, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, text);
    get(root.path(), None, &Overrides::default())
}

/// The error of `text`, without the directory, and its hint.
fn error(text: &str) -> (String, String) {
    let e = parse(text).expect_err(text);
    let message = e.to_string();
    let message = message.split_once("stillpoint.toml").map_or(message.as_str(), |(_, rest)| rest);
    (message.to_owned(), e.hint().unwrap_or_default())
}

#[test]
fn without_files_everything_is_a_documented_default() {
    let root = tempfile::tempdir().unwrap();
    let loaded = get(root.path(), None, &Overrides::default()).unwrap();
    let Settings { identity, ec2, state_dir, run_dir, plan } = &loaded.settings;
    assert_eq!(identity, &settings::IdentityOverrides::default());
    assert_eq!(ec2.endpoint, None);
    assert_eq!(ec2.call_timeout, Duration::from_secs(10));
    assert_eq!(state_dir, Path::new("/var/lib/stillpoint"));
    assert_eq!(run_dir, Path::new("/run/stillpoint"));
    assert_eq!(plan.name, "default");
    assert!(plan.mounts.is_empty() && plan.volumes.is_empty() && plan.hooks.is_empty());
    assert!(plan.boot_volume && !plan.allow_partial && !plan.copy_volume_tags);
    assert_eq!(plan.unmounted_volumes, UnmountedVolumes::Exclude);
    assert_eq!((plan.consistency, plan.on_lower), (None, OnLower::Fail));
    assert_eq!((plan.window, plan.freeze_timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    assert!(loaded.origins.values().all(|o| *o == Origin::Default), "{:?}", loaded.origins);
    assert_eq!(loaded.plans, ["default"]);
}

#[test]
fn every_key_arrives() {
    let loaded = parse(
        r#"
        state_dir = "/srv/state"
        run_dir = "/run/sp"
        [identity]
        instance_id = "i-0123456789abcdef0"
        region = "eu-central-1"
        imds_endpoint = "http://127.0.0.1:1338"
        [ec2]
        endpoint = "http://127.0.0.1:4566"
        call_timeout = "3s"
        [plan.default]
        mounts = ["/data/"]
        volumes = ["vol-0123456789abcdef0"]
        volume_tags = { "aws:cloudformation:stack-name" = "db" }
        exclude_mounts = ["/scratch"]
        exclude_volumes = ["vol-0fedcba9876543210"]
        boot_volume = false
        allow_partial = true
        unmounted_volumes = "crash"
        methods = { "/boot/efi" = "sync" }
        consistency = "crash"
        on_lower = "keep"
        window = "2s 500ms"
        freeze_timeout = "1s"
        copy_volume_tags = true
        tags = { Team = "storage" }
        description = "nightly"
        [[hook]]
        pre = ["/bin/true", "a b"]
        timeout = "1m"
        [[hook]]
        name = "second"
        post = ["/bin/true"]
        timeout = "5s"
        on_failure = "continue"
        plans = ["default"]
        "#,
    )
    .unwrap();
    let plan = &loaded.settings.plan;
    assert_eq!(loaded.settings.ec2.call_timeout, Duration::from_secs(3));
    assert_eq!(loaded.settings.identity.region.as_deref(), Some("eu-central-1"));
    assert_eq!(plan.mounts, [PathBuf::from("/data")]);
    assert_eq!(plan.mounts[0].as_os_str(), "/data");
    assert_eq!(plan.volume_tags["aws:cloudformation:stack-name"], "db");
    assert_eq!(plan.methods[Path::new("/boot/efi")], Method::Sync);
    assert_eq!((plan.consistency, plan.on_lower), (Some(Consistency::Crash), OnLower::Keep));
    assert_eq!(plan.window, Duration::from_millis(2500));
    assert_eq!(plan.hooks.len(), 2);
    assert_eq!((plan.hooks[0].name.as_str(), plan.hooks[0].on_failure), ("true", OnFailure::Abort));
    assert_eq!(plan.hooks[0].pre.as_deref(), Some(["/bin/true".to_owned(), "a b".to_owned()].as_slice()));
    assert_eq!((plan.hooks[1].name.as_str(), plan.hooks[1].on_failure), ("second", OnFailure::Continue));
    // No key was forgotten above: each one has an origin in the file.
    let defaults: Vec<_> = loaded.origins.iter().filter(|(_, o)| **o == Origin::Default).collect();
    assert!(defaults.is_empty(), "{defaults:?}");
}

#[test]
fn unknown_keys_name_their_place_and_the_nearest_known_key() {
    let (message, hint) = error("[defaults]\nwindow = \"5s\"\n  windov = \"5s\"\n");
    assert_eq!(message, ":3:3: unknown key `windov` in [defaults]");
    assert!(hint.starts_with("did you mean `window`? known keys here: mounts, volumes, "), "{hint}");
    assert!(hint.ends_with("volume_tags, methods, tags"), "{hint}");
    let (message, hint) = error("[plan.db]\nzzz = 1");
    assert_eq!(message, ":2:1: unknown key `zzz` in [plan.db]");
    assert!(hint.starts_with("known keys here: mounts"), "{hint}");
    assert_eq!(error("[defualts]").0, ":1:2: unknown key `defualts` in the top level");
    assert_eq!(error("[[hook]]\ntimout = \"1s\"").0, ":2:1: unknown key `timout` in [[hook]]");
    assert_eq!(error("plan.db.windo = \"1s\"").0, ":1:9: unknown key `windo` in [plan.db]");
    // The first in the file, not the first in the alphabet.
    assert_eq!(error("zz = 1\naa = 1").0, ":1:1: unknown key `zz` in the top level");
}

#[test]
fn wrong_values_name_their_place_and_what_to_write() {
    let cases = [
        (
            "[defaults]\nwindow = 10",
            ":2:10: `defaults.window` is `10`, a number without a unit",
            "write \"10s\"",
        ),
        (
            "[defaults]\nwindow = \"10\"",
            ":2:10: `defaults.window` is `10`, a number without a unit",
            "write \"10s\"",
        ),
        (
            "[defaults]\nwindow = 1.5",
            ":2:10: `defaults.window` is `1.5`, a number without a unit",
            "units are ms",
        ),
        (
            "[defaults]\nwindow = \"10min1\"",
            ":2:10: `defaults.window` is `10min1`, which is not a time",
            "units are",
        ),
        ("[defaults]\nwindow = 00:00:10", ":2:10: `defaults.window` must be a time", ""),
        ("[defaults]\nwindow = \"99ms\"", ":2:10: `defaults.window` is 99ms, outside 100ms to 5m", ""),
        ("[defaults]\nwindow = \"301s\"", ":2:10: `defaults.window` is 5m 1s, outside", ""),
        ("[defaults]\nmounts = \"/data\"", ":2:10: `defaults.mounts` must be a list, and is a string", ""),
        (
            "[defaults]\nmounts = [\n  \"/a\",\n  \"b\"]",
            ":4:3: `defaults.mounts` is \"b\", which is not an absolute",
            "/",
        ),
        (
            "[defaults]\nmethods = { data = \"sync\" }",
            ":2:13: `defaults.methods.data` is \"data\", which",
            "/",
        ),
        (
            "[defaults]\nmethods = { \"/d\" = \"freze\" }",
            ":2:20: `defaults.methods./d` is `freze`",
            "`freeze`",
        ),
        (
            "[defaults]\nvolumes = [\"vol-1\"]",
            ":2:12: `defaults.volumes` is wrong: `vol-1` is not a volume id",
            "",
        ),
        ("[defaults]\nboot_volume = \"no\"", ":2:15: `defaults.boot_volume` must be true or false", ""),
        ("[defaults]\ntags = { \"aws:x\" = \"\" }", ":2:10: `defaults.tags.aws:x` has the tag `aws:x`", ""),
        ("[defaults]\nconsistency = \"app\"", ":2:15: `defaults.consistency` is `app`", "`application`"),
        ("[identity]\nregion = \"x y\"", ":2:10: `identity.region` is `x y`", "eu-central-1"),
        ("[plan]\nwindow = \"5s\"", ":2:10: `plan.window` must be a table", "[plan.default]"),
        ("[plan.\"a/b\"]", ":1:7: `plan.a/b` is not a plan name", "letters"),
        ("state_dir = \"var\"", ":1:13: `state_dir` is \"var\"", "/"),
        ("a = = 1", ":1:5: ", ""),
    ];
    for (text, message, hint) in cases {
        let (found, found_hint) = error(text);
        assert!(found.starts_with(message), "{text}\nfound {found}\nwanted {message}");
        assert!(found_hint.contains(hint), "{text}\n{found_hint}");
    }
}

#[test]
fn hooks_are_checked() {
    let cases = [
        ("pre = [\"/bin/a\"]", ":1:1: `hook` has no `timeout`", "timeout = "),
        ("timeout = \"1s\"", ":1:1: `hook` has neither `pre` nor `post`", "pre = "),
        (
            "pre = [\"a\"]\ntimeout = \"1s\"",
            ":2:7: `hook.pre` starts with `a`, not an absolute path",
            "/bin/sh",
        ),
        ("pre = []\ntimeout = \"1s\"", ":2:7: `hook.pre` is empty", ""),
        ("pre = \"/bin/a -x\"\ntimeout = \"1s\"", ":2:7: `hook.pre` must be a list of words", "[\"/path"),
        ("post = [\"/bin/a\", 3]\ntimeout = \"1s\"", ":2:19: `hook.post` must be a string", ""),
        ("pre = [\"/bin/a\"]\ntimeout = \"0s\"", ":3:11: `hook.timeout` is 0s, outside", ""),
        ("pre = [\"/bin/a\"]\ntimeout = 10", ":3:11: `hook.timeout` is `10`", "10s"),
        ("name = \"a\\nb\"\npre = [\"/bin/a\"]\ntimeout = \"1s\"", ":2:8: `hook.name` must be", ""),
        (
            "pre = [\"/bin/a\"]\ntimeout = \"1s\"\nplans = [\"bd\"]",
            ":4:10: `hook.plans` names the plan `bd`",
            "default",
        ),
        (
            "pre = [\"/bin/a\"]\ntimeout = \"1s\"\n[[hook]]\npre = [\"/sbin/a\"]\ntimeout = \"1s\"",
            ":4:1: `hook` has the name `a`, as has the one at ",
            "another `name`",
        ),
    ];
    for (text, message, hint) in cases {
        let (found, found_hint) = error(&format!("[[hook]]\n{text}"));
        assert!(found.starts_with(message), "{text}\nfound {found}\nwanted {message}");
        assert!(found_hint.contains(hint), "{text}\n{found_hint}");
    }
}

#[test]
fn values_are_checked_against_each_other() {
    let (message, hint) = error("[defaults]\nwindow = \"3s\"\n[plan.default]\nfreeze_timeout = \"3s\"");
    assert!(
        message.starts_with(":4:1: `freeze_timeout` is 3s, not less than `window`, which is 3s (/"),
        "{message}"
    );
    assert!(message.ends_with("stillpoint.toml:2)"), "{message}");
    assert!(!hint.is_empty());
    let (message, _) = error("[defaults]\nfreeze_timeout = \"10s\"");
    assert!(message.contains("which is 10s (built-in default)"), "{message}");
    // A short window alone is no fault: the freeze's default follows.
    let plan = parse("[defaults]\nwindow = \"4s\"").unwrap().settings.plan;
    assert_eq!(plan.freeze_timeout, Duration::from_secs(2));

    let tags: String = (0..21).map(|i| format!("t{i} = \"\"\n")).collect();
    assert!(error(&format!("[defaults.tags]\n{tags}")).0.contains("`tags` has 21 tags, and may have 20"));
}

#[test]
fn later_files_win_key_by_key() {
    let root = tempfile::tempdir().unwrap();
    let r = root.path();
    put(
        r,
        MAIN_FILE,
        "[defaults]\nwindow = \"9s\"\ntags = { a = \"1\", b = \"1\" }\nmounts = [\"/a\", \"/b\"]\n\
         [[hook]]\nname = \"one\"\npre = [\"/bin/one\"]\ntimeout = \"1s\"\n\
         [[hook]]\nname = \"two\"\npre = [\"/bin/two\"]\ntimeout = \"1s\"\n",
    );
    put(
        r,
        "usr/lib/stillpoint/config.d/50-x.toml",
        "[defaults]\ntags = { b = \"2\" }\nmounts = [\"/c\"]\n[plan.db]\nwindow = \"8s\"\n\
         [[hook]]\nname = \"one\"\npre = [\"/bin/uno\"]\ntimeout = \"2s\"\n\
         [[hook]]\nname = \"three\"\npost = [\"/bin/three\"]\ntimeout = \"1s\"\nplans = [\"db\"]\n",
    );
    put(r, "etc/stillpoint/config.d/60-y.toml", "plan.db.boot_volume = false");
    let db = get(r, Some("db"), &Overrides::default()).unwrap();
    let plan = &db.settings.plan;
    assert_eq!((plan.window, plan.boot_volume), (Duration::from_secs(8), false));
    assert_eq!(plan.mounts, [PathBuf::from("/c")]);
    assert_eq!(plan.tags, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]));
    let programs: Vec<_> = plan.hooks.iter().map(|h| (h.name.as_str(), h.pre.is_some())).collect();
    assert_eq!(programs, [("one", true), ("two", true), ("three", false)]);
    assert_eq!(plan.hooks[0].timeout, Duration::from_secs(2));
    let at = |file: &str, line: usize| format!("{}:{line}", r.join(file).display());
    let origin = |key: &str| db.origin(key).to_string();
    assert_eq!(origin("plan.window"), at("usr/lib/stillpoint/config.d/50-x.toml", 5));
    assert_eq!(origin("plan.tags.a"), at(MAIN_FILE, 3));
    assert_eq!(origin("plan.tags.b"), at("usr/lib/stillpoint/config.d/50-x.toml", 2));
    assert_eq!(origin("plan.boot_volume"), at("etc/stillpoint/config.d/60-y.toml", 1));
    assert_eq!(origin("plan.hooks.one"), at("usr/lib/stillpoint/config.d/50-x.toml", 6));
    assert_eq!(origin("plan.on_lower"), "built-in default");

    let default = get(r, None, &Overrides::default()).unwrap().settings.plan;
    assert_eq!((default.window, default.hooks.len()), (Duration::from_secs(9), 2));
    // `--config` replaces the main file and looks at nothing else.
    put(r, "other.toml", "[defaults]\nwindow = \"7s\"");
    let other = load_with(r, Some(&r.join("other.toml")), None, &Overrides::default(), &|_| None).unwrap();
    assert_eq!((other.settings.plan.window, other.files.len()), (Duration::from_secs(7), 1));
}

#[test]
fn flags_win_and_a_choice_on_the_command_line_is_the_whole_choice() {
    let root = tempfile::tempdir().unwrap();
    let r = root.path();
    put(
        r,
        MAIN_FILE,
        "run_dir = \"/run/file\"\n[defaults]\nvolumes = [\"vol-0123456789abcdef0\"]\n\
         volume_tags = { Env = \"prod\" }\ntags = { a = \"1\" }\nexclude_mounts = [\"/x\"]\n",
    );
    let flags = Overrides {
        mounts: Some(vec!["/data/".into()]),
        window: Some(Duration::from_secs(1)),
        tags: Some(BTreeMap::from([("b".into(), "2".into())])),
        run_dir: Some("/run/flag".into()),
        no_boot_volume: Some(true),
        allow_partial: Some(false),
        exclude_mounts: Some(Vec::new()),
        ..Overrides::default()
    };
    let loaded = get(r, None, &flags).unwrap();
    let plan = &loaded.settings.plan;
    assert_eq!(plan.mounts, [PathBuf::from("/data")]);
    assert!(plan.volumes.is_empty() && plan.volume_tags.is_empty(), "the file's choice must not be added");
    assert_eq!((plan.tags.len(), plan.boot_volume, plan.allow_partial), (2, false, false));
    assert_eq!(plan.exclude_mounts, [PathBuf::from("/x")], "an empty flag is a flag not given");
    assert_eq!(loaded.settings.run_dir, Path::new("/run/flag"));
    assert_eq!(*loaded.origin("run_dir"), Origin::Flag("--run-dir"));
    assert_eq!(*loaded.origin("plan.mounts"), Origin::Flag("--mount"));
    assert_eq!(*loaded.origin("plan.volumes"), Origin::Flag("--mount"));
    assert_eq!(*loaded.origin("plan.tags.b"), Origin::Flag("--tag"));

    let bad = Overrides { mounts: Some(vec!["data".into()]), ..Overrides::default() };
    let e = get(r, None, &bad).unwrap_err();
    assert!(e.to_string().starts_with("command line --mount: `--mount` is \"data\""), "{e}");
    let bad = Overrides { window: Some(Duration::from_secs(301)), ..Overrides::default() };
    assert!(get(r, None, &bad).is_err());
}

#[test]
fn the_sdks_endpoint_variables_win_over_files_and_lose_to_flags() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, "[ec2]\nendpoint = \"http://file\"");
    let get = |flags: &Overrides, vars: &[(&str, &str)]| {
        let env = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        load_with(root.path(), None, None, flags, &env)
    };
    let both = [("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_EC2", "http://ec2")];
    let loaded = get(&Overrides::default(), &both).unwrap();
    assert_eq!(loaded.settings.ec2.endpoint.as_deref(), Some("http://ec2"));
    assert_eq!(*loaded.origin("ec2.endpoint"), Origin::Environment("AWS_ENDPOINT_URL_EC2"));
    let flags = Overrides { endpoint: Some("http://flag".into()), ..Overrides::default() };
    assert_eq!(get(&flags, &both).unwrap().settings.ec2.endpoint.as_deref(), Some("http://flag"));
    let ignored = [("AWS_ENDPOINT_URL", "http://all"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    let loaded = get(&Overrides::default(), &ignored).unwrap();
    assert_eq!(loaded.settings.ec2.endpoint.as_deref(), Some("http://file"));
    let e = get(&Overrides::default(), &[("AWS_ENDPOINT_URL", "nonsense")]).unwrap_err();
    assert!(e.to_string().starts_with("environment AWS_ENDPOINT_URL: "), "{e}");
}

#[test]
fn an_unknown_plan_is_an_error_with_the_nearest_name() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, "[plan.database]\n");
    let e = get(root.path(), Some("databse"), &Overrides::default()).unwrap_err();
    assert_eq!(e.to_string(), "there is no plan `databse`");
    assert_eq!(e.hint().unwrap(), "did you mean `database`? configured plans: database, default");
}

#[test]
fn check_finds_the_faults_of_all_files_and_all_plans() {
    let root = tempfile::tempdir().unwrap();
    let r = root.path();
    put(r, MAIN_FILE, "[plan.a]\nfreeze_timeout = \"10s\"\n[plan.b]\nfreeze_timeout = \"1m\"\n");
    let checked = check(r, None).unwrap();
    assert_eq!(checked.faults.len(), 2, "{:?}", checked.faults);
    assert!(checked.show().contains("plans: a, b, default\nerror: "), "{}", checked.show());
    put(r, MAIN_FILE, "x = 1");
    put(r, "etc/stillpoint/config.d/1.toml", "y = 1");
    put(r, "run/stillpoint/config.d/1.toml", "y = 1");
    put(r, "run/stillpoint/config.d/2.toml", "");
    let checked = check(r, None).unwrap();
    assert_eq!(checked.faults.len(), 2, "{:?}", checked.faults);
    let text = checked.show().replace(&format!("{}/", r.display()), "");
    assert!(
        text.starts_with(
            "files, later over earlier:\n  etc/stillpoint/stillpoint.toml\n  run/stillpoint/config.d/1.toml (not read: \
             replaced by etc/stillpoint/config.d/1.toml)\n  etc/stillpoint/config.d/1.toml\n  \
             run/stillpoint/config.d/2.toml (masked: empty or a link to /dev/null)\n"
        ),
        "{text}"
    );
    assert_eq!(checked.show_json()["files"][1]["status"], "replaced");
    put(r, MAIN_FILE, "");
    fs::remove_file(r.join("etc/stillpoint/config.d/1.toml")).unwrap();
    fs::remove_file(r.join("run/stillpoint/config.d/1.toml")).unwrap();
    assert!(check(r, None).unwrap().show().ends_with("no faults found\n"));
}

const EXAMPLE: &str = include_str!("../../packaging/examples/stillpoint.toml");

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
fn show_is_a_configuration_that_means_the_same() {
    let root = tempfile::tempdir().unwrap();
    let text = EXAMPLE.replace("[plan.db]", "[plan.db]\nmethods = { \"/boot/efi.d\" = \"sync\" }");
    put(root.path(), MAIN_FILE, &text);
    for plan in ["default", "db"] {
        let loaded = get(root.path(), Some(plan), &Overrides::default()).unwrap();
        let shown = loaded.show();
        put(root.path(), "shown.toml", &shown);
        let file = root.path().join("shown.toml");
        let again = load_with(root.path(), Some(&file), Some(plan), &Overrides::default(), &|_| None);
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
    let json = db.show_json();
    let window = json["values"].as_array().unwrap().iter().find(|v| v["key"] == "plan.window").unwrap();
    assert_eq!((&window["value"], &window["origin"]["kind"]), (&"5s".into(), &"file".into()));
}

#[test]
fn every_toml_block_in_the_documentation_is_a_configuration() {
    let docs = [
        ("configuration.md", include_str!("../../docs/configuration.md")),
        ("hooks.md", include_str!("../../docs/hooks.md")),
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

#[test]
fn every_key_is_in_the_documentation() {
    use super::raw::{Ec2Input, HookKeys, IdentityInput, Input, PlanInput, TopInput};
    let text = include_str!("../../docs/configuration.md");
    let tables = [TopInput::KEYS, IdentityInput::KEYS, Ec2Input::KEYS, PlanInput::KEYS, HookKeys::KEYS];
    for key in tables.concat() {
        assert!(text.contains(&format!("| `{key}` |")), "{key} is not documented");
    }
}

/// Text that looks enough like a configuration to get past the TOML parser now and then.
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
        let flags = Overrides { mounts: Some(vec![text.clone().into()]), endpoint: Some(text), ..Overrides::default() };
        let _ = load_with(Path::new("/nonexistent"), None, None, &flags, &|_| None);
    }
}
