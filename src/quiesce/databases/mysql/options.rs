//! MySQL's option files, read as its own clients read them.
//!
//! In: the usual files (`/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`) or one that is named, what they
//! `!include`. Out: [`Options`]; what is read later wins. Must never: show a password, not in Debug and not
//! in an error, or take a file that everybody may write.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::{Refusal, note};

/// The files that are read when none is named, in this order, before the user's own `~/.my.cnf`.
pub(super) const USUAL: [&str; 2] = ["/etc/my.cnf", "/etc/mysql/my.cnf"];
/// The groups that count.
const GROUPS: [&str; 4] = ["client", "client-server", "client-mariadb", "stillpoint"];
/// How deep files may include each other, as MySQL has it.
const DEPTH: u32 = 10;

/// What option files say about a connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub user: Option<String>,
    pub password: Option<String>,
    pub socket: Option<PathBuf>,
    pub host: Option<String>,
    pub port: Option<u16>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        let Self { user, socket, host, port, .. } = self;
        write!(
            f,
            "Options {{ user: {user:?}, password: {password:?}, socket: {socket:?}, host: {host:?}, port: {port:?} }}"
        )
    }
}

impl Options {
    /// Reads a file over what is there. One that does not exist is passed over, unless it is `required`.
    pub(super) fn read(&mut self, file: &Path, required: bool) -> Result<(), Refusal> {
        self.file(file, required, DEPTH)
    }

