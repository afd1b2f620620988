//! Several accounts: what is shared, what is public, and what nobody else sees.

use crate::support::curl::Client;
use crate::support::ec2::{arg, call, code, completed};
use crate::support::{QUICK, Sim, needs_root, values, wait_for};

const OTHER: &str = "111122223333";
const THIRD: &str = "444455556666";

fn start() -> Sim {
    let accounts = [OTHER, THIRD].map(|id| format!("[[account]]\nid = '{id}'\n")).concat();
    Sim::start(&format!("{QUICK}{accounts}"), &["name=a,size=1MiB,tag:Name=a"])
}

/// A call of another account.
fn other(sim: &Sim, account: &str, arguments: &[&str]) -> String {
    call(sim, &[&["--account", account], arguments].concat())
}

fn share(sim: &Sim, id: &str, rest: &[&str]) -> String {
    code(&call(
        sim,
        &[&["ModifySnapshotAttribute", &arg("SnapshotId", id), "OperationType=add"], rest].concat(),
    ))
}

fn seen(sim: &Sim, account: &str, id: &str) -> bool {
    let xml = other(
        sim,
        account,
        &["DescribeSnapshots", "Filter.1.Name=snapshot-id", &arg("Filter.1.Value.1", id)],
    );
    !values(&xml, "snapshotId").is_empty()
}

#[test]
fn a_shared_snapshot_is_seen_and_copied_by_those_it_is_shared_with() {
    needs_root();
    let sim = start();
    let tags = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=Secret",
        "TagSpecification.1.Tag.1.Value=x",
    ];
    let made = call(&sim, &[&["CreateSnapshot", &arg("VolumeId", &sim.id("a"))][..], &tags].concat());
    let id = values(&made, "snapshotId").remove(0);
    completed(&sim, &id);
    let one = arg("SnapshotId", &id);
    assert!(!seen(&sim, OTHER, &id));
    assert_eq!(
        code(&other(&sim, OTHER, &["DescribeSnapshots", &arg("SnapshotId.1", &id)])),
        "InvalidSnapshot.NotFound"
    );
    assert_eq!(code(&other(&sim, OTHER, &["DeleteSnapshot", &one])), "InvalidSnapshot.NotFound");
    let copy = |account: &str| {
        other(&sim, account, &["CopySnapshot", "SourceRegion=us-east-1", &arg("SourceSnapshotId", &id)])
    };
    let lost = values(&copy(OTHER), "snapshotId").remove(0);
    let shown =
        |account: &str, id: &str| other(&sim, account, &["DescribeSnapshots", &arg("SnapshotId.1", id)]);
    wait_for("the end of a copy", || values(&shown(OTHER, &lost), "status") == ["error"]);
    assert_eq!(values(&shown(OTHER, &lost), "statusMessage"), ["Source snapshot is not found"]);

    assert_eq!(share(&sim, &id, &[&arg("UserId.1", OTHER)]), "");
    assert!(seen(&sim, OTHER, &id) && !seen(&sim, THIRD, &id));
    let xml = shown(OTHER, &id);
    assert_eq!(
        (values(&xml, "ownerId"), values(&xml, "key")),
        (vec!["123456789012".to_owned()], vec![]),
        "tags are not shared"
    );
    let own = other(&sim, OTHER, &["DescribeSnapshots", "Owner.1=self"]);
    assert_eq!(values(&own, "snapshotId"), [lost], "it is not theirs");
    for action in [
        &["DeleteSnapshot", &one][..],
        &["ModifySnapshotAttribute", &one, "OperationType=add", "UserGroup.1=all"],
        &["LockSnapshot", &one, "LockMode=governance", "LockDuration=1"],
    ] {
        assert_eq!(code(&other(&sim, OTHER, action)), "OperationNotPermitted", "{action:?}");
    }
    let theirs = values(&copy(OTHER), "snapshotId").remove(0);
    let pending = shown(OTHER, &theirs);
    if values(&pending, "status") == ["pending"] {
        assert_eq!(
            (values(&pending, "volumeSize"), values(&pending, "statusMessage")),
            (vec!["0".into()], vec!["Metadata not updated".into()])
        );
    }
    wait_for("the end of a copy", || values(&shown(OTHER, &theirs), "status") == ["completed"]);
    assert_eq!(values(&shown(OTHER, &theirs), "ownerId"), [OTHER]);
    assert!(!seen(&sim, THIRD, &theirs));
    let mine = call(&sim, &["DescribeSnapshots", &arg("SnapshotId.1", &theirs)]);
    assert_eq!(code(&mine), "InvalidSnapshot.NotFound", "a copy does not inherit who sees it");
    // Other accounts have nothing else.
    assert_eq!(values(&other(&sim, OTHER, &["DescribeVolumes"]), "volumeId"), [""; 0]);
    assert_eq!(values(&other(&sim, OTHER, &["DescribeInstances"]), "instanceId"), [""; 0]);
    assert_eq!(
        code(&other(&sim, OTHER, &["CreateVolume", "AvailabilityZone=us-east-1a", "Size=1"])),
        "UnsupportedOperation"
    );
    assert_eq!(
        code(&other(&sim, OTHER, &["CreateTags", &arg("ResourceId.1", &sim.id("a")), "Tag.1.Key=k"])),
        "InvalidID"
    );
    // Its blocks can be read by those it is shared with.
    let path = format!("/snapshots/{id}/blocks");
    assert_eq!(Client::of_account(&sim, OTHER).rest("ebs", "GET", &path, "").status, 200);
    assert_eq!(Client::of_account(&sim, THIRD).rest("ebs", "GET", &path, "").status, 404);
}

