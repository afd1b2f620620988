//! Why a call to EC2 failed: did EC2 do anything, may the call be repeated, and what can the user do?
//!
//! In: EC2's code and message, or what kept the request from being sent. Out: an [`Ec2Error`]. Must never:
//! call an error "not sent" or "refused" when EC2 may have carried out the request.

use std::fmt;
use std::time::Duration;

use super::denial;
use crate::error::Error;
use crate::exit::Exit;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum Ec2Error {
    /// EC2 answered with an error, so it did nothing. `retry_after`: EC2 has said when to ask again. `partition`:
    /// that of the Region, for ARNs in advice.
    #[error("{action}: {code}: {message}")]
    Refused {
        action: &'static str,
        code: String,
        message: String,
        retry_after: Option<Duration>,
        partition: &'static str,
    },
    /// The request was not sent: there was no connection.
    #[error("{action}: cannot reach EC2: {how}: {message}")]
    Unreached { action: &'static str, how: Unreached, message: String },
    /// The request was not sent: there are no credentials for it, or none that last.
    #[error("{action}: {why}")]
    Credentials { action: &'static str, why: String, hint: String, passes: bool },
    /// The request was sent and no readable answer came: it is not known whether EC2 carried it out. `status`
    /// is that of an answer that was not EC2's, or says nothing of what was done.
    #[error("{action}: no answer from EC2, the outcome is unknown: {message}")]
    Unknown { action: &'static str, message: String, status: Option<u16>, retry_after: Option<Duration> },
}

/// What kept a request from being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreached {
    /// A port answered that nothing listens there (ECONNREFUSED).
    Refused,
    /// No route (ENETUNREACH, EHOSTUNREACH, ENETDOWN), or no address of its own (EADDRNOTAVAIL).
    NoRoute,
    /// The name has no address, or the resolver gave none.
    Name,
    /// No connection within the limit.
    TimedOut,
    /// The connection was closed or reset while it was being made, before TLS was up.
    Closed,
    /// TLS was refused by one of the two sides: an untrusted certificate, another name, no common version.
    Tls,
    /// The proxy did not connect to EC2.
    Proxy,
    /// The proxy wants a name and password (407).
    ProxyPassword,
    /// The request could not be made.
    Request,
    /// Something else.
    Other,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the connection was refused",
            Self::NoRoute => "there is no route",
            Self::Name => "the name was not resolved",
            Self::TimedOut => "no connection in time",
            Self::Closed => "the connection was closed while it was being made",
            Self::Tls => "TLS failed",
            Self::Proxy => "the proxy did not connect",
            Self::ProxyPassword => "the proxy wants a name and password",
            Self::Request => "the request could not be made",
            Self::Other => "no connection",
        })
    }
}

impl Unreached {
    /// May the same request be sent a moment later?
    fn passes(self) -> bool {
        match self {
            Self::Refused | Self::NoRoute | Self::Name | Self::TimedOut | Self::Closed | Self::Proxy => true,
            Self::Tls | Self::ProxyPassword | Self::Request | Self::Other => false,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Refused => {
                "nothing listens at that address and port: check the endpoint (endpoint_url, AWS_ENDPOINT_URL_EC2), \
                 and the proxy if one is set"
            }
            Self::NoRoute => {
                "check this host's network and routes: a subnet without a route to the internet needs a VPC endpoint \
                 for EC2 (com.amazonaws.REGION.ec2) or a NAT gateway"
            }
            Self::Name => {
                "check /etc/resolv.conf and the VPC's DNS settings, or the Region's and the endpoint's names; where \
                 only a proxy resolves names, set HTTPS_PROXY"
            }
            Self::TimedOut => {
                "packets get lost on the way: check security groups (port 443 out of this instance, and into the VPC \
                 endpoint), network ACLs, and HTTPS_PROXY if EC2 is reached through a proxy"
            }
            Self::Closed => {
                "something on the way closes the connection: check the VPC endpoint, firewall or proxy, and whether \
                 the endpoint speaks HTTPS"
            }
            Self::Tls => {
                "is the certificate that of EC2? Where a proxy or a private endpoint has its own authority, name its \
                 file in AWS_CA_BUNDLE; else check the package ca-certificates and this host's clock"
            }
            Self::Proxy => {
                "the proxy refuses EC2's address, or cannot reach it: check HTTPS_PROXY, and the proxy's rules and log"
            }
            Self::ProxyPassword => "put them into HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT",
            Self::Request | Self::Other => {
                "check the network path, security group or VPC endpoint to EC2, and AWS_ENDPOINT_URL_EC2 if set"
            }
        }
    }
}

/// Throttling, as EC2 and the SDK name it (EC2 API reference, "error codes"; the SDK's `THROTTLING_ERRORS`). EC2
/// has not processed the request, whatever the status is.
const THROTTLED: [&str; 15] = [
    "BandwidthLimitExceeded",
    "Client.RequestLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// EC2's own trouble, with whatever status it comes.
const PASSING: [&str; 7] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "Unavailable",
];

/// Does this code say that EC2 throttles, and has done nothing?
pub(super) fn is_throttling(code: &str) -> bool {
    THROTTLED.contains(&code)
}

