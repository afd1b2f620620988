//! What pages have of the code's own lists: keys, exit codes, variables, files, commands.
//!
//! In: a directive of a page's text, such as `{exit 0 10}`. Out: entries. Must never: know anything that the lists do
//! not say.

use super::environment::VARIABLES;
use super::page::{Page, Span, literal, text};
use super::text::ended;
use crate::config::reference::{Key, sentence, tables};
use crate::config::{DROP_IN_DIRS, MAIN_FILE, RUN_DIR, STATE_DIR};
use crate::exit::Exit;

/// Carries out a directive. None where there is no such thing.
pub(super) fn directive(page: &mut Page, cli: &clap::Command, words: &[&str]) -> Option<()> {
    match words {
        ["exit"] => Exit::ALL.iter().for_each(|exit| code(page, *exit)),
        ["exit", codes @ ..] => {
            for word in codes {
                code(page, Exit::try_from(word.parse::<u8>().ok()?).ok()?);
            }
        }
        ["environment"] => {
            for (title, variables) in VARIABLES {
                page.subsection(title);
                for (name, meaning) in *variables {
                    page.entry(vec![literal(*name)], meaning);
                }
            }
        }
        ["files"] => files(page),
        ["configuration"] => {
            let drop_ins = DROP_IN_DIRS.iter().map(|dir| format!("/{dir}/*.toml"));
            let all = std::iter::once(format!("/{MAIN_FILE}")).chain(drop_ins);
            page.lines(all.map(|file| vec![literal(file)]));
        }
        ["drop-ins"] => page.lines(DROP_IN_DIRS.iter().map(|dir| vec![literal(format!("/{dir}/*.toml"))])),
        ["commands", names @ ..] => {
            for name in names {
                let about = cli.find_subcommand(name)?.get_about()?.to_string();
                page.entry(page_of(name), &ended(&about));
            }
        }
        ["keys", id] => {
            let tables = tables();
            for key in &tables.iter().find(|table| table.id == *id)?.keys {
                page.entry(vec![literal(key.name)], &meaning(key));
            }
        }
        _ => return None,
    }
    Some(())
}

/// The page of a command, as other pages name it.
pub(super) fn page_of(command: &str) -> Vec<Span> {
    vec![literal(format!("stillpoint-{command}")), text("(8)")]
}

fn code(page: &mut Page, exit: Exit) {
    page.entry(vec![literal(exit.code().to_string())], &format!("{}.", sentence(exit.meaning())));
}

fn meaning(key: &Key) -> String {
    let kind = sentence(key.kind);
    let default = match key.default {
        "not set" => "not set by default".to_owned(),
        // `required for …`, `none: it has to be there`
        words if words.starts_with("required") => words.replacen("required", "has to be there", 1),
        words if words.starts_with("none") => "has to be there".to_owned(),
        words => format!("default: {words}"),
    };
    format!("{}.\n\n*{kind}*; {default}.", sentence(key.meaning))
}

fn files(page: &mut Page) {
    let drop_ins = DROP_IN_DIRS.map(|dir| format!("/{dir}/*.toml")).join(", ");
    let all: [(String, String); 11] = [
        (format!("/{MAIN_FILE}"), "The configuration: stillpoint.toml(5).".to_owned()),
        (drop_ins, "Drop-ins of the configuration.".to_owned()),
        (
            RUN_DIR.to_owned(),
            "Lock, journals and notes of runs, on a memory filesystem (`run_dir`, `--run-dir`).".to_owned(),
        ),
        (
            format!("{RUN_DIR}/runs/*.json"),
            "What a run that goes on may have frozen, unmounted or stopped. Whoever comes after a run that died undoes \
             it by this file, and removes it."
                .to_owned(),
        ),
        (
            STATE_DIR.to_owned(),
            "What outlives a reboot, for root (`state_dir`, `--state-dir`).".to_owned(),
        ),
        (format!("{STATE_DIR}/sets/*.json"), "The record of each run that was to take a set.".to_owned()),
        (format!("{STATE_DIR}/clones/*.json"), "The record of each run of `clone`.".to_owned()),
        (
            format!("{STATE_DIR}/restores/*.json"),
            "What this host has restored, and how far that is. Removed once it is taken back.".to_owned(),
        ),
        (
            "stillpoint@.timer, stillpoint@.service".to_owned(),
            "Take a set of the plan that is their instance name, such as `stillpoint@default.timer`, every day."
                .to_owned(),
        ),
        (
            "stillpoint-prune@.timer, stillpoint-verify@.timer, stillpoint-verify-restore@.timer".to_owned(),
            "Prune and verify the sets of a plan.".to_owned(),
        ),
        ("stillpoint-clean-up.timer".to_owned(), "Takes back restores whose time is over.".to_owned()),
    ];
    for (path, what) in all {
        page.entry(vec![literal(path)], &what);
    }
}
