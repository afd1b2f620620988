//! An array is assembled of its members, under a number and a UUID of its own, read-only at first.
//!
//! In: members. Out: the array. Must never: start one of which a member is missing or behind the others, or let mdadm look
//! for members by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::NotedArray;
use super::look;
use super::tool::Tool;
use super::up::{Piece, Up};
use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::device;
use crate::restore::verify::part::Member;

/// Numbers that mdadm does not give by itself: it begins with 127 and goes down, and nobody has as many.
const NUMBERS: std::ops::RangeInclusive<u32> = 64..=95;

/// The arrays that these are members of, each whole.
pub(super) fn arrays(members: Vec<(Piece, Member)>) -> Result<Vec<Vec<Piece>>, String> {
    let mut of: BTreeMap<[u8; 16], Vec<(Piece, Member)>> = BTreeMap::new();
    for member in members {
        of.entry(member.1.uuid).or_default().push(member);
    }
    of.into_values().map(whole).collect()
}

fn whole(mut members: Vec<(Piece, Member)>) -> Result<Vec<Piece>, String> {
    let on: Vec<&str> = members.iter().map(|(p, _)| p.device.name.as_str()).collect();
    let named = format!("the array on {}", on.join(" and "));
    let Some(newest) = members.iter().map(|(_, m)| m.events).max() else {
        return Err("no member".to_owned());
    };
    let disks = members.first().map_or(0, |(_, m)| m.raid_disks);
    if members.iter().any(|(_, m)| m.reshaping) {
        return Err(format!("{named} was being reshaped, and is not put together here"));
    }
    // A superblock is written to one member after the other: one event behind is the same state. A spare has no place.
    members
        .retain(|(_, m)| m.events.saturating_add(1) >= newest && m.raid_disks == disks && m.role.is_some());
    let roles: BTreeSet<Option<u32>> = members.iter().map(|(_, m)| m.role).collect();
    if roles != (0..disks).map(Some).collect() || members.len() != roles.len() {
        return Err(format!(
            "{named} has {disks} members, and {} of them are here and in step; it is not started without one",
            roles.len()
        ));
    }
    members.sort_by_key(|(_, m)| m.role);
    Ok(members.into_iter().map(|(piece, _)| piece).collect())
}

/// Where an array is.
fn place(of: &[Piece]) -> String {
    let all: Vec<&str> = of.iter().map(|p| p.place.as_str()).collect();
    format!("md:{}", all.join(","))
}

/// What is assembled of these already.
fn standing(up: &Up<'_, '_>, of: &[Piece]) -> Result<Option<BlockDevice>, String> {
    let Some(first) = of.first() else { return Ok(None) };
    let is = |d: &BlockDevice| matches!(d.kind, DeviceKind::Md { .. });
    let Some(array) = up.standing_on(first)?.into_iter().find(is) else { return Ok(None) };
    let members: BTreeSet<&str> = of.iter().map(|p| p.device.name.as_str()).collect();
    let below: BTreeSet<&str> = array.below.iter().map(String::as_str).collect();
    match below == members {
        true => Ok(Some(array)),
        false => Err(format!("{} has some of the members of an array, and not these", array.name)),
    }
}

/// Was it not made writable yet? Whoever assembled it died before that, perhaps before all was changed that has to be.
fn is_unfinished(root: &Path, name: &str) -> bool {
    let state = root.join("sys/block").join(name).join("md/array_state");
    std::fs::read_to_string(state).is_ok_and(|state| state.trim() == "readonly")
}

