//! CopySnapshot: another snapshot of the same data, here or in another Region.
//!
//! In: a snapshot. Out: a pending one that shares its image, which never changes. Whether the source is completed
//! and shared must never decide about the answer: EC2 looks afterwards, and the copy ends in `error`.

use std::time::Duration;

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{create, keys, snapshots, tags};
use crate::faults::{Hit, Kind};
use crate::ids::{SnapshotId, VolumeId};
use crate::world::{Later, NO_VOLUME, Sizes, Snapshot, Tags, World};

pub struct Copy {
    source_region: String,
    source: SnapshotId,
    description: String,
    encrypted: Option<bool>,
    key: Option<String>,
    minutes: Option<u32>,
    tags: Tags,
}

/// What a copy is to be encrypted with.
pub struct Encryption {
    pub encrypted: Option<bool>,
    pub key: Option<String>,
}

impl Encryption {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let encrypted = params.maybe_flag("Encrypted")?;
        let key = params.text("KmsKeyId");
        if key.is_some() && encrypted != Some(true) {
            return Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        Ok(Self { encrypted, key })
    }
}

/// Within how many minutes a copy is to be done.
pub fn minutes(params: &mut Params, name: &str) -> Result<Option<u32>, Ec2Error> {
    let minutes: Option<u32> = params.number(name)?;
    if minutes.is_some_and(|minutes| !(15..=2880).contains(&minutes) || minutes % 15 != 0) {
        return Err(Ec2Error::invalid_value(format!("{name} must be a multiple of 15 between 15 and 2880")));
    }
    Ok(minutes)
}

impl Copy {
    /// A copy that another action makes.
    pub fn of(
        source_region: &str,
        source: &SnapshotId,
        description: String,
        encryption: Encryption,
        minutes: Option<u32>,
        tags: &Tags,
    ) -> Self {
        let Encryption { encrypted, key } = encryption;
        let (source_region, source, tags) = (source_region.to_owned(), source.clone(), tags.clone());
        Self { source_region, source, description, encrypted, key, minutes, tags }
    }

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
        let Encryption { encrypted, key } = Encryption::parse(params)?;
        let minutes = minutes(params, "CompletionDurationMinutes")?;
        let tags = params.tag_specifications("snapshot")?;
        tags::check_count(tags.len())?;
        Ok(Self { source_region, source, description, encrypted, key, minutes, tags })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CopySnapshot";
        let source = Need::on(action, world, &format!("snapshot/{}", self.source));
        let mut needs = vec![
            source.in_region(&self.source_region),
            Need::on(action, world, "snapshot/*").tagged(&self.tags),
        ];
        if !self.tags.is_empty() {
            needs.push(Need::tags_of_new(world, "CopySnapshot", "snapshot/*", &self.tags));
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        // Without it a deletion could remove the source's image before the copy is known to need it.
        let _commit = context.sim.commit.lock().await;
        let fault_of = |kind| faults.iter().map(|hit| &hit.fault).find(|fault| fault.kind == kind);
        let id = {
            let mut world = context.sim.change();
            let mut copy = self.make(&world, &context.account, context.region(), context.now)?;
            copy.fails |= fault_of(Kind::SnapshotError).is_some();
            if let Some(fault) = fault_of(Kind::SlowProgress) {
                copy.takes = fault.slowed(copy.takes);
            }
            copy.visible_from =
                fault_of(Kind::LateVisibility).and_then(|fault| copy.started.checked_add(fault.delay()).ok());
            copy.later.old_tags = create::late_tags(faults, copy.started).old_tags;
            let id = copy.id.clone();
            world.snapshots.insert(copy);
            id
        };
        context.sim.note(context.number, |entry| entry.snapshot_ids = vec![id.to_string()]);
        Ok(context.response(|xml| {
            xml.text("snapshotId", &id);
            xml.tags(&self.tags);
        }))
    }

