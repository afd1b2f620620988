//! What is looked at before a restore makes anything: words of the command line, the host, the permission.
//!
//! In: text, a plan. Out: leave to go on, or an error. Must never: change anything.

use super::super::sets::Account;
use super::Restore;
use crate::ec2::volumes::Volumes as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::restore::plan::{Reach, RestorePlan};
use crate::restore::stack::Keys;
use crate::restore::{copy_out, disks, grow, identity, mounts};

/// Such as `us-east-1a` or `use1-az1`: letters, digits, hyphens.
pub(super) fn zone(text: &str) -> Result<String, String> {
    let good = (5..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { Ok(text.to_ascii_lowercase()) } else { Err("is not an Availability Zone".to_owned()) }
}

/// A unit's name: no option of systemctl, no pattern.
pub(super) fn unit(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let is =
        text.len() < 256 && text.contains('.') && !text.starts_with(['-', '.']) && text.bytes().all(good);
    if is { Ok(text.to_owned()) } else { Err("is not a unit, such as postgresql.service".to_owned()) }
}

impl Restore {
    /// What opens LUKS, where there is some.
    pub(super) fn keys(&self, plan: &RestorePlan) -> Result<Keys, Error> {
        let keys = Keys::open(&self.key_file)
            .map_err(|what| Error::new(Exit::Config, format!("--key-file: {what}")))?;
        if plan.stack.luks && keys.is_none() {
            return Err(Error::new(Exit::Config, "the set has LUKS, and there is no key to open it")
                .hint("--key-file FILE, which root alone can read; or at a terminal, which is asked"));
        }
        Ok(keys)
    }

    /// Everything that can be known before a volume is made.
    pub(super) async fn check(&self, account: &Account, plan: &RestorePlan) -> Result<(), Error> {
        if plan.reach != Reach::Volumes {
            disks::can_be_told("/".as_ref()).map_err(|what| {
                Error::new(Exit::Config, what).hint("--no-attach makes the volumes; attach them by hand")
            })?;
        }
        if plan.reach == Reach::Mounted {
            if !plan.read_only {
                for filesystem in &plan.filesystems {
                    identity::has_tool(&filesystem.fstype).map_err(|what| Error::new(Exit::Config, what))?;
                    let grown = plan.volumes.get(filesystem.volume).is_some_and(|v| v.grown_from.is_some());
                    if plan.grow && grown {
                        grow::has_tool(&filesystem.fstype).map_err(|what| Error::new(Exit::Config, what))?;
                    }
                }
            }
            self.keys(plan)?;
            plan.stack.has_tools().map_err(|what| Error::new(Exit::Config, what))?;
            mounts::check_target(&plan.to)
                .map_err(|what| Error::new(Exit::Config, what).hint("--to names another folder"))?;
        }
        if let Some(into) = &self.of_copy.into {
            copy_out::check_into(into)
                .map_err(|what| Error::new(Exit::Config, what).hint("--into names another folder"))?;
        }
        self.can_warm(account, plan).await?;
        may_create(account, plan).await
    }
}

/// Does EC2 allow every volume of the plan?
pub(in crate::cli) async fn may_create(account: &Account, plan: &RestorePlan) -> Result<(), Error> {
    let ec2 = account.calls();
    for number in 0..plan.volumes.len() {
        let Some(request) = plan.request(number) else { continue };
        let may = async || ec2.inner().may_create_volume(&request).await;
        ec2.call("DryRun", may).await.map_err(Error::from)?;
    }
    Ok(())
}
