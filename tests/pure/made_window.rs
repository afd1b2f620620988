//! A window over a made host: no root, no real kernel, no process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use rig::fixture::{Host, plan_with};
use rig::made::{self, thawed};
use stillpoint::config::settings::PlanSettings;
use stillpoint::host::kernel::Kernel;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Method, Plan};
use stillpoint::window::guard::StartGuard;
use stillpoint::window::watchdog::Trigger;
use stillpoint::window::{Called, Extras, FreezeFailure, Limits, Lost, Machine, PrepareError, Prepared};

const LIMITS: Limits = Limits {
    window: Duration::from_secs(60),
    freeze: Duration::from_secs(30),
    flush: Duration::from_secs(30),
};

struct Made {
    host: Host,
    kernel: Arc<made::Kernel>,
    watchdog: Arc<dyn StartGuard>,
    plan: Plan,
}

impl Made {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut PlanSettings)) -> Self {
        let host = Host::named("nitro");
        let kernel = made::Kernel::new(host.root());
        let plan = plan_with(&host.facts(), change).unwrap();
        Self { watchdog: made::Watchdog::over(&kernel), host, kernel, plan }
    }

    async fn open(&self, limits: Limits) -> Prepared {
        self.try_open(limits).await.unwrap()
    }

    async fn try_open(&self, limits: Limits) -> Result<Prepared, PrepareError> {
        let kernel: Arc<dyn Kernel> = self.kernel.clone();
        let machine = Machine { root: self.host.root(), kernel: &kernel, watchdog: &self.watchdog };
        let mut never = Interrupt::never();
        Prepared::open(machine, &self.plan, limits, &mut never, Extras::default()).await
    }

    fn mount_points(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = self.plan.filesystems.iter().map(|f| f.mount_point.clone()).collect();
        all.sort();
        all
    }
}

#[tokio::test]
async fn a_window_opens_holds_and_closes() {
    let made = Made::new();
    let mut frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    assert_eq!(made.kernel.frozen().len(), made.kernel.called("freeze").len());
    let called = frozen.call(&mut Interrupt::never(), async { 7 }).await;
    assert!(matches!(called, Called::Returned(7)));
    let thawed = thawed(frozen).await;
    assert_eq!((thawed.doubt(), made.kernel.frozen()), (None, vec![]));
    let mut opened = made.kernel.called("open");
    opened.sort();
    assert_eq!(opened, made.mount_points(), "every planned filesystem, by its path on the made host");
}

#[tokio::test]
async fn what_refuses_to_freeze_leaves_nothing_frozen() {
    let made = Made::new();
    made.kernel.refuse("freeze", "/", Errno::EPERM);
    let not = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap_err();
    assert!(
        matches!(&not.cause, FreezeFailure::Refused { mount_point, .. } if mount_point == Path::new("/"))
    );
    assert!(made.kernel.frozen().is_empty() && !made.kernel.called("thaw").is_empty());
}

#[tokio::test]
async fn a_written_device_and_a_foreign_thaw_are_seen() {
    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let device = made.plan.filesystems.iter().flat_map(|f| &f.witnesses).next().unwrap();
    std::fs::write(&device.stat, "0 0 0 0 3 0 24 0 0 0 0\n").unwrap();
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert_eq!(doubt, format!("{} was written to (3 writes)", device.name));

    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    made.kernel.refuse("thaw", "/", Errno::EINVAL);
    assert_eq!(thawed(frozen).await.doubt().unwrap(), "thawed by something else meanwhile: /");
}

/// FIFREEZE does not report that what it was to write was lost: the next syncfs of a descriptor from before
/// does.
#[tokio::test]
async fn a_write_back_that_failed_after_the_flush_is_a_doubt() {
    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    made.kernel.refuse("sync", "/", Errno::ENOSPC);
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert_eq!(doubt, "what was written to / did not all reach its device: No space left on device");

    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let (mut thawed, mut recheck) = frozen.thaw().await;
    assert!(thawed.doubt().is_some(), "what was not asked is not known");
    recheck.tell(&mut thawed, LIMITS.flush, &mut Interrupt::never()).await;
    assert_eq!(thawed.doubt(), None);
    let calls = made.kernel.calls();
    let last = |call| calls.iter().rposition(|(name, _)| *name == call);
    assert!(last("sync") > last("thaw"), "{calls:?}");
}

