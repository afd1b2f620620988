//! Which proxy a request goes through.
//!
//! The rules are those of the aws CLI, which has them from Python's urllib: `HTTPS_PROXY` for https,
//! `HTTP_PROXY` for http, `NO_PROXY` with names and their subdomains; a variable in small letters wins over
//! the same in capitals, even where it is empty. `ALL_PROXY` and networks in `NO_PROXY` do not count.
//!
//! In: the environment and a URL. Out: the proxy, or none. Must never: send what is for this instance alone
//! (metadata, credentials of a container) to a proxy, or show a proxy's password.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_smithy_http_client::proxy::ProxyConfig;
use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::SdkError;
use super::environment::Environment;
use crate::config::{Origin, Sourced};

/// A proxy as a variable names it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// `http` or `https`: how the proxy itself is spoken to.
    scheme: &'static str,
    user: Option<(String, String)>,
    /// With its port, where it names one.
    authority: String,
    /// The host alone, without the brackets of an IPv6 address.
    host: String,
    /// The variable that names it.
    pub origin: Origin,
}

impl Proxy {
    fn parse(text: &str, origin: Origin) -> Result<Self, SdkError> {
        let wrong = |why: &str| {
            SdkError::new(
                format!("the proxy of {origin} cannot be used: {why}"),
                format!("write {} like http://proxy.example:3128, or unset it", name_of(&origin)),
            )
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some((scheme, _)) => {
                return Err(wrong(&format!("it is a `{scheme}` proxy, and only http and https are known")));
            }
            None => ("http", text.strip_prefix("//").unwrap_or(text)),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = user.filter(|u| !u.is_empty()).map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name), decoded(password))
        });
        let uri: Uri = format!("{scheme}://{authority}").parse().map_err(|_| wrong("it is not a URL"))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { scheme, user, authority: authority.to_owned(), host, origin })
    }

    /// The host whose address is needed.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Is TLS spoken with the proxy itself?
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// For the HTTP client, which is to use it for every request.
    ///
    /// # Errors
    /// When the client does not take it.
    pub fn config(&self) -> Result<ProxyConfig, SdkError> {
        let url = format!("{}://{}", self.scheme, self.authority);
        let config = ProxyConfig::all(url.as_str()).map_err(|e| {
            SdkError::new(
                format!("the proxy of {} cannot be used: {e}", self.origin),
                "correct it".to_owned(),
            )
        })?;
        Ok(match &self.user {
            // The client puts both into a URL, and takes them apart again at the first `@` and `:`.
            Some((user, password)) => {
                let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                config.with_basic_auth(encoded(user), encoded(password))
            }
            None => config,
        })
    }
}

/// Without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = match &self.user {
            Some((user, _)) => format!("{user}:***@"),
            None => String::new(),
        };
        write!(f, "{}://{user}{}", self.scheme, self.authority)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

fn name_of(origin: &Origin) -> &'static str {
    match origin {
        Origin::Environment(name) => name,
        _ => "it",
    }
}

/// What the environment says about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    http: Option<Secret>,
    https: Option<Secret>,
    /// Hosts that are reached without one.
    pub no_proxy: Option<Sourced<String>>,
}

/// A variable as it is: it may have a password in it.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String, Origin);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.1)
    }
}

impl Proxies {
    pub fn from_environment(env: &Environment) -> Self {
        let named = |small: &'static str, capital: &'static str| {
            let name = if env.has(small) { small } else { capital };
            env.get(name).map(|value| Secret(value.to_owned(), Origin::Environment(name)))
        };
        let no_proxy = named("no_proxy", "NO_PROXY").map(|Secret(value, origin)| Sourced { value, origin });
        Self { http: named("http_proxy", "HTTP_PROXY"), https: named("https_proxy", "HTTPS_PROXY"), no_proxy }
    }

    /// The proxy for requests to this URL.
    ///
    /// # Errors
    /// When the variable does not name a proxy that can be used.
    pub fn for_uri(&self, uri: &Uri) -> Result<Option<Proxy>, SdkError> {
        match uri.host() {
            Some(host) if !is_on_this_machine(host) && !self.excepts(host, uri.port_u16()) => {
                self.for_scheme(uri.scheme_str().unwrap_or_default())
            }
            _ => Ok(None),
        }
    }

    /// The proxy for requests by `http` or by `https`, to hosts that have one.
    ///
    /// # Errors
    /// When the variable does not name a proxy that can be used.
    pub fn for_scheme(&self, scheme: &str) -> Result<Option<Proxy>, SdkError> {
        let named = match scheme {
            "http" => &self.http,
            "https" => &self.https,
            _ => &None,
        };
        named.as_ref().map(|Secret(text, origin)| Proxy::parse(text, origin.clone())).transpose()
    }

    /// Does `NO_PROXY` name this host?
    pub fn excepts(&self, host: &str, port: Option<u16>) -> bool {
        let Some(list) = &self.no_proxy else { return false };
        if list.value == "*" {
            return true;
        }
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let with_port = port.map(|port| format!("{host}:{port}"));
        list.value.split(',').any(|name| {
            let name = name.trim().trim_start_matches('.').trim_matches(['[', ']']).to_ascii_lowercase();
            let is = |host: &str| host == name || host.ends_with(&format!(".{name}"));
            !name.is_empty() && (is(&host) || with_port.as_deref().is_some_and(is))
        })
    }
}

