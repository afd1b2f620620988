//! RegisterImage: an image from snapshots.
//!
//! In: a name, a block device mapping and what kind of machine it boots. Out: an image. What the request does
//! not say must never be guessed from the snapshots: EC2's defaults are i386, paravirtual and no ENA.

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::{snapshots, tags};
use super::mapping::{self, Entry};
use crate::faults::{Hit, Kind};
use crate::ids::ImageId;
use crate::world::{Ami, Sharing, Tags, Target, World};

pub struct Register {
    name: String,
    description: Option<String>,
    architecture: String,
    virtualization: String,
    ena: bool,
    sriov: Option<String>,
    boot_mode: Option<String>,
    tpm: Option<String>,
    imds: Option<String>,
    uefi_data: Option<String>,
    kernel: Option<String>,
    ramdisk: Option<String>,
    root_device_name: String,
    mapping: Vec<Entry>,
    tags: Tags,
}

pub(super) fn check_name(name: &str) -> Result<(), Ec2Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if (3..=128).contains(&name.chars().count()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Ec2Error::new(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', \
         '.', '-', '/' and '_'",
    ))
}

/// Passes when none of the account's images in this Region has this name.
pub(super) fn check_unused(world: &World, region: &str, name: &str) -> Result<(), Ec2Error> {
    let own = |image: &&Ami| image.region == region && image.owner == world.account();
    match world.images.values().filter(own).find(|image| image.name == name) {
        None => Ok(()),
        Some(other) => Err(Ec2Error::new(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {}", other.id),
        )),
    }
}

