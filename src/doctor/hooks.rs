//! Hooks: can each command run, and can only root change it?
//!
//! In: the configured hooks. Out: findings. Must never: run one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Finding;
use crate::config::settings::Hook;
use crate::error::chain;
use crate::exit::Exit;
use crate::path_encoding::shown;
use crate::quiesce;

/// Finds hook commands that cannot be run. `program` is this program's own file.
#[must_use]
pub(crate) fn runnable(hooks: &[Hook], program: &Path) -> Vec<Finding> {
    let unreadable = |hook| {
        let why = quiesce::expand(std::slice::from_ref(hook)).err()?;
        let remedy = "create it, or take the [[hook_directory]] out of the configuration";
        Some(Finding::problem("hook-runs", Exit::Config, why).remedy(remedy))
    };
    let single: Vec<Hook> =
        hooks.iter().filter_map(|hook| quiesce::expand(std::slice::from_ref(hook)).ok()).flatten().collect();
    let found: Vec<_> = quiesce::trial::not_startable(&single, program)
        .into_iter()
        .map(|e| {
            if needs_root(&e.source, &e.program) {
                let what =
                    format!("whether root can run {} (hook `{}`) needs root", shown(&e.program), e.hook);
                return Finding::not_checked("hook-runs", what);
            }
            let finding = Finding::problem("hook-runs", Exit::Config, chain(&e)).at([shown(&e.program)]).why(
                "a hook that cannot be started ends the run; a post command that \
                 cannot be started leaves the application quiesced",
            );
            match e.hint() {
                Some(hint) => finding.remedy(hint),
                None => finding,
            }
        })
        .chain(hooks.iter().filter_map(unreadable))
        .collect();
    match (found.is_empty(), hooks.len()) {
        (false, _) => found,
        (true, 0) => vec![Finding::ok("hook-runs", "no hooks are configured")],
        (true, _) => vec![Finding::ok("hook-runs", "every command of the hooks can be run")],
    }
}

/// Could root run what this process's user may not?
fn needs_root(error: &std::io::Error, program: &Path) -> bool {
    // Root may run whatever anybody may run.
    let nobody = std::fs::metadata(program).is_ok_and(|m| m.permissions().mode() & 0o111 == 0);
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    denied && !nobody && !nix::unistd::geteuid().is_root()
}

/// Every file that a hook starts and that somebody else than root can change.
#[must_use]
pub fn writable(hooks: &[Hook]) -> Vec<Finding> {
    let mut found = Vec::new();
    for hook in hooks {
        for (file, loose) in quiesce::loose(hook) {
            let finding =
                Finding::problem("hook-writable", Exit::Config, format!("hook `{}`: {loose}", hook.name))
                    .at([shown(&file)])
                    .why(
                        "hooks run as root: whoever can change this file, or a folder or a link that leads \
                         to it, can run commands as root",
                    )
                    .remedy(loose.remedy);
            if !found.contains(&finding) {
                found.push(finding);
            }
        }
    }
    if found.is_empty() && hooks.iter().any(|hook| !quiesce::files(hook).is_empty()) {
        found.push(Finding::ok("hook-writable", "only root can change what the hooks start"));
    }
    found
}
