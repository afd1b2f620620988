//! CopySnapshot: another snapshot of the same data, here or in another Region.
//!
//! In: a completed snapshot. Out: a pending one that shares its image, which never changes. The key must
//! never decide about the answer: EC2 looks at it afterwards, and the copy ends in `error`.

use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{keys, snapshots, tags};
use crate::faults::{Hit, Kind};
use crate::ids::{SnapshotId, VolumeId};
use crate::world::{Later, NO_VOLUME, Snapshot, Tags, World};

pub struct Copy {
    source_region: String,
    source: SnapshotId,
    description: String,
    encrypted: Option<bool>,
    key: Option<String>,
    minutes: Option<u32>,
    tags: Tags,
}

impl Copy {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let source_region = params.required("SourceRegion")?;
        let source = snapshots::parse_id(&params.required("SourceSnapshotId")?)?;
        let description = snapshots::description(params)?;
        for elsewhere in ["DestinationOutpostArn", "DestinationAvailabilityZone"] {
            if params.text(elsewhere).is_some() {
                return Err(Ec2Error::invalid_value(format!(
                    "The {elsewhere} parameter is not supported: the source snapshot is in a Region"
                )));
            }
        }
        // They say nothing that the source parameters and the endpoint do not say; clients send them.
        params.text("PresignedUrl");
        params.text("DestinationRegion");
        let encrypted = params.maybe_flag("Encrypted")?;
        let key = params.text("KmsKeyId");
        if key.is_some() && encrypted != Some(true) {
            return Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        let minutes: Option<u32> = params.number("CompletionDurationMinutes")?;
        if minutes.is_some_and(|minutes| !(15..=2880).contains(&minutes) || minutes % 15 != 0) {
            return Err(Ec2Error::invalid_value(
                "CompletionDurationMinutes must be a multiple of 15 between 15 and 2880",
            ));
        }
        let tags = params.tag_specifications("snapshot")?;
        tags::check_count(tags.len())?;
        Ok(Self { source_region, source, description, encrypted, key, minutes, tags })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let mut needs = vec![Need::on("ec2:CopySnapshot", world, "snapshot/*")];
        if !self.tags.is_empty() {
            needs.push(Need::on("ec2:CreateTags", world, "snapshot/*"));
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        // Without it a deletion could remove the source's image before the copy is known to need it.
        let _commit = context.sim.commit.lock().await;
        let fault_of = |kind| faults.iter().map(|hit| &hit.fault).find(|fault| fault.kind == kind);
        let id = {
            let mut world = context.sim.change();
            let mut copy = self.make(&world, context.region(), context.now)?;
            copy.fails |= fault_of(Kind::SnapshotError).is_some();
            if let Some(fault) = fault_of(Kind::SlowProgress) {
                copy.takes = fault.slowed(copy.takes);
            }
            copy.visible_from =
                fault_of(Kind::LateVisibility).and_then(|fault| copy.started.checked_add(fault.delay()).ok());
            let id = copy.id.clone();
            if !self.tags.is_empty() {
                world.tags.insert(id.to_string(), self.tags.clone());
            }
            world.snapshots.insert(id.clone(), copy);
            id
        };
        context.sim.note(context.number, |entry| entry.snapshot_ids = vec![id.to_string()]);
        Ok(context.response(|xml| {
            xml.text("snapshotId", &id);
            xml.tags(&self.tags);
        }))
    }

    /// The copy, when it may be made.
    fn make(&self, world: &World, region: &str, now: Timestamp) -> Result<Snapshot, Ec2Error> {
        if !world.regions().any(|known| known == self.source_region) {
            return Err(Ec2Error::invalid_value(format!(
                "Value ({}) for parameter sourceRegion is invalid. It is not a Region.",
                self.source_region
            )));
        }
        let source = snapshots::usable(world, &self.source_region, &self.source, now)?;
        if source.encrypted && self.encrypted == Some(false) {
            return Err(Ec2Error::invalid_value(
                "Value (false) for parameter encrypted is invalid. Copies of encrypted snapshots are \
                 encrypted.",
            ));
        }
        check_copies(world, region, now)?;
        snapshots::check_room(world, region, 1)?;
        let encrypted = source.encrypted || self.encrypted == Some(true);
        let key = encrypted.then(|| keys::find(world, region, self.key.as_deref()));
        // EBS has to decrypt the source before it can encrypt the copy with another key.
        let readable = source
            .kms_key_id
            .as_deref()
            .is_none_or(|arn| keys::find(world, &self.source_region, Some(arn)).usable);
        let usable = readable && key.as_ref().is_none_or(|key| key.usable);
        let takes = world.scenario.snapshots.time_to_complete(source.size_bytes);
        let promised = self.minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
        let Some(volume_id) = VolumeId::parse(NO_VOLUME) else { return Err(Ec2Error::internal()) };
        Ok(Snapshot {
            visible_from: None,
            id: SnapshotId::random(),
            region: region.to_owned(),
            volume_id,
            size_gib: source.size_gib,
            size_bytes: source.size_bytes,
            description: self.description.clone(),
            started: now,
            takes: promised.map_or(takes, |promised| takes.min(promised)),
            fails: !usable,
            encrypted,
            kms_key_id: key.and_then(|key| key.arn),
            reason: (!usable).then(|| keys::UNUSABLE.to_owned()),
            image: source.image.clone(),
            sizes: source.sizes,
            later: Later { completion_minutes: self.minutes, ..Later::default() },
        })
    }
}

fn check_copies(world: &World, region: &str, now: Timestamp) -> Result<(), Ec2Error> {
    let most = world.scenario.limits.copies_per_region;
    let copying = |snapshot: &&Snapshot| {
        snapshot.region == region && snapshot.is_copy() && snapshot.progress(now).state == "pending"
    };
    if most > 0 && world.snapshots.values().filter(copying).count() >= most {
        return Err(Ec2Error::new(
            "ResourceLimitExceeded",
            format!("Too many snapshot copies in progress. The limit is {most} for this destination region."),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{KeyState, Scenario};
    use crate::world::test_snapshot;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// An account with one snapshot, completed at 1010.
    fn world() -> (World, SnapshotId) {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let source = test_snapshot(10, false);
        let id = source.id.clone();
        world.snapshots.insert(id.clone(), source);
        (world, id)
    }

    fn copy(id: &SnapshotId, rest: &str) -> Result<Copy, Ec2Error> {
        let form = format!("SourceRegion=us-east-1&SourceSnapshotId={id}&{rest}");
        let mut params = Params::parse(&[form.as_bytes()]);
        let copy = Copy::parse(&mut params)?;
        params.finish()?;
        Ok(copy)
    }

    fn code(outcome: Result<impl Sized, Ec2Error>) -> String {
        outcome.err().map(|error| error.code).expect("refused")
    }

    #[test]
    fn the_source_must_be_completed_and_in_the_source_region() {
        let (world, id) = world();
        let wanted = copy(&id, "").expect("good");
        assert_eq!(code(wanted.make(&world, "us-west-2", at(1005))), "IncorrectState");
        let made = wanted.make(&world, "us-west-2", at(1010)).expect("completed");
        assert_eq!((made.volume_id.as_str(), made.region.as_str()), (NO_VOLUME, "us-west-2"));
        assert!(made.is_copy() && !made.encrypted && made.kms_key_id.is_none());
        assert_eq!(made.progress(at(1010)).state, "pending");
        let elsewhere = Copy { source_region: "us-west-2".into(), ..wanted };
        assert_eq!(code(elsewhere.make(&world, "us-west-2", at(1010))), "InvalidSnapshot.NotFound");
        let nowhere = Copy { source_region: "mars-1".into(), ..elsewhere };
        assert_eq!(code(nowhere.make(&world, "us-west-2", at(1010))), "InvalidParameterValue");
    }

    #[test]
    fn encryption_can_be_turned_on_and_never_off() {
        let (mut world, id) = world();
        assert_eq!(code(copy(&id, "KmsKeyId=alias/x")), "InvalidParameterDependency");
        assert_eq!(code(copy(&id, "KmsKeyId=alias/x&Encrypted=false")), "InvalidParameterDependency");
        let on = copy(&id, "Encrypted=true").expect("good");
        let made = on.make(&world, "us-west-2", at(2000)).expect("good");
        assert!(made.encrypted && !made.fails);
        assert_eq!(made.kms_key_id, keys::find(&world, "us-west-2", None).arn);
        let source = world.snapshots.get_mut(&id).expect("there");
        source.encrypted = true;
        let off = copy(&id, "Encrypted=false").expect("good");
        assert_eq!(code(off.make(&world, "us-west-2", at(2000))), "InvalidParameterValue");
        let silent = copy(&id, "").expect("good").make(&world, "us-west-2", at(2000)).expect("good");
        assert!(silent.encrypted);
    }

    #[test]
    fn a_bad_key_shows_only_later() {
        let (mut world, id) = world();
        let wanted = copy(&id, "Encrypted=true&KmsKeyId=alias/nobodys").expect("good");
        let made = wanted.make(&world, "us-west-2", at(2000)).expect("EC2 answers as if it were good");
        assert_eq!(made.progress(at(2000)).state, "pending");
        assert_eq!(made.progress(at(3000)).state, "error");
        assert_eq!(made.reason.as_deref(), Some(keys::UNUSABLE));
        // The source's key counts too.
        let arn = keys::find(&world, "us-east-1", None).arn;
        let source = world.snapshots.get_mut(&id).expect("there");
        (source.encrypted, source.kms_key_id) = (true, arn);
        let wanted = copy(&id, "").expect("good");
        assert!(!wanted.make(&world, "us-west-2", at(2000)).expect("good").fails);
        world.kms_keys[0].state = KeyState::Disabled;
        assert!(wanted.make(&world, "us-west-2", at(2000)).expect("good").fails);
    }

    #[test]
    fn twenty_copies_at_a_time_to_one_region() {
        let (mut world, id) = world();
        let wanted = copy(&id, "").expect("good");
        for _ in 0..20 {
            let made = wanted.make(&world, "us-west-2", at(2000)).expect("room");
            world.snapshots.insert(made.id.clone(), made);
        }
        assert_eq!(code(wanted.make(&world, "us-west-2", at(2001))), "ResourceLimitExceeded");
        assert!(wanted.make(&world, "eu-central-1", at(2001)).is_ok());
        assert!(wanted.make(&world, "us-west-2", at(2002)).is_ok(), "they are done");
        world.scenario.limits.snapshots = 20;
        assert_eq!(code(wanted.make(&world, "us-west-2", at(2002))), "SnapshotLimitExceeded");
    }

    #[test]
    fn a_time_based_copy_has_a_duration_in_quarters_of_an_hour() {
        let (world, id) = world();
        for bad in ["0", "14", "20", "2895"] {
            assert_eq!(code(copy(&id, &format!("CompletionDurationMinutes={bad}"))), "InvalidParameterValue");
        }
        let made =
            copy(&id, "CompletionDurationMinutes=30").expect("good").make(&world, "us-west-2", at(2000));
        assert_eq!(made.expect("good").later.completion_minutes, Some(30));
    }
}
