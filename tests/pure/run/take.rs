//! A run that takes a set: its order, every failure of EC2 and of the kernel, and a signal at each step.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use rig::made_ec2::Fault;
use stillpoint::config::settings::{OnDegraded, OnFailure, PlanSettings};
use stillpoint::exit::Exit;
use stillpoint::plan::{Consistency, MissingMount};
use stillpoint::run::step::Step;

use super::{Machine, NOW, hook, hooks_ran, lines};

/// Volumes of the made host's set.
const VOLUMES: usize = 3;

#[tokio::test]
async fn a_run_takes_a_set_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let outcome = machine.take().await.unwrap();
    let record = &outcome.record;
    assert_eq!((record.exit, record.achieved), (Exit::Ok, Some(Consistency::Filesystem)), "{record:?}");
    assert_eq!(record.snapshots.len(), machine.plan.volumes.len());
    let known = [Step::Attempt, Step::PreHook, Step::LookUp, Step::PostHook, Step::Released];
    let expected: Vec<_> = Step::ALL.into_iter().filter(|s| !known.contains(s) && !s.of_group()).collect();
    assert_eq!(machine.steps(), expected, "the order of a run without hooks and without a fault");
    let snapshots = machine.ec2.snapshots();
    assert!(snapshots.iter().all(|s| s.tags["stillpoint:consistency"] == "filesystem"));
    assert!(machine.journals().is_empty(), "nothing is owed");
    let kept = machine.folder.path().join(format!("state/sets/{}.json", record.run_id));
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!((&kept["exit_code"], &kept["achieved"]), (&0.into(), &"filesystem".into()));
    machine.is_left_well("no fault");
}

/// EC2 is asked and the host looked at once more after the first flush. What is written meanwhile, FIFREEZE would
/// write while writers wait, so it is flushed as the last thing before.
#[tokio::test]
async fn what_is_to_freeze_is_flushed_after_the_last_look_at_the_host() {
    let machine = Machine::new();
    let kernel = Arc::clone(&machine.kernel);
    machine.heard.at_step(Step::BusyAgain, move || kernel.refuse_once("sync", "/", Errno::EIO));
    let record = machine.take().await.unwrap().record;
    assert_eq!(
        (record.exit, record.reason.as_deref()),
        (Exit::Freeze, Some("cannot flush /: EIO: I/O error"))
    );
    assert!(machine.kernel.called("freeze").is_empty() && !machine.ec2.calls().contains(&"create"));
    assert!(machine.journals().is_empty(), "nothing is owed");
    machine.is_left_well("the last flush fails");
}

/// A plan may leave open what only root can find out, for whoever looks. Nothing is frozen on such a one.
#[tokio::test]
async fn what_only_root_could_find_out_is_no_ground_for_a_run() {
    let mut machine = Machine::new();
    let dev = machine.plan.filesystems[0].dev;
    machine.facts.unchecked.insert(dev, ["whether it has devices beside its own".to_owned()].into());
    let refused = machine.take().await.unwrap_err();
    assert_eq!(refused.exit, Exit::Permission, "{refused}");
    assert!(refused.to_string().contains("whether it has devices"), "{refused}");
    assert!(machine.ec2.calls().is_empty() && machine.journals().is_empty());
    machine.is_left_well("not checked");
}

/// The label is that of what was taken; the exit code tells that it is not all.
#[tokio::test]
async fn a_set_without_what_should_be_mounted_keeps_its_label() {
    for (policy, exit) in [(OnDegraded::Fail, Exit::NotHeld), (OnDegraded::Keep, Exit::Lower)] {
        let mut machine = Machine::with(|_, settings| settings.on_degraded = policy);
        machine.plan.missing.push(MissingMount {
            mount_point: "/gone".into(),
            source: "UUID=1".into(),
            named_by: "/etc/fstab, line 1".into(),
            device: None,
            volumes: Vec::new(),
            automount: false,
            why: "nothing here is UUID=1".into(),
            counts: true,
        });
        let record = machine.take().await.unwrap().record;
        assert_eq!((record.exit, record.achieved), (exit, Some(Consistency::Filesystem)));
        assert!(machine.ec2.snapshots().iter().all(|s| s.tags["stillpoint:consistency"] == "filesystem"));
    }
}

