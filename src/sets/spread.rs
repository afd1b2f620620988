//! How the lines of a set are laid out over the tags of its snapshots.
//!
//! EC2 allows 50 tags a snapshot, and CreateSnapshots takes one list for all of them. Where every line fits, every
//! snapshot carries all of them, in the create call. Where they do not, the create call says which volumes the
//! set has and how many tags its lines take, and each snapshot gets a share of these tags with the verdict. Every
//! tag has a key of its own, so the shares need no order.
//!
//! In: lines, and the room on a snapshot. Out: tags. Must never: lose a line, or split one so that a part begins
//! or ends with a space (a console may trim it).

use std::collections::BTreeMap;

use crate::ids::VolumeId;

/// A key and its value.
pub type Tag = (String, String);

/// EC2 allows this many characters a value.
pub(super) const MAX_VALUE: usize = 256;

/// The lines of one key, and the volumes on whose snapshots they should be.
pub(super) struct Lines<'a> {
    pub(super) tags: Vec<Tag>,
    pub(super) volumes: &'a [VolumeId],
}

/// Tags for each volume's snapshot, each tag on one of them: on one of its own volumes where there is room, else
/// where there is most.
///
/// When there is too little room in all, every tag is on some snapshot all the same: what checks the number of
/// tags then refuses it.
pub(super) fn spread(
    lines: Vec<Lines<'_>>,
    volumes: &[VolumeId],
    room: usize,
) -> BTreeMap<VolumeId, Vec<Tag>> {
    let mut shares: BTreeMap<VolumeId, Vec<Tag>> = volumes.iter().map(|v| (v.clone(), Vec::new())).collect();
    for Lines { tags, volumes: own } in lines {
        for tag in tags {
            let emptiest = |among: &[VolumeId]| {
                let count = |v: &VolumeId| shares.get(v).map(|tags| (tags.len(), v.clone()));
                among.iter().filter_map(count).min()
            };
            let at = emptiest(own).filter(|(n, _)| *n < room).or_else(|| emptiest(volumes));
            if let Some(share) = at.and_then(|(_, v)| shares.get_mut(&v)) {
                share.push(tag);
            }
        }
    }
    shares
}

/// Splits a long line over several tags: `key`, `key.1`, `key.2`, …
pub(super) fn continued(key: &str, line: &str) -> Vec<Tag> {
    let mut rest: Vec<char> = line.chars().collect();
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let mut end = rest.len().min(MAX_VALUE);
        let splits_at_space = |end: usize| rest.get(end - 1) == Some(&' ') || rest.get(end) == Some(&' ');
        while end < rest.len() && end > 1 && splits_at_space(end) {
            end -= 1;
        }
        let after = rest.split_off(end);
        let key = if tags.is_empty() { key.to_owned() } else { format!("{key}.{}", tags.len()) };
        tags.push((key, rest.into_iter().collect()));
        rest = after;
    }
    tags
}

/// Puts lines together again that [`continued`] has split: the lines of `PREFIX.N` in the order of N. None where
/// one is missing, or has a gap.
pub(super) fn joined<'a>(
    prefix: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<Vec<String>> {
    let mut lines: BTreeMap<usize, BTreeMap<usize, &str>> = BTreeMap::new();
    for (key, value) in tags {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        let (line, part) = rest.split_once('.').unwrap_or((rest, "0"));
        let (line, part) = (number(line)?, number(part)?);
        lines.entry(line).or_default().insert(part, value);
    }
    let whole = |(n, (line, parts)): (usize, (usize, BTreeMap<usize, &str>))| {
        let without_gap = line == n && parts.keys().enumerate().all(|(n, part)| *part == n);
        without_gap.then(|| parts.into_values().collect::<String>())
    };
    lines.into_iter().enumerate().map(whole).collect()
}

/// A number as this program writes it: no sign, no leading zero.
fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n: &usize| n.to_string() == text)
}
