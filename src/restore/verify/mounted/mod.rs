//! A set is mounted and judged without a volume: blocks come from EC2 as they are read, and what a mount writes stays in
//! memory.
//!
//! ```text
//! fetch.rs   ListSnapshotBlocks, GetSnapshotBlock ─▶ store.rs: what came, and what was written over it
//! serve.rs   the store as a FUSE filesystem that is mounted nowhere, a file a snapshot
//! apart.rs   another process: a loop device of each filesystem's bytes ─▶ judge.rs: mount, fsck
//!            checks.rs: what the configuration lets look at them
//! ```
//!
//! Whatever dies, nothing is left: the devices go with the process that has them open, the files with the one that
//! serves them, and neither waits for the other.
//!
//! In: a set, its layout, the EBS direct APIs, this host. Out: findings. Must never: make a volume, write to a disk, or
//! take what could not be fetched or kept for a fault of the set.

mod apart;
mod fetch;
mod noted;
mod serve;
mod store;

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

pub use self::apart::{ARGUMENT, main};
use self::apart::{Answer, Apart, Attached, NoAnswer, Order};
use self::fetch::{Fetcher, Probing};
use self::noted::NAME;
pub use self::noted::{left, take_down};
use self::serve::Trouble;
use super::checks::Looking;
use super::device::Piece;
use super::restored::{self, LeftOut};
use super::{Finding, Report, Verdict, probe};
use crate::clock::Clock;
use crate::config::settings::Check;
use crate::ec2::direct::Direct;
use crate::ec2::repeat::Repeating;
use crate::ec2::volume_type::Instead;
use crate::host::cgroup::{self, Room};
use crate::host::memory;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::report::sets::size;
use crate::restore::make::Stopped;
use crate::restore::plan::{self, Asked, PlannedFilesystem, Reach, Refusal};
use crate::sets::layout::Layout;
use crate::sets::set::SnapshotSet;

/// With less, not even the blocks that are read would find room.
const LEAST: u64 = 64 << 20;
const SMALLER: &str = "a smaller --overlay-limit, or another --level";

/// What can be mounted here.
#[derive(Debug)]
pub struct Planned {
    /// The filesystems.
    pub filesystems: Vec<PlannedFilesystem>,
    /// Those that are not looked at, and why.
    pub left_out: LeftOut,
}

/// Decides.
#[must_use]
pub fn planned(layout: &Layout) -> Planned {
    let asked = Asked {
        reach: Reach::Mounted,
        to: PathBuf::from(super::contained::SET),
        mounts: Vec::new(),
        read_only: true,
        zone: None,
        instead: Instead::default(),
        key: None,
        initialization_rate: None,
        until: None,
    };
    let volumes: Vec<_> = layout.volumes.iter().collect();
    let mut planned = Planned { filesystems: Vec::new(), left_out: Vec::new() };
    for filesystem in &layout.filesystems {
        match plan::planned_filesystem(filesystem, &volumes, &asked, &mut Vec::new()) {
            Ok(filesystem) => planned.filesystems.push(filesystem),
            Err(refusal) => planned.left_out.push((filesystem.mount_point.clone(), refusal.what)),
        }
    }
    planned
}

/// How much memory may be taken, in bytes: what was asked for, or half of what this host has and the control groups of this
/// process leave.
///
/// # Errors
/// Why that is not enough, or more than there is; and the way out.
pub fn limit(root: &Path, asked: Option<u64>) -> Result<u64, Refusal> {
    let unknown = |what: &str, e: std::io::Error| Refusal {
        what: format!("{what} cannot be told: {e}"),
        hint: "another --level needs no memory for an overlay".to_owned(),
    };
    let there = memory::available(root).map_err(|e| unknown("this host's memory", e))?;
    let room = cgroup::room(root).map_err(|e| unknown("what the control groups leave of memory", e))?;
    let (there, who, hint) = match room.filter(|room| room.bytes < there) {
        None => (there, "this host has".to_owned(), SMALLER.to_owned()),
        Some(Room { bytes, group, file }) => (
            bytes,
            format!("the control group {} leaves, by its {file},", shown(&group)),
            format!("{SMALLER}; or raise that limit (of a unit: MemoryMax=, MemoryHigh=)"),
        ),
    };
    let no = |what: String| Err(Refusal { what: format!("not enough memory for the overlay: {what}"), hint });
    let most = asked.unwrap_or(there / 2);
    if most > there {
        return no(format!("{} were asked for, and {who} {}", size(most), size(there)));
    }
    if asked.is_none() && most < LEAST {
        return no(format!("{who} {}, and half of that is less than {}", size(there), size(LEAST)));
    }
    Ok(most)
}

