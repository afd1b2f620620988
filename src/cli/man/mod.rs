//! `stillpoint man --dir DIR`: the manual pages, for whoever packages this program.
//!
//! ```text
//! clap's definition ─┐
//! pages/*.md         ├▶ command.rs ─▶ page.rs ─▶ DIR/man8/stillpoint*.8, DIR/man5/stillpoint.toml.5
//! exit codes, keys…  ┘   reference.rs
//! ```
//!
//! In: what the program knows of itself, SOURCE_DATE_EPOCH. Out: files below a folder. Must never: depend on the day, the
//! machine or the configuration.

mod command;
mod environment;
mod page;
mod reference;
mod text;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};

use self::page::Page;
use self::text::Text;
use crate::error::Error;
use crate::exit::Exit;
use crate::path_encoding::shown;

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder that gets man8 and man5, such as /usr/local/share/man.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> Result<Exit, Error> {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
        for (path, page) in pages(&date(epoch.as_deref())?) {
            let path = self.dir.join(path);
            write(&path, &page).map_err(|e| {
                Error::new(Exit::Usage, format!("cannot write {}: {e}", shown(&path)))
                    .hint("name a folder that you may write to")
            })?;
        }
        Ok(Exit::Ok)
    }
}

fn write(path: &Path, page: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::write(path, page)
}

/// The day of the sources, which a build says by SOURCE_DATE_EPOCH (reproducible-builds.org); else none, since the day
/// on which a page is made says nothing.
fn date(epoch: Option<&str>) -> Result<String, Error> {
    let Some(said) = epoch else { return Ok(String::new()) };
    let time = said.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let wrong = || Error::new(Exit::Usage, "SOURCE_DATE_EPOCH is no number of seconds since 1970");
    Ok(time.ok_or_else(wrong)?.strftime("%Y-%m-%d").to_string())
}

/// The command line, with the names of all of its commands.
fn built() -> clap::Command {
    let mut cli = super::Cli::command();
    cli.build();
    cli
}

/// Every page: where it is below a folder of manual pages, and its text.
fn pages(date: &str) -> Vec<(String, String)> {
    let cli = built();
    let mut all = Vec::new();
    let mut main = Page::new("stillpoint", "8", date);
    command::write(&mut main, &cli, &cli, &Text::of(include_str!("pages/stillpoint.md")));
    all.push(("man8/stillpoint.8".to_owned(), main.finish()));
    for sub in command::visible(&cli) {
        let name = format!("stillpoint-{}", sub.get_name());
        let mut page = Page::new(&name, "8", date);
        command::write(&mut page, &cli, sub, &Text::of(written(sub.get_name())));
        all.push((format!("man8/{name}.8"), page.finish()));
    }
    all.push(("man5/stillpoint.toml.5".to_owned(), configuration(&cli, date)));
    all
}

fn configuration(cli: &clap::Command, date: &str) -> String {
    let written = Text::of(include_str!("pages/stillpoint.toml.md"));
    let mut page = Page::new("stillpoint.toml", "5", date);
    page.section("Name");
    page.lines([vec![page::text("stillpoint.toml - configuration of stillpoint")]]);
    page.section("Synopsis");
    command::body(&mut page, cli, "{configuration}");
    for (title, text) in std::iter::once(("Description", written.description)).chain(written.sections()) {
        page.section(title);
        command::body(&mut page, cli, text);
    }
    page.section("See also");
    page.markdown(&written.see_also(cli));
    page.finish()
}

macro_rules! texts {
    ($($name:literal)*) => {
        /// What a person has written of a command; nothing of one that is new.
        fn written(command: &str) -> &'static str {
            match command {
                $($name => include_str!(concat!("pages/", $name, ".md")),)*
                _ => "",
            }
        }
    };
}
texts! {
    "snapshot" "before" "clone" "plan" "list" "show" "verify" "restore" "image" "wait" "prune" "keep" "release" "delete"
    "undelete" "copy" "share" "unshare" "lock" "unlock" "tier" "rehearse" "freeze" "thaw" "status" "doctor"
    "iam-policy" "config"
}
