use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use super::*;
use crate::host::kernel::WriteCounter;

/// A kernel of one superblock, which a test lets in and out.
#[derive(Debug, Default)]
struct Gate {
    frozen: AtomicBool,
    /// FIFREEZE does not return while this is set.
    stuck: AtomicBool,
}

impl Kernel for Gate {
    fn open(&self, _: &Path) -> nix::Result<OwnedFd> {
        Err(Errno::ENOENT)
    }
    fn freeze(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        while self.stuck.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if self.frozen.swap(true, Ordering::SeqCst) { Err(Errno::EBUSY) } else { Ok(()) }
    }
    fn thaw(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        if self.frozen.swap(false, Ordering::SeqCst) { Ok(()) } else { Err(Errno::EINVAL) }
    }
    fn syncfs(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        Ok(())
    }
    fn write_counter(&self, _: &std::fs::File) -> std::io::Result<WriteCounter> {
        Err(Errno::ENOSYS.into())
    }
}

struct Pair {
    delegate: Delegate,
    page: Arc<SharedPage>,
    kernel: Arc<Gate>,
    freezer: Option<std::thread::JoinHandle<bool>>,
    /// What stands for the freezer's pidfd: readable once it is dropped.
    process: Option<std::io::PipeWriter>,
}

/// A freezer that is a thread of this process.
fn pair(serves: bool) -> Pair {
    let page = Arc::new(SharedPage::create().unwrap().0);
    let kernel = Arc::new(Gate::default());
    let (theirs, process) = std::io::pipe().unwrap();
    // What a pipe says when its other end is closed is POLLHUP, which counts like POLLIN here.
    let delegate = Delegate::new(Arc::clone(&page), theirs.into(), ProcessId::own(Path::new("/")));
    let (serve, over) = (Arc::clone(&page), Arc::clone(&kernel));
    let freezer = serves.then(|| std::thread::spawn(move || serve_fd(&over, &serve)));
    Pair { delegate, page, kernel, freezer, process: Some(process) }
}

fn serve_fd(kernel: &Gate, page: &SharedPage) -> bool {
    serve(kernel, page, 0, std::io::stdin().as_fd())
}

impl Pair {
    fn state(&self) -> State {
        State::from_word(self.page.states[0].load(Ordering::SeqCst))
    }

    fn set(&self, state: State) {
        self.page.states[0].store(state as u32, Ordering::SeqCst);
    }

    fn over(&mut self) -> bool {
        end(&self.page, 0);
        self.freezer.take().unwrap().join().unwrap()
    }
}

#[test]
fn what_the_kernel_says_is_what_the_agent_hears() {
    let mut pair = pair(true);
    pair.set(State::Freezing);
    assert_eq!(pair.delegate.freeze(0, || false), Ok(()));
    assert_eq!(pair.state(), State::Frozen);
    pair.set(State::Freezing);
    assert_eq!(pair.delegate.freeze(0, || false), Err(Errno::EBUSY));
    assert_eq!(pair.state(), State::Idle, "somebody else's freeze is not to be thawed");
    // Withdrawn where the thread did not come to run within LIMIT.
    let thaw = || std::iter::repeat_with(|| pair.delegate.thaw(0)).flatten().next();
    assert_eq!(thaw(), Some(Ok(())));
    assert_eq!(thaw(), Some(Err(Errno::EINVAL)));
    assert!(!pair.delegate.succeeded_late(0));
    assert!(!pair.over(), "nothing was left to thaw");
}

#[test]
fn nobody_answers_and_the_agent_thaws_by_itself() {
    let pair = pair(false);
    assert_eq!(pair.delegate.thaw(0), None);
    assert_eq!(pair.page.requests[0].load(Ordering::SeqCst), IDLE, "withdrawn: it must not thaw twice");
}

#[test]
fn given_up_before_it_began_it_never_begins() {
    let pair = pair(false);
    assert_eq!(pair.delegate.freeze(0, || true), Err(Errno::ECANCELED));
    assert_eq!(pair.page.requests[0].load(Ordering::SeqCst), IDLE);
}

/// It may have died before FIFREEZE or after it.
#[test]
fn a_freezer_that_is_gone_is_not_waited_for() {
    let mut pair = pair(false);
    pair.process.take();
    assert_eq!(pair.delegate.freeze(0, || false), Err(Errno::EOWNERDEAD));
    assert_eq!(pair.delegate.thaw(0), None);
}

/// A freezer that has begun with a FITHAW, and ends it when it is told to; of this process, or of another one.
fn thawing(id: ProcessId) -> (Arc<Delegate>, Pair) {
    let mut pair = pair(false);
    let (theirs, process) = std::io::pipe().unwrap();
    pair.process = Some(process);
    let delegate = Arc::new(Delegate::new(Arc::clone(&pair.page), theirs.into(), id));
    let page = Arc::clone(&pair.page);
    std::thread::spawn(move || while !step(&page.requests[0], THAW, TAKEN) {});
    (delegate, pair)
}