/// A set that is judged here.
pub struct Mounting<'a, D> {
    /// EC2.
    pub direct: &'a Repeating<'a, D>,
    /// It.
    pub set: &'a SnapshotSet,
    /// What its tags describe.
    pub layout: &'a Layout,
    /// What was decided.
    pub planned: &'a Planned,
    /// What else looks at it.
    pub checks: &'a [Check],
    /// The folder for what lasts until a reboot.
    pub run_dir: &'a Path,
    /// Memory for what is read and written, in bytes.
    pub limit: u64,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Told each step, in one line.
    pub tell: &'a dyn Fn(&str),
}

impl<D: Direct> Mounting<'_, D> {
    /// Judges every filesystem of the layout: by its bytes, then those that can be mounted by doing it. Then the checks
    /// look, where no filesystem has a fault. Also: what is left, in words.
    ///
    /// # Errors
    /// A signal, or EC2 does not give the data.
    pub async fn look(&self, interrupt: &mut Interrupt) -> Result<(Report, Option<String>), Stopped> {
        let fetcher = Fetcher::open(self.direct, self.set, self.limit).await?;
        let mut probing: Vec<_> =
            (0..fetcher.volumes()).map(|volume| Some(Probing { fetcher: &fetcher, volume })).collect();
        let sizes: Vec<u64> = (0..fetcher.volumes()).map(|n| fetcher.shared().store().size(n)).collect();
        let by_bytes = probe::judged(&mut probing, &sizes, &self.set.members, self.layout);
        let judged = tokio::select! {
            biased;
            signal = interrupt.caught() => return Err(Stopped::Signal(signal)),
            judged = by_bytes => judged?,
        };
        let mut report = Report { findings: judged.findings, blocks_read: 0 };
        let mut left = None;
        if report.verdict() != Verdict::Fault {
            let left_out =
                |f: &Finding| self.planned.left_out.iter().any(|(p, _)| Some(p) == f.mount_point.as_ref());
            report.findings.retain(|f| !left_out(f));
            let looked = self.by_mounts(&fetcher, &judged.pieces, &mut report.findings, interrupt).await;
            left = looked?;
            report.findings.extend(restored::not_put_together(self.layout, &self.planned.left_out));
        } else {
            report.findings.extend(restored::not_run(self.checks, "a filesystem has a fault"));
        }
        report.blocks_read = fetcher.fetched();
        Ok((report, left))
    }

    /// Serves the files while they are looked at.
    async fn by_mounts(
        &self,
        fetcher: &Fetcher<'_, D>,
        pieces: &[Option<Piece>],
        findings: &mut Vec<Finding>,
        interrupt: &mut Interrupt,
    ) -> Result<Option<String>, Stopped> {
        if self.planned.filesystems.is_empty() {
            findings.extend(restored::not_run(self.checks, "no filesystem is put together here"));
            return Ok(None);
        }
        let shared = fetcher.shared();
        let run = format!("{NAME}{}-", RunId::generate());
        let names: Vec<String> =
            self.set.members.iter().map(|m| format!("{}{}", run.trim_start_matches('/'), m.id)).collect();
        let sizes = (0..fetcher.volumes()).map(|n| shared.store().size(n));
        let files: Vec<(String, u64)> = names.iter().cloned().zip(sizes).collect();
        let (asks, asked) = mpsc::unbounded_channel();
        let mount = serve::files(&files, shared, asks.clone()).map_err(Stopped::Here)?;
        let work = async {
            let mut apart = Apart::start(mount).map_err(Stopped::Here)?;
            let here = Here { mounting: self, fetcher, pieces, names: &names };
            let looked = here.look(&mut apart, findings, interrupt).await;
            if looked.is_err() {
                // Nobody waits for what is read now.
                shared.end();
            }
            apart.end().await;
            let left = noted::end(Path::new("/"), self.run_dir, &run, self.clock).await.err();
            let looked = match (looked, interrupt.pending(), shared.take_trouble().ec2) {
                // What was said then counts less than why nobody could read.
                (_, None, Some(e)) => Err(Stopped::Ec2(e)),
                (Err(_), Some(signal), _) => Err(Stopped::Signal(signal)),
                (looked, ..) => looked,
            };
            if looked.is_err() {
                left.iter().for_each(|left| (self.tell)(left));
            }
            looked.map(|()| left)
        };
        let done = tokio::select! {
            done = work => done,
            () = serve::serve(fetcher, asked) => Err(Stopped::Here("the files are no longer served".to_owned())),
        };
        drop(asks);
        done
    }
}

