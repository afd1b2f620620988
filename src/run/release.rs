//! Releases the applications: in the run itself, or in the recovery of a dead run.
//!
//! In: the journal. Out: one outcome for each post command. Must never: stop at a failure, or run a post
//! command that the journal does not have.

use super::environment::Environment;
use super::journal::Journal;
use super::progress::Progress;
use super::step::Step;
use crate::quiesce::{self, HookEnv, HookOutcome, HookStatus, Quiesced};

/// Releases everything that was attempted in this run, in reverse. What is already released is no longer in
/// the journal.
pub(super) async fn all<E>(env: &Environment<'_, E>, progress: &mut Progress) {
    let Progress { journal, applications: apps, .. } = progress;
    let released = owed(journal, &apps.env, &mut apps.quiesced, true, |step| env.at(step)).await;
    apps.outcomes.extend(released);
}

/// Runs the post commands that are owed, in reverse order, goes on past failures, and removes each from the
/// journal when it has run: if this process dies meanwhile, only the command that was running then is run
/// twice.
///
/// A journal that cannot be written does not stop them. A command that failed stays in the journal if it may
/// be repeated without harm and `again` says that this is the run itself, so that a recovery will repeat it.
/// A recovery gives up what failed, but not what could not even be started and may be repeated without harm:
/// its program may be missing only now, during an upgrade.
pub(crate) async fn owed(
    journal: &mut Journal,
    env: &HookEnv,
    quiesced: &mut Quiesced,
    again: bool,
    at: impl Fn(Step),
) -> Vec<HookOutcome> {
    quiesced.find_released_early(&journal.state.attempted, env).await;
    let mut owed = Vec::new();
    let mut outcomes = Vec::with_capacity(journal.state.attempted.len());
    let _ = journal.update(|state| state.env = Some(env.clone()));
    while let Some(hook) = journal.state.attempted.last().cloned() {
        at(Step::PostHook);
        let left = journal.state.sessions.iter().find(|s| s.hook == hook.name).cloned();
        let ended = match left.filter(|_| !quiesced.has_session(&hook.name)) {
            Some(left) => quiesce::orphans::end_session(&left, env, &hook).await,
            None => None,
        };
        if !again {
            quiesce::orphans::end_commands(env, &hook).await;
        }
        let released = quiesce::release_one(&hook, env, quiesced).await;
        let not_run = matches!(released.status, HookStatus::NotStarted(_));
        let later = if again { not_run || hook.releases_again() } else { not_run && hook.releases_again() };
        if later && !released.succeeded() && !released.lost {
            owed.insert(0, hook.clone());
        }
        outcomes.push(ended.filter(|_| released.succeeded()).unwrap_or(released));
        at(Step::Released);
        let _ = journal.update(|state| {
            state.attempted.truncate(state.attempted.len() - 1);
            state.sessions.retain(|s| s.hook != hook.name);
        });
    }
    if !owed.is_empty() {
        let _ = journal.update(|state| state.attempted = owed);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Hook;
    use crate::ids::RunId;

    #[tokio::test]
    async fn a_release_that_could_not_be_started_is_owed_to_the_recovery_and_then_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let env = serde_json::from_value(serde_json::json!({
            "run_id": RunId::generate(), "plan": "p", "instance_id": "i-0123456789abcdef0", "region": "r", "mounts": [],
            "volumes": [],
        }));
        let env: HookEnv = env.unwrap();
        let post = |program: &str| crate::config::settings::CommandHook {
            post: Some(vec![program.to_owned()]),
            ..Default::default()
        };
        let hook = |name: &str, program: &str| Hook {
            name: name.to_owned(),
            kind: crate::config::settings::HookKind::Hook(post(program)),
            timeout: std::time::Duration::from_secs(5),
            on_failure: crate::config::settings::OnFailure::Abort,
        };
        let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
        let hooks =
            vec![hook("gone", "/nonexistent/x"), hook("fails", "/bin/false"), hook("good", "/bin/true")];
        journal.update(|s| s.attempted = hooks).unwrap();
        let ran = owed(&mut journal, &env, &mut Quiesced::default(), true, |_| ()).await;
        assert_eq!(ran.iter().map(HookOutcome::succeeded).collect::<Vec<_>>(), [true, false, false]);
        let left: Vec<_> = journal.state.attempted.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(left, ["gone"], "what ran and failed is not run twice");
        assert_eq!(owed(&mut journal, &env, &mut Quiesced::default(), false, |_| ()).await.len(), 1);
        assert!(journal.state.attempted.is_empty());
    }
}
