//! The real side: a reflink filesystem, the pool file on it, and the loop devices over the pool.
//!
//! ```text
//! DIR/host.img ─ loop ─ xfs on DIR/host/ ─┬─ pool ──────────── window ─ loop ─ volume
//! (or DIR is on a reflink filesystem)     ├─ snapshots/SET ── one FICLONE of the whole pool
//!                                         └─ devices/SNAP.N ─ window ─ loop ─ snapshot-device
//! ```
//!
//! In: volumes to make. Out: devices, clones, and a list of what is still in use at the end. It must never
//! touch a device, mount or file that it did not make, and nothing at all before `preflight` passed.

mod busy;
pub mod extents;
mod loops;
mod preflight;
mod stale;
mod store;

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags};

pub use busy::InUse;
pub use preflight::preflight;
pub use stale::{is_mount_point, stop};
pub use store::Store;

use crate::units::{Bytes, GIB};
use crate::window::Window;

/// The host side could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make devices: not root")]
    NotRoot,
    #[error("cannot run {0}: it is not installed")]
    Missing(&'static str),
    #[error("cannot open /dev/loop-control")]
    NoLoop(#[source] std::io::Error),
    #[error("{} is in use by another ebs-sim", .0.display())]
    Locked(PathBuf),
    #[error("{command} failed: {stderr}")]
    Command { command: String, stderr: String },
    #[error("cannot {what}")]
    Io { what: String, source: std::io::Error },
    #[error("{0} has no image: its volume was made up by a fault")]
    NoImage(String),
    #[error("ebs-sim (process {0}) does not end")]
    Unstoppable(u32),
    #[error("{0} was not made by snapshot-device")]
    NotOurs(String),
}

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NotRoot => Some("run it with sudo".into()),
            Error::Missing("mkfs.xfs") => {
                Some("install xfsprogs, or give a --dir on btrfs or on xfs with reflink=1".into())
            }
            Error::Missing("ip") => Some("install iproute2".into()),
            Error::Missing(_) => Some("install util-linux".into()),
            Error::NoLoop(_) => Some(
                "load the module (modprobe loop); in a container, pass /dev/loop-control and run privileged"
                    .into(),
            ),
            Error::Locked(_) => Some("choose another --dir, or run `ebs-sim stop --dir DIR`".into()),
            _ => None,
        }
    }

    /// Makes an error of the system's into one that says what failed.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(cause) => format!("{error}: {}", chain(cause)),
    }
}

