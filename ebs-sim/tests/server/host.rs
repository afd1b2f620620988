//! What the machine must have: found out before anything is made, and said.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{EBS_SIM, QUICK, Sim, loops_under, needs_root, sh, values, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

fn temp() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

fn serve(dir: &Path) -> Command {
    let mut command = Command::new(EBS_SIM);
    command.args(["serve", "--die-with-parent", "--volume", "name=a,size=16MiB", "--dir"]).arg(dir);
    command
}

/// A folder in which there is only this command.
fn path_with(temp: &TempDir, command: &str) -> PathBuf {
    let folder = temp.path().join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    symlink(sh("sh", &["-c", &format!("command -v {command}")]), folder.join(command)).expect("a link");
    folder
}

/// It ended with this code and said this, with a hint, and made nothing.
fn assert_refused(output: &Output, dir: &Path, code: i32, said: &str, hint: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("hint: ") && line.contains(hint)), "{stderr}");
    assert!(!dir.exists());
}

#[test]
fn without_root_it_says_so() {
    needs_root();
    let temp = temp();
    std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o777)).expect("an open folder");
    // Nobody else may look into the folder that it was built in.
    let program = temp.path().join("ebs-sim");
    // By a process of its own: a child that another test forks meanwhile would hold it open for writing
    // (ETXTBSY).
    sh("cp", &[EBS_SIM, program.to_str().expect("a path")]);
    let dir = temp.path().join("sim");
    let output = Command::new(&program)
        .args(["serve", "--volume", "name=a,size=16MiB", "--dir"])
        .arg(&dir)
        .uid(65534)
        .gid(65534)
        .output()
        .expect("it can be run");
    assert_refused(&output, &dir, 77, "not root", "sudo");
}

#[test]
fn without_loop_devices_it_says_so() {
    needs_root();
    let temp = temp();
    let dir = temp.path().join("sim");
    let script =
        format!("mount -t tmpfs tmpfs /dev && exec {EBS_SIM} serve --volume name=a,size=16MiB --dir \"$0\"");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(&dir)
        .output()
        .expect("it can be run");
    assert_refused(&output, &dir, 1, "/dev/loop-control", "modprobe loop");
}

#[test]
fn without_a_command_it_says_which_package_has_it() {
    needs_root();
    let temp = temp();
    let dir = temp.path().join("sim");
    let output = serve(&dir).env("PATH", "/nonexistent").output().expect("it can be run");
    assert_refused(&output, &dir, 1, "losetup", "util-linux");
    let output = serve(&dir).env("PATH", path_with(&temp, "losetup")).output().expect("it can be run");
    assert_refused(&output, &dir, 1, "mkfs.xfs", "xfsprogs");
}

/// A mounted XFS that goes with its loop device.
struct Xfs(PathBuf);

impl Xfs {
    fn new(temp: &TempDir, reflink: u8) -> Self {
        let (image, folder) = (temp.path().join("xfs.img"), temp.path().join("xfs"));
        std::fs::File::create(&image).and_then(|file| file.set_len(1 << 30)).expect("an image");
        std::fs::create_dir(&folder).expect("a folder");
        let image = image.to_str().expect("UTF-8");
        sh("mkfs.xfs", &["-q", "-m", &format!("reflink={reflink}"), image]);
        sh("mount", &["-o", "loop", image, folder.to_str().expect("UTF-8")]);
        Self(folder)
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        // The loop device of a file on it may be held open for a moment.
        for _ in 0..500 {
            if nix::mount::umount(&self.0) != Err(nix::errno::Errno::EBUSY) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Serves until it announces itself.
fn started(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it is read");
    assert!(line.starts_with('{'), "it did not start: {line}");
    child
}

fn end(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("it can be signalled");
    assert!(child.wait().expect("it ends").success());
}

fn call(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(EBS_SIM).arg("call").args(arguments).env("EBS_SIM_DIR", dir).output();
    String::from_utf8_lossy(&output.expect("it can be run").stdout).into_owned()
}

/// Takes a snapshot of the only volume.
fn snapshot(dir: &Path) -> Vec<String> {
    let id = values(&call(dir, &["DescribeInstances"]), "instanceId").remove(0);
    values(&call(dir, &["CreateSnapshots", &format!("InstanceSpecification.InstanceId={id}")]), "snapshotId")
}

#[test]
fn a_filesystem_that_can_clone_is_used_as_it_is_and_another_is_not() {
    needs_root();
    for (reflink, makes_its_own) in [(1, false), (0, true)] {
        let temp = temp();
        let xfs = Xfs::new(&temp, reflink);
        let dir = xfs.0.join("sim");
        let mut command = serve(&dir);
        if reflink == 1 {
            // Then not even mkfs.xfs has to be there.
            command.env("PATH", path_with(&temp, "losetup"));
        }
        let child = started(command);
        assert_eq!(dir.join("host.img").exists(), makes_its_own, "reflink={reflink}");
        assert_eq!(snapshot(&dir).len(), 1);
        end(child);
        assert_eq!(loops_under(&dir), [""; 0]);
        assert!(!dir.exists());
    }
}

/// Whoever makes a mount namespace gets a copy of every mount there is, and knows nothing of it.
#[test]
fn a_mount_namespace_made_meanwhile_does_not_keep_the_store() {
    needs_root();
    let mut sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    let mut other = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "60"])
        .spawn()
        .expect("unshare is there");
    let store = sim.dir().join("host");
    let table = format!("/proc/{}/mountinfo", other.id());
    let sees =
        || std::fs::read_to_string(&table).is_ok_and(|table| table.contains(store.to_str().expect("UTF-8")));
    wait_for("the copy of the store", || {
        let command = std::fs::read_to_string(format!("/proc/{}/comm", other.id())).unwrap_or_default();
        command.trim() == "sleep" && sees()
    });
    let (code, said) = sim.end(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(!sees());
    other.kill().expect("it runs");
    other.wait().expect("it ends");
}
