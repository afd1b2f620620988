//! The lines that describe a set in tags: of a volume, a filesystem, an application. Each is written and read
//! here.
//!
//! A line is words, separated by spaces: first what it is about, then `name=value` or a lone word. In names and
//! values, spaces, commas, `%`, quotes, control characters and all that is not ASCII are percent-encoded. Words
//! that a reader does not know are left alone, so that a newer writer can add some.
//!
//! In: values, or tags that anybody may have written. Out: the same values. Must never: lose a byte of a path,
//! or take a line that lacks a word it needs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::Serialize;

use crate::consistency::{Consistency, Method};
use crate::ids::VolumeId;
use crate::path_encoding;
use crate::plan::{PlannedFilesystem, PlannedVolume};

/// Space and comma separate, `=` ends a name, `%` escapes.
const ESCAPE: &AsciiSet =
    &CONTROLS.add(b' ').add(b',').add(b'%').add(b'<').add(b'>').add(b'\\').add(b'"').add(b'=');
/// In a value, `=` is a character as any other.
const ESCAPE_VALUE: &AsciiSet = &ESCAPE.remove(b'=');

/// A volume of a set: all that it takes to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetVolume {
    /// The volume that was snapshotted.
    pub id: VolumeId,
    /// The device name of its attachment.
    pub device_name: String,
    /// Size in GiB.
    pub size_gib: i32,
    /// Such as `gp3`.
    pub volume_type: String,
    /// Provisioned IOPS; none where the type has none.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s.
    pub throughput: Option<i32>,
    /// It was encrypted.
    pub encrypted: bool,
    /// It was the instance's root device.
    pub boot: bool,
}

/// A filesystem of a set: all that it takes to mount it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetFilesystem {
    /// Where it was mounted.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// As mountinfo names it.
    pub fstype: String,
    /// Of the filesystem, where its superblock could be read.
    pub uuid: Option<String>,
    /// How it was made quiet.
    pub method: Method,
    /// The volumes that it is on.
    pub volumes: Vec<VolumeId>,
    /// The stack from the filesystem down, such as `dm-0 (lvm vg0-data) → nvme1n1 + nvme2n1`.
    pub stack: String,
    /// The options that it was mounted with.
    pub options: String,
    /// Its other mount points.
    #[serde(serialize_with = "path_encoding::paths")]
    pub also: Vec<PathBuf>,
    /// The folder of it that is mounted at `mount_point`, then at each of `also`: a subvolume of btrfs, or what is
    /// bound. Empty where all of it is, everywhere.
    #[serde(serialize_with = "path_encoding::paths")]
    pub roots: Vec<PathBuf>,
}

