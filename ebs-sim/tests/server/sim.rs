//! One point in time for the volumes of a call, devices, the view, requests and the end of a server.
//!
//! Each promise has its negative control in the same test: an oracle that cannot fail proves nothing.
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use crate::support::{
    EBS_SIM, Mount, QUICK, Sim, Writer, http, loops_under, needs_root, records, sh, values, wait_for, written,
};
use nix::sys::signal::Signal;

fn two_filesystems() -> Sim {
    let sim = Sim::start(QUICK, &["name=a,size=64MiB", "name=b,size=320MiB"]);
    sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
    sh("mkfs.xfs", &["-q", "-f", &sim.device("b")]);
    sim
}

/// The number of records in the images of two snapshots, after the journals were replayed.
fn records_in(sim: &Sim, a: &str, b: &str) -> (u64, u64) {
    let count = |snapshot: &str, options: &str| {
        let device = sim.snapshot_device(snapshot);
        let mount = Mount::new(sim, &format!("copy-{snapshot}"), &device, options);
        let count = records(mount.path());
        drop(mount);
        sim.release_device(&device);
        count
    };
    (count(a, "rw"), count(b, "nouuid"))
}

#[test]
fn create_snapshots_is_one_point_in_time_and_two_calls_are_not() {
    needs_root();
    let sim = two_filesystems();
    let a = Mount::new(&sim, "a", &sim.device("a"), "rw");
    let b = Mount::new(&sim, "b", &sim.device("b"), "rw");
    let writer = Writer::start(a.path(), b.path());
    let mut sets = Vec::new();
    for _ in 0..8 {
        let before = written(b.path());
        wait_for("more records", || written(b.path()) > before + 5);
        sets.push(sim.create_snapshots());
    }
    let sequential = [sim.create_snapshot("a"), {
        // What b has two more of, it has one more of on its disk.
        let in_a = written(a.path());
        wait_for("two more records", || written(b.path()) >= in_a + 2);
        sim.create_snapshot("b")
    }];
    let written = writer.stop();

    for set in &sets {
        let (in_a, in_b) = records_in(&sim, &set[0], &set[1]);
        assert!(in_a > 0 && in_a <= written, "{in_a} of {written}");
        assert!(in_b <= in_a && in_a <= in_b + 1, "a has {in_a} records, b has {in_b}");
    }
    let (in_a, in_b) = records_in(&sim, &sequential[0], &sequential[1]);
    assert!(in_b > in_a, "the negative control: a has {in_a} records, b has {in_b}");
}

#[test]
fn a_frozen_filesystem_is_snapshotted_clean_and_a_live_one_is_not() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=64MiB"]);
    sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
    let mount = Mount::new(&sim, "a", &sim.device("a"), "rw");
    std::fs::write(mount.path().join("file"), "text").expect("a file");
    let path = mount.path().to_str().expect("UTF-8");
    let live = sim.create_snapshots().remove(0);
    sh("fsfreeze", &["--freeze", path]);
    let frozen = sim.command(&[
        "call",
        "CreateSnapshots",
        &format!("InstanceSpecification.InstanceId={}", sim.ready["instance_id"].as_str().expect("an id")),
    ]);
    sh("fsfreeze", &["--unfreeze", path]);
    let frozen = values(&String::from_utf8_lossy(&frozen.stdout), "snapshotId").remove(0);
    let needs_recovery = |snapshot: &str| {
        let device = sim.snapshot_device(snapshot);
        let header = sh("dumpe2fs", &["-h", &device]);
        sim.release_device(&device);
        header.contains("needs_recovery")
    };
    assert!(needs_recovery(&live), "the negative control");
    assert!(!needs_recovery(&frozen));
}

