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
    /// The request is not carried out; an error is answered.
    Error,
    /// The request is carried out; an error is answered all the same.
    ErrorAfter,
    /// The request is not carried out; RequestLimitExceeded is answered.
    Throttle,
    /// The request waits before it is carried out.
    DelayBefore,
    /// The request is carried out at once; its answer waits.
    DelayAfter,
    /// The request is held before it is carried out, until it is released.
    HoldBefore,
    /// The request is carried out at once; its answer is held until it is released.
    HoldAfter,
    /// The request is carried out at once; half of its answer is sent, and the rest is held until it is
    /// released.
    HoldMid,
    /// The request is neither carried out nor answered; the connection stays open.
    Hang,
    /// The request is carried out and never answered; the connection stays open.
    HangAfter,
    /// The request is not carried out; the connection is closed.
    DropBefore,
    /// The request is carried out; the connection is closed without an answer.
    DropAfter,
    /// The request is not carried out; the connection is reset.
    ResetBefore,
    /// The request is carried out; the connection is reset without an answer.
    ResetAfter,
    /// The request is carried out; Content-Length promises the whole answer, and the connection is closed
    /// after half of it.
    Truncated,
    /// The request is carried out; the XML of its answer ends in the middle.
    Malformed,
    /// The request is carried out; its answer is not XML.
    NotXml,
    /// The request is carried out; its answer is XML of another kind.
    WrongRoot,
    /// The request is carried out; a byte of the block that it answers is another one, and its checksum is not.
    Corrupt,
    /// The request is not carried out; the answer is a 500 (or `status`) without EC2's XML.
    #[serde(rename = "http-500")]
    #[value(name = "http-500")]
    Http500,
    /// A new connection is accepted, and the TLS handshake is never answered.
    TlsStall,
    /// The request is carried out; its answer stops in the middle of its first TLS record, and the
    /// connection stays open.
    TlsStallMid,
    /// A new connection is reset before anything is read from it.
    Refuse,
    /// A volume that was not there before is attached first: the set holds one snapshot more.
    ExtraVolume,
    /// A volume is detached first: the set holds one snapshot less.
    DetachVolume,
    /// The snapshots are made, and the answer leaves the last one out.
    MissingSnapshot,
    /// The snapshots are made and end in the state `error`.
    SnapshotError,
    /// The volume that is made ends in the state `error`.
    VolumeError,
    /// The old root is detached, and the new one is never attached: the instance has none.
    RootDetached,
    /// The snapshots stay pending longer, the volume's initialisation takes longer.
    SlowProgress,
    /// Describe calls do not know of what was made for a while.
    LateVisibility,
    /// Describe calls show the snapshots' tags as they were before for a while.
    LateTags,
    /// DescribeSnapshots still lists the snapshot that is deleted for a while.
    LateDeletion,
    /// EC2's clock is ahead while it checks the signature.
    ClockSkew,
    /// The role's credentials that signed the request expire before it.
    CredentialsExpired,
}

/// The moment at which a kind strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When a connection comes in: there is no request yet.
    Connection,
    /// Before the signature is checked.
    Signature,
    /// While the request is handled.
    Request,
}

impl Kind {
    /// When it strikes.
    pub fn moment(self) -> Moment {
        match self {
            Kind::TlsStall | Kind::Refuse => Moment::Connection,
            Kind::ClockSkew | Kind::CredentialsExpired => Moment::Signature,
            _ => Moment::Request,
        }
    }

    /// The actions that it is about; none for kinds that any action can have.
    pub fn actions(self) -> Option<&'static [&'static str]> {
        match self {
            Kind::ExtraVolume | Kind::DetachVolume | Kind::MissingSnapshot => {
                Some(&["CreateSnapshot", "CreateSnapshots"])
            }
            Kind::SnapshotError => Some(&["CreateSnapshot", "CreateSnapshots", "CopySnapshot", "CopyImage"]),
            Kind::VolumeError => {
                Some(&["CreateVolume", "CopyVolumes", "CreateReplaceRootVolumeTask", "RunInstances"])
            }
            Kind::RootDetached => Some(&["CreateReplaceRootVolumeTask"]),
            Kind::SlowProgress => Some(&[
                "CreateSnapshot",
                "CreateSnapshots",
                "CopySnapshot",
                "CopyImage",
                "CreateVolume",
                "CopyVolumes",
                "CreateReplaceRootVolumeTask",
                "RunInstances",
            ]),
            Kind::LateVisibility => Some(&[
                "CreateSnapshot",
                "CreateSnapshots",
                "CopySnapshot",
                "CreateVolume",
                "CopyVolumes",
                "RegisterImage",
                "RunInstances",
            ]),
            Kind::LateTags => Some(&[
                "CreateSnapshot",
                "CreateSnapshots",
                "CopySnapshot",
                "CreateVolume",
                "CopyVolumes",
                "RunInstances",
                "CreateTags",
                "DeleteTags",
            ]),
            Kind::LateDeletion => Some(&["DeleteSnapshot"]),
            Kind::Corrupt => Some(&["ebs:GetSnapshotBlock"]),
            _ => None,
        }
    }

    /// Whether the metadata service can have it too.
    pub fn suits_imds(self) -> bool {
        self.moment() != Moment::Signature
            && self.actions().is_none()
            && !matches!(self, Kind::TlsStall | Kind::TlsStallMid | Kind::NotXml | Kind::WrongRoot)
    }

    /// Whether it waits until it is released.
    pub fn holds(self) -> bool {
        matches!(self, Kind::HoldBefore | Kind::HoldAfter | Kind::HoldMid)
    }

    /// Whether it has no effect without `delay_ms`.
    pub fn needs_delay(self) -> bool {
        matches!(self, Kind::LateVisibility | Kind::LateTags | Kind::LateDeletion | Kind::ClockSkew)
    }

    /// The kebab-case name, as the request log shows it.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}
