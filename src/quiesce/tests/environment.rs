//! What a command is told and what it starts with, and what the journal keeps of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::*;
use super::{env, hook, of, pair, post, pre, sh};
use crate::config::settings::{CommandHook, HookKind};
use crate::plan::Consistency;

#[tokio::test]
async fn the_environment_is_exactly_the_documented_one() {
    // Not a variable of a shell, which adds its own.
    let all = Some(vec!["/usr/bin/env".to_owned(), "-0".to_owned()]);
    let edges = CommandHook {
        pre: all.clone(),
        post: all.clone(),
        completed: all.clone(),
        failed: all,
        ..CommandHook::default()
    };
    let hook = of("my hook", HookKind::Hook(edges));
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
            format!("STILLPOINT_RUN_ID={}", env().run_id),
            "STILLPOINT_VOLUMES=vol-0123456789abcdef0 vol-0fedcba9876543210".to_owned(),
        ]
    };
    let seen = |outcome: HookOutcome| {
        let mut vars: Vec<_> = outcome.output.split_terminator('\0').map(str::to_owned).collect();
        vars.sort();
        vars
    };
    let mut expected = common("pre");
    expected.push("STILLPOINT_QUIESCE_LIMIT=90".to_owned());
    expected.sort();
    assert_eq!(seen(pre(&hook, &env()).await), expected);
    let taken = HookEnv {
        result: RunResult::Taken,
        consistency: Some(Consistency::Filesystem),
        snapshots: vec!["snap-0123456789abcdef0".parse().unwrap(), "snap-0fedcba9876543210".parse().unwrap()],
        not_mounted: vec!["/mnt/a\nb".into(), "/c".into()],
        reason: Some("no\nway".into()),
        ..env()
    };
    let told = |phase: &str, also: &[&str]| {
        let mut expected = common(phase);
        expected.extend([
            "STILLPOINT_NOT_MOUNTED=/mnt/a\\012b\n/c".to_owned(),
            "STILLPOINT_RESULT=taken".to_owned(),
            "STILLPOINT_SNAPSHOTS=snap-0123456789abcdef0 snap-0fedcba9876543210".to_owned(),
        ]);
        expected.extend(also.iter().map(|v| (*v).to_owned()));
        expected.sort();
        expected
    };
    assert_eq!(seen(post(&hook, &taken).await), told("post", &[]), "the verdict comes after the release");
    let label = "STILLPOINT_CONSISTENCY=filesystem";
    for (phase, word, also) in [
        (Phase::Completed, "completed", &[label][..]),
        (Phase::Failed, "failed", &[label, "STILLPOINT_REASON=no\nway"]),
    ] {
        let outcomes = finish(std::slice::from_ref(&hook), phase, &taken).await;
        assert_eq!(seen(outcomes.into_iter().next().unwrap()), told(word, also));
    }
    let unknown = seen(post(&hook, &env()).await);
    assert!(unknown.contains(&"STILLPOINT_RESULT=unknown".to_owned()), "{unknown:?}");
    assert!(unknown.contains(&"STILLPOINT_SNAPSHOTS=".to_owned()), "{unknown:?}");
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
    let script = "pwd; umask; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; cut -d' ' -f5,6 /proc/$$/stat; \
                  echo $$ $$";
    let outcome = pre(&hook("x", script, "true"), &env()).await;
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines[..3], ["/", "0022", "/dev/null"], "{}", outcome.output);
    // The three standard descriptors, the one with which `ls` reads the directory, and those that whoever
    // started this process let it inherit. None of its own.
    assert_eq!(lines[3], (4 + inheritable_descriptors()).to_string(), "{}", outcome.output);
    assert_eq!(lines[4], lines[5], "it leads a process group and a session of its own");
}

#[tokio::test]
async fn a_hook_has_the_oom_score_of_an_ordinary_process() {
    let own = Path::new("/proc/self/oom_score_adj");
    let before = fs::read_to_string(own).unwrap();
    // Lowering it takes CAP_SYS_RESOURCE; without that nothing can be inherited that would be wrong.
    let lowered = fs::write(own, "-500").is_ok();
    // It is set right after the spawn, which the hook may be quicker than; what the hook starts inherits it.
    let script = "for i in $(seq 100); do read score </proc/$$/oom_score_adj; [ $score = 0 ] && break; sleep 0.1; done; \
                  cat /proc/self/oom_score_adj";
    let outcome = pre(&hook("x", script, "true"), &env()).await;
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
    let hook = Hook { timeout: Duration::from_millis(90_500), ..pair("x", sh("true"), None) };
    let text = serde_json::to_string(&hook).unwrap();
    assert_eq!(serde_json::from_str::<Hook>(&text).unwrap(), hook);
    let status = HookStatus::Failed(Exit::Signal(9));
    let outcome = HookOutcome::new("x", Phase::Pre, status, Duration::from_millis(1), String::new());
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["status"], serde_json::json!({"failed": {"signal": 9}}));
    assert_eq!(serde_json::from_value::<HookOutcome>(json).unwrap(), outcome);
}
