//! The lines that describe a set, from the tags of its snapshots: volumes, filesystems, applications.
//!
//! In: all tags of all snapshots of one set. Out: a [`Layout`], or why it is not whole. Must never: give a part
//! of a set for the whole, or take a line whose volume is not of the set.

use std::collections::BTreeMap;

use serde::Serialize;

use super::lines::{SetApplication, SetFilesystem, SetVolume};
use super::spread::joined;
use super::tags::{self, APPLICATION_LINE, FILESYSTEM_LINE, LAYOUT_TAG, Tag, VOLUME_LINE};
use crate::ids::VolumeId;

/// What a set consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Its volumes, in the order of their numbers.
    pub volumes: Vec<SetVolume>,
    /// Its filesystems, in the order in which they were frozen.
    pub filesystems: Vec<SetFilesystem>,
    /// The applications that were quiesced. Those that did not fit into the tags are missing.
    pub applications: Vec<SetApplication>,
}

/// Why a set's tags do not describe all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A tag is missing, or was changed.
    #[error("its tags do not describe all of it: {0}")]
    Incomplete(String),
    /// A line is not what this program writes.
    #[error("a tag of it cannot be read: {0}")]
    Unreadable(String),
}

/// Reads the lines that describe a set, of which `snapshots` are the tags.
///
/// # Errors
/// When a line is missing or cannot be read.
pub fn layout<'a>(snapshots: impl Iterator<Item = &'a [Tag]>) -> Result<Layout, LayoutError> {
    let incomplete = |what: &str| LayoutError::Incomplete(what.to_owned());
    let mut all: BTreeMap<&str, &str> = BTreeMap::new();
    let mut list = None;
    for tags in snapshots {
        list = list.or_else(|| tags::volumes_of(tags));
        for (key, value) in tags {
            let before = all.insert(key, value);
            let described = [VOLUME_LINE, FILESYSTEM_LINE, LAYOUT_TAG].iter().any(|l| key.starts_with(l));
            if described && before.is_some_and(|before| before != value) {
                return Err(LayoutError::Incomplete(format!("its snapshots do not agree on {key}")));
            }
        }
    }
    let list: Vec<VolumeId> = list.ok_or_else(|| incomplete("its volumes are not listed"))?;
    let counts = all.get(LAYOUT_TAG).copied().and_then(Counts::read);
    let counts = counts.ok_or_else(|| incomplete("how many lines it has is not said"))?;
    let of_layout = |key: &&str| key.starts_with(VOLUME_LINE) || key.starts_with(FILESYSTEM_LINE);
    let found = all.keys().filter(|k| of_layout(k)).count();
    if found != counts.tags {
        return Err(LayoutError::Incomplete(format!(
            "{found} of {} tags with its lines are there",
            counts.tags
        )));
    }
    let lines = |prefix: &str| {
        let tags = all.iter().map(|(k, v)| (*k, *v));
        joined(prefix, tags).ok_or_else(|| LayoutError::Incomplete(format!("a tag {prefix}N is missing")))
    };
    let unreadable = |e: super::lines::BadLine| LayoutError::Unreadable(e.to_string());
    let volumes: Vec<SetVolume> = lines(VOLUME_LINE)?
        .iter()
        .map(|l| SetVolume::read(l))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    let filesystems: Vec<SetFilesystem> = lines(FILESYSTEM_LINE)?
        .iter()
        .map(|l| SetFilesystem::read(l))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    // Applications are for people: a fact that cannot be read is no reason not to restore.
    let applications = lines(APPLICATION_LINE).unwrap_or_default();
    let applications = applications.iter().filter_map(|l| SetApplication::read(l).ok()).collect();
    if volumes.len() != counts.volumes || filesystems.len() != counts.filesystems {
        return Err(incomplete("a line is missing"));
    }
    if !volumes.iter().map(|v| &v.id).eq(&list) {
        return Err(incomplete("the lines are not of the volumes that it lists"));
    }
    if let Some(f) = filesystems.iter().find(|f| f.volumes.iter().any(|v| !list.contains(v))) {
        let place = crate::path_encoding::shown(&f.mount_point);
        return Err(LayoutError::Incomplete(format!("{place} is on a volume that is not of the set")));
    }
    Ok(Layout { volumes, filesystems, applications })
}

/// `volumes=2 filesystems=3 tags=5`
struct Counts {
    volumes: usize,
    filesystems: usize,
    tags: usize,
}

impl Counts {
    fn read(text: &str) -> Option<Self> {
        let number = |name: &str| {
            let word = text.split(' ').find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            word?.parse().ok()
        };
        Some(Self { volumes: number("volumes")?, filesystems: number("filesystems")?, tags: number("tags")? })
    }
}
