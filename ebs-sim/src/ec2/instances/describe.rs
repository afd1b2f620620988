//! DescribeInstances.
//!
//! In: the account. Out: its instances as EC2 reports them. A block device mapping must never show what is
//! detached.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::params::Params;
use super::super::query::Query;
use super::super::xml::{Xml, time};
use super::{Machine, all, not_found};
use crate::world::{Attachment, GROUP, InstanceState, SUBNET, VPC, Volume, World};

const FILTERS: &[&str] = &[
    "architecture",
    "availability-zone",
    "block-device-mapping.attach-time",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.status",
    "block-device-mapping.volume-id",
    "boot-mode",
    "client-token",
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
    "state-reason-code",
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
        let region = context.region();
        let machines: Vec<Machine<'_>> = match context.account == world.account() {
            true => all(&world, region, context.now).collect(),
            false => vec![],
        };
        let known = |id: &str| machines.iter().any(|machine| machine.id.as_str() == id);
        self.0.check_ids("i-", "InvalidInstanceID.Malformed", not_found, known)?;
        let limit = world.scenario.limits.page_size;
        let wanted = machines
            .iter()
            .filter(|machine| {
                let id = machine.id.as_str();
                self.0.wants(id, world.tags_of(id), |name| field(machine, name))
            })
            .collect();
        let (page, token) = self.0.page(wanted, limit, |machine: &&Machine<'_>| machine.id.to_string());
        let reservations = page.chunk_by(|one, next| one.reservation == next.reservation);
        Ok(context.response(|xml| {
            xml.list("reservationSet", reservations, |xml, machines| {
                write_reservation(xml, &world, machines.iter().copied());
            });
            xml.maybe("nextToken", token);
        }))
    }
}

/// What was launched by one request.
pub fn write_reservation<'a>(
    xml: &mut Xml,
    world: &World,
    machines: impl IntoIterator<Item = &'a Machine<'a>> + Clone,
) {
    let reservation = machines.clone().into_iter().next().map_or("", |machine| machine.reservation);
    xml.text("reservationId", reservation);
    xml.text("ownerId", &world.scenario.instance.account_id);
    xml.node("groupSet", |_| {});
    xml.list("instancesSet", machines, |xml, machine| write(xml, machine));
}

fn profile_arn(machine: &Machine<'_>) -> Option<String> {
    let instance = &machine.world.scenario.instance;
    (!instance.role.is_empty() && machine.launch.is_none())
        .then(|| format!("arn:aws:iam::{}:instance-profile/{}", instance.account_id, instance.role))
}

fn field(machine: &Machine<'_>, name: &str) -> Vec<String> {
    let mapped = |field: fn(&Volume, &Attachment) -> String| {
        machine.attachments().map(|(volume, attachment)| field(volume, attachment)).collect()
    };
    let one = |value: &str| vec![value.to_owned()];
    let there = |value: &str| if machine.has_network() { one(value) } else { vec![] };
    match name {
        "architecture" => one(&machine.architecture),
        "availability-zone" => one(&machine.zone),
        "block-device-mapping.attach-time" => mapped(|_, attachment| time(attachment.since)),
        "block-device-mapping.delete-on-termination" => {
            mapped(|_, attachment| attachment.delete_on_termination.to_string())
        }
        "block-device-mapping.device-name" => mapped(|volume, _| volume.device_name.clone()),
        "block-device-mapping.status" => mapped(|_, attachment| attachment.state.mapped_name().into()),
        "block-device-mapping.volume-id" => mapped(|volume, _| volume.id.to_string()),
        "boot-mode" => machine.boot_mode.iter().cloned().collect(),
        "client-token" => one(machine.client_token()),
        "ebs-optimized" | "ena-support" => one(&machine.ena.to_string()),
        // The API says xen for Nitro instances too; only ENA tells them apart.
        "hypervisor" => one("xen"),
        "iam-instance-profile.arn" => profile_arn(machine).into_iter().collect(),
        "image-id" => one(machine.image_id.as_str()),
        "instance-id" => one(machine.id.as_str()),
        "instance-state-code" => one(&machine.state.code().to_string()),
        "instance-state-name" => one(machine.state.name()),
        "instance-type" => one(&machine.kind),
        "launch-time" => one(&time(machine.launched)),
        "metadata-options.http-tokens" => one(machine.tokens()),
        "owner-id" => one(&machine.world.scenario.instance.account_id),
        "private-dns-name" => there(&machine.dns()),
        "private-ip-address" => there(&machine.ip.to_string()),
        "reservation-id" => one(machine.reservation),
        "root-device-name" => one(&machine.root_device_name),
        "root-device-type" => one("ebs"),
        "state-reason-code" => machine.reason.iter().map(|(code, _)| code.clone()).collect(),
        "subnet-id" => there(SUBNET),
        "tenancy" => one("default"),
        "virtualization-type" => one("hvm"),
        "vpc-id" => there(VPC),
        _ => vec![],
    }
}

fn group(xml: &mut Xml) {
    xml.list("groupSet", [()], |xml, ()| {
        xml.text("groupId", GROUP);
        xml.text("groupName", "default");
    });
}

