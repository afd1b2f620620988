//! The probe of whole sets: layers over volumes, made from the descriptions of their formats.

use std::collections::BTreeMap;
use std::time::Duration;

use super::md::tests::Made as MadeMember;
use super::{Report, Verdict, luks, lvm, probe, vfat};
use crate::clock::System;
use crate::consistency::Method;
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Block, Blocks, Direct};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;
use crate::sets::layout::Layout;
use crate::sets::lines::SetFilesystem;
use crate::sets::set::SnapshotSet;
use crate::sets::set::tests_support::set;

const BLOCK: usize = 512 << 10;
const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

/// Snapshots of these bytes; a block of zeros was never written.
struct Made(BTreeMap<SnapshotId, Vec<u8>>);

impl Made {
    fn block(&self, id: &SnapshotId, index: usize) -> &[u8] {
        let all = &self.0[id];
        &all[index * BLOCK..((index + 1) * BLOCK).min(all.len())]
    }
}

impl Direct for Made {
    async fn readable(&self, _: &SnapshotId) -> Result<bool, Ec2Error> {
        Ok(true)
    }

    async fn blocks(&self, snapshot: &SnapshotId, from: u32, most: u16) -> Result<Blocks, Ec2Error> {
        let size = self.0[snapshot].len();
        let written = |n: &usize| self.block(snapshot, *n).iter().any(|b| *b != 0);
        let all: Vec<usize> = (from as usize..size.div_ceil(BLOCK)).filter(written).collect();
        let more = all.len() > usize::from(most);
        let blocks =
            all.into_iter().take(most.into()).map(|n| (u32::try_from(n).unwrap(), String::new())).collect();
        Ok(Blocks { volume_bytes: size as u64, block_bytes: BLOCK as u64, blocks, more })
    }

    async fn block(&self, snapshot: &SnapshotId, index: u32, _: &str) -> Result<Block, Ec2Error> {
        let mut data = Made::block(self, snapshot, index as usize).to_vec();
        data.resize(BLOCK, 0);
        Ok(Block { data, fits: true })
    }
}

/// The set of these volumes, with one filesystem on all of them.
fn probed(images: &[&[u8]], fstype: &str, uuid: Option<&str>, method: Method) -> Report {
    let set: SnapshotSet = set(images.len());
    let made = Made(set.snapshots().cloned().zip(images.iter().map(|i| i.to_vec())).collect());
    let filesystem = SetFilesystem {
        mount_point: "/data".into(),
        fstype: fstype.to_owned(),
        uuid: uuid.map(str::to_owned),
        method,
        volumes: set.members.iter().map(|m| m.volume_id.clone()).collect(),
        stack: String::new(),
        options: String::new(),
        also: Vec::new(),
        roots: Default::default(),
    };
    let layout = Layout { volumes: Vec::new(), filesystems: vec![filesystem], applications: Vec::new() };
    let direct = Repeating::new(&made, &System, Duration::ZERO);
    super::tests::now(probe(&direct, &set, &layout)).unwrap()
}

fn ext4_of(images: &[&[u8]]) -> (Verdict, String) {
    let report = probed(images, "ext4", Some(UUID), Method::Freeze);
    assert!(report.blocks_read <= 20, "{report:?}");
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    (finding.verdict, finding.what.clone())
}

