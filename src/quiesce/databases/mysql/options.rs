//! MySQL's option files, read as its own clients read them.
//!
//! In: the usual files (`/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`) or one that is named, what they
//! `!include`. Out: [`Options`]; what is read later wins. Must never: show a password, not in Debug and not
//! in an error, take a file that everybody may write, or read a line otherwise than `mysql` and `mariadb` do:
//! whoever has tried the file with these knows what it says.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::{Refusal, note};

/// The files that are read when none is named, in this order, before the user's own `~/.my.cnf`.
pub(super) const USUAL: [&str; 2] = ["/etc/my.cnf", "/etc/mysql/my.cnf"];
/// The groups that count: those of `mysql` and of `mariadb`, in any letter case, and one of stillpoint's own.
const GROUPS: [&str; 6] =
    ["client", "client-server", "client-mariadb", "mariadb-client", "mysql", "stillpoint"];
/// The keys that count, each with the length of its shortest beginning that no other option of these clients
/// has: they take that for the whole name.
const KEYS: [(&str, usize); 5] = [("user", 2), ("password", 3), ("socket", 2), ("host", 2), ("port", 2)];
/// Prefixes of a key that change nothing here.
const PREFIXES: [&str; 3] = ["loose-", "enable-", "maximum-"];
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

    /// `depth`: how many levels of included files may still follow.
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
        // None before the first group.
        let mut counts = None;
        for (at, line) in String::from_utf8_lossy(&text).split('\n').enumerate() {
            let line = line.trim_matches(SPACE);
            let wrong = |what: &str| failed(&format!("line {}: {what}, which no client reads", at + 1));
            if line.is_empty() || line.starts_with(['#', ';']) {
            } else if let Some(include) = line.strip_prefix('!') {
                if depth == 0 {
                    note(format!(
                        "{}: files include each other too deeply: line {} is passed over",
                        file.display(),
                        at + 1
                    ));
                    continue;
                }
                self.include(include.trim_start_matches(SPACE), depth - 1).map_err(|e| failed(&e.what))?;
            } else if let Some(group) = line.strip_prefix('[') {
                let (group, _) = group.split_once(']').ok_or_else(|| wrong("a group without `]`"))?;
                let group = group.trim_end_matches(SPACE);
                counts = Some(GROUPS.iter().any(|known| known.eq_ignore_ascii_case(group)));
            } else if counts.ok_or_else(|| wrong("an option before the first group"))? {
                self.option(line).map_err(|key| failed(&format!("`{key}` has no good value")))?;
            }
        }
        Ok(())
    }

    fn include(&mut self, line: &str, depth: u32) -> Result<(), Refusal> {
        let (word, path) = line.split_once(SPACE).unwrap_or((line, ""));
        let path = Path::new(path.trim_matches(SPACE));
        let mut included = |file: &Path| {
            // The clients go on with what is behind it.
            self.file(file, false, depth)
                .unwrap_or_else(|e| note(format!("its rest is passed over: {}", e.what)));
        };
        match word {
            "include" => included(path),
            "includedir" => {
                let cannot = |e| Refusal::new(format!("!includedir {}: {e}", path.display()));
                let entries = std::fs::read_dir(path).map_err(cannot)?.flatten().map(|e| e.path());
                let mut files: Vec<_> =
                    entries.filter(|f| f.as_os_str().as_bytes().ends_with(b".cnf")).collect();
                files.sort();
                files.iter().for_each(|f| included(f));
            }
            _ => {}
        }
        Ok(())
    }

    /// One line. The error is the key alone: what stands behind it may be a secret.
    fn option(&mut self, line: &str) -> Result<(), String> {
        let Some((key, value)) = parsed(line) else { return Ok(()) };
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

/// What the clients take for white space.
const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// The key and the value of a line; none of a key that does not count.
fn parsed(line: &str) -> Option<(&'static str, String)> {
    let line = without_comment(line);
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.trim_matches(SPACE), unquoted(value.trim_matches(SPACE))),
        None => (line.trim_matches(SPACE), String::new()),
    };
    let key = key.replace('_', "-").to_ascii_lowercase();
    let key = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(&key);
    let (name, _) = KEYS.into_iter().find(|(name, least)| key.len() >= *least && name.starts_with(key))?;
    Some((name, value))
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

    /// Debian's MariaDB is asked; without it, nothing is tested, and that is said.
    fn client(program: &str, text: &str, arguments: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.cnf");
        std::fs::write(&file, text).unwrap();
        let asked = std::process::Command::new(program)
            .arg(format!("--defaults-file={}", file.display()))
            .args(arguments)
            .output();
        match asked {
            Ok(said) if said.status.success() => Some(String::from_utf8(said.stdout).unwrap()),
            Ok(said) => panic!("{program}: {}", String::from_utf8_lossy(&said.stderr)),
            Err(e) => {
                eprintln!("\n*** NOT TESTED against {program}: {e} ***\n");
                None
            }
        }
    }

    /// Lines of every mixture of what means something in them.
    #[test]
    fn each_line_is_read_as_the_client_reads_it() {
        const PARTS: [&str; 12] = ["a", "b", " ", "\t", "#", ";", "\\", "\"", "'", "=", "s", "n"];
        let mut seed: u32 = 20_261_129;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        let mut values: Vec<String> =
            (0..1500).map(|_| (0..next(9)).map(|_| PARTS[next(PARTS.len())]).collect()).collect();
        // A line feed in a value would begin another line of what the client prints.
        values.retain(|v| !v.contains("\\n"));
        let lines: Vec<String> = values.iter().map(|v| format!(" user\t={v}")).collect();
        let text = format!("[client]\n{}\n", lines.join("\n"));
        let Some(said) = client("my_print_defaults", &text, &["client"]) else { return };
        let said: Vec<_> = said.lines().map(|l| l.strip_prefix("--user=").unwrap()).collect();
        assert_eq!(said.len(), lines.len());
        for (line, said) in lines.iter().zip(said) {
            let (key, value) = parsed(line.trim_matches(SPACE)).unwrap();
            assert_eq!((key, value.as_str()), ("user", said), "{line:?}");
        }
    }

    #[test]
    fn keys_and_groups_are_those_that_the_client_knows() {
        let set = |text: &str, key: &str| {
            let said = client("mariadb", text, &["--help"])?;
            let line = said.lines().find(|l| l.starts_with(&format!("{key} "))).unwrap().to_owned();
            Some(line.ends_with(" 42"))
        };
        let of = |text: &str, key: &str| match key {
            "user" => of(text).user.as_deref() == Some("42"),
            "socket" => of(text).socket.as_deref() == Some(Path::new("42")),
            "host" => of(text).host.as_deref() == Some("42"),
            _ => of(text).port == Some(42),
        };
        for key in ["user", "socket", "host", "port"] {
            let least = KEYS.iter().find(|(name, _)| *name == key).unwrap().1;
            let upper = key.to_uppercase();
            let words =
                [&key[..least], &key[..3], key, &upper, &format!("loose_{key}"), &format!("LOOSE-{key}")];
            for word in words {
                let text = format!("[client]\n{word}=42\n");
                assert!(of(&text, key), "{word}");
                assert_ne!(set(&text, key), Some(false), "{word}");
            }
        }
        assert_eq!(parsed("pass=x"), Some(("password", "x".to_owned())));
        for unknown in ["u=1", "p=1", "pa=1", "h=1", "s=1", "users=1", "user-x=1", "=1", ""] {
            assert_eq!(parsed(unknown), None, "{unknown}");
        }
        for group in
            ["client", "Client", "client-server", "client-mariadb", "mariadb-client", "mysql", "client "]
        {
            let text = format!("[{group}]\nuser=42\n");
            assert!(of(&text, "user"), "{group}");
            assert_ne!(set(&text, "user"), Some(false), "{group}");
        }
        for group in ["mariadb", "mysqld", "mysqldump", "client_server", " client", "server"] {
            let text = format!("[{group}]\nuser=42\n");
            assert!(!of(&text, "user"), "{group}");
            assert_ne!(set(&text, "user"), Some(true), "{group}");
        }
    }

    #[test]
    fn what_stops_a_client_stops_this() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let read = |text: &str| {
            std::fs::write(at("my.cnf"), text).unwrap();
            let mut options = Options::default();
            options.read(&at("my.cnf"), true).map(|()| options)
        };
        for text in ["user=a\n[client]\n", "[client\nuser=a\n", "[client]\n!includedir /nonexistent/d\n"] {
            assert!(read(text).is_err(), "{text}");
        }
        // What is included may be broken, or not be there; a file whose whole name is `.cnf` counts.
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/.cnf"), "[client]\nuser=dot\n").unwrap();
        std::fs::write(at("d/a.cnf"), "host=no-group\n[client]\nuser=a\n").unwrap();
        let path = at("d");
        let read = |line: &str| read(&format!("[client]\n{line}\nport=1\n")).unwrap();
        let seen = read(&format!("!  includedir\t{}  ", path.display()));
        assert_eq!((seen.user.as_deref(), seen.host, seen.port), (Some("dot"), None, Some(1)));
        assert_eq!(read("!include /nonexistent/f").port, Some(1));
        assert_eq!(read(&format!("! include {}/.cnf", path.display())).user.as_deref(), Some("dot"));
        assert_eq!(read(&format!("!includes {}/.cnf", path.display())).user, None);
    }

    #[test]
    fn only_groups_of_clients_count_and_the_last_wins() {
        let options = of(
            "[mysqld]\nsocket=/server\nport=1\nhost=server\n[client]\n# c\n; c\nuser=a\nport=3307\n\
             ssl-verify-server-cert\n[mysqldump]\nuser=b\n[ client]\nuser=d\n[stillpoint]\nuser=c\npassword=\n[client-mariadb]\nsocket=/s\n",
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
        options.read(&at("loop.cnf"), true).unwrap();
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
