//! Sets that are copied to other Regions, in a simulated EC2 over real volumes.

use rig::program::{Run, await_some};
use rig::{Fs, Rig};
use serde_json::Value;

const THERE: &str = "us-west-2";
const ELSEWHERE: &str = "eu-central-1";
/// A key that nobody has: EC2 takes it, and finds out later.
const NO_KEY: &str = "0000aaaa-12ab-34cd-56ef-1234567890ab";
const KEYS: &str = "[[kms_key]]\nid = '1111aaaa-12ab-34cd-56ef-1234567890ab'\nregion = 'us-west-2'\n\
                    alias = 'alias/backup'\n\
                    [[kms_key]]\nid = '2222aaaa-12ab-34cd-56ef-1234567890ab'\nregion = 'us-west-2'\n\
                    alias = 'alias/off'\nstate = 'disabled'\n";

fn two() -> [(&'static str, Fs); 2] {
    [("a", Fs::Ext4), ("b", Fs::Xfs)]
}

fn take(rig: &Rig) -> String {
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn with_a_set(scenario: &str) -> (Rig, String) {
    let rig = Rig::with(&two(), scenario);
    rig.configure("");
    let set = take(&rig);
    (rig, set)
}

/// The copies in a Region, each once.
fn copies(rig: &Rig, region: &str) -> Vec<Value> {
    rig.snapshots().into_iter().filter(|s| s["region"] == region).collect()
}

fn tag<'a>(snapshot: &'a Value, key: &str) -> &'a str {
    snapshot["tags"][key].as_str().unwrap_or("")
}

/// Whole sets of so many members each, and nothing twice.
fn assert_copied_once(rig: &Rig, region: &str, set: &str, members: usize) -> String {
    let all = copies(rig, region);
    assert_eq!(all.len(), members, "{all:?}");
    let source = format!("us-east-1/{set}");
    let run = tag(&all[0], "stillpoint:run").to_owned();
    let mut numbers: Vec<usize> = all.iter().map(|s| tag(s, "stillpoint:member").parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..members));
    for copy in &all {
        assert_eq!((tag(copy, "stillpoint:source"), tag(copy, "stillpoint:run")), (&*source, &*run));
        assert_eq!(copy["state"], "completed", "{copy}");
    }
    run
}

fn show(rig: &Rig, set: &str, region: &str) -> Value {
    rig.run(&["show", set, "--region", region, "-o", "json"]).exits(0).record()
}

#[test]
fn a_set_is_copied_whole_and_once_and_is_a_set_of_its_own_there() {
    let (rig, set) = with_a_set("");
    let to = ["copy", &set, "--to", "us-west-2,eu-central-1"];
    let dry = rig.run(&[&to[..], &["--dry-run"]].concat());
    dry.exits(0);
    assert!(dry.out.contains("full: the first copy of the volume there"), "{}", dry.out);
    assert!(dry.out.lines().all(|l| l.chars().count() <= 80), "{}", dry.out);
    assert!(rig.calls("CopySnapshot").is_empty(), "a dry run copies nothing");
    let done = rig.run(&to);
    done.exits(0).says("is copied as");
    assert_eq!(done.out.lines().filter(|l| l.starts_with("snap-")).count(), 4, "{}", done.out);
    let here = show(&rig, &set, "us-east-1");
    for region in [THERE, ELSEWHERE] {
        let run = assert_copied_once(&rig, region, &set, 2);
        assert_ne!(run, set);
        let copy = show(&rig, &run, region);
        assert_eq!(
            (&copy["copy_of"]["id"], &copy["copy_of"]["region"]),
            (&set.clone().into(), &"us-east-1".into())
        );
        for same in ["time", "achieved", "plan", "instance", "host", "layout"] {
            assert_eq!(copy[same], here[same], "{same}");
        }
        assert!(!copy["layout"].is_null() && copy["layout_error"].is_null(), "{copy}");
        for one in copies(&rig, region) {
            let text = one["description"].as_str().unwrap();
            assert!(text.starts_with(&format!("stillpoint {run} copy of {set}")), "{text}");
        }
        let list = rig.run(&["list", "--region", region, "--all-hosts"]);
        assert!(list.exits(0).out.contains("(copy)"), "{}", list.out);
    }
    rig.run(&to).exits(0).says("is there already");
    assert_eq!(rig.calls("CopySnapshot").len(), 4, "nothing is copied twice");
    // To its own Region too, as a set beside it.
    rig.run(&["copy", &set, "--to", "us-east-1"]).exits(0);
    let listed = rig.run(&["list", "-o", "json"]).exits(0).record();
    assert_eq!(listed["sets"].as_array().unwrap().len(), 2, "{listed}");
    // The next one is on top of the first.
    let next = take(&rig);
    let dry = rig.run(&["copy", &next, "--to", THERE, "-n"]);
    assert!(dry.exits(0).out.contains("incremental, after snap-"), "{}", dry.out);
}

