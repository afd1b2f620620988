//! What an ordinary user is shown, before and after root has run: a plan as root's, and what it leaves open.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rig::program::{Ended, Run};
use rig::{Fs, NO_INTERVAL, namespace::Namespace, stillpoint};

/// A host of its own: the volumes are mounted in it, /run is empty, and the program goes by what is below
/// that.
struct Host(Namespace);

impl Host {
    fn start(volumes: &[(&str, Fs)]) -> Self {
        let host = Self(Namespace::start(volumes));
        host.0.sh("mount -t tmpfs -o mode=755 tmpfs /run");
        set_permissions(host.0.path(""), Permissions::from_mode(0o755)).unwrap();
        // Whatever folder the program was built in, everybody may run this copy.
        std::fs::copy(stillpoint(), host.program()).unwrap();
        set_permissions(host.program(), Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn program(&self) -> String {
        self.0.at("stillpoint")
    }

    fn drop_in(&self, text: &str) {
        let text = format!("{text}{NO_INTERVAL}");
        self.0.sh(&format!(
            "install -d -m 755 /run/stillpoint/config.d; printf '%s' '{text}' >/run/stillpoint/config.d/10-a.toml"
        ));
    }

    fn run_as(&self, user: &[&str], arguments: &[&str]) -> Ended {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.pid())).arg("--").args(user);
        command.arg(self.program()).arg("--state-dir").arg(self.0.path("state")).args(arguments);
        command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        for (name, value) in self.0.rig.ready["env"].as_object().unwrap() {
            command.env(name, value.as_str().unwrap());
        }
        Run::start(command).end()
    }

    fn root(&self, arguments: &[&str]) -> Ended {
        self.run_as(&[], arguments)
    }

    fn nobody(&self, arguments: &[&str]) -> Ended {
        self.run_as(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"], arguments)
    }
}

/// What it printed, without the line breaks.
fn flat(said: &Ended) -> String {
    said.out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The whole point: the folder that root's run makes does not hide the drop-ins, and what the user may not
/// read is no refusal.
#[test]
fn a_plan_is_made_for_an_ordinary_user_also_after_a_run() {
    let host = Host::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    let b = host.0.path("b");
    // An image file, an overlay's upper layer and the root of a btrfs, all of them closed to him.
    let (a, c) = (host.0.at("a"), host.0.at("c"));
    host.0.sh(&format!(
        "cd {a}; mkdir -p closed/upper closed/work closed/lower image over; truncate -s 16M closed/image; \
         mkfs.ext4 -q closed/image; mount -o loop closed/image {a}/image; mount -t overlay overlay {a}/over \
         -o lowerdir={a}/closed/lower,upperdir={a}/closed/upper,workdir={a}/closed/work; chmod 700 closed {c}"
    ));
    assert!(flat(host.nobody(&["plan"]).exits(0)).contains("needs root: whether the filesystem on"));
    host.root(&["snapshot"]).exits(0);
    host.drop_in(&format!("[defaults]\nexclude_mounts = [{b:?}]\n"));
    host.root(&["snapshot"]).exits(0);
    let said = host.nobody(&["plan"]);
    said.exits(0);
    assert!(
        flat(&said).contains("Plan default: 2 filesystems on 2 volumes, filesystem-consistent"),
        "{said:?}"
    );
    assert!(flat(&said).contains("excluded by `exclude_mounts`"), "{said:?}");
    assert!(
        flat(&said).contains(&format!("{a}/image: not checked, needs root: which filesystem")),
        "{said:?}"
    );
    assert!(flat(&said).contains("not checked, needs root: where its writes go"), "{said:?}");
    assert!(flat(&said).contains(&format!("{a}: not checked, needs root")), "{said:?}");
    // What cannot be seen is not "none".
    assert!(flat(&said).contains("not checked: the calls of"), "{said:?}");
    let root = host.root(&["plan"]);
    assert!(!flat(root.exits(0)).contains("needs root"), "{root:?}");
    // Lock and journals stay root's.
    let listed = host.0.try_sh("setpriv --reuid=65534 --clear-groups -- ls /run/stillpoint");
    assert!(listed.is_err(), "{listed:?}");
    let lock = host.0.try_sh("setpriv --reuid=65534 --clear-groups -- cat /run/stillpoint/lock");
    assert!(lock.is_err(), "{lock:?}");
}

/// A folder that somebody has closed is not taken for one without drop-ins.
#[test]
fn drop_ins_that_the_user_may_not_read_are_named() {
    let host = Host::start(&[("a", Fs::Ext4)]);
    host.drop_in("[plan.nightly]\n");
    host.0.sh("chmod 700 /run/stillpoint");
    let closed = "/run/stillpoint/config.d";
    let said = host.nobody(&["plan"]);
    said.exits(0);
    assert!(flat(&said).contains("not checked, needs root: the configuration in"), "{said:?}");
    assert!(flat(&said).contains(closed), "{said:?}");
    host.nobody(&["plan", "nightly"]).exits(78).says("is not read, which needs root");
    host.nobody(&["config", "show"]).exits(0).says(&format!("{closed} is not read: needs root"));
    host.nobody(&["config", "check"]).exits(77).says(&format!("{closed} is not checked: needs root"));
    host.nobody(&["status"]).exits(77).says("nothing is known");
    let doctor = host.nobody(&["doctor"]);
    assert!(flat(&doctor).contains("only root may read a part of it"), "{doctor:?}");
    assert!(flat(&doctor).contains("needs root: whether the filesystem on"), "{doctor:?}");
    host.root(&["plan", "nightly"]).exits(0);
    // One file of an open folder.
    host.0.sh("chmod 755 /run/stillpoint; chmod 600 /run/stillpoint/config.d/10-a.toml");
    let said = host.nobody(&["plan"]);
    assert!(flat(said.exits(0)).contains("10-a.toml"), "{said:?}");
}

/// A part of a volume that nothing here shows a mount of: whether somebody uses it, only root can find out.
#[test]
fn the_users_of_a_raw_device_are_not_guessed() {
    let host = Host::start(&[("a", Fs::Ext4), ("raw", Fs::Ext4)]);
    host.0.sh(&format!("umount {}", host.0.at("raw")));
    host.drop_in("[defaults]\nunmounted_volumes = \"crash\"\n");
    let said = host.nobody(&["plan"]);
    said.exits(0);
    assert!(flat(&said).contains("what is mounted in other mount"), "{said:?}");
    assert!(!flat(&said).contains("cannot be taken for unused"), "{said:?}");
    assert!(Path::new(&host.program()).exists());
}
