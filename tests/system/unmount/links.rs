//! Mounting again follows nobody's link: while a filesystem is away, a user who may write to a folder above
//! its mount point does what he can, and root mounts nothing over a folder of root's.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use rig::fuse::Fuse;
use rig::namespace::Namespace;
use rig::{Fs, Rig, sh};
use serde_json::Value;
use stillpoint::host::mountinfo;
use stillpoint::ids::DevNo;
use stillpoint::unmount::{self, Device, Recipe, Wanted, covered, remount};

use super::nothing_left;

const BOB: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups sh -euc";

/// A member on `home/app/lib`, whose folders are bob's, and a folder of root's, `usr/lib`.
struct Home {
    space: Namespace,
    before: Vec<String>,
}

impl Home {
    fn start() -> Self {
        let space = Namespace::empty(&[("a", Fs::Ext4)]);
        space.sh(&format!(
            "cd {}; mkdir -p home/app/lib usr/lib; echo root > usr/lib/owner; chown -R 65534:65534 home; \
             mount -o noatime {} home/app/lib; chown 65534:65534 home/app/lib; echo bob > home/app/lib/owner",
            space.at(""),
            space.rig.device("a")
        ));
        let lib = space.at("home/app/lib");
        space.rig.configure(&format!("[defaults.methods]\n\"{lib}\" = \"unmount\"\n"));
        let before = space.table();
        Self { space, before }
    }

    fn lib(&self) -> String {
        self.space.at("home/app/lib")
    }

    /// What bob does, in his folder, with nobody's help.
    fn bob(&self, script: &str) {
        self.space.sh(&format!("cd {}; {BOB} '{script}'", self.space.at("home")));
    }

    /// Bob does this in the window; the run says that, mounts nowhere, and so does a recovery.
    fn is_not_followed(&self, script: &str, says: &[&str]) {
        let run = self.space.in_the_window(&["snapshot", "-o", "json"]);
        self.bob(script);
        let ended = run.end();
        ended.exits(41).says(&format!("NOT MOUNTED: {}", self.lib()));
        let again = self.space.run(&["thaw"]);
        again.exits(41);
        for text in says {
            ended.says(text);
            again.says(text);
        }
        assert_eq!(ended.record()["not_mounted"], serde_json::json!([self.lib()]));
        self.is_nowhere();
        assert_eq!(self.space.rig.journals().len(), 1);
    }

    fn is_nowhere(&self) {
        assert_eq!(self.space.table(), Vec::<String>::new());
        assert_eq!(self.space.sh(&format!("cat {}/owner", self.space.at("usr/lib"))), "root\n");
    }

    fn comes_back(&self) {
        self.comes_back_without_asking_ec2();
        nothing_left(&self.space, &self.before);
    }

    /// The same of a run that died: which snapshots it made is still to be looked up.
    fn comes_back_without_asking_ec2(&self) {
        self.space.run(&["thaw"]).exits(0).says(&format!("mounted {}", self.lib()));
        assert_eq!(self.space.table(), self.before);
    }
}

#[test]
fn a_parent_folder_that_becomes_a_link_is_not_followed() {
    let home = Home::start();
    let (usr, old) = (home.space.at("usr"), home.space.at("home/app.old/lib"));
    let link = format!("{} is a link to {usr} now", home.space.at("home/app"));
    let now = format!("the folder that it was mounted on is {old} now: move it back");
    let by_hand = "by hand, once no link or other folder is in its path: mount -t ext4";
    home.is_not_followed(&format!("mv app app.old; ln -s {usr} app"), &[&link, &now, by_hand]);
    home.bob("rm app; mv app.old app");
    home.comes_back();
}

#[test]
fn a_mount_point_that_becomes_a_link_is_not_followed() {
    let home = Home::start();
    let usr = home.space.at("usr/lib");
    let link = format!("{} is a link to {usr} now", home.lib());
    home.is_not_followed(&format!("mv app/lib app/old; ln -s {usr} app/lib"), &[&link, "app/old now"]);
    home.bob("rm app/lib; mv app/old app/lib");
    home.comes_back();
}

