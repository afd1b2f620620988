//! The whole read, of snapshots in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::whole::{AT_ONCE, ReadCost, whole};
use super::{Report, Verdict};
use crate::clock::System;
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Block, Blocks, Direct, LONG_PAGE};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;
use crate::sets::layout::Layout;
use crate::sets::set::SnapshotSet;
use crate::sets::set::tests_support::set;

const SIZE: u64 = 512 << 10;

/// Snapshots with these blocks, of which some are damaged; a page is short.
#[derive(Default)]
struct Made {
    blocks: BTreeMap<SnapshotId, Vec<u32>>,
    damaged: Vec<(SnapshotId, u32)>,
    /// The same page for ever.
    circle: bool,
    a_page: usize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Direct for Made {
    async fn readable(&self, _: &SnapshotId) -> Result<bool, Ec2Error> {
        Ok(true)
    }

    async fn blocks(&self, snapshot: &SnapshotId, from: u32, most: u16) -> Result<Blocks, Ec2Error> {
        assert_eq!(most, LONG_PAGE);
        let from = if self.circle { 0 } else { from };
        let rest = self.blocks[snapshot].iter().filter(|b| **b >= from);
        let blocks: Vec<_> =
            rest.clone().take(self.a_page).map(|b| (*b, format!("{snapshot} {b}"))).collect();
        let more = rest.count() > blocks.len();
        Ok(Blocks { volume_bytes: 8 << 30, block_bytes: SIZE, blocks, more })
    }

    async fn block(&self, snapshot: &SnapshotId, index: u32, token: &str) -> Result<Block, Ec2Error> {
        assert_eq!(token, format!("{snapshot} {index}"));
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..index % 5 {
            tokio::task::yield_now().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        let fits = !self.damaged.contains(&(snapshot.clone(), index));
        Ok(Block { data: vec![0; usize::try_from(SIZE).unwrap()], fits })
    }
}

fn read(made: &Made, set: &SnapshotSet) -> Result<(Report, Vec<u64>), Ec2Error> {
    let layout = Layout { volumes: Vec::new(), filesystems: Vec::new(), applications: Vec::new() };
    let direct = Repeating::new(made, &System, std::time::Duration::ZERO);
    let mut seen = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(whole(&direct, set, &layout, &mut |reading| seen.push(reading.read())))?;
    Ok((report, seen))
}

fn made(set: &SnapshotSet, blocks: &[u32]) -> Made {
    let blocks = set.snapshots().map(|id| (id.clone(), blocks.to_vec())).collect();
    Made { blocks, a_page: 100, ..Made::default() }
}

#[test]
fn every_block_of_every_page_is_read_and_no_more_at_once_than_said() {
    let set = set(2);
    let all: Vec<u32> = (0..350).map(|n| n * 3).collect();
    let made = made(&set, &all);
    let (report, seen) = read(&made, &set).unwrap();
    assert_eq!((report.blocks_read, report.verdict()), (700, Verdict::Sound));
    assert_eq!(made.most.load(Ordering::SeqCst), AT_ONCE);
    assert_eq!(seen.iter().filter(|n| **n > 0).count(), 702, "one look a block, and one at the end of each");
    assert!(report.findings[0].what.contains("all of its 350 blocks"), "{:?}", report.findings);
}

#[test]
fn a_damaged_block_is_told_with_its_place_and_many_are_counted() {
    let set = set(2);
    let mut made = made(&set, &(0..200).collect::<Vec<_>>());
    let ids: Vec<_> = set.snapshots().cloned().collect();
    made.damaged = vec![(ids[1].clone(), 7), (ids[1].clone(), 150)];
    let (report, _) = read(&made, &set).unwrap();
    let told: Vec<_> =
        report.findings.iter().map(|f| (f.snapshot_id.clone().unwrap(), f.offset, f.verdict)).collect();
    let (sound, fault) = (Verdict::Sound, Verdict::Fault);
    assert_eq!(
        told,
        [
            (ids[0].clone(), None, sound),
            (ids[1].clone(), Some(7 * SIZE), fault),
            (ids[1].clone(), Some(150 * SIZE), fault),
            (ids[1].clone(), None, fault)
        ]
    );
    made.damaged = (0..200).map(|n| (ids[0].clone(), n)).collect();
    let (report, _) = read(&made, &set).unwrap();
    assert_eq!(report.findings.len(), 12, "ten, the sum, and the other snapshot");
    assert!(report.findings[10].what.contains("200 of its 200 blocks"), "{:?}", report.findings[10]);
}

#[test]
fn a_list_without_an_end_is_an_error() {
    let set = set(1);
    let mut made = made(&set, &(0..200).collect::<Vec<_>>());
    made.circle = true;
    assert!(read(&made, &set).is_err());
}

#[test]
fn the_cost_is_that_of_the_blocks_or_at_most_of_the_volumes() {
    let mut set = set(1);
    set.members[0].size_gib = 100;
    let cost = ReadCost::of(&set);
    assert_eq!(
        (cost.blocks, cost.at_most, format!("{:.2}", cost.dollars())),
        (204_800, true, "0.61".to_owned())
    );
    set.members[0].full_bytes = Some((1 << 30) + 1);
    let cost = ReadCost::of(&set);
    assert_eq!((cost.blocks, cost.at_most), (2049, false));
}
