//! What a thin volume lies in, and which pools are not activated.

use std::collections::BTreeMap;

use super::*;
use crate::restore::verify::part::{PvOfGroup, Segment};

fn segment(kind: &str, thin: Option<Thin>, on: &[(&str, u64)]) -> Segment {
    let stripes = on.iter().map(|(pv, first)| ((*pv).to_owned(), *first)).collect();
    Segment { start: 0, count: 2, stripe_size: 0, kind: kind.into(), stripes, thin }
}

fn volume(name: &str, segment: Segment) -> Volume {
    Volume { name: name.into(), visible: true, segments: vec![segment] }
}

/// A pool with its metadata on the second physical volume.
fn group(metadata: &str, external: bool) -> Group {
    let thin = |pool: &str| Some(Thin::Volume { pool: pool.into(), external });
    let of_pool = Some(Thin::Pool { data: "pool_tdata".into(), metadata: "pool_tmeta".into() });
    let pv = |uuid: &str| PvOfGroup { uuid: uuid.into(), start: 2048 };
    Group {
        name: "vg0".into(),
        id: "id".into(),
        seqno: 1,
        extent_size: 8192,
        pvs: BTreeMap::from([("pv0".to_owned(), pv("aaa")), ("pv1".to_owned(), pv("bbb"))]),
        volumes: vec![
            volume("data", segment("thin", thin("pool"), &[])),
            volume("lost", segment("thin", thin("none"), &[])),
            volume("odd", segment("thin", thin("plain"), &[])),
            volume("plain", segment("linear", None, &[("pv0", 9)])),
            volume("pool", segment("thin-pool", of_pool, &[])),
            volume("pool_tdata", segment("striped", None, &[("pv0", 0), ("pv1", 0)])),
            volume("pool_tmeta", segment(metadata, None, &[("pv1", 3)])),
        ],
    }
}

fn of<'m>(group: &'m Group, name: &str) -> Result<Option<Pool<'m>>, String> {
    pool(group, group.volumes.iter().find(|v| v.name == name).unwrap())
}

#[test]
fn a_thin_volume_is_in_a_pool_that_is_linear_or_striped() {
    let plain = group("linear", false);
    let found = of(&plain, "data").unwrap().unwrap();
    assert_eq!((found.name, found.data.name.as_str()), ("pool", "pool_tdata"));
    assert_eq!(superblock(&plain, &found), Ok(("bbb", (2048 + 3 * 8192) * 512)));
    assert_eq!(of(&plain, "plain"), Ok(None), "what is in no pool needs none");
    assert!(of(&plain, "lost").unwrap_err().contains("no none"));
    assert!(of(&plain, "odd").unwrap_err().contains("no thin pool"));
    assert!(of(&group("raid1", false), "data").unwrap_err().contains("pool_tmeta is LVM raid1"));
    assert!(of(&group("linear", true), "data").unwrap_err().contains("external origin"));
    let mut far = group("linear", false);
    far.extent_size = u64::MAX;
    let found = of(&far, "data").unwrap().unwrap();
    assert!(superblock(&far, &found).is_err(), "no number is taken for another one");
}

#[test]
fn a_pool_that_has_to_be_checked_is_not_activated() {
    let with = |flags: u32, magic: u64| {
        let mut bytes = vec![0xff; LENGTH];
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&magic.to_le_bytes());
        can_be_activated(&bytes)
    };
    assert_eq!(with(0, MAGIC), Ok(()));
    assert!(with(NEEDS_CHECK, MAGIC).unwrap_err().contains("has to be checked"));
    assert!(with(0, 0).unwrap_err().contains("does not begin"));
    assert!(can_be_activated(&[0; LENGTH - 1]).is_err());
}
