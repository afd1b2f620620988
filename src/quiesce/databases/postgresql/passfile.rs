//! Password files, as libpq reads them: `host:port:database:user:password`, a line each.
//!
//! In: a file, and what is connected to. Out: the password of the first line that fits. Must never: use a
//! file that others may read, or put a password into an error.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::Refusal;

/// What a line is looked up by. The host of a socket in the default folder is `localhost`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The text of a password file; none when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, Refusal> {
    let failed = |e| Refusal::new(format!("cannot read the password file {}: {e}", path.display()));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Refusal::new(format!("the password file {} is not a plain file", path.display())));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Refusal::new(format!(
            "the password file {path} has group or world access (mode {mode:04o}), and is not used"
        ))
        .hint(format!("chmod 0600 {path}")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// The password of the first line that fits.
pub(super) fn lookup(text: &str, wanted: Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    let keys = [wanted.host, &port, wanted.database, wanted.user];
    let found = text.split('\n').filter(|line| !line.starts_with('#')).find_map(|line| {
        let line = line.trim_end_matches('\r');
        keys.iter().try_fold(line, |rest, key| field(rest, key))
    });
    // Without a password, the first line that fits still ends the search.
    found.map(password).filter(|p| !p.is_empty())
}

/// What is behind the first field, if that is `*` or `key`. `\` makes the next character an ordinary one. So is
/// a `:` that the key has in this place: an IPv6 address need not be escaped.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut rest, mut key) = (line.chars(), key.chars());
    loop {
        let (c, wanted) = (rest.next()?, key.next());
        match (c, wanted) {
            (':', None) => return Some(rest.as_str()),
            (_, None) => return None,
            ('\\', Some(wanted)) => {
                if rest.next()? != wanted {
                    return None;
                }
            }
            (c, Some(wanted)) if c == wanted => {}
            _ => return None,
        }
    }
}

/// The last field: up to a `:` that is not escaped.
fn password(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        match c {
            ':' => break,
            '\\' => out.push(rest.next().unwrap_or('\\')),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::psql;
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "localhost", port: 5432, database: "postgres", user: "me" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# localhost:5432:postgres:me:comment\nlocalhost:5433:*:me:port\nother:*:*:*:host\n\
                    localhost:*:postgres:you:user\nlocalhost:*:postgres:me:right\n*:*:*:*:late\n";
        assert_eq!(lookup(text, WANTED).as_deref(), Some("right"));
        assert_eq!(lookup(text, Wanted { user: "none", ..WANTED }).as_deref(), Some("late"));
        assert_eq!(lookup("localhost:5432:postgres:me:\n*:*:*:*:x\n", WANTED), None, "as libpq has it");
        assert_eq!(lookup("localhost:5432:postgres\n", WANTED), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let wanted = Wanted { host: "::1", user: r"a\b", ..WANTED };
        assert_eq!(lookup(r"\:\:1:5432:postgres:a\\b:p\:w\:d\\", wanted).as_deref(), Some(r"p:w:d\"));
        let wanted = Wanted { user: r"a\", ..WANTED };
        assert_eq!(lookup(r"localhost:5432:postgres:a\\:pw", wanted).as_deref(), Some("pw"));
    }

    /// psql is asked which password it finds.
    #[test]
    fn each_line_is_read_as_libpq_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        for (text, host, user) in [
            ("h:*:d:u:plain", "h", "u"),
            (r"h:*:d:u:p\:w:d", "h", "u"),
            ("h:*:d:u:p:w", "h", "u"),
            ("h:*:d:u:\n*:*:*:*:x", "h", "u"),
            ("::1:*:d:u:pw", "::1", "u"),
            (r"\:\:1:*:d:u:pw", "::1", "u"),
            ("h:*:d:u:pw\r\r\nx", "h", "u"),
            ("h:*:d:u:a\rb", "h", "u"),
            (" h:*:d:u:pw\n*:*:*:*:late", "h", "u"),
            ("h:*:d:u:pw \t", "h", "u"),
            ("#h:*:d:u:no\n#*:*:*:*:no\nh:*:d:u:yes", "h", "u"),
            ("*h:*:*:*:a\n**:*:*:*:b\n*:*:d:u:c", "h", "u"),
            ("h:*:d:u:\\", "h", "u"),
            ("h:*:d:u:\\\\\\", "h", "u"),
            (r"\h:*:d:u:escaped", "h", "u"),
            (r"h:*:d:a\\b:pw", "h", r"a\b"),
            (r"h:*:d:a\b:pw", "h", r"a\b"),
            ("h:*:d:a:b:pw", "h", "a:b"),
            ("h:*:d:*", "h", "u"),
            ("h:*:d:*:", "h", "u"),
            ("hh:*:*:*:no\nh:*:d:uu:no\nh:*:dd:u:no\nh:1:d:u:no\nh:*:d:u:last", "h", "u"),
            ("", "h", "u"),
        ] {
            std::fs::write(&file, text).unwrap();
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let quoted = user.replace('\\', "\\\\");
            let to = |port| format!("host={host} hostaddr=127.0.0.1 port={port} dbname=d user='{quoted}'");
            let Some(said) = psql::asked(&[("PGPASSFILE", file.to_str().unwrap())], to) else { return };
            let wanted = Wanted { host, port: said.port, database: "d", user };
            assert_eq!(lookup(text, wanted), said.password, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        assert_eq!(read(&file).unwrap(), None, "it need not be there");
        std::fs::write(&file, "*:*:*:*:s3cret\n").unwrap();
        let set = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o600, 0o400] {
            set(mode);
            assert_eq!(read(&file).unwrap().as_deref(), Some("*:*:*:*:s3cret\n"), "{mode:o}");
        }
        for mode in [0o640, 0o620, 0o604, 0o666] {
            set(mode);
            let told = read(&file).unwrap_err();
            assert!(told.what.contains(&format!("(mode {mode:04o})")), "{told}");
            assert!(told.hint.unwrap().starts_with("chmod 0600 "));
        }
        assert!(read(dir.path()).unwrap_err().what.contains("is not a plain file"));
        assert!(read(&file.join("below")).unwrap_err().what.starts_with("cannot read the password file"));
    }
}
