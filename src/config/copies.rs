//! `[[plan.NAME.copy]]`: where the sets of a plan are copied to, and the checks of the same values as flags.
//!
//! In: a list of tables. Out: [`CopySettings`], each complete. Must never: let a key through that is of another
//! Region than its copy, or a Region twice: its second copy would be the first one.

use std::time::Duration;

use super::check::{self, Fault};
use super::error::ConfigError;
use super::input::{Input as _, input};
use super::node::Node;
use super::settings::CopySettings;

/// EC2 takes whole quarters of an hour, from one to two days (EC2 API reference, CopySnapshot).
const QUARTER: Duration = Duration::from_secs(15 * 60);
const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

input! {
    /// One destination.
    CopyInput {
        /// Region, as in `"eu-west-1"` | required | where to; the set's own Region too | `"eu-west-1"`
        region: String = |n: &Node<'_>| n.checked(check::region);
        /// true or false | `false`, or `true` with a `key` | what is not encrypted is encrypted, with the
        /// account's default key there | `true`
        encrypt: bool = Node::flag;
        /// KMS key: id, ARN or `"alias/NAME"` | not set | the key to encrypt with, of that Region |
        /// `"alias/backup"`
        key: String = |n: &Node<'_>| n.checked(kms_key);
        /// time, 15 min to 48 h in steps of 15 min | not set | EC2 is to be done within this time, for a
        /// higher price | `"4h"`
        within: Duration = |n: &Node<'_>| n.checked(within);
    } per_entry {}
}

/// Reads the list.
pub(super) fn read(node: &Node<'_>) -> Result<Vec<CopySettings>, ConfigError> {
    let mut all: Vec<CopySettings> = Vec::new();
    for element in node.elements()? {
        let input = CopyInput::read(&element.table_as(format!("[[{}]]", element.key))?)?;
        let fault = |problem: &str, hint: &str| Err(element.fault(Fault::new(problem).hint(hint)));
        let Some(region) = input.region.map(|r| r.value) else {
            return fault("has no `region`", "write region = \"eu-west-1\"");
        };
        if all.iter().any(|other| other.region == region) {
            return fault(&format!("has the Region {region} twice"), "leave one of them out");
        }
        let encrypt = input.encrypt.as_ref().map(|e| e.value);
        let key = input.key.map(|k| k.value);
        if key.is_some() && encrypt == Some(false) {
            return fault("has a `key`, and `encrypt` is false", "leave `encrypt` out: a key encrypts");
        }
        if let Some(key) = &key
            && let Err(why) = of_region(key, &region)
        {
            return Err(element.fault(why));
        }
        let encrypt = encrypt.unwrap_or(key.is_some());
        all.push(CopySettings { region, encrypt, key, within: input.within.map(|w| w.value) });
    }
    Ok(all)
}

/// A KMS key, as EC2 takes it: an id, an alias, or the ARN of one of the two.
///
/// # Errors
/// When it is neither.
pub(crate) fn kms_key(text: &str) -> Result<String, Fault> {
    let local = match text.strip_prefix("arn:") {
        // arn:PARTITION:kms:REGION:ACCOUNT:key/ID
        Some(rest) => {
            let parts: Vec<&str> = rest.splitn(5, ':').collect();
            match parts.as_slice() {
                [partition, "kms", region, account, key]
                    if partition.starts_with("aws")
                        && check::region(region).is_ok()
                        && account.len() == 12
                        && account.bytes().all(|b| b.is_ascii_digit()) =>
                {
                    key.strip_prefix("key/").or(key.starts_with("alias/").then_some(*key))
                }
                _ => None,
            }
        }
        None => Some(text),
    };
    let hex = |t: &str| t.bytes().all(|b| b.is_ascii_hexdigit());
    let good = local.is_some_and(|local| match local.strip_prefix("alias/") {
        Some(name) => {
            (1..=250).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-'))
        }
        // A key in several Regions has `mrk-` and no dashes.
        None => match local.strip_prefix("mrk-") {
            Some(id) => id.len() == 32 && hex(id),
            None => uuid::Uuid::try_parse(local).is_ok() && local.len() == 36,
        },
    });
    if good {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("is `{text}`, which is no KMS key"))
        .hint("write its id, its ARN or alias/NAME, of the Region that is copied to"))
}

/// Is this key, where it names a Region, of this one?
///
/// # Errors
/// When it is not.
pub(crate) fn of_region(key: &str, region: &str) -> Result<(), Fault> {
    match key.split(':').nth(3) {
        Some(of) if of != region => {
            Err(Fault::new(format!("has a key of {of}, and copies to {region} need one of {region}"))
                .hint("name the key of that Region, or an alias that both Regions have"))
        }
        _ => Ok(()),
    }
}

/// A time that EC2 takes for a time-based copy.
///
/// # Errors
/// When it is none of them.
pub(crate) fn within(text: &str) -> Result<Duration, Fault> {
    let time = check::duration(text)?;
    let quarters = time.as_secs() / QUARTER.as_secs();
    if time >= QUARTER
        && time <= TWO_DAYS
        && QUARTER.saturating_mul(u32::try_from(quarters).unwrap_or(0)) == time
    {
        return Ok(time);
    }
    Err(Fault::new(format!(
        "is {}, and EC2 takes 15m to 48h in steps of 15m",
        humantime::format_duration(time)
    ))
    .hint("such as 15m, 2h or 4h"))
}
