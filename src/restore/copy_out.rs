//! Files of a restored set are copied out of it.
//!
//! In: a restore that is mounted, paths as they were on the set's host, a folder. Out: the same files in that folder, with
//! owners, modes, times, links, ACLs and attributes. Must never: follow a link of the restored filesystems, or write
//! anywhere but into that folder.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::make::Stopped;
use super::mounts;
use crate::host::beneath;
use crate::host::trust::by_descriptor;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::path_encoding::{self, printable, shown};
use crate::quiesce::query;
use crate::sets::lines::SetFilesystem;

/// So much of what `cp` says is kept.
const MOST: u64 = 4096;

fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// What is copied out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its path on the host of the set.
    #[serde(with = "path_encoding::bytes")]
    pub path: PathBuf,
    /// Where it is beneath the target folder; empty for the folder itself.
    #[serde(with = "path_encoding::bytes")]
    pub at: PathBuf,
}

/// The folder that filesystems are mounted beneath while something is copied out of them. Nobody but root gets there: what
/// is in them is other users', who could change it under the copy.
#[must_use]
pub fn folder(state_dir: &Path, id: &RunId) -> PathBuf {
    state_dir.join("restores").join(format!("{id}.files"))
}

/// The filesystems that these paths are on, and those that were mounted below them, by their mount points; and where the
/// paths are when these are restored.
///
/// # Errors
/// The first path that is on none of them, that would get the name of another one, or that would not be whole.
pub fn wanted(paths: &[PathBuf], all: &[SetFilesystem]) -> Result<(Vec<PathBuf>, Vec<Wanted>), String> {
    let mut places: Vec<Place<'_>> = all.iter().flat_map(Place::all).collect();
    places.sort_by_key(|p| p.at.components().count());
    let (mut mounts, mut wanted) = (Vec::new(), Vec::new());
    let mut names: Vec<OsString> = Vec::new();
    for path in paths {
        let Some(name) = path.file_name().filter(|_| path.components().count() > 1) else {
            return Err(format!("{} has no name to be copied by", shown(path)));
        };
        if names.iter().any(|n| n == name) {
            return Err(format!("two of what is to be copied have the name {}", shown(Path::new(name))));
        }
        names.push(name.to_owned());
        let Some(on) = places.iter().rfind(|p| path.starts_with(p.at)) else {
            return Err(format!("{} is on no filesystem of the set", shown(path)));
        };
        let at = on.restored(path);
        mounts.push(on.filesystem.mount_point.clone());
        for inner in places.iter().filter(|p| p.at != path && p.at.starts_with(path)) {
            let beneath = at.join(inner.at.strip_prefix(path).unwrap_or(inner.at));
            if inner.restored != beneath {
                return Err(format!(
                    "{} was bound or mounted in it, and is not when {} is restored: copy what you need of each by itself",
                    shown(inner.at),
                    shown(path)
                ));
            }
            mounts.push(inner.filesystem.mount_point.clone());
        }
        wanted.push(Wanted { path: path.clone(), at });
    }
    mounts.sort();
    mounts.dedup();
    Ok((mounts, wanted))
}

/// A place that a filesystem was mounted at.
struct Place<'a> {
    at: &'a Path,
    /// Where the same folder is beneath the target folder: a subvolume of btrfs is mounted by itself again, anything else
    /// whole and once.
    restored: PathBuf,
    filesystem: &'a SetFilesystem,
}

/// Where a path of the set's host is beneath the folder that its filesystems are restored to; none where it is on none of
/// these filesystems.
#[must_use]
pub fn restored(path: &Path, of: &[&SetFilesystem]) -> Option<PathBuf> {
    let places = of.iter().flat_map(|f| Place::all(f)).filter(|p| path.starts_with(p.at));
    places.max_by_key(|p| p.at.components().count()).map(|on| on.restored(path))
}

impl<'a> Place<'a> {
    /// Where a path below it is. Without a slash at its end, where it is the place itself.
    fn restored(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.at).unwrap_or(Path::new(""));
        self.restored.join(below).components().collect()
    }

    fn all(filesystem: &'a SetFilesystem) -> impl Iterator<Item = Self> {
        let relative = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
        let all = std::iter::once(&filesystem.mount_point).chain(&filesystem.also);
        all.enumerate().map(move |(n, at)| {
            let restored = match filesystem.roots.get(n) {
                _ if filesystem.fstype == "btrfs" => relative(at),
                None => relative(&filesystem.mount_point),
                Some(root) => relative(&filesystem.mount_point).join(relative(root)),
            };
            Self { at, restored, filesystem }
        })
    }
}

