//! [`Keep`] by the AWS SDK.
//!
//! In: ids. Out: plain values. Must never: take an answer that was cut off for a whole one.

use std::collections::BTreeSet;

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    LockMode as SdkLockMode, LockState, OperationType, SnapshotAttributeName, TargetStorageTier,
};
use jiff::Timestamp;

use super::{Aws, filter, parse, tagged, time};
use crate::ec2::images::{Images as _, SnapshotResult, WITH_SET_TAG};
use crate::ec2::keep::{
    Binned, EVERYBODY, ImageUse, Keep, Lock, LockEnd, LockMode, LockView, Page, Permission, TierView, Wanted,
};
use crate::ec2::{Ec2, Ec2Error, RUN_TAG};
use crate::ids::{ImageId, InstanceId, SnapshotId, VolumeId};

/// A filter takes at most so many values (EC2 API reference, "Filter").
const VALUES: usize = 200;

fn strings(ids: &[SnapshotId]) -> Vec<String> {
    ids.iter().map(|s| s.as_str().to_owned()).collect()
}

impl Keep for Aws {
    fn region(&self) -> &str {
        self.connection.client.config().region().map_or("", |r| r.as_ref())
    }

    async fn clocks(&self) -> Result<(Timestamp, Timestamp), Ec2Error> {
        // Only an error has its headers here, and a DryRun is answered by one.
        let said = self.dry_run_of_tags(None).await;
        match said.dates {
            (Some(date), here) => Ok((date, here)),
            (None, _) => Err(said
                .allowed
                .err()
                .unwrap_or_else(|| Ec2Error::unknown("CreateTags", "the answer has no date"))),
        }
    }

    async fn page(&self, wanted: &Wanted, token: Option<&str>) -> Result<Page, Ec2Error> {
        const ACTION: &str = "DescribeSnapshots";
        self.ready(ACTION).await?;
        let filters = match wanted {
            Wanted::All => vec![filter("tag-key", [RUN_TAG])],
            Wanted::Tagged(tags) => {
                let tagged = tags.iter().map(|(k, v)| filter(&format!("tag:{k}"), [v.as_str()]));
                std::iter::once(filter("tag-key", [RUN_TAG])).chain(tagged).collect()
            }
            Wanted::OfVolumes(ids) => vec![filter("volume-id", ids.iter().map(VolumeId::as_str))],
            Wanted::Ids(ids) => vec![filter("snapshot-id", ids.iter().map(SnapshotId::as_str))],
        };
        let call = self.connection.client.describe_snapshots().owner_ids("self").set_filters(Some(filters));
        let answer = call.max_results(1000).set_next_token(token.map(str::to_owned)).send().await;
        let answer = answer.map_err(|e| self.sort(ACTION, &e))?;
        let one = |s| Ok(tagged(super::described(ACTION, s)?, s));
        Ok(Page {
            snapshots: answer.snapshots().iter().map(one).collect::<Result<_, Ec2Error>>()?,
            next: answer.next_token().filter(|t| !t.is_empty()).map(str::to_owned),
        })
    }

