//! Where the page is that agent and watchdog share, and what a later recovery reads in it.
//!
//! In: a path in the run folder. Out: the page, in a file in memory, so that it outlives both processes: a
//! recovery then knows what they have thawed, and leaves alone what somebody else has frozen since. Must
//! never: put the page on a disk, where a store to it may wait for a filesystem that is frozen; or take what
//! it cannot read for thawed.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};

use super::state::State;
use crate::host::kernel::{LAYOUT, SharedPage};

/// include/uapi/linux/magic.h
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Is this file or folder in memory, on a filesystem that cannot freeze?
#[must_use]
pub fn in_memory(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|s| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&s.filesystem_type()))
}

/// A new page, and the file that the watchdog maps it from: at `at`, if that is in memory, else in none that
/// has a name.
pub(super) fn create(at: Option<&Path>) -> nix::Result<(SharedPage, OwnedFd)> {
    let folder = at.and_then(Path::parent).and_then(|folder| File::open(folder).ok());
    match at.filter(|_| folder.is_some_and(in_memory)) {
        Some(at) => {
            let _ = std::fs::remove_file(at); // of an earlier round of this run
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(at);
            let file = file.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))?;
            Ok((SharedPage::new(file.as_fd())?, file.into()))
        }
        None => SharedPage::create(),
    }
}

/// The page that a run has left.
#[derive(Debug)]
pub struct Left(SharedPage);

impl Left {
    /// Reads it; none when there is none of this build's layout, which root has made and nobody else.
    #[must_use]
    pub fn read(at: &Path) -> Option<Self> {
        let mut options = OpenOptions::new();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = options.read(true).write(true).custom_flags(flags).open(at).ok()?;
        let found = file.metadata().ok()?;
        let own =
            found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
        let page = SharedPage::map(file.as_fd()).ok().filter(|_| own && in_memory(&file))?;
        (page.layout.load(Ordering::SeqCst) == LAYOUT).then_some(Self(page))
    }

    /// May this run have it frozen? False when it never froze it, or has thawed it: if it is frozen now, it
    /// is somebody else's freeze.
    #[must_use]
    pub fn may_be_frozen(&self, word: usize) -> bool {
        let word = self.0.states.get(word).map(|w| State::from_word(w.load(Ordering::SeqCst)));
        word.is_none_or(State::may_be_frozen)
    }

    /// Notes that it is thawed: a recovery that is broken off must not thaw it a second time.
    pub fn thawed(&self, word: usize) {
        if let Some(word) = self.0.states.get(word) {
            word.store(State::Thawed as u32, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in memory.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    #[test]
    fn a_recovery_reads_what_the_run_has_left() {
        let dir = folder();
        let at = dir.path().join("run.page");
        assert!(Left::read(&at).is_none());
        let (page, fd) = create(Some(&at)).unwrap();
        let theirs = SharedPage::map(fd.as_fd()).unwrap();
        for (word, state) in
            [State::Idle, State::Freezing, State::Frozen, State::Thawed, State::ThawedByWatchdog]
                .iter()
                .enumerate()
        {
            theirs.states[word].store(*state as u32, Ordering::SeqCst);
        }
        page.states[5].store(99, Ordering::SeqCst);
        drop((page, theirs, fd));
        let left = Left::read(&at).unwrap();
        let may: Vec<bool> = (0..6).map(|word| left.may_be_frozen(word)).collect();
        assert_eq!(may, [false, true, true, false, false, true]);
        assert!(left.may_be_frozen(usize::MAX), "a word that is not there says nothing");
        left.thawed(2);
        assert!(!Left::read(&at).unwrap().may_be_frozen(2));
    }

    #[test]
    fn each_round_has_a_page_of_its_own() {
        let dir = folder();
        let at = dir.path().join("run.page");
        let (first, _fd) = create(Some(&at)).unwrap();
        first.states[0].store(State::Frozen as u32, Ordering::SeqCst);
        let (_second, _fd) = create(Some(&at)).unwrap();
        assert!(!Left::read(&at).unwrap().may_be_frozen(0));
    }

    #[test]
    fn nothing_is_believed_that_another_build_or_anybody_else_has_left() {
        let dir = folder();
        let at = dir.path().join("run.page");
        let (page, _fd) = create(Some(&at)).unwrap();
        page.layout.store(LAYOUT + 1, Ordering::SeqCst);
        assert!(Left::read(&at).is_none(), "another layout");
        page.layout.store(LAYOUT, Ordering::SeqCst);
        assert!(Left::read(&at).is_some());
        let mode =
            |mode| std::fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o666);
        assert!(Left::read(&at).is_none(), "others can write it");
        mode(0o600);
        let link = dir.path().join("link.page");
        std::os::unix::fs::symlink(&at, &link).unwrap();
        assert!(Left::read(&link).is_none(), "a link");
        std::fs::write(&at, "short").unwrap();
        assert!(Left::read(&at).is_none(), "cut off");
    }

    #[test]
    fn on_a_disk_the_page_has_no_name() {
        let on_disk = std::env::current_dir().unwrap();
        if in_memory(File::open(&on_disk).unwrap()) {
            return;
        }
        let dir = tempfile::tempdir_in(on_disk).unwrap();
        let at = dir.path().join("run.page");
        let _page = create(Some(&at)).unwrap();
        assert!(!at.exists());
        let _page = create(None).unwrap();
    }
}
