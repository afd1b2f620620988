//! A set is copied to every destination, all at the same time, and what became of it is said.
//!
//! In: a set, destinations. Out: [`Made`]. Must never: ask for anything before every destination has been looked at,
//! or leave out to say what was made.

use futures_util::future::join_all;
use nix::sys::signal::Signal;

use super::Whose;
use super::destination::Destination;
use super::document::OfRegion;
use super::shared::{lend, take_back};
use crate::cli::say;
use crate::cli::sets::Account;
use crate::clock::System;
use crate::config::settings::CopySettings;
use crate::ec2::Ec2Error;
use crate::ec2::keep::Wanted;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::SnapshotId;
use crate::interrupt::Interrupt;
use crate::sets::copy::make::{Copied, CopiedPart, Making, PartState, explained};
use crate::sets::copy::source::Source;
use crate::sets::find::snapshots;

/// What became of a set at all destinations.
pub(in crate::cli) struct Made {
    /// Copies that are there or on their way.
    pub ids: Vec<SnapshotId>,
    /// Each destination.
    pub(super) copies: Vec<OfRegion>,
    pub exit: Exit,
    pub signal: Option<Signal>,
}

/// Copies a set. Every destination is looked at first: if one cannot be copied to, nothing is asked of any.
pub(super) async fn copy(
    account: &Account,
    source: &Source,
    to: &[CopySettings],
    whose: Option<&Whose>,
    wait: bool,
    interrupt: &Interrupt,
) -> Result<Made, Error> {
    let mut all = Vec::new();
    for to in to {
        all.push(Destination::of(account, source, to, whose).await?);
    }
    let there = all.iter().all(|at| at.existing.whole.is_some());
    let lent = match whose.filter(|_| !there) {
        Some(other) => lend(account, source, &other.account).await?,
        None => Vec::new(),
    };
    for id in &source.unplanned {
        say(&format!("{id} stays out: its volume was attached in the last moment, and no tag describes it"));
    }
    for part in &source.parts {
        let at = all.iter().map(|d| source.tags(part, &d.run, d.how.asked.as_deref()));
        if let Some(carried) = at.max_by_key(|c| c.left_out.len()).filter(|c| !c.left_out.is_empty()) {
            let keys = carried.left_out.join(", ");
            say(&format!("the copies of {} do not get the tags {keys}: EC2 allows 50", part.id));
        }
    }
    let each = all.iter_mut().map(|at| one(account, source, at, wait, interrupt));
    let done = join_all(each).await;
    let stopped = done.iter().flatten().any(|copied| copied.signal.is_some());
    if stopped && !lent.is_empty() {
        let who = whose.map_or("", |other| other.account.as_str());
        say(&format!(
            "the copies go on, and so {} stays shared: `stillpoint unshare {} --account {who}`, when they are completed",
            source.set.id, source.set.id
        ));
    }
    let back = stopped || take_back(account, lent).await;
    let mut made = Made { ids: Vec::new(), copies: Vec::new(), exit: Exit::Ok, signal: None };
    let mut first = None;
    let nothing = done.iter().all(|d| d.as_ref().is_some_and(|c| c.nothing() && c.signal.is_none()));
    for (at, done) in all.iter().zip(done) {
        let of = OfRegion::of(source, at);
        let Some(copied) = done else {
            made.copies.push(of);
            made.ids.extend(at.existing.whole.iter().flat_map(|s| s.snapshots().cloned()));
            continue;
        };
        made.copies.push(of.done(&copied));
        made.signal = made.signal.or(copied.signal);
        let good = |p: &&CopiedPart| matches!(p.state, PartState::Completed | PartState::Pending);
        made.ids.extend(copied.parts.iter().filter(good).filter_map(|p| p.copy.clone()));
        if !tell(at, &copied, wait) {
            made.exit = Exit::After;
        }
        if first.is_none() {
            first = copied.stopped;
        }
    }
    if !back {
        made.exit = Exit::After;
    }
    match first {
        // Nothing was made anywhere, and EC2 says why.
        Some(error) if nothing => Err(about_a_key(error)),
        _ => Ok(made),
    }
}

