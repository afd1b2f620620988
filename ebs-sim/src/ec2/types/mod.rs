//! DescribeInstanceTypes, for the types in the table.
//!
//! In: names and filters. Out: what is documented of them. A type that is not in the table must never be
//! described from its name: EC2's InvalidInstanceType is answered.

mod table;

use super::context::Context;
use super::error::Ec2Error;
use super::params::Params;
use super::query::Query;
use super::xml::Xml;
use crate::world::{Tags, World};
use table::TYPES;
pub use table::{Platform, Type};

const FILTERS: &[&str] = &[
    "bare-metal",
    "burstable-performance-supported",
    "current-generation",
    "ebs-info.attachment-limit-type",
    "ebs-info.ebs-optimized-support",
    "ebs-info.encryption-support",
    "ebs-info.maximum-ebs-attachments",
    "ebs-info.nvme-support",
    "hypervisor",
    "instance-storage-info.disk.count",
    "instance-storage-info.disk.size-in-gb",
    "instance-storage-info.disk.type",
    "instance-storage-info.encryption-support",
    "instance-storage-info.nvme-support",
    "instance-storage-info.total-size-in-gb",
    "instance-storage-supported",
    "instance-type",
    "memory-info.size-in-mib",
    "network-info.ena-support",
    "nitro-tpm-info.supported-versions",
    "nitro-tpm-support",
    "processor-info.supported-architecture",
    "supported-boot-mode",
    "supported-root-device-type",
    "supported-usage-class",
    "supported-virtualization-type",
    "vcpu-info.default-cores",
    "vcpu-info.default-threads-per-core",
    "vcpu-info.default-vcpus",
];

/// Most that one page holds.
const MAX_PAGE: usize = 100;

pub struct Describe {
    query: Query,
    names: Vec<String>,
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // All of them are offered in every Region here.
        params.flag("IncludeUnsupportedInRegion")?;
        let query = Query::parse(params, "DescribeInstanceTypes", None, FILTERS)?;
        let names = params.list("InstanceType");
        if names.len() > MAX_PAGE {
            return Err(Ec2Error::invalid_value(format!("At most {MAX_PAGE} instance types can be named")));
        }
        if !names.is_empty() && query.paging().is_limited() {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "The parameter instanceTypesSet cannot be used with the parameter maxResults",
            ));
        }
        Ok(Self { query, names })
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let limit = context.sim.world().scenario.limits.page_size.min(MAX_PAGE);
        let (page, token) = self.query.page(self.find()?, limit, |known: &&Type| known.name.to_owned());
        Ok(context.response(|xml| {
            xml.list("instanceTypeSet", page, write);
            xml.maybe("nextToken", token);
        }))
    }

    fn find(&self) -> Result<Vec<&'static Type>, Ec2Error> {
        let unknown: Vec<&str> = self
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| !TYPES.iter().any(|known| known.name == *name))
            .collect();
        if !unknown.is_empty() {
            return Err(Ec2Error::new(
                "InvalidInstanceType",
                format!("The following supplied instance types do not exist: [{}]", unknown.join(", ")),
            ));
        }
        let named = |known: &&Type| self.names.is_empty() || self.names.iter().any(|n| n == known.name);
        let wanted =
            |known: &&Type| self.query.wants(known.name, &Tags::new(), |filter| field(known, filter));
        Ok(TYPES.iter().filter(named).filter(wanted).collect())
    }
}

/// The type of this name.
pub fn find(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.name == name)
}

/// How many EBS volumes can be attached to an instance of a type, the root among them: by the scenario, or by its
/// type less what else counts there, as its disks of an instance store do. None where nobody knows.
pub fn attachments(world: &World, name: &str, stored: usize) -> Option<usize> {
    if let Some(most) = world.scenario.limits.attachments {
        return Some(most).filter(|most| *most > 0);
    }
    let limit = find(name)?.attachments?;
    // The one network interface that the instance has.
    Some(if limit.shared { limit.most.saturating_sub(1 + stored) } else { limit.most })
}

