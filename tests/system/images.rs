//! Images of sets, registered in a simulated EC2 over real volumes.

use rig::program::Ended;
use rig::{Fs, Rig};
use serde_json::Value;

/// The first volume is the root.
const ROOT: &str = "[instance]\nroot_device_name = '/dev/sdf'\nuefi_data = 'QU1aTlVFRkkAAAAA'\n";
const THERE: &str = "us-west-2";

fn take(rig: &Rig) -> String {
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn with_a_set(scenario: &str) -> (Rig, String) {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], &format!("{ROOT}{scenario}"));
    rig.configure("");
    let set = take(&rig);
    (rig, set)
}

fn image(rig: &Rig, more: &[&str]) -> Ended {
    rig.run(&[&["image"], more].concat())
}

/// What EC2 says of the account's own images in a Region.
fn described(rig: &Rig, region: &str) -> String {
    rig.sim(&["call", "--region", region, "DescribeImages", "Owner.1=self", "IncludeDisabled=true"])
}

fn count(rig: &Rig, region: &str) -> usize {
    described(rig, region).matches("<imageId>").count()
}

fn tag(rig: &Rig, resource: &str, key: &str, value: &str) {
    let (resource, key, value) =
        (format!("ResourceId.1={resource}"), format!("Tag.1.Key={key}"), format!("Tag.1.Value={value}"));
    rig.sim(&["call", "CreateTags", &resource, &key, &value]);
}

