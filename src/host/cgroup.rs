//! The control groups of a process.
//!
//! In: `/proc/PID/cgroup` below a root (cgroups(7)). Out: [`Cgroups`]: its unit, and whether it is within a
//! group. [`leave`] is the way out of them, [`room`] what they leave of memory. Must never: take a controller's group for a unit of systemd's.

mod memory;
mod root;

pub(crate) use self::memory::{Room, room};
pub(crate) use self::root::leave;
use std::io;
use std::path::Path;

/// The groups that a process is in, one a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cgroups {
    text: String,
}

impl Cgroups {
    /// Of a process by its name in `/proc`: its id, or `self`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(root: &Path, process: &str) -> io::Result<Self> {
        Ok(Self { text: std::fs::read_to_string(root.join("proc").join(process).join("cgroup"))? })
    }

    /// The system's unit: the first service or scope in its path, in systemd's own hierarchy or the unified
    /// one.
    pub fn unit(&self) -> Option<&str> {
        let is_unit = |group: &&str| group.ends_with(".service") || group.ends_with(".scope");
        let systemd = self.hierarchies().filter(|(by, _)| matches!(*by, "" | "name=systemd"));
        systemd.filter_map(|(_, path)| path.split('/').find(is_unit)).next()
    }

    /// Is it in a group of this name, or in one below it, in any hierarchy?
    pub fn is_within(&self, group: &str) -> bool {
        self.hierarchies().any(|(_, path)| path.split('/').any(|g| g == group))
    }

    /// What each hierarchy is for (controllers, a name, or nothing for the unified one), and the path in it.
    fn hierarchies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Cgroups {
        Cgroups { text: format!("3:cpu:/no.service\n1:name=systemd:/\n0::{path}\n") }
    }

    #[test]
    fn a_unit_is_the_first_service_or_scope() {
        let instance = of("/system.slice/system-postgresql.slice/postgresql@14-main.service");
        assert_eq!(instance.unit(), Some("postgresql@14-main.service"));
        assert_eq!(of("/user.slice/user-0.slice/session-1.scope").unit(), Some("session-1.scope"));
        assert_eq!(of("/").unit(), None);
    }

    #[test]
    fn a_group_is_told_by_its_whole_name_in_any_hierarchy() {
        let groups = of("/system.slice/web.service/worker");
        for group in ["system.slice", "web.service", "worker", "no.service"] {
            assert!(groups.is_within(group), "{group}");
        }
        for other in ["web", "b.service", "web.service/worker", "cpu"] {
            assert!(!groups.is_within(other), "{other}");
        }
    }

    #[test]
    fn this_process_is_in_some_group_and_one_that_is_gone_in_none() {
        let root = Path::new("/");
        assert!(Cgroups::read(root, "self").unwrap().hierarchies().next().is_some());
        assert!(Cgroups::read(tempfile::tempdir().unwrap().path(), "7").is_err());
    }
}
