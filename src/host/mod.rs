//! What this machine is, below a root folder that can be set.
//!
//! ```text
//! process    /proc/PID: is it there, is it still the same one
//! fdinfo     /proc/PID/fdinfo: the mount of an open file, and how it was opened
//! file       files that are replaced as a whole, folders for root alone
//! lock       a file that one process at a time holds
//! ```
//!
//! In: files below a root, which is `/` but in tests; open file descriptors. Out: facts and handles. Must never: judge what it finds,
//! or import a part of the flow (config, discover, plan, quiesce, window, run, ec2): all of them stand on this.

pub mod fdinfo;
pub mod file;
pub mod lock;
pub mod process;
