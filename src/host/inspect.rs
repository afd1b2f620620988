//! What only a device or a path can tell, and that may hang: asked of a process that may be left behind.
//!
//! ```text
//! helper    the process: started, asked, and left behind when it does not answer in time
//! answer    how a question is answered, in that process
//! automount the first access to one
//! places    a path that may be covered by now: every superblock that it may mean
//! ```
//!
//! A disk that does not answer keeps its reader in state D, and a process with a thread in state D cannot
//! end. So the reader is a process of its own, this binary started again.
//!
//! In: [`Question`]s. Out: an [`Answer`] to each, or none within the limit. Must never: open a device or
//! follow a path in the calling process, or put a question again that was put before ([`Answers`] has them).

mod answer;
mod automount;
mod helper;
mod places;

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use answer::{node, superblock};
pub use helper::{ARGUMENT, Helper, main};

use super::ondisk::Role;
use crate::ids::DevNo;
use crate::path_encoding::bytes;

/// What is to be found out. Two equal questions are about the same mount or the same file, so the first
/// answer holds for both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Question {
    /// What a mounted filesystem's superblock says.
    Superblock {
        /// The device that mountinfo names.
        dev: DevNo,
        /// Its kernel name.
        name: String,
        /// Its type.
        fstype: String,
        /// What it was mounted from: a node of the device, perhaps.
        #[serde(with = "bytes")]
        source: PathBuf,
        /// One of its mounts.
        mount: u32,
    },
    /// Which filesystem is on a device, mounted or not.
    Identity {
        /// The device.
        dev: DevNo,
        /// Its kernel name.
        name: String,
    },
    /// Which btrfs this is.
    Btrfs {
        /// The number in mountinfo.
        dev: DevNo,
        /// One of its mounts.
        mount: u32,
        /// And where that is.
        #[serde(with = "bytes")]
        at: PathBuf,
    },
    /// What is below a loop device.
    Loop {
        /// The loop device.
        dev: DevNo,
        /// Its kernel name.
        name: String,
        /// The path that its file had when it was attached.
        #[serde(with = "bytes")]
        file: PathBuf,
        /// Counts what was attached to it (`diskseq` in sysfs), where the kernel does.
        attached: String,
    },
    /// Which device a node is, such as the one in XFS's option `logdev`.
    Node {
        /// Its path.
        #[serde(with = "bytes")]
        path: PathBuf,
    },
    /// Which superblock the writes of an overlay go to.
    Upper {
        /// The overlay.
        dev: DevNo,
        /// One of its mounts.
        mount: u32,
        /// And where that is.
        #[serde(with = "bytes")]
        at: PathBuf,
        /// Its option `upperdir`.
        #[serde(with = "bytes")]
        upper: PathBuf,
    },
    /// Mounts what an automount stands for: the one question that changes something. It is put once, and its
    /// answer is not kept.
    Automount {
        /// The automount's own mount.
        mount: u32,
        /// And where that is.
        #[serde(with = "bytes")]
        at: PathBuf,
    },
    /// Which superblock a swap file is on.
    Swap {
        /// Its path when it was taken into use.
        #[serde(with = "bytes")]
        path: PathBuf,
        /// How much of it is used for swap, in bytes.
        bytes: u64,
    },
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Question::Superblock`].
    Superblock {
        /// The filesystem's own UUID.
        uuid: Option<String>,
        /// The devices that it has beside its own.
        beside: Vec<(Role, DevNo)>,
        /// Why these may not be all.
        unknown: Option<String>,
    },
    /// Of [`Question::Identity`]: its type and its UUID; none where there is no filesystem that is known here.
    Identity(Option<(String, String)>),
    /// Of [`Question::Btrfs`]: its UUID.
    Btrfs(String),
    /// Of [`Question::Loop`].
    Loop(Under),
    /// Of [`Question::Node`].
    Node {
        /// The device.
        dev: DevNo,
        /// Has somebody, such as a filesystem, claimed it? None where that cannot be told.
        held: Option<bool>,
    },
    /// Of [`Question::Upper`] and [`Question::Swap`]: the superblocks that it may be on. One, in general.
    On(Vec<DevNo>),
    /// Of [`Question::Automount`]: something is mounted there.
    Mounted,
    /// It cannot be found out, and why.
    Failed(String),
    /// It cannot be found out by an ordinary user, and why; by root it might.
    NeedsRoot(String),
}

/// What is below a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Under {
    /// A file on this superblock: mountinfo's number, or the number of a device whose filesystem is not
    /// mounted here.
    File(DevNo),
    /// A block device.
    Device(DevNo),
    /// A file on a superblock that cannot be told.
    Unknown,
}

/// Who answers.
pub trait Inspect: Send + Sync + std::fmt::Debug {
    /// An answer to each question, in their order; none where there was none in time.
    fn ask(&self, questions: &[Question]) -> Vec<Option<Answer>>;
}

/// Every answer so far. That there was none is remembered, too: what does not answer is not asked again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(HashMap<Question, Option<Answer>>);

impl Answers {
    /// Puts those of the questions that were not put before.
    pub fn ask(&mut self, who: &dyn Inspect, questions: Vec<Question>) {
        let mut new: Vec<Question> = Vec::new();
        for question in questions {
            if !self.0.contains_key(&question) && !new.contains(&question) {
                new.push(question);
            }
        }
        if new.is_empty() {
            return;
        }
        let mut answers = who.ask(&new).into_iter();
        self.0.extend(new.into_iter().map(|q| (q, answers.next().flatten())));
    }

    /// The questions that only root can have answered.
    pub fn needing_root(&self) -> impl Iterator<Item = &Question> {
        let needs = |(q, a): (_, &Option<Answer>)| matches!(a, Some(Answer::NeedsRoot(_))).then_some(q);
        self.0.iter().filter_map(needs)
    }

    /// The answer to a question that was put; none when there was none.
    #[must_use]
    pub fn to(&self, question: &Question) -> Option<&Answer> {
        self.0.get(question)?.as_ref()
    }
}
