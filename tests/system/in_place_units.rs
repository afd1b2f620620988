//! Restore in place: the units that it stops, and who uses a disk without a mount.

use nix::sys::signal::Signal;
use rig::namespace::Namespace;
use rig::program::await_some;

use super::in_place::{BOTH, NEW, OLD, attached, content, listed, restore, two};

/// Units are stopped before anything is unmounted, and started again in reverse, also when it fails.
#[test]
fn units_are_stopped_before_and_started_after() {
    let (space, set) = two();
    space.with_systemctl(&[
        ("db.service", "active"),
        ("idle.service", "inactive"),
        ("other.service", "active"),
    ]);
    let units = ["--stop-unit", "db.service", "--stop-unit", "idle.service", "--stop-unit", "other.service"];
    let told = ["stop db.service", "stop other.service", "start other.service", "start db.service"];
    let done = restore(&space, &[&[set.as_str(), "--in-place", "-o", "json"], &units[..]].concat())
        .exits(0)
        .record();
    assert_eq!(space.told(), told);
    restore(&space, &["--undo", done["restores"][0]["id"].as_str().unwrap()]).exits(0);
    assert_eq!(space.told(), [told, told].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    let add = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "error"];
    space.rig.sim(&[&add[..], &["--code", "UnauthorizedOperation", "--status", "403"]].concat());
    restore(&space, &[&[set.as_str(), "--in-place"], &units[..]].concat()).exits(77);
    assert_eq!(space.told(), [told, told, told].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    std::fs::write(space.path("stopping/start-db.service"), "exit 1\n").unwrap();
    let done = restore(&space, &[&[set.as_str(), "--in-place"], &units[..]].concat());
    done.exits(11).says("start it by hand").says("is restored in place");
    assert_eq!(content(&space, &BOTH), OLD);
    restore(&space, &[&set, "--in-place", "--stop-unit", "--now"]).exits(64);
}

/// What would start a unit on the empty folder is stopped before it, also where the unit does not run just now, and is
/// started again after a kill too.
#[test]
fn what_would_start_a_unit_in_between_is_stopped_too() {
    let (space, set) = two();
    space.with_systemctl(&[
        ("db.service", "active"),
        ("db.timer", "active"),
        ("db.path", "inactive"),
        ("idle.service", "inactive"),
        ("idle.socket", "active"),
    ]);
    std::fs::write(space.path("triggers/db.service"), "db.path db.timer").unwrap();
    std::fs::write(space.path("triggers/idle.service"), "idle.socket").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "idle.service"];
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let killed = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    let stopped = ["stop db.timer", "stop db.service", "stop idle.socket"];
    assert_eq!(space.told(), stopped);
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.end();
    space.rig.sim(&["faults", "clear"]);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0);
    let started = ["start idle.socket", "start db.service", "start db.timer"];
    assert_eq!(space.told(), [&stopped[..], &started[..]].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    restore(&space, &[&set, "--in-place", "--stop-unit", "none.service"])
        .exits(78)
        .says("there is no unit none.service");
}

/// What somebody starts in between works with the folders below: it starts once more on what is mounted.
#[test]
fn a_unit_that_is_started_in_between_is_started_once_more() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--in-place", "--stop-unit", "db.service"]);
    space.rig.sim(&["faults", "wait", &held]);
    std::fs::write(space.path("units/db.service"), "active").unwrap();
    space.rig.sim(&["faults", "release", &held]);
    run.end().exits(0).says("db.service ran again before everything was mounted");
    assert_eq!(space.told(), ["stop db.service", "stop db.service", "start db.service"]);
}

