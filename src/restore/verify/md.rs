//! md: which array a device is a member of, and where the array's data is.
//!
//! RAID 0 with members of one size, and RAID 1, can be read without assembling anything. Other levels are named.
//!
//! In: bytes of the device, by [`Source`]. Out: [`Member`]s, then [`Array`]s. Must never: take a member that was kicked
//! out for one of its array, or believe a superblock whose checksum does not fit.
//!
//! Formats: `struct mdp_superblock_1` and `mdp_super_t` (include/uapi/linux/raid/md_p.h); where a superblock is, and
//! its checksum: `super_1_load`, `calc_sb_1_csum`, `super_90_load`, `calc_sb_csum` (drivers/md/md.c).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::device::Device;
use super::partitions::{ReadError, Source};

const MAGIC: u32 = 0xa92b_4efc;
const SECTOR: u64 = 512;
/// Members of an array beyond which nothing is read: `MD_SB_DISKS` of 0.90, and more than EBS attaches.
const MOST_MEMBERS: u32 = 384;
/// `MD_FEATURE_RESHAPE_ACTIVE`.
const RESHAPE: u32 = 4;

/// A device that is a member of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Member {
    pub uuid: [u8; 16],
    pub level: i32,
    /// Bytes; 0 where it has none.
    pub chunk: u64,
    pub raid_disks: u32,
    /// Its place in the array; none of a spare, and of one that was kicked out.
    pub role: Option<u32>,
    /// Where its data begins, and how long that is at most, in bytes.
    pub at: u64,
    pub size: u64,
    /// Bytes that each member gives, where the level has such a size.
    pub used: u64,
    pub events: u64,
    /// It is being changed into another array.
    pub reshaping: bool,
}

/// What was found where a superblock may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Member(Member),
    /// It has the magic, and its checksum does not fit.
    Damaged(String),
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The superblock of a device of this size; none where there is none. `end`: one at its end counts, too.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read<S: Source>(
    source: &mut S,
    size: u64,
    end: bool,
) -> Result<Option<Found>, ReadError> {
    let sectors = size / SECTOR;
    let at_end = sectors.checked_sub(16).map(|s| (s & !7) * SECTOR);
    for at in [Some(4096), Some(0), at_end.filter(|_| end)].into_iter().flatten() {
        let sb = match source.read(at, 4096).await {
            Err(ReadError::Beyond) => continue,
            sb => sb?,
        };
        if let Some(found) = one(&sb, at, size) {
            return Ok(Some(found));
        }
    }
    if !end {
        return Ok(None);
    }
    // `MD_NEW_SIZE_SECTORS`
    let Some(at) = (sectors & !127).checked_sub(128).map(|s| s * SECTOR) else { return Ok(None) };
    match source.read(at, 4096).await {
        Err(ReadError::Beyond) => Ok(None),
        sb => Ok(ninety(&sb?, at)),
    }
}

/// A superblock of version 1, which has to be where it says.
fn one(sb: &[u8], at: u64, size: u64) -> Option<Found> {
    if word(sb, 0)? != MAGIC || word(sb, 4)? != 1 || long(sb, 144)?.checked_mul(SECTOR)? != at {
        return None;
    }
    let roles = usize::try_from(word(sb, 220)?).ok()?;
    // It has no more than one page of roles (`super_1_load`: sb_size ≤ 4096).
    let end = roles.checked_mul(2)?.checked_add(256).filter(|end| *end <= sb.len());
    let damaged = |what: &str| Some(Found::Damaged(what.to_owned()));
    let Some(end) = end else { return damaged("its md superblock has more members than there is room for") };
    let mut zeroed = sb[..end].to_vec();
    zeroed[216..220].fill(0);
    let mut sum: u64 = zeroed.chunks_exact(4).filter_map(|w| word(w, 0)).map(u64::from).sum();
    if let [low, high] = zeroed.chunks_exact(4).remainder() {
        sum += u64::from(u16::from_le_bytes([*low, *high]));
    }
    if word(sb, 216)? != fold(sum) {
        return damaged("the checksum of its md superblock does not fit");
    }
    let number = usize::try_from(word(sb, 160)?).ok()?;
    let role = (number < roles).then(|| sb.get(256 + number * 2..258 + number * 2)).flatten();
    let role = role.map_or(0xffff, |r| u16::from_le_bytes([r[0], r[1]]));
    let (data, length) = (long(sb, 128)?.checked_mul(SECTOR)?, long(sb, 136)?.checked_mul(SECTOR)?);
    if data.checked_add(length).is_none_or(|end| end > size) {
        return damaged("its md superblock says that its data is beyond its end");
    }
    Some(Found::Member(Member {
        uuid: sb.get(16..32)?.try_into().ok()?,
        level: i32::from_le_bytes(sb.get(72..76)?.try_into().ok()?),
        chunk: u64::from(word(sb, 88)?) * SECTOR,
        raid_disks: word(sb, 92)?,
        role: (role < 0xfffd).then_some(u32::from(role)),
        at: data,
        size: length,
        used: long(sb, 80)?.checked_mul(SECTOR)?,
        events: long(sb, 200)?,
        reshaping: word(sb, 8)? & RESHAPE != 0,
    }))
}