    async fn images(&self, snapshots: &[SnapshotId]) -> Result<Vec<ImageUse>, Ec2Error> {
        const ACTION: &str = "DescribeImages";
        let mut found = Vec::new();
        for some in snapshots.chunks(VALUES) {
            self.ready(ACTION).await?;
            let used = filter("block-device-mapping.snapshot-id", some.iter().map(SnapshotId::as_str));
            let mut pages = self
                .connection
                .client
                .describe_images()
                .owners("self")
                .include_disabled(true)
                .filters(used)
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                for image in page.map_err(|e| self.sort(ACTION, &e))?.images() {
                    let state = match image.deprecation_time().and_then(|t| t.parse::<Timestamp>().ok()) {
                        Some(at) if at <= Timestamp::now() => "deprecated",
                        _ => image.state().map_or("", |s| s.as_str()),
                    };
                    let image = super::images::view(image)?;
                    let used = || image.mappings.iter().filter_map(|m| m.snapshot.clone());
                    let whole = !image.others && used().count() == image.mappings.len();
                    let all = whole.then(|| used().collect::<Vec<_>>());
                    let goes_with = image.set().filter(|_| image.tag(WITH_SET_TAG).is_some());
                    found.extend(used().filter(|id| some.contains(id)).map(|snapshot| ImageUse {
                        snapshot,
                        image: image.id.clone(),
                        state: state.to_owned(),
                        goes_with: goes_with.clone(),
                        all: all.clone(),
                    }));
                }
            }
        }
        Ok(found)
    }

    async fn locks(&self, snapshots: &[SnapshotId]) -> Result<Vec<LockView>, Ec2Error> {
        if snapshots.is_empty() {
            return Ok(Vec::new());
        }
        // With very many, the list of all locks is shorter: few snapshots of an account are locked.
        if snapshots.len() <= VALUES {
            match self.locked(Some(strings(snapshots))).await {
                // One is deleted, and EC2 still lists it elsewhere. Which one is not known: all locks are asked for.
                Err(e) if e.is_no_snapshot() => {}
                told => return told,
            }
        }
        let these: BTreeSet<&SnapshotId> = snapshots.iter().collect();
        let mut found = self.locked(None).await?;
        found.retain(|lock| these.contains(&lock.snapshot));
        Ok(found)
    }

    async fn lock(&self, snapshot: &SnapshotId, lock: &Lock) -> Result<LockView, Ec2Error> {
        const ACTION: &str = "LockSnapshot";
        self.ready(ACTION).await?;
        let (days, date) = match lock.end {
            LockEnd::Days(days) => (i32::try_from(days).ok(), None),
            LockEnd::At(at) => (None, Some(DateTime::from_secs(at.as_second()))),
        };
        let call = self
            .connection
            .client
            .lock_snapshot()
            .snapshot_id(snapshot.as_str())
            .lock_mode(match lock.mode {
                LockMode::Governance => SdkLockMode::Governance,
                LockMode::Compliance => SdkLockMode::Compliance,
            })
            .set_cool_off_period(lock.cool_off.and_then(|hours| i32::try_from(hours).ok()))
            .set_lock_duration(days)
            .set_expiration_date(date);
        let made = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        Ok(LockView {
            snapshot: snapshot.clone(),
            state: made.lock_state().map_or("", LockState::as_str).to_owned(),
            until: time(made.lock_expires_on()),
            days: made.lock_duration().and_then(|days| u32::try_from(days).ok()),
            cool_off_until: time(made.cool_off_period_expires_on()),
        })
    }

    async fn unlock(&self, snapshot: &SnapshotId) -> Result<(), Ec2Error> {
        const ACTION: &str = "UnlockSnapshot";
        self.ready(ACTION).await?;
        let call = self.connection.client.unlock_snapshot().snapshot_id(snapshot.as_str());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn shared_with(&self, snapshot: &SnapshotId) -> Result<Vec<String>, Ec2Error> {
        const ACTION: &str = "DescribeSnapshotAttribute";
        self.ready(ACTION).await?;
        let answer = self
            .connection
            .client
            .describe_snapshot_attribute()
            .snapshot_id(snapshot.as_str())
            .attribute(SnapshotAttributeName::CreateVolumePermission)
            .send()
            .await
            .map_err(|e| self.sort(ACTION, &e))?;
        let who = answer.create_volume_permissions().iter();
        Ok(who.filter_map(|p| p.user_id().or(p.group().map(|g| g.as_str())).map(str::to_owned)).collect())
    }

    async fn permit(
        &self,
        snapshot: &SnapshotId,
        change: Permission,
        who: &[String],
    ) -> Result<(), Ec2Error> {
        const ACTION: &str = "ModifySnapshotAttribute";
        self.ready(ACTION).await?;
        let (groups, users): (Vec<String>, Vec<String>) = who.iter().cloned().partition(|w| w == EVERYBODY);
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let call = self
            .connection
            .client
            .modify_snapshot_attribute()
            .snapshot_id(snapshot.as_str())
            .attribute(SnapshotAttributeName::CreateVolumePermission)
            .operation_type(match change {
                Permission::Add => OperationType::Add,
                Permission::Remove => OperationType::Remove,
            })
            .set_user_ids(some(users))
            .set_group_names(some(groups));
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn public_access(&self) -> Result<String, Ec2Error> {
        const ACTION: &str = "GetSnapshotBlockPublicAccessState";
        self.ready(ACTION).await?;
        let call = self.connection.client.get_snapshot_block_public_access_state();
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let state = answer.state().map(|s| s.as_str().to_owned());
        state.ok_or_else(|| Ec2Error::unknown(ACTION, "the answer has no state"))
    }

    async fn tiers(&self, snapshots: &[SnapshotId]) -> Result<Vec<TierView>, Ec2Error> {
        const ACTION: &str = "DescribeSnapshotTierStatus";
        let mut found = Vec::new();
        for some in snapshots.chunks(VALUES) {
            self.ready(ACTION).await?;
            let of = filter("snapshot-id", some.iter().map(SnapshotId::as_str));
            let mut pages =
                self.connection.client.describe_snapshot_tier_status().filters(of).into_paginator().send();
            while let Some(page) = pages.next().await {
                for status in page.map_err(|e| self.sort(ACTION, &e))?.snapshot_tier_statuses() {
                    found.push(TierView {
                        snapshot: parse(ACTION, status.snapshot_id())?,
                        tier: status.storage_tier().map_or("standard", |t| t.as_str()).to_owned(),
                        last_move: status.last_tiering_operation_status().map(|s| s.as_str().to_owned()),
                        progress: status.last_tiering_progress(),
                        archived: time(status.archival_complete_time()),
                        restored_until: time(status.restore_expiry_time()),
                    });
                }
            }
        }
        Ok(found)
    }

    async fn archive(&self, snapshot: &SnapshotId) -> Result<(), Ec2Error> {
        const ACTION: &str = "ModifySnapshotTier";
        self.ready(ACTION).await?;
        let call = self.connection.client.modify_snapshot_tier().snapshot_id(snapshot.as_str());
        let call = call.storage_tier(TargetStorageTier::Archive);
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn unarchive(&self, snapshot: &SnapshotId, days: Option<u32>) -> Result<(), Ec2Error> {
        const ACTION: &str = "RestoreSnapshotTier";
        self.ready(ACTION).await?;
        let call = self.connection.client.restore_snapshot_tier().snapshot_id(snapshot.as_str());
        let call = match days {
            Some(days) => call.set_temporary_restore_days(i32::try_from(days).ok()),
            None => call.permanent_restore(true),
        };
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, Ec2Error> {
        const ACTION: &str = "DescribeInstances";
        let mut found = Vec::new();
        for some in ids.chunks(VALUES) {
            self.ready(ACTION).await?;
            let of = filter("instance-id", some.iter().map(InstanceId::as_str));
            let mut pages = self.connection.client.describe_instances().filters(of).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|e| self.sort(ACTION, &e))?;
                for instance in page.reservations().iter().flat_map(|r| r.instances()) {
                    let gone =
                        instance.state().and_then(|s| s.name()).map(|n| n.as_str()) == Some("terminated");
                    if !gone {
                        found.push(parse(ACTION, instance.instance_id())?);
                    }
                }
            }
        }
        Ok(found)
    }

    async fn regions(&self) -> Result<Vec<String>, Ec2Error> {
        const ACTION: &str = "DescribeRegions";
        self.ready(ACTION).await?;
        let answer = self.connection.client.describe_regions().send().await;
        let answer = answer.map_err(|e| self.sort(ACTION, &e))?;
        Ok(answer.regions().iter().filter_map(|r| r.region_name().map(str::to_owned)).collect())
    }

    async fn bin(&self) -> Result<Vec<Binned>, Ec2Error> {
        const ACTION: &str = "ListSnapshotsInRecycleBin";
        self.ready(ACTION).await?;
        let mut pages = self.connection.client.list_snapshots_in_recycle_bin().into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for binned in page.map_err(|e| self.sort(ACTION, &e))?.snapshots() {
                found.push(Binned {
                    id: parse(ACTION, binned.snapshot_id())?,
                    volume_id: parse(ACTION, binned.volume_id())?,
                    description: binned.description().unwrap_or_default().to_owned(),
                    entered: time(binned.recycle_bin_enter_time()),
                    exits: time(binned.recycle_bin_exit_time()),
                });
            }
        }
        Ok(found)
    }

    async fn put_tags(&self, snapshots: &[SnapshotId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        self.tag(snapshots, tags).await
    }

    async fn remove_tags(&self, snapshots: &[SnapshotId], keys: &[&str]) -> Result<(), Ec2Error> {
        const ACTION: &str = "DeleteTags";
        self.ready(ACTION).await?;
        // Without a value, whatever value it has (EC2 API reference, DeleteTags).
        let tag = |key: &&str| aws_sdk_ec2::types::Tag::builder().key(*key).build();
        let call = self.connection.client.delete_tags().set_resources(Some(strings(snapshots)));
        let call = call.set_tags(Some(keys.iter().map(tag).collect()));
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }

    async fn delete(&self, snapshot: &SnapshotId) -> Result<(), Ec2Error> {
        const ACTION: &str = "DeleteSnapshot";
        self.ready(ACTION).await?;
        let call = self.connection.client.delete_snapshot().snapshot_id(snapshot.as_str());
        match call.send().await.map_err(|e| self.sort(ACTION, &e)) {
            Err(e) if e.is_no_snapshot() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn deregister_image(&self, image: &ImageId) -> Result<Vec<SnapshotResult>, Ec2Error> {
        self.deregister(image, true).await
    }

    async fn undelete(&self, snapshot: &SnapshotId) -> Result<(), Ec2Error> {
        const ACTION: &str = "RestoreSnapshotFromRecycleBin";
        self.ready(ACTION).await?;
        let call = self.connection.client.restore_snapshot_from_recycle_bin().snapshot_id(snapshot.as_str());
        call.send().await.map(drop).map_err(|e| self.sort(ACTION, &e))
    }
}

impl Aws {
    /// Locks of these snapshots, or every lock of the account.
    async fn locked(&self, ids: Option<Vec<String>>) -> Result<Vec<LockView>, Ec2Error> {
        const ACTION: &str = "DescribeLockedSnapshots";
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            self.ready(ACTION).await?;
            let call = self.connection.client.describe_locked_snapshots().set_snapshot_ids(ids.clone());
            let answer =
                call.set_next_token(token.clone()).send().await.map_err(|e| self.sort(ACTION, &e))?;
            for lock in answer.snapshots() {
                found.push(LockView {
                    snapshot: parse(ACTION, lock.snapshot_id())?,
                    state: lock.lock_state().map_or("", LockState::as_str).to_owned(),
                    until: time(lock.lock_expires_on()),
                    days: lock.lock_duration().and_then(|days| u32::try_from(days).ok()),
                    cool_off_until: time(lock.cool_off_period_expires_on()),
                });
            }
            match answer.next_token().filter(|t| !t.is_empty()) {
                Some(next) if token.as_deref() != Some(next) => token = Some(next.to_owned()),
                Some(_) => return Err(Ec2Error::unknown(ACTION, "the next page is this one again")),
                None => return Ok(found),
            }
        }
    }
}
