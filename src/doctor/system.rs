//! The host as a place to freeze from: privileges, mount namespace, kernel settings, the program's own file, its unit.
//!
//! In: `/proc` below a root, systemd's answer. Out: findings. Must never: raise a privilege or a limit.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::discover::mountinfo;
use crate::exit::Exit;
use crate::ids::DevNo;
use crate::plan::shown;

/// Bits of CapEff (include/uapi/linux/capability.h).
const DAC_READ_SEARCH: u32 = 2;
const IPC_LOCK: u32 = 14;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;

/// Capabilities and the limit on locked memory.
#[must_use]
pub fn privileges(root: &Path) -> Vec<Finding> {
    const ID: &str = "privileges";
    let read = |file: &str| std::fs::read_to_string(root.join("proc/self").join(file));
    let status = match read("status") {
        Ok(status) => status,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc/self/status: {e}"))],
    };
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|c| u64::from_str_radix(c.trim(), 16).ok()) else {
        return vec![Finding::not_checked(ID, "/proc/self/status has no CapEff")];
    };
    let has = |bit: u32| effective & (1 << bit) != 0;
    let mut found = Vec::new();
    let sudo = "run it as root, or give the unit's CapabilityBoundingSet= this capability";
    if !has(SYS_ADMIN) {
        found.push(
            Finding::problem(ID, Exit::Permission, "CAP_SYS_ADMIN is missing")
                .why("FIFREEZE and FITHAW need it")
                .remedy(sudo),
        );
    }
    let limits = read("limits").unwrap_or_default();
    let locked = limits.lines().find_map(|l| l.strip_prefix("Max locked memory")).unwrap_or_default();
    let unlimited = locked.split_whitespace().next() == Some("unlimited");
    if !has(IPC_LOCK) && !unlimited {
        found.push(
            Finding::problem(ID, Exit::Permission, "memory cannot be locked: neither CAP_IPC_LOCK nor LimitMEMLOCK=infinity")
                .why("a watchdog whose pages have to be read back from a frozen disk cannot thaw it, so it refuses to start")
                .remedy("give the unit CAP_IPC_LOCK, or LimitMEMLOCK=infinity"),
        );
    }
    for (bit, name, why) in [
        (
            DAC_READ_SEARCH,
            "CAP_DAC_READ_SEARCH",
            "mount points in folders that only others may enter cannot be opened",
        ),
        (SYS_PTRACE, "CAP_SYS_PTRACE", "processes of others cannot be named when they hold something up"),
    ] {
        if !has(bit) {
            found.push(Finding::warning(ID, format!("{name} is missing")).why(why).remedy(sudo));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(ID, "every capability is there, and memory can be locked"));
    }
    found
}

/// Is this process's mount namespace the host's?
#[must_use]
pub fn namespace(root: &Path) -> Vec<Finding> {
    const ID: &str = "mount-namespace";
    let of = |who: &str| std::fs::read_link(root.join("proc").join(who).join("ns/mnt"));
    let (own, init) = match (of("self"), of("1")) {
        (Ok(own), Ok(init)) => (own, init),
        (Err(e), _) | (_, Err(e)) => return vec![Finding::not_checked(ID, format!("/proc/1/ns/mnt: {e}"))],
    };
    if own == init {
        return vec![Finding::ok(ID, "the mounts seen here are the host's")];
    }
    let table = |who: &str| {
        let table = std::fs::read(root.join("proc").join(who).join("mountinfo")).unwrap_or_default();
        mountinfo::parse(&table).unwrap_or_default()
    };
    let seen: BTreeSet<DevNo> = table("self").iter().map(|l| l.dev).collect();
    let unseen: BTreeSet<String> = table("1")
        .iter()
        .filter(|l| (l.dev.major != 0 || l.fstype == "btrfs") && !seen.contains(&l.dev))
        .map(|l| shown(&l.mount_point))
        .collect();
    let what = if unseen.is_empty() {
        "this runs in a mount namespace of its own; so far it sees all of the host's filesystems".to_owned()
    } else {
        "this runs in a mount namespace of its own, and does not see all of the host's filesystems".to_owned()
    };
    let finding = Finding::warning(ID, what)
        .at(unseen)
        .why("what is not seen here is not frozen, and what is mounted later on the host is not seen")
        .remedy("no PrivateMounts=, PrivateTmp= or ProtectSystem= in the unit; in a container, nsenter --mount --target 1");
    vec![finding]
}

