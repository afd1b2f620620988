//! Can the volumes come that a way leads to? It is looked at before anything of the others is touched.
//!
//! In: an [`Exchange`], and what EC2 and the records of this host say. Out: nothing, or what stands in the way. Must never:
//! change anything, or let a way begin that ends without either of the two in place, as far as that can be known.

use std::time::Duration;

use super::super::carry_out::Here;
use super::super::make::{Stopped, Waiting};
use super::super::record::Record;
use super::super::undo::kept_by_others;
use super::Stage;
use super::exchange::{Exchange, Way, here};
use super::host::There;
use super::units::{resting, stopped_for};
use super::users::{A_MOMENT, nobody_has};
use crate::ec2::volumes::{REPLACED_TAG, VolumeView, Volumes, Which};
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::printable;

/// Could the old volumes be put back now? The same is looked at as before it is done, and who has the new ones open.
///
/// # Errors
/// What stands in the way.
pub async fn could_go_back<E: Volumes>(
    record: &Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<(), Stopped> {
    let mut record = record.clone();
    let exchange = Exchange::of(&mut record, waiting, on)?;
    if exchange.record.moving.new_were_there() {
        exchange.can_come(Way::Back).await?;
    }
    let (from, _) = exchange.ends(Way::Back);
    let there = There::look(on.root, &from, false).map_err(|refusal| here(refusal.what))?;
    // One that was killed may have left units masked, and so nothing of them to be stopped.
    let (id, units) = (&exchange.record.plan.id, &exchange.in_place.stop_units);
    let rest = resting(id, units).await.map_err(here)?;
    let units: Vec<String> = units.iter().filter(|u| !rest.contains(*u)).cloned().collect();
    let stopped = stopped_for(id, &units).await.map_err(here)?;
    let stops = |unit: &Option<String>| unit.as_ref().is_some_and(|u| stopped.contains(u));
    let free = there.free(Duration::ZERO, |holder| !stops(&holder.unit)).await;
    free.map_err(|busy| here(format!("cannot unmount {}", busy.what)))?;
    // Who of them goes with the units that are stopped, is seen once they are.
    if stopped.is_empty() {
        nobody_has(on.root, &from, A_MOMENT, waiting.tell).await.map_err(|busy| here(busy.what))?;
    }
    Ok(())
}

impl<E: Volumes> Exchange<'_, '_, E> {
    /// Looks.
    ///
    /// # Errors
    /// Why they cannot come.
    pub(super) async fn can_come(&self, way: Way) -> Result<(), Stopped> {
        let (from, to) = self.ends(way);
        let ec2 = self.waiting.ec2;
        let all = Which::Ids(from.iter().chain(&to).cloned().collect());
        let seen = ec2.call("DescribeVolumes", async || ec2.inner().volumes_that_are(&all).await).await?;
        let shown = |id: &VolumeId| seen.iter().find(|v| v.id == *id && !v.is_gone());
        let elsewhere = |v: &VolumeView| {
            let other = v.attachments.iter().find(|a| a.instance.as_ref() != Some(&self.instance))?;
            Some(other.instance.as_ref().map_or("another service", InstanceId::as_str).to_owned())
        };
        let kept = kept_by_others(self.on, &self.record.plan.id)?;
        let replaced = |id: &VolumeId, by: &str| {
            here(format!("{id} was replaced by restore {by}: take that one back first (--undo {by})"))
        };
        for id in &to {
            let Some(view) = shown(id) else { return Err(here(format!("{id} does not exist any more"))) };
            if let Some(who) = elsewhere(view) {
                return Err(here(format!("{id} is attached to {who} by now: detach it there")));
            }
            if let Some(by) = kept.get(id) {
                return Err(replaced(id, by.as_str()));
            }
        }
        for (id, old) in from.iter().zip(&self.in_place.old) {
            // Whoever has put another one in its place has to give that one's place back.
            if let Some(by) = kept.get(id).filter(|_| way == Way::Back) {
                return Err(replaced(id, by.as_str()));
            }
            // Somebody has deleted it.
            let Some(view) = shown(id) else { continue };
            // The old ones have the tag of this restore, and an older one may have left its own.
            if let Some(by) = view.tag(REPLACED_TAG).filter(|_| way == Way::Back) {
                return Err(replaced(id, &printable(by)));
            }
            if let Some(who) = elsewhere(view) {
                return Err(here(format!("{id} is attached to {who}, not here: detach it there")));
            }
            let name = &old.device_name;
            if let Some(other) = view.attachments.iter().find(|a| a.device_name != *name) {
                return Err(here(format!(
                    "{id} is attached as {}, not as {name}",
                    printable(&other.device_name)
                )));
            }
            if !view.attachments.is_empty() {
                let may = async || ec2.inner().may_exchange(id, &self.instance, name).await;
                ec2.call("DryRun", may).await?;
            }
        }
        // In the middle of a way, EC2 may still say of a name what was before: then attaching waits for it.
        match self.record.moving.stage {
            Stage::Planned | Stage::There => self.names_are_free(&seen).await,
            _ => Ok(()),
        }
    }

    /// No volume but those of this restore has one of the device names. `seen` are those of this restore.
    async fn names_are_free(&self, seen: &[VolumeView]) -> Result<(), Stopped> {
        let ec2 = self.waiting.ec2;
        let host = ec2.call("DescribeInstances", async || ec2.inner().host(&self.instance).await).await?;
        let own = |name: &String| seen.iter().flat_map(|v| &v.attachments).any(|a| a.device_name == *name);
        let names = self.in_place.old.iter().map(|o| &o.device_name);
        match names.into_iter().find(|name| host.device_names.contains(name) && !own(name)) {
            None => Ok(()),
            Some(name) => Err(here(format!(
                "{name} is taken by a volume that is not of this restore: detach that one first (`aws ec2 \
                 describe-volumes --filters Name=attachment.instance-id,Values={} Name=attachment.device,Values={name}`)",
                self.instance
            ))),
        }
    }
}
