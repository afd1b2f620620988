//! Volumes that come and go over real loop devices.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::ec2::{
    LIVELY, arg, attach, call, code, completed, create, detach, device, states, wait_for_states,
};
use crate::support::{EBS_SIM, Mount, Sim, loops_under, needs_root, sh, values, wait_for};

/// What is on the way can be seen even where a process that looks takes a second or two to start.
fn unhurried() -> String {
    LIVELY.replace("= 0.3", "= 3.0")
}

/// A shell in the view that runs one line after the other.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn start(sim: &Sim) -> Self {
        let mut child = Command::new(EBS_SIM)
            .args(["exec", "--", "sh"])
            .env("EBS_SIM_DIR", sim.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, stdout }
    }

    /// Runs a line, and gives what it printed and its status.
    fn run(&mut self, line: &str) -> (String, i32) {
        writeln!(self.stdin, "{{ {line}\n}} 2>&1; printf '\\n=end %s\\n' $?").expect("it is sent");
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).expect("it is read") > 0, "the shell ended: {printed}");
            if let Some(status) = line.strip_prefix("=end ") {
                return (printed.trim_end().to_owned(), status.trim().parse().expect("a status"));
            }
            printed.push_str(&line);
        }
    }

    fn ok(&mut self, line: &str) -> String {
        let (printed, status) = self.run(line);
        assert_eq!(status, 0, "{line}: {printed}");
        printed
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_volume_made_from_a_snapshot_comes_and_goes_while_a_command_runs() {
    needs_root();
    let volumes = ["name=root,size=16MiB,boot", "name=a,size=64MiB", "name=b,size=16MiB"];
    let sim = Sim::start(&unhurried(), &volumes);
    sh("mkfs.ext4", &["-q", "-F", &sim.device("a")]);
    let mount = Mount::new(&sim, "a", &sim.device("a"), "rw");
    std::fs::write(mount.path().join("file"), "from the snapshot").expect("a file");
    sh("sync", &["-f", mount.path().to_str().expect("UTF-8")]);
    let snapshot = sim.create_snapshot("a");
    std::fs::write(mount.path().join("file"), "changed since").expect("a file");
    completed(&sim, &snapshot);
    let mut shell = Shell::start(&sim);
    let before = shell.ok("ls /sys/class/block | grep nvme");
    assert_eq!(before, "nvme0n1\nnvme1n1\nnvme2n1");

    let volume = create(&sim, &[&arg("SnapshotId", &snapshot), "VolumeType=gp3"]);
    assert_eq!(device(&sim, &volume), None);
    let shown =
        call(&sim, &["DescribeVolumes", "Filter.1.Name=snapshot-id", &arg("Filter.1.Value.1", &snapshot)]);
    assert_eq!(values(&shown, "volumeId"), [volume.as_str()]);
    assert_eq!(values(&attach(&sim, &volume, "/dev/sdx"), "status"), ["attaching"]);
    assert_eq!(states(&sim, &volume), ["in-use", "attaching"]);
    assert_eq!(shell.ok("ls /sys/class/block | grep nvme"), before);
    wait_for_states(&sim, &volume, &["in-use", "attached"]);

    // At once: who reads `attached` finds the device.
    let disk = "/sys/class/block/nvme3n1";
    assert_eq!(shell.ok(&format!("cat {disk}/device/serial")), volume.replace('-', ""));
    assert_eq!(shell.ok(&format!("cat {disk}/device/model")), "Amazon Elastic Block Store");
    assert_eq!(
        shell.ok(&format!("readlink -f /sys/dev/block/$(cat {disk}/dev)")),
        shell.ok(&format!("readlink -f {disk}"))
    );
    let node = device(&sim, &volume).expect("a device");
    assert_eq!(shell.ok(&format!("cat {disk}/size")), "131072");
    let there = sim.temp.path().join("there");
    let there = there.to_str().expect("UTF-8");
    shell.ok(&format!("mkdir {there} && mount {node} {there} && cat {there}/file && echo"));
    assert_eq!(shell.ok(&format!("cat {there}/file")), "from the snapshot");
    shell.ok(&format!("echo written > {there}/file && sync -f {there}"));
    assert_eq!(std::fs::read_to_string(mount.path().join("file")).expect("a file"), "changed since");
    assert!(call(&sim, &["DescribeInstances"]).contains(&volume));

    let filtered = |action: &str, name: &str, value: &str| {
        call(&sim, &[action, &arg("Filter.1.Name", name), &arg("Filter.1.Value.1", value)])
    };
    assert_eq!(values(&filtered("DescribeVolumes", "attachment.status", "busy"), "createTime").len(), 0);

    // As long as it is mounted, it does not go.
    assert_eq!(values(&detach(&sim, &volume), "status"), ["detaching"]);
    wait_for_states(&sim, &volume, &["in-use", "busy"]);
    assert_eq!(values(&detach(&sim, &volume), "status"), ["busy"]);
    assert_eq!(values(&filtered("DescribeVolumes", "attachment.status", "busy"), "createTime").len(), 1);
    assert!(filtered("DescribeInstances", "block-device-mapping.status", "detaching").contains(&volume));
    let answer = sim.command(&["call", "DescribeVolumes", "Filter.1.Name=colour", "Filter.1.Value.1=red"]);
    assert!(!answer.status.success());
    assert_eq!(shell.ok(&format!("cat {there}/file")), "written");
    assert_eq!(code(&call(&sim, &["DeleteVolume", &arg("VolumeId", &volume)])), "VolumeInUse");
    shell.ok(&format!("umount {there}"));
    wait_for_states(&sim, &volume, &["available"]);
    assert_eq!(shell.ok("ls /sys/class/block | grep nvme"), before);
    assert_ne!(shell.run(&format!("ls {disk}")).1, 0);
    assert_eq!(device(&sim, &volume), None);
    assert!(!call(&sim, &["DescribeInstances"]).contains(&volume));

    // What was written stays, and the number is free again.
    attach(&sim, &volume, "xvdy");
    wait_for_states(&sim, &volume, &["in-use", "attached"]);
    let node = device(&sim, &volume).expect("a device");
    let again = Mount::new(&sim, "again", &node, "ro");
    assert_eq!(std::fs::read_to_string(again.path().join("file")).expect("a file"), "written\n");
    drop(again);
    assert_eq!(shell.ok(&format!("cat {disk}/device/serial")), volume.replace('-', ""));
    detach(&sim, &volume);
    wait_for_states(&sim, &volume, &["available"]);
    call(&sim, &["DeleteVolume", &arg("VolumeId", &volume)]);
    wait_for("the end of the volume", || {
        code(&call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &volume)])) == "InvalidVolume.NotFound"
    });
}

