//! Questions that only `doctor` asks: what may this role do, and how do EC2's clock and volumes stand?
//!
//! In: ids. Out: plain values. Must never: send a request that changes anything without DryRun.

use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::types::Tag;
use jiff::Timestamp;

use super::{Aws, allowed, parse};
use crate::ec2::Ec2Error;
use crate::ec2::tagging::Said;
use crate::ids::{InstanceId, SnapshotId, VolumeId};

/// A well-formed id that no snapshot has.
const NO_SNAPSHOT: &str = "snap-00000000000000000";

/// The result of a DryRun of CreateTags.
#[derive(Debug)]
pub(crate) struct MayTag {
    /// Whether it is allowed.
    pub allowed: Result<Said, Ec2Error>,
    /// The date in EC2's answer, and this host's time when it came.
    pub dates: (Option<Timestamp>, Timestamp),
}

impl Aws {
    /// DryRun of CreateTags with keys that a verdict has, since a policy can name keys: on this snapshot, or on one
    /// that does not exist.
    pub(crate) async fn dry_run_of_tags(&self, snapshot: Option<&SnapshotId>) -> MayTag {
        const ACTION: &str = "CreateTags";
        let keys = ["stillpoint:consistency", "stillpoint:part"];
        let tags = keys.map(|key| Tag::builder().key(key).value("crash").build());
        let resource = snapshot.map_or(NO_SNAPSHOT, SnapshotId::as_str);
        let call = self.connection.client.create_tags().resources(resource).set_tags(Some(tags.into()));
        let said = call.dry_run(true).send().await;
        let here = Timestamp::now();
        let date = match &said {
            Err(SdkError::ServiceError(e)) => e.raw().headers().get("date").and_then(date),
            _ => None,
        };
        let allowed = match allowed(ACTION, said.map(drop).map_err(|e| self.sort(ACTION, &e))) {
            Err(Ec2Error::Refused { code, .. }) if code.starts_with("InvalidSnapshot") => {
                Ok(Said::NoSnapshot)
            }
            told => told.map(|()| Said::Allowed),
        };
        MayTag { allowed, dates: (date, here) }
    }

    /// The hop limit of IMDS's answer to a token request; none when EC2 does not return it.
    ///
    /// # Errors
    /// As every call.
    pub(crate) async fn hop_limit(&self, id: &InstanceId) -> Result<Option<i32>, Ec2Error> {
        let call = self.connection.client.describe_instances().instance_ids(id.as_str());
        let answer = call.send().await.map_err(|e| self.sort("DescribeInstances", &e))?;
        let instance = answer.reservations().iter().flat_map(|r| r.instances()).next();
        Ok(instance.and_then(|i| i.metadata_options()).and_then(|o| o.http_put_response_hop_limit()))
    }

    /// State of each volume, and of its attachment to this instance.
    ///
    /// # Errors
    /// As every call.
    pub(crate) async fn volume_states(
        &self,
        instance: &InstanceId,
        volumes: &[VolumeId],
    ) -> Result<Vec<(VolumeId, String, String)>, Ec2Error> {
        const ACTION: &str = "DescribeVolumes";
        let ids = volumes.iter().map(|v| v.as_str().to_owned()).collect();
        let call = self.connection.client.describe_volumes().set_volume_ids(Some(ids));
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let states = answer.volumes().iter().map(|v| {
            let here = v.attachments().iter().find(|a| a.instance_id() == Some(instance.as_str()));
            let attached = here.and_then(|a| a.state()).map_or("unknown", |s| s.as_str());
            let state = v.state().map_or("unknown", |s| s.as_str());
            Ok((parse(ACTION, v.volume_id())?, state.to_owned(), attached.to_owned()))
        });
        states.collect()
    }
}

fn date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|t| t.timestamp())
}
