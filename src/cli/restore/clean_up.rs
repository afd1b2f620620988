//! `stillpoint restore --clean-up`: the restores of this host whose time is over.
//!
//! In: what this host remembers, the time. Out: they are taken back, as by `--undo`. Must never: take back one that was made
//! for no time, or one in place; or leave the others because one stays.

use std::time::Duration;

use super::super::sets::Account;
use super::super::{Global, Output, print_document, say};
use super::document::{Document, OfRestore, VERSION};
use super::{Restore, locked, unread};
use crate::config::Overrides;
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::restore::carry_out::Here;
use crate::restore::undo::over;

/// So long another restore, or an undo, may take.
const WAIT: Duration = Duration::from_secs(600);

impl Restore {
    pub(super) async fn take_back_what_is_over(
        &self,
        global: &Global,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let loaded = global.load(None, Overrides::default())?;
        let on = Here { root: "/".as_ref(), state_dir: &loaded.settings.state_dir };
        let over = || over(on, jiff::Timestamp::now()).map_err(unread);
        let (mut exit, mut all) = (Exit::Ok, Vec::new());
        let (some, unread) = over()?;
        for what in unread {
            say(&what);
            exit = Exit::After;
        }
        let plans;
        // Most often there is nothing, and nobody has to be asked.
        if !some.is_empty() {
            let account = Account::connected(loaded.clone(), true).await?;
            let _lock = locked(&account.loaded.settings.run_dir, WAIT).await?;
            // Somebody may have taken it back meanwhile.
            plans = over()?.0;
            for plan in &plans {
                let id = &plan.id;
                say(&format!("the time of restore {id} is over"));
                if self.dry_run {
                    all.push(OfRestore::of(plan, None, "there"));
                    continue;
                }
                let state = match self.back(&account, id, interrupt).await {
                    Ok(()) => {
                        say("nothing is left of it");
                        "gone"
                    }
                    Err(stays) => {
                        say(&stays.render());
                        exit = Exit::After;
                        "there"
                    }
                };
                all.push(OfRestore::of(plan, None, state));
            }
        }
        if self.output == Output::Json {
            print_document(&Document {
                version: VERSION,
                command: "clean-up",
                restores: all,
                exit_code: exit,
            })?;
        }
        Ok(exit)
    }
}
