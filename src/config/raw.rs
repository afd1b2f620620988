//! One file's text → [`Fragment`]: every key is known and every single value is checked.
//!
//! In: text and the name of its file. Out: what the file sets, each value with its position; nothing is
//! filled in. Must never: ignore a key it does not know, or panic on any text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::check::{self, Fault};
use super::checks::{self, CheckInput};
use super::copies;
use super::error::{ConfigError, Origin, Sourced};
use super::group::GroupInput;
use super::hooks::section::{HookInput, SECTIONS};
use super::input::{Input, input};
use super::keep::KeepInput;
use super::lock::LockInput;
use super::node::{Document, Node, Table};
use super::notify::{self, NotifyInput};
use super::settings::{Automounts, CopySettings, Expedite, MissingMounts, OnDegraded, UnmountedVolumes};
use crate::consistency::{Consistency, Method};
use crate::ids::{InstanceId, VolumeId};

input! {
    /// The keys outside of tables.
    TopInput {
        /// path | `"/var/lib/stillpoint"` | records of sets
        state_dir: PathBuf = Node::path;
        /// path | `"/run/stillpoint"` | journal and lock of a run; it has to be on a memory filesystem,
        /// because it is needed while the others are frozen, and because [what was
        /// thawed](frozen-window.md#what-a-recovery-thaws) is noted there
        run_dir: PathBuf = Node::path;
        /// path ending in `.prom` | not set | the file that gets [metrics](monitoring.md#metrics), for
        /// node_exporter's textfile collector; its folder has to be [root's
        /// alone](#who-may-change-what-root-reads-and-runs) | `"/var/lib/node_exporter/stillpoint.prom"`
        textfile: PathBuf = |n: &Node<'_>| n.checked(check::textfile);
    } per_entry {}
}

input! {
    /// `[identity]`.
    IdentityInput {
        /// instance id | not set | the instance | `"i-0123456789abcdef0"`
        instance_id: InstanceId = Node::id;
        /// string | not set | its Region, as in `"eu-central-1"` | `"eu-central-1"`
        region: String = |n: &Node<'_>| n.checked(check::region);
        /// URL | not set | where the metadata service [is](aws.md) | `"http://169.254.169.254"`
        imds_endpoint: String = |n: &Node<'_>| n.checked(check::url);
        /// time, 0 s to 1 h | not set | for how long IMDS, and the role's credentials in it, are [waited
        /// for](aws.md#imds-at-boot); not set means 60 s in a service of systemd's, 5 s elsewhere | `"60s"`
        imds_timeout: Duration = |n: &Node<'_>| n.duration(check::IMDS_TIMEOUT);
    } per_entry {}
}

input! {
    /// `[ec2]`.
    Ec2Input {
        /// URL | not set | endpoint of the EC2 API; not set means what the [SDK's variables and
        /// files](aws.md) say, else the Region's own | `"https://ec2.eu-central-1.amazonaws.com"`
        endpoint_url: String = |n: &Node<'_>| n.checked(check::url);
        /// time, 100 ms to 5 min | `"10s"` | longest time a call outside the frozen window may take
        call_timeout: Duration = |n: &Node<'_>| n.duration(check::CALL_TIMEOUT);
        /// time, 0 s to 1 h | `"30s"` | for how long a call that changes nothing, or that may be made twice,
        /// is [repeated](aws.md#repeated-calls) when EC2 throttles or does not answer; while applications are
        /// held, no longer than `call_timeout`. `"0s"`: never. The call that takes the set is never repeated
        retry_timeout: Duration = |n: &Node<'_>| n.duration(check::RETRY_TIMEOUT);
        /// time, 0 s to 5 min | `"15s"` | the shortest time that EC2 allows between two snapshots of one
        /// volume. A run waits for the rest of it before it starts the hooks. `"0s"` where the endpoint has
        /// no such limit
        volume_interval: Duration = |n: &Node<'_>| n.duration(check::VOLUME_INTERVAL);
    } per_entry {}
}

