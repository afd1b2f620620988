//! The control API under `/_ebs-sim/`: faults, the log, devices of snapshots, attachments.
//!
//! In: JSON from tests and from ebs-sim's own commands, unsigned. Out: JSON. It must never be reachable
//! from beyond this machine: the server listens on loopback only.

mod faults;
mod fill;
mod keys;

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::guest::{self, Guest};
use crate::http::{Call, Reply};
use crate::ids::{InstanceId, SnapshotId};
use crate::lifecycle;
use crate::policy::Policy;
use crate::ready::CONTROL;
use crate::sim::Sim;
use crate::world::{Attachment, InstanceState, Sizes, Stage, Tags, Volume};

/// The clock goes no further than this ahead, in seconds: a thousand years.
const MAX_AHEAD: i64 = 1000 * 366 * 24 * 3600;

type Outcome = Result<Value, (u16, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Iam {
    /// As it is when absent.
    deny: Option<Vec<String>>,
    /// A policy, null for none; as it is when absent.
    #[serde(default, deserialize_with = "given")]
    policy: Option<Option<Value>>,
}

/// What is there, also when it is null.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Value>>, D::Error> {
    Option::<Value>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    advance_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDevice {
    snapshot_id: SnapshotId,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGuest {
    qmp: PathBuf,
    /// The scenario's, where none is named.
    instance: Option<InstanceId>,
}

/// Answers one control request.
pub async fn handle(sim: Arc<Sim>, call: Call) -> Reply {
    let path = call.uri.path().to_owned();
    let rest = path.strip_prefix(CONTROL).unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').collect();
    let outcome = match (call.method.clone(), parts.as_slice()) {
        (Method::POST, ["faults"]) => read(&call).and_then(|fault| faults::add(&sim, fault)),
        (Method::GET, ["faults"]) => Ok(json!(sim.faults().list())),
        (Method::DELETE, ["faults"]) => {
            sim.clear_faults();
            Ok(json!({}))
        }
        (Method::DELETE, ["faults", id]) => faults::remove(&sim, id),
        (Method::GET, ["faults", id, "held"]) => faults::wait(&sim, id, &call).await,
        (Method::POST, ["faults", id, "release"]) => faults::release(&sim, id),
        (Method::GET, ["held"]) => Ok(json!(sim.held.list())),
        (Method::GET, ["requests"]) => Ok(json!(sim.log().entries())),
        (Method::GET, ["actions"]) => Ok(json!(crate::ec2::ACTIONS)),
        (Method::GET, ["snapshots"]) => Ok(snapshots(&sim)),
        (Method::GET, ["kms-keys"]) => Ok(keys::list(&sim)),
        (Method::POST, ["kms-keys", region, id]) => {
            read(&call).and_then(|body| keys::set(&sim, region, id, body))
        }
        (Method::POST, ["reset"]) => reset(sim.clone()).await,
        (Method::POST, ["iam"]) => read::<Iam>(&call).and_then(|body| set_iam(&sim, body)),
        (Method::GET, ["clock"]) => Ok(clock(&sim)),
        (Method::POST, ["clock"]) => match read::<Clock>(&call) {
            Ok(body) => advance(&sim, &body).await,
            Err(error) => Err(error),
        },
        (Method::POST, ["tags", id]) => read::<Tags>(&call).and_then(|tags| set_tags(&sim, id, tags)),
        (Method::POST, ["fill"]) => read(&call).and_then(|body| fill::fill(&sim, &body)),
        (Method::POST, ["guest"]) => match read::<NewGuest>(&call) {
            Ok(body) => take_guest(&sim, &body).await,
            Err(error) => Err(error),
        },
        (Method::DELETE, ["guest"]) => {
            sim.guests.lock().await.clear();
            Ok(json!({}))
        }
        (Method::DELETE, ["guest", id]) => {
            sim.guests.lock().await.retain(|instance, _| instance.as_str() != *id);
            Ok(json!({}))
        }
        (Method::POST, ["view"]) => {
            lifecycle::publish(&sim).await;
            Ok(json!({}))
        }
        (Method::POST, ["volumes", volume, "attach"]) => set_attached(&sim, volume, true),
        (Method::POST, ["volumes", volume, "detach"]) => set_attached(&sim, volume, false),
        (Method::POST, ["devices"]) => match read::<NewDevice>(&call) {
            Ok(body) => make_device(sim.clone(), body).await,
            Err(error) => Err(error),
        },
        (Method::DELETE, ["devices", name]) => release_device(sim.clone(), format!("/dev/{name}")).await,
        _ => Err((404, format!("{} {path} is not part of the control API", call.method))),
    };
    sim.save();
    match outcome {
        Ok(value) => Reply::json(200, &value),
        Err((status, error)) => Reply::json(status, &json!({ "error": error })),
    }
}

fn read<T: for<'de> Deserialize<'de>>(call: &Call) -> Result<T, (u16, String)> {
    serde_json::from_slice(&call.body).map_err(|error| (400, error.to_string()))
}

fn set_iam(sim: &Sim, body: Iam) -> Outcome {
    let policy = match body.policy {
        Some(Some(Value::String(text))) => Some(Some(Policy::parse(&text).map_err(|error| (400, error))?)),
        Some(Some(json)) => Some(Some(Policy::parse(&json.to_string()).map_err(|error| (400, error))?)),
        Some(None) => Some(None),
        None => None,
    };
    let mut world = sim.change();
    if let Some(deny) = body.deny {
        world.deny = deny;
    }
    if let Some(policy) = policy {
        world.policy = policy;
    }
    Ok(json!({}))
}

fn clock(sim: &Sim) -> Value {
    let world = sim.world();
    json!({ "now": world.clock(Timestamp::now()).to_string(), "ahead_seconds": world.ahead })
}

/// Moves the account's clock on: what was to happen meanwhile has happened.
async fn advance(sim: &Arc<Sim>, by: &Clock) -> Outcome {
    if by.advance_seconds < 0 {
        return Err((400, "the clock goes forward only".into()));
    }
    let now = {
        let mut world = sim.change();
        world.ahead = world.ahead.saturating_add(by.advance_seconds).min(MAX_AHEAD);
        world.clock(Timestamp::now())
    };
    let _commit = sim.commit.lock().await;
    crate::ec2::purge_bin(sim, now).await;
    Ok(clock(sim))
}

/// Sets tags as nobody can by EC2: other tools' and AWS's own among them. The others stay.
fn set_tags(sim: &Sim, id: &str, tags: Tags) -> Outcome {
    let mut world = sim.change();
    match world.tags_of_mut(id) {
        None => Err((404, format!("there is no snapshot {id}"))),
        Some(known) => {
            known.extend(tags);
            Ok(json!(known))
        }
    }
}

fn snapshots(sim: &Sim) -> Value {
    let world = sim.world();
    let now = world.clock(Timestamp::now());
    let shown: Vec<Value> = world
        .live()
        .chain(world.bin.values())
        .map(|snapshot| {
            let progress = snapshot.progress(now);
            let (full, changed) = match snapshot.sizes {
                Sizes::Known { full, changed } => (Some(full), Some(changed)),
                Sizes::Measuring | Sizes::Unknown => (None, None),
            };
            json!({
                "id": snapshot.id,
                "volume_id": snapshot.volume_id,
                "state": progress.state,
                "progress": progress.percent,
                "started": snapshot.started.to_string(),
                "description": snapshot.description,
                "tags": snapshot.tags,
                "owner": snapshot.owner,
                "region": snapshot.region,
                "image": snapshot.image.as_ref().map(|image| &image.path),
                "offset": snapshot.image.as_ref().map(|image| image.window.offset),
                "length": snapshot.image.as_ref().map(|image| image.window.length),
                "full_bytes": full,
                "changed_bytes": changed,
            })
        })
        .collect();
    json!(shown)
}

/// Forgets snapshots, faults, log and tags of snapshots; volumes, their data and devices stay, and so do instances.
async fn reset(sim: Arc<Sim>) -> Outcome {
    let _commit = sim.commit.lock().await;
    let images = {
        let mut world = sim.change();
        let images: Vec<_> = world
            .snapshots
            .take()
            .chain(world.bin.take().collect::<Vec<_>>())
            .filter_map(|snapshot| snapshot.image)
            .map(|image| image.path)
            .collect();
        world.reset_bin_and_blocks();
        world.spent_tokens.clear();
        world.root_tasks.clear();
        world.reset_images_and_keys();
        world.volumes.retain(|volume| volume.window.is_some());
        let former = world.former_roots.clone();
        let has_device = |volume: &&mut Volume| {
            // A root that was replaced keeps its device, and its place is taken.
            let counts = volume.stage == Stage::Ready && !former.contains(&volume.id);
            volume.loop_device.is_some() && counts && volume.disk.is_some()
        };
        for volume in world.volumes.iter_mut().filter(has_device) {
            // Detached in the API only.
            volume.attachment.get_or_insert(Attachment::complete(volume.created, volume.boot));
        }
        world.ahead = 0;
        world.deny = world.scenario.iam.deny.clone();
        world.policy = world.scenario.iam.policy();
        images
    };
    for image in images {
        // Snapshots of a set share an image: the second removal finds nothing.
        let _ = std::fs::remove_file(image);
    }
    sim.throttle().refill();
    sim.clear_faults();
    sim.log().clear();
    Ok(json!({}))
}

fn set_attached(sim: &Sim, volume: &str, attached: bool) -> Outcome {
    let mut world = sim.change();
    let found = world
        .volumes
        .iter_mut()
        .find(|known| known.is_ebs() && (known.id.as_str() == volume || known.name == volume));
    match found {
        None => Err((404, format!("there is no volume {volume}"))),
        Some(known) if known.loop_device.is_none() => {
            Err((409, format!("{volume} has no device: use AttachVolume")))
        }
        // A change of the attachment now would lose the device that is just coming or going.
        Some(known) if !matches!(known.status(), "available" | "in-use") || known.is_under_way() => {
            Err((409, format!("{volume} is being attached, detached or deleted")))
        }
        Some(known) if known.disk.is_none() => {
            Err((409, format!("{volume} is not of the scenario's instance")))
        }
        Some(known) => {
            known.attachment = attached.then(|| Attachment::complete(Timestamp::now(), known.boot));
            Ok(json!({ "id": known.id, "attached": attached }))
        }
    }
}

/// From now on, an instance's volumes are the disks of this QEMU, which begins to run with those that are attached.
async fn take_guest(sim: &Sim, wanted: &NewGuest) -> Outcome {
    // What comes or goes meanwhile waits for the lock.
    let mut known = sim.guests.lock().await;
    let failed = |error: guest::Error| (409, crate::host::chain(&error));
    let (id, volumes) = {
        let world = sim.world();
        match wanted.instance.as_ref().filter(|id| *id != world.instance_id()) {
            None => (world.instance_id().clone(), crate::ready::volumes(&world)),
            Some(id) => {
                let launch = world.launches.iter().find(|launch| launch.id == *id);
                match launch.map(|launch| launch.state) {
                    Some(InstanceState::Running) => (id.clone(), crate::ready::volumes_of(&world, id)),
                    Some(state) => return Err((409, format!("{id} is not running: it is {}", state.name()))),
                    None => return Err((404, format!("there is no instance {id}"))),
                }
            }
        }
    };
    let mut guest = Guest::connect(&wanted.qmp).await.map_err(failed)?;
    for volume in &volumes {
        guest.plug(volume).await.map_err(failed)?;
    }
    guest.reset().await.map_err(failed)?;
    guest.start().await.map_err(failed)?;
    let shown = guest::shown(&guest);
    known.insert(id, guest);
    Ok(shown)
}

async fn make_device(sim: Arc<Sim>, wanted: NewDevice) -> Outcome {
    let image = {
        let world = sim.world();
        let id = &wanted.snapshot_id;
        match world.snapshots.get(id) {
            None => return Err((404, format!("there is no snapshot {id}"))),
            Some(snapshot) => snapshot.image.clone().ok_or_else(|| {
                let error = crate::host::Error::NoImage(id.to_string());
                (409, error.to_string())
            })?,
        }
    };
    blocking(move || {
        let device = sim.host().expose_copy(&sim.store, &image.path, image.window, wanted.read_only)?;
        Ok(json!({ "device": device }))
    })
    .await
}

async fn release_device(sim: Arc<Sim>, device: String) -> Outcome {
    blocking(move || {
        let in_use = sim.host().release(device.as_ref())?;
        Ok(json!({ "in_use": in_use.map(|user| user.to_string()) }))
    })
    .await
}

/// Runs disk work beside the servers. Its errors keep their causes, on one line.
async fn blocking(work: impl FnOnce() -> Result<Value, crate::host::Error> + Send + 'static) -> Outcome {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Err((500, format!("{error}{cause}")))
        }
        Err(error) => Err((500, error.to_string())),
    }
}
