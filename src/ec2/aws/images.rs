//! [`Images`] by the AWS SDK.
//!
//! In: a request. Out: plain values. Must never: send one RegisterImage twice, or leave out what an image is compared by.

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Image, ImageAttributeName,
    ImdsSupportValues, Instance, ManagedBy, OperationType, ProductCode, ResourceType, TpmSupportValues,
    VolumeType,
};
use jiff::Timestamp;

use super::{Aws, allowed, created_with, filter, own_tags, parse, sdk_tags};
use crate::ec2::Ec2Error;
use crate::ec2::images::{
    Attributes, Billing, IMAGE_OF_TAG, ImageRequest, ImageView, Images, Machine, Mapping, PublicImages,
    SnapshotResult, WhichImages,
};
use crate::ec2::keep::{EVERYBODY, Permission};
use crate::ids::{ImageId, InstanceId};

const REGISTER: &str = "RegisterImage";
const DESCRIBE: &str = "DescribeImages";

impl Aws {
    async fn register_image(&self, of: &ImageRequest, dry_run: bool) -> Result<Option<String>, Ec2Error> {
        self.ready(REGISTER).await?;
        let Attributes { architecture, virtualization, boot_mode, tpm, ena, sriov, imds, kernel, ramdisk } =
            &of.attributes;
        let call = self
            .connection
            .client
            .register_image()
            .name(&of.name)
            .description(&of.description)
            .architecture(ArchitectureValues::from(architecture.as_str()))
            .virtualization_type(virtualization)
            .set_boot_mode(boot_mode.as_deref().map(BootModeValues::from))
            .set_tpm_support(tpm.as_deref().map(TpmSupportValues::from))
            .ena_support(*ena)
            .set_sriov_net_support(sriov.clone())
            .set_imds_support(imds.as_deref().map(ImdsSupportValues::from))
            .set_kernel_id(kernel.clone())
            .set_ramdisk_id(ramdisk.clone())
            .set_uefi_data(of.uefi_data.clone())
            .root_device_name(&of.root_device_name)
            .set_block_device_mappings(Some(of.mappings.iter().map(mapped).collect()))
            .tag_specifications(created_with(ResourceType::Image, &of.tags))
            .dry_run(dry_run);
        let said = call.send().await.map_err(|e| self.sort(REGISTER, &e))?;
        Ok(said.image_id().map(str::to_owned))
    }
}

impl Images for Aws {
    async fn machine(&self, id: &InstanceId) -> Result<Option<Machine>, Ec2Error> {
        let instance = self.shown_instance(id).await?;
        // EC2 shows what is terminated for a while, without its volumes.
        let gone =
            |i: &Instance| i.state().and_then(|s| s.name()).is_some_and(|n| n.as_str() == "terminated");
        Ok(instance.filter(|i| !gone(i)).as_ref().map(machine))
    }

