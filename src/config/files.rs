//! Which files make up the configuration, in which order.
//!
//! In: a root directory, or one file named by the user. Out: the files in the order they are merged, with
//! their text, and those that were masked or replaced, so that `config check` can list them. Must never: skip
//! a file that exists and cannot be read (an ordinary user, who can only look, is told which those are), or
//! read one that somebody else than root (or this process's user)
//! could change: what is in it runs as root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ConfigError;
use crate::host::trust::{self, OpenError, Trusted};

/// The main file, below the root.
pub(crate) const MAIN_FILE: &str = "etc/stillpoint/stillpoint.toml";
/// The drop-in directories below the root, weakest first: a name in a later one replaces the same name in an
/// earlier one.
pub(crate) const DROP_IN_DIRS: [&str; 3] =
    ["usr/lib/stillpoint/config.d", "run/stillpoint/config.d", "etc/stillpoint/config.d"];

/// More than any configuration needs; a limit so that reading a wrong `--config /dev/zero` ends.
const MAX_SIZE: u64 = 1 << 20;

/// A file that makes up the configuration, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether its text counts, and if not, why.
    #[serde(flatten)]
    pub status: FileStatus,
}

/// Whether a file was read, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum FileStatus {
    /// Merged over the files before it.
    Read,
    /// Empty, or a link to /dev/null: hides the same name in weaker directories.
    Masked,
    /// Not read, because of the same name in a stronger directory.
    Replaced {
        /// What was used instead.
        by: PathBuf,
    },
    /// Counts, and only root may read it: the file, or the folder of drop-ins.
    #[serde(rename = "needs-root")]
    NeedsRoot,
    /// The main file, which need not exist.
    Missing,
}

/// A file and its text; no text unless its status is [`FileStatus::Read`].
pub(super) struct Source {
    pub file: ConfigFile,
    pub text: Option<String>,
}

impl Source {
    fn without_text(path: PathBuf, status: FileStatus) -> Self {
        Self { file: ConfigFile { path, status }, text: None }
    }
}

/// Finds and reads all files, in the order they are merged.
pub(super) fn find(root: &Path, config_file: Option<&Path>) -> Result<Vec<Source>, ConfigError> {
    if let Some(path) = config_file {
        // Given by the user: it must exist, and the drop-ins of the host do not apply.
        let text = read(path)?;
        let file = ConfigFile { path: path.to_owned(), status: FileStatus::Read };
        return Ok(vec![Source { file, text: Some(text) }]);
    }
    let main = root.join(MAIN_FILE);
    let mut found = vec![match read(&main) {
        Ok(text) => Source { file: ConfigFile { path: main, status: FileStatus::Read }, text: Some(text) },
        Err(e) if needs_root(&e) => Source::without_text(main, FileStatus::NeedsRoot),
        Err(e) if is_absent(&e, &main) => Source::without_text(main, FileStatus::Missing),
        Err(e) => return Err(e),
    }];
    let DropIns { by_name, closed } = drop_ins(root)?;
    found.extend(closed.into_iter().map(|dir| Source::without_text(dir, FileStatus::NeedsRoot)));
    for paths in by_name.into_values() {
        let Some((winner, replaced)) = paths.split_last() else { continue };
        for path in replaced {
            let status = FileStatus::Replaced { by: winner.clone() };
            found.push(Source::without_text(path.clone(), status));
        }
        // A link to /dev/null reads as empty, too.
        let text = match read(winner) {
            Err(e) if needs_root(&e) => {
                found.push(Source::without_text(winner.clone(), FileStatus::NeedsRoot));
                continue;
            }
            read => read?,
        };
        found.push(if text.is_empty() {
            Source::without_text(winner.clone(), FileStatus::Masked)
        } else {
            let file = ConfigFile { path: winner.clone(), status: FileStatus::Read };
            Source { file, text: Some(text) }
        });
    }
    Ok(found)
}

#[derive(Default)]
struct DropIns {
    /// File name → every path with that name, strongest last.
    by_name: BTreeMap<OsString, Vec<PathBuf>>,
    /// Folders that only root may list, where this process is not root's.
    closed: Vec<PathBuf>,
}

