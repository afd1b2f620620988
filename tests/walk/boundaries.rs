//! The two boundaries, real behind, with points before and after each call.

use std::fs::File;
use std::future::Future;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use stillpoint::discover::AttachedVolume;
use stillpoint::ec2::aws::Aws;
use stillpoint::ec2::{CreateFailed, CreateRequest, Describe, Ec2, Ec2Error, InstanceView, SnapshotView};
use stillpoint::host::kernel::{Kernel, Linux, WriteCounter};
use stillpoint::ids::{InstanceId, RunId, SnapshotId, VolumeId};

use crate::points::{
    COMMITTED, FREEZE, FREEZE_DONE, IN_FLIGHT, LOOK, LOOKED, MOVED, OPEN, PERMITTED, SYNC, TAGGED, THAW,
    THAW_DONE,
};
use crate::walker::Walker;

/// When a request is certainly under way, and the answer certainly is not there: the API is told to take
/// longer.
const UNDER_WAY: Duration = Duration::from_millis(100);

fn once(what: &AtomicBool) -> bool {
    what.swap(false, Ordering::SeqCst)
}

#[derive(Debug)]
pub struct WalkedKernel(pub Arc<Walker>);

impl Kernel for WalkedKernel {
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        if self.0.reach(OPEN).is_err() || once(&self.0.fails.open) {
            return Err(Errno::EIO);
        }
        Linux.open(path)
    }

    fn freeze(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        if self.0.reach(FREEZE).is_err() || once(&self.0.fails.freeze) {
            return Err(Errno::EIO);
        }
        Linux.freeze(fd)?;
        if self.0.reach(FREEZE_DONE).is_err() {
            Linux.thaw(fd)?; // FIFREEZE does not fail when it has frozen: somebody else thaws
        }
        Ok(())
    }

    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.0.reach(THAW).map_err(|_| Errno::EIO)?;
        Linux.thaw(fd)?;
        self.0.reach(THAW_DONE).map_err(|_| Errno::EIO)
    }

    fn thaw_delegated(
        &self,
        fd: BorrowedFd<'_>,
        ask: &dyn Fn() -> Option<nix::Result<()>>,
    ) -> nix::Result<()> {
        self.0.reach(THAW).map_err(|_| Errno::EIO)?;
        ask().unwrap_or_else(|| Linux.thaw(fd))?;
        self.0.reach(THAW_DONE).map_err(|_| Errno::EIO)
    }

    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.0.reach(SYNC).map_err(|_| Errno::EIO)?;
        Linux.syncfs(fd)
    }

    fn write_counter(&self, stat: &File) -> std::io::Result<WriteCounter> {
        let which = if self.0.answered.load(Ordering::SeqCst) { MOVED } else { LOOK };
        if self.0.reach(which).is_err() || once(&self.0.fails.counter) {
            return Err(Errno::EIO.into());
        }
        Linux.write_counter(stat)
    }
}

#[derive(Debug)]
pub struct WalkedEc2 {
    pub real: Aws,
    pub walker: Arc<Walker>,
}

fn refused(action: &'static str) -> Ec2Error {
    Ec2Error::Refused { action, code: "Unavailable".to_owned(), message: "injected".to_owned() }
}

fn lost(action: &'static str) -> Ec2Error {
    Ec2Error::Unknown { action, message: "injected".to_owned() }
}

impl Describe for WalkedEc2 {
    fn instance(&self, id: &InstanceId) -> impl Future<Output = Result<InstanceView, Ec2Error>> {
        self.real.instance(id)
    }

    fn volumes(&self, id: &InstanceId) -> impl Future<Output = Result<Vec<AttachedVolume>, Ec2Error>> {
        self.real.volumes(id)
    }

    async fn pending(&self, volumes: &[VolumeId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        if once(&self.walker.fails.pending) {
            return Err(refused("DescribeSnapshots"));
        }
        self.real.pending(volumes).await
    }

    fn started(
        &self,
        volumes: &[VolumeId],
        minutes: &[String],
    ) -> impl Future<Output = Result<Vec<SnapshotView>, Ec2Error>> {
        self.real.started(volumes, minutes)
    }

    async fn dry_run(&self, request: &CreateRequest) -> Result<(), Ec2Error> {
        if once(&self.walker.fails.dry_run) {
            return Err(refused("CreateSnapshots"));
        }
        self.real.dry_run(request).await?;
        self.walker.reach(PERMITTED).map_err(|_| lost("CreateSnapshots"))
    }

    fn warm_connections(&self) -> Option<usize> {
        self.real.warm_connections()
    }
}

impl Ec2 for WalkedEc2 {
    async fn create(&self, request: &CreateRequest) -> Result<Vec<SnapshotView>, CreateFailed> {
        let failed =
            |error: Ec2Error| CreateFailed { outcome_unknown: error.outcome_unknown(), error, made: vec![] };
        if once(&self.walker.fails.create) {
            return Err(failed(refused("CreateSnapshots")));
        }
        let mut call = std::pin::pin!(self.real.create(request));
        tokio::select! {
            biased;
            said = &mut call => return said,
            () = tokio::time::sleep(UNDER_WAY) => {}
        }
        // Only where the API has been told to take longer, before or after the deed. Both are told: the case
        // says which it is.
        for point in [IN_FLIGHT, COMMITTED] {
            self.walker.reach(point).map_err(|_| failed(lost("CreateSnapshots")))?;
        }
        call.await
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<SnapshotView>, Ec2Error> {
        if self.walker.fails.find.load(Ordering::SeqCst) {
            return Err(lost("DescribeSnapshots"));
        }
        let found = self.real.find_run(run).await?;
        self.walker.reach(LOOKED).map_err(|_| lost("DescribeSnapshots"))?;
        Ok(found)
    }

    async fn tag(&self, snapshots: &[SnapshotId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        if self.walker.fails.tag.load(Ordering::SeqCst) {
            return Err(lost("CreateTags"));
        }
        self.real.tag(snapshots, tags).await?;
        self.walker.reach(TAGGED).map_err(|_| lost("CreateTags"))
    }
}