/// The kernel reports it once: nobody would hear of it any more.
#[tokio::test]
async fn a_flush_that_fails_before_the_freeze_ends_the_run() {
    let made = Made::new();
    made.kernel.refuse_once("sync", "/", Errno::EIO);
    let said = made.try_open(LIMITS).await.unwrap_err().to_string();
    assert_eq!(said, "cannot flush /");
    assert!(made.kernel.called("freeze").is_empty());
    // What is only synced is flushed once more, when it is late for that.
    let made = Made::new();
    let prepared = made.open(LIMITS).await;
    made.kernel.refuse_once("sync", "/boot/efi", Errno::EIO);
    let frozen = prepared.freeze(&mut Interrupt::never()).await.unwrap();
    assert_eq!(thawed(frozen).await.doubt().unwrap(), "cannot flush /boot/efi");
}

/// Nobody could mount it, and a raw write to it would be in no filesystem's proof.
#[tokio::test]
async fn what_is_written_to_a_device_without_a_filesystem_is_seen() {
    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let device = &made.plan.witnesses[0];
    std::fs::write(&device.stat, "0 0 0 0 3 0 24 0 0 0 0\n").unwrap();
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert_eq!(doubt, format!("{} was written to (3 writes)", device.name));
}

/// /boot/efi is vfat, which cannot freeze: its counter is the only proof.
const SYNCED: &str = "nvme0n1p128";

#[tokio::test]
async fn a_counter_that_does_not_count_proves_nothing_quiet() {
    let made = Made::new();
    made.kernel.switch_off_counters(true);
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert_eq!(doubt, format!("nothing shows that {SYNCED} was not written to: a read of it is not counted"));

    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    made.kernel.switch_off_counters(true);
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert!(doubt.contains(SYNCED) && doubt.contains("not after it"), "{doubt}");
}

/// FITHAW and the claims are proofs by themselves; that the second one is missing is told for each device.
#[tokio::test]
async fn what_has_another_proof_is_only_without_a_witness() {
    let away = |s: &mut PlanSettings| s.methods = [("/boot/efi".into(), Method::Unmount)].into();
    let made = Made::with(away);
    made.kernel.switch_off_counters(true);
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let thawed = thawed(frozen).await;
    assert_eq!(thawed.doubt(), None);
    let devices: usize = made.plan.filesystems.iter().map(|f| f.witnesses.len()).sum();
    let without = thawed.without_witness();
    assert_eq!(without.len(), devices + made.plan.witnesses.len(), "{without:?}");
    assert!(without.iter().all(|d| d.contains(": a read of it is not counted")), "{without:?}");
    // The same where they have counted until the freeze.
    made.kernel.switch_off_counters(false);
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    made.kernel.switch_off_counters(true);
    let thawed = rig::made::thawed(frozen).await;
    assert_eq!((thawed.doubt(), thawed.without_witness().len()), (None, without.len()));
    assert!(thawed.without_witness().iter().all(|d| d.contains("and not after it")), "{thawed:?}");
}

#[tokio::test]
async fn a_synced_filesystem_without_a_known_device_is_not_proven_quiet() {
    let mut made = Made::new();
    let synced = made.plan.filesystems.iter_mut().find(|f| f.method == Method::Sync).unwrap();
    synced.witnesses.clear();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    assert_eq!(thawed(frozen).await.doubt().unwrap(), "/boot/efi: no device of it is known");
}

/// What reached the device between a flush and the first reading of the counter would be half of something.
#[tokio::test]
async fn a_filesystem_that_is_written_to_as_long_as_it_is_flushed_is_not_proven_quiet() {
    let made = Made::new();
    let synced = made.plan.filesystems.iter().find(|f| f.method == Method::Sync).unwrap();
    made.kernel.flush_moves(&synced.witnesses[0].stat);
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert_eq!(doubt, format!("{SYNCED} was written to (1 writes)"));
}

/// Its counter is open from before: that the device went, or that another one came, is seen.
#[tokio::test]
async fn a_counter_that_cannot_be_read_again_or_went_backwards_is_a_doubt() {
    for (text, doubt) in [
        ("", "the write counter of NAME could not be read"),
        ("0 0 0 0 2 0 8 0 0 0 0\n", "the write counter of NAME went backwards: the device was replaced"),
    ] {
        let made = Made::new();
        let device = made.plan.filesystems.iter().flat_map(|f| &f.witnesses).next().unwrap();
        std::fs::write(&device.stat, "0 0 0 0 3 0 24 0 0 0 0\n").unwrap();
        let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
        std::fs::write(&device.stat, text).unwrap();
        assert_eq!(thawed(frozen).await.doubt().unwrap(), doubt.replace("NAME", &device.name));
    }
}

