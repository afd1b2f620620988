//! How a path is written: for people, and in JSON.
//!
//! In: any path, which need not be UTF-8. Out: text. Must never: fail, or pass a control character on to a
//! terminal.
//!
//! serde fails at a path that is not UTF-8; here such bytes become replacement characters.

use std::path::{Path, PathBuf};

use serde::Serializer;

pub(crate) fn path<S: Serializer>(p: &Path, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&p.to_string_lossy())
}

pub(crate) fn paths<S: Serializer>(ps: &[PathBuf], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(ps.iter().map(|p| p.to_string_lossy()))
}

pub(crate) fn optional<S: Serializer>(p: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
    match p {
        Some(p) => s.serialize_some(&p.to_string_lossy()),
        None => s.serialize_none(),
    }
}

/// A path for people: control characters, which could rewrite a terminal, become escapes.
pub(crate) fn shown(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_rewrite_the_terminal() {
        assert_eq!(shown(Path::new("/a\x1b[2J\nb é")), "/a\\u{1b}[2J\\nb é");
    }
}
