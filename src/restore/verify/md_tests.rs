//! Arrays as mdadm would lay them out, made from the format's description.

use proptest::prelude::*;

use super::super::tests::{Bytes, now};
use super::*;

/// A member of an array with the UUID `[7; 16]`.
#[derive(Clone)]
pub(in super::super) struct Made {
    /// 90 for 0.90, else the minor version of 1.
    pub version: u32,
    pub level: i32,
    pub role: u16,
    pub of: u32,
    pub events: u64,
    pub size: usize,
}

pub(in super::super) const CHUNK: usize = 65_536;

impl Made {
    /// Where its superblock is, and its data.
    pub fn places(&self) -> (usize, usize, usize) {
        let sectors = self.size / 512;
        match self.version {
            90 => ((sectors & !127) * 512 - 65_536, 0, (sectors & !127) * 512 - 65_536),
            0 => (((sectors - 16) & !7) * 512, 0, ((sectors - 16) & !7) * 512),
            1 => (0, 1 << 20, self.size - (1 << 20)),
            _ => (4096, 1 << 20, self.size - (1 << 20)),
        }
    }

    pub fn superblock(&self) -> Vec<u8> {
        let (at, data, length) = self.places();
        let mut sb = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        if self.version == 90 {
            let words: [(usize, u32); 13] = [
                (2, 90),
                (5, 0x0707_0707),
                (13, 0x0707_0707),
                (14, 0x0707_0707),
                (15, 0x0707_0707),
                (7, self.level.cast_unsigned()),
                (8, u32::try_from(length / 1024).unwrap()),
                (10, self.of),
                (39, u32::try_from(self.events).unwrap()),
                (65, u32::try_from(CHUNK).unwrap()),
                (992, self.role.into()),
                (995, self.role.into()),
                (996, 6),
            ];
            words.iter().for_each(|(n, word)| put(n * 4, &word.to_le_bytes()));
            let sum: u64 = sb.chunks_exact(4).map(|w| u64::from(word(w, 0).unwrap())).sum();
            sb[152..156].copy_from_slice(&fold(sum).to_le_bytes());
            return sb;
        }
        put(4, &1_u32.to_le_bytes());
        put(16, &[7; 16]);
        put(72, &self.level.to_le_bytes());
        put(80, &(length as u64 / 512).to_le_bytes());
        put(88, &u32::try_from(CHUNK / 512).unwrap().to_le_bytes());
        put(92, &self.of.to_le_bytes());
        put(128, &(data as u64 / 512).to_le_bytes());
        put(136, &(length as u64 / 512).to_le_bytes());
        put(144, &(at as u64 / 512).to_le_bytes());
        put(160, &u32::from(self.role).to_le_bytes());
        put(200, &self.events.to_le_bytes());
        put(220, &5_u32.to_le_bytes());
        for n in 0..5_u16 {
            put(256 + usize::from(n) * 2, &n.to_le_bytes());
        }
        let mut sum: u64 = sb[..264].chunks_exact(4).map(|w| u64::from(word(w, 0).unwrap())).sum();
        sum += u64::from(u16::from_le_bytes([sb[264], sb[265]]));
        sb[216..220].copy_from_slice(&fold(sum).to_le_bytes());
        sb
    }

    pub fn image(&self) -> Vec<u8> {
        let mut all = vec![0; self.size];
        let (at, _, _) = self.places();
        all[at..at + 4096].copy_from_slice(&self.superblock());
        all
    }
}

fn made(version: u32, level: i32, role: u16, of: u32) -> Made {
    Made { version, level, role, of, events: 9, size: 4 << 20 }
}

fn seen(image: &[u8]) -> Option<Found> {
    now(read(&mut Bytes(image.to_vec()), image.len() as u64, true)).unwrap()
}

fn member(made: &Made) -> Member {
    match seen(&made.image()) {
        Some(Found::Member(member)) => member,
        other => panic!("{other:?}"),
    }
}

fn device(volume: usize) -> Rc<Device> {
    Rc::new(Device::Volume { volume, size: 4 << 20 })
}

