//! What a verify leaves that is killed: the kernel takes its devices down, but for the mark that nothing is written to
//! them, which the next one to have a device of that number would inherit.
//!
//! In: the run folder, sysfs. Out: loop devices, by name. Must never: touch one that no verify has made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::host::file::{self, Lasts};
use crate::host::loop_device;

/// How the files are named, so that their devices are known for what they are.
pub(super) const NAME: &str = "/stillpoint-verify-";
/// How long a device may be in use after its last user was killed.
const LET_GO: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

fn list(run_dir: &Path) -> PathBuf {
    run_dir.join("verify.devices")
}

/// Notes the devices that a verify has.
///
/// # Errors
/// When the run folder cannot be written to.
pub(super) fn note(run_dir: &Path, names: &[String]) -> std::io::Result<()> {
    file::replace(&list(run_dir), names.join("\n").as_bytes(), 0o600, Lasts::UntilShutdown)
}

fn noted(run_dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(list(run_dir)).unwrap_or_default();
    let is_loop = |name: &&str| {
        name.strip_prefix("loop").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().filter(is_loop).map(str::to_owned).collect()
}

/// Loop devices that verifies have left that died. Whoever asks makes sure that none runs.
#[must_use]
pub fn left(root: &Path, run_dir: &Path) -> Vec<String> {
    let mut left = loop_device::of_files_named(root, NAME);
    left.extend(noted(run_dir).into_iter().filter(|name| loop_device::is_left_protected(root, name)));
    left.sort();
    left.dedup();
    left
}

/// Takes them down, and forgets what was noted.
///
/// # Errors
/// The one that stays, and why.
pub async fn take_down(root: &Path, run_dir: &Path, clock: &dyn Clock) -> Result<(), String> {
    for name in loop_device::of_files_named(root, NAME) {
        // It may be going by itself.
        if let Err(errno) = loop_device::detach(&name) {
            tracing::debug!("{name}: {}", errno.desc());
        }
    }
    end(root, run_dir, NAME, clock).await
}

/// Waits until no device of files with such names is there, and takes away what they leave.
///
/// # Errors
/// The one that stays.
pub(super) async fn end(root: &Path, run_dir: &Path, part: &str, clock: &dyn Clock) -> Result<(), String> {
    let end = clock.elapsed() + LET_GO;
    loop {
        match loop_device::of_files_named(root, part).first() {
            None => break,
            Some(name) if clock.elapsed() >= end => return Err(format!("{name} is still in use")),
            Some(_) => clock.pause(PAUSE).await,
        }
    }
    for name in noted(run_dir).iter().filter(|name| loop_device::is_left_protected(root, name)) {
        loop_device::unprotect(name)
            .map_err(|errno| format!("{name} stays protected from being written to: {}", errno.desc()))?;
    }
    match std::fs::remove_file(list(run_dir)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", list(run_dir).display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_verify_has_made_is_left_of_one() {
        let root = tempfile::tempdir().unwrap();
        let device = |name: &str, ro: &str, file: Option<&str>| {
            let folder = root.path().join("sys/block").join(name);
            std::fs::create_dir_all(folder.join("loop")).unwrap();
            std::fs::write(folder.join("ro"), ro).unwrap();
            file.iter().for_each(|file| std::fs::write(folder.join("loop/backing_file"), file).unwrap());
        };
        device("loop0", "0\n", Some("/stillpoint-verify-0197f3c2-snap-0a\n"));
        device("loop1", "1\n", None);
        device("loop2", "1\n", None);
        device("loop3", "0\n", None);
        device("loop4", "0\n", Some("/srv/stillpoint-verify-0197f3c2-snap-0a\n"));
        device("loop5", "1\n", Some("/srv/of-somebody-else\n"));
        let run_dir = root.path();
        assert_eq!(left(root.path(), run_dir), ["loop0"], "nothing was noted");
        note(run_dir, &["loop1", "loop3", "loop5", "../loop2", "sda"].map(str::to_owned)).unwrap();
        assert_eq!(
            left(root.path(), run_dir),
            ["loop0", "loop1"],
            "loop3 was unprotected by its verify, and somebody else has loop5 by now"
        );
    }
}
