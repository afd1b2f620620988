//! Restore of the root: EC2 replaces it once, however often it is asked; and says how that ended, without this host's
//! memory. The host that the tests run on is not rebooted: in ebs-sim, the attachments change places.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rig::program::{Ended, Run, await_some};
use rig::window::in_the_window;
use rig::{Fs, ROOT, Rig};
use serde_json::Value;

const QUICK: &str = "[volumes]\nseconds_to_create = 0.2\nseconds_to_replace_root = 0.2\n";

/// A root and a data volume, of which there is a set.
fn with_set() -> (Rig, String) {
    let rig = Rig::with(&[(ROOT, Fs::Ext4), ("data", Fs::Ext4)], QUICK);
    rig.configure("");
    let set = take(&rig);
    (rig, set)
}

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn restore(rig: &Rig, more: &[&str]) -> Ended {
    rig.run(&[&["restore"], more].concat())
}

/// What is between this element's tags, each time.
fn elements<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let (from, to) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&from).skip(1).map(|rest| rest.split(&to).next().unwrap()).collect()
}

/// The volume that is attached as the root; none where there is none.
fn root(rig: &Rig) -> Option<String> {
    let filter = ["Filter.1.Name=attachment.device", "Filter.1.Value.1=/dev/xvda"];
    let shown = rig.sim(&[&["call", "DescribeVolumes"][..], &filter].concat());
    elements(&shown, "volumeId").first().map(|id| (*id).to_owned())
}

fn tasks(rig: &Rig) -> Vec<String> {
    let shown = rig.sim(&["call", "DescribeReplaceRootVolumeTasks"]);
    elements(&shown, "taskState").into_iter().map(str::to_owned).collect()
}

fn volume_state(rig: &Rig, id: &str) -> Option<String> {
    let filter = ["Filter.1.Name=volume-id", &format!("Filter.1.Value.1={id}")];
    let shown = rig.sim(&[&["call", "DescribeVolumes"][..], &filter].concat());
    elements(&shown, "status").first().map(|state| (*state).to_owned())
}

fn listed(rig: &Rig) -> Vec<Value> {
    let listed = restore(rig, &["--list", "-o", "json"]).exits(0).record();
    listed["restores"].as_array().unwrap().clone()
}

fn id_in(said: &str) -> Option<String> {
    Some(said.lines().find_map(|l| l.strip_prefix("restore ").filter(|id| id.len() == 36))?.to_owned())
}

/// The id of the restore that this run has said that it begins.
fn id_of(run: &Run) -> String {
    await_some("the restore has begun", || id_in(&run.said()))
}

/// What this host remembers is gone, with its root.
fn forget(rig: &Rig) {
    std::fs::remove_dir_all(rig.path("state")).unwrap();
}

#[test]
fn a_set_becomes_the_root_once_it_is_confirmed_and_the_old_one_is_kept() {
    let (rig, set) = with_set();
    let old = rig.id(ROOT);
    let dry = restore(&rig, &[&set, "--root", "-n"]);
    dry.exits(0).says("EC2 reboots the instance").says(&format!("{old} is kept, detached"));
    dry.says(&format!("{} stays as it is ({})", rig.id("data"), rig.mount("data").display()));
    dry.says("the set is of one instant").says("--in-place");
    assert!(
        dry.err
            .lines()
            .filter(|l| !l.contains("note: ") && !l.contains("stays"))
            .all(|l| l.chars().count() <= 80),
        "{}",
        dry.err
    );
    let planned = restore(&rig, &[&set, "--root", "-n", "-o", "json"]).exits(0).record();
    assert_eq!(
        (&planned["restores"][0]["state"], &planned["restores"][0]["root"]["task"]),
        (&"planned".into(), &Value::Null)
    );
    restore(&rig, &[&set, "--root"]).exits(64).says("--yes").says("nothing was done");
    assert!(rig.calls("CreateReplaceRootVolumeTask").is_empty() && tasks(&rig).is_empty());
    assert!(!rig.path("state/restores/root").exists(), "nothing is remembered of what was not done");

    let done = restore(&rig, &[&set, "--root", "--yes"]);
    done.exits(0).says("this host is rebooted").says("succeeded: the new root is in place");
    let new = root(&rig).unwrap();
    assert_ne!(new, old);
    assert_eq!(done.out, format!("{new}\n"));
    done.says(&format!("{new}, made of snap-"))
        .says(&format!("{old}, the old root, is available, and billed"));
    assert_eq!(volume_state(&rig, &old).as_deref(), Some("available"));
    let id = id_in(&done.err).unwrap();

    let list = listed(&rig);
    let of = &list[0];
    assert_eq!(
        (list.len(), &of["id"], &of["set"], &of["state"]),
        (1, &id.as_str().into(), &set.as_str().into(), &"done".into())
    );
    assert_eq!(
        (&of["root"]["replaced"], &of["root"]["task_state"]),
        (&old.as_str().into(), &"succeeded".into())
    );
    restore(&rig, &["--list"]).exits(0);
    // After the reboot, nothing of it may be remembered here.
    forget(&rig);
    let told = restore(&rig, &["--continue", &id, "-o", "json"]).exits(0).record();
    assert_eq!(told["restores"][0]["volumes"][0]["id"], new.as_str());
    let undo = restore(&rig, &["--undo", &id]);
    undo.exits(78).says("is not taken back by this").says(&format!("--volume-id {old}"));
    assert_eq!(rig.calls("CreateReplaceRootVolumeTask").len(), 1);
    // Of the former root's snapshots there can be a new one again, and then it is not that of the first any more.
    restore(&rig, &[&set, "--root", "--yes", "--delete-replaced"]).exits(0).says("the old root, is ");
    await_some("the second root is deleted", || volume_state(&rig, &new).is_none().then_some(()));
    restore(&rig, &["--continue", &id]).exits(0);
    restore(&rig, &["--continue", &set]).exits(78).says("knows of no restore");
}

