//! EC2 is eventually consistent: what is new is not seen yet, what is gone still is.

use crate::support::ec2::{arg, call, code, completed};
use crate::support::{QUICK, Sim, needs_root, values, wait_for};

fn listed(sim: &Sim, id: &str) -> bool {
    let xml = call(sim, &["DescribeSnapshots", "Filter.1.Name=snapshot-id", &arg("Filter.1.Value.1", id)]);
    !values(&xml, "snapshotId").is_empty()
}

fn keys(sim: &Sim, id: &str) -> (Vec<String>, Vec<String>) {
    let shown = call(sim, &["DescribeSnapshots", &arg("SnapshotId.1", id)]);
    let tags = call(sim, &["DescribeTags", "Filter.1.Name=resource-id", &arg("Filter.1.Value.1", id)]);
    (values(&shown, "key"), values(&tags, "key"))
}

const HOUR: &[&str] = &["clock", "--advance", "1h"];

#[test]
fn a_deleted_snapshot_is_listed_for_a_time_and_nothing_else_finds_it() {
    needs_root();
    let sim = Sim::start(&format!("{QUICK}listed_after_deletion = '1h'\n"), &["name=a,size=16MiB"]);
    let id = sim.create_snapshot("a");
    completed(&sim, &id);
    let one = arg("SnapshotId", &id);
    call(&sim, &["DeleteSnapshot", &one]);
    assert!(listed(&sim, &id));
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &one])), "InvalidSnapshot.NotFound");
    assert_eq!(
        code(&call(&sim, &["CreateTags", &arg("ResourceId.1", &id), "Tag.1.Key=k"])),
        "InvalidSnapshot.NotFound"
    );
    let from = arg("SnapshotId", &id);
    assert_eq!(
        code(&call(&sim, &["CreateVolume", "AvailabilityZone=us-east-1a", &from])),
        "InvalidSnapshot.NotFound"
    );
    assert_eq!(sim.ok(&["snapshots"]), "[]");
    sim.ok(HOUR);
    assert!(!listed(&sim, &id));

    // The same for one call alone.
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let ids = [sim.create_snapshot("a"), sim.create_snapshot("a")];
    sim.ok(&[
        "faults",
        "add",
        "--action",
        "DeleteSnapshot",
        "--kind",
        "late-deletion",
        "--delay",
        "1h",
        "--call",
        "1",
    ]);
    for id in &ids {
        call(&sim, &["DeleteSnapshot", &arg("SnapshotId", id)]);
    }
    assert_eq!(ids.each_ref().map(|id| listed(&sim, id)), [true, false]);
}

#[test]
fn tags_are_seen_later() {
    needs_root();
    let sim = Sim::start(&format!("{QUICK}tags_visible_after = '1h'\n"), &["name=a,size=16MiB"]);
    let id = sim.create_snapshot("a");
    let set = |key: &str| call(&sim, &["CreateTags", &arg("ResourceId.1", &id), &arg("Tag.1.Key", key)]);
    set("first");
    assert_eq!(keys(&sim, &id), (vec![], vec![]));
    let filtered = call(&sim, &["DescribeSnapshots", "Filter.1.Name=tag-key", "Filter.1.Value.1=first"]);
    assert!(values(&filtered, "snapshotId").is_empty());
    sim.ok(HOUR);
    assert_eq!(keys(&sim, &id), (vec!["first".into()], vec!["first".into()]));
    set("second");
    call(&sim, &["DeleteTags", &arg("ResourceId.1", &id), "Tag.1.Key=first"]);
    assert_eq!(keys(&sim, &id).0, ["first"], "as it was");
    sim.ok(HOUR);
    assert_eq!(keys(&sim, &id).0, ["second"]);

    // Those of the create call, by a fault.
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    sim.ok(&[
        "faults",
        "add",
        "--action",
        "CreateSnapshot",
        "--kind",
        "late-tags",
        "--delay",
        "1h",
        "--call",
        "1",
    ]);
    let tags = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=Run",
        "TagSpecification.1.Tag.1.Value=1",
    ];
    let made = call(&sim, &[&["CreateSnapshot", &arg("VolumeId", &sim.id("a"))][..], &tags].concat());
    assert_eq!(values(&made, "key"), ["Run"], "the answer has them");
    let id = values(&made, "snapshotId").remove(0);
    assert_eq!(keys(&sim, &id), (vec![], vec![]));
    sim.ok(HOUR);
    assert_eq!(keys(&sim, &id).0, ["Run"]);
}

