//! [`Volumes`] by the AWS SDK.
//!
//! In: a request. Out: plain values. Must never: force a detachment.

use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, Filter, InstanceBlockDeviceMappingSpecification, ResourceType, Tag,
    Volume, VolumeType,
};

use super::{Aws, allowed, created_with, filter, own_tags, parse, time};
use crate::ec2::Ec2Error;
use crate::ec2::volumes::{Attachment, AttachmentLimit, HostView, VolumeRequest, VolumeView, Volumes, Which};
use crate::ids::{InstanceId, VolumeId};

/// A filter takes at most so many values (EC2 API reference, "Filter").
const VALUES: usize = 200;
const CREATE: &str = "CreateVolume";

impl Aws {
    async fn make_volume(&self, of: &VolumeRequest, dry_run: bool) -> Result<Option<String>, Ec2Error> {
        self.ready(CREATE).await?;
        let call = self
            .connection
            .client
            .create_volume()
            .client_token(&of.token)
            .snapshot_id(of.snapshot.as_str())
            .availability_zone(&of.zone)
            .volume_type(VolumeType::from(of.volume_type.as_str()))
            .set_iops(of.iops)
            .set_throughput(of.throughput)
            .set_size(of.size_gib)
            .set_encrypted(of.key.as_ref().map(|_| true))
            .set_kms_key_id(of.key.clone())
            .set_volume_initialization_rate(of.initialization_rate)
            .tag_specifications(created_with(ResourceType::Volume, &of.tags))
            .dry_run(dry_run);
        let said = call.send().await.map_err(|e| self.sort(CREATE, &e))?;
        Ok(said.volume_id().map(str::to_owned))
    }
}

impl Aws {
    /// DescribeVolumes by this filter, every page.
    pub(super) async fn volumes_by(&self, filter: Filter) -> Result<Vec<Volume>, Ec2Error> {
        const ACTION: &str = "DescribeVolumes";
        self.ready(ACTION).await?;
        let mut pages = self.connection.client.describe_volumes().filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            found.extend(page.map_err(|e| self.sort(ACTION, &e))?.volumes.unwrap_or_default());
        }
        Ok(found)
    }
}

impl Volumes for Aws {
    async fn host(&self, id: &InstanceId) -> Result<HostView, Ec2Error> {
        const ACTION: &str = "DescribeInstances";
        self.ready(ACTION).await?;
        let call = self.connection.client.describe_instances().instance_ids(id.as_str());
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let mut all = answer.reservations().iter().flat_map(|r| r.instances());
        let unexpected = |what: &str| Ec2Error::unknown(ACTION, format!("unexpected answer: {what}"));
        let instance = all.find(|i| i.instance_id() == Some(id.as_str()));
        let instance = instance.ok_or_else(|| unexpected("the instance is not in it"))?;
        let zone = instance.placement().and_then(|p| p.availability_zone());
        Ok(HostView {
            zone: zone.ok_or_else(|| unexpected("no zone"))?.to_owned(),
            instance_type: instance.instance_type().map_or_else(String::new, |t| t.as_str().to_owned()),
            device_names: instance
                .block_device_mappings()
                .iter()
                .filter_map(|m| m.device_name().map(str::to_owned))
                .collect(),
            interfaces: instance.network_interfaces().len(),
        })
    }

    async fn attachment_limit(&self, instance_type: &str) -> Result<Option<AttachmentLimit>, Ec2Error> {
        const ACTION: &str = "DescribeInstanceTypes";
        self.ready(ACTION).await?;
        let call = self.connection.client.describe_instance_types().instance_types(instance_type.into());
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let Some(of) = answer.instance_types().first() else { return Ok(None) };
        let Some(ebs) = of.ebs_info() else { return Ok(None) };
        let most = ebs.maximum_ebs_attachments().and_then(|n| usize::try_from(n).ok());
        let disks = of.instance_storage_info().map(|i| i.disks()).unwrap_or_default();
        let disks = disks.iter().filter_map(|d| usize::try_from(d.count()?).ok()).sum();
        Ok(most.map(|most| AttachmentLimit {
            most,
            shared: ebs.attachment_limit_type().is_some_and(|t| t.as_str() == "shared"),
            instance_store: disks,
        }))
    }

    async fn create_volume(&self, request: &VolumeRequest) -> Result<VolumeId, Ec2Error> {
        let id = self.make_volume(request, false).await?;
        parse(CREATE, id.as_deref())
    }

    async fn may_create_volume(&self, request: &VolumeRequest) -> Result<(), Ec2Error> {
        allowed(CREATE, self.make_volume(request, true).await.map(drop))
    }

    async fn volumes_that_are(&self, which: &Which) -> Result<Vec<VolumeView>, Ec2Error> {
        const ACTION: &str = "DescribeVolumes";
        let filters = match which {
            Which::Tagged(key, value) => vec![filter(&format!("tag:{key}"), [value.as_str()])],
            Which::WithTag(key) => vec![filter("tag-key", [key.as_str()])],
            Which::Ids(ids) => ids
                .chunks(VALUES)
                .map(|some| filter("volume-id", some.iter().map(VolumeId::as_str)))
                .collect(),
        };
        let mut found = Vec::new();
        for filter in filters {
            for volume in self.volumes_by(filter).await? {
                found.push(view(ACTION, &volume)?);
            }
        }
        Ok(found)
    }

