//! Operations that FIFREEZE would wait for, real ones: seen, waited for, and refused with nothing frozen.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use rig::control_group::{ControlGroup, Hierarchy};
use rig::hooks::{hook, log, note, noting};
use rig::namespace::Namespace;
use rig::patience::RUN;
use rig::probe::{assert_settled, is_thawed};
use rig::program::{Ended, await_some, wait};
use rig::{Fs, Rig, sh};
use serde_json::Value;

/// So much that a scrub at [`CRAWL`] bytes per second lasts for minutes.
fn fill(mount: &Path) {
    let file = mount.join("filled");
    std::fs::write(&file, vec![b'x'; 16 << 20]).unwrap();
    sh("sync", &["-f", file.to_str().unwrap()]);
}

const CRAWL: &str = "65536";

/// A scrub that lasts until it is cancelled.
struct Scrub {
    mount: String,
    child: Child,
}

/// Lets every scrub of this btrfs crawl.
fn crawl(rig: &Rig, name: &str) {
    fill(&rig.mount(name));
    let uuid = sh("blkid", &["-p", "-s", "UUID", "-o", "value", &rig.device(name)]);
    let speed = format!("/sys/fs/btrfs/{}/devinfo/1/scrub_speed_max", uuid.trim());
    std::fs::write(speed, CRAWL).expect("btrfs of Linux 5.14 or later");
}

impl Scrub {
    fn start(rig: &Rig, name: &str, more: &[&str]) -> Self {
        crawl(rig, name);
        let mount = rig.mount(name).to_str().unwrap().to_owned();
        let mut command = Command::new("btrfs");
        command.args(["scrub", "start", "-B"]).args(more).arg(&mount);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("btrfs-progs");
        let scrub = Self { mount, child };
        await_some("the scrub", || scrub.runs().then_some(()));
        scrub
    }

    fn runs(&self) -> bool {
        let status = Command::new("btrfs").args(["scrub", "status", &self.mount]).output().unwrap();
        String::from_utf8_lossy(&status.stdout).contains("running")
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        let _ = Command::new("btrfs").args(["scrub", "cancel", &self.mount]).output();
        assert!(wait(&mut self.child, RUN).is_some() || std::thread::panicking(), "the scrub goes on");
    }
}

