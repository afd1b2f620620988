//! How much memory the control groups of this process still allow it.
//!
//! In: `/proc/self/{cgroup,mountinfo}` and the hierarchies that are mounted, below a root. Out: the [`Room`] of the group
//! that leaves the least, this process's own or one above it, in version 2 and in version 1. Must never: take a limit that
//! could not be read for none.
//!
//! A file that is not there is no limit: the root group has none, and neither has a group without the controller. What lies
//! above the mount of a hierarchy (in a container) is not to be seen.

use std::io;
use std::path::{Path, PathBuf};

use super::Cgroups;
use crate::host::mountinfo::{self, MountLine};

/// What a group leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// In bytes: the limit, less what the group uses and could not drop.
    pub bytes: u64,
    /// The group, as `/proc/self/cgroup` and the groups above it name it.
    pub group: PathBuf,
    /// The file with the limit.
    pub file: &'static str,
}

/// The files of a version of control groups (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
struct Files {
    limits: &'static [&'static str],
    usage: &'static str,
    /// The line of `memory.stat` with what is only cached and was not used lately: it is dropped when memory is needed.
    cached: &'static str,
}

/// Above `memory.high` a group is not killed, but held up until next to nothing goes on.
const TWO: Files =
    Files { limits: &["memory.max", "memory.high"], usage: "memory.current", cached: "inactive_file" };
const ONE: Files = Files {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    cached: "total_inactive_file",
};

/// What the groups leave, where any of them has a limit.
///
/// # Errors
/// A file that is there and cannot be read.
pub(crate) fn room(root: &Path) -> io::Result<Option<Room>> {
    let groups = match Cgroups::read(root, "self") {
        // A kernel without control groups.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        groups => groups?,
    };
    let table = mountinfo::read(root, "self")?;
    let mut least: Option<Room> = None;
    for (controllers, group) in groups.hierarchies() {
        let (files, mount) = match controllers {
            "" => (TWO, mount_of(&table.lines, |l| l.fstype == "cgroup2")),
            _ if controllers.split(',').any(|c| c == "memory") => {
                let has_memory = |l: &MountLine| {
                    l.fstype == "cgroup"
                        && l.super_options.to_string_lossy().split(',').any(|o| o == "memory")
                };
                (ONE, mount_of(&table.lines, has_memory))
            }
            _ => continue,
        };
        let Some(mount) = mount else { continue };
        // The mount may be of a group below the root, and then only what is below that is to be seen.
        let Ok(below) = Path::new(group).strip_prefix(&mount.root) else { continue };
        let at = root.join(mount.mount_point.strip_prefix("/").unwrap_or(&mount.mount_point));
        for own in below.ancestors() {
            // A path that ends with nothing would end with a slash, and be told so.
            let group = if own.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(own) };
            for room in files.of(&at.join(own), &group)? {
                if least.as_ref().is_none_or(|l| room.bytes < l.bytes) {
                    least = Some(room);
                }
            }
        }
    }
    Ok(least)
}

fn mount_of(lines: &[MountLine], is_it: impl Fn(&MountLine) -> bool) -> Option<&MountLine> {
    lines.iter().find(|l| is_it(l))
}

impl Files {
    fn of(&self, folder: &Path, group: &Path) -> io::Result<Vec<Room>> {
        let mut rooms = Vec::new();
        for file in self.limits {
            let Some(text) = read(&folder.join(file))? else { continue };
            if text.trim() == "max" {
                continue;
            }
            let limit = number(&text, &folder.join(file))?;
            let usage = folder.join(self.usage);
            let used =
                read(&usage)?.ok_or_else(|| io::Error::other(format!("there is no {}", usage.display())))?;
            let stat = read(&folder.join("memory.stat"))?.unwrap_or_default();
            let cached = stat.lines().find_map(|l| l.strip_prefix(self.cached)?.trim().parse::<u64>().ok());
            let used = number(&used, &usage)?.saturating_sub(cached.unwrap_or_default());
            rooms.push(Room { bytes: limit.saturating_sub(used), group: group.to_owned(), file });
        }
        Ok(rooms)
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::other(format!("{}: {e}", path.display()))),
    }
}