fn support(yes: bool) -> &'static str {
    if yes { "supported" } else { "unsupported" }
}

fn field(known: &Type, name: &str) -> Vec<String> {
    let one = |value: String| vec![value];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let stored = |value: &str| known.disk_gb.map(|_| value.to_owned()).into_iter().collect();
    match name {
        "bare-metal" => one("false".into()),
        "burstable-performance-supported" => one(known.burstable.to_string()),
        "current-generation" => one("true".into()),
        "ebs-info.ebs-optimized-support" => one(known.ebs_optimized.into()),
        "ebs-info.attachment-limit-type" => known.attachments.iter().map(|a| a.name().into()).collect(),
        "ebs-info.maximum-ebs-attachments" => known.attachments.iter().map(|a| a.most.to_string()).collect(),
        "ebs-info.encryption-support" => one("supported".into()),
        "ebs-info.nvme-support" => one(known.ebs_nvme().into()),
        "hypervisor" => one(known.hypervisor().into()),
        "instance-storage-info.disk.count" => stored("1"),
        "instance-storage-info.disk.type" => stored("ssd"),
        "instance-storage-info.encryption-support" | "instance-storage-info.nvme-support" => {
            stored("required")
        }
        "instance-storage-info.disk.size-in-gb" | "instance-storage-info.total-size-in-gb" => {
            known.disk_gb.iter().map(u64::to_string).collect()
        }
        "instance-storage-supported" => one(known.disk_gb.is_some().to_string()),
        "instance-type" => one(known.name.into()),
        "memory-info.size-in-mib" => one(known.memory_mib.to_string()),
        "network-info.ena-support" => one(known.ena.into()),
        "nitro-tpm-info.supported-versions" if known.tpm == Some(true) => one("2.0".into()),
        "nitro-tpm-support" => known.tpm.map(|tpm| support(tpm).to_owned()).into_iter().collect(),
        "processor-info.supported-architecture" => words(known.architectures),
        "supported-boot-mode" => words(known.boot_modes),
        "supported-root-device-type" => one("ebs".into()),
        "supported-usage-class" => words(&["on-demand", "spot"]),
        "supported-virtualization-type" => one("hvm".into()),
        "vcpu-info.default-cores" => one(known.cores().to_string()),
        "vcpu-info.default-threads-per-core" => one(known.threads.to_string()),
        "vcpu-info.default-vcpus" => one(known.vcpus.to_string()),
        _ => vec![],
    }
}

/// `<name><item>…</item>…</name>` of plain words.
fn words(xml: &mut Xml, name: &str, words: &[&str]) {
    xml.node(name, |xml| words.iter().for_each(|word| xml.text("item", word)));
}

