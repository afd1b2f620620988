//! What is kept from one server to the next.

use crate::support::{Mount, QUICK, Sim, needs_root, serve, sh, values, wait_for};
use nix::sys::signal::Signal;

fn start(volume: &str) -> Sim {
    let temp = tempfile::TempDir::new().expect("a temporary folder");
    let file = temp.path().join("scenario.toml");
    std::fs::write(&file, QUICK).expect("the scenario is written");
    let file = file.to_str().expect("UTF-8").to_owned();
    Sim::launch(temp, &["--keep", "--scenario", &file, "--volume", volume])
}

fn files(sim: &Sim) -> usize {
    std::fs::read_dir(sim.dir()).map_or(0, Iterator::count)
}

fn write(sim: &Sim, text: &str) {
    let mount = Mount::new(sim, "a", &sim.device("a"), "rw");
    std::fs::write(mount.path().join("file"), text).expect("a file");
    drop(mount);
}

fn read(sim: &Sim, device: &str) -> String {
    let mount = Mount::new(sim, "look", device, "ro");
    std::fs::read_to_string(mount.path().join("file")).expect("the file")
}

/// The same whether it ends in order or is killed right after an answer.
#[test]
fn volumes_snapshots_tags_and_keys_outlive_the_server() {
    needs_root();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let sim = start("name=a,size=64MiB,tag:Name=db");
        sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
        write(&sim, "before");
        let snapshot = sim.create_snapshots().remove(0);
        write(&sim, "after");
        sim.ok(&["call", "CreateTags", &format!("ResourceId.1={snapshot}"), "Tag.1.Key=k", "Tag.1.Value=v"]);
        let before = sim.ready.clone();

        let sim = sim.restart(signal, &["--keep"]);
        for key in ["instance_id", "credentials", "region"] {
            assert_eq!(sim.ready[key], before[key], "{key}");
        }
        assert_eq!(sim.id("a"), before["volumes"][0]["id"]);
        assert_eq!(read(&sim, &sim.device("a")), "after");
        let xml = sim.ok(&["call", "DescribeSnapshots", &format!("SnapshotId.1={snapshot}")]);
        assert_eq!(values(&xml, "value"), ["v"]);
        let device = sim.snapshot_device(&snapshot);
        assert_eq!(read(&sim, &device), "before");
        sim.release_device(&device);
        // A set goes on to be one clone over what was there.
        assert_eq!(sim.create_snapshot("a").len(), snapshot.len());
        sim.ok(&["stop", "--discard"]);
        assert_eq!(files(&sim), 0, "{signal}: nothing is left");
        std::mem::forget(sim);
    }
}

#[test]
fn a_kept_folder_is_not_begun_again() {
    needs_root();
    let mut sim = start("name=a,size=16MiB");
    sim.end(Signal::SIGTERM);
    for arguments in
        [&["--volume", "name=a,size=16MiB"][..], &["--keep", "--volume", "name=b,size=16MiB"], &[]]
    {
        let (line, child) = serve(&sim.dir(), arguments);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(line.is_empty() && said.contains("holds a saved simulation"), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(78));
    }
    std::fs::write(sim.dir().join("state.json"), "{\"version\":0}").expect("another version's");
    let (_, child) = serve(&sim.dir(), &["--keep"]);
    let said = String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stderr).into_owned();
    assert!(said.contains("has format 0, not 2") && said.contains("--discard"), "{said}");
    sim.ok(&["stop", "--discard"]);
    assert_eq!(files(&sim), 0);
}

/// A scenario with two accounts, a rule of the Recycle Bin and a policy.
const WHOLE: &str = "[[account]]\nid = '111122223333'\n[recycle_bin]\n[[recycle_bin.rule]]\ndays = 3\n[iam]\npolicy = \
                     '{\"Statement\": {\"Effect\": \"Allow\", \"Action\": \"ec2:*Snapshot*\", \"Resource\": \"*\"}}'\n";

