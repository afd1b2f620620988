//! Each page says all that the program knows, is right, and can be read at 80 columns.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Parser as _;

use super::environment::VARIABLES;
use super::page::reference;
use super::text::Text;
use super::{Man, built, command, date, pages, written};
use crate::config::reference::tables;
use crate::exit::Exit;

const DATE: &str = "2025-01-31";

/// The page without what roff reads: `\-` and the fonts.
fn plain(page: &str) -> String {
    let mut text = page.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\\\", "\\");
    for font in ["\\fB", "\\fI", "\\fR"] {
        text = text.replace(font, "");
    }
    text
}

fn page(name: &str) -> String {
    pages(DATE).into_iter().find(|(path, _)| path.ends_with(&format!("/{name}"))).expect(name).1
}

/// The text of every page by its name, with its Markdown.
fn texts() -> Vec<(String, &'static str)> {
    let mut all = vec![
        ("stillpoint".to_owned(), include_str!("pages/stillpoint.md")),
        ("stillpoint.toml".to_owned(), include_str!("pages/stillpoint.toml.md")),
    ];
    all.extend(command::visible(&built()).map(|sub| (sub.get_name().to_owned(), written(sub.get_name()))));
    all
}

#[test]
fn every_command_has_a_page_of_its_own_and_stands_once_on_the_first_one() {
    let cli = built();
    let names: Vec<_> = command::visible(&cli).map(|sub| sub.get_name().to_owned()).collect();
    assert!(names.len() > 25 && !names.contains(&"man".to_owned()), "{names:?}");
    let listed =
        include_str!("pages/stillpoint.md").lines().filter_map(|line| line.strip_prefix("{commands "));
    let mut listed: Vec<_> =
        listed.flat_map(|line| line.trim_end_matches('}').split(' ').map(str::to_owned)).collect();
    let mut sorted = names.clone();
    sorted.sort();
    listed.sort();
    assert_eq!(listed, sorted);
    let first = plain(&page("stillpoint.8"));
    for name in &names {
        assert!(written(name).len() > 100, "{name} has no text");
        assert!(first.contains(&format!("stillpoint-{name}(8)")), "{name}");
        page(&format!("stillpoint-{name}.8"));
    }
}

#[test]
fn every_option_and_argument_is_on_the_page_of_its_command() {
    fn look(command: &clap::Command, page: &str, looked: &mut usize) {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            let name = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_value_names().unwrap()[0].to_string(),
            };
            // As a term of its own, not only in the text of another one.
            let is_term = page.lines().collect::<Vec<_>>().windows(2).any(|two| {
                let words = two[1].split([' ', ',', '.']).collect::<Vec<_>>();
                two[0] == ".TP" && words.contains(&name.as_str())
            });
            assert!(is_term, "{name} of {}", command.get_name());
            *looked += 1;
        }
        command::visible(command).for_each(|sub| look(sub, page, looked));
    }
    let cli = built();
    let mut looked = 0;
    for sub in command::visible(&cli) {
        look(sub, &plain(&page(&format!("stillpoint-{}.8", sub.get_name()))), &mut looked);
    }
    assert!(looked > 300, "{looked}");
}

#[test]
fn every_exit_code_variable_signal_and_key_is_on_its_page() {
    let main = plain(&page("stillpoint.8"));
    for exit in Exit::ALL {
        assert!(main.contains(&format!("\n.TP\n{}\n", exit.code())), "{exit:?}");
    }
    for (_, variables) in VARIABLES {
        for (name, _) in *variables {
            assert!(main.contains(&format!("\n.TP\n{name}\n")), "{name}");
        }
    }
    for signal in ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] {
        assert!(include_str!("../../interrupt.rs").contains(&format!("Signal::{signal}")), "{signal}");
        assert!(main.contains(signal), "{signal}");
    }
    let of_keys = plain(&page("stillpoint.toml.5"));
    let tables = tables();
    for key in tables.iter().flat_map(|table| &table.keys) {
        assert!(of_keys.contains(&format!("\n.TP\n{}\n", key.name)), "{key:?}");
    }
    let terms = of_keys.matches("\n.TP\n").count();
    assert_eq!(terms, tables.iter().map(|table| table.keys.len()).sum::<usize>(), "a table stands twice");
}