/// P6: what a host without this one's records reads.
#[tokio::test]
async fn the_tags_of_each_snapshot_say_what_was_on_it_and_how_it_was_mounted() {
    let machine = Machine::new();
    let record = machine.take().await.unwrap().record;
    let kept = serde_json::to_value(&record).unwrap();
    let differ = ["part", "device", "mounts"].map(|k| format!("stillpoint:{k}"));
    let mut text = String::new();
    for made in machine.ec2.snapshots() {
        let own = differ.iter().filter_map(|k| Some(format!("{k} {}\n", made.tags.get(k)?)));
        text.push_str(&format!("{}\n{}", made.view.volume, own.collect::<String>()));
        assert_eq!(made.tags["stillpoint:run"], record.run_id.as_str());
        for key in ["frozen", "requested", "responded", "thawed"] {
            assert_eq!(made.tags[&format!("stillpoint:{key}")], kept["times"][key].as_str().unwrap());
        }
    }
    let passing = ["run", "frozen", "requested", "responded", "thawed"].map(|k| format!("stillpoint:{k}"));
    let made = machine.ec2.snapshots();
    let same = made[0].tags.iter().filter(|(k, _)| !passing.contains(k) && !differ.contains(k));
    text.extend(same.map(|(k, v)| format!("{k} {v}\n")));
    insta::assert_snapshot!(text);
}

