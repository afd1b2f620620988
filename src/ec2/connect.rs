//! One EC2 client that gets its credentials, addresses, connections and TLS sessions before the freeze.
//!
//! ```text
//! dns           names, each looked up before the freeze         dns.rs
//! clients       HTTP, through a proxy or not                   clients.rs
//! credentials   from the source that is in force                credentials.rs, process.rs
//! pinned        the same in memory, fetched again before a window   pinned.rs
//! ```
//!
//! In: the Region, and how AWS is reached ([`super::sdk`]). Out: a client and its connection pool. Must never:
//! resolve a name or retry once it is made, or fetch credentials unless it is told to.

mod credentials;
mod dns;
mod clients;
mod pinned;
mod process;

use std::time::Duration;

use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{IdentityCache, SharedHttpClient};
use aws_smithy_http_client::pool::{self, ConnectionPool, OriginKey, PartitionId};
use aws_smithy_http_client::tls::TrustStore;

use self::dns::PinnedDns;
use self::pinned::Pinned;
use super::late;
use super::sdk::credentials::Base;
use super::sdk::{Sdk, SdkError};
use crate::clock;
use crate::config::Loaded;
use crate::error::chain;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a name is looked up again that does not exist.
const NO_SUCH_NAME: Duration = Duration::from_secs(3);

/// Why no client could be made. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum ConnectError {
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    /// The same, and there may be some a moment later.
    #[error("no AWS credentials: {0}")]
    CredentialsLate(String),
    #[error("the AWS credentials expire in {}, the next step may need {}", humantime::format_duration(*left), humantime::format_duration(*need))]
    Expiring { left: Duration, need: Duration },
    /// The name of the endpoint or of the proxy has no address. It may have one a moment later.
    #[error("{what}: {why}")]
    Name { what: String, why: String, hint: String },
    /// The endpoint is not a URL.
    #[error("EC2 endpoint {endpoint}: {why}")]
    Endpoint { endpoint: String, why: String },
    #[error("cannot set up HTTPS: {0}")]
    Http(String),
    /// The proxy that requests to EC2 go through cannot be used.
    #[error("the proxy {proxy}: {why}")]
    Proxy { proxy: String, why: String, hint: String },
    /// A variable or a file of the SDK's says what cannot be used.
    #[error("{what}")]
    Setting { what: String, hint: String },
}

impl From<SdkError> for ConnectError {
    fn from(e: SdkError) -> Self {
        Self::Setting { what: e.to_string(), hint: e.hint }
    }
}

impl ConnectError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Credentials(_) | Self::CredentialsLate(_) => {
                "attach an instance profile with an IAM role, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY; `stillpoint config show` names the source that is in force"
            }
            Self::Expiring { .. } => {
                "renew them where they come from, for a longer time (`stillpoint config show` says where); or shorten `window`"
            }
            Self::Endpoint { .. } => "check --endpoint-url, AWS_ENDPOINT_URL_EC2, the Region's name and DNS",
            Self::Http(_) => "check the system's CA certificates (package ca-certificates)",
            Self::Name { hint, .. } | Self::Proxy { hint, .. } | Self::Setting { hint, .. } => hint,
        }
    }
}

/// A client with its own pool of warm connections.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client: no retries, pinned credentials, pinned addresses.
    pub client: aws_sdk_ec2::Client,
    credentials: Pinned,
    pool: ConnectionPool,
    origin: OriginKey,
}

impl Connection {
    /// The number of idle connections that the next requests can use.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pool
            .partition_stats(PartitionId::ANONYMOUS, &self.origin)
            .map_or(0, |s| s.h1().idle() + s.h2().accepting())
    }

    /// Has credentials that last for `need` from now on. Those at hand are kept as long as they do.
    ///
    /// # Errors
    /// When there are none that do.
    pub(crate) async fn renew(&self, need: Duration) -> Result<(), ConnectError> {
        self.credentials.lasting(need).await
    }

    /// The same for one call: what is still valid will do.
    ///
    /// # Errors
    /// When those at hand have expired, and there are no other.
    pub(crate) async fn renew_if_possible(&self, need: Duration) -> Result<(), ConnectError> {
        self.credentials.lasting_if_possible(need).await
    }
}

