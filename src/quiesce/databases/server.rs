//! A database server that runs here, and what is known of its kind without asking it.
//!
//! In: what /proc shows of its processes. Out: [`RunningServer`]; [`ServerKind`], which each database brings
//! in its own folder. Must never: connect, or tell the kinds apart: whoever needs to asks through the trait.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::config::settings::HookKind;
use crate::host::process::Process;
use crate::ids::DevNo;
use crate::path_encoding;

/// A server, with all of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningServer {
    /// What it is.
    pub kind: &'static dyn ServerKind,
    /// Its first process.
    pub process: Process,
    /// Its data directory, as the server names it.
    #[serde(serialize_with = "path_encoding::path")]
    pub data: PathBuf,
    /// Those of the given superblocks that have its data directory, or files that it has open for writing.
    #[serde(skip)]
    pub on: Vec<DevNo>,
    /// Unix sockets that it listens on.
    #[serde(serialize_with = "path_encoding::paths")]
    pub sockets: Vec<PathBuf>,
    /// Addresses that it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Files that its processes have open for writing, wherever they are.
    #[serde(skip)]
    pub written: Vec<PathBuf>,
    /// Does it run in namespaces of its own, as in a container? Then its paths and ports are not the host's.
    pub container: bool,
}

/// A kind of database server.
pub trait ServerKind: Sync {
    /// Its key: the section that quiesces it, where it has one of its own.
    fn id(&self) -> &'static str;

    /// As people call it.
    fn title(&self) -> &'static str;

    /// The names of its processes (/proc/PID/comm).
    fn process_names(&self) -> &'static [&'static str];

    /// Does a process with this command line keep data? A monitor of other servers does not.
    fn keeps_data(&self, _command_line: &[u8]) -> bool {
        true
    }

    /// Its data directory, by where its first process works and what its processes have open for writing.
    fn data_directory(&self, working_folder: PathBuf, _written: &[PathBuf]) -> PathBuf {
        working_folder
    }

    /// Is this section for servers of this kind?
    fn is_for(&self, section: &HookKind) -> bool;

    /// Does this section, which is for servers of this kind, connect to where this one listens?
    fn leads_to(&self, section: &HookKind, server: &RunningServer) -> bool;

    /// The section to add for this server, as it is written in a file. `name`: what it is called where it
    /// needs a name, because there is another one of its kind.
    fn suggestion(&self, server: &RunningServer, name: Option<&str>) -> String;
}

impl PartialEq for dyn ServerKind {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for dyn ServerKind {}

impl fmt::Debug for dyn ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Display for dyn ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

impl Serialize for dyn ServerKind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.id())
    }
}

impl RunningServer {
    /// Does it listen on this port?
    pub(super) fn listens_on(&self, port: u16) -> bool {
        self.addresses.iter().any(|a| a.port() == port)
    }

    /// Does it listen on this socket?
    pub(super) fn has_socket(&self, socket: &Path) -> bool {
        self.sockets.iter().any(|s| same_path(s, socket))
    }

    /// Where it can be connected to: none stands for this host's own address. 0.0.0.0 cannot be connected to:
    /// it stands for every address, the host's own included.
    pub(super) fn address(&self) -> Option<(Option<IpAddr>, u16)> {
        let address = self.addresses.first()?;
        let own = address.ip().is_unspecified() || address.ip().is_loopback();
        Some(((!own).then(|| address.ip()), address.port()))
    }

    /// The host of its first address; this host's own where that is any or none.
    pub(super) fn host_or_local(&self) -> String {
        let host = self.address().and_then(|(host, _)| host);
        host.map_or_else(|| "127.0.0.1".to_owned(), |h| h.to_string())
    }
}

/// Do they name the same file? /var/run is a link to /run.
pub(super) fn same_path(one: &Path, other: &Path) -> bool {
    let run = |p: &Path| p.strip_prefix("/var/run").map_or(p.to_owned(), |rest| Path::new("/run").join(rest));
    run(one) == run(other)
}

/// For tests of the kinds: a server that was found with these sockets and addresses.
#[cfg(test)]
pub(super) fn made(kind: &'static dyn ServerKind, sockets: &[&str], addresses: &[&str]) -> RunningServer {
    RunningServer {
        kind,
        process: Process { pid: 1, comm: kind.process_names()[0].into() },
        data: "/data".into(),
        on: vec![],
        sockets: sockets.iter().map(PathBuf::from).collect(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        written: vec![],
        container: false,
    }
}