/// What it said, as one line.
fn flat(ended: &Ended) -> String {
    format!("{} {}", ended.out, ended.err).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn refused(rig: &Rig, ended: &Ended, says: &[&str]) {
    ended.exits(21);
    let said = flat(ended);
    for text in says {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(rig.creates().len(), 0);
    assert_settled(rig);
}

/// Where root may not look at every process, as in some containers.
fn only_hidden(unseen: &Value) -> bool {
    unseen.as_array().unwrap().iter().all(|u| u.as_str().unwrap().starts_with("the calls of"))
}

#[test]
fn a_scrub_is_named_and_no_run_of_any_goal_begins() {
    let rig = Rig::start(&[("a", Fs::Btrfs)]);
    rig.configure(&format!("[defaults]\nbusy_timeout = \"1s\"\n{}", noting(&rig, "db")));
    let scrub = Scrub::start(&rig, "a", &[]);
    let on = format!("btrfs scrub on {}", scrub.mount);
    let cancel = format!("btrfs scrub cancel {}", scrub.mount);
    for goal in ["snapshot", "rehearse"] {
        let says = [&on, "% done", "FIFREEZE would wait", &cancel, "waited for 1s (busy_timeout)"];
        refused(&rig, &rig.run(&[goal]), &says);
    }
    // Whoever waits for a freeze is answered at once.
    rig.configure(&format!("[defaults]\nbusy_timeout = \"1h\"\n{}", noting(&rig, "db")));
    refused(&rig, &rig.run(&["freeze", "--for", "5s"]), &[&on, &cancel]);
    assert_eq!(log(&rig), Vec::<String>::new(), "a hook ran");

    let plan = rig.run(&["plan"]);
    plan.exits(0);
    assert!(flat(&plan).contains("Busy now") && flat(&plan).contains(&on), "{}", plan.out);
    let json: Value = serde_json::from_str(&rig.run(&["plan", "-o", "json"]).exits(0).out).unwrap();
    let operation = &json["busy"]["operations"][0];
    assert_eq!((&operation["operation"], &operation["effect"]), (&"btrfs scrub".into(), &"blocks".into()));
    assert_eq!(operation["mount_point"].as_str(), Some(&*scrub.mount));
    assert!(only_hidden(&json["busy"]["not_checked"]), "{json:#}");
    let json: Value = serde_json::from_str(&rig.run(&["doctor", "-o", "json"]).exits(0).out).unwrap();
    let found = json["findings"].as_array().unwrap();
    let busy: Vec<_> = found.iter().filter(|f| f["id"] == "busy").collect();
    assert_eq!(busy[0]["severity"], "warning", "{found:#?}");
    assert!(
        busy[0]["what"].as_str().unwrap().contains(&on)
            && busy[0]["remedy"].as_str().unwrap().contains(&cancel)
    );
    // It is one of many that wait in the kernel, and no process that hangs.
    assert!(!found.iter().any(|f| f["id"] == "hung-tasks" && f["severity"] == "problem"), "{found:#?}");

    drop(scrub);
    let json: Value = serde_json::from_str(&rig.run(&["plan", "-o", "json"]).exits(0).out).unwrap();
    assert_eq!(json["busy"]["operations"], serde_json::json!([]));
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db taken"]);
}

#[test]
fn a_run_waits_for_the_end_of_a_scrub_before_its_hooks_and_goes_on_then() {
    let rig = Rig::start(&[("a", Fs::Btrfs), ("b", Fs::Ext4)]);
    rig.configure(&noting(&rig, "db")); // it waits for 10 min by default
    let scrub = Scrub::start(&rig, "a", &[]);
    let run = rig.spawn(&["snapshot"]);
    let waits = || run.said().contains("waiting, 10m at most").then_some(());
    await_some("the run to wait", waits);
    assert_eq!(log(&rig), Vec::<String>::new(), "a hook ran");
    drop(scrub);
    run.end().exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db taken"]);
    assert_eq!(rig.creates().len(), 1);
    assert_settled(&rig);

    let scrub = Scrub::start(&rig, "a", &[]);
    let run = rig.spawn(&["snapshot"]);
    await_some("the run to wait", || run.said().contains("waiting, 10m at most").then_some(()));
    run.signal(Signal::SIGTERM);
    assert!(flat(&run.end()).contains("interrupted by SIGTERM"));
    assert_eq!(log(&rig).len(), 2, "a hook ran");
    drop(scrub);
    assert_settled(&rig);
}

/// It takes no write access: FIFREEZE does not wait for it, and neither does a run.
#[test]
fn a_scrub_that_only_reads_is_no_reason_to_wait() {
    let rig = Rig::start(&[("a", Fs::Btrfs)]);
    rig.configure("[defaults]\nbusy_timeout = \"0s\"\n");
    let scrub = Scrub::start(&rig, "a", &["-r"]);
    rig.run(&["snapshot"]).exits(0);
    assert!(scrub.runs(), "it has ended meanwhile, and nothing was tested");
    assert_settled(&rig);
}

#[test]
fn what_begins_after_the_first_look_is_seen_before_the_freeze_and_the_applications_are_released() {
    let rig = Rig::start(&[("a", Fs::Btrfs)]);
    crawl(&rig, "a");
    let mount = rig.mount("a");
    let (note, mount) = (|text: &str| note(&rig, text), mount.to_str().unwrap());
    let begin = format!("btrfs scrub start {mount} >/dev/null; {}", note("pre-db"));
    let end = format!("btrfs scrub cancel {mount} >/dev/null; {}", note("post-db $STILLPOINT_RESULT"));
    rig.configure(&hook("db", &begin, &end, ""));
    let ended = rig.run(&["snapshot"]);
    refused(&rig, &ended, &[&format!("btrfs scrub on {mount}"), "it has begun since the run did"]);
    assert_eq!(log(&rig), ["pre-db", "post-db failed"]);
    assert!(is_thawed(Path::new(mount)));
}

/// A process that reads a device at one byte per second, until that is lifted.
struct Slow {
    group: ControlGroup,
    device: String,
    child: Option<Child>,
}

impl Slow {
    /// None where the kernel cannot slow it down; that is said, loudly.
    fn start(rig: &Rig, name: &str, program: &str, arguments: &[&str]) -> Option<Self> {
        let hierarchy = Hierarchy::Legacy("blkio");
        let hierarchy = if hierarchy.is_mounted() { hierarchy } else { Hierarchy::Unified };
        let group = ControlGroup::new(rig, hierarchy)?;
        let device = sh("lsblk", &["-dno", "MAJ:MIN", &rig.device(name)]).trim().to_owned();
        let mut slow = Self { group, device, child: None };
        if !slow.limit("1") {
            return None;
        }
        // What is in the page cache is not read again.
        let mount = rig.mount(name);
        sh("umount", &[mount.to_str().unwrap()]);
        sh("mount", &[&rig.device(name), mount.to_str().unwrap()]);
        let mut command = Command::new(program);
        command.args(arguments);
        slow.child = Some(slow.group.within(&command).spawn().unwrap());
        let pid = slow.pid();
        // 16 is ioctl on x86-64, 29 on aarch64.
        await_some("the ioctl", || {
            let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
            let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
            (["16 ", "29 "].iter().any(|n| call.starts_with(n)) && wchan != "0").then_some(())
        });
        Some(slow)
    }

    fn limit(&self, bytes: &str) -> bool {
        if Hierarchy::Legacy("blkio").is_mounted() {
            let none = if bytes == "max" { "0" } else { bytes };
            self.group.set("blkio.throttle.read_bps_device", &format!("{} {none}", self.device))
        } else {
            self.group.set("io.max", &format!("{} rbps={bytes}", self.device))
        }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.limit("max");
        let ended = self.child.as_mut().map(|child| wait(child, RUN).is_some());
        assert!(ended != Some(false) || std::thread::panicking(), "it goes on");
    }
}

/// The kernel has no word for these: the call, the file and the process tell.
#[test]
fn a_long_call_is_found_by_its_process_and_what_is_over_is_not_waited_for() {
    let rig = Rig::start(&[("a", Fs::Xfs)]);
    rig.configure(&format!("[defaults]\nbusy_timeout = \"0s\"\n{}", noting(&rig, "db")));
    fill(&rig.mount("a"));
    let (from, to) = (rig.mount("a").join("filled"), rig.mount("a").join("copy"));
    sh("cp", &["--reflink=never", from.to_str().unwrap(), to.to_str().unwrap()]);
    sh("sync", &["-f", to.to_str().unwrap()]);
    let dedupe = "import fcntl,os,struct,sys\ns=os.open(sys.argv[1],os.O_RDONLY)\nd=os.open(sys.argv[2],os.O_RDWR)\n\
                  a=bytearray(struct.pack('QQHHI',0,1<<20,1,0,0)+struct.pack('qQQiI',d,0,0,0,0))\n\
                  fcntl.ioctl(s,0xC0189436,a)";
    let arguments = ["-c", dedupe, from.to_str().unwrap(), to.to_str().unwrap()];
    let Some(slow) = Slow::start(&rig, "a", "python3", &arguments) else { return };
    let who = format!("(pid {})", slow.pid());
    let what = format!("deduplication (FIDEDUPERANGE) on {} by", rig.mount("a").display());
    refused(&rig, &rig.run(&["snapshot"]), &[&what, &who]);
    assert!(flat(&rig.run(&["plan"])).contains(&what));
    assert_eq!(log(&rig), Vec::<String>::new(), "a hook ran");
    drop(slow);
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

/// FIFREEZE does not wait for it, but it writes to its target all the time.
#[test]
fn a_device_replace_is_refused_or_costs_the_label() {
    let rig = Rig::formatted(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)], "");
    let mount = rig.mount("a").to_str().unwrap().to_owned();
    sh("mount", &[&rig.device("a"), &mount]);
    // Little, because block groups are read-only while they are copied, and new ones need room.
    std::fs::write(rig.mount("a").join("filled"), vec![b'x'; 1 << 20]).unwrap();
    sh("sync", &["-f", &mount]);
    // btrfs-progs takes two loop devices over one file for the same device.
    let replace = "import fcntl,os,struct,sys\nm=os.open(sys.argv[1],os.O_RDONLY)\na=bytearray(2600)\n\
                   struct.pack_into('QQQQ',a,0,0,0,1,0)\nt=sys.argv[2].encode()\na[1057:1057+len(t)]=t\n\
                   fcntl.ioctl(m,0xca289435,a)";
    let arguments = ["-c", replace, &mount, &rig.device("b")];
    let Some(slow) = Slow::start(&rig, "a", "python3", &arguments) else { return };
    rig.configure("[defaults]\nbusy_timeout = \"0s\"\n");
    let what = format!("btrfs device replace on {mount}");
    refused(&rig, &rig.run(&["snapshot"]), &[&what, "goes on writing", "btrfs replace cancel"]);
    assert!(flat(&rig.run(&["plan"])).contains(&what));
    drop(slow);
}

/// It cannot be unmounted either, and who keeps it from that is named.
#[test]
fn what_is_scrubbed_cannot_be_unmounted() {
    let space = Namespace::start(&[("a", Fs::Btrfs)]);
    space.unmounting(&["a"], "");
    let mount = space.at("a");
    space.sh(&format!("head -c 16777216 /dev/zero >{mount}/filled; sync -f {mount}"));
    let uuid = sh("blkid", &["-p", "-s", "UUID", "-o", "value", &space.rig.device("a")]);
    std::fs::write(format!("/sys/fs/btrfs/{}/devinfo/1/scrub_speed_max", uuid.trim()), CRAWL).unwrap();
    let scrub = space.background(&format!("echo ready; exec btrfs scrub start -B {mount} >/dev/null"));
    await_some("the scrub", || {
        space.sh(&format!("btrfs scrub status {mount}")).contains("running").then_some(())
    });
    let ended = space.run(&["snapshot"]);
    space.sh(&format!("btrfs scrub cancel {mount}"));
    ended.exits(21).says("(btrfs) has");
    assert!(space.rig.journals().is_empty());
    drop(scrub);
}
