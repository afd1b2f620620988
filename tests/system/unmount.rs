//! The method `unmount`: away over the point in time, and back exactly as it was, whatever happens in
//! between.

mod comes_back;
mod failed;
mod holders;
mod killed;
mod links;
mod systemd;
mod units;
mod window;

use rig::Fs;
use rig::namespace::Namespace;

/// Refused with code 21; nothing was touched, nothing was asked of EC2.
fn is_refused(space: &Namespace, says: &[&str]) {
    // The mount ids are compared too: they change when a filesystem is unmounted and mounted again.
    let with_ids = || space.sh(&format!("grep {}/ /proc/self/mountinfo", space.at("").trim_end_matches('/')));
    let before = with_ids();
    let ended = space.run(&["snapshot"]);
    ended.exits(21);
    for text in says {
        ended.says(text);
    }
    assert_eq!(with_ids(), before);
    assert_eq!(space.rig.creates().len(), 0);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}

const UNITS: &str = "stop_units = [\"db.service\", \"other.service\", \"idle.service\"]";

/// One ext4 at `a` with a table, and three units of which two run.
fn with_units() -> Namespace {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.mount("a", "noatime,nodev,commit=9");
    space.with_systemctl(&[
        ("db.service", "active"),
        ("other.service", "active"),
        ("idle.service", "inactive"),
    ]);
    space.unmounting(&["a"], UNITS);
    space
}

const STOPPED_AND_STARTED: [&str; 4] =
    ["stop db.service", "stop other.service", "start other.service", "start db.service"];

fn nothing_left(space: &Namespace, before: &[String]) {
    assert_eq!(space.table(), before);
    assert_eq!(space.rig.journals(), Vec::<String>::new(), "a journal is left");
}
