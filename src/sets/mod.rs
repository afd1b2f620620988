//! Snapshot sets: how one is described in tags and in a record file, and which are kept.
//!
//! In: a plan, a verdict, snapshots; the sets of a group. Out: tags and [`record::SetRecord`]; a
//! [`retention::PrunePlan`]. Must never: give a higher label than the verdict's; let a set go that is not this
//! plan's.

pub mod before;
pub mod choose;
pub mod clones;
pub mod copy;
pub mod facts;
pub mod find;
pub mod group;
pub mod follow;
pub mod guard;
pub mod holds;
pub mod layout;
pub mod ledger;
pub mod lines;
pub mod lock;
pub mod prune;
pub mod read;
pub mod record;
pub mod recorded;
pub mod remove;
pub mod retention;
pub mod set;
pub mod share;
pub mod sizes;
mod spread;
pub mod tags;
pub mod tier;
pub mod wait;
