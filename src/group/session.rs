//! One member's way through the phases.
//!
//! ```text
//! gather ─▶ ready ─▶ set ─▶ frozen ─▶ (EC2 is asked: watch) ─▶ answered ─▶ held
//!    └────────┴────────┴───────┴──────────────┴───────────────────┴──────▶ leave
//! ```
//!
//! In: an engine and a run. Out: each phase, once all members have reached it, or why they cannot. Must never: say a
//! phase before it is reached, wait for the engine in [`Session::leave`], or go on once anything is [`Broken`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::engine::{Engine, EngineError, Heard, Read, Version, Written};
use super::entry::{Entry, Epoch, PROTOCOL, Phase, clip};
use super::view::{Barrier, Broken, Together, View, Who};
use crate::config::settings::GroupSettings;
use crate::consistency::Consistency;
use crate::discover::Identity;
use crate::ids::{InstanceId, RunId};

/// Pause after a call of the engine that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// One member's run, once all members are here.
#[derive(Debug)]
pub struct Session {
    engine: Arc<dyn Engine>,
    limits: Limits,
    who: Who,
    /// What this member says.
    own: Entry,
    /// Of this member's entry.
    version: Version,
    /// Is that entry this run's? Else there is nothing to take back.
    said: bool,
    view: View,
    together: Together,
    broken: Option<Broken>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    join: Duration,
    ready: Duration,
    settle: Duration,
    call: Duration,
    lease: Duration,
}

/// One member of a group that has come together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its name.
    pub member: String,
    /// Its run, which is its set.
    pub run_id: RunId,
    /// The instance that took it.
    pub instance_id: InstanceId,
    /// Its Region.
    pub region: String,
    /// The label of its set, once it has said that its freeze held.
    pub label: Option<Consistency>,
}

impl Session {
    /// Says that this member is here, and waits until all are. Nothing has been touched yet.
    ///
    /// # Errors
    /// When not all come in time, or the engine cannot be used. This member's entry is gone then, or goes by itself.
    pub async fn gather(
        engine: Arc<dyn Engine>,
        settings: &GroupSettings,
        run: &RunId,
        identity: &Identity,
    ) -> Result<Self, Broken> {
        let mut members = settings.members.clone();
        members.sort_unstable();
        let (group, me) = (settings.name.clone(), settings.member.clone());
        let who = Who { group, members: members.clone(), me: me.clone(), run: run.clone() };
        let own = Entry {
            protocol: PROTOCOL,
            member: me,
            members,
            run: run.clone(),
            instance: identity.instance_id.clone(),
            region: identity.region.clone(),
            phase: Phase::Here,
            epoch: None,
            label: None,
            reason: None,
        };
        let limits = Limits {
            join: settings.join_timeout,
            ready: settings.ready_timeout,
            settle: settings.settle_timeout,
            call: settings.call_timeout,
            lease: settings.lease,
        };
        let together = Together { epoch: Epoch::none(), runs: Default::default() };
        let view = View::default();
        let mut session =
            Self { engine, limits, who, own, version: 0, said: false, view, together, broken: None };
        match session.join().await {
            Ok(()) => Ok(session),
            Err(broken) => {
                session.broken = Some(broken.clone());
                let _ = session.leave("it did not see all members").await;
                Err(broken)
            }
        }
    }

