//! Where the program is that talks to databases: beside the one that runs.
//!
//! In: the file of the running program. Out: the path of [`NAME`] in the same folder. Must never: start a
//! file that somebody could change who could not change the running program.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Refusal;
use crate::host::process;

/// The program's file name.
pub const NAME: &str = "stillpoint-databases";

/// The program beside the one that runs.
///
/// # Errors
/// When it is not there, or others could have changed it.
pub fn find() -> Result<String, Refusal> {
    let own = std::env::current_exe()
        .map_err(|e| Refusal::new(format!("cannot find the file of the running program: {e}")))?;
    let own_file = process::own_program().map_err(|e| unusable(&own, &e.to_string()))?;
    let path = beside(&own, &own_file)?;
    path.into_os_string().into_string().map_err(|path| unusable(Path::new(&path), "its path is not UTF-8"))
}

/// The same for a program that was started from the file `own`.
fn beside(own: &Path, own_file: &Metadata) -> Result<PathBuf, Refusal> {
    let path = own.with_file_name(NAME);
    // The link itself is looked at: what a link leads to may lie in a folder that others can write.
    let found = match std::fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(e) => return Err(unusable(&path, &e.to_string())),
    };
    match why_untrusted(&found, own_file) {
        None => Ok(path),
        Some(why) => Err(Refusal::new(format!("{} {why}: it is not started", path.display())).hint(format!(
            "install it anew, root's and writable by nobody else: install -m 755 {NAME} /usr/bin/"
        ))),
    }
}

fn unusable(path: &Path, why: &str) -> Refusal {
    Refusal::new(format!("the program that talks to databases, {}, cannot be used: {why}", path.display()))
        .hint(format!("install {NAME} into the folder that stillpoint is in, from the same build"))
}

/// Why this file may have been made or changed by somebody who could not have changed the running program, if
/// so.
fn why_untrusted(found: &Metadata, own: &Metadata) -> Option<String> {
    if !found.is_file() {
        return Some("is not a plain file".to_owned());
    }
    if found.uid() != 0 && found.uid() != own.uid() {
        return Some(format!("belongs to user {}", found.uid()));
    }
    let looser = |bit: u32| found.mode() & bit != 0 && own.mode() & bit == 0;
    if looser(0o002) {
        return Some("can be written by everybody".to_owned());
    }
    let other_group = found.gid() != own.gid();
    if found.mode() & 0o020 != 0 && found.gid() != 0 && (looser(0o020) || other_group) {
        return Some(format!("can be written by group {}", found.gid()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A folder with both programs in it.
    fn installed(own_mode: u32, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("stillpoint");
        for (path, mode) in [(own.clone(), own_mode), (dir.path().join(NAME), mode)] {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        (dir, own)
    }

    fn found(own: &Path) -> Result<PathBuf, Refusal> {
        beside(own, &std::fs::metadata(own).unwrap())
    }

    #[test]
    fn it_is_the_one_in_the_same_folder() {
        let (dir, own) = installed(0o755, 0o755);
        assert_eq!(found(&own).unwrap(), dir.path().join(NAME));
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        let refusal = found(&own).unwrap_err();
        assert!(refusal.what.contains(NAME) && refusal.hint.unwrap().contains("from the same build"));
    }

    #[test]
    fn one_that_others_could_change_is_not_started() {
        for (mode, why) in [(0o757, "by everybody"), (0o777, "by everybody")] {
            let (_dir, own) = installed(0o755, mode);
            assert!(found(&own).unwrap_err().what.contains(why), "{mode:o}");
        }
        // Whoever can change the running program is trusted with this one too.
        let (_dir, own) = installed(0o777, 0o757);
        found(&own).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let (dir, own) = installed(0o755, 0o755);
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join(NAME);
        std::fs::rename(dir.path().join(NAME), &target).unwrap();
        symlink(&target, dir.path().join(NAME)).unwrap();
        assert!(found(&own).unwrap_err().what.contains("not a plain file"));
    }

    /// Needs root: a file of another user cannot be made otherwise.
    #[test]
    fn one_of_another_user_or_group_is_not_started() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (dir, own) = installed(0o755, 0o775);
        let path = dir.path().join(NAME);
        let give =
            |uid: u32, gid: u32| nix::unistd::chown(&path, Some(uid.into()), Some(gid.into())).unwrap();
        found(&own).expect("its group is root");
        give(0, 65534);
        assert!(found(&own).unwrap_err().what.contains("by group 65534"));
        give(65534, 0);
        assert!(found(&own).unwrap_err().what.contains("belongs to user 65534"));
    }
}
