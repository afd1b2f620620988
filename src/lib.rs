//! stillpoint: consistent EBS snapshots, taken from inside the instance.

pub mod config;
pub mod discover;
pub mod ids;
pub mod plan;
pub mod quiesce;
