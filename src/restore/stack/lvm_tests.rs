//! Which groups are whole, what is activated of them, and what LVM is let to see.

use std::collections::BTreeMap;

use super::super::look::tests::device;
use super::*;
use crate::restore::verify::part::{PvOfGroup, Segment, Volume};

fn piece(name: &str, volume: usize) -> Piece {
    let kind = DeviceKind::Disk { model: String::new(), serial: String::new(), xen: false };
    Piece { device: device(name, kind, &[]), place: name.into(), volumes: BTreeSet::from([volume]) }
}

fn volume(name: &str, kind: &str, on: &[&str]) -> Volume {
    let stripes = on.iter().map(|pv| ((*pv).to_owned(), 0)).collect();
    let segments = vec![Segment { start: 0, count: 2, stripe_size: 128, kind: kind.into(), stripes }];
    Volume { name: name.into(), visible: true, segments }
}

fn group(name: &str, id: &str, seqno: u64) -> Group {
    let pv = |uuid: &str| PvOfGroup { uuid: uuid.into(), start: 2048 };
    Group {
        name: name.into(),
        id: id.into(),
        seqno,
        extent_size: 8192,
        pvs: BTreeMap::from([("pv0".to_owned(), pv("aaa")), ("pv1".to_owned(), pv("bbb"))]),
        volumes: vec![
            volume("data", "striped", &["pv0", "pv1"]),
            volume("one", "linear", &["pv1"]),
            volume("thin", "thin", &[]),
        ],
    }
}

fn pv(device: &str, number: usize, uuid: &str, group: Option<Group>) -> (Piece, Pv) {
    (piece(device, number), Pv { uuid: uuid.into(), group })
}

#[test]
fn a_group_is_one_with_all_its_physical_volumes() {
    let of = |pvs: &[(Piece, Pv)]| {
        let found = found("vg0", "vg0_r1a2b3c4d", pvs);
        found.map(|f| f.map(|f| (f.pieces.len(), f.metadata.seqno)))
    };
    let first = || pv("nvme1n1", 0, "aaa", Some(group("vg0", "id", 7)));
    assert_eq!(of(&[first(), pv("nvme2n1", 1, "bbb", Some(group("vg0", "id", 6)))]), Ok(Some((2, 7))));
    // One may keep no metadata.
    assert_eq!(of(&[first(), pv("nvme2n1", 1, "bbb", None)]), Ok(Some((2, 7))));
    assert_eq!(of(&[pv("nvme3n1", 2, "ccc", Some(group("vg1", "other", 1)))]), Ok(None), "another group");
    assert!(of(&[first()]).unwrap_err().contains("has 2 physical volumes, and 1 of them"));
    let twice = [first(), pv("nvme2n1", 1, "bbb", None), pv("nvme3n1", 2, "bbb", None)];
    assert!(of(&twice).unwrap_err().contains("one UUID"));
    // Killed in the middle of it: the texts, or a label and its text, are not of one state.
    for other in [
        pv("nvme2n1", 1, "ddd", Some(group("vg0_r1a2b3c4d", "new", 8))),
        pv("nvme2n1", 1, "ddd", Some(group("vg0", "id", 7))),
    ] {
        assert!(of(&[first(), other]).unwrap_err().contains("was interrupted"));
    }
}

#[test]
fn only_what_is_linear_or_striped_is_activated() {
    let group = group("vg0", "id", 1);
    assert_eq!(is_plain_volume(&group, "vg0", "data"), Ok(()));
    assert_eq!(is_plain_volume(&group, "vg0", "one"), Ok(()));
    assert!(is_plain_volume(&group, "vg0", "thin").unwrap_err().contains("vg0/thin is LVM thin"));
    assert!(is_plain_volume(&group, "vg0", "none").unwrap_err().contains("has no none"));
}

#[test]
fn a_logical_volume_is_on_the_volumes_of_its_segments() {
    let pvs = [pv("nvme1n1", 0, "aaa", None), pv("nvme2n1", 3, "bbb", None)];
    let pieces: Vec<&Piece> = pvs.iter().map(|(p, _)| p).collect();
    let of = |name| volumes_of(&group("vg0", "id", 1), name, &pieces, &pvs).into_iter().collect::<Vec<_>>();
    assert_eq!(of("data"), [0, 3]);
    assert_eq!(of("one"), [3]);
}

#[test]
fn lvm_sees_these_devices_and_no_others() {
    let text = configuration(&["/dev/nvme1n1".to_owned(), "/dev/mapper/a.b".to_owned()]);
    let filter = r#"filter = [ "a|^/dev/nvme1n1$|", "a|^/dev/mapper/a\\.b$|", "r|.*|" ]"#;
    assert!(text.contains(&format!("    {filter}\n    global_{filter}\n")), "{text}");
    for of_the_host in
        ["use_devicesfile = 0", "hints = \"none\"", "use_lvmetad = 0", "backup = 0 archive = 0"]
    {
        assert!(text.contains(of_the_host), "{of_the_host}");
    }
    assert!(!is_plain("/dev/a\"b") && !is_plain("/tmp/x") && is_plain("/dev/nvme1n1p2"));
    assert_eq!(mapped("vg-0_r1", "a-b"), "vg--0_r1-a--b");
}