#[test]
fn a_source_that_ec2_would_fail_later_is_refused_at_once_or_waited_for() {
    let rig = Rig::with(&two(), "");
    rig.configure("");
    let slow = ["faults", "add", "--action", "CreateSnapshots", "--call", "1", "--kind", "slow-progress"];
    rig.sim(&[&slow[..], &["--delay", "600s"]].concat());
    let taken = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    let set = taken["run_id"].as_str().unwrap();
    rig.run(&["copy", set, "--to", THERE]).exits(78).says("is not completed yet").says("--wait-source");
    assert!(rig.calls("CopySnapshot").is_empty());
    let run = rig.spawn(&["copy", set, "--to", THERE, "--wait-source"]);
    await_some("it waits", || run.said().contains("pending").then_some(()));
    pass_time(&rig);
    run.end().exits(0);
    assert_copied_once(&rig, THERE, set, 2);
    for bad in
        [["--within", "20m"], ["--within", "0s"], ["--within", "72h"], ["--key", "x"], ["--to", "us west"]]
    {
        rig.run(&[&["copy", set, "--to", ELSEWHERE], &bad[..]].concat()).exits(64);
    }
    rig.run(&["copy", set]).exits(64).says("--to");
    rig.run(&["copy", set, "--to", "cn-north-1"]).exits(78).says("partitions");
    let key = "arn:aws:kms:eu-west-1:123456789012:key/1111aaaa-12ab-34cd-56ef-1234567890ab";
    rig.run(&["copy", set, "--to", ELSEWHERE, "--key", key]).exits(78).says("a key of eu-west-1");
    assert!(copies(&rig, ELSEWHERE).is_empty());
    let timed = rig.run(&["copy", set, "--to", ELSEWHERE, "--within", "2h"]);
    timed.exits(0);
    assert_eq!(rig.calls("CopySnapshot").last().unwrap()["params"]["CompletionDurationMinutes"], "120");
}

#[test]
fn a_lost_answer_makes_no_second_copy_and_what_was_not_made_is_asked_for_again() {
    for (kind, calls) in [("drop-after", 2), ("reset-after", 2), ("drop-before", 3)] {
        let (rig, set) = with_a_set("");
        rig.fault("CopySnapshot", kind, "0s");
        rig.run(&["copy", &set, "--to", THERE]).exits(0).says("looking for it");
        assert_copied_once(&rig, THERE, &set, 2);
        assert_eq!(rig.calls("CopySnapshot").len(), calls, "{kind}");
    }
}

/// Killed after EC2 has made the first copy, before it said so, and EC2 does not show it for a while.
#[test]
fn a_copy_that_is_killed_is_gone_on_with() {
    for late in ["0s", "6s"] {
        let (rig, set) = with_a_set("");
        let add = |kind: &str, more: &[&str]| {
            let add = ["faults", "add", "--action", "CopySnapshot", "--call", "1", "--kind", kind];
            rig.sim(&[&add[..], more].concat()).trim().to_owned()
        };
        let held = add("hold-after", &[]);
        if late != "0s" {
            add("late-visibility", &["--delay", late]);
        }
        let run = rig.spawn(&["copy", &set, "--to", THERE]);
        rig.sim(&["faults", "wait", &held]);
        run.signal(nix::sys::signal::Signal::SIGKILL);
        assert_eq!(run.end().signal, Some(9));
        rig.sim(&["faults", "release", &held]);
        rig.run(&["copy", &set, "--to", THERE]).exits(0);
        rig.await_quiet();
        assert_copied_once(&rig, THERE, &set, 2);
    }
}