/// An application that was quiesced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetApplication {
    /// The hook's name.
    pub name: String,
    /// Its section: `hook`, `session`, `postgresql`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The label of the set for this application.
    pub achieved: Consistency,
    /// What it reported about the point in time.
    pub facts: BTreeMap<String, String>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}` {why}")]
pub struct BadLine {
    /// As it is in the tags.
    pub line: String,
    /// What is wrong with it.
    pub why: String,
}

impl From<&PlannedVolume> for SetVolume {
    fn from(v: &PlannedVolume) -> Self {
        Self {
            id: v.id.clone(),
            device_name: v.device_name.clone(),
            size_gib: v.size_gib,
            volume_type: v.volume_type.clone(),
            iops: v.iops,
            throughput: v.throughput,
            encrypted: v.encrypted,
            boot: v.boot,
        }
    }
}

impl From<&PlannedFilesystem> for SetFilesystem {
    fn from(f: &PlannedFilesystem) -> Self {
        Self {
            mount_point: f.mount_point.clone(),
            fstype: f.fstype.clone(),
            uuid: f.uuid.clone(),
            method: f.method,
            volumes: f.volumes.clone(),
            stack: f.stack.clone(),
            options: f.options.clone(),
            also: f.mount_points.iter().filter(|m| **m != f.mount_point).cloned().collect(),
            roots: match f.roots.iter().all(|root| root == Path::new("/")) {
                true => Vec::new(),
                false => f.roots.clone(),
            },
        }
    }
}

impl SetVolume {
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "{} device={} gib={} type={}",
            self.id,
            value(&self.device_name),
            self.size_gib,
            value(&self.volume_type)
        );
        for (name, number) in [("iops", self.iops), ("throughput", self.throughput)] {
            if let Some(number) = number {
                line.push_str(&format!(" {name}={number}"));
            }
        }
        for (word, said) in [(" encrypted", self.encrypted), (" boot", self.boot)] {
            line.push_str(if said { word } else { "" });
        }
        line
    }

    /// # Errors
    /// When a word is missing, or is no number where one is needed.
    pub(crate) fn read(line: &str) -> Result<Self, BadLine> {
        let words = Words::of(line)?;
        let id: VolumeId =
            words.first_text()?.parse().map_err(|e| words.bad(format!("has no volume id: {e}")))?;
        Ok(Self {
            device_name: words.needed("device")?,
            size_gib: words.number("gib")?.ok_or_else(|| words.bad("has no `gib`".into()))?,
            volume_type: words.needed("type")?,
            iops: words.number("iops")?,
            throughput: words.number("throughput")?,
            encrypted: words.says("encrypted"),
            boot: words.says("boot"),
            id,
        })
    }
}

impl SetFilesystem {
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} type={}", path(&self.mount_point), value(&self.fstype));
        if let Some(uuid) = &self.uuid {
            line.push_str(&format!(" uuid={}", value(uuid)));
        }
        let volumes: Vec<_> = self.volumes.iter().map(VolumeId::as_str).collect();
        line.push_str(&format!(
            " method={} on={} stack={} options={}",
            self.method.as_str(),
            volumes.join(","),
            value(&self.stack),
            value(&self.options)
        ));
        for other in &self.also {
            line.push_str(&format!(" also={}", path(other)));
        }
        for root in &self.roots {
            line.push_str(&format!(" root={}", path(root)));
        }
        line
    }

    /// # Errors
    /// When a word is missing, or is not what it should be.
    pub(crate) fn read(line: &str) -> Result<Self, BadLine> {
        let words = Words::of(line)?;
        let method = words.needed("method")?;
        let on = words.needed("on")?;
        let volumes = on.split(',').filter(|v| !v.is_empty()).map(VolumeId::from_str);
        let paths = |name| words.all(name).map(|p| words.absolute(p)).collect::<Result<Vec<PathBuf>, _>>();
        let (also, roots) = (paths("also")?, paths("root")?);
        if !roots.is_empty() && roots.len() != also.len() + 1 {
            return Err(words.bad("has not one `root` for each mount point".into()));
        }
        Ok(Self {
            mount_point: words.absolute(words.first)?,
            fstype: words.needed("type")?,
            uuid: words.text("uuid")?,
            method: Method::from_word(&method)
                .ok_or_else(|| words.bad(format!("has a method that is not known, {method}")))?,
            volumes: volumes.collect::<Result<_, _>>().map_err(|e| words.bad(format!("is on {e}")))?,
            stack: words.needed("stack")?,
            options: words.needed("options")?,
            also,
            roots,
        })
    }
}

impl SetApplication {
    /// The line without its facts, and each fact as it is appended.
    pub(crate) fn start(name: &str, kind: &str, achieved: Consistency) -> String {
        format!("{} type={} label={achieved}", word(name), value(kind))
    }

    pub(crate) fn fact(name: &str, said: &str) -> String {
        format!(" {}={}", word(name), value(said))
    }

    /// # Errors
    /// When the type or the label is missing.
    pub(crate) fn read(line: &str) -> Result<Self, BadLine> {
        let words = Words::of(line)?;
        let label = words.needed("label")?;
        let mut facts = BTreeMap::new();
        // A fact may have the name of a word: the line's own come first.
        for (name, said) in words.named.iter().skip(2) {
            facts.insert(words.decoded(name)?, words.decoded(said)?);
        }
        Ok(Self {
            name: words.first_text()?,
            kind: words.needed("type")?,
            achieved: label
                .parse()
                .map_err(|_| words.bad(format!("has a label that is not known, {label}")))?,
            facts,
        })
    }
}

/// A path as it is written in a tag.
pub(crate) fn path(p: &Path) -> String {
    percent_encode(p.as_os_str().as_bytes(), ESCAPE).to_string()
}

/// A name, which `=` would end.
fn word(s: &str) -> String {
    percent_encode(s.as_bytes(), ESCAPE).to_string()
}

fn value(s: &str) -> String {
    percent_encode(s.as_bytes(), ESCAPE_VALUE).to_string()
}

/// The words of a line.
struct Words<'a> {
    line: &'a str,
    first: &'a str,
    named: Vec<(&'a str, &'a str)>,
    lone: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Result<Self, BadLine> {
        let mut all = line.split(' ').filter(|w| !w.is_empty());
        let Some(first) = all.next() else {
            return Err(BadLine { line: line.into(), why: "is empty".into() });
        };
        let mut words = Self { line, first, named: Vec::new(), lone: Vec::new() };
        for word in all {
            match word.split_once('=') {
                Some(pair) => words.named.push(pair),
                None => words.lone.push(word),
            }
        }
        Ok(words)
    }

    fn bad(&self, why: String) -> BadLine {
        BadLine { line: self.line.to_owned(), why }
    }

    fn decoded(&self, word: &str) -> Result<String, BadLine> {
        let text = percent_decode_str(word).decode_utf8();
        text.map(Into::into).map_err(|_| self.bad(format!("is not UTF-8 at {word}")))
    }

    fn first_text(&self) -> Result<String, BadLine> {
        self.decoded(self.first)
    }

    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.named.iter().filter(move |(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn text(&self, name: &'a str) -> Result<Option<String>, BadLine> {
        self.all(name).next().map(|v| self.decoded(v)).transpose()
    }

    fn needed(&self, name: &'a str) -> Result<String, BadLine> {
        self.text(name)?.ok_or_else(|| self.bad(format!("has no `{name}`")))
    }

    fn number(&self, name: &'a str) -> Result<Option<i32>, BadLine> {
        let number = |n: &str| n.parse().map_err(|_| self.bad(format!("has no number at `{name}`")));
        self.all(name).next().map(number).transpose()
    }

    fn says(&self, word: &str) -> bool {
        self.lone.contains(&word)
    }

    /// A path that leads from the root and never up: whoever mounts there must not be led elsewhere.
    fn absolute(&self, word: &str) -> Result<PathBuf, BadLine> {
        let path = PathBuf::from(OsString::from_vec(percent_decode_str(word).collect()));
        let plain = path.is_absolute()
            && !path.components().any(|c| matches!(c, std::path::Component::ParentDir))
            && !path.as_os_str().as_bytes().contains(&0);
        if plain { Ok(path) } else { Err(self.bad(format!("has a mount point that is not one, {word}"))) }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
