//! What keeps a filesystem busy for longer than a freeze may wait: looked for before anything is touched, and
//! once more before the freeze.
//!
//! In: the filesystems that will be frozen. Out: nothing, or a refusal that names the operation. Must never:
//! refuse for what is over in a moment, make the window longer, or wait for long while applications are
//! quiesced.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::step::Step;
use crate::config::settings::OnDegraded;
use crate::consistency::Consistency;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::busy::{self, Effect, Operation, Subject};
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::plan::{Method, Plan};
use crate::window::Prepared;

/// What is not over by then lasts. FIFREEZE may wait as long, and programs that do one short call after the
/// other (duperemove, e4defrag) are seen outside of it within this.
const LASTS: Duration = Duration::from_secs(2);
/// Between two looks, as long as that is not known.
const SOON: Duration = Duration::from_millis(100);
/// Between two looks, while it is waited for.
const LATER: Duration = Duration::from_secs(1);
/// So often in a row one operation may follow another before that counts as lasting.
const ROUNDS: usize = 3;

/// What a look is about: each filesystem that a run of this plan freezes.
#[must_use]
pub fn subjects(plan: &Plan) -> Vec<Subject> {
    let frozen = plan.filesystems.iter().filter(|f| f.method == Method::Freeze);
    frozen
        .map(|f| Subject {
            dev: f.dev,
            fstype: f.fstype.clone(),
            mount_point: f.mount_point.clone(),
            uuid: f.uuid.clone(),
            open: None,
        })
        .collect()
}

/// Waits until no operation goes on that a freeze would wait for, for `limit` at most. Nothing has
/// been touched, and nobody waits.
///
/// # Errors
/// When one still goes on then, or a signal comes.
pub(super) async fn wait<E>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    limit: Duration,
    interrupt: &mut Interrupt,
) -> Result<(), Error> {
    env.at(Step::Busy);
    let subjects = subjects(job.plan);
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        let found = lasting(env.root, job, &subjects, interrupt).await.map_err(Error::interrupted)?;
        if found.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            let over = humantime::format_duration(limit);
            let what = if limit.is_zero() {
                refusal(&found)
            } else {
                format!("{}; waited for {over} (busy_timeout)", refusal(&found))
            };
            return Err(
                Error::new(Exit::Freeze, what).hint(remedy(&found, limit == job.settings.busy_timeout))
            );
        }
        let names = |all: &[Operation]| all.iter().map(|o| (o.dev, o.operation.clone())).collect::<Vec<_>>();
        if told != names(&found) {
            told = names(&found);
            let limit = humantime::format_duration(limit);
            tracing::info!("waiting, {limit} at most (busy_timeout), for the end of: {}", list(&found));
        }
        pause(LATER.min(limit.saturating_sub(begun.elapsed())), interrupt)
            .await
            .map_err(Error::interrupted)?;
    }
}

/// The same, just before the freeze: hooks and timers may have begun something since. Applications are
/// quiesced, so it is only waited for what is over in a moment.
pub(super) async fn again<E>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    prepared: &Prepared,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    env.at(Step::BusyAgain);
    let mut subjects = subjects(job.plan);
    for subject in &mut subjects {
        subject.open = prepared.open_file(&subject.mount_point);
    }
    let found = lasting(env.root, job, &subjects, interrupt).await.map_err(Failure::interrupted)?;
    if found.is_empty() {
        return Ok(());
    }
    let what = format!("{}; it has begun since the run did", refusal(&found));
    Err(Failure::new(Exit::Freeze, what).hint(remedy(&found, false)))
}

/// What goes on and is not over in a moment.
async fn lasting(
    root: &Path,
    job: &Job<'_>,
    subjects: &[Subject],
    interrupt: &mut Interrupt,
) -> Result<Vec<Operation>, Signal> {
    let look = || {
        let mut seen = busy::look(root, subjects);
        seen.found.retain(|operation| matters(job, operation));
        seen
    };
    for _ in 0..ROUNDS {
        if let Some(signal) = interrupt.pending() {
            return Err(signal);
        }
        let seen = look();
        if !seen.unseen.is_empty() {
            tracing::debug!("not looked at: {}", seen.unseen.join("; "));
        }
        let mut found = seen.found;
        let (end, mut looks) = (Instant::now() + LASTS, 1);
        while !found.is_empty() && Instant::now() < end {
            pause(SOON, interrupt).await?;
            found = busy::still(root, found, &look());
            looks += 1;
        }
        // A thread that runs nearly always is not waiting in one long call.
        found.retain(|operation| operation.sightings * 2 >= looks);
        if !found.is_empty() {
            return Ok(found);
        }
        // What has begun meanwhile is for the next round.
        if look().found.is_empty() {
            return Ok(Vec::new());
        }
    }
    Ok(look().found)
}

/// What goes on writing while frozen makes the set `crash`, by the write counter. Who takes such a set need
/// not wait.
fn matters(job: &Job<'_>, operation: &Operation) -> bool {
    match operation.effect {
        Effect::Blocks => true,
        Effect::Writes => job.requested > Consistency::Crash && job.settings.on_degraded == OnDegraded::Fail,
    }
}

async fn pause(time: Duration, interrupt: &mut Interrupt) -> Result<(), Signal> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        signal = interrupt.caught() => Err(signal),
    }
}

fn list(found: &[Operation]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn refusal(found: &[Operation]) -> String {
    let why = match found.iter().any(|o| o.effect == Effect::Blocks) {
        true => "FIFREEZE would wait for its end, and every writer with it",
        false => "it goes on writing while the filesystem is frozen, and the set would be `crash`",
    };
    format!("cannot freeze while this goes on: {} ({why})", list(found))
}

/// What the user can do. `longer`: had runs waited longer, this one would not have been refused.
fn remedy(found: &[Operation], longer: bool) -> String {
    let mut ways = vec!["nothing was frozen. Wait for its end".to_owned()];
    let stops = found.iter().filter_map(|o| Some(format!("`{} {}`", o.stop?, shown(&o.mount_point))));
    let stops: Vec<_> = stops.collect();
    if !stops.is_empty() {
        ways.push(format!("end it ({})", stops.join(", ")));
    }
    ways.push("let runs begin at another hour".to_owned());
    if longer {
        ways.push("let them wait longer (`busy_timeout`)".to_owned());
    }
    ways.join("; or ")
}
