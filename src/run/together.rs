//! The other members of the group, as a run that takes a set sees them.
//!
//! ```text
//! gather      before anything is touched      all members are here; the epoch is known
//! ready, set  before the freeze               all are ready; all have nothing left to do but to freeze
//! call        in the window                   all are frozen → EC2 is asked → all have its answer
//! ended       everything is thawed            who has given up says so
//! settle      applications are released       all say that their freeze held: one instant
//! ```
//!
//! In: a session of [`crate::group`]. Out: a [`Took`] of the window, a [`GroupRecord`] of the run. Must never: say
//! that the freeze held without the evidence of the window, or have a thaw wait for the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::progress::Window;
use super::step::Step;
use super::take;
use crate::config::settings::GroupSettings;
use crate::consistency::Consistency;
use crate::ec2::{CreateFailed, CreateRequest, Ec2, SnapshotView};
use crate::error::Error;
use crate::exit::Exit;
use crate::group::engine::Engine;
use crate::group::{Broken, Phase, Session};
use crate::ids::VolumeId;
use crate::interrupt::Interrupt;
use crate::sets::group::{GroupRecord, Instant as OneInstant};
use crate::window::{Called, Times};

/// What EC2 has answered.
pub(super) type Created = Result<Vec<SnapshotView>, CreateFailed>;

/// What a window has brought.
pub(super) enum Took {
    /// EC2's answer; with what ended the window too early for the others, if it was not the group.
    Answer(Created, Option<Failure>),
    /// EC2 was not asked.
    NotSent(Failure),
    /// EC2 was asked, and its answer was not waited for.
    Lost(Failure),
}

/// The group, for one run.
#[derive(Debug)]
pub(super) struct Together {
    engine: Arc<dyn Engine>,
    settings: GroupSettings,
    session: Option<Session>,
    leaving: Option<JoinHandle<()>>,
    /// EC2 was asked.
    sent: bool,
    requested: Option<Timestamp>,
    responded: Option<Timestamp>,
    call: Option<Duration>,
    answer: Option<Created>,
    /// Everything was frozen here when "answered" of all members was read.
    answered: bool,
    instant: Option<OneInstant>,
    reason: Option<String>,
}

impl Together {
    pub fn new(engine: Arc<dyn Engine>, settings: GroupSettings) -> Self {
        Self {
            engine,
            settings,
            session: None,
            leaving: None,
            sent: false,
            requested: None,
            responded: None,
            call: None,
            answer: None,
            answered: false,
            instant: None,
            reason: None,
        }
    }

    /// Waits until all members are here. The request gets the tag of the epoch.
    pub async fn gather<E>(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        request: &mut CreateRequest,
    ) -> Result<(), Error> {
        env.at(Step::AllHere);
        let probed = self.engine.probe().await;
        tracing::debug!("group {}: {}", self.settings.name, probed.map_err(Broken::Engine)?);
        let identity = &job.facts.identity;
        let gathered = Session::gather(Arc::clone(&self.engine), &self.settings, &job.run, identity).await;
        let session = gathered?;
        crate::sets::group::tag_epoch(&mut request.tags, session.epoch());
        self.session = Some(session);
        Ok(())
    }

    pub async fn ready<E>(&mut self, env: &Environment<'_, E>) -> Result<(), Failure> {
        env.at(Step::AllReady);
        if let Some(session) = &mut self.session {
            session.ready().await?;
            session.warm().await?;
        }
        Ok(())
    }

    pub async fn set<E>(&mut self, env: &Environment<'_, E>) -> Result<(), Failure> {
        env.at(Step::AllSet);
        if let Some(session) = &mut self.session {
            session.set().await?;
        }
        Ok(())
    }

