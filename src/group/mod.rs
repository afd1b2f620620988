//! A group: several hosts, each with its own run, and one point in time over all of them.
//!
//! ```text
//! entry     what a member says of itself in the engine
//! view      what all members have said, and what follows from it (pure)
//! session   one member's way through the phases
//! engine    where it is said: a few calls, behind one trait
//!   etcd      etcd v3, by its JSON gateway
//! ```
//!
//! The phases of a member, each said in the engine and each waited for from all others:
//!
//! ```text
//! here ─▶ ready ─▶ set ─▶ frozen ─▶ answered ─▶ held        left: from any of them, with a reason
//! ```
//!
//! docs/group.md has the argument why a set whose members have all said `held` shows one instant. In short: a
//! request is sent after "frozen" of every member was read; a member thaws, and says `held`, only after it has read
//! "answered" of every member. A message is read after it was written: that, and that no two runs have one id, is
//! all that the argument rests on. No clock, lease, or order of the engine's is a part of it.
//!
//! In: the settings of a group, and a run. Out: whether all members have said what they had to. Must never: keep
//! anything frozen (the window ends by itself, and drops whatever is waited for here), or open a connection, a file
//! or a name while the gate is shut.

pub mod engine;
mod entry;
pub mod etcd;
mod session;
mod view;

pub use self::entry::{Entry, Epoch, Phase};
pub use self::session::{Member, Session};
pub use self::view::{Barrier, Broken, View};
