//! How a request ends when faults have their way.
//!
//! In: the faults that hit a request, and its outcome. Out: the outcome as the client is to see it. Before
//! the commit nothing must have been done; after it everything.

use super::error::Ec2Error;
use crate::faults::{Fault, Hit, Hold, Kind};
use crate::http::{Answer, Reply};

/// How a request ends without its answer, `A`.
pub enum Stop<A = String> {
    Error(Ec2Error),
    /// A status with a body that is not EC2's.
    Raw(u16),
    Hang,
    Drop,
    Reset,
    /// Half of this answer.
    Truncated(A),
    /// Half of this answer, and the rest when it is released.
    Held(A, Hold),
    /// The first bytes of this answer.
    Stalled(A),
}

impl<A> Stop<A> {
    /// What the client gets, with the name and the status that the log has of it. `error` gives an error's name,
    /// status and answer.
    pub fn reply(
        self,
        error: impl FnOnce(Ec2Error) -> (String, u16, Answer),
        answer: impl FnOnce(A) -> Answer,
    ) -> (String, Reply, Option<u16>) {
        match self {
            Stop::Error(e) => {
                let (name, status, answer) = error(e);
                (name, Reply::Answer(answer), Some(status))
            }
            Stop::Raw(status) => {
                let body = "<html><body><b>The service could not answer</b></body></html>\n";
                (format!("http-{status}"), Reply::new(status, "text/html", body), Some(status))
            }
            Stop::Truncated(done) => ("truncated".into(), Reply::Truncated(answer(done)), None),
            Stop::Held(done, hold) => ("ok".into(), Reply::Held(answer(done), hold), Some(200)),
            Stop::Stalled(done) => ("stalled".into(), Reply::Stalled(answer(done)), None),
            Stop::Hang => ("hang".into(), Reply::Hang, None),
            Stop::Drop => ("drop".into(), Reply::Drop, None),
            Stop::Reset => ("reset".into(), Reply::Reset, None),
        }
    }
}

impl<A> From<Ec2Error> for Stop<A> {
    fn from(error: Ec2Error) -> Self {
        Stop::Error(error)
    }
}

/// An answer that can be damaged.
pub trait Damage {
    /// Its first half.
    fn halved(self) -> Self;
    /// The same with another body.
    fn replaced(self, body: &str) -> Self;
    /// The same with one bit that is another one.
    fn spoilt(self) -> Self;
}

impl Damage for String {
    fn halved(self) -> Self {
        self.chars().take(self.chars().count() / 2).collect()
    }

    fn replaced(self, body: &str) -> Self {
        body.to_owned()
    }

    /// No answer of EC2's has a checksum: the fault is not for its actions.
    fn spoilt(self) -> Self {
        self
    }
}

fn asked_for<A>(fault: &Fault, code: &str, message: &str, status: u16) -> Stop<A> {
    let code = fault.code.as_deref().unwrap_or(code);
    let message = fault.message.as_deref().unwrap_or(message);
    Ec2Error::new(code, message).status(fault.status.unwrap_or(status)).into()
}

fn internal<A>(fault: &Fault) -> Stop<A> {
    asked_for(fault, "InternalError", "An internal error has occurred", 500)
}

/// What faults do before the commit.
pub async fn before<A>(faults: &[Hit], hold: impl Fn(&Hit) -> Hold) -> Result<(), Stop<A>> {
    for hit in faults {
        let fault = &hit.fault;
        match fault.kind {
            Kind::HoldBefore => hold(hit).until_released().await,
            Kind::DelayBefore => tokio::time::sleep(fault.delay()).await,
            Kind::Error => return Err(internal(fault)),
            Kind::Throttle => {
                return Err(asked_for(fault, "RequestLimitExceeded", "Request limit exceeded.", 503));
            }
            Kind::Http500 => return Err(Stop::Raw(fault.status.unwrap_or(500))),
            Kind::Hang => return Err(Stop::Hang),
            Kind::DropBefore => return Err(Stop::Drop),
            Kind::ResetBefore => return Err(Stop::Reset),
            _ => {}
        }
    }
    Ok(())
}

/// What faults do after the commit. An error is answered as it is: only answers can be damaged.
pub async fn after<A: Damage>(
    faults: &[Hit],
    hold: impl Fn(&Hit) -> Hold,
    outcome: Result<A, Ec2Error>,
) -> Result<A, Stop<A>> {
    let mut outcome = outcome.map_err(Stop::Error);
    for hit in faults {
        let fault = &hit.fault;
        outcome = match fault.kind {
            Kind::HoldAfter => {
                hold(hit).until_released().await;
                outcome
            }
            Kind::HoldMid => outcome.and_then(|body| Err(Stop::Held(body, hold(hit)))),
            Kind::DelayAfter => {
                tokio::time::sleep(fault.delay()).await;
                outcome
            }
            Kind::ErrorAfter => return Err(internal(fault)),
            Kind::HangAfter => return Err(Stop::Hang),
            Kind::DropAfter => return Err(Stop::Drop),
            Kind::ResetAfter => return Err(Stop::Reset),
            Kind::Truncated => outcome.and_then(|body| Err(Stop::Truncated(body))),
            Kind::TlsStallMid => outcome.and_then(|body| Err(Stop::Stalled(body))),
            Kind::Malformed => outcome.map(A::halved),
            Kind::Corrupt => outcome.map(A::spoilt),
            Kind::NotXml => outcome.map(|body| body.replaced("this is not XML\n")),
            Kind::WrongRoot => outcome.map(|body| {
                body.replaced(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<html><body>this is not EC2's</body></html>",
                )
            }),
            _ => outcome,
        };
    }
    outcome
}
