//! Which images are of a set, and whether that is true.
//!
//! In: images, a set's snapshots. Out: a decision. Pure. Must never: take an image for one of a set because a tag says so:
//! whoever may tag can write it. Its snapshots have to be the set's, all of them.

use crate::ec2::images::ImageView;
use crate::ids::{RunId, SnapshotId};

/// Why an image that has the tag of this set is not taken for one of it; none where it is one.
///
/// `snapshots` are those of the set.
#[must_use]
pub fn stranger<'s>(
    image: &ImageView,
    set: &RunId,
    snapshots: impl Iterator<Item = &'s SnapshotId>,
) -> Option<String> {
    if image.set().as_ref() != Some(set) {
        return Some(format!("it has not the tag of {set}"));
    }
    if image.others || image.mappings.is_empty() {
        return Some("it has devices that are of no set".to_owned());
    }
    let of_set: Vec<&SnapshotId> = snapshots.collect();
    let foreign = image.mappings.iter().find(|m| m.snapshot.as_ref().is_none_or(|s| !of_set.contains(&s)));
    foreign.map(|m| match &m.snapshot {
        Some(id) => format!("{id} of it is not of {set}"),
        None => format!("{} of it has no snapshot", crate::path_encoding::printable(&m.device_name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::plan::tests::view;
    use crate::sets::set::tests_support::set;

    #[test]
    fn a_tag_alone_makes_no_image_ours() {
        let (own, other) = (set(2), set(3));
        let of = |image: &ImageView| stranger(image, &own.id, own.snapshots());
        let good = view(&own);
        assert_eq!(of(&good), None);
        assert!(of(&ImageView { tags: vec![], ..good.clone() }).is_some_and(|w| w.contains("not the tag")));
        assert!(of(&ImageView { others: true, ..good.clone() }).is_some());
        assert!(of(&ImageView { mappings: vec![], ..good.clone() }).is_some());
        // The third snapshot of another set, with the tag of this one.
        let mut foreign = good.clone();
        foreign.mappings.push(view(&other).mappings[2].clone());
        assert!(of(&foreign).is_some_and(|w| w.contains("is not of")));
        let mut empty = good;
        empty.mappings[1].snapshot = None;
        assert!(of(&empty).is_some_and(|w| w.contains("no snapshot")));
    }
}
