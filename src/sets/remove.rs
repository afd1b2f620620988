//! One set is removed: marked, the root device's snapshot first, then the others, each looked at once more.
//!
//! ```text
//! look again ─▶ mark every member ─▶ deregister its images ─▶ delete the first ─▶ delete the others
//!     │ changed      │ refused           │ refused                │ refused           │ refused
//!     ▼              ▼                   ▼                        ▼                   ▼
//!  left alone    left alone       unmarked, whole          unmarked, whole      torn: tried again the next time
//! ```
//!
//! EC2 deletes the snapshots of an image with it, where it can: what it leaves is deleted one by one.
//!
//! In: a set that was decided about, its images that go with it. Out: [`Removed`]. Must never: delete a snapshot whose
//! tags do not say any more that it is of this set, deregister an image that has something else, or go on with the others
//! when the first is refused.

use serde::Serialize;

use super::find::snapshots;
use super::read::{DELETING_TAG, Gathered, KEEP_TAG};
use super::set::SnapshotSet;
use crate::ec2::images::SnapshotResult;
use crate::ec2::keep::{Keep, Wanted};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::{ImageId, RunId, SnapshotId};

/// What became of one set that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The set.
    pub id: RunId,
    /// Its snapshots that are gone.
    pub deleted: Vec<SnapshotId>,
    /// Its images that are deregistered.
    pub images: Vec<ImageId>,
    /// EC2's codes for snapshots that were to go with an image.
    #[serde(skip)]
    pub codes: Vec<SnapshotResult>,
    /// Why the others are not; none when all are gone.
    pub failed: Option<Failed>,
}

/// Why a set is not gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The snapshot that was refused; none when the set was left alone.
    pub snapshot: Option<SnapshotId>,
    /// In EC2's words, or what has changed.
    pub why: String,
    /// True when some of it is gone, and some is not.
    pub torn: bool,
}

/// Removes a set, and these images of it.
pub async fn remove<E: Keep>(
    ec2: &Repeating<'_, E>,
    set: &SnapshotSet,
    by: &str,
    images: &[ImageId],
) -> Removed {
    let (deleted, deregistered, codes) = Default::default();
    let mut removed = Removed { id: set.id.clone(), deleted, images: deregistered, codes, failed: None };
    let inner = ec2.inner();
    let all: Vec<SnapshotId> = set.snapshots().cloned().collect();
    let alone = |why: String| Some(Failed { snapshot: None, why, torn: false });
    let ids = match look_again(ec2, set, &all).await {
        Ok(ids) => ids,
        Err(why) => {
            removed.failed = alone(why);
            return removed;
        }
    };
    if let Err(why) = only_its_own(ec2, &all, images).await {
        removed.failed = alone(why);
        return removed;
    }
    if let Err(e) = mark(ec2, &ids, by).await {
        removed.failed = alone(format!("it cannot be marked: {e}"));
        return removed;
    }
    // Somebody else, or an earlier prune, has removed these.
    removed.deleted.extend(all.iter().filter(|id| !ids.contains(id)).cloned());
    for image in images {
        match ec2.call("DeregisterImage", async || inner.deregister_image(image).await).await {
            Ok(codes) => {
                removed.images.push(image.clone());
                let gone = codes.iter().filter(|(id, code)| code == "success" && ids.contains(id));
                removed.deleted.extend(gone.map(|(id, _)| id.clone()));
                removed.codes.extend(codes);
            }
            Err(e) => {
                // Nothing of this set is gone yet, unless with another image of it.
                let torn = !removed.deleted.is_empty() || set.deleting;
                let mut why = format!("{image} is not deregistered: {e}");
                if !torn {
                    why = unmark(ec2, &ids, why).await;
                }
                removed.failed = Some(Failed { snapshot: None, why, torn });
                return removed;
            }
        }
    }
    let left: Vec<&SnapshotId> = ids.iter().filter(|id| !removed.deleted.contains(id)).collect();
    for id in left {
        match ec2.call("DeleteSnapshot", async || inner.delete(id).await).await {
            Ok(()) => removed.deleted.push(id.clone()),
            Err(e) => {
                let torn = !removed.deleted.is_empty() || set.deleting;
                let mut why = e.to_string();
                // Whole and unmarked, as it was: nothing says that it should go.
                if !torn {
                    why = unmark(ec2, &ids, why).await;
                }
                removed.failed.get_or_insert(Failed { snapshot: Some(id.clone()), why, torn });
                // One refused snapshot need not keep the others, once the first is gone.
                if !torn {
                    return removed;
                }
            }
        }
    }
    removed
}

