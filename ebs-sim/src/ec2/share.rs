//! ModifySnapshotAttribute, DescribeSnapshotAttribute, ResetSnapshotAttribute: who else may use a snapshot.
//!
//! In: accounts and the group `all`. Out: the snapshot's permissions. What is encrypted must never become
//! public, and what the default key encrypted must never be shared at all.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::xml::Xml;
use super::{keys, snapshots};
use crate::ids::SnapshotId;
use crate::world::{Sharing, Snapshot, World};

const ATTRIBUTES: &[&str] = &["createVolumePermission", "productCodes"];
/// Most changes in one request.
const MAX_CHANGES: usize = 500;

fn need(action: &'static str, world: &World, id: &SnapshotId) -> Vec<Need> {
    vec![Need::on(action, world, &format!("snapshot/{id}"))]
}

/// What is shared. The block of public snapshots is none of images, which have their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Of {
    #[default]
    Snapshot,
    Image,
}

/// Who is added to the permissions of a resource, or removed from them.
#[derive(Debug, Default)]
pub struct Change {
    of: Of,
    add: Sharing,
    remove: Sharing,
}

impl Change {
    /// Reads both forms, `LIST.Add.N.…` and OperationType; none when there is neither.
    pub fn parse(params: &mut Params, of: Of, list: &str) -> Result<Option<Self>, Ec2Error> {
        let mut add = permissions(params, &format!("{list}.Add"))?;
        let mut remove = permissions(params, &format!("{list}.Remove"))?;
        let users = params.list("UserId");
        let groups = params.list("UserGroup");
        match params.choice("OperationType", &["add", "remove"])?.as_deref() {
            Some("add") => extend(&mut add, users, groups)?,
            Some(_) => extend(&mut remove, users, groups)?,
            None if users.is_empty() && groups.is_empty() => {}
            None => return Err(Ec2Error::missing("OperationType")),
        }
        let (adds, removes) = (count(&add), count(&remove));
        if adds > 0 && removes > 0 {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "Permissions cannot be added and removed in one request",
            ));
        }
        if adds + removes > MAX_CHANGES {
            return Err(Ec2Error::invalid_value(format!(
                "The number of modifications exceeds the maximum of {MAX_CHANGES}"
            )));
        }
        Ok((adds + removes > 0).then_some(Self { of, add, remove }))
    }

    /// Fails when a snapshot may not be seen by those who are added.
    pub fn check(&self, world: &World, snapshot: &Snapshot, now: Timestamp) -> Result<(), Ec2Error> {
        let denied = |message: &str| Err(Ec2Error::new("OperationNotPermitted", message));
        if count(&self.add) == 0 {
            return Ok(());
        }
        let key = snapshot.kms_key_id.as_deref();
        if snapshot.encrypted && key.is_some_and(|arn| keys::is_default(world, &snapshot.region, arn)) {
            return denied("Encrypted snapshots with EBS default key cannot be shared");
        }
        if snapshot.encrypted && self.add.public {
            return denied("Encrypted snapshots cannot be shared publicly");
        }
        if self.add.public
            && self.of == Of::Snapshot
            && world.block_public(&snapshot.owner, &snapshot.region).is_some()
        {
            return denied("Public sharing of snapshots is blocked in this account and Region");
        }
        if snapshot.is_archived(now) {
            return denied("Archived snapshots cannot be shared");
        }
        Ok(())
    }

    /// Does it make something public?
    pub fn publishes(&self) -> bool {
        self.add.public
    }

    /// Changes the permissions.
    pub fn apply(&self, shared: &mut Sharing) {
        shared.users.extend(self.add.users.iter().cloned());
        shared.users.retain(|user| !self.remove.users.contains(user));
        shared.public = (shared.public || self.add.public) && !self.remove.public;
    }
}

/// Permissions as EC2 lists them.
pub fn write(xml: &mut Xml, list: &str, shared: &Sharing) {
    let everybody = shared.public.then_some(("group", "all"));
    let users = shared.users.iter().map(|user| ("userId", user.as_str()));
    xml.list(list, users.chain(everybody), |xml, (name, who)| xml.text(name, who));
}

fn count(sharing: &Sharing) -> usize {
    sharing.users.len() + usize::from(sharing.public)
}

fn permissions(params: &mut Params, prefix: &str) -> Result<Sharing, Ec2Error> {
    let mut sharing = Sharing::default();
    for n in params.indexes(prefix) {
        let users = params.text(&format!("{prefix}.{n}.UserId"));
        let groups = params.text(&format!("{prefix}.{n}.Group"));
        extend(&mut sharing, users, groups)?;
    }
    Ok(sharing)
}

