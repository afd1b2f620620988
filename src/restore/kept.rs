//! Files by which a host remembers its restores: FOLDER/ID.json below STATE_DIR, for root alone.
//!
//! In: a value, the id of a restore. Out: the same value, also after a reboot. Must never: read a file without end, or
//! leave half of one.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::file::{self, Lasts};
use crate::ids::RunId;

/// A folder of STATE_DIR, and the longest that one of its files is, in bytes.
pub(super) struct Kept {
    pub folder: &'static str,
    pub most: u64,
}

impl Kept {
    fn path(&self, state_dir: &Path, id: &RunId) -> PathBuf {
        state_dir.join(self.folder).join(format!("{id}.json"))
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path, id: &RunId, value: &impl Serialize) -> std::io::Result<()> {
        file::make_folder(&state_dir.join(self.folder), 0o700)?;
        let text = serde_json::to_vec(value).map_err(Error::other)?;
        file::replace(&self.path(state_dir, id), &text, 0o600, Lasts::OnDisk)
    }

    /// Reads it; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read<T: DeserializeOwned>(&self, state_dir: &Path, id: &RunId) -> std::io::Result<Option<T>> {
        let path = self.path(state_dir, id);
        let text = match std::fs::metadata(&path) {
            Ok(m) if m.len() > self.most => return Err(Error::new(ErrorKind::InvalidData, "it is too long")),
            Ok(_) => std::fs::read(&path)?,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Those that there are, in the order in which they began.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(&self, state_dir: &Path) -> std::io::Result<Vec<RunId>> {
        let folder = match std::fs::read_dir(state_dir.join(self.folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let mut ids = Vec::new();
        for entry in folder {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|n| n.strip_suffix(".json"));
            ids.extend(id.and_then(|id| id.parse::<RunId>().ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, state_dir: &Path, id: &RunId) -> std::io::Result<()> {
        match std::fs::remove_file(self.path(state_dir, id)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Refuses what a newer build has written.
pub(super) fn known(version: u32, versions: &[u32]) -> std::io::Result<()> {
    match versions.contains(&version) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::InvalidData, format!("it has version {version}"))),
    }
}
