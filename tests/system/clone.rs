//! Clones: volumes that EC2 copies in the window, with the evidence of a set.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use rig::hooks::hook;
use rig::probe::assert_settled;
use rig::program::await_some;
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};
use serde_json::Value;

/// Copies are initialised at once, so that a test can make the next.
const AT_ONCE: &str =
    "[volumes]\nseconds_to_create = 0.2\nseconds_to_attach = 0.1\nseconds_to_initialize_copy = 0\n";
/// Copies are never initialised.
const NEVER: &str = "[volumes]\nseconds_to_create = 0.2\nseconds_to_initialize_copy = 100000\n";

const RECORD: usize = 16;

/// Writes record n to A and syncs it, then to B: of any instant over both, nB ≤ nA ≤ nB + 1.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(a: PathBuf, b: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (begun, first) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let open = |folder: &Path| std::fs::File::create(folder.join("log")).unwrap();
            let mut files = [open(&a), open(&b)];
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                for file in &mut files {
                    // In one call: a freeze may come between two, and a record would be half written, rightly.
                    file.write_all(format!("{n:>width$}\n", width = RECORD - 1).as_bytes()).unwrap();
                    file.sync_data().unwrap();
                }
                let _ = begun.send(());
            }
        });
        first.recv().unwrap();
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn records(folder: &Path) -> usize {
    let text = std::fs::read(folder.join("log")).unwrap();
    for (n, record) in text.chunks(RECORD).enumerate() {
        assert_eq!(record, format!("{n:>width$}\n", width = RECORD - 1).as_bytes(), "{}", folder.display());
    }
    text.len() / RECORD
}

/// What a clone holds at this moment of its making, read from a mount of its own.
fn of_clone(rig: &Rig, id: &str, letter: char) -> usize {
    let instance = rig.ready["instance_id"].as_str().unwrap();
    let (volume, device) = (format!("VolumeId={id}"), format!("Device=/dev/sd{letter}"));
    rig.sim(&["call", "AttachVolume", &volume, &format!("InstanceId={instance}"), &device]);
    let node = await_some("the clone's device", || {
        let ready: Value = serde_json::from_slice(&std::fs::read(rig.path("sim/ebs-sim.json")).ok()?).ok()?;
        let volumes = ready["volumes"].as_array()?;
        Some(volumes.iter().find(|v| v["id"] == id)?["loop"].as_str()?.to_owned())
    });
    let at = rig.path(&format!("clone-{letter}"));
    std::fs::create_dir(&at).unwrap();
    let fstype = sh("blkid", &["-p", "-o", "value", "-s", "TYPE", &node]);
    let options = if fstype.trim() == "xfs" { "nouuid" } else { "defaults" };
    sh("mount", &["-o", options, &node, at.to_str().unwrap()]);
    let found = records(&at);
    sh("umount", &[at.to_str().unwrap()]);
    found
}

/// The volumes that carry the tag of a run, without those that are going.
fn tagged(rig: &Rig) -> Vec<String> {
    let shown =
        rig.sim(&["call", "DescribeVolumes", "Filter.1.Name=tag-key", "Filter.1.Value.1=stillpoint:run"]);
    let items =
        shown.split("<item><volumeId>").skip(1).filter(|item| !item.contains("<status>deleting</status>"));
    items.map(|item| item.split('<').next().unwrap().to_owned()).collect()
}

fn tag(rig: &Rig, id: &str, key: &str) -> String {
    let (id, key) = (format!("Filter.1.Value.1={id}"), format!("Filter.2.Value.1={key}"));
    let shown =
        rig.sim(&["call", "DescribeTags", "Filter.1.Name=resource-id", &id, "Filter.2.Name=key", &key]);
    shown.split_once("<value>").and_then(|(_, rest)| rest.split('<').next()).unwrap_or_default().to_owned()
}

