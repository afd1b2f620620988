//! `iam-policy`: what it prints is enough for each command, and no action of it can be taken out.

use rig::{Fs, Rig};
use serde_json::{Value, json};

/// Actions that a policy has for what does not happen in these tests: a snapshot in the archive, a refused removal,
/// a plan with one volume, a set that becomes public.
const UNUSED: [(&str, &str); 20] = [
    // Only what is foretold depends on it.
    ("copy", "GetEbsEncryptionByDefault"),
    ("rehearse", "CreateSnapshot"),
    ("list", "ListSnapshotsInRecycleBin"),
    ("list", "DescribeRegions"),
    ("show", "DescribeRegions"),
    ("prune", "DescribeSnapshotTierStatus"),
    ("delete", "DescribeSnapshotTierStatus"),
    ("prune", "DeleteTags"),
    ("delete", "DeleteTags"),
    ("snapshot", "CreateSnapshot"),
    ("share", "GetSnapshotBlockPublicAccessState"),
    ("image-share", "GetImageBlockPublicAccessState"),
    ("tier", "RestoreSnapshotTier"),
    ("tier", "ModifySnapshotTier"),
    // An image that costs something else, or goes with its set.
    ("image", "DeregisterImage"),
    ("prune", "DeregisterImage"),
    ("delete", "DeregisterImage"),
    // The time is set, and the image is not disabled.
    ("image-retire", "DisableImageDeprecation"),
    ("image-retire", "DisableImage"),
    ("image-retire", "EnableImage"),
];

fn rig() -> Rig {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "[[recycle_bin.rule]]\ndays = 7\n");
    rig.configure("[defaults.keep]\nlast = 1\nat_least = 1\n");
    rig
}

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn printed(rig: &Rig, arguments: &[&str]) -> Value {
    rig.run(&[&["iam-policy"], arguments].concat()).exits(0).record()
}

fn set(rig: &Rig, policy: &Value) {
    rig.control("POST", "iam", &json!({ "policy": policy }).to_string());
}

/// The policy without each of its actions, in turn.
fn without_one(policy: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (at, statement) in policy["Statement"].as_array().unwrap().iter().enumerate() {
        let actions = match &statement["Action"] {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        for action in &actions {
            let rest: Vec<_> = actions.iter().filter(|a| *a != action).cloned().collect();
            let mut less = policy.clone();
            if rest.is_empty() {
                less["Statement"].as_array_mut().unwrap().remove(at);
            } else {
                less["Statement"][at]["Action"] = rest.into();
            }
            if less["Statement"].as_array().unwrap().is_empty() {
                less["Statement"] =
                    json!([{"Effect": "Allow", "Action": "ec2:DescribeTags", "Resource": "*"}]);
            }
            all.push((action.as_str().unwrap().trim_start_matches("ec2:").to_owned(), less));
        }
    }
    all
}

/// Without each action the command is denied and names it; with all of them it is not denied.
fn least(rig: &Rig, command: &str, arguments: &[&str]) {
    let policy = printed(rig, &[command]);
    // `image-share` is that of `image share`.
    let words: Vec<&str> = match command.strip_prefix("image-") {
        Some(_) => vec![],
        None if command == "restore-root" => vec![],
        None => vec![command],
    };
    let arguments = [&words, arguments].concat();
    let mut tried = 0;
    for (action, less) in without_one(&policy) {
        if UNUSED.contains(&(command, action.as_str())) {
            continue;
        }
        if command == "undelete" {
            // A denial after the first call leaves it restored: into the Recycle Bin again.
            set(rig, &Value::Null);
            rig.run(&["delete", arguments[1], "--including-the-last"]);
        }
        set(rig, &less);
        let denied = rig.run(&arguments);
        // A removal that is refused halfway is 11, as every refusal is.
        let removal = matches!(command, "prune" | "delete" | "undelete") && denied.code == Some(11);
        // A verdict that cannot be noted is one.
        let noting = command == "verify" && action == "CreateTags" && denied.code == Some(11);
        assert!(
            denied.code == Some(77) || removal || noting,
            "{command} without {action}: {:?}\n{}",
            denied.code,
            denied.err
        );
        let said = format!("{}{}", denied.out, denied.err);
        assert!(said.contains(&action), "{command} without {action}: {said}");
        tried += 1;
    }
    assert!(tried > 0, "{command}");
    if command == "undelete" {
        // A denial after the first call leaves it restored: into the Recycle Bin again.
        set(rig, &Value::Null);
        rig.run(&["delete", arguments[1], "--including-the-last"]);
    }
    set(rig, &policy);
    rig.run(&arguments).exits(0);
    set(rig, &Value::Null);
}

#[test]
fn looking_and_keeping_need_what_is_printed_and_nothing_less() {
    let rig = rig();
    let id = take(&rig);
    rig.await_quiet();
    for command in ["show", "wait", "verify", "keep", "release"] {
        least(&rig, command, &[&id]);
        // What release takes away.
        rig.run(&["keep", &id]).exits(0);
    }
    rig.run(&["release", &id]).exits(0);
    least(&rig, "list", &[]);
    least(&rig, "share", &[&id, "--account", "111122223333"]);
    least(&rig, "unshare", &[&id]);
    least(&rig, "lock", &[&id, "--governance", "--days", "3"]);
    least(&rig, "unlock", &[&id]);
    least(&rig, "copy", &[&id, "--to", "us-west-2", "--encrypt"]);
}

#[test]
fn an_image_needs_what_is_printed() {
    let root = "[instance]\nroot_device_name = '/dev/sdf'\nuefi_data = 'QU1a'\n";
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], root);
    rig.configure("");
    let set_of = take(&rig);
    rig.await_quiet();
    least(&rig, "image", &[&set_of]);
    let id = rig.run(&["image", &set_of]).exits(0).out.trim().to_owned();
    set(&rig, &printed(&rig, &["image"]));
    rig.run(&["image", "list"]).exits(0);
    least(&rig, "image-share", &["image", "share", &id, "--account", "111122223333"]);
    // It is asked for a public one alone.
    let public = ["image", "share", &id, "--public", "--yes-anybody-may-read-it"];
    let policy = printed(&rig, &["image-share"]);
    let (_, blind) =
        without_one(&policy).into_iter().find(|(a, _)| a == "GetImageBlockPublicAccessState").unwrap();
    set(&rig, &blind);
    rig.run(&public).exits(77).says("GetImageBlockPublicAccessState");
    set(&rig, &policy);
    rig.run(&public).exits(0);
    rig.run(&["image", "unshare", &id]).exits(0);
    least(&rig, "image-retire", &["image", "deprecate", &id, "--from", "2031-01-31"]);
    set(&rig, &printed(&rig, &["image-retire"]));
    rig.run(&["image", "disable", &id]).exits(0);
    rig.run(&["image", "enable", &id]).exits(0);
    rig.run(&["image", "deprecate", &id, "--never"]).exits(0);
    // Images of others are not theirs to remove.
    set(&rig, &printed(&rig, &["image-delete"]));
    rig.run(&["image", "delete", &id, "--with-snapshots", "--including-the-last"]).exits(0);
}

