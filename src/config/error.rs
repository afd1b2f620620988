//! The errors of a configuration, with their positions.
//!
//! In: a position and what was found there. Out: [`ConfigError`], which names the file, line and column, and
//! says what to write instead. Must never: name a value without its position.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::ser::SerializeMap;

use crate::host::trust::Loose;

/// A position in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it was opened: below the root, or as `--config` names it.
    pub file: Arc<Path>,
    /// Counts from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Where an effective value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No file, flag or variable sets it.
    Default,
    /// Set by a file, at this place.
    File(Place),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
    /// Set by the environment variable of this name.
    Environment(&'static str),
    /// Set by one of the AWS SDK's files, in this section of it.
    Aws {
        /// As it was opened.
        file: Arc<Path>,
        /// Without its brackets, such as `profile default`.
        section: String,
    },
}

impl Origin {
    /// The position for an error message: with the column, where there is one.
    fn position(&self) -> String {
        match self {
            Self::File(place) => place.to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File(place) => write!(f, "{}:{}", place.file.display(), place.line),
            Self::Flag(flag) => write!(f, "command line {flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Aws { file, section } => write!(f, "{} [{section}]", file.display()),
        }
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        match self {
            Self::Default => map.serialize_entry("kind", "default")?,
            Self::File(place) => {
                map.serialize_entry("kind", "file")?;
                map.serialize_entry("file", &place.file.display().to_string())?;
                map.serialize_entry("line", &place.line)?;
            }
            Self::Flag(flag) => {
                map.serialize_entry("kind", "flag")?;
                map.serialize_entry("name", flag)?;
            }
            Self::Environment(name) => {
                map.serialize_entry("kind", "environment")?;
                map.serialize_entry("name", name)?;
            }
            Self::Aws { file, section } => {
                map.serialize_entry("kind", "aws_file")?;
                map.serialize_entry("file", &file.display().to_string())?;
                map.serialize_entry("section", section)?;
            }
        }
        map.end()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub(crate) origin: Origin,
}

/// Why the configuration cannot be used. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot use {}: {problem}", path.display())]
    File { path: PathBuf, problem: &'static str, hint: &'static str },
    #[error("the configuration {} is not read: {loose}", path.display())]
    Loose { path: PathBuf, loose: Loose },
    #[error("{place}: {message}")]
    Syntax { place: Place, message: String },
    #[error("{place}: unknown key `{key}` in {table}")]
    UnknownKey {
        place: Place,
        key: String,
        table: String,
        /// The known key that is most like it, and every key known there.
        hint: String,
    },
    #[error("{}: `{key}` {problem}", origin.position())]
    Invalid {
        origin: Origin,
        key: String,
        /// What is wrong, continuing a sentence that starts with the key.
        problem: String,
        hint: Option<String>,
    },
    #[error("there is no plan `{name}`")]
    UnknownPlan {
        name: String,
        /// The plan whose name is most like it, and every plan there is.
        hint: String,
    },
}

impl ConfigError {
    /// What to do about it, where there is a hint.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } => (source.kind() == io::ErrorKind::PermissionDenied)
                .then(|| "stillpoint runs as root; so must whoever checks its configuration".to_owned()),
            Self::File { hint, .. } => Some((*hint).to_owned()),
            Self::Loose { loose, .. } => {
                Some(format!("{}; who can change the configuration decides what root runs", loose.remedy))
            }
            Self::Syntax { .. } => None,
            Self::UnknownKey { hint, .. } => Some(hint.clone()),
            Self::Invalid { hint, .. } => hint.clone(),
            Self::UnknownPlan { hint, .. } => Some(hint.clone()),
        }
    }
}

/// `did you mean …? <what>: a, b, c`.
pub(super) fn choices<'a>(word: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let list = known.clone().collect::<Vec<_>>().join(", ");
    match nearest(word, known) {
        Some(nearest) => format!("did you mean `{nearest}`? {what}: {list}"),
        None => format!("{what}: {list}"),
    }
}

/// The known word that is most like `word`, if one is like it at all.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Below 0.75 the suggestions do not help (`pre` for `present`).
    known
        .map(|k| (strsim::jaro_winkler(word, k), k))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
