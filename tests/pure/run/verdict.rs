//! A verdict is given once, by the run: what is still owed of it is done from the journal, and nobody judges
//! the set again.

use rig::made_ec2::{Fault, MadeEc2};
use stillpoint::config::settings::OnFailure;
use stillpoint::exit::Exit;
use stillpoint::plan::Consistency;
use stillpoint::run::journal::Created;
use stillpoint::run::recover::{self, Settled};
use stillpoint::run::step::Step;

use super::{Machine, hook};

fn labels(ec2: &MadeEc2) -> Vec<Option<String>> {
    ec2.snapshots().into_iter().map(|s| s.tags.get("stillpoint:consistency").cloned()).collect()
}

async fn settle(machine: &Machine) -> Settled {
    let journal = machine.journals().remove(0);
    recover::settle(&*machine.ec2, &machine.facts.identity.instance_id, &machine.clock, journal)
        .await
        .unwrap()
}

#[tokio::test]
async fn tags_that_ec2_refused_are_put_on_by_the_next_start_as_they_were_judged() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    machine.ec2.fail("tag", Fault::Refused);
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::After, Some(Consistency::Application)));
    let mut ids: Vec<_> = record.snapshots.iter().map(|s| s.id.clone()).collect();
    ids.sort();
    assert_eq!(labels(&machine.ec2), vec![None; ids.len()]);
    let left = machine.journals().remove(0).state;
    assert!(left.ended, "it did not die");
    assert!(left.verdict.is_some_and(|v| !v.done));

    machine.ec2.mend("tag");
    let before = machine.ec2.calls().len();
    assert_eq!(settle(&machine).await, Settled { judged: ids.clone(), crash: Vec::new() });
    assert!(!machine.ec2.calls()[before..].contains(&"find"), "whoever has judged a set has known all of it");
    assert_eq!(labels(&machine.ec2), vec![Some("application".to_owned()); ids.len()]);
    let reason = |s: rig::made_ec2::Made| s.tags.contains_key("stillpoint:reason");
    assert!(!machine.ec2.snapshots().into_iter().any(reason));
    assert!(machine.journals().is_empty());
}

/// The answer of the call was lost, and the look-up of the run did not show all of it yet.
#[tokio::test]
async fn what_the_run_did_not_know_of_when_it_judged_is_found_later() {
    let machine = Machine::new();
    machine.ec2.fail("tag", Fault::Refused);
    machine.take().await.unwrap();
    machine.ec2.mend("tag");
    let mut journal = machine.journals().remove(0);
    let mut known = None;
    journal
        .update(|s| {
            let given = s.verdict.as_mut().unwrap();
            let first = given.tags[0].0[0].clone();
            given.tags.iter_mut().for_each(|(ids, _)| ids.retain(|id| *id == first));
            given.tags.retain(|(ids, _)| !ids.is_empty());
            s.created = Created::Maybe;
            known = Some(first);
        })
        .unwrap();
    let settled = settle(&machine).await;
    assert_eq!(settled.judged, [known.unwrap()]);
    assert_eq!(settled.crash.len(), machine.ec2.snapshots().len() - 1);
    assert!(!settled.crash.is_empty());
    let mut labels = labels(&machine.ec2);
    labels.sort();
    assert_eq!(labels.iter().filter(|l| l.as_deref() == Some("filesystem")).count(), 1, "{labels:?}");
    assert!(labels.iter().all(Option::is_some), "{labels:?}");
}

/// Every night another one, without the permission.
#[tokio::test]
async fn without_the_permission_to_tag_no_journal_is_left() {
    let machine = Machine::new();
    machine.ec2.fail("tag", Fault::Denied);
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::After, Some(Consistency::Filesystem)));
    assert!(machine.journals().is_empty());
    assert_eq!(machine.ec2.calls().iter().filter(|c| **c == "tag").count(), 1, "asking again is of no use");
}

/// A `completed` command (a copy, a mail) may take hours, and be killed.
#[tokio::test]
async fn the_journal_says_that_the_set_is_judged_before_anything_else_is_done() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    *machine.heard.run_dir.lock().unwrap() = Some(machine.run_dir());
    machine.take().await.unwrap();
    let before = machine.heard.journal_at(Step::Label);
    assert!(before.verdict.is_some_and(|v| !v.done), "before the first tag is sent");
    let after = machine.heard.journal_at(Step::Record);
    assert!(after.verdict.is_some_and(|v| v.done));
    assert_eq!(after.created, Created::No, "EC2 is asked nothing more");
}

#[tokio::test]
async fn a_run_that_died_without_a_verdict_made_a_crash_consistent_set() {
    let machine = Machine::new();
    *machine.heard.run_dir.lock().unwrap() = Some(machine.run_dir());
    machine.ec2.fail("tag", Fault::Refused);
    machine.take().await.unwrap();
    machine.ec2.mend("tag");
    let mut journal = machine.journals().remove(0);
    journal.update(|s| s.verdict = None).unwrap();
    let settled = settle(&machine).await;
    assert_eq!((settled.judged.len(), settled.crash.len()), (0, machine.ec2.snapshots().len()));
    assert!(labels(&machine.ec2).iter().all(|l| l.as_deref() == Some("crash")));
    assert!(machine.journals().is_empty());
}

/// Somebody took the run for dead and undid what it had done: removed its journal, or wrote to it.
#[tokio::test]
async fn a_run_whose_journal_was_taken_gives_no_label_above_crash() {
    let machine = Machine::with(|folder, s| {
        let journals = folder.join("run/runs");
        let taking = format!("mkdir -p {0}/x && mv {0}/*.json {0}/x/", journals.display());
        let mut hook = hook(folder, "true", OnFailure::Abort);
        let stillpoint::config::settings::HookKind::Hook(commands) = &mut hook.kind else { unreachable!() };
        commands.post = Some(["/bin/sh", "-c", &taking].map(str::to_owned).to_vec());
        s.hooks = vec![hook];
    });
    let record = machine.take().await.unwrap().record;
    assert_eq!(record.achieved, Some(Consistency::Crash));
    assert!(record.reason.unwrap().contains("removed or replaced the journal"));
    assert_eq!(record.exit, Exit::NotHeld);
}

/// A restore has copied the tags of a dead run's snapshot to a volume, and another tool from there.
#[tokio::test]
async fn what_only_carries_a_copy_of_a_dead_runs_tags_is_not_labelled() {
    let machine = Machine::new();
    machine.ec2.fail("tag", Fault::Refused);
    machine.take().await.unwrap();
    machine.ec2.mend("tag");
    let made = machine.ec2.snapshots().len();
    let copied = machine.ec2.snapshots()[0].tags.clone();
    let stranger = machine.ec2.has_tagged(&"vol-0fffffffffffffff0".parse().unwrap(), copied);
    let mut journal = machine.journals().remove(0);
    journal.update(|s| s.verdict = None).unwrap();
    let settled = settle(&machine).await;
    assert_eq!(settled.crash.len(), made);
    assert!(!settled.crash.contains(&stranger));
    assert_eq!(labels(&machine.ec2).last(), Some(&None), "left alone");
}