impl Register {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let name = params.required("Name")?;
        check_name(&name)?;
        if params.text("ImageLocation").is_some() {
            return Err(Ec2Error::invalid_value(
                "ImageLocation is not supported: images with an instance store as their root are not \
                 simulated",
            ));
        }
        if params.any("BillingProduct.") {
            return Err(Ec2Error::new(
                "AuthFailure",
                "The account is not authorized to specify billing product codes",
            ));
        }
        let description = Some(snapshots::description(params)?).filter(|text| !text.is_empty());
        let boot_mode = params.choice("BootMode", &["legacy-bios", "uefi", "uefi-preferred"])?;
        let tpm = params.choice("TpmSupport", &["v2.0"])?;
        if tpm.is_some() && boot_mode.as_deref() != Some("uefi") {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "The parameter TpmSupport requires the boot mode uefi",
            ));
        }
        let uefi_data = params.text("UefiData");
        if uefi_data.as_ref().is_some_and(|data| data.len() > 64_000) {
            return Err(Ec2Error::invalid_value("UefiData exceeds the maximum length of 64000"));
        }
        let architectures = ["i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"];
        let tags = params.tag_specifications("image")?;
        tags::check_count(tags.len())?;
        Ok(Self {
            name,
            description,
            architecture: params.choice("Architecture", &architectures)?.unwrap_or_else(|| "i386".into()),
            virtualization: params
                .choice("VirtualizationType", &["hvm", "paravirtual"])?
                .unwrap_or_else(|| "paravirtual".into()),
            ena: params.flag("EnaSupport")?,
            sriov: params.choice("SriovNetSupport", &["simple"])?,
            boot_mode,
            tpm,
            imds: params.choice("ImdsSupport", &["v2.0"])?,
            uefi_data,
            kernel: params.text("KernelId"),
            ramdisk: params.text("RamdiskId"),
            root_device_name: params.required("RootDeviceName")?,
            mapping: mapping::parse(params)?,
            tags,
        })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:RegisterImage";
        let mut needs = vec![Need::on(action, world, "image/*").tagged(&self.tags)];
        let snapshots = self.mapping.iter().filter_map(Entry::snapshot);
        needs.extend(snapshots.map(|id| Need::on(action, world, &format!("snapshot/{id}"))));
        if !self.tags.is_empty() {
            needs.push(Need::tags_of_new(world, "RegisterImage", "image/*", &self.tags));
        }
        needs
    }

    pub fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        let mut image = self.make(&world, context.region(), context.now)?;
        let late = faults.iter().find(|hit| hit.fault.kind == Kind::LateVisibility);
        image.visible_from = late.and_then(|hit| context.now.checked_add(hit.fault.delay()).ok());
        let id = image.id.clone();
        if !self.tags.is_empty() {
            world.tags.insert(id.to_string(), self.tags.clone());
        }
        world.images.insert(id.clone(), image);
        Ok(context.response(|xml| xml.text("imageId", &id)))
    }

    /// The image, when it may be made.
    fn make(&self, world: &World, region: &str, now: Timestamp) -> Result<Ami, Ec2Error> {
        let owner = world.scenario.instance.account_id.clone();
        check_unused(world, region, &self.name)?;
        let mapping = self
            .mapping
            .iter()
            .map(|entry| entry.resolve(world, region, now))
            .collect::<Result<Vec<_>, _>>()?;
        let root = mapping.iter().find(|mapped| mapped.device == self.root_device_name);
        let has_data =
            root.is_some_and(|mapped| matches!(&mapped.target, Target::Ebs(ebs) if ebs.snapshot.is_some()));
        if !has_data {
            return Err(Ec2Error::new(
                "InvalidBlockDeviceMapping",
                format!("The root device {} is not in the mapping with a snapshot", self.root_device_name),
            ));
        }
        Ok(Ami {
            id: ImageId::random(),
            region: region.to_owned(),
            name: self.name.clone(),
            description: self.description.clone(),
            owner,
            owner_alias: None,
            shared: Sharing::default(),
            architecture: self.architecture.clone(),
            virtualization: self.virtualization.clone(),
            ena: self.ena,
            sriov: self.sriov.clone(),
            boot_mode: self.boot_mode.clone(),
            tpm: self.tpm.clone(),
            imds: self.imds.clone(),
            uefi_data: self.uefi_data.clone(),
            kernel: self.kernel.clone(),
            ramdisk: self.ramdisk.clone(),
            root_device_name: self.root_device_name.clone(),
            mapping,
            billing: crate::world::linux(),
            created: now,
            disabled: false,
            deprecate_at: None,
            visible_from: None,
            copied: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SnapshotId;
    use crate::scenario::Scenario;
    use crate::world::{Ebs, test_snapshot};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// An account with a snapshot of 1 GiB that is completed at 1010.
    fn world() -> (World, SnapshotId) {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let snapshot = test_snapshot(10, false);
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        (world, id)
    }

    fn register(world: &World, form: &str) -> Result<Ami, String> {
        let mut params = Params::parse(&[form.as_bytes()]);
        let wanted = Register::parse(&mut params).map_err(|error| error.code)?;
        params.finish().map_err(|error| error.code)?;
        wanted.make(world, "us-east-1", at(1010)).map_err(|error| error.code)
    }

    fn root(id: &SnapshotId) -> String {
        format!(
            "Name=db 1&RootDeviceName=/dev/xvda&BlockDeviceMapping.1.DeviceName=/dev/xvda\
             &BlockDeviceMapping.1.Ebs.SnapshotId={id}"
        )
    }

    #[test]
    fn the_defaults_bite() {
        let (world, id) = world();
        let image = register(&world, &root(&id)).expect("good");
        assert_eq!((image.architecture.as_str(), image.virtualization.as_str()), ("i386", "paravirtual"));
        assert!(!image.ena && image.boot_mode.is_none() && image.imds.is_none() && image.sriov.is_none());
        let expected = Ebs {
            snapshot: Some(id.clone()),
            size_gib: 1,
            volume_type: "gp2".into(),
            delete_on_termination: true,
            encrypted: false,
            iops: None,
            throughput: None,
        };
        assert_eq!(image.volumes().collect::<Vec<_>>(), [("/dev/xvda", &expected)]);
        let more = "&Architecture=arm64&VirtualizationType=hvm&EnaSupport=true&BootMode=uefi&TpmSupport=v2.0\
            &ImdsSupport=v2.0&SriovNetSupport=simple&UefiData=QU1a\
            &BlockDeviceMapping.1.Ebs.VolumeType=gp3&BlockDeviceMapping.1.Ebs.Iops=4000\
            &BlockDeviceMapping.1.Ebs.VolumeSize=9&BlockDeviceMapping.1.Ebs.DeleteOnTermination=false\
            &BlockDeviceMapping.2.DeviceName=/dev/sdb&BlockDeviceMapping.2.VirtualName=ephemeral0\
            &BlockDeviceMapping.3.DeviceName=/dev/sdc&BlockDeviceMapping.3.NoDevice=";
        let image = register(&world, &(root(&id) + more)).expect("good");
        assert_eq!((image.architecture.as_str(), image.ena), ("arm64", true));
        assert_eq!((image.tpm.as_deref(), image.uefi_data.as_deref()), (Some("v2.0"), Some("QU1a")));
        let (_, ebs) = image.volumes().next().expect("a volume");
        assert_eq!((ebs.size_gib, ebs.iops, ebs.delete_on_termination), (9, Some(4000), false));
        assert_eq!(image.mapping.len(), 3);
    }

    #[test]
    fn what_cannot_be_an_image_is_refused() {
        let (mut world, id) = world();
        let root = root(&id);
        let other = SnapshotId::random();
        let bad = |form: String, code: &str| {
            assert_eq!(register(&world, &form).err().as_deref(), Some(code), "{form}");
        };
        bad(root.replace("db 1", "db"), "InvalidAMIName.Malformed");
        bad(root.replace("db 1", "db:1"), "InvalidAMIName.Malformed");
        bad(
            root.replace("RootDeviceName=/dev/xvda", "RootDeviceName=/dev/sda1"),
            "InvalidBlockDeviceMapping",
        );
        bad(root.replace(id.as_str(), other.as_str()), "InvalidSnapshot.NotFound");
        bad(root.replace(id.as_str(), "snap-x"), "InvalidSnapshotID.Malformed");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.Encrypted=false", "InvalidBlockDeviceMapping");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.VolumeSize=0", "InvalidBlockDeviceMapping");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.VolumeType=io2", "MissingParameter");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.Iops=100", "InvalidParameterCombination");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.KmsKeyId=alias/x", "InvalidParameterValue");
        bad(root.clone() + "&BlockDeviceMapping.2.DeviceName=/dev/xvda", "InvalidBlockDeviceMapping");
        bad(root.clone() + "&BlockDeviceMapping.2.DeviceName=/dev/sdf", "InvalidBlockDeviceMapping");
        bad(root.clone() + "&TpmSupport=v2.0", "InvalidParameterCombination");
        bad(root.clone() + "&Architecture=sparc", "InvalidParameterValue");
        bad(root.clone() + "&BlockDeviceMapping.1.Ebs.Colour=red", "UnknownParameter");
        world.snapshots.get_mut(&id).expect("there").takes = std::time::Duration::from_secs(11);
        assert_eq!(register(&world, &root).err().as_deref(), Some("IncorrectState"), "it is pending");
        let snapshot = world.snapshots.get_mut(&id).expect("there");
        (snapshot.takes, snapshot.size_gib) = (std::time::Duration::ZERO, 2);
        let sized =
            |size| register(&world, &format!("{root}&BlockDeviceMapping.1.Ebs.VolumeSize={size}")).err();
        assert_eq!((sized(1).as_deref(), sized(2)), (Some("InvalidBlockDeviceMapping"), None));
    }

    #[test]
    fn a_name_is_used_once_in_a_region() {
        let (mut world, id) = world();
        let image = register(&world, &root(&id)).expect("good");
        world.images.insert(image.id.clone(), image.clone());
        assert_eq!(register(&world, &root(&id)).err().as_deref(), Some("InvalidAMIName.Duplicate"));
        world.images.get_mut(&image.id).expect("there").region = "us-west-2".into();
        assert!(register(&world, &root(&id)).is_ok());
    }
}
