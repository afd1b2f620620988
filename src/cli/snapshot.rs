//! `stillpoint snapshot`: lock, clean up after dead runs, plan, run, report.
//!
//! In: the choice. Out: snapshot ids (or JSON) on stdout, prose on stderr. Must never: exit before the end of
//! the run while something is frozen.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser as _};
use nix::sys::signal::Signal;

use super::copy::Copies;
use super::follow::Progress;
use super::image::{How, Imaging};
use super::refused::{self, Command, disk};
use super::start::{Ready, end, environment, listen, prepare_process};
use super::{Choice, Global, Output, after, print, print_document, say};
use crate::clock::System;
use crate::config::{self, Loaded, Overrides};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::group::engine::Engine;
use crate::ids::RunId;
use crate::image::name::Template;
use crate::report;
use crate::report::event::{self, Event};
use crate::run::complete::complete;
use crate::run::last::Last;
use crate::run::planned::Planned;
use crate::run::take::snapshot_with;
use crate::run::tally::Tally;
use crate::run::textfile;
use crate::run::{Job, former, notify};
use crate::sets::before;
use crate::sets::read::KEEP_TAG;
use crate::sets::record::SetRecord;

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(flatten)]
    choice: Choice,
    /// Lock the snapshots once they have their label: governance:30d, or compliance:365d:24h (days, then the
    /// cooling-off period), in place of what the plan says; `off` for no lock.
    #[arg(long, value_name = "LOCK")]
    lock: Option<String>,
    /// Remove the sets that the plan's rules let go afterwards, as `prune` does. What fails there ends the run with 11.
    #[arg(help_heading = "What follows", long)]
    prune: bool,
    /// Keep the set until this day, such as 2027-01-31, or `forever`, whatever the rules say.
    #[arg(long, value_name = "DATE", value_parser = super::keep::until)]
    keep_until: Option<String>,
    /// What it is taken before, such as "upgrade to 16.3", for a tag: `list` and `show` say it.
    #[arg(long, value_name = "TEXT")]
    before: Option<String>,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration, default_value = "0s")]
    wait_lock: Duration,
    /// End when every snapshot is completed, and not before. Hooks with `completed` or `failed` commands hear of it then.
    #[arg(help_heading = "What follows", long)]
    wait: bool,
    /// Wait until the set is completed, and copy it to the plan's Regions (`[[plan.NAME.copy]]`).
    #[arg(help_heading = "What follows", long)]
    copy: bool,
    /// As --copy, to this Region; several with commas between them, or repeated.
    #[arg(help_heading = "What follows", long, value_name = "REGION", value_delimiter = ',', value_parser = config::region, conflicts_with = "copy")]
    copy_to: Vec<String>,
    /// Wait until the set is completed, and register an AMI of it, as `image` does. It goes with the set when the
    /// plan's rules let that go.
    #[arg(help_heading = "What follows", long)]
    image: bool,
    /// The name of that image, as `image --name` takes it.
    #[arg(help_heading = "What follows", long, value_name = "NAME", requires = "image")]
    image_name: Option<Template>,
    /// Go on although something on this host would keep an instance of the image from booting.
    #[arg(help_heading = "What follows", long, requires = "image")]
    ignore_boot_check: bool,
    /// A set of this host alone, though the plan is a group's ([group]): the other members are not asked.
    #[arg(long)]
    alone: bool,
    /// For `image` without a set: stdout gets the image alone.
    #[arg(skip)]
    only_image: Option<How>,
}

#[derive(clap::Parser)]
struct Alone {
    #[command(flatten)]
    snapshot: Snapshot,
}

/// A run that came to its end.
struct Taken {
    record: SetRecord,
    events: Vec<Event>,
    signal: Option<Signal>,
    copies: Option<Copies>,
    image: Option<Imaging>,
}

