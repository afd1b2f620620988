//! Sets that other accounts may use, in a simulated EC2 over real volumes.

use rig::{Fs, Rig};
use serde_json::Value;

const ONE: &str = "111122223333";
const TWO: &str = "444455556666";

fn with_a_set(scenario: &str) -> (Rig, String, Vec<String>) {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], scenario);
    rig.configure("");
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    let shown: Value = rig.run(&["show", &set, "-o", "json"]).exits(0).record();
    let members = shown["members"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned());
    let members = members.collect();
    (rig, set, members)
}

/// Whom EC2 says each is shared with.
fn shared(rig: &Rig, members: &[String]) -> Vec<Vec<String>> {
    let of = |id: &String| {
        let one = format!("SnapshotId={id}");
        let said = rig.sim(&["call", "DescribeSnapshotAttribute", &one, "Attribute=createVolumePermission"]);
        let known = [ONE, TWO].into_iter().filter(|a| said.contains(&format!("<userId>{a}<")));
        let all = said.contains("<group>all<").then_some("all");
        known.chain(all).map(str::to_owned).collect()
    };
    members.iter().map(of).collect()
}

fn refuse(rig: &Rig, call: Option<&str>, code: &str, message: &str) -> String {
    let which = match call {
        Some(call) => ["--call", call],
        None => ["--times", "1000"],
    };
    let fault = ["faults", "add", "--action", "ModifySnapshotAttribute", "--kind", "error"];
    let error = ["--code", code, "--status", "403", "--message", message];
    rig.sim(&[&fault[..], &which, &error].concat()).trim().to_owned()
}

#[test]
fn a_set_is_shared_with_accounts_whole_and_once_and_taken_back() {
    let (rig, set, members) = with_a_set("");
    let none = vec![Vec::<String>::new(); 2];
    let changes = || rig.calls("ModifySnapshotAttribute").len();
    rig.run(&["share", &set, "--account", ONE, "--dry-run"]).exits(0).says("would be shared with");
    assert_eq!((shared(&rig, &members), changes()), (none.clone(), 0), "a dry run changes nothing");
    rig.run(&["share", &set, "--account", "123456789012"]).exits(78).says("123456789012 owns");
    assert_eq!(changes(), 0);

    let both = format!("{ONE},{TWO}");
    let done = rig.run(&["share", &set, "--account", &both]);
    done.exits(0).says("is shared with");
    assert!(members.iter().all(|m| done.out.contains(m)), "{}", done.out);
    assert_eq!(shared(&rig, &members), [[ONE, TWO], [ONE, TWO]]);
    let so_far = changes();
    rig.run(&["share", &set, "--account", TWO]).exits(0).says("nothing had to be changed");
    assert_eq!(changes(), so_far);
    rig.run(&["delete", &set, "--including-the-last"]).exits(78).says("shared with");

    rig.run(&["unshare", &set, "--dry-run"]).exits(0).says("would no longer be shared");
    rig.run(&["unshare", &set, "--account", ONE]).exits(0).says("is no longer shared with");
    assert_eq!(shared(&rig, &members), [[TWO], [TWO]]);
    rig.run(&["unshare", &set]).exits(0);
    assert_eq!(shared(&rig, &members), none);
    rig.run(&["unshare", &set]).exits(0).says("nothing had to be changed");
}

#[test]
fn a_set_is_public_only_where_the_account_does_not_block_it() {
    let (rig, set, members) = with_a_set("");
    let public = ["share", &set, "--public", "--yes-anybody-may-read-it"];
    rig.run(&["share", &set, "--public"]).exits(64).says("--yes-anybody-may-read-it");
    for state in ["block-new-sharing", "block-all-sharing"] {
        rig.sim(&["call", "EnableSnapshotBlockPublicAccess", &format!("State={state}")]);
        rig.run(&public).exits(78).says(state);
    }
    assert!(rig.calls("ModifySnapshotAttribute").is_empty(), "it was seen before");
    rig.run(&["share", &set, "--account", ONE]).exits(0);
    rig.sim(&["call", "DisableSnapshotBlockPublicAccess"]);
    rig.run(&public).exits(0);
    assert_eq!(shared(&rig, &members), [[ONE, "all"], [ONE, "all"]]);
    rig.run(&["unshare", &set, "--public"]).exits(0);
    assert_eq!(shared(&rig, &members), [[ONE], [ONE]], "accounts that were named keep it");
}

#[test]
fn what_is_refused_is_told_of_each_snapshot() {
    let (rig, set, members) = with_a_set("");
    let fault =
        refuse(&rig, None, "UnauthorizedOperation", "You are not authorized to perform this operation.");
    rig.run(&["share", &set, "--account", ONE]).exits(77).says("ModifySnapshotAttribute");
    rig.sim(&["faults", "remove", &fault]);
    refuse(&rig, Some("2"), "InvalidSnapshot.InUse", "not now");
    let part = rig.run(&["share", &set, "--account", ONE]);
    part.exits(11).says("is shared with").says("is NOT shared with 111122223333").says("not now");
    let now = shared(&rig, &members);
    assert_eq!(now.iter().filter(|w| w.is_empty()).count(), 1, "{now:?}");
    // The second time it is completed.
    rig.run(&["share", &set, "--account", ONE]).exits(0).says("stays as it is");
    assert_eq!(shared(&rig, &members), [[ONE], [ONE]]);
    refuse(&rig, Some("1"), "InvalidSnapshot.InUse", "not now");
    rig.run(&["unshare", &set]).exits(11).says("is STILL shared with");
}

/// EC2 alone knows which key is the account's default: its refusal ends the command, and what was added before goes.
#[test]
fn the_default_key_leaves_the_set_as_it_was() {
    let (rig, set, members) = with_a_set("");
    rig.sim(&[
        "call",
        "ModifySnapshotAttribute",
        &format!("SnapshotId={}", members[0]),
        "OperationType=add",
        &format!("UserId.1={TWO}"),
    ]);
    let before = shared(&rig, &members);
    refuse(
        &rig,
        Some("2"),
        "OperationNotPermitted",
        "Encrypted snapshots with EBS default key cannot be shared",
    );
    let refused = rig.run(&["share", &set, "--account", ONE]);
    refused.exits(78).says("default key").says("customer managed key");
    assert_eq!(shared(&rig, &members), before, "not more, and what others have shared stays");
}
