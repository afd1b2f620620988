//! The metadata service, version 2 only.
//!
//! In: HTTP requests. Out: tokens, and what tokens open. A request without a valid token must never be
//! answered with anything but 401.

mod tree;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;
use jiff::Timestamp;

use crate::faults::{Hit, Hold, Kind, Moment, Target};
use crate::http::{Answer, Call, Reply};
use crate::log::{Entry, unix_nanos};
use crate::sim::Sim;

/// Where every EC2 instance finds its metadata.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const MAX_TTL: u64 = 21600;

/// The tokens that were handed out.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<String, Instant>>);

impl Tokens {
    fn issue(&self, ttl: Duration, now: Instant) -> String {
        let token = format!("{}{}==", crate::ids::random_hex(), crate::ids::random_hex());
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, end| *end > now);
        tokens.insert(token.clone(), now + ttl);
        token
    }

    fn is_valid(&self, token: &str, now: Instant) -> bool {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|end| *end > now)
    }
}

pub async fn handle(sim: Arc<Sim>, tokens: Arc<Tokens>, call: Call) -> Reply {
    let action = if call.method == Method::PUT { "imds:PutToken" } else { "imds:Get" };
    let number = sim.log().begin(Entry {
        connection: call.connection,
        user_agent: call.header("user-agent").map(str::to_owned),
        action: action.into(),
        params: [("path".to_owned(), call.uri.path().to_owned())].into(),
        started_ns: unix_nanos(),
        ..Entry::default()
    });
    let target = Target { action, path: call.uri.path(), ..Target::default() };
    let faults = sim.strike(number, Moment::Request, &target);
    let hold = |hit: &Hit| sim.held.hold(number, action, hit);
    let reply = match before(&faults, hold).await {
        Some(reply) => reply,
        None => after(&faults, hold, respond(&sim, &tokens, &call)),
    };
    sim.save();
    let (outcome, status) = match &reply {
        Reply::Answer(Answer { status: 200, .. }) | Reply::Held(Answer { status: 200, .. }, _) => {
            ("ok".to_owned(), Some(200))
        }
        Reply::Answer(Answer { status, .. }) | Reply::Held(Answer { status, .. }, _) => {
            (format!("http-{status}"), Some(*status))
        }
        Reply::Truncated(_) => ("truncated".into(), None),
        Reply::Stalled(_) => ("stalled".into(), None),
        Reply::Hang => ("hang".into(), None),
        Reply::Drop => ("drop".into(), None),
        Reply::Reset => ("reset".into(), None),
    };
    sim.note(number, |entry| {
        entry.outcome = outcome;
        entry.status = status;
        entry.answered_ns = status.map(|_| unix_nanos());
    });
    reply
}

async fn before(faults: &[Hit], hold: impl Fn(&Hit) -> Hold) -> Option<Reply> {
    for hit in faults {
        let fault = &hit.fault;
        match fault.kind {
            Kind::HoldBefore | Kind::HoldAfter => hold(hit).until_released().await,
            Kind::DelayBefore | Kind::DelayAfter => tokio::time::sleep(fault.delay()).await,
            Kind::Error | Kind::ErrorAfter | Kind::Http500 => {
                let status = fault.status.unwrap_or(500);
                return Some(page(status, title(status)));
            }
            Kind::Throttle => return Some(page(fault.status.unwrap_or(503), "Service Unavailable")),
            Kind::ResetBefore | Kind::ResetAfter => return Some(Reply::Reset),
            Kind::Hang | Kind::HangAfter => return Some(Reply::Hang),
            Kind::DropBefore | Kind::DropAfter => return Some(Reply::Drop),
            _ => {}
        }
    }
    None
}

fn after(faults: &[Hit], hold: impl Fn(&Hit) -> Hold, reply: Reply) -> Reply {
    let held = faults.iter().find(|hit| hit.fault.kind == Kind::HoldMid);
    let has = |kind| faults.iter().any(|hit| hit.fault.kind == kind);
    match reply {
        Reply::Answer(answer) if has(Kind::Truncated) => Reply::Truncated(answer),
        Reply::Answer(mut answer) if has(Kind::Malformed) => {
            answer.body = answer.body.slice(..answer.body.len() / 2);
            Reply::Answer(answer)
        }
        Reply::Answer(answer) => match held {
            Some(hit) => Reply::Held(answer, hold(hit)),
            None => Reply::Answer(answer),
        },
        reply => reply,
    }
}

fn title(status: u16) -> &'static str {
    let known = axum::http::StatusCode::from_u16(status).ok();
    known.and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

/// An error as the service shows it: a small page.
fn page(status: u16, title: &str) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\">\n \
         <head>\n  <title>{status} - {title}</title>\n </head>\n <body>\n  <h1>{status} - {title}</h1>\n \
         </body>\n</html>\n"
    );
    Reply::new(status, "text/html", body)
}

fn respond(sim: &Sim, tokens: &Tokens, call: &Call) -> Reply {
    if !sim.world().scenario.imds.enabled {
        return page(403, "Forbidden");
    }
    let path = call.uri.path();
    match call.method {
        Method::PUT if path.trim_end_matches('/') == "/latest/api/token" => {
            // A reverse proxy adds this header: the service does not give its tokens to those.
            if call.headers.contains_key("x-forwarded-for") {
                return page(403, "Forbidden");
            }
            let ttl = call
                .header(TTL_HEADER)
                .and_then(|text| text.parse().ok())
                .filter(|ttl| (1..=MAX_TTL).contains(ttl));
            let Some(ttl) = ttl else {
                return page(400, "Bad Request");
            };
            let mut answer =
                Answer::new(200, "text/plain", tokens.issue(Duration::from_secs(ttl), Instant::now()));
            answer.headers.push((TTL_HEADER, ttl.to_string()));
            // A packet that may travel one hop does not get beyond the instance, into a container of its.
            answer.hops = Some(sim.world().scenario.imds.hop_limit);
            Reply::Answer(answer)
        }
        Method::GET | Method::HEAD => {
            let now = Instant::now();
            if !call.header(TOKEN_HEADER).is_some_and(|token| tokens.is_valid(token, now)) {
                return page(401, "Unauthorized");
            }
            let key = sim.keys().role(Timestamp::now());
            match tree::lookup(&sim.world(), &key, path) {
                Some(body) => Reply::new(200, "text/plain", body),
                None => page(404, "Not Found"),
            }
        }
        Method::PUT => page(404, "Not Found"),
        _ => page(405, "Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let token = tokens.issue(Duration::from_secs(10), now);
        assert!(tokens.is_valid(&token, now + Duration::from_secs(9)));
        assert!(!tokens.is_valid(&token, now + Duration::from_secs(10)));
        assert!(!tokens.is_valid("", now));
    }
}
