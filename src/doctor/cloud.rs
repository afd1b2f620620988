//! EC2 and IMDS: identity, permissions, volumes, snapshots that are pending, the clock.
//!
//! In: the answers of EC2 and IMDS. Out: findings. Must never: send a request, or report a permission as
//! present that was not checked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Finding;
use crate::discover::{Facts, Volume};
use crate::ec2::tagging::Tagging;
use crate::ec2::{CreateRequest, Ec2Error, SnapshotView};
use crate::exit::Exit;
use crate::ids::VolumeId;
use crate::path_encoding::printable;
use crate::plan::Plan;
use crate::sets::tags;

/// Pending snapshots of one volume that EC2 allows (errors overview, ConcurrentSnapshotLimitExceeded).
#[must_use]
pub(crate) fn most_pending(volume_type: &str) -> usize {
    if matches!(volume_type, "st1" | "sc1") { 1 } else { 5 }
}

/// Is there room for one more pending snapshot of each volume?
#[must_use]
pub fn pending(plan: &Plan, pending: &[SnapshotView]) -> Vec<Finding> {
    const ID: &str = "pending-snapshots";
    let mut count: BTreeMap<_, usize> = BTreeMap::new();
    for snapshot in pending {
        *count.entry(&snapshot.volume).or_default() += 1;
    }
    let mut found = Vec::new();
    for volume in &plan.volumes {
        let n = count.get(&volume.id).copied().unwrap_or_default();
        let most = most_pending(&volume.volume_type);
        let what =
            |n: usize| format!("{} ({}) has {n} pending snapshots already", volume.id, volume.device_name);
        let at = [volume.id.to_string()];
        let limit = format!("EC2 allows {most} of a {} volume at a time", volume.volume_type);
        if n >= most {
            found.push(
                Finding::problem(ID, Exit::Ec2, what(n))
                    .at(at)
                    .why(limit)
                    .remedy("run again when they are completed"),
            );
        } else if n > 0 && n + 1 == most {
            found.push(Finding::warning(ID, what(n)).at(at).why(limit).remedy("take sets less often"));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(ID, "there is room for another snapshot of every volume"));
    }
    found
}

/// EC2 allows 50 tags on a snapshot; the verdict's tags must still fit later.
#[must_use]
pub(crate) fn tags_fit(request: &CreateRequest) -> Vec<Finding> {
    const ID: &str = "tags";
    let total = request.most_tags();
    if total <= tags::MAX_TAGS {
        return vec![Finding::ok(ID, format!("{total} of {} tags are used", tags::MAX_TAGS))];
    }
    let what = format!("the snapshots would need {total} tags, EC2 allows {}", tags::MAX_TAGS);
    let finding = Finding::problem(ID, Exit::Config, what)
        .why("the set could not be described whole in its tags, or could not get its label")
        .remedy("set copy_volume_tags = false, or fewer tags of your own, or make two plans of it");
    vec![finding]
}

/// Volumes with tags that look like this tool's own. They belong on snapshots, and only a run puts them there.
#[must_use]
pub fn volume_tags(facts: &Facts, plan: &Plan) -> Vec<Finding> {
    const ID: &str = "volume-tags";
    let of_set = facts.volumes.iter().filter(|v| plan.volumes.iter().any(|p| p.id == v.id));
    let strange: Vec<_> = of_set.map(|v| (v, tags::strange(v))).filter(|(_, k)| !k.is_empty()).collect();
    if strange.is_empty() {
        return vec![Finding::ok(ID, "no volume of the set has a tag of the kind that only a run sets")];
    }
    let finding = |(volume, keys): (&Volume, Vec<&str>)| {
        let keys = keys.iter().map(|k| printable(k)).collect::<Vec<_>>().join(", ");
        Finding::warning(ID, format!("{} ({}) has tags that only a run may set: {keys}", volume.id, volume.device_name))
            .at([volume.id.to_string()])
            .why(
                "they were copied from a snapshot, as a restore may do, and say nothing of this volume; stillpoint \
                 copies none of them, but another tool that copies a volume's tags would make its snapshot look \
                 like one of a set",
            )
            .remedy(format!("remove them: aws ec2 delete-tags --resources {} --tags Key=…", volume.id))
    };
    strange.into_iter().map(finding).collect()
}