/// No claim shows a process that has a disk open for writing: a database on a raw device, or dd.
#[test]
fn who_writes_to_a_disk_without_a_mount_is_named_before_anything_is_touched() {
    let (space, set) = two();
    space.sh(&format!("umount {}", space.at("b")));
    let (before, device) = (attached(&space), space.rig.device("b"));
    let raw = space.background(&format!("exec 3<>{device}; echo ready; exec cat"));
    restore(&space, &[&set, "--in-place"]).exits(78).says("open for writing");
    assert!(space.rig.calls("CreateVolume").iter().all(|c| c["dry_run"] == true));
    // One that a unit has is seen when that is stopped, and ends with it, or does not.
    space.with_systemctl(&[("db.service", "active")]);
    let unit = ["--stop-unit", "db.service"];
    restore(&space, &[&[&*set, "--in-place"], &unit[..]].concat()).exits(11).says("open for writing");
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    assert!(space.rig.calls("DetachVolume").iter().all(|c| c["dry_run"] == true), "nothing was touched");
    assert_eq!(attached(&space), before);
    drop(raw);
    await_some("nobody writes", || {
        let done = restore(&space, &[&[&*set, "--in-place"], &unit[..]].concat());
        done.err.contains("is restored in place").then_some(())
    });
}

const HOLD: [&str; 8] = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];

/// Kills a restore in place while EC2 is asked to detach the first volume, and returns its id.
fn killed_in_the_middle(space: &Namespace, run: &[&str]) -> String {
    let held = space.rig.sim(&HOLD).trim().to_owned();
    let killed = space.spawn(run);
    space.rig.sim(&["faults", "wait", &held]);
    killed.signal(Signal::SIGKILL);
    killed.end();
    space.rig.sim(&["faults", "clear"]);
    listed(space).iter().map(|r| r["id"].as_str().unwrap().to_owned()).max().unwrap()
}

/// Kills this run where systemctl does this with db.service.
fn killed_at(space: &Namespace, what: &str, run: &[&str]) {
    let gate = "touch waiting; while [ -e waiting ]; do sleep 0.1; done\n";
    let at = space.path("stopping").join(format!("{what}db.service"));
    std::fs::write(&at, gate).unwrap();
    let killed = space.spawn(run);
    await_some("systemctl", || space.path("waiting").exists().then_some(()));
    killed.signal(Signal::SIGKILL);
    killed.end();
    std::fs::remove_file(at).unwrap();
    std::fs::remove_file(space.path("waiting")).unwrap();
}

/// Nothing starts what was stopped, until everything is mounted: it is masked, in /run, and only then started.
#[test]
fn what_was_stopped_is_masked_until_everything_is_mounted() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active"), ("db.timer", "active"), ("idle.service", "inactive")]);
    std::fs::write(space.path("triggers/db.service"), "db.timer").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "idle.service"];
    let all = ["db.service", "db.timer", "idle.service"];
    let held = space.rig.sim(&HOLD).trim().to_owned();
    let running = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    let (now, told) = space.masks();
    assert_eq!((&now[..], &told[..]), (&all.map(str::to_owned)[..], &all.map(|u| format!("mask {u}"))[..]));
    let start = |unit: &str| space.try_sh(&format!("/usr/local/sbin/systemctl start {unit}"));
    assert!(start("db.service").unwrap_err().contains("is masked"));
    assert!(
        start("idle.service").unwrap_err().contains("is masked"),
        "nobody starts what did not run either"
    );
    space.rig.sim(&["faults", "release", &held]);
    running.end().exits(0);
    assert_eq!(space.masks().0, [""; 0]);
    assert_eq!(space.told(), ["stop db.timer", "stop db.service", "start db.service", "start db.timer"]);
}

