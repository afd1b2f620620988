//! EC2's part of an exchange: some volumes are detached, others attached by the same names.
//!
//! In: an [`Exchange`] whose volumes are unmounted. Out: the disks of the others, here. Must never: detach what could
//! not be claimed, or leave it to EC2's answers alone whether something of the new volumes may have been written to.

use nix::errno::Errno;

use super::super::disks;
use super::super::make::Stopped;
use super::Replaced;
use super::exchange::{Exchange, Way, here};
use super::host::claim_all;
use crate::ec2::Ec2Error;
use crate::ec2::volumes::{REPLACED_TAG, Volumes, Which};
use crate::host::device;
use crate::ids::VolumeId;

impl<E: Volumes> Exchange<'_, '_, E> {
    /// Detaches some, and attaches the others by their names.
    pub(super) async fn swap(&mut self, way: Way, from: &[VolumeId], to: &[VolumeId]) -> Result<(), Stopped> {
        let root = self.on.root;
        // They prove that nothing uses them, and nothing comes to: each is held until right before its volume goes.
        let mut claims = claim_all(root, from).map_err(here)?;
        let shown = self.here_of(from)?;
        self.forget(from);
        let instance = Some(&self.instance);
        let attached = self.waiting.attached(from, &shown, instance).await?;
        let were = std::mem::replace(&mut self.record.moving.asked, true);
        self.note(way)?;
        let mut taken = were;
        let let_go = |id: &VolumeId| drop(claims.remove(id));
        let said =
            self.waiting.detach_these(from, &shown, &attached, instance, let_go, || taken = true).await;
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

    /// Kernels before 6.2 remember the device of a btrfs that is not mounted any more, and refuse another one with its
    /// UUID that is older (`device_list_add`). A claim does not stand in the way.
    fn forget(&self, from: &[VolumeId]) {
        let recipe = &self.record.moving.recipe;
        if !recipe.filesystems.iter().any(|f| f.fstype == "btrfs") {
            return;
        }
        for one in from.iter().flat_map(|volume| disks::of(self.on.root, volume).unwrap_or_default()) {
            match device::forget_btrfs(one.dev) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => tracing::debug!("btrfs does not forget {}: {}", one.name, errno.desc()),
            }
        }
    }

    /// AttachVolume makes a volume stay when the instance goes. One that went with it does so again. Nothing depends on it.
    /// Is it as it should be?
    pub(super) async fn follow_termination(&self, to: &[VolumeId]) -> bool {
        let (ec2, tell) = (self.waiting.ec2, self.waiting.tell);
        let wanted = || to.iter().zip(&self.in_place.old).filter(|(_, old)| old.delete_on_termination);
        if wanted().next().is_none() {
            return true;
        }
        let mut good = true;
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
                good = false;
            }
        }
        good
    }

    /// Takes the mark off, and only that of this restore. A volume that is gone, which somebody has deleted since, has none.
    async fn unlabel(&self, old: &[VolumeId], id: &str) -> Result<(), Ec2Error> {
        let ec2 = self.waiting.ec2;
        let take_off = async |volumes: &[VolumeId]| {
            let asked = async || ec2.inner().untag_volumes(volumes, (REPLACED_TAG, id)).await;
            ec2.call("DeleteTags", asked).await
        };
        let gone =
            |e: &Ec2Error| matches!(e, Ec2Error::Refused { code, .. } if code == "InvalidVolume.NotFound");
        match take_off(old).await {
            Err(e) if gone(&e) => {}
            said => return said,
        }
        // Then EC2 has done nothing for the others.
        for one in old {
            match take_off(std::slice::from_ref(one)).await {
                Err(e) if !gone(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Marks the old volumes as replaced, or takes the mark off. Nothing depends on the mark, but a stale one stands in the
    /// way of older restores that are taken back: it is told with the command, and counts. Is it as it should be?
    pub(super) async fn label(&mut self, way: Way) -> bool {
        let (ec2, old) = (self.waiting.ec2, self.old());
        let id = self.record.plan.id.as_str();
        let ids: Vec<&str> = old.iter().map(VolumeId::as_str).collect();
        let (region, resources) = (&self.record.plan.region, ids.join(" "));
        match way {
            Way::Forth => {
                let mark = async || ec2.inner().tag_volumes(&old, (REPLACED_TAG, id)).await;
                let Err(e) = ec2.call("CreateTags", mark).await else { return true };
                (self.waiting.tell)(&format!(
                    "{}: without the tag {REPLACED_TAG}, which says what has put another volume in its place: {e}; by \
                     hand: aws ec2 create-tags --region {region} --resources {resources} --tags \
                     Key={REPLACED_TAG},Value={id}",
                    ids.join(", ")
                ));
            }
            Way::Back => {
                let Err(e) = self.unlabel(&old, id).await else { return true };
                let said = format!(
                    "{}: in place again, and still with the tag {REPLACED_TAG}, which says otherwise: {e}",
                    ids.join(", ")
                );
                let again = match self.record.moving.handed_over {
                    true => format!("`stillpoint restore --undo {id}` once more takes it off; "),
                    false => String::new(),
                };
                (self.waiting.tell)(&format!(
                    "{said}; {again}by hand: aws ec2 delete-tags --region {region} --resources {resources} --tags \
                     Key={REPLACED_TAG},Value={id}"
                ));
                self.unstarted.push(said);
            }
        }
        false
    }
}

fn come(to: &[VolumeId], old: &[Replaced]) -> String {
    let each = to.iter().zip(old).map(|(id, old)| format!("{id} is attached as {}", old.device_name));
    each.collect::<Vec<_>>().join("\n")
}
