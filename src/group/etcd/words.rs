//! What is sent to etcd's gateway and what it answers, as JSON (etcd v3.4, Documentation/dev-guide/
//! api_grpc_gateway.md; etcdserverpb/rpc.proto): bytes are base64, 64-bit numbers are texts, and what is zero is left
//! out.
//!
//! In: bodies of answers, from whoever answered. Out: entries, or why there are none. Pure. Must never: take what is
//! missing for something.

use std::time::Duration;

use aws_smithy_types::base64;
use serde_json::{Value, json};

use crate::group::engine::{EngineError, Raw, Read, Version};
use crate::path_encoding::printable;

/// The longest text of etcd's that is shown, characters.
const SHOWN: usize = 200;

/// Why etcd did not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unreachable(String),
    /// The token is missing, unknown or has expired.
    Token(String),
    Denied(String),
    Other(String),
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreachable(why) => Self::Unreachable(why),
            Refusal::Token(why) | Refusal::Denied(why) => Self::Denied(why),
            Refusal::Other(why) => Self::Answer(why),
        }
    }
}

/// The keys of a group.
#[derive(Debug)]
pub(super) struct Keys {
    /// Ends with a slash: the entry of a member follows.
    folder: String,
    own: String,
}

impl Keys {
    /// `prefix` ends with a slash.
    pub fn new(prefix: &str, group: &str, member: &str) -> Self {
        let folder = format!("{prefix}{group}/");
        Self { own: format!("{folder}{member}"), folder }
    }

    pub fn own_name(&self) -> &str {
        &self.own
    }

    /// Every key that begins with the folder: up to the first one that does not.
    fn span(&self) -> (String, String) {
        let mut end = self.folder.clone().into_bytes();
        // It ends with a slash, and `0` is the byte after that.
        end.pop();
        end.push(b'0');
        (base64::encode(&self.folder), base64::encode(end))
    }

    pub fn range(&self) -> Value {
        let (key, end) = self.span();
        json!({"key": key, "range_end": end})
    }

    /// Replaces the own entry, and reads all, whether it was replaced or not.
    pub fn write(&self, value: &[u8], replaces: Version, lease: i64) -> Value {
        let own = base64::encode(&self.own);
        let put = json!({"request_put": {
            "key": own, "value": base64::encode(value), "lease": lease.to_string()
        }});
        let range = json!({"request_range": self.range()});
        json!({
            "compare": [
                {"key": own, "target": "MOD", "result": "EQUAL", "mod_revision": replaces.to_string()}
            ],
            "success": [put, range],
            "failure": [range],
        })
    }

    /// The same with a condition that no entry meets. etcd checks the permissions for all of a transaction before it
    /// looks at its conditions (auth in etcdserver/apply_auth.go, checkTxnAuth).
    pub fn dry_run(&self) -> Value {
        let own = base64::encode(&self.own);
        let range = json!({"request_range": self.range()});
        let put = json!({"request_put": {"key": own, "value": ""}});
        json!({
            "compare": [
                {"key": own, "target": "CREATE", "result": "EQUAL", "create_revision": i64::MAX.to_string()}
            ],
            "success": [put],
            "failure": [range],
        })
    }

    pub fn watch(&self) -> Value {
        json!({"create_request": self.range()})
    }

    pub fn of_range(&self, answer: &Value) -> Result<Read, EngineError> {
        let wrong = |what: &str| EngineError::Answer(format!("its answer to a range has {what}"));
        let revision = number(&answer["header"]["revision"]).ok_or_else(|| wrong("no revision"))?;
        self.read(revision, answer)
    }

    /// The last response of a transaction: both branches of [`Self::write`] end with a range.
    pub fn of_txn(&self, answer: &Value) -> Result<Read, EngineError> {
        let wrong = |what: &str| EngineError::Answer(format!("its answer to a transaction has {what}"));
        let revision = number(&answer["header"]["revision"]).ok_or_else(|| wrong("no revision"))?;
        let last = answer["responses"].as_array().and_then(|all| all.last());
        let range = last.and_then(|last| last.get("response_range")).ok_or_else(|| wrong("no entries"))?;
        self.read(revision, range)
    }

