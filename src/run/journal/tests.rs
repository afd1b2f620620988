//! Which runs live, who may write their journals, and what may be frozen by them.

use super::*;
use crate::ids::DevNo;

#[test]
fn a_live_run_is_not_dead_and_a_reused_pid_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
    assert!(Journal::dead(dir.path()).is_empty());
    journal.update(|s| s.process.start += 1).unwrap();
    let dead = Journal::dead(dir.path());
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].as_ref().unwrap().state.run, journal.state.run);
    journal.close();
    assert!(Journal::dead(dir.path()).is_empty());
}

/// A container that shares the run folder has other process ids: there, the id of a run that lives on the
/// host is nobody's, or somebody else's.
#[test]
fn a_run_of_another_pid_namespace_lives_while_it_owns_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
    let elsewhere = |s: &mut State| {
        s.pid_namespace = Some("pid:[1]".into());
        s.process.start += 1;
    };
    journal.update(elsewhere).unwrap();
    assert!(Journal::dead(dir.path()).is_empty());
    assert!(Journal::all(dir.path())[0].as_ref().unwrap().lingers());
    drop(journal);
    assert_eq!(Journal::dead(dir.path()).len(), 1);
    assert!(!Journal::all(dir.path())[0].as_ref().unwrap().lingers());
}

#[test]
fn a_journal_that_was_taken_is_not_written_over_and_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
    assert!(!journal.is_taken());
    let mut other = Journal::all(dir.path()).remove(0).unwrap();
    other.update(|s| s.ended = true).unwrap();
    assert!(journal.is_taken());
    assert!(journal.update(|s| s.plan = "q".to_owned()).is_err());
    let path = journal.path.clone();
    journal.close();
    assert!(path.exists());
}

/// It closes its journal while another process looks at it.
#[test]
fn a_run_that_has_closed_its_journal_is_not_called_dead() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
    let seen = Journal::all(dir.path()).remove(0).unwrap();
    journal.close();
    assert!(seen.lives());
}

/// Hooks may have passwords in their environment.
#[test]
fn only_root_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let journal = Journal::start(&run_dir, &RunId::generate(), "p", |_| ()).unwrap();
    for path in [run_dir.as_path(), &run_dir.join("runs"), &journal.path] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}

/// A journal in a run folder that is on a disk is there after a restart, and the process id of the run may
/// be another process's by then.
#[test]
fn after_a_restart_the_run_is_dead_and_nothing_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
    let dev = DevNo { major: 7, minor: 1 };
    let frozen = FrozenMount { dev, mount_point: "/data".into(), word: Some(0) };
    journal.update(|s| s.frozen = vec![frozen]).unwrap();
    assert!(journal.lives() && journal.lingers());
    assert_eq!(journal.may_be_frozen().mounts().count(), 1);
    journal.update(|s| s.boot = Some("another".to_owned())).unwrap();
    assert!(!journal.lives() && !journal.lingers());
    assert_eq!(journal.may_be_frozen().mounts().count(), 0);
    assert_eq!(Journal::dead(dir.path()).len(), 1);
    journal.update(|s| s.boot = None).unwrap();
    assert!(journal.lives(), "of a build that did not say");
}

#[test]
fn a_journal_that_somebody_else_could_have_written_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(dir.path(), &RunId::generate(), "p", |s| s.process.start += 1).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert!(Journal::dead(dir.path())[0].is_ok());
    for (place, loose, right) in [
        (journal.path.clone(), 0o606, 0o600),
        (folder(dir.path()), 0o707, 0o700),
        (dir.path().into(), 0o707, 0o700),
    ] {
        mode(&place, loose);
        let said = Journal::dead(dir.path()).remove(0).expect_err(&format!("{}", place.display()));
        assert!(said.contains(&format!("{} can be written by everybody", place.display())), "{said}");
        mode(&place, right);
    }
    assert!(journal.path.exists());
}

#[test]
fn an_unreadable_journal_is_reported_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("runs")).unwrap();
    let file = dir.path().join("runs/x.json");
    std::fs::write(&file, "{").unwrap();
    assert!(Journal::dead(dir.path())[0].is_err());
    assert!(file.exists());
}
