//! `stillpoint restore SET`: its filesystems, mounted beside what is there.
//!
//! In: the name of a set, a folder. Out: the ids of new volumes on stdout. Must never: make anything before all of it
//! was checked, or leave what a failure has made without saying how it is taken back.

mod check;
mod clean_up;
mod clones;
mod copying;
mod document;
mod in_place;
mod list;
mod root;
mod warming;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

pub(super) use self::check::may_create;
use self::check::{unit, zone};
use self::copying::OfCopy;
use self::document::{Document, OfRestore, VERSION};
use self::in_place::OldOnes;
use self::root::OfRoot;
use self::warming::Warming;
use super::sets::{Account, SetName, alone, set_name};
use super::start::{end, listen};
use super::type_and_speed::{self, TypeAndSpeed};
use super::{Global, Output, absolute, print, print_document, say};
use crate::clock::System;
use crate::config;
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::Volumes as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::lock::FileLock;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::restore::before_start::{self, BeforeStart};
use crate::restore::carry_out::{Done, Here, carry_out};
use crate::restore::copy_out;
use crate::restore::in_place::Unstarted;
use crate::restore::make::{Stopped, Waiting};
use crate::restore::plan::{Asked, Host, PlannedVolume, Reach, Refusal, RestorePlan, plan};
use crate::restore::record::{self, Record};
use crate::restore::size;
use crate::restore::undo::{look, undo};
use crate::run::lock;
use crate::sets::guard::members;
use crate::sets::layout::{Layout, layout};
use crate::sets::lines::SetFilesystem;

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name, required_unless_present_any = ["undo", "go_on", "left", "clean_up"])]
    set: Option<SetName>,
    /// Mount its filesystems beneath this folder, which is made or empty [default: /mnt/stillpoint/ and the start of
    /// the set's id].
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    to: Option<PathBuf>,
    /// Only the filesystem that was mounted here; can be repeated.
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    mount: Vec<PathBuf>,
    /// Write nothing to the new volumes: no journal is replayed, no UUID changed.
    #[arg(long)]
    read_only: bool,
    /// Attach the volumes, hidden from udev, LVM and md, and mount nothing.
    #[arg(long)]
    no_mount: bool,
    /// Make the volumes, and attach nothing.
    #[arg(long, conflicts_with_all = ["no_mount", "to", "read_only"])]
    no_attach: bool,
    /// Put the new volumes in the place of those that the set was taken of: these are unmounted, detached and kept, and
    /// the new ones are mounted as they were. Of data volumes alone.
    #[arg(help_heading = "In place", long, conflicts_with_all = ["to", "read_only", "no_mount", "no_attach", "az"])]
    in_place: bool,
    /// Stop this unit before anything is unmounted, and start it again at the end; can be repeated.
    #[arg(help_heading = "In place", long, value_name = "UNIT", requires = "in_place", value_parser = unit)]
    stop_unit: Vec<String>,
    #[command(flatten)]
    of_root: OfRoot,
    #[command(flatten)]
    of_copy: OfCopy,
    /// The Availability Zone to make the new volumes in [default: this instance's].
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "ZONE", value_parser = zone)]
    az: Option<String>,
    #[command(flatten)]
    speed: TypeAndSpeed,
    /// A larger volume: of the one that this volume or this filesystem was on, in GiB; can be repeated.
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "VOLUME|PATH=GIB", value_parser = size::read)]
    size: Vec<size::Size>,
    /// Grow the filesystem of a larger volume with it.
    #[arg(help_heading = type_and_speed::HEADING, long, requires = "size", conflicts_with_all = ["in_place", "read_only", "no_mount", "no_attach", "copy_out"])]
    grow: bool,
    /// Encrypt the new volumes with this KMS key: an id, an ARN or alias/NAME.
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "KEY", value_parser = config::kms_key)]
    key: Option<String>,
    /// A file with a key of LUKS, which root alone can read; can be repeated: each is tried [default: the terminal is
    /// asked].
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "FILE", value_parser = absolute, conflicts_with_all = ["no_mount", "no_attach", "in_place", "undo", "left"])]
    key_file: Vec<PathBuf>,
    /// EC2 reads all data from the snapshots at this rate in MiB/s, for a price; else it comes as it is read.
    #[arg(help_heading = type_and_speed::HEADING, long, value_name = "RATE", value_parser = clap::value_parser!(i32).range(100..=300))]
    init_rate: Option<i32>,
    #[command(flatten)]
    warming: Warming,
    /// Nobody needs the restore after this time, such as 8h: then `restore --clean-up`, which a timer runs, takes it back.
    #[arg(long = "for", value_name = "TIME", value_parser = config::duration, conflicts_with_all = ["in_place", "root", "copy_out", "go_on", "undo", "left"])]
    lasts: Option<Duration>,
    /// Print what would be made, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Take back the restores of this host whose time is over.
    #[arg(help_heading = "Restores that are there", long, conflicts_with_all = ["set", "go_on", "left", "undo"])]
    clean_up: bool,
    /// Take a restore back: unmount, detach and delete its volumes.
    #[arg(help_heading = "Restores that are there", long, value_name = "ID", conflicts_with_all = ["set", "go_on", "left"])]
    undo: Option<RunId>,
    /// Go on with a restore that was interrupted.
    #[arg(help_heading = "Restores that are there", long = "continue", value_name = "ID", conflicts_with_all = ["set", "left", "dry_run"])]
    go_on: Option<RunId>,
    /// List the restores whose volumes are there.
    #[arg(help_heading = "Restores that are there", long = "list", conflicts_with = "set")]
    left: bool,
    /// What stdout gets: text (the ids of the volumes) or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Restore {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let interrupt = listen()?;
        if self.clean_up {
            return self.take_back_what_is_over(global, &interrupt).await;
        }
        let loaded = global.load(None, config::Overrides::default())?;
        let here = self.is_of_this_host(&loaded.settings.state_dir)?;
        let account = Account::connected(loaded, here).await?;
        if self.left {
            return self.list(&account).await;
        }
        let _lock = if self.dry_run {
            None
        } else {
            locked(&account.loaded.settings.run_dir, Duration::ZERO).await?
        };
        if let Some(id) = &self.undo {
            return self.take_back(&account, id, &interrupt).await;
        }
        if self.of_root.root {
            return self.replace_root(&account, &interrupt).await;
        }
        let plan = match &self.go_on {
            Some(id) => return self.carry_on(&account, id, &interrupt).await,
            None if self.in_place => self.plan_in_place(&account).await?,
            None => match self.plan_of_clones(&account).await? {
                Some(plan) => plan,
                None => self.plan(&account).await?,
            },
        };
        if self.output == Output::Text {
            say(&report::restore::plan(&plan));
        }
        self.check(&account, &plan).await?;
        if self.dry_run {
            return self.tell(&plan, None, "planned", Exit::Ok);
        }
        self.carry_out(&account, Record::of(plan), &interrupt).await
    }

    /// Does something come to this host, or go from it? Else this may be any computer.
    fn is_of_this_host(&self, state_dir: &Path) -> Result<bool, Error> {
        match &self.go_on {
            Some(id) => Ok(read_record(state_dir, id)?.is_some()),
            None => Ok(!self.no_attach && !self.left && self.undo.is_none() && !self.of_root.elsewhere()),
        }
    }

    async fn plan(&self, account: &Account) -> Result<RestorePlan, Error> {
        let host = if self.no_attach { None } else { Some(host(account, &account.calls()).await?) };
        let reach = match (self.no_attach, self.no_mount) {
            (true, _) => Reach::Volumes,
            (false, true) => Reach::Attached,
            (false, false) => Reach::Mounted,
        };
        Ok(self.plan_for(account, host.as_ref(), reach, self.az.clone()).await?.0)
    }

    /// The plan, and the set's description of itself.
    async fn plan_for(
        &self,
        account: &Account,
        host: Option<&Host>,
        reach: Reach,
        zone: Option<String>,
    ) -> Result<(RestorePlan, Layout), Error> {
        let name = self.set.as_ref().ok_or_else(|| Error::new(Exit::Usage, "which set?"))?;
        let set = account.set(name).await?;
        let ec2 = account.calls();
        let snapshots = members(&ec2, &set).await.map_err(Error::from)?;
        let layout = layout(snapshots.iter().map(|s| s.tags.as_slice())).map_err(|e| {
            Error::new(Exit::Config, format!("{}: {e}", set.id))
                .hint("restore another set, or its copy in another Region")
        })?;
        let (mounts, copies) = match self.of_copy.copy_out.as_slice() {
            [] => (self.mount.clone(), Vec::new()),
            paths => copy_out::wanted(paths, &layout.filesystems).map_err(|what| {
                Error::new(Exit::Config, what)
                    .hint(format!("`stillpoint show {}` lists what was mounted", set.id))
            })?,
        };
        let asked = self.asked(&set.id, reach, mounts, zone);
        let made = plan(&set, &layout, &snapshots, host, &asked).map_err(refused)?;
        let is_root = |v: &PlannedVolume| layout.volumes.iter().any(|l| l.id == v.source && l.boot);
        let mut made = made.sized(&layout, &self.size, self.grow).map_err(refused)?;
        if copies.is_empty() && !self.in_place {
            made.before_start = before_start_of(&layout, &made);
        }
        if !copies.is_empty() {
            made.to = copy_out::folder(&account.loaded.settings.state_dir, &made.id);
            made.copies = copies;
        }
        if self.in_place && made.volumes.iter().any(|v| v.grown_from.is_some() && is_root(v)) {
            return Err(Error::new(Exit::Config, "the root device is not exchanged, and gets no size"));
        }
        Ok((made, layout))
    }

    fn asked(&self, set: &RunId, reach: Reach, mounts: Vec<PathBuf>, zone: Option<String>) -> Asked {
        let start = set.as_str().get(..8).unwrap_or_default();
        Asked {
            reach,
            to: self.to.clone().unwrap_or_else(|| PathBuf::from("/mnt/stillpoint").join(start)),
            mounts,
            read_only: self.read_only,
            zone,
            instead: self.speed.instead(),
            key: self.key.clone(),
            initialization_rate: self.init_rate,
            until: self.lasts.map(|lasts| {
                let until = Timestamp::now().saturating_add(lasts).unwrap_or(Timestamp::MAX);
                Timestamp::from_second(until.as_second()).unwrap_or(until)
            }),
        }
    }

    async fn carry_on(&self, account: &Account, id: &RunId, interrupt: &Interrupt) -> Result<Exit, Error> {
        let Some(known) = read_record(&account.loaded.settings.state_dir, id)? else {
            if let Some(exit) = self.carry_on_root(account, id, interrupt).await? {
                return Ok(exit);
            }
            return Err(Error::new(Exit::Config, format!("this host knows of no restore {id}"))
                .hint("`stillpoint restore --list` shows which there are; --undo takes one back from its tags alone"));
        };
        if known.plan.in_place.is_some() {
            return self.carry_on_in_place(account, known, interrupt).await;
        }
        if known.done && known.plan.reach != Reach::Mounted {
            say(&format!("restore {id} is done"));
            return Ok(Exit::Ok);
        }
        self.carry_out(account, known, interrupt).await
    }

    async fn carry_out(
        &self,
        account: &Account,
        mut record: Record,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let ec2 = account.calls().until(interrupt);
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt, tell: &|line| say(line) };
        let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
        let id = record.plan.id.clone();
        // Before anything is made: what is to go must not be in a run's window.
        let _run = match record.plan.in_place {
            Some(_) => Some(lock::take(&account.loaded.settings.run_dir, Duration::ZERO).await?),
            None => None,
        };
        let keys = self.keys(&record.plan)?;
        say(&format!("restore {id}"));
        match carry_out(&mut record, &waiting, on, &keys).await {
            Ok(_) if record.plan.in_place.is_some() => self.exchange(account, record, interrupt).await,
            Ok(done) if self.of_copy.into.is_some() => {
                self.copy_and_undo(account, &record.plan, &done, interrupt).await
            }
            Ok(done) => {
                say(&format!("{} is restored", record.plan.set));
                say(&format!("`stillpoint restore --undo {id}` takes it back"));
                let before_start = document::before_start(&record.plan);
                if !before_start.is_empty() {
                    say("before a database is started on it, by hand (docs/databases.md):");
                    before_start.iter().for_each(|command| say(&format!("  {command}")));
                }
                if let Some(exit) = self.warm(account, &record.plan, &done, interrupt).await? {
                    return Ok(exit);
                }
                self.tell(&record.plan, Some(&done), "done", Exit::Ok)
            }
            Err(Stopped::Signal(signal)) => {
                say(&format!(
                    "interrupted: `stillpoint restore --continue {id}` goes on, --undo {id} takes it back"
                ));
                Ok(end(Exit::After, Some(signal)))
            }
            // Somebody may have written to what is there already.
            Err(stopped) if self.go_on.is_some() => {
                Err(error(stopped).hint(format!("--continue {id} tries again, --undo {id} takes it back")))
            }
            Err(stopped) => {
                say(&format!("restore {id} failed, and is taken back"));
                let back = self.back(account, &id, interrupt).await;
                let error = self::error(stopped);
                Err(match back {
                    Ok(()) => error,
                    Err(left) => {
                        say(&left.render());
                        error.hint(format!("what is left: `stillpoint restore --undo {id}`"))
                    }
                })
            }
        }
    }

    async fn take_back(&self, account: &Account, id: &RunId, interrupt: &Interrupt) -> Result<Exit, Error> {
        self.no_root_back(account, id).await?;
        if self.dry_run {
            let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
            let remains = look(&account.calls(), &System, on, id).await.map_err(error)?;
            if let Some(record) = remains.record.as_ref().filter(|r| r.moving.stage.has_touched()) {
                return self.would_put_back(account, record).await.map(|()| Exit::Ok);
            }
            for volume in &remains.volumes {
                print(volume.id.as_str());
            }
            for (volume, why) in &remains.doubtful {
                say(&format!("{} would stay: {why}", volume.id));
            }
            return Ok(Exit::Ok);
        }
        let started = |units: &Unstarted| if units.is_empty() { Exit::Ok } else { Exit::After };
        let exit = match self.old_ones_back(account, id).await? {
            OldOnes::BackAndKept(unstarted) => return Ok(started(&unstarted)),
            OldOnes::Back(unstarted) => started(&unstarted),
            OldOnes::NotAway => Exit::Ok,
        };
        self.back(account, id, interrupt).await?;
        say(&format!("nothing is left of restore {id}"));
        Ok(exit)
    }

    async fn back(&self, account: &Account, id: &RunId, interrupt: &Interrupt) -> Result<(), Error> {
        let ec2 = account.calls().until(interrupt);
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt, tell: &|line| say(line) };
        let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
        let remains = look(&ec2, &System, on, id).await.map_err(error)?;
        if remains.volumes.is_empty() && remains.doubtful.is_empty() && remains.record.is_none() {
            return Err(Error::new(Exit::Config, format!("there is no restore {id} in {}", account.region))
                .hint("`stillpoint restore --list` shows which there are"));
        }
        let instance = account.identity.as_ref().map(|i| &i.instance_id);
        undo(&remains, &waiting, on, instance).await.map_err(error)?;
        if let Some((volume, why)) = remains.doubtful.first() {
            return Err(Error::new(Exit::After, format!("{} stays: {why}", volume.id))
                .hint("if it is nobody's, delete it by hand"));
        }
        Ok(())
    }

    fn tell(
        &self,
        plan: &RestorePlan,
        done: Option<&Done>,
        state: &'static str,
        exit: Exit,
    ) -> Result<Exit, Error> {
        if self.output == Output::Text {
            done.iter().flat_map(|d| &d.volumes).for_each(|v| print(v.id.as_str()));
            return Ok(exit);
        }
        let of = OfRestore::of(plan, done, state);
        print_document(&Document {
            version: VERSION,
            command: "restore",
            restores: vec![of],
            exit_code: exit,
        })?;
        Ok(exit)
    }
}

