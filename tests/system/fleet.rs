//! The shipped documents for Systems Manager, run as its agent runs them: parameters filled in as text, each command in a
//! shell of its own.

use std::process::Command;

use rig::probe::assert_settled;
use rig::program::Run;
use rig::systemd::Manager;
use rig::{Fs, Rig};

const DOCUMENT: &str = include_str!("../../packaging/examples/ssm-run.yaml");
const UNIT: &str = include_str!("../../systemd/stillpoint@.service");

/// The script of a document.
pub(crate) fn script_of(document: &str) -> String {
    let (_, script) = document.split_once("    - |\n").unwrap();
    script.lines().map(|l| format!("{}\n", l.strip_prefix("      ").unwrap_or(l))).collect()
}

/// The script for these parameters; `systemd` says whether the host has it.
fn script(rig: &Rig, systemd: bool, command: &str, plan: &str) -> Command {
    let wrapper = rig.path("stillpoint");
    rig.put_program(&wrapper);
    let there = rig.path(if systemd { "" } else { "no-systemd" });
    let script = script_of(DOCUMENT)
        .replace("/usr/bin/stillpoint", wrapper.to_str().unwrap())
        .replace("/run/systemd/system", there.to_str().unwrap())
        .replace("{{ command }}", command)
        .replace("{{ plan }}", plan);
    let file = rig.path("_script.sh");
    std::fs::write(&file, script).unwrap();
    let mut shell = Command::new("sh");
    shell.arg(file).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    shell
}

fn refuse(rig: &Rig) {
    let fault = ["faults", "add", "--action", "CreateSnapshots", "--call", "1", "--kind", "error"];
    rig.sim(&[&fault[..], &["--code", "UnsupportedOperation", "--status", "400"]].concat());
}

#[test]
fn the_example_document_runs_each_command_and_ends_with_its_code() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[plan.orders]\n[plan.orders.keep]\nlast = 3\n");
    let run = |command: &str, plan: &str| Run::start(script(&rig, false, command, plan)).end();
    run("snapshot", "orders").exits(0).says("filesystem-consistent");
    rig.await_quiet();
    for command in ["plan", "doctor", "rehearse", "prune", "list", "verify"] {
        let ended = run(command, "orders");
        assert!(
            matches!(ended.code, Some(0 | 10)),
            "{command}: {:?}\n{}{}",
            ended.code,
            ended.out,
            ended.err
        );
    }
    run("status", "default").exits(0);
    run("snapshot", "no-such-plan").exits(78);
    refuse(&rig);
    run("snapshot", "orders").exits(23);
    run("reboot", "orders").exits(64);
    assert_settled(&rig);
}

#[test]
fn with_systemd_a_set_is_taken_by_the_unit() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let Some(manager) = Manager::start(&rig, &[]) else { return };
    rig.configure("[plan.orders]\n");
    let words = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|w| w.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let recover = words(&rig.bare_command(&["thaw", "--recover"])).replacen("env ", "/usr/bin/env ", 1);
    manager.put("stillpoint@.service", UNIT);
    manager.put(
        "stillpoint@.service.d/here.conf",
        &format!(
            "[Service]\nExecStart=\nExecStart={} %i\nExecStopPost=\nExecStopPost={recover}\n",
            words(&rig.command(&["snapshot"]))
        ),
    );
    manager.ctl(&["daemon-reload"]);
    let run = |plan: &str| Run::start(script(&rig, true, "snapshot", plan)).end();
    run("orders").exits(0);
    assert_eq!(rig.snapshots().len(), 2);
    assert_eq!(manager.state("stillpoint@orders.service", "ExecMainStatus"), "0");
    rig.await_quiet();
    refuse(&rig);
    run("orders").exits(23);
    run("no-such-plan").exits(78);
    assert_settled(&rig);
}
