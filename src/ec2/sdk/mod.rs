//! How AWS is reached: what the SDK's variables and files say, each value with its origin.
//!
//! ```text
//! environment   variables                                        environment.rs
//! files         ~/.aws/config, ~/.aws/credentials                files.rs
//! profile       the profile in force                             profile.rs
//! endpoint, FIPS, dual-stack, IMDS                               here
//! authorities   whose certificates HTTPS trusts                  ca.rs
//! proxies       which requests go through which                  proxy.rs
//! credentials   whose they are, by name                          credentials.rs
//! show          what `config show` prints of it                  show.rs
//! ```
//!
//! [`super::connect`] connects by this, and `config show` prints it: there is no second opinion.
//!
//! In: the configuration, the environment and the SDK's files. Out: an [`Sdk`]. Must never: send anything,
//! look up a name, or let the SDK find a file or a variable on its own.

mod ca;
pub(crate) mod credentials;
pub(crate) mod environment;
mod files;
mod profile;
pub(crate) mod proxy;
mod show;

use aws_config::Region;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};

use self::ca::Authorities;
use self::environment::Environment;
use self::files::Files;
use self::profile::Profile;
use self::proxy::Proxies;
use crate::config::{Loaded, Origin, Sourced, check};

/// A setting of the SDK's that cannot be used. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct SdkError {
    what: String,
    /// What to do about it.
    pub hint: String,
}

impl SdkError {
    fn new(what: String, hint: String) -> Self {
        Self { what, hint }
    }
}

/// How AWS is reached.
#[derive(Debug)]
pub(crate) struct Sdk {
    files: Files,
    profile: Profile,
    /// The endpoint of EC2; none means the Region's own.
    pub endpoint: Option<Sourced<String>>,
    /// The endpoint of the EBS direct APIs; none means the Region's own.
    direct_endpoint: Option<Sourced<String>>,
    /// Set when the endpoints of variables and profiles do not count.
    ignored: Option<Origin>,
    /// Is an endpoint for STS configured?
    sts_endpoint: bool,
    /// Endpoints with cryptography that FIPS 140 allows, where the endpoint is the Region's own.
    pub fips: Sourced<bool>,
    /// Endpoints that have IPv6 addresses too, where the endpoint is the Region's own.
    pub dual_stack: Sourced<bool>,
    /// Whose certificates HTTPS trusts.
    pub authorities: Sourced<Authorities>,
    /// Which requests go through a proxy.
    pub proxies: Proxies,
    /// The URL of the metadata service.
    pub imds: Sourced<String>,
    /// Whose credentials are used.
    pub credentials: credentials::Found,
    /// What is set and cannot be used, and does not keep anything from working.
    pub warnings: Vec<String>,
}

impl Sdk {
    /// By this process's environment.
    ///
    /// # Errors
    /// When a value contradicts another, or names what is not there.
    pub async fn find(loaded: &Loaded) -> Result<Self, SdkError> {
        Self::find_in(loaded, &Environment::own()).await
    }

    /// By this profile, and by its credentials alone: what variables or this instance have is another account's.
    ///
    /// # Errors
    /// The same, and when the profile has no credentials.
    pub async fn find_as(loaded: &Loaded, profile: &str) -> Result<Self, SdkError> {
        Self::find_as_in(loaded, &Environment::own(), profile).await
    }

    async fn find_as_in(loaded: &Loaded, env: &Environment, name: &str) -> Result<Self, SdkError> {
        let env = env.clone().with_profile(name);
        let mut found = Self::find_in(loaded, &env).await?;
        found.credentials = credentials::of_profile_alone(&env, &found.profile)?;
        Ok(found)
    }

