//! The package is upgraded while a run goes on: the run, its watchdog and its recovery stay of one build.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rig::hooks::{hook, log, note};
use rig::probe::{assert_labels, assert_settled, guards};
use rig::program::{Run, await_some, put_executable};
use rig::window::in_the_window_of;
use rig::{Fs, Rig, sh, stillpoint};
use stillpoint::window::Extras;
use stillpoint::window::guard::process::Program;
use stillpoint::window::guard::{GuardError, StartGuard as _};

/// The program, installed in a folder of its own; the next version of it, which notes when it is started; and
/// the hook `upgrade`, by whose pre command it is installed.
fn installed() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    std::fs::create_dir(rig.path("bin")).unwrap();
    sh("cp", &[stillpoint(), rig.path("bin/stillpoint").to_str().unwrap()]);
    put_executable(&rig.path("next"), format!("#!/bin/sh\n{} $@\nexit 1\n", note(&rig, "next")));
    let install = format!("mv {} {}", rig.path("next").display(), rig.path("bin/stillpoint").display());
    rig.configure(&hook("upgrade", &install, &note(&rig, "post"), ""));
    rig
}

fn command(rig: &Rig, arguments: &[&str]) -> Command {
    rig.tail(rig.exec(&rig.path("bin/stillpoint")), arguments)
}

#[test]
fn the_watchdog_is_the_program_that_runs_and_not_the_one_that_was_installed_since() {
    let rig = installed();
    Run::start(command(&rig, &["snapshot"])).end().exits(0);
    assert_eq!(log(&rig), ["post"], "the next version was started");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn so_are_the_process_that_holds_a_freeze_and_the_recovery_after_its_death() {
    let rig = installed();
    Run::start(command(&rig, &["freeze", "--for", "60s"])).end().exits(0);
    let status = Run::start(rig.bare_command(&["status", "-o", "json"])).end();
    let holder = status.record()["runs"][0]["pid"].as_i64().unwrap();
    let holder = nix::unistd::Pid::from_raw(i32::try_from(holder).unwrap());
    let name = std::fs::read_to_string(format!("/proc/{holder}/comm")).unwrap();
    assert_eq!(name.trim(), "stillpoint", "as `ps` and `pgrep` know it");
    nix::sys::signal::kill(holder, Signal::SIGKILL).unwrap();
    await_some("the recovery's post hook", || (!log(&rig).is_empty()).then_some(()));
    assert_eq!(log(&rig), ["post"], "the next version was started");
    await_some("the end of the recovery", || rig.journals().is_empty().then_some(()));
    assert_settled(&rig);
}

#[test]
fn watchdog_and_freezer_have_the_name_of_their_program() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = in_the_window_of(&rig, rig.command(&["snapshot"]));
    let guards = guards(&rig);
    assert_eq!(guards.len(), 2);
    for guard in guards {
        let name = std::fs::read_to_string(format!("/proc/{guard}/comm")).unwrap();
        assert_eq!(name.trim(), "stillpoint");
    }
    run.end().exits(0);
}

/// Another build may take the same words for something else.
#[test]
fn a_freezer_of_another_build_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("stillpoint");
    let code = "#!/usr/bin/python3\nimport socket\ns = socket.socket(fileno=0)\ns.recv(8192)\n\
                s.send(b'R{\"build\":\"0.0.1+other\",\"shares\":[]}')\nwhile s.recv(64) not in (b'', b'D'): pass\n";
    put_executable(&other, code);
    let _runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = _runtime.enter();
    let fds = [Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()))];
    let refused = Program::new(&other).start(&fds, &Extras::default()).unwrap_err();
    assert!(
        matches!(&refused, GuardError::OtherBuild { theirs, .. } if theirs == "0.0.1+other"),
        "{refused:?}"
    );
}

/// It says which build it is and does nothing, whatever else the other one's words may be.
#[test]
fn nothing_is_done_for_an_agent_of_another_build() {
    for argument in ["__watchdog", "__freezer"] {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut companion = Command::new(stillpoint());
        companion.arg(argument).stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = companion.spawn().unwrap();
        drop(companion);
        let mut socket = std::fs::File::from(ours);
        socket.write_all(br#"{"build":"0.0.1+other","new":1}"#).unwrap();
        let mut said = [0; 8192];
        let n = socket.read(&mut said).unwrap();
        let said = std::str::from_utf8(&said[..n]).unwrap();
        assert!(said.starts_with('R') && said.contains(stillpoint::build::ID), "{argument}: {said}");
        socket.write_all(b"D").unwrap();
        let ended = rig::program::wait(&mut child, rig::patience::CONDITION).expect("it ends");
        assert_eq!(ended.code(), Some(1));
    }
}
