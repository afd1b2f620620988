//! Every file and folder of a mount, looked at.
//!
//! In: open mounts. Out: how many there are. Must never: open a file, follow a link, or step onto another mount.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::threads;
use crate::host::beneath;
use crate::host::trust::by_descriptor;

/// So many folders wait for a thread at most: each is an open descriptor. What is beyond is walked at once.
const WAITING: usize = 256;

/// A walk.
#[derive(Debug)]
pub struct Walk {
    state: Mutex<State>,
    changed: Condvar,
    stopped: AtomicBool,
    seen: AtomicU64,
    unseen: AtomicU64,
}

#[derive(Debug)]
struct State {
    folders: Vec<OwnedFd>,
    at_work: usize,
}

/// Starts to walk them.
///
/// # Errors
/// When no thread can be started.
pub fn start(roots: Vec<OwnedFd>) -> std::io::Result<Arc<Walk>> {
    let walk = Arc::new(Walk {
        state: Mutex::new(State { folders: roots, at_work: 0 }),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        seen: AtomicU64::new(0),
        unseen: AtomicU64::new(0),
    });
    let shared = Arc::clone(&walk);
    threads("warm", move || shared.work())?;
    Ok(walk)
}

impl Walk {
    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.held();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            if let Some(folder) = state.folders.pop() {
                state.at_work += 1;
                drop(state);
                self.look_into(&folder);
                drop(folder);
                state = self.held();
                state.at_work -= 1;
                self.changed.notify_all();
            } else if state.at_work == 0 {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn look_into(&self, folder: &OwnedFd) {
        let Ok(entries) = std::fs::read_dir(by_descriptor(folder)) else {
            self.unseen.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for entry in entries {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            // This reads its inode, whatever it is.
            let Some((name, of)) = entry.ok().and_then(|e| Some((e.file_name(), e.metadata().ok()?))) else {
                self.unseen.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.seen.fetch_add(1, Ordering::Relaxed);
            if !of.is_dir() {
                continue;
            }
            // What is mounted there is another filesystem.
            let below = match beneath::below(folder, Path::new(&name)) {
                Ok(below) => below,
                Err(nix::errno::Errno::EXDEV) => continue,
                Err(_) => {
                    self.unseen.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            let mut state = self.held();
            if state.folders.len() < WAITING {
                state.folders.push(below);
                drop(state);
                self.changed.notify_one();
            } else {
                drop(state);
                self.look_into(&below);
            }
        }
    }

    /// Files and folders that were looked at.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Those that could not be.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        self.unseen.load(Ordering::Relaxed)
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.held();
        state.folders.is_empty() && state.at_work == 0
    }

    /// No other folder is looked into.
    pub fn stop(&self) {
        let _held = self.held();
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    fn walked(path: &Path) -> (u64, u64) {
        let walk = start(vec![OwnedFd::from(fs::File::open(path).unwrap())]).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !walk.is_over() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
        (walk.seen(), walk.unseen())
    }

    #[test]
    fn every_entry_is_looked_at_once_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(walked(folder.path()), (0, 0));
        for wide in 0..600 {
            let one = folder.path().join(wide.to_string());
            fs::create_dir_all(one.join("x/y")).unwrap();
            fs::write(one.join("file"), "").unwrap();
            std::os::unix::fs::symlink("/", one.join("link")).unwrap();
        }
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(walked(folder.path()), (600 * 5 + 1, 0));
    }

    #[test]
    fn a_deep_tree_ends() {
        let folder = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
        fs::create_dir_all(folder.path().join(deep)).unwrap();
        assert_eq!(walked(folder.path()), (300, 0));
    }

    #[test]
    fn one_that_is_stopped_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let walk = Walk {
            state: Mutex::new(State {
                folders: vec![OwnedFd::from(fs::File::open(folder.path()).unwrap())],
                at_work: 0,
            }),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            unseen: AtomicU64::new(0),
        };
        walk.stop();
        walk.work();
        assert_eq!(walk.seen(), 0);
    }
}
