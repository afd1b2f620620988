//! One EC2 client that gets its credentials, addresses, connections and TLS sessions before the freeze.
//!
//! In: the Region, an optional endpoint, the SDK's credential chain. Out: a client and its connection pool.
//! Must never: resolve a name, fetch credentials, or retry once it is made.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{BehaviorVersion, SharedHttpClient};
use aws_smithy_http_client::pool::{self, ConnectionPool, OriginKey, PartitionId};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};

use super::sdk_files;
use crate::config::settings::Ec2Settings;
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
    /// A variable names a file of the SDK's that cannot be used.
    #[error("{what}")]
    File { what: String, hint: String },
}

impl ConnectError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Credentials(_) => {
                "attach an instance profile with an IAM role, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
            }
            Self::Expiring { .. } => "renew them, or shorten the hooks' timeouts",
            Self::Endpoint { .. } => "check --endpoint-url, AWS_ENDPOINT_URL_EC2, the Region's name and DNS",
            Self::Http(_) => "check the system's CA certificates (package ca-certificates)",
            Self::File { hint, .. } => hint,
        }
    }
}

/// DNS answers from before the freeze: a look-up inside the window only reads memory.
///
/// EC2's name is pinned when the client is made, any other name (a proxy's) at the first DryRun.
#[derive(Clone, Debug, Default)]
struct PinnedDns(Arc<RwLock<HashMap<String, Vec<IpAddr>>>>);

impl PinnedDns {
    fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn pin(&self, name: &str, addresses: Vec<IpAddr>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), addresses);
    }
}

impl ResolveDns for PinnedDns {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        if let Some(pinned) = self.get(name) {
            return DnsFuture::ready(Ok(pinned));
        }
        if crate::gate::is_shut() {
            return DnsFuture::ready(Err(ResolveDnsError::new(format!(
                "{name} was not resolved before the window"
            ))));
        }
        DnsFuture::new(async move {
            let found = tokio::net::lookup_host((name, 0)).await.map_err(ResolveDnsError::new)?;
            let found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
            self.pin(name, found.clone());
            Ok(found)
        })
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
    let built = ConnectionPool::builder().build_http().map_err(http)?;
    Ok(SharedHttpClient::new(pool::Client::new(&built).map_err(http)?))
}

fn http(e: impl std::error::Error + 'static) -> ConnectError {
    ConnectError::Http(chain(&e))
}

fn https(dns: Option<PinnedDns>, connections: usize) -> Result<ConnectionPool, ConnectError> {
    let mut builder = ConnectionPool::builder()
        .idle_timeout(Duration::from_secs(300)) // hooks may take long between preflight and window
        .tcp_keepalive(Duration::from_secs(15))
        .max_connections_per_host(connections)
        .proxy_config(aws_smithy_http_client::proxy::ProxyConfig::from_env());
    if let Some(dns) = dns {
        builder = builder.dns_resolver(dns);
    }
    builder
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
        .map_err(http)
}

/// Makes the client. `need` is how long the credentials must live; `connections` how many calls may be in
/// flight at once.
///
/// # Errors
/// When there are no such credentials, the endpoint is wrong, or HTTPS cannot be set up.
pub async fn connect(
    settings: &Ec2Settings,
    region: &str,
    imds_endpoint: Option<&str>,
    need: Duration,
    connections: usize,
) -> Result<Connection, ConnectError> {
    let region = Region::new(region.to_owned());
    let chain_http = SharedHttpClient::new(pool::Client::new(&https(None, 4)?).map_err(http)?);
    let provider =
        ProviderConfig::default().with_region(Some(region.clone())).with_http_client(chain_http.clone());
    let files = sdk_files::read().map_err(|e| ConnectError::File { what: e.to_string(), hint: e.hint() })?;
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .http_client(chain_http)
        .credentials_provider(credential_chain(&provider, imds_endpoint, files.clone()))
        .profile_files(files)
        .load()
        .await;
    let pinned = pin_credentials(&shared, need).await?;
    let endpoint = match &settings.endpoint_url {
        Some(url) => url.clone(),
        None => default_endpoint(&shared, region.as_ref()).await?,
    };
    let wrong = |why: String| ConnectError::Endpoint { endpoint: endpoint.clone(), why };
    let uri: http::Uri = endpoint.parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    let host = uri.host().ok_or_else(|| wrong("no host in the URL".to_owned()))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let dns = PinnedDns::default();
    let addresses = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|e| wrong(format!("cannot resolve {host}: {e}")))?;
    dns.pin(host, addresses.map(|a| a.ip()).collect());
    let pool = https(Some(dns), connections)?;
    let config = aws_sdk_ec2::config::Builder::from(&shared)
        .region(region)
        .endpoint_url(&endpoint)
        .credentials_provider(pinned)
        .http_client(pool::Client::new(&pool).map_err(http)?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_timeout(settings.call_timeout)
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

/// The members of the SDK's default chain, in its order, with the same IMDS endpoint as [`super::imds`]. The
/// default chain itself would read the SDK's files by their paths.
#[allow(deprecated, reason = "as in sdk_files")]
fn credential_chain(
    provider: &ProviderConfig,
    imds_endpoint: Option<&str>,
    files: aws_config::profile::profile_file::ProfileFiles,
) -> CredentialsProviderChain {
    let profile = ProfileFileCredentialsProvider::builder().configure(provider).profile_files(files).build();
    let token = WebIdentityTokenCredentialsProvider::builder().configure(provider).build();
    let container = EcsCredentialsProvider::builder().configure(provider).build();
    let mut imds = ImdsCredentialsProvider::builder().configure(provider);
    if let Some(endpoint) = imds_endpoint
        && let Ok(client) = aws_config::imds::Client::builder().configure(provider).endpoint(endpoint)
    {
        imds = imds.imds_client(client.build());
    }
    CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("Profile", profile)
        .or_else("WebIdentityToken", token)
        .or_else("EcsContainer", container)
        .or_else("Ec2InstanceMetadata", imds.build())
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
    let token = got.session_token().map(str::to_owned);
    Ok(Credentials::new(got.access_key_id(), got.secret_access_key(), token, None, "pinned"))
}

/// The URL that the SDK would choose: `AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`, else the Region's own.
/// Needed so that its host can be resolved and pinned before the freeze.
async fn default_endpoint(shared: &aws_config::SdkConfig, region: &str) -> Result<String, ConnectError> {
    use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
    for variable in ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"] {
        if let Some(url) = std::env::var(variable).ok().filter(|v| !v.is_empty()) {
            return Ok(url);
        }
    }
    if let Some(url) = shared.endpoint_url() {
        return Ok(url.to_owned());
    }
    let wrong = |why: String| ConnectError::Endpoint { endpoint: format!("for Region {region}"), why };
    let params = Params::builder()
        .region(region)
        .use_fips(shared.use_fips().unwrap_or(false))
        .use_dual_stack(shared.use_dual_stack().unwrap_or(false))
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    let resolved =
        DefaultResolver::new().resolve_endpoint(&params).await.map_err(|e| wrong(e.to_string()))?;
    Ok(resolved.url().to_owned())
}