/// A superblock of version 0.90, as a little-endian host writes it. Its data begins with the device.
fn ninety(sb: &[u8], at: u64) -> Option<Found> {
    let nth = |n: usize| word(sb, n * 4);
    if nth(0)? != MAGIC || nth(1)? != 0 || nth(2)? < 90 {
        return None;
    }
    let sum: u64 = (0..1024).filter(|n| *n != 38).filter_map(nth).map(u64::from).sum();
    // `md_csum_fold`
    let halves = |sum: u32| {
        let once = (sum & 0xffff) + (sum >> 16);
        (once & 0xffff) + (once >> 16)
    };
    if halves(fold(sum)) != halves(nth(38)?) {
        return Some(Found::Damaged("the checksum of its md superblock does not fit".to_owned()));
    }
    let mut uuid = [0; 16];
    for (n, at) in [5, 13, 14, 15].into_iter().enumerate() {
        uuid[n * 4..n * 4 + 4].copy_from_slice(&nth(at)?.to_le_bytes());
    }
    // The last of 32 descriptors of 32 words is that of this device: number, major, minor, raid_disk, state.
    let (role, state) = (nth(992 + 3)?, nth(992 + 4)?);
    // `MD_DISK_FAULTY` 0, `MD_DISK_ACTIVE` 1, `MD_DISK_SYNC` 2
    let in_sync = state & 0b111 == 0b110;
    Some(Found::Member(Member {
        uuid,
        level: i32::from_le_bytes(nth(7)?.to_le_bytes()),
        chunk: u64::from(nth(65)?),
        raid_disks: nth(10)?,
        role: in_sync.then_some(role),
        at: 0,
        size: at,
        used: u64::from(nth(8)?) * 1024,
        events: u64::from(nth(40)?) << 32 | u64::from(nth(39)?),
        reshaping: nth(2)? >= 91,
    }))
}

fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff_ffff) as u32
}

/// An array, or why it is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Array {
    Read(Rc<Device>),
    /// Named, with what it is on.
    Unread(String, Vec<Rc<Device>>),
    /// It contradicts itself.
    Damaged(String, Vec<Rc<Device>>),
}

/// The arrays of these members.
pub(super) fn arrays(members: &[(Rc<Device>, Member)]) -> Vec<Array> {
    let mut of: BTreeMap<[u8; 16], Vec<&(Rc<Device>, Member)>> = BTreeMap::new();
    for member in members {
        of.entry(member.1.uuid).or_default().push(member);
    }
    of.values().map(|members| array(members)).collect()
}

fn array(members: &[&(Rc<Device>, Member)]) -> Array {
    let on = || members.iter().map(|(device, _)| Rc::clone(device)).collect::<Vec<_>>();
    // The member that was written last tells what the array is.
    let Some((_, newest)) = members.iter().max_by_key(|(_, m)| m.events) else {
        return Array::Unread("md without members".to_owned(), Vec::new());
    };
    let name = match newest.level {
        0 => "md RAID 0".to_owned(),
        1 => "md RAID 1".to_owned(),
        -1 => "md linear".to_owned(),
        level @ (4 | 5 | 6 | 10) => format!("md RAID {level}"),
        level => format!("md of level {level}"),
    };
    if newest.reshaping {
        return Array::Unread(format!("{name}, which is being reshaped,"), on());
    }
    // A superblock is written to one member after the other: one event behind is the same state.
    let current = |m: &Member| m.events.saturating_add(1) >= newest.events;
    let mut roles: BTreeMap<u32, (&Rc<Device>, &Member)> = BTreeMap::new();
    for (device, member) in members.iter().map(|m| (&m.0, &m.1)) {
        let Some(role) = member.role.filter(|_| current(member)) else { continue };
        if roles.insert(role, (device, member)).is_some() {
            return Array::Damaged(format!("two members of {name} have the place {role}"), on());
        }
    }
    match newest.level {
        0 => {
            let wanted = newest.raid_disks;
            if wanted == 0 || wanted > MOST_MEMBERS {
                return Array::Damaged(format!("{name} has {wanted} members"), on());
            }
            let there = (0..wanted).filter(|role| roles.contains_key(role)).count();
            if there < usize::try_from(wanted).unwrap_or(usize::MAX) {
                return Array::Unread(
                    format!("{name}, of which {there} of {wanted} members are here,"),
                    on(),
                );
            }
            let chunk = newest.chunk;
            let size = |m: &Member| m.size.checked_div(chunk).unwrap_or(0).saturating_mul(chunk);
            let parts: Option<Vec<_>> = (0..wanted)
                .map(|role| roles.get(&role).and_then(|(device, m)| device.part(m.at, size(m))))
                .collect();
            let same = roles.values().all(|(_, m)| size(m) == size(newest));
            match parts.and_then(|parts| Device::striped(parts, chunk)) {
                Some(device) => Array::Read(device),
                None if !same => Array::Unread(format!("{name} with members of several sizes"), on()),
                None => Array::Damaged(format!("{name} has chunks of {chunk} bytes"), on()),
            }
        }
        1 => {
            let part = |(device, m): &(&Rc<Device>, &Member)| device.part(m.at, newest.used.min(m.size));
            let parts: Vec<_> = roles.values().filter_map(part).collect();
            if parts.is_empty() {
                return Array::Unread(format!("{name}, of which no member is in sync,"), on());
            }
            Array::Read(Rc::new(Device::Mirrored { of: parts }))
        }
        _ => Array::Unread(name, on()),
    }
}

#[cfg(test)]
#[path = "md_tests.rs"]
pub(super) mod tests;
