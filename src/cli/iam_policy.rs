//! `stillpoint iam-policy [COMMAND…]`: the least policy for the role that these commands run with.
//!
//! In: commands, the configuration, the Region. Out: a policy as JSON on stdout. Must never: call EC2, or IMDS for
//! what is given.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{Global, print_document};
use crate::config::Overrides;
use crate::config::settings::PlanSettings;
use crate::ec2::policy::{For, Needing, least};
use crate::ec2::{PARTITIONS, partition};
use crate::error::Error;
use crate::exit::Exit;
use crate::run::planned;

#[derive(Debug, Args)]
pub(super) struct IamPolicy {
    /// What the role is to be used for [default: snapshot, doctor, and what the plans ask for: prune, lock, copy].
    #[arg(value_name = "COMMAND", value_enum)]
    commands: Vec<Needing>,
    /// The partition, instead of that of the Region.
    #[arg(long, value_parser = PossibleValuesParser::new(PARTITIONS))]
    partition: Option<String>,
    /// Only the volumes of this instance in CreateSnapshots, and changes only of its sets.
    #[arg(long)]
    instance_only: bool,
}

impl IamPolicy {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let loaded = global.load(None, Overrides::default())?;
        let mut plans = vec![loaded.settings.plan.clone()];
        for name in &loaded.plans {
            plans.push(global.load(Some(name), Overrides::default())?.settings.plan);
        }
        // Without a table of its own, the plan `default` is what a run takes only where there is no other.
        if !loaded.plans.is_empty() && !loaded.plans.contains(&plans[0].name) {
            plans.remove(0);
        }
        let mut commands = self.commands.clone();
        if commands.is_empty() {
            commands = vec![Needing::Snapshot, Needing::Doctor];
            if plans.iter().any(|p| p.keep.is_some()) {
                commands.push(Needing::Prune);
            }
            if plans.iter().any(|p| p.lock.is_some()) {
                commands.push(Needing::Lock);
            }
            if plans.iter().any(|p| !p.copy.is_empty()) {
                commands.push(Needing::Copy);
            }
        }
        let given = &loaded.settings.identity;
        let by_region = given.region.as_deref().map(partition);
        if let (Some(by_hand), Some(of_region)) = (&self.partition, by_region)
            && by_hand != of_region
        {
            let what = format!("--partition {by_hand} is not that of the Region, which is {of_region}");
            return Err(Error::new(Exit::Usage, what).hint("leave one of them out"));
        }
        let known = self.partition.as_deref().or(by_region);
        let asked = known.is_none() || (self.instance_only && given.instance_id.is_none());
        let identity = if asked { Some(planned::identify(&loaded).await?) } else { None };
        let of_instance = identity.as_ref().map(|i| partition(&i.region));
        let instance = given.instance_id.as_ref().or(identity.as_ref().map(|i| &i.instance_id));
        let policy = least(&For {
            commands: &commands,
            partition: known.or(of_instance).unwrap_or("aws"),
            instance: instance.filter(|_| self.instance_only),
            one_volume: plans.iter().all(one_volume),
        });
        print_document(&policy)?;
        Ok(Exit::Ok)
    }
}

/// A plan that names one volume and nothing else takes it with CreateSnapshot.
fn one_volume(plan: &PlanSettings) -> bool {
    plan.volumes.len() == 1 && plan.mounts.is_empty()
}
