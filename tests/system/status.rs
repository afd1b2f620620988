//! `status`: what may be frozen and what is owed, and a probe that cannot hang the command.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::hooks::{hook, note, noting};
use rig::listener::Listener;
use rig::probe::{assert_settled, guards, watchdogs};
use rig::program::{Ended, Run, await_some};
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};
use serde_json::Value;

use super::rescue::{Unmounted, abandoned, alone};

fn status(rig: &Rig, arguments: &[&str]) -> Ended {
    Run::start(rig.bare_command(&[&["status"], arguments].concat())).end()
}

/// What differs from run to run, by its name.
fn steady(rig: &Rig, text: &str) -> String {
    let mut out = text.replace(rig.path("").to_str().unwrap().trim_end_matches('/'), "RIG");
    for line in text.lines().filter(|l| l.starts_with("plan ")) {
        let is_time = |word: &&str| word.trim_end_matches(':').parse::<jiff::Timestamp>().is_ok();
        for time in line.split(' ').filter(is_time) {
            out = out.replace(line, &line.replace(time.trim_end_matches(':'), "TIME"));
        }
    }
    if let Ok(said) = serde_json::from_str::<Value>(&status(rig, &["-o", "json"]).out) {
        for run in said["runs"].as_array().into_iter().flatten() {
            for (key, name) in [("run_id", "RUN"), ("started", "STARTED"), ("until", "UNTIL")] {
                let Some(value) = run[key].as_str() else { continue };
                out = out.replace(value, name);
                if let Ok(time) = value.parse::<jiff::Timestamp>() {
                    out = out.replace(&format!("{time:.0}"), name);
                }
            }
            for (key, name) in [("pid", "PID"), ("watchdog", "WATCHDOG")] {
                out = out.replace(&format!("pid {}", run[key]), name);
                out = out.replace(&format!("\"{key}\": {}", run[key]), &format!("\"{key}\": {name}"));
            }
        }
    }
    out
}

/// This rig's part of what a probe found: other tests freeze too.
fn probed(rig: &Rig, ended: &Ended, name: &str) -> Value {
    let mount = rig.mount(name);
    let all = ended.record()["probed"].as_array().unwrap().clone();
    all.into_iter().find(|p| p["mount_point"] == mount.to_str().unwrap()).expect("it was not probed")
}

#[test]
fn where_nothing_is_held_it_says_so() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let ended = status(&rig, &[]);
    insta::assert_snapshot!("nothing", ended.exits(0).out);
    rig.run(&["snapshot"]).exits(0);
    let after = status(&rig, &[]);
    let plan = after.exits(0).out.strip_prefix(&ended.out).unwrap().to_owned();
    insta::assert_snapshot!("after_a_run", steady(&rig, &plan));
    rig.run(&["snapshot", "--mount", "/nonexistent"]).exits(78);
    let refused = status(&rig, &[]);
    let plan = refused.exits(0).out.strip_prefix(&ended.out).unwrap().to_owned();
    insta::assert_snapshot!("after_a_refusal", steady(&rig, &plan));
    // The memory filesystem is empty after a boot.
    std::fs::remove_dir_all(rig.path("run/last")).unwrap();
    assert_eq!(status(&rig, &[]).out, refused.out);
}

#[test]
fn a_held_freeze_is_shown_with_its_filesystems() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    // Whether it may be raised depends on the machine, and on who has it raised.
    let plain = "[defaults]\nrcu_expedited = false\n";
    rig.configure(&format!("{plain}{}{}", noting(&rig, "first"), noting(&rig, "second")));
    rig.run(&["freeze", "--for", "60s"]).exits(0);
    let text = status(&rig, &[]);
    let json = status(&rig, &["-o", "json"]);
    insta::assert_snapshot!("held", steady(&rig, &text.exits(0).out));
    insta::assert_snapshot!("held_json", steady(&rig, &json.exits(0).out));

    // The exit code may be of what another test has frozen.
    let found = probed(&rig, &status(&rig, &["--probe", "-o", "json"]), "a");
    assert_eq!((found["frozen"].as_bool(), &found["by"]), (Some(true), &json.record()["runs"][0]["run_id"]));
    assert_eq!(found["in_window"], true, "a freeze within its deadline is no fault");
    assert!(status(&rig, &["--probe"]).out.contains("frozen, in its window: "));
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    assert_settled(&rig);
}

#[test]
fn a_run_in_its_hooks_is_shown_and_one_that_died_in_its_window() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&hook("slow", &format!("{}; exec sleep 6", note(&rig, "pre-slow")), "true", ""));
    let run = rig.spawn(&["snapshot"]);
    await_some("the hook", || rig.path("log").exists().then_some(()));
    let text = status(&rig, &[]);
    insta::assert_snapshot!("in_its_hooks", steady(&rig, &text.exits(0).out));
    run.end().exits(0);

    // Whether it may be raised depends on the machine.
    rig.configure(&format!("[defaults]\nrcu_expedited = false\n{}", noting(&rig, "db")));
    let run = in_the_window(&rig, &["snapshot", "--window", "30s"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("the watchdog's end", || watchdogs(&rig).is_empty().then_some(()));
    // The watchdog has thawed, and noted that.
    let text = status(&rig, &[]);
    insta::assert_snapshot!("died", steady(&rig, &text.exits(0).out));
    let asked = status(&rig, &["--probe", "-o", "json"]);
    assert_eq!(probed(&rig, &asked, "a")["frozen"], false);
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(0);
    let text = status(&rig, &[]);
    insta::assert_snapshot!("undone", steady(&rig, &text.exits(0).out));
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

/// The deadline is what its guards keep. Here all are stopped, which only a fault does.
#[test]
fn what_is_frozen_past_its_deadline_is_a_fault() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let record = rig.run(&["freeze", "--for", "5s", "-o", "json"]).exits(0).record();
    let holder = Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap());
    let guards: Vec<Pid> = guards(&rig).into_iter().chain([holder]).collect();
    guards.iter().for_each(|guard| kill(*guard, Signal::SIGSTOP).unwrap());
    await_some("the deadline", || (status(&rig, &[]).code == Some(40)).then_some(()));
    guards.iter().for_each(|guard| kill(*guard, Signal::SIGCONT).unwrap());
    await_some("the end of the freeze", || (status(&rig, &[]).code == Some(0)).then_some(()));
    rig.await_quiet();
    assert_settled(&rig);
}

