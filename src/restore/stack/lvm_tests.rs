//! Which groups are whole, what is activated of them, and what LVM is let to see.

use std::collections::BTreeMap;

use super::super::look::tests::device;
use super::*;
use crate::restore::verify::part::{PvOfGroup, Segment, Thin, Volume};

fn piece(name: &str, volume: usize) -> Piece {
    let kind = DeviceKind::Disk { model: String::new(), serial: String::new(), xen: false };
    Piece { device: device(name, kind, &[]), place: name.into(), volumes: BTreeSet::from([volume]) }
}

fn volume(name: &str, kind: &str, on: &[&str]) -> Volume {
    let stripes = on.iter().map(|pv| ((*pv).to_owned(), 0)).collect();
    let segments =
        vec![Segment { start: 0, count: 2, stripe_size: 128, kind: kind.into(), stripes, thin: None }];
    Volume { name: name.into(), visible: true, segments }
}

fn thin(name: &str, kind: &str, of: Thin) -> Volume {
    let mut volume = volume(name, kind, &[]);
    volume.segments[0].thin = Some(of);
    volume
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
            volume("mirror", "raid1", &[]),
            thin("thin", "thin", Thin::Volume { pool: "pool".into(), external: false }),
            thin(
                "pool",
                "thin-pool",
                Thin::Pool { data: "pool_tdata".into(), metadata: "pool_tmeta".into() },
            ),
            volume("pool_tdata", "linear", &["pv0"]),
            volume("pool_tmeta", "linear", &["pv1"]),
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
fn only_what_is_linear_striped_or_in_a_pool_of_such_is_activated() {
    let group = group("vg0", "id", 1);
    assert_eq!(activated(&group, "vg0", "data"), Ok(None));
    assert_eq!(activated(&group, "vg0", "one"), Ok(None));
    assert_eq!(activated(&group, "vg0", "thin").unwrap().unwrap().name, "pool");
    assert!(activated(&group, "vg0", "mirror").unwrap_err().contains("vg0/mirror is LVM raid1"));
    assert!(activated(&group, "vg0", "pool").unwrap_err().contains("vg0/pool is LVM thin-pool"));
    assert!(activated(&group, "vg0", "none").unwrap_err().contains("has no none"));
}

#[test]
fn a_device_is_of_a_group_through_layers_of_lvm_alone() {
    let dm = |name: &str, uuid: &str, below: &[&str]| {
        device(name, DeviceKind::Dm { name: "x".into(), uuid: uuid.into() }, below)
    };
    let (first, second) = (piece("nvme1n1", 0), piece("nvme2n1", 1));
    let all = [
        dm("dm-0", "LVM-a-tmeta", &["nvme2n1"]),
        dm("dm-1", "LVM-a-tdata", &["nvme1n1", "nvme2n1"]),
        dm("dm-2", "LVM-a-tpool", &["dm-0", "dm-1"]),
        dm("dm-3", "LVM-a", &["dm-2"]),
        dm("dm-4", "CRYPT-a", &["nvme1n1"]),
        dm("dm-5", "LVM-b", &["dm-4"]),
        dm("dm-6", "LVM-c", &["nvme1n1", "nvme9n1"]),
        dm("dm-7", "LVM-d", &["dm-7"]),
    ];
    let of = |n: usize, pieces: &[&Piece]| lies_on(&all, &all[n], pieces, DEEPEST);
    assert!(of(3, &[&first, &second]) && of(1, &[&first, &second]) && of(0, &[&second]));
    assert!(!of(3, &[&first]), "its pool has its metadata elsewhere");
    assert!(!of(5, &[&first]) && !of(6, &[&first]) && !of(7, &[&first]));
}

#[test]
fn a_logical_volume_is_on_the_volumes_of_its_segments() {
    let pvs = [pv("nvme1n1", 0, "aaa", None), pv("nvme2n1", 3, "bbb", None)];
    let pieces: Vec<&Piece> = pvs.iter().map(|(p, _)| p).collect();
    let of = |name| volumes_of(&group("vg0", "id", 1), name, &pieces, &pvs).into_iter().collect::<Vec<_>>();
    assert_eq!(of("data"), [0, 3]);
    assert_eq!(of("one"), [3]);
    assert_eq!(of("thin"), [0, 3], "its pool's data and metadata");
}

#[test]
fn lvm_sees_these_devices_and_no_others() {
    let nodes = ["/dev/nvme1n1".to_owned(), "/dev/mapper/a.b".to_owned()];
    let checked = configuration(&nodes, Some("/usr/sbin/thin_check"));
    assert!(
        checked.ends_with(
            "{ thin_check_executable = \"/usr/sbin/thin_check\" thin_check_options = [ \"-q\" ] }\n"
        ),
        "the mark of a pool that has to be checked stays: {checked}"
    );
    let text = configuration(&nodes, None);
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