/// Runs a command and gives back what it printed.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let output =
        command.stdin(std::process::Stdio::null()).output().map_err(Error::io(format!("run {line}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(Error::Command {
            command: line,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// The file that marks a folder as kept: while it is there, nothing that it speaks of is removed.
pub const KEPT: &str = "state.json";
/// The file that holds the reflink filesystem, when DIR is not on one.
const IMAGE: &str = "host.img";

/// What was made on this machine. Closing it takes everything down again; so does dropping it, for the
/// case that setting up fails half way.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
    made_dir: bool,
    image_loop: Option<PathBuf>,
    mounted: bool,
    loops: Vec<PathBuf>,
    view: Option<PathBuf>,
    closed: bool,
    lock: Option<Flock<std::fs::File>>,
}

impl Host {
    /// Takes the folder, and takes down what a killed predecessor left in it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let made_dir = !dir.exists();
        std::fs::create_dir_all(dir).map_err(Error::io(format!("create the folder {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(Error::io(format!("resolve {}", dir.display())))?;
        let lock = std::fs::File::create(dir.join("lock"))
            .map_err(Error::io(format!("write into {}", dir.display())))?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Locked(dir.clone()))?;
        stale::reclaim(&dir)?;
        Ok(Self {
            dir,
            made_dir,
            image_loop: None,
            mounted: false,
            loops: Vec::new(),
            view: None,
            closed: false,
            lock: Some(lock),
        })
    }

    /// The folder, as an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the reflink filesystem (unless the folder is on one) and the pool.
    pub fn make_store(&mut self, pool: u64, image: Option<Bytes>) -> Result<Store, Error> {
        let root = self.root();
        std::fs::create_dir_all(&root).map_err(Error::io(format!("create {}", root.display())))?;
        if !store::can_clone_in(&root) {
            // Room for a dozen full copies and for volumes that are made later; the image is sparse, so this
            // costs nothing until it is used.
            let size = image.map_or(pool.saturating_mul(12) + 16 * GIB, |bytes| bytes.0);
            self.make_image(size.max(GIB))?;
            self.mount_image()?;
        }
        Store::create(&root, pool)
    }

    /// Finds the store that a predecessor kept.
    pub fn open_store(&mut self, pool: u64) -> Result<Store, Error> {
        if self.dir.join(IMAGE).exists() {
            self.mount_image()?;
        }
        Store::open(&self.root(), pool)
    }

    fn root(&self) -> PathBuf {
        self.dir.join("host")
    }

    fn make_image(&self, size: u64) -> Result<(), Error> {
        let image = self.dir.join(IMAGE);
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(size))
            .map_err(Error::io(format!("create {}", image.display())))?;
        run(Command::new("mkfs.xfs").args(["-q", "-f", "-K", "-m", "reflink=1"]).arg(&image))?;
        Ok(())
    }

    fn mount_image(&mut self) -> Result<(), Error> {
        let (image, root) = (self.dir.join(IMAGE), &self.root());
        let device = loops::attach(&image, None, false)?;
        self.image_loop = Some(device.clone());
        nix::mount::mount(
            Some(&device),
            root,
            Some("xfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME,
            None::<&str>,
        )
        .map_err(|errno| Error::Io {
            what: format!("mount {} on {}", device.display(), root.display()),
            source: errno.into(),
        })?;
        self.mounted = true;
        // Other namespaces must not keep a copy of it alive.
        nix::mount::mount(None::<&str>, root, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).map_err(
            |errno| Error::Io {
                what: format!("make the mount {} private", root.display()),
                source: errno.into(),
            },
        )
    }

    /// Exposes a window of the pool as a device with partitions.
    pub fn expose(&mut self, store: &Store, window: Window) -> Result<PathBuf, Error> {
        let device = loops::attach(store.pool(), Some(window), false)?;
        self.loops.push(device.clone());
        Ok(device)
    }

    /// Tells a volume's device to go, which it does when nobody uses it any more: see [`Host::is_gone`].
    pub fn let_go(&mut self, device: &Path) -> Result<(), Error> {
        loops::let_go(device)
    }

    /// Whether a volume's device has gone. Once it has, it is not ours any more.
    pub fn is_gone(&mut self, store: &Store, device: &Path, window: Window) -> bool {
        let gone = !loops::shows(device, store.pool(), window.offset);
        if gone {
            self.loops.retain(|known| known != device);
        }
        gone
    }

    /// Mounts the tmpfs that views are made of.
    pub fn mount_view(&mut self) -> Result<PathBuf, Error> {
        let stage = self.dir.join("view");
        std::fs::create_dir_all(&stage).map_err(Error::io(format!("create {}", stage.display())))?;
        let failed = |what: &str, errno: nix::Error| Error::Io {
            what: format!("{what} {}", stage.display()),
            source: errno.into(),
        };
        nix::mount::mount(
            Some("tmpfs"),
            &stage,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=755"),
        )
        .map_err(|errno| failed("mount a tmpfs on", errno))?;
        self.view = Some(stage.clone());
        nix::mount::mount(None::<&str>, &stage, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|errno| failed("make private the mount", errno))?;
        Ok(stage)
    }

    /// Makes a device of a private copy of a snapshot.
    pub fn expose_copy(
        &mut self,
        store: &Store,
        image: &Path,
        window: Window,
        read_only: bool,
    ) -> Result<PathBuf, Error> {
        let copy = store.private_copy(image)?;
        let device = loops::attach(&copy, Some(window), read_only).inspect_err(|_| {
            let _ = std::fs::remove_file(&copy);
        })?;
        // The loop keeps the file alive; without a name nothing is left to be forgotten.
        std::fs::remove_file(&copy).map_err(Error::io(format!("unlink {}", copy.display())))?;
        self.loops.push(device.clone());
        Ok(device)
    }

    /// Takes down a device that [`Host::expose_copy`] made. Says who still uses it, if anybody does.
    pub fn release(&mut self, device: &Path) -> Result<Option<InUse>, Error> {
        let Some(at) = self.loops.iter().position(|known| known == device) else {
            return Err(Error::NotOurs(device.display().to_string()));
        };
        let in_use = loops::detach(device)?;
        self.loops.remove(at);
        Ok(in_use)
    }

    /// Takes everything down and says what is still in use. What is in use is detached lazily: it goes
    /// when its last user does.
    pub fn close(&mut self) -> (Vec<InUse>, Vec<Error>) {
        let (mut in_use, mut errors) = (Vec::new(), Vec::new());
        if std::mem::replace(&mut self.closed, true) {
            return (in_use, errors);
        }
        if let Some(view) = self.view.take()
            && let Err(errno) = nix::mount::umount2(&view, MntFlags::MNT_DETACH)
        {
            errors.push(Error::Io { what: format!("unmount {}", view.display()), source: errno.into() });
        }
        for device in self.loops.drain(..).rev() {
            // It may have gone by itself, and its number may be somebody else's.
            if !loops::shows_under(&device, &self.dir) {
                continue;
            }
            match loops::detach(&device) {
                Ok(user) => in_use.extend(user),
                Err(error) => errors.push(error),
            }
        }
        let root = self.root();
        if self.mounted
            && nix::mount::umount(&root).is_err()
            && let Err(errno) = nix::mount::umount2(&root, MntFlags::MNT_DETACH)
        {
            errors.push(Error::Io { what: format!("unmount {}", root.display()), source: errno.into() });
        }
        if let Some(device) = self.image_loop.take() {
            busy::recall(&loops::numbers_of(&device), &root);
            match loops::detach(&device) {
                // The image is in use only because volumes are, and those are named already.
                Ok(Some(user)) if in_use.is_empty() => in_use.push(user),
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        stale::remove_files(&self.dir);
        let _ = std::fs::remove_file(self.dir.join("lock"));
        self.lock = None;
        if self.made_dir {
            // Fails when somebody put something there, which is then theirs to keep.
            let _ = std::fs::remove_dir(&self.dir);
        }
        (in_use, errors)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for error in self.close().1 {
            tracing::warn!("while taking down: {error}");
        }
    }
}
