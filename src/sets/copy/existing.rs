//! What is at the destination already: the whole copy, a part of one that goes on, or what is left of one that failed.
//!
//! In: every snapshot there that names the set as its source. Out: [`Existing`]. Pure. Must never: go on with a copy
//! that was asked for with another key, or that has failed: what ended in `error` stays so.

use std::collections::BTreeMap;

use super::source::{KEY_TAG, Source};
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::ids::RunId;
use crate::sets::read::Gathered;
use crate::sets::set::{SetState, SnapshotSet};

/// What there is of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The whole copy, completed.
    pub whole: Option<SnapshotSet>,
    /// One that goes on: pending, or not asked for in full.
    pub started: Option<SnapshotSet>,
    /// What failed, or cannot be used: the rules of the plan's copies let it go.
    pub lost: Vec<SnapshotSet>,
}

/// Looks through the snapshots of a Region that name this source. `key`: with which key a copy was asked for.
#[must_use]
pub fn existing(source: &Source, region: &str, found: &[TaggedSnapshot], key: Option<&str>) -> Existing {
    let mut keys: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    let mut gathered = Gathered::of(region);
    for snapshot in found {
        if let Some(run) = snapshot.tag(RUN_TAG) {
            keys.entry(run).or_default().push(snapshot.tag(KEY_TAG));
        }
        gathered.add(snapshot.clone());
    }
    let (sets, _) = gathered.sets();
    let of = &source.set;
    let is_copy = |s: &SnapshotSet| {
        s.instance == of.instance
            && s.copy_of.as_ref().is_some_and(|c| c.id == of.id && c.region == of.region)
    };
    let asked_so = |id: &RunId| keys.get(id.as_str()).is_some_and(|all| all.iter().all(|k| *k == key));
    let mut existing = Existing { whole: None, started: None, lost: Vec::new() };
    // The newest is first.
    for set in sets.into_iter().filter(is_copy) {
        let good = set.doubts.is_empty() && !set.deleting && !set.is_newer();
        match set.state() {
            SetState::Completed if good => {
                if asked_so(&set.id) {
                    existing.whole.get_or_insert(set);
                }
            }
            SetState::Pending | SetState::Partial if good => {
                if asked_so(&set.id) {
                    existing.started.get_or_insert(set);
                }
            }
            _ => existing.lost.push(set),
        }
    }
    existing
}
