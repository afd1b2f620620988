//! What a run may have frozen.
//!
//! In: a plan; what a journal and its page say. Out: filesystems, none of them certain. Must never: name one
//! that the page says is thawed.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::DevNo;
use crate::plan::{Method, Plan, PlannedFilesystem};
use crate::window::page::Left;

/// A filesystem that the run may have frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenMount {
    /// mountinfo's `major:minor` of its superblock.
    pub dev: DevNo,
    /// The path by which the run opened it.
    pub mount_point: PathBuf,
    /// Its word on the page; none in a journal of a build that did not say.
    #[serde(default)]
    pub word: Option<usize>,
}

/// What a run may have frozen, as far as its journal and its page say.
#[derive(Debug, Clone)]
pub(crate) struct MayBeFrozen {
    pub(super) page: Option<Arc<Left>>,
    pub(super) mounts: Vec<FrozenMount>,
}

impl MayBeFrozen {
    /// The filesystems. None of them is certain: only a FITHAW tells.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &FrozenMount> {
        self.mounts.iter().filter(|m| self.still(m))
    }

    /// May this one still be? Asked again before each FITHAW, because the watchdog may be thawing it.
    pub(crate) fn still(&self, mount: &FrozenMount) -> bool {
        let (Some(page), Some(word)) = (&self.page, mount.word) else { return true };
        page.may_be_frozen(word)
    }

    /// Notes that it is thawed.
    pub(crate) fn thawed(&self, mount: &FrozenMount) {
        if let (Some(page), Some(word)) = (&self.page, mount.word) {
            page.thawed(word);
        }
    }
}

/// The filesystems that this plan will freeze, in the order in which the window gives each a word on the
/// page.
#[must_use]
pub(crate) fn will_freeze(plan: &Plan) -> Vec<FrozenMount> {
    let frozen = plan.filesystems.iter().filter(|f| f.method == Method::Freeze);
    let mount = |(word, f): (usize, &PlannedFilesystem)| FrozenMount {
        dev: f.dev,
        mount_point: f.mount_point.clone(),
        word: Some(word),
    };
    frozen.enumerate().map(mount).collect()
}
