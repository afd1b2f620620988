//! The root volume is replaced, and attributes of the instance.

use crate::support::ec2::{
    LIVELY, arg, call, code, completed, create, device, instance, states, wait_for_states,
};
use crate::support::{Mount, Sim, needs_root, sh, values, wait_for};

fn replace(sim: &Sim, arguments: &[&str]) -> String {
    let instance = arg("InstanceId", &instance(sim));
    call(sim, &[&["CreateReplaceRootVolumeTask", &instance], arguments].concat())
}

fn task(made: &str) -> String {
    let id = values(made, "replaceRootVolumeTaskId").pop();
    id.unwrap_or_else(|| panic!("no task: {made}"))
}

fn state(sim: &Sim, task: &str) -> String {
    let id = arg("ReplaceRootVolumeTaskId.1", task);
    values(&call(sim, &["DescribeReplaceRootVolumeTasks", &id]), "taskState").pop().unwrap_or_default()
}

fn wait_for_state(sim: &Sim, task: &str, wanted: &str) {
    wait_for(&format!("{wanted} of {task}"), || state(sim, task) == wanted);
}

/// The volume that is attached at the root's name.
fn root(sim: &Sim) -> String {
    let shown =
        call(sim, &["DescribeVolumes", "Filter.1.Name=attachment.device", "Filter.1.Value.1=/dev/xvda"]);
    let ids = values(&shown, "volumeId");
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    ids[0].clone()
}

fn snapshot(sim: &Sim, volume: &str) -> String {
    let made = call(sim, &["CreateSnapshot", &arg("VolumeId", volume)]);
    values(&made, "snapshotId").pop().unwrap_or_else(|| panic!("no snapshot: {made}"))
}

#[test]
fn the_root_is_replaced_by_a_snapshot_of_it_and_by_nothing_else() {
    needs_root();
    let volumes = ["name=root,size=64MiB,boot,type=gp3,iops=4000", "name=data,size=16MiB"];
    let sim = Sim::start(&format!("{LIVELY}seconds_to_replace_root = 0.3\n"), &volumes);
    sh("mkfs.ext4", &["-q", "-F", &sim.device("root")]);
    let mount = Mount::new(&sim, "root", &sim.device("root"), "rw");
    let write = |text: &str| {
        std::fs::write(mount.path().join("file"), text).expect("a file");
        sh("sync", &["-f", mount.path().to_str().expect("UTF-8")]);
    };
    write("before");
    let old = root(&sim);
    assert_eq!(old, sim.id("root"));
    let good = snapshot(&sim, &old);
    assert_eq!(code(&replace(&sim, &[&arg("SnapshotId", &good)])), "IncorrectState", "it is pending");
    completed(&sim, &good);
    write("after");
    let of_data = sim.create_snapshot("data");
    completed(&sim, &of_data);
    let copied = call(&sim, &["CopySnapshot", "SourceRegion=us-east-1", &arg("SourceSnapshotId", &good)]);
    let copied = values(&copied, "snapshotId").remove(0);
    completed(&sim, &copied);
    for (arguments, expected) in [
        (vec![arg("SnapshotId", &of_data)], "InvalidParameterValue"),
        (vec![arg("SnapshotId", &copied)], "InvalidParameterValue"),
        (vec!["SnapshotId=snap-0123456789abcdef0".into()], "InvalidSnapshot.NotFound"),
        (vec!["ImageId=ami-0123456789abcdef0".into()], "InvalidAMIID.NotFound"),
        (vec!["VolumeId=vol-0123456789abcdef0".into()], "InvalidVolume.NotFound"),
        (vec![arg("VolumeId", &sim.id("data"))], "IncorrectState"),
        (vec![arg("SnapshotId", &good), "VolumeInitializationRate=50".into()], "InvalidParameterValue"),
        (vec![arg("SnapshotId", &good), arg("VolumeId", &old)], "InvalidParameterCombination"),
        (vec![], "UnsupportedOperation"),
        (vec![arg("SnapshotId", &good), "DryRun=true".into()], "DryRunOperation"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(code(&replace(&sim, &arguments)), expected, "{arguments:?}");
    }
    assert!(values(&call(&sim, &["DescribeReplaceRootVolumeTasks"]), "taskState").is_empty());

    let request = [
        &arg("SnapshotId", &good),
        "ClientToken=once",
        "TagSpecification.1.ResourceType=replace-root-volume-task",
        "TagSpecification.1.Tag.1.Key=k",
    ];
    let made = replace(&sim, &request);
    let first = task(&made);
    assert_eq!(
        (values(&made, "taskState"), values(&made, "key")),
        (vec!["pending".into()], vec!["k".into()])
    );
    assert_eq!(task(&replace(&sim, &request)), first);
    assert_eq!(
        code(&replace(&sim, &[&arg("SnapshotId", &good), "ClientToken=once"])),
        "IdempotentParameterMismatch"
    );
    assert_eq!(code(&replace(&sim, &[&arg("SnapshotId", &good)])), "IncorrectState", "one at a time");
    wait_for_state(&sim, &first, "succeeded");

    let new = root(&sim);
    assert_ne!(new, old);
    assert_eq!(states(&sim, &old), ["available"]);
    let shown = call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &new)]);
    assert_eq!(
        (values(&shown, "iops"), values(&shown, "volumeType")),
        (vec!["4000".into()], vec!["gp3".into()])
    );
    assert_eq!(values(&shown, "deleteOnTermination"), ["true"]);
    let replaced = Mount::new(&sim, "new", &device(&sim, &new).expect("a device"), "rw");
    assert_eq!(std::fs::read_to_string(replaced.path().join("file")).expect("a file"), "before");
    drop(replaced);
    assert_eq!(std::fs::read_to_string(mount.path().join("file")).expect("a file"), "after");
    let mapping = call(&sim, &["DescribeInstances"]);
    assert!(mapping.contains(&new) && !mapping.contains(&old), "{mapping}");

    // The former root's snapshots are the root's still; the old one goes on request, when nobody uses it.
    let again = task(&replace(&sim, &[&arg("SnapshotId", &good), "DeleteReplacedRootVolume=true"]));
    wait_for_state(&sim, &again, "succeeded");
    wait_for("the end of the second root", || {
        code(&call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &new)])) == "InvalidVolume.NotFound"
    });
    assert_eq!(states(&sim, &old), ["available"]);
}

