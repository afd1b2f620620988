//! The shipped example of an orchestrator's script.

use std::process::Command;

use rig::hooks::{hook, log, noting};
use rig::probe::assert_settled;
use rig::program::{Run, put_executable};
use rig::sh;

use super::{blocked, two};
use crate::fleet::script_of;

/// The shipped document for Systems Manager is run as its agent runs it: with the parameters filled in, and
/// each command in a shell of its own.
#[test]
fn the_example_document_for_data_lifecycle_manager_exits_as_it_says() {
    let document = include_str!("../../../packaging/examples/ssm-data-lifecycle-manager.yaml");
    let script = script_of(document);
    let rig = two();
    // This host has no boot volume to leave out.
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", noting(&rig, "db")));
    let wrapper = rig.path("stillpoint");
    rig.put_program(&wrapper);
    let script = script.replace("/usr/bin/stillpoint", wrapper.to_str().unwrap());
    let script = script.replace("/run/stillpoint", rig.path("run").to_str().unwrap());
    let execution = |n: u8| format!("0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e{n:02}");
    let run_with = |command: &str, n: u8, degraded: &str| {
        let file = rig.path("_script.sh");
        let script = script.replace("{{ executionId }}", &execution(n));
        let script = script.replace("{{ allowDegraded }}", degraded);
        std::fs::write(&file, script.replace("{{ command }}", command)).unwrap();
        let mut shell = Command::new("sh");
        shell.arg(file).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        Run::start(shell).end()
    };
    let run = |command: &str| run_with(command, 1, "false");
    run("dry-run").exits(0);
    run("post-script").exits(205);
    assert_eq!(log(&rig), Vec::<String>::new());

    run("pre-script").exits(0);
    drop(blocked(&rig));
    run("post-script").exits(0);
    run("post-script").exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    // The success of a former execution is none of this one's.
    run_with("post-script", 2, "false").exits(205);
    // A second pre-script is refused while the first freeze is held, and does not end it: the first execution's post
    // script does not know of it any more, and it is thawed at its end, or by hand.
    run_with("pre-script", 3, "false").exits(0);
    run_with("pre-script", 4, "false").exits(204);
    drop(blocked(&rig));
    run_with("post-script", 4, "false").exits(205);
    rig.run(&["thaw"]).exits(0);

    run("pre-script").exits(0);
    sh("fsfreeze", &["--unfreeze", rig.mount("a").to_str().unwrap()]);
    run("post-script").exits(203);
    run("post-script").exits(203);
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", hook("bad", "false", "true", "")));
    run("pre-script").exits(201);
    run("post-script").exits(205);

    // Less than requested is no success unless the document says so; a post hook that failed is told apart.
    let degrades = hook("bad", "false", "true", "on_failure = \"degrade\"");
    rig.configure(&format!("[plan.dlm]\non_degraded = \"keep\"\nwindow = \"10s\"\n{degrades}"));
    for (n, degraded, code) in [(5, "false", 202), (6, "true", 0)] {
        run_with("pre-script", n, degraded).exits(0);
        run_with("post-script", n, degraded).exits(code);
    }
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", hook("late", "true", "exit 3", "")));
    run_with("pre-script", 7, "false").exits(0);
    assert!(run_with("post-script", 7, "false").exits(211).out.contains("the snapshots are good"));
    assert_settled(&rig);
}

/// Each code of stillpoint, by a program that does nothing but exit with it.
#[test]
fn what_may_still_be_frozen_is_told_apart_from_every_other_failure() {
    let document = include_str!("../../../packaging/examples/ssm-data-lifecycle-manager.yaml");
    let script = script_of(document);
    let folder = tempfile::tempdir().unwrap();
    let stub = folder.path().join("stillpoint");
    let script = script.replace("/usr/bin/stillpoint", stub.to_str().unwrap());
    let script = script.replace("/run/stillpoint", folder.path().join("run").to_str().unwrap());
    let script = script.replace("{{ executionId }}", "None").replace("{{ allowDegraded }}", "false");
    let run = |command: &str, code: i32| {
        put_executable(&stub, format!("#!/bin/sh\nexit {code}\n"));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script.replace("{{ command }}", command));
        Run::start(shell).end()
    };
    for (code, pre, post) in [
        (0, 0, 0),
        (10, 201, 202),
        (11, 201, 211),
        (20, 201, 202),
        (21, 201, 202),
        (22, 201, 203),
        (40, 240, 240),
        (75, 204, 202),
        (77, 201, 202),
        (78, 201, 202),
        (124, 201, 202),
    ] {
        assert_eq!(run("pre-script", code).code, Some(pre), "{code}");
        run("pre-script", 0).exits(0);
        let ended = run("post-script", code);
        assert_eq!(ended.code, Some(post), "{code}");
        assert_eq!(ended.out.contains("MAY STILL BE FROZEN"), code == 40, "{code}");
    }
}
