//! What a killed ebs-sim left behind, and the files that every one removes at its end.
//!
//! In: a folder. Out: the folder without ebs-sim's files, and without the devices over them. A loop device
//! must never be detached because of its number alone: numbers are reused, so its file must be ours too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::MntFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Error, Host, loops};
use crate::ready::{self, Ready};

/// Takes down what a killed predecessor left in `dir`. The caller holds the folder's lock.
pub fn reclaim(dir: &Path) -> Result<(), Error> {
    if let Ok(ready) = Ready::read(dir) {
        for volume in &ready.volumes {
            let device = &volume.loop_device;
            let ours = loops::backing_file(device)
                .is_some_and(|file| file.trim_end_matches(" (deleted)").ends_with("/pool"));
            if ours && loops::offset(device) == Some(volume.offset) {
                loops::detach(device)?;
            }
        }
    }
    // Whatever else shows a file in our folder.
    for device in loop_devices() {
        if loops::backing_file(&device).is_some_and(|file| Path::new(&file).starts_with(dir.join("host"))) {
            loops::detach(&device)?;
        }
    }
    for mounted in [dir.join("view"), dir.join("host")] {
        if is_mount_point(&mounted) {
            nix::mount::umount2(&mounted, MntFlags::MNT_DETACH).map_err(|errno| Error::Io {
                what: format!("unmount {}", mounted.display()),
                source: errno.into(),
            })?;
        }
    }
    let image = dir.join(super::IMAGE);
    for device in loop_devices() {
        if loops::backing_file(&device).is_some_and(|file| Path::new(&file) == image) {
            loops::detach(&device)?;
        }
    }
    remove_files(dir);
    Ok(())
}

/// `ebs-sim stop`: ends the process that serves from `dir` and waits for its clean-up, or cleans up after
/// one that was killed.
pub fn stop(dir: &Path) -> Result<(), Error> {
    if !dir.is_dir() {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut signalled = false;
    loop {
        match Host::open(dir) {
            // Nobody holds the folder: opening it has cleaned up, closing it removes the rest.
            Ok(host) => {
                drop(host);
                return Ok(());
            }
            Err(Error::Locked(_)) => {}
            Err(error) => return Err(error),
        }
        let pid = Ready::read(dir).map_or(0, |ready| ready.pid);
        if !signalled && let Ok(pid @ 1..) = i32::try_from(pid) {
            // The lock is held, so the process that wrote the file is alive and is the one that is meant.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            signalled = true;
        }
        if Instant::now() > deadline {
            return Err(Error::Unstoppable(pid));
        }
        std::thread::sleep(Duration::from_millis(50));
        if !dir.is_dir() {
            return Ok(());
        }
    }
}

/// Removes ebs-sim's own files, and nothing else. What a saved simulation needs stays.
pub fn remove_files(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(ready::FILE));
    let _ = std::fs::remove_dir(dir.join("view"));
    if dir.join(super::KEPT).exists() {
        return;
    }
    let root = dir.join("host");
    if !is_mount_point(&root) {
        for name in ["pool", ".clone-a", ".clone-b"] {
            let _ = std::fs::remove_file(root.join(name));
        }
        for name in ["snapshots", "devices"] {
            let _ = std::fs::remove_dir_all(root.join(name));
        }
        let _ = std::fs::remove_dir(&root);
    }
    for name in [super::IMAGE, crate::tls::FILE] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

fn loop_devices() -> Vec<PathBuf> {
    std::fs::read_dir("/sys/devices/virtual/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("loop").is_dir())
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}

/// Whether something is mounted here.
pub fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    match path.parent() {
        Some(parent) => path.is_dir() && device(path) != device(parent),
        None => false,
    }
}
