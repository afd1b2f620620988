//! Instances are launched from images, and end.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::ec2::{
    LIVELY, arg, attach, call, code, completed, create, instance, states, wait_for_states,
};
use crate::support::{Mount, Sim, needs_root, sh, values, wait_for};

/// A simulation with a root and a data volume, each with a file.
fn begin(keep: bool) -> Sim {
    let temp = tempfile::tempdir().expect("a folder");
    let file = temp.path().join("scenario.toml");
    std::fs::write(&file, LIVELY).expect("a file");
    let (file, mut arguments) = (file.to_str().expect("UTF-8").to_owned(), vec![]);
    if keep {
        arguments.push("--keep");
    }
    arguments.extend(["--scenario", &file]);
    arguments.extend(["--volume", "name=root,size=64MiB,boot", "--volume", "name=data,size=64MiB,encrypted"]);
    let sim = Sim::launch(temp, &arguments);
    for name in ["root", "data"] {
        sh("mkfs.ext4", &["-q", "-F", &sim.device(name)]);
        let mount = Mount::new(&sim, name, &sim.device(name), "rw");
        std::fs::write(mount.path().join("file"), name).expect("a file");
    }
    sim
}

/// An image of both, whose data volume stays when an instance ends.
fn image(sim: &Sim, more: &[&str]) -> String {
    let snapshots = sim.create_snapshots();
    snapshots.iter().for_each(|id| drop(completed(sim, id)));
    let of = |name: &str| {
        let shown = call(
            sim,
            &["DescribeSnapshots", "Filter.1.Name=volume-id", &arg("Filter.1.Value.1", &sim.id(name))],
        );
        values(&shown, "snapshotId").pop().expect("a snapshot")
    };
    let (root, data) = (of("root"), of("data"));
    let (root, data) = (
        arg("BlockDeviceMapping.1.Ebs.SnapshotId", &root),
        arg("BlockDeviceMapping.2.Ebs.SnapshotId", &data),
    );
    let request = [
        "RegisterImage",
        "Name=database",
        "RootDeviceName=/dev/xvda",
        "VirtualizationType=hvm",
        "Architecture=x86_64",
        "BlockDeviceMapping.1.DeviceName=/dev/xvda",
        &root,
        "BlockDeviceMapping.1.Ebs.VolumeType=gp3",
        "BlockDeviceMapping.2.DeviceName=/dev/sdf",
        &data,
        "BlockDeviceMapping.2.Ebs.VolumeType=gp3",
        "BlockDeviceMapping.2.Ebs.VolumeSize=8",
        "BlockDeviceMapping.2.Ebs.Iops=4000",
        "BlockDeviceMapping.2.Ebs.Throughput=250",
        "BlockDeviceMapping.2.Ebs.DeleteOnTermination=false",
    ];
    let made = call(sim, &[&request[..], more].concat());
    let id = values(&made, "imageId").pop().unwrap_or_else(|| panic!("no image: {made}"));
    wait_for("the image", || {
        values(&call(sim, &["DescribeImages", &arg("ImageId.1", &id)]), "imageState") == ["available"]
    });
    id
}

const ENA: [&str; 1] = ["EnaSupport=true"];

fn run(sim: &Sim, image: &str, more: &[&str]) -> String {
    let image = arg("ImageId", image);
    call(
        sim,
        &[&["RunInstances", &image, "MinCount=1", "MaxCount=1", "InstanceType=m6i.large"], more].concat(),
    )
}

fn launched(made: &str) -> String {
    values(made, "instanceId").pop().unwrap_or_else(|| panic!("no instance: {made}"))
}

fn shown(sim: &Sim, id: &str) -> String {
    call(sim, &["DescribeInstances", &arg("InstanceId.1", id)])
}

/// `running` …
fn state(sim: &Sim, id: &str) -> String {
    let shown = shown(sim, id);
    // That of the network interface's attachment has no `name`.
    let names = values(&shown, "instanceState").pop().unwrap_or_default();
    values(&names, "name").pop().unwrap_or_default()
}

fn terminate(sim: &Sim, id: &str) -> String {
    call(sim, &["TerminateInstances", &arg("InstanceId.1", id)])
}

/// The disks of what was launched, as `ebs-sim.json` has them now.
fn disks(sim: &Sim) -> Vec<Value> {
    let text = std::fs::read_to_string(sim.dir().join("ebs-sim.json")).expect("the file");
    let ready: Value = serde_json::from_str(&text).expect("json");
    let all = ready["launched"].as_array().expect("a list");
    all.iter().flat_map(|launched| launched["volumes"].as_array().expect("a list").clone()).collect()
}

fn volumes(sim: &Sim) -> usize {
    values(&call(sim, &["DescribeVolumes"]), "createTime").len()
}

