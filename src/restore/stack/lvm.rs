//! A volume group gets another name and other UUIDs, then its logical volumes are activated.
//!
//! LVM has a folder of configuration of its own for that (`LVM_SYSTEM_DIR`), whose filter lets it read the disks of this
//! restore and no others, whatever the host's configuration, its devices file or lvmetad say: it cannot see the original.
//!
//! In: physical volumes. Out: logical volumes. Must never: rename a group of which a physical volume is missing, activate
//! what is not linear or striped, or run LVM where it could read other disks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::planned::PlannedGroup;
use super::tool::Tool;
use super::up::{Piece, Up};
use super::{look, words};
use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::device;
use crate::host::file::{self, Lasts};
use crate::ids::RunId;
use crate::path_encoding::printable;
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
fn configuration(nodes: &[String]) -> String {
    let accepted: Vec<String> =
        nodes.iter().map(|n| format!("\"a|^{}$|\"", n.replace('.', "\\\\."))).collect();
    let filter = format!("[ {}, \"r|.*|\" ]", accepted.join(", "));
    format!(
        "# Of a restore by stillpoint: LVM sees its disks and no others.\n\
         config {{ checks = 0 }}\n\
         devices {{\n    dir = \"/dev\"\n    scan = [ \"/dev\" ]\n    obtain_device_list_from_udev = 0\n    \
         external_device_info_source = \"none\"\n    hints = \"none\"\n    use_devicesfile = 0\n    \
         multipath_component_detection = 0\n    filter = {filter}\n    global_filter = {filter}\n}}\n\
         global {{ use_lvmetad = 0 use_lvmlockd = 0 use_lvmpolld = 0 notify_dbus = 0 event_activation = 0 }}\n\
         backup {{ backup = 0 archive = 0 }}\n\
         activation {{ monitoring = 0 udev_sync = 1 udev_rules = 1 }}\n"
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
    node.starts_with("/dev/") && node.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c))
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

/// Is this a logical volume that is safe to activate?
fn is_plain_volume(metadata: &Group, group: &str, volume: &str) -> Result<(), String> {
    let Some(of) = metadata.volumes.iter().find(|v| v.name == volume) else {
        return Err(format!("the volume group {group} has no {volume}"));
    };
    match of.segments.iter().find(|s| s.kind != "striped" && s.kind != "linear") {
        Some(other) => {
            Err(format!("{group}/{volume} is LVM {}, which is not put together here", printable(&other.kind)))
        }
        None => Ok(()),
    }
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
    for volume in &planned.volumes {
        is_plain_volume(&metadata, group, volume)?;
    }
    let lvm = Lvm::configured(up, &pieces)?;
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
                lvm.run(Tool::new("lvchange", ["--activate", "y", "--yes", &of])).await?;
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

/// The volumes that a logical volume is on.
fn volumes_of(metadata: &Group, volume: &str, pieces: &[&Piece], pvs: &[(Piece, Pv)]) -> BTreeSet<usize> {
    let of = metadata.volumes.iter().filter(|v| v.name == volume);
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
    let ours = |below: &String| pieces.iter().any(|p| p.device.name == *below);
    if device.below.is_empty() || !device.below.iter().all(ours) {
        return Err(format!("{mapped} is there already, and is not of this restore"));
    }
    Ok(Some(device.clone()))
}

/// LVM, as it sees these physical volumes.
struct Lvm {
    folder: PathBuf,
    nodes: Vec<String>,
}

impl Lvm {
    fn configured(up: &Up<'_, '_>, pieces: &[&Piece]) -> Result<Self, String> {
        let (mut nodes, mut accepted) = (Vec::new(), Vec::new());
        for piece in pieces {
            let (node, names) = names(&piece.device)?;
            nodes.push(node);
            accepted.extend(names);
        }
        let folder = folder(up.on.state_dir, &up.record.plan.id);
        let written = file::make_folder(&folder, 0o700).and_then(|()| {
            let text = configuration(&accepted);
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