fn extend(
    sharing: &mut Sharing,
    users: impl IntoIterator<Item = String>,
    groups: impl IntoIterator<Item = String>,
) -> Result<(), Ec2Error> {
    for user in users {
        if user.len() != 12 || !user.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Ec2Error::new(
                "InvalidAMIAttributeItemValue",
                format!("Invalid attribute item value \"{user}\" for userId item type."),
            ));
        }
        sharing.users.insert(user);
    }
    for group in groups {
        if group != "all" {
            return Err(Ec2Error::new(
                "InvalidAMIAttributeItemValue",
                format!("Invalid attribute item value \"{group}\" for group item type."),
            ));
        }
        sharing.public = true;
    }
    Ok(())
}

/// ModifySnapshotAttribute.
pub struct Modify {
    id: SnapshotId,
    change: Change,
}

impl Modify {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        if params.choice("Attribute", ATTRIBUTES)?.as_deref() == Some("productCodes") {
            return Err(Ec2Error::invalid_value("Only the attribute createVolumePermission can be modified"));
        }
        let list = "CreateVolumePermission";
        let change = Change::parse(params, Of::Snapshot, list)?.ok_or_else(|| Ec2Error::missing(list))?;
        Ok(Self { id, change })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        need("ec2:ModifySnapshotAttribute", world, &self.id)
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        self.modify(&mut world, context.region(), context.now)?;
        Ok(context.done())
    }

    fn modify(&self, world: &mut World, region: &str, now: Timestamp) -> Result<(), Ec2Error> {
        self.change.check(world, snapshots::find(world, region, &self.id)?, now)?;
        self.change.apply(&mut snapshots::find_mut(world, region, &self.id)?.later.shared);
        Ok(())
    }
}

/// DescribeSnapshotAttribute.
pub struct Describe {
    id: SnapshotId,
    product_codes: bool,
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        let attribute =
            params.choice("Attribute", ATTRIBUTES)?.ok_or_else(|| Ec2Error::missing("Attribute"))?;
        Ok(Self { id, product_codes: attribute == "productCodes" })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        need("ec2:DescribeSnapshotAttribute", world, &self.id)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let snapshot = snapshots::find(&world, context.region(), &self.id)?;
        let shared = snapshot.shared(context.now).cloned().unwrap_or_default();
        Ok(context.response(|xml| {
            xml.text("snapshotId", &self.id);
            if self.product_codes {
                // None of the volumes came from the Marketplace.
                xml.node("productCodes", |_| {});
                return;
            }
            write(xml, "createVolumePermission", &shared);
        }))
    }
}

/// ResetSnapshotAttribute.
pub struct Reset(SnapshotId);

impl Reset {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        match params.choice("Attribute", ATTRIBUTES)?.as_deref() {
            None => Err(Ec2Error::missing("Attribute")),
            Some("productCodes") => {
                Err(Ec2Error::invalid_value("Only the attribute createVolumePermission can be reset"))
            }
            Some(_) => Ok(Self(id)),
        }
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        need("ec2:ResetSnapshotAttribute", world, &self.0)
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        snapshots::find_mut(&mut world, context.region(), &self.0)?.later.shared = Sharing::default();
        Ok(context.done())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{KeySpec, KeyState, Scenario};
    use crate::world::test_snapshot;

    const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    fn world() -> (World, SnapshotId) {
        let mut scenario = Scenario::default();
        let (id, state) = (KEY.into(), KeyState::Enabled);
        scenario.kms_keys.push(KeySpec { id, region: None, alias: None, state, ebs_default: false });
        let mut world = World::new(&scenario, &[], Timestamp::UNIX_EPOCH);
        let snapshot = test_snapshot(0, false);
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        (world, id)
    }

    fn modify(id: &SnapshotId, rest: &str) -> Result<Modify, Ec2Error> {
        let mut params = Params::parse(&[format!("SnapshotId={id}&{rest}").as_bytes()]);
        let modify = Modify::parse(&mut params)?;
        params.finish()?;
        Ok(modify)
    }

    fn apply(world: &mut World, id: &SnapshotId, rest: &str) -> Result<Sharing, String> {
        let change = modify(id, rest).map_err(|error| error.code)?;
        change.modify(world, "us-east-1", Timestamp::UNIX_EPOCH).map_err(|error| error.code)?;
        Ok(world.snapshots[id].later.shared.clone())
    }