#[test]
fn a_run_in_its_window_is_no_fault() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = in_the_window(&rig, &["snapshot"]);
    let text = status(&rig, &[]);
    assert!(text.exits(0).out.contains("at the latest"), "{}", text.out);
    let found = probed(&rig, &status(&rig, &["--probe", "-o", "json"]), "a");
    assert_eq!((&found["frozen"], &found["in_window"]), (&Value::Bool(true), &Value::Bool(true)));
    run.end().exits(0);
    assert_settled(&rig);
}

/// What somebody else froze is found, within a bound, and nothing that is not frozen is changed by asking.
#[test]
fn the_probe_finds_what_anybody_froze_and_changes_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    let times = |p: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        let m = std::fs::metadata(p).unwrap();
        (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.nlink())
    };
    let before: Vec<_> = rig.mounts().iter().map(|m| times(m)).collect();
    let ended = status(&rig, &["--probe", "-o", "json"]);
    for name in ["a", "b", "c"] {
        assert_eq!(probed(&rig, &ended, name)["frozen"], false);
    }
    assert_eq!(
        rig.mounts().iter().map(|m| times(m)).collect::<Vec<_>>(),
        before,
        "the probe changed something"
    );

    for name in ["a", "b", "c"] {
        let mount = rig.mount(name);
        sh("fsfreeze", &["--freeze", mount.to_str().unwrap()]);
        let ended = status(&rig, &["--probe", "-o", "json"]);
        let found = probed(&rig, ended.exits(40), name);
        assert_eq!((found["frozen"].as_bool(), &found["by"]), (Some(true), &Value::Null), "{found:#}");
        println!("{name}: the probe took {:?}", ended.took);
        status(&rig, &["--probe"]).exits(40);
        let waits = Pid::from_raw(i32::try_from(found["waiting_pid"].as_i64().unwrap()).unwrap());
        kill(waits, None).expect("the probe waits there");
        sh("fsfreeze", &["--unfreeze", mount.to_str().unwrap()]);
        await_some("the probe's end", || kill(waits, None).is_err().then_some(()));
        assert_eq!(probed(&rig, &status(&rig, &["--probe", "-o", "json"]), name)["frozen"], false);
    }
    let text = status(&rig, &["--probe"]);
    assert!(text.out.contains("filesystems answered: not frozen"), "{}", text.out);
    assert_settled(&rig);
}

#[test]
fn a_journal_that_cannot_be_read_is_no_peace_of_mind() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    std::fs::create_dir_all(rig.path("run/runs")).unwrap();
    std::fs::write(rig.path("run/runs/x.json"), "{").unwrap();
    let ended = status(&rig, &[]);
    assert!(ended.exits(40).out.contains("cannot read the journal"), "{}", ended.out);
    // The same to `thaw`, which cannot know what to undo.
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(40).says("cannot read the journal");
}

/// Every open of it hangs. That is no freeze, and no peace of mind either.
#[test]
fn what_does_not_answer_is_not_called_frozen() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let listener = Listener::start(&rig.mount("a"));
    let ended = alone(&rig, "exec $SP status --probe -o json");
    drop(listener);
    let found = probed(&rig, ended.exits(42), "a");
    assert_eq!(
        (&found["frozen"], found["not_known"].as_str()),
        (&Value::Null, Some("it did not answer in time"))
    );
    assert_settled(&rig);
}

#[test]
fn the_probe_finds_what_is_frozen_below_a_cover() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let script = "fsfreeze -f $M; mount -t tmpfs cover $M; set +e; stillpoint status --probe -o json; code=$?\n\
                  umount $M; fsfreeze -u $M; exit $code";
    let ended = alone(&rig, script);
    assert_eq!(probed(&rig, ended.exits(40), "a")["frozen"], true, "{}", ended.out);
    assert_settled(&rig);
}

/// Unmounted while it was frozen: no table of mounts has it, and the journal of a dead run names it.
#[test]
fn what_no_path_leads_to_any_more_may_be_frozen_as_the_journal_says() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let record = abandoned(&rig);
    let unmounted = Unmounted::of(&rig);
    let ended = alone(&rig, "exec $SP status --probe -o json");
    let found = probed(&rig, ended.exits(40), "a");
    assert_eq!((&found["frozen"], &found["by"]), (&Value::Null, &record["run_id"]), "{found:#}");
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(0);
    assert!(unmounted.was_thawed());
    assert_settled(&rig);
}
