//! CopyVolumes: another volume with the data that a volume has now.
//!
//! In: a volume, attached or not. Out: a volume that is `creating`, with a window of its own in the pool. Its data is
//! one clone of the pool, made while the request is handled: it must never begin before the request was read,
//! nor end after the answer.

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::{keys, tags};
use super::describe::write;
use super::wanted::{Token, Type, strike};
use super::{find, incorrect_state, kms_key, parse_id};
use crate::faults::Hit;
use crate::ids::VolumeId;
use crate::lifecycle;
use crate::log::unix_nanos;
use crate::units::GIB;
use crate::world::{Image, Initialization, Origin, Stage, Tags, Volume, Way, World};

/// CopyVolumes.
pub struct Copy {
    source: VolumeId,
    gib: Option<u64>,
    wanted: Type,
    encrypted: bool,
    key: Option<String>,
    tags: Tags,
    token: Token,
}

impl Copy {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = Token::parse(params)?;
        let source = parse_id(&params.required("SourceVolumeId")?)?;
        let gib = params.number("Size")?;
        let wanted = Type::parse(params)?;
        if params.flag("MultiAttachEnabled")? {
            return Err(Ec2Error::new(
                "UnsupportedOperation",
                "The MultiAttachEnabled parameter is not supported: there is one instance",
            ));
        }
        let encrypted = params.flag("Encrypted")?;
        // With an encrypted source, the key alone is enough: the guide's example encrypts anew with it.
        let key = params.text("KmsKeyId");
        let tags = params.tag_specifications("volume")?;
        tags::check_count(tags.len())?;
        Ok(Self { source, gib, wanted, encrypted, key, tags, token })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CopyVolumes";
        let mut needs = vec![
            Need::on(action, world, &format!("volume/{}", self.source)),
            Need::on(action, world, "volume/*").tagged(&self.tags),
        ];
        if !self.tags.is_empty() {
            needs.push(Need::tags_of_new(world, "CopyVolumes", "volume/*", &self.tags));
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let sim = &context.sim;
        // Two requests with one token make one volume, and the limits hold for requests at one time too.
        let _commit = sim.commit.lock().await;
        let started = sim.world().clock(Timestamp::now());
        let window = {
            let world = sim.world();
            if let Some(known) = self.token.known(&world, context.region())? {
                return Ok(answer(context, &world, known));
            }
            self.check(&world, context.region(), started)?.window
        };
        let path = sim.store.image_path(&context.request_id);
        let clone_started = unix_nanos();
        let (worker, to) = (sim.clone(), path.clone());
        let cloned = tokio::task::spawn_blocking(move || worker.store.clone_pool(&to)).await;
        let point_in_time = unix_nanos();
        if !matches!(cloned, Ok(Ok(()))) {
            tracing::error!("the volume's data cannot be taken: {cloned:?}");
            return Err(Ec2Error::internal());
        }
        let mut world = sim.change();
        let source = find(&world, context.region(), self.source.as_str())?.clone();
        let mut volume = self.make(&world, &source, started);
        strike(&mut volume.origin, faults, started);
        volume.source = window.map(|window| Image { path, window });
        if !self.tags.is_empty() {
            world.tags.insert(volume.id.to_string(), self.tags.clone());
        }
        world.volumes.push(volume.clone());
        sim.note(context.number, |entry| {
            entry.clone_started_ns = Some(clone_started);
            entry.point_in_time_ns = Some(point_in_time);
            entry.volume_ids = vec![volume.id.to_string()];
        });
        lifecycle::resume(sim, &volume);
        Ok(answer(context, &world, &volume))
    }

