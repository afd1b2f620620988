//! A volume group gets another name and other UUIDs, then its logical volumes are activated.
//!
//! LVM has a folder of configuration of its own for that (`LVM_SYSTEM_DIR`), whose filter lets it read the disks of this
//! restore and no others, whatever the host's configuration, its devices file or lvmetad say: it cannot see the original.
//!
//! In: physical volumes. Out: logical volumes. Must never: rename a group of which a physical volume is missing, activate
//! what is not linear, striped or in a pool of such that was checked (thin.rs), or run LVM where it could read other disks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::planned::PlannedGroup;
use super::thin::{self, Pool};
use super::tool::Tool;
use super::up::{Piece, Up};
use super::{look, words};
use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::device;
use crate::host::file::{self, Lasts};
use crate::ids::RunId;
use crate::path_encoding::printable;
use crate::quiesce::query;
use crate::restore::verify::part::{self, Group, Part, Pv};

/// Where a logical volume is.
pub(super) fn place(group: &str, volume: &str) -> String {
    format!("lvm:{group}/{volume}")
}

fn folder(state_dir: &Path, id: &RunId) -> PathBuf {
    state_dir.join("restores").join(format!("{id}.lvm"))
}

/// Removes what LVM was configured with for this restore.
///
/// # Errors
/// When it stays.
pub(in crate::restore) fn forget(state_dir: &Path, id: &RunId) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder(state_dir, id)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What LVM goes by: these devices and no others, and nothing that it could leave on this host. Settings that a version
/// does not know are passed over.
fn configuration(nodes: &[String], thin_check: Option<&str>) -> String {
    let accepted: Vec<String> =
        nodes.iter().map(|n| format!("\"a|^{}$|\"", n.replace('.', "\\\\."))).collect();
    let filter = format!("[ {}, \"r|.*|\" ]", accepted.join(", "));
    // By LVM's own options, a pool that has to be checked would lose the mark that says so.
    let check = thin_check.map_or_else(String::new, |program| {
        format!("global {{ thin_check_executable = \"{program}\" thin_check_options = [ \"-q\" ] }}\n")
    });
    format!(
        "# Of a restore by stillpoint: LVM sees its disks and no others.\n\
         config {{ checks = 0 }}\n\
         devices {{\n    dir = \"/dev\"\n    scan = [ \"/dev\" ]\n    obtain_device_list_from_udev = 0\n    \
         external_device_info_source = \"none\"\n    hints = \"none\"\n    use_devicesfile = 0\n    \
         multipath_component_detection = 0\n    filter = {filter}\n    global_filter = {filter}\n}}\n\
         global {{ use_lvmetad = 0 use_lvmlockd = 0 use_lvmpolld = 0 notify_dbus = 0 event_activation = 0 }}\n\
         backup {{ backup = 0 archive = 0 }}\n\
         activation {{ monitoring = 0 udev_sync = 1 udev_rules = 1 }}\n{check}"
    )
}

/// The names by which LVM may know this device.
fn names(of: &BlockDevice) -> Result<(String, Vec<String>), String> {
    let node = device::node(of.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", of.name))?;
    let node =
        node.to_str().filter(|n| is_plain(n)).ok_or_else(|| format!("{} has a strange node", of.name))?;
    let mut all = vec![node.to_owned()];
    if let DeviceKind::Dm { name, .. } = &of.kind
        && words::is_name(name)
    {
        all.push(format!("/dev/mapper/{name}"));
    }
    Ok((node.to_owned(), all))
}

/// Is it a path that says the same in LVM's configuration?
fn is_plain(node: &str) -> bool {
    node.starts_with("/dev/") && has_plain_letters(node)
}

fn has_plain_letters(path: &str) -> bool {
    path.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c))
}

/// What the metadata says, and what of it is needed.
struct Found<'p> {
    pieces: Vec<&'p Piece>,
    metadata: Group,
}

/// The physical volumes of a group; none where none is here.
fn found<'p>(name: &str, here: &str, pvs: &'p [(Piece, Pv)]) -> Result<Option<Found<'p>>, String> {
    let of = |pv: &&(Piece, Pv)| pv.1.group.as_ref().is_some_and(|g| g.name == name || g.name == here);
    let groups: Vec<&Group> = pvs.iter().filter(of).filter_map(|(_, pv)| pv.group.as_ref()).collect();
    let Some(newest) = groups.iter().max_by_key(|g| g.seqno) else { return Ok(None) };
    let interrupted = "was interrupted while it got its new name: --undo, then restore it again";
    if groups.iter().any(|g| g.name != newest.name || g.id != newest.id) {
        return Err(format!("the volume group {name} {interrupted}"));
    }
    let wanted: BTreeSet<&str> = newest.pvs.values().map(|pv| pv.uuid.as_str()).collect();
    let pieces: Vec<&Piece> =
        pvs.iter().filter(|(_, pv)| wanted.contains(pv.uuid.as_str())).map(|(piece, _)| piece).collect();
    if pieces.len() < wanted.len() {
        // A label that is renewed and a text that is not: the same.
        let strangers = pvs.iter().filter(of).any(|(_, pv)| !wanted.contains(pv.uuid.as_str()));
        return Err(if strangers {
            format!("the volume group {name} {interrupted}")
        } else {
            format!(
                "the volume group {name} has {} physical volumes, and {} of them are on what is restored",
                wanted.len(),
                pieces.len()
            )
        });
    }
    if pieces.len() > wanted.len() {
        return Err(format!("two physical volumes of {name} have one UUID"));
    }
    Ok(Some(Found { pieces, metadata: (*newest).clone() }))
}