    fn file(&mut self, file: &Path, required: bool, depth: u32) -> Result<(), Refusal> {
        let failed = |why: &dyn fmt::Display| {
            Refusal::new(format!("cannot read the option file {}: {why}", file.display()))
        };
        let mut opened = match File::open(file) {
            Ok(opened) => opened,
            Err(e) if !required && e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if !required && e.kind() == std::io::ErrorKind::PermissionDenied => {
                note(format!("the option file {} is passed over: {e}", file.display()));
                return Ok(());
            }
            Err(e) => return Err(failed(&e)),
        };
        let mode = opened.metadata().map_err(|e| failed(&e))?.permissions().mode();
        if mode & 0o002 != 0 {
            // As MySQL's clients do; whoever is meant to be read should hear of it.
            if required {
                return Err(failed(&"everybody may write it").hint(format!("chmod o-w {}", file.display())));
            }
            note(format!("the option file {} is passed over: everybody may write it", file.display()));
            return Ok(());
        }
        let mut text = Vec::new();
        opened.read_to_end(&mut text).map_err(|e| failed(&e))?;
        let mut counts = false;
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.trim();
            if let Some(include) = line.strip_prefix('!') {
                if depth == 0 {
                    return Err(failed(&"files include each other too deeply"));
                }
                self.include(include, depth - 1)?;
            } else if let Some(group) = line.strip_prefix('[') {
                let group = group.split(']').next().unwrap_or_default().trim();
                counts = GROUPS.contains(&group);
            } else if counts && !line.starts_with(['#', ';']) {
                self.option(line).map_err(|key| failed(&format!("`{key}` has no good value")))?;
            }
        }
        Ok(())
    }

    fn include(&mut self, line: &str, depth: u32) -> Result<(), Refusal> {
        let (word, path) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let path = Path::new(path.trim());
        match word {
            "include" => self.file(path, false, depth),
            "includedir" => {
                let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                let mut files: Vec<_> =
                    entries.map(|e| e.path()).filter(|f| f.extension().is_some_and(|e| e == "cnf")).collect();
                files.sort();
                files.iter().try_for_each(|f| self.file(f, false, depth))
            }
            _ => Ok(()),
        }
    }

    /// One line. The error is the key alone: what stands behind it may be a secret.
    fn option(&mut self, line: &str) -> Result<(), String> {
        let line = without_comment(line);
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), unquoted(value.trim())),
            None => (line.trim(), String::new()),
        };
        let key = key.replace('_', "-");
        let key = key.strip_prefix("loose-").unwrap_or(&key);
        let some = || Some(value.clone()).filter(|v| !v.is_empty());
        match key {
            "user" => self.user = some(),
            "password" => self.password = some(),
            "socket" => self.socket = some().map(PathBuf::from),
            "host" => self.host = some(),
            "port" => {
                self.port = some().map(|v| v.parse()).transpose().map_err(|_| key.to_owned())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A `#` outside of quotes begins a comment in the middle of a line too. A backslash guards what is behind it
/// within quotes only.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote.is_some() => escaped = true,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            '#' if quote.is_none() => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

fn unquoted(value: &str) -> String {
    let inner = ['\'', '"'].iter().find_map(|&q| value.strip_prefix(q)?.strip_suffix(q));
    let mut out = String::new();
    let mut rest = inner.unwrap_or(value).chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('s') => out.push(' '),
            Some(c @ ('\\' | '"' | '\'')) => out.push(c),
            // No escape: both characters stay.
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Options {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.cnf");
        std::fs::write(&file, text).unwrap();
        let mut options = Options::default();
        options.read(&file, true).unwrap();
        options
    }

    /// Each value as `my_print_defaults client` of MariaDB 10.11 prints it.
    #[test]
    fn values_are_read_as_mysql_reads_them() {
        for (written, read) in [
            ("password=plain", "plain"),
            ("password = spaced out ", "spaced out"),
            ("password=\"a#b\"", "a#b"),
            ("password=a#b", "a"),
            ("password='it\"s'", "it\"s"),
            (r"password=a\sb\\c\td", "a b\\c\td"),
            (r"password=C:\dir", r"C:\dir"),
            ("loose-password=x", "x"),
            ("password=a=b", "a=b"),
            (r##"password="a\"#b" # c"##, "a\"#b"),
            (r"password='a\\'#b", r"a\"),
            ("password=\"a'b\"#c", "a'b"),
            (r"password=a\#b", r"a\"),
            (r"password=it\'s # c'x", "it's # c'x"),
        ] {
            assert_eq!(of(&format!("[client]\n{written}\n")).password.as_deref(), Some(read), "{written}");
        }
    }

    #[test]
    fn only_groups_of_clients_count_and_the_last_wins() {
        let options = of(
            "user=nobody\n[mysqld]\nsocket=/server\nport=1\nhost=server\n[client]\n# c\n; c\nuser=a\nport=3307\n\
             ssl-verify-server-cert\n[mysql]\nuser=b\n[stillpoint]\nuser=c\npassword=\n[client-mariadb]\nsocket=/s\n",
        );
        let expected = Options {
            user: Some("c".into()),
            password: None,
            socket: Some("/s".into()),
            host: None,
            port: Some(3307),
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn files_include_others_and_a_loop_ends() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/b.cnf"), "[client]\nuser=b\n").unwrap();
        std::fs::write(at("d/a.cnf"), "[client]\nuser=a\nhost=a\n").unwrap();
        std::fs::write(at("d/c.txt"), "[client]\nuser=c\n").unwrap();
        std::fs::write(
            at("my.cnf"),
            format!("[client]\nuser=me\n!includedir {}\nport=1\n", at("d").display()),
        )
        .unwrap();
        let mut options = Options::default();
        options.read(&at("my.cnf"), true).unwrap();
        let seen = (options.user.as_deref(), options.host.as_deref(), options.port);
        assert_eq!(seen, (Some("b"), Some("a"), Some(1)));
        std::fs::write(at("loop.cnf"), format!("!include {}\n", at("loop.cnf").display())).unwrap();
        assert!(options.read(&at("loop.cnf"), true).unwrap_err().what.contains("too deeply"));
    }

    #[test]
    fn a_file_that_everybody_may_write_is_not_believed_and_no_error_shows_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.cnf");
        std::fs::write(&file, "[client]\npassword=s3cret\nport=s3cret\n").unwrap();
        let mut options = Options::default();
        let told = options.read(&file, true).unwrap_err();
        assert!(told.what.contains("`port`") && !told.what.contains("s3cret"), "{told}");
        assert!(!format!("{options:?}").contains("s3cret"), "{options:?}");
        let shown = format!("{:?}", of("[client]\nuser=me\npassword=s3cret\n"));
        assert!(shown.contains("user: Some(\"me\"), password: Some(\"…\")"), "{shown}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Options::default().read(&file, true).unwrap_err().what.contains("everybody"));
        let mut options = Options::default();
        options.read(&file, false).unwrap();
        assert_eq!(options, Options::default());
        options.read(&dir.path().join("none"), false).unwrap();
        assert!(options.read(&dir.path().join("none"), true).is_err());
    }

    /// What nobody named may be out of reach; what was named must be read, and so must what is there.
    #[test]
    fn a_usual_file_that_may_not_be_read_is_passed_over_and_a_broken_one_is_not() {
        // Nobody may read it, root included.
        let denied = Path::new("/proc/sys/vm/drop_caches");
        assert_eq!(File::open(denied).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        let mut options = Options::default();
        options.read(denied, false).unwrap();
        assert_eq!(options, Options::default());
        assert!(options.read(denied, true).unwrap_err().what.contains("drop_caches"));
        let dir = tempfile::tempdir().unwrap();
        for required in [false, true] {
            assert!(options.read(dir.path(), required).is_err(), "a directory");
            assert!(options.read(&dir.path().join("f/g"), true).is_err(), "none there");
        }
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        assert!(options.read(&file.join("g"), false).is_err(), "a path through a file");
    }
}