input! {
    /// `[defaults]` and `[plan.NAME]`.
    PlanInput {
        /// list of mount points | `[]` | only these filesystems, and those that share volumes with them. With
        /// `mounts`, `volumes` and `volume_tags` empty: every EBS-backed filesystem
        mounts: Vec<PathBuf> = Node::paths;
        /// list of volume ids | `[]` | only these volumes; with `mounts` as well, the union of both
        volumes: Vec<VolumeId> = Node::ids;
        /// list of mount points | `[]` | leave these out. Each has to be mounted, or [named by fstab or a
        /// mount unit](#what-should-be-mounted)
        exclude_mounts: Vec<PathBuf> = Node::paths;
        /// list of volume ids | `[]` | leave these out
        exclude_volumes: Vec<VolumeId> = Node::ids;
        /// true or false | `false` | leave the boot volume out
        exclude_boot_volume: bool = Node::flag;
        /// true or false | `false` | take a filesystem that is only partly on EBS, or only partly in the set:
        /// its volumes are then `crash`. A filesystem whose devices cannot be told makes every volume `crash`
        allow_partial: bool = Node::flag;
        /// true or false | `false` | run in a PID namespace that is not the host's, such as a container's.
        /// When its first process ends, the kernel kills every process in it, the watchdog too, and what is
        /// frozen stays frozen until `stillpoint thaw` or a restart. Without this, a run there is refused
        /// with code 78: run the container in the host's PID namespace (`--pid=host`, `hostPID: true`)
        allow_pid_namespace: bool = Node::flag;
        /// `"exclude"`, `"crash"` | `"exclude"` | attached volumes without a mounted filesystem: leave out,
        /// or take at `crash` consistency
        unmounted_volumes: UnmountedVolumes = |n: &Node<'_>| n.checked(|t| check::choice(t, check::UNMOUNTED));
        /// `"mount"`, `"name"` | `"mount"` | automounts of the plan's disks that wait for their first access:
        /// mount them before the plan is made, or leave them alone and name them
        automounts: Automounts = |n: &Node<'_>| n.checked(|t| check::choice(t, check::AUTOMOUNTS));
        /// `"degrade"`, `"warn"` | `"degrade"` | what follows when something [should be mounted and is
        /// not](#what-should-be-mounted): the set is less than what was asked for, and `on_degraded` decides
        /// the exit code (22 or 10); or a warning alone
        missing_mounts: MissingMounts = |n: &Node<'_>| n.checked(|t| check::choice(t, check::MISSING_MOUNTS));
        /// `"crash"`, `"filesystem"`, `"application"` | not set | the consistency that is requested; not set
        /// means `application` if the plan has hooks, else `filesystem` | `"filesystem"`
        consistency: Consistency = |n: &Node<'_>| n.checked(check::consistency);
        /// `"fail"`, `"keep"` | `"fail"` | what happens when less is achieved: `fail` exits 22, `keep` exits
        /// 10. Either way the set is kept, under its true label. What the plan cannot reach, `fail` refuses
        /// before anything is touched (78)
        on_degraded: OnDegraded = |n: &Node<'_>| n.checked(check::on_degraded);
        /// time, 100 ms to 5 min | `"10s"` | hard limit of the frozen window, from before the first freeze to
        /// the last thaw
        window: Duration = |n: &Node<'_>| n.duration(check::WINDOW);
        /// time, 50 ms up to less than `window` | `"5s"`, or half of `window` when that is less | longest
        /// time for freezing all filesystems together | `"5s"`
        freeze_timeout: Duration = |n: &Node<'_>| n.duration(check::FREEZE_TIMEOUT);
        /// time, 0 s to 24 h | `"10m"` | longest time that a run waits, before its hooks, for the end of an
        /// operation that the freeze would wait for (btrfs scrub, balance, resize, and
        /// [others](frozen-window.md#what-keeps-a-freeze-waiting)); then it is refused with code 21, and the
        /// operation is named. `"0s"`: refused at once
        busy_timeout: Duration = |n: &Node<'_>| n.duration(check::BUSY_TIMEOUT);
        /// time, 100 ms to 1 h | `"5m"` | longest time for flushing all filesystems before the first freeze,
        /// while the applications are quiesced. It also limits the question after the thaw, when nothing waits
        /// any more, whether everything was written: without an answer the set is `crash`
        flush_timeout: Duration = |n: &Node<'_>| n.duration(check::FLUSH_TIMEOUT);
        /// list of systemd units | `[]` | stopped in this order before anything is unmounted. Those that were
        /// active are started again, in reverse order, once everything is mounted. Needs a mount with the
        /// method `unmount`
        stop_units: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(check::unit_name));
        /// time, 100 ms to 1 h | `"30s"` | longest time for stopping the units and flushing before the
        /// unmount, together; and for each unit's start afterwards
        unmount_timeout: Duration = |n: &Node<'_>| n.duration(check::UNMOUNT_TIMEOUT);
        /// `"auto"`, true or false | `"auto"` | set `/sys/kernel/rcu_expedited` to 1 while filesystems are
        /// being frozen, and restore it afterwards. Freezing then takes a tenth to a quarter of the time.
        /// Meanwhile the kernel interrupts every busy CPU of the host, so `"auto"` leaves it alone [where
        /// that may harm somebody](frozen-window.md#rcu_expedited); `plan` says which, and why
        rcu_expedited: Expedite = Node::expedite;
        /// true or false | `false` | copy the volumes' own tags to the snapshots, except keys that begin with
        /// `stillpoint:` or `aws:` (in any letter case) and keys in `tags`. What all volumes have in common
        /// is in the create call; with several volumes, the rest is put on with the label, and is missing if
        /// the run dies before. EC2 allows 50 tags on a snapshot in all
        copy_volume_tags: bool = Node::flag;
        /// true or false | `false` | a `snapshot` of this plan ends when every snapshot is completed, as with
        /// `--wait`. Until then other runs may begin. `completed` and `failed` commands of hooks [run
        /// then](sets.md#waiting)
        wait: bool = Node::flag;
        /// string, up to 128 letters, digits, `_`, `-`, `.`, `:`, `/` | not set | what this host keeps when
        /// it is built anew, in place of its instance's id: [sets of its former
        /// instance](retention.md#a-host-that-is-built-anew) are pruned with its own. The tag
        /// `stillpoint:host-key` | `"db-1.example.com"`
        host_key: String = |n: &Node<'_>| n.checked(check::host_key);
        /// string, up to 207 characters | not set | description of the snapshots, after `stillpoint` and the
        /// id of the set; not set means a generated one | `"orders database"`
        description: String = |n: &Node<'_>| n.checked(check::description);
        /// list of tables | `[]` | the Regions that sets of the plan are [copied to](copies.md)
        copy: Vec<CopySettings> = copies::read;
        /// list of files | `[]` | keys with which [`verify --level restore`](verify.md#a-real-restore) opens
        /// what is in LUKS, each tried in turn. Root's own files that nobody else can read (mode 600); one
        /// that is not makes that verify end with code 78. `--key-file` takes their place
        luks_key_files: Vec<PathBuf> = Node::paths;
    } per_entry {
        /// tags | `{}` | only volumes that carry all these tags; an empty value means any value
        volume_tags: String, String = |n: &Node<'_>| n.tags(check::filter_tag);
        /// table: mount point to `"freeze"`, `"sync"` or `"unmount"` | `{}` | the method of single mount
        /// points. The default is `freeze`, or `sync` where the filesystem cannot freeze (such as
        /// `/boot/efi`). `sync` flushes, and proves by the device's write counter that nothing was written
        /// afterwards; a counter that does not count (`queue/iostats` is 0) proves nothing, and the set is
        /// `crash`. A vfat keeps its [dirty bit](frozen-window.md#what-no-program-can-promise). `unmount`
        /// [unmounts](#unmounting) it over the point in time
        methods: PathBuf, Method = |n: &Node<'_>| n.by_mount(check::METHODS);
        /// tags, at most 20 | `{}` | tags for every snapshot; keys must not start with `aws:` or
        /// `stillpoint:`, in any letter case
        tags: String, String = |n: &Node<'_>| n.tags(check::own_tag);
    } tables {
        /// table | not set | the rules by which old sets go; not set means that nothing is removed
        keep: KeepInput;
        /// table | not set | [EC2's lock](sets.md#locking) on the snapshots of each new set, once they have
        /// their label; not set means none
        lock: LockInput;
    }
}