#[test]
fn clones_are_one_instant_because_nothing_is_written_between_the_requests() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], AT_ONCE);
    let writer = Writer::start(rig.mount("a"), rig.mount("b"));
    // The negative control: the same requests while the writer goes on, one as late as a request may be.
    let copy = |name: &str| {
        let made = rig.sim(&["call", "CopyVolumes", &format!("SourceVolumeId={}", rig.id(name))]);
        made.split_once("<volumeId>").unwrap().1.split('<').next().unwrap().to_owned()
    };
    let torn_a = copy("a");
    let so_far = records(&rig.mount("b"));
    await_some("more records", || (records_at_least(&rig.mount("b"), so_far + 3)).then_some(()));
    let torn_b = copy("b");

    // One request is carried out late: without the freeze, this would be torn too.
    let late = ["faults", "add", "--action", "CopyVolumes", "--call", "2", "--kind", "delay-before"];
    rig.sim(&[&late[..], &["--delay", "300ms"]].concat());
    let ended = rig.run(&["clone"]);
    writer.stop();
    ended.exits(0).says("filesystem-consistent, 2 of 2 volumes").says("one instant: nothing was written");
    let ids: Vec<&str> = ended.out.lines().collect();
    assert_eq!(ids.len(), 2, "{}", ended.out);
    assert_eq!(rig.calls("CopyVolumes").len(), 4, "one request a volume, never repeated");
    for (id, name) in ids.iter().zip(["a", "b"]) {
        assert_eq!(tag(&rig, id, "stillpoint:consistency"), "filesystem");
        assert_eq!(tag(&rig, id, "stillpoint:instant"), "one");
        assert_eq!(tag(&rig, id, "stillpoint:mounts"), rig.mount(name).to_str().unwrap());
    }
    let call = &rig.calls("CopyVolumes")[2]["params"];
    assert_eq!(call["VolumeType"], "gp3", "as the source, not EC2's gp2: {call}");
    assert!(rig.creates().is_empty(), "no snapshot is made");

    let (a, b) = (of_clone(&rig, ids[0], 'v'), of_clone(&rig, ids[1], 'w'));
    assert!(b <= a && a <= b + 1, "frozen: {a} in a, {b} in b");
    await_some("the first two", || tagged(&rig).len().ge(&2).then_some(()));
    let (a, b) = (of_clone(&rig, &torn_a, 'x'), of_clone(&rig, &torn_b, 'y'));
    assert!(b > a + 1, "the control has to be torn: {a} in a, {b} in b");
    assert_settled(&rig);
}

fn records_at_least(folder: &Path, n: usize) -> bool {
    std::fs::metadata(folder.join("log")).unwrap().len() >= (n * RECORD) as u64
}

#[test]
fn what_is_no_instant_is_said() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], AT_ONCE);
    // Nothing proves that a volume without a mounted filesystem is quiet.
    sh("umount", &[rig.mount("b").to_str().unwrap()]);
    rig.configure("[plan.default]\nunmounted_volumes = \"crash\"\n");
    let (a, b) = (rig.id("a"), rig.id("b"));
    let both = ["clone", "--volume", &a, "--volume", &b];
    rig.run(&both).exits(78).says("this plan can reach crash consistency at best");
    let ended = rig.run(&[&both[..], &["--consistency", "crash"]].concat());
    ended.exits(0).says("crash-consistent, 2 of 2 volumes").says("not one instant");
    let id = ended.out.lines().next().unwrap();
    assert_eq!(tag(&rig, id, "stillpoint:instant"), "each");
    let record = rig.run(&[&both[..], &["--consistency", "crash", "-o", "json"]].concat()).exits(0).record();
    assert_eq!((&record["one_instant"], &record["achieved"]), (&false.into(), &"crash".into()), "{record}");
    // One volume is always one instant.
    let one = rig.run(&["clone", "--volume", &b, "--consistency", "crash", "-o", "json"]).exits(0).record();
    assert_eq!((&one["one_instant"], one["clones"].as_array().unwrap().len()), (&true.into(), 1), "{one}");
}

#[test]
fn limits_are_checked_before_anything_is_frozen() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], NEVER);
    rig.run(&["clone"]).exits(0);
    let before = rig.calls("CopyVolumes").len();
    let again = rig.run(&["clone"]);
    again.exits(23).says("is being copied: EC2 still initialises").says("describe-volume-status");
    let dry = rig.run(&["clone", "--dry-run"]);
    dry.exits(23).says("is being copied");
    let few = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], AT_ONCE);
    few.run(&["clone", "--most-copies", "1"]).exits(23).says("at most 1 copies of volumes in progress");
    few.run(&["clone", "--dry-run"]).exits(0).says("permission checked by DryRun: CopyVolumes, 2 calls");
    assert_eq!((rig.calls("CopyVolumes").len(), few.calls("CopyVolumes").len()), (before, 0));
    for rig in [&rig, &few] {
        assert!(rig.journals().is_empty(), "nothing was touched");
        assert_settled(rig);
    }
}

