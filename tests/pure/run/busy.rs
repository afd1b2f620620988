//! What a filesystem may be busy with: which of it a run waits for, and when it is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stillpoint::config::settings::{OnDegraded, OnFailure};
use stillpoint::exit::Exit;
use stillpoint::plan::Consistency;
use stillpoint::run::step::Step;

use super::{Machine, hook, hooks_ran};

/// sysfs's word for what goes on in the made host's btrfs.
fn word(machine: &Machine) -> PathBuf {
    let folder = machine.host.path("sys/fs/btrfs/0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11");
    assert!(folder.is_dir());
    folder.join("exclusive_operation")
}

fn say(machine: &Machine, operation: &str) {
    std::fs::write(word(machine), format!("{operation}\n")).unwrap();
}

#[tokio::test]
async fn what_blocks_is_refused_before_hooks_and_says_what_to_do() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    for (operation, remedy) in
        [("balance", "btrfs balance pause /srv"), ("device remove", "its end"), ("resize", "its end")]
    {
        say(&machine, operation);
        let refused = machine.take().await.unwrap_err();
        assert_eq!(refused.exit, Exit::Freeze, "{operation}");
        let said = refused.render();
        for text in [&format!("btrfs {operation} on /srv"), remedy, "nothing was frozen", "busy_timeout"] {
            assert!(said.contains(text), "{text}: {said}");
        }
    }
    assert_eq!(machine.steps().last(), Some(&Step::Busy));
    assert!(hooks_ran(machine.folder.path()).is_empty() && machine.journals().is_empty());
    machine.is_left_well("refused");
}

#[tokio::test]
async fn what_does_not_block_is_no_reason_to_wait() {
    let machine = Machine::new();
    for operation in ["none", "balance paused", "swap activate"] {
        say(&machine, operation);
        assert_eq!(machine.take().await.unwrap().record.exit, Exit::Ok, "{operation}");
    }
}

/// While it is replaced, a device is written to also when the filesystem is frozen.
#[tokio::test]
async fn what_costs_the_label_is_refused_unless_the_policy_takes_such_a_set() {
    let replaced = async |change: fn(&mut stillpoint::config::settings::PlanSettings)| {
        let machine = Machine::with(|_, s| change(s));
        say(&machine, "device replace");
        machine.take().await.map(|outcome| outcome.record.exit)
    };
    let refused = replaced(|_| ()).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Freeze);
    assert!(refused.render().contains("the set would be `crash`"), "{}", refused.render());
    assert!(refused.render().contains("btrfs replace cancel /srv"));
    assert_eq!(replaced(|s| s.on_degraded = OnDegraded::Keep).await.unwrap(), Exit::Ok);
    assert_eq!(replaced(|s| s.consistency = Some(Consistency::Crash)).await.unwrap(), Exit::Ok);
}

#[tokio::test]
async fn a_run_waits_for_the_end_for_as_long_as_it_is_told() {
    let machine = Machine::with(|_, s| s.busy_timeout = Duration::from_secs(3600));
    say(&machine, "balance");
    let ends = async {
        // It lasts longer than what is over in a moment.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(machine.steps().last(), Some(&Step::Busy));
        say(&machine, "none");
    };
    let (outcome, ()) = tokio::join!(machine.take(), ends);
    assert_eq!(outcome.unwrap().record.exit, Exit::Ok);
}

#[tokio::test]
async fn what_begins_while_hooks_run_is_seen_before_the_freeze() {
    let begin = |folder: &Path| format!("cp {0}/balance \"$(cat {0}/where)\"", folder.display());
    let machine = Machine::with(|folder, s| {
        s.busy_timeout = Duration::from_secs(3600); // nobody waits so long while applications are quiesced
        s.hooks = vec![hook(folder, &begin(folder), OnFailure::Abort)];
    });
    say(&machine, "none");
    std::fs::write(machine.folder.path().join("balance"), "balance\n").unwrap();
    std::fs::write(machine.folder.path().join("where"), word(&machine).to_str().unwrap()).unwrap();
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.snapshots.len()), (Exit::Freeze, 0));
    let reason = record.reason.unwrap();
    assert!(reason.contains("btrfs balance on /srv") && reason.contains("has begun since"), "{reason}");
    assert!(!machine.steps().contains(&Step::Freezing) && machine.steps().contains(&Step::BusyAgain));
    assert_eq!(hooks_ran(machine.folder.path()), ["pre", "post failed", "failed failed"]);
    assert!(!machine.ec2.calls().contains(&"create") && machine.journals().is_empty());
    machine.is_left_well("begun meanwhile");
}
