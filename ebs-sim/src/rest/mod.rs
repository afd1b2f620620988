//! The services with REST-JSON APIs beside EC2: the Recycle Bin's rules, and the EBS direct APIs.
//!
//! ```text
//! path → operation → log → (clock, expiry) → verify signature → throttle → faults before
//!      → authorise → act → faults after → JSON, or a block of data
//! ```
//!
//! In: HTTP requests on EC2's port, which are told from EC2's by their path. Out: what the services answer, with
//! their errors and statuses. They must never know more of a snapshot than EC2 does.

mod ebs;
mod error;
mod rbin;

use std::sync::Arc;

use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use crate::ec2::{Damage, Ec2Error, Signer, Stop, authorise, before_signature, incoming, signature, stop};
use crate::faults::{Hit, Moment, Target};
use crate::http::{Answer, Call, Reply};
use crate::keys::Holder;
use crate::log::{Entry, unix_nanos};
use crate::sim::Sim;

use error::RestError;

/// The operations, as faults and the log know them.
pub const ACTIONS: &[&str] = &[
    "ebs:GetSnapshotBlock",
    "ebs:ListChangedBlocks",
    "ebs:ListSnapshotBlocks",
    "rbin:CreateRule",
    "rbin:DeleteRule",
    "rbin:GetRule",
    "rbin:ListRules",
];

/// What an operation knows besides its parameters.
struct Context {
    sim: Arc<Sim>,
    now: Timestamp,
    signer: Signer,
    account: String,
}

impl Context {
    fn region(&self) -> &str {
        &self.signer.region
    }
}

/// A good answer.
struct Done {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Done {
    fn json(status: u16, value: &Value) -> Self {
        let body = value.to_string().into();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }
}

enum Operation {
    Ebs(ebs::Operation),
    Rbin(rbin::Operation),
}

/// Whether a path is one of theirs: EC2's is always `/`.
pub fn is_path(path: &str) -> bool {
    path.starts_with("/snapshots/")
        || path == "/rules"
        || path.starts_with("/rules/")
        || path == "/list-rules"
}

fn service(path: &str) -> &'static str {
    if path.starts_with("/snapshots/") { "ebs" } else { "rbin" }
}

/// The operation that a method and a path mean; its name and parameters are for the log.
fn name(call: &Call) -> Option<&'static str> {
    let parts: Vec<&str> = call.uri.path().trim_start_matches('/').split('/').collect();
    Some(match (call.method.as_str(), parts.as_slice()) {
        ("GET", ["snapshots", _, "blocks"]) => "ebs:ListSnapshotBlocks",
        ("GET", ["snapshots", _, "changedblocks"]) => "ebs:ListChangedBlocks",
        ("GET", ["snapshots", _, "blocks", _]) => "ebs:GetSnapshotBlock",
        ("POST", ["rules"]) => "rbin:CreateRule",
        ("POST", ["list-rules"]) => "rbin:ListRules",
        ("GET", ["rules", _]) => "rbin:GetRule",
        ("DELETE", ["rules", _]) => "rbin:DeleteRule",
        _ => return None,
    })
}

pub async fn handle(sim: Arc<Sim>, call: Call) -> Reply {
    let action = name(&call);
    let shown = action.unwrap_or("unknown");
    let claimed = signature::claimed_signer(&incoming(&call));
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut params: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    params.insert("path".into(), call.uri.path().to_owned());
    let number = sim.log().begin(Entry {
        connection: call.connection,
        tls: call.tls,
        action: shown.to_owned(),
        params,
        region: claimed.as_ref().map(|(_, region)| region.clone()),
        user_agent: call.header("user-agent").map(str::to_owned),
        access_key_id: None,
        request_id: request_id.clone(),
        started_ns: unix_nanos(),
        ..Entry::default()
    });
    let outcome = process(&sim, &call, action, number, claimed.map(|(id, _)| id)).await;
    sim.save();
    let answer = |done: Done| {
        let mut answer = Answer::new(done.status, done.content_type, done.body);
        answer.headers = done.headers;
        answer.headers.push(("x-amzn-requestid", request_id.clone()));
        answer
    };
    let (name, reply, status) = match outcome {
        Ok(done) => {
            let status = done.status;
            ("ok".to_owned(), Reply::Answer(answer(done)), Some(status))
        }
        Err(stop) => stop.reply(
            |error| {
                let error = RestError::new(service(call.uri.path()), error);
                (error.code.clone(), error.status, answer(error.done()))
            },
            answer,
        ),
    };
    sim.note(number, |entry| {
        entry.outcome = name;
        entry.status = status;
        entry.answered_ns = status.map(|_| unix_nanos());
    });
    reply
}

