//! [`Roots`] by the AWS SDK.
//!
//! In: a request. Out: plain values. Must never: send it without a token.

use aws_sdk_ec2::types::{ReplaceRootVolumeTask, ResourceType};

use super::{Aws, allowed, created_with, filter, own_tags, parse};
use crate::ec2::Ec2Error;
use crate::ec2::roots::{RootRequest, RootTask, RootView, Roots};
use crate::ec2::volumes::{Volumes as _, Which};
use crate::ids::{InstanceId, VolumeId};

const CREATE: &str = "CreateReplaceRootVolumeTask";

impl Aws {
    async fn ask_for_root(
        &self,
        of: &RootRequest,
        dry_run: bool,
    ) -> Result<Option<ReplaceRootVolumeTask>, Ec2Error> {
        self.ready(CREATE).await?;
        let call = self
            .connection
            .client
            .create_replace_root_volume_task()
            .client_token(&of.token)
            .instance_id(of.instance.as_str())
            .snapshot_id(of.snapshot.as_str())
            .delete_replaced_root_volume(of.delete_replaced)
            .set_volume_initialization_rate(of.initialization_rate.map(i64::from))
            .tag_specifications(created_with(ResourceType::ReplaceRootVolumeTask, &of.tags))
            .dry_run(dry_run);
        let said = call.send().await.map_err(|e| self.sort(CREATE, &e))?;
        Ok(said.replace_root_volume_task)
    }
}

impl Roots for Aws {
    async fn root_of(&self, id: &InstanceId) -> Result<Option<RootView>, Ec2Error> {
        let Some(instance) = self.shown_instance(id).await? else { return Ok(None) };
        let device_name = instance.root_device_name().unwrap_or_default();
        let mappings = instance.block_device_mappings();
        let volume_of = |m: &aws_sdk_ec2::types::InstanceBlockDeviceMapping| {
            m.ebs().and_then(|ebs| ebs.volume_id()).and_then(|id| id.parse().ok())
        };
        let volume: Option<VolumeId> =
            mappings.iter().find(|m| m.device_name() == Some(device_name)).and_then(volume_of);
        let of_it = Which::Ids(volume.iter().cloned().collect());
        let root = match volume {
            Some(_) => self.volumes_that_are(&of_it).await?.pop(),
            None => None,
        };
        Ok(Some(RootView {
            state: instance.state().and_then(|s| s.name()).map_or("?", |n| n.as_str()).to_owned(),
            instance_type: instance.instance_type().map_or("", |t| t.as_str()).to_owned(),
            zone: instance.placement().and_then(|p| p.availability_zone()).unwrap_or_default().to_owned(),
            root_device_type: instance.root_device_type().map_or("", |t| t.as_str()).to_owned(),
            volume,
            snapshot: root.as_ref().and_then(|v| v.snapshot.clone()),
            size_gib: root.map_or(0, |v| v.size_gib),
            attached: mappings.iter().filter_map(volume_of).collect(),
            device_name: device_name.to_owned(),
        }))
    }

    async fn replace_root(&self, request: &RootRequest) -> Result<RootTask, Ec2Error> {
        let task = self.ask_for_root(request, false).await?;
        let task = task.ok_or_else(|| Ec2Error::unknown(CREATE, "unexpected answer: no task".to_owned()))?;
        view(CREATE, &task)
    }

    async fn may_replace_root(&self, request: &RootRequest) -> Result<(), Ec2Error> {
        allowed(CREATE, self.ask_for_root(request, true).await.map(drop))
    }

    async fn root_tasks(&self, of: Option<&InstanceId>) -> Result<Vec<RootTask>, Ec2Error> {
        const ACTION: &str = "DescribeReplaceRootVolumeTasks";
        self.ready(ACTION).await?;
        let call = self.connection.client.describe_replace_root_volume_tasks();
        let filters = of.map(|id| vec![filter("instance-id", [id.as_str()])]);
        let mut pages = call.set_filters(filters).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for task in page.map_err(|e| self.sort(ACTION, &e))?.replace_root_volume_tasks() {
                found.push(view(ACTION, task)?);
            }
        }
        Ok(found)
    }
}

fn view(action: &'static str, task: &ReplaceRootVolumeTask) -> Result<RootTask, Ec2Error> {
    let state = task.task_state().map_or("pending", |s| s.as_str());
    let Ok(state) = state.parse();
    Ok(RootTask {
        id: parse(action, task.replace_root_volume_task_id())?,
        instance: parse(action, task.instance_id())?,
        state,
        snapshot: task.snapshot_id().and_then(|id| id.parse().ok()),
        started: task.start_time().and_then(|t| t.parse().ok()),
        deletes_replaced: task.delete_replaced_root_volume().unwrap_or_default(),
        tags: own_tags(task.tags()),
    })
}
