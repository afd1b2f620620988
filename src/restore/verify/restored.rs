//! A set is restored to volumes that are thrown away, and judged there.
//!
//! ```text
//! plan        what can be mounted here, on which volumes; the rest is named     plan.rs
//! make        volumes, hidden from udev, attached                               carry_out.rs
//! read        superblocks and journals, before anything is written              probe.rs
//! stack       arrays, LUKS, volume groups, several disks of one btrfs           stacked.rs
//! judge       mount, fsck, of each filesystem                                   judge.rs
//! check       what the configuration lets look at them                          checks.rs
//! take down   flushed, taken apart, detached, deleted                           undo.rs
//! ```
//!
//! Nothing is mounted in the host's namespace. Whoever comes after a process that died takes down what it has made: the
//! host has noted each volume, and the tags say until when it may be there.
//!
//! In: a set, its layout, EC2, this host. Out: findings. Must never: touch a volume that it has not made, or be done
//! before all of those are gone or named.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::checks::Looking;
use super::judge::{self, Disk, Subject};
use super::stacked::{self, Found, Putting, Together};
use super::{Finding, Verdict, probe};
use crate::clock::Clock;
use crate::config::settings::Check;
use crate::ec2::TaggedSnapshot;
use crate::ec2::volume_type::Instead;
use crate::ec2::volumes::Volumes;
use crate::host::block::BlockDevice;
use crate::host::{device, kernel};
use crate::ids::{InstanceId, RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::restore::carry_out::{Done, Here};
use crate::restore::make::{Stopped, Waiting};
use crate::restore::plan::{self, Asked, Host, Reach, Refusal, RestorePlan};
use crate::restore::record::{self, Record};
use crate::restore::stack::Keys;
use crate::restore::undo::{look, take_apart, undo};
use crate::restore::{disks, identity, options};
use crate::sets::layout::Layout;
use crate::sets::lines::SetFilesystem;
use crate::sets::set::{Member, SnapshotSet};
use crate::sets::tags::reserved;

pub use super::judge::has_tool;

/// No verify takes as long.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// How long a device may be in use after its last user was killed.
const LET_GO: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// What the volumes are to be.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// Instead of gp3.
    pub volume_type: Option<String>,
    /// See [`crate::ec2::volumes::VolumeRequest::initialization_rate`].
    pub initialization_rate: Option<i32>,
}

/// A set that can be restored here, as far as it can.
#[derive(Debug)]
pub struct Planned {
    /// What is made; none where no filesystem can be looked at.
    pub plan: Option<RestorePlan>,
    /// Filesystems that are not looked at, and why.
    pub left_out: LeftOut,
}

/// Filesystems that are not looked at, and why.
pub type LeftOut = Vec<(PathBuf, String)>;

/// Decides.
///
/// # Errors
/// Why nothing can be made of it.
pub fn planned(
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
    host: &Host,
    volume: &Volume,
    keys: &Keys,
) -> Result<Planned, Refusal> {
    let kind = volume.volume_type.as_deref().unwrap_or("gp3");
    let asked = Asked {
        reach: Reach::Mounted,
        to: PathBuf::from(super::contained::SET),
        mounts: Vec::new(),
        // What is put together gets names of its own, also where nothing else is written to it.
        read_only: false,
        zone: None,
        instead: Instead { kind: Some(kind.to_owned()), ..Instead::default() },
        key: None,
        initialization_rate: volume.initialization_rate,
        until: Some(until()),
    };
    let volumes: Vec<_> = layout.volumes.iter().collect();
    let (mut mounts, mut left_out) = (Vec::new(), Vec::new());
    let id = RunId::generate();
    for filesystem in &layout.filesystems {
        let place = filesystem.mount_point.clone();
        let can = match stacked::left_out(filesystem, layout, &volumes, &id, keys) {
            None => plan::can_be_mounted(filesystem, &volumes, &asked),
            Some(why) => Err(why),
        };
        match can {
            Ok(()) => mounts.push(place),
            Err(why) => left_out.push((place, why)),
        }
    }
    if mounts.is_empty() {
        return Ok(Planned { plan: None, left_out });
    }
    let mut plan = plan::plan(set, layout, snapshots, Some(host), &Asked { mounts, ..asked })?;
    // Nothing is mounted where the host could see it, or so that it writes.
    plan.reach = Reach::Attached;
    for filesystem in &mut plan.filesystems {
        let of = layout.filesystems.iter().find(|f| f.mount_point == filesystem.source);
        let recorded = of.map_or("", |f| f.options.as_str());
        filesystem.options = options::of(&filesystem.fstype, recorded, true);
    }
    for made in &mut plan.volumes {
        // What the original had is paid for by the second, and no fsck needs it.
        if volume.volume_type.is_none() {
            (made.iops, made.throughput) = (None, None);
        }
        // By the original's own tags, somebody's policy would take it for the original, and back it up.
        made.tags.retain(|(key, _)| reserved(key).is_some());
    }
    Ok(Planned { plan: Some(plan), left_out })
}

