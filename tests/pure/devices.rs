//! Every device of a filesystem belongs to the set, by the kernel's numbers; what cannot be told is refused.

use std::path::Path;

use rig::fixture::{Host, plan_with, told, vol};
use stillpoint::discover::{self, Facts};
use stillpoint::host::inspect::Question;
use stillpoint::plan::{Consistency, Plan, PlanError, WitnessDevice};

/// A root on one volume, three more volumes, then `rest`.
fn host(rest: &str) -> Host {
    let mut text = "ebs nvme0n1 259:0 8192 vol-00000000000000000\nroot-device /dev/xvda\n\
         mount 1 0 259:0 / / rw - ext4 /dev/nvme0n1 rw\nattached vol-00000000000000000 /dev/xvda 8 gp3\n"
        .to_owned();
    for n in 1..=3 {
        let id = vol(char::from_digit(n, 10).unwrap());
        text += &format!("ebs nvme{n}n1 259:{n} 1024 {id}\nattached {id} /dev/sd{n} 1 gp3\n");
    }
    Host::of(&(text + rest))
}

fn volumes(plan: &Plan) -> String {
    plan.volumes.iter().map(|v| v.id.as_str().chars().last().unwrap()).collect()
}

fn reason(plan: &Plan, volume: char) -> &str {
    &plan.volumes.iter().find(|v| v.id == vol(volume)).unwrap().reason
}

fn only(mount: &str) -> impl Fn(&Facts) -> Result<Plan, PlanError> {
    move |facts| plan_with(facts, |s| s.mounts = vec![mount.into()])
}

fn unknown(result: Result<Plan, PlanError>) -> String {
    match result {
        Err(error @ PlanError::UnknownDevices { .. }) => told(&error),
        other => panic!("{other:?}"),
    }
}

const UUID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";