#[test]
fn exec_shows_the_loops_as_ebs_disks() {
    needs_root();
    let sim = Sim::start(
        QUICK,
        &[
            "name=root,size=16MiB,boot",
            "name=data,size=16MiB,device=/dev/sdf",
            "name=old,size=16MiB,device=/dev/sdg,kind=xen",
            "name=scratch,size=16MiB,kind=instance-store",
        ],
    );
    // Said to the kernel rather than written as a table: not every kernel can read one.
    sh("addpart", &[&sim.device("root"), "1", "2048", "4096"]);

    let number = |name: &str| {
        let name = sim.device(name).replace("/dev/", "");
        std::fs::read_to_string(format!("/sys/block/{name}/dev")).expect("a number").trim().to_owned()
    };
    let read = |script: &str| {
        let output = sim.exec(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    let data = format!("/sys/dev/block/{}", number("data"));
    assert_eq!(read(&format!("cat {data}/device/serial")), sim.id("data").replace('-', ""));
    assert_eq!(read(&format!("cat {data}/device/model")), "Amazon Elastic Block Store");
    assert_eq!(read(&format!("cat {data}/device/model | wc -c")), "41");
    assert_eq!(read(&format!("cat {data}/size {data}/ro")), "32768\n0");
    assert!(read(&format!("readlink -f {data}")).contains("/nvme/nvme"));
    assert_eq!(read(&format!("test ! -e {data}/loop && echo absent")), "absent");
    let name = sim.device("data").replace("/dev/", "");
    assert_eq!(read(&format!("test ! -e /sys/class/block/{name} && echo absent")), "absent");

    let scratch = format!("/sys/dev/block/{}/device", number("scratch"));
    assert_eq!(read(&format!("cat {scratch}/model")), "Amazon EC2 NVMe Instance Storage");
    assert!(read(&format!("cat {scratch}/serial")).starts_with("AWS"));
    let old = format!("/sys/dev/block/{}", number("old"));
    assert_eq!(read(&format!("basename $(readlink -f {old})")), "xvdg");
    assert_eq!(read(&format!("test ! -e {old}/device/serial && echo absent")), "absent");

    let part = "/sys/class/block/nvme0n1p1";
    assert_eq!(read(&format!("cat {part}/partition {part}/start {part}/size")), "1\n2048\n4096");
    assert_eq!(read(&format!("cat {part}/../device/serial")), sim.id("root").replace('-', ""));
    assert_eq!(
        read(&format!("readlink -f /sys/dev/block/$(cat {part}/dev)")),
        read(&format!("readlink -f {part}"))
    );

    // The write counter is the real one: it moves while the command looks.
    let moved = format!(
        "w() {{ set -- $(cat {data}/stat); echo $7; }}; x=$(w); \
         dd if=/dev/zero of={} bs=4096 count=1 oflag=direct 2>/dev/null; y=$(w); echo $((y - x))",
        sim.device("data")
    );
    assert_eq!(read(&moved), "8");
    assert_eq!(read("ls -d $EBS_SIM_DIR/host/pool 2>/dev/null || echo hidden"), "hidden");
    assert_eq!(sim.exec("exit 7").status.code(), Some(7));
    assert_eq!(sim.exec("kill -9 $$").status.signal(), Some(9));
    assert!(std::path::Path::new("/sys/block").join(&name).exists(), "the host's /sys is untouched");
}

#[test]
fn imds_wants_a_token_and_connections_stay_open() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let address = sim.ready["imds"].as_str().expect("a URL").replace("http://", "");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    let put = "PUT /latest/api/token";
    let get = "GET /latest/meta-data/instance-id";
    assert_eq!(http(&mut stream, get, &[]).0, 401);
    assert_eq!(http(&mut stream, get, &[("x-aws-ec2-metadata-token", "guess")]).0, 401);
    assert_eq!(http(&mut stream, put, &[]).0, 400);
    assert_eq!(http(&mut stream, put, &[(ttl, "0")]).0, 400);
    assert_eq!(http(&mut stream, put, &[(ttl, "21601")]).0, 400);
    assert_eq!(http(&mut stream, put, &[(ttl, "60"), ("x-forwarded-for", "10.0.0.1")]).0, 403);
    let (status, head, token) = http(&mut stream, put, &[(ttl, "60")]);
    assert_eq!((status, head.contains(&format!("{ttl}: 60"))), (200, true), "{head}");
    let header = [("x-aws-ec2-metadata-token", token.as_str())];
    let (status, _, id) = http(&mut stream, get, &header);
    assert_eq!((status, id.as_str()), (200, sim.ready["instance_id"].as_str().expect("an id")));
    assert_eq!(http(&mut stream, "GET /latest/meta-data/nothing", &header).0, 404);

    let connections: Vec<_> = sim.requests("imds:Get").iter().map(|e| e["connection"].clone()).collect();
    assert_eq!(connections.len(), 4);
    assert!(connections.iter().all(|connection| *connection == connections[0]));
}

#[test]
fn faults_strike_before_or_after_the_commit() {
    needs_root();
    let many = QUICK.replace("[limits]\n", "[limits]\npending_per_volume = 0\n");
    let sim = Sim::start(&many, &["name=a,size=16MiB"]);
    let target = format!("VolumeId={}", sim.id("a"));
    let create = || sim.command(&["call", "CreateSnapshot", &target]);
    let add = |kind: &str| {
        let before = ["faults", "add", "--action", "CreateSnapshot", "--call", "1", "--kind", kind];
        sim.ok(&[&before[..], &["--delay", "300ms", "--code", "RequestLimitExceeded", "--status", "503"]]
            .concat());
    };
    let count = || values(&sim.ok(&["call", "DescribeSnapshots"]), "snapshotId").len();

    for (kind, made, outcome) in [
        ("error", 0, "RequestLimitExceeded"),
        ("error-after", 1, "RequestLimitExceeded"),
        ("drop-before", 0, "drop"),
        ("drop-after", 1, "drop"),
        ("http-500", 0, "http-503"),
        ("malformed", 1, "ok"),
        ("delay-before", 1, "ok"),
        ("delay-after", 1, "ok"),
    ] {
        let before = count();
        add(kind);
        let answered = create();
        assert_eq!(count() - before, made, "{kind}");
        let entry = sim.requests("CreateSnapshot").pop().expect("an entry");
        assert_eq!((&entry["outcome"], &entry["faults"][0]), (&outcome.into(), &kind.into()));
        assert_eq!(answered.status.success(), outcome == "ok", "{kind}");
        let nanos = |field: &str| entry[field].as_u64().unwrap_or_default();
        if kind == "delay-before" {
            assert!(nanos("clone_started_ns") - nanos("started_ns") > 300_000_000);
        }
        if kind == "delay-after" {
            assert!(nanos("answered_ns") - nanos("point_in_time_ns") > 300_000_000);
        }
    }
    let dry = sim.command(&["call", "CreateSnapshot", &target, "DryRun=true"]);
    assert!(String::from_utf8_lossy(&dry.stdout).contains("DryRunOperation"));
}

#[test]
fn the_end_leaves_nothing() {
    needs_root();
    let mut sim = two_filesystems();
    let set = sim.create_snapshots();
    sim.snapshot_device(&set[0]);
    assert_eq!(loops_under(&sim.dir()).len(), 4, "two volumes, the image, a copy");
    let (code, stderr) = sim.end(Signal::SIGTERM);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(loops_under(&sim.dir()), [""; 0]);
    assert!(!sim.dir().exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(sim.dir().to_str().expect("UTF-8")));
}

#[test]
fn what_the_user_still_mounts_is_named_and_goes_later() {
    needs_root();
    let mut sim = two_filesystems();
    let mount = Mount::new(&sim, "mine", &sim.device("a"), "rw");
    let (code, stderr) = sim.end(Signal::SIGINT);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(mount.path().to_str().expect("UTF-8")), "{stderr}");
    std::fs::write(mount.path().join("still"), "works").expect("the mount works");
    let device = std::path::Path::new("/sys/block").join(sim.device("a").replace("/dev/", ""));
    let shown = || std::fs::read_to_string(device.join("loop/backing_file")).ok();
    let pool = shown();
    assert!(pool.is_some(), "the negative control");
    drop(mount);
    // Its number may be another test's by then.
    wait_for("the end of the loop device", || shown() != pool);
}