/// Is this a logical volume that is safe to activate? The pool that it is in, where it is thin.
fn activated<'m>(metadata: &'m Group, group: &str, volume: &str) -> Result<Option<Pool<'m>>, String> {
    let Some(of) = metadata.volumes.iter().find(|v| v.name == volume) else {
        return Err(format!("the volume group {group} has no {volume}"));
    };
    if let Some(pool) = thin::pool(metadata, of)? {
        return Ok(Some(pool));
    }
    match of.segments.iter().find(|s| s.kind != "striped" && s.kind != "linear") {
        Some(other) => {
            Err(format!("{group}/{volume} is LVM {}, which is not put together here", printable(&other.kind)))
        }
        None => Ok(None),
    }
}

/// Does the pool's own superblock let it be activated?
async fn looked_at(metadata: &Group, pool: &Pool<'_>, pvs: &[(Piece, Pv)]) -> Result<(), String> {
    let (uuid, at) = thin::superblock(metadata, pool)?;
    let on = pvs.iter().find(|(_, pv)| pv.uuid == uuid).map(|(piece, _)| &piece.device);
    let on =
        on.ok_or_else(|| format!("the metadata of the thin pool {} is not here", printable(pool.name)))?;
    let bytes = part::bytes(on, at, thin::LENGTH).await?;
    thin::can_be_activated(&bytes).map_err(|why| {
        let (group, pool) = (printable(&metadata.name), printable(pool.name));
        format!("the thin pool {group}/{pool} is not activated: {why}; {}", thin::by_hand(&group, &pool))
    })
}