    async fn find_in(loaded: &Loaded, env: &Environment) -> Result<Self, SdkError> {
        let files = Files::read(env)?;
        let profile = Profile::read(env, &files).await?;
        let mut warnings = files.left_out.clone();
        let mut is = |variable, key| yes_or_no(value(env, &profile, variable, key), key, &mut warnings);
        let ignore = is("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls");
        let fips = is("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
        let dual_stack = is("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint");
        let ignored = ignore.value.then_some(ignore.origin);
        let credentials = credentials::find(env, &profile)?;
        warnings.extend(credentials.passed_over.iter().cloned());
        let endpoint = endpoint(loaded, env, &profile, ignored.is_some())?;
        if let Some(own) = &endpoint {
            for (what, on) in [("FIPS", &fips), ("dual-stack", &dual_stack)].iter().filter(|(_, v)| v.value) {
                let (url, of) = (&own.value, &own.origin);
                warnings.push(format!(
                    "{what} ({}) does not count for EC2: its endpoint is given, {url} ({of})",
                    on.origin
                ));
            }
        }
        // STS has endpoints of its own, by variables and profiles alone.
        let sts = env.get("AWS_ENDPOINT_URL_STS").or_else(|| env.get("AWS_ENDPOINT_URL")).is_some()
            || profile.service("sts", "endpoint_url").or_else(|| profile.get("endpoint_url")).is_some();
        Ok(Self {
            endpoint,
            direct_endpoint: service_endpoint(
                "ebs",
                "AWS_ENDPOINT_URL_EBS",
                env,
                &profile,
                ignored.is_some(),
            )?,
            sts_endpoint: sts && ignored.is_none(),
            ignored,
            fips,
            dual_stack,
            authorities: Authorities::find(env, &profile),
            proxies: Proxies::from_environment(env),
            imds: imds(loaded, env, &profile)?,
            credentials,
            warnings,
            files,
            profile,
        })
    }

    /// The URL of EC2 in this Region.
    ///
    /// An endpoint of one's own is taken as it is, without FIPS and dual-stack, as by the aws CLI.
    ///
    /// # Errors
    /// When there is none: for a Region that no partition has with FIPS, say.
    pub async fn url(&self, region: &str) -> Result<String, SdkError> {
        if let Some(own) = &self.endpoint {
            return Ok(own.value.clone());
        }
        let wrong = |why: String| {
            let on = [("FIPS", &self.fips), ("dual-stack", &self.dual_stack)];
            let on = on.iter().filter(|(_, v)| v.value).map(|(n, v)| format!("{n} ({})", v.origin));
            let on: Vec<_> = on.chain(["the Region's name".to_owned()]).collect();
            SdkError::new(
                format!("there is no EC2 endpoint for the Region {region}: {why}"),
                format!("check {}", on.join(" and ")),
            )
        };
        let params = Params::builder()
            .region(region)
            .use_fips(self.fips.value)
            .use_dual_stack(self.dual_stack.value)
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        let found = DefaultResolver::new().resolve_endpoint(&params).await;
        found.map(|e| e.url().to_owned()).map_err(|e| wrong(crate::error::chain(&*e)))
    }

    /// The URL of the EBS direct APIs in this Region.
    ///
    /// # Errors
    /// As [`Sdk::url`].
    pub async fn url_of_direct(&self, region: &str) -> Result<String, SdkError> {
        use aws_sdk_ebs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
        if let Some(own) = &self.direct_endpoint {
            return Ok(own.value.clone());
        }
        let wrong = |why: String| {
            SdkError::new(
                format!("there is no endpoint of the EBS direct APIs for the Region {region}: {why}"),
                "name one: AWS_ENDPOINT_URL_EBS".to_owned(),
            )
        };
        let params = Params::builder()
            .region(region)
            .use_fips(self.fips.value)
            .use_dual_stack(self.dual_stack.value)
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        let found = DefaultResolver::new().resolve_endpoint(&params).await;
        found.map(|e| e.url().to_owned()).map_err(|e| wrong(crate::error::chain(&*e)))
    }

    /// FIPS and dual-stack for STS; neither counts where its endpoint is configured.
    pub fn for_sts(&self) -> (bool, bool) {
        let own = !self.sts_endpoint;
        (self.fips.value && own, self.dual_stack.value && own)
    }

    /// The SDK's files, as it takes them.
    pub fn profile_files(&self) -> EnvConfigFiles {
        self.files.for_sdk()
    }

    /// The name of the profile in force.
    pub fn profile_name(&self) -> &str {
        &self.profile.name.value
    }

    /// Whose certificates HTTPS trusts, for the HTTP client.
    ///
    /// # Errors
    /// When a bundle cannot be used, or there are no certificates at all.
    pub fn trust_store(&self) -> Result<aws_smithy_http_client::tls::TrustStore, SdkError> {
        Authorities::trust_store(&self.authorities)
    }
}

/// A value of a variable, else of the profile in force.
fn value(env: &Environment, profile: &Profile, variable: &'static str, key: &str) -> Option<Sourced<String>> {
    let named = env.get(variable);
    let named = named.map(|v| Sourced { value: v.to_owned(), origin: Origin::Environment(variable) });
    named.or_else(|| profile.get(key))
}

/// Everything but `true` is no, as in the aws CLI; what is neither is told.
fn yes_or_no(found: Option<Sourced<String>>, key: &str, warnings: &mut Vec<String>) -> Sourced<bool> {
    let Some(Sourced { value, origin }) = found else {
        return Sourced { value: false, origin: Origin::Default };
    };
    let yes = value.eq_ignore_ascii_case("true");
    if !yes && !value.eq_ignore_ascii_case("false") {
        warnings.push(format!("`{key}` ({origin}) is `{value}`, neither true nor false: it counts as false"));
    }
    Sourced { value: yes, origin }
}

/// The flag; the SDK's variables; stillpoint's own files; the profile.
fn endpoint(
    loaded: &Loaded,
    env: &Environment,
    profile: &Profile,
    ignored: bool,
) -> Result<Option<Sourced<String>>, SdkError> {
    let origin = loaded.origin("ec2.endpoint_url").clone();
    let own = loaded.settings.ec2.endpoint_url.clone().map(|value| Sourced { value, origin });
    if let Some(Sourced { origin: Origin::Flag(_), .. }) = own {
        return Ok(own);
    }
    let variable = ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"].into_iter().filter(|_| !ignored);
    let variable = variable.filter_map(|name| {
        Some(Sourced { value: env.get(name)?.to_owned(), origin: Origin::Environment(name) })
    });
    let of_profile = || profile.service("ec2", "endpoint_url").or_else(|| profile.get("endpoint_url"));
    let found = { variable }.next().or(own).or_else(|| of_profile().filter(|_| !ignored));
    found.map(|found| url(found, "endpoint_url")).transpose()
}

/// Of a service that stillpoint's own files say nothing of: the SDK's variables; the profile.
fn service_endpoint(
    service: &str,
    variable: &'static str,
    env: &Environment,
    profile: &Profile,
    ignored: bool,
) -> Result<Option<Sourced<String>>, SdkError> {
    if ignored {
        return Ok(None);
    }
    let of = |name| Some(Sourced { value: env.get(name)?.to_owned(), origin: Origin::Environment(name) });
    let of_profile = || profile.service(service, "endpoint_url").or_else(|| profile.get("endpoint_url"));
    let found = of(variable).or_else(|| of("AWS_ENDPOINT_URL")).or_else(of_profile);
    found.map(|found| url(found, "endpoint_url")).transpose()
}

/// The flag; the SDK's variable; stillpoint's own files; the profile; by address family.
fn imds(loaded: &Loaded, env: &Environment, profile: &Profile) -> Result<Sourced<String>, SdkError> {
    const KEY: &str = "ec2_metadata_service_endpoint";
    const VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    let origin = loaded.origin("identity.imds_endpoint").clone();
    let own = loaded.settings.identity.imds_endpoint.clone().map(|value| Sourced { value, origin });
    let flag = matches!(own, Some(Sourced { origin: Origin::Flag(_), .. }));
    let variable = env.get(VARIABLE).filter(|_| !flag);
    let variable = variable.map(|v| Sourced { value: v.to_owned(), origin: Origin::Environment(VARIABLE) });
    if let Some(found) = variable.or(own).or_else(|| profile.get(KEY)) {
        return url(found, KEY);
    }
    let mode = value(env, profile, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", &format!("{KEY}_mode"));
    let Some(Sourced { value, origin }) = mode else {
        return Ok(Sourced { value: "http://169.254.169.254".to_owned(), origin: Origin::Default });
    };
    let value = match value.to_ascii_lowercase().as_str() {
        "ipv4" => "http://169.254.169.254".to_owned(),
        "ipv6" => "http://[fd00:ec2::254]".to_owned(),
        _ => {
            return Err(SdkError::new(
                format!("{origin}: `{KEY}_mode` is `{value}`"),
                "write IPv4 or IPv6".to_owned(),
            ));
        }
    };
    Ok(Sourced { value, origin })
}

fn url(found: Sourced<String>, key: &str) -> Result<Sourced<String>, SdkError> {
    check::url(&found.value).map_err(|fault| {
        let e = fault.at(found.origin.clone(), key);
        SdkError::new(e.to_string(), e.hint().unwrap_or_default())
    })?;
    Ok(found)
}

/// The SDK's name for a Region.
pub(crate) fn region(name: &str) -> Region {
    Region::new(name.to_owned())
}

#[cfg(test)]
mod tests;