#[test]
fn clones_are_larger_and_of_another_type_where_that_is_asked_for() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], AT_ONCE);
    std::fs::write(rig.mount("a").join("log"), "").unwrap();
    let (a, b) = (format!("{}=4", rig.id("a")), format!("{}=5", rig.mount("b").display()));
    let wanted = ["clone", "--type", "io2", "--iops", "4000", "--size", &a, "--size", &b];
    let dry = rig.run(&[&wanted[..], &["--dry-run"]].concat());
    dry.exits(0).says("4 GiB io2 (the volume: 1 GiB), 4000 IOPS").says("5 GiB io2 (the volume: 1 GiB)");
    assert!(rig.calls("CopyVolumes").is_empty());
    let record = rig.run(&[&wanted[..], &["-o", "json"]].concat()).exits(0).record();
    assert_eq!((&record["achieved"], &record["one_instant"]), (&"filesystem".into(), &true.into()));
    let calls = rig.calls("CopyVolumes");
    assert_eq!(calls.len(), 2);
    for call in &calls {
        let (size, params) =
            (if call["params"]["SourceVolumeId"] == rig.id("a") { "4" } else { "5" }, &call["params"]);
        assert_eq!((&params["VolumeType"], &params["Iops"]), (&"io2".into(), &"4000".into()), "{params}");
        assert_eq!((&params["Size"], params.get("Throughput")), (&size.into(), None), "{params}");
    }
    for clone in record["clones"].as_array().unwrap() {
        assert_eq!((&clone["volume_type"], &clone["iops"]), (&"io2".into(), &4000.into()), "{clone}");
        let size = if clone["volume_id"] == rig.id("a") { 4 } else { 5 };
        assert_eq!(clone["size_gib"], size, "{clone}");
    }
    // What is on a larger clone keeps its size, and is whole.
    let id =
        record["clones"].as_array().unwrap().iter().find(|c| c["volume_id"] == rig.id("a")).unwrap()["id"]
            .clone();
    of_clone(&rig, id.as_str().unwrap(), 'v');
    assert_settled(&rig);
}

#[test]
fn what_ec2_would_refuse_of_a_clone_is_refused_before_anything_is_touched() {
    let rig = Rig::with(&[("a", Fs::Ext4)], AT_ONCE);
    rig.configure(&hook("app", "touch /run/stillpoint-never", "true", ""));
    let a = rig.id("a");
    let size = |gib: u32| format!("Size={gib}");
    // As EC2 is asked for it, and as the command line has it.
    let refused: [(&[&str], &[&str], &str); 8] = [
        (&["VolumeType=io2", "Iops=100"], &["--type", "io2", "--iops", "100"], "4 to 65536 GiB"),
        (&["VolumeType=io1"], &["--type", "io1"], "io1 needs IOPS"),
        (&["VolumeType=gp2", "Iops=3000"], &["--type", "gp2", "--iops", "3000"], "no IOPS can be asked for"),
        (&["VolumeType=gp3", "Iops=3001"], &["--iops", "3001"], "of 1 GiB has at most 3000 IOPS"),
        (&["VolumeType=gp3", "Iops=2999"], &["--iops", "2999"], "3000 to 80000 of IOPS"),
        (&["VolumeType=gp3", "Throughput=751"], &["--throughput", "751"], "751 MiB/s need 3004 IOPS"),
        (&["VolumeType=st1", &size(1)], &["--type", "st1"], "125 to 16384 GiB"),
        (
            &["VolumeType=io1", "Iops=201", &size(4)],
            &["--type", "io1", "--iops", "201", "--size", &format!("{a}=4")],
            "of 4 GiB has at most 200 IOPS",
        ),
    ];
    for (parameters, options, why) in refused {
        let of = format!("SourceVolumeId={a}");
        let call = [&["call", "CopyVolumes", &of], parameters].concat();
        let said = rig.try_sim(&call).expect_err("EC2 refuses it");
        assert!(said.contains("InvalidParameter"), "{parameters:?}: {said}");
        for dry in [&[][..], &["--dry-run"]] {
            rig.run(&[&["clone"], options, dry].concat()).exits(78).says(why).says("hint: ");
        }
    }
    let other = [
        ("/nowhere=9", "the plan has no /nowhere"),
        ("vol-00000000000000001=9", "vol-00000000000000001 is not cloned by this plan"),
    ];
    for (size, why) in other {
        rig.run(&["clone", "--size", size]).exits(78).says(why);
    }
    let twice = [format!("{a}=8"), format!("{}=9", rig.mount("a").display())];
    rig.run(&["clone", "--size", &twice[0], "--size", &twice[1]])
        .exits(78)
        .says("cannot have both 8 and 9 GiB");
    for usage in [&["--size", "a=2"][..], &["--type", "gp9"], &["--iops", "99"], &["--throughput", "124"]] {
        rig.run(&[&["clone"], usage].concat()).exits(64);
    }
    let asked = rig.requests().into_iter().filter(|r| r["action"] == "CopyVolumes").count();
    assert_eq!(asked, 8, "stillpoint sent none of them, nor a DryRun of one");
    assert!(rig.journals().is_empty() && !Path::new("/run/stillpoint-never").exists());
    assert_settled(&rig);
}

