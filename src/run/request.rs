//! The create request. It is complete before anything is touched, so that DryRun can check the same request.
//!
//! In: the job. Out: a [`CreateRequest`]. Pure. Must never: depend on what the window shows.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::settings::PlanSettings;
use crate::discover::{Facts, Volume};
use crate::ec2::CreateRequest;
use crate::ids::RunId;
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
    // EC2 refuses tags that begin with `aws:`.
    let own = |v: &Volume| v.tags.iter().filter(|(k, _)| !k.starts_with("aws:")).cloned().collect::<Vec<_>>();
    let copied_tags: BTreeMap<_, _> = if settings.copy_volume_tags {
        facts.volumes.iter().filter(in_set).map(|v| (v.id.clone(), own(v))).collect()
    } else {
        BTreeMap::new()
    };
    let copied = copied_tags.values().map(Vec::len).max().unwrap_or_default();
    let description = settings
        .description
        .clone()
        .unwrap_or_else(|| format!("stillpoint {} {} {:.0}", plan.name, facts.hostname, now));
    CreateRequest {
        instance: facts.identity.instance_id.clone(),
        call: plan.call.clone(),
        description,
        tags: tags::on_create(run, &facts.identity, &facts.hostname, plan, settings, requested, copied),
        copied_tags,
        later_tags: tags::later(settings),
    }
}
