//! Whole runs on a made host, with EC2 in memory and a clock that stands still: no root, nothing real, a few
//! milliseconds each.
//!
//! What only a real kernel, a real watchdog process or a real EC2 can show is in tests/system and tests/walk.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use rig::fixture::{Host, plan_with, settings};
use rig::made;
use rig::made_ec2::{Fault, MadeClock, MadeEc2};
use stillpoint::config::settings::{CommandHook, Hook, HookKind, OnDegraded, OnFailure, PlanSettings};
use stillpoint::discover::Facts;
use stillpoint::error::Error;
use stillpoint::exit::Exit;
use stillpoint::ids::RunId;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Consistency, Plan};
use stillpoint::run::control_socket::{self, ControlSocket, ThawReply};
use stillpoint::run::held_freeze::hold;
use stillpoint::run::journal::{Created, Journal, State};
use stillpoint::run::rehearsal::{Hold, Rehearsal, Round};
use stillpoint::run::step::{Step, Steps};
use stillpoint::run::take::{Outcome, snapshot};
use stillpoint::run::{Environment, Job};
use stillpoint::window::guard::StartGuard;
use tempfile::TempDir;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Every step that a run reaches, in order; at one of them, a signal comes.
#[derive(Debug, Default)]
struct Heard {
    steps: Mutex<Vec<Step>>,
    signal: Mutex<Option<(Step, watch::Sender<Option<Signal>>)>>,
    /// Where the journal is, once it is to be read at each step.
    run_dir: Mutex<Option<PathBuf>>,
    journal: Mutex<Vec<(Step, State)>>,
}

impl Heard {
    /// From now on SIGTERM comes when the run is at this step.
    fn interrupt_at(&self, step: Step) -> Interrupt {
        let (tx, rx) = watch::channel(None);
        *self.signal.lock().unwrap() = Some((step, tx));
        Interrupt::by(rx)
    }

    /// What the journal said when the run was at this step.
    fn journal_at(&self, step: Step) -> State {
        let all = self.journal.lock().unwrap();
        all.iter().find(|(at, _)| *at == step).map(|(_, state)| state.clone()).unwrap()
    }
}

impl Steps for Heard {
    fn at(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
        if let Some(run_dir) = &*self.run_dir.lock().unwrap() {
            let read = Journal::all(run_dir).into_iter().map(|j| (step, j.unwrap().state));
            self.journal.lock().unwrap().extend(read);
        }
        if let Some((at, tx)) = &*self.signal.lock().unwrap()
            && *at == step
        {
            tx.send(Some(Signal::SIGTERM)).unwrap();
        }
    }
}

/// A made machine, and what a run on it is to do.
struct Machine {
    folder: TempDir,
    host: Host,
    kernel: Arc<made::Kernel>,
    watchdog: Arc<dyn StartGuard>,
    facts: Facts,
    settings: PlanSettings,
    plan: Plan,
    ec2: MadeEc2,
    clock: MadeClock,
    heard: Heard,
}

/// Volumes of the made host's set.
const VOLUMES: usize = 3;
const NOW: &str = "2026-11-29T03:00:30Z";

impl Machine {
    fn new() -> Self {
        Self::with(|_, _| ())
    }

    fn with(change: impl FnOnce(&Path, &mut PlanSettings)) -> Self {
        let folder = TempDir::new().unwrap();
        let nitro = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nitro.host");
        // The run's own folder is on a memory filesystem of the made host, as /run is.
        let memory = format!("mount 99 27 0:99 / {} rw - tmpfs tmpfs rw\n", folder.path().display());
        let host = Host::of(&(std::fs::read_to_string(nitro).unwrap() + &memory));
        let kernel = made::Kernel::new(host.root());
        let facts = host.facts();
        let mut settings = settings();
        change(folder.path(), &mut settings);
        Self {
            plan: plan_with(&facts, |s| s.clone_from(&settings)).unwrap(),
            watchdog: made::Watchdog::over(&kernel),
            ec2: MadeEc2::of(&facts),
            clock: MadeClock::at(NOW.parse().unwrap()),
            heard: Heard::default(),
            folder,
            host,
            kernel,
            facts,
            settings,
        }
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn job(&self) -> Job<'_> {
        Job::new(RunId::generate(), &self.facts, &self.plan, &self.settings).unwrap()
    }

