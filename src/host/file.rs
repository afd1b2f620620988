//! Files that are replaced as a whole, and folders for root alone.
//!
//! In: a path and bytes. Out: the old content or the new one, whenever the process dies. Must never: leave a
//! part of the new content under the name, or let others read for a moment what only some may read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How long the new content has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// Until the machine stops: it is on a memory filesystem, and fsync(2) would do nothing.
    UntilShutdown,
    /// Past a power cut: fsync(2) before the rename.
    OnDisk,
}

/// Writes a file under another name beside it, with this mode, and renames it into place.
///
/// # Errors
/// When it cannot be written; `path` then has its former content.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, lasts: Lasts) -> std::io::Result<()> {
    let temporary = temporary(path);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    if lasts == Lasts::OnDisk {
        file.sync_all()?;
    }
    drop(file);
    std::fs::rename(&temporary, path)
}

/// The same below a folder that is open already, and whose path is not gone by again. The mode is exactly this one,
/// whatever the umask is.
///
/// # Errors
/// When it cannot be written; what has the name then stays as it is.
pub(crate) fn replace_in(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let remove = || unlinkat(folder, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
    // Of a process that died at this.
    match remove() {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(folder, temporary.as_os_str(), flags, Mode::from_bits_truncate(mode))?);
    let written = file
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(renameat(folder, temporary.as_os_str(), folder, name)?));
    if written.is_err() {
        let _ = remove();
    }
    written
}

/// `NAME.new`: appended, so that files which differ only in their extension do not share it.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Makes a folder and those above it, with this mode. A folder that is there is left as it is.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_folder(folder: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Makes a folder through which everybody can pass, and that nobody else can list or change: what is in it
/// for everybody is found by its name. A folder that is there is left as it is.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_passage(folder: &Path) -> std::io::Result<()> {
    const MODE: u32 = 0o711;
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above, MODE)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return make_folder(folder, MODE),
        made => made?,
    }
    // Not by mkdir(2), whose mode the umask narrows; and by a descriptor, since the path may be a link by
    // now, should others be able to write to the folder above.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let made = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    if made.metadata()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(std::io::Error::other("somebody else has put a folder of his in its place"));
    }
    made.set_permissions(std::fs::Permissions::from_mode(MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_new_content_stands_alone_under_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        for (bytes, lasts) in [("first", Lasts::UntilShutdown), ("2nd", Lasts::OnDisk)] {
            replace(&path, bytes.as_bytes(), 0o600, lasts).unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), (bytes, 0o600));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_former_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        replace(&path, b"former", 0o600, Lasts::UntilShutdown).unwrap();
        std::fs::create_dir(temporary(&path)).unwrap();
        assert!(replace(&path, b"new", 0o600, Lasts::UntilShutdown).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"former");
    }

    #[test]
    fn folders_are_made_with_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_folder(&folder, 0o700).unwrap();
        make_folder(&folder, 0o755).unwrap();
        assert_eq!((mode(&folder), mode(&dir.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn a_passage_is_made_open_and_one_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (made, found, link) = (dir.path().join("a/b"), dir.path().join("c"), dir.path().join("d"));
        make_passage(&made).unwrap();
        assert_eq!(mode(&made), 0o711);
        make_folder(&found, 0o700).unwrap();
        make_passage(&found).unwrap();
        assert_eq!(mode(&found), 0o700);
        std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
        assert!(make_passage(&link).is_err());
    }
}