#[test]
fn of_twenty_five_volumes_twenty_are_copied_at_once_and_the_others_after_them() {
    let names: Vec<String> = (0..25).map(|n| format!("v{n}")).collect();
    let volumes: Vec<(&str, Fs)> = names.iter().map(|n| (n.as_str(), Fs::Tiny)).collect();
    let rig = Rig::with(&volumes, "");
    rig.configure("[defaults]\nwindow = \"60s\"\nfreeze_timeout = \"50s\"\n");
    let set = take(&rig);
    // Somebody else's copies count too. All of the limit is theirs at first: this set's own are too soon completed.
    let other = rig.snapshots()[0]["id"].as_str().unwrap().to_owned();
    let slow = ["faults", "add", "--action", "CopySnapshot", "--times", "20", "--kind", "slow-progress"];
    rig.sim(&[&slow[..], &["--delay", "600s"]].concat());
    let from = format!("SourceSnapshotId={other}");
    for _ in 0..20 {
        rig.sim(&["call", "--region", THERE, "CopySnapshot", "SourceRegion=us-east-1", &from]);
    }
    let run = rig.spawn(&["copy", &set, "--to", THERE]);
    await_some("EC2's limit", || run.said().contains("no more copies at once").then_some(()));
    pass_time(&rig);
    run.end().exits(0);
    let mut all = copies(&rig, THERE);
    all.retain(|s| tag(s, "stillpoint:source").ends_with(&set));
    assert_eq!(all.len(), 25);
    assert!(all.iter().all(|s| s["state"] == "completed"), "{all:?}");
    let refused = rig.calls("CopySnapshot").iter().any(|c| c["outcome"] == "ResourceLimitExceeded");
    assert!(refused, "EC2's limit was met");
}

#[test]
fn a_key_that_cannot_be_used_is_told_at_once_or_later_and_never_a_good_copy() {
    let (rig, set) = with_a_set(KEYS);
    for (key, why) in [("alias/off", "is disabled"), ("alias/nobodys", "does not exist")] {
        rig.run(&["copy", &set, "--to", THERE, "--key", key]).exits(78).says(why).says("hint: ");
    }
    assert!(copies(&rig, THERE).is_empty());
    let late = rig.run(&["copy", &set, "--to", THERE, "--key", NO_KEY]);
    late.exits(11).says("Given key ID is not accessible").says("kms:DescribeKey").says("stillpoint delete");
    let left: Value =
        rig.run(&["list", "--region", THERE, "--all-hosts", "--leftovers", "-o", "json"]).exits(0).record();
    assert_eq!(left["sets"][0]["state"], "error", "{left}");
    // Another key is another copy, and what is left of the first is named.
    let good = rig.run(&["copy", &set, "--to", THERE, "--key", "alias/backup"]);
    good.exits(0).says("what is left of a copy that failed").says("is copied as");
    let done: Vec<_> = copies(&rig, THERE).into_iter().filter(|s| s["state"] == "completed").collect();
    assert_eq!(done.len(), 2);
    assert!(done.iter().all(|s| tag(s, "stillpoint:copy-key") == "alias/backup"));
    let last = left["sets"][0]["id"].as_str().unwrap();
    rig.run(&["delete", last, "--region", THERE]).exits(0);
}

/// What a copy says in prose, its JSON says too.
#[test]
fn programs_are_told_what_became_of_each_copy() {
    let (rig, set) = with_a_set(KEYS);
    let json = |more: &[&str], exit| {
        rig.run(&[&["copy", &set, "-o", "json", "--to"], more].concat()).exits(exit).record()
    };
    let dry = json(&["us-west-2,eu-central-1", "--within", "2h", "-n"], 0);
    assert_eq!((dry["dry_run"].as_bool(), dry["copies"].as_array().unwrap().len()), (Some(true), 2), "{dry}");
    let planned = &dry["copies"][1];
    assert_eq!((&planned["region"], &planned["state"]), (&ELSEWHERE.into(), &"planned".into()));
    assert_eq!((&planned["set"], &planned["within_minutes"]), (&Value::Null, &120.into()));
    assert_eq!(
        (&planned["encryption"], &planned["encrypts_by_default"]),
        (&"as_source".into(), &false.into())
    );
    assert!(planned["full_bytes"].as_u64().unwrap() > 0, "{planned}");
    assert!(planned["snapshots"].as_array().unwrap().iter().all(|s| s["expected"] == "full"), "{planned}");
    assert!(rig.calls("CopySnapshot").is_empty());
    // One of two fails: the other is a copy, and the exit code tells.
    let slow = ["faults", "add", "--action", "CopySnapshot", "--call", "1", "--kind", "snapshot-error"];
    rig.sim(&slow);
    let half = json(&[THERE], 11);
    let copy = &half["copies"][0];
    assert_eq!((&copy["state"], &half["exit_code"]), (&"failed".into(), &11.into()), "{half}");
    let states: Vec<_> = copy["snapshots"].as_array().unwrap().iter().map(|s| s["state"].as_str()).collect();
    assert!(states.contains(&Some("error")) && states.contains(&Some("completed")), "{half}");
    let good = json(&[THERE, "--key", "alias/backup"], 0);
    let copy = &good["copies"][0];
    assert_eq!((&copy["state"], &copy["key"]), (&"completed".into(), &"alias/backup".into()), "{good}");
    let there: Vec<_> =
        copies(&rig, THERE).into_iter().filter(|s| s["tags"]["stillpoint:run"] == copy["set"]).collect();
    for snapshot in copy["snapshots"].as_array().unwrap() {
        let made = there.iter().find(|s| s["id"] == snapshot["id"]).expect("its copy");
        assert!(made["tags"]["stillpoint:member"].is_string());
        assert!(rig.snapshots().iter().any(|s| s["id"] == snapshot["source"]));
    }
    // The second time nothing is asked for, and the same is told.
    let again = json(&[THERE, "--key", "alias/backup"], 0);
    assert_eq!(again["copies"][0]["snapshots"], copy["snapshots"], "{again}");
    assert!(json(&[THERE, "--no-wait"], 0)["copies"][0]["set"].is_string());
}

