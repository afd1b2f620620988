//! What others have of the volumes of the set: it cannot be made quiet here.
//!
//! In: [`Facts`], what is chosen. Out: volumes whose part of the set can be no more than `crash`, and notes
//! that name who it is. Must never: call a volume quiet of which somebody else has a part in use.

use super::select::Chosen;
use super::stack::Walk;
use crate::discover::Facts;

/// What is in use without a mount here cannot be frozen, so the volumes below it are only crash-consistent.
pub(super) fn in_use(facts: &Facts, walk: &Walk<'_>, chosen: &mut Chosen) {
    for device in &facts.in_use {
        let below = walk.below(&device.name);
        let on = facts.volumes.iter().filter(|v| v.disk.as_ref().is_some_and(|d| below.contains(&*d.name)));
        for volume in on.filter(|v| chosen.volumes.contains_key(&v.id)) {
            let name = walk.device(&device.name).map_or_else(|| device.name.clone(), Walk::label);
            let why = format!("{name} cannot be taken for unused: {}", device.why);
            chosen.notes.push(format!("{} is only crash-consistent: {why}.", volume.id));
            chosen.crash.entry(volume.id.clone()).or_insert(why);
        }
    }
}

/// Of a volume that is taken at `crash` anyway, who else has it mounted says more than that nobody here has.
/// Where a better label is possible, the claim decides ([`in_use`]).
pub(super) fn elsewhere(facts: &Facts, walk: &Walk<'_>, chosen: &mut Chosen) {
    for (dev, who) in &facts.elsewhere {
        let Some(device) = facts.devices.iter().find(|d| d.dev == *dev) else { continue };
        let below = walk.below(&device.name);
        let on = facts.volumes.iter().filter(|v| v.disk.as_ref().is_some_and(|d| below.contains(&*d.name)));
        for volume in on {
            if let Some(why) = chosen.crash.get_mut(&volume.id) {
                let who = who.iter().cloned().collect::<Vec<_>>().join("; ");
                *why = format!("{} is {}", Walk::label(device), mounted_by(&who));
                chosen.notes.push(format!("{} is only crash-consistent: {why}.", volume.id));
            }
        }
    }
}

/// How a device is told that others have mounted.
pub(super) fn mounted_by(who: &str) -> String {
    format!("mounted in another namespace, where it cannot be frozen: {who}")
}
