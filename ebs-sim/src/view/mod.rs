//! What a command sees: namespaces, and a `/sys` that shows the loop devices as EBS disks.
//!
//! ```text
//! /sys/devices/*             bind mounts of the real ones …
//! /sys/devices/pci0000:NN/…  … and a made PCI bus with one NVMe controller a volume
//! /sys/dev/block, /sys/block, /sys/class/block   links, copied or made
//! ```
//!
//! In: `ebs-sim.json`. Out: this thread in namespaces of its own. It must never mount anything that the
//! rest of the system can see, so it makes its own mount namespace a slave before everything else.

mod disks;
mod tree;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::env::{self, Reach};
use crate::ready::Ready;

/// The view could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A new namespace was refused.
    #[error("cannot make namespaces")]
    Namespace(#[source] std::io::Error),
    /// A part of it could not be made.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The command could not be started.
    #[error("cannot run {}", command.display())]
    Exec {
        /// The command.
        command: OsString,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Namespace(_) => Some("run it as root; in a container, run that privileged".into()),
            Error::Io { .. } | Error::Exec { .. } => None,
        }
    }

    fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source: source.into() }
    }
}

/// Enters a mount namespace whose changes stay in it.
fn enter(flags: CloneFlags) -> Result<(), Error> {
    unshare(flags).map_err(|errno| Error::Namespace(errno.into()))?;
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(Error::io("make / a slave mount"))?;
    forget_stores();
    Ok(())
}

/// Unmounts the copies of every ebs-sim's store that the new namespace got: they would keep a store alive
/// that its own ebs-sim takes down.
fn forget_stores() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new) {
        let is_store =
            point.ends_with("host") && point.parent().is_some_and(|dir| dir.join("host.img").is_file());
        if is_store {
            // One that is gone by now needs nothing.
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

/// Enters a network namespace and a mount namespace.
pub fn enter_network() -> Result<(), Error> {
    enter(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
}

/// `ebs-sim exec`: becomes the command.
pub fn exec(ready: &Ready, reach: Reach, command: &[OsString]) -> Result<std::convert::Infallible, Error> {
    enter(CloneFlags::CLONE_NEWNS)?;
    make(ready)?;
    let mut words = command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    // Where the service has its real address nothing must lead away from it.
    for name in env::stray(ready, reach) {
        command.env_remove(name);
    }
    command.args(words).envs(env::variables(ready, reach)).env("EBS_SIM_DIR", &ready.dir);
    let source = command.exec();
    Err(Error::Exec { command: program, source })
}

const COVERED: [&str; 4] = ["/sys/devices", "/sys/dev/block", "/sys/block", "/sys/class/block"];

/// Makes the view in this mount namespace.
fn make(ready: &Ready) -> Result<(), Error> {
    // A view inside a view would copy the outer one's made bus: uncover the real one first.
    for path in COVERED.iter().rev() {
        while is_tmpfs(Path::new(path)) {
            umount2(*path, MntFlags::MNT_DETACH).map_err(Error::io(format!("uncover {path}")))?;
        }
    }
    // The store must not be found, let alone frozen, by what runs here.
    let host = ready.dir.join("host");
    if host.is_dir() {
        // EINVAL: it is no mount, as the folder itself is on a reflink filesystem.
        let _ = umount2(&host, MntFlags::MNT_DETACH);
    }
    let stage = ready.dir.join("view");
    std::fs::create_dir_all(&stage).map_err(Error::io(format!("create {}", stage.display())))?;
    mount(Some("tmpfs"), &stage, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .map_err(Error::io(format!("mount a tmpfs on {}", stage.display())))?;
    let disks = disks::plan(&ready.volumes, Path::new("/sys/devices"));
    tree::build(&stage, &disks)?;
    for path in COVERED {
        bind(&staged(&stage, path), Path::new(path))?;
    }
    umount2(&stage, MntFlags::MNT_DETACH).map_err(Error::io(format!("unmount {}", stage.display())))
}

/// Where a covered folder is prepared.
fn staged(stage: &Path, path: &str) -> PathBuf {
    stage.join(path.trim_start_matches("/sys/"))
}

fn bind(from: &Path, to: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>).map_err(Error::io(format!(
        "bind {} to {}",
        from.display(),
        to.display()
    )))
}

fn is_tmpfs(path: &Path) -> bool {
    use nix::sys::statfs;
    statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == statfs::TMPFS_MAGIC)
}
