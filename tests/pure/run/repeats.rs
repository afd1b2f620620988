//! Calls that change nothing are repeated, by one policy, within the caller's time; the create call is not.

use std::time::Duration;

use nix::sys::signal::Signal;
use rig::made_ec2::{Fault, MadeClock};
use stillpoint::config::settings::OnFailure;
use stillpoint::ec2::repeat::Repeating;
use stillpoint::ec2::{Describe as _, Ec2Error, Unreached};
use stillpoint::exit::Exit;
use stillpoint::ids::VolumeId;
use stillpoint::interrupt::Interrupt;
use stillpoint::run::step::Step;
use stillpoint::run::take::snapshot;
use stillpoint::run::{Environment, Job};
use tokio::sync::watch;

use super::{Machine, NOW, RETRIES, hook, hooks_ran};

fn throttled() -> Ec2Error {
    Ec2Error::refused("made", "RequestLimitExceeded", "made")
}

fn asked_to_wait(seconds: u64) -> Ec2Error {
    Ec2Error::Refused {
        action: "made",
        code: "Throttling".to_owned(),
        message: "made".to_owned(),
        retry_after: Some(Duration::from_secs(seconds)),
        partition: "aws",
    }
}

/// The ways in which a call fails for a moment.
fn passing() -> Vec<Ec2Error> {
    let refused = [
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "EC2ThrottledException",
        "SlowDown",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "Unavailable",
        "RequestTimeout",
    ];
    let unreached = [
        Unreached::Refused,
        Unreached::NoRoute,
        Unreached::Name,
        Unreached::TimedOut,
        Unreached::Closed,
        Unreached::Proxy,
    ];
    let page = |status| Ec2Error::Unknown {
        action: "made",
        message: "a page".to_owned(),
        status: Some(status),
        retry_after: None,
    };
    let mut all: Vec<_> = refused.iter().map(|code| Ec2Error::refused("made", *code, "made")).collect();
    let lost = |how| Ec2Error::Unreached { action: "made", how, message: "made".to_owned() };
    all.extend(unreached.map(lost));
    all.extend([500, 502, 503, 504, 429, 408, 200].map(page));
    all.push(Ec2Error::unknown("made", "reset, or cut off, or late"));
    all
}

/// What is no better a moment later.
fn lasting() -> Vec<Ec2Error> {
    let refused = [
        "UnauthorizedOperation",
        "AuthFailure",
        "RequestExpired",
        "ExpiredToken",
        "SignatureDoesNotMatch",
        "InvalidParameterValue",
        "InvalidVolume.NotFound",
        "OptInRequired",
        "SomethingNew",
    ];
    let mut all: Vec<_> = refused.iter().map(|code| Ec2Error::refused("made", *code, "made")).collect();
    for how in [Unreached::Tls, Unreached::ProxyPassword, Unreached::Request, Unreached::Other] {
        all.push(Ec2Error::Unreached { action: "made", how, message: "made".to_owned() });
    }
    let (message, retry_after) = ("a page".to_owned(), None);
    all.push(Ec2Error::Unknown { action: "made", message, status: Some(403), retry_after });
    all
}

/// One of each sort, for whole runs.
fn some_passing() -> Vec<Ec2Error> {
    passing()
        .into_iter()
        .filter(|e| ["Throttling", "HTTP 503", "no answer"].contains(&e.cause().as_str()))
        .collect()
}

#[tokio::test]
async fn what_passes_is_repeated_and_what_does_not_is_not() {
    let machine = Machine::new();
    for (errors, asked) in [(passing(), 3), (lasting(), 1)] {
        for error in errors {
            let before = machine.ec2.calls().len();
            let ec2 = Repeating::new(&*machine.ec2, &machine.clock, RETRIES.free);
            machine.ec2.fail_for_a_time("pending", [error.clone(), error.clone()]);
            let said = ec2.pending(&[]).await;
            assert_eq!(machine.ec2.calls().len() - before, asked, "{error}");
            assert_eq!(said.is_ok(), asked == 3, "{error}");
        }
    }
}

const CALLS: [&str; 4] = ["pending", "started", "dry-run", "tag"];

#[tokio::test]
async fn a_call_that_fails_for_a_moment_does_not_fail_the_run() {
    for call in CALLS {
        for error in some_passing() {
            let machine = Machine::new();
            machine.ec2.fail_for_a_time(call, [error.clone(), error.clone()]);
            let record = machine.take().await.unwrap_or_else(|e| panic!("{call}, {error}: {e}")).record;
            assert_eq!(record.exit, Exit::Ok, "{call}, {error}: {record:?}");
            assert!(machine.clock.pauses().iter().sum::<Duration>() <= RETRIES.free, "{call}, {error}");
            assert!(machine.journals().is_empty(), "{call}, {error}");
            machine.is_left_well(call);
        }
    }
}

