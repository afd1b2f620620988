//! Volumes are made, attached, detached and deleted, and each is followed until EC2 says that it is so.
//!
//! In: a plan; volumes. Out: the same, as EC2 shows them. Must never: make a volume twice (its token is the plan's), or
//! attach one before its disk is hidden from the host.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use super::plan::RestorePlan;
use crate::clock::Clock;
use crate::ec2::Ec2Error;
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::{VolumeView, Volumes, Which};
use crate::ids::{InstanceId, VolumeId};
use crate::interrupt::Interrupt;

/// The first pause between two looks, and the longest: creating and attaching take seconds, a key that fails longer.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// What EC2 has not shown or done by then, it will not.
const LIMIT: Duration = Duration::from_secs(600);

/// Why a restore stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// EC2 refused, or could not be reached.
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    /// A signal.
    #[error("interrupted by {0}")]
    Signal(nix::sys::signal::Signal),
    /// Something on this host, or a volume that did not come to be.
    #[error("{0}")]
    Here(String),
}

/// Whoever waits: EC2, the time, signals.
pub struct Waiting<'a, E> {
    /// EC2.
    pub ec2: &'a Repeating<'a, E>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Signals.
    pub interrupt: &'a Interrupt,
    /// Told each change, in one line.
    pub tell: &'a dyn Fn(&str),
}

