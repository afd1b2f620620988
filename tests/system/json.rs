//! What the program prints as JSON, command by command: as its schema says, and the schema notices each change.
//! Every other test's JSON is held against the schemas too, but not every schema against changes.

use rig::hooks::{hook, note};
use rig::{Fs, Rig, schema};
use serde_json::Value;

/// Keys that need not be there.
const ABSENT: &[&str] =
    &["lost", "hint", "nth", "of", "period", "until", "by", "departure", "aws", "Condition"];
/// Keys whose values may be anything: those of a configuration, and what an application reports.
const FREE: &[&str] = &["value", "facts", "Condition"];

/// Runs a command, and tries every change of what it printed on its schema.
fn tried(rig: &Rig, arguments: &[&str], code: i32) -> Value {
    let run = rig.spawn(arguments);
    let document = run.end().exits(code).record();
    let line = std::iter::once("stillpoint").chain(arguments.iter().copied());
    let name = schema::of(line.map(std::ffi::OsStr::new)).unwrap_or_else(|| panic!("{arguments:?}"));
    schema::check(&name, &document);
    let mut may = ABSENT.to_vec();
    // In a freeze for others it is always there.
    if !document.to_string().contains("\"status\"") {
        may.retain(|key| *key != "hint");
    }
    let unnoticed = schema::unnoticed(&name, &document, &may, FREE);
    // What the aws CLI's files say is for people: any value, any origin.
    let unnoticed: Vec<_> = unnoticed.into_iter().filter(|u| !u.starts_with("/aws/")).collect();
    assert_eq!(unnoticed, Vec::<String>::new(), "docs/schema/{name}.json takes these\n{document:#}");
    document
}

