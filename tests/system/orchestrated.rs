//! `freeze` and `thaw` for somebody else's snapshots: the freeze outlives its command, never its deadline,
//! and nothing is said of it that was not proven.

mod death;
mod examples;
mod held;
mod lost;

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rig::hooks::{log, noting};
use rig::probe::BlockedWrite;
use rig::program::{Ended, Run, await_some};
use rig::{Fs, Rig};
use serde_json::Value;

fn two() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&format!("{}{}", noting(&rig, "first"), noting(&rig, "second")));
    rig
}

const RELEASED: [&str; 4] = ["pre-first", "pre-second", "post-second unknown", "post-first unknown"];

/// Runs `freeze`, and gives its record. Everything is frozen when it returns.
fn freeze(rig: &Rig, lasts: &str) -> Value {
    let ended = rig.run(&["freeze", "--for", lasts, "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["held"], Value::Null, "{record:#}");
    record
}

/// Runs `thaw` outside of the view: it needs neither EC2 nor IMDS.
fn thaw(rig: &Rig, arguments: &[&str]) -> Ended {
    let mut command = rig.bare_command(&[&["thaw"], arguments].concat());
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    Run::start(command).end()
}

fn status(rig: &Rig, arguments: &[&str]) -> Ended {
    Run::start(rig.bare_command(&[&["status"], arguments].concat())).end()
}

fn blocked(rig: &Rig) -> Vec<BlockedWrite> {
    rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect()
}

fn all_done(writes: &[BlockedWrite], limit: Duration) -> Option<Instant> {
    writes.iter().map(|w| w.done(limit)).collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn pid(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap())
}

fn id(record: &Value) -> &str {
    record["run_id"].as_str().unwrap()
}

fn await_log(rig: &Rig, lines: &[&str]) {
    await_some("the hooks", || (log(rig) == lines).then_some(()));
}

/// `thaw` exits with 22 and gives this reason, however often it is run.
fn did_not_hold(rig: &Rig, record: &Value, reason: &str) -> Value {
    let late = thaw(rig, &["--run", id(record), "-o", "json"]);
    let said = late.exits(22).record();
    assert_eq!((said["held"].as_bool(), said["achieved"].as_str()), (Some(false), Some("crash")), "{said:#}");
    assert!(said["reason"].as_str().unwrap().contains(reason), "{}", said["reason"]);
    thaw(rig, &["--run", id(record)]).exits(22);
    thaw(rig, &[]).exits(22);
    said
}
