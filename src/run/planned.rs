//! The first third of a run: which instance this is, what is mounted on it, what will be done.
//!
//! ```text
//! identify (IMDS) → connect → facts (EC2 and this host) → plan
//! ```
//!
//! In: the configuration. Out: a [`Planned`], step by step for `doctor`, which goes on where it can. Must
//! never: change anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::aside::aside;
use super::automounts;
use crate::clock;
use crate::config::Loaded;
use crate::discover::{self, Expectations, Expected, Facts, HostFacts, Identity, expected};
use crate::ec2::aws::Aws;
use crate::ec2::connect::{self, ConnectError};
use crate::ec2::repeat::Repeating;
use crate::ec2::sdk::Sdk;
use crate::ec2::{Describe, imds};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::device_users;
use crate::host::inspect::{Answers, Helper, Inspect};
use crate::host::kernel::{Kernel, Linux};
use crate::ids::DevNo;
use crate::path_encoding::shown;
use crate::plan::{self, Plan};
use crate::quiesce::systemctl;
use crate::window::claims;

/// How long it is looked for who has mounted, in another namespace, what is not mounted here: for the reason
/// of a volume that stays out.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// For the calls before the freeze, and for tagging or looking up after it.
const SETTLING: Duration = Duration::from_secs(120);

/// Identity, discovery and plan: what `plan` prints and `snapshot` carries out.
#[derive(Debug)]
pub struct Planned {
    /// Connected, with credentials that last for the window.
    pub ec2: Aws,
    /// What was found on this host and in EC2.
    pub facts: Facts,
    /// What `snapshot` would carry out.
    pub plan: Plan,
}

/// May something be mounted on the way to a plan?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The plan is shown: nothing changes.
    Look,
    /// The plan is carried out: automounts of its disks are mounted first, as by the first access.
    Run,
}

/// Identity, discovery and plan, one after the other.
///
/// # Errors
/// What failed first. Nothing has been touched but automounts.
pub async fn planned(loaded: &Loaded, root: &Path, purpose: Purpose) -> Result<Planned, Error> {
    let identity = identify(loaded).await?;
    // As many connections as the widest call may need at once.
    let ec2 = connect(loaded, &identity, plan::MAX_SET).await?;
    let id = &identity.instance_id;
    let asked = Repeating::of(&ec2, &loaded.settings.ec2);
    let (instance, attached) = tokio::join!(asked.instance(id), asked.volumes(id));
    let (instance, attached) = (instance.map_err(Error::from)?, attached.map_err(Error::from)?);
    let join = |host| {
        discover::facts(
            identity.clone(),
            hostname(),
            instance.root_device_name.clone(),
            attached.clone(),
            host,
        )
    };
    let settings = &loaded.settings.plan;
    let mut tried = BTreeMap::new();
    let mut known = Answers::default();
    let facts = loop {
        let below = root.to_owned();
        // In a thread of its own, since a signal has to end the process at once even while a disk is waited
        // for.
        let host = aside(move || host(&below, &Helper::own(), known)).await??;
        let mut expected = expectations(root, &host).await?;
        for mount in expected.mounts.iter_mut().filter(|m| m.idle.is_some()) {
            mount.failed = tried.get(&mount.mount_point).cloned().or_else(|| mount.failed.take());
        }
        let facts = Facts { expected, ..join(host) };
        let due =
            plan::to_mount(&facts, settings).into_iter().filter(|m| !tried.contains_key(&m.mount_point));
        let due: Vec<Expected> = due.cloned().collect();
        if due.is_empty() || purpose == Purpose::Look {
            break facts;
        }
        tried.extend(automounts::mount(due).await?);
        known = facts.answers;
    };
    let (mut facts, mut plan) = make(loaded, facts, root)?;
    let taken: Vec<DevNo> = plan.filesystems.iter().map(|f| f.dev).collect();
    let (facts, needing_root) = aside(move || {
        let needing_root = discover::uuids(&mut facts, &taken, &Helper::own());
        (facts, needing_root)
    })
    .await?;
    plan.note_uuids(&facts, &needing_root);
    if purpose == Purpose::Run {
        for missing in &plan.missing {
            tracing::warn!("should be mounted and is not: {missing}");
        }
    }
    for path in loaded.not_read() {
        plan.needs_root(&format!("the configuration in {}, which a run as root goes by", shown(path)));
    }
    Ok(Planned { ec2, facts, plan })
}

