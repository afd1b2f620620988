//! The host as a place to freeze from: privileges, mount namespace, kernel settings, the program's own file.
//!
//! In: `/proc` below a root. Out: findings. Must never: raise a privilege or a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::exit::Exit;
use crate::host::{mount_api, mountinfo, process};
use crate::ids::DevNo;
use crate::path_encoding::shown;
use crate::plan::Method;

/// Bits of CapEff (include/uapi/linux/capability.h).
const DAC_READ_SEARCH: u32 = 2;
const IPC_LOCK: u32 = 14;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;

/// Checks capabilities and the limit on locked memory.
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
            Finding::problem(
                ID,
                Exit::Permission,
                "memory cannot be locked: neither CAP_IPC_LOCK nor \
                 LimitMEMLOCK=infinity",
            )
            .why(
                "a watchdog whose pages have to be read back from a frozen disk cannot thaw it, so it \
                 refuses to start",
            )
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

/// Checks that this kernel can mount again what the method `unmount` takes away. Nothing without that method.
#[must_use]
pub fn unmount(root: &Path, methods: &BTreeMap<PathBuf, Method>) -> Vec<Finding> {
    let used = methods.iter().filter(|(_, method)| **method == Method::Unmount);
    let used: Vec<String> = used.map(|(mount, _)| shown(mount)).collect();
    if used.is_empty() { Vec::new() } else { vec![can_mount_again(root, mount_api::missing()).at(used)] }
}

fn can_mount_again(root: &Path, missing: nix::Result<Vec<&'static str>>) -> Finding {
    const ID: &str = "unmount";
    let release = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    match missing.as_deref() {
        Ok([]) => Finding::ok(ID, "this kernel can mount again what is unmounted over the point in time"),
        Ok(missing) => {
            let what = format!("this kernel ({}) lacks {}", release.trim(), missing.join(", "));
            Finding::problem(ID, Exit::Freeze, what)
                .why("a run refuses to unmount what it could not mount again as it was")
                .remedy("Linux 5.12 or later, or the method \"freeze\" or \"sync\" for these mounts")
        }
        Err(_) => Finding::not_checked(ID, "only root can try what the method `unmount` needs of the kernel"),
    }
}

/// Checks that this process is in the host's mount namespace: in another one it may miss mounts.
#[must_use]
pub fn namespace(root: &Path) -> Vec<Finding> {
    const ID: &str = "mount-namespace";
    let table = |who: &str| {
        let table = std::fs::read(root.join("proc").join(who).join("mountinfo")).ok()?;
        Some(mountinfo::parse(&table).lines)
    };
    let (Some(own), Some(init)) = (table("self"), table("1")) else {
        return vec![Finding::not_checked(ID, "/proc/1/mountinfo cannot be read")];
    };
    let link = |who: &str| std::fs::read_link(root.join("proc").join(who).join("ns/mnt"));
    let same = match (link("self"), link("1")) {
        (Ok(own), Ok(init)) => own == init,
        // Without permission to read the links of pid 1, mount ids decide: two namespaces have none in
        // common.
        _ => own.iter().any(|l| init.iter().any(|i| i.id == l.id)),
    };
    if same {
        return vec![Finding::ok(ID, "the mounts seen here are the host's")];
    }
    let seen: BTreeSet<DevNo> = own.iter().map(|l| l.dev).collect();
    let unseen: BTreeSet<String> = init
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
        .why(
            "a filesystem that is not seen here is not frozen, and one that is mounted later on the host \
             is not seen",
        )
        .remedy(
            "no PrivateMounts=, PrivateTmp= or ProtectSystem= in the unit; in a container, nsenter \
             --mount --target 1",
        );
    vec![finding]
}

/// The first PID namespace by its inode, which every kernel has (include/linux/proc_ns.h,
/// `PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Is this process in the host's PID namespace? The end of another one kills agent and watchdog at once.
#[must_use]
pub fn pid_namespace(root: &Path, allowed: bool) -> Vec<Finding> {
    const ID: &str = "pid-namespace";
    let finding = match process::namespace(root, "self", "pid") {
        // A kernel without PID namespaces does not have it.
        Err(e) => Finding::not_checked(ID, format!("/proc/self/ns/pid: {e}")),
        Ok(own) if own == Path::new(FIRST_PID_NAMESPACE) => {
            Finding::ok(ID, "this runs in the host's PID namespace")
        }
        Ok(_) => {
            let what = "this runs in a PID namespace that is not the host's";
            let finding = if allowed {
                Finding::warning(ID, format!("{what}, which `allow_pid_namespace` allows"))
            } else {
                Finding::problem(ID, Exit::Config, what)
            };
            finding
                .why(
                    "if the first process of this namespace dies in the window, the kernel kills the watchdog \
                     too, and nothing thaws",
                )
                .remedy(
                    "run the container in the host's PID namespace (--pid=host, hostPID: true), or set \
                     allow_pid_namespace",
                )
        }
    };
    vec![finding]
}

