//! What a server says of itself (INFO), and the witness that nothing was written.
//!
//! In: the text of INFO. Out: its fields; a [`Witness`] to compare with a later one. Must never: take a field
//! that is not there for a zero.

use std::collections::HashMap;

use super::Refusal;

/// The fields of INFO, of all sections.
#[derive(Debug)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Lines of `name:value`, under headings that begin with `#`.
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, Refusal> {
        let missing =
            || Refusal::new(format!("its INFO says nothing of `{name}`: is it a Redis or Valkey server?"));
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, Refusal> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Refusal::new(format!("its INFO says `{name}:{text}`, which is no number")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.number(name)? != 0)
    }

    /// `redis` or `valkey`, and its own version.
    pub(super) fn server(&self) -> Result<(&str, &str), Refusal> {
        match self.0.get("valkey_version") {
            Some(version) => Ok(("valkey", version)),
            None => Ok(("redis", self.text("redis_version")?)),
        }
    }

    /// Major and minor version of the Redis whose commands it has; Valkey says 7.2.
    pub(super) fn compatible(&self) -> Result<(u32, u32), Refusal> {
        let text = self.text("redis_version")?;
        let mut parts = text.split('.').map_while(|p| p.parse().ok());
        match (parts.next(), parts.next()) {
            (Some(major), minor) => Ok((major, minor.unwrap_or_default())),
            (None, _) => Err(Refusal::new(format!("its version `{text}` is not understood"))),
        }
    }

    /// Keys in all databases: lines like `db0:keys=3,expires=0,avg_ttl=0`.
    pub(super) fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let keys =
            databases.filter_map(|(_, v)| v.split(',').next()?.strip_prefix("keys=")?.parse::<u64>().ok());
        keys.sum()
    }
}

/// What moves when anything is written to a server that has an append-only file.
///
/// `master_repl_offset` is no part of it: without replicas it stands still before 7.2, and with replicas it
/// moves by each PING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Witness {
    /// Another one after each start.
    run_id: String,
    aof_size: u64,
    /// The size after the last rewrite; another one says that a rewrite ended, which changes `aof_size` too.
    aof_base_size: u64,
    /// Changes to the data since the last dump.
    changes: u64,
    last_save: u64,
    expired: u64,
    evicted: u64,
}

impl Witness {
    pub(super) fn from_info(info: &Info) -> Result<Self, Refusal> {
        Ok(Self {
            run_id: info.text("run_id")?.to_owned(),
            aof_size: info.number("aof_current_size")?,
            aof_base_size: info.number("aof_base_size")?,
            changes: info.number("rdb_changes_since_last_save")?,
            last_save: info.number("rdb_last_save_time")?,
            expired: info.number("expired_keys")?,
            evicted: info.number("evicted_keys")?,
        })
    }

    /// Why what is on the disk by `now` may not be what was there at the time of this one.
    pub(super) fn moved(&self, now: &Self) -> Option<String> {
        if self.run_id != now.run_id {
            return Some("it was restarted".to_owned());
        }
        if self.aof_base_size == now.aof_base_size && self.aof_size != now.aof_size {
            let (from, to) = (self.aof_size, now.aof_size);
            return Some(format!("its append-only file went from {from} to {to} bytes"));
        }
        let changed = if self.last_save == now.last_save {
            self.changes != now.changes
        } else {
            // A dump has ended: it took off the changes that are in it.
            now.changes > self.changes
        };
        if changed {
            let (from, to) = (self.changes, now.changes);
            return Some(format!("its changes since the last dump went from {from} to {to}"));
        }
        if (self.expired, self.evicted) != (now.expired, now.evicted) {
            return Some("it expired or evicted keys".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:ab\r\n\r\n# Persistence\r\naof_current_size:90\r\n\
        aof_base_size:88\r\nrdb_changes_since_last_save:3\r\nrdb_last_save_time:1700000000\r\n# Stats\r\n\
        expired_keys:1\r\nevicted_keys:0\r\n# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ndb11:keys=4,expires=1\r\n\
        dbsomething:keys=9\r\n";

    fn with(field: &str, value: &str) -> Witness {
        let lines = INFO.lines().map(|l| match l.split_once(':') {
            Some((name, _)) if name == field => format!("{name}:{value}\r\n"),
            _ => format!("{l}\r\n"),
        });
        Witness::from_info(&Info::parse(&lines.collect::<String>())).unwrap()
    }

    #[test]
    fn fields_are_read_and_missing_ones_are_an_error() {
        let info = Info::parse(INFO);
        assert_eq!(info.server().unwrap(), ("redis", "7.0.15"));
        assert_eq!(info.compatible().unwrap(), (7, 0));
        assert_eq!(info.keys(), 7);
        assert!(info.number("aof_buffer_length").is_err());
        assert!(info.number("run_id").is_err());
        let valkey = Info::parse("redis_version:7.2.4\r\nvalkey_version:8.1.3\r\n");
        assert_eq!((valkey.server().unwrap(), valkey.compatible().unwrap()), (("valkey", "8.1.3"), (7, 2)));
    }

    #[test]
    fn whatever_moves_is_told() {
        let before = with("", "");
        assert_eq!(before.moved(&before), None);
        for (field, value) in [
            ("run_id", "cd"),
            ("aof_current_size", "91"),
            ("rdb_changes_since_last_save", "4"),
            ("expired_keys", "2"),
            ("evicted_keys", "1"),
        ] {
            assert!(before.moved(&with(field, value)).is_some(), "{field}");
        }
    }

    #[test]
    fn a_rewrite_or_a_dump_that_ends_meanwhile_is_no_write() {
        let before = with("", "");
        let rewritten = Witness { aof_size: 50, aof_base_size: 50, ..before.clone() };
        assert_eq!(before.moved(&rewritten), None);
        let saved = Witness { last_save: before.last_save + 1, changes: 0, ..before.clone() };
        assert_eq!(before.moved(&saved), None);
        let more = Witness { changes: before.changes + 1, ..saved };
        assert!(before.moved(&more).is_some());
    }
}
