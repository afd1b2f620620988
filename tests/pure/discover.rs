//! Made and recorded hosts become facts.

use std::path::{Path, PathBuf};

use rig::fixture::{Host, facts};
use stillpoint::discover::{self, Backing, DeviceKind, Filesystem, HostFacts};
use stillpoint::host::HostError;
use stillpoint::host::inspect::{Answers, Helper};
use stillpoint::ids::DevNo;

fn host(host: &Host) -> Result<HostFacts, HostError> {
    discover::host(host.root(), host.made(), Answers::default())
}

fn at<'a>(host: &'a HostFacts, mount: &str) -> &'a Filesystem {
    let found = host.filesystems.iter().find(|f| f.mounts.iter().any(|m| m.mount_point == Path::new(mount)));
    found.unwrap_or_else(|| panic!("{mount} is not mounted"))
}

fn devices(filesystem: &Filesystem) -> &[String] {
    match &filesystem.backing {
        Backing::Devices { devices } => devices,
        other => panic!("{other:?}"),
    }
}

fn below(host: &HostFacts, name: &str) -> Vec<String> {
    host.devices.iter().find(|d| d.name == name).unwrap().below.clone()
}

#[test]
fn recorded_stacks_are_found_layer_by_layer() {
    let host = Host::named("stacks").host();
    assert_eq!(devices(at(&host, "/")), ["nvme0n1"], "/dev/root is found by its number");
    assert_eq!(devices(at(&host, "/mnt/lv")), ["dm-0"]);
    assert_eq!(below(&host, "dm-0"), ["nvme1n1", "nvme2n1"]);
    assert_eq!(below(&host, "dm-4"), ["dm-3"]);
    assert_eq!(below(&host, "dm-3"), ["nvme5n1p2"]);
    assert_eq!(below(&host, "nvme5n1p2"), ["nvme5n1"], "a partition is on its disk");
    assert_eq!(below(&host, "md0"), ["nvme3n1", "nvme4n1"]);

    let lv = at(&host, "/mnt/lv");
    assert_eq!(lv.mounts.len(), 2, "a bind mount is the same superblock");
    assert_eq!(at(&host, "/mnt/ov").backing, Backing::Overlay { upper: Some(lv.dev) });
    let image = host.devices.iter().find(|d| d.name == "loop0").unwrap();
    let on_md = Some(at(&host, "/mnt/md").dev);
    assert!(matches!(image.kind, DeviceKind::Loop { superblock, .. } if superblock == on_md), "{image:?}");
    let free = host.devices.iter().find(|d| d.name == "loop1").unwrap();
    assert_eq!(free.kind, DeviceKind::Loop { backing_file: None, superblock: None });
    assert_eq!(image.size, 64 << 20);
}

#[test]
fn a_btrfs_of_two_devices_and_three_subvolumes_is_one_filesystem() {
    let host = Host::named("nitro").host();
    let btrfs = at(&host, "/srv");
    assert_eq!(devices(btrfs), ["nvme2n1", "nvme3n1"]);
    assert_eq!(btrfs.mounts.len(), 3);
    assert_eq!(btrfs.uuid.as_deref(), Some("0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11"));
    assert_eq!(btrfs.mounts[2].mount_point, Path::new("/var/lib/pg data"));
    assert_eq!(host.filesystems.iter().filter(|f| f.fstype == "btrfs").count(), 1);
}

#[test]
fn one_btrfs_under_two_numbers_is_one_and_another_is_another() {
    let host = Host::of(
        "disk a 8:0 9\ndisk b 8:1 9\ndisk c 8:2 9\nbtrfs 0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11 a b\n\
         btrfs 1f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c22 c\n\
         mount 1 0 0:50 / / rw - btrfs /dev/a rw\nmount 2 1 0:51 / /x rw - btrfs /dev/b rw\n\
         mount 3 1 0:52 / /y rw - btrfs /dev/c rw\nmount 4 1 0:53 / /z rw - btrfs /dev/gone rw\n",
    )
    .host();
    assert_eq!(at(&host, "/x").dev, at(&host, "/").dev);
    assert_ne!(at(&host, "/y").dev, at(&host, "/").dev);
    assert_eq!(devices(at(&host, "/y")), ["c"]);
    assert!(devices(at(&host, "/z")).is_empty(), "one that cannot be told is not guessed");
}

