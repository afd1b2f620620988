//! Hook directories, as qemu-guest-agent and open-vm-tools have them: every executable is called with `freeze`, and in reverse order with
//! `thaw`, or `freezeFail` when nothing came to be frozen and it knows that word.
//!
//! In: the directory. Out: one hook for each of its executables, in the order of their names, so that each is owed its own thaw. Must
//! never: run what run-parts(8) and qemu's own fsfreeze-hook would leave out (editors' and dpkg's leftovers).

use std::future::{Future, pending};
use std::io::Read;
use std::path::Path;

use super::{Hook, HookEnv, HookKind, HookOutcome, Phase, executable, run};
use crate::config::settings::ScriptHook;

/// What is left out, as qemu's fsfreeze-hook does it.
const LEFTOVERS: [&str; 14] = [
    "~",
    ".bak",
    ".orig",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
    ".sample",
    ".dpkg-old",
    ".dpkg-new",
    ".dpkg-tmp",
    ".dpkg-dist",
    ".dpkg-bak",
    ".dpkg-backup",
    ".dpkg-remove",
];
/// The word of open-vm-tools for a freeze that failed.
const FREEZE_FAIL: &str = "freezeFail";
/// How much of a script is searched for it.
const SEARCHED: u64 = 1 << 20;

/// The hooks with every hook directory replaced by its executables.
///
/// # Errors
/// When a directory cannot be read; the text says which.
pub fn expand(hooks: &[Hook]) -> Result<Vec<Hook>, String> {
    let mut all = Vec::with_capacity(hooks.len());
    for hook in hooks {
        let HookKind::HookDirectory(directory) = &hook.kind else {
            all.push(hook.clone());
            continue;
        };
        let cannot = |e| format!("hook directory {}: {e}", directory.path.display());
        let mut programs = Vec::new();
        for entry in std::fs::read_dir(&directory.path).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if runs(&path) {
                programs.push(path);
            }
        }
        programs.sort();
        if programs.is_empty() {
            // Nothing can be held by it: whoever holds has to say so.
            all.push(hook.clone());
        }
        all.extend(programs.into_iter().map(|program| Hook {
            name: format!("{}/{}", hook.name, program.file_name().unwrap_or_default().to_string_lossy()),
            kind: HookKind::Script(ScriptHook { program }),
            ..hook.clone()
        }));
    }
    Ok(all)
}

fn runs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !LEFTOVERS.iter().any(|end| name.ends_with(end)) && executable(path).is_ok()
}

/// Calls one of them.
pub(super) async fn call(
    hook: &Hook,
    script: &ScriptHook,
    phase: Phase,
    env: &HookEnv,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let argv = |word: &str| vec![script.program.to_string_lossy().into_owned(), word.to_owned()];
    if phase == Phase::Pre {
        return run(hook, phase, &argv("freeze"), env, cancel).await;
    }
    // One that has not the word may end well all the same, without letting anything go:
    // qemu's own dispatcher does.
    if !env.frozen && knows_freeze_fail(&script.program) {
        let told = run(hook, phase, &argv(FREEZE_FAIL), env, pending()).await;
        if told.succeeded() {
            return told;
        }
    }
    run(hook, phase, &argv("thaw"), env, cancel).await
}

/// Scripts written for qemu-guest-agent know `freeze` and `thaw` alone, and are told `thaw` by it when the freeze failed.
fn knows_freeze_fail(program: &Path) -> bool {
    let mut text = Vec::new();
    let read = std::fs::File::open(program).and_then(|file| file.take(SEARCHED).read_to_end(&mut text));
    read.is_ok() && text.windows(FREEZE_FAIL.len()).any(|w| w == FREEZE_FAIL.as_bytes())
}
