//! The plan's systemd unit, as it is installed with all its drop-ins.
//!
//! In: systemd's answer. Out: findings. Must never: ask systemd itself, or change the unit.

use super::Finding;
use crate::exit::Exit;

/// The properties that `systemctl show` is asked for.
pub(crate) const UNIT_PROPERTIES: &str = "LoadState,PrivateMounts,PrivateTmp,ProtectSystem,ProtectHome,ProtectKernelTunables,\
     ProtectKernelModules,ProtectControlGroups,MountFlags,LimitMEMLOCK,OOMScoreAdjust,OOMPolicy,ExecStopPost,\
     StateDirectory,CacheDirectory,LogsDirectory,ConfigurationDirectory,StandardInput,StandardOutput,\
     StandardError,PAMName,UtmpIdentifier,DynamicUser,RootDirectory,RootImage";

/// What makes systemd itself write to a disk, or look for one, before it starts a command of the unit.
const ON_A_DISK: [&str; 9] = [
    "StateDirectory",
    "CacheDirectory",
    "LogsDirectory",
    "ConfigurationDirectory",
    "PAMName",
    "UtmpIdentifier",
    "DynamicUser",
    "RootDirectory",
    "RootImage",
];

/// The plan's unit, from the output of `systemctl show --property=…`.
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
                .why(
                    "it gets a mount namespace of its own: filesystems mounted later on the host are not \
                     seen and not frozen",
                )
                .remedy(format!("systemctl edit {name}, and set them to no")),
        );
    }
    let on_a_disk: Vec<String> = ON_A_DISK
        .into_iter()
        .chain(["StandardInput", "StandardOutput", "StandardError"])
        .map(|key| (key, value(key)))
        .filter(|(key, v)| match *key {
            // `file`, `append` or `truncate`, with or without the path behind it.
            key if key.starts_with("Standard") => {
                ["file", "append", "truncate"].iter().any(|to| v.split(':').next() == Some(to))
            }
            _ => !matches!(*v, "" | "no"),
        })
        .map(|(key, v)| format!("{key}={v}"))
        .collect();
    if !on_a_disk.is_empty() {
        found.push(
            Finding::problem(ID, Exit::Config, format!("{name} has {}", on_a_disk.join(" ")))
                .at([name])
                .why(
                    "for it systemd itself writes to a filesystem before it starts ExecStopPost=: if that \
                     filesystem is frozen, the thaw never starts",
                )
                .remedy(format!(
                    "systemctl edit {name}, and set them to nothing (StandardOutput= and StandardError= to \
                     journal)"
                )),
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
            "a SIGKILL of the control group also kills the watchdog: what is frozen then stays frozen",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    fn severities(found: &[Finding]) -> Vec<Severity> {
        found.iter().map(|f| f.severity).collect()
    }

    #[test]
    fn the_unit_as_shipped_is_fine_and_hardening_that_hides_mounts_is_not() {
        let shipped = "LoadState=loaded\nPrivateMounts=no\nPrivateTmp=no\nProtectSystem=no\nProtectHome=no\n\
                       LimitMEMLOCK=infinity\nOOMScoreAdjust=-1000\nExecStopPost={ \
                       path=/usr/bin/stillpoint ; }\n";
        assert_eq!(severities(&unit("u", shipped)), [Severity::Ok]);
        let hardened = shipped
            .replace("PrivateTmp=no", "PrivateTmp=yes")
            .replace("ProtectSystem=no", "ProtectSystem=strict");
        let found = unit("u", &hardened);
        assert_eq!(severities(&found), [Severity::Problem]);
        assert_eq!(found[0].what, "u has PrivateTmp=yes ProtectSystem=strict");
        let logs = unit(
            "u",
            &format!("{shipped}StandardOutput=append:/var/log/x\nStandardError=inherit\nLogsDirectory=x\n"),
        );
        assert_eq!(severities(&logs), [Severity::Problem]);
        assert_eq!(logs[0].what, "u has LogsDirectory=x StandardOutput=append:/var/log/x");
        let to_memory =
            unit("u", &format!("{shipped}StandardOutput=journal\nStateDirectory=\nDynamicUser=no\n"));
        assert_eq!(severities(&to_memory), [Severity::Ok]);
        let bare = unit("u", "LoadState=loaded\nLimitMEMLOCK=8388608\nOOMScoreAdjust=0\n");
        assert_eq!(severities(&bare), [Severity::Warning; 3]);
        assert_eq!(severities(&unit("u", "LoadState=not-found\n")), [Severity::Ok]);
    }
}