fn snapshots(rig: &Rig, set: &str) -> Vec<String> {
    let all = rig.snapshots();
    let of_set = all.iter().filter(|s| s["tags"]["stillpoint:run"] == set);
    of_set.map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_image_is_as_its_instance_is_and_is_made_once() {
    let (rig, set) = with_a_set("tpm = 'v2.0'\n");
    let dry = image(&rig, &[&set, "-n"]);
    dry.exits(0).says("permission checked").says("boot mode uefi").says("(root)");
    assert!(dry.err.lines().all(|l| l.chars().count() <= 80 || l.contains("name:")), "{}", dry.err);
    assert_eq!((count(&rig, "us-east-1"), dry.out.as_str()), (0, ""), "a dry run registers nothing");
    let planned = image(&rig, &[&set, "-n", "-o", "json"]).exits(0).record();
    assert_eq!(
        (&planned["images"][0]["state"], &planned["images"][0]["id"]),
        (&"planned".into(), &Value::Null)
    );

    let done = image(&rig, &[&set, "--tag", "Team=db"]);
    done.exits(0).says("is registered").says("as its instance is");
    let id = done.out.trim().to_owned();
    assert!(id.starts_with("ami-") && id.len() == 21, "{}", done.out);
    let call = &rig.calls("RegisterImage")[0]["params"];
    for (name, value) in [
        ("Architecture", "x86_64"),
        ("VirtualizationType", "hvm"),
        // Not uefi-preferred, which EC2 refuses with a TPM.
        ("BootMode", "uefi"),
        ("TpmSupport", "v2.0"),
        ("EnaSupport", "true"),
        ("SriovNetSupport", "simple"),
        ("ImdsSupport", "v2.0"),
        ("UefiData", "QU1aTlVFRkkAAAAA"),
        ("RootDeviceName", "/dev/sdf"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/sdf"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sdg"),
    ] {
        assert_eq!(call[name], value, "{name}: {call}");
    }
    assert!(
        call.as_object().unwrap().keys().all(|k| !k.contains("Encrypted") && !k.contains("Kms")),
        "{call}"
    );
    let shown = described(&rig, "us-east-1");
    for snapshot in snapshots(&rig, &set) {
        assert!(shown.contains(&format!("<snapshotId>{snapshot}<")), "{shown}");
    }
    assert!(shown.contains("<key>Team<") && shown.contains("stillpoint:compared"), "{shown}");
    assert!(shown.contains("-default-") && shown.contains(&set[..13]), "the name: {shown}");

    // The same command makes no second one.
    let again = image(&rig, &[&set]);
    again.exits(0).says("is there already");
    assert_eq!((again.out.trim(), rig.calls("RegisterImage").len()), (id.as_str(), 1));
    // Another set has a name of its own.
    let next = take(&rig);
    image(&rig, &[&next]).exits(0);
    assert_eq!(count(&rig, "us-east-1"), 2);
    // An image holds its set.
    rig.run(&["delete", &set, "--including-the-last"]).exits(78).says(&id);
}

#[test]
fn programs_are_told_what_was_made() {
    let (rig, set) = with_a_set("");
    let made = image(&rig, &[&set, "-o", "json", "--name", "{host} {date}", "--goes-with-set"]);
    let made = made.exits(0).record();
    let of = &made["images"][0];
    assert_eq!(
        (&of["state"], &of["set"], &of["changed"]),
        (&"available".into(), &set.clone().into(), &true.into())
    );
    assert_eq!(
        (of["volumes"].as_array().unwrap().len(), of["differences"].as_array().unwrap().len()),
        (2, 0)
    );
    assert_eq!(&of["goes_with_set"], &true, "{of}");
    let again = image(&rig, &[&set, "-o", "json", "--name", "{host} {date}"]).exits(0).record();
    assert_eq!((&again["images"][0]["id"], &again["images"][0]["changed"]), (&of["id"], &false.into()));
}

#[test]
fn what_cannot_be_an_image_is_refused_before_anything_is_registered() {
    let (rig, set) = with_a_set("");
    for bad in ["db", "db:1", "{name}", &"x".repeat(129)] {
        image(&rig, &[&set, "--name", bad]).exits(64).says("--name");
    }
    image(&rig, &[&set, "--tag", "stillpoint:image-of=x"]).exits(64).says("reserved");
    image(&rig, &[&set, "--description", "a\u{e4}"]).exits(64);
    image(&rig, &[&set, "--like", "ami-0123456789abcdef0"]).exits(78).says("there is no image").says("hint");
    image(&rig, &["0123456789"]).exits(78).says("there is no set");
    // A name that is another image's.
    let root = snapshots(&rig, &set)[0].clone();
    let register = |name: &str, snapshot: &str| {
        let made = rig.sim(&[
            "call",
            "RegisterImage",
            &format!("Name={name}"),
            "RootDeviceName=/dev/sda1",
            "BlockDeviceMapping.1.DeviceName=/dev/sda1",
            &format!("BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}"),
        ]);
        format!("ami-{}", &made.split("ami-").nth(1).unwrap()[..17])
    };
    let other = register("taken", &root);
    let before = rig.calls("RegisterImage").len();
    image(&rig, &[&set, "--name", "taken"]).exits(78).says("another image").says(&other).says("--name");
    // Its tag alone does not make it this set's: what it has besides is another set's.
    let next = take(&rig);
    let strange = register("strange", &snapshots(&rig, &next)[0]);
    tag(&rig, &strange, "stillpoint:image-of", &set);
    image(&rig, &[&set, "--name", "strange"]).exits(78).says("is not of");
    // Tags of the set that somebody has changed.
    let of_set = snapshots(&rig, &next);
    let line = |snapshot: &str| {
        let all = rig.snapshots();
        let one = all.iter().find(|s| s["id"] == snapshot).unwrap();
        one["tags"]["stillpoint:volume.0"].as_str().unwrap().to_owned()
    };
    let good = line(&of_set[0]);
    for (from, to, why) in [
        (" boot", "", "root device is not in"),
        ("device=/dev/sdf", "device=/dev/sdk", "the root device of"),
        ("type=gp3", "type=sc1", "does not boot"),
    ] {
        assert!(good.contains(from), "{good}");
        for snapshot in &of_set {
            tag(&rig, snapshot, "stillpoint:volume.0", &good.replace(from, to));
        }
        image(&rig, &[&next]).exits(78).says(why);
    }
    tag(&rig, &of_set[0], "stillpoint:volume.0", &good);
    image(&rig, &[&next]).exits(78).says("do not agree");
    rig.sim(&["call", "DeleteSnapshot", &format!("SnapshotId={}", of_set[1])]);
    image(&rig, &[&next]).exits(78).says("not complete");
    assert_eq!(rig.calls("RegisterImage").len(), before + 1, "only this test's own call");
    // The instance is not asked for what it is no longer.
    rig.control("POST", "iam", "{\"deny\": [\"ec2:RegisterImage\"]}");
    image(&rig, &[&set]).exits(77).says("RegisterImage");
}

#[test]
fn a_set_without_its_root_or_that_is_pending_is_no_image() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], ROOT);
    rig.configure("");
    let data = rig.run(&["snapshot", "--exclude-boot-volume", "-o", "json"]).exits(0).record();
    image(&rig, &[data["run_id"].as_str().unwrap()]).exits(78).says("the root device is not in").says("hint");
    rig.await_quiet();
    let slow = ["faults", "add", "--action", "CreateSnapshots", "--times", "1", "--kind", "slow-progress"];
    rig.sim(&[&slow[..], &["--delay", "4s"]].concat());
    let taken = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    let set = taken["run_id"].as_str().unwrap();
    image(&rig, &[set]).exits(78).says("not completed yet").says("--wait-source");
    assert!(rig.calls("RegisterImage").is_empty());
    image(&rig, &[set, "--wait-source"]).exits(0).says("as its instance is");
}

