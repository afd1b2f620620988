//! One destination of copies, looked at before anything is asked for: what is there, with which key, whether it may
//! be done.
//!
//! In: a set, a Region, and whose account it is. Out: a [`Destination`]. Must never: change anything but its own lock
//! file.

use std::time::Duration;

use super::Whose;
use crate::cli::say;
use crate::cli::sets::{Account, alone};
use crate::config;
use crate::config::Loaded;
use crate::config::settings::CopySettings;
use crate::ec2::aws::Aws;
use crate::ec2::copies::{Copies as _, Encryption};
use crate::ec2::keep::Wanted;
use crate::ec2::partition;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::lock::FileLock;
use crate::ids::RunId;
use crate::sets::copy::existing::{Existing, existing};
use crate::sets::copy::make::{UNSURE, request};
use crate::sets::copy::source::Source;
use crate::sets::copy::{AWS_KEY, ByDefault, DEFAULT_KEY, How};
use crate::sets::find::snapshots;
use crate::sets::read::SOURCE_TAG;
use crate::sets::set::SnapshotSet;

/// Before the id of the copied set, in the lock file of a copy that goes on.
const ASKED: &str = "asked for ";

/// One destination, looked at.
pub(super) struct Destination {
    pub to: CopySettings,
    aws: Aws,
    pub how: How,
    /// What is to be said of the key.
    pub note: Option<String>,
    pub existing: Existing,
    pub run: RunId,
    /// A process that died may have asked a moment ago for what is not shown.
    pub unsure: bool,
    lock: Option<FileLock>,
}

impl Destination {
    pub(super) fn calls<'a>(&'a self, loaded: &'a Loaded) -> Repeating<'a, Aws> {
        Repeating::for_each_call(&self.aws, &loaded.settings.ec2)
    }

    /// Looks what is there, and whether the copies may be made. Changes nothing.
    pub(super) async fn of(
        account: &Account,
        source: &Source,
        to: &CopySettings,
        whose: Option<&Whose>,
    ) -> Result<Self, Error> {
        let region = &to.region;
        possible(&source.set.region, to)?;
        let lock = locked(account, source, region, whose).await?;
        let aws = match whose {
            None => account.at(region).await?,
            Some(other) => account.at_as(region, &other.profile).await?,
        };
        let ec2 = Repeating::for_each_call(&aws, &account.loaded.settings.ec2);
        let (how, note) = how(&ec2, to, source.encrypted()).await?;
        let tag = vec![(SOURCE_TAG.to_owned(), source.name())];
        let found = snapshots(&ec2, &Wanted::Tagged(tag)).await.map_err(Error::from)?;
        let existing = existing(source, region, &found, how.asked.as_deref());
        let left = lock.as_ref().and_then(|l| l.left().strip_prefix(ASKED)?.parse::<RunId>().ok());
        let (run, unsure) = match &existing.started {
            Some(set) => (set.id.clone(), left.as_ref() == Some(&set.id) || is_fresh(set)),
            None => (left.clone().unwrap_or_else(RunId::generate), left.is_some()),
        };
        let part = source.parts.first().filter(|_| existing.whole.is_none());
        if let Some(part) = part {
            let request = request(source, part, &run, &how);
            let may = async || ec2.inner().may_copy(&request).await;
            ec2.call("DryRun", may).await.map_err(Error::from)?;
        }
        Ok(Self { to: to.clone(), how, note, existing, run, unsure, lock, aws })
    }

    /// Notes, for whoever copies next, what is being asked for.
    pub(super) fn asking(&mut self) {
        let note = format!("{ASKED}{}", self.run);
        if let Some(Err(e)) = self.lock.as_mut().map(|lock| lock.note(&note)) {
            say(&format!("a copy that is killed will not be known by the next one: {e}"));
        }
    }

    /// Everything that was asked for is known.
    pub(super) fn all_known(&mut self) {
        if let Some(lock) = &mut self.lock {
            let _ = lock.note("");
        }
    }
}

