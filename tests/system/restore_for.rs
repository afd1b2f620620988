//! Restores that are for a time, and are taken back after it.

use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};
use serde_json::Value;

fn with_set() -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.rig.configure("");
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    (space, set)
}

fn restore(space: &Namespace, more: &[&str]) -> Ended {
    space.run(&[&["restore"], more].concat())
}

fn listed(space: &Namespace) -> Vec<Value> {
    let said = restore(space, &["--list", "-o", "json"]).exits(0).record();
    said["restores"].as_array().unwrap().clone()
}

fn clean_up(space: &Namespace, more: &[&str]) -> Ended {
    restore(space, &[&["--clean-up", "-o", "json"], more].concat())
}

#[test]
fn what_was_for_a_time_goes_after_it_and_nothing_else_does() {
    let (space, set) = with_set();
    let none = clean_up(&space, &[]).exits(0).record();
    assert_eq!(none["restores"].as_array().unwrap().len(), 0, "{none}");
    let zone = ["--no-attach", "--az", "us-east-1a"];
    restore(&space, &[&[set.as_str()], &zone[..]].concat()).exits(0);
    restore(&space, &[&[set.as_str(), "--for", "3h"], &zone[..]].concat()).exits(0).says("until 20");
    let (short, at) = (space.at("short"), space.at("a"));
    restore(&space, &[&set, "--to", &short, "--for", "1s"]).exits(0);
    let over = |of: &Value| {
        of["until"].as_str().is_some_and(|u| u.parse::<jiff::Timestamp>().unwrap() < jiff::Timestamp::now())
    };
    let id = await_some("its time is over", || {
        Some(listed(&space).iter().find(|of| over(of))?["id"].as_str().unwrap().to_owned())
    });
    let text = restore(&space, &["--list"]);
    assert!(text.exits(0).out.contains(", over since ") && text.out.contains(", until "), "{}", text.out);
    restore(&space, &["--clean-up", "-n"]).exits(0).says(&format!("the time of restore {id} is over"));
    assert_eq!(listed(&space).len(), 3, "a dry run changes nothing");

    // Somebody works in it: it stays, and is said.
    let user = space.background(&format!("cd {short}/{at}; echo ready; exec cat"));
    let stays = clean_up(&space, &[]);
    stays.exits(11).says("cannot be unmounted").says("fuser");
    assert_eq!((&stays.record()["restores"][0]["state"], listed(&space).len()), (&"there".into(), 3));
    drop(user);
    let gone = await_some("its user has let go", || {
        let gone = clean_up(&space, &[]);
        (gone.code == Some(0)).then(|| gone.record())
    });
    assert_eq!(
        (&gone["restores"][0]["state"], &gone["restores"][0]["id"]),
        (&"gone".into(), &id.as_str().into())
    );
    assert_eq!(listed(&space).len(), 2);
    assert!(!space.sh("cat /proc/self/mounts").contains(&short));
    restore(&space, &["--clean-up", &set]).exits(64);
    restore(&space, &[&set, "--in-place", "--for", "1h"]).exits(64);
}
