//! LVM: where the logical volumes of a volume group lie.
//!
//! ```text
//! label of each PV ─▶ metadata area ─▶ text, of which the newest counts (lvm_text.rs) ─▶ segments ─▶ Device
//! ```
//!
//! Linear and striped segments can be read without activating anything. Others are named.
//!
//! In: bytes of PVs, by [`Source`]. Out: [`Pv`]s, then [`Lv`]s. Must never: believe a label, a header or a text whose
//! checksum does not fit, or mix the texts of two states.
//!
//! Formats: lvm2's `struct label_header` (lib/label/label.h), `struct pv_header`, `struct disk_locn`, `struct mda_header`,
//! `struct raw_locn` (lib/format_text/layout.h), `calc_crc` (lib/misc/crc.c).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::device::Device;
use super::lvm_text::{Group, Segment, Volume};
use super::partitions::{ReadError, Source};

const SECTOR: usize = 512;
/// `LABEL_SCAN_SECTORS`
const SECTORS: usize = 4;
/// `INITIAL_CRC`
const CRC: u32 = 0xf597_a6cf;
/// `FMTT_MAGIC`
const MDA: &[u8] = b"\x20\x4c\x56\x4d\x32\x20\x78\x5b\x35\x41\x25\x72\x30\x4e\x2a\x3e";
/// `MDA_HEADER_SIZE`
const MDA_HEADER: u64 = 512;
/// lvm2 makes an area of 1 MiB; a text that is longer than this is none.
const MOST_TEXT: u64 = 4 << 20;
/// `RAW_LOCN_IGNORED`
const IGNORED: u32 = 1;
/// Areas of a PV: there are one or two.
const MOST_AREAS: usize = 4;

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Pv {
    /// Without dashes.
    pub uuid: String,
    /// What its metadata says; none where it keeps none.
    pub group: Option<Group>,
}

/// What was found where a label may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Pv(Pv),
    Damaged(String),
}

/// `calc_crc`: CRC-32 with another beginning, and not inverted at its end.
pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!CRC);
    parts.iter().for_each(|part| hasher.update(part));
    !hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The label of a device; none where there is none.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read<S: Source>(source: &mut S) -> Result<Option<Found>, ReadError> {
    let first = match source.read(0, SECTORS * SECTOR).await {
        Err(ReadError::Beyond) => return Ok(None),
        first => first?,
    };
    let has_label = |n: &usize| first[n * SECTOR..].starts_with(b"LABELONE");
    let Some(n) = (0..SECTORS).find(has_label) else { return Ok(None) };
    let label = &first[n * SECTOR..(n + 1) * SECTOR];
    let damaged = |what: &str| Ok(Some(Found::Damaged(what.to_owned())));
    if long(label, 8) != n as u64 || label.get(24..32) != Some(b"LVM2 001") {
        return Ok(None);
    }
    if word(label, 16) != crc(&[&label[20..]]) {
        return damaged("the checksum of its LVM label does not fit");
    }
    let header = usize::try_from(word(label, 20)).unwrap_or(SECTOR);
    let Some(header) = label.get(header..).filter(|h| h.len() >= 40) else {
        return damaged("its LVM label leads beyond itself");
    };
    let uuid = String::from_utf8_lossy(&header[..32]).into_owned();
    // Data areas, an end, metadata areas, an end.
    let locations: Vec<(u64, u64)> =
        header[40..].chunks_exact(16).map(|l| (long(l, 0), long(l, 8))).collect();
    let data = locations.iter().take_while(|l| **l != (0, 0)).count();
    let areas = locations.iter().skip(data + 1).take_while(|l| **l != (0, 0)).take(MOST_AREAS);
    let mut group = None;
    let mut why = None;
    for (at, size) in areas {
        match text(source, *at, *size).await {
            Ok(Text::Of(text)) => match Group::read(&text) {
                Some(found) => {
                    if group.as_ref().is_none_or(|g: &Group| g.seqno < found.seqno) {
                        group = Some(found);
                    }
                }
                None => why = Some("its LVM metadata is not understood"),
            },
            Ok(Text::None) => {}
            Ok(Text::Damaged(what)) => why = Some(what),
            Err(e) => return Err(e),
        }
    }
    match why.filter(|_| group.is_none()) {
        Some(why) => damaged(why),
        None => Ok(Some(Found::Pv(Pv { uuid, group }))),
    }
}

