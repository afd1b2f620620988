//! Metrics for node_exporter: what they say, that they are counted on, and when they are not written.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use rig::hooks::hook;
use rig::probe::{assert_settled, guards, is_thawed};
use rig::program::await_some;
use rig::window::in_the_window;
use rig::{Fs, Rig};

use crate::stuck::stuck_writer;

fn rig(configuration: &str) -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let folder = rig.path("metrics");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    configure(&rig, configuration);
    rig
}

fn configure(rig: &Rig, more: &str) {
    rig.configure(&format!("textfile = \"{}\"\n{more}", file(rig).display()));
}

fn file(rig: &Rig) -> std::path::PathBuf {
    rig.path("metrics/stillpoint.prom")
}

/// Every sample by its name and labels. promtool, of the packages of Prometheus, has nothing to say against it.
fn samples(rig: &Rig) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(file(rig)).unwrap();
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool is installed: scripts/test does that");
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.strip_prefix("stillpoint_").unwrap().to_owned(), value.parse().unwrap())
    };
    text.lines().filter(|l| !l.starts_with('#')).map(sample).collect()
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn what_ran_is_told_and_counted_on_whatever_happens_in_between() {
    let rig = rig("");
    let began = now();
    let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    let first = samples(&rig);
    let of = |samples: &BTreeMap<String, f64>, name: &str| {
        *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"))
    };
    let plan = "plan=\"default\"";
    for name in ["run_timestamp_seconds", "last_success_timestamp_seconds", "set_timestamp_seconds"] {
        let time = of(&first, &format!("{name}{{{plan}}}"));
        assert!(began <= time && time <= now(), "{name}: {time}");
    }
    assert_eq!(of(&first, &format!("runs_total{{{plan},exit_code=\"0\"}}")), 1.0);
    assert_eq!(of(&first, &format!("run_exit_code{{{plan}}}")), 0.0);
    for (label, value) in [("crash", 0.0), ("filesystem", 1.0), ("application", 0.0)] {
        assert_eq!(of(&first, &format!("set_label{{{plan},label=\"{label}\"}}")), value, "{label}");
    }
    let ms = |name: &str| record[name].as_f64().unwrap() / 1e3;
    assert!((of(&first, &format!("window_seconds{{{plan}}}")) - ms("window_ms")).abs() < 1e-9);
    assert!((of(&first, &format!("stall_seconds{{{plan}}}")) - ms("stall_ms")).abs() < 1e-9);
    assert!((of(&first, &format!("call_seconds{{{plan}}}")) - ms("call_ms")).abs() < 1e-9);
    assert_eq!(of(&first, &format!("pending_snapshots{{{plan}}}")), 2.0);
    assert!(!first.keys().any(|k| k.contains("kept") || k.contains("prune")), "nothing was pruned yet");
    assert_eq!(file(&rig).metadata().unwrap().mode() & 0o777, 0o644, "node_exporter has to read it");

    // A reboot empties /run; the file is lost, too.
    rig.await_quiet();
    std::fs::remove_dir_all(rig.path("run")).unwrap();
    std::fs::remove_file(file(&rig)).unwrap();
    configure(&rig, &hook("app", "exit 1", "true", ""));
    rig.run(&["snapshot"]).exits(20);
    configure(&rig, "[[hook]]\nname = \"none\"\npre = [\"/nonexistent\"]\ntimeout = \"1s\"\n");
    rig.run(&["snapshot"]).exits(78);
    let later = samples(&rig);
    for (code, times) in [("0", 1.0), ("20", 1.0), ("78", 1.0)] {
        assert_eq!(of(&later, &format!("runs_total{{{plan},exit_code=\"{code}\"}}")), times, "{code}");
    }
    assert_eq!(of(&later, &format!("run_exit_code{{{plan}}}")), 78.0);
    let success = format!("last_success_timestamp_seconds{{{plan}}}");
    assert_eq!(of(&later, &success), of(&first, &success), "a failure is no success");
    let set = format!("set_timestamp_seconds{{{plan}}}");
    assert_eq!(of(&later, &set), of(&first, &set), "the newest set is as old as before");

    // A prune tells what it has left. Another plan has a series of its own.
    configure(&rig, "[defaults.keep]\nlast = 1\n[plan.other]\n");
    rig.run(&["snapshot", "other"]).exits(0);
    for _ in 0..2 {
        rig.run(&["snapshot"]).exits(0);
    }
    rig.await_quiet();
    rig.run(&["prune", "--dry-run"]).exits(11);
    assert!(!samples(&rig).contains_key(&format!("kept_sets{{{plan}}}")), "a dry run counts nothing");
    rig.run(&["prune", "--yes"]).exits(0);
    let pruned = samples(&rig);
    assert_eq!(of(&pruned, &format!("kept_sets{{{plan}}}")), 1.0);
    // Two volumes of 1 GiB each.
    assert_eq!(of(&pruned, &format!("kept_bytes{{{plan}}}")), f64::from(2u32 << 30));
    assert_eq!(of(&pruned, &format!("removed_sets_total{{{plan}}}")), 2.0);
    assert_eq!(of(&pruned, &format!("prune_exit_code{{{plan}}}")), 0.0);
    assert_eq!(of(&pruned, "runs_total{plan=\"other\",exit_code=\"0\"}"), 1.0);
    assert_eq!(of(&pruned, &format!("runs_total{{{plan},exit_code=\"0\"}}")), 3.0);
    // A plan that is no longer configured is not told to be late for ever.
    configure(&rig, "[defaults.keep]\nlast = 1\n");
    rig.run(&["snapshot"]).exits(0);
    assert!(!samples(&rig).keys().any(|k| k.contains("other")));
    assert_settled(&rig);
}

