//! The method `unmount`: away over the point in time, and back exactly as it was, whatever happens in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::namespace::Namespace;
use common::probe::{Writer, assert_labels, needs_recovery};
use common::rig::Fs;

/// A set was taken, everything is as before, and nothing is left to do.
fn comes_back(space: &Namespace, unmount: &[&str]) {
    space.unmounting(unmount, "");
    let before = space.table();
    let ended = space.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["consistency"], "filesystem", "{record:#}");
    assert_eq!(space.table(), before);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}

#[test]
fn ext4_comes_back_with_its_options() {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.mount("a", "nosuid,nodev,noatime,errors=remount-ro,commit=7,data=journal");
    std::fs::create_dir(space.path("b")).unwrap();
    comes_back(&space, &["a"]);
    assert_labels(&space.rig, 1, "filesystem");
}
