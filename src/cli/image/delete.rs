//! `stillpoint image delete AMI`: an image of a set is deregistered, alone or with its set.
//!
//! In: the id of an image. Out: it is gone; and its set, where that is asked for. Must never: deregister an image that is
//! of no set, or take a set with it that something else holds.

use clap::Args;

use super::document::{Document, OfImage, OfSnapshot};
use super::own;
use crate::cli::delete::guarded;
use crate::cli::prune::locked;
use crate::cli::sets::Account;
use crate::cli::{Global, Output, print, print_document, say};
use crate::ec2::images::{ImageView, Images as _};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::ImageId;
use crate::report::{self, event};
use crate::sets::remove::{Removed, remove};
use crate::sets::set::SnapshotSet;

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Such as ami-0123456789abcdef0.
    image: ImageId,
    /// With its snapshots, which are its set: under the guards of `delete`.
    #[arg(long)]
    with_snapshots: bool,
    /// Also when that is the last good set of its plan.
    #[arg(long, requires = "with_snapshots")]
    including_the_last: bool,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text (what is gone) or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Delete {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let _lock = locked(&account.loaded.settings.run_dir).await?;
        let (image, set) = own(&account, &self.image).await?;
        let id = &self.image;
        if self.with_snapshots {
            guarded(&account, &set, self.including_the_last, std::slice::from_ref(id)).await?;
        }
        if self.dry_run {
            let more = if self.with_snapshots { format!(", and {} removed", set.id) } else { String::new() };
            say(&format!(
                "{id} ({}) would be deregistered{more}",
                crate::path_encoding::printable(&image.name)
            ));
            return self.tell(&account, &image, &set, None, Exit::Ok);
        }
        let ec2 = account.calls();
        if !self.with_snapshots {
            let off = async || ec2.inner().deregister(id, false).await;
            ec2.call("DeregisterImage", off).await?;
            if self.output == Output::Text {
                print(id.as_str());
            }
            say(&format!("{id} is deregistered; {} is as it was", set.id));
            return self.tell(&account, &image, &set, None, Exit::Ok);
        }
        let removed = remove(&ec2, &set, "image delete", std::slice::from_ref(id)).await;
        let exit = if removed.failed.is_some() { Exit::After } else { Exit::Ok };
        if self.output == Output::Text {
            removed.images.iter().for_each(|i| print(i.as_str()));
            removed.deleted.iter().for_each(|s| print(s.as_str()));
        }
        report::log::tell(&event::of_removed(&set.plan, &removed));
        say(&report::sets::removed(&removed));
        self.tell(&account, &image, &set, Some(&removed), exit)
    }

    fn tell(
        &self,
        account: &Account,
        image: &ImageView,
        set: &SnapshotSet,
        removed: Option<&Removed>,
        exit: Exit,
    ) -> Result<Exit, Error> {
        if self.output == Output::Json {
            let gone = !self.dry_run && removed.is_none_or(|r| r.images.contains(&image.id));
            let failed = removed.and_then(|r| r.failed.as_ref());
            let one = |id: &crate::ids::SnapshotId| {
                let deleted = removed.is_some_and(|r| r.deleted.contains(id));
                let why =
                    failed.filter(|f| f.snapshot.as_ref().is_none_or(|s| s == id)).map(|f| f.why.clone());
                let code =
                    removed.and_then(|r| r.codes.iter().find(|(s, _)| s == id)).map(|(_, c)| c.clone());
                let result = match deleted {
                    true => code.unwrap_or_else(|| "success".to_owned()),
                    false => why.or(code).unwrap_or_else(|| "planned".to_owned()),
                };
                OfSnapshot { id: id.clone(), deleted, result }
            };
            let snapshots = if self.with_snapshots { set.snapshots().map(one).collect() } else { Vec::new() };
            let of = OfImage {
                state: if gone { "deregistered".to_owned() } else { image.state.clone() },
                changed: gone || self.dry_run,
                error: failed.filter(|_| !gone).map(|f| f.why.clone()),
                snapshots,
                ..OfImage::of(image, &account.region)
            };
            print_document(&Document::of("delete", self.dry_run, vec![of], exit))?;
        }
        Ok(exit)
    }
}
