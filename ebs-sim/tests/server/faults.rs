//! Faults on request: on the snapshots of a call, by number and by chance, held until released; and signals
//! to `run`.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{EBS_SIM, QUICK, Sim, http, needs_root, values, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const THREE: &[&str] = &["name=root,size=16MiB,boot", "name=a,size=16MiB", "name=b,size=16MiB"];

fn add(sim: &Sim, kind: &[&str]) -> String {
    sim.ok(&[&["faults", "add", "--action", "CreateSnapshots", "--kind"], kind].concat())
}

fn shown(sim: &Sim) -> Vec<Value> {
    serde_json::from_str(&sim.ok(&["snapshots"])).expect("json")
}

#[test]
fn sets_are_wrong_as_asked() {
    needs_root();
    let sim = Sim::start(QUICK, THREE);
    assert_eq!(sim.create_snapshots().len(), 3);
    add(&sim, &["missing-snapshot", "--call", "1"]);
    let told = sim.create_snapshots();
    let made = shown(&sim);
    assert_eq!((told.len(), made.len()), (2, 6));
    assert!(!told.contains(&made[5]["id"].as_str().expect("an id").to_owned()));

    add(&sim, &["detach-volume", "--call", "1"]);
    assert_eq!(sim.create_snapshots().len(), 2);
    let volumes: Vec<_> = shown(&sim)[6..].iter().map(|snapshot| snapshot["volume_id"].clone()).collect();
    assert_eq!(volumes, [sim.id("root"), sim.id("a")], "the last one went");
    add(&sim, &["detach-volume", "--volume", "root", "--call", "1"]);
    assert_eq!(sim.create_snapshots().len(), 1);
    assert_eq!(shown(&sim)[8]["volume_id"], sim.id("a"));
    add(&sim, &["extra-volume", "--call", "1"]);
    assert_eq!(sim.create_snapshots().len(), 2);
}

#[test]
fn snapshots_are_slow_and_late_as_asked() {
    needs_root();
    let sim = Sim::start(QUICK, THREE);
    let state = |id: &str| {
        let found = shown(&sim).into_iter().find(|snapshot| snapshot["id"] == id).expect("it is known");
        found["state"].as_str().expect("a state").to_owned()
    };
    let usual = sim.create_snapshots().remove(0);
    add(&sim, &["slow-progress", "--factor", "1000", "--call", "1"]);
    let slow = sim.create_snapshots().remove(0);
    add(&sim, &["slow-progress", "--delay", "1h", "--call", "1"]);
    let delayed_for_long = sim.create_snapshots().remove(0);
    add(&sim, &["slow-progress", "--delay", "1s", "--call", "1"]);
    let delayed = sim.create_snapshots().remove(0);
    wait_for("the usual end", || state(&usual) == "completed");
    wait_for("the end after a second", || state(&delayed) == "completed");
    assert_eq!((state(&slow), state(&delayed_for_long)), ("pending".into(), "pending".into()));

    let late = |delay: &str| {
        add(&sim, &["late-visibility", "--delay", delay, "--call", "1"]);
        sim.create_snapshots().remove(0)
    };
    let found = |id: &str| sim.command(&["call", "DescribeSnapshots", &format!("SnapshotId.1={id}")]);
    let in_an_hour = late("1h");
    let all = values(&sim.ok(&["call", "DescribeSnapshots"]), "snapshotId");
    assert_eq!(all.len(), 12);
    let soon = late("1s");
    wait_for("the late snapshot", || found(&soon).status.success());
    assert!(String::from_utf8_lossy(&found(&in_an_hour).stdout).contains("InvalidSnapshot.NotFound"));
}

#[test]
fn number_and_chance_choose_the_calls() {
    needs_root();
    let throttled = |sim: &Sim| -> Vec<bool> {
        (0..20).map(|_| !sim.command(&["call", "DescribeVolumes"]).status.success()).collect()
    };
    let fault = "[[fault]]\naction = 'Describe*'\nkind = 'throttle'\nprobability = 0.3\nseed = 7\n";
    let one = Sim::start(&format!("{fault}[log]\nkeep = 5\n"), THREE);
    let other = Sim::start("", THREE);
    other.ok(&[
        "faults",
        "add",
        "--action",
        "Describe*",
        "--kind",
        "throttle",
        "--probability",
        "0.3",
        "--seed",
        "7",
    ]);
    let fallen = throttled(&one);
    assert!(fallen.contains(&true) && fallen.contains(&false));
    assert_eq!(fallen, throttled(&other));
    let log = one.requests("DescribeVolumes");
    assert_eq!((log.len(), &log[4]["number"]), (5, &20.into()), "the log is bounded");

    other.ok(&["faults", "clear"]);
    let id =
        other.ok(&["faults", "add", "--action", "*", "--kind", "throttle", "--call", "2", "--times", "3"]);
    assert_eq!(throttled(&other)[..6], [false, true, true, true, false, false]);
    let hit = &other.requests("DescribeVolumes")[21];
    assert_eq!(
        (&hit["outcome"], &hit["fault_ids"]),
        (&"RequestLimitExceeded".into(), &serde_json::json!([2]))
    );
    assert_eq!(id, "2");
    assert!(!other.command(&["faults", "add", "--action", "connection", "--kind", "hang"]).status.success());
    assert_eq!(other.ok(&["faults", "list"]), "[]");
}

