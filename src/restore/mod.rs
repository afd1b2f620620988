//! Back from a set: volumes and mounted filesystems from its tags alone; and whether its data is what it promises.
//!
//! ```text
//! set + layout (from tags alone) ─┬▶ plan.rs ─▶ RestorePlan ─▶ carry_out.rs: make, hide, attach, stack/, identity, mount
//!                                 │  options.rs, size.rs       └▶ undo.rs: unmount, detach, delete
//!                                 │                                record.rs: what this host remembers of it
//!                                 ├▶ in_place/ ─▶ the same volumes, attached and mounted where the old ones were
//!                                 ├▶ root/ ─▶ EC2 replaces the root, and reboots
//!                                 ├▶ warm/ ─▶ what was restored is read, so that it is there when it is used
//!                                 └▶ verify/ ─▶ Report: sound, faulty, not looked at
//! ```
//!
//! In: a set as it was read from tags, EC2, the host. Out: plans, mounts, reports. Must never: write to a snapshot,
//! touch what the set was taken of, or believe a tag where the data can be asked.

pub mod before_start;
pub mod carry_out;
pub mod clones;
pub mod copy_out;
mod device_names;
pub mod disks;
pub mod grow;
mod hide;
pub mod identity;
pub mod in_place;
mod kept;
mod links;
pub mod make;
pub mod mounts;
pub mod options;
pub mod plan;
pub mod record;
pub mod root;
pub mod size;
pub mod stack;
pub mod undo;
pub mod verify;
pub mod warm;
