//! `[defaults.lock]`, `[plan.NAME.lock]` and `--lock`: how the snapshots of a new set are locked.
//!
//! In: the tables, or a flag. Out: [`LockSettings`]. Must never: let a lock through that nobody can ever undo, unless
//! the configuration says that this is meant.

use std::time::Duration;

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::input::input;
use super::node::Node;
use super::resolve::Taken;
use super::settings::LockSettings;
use crate::ec2::keep::{LockMode, MOST_COOL_OFF_HOURS, MOST_LOCKED_DAYS};

/// None: `off`.
const MODES: &[(&str, Option<LockMode>)] =
    &[("governance", Some(LockMode::Governance)), ("compliance", Some(LockMode::Compliance)), ("off", None)];

input! {
    /// `[plan.NAME.lock]`.
    LockInput {
        /// `"governance"`, `"compliance"`, `"off"` | none: it has to be there | how hard the lock is; `"off"`
        /// for a plan that is not to be locked as the defaults say | `"compliance"`
        mode: Option<LockMode> = |n: &Node<'_>| n.checked(|t| check::choice(t, MODES));
        /// number, 1 to 36500 | none: it has to be there | for how long, from the snapshot's completion |
        /// `30`
        days: u32 = |n: &Node<'_>| n.number(1, MOST_LOCKED_DAYS);
        /// time in whole hours, 1 h to 72 h | not set | how long a compliance lock can still be changed and
        /// taken off | `"24h"`
        cool_off: Duration = |n: &Node<'_>| n.checked(cool_off);
        /// true or false | `false` | needed for a compliance lock without `cool_off`
        yes_nobody_can_undo_it: bool = Node::flag;
    } per_entry {}
}

/// A cooling-off period: whole hours, as EC2 takes them.
fn cool_off(text: &str) -> Result<Duration, Fault> {
    let time = check::duration(text)?;
    match check::whole_hours(time) {
        Some(hours) if (1..=MOST_COOL_OFF_HOURS).contains(&hours) => Ok(time),
        _ => Err(Fault::new(format!("is `{text}`, and not 1 to {MOST_COOL_OFF_HOURS} whole hours"))
            .hint("write it like \"24h\"")),
    }
}

/// The value of `--lock`: `off`, `governance:30d` or `compliance:365d:24h`.
pub(super) fn flag(text: &str) -> Result<LockInput, Fault> {
    let wrong = || {
        Fault::new(format!("is `{text}`"))
            .hint("write governance:30d, compliance:365d:24h (days, then the cooling-off period), or off")
    };
    let of_flag = |value| Some(Sourced { value, origin: Origin::Flag("--lock") });
    let mut parts = text.split(':');
    let mode = check::choice(parts.next().unwrap_or_default(), MODES).map_err(|_| wrong())?;
    let (days, cooling) = (parts.next(), parts.next());
    if parts.next().is_some() || days.is_some() != mode.is_some() {
        return Err(wrong());
    }
    let mut input = LockInput { mode: of_flag(mode), ..LockInput::default() };
    if let Some(days) = days {
        let whole = check::duration(days).ok().and_then(check::whole_hours).filter(|hours| hours % 24 == 0);
        let days = whole.map(|hours| hours / 24).filter(|days| (1..=MOST_LOCKED_DAYS).contains(days));
        input.days = Some(Sourced { value: days.ok_or_else(wrong)?, origin: Origin::Flag("--lock") });
    }
    if let Some(text) = cooling {
        let value = cool_off(text)?;
        input.cool_off = Some(Sourced { value, origin: Origin::Flag("--lock") });
    }
    Ok(input)
}

/// The lock of one plan; none where there is no table, or its mode is `off`.
pub(super) fn settings(
    input: Option<Sourced<LockInput>>,
    take: &mut Taken<'_>,
) -> Result<Option<LockSettings>, ConfigError> {
    let Some(Sourced { value: LockInput { mode, days, cool_off, yes_nobody_can_undo_it }, origin }) = input
    else {
        take.optional::<()>("lock", None);
        return Ok(None);
    };
    let lacks =
        |key: &str, hint: &str| Fault::new(format!("has no `{key}`")).hint(hint).at(origin.clone(), "lock");
    let Some(mode_input) = mode else { return Err(lacks("mode", "write mode = \"governance\"")) };
    let Some(mode) = mode_input.value else {
        take.optional::<()>("lock", None);
        return Ok(None);
    };
    let Some(days) = days else { return Err(lacks("days", "write days = 30, say")) };
    let undo = yes_nobody_can_undo_it.as_ref().filter(|yes| yes.value);
    match (mode, &cool_off, undo) {
        (LockMode::Governance, Some(cool_off), _) => {
            return Err(Fault::new(
                "is for the mode `compliance`: a governance lock can be undone at any time",
            )
            .hint("leave it out")
            .at(cool_off.origin.clone(), "lock.cool_off"));
        }
        (LockMode::Governance, _, Some(yes)) => {
            return Err(Fault::new("is for the mode `compliance`")
                .hint("leave it out")
                .at(yes.origin.clone(), "lock.yes_nobody_can_undo_it"));
        }
        (LockMode::Compliance, None, None) => {
            return Err(Fault::new(
                "is `compliance` without a `cool_off`: nobody could ever undo such a lock",
            )
            .hint("write cool_off = \"24h\"; or yes_nobody_can_undo_it = true, if that is meant")
            .at(mode_input.origin, "lock.mode"));
        }
        (LockMode::Compliance, Some(_), Some(yes)) => {
            return Err(Fault::new(
                "says that nothing can be undone, and `cool_off` that it can for a while",
            )
            .hint("leave one of them out")
            .at(yes.origin.clone(), "lock.yes_nobody_can_undo_it"));
        }
        _ => {}
    }
    take.optional("lock.mode", Some(mode_input));
    Ok(Some(LockSettings {
        mode,
        days: take.or("lock.days", Some(days), 1),
        cool_off: take.optional("lock.cool_off", cool_off),
        yes_nobody_can_undo_it: take.or("lock.yes_nobody_can_undo_it", yes_nobody_can_undo_it, false),
    }))
}
