//! What filesystems of a set lie on besides disks: md arrays, LUKS, LVM, several disks of one btrfs.
//!
//! ```text
//! planned.rs   words.rs: the stack in the set's tags ─▶ StackPlan, or a refusal
//! up.rs        disks ─▶ what is each a part of (verify/part.rs) ─▶ md.rs │ luks.rs │ lvm.rs ─▶ what is that a part of …
//!                    ─▶ the device of each filesystem; btrfs.rs: several of one; thin.rs: what is asked of a pool
//! down.rs      topmost first, as the kernel says what lies on what (look.rs)
//! ```
//!
//! The disks are hidden from udev, LVM and md before they are attached (hide.rs), and what is put together on them is until
//! it has identities of its own. Each program sees the disks of this restore alone: mdadm and cryptsetup are given theirs,
//! LVM has a configuration of its own that lets it read no others, btrfstune has a /dev without them.
//!
//! In: a plan, disks. Out: devices. Must never: assemble an array of which a member is missing, let LVM read a disk of
//! somebody else, or touch what is not on the disks of this restore.

pub mod apart;
mod btrfs;
mod down;
pub mod keys;
mod look;
mod luks;
mod lvm;
mod md;
pub mod planned;
mod thin;
mod tool;
mod up;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::btrfs::{renew, seeing_only};
pub(super) use self::down::{down, remove_unfinished};
pub use self::keys::Keys;
pub(super) use self::look::on;
pub(super) use self::lvm::forget;
pub use self::planned::StackPlan;
pub(super) use self::up::{Standing, Up};

/// What a host remembers of what it has put together: each before it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Arrays, by where their members are.
    #[serde(default)]
    pub arrays: BTreeMap<String, NotedArray>,
    /// LUKS, by where it is: its new UUID.
    #[serde(default)]
    pub luks: BTreeMap<String, String>,
    /// Groups that get their new names: the UUIDs that their physical volumes had.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Where each filesystem of the plan was found. Noted before its UUID is changed, by which it could not be found again.
    #[serde(default)]
    pub found: BTreeMap<usize, String>,
}

/// An array that is put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedArray {
    /// Its number: /dev/mdN.
    pub number: u32,
    /// The UUID that it gets.
    pub uuid: String,
}

impl StackPlan {
    /// Are the programs here that it needs?
    ///
    /// # Errors
    /// What to install.
    pub fn has_tools(&self) -> Result<(), String> {
        self.tools().into_iter().try_for_each(|(name, package)| tool::has(name, package))
    }
}
