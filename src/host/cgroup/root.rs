//! The way out of this process's control groups.
//!
//! In: `/proc/self`. Out: the hierarchies in which this process stays below the root group, and why. Must
//! never: call a group the root one because of its name: in a namespace of control groups every group can
//! look like `/`. The kernel's own files tell: the root group of version 2 has no `cgroup.type`, and that of
//! version 1 alone has a `release_agent`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use super::Cgroups;
use crate::host::mountinfo::{self, MountLine};
use crate::host::process;

/// The first control group namespace, which every kernel has (include/linux/proc_ns.h,
/// `PROC_CGROUP_INIT_INO`).
const FIRST_NAMESPACE: &str = "cgroup:[4026531835]";

/// One hierarchy of control groups, and this process's group in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership<'a> {
    /// Its controllers, `name=…`, or nothing for version 2.
    controllers: &'a str,
    /// The group, as seen from this process's namespace.
    group: &'a str,
}

impl Membership<'_> {
    fn name(&self) -> &str {
        match self.controllers {
            "" => "cgroup2",
            controllers => controllers.trim_start_matches("name="),
        }
    }

    /// Is this a mount of it?
    fn is_of(&self, mount: &MountLine) -> bool {
        if self.controllers.is_empty() {
            return mount.fstype == "cgroup2";
        }
        let options = mount.super_options.to_string_lossy();
        let options: BTreeSet<&str> = options.split(',').collect();
        mount.fstype == "cgroup" && self.controllers.split(',').all(|c| options.contains(c))
    }
}

/// Is this mount of a hierarchy at its root group?
fn is_root(mount: &MountLine) -> bool {
    let has = |file: &str| mount.mount_point.join(file).exists();
    if mount.fstype == "cgroup2" {
        has("cgroup.controllers") && !has("cgroup.type")
    } else {
        has("release_agent")
    }
}

/// Moves this process with all its threads into the root group of each hierarchy. Returns where it stays
/// below, as `HIERARCHY GROUP (WHY)`.
pub(crate) fn leave() -> Vec<String> {
    let root = Path::new("/");
    let Ok(own) = Cgroups::read(root, "self") else {
        return Vec::new(); // a kernel without control groups
    };
    let mounts = mountinfo::read(root, "self").unwrap_or_default().lines;
    let first = process::namespace(root, "self", "cgroup").is_ok_and(|ns| ns == Path::new(FIRST_NAMESPACE));
    let memberships = own.hierarchies().map(|(controllers, group)| Membership { controllers, group });
    memberships.filter_map(|own| leave_one(own, &mounts, first)).collect()
}

fn leave_one(own: Membership<'_>, mounts: &[MountLine], first_namespace: bool) -> Option<String> {
    if first_namespace && own.group == "/" {
        return None;
    }
    let mut why = "its root group is not mounted here".to_owned();
    for mount in mounts.iter().filter(|m| own.is_of(m) && is_root(m)) {
        match enter(&mount.mount_point) {
            Ok(()) => return None,
            Err(e) => why = e.to_string(),
        }
    }
    Some(format!("{} {} ({why})", own.name(), own.group))
}

/// 0 is the process that writes (cgroups(7)). The file is there, or this is no group.
fn enter(group: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_has_the_name_that_people_know_it_by() {
        let name = |controllers| Membership { controllers, group: "/" }.name().to_owned();
        assert_eq!(
            [name(""), name("cpu,cpuacct"), name("name=systemd")],
            ["cgroup2", "cpu,cpuacct", "systemd"]
        );
    }

    fn mount(fstype: &str, options: &str, at: &Path) -> MountLine {
        let line = format!("30 24 0:26 / {} rw shared:9 - {fstype} cgroup rw,{options}\n", at.display());
        mountinfo::parse(line.as_bytes()).lines.remove(0)
    }

    /// Groups by hand: of version 2, a root and one below; of version 1 the same.
    #[test]
    fn a_group_is_the_root_by_the_files_that_the_kernel_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        let group = |name: &str, files: &[&str]| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            files.iter().for_each(|f| std::fs::write(path.join(f), "").unwrap());
            path
        };
        let root2 = mount("cgroup2", "", &group("r2", &["cgroup.controllers", "cgroup.procs"]));
        let below2 =
            mount("cgroup2", "", &group("b2", &["cgroup.controllers", "cgroup.procs", "cgroup.type"]));
        let root1 = mount("cgroup", "freezer", &group("r1", &["release_agent", "cgroup.procs"]));
        let below1 = mount("cgroup", "freezer", &group("b1", &["cgroup.procs"]));
        assert!(is_root(&root2) && is_root(&root1) && !is_root(&below2) && !is_root(&below1));

        let v2 = Membership { controllers: "", group: "/x" };
        let v1 = Membership { controllers: "freezer", group: "/x" };
        assert_eq!(leave_one(v2, &[below2.clone(), root1.clone(), root2], false), None);
        assert_eq!(std::fs::read_to_string(dir.path().join("r2/cgroup.procs")).unwrap(), "0");
        assert_eq!(leave_one(v1, &[below1.clone(), root1], false), None);
        assert_eq!(std::fs::read_to_string(dir.path().join("r1/cgroup.procs")).unwrap(), "0");
        for stays in [leave_one(v2, &[below2], true), leave_one(v1, &[below1], true)] {
            assert!(stays.unwrap().contains("/x (its root group is not mounted here)"));
        }
    }

    /// In a container its own group looks like the root one.
    #[test]
    fn a_slash_is_the_root_in_the_first_namespace_alone() {
        let own = Membership { controllers: "", group: "/" };
        assert_eq!(leave_one(own, &[], true), None);
        assert_eq!(leave_one(own, &[], false).unwrap(), "cgroup2 / (its root group is not mounted here)");
    }

    #[test]
    fn a_hierarchy_is_found_by_all_its_controllers() {
        let at = Path::new("/x");
        let both = Membership { controllers: "cpu,cpuacct", group: "/x" };
        assert!(both.is_of(&mount("cgroup", "cpuacct,cpu", at)));
        assert!(!both.is_of(&mount("cgroup", "cpu", at)) && !both.is_of(&mount("cgroup2", "", at)));
        let named = Membership { controllers: "name=systemd", group: "/x" };
        assert!(named.is_of(&mount("cgroup", "xattr,name=systemd", at)));
    }
}
