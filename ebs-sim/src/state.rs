//! `state.json`: what outlives a server that was told to keep it.
//!
//! In: the account and its keys. Out: one file in DIR, and the same back at the next start. While the file is
//! there, nothing that it speaks of must be removed; it must never be seen half written.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::KEPT;
use crate::keys::Keys;
use crate::world::World;

/// Goes up whenever an older ebs-sim could not read the file rightly.
const VERSION: u32 = 2;

/// The file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the saved state {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot understand the saved state {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("the saved state {} has format {found}, not {VERSION}", path.display())]
    Version {
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    #[error("cannot write the saved state {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} holds a saved simulation", .0.display())]
    Kept(PathBuf),
}

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Write { .. } => None,
            Error::Kept(_) => Some(
                "to go on with it: --keep, without --scenario and --volume; to forget it: `ebs-sim stop \
                 --discard --dir DIR`"
                    .into(),
            ),
            _ => Some("to forget it: `ebs-sim stop --discard --dir DIR`".into()),
        }
    }
}

/// What the file holds.
#[derive(Debug, Deserialize)]
pub struct Saved {
    /// The account, with the scenario it came from.
    pub world: World,
    /// The keys that clients may still hold.
    pub keys: Keys,
}

#[derive(Serialize)]
struct Saving<'a> {
    version: u32,
    world: &'a World,
    keys: &'a Keys,
}

/// Reads a folder's saved simulation, when it holds one.
pub fn read(dir: &Path) -> Result<Option<Saved>, Error> {
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }
    let path = dir.join(KEPT);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path, source }),
    };
    // The version first: what another one wrote need not have the same fields.
    let parse = |source| Error::Parse { path: path.clone(), source };
    let format: Format = serde_json::from_slice(&text).map_err(parse)?;
    if format.version != VERSION {
        return Err(Error::Version { path, found: format.version });
    }
    serde_json::from_slice(&text).map(Some).map_err(parse)
}

/// The file's text.
pub fn text(world: &World, keys: &Keys) -> Vec<u8> {
    serde_json::to_vec(&Saving { version: VERSION, world, keys }).unwrap_or_default()
}

/// Writes it under another name and renames it.
pub fn write(dir: &Path, text: &[u8]) -> Result<(), Error> {
    let path = dir.join(KEPT);
    let partial = dir.join(format!(".{KEPT}.new"));
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, &path))
        .map_err(|source| Error::Write { path, source })
}

/// Forgets it.
pub fn discard(dir: &Path) -> Result<(), Error> {
    let path = dir.join(KEPT);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Write { path, source }),
        _ => Ok(()),
    }
}
