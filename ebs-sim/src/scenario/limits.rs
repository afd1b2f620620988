//! `[limits]`: how many and how often.
//!
//! In: TOML. Out: EC2's limits, unless others are asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Bucket;

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Least time between two snapshots of one volume; `0s` switches it off.
    #[serde(with = "crate::units::duration")]
    pub per_volume_interval: Duration,
    /// Most snapshots of one volume in progress; 0 switches it off.
    pub pending_per_volume: usize,
    /// Most snapshots of the account in progress; 0 switches it off.
    pub pending_per_account: usize,
    /// Most snapshots in one Region; 0 switches it off.
    pub snapshots: usize,
    /// Most copies in progress to one Region; 0 switches it off.
    pub copies_per_region: usize,
    /// Most copies of volumes in progress in one Region; 0 switches it off.
    pub volume_copies_per_region: usize,
    /// Most volumes that are attached to the instance, instead of its type's limit; 0 switches it off.
    pub attachments: Option<usize>,
    /// Most items in one answer, whatever MaxResults says.
    pub page_size: usize,
    /// Whether an empty page goes before each page of DescribeSnapshots and of blocks, as EC2 may answer.
    pub empty_pages: bool,
    /// Whether too many requests in too short a time are refused.
    pub throttling: bool,
    /// Buckets of actions that are not EC2's.
    pub bucket: BTreeMap<String, Bucket>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_volume_interval: Duration::from_secs(15),
            pending_per_volume: 5,
            pending_per_account: 100,
            snapshots: 100_000,
            copies_per_region: 20,
            volume_copies_per_region: 5,
            attachments: None,
            page_size: 1000,
            empty_pages: false,
            throttling: true,
            bucket: BTreeMap::new(),
        }
    }
}