/// What the sources read, the page names; what the page names, the sources or the AWS SDK read.
#[test]
fn the_variables_of_the_page_are_those_that_are_read() {
    const BY_THE_SDK: [&str; 3] =
        ["AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
    fn sources(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && name != "man" && name != "tests" {
                sources(&path, into);
            } else if path.extension().is_some_and(|x| x == "rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push_str(text.split("#[cfg(test)]").next().unwrap());
            }
        }
    }
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let is_name = |word: &str| {
        word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let mut read: BTreeSet<&str> = BTreeSet::new();
    for (at, _) in text.match_indices('"') {
        let word = text[at + 1..].split('"').next().unwrap();
        let asked = ["env::var(", "env::var_os(", "env.get(", "env.os(", "env.has("]
            .iter()
            .any(|call| text[..at].ends_with(call));
        let telling =
            ["AWS_", "SSL_CERT_"].iter().any(|start| word.starts_with(start)) || word.ends_with("_PROXY");
        if is_name(word) && (asked || telling) {
            read.insert(word);
        }
    }
    let named: BTreeSet<&str> =
        VARIABLES.iter().flat_map(|(_, all)| all.iter().map(|(name, _)| *name)).collect();
    let missing: Vec<_> = read.iter().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "read, and not on the page: {missing:?}");
    let known = |name: &&&str| BY_THE_SDK.contains(*name) || text.contains(&format!("\"{name}\""));
    let unread: Vec<_> = named.iter().filter(|name| !known(name)).collect();
    assert!(unread.is_empty(), "on the page, and not read: {unread:?}");
    assert!(read.len() > 25, "{read:?}");
}

/// The lines of the examples of a text.
fn examples(text: &str) -> Vec<String> {
    let section = Text::of(text).section("Examples").unwrap_or_default().to_owned();
    let joined = section.replace("\\\n", "");
    joined.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

#[test]
fn every_example_is_understood() {
    let mut parsed = 0;
    for (name, text) in texts().into_iter().filter(|(name, _)| name != "stillpoint.toml") {
        let own = examples(text).into_iter().filter(|line| {
            let line =
                line.strip_prefix("run=$(").and_then(|l| l.strip_suffix(')')).unwrap_or(line).to_owned();
            let Some(words) = shlex::split(&line).filter(|words| words[0] == "stillpoint") else {
                return false;
            };
            let words =
                words.iter().map(|w| if w == "$run" { "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11" } else { w });
            let words: Vec<_> = words.collect();
            let cli = super::super::Cli::try_parse_from(&words);
            assert!(cli.is_ok(), "{name}: {line}: {}", cli.unwrap_err());
            parsed += 1;
            words.get(1) == Some(&name.as_str())
        });
        assert!(name == "stillpoint" || own.count() > 0, "{name} has no example of its own");
    }
    assert!(parsed > 50, "{parsed}");
}

#[test]
fn the_example_of_the_configuration_is_one() {
    let text = examples(include_str!("pages/stillpoint.toml.md")).join("\n");
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("stillpoint.toml");
    std::fs::write(&file, &text).unwrap();
    let checked = crate::config::check(root.path(), Some(&file)).unwrap();
    assert!(text.contains("[plan.db]") && checked.faults.is_empty(), "{:?}", checked.faults);
}

/// The forms that a person has written have options of that command, and its arguments.
#[test]
fn every_form_of_a_synopsis_is_of_its_command() {
    let cli = built();
    for (name, text) in texts() {
        let Some(forms) = Text::of(text).section("Synopsis") else { continue };
        let sub = cli.find_subcommand(&name).unwrap();
        for form in forms.lines().map(str::trim).filter(|form| !form.is_empty()) {
            let words: Vec<_> =
                form.split([' ', '[', ']', '.']).filter(|word| !word.is_empty() && *word != "--").collect();
            assert_eq!(words[..2], ["stillpoint", &name], "{form}");
            for word in &words[2..] {
                let is_option = |a: &clap::Arg| a.get_long().is_some_and(|long| *word == format!("--{long}"));
                let is_value = |a: &clap::Arg| {
                    a.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == *word))
                };
                let known = sub.get_arguments().any(|a| is_option(a) || is_value(a));
                assert!(known || ["OPTIONS", "SET"].contains(word), "{word} of: {form}");
            }
        }
    }
}

