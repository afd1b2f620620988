//! Permissions: everything is allowed but what the scenario denies, or what its policy does not allow.
//!
//! In: an action on a resource with what is known of both, and who asks. Out: nothing, or EC2's
//! UnauthorizedOperation. The wording must stay EC2's: clients take the action out of it.

use super::error::Ec2Error;
use super::filter::wildcard;
use super::signature::Signer;
use super::xml::time;
use crate::ids::SnapshotId;
use crate::keys::Holder;
use crate::policy::{Decision, Facts};
use crate::world::{Tags, World};

/// One thing that the caller must be allowed to do. A request needs all of its needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    action: &'static str,
    /// The resource's ARN without its partition and Region; none for actions without resource-level permissions.
    resource: Option<Resource>,
    /// What the request would have the resource tagged with.
    request_tags: Tags,
    /// The action that creates the resource, of CreateTags in its call.
    create_action: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    /// `ec2`
    service: &'static str,
    /// The account in its ARN, which the ARNs of snapshots and images do not have.
    account: String,
    /// Its Region, when that is not the request's.
    region: Option<String>,
    /// `volume/vol-…`
    name: String,
}

impl Need {
    /// An action that has no resource-level permissions.
    pub fn on_all(action: &'static str) -> Self {
        Self { action, resource: None, request_tags: Tags::new(), create_action: None }
    }

    /// An action on one resource, such as `volume/vol-…`, in the Region of the request. The ARNs of
    /// snapshots and images have no account.
    pub fn on(action: &'static str, world: &World, name: &str) -> Self {
        let nobodys = name.starts_with("snapshot/") || name.starts_with("image/");
        let account = if nobodys { "" } else { world.account() };
        let resource =
            Resource { service: "ec2", account: account.to_owned(), region: None, name: name.to_owned() };
        Self { resource: Some(resource), ..Self::on_all(action) }
    }

    /// The same of another service than EC2, whose resources have their account.
    pub fn of(service: &'static str, action: &'static str, account: &str, name: &str) -> Self {
        let (account, name) = (account.to_owned(), name.to_owned());
        let resource = Resource { service, account, region: None, name };
        Self { resource: Some(resource), ..Self::on_all(action) }
    }

    /// In another Region than the request's.
    pub fn in_region(mut self, region: &str) -> Self {
        if let Some(resource) = &mut self.resource {
            resource.region = Some(region.to_owned());
        }
        self
    }

    /// With the tags that the request would give the resource.
    pub fn tagged(mut self, tags: &Tags) -> Self {
        self.request_tags.clone_from(tags);
        self
    }

    /// CreateTags on what `creating` makes, in the same call.
    pub fn tags_of_new(world: &World, creating: &'static str, name: &str, tags: &Tags) -> Self {
        let create_action = Some(creating);
        Self { create_action, ..Self::on("ec2:CreateTags", world, name).tagged(tags) }
    }

