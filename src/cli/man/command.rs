//! The page of a command: what clap knows of it, and what a person has written beside it.
//!
//! In: the command as clap has it, the text of its page. Out: the page. Must never: say of an option anything but what
//! `--help` says.

use clap::{Arg, Command};

use super::page::{Font, Page, Span, literal, placeholder, text};
use super::reference::directive;
use super::text::{Text, ended, first_sentence};
use crate::config::reference::sentence;

/// The sections in their order; what a text has besides comes after the options.
const LAST: [&str; 5] = ["Exit status", "Files", "Environment", "Examples", "See also"];

/// Writes the page of a command. `name` is how it is called, such as `stillpoint image`.
pub(super) fn write(page: &mut Page, cli: &Command, command: &Command, written: &Text<'_>) {
    page.section("Name");
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.lines([vec![text(format!("{name} - {}", in_name(&first_sentence(&about))))]]);
    page.section("Synopsis");
    let forms: Vec<_> = match written.section("Synopsis") {
        Some(forms) => forms.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect(),
        None => usage(command),
    };
    page.lines(forms.iter().map(|form| synopsis(form)));
    page.section("Description");
    body(page, cli, written.description);
    arguments(page, command);
    let subs: Vec<_> = visible(command).collect();
    if !subs.is_empty() && command.get_name() != cli.get_name() {
        page.section("Commands");
        for sub in subs {
            page.subsection(&without_angles(&usage(sub).join(" ")));
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            page.markdown(&ended(&about));
            for argument in sub.get_arguments().filter(|a| !a.is_global_set() && a.get_id() != "help") {
                entry(page, argument);
            }
        }
    }
    for (title, of_section) in written.others(&LAST) {
        page.section(title);
        body(page, cli, of_section);
    }
    page.section("Exit status");
    match written.section("Exit status") {
        Some(of_section) => body(page, cli, of_section),
        None => {
            page.markdown("0 when it is done. Other codes mean the same for every command: stillpoint(8).")
        }
    }
    for title in ["Files", "Environment", "Examples"] {
        if let Some(of_section) = written.section(title) {
            page.section(title);
            body(page, cli, of_section);
        }
    }
    page.section("See also");
    page.markdown(&written.see_also(cli));
}

/// The commands below this one that have a page, or are on its page.
pub(super) fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// Text with directives: a paragraph in braces.
pub(super) fn body(page: &mut Page, cli: &Command, written: &str) {
    let mut plain = String::new();
    for block in written.split("\n\n") {
        let words = block.trim().strip_prefix('{').and_then(|b| b.strip_suffix('}'));
        match words {
            Some(words) => {
                page.markdown(&std::mem::take(&mut plain));
                let words: Vec<_> = words.split_whitespace().collect();
                if directive(page, cli, &words).is_none() {
                    page.markdown(block);
                }
            }
            None => {
                plain.push_str(block);
                plain.push_str("\n\n");
            }
        }
    }
    page.markdown(&plain);
}

/// A sentence as it stands behind a name: it goes on with a small letter.
fn in_name(about: &str) -> String {
    let about = about.replace('`', "");
    let mut letters = about.chars();
    match (letters.next(), about.chars().nth(1)) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => about,
    }
}