#[test]
fn an_instance_has_the_images_data_in_volumes_of_its_own() {
    needs_root();
    let sim = begin(false);
    let image = image(&sim, &ENA);
    let before = sim.exec("ls /sys/block").stdout;
    let tags = [
        "TagSpecification.1.ResourceType=instance",
        "TagSpecification.1.Tag.1.Key=Name",
        "TagSpecification.1.Tag.1.Value=second",
        "TagSpecification.2.ResourceType=volume",
        "TagSpecification.2.Tag.1.Key=Of",
        "ClientToken=once",
    ];
    let made = run(&sim, &image, &tags);
    let id = launched(&made);
    assert_eq!(values(&made, "reason"), [""], "{made}");
    assert_eq!((state(&sim, &id), values(&made, "imageId")), ("pending".into(), vec![image.clone()]));
    assert_eq!(launched(&run(&sim, &image, &tags)), id, "the same request launches no second one");
    assert_eq!(code(&run(&sim, &image, &["ClientToken=once"])), "IdempotentParameterMismatch");
    // The snapshots are not needed any more.
    call(&sim, &["DeregisterImage", &arg("ImageId", &image), "DeleteAssociatedSnapshots=true"]);
    wait_for("the instance", || state(&sim, &id) == "running");

    let disks = disks(&sim);
    let names: Vec<&str> = disks.iter().filter_map(|disk| disk["device_name"].as_str()).collect();
    assert_eq!(names, ["/dev/xvda", "/dev/sdf"], "the root is the first");
    for (disk, name) in disks.iter().zip(["root", "data"]) {
        let device = disk["loop"].as_str().expect("a path");
        let mount = Mount::new(&sim, &format!("new-{name}"), device, "rw");
        assert_eq!(std::fs::read_to_string(mount.path().join("file")).expect("a file"), name);
        std::fs::write(mount.path().join("file"), "of the second").expect("a file");
        drop(mount);
        let mount = Mount::new(&sim, &format!("old-{name}"), &sim.device(name), "ro");
        assert_eq!(std::fs::read_to_string(mount.path().join("file")).expect("a file"), name);
    }
    let data = disks[1]["id"].as_str().expect("an id");
    let of_data = call(&sim, &["DescribeVolumes", &arg("VolumeId.1", data)]);
    let one = |name: &str| values(&of_data, name).pop().unwrap_or_default();
    assert_eq!(
        (one("volumeType"), one("iops"), one("throughput")),
        ("gp3".into(), "4000".into(), "250".into())
    );
    assert_eq!((one("encrypted"), one("instanceId"), one("key")), ("true".into(), id.clone(), "Of".into()));
    assert_eq!(
        values(&shown(&sim, &id), "deleteOnTermination"),
        ["true", "false", "true"],
        "and the interface"
    );
    assert_eq!(values(&shown(&sim, &id), "value"), ["second"]);

    // The scenario's instance has nothing of it, and both can be told apart.
    assert_eq!(sim.exec("ls /sys/block").stdout, before);
    let own = instance(&sim);
    let both = call(&sim, &["DescribeInstances"]);
    assert_eq!(values(&both, "instanceId"), [own.as_str(), &id]);
    assert_eq!(values(&both, "deviceName"), ["/dev/xvda", "/dev/sdf", "/dev/xvda", "/dev/sdf"]);
    assert_eq!(sim.create_snapshots().len(), 2);
    let of_it = call(&sim, &["CreateSnapshots", &arg("InstanceSpecification.InstanceId", &id)]);
    let taken = values(&of_it, "volumeId");
    assert_eq!(taken.len(), 2);
    assert!(taken.contains(&data.to_owned()), "{of_it}");

    // Volumes come and go as with any other.
    let more = create(&sim, &["Size=1"]);
    let answer =
        call(&sim, &["AttachVolume", &arg("VolumeId", &more), &arg("InstanceId", &id), "Device=/dev/sdf"]);
    assert_eq!(code(&answer), "InvalidParameterValue", "the name is taken there");
    call(&sim, &["AttachVolume", &arg("VolumeId", &more), &arg("InstanceId", &id), "Device=/dev/sdg"]);
    wait_for_states(&sim, &more, &["in-use", "attached"]);
    assert_eq!(sim.exec("ls /sys/block").stdout, before);
    assert_eq!(code(&attach(&sim, &more, "/dev/sdh")), "VolumeInUse");
    let root = disks[0]["id"].as_str().expect("an id");
    assert_eq!(code(&call(&sim, &["DetachVolume", &arg("VolumeId", root)])), "OperationNotPermitted");
    let wrong = ["DetachVolume", &arg("VolumeId", &more), &arg("InstanceId", &own)];
    assert_eq!(code(&call(&sim, &wrong)), "InvalidAttachment.NotFound");

    assert_eq!(code(&terminate(&sim, &own)), "OperationNotPermitted", "the simulation would end");
    let ends = terminate(&sim, &id);
    assert_eq!(values(&ends, "name"), ["shutting-down", "running"]);
    wait_for("the end", || state(&sim, &id) == "terminated");
    assert!(values(&shown(&sim, &id), "deviceName").is_empty() && disks_gone(&sim));
    assert_eq!(values(&terminate(&sim, &id), "name"), ["terminated", "terminated"]);
    assert_eq!(code(&call(&sim, &["DescribeVolumes", &arg("VolumeId.1", root)])), "InvalidVolume.NotFound");
    assert_eq!(
        (states(&sim, data), states(&sim, &more)),
        (vec!["available".into()], vec!["available".into()])
    );
    sim.ok(&["clock", "--advance", "2h"]);
    assert_eq!(code(&shown(&sim, &id)), "InvalidInstanceID.NotFound");
}

