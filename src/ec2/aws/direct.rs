//! [`Direct`] by the AWS SDK.
//!
//! In: a [`DirectConnection`]. Out: plain values. Must never: return a type of the SDK.

use aws_sdk_ebs::config::http::HttpResponse;
use aws_sdk_ebs::error::{ProvideErrorMetadata, SdkError};
use sha2::Digest as _;

use super::{A_CALL, no_credentials, sort};
use crate::ec2::connect::DirectConnection;
use crate::ec2::direct::{Block, Blocks, Direct, SHORT_PAGE};
use crate::ec2::{Ec2Error, denial};
use crate::ids::SnapshotId;

/// Most empty pages in a row.
const PAGES: u32 = 1000;

/// The EBS direct APIs through the AWS SDK.
#[derive(Debug, Clone)]
pub struct AwsDirect {
    pub(super) connection: DirectConnection,
}

impl AwsDirect {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(connection: DirectConnection) -> Self {
        Self { connection }
    }

    /// What is valid at hand will do for one call.
    pub(super) async fn ready(&self, action: &'static str) -> Result<(), Ec2Error> {
        self.connection.renew_if_possible(A_CALL).await.map_err(|e| no_credentials(action, &e))
    }

    pub(super) fn sort<E: ProvideErrorMetadata + std::error::Error + 'static>(
        &self,
        action: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> Ec2Error {
        let region = self.connection.client.config().region().map_or("", |r| r.as_ref());
        sort::sort(action, error, denial::partition(region))
    }
}

impl Direct for AwsDirect {
    async fn readable(&self, snapshot: &SnapshotId) -> Result<bool, Ec2Error> {
        const ACTION: &str = "ListSnapshotBlocks";
        self.ready(ACTION).await?;
        let call = self.connection.client.list_snapshot_blocks().snapshot_id(snapshot.as_str());
        match call.max_results(SHORT_PAGE.into()).send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(said)) if said.err().is_resource_not_found_exception() => Ok(false),
            Err(e) => Err(self.sort(ACTION, &e)),
        }
    }

    async fn blocks(&self, snapshot: &SnapshotId, from: u32, most: u16) -> Result<Blocks, Ec2Error> {
        const ACTION: &str = "ListSnapshotBlocks";
        let number = |what: &str, n: Option<i64>| {
            n.and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n > 0)
                .ok_or_else(|| Ec2Error::unknown(ACTION, format!("the answer has no {what}")))
        };
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            self.ready(ACTION).await?;
            let call = self.connection.client.list_snapshot_blocks().snapshot_id(snapshot.as_str());
            let call = call.max_results(most.into()).set_next_token(token.clone());
            let from_block = i32::try_from(from).unwrap_or(i32::MAX);
            let call = if token.is_none() { call.starting_block_index(from_block) } else { call };
            let said = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
            let blocks: Vec<_> = said
                .blocks()
                .iter()
                .filter_map(|b| Some((u32::try_from(b.block_index()?).ok()?, b.block_token()?.to_owned())))
                .collect();
            token = said.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
            if blocks.is_empty() && token.is_some() {
                continue;
            }
            return Ok(Blocks {
                // In GiB.
                volume_bytes: number("volume size", said.volume_size())?.saturating_mul(1 << 30),
                block_bytes: number("block size", said.block_size().map(i64::from))?,
                blocks,
                more: token.is_some(),
            });
        }
        Err(Ec2Error::unknown(ACTION, "page after page is empty"))
    }

    async fn block(&self, snapshot: &SnapshotId, index: u32, token: &str) -> Result<Block, Ec2Error> {
        const ACTION: &str = "GetSnapshotBlock";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_snapshot_block().snapshot_id(snapshot.as_str());
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let said = call.block_index(index).block_token(token).send().await;
        let said = said.map_err(|e| self.sort(ACTION, &e))?;
        let (sum, length) = (said.checksum().map(str::to_owned), said.data_length());
        let unread = |e: aws_smithy_types::byte_stream::error::Error| {
            Ec2Error::unknown(ACTION, format!("the data was cut off: {}", crate::error::chain(&e)))
        };
        // The SDK's limit of a call ends with its headers.
        let data = tokio::time::timeout(self.connection.limit, said.block_data.collect()).await;
        let late = |_| Ec2Error::unknown(ACTION, "the data stopped in the middle".to_owned());
        let data: Vec<u8> = data.map_err(late)?.map_err(unread)?.into_bytes().into();
        // Beside the thread that fetches: it takes about as long as that.
        let summed = tokio::task::spawn_blocking(move || {
            (aws_smithy_types::base64::encode(sha2::Sha256::digest(&data)), data)
        });
        let lost = |e: tokio::task::JoinError| Ec2Error::unknown(ACTION, e.to_string());
        let (own, data) = summed.await.map_err(lost)?;
        let whole = length.is_none_or(|n| usize::try_from(n).is_ok_and(|n| n == data.len()));
        Ok(Block { fits: whole && sum.is_some_and(|sum| sum == own), data })
    }
}
