//! ModifyImageAttribute and DescribeImageAttribute.
//!
//! In: an image of this account. Out: its description, IMDS support and launch permissions changed; any of
//! its attributes shown. What an image's snapshots may not be shown to must never be able to launch it.

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::share::{self, Change, Of};
use super::super::xml::Xml;
use super::describe::write_mapping;
use super::{own, parse_id};
use crate::ids::ImageId;
use crate::world::World;

/// ModifyImageAttribute.
pub struct ModifyAttribute {
    id: ImageId,
    what: What,
}

enum What {
    Description(String),
    Imds,
    Launch(Change),
}

impl ModifyAttribute {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = parse_id(&params.required("ImageId")?)?;
        for unknown in ["OrganizationArn", "OrganizationalUnitArn", "ProductCode"] {
            if params.any(&format!("{unknown}.")) {
                return Err(Ec2Error::invalid_value(format!("The parameter {unknown} is not supported")));
            }
        }
        let attribute = params.choice("Attribute", &["description", "imdsSupport", "launchPermission"])?;
        let value = params.text("Value");
        let named = |name: &str| value.clone().filter(|_| attribute.as_deref() == Some(name));
        let description = params.text("Description.Value").or_else(|| named("description"));
        let imds = params.text("ImdsSupport.Value").or_else(|| named("imdsSupport"));
        let launch = Change::parse(params, Of::Image, "LaunchPermission")?;
        let what = match (description, imds, launch) {
            (Some(text), None, None) if text.chars().count() > 255 => {
                return Err(Ec2Error::invalid_value(
                    "Description exceeds the maximum length of 255 characters",
                ));
            }
            (Some(text), None, None) => What::Description(text),
            (None, Some(version), None) if version == "v2.0" => What::Imds,
            (None, Some(version), None) => {
                return Err(Ec2Error::invalid_value(format!(
                    "Value ({version}) for parameter imdsSupport is invalid."
                )));
            }
            (None, None, Some(change)) => What::Launch(change),
            (None, None, None) => return Err(Ec2Error::missing("Attribute")),
            _ => {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "Only one attribute can be modified at a time",
                ));
            }
        };
        Ok(Self { id, what })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:ModifyImageAttribute", world, &format!("image/{}", self.id))]
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        self.modify(&mut world, context.region(), context.now)?;
        Ok(context.done())
    }

    fn modify(&self, world: &mut World, region: &str, now: Timestamp) -> Result<(), Ec2Error> {
        let image = own(world, region, &self.id)?;
        if let What::Launch(change) = &self.what {
            if change.publishes() && world.blocks_public_images(&image.owner, region) {
                return Err(Ec2Error::new(
                    "OperationNotPermitted",
                    "You can't publicly share this image because block public access for AMIs is enabled for this \
                     account. To publicly share the image, you must call the DisableImageBlockPublicAccess API.",
                ));
            }
            let snapshots = image.volumes().filter_map(|(_, ebs)| ebs.snapshot.as_ref());
            for snapshot in snapshots.filter_map(|id| world.snapshot(region, id)) {
                change.check(world, snapshot, now)?;
            }
        }
        if let Some(image) = world.images.get_mut(&self.id) {
            match &self.what {
                What::Description(text) => image.description = Some(text.clone()),
                What::Imds => image.imds = Some("v2.0".into()),
                What::Launch(change) => change.apply(&mut image.shared),
            }
        }
        Ok(())
    }
}

const ATTRIBUTES: &[&str] = &[
    "blockDeviceMapping",
    "bootMode",
    "description",
    "imdsSupport",
    "kernel",
    "launchPermission",
    "productCodes",
    "ramdisk",
    "sriovNetSupport",
    "tpmSupport",
    "uefiData",
];

/// DescribeImageAttribute.
pub struct DescribeAttribute {
    id: ImageId,
    attribute: String,
}

