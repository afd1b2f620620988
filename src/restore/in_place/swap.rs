//! EC2's part of an exchange: some volumes are detached, others attached by the same names.
//!
//! In: an [`Exchange`] whose volumes are unmounted. Out: the disks of the others, here. Must never: detach what could
//! not be claimed, or leave it to EC2's answers alone whether something of the new volumes may have been written to.

use super::super::make::Stopped;
use super::super::{disks, identity};
use super::Replaced;
use super::exchange::{Exchange, Way, here};
use super::host::claim_all;
use crate::ec2::volumes::{REPLACED_TAG, VolumeView, Volumes, Which};
use crate::host::device;
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::printable;

impl<E: Volumes> Exchange<'_, '_, E> {
    /// Detaches some, and attaches the others by their names.
    pub(super) async fn swap(&mut self, way: Way, from: &[VolumeId], to: &[VolumeId]) -> Result<(), Stopped> {
        let root = self.on.root;
        // It proves that nothing uses them. `btrfs device scan --forget` needs them free again.
        let claims = claim_all(root, from).map_err(here)?;
        let shown = self.here_of(from)?;
        drop(claims);
        self.forget(from).await;
        let instance = Some(&self.instance);
        let attached = self.waiting.attached(from, &shown, instance).await?;
        let were = std::mem::replace(&mut self.record.moving.asked, true);
        self.note(way)?;
        let mut taken = were;
        let said = self.waiting.detach_these(from, &shown, &attached, instance, || taken = true).await;
        if said.is_err() && !taken {
            self.record.moving.asked = false;
            self.note(Way::Back)?;
        }
        said?;
        let in_place = self.in_place.clone();
        let names: Vec<&str> = in_place.old.iter().map(|o| o.device_name.as_str()).collect();
        // Before: systemd mounts by itself what fstab names, as soon as it comes.
        let were = self.record.moving.handed_over;
        self.record.moving.handed_over = were || way == Way::Forth;
        self.note(way)?;
        let mut taken = were;
        let said = self.waiting.attach_as(to, &names, &[], &self.instance, || taken = true).await;
        if said.is_err() && way == Way::Forth && !taken {
            self.record.moving.handed_over = false;
            self.note(Way::Back)?;
        }
        said?;
        (self.waiting.tell)(&come(to, &in_place.old));
        for id in to {
            disks::await_disk(root, id, self.waiting.clock).await.map_err(here)?;
        }
        Ok(())
    }

    /// Can the old volumes come back? Nothing is touched where they cannot.
    pub(super) async fn can_return(&self) -> Result<(), Stopped> {
        let all = Which::Ids(self.old().into_iter().chain(self.new.iter().cloned()).collect());
        let ec2 = self.waiting.ec2;
        let seen = ec2.call("DescribeVolumes", async || ec2.inner().volumes_that_are(&all).await).await?;
        let shown = |id: &VolumeId| seen.iter().find(|v| v.id == *id && !v.is_gone());
        let elsewhere = |v: &VolumeView| {
            let other = v.attachments.iter().find(|a| a.instance.as_ref() != Some(&self.instance))?;
            Some(other.instance.as_ref().map_or("another service", InstanceId::as_str).to_owned())
        };
        for old in &self.in_place.old {
            let id = &old.volume;
            let Some(view) = shown(id) else { return Err(here(format!("{id} does not exist any more"))) };
            if let Some(who) = elsewhere(view) {
                return Err(here(format!("{id} is attached to {who} by now: detach it there")));
            }
        }
        for (id, old) in self.new.iter().zip(&self.in_place.old) {
            // Somebody has deleted it, and its device name is free.
            let Some(view) = shown(id) else { continue };
            if let Some(restore) = view.tag(REPLACED_TAG) {
                let restore = printable(restore);
                return Err(here(format!(
                    "{id} was replaced by restore {restore}: take that one back first (--undo {restore})"
                )));
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
        Ok(())
    }

    /// Kernels before 6.2 remember the device of a btrfs that is not mounted any more, and refuse another one with its
    /// UUID that is older (`device_list_add`).
    async fn forget(&self, from: &[VolumeId]) {
        let recipe = &self.record.moving.recipe;
        if !recipe.filesystems.iter().any(|f| f.fstype == "btrfs") {
            return;
        }
        for volume in from {
            for device in disks::of(self.on.root, volume).unwrap_or_default() {
                if let Some(node) = device::node(device.dev, &[])
                    && let Err(e) = identity::run("btrfs", &["device", "scan", "--forget"], &node).await
                {
                    tracing::debug!("{e}");
                }
            }
        }
    }

    /// AttachVolume makes a volume stay when the instance goes. One that went with it does so again. Nothing depends on it.
    pub(super) async fn follow_termination(&self, to: &[VolumeId]) {
        let (ec2, tell) = (self.waiting.ec2, self.waiting.tell);
        let wanted = || to.iter().zip(&self.in_place.old).filter(|(_, old)| old.delete_on_termination);
        if wanted().next().is_none() {
            return;
        }
        let which = Which::Ids(to.to_vec());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let seen = ec2.call("DescribeVolumes", asked).await;
        for (id, old) in wanted() {
            let set = match &seen {
                Err(e) => Err(e.clone()),
                Ok(seen) => {
                    let is = seen.iter().filter(|v| v.id == *id).flat_map(|v| &v.attachments).next();
                    let name = is.map_or(old.device_name.as_str(), |a| &a.device_name);
                    match is {
                        Some(a) if a.delete_on_termination => Ok(()),
                        _ => {
                            let asked = async || ec2.inner().delete_with_instance(&self.instance, name).await;
                            ec2.call("ModifyInstanceAttribute", asked).await
                        }
                    }
                }
            };
            if let Err(e) = set {
                tell(&format!("{id} will stay when the instance goes, unlike {}: {e}", old.volume));
            }
        }
    }

    /// Marks the old volumes as replaced, or takes the mark off. Nothing depends on it.
    pub(super) async fn label(&self, way: Way) {
        let (ec2, old) = (self.waiting.ec2, self.old());
        let id = self.record.plan.id.as_str();
        let said = match way {
            Way::Forth => {
                ec2.call("CreateTags", async || ec2.inner().tag_volumes(&old, (REPLACED_TAG, id)).await).await
            }
            Way::Back => {
                ec2.call("DeleteTags", async || ec2.inner().untag_volumes(&old, REPLACED_TAG).await).await
            }
        };
        if let Err(e) = said {
            (self.waiting.tell)(&format!("the old volumes have not got the right tag: {e}"));
        }
    }
}

fn come(to: &[VolumeId], old: &[Replaced]) -> String {
    let each = to.iter().zip(old).map(|(id, old)| format!("{id} is attached as {}", old.device_name));
    each.collect::<Vec<_>>().join("\n")
}