/// What a watchdog that was started for a try shares with this process.
#[must_use]
pub fn watchdog(shares: Result<&[String], String>) -> Vec<Finding> {
    const ID: &str = "watchdog";
    match shares {
        Err(why) => vec![
            Finding::problem(ID, Exit::Freeze, why)
                .why("without a watchdog nothing is frozen, and a run fails"),
        ],
        Ok([]) => {
            vec![Finding::ok(ID, "the watchdog starts, and shares nothing with the run that could end both")]
        }
        Ok(shares) => {
            let warning = |shared: &String| {
                Finding::warning(ID, format!("the watchdog shares with the run: {shared}")).why(
                    "whatever stops or ends both at once leaves filesystems frozen until ExecStopPost= or \
                     `stillpoint thaw`",
                ).remedy(
                    "in a container: the host's cgroup namespace and a writable /sys/fs/cgroup; else CAP_SYS_NICE \
                     and CAP_SYS_RESOURCE",
                )
            };
            shares.iter().map(warning).collect()
        }
    }
}

/// Would the kernel panic because a task waits for the window?
#[must_use]
pub(crate) fn hung_task_panic(root: &Path, window: Duration) -> Vec<Finding> {
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
    let finding =
        if Duration::from_secs(timeout) <= window {
            Finding::problem(ID, Exit::Config, what)
                .why(format!("writers wait as long as the window, which may be {short}"))
                .remedy(format!(
                    "set `window` below {timeout}s, or sysctl kernel.hung_task_timeout_secs above {short}"
                ))
        } else {
            Finding::warning(ID, what)
            .why(format!(
                "the window of {short} is shorter; but a FIFREEZE that waits for a stuck writer lasts longer \
                 than any window"
            ))
            .remedy("sysctl kernel.hung_task_panic=0, if a hung writer is no reason for you to \
                     restart the host")
        };
    vec![finding]
}

