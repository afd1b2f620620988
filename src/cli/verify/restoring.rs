//! `verify --level restore`: volumes are made, judged, and gone again.
//!
//! In: a set that is complete. Out: findings, and what could not be taken down. Must never: make anything before all of
//! it was checked, or end with something of it left that is not said.

use std::path::Path;
use std::time::Duration;

use super::{Looked, Verify, mounting};
use crate::cli::restore::{error, host, locked, may_create, unread};
use crate::cli::sets::{Account, alone};
use crate::cli::start::listen;
use crate::cli::{Global, say};
use crate::clock::System;
use crate::config::Overrides;
use crate::config::settings::{Check, PlanSettings};
use crate::ec2::TaggedSnapshot;
use crate::ec2::aws::Aws;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::lock::FileLock;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::restore::carry_out::{Here, carry_out};
use crate::restore::disks;
use crate::restore::make::{Stopped, Waiting};
use crate::restore::plan::PlannedFilesystem;
use crate::restore::stack::Keys;
use crate::restore::verify::checks::startable;
use crate::restore::verify::restored::{self, Judging, Planned, Volume};
use crate::restore::verify::{Report, contained};
use crate::sets::layout::Layout;
use crate::sets::set::SnapshotSet;

/// How long another restore of this host is waited for: it makes and attaches volumes.
const A_RESTORE: Duration = Duration::from_secs(1800);

/// What came of it.
pub(super) struct Restored {
    pub looked: Looked,
    /// What could not be taken down, in words.
    pub left: Option<String>,
}

/// Prints what would be made.
pub(super) async fn would(
    verify: &Verify,
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
) -> Result<(), Error> {
    let of_plan = settings(global, account, set)?;
    let keys = keys(verify, of_plan.as_ref())?;
    let planned = plan(verify, account, set, layout, snapshots, &keys).await?;
    tell(&planned);
    check(account, &planned, &checks(of_plan), &mut listen()?).await
}

/// Restores it, judges it, and takes it down.
pub(super) async fn look(
    verify: &Verify,
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
) -> Result<Restored, Error> {
    let mut interrupt = listen()?;
    let _alone = one_at_a_time(&account.loaded.settings.run_dir).await?;
    sweep(account).await?;
    let of_plan = settings(global, account, set)?;
    let keys = keys(verify, of_plan.as_ref())?;
    let planned = plan(verify, account, set, layout, snapshots, &keys).await?;
    tell(&planned);
    let checks = checks(of_plan);
    check(account, &planned, &checks, &mut interrupt).await?;
    let on = here(account);
    let mut id = None;
    let found = {
        let ec2 = account.calls().until(&interrupt);
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &interrupt, tell: &|line| say(line) };
        let (mut made, mut stopped) = (None, None);
        if let Some(plan) = &planned.plan {
            say(&format!("restore {}", plan.id));
            id = Some(plan.id.clone());
            let mut record = restored::record(plan.clone());
            // Names of devices are free until somebody takes them.
            let _lock = locked(&account.loaded.settings.run_dir, A_RESTORE).await?;
            match carry_out(&mut record, &waiting, on, &Keys::default()).await {
                Ok(done) => made = Some((done, record)),
                Err(e) => stopped = Some(e),
            }
        }
        match stopped {
            Some(e) => Err(e),
            None => {
                let told = |line: &str| say(line);
                let (planned, checks, keys) = (&planned, &checks[..], &keys);
                let judging = Judging { set, layout, planned, checks, keys, on, clock: &System, tell: &told };
                let made = made.as_mut().map(|(done, record)| (&*done, record));
                judging.judge(made, &mut interrupt.clone()).await
            }
        }
    };
    let left = match &id {
        None => None,
        Some(id) => take_down(account, id)
            .await
            .err()
            .map(|e| format!("{}\nwhat is left: `stillpoint verify --clean-up` takes it down", e.render())),
    };
    match found {
        Ok(findings) => {
            let report = Report { findings, ..Report::default() };
            Ok(Restored { looked: Looked::At(report), left })
        }
        Err(Stopped::Signal(signal)) => Ok(Restored { looked: Looked::Interrupted(signal), left }),
        Err(stopped) => {
            left.iter().for_each(|left| say(left));
            Err(error(stopped))
        }
    }
}

