//! Whose request it is.
//!
//! In: a request with a Signature Version 4, in its header or presigned. Out: who signed it, or why it is
//! refused. A refusal must never tell the right signature.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;

use super::error::Ec2Error;
use crate::keys::{Holder, Keys};
use crate::sigv4::{ALGORITHM, Scope, Signed, sha256, signature};

/// How far the client's clock may be off: the minutes that EC2's list of errors gives for RequestExpired.
const MAX_SKEW_SECONDS: i64 = 900;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    pub access_key_id: String,
    /// Whose it is.
    pub holder: Holder,
    /// The Region that the request is for: one endpoint answers for all of them.
    pub region: String,
}

impl Signer {
    /// The account that it is from; `own` is the instance's.
    pub fn account<'a>(&'a self, own: &'a str) -> &'a str {
        match &self.holder {
            Holder::Account(account) => account,
            Holder::User | Holder::Root | Holder::Role => own,
        }
    }
}

/// A request whose signature is to be checked.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// GET or POST.
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The names of what a presigned request carries in its query string.
const QUERY_PREFIX: &str = "X-Amz-";
const QUERY_SIGNATURE: &str = "X-Amz-Signature";
/// A presigned request is good for a week at most.
const MAX_EXPIRES: i64 = 604_800;

/// The parameters of a query string, without those of the signature.
pub fn without_signature(query: &str) -> String {
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| !name.starts_with(QUERY_PREFIX));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The key and the Region that a request names, before anything about it was checked.
pub fn claimed_signer(request: &Incoming<'_>) -> Option<(String, String)> {
    let claim = Claim::read(request).ok()?;
    let region = claim.region();
    Some((claim.access_key_id, region))
}

/// Checks a request's signature.
pub fn verify(
    request: &Incoming<'_>,
    service: &str,
    keys: &Keys,
    regions: &[String],
    now: Timestamp,
) -> Result<Signer, Ec2Error> {
    let claim = Claim::read(request)?;
    let (key, holder) = keys.find(&claim.access_key_id).ok_or_else(not_validated)?;
    let time = claim.time.clone().ok_or_else(not_validated)?;
    let age = age(&time, now).ok_or_else(not_validated)?;
    let most = claim.expires.unwrap_or(MAX_SKEW_SECONDS);
    if key.expired(now) || age > most || age < -MAX_SKEW_SECONDS {
        return Err(Ec2Error::new("RequestExpired", "Request has expired."));
    }
    if key.session_token != claim.token {
        return Err(not_validated());
    }
    let scope = Scope { time, region: claim.region(), service: service.to_owned() };
    if claim.scope != scope.text() || !regions.contains(&scope.region) {
        return Err(mismatch());
    }
    let names: Vec<&str> = claim.signed_headers.split(';').collect();
    if !names.contains(&"host") || (claim.expires.is_none() && !names.contains(&"x-amz-date")) {
        return Err(mismatch());
    }
    let headers: Vec<(String, String)> = names
        .into_iter()
        .map(|name| {
            let values = request.headers.get_all(name).iter();
            let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
            (name.to_owned(), values.join(","))
        })
        .collect();
    let unsigned =
        form_urlencoded::parse(request.query.as_bytes()).filter(|(name, _)| name != QUERY_SIGNATURE);
    let signed = Signed {
        method: request.method,
        path: request.path,
        query: &form_urlencoded::Serializer::new(String::new()).extend_pairs(unsigned).finish(),
        headers: &headers,
        payload_hash: &sha256(request.body),
    };
    if signature(&signed, &scope, &key.secret_access_key) != claim.signature {
        return Err(mismatch());
    }
    Ok(Signer { access_key_id: claim.access_key_id, holder, region: scope.region })
}

/// Who a request says it is from, and what is to prove it.
struct Claim {
    access_key_id: String,
    scope: String,
    signed_headers: String,
    signature: String,
    time: Option<String>,
    token: Option<String>,
    /// Of a presigned request: for how many seconds it is good.
    expires: Option<i64>,
}

impl Claim {
    /// Reads the Authorization header, or the query string of a presigned request.
    fn read(request: &Incoming<'_>) -> Result<Self, Ec2Error> {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let incomplete = || {
            Ec2Error::new("IncompleteSignature", "The request signature does not conform to AWS standards.")
        };
        if let Some(authorization) = header("authorization") {
            let mut claim = Self::from_header(authorization).ok_or_else(incomplete)?;
            claim.time = header("x-amz-date").map(str::to_owned);
            claim.token = header("x-amz-security-token").map(str::to_owned);
            return Ok(claim);
        }
        let query: BTreeMap<_, _> = form_urlencoded::parse(request.query.as_bytes()).collect();
        if query.contains_key(QUERY_SIGNATURE) {
            return Self::from_query(&query).ok_or_else(incomplete);
        }
        Err(Ec2Error::new(
            "MissingAuthenticationToken",
            "The request must contain either a valid (registered) AWS access key ID or X.509 certificate.",
        )
        .status(403))
    }

    fn from_header(header: &str) -> Option<Self> {
        let fields = header.strip_prefix(ALGORITHM)?.trim();
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (access_key_id, scope) = field("Credential")?.split_once('/')?;
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            scope: scope.to_owned(),
            signed_headers: field("SignedHeaders")?.to_owned(),
            signature: field("Signature")?.to_owned(),
            time: None,
            token: None,
            expires: None,
        })
    }

    fn from_query(query: &BTreeMap<Cow<'_, str>, Cow<'_, str>>) -> Option<Self> {
        let field =
            |name: &str| query.get(format!("{QUERY_PREFIX}{name}").as_str()).map(|text| text.to_string());
        let credential = field("Credential")?;
        let (access_key_id, scope) = credential.split_once('/')?;
        let expires = field("Expires")?.parse().ok().filter(|seconds| (1..=MAX_EXPIRES).contains(seconds))?;
        (field("Algorithm")? == ALGORITHM).then_some(())?;
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            scope: scope.to_owned(),
            signed_headers: field("SignedHeaders")?,
            signature: field("Signature")?,
            time: field("Date"),
            token: field("Security-Token"),
            expires: Some(expires),
        })
    }

    fn region(&self) -> String {
        self.scope.split('/').nth(1).unwrap_or_default().to_owned()
    }
}

/// How many seconds ago a request was signed.
fn age(time: &str, now: Timestamp) -> Option<i64> {
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(now.as_second() - at.as_second())
}

fn not_validated() -> Ec2Error {
    Ec2Error::new("AuthFailure", "AWS was not able to validate the provided access credentials").status(401)
}

fn mismatch() -> Ec2Error {
    Ec2Error::new(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your AWS \
         Secret Access Key and signing method. Consult the service documentation for details.",
    )
    .status(403)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
