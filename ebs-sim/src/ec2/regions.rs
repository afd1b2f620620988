//! DescribeRegions.
//!
//! In: names and filters. Out: the Regions of the simulation, all of them without opting in. A Region that is not
//! simulated must never be listed.

use super::context::Context;
use super::error::Ec2Error;
use super::filter::{self, Filter};
use super::params::Params;
use crate::world::Tags;

const FILTERS: &[&str] = &["endpoint", "opt-in-status", "region-name"];
const OPTED: &str = "opt-in-not-required";

pub struct Describe {
    filters: Vec<Filter>,
    names: Vec<String>,
}

fn endpoint(region: &str) -> String {
    format!("ec2.{region}.amazonaws.com")
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // None here is disabled for an account.
        params.flag("AllRegions")?;
        let filters = params.filters()?;
        filter::check(&filters, FILTERS)?;
        Ok(Self { filters, names: params.list("RegionName") })
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let mut all: Vec<&str> = world.regions().collect();
        all.sort_unstable();
        let unknown: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|name| !all.contains(name)).collect();
        if !unknown.is_empty() {
            return Err(Ec2Error::invalid_value(format!("Invalid region(s): [{}]", unknown.join(", "))));
        }
        let wanted = |region: &&str| {
            let named = self.names.is_empty() || self.names.iter().any(|name| name == region);
            named
                && filter::passes(&self.filters, &Tags::new(), |name| match name {
                    "endpoint" => vec![endpoint(region)],
                    "opt-in-status" => vec![OPTED.to_owned()],
                    "region-name" => vec![(*region).to_owned()],
                    _ => vec![],
                })
        };
        let found: Vec<&str> = all.iter().copied().filter(|region| wanted(region)).collect();
        Ok(context.response(|xml| {
            xml.list("regionInfo", found, |xml, region| {
                xml.text("regionName", region);
                xml.text("regionEndpoint", endpoint(region));
                xml.text("optInStatus", OPTED);
            });
        }))
    }
}
