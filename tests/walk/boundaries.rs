//! The boundaries to the kernel and to EC2: each call goes to the real one, with a point before and after it.

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
use stillpoint::ec2::tagging::Said;
use stillpoint::ec2::{
    CreateFailed, CreateRequest, Describe, Ec2, Ec2Error, InstanceView, SnapshotView, TaggedSnapshot,
};
use stillpoint::host::kernel::{Freezing, Kernel, Linux, Thawing, WriteCounter};
use stillpoint::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::points::{
    FREEZE, FREEZE_DONE, LOOK, LOOKED, MOVED, OPEN, PERMITTED, SYNC, TAGGED, THAW, THAW_DONE,
};
use crate::walker::Walker;

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
        self.freeze_delegated(fd, &|| Linux.freeze(fd))
    }

    fn freeze_delegated(&self, fd: BorrowedFd<'_>, delegate: &Freezing<'_>) -> nix::Result<()> {
        if self.0.reach(FREEZE).is_err() || once(&self.0.fails.freeze) {
            return Err(Errno::EIO);
        }
        delegate()?;
        if self.0.reach(FREEZE_DONE).is_err() {
            Linux.thaw(fd)?; // FIFREEZE does not fail when it has frozen: somebody else thaws
        }
        Ok(())
    }

    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.thaw_delegated(fd, &|| None)
    }

    fn thaw_delegated(&self, fd: BorrowedFd<'_>, delegate: &Thawing<'_>) -> nix::Result<()> {
        self.0.reach(THAW).map_err(|_| Errno::EIO)?;
        delegate().unwrap_or_else(|| Linux.thaw(fd))?;
        self.0.reach(THAW_DONE).map_err(|_| Errno::EIO)
    }

    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.0.reach(SYNC).map_err(|_| Errno::EIO)?;
        Linux.syncfs(fd)
    }

    fn write_counter(&self, stat: &File) -> std::io::Result<WriteCounter> {
        let which = if self.0.answered.load(Ordering::SeqCst) { MOVED } else { LOOK };
        if self.0.reach(which).is_err() || self.0.fails.counter.load(Ordering::SeqCst) {
            return Err(Errno::EIO.into());
        }
        Linux.write_counter(stat)
    }
}

#[derive(Debug)]
pub struct WalkedEc2 {
    pub real: Aws,
    pub walker: Arc<Walker>,
    /// The create call is held: the case is about the time before its answer.
    pub hold: Option<Hold>,
}

/// A fault of `ebs-sim` that holds the create call.
#[derive(Debug)]
pub struct Hold {
    /// The point that is reached once the call is held.
    pub point: String,
    /// Of `ebs-sim`'s control interface.
    pub control: String,
    pub fault: String,
}

impl Hold {
    /// Comes back when `ebs-sim` holds the call: it has come in, and there is no answer.
    async fn began(&self) {
        let Self { control, fault, .. } = self;
        let mut stream = TcpStream::connect(control).await.unwrap();
        let path = format!("/_ebs-sim/faults/{fault}/held?within_ms=30000");
        let ask = format!("GET {path} HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await; // a reset after the answer is no loss
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

/// Not by a code that is repeated: one failure is to be the last word.
fn refused(action: &'static str) -> Ec2Error {
    Ec2Error::refused(action, "InvalidParameterValue", "injected")
}

fn lost(action: &'static str) -> Ec2Error {
    Ec2Error::unknown(action, "injected")
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

    fn states(&self, snapshots: &[SnapshotId]) -> impl Future<Output = Result<Vec<SnapshotView>, Ec2Error>> {
        self.real.states(snapshots)
    }

    fn may_tag(&self, snapshot: Option<&SnapshotId>) -> impl Future<Output = Result<Said, Ec2Error>> {
        self.real.may_tag(snapshot)
    }

    fn one_of_ours(
        &self,
        volumes: &[VolumeId],
    ) -> impl Future<Output = Result<Option<SnapshotId>, Ec2Error>> {
        self.real.one_of_ours(volumes)
    }

    fn renew(&self, need: Duration) -> impl Future<Output = Result<(), Ec2Error>> {
        self.real.renew(need)
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
        if let Some(hold) = &self.hold {
            tokio::select! {
                biased;
                said = &mut call => return said,
                () = hold.began() => {}
            }
            self.walker.reach(&hold.point).map_err(|_| failed(lost("CreateSnapshots")))?;
        }
        call.await
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
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