/// On a terminal it asks, and takes nothing but a yes for one.
#[test]
fn a_person_is_asked_at_a_terminal() {
    let (rig, set) = with_set();
    let words = rig.tail(Command::new(rig::stillpoint()), &["restore", &set, "--root"]);
    let words: Vec<_> = std::iter::once(words.get_program()).chain(words.get_args()).collect();
    let line = words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    for (answer, code) in [("\n", 64), ("no\n", 64), ("y\n", 0)] {
        let mut command = rig.exec("script".as_ref());
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("is rebooted, and gets another root. Go on? [y/N]"), "{said}");
        assert_eq!(tasks(&rig).len(), usize::from(code == 0), "{said}");
    }
}

#[test]
fn what_ec2_would_not_take_is_refused_with_the_other_ways() {
    let (rig, set) = with_set();
    let data = take_of(&rig, "data");
    restore(&rig, &[&data, "--root", "--yes"]).exits(78).says("no snapshot of a root device");
    let copied = rig.run(&["copy", &set, "--to", "us-east-1", "--encrypt", "-o", "json"]).exits(0).record();
    let copy = copied["copies"][0]["set"].as_str().unwrap().to_owned();
    rig.await_quiet();
    restore(&rig, &[&copy, "--root", "--yes"])
        .exits(78)
        .says("is a copy")
        .says("stillpoint image")
        .says("--no-attach");
    // What only EC2 knows.
    let refused = [
        "--kind",
        "error",
        "--code",
        "InvalidParameterValue",
        "--status",
        "400",
        "--message",
        "not of this root",
    ];
    let add = ["faults", "add", "--action", "CreateReplaceRootVolumeTask", "--call", "1"];
    rig.sim(&[&add[..], &refused].concat());
    let said = restore(&rig, &[&set, "--root", "--yes"]);
    said.exits(23).says("not of this root").says("--image-id").says("--volume-id");
    rig.sim(&["faults", "clear"]);
    rig.control("POST", "iam", "{\"deny\": [\"ec2:CreateReplaceRootVolumeTask\"]}");
    restore(&rig, &[&set, "--root", "--yes"]).exits(77).says("CreateReplaceRootVolumeTask");
    rig.control("POST", "iam", "{\"deny\": []}");
    assert!(tasks(&rig).is_empty() && root(&rig) == Some(rig.id(ROOT)));
    assert!(listed(&rig).is_empty());
}

