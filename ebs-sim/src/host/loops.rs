//! Loop devices, through `losetup` and what the kernel says about them in `/sys`.
//!
//! In: files and windows. Out: device paths. A device must never be detached that does not show the file
//! it was attached to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Error, InUse, busy, run};
use crate::window::Window;

/// Attaches a file, or a window of it. Direct I/O stays off: a clone must see the page cache, and the
/// loop must not bypass it.
pub fn attach(file: &Path, window: Option<Window>, read_only: bool) -> Result<PathBuf, Error> {
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--direct-io=off"]);
    if let Some(window) = window {
        command
            .arg("--partscan")
            .arg(format!("--offset={}", window.offset))
            .arg(format!("--sizelimit={}", window.length));
    }
    if read_only {
        command.arg("--read-only");
    }
    run(command.arg(file)).map(PathBuf::from)
}

/// Detaches a device. When somebody still uses it, the kernel detaches it after the last user, and this
/// says who that is.
pub fn detach(device: &Path) -> Result<Option<InUse>, Error> {
    // A detached device keeps its number: look now, while its partitions are there.
    let numbers = numbers_of(device);
    let ours = backing_file(device);
    run(Command::new("losetup").arg("--detach").arg(device))?;
    // udev may hold it for a moment.
    let deadline = Instant::now() + Duration::from_millis(700);
    // Another backing file means that somebody else has the number by now.
    while ours.is_some() && backing_file(device) == ours {
        if Instant::now() > deadline {
            return Ok(Some(InUse { device: device.to_owned(), users: busy::users_of(&numbers) }));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

/// Tells a device to go. The kernel does it when the last user closes it.
pub fn let_go(device: &Path) -> Result<(), Error> {
    run(Command::new("losetup").arg("--detach").arg(device)).map(drop)
}

/// Whether a device shows this file from this offset on.
pub fn shows(device: &Path, file: &Path, from: u64) -> bool {
    backing_file(device).is_some_and(|shown| Path::new(&shown) == file) && offset(device) == Some(from)
}

/// Whether a device shows a file in this folder, be it one without a name by now.
pub fn shows_under(device: &Path, folder: &Path) -> bool {
    // The path is as seen from the mount of the file, when that is ours and was unmounted lazily.
    backing_file(device).is_some_and(|shown| Path::new(&shown).starts_with(folder))
}

/// The name of a device in `/sys/block`.
fn name(device: &Path) -> String {
    device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Where the kernel describes a loop device. `/sys/block` may be a made one, this never is.
pub fn sys(device: &Path) -> PathBuf {
    Path::new("/sys/devices/virtual/block").join(name(device))
}

/// What the kernel says the device shows.
pub fn backing_file(device: &Path) -> Option<String> {
    std::fs::read_to_string(sys(device).join("loop/backing_file")).ok().map(|text| text.trim_end().to_owned())
}

/// Where in its file the device begins.
pub fn offset(device: &Path) -> Option<u64> {
    std::fs::read_to_string(sys(device).join("loop/offset")).ok()?.trim().parse().ok()
}

/// The `major:minor` of a device and of its partitions.
pub fn numbers_of(device: &Path) -> Vec<String> {
    let folder = sys(device);
    let partitions = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    std::iter::once(folder.clone())
        .chain(partitions.map(|entry| entry.path()).filter(|path| path.join("partition").exists()))
        .filter_map(|path| std::fs::read_to_string(path.join("dev")).ok())
        .map(|text| text.trim().to_owned())
        .collect()
}
