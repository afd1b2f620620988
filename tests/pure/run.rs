//! Whole runs on a made host, with EC2 in memory and a clock that stands still: no root, nothing real, a few
//! milliseconds each.
//!
//! What only a real kernel, a real watchdog process or a real EC2 can show is in tests/system and tests/walk.

mod busy;
mod credentials;
mod goals;
mod release;
mod repeats;
mod tagging;
mod take;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::fixture::{Host, plan_with, settings};
use rig::made;
use rig::made_ec2::{MadeClock, MadeEc2};
use stillpoint::config::settings::{CommandHook, Hook, HookKind, OnFailure, PlanSettings};
use stillpoint::discover::Facts;
use stillpoint::ec2::Ec2Error;
use stillpoint::ec2::repeat::Budgets;
use stillpoint::error::Error;
use stillpoint::ids::RunId;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::Plan;
use stillpoint::run::journal::{Journal, State};
use stillpoint::run::rehearsal::{Hold, Rehearsal, Round};
use stillpoint::run::step::{Step, Steps};
use stillpoint::run::take::{Outcome, snapshot};
use stillpoint::run::{Environment, Job};
use stillpoint::window::guard::StartGuard;
use tempfile::TempDir;
use tokio::sync::watch;

/// Every step that a run reaches, in order; at one of them, a signal comes.
#[derive(Debug, Default)]
struct Heard {
    steps: Mutex<Vec<Step>>,
    signal: Mutex<Option<(Step, watch::Sender<Option<Signal>>)>>,
    /// Where the journal is, once it is to be read at each step.
    run_dir: Mutex<Option<PathBuf>>,
    journal: Mutex<Vec<(Step, State)>>,
    then: Mutex<Option<(Step, Then)>>,
}

/// What happens to the machine meanwhile.
struct Then(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

impl Heard {
    /// From now on SIGTERM comes when the run is at this step.
    fn interrupt_at(&self, step: Step) -> Interrupt {
        let (tx, rx) = watch::channel(None);
        *self.signal.lock().unwrap() = Some((step, tx));
        Interrupt::by(rx)
    }

    /// When the run is at this step, this happens once.
    fn at_step(&self, step: Step, happens: impl FnOnce() + Send + 'static) {
        *self.then.lock().unwrap() = Some((step, Then(Box::new(happens))));
    }

    /// From this step on, this call fails as often as there are errors.
    fn fail_at(&self, step: Step, ec2: &Arc<MadeEc2>, call: &'static str, errors: Vec<Ec2Error>) {
        let ec2 = Arc::clone(ec2);
        self.at_step(step, move || ec2.fail_for_a_time(call, errors));
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
        if let Some((_, Then(happens))) = self.then.lock().unwrap().take_if(|(at, _)| *at == step) {
            happens();
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
    ec2: Arc<MadeEc2>,
    clock: MadeClock,
    heard: Heard,
    /// No pause of the run ends.
    paused_for_good: bool,
}

const RETRIES: Budgets = Budgets {
    free: Duration::from_secs(30),
    held: Duration::from_secs(10),
    held_attempt: Duration::from_secs(5),
};
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
            ec2: Arc::new(MadeEc2::of(&facts)),
            paused_for_good: false,
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
        self.with_ec2(&*self.ec2, work).await
    }

    /// The same with another EC2.
    async fn with_ec2<E, T>(&self, ec2: &E, work: impl AsyncFnOnce(&Environment<'_, E>, &Job<'_>) -> T) -> T {
        let (run_dir, state_dir) = (self.run_dir(), self.folder.path().join("state"));
        let env = Environment {
            ec2,
            kernel: self.kernel.clone(),
            root: self.host.root(),
            watchdog: Arc::clone(&self.watchdog),
            program: Path::new("/nonexistent/stillpoint"),
            clock: if self.paused_for_good { &repeats::Stands } else { &self.clock },
            volume_interval: Duration::from_secs(15),
            retries: RETRIES,
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
        let taken = self.on(async |env, job| snapshot(env, job, &mut interrupt).await).await;
        if let Ok(outcome) = &taken {
            rig::schema::check_text("record-1", &serde_json::to_string(&outcome.record).unwrap());
        }
        taken
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
