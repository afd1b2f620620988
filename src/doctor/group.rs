//! The group that this host is a member of: can the engine be used as a run uses it?
//!
//! In: the settings. Out: findings. Must never: change anything in the engine.

use super::Finding;
use crate::config::settings::GroupSettings;
use crate::exit::Exit;
use crate::group::Broken;
use crate::group::engine::{Engine as _, EngineError};
use crate::group::etcd::Etcd;

const ID: &str = "group";
const WHY: &str = "a run would be refused before anything is touched";

/// Asks the engine.
pub async fn group(settings: &GroupSettings) -> Vec<Finding> {
    let (name, member) = (&settings.name, &settings.member);
    let engine = match Etcd::new(settings) {
        Ok(engine) => engine,
        Err(e) => {
            let finding = Finding::problem(ID, Exit::Config, e.to_string()).why(WHY);
            return vec![finding.remedy(e.hint)];
        }
    };
    let mut found = Vec::new();
    found.push(match engine.probe().await {
        Ok(said) => {
            Finding::ok(ID, format!("{member} of the group {name} can meet the others at etcd: {said}"))
                .at(settings.members.iter().cloned())
        }
        Err(e) => {
            let broken = Broken::Engine(e.clone());
            let exit = if matches!(e, EngineError::Denied(_)) { Exit::Permission } else { Exit::Group };
            Finding::problem(ID, exit, format!("{member} of the group {name}: {e}"))
                .why(WHY)
                .remedy(broken.hint())
        }
    });
    let open: Vec<_> = settings.endpoints.iter().filter(|e| e.starts_with("http://")).cloned().collect();
    if !open.is_empty() {
        let what = "the group's engine is reached without TLS";
        found.push(
            Finding::warning(ID, what)
                .at(open)
                .why("whoever is on that network can pretend to be a member, and make a set look like the group's")
                .remedy("write https://… in [group] `endpoints`, and etcd's CA in `ca`"),
        );
    }
    found
}
