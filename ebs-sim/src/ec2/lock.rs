//! LockSnapshot, UnlockSnapshot, DescribeLockedSnapshots.
//!
//! In: a pending or completed snapshot. Out: a lock that keeps it from being deleted, or its removal where
//! the mode allows that. What makes a lock weaker must never pass where EC2 refuses it.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::snapshots::{self, not_found};
use super::xml::{Xml, time};
use crate::ids::SnapshotId;
use crate::world::{Lock, MAX_DAYS, Mode, Snapshot, State, Until, World};

fn refused(id: &SnapshotId, why: &str) -> Ec2Error {
    Ec2Error::new("IncorrectState", format!("The lock of the snapshot '{id}' cannot be changed: {why}"))
}

/// LockSnapshot.
pub struct Set {
    id: SnapshotId,
    mode: Mode,
    cool_off: Option<u32>,
    until: Until,
}

impl Set {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        let mode = match params.choice("LockMode", &["compliance", "governance"])?.as_deref() {
            None => return Err(Ec2Error::missing("LockMode")),
            Some("governance") => Mode::Governance,
            Some(_) => Mode::Compliance,
        };
        let cool_off: Option<u32> = params.number("CoolOffPeriod")?;
        if cool_off.is_some() && mode == Mode::Governance {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "The parameter CoolOffPeriod cannot be used with the governance lock mode",
            ));
        }
        if cool_off.is_some_and(|hours| !(1..=72).contains(&hours)) {
            return Err(Ec2Error::invalid_value("CoolOffPeriod must be between 1 and 72 hours"));
        }
        let days: Option<u32> = params.number("LockDuration")?;
        let date = params.text("ExpirationDate");
        let until = match (days, date) {
            (Some(days), None) if (1..=MAX_DAYS).contains(&days) => Until::Days(days),
            (Some(_), None) => {
                return Err(Ec2Error::invalid_value(format!(
                    "LockDuration must be between 1 and {MAX_DAYS} days"
                )));
            }
            (None, Some(text)) => Until::Date(text.parse().map_err(|_| {
                Ec2Error::invalid_value(format!("Invalid value '{text}' for ExpirationDate."))
            })?),
            (Some(_), Some(_)) => {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "The parameters LockDuration and ExpirationDate cannot be used together",
                ));
            }
            (None, None) => return Err(Ec2Error::missing("LockDuration or ExpirationDate")),
        };
        Ok(Self { id, mode, cool_off, until })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:LockSnapshot", world, &format!("snapshot/{}", self.id))]
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let now = context.now;
        let mut world = context.sim.change();
        let snapshot = snapshots::find_mut(&mut world, context.region(), &self.id)?;
        let lock = self.lock(snapshot, now)?;
        snapshot.later.lock = Some(lock);
        let snapshot = snapshots::find(&world, context.region(), &self.id)?;
        Ok(context.response(|xml| write(xml, snapshot, &lock, now)))
    }

    /// The lock that the snapshot gets.
    fn lock(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Lock, Ec2Error> {
        let id = &self.id;
        if snapshot.state(now) == "error" {
            return Err(refused(id, "the snapshot is in the state 'error'"));
        }
        let wanted = Lock {
            mode: self.mode,
            until: self.until,
            cool_off: self.cool_off,
            created: now,
            mode_since: now,
            completed: snapshot.completion(),
        };
        let lock = match snapshot.lock(now) {
            None => wanted,
            Some(lock) => lock.changed(wanted, now).map_err(|why| refused(id, why))?,
        };
        if lock.expires() <= now || lock.days() > i64::from(MAX_DAYS) {
            return Err(Ec2Error::invalid_value(format!(
                "The lock must expire in the future and within {MAX_DAYS} days"
            )));
        }
        Ok(lock)
    }
}

/// UnlockSnapshot.
pub struct Unset(SnapshotId);

impl Unset {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        snapshots::parse_id(&params.required("SnapshotId")?).map(Self)
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:UnlockSnapshot", world, &format!("snapshot/{}", self.0))]
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        let snapshot = snapshots::find_mut(&mut world, context.region(), &self.0)?;
        match snapshot.lock(context.now).map(|lock| lock.state(context.now)) {
            None | Some(State::Expired) => return Err(refused(&self.0, "the snapshot is not locked")),
            Some(State::Compliance) => {
                return Err(refused(&self.0, "it is in compliance mode and the cooling-off period is over"));
            }
            Some(State::Governance | State::CoolOff) => snapshot.later.lock = None,
        }
        Ok(context.response(|xml| xml.text("snapshotId", &self.0)))
    }
}

const FILTERS: &[&str] = &["lock-state"];

