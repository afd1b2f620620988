//! What needs neither root nor a real filesystem: rules on made hosts, the unit files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod devices;
mod discover;
mod doctor_rules;
mod made_window;
mod missing;
mod ordinary_user;
mod plan;
mod plan_call;
mod plan_promises;
mod plan_rules;
mod programs;
mod run;
mod schema;
mod systemd;
mod unread_mounts;
