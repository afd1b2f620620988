//! Applications are released and hear the result; the journal says beforehand what a recovery has to undo.

use std::path::PathBuf;

use nix::errno::Errno;
use rig::made_ec2::Fault;
use stillpoint::config::settings::{HookKind, OnFailure};
use stillpoint::exit::Exit;
use stillpoint::plan::Consistency;
use stillpoint::run::journal::{Created, State};
use stillpoint::run::step::Step;

use super::{Machine, hook, hooks_ran, lines};

#[tokio::test]
async fn hooks_are_released_and_hear_the_result_whatever_happens() {
    let ran = async |pre: &str, on_failure: OnFailure, fault: Option<(&'static str, Fault)>| {
        let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, pre, on_failure)]);
        let folder = machine.folder.path().to_path_buf();
        if let Some((call, fault)) = fault {
            machine.ec2.fail(call, fault);
        }
        let record = machine.take().await.unwrap().record;
        machine.is_left_well(pre);
        assert!(machine.journals().is_empty());
        (record.exit, record.achieved, hooks_ran(&folder))
    };
    let application = Some(Consistency::Application);
    let good = ran("true", OnFailure::Abort, None).await;
    assert_eq!(good, (Exit::Ok, application, lines(["pre", "post taken", "completed taken"])));
    let refused = ran("true", OnFailure::Abort, Some(("create", Fault::Refused))).await;
    assert_eq!(refused, (Exit::Ec2, None, lines(["pre", "post failed", "failed failed"])));
    let aborts = ran("exit 3", OnFailure::Abort, None).await;
    assert_eq!(aborts, (Exit::Hook, None, lines(["pre", "post failed", "failed failed"])));
    let degraded = ran("exit 3", OnFailure::Degrade, None).await;
    let filesystem = Some(Consistency::Filesystem);
    let told = lines(["pre", "post taken", "completed taken"]);
    assert_eq!(degraded, (Exit::NotHeld, filesystem, told), "application was requested");
}

/// At each step the journal has to say what a recovery would need if the run died there.
#[tokio::test]
async fn the_journal_says_beforehand_what_may_have_to_be_undone() {
    let noted = |machine: &Machine| *machine.heard.run_dir.lock().unwrap() = Some(machine.run_dir());
    let frozen = |state: &State| state.frozen.iter().map(|f| f.mount_point.clone()).collect::<Vec<_>>();
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    noted(&machine);
    machine.take().await.unwrap();
    let at = |step| machine.heard.journal_at(step);
    assert_eq!((at(Step::Attempt).attempted.len(), at(Step::PreHook).attempted.len()), (0, 1));
    assert_eq!((frozen(&at(Step::JournalWindow)), at(Step::JournalWindow).created), (vec![], Created::No));
    let freezes = ["/srv", "/"].map(PathBuf::from).to_vec();
    assert_eq!((frozen(&at(Step::Freezing)), at(Step::Freezing).created), (freezes.clone(), Created::Maybe));
    let ids: Vec<_> = machine.ec2.snapshots().into_iter().map(|s| s.view.id).collect();
    let released = at(Step::PostHook);
    assert_eq!((frozen(&released), released.created), (vec![], Created::Made(ids)));
    assert!(released.env.unwrap().frozen && !released.rehearsal);

    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    noted(&machine);
    machine.kernel.refuse("freeze", "/", Errno::EPERM);
    machine.take().await.unwrap();
    let released = machine.heard.journal_at(Step::PostHook);
    assert_eq!((frozen(&released), released.created), (vec![], Created::No));
    assert!(!released.env.unwrap().frozen, "it never was");

    let machine = Machine::new();
    noted(&machine);
    machine.rehearse().await;
    let state = machine.heard.journal_at(Step::Freezing);
    assert_eq!((frozen(&state), state.created, state.rehearsal), (freezes, Created::No, true));
}

/// A verdict is given once: what is still to be released has nothing to do with the label.
#[tokio::test]
async fn a_set_that_has_its_label_keeps_it_though_a_release_is_owed() {
    let machine = Machine::with(|folder, s| {
        let mut hook = hook(folder, "true", OnFailure::Abort);
        let HookKind::Hook(commands) = &mut hook.kind else { unreachable!() };
        // No process can be started with an argument of more than 128 KiB (execve(2)).
        commands.post = Some(vec!["/bin/true".to_owned(), "x".repeat(200_000)]);
        s.hooks = vec![hook];
    });
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::After, Some(Consistency::Application)));
    let left = machine.journals();
    assert_eq!(left[0].state.attempted.len(), 1, "the next start runs it");
    assert_eq!(left[0].state.created, Created::No, "and asks EC2 for nothing");
}
