//! What is offered, of a made folder.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::values::Values;
use super::{Shell, answer};

const SET: &str = "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11";
const NEWER: &str = "01a2f3c2-8b1e-7c55-9d3f-2f6a1c0b9e12";
const NONE_TAKEN: &str = "01a3f3c2-8b1e-7c55-9d3f-2f6a1c0b9e13";

fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn record(id: &str, plan: &str) -> String {
    format!(
        r#"{{"run_id": "{id}", "achieved": "filesystem", "times": {{"started": "2027-01-31T03:00:00.123Z"}},
            "snapshots": [{{"id": "snap-0123456789abcdef0", "volume_id": "vol-0123456789abcdef0"}}],
            "plan": {{"name": "{plan}"}}}}"#
    )
}

fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let r = root.path();
    let plans = "[plan.db]\n[plan.data]\n[[plan.db.copy]]\nregion = \"eu-west-1\"\n";
    put(r, "etc/stillpoint/stillpoint.toml", plans);
    put(r, &format!("var/lib/stillpoint/sets/{SET}.json"), record(SET, "db"));
    put(r, &format!("var/lib/stillpoint/sets/{NEWER}.json"), record(NEWER, "da\\u001b]0;x\\u0007ta"));
    let none = record(NONE_TAKEN, "db").replace(r#""snapshots": [{"#, r#""snapshots": [], "no": [{"#);
    put(r, &format!("var/lib/stillpoint/sets/{NONE_TAKEN}.json"), none);
    put(r, "var/lib/stillpoint/sets/$(touch x).json", record(SET, "db"));
    put(r, "var/lib/stillpoint/restores/0297f3c2-8b1e-7c55-9d3f-2f6a1c0b9e21.json", "{}");
    put(r, "var/lib/stillpoint/restores/root/0297f3c2-8b1e-7c55-9d3f-2f6a1c0b9e22.json", "{}");
    put(r, "var/lib/stillpoint/clones/0297f3c2-8b1e-7c55-9d3f-2f6a1c0b9e23.json", "{}");
    put(r, "run/stillpoint/runs/0297f3c2-8b1e-7c55-9d3f-2f6a1c0b9e24.json", "{}");
    put(r, "sys/block/nvme1n1/device/serial", "vol0fedcba9876543210  \n");
    put(r, "sys/block/loop0/size", "0\n");
    let mounts = "1 0 259:0 / / rw - ext4 /dev/a rw\n2 1 259:1 / /data rw - xfs /dev/b rw\n\
        3 1 0:5 / /proc rw - proc proc rw\n4 1 259:2 / /srv/my\\040data rw - ext4 /dev/c rw\n\
        5 1 259:3 / /srv/$(touch\\040x)`id`;& rw - ext4 /dev/d rw\n6 1 259:4 / /srv/a\\012b rw - ext4 /dev/e rw\n\
        7 1 7:1 / /snap/core rw - squashfs /dev/loop1 rw\n8 1 0:44 / /many rw - btrfs /dev/f rw\n\
        9 1 259:5 / /srv/\u{1b}]0;x\u{7} rw - ext4 /dev/g rw\n10 1 259:6 / /srv/a\u{202e}b rw - ext4 /dev/h rw\n";
    put(r, "proc/self/mountinfo", mounts);
    root
}

fn lines(root: &Path, shell: Shell, words: &[&str]) -> Vec<String> {
    let words: Vec<OsString> = ["stillpoint"].iter().chain(words).map(OsString::from).collect();
    answer(root, shell, words).lines().map(str::to_owned).collect()
}

/// What bash is offered, without the kind.
fn offered(root: &Path, words: &[&str]) -> Vec<String> {
    let lines = lines(root, Shell::Bash, words);
    assert_eq!(lines[0], "words", "{words:?}");
    lines[1..].to_vec()
}

