//! A host in trouble: little memory, a dropped page cache, and the program itself on what it freezes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rig::probe::{Writer, assert_labels, assert_settled, is_thawed};
use rig::systemd::cgroups;
use rig::window::in_the_window_of;
use rig::{Fs, Rig, sh, stillpoint};

/// Everything that can be dropped of the page cache: whatever is used next has to be read again.
fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// The binary, the working directory, stdout and stderr are all on `a`, which is frozen; its pages are
/// dropped while it is.
#[test]
fn the_program_may_live_on_what_it_freezes() {
    let rig = Rig::start(&[("a", Fs::Xfs), ("b", Fs::Ext4)]);
    let program = rig.mount("a").join("stillpoint");
    // Without its symbols: the debug build is larger than most of the rig's filesystems.
    sh("strip", &["-o", program.to_str().unwrap(), stillpoint()]);
    let _writer = Writer::start(&rig.mount("b"));
    let (out, err) = (rig.mount("a").join("out"), rig.mount("a").join("err"));
    let script = "cd \"$1\" && shift && exec \"$@\" >out 2>err";
    let mut command = rig.exec(Path::new("sh"));
    command.args(["-c", script, "sh", rig.mount("a").to_str().unwrap()]).arg(&program);
    let command = rig.tail(command, &["-v", "snapshot", "-o", "json"]);
    let run = in_the_window_of(&rig, command);
    drop_caches();
    run.end().exits(0);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let record: serde_json::Value = serde_json::from_str(&read(&out)).unwrap();
    assert_eq!(record["achieved"], "filesystem", "{}", read(&err));
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

/// A memory control group; whatever is in it may use this much and no swap.
struct Squeeze(PathBuf);

impl Squeeze {
    fn new(bytes: u64) -> Self {
        let name = format!("stillpoint-test-{}", std::process::id());
        let lists = |file: PathBuf| {
            std::fs::read_to_string(file).is_ok_and(|t| t.split_whitespace().any(|w| w == "memory"))
        };
        let unified = cgroups().filter(|root| lists(root.join("cgroup.controllers")));
        let (group, files) = match &unified {
            Some(root) => {
                let control = root.join("cgroup.subtree_control");
                if !lists(control.clone()) {
                    let enabled = std::fs::write(&control, "+memory");
                    let place = control.display();
                    assert!(
                        enabled.is_ok(),
                        "this test needs the memory controller, and +memory in {place}: {enabled:?}"
                    );
                }
                (root.join(name), ["memory.max", "memory.swap.max"])
            }
            None => {
                let root = Path::new("/sys/fs/cgroup/memory");
                assert!(
                    root.exists(),
                    "this test needs the memory controller: neither cgroup2 nor {} has it",
                    root.display()
                );
                (root.join(name), ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"])
            }
        };
        std::fs::create_dir(&group).expect("this test needs a memory control group");
        let limit = |file: &str, bytes: u64| std::fs::write(group.join(file), bytes.to_string());
        limit(files[0], bytes).expect("this test needs the memory controller");
        let _ = limit(files[1], if unified.is_some() { 0 } else { bytes }); // absent where swap is not accounted
        Self(group)
    }

    /// How often something in it was killed for want of memory.
    fn killed(&self) -> u64 {
        ["memory.events", "memory.oom_control"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(self.0.join(file)).ok())
            .find_map(|text| text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.parse().ok()))
            .unwrap()
    }
}

impl Drop for Squeeze {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Another process of the same control group eats what it can while the set is frozen, so that every page
/// that can be reclaimed is. What the window needs is locked in memory, and the dirty pages of what is frozen
/// cannot be written back: an allocation in the window would wait for the thaw that it holds up.
#[test]
fn a_control_group_without_memory_changes_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let group = Squeeze::new(160 << 20);
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let mut command = rig.exec(Path::new("sh"));
    command.args(["-c", &enter, "sh", stillpoint()]);
    let command = rig.tail(command, &["snapshot", "-o", "json"]);
    let run = in_the_window_of(&rig, command);
    // It fills the group's page cache and its own memory; the kernel kills it first, as it is told to.
    let eat = format!(
        "echo $$ > {}/cgroup.procs && echo 1000 > /proc/$$/oom_score_adj && exec python3 -c \"{}\"",
        group.0.display(),
        "b=[]\nwhile True: b.append(bytearray(1<<20))"
    );
    let mut eater = Command::new("sh").args(["-c", &eat]).spawn().unwrap();
    drop_caches();
    let status = rig::program::wait(&mut eater, Duration::from_secs(20)).expect("it was killed");
    assert!(!status.success());
    assert!(group.killed() > 0, "the control group was never short of memory");
    let record = run.end().exits(0).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert_labels(&rig, 2, "filesystem");
    for mount in rig.mounts() {
        assert!(is_thawed(mount));
    }
    assert_settled(&rig);
}

/// One set of 128 filesystems: one call, one window, all thawed.
#[test]
fn a_hundred_and_twenty_eight_filesystems_are_one_set() {
    let names: Vec<String> = (0..128).map(|n| format!("v{n}")).collect();
    let volumes: Vec<(&str, Fs)> = names.iter().map(|n| (n.as_str(), Fs::Tiny)).collect();
    let mut rig = Rig::start(&volumes);
    rig.renew_rescue(); // formatting took its time
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["snapshots"].as_array().unwrap().len(), 128);
    assert_eq!(rig.creates().len(), 1);
    assert_labels(&rig, 128, "filesystem");
    assert_settled(&rig);
}
