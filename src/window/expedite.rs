//! `rcu_expedited`, raised while FIFREEZE runs: each FIFREEZE waits for RCU grace periods, 25–35 ms on an
//! idle host.
//!
//! In: /sys/kernel/rcu_expedited, host-wide, 0 or 1 (kernel parameter rcupdate.rcu_expedited). Out: a
//! [`RcuExpedited`]. Must never: stay raised. It is put back by the agent, by its drop, by the watchdog, and
//! from the journal; and it is left alone when somebody else has raised it or another run has locked it, so
//! that no run takes another's 1 for the former value.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::host::kernel::SharedPage;

/// Where the kernel has it, below a root.
#[must_use]
pub fn path(root: &Path) -> PathBuf {
    root.join("sys/kernel/rcu_expedited")
}

const RAISED: &str = "1";

/// The setting as it was before it was raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The file of the setting, below the root in use.
    pub path: PathBuf,
    /// The file's text, such as `0`.
    pub value: String,
}

/// Why there is nothing to raise. The freeze goes on without.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum RcuExpeditedError {
    /// The kernel has no such setting, or it may not be written here.
    #[error("cannot use {}", path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
    #[error("another run has locked {}", path.display())]
    Taken { path: PathBuf },
    /// It is 1 already, by somebody else, who then decides when it goes back to 0.
    #[error("{} is raised already", path.display())]
    Raised { path: PathBuf },
}

/// The setting, open, locked against other runs, and not raised yet.
#[derive(Debug)]
pub struct RcuExpedited {
    file: Flock<File>,
    former: Former,
    /// Set while it is raised.
    page: Option<Arc<SharedPage>>,
}

impl RcuExpedited {
    /// Opens it and remembers its value.
    ///
    /// # Errors
    /// When it cannot be used, or is not ours to raise.
    pub fn open(path: &Path) -> Result<Self, RcuExpeditedError> {
        let unusable = |source| RcuExpeditedError::Unusable { path: path.to_path_buf(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(unusable)?;
        // One lock for agent and watchdog, which has the same open file: it goes when both are gone.
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => RcuExpeditedError::Taken { path: path.to_path_buf() },
            other => unusable(other.into()),
        })?;
        let value = read(&file).map_err(unusable)?;
        if value != "0" {
            return Err(RcuExpeditedError::Raised { path: path.to_path_buf() });
        }
        // Whether it can be written is known only by writing: the value that it has.
        file.write_at(value.as_bytes(), 0).map_err(unusable)?;
        Ok(Self { file, former: Former { path: path.to_path_buf(), value }, page: None })
    }

    /// The value before, and where to write it back.
    #[must_use]
    pub fn former(&self) -> &Former {
        &self.former
    }

    /// The descriptor that the watchdog inherits.
    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Raises it. The page says so first: from then on the watchdog puts it back too.
    pub(super) fn raise(&mut self, page: &Arc<SharedPage>) {
        page.expedited.store(1, Ordering::SeqCst);
        self.page = Some(Arc::clone(page));
        let _ = self.file.write_at(RAISED.as_bytes(), 0); // without it, freezing takes as long as ever
    }

    /// Writes the former value back, if it is raised and was not put back yet.
    pub(crate) fn put_back(&mut self) {
        if let Some(page) = self.page.take()
            && self.file.write_at(self.former.value.as_bytes(), 0).is_ok()
        {
            page.expedited.store(0, Ordering::SeqCst);
        }
    }
}

impl Drop for RcuExpedited {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// The watchdog's end: everything that writing it back needs, made before the window.
#[derive(Debug)]
pub(super) struct PutBack {
    file: File,
    former: String,
}

impl PutBack {
    pub(super) fn new(fd: OwnedFd, former: String) -> Self {
        Self { file: File::from(fd), former }
    }

    pub(super) fn write(&self) {
        let _ = self.file.write_at(self.former.as_bytes(), 0);
    }
}

impl Former {
    /// Puts back what a dead run left raised. True when that was needed.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn recover(&self) -> std::io::Result<bool> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        // Without the lock: the dead run itself may still have it, while a FIFREEZE of its is in progress. To
        // another run that is freezing right now this costs time and nothing else.
        if read(&file)? == self.value {
            return Ok(false);
        }
        file.write_at(self.value.as_bytes(), 0)?;
        Ok(true)
    }
}

fn read(file: &File) -> std::io::Result<String> {
    let mut bytes = [0_u8; 32];
    let n = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..n]).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rcu_expedited(value: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("{value}\n")).unwrap();
        file
    }

    fn now(file: &tempfile::NamedTempFile) -> String {
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    #[test]
    fn it_is_raised_and_put_back_also_by_drop() {
        let file = rcu_expedited("0");
        let page = Arc::new(SharedPage::create().unwrap().0);
        let mut one = RcuExpedited::open(file.path()).unwrap();
        one.raise(&page);
        assert_eq!((now(&file).as_str(), page.expedited.load(Ordering::SeqCst)), ("1", 1));
        one.put_back();
        assert_eq!((now(&file).as_str(), page.expedited.load(Ordering::SeqCst)), ("0", 0));
        one.raise(&page);
        drop(one);
        assert_eq!(now(&file), "0");
    }

    #[test]
    fn somebody_elses_one_is_never_taken_for_the_former_value() {
        let file = rcu_expedited("0");
        let page = Arc::new(SharedPage::create().unwrap().0);
        let mut one = RcuExpedited::open(file.path()).unwrap();
        one.raise(&page);
        assert!(matches!(RcuExpedited::open(file.path()), Err(RcuExpeditedError::Taken { .. })));
        drop(one);
        assert!(matches!(
            RcuExpedited::open(rcu_expedited("1").path()),
            Err(RcuExpeditedError::Raised { .. })
        ));
        assert!(matches!(
            RcuExpedited::open(Path::new("/nowhere/at/all")),
            Err(RcuExpeditedError::Unusable { .. })
        ));
    }

    #[test]
    fn what_a_dead_run_left_raised_is_put_back() {
        let file = rcu_expedited("1");
        let former = Former { path: file.path().to_path_buf(), value: "0".into() };
        assert!(former.recover().unwrap());
        assert_eq!(now(&file), "0");
        assert!(!former.recover().unwrap(), "nothing left to do");
    }
}
