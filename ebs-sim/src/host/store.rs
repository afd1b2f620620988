//! The pool file and its clones.
//!
//! In: windows. Out: clones. A point in time of every volume is **one** FICLONE of the one pool file: the
//! kernel locks the file for it, so no write is in it without those that were acknowledged before. It must
//! never be two clones where one instant is asked for.
//!
//! A snapshot of one volume is a clone of the whole pool too. Cloning only its window would cost less, and as
//! one FICLONERANGE it would be as true. But no safe binding has that call, and copy_file_range stops after
//! 2 GiB and falls back to copying without a word, which is not one instant.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use super::Error;
use crate::units::MIB;
use crate::window::Window;

/// The files of a simulated account: the pool and everything cloned from it.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pool: PathBuf,
    /// Held while the pool's size changes.
    size: Mutex<u64>,
    copies: AtomicU64,
}

impl Store {
    /// Makes an empty pool of this size.
    pub fn create(root: &Path, size: u64) -> Result<Self, Error> {
        let pool = root.join("pool");
        for folder in ["snapshots", "devices"] {
            std::fs::create_dir_all(root.join(folder))
                .map_err(Error::io(format!("create {folder} in {}", root.display())))?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&pool)
            .map_err(Error::io(format!("create {}", pool.display())))?;
        file.set_len(size).map_err(Error::io(format!("size {}", pool.display())))?;
        Ok(Self { root: root.to_owned(), pool, size: Mutex::new(size), copies: AtomicU64::new(0) })
    }

    /// The pool that is there, with its clones.
    pub fn open(root: &Path, size: u64) -> Result<Self, Error> {
        let pool = root.join("pool");
        let length = std::fs::metadata(&pool).map_err(Error::io(format!("open {}", pool.display())))?.len();
        Ok(Self {
            root: root.to_owned(),
            pool,
            size: Mutex::new(size.max(length)),
            copies: AtomicU64::new(0),
        })
    }

