//! `stillpoint image share`, `unshare`, `deprecate`, `disable` and `enable`: what others may do with an image.
//!
//! In: the id of an image of a set. Out: its attributes changed. Must never: change an image that is of no set, or make one
//! public unless the command line says twice that it is meant.

use clap::Args;
use jiff::Timestamp;

use super::document::{Document, OfImage};
use super::own;
use crate::cli::sets::Account;
use crate::cli::share::{account_id, who};
use crate::cli::{Global, Output, print, print_document, say};
use crate::ec2::Ec2Error;
use crate::ec2::images::{ImageView, Images as _};
use crate::ec2::keep::{EVERYBODY, Permission};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::ImageId;
use crate::path_encoding::printable;
use crate::sets::retention::{KeepUntil, Zone};

/// EC2 deprecates an image of one's own at most so many years from now (EC2 guide, "Deprecate an Amazon EC2 AMI").
const MOST_YEARS: i64 = 10;

#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Such as ami-0123456789abcdef0.
    image: ImageId,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("with").required(true).multiple(true)))]
pub(super) struct Share {
    #[command(flatten)]
    common: Common,
    /// Account of 12 digits; several with commas between them, or repeated.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = account_id, group = "with")]
    account: Vec<String>,
    /// Everybody: any AWS account there is can launch it, read all data of its volumes, and keep that for good.
    #[arg(long, requires = "yes_anybody_may_read_it", group = "with")]
    public: bool,
    /// Needed with --public: that anybody may read all data of its volumes is meant.
    #[arg(long, requires = "public")]
    yes_anybody_may_read_it: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unshare {
    #[command(flatten)]
    common: Common,
    /// Only from this account of 12 digits; several with commas between them, or repeated.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = account_id)]
    account: Vec<String>,
    /// Only from everybody: accounts that were named keep it.
    #[arg(long)]
    public: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("when").required(true)))]
pub(super) struct Deprecate {
    #[command(flatten)]
    common: Common,
    /// From this day on (UTC), such as 2027-01-31, or an RFC 3339 time.
    #[arg(long, value_name = "DATE", value_parser = from, group = "when")]
    from: Option<Timestamp>,
    /// It is no longer deprecated, nor going to be.
    #[arg(long, group = "when")]
    never: bool,
}

#[derive(Debug, Args)]
pub(super) struct Disable {
    #[command(flatten)]
    common: Common,
}

/// A time to come. Of a day, its start.
fn from(text: &str) -> Result<Timestamp, String> {
    let KeepUntil::Date(mut at) = KeepUntil::from_tag(text, &Zone::UTC) else {
        return Err("is neither a day such as 2027-01-31 nor an RFC 3339 time".to_owned());
    };
    if text.trim().len() == "2027-01-31".len() {
        // A day that something is kept until is a part of it.
        at -= jiff::SignedDuration::from_hours(24);
    }
    let now = Timestamp::now();
    if at <= now {
        return Err("is over".to_owned());
    }
    if at.duration_since(now) > jiff::SignedDuration::from_hours(24 * 365 * MOST_YEARS) {
        return Err(format!("is more than {MOST_YEARS} years from now, and EC2 takes no later time"));
    }
    Ok(at)
}

/// What is to be done to an image.
struct Change {
    command: &'static str,
    /// Said behind its id when it is done.
    done: String,
    /// It is so already.
    already: bool,
    accounts: Vec<String>,
}

/// What everybody gets.
const DISCLOSED: &str = ": any AWS account can find it with its name, its description and the id of this account, launch \
                         it, read all of its volumes, also keys, passwords and what was deleted and not overwritten, \
                         and keep that";

/// Is it refused by EC2, or by the account?
async fn can_be_public(account: &Account, image: &ImageView) -> Result<(), Error> {
    let (id, region) = (&image.id, &account.region);
    let no = |what: String, hint: String| Err(Error::new(Exit::Config, what).hint(hint));
    let by_account = "share it with accounts (--account)";
    if let Some(mapping) = image.mappings.iter().find(|m| m.encrypted) {
        let of = mapping.snapshot.as_ref().map_or(mapping.device_name.as_str(), |s| s.as_str());
        let what = format!("{id} has {} encrypted, and EC2 makes nothing public that is", printable(of));
        return no(what, by_account.to_owned());
    }
    if let Some(code) = image.billing.product_codes.first() {
        let what = format!(
            "{id} has the Marketplace's code {}, and EC2 makes no such image public",
            printable(code)
        );
        return no(what, by_account.to_owned());
    }
    let ec2 = account.calls();
    let asked = async || ec2.inner().public_images().await;
    let access = ec2.call("GetImageBlockPublicAccessState", asked).await?;
    if !access.blocked() {
        return Ok(());
    }
    let state = printable(&access.state).into_owned();
    let ends = match access.by_policy {
        true => "a policy of the organisation blocks it, and only that can end it".to_owned(),
        false => format!(
            "whoever administers the account ends the block of the Region, for all its images: `aws ec2 \
             disable-image-block-public-access --region {region}`, which may take EC2 10 minutes"
        ),
    };
    no(
        format!("the account blocks public access to images in {region} ({state})"),
        format!("{by_account}; or {ends}"),
    )
}

