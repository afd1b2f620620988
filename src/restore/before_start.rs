//! What a person does before a database is started on what was restored beside its original.
//!
//! ```text
//! plan     facts of the set ─▶ commands, and the folders that they go to (pure)
//! mounted  is every one of these folders reached past no link? ─▶ the commands are printed; else why they are not
//! ```
//!
//! In: the applications of a set, with what they reported; where its filesystems are restored. Out: commands for a shell,
//! which are printed and run by nobody. Must never: print a word of a tag that a shell would take for more than one word, a
//! path that leads out of what was restored, or how something is started that would write to its original.
//!
//! docs/databases.md says why each is needed. A copy that is started as its original was would follow links into the
//! original's folders, or be the original: a `data_directory` in postgresql.conf counts more than `-D`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy_out::{self, restored};
use crate::path_encoding::{self, shown};
use crate::sets::lines::{SetApplication, SetFilesystem};
use crate::unmount::by_hand::quoted;

/// What is done for one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeStart {
    /// Its data directory, on the host of the set.
    #[serde(with = "path_encoding::bytes")]
    pub data: PathBuf,
    /// The folders that the commands go to, beneath the target folder.
    pub folders: Vec<Reached>,
    /// The commands; none where `not` says why.
    pub commands: Vec<String>,
    /// Why there are none.
    pub not: Option<String>,
}

/// A folder beneath the target folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached(#[serde(with = "path_encoding::bytes")] pub PathBuf);

impl BeforeStart {
    /// The lines, once everything is mounted beneath `to`.
    #[must_use]
    pub fn lines(&self, to: &Path) -> Vec<String> {
        let reached = || self.folders.iter().try_for_each(|folder| copy_out::is_reached(to, &folder.0));
        match self.not.clone().map_or_else(reached, Err) {
            Ok(()) => self.commands.clone(),
            Err(why) => vec![format!("# {}: start nothing on it as it is: {why}", shown(&self.data))],
        }
    }
}

