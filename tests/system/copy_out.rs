//! Files that are copied out of a set: as they were, and nothing else stays.

use rig::Fs;
use rig::namespace::Namespace;
use rig::program::Ended;

/// Two filesystems, one in the other, of which a set is taken before everything in them is lost.
fn lost() -> (Namespace, String) {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure("");
    space.mount("a", "defaults");
    let a = space.at("a");
    space.sh(&format!(
        "mkdir -p {a}/app/db; mount {} {a}/app/db; echo data >{a}/app/db/f; echo log >{a}/app/log; chmod 640 {a}/app/log; \
         chown 1234:4321 {a}/app/log; touch -d 2020-01-02 {a}/app/log; ln -s /etc/passwd {a}/app/link; \
         ln {a}/app/log {a}/app/same; ln -s app {a}/to; sync",
        space.rig.device("b")
    ));
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    space.sh(&format!("rm -rf {a}/app/db/f {a}/app/log {a}/app/link {a}/app/same; sync"));
    (space, set)
}

fn restore(space: &Namespace, set: &str, more: &[&str]) -> Ended {
    space.run(&[&["restore", set], more].concat())
}

fn nothing_is_left(space: &Namespace) {
    let listed = space.run(&["restore", "--list", "-o", "json"]).exits(0).record();
    assert_eq!(listed["restores"].as_array().unwrap().len(), 0);
    let records = space.path("state").join("restores");
    assert_eq!(std::fs::read_dir(records).map_or(0, Iterator::count), 0, "records are left");
    assert!(!space.sh("cat /proc/self/mounts").contains(".files"));
}

#[test]
fn files_come_back_as_they_were_and_the_volumes_are_gone() {
    let (space, set) = lost();
    let (a, into) = (space.at("a"), space.at("back"));
    let (folder, file) = (format!("{a}/app"), format!("{a}/to"));
    let wanted = ["--copy-out", &folder, "--copy-out", &file, "--into", &into];
    restore(&space, &set, &[&wanted[..], &["-n"]].concat()).exits(0).says("/app/db (xfs) at");
    assert!(space.rig.calls("CreateVolume").is_empty());
    let done = restore(&space, &set, &wanted);
    assert_eq!(done.exits(0).out, format!("{into}/app\n{into}/to\n"));
    assert_eq!(space.sh(&format!("cat {into}/app/db/f {into}/app/log")), "data\nlog\n");
    let looks =
        space.sh(&format!("stat -c '%a %u %g %y %h' {into}/app/log; readlink {into}/app/link {into}/to"));
    assert!(looks.starts_with("640 1234 4321 2020-01-02 00:00:00"), "{looks}");
    assert!(looks.ends_with(" 2\n/etc/passwd\napp\n"), "links are links: {looks}");
    nothing_is_left(&space);
    assert!(space.try_sh(&format!("cat {a}/app/log")).is_err(), "the original was written to");
}

