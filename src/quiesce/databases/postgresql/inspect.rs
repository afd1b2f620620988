//! What a server is, and whether it can be quiesced: on this host, within the set, with enough privileges.
//!
//! In: a session, the set. Out: [`Instance`], or the refusal. Must never: change anything.

use std::path::{Path, PathBuf};

use super::super::containment::real;
use super::super::{Refusal, Start, containment, note};
use super::session::{Session, text};
use crate::config::settings::{Postgresql, PostgresqlMode};
use crate::host::process::Stat;

/// What was instance of a server. It has to be the same when it is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    /// The server's process that serves this session.
    pub backend: String,
    /// When the server was started.
    pub started: String,
    /// Does it replay another's WAL?
    pub standby: bool,
}

/// What identifies the database, for the record.
#[derive(Debug)]
pub(super) struct Identity {
    pub version: String,
    pub system: String,
    pub data: PathBuf,
    pub wal: Option<PathBuf>,
    pub config_file: String,
    /// A line each: object id, name, folder.
    pub tablespaces: Vec<String>,
    /// Names of those that are outside the set, and have temporary files alone.
    pub temporary: Vec<String>,
}

/// Asks who it is.
pub(super) async fn instance(session: &Session) -> Result<Instance, Refusal> {
    let row = session
        .row("SELECT pg_backend_pid(), extract(epoch FROM pg_postmaster_start_time()), pg_is_in_recovery()")
        .await?;
    Ok(Instance { backend: text(&row, 0), started: text(&row, 1), standby: text(&row, 2) == "t" })
}

/// Looks at everything that has to be right.
pub(super) async fn check(
    session: &Session,
    start: &Start,
    settings: &Postgresql,
    instance: &Instance,
) -> Result<Identity, Refusal> {
    if instance.standby && !settings.allow_standby {
        return Err(session
            .refusal("is a standby")
            .hint("run this on the primary, or allow it: allow_standby = true"));
    }
    privileges(session, settings.mode).await?;
    if settings.mode == PostgresqlMode::Backup && session.value("SHOW wal_level").await? == "minimal" {
        return Err(session
            .refusal("has wal_level = minimal, with which it makes no backup")
            .hint("set wal_level = replica there, or use mode = \"checkpoint\""));
    }
    let row = session
        .row("SELECT current_setting('server_version'), (SELECT system_identifier FROM pg_control_system())")
        .await?;
    let (version, system) = (text(&row, 0), text(&row, 1));
    let data = PathBuf::from(session.value("SHOW data_directory").await?);
    let config_file = session.value("SHOW config_file").await?;
    on_this_host(session, &data, &instance.backend)?;
    let (tablespaces, temporary) = within(session, start, &data).await?;
    let wal = data.join("pg_wal");
    let wal = wal.is_symlink().then(|| real(&wal));
    let data = real(&data);
    Ok(Identity { version, system, data, wal, config_file, tablespaces, temporary })
}

async fn privileges(session: &Session, mode: PostgresqlMode) -> Result<(), Refusal> {
    let me = "SELECT current_user, rolsuper, pg_has_role('pg_read_all_settings', 'USAGE')";
    let row = session.row(&format!("{me} FROM pg_roles WHERE rolname = current_user")).await?;
    let (role, superuser) = (text(&row, 0), text(&row, 1) == "t");
    if superuser {
        return Ok(());
    }
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let lacks = |what: &str, hint: String| {
        Err(session.refusal(format!("does not let role `{role}` {what}")).hint(hint))
    };
    if text(&row, 2) != "t" {
        let hint = format!("GRANT pg_read_all_settings TO {quoted}");
        return lacks("see where its data directory is", hint);
    }
    match mode {
        PostgresqlMode::Checkpoint if session.version < 15_00_00 => lacks(
            "run CHECKPOINT",
            "before version 15 only a superuser may; or use mode = \"backup\"".to_owned(),
        ),
        PostgresqlMode::Checkpoint => {
            match session.value("SELECT pg_has_role('pg_checkpoint', 'USAGE')").await?.as_str() {
                "t" => Ok(()),
                _ => lacks("run CHECKPOINT", format!("GRANT pg_checkpoint TO {quoted}")),
            }
        }
        PostgresqlMode::Backup => {
            for function in backup_functions(session.version) {
                let sql = format!("SELECT has_function_privilege('{function}', 'EXECUTE')");
                if session.value(&sql).await? != "t" {
                    let database = "in the database that is connected to";
                    let hint = format!("GRANT EXECUTE ON FUNCTION {function} TO {quoted}, {database}");
                    return lacks(&format!("call {function}"), hint);
                }
            }
            Ok(())
        }
    }
}

fn backup_functions(version: u32) -> [&'static str; 2] {
    if version >= 15_00_00 {
        ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
    }
}

/// The session's process has to be a child of the server whose data directory is here: a virtual address, or
/// a path that is the same on two hosts, would else pass.
fn on_this_host(session: &Session, data: &Path, backend: &str) -> Result<(), Refusal> {
    let path = data.display();
    let file = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => session
            .refusal(format!("has its data directory at {path}, which cannot be looked into: {e}"))
            .hint("connect as the system user that it runs as (`os_user`); pg_ident.conf maps that user to a role"),
        _ => elsewhere(session, &format!("its data directory {path} is not here: {e}")),
    })?;
    let postmaster = text.lines().next().unwrap_or_default().trim();
    match parent(backend) {
        Some(parent) if parent == postmaster => Ok(()),
        _ => Err(elsewhere(
            session,
            &format!("its session is no child of process {postmaster}, which serves {path} here"),
        )),
    }
}