#[test]
fn public_snapshots_are_for_all_unless_that_is_blocked() {
    needs_root();
    let sim = start();
    let id = sim.create_snapshot("a");
    completed(&sim, &id);
    let state = || values(&call(&sim, &["GetSnapshotBlockPublicAccessState"]), "state").remove(0);
    let public = |sim: &Sim| seen(sim, OTHER, &id);
    assert_eq!((state().as_str(), public(&sim)), ("unblocked", false));
    assert_eq!(share(&sim, &id, &["UserGroup.1=all"]), "");
    assert!(public(&sim));
    assert_eq!(
        Client::of_account(&sim, OTHER).rest("ebs", "GET", &format!("/snapshots/{id}/blocks"), "").status,
        403
    );
    for (mode, still) in [("block-all-sharing", false), ("block-new-sharing", true)] {
        call(&sim, &["EnableSnapshotBlockPublicAccess", &arg("State", mode)]);
        assert_eq!((state().as_str(), public(&sim)), (mode, still));
        assert_eq!(share(&sim, &id, &["UserGroup.1=all"]), "OperationNotPermitted");
        assert_eq!(share(&sim, &id, &[&arg("UserId.1", THIRD)]), "");
        let attribute = call(
            &sim,
            &["DescribeSnapshotAttribute", &arg("SnapshotId", &id), "Attribute=createVolumePermission"],
        );
        assert_eq!(values(&attribute, "group"), ["all"], "the permission stays");
    }
    assert_eq!(
        code(&call(&sim, &["EnableSnapshotBlockPublicAccess", "State=unblocked"])),
        "InvalidParameterValue"
    );
    let elsewhere = call(&sim, &["--region", "us-west-2", "GetSnapshotBlockPublicAccessState"]);
    assert_eq!(values(&elsewhere, "state"), ["unblocked"]);
    assert_eq!(values(&other(&sim, OTHER, &["GetSnapshotBlockPublicAccessState"]), "state"), ["unblocked"]);
    assert_eq!(values(&call(&sim, &["DisableSnapshotBlockPublicAccess"]), "state"), ["unblocked"]);
    assert_eq!(share(&sim, &id, &["UserGroup.1=all"]), "");
}