/// Asks IMDS for the identity of this instance.
///
/// # Errors
/// When IMDS gives none; exit 69.
pub(crate) async fn identify(loaded: &Loaded) -> Result<Identity, Error> {
    let sdk = Sdk::find(loaded).await.map_err(|e| {
        let hint = e.hint.clone();
        Error::new(Exit::Config, e).hint(hint)
    })?;
    let mut overrides = loaded.settings.identity.clone();
    // Given in any case: the SDK's client would read its files to find one.
    overrides.imds_endpoint = Some(sdk.imds.value);
    imds::identity(&overrides, &clock::System).await.map_err(|e| {
        let hint = e.hint();
        Error::new(Exit::Imds, e).hint(hint)
    })
}

/// Finds credentials that last for the window and what follows it at once, and connects to EC2 with up to
/// `connections` connections at once.
///
/// # Errors
/// When there are no such credentials (exit 77), or EC2 cannot be reached (exit 23).
pub async fn connect(loaded: &Loaded, identity: &Identity, connections: usize) -> Result<Aws, Error> {
    let connected = connect::connect(
        loaded,
        &identity.region,
        credentials_needed(loaded.settings.plan.window),
        connections,
    );
    Ok(Aws::new(connected.await.map_err(not_connected)?))
}

/// There is no connection: whose fault that is, and what to do.
pub(crate) fn not_connected(e: ConnectError) -> Error {
    let exit = match e {
        ConnectError::Credentials(_) | ConnectError::CredentialsLate(_) | ConnectError::Expiring { .. } => {
            Exit::Permission
        }
        ConnectError::Setting { .. } => Exit::Config,
        _ => Exit::Ec2,
    };
    let hint = e.hint().to_owned();
    Error::new(exit, e).hint(hint)
}

/// What should be mounted and is not.
///
/// # Errors
/// When looking ends unexpectedly.
pub(crate) async fn expectations(root: &Path, host: &HostFacts) -> Result<Expectations, Error> {
    let units = systemctl::mount_units(expected::UNIT_PROPERTIES).await;
    let (root, host) = (root.to_owned(), host.clone());
    aside(move || {
        let units = units.as_ref().map(|said| said.as_deref().map_err(String::as_str));
        expected::expected(&root, &host, units, &Helper::own())
    })
    .await
}

/// The filesystems and devices of this host, read below `root`. Warns of mounts that cannot be read.
///
/// # Errors
/// When the mounts or devices cannot be read.
pub fn host(root: &Path, inspect: &dyn Inspect, known: Answers) -> Result<HostFacts, Error> {
    let host = discover::host(root, inspect, known).map_err(|e| {
        let hint = e.hint();
        Error::new(Exit::Permission, e).maybe_hint(hint)
    })?;
    for bad in &host.unread_mounts {
        tracing::warn!("cannot read this line of /proc/self/mountinfo: {bad}");
    }
    Ok(host)
}

/// The host's name; empty when the kernel does not say it.
#[must_use]
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Makes the plan. What no mount here shows to be in use is then looked at on this machine: a run would claim
/// it, and this tries to, for a moment. What is in use goes into the facts, and the plan is made again. An
/// ordinary user cannot look, and the plan says so.
///
/// # Errors
/// When the configuration names something that this host does not have; exit 78.
pub fn make(loaded: &Loaded, mut facts: Facts, root: &Path) -> Result<(Facts, Plan), Error> {
    let make = |facts: &Facts| {
        plan::plan(facts, &loaded.settings.plan).map_err(|e| {
            let hint = e.hint();
            Error::new(Exit::Config, e).maybe_hint(hint)
        })
    };
    let attached = facts.unmounted_devices();
    if !nix::unistd::geteuid().is_root() {
        let mut plan = make(&facts)?;
        if !attached.is_empty() {
            plan.needs_root("what is mounted in other mount namespaces only");
        }
        if !plan.witnesses.is_empty() {
            let names: Vec<_> = plan.witnesses.iter().map(|d| d.name.as_str()).collect();
            plan.needs_root(&format!("whether anything uses {}", names.join(", ")));
        }
        return Ok((facts, plan));
    }
    if !attached.is_empty() {
        facts.elsewhere = device_users::mounts(root, &attached, ELSEWHERE).found;
    }
    let first = make(&facts)?;
    let kernel: Arc<dyn Kernel> = Arc::new(Linux);
    facts.in_use = claims::take(&kernel, root, &first).in_use;
    let plan = if facts.in_use.is_empty() { first } else { make(&facts)? };
    Ok((facts, plan))
}

/// How long credentials have to last, from the last call before the freeze: for the window, and for what follows it
/// at once. Before that, and after it, they are fetched again when they end: hooks and post hooks take as long as
/// they do.
pub(super) fn credentials_needed(window: Duration) -> Duration {
    window + SETTLING
}