    /// The snapshot that it is about.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        SnapshotId::parse(self.resource.as_ref()?.name.strip_prefix("snapshot/")?)
    }

    /// What kind of resource it is about: `snapshot`, `volume` …
    pub fn kind(&self) -> Option<&str> {
        self.resource.as_ref()?.name.split('/').next()
    }

    pub fn action(&self) -> &'static str {
        self.action
    }

    fn region<'a>(&'a self, signer: &'a Signer) -> &'a str {
        self.resource.as_ref().and_then(|resource| resource.region.as_deref()).unwrap_or(&signer.region)
    }

    fn arn(&self, signer: &Signer) -> Option<String> {
        let Resource { service, account, name, .. } = self.resource.as_ref()?;
        let region = self.region(signer);
        Some(format!("arn:{}:{service}:{region}:{account}:{name}", partition(region)))
    }

    /// What conditions can know.
    fn facts(&self, world: &World, signer: &Signer) -> Facts {
        let mut facts = Facts::new();
        let mut put = |key: &str, value: String| facts.insert(key.to_owned(), vec![value]);
        put("aws:requestedregion", signer.region.clone());
        put("ec2:region", self.region(signer).to_owned());
        if let Some(action) = self.create_action {
            put("ec2:createaction", action.to_owned());
        }
        for (key, value) in &self.request_tags {
            put(&format!("aws:requesttag/{}", key.to_ascii_lowercase()), value.clone());
        }
        let name = self.resource.as_ref().map_or("", |resource| &resource.name);
        if let Some((kind, id)) = name.split_once('/').filter(|(_, id)| *id != "*") {
            for (key, value) in world.tags_of(id) {
                for prefix in ["aws:resourcetag/", "ec2:resourcetag/"] {
                    put(&format!("{prefix}{}", key.to_ascii_lowercase()), value.clone());
                }
            }
            match kind {
                "snapshot" => {
                    put("ec2:snapshotid", id.to_owned());
                    if let Some(snapshot) = SnapshotId::parse(id).and_then(|id| world.snapshots.get(&id)) {
                        put("ec2:owner", snapshot.owner.clone());
                        put(
                            "ec2:parentvolume",
                            volume_arn(world, &snapshot.region, snapshot.volume_id.as_str()),
                        );
                        put("ec2:snapshottime", time(snapshot.started));
                        put("ec2:volumesize", snapshot.size_gib.to_string());
                        put("ec2:encrypted", snapshot.encrypted.to_string());
                    }
                }
                "volume" => {
                    put("ec2:volumeid", id.to_owned());
                    if let Some(volume) = world.ebs().find(|volume| volume.id.as_str() == id) {
                        put("ec2:availabilityzone", volume.zone.clone());
                        put("ec2:encrypted", volume.encrypted.to_string());
                        put("ec2:volumesize", volume.size_gib().to_string());
                        put("ec2:volumetype", volume.volume_type.clone());
                        if let Some(parent) = &volume.snapshot_id {
                            let partition = partition(&volume.region);
                            let arn = format!("arn:{partition}:ec2:{}::snapshot/{parent}", volume.region);
                            put("ec2:parentsnapshot", arn);
                        }
                    }
                }
                "instance" => {
                    put("ec2:instanceid", id.to_owned());
                }
                "image" => {
                    put("ec2:imageid", id.to_owned());
                }
                _ => {}
            }
        }
        if !self.request_tags.is_empty() {
            facts.insert("aws:tagkeys".into(), self.request_tags.keys().cloned().collect());
        }
        facts
    }
}

fn volume_arn(world: &World, region: &str, id: &str) -> String {
    format!("arn:{}:ec2:{region}:{}:volume/{id}", partition(region), world.account())
}

/// Passes when no denial matches, and the policy allows it where there is one. Neither concerns other accounts,
/// nor the root user of the instance's.
pub fn authorise(world: &World, signer: &Signer, need: &Need) -> Result<(), Ec2Error> {
    let action = need.action;
    if !matches!(signer.holder, Holder::User | Holder::Role) {
        return Ok(());
    }
    let lower = action.to_ascii_lowercase();
    let arn = need.arn(signer);
    let decision = if world.deny.iter().any(|pattern| wildcard(&pattern.to_ascii_lowercase(), &lower)) {
        Decision::NotAllowed
    } else {
        match &world.policy {
            None => Decision::Allowed,
            Some(policy) => policy.decide(action, arn.as_deref().unwrap_or("*"), &need.facts(world, signer)),
        }
    };
    let why = match decision {
        Decision::Allowed => return Ok(()),
        Decision::NotAllowed => format!("because no identity-based policy allows the {action} action"),
        Decision::Denied => "with an explicit deny in an identity-based policy".to_owned(),
    };
    let resource = arn.map(|arn| format!(" on resource: {arn}")).unwrap_or_default();
    Err(Ec2Error::new(
        "UnauthorizedOperation",
        format!(
            "You are not authorized to perform this operation. User: {} is not authorized to perform: \
             {action}{resource} {why}",
            caller(world, signer)
        ),
    )
    .status(403))
}

