//! `stillpoint image SET`: an AMI of a set, as its instance is.
//!
//! In: the name of a set. Out: the id of the image on stdout. Must never: register anything before all of it was checked,
//! or call an image good that is not as its instance.

mod around;
mod change;
mod delete;
mod document;
mod list;

use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

pub(super) use self::around::Imaging;
use self::document::{Document, OfImage};
use super::copy::until_completed;
use super::sets::{Account, SetName, set_name};
use super::snapshot::Snapshot;
use super::start::{end, listen};
use super::{Global, Output, print, print_document, say};
use crate::clock::System;
use crate::config;
use crate::ec2::images::{ImageView, Images as _, WhichImages};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::ImageId;
use crate::image::make::{Made, Making};
use crate::image::name::{self, Template};
use crate::image::ours::stranger;
use crate::image::plan::{Asked, ImagePlan, Like, plan};
use crate::interrupt::Interrupt;
use crate::report;
use crate::restore::make::Stopped;
use crate::sets::follow::Followed;
use crate::sets::guard::members;
use crate::sets::layout::layout;
use crate::sets::set::{SetState, SnapshotSet};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Image {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the images of sets.
    List(list::List),
    /// Deregister an image of a set, alone or with its set.
    Delete(delete::Delete),
    /// Let other accounts launch it.
    Share(change::Share),
    /// Take back what `share` gave.
    Unshare(change::Unshare),
    /// Deprecate it from a day on: others do not find it then, unless they ask for such.
    Deprecate(change::Deprecate),
    /// Disable it: nothing is launched from it until it is enabled.
    Disable(change::Disable),
    /// Enable it again.
    Enable(change::Disable),
}

#[derive(Debug, Args)]
struct Make {
    /// The start of a set's id, or one of its snapshots. Without it, a set of this instance is taken first.
    #[arg(value_parser = set_name)]
    set: Option<SetName>,
    /// The plan to take a set by, where none is named.
    #[arg(long, conflicts_with = "set")]
    plan: Option<String>,
    #[command(flatten)]
    how: How,
    /// Wait until the set itself is completed, before its image is registered.
    #[arg(long)]
    wait_source: bool,
    /// Return once it is registered, also if EC2 is not done with it. Then it is compared the next time.
    #[arg(long)]
    no_wait: bool,
    /// Print what would be registered, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text (the id of the image) or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// What can be said of an image.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Its name, of 3 to 128 characters. {host}, {plan}, {time}, {date}, {instance} and {set} are those of the set.
    #[arg(long, value_name = "NAME", default_value = name::DEFAULT)]
    name: Template,
    /// Its description, of at most 255 characters.
    #[arg(long, value_name = "TEXT", value_parser = description)]
    description: Option<String>,
    /// Tag for it; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// How it boots, and what it costs: as this image, in place of the set's instance.
    #[arg(long, value_name = "AMI")]
    like: Option<ImageId>,
    /// When the rules let its set go, it is deregistered with it. Else it keeps its set.
    #[arg(long)]
    goes_with_set: bool,
    /// Go on although something on this host would keep an instance of the image from booting.
    #[arg(long)]
    ignore_boot_check: bool,
}

fn description(text: &str) -> Result<String, String> {
    let good = text.chars().count() <= 255 && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if good { Ok(text.to_owned()) } else { Err("is not of at most 255 ASCII characters".to_owned()) }
}

fn tag(text: &str) -> Result<(String, String), config::Fault> {
    let (key, value) = config::key_value(text)?;
    config::own_tag(&key, &value)?;
    Ok((key, value))
}

impl Image {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        match &self.command {
            None => self.make.run(global).await,
            Some(Command::List(command)) => command.run(global).await,
            Some(Command::Delete(command)) => command.run(global).await,
            Some(Command::Share(command)) => command.run(global).await,
            Some(Command::Unshare(command)) => command.run(global).await,
            Some(Command::Deprecate(command)) => command.run(global).await,
            Some(Command::Disable(command)) => command.run(global, true).await,
            Some(Command::Enable(command)) => command.run(global, false).await,
        }
    }
}

/// The image that is meant, and its set: of no other image anything is changed.
async fn own(account: &Account, id: &ImageId) -> Result<(ImageView, SnapshotSet), Error> {
    let ec2 = account.calls();
    let which = WhichImages::Ids(vec![id.clone()]);
    let found = ec2.call("DescribeImages", async || ec2.inner().own_images(&which).await).await?;
    let Some(image) = found.into_iter().find(|i| i.id == *id) else {
        let what = format!("this account has no image {id} in {}", account.region);
        return Err(Error::new(Exit::Config, what)
            .hint("`stillpoint image list` shows those of sets; --region names another Region"));
    };
    let hint = "nothing is changed of what is another's: the aws CLI does that";
    let Some(set) = image.set() else {
        return Err(Error::new(Exit::Config, format!("{id} is not of a set")).hint(hint));
    };
    let set = account.set(&SetName::Start(set.to_string())).await?;
    match stranger(&image, &set.id, set.snapshots()) {
        None => Ok((image, set)),
        Some(why) => {
            let what = format!("{id} has the tag of a set, but {why}");
            Err(Error::new(Exit::Config, what).hint(hint))
        }
    }
}