fn number(text: &str, path: &Path) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::other(format!("{} is no number of bytes", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        /// This process is in these groups, and these hierarchies are mounted.
        fn new(groups: &str, mounts: &[&str]) -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.write("proc/self/cgroup", groups);
            host.write("proc/self/mountinfo", &mounts.join("\n"));
            host
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn room(&self) -> Option<(u64, String, &'static str)> {
            let room = room(self.0.path()).unwrap()?;
            Some((room.bytes, room.group.to_string_lossy().into_owned(), room.file))
        }
    }

    const UNIFIED: &str = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";

    #[test]
    fn the_group_that_leaves_the_least_counts_whichever_it_is_of_those_above() {
        let host = Host::new("0::/a.slice/b.service\n", &[UNIFIED]);
        assert_eq!(host.room(), None, "nobody limits anything");
        let own = "sys/fs/cgroup/a.slice/b.service";
        host.write(&format!("{own}/memory.max"), "max\n");
        host.write(&format!("{own}/memory.high"), "max\n");
        assert_eq!(host.room(), None);
        host.write(&format!("{own}/memory.max"), "1000\n");
        host.write(&format!("{own}/memory.current"), "600\n");
        host.write(&format!("{own}/memory.stat"), "anon 300\ninactive_file 200\nactive_file 100\n");
        assert_eq!(host.room(), Some((600, "/a.slice/b.service".into(), "memory.max")));
        // Above it is held up before it is killed.
        host.write(&format!("{own}/memory.high"), "700\n");
        assert_eq!(host.room(), Some((300, "/a.slice/b.service".into(), "memory.high")));
        // The slice is nearly full by others.
        host.write("sys/fs/cgroup/a.slice/memory.max", "5000\n");
        host.write("sys/fs/cgroup/a.slice/memory.current", "4990\n");
        assert_eq!(host.room(), Some((10, "/a.slice".into(), "memory.max")));
        host.write("sys/fs/cgroup/a.slice/memory.current", "6000\n");
        assert_eq!(host.room().unwrap().0, 0, "more than it may");
    }

    #[test]
    fn version_1_and_a_container_have_their_own_places() {
        let legacy = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let other = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        let host = Host::new("4:memory:/a/b\n2:cpu:/x\n0::/\n", &[other, legacy]);
        host.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        host.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
        host.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n");
        host.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "4096\n");
        host.write("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 7\ntotal_inactive_file 1024\n");
        assert_eq!(host.room(), Some((1024, "/a".into(), "memory.limit_in_bytes")));
        // The container's group is what is mounted.
        let mount = "30 20 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let container = Host::new("0::/docker/1/app\n", &[mount]);
        container.write("sys/fs/cgroup/memory.max", "100\n");
        container.write("sys/fs/cgroup/memory.current", "40\n");
        assert_eq!(container.room(), Some((60, "/docker/1".into(), "memory.max")));
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_not_taken_for_no_limit() {
        let host = Host::new("0::/a\n", &[UNIFIED]);
        host.write("sys/fs/cgroup/a/memory.max", "much\n");
        assert!(room(host.0.path()).unwrap_err().to_string().contains("memory.max is no number"));
        host.write("sys/fs/cgroup/a/memory.max", "100\n");
        assert!(room(host.0.path()).unwrap_err().to_string().contains("there is no"), "what it uses");
        std::fs::create_dir(host.0.path().join("sys/fs/cgroup/a/memory.current")).unwrap();
        assert!(room(host.0.path()).is_err());
        let none = tempfile::tempdir().unwrap();
        assert_eq!(room(none.path()).unwrap(), None, "a kernel without control groups");
    }
}