/// Another folder of bob's is not the one that was covered. Root's own is, where only root could put it.
#[test]
fn another_folder_at_the_place_is_not_mounted_on() {
    let home = Home::start();
    let says = ["another folder is there now than the one that it was mounted on", "belongs to user 65534"];
    home.is_not_followed("mv app/lib app/old; mkdir app/lib", &[&says[..], &["app/old now"]].concat());
    home.bob("rmdir app/lib app/old; mkdir app/lib");
    home.space.run(&["thaw"]).exits(41).says(says[0]);
    home.is_nowhere();
    home.space.sh(&format!("chown root:root {0} {0}/app {0}/app/lib", home.space.at("home")));
    home.comes_back();
}

#[test]
fn a_mount_point_that_is_gone_is_not_made() {
    let home = Home::start();
    home.is_not_followed("rmdir app/lib; rmdir app", &["No such file or directory"]);
}

/// Bob's FUSE does not answer: nobody may wait for it.
#[test]
fn a_fuse_in_the_way_is_not_entered() {
    for place in ["home/app", "home/app/lib"] {
        let home = Home::start();
        let run = home.space.in_the_window(&["snapshot"]);
        // In the test's namespace and in the run's: mounts below a shared folder show in both.
        let fuse = fuse_in(&home.space, &home.space.path(place));
        let says = format!("fuse.any is mounted on {} now", home.space.at(place));
        run.end().exits(41).says(&says);
        home.space.run(&["thaw"]).exits(41).says(&says);
        drop(fuse);
        home.space.sh(&format!("umount {}", home.space.at(place)));
        home.is_nowhere();
        home.comes_back();
    }
}

/// A silent FUSE that is mounted in the namespace.
fn fuse_in(space: &Namespace, at: &Path) -> Fuse {
    let pid = space.pid();
    std::thread::scope(|scope| {
        let mount = scope.spawn(|| {
            use nix::sched::{CloneFlags, setns, unshare};
            unshare(CloneFlags::CLONE_FS).unwrap();
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNS).unwrap();
            let fuse = Fuse::mount(at, "bob", 4096);
            fuse.fall_silent();
            fuse
        });
        mount.join().unwrap()
    })
}

/// The run dies in the window; only its journal knows which folder was covered.
#[test]
fn after_sigkill_the_recovery_follows_no_link() {
    let home = Home::start();
    let usr = home.space.at("usr");
    let run = home.space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    home.space.rig.await_quiet();
    home.bob(&format!("mv app app.old; ln -s {usr} app"));
    home.space.run(&["thaw"]).exits(41).says("is a link to");
    home.space.run(&["snapshot"]).exits(41).says("is a link to");
    home.is_nowhere();
    home.bob("rm app; mv app.old app");
    home.comes_back_without_asking_ec2();
}

/// `home/lib` on a filesystem of its own: on an ext4 that is not in the set, or on an overlay over that. The
/// folder `home`.
fn on_another(overlay: bool) -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Ext4), ("c", Fs::Ext4)]);
    let (a, b, device) = (space.at("a"), space.at("b"), space.rig.device("a"));
    space.sh(&format!("umount {a}; mkdir -p {b}/low {b}/up/home {b}/work; chown -R 65534:65534 {b}/up"));
    let mut home = format!("{b}/up/home");
    if overlay {
        space.sh(&format!("mount -t overlay -o lowerdir={b}/low,upperdir={b}/up,workdir={b}/work over {a}"));
        home = format!("{a}/home");
    }
    space.sh(&format!("cd {home}; {BOB} \"mkdir lib\"; mount {device} lib"));
    space.rig.configure(&format!(
        "[defaults]\nexclude_mounts = [\"{b}\"]\nmethods = {{ \"{home}/lib\" = \"unmount\" }}\n"
    ));
    (space, home)
}

/// The numbers of `lib` before and after bob has put another folder there.
fn made_anew(space: &Namespace, home: &str) -> (u64, u64) {
    let number = || std::fs::metadata(format!("/proc/{}/root{home}/lib", space.pid())).unwrap().ino();
    let was = number();
    space.sh(&format!("cd {home}; {BOB} \"rmdir lib; mkdir lib\""));
    (was, number())
}

