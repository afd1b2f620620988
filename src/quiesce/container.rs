//! Containers that are paused and go on: `docker pause`, `podman pause`.
//!
//! In: an engine and names. Out: those that run, paused, and unpaused again. Must never: unpause what was paused before, or another
//! container that has the same name by then (they are journaled by id).

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use super::query::{program, query};
use super::{Hook, HookEnv, HookKind, HookOutcome, HookStatus, Phase, run};
use crate::config::settings::{ContainerEngine, ContainerHook};

/// What an engine is asked of a container: full id and state.
const FORMAT: &str = "{{.Id}} {{.State.Status}}";

fn engine(hook: &ContainerHook) -> Result<PathBuf, String> {
    program(match hook.engine {
        ContainerEngine::Docker => "docker",
        ContainerEngine::Podman => "podman",
    })
}

/// Id and state.
async fn inspect(hook: &ContainerHook, container: &str, env: &HookEnv) -> Result<(String, String), String> {
    let asked = ["inspect", "--type", "container", "--format", FORMAT, container];
    let said = query(&engine(hook)?, &asked, env).await?;
    match said.trim().split_once(' ') {
        Some((id, state)) => Ok((id.to_owned(), state.to_owned())),
        None => Err(format!("it is not said what {container} is: {}", said.trim())),
    }
}

/// The containers that run now and are not paused, by their ids; none when none does.
pub(super) async fn due(
    hook: &Hook,
    containers: &ContainerHook,
    env: &HookEnv,
) -> Result<Option<Hook>, HookOutcome> {
    let mut running = Vec::new();
    for container in &containers.containers {
        let (id, state) = inspect(containers, container, env).await.map_err(|why| refused(hook, why))?;
        if matches!(state.as_str(), "restarting" | "stopping" | "removing" | "initialized") {
            return Err(refused(hook, format!("{container} is {state}: it cannot be told what it will be")));
        }
        if state == "running" && !running.contains(&id) {
            running.push(id);
        } else {
            tracing::info!(hook = hook.name, "{container} is {state}: it is left alone");
        }
    }
    let kind = HookKind::Container(ContainerHook { containers: running.clone(), ..containers.clone() });
    Ok((!running.is_empty()).then(|| Hook { kind, ..hook.clone() }))
}

fn refused(hook: &Hook, why: String) -> HookOutcome {
    HookOutcome::new(&hook.name, Phase::Pre, HookStatus::Refused(why), Duration::ZERO, String::new())
}

/// Why they were not all held until now, when it is so.
pub(super) async fn released_early(containers: &ContainerHook, env: &HookEnv) -> Option<String> {
    for container in &containers.containers {
        match inspect(containers, container, env).await {
            Ok((_, state)) if state == "paused" => {}
            Ok((_, state)) => return Some(format!("container {container} was {state}, not paused any more")),
            Err(why) => return Some(why),
        }
    }
    None
}

/// Pauses them, or lets those go on that are paused.
pub(super) async fn call(
    hook: &Hook,
    containers: &ContainerHook,
    phase: Phase,
    env: &HookEnv,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let engine = match engine(containers) {
        Ok(engine) => engine.to_string_lossy().into_owned(),
        Err(why) => return HookOutcome { phase, ..refused(hook, why) },
    };
    let (verb, mut which) = match phase {
        Phase::Pre => ("pause", containers.containers.clone()),
        _ => ("unpause", Vec::new()),
    };
    if phase != Phase::Pre {
        // An engine refuses to unpause what is not paused, and the others with it.
        for container in &containers.containers {
            let state = inspect(containers, container, env).await;
            // Where the engine cannot tell, it is tried: it might be paused.
            if state.as_ref().map_or(true, |(_, state)| state == "paused") {
                which.push(container.clone());
            }
        }
        if which.is_empty() {
            return HookOutcome::new(&hook.name, phase, HookStatus::Ok, Duration::ZERO, String::new());
        }
    }
    let argv: Vec<String> = [engine, verb.to_owned()].into_iter().chain(which).collect();
    run(hook, phase, &argv, env, cancel).await
}
