use super::*;

fn facts(pairs: &[(&str, &[&str])]) -> Facts {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    pairs.iter().map(|(key, values)| ((*key).to_owned(), owned(values))).collect()
}

/// One statement that allows one action under a condition.
fn on(condition: &str) -> Result<Policy, String> {
    Policy::parse(&format!(
        r#"{{"Version": "2012-10-17", "Statement": {{"Effect": "Allow", "Action": "ec2:DeleteSnapshot",
            "Resource": "*", "Condition": {condition}}}}}"#
    ))
}

fn holds(condition: &str, pairs: &[(&str, &[&str])]) -> bool {
    let policy = on(condition).expect("a good condition");
    policy.decide("ec2:DeleteSnapshot", SNAPSHOT, &facts(pairs)) == Decision::Allowed
}

const SNAPSHOT: &str = "arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0";

#[test]
fn a_denial_wins_and_what_nobody_allows_is_not_allowed() {
    let policy = Policy::parse(
        r#"{"Version": "2012-10-17", "Id": "x", "Statement": [
            {"Sid": "a", "Effect": "Allow", "Action": ["EC2:create*", "ec2:Describe?ags"], "Resource": "*"},
            {"Effect": "Deny", "NotAction": "ec2:*", "Resource": "*"},
            {"Effect": "Deny", "Action": "ec2:CreateVolume", "NotResource": "arn:aws:ec2:*:*:volume/*"}]}"#,
    )
    .expect("a good policy");
    let none = Facts::new();
    for (action, resource, expected) in [
        ("ec2:CreateSnapshots", SNAPSHOT, Decision::Allowed),
        ("ec2:DescribeTags", "*", Decision::Allowed),
        ("ec2:DescribeFlags", "*", Decision::NotAllowed),
        ("ec2:DeleteSnapshot", SNAPSHOT, Decision::NotAllowed),
        ("ebs:ListSnapshotBlocks", SNAPSHOT, Decision::Denied),
        ("ec2:CreateVolume", SNAPSHOT, Decision::Denied),
        ("ec2:CreateVolume", "arn:aws:ec2:us-east-1:123456789012:volume/*", Decision::Allowed),
    ] {
        assert_eq!(policy.decide(action, resource, &none), expected, "{action} on {resource}");
    }
}

#[test]
fn a_wildcard_stays_between_two_colons() {
    let snapshot = "arn:aws:ec2:us-east-1::snapshot/snap-1";
    for (pattern, expected) in [
        ("*", true),
        ("arn:aws:ec2:*::snapshot/*", true),
        ("arn:aws:ec2:us-east-?::snapshot/snap-1", true),
        ("arn:*:ec2:*:*:*/*", true),
        ("arn:aws:ec2:us-east-1", true),
        ("arn:aws:*/snap-1", false),
        ("arn:aws:ec2:*:snapshot/*", false),
        ("arn:aws:ec2:us-east-1:123456789012:snapshot/*", false),
        ("arn:aws-cn:ec2:*::snapshot/*", false),
        ("arn:aws:ec2:us-west-2::snapshot/*", false),
    ] {
        assert_eq!(matches_arn(pattern, snapshot), expected, "{pattern}");
    }
    assert!(matches_arn("*", "*") && !matches_arn("arn:aws:ec2:*:*:*", "*"), "an action without a resource");
}

