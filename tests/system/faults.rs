//! EC2 hangs, drops, refuses and lies: thawed in time, never asked twice, and no label that is not true.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rig::patience::{CONDITION, SHORT_WINDOWS, WINDOW};
use rig::probe::{BlockedWrite, assert_clean, assert_labels, assert_settled, tag, was_frozen};
use rig::program::{Ended, Run, await_some};
use rig::window::{held, in_the_window, too_slow};
use rig::{Fs, Rig, sh};
use serde_json::Value;

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

/// Look-ups by this run's id, after the create call.
fn look_ups(rig: &Rig, record: &Value) -> usize {
    let sent = rig.creates()[0]["started_ns"].as_u64();
    let by_run = |r: &&Value| {
        r["params"]["Filter.1.Name"] == "tag:stillpoint:run"
            && r["params"]["Filter.1.Value.1"] == record["run_id"]
            && r["started_ns"].as_u64() > sent
    };
    rig.calls("DescribeSnapshots").iter().filter(by_run).count()
}

/// What came of what was asked for.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    /// EC2 has refused: nothing, and nothing is looked for.
    Nothing,
    /// Looked for by run id and not seen, which is no proof: the next start looks again.
    NotSeen,
    /// Found by run id.
    Found,
    /// The answer told all of it.
    Told,
    /// Not all that was planned was made, as far as can be seen.
    Part,
}

impl Made {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NotSeen => "none seen by run id; the next start looks again",
            Self::Found => "found by run id, labelled, reported",
            Self::Told => "as answered; labelled, reported",
            Self::Part => "what is found is labelled and reported; the next start looks for the rest",
        }
    }
}

/// When the answer to the create call comes.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// As soon as EC2 has one; or never, and the client sees that.
    AtOnce,
    /// It is held, and released in the window.
    InTheWindow,
    /// It is held until everything is thawed: the window has to end.
    AfterTheThaw,
    /// Never, and the connection stays open: the window has to end.
    Never,
}

/// A fault of the create call, and what has to come of it.
struct Row {
    /// As docs/faults.md has it.
    what: &'static str,
    /// Arguments of `ebs-sim faults add`.
    fault: &'static str,
    exit: i32,
    label: &'static str,
    made: Made,
    /// What stderr says.
    says: &'static str,
}

const fn row(
    what: &'static str,
    fault: &'static str,
    exit: i32,
    label: &'static str,
    made: Made,
    says: &'static str,
) -> Row {
    Row { what, fault, exit, label, made, says }
}

const NONE: &str = "";
const CRASH: &str = "crash";
const FILESYSTEM: &str = "filesystem";
/// Before the window's length: the window has ended.
const NO_ANSWER: &str = "did not answer within the window of ";

