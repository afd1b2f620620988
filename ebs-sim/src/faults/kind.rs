//! What a fault does, and at which moment of a request.
//!
//! In: a kind's name. Out: when it strikes and which requests it can strike at all. Names must never change:
//! tests of others are written with them.

use serde::{Deserialize, Serialize};

/// What a fault does. Before and after are relative to the commit: for the calls that create
/// snapshots, the moment of the clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is done, and the error is answered.
    Error,
    /// It is done, and an error is answered all the same.
    ErrorAfter,
    /// Nothing is done, and RequestLimitExceeded is answered.
    Throttle,
    /// It is done late.
    DelayBefore,
    /// It is done in time and answered late.
    DelayAfter,
    /// It is done when it is released.
    HoldBefore,
    /// It is done in time and answered when it is released.
    HoldAfter,
    /// It is done and half of the answer is sent in time, the rest when it is released.
    HoldMid,
    /// Nothing is done and nothing is answered; the connection stays open.
    Hang,
    /// It is done and never answered; the connection stays open.
    HangAfter,
    /// Nothing is done and the connection is closed.
    DropBefore,
    /// It is done and the connection is closed without an answer.
    DropAfter,
    /// Nothing is done and the connection is reset.
    ResetBefore,
    /// It is done and the connection is reset without an answer.
    ResetAfter,
    /// It is done, Content-Length promises the whole answer, and half of it comes before the connection is
    /// closed.
    Truncated,
    /// It is done and the answer is cut off in the middle of the XML.
    Malformed,
    /// It is done and the answer is not XML.
    NotXml,
    /// It is done and the answer is XML of another kind.
    WrongRoot,
    /// Nothing is done, and the answer is a 500 (or `status`) that is not EC2's XML.
    #[serde(rename = "http-500")]
    #[value(name = "http-500")]
    Http500,
    /// A new connection is accepted, and the TLS handshake is never answered.
    TlsStall,
    /// It is done, and the answer stops in the middle of its first TLS record; the connection stays open.
    TlsStallMid,
    /// A new connection is reset before anything is read from it.
    Refuse,
    /// A volume that nobody knew of is attached just before: the set holds one snapshot more.
    ExtraVolume,
    /// A volume is detached just before: the set holds one snapshot less.
    DetachVolume,
    /// The snapshots are made, and the answer leaves the last one out.
    MissingSnapshot,
    /// The snapshots are made and end in the state `error`.
    SnapshotError,
    /// The snapshots stay pending longer.
    SlowProgress,
    /// DescribeSnapshots does not know of the snapshots for a while.
    LateVisibility,
    /// EC2's clock is ahead while it checks the signature.
    ClockSkew,
    /// The role's credentials that signed the request expire before it.
    CredentialsExpired,
}

/// The moment at which a kind strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// When a connection comes in: there is no request yet.
    Connection,
    /// Before the signature is checked.
    Signature,
    /// While the request is handled.
    Request,
}

impl Kind {
    /// When it strikes.
    pub fn stage(self) -> Stage {
        match self {
            Kind::TlsStall | Kind::Refuse => Stage::Connection,
            Kind::ClockSkew | Kind::CredentialsExpired => Stage::Signature,
            _ => Stage::Request,
        }
    }

    /// The actions that it is about; none for kinds that any action can have.
    pub fn actions(self) -> Option<&'static [&'static str]> {
        match self {
            Kind::ExtraVolume | Kind::DetachVolume | Kind::MissingSnapshot => {
                Some(&["CreateSnapshot", "CreateSnapshots"])
            }
            Kind::SnapshotError | Kind::SlowProgress | Kind::LateVisibility => {
                Some(&["CreateSnapshot", "CreateSnapshots", "CopySnapshot"])
            }
            _ => None,
        }
    }

    /// Whether the metadata service can have it too.
    pub fn suits_imds(self) -> bool {
        self.stage() != Stage::Signature
            && self.actions().is_none()
            && !matches!(self, Kind::TlsStall | Kind::TlsStallMid | Kind::NotXml | Kind::WrongRoot)
    }

    /// Whether it waits until it is released.
    pub fn holds(self) -> bool {
        matches!(self, Kind::HoldBefore | Kind::HoldAfter | Kind::HoldMid)
    }

    /// Whether it does nothing without `delay_ms`.
    pub fn needs_delay(self) -> bool {
        matches!(self, Kind::LateVisibility | Kind::ClockSkew)
    }

    /// The kebab-case name, as the request log shows it.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}