/// A plain HTTP client without proxy, for IMDS.
///
/// # Errors
/// When it cannot be set up.
pub(crate) fn plain_http() -> Result<SharedHttpClient, ConnectError> {
    clients::direct(&PinnedDns::default(), TrustStore::empty())
}

fn http(e: impl std::error::Error + 'static) -> ConnectError {
    ConnectError::Http(chain(&e))
}

/// Makes the client. `need` is how long the credentials must live; `connections` how many calls may be in
/// flight at once.
///
/// # Errors
/// When there are no such credentials, the endpoint is wrong, or HTTPS cannot be set up.
pub async fn connect(
    loaded: &Loaded,
    region: &str,
    need: Duration,
    connections: usize,
) -> Result<Connection, ConnectError> {
    connect_by(&Sdk::find(loaded).await?, loaded, region, need, connections).await
}

/// The same with the credentials of this profile of the SDK's files, and no others.
///
/// # Errors
/// As [`connect`], and when the profile has none.
pub async fn connect_as(
    loaded: &Loaded,
    profile: &str,
    region: &str,
    need: Duration,
    connections: usize,
) -> Result<Connection, ConnectError> {
    connect_by(&Sdk::find_as(loaded, profile).await?, loaded, region, need, connections).await
}

async fn connect_by(
    sdk: &Sdk,
    loaded: &Loaded,
    region: &str,
    need: Duration,
    connections: usize,
) -> Result<Connection, ConnectError> {
    for warning in &sdk.warnings {
        tracing::warn!("{warning}");
    }
    let endpoint = sdk.url(region).await?;
    let way = Way::find(loaded, sdk, region, endpoint, need, connections).await?;
    let config = aws_sdk_ec2::config::Builder::from(&way.shared)
        .endpoint_url(&way.endpoint)
        // They have gone into the endpoint, and the SDK would refuse them beside one.
        .use_fips(false)
        .use_dual_stack(false)
        .credentials_provider(way.credentials.clone())
        // A cache would decide by itself when to ask for them again.
        .identity_cache(IdentityCache::no_cache())
        .http_client(pool::Client::new(&way.pool).map_err(http)?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(loaded))
        .build();
    let client = aws_sdk_ec2::Client::from_conf(config);
    Ok(Connection { client, credentials: way.credentials, pool: way.pool, origin: way.origin })
}

/// A client for the EBS direct APIs.
#[derive(Debug, Clone)]
pub struct DirectConnection {
    /// The client: no retries, pinned credentials, pinned addresses.
    pub client: aws_sdk_ebs::Client,
    /// How long one block may take to come.
    pub(super) limit: Duration,
    credentials: Pinned,
}

impl DirectConnection {
    /// As [`Connection::renew_if_possible`].
    ///
    /// # Errors
    /// When those at hand have expired, and there are no other.
    pub(crate) async fn renew_if_possible(&self, need: Duration) -> Result<(), ConnectError> {
        self.credentials.lasting_if_possible(need).await
    }
}

/// The same for the EBS direct APIs, which have an endpoint of their own (`ebs.REGION.amazonaws.com`).
///
/// # Errors
/// As [`connect`].
pub async fn connect_direct(
    loaded: &Loaded,
    region: &str,
    need: Duration,
    connections: usize,
) -> Result<DirectConnection, ConnectError> {
    let sdk = &Sdk::find(loaded).await?;
    let endpoint = sdk.url_of_direct(region).await?;
    let way = Way::find(loaded, sdk, region, endpoint, need, connections).await?;
    let config = aws_sdk_ebs::config::Builder::from(&way.shared)
        .endpoint_url(&way.endpoint)
        .use_fips(false)
        .use_dual_stack(false)
        .credentials_provider(way.credentials.clone())
        .identity_cache(IdentityCache::no_cache())
        .http_client(pool::Client::new(&way.pool).map_err(http)?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(loaded))
        .build();
    let limit = loaded.settings.ec2.call_timeout;
    Ok(DirectConnection {
        client: aws_sdk_ebs::Client::from_conf(config),
        limit,
        credentials: way.credentials,
    })
}