/// Copies what is mounted beneath `from` into a folder that is made or empty. Returns what it has made.
///
/// # Errors
/// The first that is not there, or that could not be copied whole; a signal.
pub async fn copy(
    from: &Path,
    wanted: &[Wanted],
    into: &Path,
    interrupt: &Interrupt,
    tell: &dyn Fn(&str),
) -> Result<Vec<PathBuf>, Stopped> {
    let open = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(from, open, Mode::empty());
    let root = root.map_err(|e| here(format!("{}: {}", shown(from), e.desc())))?;
    let root = mounts::over(root).map_err(here)?;
    let mut found = Vec::new();
    // All of them are looked for before the first is copied.
    for one in wanted {
        found.push(find(&root, one).map_err(here)?);
    }
    let target = mounts::target(into, true).map_err(here)?;
    let mode = fstat(&target).map_err(|e| here(format!("{}: {}", shown(into), e.desc())))?.st_mode;
    own_alone(into, mode).map_err(here)?;
    let mut made = Vec::new();
    for ((folder, name), one) in found.iter().zip(wanted) {
        let place = into.join(one.path.file_name().unwrap_or_default());
        self::one(folder, name, &place, interrupt).await?;
        tell(&format!("{} is copied to {}", shown(&one.path), shown(&place)));
        made.push(place);
    }
    // What the disk refuses is known only then.
    sync(&target)
        .map_err(|e| here(format!("{}: what was copied cannot be written out: {e}", shown(into))))?;
    Ok(made)
}

/// Can this be the folder that is copied into? Changes nothing.
///
/// # Errors
/// Why not.
pub fn check_into(into: &Path) -> Result<(), String> {
    mounts::check_target(into)?;
    std::fs::symlink_metadata(into).map_or(Ok(()), |there| own_alone(into, there.mode()))
}

/// What is setuid or a device in the set is so in the copy, and what was in a closed folder may not be in one any more.
fn own_alone(into: &Path, mode: u32) -> Result<(), String> {
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(format!("{} is open to others: `chmod 700` it first", shown(into))),
    }
}

fn sync(folder: &OwnedFd) -> std::io::Result<()> {
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::openat(folder, ".", open, Mode::empty())?;
    Ok(rustix::fs::syncfs(opened)?)
}

/// Is this beneath the folder, past no link?
///
/// # Errors
/// What stands in the way.
pub fn is_reached(from: &Path, at: &Path) -> Result<(), String> {
    let open = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(from, open, Mode::empty());
    let root = mounts::over(root.map_err(|e| format!("{}: {}", shown(from), e.desc()))?)?;
    walk(root, at).map(drop)
}

/// This folder beneath another one, past no link.
fn walk(mut folder: OwnedFd, at: &Path) -> Result<OwnedFd, String> {
    let mut so_far = PathBuf::from("/");
    for part in at.components() {
        so_far.push(part);
        folder = beneath::entry(&folder, part.as_os_str()).map_err(|errno| match errno {
            nix::errno::Errno::ELOOP => {
                format!("{} is a link in the set: name what it leads to", shown(&so_far))
            }
            _ => format!("{} in the set: {}", shown(&so_far), errno.desc()),
        })?;
    }
    Ok(folder)
}

/// The folder that something is in, past no link, and its name there.
fn find(root: &OwnedFd, wanted: &Wanted) -> Result<(OwnedFd, OsString), String> {
    let root = root.try_clone().map_err(|e| e.to_string())?;
    let Some(name) = wanted.at.file_name() else { return Ok((root, ".".into())) };
    let folder = walk(root, wanted.at.parent().unwrap_or(Path::new("")))?;
    fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| format!("{} in the set: {}", shown(&wanted.path), errno.desc()))?;
    Ok((folder, name.to_owned()))
}

