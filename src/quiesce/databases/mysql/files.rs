//! Where a server's files are, and whether they are in the set.
//!
//! In: the server's variables, the set. Out: [`check`]: nothing, or a refusal that names the variable and the
//! path. Must never: judge by a path of another mount namespace.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::containment;
use super::super::{Refusal, fact, note};
use crate::host::process;
use crate::quiesce::environment::SetMount;

/// The server's variables that matter here, by their names.
pub(super) type Variables = BTreeMap<String, String>;

/// Of these, the ones that name a place which must be in the set: what a server cannot start without.
const FOLDERS: [(&str, &str); 7] = [
    ("innodb_data_home_dir", "InnoDB's data"),
    ("innodb_log_group_home_dir", "InnoDB's log"),
    ("innodb_undo_directory", "InnoDB's undo log"),
    ("innodb_doublewrite_dir", "InnoDB's doublewrite buffer"),
    ("aria_log_dir_path", "Aria's log"),
    ("rocksdb_datadir", "MyRocks' data"),
    ("rocksdb_wal_dir", "MyRocks' log"),
];

/// All names that are asked for.
pub(super) const NAMES: [&str; 23] = [
    "aria_log_dir_path",
    "datadir",
    "gtid_mode",
    "innodb_data_file_path",
    "innodb_data_home_dir",
    "innodb_directories",
    "innodb_doublewrite_dir",
    "innodb_log_group_home_dir",
    "innodb_temp_data_file_path",
    "innodb_temp_tablespaces_dir",
    "innodb_undo_directory",
    "log_bin",
    "log_bin_basename",
    "pid_file",
    "relay_log_basename",
    "rocksdb_datadir",
    "rocksdb_wal_dir",
    "server_id",
    "server_uuid",
    "socket",
    "tmpdir",
    "version",
    "version_comment",
];

/// Refuses a server whose files are elsewhere, or not in the set.
pub(super) fn check(set: &[SetMount], variables: &Variables) -> Result<(), Refusal> {
    let get = |name: &str| variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let datadir = Path::new(get("datadir").unwrap_or("/"));
    let here = std::fs::metadata(datadir).map_err(|e| elsewhere(datadir, &e.to_string()))?;
    is_that_server(datadir, &here, variables)?;
    containment::check(set, "the data directory", datadir)?;
    fact("data_directory", containment::real(datadir).display());
    for (name, what) in FOLDERS {
        if let Some(folder) = get(name) {
            containment::check(set, &format!("{what} ({name})"), &datadir.join(folder))?;
        }
    }
    // MySQL 8 keeps tablespaces outside the data directory only where it is told to look for them, and leaves
    // no `.isl` file behind.
    for folder in get("innodb_directories").into_iter().flat_map(|d| d.split(';')).filter(|d| !d.is_empty()) {
        containment::check(set, "a folder of innodb_directories,", &datadir.join(folder))?;
    }
    let home = datadir.join(get("innodb_data_home_dir").unwrap_or_default());
    for file in get("innodb_data_file_path").unwrap_or_default().split(';') {
        let file = file.split(':').next().unwrap_or_default();
        if file.starts_with('/') {
            containment::check(set, "InnoDB's data (innodb_data_file_path)", &home.join(file))?;
        }
    }
    strays(set, datadir, &here, &temporary(datadir, variables))?;
    for (name, what, key) in [
        ("log_bin_basename", "the binary log", "binlog_in_set"),
        ("relay_log_basename", "the relay log", "relay_log_in_set"),
    ] {
        let Some(folder) = get(name).and_then(|base| Path::new(base).parent()) else { continue };
        let outside = containment::check(set, &format!("{what} ({name})"), &datadir.join(folder)).err();
        if let Some(refusal) = &outside {
            // The tables are whole without it: InnoDB's log is flushed under the locks.
            note(format!("{refusal}; the restored server starts without it, and without the events in it"));
        }
        fact(key, if outside.is_none() { "yes" } else { "no" });
    }
    Ok(())
}

