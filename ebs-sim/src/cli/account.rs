//! Arguments about the account: its clock, and very many snapshots.
//!
//! In: arguments. Out: bodies of the control API.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{DirArg, key_value};

#[derive(Debug, Args)]
pub struct ClockArgs {
    #[command(flatten)]
    pub dir: DirArg,
    /// Move it on by this much, such as 8d.
    #[arg(long, value_parser = humantime::parse_duration)]
    advance: Option<Duration>,
}

impl ClockArgs {
    /// What to send, when it is to be moved.
    pub fn body(&self) -> Option<Value> {
        self.advance.map(|by| json!({ "advance_seconds": by.as_secs() }))
    }
}

#[derive(Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub dir: DirArg,
    /// How many sets.
    #[arg(long)]
    sets: u64,
    /// How many snapshots in each set, up to 128.
    #[arg(long, required_unless_present = "like", conflicts_with = "like")]
    members: Option<u64>,
    /// Snapshots of one set: each new set has one like each of them, with its tags.
    #[arg(long, value_name = "SNAPSHOT", value_delimiter = ',')]
    like: Vec<String>,
    /// A tag whose value is another in each set, wherever it appears in tags and descriptions. Can be repeated.
    #[arg(long, value_name = "KEY", requires = "like")]
    vary: Vec<String>,
    /// A tag of each snapshot. {set}, {member} and {time} in it stand for what they say. Can be repeated.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = key_value)]
    tags: Vec<(String, String)>,
    /// The instance that the tag stillpoint:instance names.
    #[arg(long)]
    instance: Option<String>,
    #[arg(long)]
    description: Option<String>,
    /// The Region; the instance's when absent.
    #[arg(long)]
    region: Option<String>,
    /// The account; the instance's when absent.
    #[arg(long)]
    account: Option<String>,
    /// How much older each set is than the next.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    every: Duration,
}

impl FillArgs {
    pub fn body(&self) -> Value {
        let mut tags: Map<String, Value> =
            self.tags.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        if let Some(instance) = &self.instance {
            tags.insert("stillpoint:instance".into(), instance.clone().into());
        }
        json!({
            "sets": self.sets,
            "members": self.members,
            "like": self.like,
            "vary": self.vary,
            "tags": tags,
            "description": self.description,
            "region": self.region,
            "account": self.account,
            "every_seconds": self.every.as_secs(),
        })
    }
}