/// For each database whose data directory is restored.
#[must_use]
pub fn of(applications: &[SetApplication], filesystems: &[&SetFilesystem], to: &Path) -> Vec<BeforeStart> {
    let mut all = Vec::new();
    for of in applications {
        // Whoever may tag writes facts: one that is no plain path is none.
        let Some(data) = of.facts.get("data_directory").and_then(|path| plain(path)) else { continue };
        let Some(at) = restored(data, filesystems) else { continue };
        let mut one = One { filesystems, to, folders: vec![Reached(at.clone())], at, commands: Vec::new() };
        // It is made for root alone, and a database runs as its own user.
        one.commands.push(format!("chmod o+x {}", word(to)));
        let said = match of.kind.as_str() {
            "postgresql" => one.postgresql(of, data),
            "mysql" => one.mysql(of),
            _ => continue,
        };
        let (commands, not) = match said {
            Ok(()) => (one.commands, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        all.push(BeforeStart { data: data.to_owned(), folders: one.folders, commands, not });
    }
    all
}

/// An absolute path that leads nowhere else and has nothing in it that ends a line.
fn plain(path: &str) -> Option<&Path> {
    let good = Path::new(path).components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    (path.starts_with('/') && good && !path.chars().any(char::is_control)).then_some(Path::new(path))
}

fn word(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

struct One<'a> {
    filesystems: &'a [&'a SetFilesystem],
    to: &'a Path,
    /// The data directory beneath the target folder.
    at: PathBuf,
    folders: Vec<Reached>,
    commands: Vec<String>,
}

impl One<'_> {
    fn data(&self) -> PathBuf {
        self.to.join(&self.at)
    }

    /// Without it, the copy would go on in the original's folder.
    fn link(&mut self, what: &str, name: &str, folder: &str) -> Result<(), String> {
        let there = plain(folder).and_then(|folder| restored(folder, self.filesystems));
        let there = there.ok_or_else(|| format!("{what} is in {folder}, which is not restored"))?;
        let link = format!("ln -sfn {} {}", word(&self.to.join(&there)), word(&self.data().join(name)));
        self.commands.push(link);
        self.folders.push(Reached(there));
        Ok(())
    }

    fn postgresql(&mut self, of: &SetApplication, data: &Path) -> Result<(), String> {
        if let Some(wal) = of.facts.get("wal_directory") {
            self.link("its WAL", "pg_wal", wal)?;
        }
        for line in of.facts.get("tablespaces").into_iter().flat_map(|lines| lines.lines()) {
            let mut parts = line.splitn(3, ' ');
            let id = parts.next().filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
            let (Some(id), Some(_), Some(folder)) = (id, parts.next(), parts.next()) else {
                return Err("what the set says of its tablespaces cannot be read".to_owned());
            };
            self.link("a tablespace", &format!("pg_tblspc/{id}"), folder)?;
        }
        let here = word(&self.data());
        self.commands.push(format!("rm -f {}", word(&self.data().join("postmaster.pid"))));
        // On Debian it is not in the data directory.
        let apart = of.facts.get("config_file").and_then(|file| plain(file)).filter(|f| !f.starts_with(data));
        let config = apart.map_or_else(String::new, |file| format!(" -c config_file={}", word(file)));
        self.commands.push(format!(
            "# start: postgres -D {here}{config} -c data_directory={here} -p 5433 -c archive_mode=off -c external_pid_file="
        ));
        Ok(())
    }

    fn mysql(&mut self, of: &SetApplication) -> Result<(), String> {
        let mysql =
            of.facts.get("server").is_some_and(|server| !server.to_ascii_lowercase().contains("mariadb"));
        let in_data = |name: &str| word(&self.data().join(name));
        let (cnf, socket, pid) = (in_data("auto.cnf"), in_data("restored.sock"), in_data("restored.pid"));
        if mysql {
            self.commands.push(format!("rm -f {cnf}"));
        }
        self.commands.push(format!(
            "# start: {} --no-defaults --datadir={} --socket={socket} --pid-file={pid} --skip-networking --skip-log-bin \
             --skip-slave-start, and what my.cnf says of InnoDB's files",
            if mysql { "mysqld" } else { "mariadbd" },
            word(&self.data()),
        ));
        Ok(())
    }
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

    fn application(kind: &str, facts: &[(&str, &str)]) -> SetApplication {
        SetApplication {
            name: kind.to_owned(),
            kind: kind.to_owned(),
            achieved: Consistency::Application,
            facts: facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn commands(of: &[SetApplication], filesystems: &[&SetFilesystem]) -> Vec<String> {
        let all = super::of(of, filesystems, Path::new("/mnt/r"));
        all.into_iter().flat_map(|one| one.not.map_or(one.commands, |not| vec![not])).collect()
    }

    #[test]
    fn links_of_a_cluster_lead_to_what_is_restored_and_its_settings_to_itself() {
        let (data, wal) = (filesystem("/var/lib/pg"), filesystem("/wal"));
        let facts = [
            ("data_directory", "/var/lib/pg/15/main"),
            ("config_file", "/etc/postgresql/15/main/postgresql.conf"),
            ("wal_directory", "/wal/pg_wal"),
            ("tablespaces", "16384 fast /wal/fast"),
        ];
        let said = commands(&[application("postgresql", &facts)], &[&data, &wal]);
        assert_eq!(
            said,
            [
                "chmod o+x /mnt/r",
                "ln -sfn /mnt/r/wal/pg_wal /mnt/r/var/lib/pg/15/main/pg_wal",
                "ln -sfn /mnt/r/wal/fast /mnt/r/var/lib/pg/15/main/pg_tblspc/16384",
                "rm -f /mnt/r/var/lib/pg/15/main/postmaster.pid",
                "# start: postgres -D /mnt/r/var/lib/pg/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf \
                 -c data_directory=/mnt/r/var/lib/pg/15/main -p 5433 -c archive_mode=off -c external_pid_file=",
            ]
        );
        // Without its WAL, or with a tablespace that is elsewhere, it would go on in the original's.
        let said = commands(&[application("postgresql", &facts)], &[&data]);
        assert_eq!(said, ["its WAL is in /wal/pg_wal, which is not restored"]);
        for bad in ["16385 gone /elsewhere/gone", "x; reboot y /wal", "16384 fast ../wal"] {
            let facts = [("data_directory", "/var/lib/pg/15/main"), ("tablespaces", bad)];
            let said = commands(&[application("postgresql", &facts)], &[&data, &wal]);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(!said[0].contains("start"), "{said:?}");
        }
    }

    #[test]
    fn a_tag_is_one_word_for_a_shell_and_leads_nowhere_else() {
        let data = filesystem("/d");
        let hostile = [("data_directory", "/d/$(reboot)'; rm -rf /")];
        let said = commands(&[application("postgresql", &hostile)], &[&data]);
        assert_eq!(said[1], r"rm -f '/mnt/r/d/$(reboot)'\''; rm -rf /postmaster.pid'");
        for nowhere in ["/e", "/d/../etc", "d", "/d/x\nreboot #", "/d/./../x"] {
            assert!(
                commands(&[application("postgresql", &[("data_directory", nowhere)])], &[&data]).is_empty(),
                "{nowhere}"
            );
        }
        let facts = [("data_directory", "/d"), ("config_file", "/x\nreboot")];
        let said = commands(&[application("postgresql", &facts)], &[&data]);
        assert!(said.iter().all(|line| !line.contains("reboot")), "{said:?}");
        assert!(commands(&[application("redis", &[("data_directory", "/d")])], &[&data]).is_empty());
        let mysql =
            commands(&[application("mysql", &[("data_directory", "/d"), ("server", "MySQL 8.0")])], &[&data]);
        assert_eq!(mysql[1], "rm -f /mnt/r/d/auto.cnf");
        assert!(
            mysql[2].contains("--skip-slave-start") && mysql[2].starts_with("# start: mysqld "),
            "{mysql:?}"
        );
    }

    #[test]
    fn what_is_reached_by_a_link_gets_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let data = filesystem("/d");
        let all =
            super::of(&[application("postgresql", &[("data_directory", "/d/main")])], &[&data], dir.path());
        std::fs::create_dir_all(dir.path().join("d/real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("d/main")).unwrap();
        let said = all[0].lines(dir.path());
        assert!(said.len() == 1 && said[0].starts_with("# /d/main: start nothing"), "{said:?}");
        std::fs::remove_file(dir.path().join("d/main")).unwrap();
        std::fs::create_dir(dir.path().join("d/main")).unwrap();
        assert!(all[0].lines(dir.path()).last().unwrap().starts_with("# start: "));
    }
}
