//! What the documentation names exists: commands and their options, links and their headings, files of the packages, exit
//! codes. Keys of the configuration and the shipped examples have tests of their own ([`crate::config`]).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::Cli;
use crate::exit::Exit;

/// Options of other programs that the documentation names by themselves.
const OF_OTHERS: &[&str] = &[
    "--cgroup-parent",
    "--cgroupns",
    "--keep-within",
    "--mount",
    "--now",
    "--pid",
    "--privileged",
    "--release",
    "--sets",
    "--skip-slave-start",
    "--workspace",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each page, by its path.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md"].iter().map(|p| root().join(p)).collect();
    paths.extend(std::fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path()));
    let pages = paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "md"));
    pages.map(|p| (p.clone(), std::fs::read_to_string(&p).unwrap())).collect()
}

/// Code: spans of the prose, and lines of blocks with those that a backslash continues.
fn code(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut prose, mut lines, mut block) = (String::new(), Vec::new(), false);
    let mut continued = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
            continue;
        }
        if !block {
            prose += line;
            prose.push(' ');
            continue;
        }
        let (content, goes_on) = match line.strip_suffix('\\') {
            Some(content) => (content, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some(last) if continued => {
                let last: &mut String = last;
                last.push_str(content);
            }
            _ => lines.push(content.to_owned()),
        }
        continued = goes_on;
    }
    let spans = prose.replace("``", "").split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (spans, lines)
}

/// The words of a command line of stillpoint's, without a comment, a pipe, or a command that it runs. None: it is none.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ").trim_start_matches("# ").trim_start_matches("sudo ");
    let rest = line.strip_prefix("stillpoint ").or_else(|| line.strip_prefix("/usr/bin/stillpoint "))?;
    let mut words = Vec::new();
    for word in rest.split_whitespace() {
        if matches!(word, "--" | "|" | "&&" | "||" | ";" | "&" | "…" | "÷") || word.starts_with(['#', '>'])
        {
            break;
        }
        words.push(word.trim_matches(['[', ']', '`', ',', ';', '"', '\'', '(', ')', '.']).to_owned());
    }
    Some(words)
}

fn options(command: &clap::Command) -> BTreeSet<String> {
    let longs = command.get_arguments().flat_map(|a| a.get_long_and_visible_aliases().unwrap_or_default());
    let mut all: BTreeSet<String> = longs.map(|long| format!("--{long}")).collect();
    all.extend(["--help".to_owned(), "--version".to_owned()]);
    all
}

fn every(command: &clap::Command, into: &mut BTreeSet<String>) {
    into.extend(options(command));
    command.get_subcommands().for_each(|sub| every(sub, into));
}

#[test]
fn each_command_and_option_of_the_documentation_exists() {
    let mut cli = Cli::command();
    cli.build();
    let mut all = BTreeSet::new();
    every(&cli, &mut all);
    let (mut wrong, mut commands) = (Vec::new(), 0);
    for (path, text) in pages() {
        let (spans, lines) = code(&text);
        for line in spans.iter().chain(&lines) {
            let Some(words) = words(line) else { continue };
            let mut command = &cli;
            let mut rest = words.as_slice();
            while let [first, more @ ..] = rest
                && let Some(sub) = command.find_subcommand(first)
            {
                (command, rest) = (sub, more);
            }
            let of_none = std::ptr::eq(command, &raw const cli);
            let plain = words.first().is_some_and(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            // What is no command line: output such as `stillpoint 0.1.0`, and sentences.
            if of_none && words.first().is_some_and(|w| !w.starts_with("--") && !plain) {
                continue;
            }
            if of_none && plain && !words[0].starts_with("--") {
                wrong.push(format!("{}: no such command: {line}", path.display()));
                continue;
            }
            commands += 1;
            let known = options(command);
            for option in rest.iter().filter(|w| w.starts_with("--")) {
                let name = option.split('=').next().unwrap();
                if !known.contains(name) {
                    wrong.push(format!("{}: {} has no {name}: {line}", path.display(), command.get_name()));
                }
            }
        }
        for span in spans.iter().filter(|s| s.starts_with("--")) {
            let name: String = span.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if name.len() > 2 && !all.contains(&name) && !OF_OTHERS.contains(&name.as_str()) {
                wrong.push(format!("{}: no command has {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(commands > 200, "{commands}: the documentation is not read as it should be");
}

/// As forges make them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut block, mut seen, mut all) = (false, BTreeMap::<String, usize>::new(), BTreeSet::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        }
        let Some(heading) = line.strip_prefix('#').filter(|_| !block) else { continue };
        let heading = heading.trim_start_matches('#').trim();
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        let anchor = kept.replace(' ', "-");
        let n = seen.entry(anchor.clone()).or_default();
        all.insert(if *n == 0 { anchor } else { format!("{anchor}-{n}") });
        *n += 1;
    }
    all
}

#[test]
fn each_link_of_the_documentation_leads_somewhere() {
    let (mut wrong, mut links) = (Vec::new(), 0);
    for (path, text) in pages() {
        let mut block = false;
        let mut prose = String::new();
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                block = !block;
            } else if !block {
                prose += line;
                prose.push('\n');
            }
        }
        // A link in code is none.
        let prose: String = prose.split('`').step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let Ok(target_is) = target.metadata() else {
                wrong.push(format!("{}: {link}: no such file", path.display()));
                continue;
            };
            let Some(anchor) = anchor else { continue };
            let there =
                target_is.is_file() && anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor);
            if !there {
                wrong.push(format!("{}: {link}: no such heading", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links > 150, "{links}: the documentation is not read as it should be");
}

/// Where a package puts a file of the repository.
fn source_of(installed: &str) -> Option<PathBuf> {
    let places = [
        ("/usr/share/stillpoint/hooks", "packaging/hooks"),
        ("/usr/share/stillpoint/package-managers", "packaging/package-managers"),
        ("/usr/share/doc/stillpoint/examples", "packaging/examples"),
    ];
    let (from, to) = places.iter().find(|(from, _)| installed.starts_with(from))?;
    Some(root().join(format!("{to}{}", &installed[from.len()..])))
}

#[test]
fn each_path_of_the_documentation_exists() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (path, text) in pages() {
        let (spans, lines) = code(&text);
        for word in
            spans.iter().chain(&lines).flat_map(|line| line.split([' ', '=', '"', '\'', ',', ';', '(', ')']))
        {
            let word = word.trim_start_matches("file://").trim_end_matches(['.', ':', '/']);
            let own = ["scripts/", "packaging/", "tests/", "src/", "systemd/", "docs/"]
                .iter()
                .any(|p| word.starts_with(p));
            let at = match source_of(word) {
                Some(at) => at,
                None if own => root().join(word),
                None => continue,
            };
            if word.contains(['*', '…', '<', '{', '$']) || word.contains("NAME") {
                continue;
            }
            found += 1;
            if !at.exists() {
                wrong.push(format!("{}: {word} is not there", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 60, "{found}: the documentation is not read as it should be");
}

#[test]
fn each_exit_code_of_the_documentation_exists() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (path, text) in pages() {
        for before in ["exit code ", "Exit code ", "(exit ", "with code ", "exit status "] {
            for rest in text.split(before).skip(1) {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let Ok(code) = digits.parse::<u8>() else { continue };
                found += 1;
                if !Exit::ALL.iter().any(|exit| exit.code() == code) {
                    wrong.push(format!("{}: {before}{code}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 20, "{found}: the documentation is not read as it should be");
}
