//! Devices of the set that no filesystem of the plan is on: held over the window, so that nobody uses them.
//!
//! In: the plan. Out: [`Claims`], and the devices that somebody else uses. Must never: run while anything is
//! frozen, wait for a dead disk without a bound, or count as unused what could not be looked at.
//!
//! A partition next to a frozen filesystem is in the same snapshot. It may be mounted in another mount
//! namespace, or have been unmounted lazily, or belong to ZFS or a database: then it holds what was never
//! flushed, and its write counter stands still all the same. A device that this process has claimed is
//! mounted by nobody and has no driver above it; what the page cache had for it is written by then.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::discover::DeviceInUse;
use crate::host::device_users::{self, Users};
use crate::host::kernel::Kernel;
use crate::host::thread::STACK;
use crate::ids::DevNo;
use crate::plan::{Plan, WitnessDevice};

/// Longest that claiming and flushing may take: microseconds, unless a disk is dead.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a use is waited out that may end by itself: udev, fsck, a partitioning program.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Devices that nobody else can mount while this value lives, and those that could not be claimed.
#[derive(Debug, Default)]
#[must_use = "dropping it lets others mount the devices"]
pub struct Claims {
    _held: Vec<OwnedFd>,
    /// In use by somebody else, or not known not to be.
    pub in_use: Vec<DeviceInUse>,
}

/// Claims that are being taken, while the rest is prepared.
pub(super) struct Claiming(Option<Receiver<Claims>>);

impl Claiming {
    pub(super) fn start(kernel: &Arc<dyn Kernel>, root: &Path, plan: &Plan) -> Self {
        let (tx, rx) = channel();
        let (kernel, root, plan) = (Arc::clone(kernel), root.to_path_buf(), plan.clone());
        let work = move || {
            let _ = tx.send(take(&kernel, &root, &plan));
        };
        let started = std::thread::Builder::new().name("claims".to_owned()).spawn(work);
        Self(started.is_ok().then_some(rx))
    }

    /// Waits for them, within the bounds of [`take`].
    pub(super) fn end(self, plan: &Plan) -> Claims {
        let limit = PATIENCE + LIMIT + 2 * device_users::LIMIT + Duration::from_secs(2);
        let taken = self.0.and_then(|rx| rx.recv_timeout(limit).ok());
        taken.unwrap_or_else(|| {
            let why = "it could not be looked at in time whether anything uses it";
            let unknown =
                |d: &WitnessDevice| DeviceInUse { name: d.name.clone(), dev: d.dev, why: why.to_owned() };
            let in_use = plan.witnesses.iter().chain(&plan.beneath).map(unknown).collect();
            Claims { _held: Vec::new(), in_use }
        })
    }
}

/// Claims what the plan leaves to be claimed. Blocks, within bounds.
pub fn take(kernel: &Arc<dyn Kernel>, root: &Path, plan: &Plan) -> Claims {
    let end = Instant::now() + PATIENCE;
    loop {
        let claims = once(kernel, root, plan);
        if claims.in_use.is_empty() || Instant::now() > end {
            return claims;
        }
        drop(claims);
        std::thread::sleep(PAUSE);
    }
}