/// What is looked at, on files that are served.
struct Here<'h, 'a, D> {
    mounting: &'h Mounting<'a, D>,
    fetcher: &'h Fetcher<'a, D>,
    /// Where each filesystem of the layout lies.
    pieces: &'h [Option<Piece>],
    /// The names of the files, one for each member.
    names: &'h [String],
}

impl<D: Direct> Here<'_, '_, D> {
    async fn look(
        &self,
        apart: &mut Apart,
        findings: &mut Vec<Finding>,
        interrupt: &mut Interrupt,
    ) -> Result<(), Stopped> {
        let Mounting { layout, planned, checks, set, run_dir, tell, .. } = self.mounting;
        let mut attached = Vec::new();
        for (filesystem, piece) in layout.filesystems.iter().zip(self.pieces) {
            let Some(plan) = planned.filesystems.iter().find(|p| p.source == filesystem.mount_point) else {
                continue;
            };
            let of = |f: &&mut Finding| f.mount_point.as_ref() == Some(&filesystem.mount_point);
            let Some(finding) = findings.iter_mut().find(of) else { continue };
            if finding.verdict != Verdict::Sound {
                continue;
            }
            let Some(piece) = piece else {
                finding.verdict = Verdict::NotLooked;
                "it was not found as one piece of a volume".clone_into(&mut finding.what);
                continue;
            };
            tell(&format!("{} is checked", shown(&filesystem.mount_point)));
            let promises = probe::promises(filesystem, &set.members);
            let judged = match self.attach(apart, piece, interrupt).await {
                Err(not) => Err(not),
                Ok(device) => {
                    attached.push((plan, device.clone()));
                    let names: Vec<String> = attached.iter().map(|(_, d)| d.name.clone()).collect();
                    // Before it is marked as one that nothing is written to.
                    noted::note(run_dir, &names)
                        .map_err(|e| Stopped::Here(format!("{}: {e}", shown(run_dir))))?;
                    self.judge(apart, plan, device, promises, interrupt).await
                }
            };
            (finding.verdict, finding.what) = match judged {
                Ok(said) => said,
                Err(NoAnswer::Interrupted(signal)) => return Err(Stopped::Signal(signal)),
                Err(NoAnswer::Failed(why)) => (Verdict::NotLooked, why),
            };
            let trouble = self.trouble()?;
            if let Some(instead) = self.because_of(&trouble) {
                (finding.verdict, finding.what) = instead;
            }
            self.damaged(&trouble, findings);
        }
        self.checks(apart, &attached, findings, checks, interrupt).await
    }

    async fn attach(
        &self,
        apart: &mut Apart,
        piece: &Piece,
        interrupt: &mut Interrupt,
    ) -> Result<Attached, NoAnswer> {
        let file = self.names.get(piece.volume).cloned().ok_or_else(other)?;
        let attach = Order::Attach { file, at: piece.at, size: piece.length };
        match apart.ask(&attach, interrupt).await? {
            Answer::Attached(on) => Ok(on),
            _ => Err(other()),
        }
    }