    /// Calls `work` with the machine as a run sees it.
    async fn on<T>(&self, work: impl AsyncFnOnce(&Environment<'_, MadeEc2>, &Job<'_>) -> T) -> T {
        let (run_dir, state_dir) = (self.run_dir(), self.folder.path().join("state"));
        let env = Environment {
            ec2: &self.ec2,
            kernel: self.kernel.clone(),
            root: self.host.root(),
            watchdog: Arc::clone(&self.watchdog),
            program: Path::new("/nonexistent/stillpoint"),
            clock: &self.clock,
            volume_interval: Duration::from_secs(15),
            run_dir: &run_dir,
            state_dir: &state_dir,
            steps: &self.heard,
        };
        work(&env, &self.job()).await
    }

    async fn take(&self) -> Result<Outcome, Error> {
        self.take_until(Interrupt::never()).await
    }

    async fn take_until(&self, mut interrupt: Interrupt) -> Result<Outcome, Error> {
        self.on(async |env, job| snapshot(env, job, &mut interrupt).await).await
    }

    async fn rehearse(&self) -> Round {
        let mut rehearsal = Rehearsal::new(Hold::Answer);
        self.on(async |env, job| rehearsal.round(env, job, &mut Interrupt::never()).await.unwrap()).await
    }

    fn steps(&self) -> Vec<Step> {
        self.heard.steps.lock().unwrap().clone()
    }

    /// P1, P3 and P4: whatever happened, nothing is frozen, and create was called once at most.
    fn is_left_well(&self, case: &str) {
        assert!(self.kernel.frozen().is_empty(), "{case}: frozen");
        let created = self.ec2.calls().iter().filter(|c| **c == "create").count();
        assert!(created <= 1, "{case}: create was called {created} times");
    }

    fn journals(&self) -> Vec<Journal> {
        Journal::all(&self.run_dir()).into_iter().map(Result::unwrap).collect()
    }
}

/// A hook that writes each of its commands into a file.
fn hook(folder: &Path, pre: &str, on_failure: OnFailure) -> Hook {
    let log = folder.join("hooks");
    let command = |what: &str, end: &str| {
        let script = format!("echo {what} $STILLPOINT_RESULT >> {}; {end}", log.display());
        Some(["/bin/sh", "-c", &script].map(str::to_owned).to_vec())
    };
    let kind = CommandHook {
        pre: command("pre", pre),
        post: command("post", "true"),
        completed: command("completed", "true"),
        failed: command("failed", "true"),
        ..CommandHook::default()
    };
    Hook { name: "app".into(), kind: HookKind::Hook(kind), timeout: Duration::from_secs(20), on_failure }
}

fn lines(lines: [&str; 3]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}

fn hooks_ran(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("hooks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_run_takes_a_set_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let outcome = machine.take().await.unwrap();
    let record = &outcome.record;
    assert_eq!((record.exit, record.achieved), (Exit::Ok, Some(Consistency::Filesystem)), "{record:?}");
    assert_eq!(record.snapshots.len(), machine.plan.volumes.len());
    let known = [Step::Attempt, Step::PreHook, Step::LookUp, Step::PostHook, Step::Released];
    let expected: Vec<_> = Step::ALL.into_iter().filter(|s| !known.contains(s)).collect();
    assert_eq!(machine.steps(), expected, "the order of a run without hooks and without a fault");
    let snapshots = machine.ec2.snapshots();
    assert!(snapshots.iter().all(|s| s.tags["stillpoint:consistency"] == "filesystem"));
    assert!(machine.journals().is_empty(), "nothing is owed");
    let kept = machine.folder.path().join(format!("state/sets/{}.json", record.run_id));
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!((&kept["exit_code"], &kept["achieved"]), (&0.into(), &"filesystem".into()));
    machine.is_left_well("no fault");
}

/// Every call of EC2 and of the kernel, made to fail: P1, P2 and P4 hold after each, and the code is the
/// documented one.
#[tokio::test]
async fn after_any_failure_nothing_is_frozen_or_requested_twice_or_called_more_than_it_is() {
    use Fault::{AnswerLost, Refused, RequestLost};
    // Refused before anything is touched, an exit of the run, or a set with trouble after it.
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
    for step in Step::ALL.into_iter().filter(|s| *s != Step::LookUp) {
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

/// What a recovery would find if the run died at this step.
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

#[tokio::test]
async fn what_is_requested_and_what_is_kept_decide_the_code() {
    let machine = Machine::with(|_, s| s.on_degraded = OnDegraded::Keep);
    machine.kernel.refuse("thaw", "/", Errno::EINVAL);
    let record = machine.take().await.unwrap().record;
    assert_eq!((record.exit, record.achieved), (Exit::Lower, Some(Consistency::Crash)));
    assert!(record.reason.unwrap().contains("thawed by something else meanwhile: /"));
}

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
    assert!(machine.ec2.calls().iter().all(|c| ["dry-run", "pending", "started"].contains(c)));
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
