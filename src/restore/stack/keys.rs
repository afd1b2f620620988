//! Keys of LUKS: files, or whoever sits at the terminal.
//!
//! In: paths of files that root alone can read. Out: their content, to the standard input of cryptsetup. Must never: read
//! one, copy one, or name one in an argument of a program.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::host::trust::{self, OpenError, Trusted};
use crate::path_encoding::shown;

/// One of them.
pub(super) enum Key {
    /// A file, and its name for people.
    File(String, std::io::Result<File>),
    /// Whoever sits at the terminal is asked.
    Terminal,
}

/// Keys that are tried, in their order.
#[derive(Debug, Default)]
pub struct Keys {
    files: Vec<(PathBuf, File)>,
    terminal: bool,
}

impl Keys {
    /// These files; where there are none, and standard input is a terminal, whoever sits there is asked.
    ///
    /// # Errors
    /// When one cannot be opened, or others can read or change it.
    pub fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let files = paths.iter().map(|p| Ok((p.clone(), checked(p)?))).collect::<Result<_, String>>()?;
        Ok(Self { files, terminal: std::io::stdin().is_terminal() })
    }

    /// These files alone: nobody is asked.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_files(paths: &[PathBuf]) -> Result<Self, String> {
        Ok(Self { terminal: false, ..Self::open(paths)? })
    }

    /// Each in turn, from its beginning.
    pub(super) fn each(&self) -> impl Iterator<Item = Key> {
        let files = self.files.iter().map(|(path, file)| {
            // Another descriptor of the same file: where one is read to does not move the other.
            Key::File(shown(path), File::open(trust::by_descriptor(file)))
        });
        files.chain((self.files.is_empty() && self.terminal).then_some(Key::Terminal))
    }

    /// Is there any way to a key?
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.files.is_empty() && !self.terminal
    }
}

fn checked(path: &Path) -> Result<File, String> {
    let place = shown(path);
    let file = trust::open(path, Trusted::own()).map_err(|e| match e {
        OpenError::Loose(loose) => loose.to_string(),
        OpenError::Io(e) => format!("{place}: {e}"),
    })?;
    let about = file.metadata().map_err(|e| format!("{place}: {e}"))?;
    if !about.is_file() || about.len() == 0 {
        return Err(format!("{place} is no file with a key"));
    }
    // The bits of the group are also the most that an access list allows.
    if about.mode() & 0o077 != 0 {
        return Err(format!("{place} can be read by others than root: chmod 600 {place}"));
    }
    Ok(file)
}