/// A price that its instances would not have is taken back at once.
#[test]
fn an_image_that_costs_something_else_is_taken_back() {
    let (rig, set) =
        with_a_set("platform_details = 'Red Hat Enterprise Linux'\nusage_operation = 'RunInstances:0010'\n");
    let gone = image(&rig, &[&set]);
    gone.exits(11).says("usage operation: RunInstances, and not RunInstances:0010").says("is deregistered");
    assert_eq!((gone.out.as_str(), count(&rig, "us-east-1")), ("", 0));
    assert_eq!(rig.calls("DeregisterImage").len(), 1);
    let json = image(&rig, &[&set, "-o", "json"]).exits(11).record();
    assert_eq!(json["images"][0]["state"], "discarded", "{json}");
    assert_eq!(snapshots(&rig, &set).len(), 2, "the set stays as it was");
    assert!(rig.snapshots().iter().all(|s| s["state"] == "completed"));
}

#[test]
fn a_lost_answer_and_a_late_one_make_one_image() {
    for (kind, calls) in [("drop-after", 1), ("reset-after", 1), ("throttle", 2)] {
        let (rig, set) = with_a_set("");
        rig.fault("RegisterImage", kind, "0s");
        image(&rig, &[&set]).exits(0);
        assert_eq!((count(&rig, "us-east-1"), rig.calls("RegisterImage").len()), (1, calls), "{kind}");
    }
    let (rig, set) = with_a_set("");
    rig.fault("RegisterImage", "late-visibility", "3s");
    image(&rig, &[&set]).exits(0).says("as its instance is");
    assert_eq!(count(&rig, "us-east-1"), 1);
}

/// Killed after EC2 has registered it, before it said so: the same command goes on.
#[test]
fn a_killed_one_is_gone_on_with() {
    let (rig, set) = with_a_set("");
    let hold = ["faults", "add", "--action", "RegisterImage", "--call", "1", "--kind", "hold-after"];
    let held = rig.sim(&hold).trim().to_owned();
    let run = rig.spawn(&["image", &set]);
    rig.sim(&["faults", "wait", &held]);
    run.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(9));
    rig.sim(&["faults", "release", &held]);
    image(&rig, &[&set]).exits(0).says("is there already");
    assert_eq!((count(&rig, "us-east-1"), rig.calls("RegisterImage").len()), (1, 1));
    assert!(described(&rig, "us-east-1").contains("stillpoint:compared"), "it is compared all the same");
}

/// The root device encrypted: a copy with a key, and the image of that. And in another Region.
#[test]
fn an_encrypted_copy_becomes_an_image_here_and_in_another_region() {
    let keys = "[[kms_key]]\nid = '1111aaaa-12ab-34cd-56ef-1234567890ab'\nregion = 'us-east-1'\nalias = 'alias/boot'\n";
    let (rig, set) = with_a_set(keys);
    image(&rig, &[&set]).exits(0);
    let copy = |to: &str, more: &[&str]| {
        let copied = rig.run(&[&["copy", &set, "--to", to, "-o", "json"], more].concat()).exits(0).record();
        copied["copies"][0]["set"].as_str().unwrap().to_owned()
    };
    let encrypted = copy("us-east-1", &["--key", "alias/boot"]);
    let made = image(&rig, &[&encrypted, "-o", "json"]).exits(0).record();
    let volumes = made["images"][0]["volumes"].as_array().unwrap();
    assert!(volumes.len() == 2 && volumes.iter().all(|v| v["encrypted"] == true), "{made}");
    assert_eq!(count(&rig, "us-east-1"), 2, "beside the image of the set itself");
    // There: the instance is asked where it is, and only there.
    let there = copy(THERE, &[]);
    let made = image(&rig, &[&there, "--region", THERE, "-o", "json"]).exits(0).record();
    let of = &made["images"][0];
    assert_eq!((&of["region"], &of["attributes"]["boot_mode"]), (&THERE.into(), &"uefi-preferred".into()));
    assert_eq!(of["attributes"]["imds"], "v2.0", "{of}");
    assert_eq!((count(&rig, THERE), count(&rig, "us-east-1")), (1, 2));
    // Where the instance is gone, an image says how it boots.
    let all: Vec<_> =
        rig.snapshots().into_iter().filter(|s| s["tags"]["stillpoint:run"] == set.as_str()).collect();
    for one in &all {
        tag(&rig, one["id"].as_str().unwrap(), "stillpoint:instance", "i-0aaaaaaaaaaaaaaaa");
    }
    image(&rig, &[&set, "--name", "later"]).exits(78).says("is gone").says("--like");
    let like = described(&rig, "us-east-1");
    let like = format!("ami-{}", &like.split("<imageId>ami-").nth(1).unwrap()[..17]);
    image(&rig, &[&set, "--name", "later", "--like", &like]).exits(0).says("boots as");
}
