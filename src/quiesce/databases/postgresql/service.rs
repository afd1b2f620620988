//! Connection service files, as libpq reads them: `[service]`, then `key=value` lines.
//!
//! In: a file's text, a service's name. Out: what it says of the server. Must never: overlook that it asks
//! for TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::Refusal;

/// What a service says.
#[derive(Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Service {
    pub host: Option<String>,
    /// What is connected to in its place: `hostaddr`.
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub passfile: Option<PathBuf>,
    /// Never printed: there is no `Debug` outside of tests.
    pub password: Option<String>,
}

/// What isspace(3) takes for white space in the locale C.
const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// The service of this name; none when the text has none.
///
/// Of each key the first counts, also where it has no value: that means the default. Nothing is taken away
/// beside a `=`: what stands before it is the key, and the rest is the value.
pub(super) fn find(text: &str, name: &str) -> Result<Option<Service>, Refusal> {
    let broken = |what: &str| Refusal::new(format!("the service `{name}` {what}"));
    let mut values: Option<BTreeMap<&str, &str>> = None;
    let lines = text.split('\n').map(|line| line.trim_matches(SPACE));
    for line in lines.filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            if values.is_some() {
                break;
            }
            // What is behind the bracket does not count.
            if section.strip_prefix(name).is_some_and(|rest| rest.starts_with(']')) {
                values = Some(BTreeMap::new());
            }
        } else if let Some(values) = &mut values {
            // The line is not quoted: it may be a password.
            let (key, value) = line.split_once('=').ok_or_else(|| broken("has a line without `=`"))?;
            if key.ends_with(SPACE) {
                return Err(
                    broken("has white space before a `=`, which libpq refuses").hint("write key=value")
                );
            }
            if key == "service" {
                return Err(broken("names another service, which libpq refuses"));
            }
            values.entry(key).or_insert(value);
        }
    }
    let Some(values) = values else { return Ok(None) };
    let get = |key: &str| values.get(key).filter(|v| !v.is_empty()).map(|v| (*v).to_owned());
    if let Some(mode) = get("sslmode").filter(|mode| mode == "require" || mode.starts_with("verify")) {
        return Err(broken(&format!("asks for sslmode={mode}, and this connection has no TLS"))
            .hint("the server is on this host: reach it by its socket, host = \"/var/run/postgresql\""));
    }
    let port = get("port").map(|port| port.trim_matches(SPACE).parse()).transpose();
    Ok(Some(Service {
        host: get("host"),
        address: get("hostaddr"),
        port: port.map_err(|_| broken("has a `port` that is no port"))?,
        user: get("user"),
        database: get("dbname"),
        passfile: get("passfile").map(PathBuf::from),
        password: get("password"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::psql;
    use super::*;

    const TEXT: &str = "# of this host\n[other]\nhost=elsewhere\n\n[ours]\nhost=/srv/run\n\n# port=1\nport=5433\nuser=me\n\
                        dbname=app\npassword=a=b\nkeepalives=0\n[ours]\nport=1\n[tls]\nsslmode=verify-full\n[bad]\npassword\n";

    #[test]
    fn the_first_section_of_that_name_counts() {
        let ours = find(TEXT, "ours").unwrap().unwrap();
        let expected = Service {
            host: Some("/srv/run".into()),
            address: None,
            port: Some(5433),
            user: Some("me".into()),
            database: Some("app".into()),
            passfile: None,
            password: Some("a=b".into()),
        };
        assert_eq!(ours, expected);
        assert_eq!(find(TEXT, "none").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(find(TEXT, "tls").unwrap_err().what.contains("verify-full"));
        assert!(!find(TEXT, "bad").unwrap_err().what.contains("password"));
    }

    #[test]
    fn the_first_of_a_key_counts_and_an_address_is_beside_the_name() {
        let of = |lines: &str| find(&format!("[s]\n{lines}\n"), "s").unwrap().unwrap();
        let twice = of("port=1\nuser=a\ndbname=a\npassword=a\npassfile=/a\nhost=a\n\
                        port=2\nuser=b\ndbname=b\npassword=b\npassfile=/b\nhost=b");
        let first = Service {
            host: Some("a".into()),
            address: None,
            port: Some(1),
            user: Some("a".into()),
            database: Some("a".into()),
            passfile: Some("/a".into()),
            password: Some("a".into()),
        };
        assert_eq!(twice, first);
        for lines in ["host=db\nhostaddr=10.0.0.7", "hostaddr=10.0.0.7\nhost=db"] {
            let said = of(lines);
            assert_eq!(
                (said.host.as_deref(), said.address.as_deref()),
                (Some("db"), Some("10.0.0.7")),
                "{lines}"
            );
        }
    }

    /// psql is asked whom it connects as, to what, and with which password.
    #[test]
    fn each_line_is_read_as_libpq_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services");
        let plain = "[s]\nhost=h\nport=PORT\n";
        for text in [
            "user=u\ndbname=d\npassword=p",
            "user=u\npassword= x \t",
            "user = u",
            "user= u\npassword=\"q\"",
            "user=u\npassword=p # c",
            "user=u\ndbname=\npassword=p",
            "user=u\npassword=\npassword=b",
            "user=u\npassword=a=b",
            "\t user=u\r\n\x0bpassword=p\r",
            "user=u\n[t]\n[s]\npassword=late",
            "user=u\n;c\npassword=p",
            "user=u\nservice=t",
            "user=u\npassword",
            "user=u\nport=\npassword=p",
            "user=u\nuser=v\npassword=p\npassword=q",
        ]
        .map(|lines| format!("{plain}{lines}\n"))
        .into_iter()
        .chain(
            [
                "[s] # c\nhost=h\nport=PORT\nuser=u\npassword=p",
                "[s]x\nhost=h\nport=PORT\nuser=u\npassword=p",
                "[ s]\nuser=no\n[sx]\nuser=no\n  [s]\nhost=h\nport=PORT\nuser=u\npassword=p",
                "before\n[s]\nhost=h\nport=PORT\nuser=u\npassword=p",
                "[t]\nuser=u",
            ]
            .map(str::to_owned),
        ) {
            let mut read = String::new();
            let written = |port: u16| {
                std::fs::write(&file, text.replace("PORT", &port.to_string())).unwrap();
                "service=s hostaddr=127.0.0.1".to_owned()
            };
            let vars = [("PGSERVICEFILE", file.to_str().unwrap()), ("PGUSER", "default")];
            let Some(said) = psql::asked(&vars, written) else { return };
            read.push_str(&std::fs::read_to_string(&file).unwrap());
            let found = find(&read, "s").ok().flatten();
            assert_eq!(found.is_some(), said.connected, "{text:?}");
            let Some(found) = found else { continue };
            assert_eq!(found.port, Some(said.port), "{text:?}");
            assert_eq!(found.user.as_deref().or(Some("default")), said.user.as_deref(), "{text:?}");
            assert_eq!(found.database.or(found.user), said.database, "{text:?}");
            assert_eq!(found.password, said.password, "{text:?}");
        }
    }

    #[test]
    fn every_mode_that_insists_on_tls_is_refused_and_no_other() {
        for (mode, refused) in [
            ("disable", false),
            ("allow", false),
            ("prefer", false),
            ("require", true),
            ("verify-ca", true),
            ("verify-full", true),
        ] {
            let found = find(&format!("[s]\nsslmode={mode}\n"), "s");
            assert_eq!(found.is_err_and(|e| e.what.contains(mode)), refused, "{mode}");
        }
    }
}