/// What one file sets, or several merged files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(crate) top: TopInput,
    pub identity: IdentityInput,
    pub ec2: Ec2Input,
    pub group: Option<Sourced<GroupInput>>,
    pub(crate) defaults: PlanInput,
    pub(crate) plans: BTreeMap<String, PlanInput>,
    pub hooks: Vec<HookInput>,
    pub notify: Vec<NotifyInput>,
    pub checks: Vec<CheckInput>,
}

/// The tables at the top level.
const TABLES: [&str; 5] = ["identity", "ec2", "group", "defaults", "plan"];

/// Reads one file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Fragment, ConfigError> {
    let doc = Document { file: Arc::from(file), text };
    let parsed = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        place: doc.place(e.span().map_or(0, |span| span.start)),
        message: e.message().to_owned(),
    })?;
    let sections = SECTIONS.map(|section| section.name);
    let known = [TopInput::KEYS, &TABLES, &sections, &[notify::SECTION, checks::SECTION]].concat();
    let mut found = Vec::new();
    let mut fragment = Fragment::default();
    Table::top(&doc, parsed.get_ref()).each(&known, |node| {
        match node.name {
            "identity" => fragment.identity = IdentityInput::read(&node.table()?)?,
            "ec2" => fragment.ec2 = Ec2Input::read(&node.table()?)?,
            "group" => fragment.group = Some(node.sourced(|n| GroupInput::read(&n.table()?))?),
            "defaults" => fragment.defaults = PlanInput::read(&node.table()?)?,
            "plan" => fragment.plans = plans(node)?,
            notify::SECTION => {
                for element in node.elements()? {
                    fragment.notify.push(notify::read(&element)?);
                }
            }
            checks::SECTION => {
                for element in node.elements()? {
                    fragment.checks.push(checks::read(&element)?);
                }
            }
            name => match SECTIONS.iter().find(|section| section.name == name) {
                Some(section) => {
                    for element in node.elements()? {
                        found.push((section.read)(&element)?);
                    }
                }
                None => return fragment.top.set(node),
            },
        }
        Ok(true)
    })?;
    fragment.hooks = hooks(found)?;
    Ok(fragment)
}

