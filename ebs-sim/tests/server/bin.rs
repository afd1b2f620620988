//! The Recycle Bin: what is deleted stays for a time, and comes back as it was.

use std::io::Write as _;

use crate::support::curl::Client;
use crate::support::ec2::{arg, call, code};
use crate::support::{QUICK, Sim, needs_root, values, wait_for};

fn rules(rules: &str) -> String {
    format!("{QUICK}[recycle_bin]\nseconds_to_restore = 0.3\n{rules}")
}

fn list(sim: &Sim, rest: &[&str]) -> String {
    call(sim, &[&["ListSnapshotsInRecycleBin"], rest].concat())
}

/// A completed snapshot of a volume that is full of this byte.
fn snapshot(sim: &Sim, byte: u8, tags: &[&str]) -> String {
    let mut device = std::fs::OpenOptions::new().write(true).open(sim.device("a")).expect("the device opens");
    device.write_all(&vec![byte; 1 << 20]).expect("it is written");
    device.sync_all().expect("it is synced");
    let xml =
        call(sim, &[&["CreateSnapshot", &arg("VolumeId", &sim.id("a")), "Description=of a"], tags].concat());
    let id = values(&xml, "snapshotId").remove(0);
    crate::support::ec2::completed(sim, &id);
    id
}

const KEEP: &[&str] = &[
    "TagSpecification.1.ResourceType=snapshot",
    "TagSpecification.1.Tag.1.Key=Keep",
    "TagSpecification.1.Tag.1.Value=7",
];

#[test]
fn a_deleted_snapshot_comes_back_with_its_data_tags_and_permissions() {
    needs_root();
    let sim = Sim::start(
        &rules("[[recycle_bin.rule]]\ndays = 7\nresource_tags = ['Keep=7']\n"),
        &["name=a,size=1MiB"],
    );
    let (kept, gone) = (snapshot(&sim, 7, KEEP), snapshot(&sim, 8, &[]));
    let id = arg("SnapshotId", &kept);
    call(&sim, &["ModifySnapshotAttribute", &id, "OperationType=add", "UserId.1=111122223333"]);
    for each in [&kept, &gone] {
        assert_eq!(code(&call(&sim, &["DeleteSnapshot", &arg("SnapshotId", each)])), "");
    }
    let listed = list(&sim, &[]);
    assert_eq!(values(&listed, "snapshotId"), [kept.as_str()], "no rule means the other");
    assert_eq!(values(&listed, "description"), ["of a"]);
    assert_eq!(values(&listed, "volumeId"), [sim.id("a")]);
    assert!(!listed.contains("tagSet"), "{listed}");
    let times =
        [values(&listed, "recycleBinEnterTime").remove(0), values(&listed, "recycleBinExitTime").remove(0)];
    let [enter, exit] = times.map(|text| text.parse::<jiff::Timestamp>().expect("a time"));
    assert_eq!(exit.duration_since(enter), jiff::SignedDuration::from_hours(7 * 24));
    // Nothing else can be done with it.
    for action in [
        &["DescribeSnapshots", &arg("SnapshotId.1", &kept)][..],
        &["DeleteSnapshot", &id],
        &["LockSnapshot", &id, "LockMode=governance", "LockDuration=1"],
        &["DescribeSnapshotAttribute", &id, "Attribute=createVolumePermission"],
    ] {
        assert_eq!(code(&call(&sim, action)), "InvalidSnapshot.NotFound", "{action:?}");
    }
    assert_eq!(code(&list(&sim, &[&arg("SnapshotId.1", &gone)])), "InvalidSnapshot.NotFound");
    assert_eq!(code(&list(&sim, &["MaxResults=4"])), "InvalidParameterValue");

    assert_eq!(code(&call(&sim, &["RestoreSnapshotFromRecycleBin", &id, "DryRun=true"])), "DryRunOperation");
    let restored = call(&sim, &["RestoreSnapshotFromRecycleBin", &id]);
    assert_eq!(values(&restored, "status"), ["recovering"]);
    let shown = || call(&sim, &["DescribeSnapshots", &arg("SnapshotId.1", &kept)]);
    wait_for("the end of the recovery", || values(&shown(), "status") == ["completed"]);
    assert_eq!((values(&shown(), "key"), values(&shown(), "value")), (vec!["Keep".into()], vec!["7".into()]));
    let shared = call(&sim, &["DescribeSnapshotAttribute", &id, "Attribute=createVolumePermission"]);
    assert_eq!(values(&shared, "userId"), ["111122223333"]);
    let device = sim.snapshot_device(&kept);
    assert_eq!(std::fs::read(&device).expect("it can be read"), vec![7; 1 << 20]);
    sim.release_device(&device);
    assert_eq!(code(&call(&sim, &["RestoreSnapshotFromRecycleBin", &id])), "InvalidSnapshot.NotFound");
    assert_eq!(values(&list(&sim, &[]), "snapshotId"), [""; 0]);
}

