//! `stillpoint config show|check|default`.
//!
//! In: the configuration files. Out: every value with its origin, or every fault; a file with every key in a
//! comment. Must never: need EC2 or IMDS.

use std::path::Path;

use clap::{Args, Subcommand};

use super::{Choice, Global, Output, print, print_json, say};
use crate::config::{Loaded, check, not_read, reference};
use crate::ec2::sdk::Sdk;
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
    Check(Check),
    /// Print a file with every key in a comment, with its meaning and default.
    Default,
}

#[derive(Debug, Args)]
struct Check {
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Config {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        match &self.command {
            Command::Show(choice) => {
                let loaded = choice.load(global)?;
                show(loaded.clone(), choice.output).await?;
                for path in loaded.not_read() {
                    say(&format!("warning: {} is not read: needs root", shown(path)));
                }
                Ok(Exit::Ok)
            }
            Command::Default => {
                print(&reference::commented());
                Ok(Exit::Ok)
            }
            Command::Check(Check { output }) => {
                let checked = check(Path::new("/"), global.config.as_deref()).map_err(|e| {
                    let hint = e.hint();
                    Error::new(Exit::Config, e).maybe_hint(hint)
                })?;
                let mut exit = if checked.faults.is_empty() { Exit::Ok } else { Exit::Config };
                if not_read(&checked.files).next().is_some() {
                    exit = exit.or_worse(Exit::Permission);
                }
                match output {
                    Output::Text => print(&checked.show()),
                    Output::Json => print_json(&format!("{:#}", checked.show_json(exit))),
                }
                for fault in &checked.faults {
                    say(&format!("error: {}", chain(fault)));
                    if let Some(hint) = fault.hint() {
                        say(&format!("hint: {hint}"));
                    }
                }
                for path in not_read(&checked.files) {
                    say(&format!("error: {} is not checked: needs root", shown(path)));
                }
                Ok(exit)
            }
        }
    }
}

/// Prints the settings, and how AWS is reached with them.
async fn show(mut loaded: Loaded, output: Output) -> Result<(), Error> {
    let found = Sdk::find(&loaded).await;
    if let Ok(sdk) = &found {
        sdk.overlay(&mut loaded);
    }
    let region = loaded.settings.identity.region.clone();
    let aws = match &found {
        Ok(sdk) if output == Output::Json => sdk.show_json(region.as_deref()).await.map(Aws::Json),
        Ok(sdk) => sdk.show(region.as_deref()).await.map(Aws::Text),
        Err(_) => Ok(Aws::Text(String::new())),
    };
    let (shown, failed) = match aws {
        Ok(aws) => (aws, found.as_ref().err().map(|e| (e.to_string(), e.hint.clone()))),
        Err(e) => (Aws::Text(String::new()), Some((e.to_string(), e.hint))),
    };
    match (output, shown) {
        (Output::Text, Aws::Text(aws)) => print(&(loaded.show() + &aws)),
        (_, aws) => {
            let mut all = loaded.show_json();
            if let Aws::Json(aws) = aws {
                all["aws"] = aws;
            }
            print_json(&format!("{all:#}"));
        }
    }
    for warning in found.iter().flat_map(|sdk| &sdk.warnings) {
        say(&format!("warning: {warning}"));
    }
    match failed {
        Some((what, hint)) => Err(Error::new(Exit::Config, what).hint(hint)),
        None => Ok(()),
    }
}

enum Aws {
    Text(String),
    Json(serde_json::Value),
}
