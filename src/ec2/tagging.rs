//! May snapshots be tagged once they exist? A run labels its set by CreateTags after the create call, which needs
//! a permission that tagging in the create call does not: a policy with the condition `ec2:CreateAction` allows the
//! one and not the other.
//!
//! ```text
//! DryRun of CreateTags on a snapshot that nobody has  ─→ allowed
//!    denied: a policy may be for snapshots with stillpoint's tags only, which that one cannot have
//!    └→ the same on a snapshot of stillpoint's         ─→ allowed, or denied for certain
//!       there is none yet                              ─→ denied, as far as can be asked
//! ```
//!
//! In: EC2, and the volumes whose snapshots would be tagged. Out: a [`Tagging`]. Must never: tag anything.

use super::{Describe, Ec2Error};
use crate::ids::VolumeId;

/// Whether snapshots may be tagged once they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tagging {
    /// They may.
    Allowed,
    /// EC2 looked for the snapshot first, so its answer does not say.
    NotSaid,
    /// They may not. `certain`: not even one that stillpoint has made.
    Denied {
        /// EC2's answer.
        error: Ec2Error,
        /// It was asked about a snapshot of stillpoint's.
        certain: bool,
    },
}

/// What EC2 says to one DryRun of CreateTags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It would have been done.
    Allowed,
    /// There is no such snapshot.
    NoSnapshot,
}

/// Asks.
///
/// # Errors
/// When EC2 cannot be asked. A denial is no error.
pub async fn tagging<E: Describe>(ec2: &E, volumes: &[VolumeId]) -> Result<Tagging, Ec2Error> {
    let denial = match ec2.may_tag(None).await {
        Ok(said) => return Ok(of(said)),
        Err(error) if error.denied() => error,
        Err(error) => return Err(error),
    };
    let uncertain = |error| Ok(Tagging::Denied { error, certain: false });
    let Ok(Some(own)) = ec2.one_of_ours(volumes).await else { return uncertain(denial) };
    match ec2.may_tag(Some(&own)).await {
        // It was deleted a moment ago.
        Ok(Said::NoSnapshot) => uncertain(denial),
        Ok(said) => Ok(of(said)),
        Err(error) if error.denied() => Ok(Tagging::Denied { error, certain: true }),
        Err(error) => Err(error),
    }
}

fn of(said: Said) -> Tagging {
    match said {
        Said::Allowed => Tagging::Allowed,
        Said::NoSnapshot => Tagging::NotSaid,
    }
}
