//! The real program over real filesystems that really freeze, in a simulated EC2. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod apart;
mod aws;
mod before;
mod busy;
mod clone;
mod cloned;
mod completion;
mod containers;
mod copies;
mod copy_out;
mod death;
mod devices;
mod doctor;
mod expedited;
mod etcd;
mod faults;
mod fleet;
mod foreign_freeze;
mod group;
mod hardship;
mod hook_start;
mod hooks;
mod hosts;
mod idle;
mod iam_policy;
mod images;
mod images_life;
mod imds;
mod in_place;
mod in_place_back;
mod in_place_units;
mod journal;
mod json;
mod lock;
mod log;
mod metrics;
mod missing;
mod mounts;
mod notify;
mod orchestrated;
mod ordinary_user;
mod proof;
mod refusals;
mod regions;
mod repeats;
mod rehearse;
mod rescue;
mod rescue_tables;
mod service;
mod sessions;
mod sets;
mod share;
mod sizes;
mod snapshot;
mod status;
mod stuck;
mod tagging;
mod tier;
mod units;
mod unmount;
mod upgrade;
mod restore;
mod restore_for;
mod restore_size;
mod root;
mod verify;
mod verify_apart;
mod verify_checks;
mod verify_chosen;
mod verify_large;
mod verify_ledger;
mod verify_luks;
mod verify_mounted;
mod verify_restored;
mod waiting;
mod warm;
mod window;
mod window_strace;