/// A call that a run makes, and the result of trying it (a read is really made, any other call is a DryRun).
#[must_use]
pub fn call(action: &str, said: Result<(), &Ec2Error>) -> Finding {
    const ID: &str = "iam";
    match said {
        Ok(()) => Finding::ok(ID, format!("ec2:{action} is allowed")).at([format!("ec2:{action}")]),
        Err(e) => {
            let (id, action) = match e.denied_action() {
                Some(denied) => (ID, denied),
                None => ("ec2", action),
            };
            let finding = Finding::problem(id, e.exit(), e.to_string())
                .at([format!("ec2:{action}")])
                .why("a run needs this call");
            match e.hint() {
                Some(hint) => finding.remedy(hint),
                None => finding,
            }
        }
    }
}

/// May the snapshots get their label once they exist?
#[must_use]
pub fn tagging(said: Result<&Tagging, &Ec2Error>) -> Finding {
    const ID: &str = "iam";
    const WHY: &str =
        "no set would get its label: every run would end with 11, and the set count as crash-consistent";
    match said {
        Ok(Tagging::Allowed) => call("CreateTags", Ok(())),
        Ok(Tagging::NotSaid) => {
            Finding::not_checked(ID, "EC2 did not say whether ec2:CreateTags is allowed")
        }
        Ok(Tagging::Denied { error, certain: true }) => call("CreateTags", Err(error)).why(WHY),
        Ok(Tagging::Denied { error, certain: false }) => call("CreateTags", Err(error)).why(format!(
            "{WHY}. (There is no snapshot of stillpoint's yet to ask about: a policy that allows it for those alone \
             would do)"
        )),
        Err(e) => call("CreateTags", Err(e)),
    }
}

/// Volumes that are not in use or not attached according to EC2.
#[must_use]
pub fn volumes(plan: &Plan, states: &[(VolumeId, String, String)]) -> Vec<Finding> {
    const ID: &str = "volumes";
    let mut found = Vec::new();
    for volume in &plan.volumes {
        match states.iter().find(|(id, ..)| *id == volume.id) {
            Some((_, state, attached)) if state == "in-use" && attached == "attached" => {}
            Some((_, state, attached)) => found.push(
                Finding::problem(
                    ID,
                    Exit::Config,
                    format!("{} is {state}, its attachment {attached}", volume.id),
                )
                .at([volume.id.to_string(), volume.device_name.clone()])
                .why("a volume that is being attached or detached cannot be part of one point in time")
                .remedy("wait until it is attached"),
            ),
            None => found.push(Finding::not_checked(ID, format!("EC2 says nothing of {}", volume.id))),
        }
    }
    if found.is_empty() {
        let n = plan.volumes.len();
        found.push(Finding::ok(ID, format!("EC2 lists {n} of {n} volumes of the set as attached")));
    }
    found
}

/// Compares this host's clock with EC2's, whose answers have whole seconds.
#[must_use]
pub fn clock(here: Timestamp, theirs: Option<Timestamp>) -> Finding {
    const ID: &str = "clock";
    /// SigV4 refuses requests that are 5 minutes old (EC2 API reference, "RequestExpired").
    const REFUSED: SignedDuration = SignedDuration::from_mins(5);
    const LARGE: SignedDuration = SignedDuration::from_secs(5);
    let Some(theirs) = theirs else { return Finding::not_checked(ID, "EC2's answer had no date") };
    let off = here.duration_since(theirs).abs();
    let what = format!("this host's clock and EC2's differ by {} s", off.as_secs());
    let why = "EC2 refuses requests signed with a wrong time, and the times in records would be wrong";
    let remedy = "see chronyc tracking; the Amazon Time Sync Service is at 169.254.169.123";
    if off >= REFUSED {
        Finding::problem(ID, Exit::Config, what).why(why).remedy(remedy)
    } else if off >= LARGE {
        Finding::warning(ID, what).why(why).remedy(remedy)
    } else {
        Finding::ok(ID, "this host's clock agrees with EC2's")
    }
}

/// Checks that the hop limit of IMDS's answers lets them reach a container.
#[must_use]
pub(crate) fn hop_limit(limit: Option<i32>, in_container: bool) -> Option<Finding> {
    const ID: &str = "imds-hop-limit";
    match limit {
        Some(1) if in_container => Some(
            Finding::warning(
                ID,
                "IMDS answers reach no further than the host (hop limit 1), \
                 and this is a container",
            )
            .why(
                "a token call from a bridged network gets no answer, so the \
                 credentials of the instance's role are out of reach",
            )
            .remedy(
                "aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2, \
                 or use the host's network",
            ),
        ),
        Some(n) => Some(Finding::ok(ID, format!("IMDS answers go {n} hop{}", if n == 1 { "" } else { "s" }))),
        None => None,
    }
}