/// Assembles it where it does not stand, ready to be written to.
pub(super) async fn up(up: &mut Up<'_, '_>, of: &[Piece]) -> Result<Piece, String> {
    let read_only = up.record.plan.read_only;
    let volumes = of.iter().flat_map(|p| p.volumes.iter().copied()).collect();
    let place = place(of);
    if let Some(device) = standing(up, of)? {
        if read_only || !is_unfinished(up.on.root, &device.name) {
            return Ok(Piece { device, place, volumes });
        }
        let node =
            device::node(device.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", device.name))?;
        Tool::new("mdadm", ["--stop".to_owned(), node.display().to_string()]).run().await?;
    }
    let noted = match up.record.stack.arrays.get(&place) {
        // Another one may have the number since a reboot.
        Some(noted) if is_free(up, noted.number)? => noted.clone(),
        known => NotedArray {
            number: free(up)?,
            uuid: known.map_or_else(|| uuid::Uuid::new_v4().to_string(), |k| k.uuid.clone()),
        },
    };
    up.record.stack.arrays.insert(place.clone(), noted.clone());
    up.note()?;
    up.hide().await?;
    let node = format!("/dev/md{}", noted.number);
    let mut members = Vec::new();
    for piece in of {
        let member = device::node(piece.device.dev, &[]);
        let member = member.ok_or_else(|| format!("/dev has no node of {}", piece.device.name))?;
        members.push(member.display().to_string());
    }
    let assemble = async |update: &[String]| {
        let always = ["--assemble", "--readonly", "--config=none"].map(str::to_owned);
        let arguments = always.iter().chain(update).chain([&node]).chain(&members).cloned();
        Tool::new("mdadm", arguments).run().await
    };
    if !read_only {
        // The UUID first: mdadm assembles nothing with that of an array that runs. Only one of the two at a time; and of
        // two with one name, a boot gives it to the first.
        let name = up.plan().array_name(noted.number);
        assemble(&["--update=uuid".to_owned(), format!("--uuid={}", noted.uuid)]).await?;
        Tool::new("mdadm", ["--stop", &node]).run().await?;
        assemble(&["--update=name".to_owned(), format!("--name={name}")]).await?;
    } else {
        assemble(&[]).await?;
    }
    let device = standing(up, of)?.ok_or_else(|| format!("{node} was assembled, and is not there"))?;
    if !read_only {
        Tool::new("mdadm", ["--readwrite", &node]).run().await?;
    }
    let names: Vec<&str> = of.iter().map(|p| p.device.name.as_str()).collect();
    (up.tell)(&format!("{} is assembled of {}", device.name, names.join(" and ")));
    Ok(Piece { device, place, volumes })
}

fn is_free(up: &Up<'_, '_>, number: u32) -> Result<bool, String> {
    let name = format!("md{number}");
    Ok(!look::all(up.on.root)?.iter().any(|d| d.name == name))
}

fn free(up: &Up<'_, '_>) -> Result<u32, String> {
    let all = look::all(up.on.root)?;
    let is_free = |n: &u32| !all.iter().any(|d| d.name == format!("md{n}"));
    NUMBERS.into_iter().find(is_free).ok_or_else(|| "no number is free for an array".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::device;
    use super::*;

    fn member(name: &str, role: Option<u32>, events: u64) -> (Piece, Member) {
        let disk = DeviceKind::Disk { model: String::new(), serial: String::new(), xen: false };
        let piece =
            Piece { device: device(name, disk, &[]), place: name.into(), volumes: BTreeSet::from([0]) };
        let (uuid, level, chunk, raid_disks, at, size, used) = ([7; 16], 1, 0, 2, 0, 0, 0);
        (piece, Member { uuid, level, chunk, raid_disks, role, at, size, used, events, reshaping: false })
    }

    #[test]
    fn an_array_is_one_with_all_its_members_in_step() {
        let of = |second: Option<(Piece, Member)>| {
            arrays(std::iter::once(member("nvme2n1", Some(1), 8)).chain(second).collect())
        };
        let whole = of(Some(member("nvme1n1", Some(0), 7))).unwrap();
        assert_eq!(whole[0].iter().map(|p| p.place.as_str()).collect::<Vec<_>>(), ["nvme1n1", "nvme2n1"]);
        for (missing, why) in [
            (None, "none of it is here"),
            (Some(member("nvme1n1", Some(0), 6)), "it was kicked out"),
            (Some(member("nvme1n1", None, 8)), "it is a spare"),
            (Some(member("nvme1n1", Some(1), 8)), "two have one place"),
        ] {
            assert!(of(missing).unwrap_err().contains("not started without one"), "{why}");
        }
        let mut reshaping = member("nvme1n1", Some(0), 8);
        reshaping.1.reshaping = true;
        assert!(of(Some(reshaping)).is_err());
    }

    #[test]
    fn an_array_that_is_still_read_only_is_not_finished() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/block/md64/md");
        std::fs::create_dir_all(&folder).unwrap();
        for (state, unfinished) in
            [("readonly\n", true), ("read-auto\n", false), ("clean\n", false), ("active\n", false)]
        {
            std::fs::write(folder.join("array_state"), state).unwrap();
            assert_eq!(is_unfinished(root.path(), "md64"), unfinished, "{state}");
        }
        assert!(!is_unfinished(root.path(), "md65"));
    }
}
