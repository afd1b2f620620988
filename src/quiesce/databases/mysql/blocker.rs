//! Who keeps the locks from being taken.
//!
//! In: the server's process list, from a second connection. Out: one line that names the likeliest, for the
//! log and the refusal. Must never: show what is between quotes in a query, or more than [`TEXT`] characters
//! of it.

use std::time::Duration;

use super::flavour::Flavour;
use super::session::{Columns, Session};

/// How much of a query is shown.
const TEXT: usize = 100;

/// MySQL 8 knows it exactly.
const GRANTED: &str = "SELECT p.processlist_id AS id, p.processlist_user AS user, p.processlist_time AS time, \
     p.processlist_command AS command, LEFT(p.processlist_info, 400) AS info \
     FROM performance_schema.metadata_locks h \
     JOIN performance_schema.metadata_locks w ON w.object_type = h.object_type \
       AND w.object_schema <=> h.object_schema AND w.object_name <=> h.object_name \
     JOIN performance_schema.threads o ON o.thread_id = w.owner_thread_id AND o.processlist_id = {locking} \
     JOIN performance_schema.threads p ON p.thread_id = h.owner_thread_id \
     WHERE w.lock_status = 'PENDING' AND h.lock_status = 'GRANTED' AND p.processlist_id NOT IN ({own}) \
     ORDER BY p.processlist_time DESC LIMIT 1";
/// So does MariaDB with its plugin `metadata_lock_info`.
const PLUGIN: &str = "SELECT p.id, p.user, p.time, p.command, LEFT(p.info, 400) AS info \
     FROM information_schema.metadata_lock_info m \
     JOIN information_schema.processlist p ON p.id = m.thread_id \
     WHERE m.lock_type = 'Backup lock' AND p.id NOT IN ({own}) AND p.{since} \
     AND COALESCE(p.state, '') NOT LIKE 'Waiting for %lock%' ORDER BY p.time DESC, p.id LIMIT 1";
/// Else it is likely one that has run something since before it was waited for, and does not itself wait for
/// a lock of ours; the longest first. Or it is one that does nothing, and has taken its locks before.
const LONGEST: &str = "SELECT id, user, time, command, LEFT(info, 400) AS info \
     FROM information_schema.processlist \
     WHERE command NOT IN ('Daemon', 'Binlog Dump', 'Binlog Dump GTID') AND id NOT IN ({own}) AND {since} \
     AND COALESCE(state, '') NOT LIKE 'Waiting for %lock%' \
     AND COALESCE(state, '') NOT LIKE 'Waiting for table flush%' \
     AND (info IS NOT NULL OR command = 'Sleep') ORDER BY command = 'Sleep', time DESC, id LIMIT 1";

/// Names whoever seems to have been in the way of `locking` since `waited` ago. Our own connections are left
/// out.
pub(super) async fn name(
    aside: &mut Session,
    locking: u64,
    flavour: Flavour,
    waited: Duration,
) -> Option<String> {
    let own = format!("{locking}, {}", aside.id);
    let since = if flavour.is_mariadb() {
        format!("time_ms >= {}", waited.as_millis())
    } else {
        format!("time >= {}", waited.as_secs())
    };
    for query in [GRANTED, PLUGIN, LONGEST] {
        let query = query.replace("{own}", &own).replace("{since}", &since);
        let query = query.replace("{locking}", &locking.to_string());
        // What the server does not have is an error; the next one serves.
        if let Ok(Some(row)) = aside.row(&query).await {
            return Some(line(&row));
        }
    }
    None
}

fn line(row: &Columns) -> String {
    let get = |name: &str| row.get(name).unwrap_or_default();
    let (id, user, time) = (get("id"), get("user"), get("time"));
    let doing = match row.get("info") {
        Some(info) if get("command") != "Sleep" => shown(&info),
        _ => "nothing, idle: perhaps with LOCK TABLES or a transaction open".to_owned(),
    };
    format!("thread {id} of `{user}`, for {time} s: {doing}")
}

/// A query as it may be shown: on one line, without what is quoted, and short.
fn shown(query: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut escaped = false;
    for c in query.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => {
                quote = None;
                out.push(c);
            }
            Some(_) => {}
            None => {
                if matches!(c, '\'' | '"') {
                    quote = Some(c);
                    out.push(c);
                    out.push('…');
                } else {
                    out.push(if c.is_whitespace() || c.is_control() { ' ' } else { c });
                }
            }
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    let text = words.join(" ");
    if text.chars().count() <= TEXT {
        return text;
    }
    let mut short: String = text.chars().take(TEXT).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_shown_short_and_without_what_is_quoted() {
        for (query, text) in [
            ("SELECT 1", "SELECT 1"),
            ("update t\n\tset a = 'x''y', b=\"z\" where c=3", "update t set a = '…''…', b=\"…\" where c=3"),
            (r"CREATE USER u IDENTIFIED BY 's3c\'ret' ", "CREATE USER u IDENTIFIED BY '…'"),
            ("select 'cut off in the mid", "select '…"),
        ] {
            assert_eq!(shown(query), text);
        }
        let long = shown(&format!("SELECT {}", "é".repeat(300)));
        assert_eq!((long.chars().count(), long.ends_with('…')), (TEXT + 1, true));
    }
}