impl Common {
    /// Looks, does it, and tells.
    async fn carry_out(
        &self,
        global: &Global,
        change: impl AsyncFnOnce(&Account, &ImageView) -> Result<Change, Error>,
        act: impl AsyncFn(&Account, &Change) -> Result<(), Ec2Error>,
    ) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let (image, _) = own(&account, &self.image).await?;
        let change = change(&account, &image).await?;
        let id = &self.image;
        if change.already {
            say(&format!("{id}: nothing had to be changed"));
        } else if self.dry_run {
            say(&format!("{id} would be changed: it {}", change.done));
        } else {
            act(&account, &change).await?;
            if self.output == Output::Text {
                print(id.as_str());
            }
            say(&format!("{id} {}", change.done));
        }
        if self.output == Output::Json {
            // As it is now.
            let image = if change.already || self.dry_run { image } else { own(&account, id).await?.0 };
            let of = OfImage {
                changed: !change.already,
                accounts: change.accounts,
                ..OfImage::of(&image, &account.region)
            };
            print_document(&Document::of(change.command, self.dry_run, vec![of], Exit::Ok))?;
        }
        Ok(Exit::Ok)
    }

    async fn permit(&self, global: &Global, permission: Permission, named: &[String]) -> Result<Exit, Error> {
        let add = permission == Permission::Add;
        let change = async |account: &Account, image: &ImageView| {
            let ec2 = account.calls();
            if add && named.iter().any(|who| who == EVERYBODY) {
                can_be_public(account, image).await?;
            }
            let may = async || ec2.inner().launched_by(&self.image).await;
            let may = ec2.call("DescribeImageAttribute", may).await?;
            let mut accounts: Vec<String> = match add {
                true => named.iter().filter(|a| !may.contains(a)).cloned().collect(),
                false => may.into_iter().filter(|a| named.is_empty() || named.contains(a)).collect(),
            };
            accounts.sort();
            accounts.dedup();
            let what = if add { "is shared with" } else { "is no longer shared with" };
            let public = accounts.iter().any(|who| who == EVERYBODY);
            let discloses = match (public, add) {
                (false, _) => "",
                (true, true) => DISCLOSED,
                (true, false) => "; whoever has launched it has its data",
            };
            Ok(Change {
                command: if add { "share" } else { "unshare" },
                done: format!("{what} {}{discloses}", accounts.join(", ")),
                already: accounts.is_empty(),
                accounts,
            })
        };
        let act = async |account: &Account, change: &Change| {
            let ec2 = account.calls();
            let permit = async || ec2.inner().permit_launch(&self.image, permission, &change.accounts).await;
            ec2.call("ModifyImageAttribute", permit).await
        };
        self.carry_out(global, change, act).await
    }

    async fn disable(&self, global: &Global, disable: bool) -> Result<Exit, Error> {
        let change = async |_: &Account, image: &ImageView| {
            let (command, done) = match disable {
                true => ("disable", "is disabled: nothing is launched from it, and nobody else sees it"),
                false => ("enable", "is enabled; whom it was shared with, EC2 has forgotten"),
            };
            let already = (image.state == "disabled") == disable;
            Ok(Change { command, done: done.to_owned(), already, accounts: Vec::new() })
        };
        let act = async |account: &Account, _: &Change| {
            let ec2 = account.calls();
            let action = if disable { "DisableImage" } else { "EnableImage" };
            ec2.call(action, async || ec2.inner().disable(&self.image, disable).await).await
        };
        self.carry_out(global, change, act).await
    }
}

impl Share {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        self.common.permit(global, Permission::Add, &who(&self.account, self.public)).await
    }
}

impl Unshare {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        self.common.permit(global, Permission::Remove, &who(&self.account, self.public)).await
    }
}

impl Disable {
    pub(super) async fn run(&self, global: &Global, disable: bool) -> Result<Exit, Error> {
        self.common.disable(global, disable).await
    }
}

impl Deprecate {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let image = &self.common.image;
        let change = async |_: &Account, image: &ImageView| {
            let done = match self.from {
                Some(from) => format!("is deprecated from {from} on"),
                None => "is not deprecated, nor going to be".to_owned(),
            };
            let already = image.deprecated_from.map(|t| t.as_second()) == self.from.map(|t| t.as_second());
            Ok(Change { command: "deprecate", done, already, accounts: Vec::new() })
        };
        let act = async |account: &Account, _: &Change| {
            let ec2 = account.calls();
            let action = if self.never { "DisableImageDeprecation" } else { "EnableImageDeprecation" };
            ec2.call(action, async || ec2.inner().deprecate(image, self.from).await).await
        };
        self.common.carry_out(global, change, act).await
    }
}
