//! Hook directories.

use std::fs;
use std::process::Command;

use super::super::*;
use super::{dir, env, of, pre};
use crate::config::settings::{DirectoryHook, HookKind};

fn put(d: &str, name: &str, text: &str, mode: u32) {
    let file = format!("{d}/hooks/{name}");
    fs::create_dir_all(format!("{d}/hooks")).unwrap();
    // By a process of its own: a child that another test forks meanwhile would keep it open for writing
    // (ETXTBSY).
    let mut write = Command::new("/bin/sh");
    write.args(["-c", "printf %s \"$0\" >\"$1\" && chmod $2 \"$1\"", text, &file, &format!("{mode:o}")]);
    assert!(write.status().unwrap().success());
}

fn hooks(d: &str) -> Vec<Hook> {
    let path = format!("{d}/hooks").into();
    expand(&[of("dir", HookKind::HookDirectory(DirectoryHook { path }))]).unwrap()
}

fn noting(d: &str, name: &str) -> String {
    format!("#!/bin/sh\necho {name} $1 $# >>{d}/log\n")
}

fn log(d: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{d}/log")).unwrap_or_default();
    let _ = fs::remove_file(format!("{d}/log"));
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_executable_freezes_in_order_and_thaws_in_reverse() {
    let (_dir, d) = dir();
    for name in ["20-b", "10-a.sh", "30-c"] {
        put(&d, name, &noting(&d, name), 0o755);
    }
    for (name, mode) in [("40-plain", 0o644), ("50-x.sample", 0o755), (".hidden", 0o755), ("60~", 0o755)] {
        put(&d, name, &noting(&d, name), mode);
    }
    for end in ["bak", "orig", "rpmnew", "dpkg-old", "dpkg-tmp", "dpkg-bak", "dpkg-backup", "dpkg-remove"] {
        put(&d, &format!("70-left.{end}"), &noting(&d, end), 0o755);
    }
    fs::create_dir(format!("{d}/hooks/80-folder")).unwrap();
    let hooks = hooks(&d);
    assert_eq!(
        hooks.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(),
        ["dir/10-a.sh", "dir/20-b", "dir/30-c"]
    );
    for hook in &hooks {
        assert!(pre(hook, &env()).await.succeeded());
    }
    assert_eq!(log(&d), ["10-a.sh freeze 1", "20-b freeze 1", "30-c freeze 1"]);
    let frozen = HookEnv { frozen: true, ..env() };
    assert!(release(&hooks, &frozen).await.iter().all(HookOutcome::succeeded));
    assert_eq!(log(&d), ["30-c thaw 1", "20-b thaw 1", "10-a.sh thaw 1"]);
}

#[tokio::test]
async fn one_that_fails_stops_the_run() {
    let (_dir, d) = dir();
    put(&d, "10-bad", "#!/bin/sh\nexit 1\n", 0o755);
    let hooks = hooks(&d);
    assert!(aborts(&hooks[0], &pre(&hooks[0], &env()).await));
}

/// qemu-guest-agent says `thaw` when a freeze failed, open-vm-tools says `freezeFail`: each script is told
/// the word it was written for.
#[tokio::test]
async fn after_a_failed_freeze_each_is_told_what_it_knows() {
    let (_dir, d) = dir();
    let case = |name: &str, words: &str, otherwise: &str| {
        format!("#!/bin/sh\ncase $1 in {words}) echo {name} $1 >>{d}/log;; *) {otherwise};; esac\n")
    };
    put(&d, "1-qemu", &case("qemu", "freeze|thaw", "exit 1"), 0o755);
    // Takes any word, and releases at one.
    put(&d, "2-mild", &case("mild", "freeze|thaw", "exit 0"), 0o755);
    put(&d, "3-vmware", &case("vmware", "freeze|thaw|freezeFail", "exit 1"), 0o755);
    put(&d, "4-broken", &format!("#!/bin/sh\n[ $1 != freezeFail ] && echo broken $1 >>{d}/log\n"), 0o755);
    assert!(release(&hooks(&d), &env()).await.iter().all(HookOutcome::succeeded));
    assert_eq!(log(&d), ["broken thaw", "vmware freezeFail", "mild thaw", "qemu thaw"]);
}

#[test]
fn a_directory_that_is_not_there_is_no_empty_one() {
    let (_dir, d) = dir();
    let path = format!("{d}/none").into();
    let e = expand(&[of("dir", HookKind::HookDirectory(DirectoryHook { path }))]).unwrap_err();
    assert!(e.contains("/none") && e.contains("No such file"), "{e}");
}
