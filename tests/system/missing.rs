//! What should be mounted and is not: mounted by its automount before the plan, or told.

use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some, put_executable};
use serde_json::Value;

/// A host with `a` mounted, and `b` made but not mounted.
fn host() -> Namespace {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    space.mount("a", "defaults");
    space
}

fn is_mounted(space: &Namespace, name: &str) -> bool {
    let at = space.at(name);
    let table = space.sh("cat /proc/self/mountinfo");
    table.lines().any(|l| l.split(' ').nth(4) == Some(&at) && !l.contains(" - autofs "))
}

fn json(space: &Namespace, command: &str) -> Ended {
    space.run(&[command, "--output", "json"])
}

fn mounts(record: &Value) -> Vec<&str> {
    let filesystems = record["plan"]["filesystems"].as_array().unwrap();
    filesystems.iter().map(|f| f["mount_point"].as_str().unwrap()).collect()
}

#[test]
fn an_automount_is_mounted_before_the_plan_and_is_in_the_set() {
    if rig::lacks("autofs") {
        return;
    }
    let space = host();
    let (a, b) = (space.at("a"), space.at("b"));
    let device = space.rig.device("b");
    space.fstab(&format!("{device} {b} ext4 noauto,x-systemd.automount 0 2\n"));
    let _daemon = space.automount(&device, "b");
    // A plan only looks.
    let plan = json(&space, "plan");
    plan.exits(0);
    assert_eq!(mounts(&plan.record()), [a.as_str()]);
    assert_eq!(plan.record()["plan"]["missing"][0]["mount_point"], b.as_str());
    assert!(!is_mounted(&space, "b"));
    let run = json(&space, "snapshot");
    run.exits(0).says("mounted").says(&b);
    let record = run.record();
    assert_eq!(mounts(&record), [a.as_str(), b.as_str()]);
    assert_eq!(record["achieved"], "filesystem");
    assert_eq!(record["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(record["plan"]["missing"], serde_json::json!([]));
    assert!(is_mounted(&space, "b"));
}

#[test]
fn an_automount_is_only_named_by_configuration() {
    if rig::lacks("autofs") {
        return;
    }
    let space = host();
    let device = space.rig.device("b");
    space.fstab(&format!("{device} {} ext4 x-systemd.automount\n", space.at("b")));
    let _daemon = space.automount(&device, "b");
    space.rig.configure("[defaults]\nautomounts = \"name\"\n");
    let run = json(&space, "snapshot");
    run.exits(0).says("should be mounted and is not").says("automounts = \"name\"");
    assert_eq!(mounts(&run.record()), [space.at("a").as_str()]);
    assert!(!is_mounted(&space, "b"));
}

/// It is tried, fails, and counts; also in a rehearsal, which does all that a run does.
#[test]
fn an_automount_that_fails_is_no_set_of_everything() {
    if rig::lacks("autofs") {
        return;
    }
    let space = host();
    let device = space.rig.device("b");
    space.fstab(&format!("{device} {} ext4 x-systemd.automount\n", space.at("b")));
    let _daemon = space.automount("/dev/nothing-at-all", "b");
    let run = json(&space, "snapshot");
    run.exits(22).says("its automount failed");
    assert_eq!(run.record()["achieved"], "filesystem", "what is in the set is as good as ever");
    assert_eq!(run.record()["snapshots"].as_array().unwrap().len(), 1);
    let rehearsal = space.run(&["rehearse"]);
    rehearsal.exits(22).says("its automount failed");
    let shown = rehearsal.out + &rehearsal.err;
    assert!(shown.contains("should be mounted and is not"), "{shown}");
    space.run(&["freeze", "--for", "60s"]).exits(0);
    let thawed = space.run(&["thaw"]);
    thawed.exits(22).says("should be mounted and is not");
    assert!(!is_mounted(&space, "b"));
}

/// Its disk does not answer: a signal ends the run, and what waits for the mount.
#[test]
fn an_automount_that_hangs_can_be_interrupted() {
    if rig::lacks("autofs") {
        return;
    }
    let space = host();
    let (b, device) = (space.at("b"), space.rig.device("b"));
    space.fstab(&format!("{device} {b} ext4 x-systemd.automount\n"));
    let daemon = space.automount("never", "b");
    let run = space.spawn(&["snapshot"]);
    let asked = space.path("b.asked");
    await_some("the automounter to be asked", || asked.exists().then_some(()));
    run.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.signal, Some(15), "{}", ended.err);
    assert!(!is_mounted(&space, "b"));
    // Nothing of it is left that waits there, and keeps the mounts of this namespace.
    let here = std::fs::read_link(format!("/proc/{}/ns/mnt", space.pid())).unwrap();
    let waits = |process: &std::path::Path| {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        command.split(|b| *b == 0).any(|word| word == b"__inspect")
            && std::fs::read_link(process.join("ns/mnt")).is_ok_and(|of| of == here)
    };
    await_some("the helper to end", || {
        let mut all = std::fs::read_dir("/proc").ok()?.flatten();
        (!all.any(|entry| waits(&entry.path()))).then_some(())
    });
    drop(daemon);
}

/// `nofail`: the host started without it, and nobody was told.
#[test]
fn a_line_of_fstab_that_nothing_shows_is_told_and_counts() {
    let space = host();
    let b = space.at("b");
    space.fstab(&format!("{} {b} ext4 nofail 0 2\nUUID=0-1 /gone ext4 nofail\n", space.rig.device("b")));
    let plan = space.run(&["plan"]);
    let said = plan.exits(0).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("Should be mounted, and is not"), "{said}");
    assert!(said.contains(&format!("{b} (")) && said.contains("it is not mounted"), "{said}");
    assert!(said.contains("/gone (UUID=0-1, named by /etc/fstab, line 2)"), "{said}");
    let run = json(&space, "snapshot");
    run.exits(22).says("should be mounted and is not").says("nothing here is UUID=0-1");
    let missing = run.record()["plan"]["missing"].clone();
    assert_eq!(missing.as_array().unwrap().len(), 2);
    assert_eq!((&missing[0]["counts"], &missing[1]["counts"]), (&true.into(), &true.into()));
    space.run(&["snapshot", "--on-degraded", "keep"]).exits(10).says("should be mounted and is not");
    space.rig.configure("[defaults]\nmissing_mounts = \"warn\"\n");
    space.run(&["snapshot"]).exits(0).says("should be mounted and is not");
    space.rig.configure(&format!("[defaults]\nexclude_mounts = [{b:?}, \"/gone\"]\n"));
    let run = space.run(&["snapshot"]);
    assert!(!run.exits(0).err.contains("should be mounted"), "{}", run.err);
    let doctor = space.run(&["doctor", "--output", "json"]);
    assert!(!doctor.out.contains("not-mounted"), "{}", doctor.out);
    space.rig.configure("");
    let doctor = space.run(&["doctor", "--output", "json"]);
    let findings = doctor.record()["findings"].clone();
    let found = findings.as_array().unwrap().iter().filter(|f| f["id"] == "not-mounted").count();
    assert_eq!(found, 2, "{}", doctor.out);
    space.mount("b", "defaults");
    let run = json(&space, "snapshot");
    assert_eq!(run.record()["plan"]["missing"].as_array().unwrap().len(), 1, "{}", run.err);
}

/// A unit that nobody wrote into fstab; and a systemctl that does not answer is not taken for "nothing
/// failed".
#[test]
fn a_mount_unit_that_failed_is_told() {
    let space = host();
    let (b, device) = (space.at("b"), space.rig.device("b"));
    space.fstab("");
    space.sh("mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/systemd/system");
    space.with_systemctl(&[]);
    let said = format!(
        "Id=b.mount\nLoadState=loaded\nActiveState=failed\nResult=exit-code\nUnitFileState=static\n\
         Where={b}\nWhat={device}\nOptions=rw\n"
    );
    std::fs::write(space.path("said"), said).unwrap();
    let ctl = |script: &str| {
        put_executable(&space.path("ctl"), format!("#!/bin/sh\n{script}\n"));
        space.sh(&format!("cp {} /usr/local/sbin/systemctl", space.at("ctl")));
    };
    ctl(&format!("cat {}", space.at("said")));
    space.run(&["snapshot"]).exits(22).says("b.mount has failed (exit-code)");
    ctl("echo 'Failed to connect to bus' >&2; exit 1");
    let plan = json(&space, "plan");
    let notes = plan.exits(0).record()["plan"]["notes"].to_string();
    assert!(notes.contains("Mount units were not looked at"), "{notes}");
}
