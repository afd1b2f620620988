//! The EC2 Query API, version 2016-11-15.
//!
//! ```text
//! form → log → (clock, expiry) → verify signature → throttle → parse → faults before
//!      → authorise → DryRun → act → faults after → XML
//! ```
//!
//! In: HTTP requests. Out: EC2's XML, its errors and their statuses. DryRun is decided right after the
//! permissions: it must never promise more than EC2 does, so nothing else is checked for it.

mod block_public;
mod bin;
mod call;
mod context;
mod copy;
mod create;
mod delete;
mod error;
mod filter;
mod iam;
mod images;
mod instance_attribute;
mod instances;
mod keys;
mod limits;
mod owner;
mod lock;
mod page;
mod params;
mod query;
mod rate;
mod regions;
mod replace_root;
mod share;
pub mod signature;
mod snapshots;
pub mod stop;
mod tags;
mod tier;
mod types;
mod volumes;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::faults::{Hit, Kind, Moment, Target};
use crate::http::{self, Answer, Reply};
use crate::keys::Holder;
use crate::log::{Entry, unix_nanos};
use crate::sim::Sim;

use call::Call;
use context::Context;
pub use error::Ec2Error;
pub use iam::{Need, authorise, partition};
pub use keys::can_decrypt;
use params::Params;
pub use signature::Signer;
pub use stop::{Damage, Stop};

pub use bin::purge as purge_bin;
pub use call::ACTIONS;

const CONTENT_TYPE: &str = "text/xml;charset=UTF-8";

/// What a request says before anything about it was checked.
struct Claimed {
    action: String,
    dry_run: bool,
    access_key_id: Option<String>,
    region: Option<String>,
}

impl Claimed {
    fn read(http: &http::Call, params: &Params) -> Self {
        let signer = signature::claimed_signer(&incoming(http));
        let (access_key_id, region) = signer.unzip();
        Self {
            action: params.peek("Action").unwrap_or_default().to_owned(),
            dry_run: params.peek("DryRun").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            access_key_id,
            region,
        }
    }

    /// What faults know the request by.
    fn target(&self, sim: &Sim, http: &http::Call) -> Target<'_> {
        let keys = sim.keys();
        let role = self
            .access_key_id
            .as_ref()
            .is_some_and(|id| keys.find(id).is_some_and(|(_, holder)| holder == Holder::Role));
        Target { action: &self.action, dry_run: self.dry_run, path: "", tls: http.tls, role }
    }
}

pub async fn handle(sim: Arc<Sim>, http: http::Call) -> Reply {
    let started_ns = unix_nanos();
    let query = signature::without_signature(http.uri.query().unwrap_or_default());
    let params = Params::parse(&[query.as_bytes(), http.body.as_ref()]);
    let claimed = Claimed::read(&http, &params);
    let request_id = uuid::Uuid::new_v4().to_string();
    let number = sim.log().begin(Entry {
        connection: http.connection,
        tls: http.tls,
        action: claimed.action.clone(),
        dry_run: claimed.dry_run,
        params: params.all(),
        region: claimed.region.clone(),
        user_agent: http.header("user-agent").map(str::to_owned),
        request_id: request_id.clone(),
        started_ns,
        ..Entry::default()
    });
    let early = sim.strike(number, Moment::Signature, &claimed.target(&sim, &http));
    let skew = before_signature(&sim, &early, claimed.access_key_id.as_deref());
    let outcome = process(&sim, &http, params, number, &claimed, skew, &request_id).await;
    sim.save();
    let answer = |status: u16, body: String| {
        let mut answer = Answer::new(status, CONTENT_TYPE, body);
        answer.headers.push(("x-amzn-requestid", request_id.clone()));
        if !skew.is_zero() {
            answer.headers.push(("date", http_date(ahead(Timestamp::now(), skew))));
        }
        answer
    };
    let (name, reply, status) = match outcome {
        Ok(body) => ("ok".to_owned(), Reply::Answer(answer(200, body)), Some(200)),
        Err(stop) => stop.reply(
            |error| {
                let body = error.to_xml(&request_id);
                let status = error.status;
                (error.code, status, answer(status, body))
            },
            |body| answer(200, body),
        ),
    };
    sim.note(number, |entry| {
        entry.outcome = name;
        entry.status = status;
        entry.answered_ns = status.map(|_| unix_nanos());
    });
    reply
}

/// What faults do before the signature is checked: keys expire. Says how far EC2's clock is ahead.
pub fn before_signature(sim: &Sim, faults: &[Hit], key: Option<&str>) -> Duration {
    let mut skew = Duration::ZERO;
    for fault in faults.iter().map(|hit| &hit.fault) {
        match (fault.kind, key) {
            (Kind::ClockSkew, _) => skew += fault.delay(),
            (Kind::CredentialsExpired, Some(id)) => {
                sim.keys().expire(id, Timestamp::now());
            }
            _ => {}
        }
    }
    skew
}

fn ahead(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A time as HTTP's Date header has it.
fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

async fn process(
    sim: &Arc<Sim>,
    http: &http::Call,
    mut params: Params,
    number: u64,
    claimed: &Claimed,
    skew: Duration,
    request_id: &str,
) -> Result<String, Stop> {
    if http.method != axum::http::Method::POST && http.method != axum::http::Method::GET {
        return Err(Stop::Raw(405));
    }
    let now = Timestamp::now();
    let account_now = sim.world().clock(now);
    let signer = check_signature(sim, http, ahead(now, skew))?;
    sim.note(number, |entry| entry.access_key_id = Some(signer.access_key_id.clone()));
    let action = params
        .text("Action")
        .ok_or_else(|| Ec2Error::new("MissingAction", "The request is missing the parameter Action"))?;
    let _version = params.text("Version");
    let dry_run = params.flag("DryRun")?;
    rate::check(&mut sim.throttle(), &sim.world().scenario.limits, &signer.region, &action, &params, now)?;
    let call = Call::parse(&action, &mut params)?;
    params.finish()?;

    let faults = sim.strike(number, Moment::Request, &claimed.target(sim, http));
    let hold = |hit: &Hit| sim.held.hold(number, &action, hit);
    stop::before::<String>(&faults, hold).await?;
    let account = signer.account(sim.world().account()).to_owned();
    let context = Context {
        sim: Arc::clone(sim),
        number,
        request_id: request_id.to_owned(),
        action: action.clone(),
        now: account_now,
        account,
        signer,
    };
    let outcome = act(&context, call, dry_run, &faults).await;
    stop::after(&faults, hold, outcome).await
}

/// A request as its signature is checked.
pub fn incoming(http: &http::Call) -> signature::Incoming<'_> {
    signature::Incoming {
        method: http.method.as_str(),
        path: http.uri.path(),
        query: http.uri.query().unwrap_or_default(),
        headers: &http.headers,
        body: &http.body,
    }
}

fn check_signature(sim: &Sim, http: &http::Call, now: Timestamp) -> Result<Signer, Ec2Error> {
    let regions: Vec<String> = sim.world().regions().map(str::to_owned).collect();
    signature::verify(&incoming(http), "ec2", &sim.keys(), &regions, now)
}

async fn act(context: &Context, call: Call, dry_run: bool, faults: &[Hit]) -> Result<String, Ec2Error> {
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
    {
        let world = context.sim.world();
        owner::check(&world, context, &call.needs(&world))?;
    }
    call.act(context, faults).await
}
