//! The one policy by which calls that change nothing, or that may be made twice, are repeated.
//!
//! ```text
//! call ─→ an answer, or an error that a repeat does not mend ─→ returned
//!      └→ throttled, 5xx, no answer, no connection: a pause, and once more
//!         pause   between nothing and 250 ms · 2ⁿ, 5 s at most (exponential, full jitter), or what Retry-After says
//!         end     when the budget is used up, or a signal comes: the last error is returned
//! ```
//!
//! [`Repeating`] is a [`Describe`] and an [`Ec2`] around any other. The budget is the caller's: it is one for all
//! calls that are made through the same value, so that a step of a run has one limit, however many calls it
//! makes.
//!
//! Why not the SDK's own retries: they have a number of attempts and no budget in time, end for no signal, heed
//! `x-amz-retry-after` only, log nothing, and would be in the client of the create call, which must never
//! be repeated. `backon` would be the pauses alone.
//!
//! In: an implementation, a budget, a clock. Out: its answers. Must never: repeat the create call, or wait while
//! anything is frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tagging::Said;
use super::{
    CreateFailed, CreateRequest, Describe, Ec2, Ec2Error, InstanceView, SnapshotView, TaggedSnapshot,
};
use crate::clock::{self, Clock};
use crate::config::settings::Ec2Settings;
use crate::discover::volumes::AttachedVolume;
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::interrupt::Interrupt;

/// The longest first pause; each later one is up to twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause, unless EC2 asks for more.
const LONGEST: Duration = Duration::from_secs(5);

/// For how long calls are repeated in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// While nobody waits: before anything is touched, and once everything is thawed and released.
    pub free: Duration,
    /// While applications are held: no longer than one call may take anyway.
    pub held: Duration,
    /// How long one attempt may take while applications are held: half of what a call may take otherwise, so that
    /// a request that got lost is sent once more.
    pub held_attempt: Duration,
}

impl Budgets {
    /// As the settings have it.
    #[must_use]
    pub fn of(settings: &Ec2Settings) -> Self {
        let (free, call) = (settings.retry_timeout, settings.call_timeout);
        let held_attempt = if free.is_zero() { call } else { call / 2 };
        Self { free, held: free.min(call), held_attempt }
    }
}

/// Calls of another implementation, repeated within a budget of time.
#[derive(Debug)]
pub struct Repeating<'a, E> {
    ec2: &'a E,
    clock: &'a dyn Clock,
    /// On [`Clock::elapsed`].
    end: Duration,
    /// The budget of each single call, where they do not share one.
    each: Option<Duration>,
    attempt: Option<Duration>,
    interrupt: Option<Interrupt>,
}

impl<'a, E> Repeating<'a, E> {
    /// The budget begins now.
    pub fn new(ec2: &'a E, clock: &'a dyn Clock, budget: Duration) -> Self {
        let end = clock.elapsed().saturating_add(budget);
        Self { ec2, clock, end, each: None, attempt: None, interrupt: None }
    }

    /// While nobody waits, outside of a run, as the settings have it. The budget begins now.
    pub(crate) fn of(ec2: &'a E, settings: &Ec2Settings) -> Self {
        Self::new(ec2, &clock::System, Budgets::of(settings).free)
    }

    /// For work of very many calls, as to remove thousands of snapshots: each call has this budget for itself, and
    /// to be throttled is a part of the work.
    pub(crate) fn for_each_call(ec2: &'a E, settings: &Ec2Settings) -> Self {
        let budget = Budgets::of(settings).free;
        Self { each: Some(budget), ..Self::new(ec2, &clock::System, budget) }
    }

    /// While applications are held. The budget begins now.
    #[must_use]
    pub fn held(ec2: &'a E, clock: &'a dyn Clock, budgets: Budgets) -> Self {
        Self { attempt: Some(budgets.held_attempt), ..Self::new(ec2, clock, budgets.held) }
    }

    /// A signal ends the pause, and nothing is repeated after it.
    #[must_use]
    pub fn until(self, interrupt: &Interrupt) -> Self {
        Self { interrupt: Some(interrupt.clone()), ..self }
    }

