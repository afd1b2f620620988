//! [`Direct`] by the AWS SDK.
//!
//! In: a [`DirectConnection`]. Out: plain values. Must never: return a type of the SDK.

use aws_sdk_ebs::error::SdkError;

use super::{A_CALL, no_credentials, sort};
use crate::ec2::connect::DirectConnection;
use crate::ec2::direct::Direct;
use crate::ec2::{Ec2Error, denial};
use crate::ids::SnapshotId;

/// The least that a page may have (EBS direct APIs reference, ListSnapshotBlocks).
const SHORT_PAGE: i32 = 100;

/// The EBS direct APIs through the AWS SDK.
#[derive(Debug, Clone)]
pub struct AwsDirect {
    connection: DirectConnection,
}

impl AwsDirect {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(connection: DirectConnection) -> Self {
        Self { connection }
    }
}

impl Direct for AwsDirect {
    async fn readable(&self, snapshot: &SnapshotId) -> Result<bool, Ec2Error> {
        const ACTION: &str = "ListSnapshotBlocks";
        let ready = self.connection.renew_if_possible(A_CALL).await;
        ready.map_err(|e| no_credentials(ACTION, &e))?;
        let call = self.connection.client.list_snapshot_blocks().snapshot_id(snapshot.as_str());
        match call.max_results(SHORT_PAGE).send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(said)) if said.err().is_resource_not_found_exception() => Ok(false),
            Err(e) => {
                let region = self.connection.client.config().region().map_or("", |r| r.as_ref());
                Err(sort::sort(ACTION, &e, denial::partition(region)))
            }
        }
    }
}
