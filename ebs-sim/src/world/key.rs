//! KMS keys: which there are, and whether EBS can use them.
//!
//! In: the scenario's keys and the text with which a request names one. Out: a key's ARN, or why it cannot be
//! used. A key of another Region or account must never be found.

use serde::{Deserialize, Serialize};

use crate::scenario::{KeyState, Scenario};

/// The alias of the key that EBS uses when none is named.
pub const DEFAULT_ALIAS: &str = "alias/aws/ebs";
/// The id of that key, in every Region.
const DEFAULT_ID: &str = "00000000-0000-4000-8000-000000000000";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsKey {
    /// A UUID.
    pub id: String,
    pub region: String,
    pub account: String,
    /// `alias/…`
    pub alias: Option<String>,
    pub state: KeyState,
    /// The account has chosen it for new volumes without a key of their own.
    #[serde(default)]
    pub ebs_default: bool,
}

impl KmsKey {
    pub fn arn(&self) -> String {
        format!("arn:aws:kms:{}:{}:key/{}", self.region, self.account, self.id)
    }

    /// Whether it can be used now.
    pub fn is_usable(&self) -> bool {
        self.state == KeyState::Enabled
    }

    /// Whether it is the account's default key of its Region, which is never shared.
    pub fn is_default(&self) -> bool {
        self.alias.as_deref() == Some(DEFAULT_ALIAS)
    }

    /// Whether a request of this account means it: by id, ARN, alias, or the alias's ARN.
    pub fn is_named_by(&self, account: &str, name: &str) -> bool {
        (account == self.account || name.starts_with("arn:")) && self.is_named(name)
    }

    fn is_named(&self, name: &str) -> bool {
        let home = format!("arn:aws:kms:{}:{}:", self.region, self.account);
        let local = match name.strip_prefix(&home) {
            Some(rest) => rest.strip_prefix("key/").unwrap_or(rest),
            None => name,
        };
        local == self.id || self.alias.as_deref() == Some(local)
    }
}

/// The keys at the beginning: the default one of every Region, and the scenario's.
pub fn all(scenario: &Scenario) -> Vec<KmsKey> {
    let instance = &scenario.instance;
    let account = instance.account_id.clone();
    let others = scenario.accounts.iter().map(|account| &account.id);
    let accounts = std::iter::once(&account).chain(others);
    let regions = || std::iter::once(&instance.region).chain(&scenario.other_regions);
    let default = |account: &String, region: &String| KmsKey {
        id: DEFAULT_ID.into(),
        region: region.clone(),
        account: account.clone(),
        alias: Some(DEFAULT_ALIAS.into()),
        state: KeyState::Enabled,
        ebs_default: false,
    };
    let mut keys: Vec<KmsKey> =
        accounts.flat_map(|account| regions().map(move |region| default(account, region))).collect();
    keys.extend(scenario.kms_keys.iter().map(|spec| KmsKey {
        id: spec.id.clone(),
        region: spec.region.clone().unwrap_or_else(|| instance.region.clone()),
        account: account.clone(),
        alias: spec.alias.clone(),
        state: spec.state,
        ebs_default: spec.ebs_default,
    }));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_in_four_ways_and_only_at_home() {
        let key = KmsKey {
            id: "1234abcd-12ab-34cd-56ef-1234567890ab".into(),
            region: "us-west-2".into(),
            account: "123456789012".into(),
            alias: Some("alias/backup".into()),
            state: KeyState::Enabled,
            ebs_default: false,
        };
        for name in [
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-west-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/backup",
            "arn:aws:kms:us-west-2:123456789012:alias/backup",
        ] {
            assert!(key.is_named(name), "{name}");
        }
        for name in [
            "backup",
            "alias/other",
            "arn:aws:kms:us-east-1:123456789012:alias/backup",
            "arn:aws:kms:us-west-2:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ] {
            assert!(!key.is_named(name), "{name}");
        }
    }

    #[test]
    fn every_region_has_a_default_key() {
        let keys = all(&Scenario::default());
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(KmsKey::is_default));
        assert_ne!(keys[0].arn(), keys[1].arn());
    }
}
