//! The probe: superblocks and journals of every filesystem, read from the snapshots.
//!
//! In: a set, its layout, the EBS direct APIs. Out: findings. Must never: call a filesystem sound that was not found.

use super::partitions::{ReadError, Source, starts};
use super::reader::Reader;
use super::{Finding, Report, Seen, State, Verdict, btrfs, ext4, xfs};
use crate::consistency::{Consistency, Method};
use crate::ec2::Ec2Error;
use crate::ec2::direct::Direct;
use crate::ec2::repeat::Repeating;
use crate::ids::VolumeId;
use crate::path_encoding::printable;
use crate::sets::layout::Layout;
use crate::sets::lines::SetFilesystem;
use crate::sets::set::{Member, SnapshotSet};

/// What begins somewhere on a volume.
#[derive(Debug)]
enum Kind {
    Filesystem {
        fstype: &'static str,
        seen: Seen,
        generation: Option<(u64, u64)>,
    },
    /// A layer below filesystems: what is in it is not read here.
    Layer(&'static str),
}

struct Volume<'a> {
    member: &'a Member,
    found: Vec<Kind>,
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
    let mut volumes = Vec::new();
    for member in &set.members {
        let looked = async {
            let mut reader = Reader::open(direct, &member.id).await?;
            let found = look(&mut reader).await;
            Ok((found, reader.blocks_read))
        };
        let (found, read): (Result<Vec<Kind>, ReadError>, u64) = match looked.await {
            Ok(looked) => looked,
            Err(e) => (Err(e), 0),
        };
        report.blocks_read += read;
        match found {
            Ok(found) => volumes.push(Volume { member, found }),
            Err(ReadError::Ec2(e)) => return Err(e),
            Err(e) => report.findings.push(Finding {
                offset: e.offset(),
                ..Finding::of_member(member, Verdict::Fault, e.to_string())
            }),
        }
    }
    report.findings.extend(layout.filesystems.iter().map(|filesystem| judge(filesystem, &volumes)));
    Ok(report)
}

/// What begins on this volume, and in its partitions.
async fn look<D: Direct>(reader: &mut Reader<'_, D>) -> Result<Vec<Kind>, ReadError> {
    let mut found = Vec::new();
    let size = reader.size;
    for at in starts(reader, size).await? {
        found.extend(kind(reader, at).await?);
    }
    Ok(found)
}

async fn kind<S: Source>(source: &mut S, at: u64) -> Result<Option<Kind>, ReadError> {
    // A partition may be smaller than what is looked for.
    let part = async |source: &mut S, (from, length): (u64, usize)| match source.read(at + from, length).await
    {
        Err(ReadError::Beyond) => Ok(Vec::new()),
        read => read,
    };
    let filesystem = |fstype, seen| Kind::Filesystem { fstype, seen, generation: None };
    if let Some(seen) = ext4::read(&part(source, ext4::AT).await?) {
        return Ok(Some(filesystem("ext4", seen)));
    }
    let first = part(source, (0, 4100)).await?;
    if first.starts_with(b"XFSB") {
        return Ok(xfs::read(source, at).await?.map(|seen| filesystem("xfs", seen)));
    }
    if let Some((seen, generation, devices)) = btrfs::read(&part(source, btrfs::AT).await?) {
        return Ok(Some(Kind::Filesystem { fstype: "btrfs", seen, generation: Some((generation, devices)) }));
    }
    let begins = |at: usize, magic: &[u8]| first.get(at..at + magic.len()) == Some(magic);
    Ok(if begins(0, b"LUKS\xba\xbe") {
        Some(Kind::Layer("LUKS"))
    } else if (0..4).any(|sector| begins(sector * 512, b"LABELONE")) {
        Some(Kind::Layer("LVM"))
    } else if begins(4096, &0xa92b_4efc_u32.to_le_bytes()) || begins(0, &0xa92b_4efc_u32.to_le_bytes()) {
        Some(Kind::Layer("md"))
    } else {
        None
    })
}