#[test]
fn a_member_is_found_wherever_its_version_puts_the_superblock() {
    for version in [90, 0, 1, 2] {
        let made = made(version, 1, 1, 2);
        let (at, data, length) = made.places();
        let found = member(&made);
        assert_eq!((found.level, found.role, found.uuid), (1, Some(1), [7; 16]), "{version}");
        assert_eq!((found.at, found.size, found.events), (data as u64, length as u64, 9), "{version}");
        let mut bad = made.image();
        bad[at + 200] ^= 1;
        assert!(matches!(seen(&bad), Some(Found::Damaged(_))), "{version}: its checksum");
        // Of another place, as a copy of its first blocks has it.
        if version != 90 {
            let mut moved = vec![0; 8 << 20];
            moved[at + 8192..at + 8192 + 4096].copy_from_slice(&made.superblock());
            assert_eq!(seen(&moved), None, "{version}");
        }
    }
}

#[test]
fn arrays_are_put_together_of_members_of_one_state() {
    let of = |all: &[Made]| {
        let members: Vec<_> = all.iter().enumerate().map(|(n, m)| (device(n), member(m))).collect();
        arrays(&members).remove(0)
    };
    let two = [made(2, 0, 1, 2), made(2, 0, 0, 2)];
    let Array::Read(striped) = of(&two) else { panic!("{:?}", of(&two)) };
    let pieces = striped.pieces(CHUNK as u64 - 1, 2).unwrap();
    // The first place is on the second volume.
    assert_eq!(
        pieces.iter().map(|p| (p.volume, p.at)).collect::<Vec<_>>(),
        [(1, (1 << 20) + 65_535), (0, 1 << 20)]
    );
    assert!(matches!(of(&two[..1]), Array::Unread(what, _) if what.contains("1 of 2 members")));
    let smaller = Made { size: 3 << 20, ..two[0].clone() };
    assert!(
        matches!(of(&[smaller, two[1].clone()]), Array::Unread(what, _) if what.contains("several sizes"))
    );
    assert!(matches!(of(&[two[0].clone(), two[0].clone()]), Array::Damaged(..)), "one place twice");
    let five = [made(2, 5, 0, 3), made(2, 5, 1, 3), made(2, 5, 2, 3)];
    assert!(matches!(of(&five), Array::Unread(what, _) if what == "md RAID 5"));

    let mirror = [Made { events: 3, ..made(90, 1, 0, 2) }, made(90, 1, 1, 2)];
    let Array::Read(mirrored) = of(&mirror) else { panic!("{:?}", of(&mirror)) };
    assert_eq!(mirrored.pieces(0, 1).unwrap()[0].volume, 1, "the other one was kicked out long before");
}

proptest! {
    /// Whatever a superblock says, with a checksum that fits.
    #[test]
    fn any_superblock_is_judged(changes in proptest::collection::vec((0_usize..266, any::<u8>()), 0..12), ninety in any::<bool>(), legs in 1_usize..4) {
        let made = made(if ninety { 90 } else { 2 }, 0, 0, 2);
        let (at, _, _) = made.places();
        let mut sb = made.superblock();
        for (n, byte) in changes {
            sb[n.max(4)] = byte;
        }
        let sum = |sb: &[u8]| fold(sb.chunks(4).map(|w| {
            let mut four = [0; 4];
            four[..w.len()].copy_from_slice(w);
            u64::from(u32::from_le_bytes(four))
        }).sum());
        if ninety {
            sb[152..156].fill(0);
            let sum = sum(&sb);
            sb[152..156].copy_from_slice(&sum.to_le_bytes());
        } else {
            let roles = usize::try_from(word(&sb, 220).unwrap()).unwrap();
            let end = roles.saturating_mul(2).saturating_add(256).min(4096);
            sb[216..220].fill(0);
            let sum = sum(&sb[..end]);
            sb[216..220].copy_from_slice(&sum.to_le_bytes());
        }
        let mut image = vec![0; made.size];
        image[at..at + 4096].copy_from_slice(&sb);
        if let Some(Found::Member(member)) = seen(&image) {
            let members: Vec<_> = (0..legs).map(|n| (device(n), Member { role: member.role.map(|r| r.wrapping_add(n as u32)), ..member.clone() })).collect();
            for array in arrays(&members) {
                if let Array::Read(device) = array {
                    let _ = (device.pieces(0, 4096), device.pieces(device.size().saturating_sub(1), 1));
                }
            }
        }
    }
}
