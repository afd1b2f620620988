//! What is looked at before anything is changed at the snapshots of a set.
//!
//! In: a set as its tags say, EC2. Out: a [`Refusal`], or its members as EC2 has them now. Must never: let a change
//! through to a snapshot whose tags do not say clearly that it is of this set.

use super::find::snapshots;
use super::set::SnapshotSet;
use crate::ec2::keep::{Keep, Wanted};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::SnapshotId;

/// Why a set is not changed, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What stands against it.
    pub what: String,
    /// The way out.
    pub hint: &'static str,
}

impl Refusal {
    pub(in crate::sets) fn new(what: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), hint }
    }
}

/// A set that nothing is changed of: it is not clear what is of it, or somebody removes it.
#[must_use]
pub fn unclear(set: &SnapshotSet) -> Option<Refusal> {
    doubtful(set).or_else(|| {
        let what = format!("{} is being removed", set.id);
        set.deleting.then(|| Refusal::new(what, "name another set: `stillpoint list` shows them"))
    })
}

/// A set of which it is not clear what is of it.
#[must_use]
pub fn doubtful(set: &SnapshotSet) -> Option<Refusal> {
    if let Some(doubt) = set.doubts.first() {
        let what = format!("{} is doubtful: {doubt}", set.id);
        return Some(Refusal::new(what, "`stillpoint show` says what does not agree"));
    }
    let what =
        format!("the tags of {} have version {}, which is newer than this program", set.id, set.schema);
    set.is_newer().then(|| Refusal::new(what, "use the stillpoint that took it, or a newer one"))
}

/// The members as EC2 has them now.
///
/// # Errors
/// When EC2 does not say, or no longer has one of them.
pub async fn members<E: Keep>(
    ec2: &Repeating<'_, E>,
    set: &SnapshotSet,
) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
    let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
    let mut found = Vec::new();
    for some in ids.chunks(200) {
        found.extend(snapshots(ec2, &Wanted::Ids(some.to_vec())).await?);
    }
    if let Some(gone) = ids.iter().find(|id| found.iter().all(|s| s.view.id != **id)) {
        return Err(Ec2Error::refused(
            "DescribeSnapshots",
            "InvalidSnapshot.NotFound",
            format!("{gone} is gone"),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::set::tests_support::set;

    #[test]
    fn nothing_is_changed_of_a_set_that_is_not_clear_or_on_its_way_out() {
        assert_eq!(unclear(&set(2)), None);
        let doubtful = SnapshotSet { doubts: vec!["two claim one place".into()], ..set(2) };
        assert!(unclear(&doubtful).is_some_and(|r| r.what.contains("two claim one place")));
        let newer = SnapshotSet { schema: 99, ..set(2) };
        assert!(unclear(&newer).is_some_and(|r| r.what.contains("version 99")));
        let going = SnapshotSet { deleting: true, ..set(2) };
        assert!(unclear(&going).is_some_and(|r| r.what.contains("being removed")));
        assert_eq!(super::doubtful(&going), None, "what is left of it may be unlocked");
    }
}
