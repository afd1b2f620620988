//! Volumes are made, attached, detached and deleted, and each is followed until EC2 says that it is so.
//!
//! In: a plan; volumes. Out: the same, as EC2 shows them. Must never: make a volume twice (its token is the plan's), or
//! attach one before its disk is hidden from the host.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::plan::RestorePlan;
use crate::clock::Clock;
use crate::ec2::Ec2Error;
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::{VolumeView, Volumes, Which};
use crate::ids::{InstanceId, VolumeId};
use crate::interrupt::Interrupt;

/// The shortest pause between two looks, and the longest: creating and attaching take seconds, a key that fails longer.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// Else a pause is this part of the wait so far: so much longer than EC2 takes, at most, it lasts.
const PART: u32 = 10;
/// What EC2 has not shown or done by then, it will not.
const LIMIT: Duration = Duration::from_secs(600);

/// So long something on the host may have a disk open that EC2 is to detach: whoever looks at all disks lets go of it, and
/// EC2 goes on.
const BUSY: Duration = Duration::from_secs(30);

/// So long a device name may be in use after what had it was detached.
const NAMES: Duration = Duration::from_secs(120);

/// So long EC2 may not show a volume that there is: it shows some of what it has later than it says so (EC2 guide,
/// "eventual consistency").
const UNSHOWN: Duration = Duration::from_secs(20);

/// Has another volume this device name, or had it a moment ago?
pub(super) fn is_name_in_use(error: &Ec2Error) -> bool {
    matches!(error, Ec2Error::Refused { code, message, .. }
        if code == "InvalidParameterValue" && message.contains("already in use"))
}

