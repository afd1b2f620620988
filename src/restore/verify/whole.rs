//! The whole read: every block that a snapshot has is fetched and held against EC2's checksum.
//!
//! ```text
//! ListSnapshotBlocks, page by page ─▶ GetSnapshotBlock, AT_ONCE in flight ─▶ fits, or a fault with its place
//! ```
//!
//! In: a set, its layout, the EBS direct APIs. Out: findings, one a snapshot at least. Must never: hold more than
//! [`AT_ONCE`] blocks in memory, or call a snapshot read of which a block was not.

use futures_util::stream::{self, StreamExt as _};

use super::reader::fetch;
use super::{Finding, Report, Verdict};
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Direct, LONG_PAGE};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;
use crate::path_encoding::{printable, shown};
use crate::sets::layout::Layout;
use crate::sets::set::{Member, SnapshotSet};

/// Blocks that are fetched at once: with 30 ms for each, that is the 1,000 a second that EC2 gives of a snapshot (EBS
/// direct APIs, quotas).
pub const AT_ONCE: usize = 32;
/// Bytes of a block (EBS direct APIs, "Concepts").
const BLOCK: u64 = 512 << 10;
/// So many damaged blocks of a snapshot are told one by one.
const TOLD: u64 = 10;

/// How far the reading is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// One a snapshot, in the order in which they are read.
    pub parts: Vec<Part>,
}

/// One snapshot that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The snapshot.
    pub id: SnapshotId,
    /// The volume and its device name, as a person knows it.
    pub name: String,
    /// Blocks that were read.
    pub read: u64,
    /// Blocks that it has; none where EC2 does not say before they are listed.
    pub of: Option<u64>,
    /// Those of the read ones that are damaged.
    pub damaged: u64,
    /// All of it is read.
    pub done: bool,
}

impl Reading {
    /// Nothing is read yet.
    #[must_use]
    pub fn of(set: &SnapshotSet) -> Self {
        let part = |m: &Member| Part {
            id: m.id.clone(),
            name: format!("{} {}", m.volume_id, printable(m.device_name.as_deref().unwrap_or_default()))
                .trim_end()
                .to_owned(),
            read: 0,
            of: blocks(m),
            damaged: 0,
            done: false,
        };
        Self { parts: set.members.iter().map(part).collect() }
    }

    /// Blocks that were read, of all snapshots.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.parts.iter().map(|p| p.read).sum()
    }
}

/// How many blocks a snapshot has, where EC2 says.
fn blocks(member: &Member) -> Option<u64> {
    member.full_bytes.and_then(|b| u64::try_from(b).ok()).map(|b| b.div_ceil(BLOCK))
}

/// What a whole read costs: list prices in dollars, us-east-1 (AWS's page "Amazon EBS pricing", 2025). Transfer to
/// another Region is not in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadCost {
    /// Blocks of 512 KiB.
    pub blocks: u64,
    /// EC2 does not say how many blocks each snapshot has: it is those of the volumes, and at most that.
    pub at_most: bool,
}

impl ReadCost {
    /// A thousand blocks.
    pub const BLOCKS: f64 = 0.003;
    /// A thousand lists, of up to 10,000 blocks each.
    pub const LISTS: f64 = 0.0006;

    /// Of all of a set.
    #[must_use]
    pub fn of(set: &SnapshotSet) -> Self {
        let mut cost = Self { blocks: 0, at_most: false };
        for member in &set.members {
            let known = blocks(member);
            cost.at_most |= known.is_none();
            let volume = || u64::try_from(member.size_gib).unwrap_or_default() * ((1 << 30) / BLOCK);
            cost.blocks = cost.blocks.saturating_add(known.unwrap_or_else(volume));
        }
        cost
    }

    /// Bytes that are read.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Dollars.
    #[must_use]
    pub fn dollars(self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "dollars need no more")]
        let thousands = self.blocks as f64 / 1e3;
        thousands * Self::BLOCKS + thousands / f64::from(LONG_PAGE) * Self::LISTS
    }
}

/// Reads every block of every snapshot, and tells how far it is after each.
///
/// # Errors
/// When EC2 does not give the data.
pub async fn whole<D: Direct>(
    direct: &Repeating<'_, D>,
    set: &SnapshotSet,
    layout: &Layout,
    tell: &mut dyn FnMut(&Reading),
) -> Result<Report, Ec2Error> {
    let mut reading = Reading::of(set);
    let mut report = Report::default();
    for (n, member) in set.members.iter().enumerate() {
        let (mut from, first) = (0, report.findings.len());
        loop {
            let asked = async || direct.inner().blocks(&member.id, from, LONG_PAGE).await;
            let page = direct.call("ListSnapshotBlocks", asked).await?;
            let last = page.blocks.last().map(|(index, _)| *index);
            let one = |(index, token): (u32, String)| {
                let id = &member.id;
                async move { Ok((index, fetch(direct, id, index, &token, page.block_bytes).await?.is_some())) }
            };
            let mut reads = stream::iter(page.blocks.into_iter().map(one)).buffer_unordered(AT_ONCE);
            while let Some(said) = reads.next().await {
                let (index, fits) = said?;
                let part = &mut reading.parts[n];
                part.read += 1;
                if !fits {
                    part.damaged += 1;
                    if part.damaged <= TOLD {
                        let at = u64::from(index) * page.block_bytes;
                        report.findings.push(damaged(member, layout, at));
                    }
                }
                tell(&reading);
            }
            match last {
                _ if !page.more => break,
                Some(last) if last >= from && last < u32::MAX => from = last + 1,
                _ => {
                    return Err(Ec2Error::unknown("ListSnapshotBlocks", "the next page is this one again"));
                }
            }
        }
        let part = &mut reading.parts[n];
        part.done = true;
        // In the order of their places, whichever came first.
        report.findings[first..].sort_by_key(|f| f.offset);
        report.findings.push(of_snapshot(member, part));
        tell(&reading);
    }
    report.blocks_read = reading.read();
    Ok(report)
}

/// The finding about a block that its checksum does not fit.
fn damaged(member: &Member, layout: &Layout, at: u64) -> Finding {
    let on = layout.filesystems.iter().filter(|f| f.volumes.contains(&member.volume_id));
    let on: Vec<String> =
        on.map(|f| format!("{} ({})", shown(&f.mount_point), printable(&f.fstype))).collect();
    let on = if on.is_empty() { "no filesystem of the set".to_owned() } else { on.join(", ") };
    let what = format!("the block at byte {at} is not what its checksum says; on this volume: {on}");
    Finding { offset: Some(at), ..Finding::of_member(member, Verdict::Fault, what) }
}

fn of_snapshot(member: &Member, part: &Part) -> Finding {
    let (verdict, what) = match (part.damaged, part.read) {
        (0, 0) => (Verdict::Sound, "it has no block that was ever written".to_owned()),
        (0, read) => (Verdict::Sound, format!("all of its {read} blocks are what their checksums say")),
        (damaged, read) => {
            (Verdict::Fault, format!("{damaged} of its {read} blocks are not what their checksums say"))
        }
    };
    Finding::of_member(member, verdict, what)
}