/// Killed in the middle, units stay masked until it has gone on, or back, and everything is mounted.
#[test]
fn units_of_one_that_was_killed_in_the_middle_stay_masked_until_everything_is_mounted() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active"), ("idle.service", "inactive")]);
    let early =
        format!("mountpoint -q {} && mountpoint -q {} || echo x >> early\n", space.at("a"), space.at("b"));
    for unit in ["db.service", "idle.service"] {
        std::fs::write(space.path("stopping").join(format!("unmask-{unit}")), &early).unwrap();
    }
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "idle.service"];
    for (way, then) in [("--undo", NEW), ("--continue", OLD)] {
        let id = killed_in_the_middle(&space, &run);
        assert_eq!(space.masks().0, ["db.service", "idle.service"]);
        assert!(space.try_sh(&format!("mountpoint -q {}", space.at("a"))).is_err());
        restore(&space, &["--clean-up"]).exits(11).says(&format!("--continue {id}"));
        assert_eq!(space.masks().0.len(), 2, "which volumes they would start on is not known");
        restore(&space, &["--undo", &id, "-n"]).exits(0).says("would be put back as");
        restore(&space, &[way, &id]).exits(0);
        assert_eq!(space.masks().0, [""; 0]);
        assert!(!space.path("early").exists(), "unmasked before everything was mounted");
        assert_eq!(space.told(), ["stop db.service", "start db.service"]);
        std::fs::remove_file(space.path("log")).unwrap();
        assert_eq!(content(&space, &BOTH), then);
    }
}

/// Killed before anything was unmounted, the units can be started again: the timer does it, or --undo.
#[test]
fn units_of_one_that_was_killed_before_anything_went_run_again() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service"];
    killed_at(&space, "mask-", &run);
    assert_eq!(
        (space.masks().0, space.told()),
        (vec!["db.service".to_owned()], vec!["stop db.service".to_owned()])
    );
    restore(&space, &["--clean-up", "--dry-run"]).exits(0).says("has left units stopped");
    assert_eq!(space.masks().0, ["db.service"]);
    restore(&space, &["--clean-up"]).exits(0).says("they are started");
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    assert!(space.masks().0.is_empty());
    restore(&space, &["--clean-up"]).exits(0);
    assert_eq!(space.told().len(), 2, "once");
    assert_eq!(content(&space, &BOTH), NEW);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");

    killed_at(&space, "mask-", &run);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    assert_eq!((space.masks().0.len(), &space.told()[3..]), (0, &["start db.service".to_owned()][..]));
    assert_eq!(content(&space, &BOTH), NEW);

    // Killed while masks were taken off, at the end.
    killed_at(&space, "unmask-", &run);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--continue", &id]).exits(0);
    assert_eq!((space.masks().0.len(), space.told().last().unwrap()), (0, &"start db.service".to_owned()));
    assert_eq!(content(&space, &BOTH), OLD);

    // On the way back, before anything was unmounted: the new volumes are in place.
    killed_at(&space, "mask-", &["restore", "--undo", &id]);
    assert_eq!(space.masks().0, ["db.service"]);
    restore(&space, &["--continue", &id]).exits(0).says("is done");
    assert_eq!((space.masks().0.len(), space.told().last().unwrap()), (0, &"start db.service".to_owned()));
    assert_eq!(content(&space, &BOTH), OLD);
}

/// Of units that did not run there is nothing to start, and still a mask to take off.
#[test]
fn a_mask_of_a_unit_that_did_not_run_is_taken_off_too() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "inactive")]);
    killed_at(&space, "mask-", &["restore", &set, "--in-place", "--stop-unit", "db.service"]);
    assert_eq!((space.masks().0, space.told().len()), (vec!["db.service".to_owned()], 0));
    restore(&space, &["--clean-up"]).exits(0);
    assert_eq!((space.masks().0.len(), space.told().len()), (0, 0));
}

/// What is started between its stop and its mask is stopped as it wants to be, which systemd does not know of what is masked.
#[test]
fn what_is_started_before_it_is_masked_is_stopped_again_without_its_mask() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let starts = "[ -e once ] || echo active > units/db.service; touch once\n";
    std::fs::write(space.path("stopping/mask-db.service"), starts).unwrap();
    let stops = "! masked db.service || echo x > without-its-way\n";
    std::fs::write(space.path("stopping/db.service"), stops).unwrap();
    let done = restore(&space, &[&set, "--in-place", "--stop-unit", "db.service"]);
    done.exits(0).says("db.service was started again, and is stopped again");
    assert_eq!(space.told(), ["stop db.service", "stop db.service", "start db.service"]);
    assert!(!space.path("without-its-way").exists());
    assert!(space.masks().0.is_empty());
}

