//! Validated settings: what the rest of the program works with.
//!
//! In: values that [`crate::config`] has checked. Out: plain values. Must never: have a bare number for a
//! time or a size.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use super::checks::{Check, CheckedDatabase};
pub use super::hooks::{
    CommandHook, ContainerEngine, ContainerHook, DirectoryHook, Hook, HookKind, Mysql, MysqlMethod,
    OnFailure, Postgresql, PostgresqlMode, Redis, RedisMode, ScriptHook, SessionHook, SystemdHook,
    UnitMethod,
};
pub use super::notify::{Notify, NotifyOn};
use crate::consistency::{Consistency, Method};
use crate::ec2::keep::{Lock, LockEnd, LockMode};
use crate::ids::{InstanceId, VolumeId};
use crate::sets::retention::Policy;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The identity, where IMDS is not asked.
    pub identity: IdentityOverrides,
    /// How EC2 is reached.
    pub ec2: Ec2Settings,
    /// Where state is kept (records of sets); default `/var/lib/stillpoint`.
    pub state_dir: PathBuf,
    /// Where the journal and the lock are kept, a memory filesystem; default `/run/stillpoint`.
    pub run_dir: PathBuf,
    /// The file that gets metrics, for node_exporter's textfile collector; none means that there is none.
    pub textfile: Option<PathBuf>,
    /// The chosen plan.
    pub plan: PlanSettings,
}

/// The identity of this instance, where the configuration gives it. With instance and Region, IMDS is not
/// asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IdentityOverrides {
    /// None means that IMDS is asked.
    pub instance_id: Option<InstanceId>,
    /// Such as `eu-central-1`; none means that IMDS is asked.
    pub region: Option<String>,
    /// IMDS endpoint; the SDK's own variable is `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub imds_endpoint: Option<String>,
    /// How long IMDS is waited for, and the role's credentials in it. None: 60 s in a service of systemd's, 5 s
    /// elsewhere.
    #[serde(serialize_with = "optional_duration")]
    pub imds_timeout: Option<Duration>,
}

/// How EC2 is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ec2Settings {
    /// Endpoint URL; none means the Region's own, or the SDK's environment variables.
    pub(crate) endpoint_url: Option<String>,
    /// Longest time a call outside the window may take; default 10 s.
    #[serde(serialize_with = "duration")]
    pub(crate) call_timeout: Duration,
    /// For how long a call that changes nothing is repeated; zero means never; default 30 s.
    #[serde(serialize_with = "duration")]
    pub(crate) retry_timeout: Duration,
    /// EC2's minimum time between two snapshots of one volume, waited for before a run; default 15 s.
    #[serde(serialize_with = "duration")]
    pub volume_interval: Duration,
}

/// Is `rcu_expedited` raised while filesystems are being frozen?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expedite {
    /// Where it harms nobody.
    #[default]
    Auto,
    /// Wherever it can be.
    Always,
    /// Nowhere.
    Never,
}

impl Serialize for Expedite {
    /// As it is written in a configuration.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_bool(false),
        }
    }
}