    fn read(&self, revision: Version, range: &Value) -> Result<Read, EngineError> {
        let none = Vec::new();
        let all = match range.get("kvs") {
            None => &none,
            Some(kvs) => kvs.as_array().unwrap_or(&none),
        };
        let entries: Option<Vec<Option<Raw>>> = all.iter().map(|kv| self.raw(kv, true)).collect();
        let wrong = || EngineError::Answer("its answer has an entry that cannot be read".to_owned());
        let entries = entries.ok_or_else(wrong)?.into_iter().flatten().collect();
        Ok(Read { revision, entries })
    }

    /// One key. `Some(None)`: of a deeper folder, which is nobody's entry.
    fn raw(&self, kv: &Value, there: bool) -> Option<Option<Raw>> {
        let text = |value: &Value| base64::decode(value.as_str()?).ok();
        let key = String::from_utf8(text(&kv["key"])?).ok()?;
        let version = number(&kv["mod_revision"])?;
        let value = if there { Some(kv.get("value").map_or(Some(Vec::new()), text)?) } else { None };
        let member = key.strip_prefix(&self.folder)?.to_owned();
        Some((!member.contains('/')).then_some(Raw { member, version, value }))
    }

    /// What one message of the watch says. None: it is over.
    pub fn of_watch(&self, message: &Value) -> Option<Vec<Raw>> {
        let result = message.get("result")?;
        if result["canceled"] == true {
            return None;
        }
        let Some(events) = result.get("events").and_then(Value::as_array) else { return Some(Vec::new()) };
        let raw = |event: &Value| self.raw(&event["kv"], event["type"] != "DELETE");
        let all: Option<Vec<Option<Raw>>> = events.iter().map(raw).collect();
        Some(all?.into_iter().flatten().collect())
    }
}

pub(super) fn grant(ttl: Duration) -> Value {
    json!({"TTL": ttl.as_secs().to_string()})
}

pub(super) fn lease(id: i64) -> Value {
    json!({"ID": id.to_string()})
}

/// A 64-bit number, which is a text.
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok())
}

