//! Data directories that are made once and copied for each test: what initdb and mariadb-install-db do takes
//! seconds.
//!
//! In: how it is made, and where a test wants it. Out: a copy of its own, owners and all. A template is
//! beside the built programs, and is named by what it was made with: another version of the server, or other
//! settings, make another one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{sh, stillpoint};

/// Puts a copy at `to`, which must not be there yet. `make` is given the same place, and is called where
/// there is no template yet.
pub fn copy(name: &str, made_with: &str, to: &Path, make: impl FnOnce(&Path)) {
    let mut hash = DefaultHasher::new();
    made_with.hash(&mut hash);
    let folder = Path::new(stillpoint()).with_file_name("templates");
    std::fs::create_dir_all(&folder).unwrap();
    let template = folder.join(format!("{name}-{:016x}", hash.finish()));
    // Tests are processes of their own: one makes it, the others wait.
    let lock = std::fs::File::create(template.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if template.exists() {
        copied(&template, to);
        return;
    }
    make(to);
    let part = template.with_extension("part");
    let _ = std::fs::remove_dir_all(&part);
    copied(to, &part);
    std::fs::rename(part, template).unwrap();
}

fn copied(from: &Path, to: &Path) {
    let path = |p: &Path| PathBuf::from(p).into_os_string().into_string().unwrap();
    sh("cp", &["-a", "--sparse=always", &path(from), &path(to)]);
}