#[test]
fn plans_sets_mounts_and_the_rest_that_this_host_knows() {
    let root = host();
    let offered = |words: &[&str]| offered(root.path(), words);
    assert_eq!(offered(&["snapshot", ""]), ["data", "db", "default"]);
    assert_eq!(offered(&["snapshot", "d"]), ["data", "db", "default"]);
    assert_eq!(offered(&["snapshot", "da"]), ["data"]);
    assert_eq!(offered(&["image", "--plan", "db"]), ["db"]);
    assert_eq!(offered(&["config", "show", "db"]), ["db"]);
    // The newest first; none of a run that took none, and none of a file that is no id.
    assert_eq!(offered(&["show", ""]), [NEWER, SET]);
    assert_eq!(offered(&["show", "0197"]), [SET]);
    assert_eq!(offered(&["show", "snap-"]), ["snap-0123456789abcdef0"; 2]);
    assert_eq!(offered(&["verify", "d"]), ["data", "db", "default"]);
    assert_eq!(offered(&["verify", "01a"]), [NEWER]);
    assert_eq!(offered(&["snapshot", "--mount", "/d"]), ["/data"]);
    assert_eq!(offered(&["snapshot", "--mount=/d"]), ["--mount=/data"]);
    assert_eq!(offered(&["plan", "--exclude-mount", "/m"]), ["/many"]);
    assert_eq!(offered(&["plan", "--volume", ""]), ["vol-0fedcba9876543210"]);
    assert_eq!(offered(&["copy", SET, "--to", ""]), ["eu-west-1"]);
    assert_eq!(offered(&["list", "--region", ""]), ["eu-west-1"]);
    let run = |last| format!("0297f3c2-8b1e-7c55-9d3f-2f6a1c0b9e2{last}");
    assert_eq!(offered(&["restore", "--undo", ""]), [run('1'), run('2')]);
    assert_eq!(offered(&["clone", "--delete", ""]), [run('3')]);
    assert_eq!(offered(&["thaw", "--run", ""]), [run('4')]);
    assert_eq!(offered(&["freeze", "--run", ""]), [""; 0], "that of a new one");
    assert_eq!(offered(&["snapshot", "--consistency", "f"]), ["filesystem"]);
    assert_eq!(offered(&["snapshot", "-o", "j"]), ["json"]);
    assert_eq!(offered(&["sna"]), ["snapshot"]);
    assert_eq!(offered(&["snapshot", "--exclude-b"]), ["--exclude-boot-volume"]);
    assert!(!offered(&[""]).iter().any(|word| word == "completions" || word.starts_with('-')));
    assert!(offered(&["status", ""]).contains(&"--probe".to_owned()), "where there is nothing else");
    assert_eq!(offered(&["snapshot", "--tag", ""]), [""; 0]);
    assert_eq!(offered(&["no-such-command", ""]), offered(&[""]));
}

#[test]
fn files_and_commands_are_left_to_the_shell() {
    let root = host();
    let kind = |words: &[&str]| lines(root.path(), Shell::Zsh, words).join("\n");
    assert_eq!(kind(&["--config", ""]), "files");
    assert_eq!(kind(&["plan", "--config=/e"]), "files");
    assert_eq!(kind(&["restore", SET, "--to", "/m"]), "folders");
    assert_eq!(kind(&["before", "db", "--", "ap"]), "command");
    assert_eq!(kind(&["before", "db", "--", "apt", "ins"]), "command");
}

#[test]
fn files_that_the_command_line_names_count() {
    let root = host();
    let (other, r) = (tempfile::tempdir().unwrap(), root.path());
    put(other.path(), "one.toml", "state_dir = \"/elsewhere\"\n[plan.one]\n");
    put(r, &format!("elsewhere/sets/{SET}.json"), record(SET, "one"));
    let file = other.path().join("one.toml").to_str().unwrap().to_owned();
    assert_eq!(offered(r, &["--config", &file, "snapshot", ""]), ["default", "one"]);
    assert_eq!(offered(r, &["snapshot", &format!("--config='{file}'"), ""]), ["default", "one"]);
    assert_eq!(offered(r, &["snapshot", &format!("--config=\"{file}\""), ""]), ["default", "one"]);
    assert_eq!(offered(r, &["show", "--config", &file, ""]), [SET]);
    assert_eq!(offered(r, &["show", "--state-dir", "/elsewhere", ""]), [SET]);
    assert_eq!(offered(r, &["show", "--state-dir=/nowhere", "0"]), [""; 0]);
    assert_eq!(offered(r, &["snapshot", "--config", "/no/such/file", ""]), ["default"]);
}