#[test]
fn the_bin_the_clock_the_policy_and_other_accounts_outlive_the_server() {
    needs_root();
    let temp = tempfile::TempDir::new().expect("a temporary folder");
    let file = temp.path().join("scenario.toml");
    std::fs::write(&file, format!("{QUICK}{WHOLE}")).expect("the scenario is written");
    let file = file.to_str().expect("UTF-8").to_owned();
    let sim = Sim::launch(temp, &["--keep", "--scenario", &file, "--volume", "name=a,size=64MiB"]);
    sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
    write(&sim, "kept");
    let snapshot = sim.create_snapshots().remove(0);
    await_status(&sim, "DescribeSnapshots", &format!("SnapshotId.1={snapshot}"), "completed");
    let one = format!("SnapshotId={snapshot}");
    sim.ok(&["call", "ModifySnapshotAttribute", &one, "OperationType=add", "UserId.1=111122223333"]);
    sim.ok(&["call", "EnableSnapshotBlockPublicAccess", "State=block-new-sharing"]);
    sim.ok(&["clock", "--advance", "5h"]);
    sim.ok(&["call", "DeleteSnapshot", &one]);
    let (accounts, admin) = (sim.ready["accounts"].clone(), sim.ready["admin_credentials"].clone());

    let sim = sim.restart(Signal::SIGKILL, &["--keep"]);
    assert_eq!((&sim.ready["accounts"], &sim.ready["admin_credentials"]), (&accounts, &admin));
    let clock = sim.ok(&["clock"]).parse::<jiff::Timestamp>().expect("a time");
    assert!(clock.duration_since(jiff::Timestamp::now()) > jiff::SignedDuration::from_hours(4));
    let state = sim.ok(&["call", "GetSnapshotBlockPublicAccessState"]);
    assert_eq!(values(&state, "state"), ["block-new-sharing"]);
    assert!(!sim.command(&["call", "DescribeVolumes"]).status.success(), "the policy does not allow it");
    assert_eq!(values(&sim.ok(&["call", "ListSnapshotsInRecycleBin"]), "snapshotId"), [snapshot.as_str()]);
    sim.ok(&["call", "RestoreSnapshotFromRecycleBin", &one]);
    let device = sim.snapshot_device(&snapshot);
    assert_eq!(read(&sim, &device), "kept");
    sim.release_device(&device);
    let shared = sim.ok(&["call", "--account", "111122223333", "DescribeSnapshots"]);
    assert_eq!(values(&shared, "snapshotId"), [snapshot]);
    sim.ok(&["stop", "--discard"]);
    assert_eq!(files(&sim), 0);
    std::mem::forget(sim);
}

fn await_status(sim: &Sim, action: &str, id: &str, status: &str) {
    wait_for(&format!("{id} to be {status}"), || {
        values(&sim.ok(&["call", action, id]), "status").first().is_some_and(|now| now == status)
    });
}

/// What calls made later is kept as what was there from the beginning, and what was under way goes on.
#[test]
fn volumes_locks_copies_and_images_outlive_the_server() {
    needs_root();
    let sim = start("name=a,size=64MiB,device=/dev/sdf");
    sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
    write(&sim, "in the snapshot");
    let snapshot = sim.create_snapshots().remove(0);
    let snapshot_1 = format!("SnapshotId.1={snapshot}");
    await_status(&sim, "DescribeSnapshots", &snapshot_1, "completed");
    let snapshot_id = format!("SnapshotId={snapshot}");
    let from = ["call", "CreateVolume", "AvailabilityZone=us-east-1a", &snapshot_id];
    let attached = values(&sim.ok(&from), "volumeId").remove(0);
    await_status(&sim, "DescribeVolumes", &format!("VolumeId.1={attached}"), "available");
    let instance = format!("InstanceId={}", sim.ready["instance_id"].as_str().expect("an id"));
    sim.ok(&["call", "AttachVolume", &format!("VolumeId={attached}"), &instance, "Device=/dev/sdg"]);
    await_status(&sim, "DescribeVolumes", &format!("VolumeId.1={attached}"), "in-use");
    sim.ok(&["call", "LockSnapshot", &snapshot_id, "LockMode=governance", "LockDuration=3"]);
    let source = format!("SourceSnapshotId={snapshot}");
    let copy = ["call", "--region", "us-west-2", "CopySnapshot", "SourceRegion=us-east-1", &source];
    let copy = values(&sim.ok(&copy), "snapshotId").remove(0);
    let root = format!("BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}");
    let image = [
        "call",
        "RegisterImage",
        "Name=kept",
        "RootDeviceName=/dev/xvda",
        "BlockDeviceMapping.1.DeviceName=/dev/xvda",
        &root,
    ];
    let image = values(&sim.ok(&image), "imageId").remove(0);
    // Killed while this one is being made.
    let unfinished = values(&sim.ok(&from), "volumeId").remove(0);

    let sim = sim.restart(Signal::SIGKILL, &["--keep"]);
    await_status(&sim, "DescribeVolumes", &format!("VolumeId.1={unfinished}"), "available");
    let xml = sim.ok(&["call", "DescribeLockedSnapshots"]);
    assert_eq!(values(&xml, "snapshotId"), [snapshot.as_str()]);
    let xml = sim.ok(&["call", "--region", "us-west-2", "DescribeSnapshots", "Owner.1=self"]);
    assert_eq!(values(&xml, "snapshotId"), [copy.as_str()]);
    let xml = sim.ok(&["call", "DescribeImages", "Owner.1=self"]);
    assert_eq!(values(&xml, "imageId"), [image.as_str()]);
    // It was still being attached: its device comes.
    let device = || {
        let ready = std::fs::read(sim.dir().join("ebs-sim.json")).expect("the file");
        let ready: serde_json::Value = serde_json::from_slice(&ready).expect("json");
        let volumes = ready["volumes"].as_array().expect("a list");
        let volume = volumes.iter().find(|volume| volume["id"] == attached.as_str())?;
        Some(volume["loop"].as_str().expect("a path").to_owned())
    };
    wait_for("the attached volume's device", || device().is_some());
    assert_eq!(read(&sim, &device().expect("it came")), "in the snapshot");
    sim.ok(&["stop", "--discard"]);
    assert_eq!(files(&sim), 0);
    std::mem::forget(sim);
}
