//! A token bucket of the scenario.
//!
//! In: TOML. Out: how many requests of an action pass. A bucket that never lets anything pass must never be
//! taken.

use serde::{Deserialize, Serialize};

/// `[limits.bucket.ACTION]`: how many requests at once, and how many more each second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Tokens when it is full.
    pub size: f64,
    /// Tokens that come back each second.
    pub refill: f64,
}

impl Bucket {
    pub fn makes_sense(&self) -> bool {
        self.size >= 1.0 && self.refill >= 0.0 && (self.size + self.refill).is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_something_pass() {
        let makes_sense = |size, refill| Bucket { size, refill }.makes_sense();
        assert!(makes_sense(1.0, 0.0) && makes_sense(100.0, 0.5));
        assert!(!makes_sense(0.5, 1.0) && !makes_sense(1.0, -1.0) && !makes_sense(f64::NAN, 1.0));
    }
}
