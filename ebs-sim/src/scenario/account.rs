//! `[[account]]`: other accounts, to share snapshots with.
//!
//! In: TOML. Out: their ids. Such an account has snapshots and nothing else.

use serde::{Deserialize, Serialize};

/// `[[account]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
}

/// Whether this is an account's id.
pub fn is_account(id: &str) -> bool {
    id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit())
}
