//! Verify by mounts without a volume: what is really mounted and checked, and what is gone afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use rig::control_group::{ControlGroup, Hierarchy};
use rig::namespace::Namespace;
use rig::program::{Ended, Run, await_some};
use rig::{Fs, Rig, sh};
use serde_json::Value;

use crate::verify::without_a_freeze;

const LEVEL: [&str; 2] = ["--level", "mount"];

/// Three filesystems with a set of them.
fn three() -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    space.rig.configure("");
    write(&space, "before");
    let set = space.take();
    (space, set)
}

/// Writes and syncs, so that a journal has something to replay until it is frozen or unmounted.
fn write(space: &Namespace, name: &str) {
    let here = |volume: &&str| std::path::Path::new(&space.at(volume)).exists();
    let volumes: Vec<&str> = ["a", "b", "c"].into_iter().filter(here).collect();
    space.write(&volumes, name);
}

/// The same set, of what was not frozen, under the label that it has.
fn as_after_a_crash(space: &Namespace, set: &str) {
    write(space, "unfrozen");
    without_a_freeze(&space.rig, set);
    for snapshot in space.rig.snapshots().iter().filter(|s| s["tags"]["stillpoint:run"] == set) {
        let id = format!("ResourceId.1={}", snapshot["id"].as_str().unwrap());
        for key in ["stillpoint:consistency", "stillpoint:part"] {
            if snapshot["tags"].get(key).is_some() {
                let key = format!("Tag.1.Key={key}");
                space.rig.sim(&["call", "CreateTags", &id, &key, "Tag.1.Value=crash"]);
            }
        }
    }
}

fn verify(space: &Namespace, set: &str, more: &[&str]) -> Ended {
    space.run(&[&["verify", set], &LEVEL[..], more].concat())
}

fn verdicts(said: &Value) -> Vec<&str> {
    said["findings"].as_array().unwrap().iter().map(|f| f["verdict"].as_str().unwrap()).collect()
}

