//! [`Clones`] by the AWS SDK.
//!
//! In: a request. Out: plain values. Must never: call a failed CopyVolumes "refused" when EC2 may have carried it out.

use aws_sdk_ec2::types::{Filter, InitializationType, ResourceType, Volume, VolumeType};
use futures_util::future::join_all;

use super::{Aws, allowed, created_with, filter, own_tags, parse, sdk_tags};
use crate::ec2::clones::{CloneFailed, CloneOf, CloneRequest, CloneView, Clones};
use crate::ec2::connect::without_call_timeout;
use crate::ec2::{Ec2Error, RUN_TAG};
use crate::ids::{RunId, VolumeId};

/// A filter takes at most so many values (EC2 API reference, "Filter").
const VALUES: usize = 200;
const COPY: &str = "CopyVolumes";

impl Aws {
    async fn copy_volume(&self, of: &CloneOf, dry_run: bool) -> Result<CloneView, Ec2Error> {
        let call = self
            .connection
            .client
            .copy_volumes()
            .source_volume_id(of.volume.as_str())
            .client_token(&of.token)
            .volume_type(VolumeType::from(of.volume_type.as_str()))
            .set_iops(of.iops)
            .set_throughput(of.throughput)
            .set_size(of.size_gib)
            .tag_specifications(created_with(ResourceType::Volume, &of.tags))
            .dry_run(dry_run)
            .customize();
        let call = if dry_run { call } else { call.config_override(without_call_timeout()) };
        let answer = call.send().await.map_err(|e| self.sort(COPY, &e))?;
        let nothing = || Ec2Error::unknown(COPY, "unexpected answer: no volume in it");
        let made = answer.volumes().first().ok_or_else(nothing)?;
        // The answer need not say of what: there was one volume in the request.
        Ok(CloneView {
            id: parse(COPY, made.volume_id())?,
            source: of.volume.clone(),
            state: made.state().map_or_else(|| "creating".to_owned(), |s| s.as_str().to_owned()),
            tags: Vec::new(),
        })
    }

    async fn copies_by(&self, filter: Filter) -> Result<Vec<CloneView>, Ec2Error> {
        let found = self.volumes_by(filter).await?;
        found.iter().filter(|v| v.source_volume_id().is_some()).map(|v| view("DescribeVolumes", v)).collect()
    }
}

fn view(action: &'static str, volume: &Volume) -> Result<CloneView, Ec2Error> {
    Ok(CloneView {
        id: parse(action, volume.volume_id())?,
        source: parse(action, volume.source_volume_id())?,
        state: volume.state().map_or_else(String::new, |s| s.as_str().to_owned()),
        tags: own_tags(volume.tags()),
    })
}

impl Clones for Aws {
    async fn may_clone(&self, request: &CloneRequest) -> Result<(), Ec2Error> {
        self.ready("DryRun").await?;
        let said = join_all(request.volumes.iter().map(|v| self.copy_volume(v, true))).await;
        said.into_iter().try_for_each(|s| allowed(COPY, s.map(drop)))
    }

    async fn clone_volumes(&self, request: &CloneRequest) -> Result<Vec<CloneView>, CloneFailed> {
        let said = join_all(request.volumes.iter().map(|v| self.copy_volume(v, false))).await;
        let mut made = Vec::new();
        let mut first = None;
        let mut outcome_unknown = false;
        for answer in said {
            match answer {
                Ok(clone) => made.push(clone),
                Err(error) => {
                    outcome_unknown |= error.outcome_unknown();
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            None => Ok(made),
            Some(error) => Err(CloneFailed { error, outcome_unknown, made }),
        }
    }

    async fn copies_in_progress(&self) -> Result<Vec<VolumeId>, Ec2Error> {
        const ACTION: &str = "DescribeVolumeStatus";
        self.ready(ACTION).await?;
        let call = self.connection.client.describe_volume_status().max_results(1000);
        let mut pages = call.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for status in page.map_err(|e| self.sort(ACTION, &e))?.volume_statuses() {
                let of = status.initialization_status_details();
                let copying = of.is_some_and(|of| {
                    of.initialization_type() == Some(&InitializationType::VolumeCopy)
                        && of.progress().is_none_or(|done| done < 100)
                });
                if copying {
                    found.push(parse(ACTION, status.volume_id())?);
                }
            }
        }
        Ok(found)
    }

    async fn clones(&self, ids: &[VolumeId]) -> Result<Vec<CloneView>, Ec2Error> {
        let mut found = Vec::new();
        // By a filter: a parameter with the id of one that is gone is an error.
        for some in ids.chunks(VALUES) {
            found.extend(self.copies_by(filter("volume-id", some.iter().map(VolumeId::as_str))).await?);
        }
        Ok(found)
    }

    async fn clones_of(&self, run: &RunId) -> Result<Vec<CloneView>, Ec2Error> {
        self.copies_by(filter(&format!("tag:{RUN_TAG}"), [run.as_str()])).await
    }

    async fn label_clones(&self, ids: &[VolumeId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        const ACTION: &str = "CreateTags";
        self.ready(ACTION).await?;
        let ids = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let call = self.connection.client.create_tags().set_resources(Some(ids));
        let call = call.set_tags(Some(sdk_tags(tags)));
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn delete_clone(&self, id: &VolumeId) -> Result<(), Ec2Error> {
        use crate::ec2::volumes::Volumes as _;
        self.delete_volume(id).await
    }
}