/// Puts a superblock of ext4 below the root, where the node of a device would be.
fn put(host: &Host, node: &str, parts: &[(usize, &[u8])]) {
    let mut bytes = vec![0; 4096];
    for (at, part) in [(0x38, [0x53, 0xef].as_slice())].iter().chain(parts) {
        bytes[1024 + at..1024 + at + part.len()].copy_from_slice(part);
    }
    let path = host.path(format!("dev/{node}"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// An ext4 on nvme1n1 whose journal is said to be on 259:2, and what is on that.
fn journaled(rest: &str, journal: &[u8; 16]) -> Host {
    let host =
        host(&format!("mount 2 1 259:1 / /data rw - ext4 /dev/nvme1n1 rw\njournal nvme1n1 outside\n{rest}"));
    let number: &[u8] = &[2, 3, 1, 0];
    put(&host, "nvme1n1", &[(0x5c, &[0x4]), (0xd0, &UUID), (0xe4, number)]);
    put(&host, "block/259:2", &[(0x60, &[0x8]), (0x68, journal)]);
    host
}

#[test]
fn an_external_journal_joins_the_set_and_says_why() {
    let plan = only("/data")(&journaled("", &UUID).facts()).unwrap();
    assert_eq!(volumes(&plan), "12");
    assert_eq!(reason(&plan, '1'), "holds /data");
    assert_eq!(reason(&plan, '2'), "external journal of /data");
    assert_eq!(plan.filesystems[0].stack, "nvme1n1; external journal nvme2n1");
    let witnesses: Vec<_> = plan.filesystems[0].witnesses.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(witnesses, ["nvme1n1", "nvme2n1"]);
    assert_eq!(plan.best, Consistency::Filesystem);
}

#[test]
fn what_shares_the_journals_volume_is_taken_with_it() {
    let rest = "part nvme2n1p1 259:9 9 of=nvme2n1\nmount 3 1 259:9 / /other rw - xfs /dev/nvme2n1p1 rw\n";
    let plan = only("/data")(&journaled(rest, &UUID).facts()).unwrap();
    let mounts: Vec<_> = plan.filesystems.iter().map(|f| f.mount_point.to_str().unwrap()).collect();
    assert_eq!(mounts, ["/data", "/other"]);
}

/// A number in a superblock may be from before the last boot.
#[test]
fn a_device_with_the_number_of_the_journal_and_another_uuid_is_not_it() {
    let host = journaled("", &[7; 16]);
    let said = unknown(only("/")(&host.facts()));
    insta::assert_snapshot!(said, @"
    cannot tell which devices /data (ext4) is on: its external journal cannot be found: its superblock says 259:2, which is another device
    hint: as root, everything about it can be read; if it is on no volume of the set, say so with `exclude_mounts = [\"/data\"]`
    ");
    // jbd2 knows which devices are journals.
    std::fs::write(host.path("proc/fs/jbd2/nvme3n1"), "").unwrap();
    std::fs::create_dir_all(host.path("sys/class/block/nvme3n1")).unwrap();
    std::fs::write(host.path("sys/class/block/nvme3n1/dev"), "259:3\n").unwrap();
    put(&host, "block/259:3", &[(0x60, &[0x8]), (0x68, &UUID)]);
    let plan = only("/data")(&host.facts()).unwrap();
    assert_eq!((volumes(&plan).as_str(), reason(&plan, '3')), ("13", "external journal of /data"));
}

#[test]
fn a_superblock_that_cannot_be_read_is_a_refusal() {
    let text = "mount 2 1 259:1 / /data rw - ext4 /dev/nvme1n1 rw\njournal nvme1n1 outside\n";
    assert!(unknown(only("/data")(&host(text).facts())).contains("no node in /dev"));
    let silent = unknown(only("/data")(&host(&format!("{text}silent nvme1n1\n")).facts()));
    assert!(silent.contains("it does not answer"), "{silent}");
    let facts = host(text).facts();
    let plan = plan_with(&facts, |s| s.allow_partial = true).unwrap();
    assert_eq!((plan.best, volumes(&plan).as_str()), (Consistency::Crash, "01"));
    let plan = plan_with(&facts, |s| s.exclude_mounts = vec!["/data".into()]).unwrap();
    assert_eq!(volumes(&plan), "0");
    // An ext4 that has no journal at all: the kernel says so.
    let without = host(text);
    std::fs::create_dir_all(without.path("sys/fs/ext4/nvme1n1")).unwrap();
    std::fs::write(without.path("sys/fs/ext4/nvme1n1/journal_task"), "<none>\n").unwrap();
    assert_eq!(volumes(&only("/data")(&without.facts()).unwrap()), "1");
    std::fs::write(without.path("sys/fs/ext4/nvme1n1/journal_task"), "77\n").unwrap();
    unknown(only("/data")(&without.facts()));
    for fstype in ["f2fs", "jfs", "reiserfs", "ext2", "ext3"] {
        unknown(only("/")(&host(&text.replace("ext4", fstype)).facts()));
    }
}

/// A disk that hangs is left alone when nothing of it is needed.
#[test]
fn what_the_kernel_lists_is_not_read_from_the_device() {
    let host = host("disk sda 8:0 9\nmount 2 1 8:0 / /far rw - ext4 /dev/sda rw\nsilent sda\n");
    let mut facts = host.facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let taken: Vec<_> = plan.filesystems.iter().map(|f| f.dev).collect();
    discover::uuids(&mut facts, &taken, host.made());
    let asked = host.made().asked.lock().unwrap();
    let superblocks = asked.iter().filter_map(|q| match q {
        Question::Superblock { name, .. } => Some(name.as_str()),
        _ => None,
    });
    assert_eq!(superblocks.collect::<Vec<_>>(), ["nvme0n1"]);
}

#[test]
fn nothing_is_asked_twice_not_even_what_did_not_answer() {
    let host =
        journaled("loop loop0 7:0 9 file=/x\nsilent loop0\nsilent nvme1n1\nswap /s file 9 0 -2\n", &UUID);
    let first = host.facts();
    let count = host.made().asked.lock().unwrap().len();
    assert_eq!(count, 3);
    let again = discover::host(host.root(), host.made(), first.answers.clone()).unwrap();
    assert_eq!(host.made().asked.lock().unwrap().len(), count);
    assert_eq!(again.filesystems, first.filesystems);
}

#[test]
fn xfs_names_its_log_and_its_realtime_device() {
    let xfs = |options: &str| {
        only("/data")(&host(&format!("mount 2 1 259:1 / /data rw - xfs /dev/nvme1n1 rw,{options}\n")).facts())
    };
    let plan = xfs("logdev=/dev/nvme2n1,rtdev=/dev/nvme3n1").unwrap();
    assert_eq!(volumes(&plan), "123");
    assert_eq!(reason(&plan, '2'), "external log of /data");
    assert_eq!(reason(&plan, '3'), "realtime device of /data");
    for gone in ["logdev=/dev/gone", "rtdev=gone", "logdev=/elsewhere/nvme2n1"] {
        assert!(unknown(xfs(gone)).contains("cannot be told"), "{gone}");
    }
}

#[test]
fn bcachefs_has_the_members_that_sysfs_shows() {
    let uuid = "0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11";
    let text =
        format!("bcachefs {uuid} nvme1n1 nvme2n1\nmount 2 1 0:50 / /b rw - bcachefs /dev/nvme1n1 rw\n");
    let host = host(&text);
    assert_eq!(volumes(&only("/b")(&host.facts()).unwrap()), "12");
    // One that is offline, and a filesystem that sysfs does not know.
    std::fs::create_dir_all(host.path(format!("sys/fs/bcachefs/{uuid}/dev-7"))).unwrap();
    unknown(only("/b")(&host.facts()));
    std::fs::remove_dir_all(host.path("sys/fs/bcachefs")).unwrap();
    unknown(only("/b")(&host.facts()));
}

/// Everything below is in `slaves`: the cache of a bcache, the metadata of a pool, every target of a table.
#[test]
fn a_device_of_several_parts_is_on_all_of_them() {
    let text = "dm dm-0 254:0 9 name=c uuid=LVM-c on=nvme1n1,nvme2n1,nvme3n1\nmount 2 1 254:0 / /d rw - xfs /dev/dm-0 rw\n";
    assert_eq!(volumes(&only("/d")(&host(text).facts()).unwrap()), "123");
    let text = "other bcache0 250:0 9 on=nvme1n1,nvme2n1\nmount 2 1 250:0 / /d rw - xfs /dev/bcache0 rw\n";
    assert_eq!(volumes(&only("/d")(&host(text).facts()).unwrap()), "12");
}

/// An image by the number of what has its file: the path leads to the root, which is another volume.
#[test]
fn an_image_is_on_what_the_kernel_says() {
    let image = |holder: &str, fstype: &str| {
        host(&format!(
            "mount 2 1 259:1 / /a rw - xfs /dev/nvme1n1 rw\nloop loop0 7:0 9 file=/x.img holder={holder}\n\
             mount 3 1 7:0 / /image rw - {fstype} /dev/loop0 rw\n"
        ))
        .facts()
    };
    assert_eq!(volumes(&only("/image")(&image("259:1", "ext4")).unwrap()), "1");
    // On a device whose filesystem is not mounted here: nobody can freeze it.
    let error = only("/image")(&image("259:3", "ext4")).unwrap_err();
    assert!(matches!(&error, PlanError::Partial { volumes, .. } if *volumes == [vol('3')]), "{error}");
    let said = unknown(only("/a")(&image("0:0", "ext4")));
    assert!(said.contains("which filesystem has the image file of loop0 cannot be told"), "{said}");
    // Nothing writes to it.
    assert_eq!(volumes(&only("/a")(&image("0:0", "squashfs")).unwrap()), "1");
}

/// The source of such a mount is any text: here the name of a volume that it is not on.
#[test]
fn an_image_that_does_not_answer_is_on_a_server_or_unknown() {
    let image = |fstype: &str| {
        host(&format!(
            "mount 2 1 0:60 / /far rw - {fstype} /dev/nvme1n1 rw\nloop loop0 7:0 9 file=/far/x.img\nsilent loop0\n\
             mount 3 1 7:0 / /image rw - ext4 /dev/loop0 rw\n"
        ))
        .facts()
    };
    for fstype in ["fuse.sshfs", "fuse", "nfs4", "cifs"] {
        assert_eq!(volumes(&plan_with(&image(fstype), |_| {}).unwrap()), "0", "{fstype}");
    }
    unknown(only("/")(&image("tmpfs")));
}

fn left<'a>(plan: &'a Plan, mount: &str) -> &'a str {
    &plan.left_out.iter().find(|l| l.what == mount).unwrap().reason
}

#[test]
fn an_overlay_whose_upper_layer_cannot_be_told_says_so() {
    let facts = |options: &str| {
        host(&format!("mount 2 1 0:60 / /merged rw - overlay overlay rw,lowerdir=l,{options}\n")).facts()
    };
    let plan = plan_with(&facts("upperdir=u,workdir=w"), |_| {}).unwrap();
    assert_eq!(
        left(&plan, "/merged"),
        "where its writes go is not known: its upper directory u cannot be told: it is not under that path"
    );
    let plan = plan_with(&facts("upperdir=/u,workdir=/w"), |_| {}).unwrap();
    assert_eq!(left(&plan, "/merged"), "writes go to /, which is made quiet");
    // What lies on it may be anywhere.
    let on_it = host(
        "mount 2 1 0:60 / /merged rw - overlay overlay rw,lowerdir=l,upperdir=u,workdir=w\n\
         loop loop0 7:0 9 file=/merged/x holder=0:60\nmount 3 1 7:0 / /image rw - ext4 /dev/loop0 rw\n",
    );
    assert!(unknown(only("/")(&on_it.facts())).contains("/merged"));
}

#[test]
fn a_swap_file_that_cannot_be_found_is_told_of_every_set() {
    let text = "swap /gone/swap file 1024 0 -2\n";
    let mut facts = host(text).facts();
    for swap in &mut facts.swap_files {
        swap.superblock = None;
    }
    assert!(plan_with(&facts, |_| {}).unwrap().notes.iter().any(|n| n.contains("/gone/swap")));
    assert_eq!(facts.swap_files[0].path, Path::new("/gone/swap"));
}

/// A reason for each part of a disk that stays out, and each of them true.
#[test]
fn every_part_of_a_left_out_disk_has_its_reason() {
    let text = "part nvme1n1p1 259:11 400 of=nvme1n1\npart nvme1n1p2 259:12 400 of=nvme1n1\n\
         part nvme1n1p3 259:13 100 of=nvme1n1\npart nvme1n1p128 259:14 1 of=nvme1n1\n\
         dm dm-0 254:0 9 name=vg-idle uuid=LVM-a on=nvme1n1p3\n\
         swap /dev/nvme1n1p1 partition 1024 0 -2\nswap /dev/nvme2n1 partition 1024 0 -2\n";
    let mut facts = host(text).facts();
    let reason = |facts: &Facts, volume| {
        let plan = plan_with(facts, |_| {}).unwrap();
        plan.left_out.iter().find(|l| l.what.starts_with(vol(volume).as_str())).unwrap().reason.clone()
    };
    assert_eq!(
        reason(&facts, '1'),
        "dm-0 vg-idle has no mounted filesystem; nvme1n1p1 is swap, which is not data; nvme1n1p2 has no mounted \
         filesystem; take it with `unmounted_volumes = \"crash\"`"
    );
    assert_eq!(reason(&facts, '2'), "swap, which is not data");
    assert_eq!(reason(&facts, '3'), "no mounted filesystem; take it with `unmounted_volumes = \"crash\"`");

    let by = |facts: &mut Facts, name: &str| {
        let dev = facts.devices.iter().find(|d| d.name == name).unwrap().dev;
        facts.elsewhere.insert(dev, ["lxd (pid 7), on /var/lib/lxd".to_owned()].into());
    };
    by(&mut facts, "nvme1n1p2");
    by(&mut facts, "nvme3n1");
    let elsewhere = "mounted in another namespace, where it cannot be frozen: lxd (pid 7), on /var/lib/lxd";
    assert!(reason(&facts, '1').contains(&format!("nvme1n1p2 is {elsewhere}")), "{}", reason(&facts, '1'));
    assert_eq!(reason(&facts, '3'), elsewhere);
}

#[test]
fn a_mount_and_a_swap_on_one_left_out_disk_have_a_reason_each() {
    let text = "part nvme1n1p1 259:11 400 of=nvme1n1\npart nvme1n1p2 259:12 400 of=nvme1n1\n\
         mount 2 1 259:12 / /data rw - xfs /dev/nvme1n1p2 rw\nswap /dev/nvme1n1p1 partition 1024 0 -2\n";
    let plan = plan_with(&host(text).facts(), |s| s.exclude_mounts = vec!["/data".into()]).unwrap();
    let line =
        plan.left_out.iter().find(|l| l.kind == "volume" && l.what.starts_with(vol('1').as_str())).unwrap();
    assert_eq!(line.reason, "/data is excluded by `exclude_mounts`; nvme1n1p1 is swap, which is not data");
}

/// md writes to its members on its own account, also while everything above is frozen: their counters prove
/// nothing, and are not read. That of the array is.
#[test]
fn the_members_of_an_array_are_no_witnesses() {
    let facts = Host::of(
        "ebs a 259:0 1024 vol-11111111111111111\nebs b 259:1 1024 vol-22222222222222222\npart b1 259:2 512 of=b\n\
         md md0 9:0 1000 level=raid1 on=a,b1\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
         mount 1 0 9:0 / /data rw - xfs /dev/md0 rw\n",
    )
    .facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let names = |devices: &[WitnessDevice]| devices.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&plan.filesystems[0].witnesses), ["md0"]);
    assert_eq!(names(&plan.witnesses), [""; 0]);
    // Whether a process writes to them is looked at.
    assert_eq!(names(&plan.beneath), ["a", "b", "b1"]);
}
