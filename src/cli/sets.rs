//! What the commands for the life of a set share: which Region, whose sets, which set is meant by a name.
//!
//! In: options. Out: a connection, sets. Must never: take a name for a set that several have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::Global;
use crate::config::{self, Loaded};
use crate::discover::Identity;
use crate::ec2::RUN_TAG;
use crate::ec2::aws::Aws;
use crate::ec2::aws::direct::AwsDirect;
use crate::ec2::connect;
use crate::ec2::keep::{Keep as _, Wanted};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::lock::{self, FileLock, NoLock};
use crate::ids::{InstanceId, RunId, SnapshotId};
use crate::run::planned;
use crate::sets::find::{Found, find, of_plan, snapshots};
use crate::sets::holds;
use crate::sets::retention::Hold;
use crate::sets::set::SnapshotSet;

/// Credentials have to last for one call at a time: each is preceded by a renewal where that is due.
const A_CALL: Duration = Duration::from_secs(60);

/// EC2 in one Region, for the life of sets.
pub(super) struct Account {
    pub loaded: Loaded,
    pub ec2: Aws,
    /// This instance; none where the Region was given, and IMDS was not asked.
    pub identity: Option<Identity>,
    pub region: String,
}

impl Account {
    /// Connects. Where a Region is given and no instance is needed, IMDS is not asked: this may be any computer.
    pub(super) async fn connect(
        global: &Global,
        plan: Option<&str>,
        needs_instance: bool,
    ) -> Result<Self, Error> {
        let loaded = global.load(plan, config::Overrides::default())?;
        Self::connected(loaded, needs_instance).await
    }

    /// The same in this Region, of several.
    pub(super) async fn connect_in(
        global: &Global,
        region: Option<&str>,
        plan: Option<&str>,
        needs_instance: bool,
    ) -> Result<Self, Error> {
        let loaded = global.load_in(region, plan, config::Overrides::default())?;
        Self::connected(loaded, needs_instance).await
    }

    /// The same with this configuration.
    pub(super) async fn connected(loaded: Loaded, needs_instance: bool) -> Result<Self, Error> {
        let given = loaded.settings.identity.region.clone();
        let identity =
            if given.is_some() && !needs_instance { None } else { Some(planned::identify(&loaded).await?) };
        let region = given.or_else(|| identity.as_ref().map(|i| i.region.clone())).unwrap_or_default();
        let connection =
            connect::connect(&loaded, &region, A_CALL, 4).await.map_err(planned::not_connected)?;
        Ok(Self { ec2: Aws::new(connection), loaded, identity, region })
    }

    /// The EBS direct APIs in the same Region, for so many calls at once.
    pub(super) async fn direct(&self, calls: usize) -> Result<AwsDirect, Error> {
        let connection = connect::connect_direct(&self.loaded, &self.region, A_CALL, calls).await;
        Ok(AwsDirect::new(connection.map_err(planned::not_connected)?))
    }

    /// EC2 in another Region, or in this one.
    pub(super) async fn at(&self, region: &str) -> Result<Aws, Error> {
        if region == self.region { Ok(self.ec2.clone()) } else { at(&self.loaded, region).await }
    }

    /// EC2 in any Region, by the credentials of this profile alone.
    pub(super) async fn at_as(&self, region: &str, profile: &str) -> Result<Aws, Error> {
        let connection = connect::connect_as(&self.loaded, profile, region, A_CALL, 4).await;
        Ok(Aws::new(connection.map_err(planned::not_connected)?))
    }

