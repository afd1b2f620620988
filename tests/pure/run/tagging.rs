//! What would make every run end with 11 is found before anything is touched: may the snapshots be tagged once
//! they exist?

use jiff::Timestamp;
use rig::made_ec2::Fault;
use stillpoint::config::settings::{OnDegraded, OnFailure};
use stillpoint::ec2::Ec2Error;
use stillpoint::exit::Exit;

use super::{Machine, NOW, hook, hooks_ran};

/// A machine on which CreateTags is denied for snapshots that exist, and of which stillpoint has made one.
fn denied(policy: OnDegraded, ran_before: bool) -> Machine {
    let machine = Machine::with(|folder, s| {
        s.hooks = vec![hook(folder, "true", OnFailure::Abort)];
        s.on_degraded = policy;
    });
    for call in ["may-tag", "may-tag-own", "tag"] {
        machine.ec2.fail(call, Fault::Denied);
    }
    if ran_before {
        let started: Timestamp = NOW.parse().unwrap();
        machine.ec2.made_before(&machine.plan.volumes[0].id, started - jiff::SignedDuration::from_hours(24));
    }
    machine
}

fn count(machine: &Machine, call: &str) -> usize {
    machine.ec2.calls().iter().filter(|c| **c == call).count()
}

#[tokio::test]
async fn a_denial_that_is_certain_refuses_the_run_before_anything_is_touched() {
    let machine = denied(OnDegraded::Fail, true);
    let refused = machine.take().await.unwrap_err();
    assert_eq!(refused.exit, Exit::Permission, "{refused}");
    assert!(refused.hint.is_some() && refused.to_string().contains("UnauthorizedOperation"), "{refused:?}");
    assert!(hooks_ran(machine.folder.path()).is_empty() && machine.journals().is_empty());
    assert_eq!(count(&machine, "create"), 0);
}

/// Where less is kept, and where it cannot be known, the set is taken; the exit code tells.
#[tokio::test]
async fn a_denial_that_is_allowed_or_not_certain_is_a_warning() {
    for (policy, ran_before) in
        [(OnDegraded::Keep, true), (OnDegraded::Keep, false), (OnDegraded::Fail, false)]
    {
        let machine = denied(policy, ran_before);
        let record = machine.take().await.unwrap().record;
        assert_eq!(record.exit, Exit::After, "{policy:?} {ran_before}: {record:?}");
        machine.is_left_well("warned");
    }
}

/// A policy that allows it for snapshots with stillpoint's tags alone denies it for one that nobody has.
#[tokio::test]
async fn a_permission_for_own_snapshots_alone_is_enough() {
    let machine = denied(OnDegraded::Fail, true);
    machine.ec2.mend("may-tag-own");
    machine.ec2.mend("tag");
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    assert_eq!((count(&machine, "may-tag"), count(&machine, "may-tag-own")), (1, 1));
}

/// It costs one call where all is well, and none while applications are held.
#[tokio::test]
async fn it_is_asked_once_and_before_the_hooks() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    let calls = machine.ec2.calls();
    let expected =
        ["dry-run", "may-tag", "pending", "started", "renew", "dry-run", "dry-run", "create", "tag"];
    assert_eq!(calls[..expected.len()], expected, "{calls:?}");
    assert!(!calls[expected.len()..].contains(&"may-tag"), "{calls:?}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    let machine = Machine::new();
    machine.ec2.fail_for_a_time("may-tag", [Ec2Error::refused("CreateTags", "AuthFailure", "made")]);
    assert_eq!(machine.take().await.unwrap_err().exit, Exit::Permission);
    let machine = Machine::new();
    machine.ec2.fail_for_a_time("may-tag", [Ec2Error::unknown("CreateTags", "made")]);
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok, "it is asked again");
}