    /// The one call to EC2, once all members are frozen; then their answers. What it comes to is kept here: the window
    /// may end in the middle, at any moment.
    pub async fn call<E: Ec2>(&mut self, env: &Environment<'_, E>, request: &CreateRequest, of: &[VolumeId]) {
        let Some(session) = &mut self.session else { return };
        env.at(Step::AllFrozen);
        if session.frozen().await.is_err() {
            return;
        }
        env.at(Step::Request);
        (self.sent, self.requested) = (true, Some(Timestamp::now()));
        let sent = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = env.ec2.create(request) => answer,
            // All thaw at once: what EC2 makes of the request is looked up later.
            _ = session.watch() => return,
        };
        (self.call, self.responded) = (Some(sent.elapsed()), Some(Timestamp::now()));
        let all = |made: &Vec<SnapshotView>| of.iter().all(|id| made.iter().any(|s| s.volume == *id));
        let complete = answer.as_ref().is_ok_and(all);
        self.answer = Some(answer);
        if complete {
            env.at(Step::AllAnswered);
            self.answered = session.answered().await.is_ok();
        }
    }

    /// What the window has brought.
    pub fn took(&mut self, job: &Job<'_>, called: Called<Option<Created>>) -> Took {
        let limit = humantime::format_duration(job.settings.window);
        let waiting = |phase| self.session.as_ref().map(|s| s.not_yet(phase).join(", ")).unwrap_or_default();
        let broken = self.session.as_ref().and_then(Session::broken).cloned();
        if let Some(answer) = self.answer.take() {
            if !self.answered && answer.is_ok() {
                self.reason = Some(match (&called, &broken) {
                    (Called::RanOut, _) => {
                        let late = waiting(Phase::Answered);
                        format!(
                            "the window of {limit} ran out before EC2 had answered to all members: {late}"
                        )
                    }
                    (_, Some(broken)) => broken.to_string(),
                    (Called::WatchdogLost(how), _) => how.to_string(),
                    _ => "the window ended before EC2 had answered to all members".to_owned(),
                });
            }
            // This host's own set is as good as if it were alone.
            let ended = match called {
                Called::Returned(_) | Called::RanOut => None,
                other => take::answer(job, other).err(),
            };
            return Took::Answer(answer, ended);
        }
        let failure = match (called, broken) {
            (Called::Returned(_), Some(broken)) => broken.into(),
            (Called::RanOut, _) if !self.sent => {
                let late = waiting(Phase::Frozen);
                let what = format!("the window of {limit} ran out before all members had frozen: {late}");
                Failure::new(Exit::Group, what)
            }
            (called, _) => match take::answer(job, called) {
                // EC2 was not asked, so nothing was taken.
                Err(failure) if !self.sent && failure.exit == Exit::NotHeld => {
                    Failure { exit: Exit::Freeze, ..failure }
                }
                Err(failure) => failure,
                Ok(_) => Failure::new(Exit::Group, "the group is not together"),
            },
        };
        self.reason = Some(failure.reason.clone());
        if self.sent { Took::Lost(failure) } else { Took::NotSent(failure) }
    }

    /// The window is over, or there was none: whoever has not come through it tells the others at once, and waits for
    /// nothing.
    pub fn ended(&mut self, window: &Window) {
        let why = window.failure.as_ref().map(|failure| failure.reason.clone());
        if !self.answered || why.is_some() {
            let why = why.or_else(|| self.reason.clone()).unwrap_or_else(|| "its window is over".to_owned());
            self.leave(&why);
        }
    }

    fn leave(&mut self, why: &str) {
        self.reason.get_or_insert_with(|| why.to_owned());
        if let Some(session) = self.session.as_mut().filter(|_| self.leaving.is_none()) {
            self.leaving = Some(session.leave(why));
        }
    }

    /// Puts the times of EC2's call in the place of those of the whole wait.
    pub fn correct(&self, times: &mut Times, call: &mut Option<Duration>) {
        (times.requested, times.responded) = (self.requested, self.responded);
        if call.is_some() {
            *call = self.call;
        }
    }

    /// Can this member still say that its freeze held?
    pub fn may_hold(&self) -> bool {
        self.answered && self.leaving.is_none()
    }

    /// This member's freeze is proven to have held, and its set has this label: waits until all say so.
    pub async fn held<E>(&mut self, env: &Environment<'_, E>, label: Consistency, interrupt: &Interrupt) {
        env.at(Step::AllHeld);
        let Some(session) = &mut self.session else { return };
        let mut early = interrupt.clone();
        let held = tokio::select! {
            biased;
            signal = early.caught() => Err(format!("interrupted by {signal} while the others were waited for")),
            held = session.held(label) => held.map_err(|broken| broken.to_string()),
        };
        match held {
            Ok(()) => self.instant = Some(OneInstant::Group),
            Err(why) => self.reason = Some(why),
        }
    }

    /// This member's freeze is not proven to have held.
    pub fn not_held(&mut self, why: Option<&str>) {
        let why = why.map_or_else(|| "its freeze is not proven to have held".to_owned(), str::to_owned);
        self.leave(&why);
    }

    /// For the record of the run. `taken`: is there a set?
    pub fn record(&self, taken: bool) -> GroupRecord {
        let instant = taken.then_some(self.instant.unwrap_or(OneInstant::Host));
        GroupRecord {
            name: self.settings.name.clone(),
            member: self.settings.member.clone(),
            epoch: self.session.as_ref().map(|session| session.epoch().clone()),
            instant,
            reason: self.reason.clone().filter(|_| instant != Some(OneInstant::Group)),
            members: self.session.as_ref().map(Session::members).unwrap_or_default(),
        }
    }

    /// The run is over: nothing is left in the engine but for the time of a lease.
    pub async fn close(&mut self) {
        if self.instant != Some(OneInstant::Group) {
            self.leave("its run is over");
        }
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.await;
        }
        if let Some(session) = &self.session {
            session.end();
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::new(broken.exit(), broken.to_string()).hint(broken.hint())
    }
}