fn drop_ins(root: &Path) -> Result<DropIns, ConfigError> {
    let mut all = DropIns::default();
    for dir in DROP_IN_DIRS.map(|d| root.join(d)) {
        let failed = |source| ConfigError::Read { path: dir.clone(), source };
        let folder = match open(&dir) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(e) if needs_root(&e) => {
                all.closed.push(dir);
                continue;
            }
            opened => opened?,
        };
        let entries = fs::read_dir(trust::by_descriptor(&folder)).map_err(failed)?;
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // Names with a leading dot are lock and swap files of editors.
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if !hidden && Path::new(&name).extension().is_some_and(|x| x == "toml") {
                all.by_name.entry(name.clone()).or_default().push(dir.join(name));
            }
        }
    }
    Ok(all)
}

/// True when the file does not exist. A dangling link is not absent but an error, because somebody meant
/// the file to exist.
fn is_absent(error: &ConfigError, path: &Path) -> bool {
    matches!(error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
        && fs::symlink_metadata(path).is_err()
}

/// May only root read it, where this process is not root's? Whoever is not root only looks: at a plan, at the
/// configuration. All that he is shown says what was not read.
fn needs_root(error: &ConfigError) -> bool {
    let denied =
        matches!(error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    denied && !nix::unistd::geteuid().is_root()
}

/// Opens a file or folder that nobody else could change.
fn open(path: &Path) -> Result<fs::File, ConfigError> {
    trust::open(path, Trusted::own()).map_err(|e| match e {
        OpenError::Io(source) => ConfigError::Read { path: path.to_owned(), source },
        OpenError::Loose(loose) => ConfigError::Loose { path: path.to_owned(), loose },
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let unusable = |problem, hint| ConfigError::File { path: path.to_owned(), problem, hint };
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(unusable("it is larger than 1 MiB", "is this the right file?"));
    }
    String::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8", "TOML files are UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn put(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn listing(root: &Path) -> Vec<(String, FileStatus)> {
        let files = find(root, None).unwrap();
        files
            .into_iter()
            .map(|s| (s.file.path.strip_prefix(root).unwrap().display().to_string(), s.file.status))
            .collect()
    }

    #[test]
    fn nothing_there_is_fine() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(listing(root.path()), [(MAIN_FILE.to_owned(), FileStatus::Missing)]);
    }

    #[test]
    fn drop_ins_sort_by_name_over_all_directories_and_later_directories_replace() {
        let root = tempfile::tempdir().unwrap();
        let r = root.path();
        put(r, MAIN_FILE, "a=1");
        put(r, "etc/stillpoint/config.d/10-a.toml", "a=1");
        put(r, "usr/lib/stillpoint/config.d/20-b.toml", "a=1");
        let winner = put(r, "run/stillpoint/config.d/20-b.toml", "a=1");
        put(r, "usr/lib/stillpoint/config.d/30-c.toml", "a=1");
        put(r, "etc/stillpoint/config.d/30-c.toml", "");
        put(r, "usr/lib/stillpoint/config.d/40-d.toml", "a=1");
        symlink("/dev/null", r.join("etc/stillpoint/config.d/40-d.toml")).unwrap();
        put(r, "etc/stillpoint/config.d/notes.txt", "not TOML");
        put(r, "etc/stillpoint/config.d/.#10-a.toml", "not TOML");
        let by = |p: &str| FileStatus::Replaced { by: r.join(p) };
        let expected = [
            (MAIN_FILE, FileStatus::Read),
            ("etc/stillpoint/config.d/10-a.toml", FileStatus::Read),
            ("usr/lib/stillpoint/config.d/20-b.toml", FileStatus::Replaced { by: winner }),
            ("run/stillpoint/config.d/20-b.toml", FileStatus::Read),
            ("usr/lib/stillpoint/config.d/30-c.toml", by("etc/stillpoint/config.d/30-c.toml")),
            ("etc/stillpoint/config.d/30-c.toml", FileStatus::Masked),
            ("usr/lib/stillpoint/config.d/40-d.toml", by("etc/stillpoint/config.d/40-d.toml")),
            ("etc/stillpoint/config.d/40-d.toml", FileStatus::Masked),
        ];
        assert_eq!(listing(r), expected.map(|(p, s)| (p.to_owned(), s)));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let r = root.path();
        let dangling = r.join("etc/stillpoint/config.d/10-a.toml");
        fs::create_dir_all(dangling.parent().unwrap()).unwrap();
        symlink("/nowhere/at/all", &dangling).unwrap();
        assert!(matches!(find(r, None), Err(ConfigError::Read { path, .. }) if path == dangling));
        fs::remove_file(&dangling).unwrap();
        fs::create_dir(&dangling).unwrap();
        assert!(find(r, None).is_err(), "a directory");
        assert!(find(r, Some(&r.join("missing.toml"))).is_err(), "named by hand");
        fs::write(r.join("latin1.toml"), b"# caf\xe9").unwrap();
        assert!(matches!(find(r, Some(&r.join("latin1.toml"))), Err(ConfigError::File { .. })));
    }

    #[test]
    fn a_main_file_that_somebody_meant_to_be_there_is_not_missing() {
        let root = tempfile::tempdir().unwrap();
        let main = root.path().join(MAIN_FILE);
        fs::create_dir_all(main.parent().unwrap()).unwrap();
        symlink("/nowhere/at/all", &main).unwrap();
        assert!(matches!(find(root.path(), None), Err(ConfigError::Read { path, .. }) if path == main));
        fs::remove_file(&main).unwrap();
        fs::create_dir(&main).unwrap();
        assert!(matches!(find(root.path(), None), Err(ConfigError::Read { path, .. }) if path == main));
    }

    #[test]
    fn a_drop_in_directory_that_is_none_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = put(root.path(), "etc/stillpoint/config.d", "a file");
        assert!(matches!(find(root.path(), None), Err(ConfigError::Read { path: p, .. }) if p == path));
    }

    #[test]
    fn a_file_has_a_largest_size() {
        let root = tempfile::tempdir().unwrap();
        let size = usize::try_from(MAX_SIZE).unwrap();
        let path = put(root.path(), MAIN_FILE, &"#".repeat(size));
        assert_eq!(read(&path).unwrap().len(), size);
        put(root.path(), MAIN_FILE, &"#".repeat(size + 1));
        assert!(matches!(read(&path), Err(ConfigError::File { .. })));
        assert!(matches!(read(Path::new("/dev/zero")), Err(ConfigError::File { .. })), "and ends there");
    }

    /// What is loose on the way is told by [`trust`]; here, that each kind of file is asked about.
    #[test]
    fn what_somebody_else_could_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let r = root.path();
        let main = put(r, MAIN_FILE, "a=1");
        let drop_in = put(r, "usr/lib/stillpoint/config.d/10-a.toml", "a=1");
        let masks = put(r, "etc/stillpoint/config.d/10-a.toml", "");
        let folder = r.join("usr/lib/stillpoint/config.d");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        find(r, None).unwrap();
        for (path, loose, right) in [
            (&main, 0o646, 0o644),
            (&masks, 0o646, 0o644),
            (&folder, 0o777, 0o755),
            // A sticky folder keeps its entries, but everybody can add one.
            (&folder, 0o1777, 0o755),
            (&r.join("etc"), 0o757, 0o755),
        ] {
            mode(path, loose);
            let said = find(r, None).map(drop).expect_err(&format!("{}", path.display()));
            mode(path, right);
            assert!(matches!(&said, ConfigError::Loose { loose, .. } if loose.place == *path), "{said}");
            assert!(said.hint().unwrap().contains(&format!("chmod go-w {}", path.display())), "{said}");
        }
        mode(&drop_in, 0o646);
        find(r, None).expect("a replaced file is not read");
        assert!(matches!(find(r, Some(&drop_in)), Err(ConfigError::Loose { .. })), "named by hand");
    }
}
