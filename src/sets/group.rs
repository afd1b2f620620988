//! The group of a set: in its record, and in its tags.
//!
//! In: what a run has learned of the other members. Out: tags, and a part of the record. Must never: say `group` of a
//! set before all members have said that their freeze held.

use serde::{Deserialize, Serialize};

use super::spread::Tag;
use crate::config::settings::GroupSettings;
use crate::group::Epoch;
pub use crate::group::Member;

/// The tag with the group's name.
pub(crate) const GROUP_TAG: &str = "stillpoint:group";
/// The tag with the epoch: the sets of one coming together have the same.
pub(crate) const EPOCH_TAG: &str = "stillpoint:epoch";
/// The tag that says whether the point in time is the group's.
pub(crate) const INSTANT_TAG: &str = "stillpoint:instant";

/// Whose point in time a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instant {
    /// That of all members: the sets of this epoch show one instant.
    Group,
    /// This host's alone.
    Host,
}

impl Instant {
    /// As in tags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Host => "host",
        }
    }
}

/// What the record says of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupRecord {
    /// Its name.
    pub name: String,
    /// This host's name in it.
    pub(crate) member: String,
    /// None where not all members came.
    pub epoch: Option<Epoch>,
    /// None where nothing was taken.
    pub instant: Option<Instant>,
    /// Why it is not the group's.
    pub reason: Option<String>,
    /// Those that came together, with what each had said last.
    pub members: Vec<Member>,
}

/// The tags of the create call. The epoch is not known yet.
pub(super) fn on_create(settings: &GroupSettings) -> [Tag; 2] {
    let epoch = Epoch::none().as_str().to_owned();
    [(GROUP_TAG.to_owned(), settings.name.clone()), (EPOCH_TAG.to_owned(), epoch)]
}

/// Puts the epoch into the tags of a request.
pub(crate) fn tag_epoch(tags: &mut [Tag], epoch: &Epoch) {
    if let Some((_, value)) = tags.iter_mut().find(|(key, _)| key == EPOCH_TAG) {
        epoch.as_str().clone_into(value);
    }
}