/// The findings about what is left out.
pub(super) fn not_put_together(layout: &Layout, left_out: &LeftOut) -> Vec<Finding> {
    let finding = |(place, why): &(PathBuf, String)| {
        let of = layout.filesystems.iter().find(|f| f.mount_point == *place);
        Finding {
            mount_point: Some(place.clone()),
            fstype: of.map(|f| f.fstype.clone()),
            volume_id: None,
            snapshot_id: None,
            check: None,
            offset: None,
            verdict: Verdict::NotLooked,
            what: format!("it is not put together here: {why}"),
        }
    };
    left_out.iter().map(finding).collect()
}

/// The findings about checks that are not run.
pub(super) fn not_run(checks: &[Check], why: &str) -> Vec<Finding> {
    let not = |c: &Check| Finding::of_check(&c.name, Verdict::NotLooked, format!("it was not run: {why}"));
    checks.iter().map(not).collect()
}

/// Later, whoever made it is not there any more.
fn until() -> Timestamp {
    let until = Timestamp::now().checked_add(LONGEST).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(until.as_second()).unwrap_or(until)
}

/// A record of it, as of one that is taken down by whoever finds it.
#[must_use]
pub fn record(plan: RestorePlan) -> Record {
    let mut record = Record::of(plan);
    record.verify = true;
    record
}

/// A set that is judged here.
pub struct Judging<'a> {
    /// It.
    pub set: &'a SnapshotSet,
    /// What its tags describe.
    pub layout: &'a Layout,
    /// What was decided.
    pub planned: &'a Planned,
    /// What else looks at it.
    pub checks: &'a [Check],
    /// What opens LUKS.
    pub keys: &'a Keys,
    /// This host.
    pub on: Here<'a>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Told each step, in one line.
    pub tell: &'a dyn Fn(&str),
}