impl Snapshot {
    /// What `image` does where no set is named: a set by this plan, and an image of it.
    pub(super) fn for_image(
        plan: Option<&str>,
        how: How,
        output: Output,
        dry_run: bool,
    ) -> Result<Self, Error> {
        let parsed = Alone::try_parse_from(["snapshot"].into_iter().chain(plan));
        let mut snapshot = parsed.map_err(|e| Error::new(Exit::Usage, e.to_string()))?.snapshot;
        (snapshot.image, snapshot.only_image, snapshot.dry_run) = (true, Some(how), dry_run);
        snapshot.choice.output = output;
        Ok(snapshot)
    }

    /// The image that is wanted.
    fn how(&self) -> Option<How> {
        let of_run = || How::of_a_run(self.image_name.clone(), self.ignore_boot_check);
        self.image.then(|| self.only_image.clone().unwrap_or_else(of_run))
    }

    /// What stdout gets of the image.
    fn output_of_image(&self) -> Option<Output> {
        let json = self.choice.output == Output::Json;
        (self.only_image.is_some() || !json).then_some(self.choice.output)
    }

    fn load(&self, global: &Global) -> Result<Loaded, Error> {
        let wait = self.wait.then_some(true);
        let overrides = Overrides { lock: self.lock.clone(), wait, ..self.choice.overrides() };
        let mut loaded = global.load(self.choice.of_set.selection.plan.as_deref(), overrides)?;
        let keep = self.keep_until.iter().map(|until| (KEEP_TAG.to_owned(), until.clone()));
        let before = self.before.as_deref().and_then(before::tag);
        // No user can give such keys: `check::own_tag` refuses them.
        loaded.settings.plan.tags.extend(keep.chain(before));
        if self.alone {
            loaded.settings.plan.group = None;
        }
        Ok(loaded)
    }

    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if self.dry_run {
            return super::plan::show(&self.load(global)?, self.choice.output).await;
        }
        super::need_root()?;
        let plan = self.choice.of_set.selection.plan.as_deref();
        let loaded = match self.load(global) {
            Ok(loaded) => loaded,
            Err(error) => {
                refused::unreadable(Command::Snapshot, global, plan, &error).await;
                return Err(error);
            }
        };
        let settings = &loaded.settings;
        if self.prune && settings.plan.keep.is_none() {
            return Err(super::prune::no_rules(&settings.plan.name, false));
        }
        let last = Last::begun(&settings.plan.name);
        let noted = |last: &Last| last.note(&settings.run_dir, &settings.state_dir);
        let told = |record: Option<&SetRecord>| match record {
            Some(record) => noted(&last.clone().with_record(record)),
            None => noted(&last),
        };
        match self.take(global, &loaded, told).await {
            Ok(Taken { record, events, mut signal, copies, image }) => {
                told(Some(&record));
                let plan = &settings.plan;
                notify::tell(&plan.notify, Command::Snapshot.name(), &plan.name, record.exit, &events).await;
                let mut exit = record.exit;
                if let Some(image) = image {
                    let imaged = image.after(&record, signal).await?;
                    if let Some(event) = imaged.event {
                        notify::tell(
                            &plan.notify,
                            Command::Snapshot.name(),
                            &plan.name,
                            imaged.exit,
                            &[event],
                        )
                        .await;
                    }
                    (exit, signal) = (imaged.exit, imaged.signal);
                }
                let Some(copies) = copies else { return Ok(end(exit, signal)) };
                // The run's lock is free: a copy takes hours, and the next set is due.
                let copied = copies.after(&record, signal).await?;
                if let Some(event) = copied.event {
                    noted(&last.clone().with_record(&record).not_copied());
                    notify::tell(&plan.notify, Command::Snapshot.name(), &plan.name, copied.exit, &[event])
                        .await;
                }
                Ok(end(copied.exit.or_worse(exit), copied.signal))
            }
            Err(error) => {
                noted(&last.clone().refused(&error));
                refused::tell(Command::Snapshot, &loaded, &error).await;
                Err(error)
            }
        }
    }

    /// Takes the set and reports it. `told` is called once this run has the lock, and with the record of a set that
    /// is then waited for.
    async fn take(
        &self,
        global: &Global,
        loaded: &Loaded,
        told: impl Fn(Option<&SetRecord>),
    ) -> Result<Taken, Error> {
        prepare_process();
        let mut interrupt = listen()?;
        let Ready { lock, planned } = Ready::get(loaded, self.wait_lock, true, &interrupt).await?;
        let mut lock = Some(lock);
        told(None);
        let copies = Copies::before(global, loaded, self.copy, &self.copy_to).await?;
        let Planned { facts, plan, ec2, .. } = &planned;
        let image = match self.how() {
            Some(how) => Some(Imaging::before(global, loaded, plan, how, self.output_of_image()).await?),
            None => None,
        };
        let job = Job::new(RunId::generate(), facts, plan, &loaded.settings.plan)?;
        let engine = engine(loaded)?;
        let mut outcome = snapshot_with(&environment(loaded, ec2), &job, engine, &mut interrupt).await?;
        after::lock(loaded, ec2, &mut outcome.record, &interrupt).await;
        let waits = outcome.left.is_some();
        let mut pruned = None;
        // A run that waits prunes when its set is complete, and counts.
        if self.prune && !waits && outcome.signal.is_none() {
            pruned = after::prune(loaded, ec2, &mut outcome.record).await;
        }
        let mut events = event::of_record(&outcome.record, outcome.fired.as_deref());
        events.extend(outcome.lost.iter().map(event::lost));
        events.iter().for_each(report::log::tell);
        let json = self.choice.output == Output::Json;
        let told_of_set = self.only_image.is_none();
        if told_of_set && !json && !report::log::stdout_is_journal() {
            outcome.record.snapshots.iter().for_each(|s| print(s.id.as_str()));
        }
        let known = outcome.record.after.len();
        let state_dir = &loaded.settings.state_dir;
        let count = |tally: &mut Tally, record: &SetRecord| {
            tally.took(record, former::pending(state_dir, record));
        };
        if let Some(held) = lock.take_if(|_| waits) {
            told(Some(&outcome.record));
            say(&report::set::human(&outcome.record));
            let record = &outcome.record;
            textfile::update(loaded, &held, disk(record.exit), |tally| count(tally, record));
            // The next run may begin: nothing is frozen or held any more.
            drop(held);
            let mut progress = Progress::new();
            let calls = Repeating::for_each_call(ec2, &loaded.settings.ec2);
            complete(&calls, &System, &job, state_dir, &mut outcome, &mut interrupt, &mut progress).await;
            progress.end();
            if self.prune && outcome.signal.is_none() {
                pruned = after::prune(loaded, ec2, &mut outcome.record).await;
            }
            let completed = event::of_completed(&outcome.record, known);
            completed.iter().for_each(report::log::tell);
            events.extend(completed);
        }
        let record = &outcome.record;
        if json && told_of_set {
            print_document(record)?;
        }
        say(&if waits { report::set::completed(record, known) } else { report::set::human(record) });
        if let Some(hint) = &outcome.hint {
            say(&format!("hint: {hint}"));
        }
        events.extend(pruned.iter().flat_map(|(done, _)| done.events.clone()));
        let ended = |tally: &mut Tally| {
            tally.ended(record.exit);
            // The newest set may be another run's by now.
            if waits {
                tally.pending = former::pending(state_dir, record)
            } else {
                count(tally, record)
            }
            pruned.iter().for_each(|(done, exit)| done.count(tally, *exit));
        };
        match &lock {
            Some(held) => textfile::update(loaded, held, disk(record.exit), ended),
            None => textfile::update_alone(loaded, A_RUN, disk(record.exit), ended).await,
        }
        Ok(Taken { signal: outcome.signal, record: outcome.record, events, copies, image })
    }
}

/// Where the other members of the plan's group are met.
fn engine(loaded: &Loaded) -> Result<Option<Arc<dyn Engine>>, Error> {
    let Some(group) = &loaded.settings.plan.group else { return Ok(None) };
    Ok(Some(Arc::new(super::engine(group)?)))
}

/// How long another run is waited for before metrics are written: nothing is frozen then.
const A_RUN: Duration = Duration::from_secs(60);