#[test]
fn what_has_no_device_has_none() {
    let host = Host::named("nitro").host();
    for mount in ["/mnt/shared", "/mnt/bucket", "/tmp", "/proc"] {
        assert_eq!(at(&host, mount).backing, Backing::None, "{mount}");
    }
    assert_eq!(at(&host, "/opt/ro").backing, Backing::Overlay { upper: None });
    assert_eq!(at(&host, "/run/live").backing, Backing::Overlay { upper: Some(at(&host, "/run").dev) });
    let root = Some(at(&host, "/").dev);
    assert_eq!(at(&host, "/var/lib/docker/overlay2/a/merged").backing, Backing::Overlay { upper: root });
}

/// Any user can mount a FUSE with any text as its source, and root other filesystems: none of it is a device.
#[test]
fn a_source_that_is_free_text_names_no_device() {
    let kinds = "fuse fuse.sshfs fuse.btrfs 9p virtiofs nfs4 cifs tmpfs overlay zfs ceph ecryptfs devtmpfs";
    for (n, kind) in kinds.split(' ').enumerate() {
        for source in ["/dev/b", "/dev/b:/dev/a", "b", "/dev/block/8:1"] {
            let host = Host::of(&format!(
                "disk a 8:0 9\ndisk b 8:1 9\nmount 1 0 8:0 / / rw - ext4 /dev/a rw\n\
                 mount 2 1 0:{} / /any rw - {kind} {source} rw\n",
                n + 40
            ));
            let host = host.host();
            let backing = &at(&host, "/any").backing;
            assert!(!matches!(backing, Backing::Devices { .. }), "{kind} {source}: {backing:?}");
        }
    }
    // What the kernel mounts from a block device has that device's number, whatever its source says.
    let host = Host::of(
        "disk a 8:0 9\ndisk b 8:1 9\nmount 1 0 8:0 / / rw - ext4 /dev/b rw\n\
         mount 2 1 8:1 / /any rw - fuseblk /dev/a rw\n",
    )
    .host();
    assert_eq!((devices(at(&host, "/")), devices(at(&host, "/any"))), (&["a".into()][..], &["b".into()][..]));
}

#[test]
fn swap_is_marked_and_swap_files_find_their_filesystem() {
    let host = Host::named("nitro").host();
    let swaps: Vec<_> = host.devices.iter().filter(|d| d.swap).map(|d| d.name.as_str()).collect();
    assert_eq!(swaps, ["nvme0n1p2"]);
    assert_eq!(host.swap_files[0].path, PathBuf::from("/swapfile"));
    assert_eq!(host.swap_files[0].superblock, Some(at(&host, "/").dev));
}

#[test]
fn a_covered_mount_is_hidden_and_does_not_name_its_filesystem() {
    let host = Host::of(
        "disk a 8:0 9\ndisk b 8:1 9\nmount 1 0 8:0 / / rw - ext4 /dev/a rw\n\
         mount 2 1 8:1 / /data/old rw - ext4 /dev/b rw\nmount 3 1 0:9 / /data rw - tmpfs tmpfs rw\n\
         mount 4 1 8:1 /sub /elsewhere rw - ext4 /dev/b rw\n",
    )
    .host();
    let b = at(&host, "/elsewhere");
    assert_eq!(b.mounts.iter().map(|m| m.hidden).collect::<Vec<_>>(), [true, false]);
    assert_eq!(b.mount_point(), Path::new("/elsewhere"), "the path of the first would reach the tmpfs");
}

