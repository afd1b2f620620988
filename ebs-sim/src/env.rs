//! The variables that lead AWS's clients to a running ebs-sim.
//!
//! In: what it announced, and how it is to be reached. Out: variables to set and to unset. Nothing of them
//! must be left to whatever the caller's own environment holds.

use std::collections::BTreeMap;

use crate::ready::Ready;

/// The variable that leads to another metadata service.
pub const IMDS: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// Those that lead to EC2, the EBS direct APIs and the Recycle Bin, which answer on one port.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_EBS", "AWS_ENDPOINT_URL_RBIN"];
/// Where clients look for authorities: AWS's own, and those that use the system's.
const AUTHORITIES: [&str; 2] = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"];

/// How a command reaches EC2.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Reach {
    /// Lead it to the TLS port, and have it trust the simulation's authority alone.
    #[arg(long)]
    pub tls: bool,
    /// Set the static key and the Region, so that clients need no metadata service.
    #[arg(long)]
    pub static_credentials: bool,
}

impl Reach {
    /// The same as arguments.
    pub fn arguments(self) -> impl Iterator<Item = &'static str> {
        let tls = self.tls.then_some("--tls");
        tls.into_iter().chain(self.static_credentials.then_some("--static-credentials"))
    }
}

/// What to set.
pub fn variables(ready: &Ready, reach: Reach) -> BTreeMap<String, String> {
    let mut set = ready.env.clone();
    let mut put = |name: &str, value: &str| set.insert(name.to_owned(), value.to_owned());
    if reach.tls {
        lead_to_tls(&ready.tls_endpoint, &ready.ca_bundle.to_string_lossy(), &mut put);
    }
    if reach.static_credentials {
        put("AWS_ACCESS_KEY_ID", &ready.credentials.access_key_id);
        put("AWS_SECRET_ACCESS_KEY", &ready.credentials.secret_access_key);
        put("AWS_REGION", &ready.region);
        put("AWS_DEFAULT_REGION", &ready.region);
    }
    set
}

fn lead_to_tls(endpoint: &str, authority: &str, put: &mut impl FnMut(&str, &str) -> Option<String>) {
    for name in ENDPOINTS {
        put(name, endpoint);
    }
    for name in AUTHORITIES {
        put(name, authority);
    }
}

/// What every command gets: where EC2 is, and the metadata service unless it has its real address.
pub fn usual(endpoint: &str, imds: Option<&str>, tls: Option<(&str, &str)>) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    let mut put = |name: &str, value: &str| set.insert(name.to_owned(), value.to_owned());
    for name in ENDPOINTS {
        put(name, endpoint);
    }
    if let Some(imds) = imds {
        put(IMDS, imds);
    }
    if let Some((endpoint, authority)) = tls {
        lead_to_tls(endpoint, authority, &mut put);
    }
    set
}

/// What to unset first: variables that lead elsewhere, name other authorities or belong to other credentials.
pub fn stray(ready: &Ready, reach: Reach) -> Vec<&'static str> {
    let mut stray = vec![IMDS];
    if reach.tls || ready.env.contains_key(AUTHORITIES[0]) {
        stray.extend(["SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]);
    }
    if reach.static_credentials {
        stray.extend(["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
    }
    stray
}

/// Lines that a shell can evaluate.
pub fn lines(ready: &Ready, reach: Reach) -> String {
    let unset = stray(ready, reach).into_iter().map(|name| format!("unset {name}\n"));
    let mut set = variables(ready, reach);
    set.insert("EBS_SIM_DIR".into(), ready.dir.to_string_lossy().into_owned());
    let set = set.into_iter().map(|(name, value)| format!("export {name}={}\n", quoted(&value)));
    unset.chain(set).collect()
}

/// A text as one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let text = "it's $HOME `x` \\ \"y\"\n";
        let script = format!("printf %s {}", quoted(text));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    }
}