async fn process(
    sim: &Arc<Sim>,
    call: &Call,
    action: Option<&'static str>,
    number: u64,
    key: Option<String>,
) -> Result<Done, Stop<Done>> {
    let now = Timestamp::now();
    let role =
        key.as_ref().is_some_and(|id| sim.keys().find(id).is_some_and(|(_, holder)| holder == Holder::Role));
    let target = Target {
        action: action.unwrap_or_default(),
        path: call.uri.path(),
        tls: call.tls,
        role,
        ..Target::default()
    };
    let skew = before_signature(sim, &sim.strike(number, Moment::Signature, &target), key.as_deref());
    let signer = check_signature(sim, call, now.saturating_add(skew).unwrap_or(Timestamp::MAX))?;
    sim.note(number, |entry| entry.access_key_id = Some(signer.access_key_id.clone()));
    let action = action.ok_or_else(|| {
        Ec2Error::new("UnknownOperationException", "This operation is not known here").status(404)
    })?;
    let context = {
        let world = sim.world();
        let account = signer.account(world.account()).to_owned();
        Context { sim: Arc::clone(sim), now: world.clock(now), account, signer }
    };
    let operation = if action.starts_with("ebs:") {
        Operation::Ebs(ebs::Operation::parse(call)?)
    } else {
        Operation::Rbin(rbin::Operation::parse(call)?)
    };
    throttle(&context, action, &operation, now)?;
    let faults = sim.strike(number, Moment::Request, &target);
    let hold = |hit: &Hit| sim.held.hold(number, action, hit);
    stop::before::<Done>(&faults, hold).await?;
    let outcome = act(&context, action, operation).await;
    stop::after(&faults, hold, outcome).await
}

async fn act(context: &Context, action: &'static str, operation: Operation) -> Result<Done, Ec2Error> {
    {
        let world = context.sim.world();
        let needs = match &operation {
            Operation::Ebs(operation) => operation.needs(action, &world),
            Operation::Rbin(operation) => operation.needs(action, context),
        };
        for need in needs {
            authorise(&world, &context.signer, &need)?;
        }
    }
    match operation {
        Operation::Ebs(operation) => operation.act(context).await,
        Operation::Rbin(operation) => operation.act(context),
    }
}

/// Lists are limited by account, blocks by snapshot. (EBS direct APIs' quotas.)
fn throttle(context: &Context, action: &str, operation: &Operation, now: Timestamp) -> Result<(), Ec2Error> {
    let (bucket, reason) = match operation {
        Operation::Ebs(ebs::Operation::Block { id, .. }) => {
            (format!("{action} {id}"), "RESOURCE_LEVEL_THROTTLE")
        }
        _ => (action.to_owned(), "ACCOUNT_THROTTLED"),
    };
    let limits = context.sim.world().scenario.limits.clone();
    let mut throttle = context.sim.throttle();
    if throttle.take(&limits, context.region(), &bucket, crate::throttle::Class::Usual, now) {
        return Ok(());
    }
    let code = match operation {
        Operation::Ebs(_) => format!("RequestThrottledException/{reason}"),
        Operation::Rbin(_) => "ThrottlingException".to_owned(),
    };
    Err(Ec2Error::new(code, "The number of API requests has exceeded the maximum allowed"))
}

fn check_signature(sim: &Sim, call: &Call, now: Timestamp) -> Result<Signer, Ec2Error> {
    let regions: Vec<String> = sim.world().regions().map(str::to_owned).collect();
    signature::verify(&incoming(call), service(call.uri.path()), &sim.keys(), &regions, now)
}

impl Damage for Done {
    fn halved(mut self) -> Self {
        self.body = self.body.slice(..self.body.len() / 2);
        self
    }

    fn replaced(self, text: &str) -> Self {
        Self { body: text.to_owned().into(), ..self }
    }

    fn spoilt(self) -> Self {
        let mut body = self.body.to_vec();
        let middle = body.len() / 2;
        if let Some(byte) = body.get_mut(middle) {
            *byte ^= 1;
        }
        Self { body: body.into(), ..self }
    }
}

/// A request's body as JSON; an empty one is an empty object.
fn json(call: &Call) -> Result<Value, Ec2Error> {
    if call.body.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&call.body)
        .map_err(|_| Ec2Error::new("SerializationException", "The request's body is not JSON"))
}

fn invalid(reason: &str, message: impl Into<String>) -> Ec2Error {
    Ec2Error::new(format!("ValidationException/{reason}"), message)
}

/// A part of a path, which must be one.
fn part(call: &Call, at: usize) -> String {
    call.uri.path().split('/').nth(at).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_ec2s() {
        for path in ["/snapshots/snap-1/blocks", "/rules", "/rules/abc", "/list-rules"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["/", "/_ebs-sim/snapshots", "/snapshots", "/rulesx"] {
            assert!(!is_path(path), "{path}");
        }
        assert_eq!((service("/snapshots/snap-1/blocks"), service("/rules/abc")), ("ebs", "rbin"));
    }
}