/// Every call of EC2 and of the kernel, made to fail: P1, P2 and P4 hold after each, and the code is the
/// documented one.
#[tokio::test]
async fn after_any_failure_nothing_is_frozen_or_requested_twice_or_called_more_than_it_is() {
    use Fault::{AnswerLost, Refused, RequestLost};
    // The run is refused before anything is touched, or ends without a set, or has a set and fails after it.
    let cases: [(&str, Fault, Exit, usize); 14] = [
        ("dry-run", Refused, Exit::Ec2, 0),
        ("dry-run", AnswerLost, Exit::Ec2, 0),
        ("dry-run", RequestLost, Exit::Ec2, 0),
        ("pending", Refused, Exit::Ec2, 0),
        ("pending", RequestLost, Exit::Ec2, 0),
        ("started", Refused, Exit::Ec2, 0),
        ("started", RequestLost, Exit::Ec2, 0),
        ("create", Refused, Exit::Ec2, 0),
        ("create", AnswerLost, Exit::Ec2, VOLUMES),
        ("create", RequestLost, Exit::Ec2, 0),
        ("find", Refused, Exit::Ok, VOLUMES), // is not asked
        ("tag", Refused, Exit::After, VOLUMES),
        ("tag", AnswerLost, Exit::After, VOLUMES),
        ("tag", RequestLost, Exit::After, VOLUMES),
    ];
    for (call, fault, exit, snapshots) in cases {
        let case = format!("{call} {fault:?}");
        let machine = Machine::new();
        machine.ec2.fail(call, fault);
        let ended = machine.take().await;
        let (said, achieved) = match &ended {
            Ok(outcome) => (outcome.record.exit, outcome.record.achieved),
            Err(error) => (error.exit, None),
        };
        machine.is_left_well(&case);
        assert_eq!((said, machine.ec2.snapshots().len()), (exit, snapshots), "{case}");
        if call == "create" && snapshots > 0 {
            assert_eq!(achieved, Some(Consistency::Crash), "{case}: nobody saw that it held");
            assert!(machine.ec2.snapshots().iter().all(|s| s.tags["stillpoint:consistency"] == "crash"));
        }
        // Where EC2 has to be asked or told again, the journal stays for the next start.
        let stays = matches!((call, fault), ("create", RequestLost) | ("tag", _));
        assert_eq!(!machine.journals().is_empty(), stays, "{case}");
    }
    let mounts: Vec<_> = Machine::new().plan.filesystems.iter().map(|f| f.mount_point.clone()).collect();
    for call in ["open", "sync", "freeze", "thaw"] {
        for mount in &mounts {
            let case = format!("{call} {}", mount.display());
            let machine = Machine::new();
            let errno = if call == "thaw" { Errno::EINVAL } else { Errno::EIO };
            machine.kernel.refuse(call, mount, errno);
            let record = machine.take().await.unwrap().record;
            if call != "thaw" {
                machine.is_left_well(&case);
            }
            let reached =
                !machine.kernel.called(call).is_empty() && machine.kernel.called(call).contains(mount);
            match call {
                _ if !reached => assert_eq!(record.exit, Exit::Ok, "{case}: not asked of this one"),
                // Somebody else thawed it: the set is there, and is no more than after a crash.
                "thaw" => {
                    let seen = (record.exit, record.achieved, record.snapshots.len());
                    assert_eq!(seen, (Exit::NotHeld, Some(Consistency::Crash), VOLUMES), "{case}");
                    let kept = serde_json::to_value(&record).unwrap();
                    for made in machine.ec2.snapshots() {
                        let reason = &made.tags["stillpoint:reason"];
                        assert!(
                            !reason.is_empty() && kept["reason"].as_str().unwrap().starts_with(reason),
                            "{case}"
                        );
                    }
                }
                _ if record.snapshots.is_empty() => assert_eq!(record.exit, Exit::Freeze, "{case}"),
                // What cannot freeze is flushed; that it failed takes the label down.
                _ => assert_eq!((call, record.exit), ("sync", Exit::NotHeld), "{case}: {record:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_with_pauses_and_never_asked_for_again() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    machine.ec2.fail("create", Fault::AnswerLost);
    let outcome = machine.take().await.unwrap();
    let paused: Duration = machine.clock.pauses().iter().sum();
    assert!(paused >= Duration::from_millis(400), "{paused:?}");
    assert_eq!(outcome.record.snapshots.len(), VOLUMES);
    let reason = outcome.record.reason.unwrap();
    assert!(reason.contains("3 snapshots of this run exist all the same"), "{reason}");
    // Applications are not kept waiting for the look-up, so they hear that the result is unknown.
    let at = |step| machine.steps().iter().position(|s| *s == step).unwrap();
    assert!(at(Step::Released) < at(Step::LookUp));
    assert_eq!(hooks_ran(machine.folder.path()), lines(["pre", "post unknown", "completed taken"]));
}

/// The window's limit is a second: the test needs that time to pass.
#[tokio::test]
async fn what_ec2_does_not_say_is_looked_up_and_is_no_more_than_after_a_crash() {
    for (fault, reason) in [
        (Fault::NoAnswer, "EC2 did not answer within the window of 1s; 3 snapshots of this run exist"),
        (Fault::Partial, "EC2's answer says nothing of vol-00000000000000000; 3 snapshots of this run exist"),
    ] {
        let machine = Machine::with(|_, s| s.window = Duration::from_secs(1));
        machine.ec2.fail("create", fault);
        let record = machine.take().await.unwrap().record;
        assert_eq!((record.exit, record.achieved), (Exit::Ec2, Some(Consistency::Crash)), "{fault:?}");
        assert!(record.reason.as_ref().is_some_and(|r| r.contains(reason)), "{record:?}");
        assert!(machine.ec2.snapshots().iter().all(|s| s.tags["stillpoint:consistency"] == "crash"));
        assert!(machine.journals().is_empty(), "all of it was found and labelled");
        machine.is_left_well(&format!("{fault:?}"));
    }
}

#[tokio::test]
async fn a_signal_at_any_step_ends_the_run_until_ec2_has_answered_and_no_more_after_it() {
    let hook = |folder: &Path, s: &mut PlanSettings| s.hooks = vec![hook(folder, "true", OnFailure::Abort)];
    for step in Step::ALL.into_iter().filter(|s| *s != Step::LookUp && !s.of_group()) {
        let machine = Machine::with(hook);
        let interrupt = machine.heard.interrupt_at(step);
        let ended = machine.take_until(interrupt).await;
        let case = format!("SIGTERM at {step}");
        machine.is_left_well(&case);
        assert!(machine.steps().contains(&step), "{case}: was not reached");
        let ran = hooks_ran(machine.folder.path());
        let held = ran.iter().filter(|l| l.starts_with("pre")).count();
        let released = ran.iter().filter(|l| l.starts_with("post")).count();
        // A pre command that a signal has stopped may not have written anything: its post command runs all
        // the same.
        assert!(held <= released, "{case}: {ran:?}");
        let answered = step >= Step::Answered;
        match &ended {
            // In the window the answer of EC2 in memory is there at once: the call wins.
            Ok(outcome) if answered || matches!(step, Step::Frozen | Step::Request) => {
                assert_eq!((outcome.record.exit, outcome.signal), (Exit::Ok, None), "{case}");
                assert!(machine.journals().is_empty(), "{case}");
            }
            Ok(outcome) => {
                assert_eq!(outcome.signal, Some(Signal::SIGTERM), "{case}");
                assert!(outcome.record.snapshots.is_empty(), "{case}");
                assert!(machine.journals().is_empty(), "{case}");
            }
            Err(error) => {
                assert_eq!(error.signal, Some(Signal::SIGTERM), "{case}");
                assert!(step < Step::JournalStart && ran.is_empty(), "{case}: {ran:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_volume_that_was_just_snapshotted_is_waited_for_before_hooks_run() {
    let machine = Machine::new();
    let now: Timestamp = NOW.parse().unwrap();
    let volume = &machine.plan.volumes[0].id;
    machine.ec2.has(volume, "completed", now - SignedDuration::from_secs(4));
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    assert_eq!(machine.clock.pauses(), [Duration::from_secs(11)], "15 s after the last one");
}

#[tokio::test]
async fn what_is_requested_and_what_is_kept_decide_the_code() {
    let machine = Machine::with(|_, s| s.on_degraded = OnDegraded::Keep);
    machine.kernel.refuse("thaw", "/", Errno::EINVAL);
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::Lower, Some(Consistency::Crash)));
    assert!(record.reason.unwrap().contains("thawed by something else meanwhile: /"));
}

/// Nobody else says that there is no set tonight.
#[tokio::test]
async fn every_failed_command_of_the_plan_runs_when_nothing_was_taken() {
    let machine = Machine::with(|folder, s| {
        let first = hook(folder, "false", OnFailure::Abort);
        let mut second = hook(folder, "true", OnFailure::Abort);
        second.name = "never attempted".into();
        s.hooks = vec![first, second];
    });
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::Hook, None));
    let ran = hooks_ran(machine.folder.path());
    assert_eq!(
        ran,
        ["pre", "post failed", "failed failed", "failed failed"],
        "of both, and no post of the second"
    );
}

/// EC2 accepts a snapshot, and may not complete it.
#[tokio::test]
async fn a_former_set_that_ec2_could_not_complete_is_told_by_the_next_run_once() {
    let machine = Machine::new();
    let first = machine.take().await.unwrap().record;
    assert_eq!(first.exit, Exit::Ok);
    // Where EC2 does not say, nothing is forgotten.
    machine.ec2.fail("states", Fault::Refused);
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    machine.ec2.mend("states");
    machine.ec2.fail("create", Fault::Refused);
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ec2);
    machine.ec2.mend("create");
    let label = |s: &rig::made_ec2::Made| s.tags["stillpoint:consistency"].clone();
    let labels = |n: usize| machine.ec2.snapshots().iter().take(n).map(label).collect::<Vec<_>>();
    let before = labels(usize::MAX);
    machine.ec2.become_all("error");
    let told = machine.take().await.unwrap().record;
    assert_eq!((told.exit, told.achieved), (Exit::After, Some(Consistency::Filesystem)));
    let lost: Vec<_> = told.after.iter().filter(|a| a.contains("a former set is lost")).collect();
    assert_eq!(lost.len(), 2, "{:?}", told.after);
    assert!(lost[0].contains(first.run_id.as_str()), "{lost:?}");
    assert!(lost[0].contains(first.snapshots[0].id.as_str()), "{lost:?}");
    assert_eq!(labels(before.len()), before, "a label says what its point in time is worth");
    // It was told, and what is completed is forgotten.
    for _ in 0..2 {
        machine.ec2.become_all("completed");
        assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    }
    let kept = std::fs::read_to_string(machine.folder.path().join("state/pending.json")).unwrap();
    assert!(!kept.contains(first.run_id.as_str()) && !kept.contains(told.run_id.as_str()), "{kept}");
}

#[tokio::test]
async fn a_run_that_is_refused_forgets_no_former_set() {
    let machine = Machine::new();
    machine.take().await.unwrap();
    machine.ec2.become_all("error");
    machine.ec2.fail("dry-run", Fault::Denied);
    assert_eq!(machine.take().await.unwrap_err().exit, Exit::Permission);
    machine.ec2.mend("dry-run");
    // One that takes nothing says it, too.
    machine.ec2.fail("create", Fault::Refused);
    let told = machine.take().await.unwrap().record;
    assert_eq!(told.exit, Exit::Ec2);
    assert!(told.after.iter().any(|a| a.contains("a former set is lost")), "{:?}", told.after);
}
