//! `stillpoint restore --clean-up`: the restores of this host whose time is over.
//!
//! In: what this host remembers, the time. Out: they are taken back, as by `--undo`; and units run again that a restore in
//! place has stopped and was killed before it started them. Must never: take back one that was made for no time, or one in
//! place; or leave the others because one stays.

use std::path::Path;
use std::time::Duration;

use super::super::sets::Account;
use super::super::{Global, Output, print_document, say};
use super::document::{Document, OfRestore, VERSION};
use super::{Restore, locked, unread};
use crate::config::{Loaded, Overrides};
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::restore::carry_out::Here;
use crate::restore::in_place::Stage;
use crate::restore::record::{self, Record};
use crate::restore::undo::over;

/// So long another restore, or an undo, may take.
const WAIT: Duration = Duration::from_secs(600);

/// Restores in place that keep units stopped or masked.
fn keeping_units(state_dir: &Path) -> Result<Vec<Record>, Error> {
    let mut all = Vec::new();
    for id in record::all(state_dir).map_err(unread)? {
        // What cannot be read is told by whoever looks whose time is over.
        let Ok(Some(known)) = record::read(state_dir, &id) else { continue };
        if known.plan.in_place.is_some() && known.moving.keeps_units() {
            all.push(known);
        }
    }
    Ok(all)
}

impl Restore {
    async fn units_of_the_killed(&self, loaded: &Loaded) -> Result<Exit, Error> {
        let state_dir = &loaded.settings.state_dir;
        let mut exit = Exit::Ok;
        if keeping_units(state_dir)?.is_empty() {
            return Ok(exit);
        }
        // Whoever is at it has this lock.
        let _lock = locked(&loaded.settings.run_dir, WAIT).await?;
        let mut account = None;
        for mut record in keeping_units(state_dir)? {
            let id = record.plan.id.clone();
            if matches!(record.moving.stage, Stage::Forth | Stage::Back) {
                say(&format!(
                    "restore {id} was killed while it exchanged volumes, and its units are stopped: --continue {id} goes \
                     on, --undo {id} puts the old volumes back"
                ));
                exit = Exit::After;
                continue;
            }
            say(&format!("restore {id} was killed, and has left units stopped"));
            if self.dry_run {
                continue;
            }
            if account.is_none() {
                account = Some(Account::connected(loaded.clone(), true).await?);
            }
            let Some(account) = &account else { continue };
            match self.units_of_killed(account, &mut record).await {
                Ok(left) if left.is_empty() => say("they are started"),
                Ok(_) => exit = Exit::After,
                Err(stays) => {
                    say(&stays.render());
                    exit = Exit::After;
                }
            }
        }
        Ok(exit)
    }

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
        exit = exit.or_worse(self.units_of_the_killed(&loaded).await?);
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
