//! A window over a made host: no root, no real kernel, no process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rig::fixture::{Host, settings};
use rig::made;
use stillpoint::host::kernel::Kernel;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Plan, plan};
use stillpoint::window::guard::StartGuard;
use stillpoint::window::watchdog::Trigger;
use stillpoint::window::{Called, Extras, FreezeFailure, Limits, Machine, Prepared};

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
        let host = Host::named("nitro");
        let kernel = made::Kernel::new(host.root());
        let plan = plan(&host.facts(), &settings()).unwrap();
        Self { watchdog: made::Watchdog::over(&kernel), host, kernel, plan }
    }

    async fn open(&self, limits: Limits) -> Prepared {
        let kernel: Arc<dyn Kernel> = self.kernel.clone();
        let machine = Machine { root: self.host.root(), kernel: &kernel, watchdog: &self.watchdog };
        let mut never = Interrupt::never();
        Prepared::open(machine, &self.plan, limits, &mut never, Extras::default()).await.unwrap()
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
    let thawed = frozen.thaw().await;
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
    let doubt = frozen.thaw().await.doubt().unwrap();
    assert_eq!(doubt, format!("{} was written to (3 writes)", device.name));

    let made = Made::new();
    let frozen = made.open(LIMITS).await.freeze(&mut Interrupt::never()).await.unwrap();
    made.kernel.refuse("thaw", "/", Errno::EINVAL);
    assert_eq!(frozen.thaw().await.doubt().unwrap(), "thawed by something else meanwhile: /");
}

#[tokio::test]
async fn the_stand_in_keeps_the_deadline() {
    let made = Made::new();
    // Its own deadline comes a tenth earlier; what blocks the thread keeps it from that.
    let limits = Limits { window: Duration::from_millis(100), ..LIMITS };
    let mut frozen = made.open(limits).await.freeze(&mut Interrupt::never()).await.unwrap();
    let called = frozen
        .call(&mut Interrupt::never(), async {
            while !made.kernel.frozen().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::future::pending::<()>().await;
        })
        .await;
    assert!(matches!(called, Called::WatchdogLost | Called::RanOut));
    assert_eq!(frozen.thaw().await.fired, Some(Trigger::Deadline));
}
