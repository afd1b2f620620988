//! `[recycle_bin]`: what the Recycle Bin keeps from the beginning.
//!
//! In: TOML. Out: rules. A rule that the service would not take must never be taken.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::{Rule, SNAPSHOT_RULES, TagPattern};

/// Longest time that a snapshot can be kept, in days. (EBS user guide, "How does Recycle Bin work?")
pub const MAX_DAYS: u32 = 365;
/// Most tags that a rule goes by, and most that it excludes. (The service's model.)
pub const MAX_TAGS: usize = 50;
pub const MAX_EXCLUDED: usize = 5;

/// `[recycle_bin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecycleBin {
    /// How long a snapshot that comes back is `recovering`.
    pub seconds_to_restore: f64,
    /// `[[recycle_bin.rule]]`
    #[serde(rename = "rule")]
    pub rules: Vec<RuleSpec>,
}

impl Default for RecycleBin {
    fn default() -> Self {
        Self { seconds_to_restore: 0.5, rules: Vec::new() }
    }
}

/// A retention rule for snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// For how many days.
    pub days: u32,
    /// Its Region; the instance's when absent.
    pub region: Option<String>,
    /// `Key=Value`, or `Key` for any value. Without any it is a rule for the whole Region.
    #[serde(default)]
    pub resource_tags: Vec<String>,
    /// The same, for what such a rule leaves out.
    #[serde(default)]
    pub exclude_resource_tags: Vec<String>,
}

impl RecycleBin {
    pub fn time_to_restore(&self) -> Duration {
        Duration::from_secs_f64(self.seconds_to_restore)
    }

    /// What is wrong with it, if anything is.
    pub fn problem(&self, regions: &[&str]) -> Option<String> {
        if !(0.0..=1e6).contains(&self.seconds_to_restore) {
            return Some(format!(
                "recycle_bin.seconds_to_restore = {} makes no sense",
                self.seconds_to_restore
            ));
        }
        self.rules.iter().enumerate().find_map(|(at, rule)| {
            let wrong = |text: &str| Some(format!("recycle_bin.rule {}: {text}", at + 1));
            if !(1..=MAX_DAYS).contains(&rule.days) {
                return wrong("days is between 1 and 365");
            }
            if rule.region.as_deref().is_some_and(|region| !regions.contains(&region)) {
                return wrong("its region is neither the instance's nor in other_regions");
            }
            if !rule.resource_tags.is_empty() && !rule.exclude_resource_tags.is_empty() {
                return wrong("only a rule without resource_tags can exclude some");
            }
            if rule.resource_tags.len() > MAX_TAGS || rule.exclude_resource_tags.len() > MAX_EXCLUDED {
                return wrong("at most 50 resource_tags and 5 exclude_resource_tags");
            }
            None
        })
    }

    /// The rules, of this account.
    pub fn rules(&self, account: &str, home: &str) -> Vec<Rule> {
        let pattern = |text: &String| {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
            TagPattern { key: key.to_owned(), value: value.map(str::to_owned) }
        };
        let rule = |spec: &RuleSpec| Rule {
            id: Rule::new_id(),
            account: account.to_owned(),
            region: spec.region.clone().unwrap_or_else(|| home.to_owned()),
            description: None,
            days: spec.days,
            resource_type: SNAPSHOT_RULES.into(),
            tags: spec.resource_tags.iter().map(pattern).collect(),
            excluded: spec.exclude_resource_tags.iter().map(pattern).collect(),
        };
        self.rules.iter().map(rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_one_that_the_service_would_take() {
        let problem = |rule: &str| {
            let text = format!("[[rule]]\n{rule}");
            toml::from_str::<RecycleBin>(&text).expect("a table").problem(&["us-east-1"])
        };
        assert_eq!(problem("days = 7\nresource_tags = ['a=b', 'c']"), None);
        assert_eq!(problem("days = 365\nexclude_resource_tags = ['a']"), None);
        for bad in [
            "days = 0",
            "days = 366",
            "days = 1\nregion = 'mars-1'",
            "days = 1\nresource_tags = ['a']\nexclude_resource_tags = ['b']",
            "days = 1\nexclude_resource_tags = ['1', '2', '3', '4', '5', '6']",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}