/// May this be the value of a header?
pub(super) fn is_header(text: &str) -> bool {
    !text.is_empty() && text.len() < 8192 && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads an answer. Codes are those of gRPC.
pub(super) fn answer(status: u16, body: &[u8]) -> Result<Value, Refusal> {
    let shown = |text: &str| printable(text).chars().take(SHOWN).collect::<String>();
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let text = shown(&String::from_utf8_lossy(body));
        return Err(match status {
            // From a proxy before it, or from an etcd without its gateway.
            404 => Refusal::Other("it has no JSON gateway here (--enable-grpc-gateway)".to_owned()),
            _ if (500..600).contains(&status) => Refusal::Unreachable(format!("HTTP {status}: {text}")),
            _ => Refusal::Other(format!("HTTP {status}: {text}")),
        });
    };
    if status == 200 && value.get("error").is_none() {
        return Ok(value);
    }
    let said = value["message"].as_str().or(value["error"].as_str()).map_or_else(String::new, shown);
    Err(match value["code"].as_i64() {
        Some(16) => Refusal::Token(said),
        // "user name is empty": it wants a user, and the token is what names one.
        Some(3) if said.contains("user name is empty") => Refusal::Denied(said),
        Some(7) => Refusal::Denied(said),
        // Unavailable, deadline exceeded, aborted; too many requests: another endpoint may do, or a moment later.
        Some(1 | 4 | 8 | 10 | 14) => Refusal::Unreachable(said),
        _ if said.is_empty() => Refusal::Other(format!("HTTP {status}")),
        _ => Refusal::Other(said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/stillpoint/", "g", "a")
    }

    #[test]
    fn a_range_is_of_this_group_alone() {
        let (key, end) = keys().span();
        let text = |s: &str| String::from_utf8(base64::decode(s).unwrap()).unwrap();
        assert_eq!((text(&key).as_str(), text(&end).as_str()), ("/stillpoint/g/", "/stillpoint/g0"));
    }

    #[test]
    fn what_an_answer_lacks_is_an_error_and_no_value() {
        let keys = keys();
        for wrong in [
            "{}",
            r#"{"header":{}}"#,
            r#"{"header":{"revision":"x"},"kvs":[]}"#,
            r#"{"header":{"revision":"7"},"kvs":[{"key":"L3N0aWxscG9pbnQvZy9h","value":"eA=="}]}"#,
            r#"{"header":{"revision":"7"},"kvs":[{"key":"!","mod_revision":"3","value":"eA=="}]}"#,
            r#"{"header":{"revision":"7"},"kvs":[{"key":"b3RoZXI=","mod_revision":"3","value":"eA=="}]}"#,
        ] {
            assert!(keys.of_range(&serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
        let none = keys.of_range(&json!({"header": {"revision": "7"}})).unwrap();
        assert_eq!(none, Read { revision: 7, entries: vec![] });
        let kv = json!({"key": base64::encode("/stillpoint/g/a"), "mod_revision": "3", "value": "eA=="});
        let one = keys.of_range(&json!({"header": {"revision": "7"}, "kvs": [kv]})).unwrap();
        let raw = Raw { member: "a".to_owned(), version: 3, value: Some(b"x".to_vec()) };
        assert_eq!(one.entries, [raw]);
        assert!(keys.of_txn(&json!({"header": {"revision": "7"}, "responses": []})).is_err());
    }

    #[test]
    fn a_watch_tells_writes_and_removals_until_it_is_over() {
        let keys = keys();
        let key = base64::encode("/stillpoint/g/b");
        let says = |message: Value| keys.of_watch(&message);
        assert_eq!(says(json!({"result": {"created": true}})), Some(vec![]));
        let put =
            says(json!({"result": {"events": [{"kv": {"key": key, "mod_revision": "4", "value": "eA=="}}]}}));
        assert_eq!(put.unwrap()[0].value, Some(b"x".to_vec()));
        let gone = says(
            json!({"result": {"events": [{"type": "DELETE", "kv": {"key": key, "mod_revision": "5"}}]}}),
        );
        assert_eq!(gone.unwrap(), [Raw { member: "b".to_owned(), version: 5, value: None }]);
        assert_eq!(says(json!({"result": {"canceled": true}})), None);
        assert_eq!(says(json!({"error": {"message": "no leader"}})), None);
    }

    #[test]
    fn an_error_is_sorted_by_its_code() {
        let sort = |status, body: &str| answer(status, body.as_bytes()).unwrap_err();
        let said = |code: i64| format!(r#"{{"error":"x","message":"x","code":{code}}}"#);
        assert_eq!(sort(401, &said(16)), Refusal::Token("x".to_owned()));
        assert_eq!(sort(403, &said(7)), Refusal::Denied("x".to_owned()));
        assert_eq!(sort(503, &said(14)), Refusal::Unreachable("x".to_owned()));
        assert_eq!(sort(400, &said(3)), Refusal::Other("x".to_owned()));
        assert_eq!(sort(200, &said(5)), Refusal::Other("x".to_owned()), "an error with a good status");
        assert!(matches!(sort(502, "<html>"), Refusal::Unreachable(_)));
        assert!(matches!(sort(404, "404 page not found"), Refusal::Other(_)));
        let Refusal::Other(text) = sort(400, "\u{1b}[31mred") else { panic!() };
        assert!(!text.contains('\u{1b}'));
        assert_eq!(answer(200, b"{}"), Ok(json!({})));
    }

    #[test]
    fn a_token_is_a_header_or_is_refused() {
        assert!(is_header("abc.123"));
        for bad in ["", "a\r\nHost: x", "ä", "a b"] {
            assert!(!is_header(bad), "{bad:?}");
        }
    }
}