impl Make {
    async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let Some(name) = &self.set else { return self.take_first(global).await };
        let mut interrupt = listen()?;
        let account = Account::connect(global, None, false).await?;
        let mut set = account.set(name).await?;
        if self.wait_source && !self.dry_run && set.state() == SetState::Pending {
            match until_completed(&account, &set, &mut interrupt).await? {
                Followed::Interrupted(signal) => return Ok(end(Exit::After, Some(signal))),
                Followed::Completed | Followed::Lost(_) | Followed::NotYet => {
                    set = account.set(&SetName::Start(set.id.to_string())).await?;
                }
            }
        }
        let (exit, signal) = self.carry_out(&account, &set, Some(self.output), &interrupt).await?;
        Ok(end(exit, signal))
    }

    /// The set is taken first, in the way of `snapshot`.
    async fn take_first(&self, global: &Global) -> Result<Exit, Error> {
        if self.dry_run && self.output == Output::Json {
            return Err(Error::new(Exit::Usage, "what would be registered is known of a set")
                .hint("`stillpoint plan -o json` shows what would be taken"));
        }
        let plan = self.plan.as_deref();
        Snapshot::for_image(plan, self.how.clone(), self.output, self.dry_run)?.run(global).await
    }

    /// As `snapshot` has it made.
    fn of(how: &How) -> Self {
        let (set, plan, how) = (None, None, how.clone());
        Self { set, plan, how, wait_source: false, no_wait: false, dry_run: false, output: Output::Text }
    }

    /// Makes it, or says what would be made. stdout gets what `output` says.
    async fn carry_out(
        &self,
        account: &Account,
        set: &SnapshotSet,
        output: Option<Output>,
        interrupt: &Interrupt,
    ) -> Result<(Exit, Option<Signal>), Error> {
        let plan = self.how.plan(account, set).await?;
        if output != Some(Output::Json) {
            say(&report::image::plan(&plan));
        }
        let ec2 = account.calls().until(interrupt);
        let making =
            Making { ec2: &ec2, clock: &System, interrupt, wait: !self.no_wait, tell: &|line| say(line) };
        let existing = check(&making, &plan).await?;
        if self.dry_run {
            match &existing {
                Some(image) => say(&format!("{} is there already", image.id)),
                None => say("permission checked by DryRun: RegisterImage"),
            }
            let of = OfImage::planned(&plan, existing.as_ref());
            return self.tell(of, output, Exit::Ok).map(|exit| (exit, None));
        }
        let made = match making.make(&plan).await {
            Ok(made) => made,
            Err(Stopped::Signal(signal)) => {
                say(&format!("interrupted: `stillpoint image {}` goes on", set.id));
                return Ok((Exit::After, Some(signal)));
            }
            Err(stopped) => return Err(not_made(stopped)),
        };
        let exit = told(&made, output);
        self.tell(OfImage::made(&plan, &made), output, exit).map(|exit| (exit, None))
    }

    fn tell(&self, image: OfImage, output: Option<Output>, exit: Exit) -> Result<Exit, Error> {
        if output == Some(Output::Json) {
            print_document(&Document::of("image", self.dry_run, vec![image], exit))?;
        }
        Ok(exit)
    }
}

impl How {
    /// Of an image that a plan's run makes: it goes when the rules let its set go.
    pub(super) fn of_a_run(name: Option<Template>, ignore_boot_check: bool) -> Self {
        let name = name.unwrap_or_default();
        let (description, tag, like) = (None, Vec::new(), None);
        Self { name, description, tag, like, goes_with_set: true, ignore_boot_check }
    }

