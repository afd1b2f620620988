//! stillpoint: consistent EBS snapshots, taken from inside the instance.
//!
//! ```text
//! cli          argv → one subcommand
//! config       files, drop-ins, flags → settings; every value knows where it comes from
//! run          the order of a run on one screen, for every goal: take, rehearse, freeze for others
//!   ec2          IMDS identity; the warm, pinned connection; the few calls, behind two traits
//!   discover     mounts → filesystems → device stacks → disks → EBS volumes
//!   plan         facts + settings → Plan (pure; `plan` prints it, `snapshot` carries it out)
//!   doctor       findings with remedies; a run's preflight refuses by the same rules
//!   quiesce      applications: quiesced in order, released in reverse
//!   unmount      filesystems with the method `unmount`: who holds them, how they are mounted again
//!   group        one point in time over several hosts: what their runs say to each other
//!   window       prepare → freeze → one call → thaw; the watchdog
//! sets         the set as tags and as a record; which sets are kept (pure)
//! restore      back from a set: verify that its data keeps what its label promises
//! image        an AMI of a set, compared with its instance
//! report       text, JSON, journald
//! host         what this machine is, below a root that can be set; the only unsafe code
//! ```
//!
//! The order from the top down is the order of a run; nothing imports upwards but `report`, which knows what
//! it prints. Beside the flow: `build` (which build this is), `ids` (names of things), `consistency` (labels
//! and methods), `error` and `exit` (how a command ends), `clock` (the time and pauses, as a parameter),
//! `gate` (the log's queue, shut while anything is frozen), `interrupt` (signals), `path_encoding` (words
//! from outside as text).
//!
//! Two programs are made of this library: `stillpoint`, and `stillpoint-databases`, the process that talks
//! to one database.

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
pub mod group;
pub mod window;
pub mod sets;
pub mod restore;
pub mod image;
pub mod report;

pub mod build;
pub mod clock;
pub mod consistency;
pub mod error;
pub mod exit;
pub mod gate;
pub mod ids;
pub mod interrupt;
pub mod path_encoding;
