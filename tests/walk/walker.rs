//! The one who does the fault: told every point that the agent comes by, it notes each and strikes at one.
//!
//! In: a point and a fault, from the environment. Out: `events` in the rig's folder (on a tmpfs that nobody
//! freezes), one line a point: `NANOSECONDS NAME#N`; `!FAULT` when it strikes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stillpoint::ids::RunId;
use stillpoint::run::step::{Step, Steps};

use crate::points::{Case, Fault};

/// What fails the next time it is tried, because of a step that cannot fail itself.
#[derive(Debug, Default)]
pub struct Fails {
    pub open: AtomicBool,
    pub freeze: AtomicBool,
    pub counter: AtomicBool,
    pub dry_run: AtomicBool,
    pub pending: AtomicBool,
    pub create: AtomicBool,
    /// From now on.
    pub find: AtomicBool,
    /// From now on.
    pub tag: AtomicBool,
}

#[derive(Debug)]
pub struct Walker {
    case: Case,
    folder: PathBuf,
    run: RunId,
    events: File,
    came_by: Mutex<HashMap<String, u32>>,
    pub answered: AtomicBool,
    pub fails: Fails,
}

/// What is to be done there fails.
#[derive(Debug)]
pub struct Struck;

impl Walker {
    pub fn new(case: Case, folder: &Path, run: &RunId) -> Self {
        let events = File::options().append(true).create(true).open(folder.join("events")).unwrap();
        Self {
            case,
            folder: folder.to_path_buf(),
            run: run.clone(),
            events,
            came_by: Mutex::default(),
            answered: AtomicBool::new(false),
            fails: Fails::default(),
        }
    }

    fn note(&self, what: &str) {
        let now = jiff::Timestamp::now().as_nanosecond();
        (&self.events).write_all(format!("{now} {what}\n").as_bytes()).unwrap();
    }

    /// The agent is at this point.
    pub fn reach(&self, name: &str) -> Result<(), Struck> {
        let nth = {
            let mut came_by = self.came_by.lock().unwrap();
            let nth = came_by.entry(name.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        self.note(&format!("{name}#{nth}"));
        if name != self.case.point.name || nth != self.case.point.nth {
            return Ok(());
        }
        self.note(&format!("!{}", self.case.fault.name()));
        match self.case.fault {
            Fault::Error => return Err(Struck),
            Fault::Panic => panic!("injected at {name}"),
            Fault::Kill => me(Signal::SIGKILL),
            Fault::Stop | Fault::Pause => me(Signal::SIGSTOP),
            Fault::Term => me(Signal::SIGTERM),
            Fault::Int => me(Signal::SIGINT),
            Fault::Unguard => unguard(),
            Fault::KillGroup => group("cgroup.kill"),
            Fault::FreezeGroup => group("cgroup.freeze"),
        }
        Ok(())
    }

    /// Nothing that the run does at this step fails by itself: something that it needs is broken.
    fn sabotage(&self, step: Step) {
        let soon = |what: &AtomicBool| what.store(true, Ordering::SeqCst);
        let journal = self.folder.join("run/runs").join(format!("{}.json", self.run));
        match step {
            Step::Preflight => {
                std::fs::set_permissions(
                    self.folder.join("hook"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o600),
                )
                .unwrap();
            }
            Step::Permission | Step::Warm => soon(&self.fails.dry_run),
            Step::Pending => soon(&self.fails.pending),
            Step::JournalStart
            | Step::Attempt
            | Step::JournalWindow
            | Step::Thawed
            | Step::Made
            | Step::Released => std::fs::create_dir_all(journal.with_extension("json.new")).unwrap(),
            Step::PreHook => std::fs::write(self.folder.join("fail-pre"), "").unwrap(),
            Step::PostHook => std::fs::write(self.folder.join("fail-post"), "").unwrap(),
            Step::Prepare => soon(&self.fails.open),
            Step::Guarded => unguard(),
            // In this process's own namespace.
            Step::Unchanged => {
                nix::mount::umount2(&self.folder.join("a"), nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
            Step::Freezing => soon(&self.fails.freeze),
            Step::Frozen | Step::Answered => soon(&self.fails.counter),
            Step::Request => soon(&self.fails.create),
            Step::LookUp => soon(&self.fails.find),
            Step::Label => soon(&self.fails.tag),
            Step::Record => {
                std::fs::create_dir_all(self.folder.join("state")).unwrap();
                std::fs::write(self.folder.join("state/sets"), "").unwrap();
            }
            // Pure, or only a look: nothing that it needs can be broken. What a look finds has tests of its own.
            Step::Judged | Step::Busy | Step::BusyAgain => {}
            // No walk is a group's: tests/group has those.
            Step::AllHere
            | Step::AllReady
            | Step::AllSet
            | Step::AllFrozen
            | Step::AllAnswered
            | Step::AllHeld => {}
            // What is a mount point cannot be removed.
            Step::Close => {
                let flags = nix::mount::MsFlags::MS_BIND;
                nix::mount::mount(Some(&journal), &journal, None::<&str>, flags, None::<&str>).unwrap();
            }
        }
    }
}

impl Steps for Walker {
    fn at(&self, step: Step) {
        if step == Step::Answered {
            self.answered.store(true, Ordering::SeqCst);
        }
        if self.reach(step.name()).is_err() {
            self.sabotage(step);
        }
    }
}

fn me(signal: Signal) {
    kill(Pid::this(), signal).unwrap();
}

/// Does this to the control group that this process is in. It has happened when the write returns, and to
/// this process before it comes back to its own code.
fn group(file: &str) {
    let group = std::env::var(crate::agent::GROUP).unwrap();
    std::fs::write(Path::new(&group).join(file), "1").unwrap();
}

/// Kills the watchdog, and comes back when it is dead: on a busy host it takes a while to die, and until then
/// it has not been lost.
fn unguard() {
    let watchdog = watchdog();
    kill(watchdog, Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{watchdog}/stat");
    let lives = || std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ") && !s.contains(") X "));
    let end = std::time::Instant::now() + rig::patience::CONDITION;
    while lives() {
        assert!(std::time::Instant::now() < end, "the watchdog does not die");
        std::thread::yield_now();
    }
}

/// This process's watchdog.
fn watchdog() -> Pid {
    let me = format!("PPid:\t{}\n", Pid::this());
    let mine = |e: &std::fs::DirEntry| {
        let read = |name: &str| std::fs::read_to_string(e.path().join(name)).unwrap_or_default();
        read("status").contains(&me) && read("cmdline").contains("__watchdog")
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(mine).expect("a watchdog");
    Pid::from_raw(found.file_name().to_string_lossy().parse().unwrap())
}
