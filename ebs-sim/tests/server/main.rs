//! The real `ebs-sim` over real loop devices, as root; each module is a topic.
//!
//! A promise has its negative control in the same test: an oracle that cannot fail proves nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a panic is how a test fails")]

mod support;

mod accounts;
mod bin;
mod copies;
mod direct;
mod faults;
mod host;
mod images;
mod imds;
mod large;
mod late;
mod launch;
mod policy;
mod roots;
mod sim;
mod sizes;
mod snapshots;
mod state;
mod volumes;
mod wire;