impl Ec2Error {
    /// EC2 has refused, in the partition `aws`, and has not said when to ask again.
    pub fn refused(action: &'static str, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused {
            action,
            code: code.into(),
            message: message.into(),
            retry_after: None,
            partition: "aws",
        }
    }

    /// No readable answer.
    pub fn unknown(action: &'static str, message: impl Into<String>) -> Self {
        Self::Unknown { action, message: message.into(), status: None, retry_after: None }
    }

    /// True when EC2 may have carried out the request: look it up, never repeat it.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Has EC2 no such snapshot (any more)?
    #[must_use]
    pub(crate) fn is_no_snapshot(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "InvalidSnapshot.NotFound")
    }

    /// Do the EBS direct APIs not have it: for up to minutes after its completion?
    #[must_use]
    pub(crate) fn is_not_readable(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "ResourceNotFoundException")
    }

    /// May it go well a moment later? Then a call that changes nothing is repeated.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            // A snapshot that was made a moment ago may not be visible yet (EC2 guide, "eventual consistency").
            Self::Refused { action: "CreateTags" | "LockSnapshot", .. } if self.is_no_snapshot() => true,
            Self::Refused { code, .. } => is_throttling(code) || PASSING.contains(&code.as_str()),
            Self::Unreached { how, .. } => how.passes(),
            Self::Credentials { passes, .. } => *passes,
            // A page with a 4xx is somebody's "no"; without a status, or with 200, an answer got lost or cut.
            Self::Unknown { status, .. } => {
                status.is_none_or(|s| !(400..500).contains(&s) || s == 408 || s == 429)
            }
        }
    }

    /// How long EC2 has asked to wait, if it has.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Unknown { retry_after, .. } => *retry_after,
            Self::Unreached { .. } | Self::Credentials { .. } => None,
        }
    }

    /// What it is, in a few words, to be counted: EC2's code, or what kept it from answering.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Refused { code, .. } => code.clone(),
            Self::Unreached { how, .. } => how.to_string(),
            Self::Credentials { .. } => "no credentials".to_owned(),
            Self::Unknown { status: Some(status), .. } => format!("HTTP {status}"),
            Self::Unknown { .. } => "no answer".to_owned(),
        }
    }

    /// True when a permission is missing.
    #[must_use]
    pub fn denied(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if denial::is_denial(code))
    }

    /// The action that is not allowed, without `ec2:`. It can differ from the call's: tagging on create needs
    /// CreateTags.
    #[must_use]
    pub(crate) fn denied_action(&self) -> Option<&str> {
        match self {
            Self::Refused { action, message, .. } if self.denied() => {
                Some(denial::action_in(message).unwrap_or(action))
            }
            _ => None,
        }
    }

    /// The exit code of a run that fails by it: a missing permission, and credentials that EC2 does not take, have
    /// a code of their own.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { code, .. } if denial::credentials_hint(code).is_some() => Exit::Permission,
            Self::Credentials { .. } => Exit::Permission,
            _ if self.denied() => Exit::Permission,
            _ => Exit::Ec2,
        }
    }

    /// The message, and what the user can do about it.
    pub(crate) fn with_hint(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self} ({hint})"))
    }

    /// What the user can do about it, by EC2's error code; none for a code that is not known here.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { action, code, message, partition, .. } => {
                hint_for(action, code, message, partition)
            }
            Self::Unreached { how, .. } => Some(how.hint().to_owned()),
            Self::Credentials { hint, .. } => Some(hint.clone()),
            Self::Unknown { .. } => None,
        }
    }
}

impl From<Ec2Error> for Error {
    fn from(error: Ec2Error) -> Self {
        let hint = error.hint();
        Self::new(error.exit(), error).maybe_hint(hint)
    }
}

/// What to do about an EC2 error code (EC2 API reference, "error codes").
fn hint_for(action: &str, code: &str, message: &str, partition: &str) -> Option<String> {
    if denial::is_denial(code) {
        return Some(denial::hint(action, message, partition));
    }
    if let Some(hint) = denial::credentials_hint(code) {
        return Some(hint.to_owned());
    }
    let hint = match code {
        "SnapshotCreationPerVolumeRateExceeded" => {
            "EC2 allows one snapshot of a volume every 15 s: run again later"
        }
        "ConcurrentSnapshotLimitExceeded" => {
            "too many pending snapshots of one volume (5; st1 and sc1: 1): run again when they are completed"
        }
        "PendingSnapshotLimitExceeded" => {
            "the account has 100 pending snapshots: run again when some are completed"
        }
        "SnapshotLimitExceeded" => "the account's snapshot quota is used up: delete some or ask AWS for more",
        "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => {
            "check the credentials and this host's clock (chronyc tracking): one of them is out of date"
        }
        "TagLimitExceeded" => "set fewer tags, or copy_volume_tags = false (EC2 allows 50 a resource)",
        "InvalidVolume.NotFound" | "InvalidInstanceID.NotFound" => {
            "it is gone, or in another Region or account: check `stillpoint plan`"
        }
        code if is_throttling(code) => "EC2 throttles this account: run again later, or spread the timers",
        _ => return None,
    };
    Some(hint.to_owned())
}