/// The warming alone, in the middle of a run: the first call of that name is preflight's.
#[tokio::test]
async fn what_fails_for_a_moment_while_applications_are_held_does_not_fail_the_run() {
    for error in some_passing() {
        let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
        machine.heard.fail_at(Step::Warm, &machine.ec2, "dry-run", vec![error.clone(), error.clone()]);
        let record = machine.take().await.unwrap().record;
        assert_eq!(record.exit, Exit::Ok, "{error}: {record:?}");
        machine.is_left_well("warm");
    }
}

#[tokio::test]
async fn what_a_repeat_does_not_mend_is_asked_once() {
    for call in CALLS {
        for error in lasting().into_iter().take(1) {
            let machine = Machine::new();
            machine.ec2.fail_for_a_time(call, [error.clone()]);
            let exit = match machine.take().await {
                Ok(outcome) => outcome.record.exit,
                Err(e) => e.exit,
            };
            assert_ne!(exit, Exit::Ok, "{call}, {error}");
            assert!(machine.clock.pauses().is_empty(), "{call}, {error}");
            machine.is_left_well(call);
        }
    }
}

#[tokio::test]
async fn the_create_call_is_made_once_whatever_comes_of_it() {
    for error in some_passing().into_iter().chain(lasting().into_iter().take(1)) {
        let machine = Machine::new();
        machine.ec2.fail_for_a_time("create", [error.clone()]);
        let record = machine.take().await.unwrap().record;
        assert!(record.snapshots.is_empty() && record.exit != Exit::Ok, "{error}: {record:?}");
        let created = machine.ec2.calls().iter().filter(|c| **c == "create").count();
        assert_eq!(created, 1, "{error}");
        // Only where EC2 may have read it is it looked for.
        let looked = machine.ec2.calls().contains(&"find");
        assert_eq!(looked, error.outcome_unknown(), "{error}");
        machine.is_left_well("create");
    }
}

/// Also where somebody gives a run an EC2 that repeats.
#[tokio::test]
async fn an_ec2_that_repeats_makes_the_create_call_once() {
    for error in some_passing() {
        let machine = Machine::new();
        machine.ec2.fail_for_a_time("create", [error.clone()]);
        let ec2 = Repeating::new(&*machine.ec2, &machine.clock, RETRIES.free);
        let run = async |env: &Environment<'_, _>, job: &Job<'_>| {
            snapshot(env, job, &mut Interrupt::never()).await.unwrap().record
        };
        let record = machine.with_ec2(&ec2, run).await;
        assert!(record.snapshots.is_empty(), "{error}");
        machine.is_left_well("repeats");
    }
}

/// Nobody is held up for longer than a call may take anyway, and the applications are released.
#[tokio::test]
async fn while_applications_are_held_the_repeats_end_soon() {
    let machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
    let throttled = vec![throttled(); 10_000];
    machine.heard.fail_at(Step::Warm, &machine.ec2, "dry-run", throttled);
    let outcome = machine.take().await.unwrap();
    assert_eq!((outcome.record.exit, outcome.record.snapshots.len()), (Exit::Ec2, 0));
    assert!(outcome.hint.is_some_and(|h| h.contains("throttles")), "{:?}", outcome.record.reason);
    // Two DryRuns go at once, and the made clock counts the pauses of both.
    let paused: Duration = machine.clock.pauses().iter().sum();
    assert!(paused <= RETRIES.held, "{paused:?}");
    assert!(paused >= RETRIES.held / 2, "it gave up early: {paused:?}");
    let ran = hooks_ran(machine.folder.path());
    assert_eq!(ran, ["pre", "post failed", "failed failed"]);
    machine.is_left_well("held");
}

#[tokio::test]
async fn the_budget_is_one_for_all_calls_and_is_used_to_its_end() {
    let machine = Machine::new();
    let budget = Duration::from_secs(20);
    let ec2 = Repeating::new(&*machine.ec2, &machine.clock, budget);
    machine.ec2.fail("pending", Fault::RequestLost);
    let volumes: [VolumeId; 0] = [];
    for _ in 0..3 {
        assert!(ec2.pending(&volumes).await.is_err());
    }
    let pauses = machine.clock.pauses();
    assert_eq!(pauses.iter().sum::<Duration>(), budget, "the last repeat is at the end");
    assert!(pauses.iter().all(|p| *p <= Duration::from_secs(5)), "{pauses:?}");
    // Without a budget, each call is made once.
    let before = machine.ec2.calls().len();
    let ec2 = Repeating::new(&*machine.ec2, &machine.clock, Duration::ZERO);
    assert!(ec2.pending(&volumes).await.is_err());
    assert_eq!(machine.ec2.calls().len(), before + 1);
}

/// Exponential with full jitter: every pause is somewhere between nothing and its bound, and not always at the
/// same place.
#[tokio::test]
async fn pauses_grow_and_differ() {
    let machine = Machine::new();
    let mut by_place = vec![Vec::new(); 6];
    for _ in 0..40 {
        let clock = MadeClock::at(NOW.parse().unwrap());
        let ec2 = Repeating::new(&*machine.ec2, &clock, Duration::from_secs(3600));
        machine.ec2.fail_for_a_time("pending", vec![throttled(); 6]);
        ec2.pending(&[]).await.unwrap();
        let pauses = clock.pauses();
        for (place, pause) in pauses.iter().enumerate() {
            let most = Duration::from_millis(250 << place).min(Duration::from_secs(5));
            assert!(*pause <= most, "{place}: {pause:?}");
            by_place[place].push(*pause);
        }
    }
    for (place, pauses) in by_place.iter().enumerate() {
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*most > *least * 2, "{place}: {pauses:?}");
    }
    assert!(by_place[5].iter().max() > by_place[0].iter().max());
}

