//! Containers that are paused and go on: `docker pause`, `podman pause`.
//!
//! In: an engine and names. Out: those that run, paused, and unpaused again. Must never: unpause what was
//! paused before, or another container that has the same name by then (they are journaled by id).

use std::ffi::OsString;
use std::future::{Future, pending};
use std::path::PathBuf;

use super::outcome::{HookOutcome, HookStatus, Phase};
use super::query::{program, query_as};
use super::session_process::Session;
use super::user::RUNTIME_FOLDER;
use super::verbs::{Application, Narrowed, Verbs, variables};
use crate::config::settings::{ContainerEngine, ContainerHook, HookKind};

/// What an engine is asked of a container: full id and state.
const FORMAT: &str = "{{.Id}} {{.State.Status}}";

fn engine_name(hook: &ContainerHook) -> &'static str {
    match hook.engine {
        ContainerEngine::Docker => "docker",
        ContainerEngine::Podman => "podman",
    }
}

fn engine(hook: &ContainerHook) -> Result<PathBuf, String> {
    program(engine_name(hook))
}

/// Asks the engine for the container's full id and its state.
async fn inspect(
    hook: &ContainerHook,
    container: &str,
    app: &Application<'_>,
) -> Result<(String, String), String> {
    let engine = engine(hook)?.to_string_lossy().into_owned();
    let asked = [&engine, "inspect", "--type", "container", "--format", FORMAT, container].map(str::to_owned);
    let said = query_as(app.user(), &asked, &app.vars(Phase::Pre)).await?;
    match said.trim().split_once(' ') {
        Some((id, state)) => Ok((id.to_owned(), state.to_owned())),
        None => Err(format!("it is not said what {container} is: {}", said.trim())),
    }
}

impl Verbs for ContainerHook {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A rootless engine finds its containers by the runtime folder. The process that becomes the user fills it
    /// in.
    fn variables(&self) -> Vec<(String, OsString)> {
        let mut all = variables(&self.environment);
        if self.user.is_some() && !self.environment.contains_key(RUNTIME_FOLDER) {
            all.push((RUNTIME_FOLDER.to_owned(), OsString::new()));
        }
        all
    }

    fn program(&self) -> Option<Result<PathBuf, (&'static str, String)>> {
        Some(engine(self).map_err(|why| (engine_name(self), why)))
    }

    /// The containers that run now and are not paused, by their ids.
    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        let refused = |why| app.refused(Phase::Pre, why, None);
        let mut running = Vec::new();
        for container in &self.containers {
            let (id, state) = inspect(self, container, app).await.map_err(refused)?;
            if matches!(state.as_str(), "restarting" | "stopping" | "removing" | "initialized") {
                return Err(refused(format!("{container} is {state}: it cannot be told what it will be")));
            }
            if state == "running" && !running.contains(&id) {
                running.push(id);
            } else {
                tracing::info!(hook = app.hook.name, "{container} is {state}: it is left alone");
            }
        }
        if running.is_empty() {
            return Ok(Narrowed::Nothing);
        }
        Ok(Narrowed::Only(HookKind::Container(Self { containers: running, ..self.clone() })))
    }

    async fn quiesce(
        &self,
        app: &Application<'_>,
        _noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        (call(self, app, Phase::Pre, "pause", self.containers.clone(), cancel).await, None)
    }

    async fn released_early(&self, app: &Application<'_>) -> Option<String> {
        for container in &self.containers {
            match inspect(self, container, app).await {
                Ok((_, state)) if state == "paused" => {}
                Ok((_, state)) => {
                    return Some(format!("container {container} was {state}, not paused any more"));
                }
                Err(why) => return Some(why),
            }
        }
        None
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        if let Err(why) = engine(self) {
            return app.refused(Phase::Post, why, None);
        }
        // Only paused containers are named: an engine refuses to unpause one that is not paused, and then
        // may leave the others paused as well.
        let mut paused = Vec::new();
        for container in &self.containers {
            let state = inspect(self, container, app).await;
            // When the engine does not answer, the container is unpaused all the same, because it might be
            // paused.
            if state.as_ref().map_or(true, |(_, state)| state == "paused") {
                paused.push(container.clone());
            }
        }
        if paused.is_empty() {
            return app.outcome(Phase::Post, HookStatus::Ok);
        }
        call(self, app, Phase::Post, "unpause", paused, pending()).await
    }
}

async fn call(
    hook: &ContainerHook,
    app: &Application<'_>,
    phase: Phase,
    verb: &str,
    containers: Vec<String>,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let engine = match engine(hook) {
        Ok(engine) => engine.to_string_lossy().into_owned(),
        Err(why) => return app.refused(phase, why, None),
    };
    let argv: Vec<String> = [engine, verb.to_owned()].into_iter().chain(containers).collect();
    app.run(phase, &argv, cancel).await
}