fn take_of(rig: &Rig, name: &str) -> String {
    let mount = rig.mount(name).to_str().unwrap().to_owned();
    let taken = rig.run(&["snapshot", "--mount", &mount, "--allow-partial", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

#[test]
fn no_run_is_cut_off_in_its_window_and_no_other_restore() {
    let (rig, set) = with_set();
    let own = rig.ready["instance_id"].as_str().unwrap().to_owned();
    let held = in_the_window(&rig, &["snapshot"]);
    restore(&rig, &[&set, "--root", "--yes"]).exits(75).says("another run");
    // IMDS is not asked: it may be this very instance.
    let away = ["--region", "us-east-1", "restore", &set, "--root", "--yes", "--instance", &own];
    rig.run(&away).exits(75).says("another run");
    held.end().exits(0);
    let hold = ["faults", "add", "--action", "CreateVolume", "--call", "1", "--kind", "hold-before"];
    let held = rig.sim(&hold).trim().to_owned();
    let other = rig.spawn(&["restore", &set, "--no-attach", "--az", "us-east-1a"]);
    rig.sim(&["faults", "wait", &held]);
    restore(&rig, &[&set, "--root", "--yes"]).exits(75).says("restores a set");
    rig.sim(&["faults", "release", &held]);
    other.end().exits(0);
    assert!(tasks(&rig).is_empty());
    rig.run(&away).exits(0).says("what runs there is not looked at").says("is the root of");
    assert_eq!(tasks(&rig), ["succeeded"]);
}

/// Whatever becomes of the answer, and of this process: one task.
#[test]
fn a_root_is_replaced_once_whatever_is_lost() {
    for kind in ["drop-after", "drop-before", "reset-after"] {
        let (rig, set) = with_set();
        rig.fault("CreateReplaceRootVolumeTask", kind, "0s");
        restore(&rig, &[&set, "--root", "--yes"]).exits(0);
        assert_eq!(tasks(&rig), ["succeeded"], "{kind}");
    }
    for (kind, forgets) in [("hold-after", true), ("hold-after", false), ("hang", false)] {
        let (rig, set) = with_set();
        let add = ["faults", "add", "--action", "CreateReplaceRootVolumeTask", "--call", "1", "--kind", kind];
        let held = rig.sim(&add).trim().to_owned();
        let run = rig.spawn(&["restore", &set, "--root", "--yes"]);
        let id = id_of(&run);
        let asked = || (!rig.calls("CreateReplaceRootVolumeTask").is_empty()).then_some(());
        await_some("EC2 was asked", asked);
        if kind != "hang" {
            rig.sim(&["faults", "wait", &held]);
        }
        run.signal(Signal::SIGKILL);
        assert_eq!(run.end().signal, Some(9));
        rig.sim(&["faults", "clear"]);
        if forgets {
            forget(&rig);
        }
        if kind == "hang" {
            // It was not done: it is asked again before it is.
            restore(&rig, &["--continue", &id]).exits(64).says("asked for once more").says("--yes");
            let held = in_the_window(&rig, &["snapshot"]);
            restore(&rig, &["--continue", &id, "--yes"]).exits(75).says("another run");
            held.end().exits(0);
            assert!(tasks(&rig).is_empty());
            // A refusal now says nothing of what was asked before.
            let refuse = "--action CreateReplaceRootVolumeTask --call 1 --kind error --code IncorrectState --status 400";
            rig.sim(&["faults", "add"].into_iter().chain(refuse.split(' ')).collect::<Vec<_>>());
            let refused = restore(&rig, &["--continue", &id, "--yes"]);
            refused.exits(23).says(&format!("--continue {id}` says whether EC2 does it"));
            rig.sim(&["faults", "clear"]);
        }
        restore(&rig, &["--continue", &id, "--yes"]).exits(0).says("is the root of");
        assert_eq!(tasks(&rig), ["succeeded"], "{kind}");
        assert_ne!(root(&rig), Some(rig.id(ROOT)));
        restore(&rig, &["--continue", &id]).exits(0);
        assert_eq!(tasks(&rig), ["succeeded"], "{kind}: once more says only how it ended");
    }
}

#[test]
fn what_becomes_of_a_task_is_said_with_what_to_do() {
    let (rig, set) = with_set();
    let old = rig.id(ROOT);
    rig.fault("CreateReplaceRootVolumeTask", "volume-error", "0s");
    let failed = restore(&rig, &[&set, "--root", "--yes"]);
    failed.exits(11).says("was not replaced").says(&format!("{old} is the root still")).says("begin anew");
    assert_eq!(listed(&rig)[0]["state"], "failed");

    rig.fault("CreateReplaceRootVolumeTask", "root-detached", "0s");
    let lost = restore(&rig, &[&set, "--root", "--yes"]);
    lost.exits(41).says("has no root volume").says("attach-volume").says(&format!("--volume-id {old}"));
    assert_eq!(root(&rig), None);
    let id = id_in(&lost.err).unwrap();
    restore(&rig, &["--continue", &id]).exits(41).says("stop-instances");
    // What else EC2 does not say changes nothing of it.
    rig.control("POST", "iam", "{\"deny\": [\"ec2:DescribeInstances\", \"ec2:DescribeVolumes\"]}");
    let said = restore(&rig, &["--continue", &id]);
    said.exits(41).says("attach-volume").says("which volume is the root now is not known");
    rig.control("POST", "iam", "{\"deny\": []}");
    restore(&rig, &[&set, "--root", "--yes"]).exits(78).says("has no root volume");
}

#[test]
fn one_is_replaced_at_a_time_and_a_signal_ends_only_the_looking() {
    let slow = QUICK.replace("replace_root = 0.2", "replace_root = 3.0");
    let rig = Rig::with(&[(ROOT, Fs::Ext4), ("data", Fs::Ext4)], &slow);
    rig.configure("");
    let set = take(&rig);
    let run = rig.spawn(&["restore", &set, "--root", "--yes"]);
    let id = id_of(&run);
    await_some("the volumes change places", || run.said().contains("in-progress: ").then_some(()));
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    ended.says(&format!("EC2 goes on: `stillpoint restore --continue {id}`"));
    assert_eq!(ended.signal, Some(15));
    assert_eq!(listed(&rig)[0]["state"], "under-way");
    restore(&rig, &[&set, "--root", "--yes"]).exits(75).says("already (in-progress)");
    restore(&rig, &["--continue", &id]).exits(0).says("is the root of");
    assert_eq!(tasks(&rig), ["succeeded"]);
}

/// Any computer that may ask EC2 can say how it ended; the restores that this host remembers are not of a root, whatever
/// a task's tags say.
#[test]
fn a_task_is_told_of_from_anywhere_and_stands_in_the_way_of_no_other_restore() {
    let (rig, set) = with_set();
    let beside = restore(&rig, &[&set, "--no-attach", "--az", "us-east-1a"]);
    let beside = id_in(&beside.exits(0).err).unwrap();
    let done = restore(&rig, &[&set, "--root", "--yes"]);
    let id = id_in(&done.exits(0).err).unwrap();
    let key = |name: &str| rig.ready["credentials"][name].as_str().unwrap();
    let mut command = rig.exec("env".as_ref());
    command.arg(format!("AWS_ACCESS_KEY_ID={}", key("access_key_id")));
    command.arg(format!("AWS_SECRET_ACCESS_KEY={}", key("secret_access_key"))).arg(rig::stillpoint());
    let nowhere =
        ["--region", "us-east-1", "restore", "--continue", &id, "--imds-endpoint", "http://127.0.0.1:9"];
    Run::start(rig.tail(command, &nowhere)).end().exits(0).says("is the root of");
    let task = listed(&rig).iter().find(|r| r["id"] == id.as_str()).unwrap()["root"]["task"].clone();
    let resource = format!("ResourceId.1={}", task.as_str().unwrap());
    let value = format!("Tag.1.Value={beside}");
    rig.sim(&["call", "CreateTags", &resource, "Tag.1.Key=stillpoint:restore-root", &value]);
    restore(&rig, &["--undo", &beside]).exits(0).says("nothing is left");
}

/// Whoever may tag can put the tag of a restore on a task: two that say so are none.
#[test]
fn a_task_is_of_a_restore_by_one_tag_alone() {
    let (rig, set) = with_set();
    let done = restore(&rig, &[&set, "--root", "--yes"]);
    let id = id_in(&done.exits(0).err).unwrap();
    let other = id_in(&restore(&rig, &[&set, "--root", "--yes"]).exits(0).err).unwrap();
    let task = listed(&rig).iter().find(|r| r["id"] == other.as_str()).unwrap()["root"]["task"].clone();
    let resource = format!("ResourceId.1={}", task.as_str().unwrap());
    let value = format!("Tag.1.Value={id}");
    rig.sim(&["call", "CreateTags", &resource, "Tag.1.Key=stillpoint:restore-root", &value]);
    restore(&rig, &["--continue", &id]).exits(11).says("have the tag of restore");
    restore(&rig, &["--undo", &id]).exits(11).says("have the tag of restore");
}
