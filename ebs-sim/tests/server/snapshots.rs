//! What happens to snapshots afterwards: copied, shared, locked, archived, made into images, over a real
//! server.
//!
//! Each refusal is followed by the same request where it is allowed: an oracle that cannot fail proves
//! nothing.
use std::io::Write as _;

use crate::support::{QUICK, Sim, needs_root, values, wait_for};

const SCENARIO: &str = "
[limits]
per_volume_interval = '0s'
[limits.bucket.DescribeTags]
size = 2
refill = 0.001
[snapshots]
seconds_to_complete = 0.2
[[kms_key]]
id = '1234abcd-12ab-34cd-56ef-1234567890ab'
region = 'us-west-2'
alias = 'alias/backup'
[[kms_key]]
id = '2234abcd-12ab-34cd-56ef-1234567890ab'
region = 'us-west-2'
alias = 'alias/old'
state = 'disabled'
[[kms_key]]
id = '3234abcd-12ab-34cd-56ef-1234567890ab'
region = 'us-west-2'
state = 'inaccessible'
";

/// A key of us-west-2 in the control API.
const KEY: &str = "kms-keys/us-west-2/1234abcd-12ab-34cd-56ef-1234567890ab";

/// One request, in a Region: the body when it is answered, or EC2's code.
fn call(sim: &Sim, region: &str, action: &str, parameters: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["call", action];
    if region != "us-east-1" {
        arguments.extend(["--region", region]);
    }
    arguments.extend(parameters);
    let output = sim.command(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let text = text + &String::from_utf8_lossy(&output.stderr);
    Err(values(&text, "Code").pop().unwrap_or(text))
}

fn one(xml: &str, name: &str) -> String {
    let mut found = values(xml, name);
    assert_eq!(found.len(), 1, "{name} in {xml}");
    found.remove(0)
}

/// A snapshot as DescribeSnapshots shows it.
fn shown(sim: &Sim, region: &str, id: &str) -> String {
    call(sim, region, "DescribeSnapshots", &[&format!("SnapshotId.1={id}")]).expect("it is there")
}

fn wait_until(sim: &Sim, region: &str, id: &str, state: &str) {
    wait_for(state, || one(&shown(sim, region, id), "status") == state);
}

/// Makes a snapshot of a volume that begins with these bytes.
fn completed_snapshot(sim: &Sim, text: &str) -> String {
    let mut device = std::fs::OpenOptions::new().write(true).open(sim.device("a")).expect("the device opens");
    device.write_all(&[text.as_bytes(), &vec![b'.'; 4096 - text.len()]].concat()).expect("it is written");
    device.sync_all().expect("it is synced");
    let id = sim.create_snapshot("a");
    wait_until(sim, "us-east-1", &id, "completed");
    id
}

fn beginning(sim: &Sim, snapshot: &str, length: usize) -> String {
    let device = sim.snapshot_device(snapshot);
    let data = std::fs::read(&device).expect("it can be read");
    sim.release_device(&device);
    String::from_utf8_lossy(&data[..length]).into_owned()
}

#[test]
fn a_copy_is_encrypted_shared_locked_and_outlives_its_source() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB,tag:Name=a"]);
    let source = completed_snapshot(&sim, "first");
    let from = format!("SourceSnapshotId={source}");
    let copy = |rest: &[&str]| {
        let all = [&["SourceRegion=us-east-1", &from][..], rest].concat();
        call(&sim, "us-west-2", "CopySnapshot", &all)
    };
    assert_eq!(copy(&["DryRun=true"]), Err("DryRunOperation".into()));
    assert_eq!(copy(&["KmsKeyId=alias/backup"]), Err("InvalidParameterDependency".into()));
    assert_eq!(copy(&["Colour=red"]), Err("UnknownParameter".into()));
    // The source is looked at afterwards, and so are most things that are wrong with a key.
    let from_there = ["SourceRegion=us-west-2", &from];
    let lost = one(&call(&sim, "us-west-2", "CopySnapshot", &from_there).expect("answered"), "snapshotId");
    assert_eq!(copy(&["Encrypted=true", "KmsKeyId=alias/old"]), Err("InvalidParameterValue".into()));
    assert_eq!(copy(&["Encrypted=true", "KmsKeyId=alias/nobodys"]), Err("InvalidParameterValue".into()));
    let shut = "KmsKeyId=3234abcd-12ab-34cd-56ef-1234567890ab";
    let bad = one(&copy(&["Encrypted=true", shut]).expect("answered"), "snapshotId");
    for (id, why) in [(&lost, "Source snapshot is not found"), (&bad, "Given key ID is not accessible")] {
        wait_until(&sim, "us-west-2", id, "error");
        let xml = shown(&sim, "us-west-2", id);
        assert_eq!((one(&xml, "statusMessage").as_str(), one(&xml, "volumeSize").as_str()), (why, "0"));
    }

    let tag = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=k",
        "TagSpecification.1.Tag.1.Value=v",
    ];
    let rest = ["Encrypted=true", "KmsKeyId=alias/backup", "Description=away", "PresignedUrl=http://x"];
    let answer = copy(&[&rest[..], &tag].concat()).expect("good");
    assert_eq!(one(&answer, "key"), "k");
    let id = one(&answer, "snapshotId");
    wait_until(&sim, "us-west-2", &id, "completed");
    let xml = shown(&sim, "us-west-2", &id);
    assert_eq!(one(&xml, "volumeId"), "vol-ffffffff");
    assert_eq!((one(&xml, "encrypted").as_str(), one(&xml, "sseType").as_str()), ("true", "sse-kms"));
    let arn = "arn:aws:kms:us-west-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    assert_eq!(one(&xml, "kmsKeyId"), arn);
    assert_eq!(values(&xml, "key"), ["k"], "the source's tags are not copied");
    let home = call(&sim, "us-east-1", "DescribeSnapshots", &[&format!("SnapshotId.1={id}")]);
    assert_eq!(home, Err("InvalidSnapshot.NotFound".into()));

    // Shared, but never with everybody; and not at all by the default key.
    let snapshot = format!("SnapshotId={id}");
    let share = |id: &str, who: &str| {
        let all = [&format!("SnapshotId={id}"), "Attribute=createVolumePermission", "OperationType=add", who];
        call(&sim, "us-west-2", "ModifySnapshotAttribute", &all)
    };
    let default = one(&copy(&["Encrypted=true"]).expect("good"), "snapshotId");
    let refused = Err("OperationNotPermitted".to_owned());
    assert_eq!(share(&default, "UserId.1=111111111111"), refused);
    assert_eq!(share(&id, "UserGroup.1=all"), refused);
    share(&id, "UserId.1=111111111111").expect("its key is the account's own");
    let attribute = [snapshot.as_str(), "Attribute=createVolumePermission"];
    let xml = call(&sim, "us-west-2", "DescribeSnapshotAttribute", &attribute).expect("good");
    assert_eq!(one(&xml, "userId"), "111111111111");
    let restorable = |by: &str| {
        let xml = call(&sim, "us-west-2", "DescribeSnapshots", &[&format!("RestorableBy.1={by}")]);
        values(&xml.expect("good"), "snapshotId")
    };
    assert_eq!(restorable("111111111111"), [id.as_str()]);
    assert_eq!((restorable("all").len(), restorable("self").len()), (0, 4));
    call(&sim, "us-west-2", "ResetSnapshotAttribute", &attribute).expect("good");
    assert_eq!(restorable("111111111111").len(), 0);

    // The copy keeps the data when its source goes, and a lock keeps the copy.
    call(&sim, "us-east-1", "DeleteSnapshot", &[&format!("SnapshotId={source}")]).expect("free");
    assert_eq!(beginning(&sim, &id, 5), "first");
    let lock = [&snapshot, "LockMode=governance", "LockDuration=1"];
    let xml = call(&sim, "us-west-2", "LockSnapshot", &lock).expect("good");
    assert_eq!((one(&xml, "lockState").as_str(), one(&xml, "lockDuration").as_str()), ("governance", "1"));
    let delete = || call(&sim, "us-west-2", "DeleteSnapshot", &[&snapshot]);
    assert_eq!(delete(), Err("SnapshotLocked".into()));
    let locked = call(&sim, "us-west-2", "DescribeLockedSnapshots", &[]).expect("good");
    assert_eq!(one(&locked, "snapshotId"), id);
    call(&sim, "us-west-2", "UnlockSnapshot", &[&snapshot]).expect("governance");
    delete().expect("unlocked");
    assert_eq!(delete(), Err("InvalidSnapshot.NotFound".into()));

    // Of the other copies that are left, one has its data.
    let compliance = [&format!("SnapshotId={default}"), "LockMode=compliance", "LockDuration=1"];
    call(&sim, "us-west-2", "LockSnapshot", &compliance).expect("good");
    let unlock = call(&sim, "us-west-2", "UnlockSnapshot", &[&format!("SnapshotId={default}")]);
    assert_eq!(unlock, Err("IncorrectState".into()));
    assert_eq!(beginning(&sim, &default, 5), "first");
}

