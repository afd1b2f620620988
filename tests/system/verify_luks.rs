//! Verify by a restore, of what is in LUKS: opened with key files, judged as anything else, and closed.
//!
//! cryptsetup and dmsetup are stood in for (`rig::luks`); the real ones are at work in `tests/guest/stacked.sh`.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use rig::Fs;
use rig::luks::Luks;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};
use serde_json::Value;

use crate::verify::without_a_freeze;

const EXT4: &str = "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0";
const XFS: &str = "mkfs.xfs -q -f";

/// A plain ext4, and two volumes for LUKS.
fn three() -> Namespace {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("l", Fs::Xfs), ("m", Fs::Ext4)]);
    space.mount("a", "defaults");
    space.rig.configure("");
    space
}

/// A set of one filesystem in LUKS, with its key.
fn in_luks(space: &Namespace) -> (Luks<'_>, PathBuf, String) {
    space.rig.configure("");
    let luks = Luks::new(space);
    let key = luks.key("key");
    luks.make("l", &key, EXT4);
    (luks, key, space.take())
}

fn verify(space: &Namespace, set: &str, more: &[&str]) -> Ended {
    space.run(&[&["verify", set, "--level", "restore"], more].concat())
}

fn made(space: &Namespace) -> usize {
    space.rig.calls("CreateVolume").len()
}

fn finding<'a>(space: &Namespace, said: &'a Value, name: &str) -> (&'a str, &'a str) {
    let at = space.at(name);
    let of = said["findings"].as_array().unwrap().iter().find(|f| f["mount_point"] == at.as_str());
    let of = of.unwrap_or_else(|| panic!("nothing of {at}: {said}"));
    (of["verdict"].as_str().unwrap(), of["what"].as_str().unwrap())
}

/// No volume, no record, and nothing open but the originals.
fn nothing_is_left(space: &Namespace, luks: &Luks<'_>) {
    let said = space.run(&["restore", "--list", "-o", "json"]).exits(0).record();
    assert_eq!(said["restores"].as_array().unwrap().len(), 0, "volumes are left: {said}");
    let records = space.path("state").join("restores");
    assert_eq!(std::fs::read_dir(records).map_or(0, Iterator::count), 0, "records are left");
    let open = luks.open();
    assert!(open.iter().all(|name| name.ends_with("-crypt")), "it is still open: {open:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_in_luks_is_opened_with_key_files_judged_and_closed() {
    let space = three();
    let luks = Luks::new(&space);
    let (first, second) = (luks.key("first.key"), luks.key("second.key"));
    luks.make("l", &first, XFS);
    luks.make("m", &second, EXT4);
    space.write(&["a", "l", "m"], "before");
    let set = space.take();

    // No key, and nobody is asked: what is not in LUKS is looked at.
    let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
    assert_eq!((&said["verdict"], finding(&space, &said, "a").0), (&"not_looked".into(), "sound"), "{said}");
    for name in ["l", "m"] {
        let (verdict, what) = finding(&space, &said, name);
        assert!(verdict == "not_looked" && what.contains("there is no key"), "{said}");
    }
    assert_eq!(made(&space), 1, "no volume is made for what cannot be opened");

    // The key of one is not that of the other, which is said of it alone.
    let said = verify(&space, &set, &["--key-file", text(&first), "-o", "json"]).exits(0).record();
    assert_eq!(finding(&space, &said, "a").0, "sound", "{said}");
    let (verdict, what) = finding(&space, &said, "l");
    assert!(verdict == "sound" && what.contains("xfs_repair finds nothing"), "{said}");
    let (verdict, what) = finding(&space, &said, "m");
    assert!(verdict == "not_looked", "{said}");
    assert!(what.contains("was not opened") && what.contains("first.key does not fit"), "{what}");
    nothing_is_left(&space, &luks);

    // Both, by the plan of the set.
    space.rig.configure(&format!("[defaults]\nluks_key_files = {:?}\n", [&first, &second]));
    let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
    for name in ["a", "l", "m"] {
        assert_eq!(finding(&space, &said, name).0, "sound", "{said}");
    }
    verify(&space, &set, &[]).exits(0).says("restored; 3 of 3 filesystems are sound");
    nothing_is_left(&space, &luks);
    let shown = space.run(&["show", &set, "-o", "json"]).exits(0).record();
    assert_eq!(shown["verified"]["sound"], 3, "{shown}");
}

/// xfs_repair takes a log that has something in it for nothing worse than one that was not unmounted: what tells them
/// apart is what the bytes behind the header say, before anything is mounted.
#[test]
fn a_false_label_is_caught_also_in_luks() {
    let space = three();
    let luks = Luks::new(&space);
    let key = luks.key("key");
    luks.make("l", &key, XFS);
    luks.make("m", &key, EXT4);
    space.write(&["a", "l", "m"], "before");
    let set = space.take();
    space.sh(&format!("umount {}", space.at("a"))); // by which it is as its label says
    space.write(&["l", "m"], "unfrozen");
    without_a_freeze(&space.rig, &set);
    let said = verify(&space, &set, &["--key-file", text(&key), "-o", "json"]).exits(24).record();
    assert_eq!(finding(&space, &said, "a").0, "sound", "{said}");
    for name in ["l", "m"] {
        assert_eq!(finding(&space, &said, name).0, "fault", "{said}");
    }
    nothing_is_left(&space, &luks);
}

/// Killed or interrupted at any step of opening, looking and closing, or closed by nobody: nothing is left, at once or by
/// the next one.
#[test]
fn nothing_stays_open_of_one_that_is_interrupted_or_killed() {
    let space = Namespace::empty(&[("l", Fs::Ext4)]);
    let (luks, key, set) = in_luks(&space);
    for step in ["before-uuid", "after-uuid", "before-open", "after-open", "before-remove", "after-remove"] {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            luks.hold(step);
            let run = space.spawn(&["verify", &set, "--level", "restore", "--key-file", text(&key)]);
            luks.await_held(step);
            run.signal(signal);
            if signal == Signal::SIGKILL {
                run.end();
                luks.release(step);
                // What was started goes on, as where no unit ends it.
                await_some("the end of what it has started", || (!luks.runs()).then_some(()));
                space.run(&["verify", "--clean-up"]).exits(0).says("verify that was killed");
            } else {
                luks.release(step);
                eprintln!("{}", run.end().err);
            }
            eprintln!("{step} {signal}");
            nothing_is_left(&space, &luks);
        }
    }
}

#[test]
fn a_key_file_that_others_can_read_is_refused_before_anything_is_made() {
    let space = Namespace::empty(&[("l", Fs::Ext4)]);
    let (_luks, key, set) = in_luks(&space);
    let file = text(&key);
    for (change, says) in [
        (format!("chmod 640 {file}"), "can be read by others"),
        (format!("chmod 600 {file}; chown 1 {file}"), "key"),
        (format!("chown 0 {file}; : >{file}"), "no file with a key"),
        (format!("rm {file}"), "No such file"),
    ] {
        space.sh(&change);
        for more in [&["--key-file", file][..], &["--key-file", file, "-n"]] {
            verify(&space, &set, more).exits(78).says("--key-file").says(says);
        }
        space.rig.configure(&format!("[defaults]\nluks_key_files = [{file:?}]\n"));
        verify(&space, &set, &[]).exits(78).says("luks_key_files").says(says);
        space.rig.configure("");
    }
    space.run(&["verify", &set, "--key-file", file]).exits(64).says("--level restore");
    assert_eq!(made(&space), 0);
}