#[test]
fn of_an_incomplete_set_nothing_stays_unless_less_may_be_kept() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], AT_ONCE);
    let fault = |kind: &str, more: &[&str]| {
        let fault = ["faults", "add", "--action", "CopyVolumes", "--call", "2", "--kind", kind];
        rig.sim(&[&fault[..], more].concat());
    };
    // One of two is refused.
    fault("error", &["--code", "CopyVolumesLimitExceeded", "--status", "400"]);
    let refused = rig.run(&["clone"]);
    refused.exits(23).says("CopyVolumesLimitExceeded").says("nothing is left of an incomplete set");
    assert!(refused.out.is_empty(), "{}", refused.out);
    await_some("its end", || tagged(&rig).is_empty().then_some(()));
    // One answer is lost: it is looked for, and never asked for again.
    fault("drop-after", &[]);
    let calls = rig.calls("CopyVolumes").len();
    let lost = rig.run(&["clone"]);
    lost.exits(23).says("2 clones of this run exist all the same");
    assert_eq!(rig.calls("CopyVolumes").len(), calls + 2, "a request was repeated");
    await_some("their end", || tagged(&rig).is_empty().then_some(()));
    // Kept, by policy: each is labelled, and none as more than it is.
    fault("drop-after", &[]);
    let kept = rig.run(&["clone", "--on-degraded", "keep"]);
    kept.exits(23);
    assert_eq!(kept.out.lines().count(), 2, "{}", kept.out);
    for id in kept.out.lines() {
        assert_eq!(tag(&rig, id, "stillpoint:consistency"), "crash");
        assert_eq!(tag(&rig, id, "stillpoint:instant"), "each");
    }
    assert!(rig.journals().is_empty());
    assert_settled(&rig);
}

#[test]
fn what_a_run_that_died_has_cloned_is_found() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], AT_ONCE);
    let run = in_the_window(&rig, &["clone"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("both requests to be answered", || {
        let calls = rig.calls("CopyVolumes");
        (calls.len() == 2 && calls.iter().all(|c| c["outcome"] != "pending")).then_some(())
    });
    let left = tagged(&rig);
    let next = rig.run(&["clone"]);
    next.exits(0);
    for id in &left {
        next.says(id).says("labelled crash");
        assert_eq!(tag(&rig, id, "stillpoint:consistency"), "crash");
    }
    assert!(!left.is_empty(), "EC2 had done what it was asked for");
    assert_eq!(tagged(&rig).len(), left.len() + 2);
    assert_settled(&rig);
}

#[test]
fn a_clone_that_ec2_cannot_make_is_told() {
    let rig = Rig::with(&[("a", Fs::Ext4)], AT_ONCE);
    rig.fault("CopyVolumes", "volume-error", "0s");
    let ended = rig.run(&["clone"]);
    ended.exits(11).says("is in the state error");
}

#[test]
fn the_printed_policy_is_enough_and_nothing_of_it_too_much() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], AT_ONCE);
    let policy = rig.run(&["iam-policy", "clone"]).exits(0).record();
    let set = |policy: &Value| {
        rig.control("POST", "iam", &serde_json::json!({ "policy": policy }).to_string());
    };
    let mut seen = Vec::new();
    for (at, statement) in policy["Statement"].as_array().unwrap().iter().enumerate() {
        let actions = match &statement["Action"] {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        for action in &actions {
            let mut less = policy.clone();
            // None at all would be no list of actions.
            let rest = actions.iter().filter(|a| *a != action).cloned();
            less["Statement"][at]["Action"] = rest.chain(["ec2:DescribeTags".into()]).collect();
            set(&less);
            let action = action.as_str().unwrap().trim_start_matches("ec2:");
            let ended = rig.run(&["clone"]);
            let expected =
                match (action, statement["Condition"]["StringEquals"]["ec2:CreateAction"].is_string()) {
                    // Only of an incomplete set.
                    ("DeleteVolume", _) => 0,
                    // The label.
                    ("CreateTags", false) => 11,
                    _ => 77,
                };
            ended.exits(expected);
            if expected != 0 {
                ended.says(action);
            }
            seen.push(action.to_owned());
        }
    }
    for action in ["CopyVolumes", "DescribeVolumeStatus", "CreateTags", "DeleteVolume"] {
        assert!(seen.iter().any(|s| s == action), "{seen:?}");
    }
    set(&policy);
    rig.run(&["clone"]).exits(0);
    let before = tagged(&rig).len();
    rig.sim(&["faults", "add", "--action", "CopyVolumes", "--call", "2", "--kind", "error"]);
    rig.run(&["clone"]).exits(23).says("nothing is left of an incomplete set");
    await_some("its end", || (tagged(&rig).len() == before).then_some(()));
}
