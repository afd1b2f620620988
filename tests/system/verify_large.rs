//! How much of large volumes a probe reads: blocks and calls, whatever time they take.

use std::io::Write;
use std::path::PathBuf;

use nix::mount::{MntFlags, umount2};
use rig::{Rig, sh};

use crate::verify::take;

/// Unmounted before the rig's volumes go.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_probe_of_two_filesystems_of_100_gib_reads_no_more_than_100_blocks() {
    let volume = |name: &str| format!("[[volume]]\nname = \"{name}\"\nsize = \"100GiB\"\n");
    let rig = Rig::formatted(&[], &format!("{}{}", volume("large-a"), volume("large-b")));
    rig.configure("");
    let (a, b) = (rig.device("large-a"), rig.device("large-b"));
    sh("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-J", "size=64", &a]);
    sh("mkfs.xfs", &["-q", "-f", "-K", "-l", "size=64m", &b]);
    let mounted = [("a", a), ("b", b)].map(|(name, device)| {
        let at = rig.path(name);
        std::fs::create_dir(&at).unwrap();
        sh("mount", &[&device, at.to_str().unwrap()]);
        Mounted(at)
    });
    for mount in &mounted {
        for n in 0..150 {
            let mut file = std::fs::File::create(mount.0.join(n.to_string())).unwrap();
            file.write_all(&vec![1; 1 << 20]).unwrap();
            file.sync_all().unwrap();
        }
    }
    let set = take(&rig);
    rig.await_quiet();
    let all = rig.run(&["verify", &set, "--level", "whole", "-n", "-o", "json"]).exits(0).record();
    assert!(all["cost"]["blocks"].as_u64().unwrap() > 500, "there is more than a probe may read: {all}");
    let said = rig.run(&["verify", &set, "-o", "json"]).exits(0).record();
    assert_eq!(
        (&said["verdict"], said["findings"].as_array().unwrap().len()),
        (&"sound".into(), 2),
        "{said}"
    );
    let requests = rig.requests();
    let of = |action: &str| requests.iter().filter(|r| r["action"] == action).count();
    let (blocks, lists) = (of("ebs:GetSnapshotBlock"), of("ebs:ListSnapshotBlocks"));
    assert_eq!(said["blocks_read"], blocks, "{said}");
    assert!(blocks <= 100 && lists <= 40, "{blocks} blocks, {lists} lists");
    println!("{blocks} blocks and {lists} lists for 200 GiB");
    drop(mounted);
}
