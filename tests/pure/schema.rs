//! The schemas of docs/schema: complete, exact, the same everywhere, and what docs/json.md shows is as they say.
//! What the program prints is held against them in `rig::schema`, wherever a test runs it.

use std::collections::{BTreeMap, BTreeSet};

use rig::schema;
use serde_json::Value;
use stillpoint::exit::Exit;

/// Every schema within a schema, with its place.
fn each<'a>(schema: &'a Value, place: &str, seen: &mut Vec<(String, &'a Value)>) {
    seen.push((place.to_owned(), schema));
    let Value::Object(map) = schema else { return };
    for (key, value) in map {
        let place = format!("{place}/{key}");
        match key.as_str() {
            "properties" | "$defs" => {
                for (name, one) in value.as_object().unwrap() {
                    each(one, &format!("{place}/{name}"), seen);
                }
            }
            "items" | "additionalProperties" => each(value, &place, seen),
            "oneOf" | "anyOf" => {
                for (n, one) in value.as_array().unwrap().iter().enumerate() {
                    each(one, &format!("{place}/{n}"), seen);
                }
            }
            "$schema" | "$id" | "title" | "type" | "description" | "required" | "enum" | "const"
            | "pattern" | "minimum" | "minItems" | "$ref" => {}
            other => panic!("{place}: this test does not know `{other}`"),
        }
    }
}

#[test]
fn each_says_which_it_is_what_each_field_means_and_allows_nothing_else() {
    let files = schema::files();
    assert!(files.len() >= 15, "{:?}", files.keys());
    for (name, schema) in &files {
        let (what, version) = name.rsplit_once('-').unwrap();
        assert_eq!(schema["$id"], format!("urn:stillpoint:schema:{what}:{version}").as_str());
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(schema["title"].as_str().is_some_and(|t| t.ends_with('.')), "{name}");
        if what != "iam-policy" {
            assert_eq!(schema["properties"]["version"]["const"].to_string(), version, "{name}");
        }
        let mut all = Vec::new();
        each(schema, name, &mut all);
        for (place, one) in all {
            if let Some(properties) = one["properties"].as_object() {
                assert_eq!(one["additionalProperties"], false, "{place}");
                let undescribed = |p: &Value| !p["description"].as_str().is_some_and(|d| d.ends_with('.'));
                let bare: Vec<_> = properties.iter().filter(|(_, p)| undescribed(p)).collect();
                assert!(bare.is_empty(), "{place}: what do these mean? {bare:?}");
                let required = one["required"].as_array().unwrap();
                assert!(required.iter().all(|r| properties.contains_key(r.as_str().unwrap())), "{place}");
            }
            // A map of names that are not known has one type of values.
            if one["type"] == "object" && one.get("properties").is_none() {
                assert!(one["additionalProperties"].is_object(), "{place}");
            }
            let numbers = ["number", "integer"].iter().any(|t| one["type"] == *t);
            assert!(!numbers || place.ends_with("code") || one.get("minimum").is_some(), "{place}");
        }
    }
}

#[test]
fn what_has_one_name_is_the_same_in_each() {
    let mut known: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for (name, schema) in schema::files() {
        for (def, value) in schema["$defs"].as_object().into_iter().flatten() {
            let (first, one) = known.entry(def.clone()).or_insert_with(|| (name.clone(), value.clone()));
            assert_eq!(one, value, "{def} in {first} and in {name}");
        }
    }
    let codes: BTreeSet<u64> = known["exit_code"].1["enum"].as_array().unwrap().iter().map(code).collect();
    assert_eq!(codes, Exit::ALL.iter().map(|e| e.code().into()).collect());
}

fn code(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn each_belongs_to_a_command_and_each_documented_one_is_there() {
    let mut documented: BTreeSet<String> = schema::commands().into_iter().map(|(_, schema)| schema).collect();
    // What `[[notify]]` passes on.
    assert!(include_str!("../../docs/json.md").contains("| [event-1](schema/event-1.json) |"));
    documented.insert("event-1".to_owned());
    let there: BTreeSet<String> = schema::files().into_keys().collect();
    assert_eq!(there, documented);
}

#[test]
fn a_command_line_is_known_by_what_it_prints() {
    let of = |line: &str| schema::of(line.split(' ').map(std::ffi::OsStr::new));
    let is = |line: &str, name: &str| assert_eq!(of(line).as_deref(), Some(name), "{line}");
    is("exec --dir /x/plan -- /t/debug/stillpoint --config /x/stillpoint.toml snapshot -o json", "record-1");
    is("/t/stillpoint snapshot db -n --output json", "plan-1");
    is("/t/stillpoint thaw --all -o json", "thaw-all-1");
    is("/t/stillpoint thaw -o json", "held-freeze-1");
    is("/t/stillpoint config show -o json", "config-1");
    is("/t/stillpoint config check -o json", "config-check-1");
    is("/t/stillpoint iam-policy snapshot", "iam-policy-1");
    assert_eq!(of("/t/stillpoint snapshot"), None);
    assert_eq!(of("strace -o json /t/stillpoint snapshot"), None);
}

/// Examples: each is followed by its document.
#[test]
fn what_the_documentation_shows_is_as_the_schemas_say() {
    let text = include_str!("../../docs/json.md");
    let mut shown = 0;
    for part in text.split("```json\n").skip(1) {
        let (document, _) = part.split_once("```").unwrap();
        let before = &text[..text.find(document).unwrap()];
        let name = before.rsplit_once("(schema/").unwrap().1.split_once(".json)").unwrap().0;
        let document = schema::strict(document).unwrap();
        schema::check(name, &document);
        assert_eq!(schema::unnoticed(name, &document, &[], &[]), Vec::<String>::new(), "{name}");
        shown += 1;
    }
    assert!(shown >= 2);
}

#[test]
fn a_key_that_is_there_twice_is_no_document() {
    assert!(schema::strict(r#"{"a": [1, -2, 1.5, "x", true, null, {"b": {}}]}"#).is_ok());
    let twice = schema::strict(r#"{"a": {"b": 1, "b": 2}}"#).unwrap_err();
    assert!(twice.to_string().contains("`b` is there twice"), "{twice}");
}