/// How often each block was fetched.
fn fetched(space: &Namespace) -> BTreeMap<String, usize> {
    let mut each = BTreeMap::new();
    for request in space.rig.requests().iter().filter(|r| r["action"] == "ebs:GetSnapshotBlock") {
        *each.entry(request["params"]["path"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    each
}

/// Loop devices of snapshots of this test.
fn devices(space: &Namespace) -> Vec<String> {
    let own: Vec<String> =
        space.rig.snapshots().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
    let all = std::fs::read_dir("/sys/block").unwrap().flatten();
    let is_own = |e: &std::fs::DirEntry| {
        let file = std::fs::read_to_string(e.path().join("loop/backing_file")).unwrap_or_default();
        file.starts_with("/stillpoint-verify-") && own.iter().any(|id| file.contains(id))
    };
    all.filter(is_own).map(|e| e.file_name().into_string().unwrap()).collect()
}

/// Of these, what nothing can be written to though it has no file: the next one to have it could not use it.
fn protected(names: &[String]) -> Vec<&String> {
    let read = |name: &String, file: &str| std::fs::read_to_string(format!("/sys/block/{name}/{file}"));
    let is = |name: &&String| {
        read(name, "loop/backing_file").is_err() && read(name, "ro").is_ok_and(|ro| ro.trim() == "1")
    };
    names.iter().filter(is).collect()
}

fn nothing_is_left(space: &Namespace) {
    assert_eq!(devices(space), Vec::<String>::new(), "devices are left");
    assert!(space.rig.calls("CreateVolume").is_empty(), "a volume was made");
}

#[test]
fn a_set_is_mounted_and_checked_without_a_volume() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    space.rig.configure("");
    write(&space, "before");
    // Deleted while they are open: e2fsck and xfs_repair take what is left of them for errors.
    let open = ["a", "b", "c"].map(|n| space.at(n));
    let held = space.background(&format!(
        "exec 7>{0}/x 8>{1}/x 9>{2}/x; rm {0}/x {1}/x {2}/x; echo data | tee /dev/fd/7 /dev/fd/8 >&9; echo ready; exec cat",
        open[0], open[1], open[2]
    ));
    let set = space.take();
    let dry = verify(&space, &set, &["-n", "-o", "json"]);
    let dry = dry.exits(0).says("for at most about $0.0").says("only blocks that a mount").record();
    assert_eq!((&dry["cost"]["at_most"], &dry["verdict"]), (&true.into(), &"not_looked".into()), "{dry}");
    assert!(fetched(&space).is_empty(), "a dry run reads nothing");

    let ended = verify(&space, &set, &["-o", "json"]);
    let said = ended.exits(0).record();
    assert_eq!((&said["verdict"], verdicts(&said)), (&"sound".into(), vec!["sound"; 3]), "{said}");
    for (finding, tool) in said["findings"].as_array().unwrap().iter().zip(["e2fsck", "xfs_repair", "btrfs"])
    {
        assert!(finding["what"].as_str().unwrap().contains(tool), "{finding}");
    }
    nothing_is_left(&space);
    drop(held);
    let each = fetched(&space);
    assert!(each.values().all(|n| *n == 1), "a block was fetched twice: {each:?}");
    assert_eq!(said["blocks_read"], each.len(), "{said}");
    assert!(said["blocks_read"].as_u64() < dry["cost"]["blocks"].as_u64(), "{said} {dry}");
    let shown = space.run(&["show", &set, "-o", "json"]).exits(0).record();
    assert_eq!(shown["verified"]["level"], "mount", "{shown}");
    verify(&space, &set, &[]).exits(0).says("3 of 3 filesystems are sound");
}

#[test]
fn a_false_label_is_caught_and_a_true_crash_label_is_recovered_in_memory() {
    let (space, set) = three();
    write(&space, "unfrozen");
    without_a_freeze(&space.rig, &set);
    let said = verify(&space, &set, &["-o", "json"]).exits(24).record();
    assert_eq!(verdicts(&said), ["fault"; 3], "{said}");

    as_after_a_crash(&space, &set);
    // Twice: what the first one recovered was thrown away.
    for _ in 0..2 {
        let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
        assert_eq!(verdicts(&said), ["sound"; 3], "{said}");
        assert_eq!(said.to_string().matches("a mount recovers it").count(), 3, "{said}");
    }
    nothing_is_left(&space);
}

#[test]
fn what_finds_no_memory_is_not_looked_at() {
    let (space, set) = three();
    as_after_a_crash(&space, &set);
    let ended = verify(&space, &set, &["--overlay-limit", "4KiB", "-o", "json"]);
    let said = ended.exits(0).record();
    assert_eq!(verdicts(&said), ["not_looked"; 3], "{said}");
    assert_eq!(said.to_string().matches("--overlay-limit").count(), 3, "{said}");
    nothing_is_left(&space);
    verify(&space, &set, &["--overlay-limit", "900000GiB"])
        .exits(78)
        .says("not enough memory for the overlay");
    verify(&space, &set, &["--overlay-limit", "4"]).exits(64);
    space.run(&["verify", &set, "--overlay-limit", "1GiB"]).exits(64).says("--level mount");
}

/// A unit's MemoryMax=: with more, the kernel would kill what looks, in the middle.
#[test]
fn what_a_control_group_does_not_leave_is_not_taken() {
    let (space, set) = three();
    let Some(group) = ControlGroup::new(&space.rig, Hierarchy::Legacy("memory")) else { return };
    std::fs::write(group.path().join("memory.limit_in_bytes"), (400u64 << 20).to_string()).unwrap();
    let within = |more: &[&str]| {
        let all = [&["verify", &set, "--level", "mount"], more].concat();
        Run::start(group.within(&space.command(&all))).end()
    };
    let before = fetched(&space);
    for dry in [&[][..], &["--dry-run"]] {
        let ended = within(&[&["--overlay-limit", "1GiB"][..], dry].concat());
        ended.exits(78).says("not enough memory for the overlay: 1.0 GiB were asked for");
        ended.says("leaves, by its memory.limit_in_bytes,").says("MemoryMax=");
    }
    assert_eq!(fetched(&space), before, "no block was read");
    within(&[]).exits(0);
    // One above it counts as well.
    std::fs::create_dir(group.path().join("inner")).unwrap();
    let inner = format!("echo 0 >{}/inner/cgroup.procs", group.path().display());
    let script = format!("{inner} && exec \"$@\"");
    let command = space.command(&["verify", &set, "--level", "mount", "--overlay-limit", "1GiB"]);
    let mut nested = std::process::Command::new("sh");
    nested.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => nested.env(key, value),
            None => nested.env_remove(key),
        };
    }
    Run::start(nested).end().exits(78).says("leaves, by its memory.limit_in_bytes,");
    std::fs::remove_dir(group.path().join("inner")).unwrap();
    nothing_is_left(&space);
}

