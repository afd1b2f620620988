//! [`Blocks`] by the AWS SDK.
//!
//! In: ids. Out: plain values. Must never: take an answer without a block size for one of no bytes.

use super::direct::AwsDirect;
use crate::ec2::Ec2Error;
use crate::ec2::blocks::{Block, BlockPage, Blocks};
use crate::ids::SnapshotId;

/// So many a page (EBS direct APIs reference, ListSnapshotBlocks: 100 to 10,000).
const A_PAGE: i32 = 10_000;

fn page(
    action: &'static str,
    blocks: Vec<Block>,
    block_size: Option<i32>,
    next: Option<&str>,
) -> Result<BlockPage, Ec2Error> {
    let block_size = block_size.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    let block_size = block_size.ok_or_else(|| Ec2Error::unknown(action, "the answer has no block size"))?;
    Ok(BlockPage { blocks, block_size, next: next.filter(|t| !t.is_empty()).map(str::to_owned) })
}

impl Blocks for AwsDirect {
    async fn written(&self, snapshot: &SnapshotId, token: Option<&str>) -> Result<BlockPage, Ec2Error> {
        const ACTION: &str = "ListSnapshotBlocks";
        self.ready(ACTION).await?;
        let call =
            self.connection.client.list_snapshot_blocks().snapshot_id(snapshot.as_str()).max_results(A_PAGE);
        let answer = call.set_next_token(token.map(str::to_owned)).send().await;
        let answer = answer.map_err(|e| self.sort(ACTION, &e))?;
        let one = |index: i32| Block { index, first: false, second: true };
        let blocks = answer.blocks().iter().filter_map(|b| b.block_index()).map(one).collect();
        page(ACTION, blocks, answer.block_size(), answer.next_token())
    }

    async fn changed(
        &self,
        first: &SnapshotId,
        second: &SnapshotId,
        token: Option<&str>,
    ) -> Result<BlockPage, Ec2Error> {
        const ACTION: &str = "ListChangedBlocks";
        self.ready(ACTION).await?;
        let call = self.connection.client.list_changed_blocks().max_results(A_PAGE);
        let call = call.first_snapshot_id(first.as_str()).second_snapshot_id(second.as_str());
        let answer = call.set_next_token(token.map(str::to_owned)).send().await;
        let answer = answer.map_err(|e| self.sort(ACTION, &e))?;
        let one = |b: &aws_sdk_ebs::types::ChangedBlock| {
            let (first, second) = (b.first_block_token().is_some(), b.second_block_token().is_some());
            Some(Block { index: b.block_index()?, first, second })
        };
        let blocks = answer.changed_blocks().iter().filter_map(one).collect();
        page(ACTION, blocks, answer.block_size(), answer.next_token())
    }
}
