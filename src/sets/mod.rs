//! Snapshot sets: how one is described in tags and in a record file.
//!
//! In: a plan, a verdict, snapshots. Out: tags and [`record::SetRecord`]. Must never: give a higher label
//! than the verdict's.

pub mod record;
pub mod tags;