#[test]
fn what_ec2_does_not_give_or_gives_wrong_is_never_sound() {
    let (space, set) = three();
    let fault = |body: Value| space.rig.control("POST", "faults", &body.to_string());
    space.run(&["verify", &set]).exits(0);
    let probed: BTreeSet<String> = fetched(&space).into_keys().collect();
    verify(&space, &set, &["--no-ledger"]).exits(0);
    let later: Vec<String> = fetched(&space).into_keys().filter(|path| !probed.contains(path)).collect();
    // What only a mount reads: the probe is done by then.
    let path = later.first().expect("a mount reads more than the probe").clone();

    let denied = "User: arn:aws:sts::123456789012:assumed-role/r/s is not authorized to perform: \
                  ebs:GetSnapshotBlock because no identity-based policy allows it";
    fault(serde_json::json!({
        "action": "ebs:GetSnapshotBlock", "kind": "error", "code": "AccessDeniedException", "status": 403,
        "message": denied, "times": 1, "path": path,
    }));
    let said = verify(&space, &set, &[]);
    said.exits(77).says("ebs:GetSnapshotBlock");
    assert!(!said.out.contains("sound"), "{}", said.out);
    nothing_is_left(&space);

    // Once is repeated, and is no matter.
    fault(
        serde_json::json!({"action": "ebs:GetSnapshotBlock", "kind": "drop-before", "times": 1, "path": path}),
    );
    verify(&space, &set, &[]).exits(0);

    fault(serde_json::json!({"action": "ebs:GetSnapshotBlock", "kind": "corrupt", "path": path}));
    let said = verify(&space, &set, &["-o", "json"]).exits(24).record();
    let (head, block) = path.rsplit_once('/').unwrap();
    let at = block.parse::<u64>().unwrap() << 19;
    let all = said["findings"].as_array().unwrap();
    let damaged = all.iter().find(|f| f["offset"] == at).unwrap();
    assert_eq!(damaged["verdict"], "fault", "{said}");
    assert!(head.contains(damaged["snapshot_id"].as_str().unwrap()), "{said}");
    let on = all.iter().find(|f| f["volume_id"] == damaged["volume_id"] && f["mount_point"].is_string());
    assert_eq!(on.unwrap()["verdict"], "not_looked", "{said}");
    nothing_is_left(&space);
}

/// Interrupted or killed while the kernel waits for a block: nothing is left, and nothing has to be taken down.
#[test]
fn nothing_is_left_of_one_that_is_interrupted_or_killed() {
    let (space, set) = three();
    space.run(&["verify", &set]).exits(0);
    let probed: BTreeSet<String> = fetched(&space).into_keys().collect();
    verify(&space, &set, &["--no-ledger"]).exits(0);
    let path = fetched(&space).into_keys().find(|path| !probed.contains(path)).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let hold = ["faults", "add", "--action", "ebs:GetSnapshotBlock", "--path", &path, "--call", "1"];
        let hold = [&hold[..], &["--kind", "hold-before"]].concat();
        let held = space.rig.sim(&hold).trim().to_owned();
        let run = space.spawn(&[&["verify", &set], &LEVEL[..]].concat());
        space.rig.sim(&["faults", "wait", &held]);
        let names = devices(&space);
        assert!(!names.is_empty(), "{signal}: nothing is mounted yet");
        run.signal(signal);
        run.end();
        await_some("the end of its devices", || devices(&space).is_empty().then_some(()));
        assert_eq!(protected(&names), Vec::<&String>::new(), "{signal}");
        space.rig.sim(&["faults", "release", &held]);
        nothing_is_left(&space);
        space.run(&["verify", "--clean-up"]).exits(0);
    }
    verify(&space, &set, &[]).exits(0).says("3 of 3 filesystems are sound");
}

