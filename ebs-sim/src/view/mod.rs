//! What a command sees: namespaces, and a `/sys` that shows the loop devices as EBS disks.
//!
//! ```text
//! /sys/devices/*             bind mounts of the real ones …
//! /sys/devices/pci0000:NN/…  … and a made PCI bus with one NVMe controller a volume
//! /sys/dev/block, /sys/block, /sys/class/block   links, copied or made
//! ```
//!
//! The server makes all that is made in one tmpfs, DIR/view, and every command binds parts of it over `/sys`:
//! a disk that the server adds or removes later comes and goes in all of them.
//!
//! In: `ebs-sim.json` and DIR/view. Out: this thread in namespaces of its own. It must never mount anything
//! that the rest of the system can see, so it makes its own mount namespace a slave before everything else.

mod disks;
mod tree;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::env::{self, Reach};
use crate::ready::{Ready, Volume};
use disks::Disk;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make namespaces")]
    Namespace(#[source] std::io::Error),
    #[error("cannot {what}")]
    Io { what: String, source: std::io::Error },
    #[error("cannot run {}", command.display())]
    Exec { command: OsString, source: std::io::Error },
}

impl Error {
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
    // For partitions that came meanwhile. A server that does not answer leaves the view as it is.
    let _ = crate::client::control(ready, "POST", "view", "");
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
    let stage = ready.dir.join("view");
    // A store must not be found, let alone frozen, by what runs here, nor kept alive by it when its server
    // ends.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mounted in made_by_servers(&table).iter().filter(|mounted| **mounted != stage) {
        // One that a mount of somebody else's covers stays: it cannot be reached either.
        let _ = umount2(mounted, MntFlags::MNT_DETACH);
    }
    if !crate::host::is_mount_point(&stage) {
        // This namespace is older than the server: what it gets is what there is now.
        std::fs::create_dir_all(&stage).map_err(Error::io(format!("create {}", stage.display())))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), &stage, Some("tmpfs"), flags, Some("mode=755"))
            .map_err(Error::io(format!("mount a tmpfs on {}", stage.display())))?;
        Live::new(&stage)?.update(&ready.volumes)?;
    }
    let real = tree::real_devices(&stage)?;
    for (from, to) in &real {
        bind(from, to)?;
    }
    for path in COVERED {
        bind(&staged(&stage, path), Path::new(path))?;
    }
    for (_, to) in &real {
        umount2(to, MntFlags::MNT_DETACH).map_err(Error::io(format!("unmount {}", to.display())))?;
    }
    Ok(())
}

/// The stores and views of all servers on this machine. A path with a space in it is not among them.
fn made_by_servers(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|path| path.ends_with("host") || path.ends_with("view"))
        .filter(|path| path.parent().is_some_and(|dir| dir.join(crate::ready::FILE).is_file()))
        .collect()
}

/// The view, as the server keeps it.
#[derive(Debug)]
pub struct Live {
    stage: PathBuf,
    bus: String,
    shown: Vec<Disk>,
}

impl Live {
    /// An empty one in a folder, which is a tmpfs.
    pub fn new(stage: &Path) -> Result<Self, Error> {
        tree::prepare(stage)?;
        let bus = disks::free_bus(Path::new("/sys/devices"));
        Ok(Self { stage: stage.to_owned(), bus, shown: Vec::new() })
    }

    /// Shows these volumes with the partitions that they have now, and no others.
    pub fn update(&mut self, volumes: &[Volume]) -> Result<(), Error> {
        let wanted = disks::plan(volumes, &self.bus);
        tree::update(&self.stage, &self.shown, &wanted)?;
        self.shown = wanted;
        Ok(())
    }
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