    async fn join(&mut self) -> Result<(), Broken> {
        let end = Instant::now() + self.limits.join;
        let mut heard = Instant::now();
        let late = |session: &Self, members: &[String]| session.late("here", session.limits.join, members);
        loop {
            let read = self.look(&mut heard, self.limits.join).await?;
            let found = read.entries.iter().find(|raw| raw.member == self.who.me);
            self.version = found.map_or(0, |raw| raw.version);
            let taken = match self.view.entry(&self.who.me) {
                // A former run of this member that is over.
                Some(entry) if entry.phase.is_over() => None,
                Some(entry) => Some(Broken::Taken {
                    member: self.who.me.clone(),
                    by: entry.run.clone(),
                    instance: entry.instance.to_string(),
                }),
                None => match found.and_then(|raw| raw.value.as_deref()) {
                    Some(bytes) => {
                        let why = Entry::read(&self.who.me, bytes).err().unwrap_or_default();
                        return Err(Broken::Unreadable { member: self.who.me.clone(), why });
                    }
                    None => None,
                },
            };
            match taken {
                None if self.write(&mut heard, self.limits.join).await?.is_ok() => break,
                // Somebody else was faster, or was just over: look again.
                None => {}
                Some(taken) if Instant::now() >= end => return Err(taken),
                // A dead run's entry goes with its lease.
                Some(_) => sleep(self.limits.lease / 10).await,
            }
        }
        loop {
            match self.view.all_here(&self.who)? {
                Ok(together) => {
                    self.together = together;
                    self.own.epoch = Some(self.together.epoch.clone());
                    return Ok(());
                }
                Err(missing) => {
                    tokio::select! {
                        heard = self.engine.changed() => self.hear(heard, &mut Instant::now(), self.limits.join).await?,
                        () = sleep_until(end) => return Err(late(self, &missing)),
                    }
                }
            }
        }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.together.epoch
    }

    /// Those that have not said this phase yet, as far as it is known here.
    #[must_use]
    pub fn not_yet(&self, phase: Phase) -> Vec<String> {
        match self.view.reached(&self.who, &self.together, phase) {
            Ok(Barrier::Waiting(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// The members, with what they have said last.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let said = |(name, run): (&String, &RunId)| {
            let entry = self.view.entry(name).filter(|entry| entry.run == *run)?;
            Some(Member {
                member: name.clone(),
                run_id: run.clone(),
                instance_id: entry.instance.clone(),
                region: entry.region.clone(),
                label: entry.label.filter(|_| entry.phase == Phase::Held),
            })
        };
        self.together.runs.iter().filter_map(said).collect()
    }

    /// This member is ready; waits until all are.
    ///
    /// # Errors
    /// When they do not come to that.
    pub async fn ready(&mut self) -> Result<(), Broken> {
        self.pass(Phase::Ready, self.limits.ready, self.limits.lease).await
    }

    /// Opens what may not be opened while anything is frozen.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn warm(&self) -> Result<(), Broken> {
        self.engine.warm().await.map_err(Broken::Engine)
    }

    /// Nothing is left to do but to freeze; waits until it is so for all.
    ///
    /// # Errors
    /// When they do not come to that.
    pub async fn set(&mut self) -> Result<(), Broken> {
        self.pass(Phase::Set, self.limits.ready, self.limits.lease).await
    }

    /// Everything is frozen here; waits until it is so everywhere. Only the window ends it otherwise.
    ///
    /// # Errors
    /// When they do not come to that.
    pub async fn frozen(&mut self) -> Result<(), Broken> {
        self.pass(Phase::Frozen, self.limits.ready, self.limits.call).await
    }

    /// Returns when a member cannot stay in it any more, or the engine is lost. Runs beside EC2's call.
    pub async fn watch(&mut self) -> Broken {
        let mut heard = Instant::now();
        loop {
            if let Err(broken) = self.view.reached(&self.who, &self.together, Phase::Frozen) {
                return self.breaks(broken);
            }
            let news = self.engine.changed().await;
            if let Err(broken) = self.hear(news, &mut heard, self.limits.call).await {
                return self.breaks(broken);
            }
        }
    }

    /// EC2's answer was read here, and everything is still frozen; waits until it is so everywhere.
    ///
    /// # Errors
    /// When they do not come to that.
    pub async fn answered(&mut self) -> Result<(), Broken> {
        self.pass(Phase::Answered, self.limits.ready, self.limits.call).await
    }

    /// Everything was frozen here until after [`Self::answered`] had returned, and the set has this label; waits until
    /// all members have said so.
    ///
    /// # Errors
    /// When they do not come to that.
    pub async fn held(&mut self, label: Consistency) -> Result<(), Broken> {
        self.own.label = Some(label);
        self.pass(Phase::Held, self.limits.settle, self.limits.settle).await
    }

    /// Why it is broken, if it is.
    #[must_use]
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Says that this member gives up, and why. Nothing has to wait for it: it goes on by itself, and ends.
    pub fn leave(&mut self, reason: &str) -> tokio::task::JoinHandle<()> {
        self.broken.get_or_insert(Broken::Left { member: self.who.me.clone(), reason: reason.to_owned() });
        let left = Entry { phase: Phase::Left, reason: Some(clip(reason)), ..self.own.clone() };
        let (engine, version, limit) = (Arc::clone(&self.engine), self.version, self.limits.call);
        let said = self.said;
        tokio::spawn(async move {
            if said {
                let _ = timeout(limit, engine.write(left.bytes(), version)).await;
            }
            engine.let_go();
        })
    }

    /// There is nothing more to say: the entry goes by itself.
    pub fn end(&self) {
        self.engine.let_go();
    }

    fn breaks(&mut self, broken: Broken) -> Broken {
        self.broken.get_or_insert(broken).clone()
    }

    /// Says a phase, and waits until all have said it.
    async fn pass(&mut self, phase: Phase, limit: Duration, patience: Duration) -> Result<(), Broken> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let passed = self.try_pass(phase, limit, patience).await;
        passed.map_err(|broken| self.breaks(broken))
    }

