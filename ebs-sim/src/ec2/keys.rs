//! The KMS keys that requests name.
//!
//! In: a key's name and a Region. Out: its ARN, and whether it can be used now. Of a key that cannot be used no
//! more must be told in the answer than EC2 tells: mostly it finds it out only later.

use super::context::Context;
use super::error::Ec2Error;
use crate::scenario::KeyState;
use crate::world::{DEFAULT_ALIAS, World};

/// What EC2 says of a key that is not there, not ours, or not enabled.
pub const UNUSABLE: &str = "Given key ID is not accessible";

/// GetEbsDefaultKmsKeyId: the key that new volumes get when none is named. A copy does not go by it.
pub struct OfVolumes;

impl OfVolumes {
    pub fn act(&self, context: &Context) -> String {
        let key = default_key(&context.sim.world(), &context.account, context.region());
        context.response(|xml| xml.text("kmsKeyId", key))
    }
}

/// GetEbsEncryptionByDefault: is every new volume and copy of the account encrypted in this Region?
pub struct ByDefault;

impl ByDefault {
    pub fn act(&self, context: &Context) -> String {
        let world = context.sim.world();
        let on = encrypts_by_default(&world, &context.account, context.region());
        context.response(|xml| {
            xml.text("ebsEncryptionByDefault", on);
            xml.text("sseType", if on { "sse-kms" } else { "none" });
        })
    }
}

/// Only the instance's account can have it on.
pub fn encrypts_by_default(world: &World, account: &str, region: &str) -> bool {
    account == world.account()
        && world.scenario.volume_times.encrypted_by_default.iter().any(|on| on == region)
}

/// The alias of AWS's own key, unless the account has set another one.
pub fn default_key(world: &World, account: &str, region: &str) -> String {
    let of_account =
        |key: &&crate::world::KmsKey| key.ebs_default && key.region == region && key.account == account;
    world.kms_keys.iter().find(of_account).map_or_else(|| DEFAULT_ALIAS.to_owned(), |key| key.arn())
}

/// What came of looking for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its ARN, as far as it is known.
    pub arn: Option<String>,
    pub usable: bool,
}

/// The key of this name, as the instance's account names it; the Region's default one when there is none.
pub fn find(world: &World, region: &str, name: Option<&str>) -> Found {
    find_for(world, world.account(), region, name)
}

/// What is told at once of a key that CopySnapshot names: that it is disabled, or that no key has this alias.
/// Everything else that is wrong with a key shows later, as the state `error`. (Recorded of EC2.)
pub fn check(world: &World, account: &str, region: &str, name: &str) -> Result<(), Ec2Error> {
    match world.kms_key(account, region, name) {
        Some(key) if key.state == KeyState::Disabled => {
            Err(Ec2Error::invalid_value(format!("{} is disabled", key.arn())))
        }
        None if name.starts_with("alias/") || name.contains(":alias/") => {
            Err(Ec2Error::invalid_value(format!("The key alias {name} does not exist")))
        }
        _ => Ok(()),
    }
}

/// The same as `find`, for any account.
pub fn find_for(world: &World, account: &str, region: &str, name: Option<&str>) -> Found {
    let name = name.unwrap_or(DEFAULT_ALIAS);
    match world.kms_key(account, region, name) {
        Some(key) => Found { arn: Some(key.arn()), usable: key.is_usable() },
        None => Found { arn: name.starts_with("arn:").then(|| name.to_owned()), usable: false },
    }
}

/// Whether EBS can decrypt what is encrypted with this key now; what has none is not encrypted.
pub fn can_decrypt(world: &World, region: &str, arn: Option<&str>) -> bool {
    arn.is_none_or(|arn| find(world, region, Some(arn)).usable)
}

/// Whether it is the account's default key in this Region.
pub fn is_default(world: &World, region: &str, arn: &str) -> bool {
    world.kms_key(world.account(), region, arn).is_some_and(crate::world::KmsKey::is_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{KeySpec, KeyState, Scenario};

    #[test]
    fn only_enabled_keys_of_the_region_can_be_used() {
        let mut scenario = Scenario::default();
        for (digit, state) in
            [('1', KeyState::Enabled), ('2', KeyState::Disabled), ('3', KeyState::PendingDeletion)]
        {
            scenario.kms_keys.push(KeySpec {
                id: format!("{digit}234abcd-12ab-34cd-56ef-1234567890ab"),
                region: Some("us-west-2".into()),
                alias: Some(format!("alias/k{digit}")),
                state,
                ebs_default: digit == '1',
            });
        }
        let world = World::new(&scenario, &[], jiff::Timestamp::UNIX_EPOCH);
        let usable = |region, name| find(&world, region, name).usable;
        assert!(usable("us-west-2", None) && usable("us-west-2", Some("alias/k1")));
        assert!(!usable("us-west-2", Some("alias/k2")) && !usable("us-west-2", Some("alias/k3")));
        assert!(!usable("us-east-1", Some("alias/k1")) && !usable("us-west-2", Some("nonsense")));
        let code = |name| check(&world, "123456789012", "us-west-2", name).err().map(|error| error.code);
        let invalid = Some("InvalidParameterValue".to_owned());
        assert_eq!((code("alias/k2"), code("alias/nobodys")), (invalid.clone(), invalid));
        assert_eq!((code("alias/k1"), code("alias/k3"), code("nonsense")), (None, None, None));
        let arn = find(&world, "us-west-2", Some("alias/k1")).arn.expect("known");
        assert_eq!(default_key(&world, "123456789012", "us-west-2"), arn);
        assert_eq!(default_key(&world, "123456789012", "us-east-1"), DEFAULT_ALIAS);
        assert_eq!(default_key(&world, "111122223333", "us-west-2"), DEFAULT_ALIAS);
        let default = find(&world, "us-west-2", None).arn.expect("known");
        assert!(is_default(&world, "us-west-2", &default) && !is_default(&world, "us-east-1", &default));
    }
}
