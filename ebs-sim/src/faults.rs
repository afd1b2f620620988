//! Faults on request: what goes wrong, in which call, and at which moment of it.
//!
//! In: the scenario's `[[fault]]` tables and the control API. Out: for each request, the faults that
//! hit it. A fault must never hit a request that it does not name, and one with `call = N` hits once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The action it hits: `CreateSnapshots`, `imds:PutToken`, `imds:Get`, or `*` for all of EC2's.
    pub action: String,
    /// Which matching call from now on, counted from 1; every one when absent.
    #[serde(default)]
    pub call: Option<u64>,
    /// `true`: only DryRun requests, `false`: only real ones, `null` in JSON or "any": both.
    #[serde(default = "only_real", deserialize_with = "dry_run")]
    pub dry_run: Option<bool>,
    /// What happens.
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
    /// How long a delay takes.
    #[serde(default)]
    pub delay_ms: u64,
    /// Matching calls so far.
    #[serde(skip)]
    seen: u64,
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

/// What a fault does. Before and after are relative to the commit: for the calls that create
/// snapshots, the moment of the clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is done, and the error is answered.
    Error,
    /// It is done, and an error is answered all the same.
    ErrorAfter,
    /// It is done late.
    DelayBefore,
    /// It is done in time and answered late.
    DelayAfter,
    /// Nothing is done and nothing is answered; the connection stays open.
    Hang,
    /// It is done and never answered; the connection stays open.
    HangAfter,
    /// Nothing is done and the connection is closed.
    DropBefore,
    /// It is done and the connection is closed without an answer.
    DropAfter,
    /// It is done and the answer is cut off in the middle of the XML.
    Malformed,
    /// Nothing is done, and the answer is a 500 (or `status`) that is not EC2's XML.
    #[serde(rename = "http-500")]
    #[value(name = "http-500")]
    Http500,
    /// A volume that nobody knew of is attached just before: the set holds one snapshot more.
    ExtraVolume,
    /// The snapshots are made and end in the state `error`.
    SnapshotError,
}

impl Kind {
    /// Whether the fault strikes once the work is done.
    pub fn is_after(self) -> bool {
        matches!(
            self,
            Kind::ErrorAfter | Kind::DelayAfter | Kind::HangAfter | Kind::DropAfter | Kind::Malformed
        )
    }

    /// The kebab-case name, as the request log shows it.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

impl Fault {
    /// A fault that hits the real calls of one action.
    pub fn new(action: &str, kind: Kind) -> Self {
        Self {
            action: action.to_owned(),
            call: None,
            dry_run: only_real(),
            kind,
            code: None,
            message: None,
            status: None,
            delay_ms: 0,
            seen: 0,
        }
    }

    /// How long a delay takes.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    fn matches(&self, action: &str, dry_run: bool) -> bool {
        let named = self.action == action || (self.action == "*" && !action.starts_with("imds:"));
        named && self.dry_run.is_none_or(|wanted| wanted == dry_run)
    }
}

/// The faults that are set.
#[derive(Debug, Default)]
pub struct Faults {
    set: Vec<Fault>,
}

impl Faults {
    /// The faults of a scenario.
    pub fn new(set: &[Fault]) -> Self {
        Self { set: set.to_vec() }
    }

    /// Sets one more.
    pub fn add(&mut self, fault: Fault) {
        self.set.push(fault);
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.set.clear();
    }

    /// Those that can still hit.
    pub fn list(&self) -> &[Fault] {
        &self.set
    }

    /// Counts this request and takes what hits it, in the order in which the faults were set.
    pub fn strike(&mut self, action: &str, dry_run: bool) -> Vec<Fault> {
        let mut hits = Vec::new();
        self.set.retain_mut(|fault| {
            if !fault.matches(action, dry_run) {
                return true;
            }
            fault.seen += 1;
            match fault.call {
                None => {
                    hits.push(fault.clone());
                    true
                }
                Some(call) if fault.seen >= call => {
                    hits.push(fault.clone());
                    false
                }
                Some(_) => true,
            }
        });
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_call_is_hit_once() {
        let mut fault = Fault::new("CreateSnapshots", Kind::Hang);
        fault.call = Some(2);
        let mut faults = Faults::new(&[fault]);
        assert!(faults.strike("CreateSnapshots", false).is_empty());
        assert!(faults.strike("CreateSnapshot", false).is_empty());
        assert!(faults.strike("CreateSnapshots", true).is_empty(), "DryRun is not counted");
        assert_eq!(faults.strike("CreateSnapshots", false).len(), 1);
        assert!(faults.strike("CreateSnapshots", false).is_empty());
        assert!(faults.list().is_empty());
    }

    #[test]
    fn dry_run_chooses_its_requests() {
        let read = |text: &str| serde_json::from_str::<Fault>(text);
        let only_dry = read(r#"{"action":"*","kind":"drop-after","dry_run":true}"#).expect("json");
        let any = read(r#"{"action":"*","kind":"http-500","dry_run":null}"#).expect("json");
        let mut faults = Faults::new(&[only_dry, any]);
        assert_eq!(faults.strike("DescribeVolumes", true).len(), 2);
        assert_eq!(faults.strike("DescribeVolumes", false).len(), 1);
        assert!(faults.strike("imds:Get", false).is_empty(), "* is EC2 only");
        assert!(read(r#"{"action":"*","kind":"explode"}"#).is_err());
        assert!(read(r#"{"action":"*","kind":"hang","colour":1}"#).is_err());
    }
}