#[test]
fn a_volume_or_an_image_becomes_the_root_and_a_failure_keeps_the_old_one() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=root,size=16MiB,boot,encrypted", "name=data,size=16MiB"]);
    let old = root(&sim);
    let good = snapshot(&sim, &old);
    completed(&sim, &good);
    let plain = create(&sim, &["Size=1"]);
    assert_eq!(code(&replace(&sim, &[&arg("VolumeId", &plain)])), "InvalidParameterValue", "not encrypted");
    let secret = create(&sim, &[&arg("SnapshotId", &good)]);
    let first = task(&replace(&sim, &[&arg("VolumeId", &secret)]));
    wait_for_state(&sim, &first, "succeeded");
    assert_eq!(root(&sim), secret);
    wait_for_states(&sim, &old, &["available"]);

    let image = |architecture: &str, name: &str| {
        let made = call(
            &sim,
            &[
                "RegisterImage",
                &arg("Name", name),
                "RootDeviceName=/dev/xvda",
                "VirtualizationType=hvm",
                &arg("Architecture", architecture),
                "BlockDeviceMapping.1.DeviceName=/dev/xvda",
                &arg("BlockDeviceMapping.1.Ebs.SnapshotId", &good),
            ],
        );
        values(&made, "imageId").remove(0)
    };
    assert_eq!(code(&replace(&sim, &[&arg("ImageId", &image("arm64", "arm"))])), "InvalidParameterValue");
    sim.ok(&[
        "faults",
        "add",
        "--action",
        "CreateReplaceRootVolumeTask",
        "--call",
        "1",
        "--kind",
        "volume-error",
    ]);
    let image = arg("ImageId", &image("x86_64", "intel"));
    let bad = task(&replace(&sim, &[&image]));
    wait_for_state(&sim, &bad, "failed");
    assert_eq!(root(&sim), secret, "the old root is the root still");
    let good = task(&replace(&sim, &[&image]));
    wait_for_state(&sim, &good, "succeeded");
    assert_ne!(root(&sim), secret);
}

#[test]
fn a_root_can_be_lost_on_request() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=root,size=16MiB,boot", "name=data,size=16MiB"]);
    let old = root(&sim);
    let good = snapshot(&sim, &old);
    completed(&sim, &good);
    let fault = ["--action", "CreateReplaceRootVolumeTask", "--call", "1", "--kind", "root-detached"];
    sim.ok(&[&["faults", "add"][..], &fault].concat());
    let lost = task(&replace(&sim, &[&arg("SnapshotId", &good)]));
    wait_for_state(&sim, &lost, "failed-detached");
    assert_eq!(states(&sim, &old), ["available"]);
    let attached = ["DescribeVolumes", "Filter.1.Name=attachment.device", "Filter.1.Value.1=/dev/xvda"];
    assert!(values(&call(&sim, &attached), "volumeId").is_empty());
}

#[test]
fn whether_a_volume_goes_with_the_instance_can_be_changed() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=root,size=16MiB,boot", "name=data,size=16MiB"]);
    let instance = arg("InstanceId", &instance(&sim));
    let modify = |device: &str, value: &str| {
        call(
            &sim,
            &[
                "ModifyInstanceAttribute",
                &instance,
                &arg("BlockDeviceMapping.1.DeviceName", device),
                &arg("BlockDeviceMapping.1.Ebs.DeleteOnTermination", value),
            ],
        )
    };
    let shown = || {
        let attribute = ["DescribeInstanceAttribute", &instance, "Attribute=blockDeviceMapping"];
        values(&call(&sim, &attribute), "deleteOnTermination")
    };
    assert_eq!(shown(), ["true", "false"]);
    assert_eq!(values(&modify("/dev/sdf", "true"), "return"), ["true"]);
    assert_eq!(values(&modify("/dev/xvda", "false"), "return"), ["true"]);
    assert_eq!(shown(), ["false", "true"]);
    assert_eq!(code(&modify("/dev/sdq", "true")), "InvalidInstanceAttributeValue");
    let other = call(&sim, &["ModifyInstanceAttribute", &instance, "InstanceType.Value=m7i.large"]);
    assert_eq!(code(&other), "UnsupportedOperation");
    let name = call(&sim, &["DescribeInstanceAttribute", &instance, "Attribute=rootDeviceName"]);
    assert_eq!(values(&name, "value"), ["/dev/xvda"]);
}
