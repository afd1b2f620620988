//! `stillpoint restore SET --warm …`: what was restored is read, so that its first use is not slow.
//!
//! In: a restore that is done. Out: bars on a terminal, a line every so often elsewhere. Must never: make a restore less
//! done than it is: who is interrupted here has it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::super::follow::{Progress, Row, gib};
use super::super::say;
use super::super::sets::Account;
use super::super::start::end;
use super::super::type_and_speed;
use super::Restore;
use crate::clock::{Clock as _, System};
use crate::ec2::direct::Direct as _;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::{beneath, device, mountinfo};
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::restore::carry_out::Done;
use crate::restore::disks;
use crate::restore::plan::{Reach, RestorePlan};
use crate::restore::warm::Warm;
use crate::restore::warm::blocks::{self, Disk, Far, Reading};
use crate::restore::warm::tree::{self, Walk};
use crate::sets::wait::rough;

/// Between two looks, and between two lines where there are no bars.
const A_LOOK: Duration = Duration::from_millis(100);
const A_LINE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Warming {
    /// Read what was restored, so that its first use is not slow. It takes as long as S3 does; --init-rate has EC2 read
    /// it, for a price.
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "WHAT", value_enum, default_value_t, hide_default_value = true,
        conflicts_with_all = ["no_attach", "in_place", "root", "copy_out", "undo", "left"])]
    pub(super) warm: Warm,
}