    /// Removes the images and copies that nothing needs: what they were made for did not come to be.
    pub fn remove_orphans(&self, known: &[&Path]) {
        let entries = ["snapshots", "devices"].map(|folder| std::fs::read_dir(self.root.join(folder)));
        for entry in entries.into_iter().flatten().flatten().flatten() {
            if !known.contains(&entry.path().as_path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The pool file.
    pub fn pool(&self) -> &Path {
        &self.pool
    }

    /// Where the image of a set will be.
    pub fn image_path(&self, name: &str) -> PathBuf {
        self.root.join("snapshots").join(name)
    }

    /// Fixes the point in time: one clone of the whole pool, of which only `windows` are kept.
    ///
    /// Keeping only some windows is done afterwards, on the clone: for the volumes that are kept it is
    /// the same instant, and the others read as zeros.
    pub fn clone_pool(&self, to: &Path) -> Result<(), Error> {
        // Opened each time: a file that stays open would keep the filesystem from being unmounted.
        let pool = File::open(&self.pool).map_err(Error::io(format!("open {}", self.pool.display())))?;
        let clone = File::create_new(to).map_err(Error::io(format!("create {}", to.display())))?;
        rustix::fs::ioctl_ficlone(&clone, &pool).map_err(|errno| {
            let _ = std::fs::remove_file(to);
            Error::Io { what: format!("clone the pool to {}", to.display()), source: errno.into() }
        })
    }

    /// Gives up everything of an image outside `kept`.
    pub fn trim(&self, image: &Path, kept: &[Window]) -> Result<(), Error> {
        let file = File::options()
            .write(true)
            .open(image)
            .map_err(Error::io(format!("open {}", image.display())))?;
        let size = file.metadata().map_err(Error::io(format!("look at {}", image.display())))?.len();
        for hole in complement(kept, size) {
            punch(&file, hole).map_err(Error::io(format!("trim {}", image.display())))?;
        }
        Ok(())
    }

    /// Makes the pool long enough for a window. It is sparse: this takes no space.
    pub fn grow(&self, window: Window) -> Result<(), Error> {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let end = window.offset + window.length;
        if end > *size {
            self.open_pool()?
                .set_len(end)
                .map_err(Error::io(format!("size {} to {end} bytes", self.pool.display())))?;
            *size = end;
        }
        Ok(())
    }

    /// Gives up the data in a window of the pool. Whoever has it next reads zeros.
    pub fn free(&self, window: Window) -> Result<(), Error> {
        punch(&self.open_pool()?, window)
            .map_err(Error::io(format!("free a part of {}", self.pool.display())))
    }

    /// Puts what is in a window of an image into a free window of the pool: its blocks are shared, not
    /// copied, where the filesystem can. In pieces, so that a clone of the pool never waits long for it.
    pub fn fill(&self, image: &Path, from: Window, to: Window) -> Result<(), Error> {
        let what = || format!("copy {} into {}", image.display(), self.pool.display());
        let source = File::open(image).map_err(Error::io(what()))?;
        let pool = self.open_pool()?;
        let length = from.length.min(to.length);
        let mut done = 0;
        while done < length {
            let (mut read_at, mut write_at) = (from.offset + done, to.offset + done);
            let piece = usize::try_from((length - done).min(PIECE)).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(&source, Some(&mut read_at), &pool, Some(&mut write_at), piece)
                    .map_err(|errno| Error::Io { what: what(), source: errno.into() })?;
            if copied == 0 {
                // The image is shorter than its window: the pool had not grown that far, so it is zeros.
                break;
            }
            done += copied as u64;
        }
        Ok(())
    }

    fn open_pool(&self) -> Result<File, Error> {
        File::options()
            .read(true)
            .write(true)
            .open(&self.pool)
            .map_err(Error::io(format!("open {}", self.pool.display())))
    }

    /// A copy of an image that can be written to.
    pub fn private_copy(&self, image: &Path) -> Result<PathBuf, Error> {
        let from = File::open(image).map_err(Error::io(format!("open {}", image.display())))?;
        let (to, copy) = loop {
            let number = self.copies.fetch_add(1, Ordering::Relaxed);
            let to = self.root.join("devices").join(format!("copy{number}"));
            match File::create_new(&to) {
                Ok(copy) => break (to, copy),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(format!("create {}", to.display()))(error)),
            }
        };
        let what = || format!("clone {} to {}", image.display(), to.display());
        rustix::fs::ioctl_ficlone(&copy, &from)
            .map_err(|errno| Error::Io { what: what(), source: errno.into() })?;
        Ok(to)
    }
}

/// How much of a fill is done in one call.
const PIECE: u64 = 64 * MIB;

fn punch(file: &File, window: Window) -> std::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, window.offset, window.length).map_err(Into::into)
}

/// What lies between the windows, up to `end`.
fn complement(windows: &[Window], end: u64) -> Vec<Window> {
    let mut windows = windows.to_vec();
    windows.sort_by_key(|window| window.offset);
    let mut holes = Vec::new();
    let mut at = 0;
    for window in &windows {
        if window.offset > at {
            holes.push(Window { offset: at, length: window.offset - at });
        }
        at = at.max(window.offset + window.length);
    }
    if end > at {
        holes.push(Window { offset: at, length: end - at });
    }
    holes
}

/// Whether files in this folder can be cloned, found out by cloning one.
pub fn can_clone_in(folder: &Path) -> bool {
    let (a, b) = (folder.join(".clone-a"), folder.join(".clone-b"));
    let cloned = std::fs::write(&a, [0; 4096])
        .and_then(|()| Ok((File::open(&a)?, File::create(&b)?)))
        .is_ok_and(|(from, to)| rustix::fs::ioctl_ficlone(&to, &from).is_ok());
    let _ = std::fs::remove_file(&a);
    let _ = std::fs::remove_file(&b);
    cloned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complement_covers_the_rest() {
        let window = |offset, length| Window { offset, length };
        assert_eq!(complement(&[window(4, 2), window(0, 1)], 10), [window(1, 3), window(6, 4)]);
        assert_eq!(complement(&[window(0, 10)], 10), []);
        assert_eq!(complement(&[], 10), [window(0, 10)]);
    }
}