/// The superblock of an ext4; dirty, or not.
fn ext4(dirty: bool) -> Vec<u8> {
    let mut sb = vec![0; 1024];
    sb[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    sb[0x3a] = 1;
    sb[0x5c] = 4;
    sb[0x60] = if dirty { 4 } else { 0 };
    sb[0x68..0x78].copy_from_slice(&(1..=16).collect::<Vec<u8>>());
    sb[0xe0] = 8;
    sb
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn sound() -> (Verdict, String) {
    (Verdict::Sound, "nothing has to be recovered".to_owned())
}

fn fault(what: &str) -> (Verdict, String) {
    (Verdict::Fault, what.to_owned())
}

/// PVs with the ext4 on a logical volume: where its superblock is on which of them.
fn on_lvm(at: (usize, usize), dirty: bool) -> [Vec<u8>; 2] {
    let mut pvs = lvm::tests::UUIDS.map(|uuid| lvm::tests::image(uuid, Some(lvm::tests::TEXT), 512));
    put(&mut pvs[at.0], at.1 + 1024, &ext4(dirty));
    pvs
}

#[test]
fn a_filesystem_on_a_linear_or_striped_volume_is_found_where_lvm_puts_it() {
    let (first, extent) = (lvm::tests::FIRST, lvm::tests::EXTENT);
    for at in [(0, first + 3 * extent), (0, first + 20 * extent)] {
        let [a, b] = on_lvm(at, false);
        assert_eq!(ext4_of(&[&a, &b]), sound(), "{at:?}");
        let [a, b] = on_lvm(at, true);
        assert_eq!(ext4_of(&[&a, &b]), fault("its journal has to be replayed (needs_recovery)"), "{at:?}");
    }
    // Where no visible volume begins: it may be in the pool, which is not read.
    let [a, b] = on_lvm((0, first), false);
    let (verdict, what) = ext4_of(&[&a, &b]);
    assert_eq!(verdict, Verdict::NotLooked, "{what}");
    assert!(what.contains("vg0/pool (LVM thin-pool)"), "{what}");
    let [mut a, b] = on_lvm((0, first + 3 * extent), false);
    a[512 + 40] ^= 1;
    assert_eq!(ext4_of(&[&a, &b]), fault("the checksum of its LVM label does not fit"));
}

#[test]
fn lvm_in_a_partition_and_on_an_array_is_found() {
    let [pv, other] = on_lvm((0, lvm::tests::FIRST + 3 * lvm::tests::EXTENT), false);
    let mut disk = vec![0; 1 << 20];
    put(&mut disk, 510, &[0x55, 0xaa]);
    put(&mut disk, 450, &[0x8e]);
    put(&mut disk, 454, &2048_u32.to_le_bytes());
    put(&mut disk, 458, &u32::try_from(pv.len() / 512).unwrap().to_le_bytes());
    disk.extend(&pv);
    assert_eq!(ext4_of(&[&disk, &other]), sound());

    // RAID 1 with the superblock at its end: without it, each leg looks like the PV itself.
    let legs = [0, 1].map(|role| {
        let made = MadeMember { version: 0, level: 1, role, of: 2, events: 4, size: pv.len() + (64 << 10) };
        let mut image = made.image();
        put(&mut image, 0, &pv);
        image
    });
    assert_eq!(ext4_of(&[&legs[0], &legs[1], &other]), sound());
}

#[test]
fn arrays_are_read_or_named() {
    let leg = |level, role, of| MadeMember { version: 2, level, role, of, events: 4, size: 4 << 20 };
    let mut striped = [leg(0, 1, 2).image(), leg(0, 0, 2).image()];
    // The superblock is in the first chunk, which is on the member of place 0.
    put(&mut striped[1], (1 << 20) + 1024, &ext4(false));
    assert_eq!(ext4_of(&[&striped[0], &striped[1]]), sound());
    let (verdict, what) = ext4_of(&[&striped[1]]);
    assert_eq!((verdict, what.contains("1 of 2 members are here")), (Verdict::NotLooked, true), "{what}");
    let five = [0, 1, 2].map(|role| leg(5, role, 3).image());
    let (verdict, what) = ext4_of(&[&five[0], &five[1], &five[2]]);
    assert_eq!((verdict, what.as_str()), (Verdict::NotLooked, "it is on md RAID 5 which is not read here"));
    striped[0][4096 + 200] ^= 1;
    assert_eq!(ext4_of(&[&striped[0]]), fault("the checksum of its md superblock does not fit"));
}

#[test]
fn luks_is_named_and_its_header_is_checked() {
    let mut image = luks::tests::image();
    let (verdict, what) = ext4_of(&[&image]);
    assert_eq!((verdict, what.contains("without its key")), (Verdict::NotLooked, true), "{what}");
    image[9000] ^= 1;
    assert_eq!(ext4_of(&[&image]), fault("the checksum of its LUKS2 header does not fit"));
}

#[test]
fn a_fat_is_sound_while_it_is_mounted() {
    let mut image = vfat::tests::image(false);
    image.resize(image.len().next_multiple_of(BLOCK), 0);
    image[0x25] = 1;
    let report = probed(&[&image], "vfat", Some("ABCD-1234"), Method::Sync);
    assert_eq!(report.verdict(), Verdict::Sound, "{report:?}");
    assert!(report.findings[0].what.contains("dirty bit"), "{report:?}");
    let other = probed(&[&image], "vfat", Some("0000-0001"), Method::Sync);
    assert_eq!(other.verdict(), Verdict::Fault, "{other:?}");
}

/// An ext4 whose journal is on the other volume.
fn with_a_journal(start: u32, sum: bool) -> [Vec<u8>; 2] {
    let (mut data, mut journal) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut sb = ext4(false);
    sb[0xd0..0xe0].fill(9);
    sb[0xe0] = 0;
    put(&mut data, 1024, &sb);
    let mut device = ext4(false);
    device[0x18] = 2;
    device[0x60] = 8;
    device[0x68..0x78].fill(9);
    put(&mut journal, 1024, &device);
    let mut own = vec![0; 1024];
    own[..4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
    own[0x1c..0x20].copy_from_slice(&start.to_be_bytes());
    own[0x2b] = 0x10;
    let right = !crc32c::crc32c(&own);
    own[0xfc..0x100].copy_from_slice(&if sum { right } else { !right }.to_be_bytes());
    put(&mut journal, 4096, &own);
    [data, journal]
}

#[test]
fn a_journal_on_another_device_is_read_too() {
    let of = |[a, b]: [Vec<u8>; 2]| ext4_of(&[&a, &b]);
    assert_eq!(of(with_a_journal(0, true)), sound());
    assert_eq!(of(with_a_journal(1, true)), fault("its journal, on a device of its own, has to be replayed"));
    assert_eq!(of(with_a_journal(0, false)), fault("the checksum of its journal's superblock does not fit"));
    let [data, _] = with_a_journal(0, true);
    let (verdict, what) = ext4_of(&[&data]);
    assert_eq!((verdict, what.contains("was not found")), (Verdict::NotLooked, true), "{what}");
}

/// Partitions of partitions of partitions, and an array that is its own member.
#[test]
fn what_goes_round_in_a_circle_ends() {
    let mut disk = vec![0; 1 << 20];
    put(&mut disk, 510, &[0x55, 0xaa]);
    for n in 0..4 {
        put(&mut disk, 450 + n * 16, &[0x83]);
        put(&mut disk, 454 + n * 16, &u32::try_from(n + 1).unwrap().to_le_bytes());
        put(&mut disk, 458 + n * 16, &u32::MAX.to_le_bytes());
    }
    assert_eq!(ext4_of(&[&disk]).0, Verdict::Fault);
    // A RAID 0 of one member, whose data is an array of one member, and so on.
    let mut image = vec![0; 16 << 20];
    let mut at = 0;
    for n in 0..12_u8 {
        let made = MadeMember { version: 2, level: 0, role: 0, of: 1, events: 1, size: (16 << 20) - at };
        let mut sb = made.superblock();
        sb[16] = n;
        let sum: u64 = sb[..264]
            .chunks(4)
            .enumerate()
            .filter(|(n, _)| *n != 54)
            .map(|(_, w)| u64::from(u32::from_le_bytes(w.try_into().unwrap())))
            .sum();
        let sum = sum + u64::from(u16::from_le_bytes([sb[264], sb[265]]));
        put(&mut sb, 216, &u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap().to_le_bytes());
        put(&mut image, at + 4096, &sb);
        at += 1 << 20;
    }
    let (verdict, what) = ext4_of(&[&image]);
    assert_eq!((verdict, what.contains("deeper layers")), (Verdict::NotLooked, true), "{what}");
}
