//! The other goals: a rehearsal, and a freeze for somebody else.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use stillpoint::exit::Exit;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::Consistency;
use stillpoint::run::control_socket::{self, ControlSocket, ThawReply};
use stillpoint::run::held_freeze::hold;
use stillpoint::run::step::Step;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::Machine;

#[tokio::test]
async fn a_rehearsal_goes_the_same_way_and_asks_ec2_for_nothing_that_changes_it() {
    let machine = Machine::new();
    let round = machine.rehearse().await;
    assert_eq!((round.exit, round.achieved), (Exit::Ok, Some(Consistency::Filesystem)), "{round:?}");
    let rehearsed = machine.steps();
    let taking = Machine::new();
    taking.take().await.unwrap();
    let only_taking = [Step::Request, Step::Made, Step::Judged, Step::Label, Step::Record];
    let shared: Vec<_> = taking.steps().into_iter().filter(|s| !only_taking.contains(s)).collect();
    assert_eq!(rehearsed, shared);
    assert!(
        machine.ec2.calls().iter().all(|c| ["dry-run", "may-tag", "pending", "started", "renew"].contains(c))
    );
    assert!(machine.ec2.snapshots().is_empty() && machine.journals().is_empty());
    assert!(!machine.folder.path().join("state").exists(), "no record is kept");
    machine.is_left_well("rehearsal");
}

#[tokio::test]
async fn a_rehearsal_that_does_not_hold_says_so() {
    let machine = Machine::new();
    machine.kernel.refuse("freeze", "/", Errno::EPERM);
    let round = machine.rehearse().await;
    assert_eq!((round.exit, round.achieved), (Exit::Freeze, None));
    assert!(round.hint.unwrap().contains("CAP_SYS_ADMIN"));
    machine.is_left_well("a refused freeze");
    let machine = Machine::new();
    machine.kernel.refuse("thaw", "/", Errno::EINVAL);
    let round = machine.rehearse().await;
    assert_eq!((round.exit, round.achieved), (Exit::NotHeld, Some(Consistency::Crash)));
}

/// Freezes for somebody else, asks for the thaw as `thaw` does, and gives both records.
async fn held(machine: &Machine) -> (serde_json::Value, serde_json::Value) {
    let run_dir = machine.run_dir();
    std::fs::create_dir_all(run_dir.join("runs")).unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut caller = BufReader::new(UnixStream::from_std(ours).unwrap());
    machine
        .on(async |env, job| {
            let mut control = ControlSocket::open(env.run_dir, &job.run, OwnedFd::from(theirs)).unwrap();
            let thaw = async {
                let told = control_socket::next_record(&mut caller).await.unwrap();
                assert!(told.lasts() && !machine.kernel.frozen().is_empty());
                control_socket::confirm(&mut caller).await.unwrap();
                let ThawReply::Done(ended) = control_socket::request_thaw(env.run_dir, &job.run).await else {
                    panic!("the holder does not answer");
                };
                (serde_json::to_value(told).unwrap(), serde_json::to_value(*ended).unwrap())
            };
            let lasts = Duration::from_secs(60);
            let holder = async {
                let mut never = Interrupt::never();
                let record = hold(env, job, lasts, &[], &mut control, &mut never).await.unwrap();
                control.close(&record).await;
            };
            let (records, ()) = tokio::join!(thaw, holder);
            records
        })
        .await
}

#[tokio::test]
async fn a_freeze_for_others_is_told_held_and_thawed_on_request() {
    let machine = Machine::new();
    let (told, ended) = held(&machine).await;
    assert_eq!((&told["held"], &told["exit_code"]), (&serde_json::Value::Null, &0.into()));
    assert_eq!((&ended["held"], &ended["achieved"]), (&true.into(), &"filesystem".into()), "{ended}");
    assert!(machine.ec2.calls().is_empty(), "EC2 is asked for nothing");
    assert!(machine.journals().is_empty());
    machine.is_left_well("held freeze");
}

#[tokio::test]
async fn a_freeze_for_others_that_somebody_thawed_is_not_called_held() {
    let machine = Machine::new();
    machine.kernel.refuse("thaw", "/", Errno::EINVAL);
    let (_, ended) = held(&machine).await;
    assert_eq!(
        (&ended["held"], &ended["achieved"], &ended["exit_code"]),
        (&false.into(), &"crash".into(), &22.into())
    );
}