/// A volume whose second partition has a filesystem, mounted.
struct Partitioned(Rig);

impl Partitioned {
    fn start() -> Self {
        let parts = Self(Rig::formatted(&[("a", Fs::Ext4)], ""));
        let disk = parts.0.device("a");
        sh("wipefs", &["-q", "-a", &disk]);
        let mut table = [0; 512];
        for (n, (lba, sectors)) in [(2048_u32, 2048_u32), (6144, 81_920)].into_iter().enumerate() {
            let entry = &mut table[446 + n * 16..][..16];
            entry[4] = 0x83;
            entry[8..12].copy_from_slice(&lba.to_le_bytes());
            entry[12..].copy_from_slice(&sectors.to_le_bytes());
            sh("addpart", &[&disk, &(n + 1).to_string(), &lba.to_string(), &sectors.to_string()]);
        }
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
        file.write_all_at(&table, 0).unwrap();
        file.sync_all().unwrap();
        sh("mkfs.ext4", &["-q", "-F", &format!("{disk}p2")]);
        sh("mount", &[&format!("{disk}p2"), parts.0.mount("a").to_str().unwrap()]);
        parts.0.control("POST", "view", "");
        parts
    }
}

impl Drop for Partitioned {
    fn drop(&mut self) {
        let _ = umount2(&self.0.mount("a"), MntFlags::MNT_DETACH);
        for number in ["1", "2"] {
            let _ = std::process::Command::new("delpart").args([&self.0.device("a"), number]).status();
        }
    }
}

#[test]
fn a_filesystem_on_a_partition_is_mounted_by_its_place() {
    let parts = Partitioned::start();
    let rig = &parts.0;
    rig.configure("");
    let set = crate::verify::take(rig);
    rig.await_quiet();
    let said = rig.run(&["verify", &set, "--level", "mount", "-o", "json"]).exits(0).record();
    assert_eq!((&said["verdict"], verdicts(&said)), (&"sound".into(), vec!["sound"]), "{said}");
    assert!(said["findings"][0]["what"].as_str().unwrap().contains("e2fsck"), "{said}");
}

#[test]
fn a_check_sees_the_mounted_files() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.sh(&format!("echo text >{0}/file; seq 1000000 >{0}/long; sync -f {0}", space.at("a")));
    let file = r#"file=$(echo "$STILLPOINT_MOUNTS" | grep "/a$")/file"#;
    let check = |name: &str, script: &str, more: &str| {
        let command = format!("command = [\"/bin/sh\", \"-euc\", '''{file}; {script}''']");
        format!("[[check]]\nname = \"{name}\"\n{command}\ntimeout = \"60s\"\n{more}\n")
    };
    let good = [
        check("reads", r#"test "$(cat "$file")" = text; seq 1000000 | cmp - "${file%/file}/long""#, ""),
        check("writes", r#"echo other >"$file""#, "writable = true"),
    ];
    space.rig.configure(&good.concat());
    let set = space.take();
    // The kernel reads ahead: it waits for several parts of a block at the same time.
    let slow = serde_json::json!({"action": "ebs:GetSnapshotBlock", "kind": "delay-before", "delay_ms": 100, "times": 1000});
    space.rig.control("POST", "faults", &slow.to_string());
    verify(&space, &set, &[]).exits(0).says("2 of 2 filesystems are sound, 2 of 2 checks ended well");
    let each = fetched(&space);
    assert!(each.values().all(|n| *n == 1), "a block was fetched twice: {each:?}");
    let bad = check("bad", "echo 3 rows are missing; exit 3", "");
    space.rig.configure(&bad);
    let said = verify(&space, &set, &["-o", "json"]).exits(24).record();
    assert!(said.to_string().contains("exit code 3: 3 rows are missing"), "{said}");
    nothing_is_left(&space);
}