#[test]
fn the_operators_are_iams() {
    let tagged: &[(&str, &[&str])] = &[("aws:resourcetag/stillpoint:run", &["abc"])];
    for (condition, expected) in [
        (r#"{"StringEquals": {"aws:ResourceTag/stillpoint:run": ["x", "abc"]}}"#, true),
        (r#"{"StringEquals": {"AWS:resourcetag/Stillpoint:Run": "abc"}}"#, true),
        (r#"{"StringEquals": {"aws:ResourceTag/stillpoint:run": "a*"}}"#, false),
        (r#"{"StringEqualsIgnoreCase": {"aws:ResourceTag/stillpoint:run": "ABC"}}"#, true),
        (r#"{"StringLike": {"aws:ResourceTag/stillpoint:run": "?b*"}}"#, true),
        (r#"{"StringLike": {"aws:ResourceTag/stillpoint:run": "a\\*"}}"#, false),
        (r#"{"StringNotEquals": {"aws:ResourceTag/stillpoint:run": ["x", "abc"]}}"#, false),
        (r#"{"StringNotLike": {"aws:ResourceTag/stillpoint:run": "x*"}}"#, true),
        (r#"{"Null": {"aws:ResourceTag/stillpoint:run": "false"}}"#, true),
        (r#"{"Null": {"aws:ResourceTag/stillpoint:run": true}}"#, false),
        // Absent keys.
        (r#"{"StringEquals": {"aws:ResourceTag/other": "abc"}}"#, false),
        (r#"{"StringEqualsIfExists": {"aws:ResourceTag/other": "abc"}}"#, true),
        (r#"{"StringEqualsIfExists": {"aws:ResourceTag/stillpoint:run": "x"}}"#, false),
        (r#"{"StringNotEquals": {"aws:ResourceTag/other": "abc"}}"#, true),
        (r#"{"Null": {"aws:ResourceTag/other": "true"}}"#, true),
        (r#"{"Bool": {"ec2:Encrypted": "true"}}"#, false),
        // All operators and all keys have to hold.
        (
            r#"{"Null": {"aws:ResourceTag/other": "true"}, "StringLike": {"aws:ResourceTag/stillpoint:run": "x"}}"#,
            false,
        ),
    ] {
        assert_eq!(holds(condition, tagged), expected, "{condition}");
    }
}

#[test]
fn several_values_are_all_or_any() {
    let with = |keys: &[&str], condition: &str| holds(condition, &[("aws:tagkeys", keys)]);
    let all = r#"{"ForAllValues:StringLike": {"aws:TagKeys": ["stillpoint:*", "Name"]}}"#;
    let any = r#"{"ForAnyValue:StringEquals": {"aws:TagKeys": "Name"}}"#;
    assert!(with(&["Name", "stillpoint:run"], all) && !with(&["Name", "other"], all));
    assert!(with(&["Name", "other"], any) && !with(&["other"], any));
    assert!(holds(all, &[]) && !holds(any, &[]), "of none, all match and none does");
}

#[test]
fn numbers_dates_and_truth_are_compared_as_such() {
    let of: &[(&str, &[&str])] = &[
        ("ec2:volumesize", &["100"]),
        ("ec2:snapshottime", &["2026-03-01T00:00:00.000Z"]),
        ("ec2:encrypted", &["true"]),
    ];
    for (condition, expected) in [
        (r#"{"NumericLessThan": {"ec2:VolumeSize": 20}}"#, false),
        (r#"{"NumericGreaterThanEquals": {"ec2:VolumeSize": "100"}}"#, true),
        (r#"{"NumericNotEquals": {"ec2:VolumeSize": "99"}}"#, true),
        (r#"{"DateLessThan": {"ec2:SnapshotTime": "2026-03-01T00:00:01Z"}}"#, true),
        (r#"{"DateGreaterThan": {"ec2:SnapshotTime": "2026-03-01T00:00:01Z"}}"#, false),
        (r#"{"Bool": {"ec2:Encrypted": true}}"#, true),
        (r#"{"Bool": {"ec2:Encrypted": "false"}}"#, false),
    ] {
        assert_eq!(holds(condition, of), expected, "{condition}");
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    let condition = |text: &str| on(text).err().unwrap_or_default();
    assert!(condition(r#"{"StringSounds": {"ec2:Region": "x"}}"#).contains("StringSounds"));
    assert!(condition(r#"{"StringEquals": {"ec2:Colour": "red"}}"#).contains("ec2:Colour"));
    assert!(condition(r#"{"StringEquals": {"aws:SourceIp": "x"}}"#).contains("aws:SourceIp"));
    assert!(condition(r#"{"StringEquals": {"aws:ResourceTag/": "x"}}"#).contains("aws:ResourceTag/"));
    assert!(condition(r#"{"ForSomeValues:StringEquals": {"aws:TagKeys": "x"}}"#).contains("ForSomeValues"));
    assert!(condition(r#"{"StringEquals": {"aws:TagKeys": "x"}}"#).contains("ForAllValues"));
    assert!(condition(r#"{"ForAllValues:StringEquals": {"ec2:Region": "x"}}"#).contains("ForAllValues"));
    assert!(condition(r#"{"StringEquals": {"ec2:Region": "${aws:x}"}}"#).contains("variables"));
    assert!(condition(r#"{"NumericLessThan": {"ec2:VolumeSize": "big"}}"#).contains("big"));
    assert!(condition(r#"{"Null": {"ec2:Region": "maybe"}}"#).contains("Null"));
    assert!(condition(r#"{"StringEquals": {"ec2:Region": []}}"#).contains("empty"));
    for bad in [
        "no JSON",
        "[]",
        "{}",
        r#"{"Statement": []}"#,
        r#"{"Version": "2008-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Permit", "Action": "*", "Resource": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "DeleteSnapshot", "Resource": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "snapshot/*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Resource": "*"}]}"#,
        r#"{"Statement": [{"Action": "*", "Resource": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}]}"#,
        r#"{"Stetement": []}"#,
        r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
            "StringEquals": {"ec2:Region": "x"}, "StringEquals": {"ec2:Owner": "y"}}}]}"#,
    ] {
        assert!(Policy::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn it_is_kept_as_its_text() {
    let text = r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
    let kept = serde_json::to_string(&Policy::parse(text).expect("good")).expect("written");
    let read: Policy = serde_json::from_str(&kept).expect("read");
    assert_eq!(read.decide("ec2:DeleteSnapshot", SNAPSHOT, &Facts::new()), Decision::Allowed);
    assert_eq!(String::from(read), text);
}