/// Clones are counted, and are no set: nobody is told that a set is younger, or that a night was all right.
#[test]
fn clones_are_counted_apart_and_make_no_set_younger() {
    let rig = rig("");
    let plan = "plan=\"default\"";
    rig.run(&["snapshot"]).exits(0);
    let before = samples(&rig);
    assert!(!before.keys().any(|k| k.starts_with("clone_")), "{before:#?}");
    let began = now();
    let record = rig.run(&["clone", "-o", "json"]).exits(0).record();
    let after = samples(&rig);
    let of = |name: &str| *after.get(name).unwrap_or_else(|| panic!("no {name} in {after:#?}"));
    assert_eq!(of(&format!("clone_runs_total{{{plan},exit_code=\"0\"}}")), 1.0);
    assert_eq!(of(&format!("clone_run_exit_code{{{plan}}}")), 0.0);
    for name in ["clone_run_timestamp_seconds", "clone_timestamp_seconds"] {
        let time = of(&format!("{name}{{{plan}}}"));
        assert!(began <= time && time <= now(), "{name}: {time}");
    }
    for (label, value) in [("crash", 0.0), ("filesystem", 1.0), ("application", 0.0)] {
        assert_eq!(of(&format!("clone_label{{{plan},label=\"{label}\"}}")), value, "{label}");
    }
    for (name, field) in [("window", "window_ms"), ("stall", "stall_ms"), ("call", "call_ms")] {
        let seconds = record[field].as_f64().unwrap() / 1e3;
        assert!((of(&format!("clone_{name}_seconds{{{plan}}}")) - seconds).abs() < 1e-9, "{name}");
    }
    let others = |samples: &BTreeMap<String, f64>| {
        let other = |(name, _): &(&String, &f64)| !name.starts_with("clone_");
        samples.iter().filter(other).map(|(name, value)| (name.clone(), *value)).collect::<Vec<_>>()
    };
    assert_eq!(others(&after), others(&before), "of sets, nothing has changed");
    // Refused: counted, and the newest clones are as old as before.
    rig.run(&["clone", "--most-copies", "1"]).exits(23);
    rig.run(&["clone", "--type", "st1"]).exits(78);
    let refused = samples(&rig);
    for code in ["0", "23", "78"] {
        assert_eq!(refused[&format!("clone_runs_total{{{plan},exit_code=\"{code}\"}}")], 1.0, "{code}");
    }
    assert_eq!(refused[&format!("clone_run_exit_code{{{plan}}}")], 78.0);
    let newest = format!("clone_timestamp_seconds{{{plan}}}");
    assert_eq!((refused[&newest], others(&refused)), (after[&newest], others(&before)));
    assert_settled(&rig);
}

