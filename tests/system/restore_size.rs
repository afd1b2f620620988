//! Restore to larger volumes: EC2 makes them so, and each filesystem is grown by its own tool where that is asked.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some, put_executable};

/// A filesystem of each kind, and a set of them.
fn each() -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    space.rig.configure("");
    for name in ["a", "b", "c"] {
        space.sh(&format!("seq 1000 >{0}/before; sync -f {0}", space.at(name)));
    }
    let set = space.take();
    (space, set)
}

fn restore(space: &Namespace, more: &[&str]) -> Ended {
    space.run(&[&["restore"], more].concat())
}

fn mib(space: &Namespace, place: &str) -> u64 {
    let kib = space.sh(&format!("df -k --output=size {place} | tail -n 1"));
    kib.trim().parse::<u64>().unwrap() / 1024
}

/// Restores are remembered here, and nothing else may be.
fn remembered(space: &Namespace) -> usize {
    std::fs::read_dir(space.path("state/restores")).map_or(0, Iterator::count)
}

#[test]
fn volumes_and_their_filesystems_get_larger_and_the_originals_do_not() {
    let (space, set) = each();
    // The host's btrfs-progs take two loop devices over one file for one device.
    space.sh(&format!("umount {}", space.at("c")));
    let target = space.at("back");
    let at = |name: &str| space.at(name);
    let sizes = [format!("{}=2", at("a")), format!("{}=2", space.rig.id("b")), format!("{}=2", at("c"))];
    let [a, b, c] = [&sizes[0], &sizes[1], &sizes[2]].map(String::as_str);
    let all = [&set, "--to", &target, "--size", a, "--size", b, "--size", c, "--grow"];
    let dry = restore(&space, &[&all[..], &["-n"]].concat());
    dry.exits(0).says("2 GiB gp3 (the snapshot: 1 GiB)").says("is grown, if it is on a whole disk");
    let before = mib(&space, &at("a"));
    let done = restore(&space, &[&all[..], &["-o", "json"]].concat());
    let record = done.exits(0).says("is as large as its volume now").record();
    assert!(
        record["restores"][0]["volumes"].as_array().unwrap().iter().all(|v| v["size_gib"] == 2),
        "{record}"
    );
    assert!(space.rig.calls("CreateVolume").iter().all(|call| call["params"]["Size"] == "2"));
    for name in ["a", "b", "c"] {
        let copy = format!("{target}{}", at(name));
        assert!(mib(&space, &copy) > 1700, "{name}: {} MiB", mib(&space, &copy));
        assert_eq!(space.sh(&format!("tail -n 1 {copy}/before")), "1000\n");
        space.sh(&format!("echo x >{copy}/new && sync -f {copy}"));
    }
    assert_eq!(mib(&space, &at("a")), before, "the original is as it was");
    assert_eq!(remembered(&space), 1, "it was mounted elsewhere for a moment, and is not any more");
    let id = record["restores"][0]["id"].as_str().unwrap().to_owned();
    // Once more changes nothing.
    restore(&space, &["--continue", &id]).exits(0);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(remembered(&space), 0);
}

#[test]
fn without_grow_only_the_volume_is_larger_and_what_cannot_be_is_refused() {
    let (space, set) = each();
    space.sh(&format!("umount {}", space.at("c")));
    let target = space.at("back");
    let a = format!("{}=2", space.at("a"));
    let only = [&set, "--to", &target, "--mount", &space.at("a"), "--size", &a];
    let done = restore(&space, &only);
    done.exits(0).says("keeps its size: --grow");
    let copy = format!("{target}{}", space.at("a"));
    assert!(mib(&space, &copy) < 100);
    space.sh(&format!("test $(blockdev --getsize64 $(findmnt -n -v -o SOURCE {copy})) = {}", 2u64 << 30));
    let made = space.rig.calls("CreateVolume").len();
    let refused = |size: &str, why: &str| {
        restore(&space, &[&set, "--to", &space.at("other"), "--size", size]).exits(78).says(why);
    };
    refused(&format!("{}=2", space.at("nowhere")), "the set has no");
    refused(&format!("{}=70000", space.at("a")), "1 to 65536 GiB");
    restore(&space, &[&set, "--root", "--size", &a]).exits(64);
    restore(&space, &[&set, "--size", &a, "--grow", "--read-only"]).exits(64);
    restore(&space, &[&set, "--grow"]).exits(64);
    restore(&space, &[&set, "--size", "a=2"]).exits(64);
    assert_eq!(space.rig.calls("CreateVolume").len(), made);
    let id = done.err.lines().find_map(|l| l.strip_prefix("restore ").filter(|id| id.len() == 36)).unwrap();
    restore(&space, &["--undo", id]).exits(0);
}

/// Killed while the tool is at work, it is gone on with; and a tool that fails takes the restore back.
#[test]
fn what_dies_while_it_grows_is_gone_on_with_and_what_fails_is_taken_back() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.rig.configure("");
    let set = space.take();
    std::fs::create_dir(space.path("bin")).unwrap();
    space.sh("mount -t tmpfs -o mode=755 stillpoint-test /usr/local/sbin");
    let tool = |text: &str| {
        put_executable(&space.path("bin/resize2fs"), format!("#!/bin/sh\n{text}\n"));
        space.sh(&format!("cp {} /usr/local/sbin/", space.at("bin/resize2fs")));
    };
    let a = format!("{}=2", space.at("a"));
    let target = space.at("back");
    let all = [&set, "--to", &target, "--size", &a, "--grow"];

    tool("echo no room >&2; exit 3");
    restore(&space, &all).exits(11).says("no room").says("is taken back");
    assert!(remembered(&space) == 0 && !space.sh("cat /proc/self/mountinfo").contains(".growing"));

    tool(&format!("echo $$ >{}; exec sleep 1000", space.at("started")));
    let run = space.spawn(&[&["restore"][..], &all].concat());
    let started = || std::fs::read_to_string(space.path("started")).ok().filter(|pid| pid.ends_with('\n'));
    let pid = await_some("the tool is at work", started);
    let id = run
        .said()
        .lines()
        .find_map(|l| Some(l.strip_prefix("restore ").filter(|id| id.len() == 36)?.to_owned()));
    let id = id.unwrap();
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(9));
    space.sh(&format!("kill {}; umount -l /usr/local/sbin", pid.trim()));
    assert!(space.sh("cat /proc/self/mountinfo").contains(".growing"), "it died with it mounted");
    restore(&space, &["--continue", &id]).exits(0);
    assert!(mib(&space, &format!("{target}{}", space.at("a"))) > 1700);
    assert!(!space.sh("cat /proc/self/mountinfo").contains(".growing"));
    assert_eq!(remembered(&space), 1);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(remembered(&space), 0);
}
