//! The create request. It is complete before anything is touched, so that DryRun can check the same request.
//!
//! In: the job. Out: a [`CreateRequest`]. Pure. Must never: depend on what the window shows.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::settings::PlanSettings;
use crate::discover::{Facts, Volume};
use crate::ec2::CreateRequest;
use crate::ids::{RunId, VolumeId};
use crate::plan::{Consistency, Plan};
use crate::sets::tags;

/// The create request of this plan. `now` goes into the description.
#[must_use]
pub(crate) fn create_request(
    run: &RunId,
    facts: &Facts,
    plan: &Plan,
    settings: &PlanSettings,
    requested: Consistency,
    now: Timestamp,
) -> CreateRequest {
    let in_set = |v: &&Volume| plan.volumes.iter().any(|p| p.id == v.id);
    let given: Vec<_> = settings.tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut copied_tags: BTreeMap<_, _> = if settings.copy_volume_tags {
        facts.volumes.iter().filter(in_set).map(|v| (v.id.clone(), tags::copied(v, &given))).collect()
    } else {
        BTreeMap::new()
    };
    let copied = copied_tags.values().map(Vec::len).max().unwrap_or_default();
    let common = common(&mut copied_tags);
    let given = settings.description.clone();
    let said = given.unwrap_or_else(|| format!("{} {} {now:.0}", plan.name, facts.hostname));
    let tags::Created { common: mut tags, spread } =
        tags::on_create(run, &facts.identity, &facts.hostname, plan, settings, requested, copied);
    tags.extend(common);
    CreateRequest {
        instance: facts.identity.instance_id.clone(),
        call: plan.call.clone(),
        description: tags::described(run, &said),
        tags,
        spread_tags: spread,
        copied_tags,
        later_tags: tags::later(settings),
    }
}

/// Takes out what all of them have in common: the create call can say that of every snapshot.
fn common(copied: &mut BTreeMap<VolumeId, Vec<(String, String)>>) -> Vec<(String, String)> {
    let Some(mut common) = copied.values().next().cloned() else { return Vec::new() };
    common.retain(|tag| copied.values().all(|tags| tags.contains(tag)));
    copied.values_mut().for_each(|tags| tags.retain(|tag| !common.contains(tag)));
    copied.retain(|_, tags| !tags.is_empty());
    common
}
