//! Connections to every endpoint: one call at a time, at another endpoint where one does not answer.
//!
//! In: URLs, and calls. Out: what was answered, by whoever answered. Must never: open a connection or resolve a name
//! while the gate is shut, or repeat a call that etcd has answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::chain;
use crate::gate;

/// More than any answer here needs, bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The least time that one endpoint gets to answer in.
const LEAST: Duration = Duration::from_millis(100);
/// etcd's port, where a URL has none.
const PORT: u16 = 2379;

/// An answer.
#[derive(Debug)]
pub(super) struct Reached {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A connection to each endpoint.
#[derive(Debug)]
pub(super) struct Lane {
    ways: Vec<Way>,
    /// The one that has answered last.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Way {
    endpoint: String,
    host: String,
    port: u16,
    authority: String,
    tls: Option<Tls>,
    open: tokio::sync::Mutex<Option<Open>>,
}

#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Lane {
    /// `endpoints` are URLs that the configuration has checked.
    pub fn new(endpoints: &[String], connector: Option<&TlsConnector>) -> Self {
        let way = |endpoint: &String| {
            let uri: Uri = endpoint.parse().unwrap_or_default();
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host.clone()).ok();
            let https = uri.scheme_str() == Some("https");
            let tls = connector.cloned().zip(name).filter(|_| https);
            Way {
                endpoint: endpoint.clone(),
                port: uri.port_u16().unwrap_or(PORT),
                authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
                tls: tls.map(|(connector, name)| Tls { connector, name }),
                host,
                open: tokio::sync::Mutex::default(),
            }
        };
        Self { ways: endpoints.iter().map(way).collect(), preferred: AtomicUsize::default() }
    }

    /// The URLs.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.ways.iter().map(|way| way.endpoint.as_str())
    }

    /// All of them in one line.
    pub fn names(&self) -> String {
        self.endpoints().collect::<Vec<_>>().join(", ")
    }

    /// Opens a connection to this endpoint.
    pub async fn open(&self, endpoint: &str, limit: Duration) -> Result<(), String> {
        let Some(way) = self.ways.iter().find(|way| way.endpoint == endpoint) else { return Ok(()) };
        within(limit, way.keep_open()).await
    }

    /// Opens a connection to every endpoint that can be reached.
    ///
    /// # Errors
    /// When none can.
    pub async fn open_all(&self, limit: Duration) -> Result<(), String> {
        let all = self.ways.iter().map(|way| within(limit, way.keep_open()));
        let failed: Vec<String> = join_all(all)
            .await
            .into_iter()
            .zip(&self.ways)
            .filter_map(|(opened, way)| Some(format!("{}: {}", way.endpoint, opened.err()?)))
            .collect();
        if failed.len() < self.ways.len() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// A connection of its own to an endpoint that can be reached, beginning with the one that has answered last.
    pub async fn another(&self, limit: Duration) -> Result<(Open, String), String> {
        let mut failed = Vec::new();
        for way in self.in_order() {
            match within(limit, way.connect()).await {
                Ok(open) => return Ok((open, way.authority.clone())),
                Err(why) => failed.push(format!("{}: {why}", way.endpoint)),
            }
        }
        Err(failed.join("; "))
    }

    /// Asks one endpoint after the other until one answers. All of it takes no longer than `limit`, or [`LEAST`] for
    /// each.
    pub async fn ask(
        &self,
        path: &str,
        body: &Value,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Reached, String> {
        let each = (limit / u32::try_from(self.ways.len()).unwrap_or(1).max(1)).max(LEAST);
        let body = Bytes::from(body.to_string());
        let mut failed = Vec::new();
        for way in self.in_order() {
            match within(each, way.ask(path, &body, token)).await {
                // It may have lost its leader, and another one not.
                Ok(Reached { status: 503, body }) => {
                    failed.push(format!("{}: {}", way.endpoint, said(&body)));
                }
                Ok(reached) => {
                    let at = self.ways.iter().position(|other| std::ptr::eq(other, way));
                    self.preferred.store(at.unwrap_or_default(), Ordering::Relaxed);
                    return Ok(reached);
                }
                Err(why) => failed.push(format!("{}: {why}", way.endpoint)),
            }
        }
        Err(failed.join("; "))
    }

    fn in_order(&self) -> impl Iterator<Item = &Way> {
        let first = self.preferred.load(Ordering::Relaxed).min(self.ways.len());
        let (before, from) = self.ways.split_at(first);
        from.iter().chain(before)
    }
}

/// What an unavailable etcd says.
fn said(body: &[u8]) -> String {
    match super::words::answer(503, body) {
        Err(super::words::Refusal::Unreachable(why)) => why,
        _ => "HTTP 503".to_owned(),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
    }
}

impl Way {
    async fn keep_open(&self) -> Result<(), String> {
        let mut open = self.open.lock().await;
        if open.as_ref().is_none_or(|open| open.sender.is_closed()) {
            *open = Some(self.connect().await?);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Open, String> {
        if gate::is_shut() {
            return Err("no connection to it is open, and none is opened while anything is frozen".to_owned());
        }
        let look_up = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut failed = "it has no address".to_owned();
        for address in look_up.map_err(|e| format!("cannot resolve {}: {e}", self.host))? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return match &self.tls {
                        Some(Tls { connector, name }) => {
                            let secured = connector.connect(name.clone(), stream).await;
                            open(secured.map_err(|e| format!("TLS: {e}"))?).await
                        }
                        None => open(stream).await,
                    };
                }
                Err(e) => failed = e.to_string(),
            }
        }
        Err(failed)
    }

    async fn ask(&self, path: &str, body: &Bytes, token: Option<&str>) -> Result<Reached, String> {
        let mut slot = self.open.lock().await;
        // Taken out of its place: if this is dropped in the middle, the next call must not read the answer of this.
        if let Some(mut open) = slot.take().filter(|open| !open.sender.is_closed()) {
            match open.ask(path, body, token, &self.authority).await {
                Ok(reached) => {
                    *slot = Some(open);
                    return Ok(reached);
                }
                Err(why) if gate::is_shut() => return Err(why),
                // The server may have closed it meanwhile. Every call here may be made twice.
                Err(_) => {}
            }
        }
        let mut open = self.connect().await?;
        let reached = open.ask(path, body, token, &self.authority).await?;
        *slot = Some(open);
        Ok(reached)
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Open, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Open { sender, driver })
}

impl Open {
    async fn ask(
        &mut self,
        path: &str,
        body: &Bytes,
        token: Option<&str>,
        authority: &str,
    ) -> Result<Reached, String> {
        let answer = self.send(path, body.clone(), token, authority).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| format!("its answer ends early: {e}"))?.to_bytes().to_vec();
        Ok(Reached { status, body })
    }

    /// Sends a request and returns its answer, whose body is still to come.
    pub async fn send(
        &mut self,
        path: &str,
        body: Bytes,
        token: Option<&str>,
        authority: &str,
    ) -> Result<http::Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v3/{path}"))
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        self.sender.ready().await.map_err(|e| chain(&e))?;
        self.sender.send_request(request).await.map_err(|e| chain(&e))
    }
}