/// Where neither of the two is in place, units stay masked, and how that ends by hand is said.
#[test]
fn where_neither_is_in_place_units_stay_masked_and_the_way_out_is_told() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let hold = ["faults", "add", "--action", "AttachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let killed = space.spawn(&["restore", &set, "--in-place", "--stop-unit", "db.service"]);
    space.rig.sim(&["faults", "wait", &held]);
    killed.signal(Signal::SIGKILL);
    killed.end();
    space.rig.sim(&["faults", "clear"]);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    let denied = ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403"];
    space.rig.sim(&[&["faults", "add", "--action", "AttachVolume"][..], &denied].concat());
    let neither = restore(&space, &["--undo", &id]);
    neither
        .exits(41)
        .says("systemctl unmask --runtime db.service")
        .says("/run/systemd/system.control/db.service");
    assert_eq!(
        (space.masks().0, space.told()),
        (vec!["db.service".to_owned()], vec!["stop db.service".to_owned()])
    );
    space.rig.sim(&["faults", "clear"]);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!((space.masks().0.len(), space.told().len()), (0, 2));
    assert_eq!(content(&space, &BOTH), NEW);
}

/// A mask of somebody else stays, whenever it came, and is said.
#[test]
fn a_mask_of_somebody_else_stays() {
    let (space, set) = two();
    space.with_systemctl(&[
        ("db.service", "active"),
        ("other.service", "active"),
        ("masked.service", "inactive"),
    ]);
    std::fs::write(space.path("masks/masked.service"), "").unwrap();
    let refused = restore(&space, &[&set, "--in-place", "--stop-unit", "masked.service"]);
    refused.exits(78).says("masked.service is masked").says("nothing was touched");
    // This one masks it while it is stopped.
    std::fs::write(space.path("stopping/db.service"), ": > masks/db.service\n").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "other.service"];
    space
        .run(&run)
        .exits(11)
        .says("is restored in place")
        .says("db.service is masked")
        .says("start it by hand");
    assert_eq!(space.masks().0, ["db.service", "masked.service"]);
    assert_eq!(space.masks().1, ["mask other.service", "unmask other.service"]);
    assert_eq!(content(&space, &BOTH), OLD);
    // And this one while it is masked: only the own mask is taken off.
    std::fs::remove_file(space.path("masks/db.service")).unwrap();
    std::fs::write(space.path("units/db.service"), "active").unwrap();
    std::fs::remove_file(space.path("stopping/db.service")).unwrap();
    std::fs::write(space.path("stopping/unmask-db.service"), ": > masks/db.service\n").unwrap();
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(11).says("masked by something else by now");
    assert_eq!(content(&space, &BOTH), NEW);
}

/// After a boot, no mask in /run is of this restore; and what cannot be started must not keep volumes away.
#[test]
fn after_a_boot_masks_are_of_somebody_else() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service"];
    let id = killed_in_the_middle(&space, &run);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = space.path(&format!("state/restores/{id}.json"));
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    std::fs::write(&record, text.replace(boot.trim(), "11111111-2222-3333-4444-555555555555")).unwrap();
    restore(&space, &["--undo", &id]).exits(11).says("start it by hand");
    assert_eq!(content(&space, &BOTH), NEW);
    assert_eq!(space.masks(), (vec!["db.service".to_owned()], vec!["mask db.service".to_owned()]));
}