/// Notes a lost answer, which may be of a call that was carried out, whatever EC2 says to its repetition.
fn noting<T>(lost: &Cell<bool>, said: Result<T, Ec2Error>) -> Result<T, Ec2Error> {
    lost.set(lost.get() || said.as_ref().is_err_and(Ec2Error::outcome_unknown));
    said
}

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
    /// EC2 has not done in time what it began.
    #[error("{0}")]
    Late(String),
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
        let began = self.clock.elapsed();
        let which = Which::Ids(ids.to_vec());
        loop {
            self.interrupted()?;
            let asked = async || self.ec2.inner().volumes_that_are(&which).await;
            let seen = self.ec2.call("DescribeVolumes", asked).await?;
            if done(&seen).map_err(Stopped::Here)? {
                return Ok(());
            }
            let waited = self.clock.elapsed().saturating_sub(began);
            if waited >= LIMIT {
                let states: Vec<String> = seen.iter().map(|v| format!("{} is {}", v.id, v.state)).collect();
                return Err(Stopped::Late(format!(
                    "after {} min: {}",
                    LIMIT.as_secs() / 60,
                    if states.is_empty() {
                        "EC2 shows none of the volumes".to_owned()
                    } else {
                        states.join(", ")
                    }
                )));
            }
            self.clock.pause((waited / PART).clamp(FIRST, LONGEST)).await;
        }
    }

    /// Makes the volumes of the plan that are not made yet, all at the same time, and waits until they can be attached.
    /// Returns their ids in the plan's order; `made` is told each as soon as EC2 has answered.
    ///
    /// # Errors
    /// The first that was not made.
    pub async fn create(
        &self,
        plan: &RestorePlan,
        known: &BTreeMap<usize, VolumeId>,
        mut made: impl FnMut(usize, &VolumeId) -> Result<(), String>,
    ) -> Result<Vec<VolumeId>, Stopped> {
        self.interrupted()?;
        let one = async |number: usize| {
            let request = plan.request(number).ok_or_else(|| Stopped::Here("no such volume".to_owned()))?;
            let asked = async || self.ec2.inner().create_volume(&request).await;
            Ok::<_, Stopped>((number, self.ec2.call("CreateVolume", asked).await?))
        };
        let missing = (0..plan.volumes.len()).filter(|n| !known.contains_key(n));
        let mut asked: FuturesUnordered<_> = missing.map(one).collect();
        let (mut all, mut failed) = (known.clone(), None);
        while let Some(said) = asked.next().await {
            match said {
                Ok((number, id)) => {
                    let volume = &plan.volumes[number];
                    (self.tell)(&format!(
                        "{id} of {} ({} GiB, {})",
                        volume.made_of(),
                        volume.size_gib,
                        volume.volume_type
                    ));
                    made(number, &id).map_err(Stopped::Here)?;
                    all.insert(number, id);
                }
                Err(stopped) => failed = failed.or(Some(stopped)),
            }
        }
        if let Some(stopped) = failed {
            return Err(stopped);
        }
        let ids: Vec<VolumeId> = all.into_values().collect();
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

    /// Attaches the volumes, each by its device name of the plan or by a spare one, and waits until EC2 says that they
    /// are.
    ///
    /// # Errors
    /// The first that is not.
    pub async fn attach(
        &self,
        plan: &RestorePlan,
        ids: &[VolumeId],
        instance: &InstanceId,
    ) -> Result<(), Stopped> {
        let names: Vec<&str> =
            plan.volumes.iter().map(|v| v.device_name.as_deref().unwrap_or_default()).collect();
        self.attach_as(ids, &names, &plan.spare_names, instance, || {}).await
    }

    /// Attaches the volumes by these device names, or by spare ones. Where there is no spare one, a name that is in use
    /// is waited for: another volume that had it was detached a moment before. `taken` is called as soon as EC2 has, or may
    /// have, taken one of the calls.
    ///
    /// # Errors
    /// The first that is not.
    pub async fn attach_as(
        &self,
        ids: &[VolumeId],
        names: &[&str],
        spare: &[String],
        instance: &InstanceId,
        mut taken: impl FnMut(),
    ) -> Result<(), Stopped> {
        self.interrupted()?;
        let here = |v: &VolumeView| v.attachments.iter().any(|a| a.instance.as_ref() == Some(instance));
        let stranger = |seen: &[VolumeView]| {
            let strange = seen.iter().find(|v| !v.attachments.is_empty() && !here(v));
            strange.map(|v| format!("{} is attached to another instance", v.id))
        };
        // EC2 attaches none that it still detaches.
        let (mut free, began) = (BTreeSet::new(), self.clock.elapsed());
        self.until(ids, |seen| {
            if let Some(why) = stranger(seen) {
                return Err(why);
            }
            let shown = |id: &&VolumeId| seen.iter().any(|v| v.id == **id && !v.is_gone());
            if let Some(gone) = ids.iter().find(|id| !shown(id)) {
                let late = self.clock.elapsed().saturating_sub(began) >= UNSHOWN;
                return if late { Err(format!("{gone} does not exist any more")) } else { Ok(false) };
            }
            free = seen.iter().filter(|v| v.attachments.is_empty()).map(|v| v.id.clone()).collect();
            let under_way = |state: &str| matches!(state, "detaching" | "busy");
            Ok(seen.iter().all(|v| v.attachments.iter().all(|a| !under_way(&a.state))))
        })
        .await?;
        if free.len() < ids.len() {
            taken();
        }
        let (mut left, end) = (spare.iter(), self.clock.elapsed() + NAMES);
        for (id, name) in ids.iter().zip(names).filter(|(id, _)| free.contains(id)) {
            let (mut name, lost) = (*name, Cell::new(false));
            loop {
                let asked = async || noting(&lost, self.ec2.inner().attach_volume(id, instance, name).await);
                let said = self.ec2.call("AttachVolume", asked).await;
                let in_use = |code: &str| code == "VolumeInUse";
                let attached = match &said {
                    Ok(()) => true,
                    // To whom, is looked at below.
                    Err(Ec2Error::Refused { code, .. }) if in_use(code) => true,
                    Err(_) => lost.get() && self.shows_attached(id).await,
                };
                // Of a lost answer nothing is certain: what EC2 shows may be of before.
                if attached || lost.get() {
                    taken();
                }
                match said {
                    _ if attached => break,
                    Err(e) if is_name_in_use(&e) => match left.next() {
                        // A name that was free a moment ago, or is not free yet.
                        Some(another) => name = another,
                        None if spare.is_empty() && self.clock.elapsed() < end => {
                            self.clock.pause(FIRST).await
                        }
                        None => return Err(e.into()),
                    },
                    said => said?,
                }
            }
        }
        self.until(ids, |seen| {
            if let Some(why) = stranger(seen) {
                return Err(why);
            }
            let attached = |v: &&VolumeView| here(v) && v.attachments.iter().all(|a| a.state == "attached");
            Ok(seen.iter().filter(attached).count() == ids.len())
        })
        .await
    }

    /// Detaches these from this instance, waits until they are, and deletes them. `from` is none on a computer that is
    /// no instance: then they must not be attached.
    ///
    /// # Errors
    /// The first that stays.
    pub async fn take_away(&self, volumes: &[VolumeView], from: Option<&InstanceId>) -> Result<(), Stopped> {
        let ids: Vec<VolumeId> = volumes.iter().map(|v| v.id.clone()).collect();
        self.detach(&ids, from).await?;
        for id in &ids {
            self.ec2.call("DeleteVolume", async || self.ec2.inner().delete_volume(id).await).await?;
            (self.tell)(&format!("{id} is deleted"));
        }
        Ok(())
    }

    /// Detaches these from this instance, and waits until they are. `from` as in [`Waiting::take_away`].
    ///
    /// # Errors
    /// The first that stays.
    pub async fn detach(&self, ids: &[VolumeId], from: Option<&InstanceId>) -> Result<(), Stopped> {
        let attached = self.attached(ids, &[], from).await?;
        self.detach_these(ids, &[], &attached, from, |_| {}, || {}).await
    }

    /// Those of these volumes that are attached to this instance. Waits for those that EC2 still attaches: it detaches none
    /// of them. The volumes `shown` have to be in its answers; of the others, one that is missing is gone.
    ///
    /// # Errors
    /// One that is attached elsewhere.
    pub(super) async fn attached(
        &self,
        ids: &[VolumeId],
        shown: &[VolumeId],
        from: Option<&InstanceId>,
    ) -> Result<BTreeSet<VolumeId>, Stopped> {
        let mut attached = BTreeSet::new();
        self.until(ids, |seen| {
            let all = || seen.iter().flat_map(|v| v.attachments.iter().map(move |a| (v, a)));
            if let Some((volume, _)) =
                all().find(|(_, a)| a.instance.is_none() || a.instance.as_ref() != from)
            {
                return Err(format!("{} is attached elsewhere: take it back there", volume.id));
            }
            attached = all().filter(|(_, a)| a.state == "attached").map(|(v, _)| v.id.clone()).collect();
            Ok(are_shown(seen, shown) && all().all(|(_, a)| a.state != "attaching"))
        })
        .await?;
        Ok(attached)
    }

    /// Does EC2 show this volume attached, or being attached? It is not asked twice.
    async fn shows_attached(&self, id: &VolumeId) -> bool {
        let which = Which::Ids(vec![id.clone()]);
        let asked = async || self.ec2.inner().volumes_that_are(&which).await;
        let seen = self.ec2.call("DescribeVolumes", asked).await.unwrap_or_default();
        seen.iter().any(|v| v.id == *id && !v.attachments.is_empty())
    }

    /// Detaches what [`Waiting::attached`] has found, and waits until all are. `let_go` is called right before each of them
    /// goes: whoever still has it open has to close it. `taken` is called as soon as EC2 has, or may have, taken one of the
    /// calls.
    ///
    /// # Errors
    /// The first that stays.
    pub(super) async fn detach_these(
        &self,
        ids: &[VolumeId],
        shown: &[VolumeId],
        attached: &BTreeSet<VolumeId>,
        from: Option<&InstanceId>,
        mut let_go: impl FnMut(&VolumeId),
        mut taken: impl FnMut(),
    ) -> Result<(), Stopped> {
        for id in ids {
            let_go(id);
            let Some(instance) = from.filter(|_| attached.contains(id)) else { continue };
            let lost = Cell::new(false);
            let asked = async || match noting(&lost, self.ec2.inner().detach_volume(id, instance).await) {
                // Its answer got lost, and it is detached.
                Err(Ec2Error::Refused { code, .. }) if code == "IncorrectState" => Ok(()),
                other => other,
            };
            let said = self.ec2.call("DetachVolume", asked).await;
            if said.is_ok() || lost.get() {
                taken();
            }
            said?;
        }
        let end = self.clock.elapsed() + BUSY;
        self.until(ids, |seen| {
            let busy = seen.iter().find(|v| v.attachments.iter().any(|a| a.state == "busy"));
            if let Some(busy) = busy.filter(|_| self.clock.elapsed() >= end) {
                return Err(format!("{} cannot be detached: something on the host still uses it", busy.id));
            }
            // EC2 deletes none that it still makes.
            let under_way = |v: &VolumeView| matches!(v.state.as_str(), "in-use" | "creating");
            Ok(are_shown(seen, shown) && seen.iter().all(|v| v.attachments.is_empty() && !under_way(v)))
        })
        .await
    }
}

fn are_shown(seen: &[VolumeView], ids: &[VolumeId]) -> bool {
    ids.iter().all(|id| seen.iter().any(|v| v.id == *id))
}