#[test]
fn every_document_is_as_its_schema_says_and_no_other() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "[[recycle_bin.rule]]\ndays = 7\n");
    let rules = "[defaults.keep]\nlast = 1\nat_least = 2\nwithin_daily = \"1d\"\n";
    rig.configure(&format!("{rules}{}", hook("app", &note(&rig, "pre"), "exit 3", "")));
    let json = |words: &[&'static str]| [words, &["-o", "json"]].concat();
    tried(&rig, &json(&["plan"]), 0);
    tried(&rig, &json(&["doctor"]), 0);
    tried(&rig, &json(&["rehearse"]), 11);
    tried(&rig, &json(&["config", "show"]), 0);
    tried(&rig, &json(&["config", "check"]), 0);
    tried(&rig, &["iam-policy"], 0);
    let record = tried(&rig, &json(&["snapshot"]), 11);
    assert!(record["stall_ms"].as_f64().unwrap() <= record["window_ms"].as_f64().unwrap());
    assert!(record["stall_ms"].as_f64().unwrap() > 0.0, "{record:#}");
    let kept = rig.path("state/sets").join(format!("{}.json", record["run_id"].as_str().unwrap()));
    schema::check_text("record-1", &std::fs::read_to_string(kept).unwrap());
    tried(&rig, &json(&["freeze", "--for", "60s"]), 0);
    assert_eq!(tried(&rig, &json(&["status"]), 0)["runs"].as_array().unwrap().len(), 1);
    tried(&rig, &json(&["thaw"]), 11);

    rig.configure(rules);
    let set = record["run_id"].as_str().unwrap();
    for _ in 0..3 {
        rig.run(&["snapshot"]).exits(0);
    }
    let with = |words: &[&'static str], more: &[&'static str]| -> Vec<String> {
        let words = [words, &[set], more, &["-o", "json"]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let on = |words: &[&'static str], more: &[&'static str], code: i32| {
        let words = with(words, more);
        tried(&rig, &words.iter().map(String::as_str).collect::<Vec<_>>(), code)
    };
    assert_eq!(on(&["wait"], &[], 0)["state"], "completed");
    rig.await_quiet();
    let kept = on(&["keep"], &["--until", "2099-12-31"], 0);
    assert_eq!(
        (&kept["sets"][0]["keep_until"], &kept["sets"][0]["snapshots"][0]["changed"]),
        (&"2099-12-31".into(), &true.into())
    );
    let shared = on(&["share"], &["--account", "111122223333"], 0);
    assert_eq!(shared["sets"][0]["snapshots"][1]["accounts"], serde_json::json!(["111122223333"]));
    on(&["show"], &[], 0);
    assert_eq!(on(&["verify"], &[], 0)["verdict"], "sound");
    tried(&rig, &json(&["list"]), 0);
    let plan = tried(&rig, &json(&["prune", "--dry-run"]), 0);
    assert_eq!(plan["sets"][0]["reasons"][0]["rule"], "keep_until", "{plan:#}");
    on(&["unshare"], &[], 0);
    let locked = on(&["lock"], &["--governance", "--days", "3"], 0);
    assert!(locked["sets"][0]["snapshots"].as_array().unwrap().iter().all(|s| s["changed"] == true));
    on(&["show"], &[], 0);
    on(&["unlock"], &["--dry-run"], 0);
    on(&["unlock"], &[], 0);
    on(&["tier"], &["--archive", "--dry-run"], 0);
    assert_eq!(on(&["release"], &[], 0)["sets"][0]["keep_until"], Value::Null);
    assert_eq!(on(&["release"], &[], 0)["sets"][0]["snapshots"][0]["changed"], false);
    assert_eq!(on(&["delete"], &["--dry-run"], 0)["dry_run"], true);
    let gone = on(&["delete"], &[], 0);
    assert!(
        gone["sets"][0]["snapshots"].as_array().unwrap().iter().all(|s| s["changed"] == true),
        "{gone:#}"
    );
    let binned = tried(&rig, &json(&["list", "--bin"]), 0);
    assert_eq!(binned["bin"][0]["snapshots"].as_array().unwrap().len(), 2, "{binned:#}");
    let back = on(&["undelete"], &[], 0);
    assert_eq!(back["sets"][0]["snapshots"].as_array().unwrap().len(), 2);
    rig.run(&["wait", set]).exits(0);
    rig.configure("[defaults.keep]\nlast = 1\n");
    assert_eq!(tried(&rig, &json(&["prune"]), 11)["refusals"][0]["refusal"], "more_than_half");
    let pruned = tried(&rig, &json(&["prune", "--yes"]), 0);
    assert_eq!(pruned["removed"].as_array().unwrap().len(), 3, "{pruned:#}");
    rig.configure("[plan.x]\nwindow = 3\n");
    assert_eq!(tried(&rig, &json(&["config", "check"]), 78)["faults"].as_array().unwrap().len(), 1);
}

/// A lock has an end of its own beside that of the reason that it is a part of.
#[test]
fn what_holds_a_set_is_said_once() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults.keep]\nlast = 1\n");
    let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    rig.run(&["snapshot"]).exits(0);
    rig.await_quiet();
    let locked = format!("SnapshotId={}", record["snapshots"][0]["id"].as_str().unwrap());
    rig.sim(&["call", "LockSnapshot", &locked, "LockMode=governance", "LockDuration=5"]);
    let plan = tried(&rig, &["prune", "-n", "-o", "json"], 0);
    let reason = &plan["sets"][0]["reasons"][0];
    assert_eq!((&reason["hold"], reason["locked_until"].is_string()), (&"locked".into(), true), "{plan:#}");
    let shown = tried(&rig, &["show", record["run_id"].as_str().unwrap(), "-o", "json"], 0);
    assert_eq!(shown["holds"][0]["hold"], "locked");
}

/// The set was lost, or the time was over: both are told.
#[test]
fn how_a_wait_ended_is_told() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "");
    rig.configure("");
    rig.sim(&["faults", "add", "--action", "CreateSnapshots", "--kind", "snapshot-error"]);
    let set = rig.run(&["snapshot", "-o", "json"]).record()["run_id"].as_str().unwrap().to_owned();
    let lost = tried(&rig, &["wait", &set, "-o", "json"], 11);
    assert_eq!(lost["state"], "error", "{lost:#}");
    assert!(lost["reason"].is_string(), "{lost:#}");
}
