//! IAM: a policy with conditions and resources decides, and says so as EC2 does.

use crate::support::ec2::{arg, call, code, completed};
use crate::support::{QUICK, Sim, needs_root, values};

/// The least policy of a tool that takes sets, labels them, and deletes only its own.
const LEAST: &str = r#"{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": ["ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeSnapshots"],
     "Resource": "*"},
    {"Effect": "Allow", "Action": ["ec2:CreateSnapshots", "ec2:CreateSnapshot"],
     "Resource": ["arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:*:*:volume/*"]},
    {"Effect": "Allow", "Action": ["ec2:CreateSnapshots", "ec2:CreateSnapshot"],
     "Resource": "arn:aws:ec2:*::snapshot/*",
     "Condition": {"StringLike": {"aws:RequestTag/stillpoint:run": "*"}}},
    {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*::snapshot/*",
     "Condition": {"StringEquals": {"ec2:CreateAction": ["CreateSnapshots", "CreateSnapshot"]}}},
    {"Effect": "Allow", "Action": ["ec2:CreateTags", "ec2:DeleteSnapshot", "ec2:LockSnapshot"],
     "Resource": "arn:aws:ec2:*::snapshot/*",
     "Condition": {"Null": {"aws:ResourceTag/stillpoint:run": "false"}}},
    {"Effect": "Deny", "Action": "ec2:LockSnapshot", "Resource": "*",
     "Condition": {"StringEquals": {"ec2:Region": "us-east-1"}}}
  ]
}"#;

fn message(xml: &str) -> String {
    values(xml, "Message").pop().unwrap_or_default()
}

#[test]
fn a_policy_lets_a_tool_touch_only_what_is_its_own() {
    needs_root();
    let scenario = format!("{QUICK}[iam]\npolicy = '''{LEAST}'''\n");
    let sim = Sim::start(&scenario, &["name=a,size=16MiB,tag:Name=a"]);
    let instance = sim.ready["instance_id"].as_str().expect("an id").to_owned();
    let target = arg("InstanceSpecification.InstanceId", &instance);
    let run = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=stillpoint:run",
        "TagSpecification.1.Tag.1.Value=1",
    ];
    let made = call(&sim, &[&["CreateSnapshots", &target][..], &run].concat());
    let own = values(&made, "snapshotId").pop().unwrap_or_else(|| panic!("{made}"));
    completed(&sim, &own);

    // Without its tag it may not create; the rest of the message is what clients read the action from.
    let refused = call(&sim, &["CreateSnapshots", &target]);
    assert_eq!(code(&refused), "UnauthorizedOperation");
    let expected = "is not authorized to perform: ec2:CreateSnapshots on resource: \
                    arn:aws:ec2:us-east-1::snapshot/* because no identity-based policy allows the \
                    ec2:CreateSnapshots action";
    assert!(message(&refused).ends_with(expected), "{refused}");
    assert_eq!(code(&call(&sim, &["CreateSnapshots", &target, "DryRun=true"])), "UnauthorizedOperation");

    // Somebody else's, made with the root user's key.
    let volume = arg("VolumeId", &sim.id("a"));
    assert_eq!(code(&call(&sim, &["CreateSnapshot", &volume])), "UnauthorizedOperation");
    let foreign = values(&call(&sim, &["--admin", "CreateSnapshot", &volume]), "snapshotId").remove(0);
    completed(&sim, &foreign);
    for (action, rest) in [("DeleteSnapshot", "DryRun=true"), ("CreateTags", "Tag.1.Key=x")] {
        let name = if action == "CreateTags" { "ResourceId.1" } else { "SnapshotId" };
        let denied = call(&sim, &[action, &arg(name, &foreign), rest]);
        assert_eq!(code(&denied), "UnauthorizedOperation", "{action}");
        assert!(message(&denied).contains(&format!("snapshot/{foreign}")), "{denied}");
        assert!(matches!(
            code(&call(&sim, &[action, &arg(name, &own), rest])).as_str(),
            "" | "DryRunOperation"
        ));
    }
    let lock =
        call(&sim, &["LockSnapshot", &arg("SnapshotId", &own), "LockMode=governance", "LockDuration=1"]);
    assert!(message(&lock).ends_with("with an explicit deny in an identity-based policy"), "{lock}");
    // The role is held to it too: exec has its keys from IMDS alone. EBS's lists are another service's.
    let blocks =
        crate::support::curl::Client::new(&sim).rest("ebs", "GET", &format!("/snapshots/{own}/blocks"), "");
    assert_eq!((blocks.status, blocks.header("x-amzn-errortype")), (403, Some("AccessDeniedException")));

    // Another policy, none, and the scenario's again.
    let set = |body: &str| sim.post("iam", body);
    assert_eq!(
        set(
            r#"{"policy": {"Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}}"#
        ),
        200
    );
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &own)])), "UnauthorizedOperation");
    assert_eq!(
        set(r#"{"policy": {"Statement": []}}"#),
        400,
        "one that says nothing is refused, and changes nothing"
    );
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &own)])), "UnauthorizedOperation");
    assert_eq!(set(r#"{"policy": null}"#), 200);
    assert_eq!(code(&call(&sim, &["DeleteSnapshot", &arg("SnapshotId", &foreign)])), "");
    sim.ok(&["reset"]);
    assert_eq!(code(&call(&sim, &["CreateSnapshot", &volume])), "UnauthorizedOperation");
}

/// The README's policy lets a run do what it does, and nothing to anybody else's snapshots.
#[test]
fn the_least_policy_of_the_readme_is_enough_for_a_run() {
    needs_root();
    let readme = include_str!("../../../README.md");
    let policy =
        readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
    let sim =
        Sim::start(&format!("{QUICK}[iam]\npolicy = '''{policy}'''\n"), &["name=a,size=16MiB,tag:Name=a"]);
    let instance = sim.ready["instance_id"].as_str().expect("an id").to_owned();
    let target = arg("InstanceSpecification.InstanceId", &instance);
    let of_instance = arg("TagSpecification.1.Tag.2.Value", &instance);
    let tags = [
        "TagSpecification.1.ResourceType=snapshot",
        "TagSpecification.1.Tag.1.Key=stillpoint:run",
        "TagSpecification.1.Tag.1.Value=1",
        "TagSpecification.1.Tag.2.Key=stillpoint:instance",
        &of_instance,
    ];
    for describe in ["DescribeInstances", "DescribeVolumes", "DescribeSnapshots"] {
        assert_eq!(code(&call(&sim, &[describe])), "", "{describe}");
    }
    let volume = arg("VolumeId", &sim.id("a"));
    let mut made = Vec::new();
    for (action, what) in [("CreateSnapshots", &target), ("CreateSnapshot", &volume)] {
        let dry = call(&sim, &[&[action, what, "DryRun=true"][..], &tags].concat());
        assert_eq!(code(&dry), "DryRunOperation", "{dry}");
        made.extend(values(&call(&sim, &[&[action, what][..], &tags].concat()), "snapshotId"));
    }
    assert_eq!(made.len(), 2);
    for id in &made {
        let label = call(&sim, &["CreateTags", &arg("ResourceId.1", id), "Tag.1.Key=stillpoint:consistency"]);
        assert_eq!(code(&label), "", "{label}");
    }
    let foreign = values(&call(&sim, &["--admin", "CreateSnapshot", &volume]), "snapshotId").remove(0);
    for (action, name, rest) in [
        ("CreateTags", "ResourceId.1", "Tag.1.Key=stillpoint:instance"),
        ("DeleteSnapshot", "SnapshotId", "DryRun=true"),
    ] {
        let denied = call(&sim, &[action, &arg(name, &foreign), rest]);
        assert_eq!(code(&denied), "UnauthorizedOperation", "{denied}");
    }
}

#[test]
fn a_policy_that_is_not_understood_keeps_the_server_from_starting() {
    needs_root();
    let temp = tempfile::TempDir::new().expect("a temporary folder");
    let file = temp.path().join("scenario.toml");
    std::fs::write(&file, "[iam]\npolicy = 'policy.json'\n").expect("the scenario is written");
    let file = file.to_str().expect("UTF-8");
    let start = || {
        let arguments = ["--scenario", file, "--volume", "name=a,size=16MiB"];
        let (line, child) = crate::support::serve(&temp.path().join("sim"), &arguments);
        assert!(line.is_empty(), "it has started");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (exit, said) = start();
    assert!(exit == Some(78) && said.contains("policy.json"), "{exit:?} {said}");
    let policy = r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
        "Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}}"#;
    std::fs::write(temp.path().join("policy.json"), policy).expect("the policy is written");
    let (exit, said) = start();
    assert!(exit == Some(78) && said.contains("aws:SourceVpc"), "{exit:?} {said}");
}
