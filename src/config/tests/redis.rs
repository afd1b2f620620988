//! `[[redis]]`: which keys exclude each other, and what the journal keeps.

use super::*;

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (keys, told) in [
        ("socket = \"/s\"\nhost = \"db\"", "has a `socket` and a `host`"),
        ("password_file = \"/p\"\ncredential = \"p\"", "has a `password_file` and a `credential`"),
        (
            "mode = \"bgsave\"\npause_limit = \"5s\"",
            "has a `pause_limit`, and mode \"bgsave\" pauses nothing",
        ),
        ("pause_limit = \"100ms\"", "outside 1s to 1h"),
        ("credential = \"../p\"", "not the name of a credential"),
    ] {
        let (message, _) = error(&format!("[[redis]]\n{keys}\n"));
        assert!(message.contains(told), "{keys}: {message}");
    }
}

#[test]
fn a_section_comes_back_from_the_journal_as_it_was() {
    for keys in ["", "pause_limit = \"90s\"\nuser = \"u\"\nport = 7000"] {
        let hooks = parse(&format!("[[redis]]\n{keys}\n")).unwrap().settings.plan.hooks;
        let text = serde_json::to_string(&hooks).unwrap();
        assert_eq!(serde_json::from_str::<Vec<settings::Hook>>(&text).unwrap(), hooks, "{text}");
    }
    // A journal of a version that did not have the key.
    let old = r#"{"name":"redis","type":"redis","mode":"pause","socket":null,"host":null,"port":null,"user":null,
        "password_file":null,"credential":null,"timeout":"1m","on_failure":"abort"}"#;
    let hook: settings::Hook = serde_json::from_str(old).unwrap();
    assert!(matches!(hook.kind, HookKind::Redis(settings::Redis { pause_limit: None, .. })));
}