/// Somebody else could lead the write elsewhere, or there is nowhere to write: the run is as it is without.
#[test]
fn where_it_cannot_be_written_safely_it_is_not() {
    let rig = rig("");
    std::fs::set_permissions(rig.path("metrics"), PermissionsExt::from_mode(0o777)).unwrap();
    rig.run(&["snapshot"]).exits(0).says("cannot write the metrics").says("can be written by everybody");
    assert!(!file(&rig).exists());
    let doctor = rig.run(&["doctor", "-o", "json"]).record();
    let found = doctor["findings"].as_array().unwrap().iter().find(|f| f["id"] == "textfile").unwrap();
    assert_eq!(found["severity"], "warning", "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("chmod go-w"), "{found}");
    rig.await_quiet();
    std::fs::remove_dir(rig.path("metrics")).unwrap();
    rig.run(&["snapshot"]).exits(0).says("cannot write the metrics");
    rig.await_quiet();
    // It counted all the same.
    std::fs::create_dir(rig.path("metrics")).unwrap();
    std::fs::set_permissions(rig.path("metrics"), PermissionsExt::from_mode(0o755)).unwrap();
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(samples(&rig)["runs_total{plan=\"default\",exit_code=\"0\"}"], 3.0);
}

/// A run that finds the lock taken does not write: what holds it may have frozen the disk.
#[test]
fn nothing_is_written_while_another_run_is_in_its_window() {
    let rig = rig("[defaults.keep]\nlast = \"all\"\n");
    rig.run(&["snapshot"]).exits(0);
    rig.await_quiet();
    let before = std::fs::read(file(&rig)).unwrap();
    let window = in_the_window(&rig, &["snapshot"]);
    rig.run(&["snapshot"]).exits(75);
    // It removes nothing and waits for the run, before it counts.
    let prune = rig.spawn(&["prune"]);
    assert_eq!(std::fs::read(file(&rig)).unwrap(), before);
    window.end().exits(0);
    prune.end().exits(0);
    let after = samples(&rig);
    assert_eq!(after["runs_total{plan=\"default\",exit_code=\"0\"}"], 2.0);
    assert!(!after.contains_key("runs_total{plan=\"default\",exit_code=\"75\"}"), "{after:#?}");
    assert_eq!(after["kept_sets{plan=\"default\"}"], 2.0);
    assert_settled(&rig);
}

/// A filesystem may still be frozen, perhaps the one with the file: only memory is written to, until a run is sure.
#[test]
fn what_may_be_frozen_is_not_written_to_and_nothing_is_lost() {
    let rig = rig("");
    let mut writer = stuck_writer(&rig, "a");
    rig.run(&["snapshot", "--window", "6s"]).exits(40);
    assert!(!file(&rig).exists() && !rig.path("state/tally").exists());
    rig.run(&["snapshot"]).exits(40);
    assert!(!file(&rig).exists() && !rig.path("state/tally").exists());
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(is_thawed(&rig.mount("a")), "it stays frozen");
    await_some("the guards to go", || guards(&rig).is_empty().then_some(()));
    rig.run(&["snapshot"]).exits(0);
    let samples = samples(&rig);
    assert_eq!(samples["runs_total{plan=\"default\",exit_code=\"40\"}"], 2.0);
    assert_eq!(samples["runs_total{plan=\"default\",exit_code=\"0\"}"], 1.0);
    assert_settled(&rig);
}

/// By Prometheus's own tool: the shipped alerts are rules, and do what their tests say.
#[test]
fn the_shipped_alerts_fire_when_they_should_and_only_then() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).current_dir(&folder).output();
        let output = output.expect("promtool is installed: scripts/test does that");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    promtool(&["check", "rules", "stillpoint.rules.yml"]);
    promtool(&["test", "rules", "stillpoint.rules.test.yml"]);
    let rules = std::fs::read_to_string(folder.join("stillpoint.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(folder.join("stillpoint.rules.test.yml")).unwrap();
    let documented = include_str!("../../docs/monitoring.md");
    let metrics = include_str!("../../src/report/metrics.rs");
    for alert in rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
        assert!(documented.contains(&format!("`{alert}`")), "{alert} is not documented");
    }
    // A rule of a metric that is not there never fires.
    let known = |word: &str| metrics.contains(&format!("\"{word}\""));
    let words = rules.lines().filter_map(|l| l.trim().strip_prefix("expr: ")).flat_map(|expr| {
        expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter_map(|w| w.strip_prefix("stillpoint_"))
    });
    let mut found = 0;
    for word in words {
        assert!(known(word), "stillpoint_{word} is no metric");
        assert!(documented.contains(&format!("| `stillpoint_{word}")), "stillpoint_{word} is not documented");
        found += 1;
    }
    assert!(found >= 9, "{found}");
}
