//! The EC2 Query API, version 2016-11-15.
//!
//! ```text
//! form → log → verify signature → throttle → parse → faults before → authorise → DryRun → act → faults after → XML
//! ```
//!
//! In: HTTP requests. Out: EC2's XML, its errors and their statuses. DryRun is decided right after the
//! permissions: it must never promise more than EC2 does, so nothing else is checked for it.

mod call;
mod copy;
mod create;
mod delete;
mod error;
mod filter;
mod iam;
mod images;
mod instances;
mod keys;
mod lock;
mod page;
mod params;
mod query;
mod share;
pub mod sigv4;
mod snapshots;
mod tags;
mod throttle;
mod tier;
mod types;
mod volumes;
mod xml;

use std::sync::Arc;

use jiff::Timestamp;

use crate::faults::{Fault, Kind};
use crate::http::{self, Reply};
use crate::log::{Entry, unix_nanos};
use crate::sim::Sim;

use call::Call;
use error::Ec2Error;
use params::Params;
use sigv4::Signer;
use xml::Xml;

pub use call::ACTIONS;
pub use instances::private_dns_name;
pub use throttle::Throttle;

const XMLNS: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const CONTENT_TYPE: &str = "text/xml;charset=UTF-8";

/// What an action knows besides its parameters.
struct Context {
    sim: Arc<Sim>,
    /// The log entry.
    number: u64,
    request_id: String,
    action: String,
    now: Timestamp,
    signer: Signer,
}

impl Context {
    /// The Region that the request is for.
    fn region(&self) -> &str {
        &self.signer.region
    }

    /// `<ActionResponse>` with the request's id and what `inside` adds.
    fn response(&self, inside: impl FnOnce(&mut Xml)) -> String {
        let mut xml = Xml::declaration();
        let root = format!("{}Response xmlns=\"{XMLNS}\"", self.action);
        xml.node(&root, |xml| {
            xml.text("requestId", &self.request_id);
            inside(xml);
        });
        xml.finish()
    }

    /// The answer of actions that have nothing to say.
    fn done(&self) -> String {
        self.response(|xml| xml.text("return", true))
    }
}

/// How a request ends without its answer.
enum Stop {
    Error(Ec2Error),
    /// A status with a body that is not EC2's.
    Raw(u16),
    Hang,
    Drop,
}

impl From<Ec2Error> for Stop {
    fn from(error: Ec2Error) -> Self {
        Stop::Error(error)
    }
}