#[test]
fn the_image_of_a_set_goes_with_its_last_snapshot() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB"]);
    let source = completed_snapshot(&sim, "text");
    let images = || std::fs::read_dir(sim.dir().join("host/snapshots")).expect("a folder").count();
    let from = format!("SourceSnapshotId={source}");
    let xml = call(&sim, "us-east-1", "CopySnapshot", &["SourceRegion=us-east-1", &from]).expect("good");
    let copy = one(&xml, "snapshotId");
    assert_eq!(images(), 1, "a copy needs no room");
    call(&sim, "us-east-1", "DeleteSnapshot", &[&format!("SnapshotId={source}")]).expect("good");
    assert_eq!((images(), beginning(&sim, &copy, 4).as_str()), (1, "text"));
    call(&sim, "us-east-1", "DeleteSnapshot", &[&format!("SnapshotId={copy}")]).expect("good");
    assert_eq!(images(), 0);
}

#[test]
fn an_image_keeps_its_snapshots_until_it_is_deregistered() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB"]);
    let snapshot = completed_snapshot(&sim, "root");
    let home = "us-east-1";
    let ebs = format!("BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}");
    let base = ["Name=db-1", "RootDeviceName=/dev/xvda", "BlockDeviceMapping.1.DeviceName=/dev/xvda", &ebs];
    let register =
        |region: &str, rest: &[&str]| call(&sim, region, "RegisterImage", &[&base[..], rest].concat());
    assert_eq!(register("us-west-2", &[]), Err("InvalidSnapshot.NotFound".into()));
    let image = one(&register(home, &["Architecture=x86_64"]).expect("good"), "imageId");
    assert_eq!(register(home, &[]), Err("InvalidAMIName.Duplicate".into()));
    let describe = |rest: &str| call(&sim, home, "DescribeImages", &[rest]);
    let by_id = format!("ImageId.1={image}");
    wait_for("available", || one(&describe(&by_id).expect("there"), "imageState") == "available");
    let xml = describe("Owner.1=self").expect("good");
    assert_eq!((one(&xml, "imageId"), one(&xml, "snapshotId")), (image.clone(), snapshot.clone()));
    assert_eq!(one(&xml, "virtualizationType"), "paravirtual", "what was not said is not guessed");
    let xml = describe("ImageId.1=ami-0abcdef1234567890").expect("the instance's own");
    assert_eq!((one(&xml, "imageOwnerAlias").as_str(), one(&xml, "isPublic").as_str()), ("amazon", "true"));

    call(&sim, home, "CreateTags", &[&format!("ResourceId.1={image}"), "Tag.1.Key=k", "Tag.1.Value=v"])
        .expect("an image can be tagged");
    let tags = |region: &str| call(&sim, region, "DescribeTags", &[]);
    assert_eq!(values(&tags(home).expect("good"), "resourceType"), ["image"]);
    assert_eq!(values(&tags("us-west-2").expect("good"), "resourceType").len(), 0, "another Region's");
    tags(home).expect("the second of two");
    assert_eq!(tags(home), Err("RequestLimitExceeded".into()));
    tags("us-west-2").expect("a bucket of its own");

    let delete = || call(&sim, home, "DeleteSnapshot", &[&format!("SnapshotId={snapshot}")]);
    assert_eq!(delete(), Err("InvalidSnapshot.InUse".into()));
    let deregister =
        |id: &str, rest: &str| call(&sim, home, "DeregisterImage", &[&format!("ImageId={id}"), rest]);
    assert_eq!(deregister("ami-0abcdef1234567890", "DryRun=false"), Err("AuthFailure".into()));
    deregister(&image, "DryRun=false").expect("good");
    assert_eq!(describe(&by_id), Err("InvalidAMIID.NotFound".into()));
    let kept = one(&register(home, &[]).expect("the name is free"), "imageId");
    control(&sim, "iam", r#"{"deny": ["ec2:DeleteSnapshot"]}"#);
    let xml = deregister(&kept, "DeleteAssociatedSnapshots=true").expect("the image may go");
    assert_eq!(one(&xml, "returnCode"), "missing-permissions");
    control(&sim, "iam", r#"{"deny": []}"#);
    let second = one(&register(home, &[]).expect("the name is free again"), "imageId");
    let xml = deregister(&second, "DeleteAssociatedSnapshots=true").expect("good");
    assert_eq!(one(&xml, "returnCode"), "success");
    assert_eq!(delete(), Err("InvalidSnapshot.NotFound".into()));
}

#[test]
fn an_archived_snapshot_must_be_restored_first() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB"]);
    let id = completed_snapshot(&sim, "old");
    let home = "us-east-1";
    let snapshot = format!("SnapshotId={id}");
    let from = format!("SourceSnapshotId={id}");
    let copy = || call(&sim, home, "CopySnapshot", &["SourceRegion=us-east-1", &from]);
    call(&sim, home, "ModifySnapshotTier", &[&snapshot, "StorageTier=archive"]).expect("completed");
    wait_for("archive", || one(&shown(&sim, home, &id), "storageTier") == "archive");
    assert_eq!(copy(), Err("IncorrectState".into()));
    let tier = || call(&sim, home, "DescribeSnapshotTierStatus", &[]).expect("good");
    assert_eq!(one(&tier(), "lastTieringOperationStatus"), "archival-completed");
    call(&sim, home, "RestoreSnapshotTier", &[&snapshot, "PermanentRestore=true"]).expect("archived");
    wait_for("standard", || one(&tier(), "storageTier") == "standard");
    copy().expect("it is back");
}