#[test]
fn space_of_a_deleted_volume_is_used_again_and_is_empty() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=a,size=16MiB", "name=b,size=16MiB"]);
    let read =
        |node: &str| Command::new("cmp").args(["-n", "16777216", node, "/dev/zero"]).status().expect("cmp");
    sh(
        "dd",
        &["if=/dev/urandom", &arg("of", &sim.device("a")), "bs=1M", "count=16", "conv=fsync", "status=none"],
    );
    assert!(!read(&sim.device("a")).success(), "the negative control");
    let snapshot = sim.create_snapshot("b");
    completed(&sim, &snapshot);
    let pool = sim.dir().join("host/pool");
    let blocks = || {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(&pool).expect("the pool").blocks() * 512
    };
    assert!(blocks() >= 16 << 20);

    detach(&sim, &sim.id("a"));
    wait_for_states(&sim, &sim.id("a"), &["available"]);
    call(&sim, &["DeleteVolume", &arg("VolumeId", &sim.id("a"))]);
    wait_for("the space", || blocks() < 16 << 20);
    // As large as the gap, so it goes there.
    let volume = create(&sim, &[&arg("SnapshotId", &snapshot)]);
    assert_eq!(std::fs::metadata(&pool).expect("the pool").len(), 32 << 20, "the pool has not grown");
    attach(&sim, &volume, "/dev/sdf");
    wait_for_states(&sim, &volume, &["in-use", "attached"]);
    assert!(read(&device(&sim, &volume).expect("a device")).success());
    // A larger one makes the pool grow, and a set over both is taken.
    let large = create(&sim, &["Size=2", "VolumeType=gp3"]);
    attach(&sim, &large, "/dev/sdh");
    wait_for_states(&sim, &large, &["in-use", "attached"]);
    assert_eq!(
        sh("blockdev", &["--getsize64", &device(&sim, &large).expect("a device")]),
        (2u64 << 30).to_string()
    );
    assert_eq!(sim.create_snapshots().len(), 3);
}