/// What needs no question to EC2.
pub(super) fn possible(from: &str, to: &CopySettings) -> Result<(), Error> {
    let region = &to.region;
    if partition(from) != partition(region) {
        let what =
            format!("{from} and {region} are of different partitions of AWS, and EC2 copies within one");
        return Err(
            Error::new(Exit::Config, what).hint("write the data out and in again, or name another Region")
        );
    }
    match to.key.as_ref().map(|key| config::of_region(key, region)) {
        Some(Err(why)) => Err(Error::new(Exit::Config, format!("--key {why}"))),
        _ => Ok(()),
    }
}

/// Was it asked for so short a time ago that EC2 may not show all of it?
fn is_fresh(set: &SnapshotSet) -> bool {
    let newest = set.members.iter().filter_map(|m| m.started).max();
    let age = newest.map(|at| jiff::Timestamp::now().duration_since(at).unsigned_abs());
    // Twice as long: the two clocks may differ.
    age.is_some_and(|age| age < UNSURE * 2)
}

/// With which key, and what is to be said of it.
pub(super) async fn how(
    ec2: &Repeating<'_, Aws>,
    to: &CopySettings,
    encrypted: bool,
) -> Result<(How, Option<String>), Error> {
    let minutes = to.within.and_then(|time| u16::try_from(time.as_secs() / 60).ok());
    let how = |encryption, asked: Option<&str>| How {
        encryption,
        asked: asked.map(str::to_owned),
        minutes,
        by_default: ByDefault::NotKnown,
    };
    let region = &to.region;
    if let Some(key) = &to.key {
        return Ok((how(Encryption::Key(key.clone()), Some(key)), None));
    }
    if !to.encrypt {
        let by_default = by_default(ec2, region).await?;
        let note = match &by_default {
            ByDefault::On(key) => Some(never_shared(
                format!("{region}: the account encrypts everything new there, with {key}"),
                key == AWS_KEY,
            )),
            ByDefault::Off | ByDefault::NotKnown => encrypted.then(|| {
                never_shared(format!("{region}: what is encrypted stays so, under {AWS_KEY} there"), true)
            }),
        };
        return Ok((How { by_default, ..how(Encryption::AsSource, None) }, note));
    }
    let key = default_key(ec2).await?;
    let note = format!("{region}: encrypted with {key}, the account's default key there");
    if key == AWS_KEY {
        let note = never_shared(note, true);
        return Ok((how(Encryption::Unnamed, Some(DEFAULT_KEY)), Some(note)));
    }
    // Named in the call: without a name, EC2 would take its own key.
    Ok((how(Encryption::Key(key), Some(DEFAULT_KEY)), Some(note)))
}

async fn default_key(ec2: &Repeating<'_, Aws>) -> Result<String, Error> {
    let asked = async || ec2.inner().default_key().await;
    ec2.call("GetEbsDefaultKmsKeyId", asked).await.map_err(Error::from)
}

/// Where the permission for this question alone is missing, the copy is made all the same: it is only foretold less.
async fn by_default(ec2: &Repeating<'_, Aws>, region: &str) -> Result<ByDefault, Error> {
    let asked = async || ec2.inner().encrypts_by_default().await;
    match ec2.call("GetEbsEncryptionByDefault", asked).await {
        Ok(true) => Ok(ByDefault::On(default_key(ec2).await?)),
        Ok(false) => Ok(ByDefault::Off),
        Err(e) if e.denied() => {
            say(&format!("{region}: whether the account encrypts everything new is not known: {e}"));
            Ok(ByDefault::NotKnown)
        }
        Err(e) => Err(e.into()),
    }
}

fn never_shared(note: String, aws_key: bool) -> String {
    if !aws_key {
        return note;
    }
    format!("{note}\n  such copies can never be shared; --key names another key")
}

/// One copy of a set to a Region at a time on a host. The file also tells the next one what a process that died has
/// asked for.
async fn locked(
    account: &Account,
    source: &Source,
    region: &str,
    whose: Option<&Whose>,
) -> Result<Option<FileLock>, Error> {
    let whose = whose.map_or_else(String::new, |other| format!("-{}", other.account));
    let name = format!("copy-{}-{region}{whose}.lock", source.set.id);
    let does = format!("is copying {} to {region}", source.set.id);
    alone(&account.loaded.settings.run_dir.join(name), Duration::ZERO, &does).await
}
