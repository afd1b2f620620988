//! Which build this is.
//!
//! In: the version, and a hash of the sources (the build script makes it). Out: [`ID`]. Must never: be the
//! same for two builds whose processes may not understand each other.

/// The version and the sources of this build. Processes that belong together tell it to each other first: a
/// package may be upgraded while a run goes on.
pub const ID: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("STILLPOINT_SOURCES"));
