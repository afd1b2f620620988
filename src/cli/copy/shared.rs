//! A copy in another account: the set is shared with it, it copies, and the share is taken back.
//!
//! In: a set, an account. Out: what was added to its permissions, or nothing. Must never: take back a permission that
//! was there before.

use crate::cli::say;
use crate::cli::sets::Account;
use crate::error::Error;
use crate::exit::Exit;
use crate::sets::copy::source::Source;
use crate::sets::guard::members;
use crate::sets::share::{self, Shared, Step};

/// Lets the account use every snapshot of the set. What was added.
///
/// # Errors
/// When it cannot be shared. Then it is as it was, as far as EC2 allows.
pub(super) async fn lend(account: &Account, source: &Source, with: &str) -> Result<Vec<Step>, Error> {
    let ec2 = account.calls();
    let with = [with.to_owned()];
    let members = members(&ec2, &source.set).await.map_err(Error::from)?;
    if let Some(refusal) = share::refusal(&source.set, &members, &with, None) {
        return Err(Error::new(Exit::Config, refusal.what).hint(refusal.hint));
    }
    let steps = share::to_add(&ec2, &members, &with).await.map_err(Error::from)?;
    match share::share(&ec2, steps).await {
        Shared::Tried(done) => {
            let (good, bad): (Vec<_>, Vec<_>) = done.into_iter().partition(|(_, said)| said.is_ok());
            let added: Vec<Step> = good.into_iter().map(|(s, _)| s).filter(|s| !s.who.is_empty()).collect();
            match bad.into_iter().find_map(|(_, said)| said.err()) {
                None => Ok(added),
                Some(error) => {
                    take_back(account, added).await;
                    Err(error.into())
                }
            }
        }
        Shared::DefaultKey(id, back) => {
            tell_still(&back);
            let what = format!("{id} has the account's default key (alias/aws/ebs), which is never shared");
            Err(Error::new(Exit::Config, what).hint(
                "copy the set under a customer managed key first (`stillpoint copy --to REGION --key KEY`), and that \
                 copy to the other account",
            ))
        }
    }
}

/// Takes it back. False when it still is.
pub(super) async fn take_back(account: &Account, added: Vec<Step>) -> bool {
    let done = share::unshare(&account.calls(), added).await;
    tell_still(&done)
}

/// True when nothing is left.
fn tell_still(done: &[share::Outcome]) -> bool {
    let mut good = true;
    for (step, said) in done {
        if let Err(e) = said {
            good = false;
            say(&format!("{} is STILL shared with {}: {e}", step.id, step.who.join(", ")));
        }
    }
    good
}
