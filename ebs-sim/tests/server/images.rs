//! Images that are copied and deprecated.

use crate::support::ec2::{LIVELY, arg, call, code, completed};
use crate::support::{Sim, needs_root, values, wait_for};

fn image(sim: &Sim, name: &str, snapshot: &str) -> String {
    let made = call(
        sim,
        &[
            "RegisterImage",
            &arg("Name", name),
            "RootDeviceName=/dev/xvda",
            "VirtualizationType=hvm",
            "Architecture=x86_64",
            "BlockDeviceMapping.1.DeviceName=/dev/xvda",
            &arg("BlockDeviceMapping.1.Ebs.SnapshotId", snapshot),
            "TagSpecification.1.ResourceType=image",
            "TagSpecification.1.Tag.1.Key=Of",
            "TagSpecification.1.Tag.1.Value=source",
        ],
    );
    let id = values(&made, "imageId").pop().unwrap_or_else(|| panic!("no image: {made}"));
    wait_for("the image", || shown(sim, &[], &id, "imageState") == ["available"]);
    id
}

/// An image's values of this name.
fn shown(sim: &Sim, how: &[&str], id: &str, name: &str) -> Vec<String> {
    values(&call(sim, &[how, &["DescribeImages", &arg("ImageId.1", id)]].concat()), name)
}

const THERE: [&str; 2] = ["--region", "us-west-2"];

#[test]
fn an_image_is_copied_with_its_snapshots() {
    needs_root();
    let scenario = LIVELY.replace("seconds_to_complete = 0.1", "seconds_to_complete = 1.0");
    let sim = Sim::start(&scenario, &["name=root,size=16MiB,boot"]);
    let snapshot = sim.create_snapshot("root");
    completed(&sim, &snapshot);
    let source = image(&sim, "database", &snapshot);
    let from = ["SourceRegion=us-east-1", &arg("SourceImageId", &source)];
    let copy = |more: &[&str]| call(&sim, &[&THERE[..], &["CopyImage"], &from, more].concat());
    let request = [
        "Name=db-copy",
        "CopyImageTags=true",
        "ClientToken=once",
        "Encrypted=true",
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=Run",
        "TagSpecification.1.Tag.1.Value=7",
    ];
    let made = copy(&request);
    let id = values(&made, "imageId").pop().unwrap_or_else(|| panic!("no image: {made}"));
    assert_eq!(values(&copy(&request), "imageId"), [id.as_str()], "the same request makes no second one");
    assert_eq!(code(&copy(&["Name=other", "ClientToken=once"])), "IdempotentParameterMismatch");
    assert_eq!(code(&copy(&["Name=db-copy"])), "InvalidAMIName.Duplicate");
    assert_eq!(shown(&sim, &THERE, &id, "imageState"), ["pending"]);
    let made_of = shown(&sim, &THERE, &id, "snapshotId");
    assert_ne!(made_of, [snapshot.as_str()]);
    wait_for("the copy", || shown(&sim, &THERE, &id, "imageState") == ["available"]);
    completed(&sim, &made_of[0]);
    assert_eq!(shown(&sim, &THERE, &id, "sourceImageId"), [source.as_str()]);
    assert_eq!(shown(&sim, &THERE, &id, "sourceImageRegion"), ["us-east-1"]);
    assert_eq!(shown(&sim, &THERE, &id, "encrypted"), ["true"]);
    assert_eq!(shown(&sim, &THERE, &id, "key"), ["Of"]);
    let of_snapshot =
        call(&sim, &[&THERE[..], &["DescribeSnapshots", &arg("SnapshotId.1", &made_of[0])]].concat());
    assert_eq!(
        (values(&of_snapshot, "key"), values(&of_snapshot, "encrypted")),
        (vec!["Run".into()], vec!["true".into()])
    );
    assert!(of_snapshot.contains(&format!("for SourceSnapshot {snapshot}")), "{of_snapshot}");

    // One of its snapshots fails, and so does the image.
    sim.ok(&["faults", "add", "--action", "CopyImage", "--call", "1", "--kind", "snapshot-error"]);
    let bad = values(&copy(&["Name=bad-copy"]), "imageId").remove(0);
    wait_for("the failure", || shown(&sim, &THERE, &bad, "imageState") == ["failed"]);
    assert_eq!(
        values(&call(&sim, &[&THERE[..], &["DescribeImages", &arg("ImageId.1", &bad)]].concat()), "code")
            .len(),
        1
    );

    let wrong = |arguments: &[&str]| {
        code(&call(&sim, &[&THERE[..], &["CopyImage", "Name=wrong"], arguments].concat()))
    };
    let missing = ["SourceRegion=us-east-1", "SourceImageId=ami-0123456789abcdef0"];
    assert_eq!(wrong(&missing), "InvalidAMIID.NotFound");
    assert_eq!(wrong(&["SourceRegion=mars-1", from[1]]), "InvalidParameterValue");
    assert_eq!(wrong(&[from[0], from[1], "KmsKeyId=alias/x"]), "InvalidParameterDependency");
    let amazons = values(&call(&sim, &["DescribeImages", "Owner.1=amazon"]), "imageId").remove(0);
    assert_eq!(wrong(&[from[0], &arg("SourceImageId", &amazons)]), "InvalidRequest");
}

