//! A set is copied to a Region: each of its snapshots once, with the tags that say what it is.
//!
//! ```text
//! source     may it be copied, and which tags do its copies get   source.rs (pure)
//! existing   is it there already, or a part of it                 existing.rs (pure)
//! forecast   incremental or full, how long                        forecast.rs (pure)
//! make       ask, at most 20 at once; follow each to its end      make.rs
//! ```
//!
//! In: a set, a destination. Out: a set of its own there, that says what it is a copy of. Must never: copy what
//! cannot be restored from the copy alone, make a second copy where the first may exist, or call a copy good that
//! EC2 has not completed.

pub mod existing;
pub mod forecast;
pub mod make;
pub mod source;
#[cfg(test)]
mod tests;

use crate::ec2::copies::Encryption;

/// How copies are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct How {
    /// With which key: what is sent.
    pub encryption: Encryption,
    /// With which key, as it was asked for: the tag `stillpoint:copy-key`. None where nothing was asked for.
    pub asked: Option<String>,
    /// Within how many minutes EC2 has to be done; none for a copy without such a promise.
    pub minutes: Option<u16>,
    /// What the account does at the destination where nothing is asked for.
    pub by_default: ByDefault,
}

/// Does an account encrypt what is new in a Region, whoever makes it?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByDefault {
    /// It was not asked, or did not say.
    NotKnown,
    /// It does not.
    Off,
    /// It does, with this key.
    On(String),
}

/// How EC2 names its own key for EBS where an account has chosen no other.
pub const AWS_KEY: &str = "alias/aws/ebs";
/// What [`How::asked`] is for the account's default key.
pub const DEFAULT_KEY: &str = "default";
