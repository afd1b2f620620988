//! curl as the client: it signs, speaks TLS and judges connections without a line of ours.

use std::process::{Command, Output};

use super::Sim;

/// curl's exit codes.
pub mod exit {
    /// The body is shorter than promised.
    pub const PARTIAL: i32 = 18;
    /// The time was up.
    pub const TIMEOUT: i32 = 28;
    /// The connection was closed without an answer.
    pub const EMPTY: i32 = 52;
    /// The connection was reset.
    pub const RECEIVE: i32 = 56;
    /// The certificate is not trusted.
    pub const UNTRUSTED: i32 = 60;
    /// A connection that is reset at once: it depends on the moment whether curl notices while it connects,
    /// in the handshake, while it sends or while it receives.
    pub const REFUSED: [i32; 4] = [7, 35, 55, RECEIVE];
}

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status, 0 when there was none.
    pub status: u16,
    /// curl's exit code.
    pub exit: i32,
    /// The body.
    pub body: String,
    /// What curl said.
    pub said: String,
}

/// A client of EC2's.
pub struct Client {
    /// The URL.
    pub url: String,
    /// `ID:SECRET`
    pub key: String,
    /// The Region that it signs for.
    pub region: String,
    /// Further arguments.
    pub more: Vec<String>,
}

impl Client {
    /// One with the static key, over HTTP.
    pub fn new(sim: &Sim) -> Self {
        let text = |name: &str| sim.ready[name].as_str().expect("a text").to_owned();
        let key = &sim.ready["credentials"];
        let part = |name: &str| key[name].as_str().expect("a text");
        Self {
            url: text("endpoint"),
            key: format!("{}:{}", part("access_key_id"), part("secret_access_key")),
            region: text("region"),
            more: vec![],
        }
    }

    /// The same over TLS.
    pub fn tls(sim: &Sim) -> Self {
        let text = |name: &str| sim.ready[name].as_str().expect("a text").to_owned();
        let more = vec!["--cacert".to_owned(), text("ca_bundle")];
        Self { url: text("tls_endpoint"), more, ..Self::new(sim) }
    }

    /// One with the key of another account.
    pub fn of_account(sim: &Sim, id: &str) -> Self {
        let accounts = sim.ready["accounts"].as_array().expect("a list");
        let account = accounts.iter().find(|account| account["id"] == id).expect("it is there");
        let part = |name: &str| account["credentials"][name].as_str().expect("a text");
        let key = format!("{}:{}", part("access_key_id"), part("secret_access_key"));
        Self { key, ..Self::new(sim) }
    }

    /// Further arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Makes a call: `Action=…&…`.
    pub fn call(&self, form: &str) -> Answer {
        answer(
            Command::new("curl")
                .args(["--silent", "--show-error", "--max-time", "15", "--write-out", "\n%{http_code}"])
                .args(["--aws-sigv4", &format!("aws:amz:{}:ec2", self.region), "--user", &self.key])
                .args(["--data", form])
                .args(&self.more)
                .arg(&self.url),
        )
    }
}

impl Client {
    /// A request to a service with a REST-JSON API; parameters of the query string have to be in order.
    pub fn rest(&self, service: &str, method: &str, path: &str, body: &str) -> Answer {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "15", "--write-out", "\n%{http_code}"])
            .args(["--aws-sigv4", &format!("aws:amz:{}:{service}", self.region), "--user", &self.key])
            .args(["--request", method, "--include"])
            .args(&self.more);
        if !body.is_empty() {
            command.args(["--data", body, "--header", "content-type: application/json"]);
        }
        answer(command.arg(format!("{}{path}", self.url)))
    }
}

impl Answer {
    /// The body of an answer that has its headers, as JSON.
    pub fn json(&self) -> serde_json::Value {
        let (_, body) = self.body.split_once("\r\n\r\n").expect("headers and a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header of an answer that has them.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.body.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Runs curl, whose last line is the status.
pub fn answer(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().expect("curl is installed");
    let stdout = String::from_utf8_lossy(&stdout);
    let (body, code) = stdout.rsplit_once('\n').unwrap_or_default();
    Answer {
        status: code.parse().unwrap_or(0),
        exit: status.code().expect("it ended by itself"),
        body: body.to_owned(),
        said: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
