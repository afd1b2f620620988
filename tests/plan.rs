//! Facts and settings become plans: the text a person reads, for each host.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test says no")]

mod common;

use common::fixture::facts;
use common::{plan_with, vol};
use insta::assert_snapshot;
use stillpoint::config::settings::UnmountedVolumes;
use stillpoint::plan::Plan;
use stillpoint::report;

const WIDTH: usize = 80;

fn human(plan: &Plan) -> String {
    let text = report::plan::human(plan, WIDTH);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "wider than {WIDTH}: {line}");
        assert_eq!(line, line.trim_end());
    }
    text
}

#[test]
fn stacks() {
    assert_snapshot!(human(&plan_with(&facts("stacks"), |_| {}).unwrap()));
}

#[test]
fn stacks_one_mount() {
    let plan = plan_with(&facts("stacks"), |s| s.mounts = vec!["/mnt/loop".into()]).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn nitro() {
    assert_snapshot!(human(&plan_with(&facts("nitro"), |_| {}).unwrap()));
}

#[test]
fn nitro_with_unmounted_volumes() {
    let plan = plan_with(&facts("nitro"), |s| s.unmounted_volumes = UnmountedVolumes::Crash).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn nitro_without_boot_volume() {
    let plan = plan_with(&facts("nitro"), |s| s.boot_volume = false).unwrap();
    assert_snapshot!(human(&plan));
}

#[test]
fn xen() {
    assert_snapshot!(human(&plan_with(&facts("xen"), |_| {}).unwrap()));
}

#[test]
fn thin() {
    assert_snapshot!(human(&plan_with(&facts("thin"), |_| {}).unwrap()));
}

#[test]
fn thin_partial() {
    let plan = plan_with(&facts("thin"), |s| {
        s.exclude_volumes = vec![vol('2')];
        s.allow_partial = true;
    });
    assert_snapshot!(human(&plan.unwrap()));
}

#[test]
fn thin_json() {
    let facts = facts("thin");
    let plan = plan_with(&facts, |s| s.mounts = vec!["/".into()]).unwrap();
    // The fixture's root is another folder each time.
    let stat = plan.filesystems[0].witnesses[0].stat.to_str().unwrap().to_owned();
    let root = stat.split("/sys/").next().unwrap();
    assert_snapshot!(report::plan::json(&plan).unwrap().replace(root, "[root]"));
}
