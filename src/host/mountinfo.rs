//! `/proc/self/mountinfo`: its lines, and which mount a path is on.
//!
//! In: the file's bytes. Out: a [`MountTable`]: one [`MountLine`] a line, in the kernel's order, and apart
//! from them the lines that cannot be read; [`MountTree`] over the former. Must never: pass over a line it
//! cannot read (a filesystem that is not seen is a filesystem that is not frozen), let such a line hide the
//! others, take a path for UTF-8, or touch a path it names.
//!
//! By hand, though the procfs crate reads this file: it does not undo the escapes, fails at a path that is
//! not UTF-8, splits at any white space (an empty source shifts every later field), and keeps superblock
//! options in a map, which loses their order and repetitions.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ids::DevNo;

/// One line of mountinfo (proc_pid_mountinfo(5)), its octal escapes undone except in `super_options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// Field 1: mount id.
    pub id: u32,
    /// Field 2: id of the mount it is mounted on.
    pub parent: u32,
    /// Field 3: device number of the superblock.
    pub dev: DevNo,
    /// Field 4: folder of the filesystem that is mounted.
    pub root: PathBuf,
    /// Field 5: where.
    pub mount_point: PathBuf,
    /// Field 6: options of this mount.
    pub options: String,
    /// Field 7: `shared:1`, `master:2`, …
    pub optional: Vec<String>,
    /// Field 9: filesystem type.
    pub fstype: String,
    /// Field 10: source, which may be any text.
    pub source: OsString,
    /// Field 11, the rest of the line: options of the superblock, still escaped. A comma that belongs to a
    /// value is written `\054`, and undoing that would make it a separator. Not every filesystem escapes a
    /// space: overlayfs of Linux 6.5 writes that of a `lowerdir` as it is.
    pub super_options: OsString,
}

impl MountLine {
    /// The value of an option of the superblock, such as `upperdir`, with its escapes undone.
    #[must_use]
    pub fn super_option(&self, name: &str) -> Option<OsString> {
        split_options(self.super_options.as_bytes())
            .find_map(|o| o.strip_prefix(name.as_bytes()).and_then(|o| o.strip_prefix(b"=")))
            .map(|raw| OsString::from_vec(unescape(raw)))
    }
}

/// A line that is not as proc_pid_mountinfo(5) says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("line {line}: {problem}: `{text}`")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
    /// The line itself, at most 200 characters, without control characters: what a person is shown.
    pub text: String,
    /// Field 3, where the line can be read as far as that.
    pub dev: Option<DevNo>,
    /// Field 9, where it can be read as far as that.
    pub fstype: Option<String>,
}

/// A mount table, read as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    /// The lines, in the kernel's order.
    pub lines: Vec<MountLine>,
    /// Lines that cannot be read.
    pub unread: Vec<BadLine>,
}

impl MountTable {
    /// The lines, where each of them matters.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn whole(self) -> Result<Vec<MountLine>, BadLine> {
        self.unread.into_iter().next().map_or(Ok(self.lines), Err)
    }
}

/// The mounts that a process sees, by its name in `/proc`: its id, `self`, or `thread-self` in a thread with
/// a namespace of its own.
///
/// # Errors
/// When the table cannot be read.
pub fn read(root: &Path, process: &str) -> std::io::Result<MountTable> {
    Ok(parse(&std::fs::read(root.join("proc").join(process).join("mountinfo"))?))
}

/// Reads all lines.
#[must_use]
pub fn parse(bytes: &[u8]) -> MountTable {
    let mut table = MountTable::default();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match parse_line(line) {
            Ok(line) => table.lines.push(line),
            Err(problem) => table.unread.push(BadLine {
                line: i + 1,
                problem,
                text: printable(line),
                dev: Fields(Some(line)).nth(2).and_then(device_number),
                fstype: type_of(line),
            }),
        }
    }
    table
}

