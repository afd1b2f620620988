//! stillpoint: consistent EBS snapshots, taken from inside the instance.
//!
//! ```text
//! cli        argv → one subcommand
//! config     files, drop-ins, flags → settings; every value with its origin
//! ec2        IMDS identity; the warm, pinned connection; the few calls, behind one trait
//! host       what this machine is, below a root that can be set: /proc, /sys, files, locks, the kernel
//! discover   mounts → filesystems → device stacks → disks → EBS volumes
//! plan       facts + settings → Plan (pure; `plan` prints it, `snapshot` carries it out)
//! doctor     findings with remedies; a run's preflight refuses by the same rules
//! run        the order of a run: preflight, quiesce, window, release, verdict, settle
//!   quiesce    applications: held in order, let go in reverse; a database by a process of its own
//!   unmount    filesystems with the method `unmount`: what holds them, and how they are mounted again
//!   window     prepare → freeze → one call → thaw; watchdog
//! sets       the set as tags and as a record
//! report     text, JSON, journald
//! ```
//! Beside the flow: `ids` (names of things), `consistency` (what a set is worth), `error` and `exit` (how a command ends), `gate` (no log while frozen),
//! `interrupt` (signals), `path_encoding` (paths as text).

pub mod cli;
pub mod config;
pub mod ec2;
pub mod host;
pub mod discover;
pub mod plan;
pub mod doctor;
pub mod run;
pub mod quiesce;
pub mod unmount;
pub mod window;
pub mod sets;
pub mod report;

pub mod clock;
pub mod consistency;
pub mod error;
pub mod exit;
pub mod gate;
pub mod ids;
pub mod interrupt;
pub mod path_encoding;