/// One plan: `[plan.NAME]` over `[defaults]` over built-in values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanSettings {
    /// The plan's name; `default` when none was given.
    pub name: String,
    /// Only these mount points, and those that share their volumes; empty means every EBS-backed filesystem.
    pub mounts: Vec<PathBuf>,
    /// Only these volumes; may be combined with `mounts`: the union is taken.
    pub volumes: Vec<VolumeId>,
    /// Only volumes that carry all these tags; an empty value means any value.
    pub volume_tags: BTreeMap<String, String>,
    /// Mount points whose filesystems stay out. It is an error when one is no mount point.
    pub exclude_mounts: Vec<PathBuf>,
    /// Volumes that stay out. It is an error when one is not attached.
    pub exclude_volumes: Vec<VolumeId>,
    /// Leave the boot volume out; default false.
    pub exclude_boot_volume: bool,
    /// Take a filesystem that is only partly on EBS or only partly in the set; default false.
    pub allow_partial: bool,
    /// Run in a PID namespace that is not the host's, whose end kills the watchdog too; default false.
    pub allow_pid_namespace: bool,
    /// Attached volumes without a mounted filesystem: default exclude.
    pub unmounted_volumes: UnmountedVolumes,
    /// What a run does about automounts that wait on disks of the plan: default mount.
    pub automounts: Automounts,
    /// What should be mounted and is not: default degrade.
    pub missing_mounts: MissingMounts,
    /// Methods of single mount points, where the default (freeze, or sync if the filesystem cannot freeze) is
    /// not wanted.
    pub methods: BTreeMap<PathBuf, Method>,
    /// The requested consistency; none means `application` with hooks, else `filesystem`.
    pub consistency: Option<Consistency>,
    /// What happens when less than requested is achieved: default fail.
    pub on_degraded: OnDegraded,
    /// Hard limit of the frozen window, from before the first FIFREEZE to the last FITHAW; default 10 s.
    #[serde(serialize_with = "duration")]
    pub window: Duration,
    /// Longest time all the FIFREEZE calls together may take, less than `window`; default 5 s, or half of a
    /// shorter window.
    #[serde(serialize_with = "duration")]
    pub freeze_timeout: Duration,
    /// Longest time that a run waits, before its hooks, for the end of an operation that FIFREEZE would wait
    /// for (scrub, balance, resize); default 10 min.
    #[serde(serialize_with = "duration")]
    pub busy_timeout: Duration,
    /// Longest time that flushing before the first FIFREEZE may take, while the applications are quiesced;
    /// default 5 min.
    #[serde(serialize_with = "duration")]
    pub flush_timeout: Duration,
    /// systemd units that are stopped before filesystems with the method `unmount` are unmounted, in this
    /// order; those that were active are started again after the last one is mounted, in reverse order.
    pub stop_units: Vec<String>,
    /// Longest time that stopping the units and flushing before the unmount may take together, and that each
    /// unit's start may take afterwards; default 30 s.
    #[serde(serialize_with = "duration")]
    pub unmount_timeout: Duration,
    /// Raise `/sys/kernel/rcu_expedited`, which is host-wide, while FIFREEZE runs; default `auto`.
    pub rcu_expedited: Expedite,
    /// Copy the volumes' own tags to the snapshots; default false, because EC2 allows 50
    /// tags.
    pub copy_volume_tags: bool,
    /// `snapshot` ends when every snapshot is completed: default false.
    pub wait: bool,
    /// The user's tags for every snapshot.
    pub tags: BTreeMap<String, String>,
    /// What a host keeps that is built anew, in place of its instance's id: sets of a former instance with the same
    /// key, which is gone, are pruned with this one's.
    pub host_key: Option<String>,
    /// Description of the snapshots; none means a generated one.
    pub description: Option<String>,
    /// What is kept of the sets, and of their copies; none means that nothing is removed.
    pub keep: Option<KeepSettings>,
    /// How the snapshots of a new set are locked once they have their label; none means that they are not.
    pub lock: Option<LockSettings>,
    /// Where its sets are copied to.
    pub copy: Vec<CopySettings>,
    /// Files with keys of LUKS, which `verify --level restore` tries, each in turn.
    pub luks_key_files: Vec<PathBuf>,
    /// Hooks in order.
    pub hooks: Vec<Hook>,
    /// Commands that are told how a run ended, in order.
    pub notify: Vec<Notify>,
    /// What looks at a restored set, in order.
    pub checks: Vec<Check>,
    /// The group whose other members take their sets at the same point in time; none means that this host is alone.
    pub group: Option<GroupSettings>,
}

/// What is kept of a plan's sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeepSettings {
    /// The rules of the plan's own sets.
    #[serde(flatten)]
    pub sets: Policy,
    /// The rules of their copies, at each destination; none means that no copy is removed.
    pub copies: Option<Policy>,
}

/// How the snapshots of a new set are locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockSettings {
    /// How hard.
    pub mode: LockMode,
    /// For so many days from their completion.
    pub days: u32,
    /// How long a compliance lock can still be undone, in whole hours.
    #[serde(serialize_with = "optional_duration")]
    pub cool_off: Option<Duration>,
    /// That a compliance lock without a cooling-off period can never be undone is meant.
    pub yes_nobody_can_undo_it: bool,
}