/// device mapper's name of a logical volume (lvm2's `build_dm_name`).
fn mapped(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// Renames the group where that is not done, activates what is needed of it, and returns that.
pub(super) async fn up(
    up: &mut Up<'_, '_>,
    group: &str,
    planned: &PlannedGroup,
    pvs: &[(Piece, Pv)],
) -> Result<Vec<Piece>, String> {
    let Some(Found { pieces, metadata }) = found(group, &planned.name, pvs)? else { return Ok(Vec::new()) };
    let mut pools = BTreeMap::new();
    for volume in &planned.volumes {
        if let Some(pool) = activated(&metadata, group, volume)? {
            pools.insert(volume, pool);
        }
    }
    for pool in pools.values() {
        // One that is active was looked at before, and its kernel writes to it.
        let active = standing(up, &pieces, &format!("{}-tpool", mapped(&planned.name, pool.name)))?;
        if active.is_none() {
            looked_at(&metadata, pool, pvs).await?;
        }
    }
    let lvm = Lvm::configured(up, &pieces, !pools.is_empty())?;
    if metadata.name != planned.name {
        let uuids = metadata.pvs.values().map(|pv| pv.uuid.clone()).collect();
        up.record.stack.groups.insert(group.to_owned(), uuids);
        up.note()?;
        let arguments =
            ["--basevgname".to_owned(), planned.name.clone()].into_iter().chain(lvm.nodes.clone());
        lvm.run(Tool::new("vgimportclone", arguments)).await?;
        renamed(&pieces, &planned.name, &metadata).await?;
        (up.tell)(&format!("the volume group {} is {} here", printable(group), planned.name));
    }
    let mut made = Vec::new();
    for volume in &planned.volumes {
        let mapped = mapped(&planned.name, volume);
        let device = match standing(up, &pieces, &mapped)? {
            Some(device) => device,
            None => {
                let of = format!("{}/{volume}", planned.name);
                // A snapshot of a thin volume is left out else.
                let arguments = ["--activate", "y", "--ignoreactivationskip", "--yes", &of];
                lvm.run(Tool::new("lvchange", arguments)).await.map_err(|why| match pools.get(volume) {
                    Some(pool) => {
                        format!("{why}; {}", thin::by_hand(&printable(group), &printable(pool.name)))
                    }
                    None => why,
                })?;
                standing(up, &pieces, &mapped)?
                    .ok_or_else(|| format!("{of} was activated, and there is no such device"))?
            }
        };
        (up.tell)(&format!("{}/{volume} is {}", planned.name, device.name));
        made.push(Piece {
            device,
            place: place(group, volume),
            volumes: volumes_of(&metadata, volume, &pieces, pvs),
        });
    }
    Ok(made)
}

/// The volumes that a logical volume is on: where it is thin, those of its pool.
fn volumes_of(metadata: &Group, volume: &str, pieces: &[&Piece], pvs: &[(Piece, Pv)]) -> BTreeSet<usize> {
    let own = metadata.volumes.iter().filter(|v| v.name == volume);
    let of = own.flat_map(|v| match thin::pool(metadata, v) {
        Ok(Some(pool)) => vec![pool.data, pool.metadata],
        _ => vec![v],
    });
    let names = of.flat_map(|v| v.segments.iter().flat_map(|s| s.stripes.iter().map(|(pv, _)| pv.as_str())));
    let uuids: BTreeSet<&str> =
        names.filter_map(|name| metadata.pvs.get(name)).map(|pv| pv.uuid.as_str()).collect();
    let is_of = |(piece, pv): &&(Piece, Pv)| uuids.contains(pv.uuid.as_str()) && pieces.contains(&piece);
    pvs.iter().filter(is_of).flat_map(|(piece, _)| piece.volumes.iter().copied()).collect()
}

/// Has every physical volume the new name and a new UUID?
async fn renamed(pieces: &[&Piece], name: &str, before: &Group) -> Result<(), String> {
    for piece in pieces {
        let Part::Group(pv) = part::of(&piece.device).await? else {
            return Err(format!("{} is no physical volume any more", piece.device.name));
        };
        let old = before.pvs.values().any(|b| b.uuid == pv.uuid);
        if old || pv.group.as_ref().is_some_and(|g| g.name != name || g.id == before.id) {
            return Err(format!("{} still has the identity of its original", piece.device.name));
        }
    }
    Ok(())
}

/// The device with this name, where it lies on these physical volumes and nothing else.
fn standing(up: &Up<'_, '_>, pieces: &[&Piece], mapped: &str) -> Result<Option<BlockDevice>, String> {
    let all = look::all(up.on.root)?;
    let is = |d: &&BlockDevice| matches!(&d.kind, DeviceKind::Dm { name, .. } if name == mapped);
    let Some(device) = all.iter().find(is) else { return Ok(None) };
    if !lies_on(&all, device, pieces, DEEPEST) {
        return Err(format!("{mapped} is there already, and is not of this restore"));
    }
    Ok(Some(device.clone()))
}

/// A thin volume is on its pool, that on its data and metadata, and those on physical volumes.
const DEEPEST: u8 = 4;

/// Does it lie on these physical volumes, and on nothing else? Layers of LVM may be between.
fn lies_on(all: &[BlockDevice], device: &BlockDevice, pieces: &[&Piece], deep: u8) -> bool {
    let of_lvm = matches!(&device.kind, DeviceKind::Dm { uuid, .. } if uuid.starts_with("LVM-"));
    let ours = |below: &String| {
        pieces.iter().any(|p| p.device.name == *below)
            || deep > 0 && all.iter().any(|d| d.name == *below && lies_on(all, d, pieces, deep - 1))
    };
    of_lvm && !device.below.is_empty() && device.below.iter().all(ours)
}

/// LVM, as it sees these physical volumes.
struct Lvm {
    folder: PathBuf,
    nodes: Vec<String>,
}

impl Lvm {
    fn configured(up: &Up<'_, '_>, pieces: &[&Piece], thin: bool) -> Result<Self, String> {
        let (mut nodes, mut accepted) = (Vec::new(), Vec::new());
        for piece in pieces {
            let (node, names) = names(&piece.device)?;
            nodes.push(node);
            accepted.extend(names);
        }
        let check = match thin {
            true => {
                Some(query::program(thin::CHECK.0).map_err(|e| format!("{e}: install {}", thin::CHECK.1))?)
            }
            false => None,
        };
        let check = match check.as_deref().map(|p| p.to_str().filter(|p| has_plain_letters(p))) {
            Some(None) => return Err(format!("{} is at a strange place", thin::CHECK.0)),
            check => check.flatten(),
        };
        let folder = folder(up.on.state_dir, &up.record.plan.id);
        let written = file::make_folder(&folder, 0o700).and_then(|()| {
            let text = configuration(&accepted, check);
            file::replace(&folder.join("lvm.conf"), text.as_bytes(), 0o600, Lasts::OnDisk)
        });
        written.map_err(|e| format!("LVM cannot be configured for this restore: {e}"))?;
        Ok(Self { folder, nodes })
    }

    async fn run(&self, tool: Tool) -> Result<(), String> {
        // LVM warns of descriptors that it has not opened.
        tool.var("LVM_SYSTEM_DIR", &self.folder).var("LVM_SUPPRESS_FD_WARNINGS", "1").run().await
    }
}

#[cfg(test)]
#[path = "lvm_tests.rs"]
mod tests;
