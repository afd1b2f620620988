//! `stillpoint share SET` and `unshare SET`: other accounts may use its snapshots, or no longer.
//!
//! In: the name of a set, accounts. Out: permissions on its snapshots. Must never: make anything public unless the
//! command line says twice that it is meant.

use clap::Args;

use super::sets::{Account, SetName, set_name};
use super::told::{Change, Command, Told, tell};
use super::{Global, Output, say};
use crate::ec2::keep::{EVERYBODY, Keep as _};
use crate::error::Error;
use crate::exit::Exit;
use crate::report::change::{Changed, OfSet};
use crate::sets::guard;
use crate::sets::set::SnapshotSet;
use crate::sets::share::{self, Outcome, Shared, Step};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("with").required(true).multiple(true)))]
pub(super) struct Share {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Account of 12 digits; several with commas between them, or repeated.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = account_id, group = "with")]
    account: Vec<String>,
    /// Everybody: any AWS account there is can read all data of the set, and copy it for good.
    #[arg(long, requires = "yes_anybody_may_read_it", group = "with")]
    public: bool,
    /// Needed with --public: that anybody may read all data of the set is meant.
    #[arg(long, requires = "public")]
    yes_anybody_may_read_it: bool,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Unshare {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Only from this account of 12 digits; several with commas between them, or repeated.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = account_id)]
    account: Vec<String>,
    /// Only from everybody: accounts that were named keep it.
    #[arg(long)]
    public: bool,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// An AWS account.
pub(super) fn account_id(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err("is not an account's id of 12 digits, such as 123456789012".to_owned())
}

/// Each once.
pub(super) fn who(accounts: &[String], public: bool) -> Vec<String> {
    let mut who = accounts.to_vec();
    who.extend(public.then(|| EVERYBODY.to_owned()));
    who.sort();
    who.dedup();
    who
}

impl Share {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let command = Command { name: "share", dry_run: self.dry_run, output: self.output };
        let with = who(&self.account, self.public);
        let members = guard::members(&ec2, &set).await.map_err(Error::from)?;
        let blocked = if self.public {
            let asked = async || ec2.inner().public_access().await;
            Some(ec2.call("GetSnapshotBlockPublicAccessState", asked).await.map_err(Error::from)?)
        } else {
            None
        };
        if let Some(refusal) = share::refusal(&set, &members, &with, blocked.as_deref()) {
            return Err(Error::new(Exit::Config, refusal.what).hint(refusal.hint));
        }
        let steps = share::to_add(&ec2, &members, &with).await.map_err(Error::from)?;
        if !set.missing.is_empty() {
            say(&format!(
                "{} lacks {} of its snapshots: it is shared without them",
                set.id,
                set.missing.len()
            ));
        }
        if self.dry_run {
            return would(&command, &set, steps, "would be shared with");
        }
        let exit = match share::share(&ec2, steps).await {
            Shared::Tried(done) => told(&command, &set, done, "is shared with", "is NOT shared with")?,
            Shared::DefaultKey(id, back) => {
                let still: Vec<Outcome> = back.into_iter().filter(|(_, said)| said.is_err()).collect();
                for (step, said) in &still {
                    let why = said.as_ref().err().map(ToString::to_string).unwrap_or_default();
                    say(&format!("{} is STILL shared with {}: {why}", step.id, step.who.join(", ")));
                }
                let what =
                    format!("{id} has the account's default key (alias/aws/ebs), which is never shared");
                let exit = if still.is_empty() { Exit::Config } else { Exit::After };
                return Err(Error::new(exit, what).hint(
                    "copy the set under a customer managed key (`stillpoint copy --to REGION --key KEY`), and \
                     share the copy",
                ));
            }
        };
        let mut keys: Vec<&str> = members.iter().filter_map(|s| s.detail.kms_key.as_deref()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            say(&format!("the accounts need permission for the key {key} too (its key policy)"));
        }
        Ok(exit)
    }
}

impl Unshare {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let from = who(&self.account, self.public);
        let from = (!from.is_empty()).then_some(from.as_slice());
        let steps = share::to_remove(&ec2, &set, from).await.map_err(Error::from)?;
        let command = Command { name: "unshare", dry_run: self.dry_run, output: self.output };
        if self.dry_run {
            return would(&command, &set, steps, "would no longer be shared with");
        }
        told(
            &command,
            &set,
            share::unshare(&ec2, steps).await,
            "is no longer shared with",
            "is STILL shared with",
        )
    }
}

fn would(command: &Command, set: &SnapshotSet, steps: Vec<Step>, what: &str) -> Result<Exit, Error> {
    for step in &steps {
        match step.who.as_slice() {
            [] => say(&format!("{} stays as it is", step.id)),
            who => say(&format!("{} {what} {}", step.id, who.join(", "))),
        }
    }
    let one = |Step { id, who }| Changed { accounts: who.clone(), ..Changed::would(&id, !who.is_empty()) };
    command.print(vec![OfSet::of(set, steps.into_iter().map(one).collect())], Exit::Ok)
}

fn told(
    command: &Command,
    set: &SnapshotSet,
    done: Vec<Outcome>,
    good: &str,
    bad: &str,
) -> Result<Exit, Error> {
    let one = |(step, said): Outcome| {
        let who = step.who.join(", ");
        let change = Change { said, good: format!("{good} {who}"), bad: format!("{bad} {who}") };
        let change = (!step.who.is_empty()).then_some(change);
        Told { id: step.id, accounts: step.who, change }
    };
    tell(command, vec![(set, done.into_iter().map(one).collect())])
}
