//! A member: a process of its own that does what `stillpoint snapshot` does, and tells every step.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, raise};
use rig::agent::{ended, facts};
use rig::stillpoint;
use stillpoint::clock;
use stillpoint::config::{self, Overrides};
use stillpoint::ec2::repeat::Budgets;
use stillpoint::exit::Exit;
use stillpoint::gate;
use stillpoint::group::engine::Engine;
use stillpoint::group::etcd::Etcd;
use stillpoint::host::kernel::{Linux, one_malloc_arena};
use stillpoint::ids::RunId;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan;
use stillpoint::run::step::{Step, Steps};
use stillpoint::run::take::snapshot_with;
use stillpoint::run::{Environment, Job, lock};
use stillpoint::window::LEFT_FROZEN;
use stillpoint::window::guard::process::Program;

use crate::cases::Fault;
use crate::load::now;

/// The rig's folder. A process that has it is a member.
pub const FOLDER: &str = "STILLPOINT_GROUP_FOLDER";
/// `STEP FAULT`, of the member that is struck.
pub const STRIKE: &str = "STILLPOINT_GROUP_STRIKE";
/// The window's limit.
pub const WINDOW: &str = "STILLPOINT_GROUP_WINDOW";
/// How long a member waits for what is done to it from outside.
const PATIENCE: Duration = Duration::from_secs(10);

/// Notes every step in the file `events`, and is struck at one.
#[derive(Debug)]
struct Told {
    events: File,
    folder: PathBuf,
    strike: Option<(String, Fault)>,
    struck: AtomicBool,
}

impl Told {
    fn note(&self, what: &str) {
        let _ = (&self.events).write_all(format!("{} {what}\n", now()).as_bytes());
    }
}

impl Steps for Told {
    fn at(&self, step: Step) {
        self.note(step.name());
        let Some((at, fault)) = &self.strike else { return };
        if at != step.name() || self.struck.swap(true, Ordering::SeqCst) {
            return;
        }
        self.note("!");
        match fault {
            Fault::Kill | Fault::Rerun => raise(Signal::SIGKILL).unwrap(),
            Fault::Stop | Fault::Pause | Fault::Blip => raise(Signal::SIGSTOP).unwrap(),
            Fault::Term => raise(Signal::SIGTERM).unwrap(),
            Fault::Panic => panic!("as the case has it"),
            _ => {
                let end = Instant::now() + PATIENCE;
                while !self.folder.join("struck").exists() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

/// Does what the program's own `main` does.
pub fn main() -> ExitCode {
    one_malloc_arena();
    gate::install_panic_hook();
    std::panic::catch_unwind(work).unwrap_or_else(|_| {
        let frozen = LEFT_FROZEN.load(Ordering::SeqCst);
        ExitCode::from(if frozen { Exit::StillFrozen } else { Exit::Bug }.code())
    })
}

fn work() -> ExitCode {
    stillpoint::report::log::start(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(take());
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn take() -> u8 {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let strike = std::env::var(STRIKE).ok().map(|strike| {
        let (step, fault) = strike.split_once(' ').unwrap();
        (step.to_owned(), fault.parse().unwrap())
    });
    let overrides = Overrides {
        run_dir: Some(folder.join("run")),
        state_dir: Some(folder.join("state")),
        window: Some(humantime::parse_duration(&std::env::var(WINDOW).unwrap()).unwrap()),
        ..Overrides::default()
    };
    let file = folder.join("stillpoint.toml");
    let loaded = config::load(Path::new("/"), Some(&file), None, &overrides).unwrap();
    let settings = &loaded.settings;
    std::env::set_current_dir("/run").unwrap();
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    let mut interrupt = Interrupt::listen().unwrap();
    let _lock = lock::take(&settings.run_dir, Duration::from_secs(60)).await.unwrap();
    let (real, facts) = facts(&loaded, "member").await;
    let plan = plan::plan(&facts, &settings.plan).unwrap();
    let events = File::options().append(true).create(true).open(folder.join("events")).unwrap();
    let told = Told { events, folder: folder.clone(), strike, struck: AtomicBool::default() };
    let env = Environment {
        ec2: &real,
        kernel: Arc::new(Linux),
        root: Path::new("/"),
        watchdog: Arc::new(Program::new(Path::new(stillpoint()))),
        program: Path::new(stillpoint()),
        clock: &clock::System,
        volume_interval: settings.ec2.volume_interval,
        retries: Budgets::of(&settings.ec2),
        state_dir: &settings.state_dir,
        run_dir: &settings.run_dir,
        steps: &told,
    };
    let job = Job::new(RunId::generate(), &facts, &plan, &settings.plan).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(Etcd::new(settings.plan.group.as_ref().unwrap()).unwrap());
    ended(snapshot_with(&env, &job, Some(engine), &mut interrupt).await)
}
