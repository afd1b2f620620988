//! CreateTags is denied for snapshots that exist: told before anything is touched, and refused once it is certain.

use rig::probe::assert_settled;
use rig::{Fs, Rig};

/// As a policy with the condition `ec2:CreateAction` does: tagging in the create call is allowed, later it is not.
fn deny_later_tags(rig: &Rig) {
    let denied = "You are not authorized to perform this operation. User: \
                  arn:aws:sts::123456789012:assumed-role/app/i-1 is not authorized to perform: ec2:CreateTags on \
                  resource: arn:aws:ec2:us-east-1::snapshot/snap-1 because no identity-based policy allows the \
                  ec2:CreateTags action";
    let fault = ["faults", "add", "--action", "CreateTags", "--dry-run", "any", "--times", "1000"];
    let error =
        ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403", "--message", denied];
    rig.sim(&[&fault[..], &error[..]].concat());
}

#[test]
fn a_label_that_cannot_be_given_is_told_before_and_refused_once_it_is_certain() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let log = rig.path("hook-ran");
    rig.configure(&format!(
        "[[hook]]\nname = 'db'\npre = ['/usr/bin/touch', '{}']\ntimeout = '5s'\n",
        log.display()
    ));
    deny_later_tags(&rig);
    // Nothing of stillpoint's is there yet: a policy may be for its own snapshots.
    let first = rig.run(&["snapshot"]);
    first
        .exits(11)
        .says("no set would get its label")
        .says("ec2:CreateTags is missing in the policies of app");
    let told = first.err.find("no set would get its label").unwrap();
    assert!(told < first.err.find("cannot tag the snapshots").unwrap(), "{}", first.err);
    rig.await_quiet();
    std::fs::remove_file(&log).unwrap();
    let second = rig.run(&["snapshot"]);
    second.exits(77).says("ec2:CreateTags is missing in the policies of app");
    assert!(!log.exists(), "a hook ran");
    assert_eq!(rig.creates().len(), 1);
    rig.run(&["snapshot", "--on-degraded", "keep"]).exits(11).says("no set would get its label");
    assert_settled(&rig);
}
