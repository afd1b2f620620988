//! Tests of the walk along a path. Those that need a second user run as root alone.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

use super::*;

const OTHER: u32 = 65534;

/// `a/b/file` in a folder of this process's own.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a/b/file");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "text").unwrap();
    for place in [dir.path().join("a"), dir.path().join("a/b"), file.clone()] {
        mode(&place, 0o755);
    }
    (dir, file)
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The loose places and why, with the folder taken away.
fn found(dir: &tempfile::TempDir, path: &Path) -> Vec<String> {
    let way = follow(path, Trusted::own());
    let base = format!("{}/", dir.path().display());
    way.loose.iter().map(|l| l.to_string().replace(&base, "")).collect()
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("*** NOT TESTED: a second user needs root ***");
    }
    root
}

/// An access list with one entry for a named user, and this mask.
fn let_user_write(path: &Path, mask: u16) {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 7, OTHER),
        (4, 5, u32::MAX),
        (0x10, mask, u32::MAX),
        (0x20, 5, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    rustix::fs::setxattr(path, "system.posix_acl_access", &bytes, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn what_is_ones_own_is_not_loose() {
    let (dir, file) = tree();
    assert_eq!(found(&dir, &file), [""; 0]);
    assert_eq!(found(&dir, &dir.path().join("a/../a/./b/file")), [""; 0]);
    for system in ["/", "/usr/bin/env", "/bin/sh", "/dev/null", "/proc/self/exe"] {
        assert_eq!(check(Path::new(system), Trusted::own()), Ok(()), "{system}");
    }
}

#[test]
fn each_folder_and_the_file_are_looked_at() {
    let (dir, file) = tree();
    for place in ["a", "a/b", "a/b/file"] {
        mode(&dir.path().join(place), 0o777);
        assert_eq!(found(&dir, &file), [format!("{place} can be written by everybody")]);
        assert!(matches!(open(&file, Trusted::own()), Err(OpenError::Loose(_))), "{place}");
        mode(&dir.path().join(place), 0o755);
    }
    open(&file, Trusted::own()).unwrap();
}

#[test]
fn a_sticky_folder_keeps_its_entries_but_not_what_is_added() {
    let (dir, file) = tree();
    let folder = dir.path().join("a/b");
    mode(&folder, 0o1777);
    assert_eq!(found(&dir, &file), [""; 0]);
    assert_eq!(found(&dir, &folder), ["a/b can be written by everybody"]);
}

#[test]
fn of_what_is_not_there_the_folders_count() {
    let (dir, _) = tree();
    let none = dir.path().join("a/none/x");
    assert!(follow(&none, Trusted::own()).end.is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
    assert_eq!(found(&dir, &none), [""; 0]);
    mode(&dir.path().join("a"), 0o757);
    assert_eq!(found(&dir, &none), ["a can be written by everybody"]);
}

#[test]
fn links_are_followed_step_by_step() {
    let (dir, file) = tree();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("c")).unwrap();
    mode(&at("c"), 0o777);
    symlink("../a/b", at("c/up")).unwrap();
    symlink(at("c/up/file"), at("first")).unwrap();
    assert_eq!(found(&dir, &at("first")), ["c can be written by everybody"]);
    mode(&at("c"), 0o755);
    assert_eq!(found(&dir, &at("first")), [""; 0]);
    let end = follow(&at("first"), Trusted::own()).end.unwrap();
    assert_eq!(fstat(&end).unwrap().st_ino, file.metadata().unwrap().ino());
    symlink("loop", at("loop")).unwrap();
    assert_eq!(follow(&at("loop"), Trusted::own()).end.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    // `..` behind a link is the folder above what it leads to.
    assert!(follow(&at("c/up/../b/file"), Trusted::own()).end.is_ok());
    assert!(follow(&at("c/up/../up"), Trusted::own()).end.is_err());
}

/// Such a link leads to a file, whatever it reads as, and the folder above it is not the one it is in.
#[test]
fn a_link_of_proc_leads_to_its_file() {
    let (dir, file) = tree();
    let (opened, folder) = (File::open(&file).unwrap(), File::open(dir.path().join("a")).unwrap());
    std::fs::remove_file(&file).unwrap();
    let end = follow(&by_descriptor(&opened), Trusted::own()).end.unwrap();
    assert_eq!(fstat(&end).unwrap().st_ino, fstat(&opened).unwrap().st_ino);
    let back = by_descriptor(&folder);
    let back = back.join("..").join(back.file_name().unwrap());
    assert!(follow(&back, Trusted::own()).end.unwrap_err().to_string().contains("after a link of /proc"));
}

#[test]
fn what_was_checked_is_what_is_read() {
    let (dir, file) = tree();
    let end = follow(&file, Trusted::own()).end.unwrap();
    std::fs::rename(&file, dir.path().join("moved")).unwrap();
    std::fs::write(&file, "another").unwrap();
    assert_eq!(std::fs::read_to_string(by_descriptor(&end)).unwrap(), "text");
}

/// Somebody leads the path to a file of his after the look and before the open.
#[test]
fn what_takes_the_place_of_what_was_checked_is_not_read() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (dir, file) = tree();
    let other = dir.path().join("a/b/other");
    std::fs::write(&other, "other").unwrap();
    mode(&other, 0o666);
    let over = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !over.load(Ordering::SeqCst) {
                let _ = renameat_with(CWD, &file, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        let opened = (0..20_000).filter_map(|_| open(&file, Trusted::own()).ok());
        let read: std::collections::BTreeSet<_> =
            opened.map(|f| io::read_to_string(f).unwrap_or_default()).collect();
        over.store(true, Ordering::SeqCst);
        read
    });
    assert_eq!(read, ["text".to_owned()].into());
}

#[test]
fn what_belongs_to_somebody_else_is_loose() {
    if !is_root() {
        return;
    }
    let (dir, file) = tree();
    for place in ["a", "a/b", "a/b/file"] {
        chown(dir.path().join(place), Some(OTHER), None).unwrap();
        assert_eq!(found(&dir, &file), [format!("{place} belongs to user {OTHER}")]);
        assert_eq!(check(&file, Trusted::own().and(OTHER, OTHER)), Ok(()));
        chown(dir.path().join(place), Some(0), None).unwrap();
    }
    // A sticky folder keeps a stranger's entry as well.
    mode(&dir.path().join("a"), 0o1777);
    chown(dir.path().join("a/b"), Some(OTHER), None).unwrap();
    assert_eq!(found(&dir, &file), [format!("a/b belongs to user {OTHER}")]);
}

#[test]
fn a_link_of_somebody_else_is_loose_wherever_it_is_on_the_way() {
    if !is_root() {
        return;
    }
    let (dir, _) = tree();
    let at = |name: &str| dir.path().join(name);
    symlink(at("a"), at("one")).unwrap();
    symlink(at("one/b"), at("two")).unwrap();
    lchown(at("one"), Some(OTHER), None).unwrap();
    assert_eq!(found(&dir, &at("two/file")), [format!("one belongs to user {OTHER}")]);
}

#[test]
fn a_group_may_write_where_it_is_roots() {
    if !is_root() {
        return;
    }
    let (dir, file) = tree();
    mode(&file, 0o664);
    assert_eq!(found(&dir, &file), [""; 0]);
    chown(&file, None, Some(OTHER)).unwrap();
    assert_eq!(found(&dir, &file), [format!("a/b/file can be written by group {OTHER}")]);
    assert_eq!(check(&file, Trusted::own().and(1, OTHER)), Ok(()));
    mode(&file, 0o644);
    assert_eq!(found(&dir, &file), [""; 0]);
}

#[test]
fn an_access_list_lets_write_what_its_mask_lets_through() {
    if !is_root() {
        return;
    }
    let (dir, file) = tree();
    for (place, name) in [(&file, "a/b/file"), (&dir.path().join("a"), "a")] {
        let_user_write(place, 7);
        assert_eq!(place.metadata().unwrap().gid(), 0, "the mode alone looks as if root's group could write");
        assert_eq!(found(&dir, &file), [format!("{name} can be written by user {OTHER} (access list)")]);
        let_user_write(place, 5);
        assert_eq!(found(&dir, &file), [""; 0]);
    }
}
