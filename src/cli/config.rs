//! `stillpoint config show|check`.
//!
//! In: the configuration files. Out: every value with its origin, or every fault. Must never: need EC2 or
//! IMDS.

use std::path::Path;

use clap::{Args, Subcommand};

use super::{Choice, Global, Output, print, print_json, say};
use crate::config::{check, not_read};
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::path_encoding::shown;

#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every value of a plan and where it comes from.
    Show(Choice),
    /// Check every file and every plan.
    Check,
}

impl Config {
    pub(super) fn run(&self, global: &Global) -> Result<Exit, Error> {
        match &self.command {
            Command::Show(choice) => {
                let loaded = choice.load(global)?;
                match choice.output {
                    Output::Text => print(&loaded.show()),
                    Output::Json => print_json(&format!("{:#}", loaded.show_json())),
                }
                for path in loaded.not_read() {
                    say(&format!("warning: {} is not read: needs root", shown(path)));
                }
                Ok(Exit::Ok)
            }
            Command::Check => {
                let checked = check(Path::new("/"), global.config.as_deref()).map_err(|e| {
                    let hint = e.hint();
                    Error::new(Exit::Config, e).maybe_hint(hint)
                })?;
                print(&checked.show());
                for fault in &checked.faults {
                    say(&format!("error: {}", chain(fault)));
                    if let Some(hint) = fault.hint() {
                        say(&format!("hint: {hint}"));
                    }
                }
                let mut exit = if checked.faults.is_empty() { Exit::Ok } else { Exit::Config };
                for path in not_read(&checked.files) {
                    say(&format!("error: {} is not checked: needs root", shown(path)));
                    exit = exit.or_worse(Exit::Permission);
                }
                Ok(exit)
            }
        }
    }
}