/// DescribeLockedSnapshots.
pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Query::parse(params, "DescribeLockedSnapshots", Some("SnapshotId"), FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let now = context.now;
        let world = context.sim.world();
        let here = |id: &str| {
            let found = SnapshotId::parse(id).and_then(|id| world.snapshot(context.region(), &id));
            found.is_some_and(|snapshot| snapshot.owner == context.account)
        };
        self.0.check_ids("snap-", "InvalidSnapshotID.Malformed", not_found, here)?;
        let wanted = world
            .live()
            .filter(|snapshot| snapshot.region == context.region() && snapshot.owner == context.account)
            .filter_map(|snapshot| Some((snapshot, snapshot.lock(now)?)))
            .filter(|(snapshot, lock)| {
                let id = snapshot.id.as_str();
                self.0.wants(id, world.tags_of(id), |name| match name {
                    "lock-state" => vec![lock.state(now).name().into()],
                    _ => vec![],
                })
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |(snapshot, _)| snapshot.id.to_string());
        Ok(context.response(|xml| {
            xml.list("snapshotSet", page, |xml, (snapshot, lock)| {
                xml.text("ownerId", &snapshot.owner);
                write(xml, snapshot, &lock, now);
            });
            xml.maybe("nextToken", token);
        }))
    }
}

/// A lock. As long as the snapshot is pending, the duration has not begun.
fn write(xml: &mut Xml, snapshot: &Snapshot, lock: &Lock, now: Timestamp) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("lockState", lock.state(now).name());
    xml.text("lockDuration", lock.days());
    xml.maybe("coolOffPeriod", lock.cool_off);
    xml.maybe("coolOffPeriodExpiresOn", lock.cool_off_ends().map(time));
    xml.text("lockCreatedOn", time(lock.created));
    if snapshot.state(now) != "pending" {
        xml.text("lockDurationStartTime", time(lock.starts()));
        xml.text("lockExpiresOn", time(lock.expires()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::test_snapshot;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn set(id: &SnapshotId, rest: &str) -> Result<Set, Ec2Error> {
        let mut params = Params::parse(&[format!("SnapshotId={id}&{rest}").as_bytes()]);
        let set = Set::parse(&mut params)?;
        params.finish()?;
        Ok(set)
    }

    #[test]
    fn the_parameters_have_limits() {
        let id = SnapshotId::random();
        for good in [
            "LockMode=governance&LockDuration=1",
            "LockMode=compliance&LockDuration=36500&CoolOffPeriod=72",
            "LockMode=compliance&ExpirationDate=2030-01-01T00:00:00Z",
        ] {
            assert!(set(&id, good).is_ok(), "{good}");
        }
        for bad in [
            "LockDuration=1",
            "LockMode=soft&LockDuration=1",
            "LockMode=governance",
            "LockMode=governance&LockDuration=0",
            "LockMode=governance&LockDuration=36501",
            "LockMode=governance&LockDuration=1&CoolOffPeriod=1",
            "LockMode=compliance&LockDuration=1&CoolOffPeriod=73",
            "LockMode=governance&LockDuration=1&ExpirationDate=2030-01-01T00:00:00Z",
            "LockMode=governance&ExpirationDate=tomorrow",
        ] {
            assert!(set(&id, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pending_snapshot_can_be_locked_and_shows_no_end() {
        // Started at 1000, completed at 1010.
        let mut snapshot = test_snapshot(10, false);
        let wanted = set(&snapshot.id, "LockMode=governance&LockDuration=1").expect("good");
        let lock = wanted.lock(&snapshot, at(1001)).expect("pending");
        let shown = |snapshot: &Snapshot, now| {
            let mut xml = Xml::default();
            write(&mut xml, snapshot, &lock, at(now));
            xml.finish()
        };
        assert!(!shown(&snapshot, 1009).contains("lockExpiresOn"));
        let later = shown(&snapshot, 1010);
        assert!(later.contains("<lockDurationStartTime>1970-01-01T00:16:50.000Z<"), "{later}");
        assert!(later.contains("<lockExpiresOn>1970-01-02T00:16:50.000Z<"), "{later}");
        snapshot.later.lock = Some(lock);
        snapshot.takes = std::time::Duration::from_secs(20);
        assert_eq!(snapshot.lock(at(1010)).map(|lock| lock.starts()), Some(at(1020)), "it took longer");
        snapshot.takes = std::time::Duration::from_secs(10);
        snapshot.fails = true;
        assert!(wanted.lock(&snapshot, at(1010)).is_err(), "it is in error");
        assert!(
            snapshot.lock(at(1009)).is_some() && snapshot.lock(at(1010)).is_none(),
            "which cancels its lock"
        );
    }

    #[test]
    fn a_lock_must_end_in_the_future() {
        let snapshot = test_snapshot(0, false);
        let past =
            set(&snapshot.id, "LockMode=governance&ExpirationDate=1970-01-01T01:00:00Z").expect("good");
        assert!(past.lock(&snapshot, at(3599)).is_ok());
        assert!(past.lock(&snapshot, at(3600)).is_err());
        let far = set(&snapshot.id, "LockMode=governance&ExpirationDate=2170-01-01T01:00:00Z").expect("good");
        assert!(far.lock(&snapshot, at(2000)).is_err());
    }
}
