//! Credentials that end before the run does: fetched again after the hooks, never in the window.

use std::time::Duration;

use stillpoint::config::settings::OnFailure;
use stillpoint::ec2::Ec2Error;
use stillpoint::exit::Exit;
use stillpoint::run::step::Step;

use super::{Machine, hook, hooks_ran};

fn none(passes: bool) -> Ec2Error {
    Ec2Error::Credentials { action: "made", why: "made".into(), hint: "renew them".into(), passes }
}

fn held() -> Machine {
    Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)])
}

#[tokio::test]
async fn they_are_to_last_for_the_window_and_what_follows_it() {
    let machine = held();
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    assert_eq!(machine.ec2.needs(), [machine.settings.window + Duration::from_secs(120)]);
    let calls = machine.ec2.calls();
    let at = |call| calls.iter().position(|c| *c == call).unwrap();
    assert!(at("started") < at("renew") && at("renew") < at("create"), "{calls:?}");
    assert_eq!(machine.rehearse().await.exit, Exit::Ok);
    assert_eq!(machine.ec2.needs().len(), 2, "a rehearsal tells too");
}

#[tokio::test]
async fn those_that_cannot_last_end_the_run_before_the_freeze() {
    let machine = held();
    machine.heard.fail_at(Step::Warm, &machine.ec2, "renew", vec![none(false)]);
    let outcome = machine.take().await.unwrap();
    assert_eq!((outcome.record.exit, outcome.hint.as_deref()), (Exit::Permission, Some("renew them")));
    assert!(!machine.ec2.calls().contains(&"create") && machine.kernel.called("freeze").is_empty());
    assert_eq!(hooks_ran(machine.folder.path()), ["pre", "post failed", "failed failed"]);
    machine.is_left_well("credentials");
}

/// IMDS stumbles while applications are held.
#[tokio::test]
async fn those_that_are_late_are_asked_for_again() {
    let machine = held();
    machine.heard.fail_at(Step::Warm, &machine.ec2, "renew", vec![none(true), none(true)]);
    assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok);
    assert_eq!(machine.ec2.needs().len(), 3);
}
