use std::fs;

use super::*;

const DATA: DevNo = DevNo { major: 0, minor: 44 };
const EXT: DevNo = DevNo { major: 259, minor: 7 };
const UUID: &str = "0a1b2c3d-0000-4000-8000-000000000001";

/// A host whose thread 5 is in this ioctl on /data (btrfs) or /ext (ext4), and with this word in sysfs.
fn host(ioctl: Option<(u64, &str)>, word: Option<&str>) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let task = root.path().join("proc/5/task/5");
    fs::create_dir_all(task.join("fdinfo")).unwrap();
    fs::create_dir_all(root.path().join("proc/self")).unwrap();
    let table = "33 21 0:44 / /data rw - btrfs /dev/b rw\n34 21 259:7 / /ext rw - ext4 /dev/a rw\n";
    fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
    fs::write(root.path().join("proc/5/comm"), "tool\n").unwrap();
    fs::write(root.path().join("proc/5/status"), "Name:\ttool\nUid:\t1000\t0\t0\t0\n").unwrap();
    if let Some((request, mount)) = ioctl {
        let call = format!("{} 0x4 {request:#x} 0x0 0x0 0x0 0x0 0x1 0x2\n", libc::SYS_ioctl);
        fs::write(task.join("syscall"), call).unwrap();
        fs::write(task.join("fdinfo/4"), format!("flags:\t0100000\nmnt_id:\t{mount}\n")).unwrap();
    }
    if let Some(word) = word {
        let folder = root.path().join("sys/fs/btrfs").join(UUID);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("exclusive_operation"), format!("{word}\n")).unwrap();
    }
    root
}

fn subjects() -> [Subject; 2] {
    let subject = |dev, fstype: &str, at: &str, uuid: Option<&str>| Subject {
        dev,
        fstype: fstype.to_owned(),
        mount_point: at.into(),
        uuid: uuid.map(str::to_owned),
        open: None,
    };
    [subject(DATA, "btrfs", "/no-such-data", Some(UUID)), subject(EXT, "ext4", "/no-such-ext", None)]
}

fn found(ioctl: Option<(u64, &str)>, word: Option<&str>) -> Vec<(String, Effect)> {
    let seen = look(host(ioctl, word).path(), &subjects());
    seen.found.into_iter().map(|o| (o.operation, o.effect)).collect()
}

#[test]
fn the_kernels_word_says_what_goes_on_in_a_btrfs() {
    let says = |word: &str| found(None, Some(word));
    for word in ["none", "balance paused", "swap activate"] {
        assert_eq!(says(word), [], "{word}");
    }
    for word in ["balance", "device add", "device remove", "resize"] {
        assert_eq!(says(word), [(format!("btrfs {word}"), Effect::Blocks)]);
    }
    assert_eq!(says("device replace"), [("btrfs device replace".to_owned(), Effect::Writes)]);
    // What is not known counts as one that blocks; the terminal gets no control character.
    assert_eq!(says("\u{1b}new"), [("btrfs \\u{1b}new".to_owned(), Effect::Blocks)]);
}

#[test]
fn what_cannot_be_asked_is_not_none() {
    let seen = look(host(None, None).path(), &subjects());
    assert_eq!(seen.found, []);
    let unseen = seen.unseen.join("; ");
    assert!(unseen.contains("exclusive operation of /no-such-data"), "{unseen}");
    assert!(unseen.contains("scrubs of /no-such-data"), "{unseen}");
}

#[test]
fn a_thread_inside_a_long_ioctl_is_found_by_its_file_and_request() {
    let on_ext = |request: u64| found(Some((request, "34")), Some("none"));
    for (request, name) in [
        (0x4008_6610, "ext4 resize"),
        (0xc028_660f, "ext4 defragment"),
        (0xc018_5879, "trim (FITRIM)"),
        (0xffff_ffff_c018_9436, "deduplication (FIDEDUPERANGE)"),
    ] {
        assert_eq!(on_ext(request), [(name.to_owned(), Effect::Blocks)]);
    }
    assert_eq!(on_ext(0x4010_586e), [], "that is XFS's");
    assert_eq!(on_ext(0xc004_5877), [], "FIFREEZE");
    // btrfs discards without write access.
    assert_eq!(found(Some((0xc018_5879, "33")), Some("none")), []);
    // One operation is named once, and by its call where the kernel has no word for it.
    let balance = Some((0xc400_9420, "33"));
    assert_eq!(found(balance, Some("balance")).len(), 1);
    assert_eq!(found(balance, None), [("btrfs balance".to_owned(), Effect::Blocks)]);
    assert_eq!(found(balance, Some("none")), [], "it is over, or refused");
}

#[test]
fn an_operation_goes_on_while_its_call_or_the_kernels_word_does() {
    let host = host(Some((0x4008_6610, "34")), Some("balance"));
    let (root, subjects) = (host.path(), subjects());
    let before = look(root, &subjects).found;
    assert_eq!(before.len(), 2);
    let still = |before: &[Operation]| still(root, before.to_vec(), &look(root, &subjects));
    let names = |operations: Vec<Operation>| operations.into_iter().map(|o| o.operation).collect::<Vec<_>>();
    let syscall = root.join("proc/5/task/5/syscall");
    fs::write(&syscall, "running\n").unwrap();
    assert_eq!(still(&before).len(), 2, "it may run inside the call");
    fs::write(&syscall, "0 0x4 0x0 0x0 0x0 0x0 0x0 0x1 0x2\n").unwrap();
    assert_eq!(names(still(&before)), ["btrfs balance"]);
    fs::write(root.join("sys/fs/btrfs").join(UUID).join("exclusive_operation"), "resize\n").unwrap();
    assert_eq!(still(&before), [], "another one is no reason to wait longer for the first");
}

#[test]
fn a_message_names_the_operation_the_mount_and_who_or_how_far() {
    let [data, _] = subjects();
    let operation = Operation { percent: Some(12), ..data.operation("btrfs scrub", Effect::Blocks) };
    assert_eq!(operation.to_string(), "btrfs scrub on /no-such-data, 12 % done");
    let process = Process { pid: 5, comm: "e4defrag".to_owned() };
    let operation = Operation { process: Some(process), ..operation };
    assert_eq!(operation.to_string(), "btrfs scrub on /no-such-data by e4defrag (pid 5)");
}
