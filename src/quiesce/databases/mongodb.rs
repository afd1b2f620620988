//! MongoDB, as far as it is known without asking it. It has no section of its own: a shipped session hook
//! quiesces it.
//!
//! In: what /proc shows of its processes. Out: its [`ServerKind`]. Must never: connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::server::{RunningServer, ServerKind};
use crate::config::settings::HookKind;

const PORT: u16 = 27017;
/// Open for as long as it runs, in its data directory; the second is the storage engine's.
const LOCKS: [&str; 2] = ["mongod.lock", "WiredTiger.lock"];
const HOOK: &str = "/usr/share/stillpoint/hooks/mongodb-fsynclock";

/// MongoDB.
pub(super) struct Kind;

impl ServerKind for Kind {
    fn id(&self) -> &'static str {
        "mongodb"
    }

    fn title(&self) -> &'static str {
        "MongoDB"
    }

    fn process_names(&self) -> &'static [&'static str] {
        &["mongod"]
    }

    /// Its working directory is `/`, but it has its lock file open.
    fn data_directory(&self, working_folder: PathBuf, written: &[PathBuf]) -> PathBuf {
        let is_lock = |f: &&PathBuf| f.file_name().is_some_and(|n| LOCKS.iter().any(|lock| n == *lock));
        written.iter().find(is_lock).and_then(|f| f.parent()).map_or(working_folder, Path::to_owned)
    }

    fn is_for(&self, section: &HookKind) -> bool {
        matches!(section, HookKind::Session(s) if s.command.iter().any(|word| word.contains("mongo")))
    }

    /// Where a session of the user's own connects is not known.
    fn leads_to(&self, _section: &HookKind, _server: &RunningServer) -> bool {
        false
    }

    fn suggestion(&self, server: &RunningServer, _name: Option<&str>) -> String {
        let other = server.addresses.iter().map(SocketAddr::port).find(|p| *p != PORT);
        let other =
            other.map(|p| format!("# port {p}: see MONGODB_URI_FILE in that file\n")).unwrap_or_default();
        format!(
            "[[session]]\nname = \"mongodb\"\ncommand = [\"{HOOK}\"]\nrelease = [\"{HOOK}\", \"unlock\"]\n\
             timeout = \"60s\"\n{other}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::made;
    use super::*;

    #[test]
    fn another_port_than_the_usual_one_is_told() {
        let suggested = |address: &str| Kind.suggestion(&made(&Kind, &[], &[address]), None);
        assert!(!suggested("127.0.0.1:27017").contains('#'));
        assert!(suggested("127.0.0.1:27018").ends_with("# port 27018: see MONGODB_URI_FILE in that file\n"));
    }

    #[test]
    fn its_data_is_where_a_lock_is_and_else_where_it_works() {
        let of = |written: &[&str]| {
            Kind.data_directory("/".into(), &written.iter().map(PathBuf::from).collect::<Vec<_>>())
        };
        for lock in LOCKS {
            assert_eq!(of(&["/var/log/mongod.log", &format!("/data/m/{lock}")]), Path::new("/data/m"));
        }
        assert_eq!(of(&["/var/log/mongod.log"]), Path::new("/"));
    }
}