#[test]
fn stop_cleans_up_after_a_killed_one() {
    needs_root();
    let mut sim = two_filesystems();
    sim.end(Signal::SIGKILL);
    assert_eq!(loops_under(&sim.dir()).len(), 3, "the negative control");
    sim.ok(&["stop"]);
    assert_eq!(loops_under(&sim.dir()), [""; 0]);
    assert!(!sim.dir().join("ebs-sim.json").exists());
    assert!(!sim.dir().join("host.img").exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(sim.dir().to_str().expect("UTF-8")), "the view is unmounted too");
}

#[test]
fn run_has_imds_at_its_real_address() {
    needs_root();
    let script = format!("{EBS_SIM} call DescribeInstances | grep -o '<instanceId>[^<]*' && env && exit 5",);
    let output = Command::new(EBS_SIM)
        .args(["run", "--volume", "name=a,size=16MiB", "--", "sh", "-c", &script])
        .output()
        .expect("ebs-sim can be run");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("<instanceId>i-") && stdout.contains("AWS_ENDPOINT_URL_EC2=http://127.0.0.1:"));
    assert!(!stdout.contains("AWS_EC2_METADATA_SERVICE_ENDPOINT"));
    let dir = stdout.lines().find_map(|line| line.strip_prefix("EBS_SIM_DIR=")).expect("a folder");
    assert!(!std::path::Path::new(dir).exists());

    let probe =
        "exec 3<>/dev/tcp/169.254.169.254/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3";
    let output = Command::new(EBS_SIM)
        .args(["run", "--volume", "name=a,size=16MiB", "--", "bash", "-c", probe])
        .output()
        .expect("ebs-sim can be run");
    assert!(String::from_utf8_lossy(&output.stdout).contains(" 401 "));
}

#[test]
fn a_wrong_scenario_is_refused_before_anything_is_made() {
    let temp = tempfile::TempDir::new().expect("a folder");
    let file = temp.path().join("s.toml");
    std::fs::write(&file, "[instance]\ncolour = 'red'\n").expect("a file");
    let output = Command::new(EBS_SIM)
        .args(["serve", "--volume", "name=a,size=16MiB", "--dir"])
        .arg(temp.path().join("sim"))
        .arg("--scenario")
        .arg(&file)
        .output()
        .expect("ebs-sim can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr.contains("s.toml:2: unknown field `colour`") && stderr.contains("\nhint: "), "{stderr}");
    assert!(!temp.path().join("sim").exists());
}
