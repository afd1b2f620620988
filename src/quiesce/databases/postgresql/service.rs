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

/// The service of this name; none when the text has none.
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
        match key {
            "hostaddr" => self.host = Some(value.to_owned()),
            "host" if self.host.is_none() => self.host = Some(value.to_owned()),
            "port" => {
                self.port = Some(value.parse().map_err(|_| broken("has a `port` that is no port"))?);
            }
            "user" => self.user = Some(value.to_owned()),
            "dbname" => self.database = Some(value.to_owned()),
            "password" => self.password = Some(value.to_owned()),
            "passfile" => self.passfile = Some(PathBuf::from(value)),
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

    const TEXT: &str = "# of this host\n[other]\nhost=elsewhere\n\n[ours]\nhost = /srv/run\nport=5433\nuser=me\n\
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
}