/// Takes down what is left of verifies that died.
pub(super) async fn clean_up(global: &Global) -> Result<Exit, Error> {
    let loaded = global.load(None, Overrides::default())?;
    let on = Here { root: "/".as_ref(), state_dir: &loaded.settings.state_dir };
    // Most often there is nothing, and nobody has to be asked.
    let volumes = !restored::left(on).map_err(unread)?.is_empty();
    let run_dir = &loaded.settings.run_dir;
    if !mounting::left(run_dir).is_empty() {
        let _alone = one_at_a_time(run_dir).await?;
        mounting::sweep(run_dir).await?;
    }
    if !volumes {
        return Ok(Exit::Ok);
    }
    let account = Account::connect(global, None, true).await?;
    let _alone = one_at_a_time(&account.loaded.settings.run_dir).await?;
    sweep(&account).await?;
    Ok(Exit::Ok)
}

pub(super) async fn one_at_a_time(run_dir: &Path) -> Result<Option<FileLock>, Error> {
    alone(&run_dir.join("verify.lock"), Duration::ZERO, "verifies a set by mounting it").await
}

async fn sweep(account: &Account) -> Result<(), Error> {
    for id in restored::left(here(account)).map_err(unread)? {
        say(&format!("a verify that was killed has left restore {id}"));
        take_down(account, &id).await?;
    }
    Ok(())
}

/// A signal does not keep it from being done.
async fn take_down(account: &Account, id: &RunId) -> Result<(), Error> {
    let never = Interrupt::never();
    let ec2 = account.calls();
    let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
    let instance = account.identity.as_ref().map(|i| &i.instance_id);
    restored::take_down(id, &waiting, here(account), instance).await.map_err(error)
}

fn here(account: &Account) -> Here<'_> {
    Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir }
}

async fn plan(
    verify: &Verify,
    account: &Account,
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
    keys: &Keys,
) -> Result<Planned, Error> {
    let ec2: Repeating<'_, Aws> = account.calls();
    let host = host(account, &ec2).await?;
    let volume = Volume { volume_type: verify.volume_type.clone(), initialization_rate: verify.init_rate };
    restored::planned(set, layout, snapshots, &host, &volume, keys)
        .map_err(|refusal| Error::new(Exit::Config, refusal.what).hint(refusal.hint))
}

/// The checks of a plan.
pub(super) fn checks(plan: Option<PlanSettings>) -> Vec<Check> {
    plan.map_or_else(Vec::new, |plan| plan.checks)
}

/// The set's plan, where this host has it.
pub(super) fn settings(
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
) -> Result<Option<PlanSettings>, Error> {
    if !account.loaded.plans.contains(&set.plan) {
        return Ok(None);
    }
    let loaded = global.load_in(None, Some(&set.plan), Overrides::default())?;
    Ok(Some(loaded.settings.plan))
}

/// What opens LUKS: files alone, since a timer has nobody to ask.
fn keys(verify: &Verify, plan: Option<&PlanSettings>) -> Result<Keys, Error> {
    let (said, files) = match verify.key_file.is_empty() {
        true => ("luks_key_files", plan.map_or(&[][..], |plan| &plan.luks_key_files)),
        false => ("--key-file", &verify.key_file[..]),
    };
    Keys::of_files(files).map_err(|what| Error::new(Exit::Config, format!("{said}: {what}")))
}

fn tell(planned: &Planned) {
    planned.plan.iter().for_each(|plan| say(&report::restore::thrown_away(plan)));
    for (place, why) in &planned.left_out {
        let place = crate::path_encoding::shown(place);
        say(&format!("{place} will not be looked at: {why}"));
    }
}

/// Everything that can be known before a volume is made.
async fn check(
    account: &Account,
    planned: &Planned,
    checks: &[Check],
    interrupt: &mut Interrupt,
) -> Result<(), Error> {
    let Some(plan) = &planned.plan else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Permission, "volumes are mounted, which only root can")
            .hint("sudo, or another --level"));
    }
    disks::can_be_told("/".as_ref())
        .map_err(|what| Error::new(Exit::Config, what).hint("another --level"))?;
    can_check(&plan.filesystems, checks, interrupt).await?;
    may_create(account, plan).await
}

/// The programs that check these filesystems are here, those of the user's checks too, and the kernel keeps them apart.
pub(super) async fn can_check(
    filesystems: &[PlannedFilesystem],
    checks: &[Check],
    interrupt: &mut Interrupt,
) -> Result<(), Error> {
    for filesystem in filesystems {
        restored::has_tool(&filesystem.fstype).map_err(|what| Error::new(Exit::Config, what))?;
    }
    startable(checks).map_err(|what| Error::new(Exit::Config, what))?;
    contained::can(interrupt).await.map_err(|why| {
        Error::new(Exit::Permission, why)
            .hint("mount, PID, network and IPC namespaces are needed; see docs/verify.md")
    })
}