#[test]
fn wrong_requests_are_refused_as_ec2_does() {
    needs_root();
    let sim = Sim::start(
        &unhurried().replace("complete = 0.1", "complete = 5.0"),
        &["name=root,size=16MiB,boot", "name=a,size=2048MiB", "name=spare,size=16MiB,detached"],
    );
    let snapshot = sim.create_snapshot("a");
    let zone = "AvailabilityZone=us-east-1a";
    let from = arg("SnapshotId", &snapshot);
    let make = |arguments: &[&str]| code(&call(&sim, &[&["CreateVolume"], arguments].concat()));
    assert_eq!(make(&[zone, &from]), "IncorrectState", "it is pending");
    completed(&sim, &snapshot);
    for (arguments, expected) in [
        (vec![zone], "MissingParameter"),
        (vec!["Size=1"], "MissingParameter"),
        (vec![zone, "AvailabilityZoneId=use1-az1", "Size=1"], "InvalidParameterCombination"),
        (vec!["AvailabilityZone=us-east-1d", "Size=1"], "InvalidZone.NotFound"),
        (vec!["AvailabilityZoneId=usw2-az1", "Size=1"], "InvalidZone.NotFound"),
        (vec![zone, "Size=1", &from, "DryRun=true"], "DryRunOperation"),
        (vec![zone, "SnapshotId=snap-0123456789abcdef0"], "InvalidSnapshot.NotFound"),
        (vec![zone, "SnapshotId=snap-x"], "InvalidSnapshotID.Malformed"),
        (vec![zone, "Size=4", "VolumeType=io2"], "InvalidParameterCombination"),
        (vec![zone, "Size=4", "VolumeType=io2", "Iops=1"], "InvalidParameterValue"),
        (vec![zone, "Size=1", "Iops=3000"], "InvalidParameterCombination"),
        (vec![zone, "Size=1", "VolumeType=io1", "Iops=100", "Throughput=125"], "InvalidParameterCombination"),
        (vec![zone, "Size=1", "VolumeType=st1"], "InvalidParameterValue"),
        (vec![zone, "Size=1", "VolumeType=tape"], "UnknownVolumeType"),
        (vec![zone, "Size=1", "KmsKeyId=alias/a"], "InvalidParameterDependency"),
        (vec![zone, "Size=1", "Colour=red"], "UnknownParameter"),
        (vec![zone, "Size=1", "DryRun=true"], "DryRunOperation"),
    ] {
        assert_eq!(make(&arguments), expected, "{arguments:?}");
    }
    let all = call(&sim, &["DescribeVolumes"]);
    assert_eq!(values(&all, "createTime").len(), 3, "none was made");
    let small = call(&sim, &["CreateVolume", zone, "Size=1", &from]);
    assert_eq!(values(&small, "size"), ["2"], "a size below the snapshot's is raised without a word");
    let small = values(&small, "volumeId").remove(0);
    wait_for("its end", || {
        call(&sim, &["DeleteVolume", &arg("VolumeId", &small)]);
        code(&call(&sim, &["DescribeVolumes", &arg("VolumeId.1", &small)])) == "InvalidVolume.NotFound"
    });

    // One token, one volume.
    let request = [
        zone,
        "Size=1",
        "ClientToken=once",
        "TagSpecification.1.ResourceType=volume",
        "TagSpecification.1.Tag.1.Key=Name",
        "TagSpecification.1.Tag.1.Value=new",
    ];
    let first = call(&sim, &[&["CreateVolume"], &request[..]].concat());
    let second = call(&sim, &[&["CreateVolume"], &request[..]].concat());
    assert_eq!(values(&first, "volumeId"), values(&second, "volumeId"));
    assert_eq!(values(&first, "value"), ["new"]);
    assert_eq!(make(&[zone, "Size=2", "ClientToken=once"]), "IdempotentParameterMismatch");
    let volume = values(&first, "volumeId").remove(0);
    wait_for_states(&sim, &volume, &["available"]);

    let elsewhere = call(&sim, &["CreateVolume", "AvailabilityZone=us-east-1b", "Size=1", "Encrypted=true"]);
    assert!(elsewhere.contains("<encrypted>true</encrypted><kmsKeyId>arn:aws:kms:us-east-1:"), "{elsewhere}");
    let elsewhere = values(&elsewhere, "volumeId").remove(0);
    assert_eq!(code(&attach(&sim, &elsewhere, "/dev/sdx")), "IncorrectState", "it is creating");
    assert_eq!(code(&call(&sim, &["DeleteVolume", &arg("VolumeId", &elsewhere)])), "IncorrectState");
    wait_for_states(&sim, &elsewhere, &["available"]);
    let root_device = "/dev/sda";
    for (id, name, expected) in [
        (elsewhere.as_str(), "/dev/sdx", "InvalidVolume.ZoneMismatch"),
        ("vol-0123456789abcdef0", "/dev/sdx", "InvalidVolume.NotFound"),
        ("vol-x", "/dev/sdx", "InvalidVolumeID.Malformed"),
        (&volume, "/dev/nvme9n1", "InvalidParameterValue"),
        (&volume, "xvdf", "InvalidParameterValue"),
        (&volume, root_device, "InvalidParameterValue"),
        (&sim.id("a"), "/dev/sdx", "VolumeInUse"),
    ] {
        assert_eq!(code(&attach(&sim, id, name)), expected, "{id} {name}");
    }
    let other =
        ["AttachVolume", "InstanceId=i-0123456789abcdef0", &arg("VolumeId", &volume), "Device=/dev/sdx"];
    assert_eq!(code(&call(&sim, &other)), "InvalidInstanceID.NotFound");

    assert_eq!(code(&detach(&sim, &volume)), "IncorrectState");
    assert_eq!(code(&detach(&sim, &sim.id("root"))), "OperationNotPermitted");
    let a = arg("VolumeId", &sim.id("a"));
    assert_eq!(code(&call(&sim, &["DetachVolume", &a, "Device=/dev/sdx"])), "InvalidAttachment.NotFound");
    assert_eq!(code(&call(&sim, &["DeleteVolume", &a])), "VolumeInUse");
    assert_eq!(states(&sim, &sim.id("a")), ["in-use", "attached"]);

    // A volume that starts out detached has no device yet.
    let spare = values(
        &call(&sim, &["DescribeVolumes", "Filter.1.Name=status", "Filter.1.Value.1=available"]),
        "volumeId",
    );
    let spare = spare.iter().find(|id| all.contains(*id)).expect("the spare one");
    assert_eq!(device(&sim, spare), None);
    attach(&sim, spare, "/dev/sdz");
    wait_for_states(&sim, spare, &["in-use", "attached"]);
    assert!(device(&sim, spare).is_some());
}

