//! Which of several files, flags and variables wins, and what `config` prints about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::files::MAIN_FILE;
use super::super::settings::{Hook, HookKind, OnDegraded};
use super::super::*;
use super::{get, put};
use crate::consistency::Consistency;

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
    put(r, "etc/stillpoint/config.d/60-y.toml", "plan.db.exclude_boot_volume = true");
    let db = get(r, Some("db"), &Overrides::default()).unwrap();
    let plan = &db.settings.plan;
    assert_eq!((plan.window, plan.exclude_boot_volume), (Duration::from_secs(8), true));
    assert_eq!(plan.mounts, [PathBuf::from("/c")]);
    assert_eq!(plan.tags, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]));
    let has_pre = |h: &Hook| matches!(&h.kind, HookKind::Hook(c) if c.pre.is_some());
    let programs: Vec<_> = plan.hooks.iter().map(|h| (h.name.as_str(), has_pre(h))).collect();
    assert_eq!(programs, [("one", true), ("two", true), ("three", false)]);
    assert_eq!(plan.hooks[0].timeout, Duration::from_secs(2));
    let at = |file: &str, line: usize| format!("{}:{line}", r.join(file).display());
    let origin = |key: &str| db.origin(key).to_string();
    assert_eq!(origin("plan.window"), at("usr/lib/stillpoint/config.d/50-x.toml", 5));
    assert_eq!(origin("plan.tags.a"), at(MAIN_FILE, 3));
    assert_eq!(origin("plan.tags.b"), at("usr/lib/stillpoint/config.d/50-x.toml", 2));
    assert_eq!(origin("plan.exclude_boot_volume"), at("etc/stillpoint/config.d/60-y.toml", 1));
    assert_eq!(origin("plan.hooks.one"), at("usr/lib/stillpoint/config.d/50-x.toml", 6));
    assert_eq!(origin("plan.on_degraded"), "built-in default");

    let default = get(r, None, &Overrides::default()).unwrap().settings.plan;
    assert_eq!((default.window, default.hooks.len()), (Duration::from_secs(9), 2));
    // `--config` replaces the main file and all drop-ins.
    put(r, "other.toml", "[defaults]\nwindow = \"7s\"");
    let other = load(r, Some(&r.join("other.toml")), None, &Overrides::default()).unwrap();
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
        exclude_boot_volume: Some(true),
        allow_partial: Some(false),
        exclude_mounts: Some(Vec::new()),
        ..Overrides::default()
    };
    let loaded = get(r, None, &flags).unwrap();
    let plan = &loaded.settings.plan;
    assert_eq!(plan.mounts, [PathBuf::from("/data")]);
    assert!(plan.volumes.is_empty() && plan.volume_tags.is_empty(), "the file's choice must not be added");
    assert_eq!((plan.tags.len(), plan.exclude_boot_volume, plan.allow_partial), (2, true, false));
    assert_eq!(plan.exclude_mounts, [PathBuf::from("/x")], "an empty flag is a flag not given");
    assert_eq!(loaded.settings.run_dir, Path::new("/run/flag"));
    assert_eq!(*loaded.origin("run_dir"), Origin::Flag("--run-dir"));
    assert_eq!(*loaded.origin("plan.mounts"), Origin::Flag("--mount"));
    assert_eq!(*loaded.origin("plan.volumes"), Origin::Flag("--mount"));
    assert_eq!(*loaded.origin("plan.tags.b"), Origin::Flag("--tag"));

    // Nothing is left out and nothing chosen by a flag without a value.
    let nothing = Overrides {
        mounts: Some(Vec::new()),
        volumes: Some(Vec::new()),
        volume_tags: Some(BTreeMap::new()),
        exclude_volumes: Some(Vec::new()),
        ..Overrides::default()
    };
    put(r, MAIN_FILE, "[defaults]\nmounts = [\"/a\"]\nexclude_volumes = [\"vol-0123456789abcdef0\"]");
    assert_eq!(
        get(r, None, &nothing).unwrap().settings,
        get(r, None, &Overrides::default()).unwrap().settings
    );
    let [one, other] = ["vol-0000000000000000a", "vol-0000000000000000b"].map(|v| v.parse().unwrap());
    let flags = Overrides {
        volumes: Some(vec![one]),
        volume_tags: Some(BTreeMap::from([("Env".into(), "test".into())])),
        exclude_volumes: Some(vec![other]),
        ..Overrides::default()
    };
    let plan = get(r, None, &flags).unwrap().settings.plan;
    assert_eq!(
        (Some(&plan.volumes), Some(&plan.volume_tags)),
        (flags.volumes.as_ref(), flags.volume_tags.as_ref())
    );
    assert_eq!(Some(&plan.exclude_volumes), flags.exclude_volumes.as_ref());
    assert!(plan.mounts.is_empty(), "the file's choice must not be added");

    let bad = Overrides { mounts: Some(vec!["data".into()]), ..Overrides::default() };
    let e = get(r, None, &bad).unwrap_err();
    assert!(e.to_string().starts_with("command line --mount: `--mount` is \"data\""), "{e}");
    let bad = Overrides { window: Some(Duration::from_secs(301)), ..Overrides::default() };
    assert!(get(r, None, &bad).is_err());
}