/// Two volumes, filesystem consistency asked for. One line a fault; docs/faults.md is this table.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("SnapshotCreationPerVolumeRateExceeded", "--kind error --code SnapshotCreationPerVolumeRateExceeded --status 400", 23, NONE, Made::Nothing, "one snapshot of a volume every 15 s"),
    row("ConcurrentSnapshotLimitExceeded", "--kind error --code ConcurrentSnapshotLimitExceeded --status 400", 23, NONE, Made::Nothing, "too many pending snapshots of one volume"),
    row("PendingSnapshotLimitExceeded", "--kind error --code PendingSnapshotLimitExceeded --status 400", 23, NONE, Made::Nothing, "100 pending snapshots"),
    row("SnapshotLimitExceeded", "--kind error --code SnapshotLimitExceeded --status 400", 23, NONE, Made::Nothing, "quota"),
    row("RequestLimitExceeded (throttled), HTTP 503", "--kind throttle", 23, NONE, Made::Nothing, "EC2 throttles this account"),
    row("UnauthorizedOperation", "--kind error --code UnauthorizedOperation --status 403", 77, NONE, Made::Nothing, "ec2:CreateSnapshots is missing"),
    row("AuthFailure", "--kind error --code AuthFailure --status 401", 77, NONE, Made::Nothing, "this host's clock"),
    row("RequestExpired", "--kind error --code RequestExpired --status 400", 23, NONE, Made::Nothing, "this host's clock"),
    row("RequestExpired, since the clocks differ", "--kind clock-skew --delay 20m", 23, NONE, Made::Nothing, "this host's clock"),
    row("RequestExpired, since the role's credentials ended", "--kind credentials-expired", 23, NONE, Made::Nothing, "check the credentials"),
    row("InvalidVolume.NotFound", "--kind error --code InvalidVolume.NotFound --status 400", 23, NONE, Made::Nothing, "it is gone"),
    row("InvalidInstanceID.NotFound", "--kind error --code InvalidInstanceID.NotFound --status 400", 23, NONE, Made::Nothing, "it is gone"),
    row("TagLimitExceeded", "--kind error --code TagLimitExceeded --status 400", 23, NONE, Made::Nothing, "fewer tags"),
    row("any other error with a status below 500", "--kind error --code SomethingNew --status 400", 23, NONE, Made::Nothing, "SomethingNew"),
    row("InternalError, HTTP 500, before it is carried out", "--kind error --code InternalError --status 500", 23, NONE, Made::NotSeen, "no snapshot of this run is to be seen"),
    row("InternalError, HTTP 500, after it is carried out", "--kind error-after --code InternalError --status 500", 23, CRASH, Made::Found, "HTTP 500"),
    row("Unavailable, HTTP 503", "--kind error --code Unavailable --status 503", 23, NONE, Made::NotSeen, "HTTP 503"),
    row("HTTP 500 with a page that is not EC2's", "--kind http-500", 23, NONE, Made::NotSeen, "no snapshot of this run is to be seen"),
    row("connection closed, request not carried out", "--kind drop-before", 23, NONE, Made::NotSeen, "no snapshot of this run is to be seen"),
    row("connection closed, request carried out", "--kind drop-after", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("connection reset, request not carried out", "--kind reset-before", 23, NONE, Made::NotSeen, "no snapshot of this run is to be seen"),
    row("connection reset, request carried out", "--kind reset-after", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("no answer, request not carried out", "--kind hang", 23, NONE, Made::NotSeen, NO_ANSWER),
    row("no answer, request carried out", "--kind hang-after", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("answered late, within the window", "--kind hold-after", 0, FILESYSTEM, Made::Told, ""),
    row("carried out late, within the window", "--kind hold-before", 0, FILESYSTEM, Made::Told, ""),
    row("answered after the deadline", "--kind hold-after", 23, CRASH, Made::Found, NO_ANSWER),
    row("carried out after the deadline", "--kind hold-before", 23, CRASH, Made::Found, NO_ANSWER),
    row("an answer that stops in the middle; the connection stays open", "--kind hold-mid", 23, CRASH, Made::Found, NO_ANSWER),
    row("an answer that ends in the middle", "--kind malformed", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("an answer cut off by the end of its connection", "--kind truncated", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("an answer that is not XML", "--kind not-xml", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("an answer that is another kind of XML", "--kind wrong-root", 23, CRASH, Made::Found, "2 snapshots of this run exist all the same"),
    row("an answer that lacks a snapshot", "--kind missing-snapshot", 23, CRASH, Made::Found, "says nothing of vol-"),
    row("a volume fewer than planned (detached meanwhile)", "--kind detach-volume", 23, CRASH, Made::Part, "says nothing of vol-"),
    row("a volume more than planned (attached meanwhile)", "--kind extra-volume", 22, CRASH, Made::Told, "attached meanwhile"),
    // The run does not wait for completion: what becomes of a pending snapshot later is not known here.
    row("snapshots that end in `error` later", "--kind snapshot-error", 0, FILESYSTEM, Made::Told, ""),
];

/// With EC2 over TLS.
#[rustfmt::skip]
const TLS_STALL: &Row = &row("TLS that stalls in the answer", "--kind tls-stall-mid", 23, CRASH, Made::Found, NO_ANSWER);

/// Once everything is thawed, EC2 does what it was asked for; the run looks for it when that is done.
fn release_after_the_thaw(rig: &Rig, run: &mut Run) {
    let create = loop {
        match rig.control("GET", "held", "").as_array().unwrap().first() {
            Some(held) => break held.clone(),
            None if run.over() => return, // it did not get to the call within its window
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let look_up = r#"{"action": "DescribeSnapshots", "call": 1, "kind": "hold-before"}"#;
    let look_up = rig.control("POST", "faults", look_up)["id"].clone();
    for mount in rig.mounts() {
        BlockedWrite::start(mount).done(CONDITION).expect("it is not thawed at the end of the window");
    }
    rig.control("POST", &format!("faults/{}/release", create["fault"]), "");
    await_some("EC2 to have done it", || {
        let outcome = |r: &Value| r["number"] == create["request"] && r["outcome"] != "pending";
        rig.requests().iter().any(outcome).then_some(())
    });
    rig.control("GET", &format!("faults/{look_up}/held?within_ms=30000"), "");
    rig.control("POST", &format!("faults/{look_up}/release"), "");
}

impl Row {
    fn documented(&self) -> String {
        let label = if self.label.is_empty() { "none" } else { self.label };
        format!("| {} | {} | {label} | {} |", self.what, self.exit, self.made.words())
    }

    fn answer(&self) -> Answer {
        match (self.fault.starts_with("--kind hold-"), self.says == NO_ANSWER) {
            (false, false) => Answer::AtOnce,
            (true, false) => Answer::InTheWindow,
            (true, true) if self.fault != "--kind hold-mid" => Answer::AfterTheThaw,
            // Half of an answer is nothing that could be released to a client that has gone.
            _ => Answer::Never,
        }
    }

    /// Runs the program against the fault.
    fn run(&self, rig: &Rig) -> Ended {
        let run = |window: &str| rig.command(&["snapshot", "--window", window, "-o", "json"]);
        if self.answer() == Answer::InTheWindow {
            let run = held(rig, self.fault.trim_start_matches("--kind "), run(WINDOW));
            rig.mounts().iter().for_each(|mount| drop(BlockedWrite::certain(mount)));
            return run.end();
        }
        let windows = if self.answer() == Answer::AtOnce { &[WINDOW][..] } else { SHORT_WINDOWS };
        for window in windows {
            rig.control("POST", "reset", "");
            let _ = std::fs::remove_dir_all(rig.path("run"));
            let fault: Vec<_> = self.fault.split(' ').collect();
            rig.sim(&[&["faults", "add", "--action", "CreateSnapshots", "--call", "1"], &fault[..]].concat());
            let mut run = Run::start(run(window));
            if self.answer() == Answer::AfterTheThaw {
                release_after_the_thaw(rig, &mut run);
            }
            let ended = run.end();
            if !too_slow(rig, &ended) {
                if self.says == NO_ANSWER {
                    ended.says(&format!("{NO_ANSWER}{window}"));
                }
                return ended;
            }
        }
        panic!("{}: this machine freezes within none of {windows:?}", self.what);
    }

    fn check(&self, rig: &Rig) {
        rig.await_quiet();
        rig.control("POST", "reset", "");
        let _ = std::fs::remove_dir_all(rig.path("run"));
        let ended = self.run(rig);
        ended.exits(self.exit).says(self.says);
        let record = ended.record();
        let creates = rig.creates();
        assert_eq!(creates.len(), 1, "the create call is never repeated");
        assert_eq!(creates[0]["faults"].as_array().unwrap().len(), 1, "the fault was met");
        assert_eq!(record["achieved"].as_str().unwrap_or(NONE), self.label, "{record:#}");
        let ids =
            |v: &[Value]| v.iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
        let reported = ids(record["snapshots"].as_array().unwrap());
        rig.await_quiet();
        assert_eq!(reported, ids(&rig.snapshots()), "what was made is reported, all of it and nothing else");
        assert_eq!(reported.is_empty(), self.label.is_empty());
        if !self.label.is_empty() {
            assert_labels(rig, reported.len(), self.label);
        }
        if self.label == CRASH {
            assert!(rig.snapshots().iter().all(|s| !tag(s, "stillpoint:reason").is_empty()));
        }
        let looks = look_ups(rig, &record);
        match self.made {
            Made::Nothing | Made::Told => assert_eq!(looks, 0, "there is nothing to look up"),
            Made::Found | Made::Part => assert!(looks >= 1),
            Made::NotSeen => assert!(looks >= 3, "EC2 is eventually consistent: one look is not enough"),
        }
        assert_clean(rig);
        let journals = if matches!(self.made, Made::NotSeen | Made::Part) { 1 } else { 0 };
        assert_eq!(rig.journals().len(), journals, "{:?}", rig.journals());
    }
}

/// Where nothing is seen, the run looks four times, for 10 s: as many rows as there are of these run at once,
/// and the others beside them.
#[test]
fn every_fault_of_the_create_call_ends_as_the_table_says() {
    let (long, short): (Vec<_>, Vec<_>) = TABLE.iter().partition(|row| row.made == Made::NotSeen);
    let lanes = long.len() + 1;
    let rows = Mutex::new(long.into_iter().chain(short));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let mut rig = two();
                loop {
                    let Some(row) = rows.lock().unwrap().next() else { return };
                    rig.renew_rescue();
                    let since = Instant::now();
                    if std::panic::catch_unwind(AssertUnwindSafe(|| row.check(&rig))).is_err() {
                        failed.lock().unwrap().push(row.what);
                    }
                    println!("{:5.1} s  {}", since.elapsed().as_secs_f64(), row.what);
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<&str>::new(), "see above, of {} rows", TABLE.len());
}

/// Over TLS an answer can also stop in the middle of a record, with the connection open.
#[test]
fn an_answer_over_tls_that_stalls_ends_with_the_window() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "[endpoint]\ntls = true\n");
    TLS_STALL.check(&rig);
    assert_eq!(rig.creates()[0]["tls"], true);
}

#[test]
fn the_documented_table_is_this_one() {
    let documented = include_str!("../../docs/faults.md");
    let rows: Vec<&str> = documented.lines().filter(|l| l.starts_with("| ")).skip(1).collect();
    let table: Vec<String> = TABLE.iter().chain([TLS_STALL]).map(Row::documented).collect();
    assert_eq!(rows, table, "docs/faults.md:\n{}", table.join("\n"));
}

/// The parts of a set that were frozen keep their own label when a volume came in that was not.
#[test]
fn a_volume_attached_meanwhile_lowers_the_set_and_not_its_parts() {
    let rig = two();
    rig.fault("CreateSnapshots", "extra-volume", "0s");
    let record = rig.run(&["snapshot", "-o", "json"]).exits(22).record();
    let parts: Vec<_> = record["snapshots"].as_array().unwrap().iter().map(|s| &s["achieved"]).collect();
    assert_eq!(parts, ["filesystem", "filesystem", "crash"]);
    assert_settled(&rig);
}

#[test]
fn a_hanging_api_ends_with_the_window() {
    let rig = two();
    rig.fault("CreateSnapshots", "hang", "0s");
    let run = rig.spawn(&["snapshot", "--window", "3s", "-o", "json"]);
    await_some("the create call", || rig.creates().pop());
    let sent = Instant::now();
    let writes: Vec<_> = rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect();
    for write in &writes {
        let took = write.done(Duration::from_secs(10)).expect("thawed by itself").duration_since(sent);
        println!("thawed {took:?} after the request was seen, window 3 s");
        assert!(took < Duration::from_secs(5), "thawed {took:?} after the request");
    }
    let ended = run.end();
    let record = ended.exits(23).record();
    ended.says("did not answer within the window of 3s").says("stillpoint:run=");
    assert_eq!(record["achieved"], Value::Null);
    assert!(record["window_ms"].as_f64().unwrap() < 5000.0, "{}", record["window_ms"]);
    assert!(look_ups(&rig, &record) >= 3, "EC2 is eventually consistent: one look is not enough");
    assert_eq!(rig.creates().len(), 1);
    assert_eq!(rig.snapshots().len(), 0);
    assert_clean(&rig);
    // Nothing was seen, which is no proof so soon after: the next start looks again, and only a later one
    // gives up.
    let journals = rig.journals();
    assert_eq!(journals.len(), 1);
    rig.run(&["snapshot"]).exits(0).says("EC2 shows no snapshots of it");
    assert_eq!(rig.journals(), journals);
    let journal = rig.path("run/runs").join(&journals[0]);
    sh("sed", &["-i", r#"s/"started": "20../"started": "2000/"#, journal.to_str().unwrap()]);
    rig.run(&["snapshot"]).exits(0).says("EC2 shows no snapshots of it");
    assert_settled(&rig);
}

#[test]
fn a_missing_permission_is_found_before_anything_is_touched() {
    for (denied, says) in [("CreateSnapshots", "volume/*"), ("CreateTags", "snapshot/*")] {
        let rig =
            Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], &format!("[iam]\ndeny = ['ec2:{denied}']\n"));
        let log = rig.path("hook-ran");
        let touch = format!("pre = ['/usr/bin/touch', '{}']", log.display());
        rig.configure(&format!("[[hook]]\nname = 'db'\n{touch}\ntimeout = '5s'\n"));
        let ended = rig.run(&["snapshot"]);
        ended.exits(77).says("UnauthorizedOperation").says(&format!("ec2:{denied} is missing")).says(says);
        assert!(ended.err.contains(r#"{"Effect":"Allow","Action":"ec2:"#), "{}", ended.err);
        assert!(!log.exists(), "a hook ran");
        assert_eq!(rig.creates().len(), 0);
        assert_settled(&rig);
    }
}

#[test]
fn an_ec2_that_cannot_be_reached_is_found_before_anything_is_touched() {
    let rig = two();
    let ran = rig.path("hook-ran");
    rig.configure(&format!(
        "[[hook]]\nname = 'db'\npre = ['/usr/bin/touch', '{}']\ntimeout = '5s'\n",
        ran.display()
    ));
    rig.sim(&["faults", "add", "--action", "connection", "--kind", "refuse"]);
    rig.run(&["snapshot"]).exits(23);
    assert!(!ran.exists(), "a hook ran");
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn a_volume_that_ec2_does_not_know_is_refused() {
    let rig = two();
    rig.control("POST", "volumes/b/detach", "");
    let ended = rig.run(&["snapshot", "--mount", rig.mount("b").to_str().unwrap()]);
    ended.exits(78).says(rig.mount("b").to_str().unwrap());
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

fn fsfreeze(what: &str, mount: &Path) {
    assert!(Command::new("fsfreeze").arg(what).arg(mount).status().unwrap().success());
}

fn foreign_thaw(arguments: &[&str], code: i32) {
    let rig = two();
    let run = in_the_window(&rig, &[&["snapshot", "-o", "json"], arguments].concat());
    fsfreeze("--unfreeze", &rig.mount("a"));
    let ended = run.end();
    let record = ended.exits(code).record();
    assert_eq!(record["achieved"], "crash");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("thawed by something else") && reason.contains("/a"), "{reason}");
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn a_foreign_thaw_takes_the_label() {
    foreign_thaw(&[], 22);
}

#[test]
fn a_foreign_thaw_is_kept_where_the_policy_says_so() {
    foreign_thaw(&["--on-degraded", "keep"], 10);
}

#[test]
fn a_foreign_thaw_and_freeze_is_seen_by_the_write_counter() {
    let rig = two();
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let mount = rig.mount("a");
    fsfreeze("--unfreeze", &mount);
    let mut file = std::fs::File::create(mount.join("meanwhile")).unwrap();
    std::io::Write::write_all(&mut file, b"written while it should be frozen").unwrap();
    file.sync_all().unwrap();
    fsfreeze("--freeze", &mount);
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("was written to"), "{}", record["reason"]);
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn a_foreign_freeze_is_left_alone() {
    let rig = two();
    let foreign = rig.mount("b");
    fsfreeze("--freeze", &foreign);
    let ended = rig.run(&["snapshot"]);
    ended
        .exits(21)
        .says(foreign.to_str().unwrap())
        .says("Device or resource busy")
        .says("never thaws what it did not freeze");
    assert_eq!(rig.creates().len(), 0);
    assert!(!was_frozen(&rig.mount("a")), "what it froze itself is thawed");
    assert!(was_frozen(&foreign), "somebody else's freeze is not ours to thaw");
    assert_settled(&rig);
}
