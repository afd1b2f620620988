//! Containers around a real window, under a real Podman with its storage in the test's folder. The `podman`
//! that stillpoint finds is a script that adds where that is. Docker is driven by the same three commands,
//! and has not been run.

use nix::sys::signal::Signal;
use rig::probe::{assert_labels, assert_settled};
use rig::program::{Run, put_executable, put_host_program};
use rig::window::{InWindow, in_the_window_of};
use rig::{Fs, Rig};
use std::path::Path;
use std::process::{Command, Output};

/// crun cannot use control groups of both versions at once: then it gets version 1 alone.
const PODMAN: &str = r#"#!/bin/sh
export TMPDIR=TEMP/podman
exec unshare --mount sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' sh \
    timeout 30 /usr/bin/podman --root TEMP/podman/root --runroot TEMP/podman/run --tmpdir TEMP/podman/tmp \
    --cgroup-manager cgroupfs --events-backend file --storage-driver vfs "$@"
"#;

struct Podman {
    rig: Rig,
}

impl Podman {
    /// Containers that run. None where Podman cannot start one: then it is said, loudly.
    fn start(names: &[&str]) -> Option<Self> {
        let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
        for folder in ["bin", "podman", "image/bin"] {
            std::fs::create_dir_all(rig.path(folder)).unwrap();
        }
        let script = rig.path("bin/podman");
        let text = PODMAN.replace("TEMP", rig.path("").to_str().unwrap().trim_end_matches('/'));
        put_executable(&script, &text);
        put_host_program("podman", text);
        let podman = Self { rig };
        let skipped = |why: &str| {
            eprintln!("\n*** NOT TESTED with a real Podman: {why} ***\n");
            None
        };
        if !Path::new("/usr/bin/podman").exists()
            || std::fs::copy("/bin/busybox", podman.rig.path("image/bin/busybox")).is_err()
        {
            return skipped("podman and busybox-static are needed");
        }
        let image = podman.rig.path("image.tar");
        rig::sh(
            "tar",
            &["-C", podman.rig.path("image").to_str().unwrap(), "-cf", image.to_str().unwrap(), "."],
        );
        let made = podman.try_(&["import", image.to_str().unwrap(), "busybox:1"]);
        if !made.status.success() {
            return skipped(&String::from_utf8_lossy(&made.stderr));
        }
        for name in names {
            let run = ["run", "-d", "--name", name, "--network", "none", "--ulimit", "nofile=512:512"];
            let limits = ["--ulimit", "nproc=512:512", "--ulimit", "memlock=1000:1000", "busybox:1"];
            let started = podman.try_(&[&run[..], &limits, &["/bin/busybox", "sleep", "300"]].concat());
            if !started.status.success() {
                return skipped(&String::from_utf8_lossy(&started.stderr));
            }
        }
        Some(podman)
    }