fn elsewhere(datadir: &Path, why: &str) -> Refusal {
    let what = format!("the server's data directory {} is not the one here: {why}", datadir.display());
    Refusal::new(what).hint(
        "a server on another host, or in a container that has its own paths, cannot be quiesced from here; \
         [[container]] pauses one",
    )
}

/// A socket says nothing about whose paths the server means: one in a container answers on it as well.
fn is_that_server(datadir: &Path, here: &Metadata, variables: &Variables) -> Result<(), Refusal> {
    // MySQL keeps its identity in a file.
    if let (Some(uuid), Ok(auto)) =
        (variables.get("server_uuid"), std::fs::read_to_string(datadir.join("auto.cnf")))
    {
        let found = auto.lines().find_map(|l| l.trim().strip_prefix("server-uuid="));
        return match found {
            Some(found) if found.trim() != uuid => {
                Err(elsewhere(datadir, "auto.cnf has another server_uuid"))
            }
            _ => Ok(()),
        };
    }
    // Every server works in its data directory.
    let Some(pid_file) = variables.get("pid_file").filter(|f| !f.is_empty()) else { return Ok(()) };
    let pid_file = datadir.join(pid_file);
    let pid = match std::fs::read_to_string(&pid_file) {
        Ok(pid) => pid.trim().to_owned(),
        // `os_user` may not look: there is nothing to go by.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        Err(e) => return Err(elsewhere(datadir, &format!("its pid_file {}: {e}", pid_file.display()))),
    };
    // What is no number is no process: a path of somebody's choice must not be made of it.
    let works_here = match pid.parse() {
        Ok(pid) => process::works_in(Path::new("/"), pid, here),
        Err(_) => Err(std::io::ErrorKind::NotFound.into()),
    };
    match works_here {
        Ok(true) => Ok(()),
        Ok(false) => Err(elsewhere(datadir, &format!("process {pid} of its pid_file works elsewhere"))),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(_) => Err(elsewhere(datadir, &format!("there is no process {pid}, as its pid_file has it"))),
    }
}

/// Places of temporary files, which the server makes anew at each start: on an instance store, perhaps.
fn temporary(datadir: &Path, variables: &Variables) -> Vec<PathBuf> {
    let get = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
    let folders = get("tmpdir").split(':').chain([get("innodb_temp_tablespaces_dir")]);
    let files = get("innodb_temp_data_file_path").split(';').map(|f| f.split(':').next().unwrap_or_default());
    let all = folders.chain(files).filter(|p| !p.is_empty()).map(|p| datadir.join(p).components().collect());
    // The data directory itself holds everything else.
    all.filter(|path: &PathBuf| !datadir.starts_with(path)).collect()
}

/// What lies below the data directory and leads out of it: links, mount points, InnoDB's `.isl` files. Not what
/// is `temporary`.
fn strays(set: &[SetMount], datadir: &Path, here: &Metadata, temporary: &[PathBuf]) -> Result<(), Refusal> {
    let lasting = |path: &PathBuf| !temporary.contains(path);
    for entry in list(datadir)?.into_iter().filter(lasting) {
        lead(set, &entry, here)?;
        if entry.is_dir() {
            for file in list(&entry)?.into_iter().filter(lasting) {
                lead(set, &file, here)?;
            }
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Refusal> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.path()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()), // dropped meanwhile
        Err(e) => Err(Refusal::new(format!("cannot look into {}: {e}", folder.display()))
            .hint("leave `os_user` out, or name one who may read the data directory: os_user = \"mysql\"")),
    }
}

