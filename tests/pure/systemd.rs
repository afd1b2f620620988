//! The units as systemd reads them, and the promises that hang on single lines of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SERVICE: &str = include_str!("../../systemd/stillpoint@.service");
const TIMER: &str = include_str!("../../systemd/stillpoint@.timer");
const PRUNE: &str = include_str!("../../systemd/stillpoint-prune@.service");
const PRUNE_TIMER: &str = include_str!("../../systemd/stillpoint-prune@.timer");
const VERIFY: &str = include_str!("../../systemd/stillpoint-verify@.service");
const VERIFY_TIMER: &str = include_str!("../../systemd/stillpoint-verify@.timer");

const VERIFY_RESTORE: &str = include_str!("../../systemd/stillpoint-verify-restore@.service");
const VERIFY_RESTORE_TIMER: &str = include_str!("../../systemd/stillpoint-verify-restore@.timer");

const CLEAN_UP: &str = include_str!("../../systemd/stillpoint-clean-up.service");
const CLEAN_UP_TIMER: &str = include_str!("../../systemd/stillpoint-clean-up.timer");

/// The values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().unwrap();
    // verify wants the program to exist; here it is a stand-in, for the paths are what is checked.
    let program = dir.path().join("stillpoint");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.display().to_string();
    // Instances, since a template by itself is not loaded.
    let units = [
        ("stillpoint@default.service", SERVICE),
        ("stillpoint@default.timer", TIMER),
        ("stillpoint-prune@default.service", PRUNE),
        ("stillpoint-prune@default.timer", PRUNE_TIMER),
        ("stillpoint-verify@default.service", VERIFY),
        ("stillpoint-verify@default.timer", VERIFY_TIMER),
        ("stillpoint-verify-restore@default.service", VERIFY_RESTORE),
        ("stillpoint-verify-restore@default.timer", VERIFY_RESTORE_TIMER),
        ("stillpoint-clean-up.service", CLEAN_UP),
        ("stillpoint-clean-up.timer", CLEAN_UP_TIMER),
    ]
    .map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(&path, text.replace("/usr/bin/stillpoint", &program)).unwrap();
        path
    });
    let run = Command::new("systemd-analyze")
        // No man pages are installed where the tests run.
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .unwrap_or_else(|e| panic!("systemd-analyze is needed to check the units (package `systemd`): {e}"));
    let said = String::from_utf8_lossy(&run.stderr);
    // verify exits 0 for keys it does not know and only says so.
    let about_ours: Vec<_> = said.lines().filter(|line| line.contains("stillpoint")).collect();
    assert!(run.status.success() && about_ours.is_empty(), "systemd-analyze verify: {}\n{said}", run.status);
}

#[test]
fn the_service_never_leaves_a_filesystem_frozen() {
    for (key, value) in [
        ("ExecStopPost", "/usr/bin/stillpoint thaw --recover"),
        ("KillMode", "mixed"),
        ("OOMScoreAdjust", "-1000"),
        ("OOMPolicy", "continue"),
        ("LimitMEMLOCK", "infinity"),
        ("LimitCORE", "0"),
        ("MemorySwapMax", "0"),
        ("WorkingDirectory", "/run"),
        ("RuntimeDirectory", "stillpoint"),
        ("RuntimeDirectoryPreserve", "yes"),
    ] {
        assert_eq!(values(SERVICE, key), [value], "{key}");
    }
    // Each of these makes a mount namespace (systemd.exec(5)), in which the host's mounts are not all seen.
    let namespaced = [
        "Private",
        "Protect",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "RootImage",
        "MountFlags",
        "DynamicUser",
        "MountAPIVFS",
        "NoNewPrivileges",
        "Restart=",
    ];
    for line in SERVICE.lines() {
        assert!(!namespaced.iter().any(|key| line.starts_with(key)), "{line}");
    }
}

/// The timers of all plans elapse at the same time of day, and one run at a time has the lock.
#[test]
fn the_service_waits_for_the_run_of_another_plan() {
    let hours = |text: &str| text.strip_suffix('h').and_then(|n| n.parse::<u32>().ok());
    let [start] = values(SERVICE, "ExecStart")[..] else { panic!("one command") };
    let wait = start.split(' ').find_map(|word| hours(word.strip_prefix("--wait-lock=")?)).expect(start);
    // What is left of the limit has to do for the run itself.
    let limit = hours(values(SERVICE, "TimeoutStartSec")[0]).unwrap();
    assert!(wait >= 1 && wait * 2 <= limit, "{wait} h of {limit} h");
}

/// Before each command, ExecStopPost= included, systemd does what these directives say, and none of them
/// makes it write to a disk. One that is not in the list may: StateDirectory= makes a folder on /var, which
/// waits for ever while /var is frozen, and the thaw of ExecStopPost= does not start.
const NOTHING_ON_A_DISK: &[&str] = &[
    "CapabilityBoundingSet",
    "ExecStart",
    "ExecStopPost",
    "KillMode",
    "LimitCORE",
    "LimitMEMLOCK",
    "MemorySwapMax",
    "Nice",
    // A socket in /run.
    "NotifyAccess",
    "OOMPolicy",
    "OOMScoreAdjust",
    // In /run.
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "RuntimeDirectoryPreserve",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Type",
    "UMask",
    // /run, as another test says.
    "WorkingDirectory",
];