#[test]
fn what_is_in_the_bin_goes_when_its_time_is_over() {
    needs_root();
    let sim = Sim::start(
        &rules("[[recycle_bin.rule]]\ndays = 2\nexclude_resource_tags = ['Keep']\n"),
        &["name=a,size=1MiB"],
    );
    let images = || std::fs::read_dir(sim.dir().join("host/snapshots")).map_or(0, Iterator::count);
    let (excluded, kept) = (snapshot(&sim, 1, KEEP), snapshot(&sim, 2, &[]));
    assert_eq!(images(), 2);
    for each in [&excluded, &kept] {
        call(&sim, &["DeleteSnapshot", &arg("SnapshotId", each)]);
    }
    assert_eq!((values(&list(&sim, &[]), "snapshotId"), images()), (vec![kept.clone()], 1));
    let before: jiff::Timestamp = sim.ok(&["clock"]).parse().expect("a time");
    sim.ok(&["clock", "--advance", "47h"]);
    assert_eq!(values(&list(&sim, &[]), "snapshotId"), [kept.as_str()], "an hour is left");
    let after: jiff::Timestamp = sim.ok(&["clock", "--advance", "1h"]).parse().expect("a time");
    assert!(after.duration_since(before) >= jiff::SignedDuration::from_hours(48));
    assert_eq!((values(&list(&sim, &[]), "snapshotId"), images()), (vec![], 0));
    assert_eq!(
        code(&call(&sim, &["RestoreSnapshotFromRecycleBin", &arg("SnapshotId", &kept)])),
        "InvalidSnapshot.NotFound"
    );
}

#[test]
fn rules_are_made_and_deleted_by_the_services_own_api() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=1MiB"]);
    let client = Client::new(&sim);
    let rule = r#"{"ResourceType": "EBS_SNAPSHOT", "Description": "a week",
        "RetentionPeriod": {"RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS"},
        "ResourceTags": [{"ResourceTagKey": "Keep", "ResourceTagValue": "7"}]}"#;
    let made = client.rest("rbin", "POST", "/rules", rule);
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.json()["Identifier"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 11);
    let kept = snapshot(&sim, 1, KEEP);
    call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &kept)]);
    assert_eq!(values(&list(&sim, &[]), "snapshotId"), [kept]);

    let shown = client.rest("rbin", "GET", &format!("/rules/{id}"), "").json();
    assert_eq!((&shown["Status"], &shown["LockState"]), (&"available".into(), &"unlocked".into()));
    assert_eq!(shown["ResourceTags"][0]["ResourceTagKey"], "Keep");
    client.rest("rbin", "POST", "/rules", rule);
    let page = client
        .rest("rbin", "POST", "/list-rules", r#"{"ResourceType": "EBS_SNAPSHOT", "MaxResults": 1}"#)
        .json();
    assert_eq!(page["Rules"][0]["Identifier"], id.as_str());
    let next = page["NextToken"].as_str().expect("a second page");
    let body = format!(r#"{{"ResourceType": "EBS_SNAPSHOT", "NextToken": "{next}"}}"#);
    let page = client.rest("rbin", "POST", "/list-rules", &body).json();
    assert_eq!((page["Rules"].as_array().map(Vec::len), page["NextToken"].is_null()), (Some(1), true));

    let there = Client { region: "us-west-2".into(), ..Client::new(&sim) };
    for (who, service, expected, error) in [
        (&there, "rbin", 404, "ResourceNotFoundException"),
        (&client, "ebs", 403, "InvalidSignatureException"),
    ] {
        let answer = who.rest(service, "GET", &format!("/rules/{id}"), "");
        assert_eq!(
            (answer.status, answer.header("x-amzn-errortype")),
            (expected, Some(error)),
            "{}",
            answer.body
        );
    }
    let bad = client.rest("rbin", "POST", "/rules", "{}");
    assert_eq!((bad.status, bad.json()["Reason"].as_str()), (400, Some("INVALID_PARAMETER_VALUE")));
    assert_eq!(client.rest("rbin", "DELETE", &format!("/rules/{id}"), "").status, 204);
    assert_eq!(client.rest("rbin", "DELETE", &format!("/rules/{id}"), "").status, 404);
    sim.ok(&[
        "faults",
        "add",
        "--action",
        "rbin:GetRule",
        "--kind",
        "error",
        "--code",
        "InternalServerException",
        "--call",
        "1",
    ]);
    assert_eq!(client.rest("rbin", "GET", "/rules/x", "").status, 500);
}
