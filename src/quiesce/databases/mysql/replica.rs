//! A replica's SQL threads: what they have done, and stopping them while the server is quiesced.
//!
//! In: the status of each source. Out: facts, and threads that run again. Must never: start a thread that did
//! not run before, or one that stopped with an error.

use super::super::{Refusal, fact, note};
use super::flavour::Flavour;
use super::session::{Columns, Session};

/// The fact that names the sources whose SQL threads run: what the agent journals before anything is stopped.
pub(super) const RUNNING: &str = "sql_threads";

/// One source that the server replicates from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name; empty for the one without.
    pub channel: String,
    /// Does its SQL thread run?
    pub running: bool,
    /// The last error of its SQL thread.
    error: Option<String>,
    host: String,
    log_file: String,
    log_position: String,
}

/// All of them; none on a server that is no replica.
pub(super) async fn sources(session: &mut Session, flavour: Flavour) -> Result<Vec<Source>, Refusal> {
    let show = flavour.show_replica();
    let rows = session.rows(show).await.map_err(|e| session.refusal(show, &e))?;
    Ok(rows.iter().map(Source::from_row).collect())
}

/// The value of [`RUNNING`].
pub(super) fn running(sources: &[Source]) -> String {
    let names: Vec<&str> = sources.iter().filter(|s| s.running).map(|s| s.channel.as_str()).collect();
    serde_json::to_string(&names).unwrap_or_default()
}

/// The names in a value of [`RUNNING`].
pub(super) fn channels(value: Option<&String>) -> Vec<String> {
    value.and_then(|v| serde_json::from_str(v).ok()).unwrap_or_default()
}

impl Source {
    fn from_row(row: &Columns) -> Self {
        let any = |names: &[&str]| row.any(names).unwrap_or_default();
        let failed = any(&["Last_SQL_Errno"]);
        Self {
            channel: any(&["Connection_name", "Channel_Name"]),
            running: any(&["Slave_SQL_Running", "Replica_SQL_Running"]) == "Yes",
            error: (failed != "0" && !failed.is_empty()).then_some(failed),
            host: any(&["Master_Host", "Source_Host"]),
            log_file: any(&["Relay_Master_Log_File", "Relay_Source_Log_File"]),
            log_position: any(&["Exec_Master_Log_Pos", "Exec_Source_Log_Pos"]),
        }
    }

    /// What this replica has done of its source's binary log.
    pub(super) fn facts(&self) {
        let key = |what: &str| match self.channel.as_str() {
            "" => format!("source_{what}"),
            // A key is one word.
            channel => format!("source_{what}[{}]", channel.replace(char::is_whitespace, "_")),
        };
        fact(&key("host"), &self.host);
        fact(&key("log_file"), &self.log_file);
        fact(&key("log_position"), &self.log_position);
    }
}

/// Starts these threads again where they are stopped without an error.
pub(super) async fn start(
    session: &mut Session,
    flavour: Flavour,
    channels: &[String],
) -> Result<(), Refusal> {
    let mut failed = None;
    for source in sources(session, flavour).await? {
        if source.running || !channels.contains(&source.channel) {
            continue;
        }
        if let Some(error) = &source.error {
            note(format!("the SQL thread of `{}` has stopped with error {error}; it stays so", source.host));
            continue;
        }
        let statement = flavour.sql_thread("START", &source.channel);
        if let Err(e) = session.run(&statement).await {
            let hint = format!("the replica stands still until it is done by hand: {statement};");
            failed = Some(session.refusal(&statement, &e).hint(hint));
        }
    }
    failed.map_or(Ok(()), Err)
}
