//! Connection service files, as libpq reads them: `[service]`, then `key=value` lines.
//!
//! In: a file's text, a service's name. Out: what it says of the server. Must never: overlook that it asks
//! for TLS.

use std::path::PathBuf;

use super::super::Refusal;

/// What a service says.
#[derive(Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Service {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub passfile: Option<PathBuf>,
    /// Never printed: there is no `Debug` outside of tests.
    pub password: Option<String>,
}

/// The service of this name, of whose keys the first counts, as for libpq; none when the text has none.
pub(super) fn find(text: &str, name: &str) -> Result<Option<Service>, Refusal> {
    let mut found: Option<Service> = None;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if section.strip_suffix(']') == Some(name) {
                found = Some(Service::default());
            }
        } else if let Some(service) = &mut found {
            service.take(name, line)?;
        }
    }
    Ok(found)
}

impl Service {
    fn take(&mut self, name: &str, line: &str) -> Result<(), Refusal> {
        let broken = |what: &str| Refusal::new(format!("the service `{name}` {what}"));
        // The line is not quoted: it may be a password.
        let (key, value) = line.split_once('=').ok_or_else(|| broken("has a line without `=`"))?;
        let (key, value) = (key.trim(), value.trim());
        let text = || value.to_owned();
        match key {
            // Where there are both, it is the address that is connected to.
            "hostaddr" => self.host = Some(text()),
            "host" if self.host.is_none() => self.host = Some(text()),
            "port" if self.port.is_none() => {
                self.port = Some(value.parse().map_err(|_| broken("has a `port` that is no port"))?);
            }
            "user" => {
                self.user.get_or_insert_with(text);
            }
            "dbname" => {
                self.database.get_or_insert_with(text);
            }
            "password" => {
                self.password.get_or_insert_with(text);
            }
            "passfile" => {
                self.passfile.get_or_insert_with(|| PathBuf::from(value));
            }
            "sslmode" if value == "require" || value.starts_with("verify") => {
                return Err(broken(&format!("asks for sslmode={value}, and this connection has no TLS"))
                    .hint(
                        "the server is on this host: reach it by its socket, host = \"/var/run/postgresql\"",
                    ));
            }
            // What else there is (keepalives, target_session_attrs) changes nothing here.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# of this host\n[other]\nhost=elsewhere\n\n[ours]\nhost = /srv/run\n\n# port=1\nport=5433\nuser=me\n\
                        dbname=app\npassword=a=b\nkeepalives=0\n[ours]\nport=1\n[tls]\nsslmode=verify-full\n[bad]\npassword\n";

    #[test]
    fn the_first_section_of_that_name_counts() {
        let ours = find(TEXT, "ours").unwrap().unwrap();
        let expected = Service {
            host: Some("/srv/run".into()),
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
    fn the_first_of_a_key_counts_and_an_address_before_a_name() {
        let of = |lines: &str| find(&format!("[s]\n{lines}\n"), "s").unwrap().unwrap();
        let twice = of("port=1\nuser=a\ndbname=a\npassword=a\npassfile=/a\nhost=a\n\
                        port=2\nuser=b\ndbname=b\npassword=b\npassfile=/b\nhost=b");
        let first = Service {
            host: Some("a".into()),
            port: Some(1),
            user: Some("a".into()),
            database: Some("a".into()),
            passfile: Some("/a".into()),
            password: Some("a".into()),
        };
        assert_eq!(twice, first);
        for lines in ["host=db\nhostaddr=10.0.0.7", "hostaddr=10.0.0.7\nhost=db"] {
            assert_eq!(of(lines).host.as_deref(), Some("10.0.0.7"), "{lines}");
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