fn judge(filesystem: &SetFilesystem, volumes: &[Volume<'_>]) -> Finding {
    let on: Vec<&Volume<'_>> =
        volumes.iter().filter(|v| filesystem.volumes.contains(&v.member.volume_id)).collect();
    let (verdict, what) = verdict(filesystem, &on);
    let one: Option<&Volume<'_>> = if let [one] = on[..] { Some(one) } else { None };
    Finding {
        mount_point: Some(filesystem.mount_point.clone()),
        fstype: Some(filesystem.fstype.clone()),
        volume_id: one.map(|v| v.member.volume_id.clone()),
        snapshot_id: one.map(|v| v.member.id.clone()),
        offset: None,
        verdict,
        what,
    }
}

fn verdict(filesystem: &SetFilesystem, on: &[&Volume<'_>]) -> (Verdict, String) {
    let wanted = match filesystem.fstype.as_str() {
        "ext2" | "ext3" | "ext4" => "ext4",
        "xfs" => "xfs",
        "btrfs" => "btrfs",
        other => return (Verdict::NotLooked, format!("{} is not read here", printable(other))),
    };
    let missing: Vec<&VolumeId> =
        filesystem.volumes.iter().filter(|v| on.iter().all(|o| o.member.volume_id != **v)).collect();
    if !missing.is_empty() {
        return (Verdict::NotLooked, format!("{} could not be read", missing[0]));
    }
    let all = on.iter().flat_map(|v| &v.found);
    let mut same = Vec::new();
    for kind in all.clone() {
        if let Kind::Filesystem { fstype, seen, generation } = kind
            && *fstype == wanted
            && filesystem.uuid.as_ref().is_none_or(|uuid| *uuid == seen.uuid)
        {
            same.push((seen, generation));
        }
    }
    let Some((first, generation)) = same.first() else {
        let layer = all.filter_map(|k| if let Kind::Layer(name) = k { Some(*name) } else { None }).next();
        return match (layer, &filesystem.uuid) {
            (Some(layer), _) => (Verdict::NotLooked, format!("it is on {layer}, which is not read here")),
            (None, Some(uuid)) => {
                (Verdict::Fault, format!("there is no {wanted} with the UUID {}", printable(uuid)))
            }
            (None, None) => (Verdict::Fault, format!("there is no {wanted}")),
        };
    };
    if let Some((generation, devices)) = generation {
        if same.len() as u64 != *devices {
            return (Verdict::Fault, format!("it has {devices} devices, and {} are in the set", same.len()));
        }
        if same.iter().any(|(_, other)| other.is_some_and(|(g, _)| g != *generation)) {
            return (
                Verdict::Fault,
                "its devices are of different generations: not one point in time".to_owned(),
            );
        }
    } else if same.len() > 1 {
        return (Verdict::NotLooked, format!("{} filesystems have its UUID", same.len()));
    }
    let worst = same.iter().map(|(seen, _)| &seen.state).max_by_key(|state| match state {
        State::Clean => 0,
        State::Unknown(_) => 1,
        State::Dirty(_) => 2,
        State::Damaged(_) => 3,
    });
    // Only what was frozen or unmounted has nothing to recover; what was flushed was quiet, and is mounted in it.
    let closed = matches!(filesystem.method, Method::Freeze | Method::Unmount);
    let promised = on.iter().all(|v| v.member.achieved.is_some_and(|own| own > Consistency::Crash));
    match worst.unwrap_or(&first.state) {
        State::Clean => (Verdict::Sound, "nothing has to be recovered".to_owned()),
        State::Unknown(why) => (Verdict::NotLooked, why.clone()),
        State::Dirty(why) if promised && closed => (Verdict::Fault, why.clone()),
        State::Dirty(why) => (Verdict::Sound, format!("as its label says: {why}")),
        State::Damaged(why) => (Verdict::Fault, why.clone()),
    }
}