impl Judging<'_> {
    /// Judges every filesystem of the layout: those of the plan on the disks that were made, the others by what keeps
    /// them from being looked at. Then the checks look, where no filesystem has a fault.
    ///
    /// # Errors
    /// A signal, or what keeps all of it from being looked at.
    pub async fn judge(
        &self,
        made: Option<(&Done, &mut Record)>,
        interrupt: &mut Interrupt,
    ) -> Result<Vec<Finding>, Stopped> {
        let Self { layout, planned, .. } = self;
        let (mut findings, made) = match made {
            Some((made, record)) => {
                let (findings, together) = self.filesystems(made, record, interrupt).await?;
                (findings, Some((made, together)))
            }
            None => (Vec::new(), None),
        };
        findings.extend(not_put_together(layout, &planned.left_out));
        let faulty = findings.iter().any(|f| f.verdict == Verdict::Fault);
        match (made, &planned.plan) {
            (Some((made, together)), Some(plan)) if !faulty => {
                findings.extend(self.look_by_checks(plan, made, &together, interrupt).await?);
            }
            _ => {
                let why =
                    if faulty { "a filesystem has a fault" } else { "no filesystem is put together here" };
                findings.extend(not_run(self.checks, why));
            }
        }
        Ok(findings)
    }

    async fn filesystems(
        &self,
        made: &Done,
        record: &mut Record,
        interrupt: &mut Interrupt,
    ) -> Result<(Vec<Finding>, Together), Stopped> {
        let left_out = |place: &PathBuf| self.planned.left_out.iter().any(|(p, _)| p == place);
        let all = self.layout.filesystems.iter().filter(|f| !left_out(&f.mount_point));
        let here = Layout { filesystems: all.cloned().collect(), ..self.layout.clone() };
        let mut findings = self.by_their_bytes(&here, made).await.map_err(Stopped::Here)?;
        let plan = record.plan.clone();
        let planned = |finding: &Finding| {
            let of = |f: &&SetFilesystem| Some(&f.mount_point) == finding.mount_point.as_ref();
            let filesystem = here.filesystems.iter().find(of)?;
            let number = plan.filesystems.iter().position(|f| f.source == filesystem.mount_point)?;
            Some((filesystem, number))
        };
        // The disks alone do not say all of a stack: what is in LUKS is to be read once that is open.
        let is_unread = |finding: &Finding, number: usize| {
            finding.verdict == Verdict::NotLooked && plan.stack.tops.contains_key(&number)
        };
        let unread = findings.iter().filter_map(|finding| {
            let (filesystem, number) = planned(finding)?;
            is_unread(finding, number).then_some((number, filesystem))
        });
        let Self { on, clock, tell, keys, .. } = *self;
        let putting = Putting { on, clock, tell, keys, members: &self.set.members, unread: unread.collect() };
        let together = putting.together(record, made).await;
        for finding in &mut findings {
            let Some((filesystem, number)) = planned(finding) else { continue };
            let unread = is_unread(finding, number);
            if finding.verdict != Verdict::Sound && !unread {
                continue;
            }
            (self.tell)(&format!("{} is checked", shown(&filesystem.mount_point)));
            let found = match self.found(&plan, number, made, &together).await {
                Err(why) if plan.stack.tops.contains_key(&number) => {
                    (finding.verdict, finding.what) =
                        (Verdict::NotLooked, format!("it could not be put together here: {why}"));
                    continue;
                }
                found => found.map_err(Stopped::Here)?,
            };
            if unread {
                let none = (Verdict::NotLooked, finding.what.clone());
                (finding.verdict, finding.what) = found.bytes.clone().unwrap_or(none);
                if finding.verdict != Verdict::Sound {
                    continue;
                }
            }
            let promises = probe::promises(filesystem, &self.set.members);
            let (fstype, uuid) = (filesystem.fstype.as_str(), found.uuid.as_deref());
            let subject = Subject { fstype, uuid, device: &found.device, others: &found.others, promises };
            let said = judge::judge(&subject, interrupt).await.map_err(Stopped::Signal)?;
            (finding.verdict, finding.what) = said;
        }
        Ok((findings, together))
    }

    async fn found(
        &self,
        plan: &RestorePlan,
        number: usize,
        made: &Done,
        together: &Together,
    ) -> Result<Found, String> {
        stacked::found(plan, number, made, together, self.on, self.clock).await
    }

    async fn look_by_checks(
        &self,
        plan: &RestorePlan,
        made: &Done,
        together: &Together,
        interrupt: &mut Interrupt,
    ) -> Result<Vec<Finding>, Stopped> {
        let (mut filesystems, mut missing) = (Vec::new(), Vec::new());
        missing.extend(self.planned.left_out.iter().map(|(place, _)| place.as_path()));
        for (number, filesystem) in plan.filesystems.iter().enumerate().filter(|_| !self.checks.is_empty()) {
            let found = match self.found(plan, number, made, together).await {
                Err(_) if plan.stack.tops.contains_key(&number) => {
                    missing.push(&filesystem.source);
                    continue;
                }
                found => found.map_err(Stopped::Here)?,
            };
            let (device, others) = (&found.device, found.other_numbers());
            if self.checks.iter().any(|c| c.writable || c.database.is_some()) {
                // A mark of its former host would keep it from being mounted for writing.
                identity::replay(device, &others, &filesystem.fstype)
                    .await
                    .map_err(|not| Stopped::Here(not.what))?;
            }
            filesystems.push((filesystem, device.dev, others));
        }
        let looking = Looking { set: self.set, filesystems, missing };
        looking.run(self.checks, self.tell, interrupt).await.map_err(Stopped::Signal)
    }

    /// What superblocks and journals on the disks say: the probe, by EC2's volumes instead of EC2's blocks.
    async fn by_their_bytes(&self, layout: &Layout, made: &Done) -> Result<Vec<Finding>, String> {
        let (mut readers, mut sizes) = (Vec::new(), Vec::new());
        for member in &self.set.members {
            let volume = made.volumes.iter().find(|v| v.source == member.volume_id);
            let disk = match volume {
                None => None,
                Some(volume) => {
                    Some(Disk::open(&disks::await_disk(self.on.root, &volume.id, self.clock).await?)?)
                }
            };
            sizes.push(disk.as_ref().map_or(0, |d| d.size));
            readers.push(disk);
        }
        let members: &[Member] = &self.set.members;
        let judged = probe::judged(&mut readers, &sizes, members, layout).await;
        let mut findings = judged.map_err(|e| e.to_string())?.findings;
        for finding in &mut findings {
            if let Some(at) = finding.offset {
                finding.what = format!("its disk cannot be read at byte {at}");
            }
        }
        Ok(findings)
    }
}

