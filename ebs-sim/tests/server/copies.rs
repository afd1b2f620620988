//! Volumes that are copies of volumes, and how far their initialisation is.

use crate::support::ec2::{LIVELY, arg, attach, call, code, device, states, wait_for_states};
use crate::support::{Mount, Sim, Writer, needs_root, records, sh, values, wait_for, written};

/// Initialisation does not end by itself: it goes by the account's clock, which tests move on.
const SLOW: &str = "seconds_to_initialize = 1000.0\nseconds_to_initialize_copy = 1000.0\n";

fn copy(sim: &Sim, name: &str, arguments: &[&str]) -> String {
    call(sim, &[&["CopyVolumes", &arg("SourceVolumeId", &sim.id(name))], arguments].concat())
}

/// CopyVolumes that is done: the new volume's id.
fn copied(sim: &Sim, name: &str, arguments: &[&str]) -> String {
    let made = copy(sim, name, arguments);
    values(&made, "volumeId").pop().unwrap_or_else(|| panic!("no volume: {made}"))
}

fn status(sim: &Sim, id: &str, of: &str) -> String {
    values(&call(sim, &["DescribeVolumeStatus", &arg("VolumeId.1", id)]), of).pop().unwrap_or_default()
}

/// The device of a copy, once it is there.
fn attached(sim: &Sim, id: &str, name: &str) -> String {
    wait_for_states(sim, id, &["available"]);
    attach(sim, id, name);
    wait_for_states(sim, id, &["in-use", "attached"]);
    device(sim, id).expect("a device")
}

#[test]
fn a_copy_is_one_instant_of_its_source_under_a_writer() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=a,size=64MiB", "name=b,size=64MiB"]);
    let mount = |name: &str| {
        sh("mkfs.ext4", &["-q", "-F", &sim.device(name)]);
        Mount::new(&sim, name, &sim.device(name), "rw")
    };
    let (a, b) = (mount("a"), mount("b"));
    let writer = Writer::start(a.path(), b.path());
    let floor = written(b.path());
    let first = copied(&sim, "a", &[]);
    let ceiling = written(a.path());
    // The second is taken when a has gone on: the two are not one instant, and the test can tell.
    wait_for("more records", || written(a.path()) > ceiling + 1);
    let second = copied(&sim, "b", &[]);
    assert!(written(a.path()) > ceiling, "the writer goes on");
    writer.stop();
    let log = sim.requests("CopyVolumes");
    assert_eq!(log[0]["volume_ids"], serde_json::json!([first]));
    assert!(log[0]["clone_started_ns"].as_u64() >= log[0]["started_ns"].as_u64());
    assert!(log[0]["point_in_time_ns"].as_u64() <= log[0]["answered_ns"].as_u64());

    let read = |id: &str, name: &str, place: &str| {
        let node = attached(&sim, id, name);
        let mount = Mount::new(&sim, place, &node, "rw");
        records(mount.path())
    };
    let (of_a, of_b) = (read(&first, "/dev/sdx", "first"), read(&second, "/dev/sdy", "second"));
    assert!((floor..=ceiling).contains(&of_a), "{floor} ≤ {of_a} ≤ {ceiling}");
    assert!(of_b > of_a, "one after the other: {of_a} in a, {of_b} in b, which is written after a");
    let shown = call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &first)]);
    assert_eq!(values(&shown, "sourceVolumeId"), [sim.id("a")]);
    assert_eq!(values(&shown, "volumeType"), ["gp2"]);
    assert_eq!(values(&shown, "size"), ["1"]);
}

