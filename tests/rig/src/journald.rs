//! journald's socket, and what is sent to it: in a test's own mount namespace, with /run to itself.
//!
//! In: commands. Out: the entries that they sent, field by field, as journald would keep them. Must never: be in the
//! way of the host's own journal.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::program::{IS_JOURNAL, await_some};

/// An entry's fields. Those that journald adds itself, which begin with `_`, are not there.
pub type Entry = BTreeMap<String, String>;

/// A journal that listens.
pub struct Journald {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Journald {
    /// Listens in an empty /run.
    pub fn start() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own = mounts.lines().any(|l| l.starts_with("stillpoint-test /dev/shm "));
        assert!(own, "this would change the machine: run it by scripts/test");
        crate::sh("mount", &["-t", "tmpfs", "-o", "mode=755", "stillpoint-test", "/run"]);
        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        let socket = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        // So that the thread ends with the test's process, and notices a message at once.
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let entries = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::downgrade(&entries);
        std::thread::spawn(move || {
            let mut message = vec![0; 256 << 10];
            while let Some(entries) = into.upgrade() {
                if let Ok(size) = socket.recv(&mut message) {
                    entries.lock().unwrap().push(parse(&message[..size]));
                }
            }
        });
        Self { entries }
    }

    /// The command, with a stderr that is the journal's, as a unit's.
    pub fn of(&self, mut command: Command) -> Command {
        command.env("JOURNAL_STREAM", IS_JOURNAL);
        command
    }

    /// All entries with a MESSAGE_ID so far.
    pub fn events(&self) -> Vec<Entry> {
        let all = self.entries.lock().unwrap();
        all.iter().filter(|e| e.contains_key("MESSAGE_ID")).cloned().collect()
    }

    /// The names of these, in order.
    pub fn names(&self) -> Vec<String> {
        self.events().iter().map(|e| e["STILLPOINT_EVENT"].clone()).collect()
    }

    /// Waits until as many have come, which must have these names; gives them.
    pub fn await_names(&self, names: &[&str]) -> Vec<Entry> {
        await_some(&format!("the events {names:?}"), || (self.events().len() >= names.len()).then_some(()));
        assert_eq!(self.names(), names);
        self.events()
    }

    /// Waits for an event of this name, and takes all that came until then.
    pub fn take(&self, name: &str) -> Entry {
        let found = await_some(&format!("the event {name}"), || {
            self.events().into_iter().find(|e| e["STILLPOINT_EVENT"] == name)
        });
        self.entries.lock().unwrap().clear();
        found
    }
}

/// The native protocol (systemd.io, JOURNAL_NATIVE_PROTOCOL): `KEY=value`, or the key, a length and the bytes.
fn parse(mut message: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while !message.is_empty() {
        let end = message.iter().position(|b| *b == b'\n').expect("a field without an end");
        let line = std::str::from_utf8(&message[..end]).expect("a key that is no text");
        message = &message[end + 1..];
        if let Some((key, value)) = line.split_once('=') {
            entry.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let length = u64::from_le_bytes(message[..8].try_into().unwrap());
        let (value, rest) = message[8..].split_at(usize::try_from(length).unwrap());
        assert_eq!(rest[0], b'\n', "after {line}");
        entry.insert(line.to_owned(), String::from_utf8_lossy(value).into_owned());
        message = &rest[1..];
    }
    entry
}
