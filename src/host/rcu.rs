//! Is this a host on which RCU grace periods may be expedited for a moment?
//!
//! The kernel itself does that when it suspends (kernel/rcu/tree.c, `rcu_pm_notify`), but on hosts with more
//! than 256 CPUs. Expedited, each grace period interrupts every CPU that is not idle: what is to be left alone
//! is who has asked for CPUs without interruptions.
//!
//! In: /sys below a root. Out: why not, or nothing. Must never: say nothing where it could not look.

use std::io::ErrorKind;
use std::path::Path;

use super::HostError;
use crate::error::chain;

/// As many CPUs as the kernel itself expedites for.
const MOST_CPUS: usize = 256;

/// Why `rcu_expedited` is better not raised on this host; none where it may be.
#[must_use]
pub fn objection(root: &Path) -> Option<String> {
    look(root).unwrap_or_else(|e| Some(chain(&e)))
}

fn look(root: &Path) -> Result<Option<String>, HostError> {
    let word = |path: &str| Ok(read(root, path)?.unwrap_or_default());
    let is_set = |path| Ok::<_, HostError>(word(path)? == "1");
    if read(root, "sys/kernel/rcu_expedited")?.is_none() {
        return Ok(Some("this kernel has no /sys/kernel/rcu_expedited".to_owned()));
    }
    if is_set("sys/kernel/realtime")? {
        return Ok(Some("this is a real-time kernel".to_owned()));
    }
    if is_set("sys/kernel/rcu_normal")? {
        return Ok(Some("/sys/kernel/rcu_normal is set".to_owned()));
    }
    for (path, what) in [
        ("sys/devices/system/cpu/isolated", "isolated"),
        ("sys/fs/cgroup/cpuset.cpus.isolated", "isolated"),
        ("sys/devices/system/cpu/nohz_full", "without ticks (nohz_full)"),
    ] {
        let cpus = word(path)?;
        // An empty mask that was never allocated.
        if !cpus.is_empty() && cpus != "(null)" {
            return Ok(Some(format!("CPUs {cpus} are {what}")));
        }
    }
    let online = word("sys/devices/system/cpu/online")?;
    match count(&online) {
        Some(cpus) if cpus <= MOST_CPUS => Ok(None),
        Some(cpus) => Ok(Some(format!("this host has {cpus} CPUs, more than {MOST_CPUS}"))),
        None => Ok(Some("/sys/devices/system/cpu/online does not say how many CPUs there are".to_owned())),
    }
}

/// The file's text; none where there is no such file.
fn read(root: &Path, path: &str) -> Result<Option<String>, HostError> {
    let at = root.join(path);
    match std::fs::read_to_string(&at) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(HostError::unreadable(&at)(e)),
    }
}

/// How many CPUs are in a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let usual = [
            ("sys/kernel/rcu_expedited", "0"),
            ("sys/kernel/rcu_normal", "0"),
            ("sys/devices/system/cpu/online", "0-1"),
            ("sys/devices/system/cpu/isolated", ""),
            ("sys/devices/system/cpu/nohz_full", "(null)"),
            ("sys/fs/cgroup/cpuset.cpus.isolated", ""),
        ];
        for (path, text) in usual.iter().chain(files) {
            let at = root.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, format!("{text}\n")).unwrap();
        }
        root
    }

    fn with(path: &str, text: &str) -> Option<String> {
        objection(host(&[(path, text)]).path())
    }

    #[test]
    fn it_is_left_alone_for_whoever_wants_quiet_cpus() {
        assert_eq!(objection(host(&[]).path()), None);
        assert_eq!(with("sys/devices/system/cpu/online", "0-255"), None);
        for (path, text, why) in [
            ("sys/kernel/realtime", "1", "this is a real-time kernel"),
            ("sys/kernel/rcu_normal", "1", "/sys/kernel/rcu_normal is set"),
            ("sys/devices/system/cpu/isolated", "2-3", "CPUs 2-3 are isolated"),
            ("sys/fs/cgroup/cpuset.cpus.isolated", "1", "CPUs 1 are isolated"),
            ("sys/devices/system/cpu/nohz_full", "2-7", "CPUs 2-7 are without ticks (nohz_full)"),
            ("sys/devices/system/cpu/online", "0-255,300", "this host has 257 CPUs, more than 256"),
        ] {
            assert_eq!(with(path, text).as_deref(), Some(why));
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_objection() {
        assert!(objection(Path::new("/nowhere")).unwrap().contains("has no /sys/kernel/rcu_expedited"));
        for text in ["", "many", "3-1"] {
            assert!(with("sys/devices/system/cpu/online", text).unwrap().contains("does not say"), "{text}");
        }
        let root = host(&[]);
        std::fs::remove_file(root.path().join("sys/kernel/rcu_normal")).unwrap();
        assert_eq!(objection(root.path()), None, "older kernels have fewer of these files");
        std::fs::create_dir(root.path().join("sys/kernel/rcu_normal")).unwrap();
        assert!(objection(root.path()).unwrap().contains("sys/kernel/rcu_normal"));
    }
}