/// ext4 gives the number of a deleted folder to the next one that is made. Its handle is another.
#[test]
fn a_folder_with_the_number_of_the_former_one_is_not_that_one() {
    let (space, home) = on_another(false);
    let run = space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    space.rig.await_quiet();
    let (was, is) = made_anew(&space, &home);
    assert_eq!(was, is, "ext4 has not given the number again: this test proves nothing");
    space.run(&["thaw"]).exits(41).says("another folder is there now");
    assert!(!space.table().iter().any(|l| l.contains(&format!("{home}/lib"))), "{:#?}", space.table());
}

/// An overlay has no handles. So a run keeps the folder open, and its number is given to no other.
#[test]
fn the_number_of_the_folder_is_not_given_to_another_while_the_run_lives() {
    let (space, home) = on_another(true);
    let run = space.in_the_window(&["snapshot"]);
    let (was, is) = made_anew(&space, &home);
    let ended = run.end();
    assert_ne!(was, is);
    ended.exits(41).says("another folder is there now");
    let there = format!("{home}/lib");
    assert!(!space.table().iter().any(|l| l.contains(&there)), "{:#?}", space.table());
    // What is mounted by hand is left alone.
    space.sh(&format!("mount {} {there}", space.rig.device("a")));
    space.run(&["thaw"]).exits(0);
    space.sh(&format!("umount {there}; umount {}", space.at("a")));
}

/// Bob moves the folder between the look at its path and the mount: that goes along with the folder, and is
/// taken away again.
#[test]
fn a_folder_that_moves_at_the_moment_of_the_mount_is_noticed() {
    let home = Home::start();
    let usr = home.space.at("usr");
    let run = home.space.held_before(("move_mount", nix::libc::SYS_move_mount), 1, &["snapshot"]);
    home.bob(&format!("mv app app.old; ln -s {usr} app"));
    let moved = format!(
        "moved its mount point to {} in that moment; by hand, once",
        home.space.at("home/app.old/lib")
    );
    run.go_on().says(&moved);
    home.is_nowhere();
    home.space.run(&["thaw"]).exits(41).says("is a link to");
    home.bob("rm app; mv app.old app");
    home.comes_back();
}

/// The same at the unmount: what root has mounted elsewhere stays.
#[test]
fn a_link_at_the_moment_of_the_unmount_is_not_followed() {
    let home = Home::start();
    let (usr, lib) = (home.space.at("usr"), home.space.at("usr/lib"));
    let run = home.space.held_before(("umount2", nix::libc::SYS_umount2), 1, &["snapshot"]);
    home.space.sh(&format!("mount -t tmpfs roots {lib}"));
    home.bob(&format!("mv app app.old; ln -s {usr} app"));
    let ended = run.go_on();
    home.space.sh(&format!("mountpoint -q {lib}; umount {lib}"));
    ended.says("is a link to");
    home.is_nowhere();
    home.bob("rm app; mv app.old app");
    home.comes_back();
}

/// The flush before the unmount opens the filesystem itself. Here its path leads to a FIFO whose open would be
/// seen by whoever waits for a reader.
#[test]
fn the_flush_opens_nothing_that_a_link_leads_to() {
    let home = Home::start();
    home.space.with_systemctl(&[("db.service", "active")]);
    let lib = home.lib();
    home.space.rig.configure(&format!(
        "[defaults]\nstop_units = [\"db.service\"]\nmethods = {{ \"{lib}\" = \"unmount\" }}\n"
    ));
    // After the mounts were looked at, and before the flush.
    let (folder, opened) = (home.space.at("home"), home.space.at("opened"));
    let swap = format!(
        "cd {folder}; mv app app.old; mkdir app; mkfifo pipe; ln -s {folder}/pipe app/lib\n\
         (sh -c \"exec 9>{folder}/pipe; touch {opened}\" >/dev/null 2>&1 &)\ncd {}\n",
        home.space.at("")
    );
    std::fs::write(home.space.path("stopping/db.service"), swap).unwrap();
    home.space.run(&["snapshot"]).exits(21).says(&format!("cannot flush {lib}: "));
    assert!(!home.space.path("opened").exists(), "root opened bob's FIFO");
    // Lets go of the shell that waits.
    home.space.sh(&format!("timeout 5 cat {folder}/pipe"));
    home.space.sh(&format!("cd {folder}; rm app/lib pipe; rmdir app; mv app.old app"));
    assert_eq!(home.space.table(), home.before);
}

