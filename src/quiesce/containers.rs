//! Containers that are paused and go on: `docker pause`, `podman pause`.
//!
//! In: an engine and names. Out: those that run, paused, and unpaused again. Must never: unpause what was paused before.

use std::future::Future;

use super::{Hook, HookEnv, HookOutcome, HookStatus, Phase};
use crate::config::settings::ContainerHook;

/// The containers that run now; none when none does.
pub(super) async fn due(
    hook: &Hook,
    _containers: &ContainerHook,
    _env: &HookEnv,
) -> Result<Option<Hook>, HookOutcome> {
    let status = HookStatus::Refused("not built yet".into());
    Err(HookOutcome::new(&hook.name, Phase::Pre, status, std::time::Duration::ZERO, String::new()))
}

/// Pauses them, or lets them go on.
pub(super) async fn call(
    hook: &Hook,
    _containers: &ContainerHook,
    phase: Phase,
    _env: &HookEnv,
    _cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let status = HookStatus::Refused("not built yet".into());
    HookOutcome::new(&hook.name, phase, status, std::time::Duration::ZERO, String::new())
}
