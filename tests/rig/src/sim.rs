//! What `ebs-sim` is told, and what it has seen: faults, its log of requests, the snapshots that there are.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::program::await_some;
use crate::{Rig, ebs_sim};

impl Rig {
    /// Runs one of `ebs-sim`'s own commands; it must succeed.
    pub fn sim(&self, arguments: &[&str]) -> String {
        self.try_sim(arguments).unwrap_or_else(|said| panic!("ebs-sim {arguments:?}: {said}"))
    }

    /// The same, which may fail.
    pub fn try_sim(&self, arguments: &[&str]) -> Result<String, String> {
        let output =
            Command::new(ebs_sim()).args(arguments).env("EBS_SIM_DIR", self.path("sim")).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
    }

    /// Sets a fault for the next real call of this action; `delay` is for kinds that have one.
    pub fn fault(&self, action: &str, kind: &str, delay: &str) {
        self.sim(&["faults", "add", "--action", action, "--call", "1", "--kind", kind, "--delay", delay]);
    }

    /// A request to `ebs-sim`'s control interface, and its answer.
    pub fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let address = self.ready["control"].as_str().unwrap().trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!("{method} /_ebs-sim/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // a reset after the answer is no loss
        assert!(answer.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}"))
    }

    /// The log of requests.
    pub fn requests(&self) -> Vec<Value> {
        list(self.control("GET", "requests", ""))
    }

    /// Real requests (no DryRun) of one action, in order.
    pub fn calls(&self, action: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|r| r["action"] == action && real(r)).collect()
    }

    /// The create calls that were not DryRun, of either action.
    pub fn creates(&self) -> Vec<Value> {
        let create = |r: &Value| r["action"].as_str().unwrap().starts_with("CreateSnapshot");
        self.requests().into_iter().filter(|r| create(r) && real(r)).collect()
    }

    /// Every snapshot there is, with its tags.
    pub fn snapshots(&self) -> Vec<Value> {
        list(self.control("GET", "snapshots", ""))
    }

    /// Waits until no request is being handled and no snapshot is pending.
    pub fn await_quiet(&self) {
        await_some("every request answered and every snapshot completed", || {
            let idle = !self.requests().iter().any(|r| r["outcome"] == "pending");
            (idle && !self.snapshots().iter().any(|s| s["state"] == "pending")).then_some(())
        });
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => panic!("no list: {other}"),
    }
}

/// Not a DryRun; by what was asked, for `dry_run` is only known once the request is looked at.
fn real(request: &Value) -> bool {
    request["params"]["DryRun"] != "true"
}