/// Loopback and link-local addresses, and those of the instance metadata service and of EKS's agent: a proxy
/// would reach its own machine there.
pub(crate) fn is_on_this_machine(host: &str) -> bool {
    /// The network of EC2's services on the instance over IPv6: IMDS is fd00:ec2::254 (EC2 guide, "instance
    /// metadata"), EKS's agent fd00:ec2::23 (EKS guide, "Pod Identity").
    const EC2: [u16; 2] = [0xfd00, 0x0ec2];
    let host = host.trim_matches(['[', ']']);
    let v4 = |a: Ipv4Addr| a.is_loopback() || a.is_link_local();
    let v6 = |a: Ipv6Addr| {
        let start = [a.segments()[0], a.segments()[1]];
        a.is_loopback() || a.is_unicast_link_local() || start == EC2 || a.to_ipv4_mapped().is_some_and(v4)
    };
    match host.parse() {
        Ok(IpAddr::V4(address)) => v4(address),
        Ok(IpAddr::V6(address)) => v6(address),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(env: Environment, url: &str) -> String {
        match Proxies::from_environment(&env).for_uri(&url.parse().unwrap()) {
            Ok(Some(proxy)) => format!("{proxy} {}", name_of(&proxy.origin)),
            Ok(None) => "direct".to_owned(),
            Err(e) => format!("error: {e}"),
        }
    }

    const EC2: &str = "https://ec2.eu-central-1.amazonaws.com";

    #[test]
    fn each_scheme_has_its_variable_and_small_letters_win() {
        let both = || Environment::from([("HTTPS_PROXY", "http://big:1"), ("https_proxy", "http://small:2")]);
        assert_eq!(shown(both(), EC2), "http://small:2 https_proxy");
        let emptied = Environment::from([("HTTPS_PROXY", "http://big:1"), ("https_proxy", "")]);
        assert_eq!(shown(emptied, EC2), "direct", "as in the aws CLI");
        let https = || Environment::from([("HTTPS_PROXY", "http://big:1")]);
        assert_eq!(shown(https(), EC2), "http://big:1 HTTPS_PROXY");
        assert_eq!(shown(https(), "http://ec2.example"), "direct");
        assert_eq!(
            shown(Environment::from([("HTTP_PROXY", "p")]), "http://ec2.example"),
            "http://p HTTP_PROXY"
        );
        assert_eq!(shown(Environment::from([("HTTP_PROXY", "p")]), EC2), "direct");
        assert_eq!(shown(Environment::from([("ALL_PROXY", "http://p"), ("all_proxy", "p")]), EC2), "direct");
    }

    #[test]
    fn a_proxy_is_named_in_many_ways_and_its_password_is_not_shown() {
        let named = |text: &str| shown(Environment::from([("HTTPS_PROXY", text)]), EC2);
        for text in ["proxy:3128", "//proxy:3128", "http://proxy:3128", "HTTP://proxy:3128/path?x#y"] {
            assert_eq!(named(text), "http://proxy:3128 HTTPS_PROXY", "{text}");
        }
        assert_eq!(named("https://[2001:db8::1]:8443"), "https://[2001:db8::1]:8443 HTTPS_PROXY");
        for text in ["http://me:s3cret@proxy:1", "me:s3cret@proxy:1", "http://me:s3@cret@proxy:1"] {
            assert_eq!(named(text), "http://me:***@proxy:1 HTTPS_PROXY", "{text}");
        }
        for text in ["socks5://me:s3cret@proxy", "http://me:s3cret@", "http://me:s3cret@a b", "ftp://p"] {
            let said = named(text);
            assert!(said.starts_with("error: the proxy of environment HTTPS_PROXY cannot be used"), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        let env = Environment::from([("HTTPS_PROXY", "http://a%40b:p%3Aw@proxy")]);
        let proxies = Proxies::from_environment(&env);
        let proxy = proxies.for_uri(&EC2.parse().unwrap()).unwrap().unwrap();
        assert_eq!(proxy.user, Some(("a@b".to_owned(), "p:w".to_owned())));
        assert!(!format!("{proxies:?} {proxy:?} {env:?}").contains("p:w"));
        assert!(proxy.config().is_ok());
    }

    #[test]
    fn no_proxy_is_read_as_the_aws_cli_reads_it() {
        let with = |list: &str, url: &str| {
            shown(Environment::from([("HTTPS_PROXY", "p"), ("NO_PROXY", list)]), url) == "direct"
        };
        for list in
            ["*", "amazonaws.com", ".amazonaws.com", "x, AmazonAWS.com ,y", "EC2.eu-central-1.amazonaws.com"]
        {
            assert!(with(list, EC2), "{list}");
        }
        for list in ["", "azonaws.com", "*.amazonaws.com", "amazonaws.com.", "x,*", " *", "10.0.0.0/8"] {
            assert!(!with(list, EC2), "{list}");
        }
        assert!(with("ec2.example:8443", "https://ec2.example:8443"));
        assert!(!with("ec2.example:8443", "https://ec2.example"));
        assert!(with("2001:db8::1", "https://[2001:db8::1]:8443"));
        let small = Environment::from([("HTTPS_PROXY", "p"), ("NO_PROXY", "*"), ("no_proxy", "x")]);
        assert_eq!(shown(small, EC2), "http://p HTTPS_PROXY");
    }

    #[test]
    fn nothing_of_this_machine_goes_through_a_proxy() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "localhost",
            "LocalHost.",
            "a.localhost",
        ] {
            let env = Environment::from([("HTTP_PROXY", "p"), ("HTTPS_PROXY", "p")]);
            assert_eq!(shown(env.clone(), &format!("http://{host}/x")), "direct", "{host}");
            assert_eq!(shown(env, &format!("https://{host}:8443/x")), "direct", "{host}");
        }
        for host in ["10.0.0.1", "[fd00:ec3::254]", "169.253.1.1", "localhost.example", "notlocalhost"] {
            let env = Environment::from([("HTTP_PROXY", "p")]);
            assert_eq!(shown(env, &format!("http://{host}/x")), "http://p HTTP_PROXY", "{host}");
        }
    }
}
