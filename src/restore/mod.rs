//! Back from a set: is what it promises really in its snapshots?
//!
//! ```text
//! set + layout (from tags alone) ─▶ verify ─▶ Report: sound, faulty, not looked at
//! ```
//!
//! In: a set as it was read from tags, the EBS direct APIs. Out: reports. Must never: write to a snapshot or a volume,
//! or believe a tag where the data can be asked.

pub mod verify;