#[test]
fn another_region_has_volumes_of_its_own() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=a,size=16MiB"]);
    // The same server, as somebody in another Region knows it.
    let there = sim.temp.path().join("there");
    std::fs::create_dir(&there).expect("a folder");
    let mut ready = sim.ready.clone();
    ready["region"] = "us-west-2".into();
    std::fs::write(there.join("ebs-sim.json"), ready.to_string()).expect("the file");
    let call_there = |arguments: &[&str]| {
        let output = Command::new(EBS_SIM)
            .arg("call")
            .args(arguments)
            .env("EBS_SIM_DIR", &there)
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let snapshot = sim.create_snapshot("a");
    completed(&sim, &snapshot);
    let make = |zone: &str, rest: &str| call_there(&["CreateVolume", &arg("AvailabilityZone", zone), rest]);
    assert_eq!(code(&make("us-east-1a", "Size=1")), "InvalidZone.NotFound");
    assert_eq!(code(&make("us-west-2a", &arg("SnapshotId", &snapshot))), "InvalidSnapshot.NotFound");
    let made = make("us-west-2b", "Size=1");
    assert_eq!(values(&made, "availabilityZoneId"), ["usw2-az2"]);
    let id = values(&made, "volumeId").remove(0);
    let seen = |xml: &str| values(xml, "createTime").len();
    assert_eq!((seen(&call_there(&["DescribeVolumes"])), seen(&call(&sim, &["DescribeVolumes"]))), (1, 1));
    assert_eq!(code(&attach(&sim, &id, "/dev/sdx")), "InvalidVolume.NotFound");
    let to = arg("InstanceId", sim.ready["instance_id"].as_str().expect("an id"));
    let moved = call_there(&["AttachVolume", &arg("VolumeId", &id), &to, "Device=/dev/sdx"]);
    assert_eq!(code(&moved), "InvalidInstanceID.NotFound");
    assert_eq!(seen(&call_there(&["DescribeInstances"])), 0);
    assert_eq!(
        code(&call_there(&["CreateSnapshot", &arg("VolumeId", &sim.id("a"))])),
        "InvalidVolume.NotFound"
    );
}