/// How it is used, a line each, as clap says it.
fn usage(command: &Command) -> Vec<String> {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start().strip_prefix("Usage:").unwrap_or(&usage).to_owned();
    usage.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// A line of usage as pages have it: `<SET>` is SET, and what else clap has in angle brackets is a choice.
fn without_angles(form: &str) -> String {
    let mut plain = String::new();
    let mut rest = form;
    while let Some(open) = rest.find('<') {
        plain.push_str(&rest[..open]);
        rest = &rest[open + 1..];
        match rest.find(['<', '>']) {
            Some(end) if rest[end..].starts_with('>') && !rest.starts_with('-') => {
                plain.push_str(&rest[..end]);
                rest = &rest[end + 1..];
            }
            _ => plain.push('{'),
        }
    }
    plain.push_str(rest);
    plain.replace('>', "}")
}

/// A line of usage: what is typed is bold, what stands for something is italic.
fn synopsis(form: &str) -> Vec<Span> {
    let plain = without_angles(form);
    let font = |c: char, last: Font| match c {
        'A'..='Z' => match last {
            Font::Bold => Font::Bold,
            _ => Font::Italic,
        },
        'a'..='z' | '-' => match last {
            Font::Italic => Font::Italic,
            _ => Font::Bold,
        },
        '0'..='9' | '_' => last,
        _ => Font::Roman,
    };
    let mut spans: Vec<Span> = Vec::new();
    let mut last = Font::Roman;
    for c in plain.chars() {
        last = font(c, last);
        match spans.last_mut().filter(|(font, _)| *font == last) {
            Some((_, piece)) => piece.push(c),
            None => spans.push((last, c.to_string())),
        }
    }
    spans
}

/// The arguments, then the options: first those without a heading, those of every command last.
fn arguments(page: &mut Page, command: &Command) {
    let shown: Vec<_> = command.get_arguments().filter(|a| !a.is_hide_set()).collect();
    let (positional, options): (Vec<_>, Vec<_>) = shown.into_iter().partition(|a| a.is_positional());
    if !positional.is_empty() {
        page.section("Arguments");
        positional.into_iter().for_each(|argument| entry(page, argument));
    }
    page.section("Options");
    let mut headings: Vec<Option<&str>> = vec![None];
    for option in &options {
        if !headings.contains(&option.get_help_heading()) {
            headings.push(option.get_help_heading());
        }
    }
    headings.sort_by_key(|heading| *heading == Some(crate::cli::HEADING));
    for heading in headings {
        if let Some(title) = heading {
            page.subsection(title);
        }
        let of_heading = options.iter().filter(|option| option.get_help_heading() == heading);
        of_heading.for_each(|option| entry(page, option));
    }
}

fn entry(page: &mut Page, argument: &Arg) {
    let values = || {
        let names = argument.get_value_names().unwrap_or_default();
        let several = argument.get_num_args().is_some_and(|n| n.max_values() > names.len());
        let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        (names, several)
    };
    let mut term: Vec<Span> = Vec::new();
    term.extend(argument.get_short().map(|short| literal(format!("-{short}"))));
    if let Some(long) = argument.get_long() {
        if !term.is_empty() {
            term.push(text(", "));
        }
        term.push(literal(format!("--{long}")));
    }
    if argument.is_positional() || argument.get_action().takes_values() {
        if !term.is_empty() {
            term.push(text(" "));
        }
        let (names, several) = values();
        term.push(placeholder(names));
        if several {
            term.push(text("..."));
        }
    }
    page.entry(term, &meaning(argument));
    let explained = possible(argument).filter_map(|value| {
        let help = value.get_help()?.to_string();
        Some((vec![literal(value.get_name())], ended(&sentence(&help))))
    });
    let explained: Vec<_> = explained.collect();
    if !explained.is_empty() {
        page.entries(explained);
    }
}

fn possible(argument: &Arg) -> impl Iterator<Item = clap::builder::PossibleValue> {
    let takes = argument.get_action().takes_values();
    argument.get_possible_values().into_iter().filter(move |value| takes && !value.is_hide_set())
}

/// What `--help` says of an argument, in whole sentences.
fn meaning(argument: &Arg) -> String {
    match argument.get_id().as_str() {
        "help" => return "Print a summary of this page.".to_owned(),
        "version" => return "Print the version; with `--version`, also of which build it is.".to_owned(),
        _ => {}
    }
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let (help, notes) = without_notes(&help);
    let mut out = ended(help);
    let defaults = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
    let shown = argument.get_action().takes_values() && !argument.is_hide_default_value_set();
    let defaults = defaults.filter(|_| shown).collect::<Vec<_>>().join(", ");
    if !defaults.is_empty() {
        out.push_str(&format!(" Default: {defaults}."));
    }
    for (name, value) in notes {
        match name {
            "env" => out.push_str(&format!(" The environment variable `{value}` says the same.")),
            _ => out.push_str(&format!(" Default: {value}.")),
        }
    }
    // Values that are explained are listed below, those that the text names are there already.
    let bare: Vec<_> = possible(argument).filter(|value| value.get_help().is_none()).collect();
    let names: Vec<_> = bare.iter().map(|value| value.get_name()).collect();
    if !names.is_empty() && !names.iter().all(|name| help.contains(name)) {
        out.push_str(&format!(" One of `{}`", names.join("`, `")));
        out.push_str(if possible(argument).count() > names.len() { ", and of these:" } else { "." });
    }
    out
}

/// The text, and what it has at its end in square brackets, as clap itself writes defaults.
fn without_notes(help: &str) -> (&str, Vec<(&'static str, &str)>) {
    let mut help = help.trim_end().trim_end_matches('.');
    let mut notes = Vec::new();
    while let Some(inner) = help.strip_suffix(']') {
        let found = ["default", "env"].into_iter().find_map(|name| {
            let open = inner.rfind(&format!("[{name}: "))?;
            Some((name, open, &inner[open + name.len() + 3..]))
        });
        let Some((name, open, value)) = found else { break };
        notes.insert(0, (name, value));
        help = help[..open].trim_end();
    }
    (help, notes)
}
