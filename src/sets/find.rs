//! The sets of an account in one Region: asked of EC2, page by page.
//!
//! In: [`Keep`], what is wanted. Out: [`Found`]. Must never: give a part of the answer for the whole (a page that
//! fails for good is an error), or take a missing permission for an empty list.

use jiff::Timestamp;

use super::read::{Gathered, Stranger};
use super::set::SnapshotSet;
use super::tags;
use crate::ec2::keep::{Binned, Keep, Wanted};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::{InstanceId, RunId, VolumeId};

/// What an account has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Newest first.
    pub sets: Vec<SnapshotSet>,
    /// Snapshots that have the mark of a set and are of none.
    pub strangers: Vec<Stranger>,
}

/// The sets.
///
/// # Errors
/// When EC2 does not give every page.
pub async fn find<E: Keep>(ec2: &Repeating<'_, E>, wanted: &Wanted) -> Result<Found, Ec2Error> {
    let mut gathered = Gathered::of(ec2.inner().region());
    pages(ec2, wanted, |snapshot| gathered.add(snapshot)).await?;
    let (sets, strangers) = gathered.sets();
    Ok(Found { sets, strangers })
}

/// The sets and copies of one plan of one instance.
///
/// # Errors
/// When EC2 does not give every page.
pub async fn of_plan<E: Keep>(
    ec2: &Repeating<'_, E>,
    instance: &InstanceId,
    plan: &str,
) -> Result<Vec<SnapshotSet>, Ec2Error> {
    let tags = [(tags::INSTANCE_TAG, instance.as_str()), (tags::PLAN_TAG, plan)];
    let tags = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let mut sets = find(ec2, &Wanted::Tagged(tags)).await?.sets;
    // A filter has wildcards in its values, and a plan's name is asked for as it is.
    sets.retain(|s| s.plan == plan && s.instance == *instance);
    Ok(sets)
}

/// The sets and copies of one plan that have the key of a host, whichever instance took them.
///
/// # Errors
/// When EC2 does not give every page.
pub async fn of_key<E: Keep>(
    ec2: &Repeating<'_, E>,
    key: &str,
    plan: &str,
) -> Result<Vec<SnapshotSet>, Ec2Error> {
    let tags = [(tags::HOST_KEY_TAG, key), (tags::PLAN_TAG, plan)];
    let tags = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let mut sets = find(ec2, &Wanted::Tagged(tags)).await?.sets;
    sets.retain(|s| s.plan == plan && s.host_key.as_deref() == Some(key));
    Ok(sets)
}

/// The snapshots, with all their tags.
///
/// # Errors
/// When EC2 does not give every page.
pub async fn snapshots<E: Keep>(
    ec2: &Repeating<'_, E>,
    wanted: &Wanted,
) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
    let mut all = Vec::new();
    pages(ec2, wanted, |snapshot| all.push(snapshot)).await?;
    Ok(all)
}

/// Every snapshot of these volumes, whoever made it.
///
/// # Errors
/// When EC2 does not give every page.
pub(crate) async fn of_volumes<E: Keep>(
    ec2: &Repeating<'_, E>,
    volumes: &[VolumeId],
) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
    /// A filter takes so many values (EC2 API reference, "Filter").
    const VALUES: usize = 200;
    let mut all = Vec::new();
    for some in volumes.chunks(VALUES) {
        all.extend(snapshots(ec2, &Wanted::OfVolumes(some.to_vec())).await?);
    }
    Ok(all)
}

async fn pages<E: Keep>(
    ec2: &Repeating<'_, E>,
    wanted: &Wanted,
    mut each: impl FnMut(TaggedSnapshot),
) -> Result<(), Ec2Error> {
    let mut token: Option<String> = None;
    loop {
        let asked = async || ec2.inner().page(wanted, token.as_deref()).await;
        let page = ec2.call("DescribeSnapshots", asked).await?;
        page.snapshots.into_iter().for_each(&mut each);
        match page.next {
            // A page may be empty and not be the last.
            Some(next) if token.as_ref() != Some(&next) => token = Some(next),
            Some(_) => return Err(Ec2Error::unknown("DescribeSnapshots", "the next page is this one again")),
            None => return Ok(()),
        }
    }
}

/// What is in the Recycle Bin of the sets of this program, oldest first. Tags are not listed there: the
/// description names the set.
///
/// # Errors
/// When EC2 does not say.
pub async fn bin<E: Keep>(ec2: &Repeating<'_, E>) -> Result<Vec<(RunId, Binned)>, Ec2Error> {
    let all = ec2.call("ListSnapshotsInRecycleBin", async || ec2.inner().bin().await).await?;
    let of_set = |b: Binned| Some((tags::set_of_description(&b.description)?, b));
    let mut found: Vec<_> = all.into_iter().filter_map(of_set).collect();
    found.sort_by(|a, b| (a.1.entered, &a.0).cmp(&(b.1.entered, &b.0)));
    Ok(found)
}

/// The time by EC2's clock, and by this host's.
///
/// # Errors
/// When EC2 does not say.
pub async fn clocks<E: Keep>(ec2: &Repeating<'_, E>) -> Result<(Timestamp, Timestamp), Ec2Error> {
    ec2.call("CreateTags", async || ec2.inner().clocks().await).await
}