fn elsewhere(session: &Session, why: &str) -> Refusal {
    session.refusal(format!("does not run on this host, or runs in a container: {why}")).hint(
        "run stillpoint where the server runs, and connect by its socket; for one in a container see [[session]] and [[container]]",
    )
}

fn parent(pid: &str) -> Option<String> {
    let stat = Stat::read(Path::new("/"), pid.parse().ok()?).ok()??;
    Some(stat.parent.to_string())
}

/// Every folder that recovery needs is within the set. The tablespaces, and those of them that need not be.
async fn within(
    session: &Session,
    start: &Start,
    data: &Path,
) -> Result<(Vec<String>, Vec<String>), Refusal> {
    containment::check(&start.set, "the data directory", data)?;
    let unreadable = |what: &Path, e| session.refusal(format!("has {}: {e}", what.display()));
    for entry in std::fs::read_dir(data).map_err(|e| unreadable(data, e))? {
        let entry = entry.map_err(|e| unreadable(data, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        // Statistics are thrown away by recovery, logs are not read by it.
        if !(name == "base" || name == "global" || name.starts_with("pg_"))
            || name == "pg_stat_tmp"
            || name == "pg_log"
            || !path.is_dir()
        {
            continue;
        }
        let what = if name == "pg_wal" { "the WAL directory".to_owned() } else { format!("its {name}") };
        containment::check(&start.set, &what, &real(&path))?;
    }
    let (mut tablespaces, mut temporary) = (Vec::new(), Vec::new());
    let all = "SELECT oid, spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";
    for row in session.rows(all).await? {
        let (oid, name) = (text(&row, 0), text(&row, 1));
        let path = real(&data.join("pg_tblspc").join(&oid));
        if let Err(outside) = containment::check(&start.set, &format!("the tablespace `{name}`"), &path) {
            if !(is_temporary(&path) && is_for_temporary(session, &name).await?) {
                return Err(outside);
            }
            // On an instance store, as temp_tablespaces are: recovery removes what is in it.
            note(format!("{outside}; it has temporary files alone, and is left out"));
            temporary.push(name.clone());
        }
        tablespaces.push(format!("{oid} {name} {}", path.display()));
    }
    Ok((tablespaces, temporary))
}

/// Is this tablespace named for temporary files, in the configuration or for a role or a database?
async fn is_for_temporary(session: &Session, name: &str) -> Result<bool, Refusal> {
    let all = "SELECT current_setting('temp_tablespaces') UNION ALL SELECT s FROM pg_db_role_setting, \
               unnest(setconfig) s WHERE s LIKE 'temp_tablespaces=%'";
    let separates = |c: char| matches!(c, ',' | ' ' | '"' | '=');
    let rows = session.rows(all).await?;
    Ok(rows.iter().any(|row| text(row, 0).split(separates).any(|word| word == name)))
}

/// Has this tablespace nothing but temporary files? A version's folder has `pgsql_tmp`, and a folder for each
/// database, in which temporary tables are named `tBACKEND_FILE` (PostgreSQL documentation, "Database file
/// layout"). One that cannot be looked into has not.
fn is_temporary(tablespace: &Path) -> bool {
    let names = |folder: &Path| -> Option<Vec<(String, PathBuf)>> {
        let named = |e: std::io::Result<std::fs::DirEntry>| {
            e.ok().map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        };
        std::fs::read_dir(folder).ok()?.map(named).collect()
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of_session = |name: &str| {
        let backend = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
        backend.is_some_and(|(backend, _)| is_number(backend))
    };
    let database =
        |folder: &Path| names(folder).is_some_and(|all| all.iter().all(|(name, _)| of_session(name)));
    let version = |folder: &Path| {
        let well =
            |(name, path): &(String, PathBuf)| name == "pgsql_tmp" || (is_number(name) && database(path));
        names(folder).is_some_and(|all| all.iter().all(well))
    };
    let well = |(name, path): &(String, PathBuf)| name.starts_with("PG_") && version(path);
    names(tablespace).is_some_and(|all| all.iter().all(well))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_is_temporary_as_long_as_nothing_else_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("PG_15_202209061");
        let put = |path: &str| {
            let path = version.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        assert!(is_temporary(dir.path()), "it is empty");
        put("pgsql_tmp/pgsql_tmp123.0");
        put("16384/t3_16500");
        put("16384/t3_16500_fsm");
        assert!(is_temporary(dir.path()));
        for path in [
            "16384/16501",
            "16384/16501_init",
            "16384/PG_VERSION",
            "16385/2619",
            "16384/t_1",
            "16384/tx_1",
            "other",
        ] {
            let file = put(path);
            assert!(!is_temporary(dir.path()), "{path}");
            std::fs::remove_file(file).unwrap();
        }
        assert!(is_temporary(dir.path()));
        std::fs::write(dir.path().join("mine"), "").unwrap();
        assert!(!is_temporary(dir.path()));
        assert!(!is_temporary(&dir.path().join("none")));
    }
}
