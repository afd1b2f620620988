//! A file that is replaced as a whole, by a writer who holds a lock on it for as long as it lives.
//!
//! In: a path and bytes. Out: an [`OwnedFile`]; whether anybody lives who owns the file of a path. The lock
//! (flock(2)) tells that over containers and process-id namespaces, where a process id means somebody else.
//! Must never: write over what another process has put in its place, or take a file that could not be looked
//! at for one without an owner.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::file::temporary;

/// How often a file is looked at again that its owner replaces meanwhile.
const LOOKS: usize = 100;

/// The file. Its owner is whoever has this value; the lock ends with it, or with the process.
#[derive(Debug)]
pub(crate) struct OwnedFile {
    path: PathBuf,
    file: Flock<File>,
    mode: u32,
}

impl OwnedFile {
    /// Puts it there, with this mode.
    ///
    /// # Errors
    /// When it cannot be written or locked.
    pub fn create(path: PathBuf, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let file = put(&path, bytes, mode)?;
        Ok(Self { path, file, mode })
    }

    /// Replaces the content.
    ///
    /// # Errors
    /// When another process has removed the file or put another in its place, or it cannot be written.
    pub fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_in_place() {
            return Err(io::Error::other("another process has removed or replaced it"));
        }
        self.file = put(&self.path, bytes, self.mode)?;
        Ok(())
    }

    /// Does its path still lead to it?
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path).unwrap_or(false)
    }
}

/// Does somebody who lives own the file of this path?
///
/// # Errors
/// When that cannot be told; ENOENT when there is no such file.
pub(crate) fn is_owned(path: &Path) -> io::Result<bool> {
    for _ in 0..LOOKS {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        // Shared: two that look at once must not take each other for the owner.
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => return Ok(true),
            Err((_, errno)) => return Err(errno.into()),
            // The owner replaces it, and lets go of the former one.
            Ok(file) if !is_at(&file, path)? => {}
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (of, at) = (file.metadata()?, path.symlink_metadata()?);
    Ok((of.dev(), of.ino()) == (at.dev(), at.ino()))
}

/// The file is locked before it has its name, so that it is never there without its owner.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Flock<File>> {
    let temporary = temporary(path);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_owned_through_every_change_until_its_owner_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut owned = OwnedFile::create(path.clone(), b"one", 0o600).unwrap();
        assert!(is_owned(&path).unwrap());
        owned.replace(b"two").unwrap();
        assert!(is_owned(&path).unwrap() && owned.is_in_place());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        drop(owned);
        assert!(!is_owned(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(is_owned(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_looks_is_not_taken_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        drop(OwnedFile::create(path.clone(), b"x", 0o600).unwrap());
        let other = Flock::lock(File::open(&path).unwrap(), FlockArg::LockSharedNonblock);
        assert!(!is_owned(&path).unwrap());
        drop(other);
    }

    /// Between two contents there is a moment in which the former file has no lock any more.
    #[test]
    fn it_is_owned_while_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut owned = OwnedFile::create(path.clone(), b"x", 0o600).unwrap();
        let (looked, replaced) =
            (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::AtomicU32::new(0));
        let order = std::sync::atomic::Ordering::SeqCst;
        let always = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !looked.load(order) && owned.replace(b"x").is_ok() {
                    replaced.fetch_add(1, order);
                }
            });
            let always = std::iter::repeat_with(|| is_owned(&path).unwrap_or(false))
                .take_while(|_| replaced.load(order) < 20_000)
                .all(|owned| owned);
            looked.store(true, order);
            always
        });
        assert!(always, "it was taken for dead");
    }

    #[test]
    fn what_another_has_taken_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut owned = OwnedFile::create(path.clone(), b"mine", 0o600).unwrap();
        let other = OwnedFile::create(path.clone(), b"theirs", 0o600).unwrap();
        assert!(!owned.is_in_place() && other.is_in_place());
        assert!(owned.replace(b"mine again").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        std::fs::remove_file(&path).unwrap();
        assert!(owned.replace(b"mine again").is_err());
        assert!(!path.exists());
    }
}
