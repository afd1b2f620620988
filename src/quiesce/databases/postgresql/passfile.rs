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
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.strip_suffix('\r').unwrap_or(line);
        for key in keys {
            rest = field(rest, key)?;
        }
        (!rest.is_empty()).then(|| unescaped(rest))
    })
}

/// What is behind the first field, if that is `*` or `key`; `\` makes the next character an ordinary one.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut at, mut escaped) = (None, false);
    for (i, c) in line.char_indices() {
        match c {
            ':' if !escaped => {
                at = Some(i);
                break;
            }
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    let at = at?;
    (unescaped(&line[..at]) == key).then(|| &line[at + 1..])
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(if c == '\\' { rest.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "localhost", port: 5432, database: "postgres", user: "me" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# localhost:5432:postgres:me:comment\nlocalhost:5433:*:me:port\nother:*:*:*:host\n\
                    localhost:*:postgres:you:user\nlocalhost:*:postgres:me:right\n*:*:*:*:late\n";
        assert_eq!(lookup(text, WANTED).as_deref(), Some("right"));
        assert_eq!(lookup(text, Wanted { user: "none", ..WANTED }).as_deref(), Some("late"));
        assert_eq!(lookup("localhost:5432:postgres:me:\n", WANTED), None, "libpq ignores empty ones too");
        assert_eq!(lookup("localhost:5432:postgres\n", WANTED), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let wanted = Wanted { host: "::1", user: r"a\b", ..WANTED };
        assert_eq!(lookup(r"\:\:1:5432:postgres:a\\b:p\:w:d\\", wanted).as_deref(), Some(r"p:w:d\"));
        let wanted = Wanted { user: r"a\", ..WANTED };
        assert_eq!(lookup(r"localhost:5432:postgres:a\\:pw", wanted).as_deref(), Some("pw"));
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
