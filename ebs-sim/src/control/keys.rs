//! KMS keys in the control API: list them, and change what can be done with one.
//!
//! In: a Region and a key's id. Out: its state changed. What was encrypted with it before must stay as it is.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::scenario::KeyState;
use crate::sim::Sim;

/// `{"state": "disabled"}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    state: KeyState,
}

pub fn list(sim: &Sim) -> Value {
    let world = sim.world();
    let shown = |key: &crate::world::KmsKey| {
        let (id, region, alias, state) = (&key.id, &key.region, &key.alias, &key.state);
        json!({ "id": id, "region": region, "arn": key.arn(), "alias": alias, "state": state })
    };
    json!(world.kms_keys.iter().map(shown).collect::<Vec<_>>())
}

/// Changes one's state. The id of the default key is in the list.
pub fn set(sim: &Sim, region: &str, id: &str, change: Change) -> Outcome {
    let mut world = sim.change();
    match world.kms_keys.iter_mut().find(|key| key.region == region && key.id == id) {
        None => Err((404, format!("there is no key {id} in {region}"))),
        Some(key) => {
            key.state = change.state;
            Ok(json!({ "id": key.id, "region": key.region, "state": key.state }))
        }
    }
}
