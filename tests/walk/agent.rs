//! The agent: a process of its own that does what `stillpoint snapshot` does, over the boundaries with points
//! in them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::resource::{Resource, setrlimit};
use stillpoint::clock;
use stillpoint::config::{self, Loaded, Overrides};
use stillpoint::ec2::repeat::Budgets;
use stillpoint::exit::Exit;
use stillpoint::gate;
use stillpoint::host::kernel::one_malloc_arena;
use stillpoint::ids::RunId;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan;
use stillpoint::run::take::snapshot;
use stillpoint::run::{Environment, Job, lock};
use stillpoint::window::LEFT_FROZEN;
use stillpoint::window::guard::process::Program;

use crate::boundaries::{Hold, WalkedEc2, WalkedKernel};
use crate::points::Case;
use crate::walker::Walker;
use rig::agent::{ended, facts};
use rig::stillpoint;

/// The environment variable with the case. A process that has it is an agent.
pub const CASE: &str = "STILLPOINT_WALK_AGENT";
/// The rig's folder.
pub const FOLDER: &str = "STILLPOINT_WALK_FOLDER";
/// The fault that holds the create call, where the case is about that: `HOST:PORT ID`.
pub const HOLD: &str = "STILLPOINT_WALK_HOLD";
/// The agent's control group, where it has one of its own.
pub const GROUP: &str = "STILLPOINT_WALK_GROUP";
/// The window's limit.
pub const WINDOW: &str = "STILLPOINT_WALK_WINDOW";

/// Does what the program's own `main` does.
pub fn main(case: &str) -> ExitCode {
    one_malloc_arena();
    gate::install_panic_hook();
    let case: Case = case.parse().unwrap();
    std::panic::catch_unwind(|| work(case)).unwrap_or_else(|_| {
        let frozen = LEFT_FROZEN.load(std::sync::atomic::Ordering::SeqCst);
        let exit = if frozen { Exit::StillFrozen } else { Exit::Bug };
        ExitCode::from(exit.code())
    })
}

fn work(case: Case) -> ExitCode {
    stillpoint::report::log::start(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(take(case));
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn loaded(folder: &Path) -> Loaded {
    let window = std::env::var(WINDOW).unwrap();
    let overrides = Overrides {
        run_dir: Some(folder.join("run")),
        state_dir: Some(folder.join("state")),
        window: Some(humantime::parse_duration(&window).unwrap()),
        ..Overrides::default()
    };
    config::load(Path::new("/"), Some(&folder.join("stillpoint.toml")), None, &overrides).unwrap()
}

async fn take(case: Case) -> u8 {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let loaded = loaded(&folder);
    let settings = &loaded.settings;
    std::env::set_current_dir("/run").unwrap();
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    let mut interrupt = Interrupt::listen().unwrap();
    let _lock = lock::take(&settings.run_dir, std::time::Duration::ZERO).await.unwrap();
    let (real, facts) = facts(&loaded, "walked").await;
    let plan = plan::plan(&facts, &settings.plan).unwrap();
    let run = RunId::generate();
    std::fs::write(folder.join("run-id"), run.as_str()).unwrap();
    let hold = std::env::var(HOLD).ok().map(|hold| {
        let (control, fault) = hold.split_once(' ').unwrap();
        Hold { point: case.point.name.clone(), control: control.to_owned(), fault: fault.to_owned() }
    });
    let walker = Arc::new(Walker::new(case, &folder, &run));
    let ec2 = WalkedEc2 { real, walker: Arc::clone(&walker), hold };
    let env = Environment {
        ec2: &ec2,
        kernel: Arc::new(WalkedKernel(Arc::clone(&walker))),
        root: Path::new("/"),
        watchdog: Arc::new(Program::new(Path::new(stillpoint()))),
        program: Path::new(stillpoint()),
        clock: &clock::System,
        volume_interval: settings.ec2.volume_interval,
        retries: Budgets::of(&settings.ec2),
        state_dir: &settings.state_dir,
        run_dir: &settings.run_dir,
        steps: &*walker,
    };
    let job = Job::new(run, &facts, &plan, &settings.plan).unwrap();
    ended(snapshot(&env, &job, &mut interrupt).await)
}
