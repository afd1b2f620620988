//! Hooks around a real window: order, labels, failures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::hooks::{hook, in_the_window, log, note, noting};
use common::probe::{BlockedWrite, assert_labels, assert_settled};
use common::rig::{Fs, Rig};

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

#[test]
fn with_hooks_a_set_is_application_consistent() {
    let rig = two();
    rig.configure(&format!("{}{}", noting(&rig, "one"), noting(&rig, "two")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!((&record["asked"], &record["consistency"]), (&"application".into(), &"application".into()));
    let all = ["pre-one", "pre-two", "post-two taken", "post-one taken"];
    assert_eq!(log(&rig), all, "released in reverse");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

/// The label is known only when what was held has been let go; whoever wants it is told at the end.
#[test]
fn the_ends_of_a_run_are_told_the_label() {
    let rig = two();
    let script = |edge: &str| {
        let text = note(
            &rig,
            &format!("{edge} $STILLPOINT_PHASE $STILLPOINT_RESULT ${{STILLPOINT_CONSISTENCY-none}}"),
        );
        format!("{edge} = [\"/bin/sh\", \"-c\", '''{text}''']\n")
    };
    let ends = ["pre", "post", "completed", "failed"].map(script).concat();
    rig.configure(&format!("[[hook]]\nname = \"told\"\n{ends}timeout = \"10s\"\n"));
    rig.run(&["snapshot"]).exits(0);
    let all = ["pre pre none", "post post taken none", "completed completed taken application"];
    assert_eq!(log(&rig), all);
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.fault("CreateSnapshots", "throttle", "0s");
    rig.run(&["snapshot"]).exits(23);
    assert_eq!(log(&rig), ["pre pre none", "post post failed none", "failed failed failed"]);
    std::fs::remove_file(rig.path("log")).unwrap();
    // Neither: nothing was to be taken.
    rig.run(&["rehearse"]).exits(0);
    assert_eq!(log(&rig), ["pre pre none", "post post rehearsed none"]);
    assert_settled(&rig);
}

#[test]
fn a_failing_end_is_a_failure_after_the_set() {
    let rig = two();
    let ends = "completed = [\"/bin/sh\", \"-c\", \"exit 9\"]";
    rig.configure(&hook("db", "exit 0", "exit 0", ends));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(11).record();
    assert_eq!(record["consistency"], "application");
    assert!(
        record["after"][0]
            .as_str()
            .unwrap()
            .contains("completed command of hook `db` failed with exit code 9")
    );
    assert_settled(&rig);
}

#[test]
fn hooks_are_released_after_the_thaw_and_not_before() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    let run = in_the_window(&rig, "delay-before", "600ms", &["snapshot"]);
    let write = BlockedWrite::certain(&rig.mount("a"));
    assert_eq!(log(&rig), ["pre-db"], "held while frozen");
    assert!(write.done(Duration::from_secs(10)).is_some());
    run.end().exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db taken"]);
    assert_settled(&rig);
}

#[test]
fn a_failing_pre_hook_ends_the_run_before_anything_is_frozen() {
    let rig = two();
    let bad = hook("bad", "echo no disk today >&2; exit 3", &note(&rig, "post-bad $STILLPOINT_RESULT"), "");
    rig.configure(&format!("{}{bad}{}", noting(&rig, "good"), noting(&rig, "never")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(20).record();
    ended.says("pre command of hook `bad` failed with exit code 3").says("no disk today");
    assert_eq!(
        log(&rig),
        ["pre-good", "post-bad failed", "post-good failed"],
        "every attempted one, no other"
    );
    assert_eq!(record["window_ms"].as_f64(), Some(0.0));
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn a_pre_hook_that_takes_too_long_is_killed_and_released() {
    let rig = two();
    let slow = hook("slow", "sleep 40", &note(&rig, "post-slow"), "").replace("10s", "700ms");
    rig.configure(&slow);
    let ended = rig.run(&["snapshot"]);
    ended.exits(20).says("pre command of hook `slow` timed out and was killed");
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    assert_eq!(log(&rig), ["post-slow"]);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

fn continuing(arguments: &[&str], code: i32) {
    let rig = two();
    rig.configure(&hook("bad", "exit 1", &note(&rig, "post-bad"), "on_failure = \"degrade\""));
    let ended = rig.run(&[&["snapshot", "-o", "json"], arguments].concat());
    let record = ended.exits(code).record();
    assert_eq!((&record["asked"], &record["consistency"]), (&"application".into(), &"filesystem".into()));
    assert!(record["reason"].as_str().unwrap().contains("hook `bad`"), "{}", record["reason"]);
    assert_eq!(log(&rig), ["post-bad"]);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn going_on_after_a_failing_hook_is_filesystem_consistent_at_most() {
    continuing(&[], 22);
}

#[test]
fn going_on_after_a_failing_hook_is_kept_where_the_policy_says_so() {
    continuing(&["--on-lower", "keep"], 10);
}

#[test]
fn a_failing_post_hook_is_told_and_keeps_the_set() {
    let rig = two();
    let bad = hook("bad", "exit 0", "exit 5", "");
    rig.configure(&format!("{}{bad}", noting(&rig, "first")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(11).record();
    assert!(
        record["after"][0].as_str().unwrap().contains("post command of hook `bad` failed with exit code 5")
    );
    assert_eq!(record["consistency"], "application");
    assert_eq!(log(&rig), ["pre-first", "post-first taken"], "the others are released");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn hooks_are_released_before_a_lost_answer_is_looked_up() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    rig.fault("CreateSnapshots", "error", "0s");
    // InternalError with status 500: it may have been done, so it is looked up.
    rig.run(&["snapshot"]).exits(23);
    assert_eq!(
        log(&rig),
        ["pre-db", "post-db unknown"],
        "seconds of looking must not hold the application up"
    );
}

/// A filesystem that a hook mounts on a volume of the set would be neither flushed nor frozen.
#[test]
fn what_hooks_mount_or_unmount_stops_the_run() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let b = rig.mount("b");
    let unmount = format!(
        r#"
[[hook]]
name = "unmounts"
pre = ["/bin/umount", "{}"]
post = ["/bin/mount", "{}", "{}"]
timeout = "10s"
"#,
        b.display(),
        rig.device("b"),
        b.display()
    );
    rig.configure(&unmount);
    let ended = rig.run(&["snapshot"]);
    ended.exits(21).says(b.to_str().unwrap());
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn hooks_see_the_volumes_and_no_credentials() {
    let rig = two();
    rig.configure(&hook("env", &format!("env > {}", rig.path("env").display()), "exit 0", ""));
    let mut command = rig.command(&["snapshot"]);
    command.env("AWS_SESSION_TOKEN", "").env("MY_SECRET", "s3cret");
    common::program::Run::start(command).end().exits(0);
    let env = std::fs::read_to_string(rig.path("env")).unwrap();
    assert!(!env.contains("AWS_") && !env.contains("s3cret"), "{env}");
    assert!(env.contains(&rig.id("a")) && env.contains(&rig.id("b")), "{env}");
    assert!(env.contains(rig.mount("a").to_str().unwrap()), "{env}");
    assert_settled(&rig);
}
