//! [`Copies`] by the AWS SDK.
//!
//! In: a request. Out: plain values. Must never: send one request twice.

use aws_sdk_ec2::types::ResourceType;

use super::{Aws, allowed, created_with, parse};
use crate::ec2::Ec2Error;
use crate::ec2::copies::{Copies, CopyRequest, Encryption};
use crate::ids::SnapshotId;

const ACTION: &str = "CopySnapshot";

impl Aws {
    async fn copy_snapshot(&self, request: &CopyRequest, dry_run: bool) -> Result<Option<String>, Ec2Error> {
        self.ready(ACTION).await?;
        let (encrypted, key) = match &request.encryption {
            Encryption::AsSource => (None, None),
            Encryption::Unnamed => (Some(true), None),
            Encryption::Key(key) => (Some(true), Some(key.clone())),
        };
        let call = self
            .connection
            .client
            .copy_snapshot()
            .source_region(&request.source_region)
            .source_snapshot_id(request.source.as_str())
            .description(&request.description)
            .tag_specifications(created_with(ResourceType::Snapshot, &request.tags))
            .set_encrypted(encrypted)
            .set_kms_key_id(key)
            .set_completion_duration_minutes(request.minutes.map(i32::from))
            .dry_run(dry_run);
        let said = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        Ok(said.snapshot_id().map(str::to_owned))
    }
}

impl Copies for Aws {
    async fn copy(&self, request: &CopyRequest) -> Result<SnapshotId, Ec2Error> {
        let id = self.copy_snapshot(request, false).await?;
        parse(ACTION, id.as_deref())
    }

    async fn may_copy(&self, request: &CopyRequest) -> Result<(), Ec2Error> {
        allowed(ACTION, self.copy_snapshot(request, true).await.map(drop))
    }

    async fn default_key(&self) -> Result<String, Ec2Error> {
        const ACTION: &str = "GetEbsDefaultKmsKeyId";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_ebs_default_kms_key_id();
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let key = answer.kms_key_id().filter(|k| !k.is_empty()).map(str::to_owned);
        key.ok_or_else(|| Ec2Error::unknown(ACTION, "the answer has no key"))
    }
    async fn encrypts_by_default(&self) -> Result<bool, Ec2Error> {
        const ACTION: &str = "GetEbsEncryptionByDefault";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_ebs_encryption_by_default();
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        answer
            .ebs_encryption_by_default()
            .ok_or_else(|| Ec2Error::unknown(ACTION, "the answer does not say it"))
    }
}