/// No call outside of the window takes longer.
fn timeouts(loaded: &Loaded) -> TimeoutConfig {
    let limit = loaded.settings.ec2.call_timeout;
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(limit).build()
}

/// How one service is reached: its address looked up, credentials at hand.
struct Way {
    endpoint: String,
    shared: aws_config::SdkConfig,
    credentials: Pinned,
    pool: ConnectionPool,
    origin: OriginKey,
}

impl Way {
    async fn find(
        loaded: &Loaded,
        sdk: &Sdk,
        region: &str,
        endpoint: String,
        need: Duration,
        connections: usize,
    ) -> Result<Self, ConnectError> {
        let wrong = |why: String| ConnectError::Endpoint { endpoint: endpoint.clone(), why };
        let uri: http::Uri = endpoint.parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
        let host = uri.host().ok_or_else(|| wrong("no host in the URL".to_owned()))?;
        let proxy = sdk.proxies.for_uri(&uri)?;
        let https = |scheme: Option<&str>| scheme == Some("https");
        let trusted = if https(uri.scheme_str()) || proxy.as_ref().is_some_and(|p| p.is_https()) {
            sdk.trust_store()?
        } else {
            TrustStore::empty()
        };
        let shared = credentials::shared(sdk, region).await?;
        let settings = &loaded.settings;
        let patience = late::patience(settings.identity.imds_timeout);
        let waits = |e: &ConnectError| match e {
            ConnectError::CredentialsLate(_) => patience,
            // The resolver has answered that there is no such name: mostly that lasts (getaddrinfo(3), EAI_NONAME).
            ConnectError::Name { why, .. } if why.contains("Name or service not known") => {
                settings.ec2.retry_timeout.min(NO_SUCH_NAME)
            }
            ConnectError::Name { .. } => settings.ec2.retry_timeout,
            _ => Duration::ZERO,
        };
        let pinned = pinned(sdk, &shared)?;
        late::attempts(&clock::System, waits, async || pinned.lasting(need).await).await?;
        // Behind a proxy, EC2's name is for the proxy to look up: this host may know no names at all.
        let dns = PinnedDns::default();
        let (name, what, hint) = match &proxy {
            Some(proxy) => (
                proxy.host(),
                format!("the proxy {proxy} ({})", proxy.origin),
                format!("correct the proxy of {}, or have NO_PROXY name {host}", proxy.origin),
            ),
            None => (host, format!("EC2 endpoint {endpoint}"), wrong(String::new()).hint().to_owned()),
        };
        let look_up = async || {
            let failed = |why| ConnectError::Name { what: what.clone(), why, hint: hint.clone() };
            dns.pin(name).await.map_err(failed)
        };
        late::attempts(&clock::System, waits, look_up).await?;
        let pool = clients::pool(&dns, proxy.as_ref(), trusted, connections)?;
        let origin = OriginKey::from_uri(&uri).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { endpoint, shared, credentials: pinned, pool, origin })
    }
}

/// The configuration of the create call: `call_timeout` is for the calls outside of the window, and only the
/// end of the window ends this one.
pub(super) fn without_call_timeout() -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).disable_operation_timeout();
    aws_sdk_ec2::Config::builder().timeout_config(timeouts.build())
}

/// The source in force, with nothing fetched yet.
fn pinned(sdk: &Sdk, shared: &aws_config::SdkConfig) -> Result<Pinned, ConnectError> {
    let source = shared
        .credentials_provider()
        .ok_or_else(|| ConnectError::Credentials("no provider is configured".to_owned()))?;
    let found = sdk.credentials.source.as_ref().map(|s| &s.value);
    let may_be_late = found.is_some_and(|s| matches!(s.base, Base::InstanceProfile | Base::Container { .. }));
    Ok(Pinned::new(source, found.map_or_else(String::new, |s| format!("{s}: ")), may_be_late))
}