    /// Passes when this may be copied now, and gives it.
    fn check<'a>(&self, world: &'a World, region: &str, now: Timestamp) -> Result<&'a Volume, Ec2Error> {
        let source = find(world, region, self.source.as_str())?;
        if source.stage != Stage::Ready {
            return Err(incorrect_state(source));
        }
        if source.origin.is_copying(now) {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("The volume '{}' is a copy that is not initialized yet.", source.id),
            ));
        }
        let copying =
            || world.ebs().filter(|volume| volume.region == region && volume.origin.is_copying(now));
        if copying().any(|copy| copy.origin.volume.as_ref() == Some(&source.id)) {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("A copy of the volume '{}' is not initialized yet.", source.id),
            ));
        }
        let most = world.scenario.limits.volume_copies_per_region;
        if most > 0 && copying().count() >= most {
            return Err(Ec2Error::new(
                "CopyVolumesLimitExceeded",
                format!("Maximum number of volume copies in progress exceeded: {most}"),
            ));
        }
        if let Some(name) = &self.key {
            keys::check(world, world.account(), region, name)?;
        }
        if self.key.is_some() && !self.encrypted && !source.encrypted {
            return Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        let gib = self.gib.unwrap_or(source.size_gib());
        if gib < source.size_gib() {
            return Err(Ec2Error::invalid_value(format!(
                "The size of the volume copy, {gib}GiB, is smaller than that of the source volume, {}GiB",
                source.size_gib()
            )));
        }
        self.wanted.check_size(gib)?;
        Ok(source)
    }

    fn make(&self, world: &World, source: &Volume, now: Timestamp) -> Volume {
        let id = VolumeId::random();
        let gib = self.gib.unwrap_or(source.size_gib());
        let size_bytes = if gib == source.size_gib() { source.size_bytes } else { gib * GIB };
        let by_default = keys::encrypts_by_default(world, world.account(), &source.region);
        let encrypted = source.encrypted || self.encrypted || by_default;
        let own_key = || source.kms_key.clone().unwrap_or_else(|| kms_key(world));
        let key = match &self.key {
            Some(name) => {
                let found = keys::find(world, &source.region, Some(name));
                Some(found.arn.unwrap_or_else(|| name.clone()))
            }
            None if source.encrypted => Some(own_key()),
            // The account's, as the guide has it: not the one of a source that is in clear.
            None => {
                keys::find(
                    world,
                    &source.region,
                    Some(&keys::default_key(world, world.account(), &source.region)),
                )
                .arn
            }
        };
        let takes = world.scenario.volume_times.time_to_copy(source.size_bytes);
        Volume {
            name: id.to_string(),
            id,
            region: source.region.clone(),
            zone: source.zone.clone(),
            device_name: String::new(),
            size_bytes,
            volume_type: self.wanted.name.clone(),
            kind: source.kind,
            boot: false,
            stage: Stage::Creating,
            snapshot_id: None,
            created: now,
            attachment: None,
            encrypted,
            kms_key: key.filter(|_| encrypted),
            iops: self.wanted.iops,
            throughput: self.wanted.throughput,
            initialization_rate: None,
            token: self.token.0.clone(),
            source: None,
            origin: Origin {
                volume: Some(source.id.clone()),
                initialization: Some(Initialization { way: Way::Copy, began: now, takes }),
                ..Origin::default()
            },
            window: Some(world.free_window(size_bytes)),
            loop_device: None,
            disk: None,
        }
    }
}