impl DescribeAttribute {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = parse_id(&params.required("ImageId")?)?;
        let attribute =
            params.choice("Attribute", ATTRIBUTES)?.ok_or_else(|| Ec2Error::missing("Attribute"))?;
        Ok(Self { id, attribute })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:DescribeImageAttribute", world, &format!("image/{}", self.id))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let image = own(&world, context.region(), &self.id)?;
        Ok(context.response(|xml| {
            xml.text("imageId", &self.id);
            let value = match self.attribute.as_str() {
                "blockDeviceMapping" => return write_mapping(xml, image, false),
                "launchPermission" => return share::write(xml, "launchPermission", &image.shared),
                // Nothing here came from the Marketplace.
                "productCodes" => return xml.node("productCodes", |_| {}),
                "bootMode" => &image.boot_mode,
                "description" => &image.description,
                "imdsSupport" => &image.imds,
                "kernel" => &image.kernel,
                "ramdisk" => &image.ramdisk,
                "sriovNetSupport" => &image.sriov,
                "tpmSupport" => &image.tpm,
                _ => &image.uefi_data,
            };
            let inside = |xml: &mut Xml| xml.maybe("value", value.as_ref());
            xml.node(&self.attribute, inside);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::{Target, test_snapshot};

    /// An account with one image of its own.
    fn world() -> (World, ImageId) {
        let mut world = World::new(&Scenario::default(), &[], Timestamp::UNIX_EPOCH);
        let id = world.images.keys().next().expect("the instance's").clone();
        world.images[&id].owner = world.scenario.instance.account_id.clone();
        (world, id)
    }

    fn modify(world: &mut World, id: &ImageId, rest: &str) -> Result<(), String> {
        let mut params = Params::parse(&[format!("ImageId={id}&{rest}").as_bytes()]);
        let wanted = ModifyAttribute::parse(&mut params).map_err(|error| error.code)?;
        params.finish().map_err(|error| error.code)?;
        wanted.modify(world, "us-east-1", Timestamp::UNIX_EPOCH).map_err(|error| error.code)
    }

    #[test]
    fn one_attribute_at_a_time() {
        let (mut world, id) = world();
        for good in [
            "Description.Value=new",
            "Attribute=description&Value=newer",
            "ImdsSupport.Value=v2.0",
            "LaunchPermission.Remove.1.Group=all",
            "Attribute=launchPermission&OperationType=add&UserId.1=111111111111",
        ] {
            assert_eq!(modify(&mut world, &id, good), Ok(()), "{good}");
        }
        let image = &world.images[&id];
        assert_eq!(image.description.as_deref(), Some("newer"));
        assert!(!image.shared.public && image.shared.users.contains("111111111111"));
        for (bad, code) in [
            ("", "MissingParameter"),
            ("Attribute=kernel&Value=x", "InvalidParameterValue"),
            ("ImdsSupport.Value=v1.0", "InvalidParameterValue"),
            ("OrganizationArn.1=x", "InvalidParameterValue"),
            ("Description.Value=x&ImdsSupport.Value=v2.0", "InvalidParameterCombination"),
        ] {
            assert_eq!(modify(&mut world, &id, bad), Err(code.into()), "{bad}");
        }
        world.images[&id].owner = "999999999999".into();
        assert_eq!(modify(&mut world, &id, "Description.Value=x"), Err("AuthFailure".into()));
    }

    #[test]
    fn an_image_is_shared_no_further_than_its_snapshots() {
        let (mut world, id) = world();
        let mut snapshot = test_snapshot(0, false);
        if let Target::Ebs(ebs) = &mut world.images[&id].mapping[0].target {
            ebs.snapshot = Some(snapshot.id.clone());
        }
        let add = "OperationType=add&UserId.1=111111111111";
        snapshot.encrypted = true;
        snapshot.kms_key_id = Some(world.kms_keys[0].arn());
        world.snapshots.insert(snapshot.clone());
        assert_eq!(modify(&mut world, &id, add), Err("OperationNotPermitted".into()));
        world.snapshots.get_mut(&snapshot.id).expect("there").encrypted = false;
        assert_eq!(modify(&mut world, &id, add), Ok(()));
    }

    #[test]
    fn images_have_a_block_of_their_own_which_leaves_what_is_public() {
        use crate::world::Block;
        let (mut world, id) = world();
        let snapshot = test_snapshot(0, false);
        if let Target::Ebs(ebs) = &mut world.images[&id].mapping[0].target {
            ebs.snapshot = Some(snapshot.id.clone());
        }
        world.snapshots.insert(snapshot);
        let account = world.images[&id].owner.clone();
        let all = "Attribute=launchPermission&OperationType=add&UserGroup.1=all";
        world.blocks = vec![((account.clone(), "us-east-1".into()), Block::All)];
        assert_eq!(modify(&mut world, &id, all), Ok(()), "that is of snapshots");
        world.image_blocks = vec![(account, "us-east-1".into())];
        assert!(world.images[&id].shared.public, "it stays");
        assert_eq!(modify(&mut world, &id, all), Err("OperationNotPermitted".into()));
        let one = "Attribute=launchPermission&OperationType=add&UserId.1=111111111111";
        assert_eq!(modify(&mut world, &id, one), Ok(()));
        assert_eq!(modify(&mut world, &id, "LaunchPermission.Remove.1.Group=all"), Ok(()));
        assert!(!world.images[&id].shared.public);
        world.image_blocks[0].1 = "us-west-2".into();
        assert_eq!(modify(&mut world, &id, all), Ok(()), "another Region");
    }
}