    /// The implementation, for calls that this value has no name of: through [`Repeating::call`].
    pub(crate) fn inner(&self) -> &'a E {
        self.ec2
    }

    fn end(&self) -> Duration {
        self.each.map_or(self.end, |budget| self.clock.elapsed().saturating_add(budget))
    }

    /// Any other call that may be repeated.
    ///
    /// # Errors
    /// The last one.
    pub(crate) async fn call<T>(
        &self,
        action: &'static str,
        mut call: impl AsyncFnMut() -> Result<T, Ec2Error>,
    ) -> Result<T, Ec2Error> {
        let mut causes: BTreeMap<String, u32> = BTreeMap::new();
        let mut repeats = 0;
        let end = self.end();
        let said = loop {
            let said = self.attempt(action, &mut call).await;
            let Err(error) = &said else { break said };
            *causes.entry(error.cause()).or_default() += 1;
            if !error.passes() || !self.wait(end, repeats, error.retry_after()).await {
                break said;
            }
            tracing::debug!("{error}: {action} is repeated");
            repeats += 1;
        };
        if repeats > 0 {
            let causes: Vec<String> = causes
                .into_iter()
                .map(|(cause, n)| if n == 1 { cause } else { format!("{cause} × {n}") })
                .collect();
            let times = if repeats == 1 { "once".to_owned() } else { format!("{repeats} times") };
            let end = if said.is_ok() { "and went well" } else { "and failed" };
            let causes = causes.join(", ");
            if self.each.is_some() && said.is_ok() {
                tracing::debug!("{action} was repeated {times} {end}: {causes}");
            } else {
                tracing::warn!("{action} was repeated {times} {end}: {causes}");
            }
        }
        said
    }

    async fn attempt<T>(
        &self,
        action: &'static str,
        call: &mut impl AsyncFnMut() -> Result<T, Ec2Error>,
    ) -> Result<T, Ec2Error> {
        let Some(limit) = self.attempt else { return call().await };
        match tokio::time::timeout(limit, call()).await {
            Ok(said) => said,
            Err(_) => {
                let limit = humantime::format_duration(limit);
                Err(Ec2Error::unknown(action, format!("it did not answer within {limit}")))
            }
        }
    }

    /// Waits before a repeat. False when there is to be none.
    async fn wait(&self, end: Duration, repeats: u32, asked: Option<Duration>) -> bool {
        let left = end.saturating_sub(self.clock.elapsed());
        // What EC2 asks for is waited for as a whole or not at all.
        let least = asked.unwrap_or_default();
        if left.is_zero() || least > left || self.interrupt.as_ref().is_some_and(|i| i.pending().is_some()) {
            return false;
        }
        let most = FIRST.saturating_mul(1 << repeats.min(16)).min(LONGEST);
        // The last repeat is at the end of the budget.
        let pause = most.mul_f64(fastrand::f64()).max(least).min(left);
        let pause = self.clock.pause(pause);
        let Some(mut interrupt) = self.interrupt.clone() else {
            pause.await;
            return true;
        };
        tokio::select! {
            biased;
            _ = interrupt.caught() => false,
            () = pause => true,
        }
    }
}

impl<E: Describe> Describe for Repeating<'_, E> {
    async fn instance(&self, id: &InstanceId) -> Result<InstanceView, Ec2Error> {
        self.call("DescribeInstances", async || self.ec2.instance(id).await).await
    }

    async fn volumes(&self, id: &InstanceId) -> Result<Vec<AttachedVolume>, Ec2Error> {
        self.call("DescribeVolumes", async || self.ec2.volumes(id).await).await
    }

    async fn pending(&self, volumes: &[VolumeId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.call("DescribeSnapshots", async || self.ec2.pending(volumes).await).await
    }

    async fn started(&self, volumes: &[VolumeId], minutes: &[String]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.call("DescribeSnapshots", async || self.ec2.started(volumes, minutes).await).await
    }

    async fn states(&self, snapshots: &[SnapshotId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.call("DescribeSnapshots", async || self.ec2.states(snapshots).await).await
    }

    async fn dry_run(&self, request: &CreateRequest) -> Result<(), Ec2Error> {
        self.call("DryRun", async || self.ec2.dry_run(request).await).await
    }

    async fn may_tag(&self, snapshot: Option<&SnapshotId>) -> Result<Said, Ec2Error> {
        self.call("DryRun of CreateTags", async || self.ec2.may_tag(snapshot).await).await
    }

    async fn one_of_ours(&self, volumes: &[VolumeId]) -> Result<Option<SnapshotId>, Ec2Error> {
        self.call("DescribeSnapshots", async || self.ec2.one_of_ours(volumes).await).await
    }

    async fn renew(&self, need: Duration) -> Result<(), Ec2Error> {
        self.call("fetching credentials", async || self.ec2.renew(need).await).await
    }

    fn warm_connections(&self) -> Option<usize> {
        self.ec2.warm_connections()
    }
}

impl<E: Ec2> Ec2 for Repeating<'_, E> {
    /// Once, whatever comes of it.
    async fn create(&self, request: &CreateRequest) -> Result<Vec<SnapshotView>, CreateFailed> {
        self.ec2.create(request).await
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
        self.call("DescribeSnapshots", async || self.ec2.find_run(run).await).await
    }

    async fn tag(&self, snapshots: &[SnapshotId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        self.call("CreateTags", async || self.ec2.tag(snapshots, tags).await).await
    }
}