    /// Of the instances of these sets, and of this one, those that exist. Each is looked for where it was: a copy says
    /// in which Region that is.
    pub(super) async fn existing<'s>(
        &self,
        sets: impl Iterator<Item = &'s SnapshotSet>,
        and: Option<&InstanceId>,
    ) -> Result<BTreeSet<InstanceId>, Error> {
        let mut in_region: BTreeMap<&str, BTreeSet<&InstanceId>> = BTreeMap::new();
        for set in sets {
            let region = set.copy_of.as_ref().map_or(self.region.as_str(), |of| of.region.as_str());
            in_region.entry(region).or_default().insert(&set.instance);
        }
        in_region.entry(&self.region).or_default().extend(and);
        let mut there: BTreeSet<InstanceId> = BTreeSet::new();
        for (region, mut ids) in in_region {
            let own = self.identity.as_ref().map(|i| &i.instance_id);
            if let Some(own) = own.filter(|own| region != self.region && ids.remove(own)) {
                there.insert(own.clone());
            }
            // Anybody who may tag can write the Region of a source.
            if ids.is_empty() || config::region(region).is_err() {
                continue;
            }
            let ids: Vec<InstanceId> = ids.into_iter().cloned().collect();
            let aws = self.at(region).await?;
            let ec2 = Repeating::for_each_call(&aws, &self.loaded.settings.ec2);
            let asked = async || ec2.inner().instances(&ids).await;
            there.extend(ec2.call("DescribeInstances", asked).await.map_err(Error::from)?);
        }
        Ok(there)
    }

    /// Calls that may be repeated.
    pub(super) fn calls(&self) -> Repeating<'_, Aws> {
        Repeating::for_each_call(&self.ec2, &self.loaded.settings.ec2)
    }

    /// The instance that was named, or this one.
    pub(super) fn instance(&self, named: Option<&InstanceId>) -> Result<InstanceId, Error> {
        let own = self.identity.as_ref().map(|i| i.instance_id.clone());
        named.cloned().or(own).ok_or_else(|| {
            Error::new(Exit::Usage, "whose sets? Away from the instance, it has to be named")
                .hint("--instance i-…")
        })
    }

    /// The set with this id, the start of it, or one of its snapshots.
    pub(super) async fn set(&self, name: &SetName) -> Result<SnapshotSet, Error> {
        let ec2 = self.calls();
        let run: String = match name {
            SetName::Snapshot(id) => {
                let found = snapshots(&ec2, &Wanted::Ids(vec![id.clone()])).await.map_err(Error::from)?;
                let run = found.iter().find_map(|s| s.tag(RUN_TAG).map(str::to_owned));
                run.ok_or_else(|| {
                    let what = format!("{id} is not a snapshot of a set in {}", self.region);
                    Error::new(Exit::Config, what)
                        .hint("`stillpoint list --all-hosts` shows the sets; --region names another Region")
                })?
            }
            SetName::Start(start) => start.clone(),
        };
        let all = run.len() < RUN_ID_LENGTH;
        // A filter's `*` stands for any text; in a checked name there is none.
        let value = if all { format!("{run}*") } else { run.clone() };
        let tags = vec![(RUN_TAG.to_owned(), value)];
        let Found { mut sets, strangers } = find(&ec2, &Wanted::Tagged(tags)).await.map_err(Error::from)?;
        sets.retain(|s| s.id.as_str().starts_with(&run));
        match sets.len() {
            1 => Ok(sets.remove(0)),
            0 => {
                let mut what = format!("there is no set {run} in {}", self.region);
                if let Some(s) = strangers.first() {
                    what = format!("{what}; {} has its tag, but {}", s.id, s.why);
                }
                Err(Error::new(Exit::Config, what)
                    .hint("`stillpoint list --all-hosts` shows the sets; --region names another Region"))
            }
            n => {
                let ids: Vec<_> =
                    sets.iter().take(4).map(|s| format!("{} of {}", s.id, s.instance)).collect();
                let what = format!("{n} sets begin with {run}: {}", ids.join(", "));
                Err(Error::new(Exit::Usage, what).hint("write more of the id"))
            }
        }
    }
}

async fn at(loaded: &Loaded, region: &str) -> Result<Aws, Error> {
    let connection = connect::connect(loaded, region, A_CALL, 4).await;
    Ok(Aws::new(connection.map_err(planned::not_connected)?))
}

/// Which sets of this plan in the Region `home` are being copied to the plan's other Regions, by what is pending there.
pub(super) async fn being_copied(
    loaded: &Loaded,
    home: &str,
    instance: &InstanceId,
) -> Result<BTreeMap<RunId, Vec<Hold>>, Error> {
    let mut held: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
    for to in loaded.settings.plan.copy.iter().filter(|to| to.region != home) {
        let aws = at(loaded, &to.region).await?;
        let ec2 = Repeating::for_each_call(&aws, &loaded.settings.ec2);
        let there = of_plan(&ec2, instance, &loaded.settings.plan.name).await.map_err(Error::from)?;
        for (id, holds) in holds::being_copied(&there, home) {
            held.entry(id).or_default().extend(holds);
        }
    }
    Ok(held)
}

/// One process at a time on a host does what this lock is of. None where there is no run folder: that is not the host of
/// any run. `does`: what the other one does, such as `is removing sets`.
///
/// # Errors
/// When another process has it for the whole wait.
pub(super) async fn alone(path: &Path, wait: Duration, does: &str) -> Result<Option<FileLock>, Error> {
    match lock::take(path, wait).await {
        Ok(held) => Ok(Some(held)),
        Err(NoLock::Unusable(_)) => Ok(None),
        Err(NoLock::Taken { pid }) => {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Err(Error::new(Exit::Locked, format!("{who} {does}")).hint("wait for it"))
        }
    }
}

/// Characters of a run id.
const RUN_ID_LENGTH: usize = 36;

/// A set, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetName {
    /// One of its snapshots.
    Snapshot(SnapshotId),
    /// The start of its id.
    Start(String),
}

/// Checks the name of a set.
pub(super) fn set_name(text: &str) -> Result<SetName, String> {
    if text.starts_with("snap-") {
        return text.parse().map(SetName::Snapshot).map_err(|e: crate::ids::InvalidId| e.to_string());
    }
    let text = text.to_ascii_lowercase();
    let good = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if text.len() < 8 || text.len() > RUN_ID_LENGTH || !text.bytes().all(good) {
        return Err("is not the id of a set (8 characters of it at least), nor of a snapshot".to_owned());
    }
    if text.len() == RUN_ID_LENGTH {
        text.parse::<RunId>().map_err(|e| e.to_string())?;
    }
    Ok(SetName::Start(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_named_by_a_start_of_its_id_or_a_snapshot_and_by_nothing_that_a_filter_reads() {
        for good in ["0197f3c2", "0197F3C2-8b1e", "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11"] {
            assert_eq!(set_name(good), Ok(SetName::Start(good.to_ascii_lowercase())), "{good}");
        }
        assert!(matches!(set_name("snap-0123456789abcdef0"), Ok(SetName::Snapshot(_))));
        for bad in [
            "",
            "0197",
            "*",
            "0197f3c2*",
            "0197f3c?",
            "nightly!",
            "snap-*",
            "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11-",
        ] {
            assert!(set_name(bad).is_err(), "{bad}");
        }
    }
}
