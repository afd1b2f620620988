//! stillpoint: consistent EBS snapshots, taken from inside the instance.

pub mod cli;
pub mod config;
pub mod discover;
pub mod ec2;
pub mod error;
pub mod exit;
pub mod gate;
pub mod ids;
pub mod interrupt;
pub mod plan;
pub mod quiesce;
pub mod report;
pub mod run;
pub mod sets;
pub mod window;
