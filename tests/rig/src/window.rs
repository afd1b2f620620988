//! A run that stands in its window: everything is frozen, its create call has come in, and EC2 does nothing
//! until the test says so.
//!
//! In: a rig, and how the run is started. Out: the run, held. What a test does meanwhile takes as long as it
//! takes: no test guesses how long that is, and no delay is slept through.

use std::ops::{Deref, DerefMut};
use std::process::Command;

use crate::Rig;
use crate::patience::WINDOW;
use crate::program::{Ended, Run};

/// The run, and the fault that holds its request.
pub struct InWindow<'a> {
    rig: &'a Rig,
    fault: u64,
    released: bool,
    run: Run,
}

/// `stillpoint ARGUMENTS` in its window.
pub fn in_the_window<'a>(rig: &'a Rig, arguments: &[&str]) -> InWindow<'a> {
    in_the_window_of(rig, rig.command(arguments))
}

/// The same of this command. Unless it says otherwise, its window is longer than anything here takes.
pub fn in_the_window_of(rig: &Rig, command: Command) -> InWindow<'_> {
    held(rig, "hold-before", command)
}

/// The same at another moment of the call: `kind` is one of `ebs-sim`'s faults that hold.
pub fn held<'a>(rig: &'a Rig, kind: &str, mut command: Command) -> InWindow<'a> {
    if !command.get_args().any(|a| a == "--window") {
        command.args(["--window", WINDOW]);
    }
    held_at(rig, &format!(r#""call": 1, "kind": "{kind}""#), command)
}

/// A run that has flushed everything and not yet frozen anything: its last DryRun has come in (the first is
/// from its preflight).
pub fn before_the_freeze<'a>(rig: &'a Rig, arguments: &[&str]) -> InWindow<'a> {
    held_at(rig, r#""call": 2, "dry_run": true, "kind": "hold-before""#, rig.command(arguments))
}

/// A run that has made its plan and has touched nothing yet: the DryRun of its preflight has come in.
pub fn after_the_plan<'a>(rig: &'a Rig, arguments: &[&str]) -> InWindow<'a> {
    held_at(rig, r#""call": 1, "dry_run": true, "kind": "hold-before""#, rig.command(arguments))
}

fn held_at<'a>(rig: &'a Rig, which: &str, command: Command) -> InWindow<'a> {
    let action = match rig.mounts().len() {
        _ if command.get_args().any(|a| a == "clone") => "CopyVolumes",
        1 => "CreateSnapshot",
        _ => "CreateSnapshots",
    };
    let fault = format!(r#"{{"action": "{action}", {which}}}"#);
    let fault = rig.control("POST", "faults", &fault)["id"].as_u64().unwrap();
    let run = Run::start(command);
    let window = InWindow { rig, fault, released: false, run };
    rig.control("GET", &format!("faults/{fault}/held?within_ms=30000"), "");
    window
}

/// A short window was over before EC2 had the request, or before the agent came to end it: this machine is busy,
/// and the run says nothing of what a fault does.
pub fn too_slow(rig: &Rig, ended: &Ended) -> bool {
    let freezing = ended.code == Some(21) && ended.err.contains("freezing took longer than");
    let ending = ended.err.contains("the watchdog fired (") && ended.err.contains(") before EC2 answered");
    freezing || ending || ended.err.contains("did not answer within the window") && rig.creates().is_empty()
}

impl InWindow<'_> {
    /// EC2 does what it was asked for, and answers.
    pub fn release(&mut self) {
        if !std::mem::replace(&mut self.released, true) {
            self.rig.control("POST", &format!("faults/{}/release", self.fault), "");
        }
    }

    /// Releases it, and waits for the end of the run.
    pub fn end(mut self) -> Ended {
        self.release();
        self.run.end()
    }
}

impl Deref for InWindow<'_> {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl DerefMut for InWindow<'_> {
    fn deref_mut(&mut self) -> &mut Run {
        &mut self.run
    }
}
