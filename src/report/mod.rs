//! The output for people and for programs.
//!
//! In: values of the flow. Out: text and JSON, as strings. Must never: print, or decide anything.

pub mod clone;
pub(crate) mod change;
pub(crate) mod copy;
pub mod databases;
pub mod event;
pub mod findings;
pub mod held_freeze;
pub(crate) mod image;
pub mod log;
pub mod metrics;
pub(crate) mod page;
pub mod plan;
pub mod rehearsal;
pub(crate) mod restore;
pub mod set;
pub(crate) mod sets;
pub mod status;