/// `ebs-sim run` of a script that says when it is ready.
fn run(script: &str) -> (Child, impl FnMut() -> String + use<>) {
    let mut child = Command::new(EBS_SIM)
        .args(["run", "--volume", "name=a,size=16MiB", "--", "bash", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ebs-sim can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = move || lines.next().and_then(Result::ok).unwrap_or_default();
    assert_eq!(line(), "ready");
    (child, line)
}

fn tell(child: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, signal).expect("it can be signalled");
}

#[test]
fn run_kills_its_command_only_when_it_was_asked_twice() {
    needs_root();
    // Ctrl-C and a wrapper's SIGTERM right behind it: the command ends in its own time.
    let (mut child, mut line) = run(
        "trap 'echo INT' INT; trap 'sleep 0.3; echo TERM; exit 3' TERM; echo ready; while :; do sleep 0.05; \
         done",
    );
    tell(&child, Signal::SIGINT);
    assert_eq!(line(), "INT");
    tell(&child, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(50));
    tell(&child, Signal::SIGTERM);
    assert_eq!(line(), "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));

    let (mut child, mut line) = run("trap 'echo TERM' TERM; echo ready; while :; do sleep 0.05; done");
    tell(&child, Signal::SIGTERM);
    assert_eq!(line(), "TERM");
    // Time has to pass here: the second one counts a second after the first was seen.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(child.try_wait().expect("it is ours").is_none());
    tell(&child, Signal::SIGTERM);
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), status.signal()), (Some(128 + 9), None));
}