fn once(kernel: &Arc<dyn Kernel>, root: &Path, plan: &Plan) -> Claims {
    if plan.witnesses.is_empty() && plan.beneath.is_empty() {
        return Claims::default();
    }
    let devices: BTreeSet<DevNo> = plan.witnesses.iter().chain(&plan.beneath).map(|d| d.dev).collect();
    let mut claimed = all(kernel, &plan.witnesses);
    let writers = device_users::writers(root, &devices, device_users::LIMIT);
    let busy: BTreeSet<DevNo> = claimed
        .iter()
        .filter(|(_, said)| matches!(said, Err(Refusal::Claim(Errno::EBUSY))))
        .map(|(d, _)| *d)
        .collect();
    let mounts = match busy.is_empty() {
        true => Users::default(),
        false => device_users::mounts(root, &busy, device_users::LIMIT),
    };
    let (mut claims, mut held) = (Claims::default(), Vec::new());
    let mut in_use = |device: &WitnessDevice, why| {
        claims.in_use.push(DeviceInUse { name: device.name.clone(), dev: device.dev, why });
    };
    for device in &plan.beneath {
        if let Some(why) = told(&writers, device.dev) {
            in_use(device, why);
        }
    }
    for device in &plan.witnesses {
        // Who that is says more than the errno does.
        let known = named(&writers, device.dev).or_else(|| named(&mounts, device.dev));
        match (claimed.remove(&device.dev), known) {
            (_, Some(why)) => in_use(device, why),
            (Some(Err(refusal)), None) => in_use(device, refusal.in_words(root, &device.name)),
            (Some(Ok(fd)), None) => match told(&writers, device.dev) {
                Some(why) => in_use(device, why),
                None => held.push(fd),
            },
            (None, None) => in_use(device, format!("opening it takes longer than {} s", LIMIT.as_secs())),
        }
    }
    claims._held = held;
    claims
}

fn named(users: &Users, dev: DevNo) -> Option<String> {
    users.found.get(&dev).map(|found| found.iter().cloned().collect::<Vec<_>>().join("; "))
}

fn told(users: &Users, dev: DevNo) -> Option<String> {
    let unknown = || {
        let why = users.incomplete.as_ref()?;
        Some(format!("it is not known whether anything writes to it: {why}"))
    };
    named(users, dev).or_else(unknown)
}

enum Refusal {
    Claim(Errno),
    Flush(Errno),
}

impl Refusal {
    fn in_words(&self, root: &Path, name: &str) -> String {
        match self {
            Self::Claim(Errno::EBUSY) => device_users::superblock(root, name).map_or_else(
                || {
                    "something holds it that shows no mount: another driver, ZFS, or a filesystem that was \
                    unmounted lazily or is mounted in a namespace without a process"
                        .to_owned()
                },
                |fstype| {
                    format!(
                        "a filesystem ({fstype}) is still in use on it, unmounted lazily or mounted in a namespace \
                         without a process"
                    )
                },
            ),
            Self::Claim(Errno::ENODEV) => "/dev has no node of it, so it cannot be claimed".to_owned(),
            Self::Claim(errno) => format!("it cannot be opened: {}", errno.desc()),
            Self::Flush(errno) => {
                format!("what was written to it did not all reach it: {}", errno.desc())
            }
        }
    }
}

/// Claims all at once; what has not answered in time is missing.
fn all(kernel: &Arc<dyn Kernel>, devices: &[WitnessDevice]) -> BTreeMap<DevNo, Result<OwnedFd, Refusal>> {
    let end = Instant::now() + LIMIT;
    let (tx, rx) = channel();
    for device in devices {
        let (kernel, tx, dev) = (Arc::clone(kernel), tx.clone(), device.dev);
        let claim = move || {
            let said = kernel.claim_device(dev).map_err(Refusal::Claim).and_then(|fd| {
                // Else what somebody has written through the page cache would not be in the snapshot.
                kernel.flush_device(fd.as_fd()).map(|()| fd).map_err(Refusal::Flush)
            });
            let _ = tx.send((dev, said));
        };
        // Without a thread its answer is missing.
        let _ = std::thread::Builder::new().name("claim".to_owned()).stack_size(STACK).spawn(claim);
    }
    drop(tx);
    let mut all = BTreeMap::new();
    while let Ok((dev, said)) = rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
        all.insert(dev, said);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_is_not_taken_for_unused() {
        let dev = DevNo { major: 259, minor: 7 };
        let late = Users { incomplete: Some("no time".to_owned()), ..Users::default() };
        assert!(told(&late, dev).is_some_and(|why| why.contains("no time")));
        assert_eq!(told(&Users::default(), dev), None);
    }
}