fn write(xml: &mut Xml, machine: &Machine<'_>) {
    let world = machine.world;
    let dns = machine.dns();
    xml.text("instanceId", machine.id);
    xml.text("imageId", &machine.image_id);
    xml.node("instanceState", |xml| write_state(xml, machine.state));
    xml.text("privateDnsName", if machine.has_network() { &dns } else { "" });
    xml.text("dnsName", "");
    xml.text("reason", machine.transition());
    xml.text("amiLaunchIndex", machine.index);
    xml.node("productCodes", |_| {});
    xml.text("instanceType", &machine.kind);
    xml.text("launchTime", time(machine.launched));
    xml.node("placement", |xml| {
        xml.text("availabilityZone", &machine.zone);
        xml.text("groupName", "");
        xml.text("tenancy", "default");
    });
    xml.node("monitoring", |xml| xml.text("state", "disabled"));
    if machine.has_network() {
        xml.text("subnetId", SUBNET);
        xml.text("vpcId", VPC);
        xml.text("privateIpAddress", machine.ip);
        xml.text("sourceDestCheck", true);
        group(xml);
    }
    xml.text("architecture", &machine.architecture);
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", &machine.root_device_name);
    write_mapping(xml, machine, true);
    xml.text("virtualizationType", "hvm");
    xml.text("clientToken", machine.client_token());
    xml.tags(world.tags_of(machine.id.as_str()));
    if let Some((code, message)) = &machine.reason {
        xml.node("stateReason", |xml| {
            xml.text("code", code);
            xml.text("message", message);
        });
    }
    xml.text("hypervisor", "xen");
    network_interface(xml, machine, &dns);
    if let Some(arn) = profile_arn(machine) {
        xml.node("iamInstanceProfile", |xml| {
            xml.text("arn", arn);
            xml.text("id", "AIPA0123456789ABCDEF0");
        });
    }
    xml.text("ebsOptimized", machine.ena);
    xml.text("enaSupport", machine.ena);
    xml.maybe("sriovNetSupport", machine.sriov.as_ref());
    xml.node("cpuOptions", |xml| {
        xml.text("coreCount", 1);
        xml.text("threadsPerCore", 2);
    });
    xml.node("capacityReservationSpecification", |xml| {
        xml.text("capacityReservationPreference", "open");
    });
    xml.node("hibernationOptions", |xml| xml.text("configured", false));
    metadata_options(xml, machine);
    xml.node("enclaveOptions", |xml| xml.text("enabled", false));
    xml.maybe("bootMode", machine.boot_mode.as_ref());
    xml.text("currentInstanceBootMode", &machine.current_boot_mode);
    xml.maybe("tpmSupport", machine.tpm.as_ref());
    xml.text("platformDetails", &machine.billing.0);
    xml.text("usageOperation", &machine.billing.1);
    xml.text("usageOperationUpdateTime", time(machine.launched));
    xml.node("privateDnsNameOptions", |xml| {
        xml.text("hostnameType", "ip-name");
        xml.text("enableResourceNameDnsARecord", false);
        xml.text("enableResourceNameDnsAAAARecord", false);
    });
    xml.node("maintenanceOptions", |xml| xml.text("autoRecovery", "default"));
    xml.node("operator", |xml| xml.text("managed", false));
}

/// A state, as every answer writes it.
pub fn write_state(xml: &mut Xml, state: InstanceState) {
    xml.text("code", state.code());
    xml.text("name", state.name());
}

fn metadata_options(xml: &mut Xml, machine: &Machine<'_>) {
    let imds = &machine.world.scenario.imds;
    let enabled = |on| if on { "enabled" } else { "disabled" };
    xml.node("metadataOptions", |xml| {
        xml.text("state", "applied");
        xml.text("httpTokens", machine.tokens());
        xml.text("httpPutResponseHopLimit", imds.hop_limit);
        xml.text("httpEndpoint", enabled(imds.enabled));
        xml.text("httpProtocolIpv6", "disabled");
        xml.text("instanceMetadataTags", enabled(imds.instance_tags));
    });
}

/// The volumes of an instance; whether who manages them is shown, too, differs between answers.
pub fn write_mapping(xml: &mut Xml, machine: &Machine<'_>, operator: bool) {
    xml.list("blockDeviceMapping", machine.attachments(), |xml, (volume, attachment)| {
        xml.text("deviceName", &volume.device_name);
        xml.node("ebs", |xml| {
            xml.text("volumeId", &volume.id);
            xml.text("status", attachment.state.mapped_name());
            xml.text("attachTime", time(attachment.since));
            xml.text("deleteOnTermination", attachment.delete_on_termination);
            if operator {
                xml.node("operator", |xml| xml.text("managed", false));
            }
        });
    });
}

fn network_interface(xml: &mut Xml, machine: &Machine<'_>, dns: &str) {
    let interfaces = machine.has_network().then_some(());
    xml.list("networkInterfaceSet", interfaces, |xml, ()| {
        xml.text("networkInterfaceId", machine.interface());
        xml.text("subnetId", SUBNET);
        xml.text("vpcId", VPC);
        xml.text("description", "");
        xml.text("ownerId", &machine.world.scenario.instance.account_id);
        xml.text("status", "in-use");
        xml.text("macAddress", machine.mac());
        xml.text("privateIpAddress", machine.ip);
        xml.text("privateDnsName", dns);
        xml.text("sourceDestCheck", true);
        group(xml);
        xml.node("attachment", |xml| {
            xml.text("attachmentId", "eni-attach-0123456789abcdef0");
            xml.text("deviceIndex", 0);
            xml.text("status", "attached");
            xml.text("attachTime", time(machine.launched));
            xml.text("deleteOnTermination", true);
        });
        xml.text("interfaceType", "interface");
    });
}