/// A bind mount is a copy of the mount that was made a moment before, wherever that is by now.
#[test]
fn a_copy_is_made_from_the_mount_and_not_from_its_path() {
    let home = Home::start();
    let (usr, bind) = (home.space.at("usr"), home.space.at("bind"));
    home.space.sh(&format!(
        "mkdir {bind} {0}/sub {usr}/lib/sub; echo bob > {0}/sub/owner; echo root > {usr}/lib/sub/owner; \
         mount --bind {0}/sub {bind}",
        home.lib()
    ));
    // The thread that mounts has made the first mount, and sets its propagation.
    let call = ("mount_setattr", nix::libc::SYS_mount_setattr);
    let run = home.space.held_before(call, 2, &["snapshot"]);
    home.bob(&format!("mv app app.old; ln -s {usr} app"));
    let ended = run.go_on();
    let owner = home
        .space
        .sh(&format!("cat {bind}/owner; umount {bind}; umount {}", home.space.at("home/app.old/lib")));
    assert_eq!(owner, "bob\n", "{}", ended.err);
    home.is_nowhere();
}

/// The mounts below this folder, in this process's namespace, with all others.
fn mounts_below(folder: &Path) -> (Vec<mountinfo::MountLine>, Vec<u32>) {
    let lines = mountinfo::read(Path::new("/"), "self").unwrap().lines;
    let ids = lines.iter().filter(|l| l.mount_point.starts_with(folder)).map(|l| l.id).collect();
    (lines, ids)
}

/// Unmounts everything below this folder, all of one filesystem, and does `meanwhile` with its device mounted
/// elsewhere. What mounting again says, and how to mount again.
fn away(rig: &Rig, folder: &Path, meanwhile: &str) -> (remount::Remount, Recipe) {
    let device = rig.device("a");
    let number = DevNo::from_raw(std::fs::metadata(&device).unwrap().rdev());
    let (lines, ids) = mounts_below(folder);
    let devices = vec![Device { path: (&device).into(), dev: number }];
    let mut recipe = unmount::recipe(&lines, &[Wanted { ids, devices }]).unwrap();
    let held = covered::record(&lines, &mut recipe).unwrap();
    assert_eq!(held.len(), recipe.mounts.len());
    recipe.mounts.iter().rev().for_each(|m| unmount::unmount(&recipe, m).unwrap());
    meddle(rig, meanwhile);
    (remount::remount(&recipe), recipe)
}

fn meddle(rig: &Rig, what: &str) {
    let at = rig.path("meddle");
    std::fs::create_dir_all(&at).unwrap();
    let at = at.to_str().unwrap();
    let script = format!("mount {} {at}; cd {at}; {what}; cd /; umount {at}", rig.device("a"));
    sh("sh", &["-euc", &script]);
}

/// Only a folder of the filesystem is mounted: it has to be the same one. Calls the library, not the program:
/// while that has unmounted the filesystem, nobody else can mount it and change it.
#[test]
fn another_folder_of_the_filesystem_is_not_mounted() {
    for (meanwhile, says) in [
        ("mv sub old; mkdir sub", "/sub of the filesystem is another folder now"),
        ("mv sub old; ln -s /usr sub", "its folder /sub of the filesystem cannot be reached"),
    ] {
        let rig = Rig::formatted(&[("a", Fs::Ext4)], "");
        let (folder, device) = (rig.path("m"), rig.device("a"));
        let m = folder.to_str().unwrap();
        sh(
            "sh",
            &[
                "-euc",
                &format!(
                    "mkdir -p {m}/a {m}/b; mount {device} {m}/a; mkdir {m}/a/sub; mount --bind {m}/a/sub {m}/b"
                ),
            ],
        );
        let (said, recipe) = away(&rig, &folder, meanwhile);
        let (failed, mounted) = (said.failed, said.mounted);
        assert_eq!((failed.len(), mounted), (1, vec![folder.join("a")]), "{failed:?}");
        assert!(failed[0].to_string().contains(says), "{}", failed[0]);
        sh("umount", &[&format!("{m}/a")]);
        meddle(&rig, "rm -d sub; mv old sub");
        let said = remount::remount(&recipe);
        assert_eq!((said.failed, said.mounted.len()), (vec![], 2));
        sh("umount", &[&format!("{m}/b"), &format!("{m}/a")]);
    }
}