fn lead(set: &[SetMount], path: &Path, here: &Metadata) -> Result<(), Refusal> {
    if path.extension().is_some_and(|e| e == "isl")
        && let Ok(target) = std::fs::read_to_string(path)
    {
        return containment::check(set, "a table's file", Path::new(target.trim()));
    }
    match std::fs::metadata(path) {
        Ok(there) if there.dev() == here.dev() => Ok(()),
        // Links that lead nowhere, and files that go away while they are looked at, have no data elsewhere.
        Err(_) => Ok(()),
        Ok(_) if path.extension().is_some_and(|e| e == "sock") => Ok(()),
        Ok(_) => containment::check(set, "a part of the data directory,", path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::superblock;

    fn set_of(path: &Path) -> Vec<SetMount> {
        let dev = superblock::of_fd(std::fs::File::open(path).unwrap()).unwrap();
        vec![SetMount { mount_point: "/set".into(), dev }]
    }

    #[test]
    fn tables_that_lie_elsewhere_are_found() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        let (dir, other) = (memory.path(), disk.path());
        let set = set_of(dir);
        let look_but = |temporary: &[PathBuf]| strays(&set, dir, &std::fs::metadata(dir).unwrap(), temporary);
        let look = || look_but(&[]);
        std::fs::create_dir(dir.join("db")).unwrap();
        std::fs::write(dir.join("db/t.MYD"), "").unwrap();
        std::fs::write(other.join("t.ibd"), "").unwrap();
        symlink(dir.join("db/t.MYD"), dir.join("db/u.MYD")).unwrap();
        symlink("/nowhere", dir.join("db/v.MYD")).unwrap();
        look().unwrap();
        std::fs::write(dir.join("db/t.isl"), format!("{}\n", other.join("t.ibd").display())).unwrap();
        assert!(look().unwrap_err().what.contains("t.ibd is not on a filesystem of the set (/set)"));
        std::fs::remove_file(dir.join("db/t.isl")).unwrap();
        symlink(other, dir.join("db2")).unwrap();
        assert!(look().unwrap_err().what.contains("db2 is not on a filesystem of the set"));

        // Temporary files may lie anywhere, and nothing else.
        let variables: Variables = [
            ("innodb_temp_tablespaces_dir", "./db2/"),
            ("innodb_temp_data_file_path", "tmp1:12M:autoextend;db/tmp2:1M"),
            ("tmpdir", "/tmp:."),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let temporary = temporary(dir, &variables);
        assert_eq!(
            temporary,
            [PathBuf::from("/tmp"), dir.join("db2"), dir.join("tmp1"), dir.join("db/tmp2")]
        );
        look_but(&temporary).unwrap();
        for file in ["tmp1", "db/tmp2"] {
            symlink(other.join("t.ibd"), dir.join(file)).unwrap();
        }
        look_but(&temporary).unwrap();
        symlink(other.join("t.ibd"), dir.join("db/x.ibd")).unwrap();
        assert!(look_but(&temporary).unwrap_err().what.contains("x.ibd is not on a filesystem"));
    }

    #[test]
    fn a_server_that_works_elsewhere_is_not_this_one() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut variables = Variables::new();
        let look = |variables: &Variables| {
            is_that_server(dir.path(), &std::fs::metadata(dir.path()).unwrap(), variables)
        };
        look(&variables).unwrap();
        variables.insert("pid_file".into(), "pid".into());
        std::fs::write(dir.path().join("pid"), format!("{}\n", std::process::id())).unwrap();
        assert!(look(&variables).unwrap_err().what.contains("works elsewhere"));
        let mut there =
            std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        std::fs::write(dir.path().join("pid"), format!("{}\n", there.id())).unwrap();
        look(&variables).unwrap();
        std::fs::write(dir.path().join("pid"), format!("{0}/task/{0}", there.id())).unwrap();
        let no_number = look(&variables).unwrap_err();
        assert!(no_number.what.contains("there is no process"), "{no_number}");
        std::fs::write(dir.path().join("pid"), format!("{}\n", there.id())).unwrap();
        there.kill().unwrap();
        there.wait().unwrap();
        assert!(look(&variables).unwrap_err().what.contains("there is no process"));
        variables.insert("server_uuid".into(), "a-b".into());
        std::fs::write(dir.path().join("auto.cnf"), "[auto]\nserver-uuid=a-b\n").unwrap();
        look(&variables).unwrap();
        std::fs::write(dir.path().join("auto.cnf"), "[auto]\nserver-uuid=c\n").unwrap();
        assert!(look(&variables).unwrap_err().what.contains("another server_uuid"));
    }
}
