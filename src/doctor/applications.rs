//! Databases: could a run quiesce each of them?
//!
//! In: the configured hooks, and the environment that a run would give them. Out: findings. Must never:
//! quiesce anything.

use super::Finding;
use crate::config::settings::{Hook, OnFailure};
use crate::exit::Exit;
use crate::quiesce::{self, HookEnv};

/// A finding for each configured database: could a run quiesce it?
pub async fn databases(hooks: &[Hook], env: &HookEnv) -> Vec<Finding> {
    const ID: &str = "database";
    let mut found = Vec::new();
    for hook in hooks {
        let Some(outcome) = quiesce::check(hook, env).await else { continue };
        if outcome.succeeded() {
            let facts: Vec<_> = outcome.facts.iter().map(|(k, v)| format!("{k} {v}")).collect();
            let what = format!("`{}` ({}) can be quiesced", hook.name, hook.kind.section());
            found.push(Finding::ok(ID, what).at(facts));
            continue;
        }
        let finding = match hook.on_failure {
            OnFailure::Abort => Finding::problem(ID, Exit::Hook, outcome.to_string())
                .why("the run ends before anything is frozen"),
            OnFailure::Degrade => {
                Finding::warning(ID, outcome.to_string()).why("the set is at most filesystem-consistent")
            }
        };
        found.push(match outcome.hint {
            Some(hint) => finding.remedy(hint),
            None => finding,
        });
    }
    found
}
