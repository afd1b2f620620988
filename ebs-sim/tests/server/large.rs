//! An account with very many snapshots.

use crate::support::ec2::{arg, completed};
use crate::support::{QUICK, Sim, needs_root, values};

/// A call; an argument that is empty is none.
fn call(sim: &Sim, arguments: &[&str]) -> String {
    let given: Vec<&str> = arguments.iter().copied().filter(|argument| !argument.is_empty()).collect();
    crate::support::ec2::call(sim, &given)
}

#[test]
fn an_account_is_filled_with_sets_like_one_that_is_there() {
    needs_root();
    let sim = Sim::start(
        &format!("{QUICK}[[account]]\nid = '111122223333'\n"),
        &["name=a,size=16MiB", "name=b,size=16MiB"],
    );
    let instance = arg("InstanceSpecification.InstanceId", sim.ready["instance_id"].as_str().expect("an id"));
    let tags = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=run",
        "TagSpecification.1.Tag.1.Value=0a1b2c3d",
        "TagSpecification.1.Tag.2.Key=line",
        "TagSpecification.1.Tag.2.Value=run 0a1b2c3d of 2",
    ];
    let made = call(&sim, &[&["CreateSnapshots", &instance, "Description=set 0a1b2c3d"][..], &tags].concat());
    let like = values(&made, "snapshotId");
    for id in &like {
        completed(&sim, id);
    }
    sim.ok(&[
        "fill",
        "--sets",
        "1000",
        "--like",
        &like.join(","),
        "--vary",
        "run",
        "--every",
        "30m",
        "--tag",
        "n={set}.{member}",
    ]);
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = call(
            &sim,
            &[
                "DescribeSnapshots",
                "Owner.1=self",
                "MaxResults=1000",
                "Filter.1.Name=tag-key",
                "Filter.1.Value.1=n",
                &token,
            ],
        );
        seen.extend(values(&page, "snapshotId"));
        pages += 1;
        match values(&page, "nextToken").pop() {
            Some(next) => token = arg("NextToken", &next),
            None => break,
        }
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((all, seen.len(), pages), (2000, 2000, 2));

    let one = call(
        &sim,
        &["DescribeSnapshots", "Filter.1.Name=tag:n", "Filter.1.Value.1=17.0", "Filter.1.Value.2=17.1"],
    );
    assert_eq!(values(&one, "snapshotId").len(), 2);
    assert_eq!(values(&one, "volumeId"), [sim.id("a"), sim.id("b")]);
    let texts = values(&one, "value");
    let run = texts.iter().find(|text| text.len() == 8 && !text.contains('.')).expect("the run").clone();
    assert_ne!(run, "0a1b2c3d");
    assert_eq!(values(&one, "description"), [format!("set {run}"), format!("set {run}")]);
    assert_eq!(texts.iter().filter(|text| **text == format!("run {run} of 2")).count(), 2, "{texts:?}");
    let starts = values(&one, "startTime");
    assert_eq!(starts[0], starts[1], "a set has one start time");
    let same_run =
        call(&sim, &["DescribeSnapshots", "Filter.1.Name=tag:run", &arg("Filter.1.Value.1", &run)]);
    assert_eq!(values(&same_run, "snapshotId").len(), 2, "no other set has it");

    // Elsewhere, of somebody else, without a pattern.
    sim.ok(&[
        "fill",
        "--sets",
        "3",
        "--members",
        "2",
        "--region",
        "us-west-2",
        "--account",
        "111122223333",
        "--tag",
        "k=v",
    ]);
    let there = call(
        &sim,
        &["--account", "111122223333", "--region", "us-west-2", "DescribeSnapshots", "Owner.1=self"],
    );
    assert_eq!(values(&there, "snapshotId").len(), 6);
    let mine = call(&sim, &["--region", "us-west-2", "DescribeSnapshots"]);
    assert_eq!(values(&mine, "snapshotId").len(), 0);
    for bad in [
        &["--sets", "1", "--members", "129"][..],
        &["--sets", "1", "--like", "snap-0123456789abcdef0"],
        &["--sets", "60000", "--members", "2"],
        &["--sets", "1", "--members", "1", "--account", "999999999999"],
    ] {
        assert!(!sim.command(&[&["fill"], bad].concat()).status.success(), "{bad:?}");
    }
}

/// A page that was being read when something was deleted goes on behind it.
#[test]
fn a_list_goes_on_when_what_its_token_names_is_deleted() {
    needs_root();
    let sim = Sim::start(QUICK, &["name=a,size=16MiB"]);
    sim.ok(&["fill", "--sets", "12", "--members", "1"]);
    let page = |token: &str| call(&sim, &["DescribeSnapshots", "MaxResults=5", token]);
    let first = page("");
    let all = values(&call(&sim, &["DescribeSnapshots"]), "snapshotId");
    call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &all[5])]);
    let token = arg("NextToken", &values(&first, "nextToken").remove(0));
    assert_eq!(values(&page(&token), "snapshotId"), all[6..11]);
}