/// A faulty file, a folder that is none, records that are none: what can be read is offered, and nothing is said.
#[test]
fn what_cannot_be_read_is_not_offered() {
    let root = host();
    let r = root.path();
    put(r, &format!("var/lib/stillpoint/sets/{SET}.json"), "{ not JSON");
    assert_eq!(offered(r, &["show", ""]), [NEWER]);
    put(r, &format!("var/lib/stillpoint/sets/{NEWER}.json"), vec![b' '; (1 << 20) + 1]);
    assert_eq!(offered(r, &["show", "0"]), [""; 0], "longer than any record");
    fs::remove_file(r.join(format!("var/lib/stillpoint/sets/{NEWER}.json"))).unwrap();
    nix::unistd::mkfifo(
        &r.join(format!("var/lib/stillpoint/sets/{NEWER}.json")),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    assert_eq!(offered(r, &["show", "0"]), [""; 0], "a pipe is not waited for");
    put(r, "etc/stillpoint/config.d/10-bad.toml", "[plan.bad]\nno such = key\n");
    assert_eq!(offered(r, &["snapshot", ""]), ["data", "db", "default"]);
    fs::remove_dir_all(r.join("var")).unwrap();
    fs::remove_file(r.join("proc/self/mountinfo")).unwrap();
    assert_eq!(offered(r, &["show", "0"]), [""; 0]);
    assert_eq!(offered(r, &["plan", "--mount", ""]), [""; 0]);
}

#[test]
fn no_name_reaches_the_shell_unquoted() {
    let root = host();
    let mounts = |typed: &str| offered(root.path(), &["plan", "--mount", typed]);
    // Control characters and what turns text around: not at all.
    let all = ["/srv/\\$\\(touch\\ x\\)\\`id\\`\\;\\&", "/srv/my\\ data"];
    assert_eq!(mounts("/srv/"), all);
    assert_eq!(mounts("/srv/my\\ "), all[1..]);
    assert_eq!(mounts("/srv/\\$"), all[..1]);
    // Within quotes a backslash would stay; plain names are fine there.
    assert_eq!(mounts("\"/srv/"), [""; 0]);
    assert_eq!(mounts("'/srv/"), [""; 0]);
    assert_eq!(mounts("\"/da"), ["/data"]);
    // zsh and fish quote what they put into the line.
    for shell in [Shell::Zsh, Shell::Fish] {
        let lines = lines(root.path(), shell, &["plan", "--mount", "/srv/"]);
        assert_eq!(lines, ["words", "/srv/$(touch x)`id`;&\text4", "/srv/my data\text4"]);
    }
}

#[test]
fn what_is_said_of_a_word_is_one_line_of_plain_text() {
    let root = host();
    let sets = lines(root.path(), Shell::Fish, &["show", ""]);
    assert_eq!(sets[2], format!("{SET}\t2027-01-31 03:00, db, filesystem"));
    assert_eq!(sets[1], format!("{NEWER}\t2027-01-31 03:00, da\\u{{1b}}]0;x\\u{{7}}ta, filesystem"));
    for line in lines(root.path(), Shell::Zsh, &["snapshot", "-"]) {
        let (_, help) = line.split_once('\t').unwrap_or(("", &line));
        assert!(help.chars().count() <= 123 && !help.contains(['`', '\n', '\t']), "{line}");
    }
}

/// The newest fifty: a folder of a thousand records is not read as a whole.
#[test]
fn only_the_newest_sets_are_offered() {
    let root = tempfile::tempdir().unwrap();
    for n in 0..60 {
        let id = format!("0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e{n:02}");
        put(root.path(), &format!("var/lib/stillpoint/sets/{id}.json"), record(&id, "db"));
    }
    let sets = offered(root.path(), &["show", ""]);
    assert_eq!(sets.len(), 50);
    assert!(sets[0].ends_with("59") && sets[49].ends_with("10"), "{sets:?}");
    assert_eq!(offered(root.path(), &["show", "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e03"]).len(), 1);
}

/// A new argument is given its values in [`Values::of`], or is added here.
#[test]
fn every_argument_has_values_or_is_known_to_have_none() {
    fn unknown(command: &clap::Command, found: &mut Vec<String>) {
        for argument in command.get_arguments() {
            if Values::of(argument) == Some(Values::Unknown) {
                found.push(argument.get_id().to_string());
            }
        }
        command.get_subcommands().for_each(|sub| unknown(sub, found));
    }
    let mut found = Vec::new();
    let mut cli = super::super::Cli::command();
    cli.build();
    unknown(&cli, &mut found);
    found.sort();
    found.dedup();
    insta::assert_snapshot!(found.join(" "), @"account adopt az before command_of cool_off days description endpoint_url from image image_name imds_endpoint init_rate instance instance_id iops key lasts like lock most_copies name older_than overlay_limit profile repeat run since size status stop_unit tag throughput timeout until volume_tag wait_idle wait_lock what window within");
}