#[test]
fn others_find_a_deprecated_image_only_when_they_ask_for_it() {
    needs_root();
    let scenario = format!("{LIVELY}[[account]]\nid = '111122223333'\n");
    let sim = Sim::start(&scenario, &["name=root,size=16MiB,boot"]);
    let snapshot = sim.create_snapshot("root");
    completed(&sim, &snapshot);
    let id = image(&sim, "database", &snapshot);
    let at = call(
        &sim,
        &["ModifyImageAttribute", &arg("ImageId", &id), "LaunchPermission.Add.1.UserId=111122223333"],
    );
    assert_eq!(values(&at, "return"), ["true"]);
    let other = ["--account", "111122223333"];
    let seen = |how: &[&str], more: &[&str]| {
        let owner = ["DescribeImages", "Filter.1.Name=name", "Filter.1.Value.1=database"];
        values(&call(&sim, &[how, &owner[..], more].concat()), "imageId").len()
    };
    assert_eq!((seen(&[], &[]), seen(&other, &[])), (1, 1));
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let soon = arg("DeprecateAt", &soon.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let done = call(&sim, &["EnableImageDeprecation", &arg("ImageId", &id), &soon]);
    assert_eq!(values(&done, "return"), ["true"], "{done}");
    assert_eq!(shown(&sim, &[], &id, "deprecationTime").len(), 1);
    assert_eq!(seen(&other, &[]), 1, "not yet");
    sim.ok(&["clock", "--advance", "7200s"]);
    assert_eq!((seen(&[], &[]), seen(&other, &[]), seen(&other, &["IncludeDeprecated=true"])), (1, 0, 1));
    call(&sim, &["DisableImageDeprecation", &arg("ImageId", &id)]);
    assert_eq!((seen(&other, &[]), shown(&sim, &[], &id, "deprecationTime").len()), (1, 0));
}

#[test]
fn an_instance_says_how_it_boots_and_costs_and_an_image_can_be_shown_late() {
    needs_root();
    let instance = "[instance]\nboot_mode = 'uefi'\ncurrent_boot_mode = 'uefi'\ntpm = 'v2.0'\n\
                    platform_details = 'Red Hat Enterprise Linux'\nusage_operation = 'RunInstances:0010'\n";
    let sim = Sim::start(&format!("{LIVELY}{instance}"), &["name=root,size=16MiB,boot"]);
    let instances = call(&sim, &["DescribeInstances"]);
    let of = |said: &str, name: &str| values(said, name);
    for (name, value) in [
        ("bootMode", "uefi"),
        ("currentInstanceBootMode", "uefi"),
        ("tpmSupport", "v2.0"),
        ("sriovNetSupport", "simple"),
        ("platformDetails", "Red Hat Enterprise Linux"),
        ("usageOperation", "RunInstances:0010"),
    ] {
        assert_eq!(of(&instances, name), [value], "{name}");
    }
    let own = call(&sim, &["DescribeImages", "Owner.1=amazon"]);
    assert_eq!(
        (of(&own, "usageOperation"), of(&own, "tpmSupport")),
        (of(&instances, "usageOperation"), vec!["v2.0".into()])
    );
    let snapshot = sim.create_snapshot("root");
    completed(&sim, &snapshot);
    let fault = ["faults", "add", "--action", "RegisterImage", "--call", "1", "--kind", "late-visibility"];
    sim.ok(&[&fault[..], &["--delay", "2s"]].concat());
    let made = call(
        &sim,
        &[
            "RegisterImage",
            "Name=late",
            "RootDeviceName=/dev/xvda",
            "BlockDeviceMapping.1.DeviceName=/dev/xvda",
            &arg("BlockDeviceMapping.1.Ebs.SnapshotId", &snapshot),
        ],
    );
    let id = values(&made, "imageId").pop().unwrap_or_else(|| panic!("no image: {made}"));
    let by_id = || call(&sim, &["DescribeImages", &arg("ImageId.1", &id)]);
    assert_eq!(code(&by_id()), "InvalidAMIID.NotFound");
    assert_eq!(of(&call(&sim, &["DescribeImages", "Owner.1=self"]), "imageId").len(), 0);
    // It is there all the same: its name is taken, and its snapshot is held.
    let again = ["Name=late", "RootDeviceName=/dev/xvda", "BlockDeviceMapping.1.DeviceName=/dev/xvda"];
    let mapping = arg("BlockDeviceMapping.1.Ebs.SnapshotId", &snapshot);
    let again = call(&sim, &[&["RegisterImage"], &again[..], &[&mapping]].concat());
    assert_eq!(code(&again), "InvalidAMIName.Duplicate");
    wait_for("the image", || values(&by_id(), "imageId") == [id.as_str()]);
    assert_eq!(values(&by_id(), "usageOperation"), ["RunInstances"], "whatever its snapshot is of");
}