/// EC2 tells at once of a key that is disabled, and of an alias that is none (recorded of EC2).
fn about_a_key(error: Ec2Error) -> Error {
    let key = matches!(&error, Ec2Error::Refused { code, message, .. }
        if code.starts_with("Invalid") && ["key", "alias", "disabled"].iter().any(|w| message.contains(w)));
    if !key {
        return error.into();
    }
    Error::new(Exit::Config, error)
        .hint("enable the key, or name another one: an id, ARN or alias of the Region that is copied to")
}

/// Copies to one destination; none where the copy is there.
async fn one(
    account: &Account,
    source: &Source,
    at: &mut Destination,
    wait: bool,
    interrupt: &Interrupt,
) -> Option<Copied> {
    let region = at.to.region.clone();
    for lost in &at.existing.lost {
        say(&format!(
            "{region}: {} is what is left of a copy that failed ({}): `stillpoint delete {} --region {region}` \
             removes it, as do the rules for copies",
            lost.id,
            lost.state(),
            lost.id
        ));
    }
    if let Some(whole) = &at.existing.whole {
        say(&format!("{region}: is there already, as {}", whole.id));
        return None;
    }
    at.note.iter().for_each(|note| say(note));
    if at.unsure {
        say(&format!("{region}: a copy was interrupted a moment ago: looking for what it has asked for"));
    }
    at.asking();
    let ec2 = at.calls(&account.loaded).until(interrupt);
    let known = match &at.existing.started {
        Some(set) => {
            let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
            snapshots(&ec2, &Wanted::Ids(ids)).await.unwrap_or_default()
        }
        None => Vec::new(),
    };
    let making = Making {
        ec2: &ec2,
        clock: &System,
        interrupt: interrupt.clone(),
        source,
        run: at.run.clone(),
        how: &at.how,
        wait,
        tell: &|line| say(line),
    };
    // What could not be read a moment ago is looked for before anything is asked for.
    let unsure = at.unsure || (known.is_empty() && at.existing.started.is_some());
    let copied = making.make(&known, unsure).await;
    if !copied.unsure() {
        at.all_known();
    }
    Some(copied)
}

/// Says what became of a set at one destination. False: it is not copied.
fn tell(at: &Destination, copied: &Copied, wait: bool) -> bool {
    let (run, region, n) = (&copied.run, &at.to.region, copied.parts.len());
    if copied.completed() {
        say(&format!("{region}: is copied as {run} ({n} snapshots)"));
        return true;
    }
    if copied.accepted() && !wait && copied.stopped.is_none() {
        say(&format!("{region}: is being copied as {run} ({n} snapshots)"));
        say(&format!("  `stillpoint wait {run} --region {region}` follows it"));
        return true;
    }
    let state = |state: &PartState| copied.parts.iter().filter(|p| p.state == *state).count();
    let (open, pending, unsure) =
        (state(&PartState::Open), state(&PartState::Pending), state(&PartState::Unsure));
    let mut what = format!("{} of {n} are completed", state(&PartState::Completed));
    for (n, is) in [
        (pending, "are on their way"),
        (unsure, "may be on their way, which EC2 has not said"),
        (open, "were not asked for"),
    ] {
        if n > 0 {
            what = format!("{what}, {n} {is}");
        }
    }
    let why = copied.stopped.as_ref().map_or_else(String::new, |e| format!(": {e}"));
    say(&format!("{region}: NOT copied whole as {run}: {what}{why}"));
    let mut hints: Vec<String> = Vec::new();
    for part in &copied.parts {
        if let PartState::Error(why) = &part.state {
            hints.extend(explained(why).map(str::to_owned).filter(|hint| !hints.contains(hint)));
        }
    }
    hints.extend(copied.stopped.as_ref().and_then(Ec2Error::hint));
    hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
    let failed = copied.parts.iter().any(|p| matches!(p.state, PartState::Error(_) | PartState::Gone));
    if failed {
        say(&format!(
            "what is left of it is no copy: `stillpoint delete {run} --region {region}` removes it, as do the rules \
             for copies after `failed`; the next copy is a new one"
        ));
    } else {
        say("the same command goes on with it: nothing is copied twice");
    }
    false
}