enum Text {
    Of(String),
    /// Not of a group, or kept elsewhere.
    None,
    Damaged(&'static str),
}

/// The text in this metadata area.
async fn text<S: Source>(source: &mut S, at: u64, size: u64) -> Result<Text, ReadError> {
    let header = match source.read(at, 512).await {
        Err(ReadError::Beyond) => return Ok(Text::Damaged("its LVM metadata is beyond its end")),
        header => header?,
    };
    if word(&header, 0) != crc(&[&header[4..]]) || header.get(4..20) != Some(MDA) || word(&header, 20) != 1 {
        return Ok(Text::Damaged("the checksum of its LVM metadata does not fit"));
    }
    let (start, length, sum, flags) =
        (long(&header, 40), long(&header, 48), word(&header, 56), word(&header, 60));
    if (start, length) == (0, 0) || flags & IGNORED != 0 {
        return Ok(Text::None);
    }
    let size = size.min(long(&header, 32));
    if start < MDA_HEADER || start >= size || length > MOST_TEXT || length > size - MDA_HEADER {
        return Ok(Text::Damaged("its LVM metadata is beyond its area"));
    }
    // It goes on behind the header where the area ends.
    let first = length.min(size - start);
    let mut bytes = Vec::new();
    for (from, length) in [(start, first), (MDA_HEADER, length - first)] {
        let length = usize::try_from(length).unwrap_or_default();
        let Some(from) = at.checked_add(from) else {
            return Ok(Text::Damaged("its LVM metadata is nowhere"));
        };
        match source.read(from, length).await {
            Err(ReadError::Beyond) => return Ok(Text::Damaged("its LVM metadata is beyond its end")),
            part => bytes.extend(part?),
        }
    }
    if crc(&[&bytes]) != sum {
        return Ok(Text::Damaged("the checksum of its LVM metadata does not fit"));
    }
    // It ends with a zero.
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(String::from_utf8(bytes).map_or(Text::Damaged("its LVM metadata is no text"), Text::Of))
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lv {
    /// Such as `vg0/data`.
    pub name: String,
    /// Where it lies, or why it is not read.
    pub device: Result<Rc<Device>, String>,
}

/// A volume group, as far as its PVs are here.
#[derive(Debug)]
pub(super) struct Of {
    pub on: Vec<Rc<Device>>,
    /// Those that somebody could have mounted.
    pub volumes: Vec<Lv>,
}

/// The groups of these PVs.
pub(super) fn groups(pvs: &[(Rc<Device>, Pv)]) -> Vec<Of> {
    let mut newest: BTreeMap<&str, &Group> = BTreeMap::new();
    for group in pvs.iter().filter_map(|(_, pv)| pv.group.as_ref()) {
        let known = newest.entry(&group.id).or_insert(group);
        if known.seqno < group.seqno {
            *known = group;
        }
    }
    let here: BTreeMap<&str, &Rc<Device>> =
        pvs.iter().map(|(device, pv)| (pv.uuid.as_str(), device)).collect();
    let of_group = |group: &&Group| {
        let on = group.pvs.values().filter_map(|pv| here.get(pv.uuid.as_str())).map(|d| Rc::clone(d));
        let lv = |volume: &Volume| Lv {
            name: format!("{}/{}", group.name, volume.name),
            device: device(group, volume, &here),
        };
        Of { on: on.collect(), volumes: group.volumes.iter().filter(|v| v.visible).map(lv).collect() }
    };
    newest.values().map(of_group).collect()
}

fn device(group: &Group, volume: &Volume, here: &BTreeMap<&str, &Rc<Device>>) -> Result<Rc<Device>, String> {
    let strange = || format!("LVM, whose metadata of {}/{} contradicts itself,", group.name, volume.name);
    let extent = group.extent_size.checked_mul(SECTOR as u64).filter(|e| *e > 0).ok_or_else(strange)?;
    let mut parts = Vec::new();
    let mut next = 0;
    for Segment { start, count, stripe_size, kind, stripes, .. } in &volume.segments {
        if kind != "striped" && kind != "linear" {
            return Err(format!("LVM {kind}"));
        }
        let legs = stripes.len() as u64;
        if *start != next || legs == 0 || !count.is_multiple_of(legs) || *count == 0 {
            return Err(strange());
        }
        next = start.checked_add(*count).ok_or_else(strange)?;
        let length = (count / legs).checked_mul(extent).ok_or_else(strange)?;
        let mut of = Vec::new();
        for (name, first) in stripes {
            let pv = group.pvs.get(name).ok_or_else(strange)?;
            let Some(device) = here.get(pv.uuid.as_str()) else {
                return Err(format!("LVM, of which the PV {} is not here,", pv.uuid));
            };
            let at = first.checked_mul(extent).and_then(|at| at.checked_add(pv.start * SECTOR as u64));
            of.push(at.and_then(|at| device.part(at, length)).ok_or_else(strange)?);
        }
        parts.push(match of.len() {
            1 => of.remove(0),
            _ => Device::striped(of, stripe_size * SECTOR as u64).ok_or_else(strange)?,
        });
    }
    Device::joined(parts).ok_or_else(strange)
}

#[cfg(test)]
#[path = "lvm_tests.rs"]
pub(super) mod tests;