    /// What the image of this set will be.
    async fn plan(&self, account: &Account, set: &SnapshotSet) -> Result<ImagePlan, Error> {
        let snapshots = members(&account.calls(), set).await.map_err(Error::from)?;
        let layout = layout(snapshots.iter().map(|s| s.tags.as_slice())).map_err(|e| {
            Error::new(Exit::Config, format!("{}: {e}", set.id)).hint("image another set, or its copy")
        })?;
        // Of another host's set, this one says nothing.
        let here = account.identity.as_ref().is_some_and(|i| i.instance_id == set.instance);
        let here = here && self.like.is_none() && around::boots_here(&layout);
        around::bootable(here, &around::mounts(&layout), self.ignore_boot_check).await?;
        let like = match &self.like {
            Some(id) => Like::Image(Box::new(seen(account, id).await?)),
            None => instance(account, set).await?,
        };
        let asked = Asked {
            name: self.name.clone(),
            description: self.description.clone(),
            tags: self.tag.clone(),
            goes_with_set: self.goes_with_set,
        };
        plan(set, &layout, &snapshots, &like, &asked)
            .map_err(|refusal| Error::new(Exit::Config, refusal.what).hint(refusal.hint))
    }
}

/// An image that was named.
async fn seen(account: &Account, id: &ImageId) -> Result<ImageView, Error> {
    let ec2 = account.calls();
    let found = ec2.call("DescribeImages", async || ec2.inner().any_image(id).await).await?;
    found.ok_or_else(|| {
        Error::new(Exit::Config, format!("there is no image {id} in {}", account.region))
            .hint("--like names an image that this account sees in the Region of the set")
    })
}

/// The set's instance: where it is now, or where the source of the copy is.
async fn instance(account: &Account, set: &SnapshotSet) -> Result<Like, Error> {
    let of_source = set.copy_of.as_ref().map(|of| of.region.as_str());
    // Anybody who may tag can write the Region of a source.
    let elsewhere = of_source.filter(|r| *r != account.region && config::region(r).is_ok());
    for region in std::iter::once(account.region.as_str()).chain(elsewhere) {
        let aws = account.at(region).await?;
        let ec2 = Repeating::for_each_call(&aws, &account.loaded.settings.ec2);
        let asked = async || ec2.inner().machine(&set.instance).await;
        let Some(machine) = ec2.call("DescribeInstances", asked).await? else { continue };
        let image = match &machine.image {
            Some(id) => ec2.call("DescribeImages", async || ec2.inner().any_image(id).await).await?,
            None => None,
        };
        let asked = async || ec2.inner().uefi_data(&set.instance).await;
        let uefi_data = ec2.call("GetInstanceUefiData", asked).await?;
        return Ok(Like::Instance { machine: Box::new(machine), image: image.map(Box::new), uefi_data });
    }
    let what = format!("{} is gone, and only it knew how it boots and what it costs", set.instance);
    Err(Error::new(Exit::Config, what)
        .hint("--like ami-… takes that from an image: the one that it was launched from, as a rule"))
}

/// Whether it is there already, or may be registered.
async fn check(
    making: &Making<'_, crate::ec2::aws::Aws>,
    plan: &ImagePlan,
) -> Result<Option<ImageView>, Error> {
    let existing = making.existing(plan).await.map_err(|stopped| match stopped {
        Stopped::Ec2(e) => e.into(),
        Stopped::Signal(signal) => Error::interrupted(signal),
        Stopped::Here(what) | Stopped::Late(what) => {
            Error::new(Exit::Config, what).hint("--name gives another")
        }
    })?;
    if existing.is_none() {
        let may = async || making.ec2.inner().may_register(&plan.request).await;
        making.ec2.call("DryRun", may).await?;
    }
    Ok(existing)
}

fn not_made(stopped: Stopped) -> Error {
    match stopped {
        Stopped::Ec2(e) => e.into(),
        Stopped::Signal(signal) => Error::interrupted(signal),
        Stopped::Here(what) | Stopped::Late(what) => Error::new(Exit::After, what)
            .hint("`stillpoint image list` shows what is there; the same command tries again"),
    }
}

/// Says what became of it.
fn told(made: &Made, output: Option<Output>) -> Exit {
    let id = &made.image.id;
    for difference in &made.differences {
        let text = difference.to_string();
        say(&format!("{id} differs from its instance: {}", crate::path_encoding::printable(&text)));
    }
    if made.discarded {
        say("hint: `aws ec2 create-image` of the instance keeps what it costs; the set stays as it is");
        return Exit::After;
    }
    if output == Some(Output::Text) {
        print(id.as_str());
    }
    if !made.differences.is_empty() {
        say(&format!("look at it before anything is launched: `aws ec2 describe-images --image-ids {id}`"));
        return Exit::After;
    }
    match (made.there, made.image.state.as_str()) {
        (true, "available") => say(&format!("{id} is there already")),
        (false, "available") => say(&format!("{id} is as its instance is, and can be launched")),
        (_, "pending") => say(&format!("{id} is registered, and pending; the same command waits for it")),
        (_, state) => say(&format!("{id} is {}", crate::path_encoding::printable(state))),
    }
    Exit::Ok
}
