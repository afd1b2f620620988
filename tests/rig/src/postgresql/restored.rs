//! The volumes of a set, next to the original.

use std::path::{Path, PathBuf};

use super::Cluster;
use crate::copy::Copy;
use crate::{Rig, sh};

/// The volumes of a set, mounted next to the original.
pub struct Restored {
    /// Here to be unmounted at the end.
    _copies: [Copy; 2],
    /// The data directory, its links pointing to the restored volumes.
    pub data: PathBuf,
    /// Folder of its socket.
    pub run: PathBuf,
}

impl Restored {
    /// `snapshots` by volume: of `data`, and of `wal`.
    pub fn mount(rig: &Rig, name: &str, data: &str, wal: &str) -> Self {
        Self::mount_folder(rig, name, data, wal, "pgdata")
    }

    /// The same, of a server whose data directory is another folder of the data volume.
    pub fn mount_folder(rig: &Rig, name: &str, data: &str, wal: &str, folder: &str) -> Self {
        rig.await_quiet();
        let copies = [("data", data), ("wal", wal)]
            .map(|(volume, snapshot)| Copy::mount(rig, snapshot, &format!("{name}-{volume}")));
        let data = copies[0].at.join(folder);
        std::fs::remove_file(data.join("postmaster.pid")).unwrap(); // the original's, which runs
        let mut links = vec![data.join("pg_wal")];
        links.extend(std::fs::read_dir(data.join("pg_tblspc")).unwrap().map(|e| e.unwrap().path()));
        for link in links {
            let target = restored(rig, name, &std::fs::read_link(&link).unwrap());
            std::fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(target, &link).unwrap();
        }
        Self { _copies: copies, data, run: rig.path(&format!("{name}-run")) }
    }

    /// Puts a file into the data directory.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.data.join(name);
        std::fs::write(&path, text).unwrap();
        sh("chown", &["postgres:", path.to_str().unwrap()]);
    }

    /// Starts a server on them.
    pub fn start(&self, options: &[&str]) -> Result<Cluster, String> {
        Cluster::start(&self.data, &self.run, options)
    }
}

/// Where a path on a volume is in the restored copy.
pub fn restored(rig: &Rig, name: &str, path: &Path) -> PathBuf {
    let at =
        |volume| Some(rig.path(&format!("{name}-{volume}")).join(path.strip_prefix(rig.mount(volume)).ok()?));
    at("data").or_else(|| at("wal")).unwrap()
}
