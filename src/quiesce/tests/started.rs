//! What a command starts: each row is a way to start `/…/s`.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A folder with executables `s`, `postgres` and `other`, a script that is no executable (`plain`), and one
/// whose interpreter is `s`.
fn folder() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().display().to_string();
    for (name, text, mode) in [
        ("s", "x".to_owned(), 0o755),
        ("other", "x".to_owned(), 0o755),
        ("postgres", "x".to_owned(), 0o755),
        ("plain", "x".to_owned(), 0o644),
        ("by_s", format!("#! {d}/s -x\n"), 0o755),
        ("by_env", format!("#!/usr/bin/env -S PATH={d} s\n"), 0o755),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    (dir, d)
}

fn started(argv: &[&str], vars: &[(&str, &str)]) -> Vec<PathBuf> {
    let argv: Vec<_> = argv.iter().map(|w| (*w).to_owned()).collect();
    let vars: Vec<_> = vars.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
    files(&argv, &vars)
}

#[test]
fn whatever_starts_a_file_is_seen_through() {
    let (_dir, d) = folder();
    let s = format!("{d}/s");
    let of = |text: &str| text.replace("{s}", &s).replace("{d}", &d);
    for line in [
        "{s}",
        "/usr/bin/env|{s}",
        "/usr/bin/env|-i|A=b|sh|{s}",
        "/usr/bin/env|-u|X|--|{s}",
        "/usr/bin/env|PATH={d}|s",
        "/usr/bin/env|-S|sh {s}",
        "/usr/bin/env|-Ssh|{s}",
        "/usr/bin/timeout|5|{s}",
        "/usr/bin/timeout|-k|2|-s|TERM|5|/bin/sh|{s}",
        "/usr/bin/nice|-n|5|{s}",
        "/usr/bin/nice|{s}",
        "/usr/bin/ionice|-c|2|-n|0|{s}",
        "/usr/bin/ionice|-c2|/usr/bin/nice|/bin/sh|-c|{s} x",
        "/usr/bin/sudo|-u|postgres|{s}",
        "/usr/bin/sudo|-u|{d}/postgres|{s}",
        "/usr/bin/setpriv|--reuid|65534|--clear-groups|{s}",
        "/usr/bin/chrt|-f|10|{s}",
        "/usr/bin/flock|/run/lock|-c|{s}",
        "/usr/bin/su|-|postgres|-c|exec {s}",
        "/usr/bin/script|-qc|{s}|/dev/null",
        "/usr/sbin/runuser|-u|nobody|--|{s}",
        "/usr/bin/xargs|-n|1|{s}",
        "/usr/bin/find|/x|-exec|{s}|{}|;",
        "/usr/bin/systemd-run|--wait|{s}",
        "/bin/busybox|sh|{s}",
        "/bin/sh|{s}",
        "/bin/bash|-eu|-o|pipefail|{s}|x",
        "/bin/sh|-c|{s}",
        "/bin/sh|-ec|true && {s} x",
        "/bin/sh|-c|A=b {s}",
        "/bin/sh|-c|x=\"$({s})\"",
        "/bin/sh|-c|if true; then exec \"{s}\"; fi",
        "/bin/sh|-c|cd {d}; ./s",
        "/bin/sh|-c|PATH={d}:$PATH s",
        "/bin/sh|-c|. {s}",
        "/bin/sh|-c|sudo -u postgres /bin/sh -c '{s} x'",
        "/bin/sh|-c|trap '{s}' EXIT",
        "/bin/sh|-c|eval \"{s} x\"",
        "/usr/bin/python3|{s}",
        "/usr/bin/python3.11|-W|ignore|{s}",
        "/usr/bin/perl|-w|{s}",
        "/usr/bin/awk|-f|{s}|/etc/passwd",
        "{d}/by_s",
        "{d}/by_env",
        "/bin/sh|-c|{d}/by_s",
    ] {
        let line = of(line);
        let argv: Vec<_> = line.split('|').collect();
        let found = started(&argv, &[]);
        assert!(found.contains(&PathBuf::from(&s)), "{line}: {found:?}");
        assert_eq!(found[0], Path::new(argv[0]), "{line}");
    }
    assert!(started(&["/bin/sh", "-c", "s"], &[("PATH", &d)]).contains(&PathBuf::from(&s)));
    assert!(started(&[&format!("{d}/by_s")], &[("PATH", "/opt/none")]).contains(&PathBuf::from(&s)));
    assert!(started(&["/bin/sh", &format!("{d}/plain")], &[]).contains(&PathBuf::from(&d).join("plain")));
}

#[test]
fn what_is_only_told_to_a_program_is_not_started() {
    let (_dir, d) = folder();
    let s = format!("{d}/s");
    for line in [
        "/opt/hook|{s}",
        "/usr/bin/timeout|5|{d}/other|{s}",
        "/bin/sh|-c|echo x >> {s}",
        "/bin/sh|-c|echo {s}; cat <{s}",
        "/bin/sh|-c|: '; {s}'",
        "/bin/sh|{d}/other|{s}",
        "/usr/bin/python3|-c|pass|{s}",
        "/usr/bin/perl|-ne|print|{s}",
        "/usr/bin/awk|{}|{s}",
    ] {
        let line = line.replace("{s}", &s).replace("{d}", &d);
        let argv: Vec<_> = line.split('|').collect();
        let found = started(&argv, &[]);
        assert!(!found.contains(&PathBuf::from(&s)), "{line}: {found:?}");
    }
}

#[test]
fn folders_that_a_variable_makes_a_program_look_into_count() {
    let (_dir, d) = folder();
    for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH"] {
        assert!(started(&["/bin/true"], &[(name, &d)]).contains(&PathBuf::from(&d)), "{name}");
    }
    assert!(!started(&["/bin/true"], &[("ORDERS_SOCKET", &d)]).contains(&PathBuf::from(&d)));
}

#[test]
fn a_program_that_is_not_there_counts_by_the_folders_above_it() {
    assert_eq!(started(&["/nowhere/at/all"], &[]), [Path::new("/nowhere/at/all")]);
}
