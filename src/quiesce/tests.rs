//! Hooks as real processes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::plan::Consistency;

fn env() -> HookEnv {
    HookEnv {
        run_id: "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".parse().unwrap(),
        plan: "db".to_owned(),
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        region: "eu-central-1".to_owned(),
        mounts: vec!["/".into(), "/var/lib/my sql".into(), "/mnt/a\nb\\x2dc".into()],
        volumes: vec!["vol-0123456789abcdef0".parse().unwrap(), "vol-0fedcba9876543210".parse().unwrap()],
        result: RunResult::Unknown,
        consistency: None,
        snapshots: Vec::new(),
        not_mounted: Vec::new(),
    }
}

fn sh(script: &str) -> Option<Vec<String>> {
    Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

fn hook(name: &str, pre: &str, post: &str) -> Hook {
    Hook {
        name: name.to_owned(),
        pre: sh(pre),
        post: sh(post),
        timeout: Duration::from_secs(20),
        on_failure: OnFailure::Abort,
    }
}

fn dir() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    (dir, path)
}

/// The process id in a file, once it is there.
async fn pid_in(file: &Path) -> i32 {
    for _ in 0..500 {
        if let Some(pid) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no process id in {}", file.display());
}

fn lives(pid: i32) -> bool {
    // A zombie has died; whoever inherits it decides when it goes.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

async fn dies(pid: i32) -> bool {
    for _ in 0..500 {
        if !lives(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn hooks_run_in_order_and_are_released_in_reverse_past_failures() {
    let (_dir, d) = dir();
    let note = |what: &str| format!("echo {what} >>{d}/log");
    let hooks = [
        hook("a", &note("pre-a"), &note("post-a")),
        hook("b", &note("pre-b"), &format!("{}; exit 1", note("post-b"))),
        hook("c", &format!("{}; exit 3", note("pre-c")), &note("post-c")),
        hook("d", &note("pre-d"), &note("post-d")),
    ];
    let mut quiesce = Quiesce::new(&hooks);
    let mut failed = None;
    while let Some(hook) = quiesce.attempt() {
        let journaled: Vec<_> = quiesce.attempted().iter().map(|h| h.name.as_str()).collect();
        assert_eq!(journaled.last(), Some(&hook.name.as_str()), "attempted before it is started");
        let outcome = run_pre(hook, &env()).await;
        if aborts(hook, &outcome) {
            failed = Some(outcome);
            break;
        }
    }
    let failed = failed.unwrap();
    assert_eq!((failed.name.as_str(), &failed.status), ("c", &HookStatus::Failed(Exit::Code(3))));
    let released = quiesce.release(&env()).await;
    let summary: Vec<_> = released.iter().map(|o| (o.name.as_str(), o.phase, o.succeeded())).collect();
    assert_eq!(summary, [("c", Phase::Post, true), ("b", Phase::Post, false), ("a", Phase::Post, true)]);
    let log = fs::read_to_string(format!("{d}/log")).unwrap();
    assert_eq!(
        log.split_whitespace().collect::<Vec<_>>(),
        ["pre-a", "pre-b", "pre-c", "post-c", "post-b", "post-a"]
    );
}

#[tokio::test]
async fn what_a_failed_pre_command_does_is_the_hooks_choice() {
    let mut hook = hook("x", "exit 1", "true");
    let failed = run_pre(&hook, &env()).await;
    assert!(aborts(&hook, &failed));
    hook.on_failure = OnFailure::Continue;
    assert!(!aborts(&hook, &failed));
    assert!(aborts(&hook, &HookOutcome { status: HookStatus::Cancelled, ..failed.clone() }));
    assert!(!aborts(&hook, &HookOutcome { status: HookStatus::Ok, ..failed }));
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported_with_the_last_output() {
    let ended = |script: &'static str| async move { run_pre(&hook("x", script, "true"), &env()).await };
    assert_eq!(ended("true").await.status, HookStatus::Ok);
    let code = ended("echo out; echo locked by 17 >&2; exit 42").await;
    assert_eq!(code.status, HookStatus::Failed(Exit::Code(42)));
    assert_eq!(code.output, "out\nlocked by 17\n", "both streams, in their order");
    let text = code.to_string();
    assert!(text.starts_with("pre command of hook `x` failed with exit code 42 after "), "{text}");
    assert!(text.ends_with("; its last line was: locked by 17"), "{text}");
    let signal = ended("kill -ABRT $$").await;
    assert_eq!(signal.status, HookStatus::Failed(Exit::Signal(6)));
    assert!(signal.to_string().contains("was ended by SIGABRT"), "{signal}");
}

#[tokio::test]
async fn a_hook_without_that_command_succeeds_at_once() {
    let hook = Hook { pre: None, ..hook("x", "", "exit 9") };
    assert!(run_pre(&hook, &env()).await.succeeded());
    assert!(!run_post(&hook, &env()).await.succeeded());
}

#[tokio::test]
async fn the_tail_of_the_output_is_kept_and_may_be_anything() {
    let many = run_pre(&hook("x", "seq 1 5000; printf 'caf\\351 without an end'", "true"), &env()).await;
    assert!(many.output.len() <= command::TAIL + 2, "{}", many.output.len());
    assert!(many.output.ends_with("4999\n5000\ncaf\u{fffd} without an end"), "{}", many.output);
    // A megabyte without a line feed ends, too.
    let wide = run_pre(&hook("x", "head -c 1000000 /dev/zero | tr '\\0' x", "true"), &env()).await;
    assert_eq!((wide.succeeded(), wide.output.len()), (true, command::TAIL));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let (_dir, d) = dir();
    fs::write(format!("{d}/plain"), "#!/bin/sh\n").unwrap();
    for (program, why) in
        [(format!("{d}/missing"), "No such file"), (format!("{d}/plain"), "Permission denied")]
    {
        let hook = Hook { pre: Some(vec![program]), ..hook("x", "", "true") };
        match run_pre(&hook, &env()).await.status {
            HookStatus::NotStarted(text) => assert!(text.contains(why), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_timeout_kills_children_too_even_those_that_ignore_sigterm() {
    let (_dir, d) = dir();
    let script = format!(
        "/bin/sh -c 'trap \"\" TERM; echo $$ >{d}/child; while :; do sleep 1; done' & echo $$ >{d}/leader; wait"
    );
    let hook = Hook { timeout: Duration::from_millis(500), ..hook("x", &script, "true") };
    let started = Instant::now();
    let outcome = run_pre(&hook, &env()).await;
    assert_eq!(outcome.status, HookStatus::TimedOut);
    assert!(aborts(&hook, &outcome));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(2400) && took < Duration::from_secs(8), "{took:?}");
    for file in ["leader", "child"] {
        let pid = pid_in(&Path::new(&d).join(file)).await;
        assert!(dies(pid).await, "{file} lives");
    }
}

#[tokio::test]
async fn a_group_that_obeys_sigterm_may_clean_up_and_is_not_waited_for_any_longer() {
    let (_dir, d) = dir();
    let script =
        format!("trap 'echo bye >{d}/clean; exit 0' TERM; echo $$ >{d}/pid; while :; do sleep 0.1; done");
    let hook = Hook { timeout: Duration::from_secs(1), ..hook("x", &script, "true") };
    let started = Instant::now();
    let outcome = run_pre(&hook, &env()).await;
    assert_eq!(outcome.status, HookStatus::TimedOut, "exit code 0 after the timeout is no success");
    assert!(started.elapsed() < Duration::from_millis(2900), "{:?}", started.elapsed());
    assert_eq!(fs::read_to_string(format!("{d}/clean")).unwrap(), "bye\n");
}

#[tokio::test]
async fn a_child_that_holds_the_pipe_does_not_hold_the_run() {
    let (_dir, d) = dir();
    // What a hook does that keeps a database session open for its post command.
    let hook = hook("x", &format!("sleep 60 & echo $! >{d}/pid; echo held"), &format!("kill $(cat {d}/pid)"));
    let started = Instant::now();
    let outcome = run_pre(&hook, &env()).await;
    assert!(outcome.succeeded(), "{outcome}");
    assert_eq!(outcome.output, "held\n");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let pid = pid_in(&Path::new(&d).join("pid")).await;
    // A kill, were there one, takes a moment to be seen.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(lives(pid), "what a hook leaves behind in time is its own business");
    assert!(run_post(&hook, &env()).await.succeeded());
    assert!(dies(pid).await);
}

#[tokio::test]
async fn cancelling_stops_the_group() {
    let (_dir, d) = dir();
    let hook = hook("x", &format!("sleep 60 & echo $! >{d}/pid; wait"), "true");
    let file = Path::new(&d).join("pid");
    let cancel = async {
        pid_in(&file).await;
    };
    let outcome = run_pre_until(&hook, &env(), cancel).await;
    assert_eq!(outcome.status, HookStatus::Cancelled);
    assert!(dies(pid_in(&file).await).await);
}

#[tokio::test]
async fn dropping_the_future_kills_the_group() {
    let (_dir, d) = dir();
    let hook = hook("x", &format!("trap '' TERM; sleep 60 & echo $! >{d}/pid; wait"), "true");
    let file = Path::new(&d).join("pid");
    let env = env();
    let pid = tokio::select! {
        outcome = run_pre(&hook, &env) => panic!("{outcome}"),
        pid = pid_in(&file) => pid,
    };
    assert!(dies(pid).await, "the child of the dropped hook lives");
}

#[tokio::test]
async fn the_environment_is_exactly_the_documented_one() {
    let (_dir, d) = dir();
    // Not a variable of a shell, which adds its own.
    let hook = Hook { pre: Some(vec!["/usr/bin/env".into(), "-0".into()]), ..hook("my hook", "", "") };
    let hook = Hook { post: hook.pre.clone(), ..hook };
    let home = if nix::unistd::geteuid().is_root() { "/root".into() } else { std::env::var("HOME").unwrap() };
    let common = |phase: &str| {
        vec![
            format!("HOME={home}"),
            "LANG=C.UTF-8".to_owned(),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "STILLPOINT_HOOK=my hook".to_owned(),
            "STILLPOINT_INSTANCE_ID=i-0123456789abcdef0".to_owned(),
            "STILLPOINT_MOUNTS=/\n/var/lib/my sql\n/mnt/a\\012b\\x2dc".to_owned(),
            format!("STILLPOINT_PHASE={phase}"),
            "STILLPOINT_PLAN=db".to_owned(),
            "STILLPOINT_REGION=eu-central-1".to_owned(),
            "STILLPOINT_RUN_ID=0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".to_owned(),
            "STILLPOINT_VOLUMES=vol-0123456789abcdef0 vol-0fedcba9876543210".to_owned(),
        ]
    };
    let seen = |outcome: HookOutcome| {
        let mut vars: Vec<_> = outcome.output.split_terminator('\0').map(str::to_owned).collect();
        vars.sort();
        vars
    };
    assert_eq!(seen(run_pre(&hook, &env()).await), common("pre"));
    let taken = HookEnv {
        result: RunResult::Taken,
        consistency: Some(Consistency::Filesystem),
        snapshots: vec!["snap-0123456789abcdef0".parse().unwrap(), "snap-0fedcba9876543210".parse().unwrap()],
        not_mounted: vec!["/mnt/a\nb".into(), "/c".into()],
        ..env()
    };
    let mut expected = common("post");
    expected.extend([
        "STILLPOINT_CONSISTENCY=filesystem".to_owned(),
        "STILLPOINT_NOT_MOUNTED=/mnt/a\\012b\n/c".to_owned(),
        "STILLPOINT_RESULT=taken".to_owned(),
        "STILLPOINT_SNAPSHOTS=snap-0123456789abcdef0 snap-0fedcba9876543210".to_owned(),
    ]);
    expected.sort();
    assert_eq!(seen(run_post(&hook, &taken).await), expected);
    let unknown = seen(run_post(&hook, &env()).await);
    assert!(unknown.contains(&"STILLPOINT_RESULT=unknown".to_owned()), "{unknown:?}");
    assert!(unknown.contains(&"STILLPOINT_SNAPSHOTS=".to_owned()), "{unknown:?}");
    drop(d);
}

/// Descriptors of this process, apart from the standard ones, that survive an exec.
fn inheritable_descriptors() -> usize {
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| entry.unwrap().path());
    infos
        .filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap() > 2)
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter_map(|info| {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            u32::from_str_radix(flags.trim(), 8).ok()
        })
        .filter(|flags| flags & 0o2_000_000 == 0) // O_CLOEXEC
        .count()
}

#[tokio::test]
async fn the_process_is_as_documented() {
    let script = "pwd; umask; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; cut -d' ' -f5 /proc/$$/stat; echo $$";
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let outcome = run_pre(&hook("x", script, "true"), &env()).await;
    let own = nix::sys::stat::umask(before);
    assert_eq!(own.bits(), 0o077, "stillpoint's own umask is put back");
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines[..3], ["/", "0022", "/dev/null"], "{}", outcome.output);
    // The three standard descriptors, the one with which `ls` reads the directory, and those that whoever started this
    // process let it inherit. None of its own.
    assert_eq!(lines[3], (4 + inheritable_descriptors()).to_string(), "{}", outcome.output);
    assert_eq!(lines[4], lines[5], "it leads a process group of its own");
}

#[tokio::test]
async fn a_hook_has_the_oom_score_of_an_ordinary_process() {
    let own = Path::new("/proc/self/oom_score_adj");
    let before = fs::read_to_string(own).unwrap();
    // Lowering it takes CAP_SYS_RESOURCE; without that nothing can be inherited that would be wrong.
    let lowered = fs::write(own, "-500").is_ok();
    let outcome = run_pre(&hook("x", "sleep 0.2; cat /proc/self/oom_score_adj", "true"), &env()).await;
    fs::write(own, before.trim()).unwrap();
    if lowered {
        assert_eq!(outcome.output, "0\n");
    }
}

#[test]
fn the_journal_keeps_what_post_commands_need() {
    let odd = PathBuf::from(OsStr::from_bytes(b"/mnt/caf\xe9"));
    let env = HookEnv { mounts: vec!["/data".into(), odd], ..env() };
    let text = serde_json::to_string(&env).unwrap();
    assert_eq!(serde_json::from_str::<HookEnv>(&text).unwrap(), env);
    // A journal of a run that had not come to its end says nothing about the result.
    let early = r#"{"run_id":"0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11","plan":"db","instance_id":"i-0123456789abcdef0",
        "region":"eu-central-1","mounts":["/"],"volumes":[]}"#;
    assert_eq!(serde_json::from_str::<HookEnv>(early).unwrap().result, RunResult::Unknown);
    let hook = Hook { timeout: Duration::from_millis(90_500), post: None, ..hook("x", "true", "") };
    let text = serde_json::to_string(&hook).unwrap();
    assert_eq!(serde_json::from_str::<Hook>(&text).unwrap(), hook);
    let outcome = HookOutcome {
        name: "x".into(),
        phase: Phase::Pre,
        status: HookStatus::Failed(Exit::Signal(9)),
        duration: Duration::from_millis(1),
        output: String::new(),
    };
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["status"], serde_json::json!({"failed": {"signal": 9}}));
    assert_eq!(serde_json::from_value::<HookOutcome>(json).unwrap(), outcome);
}

#[test]
fn commands_are_checked_before_any_of_them_runs() {
    let (_dir, d) = dir();
    let file = format!("{d}/program");
    let hooks =
        |program: &str| [hook("a", "", ""), Hook { post: Some(vec![program.into()]), ..hook("b", "", "") }];
    assert!(not_executable(&hooks("/bin/sh")).next().is_none());
    let e = not_executable(&hooks(&file)).next().unwrap();
    assert_eq!(e.to_string(), format!("hook `b`: cannot run its post command {file}"));
    assert!(e.hint().unwrap().starts_with("install "), "{:?}", e.hint());
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(not_executable(&hooks(&file)).next().unwrap().hint().unwrap().starts_with("chmod +x "));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(not_executable(&hooks(&file)).next().is_none());
    assert!(not_executable(&hooks(&d)).next().is_some(), "a directory");
}
