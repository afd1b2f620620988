//! A program that sees no other devices than those that it is given.
//!
//! btrfs-progs look at every disk for others of a filesystem, and a clone's original has all that they look for. In a mount
//! namespace of its own, with a /dev of its own, the program finds none but the clone's; and nothing that udev knows.
//!
//! In: nodes, a program, its arguments. Out: becomes the program. Must never: run it where /dev is the host's.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};

/// The first argument of such a process.
pub const ARGUMENT: &str = "__apart";
/// Ends the nodes.
pub(super) const END: &str = "--";
/// What programs expect besides.
const ALWAYS: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];

/// Becomes the program. Returns only when that failed.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let why = become_it(args).err().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::from(127)
}

fn become_it(mut args: impl Iterator<Item = OsString>) -> Result<(), String> {
    let nodes: Vec<PathBuf> = args.by_ref().take_while(|a| a != END).map(PathBuf::from).collect();
    let program = args.next().ok_or("no program")?;
    let mut kept = Vec::new();
    for node in nodes.iter().map(PathBuf::as_path).chain(ALWAYS.map(Path::new)) {
        let about = std::fs::metadata(node).map_err(|e| format!("{}: {e}", node.display()))?;
        let kind = if about.file_type().is_block_device() { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        kept.push((node, kind, about.rdev()));
    }
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| format!("this process cannot have a mount namespace of its own: {}", e.desc()))?;
    let said = |what: &str, e: nix::errno::Errno| format!("{what}: {}", e.desc());
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|e| said("mounts cannot be kept apart from the host's", e))?;
    // By what udev knows of them, they are to be left alone (hide.rs).
    for place in ["/dev", "/run/udev"].into_iter().filter(|p| Path::new(p).is_dir()) {
        mount(Some("apart"), place, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=1m"))
            .map_err(|e| said(place, e))?;
    }
    for (node, kind, number) in kept {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        if let Some(folder) = node.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        mknod(node, kind, mode, number).map_err(|e| said(&node.display().to_string(), e))?;
    }
    // What libblkid remembers of the host's disks is neither read nor written.
    let failed = Command::new(&program).args(args).env("BLKID_FILE", "/dev/blkid.tab").exec();
    Err(format!("{}: {failed}", program.to_string_lossy()))
}
