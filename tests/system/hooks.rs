//! Hooks around a real window: order, labels, failures.

use std::time::Duration;

use rig::hooks::{hook, log, note, noting};
use rig::probe::{BlockedWrite, assert_labels, assert_settled};
use rig::program::{await_some, put_executable};
use rig::window::in_the_window;
use rig::{Fs, Rig};

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

#[test]
fn with_hooks_a_set_is_application_consistent() {
    let rig = two();
    rig.configure(&format!("{}{}", noting(&rig, "one"), noting(&rig, "two")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!((&record["requested"], &record["achieved"]), (&"application".into(), &"application".into()));
    let all = ["pre-one", "pre-two", "post-two taken", "post-one taken"];
    assert_eq!(log(&rig), all, "released in reverse");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

/// The label is known only when what was held has been let go; whoever wants it is told at the end.
#[test]
fn the_ends_of_a_run_are_told_the_label() {
    let rig = two();
    let script = |edge: &str| {
        let text = note(
            &rig,
            &format!("{edge} $STILLPOINT_PHASE $STILLPOINT_RESULT ${{STILLPOINT_CONSISTENCY-none}}"),
        );
        format!("{edge} = [\"/bin/sh\", \"-c\", '''{text}''']\n")
    };
    let ends = ["pre", "post", "completed", "failed"].map(script).concat();
    rig.configure(&format!("[[hook]]\nname = \"told\"\n{ends}timeout = \"10s\"\n"));
    rig.run(&["snapshot"]).exits(0);
    let all = ["pre pre none", "post post taken none", "completed completed taken application"];
    assert_eq!(log(&rig), all);
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.fault("CreateSnapshots", "throttle", "0s");
    rig.run(&["snapshot"]).exits(23);
    assert_eq!(log(&rig), ["pre pre none", "post post failed none", "failed failed failed"]);
    std::fs::remove_file(rig.path("log")).unwrap();
    // Neither: nothing was to be taken.
    rig.run(&["rehearse"]).exits(0);
    assert_eq!(log(&rig), ["pre pre none", "post post rehearsed none"]);
    assert_settled(&rig);
}

#[test]
fn a_failing_end_is_a_failure_after_the_set() {
    let rig = two();
    let ends = "completed = [\"/bin/sh\", \"-c\", \"exit 9\"]";
    rig.configure(&hook("db", "exit 0", "exit 0", ends));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(11).record();
    assert_eq!(record["achieved"], "application");
    assert!(
        record["after"][0]
            .as_str()
            .unwrap()
            .contains("completed command of hook `db` failed with exit code 9")
    );
    assert_settled(&rig);
}

#[test]
fn hooks_are_released_after_the_thaw_and_not_before() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    let mut run = in_the_window(&rig, &["snapshot"]);
    let write = BlockedWrite::certain(&rig.mount("a"));
    assert_eq!(log(&rig), ["pre-db"], "held while frozen");
    run.release();
    assert!(write.done(Duration::from_secs(10)).is_some());
    run.end().exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db taken"]);
    assert_settled(&rig);
}

#[test]
fn a_failing_pre_hook_ends_the_run_before_anything_is_frozen() {
    let rig = two();
    let bad = hook("bad", "echo no disk today >&2; exit 3", &note(&rig, "post-bad $STILLPOINT_RESULT"), "");
    rig.configure(&format!("{}{bad}{}", noting(&rig, "good"), noting(&rig, "never")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(20).record();
    ended.says("pre command of hook `bad` failed with exit code 3").says("no disk today");
    assert_eq!(
        log(&rig),
        ["pre-good", "post-bad failed", "post-good failed"],
        "every attempted one, no other"
    );
    assert_eq!(record["window_ms"].as_f64(), Some(0.0));
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn a_pre_hook_that_takes_too_long_is_killed_and_released() {
    let rig = two();
    let slow = hook("slow", "sleep 40", &note(&rig, "post-slow"), "").replace("10s", "3s");
    rig.configure(&slow);
    let ended = rig.run(&["snapshot"]);
    ended.exits(20).says("pre command of hook `slow` timed out and was killed");
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_eq!(log(&rig), ["post-slow"]);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

fn continuing(arguments: &[&str], code: i32) {
    let rig = two();
    rig.configure(&hook("bad", "exit 1", &note(&rig, "post-bad"), "on_failure = \"degrade\""));
    let ended = rig.run(&[&["snapshot", "-o", "json"], arguments].concat());
    let record = ended.exits(code).record();
    assert_eq!((&record["requested"], &record["achieved"]), (&"application".into(), &"filesystem".into()));
    assert!(record["reason"].as_str().unwrap().contains("hook `bad`"), "{}", record["reason"]);
    assert_eq!(log(&rig), ["post-bad"]);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn going_on_after_a_failing_hook_is_filesystem_consistent_at_most() {
    continuing(&[], 22);
}

#[test]
fn going_on_after_a_failing_hook_is_kept_where_the_policy_says_so() {
    continuing(&["--on-degraded", "keep"], 10);
}

#[test]
fn a_failing_post_hook_is_told_and_keeps_the_set() {
    let rig = two();
    let bad = hook("bad", "exit 0", "exit 5", "");
    rig.configure(&format!("{}{bad}", noting(&rig, "first")));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(11).record();
    assert!(
        record["after"][0].as_str().unwrap().contains("post command of hook `bad` failed with exit code 5")
    );
    assert_eq!(record["achieved"], "application");
    assert_eq!(log(&rig), ["pre-first", "post-first taken"], "the others are released");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn hooks_are_released_before_a_lost_answer_is_looked_up() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    rig.fault("CreateSnapshots", "error", "0s");
    // InternalError with status 500: it may have been done, so it is looked up.
    rig.run(&["snapshot"]).exits(23);
    assert_eq!(
        log(&rig),
        ["pre-db", "post-db unknown"],
        "seconds of looking must not hold the application up"
    );
}

/// A filesystem that a hook mounts on a volume of the set would be neither flushed nor frozen.
#[test]
fn what_hooks_mount_or_unmount_stops_the_run() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let b = rig.mount("b");
    let unmount = format!(
        r#"
[[hook]]
name = "unmounts"
pre = ["/bin/umount", "{}"]
post = ["/bin/mount", "{}", "{}"]
timeout = "10s"
"#,
        b.display(),
        rig.device("b"),
        b.display()
    );
    rig.configure(&unmount);
    let ended = rig.run(&["snapshot"]);
    ended.exits(21).says(b.to_str().unwrap());
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn hooks_see_the_volumes_and_no_credentials() {
    let rig = two();
    rig.configure(&hook("env", &format!("env > {}", rig.path("env").display()), "exit 0", ""));
    let mut command = rig.command(&["snapshot"]);
    command.env("AWS_SESSION_TOKEN", "").env("MY_SECRET", "s3cret");
    rig::program::Run::start(command).end().exits(0);
    let env = std::fs::read_to_string(rig.path("env")).unwrap();
    assert!(!env.contains("AWS_") && !env.contains("s3cret"), "{env}");
    assert!(env.contains(&rig.id("a")) && env.contains(&rig.id("b")), "{env}");
    assert!(env.contains(rig.mount("a").to_str().unwrap()), "{env}");
    assert_settled(&rig);
}

fn user_hook(user: &str, pre: &str, more: &str) -> String {
    hook("theirs", pre, "exit 0", &format!("user = \"{user}\"\n{more}"))
}

/// `list` and `games` are on every Debian; `postgres` has a group beside its own.
fn a_user() -> &'static str {
    let known =
        |name: &str| std::process::Command::new("id").arg(name).output().is_ok_and(|o| o.status.success());
    if known("postgres") { "postgres" } else { "games" }
}

#[test]
fn a_hook_of_a_user_has_that_users_groups_and_home_and_nothing_of_roots() {
    let rig = two();
    let user = a_user();
    let script =
        "id -un; id -G; grep -E ^Cap[IPEA] /proc/self/status; echo $HOME $GREETING $STILLPOINT_PHASE";
    rig.configure(&user_hook(user, script, "environment = { GREETING = \"hello\" }"));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    let said = record["hooks"][0]["output"].as_str().unwrap().to_owned();
    let shell = |script: &str| rig::sh("sh", &["-c", script]).trim().to_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], [user.to_owned(), shell(&format!("id -G {user}"))], "{said}");
    let capabilities: Vec<_> =
        lines[2..lines.len() - 1].iter().map(|l| l.split_whitespace().nth(1)).collect();
    assert_eq!(capabilities, [Some("0000000000000000"); 4], "{said}");
    let home = shell(&format!("getent passwd {user} | cut -d: -f6"));
    assert_eq!(lines[lines.len() - 1], format!("{home} hello pre"));
    rig.configure(&user_hook("nobody-at-all", "exit 0", "on_failure = \"abort\""));
    rig.run(&["snapshot"]).exits(78).says("there is no system user `nobody-at-all`");
    // A home of one's own choice.
    rig.configure(&user_hook(user, "test $HOME = /elsewhere", "environment = { HOME = \"/elsewhere\" }"));
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

#[test]
fn a_hook_of_a_user_is_killed_at_its_timeout_all_the_same() {
    let rig = two();
    rig.configure(&user_hook(a_user(), "trap : TERM; sleep 40; sleep 40", "").replace("10s", "3s"));
    let ended = rig.run(&["snapshot"]);
    ended.exits(20).says("timed out and was killed");
    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_settled(&rig);
}

/// Whoever can write what root runs is root.
#[test]
fn hooks_that_others_can_write_are_refused_before_anything_is_touched() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = two();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = rig.path("scripts");
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("run.sh");
    put_executable(&script, "#!/bin/sh\n[ \"$1\" ] || { echo ready; read word; }\n");
    let (shown, place) = (script.display(), folder.display());
    let sections = [
        format!("[[hook]]\npre = [\"{shown}\", \"x\"]\ntimeout = \"5s\"\n"),
        format!(
            "[[hook]]\npre = [\"/bin/true\"]\ncompleted = [\"/bin/sh\", \"-e\", \"{shown}\", \"x\"]\ntimeout = \"5s\"\n"
        ),
        format!("[[session]]\ncommand = [\"{shown}\"]\ntimeout = \"5s\"\n"),
        format!("[[hook_directory]]\npath = \"{place}\"\ntimeout = \"5s\"\n"),
    ];
    for section in &sections {
        rig.configure(&format!("{}{section}", noting(&rig, "first")));
        mode(&folder, 0o755);
        mode(&script, 0o755);
        rig.run(&["snapshot"]).exits(0);
        std::fs::remove_file(rig.path("log")).unwrap();
        let creates = rig.creates().len();
        for (folder_mode, script_mode, says) in [
            (0o755, 0o757, "run.sh can be written by everybody"),
            (0o777, 0o755, "scripts can be written by everybody"),
        ] {
            mode(&folder, folder_mode);
            mode(&script, script_mode);
            rig.run(&["snapshot"]).exits(78).says(says);
            rig.run(&["rehearse"]).exits(78);
        }
        mode(&folder, 0o755);
        mode(&script, 0o755);
        std::os::unix::fs::chown(&script, Some(65534), None).unwrap();
        rig.run(&["snapshot"]).exits(78).says("run.sh belongs to user 65534").says("chown -h root:root");
        std::os::unix::fs::chown(&script, Some(0), None).unwrap();
        assert_eq!((log(&rig), rig.creates().len()), (vec![], creates), "something was touched");
    }
    assert_settled(&rig);
}

#[test]
fn a_hook_directory_that_is_not_there_is_refused() {
    let rig = two();
    rig.configure(&format!(
        "{}[[hook_directory]]\npath = \"{}\"\ntimeout = \"5s\"\n",
        noting(&rig, "first"),
        rig.path("none").display()
    ));
    rig.run(&["snapshot"]).exits(78).says("hook directory");
    assert_eq!(log(&rig), Vec::<String>::new());
}

/// The dispatcher that Debian ships for qemu-guest-agent, unchanged, over a script in the manner of qemu's
/// mysql-flush: `freeze` leaves a process behind that holds until `thaw` tells it by a FIFO; any other word
/// is an error.
#[test]
fn debians_qemu_guest_agent_hook_runs_unchanged() {
    let rig = two();
    let dispatcher = "/etc/qemu/fsfreeze-hook";
    let text =
        std::fs::read(dispatcher).unwrap_or_else(|e| panic!("{dispatcher} (package qemu-guest-agent): {e}"));
    let put = |path: std::path::PathBuf, text: &[u8]| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        put_executable(&path, text);
    };
    let script = format!(
        "#!/bin/sh\nfifo={0}/fifo\ncase $1 in\nfreeze) mkfifo $fifo; (read word <$fifo; rm $fifo; echo released >>{0}/log) & echo frozen >>{0}/log;;\n\
         thaw) [ -p $fifo ] || exit 1; echo thaw >$fifo;;\n*) echo usage >>{0}/log; exit 1;; esac\n",
        rig.path("").to_str().unwrap().trim_end_matches('/')
    );
    put(rig.path("qemu/fsfreeze-hook"), &text);
    put(rig.path("qemu/fsfreeze-hook.d/lock.sh"), script.as_bytes());
    put(rig.path("qemu/fsfreeze-hook.d/off.sh.sample"), b"#!/bin/sh\nexit 1\n");
    let released = || {
        await_some("the release", || log(&rig).contains(&"released".to_owned()).then_some(()));
        let all = log(&rig);
        std::fs::remove_file(rig.path("log")).unwrap();
        all
    };
    for directory in ["qemu", "qemu/fsfreeze-hook.d"] {
        let section =
            format!("[[hook_directory]]\npath = \"{}\"\ntimeout = \"10s\"\n", rig.path(directory).display());
        rig.configure(&section);
        let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
        assert_eq!(log(&rig), ["frozen"], "held while frozen");
        assert_eq!(run.end().exits(0).record()["achieved"], "application");
        assert_eq!(released(), ["frozen", "released"]);
        // Nothing comes to be frozen: they know no other word for that than `thaw`.
        rig.configure(&format!("{section}{}", hook("bad", "exit 1", "exit 0", "")));
        rig.run(&["snapshot"]).exits(20);
        assert_eq!(released(), ["frozen", "released"]);
    }
    assert_settled(&rig);
}

/// A deployment that lost the executable bit must not make every set a good one.
#[test]
fn an_empty_hook_directory_holds_nothing() {
    let rig = two();
    let folder = rig.path("hooks.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("10-app"), "#!/bin/sh\nexit 0\n").unwrap();
    let section = |more: &str| {
        format!("[[hook_directory]]\nname = \"d\"\npath = \"{}\"\ntimeout = \"5s\"\n{more}", folder.display())
    };
    rig.configure(&section(""));
    let ended = rig.run(&["snapshot"]);
    ended.exits(20);
    ended.says("has no executable file");
    assert!(rig.creates().is_empty());
    rig.configure(&section("on_failure = \"degrade\"\n"));
    rig.run(&["snapshot", "--on-degraded", "keep"]).exits(10);
    assert_labels(&rig, 2, "filesystem");
}

/// Whatever the reason is, and before anything is known of the host.
#[test]
fn a_run_that_is_refused_runs_the_failed_commands() {
    let rig = two();
    let teller = |name: &str, more: &str| {
        let text = note(
            &rig,
            "$STILLPOINT_HOOK $STILLPOINT_PHASE $STILLPOINT_RESULT $STILLPOINT_PLAN: $STILLPOINT_REASON",
        );
        format!(
            "[[hook]]\nname = \"{name}\"\n{more}failed = [\"/bin/sh\", \"-c\", '''{text}''']\ntimeout = \"10s\"\n"
        )
    };
    let hooks = format!("{}[plan.other]\n{}", teller("told", ""), teller("other", "plans = [\"other\"]\n"));
    let run = |configuration: &str, arguments: &[&str], code: i32, reason: &str| {
        rig.configure(configuration);
        let _ = std::fs::remove_file(rig.path("log"));
        rig.run(&[&["snapshot"], arguments].concat()).exits(code);
        let told = log(&rig);
        assert_eq!(told.len(), 1, "{configuration}: {told:?}");
        assert!(told[0].starts_with("told failed failed default: ") && told[0].contains(reason), "{told:?}");
    };
    // The host, EC2, and IMDS.
    run(&hooks, &["--mount", "/nonexistent"], 78, "/nonexistent");
    rig.control("POST", "iam", r#"{"deny":["ec2:CreateSnapshots"]}"#);
    run(&hooks, &[], 77, "CreateSnapshots");
    rig.control("POST", "iam", r#"{"deny":[]}"#);
    run(&hooks, &["--imds-endpoint", "http://127.0.0.1:9"], 69, "IMDS");
    // The configuration, as far as it can be read: a fault in another table, or in another section.
    run(&format!("{hooks}[defaults]\nwindow = \"5\"\n"), &[], 78, "window");
    run(&format!("{hooks}[[hook]]\nname = \"x\"\ntypo = 1\n"), &[], 78, "typo");
    run(&format!("{hooks}[[session]]\ncommand = [\"relative\"]\ntimeout = \"1s\"\n"), &[], 78, "relative");
    // A rehearsal takes nothing anyway.
    rig.configure(&hooks);
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.run(&["rehearse", "--mount", "/nonexistent"]).exits(78);
    rig.run(&["snapshot", "--dry-run", "--mount", "/nonexistent"]).exits(78);
    assert_eq!(log(&rig), Vec::<String>::new());

    // Another run has the lock; then a signal while it is waited for.
    let held = in_the_window(&rig, &["snapshot"]);
    rig.run(&["snapshot"]).exits(75);
    let waits = rig.spawn(&["snapshot", "--wait-lock", "1h"]);
    await_some("it to look at the lock", || {
        let mut all = std::fs::read_dir(format!("/proc/{}/fd", waits.pid())).ok()?.flatten();
        all.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("run/lock"))).then_some(())
    });
    waits.signal(nix::sys::signal::Signal::SIGTERM);
    waits.end();
    let told = log(&rig);
    assert!(told.len() == 2 && told[0].contains("holds") && told[1].contains("interrupted"), "{told:?}");
    held.end().exits(0);
    assert_settled(&rig);
}