#[tokio::test]
async fn what_ec2_asks_for_is_waited_for_as_a_whole_or_not_at_all() {
    let machine = Machine::new();
    let asks = |budget| Repeating::new(&*machine.ec2, &machine.clock, Duration::from_secs(budget));
    machine.ec2.fail_for_a_time("pending", [asked_to_wait(7)]);
    asks(30).pending(&[]).await.unwrap();
    assert_eq!(machine.clock.pauses(), [Duration::from_secs(7)]);
    machine.ec2.fail_for_a_time("pending", [asked_to_wait(31)]);
    assert!(asks(30).pending(&[]).await.is_err());
    assert_eq!(machine.clock.pauses().len(), 1, "it is of no use to ask earlier");
}

/// A clock on which a pause lasts until the test ends.
#[derive(Debug)]
pub(super) struct Stands;

impl stillpoint::clock::Clock for Stands {
    fn now(&self) -> jiff::Timestamp {
        NOW.parse().unwrap()
    }

    fn pause(&self, _: Duration) -> stillpoint::clock::Pause<'_> {
        Box::pin(std::future::pending())
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn a_signal_ends_the_pause_and_the_repeating() {
    let machine = Machine::new();
    let (tx, rx) = watch::channel(None);
    let interrupt = Interrupt::by(rx);
    let ec2 = Repeating::new(&*machine.ec2, &Stands, Duration::from_secs(3600)).until(&interrupt);
    machine.ec2.fail_for_a_time("pending", [throttled(), throttled()]);
    let (said, ()) = tokio::join!(ec2.pending(&[]), async { tx.send(Some(Signal::SIGTERM)).unwrap() });
    assert_eq!(said, Err(throttled()));
    assert_eq!(machine.ec2.calls(), ["pending"]);
    assert_eq!(ec2.pending(&[]).await, Err(throttled()), "the first try is made all the same");
    assert_eq!(machine.ec2.calls(), ["pending"; 2]);
}

/// While applications are held, while nothing is touched, and while the snapshots are being tagged.
#[tokio::test]
async fn a_signal_ends_the_wait_for_ec2_in_every_part_of_a_run() {
    for (step, call) in [
        (Step::Permission, "dry-run"),
        (Step::Pending, "pending"),
        (Step::Warm, "dry-run"),
        (Step::Label, "tag"),
    ] {
        let mut machine = Machine::with(|folder, s| s.hooks = vec![hook(folder, "true", OnFailure::Abort)]);
        machine.ec2.fail_for_a_time(call, if step == Step::Warm { vec![] } else { vec![throttled(); 1000] });
        if step == Step::Warm {
            machine.heard.fail_at(step, &machine.ec2, call, vec![throttled(); 1000]);
        }
        let interrupt = machine.heard.interrupt_at(step);
        machine.paused_for_good = true;
        let ended = machine.take_until(interrupt).await;
        let case = format!("SIGTERM at {step}");
        match ended {
            Err(e) => assert_eq!(e.signal, Some(Signal::SIGTERM), "{case}"),
            Ok(o) if step == Step::Warm => assert_eq!(o.signal, Some(Signal::SIGTERM), "{case}"),
            // The set is there; its verdict is in the journal, for the next start.
            Ok(o) => {
                assert_eq!((step, o.record.exit, o.signal), (Step::Label, Exit::After, None), "{case}");
                assert_eq!(machine.journals().len(), 1);
            }
        }
        let ran = hooks_ran(machine.folder.path());
        let count = |what: &str| ran.iter().filter(|l| l.starts_with(what)).count();
        assert_eq!(count("pre"), count("post"), "{case}: {ran:?}");
        machine.is_left_well(&case);
    }
}

#[tokio::test]
async fn a_look_up_of_a_lost_answer_is_repeated_too() {
    let machine = Machine::new();
    machine.ec2.fail("create", Fault::AnswerLost);
    machine.ec2.fail_for_a_time("find", [throttled(), Ec2Error::unknown("made", "reset")]);
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.snapshots.len()), (Exit::Ec2, machine.plan.volumes.len()));
    assert!(record.reason.unwrap().contains("3 snapshots of this run exist all the same"));
}

/// A former set that was lost is told by the next run, not by the one after it.
#[tokio::test]
async fn the_question_about_former_sets_is_repeated_too() {
    let machine = Machine::new();
    machine.take().await.unwrap();
    machine.ec2.become_all("error");
    machine.ec2.fail_for_a_time("states", [throttled(), Ec2Error::unknown("made", "reset")]);
    let told = machine.take().await.unwrap().record.after;
    assert!(told.iter().any(|a| a.contains("a former set is lost")), "{told:?}");
}
