//! Hook directories, as qemu-guest-agent and open-vm-tools have them: every executable is called with
//! `freeze`, and in reverse order with `thaw`, or `freezeFail` when nothing came to be frozen and it knows
//! that word.
//!
//! In: the directory. Out: one hook for each of its executables, in the order of their names, so that each is
//! owed its own thaw. Must never: run what run-parts(8) and qemu's own fsfreeze-hook would leave out
//! (editors' and dpkg's leftovers).

use std::future::{Future, pending};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::executable;
use super::outcome::{HookOutcome, HookStatus, Phase};
use super::session_process::Session;
use super::verbs::{Application, Narrowed, Verbs};
use crate::config::settings::{DirectoryHook, Hook, HookKind, ScriptHook};

/// Suffixes of files that editors and packages leave behind. qemu's fsfreeze-hook skips the same.
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
const FREEZE: &str = "freeze";
const THAW: &str = "thaw";
/// The argument that open-vm-tools calls a script with after a freeze that failed.
const FREEZE_FAIL: &str = "freezeFail";
/// How many bytes of a script are searched for that word.
const SEARCHED: u64 = 1 << 20;

impl Verbs for DirectoryHook {
    /// Called only for a directory without executables: otherwise `members` has replaced it.
    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        Err(app.refused(Phase::Pre, self.nothing(), None))
    }

    async fn quiesce(
        &self,
        app: &Application<'_>,
        _noted: impl FnOnce(u32),
        _cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        (app.refused(Phase::Pre, self.nothing(), None), None)
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        app.outcome(Phase::Post, HookStatus::Ok)
    }

    /// A hook for each of its executables, in the order of their names.
    fn members(&self, hook: &Hook) -> Result<Vec<Hook>, String> {
        let cannot = |e| format!("hook directory {}: {e}", self.path.display());
        let mut programs = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if runs(&path) {
                programs.push(path);
            }
        }
        programs.sort();
        let member = |program: PathBuf| Hook {
            name: format!("{}/{}", hook.name, program.file_name().unwrap_or_default().to_string_lossy()),
            kind: HookKind::Script(ScriptHook { program }),
            ..hook.clone()
        };
        Ok(programs.into_iter().map(member).collect())
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut programs: Vec<_> = entries.map(|e| e.path()).filter(|path| runs(path)).collect();
        programs.sort();
        [vec![self.path.clone()], programs].concat()
    }
}

impl DirectoryHook {
    fn nothing(&self) -> String {
        format!("{} has no executable file", self.path.display())
    }
}

fn runs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !LEFTOVERS.iter().any(|end| name.ends_with(end)) && executable(path).is_ok()
}

impl Verbs for ScriptHook {
    async fn quiesce(
        &self,
        app: &Application<'_>,
        _noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        (app.run(Phase::Pre, &argv(self, FREEZE), cancel).await, None)
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        // A script that does not know the word may exit 0 without releasing anything, as qemu's own
        // dispatcher does. So only a script that has the word in its text is called with it.
        if !app.env.frozen && knows_freeze_fail(&self.program) {
            let outcome = app.run(Phase::Post, &argv(self, FREEZE_FAIL), pending()).await;
            if outcome.succeeded() {
                return outcome;
            }
        }
        app.run(Phase::Post, &argv(self, THAW), pending()).await
    }
}

fn argv(script: &ScriptHook, word: &str) -> Vec<String> {
    vec![script.program.to_string_lossy().into_owned(), word.to_owned()]
}

/// True when the script has the word `freezeFail` in its text. Scripts for qemu-guest-agent know only
/// `freeze` and `thaw`; that agent calls them with `thaw` after a failed freeze too.
fn knows_freeze_fail(program: &Path) -> bool {
    let mut text = Vec::new();
    let read = std::fs::File::open(program).and_then(|file| file.take(SEARCHED).read_to_end(&mut text));
    read.is_ok() && text.windows(FREEZE_FAIL.len()).any(|w| w == FREEZE_FAIL.as_bytes())
}
