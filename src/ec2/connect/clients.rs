//! HTTP clients: one with a pool for EC2, and those that credentials are fetched with.
//!
//! In: a proxy or none, certificates. Out: clients. Must never: read a proxy or a certificate from the
//! environment on its own.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::config::SharedHttpClient;
use aws_smithy_http_client::pool::{self, ConnectionPool};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use super::dns::PinnedDns;
use super::{ConnectError, http};
use crate::ec2::sdk::SdkError;
use crate::ec2::sdk::proxy::{Proxies, Proxy};

/// Connections at once to one service that credentials are fetched from.
const CREDENTIALS: usize = 4;

/// A pool that reaches everything through this proxy, or directly.
pub(super) fn pool(
    dns: &PinnedDns,
    proxy: Option<&Proxy>,
    trusted: TrustStore,
    connections: usize,
) -> Result<ConnectionPool, ConnectError> {
    let proxy = match proxy {
        Some(proxy) => proxy.config()?,
        None => ProxyConfig::disabled(),
    };
    let context = TlsContext::builder().with_trust_store(trusted).build().map_err(http)?;
    ConnectionPool::builder()
        .idle_timeout(Duration::from_secs(300)) // hooks may take long between preflight and window
        .tcp_keepalive(Duration::from_secs(15))
        .max_connections_per_host(connections)
        .proxy_config(proxy)
        .dns_resolver(dns.clone())
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(context)
        .build_https()
        .map_err(http)
}

/// A client without a proxy, for what is on this machine: IMDS, and the agents of containers.
pub(super) fn direct(dns: &PinnedDns, trusted: TrustStore) -> Result<SharedHttpClient, ConnectError> {
    let pool = pool(dns, None, trusted, CREDENTIALS)?;
    Ok(SharedHttpClient::new(pool::Client::new(&pool).map_err(http)?))
}

/// A client that takes the proxy of each URL: which host of STS is asked is only known once it is asked.
#[derive(Debug)]
pub(super) struct Routed {
    direct: SharedHttpClient,
    proxies: Proxies,
    dns: PinnedDns,
    trusted: TrustStore,
}

impl Routed {
    pub fn client(
        dns: &PinnedDns,
        proxies: &Proxies,
        trusted: TrustStore,
    ) -> Result<SharedHttpClient, ConnectError> {
        let direct = direct(dns, trusted.clone())?;
        Ok(SharedHttpClient::new(Self { direct, proxies: proxies.clone(), dns: dns.clone(), trusted }))
    }

    fn through(&self, proxy: &Proxy) -> Result<SharedHttpClient, ConnectError> {
        let pool = pool(&self.dns, Some(proxy), self.trusted.clone(), CREDENTIALS)?;
        Ok(SharedHttpClient::new(pool::Client::new(&pool).map_err(http)?))
    }
}

impl HttpClient for Routed {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let through = ["http", "https"].map(|scheme| {
            let client = match self.proxies.for_scheme(scheme) {
                Ok(Some(proxy)) => self.through(&proxy),
                Ok(None) => Ok(self.direct.clone()),
                Err(e) => Err(e.into()),
            };
            client.map(|c| c.http_connector(settings, components)).map_err(|e| Arc::from(e.to_string()))
        });
        let [http, https] = through;
        let direct = self.direct.http_connector(settings, components);
        SharedHttpConnector::new(RoutedConnector { direct, http, https, proxies: self.proxies.clone() })
    }
}

#[derive(Debug)]
struct RoutedConnector {
    direct: SharedHttpConnector,
    /// Through the proxy for http, and for https; why there is none.
    http: Result<SharedHttpConnector, Arc<str>>,
    https: Result<SharedHttpConnector, Arc<str>>,
    proxies: Proxies,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let failed = |why: String| HttpConnectorFuture::ready(Err(ConnectorError::user(why.into())));
        let uri: http::Uri = match request.uri().parse() {
            Ok(uri) => uri,
            Err(_) => return failed("the request has no URL".to_owned()),
        };
        match self.proxies.for_uri(&uri) {
            Ok(None) => self.direct.call(request),
            Err(SdkError { .. }) | Ok(Some(_)) => {
                let through = if uri.scheme_str() == Some("http") { &self.http } else { &self.https };
                match through {
                    Ok(connector) => connector.call(request),
                    Err(why) => failed(why.to_string()),
                }
            }
        }
    }
}
