//! The real program in a simulated EC2, over real filesystems that really freeze.
//!
//! Every rig has a rescue outside of this process, so that a failed test leaves nothing frozen, and none of
//! its commands can make the test hang: what may block on a frozen filesystem is a child, waited for with a
//! bound.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ended, Run, put_executable, wait};
use crate::{Fs, ebs_sim, sh, stillpoint};

/// Ends every configuration: ebs-sim is told to have no such limit, and tests take one set after another.
pub const NO_INTERVAL: &str = "\n[ec2]\nvolume_interval = \"0s\"\nretry_timeout = \"4s\"\n";

/// Seconds until the rescue thaws. No test has a window as long as this.
const RESCUE: &str = "240";
/// A memory filesystem: the program's journal must not be on what a test freezes.
pub const MEMORY: &str = "/dev/shm";
/// What it has to hold at least, in MiB: a filesystem on a volume that cannot grow says only that it cannot
/// write.
const ROOM: u64 = 256;
/// The volume of this name is the root device of the instance. What the test runs on is not.
pub const ROOT: &str = "root";
/// Without EC2's limits of 15 s between two snapshots of a volume and of 100 pending ones, and with snapshots
/// that are soon completed.
const QUICK: &str =
    "[limits]\nper_volume_interval = '0s'\npending_per_account = 0\n[snapshots]\nseconds_to_complete = 0.2\n";

/// A running `ebs-sim serve` and the mounts on its volumes.
pub struct Rig {
    temp: TempDir,
    /// What `ebs-sim` announced.
    pub ready: Value,
    sim: Child,
    mounts: Vec<PathBuf>,
    ext4: bool,
    rescue: Child,
}

impl Rig {
    /// Volumes by name, formatted and mounted at `TEMP/NAME`.
    pub fn start(volumes: &[(&str, Fs)]) -> Self {
        Self::with(volumes, "")
    }

    /// The same with more of a scenario.
    pub fn with(volumes: &[(&str, Fs)], scenario: &str) -> Self {
        let rig = Self::formatted(volumes, scenario);
        for ((name, _), mount) in volumes.iter().zip(&rig.mounts) {
            sh("mount", &[&rig.device(name), mount.to_str().unwrap()]);
        }
        rig
    }

