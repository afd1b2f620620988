//! A control group of a test's own: in the hierarchy of version 2, or in one of version 1.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Rig;

/// The hierarchies that there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 2.
    Unified,
    /// Version 1, with this controller.
    Legacy(&'static str),
}

impl Hierarchy {
    /// Is it there? If not, that is said, loudly.
    pub fn is_mounted(self) -> bool {
        let is = self.mounted().is_some();
        if !is {
            eprintln!("\n*** NOT TESTED: no hierarchy of control groups {self:?} is mounted ***\n");
        }
        is
    }

    /// Where it is mounted.
    fn mounted(self) -> Option<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let place = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let is = match self {
                Self::Unified => fields[2] == "cgroup2",
                Self::Legacy(controller) => {
                    fields[2] == "cgroup" && fields[3].split(',').any(|o| o == controller)
                }
            };
            is.then(|| PathBuf::from(fields[1]))
        };
        mounts.lines().find_map(place)
    }
}

/// The group. What is left in it at the end is killed.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// A new one. None where there is no such hierarchy: then it is said, loudly.
    pub fn new(rig: &Rig, hierarchy: Hierarchy) -> Option<Self> {
        if !hierarchy.is_mounted() {
            return None;
        }
        let mounted = hierarchy.mounted()?;
        let name = rig.path("").file_name().unwrap().to_str().unwrap().to_owned();
        let path = mounted.join(name);
        std::fs::create_dir(&path).unwrap();
        Some(Self { path })
    }

    /// The command, in this group from its first instruction on.
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.path);
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        inside
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one of its files. False where the kernel has no such file.
    pub fn set(&self, file: &str, value: &str) -> bool {
        let path = self.path.join(file);
        if !path.exists() {
            eprintln!("\n*** NOT TESTED: this kernel's control groups have no {file} ***\n");
            return false;
        }
        std::fs::write(path, value).unwrap();
        true
    }

    /// Is every process in it frozen (cgroup.events)?
    pub fn is_frozen(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|l| l == "frozen 1")
    }

    /// The processes in it.
    pub fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let thaw = |file: &str, value: &str| {
            let path = self.path.join(file);
            let _ = path.exists().then(|| std::fs::write(path, value));
        };
        thaw("cgroup.freeze", "0");
        thaw("freezer.state", "THAWED");
        thaw("cpu.cfs_quota_us", "-1");
        for _ in 0..200 {
            for pid in self.processes() {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
