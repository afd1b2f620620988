//! What only one set holds: the blocks that would be free if it went, and nothing else did.
//!
//! ```text
//! before ──changed──▶ snapshot ──changed──▶ after
//!           its own blocks  ∩  those that the next one has in another way  =  what only it holds
//! ```
//!
//! In: a set, all snapshots of its volumes. Out: bytes. Must never: take blocks for its own that a neighbour has too,
//! whoever made that: other tools' snapshots of a volume are neighbours.

use std::collections::BTreeSet;

use super::set::SnapshotSet;
use crate::ec2::blocks::{BlockPage, Blocks};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::SnapshotId;

/// What only this set holds in bytes; none where it is not known: of a copy, in the archive, while it is pending.
///
/// # Errors
/// When EC2 does not say.
pub async fn only<E: Blocks>(
    ebs: &Repeating<'_, E>,
    set: &SnapshotSet,
    all: &[TaggedSnapshot],
) -> Result<Option<u64>, Ec2Error> {
    if set.copy_of.is_some() {
        return Ok(None);
    }
    let mut bytes = 0u64;
    for member in &set.members {
        let Some((before, after)) = neighbours(&member.id, all) else { return Ok(None) };
        bytes = bytes.saturating_add(of_snapshot(ebs, before, &member.id, after).await?);
    }
    Ok(Some(bytes))
}

/// The snapshots of the same volume before and after this one that can be compared. None where it cannot be.
fn neighbours<'a>(
    id: &SnapshotId,
    all: &'a [TaggedSnapshot],
) -> Option<(Option<&'a SnapshotId>, Option<&'a SnapshotId>)> {
    let own = all.iter().find(|s| s.view.id == *id)?;
    let readable = |s: &&TaggedSnapshot| {
        s.view.volume == own.view.volume && s.view.state == "completed" && !s.detail.archived
    };
    let mut of_volume: Vec<&TaggedSnapshot> = all.iter().filter(readable).collect();
    of_volume.sort_by(|a, b| (a.view.started, &a.view.id).cmp(&(b.view.started, &b.view.id)));
    let at = of_volume.iter().position(|s| s.view.id == *id)?;
    let before = at.checked_sub(1).map(|at| &of_volume[at].view.id);
    Some((before, of_volume.get(at + 1).map(|s| &s.view.id)))
}

async fn of_snapshot<E: Blocks>(
    ebs: &Repeating<'_, E>,
    before: Option<&SnapshotId>,
    id: &SnapshotId,
    after: Option<&SnapshotId>,
) -> Result<u64, Ec2Error> {
    let inner = ebs.inner();
    let mut own = BTreeSet::new();
    let mut size = 0;
    let mut take = |page: &BlockPage| {
        size = page.block_size;
        own.extend(page.blocks.iter().filter(|b| b.second).map(|b| b.index));
    };
    match before {
        Some(before) => {
            pages(ebs, "ListChangedBlocks", async |token| inner.changed(before, id, token).await, &mut take)
                .await?;
        }
        None => {
            pages(ebs, "ListSnapshotBlocks", async |token| inner.written(id, token).await, &mut take).await?;
        }
    }
    let Some(after) = after else { return Ok(own.len() as u64 * size) };
    let mut only = 0u64;
    let mut count = |page: &BlockPage| {
        only += page.blocks.iter().filter(|b| b.first && own.contains(&b.index)).count() as u64;
    };
    pages(ebs, "ListChangedBlocks", async |token| inner.changed(id, after, token).await, &mut count).await?;
    Ok(only * size)
}

async fn pages<E: Blocks>(
    ebs: &Repeating<'_, E>,
    action: &'static str,
    ask: impl AsyncFn(Option<&str>) -> Result<BlockPage, Ec2Error>,
    each: &mut impl FnMut(&BlockPage),
) -> Result<(), Ec2Error> {
    let mut token: Option<String> = None;
    loop {
        let page = ebs.call(action, async || ask(token.as_deref()).await).await?;
        each(&page);
        match page.next {
            Some(next) if token.as_ref() != Some(&next) => token = Some(next),
            Some(_) => return Err(Ec2Error::unknown(action, "the next page is this one again")),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "sizes_tests.rs"]
mod tests;