impl<E: Volumes> Waiting<'_, E> {
    fn interrupted(&self) -> Result<(), Stopped> {
        self.interrupt.pending().map_or(Ok(()), |signal| Err(Stopped::Signal(signal)))
    }

    /// Looks until `done` says so of what EC2 shows, or says that it never will be.
    async fn until(
        &self,
        ids: &[VolumeId],
        mut done: impl FnMut(&[VolumeView]) -> Result<bool, String>,
    ) -> Result<(), Stopped> {
        let end = self.clock.elapsed() + LIMIT;
        let mut pause = FIRST;
        let which = Which::Ids(ids.to_vec());
        loop {
            self.interrupted()?;
            let asked = async || self.ec2.inner().volumes_that_are(&which).await;
            let seen = self.ec2.call("DescribeVolumes", asked).await?;
            if done(&seen).map_err(Stopped::Here)? {
                return Ok(());
            }
            if self.clock.elapsed() >= end {
                let states: Vec<String> = seen.iter().map(|v| format!("{} is {}", v.id, v.state)).collect();
                return Err(Stopped::Here(format!(
                    "after {} min: {}",
                    LIMIT.as_secs() / 60,
                    if states.is_empty() {
                        "EC2 shows none of the volumes".to_owned()
                    } else {
                        states.join(", ")
                    }
                )));
            }
            self.clock.pause(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Makes every volume of the plan, all at the same time, and waits until they can be attached. Returns their ids in
    /// the plan's order; `made` is told each as soon as it is known.
    ///
    /// # Errors
    /// The first that was not made.
    pub async fn create(&self, plan: &RestorePlan) -> Result<Vec<VolumeId>, Stopped> {
        self.interrupted()?;
        let one = async |number: usize| {
            let request = plan.request(number).ok_or_else(|| Stopped::Here("no such volume".to_owned()))?;
            let asked = async || self.ec2.inner().create_volume(&request).await;
            let id = self.ec2.call("CreateVolume", asked).await?;
            (self.tell)(&format!(
                "{id} of {} ({} GiB, {})",
                request.snapshot, plan.volumes[number].size_gib, request.volume_type
            ));
            Ok::<_, Stopped>(id)
        };
        let made = join_all((0..plan.volumes.len()).map(one)).await;
        let ids: Vec<VolumeId> = made.into_iter().collect::<Result<_, _>>()?;
        // A volume whose key cannot be used is there for a moment, and then it is not.
        let mut shown: Vec<VolumeId> = Vec::new();
        self.until(&ids, |seen| {
            for id in &ids {
                match seen.iter().find(|v| v.id == *id).map(|v| v.state.as_str()) {
                    Some("available" | "in-use" | "creating") => {
                        if !shown.contains(id) {
                            shown.push(id.clone());
                        }
                    }
                    None if !shown.contains(id) => {}
                    state => {
                        let state = state.unwrap_or("gone");
                        return Err(format!(
                            "{id} could not be made: it is {state}. Most often the key of the snapshot, or the one to \
                             encrypt with, cannot be used: it is disabled, or its policy does not allow this role \
                             kms:CreateGrant, kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext"
                        ));
                    }
                }
            }
            let ready = |v: &&VolumeView| matches!(v.state.as_str(), "available" | "in-use");
            Ok(seen.iter().filter(ready).count() == ids.len())
        })
        .await?;
        Ok(ids)
    }

    /// Attaches the volumes, each by its device name of the plan, and waits until EC2 says that they are.
    ///
    /// # Errors
    /// The first that is not.
    pub async fn attach(
        &self,
        plan: &RestorePlan,
        ids: &[VolumeId],
        instance: &InstanceId,
    ) -> Result<(), Stopped> {
        self.interrupted()?;
        let which = Which::Ids(ids.to_vec());
        let asked = async || self.ec2.inner().volumes_that_are(&which).await;
        let seen = self.ec2.call("DescribeVolumes", asked).await?;
        for (volume, id) in plan.volumes.iter().zip(ids) {
            let now = seen.iter().find(|v| v.id == *id);
            if now.is_some_and(|v| v.attachments.iter().any(|a| a.instance.as_ref() == Some(instance))) {
                continue;
            }
            let name = volume.device_name.as_deref().unwrap_or_default();
            // Not repeated by itself: after a lost answer it is attached, and a second call is refused for that.
            let asked = async || match self.ec2.inner().attach_volume(id, instance, name).await {
                Err(Ec2Error::Refused { code, message, .. })
                    if code == "VolumeInUse" && message.contains(instance.as_str()) =>
                {
                    Ok(())
                }
                other => other,
            };
            self.ec2.call("AttachVolume", asked).await?;
        }
        self.until(ids, |seen| {
            let attached = |v: &&VolumeView| {
                let here = v.attachments.iter().find(|a| a.instance.as_ref() == Some(instance));
                here.is_some_and(|a| a.state == "attached")
            };
            Ok(seen.iter().filter(attached).count() == ids.len())
        })
        .await
    }

    /// Detaches these, waits until they are, and deletes them.
    ///
    /// # Errors
    /// The first that stays.
    pub async fn take_away(&self, volumes: &[VolumeView]) -> Result<(), Stopped> {
        let ids: Vec<VolumeId> = volumes.iter().map(|v| v.id.clone()).collect();
        // EC2 detaches none that it still attaches.
        let mut attached = BTreeSet::new();
        self.until(&ids, |seen| {
            let all = || seen.iter().flat_map(|v| v.attachments.iter().map(move |a| (v, a)));
            attached = all().filter(|(_, a)| a.state == "attached").map(|(v, _)| v.id.clone()).collect();
            Ok(all().all(|(_, a)| a.state != "attaching"))
        })
        .await?;
        for id in &attached {
            let asked = async || match self.ec2.inner().detach_volume(id).await {
                // Its answer got lost, and it is detached.
                Err(Ec2Error::Refused { code, .. }) if code == "IncorrectState" => Ok(()),
                other => other,
            };
            self.ec2.call("DetachVolume", asked).await?;
        }
        self.until(&ids, |seen| {
            if let Some(busy) = seen.iter().find(|v| v.attachments.iter().any(|a| a.state == "busy")) {
                return Err(format!("{} cannot be detached: something on the host still uses it", busy.id));
            }
            // EC2 deletes none that it still makes.
            let under_way = |v: &VolumeView| matches!(v.state.as_str(), "in-use" | "creating");
            Ok(seen.iter().all(|v| v.attachments.is_empty() && !under_way(v)))
        })
        .await?;
        for id in &ids {
            self.ec2.call("DeleteVolume", async || self.ec2.inner().delete_volume(id).await).await?;
            (self.tell)(&format!("{id} is deleted"));
        }
        Ok(())
    }
}
