//! All stages: files below a root → settings, origins and errors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::MAIN_FILE;
use super::settings::{
    Automounts, Expedite, HookKind, MissingMounts, OnDegraded, OnFailure, UnmountedVolumes,
};
use super::*;
use crate::consistency::{Consistency, Method};

mod copies;
mod group;
mod keep;
mod layers;
mod lock;
mod redis;
mod reference;
mod sections;
mod shipped;
mod values;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn get(root: &Path, plan: Option<&str>, flags: &Overrides) -> Result<Loaded, ConfigError> {
    load(root, None, plan, flags)
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
    let Settings { identity, ec2, state_dir, run_dir, textfile, plan } = &loaded.settings;
    assert_eq!(textfile, &None);
    assert_eq!(identity, &settings::IdentityOverrides::default());
    assert_eq!(ec2.endpoint_url, None);
    assert_eq!(ec2.call_timeout, Duration::from_secs(10));
    assert_eq!(ec2.retry_timeout, Duration::from_secs(30));
    assert_eq!(ec2.volume_interval, Duration::from_secs(15));
    assert_eq!(state_dir, Path::new("/var/lib/stillpoint"));
    assert_eq!(run_dir, Path::new("/run/stillpoint"));
    assert_eq!(plan.name, "default");
    assert!(plan.mounts.is_empty() && plan.volumes.is_empty() && plan.hooks.is_empty());
    assert!(plan.notify.is_empty() && plan.checks.is_empty());
    assert_eq!(plan.keep, None);
    assert!(!plan.exclude_boot_volume && !plan.allow_partial && !plan.copy_volume_tags);
    assert_eq!(plan.unmounted_volumes, UnmountedVolumes::Exclude);
    assert_eq!(plan.rcu_expedited, Expedite::Auto);
    assert_eq!((plan.automounts, plan.missing_mounts), (Automounts::Mount, MissingMounts::Degrade));
    assert_eq!((plan.consistency, plan.on_degraded), (None, OnDegraded::Fail));
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
        textfile = "/srv/metrics/sp.prom"
        [identity]
        instance_id = "i-0123456789abcdef0"
        region = "eu-central-1"
        imds_endpoint = "http://127.0.0.1:1338"
        imds_timeout = "2m"
        [ec2]
        endpoint_url = "http://127.0.0.1:4566"
        call_timeout = "3s"
        retry_timeout = "1m"
        volume_interval = "1s"
        [plan.default]
        mounts = ["/data/"]
        volumes = ["vol-0123456789abcdef0"]
        volume_tags = { "aws:cloudformation:stack-name" = "db" }
        exclude_mounts = ["/scratch"]
        exclude_volumes = ["vol-0fedcba9876543210"]
        exclude_boot_volume = true
        allow_partial = true
        unmounted_volumes = "crash"
        automounts = "name"
        missing_mounts = "warn"
        methods = { "/boot/efi" = "sync", "/srv" = "unmount" }
        stop_units = ["db.service"]
        unmount_timeout = "20s"
        consistency = "crash"
        on_degraded = "keep"
        window = "2s 500ms"
        freeze_timeout = "1s"
        busy_timeout = "3h"
        flush_timeout = "2m"
        rcu_expedited = true
        copy_volume_tags = true
        wait = true
        allow_pid_namespace = true
        tags = { Team = "storage" }
        host_key = "db-1"
        description = "nightly"
        luks_key_files = ["/etc/luks.key"]
        [[plan.default.copy]]
        region = "eu-west-1"
        encrypt = true
        key = "alias/backup"
        within = "4h"
        [plan.default.keep]
        last = 3
        hourly = 24
        daily = 7
        weekly = 4
        monthly = 12
        quarterly = 8
        yearly = 3
        within = "2d"
        within_hourly = "3d"
        within_daily = "30d"
        within_weekly = "6mo"
        within_monthly = "1y"
        within_quarterly = "2y"
        within_yearly = "9y"
        verified = 2
        at_least = 3
        min_age = "6h"
        failed = "1d"
        of_period = "first"
        timezone = "Europe/Berlin"
        max_deletes = 9
        delete_shared = true
        [plan.default.keep.copies]
        last = 3
        hourly = 24
        daily = 7
        weekly = 4
        monthly = 12
        quarterly = 8
        yearly = 3
        within = "2d"
        within_hourly = "3d"
        within_daily = "30d"
        within_weekly = "6mo"
        within_monthly = "1y"
        within_quarterly = "2y"
        within_yearly = "9y"
        verified = 2
        at_least = 3
        min_age = "6h"
        failed = "1d"
        of_period = "first"
        timezone = "Europe/Berlin"
        max_deletes = 9
        delete_shared = true
        [defaults.lock]
        mode = "compliance"
        days = 30
        cool_off = "24h"
        yes_nobody_can_undo_it = false
        [[hook]]
        pre = ["/bin/true", "a b"]
        timeout = "1m"
        [[hook]]
        name = "second"
        post = ["/bin/true"]
        timeout = "5s"
        on_failure = "degrade"
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
    assert_eq!(plan.methods[Path::new("/srv")], Method::Unmount);
    assert_eq!(
        (plan.stop_units.as_slice(), plan.unmount_timeout),
        (["db.service".to_owned()].as_slice(), Duration::from_secs(20))
    );
    assert_eq!((plan.consistency, plan.on_degraded), (Some(Consistency::Crash), OnDegraded::Keep));
    assert_eq!((plan.automounts, plan.missing_mounts), (Automounts::Name, MissingMounts::Warn));
    assert_eq!(plan.window, Duration::from_millis(2500));
    assert_eq!(plan.busy_timeout, Duration::from_secs(3 * 3600));
    assert_eq!(plan.flush_timeout, Duration::from_secs(120));
    assert_eq!(plan.lock.as_ref().map(|lock| lock.days), Some(30));
    assert_eq!(plan.luks_key_files, [PathBuf::from("/etc/luks.key")]);
    assert_eq!(plan.hooks.len(), 2);
    assert_eq!((plan.hooks[0].name.as_str(), plan.hooks[0].on_failure), ("true", OnFailure::Abort));
    let HookKind::Hook(first) = &plan.hooks[0].kind else { panic!("{:?}", plan.hooks[0]) };
    assert_eq!(first.pre.as_deref(), Some(["/bin/true".to_owned(), "a b".to_owned()].as_slice()));
    assert_eq!((plan.hooks[1].name.as_str(), plan.hooks[1].on_failure), ("second", OnFailure::Degrade));
    // The file above has every key: none has the origin "default".
    let defaults: Vec<_> = loaded.origins.iter().filter(|(_, o)| **o == Origin::Default).collect();
    assert!(defaults.is_empty(), "{defaults:?}");
}

