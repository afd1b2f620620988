//! How EC2 is reached, and how much of it is remembered.
//!
//! In: two tables of the scenario. Out: their values. A default must never change how a command without
//! options reaches EC2.

use serde::{Deserialize, Serialize};

/// `[endpoint]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoint {
    /// Whether commands are led to the TLS port.
    pub tls: bool,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How many requests are remembered.
    pub keep: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { keep: 10_000 }
    }
}
