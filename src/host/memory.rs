//! The memory of this host.
//!
//! In: /proc/meminfo below a root. Out: bytes. Must never: take what it could not read for plenty.

use std::io;
use std::path::Path;

/// What can be had without swapping, in bytes (proc(5), `MemAvailable`).
///
/// # Errors
/// When it cannot be read.
pub(crate) fn available(root: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo"))?;
    let kib = text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
    kib.and_then(|kib| kib.checked_mul(1024)).ok_or_else(|| io::Error::other("it has no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let said = |text: &str| {
            std::fs::write(root.path().join("proc/meminfo"), text).unwrap();
            available(root.path())
        };
        assert_eq!(said("MemTotal:       9 kB\nMemAvailable:    2048 kB\n").unwrap(), 2 << 20);
        assert!(said("MemTotal:       9 kB\n").is_err() && said("MemAvailable: much\n").is_err());
    }
}
