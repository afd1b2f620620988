//! Hooks: can each command run, and can only root change it?
//!
//! In: the configured hooks. Out: findings. Must never: run one.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::settings::Hook;
use crate::error::chain;
use crate::exit::Exit;
use crate::path_encoding::shown;
use crate::quiesce;

/// Programs that run the file in their first argument.
const INTERPRETERS: [&str; 9] = ["sh", "bash", "dash", "zsh", "ksh", "python", "python3", "perl", "ruby"];

/// Finds hook commands that cannot be run.
#[must_use]
pub(crate) fn runnable(hooks: &[Hook]) -> Vec<Finding> {
    let unreadable = |hook| {
        let why = quiesce::expand(std::slice::from_ref(hook)).err()?;
        let remedy = "create it, or take the [[hook_directory]] out of the configuration";
        Some(Finding::problem("hook-runs", Exit::Config, why).remedy(remedy))
    };
    let found: Vec<_> = quiesce::not_executable(hooks)
        .map(|e| {
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

/// Every file of a hook that somebody else than root can change.
#[must_use]
pub fn writable(hooks: &[Hook]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut examined = 0;
    for hook in hooks {
        for file in files_of(hook) {
            examined += 1;
            if let Some((place, how)) = loose(&file) {
                let what = format!("hook `{}`: {} {how}", hook.name, shown(&place));
                let finding = Finding::problem("hook-writable", Exit::Config, what)
                    .at([shown(&file)])
                    .why(
                        "hooks run as root: whoever can change this file, or a folder above it, \
                 can run commands as root",
                    )
                    .remedy(format!("chown root:root {0} && chmod go-w {0}", shown(&place)));
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
        }
    }
    if found.is_empty() && examined > 0 {
        found.push(Finding::ok("hook-writable", "only root can change the hooks' files"));
    }
    found
}

/// Every file that this hook would run, and a hook directory itself: whoever can add a file to it can run
/// commands as root.
fn files_of(hook: &Hook) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        hook.commands().flat_map(|(_, argv)| programs_in(argv)).map(Path::to_path_buf).collect();
    all.extend(quiesce::files(hook));
    all
}

/// The program, and the script that an interpreter is given.
fn programs_in(argv: &[String]) -> impl Iterator<Item = &Path> {
    let program = argv.first().map(Path::new);
    let name = program.and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or_default();
    let script = argv.iter().skip(1).find(|a| !a.starts_with('-')).map(Path::new);
    let script = script.filter(|p| INTERPRETERS.contains(&name) && p.is_file());
    program.into_iter().chain(script)
}

/// The file, or the folder above it, that others can write, and how; along the given path and along the
/// resolved one.
fn loose(file: &Path) -> Option<(PathBuf, String)> {
    let real = std::fs::canonicalize(file).ok();
    [Some(file.to_path_buf()), real].into_iter().flatten().find_map(|path| {
        let mut below_is_roots = false;
        for place in path.ancestors() {
            let Ok(meta) = std::fs::metadata(place) else { return None };
            // In a sticky folder only the owner of an entry can replace it.
            let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0 && below_is_roots;
            if let Some(how) = how_loose(&meta).filter(|_| !sticky) {
                return Some((place.to_path_buf(), how));
            }
            below_is_roots = meta.uid() == 0;
        }
        None
    })
}

fn how_loose(meta: &Metadata) -> Option<String> {
    if meta.uid() != 0 {
        return Some(format!("belongs to user {}", meta.uid()));
    }
    match meta.mode() {
        mode if mode & 0o002 != 0 => Some("can be written by everybody".to_owned()),
        mode if mode & 0o020 != 0 && meta.gid() != 0 => {
            Some(format!("can be written by group {}", meta.gid()))
        }
        _ => None,
    }
}
