//! Who still uses a device.
//!
//! In: device numbers. Out: mount points, in every mount namespace that `/proc` shows. It must never
//! unmount them, but for the store: they are the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A device that could not be detached at once.
#[derive(Debug, Clone)]
pub struct InUse {
    pub device: PathBuf,
    /// Where it is mounted, as far as that can be seen.
    pub users: Vec<String>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is still in use", self.device.display())?;
        if self.users.is_empty() {
            write!(f, " (not mounted: held open, or by another device)")
        } else {
            write!(f, ": {}", self.users.join(", "))
        }
    }
}

/// The mount points of these `major:minor` numbers.
pub fn users_of(numbers: &[String]) -> Vec<String> {
    let mounts = everywhere(numbers).into_iter();
    let users: BTreeSet<String> =
        mounts.map(|(pid, at)| format!("mounted on {at} (seen by process {pid})")).collect();
    users.into_iter().collect()
}

/// Takes the store out of the mount namespaces that somebody made while it was mounted: each has a copy of
/// every mount, which nobody there knows of and which would keep the device.
pub fn recall(numbers: &[String], store: &Path) {
    for (pid, at) in everywhere(numbers) {
        if Path::new(&at) == store {
            let mut command = Command::new("nsenter");
            command.args(["--mount", "--target", &pid.to_string(), "umount", "--lazy"]).arg(store);
            // A namespace that has ended meanwhile has nothing left to take out.
            let _ = super::run(&mut command);
        }
    }
}

/// Where these numbers are mounted, by a process of each mount namespace.
fn everywhere(numbers: &[String]) -> Vec<(u32, String)> {
    let mut namespaces = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        if let Ok(namespace) = std::fs::read_link(entry.path().join("ns/mnt")) {
            namespaces.entry(namespace).or_insert(pid);
        }
    }
    let mut found = Vec::new();
    for pid in namespaces.into_values() {
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        found.extend(mounts_of(&table, numbers).into_iter().map(|at| (pid, at)));
    }
    found
}

fn mounts_of(table: &str, numbers: &[String]) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let number = fields.next()?;
            let mount_point = fields.nth(1)?;
            numbers.iter().any(|wanted| wanted == number).then(|| mount_point.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn mountinfo_is_searched_by_number() {
        let table = "36 35 7:3 / /mnt/a rw shared:1 - ext4 /dev/loop3 rw\n\
                     37 35 254:0 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(super::mounts_of(table, &["7:3".into()]), ["/mnt/a"]);
    }
}