#[tokio::test]
async fn what_no_filesystem_is_on_is_claimed_before_the_freeze_or_is_a_doubt() {
    let made = Made::new();
    let beside: Vec<_> = made.plan.witnesses.iter().map(|w| PathBuf::from(w.dev.to_string())).collect();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    assert_eq!(thawed(frozen).await.doubt(), None);
    let calls = made.kernel.calls();
    let mut claimed = made.kernel.called("claim");
    claimed.sort();
    assert!(!beside.is_empty() && claimed == beside, "{claimed:?}");
    let last_claim = calls.iter().rposition(|(name, _)| *name == "claim");
    assert!(last_claim < calls.iter().position(|(name, _)| *name == "freeze"), "{calls:?}");

    for (errno, why) in [
        (Errno::EBUSY, "something holds it"),
        (Errno::ENODEV, "/dev has no node of it"),
        (Errno::EACCES, "it cannot be opened: Permission denied"),
    ] {
        let made = Made::new();
        made.kernel.refuse("claim", beside[0].clone(), errno);
        let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
        let doubt = thawed(frozen).await.doubt().unwrap();
        assert!(
            doubt.starts_with(&format!("{} cannot be taken for unused: ", made.plan.witnesses[0].name)),
            "{doubt}"
        );
        assert!(doubt.contains(why), "{doubt}");
    }
}

/// udev looks at a device when it is closed, fsck at its end: that is over in a moment.
#[tokio::test]
async fn a_use_that_ends_by_itself_is_waited_out() {
    let made = Made::new();
    let device = made.plan.witnesses[0].dev.to_string();
    made.kernel.refuse_once("claim", device, Errno::EBUSY);
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    assert_eq!(thawed(frozen).await.doubt(), None);
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_not_taken_for_unused() {
    let made = Made::new();
    made.kernel.hang("claim", made.plan.witnesses[0].dev.to_string());
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    let doubt = thawed(frozen).await.doubt().unwrap();
    assert!(doubt.contains("opening it takes longer than"), "{doubt}");
}

/// Its own deadline comes a tenth earlier; what blocks the thread keeps it from that. So does a stop, and
/// which of the two it then hears of first is chance.
#[tokio::test]
async fn the_watchdogs_deadline_ends_the_window_whatever_the_agent_hears_first() {
    for heard in [true, false] {
        let mut made = Made::new();
        if !heard {
            made.watchdog = made::Watchdog::unheard(&made.kernel);
        }
        let limits = Limits { window: Duration::from_millis(100), ..LIMITS };
        let begun = Instant::now();
        let mut frozen = made.open(limits).await.freeze(&mut Interrupt::never()).await.unwrap();
        let called = frozen
            .call(&mut Interrupt::never(), async {
                while !made.kernel.frozen().is_empty() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::future::pending::<()>().await;
            })
            .await;
        assert!(matches!(called, Called::WatchdogLost(Lost(Some(Trigger::Deadline)))), "{called:?}");
        // Stopped, and run again only now: it was frozen for as long as it was frozen.
        let stopped = Duration::from_millis(50);
        std::thread::sleep(stopped);
        let (wall, before) = (Timestamp::now(), begun.elapsed());
        let thawed = thawed(frozen).await;
        assert_eq!(thawed.fired, Some(Trigger::Deadline));
        assert!(thawed.length <= before - stopped, "{:?} of {before:?}", thawed.length);
        assert!(thawed.times.thawed.unwrap() < wall, "{:?}", thawed.times);
    }
}

/// Whether its FIFREEZE succeeded, a freezer that died has not told.
#[tokio::test]
async fn what_a_dead_freezer_may_have_frozen_is_thawed() {
    let made = Made::new();
    made.kernel.refuse("freeze", "/", Errno::EOWNERDEAD);
    made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap_err();
    assert!(made.kernel.called("thaw").iter().any(|at| at == Path::new("/")), "{:?}", made.kernel.calls());
}