    async fn attach_volume(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device_name: &str,
    ) -> Result<(), Ec2Error> {
        const ACTION: &str = "AttachVolume";
        self.ready(ACTION).await?;
        let call = self.connection.client.attach_volume().volume_id(volume.as_str());
        let call = call.instance_id(instance.as_str()).device(device_name);
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn detach_volume(&self, volume: &VolumeId, instance: &InstanceId) -> Result<(), Ec2Error> {
        const ACTION: &str = "DetachVolume";
        self.ready(ACTION).await?;
        let call = self.connection.client.detach_volume().volume_id(volume.as_str());
        let call = call.instance_id(instance.as_str());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn may_exchange(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device_name: &str,
    ) -> Result<(), Ec2Error> {
        self.ready("DryRun").await?;
        let client = &self.connection.client;
        let detach = client.detach_volume().volume_id(volume.as_str()).instance_id(instance.as_str());
        let said = detach.dry_run(true).send().await.map(drop).map_err(|e| self.sort("DetachVolume", &e));
        permitted("DetachVolume", said)?;
        let attach = client.attach_volume().volume_id(volume.as_str()).instance_id(instance.as_str());
        let attach = attach.device(device_name).dry_run(true);
        let said = attach.send().await.map(drop).map_err(|e| self.sort("AttachVolume", &e));
        permitted("AttachVolume", said)
    }

    async fn delete_with_instance(&self, instance: &InstanceId, device_name: &str) -> Result<(), Ec2Error> {
        const ACTION: &str = "ModifyInstanceAttribute";
        self.ready(ACTION).await?;
        let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(true).build();
        let mapping =
            InstanceBlockDeviceMappingSpecification::builder().device_name(device_name).ebs(ebs).build();
        let call = self.connection.client.modify_instance_attribute().instance_id(instance.as_str());
        let call = call.block_device_mappings(mapping);
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn tag_volumes(&self, volumes: &[VolumeId], (key, value): (&str, &str)) -> Result<(), Ec2Error> {
        const ACTION: &str = "CreateTags";
        self.ready(ACTION).await?;
        let ids = volumes.iter().map(|id| id.as_str().to_owned()).collect();
        let call = self.connection.client.create_tags().set_resources(Some(ids));
        let call = call.tags(Tag::builder().key(key).value(value).build());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn untag_volumes(&self, volumes: &[VolumeId], (key, value): (&str, &str)) -> Result<(), Ec2Error> {
        const ACTION: &str = "DeleteTags";
        self.ready(ACTION).await?;
        let ids = volumes.iter().map(|id| id.as_str().to_owned()).collect();
        let call = self.connection.client.delete_tags().set_resources(Some(ids));
        let call = call.tags(Tag::builder().key(key).value(value).build());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn delete_volume(&self, volume: &VolumeId) -> Result<(), Ec2Error> {
        const ACTION: &str = "DeleteVolume";
        self.ready(ACTION).await?;
        let call = self.connection.client.delete_volume().volume_id(volume.as_str());
        match call.send().await.map_err(|e| self.sort(ACTION, &e)) {
            Err(Ec2Error::Refused { code, .. }) if code == "InvalidVolume.NotFound" => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The same as [`allowed`], of a volume that is attached: EC2 may look at that before, or after, the permission, and
/// refuse the call for it.
fn permitted(action: &'static str, said: Result<(), Ec2Error>) -> Result<(), Ec2Error> {
    match said {
        Err(Ec2Error::Refused { code, .. }) if code == "VolumeInUse" || code == "InvalidParameterValue" => {
            Ok(())
        }
        said => allowed(action, said),
    }
}

fn view(action: &'static str, volume: &Volume) -> Result<VolumeView, Ec2Error> {
    let attachments = volume.attachments().iter().map(|a| Attachment {
        instance: a.instance_id().and_then(|id| id.parse().ok()),
        device_name: a.device().unwrap_or_default().to_owned(),
        state: a.state().map_or_else(String::new, |s| s.as_str().to_owned()),
        delete_on_termination: a.delete_on_termination().unwrap_or_default(),
    });
    Ok(VolumeView {
        id: parse(action, volume.volume_id())?,
        state: volume.state().map_or_else(String::new, |s| s.as_str().to_owned()),
        zone: volume.availability_zone().unwrap_or_default().to_owned(),
        size_gib: volume.size().unwrap_or_default(),
        volume_type: volume.volume_type().map_or_else(String::new, |t| t.as_str().to_owned()),
        // Empty of a volume that was made of none.
        snapshot: volume.snapshot_id().and_then(|id| id.parse().ok()),
        created: time(volume.create_time()),
        attachments: attachments.collect(),
        tags: own_tags(volume.tags()),
    })
}