/// Takes down what a verify has made, of this process or of one that died.
///
/// # Errors
/// What stands in the way. What is left is found again by the record.
pub async fn take_down<E: Volumes>(
    id: &RunId,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
    instance: Option<&InstanceId>,
) -> Result<(), Stopped> {
    let remains = look(waiting.ec2, waiting.clock, on, id).await?;
    let volumes: Vec<VolumeId> = remains.volumes.iter().map(|v| v.id.clone()).collect();
    for one in stacked::lying_on(on, &volumes).map_err(Stopped::Here)? {
        let_go_of(&one, &one.name, waiting.clock).await.map_err(Stopped::Here)?;
    }
    // A disk that something lies on cannot be claimed.
    take_apart(&remains, waiting.clock, waiting.tell, on).await?;
    for volume in &volumes {
        let_go(volume, on, waiting.clock).await.map_err(Stopped::Here)?;
    }
    undo(&remains, waiting, on, instance).await?;
    match remains.doubtful.first() {
        None => Ok(()),
        Some((volume, why)) => Err(Stopped::Here(format!("{} stays: {why}", volume.id))),
    }
}

/// Waits until nobody has the disk of this volume any more, and forgets what the page cache has of it: EC2 cannot
/// detach one that is in use.
async fn let_go(volume: &VolumeId, on: Here<'_>, clock: &dyn Clock) -> Result<(), String> {
    // The partitions first: a disk of which one is in use cannot be claimed, either.
    for one in disks::of(on.root, volume)?.iter().rev() {
        let_go_of(one, &format!("{} of {volume}", one.name), clock).await?;
    }
    Ok(())
}

async fn let_go_of(one: &BlockDevice, named: &str, clock: &dyn Clock) -> Result<(), String> {
    let end = clock.elapsed() + LET_GO;
    loop {
        match device::claim(one.dev) {
            Ok(claimed) => {
                let _ = kernel::flush_buffers(claimed.as_fd());
                // It may have been killed before it took that away; a disk that is not of NVMe keeps it.
                let _ = kernel::set_read_only(claimed.as_fd(), false);
                return Ok(());
            }
            Err(_) if clock.elapsed() < end => clock.pause(PAUSE).await,
            Err(e) => return Err(format!("{named} is still in use: {}", e.desc())),
        }
    }
}

/// What verifies of this host have left that died. Whoever asks makes sure that none runs.
///
/// # Errors
/// When the records cannot be read.
pub fn left(on: Here<'_>) -> std::io::Result<Vec<RunId>> {
    let all = record::all(on.state_dir)?;
    let of_a_verify = |id: &RunId| match record::read(on.state_dir, id) {
        Ok(record) => Ok(record.is_some_and(|r| r.verify)),
        Err(e) => Err(std::io::Error::new(e.kind(), format!("the record of {id}: {e}"))),
    };
    let mut left = Vec::new();
    for id in all {
        if of_a_verify(&id)? {
            left.push(id);
        }
    }
    Ok(left)
}
