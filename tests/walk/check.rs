//! What has to hold after each case, whatever was hit: P2, P3 and P4. (P1 is looked at while it happens, in
//! `lane.rs`.)

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lane::{Events, too_busy};
use crate::load::Load;
use crate::points::{Case, FREEZE_DONE, Fault, POST_RUNNING, THAW};
use rig::Rig;
use rig::probe::{needs_recovery, tag};
use rig::program::Ended;

/// What was not as it has to be.
#[derive(Default)]
pub struct Checks {
    pub wrong: Vec<String>,
}

impl Checks {
    pub fn that(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(wrong());
        }
    }

    pub fn run(&mut self, rig: &Rig, load: &[Load], case: &Case, events: &Events, ended: &Ended) {
        let Ok(run) = std::fs::read_to_string(rig.path("run-id")) else {
            return self.that(false, || format!("the agent never began: {}", ended.err));
        };
        rig.await_quiet();
        let record: Option<Value> = serde_json::from_str(&ended.out).ok();
        let creates = rig.creates();
        self.that(creates.len() <= 1, || format!("{} create calls", creates.len()));
        self.label_is_true(rig, load, &run, events);
        let died = ended.signal == Some(9) || ended.code == Some(70);
        let told =
            if died || !rig.journals().is_empty() { self.next_start(rig, case) } else { String::new() };
        self.hooks(rig, case, events, &run);
        self.nothing_unreported(rig, &run, record.as_ref(), events, &told);
    }

    /// The next start does what is left to do: in every second case after the rescue has done its part.
    fn next_start(&mut self, rig: &Rig, case: &Case) -> String {
        for name in ["fail-pre", "fail-post", "signal"] {
            let _ = std::fs::remove_file(rig.path(name));
        }
        let _ = std::fs::remove_file(rig.path("state/sets"));
        for blocked in rig.journals().iter().filter(|n| n.ends_with(".new")) {
            let _ = std::fs::remove_dir(rig.path("run/runs").join(blocked));
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let _ = std::fs::set_permissions(rig.path("hook"), mode);
        rig.control("DELETE", "faults", "");
        let mut told = String::new();
        if case.to_string().len().is_multiple_of(2) {
            let rescue = rig.run(&["thaw"]);
            self.that(rescue.code == Some(0), || format!("thaw: {rescue:?}"));
            told = rescue.err;
        }
        let next = rig.run(&["snapshot"]);
        let good = next.code == Some(0) || too_busy(next.code, &next.err);
        self.that(good, || format!("the next start: {next:?}"));
        told + &next.err
    }

    /// Each pre hook that was attempted has had its post hook, once.
    fn hooks(&mut self, rig: &Rig, case: &Case, events: &Events, run: &str) {
        let log = std::fs::read_to_string(rig.path("hooks")).unwrap_or_default();
        let count = |what: &str, n: u32| log.lines().filter(|l| *l == format!("{what} {n} {run}")).count();
        for n in [1, 2] {
            let attempted = events.at(&format!("pre-hook#{n}")).is_some();
            let (pre, post) = (count("pre", n), count("post", n));
            // The agent died after the post hook had run and before that was noted: the recovery cannot know
            // that, and runs it again.
            let unnoted = (case.point.is("released") && case.point.nth == 3 - n)
                || (case.point.is(POST_RUNNING) && n == 2);
            // Nor can it know where the journal cannot be written any more, and is kept since an answer was
            // lost.
            let unwritable = case.api.is_some()
                && case.fault == Fault::Error
                && ["thawed", "judged", "released"].iter().any(|s| case.point.is(s));
            let again = unwritable || unnoted && (case.fault.kills() || case.fault == Fault::Panic);
            let most = usize::from(attempted) + usize::from(again);
            self.that(pre <= usize::from(attempted), || format!("pre hook {n} ran {pre} times:\n{log}"));
            self.that((usize::from(attempted)..=most).contains(&post), || {
                format!("post hook {n} ran {post} times, attempted: {attempted}:\n{log}")
            });
        }
    }

    /// A snapshot that is called more than `crash` was taken of frozen filesystems.
    fn label_is_true(&mut self, rig: &Rig, load: &[Load], run: &str, events: &Events) {
        let create = rig.creates().into_iter().next();
        for snapshot in of_run(rig, run) {
            if !["filesystem", "application"].contains(&tag(&snapshot, "stillpoint:consistency")) {
                continue;
            }
            let id = snapshot["id"].as_str().unwrap();
            let time = |key: &str| create.as_ref().and_then(|c| c[key].as_i64()).map(i128::from);
            let frozen = events.at(&format!("{FREEZE_DONE}#2"));
            self.that(frozen.is_some() && time("clone_started_ns") > frozen, || {
                format!("{id} was begun before the last FIFREEZE: {create:?} {events:?}")
            });
            let thaw = events.at(&format!("{THAW}#1"));
            self.that(thaw.is_some() && time("point_in_time_ns").is_some_and(|t| Some(t) < thaw), || {
                format!("{id} was done after the first FITHAW: {create:?} {events:?}")
            });
            let over = frozen.zip(time("point_in_time_ns"));
            self.that(over.is_some_and(|(from, to)| !load.iter().any(|l| l.wrote_between(from, to))), || {
                format!("{id} is called consistent, and a write went through before its point in time")
            });
            if rig.is_ext4() {
                self.that(!needs_recovery(rig, id), || format!("{id} needs its journal: it was not frozen"));
            }
        }
    }

    /// What was made is in the agent's record, or is told by the next start. What the agent had not judged is
    /// called `crash` then.
    fn nothing_unreported(
        &mut self,
        rig: &Rig,
        run: &str,
        record: Option<&Value>,
        events: &Events,
        next: &str,
    ) {
        let reported: BTreeSet<&str> = record
            .and_then(|r| r["snapshots"].as_array())
            .into_iter()
            .flatten()
            .filter_map(|s| s["id"].as_str())
            .collect();
        let all = rig.snapshots();
        for snapshot in of_run(rig, run) {
            let id = snapshot["id"].as_str().unwrap();
            let label = tag(&snapshot, "stillpoint:consistency");
            let found = next.contains(id);
            self.that(reported.contains(id) || found, || format!("{id} ({label:?}) is not reported: {next}"));
            self.that(!label.is_empty(), || format!("{id} has no verdict"));
            let judged = events.at("label#1").is_some();
            let claimed = match record {
                Some(record) => record["achieved"].as_str().unwrap_or_default(),
                // Whether such a label is true is looked at apart.
                None if judged => label,
                None => "",
            };
            self.that(label == claimed || label == "crash", || {
                format!("{id}: {label}, reported as {claimed}")
            });
        }
        let exist = |id: &str| all.iter().any(|s| s["id"] == id);
        self.that(reported.iter().all(|id| exist(id)), || {
            "a snapshot is reported that does not exist".into()
        });
    }
}

fn of_run(rig: &Rig, run: &str) -> Vec<Value> {
    rig.snapshots().into_iter().filter(|s| tag(s, "stillpoint:run") == run).collect()
}
