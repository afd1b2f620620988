//! The schemas in docs/schema, and JSON that is held against them.
//!
//! Whatever a test makes the program print as JSON is checked when the program ends (see [`crate::program`]).
//!
//! In: command lines, JSON. Out: nothing, or a panic that says what does not agree. Must never: pass over a
//! document of a command that has a schema.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The table of docs/json.md is the only list of commands with JSON.
const TABLE: &str = include_str!("../../../docs/json.md");

/// The folder of the schemas.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema")
}

/// Every command with JSON, as docs/json.md writes it, and the name of its schema such as `plan-1`.
pub fn commands() -> Vec<(String, String)> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| `stillpoint "));
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let commands = cells.next().unwrap();
        let schema = cells.next().and_then(|c| c.split_once("](schema/")).expect("a link to a schema");
        let schema = schema.1.split_once(".json)").expect("a link to a schema").0;
        let words = commands.split('`').skip(1).step_by(2);
        words.map(|c| (c.strip_prefix("stillpoint ").unwrap().to_owned(), schema.to_owned())).collect()
    };
    rows.flat_map(row as fn(&'static str) -> Vec<(String, String)>).collect()
}

/// The schema of what this command line prints; none where it prints no JSON.
pub fn of<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Option<String> {
    let words: Vec<&str> = arguments.filter_map(OsStr::to_str).collect();
    let commands = commands();
    // The program's own arguments begin behind its file, which may itself be an argument of something else.
    let own = words.iter().rposition(|w| Path::new(w).file_name() == Some(OsStr::new("stillpoint")));
    let words = &words[own.map_or(0, |at| at + 1)..];
    let first = |word: &&str| commands.iter().any(|(c, _)| c.split(' ').next() == Some(word));
    let at = words.iter().position(first)?;
    let words = &words[at..];
    let json = words.windows(2).any(|w| matches!(w[0], "-o" | "--output") && w[1] == "json");
    if !json && words[0] != "iam-policy" {
        return None;
    }
    let has = |part: &str| match part {
        "--dry-run" => words.iter().any(|w| matches!(*w, "-n" | "--dry-run")),
        part => words.contains(&part),
    };
    // The row that says most about it.
    let fits = |(command, _): &&(String, String)| {
        command.split(' ').next() == Some(words[0]) && command.split(' ').all(has)
    };
    commands.iter().filter(fits).max_by_key(|(c, _)| c.split(' ').count()).map(|(_, schema)| schema.clone())
}

struct All {
    schemas: Schemas,
    by_name: BTreeMap<String, SchemaIndex>,
}

fn all() -> &'static All {
    static ALL: OnceLock<All> = OnceLock::new();
    ALL.get_or_init(|| {
        let (mut schemas, mut by_name) = (Schemas::new(), BTreeMap::new());
        let mut compiler = Compiler::new();
        for (name, schema) in files() {
            let id = schema["$id"].as_str().unwrap().to_owned();
            compiler.add_resource(&id, schema).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let index = compiler.compile(&id, &mut schemas).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            by_name.insert(name, index);
        }
        All { schemas, by_name }
    })
}

/// Every schema by its name, such as `plan-1`.
pub fn files() -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path());
    let json = entries.filter(|p| p.extension().is_some_and(|e| e == "json"));
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, strict(&std::fs::read_to_string(path).unwrap()).unwrap())
    };
    json.map(read).collect()
}

/// Why this is no document of the schema `name`, such as `plan-1`.
///
/// # Errors
/// When it is not.
pub fn validate(name: &str, document: &Value) -> Result<(), String> {
    let all = all();
    let index = all.by_name.get(name).unwrap_or_else(|| panic!("no schema {name}"));
    all.schemas.validate(document, *index).map_err(|e| format!("{e:#}"))
}

/// It has to be a document of this schema.
pub fn check(name: &str, document: &Value) {
    if let Err(why) = validate(name, document) {
        panic!("not as docs/schema/{name}.json says: {why}\n{document:#}");
    }
}

/// The same of text, in which no object may have a key twice.
pub fn check_text(name: &str, text: &str) {
    let document = strict(text).unwrap_or_else(|e| panic!("no JSON ({name}): {e}\n{text}"));
    check(name, &document);
}

/// A change of a document that its schema did not notice; empty where it notices each. Changed are, one at a
/// time: every object (a key more, each key less), and every value that is not `free` (another type).
///
/// `may_be_absent`: keys that need not be there. `free`: keys whose values may be anything.
pub fn unnoticed(name: &str, document: &Value, may_be_absent: &[&str], free: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut places = Vec::new();
    list(document, String::new(), free, &mut places);
    let mut tried = |place: &str, what: &str, change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(changed.pointer_mut(place).unwrap());
        if validate(name, &changed).is_ok() {
            found.push(format!("{place}: {what}"));
        }
    };
    for place in &places {
        let value = document.pointer(place).unwrap();
        if let Value::Object(map) = value {
            tried(place, "a key more", &|v| {
                v.as_object_mut().unwrap().insert("unexpected".into(), Value::Null);
            });
            for key in map.keys().filter(|k| !may_be_absent.contains(&k.as_str())) {
                tried(place, &format!("without {key}"), &|v| {
                    v.as_object_mut().unwrap().remove(key);
                });
            }
        }
        let other = if value.is_number() { Value::String("x".into()) } else { 17.5.into() };
        tried(place, "of another type", &|v| *v = other.clone());
    }
    found
}

fn list(value: &Value, place: String, free: &[&str], places: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(k, _)| !free.contains(&k.as_str())) {
                list(value, format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), free, places);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                list(item, format!("{place}/{n}"), free, places);
            }
        }
        _ => {}
    }
    places.push(place);
}

/// JSON in which no object has a key twice: which of the two counts is every reader's own choice.
///
/// # Errors
/// Where one has, and where it is no JSON.
pub fn strict(text: &str) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if all.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
        }
        Ok(all.into())
    }
}