    async fn judge(
        &self,
        apart: &mut Apart,
        plan: &PlannedFilesystem,
        on: Attached,
        promises: bool,
        interrupt: &mut Interrupt,
    ) -> Result<(Verdict, String), NoAnswer> {
        let (fstype, uuid) = (plan.fstype.clone(), plan.uuid.clone());
        match apart.ask(&Order::Judge { on, fstype, uuid, promises }, interrupt).await? {
            Answer::Judged(verdict, what) => Ok((verdict, what)),
            _ => Err(other()),
        }
    }

    async fn checks(
        &self,
        apart: &mut Apart,
        attached: &[(&PlannedFilesystem, Attached)],
        findings: &mut Vec<Finding>,
        checks: &[Check],
        interrupt: &mut Interrupt,
    ) -> Result<(), Stopped> {
        let why = match (findings.iter().any(|f| f.verdict == Verdict::Fault), attached.is_empty()) {
            (true, _) => Some("a filesystem has a fault"),
            (_, true) => Some("no filesystem is put together here"),
            _ => None,
        };
        if let Some(why) = why {
            findings.extend(restored::not_run(checks, why));
            return Ok(());
        }
        if checks.iter().any(|c| c.writable || c.database.is_some()) {
            for (plan, on) in attached {
                let replay = Order::Replay { on: on.clone(), fstype: plan.fstype.clone() };
                match apart.ask(&replay, interrupt).await {
                    Ok(_) => {}
                    Err(NoAnswer::Interrupted(signal)) => return Err(Stopped::Signal(signal)),
                    Err(NoAnswer::Failed(why)) => {
                        let trouble = self.trouble()?;
                        let why = self.because_of(&trouble).map_or(why, |(_, because)| because);
                        findings.extend(restored::not_run(checks, &why));
                        self.damaged(&trouble, findings);
                        return Ok(());
                    }
                }
            }
        }
        let Mounting { set, planned, tell, .. } = self.mounting;
        let there: Vec<&Path> = attached.iter().map(|(plan, _)| plan.source.as_path()).collect();
        let others = planned.filesystems.iter().map(|p| p.source.as_path()).filter(|p| !there.contains(p));
        let missing: Vec<&Path> = planned.left_out.iter().map(|(p, _)| p.as_path()).chain(others).collect();
        for check in checks {
            let filesystems = attached.iter().map(|(plan, on)| (*plan, on.dev, Vec::new())).collect();
            let looking = Looking { set, filesystems, missing: missing.clone() };
            let said = looking.run(std::slice::from_ref(check), tell, interrupt).await;
            let mut said = said.map_err(Stopped::Signal)?;
            let trouble = self.trouble()?;
            for finding in &mut said {
                if let Some(instead) = self.because_of(&trouble) {
                    (finding.verdict, finding.what) = instead;
                }
            }
            findings.extend(said);
            self.damaged(&trouble, findings);
        }
        Ok(())
    }

    /// What has gone wrong since the last time.
    ///
    /// # Errors
    /// EC2 has not given a block: nothing is known then.
    fn trouble(&self) -> Result<Trouble, Stopped> {
        let trouble = self.fetcher.shared().take_trouble();
        trouble.ec2.clone().map_or(Ok(trouble), |e| Err(Stopped::Ec2(e)))
    }

    /// What is to be said of what was looked at meanwhile, whatever it looked like.
    fn because_of(&self, trouble: &Trouble) -> Option<(Verdict, String)> {
        if !trouble.damaged.is_empty() {
            let what = "a block that was read is not what its checksum says";
            return Some((Verdict::NotLooked, what.to_owned()));
        }
        trouble.full.then(|| {
            let limit = size(self.mounting.limit);
            let what = format!("what is written to it takes more than {limit} of memory (--overlay-limit)");
            (Verdict::NotLooked, what)
        })
    }

    fn damaged(&self, trouble: &Trouble, findings: &mut Vec<Finding>) {
        for (volume, at) in &trouble.damaged {
            let Some(member) = self.mounting.set.members.get(*volume) else { continue };
            let what = format!("the block at byte {at} is not what its checksum says");
            findings.push(Finding { offset: Some(*at), ..Finding::of_member(member, Verdict::Fault, what) });
        }
    }
}

fn other() -> NoAnswer {
    NoAnswer::Failed("it was answered something else".to_owned())
}
