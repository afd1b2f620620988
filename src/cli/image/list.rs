//! `stillpoint image list`: the images of sets.
//!
//! In: a Region, a set. Out: a table, or JSON. Must never: call an image one of a set because a tag says so.

use std::collections::BTreeMap;

use clap::Args;

use super::document::{Document, OfImage};
use crate::cli::regions::{each, meant, told};
use crate::cli::sets::{Account, SetName, set_name};
use crate::cli::{Global, Output, print, print_document, say};
use crate::ec2::images::{ImageView, Images as _, WhichImages};
use crate::ec2::keep::Wanted;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{RunId, SnapshotId};
use crate::image::ours::stranger;
use crate::report;
use crate::sets::find::find;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this set: the start of its id, or one of its snapshots.
    #[arg(long, value_name = "SET", value_parser = set_name)]
    set: Option<SetName>,
    /// In every Region of the account, instead of one. (--region can be repeated, too.)
    #[arg(long, conflicts_with = "set")]
    all_regions: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// An image that has the tag of a set, and why it is none of it.
pub(crate) struct Listed {
    pub image: ImageView,
    pub region: String,
    pub doubt: Option<String>,
}

impl List {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let look = async |account: &Account| self.look(account).await;
        let looked = each(global, meant(global, self.all_regions).await?, look, false).await?;
        let exit = told(&looked.failed);
        let mut all: Vec<Listed> = looked.answers.into_iter().flatten().collect();
        // Newest first.
        all.sort_by(|a, b| (b.image.created, &a.image.id).cmp(&(a.image.created, &b.image.id)));
        if self.output == Output::Json {
            let of = |l: &Listed| OfImage {
                notes: l.doubt.clone().into_iter().collect(),
                ..OfImage::of(&l.image, &l.region)
            };
            print_document(&Document::of("list", false, all.iter().map(of).collect(), exit))?;
        } else if all.is_empty() {
            say("there is no image of a set");
        } else {
            print(&report::image::table(
                &all.iter().map(|l| (&l.image, l.region.as_str())).collect::<Vec<_>>(),
            ));
        }
        for Listed { image, doubt, .. } in &all {
            if let Some(doubt) = doubt {
                say(&format!("{} has the tag of a set, but {doubt}", image.id));
            }
        }
        Ok(exit)
    }

    async fn look(&self, account: &Account) -> Result<Vec<Listed>, Error> {
        let only = match &self.set {
            Some(name) => Some(account.set(name).await?.id),
            None => None,
        };
        let ec2 = account.calls();
        let asked = async || ec2.inner().own_images(&WhichImages::OfSets).await;
        let mut images = ec2.call("DescribeImages", asked).await?;
        images.retain(|i| only.as_ref().is_none_or(|set| i.set().as_ref() == Some(set)));
        let ids: Vec<SnapshotId> =
            images.iter().flat_map(|i| &i.mappings).filter_map(|m| m.snapshot.clone()).collect();
        let mut of_sets: BTreeMap<RunId, Vec<SnapshotId>> = BTreeMap::new();
        for some in ids.chunks(200) {
            for set in find(&ec2, &Wanted::Ids(some.to_vec())).await?.sets {
                of_sets.entry(set.id.clone()).or_default().extend(set.snapshots().cloned());
            }
        }
        let doubt = |image: &ImageView| {
            let Some(set) = image.set() else { return Some("that is no set's id".to_owned()) };
            stranger(image, &set, of_sets.get(&set).into_iter().flatten())
        };
        let listed =
            |image: ImageView| Listed { doubt: doubt(&image), region: account.region.clone(), image };
        Ok(images.into_iter().map(listed).collect())
    }
}
