//! What is to be done in a run.
//!
//! In: facts, plan, settings. Out: a [`Job`], or the refusal of one that cannot reach what is requested.
//! Pure. Must never: know the machine ([`Environment`] does).
//!
//! [`Environment`]: super::environment::Environment

use crate::config::settings::{OnDegraded, PlanSettings};
use crate::discover::Facts;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::plan::{Consistency, Method, Plan, PlannedFilesystem};

/// What one run is to do, whatever its goal (take, rehearse, freeze for others) is: [`super::goal`].
#[derive(Debug)]
pub struct Job<'a> {
    /// Made anew for each run; it is in the tags, the record and the journal.
    pub run: RunId,
    /// The host and its volumes, as they were when the plan was made.
    pub facts: &'a Facts,
    /// Made from these facts and settings.
    pub plan: &'a Plan,
    /// Limits, hooks, tags and policies.
    pub settings: &'a PlanSettings,
    /// The consistency that is requested: the one in the settings, else the one that the plan implies.
    pub(crate) requested: Consistency,
}

impl<'a> Job<'a> {
    /// # Errors
    /// When the plan cannot reach what is requested, and the settings refuse less. Nothing has been touched.
    pub fn new(
        run: RunId,
        facts: &'a Facts,
        plan: &'a Plan,
        settings: &'a PlanSettings,
    ) -> Result<Self, Error> {
        let natural =
            if settings.holds_applications() { Consistency::Application } else { Consistency::Filesystem };
        let requested = settings.consistency.unwrap_or(natural);
        if requested > plan.best && settings.on_degraded == OnDegraded::Fail {
            let mut what =
                format!("this plan can reach {} consistency at best, {requested} is requested", plan.best);
            if let Some((volume, why)) =
                plan.volumes.iter().find_map(|v| Some((&v.id, v.limited_by.as_ref()?)))
            {
                what = format!("{what}: on {volume}, {why}");
            }
            return Err(Error::new(Exit::Config, what).hint(
                "request less (--consistency), or allow less (--on-degraded keep); \
                 `stillpoint plan` says why",
            ));
        }
        Ok(Self { run, facts, plan, settings, requested })
    }

    pub(super) fn with_method(
        &self,
        method: Method,
    ) -> impl Iterator<Item = &'a PlannedFilesystem> + use<'a> {
        self.plan.filesystems.iter().filter(move |f| f.method == method)
    }
}
