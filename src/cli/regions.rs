//! The Regions that a command looks at: one, several by name, or all of the account.
//!
//! In: `--region`, `--all-regions`. Out: what each has, and what became of those that cannot be asked. Must never:
//! leave a Region out without saying so.

use super::sets::Account;
use super::{Global, say};
use crate::config;
use crate::ec2::keep::Keep as _;
use crate::error::Error;
use crate::exit::Exit;

/// A Region that did not answer.
pub(super) struct Failed {
    pub region: String,
    pub error: Error,
}

/// What the Regions have, and those that did not answer.
pub(super) struct Looked<T> {
    pub answers: Vec<T>,
    pub failed: Vec<Failed>,
}

/// The Regions that are meant; none for the one that the configuration or IMDS says.
pub(super) async fn meant(global: &Global, all: bool) -> Result<Vec<Option<String>>, Error> {
    if !all {
        let mut named: Vec<Option<String>> = global.region.iter().cloned().map(Some).collect();
        named.sort();
        named.dedup();
        return Ok(if named.is_empty() { vec![None] } else { named });
    }
    let first = global.region.first().map(String::as_str);
    let account = Account::connect_in(global, first, None, false).await?;
    let ec2 = account.calls();
    let regions = ec2.call("DescribeRegions", async || ec2.inner().regions().await).await;
    let mut regions = regions.map_err(Error::from)?;
    regions.retain(|region| config::is_region(region));
    regions.sort();
    Ok(regions.into_iter().map(Some).collect())
}

/// Looks at each. Where none of them answers, that is the error.
pub(super) async fn each<T>(
    global: &Global,
    meant: Vec<Option<String>>,
    look: impl AsyncFn(&Account) -> Result<T, Error>,
    needs_instance: bool,
) -> Result<Looked<T>, Error> {
    let mut looked = Looked { answers: Vec::new(), failed: Vec::new() };
    for region in meant {
        let said = match Account::connect_in(global, region.as_deref(), None, needs_instance).await {
            Ok(account) => look(&account).await,
            Err(e) => Err(e),
        };
        match said {
            Ok(answer) => looked.answers.push(answer),
            Err(error) => looked.failed.push(Failed { region: region.unwrap_or_default(), error }),
        }
    }
    let none = looked.answers.is_empty() && !looked.failed.is_empty();
    let first = none.then(|| looked.failed.remove(0));
    looked.failed.iter().for_each(tell);
    first.map_or(Ok(looked), |first| Err(first.error))
}

/// Says that a Region did not answer.
pub(super) fn tell(failed: &Failed) {
    say(&format!("NOT LOOKED AT, {}: {}", failed.region, failed.error.render()));
}

/// The code where some Regions did not answer.
pub(super) fn told(failed: &[Failed]) -> Exit {
    if failed.is_empty() { Exit::Ok } else { Exit::After }
}
