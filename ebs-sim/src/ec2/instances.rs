//! DescribeInstances, of an account with one running instance.
//!
//! In: the account. Out: the instance as EC2 reports it. Its block device mapping must never show what is
//! detached.

use super::context::Context;
use super::error::Ec2Error;
use super::params::Params;
use super::query::Query;
use super::xml::{Xml, time};
use crate::world::{Attachment, GROUP, INTERFACE, MAC, SUBNET, VPC, Volume, World};

const FILTERS: &[&str] = &[
    "architecture",
    "availability-zone",
    "block-device-mapping.attach-time",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.status",
    "block-device-mapping.volume-id",
    "boot-mode",
    "ebs-optimized",
    "ena-support",
    "hypervisor",
    "iam-instance-profile.arn",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "launch-time",
    "metadata-options.http-tokens",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "root-device-name",
    "root-device-type",
    "subnet-id",
    "tenancy",
    "virtualization-type",
    "vpc-id",
];

pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // Nothing here is managed by a service, so it makes no difference.
        params.flag("IncludeManagedResources")?;
        Query::parse(params, "DescribeInstances", Some("InstanceId"), FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let id = world.instance_id().as_str();
        let here = context.region() == world.home() && context.account == world.account();
        self.0.check_ids("i-", "InvalidInstanceID.Malformed", not_found, |wanted| here && wanted == id)?;
        let wanted = here && self.0.wants(id, world.tags_of(id), |name| field(&world, name));
        let limit = world.scenario.limits.page_size;
        let items = if wanted { vec![id] } else { vec![] };
        let (page, token) = self.0.page(items, limit, |id| (*id).to_owned());
        Ok(context.response(|xml| {
            xml.list("reservationSet", page, |xml, _| {
                xml.text("reservationId", &world.reservation_id);
                xml.text("ownerId", &world.scenario.instance.account_id);
                xml.node("groupSet", |_| {});
                xml.list("instancesSet", [()], |xml, ()| write(xml, &world));
            });
            xml.maybe("nextToken", token);
        }))
    }
}

/// An instance that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
}

fn virtualization(world: &World) -> (&'static str, bool) {
    // The API says xen for Nitro instances too; only ENA tells them apart.
    let xen = world.ebs().any(|volume| volume.kind == crate::scenario::VolumeKind::Xen);
    ("xen", !xen)
}

/// Whether the instance has ENA, as all of Nitro's have.
pub fn has_ena(world: &World) -> bool {
    virtualization(world).1
}

fn profile_arn(world: &World) -> Option<String> {
    let instance = &world.scenario.instance;
    (!instance.role.is_empty())
        .then(|| format!("arn:aws:iam::{}:instance-profile/{}", instance.account_id, instance.role))
}

fn attachments(world: &World) -> impl Iterator<Item = (&Volume, &Attachment)> {
    world.attached().filter_map(|volume| Some((volume, volume.attachment.as_ref()?)))
}

fn field(world: &World, name: &str) -> Vec<String> {
    let instance = &world.scenario.instance;
    let mapped = |field: fn(&Volume, &Attachment) -> String| {
        attachments(world).map(|(volume, attachment)| field(volume, attachment)).collect()
    };
    let one = |value: &str| vec![value.to_owned()];
    let (hypervisor, ena) = virtualization(world);
    match name {
        "architecture" => one(&instance.architecture),
        "availability-zone" => one(&instance.zone()),
        "block-device-mapping.attach-time" => mapped(|_, attachment| time(attachment.since)),
        "block-device-mapping.delete-on-termination" => {
            mapped(|_, attachment| attachment.delete_on_termination.to_string())
        }
        "block-device-mapping.device-name" => mapped(|volume, _| volume.device_name.clone()),
        "block-device-mapping.status" => mapped(|_, attachment| attachment.state.mapped_name().into()),
        "block-device-mapping.volume-id" => mapped(|volume, _| volume.id.to_string()),
        "boot-mode" => one(&instance.boot_mode()),
        "ebs-optimized" | "ena-support" => one(&ena.to_string()),
        "hypervisor" => one(hypervisor),
        "iam-instance-profile.arn" => profile_arn(world).into_iter().collect(),
        "image-id" => one(&instance.image_id),
        "instance-id" => one(instance.id.as_str()),
        "instance-state-code" => one("16"),
        "instance-state-name" => one("running"),
        "instance-type" => one(&instance.instance_type),
        "launch-time" => one(&time(world.launched)),
        "metadata-options.http-tokens" => one("required"),
        "owner-id" => one(&instance.account_id),
        "private-dns-name" => one(&world.private_dns_name()),
        "private-ip-address" => one(&instance.private_ip.to_string()),
        "reservation-id" => one(&world.reservation_id),
        "root-device-name" => one(&world.root_device_name()),
        "root-device-type" => one("ebs"),
        "subnet-id" => one(SUBNET),
        "tenancy" => one("default"),
        "virtualization-type" => one("hvm"),
        "vpc-id" => one(VPC),
        _ => vec![],
    }
}

fn group(xml: &mut Xml) {
    xml.list("groupSet", [()], |xml, ()| {
        xml.text("groupId", GROUP);
        xml.text("groupName", "default");
    });
}

