//! `stillpoint lock SET` and `unlock SET`: EC2 refuses to delete its snapshots, or no longer.
//!
//! In: the name of a set, how hard and until when. Out: locks on its snapshots. Must never: lock for good what the
//! command line does not say twice is meant so.

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use super::list::rules;
use super::sets::{Account, SetName, set_name};
use super::told::{Change, Command, Told, tell};
use super::{Global, Output, say};
use crate::config;
use crate::ec2::TaggedSnapshot;
use crate::ec2::keep::{self, LockEnd, LockMode, LockView, MOST_COOL_OFF_HOURS, MOST_LOCKED_DAYS};
use crate::error::Error;
use crate::exit::Exit;
use crate::path_encoding::printable;
use crate::report::change::{Changed, OfSet};
use crate::report::sets::local;
use crate::sets::facts::{facts, group, interval};
use crate::sets::find::of_plan;
use crate::sets::guard::{self, Refusal};
use crate::sets::holds::of_tags;
use crate::sets::lock::{self, Step, days_after};
use crate::sets::retention::{Hold, KeepUntil, Now, Options, Request, State, Warning, Zone, decide};
use crate::sets::set::SnapshotSet;

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("mode").required(true)))]
#[command(group(clap::ArgGroup::new("end").required(true)))]
#[command(group(clap::ArgGroup::new("said").multiple(false)))]
pub(super) struct Lock {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// A lock that whoever has the permission ec2:UnlockSnapshot can take off.
    #[arg(long, group = "mode")]
    governance: bool,
    /// A lock that nobody can take off or shorten, AWS neither, once its cooling-off period is over.
    #[arg(long, group = "mode", requires = "said")]
    compliance: bool,
    /// For so many days, from now; of a pending snapshot, from its completion.
    #[arg(long, group = "end", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_LOCKED_DAYS)))]
    days: Option<u32>,
    /// Until the end of this day (UTC), such as 2027-01-31, or an RFC 3339 time.
    #[arg(long, group = "end", value_name = "DATE", value_parser = until)]
    until: Option<Timestamp>,
    /// How long a compliance lock can still be changed and taken off: whole hours, 1h to 72h.
    #[arg(long, group = "said", value_name = "TIME", conflicts_with = "governance", value_parser = cool_off)]
    cool_off: Option<u32>,
    /// Needed for a compliance lock without --cool-off: that nobody can ever undo it is meant.
    #[arg(long, group = "said", conflicts_with = "governance")]
    yes_nobody_can_undo_it: bool,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Unlock {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// A time to come.
fn until(text: &str) -> Result<Timestamp, String> {
    match KeepUntil::from_tag(text, &Zone::UTC) {
        KeepUntil::Date(at) if at <= Timestamp::now() => Err("is over".to_owned()),
        KeepUntil::Date(at) => Ok(at),
        _ => Err("is not a day such as 2027-01-31".to_owned()),
    }
}

/// Whole hours, as EC2 takes them.
pub(super) fn cool_off(text: &str) -> Result<u32, String> {
    let time = config::duration(text).map_err(|e| e.to_string())?;
    config::whole_hours(time)
        .filter(|hours| (1..=MOST_COOL_OFF_HOURS).contains(hours))
        .ok_or_else(|| format!("is not 1 to {MOST_COOL_OFF_HOURS} whole hours, such as 24h"))
}

fn refused(refusal: Refusal) -> Error {
    Error::new(Exit::Config, refusal.what).hint(refusal.hint)
}

impl Lock {
    fn wanted(&self) -> keep::Lock {
        keep::Lock {
            mode: if self.compliance { LockMode::Compliance } else { LockMode::Governance },
            // One of the two is given.
            end: self.until.map_or(LockEnd::Days(self.days.unwrap_or(1)), LockEnd::At),
            cool_off: self.cool_off,
        }
    }

    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let wanted = self.wanted();
        let members = guard::members(&ec2, &set).await.map_err(Error::from)?;
        let present = lock::present(&ec2, &set).await.map_err(Error::from)?;
        let now = Timestamp::now();
        if let Some(refusal) = lock::refusal(&set, &members, &present, &wanted, now) {
            return Err(refused(refusal));
        }
        let steps = lock::to_lock(&members, &present, &wanted, now);
        if !set.missing.is_empty() {
            say(&format!(
                "{} lacks {} of its snapshots: it is locked without them",
                set.id,
                set.missing.len()
            ));
        }
        if self.dry_run {
            for step in &steps {
                match &step.lock {
                    None => say(&format!("{} stays as it is", step.id)),
                    Some(lock) => say(&format!("{} would be locked {}", step.id, described(lock))),
                }
            }
            cautions(&set, &members).iter().for_each(|caution| say(caution));
        }
        let ends = match wanted.end {
            LockEnd::Days(days) => days_after(now, days),
            LockEnd::At(at) => at,
        };
        if let Some(shorter) = shorter_than_rules(global, &account, &set, wanted.mode, ends).await? {
            say(&format!("warning: {shorter}"));
        }
        let command = Command { name: "lock", dry_run: self.dry_run, output: self.output };
        if self.dry_run {
            let would = steps.iter().map(|step| Changed::would(&step.id, step.lock.is_some())).collect();
            return command.print(vec![OfSet::of(&set, would)], Exit::Ok);
        }
        let done = lock::lock(&ec2, steps).await;
        let some = done.iter().any(|(_, said)| matches!(said, Ok(Some(_))));
        let exit = tell(&command, vec![(&set, done.into_iter().map(told).collect())])?;
        if some {
            cautions(&set, &members).iter().for_each(|caution| say(caution));
        }
        Ok(exit)
    }
}

/// What became of a member.
pub(super) fn told((step, said): lock::Outcome) -> Told {
    let Step { id, lock } = step;
    let Some(wanted) = lock else { return Told { id, accounts: Vec::new(), change: None } };
    let good = match &said {
        Ok(Some(lock)) => format!("is locked {}", as_it_is(lock)),
        _ => String::new(),
    };
    let bad = format!("is NOT locked {}", described(&wanted));
    Told { id, accounts: Vec::new(), change: Some(Change { said: said.map(drop), good, bad }) }
}

/// A lock that is wanted, in words.
pub(super) fn described(lock: &keep::Lock) -> String {
    let end = match lock.end {
        LockEnd::Days(1) => "for 1 day".to_owned(),
        LockEnd::Days(days) => format!("for {days} days"),
        LockEnd::At(at) => format!("until {}", local(at)),
    };
    match (lock.mode, lock.cool_off) {
        (LockMode::Governance, _) => format!("in governance mode {end}"),
        (LockMode::Compliance, Some(hours)) => {
            format!("in compliance mode {end}, and after {hours} h nobody can undo that")
        }
        (LockMode::Compliance, None) => format!("in compliance mode {end}, and nobody can undo that"),
    }
}

/// A lock that is there, as EC2 says.
fn as_it_is(lock: &LockView) -> String {
    let state = printable(&lock.state);
    let mut text = match (lock.until, lock.days) {
        (Some(until), _) => format!("({state}) until {}", local(until)),
        (None, Some(days)) => format!("({state}) for {days} days from its completion"),
        (None, None) => format!("({state})"),
    };
    if let Some(at) = lock.cool_off_until.filter(|_| lock.state == "compliance-cooloff") {
        text = format!("{text}; it can be undone until {}", local(at));
    }
    text
}

/// What a lock does not do.
pub(super) fn cautions(set: &SnapshotSet, members: &[TaggedSnapshot]) -> Vec<String> {
    let mut said = Vec::new();
    let pending = members.iter().filter(|s| s.view.state == "pending").count();
    if pending > 0 {
        said.push(format!(
            "{pending} of its snapshots are pending: their days begin when they are completed, and the lock of one \
             that EC2 cannot complete is gone"
        ));
    }
    if let Some(tag) = set.foreign.iter().find(|tag| tag.starts_with("aws:backup:")) {
        said.push(format!(
            "warning: AWS Backup cares for some of it ({tag}); AWS asks not to lock these: it cannot remove them \
             when their time is over, and they are billed on"
        ));
    }
    let mut keys: Vec<&str> = members.iter().filter_map(|s| s.detail.kms_key.as_deref()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        said.push(format!(
            "the key {} is not locked: if somebody deletes it, the data is lost all the same",
            printable(key)
        ));
    }
    said
}

/// Does the lock end before the plan's rules let the set go? Asked only on the host whose rules they are.
async fn shorter_than_rules(
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    mode: LockMode,
    ends: Timestamp,
) -> Result<Option<String>, Error> {
    if account.identity.as_ref().is_none_or(|own| own.instance_id != set.instance) {
        return Ok(None);
    }
    let keep = rules(global, account, &set.plan)?;
    let policy =
        keep.as_ref().and_then(|k| if set.copy_of.is_some() { k.copies.as_ref() } else { Some(&k.sets) });
    let Some(policy) = policy else { return Ok(None) };
    let all = of_plan(&account.calls(), &set.instance, &set.plan).await.map_err(Error::from)?;
    let own = Arc::new(group(set));
    let zone = &policy.timezone;
    let of_group = all.iter().filter(|s| group(s) == *own).map(|s| {
        let mut known = facts(s, &own, of_tags(s), zone);
        if s.id == set.id {
            known.holds.push(Hold::Locked { mode: mode.to_string(), until: Some(ends) });
            // As it will be counted: the rules do not speak of what is pending.
            if known.state == State::Pending {
                known.state = State::Good;
            }
        }
        known
    });
    let of_group: Vec<_> = of_group.collect();
    let now = Timestamp::now();
    let request = Request {
        group: &own,
        policy: Some(policy),
        now: Now { server: now, host: now },
        interval: interval(&of_group),
        instance_gone: false,
        options: Options::default(),
    };
    let shorter = |warning: &&Warning| matches!(warning, Warning::LockEndsFirst { id, .. } if *id == set.id);
    Ok(decide(&request, &of_group).warnings.iter().find(shorter).map(|_| {
        format!(
            "the rules of plan {} keep it for longer than the lock: from {} on, whoever may delete snapshots can \
             delete it",
            printable(&set.plan),
            local(ends)
        )
    }))
}

impl Unlock {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let present = lock::present(&ec2, &set).await.map_err(Error::from)?;
        if let Some(refusal) = lock::unlock_refusal(&set, &present) {
            return Err(refused(refusal));
        }
        let locked: Vec<_> = present.into_iter().map(|lock| lock.snapshot).collect();
        let command = Command { name: "unlock", dry_run: self.dry_run, output: self.output };
        if self.dry_run {
            locked.iter().for_each(|id| say(&format!("{id} would be unlocked")));
            let would = set.snapshots().map(|id| Changed::would(id, locked.contains(id))).collect();
            return command.print(vec![OfSet::of(&set, would)], Exit::Ok);
        }
        let unlocked = lock::unlock(&ec2, locked).await;
        let one = |(id, said)| {
            let (good, bad) = ("is unlocked".to_owned(), "is STILL locked".to_owned());
            Told { id, accounts: Vec::new(), change: Some(Change { said, good, bad }) }
        };
        tell(&command, vec![(&set, unlocked.into_iter().map(one).collect())])
    }
}