#[test]
fn initialisation_goes_by_the_clock_and_limits_copies() {
    needs_root();
    let scenario = format!("{}{SLOW}", LIVELY).replace("[limits]", "[limits]\nvolume_copies_per_region = 2");
    let sim = Sim::start(&scenario, &["name=a,size=16MiB", "name=b,size=16MiB", "name=c,size=16MiB"]);
    let token = [
        "ClientToken=once",
        "VolumeType=gp3",
        "TagSpecification.1.ResourceType=volume",
        "TagSpecification.1.Tag.1.Key=Of",
        "TagSpecification.1.Tag.1.Value=a",
    ];
    let first = copied(&sim, "a", &token);
    assert_eq!(copied(&sim, "a", &token), first, "the same request makes no second one");
    let other = copy(&sim, "a", &["ClientToken=once"]);
    assert_eq!(code(&other), "IdempotentParameterMismatch");
    let shown = call(&sim, &["DescribeTags", "Filter.1.Name=key", "Filter.1.Value.1=Of"]);
    assert_eq!(values(&shown, "resourceId"), [first.as_str()]);
    assert_eq!(code(&copy(&sim, "a", &[])), "IncorrectState", "one copy of a volume at a time");
    let second = copied(&sim, "b", &[]);
    assert_eq!(code(&copy(&sim, "c", &[])), "CopyVolumesLimitExceeded");
    assert_eq!(code(&copy(&sim, "c", &["DryRun=true"])), "DryRunOperation", "which says nothing of limits");

    let progress = |id: &str| status(&sim, id, "progress").parse::<u32>().expect("a number");
    assert_eq!(status(&sim, &first, "initializationType"), "volume-copy");
    assert!(progress(&first) < 50, "{}", progress(&first));
    sim.ok(&["clock", "--advance", "600s"]);
    assert!((60..100).contains(&progress(&first)), "{}", progress(&first));
    // It can be used meanwhile, and so can its source go.
    wait_for_states(&sim, &second, &["available"]);
    sim.ok(&["clock", "--advance", "600s"]);
    assert_eq!(progress(&first), 100);
    assert!(
        values(&call(&sim, &["DescribeVolumeStatus", &arg("VolumeId.1", &first)]), "status")
            .contains(&"completed".to_owned())
    );
    let third = copied(&sim, "c", &[]);
    let again = copied(&sim, "a", &[]);
    assert_eq!(code(&copy(&sim, "b", &[])), "CopyVolumesLimitExceeded");

    // What was deleted counts no more, and its token stays its own.
    for id in [&third, &again, &first] {
        wait_for_states(&sim, id, &["available"]);
        call(&sim, &["DeleteVolume", &arg("VolumeId", id)]);
        wait_for("its end", || {
            code(&call(&sim, &["DescribeVolumes", &arg("VolumeId.1", id)])) == "InvalidVolume.NotFound"
        });
    }
    assert_eq!(code(&copy(&sim, "a", &token)), "IdempotentParameterMismatch");
    copied(&sim, "b", &[]);

    // An empty volume has none; one of a snapshot goes at the rate that was asked for.
    assert_eq!(status(&sim, &sim.id("a"), "progress"), "");
    let snapshot = sim.create_snapshot("a");
    crate::support::ec2::completed(&sim, &snapshot);
    let zone = "AvailabilityZone=us-east-1a";
    let make = |rest: &[&str]| {
        let from = arg("SnapshotId", &snapshot);
        values(&call(&sim, &[&["CreateVolume", zone, &from], rest].concat()), "volumeId").remove(0)
    };
    let plain = make(&[]);
    assert_eq!(status(&sim, &plain, "initializationType"), "default");
    assert_eq!(status(&sim, &plain, "estimatedTimeToCompleteInSeconds"), "");
    assert!(progress(&plain) < 100);
    // It holds nothing, so that there is nothing to be done.
    let quick = make(&["VolumeInitializationRate=300"]);
    assert_eq!(status(&sim, &quick, "initializationType"), "provisioned-rate");
    assert_eq!(
        (progress(&quick), status(&sim, &quick, "estimatedTimeToCompleteInSeconds")),
        (100, "0".into())
    );
}

#[test]
fn faults_on_copies() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=a,size=16MiB", "name=b,size=16MiB", "name=c,size=16MiB"]);
    let fault = |kind: &str, more: &[&str]| {
        sim.ok(&[&["faults", "add", "--action", "CopyVolumes", "--call", "1", "--kind", kind], more].concat())
    };
    fault("volume-error", &[]);
    let bad = copied(&sim, "a", &[]);
    wait_for_states(&sim, &bad, &["error"]);

    // Done, and the answer is lost; the token finds it.
    fault("drop-after", &[]);
    assert!(values(&copy(&sim, "b", &["ClientToken=lost"]), "volumeId").is_empty());
    let lost = sim.requests("CopyVolumes").pop().expect("it was asked")["volume_ids"][0].clone();
    assert_eq!(copied(&sim, "b", &["ClientToken=lost"]), lost.as_str().expect("an id"));

    fault("late-visibility", &["--delay", "3600s"]);
    let late =
        copied(&sim, "c", &["TagSpecification.1.ResourceType=volume", "TagSpecification.1.Tag.1.Key=k"]);
    let found = || call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &late)]);
    assert_eq!(code(&found()), "InvalidVolume.NotFound");
    sim.ok(&["clock", "--advance", "3600s"]);
    assert_eq!(values(&found(), "key"), ["k"]);

    fault("late-tags", &["--delay", "3600s"]);
    let late =
        copied(&sim, "b", &["TagSpecification.1.ResourceType=volume", "TagSpecification.1.Tag.1.Key=k"]);
    let by_tag = || call(&sim, &["DescribeVolumes", "Filter.1.Name=tag-key", "Filter.1.Value.1=k"]);
    assert!(!by_tag().contains(&late));
    sim.ok(&["clock", "--advance", "3600s"]);
    assert!(by_tag().contains(&late));

    fault("slow-progress", &["--delay", "36000s"]);
    let slow = copied(&sim, "a", &[]);
    sim.ok(&["clock", "--advance", "18000s"]);
    assert_eq!(status(&sim, &slow, "progress"), "50");
    assert_eq!(states(&sim, &slow).len(), 1);
}

#[test]
fn attachments_have_a_limit() {
    needs_root();
    let scenario = LIVELY.replace("[limits]", "[limits]\nattachments = 2");
    let sim = Sim::start(
        &scenario,
        &["name=a,size=16MiB", "name=b,size=16MiB,detached", "name=c,size=16MiB,detached"],
    );
    let spare = |n: usize| {
        let found = call(&sim, &["DescribeVolumes", "Filter.1.Name=status", "Filter.1.Value.1=available"]);
        values(&found, "volumeId").swap_remove(n)
    };
    let (b, c) = (spare(0), spare(1));
    attach(&sim, &b, "/dev/sdx");
    assert_eq!(code(&attach(&sim, &c, "/dev/sdy")), "AttachmentLimitExceeded");
    let shown = call(&sim, &["DescribeInstanceTypes", "InstanceType.1=m6i.large"]);
    assert_eq!(values(&shown, "maximumEbsAttachments"), ["28"]);
    assert_eq!(values(&shown, "attachmentLimitType"), ["shared"]);
    wait_for_states(&sim, &b, &["in-use", "attached"]);
}
