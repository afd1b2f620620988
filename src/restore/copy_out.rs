//! Files of a restored set are copied out of it.
//!
//! In: a restore that is mounted, paths as they were on the set's host, a folder. Out: the same files in that folder, with
//! owners, modes, times, links, ACLs and attributes. Must never: follow a link of the restored filesystems, or write
//! anywhere but into that folder.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use tokio::io::AsyncReadExt as _;

use super::make::Stopped;
use super::mounts;
use crate::host::beneath;
use crate::host::trust::by_descriptor;
use crate::interrupt::Interrupt;
use crate::path_encoding::{printable, shown};
use crate::quiesce::query;
use crate::sets::lines::SetFilesystem;

/// So much of what `cp` says is kept.
const MOST: u64 = 4096;

fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// The filesystems that these paths are on, and those that were mounted below them: their mount points.
///
/// # Errors
/// The first path that is on none of them, or that would get the name of another one.
pub fn filesystems(paths: &[PathBuf], all: &[SetFilesystem]) -> Result<Vec<PathBuf>, String> {
    let places: Vec<&PathBuf> =
        all.iter().flat_map(|f| std::iter::once(&f.mount_point).chain(&f.also)).collect();
    let mut wanted: Vec<PathBuf> = Vec::new();
    let mut names: Vec<OsString> = Vec::new();
    for path in paths {
        let Some(name) = path.file_name().filter(|_| path.components().count() > 1) else {
            return Err(format!("{} has no name to be copied by", shown(path)));
        };
        if names.iter().any(|n| n == name) {
            return Err(format!("two of what is to be copied have the name {}", shown(Path::new(name))));
        }
        names.push(name.to_owned());
        let Some(on) = places.iter().filter(|p| path.starts_with(p)).max_by_key(|p| p.components().count())
        else {
            return Err(format!("{} is on no filesystem of the set", shown(path)));
        };
        wanted.push((*on).clone());
        wanted.extend(places.iter().filter(|p| p.starts_with(path)).map(|p| (*p).clone()));
    }
    wanted.sort();
    wanted.dedup();
    Ok(wanted)
}

/// Copies these paths, which are mounted beneath `from`, into a folder that is made or empty. Returns what it has made.
///
/// # Errors
/// The first that is not there, or that could not be copied whole; a signal.
pub async fn copy(
    from: &Path,
    paths: &[PathBuf],
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
    for path in paths {
        found.push(find(&root, path).map_err(here)?);
    }
    let target = mounts::target(into, true).map_err(here)?;
    let mut made = Vec::new();
    for ((folder, name), path) in found.iter().zip(paths) {
        let place = into.join(name);
        one(folder, name, &place, interrupt).await?;
        tell(&format!("{} is copied to {}", shown(path), shown(&place)));
        made.push(place);
    }
    // What the disk refuses is known only then.
    sync(&target)
        .map_err(|e| here(format!("{}: what was copied cannot be written out: {e}", shown(into))))?;
    Ok(made)
}

fn sync(folder: &OwnedFd) -> std::io::Result<()> {
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::openat(folder, ".", open, Mode::empty())?;
    Ok(rustix::fs::syncfs(opened)?)
}

/// The folder that a path is in, past no link, and its name there.
fn find(root: &OwnedFd, path: &Path) -> Result<(OwnedFd, OsString), String> {
    let name = path.file_name().ok_or_else(|| format!("{} has no name", shown(path)))?;
    let mut folder = root.try_clone().map_err(|e| e.to_string())?;
    let mut so_far = PathBuf::from("/");
    let above = path.parent().unwrap_or(Path::new("/"));
    for part in above.strip_prefix("/").unwrap_or(above).components() {
        so_far.push(part);
        folder = beneath::entry(&folder, part.as_os_str()).map_err(|errno| match errno {
            nix::errno::Errno::ELOOP => {
                format!("{} is a link in the set: name what it leads to", shown(&so_far))
            }
            _ => format!("{} in the set: {}", shown(&so_far), errno.desc()),
        })?;
    }
    fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| format!("{} in the set: {}", shown(path), errno.desc()))?;
    Ok((folder, name.to_owned()))
}

async fn one(folder: &OwnedFd, name: &OsString, place: &Path, interrupt: &Interrupt) -> Result<(), Stopped> {
    let program = query::program("cp").map_err(here)?;
    let mut command = tokio::process::Command::new(program);
    command.args(["--archive", "--no-target-directory", "--"]).arg(Path::new(".").join(name)).arg(place);
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

    #[test]
    fn the_filesystem_that_a_path_is_on_and_those_below_it_are_meant() {
        let line = |at: &str| SetFilesystem {
            mount_point: at.into(),
            fstype: "ext4".to_owned(),
            uuid: None,
            method: crate::consistency::Method::Freeze,
            volumes: Vec::new(),
            stack: String::new(),
            options: String::new(),
            also: Vec::new(),
            roots: Vec::new(),
        };
        let all = [line("/var"), line("/var/lib/db"), line("/data")];
        let of = |paths: &[&str]| filesystems(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), &all);
        let is = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(of(&["/var/lib/db/x"]).unwrap(), is(&["/var/lib/db"]));
        assert_eq!(of(&["/var/lib", "/data"]).unwrap(), is(&["/data", "/var", "/var/lib/db"]));
        assert_eq!(of(&["/variable"]).unwrap_err(), "/variable is on no filesystem of the set");
        assert!(of(&["/"]).unwrap_err().contains("no name"));
        assert!(of(&["/data/x", "/var/x"]).unwrap_err().contains("the name x"));
    }
}
