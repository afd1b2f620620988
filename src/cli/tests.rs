//! Which arguments the command line accepts; nothing is run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use super::Cli;

fn refused(arguments: &[&str]) -> ErrorKind {
    Cli::try_parse_from([&["stillpoint"], arguments].concat()).expect_err("it was taken").kind()
}

#[test]
fn the_flags_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn freeze_takes_only_what_a_freeze_needs() {
    let mut cli = Cli::command();
    let freeze = cli.find_subcommand_mut("freeze").unwrap();
    let taken: Vec<_> = freeze.get_arguments().map(|a| a.get_long().unwrap_or(a.get_id().as_str())).collect();
    let needed = [
        "plan",
        "mount",
        "volume",
        "volume-tag",
        "exclude-mount",
        "exclude-volume",
        "exclude-boot-volume",
        "allow-partial",
        "allow-pid-namespace",
        "consistency",
        "on-degraded",
        "for",
        "run",
        "dry-run",
        "output",
    ];
    assert_eq!(taken, needed);
    let help = freeze.render_long_help().to_string();
    assert!(!help.contains("--window") && !help.contains("--tag"), "{help}");
    assert_eq!(refused(&["freeze", "--for", "30s", "--window", "3s"]), ErrorKind::UnknownArgument);
    assert_eq!(refused(&["freeze", "--for", "30s", "--tag", "a=b"]), ErrorKind::UnknownArgument);
}

#[test]
fn a_freeze_needs_a_time_and_its_dry_run_none() {
    assert_eq!(refused(&["freeze"]), ErrorKind::MissingRequiredArgument);
    for arguments in [["--dry-run"].as_slice(), &["-n", "--for", "30s"], &["--for", "30s"]] {
        Cli::try_parse_from([&["stillpoint", "freeze"], arguments].concat()).unwrap();
    }
}

/// docs/json.md has each command with JSON, and no other: tests hold what each prints against its schema.
#[test]
fn every_command_with_json_has_a_schema() {
    fn with_json(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        if command.get_arguments().any(|a| a.get_long() == Some("output")) {
            found.push(name.to_owned());
        }
        for sub in command.get_subcommands() {
            with_json(sub, format!("{name} {}", sub.get_name()).trim(), found);
        }
    }
    let mut found = vec!["iam-policy".to_owned()];
    with_json(&Cli::command(), "", &mut found);
    let rows = include_str!("../../docs/json.md").lines().filter(|line| line.starts_with("| `stillpoint "));
    let commands =
        rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    let plain = |command: &str| {
        let words = command.split(' ').skip(1).take_while(|word| !word.starts_with('-'));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut documented: Vec<String> = commands.map(plain).collect();
    for list in [&mut found, &mut documented] {
        list.sort();
        list.dedup();
    }
    assert_eq!(found, documented);
}

#[test]
fn the_old_names_are_gone() {
    for arguments in [
        ["snapshot", "--endpoint", "http://x"].as_slice(),
        &["snapshot", "--no-boot-volume"],
        &["snapshot", "--on-lower", "keep"],
        &["thaw", "--recorded"],
    ] {
        assert_eq!(refused(arguments), ErrorKind::UnknownArgument, "{arguments:?}");
    }
}

#[test]
fn nothing_is_made_public_unless_that_is_said_twice_and_accounts_have_12_digits() {
    let set = "0197f3c2";
    for good in [
        ["--account", "123456789012,210987654321"].as_slice(),
        &["--account", "123456789012", "--account", "000000000001"],
        &["--public", "--yes-anybody-may-read-it"],
    ] {
        Cli::try_parse_from([&["stillpoint", "share", set], good].concat()).unwrap();
    }
    for (bad, kind) in [
        ([].as_slice(), ErrorKind::MissingRequiredArgument),
        (&["--public"], ErrorKind::MissingRequiredArgument),
        (&["--yes-anybody-may-read-it"], ErrorKind::MissingRequiredArgument),
        (&["--account", "123456789012", "--yes-anybody-may-read-it"], ErrorKind::MissingRequiredArgument),
        (&["--account", "12345678901"], ErrorKind::ValueValidation),
        (&["--account", "1234567890123"], ErrorKind::ValueValidation),
        (&["--account", "12345678901x"], ErrorKind::ValueValidation),
        (&["--account", "all"], ErrorKind::ValueValidation),
        (&["--account", "123456789012,"], ErrorKind::ValueValidation),
    ] {
        assert_eq!(refused(&[&["share", set], bad].concat()), kind, "{bad:?}");
    }
    let mut cli = Cli::command();
    let help = cli.find_subcommand_mut("share").unwrap().render_long_help().to_string();
    assert!(help.contains("any AWS account there is can read all data"), "{help}");
}