    fn try_(&self, arguments: &[&str]) -> Output {
        Command::new(self.rig.path("bin/podman")).args(arguments).output().unwrap()
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn state(&self, name: &str) -> String {
        self.ctl(&["inspect", "--type", "container", "--format", "{{.State.Status}}", name])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.rig.command(arguments)
    }

    fn configure(&self, names: &str) {
        self.rig.configure(&format!(
            "[[container]]\nengine = \"podman\"\ncontainers = [{names}]\ntimeout = \"20s\"\n"
        ));
    }

    fn in_the_window(&self) -> InWindow<'_> {
        // Podman takes its time for each of its commands.
        let command = self.command(&["snapshot", "--window", "30s", "-o", "json"]);
        in_the_window_of(&self.rig, command)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.try_(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn containers_are_paused_and_one_that_was_paused_before_stays_so() {
    let Some(podman) = Podman::start(&["db", "before", "stopped"]) else { return };
    podman.ctl(&["pause", "before"]);
    podman.ctl(&["stop", "--time", "0", "stopped"]);
    podman.configure("\"db\", \"before\", \"stopped\"");
    let window = podman.in_the_window();
    assert_eq!(podman.state("db"), "paused");
    assert_eq!(window.end().exits(0).record()["achieved"], "application");
    assert_eq!(["db", "before", "stopped"].map(|c| podman.state(c)), ["running", "paused", "exited"]);
    assert_labels(&podman.rig, 2, "application");
    assert_settled(&podman.rig);
    podman.configure("\"none\"");
    Run::start(podman.command(&["snapshot"])).end().exits(20).says("podman").says("none");
    assert_eq!(podman.rig.creates().len(), 1);
}

#[test]
fn containers_of_a_killed_agent_go_on_after_the_recovery() {
    let Some(podman) = Podman::start(&["db"]) else { return };
    podman.configure("\"db\"");
    let window = podman.in_the_window();
    window.signal(Signal::SIGKILL);
    window.end();
    assert_eq!(podman.state("db"), "paused", "nobody was there yet");
    Run::start(podman.command(&["thaw", "--recover"])).end().exits(0);
    assert_eq!(podman.state("db"), "running");
    podman.rig.await_quiet();
}

/// A container that goes on in the window may write to what is being taken.
#[test]
fn a_container_that_somebody_unpaused_meanwhile_lowers_the_label() {
    let Some(podman) = Podman::start(&["db"]) else { return };
    podman.configure("\"db\"");
    let window = podman.in_the_window();
    podman.ctl(&["unpause", "db"]);
    let ended = window.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "filesystem");
    assert!(
        record["reason"].as_str().unwrap().contains("running, not paused any more"),
        "{}",
        record["reason"]
    );
    assert_eq!(podman.state("db"), "running");
    assert_settled(&podman.rig);
}

/// A program in the engine's place notes who calls it, and with what. That a real rootless engine finds its
/// containers by this has not been tried here.
#[test]
fn an_engine_of_another_user_is_called_as_that_user() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    std::fs::create_dir(rig.path("engine")).unwrap();
    let notes = rig.path("engine/notes");
    for open in [rig.path(""), rig.path("engine")] {
        let mode = if open.ends_with("engine") { 0o1777 } else { 0o755 };
        std::fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let program = "#!/bin/sh\necho \"$(id -un) $XDG_RUNTIME_DIR $DOCKER_HOST $1\" >> FOLDER/notes\n\
                   case $1 in\n  inspect) echo \"0123abcd $(cat FOLDER/state 2>/dev/null || echo running)\" ;;\n\
                   \x20 pause) echo paused > FOLDER/state ;;\n  unpause) echo running > FOLDER/state ;;\nesac\n"
        .replace("FOLDER", rig.path("engine").to_str().unwrap());
    put_host_program("podman", &program);
    put_executable(Path::new("/usr/local/sbin/docker"), &program);
    let uid = rig::sh("id", &["-u", "nobody"]).trim().to_owned();
    let section = |engine: &str, more: &str| {
        format!("[[container]]\nengine = \"{engine}\"\ncontainers = [\"web\"]\ntimeout = \"20s\"\n{more}")
    };
    let own = "environment = { DOCKER_HOST = \"unix:///d\", XDG_RUNTIME_DIR = \"/own\" }\n";
    for (configuration, who) in [
        (section("podman", "user = \"nobody\"\n"), format!("nobody /run/user/{uid}  ")),
        (section("docker", &format!("user = \"nobody\"\n{own}")), "nobody /own unix:///d ".to_owned()),
        (section("docker", own), "root /own unix:///d ".to_owned()),
        (section("docker", ""), "root   ".to_owned()),
    ] {
        rig.configure(&configuration);
        let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
        assert_eq!(record["achieved"], "application");
        let noted = std::fs::read_to_string(&notes).unwrap();
        for verb in ["inspect", "pause", "unpause"] {
            assert!(noted.lines().any(|l| l == format!("{who}{verb}")), "{configuration}: {noted}");
        }
        assert!(noted.lines().all(|l| l.starts_with(&who)), "{configuration}: {noted}");
        std::fs::remove_file(&notes).unwrap();
    }

    // Whoever cleans up after a dead run goes by the journal.
    rig.configure(&section("podman", "user = \"nobody\"\n"));
    let window = in_the_window_of(&rig, rig.command(&["snapshot", "--window", "30s"]));
    window.signal(Signal::SIGKILL);
    window.end();
    std::fs::remove_file(&notes).unwrap();
    Run::start(rig.command(&["thaw", "--recover"])).end().exits(0);
    let noted = std::fs::read_to_string(&notes).unwrap();
    assert!(noted.lines().any(|l| l == format!("nobody /run/user/{uid}  unpause")), "{noted}");
    rig.await_quiet();
}