fn write(xml: &mut Xml, world: &World) {
    let instance = &world.scenario.instance;
    let (hypervisor, ena) = virtualization(world);
    let dns = world.private_dns_name();
    xml.text("instanceId", &instance.id);
    xml.text("imageId", &instance.image_id);
    xml.node("instanceState", |xml| {
        xml.text("code", 16);
        xml.text("name", "running");
    });
    xml.text("privateDnsName", &dns);
    xml.text("dnsName", "");
    xml.text("reason", "");
    xml.text("amiLaunchIndex", 0);
    xml.node("productCodes", |_| {});
    xml.text("instanceType", &instance.instance_type);
    xml.text("launchTime", time(world.launched));
    xml.node("placement", |xml| {
        xml.text("availabilityZone", instance.zone());
        xml.text("groupName", "");
        xml.text("tenancy", "default");
    });
    xml.node("monitoring", |xml| xml.text("state", "disabled"));
    xml.text("subnetId", SUBNET);
    xml.text("vpcId", VPC);
    xml.text("privateIpAddress", instance.private_ip);
    xml.text("sourceDestCheck", true);
    group(xml);
    xml.text("architecture", &instance.architecture);
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", world.root_device_name());
    xml.list("blockDeviceMapping", attachments(world), |xml, (volume, attachment)| {
        xml.text("deviceName", &volume.device_name);
        xml.node("ebs", |xml| {
            xml.text("volumeId", &volume.id);
            xml.text("status", attachment.state.mapped_name());
            xml.text("attachTime", time(attachment.since));
            xml.text("deleteOnTermination", attachment.delete_on_termination);
            xml.node("operator", |xml| xml.text("managed", false));
        });
    });
    xml.text("virtualizationType", "hvm");
    xml.text("clientToken", "");
    xml.tags(world.tags_of(instance.id.as_str()));
    xml.text("hypervisor", hypervisor);
    network_interface(xml, world, &dns);
    if let Some(arn) = profile_arn(world) {
        xml.node("iamInstanceProfile", |xml| {
            xml.text("arn", arn);
            xml.text("id", "AIPA0123456789ABCDEF0");
        });
    }
    xml.text("ebsOptimized", ena);
    xml.text("enaSupport", ena);
    xml.maybe("sriovNetSupport", instance.sriov.as_ref());
    xml.node("cpuOptions", |xml| {
        xml.text("coreCount", 1);
        xml.text("threadsPerCore", 2);
    });
    xml.node("capacityReservationSpecification", |xml| {
        xml.text("capacityReservationPreference", "open");
    });
    xml.node("hibernationOptions", |xml| xml.text("configured", false));
    metadata_options(xml, world);
    xml.node("enclaveOptions", |xml| xml.text("enabled", false));
    xml.text("bootMode", instance.boot_mode());
    xml.text("currentInstanceBootMode", &instance.current_boot_mode);
    xml.maybe("tpmSupport", instance.tpm.as_ref());
    xml.text("platformDetails", &instance.platform_details);
    xml.text("usageOperation", &instance.usage_operation);
    xml.text("usageOperationUpdateTime", time(world.launched));
    xml.node("privateDnsNameOptions", |xml| {
        xml.text("hostnameType", "ip-name");
        xml.text("enableResourceNameDnsARecord", false);
        xml.text("enableResourceNameDnsAAAARecord", false);
    });
    xml.node("maintenanceOptions", |xml| xml.text("autoRecovery", "default"));
    xml.node("operator", |xml| xml.text("managed", false));
}

fn metadata_options(xml: &mut Xml, world: &World) {
    let imds = &world.scenario.imds;
    let enabled = |on| if on { "enabled" } else { "disabled" };
    xml.node("metadataOptions", |xml| {
        xml.text("state", "applied");
        xml.text("httpTokens", "required");
        xml.text("httpPutResponseHopLimit", imds.hop_limit);
        xml.text("httpEndpoint", enabled(imds.enabled));
        xml.text("httpProtocolIpv6", "disabled");
        xml.text("instanceMetadataTags", enabled(imds.instance_tags));
    });
}

fn network_interface(xml: &mut Xml, world: &World, dns: &str) {
    let instance = &world.scenario.instance;
    xml.list("networkInterfaceSet", [()], |xml, ()| {
        xml.text("networkInterfaceId", INTERFACE);
        xml.text("subnetId", SUBNET);
        xml.text("vpcId", VPC);
        xml.text("description", "");
        xml.text("ownerId", &instance.account_id);
        xml.text("status", "in-use");
        xml.text("macAddress", MAC);
        xml.text("privateIpAddress", instance.private_ip);
        xml.text("privateDnsName", dns);
        xml.text("sourceDestCheck", true);
        group(xml);
        xml.node("attachment", |xml| {
            xml.text("attachmentId", "eni-attach-0123456789abcdef0");
            xml.text("deviceIndex", 0);
            xml.text("status", "attached");
            xml.text("attachTime", time(world.launched));
            xml.text("deleteOnTermination", true);
        });
        xml.text("interfaceType", "interface");
    });
}