    #[test]
    fn both_forms_add_and_remove() {
        let (mut world, id) = world();
        let users = |sharing: Result<Sharing, String>| {
            let sharing = sharing.expect("allowed");
            (sharing.users.into_iter().collect::<Vec<_>>().join(","), sharing.public)
        };
        let nested =
            "CreateVolumePermission.Add.1.UserId=111111111111&CreateVolumePermission.Add.2.Group=all";
        assert_eq!(users(apply(&mut world, &id, nested)), ("111111111111".into(), true));
        let flat = "Attribute=createVolumePermission&OperationType=add&UserId.1=222222222222";
        assert_eq!(users(apply(&mut world, &id, flat)), ("111111111111,222222222222".into(), true));
        let flat = "OperationType=remove&UserId.1=111111111111&UserGroup.1=all";
        assert_eq!(users(apply(&mut world, &id, flat)), ("222222222222".into(), false));
        let nested = "CreateVolumePermission.Remove.1.UserId=222222222222";
        assert_eq!(users(apply(&mut world, &id, nested)), (String::new(), false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let id = SnapshotId::random();
        let many = |count: u32| {
            let users: Vec<String> = (1..=count).map(|n| format!("UserId.{n}={n:012}")).collect();
            format!("OperationType=add&{}", users.join("&"))
        };
        assert!(modify(&id, &many(500)).is_ok());
        for (form, code) in [
            ("", "MissingParameter"),
            ("UserId.1=111111111111", "MissingParameter"),
            ("OperationType=add&UserId.1=me", "InvalidAMIAttributeItemValue"),
            ("OperationType=add&UserId.1=11112222333", "InvalidAMIAttributeItemValue"),
            (&many(501), "InvalidParameterValue"),
            ("OperationType=add&UserGroup.1=some", "InvalidAMIAttributeItemValue"),
            ("Attribute=productCodes&OperationType=add&UserGroup.1=all", "InvalidParameterValue"),
            (
                "CreateVolumePermission.Add.1.Group=all&CreateVolumePermission.Remove.1.UserId=111111111111",
                "InvalidParameterCombination",
            ),
            ("OperationType=add&UserGroup.1=all&Colour=red", "UnknownParameter"),
        ] {
            assert_eq!(modify(&id, form).err().map(|error| error.code).as_deref(), Some(code), "{form}");
        }
    }

    #[test]
    fn a_block_of_public_access_lets_accounts_pass_and_hides_what_is_public() {
        use crate::world::Block;
        let (mut world, id) = world();
        let all = "OperationType=add&UserGroup.1=all";
        let place = ("123456789012".to_owned(), "us-east-1".to_owned());
        assert!(apply(&mut world, &id, all).is_ok());
        let public = |world: &World| world.can_use(&world.snapshots[&id], "111122223333", Timestamp::MAX);
        for (block, still) in [(Block::New, true), (Block::All, false)] {
            world.blocks = vec![(place.clone(), block)];
            assert_eq!(public(&world), still, "{block:?}");
            assert_eq!(apply(&mut world, &id, all), Err("OperationNotPermitted".into()));
            assert!(apply(&mut world, &id, "OperationType=add&UserId.1=222222222222").is_ok());
            assert!(world.snapshots[&id].later.shared.public, "the permission stays");
        }
        world.blocks = vec![((place.0, "us-west-2".into()), Block::All)];
        assert!(public(&world) && apply(&mut world, &id, all).is_ok(), "another Region");
        assert!(apply(&mut world, &id, "OperationType=remove&UserGroup.1=all").is_ok());
        assert!(!public(&world));
    }

    #[test]
    fn encrypted_snapshots_are_shared_by_their_own_key_and_never_with_all() {
        let (mut world, id) = world();
        let user = "OperationType=add&UserId.1=111111111111";
        let all = "OperationType=add&UserGroup.1=all";
        let encrypt = |world: &mut World, name: Option<&str>| {
            let arn = keys::find(world, "us-east-1", name).arn;
            let snapshot = world.snapshots.get_mut(&id).expect("there");
            (snapshot.encrypted, snapshot.kms_key_id) = (true, arn);
        };
        encrypt(&mut world, None);
        assert_eq!(apply(&mut world, &id, user), Err("OperationNotPermitted".into()));
        encrypt(&mut world, Some(KEY));
        assert!(apply(&mut world, &id, user).is_ok());
        assert_eq!(apply(&mut world, &id, all), Err("OperationNotPermitted".into()));
        assert!(apply(&mut world, &id, "OperationType=remove&UserGroup.1=all").is_ok());
    }
}