async fn one(folder: &OwnedFd, name: &OsString, place: &Path, interrupt: &Interrupt) -> Result<(), Stopped> {
    let program = query::program("cp").map_err(here)?;
    let mut command = tokio::process::Command::new(program);
    // Not --archive, which says nothing of an attribute that the target cannot keep. ACLs are of the mode.
    command.args(["--recursive", "--no-dereference", "--preserve=mode,ownership,timestamps,links,xattr"]);
    command.args(["--no-target-directory", "--"]).arg(Path::new(".").join(name)).arg(place);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // The folder itself, whatever its path leads to.
    command.current_dir(by_descriptor(folder)).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| here(format!("cp: {e}")))?;
    let mut said = Vec::new();
    let mut signal = interrupt.clone();
    let ended = async {
        if let Some(errors) = child.stderr.take() {
            let mut errors = errors;
            let _ = (&mut errors).take(MOST).read_to_end(&mut said).await;
            // The rest is let go: with nobody to read it, it would wait.
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        biased;
        signal = signal.caught() => return Err(Stopped::Signal(signal)),
        status = ended => status.map_err(|e| here(format!("cp: {e}")))?,
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().find(|l| !l.trim().is_empty()).unwrap_or("it gives no reason");
    Err(here(format!("{} is not copied whole: {}", shown(place), printable(first.trim()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::lines::SetFilesystem;

    fn line(at: &str) -> SetFilesystem {
        SetFilesystem {
            mount_point: at.into(),
            fstype: "ext4".to_owned(),
            uuid: None,
            method: crate::consistency::Method::Freeze,
            volumes: Vec::new(),
            stack: String::new(),
            options: String::new(),
            also: Vec::new(),
            roots: Vec::new(),
        }
    }

    #[test]
    fn the_filesystem_that_a_path_is_on_and_those_below_it_are_meant() {
        let all = [line("/var"), line("/var/lib/db"), line("/data")];
        let of = |paths: &[&str]| wanted(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), &all);
        let mounts = |paths: &[&str]| of(paths).unwrap().0;
        let is = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(mounts(&["/var/lib/db/x"]), is(&["/var/lib/db"]));
        assert_eq!(mounts(&["/var/lib", "/data"]), is(&["/data", "/var", "/var/lib/db"]));
        assert_eq!(of(&["/var/lib/db/x"]).unwrap().1[0].at, Path::new("var/lib/db/x"));
        assert_eq!(of(&["/variable"]).unwrap_err(), "/variable is on no filesystem of the set");
        assert!(of(&["/"]).unwrap_err().contains("no name"));
        assert!(of(&["/data/x", "/var/x"]).unwrap_err().contains("the name x"));
    }

    #[test]
    fn what_was_bound_is_where_its_filesystem_is_and_never_left_out() {
        let mut srv = line("/srv");
        srv.also = vec!["/home".into(), "/srv/bound".into(), "/twice".into()];
        srv.roots = vec!["/".into(), "/people".into(), "/bound-from".into(), "/".into()];
        let mut folder = line("/only");
        folder.roots = vec!["/below/it".into()];
        let mut subvolumes = line("/btr");
        subvolumes.fstype = "btrfs".to_owned();
        subvolumes.also = vec!["/sub".into()];
        subvolumes.roots = vec!["/@".into(), "/@sub".into()];
        let all = [srv, folder, line("/only/other"), subvolumes];
        let of = |path: &str| wanted(&[path.into()], &all);
        let at = |path: &str| of(path).map(|(_, wanted)| wanted[0].at.to_str().unwrap().to_owned());
        assert_eq!(at("/srv/x").unwrap(), "srv/x");
        assert_eq!(at("/home/anna").unwrap(), "srv/people/anna");
        assert_eq!(at("/home").unwrap(), "srv/people");
        assert_eq!(at("/twice").unwrap(), "srv");
        assert_eq!(at("/srv/bound/x").unwrap(), "srv/bound-from/x");
        assert_eq!(at("/only/x").unwrap(), "only/below/it/x");
        assert_eq!(at("/sub/x").unwrap(), "sub/x");
        assert!(of("/srv").unwrap_err().starts_with("/srv/bound was bound"));
        assert!(of("/only").unwrap_err().starts_with("/only/other was bound"));
        assert_eq!(of("/home").unwrap().0, [PathBuf::from("/srv")]);
    }
}
