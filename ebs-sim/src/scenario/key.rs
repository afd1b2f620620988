//! A KMS key of the scenario.
//!
//! In: TOML. Out: a key that EBS may or may not use. Its state must never be more than what EC2 can see of
//! it.

use serde::{Deserialize, Serialize};

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// It can.
    #[default]
    Enabled,
    /// Not until it is enabled again.
    Disabled,
    /// Not unless its deletion is called off.
    PendingDeletion,
    /// Its policy does not let EBS use it.
    Inaccessible,
}

/// `[[kms_key]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// Its id, a UUID.
    pub id: String,
    /// Its Region; the instance's when absent.
    pub region: Option<String>,
    /// `alias/…`
    pub alias: Option<String>,
    #[serde(default)]
    pub state: KeyState,
    /// It is the one that new volumes get when none is named.
    #[serde(default)]
    pub ebs_default: bool,
}

impl KeySpec {
    /// What is wrong with it, if anything is.
    pub fn problem(&self, regions: &[&str]) -> Option<String> {
        let id = &self.id;
        if uuid::Uuid::try_parse(id).is_err() || id.len() != 36 {
            return Some(format!("kms_key {id:?}: the id is not a UUID"));
        }
        if self.region.as_deref().is_some_and(|region| !regions.contains(&region)) {
            return Some(format!("kms_key {id}: its region is neither the instance's nor in other_regions"));
        }
        match self.alias.as_deref() {
            Some(alias) if !alias.starts_with("alias/") || alias.starts_with("alias/aws/") => {
                Some(format!("kms_key {id}: {alias:?} is not an alias such as alias/backup"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_needs_a_uuid_a_region_that_answers_and_an_alias_of_its_own() {
        let read = |text: &str| toml::from_str::<KeySpec>(text).expect("a table");
        let id = "id = '1234abcd-12ab-34cd-56ef-1234567890ab'";
        let regions = ["us-east-1"];
        assert_eq!(read(id).problem(&regions), None);
        assert_eq!(read(&format!("{id}\nalias = 'alias/x'\nstate = 'disabled'")).problem(&regions), None);
        for bad in
            ["id = 'x'", &format!("{id}\nregion = 'mars-1'"), &format!("{id}\nalias = 'alias/aws/ebs'")]
        {
            assert!(read(bad).problem(&regions).is_some(), "{bad}");
        }
    }
}
