//! Following a set until it is over: the loop around [`Waiting`].
//!
//! In: a set, or what a run has just made. Out: how it ended. Must never: end because it takes long, because the
//! network is away, or because EC2's progress says 100 %.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::find::snapshots;
use super::wait::{Seen, Waiting};
use crate::clock::Clock;
use crate::ec2::Ec2Error;
use crate::ec2::direct::Direct;
use crate::ec2::keep::{Keep, Wanted};
use crate::ec2::repeat::Repeating;
use crate::interrupt::Interrupt;

/// Who is told of the progress.
pub trait Tell {
    /// A state has changed, or something is worth a line.
    fn line(&mut self, line: &str);
    /// After each look: how everything stands `now`, and when the next look is at the latest.
    fn looked(&mut self, waiting: &Waiting, now: Duration, next: Duration);
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// Every member is completed.
    Completed,
    /// A member is lost, and why.
    Lost(String),
    /// The limit is over; the snapshots go on.
    NotYet,
    /// A signal came; the snapshots go on.
    Interrupted(Signal),
}

/// Looks at every member until all are completed, one is lost, or the limit is over.
///
/// # Errors
/// When EC2 refuses in a way that no waiting mends, as a missing permission.
pub async fn follow<E: Keep>(
    ec2: &Repeating<'_, E>,
    waiting: &mut Waiting,
    limit: Option<Duration>,
    clock: &dyn Clock,
    interrupt: &mut Interrupt,
    tell: &mut dyn Tell,
) -> Result<Followed, Ec2Error> {
    let ids = waiting.members().map(|m| m.id.clone()).collect();
    let wanted = Wanted::Ids(ids);
    let began = clock.elapsed();
    loop {
        let looked = tokio::select! {
            biased;
            signal = interrupt.caught() => return Ok(Followed::Interrupted(signal)),
            looked = snapshots(ec2, &wanted) => looked,
        };
        let now = clock.elapsed();
        match looked {
            Ok(shown) => waiting.see(&shown, now).iter().for_each(|line| tell.line(line)),
            // A network that is away comes back: only what EC2 says ends this.
            Err(e) if e.passes() => tell.line(&format!("{e}; asking again")),
            Err(e) => return Err(e),
        }
        match waiting.seen() {
            Seen::Completed => return Ok(Followed::Completed),
            Seen::Failed(why) => return Ok(Followed::Lost(why)),
            Seen::Pending => {}
        }
        let Some(pause) = pause(waiting, now.saturating_sub(began), limit) else {
            return Ok(Followed::NotYet);
        };
        tell.looked(waiting, now, pause);
        if let Some(signal) = rest(clock, pause, interrupt).await {
            return Ok(Followed::Interrupted(signal));
        }
    }
}

/// The pause before the next look; none when the limit is over.
fn pause(waiting: &Waiting, waited: Duration, limit: Option<Duration>) -> Option<Duration> {
    let left = limit.map_or(Duration::MAX, |limit| limit.saturating_sub(waited));
    (!left.is_zero()).then(|| waiting.pause(waited).min(left))
}

/// Pauses. The signal that ended the pause, if one did.
async fn rest(clock: &dyn Clock, pause: Duration, interrupt: &mut Interrupt) -> Option<Signal> {
    tokio::select! {
        biased;
        signal = interrupt.caught() => Some(signal),
        () = clock.pause(pause) => None,
    }
}

/// After a set is complete: waits until the data of each member can be read without a volume, which EC2 may allow some
/// minutes later only.
///
/// # Errors
/// When EC2 refuses in a way that no waiting mends, as a missing permission.
pub async fn readable<D: Direct>(
    direct: &Repeating<'_, D>,
    waiting: &Waiting,
    limit: Option<Duration>,
    clock: &dyn Clock,
    interrupt: &mut Interrupt,
    tell: &mut dyn Tell,
) -> Result<Followed, Ec2Error> {
    let began = clock.elapsed();
    for member in waiting.members() {
        let mut told = false;
        loop {
            let asked = async || direct.inner().readable(&member.id).await;
            let said = tokio::select! {
                biased;
                signal = interrupt.caught() => return Ok(Followed::Interrupted(signal)),
                said = direct.call("ListSnapshotBlocks", asked) => said,
            };
            match said {
                Ok(true) => break,
                Ok(false) if told => {}
                Ok(false) => {
                    told = true;
                    tell.line(&format!("{} {}: completed, not readable yet", member.id, member.name()));
                }
                Err(e) if e.passes() => tell.line(&format!("{e}; asking again")),
                Err(e) => return Err(e),
            }
            let Some(pause) = pause(waiting, clock.elapsed().saturating_sub(began), limit) else {
                return Ok(Followed::NotYet);
            };
            if let Some(signal) = rest(clock, pause, interrupt).await {
                return Ok(Followed::Interrupted(signal));
            }
        }
    }
    Ok(Followed::Completed)
}