/// What a database needs that is on one of the filesystems that are mounted.
fn before_start_of(layout: &Layout, plan: &RestorePlan) -> Vec<BeforeStart> {
    let is_mounted = |f: &&SetFilesystem| plan.filesystems.iter().any(|m| m.source == f.mount_point);
    let mounted: Vec<_> = layout.filesystems.iter().filter(is_mounted).collect();
    before_start::of(&layout.applications, &mounted, &plan.to)
}

/// One restore, or undo of one, at a time on a host: device names, disks and records are of all of them.
pub(super) async fn locked(run_dir: &Path, wait: Duration) -> Result<Option<FileLock>, Error> {
    alone(&run_dir.join("restore.lock"), wait, "restores a set, or takes one back").await
}

/// This instance, as volumes are attached to it.
pub(super) async fn host(
    account: &Account,
    ec2: &Repeating<'_, crate::ec2::aws::Aws>,
) -> Result<Host, Error> {
    let id = account.instance(None)?;
    let view =
        ec2.call("DescribeInstances", async || ec2.inner().host(&id).await).await.map_err(Error::from)?;
    let kind = view.instance_type.clone();
    let asked = async || ec2.inner().attachment_limit(&kind).await;
    let limit = match ec2.call("DescribeInstanceTypes", asked).await {
        Ok(limit) => limit,
        // EC2 counts for itself when a volume is attached: only that it is told before is lost.
        Err(e) => {
            say(&format!("how many volumes {id} can have is not known: {e}"));
            None
        }
    };
    Ok(Host { id, view, limit })
}

/// What is said where the records of restores cannot be looked through.
pub(super) fn unread(e: std::io::Error) -> Error {
    Error::new(Exit::Config, format!("what this host remembers of restores cannot be read: {e}"))
}

fn read_record(state_dir: &Path, id: &RunId) -> Result<Option<Record>, Error> {
    record::read(state_dir, id).map_err(|e| {
        Error::new(Exit::Config, format!("what this host remembers of {id} cannot be read: {e}"))
    })
}

fn refused(refusal: Refusal) -> Error {
    Error::new(Exit::Config, refusal.what).hint(refusal.hint)
}

pub(super) fn error(stopped: Stopped) -> Error {
    match stopped {
        Stopped::Ec2(e) => e.into(),
        Stopped::Signal(signal) => Error::new(Exit::After, format!("interrupted by {signal}")),
        Stopped::Here(what) | Stopped::Late(what) => Error::new(Exit::After, what),
    }
}
