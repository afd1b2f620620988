//! Which server it is, and what the same thing is called there.
//!
//! In: what the server says of itself. Out: [`Flavour`]. Must never: take a statement for one that the server
//! has when it may not.

use std::fmt;

use crate::config::settings::MysqlMethod;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Mysql,
    Mariadb,
}

/// A server's make and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour {
    pub make: Make,
    pub version: (u32, u32, u32),
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let make = if self.make == Make::Mariadb { "MariaDB" } else { "MySQL" };
        let (major, minor, patch) = self.version;
        write!(f, "{make} {major}.{minor}.{patch}")
    }
}

/// What quiesces the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// BACKUP STAGE.
    Stages,
    /// LOCK INSTANCE FOR BACKUP and FLUSH TABLES WITH READ LOCK.
    InstanceAndRead,
    /// FLUSH TABLES WITH READ LOCK.
    Read,
}

impl Lock {
    /// One after another.
    pub(super) fn take(self) -> &'static [&'static str] {
        match self {
            Self::Stages => &[
                "BACKUP STAGE START",
                "BACKUP STAGE FLUSH",
                "BACKUP STAGE BLOCK_DDL",
                "BACKUP STAGE BLOCK_COMMIT",
            ],
            Self::InstanceAndRead => &["LOCK INSTANCE FOR BACKUP", "FLUSH TABLES WITH READ LOCK"],
            Self::Read => &["FLUSH TABLES WITH READ LOCK"],
        }
    }

    /// The same way back.
    pub(super) fn give_back(self) -> &'static [&'static str] {
        match self {
            // Fails unless the stage is still in force: a proof, where UNLOCK TABLES is content with
            // anything.
            Self::Stages => &["BACKUP STAGE END"],
            Self::InstanceAndRead => &["UNLOCK TABLES", "UNLOCK INSTANCE"],
            Self::Read => &["UNLOCK TABLES"],
        }
    }
}

impl Flavour {
    /// From `@@version` and `@@version_comment`.
    pub(super) fn parse(version: &str, comment: &str) -> Self {
        let maria = [version, comment].iter().any(|t| t.to_ascii_lowercase().contains("mariadb"));
        let make = if maria { Make::Mariadb } else { Make::Mysql };
        let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
        let mut numbers = numbers.split('.').map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { make, version: (next(), next(), next()) }
    }

    pub(super) fn is_mariadb(self) -> bool {
        self.make == Make::Mariadb
    }

    fn mysql_from(self, version: (u32, u32, u32)) -> bool {
        !self.is_mariadb() && self.version >= version
    }

    pub(super) fn lock(self, method: MysqlMethod) -> Lock {
        match method {
            MysqlMethod::ReadLock => Lock::Read,
            // 10.4.1 was the first to have the stages; it was never released as stable.
            MysqlMethod::Backup if self.is_mariadb() && self.version >= (10, 4, 2) => Lock::Stages,
            MysqlMethod::Backup if self.mysql_from((8, 0, 0)) => Lock::InstanceAndRead,
            MysqlMethod::Backup => Lock::Read,
        }
    }

    /// The statement whose one row is the position in the binary log.
    pub(super) fn show_position(self) -> &'static str {
        if self.mysql_from((8, 4, 0)) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// The statement that has a row for each source this server replicates from.
    pub(super) fn show_replica(self) -> &'static str {
        match self.make {
            Make::Mariadb => "SHOW ALL SLAVES STATUS",
            Make::Mysql if self.mysql_from((8, 0, 22)) => "SHOW REPLICA STATUS",
            Make::Mysql => "SHOW SLAVE STATUS",
        }
    }

    /// Starts or stops the SQL thread of one source.
    pub(super) fn sql_thread(self, verb: &str, channel: &str) -> String {
        let quoted = channel.replace('\\', "\\\\").replace('\'', "''");
        match self.make {
            Make::Mariadb => format!("{verb} SLAVE '{quoted}' SQL_THREAD"),
            Make::Mysql if self.mysql_from((8, 0, 22)) => {
                format!("{verb} REPLICA SQL_THREAD FOR CHANNEL '{quoted}'")
            }
            // Before 5.7 there are no channels.
            Make::Mysql if channel.is_empty() => format!("{verb} SLAVE SQL_THREAD"),
            Make::Mysql => format!("{verb} SLAVE SQL_THREAD FOR CHANNEL '{quoted}'"),
        }
    }

    /// The privileges it takes, each with the other names it goes by.
    pub(super) fn privileges(self, lock: Lock, stop_replica: bool) -> Vec<&'static [&'static str]> {
        let maria_5 = self.is_mariadb() && self.version >= (10, 5, 2);
        let mut needed: Vec<&[&str]> = vec![&["RELOAD"], &["PROCESS"]];
        if maria_5 {
            needed.push(&["BINLOG MONITOR", "REPLICATION CLIENT"]);
            needed.push(&["SLAVE MONITOR", "REPLICA MONITOR"]);
        } else {
            needed.push(&["REPLICATION CLIENT"]);
        }
        if lock == Lock::InstanceAndRead {
            needed.push(&["BACKUP_ADMIN"]);
        }
        if stop_replica {
            needed.push(match self.make {
                Make::Mariadb if maria_5 => {
                    &["REPLICATION SLAVE ADMIN", "REPLICATION REPLICA ADMIN", "SUPER"]
                }
                Make::Mysql if self.mysql_from((8, 0, 0)) => &["REPLICATION_SLAVE_ADMIN", "SUPER"],
                _ => &["SUPER"],
            });
        }
        needed
    }
}

