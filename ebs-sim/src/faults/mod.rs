//! Faults on request: what goes wrong, in which call, and at which moment of it.
//!
//! In: the scenario's `[[fault]]` tables and the control API. Out: for each request, the faults that
//! hit it. A fault that could never strike must never be taken without a word.

mod held;
mod kind;
mod set;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use held::{Held, Hold};
pub use kind::{Kind, Moment};
use set::service;
pub use set::{Faults, Hit, Target};

use crate::pattern::wildcard;

/// What a new connection to EC2 is called.
pub const CONNECTION: &str = "connection";
/// What a new connection to the metadata service is called.
pub const IMDS_CONNECTION: &str = "imds:connection";

/// How long a request is held that nobody releases, unless the fault says otherwise.
const HOLD_AT_MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The action it hits: `CreateSnapshots`, `imds:PutToken`, `imds:Get`, `connection`; `*` and `?` are
    /// wildcards, and `*` alone is all of EC2's.
    pub action: String,
    /// From which matching call on, counted from 1. With neither `times` nor `probability`, only that one.
    #[serde(default)]
    pub call: Option<u64>,
    /// How many calls it hits; no end when absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// How likely each matching call is hit.
    #[serde(default)]
    pub probability: Option<f64>,
    /// What the chance begins with: the same calls are hit for the same seed.
    #[serde(default)]
    pub seed: u64,
    /// `true`: only DryRun requests, `false`: only real ones, `null` in JSON or "any": both.
    #[serde(default = "only_real", deserialize_with = "dry_run")]
    pub dry_run: Option<bool>,
    /// Of the metadata service, `ebs:…` and `rbin:…`: the path, with wildcards.
    #[serde(default)]
    pub path: Option<String>,
    pub kind: Kind,
    /// The error code of `error` and `error-after`.
    #[serde(default)]
    pub code: Option<String>,
    /// The message that goes with it.
    #[serde(default)]
    pub message: Option<String>,
    /// The HTTP status that goes with it.
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub delay_ms: u64,
    /// Of `hold-…`: after how long a request goes on that nobody releases.
    #[serde(default)]
    pub at_most_ms: Option<u64>,
    /// Of `slow-progress`: how many times as long, when there is no delay.
    #[serde(default)]
    pub factor: Option<f64>,
    /// Of `detach-volume`: the volume's id or name; the last data volume when absent.
    #[serde(default)]
    pub volume: Option<String>,
}

fn only_real() -> Option<bool> {
    Some(false)
}

/// TOML has no null, so "any" says the same there.
fn dry_run<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Bool(bool),
        Text(String),
    }
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(Value::Text(text)) if text == "any" => Ok(None),
        Some(Value::Text(text)) => {
            Err(serde::de::Error::custom(format!("dry_run is true, false or \"any\", not {text:?}")))
        }
    }
}

impl Fault {
    /// A fault that hits the real calls of one action.
    pub fn new(action: &str, kind: Kind) -> Self {
        Self {
            action: action.to_owned(),
            call: None,
            times: None,
            probability: None,
            seed: 0,
            dry_run: only_real(),
            path: None,
            kind,
            code: None,
            message: None,
            status: None,
            delay_ms: 0,
            at_most_ms: None,
            factor: None,
            volume: None,
        }
    }

    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// After how long a held request goes on that nobody releases.
    pub fn at_most(&self) -> Duration {
        self.at_most_ms.map_or(HOLD_AT_MOST, Duration::from_millis)
    }

    /// How long snapshots stay pending that would take `usual`.
    pub fn slowed(&self, usual: Duration) -> Duration {
        match self.delay_ms {
            0 => Duration::try_from_secs_f64(usual.as_secs_f64() * self.factor.unwrap_or(10.0))
                .unwrap_or(Duration::MAX),
            _ => self.delay(),
        }
    }

    /// Says what keeps it from ever striking.
    pub fn check(&self) -> Result<(), String> {
        let (kind, action) = (self.kind, &self.action);
        let name = kind.name();
        let wrong = |text: String| Err(format!("fault {name} on {action}: {text}"));
        let imds = action.starts_with("imds:");
        let meets = |actions: &[&str]| actions.iter().any(|known| wildcard(action, known));
        if imds && !kind.suits_imds() {
            return wrong("the metadata service cannot have it".into());
        }
        if !["", "imds", "ebs", "rbin"].contains(&service(action)) {
            return wrong("actions of other services than EC2 begin with imds:, ebs: or rbin:".into());
        }
        if matches!(service(action), "ebs" | "rbin") {
            let suits = kind.actions().is_none_or(&meets)
                && !matches!(kind, Kind::WrongRoot)
                && kind.moment() != Moment::Connection;
            if !suits || !meets(crate::rest::ACTIONS) {
                return wrong("this service cannot have it, or has no such action".into());
            }
        }
        let connection = if imds { IMDS_CONNECTION } else { CONNECTION };
        match kind.moment() {
            Moment::Connection if !meets(&[connection]) => {
                return wrong(format!("it strikes connections: the action is {connection}"));
            }
            Moment::Signature | Moment::Request if action == connection => {
                return wrong("it strikes requests, not connections".into());
            }
            _ => {}
        }
        if kind.actions().is_some_and(|actions| !meets(actions)) {
            return wrong("it is not for this action".into());
        }
        if self.path.is_some() && (service(action).is_empty() || kind.moment() == Moment::Connection) {
            return wrong("only requests of the metadata service, ebs: and rbin: have a path".into());
        }
        if self.volume.is_some() && kind != Kind::DetachVolume {
            return wrong("volume is for detach-volume".into());
        }
        if self.factor.is_some_and(|factor| kind != Kind::SlowProgress || !(0.0..=1e9).contains(&factor)) {
            return wrong("factor is for slow-progress, and at least 0".into());
        }
        if kind.needs_delay() && self.delay_ms == 0 {
            return wrong("it needs a delay".into());
        }
        if kind.holds() && self.delay_ms != 0 {
            return wrong("it ends when it is released: at_most_ms, not delay_ms, limits it".into());
        }
        if self.at_most_ms.is_some_and(|at_most| !kind.holds() || at_most == 0) {
            return wrong("at_most_ms is for hold-before, hold-after and hold-mid, and at least 1".into());
        }
        if self.probability.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return wrong("probability is between 0 and 1".into());
        }
        if self.call == Some(0) || self.times == Some(0) {
            return wrong("calls are counted from 1".into());
        }
        Ok(())
    }
}