#[test]
fn a_root_needs_what_is_printed_and_a_dry_run_asks_for_all_of_it() {
    let rig = Rig::start(&[(rig::ROOT, Fs::Ext4), ("b", Fs::Ext4)]);
    rig.configure("");
    let of = take(&rig);
    rig.await_quiet();
    least(&rig, "restore-root", &["restore", &of, "--root", "-n"]);
    set(&rig, &printed(&rig, &["restore-root"]));
    rig.run(&["restore", &of, "--root", "--yes"]).exits(0);
    assert!(rig.run(&["restore", "--list"]).exits(0).out.contains("succeeded"));
}

#[test]
fn removing_needs_what_is_printed_and_no_more_than_sets_can_be_removed() {
    let rig = rig();
    let old = take(&rig);
    take(&rig);
    rig.await_quiet();
    let made = rig.sim(&["call", "--admin", "CreateSnapshot", &format!("VolumeId={}", rig.id("a"))]);
    let foreign = made.split("snap-").nth(1).map(|t| format!("snap-{}", &t[..17])).unwrap();
    set(&rig, &printed(&rig, &["prune", "delete"]));
    let id = format!("SnapshotId={foreign}");
    let mut call = std::process::Command::new(rig::ebs_sim());
    call.args(["call", "DeleteSnapshot", &id, "DryRun=true"]).env("EBS_SIM_DIR", rig.path("sim"));
    let said = String::from_utf8_lossy(&call.output().unwrap().stdout).into_owned();
    assert!(said.contains("UnauthorizedOperation"), "{said}");
    set(&rig, &Value::Null);
    least(&rig, "delete", &[&old]);
    least(&rig, "undelete", &[&old]);
    // What is still `recovering` is not pruned.
    set(&rig, &Value::Null);
    rig.run(&["wait", &old]).exits(0);
    least(&rig, "prune", &["--yes"]);
}

#[test]
fn a_run_and_a_doctor_need_what_is_printed() {
    let rig = rig();
    take(&rig);
    rig.await_quiet();
    least(&rig, "snapshot", &[]);
    least(&rig, "rehearse", &[]);
    // A denied call is told in the plan, which is printed all the same.
    let policy = printed(&rig, &["plan"]);
    for (action, less) in without_one(&policy) {
        if action != "CreateSnapshot" {
            set(&rig, &less);
            let said = rig.run(&["plan"]);
            assert!(
                format!("{}{}", said.out, said.err).contains(&action),
                "plan without {action}: {}",
                said.err
            );
        }
    }
    set(&rig, &policy);
    let said = rig.run(&["plan"]);
    assert!(!format!("{}{}", said.out, said.err).contains("not authorized"), "{}", said.err);
    set(&rig, &printed(&rig, &["freeze"]));
    rig.run(&["freeze", "--dry-run"]).exits(0);
    let doctor = printed(&rig, &["doctor"]);
    set(&rig, &doctor);
    let said = rig.run(&["doctor"]);
    assert!(said.code != Some(77), "{}", said.out);
}

#[test]
fn the_partition_is_that_of_the_region_and_an_unknown_command_is_refused() {
    let rig = rig();
    let to_ec2 = || {
        rig.requests()
            .iter()
            .filter(|r| r["action"].as_str().is_some_and(|a| a.starts_with("Describe")))
            .count()
    };
    let of = |arguments: &[&str]| printed(&rig, arguments).to_string();
    assert!(of(&[]).contains("arn:aws:ec2:") && of(&[]).contains("DeleteSnapshot"), "the plan has rules");
    assert!(of(&["--region", "cn-north-1"]).contains("arn:aws-cn:ec2:"));
    assert!(of(&["--partition", "aws-us-gov"]).contains("arn:aws-us-gov:ec2:"));
    let own = rig.ready["instance_id"].as_str().unwrap().to_owned();
    assert!(of(&["--instance-only"]).contains(&format!("instance/{own}")));
    rig.run(&["iam-policy", "--partition", "aws-cn", "--region", "eu-west-1"]).exits(64).says("aws-cn");
    rig.run(&["iam-policy", "--partition", "aws-x"]).exits(64).says("aws-us-gov");
    rig.run(&["iam-policy", "reinstate"]).exits(64).says("undelete");
    assert_eq!(to_ec2(), 0, "EC2 was asked");
}
