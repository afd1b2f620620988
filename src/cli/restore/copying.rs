//! `stillpoint restore SET --copy-out PATH --into DIR`: files of a set, and nothing else stays.
//!
//! In: a set, paths in it, a folder. Out: the paths of the copies on stdout. Must never: leave a volume behind without
//! saying how it is taken back.

use std::path::PathBuf;

use clap::Args;

use super::super::sets::Account;
use super::super::start::end;
use super::super::{Output, absolute, print, print_document, say};
use super::document::{Document, OfRestore, VERSION};
use super::{Restore, error};
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::restore::carry_out::Done;
use crate::restore::copy_out;
use crate::restore::make::Stopped;
use crate::restore::plan::RestorePlan;

#[derive(Debug, Args)]
pub(super) struct OfCopy {
    /// Copy this file or folder, by its path on the host of the set, out of volumes that are deleted afterwards; can be
    /// repeated.
    #[arg(help_heading = "Files", long, value_name = "PATH", value_parser = absolute, requires = "into", conflicts_with_all = [
        "to", "mount", "read_only", "no_mount", "no_attach", "in_place", "root", "go_on", "undo", "left",
    ])]
    pub(super) copy_out: Vec<PathBuf>,
    /// Copy into this folder, which is made or empty.
    #[arg(help_heading = "Files", long, value_name = "DIR", value_parser = absolute, requires = "copy_out")]
    pub(super) into: Option<PathBuf>,
}

impl Restore {
    /// Copies, and takes the restore back, whatever came of it.
    pub(super) async fn copy_and_undo(
        &self,
        account: &Account,
        plan: &RestorePlan,
        done: &Done,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let into = self.of_copy.into.clone().unwrap_or_default();
        let copied = copy_out::copy(&plan.to, &plan.copies, &into, interrupt, &|line| say(line)).await;
        let back = self.back(account, &plan.id, &Interrupt::never()).await;
        let left = |e: Error| e.hint(format!("what is left: `stillpoint restore --undo {}`", plan.id));
        match (copied, back) {
            (Ok(copied), Ok(())) => {
                let mut of = OfRestore::of(plan, Some(done), "done");
                of.copied = copied.iter().map(|p| shown(p)).collect();
                of.mounts.clear();
                match self.output {
                    Output::Text => copied.iter().for_each(|p| print(&shown(p))),
                    Output::Json => {
                        let restores = vec![of];
                        print_document(&Document {
                            version: VERSION,
                            command: "restore",
                            restores,
                            exit_code: Exit::Ok,
                        })?;
                    }
                }
                Ok(Exit::Ok)
            }
            (Ok(_), Err(stays)) => Err(left(stays)),
            (Err(Stopped::Signal(signal)), Ok(())) => {
                say("interrupted: what was copied until then stays, and is not whole");
                Ok(end(Exit::After, Some(signal)))
            }
            (Err(stopped), Ok(())) => Err(error(stopped).hint("the volumes are gone again")),
            (Err(stopped), Err(stays)) => {
                say(&stays.render());
                Err(left(error(stopped)))
            }
        }
    }
}