#[test]
fn every_page_that_is_named_is_there() {
    let all = pages(DATE);
    let ours: BTreeSet<String> =
        all.iter().map(|(path, _)| path.rsplit_once('/').unwrap().1.to_owned()).collect();
    let mut named = 0;
    for (path, page) in &all {
        let text = plain(page);
        for line in text.lines() {
            let mut rest = line;
            while let Some((start, name, after)) = reference(rest) {
                let section = &rest[after - 2..after - 1];
                let file = format!("{name}.{section}");
                assert!(!name.starts_with("stillpoint") || ours.contains(&file), "{path}: {file}");
                assert!(start <= after);
                named += 1;
                rest = &rest[after..];
            }
        }
        assert!(!text.contains("no such page"), "{path}");
    }
    assert!(named > 200, "{named}");
}

/// Markdown, rustdoc, and how clap writes defaults have no place on a page.
#[test]
fn nothing_of_how_the_texts_are_written_is_left() {
    for (path, page) in pages(DATE) {
        let text = plain(&page);
        for line in text.lines() {
            for left in
                ["`", "](", "**", "[default:", "[env:", "[possible", "{exit", "{keys", "{commands", "::"]
            {
                assert!(!line.contains(left), "{path}: {left} in: {line}");
            }
        }
        assert!(page.is_ascii(), "{path}");
    }
}

#[test]
fn a_page_is_the_same_every_day() {
    assert_eq!(pages(DATE), pages(DATE));
    let dated: Vec<_> = pages(DATE).into_iter().filter(|(_, page)| page.contains(DATE)).collect();
    assert_eq!(dated.len(), pages(DATE).len());
    for (path, page) in pages("") {
        let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        assert!(title.contains(" \"\" ") && !title.contains("20"), "{path}: {title}");
    }
}

#[test]
fn the_pages_are_written_where_man_looks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("share/man");
    Man { dir: dir.clone() }.run().unwrap();
    for (path, _) in pages(DATE) {
        assert!(std::fs::read_to_string(dir.join(&path)).unwrap().contains(".SH NAME"), "{path}");
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let said = Man { dir: folder.path().join("file") }.run().unwrap_err();
    assert!(said.to_string().contains("cannot write") && said.exit == Exit::Usage, "{said}");
}

#[test]
fn the_day_is_that_of_the_sources_or_none() {
    assert_eq!(date(None).unwrap(), "");
    assert_eq!(date(Some("1738281600")).unwrap(), "2025-01-31");
    for wrong in ["", "yesterday", "99999999999999999"] {
        assert_eq!(date(Some(wrong)).unwrap_err().exit, Exit::Usage, "{wrong}");
    }
}

/// Runs a program of the host over a page; none where the host has no such program.
fn through(program: &str, arguments: &[&str], page: &str) -> Option<(String, String)> {
    let child = Command::new(program)
        .args(arguments)
        .env("MANWIDTH", "80")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => {
            println!("skipped: {program} cannot be started: {e}");
            return None;
        }
    };
    let mut input = child.stdin.take().unwrap();
    let page = page.to_owned();
    let writer = std::thread::spawn(move || input.write_all(page.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    Some((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// groff and mandoc find nothing to warn of, and no line is wider than a terminal.
#[test]
fn every_page_is_rendered_at_80_columns_without_a_warning() {
    for (path, page) in pages(DATE) {
        for device in ["utf8", "ascii"] {
            let arguments = ["-ww", "-mandoc", &format!("-T{device}"), "-P-cbou", "-rLL=80n"];
            if let Some((shown, warned)) = through("groff", &arguments, &page) {
                assert_eq!(warned, "", "{path} on {device}");
                assert!(shown.lines().count() > 20, "{path}: {shown}");
                for line in shown.lines() {
                    assert!(line.chars().count() <= 80, "{path} on {device}: {line}");
                }
            }
        }
        if let Some((lint, _)) = through("mandoc", &["-T", "lint", "-W", "warning"], &page) {
            let told: Vec<_> =
                lint.lines().filter(|line| !line.contains("referenced manual not found")).collect();
            assert!(told.is_empty(), "{path}: {told:#?}");
        }
        // What whatis(1) says of it.
        let file = tempfile::Builder::new().suffix(".8").tempfile().unwrap();
        std::fs::write(file.path(), &page).unwrap();
        if let Some((name, _)) = through("lexgrog", &[file.path().to_str().unwrap()], "") {
            let expected = path.rsplit_once('/').unwrap().1.rsplit_once('.').unwrap().0;
            assert!(name.contains(&format!("\"{expected} - ")), "{path}: {name}");
        }
    }
}
