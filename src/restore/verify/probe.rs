//! The probe: superblocks and journals of every filesystem, read from the snapshots.
//!
//! In: a set, its layout, the EBS direct APIs. Out: findings. Must never: call a filesystem sound that was not found.

use std::cell::Cell;
use std::rc::Rc;

use super::device::Piece;
use super::layers::{Here, Kind, look};
use super::partitions::{ReadError, Source};
use super::reader::Reader;
use super::{Finding, Report, Seen, State, Verdict};
use crate::consistency::{Consistency, Method};
use crate::ec2::Ec2Error;
use crate::ec2::direct::Direct;
use crate::ec2::repeat::Repeating;
use crate::ids::VolumeId;
use crate::path_encoding::printable;
use crate::sets::layout::Layout;
use crate::sets::lines::SetFilesystem;
use crate::sets::set::{Member, SnapshotSet};

/// What was found on all volumes of a set, for one filesystem after the other.
struct Probed<'a> {
    members: &'a [Member],
    here: Vec<Here>,
    /// Volumes of which a block is damaged.
    damaged: Vec<usize>,
}

/// Reads what is needed of each snapshot, and judges every filesystem of the layout.
///
/// # Errors
/// When EC2 does not give the data.
pub async fn probe<D: Direct>(
    direct: &Repeating<'_, D>,
    set: &SnapshotSet,
    layout: &Layout,
) -> Result<Report, Ec2Error> {
    let mut report = Report::default();
    let (mut readers, mut sizes) = (Vec::new(), Vec::new());
    let counter = Rc::new(Cell::new(0));
    for member in &set.members {
        match Reader::open(direct, &member.id, Rc::clone(&counter)).await {
            Ok(reader) => {
                sizes.push(reader.size);
                readers.push(Some(reader));
            }
            Err(ReadError::Ec2(e)) => return Err(e),
            // Only EC2 keeps it from being opened.
            Err(e) => return Err(Ec2Error::unknown("ListSnapshotBlocks", e.to_string())),
        }
    }
    report.findings = judged(&mut readers, &sizes, &set.members, layout).await?.findings;
    report.blocks_read = counter.get();
    Ok(report)
}

/// What was judged.
pub(super) struct Judged {
    /// Of blocks that are damaged, then one for each filesystem of the layout.
    pub findings: Vec<Finding>,
    /// Where each filesystem of the layout lies; none where it was not found as one piece of one volume.
    pub pieces: Vec<Option<Piece>>,
}

/// Judges every filesystem of the layout by the bytes of these volumes, which the members are of, one each.
///
/// # Errors
/// When EC2 does not give the data.
pub(super) async fn judged<S: Source>(
    readers: &mut [Option<S>],
    sizes: &[u64],
    members: &[Member],
    layout: &Layout,
) -> Result<Judged, Ec2Error> {
    let found = look(readers, sizes).await?;
    let mut findings = Vec::new();
    for (volume, at) in &found.damaged {
        let Some(member) = members.get(*volume) else { continue };
        let what = ReadError::DamagedOn(*volume, *at).to_string();
        findings.push(Finding { offset: Some(*at), ..Finding::of_member(member, Verdict::Fault, what) });
    }
    let damaged = found.damaged.into_iter().map(|(volume, _)| volume).collect();
    let probed = Probed { members, here: found.here, damaged };
    findings.extend(layout.filesystems.iter().map(|filesystem| probed.judge(filesystem)));
    let pieces = layout.filesystems.iter().map(|filesystem| probed.piece(filesystem)).collect();
    Ok(Judged { findings, pieces })
}

/// Judges one filesystem by the bytes of the devices that were put together for it, one each.
///
/// # Errors
/// When they cannot be read.
pub(super) async fn on_devices<S: Source>(
    readers: &mut [Option<S>],
    sizes: &[u64],
    members: &[Member],
    filesystem: &SetFilesystem,
) -> Result<(Verdict, String), Ec2Error> {
    let mut found = look(readers, sizes).await?;
    if let Some((_, at)) = found.damaged.first() {
        return Ok((Verdict::Fault, format!("its device cannot be read at byte {at}")));
    }
    let mut probed = Probed { members, here: Vec::new(), damaged: Vec::new() };
    let on = probed.on(filesystem);
    // Whatever is there is on all that it was put together of.
    found.here.iter_mut().for_each(|here| here.on = on.iter().copied().collect());
    probed.here = found.here;
    Ok(probed.verdict(filesystem, &on))
}

/// Does the label of what it is on say that it has nothing to recover? Only what was frozen or unmounted has nothing;
/// what was flushed was quiet, and is mounted in it.
pub(super) fn promises(filesystem: &SetFilesystem, members: &[Member]) -> bool {
    let closed = matches!(filesystem.method, Method::Freeze | Method::Unmount);
    let mut on = members.iter().filter(|m| filesystem.volumes.contains(&m.volume_id));
    closed && on.all(|m| m.achieved.is_some_and(|own| own > Consistency::Crash))
}

/// One that may be the filesystem that is looked for.
struct Same<'a> {
    seen: &'a Seen,
    /// Of btrfs: its generation, and how many devices it has.
    generation: Option<(u64, u64)>,
}

