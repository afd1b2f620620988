//! `stillpoint copy SET`: its snapshots are copied to other Regions, or to its own.
//!
//! In: the name of a set, destinations. Out: the ids of the copies on stdout. Must never: ask for anything before
//! every destination has been looked at, or leave out to say what was made.

mod around;
mod destination;
mod document;
mod every;
mod shared;

use std::time::Duration;

use clap::Args;

pub(super) use self::around::{Copies, shown, until_completed};
use self::destination::Destination;
use self::document::OfRegion;
use self::every::copy;
use super::sets::{Account, SetName, set_name};
use super::share::account_id;
use super::start::{end, listen};
use super::{Global, Output, print};
use crate::config;
use crate::config::settings::CopySettings;
use crate::ec2::TaggedSnapshot;
use crate::ec2::keep::Wanted;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::SnapshotId;
use crate::report;
use crate::sets::copy::forecast::forecast;
use crate::sets::copy::source::Source;
use crate::sets::find::snapshots;
use crate::sets::follow::Followed;
use crate::sets::read::SOURCE_TAG;
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tags::INSTANCE_TAG;

/// Another account that copies, by its own credentials.
pub(super) struct Whose {
    /// The profile of the SDK's files that has them.
    profile: String,
    account: String,
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// The Region to copy to; several with commas between them, or repeated [default: those of the plan].
    #[arg(long, value_name = "REGION", value_delimiter = ',', value_parser = config::region)]
    to: Vec<String>,
    /// Encrypt what is not, with the destination account's default key.
    #[arg(long, requires = "to")]
    encrypt: bool,
    /// Encrypt with this KMS key of the destination's Region: an id, an ARN or alias/NAME.
    #[arg(long, requires = "to", conflicts_with = "encrypt", value_parser = config::kms_key)]
    key: Option<String>,
    /// A time-based copy: EC2 is done within this time, for a higher price. 15m to 48h, in steps of 15m.
    #[arg(long, requires = "to", value_name = "TIME", value_parser = config::within)]
    within: Option<Duration>,
    /// Make the copies as another account (--account): by the credentials of this profile of the AWS configuration.
    /// The set is shared with it meanwhile.
    #[arg(long = "as", value_name = "PROFILE", requires = "account", conflicts_with = "no_wait")]
    profile: Option<String>,
    /// The account of --as.
    #[arg(long, value_name = "ID", requires = "profile", value_parser = account_id)]
    account: Option<String>,
    /// Wait until the set itself is completed, before it is copied.
    #[arg(long)]
    wait_source: bool,
    /// Return once every copy is asked for. They go on.
    #[arg(long)]
    no_wait: bool,
    /// Print what would be copied, how, and what is known of its cost, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text (the ids of the copies) or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Copy {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let mut interrupt = listen()?;
        let account = Account::connect(global, None, false).await?;
        let mut set = account.set(&self.set).await?;
        let to = self.destinations(global, &account, &set)?;
        if self.wait_source && !self.dry_run && set.state() == SetState::Pending {
            match until_completed(&account, &set, &mut interrupt).await? {
                Followed::Interrupted(signal) => return Ok(end(Exit::After, Some(signal))),
                Followed::Completed | Followed::Lost(_) | Followed::NotYet => {
                    set = account.set(&SetName::Start(set.id.to_string())).await?;
                }
            }
        }
        let source = source(&account, &set).await?;
        let whose = self.whose(&set)?;
        if self.dry_run {
            let mut copies = Vec::new();
            for to in &to {
                copies.push(self.looked_ahead(&account, &source, to, whose.as_ref()).await?);
            }
            return self.tell(&source, whose.as_ref(), &copies, Exit::Ok);
        }
        let made = copy(&account, &source, &to, whose.as_ref(), !self.no_wait, &interrupt).await?;
        if self.output == Output::Text {
            made.ids.iter().for_each(|id| print(id.as_str()));
        }
        let exit = self.tell(&source, whose.as_ref(), &made.copies, made.exit)?;
        Ok(end(exit, made.signal))
    }

    fn tell(
        &self,
        source: &Source,
        whose: Option<&Whose>,
        copies: &[OfRegion],
        exit: Exit,
    ) -> Result<Exit, Error> {
        if self.output == Output::Json {
            document::tell(source, whose, self.dry_run, copies, exit)?;
        }
        Ok(exit)
    }

    /// What would be done at one destination.
    async fn looked_ahead(
        &self,
        account: &Account,
        source: &Source,
        to: &CopySettings,
        whose: Option<&Whose>,
    ) -> Result<OfRegion, Error> {
        let at = Destination::of(account, source, to, whose).await?;
        let ec2 = at.calls(&account.loaded);
        let tag = vec![(INSTANCE_TAG.to_owned(), source.set.instance.to_string())];
        let mut there = snapshots(&ec2, &Wanted::Tagged(tag)).await.map_err(Error::from)?;
        there.retain(|s| s.tag(SOURCE_TAG).is_some());
        let same_place = source.set.region == to.region && whose.is_none();
        let forecast = forecast(source, &at.how, &there, same_place);
        if self.output == Output::Text {
            print(&report::copy::forecast(source, to, &at.how, &at.existing, &forecast, same_place));
        }
        Ok(OfRegion::of(source, &at).expecting(&forecast))
    }

    /// Who copies, where it is not the account of the set.
    fn whose(&self, set: &SnapshotSet) -> Result<Option<Whose>, Error> {
        let (Some(profile), Some(account)) = (&self.profile, &self.account) else { return Ok(None) };
        if set.account.as_ref() == Some(account) {
            let what = format!("{account} owns {}: --as is for another account", set.id);
            return Err(Error::new(Exit::Usage, what).hint("leave --as and --account out"));
        }
        Ok(Some(Whose { profile: profile.clone(), account: account.clone() }))
    }

    /// Those of the command line, or of the plan that took the set.
    fn destinations(
        &self,
        global: &Global,
        account: &Account,
        set: &SnapshotSet,
    ) -> Result<Vec<CopySettings>, Error> {
        let each = CopySettings {
            region: String::new(),
            encrypt: self.encrypt || self.key.is_some(),
            key: self.key.clone(),
            within: self.within,
        };
        let mut all = to_each("--to", &self.to, &each)?;
        if all.is_empty() {
            let known = set.plan == config::DEFAULT_PLAN || account.loaded.plans.contains(&set.plan);
            if known {
                all = global.load(Some(&set.plan), config::Overrides::default())?.settings.plan.copy;
            }
        }
        if all.is_empty() {
            return Err(Error::new(
                Exit::Usage,
                format!("where to? The plan {} of this host names no Region to copy to", set.plan),
            )
            .hint(format!("--to eu-west-1, or a table [[plan.{}.copy]] (docs/copies.md)", set.plan)));
        }
        Ok(all)
    }
}

/// The same for each of these Regions.
fn to_each(flag: &str, regions: &[String], each: &CopySettings) -> Result<Vec<CopySettings>, Error> {
    let mut all: Vec<CopySettings> = Vec::new();
    for region in regions {
        if all.iter().any(|other| other.region == *region) {
            return Err(Error::new(Exit::Usage, format!("{flag} names {region} twice")));
        }
        all.push(CopySettings { region: region.clone(), ..each.clone() });
    }
    Ok(all)
}

/// The set, if it can be copied.
async fn source(account: &Account, set: &SnapshotSet) -> Result<Source, Error> {
    let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
    let ec2 = account.calls();
    let mut all: Vec<TaggedSnapshot> = Vec::new();
    for some in ids.chunks(200) {
        all.extend(snapshots(&ec2, &Wanted::Ids(some.to_vec())).await.map_err(Error::from)?);
    }
    Source::of(set, &all).map_err(|refusal| Error::new(Exit::Config, refusal.what).hint(refusal.hint))
}