    /// The same with nothing mounted yet; the folders are there.
    pub fn formatted(volumes: &[(&str, Fs)], scenario: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test freezes filesystems on loop devices: run it as root"
        );
        assert!(Path::new("/dev/loop-control").exists(), "this test needs loop devices (/dev/loop-control)");
        let memory = nix::sys::statfs::statfs(MEMORY).unwrap().filesystem_type();
        assert_eq!(memory, nix::sys::statfs::TMPFS_MAGIC, "{MEMORY} has to be a tmpfs");
        let memory = nix::sys::statvfs::statvfs(MEMORY).unwrap();
        let room = memory.blocks() * memory.fragment_size() / (1 << 20);
        assert!(
            room >= ROOM,
            "{MEMORY} has {room} MiB, and the volumes need {ROOM} MiB: in Docker, use --shm-size=2g"
        );
        let temp = tempfile::Builder::new().prefix("stillpoint-test-").tempdir_in(MEMORY).unwrap();
        let file = temp.path().join("scenario.toml");
        std::fs::write(&file, format!("{QUICK}{scenario}")).unwrap();
        std::fs::write(temp.path().join("stillpoint.toml"), NO_INTERVAL).unwrap();
        let mut command = Command::new(ebs_sim());
        command.args(["serve", "--die-with-parent", "--dir"]).arg(temp.path().join("sim"));
        command.arg("--scenario").arg(file);
        for (name, fs) in volumes {
            let boot = if *name == ROOT { ",boot" } else { "" };
            command.arg("--volume").arg(format!("name={name},size={}{boot}", fs.size()));
        }
        let log = std::fs::File::create(temp.path().join("ebs-sim.log")).unwrap();
        let mut sim = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let ready = first_line(&mut sim);
        let Ok(ready) = serde_json::from_str::<Value>(&ready) else {
            panic!("ebs-sim: {}", std::fs::read_to_string(temp.path().join("ebs-sim.log")).unwrap());
        };
        let mounts: Vec<_> = volumes.iter().map(|(name, _)| temp.path().join(name)).collect();
        let rescue = rescue(temp.path(), &mounts);
        let ext4 = volumes.iter().all(|(_, fs)| *fs == Fs::Ext4);
        let rig = Self { temp, ready, sim, mounts, ext4, rescue };
        // All before the first mount: for mkfs.btrfs, loops over one file are one device.
        volumes.iter().for_each(|(name, fs)| fs.make(&rig.device(name)));
        rig.mounts.iter().for_each(|mount| std::fs::create_dir(mount).unwrap());
        rig
    }

    /// A rescue with all its time before it, for a rig that lives through many runs.
    pub fn renew_rescue(&mut self) {
        let fresh = rescue(self.temp.path(), &self.mounts);
        end_group(&mut std::mem::replace(&mut self.rescue, fresh));
    }

    /// A path beside the mounts, in memory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Where a volume is mounted.
    pub fn mount(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(self.mounts.contains(&path), "no mount {name}");
        path
    }

    /// Every mount.
    pub fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// Is every volume ext4?
    pub fn is_ext4(&self) -> bool {
        self.ext4
    }

    fn volume(&self, name: &str, key: &str) -> String {
        let volumes = self.ready["volumes"].as_array().unwrap();
        let found = volumes.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("no volume {name}"));
        found[key].as_str().unwrap().to_owned()
    }

    /// A volume's loop device.
    pub fn device(&self, name: &str) -> String {
        self.volume(name, "loop")
    }

    /// A volume's id.
    pub fn id(&self, name: &str) -> String {
        self.volume(name, "id")
    }

    /// Writes the configuration file that every run is given.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path("stillpoint.toml"), format!("{text}{NO_INTERVAL}")).unwrap();
    }

    /// The program, seeing the volumes as EBS disks: `exec` becomes it, so the child's pid is the agent's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let command = self.exec(Path::new(stillpoint()));
        self.tail(command, arguments)
    }

    /// Another program in the view.
    pub fn exec(&self, program: &Path) -> Command {
        let mut command = Command::new(ebs_sim());
        command.arg("exec").arg("--dir").arg(self.path("sim")).arg("--").arg(program);
        command
    }

    /// The same outside of the view: no EC2, no IMDS, no EBS disks.
    pub fn bare_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("env");
        for name in ["AWS_ENDPOINT_URL_EC2", "AWS_REGION", "AWS_DEFAULT_REGION"] {
            command.arg("-u").arg(name);
        }
        command.arg(stillpoint());
        self.tail(command, arguments)
    }

    /// The program in the mount namespace of this process, which was started in the view.
    pub fn command_in(&self, pid: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{pid}/ns/mnt")).args(["--", stillpoint()]);
        let mut command = self.tail(command, arguments);
        for (name, value) in self.ready["env"].as_object().unwrap() {
            command.env(name, value.as_str().unwrap());
        }
        command
    }

    /// Something else in the view.
    pub fn view(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(ebs_sim());
        command.arg("exec").arg("--dir").arg(self.path("sim")).arg("--").arg(program).args(arguments);
        command
    }

    /// Adds what keeps the program from this host's own folders, and the arguments.
    pub fn tail(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.arg("--config").arg(self.path("stillpoint.toml"));
        command.arg("--run-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        // What starts the tests may be a service; a run of theirs is not.
        command.args(arguments).env_remove("INVOCATION_ID");
        command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        command
    }

    /// Puts a program there that is the real one in the view, with the arguments that it is given.
    pub fn put_program(&self, at: &Path) {
        let plain = self.command(&[]);
        let words = std::iter::once(plain.get_program()).chain(plain.get_args());
        let words: Vec<String> = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect();
        put_executable(at, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
    }

    /// Starts the program in the view.
    pub fn spawn(&self, arguments: &[&str]) -> Run {
        Run::start(self.command(arguments))
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.spawn(arguments).end()
    }

    /// Journals of runs that are not settled.
    pub fn journals(&self) -> Vec<String> {
        let Ok(folder) = std::fs::read_dir(self.path("run/runs")) else { return Vec::new() };
        let names = folder.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|n| n.ends_with(".json")).collect()
    }

    /// True when the rescue had to thaw: then what a test saw means nothing.
    pub fn rescued(&self) -> bool {
        self.path("rescued").exists()
    }
}

fn end_group(leader: &mut Child) {
    let _ = kill(Pid::from_raw(-i32::try_from(leader.id()).unwrap()), Signal::SIGKILL);
    let _ = leader.wait();
}

/// A process of its own, so that it thaws even when this one hangs or is killed.
fn rescue(temp: &Path, mounts: &[PathBuf]) -> Child {
    let script = "sleep \"$1\"; shift; touch \"$1\"; shift; \
                  for i in 1 2 3 4 5; do for m in \"$@\"; do fsfreeze --unfreeze \"$m\"; done; sleep 1; done";
    Command::new("sh")
        .args(["-c", script, "rescue", RESCUE])
        .arg(temp.join("rescued"))
        .args(mounts)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn first_line(child: &mut Child) -> String {
    let mut stdout = child.stdout.take().unwrap();
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

impl Drop for Rig {
    fn drop(&mut self) {
        let bounded = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().ok();
            child.and_then(|mut c| wait(&mut c, Duration::from_secs(5))).is_some_and(|s| s.success())
        };
        for mount in &self.mounts {
            bounded("fsfreeze", &["--unfreeze", mount.to_str().unwrap()]);
        }
        for mount in &self.mounts {
            let mount = mount.to_str().unwrap();
            let end = Instant::now() + Duration::from_secs(2);
            while bounded("mountpoint", &["-q", mount])
                && !bounded("umount", &[mount])
                && Instant::now() < end
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            bounded("umount", &["--lazy", mount]);
        }
        if self.sim.try_wait().is_ok_and(|s| s.is_none()) {
            let _ = kill(Pid::from_raw(i32::try_from(self.sim.id()).unwrap()), Signal::SIGTERM);
            if wait(&mut self.sim, Duration::from_secs(10)).is_none() {
                let _ = self.sim.kill();
            }
        }
        end_group(&mut self.rescue);
    }
}