#[test]
fn every_flag_arrives_over_what_a_file_says() {
    let root = tempfile::tempdir().unwrap();
    let r = root.path();
    put(
        r,
        MAIN_FILE,
        "state_dir = \"/file\"\n[identity]\nregion = \"eu-central-1\"\ninstance_id = \"i-0123456789abcdef0\"\n\
         imds_endpoint = \"http://file\"\n[plan.default]\nexclude_mounts = [\"/x\"]\nconsistency = \"crash\"\n\
         volume_tags = { File = \"1\" }\n",
    );
    let flags = Overrides {
        region: Some("us-east-1".into()),
        instance_id: Some("i-0fedcba9876543210".parse().unwrap()),
        imds_endpoint: Some("http://flag".into()),
        state_dir: Some("/flag".into()),
        exclude_mounts: Some(vec!["/y".into()]),
        allow_partial: Some(true),
        consistency: Some(Consistency::Filesystem),
        on_degraded: Some(OnDegraded::Keep),
        volume_tags: Some(BTreeMap::from([("Flag".into(), String::new())])),
        ..Overrides::default()
    };
    let loaded = get(r, None, &flags).unwrap();
    let (identity, plan) = (&loaded.settings.identity, &loaded.settings.plan);
    assert_eq!(
        (&identity.region, &identity.instance_id, &identity.imds_endpoint),
        (&flags.region, &flags.instance_id, &flags.imds_endpoint)
    );
    assert_eq!(Some(&loaded.settings.state_dir), flags.state_dir.as_ref());
    assert_eq!(Some(&plan.exclude_mounts), flags.exclude_mounts.as_ref());
    assert_eq!((plan.allow_partial, plan.consistency), (true, flags.consistency));
    assert_eq!(plan.on_degraded, OnDegraded::Keep);
    assert_eq!(plan.volume_tags.keys().collect::<Vec<_>>(), ["Flag"], "the plan's are not added");
    assert_eq!(*loaded.origin("identity.region"), Origin::Flag("--region"));
    let shown = loaded.show_json();
    let origin = |key: &str| {
        let values = shown["values"].as_array().unwrap();
        values.iter().find(|v| v["key"] == key).unwrap()["origin"].clone()
    };
    assert_eq!(origin("identity.region"), serde_json::json!({"kind": "flag", "name": "--region"}));
    assert_eq!(origin("run_dir"), serde_json::json!({"kind": "default"}));

    let reserved = Some(BTreeMap::from([("aws:x".to_owned(), String::new())]));
    let e = get(r, None, &Overrides { tags: reserved, ..Overrides::default() }).unwrap_err();
    assert!(e.to_string().contains("`--tag` has the tag `aws:x`"), "{e}");
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
    let hook = "[[hook]]\nname = \"a\"\npre = [\"/a\"]\ntimeout = \"1s\"\n";
    put(r, MAIN_FILE, &format!("{hook}plans = [\"none\"]\n"));
    put(r, "etc/stillpoint/config.d/1.toml", &hook.replace("name = \"a\"\n", ""));
    let faults = check(r, None).unwrap().faults;
    assert!(faults.iter().any(|f| f.to_string().contains("names the plan `none`")), "{faults:?}");
    assert!(faults.iter().any(|f| f.to_string().contains("has the name `a`")), "{faults:?}");
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
    put(r, MAIN_FILE, "");
    fs::remove_file(r.join("etc/stillpoint/config.d/1.toml")).unwrap();
    fs::remove_file(r.join("run/stillpoint/config.d/1.toml")).unwrap();
    assert!(check(r, None).unwrap().show().ends_with("no faults found\n"));
}

/// Two databases without explicit names are two hooks: the second must not replace the first.
#[test]
fn only_a_name_that_both_were_given_replaces() {
    let files = |first: &str, second: &str| {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "etc/stillpoint/config.d/10-a.toml", &format!("[[redis]]\nport = 1\n{first}"));
        put(root.path(), "etc/stillpoint/config.d/20-b.toml", &format!("[[redis]]\nport = 2\n{second}"));
        get(root.path(), None, &Overrides::default()).map(|l| l.settings.plan.hooks.len())
    };
    for (first, second) in [("", ""), ("name = \"redis\"", ""), ("", "name = \"redis\"")] {
        let error = files(first, second).unwrap_err();
        assert!(error.to_string().contains("has the name `redis`, as has the [[redis]] at"), "{error}");
        assert!(error.hint().unwrap().contains("give both the same `name`"));
    }
    assert_eq!(files("name = \"r\"", "name = \"r\"").unwrap(), 1);
    assert_eq!(files("", "name = \"other\"").unwrap(), 2);
}
