//! Permissions: everything is allowed but what the scenario denies.
//!
//! In: an action on a resource, and who asks. Out: nothing, or EC2's UnauthorizedOperation. The wording must
//! stay EC2's: clients take the action out of it.

use super::error::Ec2Error;
use super::filter::wildcard;
use super::signature::Signer;
use crate::world::World;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    action: &'static str,
    /// The account and the resource in its ARN; none for actions without resource-level permissions.
    resource: Option<(String, String)>,
}

impl Need {
    /// An action that has no resource-level permissions.
    pub fn on_all(action: &'static str) -> Self {
        Self { action, resource: None }
    }

    /// An action on one resource, such as `volume/vol-…`, in the Region of the request. The ARNs of
    /// snapshots and images have no account.
    pub fn on(action: &'static str, world: &World, resource: &str) -> Self {
        let nobodys = resource.starts_with("snapshot/") || resource.starts_with("image/");
        let account = if nobodys { "" } else { &world.scenario.instance.account_id };
        Self { action, resource: Some((account.to_owned(), resource.to_owned())) }
    }
}

#[cfg(test)]
impl Need {
    /// What it is about.
    pub fn action(&self) -> &'static str {
        self.action
    }
}

/// Passes when no denial matches.
pub fn authorise(world: &World, signer: &Signer, need: &Need) -> Result<(), Ec2Error> {
    let action = need.action;
    let lower = action.to_ascii_lowercase();
    if !world.deny.iter().any(|pattern| wildcard(&pattern.to_ascii_lowercase(), &lower)) {
        return Ok(());
    }
    let partition = partition(&signer.region);
    let resource = match &need.resource {
        Some((account, resource)) => {
            format!(" on resource: arn:{partition}:ec2:{}:{account}:{resource}", signer.region)
        }
        None => String::new(),
    };
    Err(Ec2Error::new(
        "UnauthorizedOperation",
        format!(
            "You are not authorized to perform this operation. User: {} is not authorized to perform: \
             {action}{resource} because no identity-based policy allows the {action} action",
            caller(world, signer)
        ),
    )
    .status(403))
}

/// The partition of a Region: that of `cn-north-1` is not `aws`.
fn partition(region: &str) -> &'static str {
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
    if signer.is_role {
        format!("arn:{partition}:sts::{}:assumed-role/{}/{}", instance.account_id, instance.role, instance.id)
    } else {
        format!("arn:{partition}:iam::{}:user/ebs-sim", instance.account_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn denials_have_wildcards_and_ec2s_words() {
        let mut world = World::new(&Scenario::default(), &[], jiff::Timestamp::UNIX_EPOCH);
        world.deny = vec!["ec2:createsnap*".into()];
        let signer = Signer { access_key_id: "ASIA".into(), is_role: true, region: "us-east-1".into() };
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
        let signer = Signer { region: "us-west-2".into(), ..signer };
        let elsewhere = authorise(&world, &signer, &need).expect_err("denied there too").message;
        assert!(elsewhere.contains("arn:aws:ec2:us-west-2::snapshot/*"), "{elsewhere}");
        let signer = Signer { region: "cn-north-1".into(), ..signer };
        let china = authorise(&world, &signer, &need).expect_err("denied there too").message;
        assert!(china.contains("arn:aws-cn:ec2:cn-north-1::snapshot/*"), "{china}");
        assert!(china.contains("User: arn:aws-cn:sts::"), "{china}");
    }
}