#[test]
fn another_subvolume_with_the_name_is_not_mounted() {
    let rig = Rig::formatted(&[("a", Fs::Btrfs)], "");
    let (folder, device) = (rig.path("m"), rig.device("a"));
    let m = folder.to_str().unwrap();
    meddle(&rig, "btrfs -q subvolume create one; btrfs -q subvolume create two");
    sh("sh", &["-euc", &format!("mkdir {m}; mount -o subvol=one {device} {m}")]);
    let (said, recipe) = away(&rig, &folder, "mv one x; mv two one");
    assert_eq!((said.failed.len(), said.mounted.len()), (1, 0));
    assert!(said.failed[0].to_string().contains("/one was subvolume 256"), "{}", said.failed[0]);
    meddle(&rig, "mv one two; mv x one");
    let said = remount::remount(&recipe);
    assert_eq!((said.failed, said.differs), (vec![], vec![]));
    sh("umount", &[m]);
}

/// The folder that the inner one covers goes away with the outer one, whose numbers are others afterwards.
#[test]
fn a_folder_on_what_is_unmounted_too_is_known_again() {
    for outer in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
        let space = Namespace::start(&[("a", outer), ("b", Fs::Ext4)]);
        let (a, b) = (space.at("a"), space.rig.device("b"));
        space
            .sh(&format!("umount {}; mkdir {a}/in; chown 65534 {a} {a}/in; mount {b} {a}/in", space.at("b")));
        let methods = format!("[defaults.methods]\n\"{a}\" = \"unmount\"\n\"{a}/in\" = \"unmount\"\n");
        space.rig.configure(&methods);
        let before = space.table();
        space.run(&["snapshot"]).exits(0);
        assert_eq!(space.table(), before);
        // A recovery finds the outer one mounted, and bob has been there.
        let run = space.in_the_window(&["snapshot"]);
        run.signal(Signal::SIGKILL);
        run.end();
        space.rig.await_quiet();
        space.sh(&format!("mount {} {a}; cd {a}; {BOB} \"mv in old; mkdir in\"", space.rig.device("a")));
        let thaw = space.run(&["thaw"]);
        thaw.exits(41).says("another folder is there now").says(&format!("{a}/old now: move it back"));
        assert_eq!(space.table().len(), 1, "{outer:?}");
        space.sh(&format!("cd {a}; rmdir in; mv old in"));
        space.run(&["thaw"]).exits(0);
        assert_eq!(space.table(), before);
        space.sh(&format!("umount {a}/in"));
    }
}

/// A journal of a build that did not record the folder: only a path that root alone can change is gone by.
#[test]
fn a_journal_without_the_folder_goes_by_roots_paths_alone() {
    let home = Home::start();
    let run = home.space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    home.space.rig.await_quiet();
    let folder = home.space.path("run/runs");
    let journal = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "json"))
        .unwrap();
    let mut said: Value = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
    let mounts = said["unmounted"]["recipe"]["mounts"].as_array_mut().unwrap();
    assert!(mounts[0]["covered"]["folder"]["inode"].is_u64(), "{mounts:#?}");
    mounts[0].as_object_mut().unwrap().remove("covered");
    std::fs::write(&journal, serde_json::to_vec(&said).unwrap()).unwrap();
    home.space.run(&["thaw"]).exits(41).says("it is not known which folder it was mounted on, and");
    let usr = home.space.at("usr");
    home.bob(&format!("mv app app.old; ln -s {usr} app"));
    home.space.run(&["thaw"]).exits(41).says("is a link to");
    home.is_nowhere();
    home.bob("rm app; mv app.old app");
    home.space.sh(&format!("chown root:root {0} {0}/app {0}/app/lib", home.space.at("home")));
    home.comes_back_without_asking_ec2();
}