/// Would the kernel take a window for a hang?
#[must_use]
pub fn hung_task_panic(root: &Path, window: Duration) -> Vec<Finding> {
    const ID: &str = "hung-task-panic";
    let read = |name: &str| {
        let text = std::fs::read_to_string(root.join("proc/sys/kernel").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let (Some(panic), Some(timeout)) = (read("hung_task_panic"), read("hung_task_timeout_secs")) else {
        return vec![Finding::ok(ID, "this kernel does not watch for hung tasks")];
    };
    if panic == 0 || timeout == 0 {
        return vec![Finding::ok(ID, "the kernel does not panic over a task that waits long")];
    }
    let what = format!("the kernel panics when a task waits for {timeout} s (kernel.hung_task_panic = 1)");
    let short = humantime::format_duration(window);
    let finding = if Duration::from_secs(timeout) <= window {
        Finding::problem(ID, Exit::Config, what)
            .why(format!("writers wait as long as the window, which may be {short}"))
            .remedy(format!(
                "set `window` below {timeout}s, or sysctl kernel.hung_task_timeout_secs above {short}"
            ))
    } else {
        Finding::warning(ID, what)
            .why(format!(
                "the window of {short} is shorter; but a FIFREEZE that waits for a stuck writer lasts longer than any window"
            ))
            .remedy("sysctl kernel.hung_task_panic=0, if a hung writer is no reason for you to restart the host")
    };
    vec![finding]
}

/// Can this program be started again as the watchdog?
#[must_use]
pub fn program(path: std::io::Result<&Path>) -> Vec<Finding> {
    const ID: &str = "program";
    let problem = |what: String, remedy: &str| {
        let finding = Finding::problem(ID, Exit::Config, what)
            .why("the watchdog is this file, started again; without a watchdog nothing is frozen")
            .remedy(remedy);
        vec![finding]
    };
    let path = match path {
        Ok(path) => path,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc/self/exe: {e}"))],
    };
    if path.to_string_lossy().ends_with(" (deleted)") || !path.exists() {
        let what = format!("the file of this program is gone: {}", shown(path));
        return problem(what, "start the installed program anew");
    }
    // Asked of the kernel rather than read from the mode: a noexec mount counts.
    match access(path, AccessFlags::X_OK) {
        Ok(()) => {
            vec![Finding::ok(ID, format!("{} can be started as the watchdog", shown(path))).at([shown(path)])]
        }
        Err(errno) => problem(
            format!("{} cannot be started: {}", shown(path), errno.desc()),
            "install it on a filesystem that is not mounted noexec",
        ),
    }
}

/// What `systemctl show` is asked for.
pub const UNIT_PROPERTIES: &str = "LoadState,PrivateMounts,PrivateTmp,ProtectSystem,ProtectHome,ProtectKernelTunables,\
     ProtectKernelModules,ProtectControlGroups,MountFlags,LimitMEMLOCK,OOMScoreAdjust,OOMPolicy,ExecStopPost";

/// The plan's unit, from what `systemctl show --property=…` printed.
#[must_use]
pub fn unit(name: &str, shown: &str) -> Vec<Finding> {
    const ID: &str = "unit";
    let value = |key: &str| {
        shown.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().trim()
    };
    if value("LoadState") != "loaded" {
        return vec![Finding::ok(ID, format!("{name} is not installed"))];
    }
    let mut found = Vec::new();
    let own_namespace: Vec<String> = [
        "PrivateMounts",
        "PrivateTmp",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectControlGroups",
    ]
    .into_iter()
    .map(|key| (key, value(key)))
    .filter(|(_, v)| !matches!(*v, "" | "no"))
    .map(|(key, v)| format!("{key}={v}"))
    .collect();
    if !own_namespace.is_empty() {
        found.push(
            Finding::problem(ID, Exit::Config, format!("{name} has {}", own_namespace.join(" ")))
                .at([name])
                .why("it gets a mount namespace of its own: filesystems mounted later on the host are not seen and not frozen")
                .remedy(format!("systemctl edit {name}, and set them to no")),
        );
    }
    let warn = |what: &str, why: &str, remedy: &str| {
        Finding::warning(ID, format!("{name} {what}"))
            .at([name])
            .why(why)
            .remedy(format!("systemctl edit {name}: {remedy}"))
    };
    if value("ExecStopPost").is_empty() {
        found.push(warn(
            "has no ExecStopPost=",
            "the control group's SIGKILL takes the watchdog too: what is frozen then stays so",
            "ExecStopPost=/usr/bin/stillpoint thaw",
        ));
    }
    if value("OOMScoreAdjust") != "-1000" {
        found.push(warn(
            "can be chosen by the OOM killer",
            "while a filesystem is frozen, memory runs short sooner, and only this process can thaw",
            "OOMScoreAdjust=-1000",
        ));
    }
    if value("LimitMEMLOCK") != "infinity" {
        found.push(warn(
            "may not be able to lock its memory",
            "a page that has to be read back waits for the disk",
            "LimitMEMLOCK=infinity",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(ID, format!("{name} is set up as shipped")).at([name]));
    }
    found
}