/// A unit file in /etc counts more than a mask in /run/systemd/system, and less than one in system.control.
#[test]
fn a_unit_of_etc_is_masked_where_systemd_heeds_it_or_that_is_said() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active"), ("made.service", "active")]);
    std::fs::write(space.path("etc/db.service"), "").unwrap();
    // Of one whose file is in /run/systemd/system itself, there is no place for a mask.
    std::fs::write(space.path("in-run/made.service"), "").unwrap();
    let units = ["--stop-unit", "db.service", "--stop-unit", "made.service"];
    let run = [&["restore", &set, "--in-place", "-o", "json"][..], &units[..]].concat();
    // Without systemd, nothing reads such a folder. The host's is none of this test's.
    space.sh("mkdir -p /run/systemd; mount -t tmpfs stillpoint-test /run/systemd");
    let done = space.run(&run);
    for unit in ["db.service", "made.service"] {
        done.exits(0).says(&format!("{unit} is not kept from being started meanwhile"));
    }
    restore(&space, &["--undo", done.record()["restores"][0]["id"].as_str().unwrap()]).exits(0);
    assert!(space.try_sh("ls /run/systemd/system.control").is_err());
    space.sh("mkdir /run/systemd/system");
    let held = space.rig.sim(&HOLD).trim().to_owned();
    let running = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    for unit in ["db.service", "made.service"] {
        let link = format!("/run/systemd/system.control/{unit}");
        assert_eq!(space.sh(&format!("readlink {link}")), "/dev/null\n");
        let started = space.try_sh(&format!("/usr/local/sbin/systemctl start {unit}"));
        assert!(started.unwrap_err().contains("is masked"));
    }
    space.rig.sim(&["faults", "release", &held]);
    let ended = running.end();
    ended.exits(0);
    assert!(!ended.err.contains("is not kept"), "{}", ended.err);
    assert_eq!(space.sh("ls /run/systemd/system.control"), "", "the masks are taken off");
    assert!(space.masks().0.is_empty());
}

/// Whoever reads a disk would read errors, or the other volume.
#[test]
fn who_only_reads_a_disk_is_named_too() {
    let (space, set) = two();
    let device = space.rig.device("b");
    let reader = space.background(&format!("exec 3<{device}; echo ready; exec cat"));
    let refused = restore(&space, &[&set, "--in-place"]);
    refused.exits(78).says(&format!("has {device} open")).says("nothing was touched");
    assert!(!refused.err.contains("open for writing"), "{}", refused.err);
    assert!(space.rig.calls("CreateVolume").is_empty());
    drop(reader);
    // By a descriptor of O_PATH, nothing can be read.
    let script = "sysopen(my $f, $ARGV[0], 010000000) or die; $| = 1; print \"ready\\n\"; <STDIN>";
    let _looker = space.background(&format!("exec perl -e '{script}' {device}"));
    await_some("nobody reads", || {
        restore(&space, &[&*set, "--in-place"]).err.contains("is restored in place").then_some(())
    });
}

/// A mount of another namespace is named, where nothing is mounted of it here.
#[test]
fn a_mount_of_another_namespace_is_named_with_its_process() {
    let (space, set) = two();
    let elsewhere = space.background("exec unshare -m --propagation private sh -c 'echo ready; exec cat'");
    space.sh(&format!("umount {}", space.at("b")));
    let refused = restore(&space, &[&set, "--in-place"]);
    refused.exits(78).says(&format!("is mounted on {} in the mount namespace of", space.at("b")));
    assert!(space.rig.calls("CreateVolume").is_empty());
    drop(elsewhere);
}

/// Nobody has a swap file open, and umount only says that it is busy.
#[test]
fn a_swap_file_on_what_would_go_is_refused_before_anything_is_touched() {
    let (space, set) = two();
    let file = format!("{}/swap", space.at("a"));
    space.sh(&format!(
        "dd if=/dev/zero of={file} bs=1M count=4 status=none; chmod 600 {file}; mkswap -q {file}"
    ));
    if let Err(why) = space.try_sh(&format!("swapon {file}")) {
        eprintln!("\n*** NOT TESTED: swapon: {why} ***\n");
        return;
    }
    let refused = restore(&space, &[&set, "--in-place"]);
    let off = space.try_sh(&format!("swapoff {file}"));
    refused.exits(78).says(&format!("{file} is used as swap")).says("swapoff");
    off.unwrap();
    assert!(space.rig.calls("CreateVolume").is_empty());
}