#[test]
fn what_cannot_be_copied_is_said_and_nothing_stays() {
    let (space, set) = lost();
    let (a, into) = (space.at("a"), space.at("back"));
    let of = |path: &str| format!("{a}/{path}");
    let copy = |paths: &[String]| {
        let paths = paths.iter().flat_map(|p| ["--copy-out", p.as_str()]);
        restore(&space, &set, &paths.chain(["--into", &into]).collect::<Vec<_>>())
    };
    copy(&[of("x/log"), of("y/log")]).exits(78).says("the name log");
    copy(&["/nowhere/f".to_owned()]).exits(78).says("on no filesystem of the set");
    space.sh(&format!("mkdir {into}; touch {into}/x"));
    copy(&[of("app/log")]).exits(78).says("is not empty").says("--into");
    space.sh(&format!("rm {into}/x; chmod 755 {into}"));
    copy(&[of("app/log")]).exits(78).says("open to others").says("--into");
    space.sh(&format!("rm -r {into}"));
    restore(&space, &set, &["--copy-out", &of("app/log")]).exits(64);
    // It would take away what somebody works with.
    for way in ["--continue", "--undo"] {
        let other = "01890000-0000-7000-8000-000000000000";
        space
            .run(&["restore", way, other, "--copy-out", "/a/f", "--into", &into])
            .exits(64)
            .says("cannot be used");
    }
    assert!(space.rig.calls("CreateVolume").is_empty(), "refused before anything is made");

    copy(&[of("app/log"), of("app/none")]).exits(11).says("app/none in the set").says("gone again");
    nothing_is_left(&space);
    assert!(space.try_sh(&format!("ls {into}")).is_err(), "nothing is copied where something is missing");
    copy(&[of("to/log")]).exits(11).says("is a link in the set");
    nothing_is_left(&space);
    // The disk that is copied to is full.
    let copied = space.background(&format!(
        "mkdir {into}; mount -t tmpfs -o size=4k,mode=755 none {into} || exit; echo ready; exec cat"
    ));
    let small = format!("{into}/small");
    restore(&space, &set, &["--copy-out", &of("app"), "--into", &small])
        .exits(11)
        .says("is not copied whole");
    drop(copied);
    nothing_is_left(&space);
}

/// A folder that was mounted at another place, too, and attributes that the target cannot keep.
#[test]
fn what_was_bound_is_copied_or_refused_and_lost_attributes_are_said() {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.rig.configure("");
    space.mount("a", "defaults");
    let (a, bound, into) = (space.at("a"), space.at("bound"), space.at("back"));
    space.sh(&format!(
        "mkdir -p {a}/people/anna {a}/inner {bound}; echo text >{a}/people/anna/f; mount --bind {a}/people {bound}; \
         mount --bind {a}/people {a}/inner; sync"
    ));
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    restore(&space, &set, &["--copy-out", &format!("{bound}/anna"), "--into", &into]).exits(0);
    assert_eq!(space.sh(&format!("cat {into}/anna/f")), "text\n");
    nothing_is_left(&space);
    // It would be empty in the copy.
    restore(&space, &set, &["--copy-out", &format!("{a}/inner/anna"), "--into", &space.at("inner")]).exits(0);
    let all = space.at("all");
    restore(&space, &set, &["--copy-out", &bound, "--into", &all]).exits(0);
    assert_eq!(space.sh(&format!("cat {all}/bound/anna/f")), "text\n");
    nothing_is_left(&space);
}

/// Others must not get to what is mounted for a copy: they could put something else there under it.
#[test]
fn nobody_else_gets_to_what_is_copied_and_what_is_lost_is_said() {
    let (space, set) = lost();
    let (a, into) = (space.at("a"), space.at("back"));
    space.sh(&format!(
        "mkdir -p {a}/more; echo x >{a}/more/f; python3 -c 'import os; os.setxattr(\"{a}/more/f\", \"user.note\", b\"kept\")'; sync"
    ));
    drop(set);
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    let wanted = ["--copy-out", &format!("{a}/more"), "--into", &into];
    let closed = space.path("state").join("restores");
    restore(&space, &set, &[&wanted[..], &["-n"]].concat())
        .exits(0)
        .says(&format!("at {}/", closed.display()));
    restore(&space, &set, &wanted).exits(0);
    assert_eq!(space.sh(&format!("stat -c '%a %u' {}", closed.display())), "700 0\n");
    assert_eq!(
        space.sh(&format!("python3 -c 'import os; print(os.getxattr(\"{into}/more/f\", \"user.note\"))'")),
        "b'kept'\n"
    );
    // A filesystem without attributes.
    let without = space.background(&format!(
        "mkdir {into}2; mount -t ramfs -o mode=700 none {into}2 || exit; echo ready; exec cat"
    ));
    restore(&space, &set, &["--copy-out", &format!("{a}/more"), "--into", &format!("{into}2/small")])
        .exits(11)
        .says("is not copied whole");
    drop(without);
    nothing_is_left(&space);
}
