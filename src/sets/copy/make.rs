//! The copies of a set are asked for, and followed to their end.
//!
//! ```text
//! open ─ CopySnapshot ─┬─ an id ──────▶ made ─▶ completed │ error │ gone
//!  ▲                   ├─ refused ────▶ nothing more is asked for; what is made is followed
//!  │                   ├─ limit ──────▶ open: again when one is completed
//!  │                   └─ no answer ──▶ unsure
//!  └── not seen for 15 s ─────────────────┘  seen by its tags ─▶ made
//! ```
//!
//! CopySnapshot has no client token, so a lost answer is looked up by the tags that the call itself gives the copy.
//! EC2 shows what it made only a while later (EC2 guide, "eventual consistency"): what is unsure is asked for again
//! only when it was looked for, in vain, for some time.
//!
//! In: a [`Source`], EC2 at the destination. Out: [`Copied`]. Must never: ask twice for what may have been made, or
//! leave a copy that it made unfollowed.

use std::borrow::Cow;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::How;
use super::source::{Part, Source};
use crate::clock::Clock;
use crate::ec2::copies::{Copies, CopyRequest};
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, RUN_TAG, TaggedSnapshot};
use crate::ids::{RunId, SnapshotId};
use crate::interrupt::Interrupt;
use crate::path_encoding::printable;
use crate::sets::find::snapshots;
use crate::sets::read::SOURCE_TAG;
use crate::sets::tags::MEMBER_TAG;

/// EC2 makes so many copies at once to a Region, and no more for anybody (EBS guide, "Quotas").
const AT_ONCE: usize = 20;
/// For so long it is looked for what an unanswered call may have made.
pub const UNSURE: Duration = Duration::from_secs(15);
/// What was not shown for so long is gone: no delay of EC2's is as long.
const GONE: Duration = Duration::from_secs(180);
/// The first pause between two looks, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);

/// A copy of a set that is being made.
pub struct Making<'a, E> {
    /// EC2 at the destination.
    pub ec2: &'a Repeating<'a, E>,
    /// The time and the pauses.
    pub clock: &'a dyn Clock,
    /// Ends the waiting; what is made goes on.
    pub interrupt: Interrupt,
    /// What is copied.
    pub source: &'a Source,
    /// The copied set's id.
    pub run: RunId,
    /// How.
    pub how: &'a How,
    /// Until all copies are completed; else until all are asked for.
    pub wait: bool,
    /// Told each change, in one line.
    pub tell: &'a dyn Fn(&str),
}

/// What became of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The copied set's id.
    pub run: RunId,
    /// Each snapshot, in the order of the source's.
    pub parts: Vec<CopiedPart>,
    /// Why no more was asked for, or no longer looked.
    pub stopped: Option<Ec2Error>,
    /// The signal that ended it.
    pub signal: Option<Signal>,
}

/// What became of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedPart {
    /// The source.
    pub source: SnapshotId,
    /// The copy, as far as it is known.
    pub copy: Option<SnapshotId>,
    /// What is known of it.
    pub state: PartState,
}

/// What is known of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartState {
    /// It was not asked for.
    Open,
    /// It was asked for, and nobody knows whether it was made.
    Unsure,
    /// EC2 makes it.
    Pending,
    /// It is there.
    Completed,
    /// EC2 could not make it: in its words.
    Error(String),
    /// Somebody has deleted it.
    Gone,
}

impl Copied {
    /// Is every copy completed?
    #[must_use]
    pub fn completed(&self) -> bool {
        self.parts.iter().all(|p| p.state == PartState::Completed)
    }

    /// Is every copy there or on its way?
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.parts.iter().all(|p| matches!(p.state, PartState::Completed | PartState::Pending))
    }

    /// Was nothing made, as far as is known?
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.parts.iter().all(|p| p.state == PartState::Open)
    }

    /// Does nobody know of some of it whether it was made?
    #[must_use]
    pub fn unsure(&self) -> bool {
        self.parts.iter().any(|p| p.state == PartState::Unsure)
    }
}

/// What to do about a copy that ended in `error`, by EC2's words; none where they say nothing that helps.
#[must_use]
pub fn explained(message: &str) -> Option<&'static str> {
    let has = |words: &str| message.to_ascii_lowercase().contains(words);
    if has("key") {
        Some(
            "a key cannot be used, the copy's or the source's: it is disabled, being deleted or of another Region, or \
             its policy does not allow this role kms:DescribeKey, CreateGrant, Decrypt, \
             GenerateDataKeyWithoutPlaintext and ReEncrypt*; mend that, and copy again",
        )
    } else if has("not complete") {
        Some("the source was not completed when it was copied: `stillpoint wait` for it, and copy again")
    } else if has("not found") {
        Some(
            "the source was deleted meanwhile, or is not shared with the account that copies: look, and copy again",
        )
    } else {
        None
    }
}