/// Answers one request.
pub async fn handle(sim: Arc<Sim>, http: http::Call) -> Reply {
    let started_ns = unix_nanos();
    let query = http.uri.query().unwrap_or_default().as_bytes();
    let mut params = Params::parse(&[query, http.body.as_ref()]);
    let action = params.text("Action").unwrap_or_default();
    let request_id = uuid::Uuid::new_v4().to_string();
    let number = sim.log().begin(Entry {
        connection: http.connection,
        action: action.clone(),
        params: params.all(),
        request_id: request_id.clone(),
        started_ns,
        ..Entry::default()
    });
    let outcome = process(&sim, &http, params, number, &action, &request_id).await;
    sim.save();
    let answer = |status: u16, body: String| {
        let mut reply = Reply::new(status, CONTENT_TYPE, body);
        if let Reply::Answer { headers, .. } = &mut reply {
            headers.push(("x-amzn-requestid", request_id.clone()));
        }
        (reply, Some(status))
    };
    let (name, (reply, status)) = match outcome {
        Ok(body) => ("ok".to_owned(), answer(200, body)),
        Err(Stop::Error(error)) => {
            let body = error.to_xml(&request_id);
            (error.code, answer(error.status, body))
        }
        Err(Stop::Raw(status)) => {
            let body = "<html><body><b>The service could not answer</b></body></html>\n";
            let reply = Reply::new(status, "text/html", body);
            (format!("http-{status}"), (reply, Some(status)))
        }
        Err(Stop::Hang) => ("hang".into(), (Reply::Hang, None)),
        Err(Stop::Drop) => ("drop".into(), (Reply::Drop, None)),
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
    http: &http::Call,
    mut params: Params,
    number: u64,
    action: &str,
    request_id: &str,
) -> Result<String, Stop> {
    if http.method != axum::http::Method::POST && http.method != axum::http::Method::GET {
        return Err(Stop::Raw(405));
    }
    let now = Timestamp::now();
    let signer = check_signature(sim, http, now)?;
    sim.note(number, |entry| entry.access_key_id = Some(signer.access_key_id.clone()));
    if action.is_empty() {
        return Err(Ec2Error::missing("Action").into());
    }
    let _version = params.text("Version");
    let dry_run = params.flag("DryRun")?;
    sim.note(number, |entry| entry.dry_run = dry_run);
    let class = throttle::Class::of(action, &params);
    sim.throttle().take(&sim.world().scenario.limits, &signer.region, action, class, now)?;
    let call = Call::parse(action, &mut params)?;
    params.finish()?;

    let faults = sim.strike(number, action, dry_run);
    before(&faults).await?;
    let context = Context {
        sim: Arc::clone(sim),
        number,
        request_id: request_id.to_owned(),
        action: action.to_owned(),
        now,
        signer,
    };
    let outcome = act(&context, call, dry_run, &faults).await;
    after(&faults, outcome).await
}

fn check_signature(sim: &Sim, http: &http::Call, now: Timestamp) -> Result<Signer, Ec2Error> {
    let regions: Vec<String> = sim.world().regions().map(str::to_owned).collect();
    let incoming = sigv4::Incoming {
        method: http.method.as_str(),
        path: http.uri.path(),
        query: http.uri.query().unwrap_or_default(),
        headers: &http.headers,
        body: &http.body,
    };
    sigv4::verify(&incoming, &sim.keys(), &regions, now)
}

async fn act(context: &Context, call: Call, dry_run: bool, faults: &[Fault]) -> Result<String, Ec2Error> {
    {
        let world = context.sim.world();
        for need in call.needs(&world) {
            iam::authorise(&world, &context.signer, &need)?;
        }
    }
    if dry_run {
        return Err(Ec2Error::new(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )
        .status(412));
    }
    call.act(context, faults).await
}

fn asked_for(fault: &Fault, code: &str, status: u16) -> Ec2Error {
    let code = fault.code.clone().unwrap_or_else(|| code.to_owned());
    let message = fault.message.clone().unwrap_or_else(|| "An internal error has occurred".into());
    Ec2Error::new(code, message).status(fault.status.unwrap_or(status))
}

async fn before(faults: &[Fault]) -> Result<(), Stop> {
    for fault in faults {
        match fault.kind {
            Kind::DelayBefore => tokio::time::sleep(fault.delay()).await,
            Kind::Error => return Err(asked_for(fault, "InternalError", 500).into()),
            Kind::Http500 => return Err(Stop::Raw(fault.status.unwrap_or(500))),
            Kind::Hang => return Err(Stop::Hang),
            Kind::DropBefore => return Err(Stop::Drop),
            _ => {}
        }
    }
    Ok(())
}

async fn after(faults: &[Fault], outcome: Result<String, Ec2Error>) -> Result<String, Stop> {
    let mut outcome = outcome.map_err(Stop::Error);
    for fault in faults.iter().filter(|fault| fault.kind.is_after()) {
        match fault.kind {
            Kind::DelayAfter => tokio::time::sleep(fault.delay()).await,
            Kind::ErrorAfter => return Err(asked_for(fault, "InternalError", 500).into()),
            Kind::HangAfter => return Err(Stop::Hang),
            Kind::DropAfter => return Err(Stop::Drop),
            _ => {
                outcome = outcome.map(|body| body.chars().take(body.chars().count() / 2).collect());
            }
        }
    }
    outcome
}