    async fn try_pass(&mut self, phase: Phase, limit: Duration, patience: Duration) -> Result<(), Broken> {
        let end = Instant::now() + limit;
        let mut heard = Instant::now();
        // What has come meanwhile may have ended it already: then nothing is said.
        self.view.reached(&self.who, &self.together, phase)?;
        self.own.phase = phase;
        if self.write(&mut heard, patience).await?.is_err() {
            return Err(Broken::OwnGone);
        }
        loop {
            let waiting = match self.view.reached(&self.who, &self.together, phase)? {
                Barrier::Passed => return Ok(()),
                Barrier::Waiting(waiting) => waiting,
            };
            tokio::select! {
                news = self.engine.changed() => self.hear(news, &mut heard, patience).await?,
                () = sleep_until(end) => return Err(self.late(phase.name(), limit, &waiting)),
            }
        }
    }

    fn late(&self, phase: &'static str, limit: Duration, members: &[String]) -> Broken {
        let limit = humantime::format_duration(limit).to_string();
        Broken::Late { phase, limit, members: members.join(", ") }
    }

    /// Writes this member's entry as it is now. `Err(())`: somebody else has written it.
    async fn write(&mut self, heard: &mut Instant, patience: Duration) -> Result<Result<(), ()>, Broken> {
        let bytes = self.own.bytes();
        loop {
            let said = self.engine.write(bytes.clone(), self.version).await;
            let read = match said {
                Ok(Written::Done(read) | Written::Other(read)) => read,
                Err(e) => {
                    self.failed(e, heard, patience).await?;
                    continue;
                }
            };
            *heard = Instant::now();
            self.view.take(&read);
            // After an answer that was lost, the engine has the entry already.
            let own = read.entries.iter().find(|raw| raw.member == self.who.me);
            let is_there = own.filter(|raw| raw.value.as_deref() == Some(&bytes));
            return Ok(match is_there {
                Some(raw) => {
                    (self.version, self.said) = (raw.version, true);
                    Ok(())
                }
                None => Err(()),
            });
        }
    }

    async fn hear(&mut self, news: Heard, heard: &mut Instant, patience: Duration) -> Result<(), Broken> {
        match news {
            Heard::Entry(raw) => {
                *heard = Instant::now();
                self.view.hear(&raw);
            }
            Heard::Look => {
                self.look(heard, patience).await?;
            }
        }
        Ok(())
    }

    async fn look(&mut self, heard: &mut Instant, patience: Duration) -> Result<Read, Broken> {
        loop {
            match self.engine.read().await {
                Ok(read) => {
                    *heard = Instant::now();
                    self.view.take(&read);
                    return Ok(read);
                }
                Err(e) => self.failed(e, heard, patience).await?,
            }
        }
    }

    /// An error of the engine: it is tried again, until nothing was heard for too long.
    async fn failed(&self, e: EngineError, heard: &Instant, patience: Duration) -> Result<(), Broken> {
        let again = matches!(e, EngineError::Unreachable(_)) && heard.elapsed() < patience;
        if !again {
            return Err(Broken::Engine(e));
        }
        sleep(PAUSE).await;
        Ok(())
    }
}
