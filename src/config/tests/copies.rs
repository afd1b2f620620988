//! `[[plan.NAME.copy]]`: what arrives, which list wins, and what is refused.

use super::settings::CopySettings;
use super::*;

fn copies(text: &str) -> Vec<CopySettings> {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.copy
}

const ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[test]
fn destinations_arrive_and_those_of_the_plan_replace_those_of_the_defaults() {
    assert_eq!(copies("[plan.default]"), []);
    let text = format!(
        "[[defaults.copy]]\nregion = \"us-west-2\"\n[[plan.default.copy]]\nregion = \"eu-west-1\"\nkey = \"{ARN}\"\n\
         within = \"1h 30m\"\n[[plan.default.copy]]\nregion = \"eu-central-1\"\nencrypt = true\n"
    );
    let first = CopySettings {
        region: "eu-west-1".into(),
        encrypt: true,
        key: Some(ARN.into()),
        within: Some(Duration::from_secs(5400)),
    };
    let second = CopySettings { region: "eu-central-1".into(), encrypt: true, key: None, within: None };
    assert_eq!(copies(&text), [first, second]);
    let loaded = parse(&text).unwrap();
    let shown = loaded.show();
    let line = shown.lines().find(|l| l.starts_with("copy = ")).unwrap();
    assert!(line.contains("within = \"1h 30m\"") && line.contains("stillpoint.toml:3"), "{line}");
    assert_eq!(copies("[[defaults.copy]]\nregion = \"us-west-2\"\n").len(), 1);
}

#[test]
fn what_cannot_be_copied_to_is_refused_with_its_place() {
    let mrk = "mrk-1234abcd12ab34cd56ef1234567890ab";
    for good in [ARN, "alias/aws-like/key_1", mrk, "1234abcd-12ab-34cd-56ef-1234567890ab"] {
        copies(&format!("[[plan.default.copy]]\nregion = \"eu-west-1\"\nkey = \"{good}\"\n"));
    }
    for (keys, told) in [
        ("", "has no `region`"),
        ("region = \"eu west\"", "which is not a Region"),
        ("region = \"eu-west-1\"\nkey = \"alias\"", "which is no KMS key"),
        ("region = \"eu-west-1\"\nkey = \"alias/a b\"", "which is no KMS key"),
        ("region = \"eu-west-1\"\nkey = \"arn:aws:kms:eu-west-1:1:key/x\"", "which is no KMS key"),
        ("region = \"us-west-2\"\nkey = \"ARN\"", "has a key of eu-west-1, and copies to us-west-2 need one"),
        ("region = \"eu-west-1\"\nkey = \"alias/a\"\nencrypt = false", "`encrypt` is false"),
        ("region = \"eu-west-1\"\nwithin = \"20m\"", "in steps of 15m"),
        ("region = \"eu-west-1\"\nwithin = \"0s\"", "in steps of 15m"),
        ("region = \"eu-west-1\"\nwithin = \"49h\"", "in steps of 15m"),
        ("region = \"eu-west-1\"\nwithin = 15", "must be a string"),
        (
            "region = \"eu-west-1\"\n[[plan.default.copy]]\nregion = \"eu-west-1\"",
            "has the Region eu-west-1 twice",
        ),
        ("region = \"eu-west-1\"\nkeys = \"x\"", "unknown key `keys` in [[plan.default.copy]]"),
    ] {
        let (message, _) = error(&format!("[[plan.default.copy]]\n{}", keys.replace("ARN", ARN)));
        assert!(message.contains(told), "{keys}: {message}");
    }
}