/// Checks that this program can be started again as the watchdog, from the file that it runs from.
#[must_use]
pub fn program(path: std::io::Result<&Path>) -> Vec<Finding> {
    const ID: &str = "program";
    let problem = |what: String, remedy: &str| {
        let finding = Finding::problem(ID, Exit::Config, what)
            .why("the watchdog is started from this file, and without a watchdog nothing is frozen")
            .remedy(remedy);
        vec![finding]
    };
    let path = match path {
        Ok(path) => path,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc/self/exe: {e}"))],
    };
    if path.to_string_lossy().ends_with(" (deleted)") || !path.exists() {
        let what = format!("the file of this program was replaced or removed: {}", shown(path));
        let finding = Finding::warning(ID, what)
            .why(
                "a run and its watchdog go on with the file that this one runs from; stillpoint-databases would \
                 be of another build, and refuse",
            )
            .remedy("start the installed program again");
        return vec![finding];
    }
    // access(2) instead of the file's mode, because a noexec mount counts too.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::doctor::Severity;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join("proc").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn severities(found: &[Finding]) -> Vec<Severity> {
        found.iter().map(|f| f.severity).collect()
    }

    #[test]
    fn each_missing_capability_is_a_finding() {
        let limits = "Max locked memory         8388608              8388608              bytes\n";
        let with = |caps: &str| {
            let status = format!("Name:\tx\nCapEff:\t{caps}\n");
            privileges(host(&[("self/status", &status), ("self/limits", limits)]).path())
        };
        assert_eq!(severities(&with("000001ffffffffff")), [Severity::Ok]);
        let none = with("0000000000000000");
        let (p, w) = (Severity::Problem, Severity::Warning);
        assert_eq!(severities(&none), [p, p, w, w]);
        assert!(none[..2].iter().all(|f| f.exit() == Exit::Permission));
        // SYS_ADMIN, SYS_PTRACE and DAC_READ_SEARCH; memory may be locked because of its limit alone.
        let status = "CapEff:\t0000000000280004\n";
        let limits = "Max locked memory         unlimited            unlimited            bytes\n";
        let found = privileges(host(&[("self/status", status), ("self/limits", limits)]).path());
        assert_eq!(severities(&found), [Severity::Ok]);
        assert_eq!(severities(&privileges(host(&[]).path())), [Severity::NotChecked]);
    }

    #[test]
    fn a_kernel_that_cannot_mount_again_is_a_problem_and_named() {
        let host = host(&[("sys/kernel/osrelease", "5.10.0-9-cloud\n")]);
        let said = |missing| can_mount_again(host.path(), missing);
        assert_eq!(said(Ok(vec![])).severity, Severity::Ok);
        let lacks = said(Ok(vec!["mount_setattr (5.12)", "x (9.9)"]));
        assert_eq!((lacks.severity, lacks.exit()), (Severity::Problem, Exit::Freeze));
        assert_eq!(lacks.what, "this kernel (5.10.0-9-cloud) lacks mount_setattr (5.12), x (9.9)");
        assert_eq!(said(Err(nix::errno::Errno::EPERM)).severity, Severity::NotChecked);
        let freeze = BTreeMap::from([(PathBuf::from("/a"), Method::Freeze)]);
        assert_eq!(unmount(host.path(), &freeze), []);
    }

    #[test]
    fn a_namespace_of_its_own_names_what_it_does_not_see() {
        let own = "51 1 259:1 / / rw - ext4 /dev/a rw\n52 51 0:9 / /proc rw - proc proc rw\n";
        let init = "21 1 259:1 / / rw - ext4 /dev/a rw\n33 21 259:7 / /data rw - xfs /dev/b rw\n\
                    34 21 0:9 / /proc rw - proc proc rw\n";
        let differs = host(&[("self/mountinfo", own), ("1/mountinfo", init)]);
        let found = namespace(differs.path());
        assert_eq!((severities(&found), &found[0].at), (vec![Severity::Warning], &vec!["/data".to_owned()]));
        // Where the namespace links can be read, they decide.
        for who in ["self", "1"] {
            std::fs::create_dir_all(differs.path().join("proc").join(who).join("ns")).unwrap();
            symlink("mnt:[4026531841]", differs.path().join("proc").join(who).join("ns/mnt")).unwrap();
        }
        assert_eq!(severities(&namespace(differs.path())), [Severity::Ok]);
        let same = host(&[("self/mountinfo", init), ("1/mountinfo", init)]);
        assert_eq!(severities(&namespace(same.path())), [Severity::Ok]);
        assert_eq!(severities(&namespace(host(&[("self/mountinfo", own)]).path())), [Severity::NotChecked]);
    }

    #[test]
    fn the_hosts_pid_namespace_is_known_by_its_number() {
        let in_namespace = |link: &str| {
            let root = host(&[]);
            std::fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
            symlink(link, root.path().join("proc/self/ns/pid")).unwrap();
            root
        };
        let own = in_namespace("pid:[4026532201]");
        let refused = pid_namespace(own.path(), false);
        assert_eq!((severities(&refused), refused[0].exit()), (vec![Severity::Problem], Exit::Config));
        assert_eq!(severities(&pid_namespace(own.path(), true)), [Severity::Warning]);
        let hosts = in_namespace("pid:[4026531836]");
        assert_eq!(severities(&pid_namespace(hosts.path(), false)), [Severity::Ok]);
        assert_eq!(severities(&pid_namespace(host(&[]).path(), false)), [Severity::NotChecked]);
    }

    #[test]
    fn each_thing_that_the_watchdog_shares_is_a_finding() {
        assert_eq!(severities(&watchdog(Ok(&[]))), [Severity::Ok]);
        let shares = ["control group cgroup2 /x (read-only)".to_owned(), "ordinary priority".to_owned()];
        assert_eq!(severities(&watchdog(Ok(&shares))), [Severity::Warning; 2]);
        assert_eq!(severities(&watchdog(Err("it does not start".to_owned()))), [Severity::Problem]);
    }

    #[test]
    fn a_window_longer_than_the_kernels_patience_is_a_problem() {
        let with = |panic: &str, timeout: &str| {
            let root = host(&[
                ("sys/kernel/hung_task_panic", panic),
                ("sys/kernel/hung_task_timeout_secs", timeout),
            ]);
            severities(&hung_task_panic(root.path(), Duration::from_secs(10)))
        };
        assert_eq!(with("0\n", "5\n"), [Severity::Ok]);
        assert_eq!(with("1\n", "0\n"), [Severity::Ok]);
        assert_eq!(with("1\n", "10\n"), [Severity::Problem]);
        assert_eq!(with("1\n", "120\n"), [Severity::Warning]);
        assert_eq!(severities(&hung_task_panic(host(&[]).path(), Duration::ZERO)), [Severity::Ok]);
    }

    #[test]
    fn a_program_that_cannot_be_started_cannot_guard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stillpoint");
        assert_eq!(severities(&program(Ok(&path))), [Severity::Warning], "it runs from its inode");
        std::fs::write(&path, "").unwrap();
        assert_eq!(severities(&program(Ok(&path))), [Severity::Problem], "not executable");
        assert_eq!(severities(&program(Ok(Path::new("/bin/sh")))), [Severity::Ok]);
        assert_eq!(severities(&program(Ok(Path::new("/bin/sh (deleted)")))), [Severity::Warning]);
    }
}