#[test]
fn copies_can_be_late_slow_and_failed_too() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let source = sim.create_snapshots().remove(0);
    let describe = |id: &str| {
        let output = sim.command(&["call", "DescribeSnapshots", &format!("SnapshotId.1={id}")]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_for("the source", || values(&describe(&source), "status") == ["completed"]);
    let copy = |kind: &str, delay: &str| {
        sim.ok(&[
            "faults",
            "add",
            "--action",
            "CopySnapshot",
            "--call",
            "1",
            "--kind",
            kind,
            "--delay",
            delay,
        ]);
        let from = format!("SourceSnapshotId={source}");
        values(&sim.ok(&["call", "CopySnapshot", "SourceRegion=us-east-1", &from]), "snapshotId").remove(0)
    };
    let in_an_hour = copy("late-visibility", "1h");
    let soon = copy("late-visibility", "1s");
    wait_for("the late copy", || describe(&soon).contains("<snapshotSet>"));
    let told = describe(&in_an_hour);
    assert!(told.contains("InvalidSnapshot.NotFound"), "{told} {:#?}", sim.requests("CopySnapshot"));
    let slow = copy("slow-progress", "1h");
    let failed = copy("snapshot-error", "1s");
    wait_for("the failed copy", || values(&describe(&failed), "status") == ["error"]);
    assert_eq!(values(&describe(&slow), "status"), ["pending"], "one that was asked for later has ended");
    sim.ok(&["reset"]);
    assert!(describe(&source).contains("InvalidSnapshot.NotFound"));
}

/// A CreateSnapshots of the whole instance that somebody else asks for.
fn asked_for(sim: &Sim) -> Child {
    let instance = sim.ready["instance_id"].as_str().expect("an id");
    Command::new(EBS_SIM)
        .args(["call", "CreateSnapshots", &format!("InstanceSpecification.InstanceId={instance}")])
        .env("EBS_SIM_DIR", sim.dir())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ebs-sim can be run")
}

/// The snapshots that it was answered.
fn answered(child: Child) -> Vec<String> {
    let output = child.wait_with_output().expect("it ends");
    values(&String::from_utf8_lossy(&output.stdout), "snapshotId")
}

/// The log's numbers of the requests that a fault holds, once it holds one.
fn held(sim: &Sim, fault: &str) -> Vec<Value> {
    let held: Vec<Value> = serde_json::from_str(&sim.ok(&["faults", "wait", fault])).expect("json");
    held.iter().map(|held| held["request"].clone()).collect()
}

fn exit_status(sim: &Sim, arguments: &[&str]) -> (Option<i32>, String) {
    let output = sim.command(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_request_is_held_until_it_is_released() {
    needs_root();
    let sim = Sim::start(QUICK, THREE);
    for (kind, made_before) in [("hold-before", 0), ("hold-after", 3), ("hold-mid", 3)] {
        let before = shown(&sim).len();
        let fault = add(&sim, &[kind, "--call", "1"]);
        let mut client = asked_for(&sim);
        let requests = held(&sim, &fault);
        let entry = sim.requests("CreateSnapshots").pop().expect("an entry");
        assert_eq!(requests, [entry["number"].clone()]);
        let outcome = if kind == "hold-mid" { "ok" } else { "pending" };
        assert_eq!((&entry["outcome"], &entry["faults"][0]), (&outcome.into(), &kind.into()));
        assert_eq!(shown(&sim).len() - before, made_before, "{kind}");
        assert!(client.try_wait().expect("it is ours").is_none(), "{kind}");
        assert_eq!(exit_status(&sim, &["faults", "release", &fault]).0, Some(0));
        assert_eq!(answered(client).len(), 3, "{kind}");
        let (code, stderr) = exit_status(&sim, &["faults", "release", &fault]);
        assert!(code == Some(1) && stderr.contains("holds no request"), "{code:?}: {stderr}");
        assert_eq!(shown(&sim).len() - before, 3);
    }
    assert_eq!(sim.ok(&["faults", "held"]), "[]");
}

#[test]
fn a_client_that_is_gone_gets_what_it_asked_for() {
    needs_root();
    let sim = Sim::start(QUICK, THREE);
    let fault = add(&sim, &["hold-before", "--call", "1"]);
    let mut client = asked_for(&sim);
    held(&sim, &fault);
    client.kill().expect("it is ours");
    client.wait().expect("it ends");
    assert_eq!(shown(&sim).len(), 0);
    sim.ok(&["faults", "release", &fault]);
    wait_for("the snapshots", || shown(&sim).len() == 3);
}

#[test]
fn what_nobody_releases_does_not_wait_for_ever() {
    needs_root();
    let sim = Sim::start(QUICK, THREE);
    add(&sim, &["hold-before", "--call", "1", "--at-most", "100ms"]);
    assert_eq!(sim.create_snapshots().len(), 3);

    for forget in [&["faults", "clear"][..], &["faults", "remove"], &["reset"]] {
        let fault = add(&sim, &["hold-after", "--times", "1"]);
        let client = asked_for(&sim);
        held(&sim, &fault);
        let number = (forget == ["faults", "remove"]).then_some(fault.as_str());
        sim.ok(&[forget, number.as_slice()].concat());
        assert_eq!(answered(client).len(), 3, "{forget:?}");
    }
    let throttle = add(&sim, &["throttle"]);
    let hold = add(&sim, &["hold-before"]);
    for (arguments, complaint) in [
        (&["faults", "wait", &hold, "--within", "10ms"][..], "holds 0 of 1 requests"),
        (&["faults", "wait", &throttle], "throttle, which holds nothing"),
        (&["faults", "wait", "99"], "there is no fault 99"),
        (&["faults", "release", "99"], "there is no fault 99"),
        (&["faults", "remove", "1"], "has struck for the last time"),
    ] {
        let (code, stderr) = exit_status(&sim, arguments);
        assert!(code == Some(1) && stderr.contains(complaint), "{arguments:?}: {code:?}: {stderr}");
    }
}

#[test]
fn half_of_an_answer_comes_before_it_is_held() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let address = sim.ready["imds"].as_str().expect("a URL").replace("http://", "");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "60")];
    let (_, _, token) = http(&mut stream, "PUT /latest/api/token", &ttl);
    let fault = sim.ok(&["faults", "add", "--action", "imds:Get", "--call", "1", "--kind", "hold-mid"]);
    let get = "GET /latest/meta-data/instance-id HTTP/1.1\r\nhost: x\r\n";
    write!(stream, "{get}x-aws-ec2-metadata-token: {token}\r\n\r\n").expect("it is sent");
    held(&sim, &fault);
    let id = sim.ready["instance_id"].as_str().expect("an id");
    let (first, second) = id.split_at(id.len() / 2);
    let mut answer = Vec::new();
    while !answer.ends_with(format!("\r\n\r\n{first}").as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the first half");
        answer.extend(byte);
    }
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    assert!(stream.read(&mut [0]).is_err(), "the second half is held");
    stream.set_read_timeout(None).expect("a socket");
    sim.ok(&["faults", "release", &fault]);
    let mut rest = vec![0; second.len()];
    stream.read_exact(&mut rest).expect("the second half");
    assert_eq!(rest, second.as_bytes());
}
