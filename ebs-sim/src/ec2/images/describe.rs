//! DescribeImages.
//!
//! In: the images of a Region: this account's, and the one that the instance was launched from. Out: those
//! that are meant. `pending` must never be shown longer than EC2 would: images here have nothing to copy.

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::params::Params;
use super::super::query::Query;
use super::super::xml::{Xml, time};
use super::not_found;
use crate::ids::ImageId;
use crate::world::{Ami, Ebs, Target, World};

const FILTERS: &[&str] = &[
    "architecture",
    "boot-mode",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.encrypted",
    "block-device-mapping.snapshot-id",
    "block-device-mapping.volume-size",
    "block-device-mapping.volume-type",
    "creation-date",
    "description",
    "ena-support",
    "hypervisor",
    "image-id",
    "image-type",
    "is-public",
    "kernel-id",
    "manifest-location",
    "name",
    "owner-alias",
    "owner-id",
    "platform",
    "product-code",
    "product-code.type",
    "ramdisk-id",
    "root-device-name",
    "root-device-type",
    "source-image-id",
    "source-image-region",
    "source-instance-id",
    "sriov-net-support",
    "state",
    "state-reason-code",
    "state-reason-message",
    "virtualization-type",
];

pub struct Describe {
    query: Query,
    owners: Vec<String>,
    executable_by: Vec<String>,
    include_disabled: bool,
    include_deprecated: bool,
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let include_deprecated = params.flag("IncludeDeprecated")?;
        let include_disabled = params.flag("IncludeDisabled")?;
        let query = Query::parse(params, "DescribeImages", Some("ImageId"), FILTERS)?;
        let (owners, executable_by) = (params.list("Owner"), params.list("ExecutableBy"));
        Ok(Self { query, owners, executable_by, include_disabled, include_deprecated })
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let now = context.now;
        let account = &context.account;
        let exists = |id: &str| {
            let found = ImageId::parse(id).and_then(|id| world.image(context.region(), &id));
            found.is_some_and(|image| image.is_visible_to(account) && !image.is_late(now))
        };
        self.query.check_ids("ami-", "InvalidAMIID.Malformed", not_found, exists)?;
        let wanted = world
            .images
            .values()
            .filter(|image| image.region == context.region() && image.is_visible_to(account))
            .filter(|image| self.wants(&world, account, image, now))
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.query.page(wanted, limit, |image: &&Ami| image.id.to_string());
        Ok(context.response(|xml| {
            xml.list("imagesSet", page, |xml, image| write(xml, &world, image, now));
            xml.maybe("nextToken", token);
        }))
    }

    fn wants(&self, world: &World, account: &str, image: &Ami, now: Timestamp) -> bool {
        if image.is_late(now) || (image.disabled && !self.include_disabled) {
            return false;
        }
        // Its owner finds it all the same.
        if image.is_deprecated(now) && image.owner != account && !self.include_deprecated {
            return false;
        }
        let owned = |owner: &String| {
            *owner == image.owner
                || image.owner_alias.as_ref() == Some(owner)
                || (owner == "self" && image.owner == account)
        };
        // To own an image is not enough: a launch permission has to name the account.
        let executable = |by: &String| match by.as_str() {
            "all" => image.shared.public,
            "self" => image.shared.users.contains(account),
            by => image.shared.users.contains(by),
        };
        let id = image.id.as_str();
        (self.owners.is_empty() || self.owners.iter().any(owned))
            && (self.executable_by.is_empty() || self.executable_by.iter().any(executable))
            && self.query.wants(id, world.tags_of(id), |name| field(image, name, now))
    }
}

fn location(image: &Ami) -> String {
    format!("{}/{}", image.owner_alias.as_ref().unwrap_or(&image.owner), image.name)
}

fn field(image: &Ami, name: &str, now: Timestamp) -> Vec<String> {
    let one = |value: &str| vec![value.to_owned()];
    let maybe = |value: &Option<String>| value.iter().cloned().collect();
    let each = |field: fn(&Ebs) -> String| image.volumes().map(|(_, ebs)| field(ebs)).collect();
    match name {
        "architecture" => one(&image.architecture),
        "block-device-mapping.delete-on-termination" => each(|ebs| ebs.delete_on_termination.to_string()),
        "block-device-mapping.device-name" => image.mapping.iter().map(|m| m.device.clone()).collect(),
        "block-device-mapping.encrypted" => each(|ebs| ebs.encrypted.to_string()),
        "block-device-mapping.snapshot-id" => {
            image.volumes().filter_map(|(_, ebs)| Some(ebs.snapshot.as_ref()?.to_string())).collect()
        }
        "block-device-mapping.volume-size" => each(|ebs| ebs.size_gib.to_string()),
        "block-device-mapping.volume-type" => each(|ebs| ebs.volume_type.clone()),
        "boot-mode" => maybe(&image.boot_mode),
        "creation-date" => one(&time(image.created)),
        "description" => maybe(&image.description),
        "ena-support" => one(&image.ena.to_string()),
        "hypervisor" => one("xen"),
        "image-id" => one(image.id.as_str()),
        "image-type" => one("machine"),
        "is-public" => one(&image.shared.public.to_string()),
        "kernel-id" => maybe(&image.kernel),
        "manifest-location" => one(&location(image)),
        "name" => one(&image.name),
        "owner-alias" => maybe(&image.owner_alias),
        "owner-id" => one(&image.owner),
        "ramdisk-id" => maybe(&image.ramdisk),
        "root-device-name" => one(&image.root_device_name),
        "root-device-type" => one("ebs"),
        "source-image-id" => image.copied.iter().map(|copied| copied.image.to_string()).collect(),
        "source-image-region" => image.copied.iter().map(|copied| copied.region.clone()).collect(),
        "sriov-net-support" => maybe(&image.sriov),
        "state" => one(image.state(now)),
        "virtualization-type" => one(&image.virtualization),
        _ => vec![],
    }
}