    /// The copy, when it may be made.
    pub fn make(
        &self,
        world: &World,
        account: &str,
        region: &str,
        now: Timestamp,
    ) -> Result<Snapshot, Ec2Error> {
        if !world.regions().any(|known| known == self.source_region) {
            return Err(Ec2Error::invalid_value(format!(
                "Value ({}) for parameter sourceRegion is invalid. It is not a Region.",
                self.source_region
            )));
        }
        let known = world.snapshot(&self.source_region, &self.source);
        let source = known.filter(|source| world.can_use(source, account, now));
        if source.is_some_and(|source| source.is_archived(now)) {
            snapshots::usable(world, &self.source_region, &self.source, now)?;
        }
        if let Some(name) = &self.key {
            keys::check(world, account, region, name)?;
        }
        check_copies(world, account, region, now, 1)?;
        snapshots::check_room(world, account, region, 1)?;
        let Some(volume_id) = VolumeId::parse(NO_VOLUME) else { return Err(Ec2Error::internal()) };
        let mut copy = Snapshot {
            visible_from: None,
            id: SnapshotId::random(),
            owner: account.to_owned(),
            region: region.to_owned(),
            volume_id,
            size_gib: 0,
            size_bytes: 0,
            description: self.description.clone(),
            started: now,
            takes: world.scenario.snapshots.time_to_complete(0),
            fails: true,
            is_copy: true,
            encrypted: false,
            kms_key_id: None,
            reason: Some(NOT_FOUND.into()),
            image: None,
            lineage: None,
            sizes: Sizes::Unknown,
            tags: self.tags.clone(),
            later: Later { completion_minutes: self.minutes, ..Later::default() },
        };
        let Some(source) = source else { return Ok(copy) };
        if source.state(now) != "completed" {
            copy.reason = Some(NOT_COMPLETE.into());
            return Ok(copy);
        }
        // `Encrypted=false` is accepted for an encrypted source, and means nothing.
        let by_default = keys::encrypts_by_default(world, account, region);
        copy.encrypted = source.encrypted || self.encrypted == Some(true) || by_default;
        // Without a name it is AWS's key, also where the source has another; the account's, where it encrypts by
        // default.
        let of_account = by_default.then(|| keys::default_key(world, account, region));
        let name = self.key.as_deref().or(of_account.as_deref());
        let key = copy.encrypted.then(|| keys::find_for(world, account, region, name));
        // EBS has to decrypt the source before it can encrypt the copy with another key.
        let readable = source
            .kms_key_id
            .as_deref()
            .is_none_or(|arn| keys::find_for(world, account, &self.source_region, Some(arn)).usable);
        copy.fails = !readable || key.as_ref().is_some_and(|key| !key.usable);
        copy.reason = copy.fails.then(|| keys::UNUSABLE.to_owned());
        copy.kms_key_id = key.and_then(|key| key.arn);
        let takes = world.scenario.snapshots.time_to_complete(source.size_bytes);
        let promised = self.minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
        copy.takes = promised.map_or(takes, |promised| takes.min(promised));
        (copy.size_gib, copy.size_bytes) = (source.size_gib, source.size_bytes);
        (copy.image, copy.sizes) = (source.image.clone(), source.sizes);
        copy.lineage = Some(source.lineage().clone());
        Ok(copy)
    }
}

/// Why a copy ends in `error`, as EC2 says it afterwards.
const NOT_FOUND: &str = "Source snapshot is not found";
const NOT_COMPLETE: &str = "Source snapshot is not complete";

