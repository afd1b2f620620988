//! The shipped example of an orchestrator's script.

use std::process::Command;

use rig::hooks::{hook, log, noting};
use rig::probe::assert_settled;
use rig::program::{Run, put_executable};
use rig::sh;

use super::{blocked, two};

/// The shipped document for Systems Manager is run as its agent runs it: with the parameters filled in, and
/// each command in a shell of its own.
#[test]
fn the_example_document_for_data_lifecycle_manager_exits_as_it_says() {
    let document = include_str!("../../../packaging/examples/ssm-data-lifecycle-manager.yaml");
    let (_, script) = document.split_once("    - |\n").unwrap();
    let script: String =
        script.lines().map(|l| format!("{}\n", l.strip_prefix("      ").unwrap_or(l))).collect();
    let rig = two();
    // This host has no boot volume to leave out.
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", noting(&rig, "db")));
    let wrapper = rig.path("stillpoint");
    let plain = rig.command(&[]);
    let words = std::iter::once(plain.get_program()).chain(plain.get_args());
    let words: Vec<String> = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect();
    put_executable(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
    let script = script.replace("/usr/bin/stillpoint", wrapper.to_str().unwrap());
    let script = script.replace("/run/stillpoint", rig.path("run").to_str().unwrap());
    let script = script.replace("{{ executionId }}", "None");
    let run = |command: &str| {
        let file = rig.path("_script.sh");
        std::fs::write(&file, script.replace("{{ command }}", command)).unwrap();
        let mut shell = Command::new("sh");
        shell.arg(file).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        Run::start(shell).end()
    };
    run("dry-run").exits(0);
    run("post-script").exits(205);
    assert_eq!(log(&rig), Vec::<String>::new());

    run("pre-script").exits(0);
    drop(blocked(&rig));
    // A second pre-script is refused while the first freeze is held, and does not end it.
    run("pre-script").exits(204);
    drop(blocked(&rig));
    run("post-script").exits(0);
    run("post-script").exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);

    run("pre-script").exits(0);
    sh("fsfreeze", &["--unfreeze", rig.mount("a").to_str().unwrap()]);
    run("post-script").exits(203);
    run("post-script").exits(203);
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", hook("bad", "false", "true", "")));
    run("pre-script").exits(201);
    assert_settled(&rig);
}