#[test]
fn an_account_that_encrypts_everything_is_asked_before_anything_is_foretold() {
    let (rig, set) = with_a_set("[volumes]\nencrypted_by_default = ['us-west-2']\n");
    let dry = rig.run(&["copy", &set, "--to", THERE, "-n"]);
    assert!(dry.exits(0).out.contains("the account encrypts everything new there"), "{}", dry.out);
    rig.run(&["copy", &set, "--to", THERE])
        .exits(0)
        .says("encrypts everything new there, with alias/aws/ebs");
    let copy = show(&rig, &assert_copied_once(&rig, THERE, &set, 2), THERE);
    assert!(copy["members"].as_array().unwrap().iter().all(|m| m["encrypted"] == true), "{copy}");
    // Without that permission, it is copied, and less is said before.
    rig.control("POST", "iam", "{\"deny\": [\"ec2:GetEbsEncryptionByDefault\"]}");
    let next = take(&rig);
    let dry = rig.run(&["copy", &next, "--to", ELSEWHERE, "-n", "-o", "json"]).exits(0).record();
    assert_eq!(dry["copies"][0]["encrypts_by_default"], Value::Null, "{dry}");
    rig.run(&["copy", &next, "--to", ELSEWHERE]).exits(0).says("encrypts everything new is not known");
    assert_copied_once(&rig, ELSEWHERE, &next, 2);
}

#[test]
fn the_default_key_is_said_and_named_in_the_call() {
    let (rig, set) = with_a_set(&KEYS.replacen("alias = 'alias/backup'\n", "ebs_default = true\n", 1));
    rig.run(&["copy", &set, "--to", ELSEWHERE, "--encrypt"]).exits(0).says("can never be shared");
    let call = rig.calls("CopySnapshot").pop().unwrap();
    assert_eq!((&call["params"]["Encrypted"], &call["params"]["KmsKeyId"]), (&"true".into(), &Value::Null));
    let arn = "arn:aws:kms:us-west-2:123456789012:key/1111aaaa-12ab-34cd-56ef-1234567890ab";
    rig.run(&["copy", &set, "--to", THERE, "--encrypt"]).exits(0).says(arn);
    assert_eq!(rig.calls("CopySnapshot").pop().unwrap()["params"]["KmsKeyId"], arn);
    let copy = show(&rig, &assert_copied_once(&rig, THERE, &set, 2), THERE);
    assert!(copy["members"].as_array().unwrap().iter().all(|m| m["encrypted"] == true), "{copy}");
}

