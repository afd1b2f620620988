use std::time::Duration;

use super::*;
use crate::keys::Key;
use crate::sigv4::{amz_date, authorization};

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

struct Case {
    keys: Keys,
    now: Timestamp,
}

impl Case {
    fn new() -> Self {
        Self {
            keys: Keys::new(Duration::from_secs(3600), []),
            now: Timestamp::from_second(1_700_000_000).expect("in range"),
        }
    }

    /// Signs with `key` at `at` and checks at `now`; `change` may tamper with what arrives.
    fn check(
        &self,
        key: &Key,
        at: Timestamp,
        region: &str,
        change: impl FnOnce(&mut HeaderMap, &mut Vec<u8>),
    ) -> Result<Signer, String> {
        let mut body = b"Action=DescribeVolumes&Version=2016-11-15".to_vec();
        let mut headers = pairs(&[("host", "127.0.0.1:1"), ("x-amz-date", &amz_date(at))]);
        if let Some(token) = &key.session_token {
            headers.push(("x-amz-security-token".into(), token.clone()));
        }
        let scope = Scope { time: amz_date(at), region: region.into(), service: "ec2".into() };
        let signed =
            Signed { method: "POST", path: "/", query: "", headers: &headers, payload_hash: &sha256(&body) };
        let mut sent = HeaderMap::new();
        headers.push(("authorization".into(), authorization(&signed, &scope, key)));
        for (name, value) in &headers {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            sent.insert(name, value.parse().expect("a value"));
        }
        change(&mut sent, &mut body);
        let request = Incoming { method: "POST", path: "/", query: "", headers: &sent, body: &body };
        verify(&request, "ec2", &self.keys, &["us-east-1".into(), "us-west-2".into()], self.now)
            .map_err(|error| error.code)
    }
}

#[test]
fn good_signatures_pass() {
    let mut case = Case::new();
    let role = case.keys.role(case.now);
    let fixed = case.keys.fixed().clone();
    let signer = case.check(&fixed, case.now, "us-east-1", |_, _| {});
    assert_eq!(signer.expect("the static key").holder, Holder::User);
    let signer = case.check(&role, case.now, "us-west-2", |_, _| {}).expect("the role's key");
    assert_eq!((signer.holder, signer.region.as_str()), (Holder::Role, "us-west-2"));
}

#[test]
fn wrong_ones_are_refused_as_ec2_does() {
    let mut case = Case::new();
    let role = case.keys.role(case.now);
    let fixed = case.keys.fixed().clone();
    let code = |result: Result<Signer, String>| result.expect_err("refused");
    let later = |seconds: i64| Timestamp::from_second(case.now.as_second() + seconds).expect("in range");
    let east = "us-east-1";

    let mut stranger = fixed.clone();
    stranger.access_key_id = "AKIASTRANGER".into();
    assert_eq!(code(case.check(&stranger, case.now, east, |_, _| {})), "AuthFailure");
    let mut guess = fixed.clone();
    guess.secret_access_key = "guess".into();
    assert_eq!(code(case.check(&guess, case.now, east, |_, _| {})), "SignatureDoesNotMatch");
    let changed = case.check(&fixed, case.now, east, |_, body| body.extend(b"&DryRun=false"));
    assert_eq!(code(changed), "SignatureDoesNotMatch");
    assert_eq!(code(case.check(&fixed, case.now, "eu-west-1", |_, _| {})), "SignatureDoesNotMatch");
    assert_eq!(code(case.check(&fixed, later(901), east, |_, _| {})), "RequestExpired");
    assert_eq!(code(case.check(&fixed, later(-901), east, |_, _| {})), "RequestExpired");
    assert!(case.check(&fixed, later(-899), east, |_, _| {}).is_ok());
    assert!(case.check(&fixed, later(899), east, |_, _| {}).is_ok());
    let unsigned = case.check(&fixed, case.now, east, |headers, _| {
        headers.remove("authorization");
    });
    assert_eq!(code(unsigned), "MissingAuthenticationToken");
    let tokenless = case.check(&role, case.now, east, |headers, _| {
        headers.remove("x-amz-security-token");
    });
    assert_eq!(code(tokenless), "AuthFailure");

    let late = Case { keys: case.keys, now: later(3600) };
    assert_eq!(code(late.check(&role, late.now, east, |_, _| {})), "RequestExpired");
}

/// Presigns `query` for ten minutes and checks it `after` seconds.
fn presigned(
    case: &Case,
    key: &Key,
    after: i64,
    change: impl FnOnce(String) -> String,
) -> Result<Signer, String> {
    let scope = Scope { time: amz_date(case.now), region: "us-east-1".into(), service: "ec2".into() };
    let mut query = form_urlencoded::Serializer::new("Action=DescribeVolumes&".to_owned());
    query.append_pair("X-Amz-Algorithm", ALGORITHM);
    query.append_pair("X-Amz-Credential", &format!("{}/{}", key.access_key_id, scope.text()));
    query.append_pair("X-Amz-Date", &scope.time);
    query.append_pair("X-Amz-Expires", "600");
    query.append_pair("X-Amz-SignedHeaders", "host");
    if let Some(token) = &key.session_token {
        query.append_pair("X-Amz-Security-Token", token);
    }
    let query = query.finish();
    let signed = Signed {
        method: "GET",
        path: "/",
        query: &query,
        headers: &pairs(&[("host", "127.0.0.1:1")]),
        payload_hash: &sha256(b""),
    };
    let query =
        change(format!("{query}&X-Amz-Signature={}", signature(&signed, &scope, &key.secret_access_key)));
    let mut headers = HeaderMap::new();
    headers.insert("host", "127.0.0.1:1".parse().expect("a value"));
    let request = Incoming { method: "GET", path: "/", query: &query, headers: &headers, body: b"" };
    let now = Timestamp::from_second(case.now.as_second() + after).expect("in range");
    verify(&request, "ec2", &case.keys, &["us-east-1".into()], now).map_err(|error| error.code)
}

#[test]
fn presigned_requests_are_good_until_they_expire() {
    let mut case = Case::new();
    let role = case.keys.role(case.now);
    let fixed = case.keys.fixed().clone();
    let code = |result: Result<Signer, String>| result.expect_err("refused");
    assert!(presigned(&case, &fixed, 0, |query| query).is_ok());
    assert!(presigned(&case, &role, 600, |query| query).is_ok_and(|signer| signer.holder == Holder::Role));
    assert_eq!(code(presigned(&case, &role, 601, |query| query)), "RequestExpired");
    let tampered = presigned(&case, &fixed, 0, |query| query.replace("DescribeVolumes", "DeleteSnapshot"));
    assert_eq!(code(tampered), "SignatureDoesNotMatch");
    let longer = presigned(&case, &fixed, 0, |query| query.replace("Expires=600", "Expires=604801"));
    assert_eq!(code(longer), "IncompleteSignature");
    assert_eq!(without_signature("Action=A&X-Amz-Date=1&B=%26"), "Action=A&B=%26");
}
