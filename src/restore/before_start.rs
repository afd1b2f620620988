//! What a person does before a database is started on what was restored beside its original.
//!
//! In: the applications of a set, with what they reported; where its filesystems are restored. Out: commands for a shell,
//! which are printed and run by nobody. Pure. Must never: print a word of a tag that a shell would take for more than one
//! word.
//!
//! docs/databases.md says why each is needed. A copy that is started as its original was would follow links into the
//! original's folders, or be the original: a `data_directory` in postgresql.conf counts more than `-D`.

use std::path::{Path, PathBuf};

use super::copy_out::restored;
use crate::path_encoding::printable;
use crate::sets::lines::{SetApplication, SetFilesystem};
use crate::unmount::by_hand::quoted;

/// The commands, for each database whose data directory is restored.
#[must_use]
pub fn commands(applications: &[SetApplication], filesystems: &[&SetFilesystem], to: &Path) -> Vec<String> {
    let at = |path: &str| restored(Path::new(path), filesystems).map(|at| to.join(at));
    let mut all = Vec::new();
    for of in applications {
        let Some(data) = of.facts.get("data_directory").and_then(|path| at(path)) else { continue };
        match of.kind.as_str() {
            "postgresql" => postgresql(of, &data, &at, &mut all),
            "mysql" => mysql(of, &data, &mut all),
            _ => {}
        }
    }
    if !all.is_empty() {
        // It is made for root alone, and a database runs as its own user.
        all.insert(0, format!("chmod o+x {}", word(to)));
    }
    all
}

fn word(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn postgresql(of: &SetApplication, data: &Path, at: &dyn Fn(&str) -> Option<PathBuf>, all: &mut Vec<String>) {
    let mut link = |what: &str, name: &str, folder: &str| match at(folder) {
        Some(there) => all.push(format!("ln -sfn {} {}", word(&there), word(&data.join(name)))),
        None => all.push(format!("# {what} was in {}, which is not restored", comment(folder))),
    };
    if let Some(wal) = of.facts.get("wal_directory") {
        link("the WAL", "pg_wal", wal);
    }
    for line in of.facts.get("tablespaces").into_iter().flat_map(|lines| lines.lines()) {
        let mut parts = line.splitn(3, ' ');
        let (Some(id), Some(_), Some(folder)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
            link("a tablespace", &format!("pg_tblspc/{id}"), folder);
        }
    }
    all.push(format!("rm -f {}", word(&data.join("postmaster.pid"))));
    let config =
        of.facts.get("config_file").filter(|file| !file.starts_with(of.facts["data_directory"].as_str()));
    let config = config.map_or_else(String::new, |file| format!(" -c config_file={}", quoted(file)));
    all.push(format!(
        "# start: postgres -D {0}{config} -c data_directory={0} -p 5433 -c archive_mode=off -c external_pid_file=",
        word(data)
    ));
}

fn mysql(of: &SetApplication, data: &Path, all: &mut Vec<String>) {
    let mysql = of.facts.get("server").is_some_and(|server| !server.to_ascii_lowercase().contains("mariadb"));
    if mysql {
        all.push(format!("rm -f {}", word(&data.join("auto.cnf"))));
    }
    all.push(format!(
        "# start: {} --no-defaults --datadir={} --socket={} --pid-file={} --skip-networking --skip-log-bin \
         --skip-slave-start, and what my.cnf says of InnoDB's files",
        if mysql { "mysqld" } else { "mariadbd" },
        word(data),
        word(&data.join("restored.sock")),
        word(&data.join("restored.pid"))
    ));
}

/// A path behind a `#`: it stays in its line.
fn comment(path: &str) -> String {
    printable(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::{Consistency, Method};

    fn filesystem(at: &str) -> SetFilesystem {
        SetFilesystem {
            mount_point: at.into(),
            fstype: "xfs".to_owned(),
            uuid: None,
            method: Method::Freeze,
            volumes: Vec::new(),
            stack: String::new(),
            options: String::new(),
            also: Vec::new(),
            roots: Vec::new(),
        }
    }

    fn of(kind: &str, facts: &[(&str, &str)]) -> SetApplication {
        SetApplication {
            name: kind.to_owned(),
            kind: kind.to_owned(),
            achieved: Consistency::Application,
            facts: facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn links_of_a_cluster_lead_to_what_is_restored_and_its_settings_to_itself() {
        let (data, wal) = (filesystem("/var/lib/pg"), filesystem("/wal"));
        let facts = [
            ("data_directory", "/var/lib/pg/15/main"),
            ("config_file", "/etc/postgresql/15/main/postgresql.conf"),
            ("wal_directory", "/wal/pg_wal"),
            ("tablespaces", "16384 fast /wal/fast\n16385 gone /elsewhere/gone\nx; reboot y /wal"),
        ];
        let said = commands(&[of("postgresql", &facts)], &[&data, &wal], Path::new("/mnt/r"));
        assert_eq!(
            said,
            [
                "chmod o+x /mnt/r",
                "ln -sfn /mnt/r/wal/pg_wal /mnt/r/var/lib/pg/15/main/pg_wal",
                "ln -sfn /mnt/r/wal/fast /mnt/r/var/lib/pg/15/main/pg_tblspc/16384",
                "# a tablespace was in /elsewhere/gone, which is not restored",
                "rm -f /mnt/r/var/lib/pg/15/main/postmaster.pid",
                "# start: postgres -D /mnt/r/var/lib/pg/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf \
                 -c data_directory=/mnt/r/var/lib/pg/15/main -p 5433 -c archive_mode=off -c external_pid_file=",
            ]
        );
    }

    #[test]
    fn a_tag_is_one_word_for_a_shell_and_what_is_not_restored_is_left_out() {
        let data = filesystem("/d");
        let hostile = [("data_directory", "/d/$(reboot)'; rm -rf /"), ("wal_directory", "/x\nreboot")];
        let said = commands(&[of("postgresql", &hostile)], &[&data], Path::new("/r"));
        assert_eq!(said[1].lines().count(), 1, "{said:?}");
        assert_eq!(said[2], r"rm -f '/r/d/$(reboot)'\''; rm -rf /postmaster.pid'");
        assert!(
            commands(&[of("postgresql", &[("data_directory", "/e")])], &[&data], Path::new("/r")).is_empty()
        );
        assert!(commands(&[of("redis", &[("data_directory", "/d")])], &[&data], Path::new("/r")).is_empty());
        let mysql = commands(
            &[of("mysql", &[("data_directory", "/d"), ("server", "MySQL 8.0")])],
            &[&data],
            Path::new("/r"),
        );
        assert_eq!(mysql[1], "rm -f /r/d/auto.cnf");
        assert!(
            mysql[2].contains("--skip-slave-start") && mysql[2].starts_with("# start: mysqld "),
            "{mysql:?}"
        );
    }
}