#[test]
fn a_keys_state_can_be_changed_while_it_runs() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB"]);
    let source = completed_snapshot(&sim, "x");
    let from = format!("SourceSnapshotId={source}");
    let copy = || {
        let all = ["SourceRegion=us-east-1", &from, "Encrypted=true", "KmsKeyId=alias/backup"];
        one(&call(&sim, "us-west-2", "CopySnapshot", &all).expect("answered"), "snapshotId")
    };
    let good = copy();
    control(&sim, KEY, r#"{"state": "pending-deletion"}"#);
    let bad = copy();
    wait_until(&sim, "us-west-2", &good, "completed");
    wait_until(&sim, "us-west-2", &bad, "error");
}

fn control(sim: &Sim, path: &str, body: &str) {
    assert_eq!(sim.post(path, body), 200, "{path}");
}

#[test]
fn a_reset_forgets_images_fills_the_buckets_and_restores_the_keys() {
    needs_root();
    let sim = Sim::start(SCENARIO, &["name=a,size=1MiB"]);
    let home = "us-east-1";
    let snapshot = completed_snapshot(&sim, "x");
    let ebs = format!("BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}");
    let name = ["Name=db-1", "RootDeviceName=/dev/sda1", "BlockDeviceMapping.1.DeviceName=/dev/sda1", &ebs];
    call(&sim, home, "RegisterImage", &name).expect("good");
    let tags = || call(&sim, home, "DescribeTags", &[]);
    assert!((0..5).any(|_| tags().is_err()), "the bucket is empty");
    control(&sim, KEY, r#"{"state": "inaccessible"}"#);
    let usable = |snapshot: &str| {
        let from = format!("SourceSnapshotId={snapshot}");
        let all = ["SourceRegion=us-east-1", &from, "Encrypted=true", "KmsKeyId=alias/backup"];
        let copy = one(&call(&sim, "us-west-2", "CopySnapshot", &all).expect("answered"), "snapshotId");
        wait_for("an end", || one(&shown(&sim, "us-west-2", &copy), "status") != "pending");
        one(&shown(&sim, "us-west-2", &copy), "status") == "completed"
    };
    assert!(!usable(&snapshot));
    control(&sim, "reset", "");
    tags().expect("the bucket is full");
    let images = call(&sim, home, "DescribeImages", &[]).expect("good");
    assert_eq!(one(&images, "imageOwnerAlias"), "amazon", "only the instance's own is left");
    assert!(usable(&completed_snapshot(&sim, "x")));
}

#[test]
fn a_region_has_room_for_so_many_snapshots() {
    needs_root();
    let scenario = SCENARIO.replace("[limits]", "[limits]\nsnapshots = 2");
    let sim = Sim::start(&scenario, &["name=a,size=1MiB"]);
    let id = completed_snapshot(&sim, "x");
    let volume = format!("VolumeId={}", sim.id("a"));
    let instance = sim.ready["instance_id"].as_str().expect("an id");
    let instance = format!("InstanceSpecification.InstanceId={instance}");
    let full = Err("SnapshotLimitExceeded".to_owned());
    let home = "us-east-1";
    call(&sim, home, "CreateSnapshot", &[&volume]).expect("the second of two");
    assert_eq!(call(&sim, home, "CreateSnapshot", &[&volume]), full);
    assert_eq!(call(&sim, home, "CreateSnapshots", &[&instance]), full);
    let from = ["SourceRegion=us-east-1", &format!("SourceSnapshotId={id}")];
    assert_eq!(call(&sim, home, "CopySnapshot", &from), full);
    call(&sim, "us-west-2", "CopySnapshot", &from).expect("there is room elsewhere");
    call(&sim, home, "DeleteSnapshot", &[&format!("SnapshotId={id}")]).expect("good");
    call(&sim, home, "CreateSnapshots", &[&instance]).expect("there is room again");
}

/// As with copies, EC2 finds out about a volume's key only after the answer.
#[test]
fn a_volume_with_a_key_that_cannot_be_used_ends_in_error() {
    needs_root();
    let scenario = format!(
        "{QUICK}[[kms_key]]\nid = '1234abcd-12ab-34cd-56ef-1234567890ab'\nalias = \
         'alias/backup'\n[volumes]\nseconds_to_create = 0.1\n"
    );
    let sim = Sim::start(&scenario, &["name=a,size=16MiB"]);
    let made = |key: &str| {
        let key = format!("KmsKeyId={key}");
        let call = ["call", "CreateVolume", "AvailabilityZone=us-east-1a", "Size=1", "Encrypted=true", &key];
        format!("VolumeId.1={}", values(&sim.ok(&call), "volumeId").remove(0))
    };
    let ends = |volume: &str, status: &str| {
        wait_for(&format!("{volume} to be {status}"), || {
            values(&sim.ok(&["call", "DescribeVolumes", volume]), "status") == [status]
        });
    };
    let good = made("alias/backup");
    ends(&good, "available");
    let arn = values(&sim.ok(&["call", "DescribeVolumes", &good]), "kmsKeyId").remove(0);
    assert!(arn.ends_with("key/1234abcd-12ab-34cd-56ef-1234567890ab"), "{arn}");
    ends(&made("alias/nobody"), "error");
}