fn write(xml: &mut Xml, known: &Type) {
    xml.text("instanceType", known.name);
    xml.text("currentGeneration", true);
    words(xml, "supportedUsageClasses", &["on-demand", "spot"]);
    words(xml, "supportedRootDeviceTypes", &["ebs"]);
    words(xml, "supportedVirtualizationTypes", &["hvm"]);
    xml.text("bareMetal", false);
    xml.text("hypervisor", known.hypervisor());
    xml.node("processorInfo", |xml| words(xml, "supportedArchitectures", known.architectures));
    xml.node("vCpuInfo", |xml| {
        xml.text("defaultVCpus", known.vcpus);
        xml.text("defaultCores", known.cores());
        xml.text("defaultThreadsPerCore", known.threads);
    });
    xml.node("memoryInfo", |xml| xml.text("sizeInMiB", known.memory_mib));
    xml.text("instanceStorageSupported", known.disk_gb.is_some());
    if let Some(size) = known.disk_gb {
        xml.node("instanceStorageInfo", |xml| {
            xml.text("totalSizeInGB", size);
            xml.list("disks", [()], |xml, ()| {
                xml.text("sizeInGB", size);
                xml.text("count", 1);
                xml.text("type", "ssd");
            });
            xml.text("nvmeSupport", "required");
            xml.text("encryptionSupport", "required");
        });
    }
    xml.node("ebsInfo", |xml| {
        xml.text("ebsOptimizedSupport", known.ebs_optimized);
        xml.text("encryptionSupport", "supported");
        xml.text("nvmeSupport", known.ebs_nvme());
        if let Some(attachments) = known.attachments {
            xml.text("maximumEbsAttachments", attachments.most);
            xml.text("attachmentLimitType", attachments.name());
        }
    });
    xml.node("networkInfo", |xml| xml.text("enaSupport", known.ena));
    xml.text("burstablePerformanceSupported", known.burstable);
    words(xml, "supportedBootModes", known.boot_modes);
    if let Some(tpm) = known.tpm {
        xml.text("nitroTpmSupport", support(tpm));
        if tpm {
            xml.node("nitroTpmInfo", |xml| words(xml, "supportedVersions", &["2.0"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::instances;
    use super::*;

    fn found(form: &str) -> Result<Vec<&'static str>, String> {
        let mut params = Params::parse(&[form.as_bytes()]);
        let describe = Describe::parse(&mut params).map_err(|error| error.code)?;
        params.finish().map_err(|error| error.code)?;
        let found = describe.find().map_err(|error| error.code)?;
        Ok(found.into_iter().map(|known| known.name).collect())
    }

    #[test]
    fn types_are_found_by_name_and_by_what_they_can() {
        assert_eq!(
            found("InstanceType.1=m6i.large&InstanceType.2=t2.micro"),
            Ok(vec!["m6i.large", "t2.micro"])
        );
        assert_eq!(found("InstanceType.1=x99.huge"), Err("InvalidInstanceType".into()));
        assert_eq!(found("InstanceType.1=m6i.large&MaxResults=5"), Err("InvalidParameterCombination".into()));
        let by = |name: &str, value: &str| found(&format!("Filter.1.Name={name}&Filter.1.Value.1={value}"));
        assert_eq!(by("hypervisor", "xen"), Ok(vec!["i3.large", "t2.micro"]));
        assert_eq!(by("instance-storage-supported", "true"), Ok(vec!["i3.large", "i4i.large"]));
        assert_eq!(by("processor-info.supported-architecture", "i386"), Ok(vec!["t2.micro"]));
        assert_eq!(by("instance-type", "c?g*"), Ok(vec!["c6g.large", "c7g.large"]));
        assert_eq!(by("ebs-info.attachment-limit-type", "dedicated"), Ok(vec!["m7i.large"]));
        assert_eq!(by("ebs-info.maximum-ebs-attachments", "28").map(|found| found.len()), Ok(16));
        assert_eq!(by("colour", "red"), Err("InvalidParameterValue".into()));
    }

    #[test]
    fn other_things_count_where_the_limit_is_shared() {
        let mut scenario = crate::scenario::Scenario::default();
        scenario.volumes.push("name=store,size=1MiB,kind=instance-store".parse().expect("a good spec"));
        let mut limit = |name: &str, own| {
            scenario.instance.instance_type = name.into();
            scenario.limits.attachments = own;
            let windows = crate::window::lay_out(&[1 << 20]);
            let world = World::new(&scenario, &windows, jiff::Timestamp::UNIX_EPOCH);
            instances::find(&world, world.home(), world.instance_id()).expect("there").most_attachments()
        };
        assert_eq!((limit("i4i.large", None), limit("m7i.large", None)), (Some(26), Some(32)));
        assert_eq!((limit("t2.micro", None), limit("x99.huge", None)), (None, None));
        assert_eq!((limit("m6i.large", Some(2)), limit("m6i.large", Some(0))), (Some(2), None));
    }
}