#[test]
fn a_missing_permission_is_found_before_anything_is_made_and_half_a_copy_is_told() {
    let (rig, set) = with_a_set("");
    for action in ["CopySnapshot", "CreateTags", "DescribeSnapshots"] {
        rig.control("POST", "iam", &format!("{{\"deny\": [\"ec2:{action}\"]}}"));
        rig.run(&["copy", &set, "--to", "us-west-2,eu-central-1"]).exits(77).says(action);
        rig.control("POST", "iam", "{\"deny\": []}");
    }
    assert!(copies(&rig, THERE).is_empty() && copies(&rig, ELSEWHERE).is_empty());
    let denied = ["faults", "add", "--action", "CopySnapshot", "--call", "2", "--kind", "error"];
    let error = ["--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];
    rig.sim(&[&denied[..], &error].concat());
    let part = rig.run(&["copy", &set, "--to", THERE]);
    part.exits(11).says("NOT copied whole").says("1 of 2 are completed").says("not now");
    // The second time it is completed.
    rig.run(&["copy", &set, "--to", THERE]).exits(0);
    assert_copied_once(&rig, THERE, &set, 2);
    rig.fault("CopySnapshot", "throttle", "0s");
    rig.run(&["copy", &set, "--to", ELSEWHERE]).exits(0);
    assert_copied_once(&rig, ELSEWHERE, &set, 2);
}

#[test]
fn a_copy_is_followed_to_its_end_or_left_alone_on_its_way() {
    let (rig, set) = with_a_set("");
    let slow = ["faults", "add", "--action", "CopySnapshot", "--times", "2", "--kind", "slow-progress"];
    rig.sim(&[&slow[..], &["--delay", "600s"]].concat());
    let left = rig.run(&["copy", &set, "--to", THERE, "--no-wait"]);
    left.exits(0).says("is being copied as").says("stillpoint wait");
    // Whoever prunes meanwhile leaves the source alone; so does a delete by hand.
    rig.configure(&format!("[defaults.keep]\nlast = 1\n[[plan.default.copy]]\nregion = \"{THERE}\"\n"));
    take_two_more(&rig);
    let dry = rig.run(&["prune", "--dry-run", "--yes"]);
    assert!(dry.exits(0).out.contains("being copied to snap-"), "{}", dry.out);
    let run = tag(&copies(&rig, THERE)[0], "stillpoint:run").to_owned();
    let again = rig.spawn(&["copy", &set, "--to", THERE]);
    await_some("it looks", || again.said().contains("is being copied as").then_some(()));
    rig.run(&["copy", &set, "--to", THERE]).exits(75).says("is copying");
    again.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = again.end();
    assert_eq!(ended.signal, Some(15), "{}", ended.err);
    pass_time(&rig);
    rig.run(&["wait", &run, "--region", THERE]).exits(0);
    rig.run(&["copy", &set, "--to", THERE]).exits(0).says("is there already");
    assert_copied_once(&rig, THERE, &set, 2);
}

/// By the account's clock, so long that everything under way is completed.
fn pass_time(rig: &Rig) {
    rig.control("POST", "clock", "{\"advance_seconds\": 700}");
}

fn take_two_more(rig: &Rig) {
    for _ in 0..2 {
        rig.run(&["snapshot"]).exits(0);
    }
}

#[test]
fn prune_keeps_what_the_next_copy_is_based_on_and_lets_failed_copies_go() {
    let (rig, first) = with_a_set("");
    rig.run(&["copy", &first, "--to", THERE]).exits(0);
    let second = take(&rig);
    rig.run(&["copy", &second, "--to", THERE]).exits(0);
    let third = take(&rig);
    rig.run(&["copy", &third, "--to", THERE, "--key", NO_KEY]).exits(11);
    rig.configure("[defaults.keep]\nlast = 1\n[defaults.keep.copies]\nyearly = 1\nof_period = \"first\"\n");
    let dry = rig.run(&["prune", "--copies", "--region", THERE, "--instance", &instance(&rig), "-n"]);
    let of = |set: &str| {
        let all = copies(&rig, THERE);
        let one = all.iter().find(|s| tag(s, "stillpoint:source").ends_with(set)).expect("a copy");
        tag(one, "stillpoint:run").to_owned()
    };
    let (one, two, lost) = (of(&first), of(&second), of(&third));
    let text = &dry.exits(0).out;
    assert!(text.contains("the newest copy of vol-"), "{text}");
    assert!(text.contains("failed: "), "{text}");
    for kept in [&one, &two, &lost] {
        assert!(text.contains(&format!("keep   {}", &kept[..13])), "{kept}: {text}");
    }
}

fn instance(rig: &Rig) -> String {
    rig.ready["instance_id"].as_str().unwrap().to_owned()
}

#[test]
fn another_account_copies_by_its_own_credentials_and_the_share_is_taken_back() {
    const VAULT: &str = "111122223333";
    let (rig, set) = with_a_set("[[account]]\nid = '111122223333'\n");
    let keys = rig.ready["accounts"].as_array().unwrap().iter().find(|a| a["id"] == VAULT).unwrap();
    let key = |name: &str| keys["credentials"][name].as_str().unwrap();
    let (id, secret) = (key("access_key_id"), key("secret_access_key"));
    let file = format!(
        "[vault]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n[empty]\nregion = eu-west-1\n"
    );
    std::fs::write(rig.path("credentials"), file).unwrap();
    let run = |more: &[&str]| {
        let mut command = rig.command(more);
        command.env("AWS_SHARED_CREDENTIALS_FILE", rig.path("credentials"));
        Run::start(command).end()
    };
    let as_vault = ["copy", &set, "--to", THERE, "--as", "vault", "--account", VAULT];
    let none = ["copy", &set, "--to", THERE, "--as", "empty", "--account", VAULT];
    run(&none).exits(78).says("no credentials of its own");
    run(&["copy", &set, "--to", THERE, "--as", "vault"]).exits(64);
    run(&["copy", &set, "--to", THERE, "--as", "vault", "--account", "123456789012"]).exits(64).says("owns");
    run(&[&as_vault[..], &["-n"]].concat()).exits(0);
    assert!(rig.calls("ModifySnapshotAttribute").is_empty(), "a dry run shares nothing");
    run(&as_vault).exits(0).says("is copied as");
    assert_copied_once(&rig, THERE, &set, 2);
    assert!(copies(&rig, THERE).iter().all(|s| s["owner"] == VAULT));
    let changes = rig.calls("ModifySnapshotAttribute");
    assert_eq!(changes.len(), 4, "two shared, and taken back: {changes:?}");
    for one in rig.snapshots().iter().filter(|s| s["owner"] != VAULT) {
        let of = format!("SnapshotId={}", one["id"].as_str().unwrap());
        let said = rig.sim(&["call", "DescribeSnapshotAttribute", &of, "Attribute=createVolumePermission"]);
        assert!(!said.contains(VAULT), "{said}");
    }
    run(&as_vault).exits(0).says("is there already");
    assert_eq!(rig.calls("ModifySnapshotAttribute").len(), 4);
    // What was shared before stays so, also when a copy fails.
    rig.run(&["share", &set, "--account", VAULT]).exits(0);
    let elsewhere = ["copy", &set, "--to", ELSEWHERE, "--as", "vault", "--account", VAULT, "--key", NO_KEY];
    run(&elsewhere).exits(11).says("Given key ID is not accessible");
    rig.run(&["unshare", &set, "--account", VAULT]).exits(0).says("is no longer shared with");
}

#[test]
fn a_run_copies_its_set_when_it_is_completed_and_keeps_its_own_result() {
    let rig = Rig::with(&two(), KEYS);
    let plan = format!("[[defaults.copy]]\nregion = \"{THERE}\"\n");
    rig.configure("");
    rig.run(&["snapshot", "--copy"]).exits(78).says("names no Region to copy to");
    assert!(rig.creates().iter().all(|c| c["params"]["DryRun"] == "true"));
    rig.configure(&plan);
    let taken = rig.run(&["snapshot", "--copy", "-o", "json"]);
    let record = taken.exits(0).says("is copied as").record();
    let set = record["run_id"].as_str().unwrap().to_owned();
    assert_copied_once(&rig, THERE, &set, 2);
    rig.run(&["copy", &set]).exits(0).says("is there already");
    // What is wrong is seen before the set is taken: now there is one to ask about.
    let before = rig.creates().len();
    rig.control("POST", "iam", "{\"deny\": [\"ec2:CopySnapshot\"]}");
    rig.run(&["snapshot", "--copy"]).exits(77).says("CopySnapshot");
    rig.control("POST", "iam", "{\"deny\": []}");
    assert_eq!(rig.creates().iter().filter(|c| c["params"]["DryRun"] != "true").count(), before);
    // What fails afterwards is 11, and the set is as good as ever.
    let key = format!("{plan}key = \"{NO_KEY}\"\n");
    rig.configure(&key);
    let failed = rig.run(&["snapshot", "--copy", "-o", "json"]);
    let record = failed.exits(11).says("Given key ID is not accessible").record();
    assert_eq!((&record["exit_code"], &record["achieved"]), (&0.into(), &"filesystem".into()));
    let again = rig.run(&["snapshot", "--copy-to", ELSEWHERE]);
    again.exits(0).says("is copied as");
    assert_eq!(again.out.lines().count(), 2, "the ids of the set alone: {}", again.out);
    assert_eq!(copies(&rig, ELSEWHERE).len(), 2);
}
