//! EnableImageDeprecation, DisableImageDeprecation.
//!
//! In: an image of this account and a time. Out: from then on, others find the image only when they ask for
//! deprecated ones. Its owner must go on finding it.

use jiff::{SignedDuration, Timestamp};

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::{own, parse_id};
use crate::ids::ImageId;
use crate::world::World;

/// The furthest: ten years, or two of a public image. Counted in days, as the calendar does not matter here.
const MOST_DAYS: i64 = 3653;
const MOST_DAYS_PUBLIC: i64 = 731;

pub struct Deprecate {
    id: ImageId,
    /// None: no longer.
    at: Option<Timestamp>,
}

impl Deprecate {
    /// Reads either action.
    pub fn parse(params: &mut Params, enable: bool) -> Result<Self, Ec2Error> {
        let id = parse_id(&params.required("ImageId")?)?;
        if !enable {
            return Ok(Self { id, at: None });
        }
        let text = params.required("DeprecateAt")?;
        let at: Timestamp = text.parse().map_err(|_| {
            Ec2Error::invalid_value(format!("Value ({text}) for parameter DeprecateAt is not a time"))
        })?;
        let minute = SignedDuration::from_mins(1);
        let rounded = at.round(jiff::TimestampRound::new().smallest(jiff::Unit::Minute));
        Ok(Self { id, at: Some(rounded.unwrap_or(at).min(Timestamp::MAX - minute)) })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action =
            if self.at.is_some() { "ec2:EnableImageDeprecation" } else { "ec2:DisableImageDeprecation" };
        vec![Need::on(action, world, &format!("image/{}", self.id))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        self.apply(&mut world, context.region(), context.now)?;
        Ok(context.done())
    }

    fn apply(&self, world: &mut World, region: &str, now: Timestamp) -> Result<(), Ec2Error> {
        let image = own(world, region, &self.id)?;
        if let Some(at) = self.at {
            let (from, days) = match image.shared.public {
                true => (image.created, MOST_DAYS_PUBLIC),
                false => (now, MOST_DAYS),
            };
            let last = from.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX);
            // To the minute, as it is rounded.
            if at < now - SignedDuration::from_mins(1) || at > last {
                return Err(Ec2Error::invalid_value(
                    "DeprecateAt must be in the future, and at most 10 years ahead (of a public image, 2 years \
                     after its creation)",
                ));
            }
        }
        if let Some(image) = world.images.get_mut(&self.id) {
            image.deprecate_at = self.at;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_time_is_rounded_and_neither_past_nor_too_far() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
        let mut world = World::new(&Scenario::default(), &[], now);
        let id = world.images.keys().next().expect("the instance's").clone();
        let mut apply = |at: &str| {
            let mut params = Params::parse(&[format!("ImageId={id}&DeprecateAt={at}").as_bytes()]);
            let wanted = Deprecate::parse(&mut params, true).map_err(|error| error.code)?;
            wanted.apply(&mut world, "us-east-1", now).map_err(|error| error.code)?;
            Ok::<_, String>(world.images[&id].deprecate_at.map(|at| at.to_string()))
        };
        assert_eq!(apply("2027-01-01T00:00:00Z"), Err("AuthFailure".into()), "it is Amazon's");
        let id = id.clone();
        let mut world = World::new(&Scenario::default(), &[], now);
        let own = world.images.keys().next().expect("the instance's").clone();
        world.images[&own].owner = world.account().to_owned();
        world.images[&own].shared = crate::world::Sharing::default();
        let mut apply = |at: &str| {
            let mut params = Params::parse(&[format!("ImageId={own}&DeprecateAt={at}").as_bytes()]);
            let wanted = Deprecate::parse(&mut params, true).map_err(|error| error.code)?;
            wanted.apply(&mut world, "us-east-1", now).map_err(|error| error.code)?;
            Ok::<_, String>(world.images[&own].deprecate_at.map(|at| at.to_string()).unwrap_or_default())
        };
        assert_eq!(apply("2027-01-01T00:00:31Z"), Ok("2027-01-01T00:01:00Z".into()));
        let invalid = Err("InvalidParameterValue".to_owned());
        assert_eq!(apply("2026-11-30T11:00:00Z"), invalid);
        assert_eq!(apply("2040-01-01T00:00:00Z"), invalid);
        assert_eq!(apply("soon"), invalid);
        assert_ne!(id.as_str(), "");
    }
}
