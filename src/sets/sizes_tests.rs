//! What only one snapshot holds, by the blocks of a made lineage.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::clock::System;
use crate::ec2::blocks::Block;
use crate::sets::set::CopyOf;
use crate::sets::set::tests_support::{listed, set};

const SIZE: u64 = 524_288;

/// Snapshots of one volume, each with the content of its blocks; two blocks a page, and an empty page before.
struct Made(Vec<(SnapshotId, Vec<(i32, char)>)>);

impl Made {
    fn blocks(&self, id: &SnapshotId) -> &[(i32, char)] {
        &self.0.iter().find(|(known, _)| known == id).expect("a snapshot of the lineage").1
    }
}

fn page(blocks: &[Block], token: Option<&str>) -> BlockPage {
    let Some(from) = token else {
        return BlockPage { blocks: Vec::new(), block_size: SIZE, next: Some("0".into()) };
    };
    let from: usize = from.parse().unwrap();
    let next = (from + 2 < blocks.len()).then(|| (from + 2).to_string());
    let blocks = blocks.iter().skip(from).take(2).copied().collect();
    BlockPage { blocks, block_size: SIZE, next }
}

impl Blocks for Made {
    async fn written(&self, id: &SnapshotId, token: Option<&str>) -> Result<BlockPage, Ec2Error> {
        let all =
            self.blocks(id).iter().map(|(index, _)| Block { index: *index, first: false, second: true });
        Ok(page(&all.collect::<Vec<_>>(), token))
    }

    async fn changed(
        &self,
        a: &SnapshotId,
        b: &SnapshotId,
        token: Option<&str>,
    ) -> Result<BlockPage, Ec2Error> {
        let of = |id: &SnapshotId, index: i32| {
            self.blocks(id).iter().find(|(known, _)| *known == index).map(|(_, data)| *data)
        };
        let differ = (0..20).filter(|i| of(a, *i) != of(b, *i));
        let all = differ.map(|index| Block {
            index,
            first: of(a, index).is_some(),
            second: of(b, index).is_some(),
        });
        Ok(page(&all.collect::<Vec<_>>(), token))
    }
}

/// One set for each content, an hour apart, all of one volume.
fn lineage(contents: &[&str]) -> (Made, Vec<SnapshotSet>, Vec<TaggedSnapshot>) {
    let (mut made, mut sets, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (n, content) in contents.iter().enumerate() {
        let mut one = set(1);
        one.members[0].id = format!("snap-{n:017x}").parse().unwrap();
        let hours = SignedDuration::from_hours(i64::try_from(n).unwrap());
        one.members[0].started = Some(Timestamp::UNIX_EPOCH + hours);
        let blocks = content.chars().enumerate().filter(|(_, data)| *data != '.');
        made.push((one.members[0].id.clone(), blocks.map(|(i, c)| (i32::try_from(i).unwrap(), c)).collect()));
        all.extend(listed(&one));
        sets.push(one);
    }
    (Made(made), sets, all)
}

async fn blocks_of(contents: &[&str]) -> Vec<u64> {
    let (made, sets, all) = lineage(contents);
    let ebs = Repeating::new(&made, &System, Duration::ZERO);
    let mut found = Vec::new();
    for set in &sets {
        found.push(only(&ebs, set, &all).await.unwrap().expect("a size") / SIZE);
    }
    found
}

#[tokio::test]
async fn a_set_holds_alone_what_neither_neighbour_has() {
    assert_eq!(blocks_of(&["abc"]).await, [3], "the only one: all of it");
    assert_eq!(blocks_of(&["abc", "abc"]).await, [0, 0]);
    // The first block of each is its own; the second is of two; the third is of all.
    assert_eq!(blocks_of(&["aac", "bac", "cbc"]).await, [1, 1, 2]);
    // What the next one has no more is not shared with it, and what this one has no more is not held by it.
    assert_eq!(blocks_of(&["...", "ab.", "..."]).await, [0, 2, 0]);
    assert_eq!(blocks_of(&["xxxxxxx", "yyyyyyy", "xxxxxxx"]).await, [7, 7, 7], "more than a page");
}

#[tokio::test]
async fn what_others_made_is_a_neighbour_and_what_cannot_be_read_is_none() {
    let (made, sets, mut all) = lineage(&["a", "b", "b"]);
    let ebs = Repeating::new(&made, &System, Duration::ZERO);
    // The third is no set of ours; it shares the block all the same.
    assert_eq!(only(&ebs, &sets[1], &all).await, Ok(Some(0)));
    all[2].detail.archived = true;
    assert_eq!(only(&ebs, &sets[1], &all).await, Ok(Some(SIZE)));
    all[1].view.state = "pending".into();
    assert_eq!(only(&ebs, &sets[1], &all).await, Ok(None));
    let copy = SnapshotSet {
        copy_of: Some(CopyOf { region: "eu-west-1".into(), id: sets[0].id.clone() }),
        ..sets[0].clone()
    };
    assert_eq!(only(&ebs, &copy, &all).await, Ok(None));
}