/// The directives of the section [Service], by name, that may make systemd wait for a disk.
fn on_a_disk(unit: &str) -> Vec<&str> {
    let service = unit.split("\n[").find(|section| section.starts_with("Service]")).unwrap_or_default();
    let lines = service.lines().filter(|line| !line.starts_with(['#', ';']));
    let keys = lines.filter_map(|line| Some(line.split_once('=')?.0.trim()));
    keys.filter(|key| !NOTHING_ON_A_DISK.contains(key)).collect()
}

#[test]
fn systemd_itself_touches_no_disk_before_it_starts_a_command() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
    let mut services = 0;
    for unit in fs::read_dir(units).unwrap() {
        let path = unit.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // A unit that neither freezes nor thaws may wait for a disk like any other.
        if ["prune", "verify", "clean-up"]
            .iter()
            .any(|only| values(&text, "ExecStart").iter().all(|c| c.contains(only)))
        {
            continue;
        }
        assert_eq!(on_a_disk(&text), [""; 0], "{}", path.display());
        services += usize::from(text.contains("[Service]"));
    }
    assert!(services > 0, "none was looked at");
    for added in ["StateDirectory=x", "LogsDirectory = x", "StandardOutput=append:/var/log/x", "PAMName=x"] {
        let with = SERVICE.replace("[Service]\n", &format!("[Service]\n{added}\n"));
        assert_eq!(on_a_disk(&with).len(), 1, "{added}");
    }
}

/// Nothing waits for a verify, and it may touch nothing but its record.
#[test]
fn a_verify_gives_way_to_all_else_and_writes_only_records() {
    for (key, value) in [
        ("Nice", "19"),
        ("IOSchedulingClass", "idle"),
        ("CPUSchedulingPolicy", "batch"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", "-/var/lib/stillpoint"),
    ] {
        assert_eq!(values(VERIFY, key), [value], "{key}");
    }
    assert!(values(VERIFY_TIMER, "RandomizedDelaySec")[0].ends_with('h'));
    assert_eq!(values(VERIFY_TIMER, "WantedBy"), ["timers.target"]);
}

/// Volumes are billed until they are deleted, and a mount namespace of the unit would keep the host's mounts busy.
#[test]
fn a_verify_that_restores_is_taken_down_however_it_ends() {
    for (key, value) in [
        ("ExecStopPost", "/usr/bin/stillpoint verify --clean-up"),
        ("KillMode", "mixed"),
        ("TimeoutStopSec", "15min"),
        ("Nice", "19"),
        ("IOSchedulingClass", "idle"),
    ] {
        assert_eq!(values(VERIFY_RESTORE, key), [value], "{key}");
    }
    assert!(values(VERIFY_RESTORE, "ExecStart")[0].contains("--level restore"));
    // Each of these makes a mount namespace, or keeps block devices away (systemd.exec(5), systemd.resource-control(5)).
    for key in ["Private", "Protect", "ReadOnly", "ReadWrite", "Device", "Bind", "RestrictNamespaces", "Root"]
    {
        assert!(!VERIFY_RESTORE.lines().any(|l| l.starts_with(key)), "{key}");
    }
    assert_eq!(values(VERIFY_RESTORE_TIMER, "WantedBy"), ["timers.target"]);
}

#[test]
fn every_line_that_is_not_obvious_says_why() {
    for (name, unit) in [("service", SERVICE), ("timer", TIMER)] {
        let obvious = [
            "Description",
            "Documentation",
            "OnCalendar",
            "ExecStart=",
            "After",
            "WantedBy",
            "RuntimeDirectoryMode",
            "RuntimeDirectoryPreserve",
            "UMask",
            "CapabilityBoundingSet=CAP_SETUID",
        ];
        let mut above = "";
        for line in unit.lines() {
            let setting = line.contains('=') && !line.starts_with('#');
            let commented = above.starts_with('#') || obvious.iter().any(|key| line.starts_with(key));
            assert!(!setting || commented, "{name}: {line}");
            above = line;
        }
    }
}

#[test]
fn verify_notices_a_broken_unit() {
    // Guards the check above: a key that does not exist only makes systemd-analyze print a line.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stillpoint@default.service");
    let unit =
        SERVICE.replace("/usr/bin/stillpoint", "/bin/true").replace("KillMode=mixed", "KillMood=mixed");
    fs::write(&path, unit).unwrap();
    let run = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    let run = run
        .unwrap_or_else(|e| panic!("systemd-analyze is needed to check the units (package `systemd`): {e}"));
    assert!(String::from_utf8_lossy(&run.stderr).contains("KillMood"), "{run:?}");
}
