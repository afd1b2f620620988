//! The small client of ebs-sim's own commands.
//!
//! In: `ebs-sim.json` and what to ask. Out: the answer's status and body. It must never be used as a model
//! for a real client: one connection a request, no retries, no TLS. It is written by hand because faults cut
//! answers off, and the user has to be told that apart from an answer; an HTTP library would also bring a
//! pool and TLS, which a command that sends one request to loopback does not need.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use jiff::Timestamp;

use crate::keys::Key;
use crate::ready::{Credentials, Ready};
use crate::sigv4::{self, Scope, Signed};

/// A running ebs-sim could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("cannot reach ebs-sim at {endpoint}")]
    Unreachable {
        /// Its URL.
        endpoint: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The answer is not HTTP, or was cut off.
    #[error("ebs-sim closed the connection without a whole answer")]
    Cut,
    /// It refused.
    #[error("ebs-sim refused: {0}")]
    Refused(String),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Unreachable { .. } => {
                Some("is it still running, and is this the same network namespace?".into())
            }
            Error::Cut => Some("is a fault set? `ebs-sim faults clear --dir DIR`".into()),
            Error::Refused(_) => None,
        }
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends one request and reads the whole answer.
fn exchange(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: &str,
    patience: Duration,
) -> Result<Answer, Error> {
    let host = endpoint.trim_start_matches("http://");
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let unreachable = |source| Error::Unreachable { endpoint: endpoint.to_owned(), source };
    let mut stream = TcpStream::connect(host).map_err(unreachable)?;
    stream.set_read_timeout(Some(patience)).map_err(unreachable)?;
    stream.write_all(request.as_bytes()).map_err(unreachable)?;
    let mut answer = Vec::new();
    // A reset after the answer is no loss; whether the answer is whole is checked below.
    let _ = stream.read_to_end(&mut answer);
    parse(&answer).ok_or(Error::Cut)
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some(Answer { status, body: body.to_owned() })
}

/// Asks the control API, and fails when it refuses.
pub fn control(ready: &Ready, method: &str, path: &str, body: &str) -> Result<String, Error> {
    control_within(ready, method, path, body, Duration::ZERO)
}

/// The same, of something that takes this long by itself.
pub fn control_within(
    ready: &Ready,
    method: &str,
    path: &str,
    body: &str,
    takes: Duration,
) -> Result<String, Error> {
    let path = format!("{}{path}", crate::ready::CONTROL);
    let answer = exchange(&ready.control, method, &path, &[], body, takes.saturating_add(PATIENCE))?;
    if answer.status == 200 {
        return Ok(answer.body);
    }
    let reason = serde_json::from_str::<serde_json::Value>(&answer.body)
        .ok()
        .and_then(|value| Some(value.get("error")?.as_str()?.to_owned()))
        .unwrap_or(answer.body);
    Err(Error::Refused(reason))
}

/// Makes one EC2 call in a Region (the instance's when none is named), signed with this key.
pub fn call(
    ready: &Ready,
    credentials: &Credentials,
    region: Option<&str>,
    action: &str,
    params: &[(String, String)],
) -> Result<Answer, Error> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action);
    form.append_pair("Version", "2016-11-15");
    form.extend_pairs(params);
    let body = form.finish();
    let key = Key {
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.clone(),
        session_token: None,
        life: None,
    };
    let scope = Scope {
        time: sigv4::amz_date(Timestamp::now()),
        region: region.unwrap_or(&ready.region).to_owned(),
        service: "ec2".into(),
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let content_type = header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    let date = header("x-amz-date", &scope.time);
    let host = header("host", ready.endpoint.trim_start_matches("http://"));
    let authorization = sigv4::authorization(
        &Signed {
            method: "POST",
            path: "/",
            query: "",
            headers: &[content_type.clone(), host, date.clone()],
            payload_hash: &sigv4::sha256(body.as_bytes()),
        },
        &scope,
        &key,
    );
    let headers = [content_type, date, ("authorization".to_owned(), authorization)];
    exchange(&ready.endpoint, "POST", "/", &headers, &body, PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_answer_is_noticed() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let expected = Answer { status: 200, body: "ok".into() };
        assert_eq!(parse(whole), Some(expected));
        assert_eq!(parse(&whole[..whole.len() - 1]), None);
        assert_eq!(parse(b""), None);
    }
}
