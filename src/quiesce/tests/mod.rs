//! Hooks as real processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use std::future::pending;

use super::*;
use crate::config::settings::{CommandHook, HookKind};
use crate::ids::RunId;

mod commands;
mod directory;
mod environment;
mod sessions;

thread_local! {
    /// A test's own: orphans are found by the run id in their environment, on the whole host.
    static RUN: RunId = RunId::generate();
}

fn env() -> HookEnv {
    HookEnv {
        run_id: RUN.with(Clone::clone),
        plan: "db".to_owned(),
        instance_id: Some("i-0123456789abcdef0".parse().unwrap()),
        region: "eu-central-1".to_owned(),
        mounts: vec!["/".into(), "/var/lib/my sql".into(), "/mnt/a\nb\\x2dc".into()],
        volumes: vec!["vol-0123456789abcdef0".parse().unwrap(), "vol-0fedcba9876543210".parse().unwrap()],
        result: RunResult::Unknown,
        consistency: None,
        snapshots: Vec::new(),
        not_mounted: Vec::new(),
        set: Vec::new(),
        quiesce_limit: Duration::from_secs(90),
        frozen: false,
        reason: None,
    }
}

fn sh(script: &str) -> Option<Vec<String>> {
    Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

fn of(name: &str, kind: HookKind) -> Hook {
    Hook { name: name.to_owned(), kind, timeout: Duration::from_secs(20), on_failure: OnFailure::Abort }
}

fn hook(name: &str, pre: &str, post: &str) -> Hook {
    of(name, HookKind::Hook(CommandHook { pre: sh(pre), post: sh(post), ..CommandHook::default() }))
}

/// A pair of commands that are no scripts.
fn pair(name: &str, pre: Option<Vec<String>>, post: Option<Vec<String>>) -> Hook {
    of(name, HookKind::Hook(CommandHook { pre, post, ..CommandHook::default() }))
}

async fn pre(hook: &Hook, env: &HookEnv) -> HookOutcome {
    quiesce_one(hook, env, &mut Quiesced::default(), pending()).await
}

async fn post(hook: &Hook, env: &HookEnv) -> HookOutcome {
    release_one(hook, env, &mut Quiesced::default()).await
}

fn dir() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    (dir, path)
}

/// The process id in a file, once it is there.
async fn pid_in(file: &Path) -> i32 {
    for _ in 0..2000 {
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
    for _ in 0..2000 {
        if !lives(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}