/// What is missing of `needed`, given the lines of SHOW GRANTS.
pub(super) fn missing(needed: &[&'static [&'static str]], grants: &[String]) -> Vec<&'static str> {
    let mut have: Vec<String> = Vec::new();
    for line in grants {
        let everywhere = line.strip_prefix("GRANT ").and_then(|l| l.split_once(" ON *.* TO "));
        let Some((privileges, _)) = everywhere else { continue };
        have.extend(privileges.split(',').map(|p| p.trim().to_ascii_uppercase()));
    }
    let all = have.iter().any(|p| p == "ALL PRIVILEGES" || p == "ALL");
    let lacks = |names: &&&[&'static str]| !all && !names.iter().any(|n| have.iter().any(|p| p == n));
    needed.iter().filter(lacks).map(|names| names[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(version: &str) -> Flavour {
        Flavour::parse(version, "")
    }

    #[test]
    fn each_server_is_quiesced_by_what_it_has() {
        use MysqlMethod::{Backup, ReadLock};
        for (version, comment, name, lock) in [
            ("10.11.19-MariaDB-0+deb12u1-log", "Debian 12", "MariaDB 10.11.19", Lock::Stages),
            ("11.4.2", "MariaDB Server", "MariaDB 11.4.2", Lock::Stages),
            ("10.3.39-MariaDB", "", "MariaDB 10.3.39", Lock::Read),
            ("8.0.36-0ubuntu0.22.04.1", "(Ubuntu)", "MySQL 8.0.36", Lock::InstanceAndRead),
            ("8.4.0", "MySQL Community Server - GPL", "MySQL 8.4.0", Lock::InstanceAndRead),
            ("5.7.44-log", "", "MySQL 5.7.44", Lock::Read),
        ] {
            let flavour = Flavour::parse(version, comment);
            assert_eq!((flavour.to_string().as_str(), flavour.lock(Backup)), (name, lock));
            assert_eq!(flavour.lock(ReadLock), Lock::Read);
        }
    }

    #[test]
    fn statements_are_those_of_the_version() {
        assert_eq!(parse("8.4.0").show_position(), "SHOW BINARY LOG STATUS");
        assert_eq!(parse("8.0.36").show_position(), "SHOW MASTER STATUS");
        assert_eq!(parse("11.4.2-MariaDB").show_position(), "SHOW MASTER STATUS");
        assert_eq!(parse("10.6.1-MariaDB").sql_thread("STOP", "it's"), "STOP SLAVE 'it''s' SQL_THREAD");
        assert_eq!(parse("8.0.36").sql_thread("START", "c"), "START REPLICA SQL_THREAD FOR CHANNEL 'c'");
        assert_eq!(parse("5.6.1").sql_thread("STOP", ""), "STOP SLAVE SQL_THREAD");
    }

    #[test]
    fn what_is_not_granted_everywhere_is_missing() {
        let grants = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let maria = parse("10.11.19-MariaDB");
        let needed = maria.privileges(Lock::Stages, true);
        let given = grants(&[
            "GRANT `r` TO `st2`@`localhost`",
            "GRANT PROCESS, BINLOG MONITOR ON *.* TO `st`@`localhost` IDENTIFIED BY PASSWORD '*D8'",
            "GRANT RELOAD ON *.* TO `r`",
            "GRANT ALL PRIVILEGES ON `db`.* TO `st`@`localhost`",
        ]);
        assert_eq!(missing(&needed, &given), ["SLAVE MONITOR", "REPLICATION SLAVE ADMIN"]);
        let all = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(missing(&needed, &all).is_empty());
        let mysql = parse("8.0.36").privileges(Lock::InstanceAndRead, false);
        let given =
            grants(&["GRANT RELOAD, PROCESS ON *.* TO `s`@`%`", "GRANT BACKUP_ADMIN ON *.* TO `s`@`%`"]);
        assert_eq!(missing(&mysql, &given), ["REPLICATION CLIENT"]);
        assert_eq!(missing(&parse("5.7.1").privileges(Lock::Read, true), &[]).len(), 4);
    }
}