fn parse_line(line: &[u8]) -> Result<MountLine, &'static str> {
    let mut fields = Fields(Some(line));
    let mut next = |missing: &'static str| fields.next().ok_or(missing);
    let id = number(next("no mount id")?).ok_or("the mount id is not a number")?;
    let parent = number(next("no parent id")?).ok_or("the parent id is not a number")?;
    let dev = device_number(next("no device number")?).ok_or("the device number is not major:minor")?;
    let root = path(next("no root")?);
    let mount_point = path(next("no mount point")?);
    if !mount_point.is_absolute() {
        return Err("the mount point is not an absolute path");
    }
    let options = text(next("no mount options")?);
    let mut optional = Vec::new();
    loop {
        match next("no ` - ` before the filesystem type")? {
            b"-" => break,
            field => optional.push(text(field)),
        }
    }
    let fstype = match next("no filesystem type")? {
        b"" => return Err("the filesystem type is empty"),
        t => text(t),
    };
    // An empty source is legal: mount(2) takes "".
    let source = OsString::from_vec(unescape(next("no mount source")?));
    // The last field is the rest of the line, whatever is in it.
    let super_options = OsString::from_vec(fields.0.ok_or("no superblock options")?.to_vec());
    Ok(MountLine { id, parent, dev, root, mount_point, options, optional, fstype, source, super_options })
}

/// What is left of a line, to be taken field by field.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let end = line.iter().position(|b| *b == b' ');
        self.0 = end.map(|end| &line[end + 1..]);
        Some(&line[..end.unwrap_or(line.len())])
    }
}

fn device_number(field: &[u8]) -> Option<DevNo> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut shown: String = shown.take(201).collect();
    if let Some((cut, _)) = shown.char_indices().nth(200) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

/// The filesystem type of a line that is wrong elsewhere.
fn type_of(line: &[u8]) -> Option<String> {
    let mut after = Fields(Some(line)).skip(6).skip_while(|field| *field != b"-").skip(1);
    after.next().filter(|t| !t.is_empty()).map(text)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's `\ooo` escapes (`seq_escape`, `mangle_path`); a backslash without three octal digits
/// stays.
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Splits at commas that are not behind a backslash (overlay's own escape, in kernels that do not write
/// `\054`).
fn split_options(options: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut behind_backslash = false;
    options.split(move |b| {
        let separator = *b == b',' && !behind_backslash;
        behind_backslash = *b == b'\\' && !behind_backslash;
        separator
    })
}

/// Answers which mount a path is on, as the kernel's own walk would without symlinks.
///
/// The longest prefix alone would be wrong: a mount over `/a` hides an older one at `/a/b`.
#[derive(Debug)]
pub struct MountTree<'a> {
    lines: &'a [MountLine],
    on: HashMap<(u32, &'a Path), usize>,
    root: Option<usize>,
}

impl<'a> MountTree<'a> {
    /// Over the lines of one mountinfo.
    #[must_use]
    pub fn new(lines: &'a [MountLine]) -> Self {
        // A later line replaces an earlier one of the same parent and place: it is on top.
        let on = lines
            .iter()
            .enumerate()
            .filter(|(_, l)| l.parent != l.id)
            .map(|(i, l)| ((l.parent, l.mount_point.as_path()), i))
            .collect();
        let ids: std::collections::HashSet<u32> = lines.iter().map(|l| l.id).collect();
        let root = lines
            .iter()
            .position(|l| l.mount_point == Path::new("/") && (l.parent == l.id || !ids.contains(&l.parent)));
        Self { lines, on, root }
    }

    /// The mount that holds `path`; none for a relative path or one outside every mount (a chroot).
    #[must_use]
    pub fn mount_of(&self, path: &Path) -> Option<&'a MountLine> {
        self.index_of_mount(path).map(|i| &self.lines[i])
    }

    fn index_of_mount(&self, path: &Path) -> Option<usize> {
        if !path.is_absolute() {
            return None;
        }
        let Some(mut at) = self.root else {
            // Without the root mount (a chroot into a plain folder) the parents cannot be followed.
            let holding = self.lines.iter().enumerate().filter(|(_, l)| path.starts_with(&l.mount_point));
            return holding.max_by_key(|(i, l)| (l.mount_point.components().count(), *i)).map(|(i, _)| i);
        };
        let mut steps: Vec<&Path> = path.ancestors().collect();
        steps.reverse();
        // Each step down enters a mount below the one before, so a cycle in a broken file ends here too.
        let mut entered = 0;
        for step in steps {
            while let Some(next) =
                self.on.get(&(self.lines[at].id, step)).filter(|_| entered < self.lines.len())
            {
                at = *next;
                entered += 1;
            }
        }
        Some(at)
    }

    /// True when the path of this mount leads to another mount, which covers it.
    #[must_use]
    pub fn is_hidden(&self, line: &MountLine) -> bool {
        self.mount_of(&line.mount_point).is_none_or(|top| top.id != line.id)
    }
}

#[cfg(test)]
#[path = "mountinfo_tests.rs"]
mod tests;
