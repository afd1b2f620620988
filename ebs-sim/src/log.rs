//! The request log: what was asked, when its point in time was, and what came of it.
//!
//! In: the beginning and the end of every request. Out: JSON entries. It lives in memory and must never
//! be written to disk: the filesystem may be the one that is frozen.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::faults::Hit;

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
    pub tls: bool,
    /// `CreateSnapshots`, `imds:PutToken` …; `connection` and `imds:connection` for a connection that was
    /// hit.
    pub action: String,
    pub dry_run: bool,
    /// The parameters, or the path of a metadata request.
    pub params: BTreeMap<String, String>,
    /// The Region that it names.
    pub region: Option<String>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
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
    /// `ok`, an error code, or `pending`, `hang`, `drop` …
    pub outcome: String,
    /// The kinds of the faults that hit it.
    pub faults: Vec<String>,
    /// The numbers of those faults.
    pub fault_ids: Vec<u64>,
    /// What it created.
    pub snapshot_ids: Vec<String>,
    /// The volumes that it created.
    pub volume_ids: Vec<String>,
}

impl Entry {
    /// Notes faults that hit it.
    pub fn add_faults(&mut self, hits: &[Hit]) {
        self.faults.extend(hits.iter().map(|hit| hit.fault.kind.name()));
        self.fault_ids.extend(hits.iter().map(|hit| hit.id));
    }
}

/// The latest requests.
#[derive(Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
    last: u64,
    keep: usize,
}

impl Log {
    /// An empty log that remembers `keep` requests.
    pub fn new(keep: usize) -> Self {
        Self { entries: VecDeque::new(), last: 0, keep }
    }

    /// Notes that a request came in, and answers its number.
    pub fn begin(&mut self, mut entry: Entry) -> u64 {
        self.last += 1;
        entry.number = self.last;
        entry.outcome = "pending".into();
        while self.entries.len() >= self.keep {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.last
    }

    /// Changes what is known of a request. Once it is forgotten there is nothing to change.
    pub fn update(&mut self, number: u64, change: impl FnOnce(&mut Entry)) {
        // Numbers go on without gaps, so the place follows from the first one's.
        let first = self.entries.front().map_or(0, |entry| entry.number);
        let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            change(entry);
        }
    }

    /// The entries in the order of arrival.
    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    /// Forgets the entries; numbers go on.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_numbers_go_on() {
        let mut log = Log::new(2);
        for action in ["a", "b", "c"] {
            log.begin(Entry { action: action.into(), ..Entry::default() });
        }
        log.update(1, |_| panic!("it is forgotten"));
        log.update(2, |entry| entry.outcome = "ok".into());
        let shown: Vec<_> =
            log.entries().iter().map(|e| (e.number, e.action.as_str(), e.outcome.as_str())).collect();
        assert_eq!(shown, [(2, "b", "ok"), (3, "c", "pending")]);
        log.clear();
        log.update(3, |_| panic!("it is forgotten"));
        assert_eq!(log.begin(Entry::default()), 4);
    }
}
