//! One EC2 client that gets its credentials, addresses, connections and TLS sessions before the freeze.
//!
//! ```text
//! dns           names, each looked up before the freeze         dns.rs
//! clients       HTTP, through a proxy or not                   clients.rs
//! credentials   from the source that is in force                credentials.rs, process.rs
//! ```
//!
//! In: the Region, and how AWS is reached ([`super::sdk`]). Out: a client and its connection pool. Must never:
//! resolve a name, fetch credentials, or retry once it is made.

mod credentials;
mod dns;
mod clients;
mod process;

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::SharedHttpClient;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_smithy_http_client::pool::{self, ConnectionPool, OriginKey, PartitionId};
use aws_smithy_http_client::tls::TrustStore;

use self::dns::PinnedDns;
use super::sdk::{Sdk, SdkError};
use crate::config::Loaded;
use crate::error::chain;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why no client could be made. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum ConnectError {
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    #[error("the AWS credentials expire in {}, the run may need {}", humantime::format_duration(*left), humantime::format_duration(*need))]
    Expiring { left: Duration, need: Duration },
    /// The endpoint is not a URL, or its host has no address.
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
            Self::Credentials(_) => {
                "attach an instance profile with an IAM role, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY; `stillpoint config show` names the source that is in force"
            }
            Self::Expiring { .. } => "renew them, or shorten the hooks' timeouts",
            Self::Endpoint { .. } => "check --endpoint-url, AWS_ENDPOINT_URL_EC2, the Region's name and DNS",
            Self::Http(_) => "check the system's CA certificates (package ca-certificates)",
            Self::Proxy { hint, .. } | Self::Setting { hint, .. } => hint,
        }
    }
}

/// A client with its own pool of warm connections.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client: no retries, pinned credentials, pinned addresses.
    pub client: aws_sdk_ec2::Client,
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
    let sdk = &Sdk::find(loaded).await?;
    for warning in &sdk.warnings {
        tracing::warn!("{warning}");
    }
    let endpoint = sdk.url(region).await?;
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
    let pinned = pin_credentials(&shared, need).await.map_err(|e| match (e, &sdk.credentials.source) {
        (ConnectError::Credentials(why), Some(source)) => {
            ConnectError::Credentials(format!("{}: {why}", source.value))
        }
        (e, _) => e,
    })?;
    // Behind a proxy, EC2's name is for the proxy to look up: this host may know no names at all.
    let dns = PinnedDns::default();
    match &proxy {
        Some(proxy) => dns.pin(proxy.host()).await.map_err(|why| ConnectError::Proxy {
            proxy: format!("{proxy} ({})", proxy.origin),
            why,
            hint: format!("correct the proxy of {}, or have NO_PROXY name {host}", proxy.origin),
        })?,
        None => dns.pin(host).await.map_err(wrong)?,
    };
    let pool = clients::pool(&dns, proxy.as_ref(), trusted, connections)?;
    let config = aws_sdk_ec2::config::Builder::from(&shared)
        .endpoint_url(&endpoint)
        // They have gone into the endpoint, and the SDK would refuse them beside one.
        .use_fips(false)
        .use_dual_stack(false)
        .credentials_provider(pinned)
        .http_client(pool::Client::new(&pool).map_err(http)?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_timeout(loaded.settings.ec2.call_timeout)
                .build(),
        )
        .build();
    let origin = OriginKey::from_uri(&uri).map_err(|e| wrong(e.to_string()))?;
    Ok(Connection { client: aws_sdk_ec2::Client::from_conf(config), pool, origin })
}

/// The configuration of the create call: `call_timeout` is for the calls outside of the window, and only the
/// end of the window ends this one.
pub(super) fn without_call_timeout() -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).disable_operation_timeout();
    aws_sdk_ec2::Config::builder().timeout_config(timeouts.build())
}

/// The same key, secret and token without the expiry, so that the SDK never refreshes them inside the window.
async fn pin_credentials(
    shared: &aws_config::SdkConfig,
    need: Duration,
) -> Result<Credentials, ConnectError> {
    let provider = shared
        .credentials_provider()
        .ok_or_else(|| ConnectError::Credentials("no provider is configured".to_owned()))?;
    let got = provider.provide_credentials().await.map_err(|e| ConnectError::Credentials(chain(&e)))?;
    if let Some(expiry) = got.expiry() {
        let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
        if left < need {
            let left = Duration::from_secs(left.as_secs());
            return Err(ConnectError::Expiring { left, need });
        }
    }
    // An empty one is none, as in the aws CLI; sent all the same, it would make the signature wrong.
    let token = got.session_token().filter(|token| !token.is_empty()).map(str::to_owned);
    Ok(Credentials::new(got.access_key_id(), got.secret_access_key(), token, None, "pinned"))
}