/// The disk takes its time.
#[test]
fn a_thaw_that_has_begun_is_waited_for() {
    let (delegate, pair) = thawing(ProcessId::own(Path::new("/")));
    let waits = std::thread::spawn(move || std::iter::repeat_with(|| delegate.thaw(0)).flatten().next());
    while pair.page.requests[0].load(Ordering::SeqCst) != TAKEN {
        std::thread::yield_now();
    }
    std::thread::sleep(INSIDE + LOOK * 4);
    assert!(!waits.is_finished(), "it stopped waiting");
    answer(&pair.page.requests[0], &pair.page.replies[0], Ok(()));
    assert_eq!(waits.join().unwrap(), Some(Ok(())));
}

/// Its FITHAW may have ended long ago, and then it was no other one that thawed.
#[test]
fn a_freezer_that_is_stopped_inside_is_not_waited_for_and_its_success_is_seen_late() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let id = ProcessId::of_live(Path::new("/"), pid).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    let (delegate, pair) = thawing(id);
    let (tx, rx) = channel();
    let waits = Arc::clone(&delegate);
    std::thread::spawn(move || {
        // Withdrawn where the thread that takes it did not come to run within LIMIT.
        while waits.thaw(0).is_some() || waits.words(0).0.load(Ordering::SeqCst) != TAKEN {}
        let _ = tx.send(());
    });
    let heard = rx.recv_timeout(Duration::from_secs(60));
    child.kill().unwrap();
    child.wait().unwrap();
    heard.expect("it waits for a stopped process");
    assert!(!delegate.succeeded_late(0), "nothing is known yet");
    answer(&pair.page.requests[0], &pair.page.replies[0], Ok(()));
    assert!(delegate.succeeded_late(0));
}

/// The agent died while FIFREEZE was in progress: what it freezes late is thawed at once.
#[test]
fn a_late_return_is_thawed_when_the_agent_is_gone() {
    let mut pair = pair(true);
    pair.kernel.stuck.store(true, Ordering::SeqCst);
    pair.set(State::Freezing);
    pair.page.requests[0].store(FREEZE, Ordering::SeqCst);
    wake(&pair.page.requests[0]);
    while pair.page.requests[0].load(Ordering::SeqCst) != TAKEN {
        std::thread::yield_now();
    }
    end(&pair.page, 0);
    pair.kernel.stuck.store(false, Ordering::SeqCst);
    assert!(pair.over());
    assert!(!pair.kernel.frozen.load(Ordering::SeqCst));
    assert_eq!(pair.state(), State::Thawed);
}

#[test]
fn what_the_watchdog_has_thawed_is_left_alone() {
    let mut pair = pair(true);
    pair.set(State::Freezing);
    pair.delegate.freeze(0, || false).unwrap();
    pair.set(State::ThawedByWatchdog); // and it is frozen again, by somebody else
    assert!(!pair.over());
    assert!(pair.kernel.frozen.load(Ordering::SeqCst), "a foreign freeze was thawed");
}

/// Whoever waits sleeps on the word: an end between its look and its sleep must not be lost.
#[test]
fn an_end_is_never_slept_through() {
    let mut pair = pair(false);
    end(&pair.page, 0);
    let (tx, rx) = channel();
    let (page, kernel) = (Arc::clone(&pair.page), Arc::clone(&pair.kernel));
    std::thread::spawn(move || {
        let _ = tx.send(serve_fd(&kernel, &page));
    });
    rx.recv_timeout(Duration::from_secs(20)).expect("it sleeps");
    pair.process.take();
}

/// With many filesystems every thaw is requested before the threads that wait for them are run.
#[test]
fn a_thaw_that_was_begun_is_done_once_and_heard_by_who_waits_for_it() {
    let mut pair = pair(true);
    pair.set(State::Freezing);
    pair.delegate.freeze(0, || false).unwrap();
    pair.delegate.begin_thaw(0);
    while pair.state() != State::Thawed {
        std::thread::yield_now();
    }
    // Somebody else freezes it: a second FITHAW would end that.
    pair.kernel.frozen.store(true, Ordering::SeqCst);
    assert_eq!(pair.delegate.thaw(0), Some(Ok(())));
    assert!(pair.kernel.frozen.load(Ordering::SeqCst));
    // The next one is not taken for begun.
    assert_eq!(pair.delegate.thaw(0), Some(Ok(())));
    assert!(!pair.kernel.frozen.load(Ordering::SeqCst));
    assert!(!pair.over());
}

#[test]
fn a_thaw_cannot_be_begun_with_a_freezer_that_is_going() {
    let mut pair = pair(true);
    pair.set(State::Freezing);
    pair.delegate.freeze(0, || false).unwrap();
    end(&pair.page, 0);
    pair.delegate.begin_thaw(0);
    assert_eq!(pair.delegate.thaw(0), None, "it thaws what it froze, and says nothing");
    assert!(pair.over());
}