#[test]
fn unknown_keys_name_their_place_and_the_nearest_known_key() {
    let (message, hint) = error("[defaults]\nwindow = \"5s\"\n  windov = \"5s\"\n");
    assert_eq!(message, ":3:3: unknown key `windov` in [defaults]");
    assert!(hint.starts_with("did you mean `window`? known keys here: mounts, volumes, "), "{hint}");
    assert!(hint.ends_with("volume_tags, methods, tags, keep, lock"), "{hint}");
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
        (
            "[defaults]\nexclude_boot_volume = \"no\"",
            ":2:23: `defaults.exclude_boot_volume` must be true or false",
            "",
        ),
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
            ":4:1: `hook` has the name `a`, as has the [[hook]] at ",
            "another `name`",
        ),
    ];
    for (text, message, hint) in cases {
        let (found, found_hint) = error(&format!("[[hook]]\n{text}"));
        assert!(found.starts_with(message), "{text}\nfound {found}\nwanted {message}");
        assert!(found_hint.contains(hint), "{text}\n{found_hint}");
    }
}

/// A fault of one kind of section must not be told as one of another.
#[test]
fn the_fault_of_a_section_names_its_own_kind() {
    let keys = |section: &str| match section {
        "hook" => "pre = [\"/bin/a\"]\ntimeout = \"1s\"\n",
        "session" => "command = [\"/bin/a\"]\ntimeout = \"1s\"\n",
        "hook_directory" => "path = \"/d\"\ntimeout = \"1s\"\n",
        "systemd" => "units = [\"a.service\"]\n",
        "container" => "engine = \"docker\"\ncontainers = [\"a\"]\n",
        _ => "",
    };
    let mut last = "redis";
    for section in super::hooks::section::SECTIONS.map(|s| s.name) {
        let text = |more: &str| format!("[[{section}]]\n{}{more}", keys(section));
        let (found, _) = error(&text("plans = [\"nightly\"]"));
        assert!(found.contains(&format!("`{section}.plans` names the plan `nightly`")), "{found}");
        let (found, _) = error(&text("name = \"\""));
        assert!(found.contains(&format!("`{section}.name` must be")), "{found}");
        let both = format!("[[{last}]]\nname = \"x\"\n{}{}", keys(last), text("name = \"x\""));
        let (found, _) = error(&both);
        assert!(
            found.contains(&format!("`{section}` has the name `x`, as has the [[{last}]] at ")),
            "{found}"
        );
        if keys(section).contains("timeout") {
            let (found, hint) = error(&text("").replace("timeout = \"1s\"\n", ""));
            assert!(
                found.contains(&format!("`{section}` has no `timeout`")) && !hint.contains("hook"),
                "{hint}"
            );
        }
        last = section;
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
    let (message, hint) = error("[defaults]\nstop_units = [\"db.service\"]\nmethods = { \"/d\" = \"sync\" }");
    assert!(message.starts_with(":2:1: `stop_units` names units, but no mount"), "{message}");
    assert!(hint.contains("hooks"), "{hint}");
    let (message, hint) = error("[defaults]\nmethods = { \"/d\" = \"unmount\" }\nstop_units = [\"db\"]");
    assert!(message.starts_with(":3:15: `defaults.stop_units` is `db`"), "{message}");
    assert!(hint.contains("postgresql.service"), "{hint}");
    // A short window alone is no fault: the default of `freeze_timeout` follows it.
    let plan = parse("[defaults]\nwindow = \"4s\"").unwrap().settings.plan;
    assert_eq!(plan.freeze_timeout, Duration::from_secs(2));

    let tags: String = (0..21).map(|i| format!("t{i} = \"\"\n")).collect();
    assert!(error(&format!("[defaults.tags]\n{tags}")).0.contains("`tags` has 21 tags, and may have 20"));
}

#[test]
fn who_may_not_read_the_configuration_hears_who_may() {
    let error = |kind: std::io::ErrorKind| ConfigError::Read { path: MAIN_FILE.into(), source: kind.into() };
    let hint = error(std::io::ErrorKind::PermissionDenied).hint().unwrap();
    assert!(hint.contains("runs as root"), "{hint}");
    assert_eq!(error(std::io::ErrorKind::NotFound).hint(), None);
}