#[test]
fn an_image_is_on_the_mount_that_holds_its_file() {
    let host = Host::of(
        "disk a 8:0 9\ndisk b 8:1 9\nloop loop0 7:0 1 file=/data/gone.img%20(deleted)\n\
         loop loop1 7:1 1 file=/over/x.img\nloop loop2 7:2 1 file=/dev/b\n\
         mount 1 0 8:0 / / rw - ext4 /dev/a rw\nmount 2 1 8:1 / /data rw - ext4 /dev/b rw\n\
         mount 3 1 7:1 / /over rw - ext4 /dev/loop1 rw\n",
    )
    .host();
    let on = |name: &str| match host.devices.iter().find(|d| d.name == name).unwrap().kind {
        DeviceKind::Loop { superblock, .. } => superblock,
        _ => None,
    };
    assert_eq!(on("loop0"), Some(DevNo { major: 8, minor: 1 }), "a deleted file still has its blocks there");
    assert_eq!(on("loop1"), Some(DevNo { major: 8, minor: 0 }), "an image mounted over its own folder");
    assert_eq!((on("loop2"), below(&host, "loop2")), (None, vec!["b".to_owned()]), "a loop over a device");
}

#[test]
fn xen_disks_are_found_by_name() {
    let facts = facts("xen");
    let disks: Vec<_> = facts.volumes.iter().map(|v| v.disk.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(disks, ["xvda", "xvdf", "xvdba"]);
    assert!(facts.volumes[0].boot);
}

#[test]
fn links_may_be_absolute_and_a_vanished_device_is_passed_over() {
    let host = Host::of("disk a 8:0 9\nmount 1 0 8:0 / / rw - ext4 /dev/a rw\n");
    let block = host.root().join("sys/dev/block");
    std::os::unix::fs::symlink("../../devices/unplugged", block.join("8:9")).unwrap();
    std::fs::remove_file(block.join("8:0")).unwrap();
    std::os::unix::fs::symlink("/sys/devices/pci0000:00/a/a", block.join("8:0")).unwrap();
    let facts = host.host();
    assert_eq!(facts.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn the_uuid_is_read_from_the_device_below_the_root() {
    let host = Host::of("disk a 8:0 9\nmount 1 0 8:0 / / rw - xfs /dev/root rw\n");
    let mut sb = b"XFSB".to_vec();
    sb.resize(512, 7);
    std::fs::create_dir_all(host.root().join("dev")).unwrap();
    std::fs::write(host.root().join("dev/a"), sb).unwrap();
    let mut facts = host.facts();
    assert_eq!(facts.filesystems[0].uuid, None, "what is not taken is not read");
    discover::uuids(&mut facts, &[DevNo { major: 8, minor: 0 }], host.made());
    assert_eq!(facts.filesystems[0].uuid.as_deref(), Some("07070707-0707-0707-0707-070707070707"));
}

#[test]
fn errors_name_the_file_and_the_line() {
    let host_ = Host::of("disk a 8:0 9\nmount nonsense\n");
    let error = host(&host_).unwrap_err();
    assert!(matches!(error, HostError::Mountinfo { .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "line 1: the mount id is not a number: `nonsense`");
    assert!(error.hint().is_some());

    let empty = Host::of("mount 1 0 8:0 / / rw - ext4 /dev/a rw\n");
    assert!(matches!(host(&empty), Err(HostError::NoBlockDevices { .. })));
    std::fs::remove_file(empty.root().join("proc/self/mountinfo")).unwrap();
    assert!(matches!(host(&empty), Err(HostError::Read { .. })));
}

#[test]
fn a_line_that_cannot_be_read_costs_that_line_only() {
    let host = Host::of("disk a 8:0 9\nmount nonsense\nmount 1 0 8:0 / / rw - ext4 /dev/a rw\n").host();
    assert_eq!(at(&host, "/").fstype, "ext4");
    let unread: Vec<_> = host.unread_mounts.iter().map(ToString::to_string).collect();
    assert_eq!(unread, ["line 1: the mount id is not a number: `nonsense`"]);
}

#[test]
fn this_host_can_be_read() {
    // Without assumptions about it, but that its mountinfo parses and every filesystem has a mount.
    let inspect = Helper::new(rig::stillpoint(), Helper::PLANNING);
    if let Ok(facts) = discover::host(Path::new("/"), &inspect, Answers::default()) {
        assert!(facts.filesystems.iter().all(|f| !f.mounts.is_empty()));
    }
}
