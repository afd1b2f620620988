//! The faults that are set, and which of them hit a request.
//!
//! In: faults, and each request's description. Out: the faults that hit it. A fault must never hit a request
//! that it does not name, and what is left to chance must fall alike for one seed.

use serde::Serialize;

use super::{Fault, Moment};
use crate::pattern::wildcard;

/// What a fault can know a request by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// `CreateSnapshots`, `imds:Get`, `connection` …
    pub action: &'a str,
    pub dry_run: bool,
    /// Of the metadata service, of `ebs:…` and of `rbin:…`: the path.
    pub path: &'a str,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether it is signed with the role's credentials.
    pub role: bool,
}

/// A fault that is set, as the control API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Armed {
    pub id: u64,
    /// How many requests matched.
    pub seen: u64,
    /// How many of them were hit.
    pub hits: u64,
    #[serde(flatten)]
    pub fault: Fault,
    #[serde(skip)]
    chance: fastrand::Rng,
}

/// A fault that hits a request.
#[derive(Debug, Clone)]
pub struct Hit {
    pub id: u64,
    pub fault: Fault,
}

#[derive(Debug, Default)]
pub struct Faults {
    set: Vec<Armed>,
    last: u64,
}

/// The service that an action's name begins with; nothing is EC2.
pub fn service(action: &str) -> &str {
    action.split_once(':').map_or("", |(service, _)| service)
}

impl Fault {
    fn matches(&self, moment: Moment, target: &Target<'_>) -> bool {
        use super::Kind;
        // A star alone is all of EC2's.
        self.kind.moment() == moment
            && service(&self.action) == service(target.action)
            && wildcard(&self.action, target.action)
            && (moment == Moment::Connection || self.dry_run.is_none_or(|wanted| wanted == target.dry_run))
            && self.path.as_ref().is_none_or(|pattern| wildcard(pattern, target.path))
            && (target.tls || !matches!(self.kind, Kind::TlsStall | Kind::TlsStallMid))
            && (target.role || self.kind != Kind::CredentialsExpired)
            && self.kind.actions().is_none_or(|actions| actions.contains(&target.action))
    }
}

impl Armed {
    /// Counts a matching request, and says whether it is hit.
    fn strike(&mut self) -> bool {
        self.seen += 1;
        let fault = &self.fault;
        let due = fault.call.is_none_or(|call| self.seen >= call);
        let hit = due && fault.probability.is_none_or(|chance| self.chance.f64() < chance);
        self.hits += u64::from(hit);
        hit
    }

    /// Whether it has hit as often as it was to. One `call` means that call.
    fn is_spent(&self) -> bool {
        let chosen = self.fault.call.filter(|_| self.fault.probability.is_none()).map(|_| 1);
        self.fault.times.or(chosen).is_some_and(|times| self.hits >= times)
    }
}

impl Faults {
    /// The faults of a scenario.
    pub fn new(set: &[Fault]) -> Self {
        let mut faults = Self::default();
        for fault in set {
            faults.add(fault.clone());
        }
        faults
    }

    /// Sets one more, and answers its number.
    pub fn add(&mut self, fault: Fault) -> u64 {
        self.last += 1;
        let chance = fastrand::Rng::with_seed(fault.seed);
        self.set.push(Armed { id: self.last, seen: 0, hits: 0, fault, chance });
        self.last
    }

    /// Forgets one, and says whether it was there.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.set.len();
        self.set.retain(|armed| armed.id != id);
        self.set.len() < before
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.set.clear();
    }

    /// Whether a fault ever had this number; one that has struck for the last time did.
    pub fn knows(&self, id: u64) -> bool {
        (1..=self.last).contains(&id)
    }

    /// Those that can still hit.
    pub fn list(&self) -> &[Armed] {
        &self.set
    }

    /// Counts this request and takes what hits it, in the order in which the faults were set.
    pub fn strike(&mut self, moment: Moment, target: &Target<'_>) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.set.retain_mut(|armed| {
            if armed.fault.matches(moment, target) && armed.strike() {
                hits.push(Hit { id: armed.id, fault: armed.fault.clone() });
            }
            !armed.is_spent()
        });
        hits
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
