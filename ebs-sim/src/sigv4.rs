//! AWS Signature Version 4.
//!
//! In: a request and a key. Out: the request's signature. It is written here rather than taken from AWS's own
//! crate, which the clients under test sign with: two sides that share one mistake would agree.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::keys::Key;

/// The name that a signature gives of how it was made.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed of a request.
#[derive(Debug)]
pub struct Signed<'a> {
    /// GET or POST.
    pub method: &'a str,
    pub path: &'a str,
    /// The query string, without its question mark.
    pub query: &'a str,
    /// The signed headers: lower-case names in order, and values.
    pub headers: &'a [(String, String)],
    /// The body's SHA-256 in hexadecimal.
    pub payload_hash: &'a str,
}

/// What a signature is bound to, besides the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `20150830T123600Z`
    pub time: String,
    /// `us-east-1`
    pub region: String,
    /// `ec2`
    pub service: String,
}

impl Scope {
    fn date(&self) -> &str {
        self.time.get(..8).unwrap_or(&self.time)
    }

    /// The scope as a credential names it.
    pub fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date(), self.region, self.service)
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn hmac(key: &[u8], data: &str) -> Vec<u8> {
    // HMAC takes keys of any length; an empty result would only be a wrong signature.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(data.as_bytes());
            mac.finalize().into_bytes().to_vec()
        },
    )
}

fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keep_slash => out.push('/'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| format!("{}={}", encode(&name, false), encode(&value, false)))
        .collect();
    pairs.sort();
    pairs.join("&")
}

/// The signature, in hexadecimal.
pub fn signature(request: &Signed<'_>, scope: &Scope, secret: &str) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let headers: String = request
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{name}:{value}\n")
        })
        .collect();
    let path = if request.path.is_empty() { "/" } else { request.path };
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        encode(path, true),
        canonical_query(request.query),
        names.join(";"),
        request.payload_hash
    );
    let to_sign = format!("{ALGORITHM}\n{}\n{}\n{}", scope.time, scope.text(), sha256(canonical.as_bytes()));
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), scope.date());
    for part in [scope.region.as_str(), scope.service.as_str(), "aws4_request"] {
        key = hmac(&key, part);
    }
    hex::encode(hmac(&key, &to_sign))
}

/// The Authorization header of a signed request.
pub fn authorization(request: &Signed<'_>, scope: &Scope, key: &Key) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
        key.access_key_id,
        scope.text(),
        names.join(";"),
        signature(request, scope, &key.secret_access_key)
    )
}

/// The time of a signature.
pub fn amz_date(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn scope(service: &str) -> Scope {
        Scope { time: "20150830T123600Z".into(), region: "us-east-1".into(), service: service.into() }
    }

    fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// `get-vanilla` of the test suite that AWS publishes.
    #[test]
    fn the_published_vector_get_vanilla() {
        let request = Signed {
            method: "GET",
            path: "/",
            query: "",
            headers: &pairs(&[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]),
            payload_hash: &sha256(b""),
        };
        assert_eq!(
            signature(&request, &scope("service"), SECRET),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    /// The worked example of the IAM guide.
    #[test]
    fn the_published_vector_list_users() {
        let request = Signed {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &pairs(&[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ]),
            payload_hash: &sha256(b""),
        };
        assert_eq!(
            signature(&request, &scope("iam"), SECRET),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