impl LockSettings {
    /// As EC2 is asked for it.
    #[must_use]
    pub(crate) fn wanted(&self) -> Lock {
        Lock {
            mode: self.mode,
            end: LockEnd::Days(self.days),
            cool_off: self.cool_off.and_then(super::check::whole_hours),
        }
    }
}

/// A destination of copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopySettings {
    /// The Region.
    pub region: String,
    /// Encrypt what is not, with the account's default key; default false.
    pub encrypt: bool,
    /// The key to encrypt with, as the destination's Region and account name it; none means that of `encrypt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A time-based copy: EC2 is done within this time, for a higher price; none means without such a promise.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_duration")]
    pub within: Option<Duration>,
}

/// The group that this host is a member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupSettings {
    /// The same for all members; a part of keys and tags.
    pub name: String,
    /// The plan whose runs come together with those of the other members.
    pub plan: String,
    /// This host's name in the group.
    pub member: String,
    /// The names of all members, this one's too.
    pub members: Vec<String>,
    /// Where the members meet.
    pub engine: GroupEngine,
    /// The engine's URLs, `http` or `https`.
    pub endpoints: Vec<String>,
    /// What the group's keys begin with; ends with a slash.
    pub prefix: String,
    /// The certificates that the engine's is checked with; none means the system's.
    pub ca: Option<PathBuf>,
    /// This host's own certificate, where the engine asks for one.
    pub cert: Option<PathBuf>,
    /// The key of that.
    pub key: Option<PathBuf>,
    /// The engine's user, where it has users.
    pub user: Option<String>,
    /// Its password: the first line of this file.
    pub password_file: Option<PathBuf>,
    /// How long the others are waited for before anything is touched; default 10 min.
    #[serde(serialize_with = "duration")]
    pub join_timeout: Duration,
    /// How long the others' hooks and flushes are waited for while this host's applications are quiesced; default
    /// 2 min.
    #[serde(serialize_with = "duration")]
    pub ready_timeout: Duration,
    /// How long the others are waited for after the thaw, for the label; default 10 min.
    #[serde(serialize_with = "duration")]
    pub settle_timeout: Duration,
    /// Longest time that one call of the engine may take, at all its endpoints together, and that nothing may be heard
    /// of it while anything is frozen; default 2 s.
    #[serde(serialize_with = "duration")]
    pub call_timeout: Duration,
    /// How long this host's entry stays when the host is not heard of; whole seconds; default 10 s.
    #[serde(serialize_with = "duration")]
    pub lease: Duration,
}

/// Where the members of a group meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupEngine {
    /// etcd v3.
    Etcd,
}

impl PlanSettings {
    /// Is there a hook that quiesces an application?
    #[must_use]
    pub(crate) fn holds_applications(&self) -> bool {
        self.hooks.iter().any(Hook::quiesces)
    }
}

/// What happens to attached volumes without a mounted filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnmountedVolumes {
    /// Left out, with the reason.
    Exclude,
    /// Taken at `crash` consistency.
    Crash,
}

/// What a run does about automounts of local disks on which nothing is mounted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Automounts {
    /// Mounted before the plan is made, as by the first access.
    Mount,
    /// Left alone, and named.
    Name,
}

/// What follows when something that fstab or a mount unit names is not mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingMounts {
    /// The set is less than what was asked for: [`OnDegraded`] decides.
    Degrade,
    /// A warning.
    Warn,
}

/// What to do when the requested consistency is not achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDegraded {
    /// Keep the set under its true label, exit 22.
    Fail,
    /// Keep the set under its true label, exit 10.
    Keep,
}

impl OnDegraded {
    /// As it is written.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Keep => "keep",
        }
    }
}

fn optional_duration<S: serde::Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(d) => duration(d, s),
        None => s.serialize_none(),
    }
}

fn duration<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&humantime::format_duration(*d))
}
