//! How words from outside are written: paths and any other text, for people and in JSON.
//!
//! In: any path, which need not be UTF-8, and text that anybody may have chosen (names of processes and FUSE
//! types, what hooks print, tags, EC2's messages). Out: text. Must never: fail, or pass a control character
//! on to a terminal.
//!
//! serde fails at a path that is not UTF-8; here such bytes become replacement characters.

use std::borrow::Cow;
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

/// Byte by byte, for another process of this program: nothing is replaced.
pub(crate) mod bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(p: &Path, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(p.as_os_str().as_bytes())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(d)?).into())
    }
}

/// A path for people.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

/// One line of text for people. What could rewrite a terminal, begin another line, or show other words than
/// are there (Unicode's bidirectional and invisible characters) becomes an escape. Text that was escaped
/// before stays as it is, so whatever prints may do this with all that it prints.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| out.extend(c.escape_default()))
}

/// The same for text of several lines, each of which is made of words that were escaped.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return printable(text);
    }
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n").into()
}

/// JSON, as serde_json makes it, without such characters. In its strings only those below U+0020 are escaped
/// already; outside of strings there is none but the line breaks.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    let hex = |c: char, out: &mut String| match c {
        '\n' => out.push(c),
        c => out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
    };
    escaped(json, hex)
}

/// The same for JSON that serde_json writes piece by piece: a piece is whole characters.
pub(crate) struct PrintableJson<W>(pub(crate) W);

impl<W: std::io::Write> std::io::Write for PrintableJson<W> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(piece).map_err(std::io::Error::other)?;
        self.0.write_all(printable_json(text).as_bytes())?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if deceives(c) { escape(c, &mut out) } else { out.push(c) }
    }
    out.into()
}

/// Control characters, and those of Unicode's category Cf, which have no shape of their own.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_written_piece_by_piece_is_as_the_whole() {
        let value = serde_json::json!({"a\u{9b}": ["\u{202e}x", "é\n\u{e0041}"], "b": 1.5});
        let mut out = Vec::new();
        serde_json::to_writer_pretty(PrintableJson(&mut out), &value).unwrap();
        let whole = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), printable_json(&whole));
        assert!(!printable_json(&whole).contains(deceives_but_break));
    }

    fn deceives_but_break(c: char) -> bool {
        c != '\n' && deceives(c)
    }

    #[test]
    fn paths_cannot_rewrite_the_terminal() {
        assert_eq!(shown(Path::new("/a\x1b[2J\nb é")), "/a\\u{1b}[2J\\nb é");
    }

    #[test]
    fn no_word_from_outside_acts_on_the_terminal_or_the_reader() {
        for text in ["\u{9b}31m", "\u{202e}txt.exe", "\u{200b}", "\u{e0041}", "\r", "\u{7f}", "\u{2066}"] {
            let shown = printable(text);
            assert!(!shown.contains(deceives), "{shown}");
            assert_eq!(printable(&shown), shown, "escaped twice");
            let json = serde_json::to_string_pretty(&[text]).unwrap();
            let shown = printable_json(&json);
            assert!(!shown.replace('\n', "").contains(deceives), "{shown}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text], "another text");
        }
        assert_eq!(printable_lines("a\nb\rc"), "a\nb\\rc");
    }
}