/// Takes the mark off, and says so where that fails.
async fn unmark<E: Keep>(ec2: &Repeating<'_, E>, ids: &[SnapshotId], why: String) -> String {
    let off = async || ec2.inner().remove_tags(ids, &[DELETING_TAG]).await;
    match ec2.call("DeleteTags", off).await {
        Ok(()) => why,
        Err(e) => format!("{why}; and its mark {DELETING_TAG} cannot be taken off: {e}"),
    }
}

/// An image that was registered, or changed, since it was decided which go with the set.
async fn only_its_own<E: Keep>(
    ec2: &Repeating<'_, E>,
    ids: &[SnapshotId],
    images: &[ImageId],
) -> Result<(), String> {
    if images.is_empty() {
        return Ok(());
    }
    let asked = async || ec2.inner().images(ids).await;
    let now = ec2.call("DescribeImages", asked).await;
    let now = now.map_err(|e| format!("its images cannot be looked at again: {e}"))?;
    for used in now {
        let of_set = used.all.is_some_and(|all| all.iter().all(|id| ids.contains(id)));
        if !images.contains(&used.image) || !of_set {
            return Err(format!("the image {} ({}) uses it meanwhile", used.image, used.state));
        }
    }
    Ok(())
}

/// Marks them. EC2 may still list what is deleted (EC2 guide, "eventual consistency"), and one such snapshot would
/// fail the whole call.
async fn mark<E: Keep>(ec2: &Repeating<'_, E>, ids: &[SnapshotId], by: &str) -> Result<(), Ec2Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let mark = [(DELETING_TAG.to_owned(), by.to_owned())];
    // Caught inside: in a call that tags, EC2's "no such snapshot" is repeated, for one that was made a moment ago.
    let put = async |some: &[SnapshotId]| match ec2.inner().put_tags(some, &mark).await {
        Err(e) if e.is_no_snapshot() => Ok(false),
        said => said.map(|()| true),
    };
    if ec2.call("CreateTags", async || put(ids).await).await? {
        return Ok(());
    }
    for id in ids {
        ec2.call("CreateTags", async || put(std::slice::from_ref(id)).await).await?;
    }
    Ok(())
}

/// Those that are still there, if all of them are what they were when they were decided about.
async fn look_again<E: Keep>(
    ec2: &Repeating<'_, E>,
    set: &SnapshotSet,
    ids: &[SnapshotId],
) -> Result<Vec<SnapshotId>, String> {
    let mut now: Vec<TaggedSnapshot> = Vec::new();
    for some in ids.chunks(200) {
        let found = snapshots(ec2, &Wanted::Ids(some.to_vec())).await;
        now.extend(found.map_err(|e: Ec2Error| format!("it cannot be looked at again: {e}"))?);
    }
    let mut gathered = Gathered::of(&set.region);
    now.into_iter().for_each(|s| gathered.add(s));
    let (sets, strangers) = gathered.sets();
    if let Some(stranger) = strangers.first() {
        return Err(format!("{} is not of it any more: {}", stranger.id, stranger.why));
    }
    let Some(again) = sets.iter().find(|s| s.id == set.id && s.instance == set.instance) else {
        let changed = || Err("its snapshots are of another set now".to_owned());
        return if sets.is_empty() { Ok(Vec::new()) } else { changed() };
    };
    if sets.len() > 1 {
        return Err("its snapshots are of several sets now".to_owned());
    }
    if again.plan != set.plan || again.doubts != set.doubts {
        return Err("its tags have changed meanwhile".to_owned());
    }
    if again.keep_until != set.keep_until {
        return Err(format!("its tag {KEEP_TAG} has changed meanwhile"));
    }
    Ok(ids.iter().filter(|id| again.snapshots().any(|s| s == *id)).cloned().collect())
}