impl Restore {
    /// What can be known of it before a volume is made.
    pub(super) async fn can_warm(&self, account: &Account, plan: &RestorePlan) -> Result<(), Error> {
        match self.warming.warm {
            Warm::Metadata if plan.reach != Reach::Mounted => {
                Err(Error::new(Exit::Usage, "--warm metadata looks at files, and nothing is mounted")
                    .hint("--warm used, or all, reads the disks"))
            }
            Warm::Used => {
                let direct = account.direct(1).await?;
                let direct = Repeating::for_each_call(&direct, &account.loaded.settings.ec2);
                if !plan.clones.is_empty() {
                    return Err(Error::new(
                        Exit::Usage,
                        "--warm used goes by snapshots, and these are clones",
                    )
                    .hint("EC2 initialises them by itself; --warm all reads them"));
                }
                for snapshot in plan.volumes.iter().filter_map(|v| v.snapshot.as_ref()) {
                    let asked = async || direct.inner().readable(snapshot).await;
                    direct.call("ListSnapshotBlocks", asked).await.map_err(|e| {
                        Error::from(e)
                            .hint("`stillpoint iam-policy restore-warm` has it; --warm all needs nothing")
                    })?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads it. The exit is that of one who was interrupted.
    pub(super) async fn warm(
        &self,
        account: &Account,
        plan: &RestorePlan,
        done: &Done,
        interrupt: &Interrupt,
    ) -> Result<Option<Exit>, Error> {
        let mut stopped = interrupt.clone();
        let work = tokio::select! {
            biased;
            signal = stopped.caught() => return Ok(Some(interrupted(signal))),
            work = self.begun(account, plan, done) => work?,
        };
        let Some(work) = work else { return Ok(None) };
        let mut watching =
            Watching { progress: Progress::new(), began: System.elapsed(), said: System.elapsed() };
        while !work.is_over() {
            watching.see(&work);
            tokio::select! {
                biased;
                signal = stopped.caught() => {
                    work.stop();
                    watching.progress.end();
                    return Ok(Some(interrupted(signal)));
                }
                () = System.pause(A_LOOK) => {}
            }
        }
        watching.progress.end();
        say(&work.summary(System.elapsed().saturating_sub(watching.began)));
        match work.failed() {
            None => Ok(None),
            Some(what) => Err(cold(plan, &what)),
        }
    }

    async fn begun(&self, account: &Account, plan: &RestorePlan, done: &Done) -> Result<Option<Work>, Error> {
        let cold = |what: String| cold(plan, &what);
        let started = |e: std::io::Error| cold(format!("nothing can read it: {e}"));
        match self.warming.warm {
            Warm::None => Ok(None),
            Warm::Metadata => {
                let walk = tree::start(roots(done).map_err(cold)?).map_err(started)?;
                Ok(Some(Work::Tree(walk)))
            }
            Warm::All | Warm::Used => {
                let mut all = Vec::new();
                let direct = match self.warming.warm {
                    Warm::Used => Some(account.direct(1).await?),
                    _ => None,
                };
                for (made, planned) in done.volumes.iter().zip(&plan.volumes) {
                    let (file, bytes, disk) = opened(&made.id).map_err(cold)?;
                    let ranges = match (&direct, &planned.snapshot) {
                        (Some(direct), Some(snapshot)) => {
                            let direct = Repeating::for_each_call(direct, &account.loaded.settings.ec2);
                            blocks::of_snapshot(&direct, snapshot).await?
                        }
                        _ => std::iter::once(0..bytes).collect(),
                    };
                    all.push(Disk { name: format!("{} {disk}", made.id), file, ranges });
                }
                Ok(Some(Work::Blocks(blocks::start(all).map_err(started)?)))
            }
        }
    }
}

/// The restore is done, and what this says kept it from being read.
fn cold(plan: &RestorePlan, what: &str) -> Error {
    Error::new(Exit::After, format!("the restore is done; {what}"))
        .hint(format!("`stillpoint restore --continue {} --warm …` reads again", plan.id))
}

fn interrupted(signal: nix::sys::signal::Signal) -> Exit {
    say("interrupted: the restore is done, and what was not read is read when it is used");
    end(Exit::After, Some(signal))
}

/// The disk of a volume, past the page cache; its size; its name.
fn opened(id: &crate::ids::VolumeId) -> Result<(File, u64, String), String> {
    let disk = disks::of(Path::new("/"), id)?.into_iter().next();
    let disk = disk.ok_or_else(|| format!("the disk of {id} is not here"))?;
    let said = |e: &dyn std::fmt::Display| format!("cannot open {}: {e}", disk.name);
    let mut file = File::from(device::open_direct(disk.dev).map_err(|e| said(&e.desc()))?);
    let bytes = file.seek(SeekFrom::End(0)).map_err(|e| said(&e))?;
    Ok((file, bytes, disk.name))
}

fn roots(done: &Done) -> Result<Vec<std::os::fd::OwnedFd>, String> {
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    let each = done.mounts.iter().map(|made| {
        let place = shown(&made.mount_point);
        let line = table.lines.iter().rev().find(|l| l.mount_point == made.mount_point);
        let line = line.ok_or_else(|| format!("nothing is mounted at {place}"))?;
        beneath::mount_root(line).map_err(|e| format!("{place}: {}", e.desc()))
    });
    each.collect()
}

enum Work {
    Blocks(Arc<Reading>),
    Tree(Arc<Walk>),
}

impl Work {
    fn is_over(&self) -> bool {
        match self {
            Self::Blocks(reading) => reading.is_over(),
            Self::Tree(walk) => walk.is_over(),
        }
    }

    fn stop(&self) {
        match self {
            Self::Blocks(reading) => reading.stop(),
            Self::Tree(walk) => walk.stop(),
        }
    }

    fn failed(&self) -> Option<String> {
        match self {
            Self::Blocks(reading) => reading.failed(),
            Self::Tree(walk) => Some(walk.unseen())
                .filter(|n| *n > 0)
                .map(|n| format!("{n} files or folders could not be looked at")),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let Self::Blocks(reading) = self else { return Vec::new() };
        let row = |far: Far| {
            let percent = percent(far.read, far.of);
            let said = format!("{percent:3}%, {} of {}", gib(far.read), gib(far.of));
            Row { name: far.name, percent: Some(percent), done: far.read >= far.of, said }
        };
        reading.far().into_iter().map(row).collect()
    }

    fn summary(&self, taken: Duration) -> String {
        match self {
            Self::Blocks(reading) => {
                let far = reading.far();
                summary(far.iter().map(|f| f.read).sum(), far.iter().map(|f| f.of).sum(), taken)
            }
            Self::Tree(walk) => format!("{} files and folders were looked at", walk.seen()),
        }
    }
}

fn percent(read: u64, of: u64) -> u8 {
    let percent = read.saturating_mul(100).checked_div(of).unwrap_or(100);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// The whole in a line.
fn summary(read: u64, of: u64, taken: Duration) -> String {
    let mut said = format!("{} of {} read", gib(read), gib(of));
    #[allow(clippy::cast_precision_loss, reason = "a speed, and a time to go, are rough")]
    if read > 0 && taken >= Duration::from_secs(1) {
        let speed = read as f64 / taken.as_secs_f64();
        said = format!("{said}, {:.0} MiB/s", speed / f64::from(1 << 20));
        let left = of.saturating_sub(read);
        if left > 0 {
            let left = Duration::try_from_secs_f64(left as f64 / speed).unwrap_or(Duration::MAX);
            said = format!("{said}, about {} left", rough(left));
        }
    }
    said
}

struct Watching {
    progress: Progress,
    began: Duration,
    said: Duration,
}

impl Watching {
    fn see(&mut self, work: &Work) {
        let now = System.elapsed();
        let summary = work.summary(now.saturating_sub(self.began));
        if !self.progress.has_bars() && now.saturating_sub(self.said) >= A_LINE {
            self.said = now;
            say(&summary);
        }
        self.progress.show(|| work.rows(), &summary, A_LINE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        const GIB: u64 = 1 << 30;
        let said = |read, s| summary(read, 4 * GIB, Duration::from_secs(s));
        assert_eq!(said(GIB, 4), "1.0 GiB of 4.0 GiB read, 256 MiB/s, about 12 s left");
        assert_eq!(said(GIB, 0), "1.0 GiB of 4.0 GiB read", "no speed before there is one");
        assert_eq!(said(4 * GIB, 16), "4.0 GiB of 4.0 GiB read, 256 MiB/s");
        assert_eq!([percent(0, 0), percent(1, 3), percent(3, 3), percent(9, 3)], [100, 33, 100, 100]);
    }
}