    async fn uefi_data(&self, id: &InstanceId) -> Result<Option<String>, Ec2Error> {
        const ACTION: &str = "GetInstanceUefiData";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_instance_uefi_data().instance_id(id.as_str());
        match call.send().await.map_err(|e| self.sort(ACTION, &e)) {
            Ok(said) => Ok(said.uefi_data().filter(|data| !data.is_empty()).map(str::to_owned)),
            Err(Ec2Error::Refused { code, .. }) if code == "UnsupportedOperation" => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn own_images(&self, which: &WhichImages) -> Result<Vec<ImageView>, Ec2Error> {
        let filter = match which {
            WhichImages::Named(name) => filter("name", [name.as_str()]),
            WhichImages::Ids(ids) => filter("image-id", ids.iter().map(ImageId::as_str)),
            WhichImages::OfSets => filter("tag-key", [IMAGE_OF_TAG]),
        };
        self.ready(DESCRIBE).await?;
        let call = self.connection.client.describe_images().owners("self").include_disabled(true);
        let mut pages = call.filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for image in page.map_err(|e| self.sort(DESCRIBE, &e))?.images() {
                found.push(view(image)?);
            }
        }
        Ok(found)
    }

    async fn any_image(&self, id: &ImageId) -> Result<Option<ImageView>, Ec2Error> {
        self.ready(DESCRIBE).await?;
        let call = self.connection.client.describe_images().include_disabled(true).include_deprecated(true);
        let mut pages = call.filters(filter("image-id", [id.as_str()])).into_paginator().send();
        while let Some(page) = pages.next().await {
            if let Some(image) = page.map_err(|e| self.sort(DESCRIBE, &e))?.images().first() {
                return view(image).map(Some);
            }
        }
        Ok(None)
    }

    async fn register(&self, request: &ImageRequest) -> Result<ImageId, Ec2Error> {
        let id = self.register_image(request, false).await?;
        parse(REGISTER, id.as_deref())
    }

    async fn may_register(&self, request: &ImageRequest) -> Result<(), Ec2Error> {
        allowed(REGISTER, self.register_image(request, true).await.map(drop))
    }

    async fn deregister(&self, id: &ImageId, with_snapshots: bool) -> Result<Vec<SnapshotResult>, Ec2Error> {
        const ACTION: &str = "DeregisterImage";
        self.ready(ACTION).await?;
        let call = self.connection.client.deregister_image().image_id(id.as_str());
        let call = call.set_delete_associated_snapshots(with_snapshots.then_some(true));
        let said = match call.send().await.map_err(|e| self.sort(ACTION, &e)) {
            Err(Ec2Error::Refused { code, .. })
                if matches!(code.as_str(), "InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable") =>
            {
                return Ok(Vec::new());
            }
            said => said?,
        };
        let one = |r: &aws_sdk_ec2::types::DeleteSnapshotReturnCode| {
            let code = r.return_code().map_or("", |c| c.as_str()).to_owned();
            Ok((parse(ACTION, r.snapshot_id())?, code))
        };
        said.delete_snapshot_results().iter().map(one).collect()
    }

    async fn label_image(&self, id: &ImageId, tags: &[(String, String)]) -> Result<(), Ec2Error> {
        const ACTION: &str = "CreateTags";
        self.ready(ACTION).await?;
        let call = self.connection.client.create_tags().resources(id.as_str());
        let call = call.set_tags(Some(sdk_tags(tags)));
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn launched_by(&self, id: &ImageId) -> Result<Vec<String>, Ec2Error> {
        const ACTION: &str = "DescribeImageAttribute";
        self.ready(ACTION).await?;
        let call = self.connection.client.describe_image_attribute().image_id(id.as_str());
        let call = call.attribute(ImageAttributeName::LaunchPermission);
        let said = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let who = said.launch_permissions().iter();
        Ok(who.filter_map(|p| p.user_id().or(p.group().map(|g| g.as_str())).map(str::to_owned)).collect())
    }

    async fn permit_launch(&self, id: &ImageId, change: Permission, who: &[String]) -> Result<(), Ec2Error> {
        const ACTION: &str = "ModifyImageAttribute";
        self.ready(ACTION).await?;
        let (groups, users): (Vec<String>, Vec<String>) = who.iter().cloned().partition(|w| w == EVERYBODY);
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let call = self.connection.client.modify_image_attribute().image_id(id.as_str());
        let call = call
            .attribute("launchPermission")
            .operation_type(match change {
                Permission::Add => OperationType::Add,
                Permission::Remove => OperationType::Remove,
            })
            .set_user_ids(some(users))
            .set_user_groups(some(groups));
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn public_images(&self) -> Result<PublicImages, Ec2Error> {
        const ACTION: &str = "GetImageBlockPublicAccessState";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_image_block_public_access_state();
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let state = answer.image_block_public_access_state().map(str::to_owned);
        Ok(PublicImages {
            state: state.ok_or_else(|| Ec2Error::unknown(ACTION, "the answer has no state"))?,
            by_policy: answer.managed_by() == Some(&ManagedBy::DeclarativePolicy),
        })
    }

    async fn deprecate(&self, id: &ImageId, from: Option<Timestamp>) -> Result<(), Ec2Error> {
        match from {
            Some(from) => {
                const ACTION: &str = "EnableImageDeprecation";
                self.ready(ACTION).await?;
                let call = self.connection.client.enable_image_deprecation().image_id(id.as_str());
                let call = call.deprecate_at(DateTime::from_secs(from.as_second()));
                call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
            }
            None => {
                const ACTION: &str = "DisableImageDeprecation";
                self.ready(ACTION).await?;
                let call = self.connection.client.disable_image_deprecation().image_id(id.as_str());
                call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
            }
        }
    }

    async fn disable(&self, id: &ImageId, disable: bool) -> Result<(), Ec2Error> {
        if disable {
            const ACTION: &str = "DisableImage";
            self.ready(ACTION).await?;
            let call = self.connection.client.disable_image().image_id(id.as_str());
            return call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e));
        }
        const ACTION: &str = "EnableImage";
        self.ready(ACTION).await?;
        let call = self.connection.client.enable_image().image_id(id.as_str());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }
}

/// Without `Encrypted`: EC2 takes it from the snapshot, and refuses it here.
fn mapped(of: &Mapping) -> BlockDeviceMapping {
    let ebs = EbsBlockDevice::builder()
        .set_snapshot_id(of.snapshot.as_ref().map(ToString::to_string))
        .volume_size(of.size_gib)
        .volume_type(VolumeType::from(of.volume_type.as_str()))
        .set_iops(of.iops)
        .set_throughput(of.throughput)
        .delete_on_termination(of.delete_on_termination)
        .build();
    BlockDeviceMapping::builder().device_name(&of.device_name).ebs(ebs).build()
}

fn codes(codes: &[ProductCode]) -> Vec<String> {
    let mut all: Vec<String> = codes.iter().filter_map(|c| c.product_code_id().map(str::to_owned)).collect();
    all.sort_unstable();
    all
}

/// What is empty says nothing.
fn some(text: Option<&str>) -> Option<String> {
    text.filter(|t| !t.is_empty()).map(str::to_owned)
}

fn machine(i: &Instance) -> Machine {
    let needs = i.metadata_options().and_then(|m| m.http_tokens()).is_some_and(|t| t.as_str() == "required");
    let volumes = i.block_device_mappings().iter().filter_map(|m| {
        let ebs = m.ebs()?;
        Some((ebs.volume_id()?.parse().ok()?, ebs.delete_on_termination()?))
    });
    Machine {
        attributes: Attributes {
            architecture: i.architecture().map_or_else(String::new, |a| a.as_str().to_owned()),
            virtualization: i.virtualization_type().map_or_else(String::new, |v| v.as_str().to_owned()),
            boot_mode: some(i.boot_mode().map(|b| b.as_str())),
            tpm: some(i.tpm_support()),
            ena: i.ena_support().unwrap_or_default(),
            sriov: some(i.sriov_net_support()),
            imds: None,
            kernel: some(i.kernel_id()),
            ramdisk: some(i.ramdisk_id()),
        },
        current_boot_mode: some(i.current_instance_boot_mode().map(|b| b.as_str())),
        billing: Billing {
            platform_details: some(i.platform_details()),
            usage_operation: some(i.usage_operation()),
            product_codes: codes(i.product_codes()),
        },
        image: i.image_id().and_then(|id| id.parse().ok()),
        root_device_name: some(i.root_device_name()),
        needs_tokens: needs,
        delete_on_termination: volumes.collect(),
    }
}

pub(super) fn view(i: &Image) -> Result<ImageView, Ec2Error> {
    let mut mappings = Vec::new();
    let mut others = false;
    for m in i.block_device_mappings() {
        let Some(ebs) = m.ebs() else {
            others = true;
            continue;
        };
        mappings.push(Mapping {
            device_name: m.device_name().unwrap_or_default().to_owned(),
            snapshot: some(ebs.snapshot_id()).map(|id| parse(DESCRIBE, Some(&id))).transpose()?,
            size_gib: ebs.volume_size().unwrap_or_default(),
            volume_type: ebs.volume_type().map_or_else(String::new, |t| t.as_str().to_owned()),
            iops: ebs.iops(),
            throughput: ebs.throughput(),
            delete_on_termination: ebs.delete_on_termination().unwrap_or_default(),
            encrypted: ebs.encrypted().unwrap_or_default(),
        });
    }
    let time = |text: Option<&str>| text.and_then(|t| t.parse::<Timestamp>().ok());
    let reason = i.state_reason().and_then(|r| r.message());
    Ok(ImageView {
        id: parse(DESCRIBE, i.image_id())?,
        name: i.name().unwrap_or_default().to_owned(),
        state: i.state().map_or_else(String::new, |s| s.as_str().to_owned()),
        reason: some(reason),
        created: time(i.creation_date()),
        deprecated_from: time(i.deprecation_time()),
        public: i.public().unwrap_or_default(),
        attributes: Attributes {
            architecture: i.architecture().map_or_else(String::new, |a| a.as_str().to_owned()),
            virtualization: i.virtualization_type().map_or_else(String::new, |v| v.as_str().to_owned()),
            boot_mode: some(i.boot_mode().map(|b| b.as_str())),
            tpm: some(i.tpm_support().map(|t| t.as_str())),
            ena: i.ena_support().unwrap_or_default(),
            sriov: some(i.sriov_net_support()),
            imds: some(i.imds_support().map(|s| s.as_str())),
            kernel: some(i.kernel_id()),
            ramdisk: some(i.ramdisk_id()),
        },
        billing: Billing {
            platform_details: some(i.platform_details()),
            usage_operation: some(i.usage_operation()),
            product_codes: codes(i.product_codes()),
        },
        root_device_name: some(i.root_device_name()),
        mappings,
        others,
        tags: own_tags(i.tags()),
    })
}