/// The partition of a Region: that of `cn-north-1` is not `aws`.
pub fn partition(region: &str) -> &'static str {
    match region.split_once('-') {
        Some(("cn", _)) => "aws-cn",
        Some(("eusc", _)) => "aws-eusc",
        Some(("us", rest)) if rest.starts_with("gov-") => "aws-us-gov",
        Some((_, rest)) if rest.starts_with("isob-") => "aws-iso-b",
        Some((_, rest)) if rest.starts_with("isoe-") => "aws-iso-e",
        Some((_, rest)) if rest.starts_with("isof-") => "aws-iso-f",
        Some((_, rest)) if rest.starts_with("iso-") => "aws-iso",
        _ => "aws",
    }
}

fn caller(world: &World, signer: &Signer) -> String {
    let instance = &world.scenario.instance;
    let partition = partition(&signer.region);
    match &signer.holder {
        Holder::Role => format!(
            "arn:{partition}:sts::{}:assumed-role/{}/{}",
            instance.account_id, instance.role, instance.id
        ),
        Holder::User => format!("arn:{partition}:iam::{}:user/ebs-sim", instance.account_id),
        Holder::Root => format!("arn:{partition}:iam::{}:root", instance.account_id),
        Holder::Account(account) => format!("arn:{partition}:iam::{account}:root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::scenario::Scenario;
    use crate::world::test_snapshot;

    fn role() -> Signer {
        Signer { access_key_id: "ASIA".into(), holder: Holder::Role, region: "us-east-1".into() }
    }

    #[test]
    fn denials_have_wildcards_and_ec2s_words() {
        let mut world = World::new(&Scenario::default(), &[], jiff::Timestamp::UNIX_EPOCH);
        world.deny = vec!["ec2:createsnap*".into()];
        let signer = role();
        let need = Need::on("ec2:CreateSnapshots", &world, "snapshot/*");
        let error = authorise(&world, &signer, &need).expect_err("denied");
        assert_eq!((error.code.as_str(), error.status), ("UnauthorizedOperation", 403));
        let expected = format!(
            "User: arn:aws:sts::123456789012:assumed-role/ebs-sim-role/{} is not authorized to perform: \
             ec2:CreateSnapshots on resource: arn:aws:ec2:us-east-1::snapshot/* because no identity-based \
             policy allows the ec2:CreateSnapshots action",
            world.instance_id()
        );
        assert!(error.message.ends_with(&expected), "{}", error.message);
        assert!(authorise(&world, &signer, &Need::on_all("ec2:DescribeVolumes")).is_ok());
        for holder in [Holder::Root, Holder::Account("111122223333".into())] {
            let other = Signer { holder, ..signer.clone() };
            assert!(authorise(&world, &other, &need).is_ok(), "{other:?}");
        }
        let signer = Signer { region: "us-west-2".into(), ..signer };
        let elsewhere = authorise(&world, &signer, &need).expect_err("denied there too").message;
        assert!(elsewhere.contains("arn:aws:ec2:us-west-2::snapshot/*"), "{elsewhere}");
        let signer = Signer { region: "cn-north-1".into(), ..signer };
        let china = authorise(&world, &signer, &need).expect_err("denied there too").message;
        assert!(china.contains("arn:aws-cn:ec2:cn-north-1::snapshot/*"), "{china}");
        assert!(china.contains("User: arn:aws-cn:sts::"), "{china}");
    }

    /// A world with one snapshot that is tagged, and this policy's only statement.
    fn world(statement: &str) -> (World, SnapshotId) {
        let mut world = World::new(&Scenario::default(), &[], jiff::Timestamp::UNIX_EPOCH);
        let mut snapshot = test_snapshot(0, false);
        snapshot.tags.insert("Stillpoint:run".into(), "abc".into());
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        let text = format!("{{\"Statement\": [{statement}]}}");
        world.policy = Some(Policy::parse(&text).expect("a good policy"));
        (world, id)
    }

    fn passes(world: &World, need: &Need) -> bool {
        authorise(world, &role(), need).is_ok()
    }

    #[test]
    fn a_snapshot_is_known_by_its_tags_and_by_what_it_was_made_of() {
        let delete = |condition: &str| {
            let (mut world, id) = world(&format!(
                r#"{{"Effect": "Allow", "Action": "ec2:DeleteSnapshot", "Condition": {condition},
                    "Resource": "arn:aws:ec2:*::snapshot/*"}}"#
            ));
            let need = |world: &World| Need::on("ec2:DeleteSnapshot", world, &format!("snapshot/{id}"));
            let with = passes(&world, &need(&world));
            world.tags_of_mut(id.as_str()).expect("there").clear();
            (with, passes(&world, &need(&world)))
        };
        let tag = r#"{"Null": {"ec2:ResourceTag/stillpoint:run": "false"}}"#;
        assert_eq!(delete(tag), (true, false));
        assert_eq!(delete(r#"{"StringEquals": {"aws:ResourceTag/stillpoint:run": "abc"}}"#), (true, false));
        assert_eq!(delete(r#"{"StringEquals": {"aws:RequestTag/stillpoint:run": "abc"}}"#), (false, false));
        assert_eq!(delete(r#"{"StringEquals": {"ec2:Owner": "123456789012"}}"#), (true, true));
        assert_eq!(
            delete(r#"{"DateLessThan": {"ec2:SnapshotTime": "1970-01-01T00:00:00Z"}}"#),
            (false, false)
        );
        let parent = r#"{"ArnLike": {"ec2:ParentVolume": "arn:aws:ec2:us-east-1:123456789012:volume/*"}}"#;
        assert_eq!(delete(parent), (true, true));
        assert_eq!(delete(r#"{"StringEquals": {"ec2:Region": "us-west-2"}}"#), (false, false));
    }

    #[test]
    fn tags_in_a_call_are_allowed_by_what_creates() {
        let (world, id) = world(
            r#"{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*::snapshot/*",
                "Condition": {"StringEquals": {"ec2:CreateAction": ["CreateSnapshots", "CopySnapshot"]},
                              "ForAllValues:StringLike": {"aws:TagKeys": "stillpoint:*"}}}"#,
        );
        let tags = |key: &str| Tags::from([(key.to_owned(), "v".to_owned())]);
        let new = |creating, key| Need::tags_of_new(&world, creating, "snapshot/*", &tags(key));
        assert!(passes(&world, &new("CreateSnapshots", "stillpoint:run")));
        assert!(!passes(&world, &new("CreateSnapshot", "stillpoint:run")));
        assert!(!passes(&world, &new("CreateSnapshots", "Name")));
        let later =
            Need::on("ec2:CreateTags", &world, &format!("snapshot/{id}")).tagged(&tags("stillpoint:x"));
        let error = authorise(&world, &role(), &later).expect_err("the snapshot is there already");
        assert!(error.message.contains(&format!("snapshot/{id} because no identity-based")), "{error}");
    }

    #[test]
    fn a_copy_has_two_regions_and_a_denial_says_that_it_is_one() {
        let (world, id) = world(
            r#"{"Effect": "Allow", "Action": "ec2:CopySnapshot", "Resource": "arn:aws:ec2:us-east-1::snapshot/*"},
               {"Effect": "Deny", "Action": "ec2:LockSnapshot", "Resource": "*"}"#,
        );
        let there = Signer { region: "us-west-2".into(), ..role() };
        let source = Need::on("ec2:CopySnapshot", &world, &format!("snapshot/{id}")).in_region("us-east-1");
        assert!(authorise(&world, &there, &source).is_ok());
        let made = Need::on("ec2:CopySnapshot", &world, "snapshot/*");
        let error = authorise(&world, &there, &made).expect_err("not there");
        assert!(error.message.contains("arn:aws:ec2:us-west-2::snapshot/*"), "{error}");
        let lock = Need::on("ec2:LockSnapshot", &world, "snapshot/*");
        let error = authorise(&world, &role(), &lock).expect_err("denied");
        assert!(error.message.ends_with("with an explicit deny in an identity-based policy"), "{error}");
    }
}
