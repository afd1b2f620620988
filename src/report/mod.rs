//! What a person and a program are told.
//!
//! In: values of the flow. Out: text and JSON, as strings. Must never: print, or decide anything.

pub mod hold;
pub mod log;
pub mod plan;
pub mod set;
pub mod status;
