//! The options of commands that make volumes of others: which type, how fast.
//!
//! In: options. Out: an [`Instead`]. Must never: judge what fits together: [`crate::ec2::volume_type`] does.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::ec2::volume_type::{Instead, TYPES};

/// Above the options that say what new volumes are like.
pub(super) const HEADING: &str = "The new volumes";

#[derive(Debug, Args)]
pub(super) struct TypeAndSpeed {
    /// The type of the new volumes [default: what each volume had].
    #[arg(help_heading = HEADING, long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(TYPES))]
    volume_type: Option<String>,
    /// The provisioned IOPS of the new volumes.
    #[arg(help_heading = HEADING, long, value_parser = clap::value_parser!(i32).range(100..=256_000))]
    iops: Option<i32>,
    /// The provisioned throughput of the new volumes, in MiB/s.
    #[arg(help_heading = HEADING, long, value_parser = clap::value_parser!(i32).range(125..=2_000))]
    throughput: Option<i32>,
}

impl TypeAndSpeed {
    pub(super) fn instead(&self) -> Instead {
        Instead { kind: self.volume_type.clone(), iops: self.iops, throughput: self.throughput }
    }
}
