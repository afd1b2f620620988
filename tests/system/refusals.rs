//! What is refused before anything is touched, and what the user is told.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rig::fuse::Fuse;
use rig::probe::{assert_labels, assert_settled};
use rig::program::{Run, await_some, put_executable};
use rig::window::in_the_window;
use rig::{Fs, Rig, stillpoint};

fn one() -> Rig {
    Rig::start(&[("a", Fs::Ext4)])
}

/// Nothing was asked of EC2 that makes snapshots, and nothing is frozen.
fn assert_untouched(rig: &Rig) {
    assert_eq!(rig.creates().len(), 0);
    assert_settled(rig);
}

/// A set is complete without its record, so it is taken; but that every run ends with 11 is told before.
#[test]
fn a_record_that_cannot_be_kept_is_warned_of() {
    let rig = one();
    let folder = rig.path("read-only");
    std::fs::create_dir(&folder).unwrap();
    rig::sh("mount", &["-t", "tmpfs", "-o", "ro,mode=755", "stillpoint-test", folder.to_str().unwrap()]);
    let state = folder.join("state");
    let run = |command: &str| {
        let mut command = rig.command(&[command]);
        command.arg("--state-dir").arg(&state);
        Run::start(command).end()
    };
    let (taken, examined) = (run("snapshot"), run("doctor"));
    rig::sh("umount", &[folder.to_str().unwrap()]);
    taken.exits(11).says("no record can be kept in state_dir");
    let told = taken.err.find("no record can be kept").unwrap();
    assert!(told < taken.err.find("cannot keep the record").unwrap(), "{}", taken.err);
    assert!(examined.out.contains("no record can be kept"), "{}", examined.out);
    rig.await_quiet();
    assert_labels(&rig, 1, "filesystem");
    assert_settled(&rig);
}