fn answer(context: &Context, world: &World, volume: &Volume) -> String {
    context.response(|xml| xml.list("volumeSet", [volume], |xml, volume| write(xml, world, volume)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn world(specs: &[&str]) -> World {
        let mut scenario = Scenario::default();
        for spec in specs {
            scenario.volumes.push(spec.parse().expect("a good spec"));
        }
        scenario.volume_times.seconds_to_initialize_copy = 10.0;
        World::new(&scenario, &crate::window::lay_out(&vec![1 << 20; specs.len()]), at(0))
    }

    fn copy(world: &World, of: usize, rest: &str) -> Copy {
        let form = format!("SourceVolumeId={}&{rest}", world.volumes[of].id);
        let mut params = Params::parse(&[form.as_bytes()]);
        let copy = Copy::parse(&mut params).map_err(|error| error.to_string()).expect("good");
        params.finish().expect("all are known");
        copy
    }

    /// Is it refused before the account is looked at?
    fn bad(request: &str) -> bool {
        Copy::parse(&mut Params::parse(&[request.as_bytes()]))
            .is_err_and(|e| e.code == "InvalidParameterValue")
    }

    fn refusal(world: &World, of: usize, rest: &str, now: i64) -> Option<String> {
        copy(world, of, rest).check(world, "us-east-1", at(now)).err().map(|error| error.code)
    }

    fn add(world: &mut World, of: usize, now: i64) {
        let mut made = copy(world, of, "").make(world, &world.volumes[of], at(now));
        made.stage = Stage::Ready;
        world.volumes.push(made);
    }

    #[test]
    fn one_copy_of_a_volume_at_a_time_and_five_of_all() {
        let specs: Vec<String> = (0..6).map(|n| format!("name=v{n},size=1MiB")).collect();
        let mut world = world(&specs.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(refusal(&world, 0, "", 1000), None);
        add(&mut world, 0, 1000);
        assert_eq!(refusal(&world, 0, "", 1009).as_deref(), Some("IncorrectState"), "one is under way");
        assert_eq!(refusal(&world, 6, "", 1009).as_deref(), Some("IncorrectState"), "it is one itself");
        assert_eq!(refusal(&world, 0, "", 1010), None);
        assert_eq!(refusal(&world, 6, "", 1010), None);
        for of in 1..5 {
            assert_eq!(refusal(&world, of, "", 1001), None);
            add(&mut world, of, 1000);
        }
        assert_eq!(refusal(&world, 5, "", 1001).as_deref(), Some("CopyVolumesLimitExceeded"));
        assert_eq!(refusal(&world, 5, "", 1010), None);
        world.scenario.limits.volume_copies_per_region = 0;
        assert_eq!(refusal(&world, 5, "", 1001), None);
        // What is deleted counts no more.
        world.scenario.limits.volume_copies_per_region = 5;
        world.volumes.pop();
        assert_eq!(refusal(&world, 5, "", 1001), None);
    }

    #[test]
    fn sizes_types_and_keys_are_checked() {
        let mut world = world(&["name=a,size=3072MiB", "name=b,size=1MiB,encrypted", "name=c,size=1MiB"]);
        let invalid = Some("InvalidParameterValue".to_owned());
        assert_eq!(refusal(&world, 0, "Size=2", 1), invalid);
        assert_eq!(refusal(&world, 0, "Size=3", 1), None);
        assert_eq!(refusal(&world, 0, "VolumeType=io2&Iops=100", 1), invalid, "3 GiB are too few");
        // So many IOPS for each GiB, and MiB/s for each IOPS.
        for (of_type, most) in [("io1", 200), ("io2", 4000)] {
            let asked = |iops: u32| format!("VolumeType={of_type}&Size=4&Iops={iops}");
            assert_eq!(refusal(&world, 0, &asked(most), 1), None);
            assert_eq!(refusal(&world, 0, &asked(most + 1), 1), invalid, "{of_type}");
        }
        let gp3 = "VolumeType=gp3&Size=7";
        assert_eq!(refusal(&world, 0, &format!("{gp3}&Iops=3500&Throughput=875"), 1), None);
        assert_eq!(refusal(&world, 0, &format!("{gp3}&Iops=3501"), 1), invalid);
        assert_eq!(
            refusal(&world, 2, "VolumeType=gp3&Iops=3000&Throughput=750", 1),
            None,
            "free of the size"
        );
        assert!(bad(&format!("SourceVolumeId={}&VolumeType=gp3&Throughput=751", world.volumes[0].id)));
        assert_eq!(refusal(&world, 0, "KmsKeyId=alias/nobodys", 1), invalid);
        let key = "KmsKeyId=alias/aws/ebs";
        assert_eq!(refusal(&world, 0, key, 1).as_deref(), Some("InvalidParameterDependency"));
        assert_eq!(refusal(&world, 1, key, 1), None);
        let made = |of: usize, rest: &str| copy(&world, of, rest).make(&world, &world.volumes[of], at(1));
        let plain = made(2, "");
        assert_eq!((plain.volume_type.as_str(), plain.encrypted, plain.kms_key), ("gp2", false, None));
        assert_eq!(plain.origin.volume.as_ref(), Some(&world.volumes[2].id));
        let secret = made(1, "Encrypted=false");
        assert!(secret.encrypted && secret.kms_key.is_some(), "encryption cannot be turned off");
        let on = made(2, "Encrypted=true");
        assert!(on.encrypted && on.kms_key.is_some());
        assert_eq!(made(0, "Size=5").size_bytes, 5 << 30);
        world.scenario.volume_times.encrypted_by_default = vec!["us-east-1".into()];
        assert!(copy(&world, 2, "").make(&world, &world.volumes[2], at(1)).encrypted);
        world.volumes[0].stage = Stage::Creating;
        assert_eq!(refusal(&world, 0, "", 1).as_deref(), Some("IncorrectState"));
        world.volumes[0].stage = Stage::Deleting;
        assert_eq!(refusal(&world, 0, "", 1).as_deref(), Some("InvalidVolume.NotFound"));
    }
}
