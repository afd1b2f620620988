//! Whoever is to be told how a run ended is told, once everything is thawed, and changes nothing by it.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use rig::hooks::hook;
use rig::journald::Journald;
use rig::patience::let_pass;
use rig::probe::{assert_clean, assert_settled, is_thawed};
use rig::program::{Run, await_some, put_executable};
use rig::{Fs, Rig, schema};
use serde_json::Value;
use std::time::Duration;
use stillpoint::report::event::Kind;

/// A section that keeps each document, and what it was started with, as `NAME.N.json` and `NAME.N.env`.
fn keeps(rig: &Rig, name: &str, more: &str) -> String {
    let script = rig.path(&format!("{name}.sh"));
    let text = format!(
        "#!/bin/sh\nn=$(ls {0}.*.json 2>/dev/null | wc -l)\nenv > {0}.$n.env; id -un >> {0}.$n.env\n\
         cat > {0}.$n.part && mv {0}.$n.part {0}.$n.json\n",
        rig.path(name).display()
    );
    put_executable(&script, text);
    format!(
        "[[notify]]\nname = \"{name}\"\ncommand = [\"{}\"]\ntimeout = \"20s\"\n{more}\n",
        script.display()
    )
}

/// The documents that it was given, each as its schema says.
fn told(rig: &Rig, name: &str) -> Vec<Value> {
    let file = |n: usize| std::fs::read_to_string(rig.path(&format!("{name}.{n}.json"))).ok();
    let all: Vec<String> = (0..).map_while(file).collect();
    all.iter().for_each(|text| schema::check_text("event-1", text));
    all.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn events(document: &Value) -> Vec<&str> {
    document["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect()
}

#[test]
fn each_is_told_what_it_asked_for_and_no_more() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let sections = |more: &str| {
        let all =
            keeps(&rig, "all", "on = [\"failure\", \"lower\", \"success\"]\nenvironment = { TOPIC = \"x\" }");
        let failures = keeps(&rig, "failures", "");
        let lower = keeps(&rig, "lower", "on = [\"lower\"]");
        format!("{more}{all}{failures}{lower}")
    };
    rig.configure(&sections("[defaults.keep]\nlast = 1\n"));
    let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    let good = told(&rig, "all").remove(0);
    assert_eq!(
        (&good["outcome"], &good["command"], &good["plan"]),
        (&"success".into(), &"snapshot".into(), &"default".into())
    );
    assert_eq!(events(&good), ["set-taken"]);
    let event = &good["events"][0];
    assert_eq!((&event["set"], &event["achieved"]), (&record["run_id"], &"filesystem".into()));
    assert_eq!(event["message_id"], Kind::SetTaken.message_id());
    assert_eq!(event["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(schema::unnoticed("event-1", &good, &[], &[]), Vec::<String>::new());

    // By the rules of hooks: nothing of the caller's environment.
    let env = std::fs::read_to_string(rig.path("all.0.env")).unwrap();
    for line in
        ["STILLPOINT_OUTCOME=success", "STILLPOINT_EXIT_CODE=0", "STILLPOINT_PLAN=default", "TOPIC=x", "root"]
    {
        assert!(env.lines().any(|l| l == line), "{line} is not in:\n{env}");
    }
    assert!(!env.contains("AWS_"), "{env}");

    // The first hook degrades, and the release of the second fails: less, and two more events.
    let app = hook("app", "exit 1", "true", "on_failure = \"degrade\"") + &hook("db", "true", "exit 2", "");
    rig.configure(&sections(&format!("[defaults]\non_degraded = \"keep\"\n{app}")));
    rig.run(&["snapshot"]).exits(11);
    let lower = told(&rig, "all").remove(1);
    assert_eq!(events(&lower), ["set-lower", "after-failed", "left-held"]);
    assert_eq!((&lower["outcome"], &lower["exit_code"]), (&"failure".into(), &11.into()));
    assert_eq!(events(&told(&rig, "failures")[0]), ["after-failed", "left-held"]);
    assert_eq!(events(&told(&rig, "lower")[0]), ["set-lower"]);

    // Refused, by a configuration of which only a part can be read.
    rig.configure(&sections("[defaults]\nwindow = 3\n"));
    rig.run(&["snapshot"]).exits(78);
    assert_eq!(events(&told(&rig, "failures")[1]), ["set-failed"]);
    let reason = told(&rig, "failures")[1]["events"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("a number without a unit"), "{reason}");

    // A prune of three sets that are as they should be. The one that is less stays for some days.
    rig.configure(&sections("[defaults.keep]\nlast = 1\n"));
    for _ in 0..3 {
        rig.run(&["snapshot"]).exits(0);
    }
    rig.await_quiet();
    rig.run(&["prune", "--dry-run"]).exits(11);
    rig.run(&["prune"]).exits(11);
    let held = told(&rig, "failures");
    assert_eq!((held.len(), events(&held[2])), (3, vec!["prune-held-back"]), "a dry run tells nobody");
    rig.run(&["prune", "--yes"]).exits(0);
    let pruned = told(&rig, "all").pop().unwrap();
    assert_eq!((events(&pruned), &pruned["command"]), (vec!["set-removed"; 3], &"prune".into()));
    assert_eq!(told(&rig, "lower").len(), 1);
    assert_settled(&rig);
}

#[test]
fn clones_are_told_as_what_they_are() {
    let at_once = "[volumes]\nseconds_to_create = 0.2\nseconds_to_initialize_copy = 0\n";
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], at_once);
    let sections = |more: &str| {
        let all = keeps(&rig, "all", "on = [\"failure\", \"lower\", \"success\"]");
        format!("{more}{all}{}", keeps(&rig, "failures", ""))
    };
    rig.configure(&sections(""));
    let journald = Journald::start();
    let made = Run::start(journald.of(rig.command(&["clone", "-o", "json"]))).end();
    let record = made.exits(0).record();
    let good = told(&rig, "all").remove(0);
    assert_eq!(
        (&good["outcome"], &good["command"], events(&good)),
        (&"success".into(), &"clone".into(), vec!["clones-made"])
    );
    let event = &good["events"][0];
    assert_eq!((&event["set"], &event["achieved"]), (&Value::Null, &"filesystem".into()));
    assert_eq!((&event["run_id"], &event["snapshots"]), (&record["run_id"], &Value::Array(Vec::new())));
    let ids: Vec<&Value> = record["clones"].as_array().unwrap().iter().map(|c| &c["id"]).collect();
    assert_eq!(event["volumes"].as_array().unwrap().iter().collect::<Vec<_>>(), ids);
    let entry = journald.take("clones-made");
    let words: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(
        (entry["STILLPOINT_VOLUMES"].as_str(), entry["PRIORITY"].as_str()),
        (words.join(" ").as_str(), "5")
    );
    assert!(!entry.contains_key("STILLPOINT_SET"), "{entry:#?}");

    // Less than requested, and of a release that fails.
    let mended = rig.path("mended");
    let post = format!("test -e {}", mended.display());
    let app = hook("app", "exit 1", "true", "on_failure = \"degrade\"") + &hook("db", "true", &post, "");
    rig.configure(&sections(&format!("[defaults]\non_degraded = \"keep\"\n{app}")));
    rig.run(&["clone"]).exits(11);
    let lower = told(&rig, "all").remove(1);
    assert_eq!(events(&lower), ["clones-lower", "clones-after-failed", "left-held"]);
    assert_eq!(events(&told(&rig, "failures")[0]), ["clones-after-failed", "left-held"]);

    // None is left of what was made in part; refused by EC2's limits; by a configuration that cannot be read.
    rig.configure(&sections(""));
    rig.sim(&["faults", "add", "--action", "CopyVolumes", "--call", "2", "--kind", "error"]);
    rig.run(&["clone"]).exits(23);
    rig.run(&["clone", "--most-copies", "1"]).exits(23);
    rig.configure(&sections("[defaults]\nwindow = 3\n"));
    rig.run(&["clone"]).exits(78);
    let failures = told(&rig, "failures");
    assert_eq!(failures.len(), 4);
    for failed in &failures[1..] {
        let event = &failed["events"][0];
        assert_eq!((&failed["command"], events(failed)), (&"clone".into(), vec!["clones-failed"]));
        assert!(event["text"].as_str().unwrap().ends_with("nothing was cloned"), "{event}");
        assert_eq!(event["volumes"], Value::Array(Vec::new()));
        assert!(!event["reason"].as_str().unwrap_or_default().is_empty(), "{event}");
    }
    // A dry run tells nobody.
    rig.configure(&sections(""));
    rig.run(&["clone", "--dry-run", "--type", "st1"]).exits(78);
    assert_eq!(told(&rig, "failures").len(), 4);
    // What was left held is released once its command can. The journal of the clones that nobody sees stays for a while.
    std::fs::write(mended, "").unwrap();
    rig.run(&["snapshot"]).exits(0).says("EC2 shows no clones of it");
    assert_clean(&rig);
}

/// A command that fails, one that nobody may start, one that does not end, one that does not read: each is told of,
/// and none is more than a warning.
#[test]
fn what_becomes_of_a_command_changes_no_result() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let loose = rig.path("loose.sh");
    put_executable(&loose, "#!/bin/sh\ntouch \"$0.ran\"\n");
    std::fs::set_permissions(&loose, PermissionsExt::from_mode(0o777)).unwrap();
    let section = |name: &str, argv: &str, timeout: &str| {
        format!(
            "[[notify]]\nname = \"{name}\"\ncommand = [{argv}]\non = [\"success\"]\ntimeout = \"{timeout}\"\n"
        )
    };
    rig.configure(
        &[
            section("fails", "\"/bin/sh\", \"-c\", \"echo no way; exit 3\"", "20s"),
            section("loose", &format!("\"{}\"", loose.display()), "20s"),
            section("gone", "\"/nonexistent/tell\"", "20s"),
            section("hangs", "\"/bin/sh\", \"-c\", \"sleep 3000 & sleep 3000\"", "1s"),
            section("deaf", "\"/bin/true\"", "20s"),
            keeps(&rig, "after", "on = [\"success\"]"),
        ]
        .concat(),
    );
    let journald = Journald::start();
    let ended = Run::start(journald.of(rig.command(&["snapshot"]))).end();
    ended.exits(0);
    assert_eq!(told(&rig, "after").len(), 1, "the others do not keep it");
    assert!(!rig.path("loose.sh.ran").exists(), "somebody else could have written it");
    let names = ["set-taken", "notify-failed", "notify-failed", "notify-failed", "notify-failed"];
    let entries = journald.await_names(&names);
    let reasons: Vec<&str> = entries[1..].iter().map(|e| e["STILLPOINT_REASON"].as_str()).collect();
    for (reason, says) in reasons.iter().zip([
        "[[notify]] `fails` failed with exit code 3; its last line was: no way",
        "`loose` could not be started: ",
        "`gone` could not be started: ",
        "`hangs` timed out and was killed",
    ]) {
        assert!(reason.contains(says), "{reasons:#?}");
    }
    // doctor says so before.
    let found = rig.run(&["doctor", "-o", "json"]).record();
    let notify: Vec<&Value> =
        found["findings"].as_array().unwrap().iter().filter(|f| f["id"] == "notify").collect();
    assert!(notify.len() >= 2 && notify.iter().all(|f| f["severity"] == "warning"), "{notify:#?}");
    assert_settled(&rig);
}

