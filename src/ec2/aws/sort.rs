//! The SDK's errors, sorted by whether EC2 may have carried out the request.
//!
//! ```text
//! DispatchFailure   no connection was chosen for the request ─→ Unreached, and how
//!                   it was given to a connection             ─→ Unknown
//! ServiceError      EC2's XML, status below 500; throttling  ─→ Refused
//!                   5xx, or not EC2's                        ─→ Unknown
//! TimeoutError, ResponseError                                ─→ Unknown
//! ```
//!
//! In: an `SdkError`. Out: an [`Ec2Error`]. Must never: call a request unsent without the HTTP client's word for
//! it: the pool gives each error of a request that it has handed to a connection that connection's metadata
//! (aws-smithy-http-client 1.5, `pool/dispatch`), and none to an error from making a connection
//! (`pool/establish`). What an update of the client might change ends as `Unknown`, which is looked up.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::dns::ResolveDnsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::HttpError;

use crate::ec2::error::is_throttling;
use crate::ec2::{Ec2Error, Unreached};
use crate::error::chain;

/// The longest `Retry-After` that is believed; any longer one ends the repeating just the same.
const MOST: u64 = 24 * 3600;

/// Sorts an SDK error by whether EC2 may have carried out the request.
pub(super) fn sort<E: ProvideErrorMetadata + StdError + 'static>(
    action: &'static str,
    error: &SdkError<E, HttpResponse>,
    partition: &'static str,
) -> Ec2Error {
    let text = || chain(error);
    match error {
        SdkError::ServiceError(said) => {
            let raw = said.raw();
            let (status, retry_after) = (raw.status(), retry_after(raw));
            let message = error.message().unwrap_or_default().to_owned();
            match error.code() {
                // EC2 may answer 5xx after it has carried out the request (EC2 guide, "eventual consistency" and
                // "idempotency"). Throttling is a refusal although its status is 503.
                Some(code) if !status.is_server_error() || is_throttling(code) => {
                    Ec2Error::Refused { action, code: code.to_owned(), message, retry_after, partition }
                }
                code => {
                    let code = code.map_or_else(String::new, |c| format!("{c}: "));
                    let message = if message.is_empty() { "no message" } else { &message };
                    Ec2Error::Unknown {
                        action,
                        message: format!("HTTP {status}: {code}{message}"),
                        status: Some(status.as_u16()),
                        retry_after,
                    }
                }
            }
        }
        SdkError::ConstructionFailure(_) => {
            Ec2Error::Unreached { action, how: Unreached::Request, message: text() }
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error().and_then(unsent) {
            Some(how) => Ec2Error::Unreached { action, how, message: text() },
            None => Ec2Error::unknown(action, text()),
        },
        SdkError::ResponseError(said) => Ec2Error::Unknown {
            action,
            message: text(),
            status: Some(said.raw().status().as_u16()),
            retry_after: None,
        },
        _ => Ec2Error::unknown(action, text()),
    }
}

/// Seconds; a date is not what AWS sends.
fn retry_after(said: &HttpResponse) -> Option<Duration> {
    let seconds: u64 = said.headers().get("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(MOST)))
}

/// What kept the request from being sent; none when it may have been sent.
fn unsent(error: &ConnectorError) -> Option<Unreached> {
    if error.connection_metadata().is_some() {
        return None;
    }
    let causes: Vec<&(dyn StdError + 'static)> = causes(error).collect();
    let is = |text: &str| causes.iter().any(|e| e.to_string().contains(text));
    // An answer that is no HTTP has no metadata either. Nor has a limit to reading, which nobody sets here.
    if causes.iter().any(|e| e.is::<HttpError>()) || (error.is_timeout() && !is("HTTP connect timeout")) {
        return None;
    }
    if error.is_user() {
        return Some(Unreached::Request);
    }
    if error.is_timeout() {
        return Some(Unreached::TimedOut);
    }
    // The types of the proxy's and of TLS's errors are private; an unknown one is still a connection that was not
    // made, and only the advice differs.
    if is("proxy authorization required") {
        return Some(Unreached::ProxyPassword);
    }
    let tunnel = is("tunnel error");
    if causes.iter().any(|e| e.is::<ResolveDnsError>()) || is("dns error") {
        return Some(Unreached::Name);
    }
    let kinds = || causes.iter().filter_map(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    let how = kinds().find_map(of_kind);
    match how {
        Some(how) if !tunnel || how != Unreached::Closed => Some(how),
        _ if tunnel => Some(Unreached::Proxy),
        Some(how) => Some(how),
        None if is("TLS handshake failed") || is("invalid peer certificate") => Some(Unreached::Tls),
        None => Some(Unreached::Other),
    }
}

fn of_kind(kind: io::ErrorKind) -> Option<Unreached> {
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkDown, NetworkUnreachable, NotConnected, TimedOut, UnexpectedEof,
    };
    Some(match kind {
        ConnectionRefused => Unreached::Refused,
        NetworkUnreachable | HostUnreachable | NetworkDown | AddrNotAvailable => Unreached::NoRoute,
        TimedOut => Unreached::TimedOut,
        ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof => Unreached::Closed,
        _ => return None,
    })
}

/// An error and its causes. What an `io::Error` carries is itself looked at: `source()` would skip it.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| match e.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => e.source(),
    })
}

#[cfg(test)]
mod tests;
