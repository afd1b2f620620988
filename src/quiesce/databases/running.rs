//! Database servers that run on this host and keep their data on given filesystems.
//!
//! In: `/proc` below a root; what tells each kind of server by ([`ServerKind`]). Out: one [`RunningServer`]
//! for each server, with the addresses that it listens on. Must never: connect to one, follow a process's
//! file descriptor or folder into a filesystem (only the links in /proc are read), or report "none" for what
//! could not be read.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::server::{RunningServer, ServerKind};
use super::{mongodb, mysql, postgresql, redis};
use crate::host::fdinfo::FdInfo;
use crate::host::mountinfo::{self, MountTree};
use crate::host::open_files::{self, Found, MountIds};
use crate::host::process::{self, Process, Stat};
use crate::host::sockets;
use crate::ids::DevNo;

/// Every kind. A new one is a file with its [`ServerKind`], and a line here.
const KINDS: [&dyn ServerKind; 4] =
    [&postgresql::local::Kind, &mysql::local::Kind, &redis::local::Kind, &mongodb::Kind];

/// The kind of server that a process of this name belongs to (/proc/PID/comm).
#[must_use]
pub fn kind_of(comm: &str) -> Option<&'static dyn ServerKind> {
    KINDS.into_iter().find(|kind| kind.process_names().contains(&comm))
}

/// Every server that has its data, or a file open for writing, on these superblocks.
///
/// # Errors
/// When /proc cannot be listed.
pub fn servers(root: &Path, on: &[DevNo]) -> io::Result<Found<RunningServer>> {
    let servers: HashMap<i32, ServerProcess> = process::pids(root)?
        .into_iter()
        .filter_map(|pid| {
            let process = Process::read(root, pid);
            let kind = kind_of(&process.comm)?;
            Some((pid, ServerProcess { kind, parent: parent(root, pid), process }))
        })
        .collect();
    let mut families: Vec<(i32, Vec<i32>)> = Vec::new();
    let mut pids: Vec<i32> = servers.keys().copied().collect();
    pids.sort_unstable();
    for pid in pids {
        let first = root_process(&servers, pid);
        match families.iter_mut().find(|(f, _)| *f == first) {
            Some((_, family)) => family.push(pid),
            None => families.push((first, vec![pid])),
        }
    }
    let mut mounts = MountIds::new(root);
    let mut found = Found { found: Vec::new(), hidden: 0 };
    for (first, family) in families {
        let server = &servers[&first];
        match examine(root, &mut mounts, server, &family, on) {
            Ok(Some(server)) => found.found.push(server),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => found.hidden += 1,
            Err(_) => {} // the process has ended
        }
    }
    Ok(found)
}

/// A process of a server.
struct ServerProcess {
    kind: &'static dyn ServerKind,
    parent: Option<i32>,
    process: Process,
}

fn parent(root: &Path, pid: i32) -> Option<i32> {
    Some(Stat::read(root, pid).ok()??.parent)
}

/// The first process of the server that this one belongs to: backends and children that save are its
/// descendants.
fn root_process(of: &HashMap<i32, ServerProcess>, pid: i32) -> i32 {
    let mut first = pid;
    // A process that ended in between could have left a circle of ids.
    for _ in 0..of.len() {
        let same = |parent: &i32| of.get(parent).is_some_and(|p| p.kind == of[&first].kind);
        match of[&first].parent.filter(same) {
            Some(parent) => first = parent,
            None => break,
        }
    }
    first
}

