//! Which sizes are asked for, and which are refused before a volume is made.

use super::*;
use crate::consistency::Method;
use crate::ids::RunId;
use crate::restore::options::MountOptions;
use crate::restore::plan::{PlannedFilesystem, PlannedVolume};
use crate::sets::lines::{SetFilesystem, SetVolume};

fn volume(n: usize) -> VolumeId {
    format!("vol-{n:017x}").parse().unwrap()
}

/// Two volumes of 8 GiB, `/a` and `/b` on one each, and `/both` on both.
fn made(kind: &str) -> (RestorePlan, Layout) {
    let filesystem = |place: &str, on: &[usize]| SetFilesystem {
        mount_point: place.into(),
        fstype: "xfs".into(),
        uuid: None,
        method: Method::Freeze,
        volumes: on.iter().map(|n| volume(*n)).collect(),
        stack: "nvme1n1".into(),
        options: "rw".into(),
        also: if place == "/a" { vec!["/also".into()] } else { vec![] },
        roots: vec![],
    };
    let layout = Layout {
        volumes: (0..2)
            .map(|n| SetVolume {
                id: volume(n),
                device_name: "/dev/sdf".into(),
                size_gib: 8,
                volume_type: "gp3".into(),
                iops: None,
                throughput: None,
                encrypted: false,
                boot: false,
            })
            .collect(),
        filesystems: vec![filesystem("/a", &[0]), filesystem("/b", &[1]), filesystem("/both", &[0, 1])],
        applications: vec![],
    };
    let planned = |n: usize| PlannedVolume {
        source: volume(n),
        snapshot: format!("snap-{n:017x}").parse().ok(),
        size_gib: 8,
        grown_from: None,
        volume_type: kind.into(),
        iops: None,
        throughput: None,
        key: None,
        initialization_rate: None,
        tags: vec![],
        device_name: None,
    };
    let mounted = |n: usize, place: &str| PlannedFilesystem {
        source: place.into(),
        fstype: "xfs".into(),
        uuid: None,
        volume: n,
        mounts: vec![],
        options: MountOptions { attributes: 0, filesystem: vec![], left_out: vec![] },
    };
    let plan = RestorePlan {
        id: RunId::generate(),
        set: RunId::generate(),
        region: "us-east-1".into(),
        reach: Reach::Mounted,
        instance: None,
        zone: "us-east-1a".into(),
        to: "/mnt/x".into(),
        read_only: false,
        volumes: vec![planned(0), planned(1)],
        filesystems: vec![mounted(0, "/a"), mounted(1, "/b")],
        notes: vec![],
        spare_names: vec![],
        grow: false,
        in_place: None,
        until: None,
        before_start: Vec::new(),
        clones: Vec::new(),
        copies: Vec::new(),
        stack: Default::default(),
    };
    (plan, layout)
}

fn sized(kind: &str, sizes: &[&str], grow: bool) -> Result<RestorePlan, String> {
    let (plan, layout) = made(kind);
    let sizes: Vec<Size> = sizes.iter().map(|s| read(s).unwrap()).collect();
    plan.sized(&layout, &sizes, grow).map_err(|r| format!("{r} / {}", r.hint))
}

#[test]
fn a_size_is_of_a_volume_or_a_filesystem_in_whole_gib() {
    assert_eq!(read("/a=b=20").unwrap(), Size { of: Sized::Mount("/a=b".into()), gib: 20 });
    assert_eq!(read("vol-00000000000000001=9").unwrap(), Size { of: Sized::Volume(volume(1)), gib: 9 });
    for bad in
        ["/a", "/a=", "/a=0", "/a=-1", "/a=+1", "/a=1.5", "/a=9GiB", "a=9", "vol-x=9", "=9", "/a=99999999999"]
    {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_a_larger_volume_is_asked_for_with_a_size() {
    let plan = sized("gp3", &["/a=20", "vol-00000000000000001=8"], false).unwrap();
    let asked: Vec<Option<i32>> = (0..2).map(|n| plan.request(n).unwrap().size_gib).collect();
    assert_eq!(asked, [Some(20), None]);
    assert_eq!((plan.volumes[0].size_gib, plan.volumes[0].grown_from), (20, Some(8)));
    assert!(plan.notes.join("\n").contains("/a (xfs) keeps its size: --grow"), "{:?}", plan.notes);
    assert!(!plan.notes.join("\n").contains("/b"), "{:?}", plan.notes);
    let also = sized("gp3", &["/also=20", "/a=20"], true).unwrap();
    assert!(also.grow && also.notes.join("\n").contains("/a (xfs) is grown"), "{:?}", also.notes);
    assert!(sized("gp3", &[], false).unwrap().notes.is_empty());
}

#[test]
fn what_no_volume_can_have_is_refused() {
    for (sizes, why) in [
        (["/a=7"].as_slice(), "less than the 8 GiB of snap-"),
        (&["/a=65537"], "1 to 65536 GiB"),
        (&["/nowhere=9"], "has no /nowhere / it has /a, /b, /both"),
        (&["/both=9"], "is on 2 volumes"),
        (&["vol-00000000000000009=9"], "no volume is made in the place of vol-00000000000000009"),
        (&["/a=9", "vol-00000000000000000=10"], "cannot have both 9 and 10 GiB"),
    ] {
        let said = sized("gp3", sizes, false).unwrap_err();
        assert!(said.contains(why), "{sizes:?}: {said}");
    }
    // Another type has other limits, also for what is as large as its snapshot.
    assert!(sized("st1", &[], false).unwrap_err().contains("125 to 16384 GiB"));
    assert!(sized("st1", &["/a=125"], false).unwrap_err().contains(volume(1).as_str()));
    assert!(sized("st1", &["/a=125", "/b=200"], false).is_ok());
    for (kind, most) in [("gp2", 16_384), ("io1", 16_384), ("io2", 65_536), ("standard", 1_024)] {
        assert!(sized(kind, &[&format!("/a={most}")], false).is_ok(), "{kind}");
        assert!(sized(kind, &[&format!("/a={}", most + 1)], false).is_err(), "{kind}");
    }
}

#[test]
fn iops_are_those_that_the_size_allows() {
    let with = |iops: Option<i32>, had: Option<i32>, sizes: &[&str]| {
        let (mut plan, mut layout) = made("gp3");
        plan.volumes.iter_mut().for_each(|v| v.iops = iops);
        layout.volumes.iter_mut().for_each(|v| v.iops = had);
        let sizes: Vec<Size> = sizes.iter().map(|s| read(s).unwrap()).collect();
        plan.sized(&layout, &sizes, false).map_err(|r| format!("{r} / {}", r.hint))
    };
    assert!(with(Some(4000), None, &[]).is_ok());
    let many = with(Some(4001), None, &[]).unwrap_err();
    assert!(many.contains("8 GiB has at most 4000 IOPS") && many.contains("--iops 4000"), "{many}");
    assert!(with(Some(4001), None, &["/a=9", "/b=9"]).is_ok());
    // EC2 had accepted it once.
    assert!(with(Some(4001), Some(4001), &[]).is_ok());
}

#[test]
fn what_is_not_mounted_is_grown_by_nobody() {
    let (plan, layout) = made("gp3");
    let volumes = RestorePlan { reach: Reach::Volumes, filesystems: vec![], ..plan };
    let plan = volumes.sized(&layout, &[read("/b=9").unwrap()], false).unwrap();
    assert!(plan.notes.join("\n").contains("grow it by hand"), "{:?}", plan.notes);
}
