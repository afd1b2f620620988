//! Automounts and mount units of systemd: stopped and started around it, and named where it would interfere.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;

use super::is_refused;

/// A namespace where systemd seems to run, and the names of the units of `a`'s mount point.
fn booted() -> (Namespace, String, String) {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.sh("mkdir -p /run/systemd; mount -t tmpfs t /run/systemd; mkdir /run/systemd/system");
    let named = |kind| {
        space.sh(&format!("systemd-escape --path --suffix={kind} {}", space.at("a"))).trim().to_owned()
    };
    let (mount, automount) = (named("mount"), named("automount"));
    space.unmounting(&["a"], "");
    (space, mount, automount)
}

#[test]
fn an_automount_is_stopped_in_the_window_and_started_before_the_mount() {
    if rig::lacks("autofs") {
        return;
    }
    let (space, mount, automount) = booted();
    let a = space.at("a");
    // Nobody reads the pipe of this automount, so whatever triggers it fails at once. Its own process group
    // (pgrp=) does not trigger it.
    let autofs = format!(
        "mount -t autofs -o fd=1,pgrp=$(cut -d' ' -f5 /proc/self/stat),minproto=5,maxproto=5,direct systemd-1 {a} | true"
    );
    space.with_systemctl(&[(&mount, "active"), (&automount, "active")]);
    std::fs::write(space.path("stopping").join(&automount), format!("umount {a}\n")).unwrap();
    std::fs::write(space.path("stopping").join(format!("start-{automount}")), format!("{autofs}\n")).unwrap();
    std::fs::write(
        space.path("mount.sh"),
        format!("{autofs}\nmount -o noatime {} {a}\n", space.rig.device("a")),
    )
    .unwrap();
    space.sh(&format!("setsid sh -eu {}", space.at("mount.sh")));
    let kinds = || {
        let table = space.sh("cat /proc/self/mountinfo");
        let ours: Vec<_> = table.lines().filter(|l| l.contains(&format!(" {a} "))).collect();
        let top = ours
            .iter()
            .find(|l| l.contains(" - ext4 "))
            .map(|l| l.split(' ').skip(2).collect::<Vec<_>>().join(" "));
        (ours.iter().filter(|l| l.contains(" - autofs ")).count(), ours.len(), top)
    };
    let before = kinds();
    assert_eq!((before.0, before.1), (1, 2), "{before:?}");
    let run = space.in_the_window(&["snapshot"]);
    assert_eq!(kinds(), (0, 0, None));
    run.end().exits(0);
    assert_eq!(space.told(), [format!("stop {automount}"), format!("start {automount}")]);
    assert_eq!(kinds(), before);
    space.sh(&format!("test -d {a}/lost+found")); // on top of the automount, not below it
    space.sh(&format!("umount {a}; umount {a}"));
}

/// systemd follows the path of an automount itself. So it is not asked to where others than root could lead
/// it elsewhere: not by a run, and not by a recovery.
#[test]
fn an_automount_that_others_could_lead_elsewhere_is_left_alone() {
    if rig::lacks("autofs") {
        return;
    }
    let (space, ..) = booted();
    let (home, lib) = (space.at("home"), space.at("home/lib"));
    let automount = space.sh(&format!("systemd-escape --path --suffix=automount {lib}")).trim().to_owned();
    let autofs = format!(
        "mount -t autofs -o fd=1,pgrp=$(cut -d' ' -f5 /proc/self/stat),minproto=5,maxproto=5,direct systemd-1 {lib} | true"
    );
    space.with_systemctl(&[(&automount, "active")]);
    std::fs::write(space.path("stopping").join(&automount), format!("umount {lib}\n")).unwrap();
    let script = format!("mkdir -p {lib}\n{autofs}\nmount {} {lib}\n", space.rig.device("a"));
    std::fs::write(space.path("mount.sh"), script).unwrap();
    space.sh(&format!("setsid sh -eu {}", space.at("mount.sh")));
    space.rig.configure(&format!("[defaults.methods]\n\"{lib}\" = \"unmount\"\n"));
    let says = format!(
        "{automount} would have to be stopped and started, systemd follows its path, and {home} belongs to user 65534"
    );
    space.sh(&format!("chown 65534 {home}"));
    is_refused(&space, &[&says]);
    space.sh(&format!("chown root {home}"));
    let run = space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    space.rig.await_quiet();
    space.sh(&format!("chown 65534 {home}"));
    space.run(&["thaw"]).exits(41).says(&says);
    assert_eq!(space.told(), [format!("stop {automount}")]);
    space.sh(&format!("chown root {home}"));
    space.run(&["thaw"]).exits(0);
    assert_eq!(space.told(), [format!("stop {automount}"), format!("start {automount}")]);
    assert_eq!(space.table().len(), 1);
    space.sh(&format!("umount {lib}"));
}

#[test]
fn an_automount_that_is_not_systemds_is_refused() {
    if rig::lacks("autofs") {
        return;
    }
    let (space, mount, automount) = booted();
    let a = space.at("a");
    let script = format!(
        "mount -t autofs -o fd=1,pgrp=$(cut -d' ' -f5 /proc/self/stat),minproto=5,maxproto=5,direct x {a} | true\n\
         mount {} {a}\n",
        space.rig.device("a")
    );
    std::fs::write(space.path("mount.sh"), script).unwrap();
    space.sh(&format!("setsid sh -eu {}", space.at("mount.sh")));
    space.with_systemctl(&[(&mount, "active")]);
    is_refused(&space, &["an automounter other than systemd", &format!("{automount} is not active")]);
    space.sh(&format!("umount {a}; umount {a}"));
}

#[test]
fn a_unit_that_systemd_would_stop_with_the_mount_is_named() {
    let (space, mount, _) = booted();
    space.mount("a", "defaults");
    space.with_systemctl(&[(&mount, "active"), ("app.service", "active"), ("idle.service", "inactive")]);
    std::fs::write(space.path("bound").join(&mount), "idle.service app.service").unwrap();
    is_refused(&space, &[&format!("app.service is bound to {mount}"), "stop_units = [\"app.service\"]"]);
    space.unmounting(&["a"], "stop_units = [\"app.service\"]");
    space.run(&["snapshot"]).exits(0);
    assert_eq!(space.told(), ["stop app.service", "start app.service"]);
}

#[test]
fn a_mount_unit_that_does_not_come_back_is_told() {
    let (space, mount, _) = booted();
    space.mount("a", "defaults");
    space.with_systemctl(&[(&mount, "active")]);
    let run = space.in_the_window(&["snapshot"]);
    std::fs::write(space.path("units").join(&mount), "inactive").unwrap();
    run.end()
        .exits(11)
        .says(&format!("{mount} was active, and systemd has not noticed that it is mounted again"));
    assert_eq!(space.table().len(), 1);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}