#[test]
fn the_clock_ends_locks_and_shows_in_new_snapshots() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let id = sim.create_snapshot("a");
    completed(&sim, &id);
    let one = arg("SnapshotId", &id);
    call(&sim, &["LockSnapshot", &one, "LockMode=compliance", "LockDuration=2", "CoolOffPeriod=1"]);
    let state = || values(&call(&sim, &["DescribeLockedSnapshots"]), "lockState");
    assert_eq!(state(), ["compliance-cooloff"]);
    sim.ok(HOUR);
    assert_eq!(state(), ["compliance"]);
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &one])), "SnapshotLocked");
    sim.ok(&["clock", "--advance", "2d"]);
    assert_eq!(state(), ["expired"]);
    let later = sim.create_snapshot("a");
    let started = |id: &str| {
        let xml = call(&sim, &["DescribeSnapshots", &arg("SnapshotId.1", id)]);
        values(&xml, "startTime").remove(0).parse::<jiff::Timestamp>().expect("a time")
    };
    assert!(started(&later).duration_since(started(&id)) >= jiff::SignedDuration::from_hours(49));
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &one])), "");
}

#[test]
fn disabled_images_are_hidden_and_go_on_keeping_their_snapshots() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let id = sim.create_snapshot("a");
    completed(&sim, &id);
    let root = arg("BlockDeviceMapping.1.Ebs.SnapshotId", &id);
    let made = call(
        &sim,
        &[
            "RegisterImage",
            "Name=abc",
            "RootDeviceName=/dev/xvda",
            "BlockDeviceMapping.1.DeviceName=/dev/xvda",
            &root,
        ],
    );
    let image = arg("ImageId", &values(&made, "imageId").remove(0));
    let found = |rest: &[&str]| {
        values(&call(&sim, &[&["DescribeImages", "Owner.1=self"], rest].concat()), "imageState")
    };
    let archive =
        || code(&call(&sim, &["ModifySnapshotTier", &arg("SnapshotId", &id), "StorageTier=archive"]));
    assert_eq!(archive(), "InvalidSnapshot.InUse");
    call(&sim, &["DisableImage", &image]);
    assert_eq!((found(&[]).len(), found(&["IncludeDisabled=true"])), (0, vec!["disabled".to_owned()]));
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &id)])), "InvalidSnapshot.InUse");
    assert_eq!(archive(), "", "images that are all disabled do not keep it from the archive");
    call(&sim, &["EnableImage", &image]);
    wait_for("the image", || found(&[]) == ["available"]);
}

#[test]
fn a_page_may_be_empty_and_not_the_last() {
    needs_root();
    let sim =
        Sim::start(&QUICK.replace("[limits]\n", "[limits]\nempty_pages = true\n"), &["name=a,size=16MiB"]);
    sim.ok(&["fill", "--sets", "12", "--members", "1"]);
    let (mut seen, mut next) = (Vec::new(), None::<String>);
    loop {
        let token = next.map(|token| arg("NextToken", &token));
        let page = call(
            &sim,
            &[&["DescribeSnapshots", "MaxResults=5"][..], &token.as_deref().into_iter().collect::<Vec<_>>()]
                .concat(),
        );
        seen.push(values(&page, "snapshotId").len());
        next = values(&page, "nextToken").pop();
        if next.is_none() {
            break;
        }
    }
    assert_eq!(seen, [0, 5, 0, 5, 0, 2]);
}

#[test]
fn other_tools_tags_can_be_there() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let id = sim.create_snapshot("a");
    completed(&sim, &id);
    let body = r#"{"aws:backup:source-resource": "arn:aws:ec2:us-east-1:123456789012:volume/vol-1"}"#;
    assert_eq!(sim.post(&format!("tags/{id}"), body), 200);
    let refused = call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &id)]);
    assert_eq!(code(&refused), "InvalidParameterValue");
    assert!(refused.contains("AWS Backup"), "{refused}");
}
