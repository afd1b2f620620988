//! Faults by their number, and the requests that they hold.
//!
//! In: a fault, or the number of one. Out: its number, or what it holds. A number that no fault ever had must
//! never be waited for.

use std::time::Duration;

use serde_json::json;

use super::Outcome;
use crate::faults::Fault;
use crate::http::Call;
use crate::sim::Sim;

/// How long somebody waits for a held request who does not say so.
const WITHIN: Duration = Duration::from_secs(30);

/// Sets one more.
pub fn add(sim: &Sim, fault: Fault) -> Outcome {
    fault.check().map_err(|error| (400, error))?;
    Ok(json!({ "id": sim.faults().add(fault) }))
}

/// Forgets one. What it holds goes on.
pub fn remove(sim: &Sim, id: &str) -> Outcome {
    let number = known(sim, id)?;
    let was_set = sim.faults().remove(number);
    if sim.held.release(number) == 0 && !was_set {
        return Err((404, format!("fault {id} has struck for the last time")));
    }
    Ok(json!({}))
}

/// Waits until it holds a request, or as many as `count` says.
pub async fn wait(sim: &Sim, id: &str, call: &Call) -> Outcome {
    let fault = known(sim, id)?;
    let other = sim.faults().list().iter().find(|set| set.id == fault).map(|set| set.fault.kind);
    if let Some(kind) = other.filter(|kind| !kind.holds()) {
        return Err((409, format!("fault {id} is {}, which holds nothing", kind.name())));
    }
    let (mut within, mut count) = (WITHIN, 1);
    for (key, value) in form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()) {
        let number = value.parse().map_err(|_| (400, format!("{key}={value}: a number is expected")))?;
        match &*key {
            "within_ms" => within = Duration::from_millis(number),
            "count" => count = usize::try_from(number).unwrap_or(usize::MAX),
            _ => return Err((400, format!("{key} is not within_ms or count"))),
        }
    }
    let held = sim.held.wait(fault, count, within).await;
    if held.len() < count {
        let seconds = within.as_secs_f64();
        return Err((408, format!("after {seconds} s fault {id} holds {} of {count} requests", held.len())));
    }
    Ok(json!(held))
}

/// Lets go on what it holds.
pub fn release(sim: &Sim, id: &str) -> Outcome {
    match sim.held.release(known(sim, id)?) {
        0 => Err((409, format!("fault {id} holds no request"))),
        released => Ok(json!({ "released": released })),
    }
}

fn known(sim: &Sim, id: &str) -> Result<u64, (u16, String)> {
    let number = id.parse().ok().filter(|number| sim.faults().knows(*number));
    number.ok_or_else(|| (404, format!("there is no fault {id}")))
}
