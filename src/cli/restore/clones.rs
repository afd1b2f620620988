//! `stillpoint restore RUN` of a run that has cloned: its volumes are there, and are attached and mounted.
//!
//! In: the id of a run. Out: a plan, or that it is none of a clone. Must never: take a set of snapshots for clones.

use std::path::Path;

use super::super::sets::{Account, SetName};
use super::{Reach, Restore, before_start_of, host, refused, unread};
use crate::ec2::RUN_TAG;
use crate::ec2::keep::Wanted;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::restore::clones::{find, plan};
use crate::restore::plan::RestorePlan;
use crate::restore::record;
use crate::sets::find::snapshots;
use crate::sets::layout::layout;

/// What another restore of this host remembers as its own would be taken away with that one.
fn not_of_another(plan: &RestorePlan, state_dir: &Path) -> Result<(), Error> {
    for id in record::all(state_dir).map_err(unread)? {
        let Some(other) = record::read(state_dir, &id).map_err(unread)? else { continue };
        if let Some(taken) = plan.clones.iter().find(|clone| other.made.values().any(|made| made == *clone)) {
            return Err(Error::new(
                Exit::Config,
                format!("{taken} is of restore {id}, which is not done or not taken back"),
            )
            .hint(format!("--continue {id} goes on with it, --undo {id} takes it back")));
        }
    }
    Ok(())
}

impl Restore {
    /// The plan, if the id is that of a run whose clones are there.
    pub(super) async fn plan_of_clones(&self, account: &Account) -> Result<Option<RestorePlan>, Error> {
        let Some(run) = self.run_of_clones() else { return Ok(None) };
        let ec2 = account.calls();
        let clones = find(&ec2, &run).await.map_err(Error::from)?;
        if clones.is_empty() {
            return Ok(None);
        }
        // Whoever may tag can put the id of a set on a copy of any volume: a set of snapshots is meant first.
        let tagged = Wanted::Tagged(vec![(RUN_TAG.to_owned(), run.to_string())]);
        if !snapshots(&ec2, &tagged).await.map_err(Error::from)?.is_empty() {
            return Ok(None);
        }
        if self.no_attach || !self.size.is_empty() || self.of_copy.into.is_some() {
            return Err(Error::new(Exit::Usage, format!("{run} is of clones, which are there already"))
                .hint("leave --no-attach, --size and --copy-out out"));
        }
        let layout = layout(clones.iter().map(|c| c.view.tags.as_slice())).map_err(|e| {
            Error::new(Exit::Config, format!("{run}: {e}")).hint("attach the clones by hand: docs/clone.md")
        })?;
        let host = host(account, &ec2).await?;
        let reach = if self.no_mount { Reach::Attached } else { Reach::Mounted };
        let asked = self.asked(&run, reach, self.mount.clone(), None);
        let mut plan = plan(&run, &account.region, &clones, &layout, &host, &asked).map_err(refused)?;
        not_of_another(&plan, &account.loaded.settings.state_dir)?;
        plan.before_start = before_start_of(&layout, &plan);
        Ok(Some(plan))
    }

    /// A whole id: it is looked for by a tag of volumes, too.
    fn run_of_clones(&self) -> Option<RunId> {
        match &self.set {
            Some(SetName::Start(id)) => id.parse().ok(),
            _ => None,
        }
    }
}
