//! Images of sets that are listed, changed, deleted, and pruned with their sets; and those that a run makes itself.

use rig::namespace::Namespace;
use rig::program::Ended;
use rig::{Fs, Rig};
use serde_json::Value;

/// The first volume is the root.
const ROOT: &str = "[instance]\nroot_device_name = '/dev/sdf'\n";
const ONE: &str = "111122223333";

fn rig(config: &str) -> Rig {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], ROOT);
    rig.configure(config);
    rig
}

fn take(rig: &Rig) -> String {
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn image(rig: &Rig, more: &[&str]) -> Ended {
    rig.run(&[&["image"], more].concat())
}

fn register(rig: &Rig, set: &str, more: &[&str]) -> String {
    let made = image(rig, &[&[set], more].concat());
    made.exits(0).out.trim().to_owned()
}

/// The ids of the account's own images.
fn images(rig: &Rig) -> Vec<String> {
    let said = rig.sim(&["call", "DescribeImages", "Owner.1=self", "IncludeDisabled=true"]);
    said.split("<imageId>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

fn snapshots(rig: &Rig, set: &str) -> Vec<String> {
    let all = rig.snapshots();
    let there = |s: &&Value| s["tags"]["stillpoint:run"] == set && s["state"] != "recoverable";
    all.iter().filter(there).map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

fn marked(rig: &Rig, set: &str) -> bool {
    let all = rig.snapshots();
    all.iter().any(|s| s["tags"]["stillpoint:run"] == set && s["tags"]["stillpoint:deleting"].is_string())
}

fn tag(rig: &Rig, resource: &str, key: &str, value: &str) {
    let resource = format!("ResourceId.1={resource}");
    let (key, value) = (format!("Tag.1.Key={key}"), format!("Tag.1.Value={value}"));
    rig.sim(&["call", "CreateTags", &resource, &key, &value]);
}

/// Somebody else's image of a snapshot, with the tags of an image of this set.
fn forged(rig: &Rig, name: &str, snapshot: &str, set: &str) -> String {
    let made = rig.sim(&[
        "call",
        "RegisterImage",
        &format!("Name={name}"),
        "RootDeviceName=/dev/sda1",
        "BlockDeviceMapping.1.DeviceName=/dev/sda1",
        &format!("BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}"),
    ]);
    let id = format!("ami-{}", &made.split("ami-").nth(1).unwrap()[..17]);
    tag(rig, &id, "stillpoint:image-of", set);
    tag(rig, &id, "stillpoint:goes-with-set", "yes");
    id
}

#[test]
fn images_are_listed_and_one_with_a_false_tag_is_told() {
    let rig = rig("");
    image(&rig, &["list"]).exits(0).says("no image of a set");
    let (first, second) = (take(&rig), take(&rig));
    let own = register(&rig, &first, &[]);
    let other = register(&rig, &second, &[]);
    let liar = forged(&rig, "liar", &snapshots(&rig, &second)[1], &first);
    let list = image(&rig, &["list"]);
    list.exits(0).says(&format!("{liar} has the tag of a set, but")).says("is not of");
    assert!([&own, &other, &liar].iter().all(|id| list.out.contains(id.as_str())), "{}", list.out);
    let json = image(&rig, &["list", "-o", "json", "--set", &first]).exits(0).record();
    let ids: Vec<_> = json["images"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.contains(&own.as_str()) && ids.contains(&liar.as_str()), "{json}");
    // Of an image that is none of a set, nothing is changed.
    image(&rig, &["delete", &liar]).exits(78).says("is not of").says("hint");
    image(&rig, &["share", &liar, "--account", ONE]).exits(78);
    image(&rig, &["disable", &liar]).exits(78);
    image(&rig, &["delete", "ami-0123456789abcdef0"]).exits(78).says("no image");
    image(&rig, &["delete", "ami-x"]).exits(64);
    assert_eq!((images(&rig).len(), rig.calls("DeregisterImage").len()), (3, 0));
}

#[test]
fn what_others_may_do_with_an_image_is_changed_once() {
    let rig = rig("");
    let id = register(&rig, &take(&rig), &[]);
    let shared = || {
        let image = format!("ImageId={id}");
        let said = rig.sim(&["call", "DescribeImageAttribute", &image, "Attribute=launchPermission"]);
        said.contains(ONE)
    };
    image(&rig, &["share", &id, "--account", ONE, "-n"]).exits(0).says("would be changed");
    assert!(!shared());
    image(&rig, &["share", &id, "--account", ONE]).exits(0).says("is shared with");
    image(&rig, &["share", &id, "--account", ONE]).exits(0).says("nothing had to be changed");
    assert_eq!((shared(), rig.calls("ModifyImageAttribute").len()), (true, 1));
    let json = image(&rig, &["unshare", &id, "-o", "json"]).exits(0).record();
    assert_eq!((&json["images"][0]["accounts"][0], shared()), (&ONE.into(), false));
    image(&rig, &["share", &id]).exits(64).says("--account");

    let json = image(&rig, &["deprecate", &id, "--from", "2031-01-31", "-o", "json"]).exits(0).record();
    assert_eq!(json["images"][0]["deprecated_from"], "2031-01-31T00:00:00Z", "{json}");
    image(&rig, &["deprecate", &id, "--from", "2031-01-31"]).exits(0).says("nothing had to be changed");
    for bad in ["2020-01-01", "2099-01-01", "soon", "forever"] {
        image(&rig, &["deprecate", &id, "--from", bad]).exits(64);
    }
    image(&rig, &["deprecate", &id]).exits(64);
    let json = image(&rig, &["deprecate", &id, "--never", "-o", "json"]).exits(0).record();
    assert_eq!(json["images"][0]["deprecated_from"], Value::Null);

    let json = image(&rig, &["disable", &id, "-o", "json"]).exits(0).record();
    assert_eq!(json["images"][0]["state"], "disabled");
    image(&rig, &["disable", &id]).exits(0).says("nothing had to be changed");
    image(&rig, &["enable", &id]).exits(0).says("is enabled");
    assert!(image(&rig, &["list"]).exits(0).out.contains("available"));
}

#[test]
fn an_image_is_made_public_only_where_that_is_said_twice_and_can_be() {
    let rig = rig("");
    let set = take(&rig);
    let id = register(&rig, &set, &[]);
    let public = || {
        let image = format!("ImageId={id}");
        let said = rig.sim(&["call", "DescribeImageAttribute", &image, "Attribute=launchPermission"]);
        (said.contains("<group>all</group>"), said.contains(ONE))
    };
    let twice = ["share", &id, "--public", "--yes-anybody-may-read-it"];
    image(&rig, &["share", &id, "--public"]).exits(64).says("--yes-anybody-may-read-it");
    image(&rig, &["share", &id, "--account", ONE, "--yes-anybody-may-read-it"]).exits(64);
    // The account blocks it, as most do.
    rig.sim(&["call", "EnableImageBlockPublicAccess", "ImageBlockPublicAccessState=block-new-sharing"]);
    for dry in [&[][..], &["-n"]] {
        let blocked = image(&rig, &[&twice[..], dry].concat());
        blocked.exits(78).says("blocks public access to images in us-east-1 (block-new-sharing)");
        blocked.says("aws ec2 disable-image-block-public-access --region us-east-1");
    }
    assert_eq!((public(), rig.calls("ModifyImageAttribute").len()), ((false, false), 0));
    let list = || image(&rig, &["list"]).exits(0).out.clone();
    assert!(!list().contains("PUBLIC"));

    rig.sim(&["call", "DisableImageBlockPublicAccess"]);
    let dry = image(&rig, &[&twice[..], &["-n"]].concat());
    dry.exits(0).says("would be changed: it is shared with all: any AWS account can find it");
    assert!(!public().0);
    let named = ["--account", ONE, "-o", "json"];
    let done = image(&rig, &[&twice[..], &named].concat());
    let record = done.exits(0).says("read all of its volumes").record();
    assert_eq!((&record["images"][0]["public"], &record["command"]), (&true.into(), &"share".into()));
    assert_eq!(record["images"][0]["accounts"], serde_json::json!([ONE, "all"]));
    assert_eq!(public(), (true, true));
    assert!(list().contains("available, PUBLIC"), "{}", list());
    image(&rig, &twice).exits(0).says("nothing had to be changed");
    // What is public stays so, and can be taken back, while the account blocks it.
    rig.sim(&["call", "EnableImageBlockPublicAccess", "ImageBlockPublicAccessState=block-new-sharing"]);
    let back = image(&rig, &["unshare", &id, "--public"]);
    back.exits(0).says("is no longer shared with all; whoever has launched it has its data");
    assert_eq!(public(), (false, true), "whoever was named keeps it");
    rig.sim(&["call", "DisableImageBlockPublicAccess"]);
    image(&rig, &twice).exits(0);
    image(&rig, &["unshare", &id]).exits(0);
    assert_eq!(public(), (false, false));

    // What is encrypted.
    let copied = rig.run(&["copy", &set, "--to", "us-east-1", "--key", "alias/aws/ebs", "-o", "json"]);
    let copy = copied.exits(0).record()["copies"][0]["set"].as_str().unwrap().to_owned();
    let encrypted = register(&rig, &copy, &[]);
    let calls = rig.calls("ModifyImageAttribute").len();
    let refused = image(&rig, &["share", &encrypted, "--public", "--yes-anybody-may-read-it"]);
    refused.exits(78).says("encrypted, and EC2 makes nothing public that is").says("--account");
    assert_eq!(rig.calls("ModifyImageAttribute").len(), calls);
}

#[test]
fn an_image_goes_alone_or_with_its_set_under_its_guards() {
    let rig = rig("");
    let (first, second) = (take(&rig), take(&rig));
    let id = register(&rig, &first, &[]);
    image(&rig, &["delete", &id, "-n"]).exits(0).says("would be deregistered");
    let gone = image(&rig, &["delete", &id]);
    gone.exits(0).says("is as it was");
    assert_eq!((gone.out.trim(), images(&rig).len(), snapshots(&rig, &first).len()), (id.as_str(), 0, 2));

    let with = |id: &str, more: &[&str]| image(&rig, &[&["delete", id, "--with-snapshots"], more].concat());
    let id = register(&rig, &first, &[]);
    let other = register(&rig, &first, &["--name", "another"]);
    with(&id, &[]).exits(78).says(&other).says("image delete");
    image(&rig, &["delete", &other]).exits(0);
    rig.run(&["keep", &first]).exits(0);
    with(&id, &[]).exits(78).says("is kept until");
    rig.run(&["release", &first]).exits(0);
    with(&id, &["-n"]).exits(0).says("would be deregistered");
    assert_eq!((images(&rig).len(), snapshots(&rig, &first).len(), marked(&rig, &first)), (1, 2, false));
    // EC2 says of each snapshot what became of it.
    rig.control("POST", "iam", "{\"deny\": [\"ec2:DeleteSnapshot\"]}");
    let left = with(&id, &["-o", "json"]).exits(11).record();
    let of = &left["images"][0];
    assert_eq!((&of["state"], &of["changed"]), (&"deregistered".into(), &true.into()), "{left}");
    let results = of["snapshots"].as_array().unwrap();
    assert!(results.iter().all(|s| s["deleted"] == false), "{left}");
    assert!(results.iter().any(|s| s["result"].as_str().unwrap().contains("DeleteSnapshot")), "{left}");
    assert!(results.iter().any(|s| s["result"] == "missing-permissions"), "{left}");
    assert_eq!((snapshots(&rig, &first).len(), marked(&rig, &first)), (2, false), "whole, as it was");
    rig.control("POST", "iam", "{\"deny\": []}");
    let id = register(&rig, &first, &[]);
    let before = rig.calls("DeleteSnapshot").len();
    let gone = with(&id, &[]);
    gone.exits(0).says("removed");
    assert!(gone.out.contains(&id) && gone.out.matches("snap-").count() == 2, "{}", gone.out);
    assert_eq!((images(&rig).len(), snapshots(&rig, &first).len()), (0, 0));
    assert_eq!(rig.calls("DeleteSnapshot").len(), before, "they went with the image");
    let call = rig.calls("DeregisterImage").pop().unwrap();
    assert_eq!(call["params"]["DeleteAssociatedSnapshots"], "true", "{call}");
    // The last good set.
    let id = register(&rig, &second, &[]);
    with(&id, &[]).exits(78).says("last good set");
    with(&id, &["--including-the-last"]).exits(0);
}

/// An image goes with its set only where it was registered so, and has nothing else.
#[test]
fn prune_takes_the_images_that_go_with_a_set_and_no_other() {
    let rig = rig("[defaults.keep]\nlast = 1\nat_least = 1\n");
    let (own, plain, lied, newest) = (take(&rig), take(&rig), take(&rig), take(&rig));
    let goes = register(&rig, &own, &["--goes-with-set"]);
    let stays = register(&rig, &plain, &[]);
    // One of its snapshots is another set's: its tags say that it goes.
    let root = snapshots(&rig, &lied)[0].clone();
    let liar = forged(&rig, "liar", &root, &newest);
    let dry = rig.run(&["prune", "--dry-run", "--yes"]);
    dry.exits(0);
    let line =
        dry.out.lines().find(|l| l.contains("image: its image")).unwrap_or_else(|| panic!("{}", dry.out));
    assert!(line.contains(&goes) && line.contains("deregistered first"), "{line}");
    assert_eq!(images(&rig).len(), 3);
    let done = rig.run(&["prune", "--yes", "-o", "json"]).exits(0).record();
    assert_eq!(done["removed"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(done["removed"][0]["images"][0], goes.as_str(), "{done}");
    let left = images(&rig);
    assert!(left.len() == 2 && left.contains(&stays) && left.contains(&liar), "{left:?}");
    let count = |set: &str| snapshots(&rig, set).len();
    assert_eq!((count(&own), count(&plain), count(&lied), count(&newest)), (0, 2, 2, 2));
    // By hand, too: its own goes along, and another keeps it.
    rig.run(&["delete", &plain]).exits(78).says(&stays).says("image delete");
    image(&rig, &["delete", &stays]).exits(0);
    let goes = register(&rig, &plain, &["--goes-with-set", "--name", "goes along"]);
    rig.run(&["show", &plain, "-o", "json"]).exits(0);
    rig.run(&["delete", &plain, "-n"]).exits(0).says(&goes);
    rig.run(&["delete", &plain]).exits(0).says(&goes);
    assert_eq!((count(&plain), images(&rig)), (0, vec![liar]));
    // One that cannot be deregistered leaves the set whole.
    let (last, _) = (take(&rig), take(&rig));
    let kept = register(&rig, &last, &["--goes-with-set"]);
    rig.control("POST", "iam", "{\"deny\": [\"ec2:DeregisterImage\"]}");
    rig.run(&["delete", &last]).exits(11).says(&kept).says("whole");
    assert_eq!((count(&last), marked(&rig, &last)), (2, false));
}

#[test]
fn without_a_set_one_is_taken_first() {
    let rig = rig("");
    let done = image(&rig, &["--name", "first {set}"]);
    done.exits(0).says("filesystem-consistent").says("as its instance is");
    assert!(done.out.starts_with("ami-") && done.out.lines().count() == 1, "{}", done.out);
    let json = image(&rig, &["-o", "json", "--description", "now"]).exits(0).record();
    let of = &json["images"][0];
    assert_eq!((&of["state"], &of["goes_with_set"]), (&"available".into(), &false.into()));
    assert_eq!(snapshots(&rig, of["set"].as_str().unwrap()).len(), 2);
    assert_eq!(images(&rig).len(), 2);
    image(&rig, &["-n"]).exits(0);
    image(&rig, &["-n", "-o", "json"]).exits(64);
    image(&rig, &["--plan", "none"]).exits(78);
    assert_eq!((images(&rig).len(), rig.creates().len()), (2, 2));
}

#[test]
fn a_run_makes_an_image_of_its_set_or_says_that_it_did_not() {
    let rig = rig("[defaults.keep]\nlast = 1\nat_least = 1\n");
    rig.run(&["snapshot", "--image", "--exclude-boot-volume"]).exits(78).says("root device");
    rig.run(&["snapshot", "--image-name", "x1"]).exits(64);
    assert!(rig.creates().is_empty(), "it was seen before");
    let done = rig.run(&["snapshot", "--image", "--image-name", "{host} {set}"]);
    done.exits(0).says("as its instance is");
    assert_eq!((done.out.matches("snap-").count(), done.out.matches("ami-").count()), (2, 1), "{}", done.out);
    let json = rig.run(&["snapshot", "--image", "-o", "json"]).exits(0).record();
    let set = json["run_id"].as_str().unwrap().to_owned();
    let listed = image(&rig, &["list", "--set", &set, "-o", "json"]).exits(0).record();
    assert_eq!(listed["images"][0]["goes_with_set"], true);
    // The rules let the first go, with its image.
    rig.run(&["prune", "--yes"]).exits(0);
    assert_eq!(images(&rig), [listed["images"][0]["id"].as_str().unwrap()]);
    // A permission that is missing is told before anything is frozen.
    let before = rig.creates().len();
    rig.control("POST", "iam", "{\"deny\": [\"ec2:RegisterImage\"]}");
    rig.run(&["snapshot", "--image"]).exits(77).says("RegisterImage");
    assert_eq!(rig.creates().len(), before);
    rig.control("POST", "iam", "{\"deny\": []}");
    // What fails afterwards leaves the set as it is.
    let refuse = ["faults", "add", "--action", "RegisterImage", "--call", "1", "--kind", "error"];
    rig.sim(&[&refuse[..], &["--code", "InvalidParameterValue", "--status", "400"]].concat());
    let failed = rig.run(&["snapshot", "--image"]);
    failed.exits(11).says("is taken, and no image is made of it");
    assert_eq!(rig.creates().len(), before + 1);
}

/// Registered between the decision and the removal.
#[test]
fn an_image_that_comes_meanwhile_keeps_the_set_whole() {
    let rig = rig("");
    let (set, _) = (take(&rig), take(&rig));
    let goes = register(&rig, &set, &["--goes-with-set"]);
    let root = snapshots(&rig, &set)[0].clone();
    // The first is who holds it; the second is the last look.
    let hold = ["faults", "add", "--action", "DescribeImages", "--call", "2", "--kind", "hold-before"];
    let held = rig.sim(&hold).trim().to_owned();
    let run = rig.spawn(&["delete", &set]);
    rig.sim(&["faults", "wait", &held]);
    let other = forged(&rig, "meanwhile", &root, &set);
    rig.sim(&["faults", "release", &held]);
    run.end().exits(11).says(&other).says("meanwhile").says("whole");
    assert_eq!((images(&rig).len(), snapshots(&rig, &set).len(), marked(&rig, &set)), (2, 2, false));
    assert!(images(&rig).contains(&goes) && rig.calls("DeregisterImage").is_empty());
}

/// The set's lines say that this host boots from it, and its fstab has something else, too.
#[test]
fn what_would_not_boot_is_told_before_anything_is_registered() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure("");
    let set = space.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    let all = space.rig.snapshots();
    let line = |key: &str| all[0]["tags"][key].as_str().unwrap().to_owned();
    let (volume, filesystem) = (line("stillpoint:volume.0"), line("stillpoint:fs.0"));
    let (_, rest) = filesystem.split_once(' ').unwrap();
    let id = volume.split(' ').next().unwrap();
    assert!(rest.contains(id), "{filesystem} is on {volume}");
    for snapshot in &all {
        let snapshot = snapshot["id"].as_str().unwrap();
        let root = format!("{} boot", volume.replace("/dev/sdf", "/dev/xvda"));
        tag(&space.rig, snapshot, "stillpoint:volume.0", &root);
        tag(&space.rig, snapshot, "stillpoint:fs.0", &format!("/ {rest}"));
    }
    let fstab = space.at("fstab");
    let write = |other: &str| {
        let text = format!("UUID=1 / ext4 defaults\nUUID=2 /other ext4 {other}\n");
        std::fs::write(space.path("fstab"), text).unwrap();
    };
    write("defaults");
    space.sh(&format!("mount --bind {fstab} /etc/fstab"));
    let refused = space.run(&["image", &set]);
    refused.exits(78).says("line 2: /other is not in the set").says("nofail").says("--ignore-boot-check");
    assert!(space.rig.calls("RegisterImage").is_empty());
    space.run(&["image", &set, "--ignore-boot-check"]).exits(0).says("would not boot");
    write("nofail");
    space.run(&["image", &set, "--name", "again"]).exits(0);
}