fn disks_gone(sim: &Sim) -> bool {
    disks(sim).is_empty()
}

#[test]
fn what_cannot_be_launched_leaves_nothing() {
    needs_root();
    let sim = begin(false);
    let good = image(&sim, &ENA);
    let before = volumes(&sim);
    for (more, expected) in [
        (&["InstanceType=t2.micro"][..], "Unsupported"),
        (&["InstanceType=x99.huge"], "InvalidParameterValue"),
        (&["Placement.AvailabilityZone=us-west-2a"], "InvalidParameterValue"),
        (
            &["BlockDeviceMapping.1.DeviceName=/dev/sdf", "BlockDeviceMapping.1.VirtualName=ephemeral0"],
            "InvalidParameterValue",
        ),
        (&["SecurityGroupId.1=sg-1"], "UnknownParameter"),
        (&["DryRun=true"], "DryRunOperation"),
    ] {
        // The second of two values counts.
        assert_eq!(code(&run(&sim, &good, more)), expected, "{more:?}");
    }
    assert_eq!(code(&run(&sim, "ami-0123456789abcdef0", &[])), "InvalidAMIID.NotFound");
    let amazons = sim.ready["instance_id"].as_str().map(|id| values(&shown(&sim, id), "imageId").remove(0));
    assert_eq!(
        code(&run(&sim, &amazons.expect("an image"), &[])),
        "UnsupportedOperation",
        "nobody has its data"
    );
    call(&sim, &["DisableImage", &arg("ImageId", &good)]);
    assert_eq!(code(&run(&sim, &good, &[])), "InvalidAMIID.Unavailable");
    call(&sim, &["EnableImage", &arg("ImageId", &good)]);
    assert_eq!((volumes(&sim), values(&call(&sim, &["DescribeInstances"]), "instanceId").len()), (before, 1));

    // A volume that cannot be made ends it.
    sim.ok(&["faults", "add", "--action", "RunInstances", "--call", "1", "--kind", "volume-error"]);
    let id = launched(&run(&sim, &good, &[]));
    wait_for("its end", || state(&sim, &id) == "terminated");
    let reason = values(&shown(&sim, &id), "stateReason").remove(0);
    assert_eq!(values(&reason, "code"), ["Client.InternalError"]);
    // What does not go with the instance stays, as it was made.
    let left = call(&sim, &["DescribeVolumes", "Filter.1.Name=status", "Filter.1.Value.1=error"]);
    assert_eq!((volumes(&sim), values(&left, "volumeId").len()), (before + 1, 1), "{left}");
}

#[test]
fn an_image_without_ena_is_not_launched_on_nitro() {
    needs_root();
    let sim = begin(false);
    let image = image(&sim, &[]);
    assert_eq!(code(&run(&sim, &image, &[])), "InvalidParameterCombination");
}

#[test]
fn a_launch_goes_on_after_a_crash() {
    needs_root();
    let sim = begin(true);
    let image = image(&sim, &ENA);
    let id = launched(&run(&sim, &image, &[]));
    let sim = sim.restart(Signal::SIGKILL, &["--keep"]);
    wait_for("the instance", || state(&sim, &id) == "running");
    assert_eq!(disks(&sim).len(), 2);
    let sim = sim.restart(Signal::SIGKILL, &["--keep"]);
    assert_eq!((state(&sim, &id), disks(&sim).len()), ("running".into(), 2));
    terminate(&sim, &id);
    let sim = sim.restart(Signal::SIGKILL, &["--keep"]);
    wait_for("the end", || state(&sim, &id) == "terminated");
    assert!(disks_gone(&sim));
}