/// One server; none when it has nothing on these superblocks, or is not a database.
fn examine(
    root: &Path,
    mounts: &mut MountIds<'_>,
    process: &ServerProcess,
    family: &[i32],
    on: &[DevNo],
) -> io::Result<Option<RunningServer>> {
    let first = process.process.pid;
    if !process.kind.keeps_data(&process::command_line(root, first)?) {
        return Ok(None);
    }
    let folder = process::working_folder(root, first)?;
    let (mut devices, mut inodes, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for pid in family {
        let files = match open_files::of_process(root, *pid) {
            Err(_) if *pid != first => continue, // a child that has ended
            files => files?,
        };
        for (fd, target) in files {
            if let Some(inode) = sockets::inode(&target).filter(|_| *pid == first) {
                inodes.push(inode.to_owned());
            } else if let Some(id) = written_to(root, *pid, &fd).filter(|_| target.is_absolute()) {
                devices.extend(mounts.superblock(*pid, id));
                written.push(target);
            }
        }
    }
    let data = process.kind.data_directory(folder, &written);
    let table = mountinfo::read(root, &first.to_string())?.lines;
    devices.extend(MountTree::new(&table).mount_of(&data).map(|line| line.dev));
    devices.retain(|d| on.contains(d));
    devices.sort_unstable();
    devices.dedup();
    if devices.is_empty() {
        return Ok(None);
    }
    let (sockets, addresses) = sockets::listening(root, first, &inodes);
    Ok(Some(RunningServer {
        kind: process.kind,
        process: process.process.clone(),
        data,
        on: devices,
        sockets,
        addresses,
        written,
        container: in_own_namespaces(root, first),
    }))
}

/// The mount id of a file that is open for writing.
fn written_to(root: &Path, pid: i32, fd: &str) -> Option<u32> {
    let info = FdInfo::of_process(root, pid, fd)?;
    info.mount().filter(|_| info.is_writable())
}

/// Has it a pid or network namespace other than this host's? Mount namespaces are not compared, because
/// services have their own.
fn in_own_namespaces(root: &Path, pid: i32) -> bool {
    let namespace = |process: &str, kind| process::namespace(root, process, kind);
    ["pid", "net"].into_iter().any(|kind| {
        match (namespace("self", kind), namespace(&pid.to_string(), kind)) {
            (Ok(ours), Ok(theirs)) => ours != theirs,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    const DATA: DevNo = DevNo { major: 259, minor: 7 };
    const WAL: DevNo = DevNo { major: 259, minor: 9 };
    const TABLE: &str = "21 1 259:1 / / rw - ext4 /dev/a rw\n33 21 259:7 / /data rw - xfs /dev/b rw\n\
                         34 21 259:9 / /wal rw - xfs /dev/c rw\n";

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Self {
            let proc = Self(tempfile::tempdir().unwrap());
            proc.write("self/mountinfo", TABLE);
            proc.link("self/ns/net", "net:[1]");
            proc
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        /// A process; files are open for writing when they begin with `+`.
        fn process(&self, pid: i32, parent: i32, comm: &str, cwd: &str, files: &[(&str, u32)]) {
            self.write(&format!("{pid}/comm"), &format!("{comm}\n"));
            self.write(&format!("{pid}/cmdline"), &format!("{comm}\0"));
            let rest = "0 ".repeat(17);
            self.write(&format!("{pid}/stat"), &format!("{pid} ({comm}) S {parent} {pid} {rest}\n"));
            self.write(&format!("{pid}/mountinfo"), TABLE);
            self.link(&format!("{pid}/cwd"), cwd);
            self.link(&format!("{pid}/ns/net"), "net:[1]");
            fs::create_dir_all(self.0.path().join(format!("proc/{pid}/fd"))).unwrap();
            for (fd, (file, mount)) in files.iter().enumerate() {
                self.link(&format!("{pid}/fd/{fd}"), file.trim_start_matches('+'));
                let flags = if file.starts_with('+') { "0100002" } else { "0100000" };
                self.write(
                    &format!("{pid}/fdinfo/{fd}"),
                    &format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t{mount}\n"),
                );
            }
        }

        fn found(&self, on: &[DevNo]) -> Vec<RunningServer> {
            servers(self.0.path(), on).unwrap().found
        }
    }

    #[test]
    fn a_process_name_belongs_to_one_kind_and_the_kernel_can_say_it() {
        let names: Vec<&str> = KINDS.iter().flat_map(|kind| kind.process_names()).copied().collect();
        for name in &names {
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{name}");
            assert!(name.len() <= 15, "{name}: the kernel cuts off what is longer");
            assert!(kind_of(name).unwrap().process_names().contains(name));
        }
        assert_eq!(kind_of("cat"), None);
    }

    #[test]
    fn the_processes_of_one_server_are_one_server() {
        let proc = Proc::new();
        proc.process(
            10,
            1,
            "postgres",
            "/data/main",
            &[("socket:[77]", 9), ("socket:[78]", 9), ("+/data/main/x", 33)],
        );
        proc.process(11, 10, "postgres", "/data/main", &[("+/wal/0001", 34)]);
        proc.process(12, 10, "postgres", "/data/main", &[]);
        proc.write(
            "10/net/unix",
            "Num RefCount Protocol Flags Type St Inode Path\n\
             0: 00000002 00000000 00010000 0001 01 77 /run/postgresql/.s.PGSQL.5433\n\
             0: 00000003 00000000 00000000 0001 03 78 /run/postgresql/.s.PGSQL.5433\n\
             0: 00000002 00000000 00010000 0001 01 99 /run/other\n",
        );
        proc.write(
            "10/net/tcp",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000   109        0 78 1\n\
             \x20  1: 0100007F:1539 0100007F:9999 01 00000000:00000000 00:00000000 00000000   109        0 78 1\n",
        );
        proc.write(
            "10/net/tcp6",
            "  sl  local_address                         remote_address                        st\n\
             \x20  0: 00000000000000000000000001000000:1539 00000000000000000000000000000000:0000 0A 0:0 0:0 0 109 0 78 1\n",
        );
        let found = proc.found(&[DATA, WAL]);
        assert_eq!(found.len(), 1, "{found:?}");
        let pg = &found[0];
        assert_eq!((pg.kind.id(), pg.process.pid, pg.data.to_str()), ("postgresql", 10, Some("/data/main")));
        assert_eq!(pg.on, [DATA, WAL], "a child writes there");
        assert_eq!(pg.sockets, [Path::new("/run/postgresql/.s.PGSQL.5433")]);
        let addresses: Vec<String> = pg.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:5433", "[::1]:5433"]);
        assert!(!pg.container);
        assert_eq!(proc.found(&[WAL]).len(), 1);
        assert_eq!(proc.found(&[DevNo { major: 8, minor: 1 }]), []);
    }

    #[test]
    fn a_server_without_open_files_is_where_its_folder_is() {
        let proc = Proc::new();
        proc.process(10, 1, "redis-server", "/data/redis", &[]);
        proc.process(
            11,
            1,
            "redis-server",
            "/data/redis-aof",
            &[("+/data/redis-aof/appendonlydir/x.incr.aof", 33)],
        );
        proc.process(12, 1, "redis-server", "/etc", &[]);
        proc.process(13, 1, "redis-server", "/data/sentinel", &[]);
        proc.write("13/cmdline", "redis-server *:26379 [sentinel]\0");
        proc.process(14, 1, "cat", "/data", &[("+/data/x", 33)]);
        proc.process(15, 1, "redis-server", "/etc", &[("/data/only-read", 33)]);
        let found = proc.found(&[DATA]);
        let told: Vec<_> = found.iter().map(|s| (s.process.pid, s.written.as_slice())).collect();
        let aof: &[PathBuf] = &["/data/redis-aof/appendonlydir/x.incr.aof".into()];
        assert_eq!(told, [(10, &[][..]), (11, aof)]);
    }

    #[test]
    fn mongod_is_where_its_lock_is() {
        let proc = Proc::new();
        proc.process(
            10,
            1,
            "mongod",
            "/",
            &[("+/var/log/mongod.log", 21), ("+/data/mongo/WiredTiger.lock", 33)],
        );
        let found = proc.found(&[DATA]);
        assert_eq!((found[0].kind.id(), found[0].data.to_str()), ("mongodb", Some("/data/mongo")));
    }

    #[test]
    fn a_server_whose_mounts_cannot_be_understood_is_found_by_its_open_files() {
        let proc = Proc::new();
        proc.process(10, 1, "mysqld", "/data/mysql", &[("+/data/mysql/ibdata1", 33)]);
        proc.write("10/mountinfo", "no line of a mount table\n");
        assert_eq!(proc.found(&[DATA]).len(), 1);
    }

    #[test]
    fn another_network_is_told() {
        let proc = Proc::new();
        proc.process(10, 1, "mariadbd", "/data/mysql", &[]);
        fs::remove_file(proc.0.path().join("proc/10/ns/net")).unwrap();
        proc.link("10/ns/net", "net:[2]");
        assert!(proc.found(&[DATA])[0].container);
    }
}