/// The name that a type has here; none where it is not read.
fn read_as(fstype: &str) -> Option<&'static str> {
    Some(match fstype {
        "ext2" | "ext3" | "ext4" => "ext4",
        "xfs" => "xfs",
        "btrfs" => "btrfs",
        "vfat" | "msdos" => "vfat",
        _ => return None,
    })
}

impl Probed<'_> {
    /// The numbers of the members that it is on.
    fn on(&self, filesystem: &SetFilesystem) -> Vec<usize> {
        (0..self.members.len()).filter(|n| filesystem.volumes.contains(&self.members[*n].volume_id)).collect()
    }

    /// All that is of this type, as it is `wanted`, and has its UUID, on the members that it is on.
    fn same(&self, filesystem: &SetFilesystem, wanted: &str, on: &[usize]) -> Vec<(&Here, Same<'_>)> {
        let here = self.here.iter().filter(|here| on.iter().any(|n| here.on.contains(n)));
        let same = here.filter_map(|here| match &here.kind {
            Kind::Filesystem { fstype, seen, generation }
                if *fstype == wanted && filesystem.uuid.as_ref().is_none_or(|uuid| *uuid == seen.uuid) =>
            {
                Some((here, Same { seen, generation: *generation }))
            }
            _ => None,
        });
        same.collect()
    }

    fn piece(&self, filesystem: &SetFilesystem) -> Option<Piece> {
        let same = self.same(filesystem, read_as(&filesystem.fstype)?, &self.on(filesystem));
        if let [(here, _)] = same[..] { here.piece } else { None }
    }

    fn judge(&self, filesystem: &SetFilesystem) -> Finding {
        let on = self.on(filesystem);
        let (verdict, what) = self.verdict(filesystem, &on);
        let one = if let [one] = on[..] { self.members.get(one) } else { None };
        Finding {
            mount_point: Some(filesystem.mount_point.clone()),
            fstype: Some(filesystem.fstype.clone()),
            volume_id: one.map(|m| m.volume_id.clone()),
            snapshot_id: one.map(|m| m.id.clone()),
            check: None,
            offset: None,
            verdict,
            what,
        }
    }

    fn verdict(&self, filesystem: &SetFilesystem, on: &[usize]) -> (Verdict, String) {
        let Some(wanted) = read_as(&filesystem.fstype) else {
            return (Verdict::NotLooked, format!("{} is not read here", printable(&filesystem.fstype)));
        };
        let has = |v: &VolumeId| on.iter().any(|n| self.members[*n].volume_id == *v);
        if let Some(missing) = filesystem.volumes.iter().find(|v| !has(v)) {
            return (Verdict::NotLooked, format!("{missing} could not be read"));
        }
        let same = self.same(filesystem, wanted, on);
        let Some((_, first)) = same.first() else { return self.absent(filesystem, wanted, on) };
        if let Some((generation, devices)) = first.generation {
            if same.len() as u64 != devices {
                let what = format!("it has {devices} devices, and {} are in the set", same.len());
                return (Verdict::Fault, what);
            }
            if same.iter().any(|(_, other)| other.generation.is_some_and(|(g, _)| g != generation)) {
                let what = "its devices are of different generations: not one point in time";
                return (Verdict::Fault, what.to_owned());
            }
        } else if same.len() > 1 {
            return (Verdict::NotLooked, format!("{} filesystems have its UUID", same.len()));
        }
        let worst = same.iter().map(|(_, same)| &same.seen.state).max_by_key(|state| state.weight());
        let promised = promises(filesystem, self.members);
        match worst.unwrap_or(&first.seen.state) {
            State::Clean => (Verdict::Sound, "nothing has to be recovered".to_owned()),
            State::Sound(why) => (Verdict::Sound, why.clone()),
            State::Unknown(why) => (Verdict::NotLooked, why.clone()),
            State::Dirty(why) if promised => (Verdict::Fault, why.clone()),
            State::Dirty(why) => (Verdict::Sound, format!("as its label says: {why}")),
            State::Damaged(why) => (Verdict::Fault, why.clone()),
        }
    }

    /// Of a filesystem that was not found.
    fn absent(&self, filesystem: &SetFilesystem, wanted: &str, on: &[usize]) -> (Verdict, String) {
        if let Some(n) = on.iter().find(|n| self.damaged.contains(n)) {
            return (Verdict::NotLooked, format!("{} could not be read", self.members[*n].volume_id));
        }
        let here = || self.here.iter().filter(|here| on.iter().any(|n| here.on.contains(n)));
        let damaged = here().find_map(|h| if let Kind::Damaged(what) = &h.kind { Some(what) } else { None });
        if let Some(what) = damaged {
            return (Verdict::Fault, what.clone());
        }
        let unread = here().find_map(|h| if let Kind::Unread(what) = &h.kind { Some(what) } else { None });
        match (unread, &filesystem.uuid) {
            (Some(what), _) => (Verdict::NotLooked, what.clone()),
            (None, Some(uuid)) => {
                (Verdict::Fault, format!("there is no {wanted} with the UUID {}", printable(uuid)))
            }
            (None, None) => (Verdict::Fault, format!("there is no {wanted}")),
        }
    }
}