/// The hook sections of one file without a fault, in its order. None of a text that is no TOML.
pub(super) fn readable_hooks(file: &Path, text: &str) -> Vec<HookInput> {
    let doc = Document { file: Arc::from(file), text };
    let Ok(parsed) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    for node in Table::top(&doc, parsed.get_ref()).nodes() {
        let Some(section) = SECTIONS.iter().find(|section| section.name == node.name) else { continue };
        for element in node.elements().into_iter().flatten() {
            found.extend((section.read)(&element).ok());
        }
    }
    hooks(found).unwrap_or_default()
}

fn plans(node: &Node<'_>) -> Result<BTreeMap<String, PlanInput>, ConfigError> {
    let mut plans = BTreeMap::new();
    for plan in node.table()?.nodes() {
        let name = check::plan_name(plan.name).map_err(|f| f.at(plan.origin(), &plan.key))?;
        let table = plan.table().map_err(|e| match e {
            // `[plan]` with keys directly below it: the plan's name is missing.
            ConfigError::Invalid { origin, key, problem, .. } => {
                let hint =
                    Some("plans have names: write [plan.default], or [defaults] for all plans".to_owned());
                ConfigError::Invalid { origin, key, problem, hint }
            }
            other => other,
        })?;
        plans.insert(name, PlanInput::read(&table)?);
    }
    Ok(plans)
}

/// Two sections, which may be of different kinds, have one name.
pub(super) fn same_name(hook: &HookInput, first: &HookInput) -> String {
    let (section, at) = (first.kind.section(), &first.origin);
    format!("has the name `{}`, as has the [[{section}]] at {at}", hook.name)
}

/// The hook sections of one file, in the order of the file.
fn hooks(mut found: Vec<HookInput>) -> Result<Vec<HookInput>, ConfigError> {
    let line = |h: &HookInput| match &h.origin {
        Origin::File(place) => (place.line, place.column),
        _ => (0, 0),
    };
    found.sort_by_key(line);
    for (i, hook) in found.iter().enumerate() {
        if let Some(first) = found[..i].iter().find(|h| h.name == hook.name) {
            let fault = Fault::new(same_name(hook, first)).hint("give one of them another `name`");
            return Err(fault.at(hook.origin.clone(), hook.kind.section()));
        }
    }
    Ok(found)
}
