//! A real systemd with units of its own: a user manager in a mount namespace and a control group of its own.
//! It reads no unit and no generator of the host, sees the host's files read-only, and has /run and /tmp to
//! itself.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{put_executable, put_host_program};
use crate::{Rig, sh};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Becomes the manager. $1 is its folder, $2 its control group, $3 where the root of those is mounted: its
/// own mount covers that, and a watchdog has to find its way out as on a host.
const MANAGER: &str = r#"
set -e
mkdir "$1/groups"
mount --bind "$3" "$1/groups"
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mount -o remount,bind,ro /
exec env -i PATH=/usr/bin:/bin HOME="$1" XDG_RUNTIME_DIR="$1/xdg" SYSTEMD_UNIT_PATH="$1/units" \
    SYSTEMD_GENERATOR_PATH="$1/none" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$1/none" SYSTEMD_LOG_TARGET=console-prefixed \
    /lib/systemd/systemd --user --unit=base.target
"#;

/// A running manager.
pub struct Manager {
    child: Child,
    group: PathBuf,
    folder: PathBuf,
}

impl Manager {
    /// Units by name and text. None where it cannot run: then it is said, loudly.
    pub fn start(rig: &Rig, units: &[(&str, String)]) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("\n*** NOT TESTED with a real systemd: {why} ***\n");
            None
        };
        let Some(cgroups) = cgroups() else { return skipped("no cgroup2 is mounted") };
        if !Path::new(SYSTEMD).exists() || !Path::new("/usr/bin/dbus-daemon").exists() {
            return skipped("systemd and dbus-daemon are needed (packages `systemd`, `dbus`)");
        }
        let folder = rig.path("systemd");
        for name in ["units", "none", "xdg", "bin"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let put = |name: &str, text: &str| std::fs::write(folder.join("units").join(name), text).unwrap();
        for target in ["basic", "sysinit", "shutdown", "sockets"] {
            put(&format!("{target}.target"), "[Unit]\nDefaultDependencies=no\n");
        }
        // `systemctl freeze` goes over the bus.
        put("base.target", "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\n");
        put("dbus.socket", "[Socket]\nListenStream=%t/bus\n");
        put(
            "dbus.service",
            "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dbus-daemon --session \
             --address=systemd: --nofork --nopidfile --systemd-activation\n",
        );
        units.iter().for_each(|(name, text)| put(name, text));
        let group = cgroups.join(format!("stillpoint-test-{}-{}", std::process::id(), rig.id("a")));
        std::fs::create_dir(&group).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let enter = "echo $$ > \"$2/cgroup.procs\"; exec unshare --cgroup --mount sh -c \"$0\" sh \"$@\"";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", enter, MANAGER]).args([&folder, &group, &cgroups]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let manager = Self { child: command.spawn().unwrap(), group, folder };
        let script = format!(
            "#!/bin/sh\nXDG_RUNTIME_DIR={0}/xdg DBUS_SESSION_BUS_ADDRESS=unix:path={0}/xdg/bus exec \
             /usr/bin/systemctl --user \"$@\"\n",
            manager.folder.display()
        );
        let systemctl = manager.folder.join("bin/systemctl");
        put_executable(&systemctl, &script);
        put_host_program("systemctl", script);
        let end = Instant::now() + Duration::from_secs(30);
        while manager.state("dbus.service", "ActiveState") != "active" {
            if Instant::now() > end {
                return skipped(&std::fs::read_to_string(manager.folder.join("log")).unwrap());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(manager)
    }

    /// A systemctl command that must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        sh(self.folder.join("bin/systemctl").to_str().unwrap(), arguments)
    }

    /// Where its units keep their state: `StateDirectory=` is made below it (systemd.exec(5); before version
    /// 254 of a user manager it is where the configuration is).
    pub fn keep_state_on(&self, folder: &Path) {
        std::fs::create_dir_all(self.folder.join(".local")).unwrap();
        for name in [".config", ".local/state"] {
            std::os::unix::fs::symlink(folder, self.folder.join(name)).unwrap();
        }
    }

    /// Adds a file to its units: a unit, or a drop-in.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.folder.join("units").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The control group of a unit that runs.
    pub fn group_of(&self, unit: &str) -> PathBuf {
        let group = self.state(unit, "ControlGroup");
        // It is shown as the manager sees it, whose own group is the root.
        self.group.join(group.trim_start_matches('/'))
    }

    /// A property of a unit.
    pub fn state(&self, unit: &str, property: &str) -> String {
        let mut command = Command::new(self.folder.join("bin/systemctl"));
        let output = command.args(["show", "--value", "--property", property, unit]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::write(self.group.join("cgroup.kill"), "1");
        let _ = self.child.kill();
        let _ = self.child.wait();
        for _ in 0..100 {
            let find = ["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"];
            let gone = Command::new("find").arg(&self.group).args(find).stderr(Stdio::null()).status();
            if gone.is_ok_and(|s| s.success()) || !self.group.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn cgroups() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let place = |line: &str| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    };
    mounts.lines().find_map(place)
}
