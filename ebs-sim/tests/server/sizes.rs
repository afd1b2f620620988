//! How much snapshots hold, and how many there can be in a set.

use std::time::{Duration, Instant};

use crate::support::ec2::{
    LIVELY, arg, attach, call, code, completed, create, device, instance, wait_for_states,
};
use crate::support::{Sim, needs_root, sh, values};
use serde_json::Value;

#[test]
fn blocks_are_shared_with_the_snapshot_rather_than_copied() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=a,size=300MiB"]);
    sh(
        "dd",
        &["if=/dev/urandom", &arg("of", &sim.device("a")), "bs=1M", "count=300", "conv=fsync", "status=none"],
    );
    let snapshot = sim.create_snapshot("a");
    let entry = completed(&sim, &snapshot);
    let used = || {
        let status = nix::sys::statvfs::statvfs(&sim.dir().join("host")).expect("a filesystem");
        (status.blocks() - status.blocks_free()) * status.fragment_size()
    };
    let before = used();
    let volume = create(&sim, &[&arg("SnapshotId", &snapshot)]);
    attach(&sim, &volume, "/dev/sdx");
    wait_for_states(&sim, &volume, &["in-use", "attached"]);
    let grown = used().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} more bytes are used");
    sh("cmp", &[&sim.device("a"), &device(&sim, &volume).expect("a device")]);

    // So its first snapshot holds nothing new.
    let first = values(&call(&sim, &["CreateSnapshot", &arg("VolumeId", &volume)]), "snapshotId").remove(0);
    let first = completed(&sim, &first);
    assert_eq!((&first["full_bytes"], &first["changed_bytes"]), (&entry["full_bytes"], &0.into()));
    assert_eq!(entry["full_bytes"], 300 << 20);
}

#[test]
fn sizes_are_those_of_what_was_written() {
    needs_root();
    let rate = LIVELY.replace("seconds_to_complete = 0.1", "rate = '10MiB'");
    // By its size a snapshot of it would take five minutes, for which nobody here waits.
    let sim = Sim::start(&rate, &["name=a,size=3000MiB", "name=other,size=16MiB"]);
    let write = |mib: u32, at: u32| {
        let (count, seek) = (arg("count", &mib.to_string()), arg("seek", &at.to_string()));
        let to = arg("of", &sim.device("a"));
        sh("dd", &["if=/dev/urandom", &to, "bs=1M", &count, &seek, "conv=fsync,notrunc", "status=none"]);
    };
    let taken = || {
        let started = Instant::now();
        let id = sim.create_snapshot("a");
        let entry = completed(&sim, &id);
        let bytes = |field: &str| entry[field].as_u64().expect("bytes") >> 10;
        (bytes("full_bytes"), bytes("changed_bytes"), started.elapsed(), id)
    };
    write(10, 3);
    let (full, changed, took, id) = taken();
    assert_eq!((full, changed), (10 << 10, 10 << 10));
    assert!(took > Duration::from_millis(900), "10 MiB at 10 MiB a second: {took:?}");
    let shown = call(&sim, &["DescribeSnapshots", &arg("SnapshotId.1", &id)]);
    assert_eq!(values(&shown, "fullSnapshotSizeInBytes"), [(10 << 20).to_string()]);

    let (full, changed, ..) = taken();
    assert_eq!((full, changed), (10 << 10, 0));

    // 1.5 MiB in the middle of what there is, 4 KiB behind it.
    let to = arg("of", &sim.device("a"));
    sh("dd", &["if=/dev/urandom", &to, "bs=512K", "count=3", "seek=9", "conv=fsync,notrunc", "status=none"]);
    sh("dd", &["if=/dev/urandom", &to, "bs=4K", "count=1", "seek=5120", "conv=fsync,notrunc", "status=none"]);
    let (full, changed, ..) = taken();
    assert_eq!((full, changed), ((10 << 10) + 512, 2 << 10));

    // What is between this one and the last that is left counts.
    call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &id)]);
    let all: Value = serde_json::from_str(&sim.ok(&["snapshots"])).expect("json");
    for entry in all.as_array().expect("a list").iter().skip(1) {
        call(&sim, &["DeleteSnapshot", &arg("SnapshotId", entry["id"].as_str().expect("an id"))]);
    }
    let (_, changed, ..) = taken();
    assert_eq!(changed, 2 << 10);
}

#[test]
fn a_set_has_128_volumes_and_40_exclusions() {
    needs_root();
    let specs: Vec<String> =
        (0..128).map(|n| format!("name=v{n},size=16MiB{}", if n == 0 { ",boot" } else { "" })).collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let started = Instant::now();
    let scenario = format!("{LIVELY}[[volume]]\nname = 'spare'\nsize = '16MiB'\ndetached = true\n")
        .replace("[limits]\n", "[limits]\npending_per_account = 0\nattachments = 0\n");
    let sim = Sim::start(&scenario, &specs);
    println!("set up in {:?}", started.elapsed());
    for name in ["v0", "v1", "v127"] {
        sh(
            "dd",
            &[
                "if=/dev/urandom",
                &arg("of", &sim.device(name)),
                "bs=1M",
                "count=1",
                "conv=fsync",
                "status=none",
            ],
        );
    }
    let set = sim.create_snapshots();
    assert_eq!(set.len(), 128);
    assert_eq!(completed(&sim, &set[1])["full_bytes"], 1 << 20);
    assert_eq!(completed(&sim, &set[2])["full_bytes"], 0);
    let copy = sim.snapshot_device(&set[127]);
    sh("cmp", &[&sim.device("v127"), &copy]);
    assert_eq!(sim.exec("ls -d /sys/class/block/nvme*n1 | wc -l").stdout, b"128\n");

    let target = format!("InstanceSpecification.InstanceId={}", instance(&sim));
    let excluding = |count: usize| {
        let excluded: Vec<String> = (1..=count)
            .map(|n| format!("InstanceSpecification.ExcludeDataVolumeId.{n}={}", sim.id(&format!("v{n}"))))
            .collect();
        let mut arguments = vec!["CreateSnapshots", &target];
        arguments.extend(excluded.iter().map(String::as_str));
        call(&sim, &arguments)
    };
    assert_eq!(values(&excluding(40), "snapshotId").len(), 88);
    assert_eq!(code(&excluding(41)), "InvalidParameterValue");

    // One more is one too many.
    let spare = call(&sim, &["DescribeVolumes", "Filter.1.Name=status", "Filter.1.Value.1=available"]);
    attach(&sim, &values(&spare, "volumeId")[0], "/dev/xvdzz");
    wait_for_states(&sim, &values(&spare, "volumeId")[0], &["in-use", "attached"]);
    assert_eq!(code(&call(&sim, &["CreateSnapshots", &target])), "InvalidParameterValue");
}
