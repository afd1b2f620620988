//! A file that one process at a time holds (flock(2)), and that says who does.
//!
//! In: a path. Out: a [`FileLock`] that lasts until it is dropped or the process ends. Must never: be passed
//! on to a child (the descriptor is closed on exec), or wait without a limit.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const PAUSE: Duration = Duration::from_millis(50);

/// The lock. Dropping it lets the next one have it.
#[derive(Debug)]
pub struct FileLock {
    file: Flock<File>,
    before: String,
}

/// So much of what stands in the file is read: an id and a line.
const MOST: u64 = 512;

impl FileLock {
    /// What [`FileLock::note`] wrote last, of a process that died with the lock; empty where there is none.
    #[must_use]
    pub fn left(&self) -> &str {
        self.before.split_once('\n').map_or("", |(_, note)| note.trim_end())
    }

    /// Writes a note for whoever takes the lock next, after this process's id; an empty one takes it away.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(&mut *self.file, "{}", std::process::id())?;
        if text.is_empty() { Ok(()) } else { writeln!(&mut *self.file, "{text}") }
    }
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NoLock {
    /// Another process had it for the whole wait.
    #[error("another process has it{}", pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Taken {
        /// The process that has it, where the file says so.
        pid: Option<i32>,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Unusable(#[from] std::io::Error),
}

/// Takes the lock, waiting for at most `wait`, and writes this process's id into the file.
///
/// # Errors
/// When another process has it all that time, or the file cannot be opened or locked.
pub async fn take(path: &Path, wait: Duration) -> Result<FileLock, NoLock> {
    let end = Instant::now() + wait;
    let mut options = OpenOptions::new();
    // For its owner alone: flock(2) asks for no more than a descriptor, and another user could hold it for
    // ever.
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(path)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => {
                let mut before = String::new();
                let _ = (&*locked).take(MOST).read_to_string(&mut before);
                let mut held = FileLock { file: locked, before };
                // Who has it is only told to people: a failure to write it is none.
                let note = held.left().to_owned();
                let _ = held.note(&note);
                return Ok(held);
            }
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < end => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(NoLock::Taken { pid: pid.lines().next().and_then(|p| p.parse().ok()) });
            }
            Err((_, errno)) => return Err(NoLock::Unusable(errno.into())),
        };
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_is_told_who_has_it_and_gets_it_after_him() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = take(&path, Duration::ZERO).await.unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let said = take(&path, Duration::ZERO).await.unwrap_err();
        assert!(matches!(said, NoLock::Taken { pid: Some(pid) } if pid == own), "{said}");
        let second = tokio::spawn({
            let path = path.clone();
            async move { take(&path, Duration::from_secs(20)).await.is_ok() }
        });
        drop(first);
        assert!(second.await.unwrap());
    }

    #[tokio::test]
    async fn a_note_is_there_for_the_next_one_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut first = take(&path, Duration::ZERO).await.unwrap();
        assert_eq!(first.left(), "");
        first.note("asked a").unwrap();
        drop(first);
        drop(take(&path, Duration::ZERO).await.unwrap());
        let mut third = take(&path, Duration::ZERO).await.unwrap();
        assert_eq!(third.left(), "asked a", "whoever only takes it leaves the note");
        third.note("").unwrap();
        drop(third);
        assert_eq!(take(&path, Duration::ZERO).await.unwrap().left(), "");
    }

    #[tokio::test]
    async fn nobody_else_can_open_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _held = take(&path, Duration::ZERO).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_not_taken_for_a_lock_that_is_held() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(take(dir.path(), Duration::ZERO).await, Err(NoLock::Unusable(_))));
    }
}
