//! DescribeVolumeStatus.
//!
//! In: the account. Out: that each volume is well, and how far its initialisation is at this moment. A volume
//! that was made empty must never show one.

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::params::Params;
use super::super::query::Query;
use super::super::xml::Xml;
use super::{not_found, write_operator, zone};
use crate::world::{Stage, Tags, Volume, Way};

const FILTERS: &[&str] = &[
    "action.code",
    "action.description",
    "action.event-id",
    "availability-zone",
    "event.description",
    "event.event-id",
    "event.event-type",
    "event.not-after",
    "event.not-before",
    "volume-status.details-name",
    "volume-status.details-status",
    "volume-status.status",
];

/// DescribeVolumeStatus.
pub struct Status(Query);

impl Status {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // Nothing here is managed by a service, so it makes no difference.
        params.flag("IncludeManagedResources")?;
        Query::parse(params, "DescribeVolumeStatus", Some("VolumeId"), FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let (region, now) = (context.region(), context.now);
        let known = |volume: &Volume| {
            context.account == world.account() && volume.region == region && volume.origin.is_visible(now)
        };
        let exists = |id: &str| world.volume(region, id).is_some_and(known);
        self.0.check_ids("vol-", "InvalidVolumeID.Malformed", not_found, exists)?;
        let wanted = world
            .ebs()
            .filter(|volume| known(volume))
            .filter(|volume| self.0.wants(volume.id.as_str(), &Tags::new(), |name| field(volume, name, now)))
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |volume: &&Volume| volume.id.to_string());
        Ok(context.response(|xml| {
            xml.list("volumeStatusSet", page, |xml, volume| write(xml, volume, now));
            xml.maybe("nextToken", token);
        }))
    }
}

/// `insufficient-data` while there is no volume yet; nothing here is ever ill.
fn status(volume: &Volume) -> &'static str {
    if volume.stage == Stage::Creating { "insufficient-data" } else { "ok" }
}

fn details(volume: &Volume, now: Timestamp) -> Vec<(&'static str, &'static str)> {
    let checked = if volume.stage == Stage::Creating { "not-applicable" } else { "passed" };
    let mut details = vec![("io-enabled", checked), ("io-performance", "not-applicable")];
    if let Some(initialization) = &volume.origin.initialization {
        let state = if initialization.is_done(now) { "completed" } else { "initializing" };
        details.push(("initialization-state", state));
    }
    details
}

fn field(volume: &Volume, name: &str, now: Timestamp) -> Vec<String> {
    let each = |part: fn((&'static str, &'static str)) -> &'static str| {
        details(volume, now).into_iter().map(|pair| part(pair).to_owned()).collect()
    };
    match name {
        "availability-zone" => vec![volume.zone.clone()],
        "volume-status.details-name" => each(|(name, _)| name),
        "volume-status.details-status" => each(|(_, status)| status),
        "volume-status.status" => vec![status(volume).to_owned()],
        // There are no events, and so nothing to be done about them.
        _ => vec![],
    }
}

fn write(xml: &mut Xml, volume: &Volume, now: Timestamp) {
    xml.text("volumeId", &volume.id);
    xml.text("availabilityZone", &volume.zone);
    xml.text("availabilityZoneId", zone::id(&volume.zone));
    xml.node("volumeStatus", |xml| {
        xml.text("status", status(volume));
        xml.list("details", details(volume, now), |xml, (name, status)| {
            xml.text("name", name);
            xml.text("status", status);
        });
    });
    xml.node("eventsSet", |_| {});
    xml.node("actionsSet", |_| {});
    if let Some(initialization) = &volume.origin.initialization {
        xml.node("initializationStatusDetails", |xml| {
            xml.text("initializationType", initialization.way.name());
            xml.text("progress", initialization.percent(now));
            if initialization.way == Way::Provisioned {
                let seconds = initialization.remaining(now).as_secs_f64().ceil();
                xml.text("estimatedTimeToCompleteInSeconds", seconds as u64);
            }
        });
    }
    write_operator(xml);
}