#[test]
fn a_detachment_in_the_api_only_leaves_the_device() {
    needs_root();
    let sim = Sim::start(&unhurried(), &["name=a,size=16MiB", "name=b,size=16MiB"]);
    let control = |path: &str| {
        let address = sim.ready["endpoint"].as_str().expect("a URL").replace("http://", "");
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        crate::support::http(&mut stream, &format!("POST /_ebs-sim/{path}"), &[]).0
    };
    let a = sim.id("a");
    assert_eq!(control("volumes/a/detach"), 200);
    assert_eq!(states(&sim, &a), ["available"]);
    assert_eq!(device(&sim, &a), Some(sim.device("a")));
    assert_eq!(control("reset"), 200);
    assert_eq!(states(&sim, &a), ["in-use", "attached"]);
    // Then EC2's own attachment finds it there; and once it has gone, there is nothing to pretend with.
    assert_eq!(control("volumes/a/detach"), 200);
    attach(&sim, &a, "/dev/sdx");
    assert_eq!(control("volumes/a/detach"), 409);
    wait_for_states(&sim, &a, &["in-use", "attached"]);
    assert_eq!(device(&sim, &a), Some(sim.device("a")));
    detach(&sim, &a);
    wait_for_states(&sim, &a, &["available"]);
    assert_eq!(device(&sim, &a), None);
    assert_eq!(control("volumes/a/attach"), 409);
}

#[test]
fn a_partition_that_comes_later_is_in_the_next_view() {
    needs_root();
    let sim = Sim::start(LIVELY, &["name=root,size=16MiB,boot"]);
    let mut shell = Shell::start(&sim);
    assert_ne!(shell.run("ls -d /sys/class/block/nvme0n1p1").1, 0, "the negative control");
    sh("addpart", &[&sim.device("root"), "1", "2048", "4096"]);
    assert!(sim.exec("true").status.success());
    // In the one that was there before, too.
    assert_eq!(
        shell.ok("cat /sys/class/block/nvme0n1p1/size /sys/class/block/nvme0n1p1/partition"),
        "4096\n1"
    );
    sh("delpart", &[&sim.device("root"), "1"]);
    assert!(sim.exec("test ! -e /sys/class/block/nvme0n1p1").status.success());
    assert_ne!(shell.run("ls -d /sys/class/block/nvme0n1p1").1, 0);
}

#[test]
fn the_end_takes_what_was_attached_later() {
    needs_root();
    let mut sim = Sim::start(LIVELY, &["name=a,size=16MiB"]);
    let volume = create(&sim, &["Size=1"]);
    attach(&sim, &volume, "/dev/sdx");
    wait_for_states(&sim, &volume, &["in-use", "attached"]);
    assert_eq!(loops_under(&sim.dir()).len(), 3, "two volumes and the image");
    let (code, stderr) = sim.end(nix::sys::signal::Signal::SIGTERM);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(loops_under(&sim.dir()), [""; 0]);
    assert!(!sim.dir().exists());
}
