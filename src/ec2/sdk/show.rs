//! What `config show` prints of how AWS is reached.
//!
//! In: an [`Sdk`], and the Region where the configuration has one. Out: comments below the settings, and
//! JSON. Must never: print a secret, or anything that is not in force.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::ca::Authorities;
use super::{Sdk, SdkError};
use crate::config::{Loaded, Origin};
use crate::path_encoding::shown;

/// One line: what, its value, and where that came from.
struct Line(&'static str, String, Origin);

impl Sdk {
    /// Puts into the settings what is in force of those that the SDK's variables and files can also set.
    pub fn overlay(&self, loaded: &mut Loaded) {
        let endpoint = self.endpoint.as_ref();
        loaded.settings.ec2.endpoint_url = endpoint.map(|e| e.value.clone());
        let origin = endpoint.map_or(Origin::Default, |e| e.origin.clone());
        loaded.origins.insert("ec2.endpoint_url".to_owned(), origin);
        let imds = (self.imds.origin != Origin::Default).then(|| self.imds.value.clone());
        loaded.settings.identity.imds_endpoint = imds;
        loaded.origins.insert("identity.imds_endpoint".to_owned(), self.imds.origin.clone());
    }

    /// # Errors
    /// As [`Sdk::url`], and when the proxy cannot be used.
    async fn lines(&self, region: Option<&str>) -> Result<Vec<Line>, SdkError> {
        let endpoint_origin = self.endpoint.as_ref().map_or(Origin::Default, |e| e.origin.clone());
        // The scheme and NO_PROXY need a URL; which Region it is does not change the scheme.
        let url = match (&self.endpoint, region) {
            (_, Some(region)) => Some(self.url(region).await?),
            (Some(own), None) => Some(own.value.clone()),
            (None, None) => None,
        };
        let mut lines = Vec::new();
        let endpoint =
            url.clone().unwrap_or_else(|| "the Region's own (the Region is asked of IMDS)".to_owned());
        lines.push(Line("endpoint", endpoint, endpoint_origin));
        if let Some(origin) = &self.ignored {
            let what = "those of variables and profiles do not count".to_owned();
            lines.push(Line("configured endpoints", what, origin.clone()));
        }
        let yes_no = |yes| match (yes, &self.endpoint) {
            (true, None) => "yes".to_owned(),
            (true, Some(_)) => "not for EC2, since its endpoint is given".to_owned(),
            (false, _) => "no".to_owned(),
        };
        lines.push(Line("FIPS", yes_no(self.fips.value), self.fips.origin.clone()));
        lines.push(Line("dual-stack", yes_no(self.dual_stack.value), self.dual_stack.origin.clone()));
        let authorities = match &self.authorities.value {
            Authorities::Bundle(path) => shown(path).to_string(),
            Authorities::OpenSsl { file, folders } => {
                let all: Vec<String> = file.iter().chain(folders).map(|p| shown(p).to_string()).collect();
                all.join(", ")
            }
            Authorities::System => "the system's".to_owned(),
        };
        lines.push(Line("CA certificates", authorities, self.authorities.origin.clone()));
        lines.push(self.proxy_line(url.as_deref())?);
        lines.push(Line("IMDS", self.imds.value.clone(), self.imds.origin.clone()));
        lines.push(Line("profile", self.profile.name.value.clone(), self.profile.name.origin.clone()));
        lines.push(match &self.credentials.source {
            Some(source) => Line("credentials", source.value.to_string(), source.origin.clone()),
            None => Line("credentials", "none".to_owned(), Origin::Environment("AWS_EC2_METADATA_DISABLED")),
        });
        Ok(lines)
    }

    /// The proxy of requests to EC2, with what NO_PROXY does about it.
    fn proxy_line(&self, url: Option<&str>) -> Result<Line, SdkError> {
        let known = url.and_then(|url| url.parse::<http::Uri>().ok());
        let uri = known.clone().unwrap_or_else(|| http::Uri::from_static("https://ec2.invalid"));
        if let Some(proxy) = self.proxies.for_uri(&uri)? {
            let unless = match (&self.proxies.no_proxy, known) {
                (Some(list), None) => format!(" unless {} has the endpoint: {}", list.origin, list.value),
                (Some(list), Some(_)) => {
                    format!(" ({} does not have the endpoint: {})", list.origin, list.value)
                }
                (None, _) => String::new(),
            };
            return Ok(Line("proxy", format!("{proxy}{unless}"), proxy.origin));
        }
        let host = uri.host().unwrap_or_default();
        Ok(match &self.proxies.no_proxy {
            Some(list) if self.proxies.excepts(host, uri.port_u16()) => {
                Line("proxy", format!("none, since `{}` has the endpoint", list.value), list.origin.clone())
            }
            _ => Line("proxy", "none".to_owned(), Origin::Default),
        })
    }

    /// Below the settings, as comments: there is no setting in stillpoint's files for them.
    ///
    /// # Errors
    /// When there is no endpoint, or the proxy cannot be used.
    pub async fn show(&self, region: Option<&str>) -> Result<String, SdkError> {
        let mut out =
            String::from("\n# How AWS is reached, by the AWS SDK's variables and files (docs/aws.md):\n");
        for Line(what, value, origin) in self.lines(region).await? {
            let text = format!("# {what}: {value}");
            let _ = writeln!(out, "{text:<40}  # {origin}");
        }
        Ok(out)
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// As [`Sdk::show`].
    pub async fn show_json(&self, region: Option<&str>) -> Result<Value, SdkError> {
        let lines = self.lines(region).await?;
        let lines = lines
            .into_iter()
            .map(|Line(what, value, origin)| json!({"key": what, "value": value, "origin": origin}));
        Ok(lines.collect())
    }
}
