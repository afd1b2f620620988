//! Real databases on the filesystems of a set: held, lost, restored. Needs root, and the servers of Debian's
//! packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod before;
mod found;
mod mysql;
mod postgresql;
mod redis;
mod redis_refusals;
mod shipped_hooks;
mod verify;