/// Fails when there would be more copies in progress to a Region than there may be.
pub fn check_copies(
    world: &World,
    account: &str,
    region: &str,
    now: Timestamp,
    more: usize,
) -> Result<(), Ec2Error> {
    let most = world.scenario.limits.copies_per_region;
    let copying = |snapshot: &&Snapshot| {
        snapshot.is_copy
            && snapshot.region == region
            && snapshot.owner == account
            && snapshot.state(now) == "pending"
    };
    if most > 0 && world.live().filter(copying).count() + more > most {
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

    const OWN: &str = "123456789012";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// An account with one snapshot, completed at 1010.
    fn world() -> (World, SnapshotId) {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let source = test_snapshot(10, false);
        let id = source.id.clone();
        world.snapshots.insert(source);
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
    fn a_source_that_is_no_good_shows_only_later() {
        let (world, id) = world();
        let wanted = copy(&id, "").expect("good");
        let made = wanted.make(&world, OWN, "us-west-2", at(1010)).expect("completed");
        assert_eq!((made.volume_id.as_str(), made.region.as_str()), (NO_VOLUME, "us-west-2"));
        assert!(made.is_copy && !made.encrypted && made.kms_key_id.is_none());
        assert_eq!((made.state(at(1011)), made.state(at(1012))), ("pending", "completed"));
        assert_eq!((made.shown_gib(at(1011)), made.shown_gib(at(1012))), (0, 1));
        let why = |wanted: &Copy, account, now| {
            let made = wanted.make(&world, account, "us-west-2", at(now)).expect("it is accepted");
            assert_eq!((made.state(at(now)), made.state(at(now + 2))), ("pending", "error"));
            assert_eq!(made.shown_gib(at(now + 2)), 0);
            made.reason.unwrap_or_default()
        };
        assert_eq!(why(&wanted, OWN, 1005), NOT_COMPLETE);
        assert_eq!(why(&wanted, "111122223333", 1010), NOT_FOUND, "it is not shared");
        let elsewhere = Copy { source_region: "us-west-2".into(), ..wanted };
        assert_eq!(why(&elsewhere, OWN, 1010), NOT_FOUND);
        let nowhere = Copy { source_region: "mars-1".into(), ..elsewhere };
        assert_eq!(code(nowhere.make(&world, OWN, "us-west-2", at(1010))), "InvalidParameterValue");
    }

    #[test]
    fn another_account_copies_what_is_shared_with_it_with_a_key_of_its_own() {
        let (mut world, id) = world();
        world.scenario.accounts.push(crate::scenario::Account { id: "111122223333".into() });
        world.reset_images_and_keys();
        world.snapshots.get_mut(&id).expect("there").later.shared.users.insert("111122223333".into());
        let wanted = copy(&id, "Encrypted=true").expect("good");
        let made = wanted.make(&world, "111122223333", "us-east-1", at(2000)).expect("it is shared");
        assert!(!made.fails && made.owner == "111122223333" && made.later.shared.users.is_empty());
        let arn = made.kms_key_id.expect("a key");
        assert!(arn.starts_with("arn:aws:kms:us-east-1:111122223333:key/"), "{arn}");
    }

    #[test]
    fn encryption_can_be_turned_on_and_never_off() {
        let (mut world, id) = world();
        assert_eq!(code(copy(&id, "KmsKeyId=alias/x")), "InvalidParameterDependency");
        assert_eq!(code(copy(&id, "KmsKeyId=alias/x&Encrypted=false")), "InvalidParameterDependency");
        let on = copy(&id, "Encrypted=true").expect("good");
        let made = on.make(&world, OWN, "us-west-2", at(2000)).expect("good");
        assert!(made.encrypted && !made.fails);
        assert_eq!(made.kms_key_id, keys::find(&world, "us-west-2", None).arn);
        let source = world.snapshots.get_mut(&id).expect("there");
        source.encrypted = true;
        let off = copy(&id, "Encrypted=false").expect("good");
        assert!(off.make(&world, OWN, "us-west-2", at(2000)).expect("accepted, and ignored").encrypted);
        let silent = copy(&id, "").expect("good").make(&world, OWN, "us-west-2", at(2000)).expect("good");
        assert!(silent.encrypted);
    }

    #[test]
    fn a_bad_key_shows_only_later() {
        let (mut world, id) = world();
        let wanted = copy(&id, "Encrypted=true&KmsKeyId=alias/nobodys").expect("good");
        assert_eq!(code(wanted.make(&world, OWN, "us-west-2", at(2000))), "InvalidParameterValue");
        let nobodys = "Encrypted=true&KmsKeyId=1234abcd-12ab-34cd-56ef-1234567890ab";
        let wanted = copy(&id, nobodys).expect("good");
        let made = wanted.make(&world, OWN, "us-west-2", at(2000)).expect("EC2 answers as if it were good");
        assert_eq!(made.progress(at(2000)).state, "pending");
        assert_eq!(made.progress(at(3000)).state, "error");
        assert_eq!(made.reason.as_deref(), Some(keys::UNUSABLE));
        // The source's key counts too.
        let arn = keys::find(&world, "us-east-1", None).arn;
        let source = world.snapshots.get_mut(&id).expect("there");
        (source.encrypted, source.kms_key_id) = (true, arn);
        let wanted = copy(&id, "").expect("good");
        assert!(!wanted.make(&world, OWN, "us-west-2", at(2000)).expect("good").fails);
        world.kms_keys[0].state = KeyState::Disabled;
        assert!(wanted.make(&world, OWN, "us-west-2", at(2000)).expect("good").fails);
    }

    #[test]
    fn twenty_copies_at_a_time_to_one_region() {
        let (mut world, id) = world();
        let wanted = copy(&id, "").expect("good");
        for _ in 0..20 {
            let made = wanted.make(&world, OWN, "us-west-2", at(2000)).expect("room");
            world.snapshots.insert(made);
        }
        assert_eq!(code(wanted.make(&world, OWN, "us-west-2", at(2001))), "ResourceLimitExceeded");
        assert!(wanted.make(&world, OWN, "eu-central-1", at(2001)).is_ok());
        assert!(wanted.make(&world, OWN, "us-west-2", at(2002)).is_ok(), "they are done");
        world.scenario.limits.snapshots = 20;
        assert_eq!(code(wanted.make(&world, OWN, "us-west-2", at(2002))), "SnapshotLimitExceeded");
    }

    #[test]
    fn a_time_based_copy_has_a_duration_in_quarters_of_an_hour() {
        let (world, id) = world();
        for bad in ["0", "14", "20", "2895"] {
            assert_eq!(code(copy(&id, &format!("CompletionDurationMinutes={bad}"))), "InvalidParameterValue");
        }
        let made =
            copy(&id, "CompletionDurationMinutes=30").expect("good").make(&world, OWN, "us-west-2", at(2000));
        assert_eq!(made.expect("good").later.completion_minutes, Some(30));
    }
}