#[test]
fn a_second_run_is_told_who_holds_the_lock() {
    let rig = one();
    let first = in_the_window(&rig, &["snapshot"]);
    let second = rig.run(&["snapshot"]);
    second.exits(75).says(&format!("(pid {})", first.pid())).says("--wait-lock");
    assert!(second.took < Duration::from_secs(4), "{:?}", second.took);
    // As the unit waits, whose plan has its turn at the same time.
    let unit = include_str!("../../systemd/stillpoint@.service");
    let start = unit.lines().find_map(|l| l.strip_prefix("ExecStart=/usr/bin/stillpoint ")).unwrap();
    let words: Vec<&str> = start.split(' ').map(|w| if w == "%i" { "default" } else { w }).collect();
    let third = rig.spawn(&words);
    let fds = format!("/proc/{}/fd", third.pid());
    await_some("the third to look at the lock", || {
        let mut all = std::fs::read_dir(&fds).ok()?.flatten();
        all.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("run/lock"))).then_some(())
    });
    first.end().exits(0);
    third.end().exits(0);
    let creates = rig.creates();
    assert_eq!(creates.len(), 2);
    assert!(creates[1]["started_ns"].as_u64() > creates[0]["answered_ns"].as_u64(), "one after the other");
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn a_dead_run_holds_no_lock() {
    let rig = one();
    let first = in_the_window(&rig, &["snapshot"]);
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.end();
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

#[test]
fn a_mount_that_is_not_absolute_is_wrong_usage() {
    let rig = one();
    rig.run(&["snapshot", "--mount", "data"]).exits(64).says("must be an absolute path");
    rig.run(&["snapshot", "--no-such-flag"]).exits(64);
    rig.run(&["snapshot", "--window", "10"]).exits(64);
    assert_untouched(&rig);
}

#[test]
fn an_unknown_mount_is_answered_with_the_nearest() {
    let rig = one();
    let near = rig.mount("a");
    let wrong = format!("{}a", near.display());
    rig.run(&["snapshot", "--mount", &wrong]).exits(78).says(&wrong).says(&format!("{}\n", near.display()));
    assert_untouched(&rig);
}

#[test]
fn an_unknown_key_is_named_with_file_and_line() {
    let rig = one();
    rig.configure("[defaults]\n\nwindw = \"5s\"\n");
    let place = format!("{}:3:", rig.path("stillpoint.toml").display());
    rig.run(&["snapshot"]).exits(78).says(&place).says("windw").says("`window`");
    assert_untouched(&rig);
}

#[test]
fn a_host_that_is_not_on_ec2_is_told_so_soon() {
    let rig = one();
    // Where the tests are started by a service, it would be a minute.
    std::fs::write(rig.path("stillpoint.toml"), "[identity]\nimds_timeout = '2s'\n").unwrap();
    let mut command = rig.bare_command(&["snapshot"]);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    let ended = Run::start(command).end();
    ended.exits(69).says("hint: is this an EC2 instance?").says("--instance-id and --region");
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_untouched(&rig);
}

#[test]
fn an_imds_that_is_switched_off_is_told_so() {
    let rig = Rig::with(&[("a", Fs::Ext4)], "[imds]\nenabled = false\n");
    let ended = rig.run(&["snapshot"]);
    ended.exits(69).says("--http-endpoint enabled");
    assert_untouched(&rig);
}

#[test]
fn a_run_needs_root() {
    let rig = one();
    // Where nobody may read and execute it: the build folder may belong to root alone.
    let copy = rig.path("stillpoint");
    put_executable(&copy, std::fs::read(stillpoint()).unwrap());
    std::fs::set_permissions(copy.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(&copy).args(["snapshot"]);
    Run::start(command).end().exits(77).says("needs root").says("hint: run it with sudo");
    assert_untouched(&rig);
}

#[test]
fn a_hook_that_cannot_run_is_found_before_anything_is_touched() {
    let rig = one();
    rig.configure("[[hook]]\nname = \"db\"\npre = [\"/nonexistent/hold\"]\ntimeout = \"5s\"\n");
    rig.run(&["snapshot"]).exits(78).says("hook `db`").says("/nonexistent/hold");
    assert_untouched(&rig);
}

#[test]
fn a_journal_on_what_will_be_frozen_is_refused() {
    let rig = one();
    let inside = rig.mount("a").join("run");
    let mut command = rig.command(&["snapshot"]);
    command.arg("--run-dir").arg(&inside);
    // Of two, the last one counts.
    let says =
        format!("run_dir {} is on {}, which will be frozen", inside.display(), rig.mount("a").display());
    Run::start(command).end().exits(78).says(&says);
    assert_untouched(&rig);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let rig = one();
    let ended = rig.run(&["snapshot", "--dry-run"]);
    ended.exits(0).says("permission checked by DryRun");
    assert!(ended.out.contains(&rig.id("a")) && ended.out.contains(rig.mount("a").to_str().unwrap()));
    assert!(!rig.path("run").exists() && !rig.path("state").exists());
    assert_untouched(&rig);
}

#[test]
fn a_freezes_dry_run_needs_neither_a_time_nor_the_permission_to_make_snapshots() {
    let rig = one();
    rig.control("POST", "iam", r#"{"deny":["ec2:CreateSnapshot","ec2:CreateSnapshots"]}"#);
    rig.run(&["plan"]).exits(77);
    let ended = rig.run(&["freeze", "--dry-run"]);
    ended.exits(0).says("makes no call");
    assert!(ended.out.contains(&rig.id("a")) && ended.out.contains(rig.mount("a").to_str().unwrap()));
    assert!(!rig.path("run").exists() && !rig.path("state").exists());
    assert_untouched(&rig);
}

const NOBODY: u32 = 65534;

fn belongs_to(path: &std::path::Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), None).unwrap();
}

#[test]
fn a_configuration_of_somebody_else_is_not_read() {
    let rig = one();
    let ran = rig.path("ran");
    let file = rig.path("nobody/c.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "").unwrap();
    put_mode(&file, 0o644);
    // On the way to it is a link, as where a configuration is kept elsewhere.
    let link = rig.path("stillpoint.toml");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let touch = format!("\"/usr/bin/touch\", \"{}\"", ran.display());
    rig.configure(&format!("[[hook]]\nname = \"h\"\npre = [{touch}]\ntimeout = \"9s\"\n"));
    for place in [file.as_path(), file.parent().unwrap(), &link] {
        belongs_to(place, NOBODY);
        for arguments in [&["snapshot"][..], &["config", "check"], &["doctor"], &["plan"]] {
            let ended = rig.run(arguments);
            ended.exits(78);
            let said = format!("{}{}", ended.out, ended.err);
            assert!(said.contains(&format!("belongs to user {NOBODY}")), "{said}");
            assert!(said.contains("chown -h root:root"), "{said}");
        }
        belongs_to(place, 0);
    }
    assert!(!ran.exists());
    assert_untouched(&rig);
}

#[test]
fn a_hook_that_somebody_else_could_lead_elsewhere_is_not_started() {
    let rig = one();
    let (script, middle, link) = (rig.path("script"), rig.path("nobody/middle"), rig.path("link"));
    let ran = rig.path("ran");
    std::fs::create_dir(middle.parent().unwrap()).unwrap();
    put_executable(&script, format!("#!/bin/sh\nid -un > {}\n", ran.display()));
    std::os::unix::fs::symlink(&script, &middle).unwrap();
    std::os::unix::fs::symlink(&middle, &link).unwrap();
    let hook = |words: &str| format!("[[hook]]\nname = \"h\"\npre = [{words}]\ntimeout = \"9s\"\n");
    let by_link = hook(&format!("\"/usr/bin/timeout\", \"5\", \"/bin/sh\", \"{}\"", link.display()));
    rig.configure(&by_link);
    for place in [middle.as_path(), middle.parent().unwrap()] {
        belongs_to(place, NOBODY);
        let why = format!("{} belongs to user {NOBODY}", place.display());
        rig.run(&["snapshot"]).exits(78).says(&why).says("chown -h root:root");
        rig.run(&["doctor"]).exits(78);
        belongs_to(place, 0);
    }
    // Another hook of the same run stands for somebody who waits for the check to be over.
    let swap = format!("\"/bin/chown\", \"-h\", \"{NOBODY}\", \"{}\"", middle.display());
    rig.configure(&format!("{}{}", hook(&swap).replace("\"h\"", "\"swap\""), by_link));
    rig.run(&["snapshot"]).exits(20).says("could not be started").says("belongs to user");
    assert!(!ran.exists());
    belongs_to(&middle, 0);
    // As that user it may start what is that user's.
    belongs_to(&script, NOBODY);
    put_mode(&rig.path(""), 0o755);
    let own = hook(&format!("\"{}\"", script.display()));
    rig.configure(&own);
    rig.run(&["snapshot"]).exits(78).says("belongs to user");
    assert_untouched(&rig);
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    rig.configure(&format!("{own}user = \"nobody\"\n"));
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

fn put_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Its program says what is in it and whose that is, and may say something else the next time.
#[test]
fn a_configuration_on_a_users_fuse_is_not_read() {
    let rig = one();
    let link = rig.path("stillpoint.toml");
    for (user, loose) in [(0, false), (NOBODY, true)] {
        let fuse = Fuse::of_user(&rig.path("fuse"), "any", 9, user);
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(fuse.disk(), &link).unwrap();
        let ended = rig.run(&["config", "check"]);
        let said = format!("{}{}", ended.exits(78).out, ended.err);
        let why = format!("is on a FUSE filesystem of user {NOBODY}");
        assert_eq!(said.contains(&why), loose, "{said}");
    }
    assert_untouched(&rig);
}

/// Journals name commands that root runs, and records are written by root.
#[test]
fn a_folder_that_others_can_write_to_is_not_used() {
    let rig = one();
    let says = |place: &std::path::Path| format!("{} can be written by everybody", place.display());
    for name in ["run", "state"] {
        let folder = rig.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        put_mode(&folder, 0o777);
        rig.run(&["snapshot"]).exits(78).says(&format!("{name}_dir")).says(&says(&folder));
        if name == "run" {
            rig.run(&["freeze", "--for", "9s"]).exits(78).says(&says(&folder));
        }
        put_mode(&folder, 0o755);
    }
    assert_untouched(&rig);
    // What is in it by then: the set stays as it is, and no record is written.
    let sets = rig.path("state/sets");
    std::fs::create_dir(&sets).unwrap();
    put_mode(&sets, 0o777);
    rig.run(&["snapshot"]).says(&says(&sets));
    assert_eq!(std::fs::read_dir(&sets).unwrap().count(), 0);
    assert_settled(&rig);
}

/// It was right when the run began. As another user, the process that becomes that user looks again.
#[test]
fn a_hook_of_another_user_that_has_changed_meanwhile_is_not_started() {
    let rig = one();
    let (script, ran) = (rig.path("script"), rig.path("ran"));
    put_mode(&rig.path(""), 0o777 | 0o1000);
    put_executable(&script, format!("#!/bin/sh\n> {}\n", ran.display()));
    let hook = |name: &str, words: &str, more: &str| {
        format!("[[hook]]\nname = \"{name}\"\npre = [{words}]\ntimeout = \"9s\"\n{more}")
    };
    let own = hook("h", &format!("\"{}\"", script.display()), "user = \"nobody\"\n");
    rig.configure(&own);
    rig.run(&["snapshot"]).exits(0);
    assert!(ran.exists(), "this test shows nothing");
    std::fs::remove_file(&ran).unwrap();
    let swap = format!("\"/bin/chmod\", \"757\", \"{}\"", script.display());
    rig.configure(&(hook("swap", &swap, "") + &own));
    rig.run(&["snapshot"]).exits(20).says("script can be written by everybody");
    assert!(!ran.exists());
    assert_settled(&rig);
}