/// One part on its way.
struct Going<'a> {
    part: &'a Part,
    place: Place,
    state: Cow<'static, str>,
    message: Option<String>,
}

/// Times are those of [`Clock::elapsed`].
enum Place {
    Open,
    /// Asked for then, without an answer.
    Unsure(Duration),
    /// Last shown then.
    Made(SnapshotId, Duration),
}

/// Why no more can be asked for now.
enum Held {
    /// EC2's limit, or a network that is away.
    Later,
    /// For good.
    Stopped(Ec2Error),
}

impl Going<'_> {
    fn known(&self) -> PartState {
        match &self.place {
            Place::Open => PartState::Open,
            Place::Unsure(_) => PartState::Unsure,
            Place::Made(..) => match &*self.state {
                "completed" => PartState::Completed,
                "error" => {
                    PartState::Error(self.message.clone().unwrap_or_else(|| "EC2 gives no reason".to_owned()))
                }
                "gone" => PartState::Gone,
                _ => PartState::Pending,
            },
        }
    }

    fn is(&self, state: &PartState) -> bool {
        self.known() == *state
    }

    fn is_lost(&self) -> bool {
        matches!(self.known(), PartState::Error(_) | PartState::Gone)
    }
}

impl<E: Copies> Making<'_, E> {
    /// Asks for what is not `known`, and follows all of it. `unsure`: what is not known may have been asked for a
    /// moment ago, by a process that died.
    pub async fn make(mut self, known: &[TaggedSnapshot], unsure: bool) -> Copied {
        let began = self.clock.elapsed();
        let place = || if unsure { Place::Unsure(began) } else { Place::Open };
        let going = |part| Going { part, place: place(), state: Cow::default(), message: None };
        let mut parts: Vec<Going<'_>> = self.source.parts.iter().map(going).collect();
        self.see(&mut parts, known);
        let mut stopped = None;
        let mut signal = None;
        let mut told_limit = false;
        loop {
            if stopped.is_none() {
                match self.ask(&mut parts, &mut told_limit).await {
                    Some(Held::Stopped(e)) => stopped = Some(e),
                    Some(Held::Later) | None => {}
                }
            }
            if over(&parts, stopped.is_some(), self.wait) {
                break;
            }
            let pause = pause(self.clock.elapsed().saturating_sub(began), &parts);
            tokio::select! {
                biased;
                caught = self.interrupt.caught() => { signal = Some(caught); break; }
                () = self.clock.pause(pause) => {}
            }
            match self.look().await {
                Ok(now) => self.see(&mut parts, &now),
                // A network that is away comes back.
                Err(e) if e.passes() => (self.tell)(&format!("{e}; asking again")),
                Err(e) => {
                    stopped = Some(e);
                    break;
                }
            }
        }
        let parts = parts.iter().map(|g| CopiedPart {
            source: g.part.id.clone(),
            copy: match &g.place {
                Place::Made(id, _) => Some(id.clone()),
                _ => None,
            },
            state: g.known(),
        });
        Copied { parts: parts.collect(), run: self.run, stopped, signal }
    }

    /// Every snapshot of the copied set that EC2 shows.
    async fn look(&self) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
        snapshots(self.ec2, &Wanted::Tagged(vec![(RUN_TAG.to_owned(), self.run.to_string())])).await
    }

    /// Takes what EC2 shows now.
    fn see(&self, parts: &mut [Going<'_>], now: &[TaggedSnapshot]) {
        let (name, at) = (self.source.name(), self.clock.elapsed());
        for snapshot in now.iter().filter(|s| s.tag(SOURCE_TAG) == Some(&name)) {
            let number = snapshot.tag(MEMBER_TAG).and_then(|n| n.parse::<usize>().ok());
            let Some(going) = parts.iter_mut().find(|g| Some(g.part.number) == number) else { continue };
            let id = &snapshot.view.id;
            match &going.place {
                Place::Made(own, _) if own != id => continue,
                Place::Made(..) => {}
                Place::Open | Place::Unsure(_) => self.say(going, &format!("is being copied as {id}")),
            }
            going.place = Place::Made(id.clone(), at);
            if going.state != snapshot.view.state {
                going.state.clone_from(&snapshot.view.state);
                // Healthy copies have a message too.
                going.message = snapshot.detail.message.clone().filter(|_| going.state == "error");
                match going.known() {
                    PartState::Completed => self.say(going, &format!("{id} is completed")),
                    PartState::Error(why) => self.say(going, &format!("{id} FAILED: {why}")),
                    _ => {}
                }
            }
        }
        for going in parts {
            match &going.place {
                Place::Unsure(since) if at.saturating_sub(*since) > UNSURE => going.place = Place::Open,
                Place::Made(id, seen) if at.saturating_sub(*seen) > GONE && going.state != "gone" => {
                    let line = format!("{id} is GONE: somebody has deleted it");
                    going.state = "gone".into();
                    self.say(going, &line);
                }
                _ => {}
            }
        }
    }

    fn say(&self, going: &Going<'_>, what: &str) {
        let (region, volume) = (self.ec2.inner().region(), &going.part.volume);
        (self.tell)(&printable(&format!("{region} {volume}: {what}")));
    }

    /// Asks for what is open, as far as EC2's limit goes.
    async fn ask(&self, parts: &mut [Going<'_>], told_limit: &mut bool) -> Option<Held> {
        if parts.iter().any(Going::is_lost) {
            // A set that lacks one of its snapshots is no copy: no more is paid for.
            return None;
        }
        for n in 0..parts.len() {
            let under_way = parts.iter().filter(|g| g.is(&PartState::Pending) || g.is(&PartState::Unsure));
            if under_way.count() >= AT_ONCE {
                return Some(Held::Later);
            }
            if self.interrupt.pending().is_some() {
                return None;
            }
            let nothing = parts.iter().all(|g| g.is(&PartState::Open));
            let going = &mut parts[n];
            if !going.is(&PartState::Open) {
                continue;
            }
            let at = self.clock.elapsed();
            match self.one(going.part).await {
                Ok(id) => {
                    self.say(going, &format!("is being copied as {id}"));
                    going.place = Place::Made(id, self.clock.elapsed());
                    going.state = "pending".into();
                }
                Err(e) if e.outcome_unknown() => {
                    self.say(going, &format!("{e}; looking for it"));
                    going.place = Place::Unsure(at);
                }
                Err(e) if is_limit(&e) => {
                    if !std::mem::replace(told_limit, true) {
                        let text =
                            "EC2 makes no more copies at once; the others follow as these are completed";
                        (self.tell)(&format!("{}: {text}", self.ec2.inner().region()));
                    }
                    return Some(Held::Later);
                }
                Err(e) if e.passes() && !nothing => {
                    (self.tell)(&format!("{e}; asking again"));
                    return Some(Held::Later);
                }
                Err(e) => return Some(Held::Stopped(e)),
            }
        }
        None
    }

    /// One call; what EC2 has not done for certain is repeated.
    async fn one(&self, part: &Part) -> Result<SnapshotId, Ec2Error> {
        let request = request(self.source, part, &self.run, self.how);
        let once = async || match self.ec2.inner().copy(&request).await {
            Err(e) if e.outcome_unknown() => Ok(Err(e)),
            said => said.map(Ok),
        };
        self.ec2.call("CopySnapshot", once).await?
    }
}

/// The call for one part.
#[must_use]
pub fn request(source: &Source, part: &Part, run: &RunId, how: &How) -> CopyRequest {
    CopyRequest {
        source_region: source.set.region.clone(),
        source: part.id.clone(),
        description: source.described(run),
        tags: source.tags(part, run, how.asked.as_deref()).tags,
        encryption: how.encryption.clone(),
        minutes: how.minutes,
    }
}

/// EC2 makes no more copies at once.
fn is_limit(error: &Ec2Error) -> bool {
    matches!(error, Ec2Error::Refused { code, .. } if code == "ResourceLimitExceeded")
}

fn over(parts: &[Going<'_>], stopped: bool, wait: bool) -> bool {
    let any = |state: &PartState| parts.iter().any(|g| g.is(state));
    let asked = stopped || !any(&PartState::Open) || parts.iter().any(Going::is_lost);
    asked && !any(&PartState::Unsure) && !(wait && any(&PartState::Pending))
}

/// The pause before the next look: longer the longer it lasts, and not in step with others.
fn pause(waited: Duration, parts: &[Going<'_>]) -> Duration {
    let unsure = parts.iter().any(|g| g.is(&PartState::Unsure));
    let pause = if unsure { FIRST } else { (waited / 10).clamp(FIRST, LONGEST) };
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}
