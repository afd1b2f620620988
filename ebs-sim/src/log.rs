//! The request log: what was asked, when its point in time was, and what came of it.
//!
//! In: the beginning and the end of every request. Out: JSON entries. It lives in memory and must never
//! be written to disk: the filesystem may be the one that is frozen.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Nanoseconds since 1970.
pub fn unix_nanos() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// One request. All times are unix nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// The TCP connection it came on: two requests with one number used a warm connection.
    pub connection: u64,
    /// `CreateSnapshots`, `imds:PutToken` …
    pub action: String,
    /// Whether it was a DryRun.
    pub dry_run: bool,
    /// The parameters, or the path of a metadata request.
    pub params: BTreeMap<String, String>,
    /// The access key that signed it.
    pub access_key_id: Option<String>,
    /// The id in the response.
    pub request_id: String,
    /// When its last byte had been read.
    pub started_ns: u64,
    /// When the clone began.
    pub clone_started_ns: Option<u64>,
    /// When the clone was done: every write acknowledged before `clone_started_ns` is in the
    /// snapshots, no write issued after this is.
    pub point_in_time_ns: Option<u64>,
    /// When the answer was handed to the connection; absent when there was none.
    pub answered_ns: Option<u64>,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// `ok`, an error code, or `pending`, `hang`, `drop`.
    pub outcome: String,
    /// The kinds of the faults that hit it.
    pub faults: Vec<String>,
    /// What it created.
    pub snapshot_ids: Vec<String>,
}

/// All requests so far.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    next: u64,
}

impl Log {
    /// Notes that a request came in, and answers its number.
    pub fn begin(&mut self, mut entry: Entry) -> u64 {
        self.next += 1;
        entry.number = self.next;
        entry.outcome = "pending".into();
        self.entries.push(entry);
        self.next
    }

    /// Changes what is known of a request. After a reset there is nothing to change.
    pub fn update(&mut self, number: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.iter_mut().rev().find(|e| e.number == number) {
            change(entry);
        }
    }

    /// The entries in the order of arrival.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Forgets the entries; numbers go on.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