/// It is started when everything is thawed and the lock is free, also by a run that a signal ended.
#[test]
fn nothing_is_frozen_and_no_lock_is_held_while_it_runs() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let waits = format!(
        "touch {0}; while [ ! -e {1} ]; do sleep 0.05; done",
        rig.path("told").display(),
        rig.path("go").display()
    );
    rig.configure(&format!(
        "[[notify]]\nname = \"waits\"\ncommand = [\"/bin/sh\", \"-c\", \"{waits}\"]\non = [\"success\", \"failure\"]\ntimeout = \"60s\"\n"
    ));
    let first = rig.spawn(&["snapshot"]);
    await_some("it is told", || rig.path("told").exists().then_some(()));
    assert!(rig.mounts().iter().all(|mount| is_thawed(mount)));
    assert_eq!(rig.journals(), Vec::<String>::new());
    let other = rig.spawn(&["rehearse"]);
    other.end().exits(0);
    std::fs::write(rig.path("go"), "").unwrap();
    first.end().exits(0);

    std::fs::remove_file(rig.path("told")).unwrap();
    let window = rig::window::in_the_window(&rig, &["snapshot"]);
    window.signal(Signal::SIGTERM);
    let ended = window.end();
    assert_eq!(ended.signal, Some(Signal::SIGTERM as i32), "{ended:?}");
    assert!(rig.path("told").exists(), "nobody was told of a run that was stopped");
    let_pass("nothing more is started", Duration::from_millis(100));
    assert_settled(&rig);
}
