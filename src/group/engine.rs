//! Where the members of a group meet: entries that each member may write and all may read.
//!
//! In: a member's entry, as bytes. Out: everybody's entries. Must never: be trusted for more than that what is read
//! was written before; nor block anybody: every call here ends by itself or can be dropped at any moment.

use std::fmt;
use std::pin::Pin;

/// What a call of an engine returns once it is waited for.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The version of an entry: grows with every write. 0: there is no such entry.
pub type Version = i64;

/// Why the engine did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum EngineError {
    /// Nothing is known of what became of the call. It may work when it is repeated.
    #[error("etcd cannot be reached: {0}")]
    Unreachable(String),
    #[error("etcd refuses: {0}")]
    Denied(String),
    /// It has answered something else than what its documentation says, or refuses what was asked for.
    #[error("etcd: {0}")]
    Answer(String),
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The member whose entry it is.
    pub member: String,
    /// Of its last write.
    pub version: Version,
    /// None: the entry was removed.
    pub value: Option<Vec<u8>>,
}

/// All entries of a group, at one revision of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// No write that came later is in it.
    pub revision: Version,
    /// One for each member that has an entry.
    pub entries: Vec<Raw>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The entry is as it was to be; with everybody's.
    Done(Read),
    /// The entry has another version than the one that was to be replaced.
    Other(Read),
}

/// Something that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// One entry.
    Entry(Raw),
    /// It is time to read everything.
    Look,
}

/// An engine, for one member of one group.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Can it be reached, and may this user do what a run does? Changes nothing. Out: what was found, in words.
    fn probe(&self) -> Doing<'_, Result<String, EngineError>>;

    /// Opens every connection that may be needed while nothing can be opened.
    fn warm(&self) -> Doing<'_, Result<(), EngineError>>;

    /// Every entry.
    fn read(&self) -> Doing<'_, Result<Read, EngineError>>;

    /// Replaces this member's entry of this version. It lasts for as long as this process keeps it alive.
    fn write(&self, value: Vec<u8>, replaces: Version) -> Doing<'_, Result<Written, EngineError>>;

    /// Returns when something may have changed, and every now and then.
    fn changed(&self) -> Doing<'_, Heard>;

    /// Keeps this member's entry alive no longer: it is gone after the time of its lease.
    fn let_go(&self);

    /// Its name and where it is, for people.
    fn describe(&self) -> String;
}