fn write(xml: &mut Xml, world: &World, image: &Ami, now: Timestamp) {
    xml.text("imageId", &image.id);
    xml.text("imageLocation", location(image));
    xml.text("imageState", image.state(now));
    xml.text("imageOwnerId", &image.owner);
    xml.text("creationDate", time(image.created));
    xml.text("isPublic", image.shared.public);
    xml.text("architecture", &image.architecture);
    xml.text("imageType", "machine");
    xml.maybe("kernelId", image.kernel.as_ref());
    xml.maybe("ramdiskId", image.ramdisk.as_ref());
    xml.text("platformDetails", &image.billing.0);
    xml.text("usageOperation", &image.billing.1);
    xml.maybe("imageOwnerAlias", image.owner_alias.as_ref());
    xml.text("name", &image.name);
    xml.maybe("description", image.description.as_ref());
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", &image.root_device_name);
    write_mapping(xml, image, true);
    xml.text("virtualizationType", &image.virtualization);
    xml.tags(world.tags_of(image.id.as_str()));
    xml.text("hypervisor", "xen");
    xml.text("enaSupport", image.ena);
    xml.maybe("sriovNetSupport", image.sriov.as_ref());
    xml.maybe("bootMode", image.boot_mode.as_ref());
    xml.maybe("tpmSupport", image.tpm.as_ref());
    xml.maybe("imdsSupport", image.imds.as_ref());
    xml.maybe("deprecationTime", image.deprecate_at.map(time));
    if let Some(copied) = &image.copied {
        xml.text("sourceImageId", &copied.image);
        xml.text("sourceImageRegion", &copied.region);
    }
    if let Some(failure) = image.failure().filter(|_| image.state(now) == "failed") {
        xml.node("stateReason", |xml| {
            xml.text("code", "Client.InternalError");
            xml.text("message", failure);
        });
    }
}

/// The block devices. DescribeImageAttribute says nothing of their encryption.
pub fn write_mapping(xml: &mut Xml, image: &Ami, encryption: bool) {
    xml.list("blockDeviceMapping", &image.mapping, |xml, mapped| {
        xml.text("deviceName", &mapped.device);
        match &mapped.target {
            Target::Ebs(ebs) => xml.node("ebs", |xml| write_ebs(xml, ebs, encryption)),
            Target::Virtual(name) => xml.text("virtualName", name),
            Target::Nothing => xml.text("noDevice", ""),
        }
    });
}

fn write_ebs(xml: &mut Xml, ebs: &Ebs, encryption: bool) {
    xml.maybe("snapshotId", ebs.snapshot.as_ref());
    xml.text("volumeSize", ebs.size_gib);
    xml.text("deleteOnTermination", ebs.delete_on_termination);
    xml.text("volumeType", &ebs.volume_type);
    xml.maybe("iops", ebs.iops);
    xml.maybe("throughput", ebs.throughput);
    if encryption {
        xml.text("encrypted", ebs.encrypted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn wanted(world: &World, form: &str) -> usize {
        let mut params = Params::parse(&[form.as_bytes()]);
        let describe = Describe::parse(&mut params).expect("good");
        params.finish().expect("all are known");
        let now = Timestamp::UNIX_EPOCH;
        world.images.values().filter(|image| describe.wants(world, world.account(), image, now)).count()
    }

    #[test]
    fn owners_permissions_and_filters_choose() {
        let mut world = World::new(&Scenario::default(), &[], Timestamp::UNIX_EPOCH);
        let mut own = Ami::of_instance(&world.scenario, Timestamp::UNIX_EPOCH);
        own.id = ImageId::random();
        own.owner = world.scenario.instance.account_id.clone();
        (own.owner_alias, own.name) = (None, "db".into());
        own.shared = crate::world::Sharing::default();
        own.shared.users.insert("111111111111".into());
        world.images.insert(own.id.clone(), own.clone());
        let mut disabled = own.clone();
        (disabled.id, disabled.disabled) = (ImageId::random(), true);
        world.images.insert(disabled.id.clone(), disabled);
        for (form, count) in [
            ("IncludeDisabled=true", 3),
            ("IncludeDisabled=true&Filter.1.Name=state&Filter.1.Value.1=disabled", 1),
            ("", 2),
            ("Owner.1=self", 1),
            ("Owner.1=amazon", 1),
            ("Owner.1=123456789012&Owner.2=amazon", 2),
            ("ExecutableBy.1=all", 1),
            ("ExecutableBy.1=self", 0),
            ("ExecutableBy.1=111111111111", 1),
            ("Filter.1.Name=name&Filter.1.Value.1=d?", 1),
            ("Filter.1.Name=state&Filter.1.Value.1=available", 1),
            ("Filter.1.Name=owner-alias&Filter.1.Value.1=amazon&IncludeDisabled=true", 1),
            ("Filter.1.Name=block-device-mapping.device-name&Filter.1.Value.1=/dev/xvda", 2),
            ("Filter.1.Name=platform&Filter.1.Value.1=*", 0),
        ] {
            assert_eq!(wanted(&world, form), count, "{form}");
        }
    }
}
