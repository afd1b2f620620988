//! `[snapshots]`: how long things take that EC2 does after its answer, and how late they are seen.
//!
//! In: TOML. Out: durations. A default must never make something late that nobody asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// `[snapshots]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshots {
    /// How long a snapshot stays pending.
    pub seconds_to_complete: f64,
    /// Bytes a second, which overrides `seconds_to_complete` by the volume's size.
    pub rate: Option<Bytes>,
    /// How long DescribeSnapshots does not know of a new one: EC2 is eventually consistent.
    #[serde(with = "crate::units::duration")]
    pub visible_after: Duration,
    /// How long it still lists one that is deleted.
    #[serde(with = "crate::units::duration")]
    pub listed_after_deletion: Duration,
    /// How long Describe calls show a snapshot's tags as they were.
    #[serde(with = "crate::units::duration")]
    pub tags_visible_after: Duration,
    /// How long after its completion the EBS direct APIs do not find one.
    #[serde(with = "crate::units::duration")]
    pub readable_after: Duration,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            seconds_to_complete: 2.0,
            rate: None,
            visible_after: Duration::ZERO,
            listed_after_deletion: Duration::ZERO,
            tags_visible_after: Duration::ZERO,
            readable_after: Duration::ZERO,
        }
    }
}

impl Snapshots {
    /// How long a snapshot of a volume of this size stays pending.
    pub fn time_to_complete(&self, size: u64) -> Duration {
        match self.rate {
            Some(Bytes(rate)) if rate > 0 => Duration::from_millis(size.saturating_mul(1000) / rate),
            _ => Duration::from_secs_f64(self.seconds_to_complete),
        }
    }
}
