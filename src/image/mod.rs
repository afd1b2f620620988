//! An image (AMI) of a set that has the root device.
//!
//! ```text
//! set + layout + the instance ─▶ plan.rs ─▶ ImagePlan ─▶ make.rs: look for the name, register, wait
//!                                name.rs                 compare.rs: as the instance? else told, or taken back
//! this host ─▶ boot.rs: would it boot?
//! images of the account ─▶ ours.rs ─▶ which set each is of, and whether that is true
//! ```
//!
//! In: a set as it was read from tags, its instance as EC2 shows it. Out: plans, images. Must never: register what would
//! not boot, or costs something else than its instance, without saying so; or take an image for ours by its tag alone.

pub mod boot;
pub mod compare;
pub mod make;
pub mod name;
pub mod ours;
pub mod plan;
