//! HTTP/1.1 with connections that stay open, and that can be cut.
//!
//! In: a listener and a handler. Out: requests with whole bodies; answers, silence, or a closed connection.
//! A request must never be given up because its client went away: EC2 does what it was asked all the same.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts as _, Request};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// No request of EC2's is larger.
const MAX_BODY: usize = 1 << 20;

/// A request with its whole body.
#[derive(Debug)]
pub struct Call {
    /// GET, POST …
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The number of the TCP connection.
    pub connection: u64,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// It is answered.
    Answer {
        /// The status.
        status: u16,
        /// The content type.
        content_type: &'static str,
        /// Further headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// It is never answered, and the connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Drop,
}

impl Reply {
    /// An answer without further headers.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Reply::Answer { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// JSON, pretty, as people read it in a terminal.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        let mut body = serde_json::to_string_pretty(value).unwrap_or_default();
        body.push('\n');
        Self::new(status, "application/json", body)
    }
}

/// A stream that can be cut: once `cut` is set nothing more is written to it.
struct Line {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
    number: u64,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Lines {
    listener: TcpListener,
    next: Arc<AtomicU64>,
}

impl Listener for Lines {
    type Io = Line;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Line, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without this an answer in two writes would wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        let line =
            Line { stream, cut: Arc::default(), number: self.next.fetch_add(1, Ordering::Relaxed) + 1 };
        (line, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[derive(Clone)]
struct Peer {
    cut: Arc<AtomicBool>,
    number: u64,
}

impl Connected<IncomingStream<'_, Lines>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        Peer { cut: stream.io().cut.clone(), number: stream.io().number }
    }
}

/// Serves until the future is dropped.
pub async fn serve<H, F>(listener: TcpListener, connections: Arc<AtomicU64>, handler: H)
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let lines = Lines { listener, next: connections };
    let app = axum::Router::new()
        .fallback(move |request: Request| answer(request, handler.clone()))
        .into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(lines, app).await {
        tracing::error!("the server ended: {error}");
    }
}

async fn answer<H, F>(request: Request, handler: H) -> Result<Response<Body>, Infallible>
where
    H: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let peer = ConnectInfo::<Peer>::from_request_parts(&mut parts, &()).await;
    let Ok(ConnectInfo(peer)) = peer else {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let call =
        Call { method: parts.method, uri: parts.uri, headers: parts.headers, body, connection: peer.number };
    // A task of its own, so that a client that hangs up does not stop it half way.
    let reply = match tokio::spawn(handler(call)).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::error!("a request ended abnormally: {error}");
            Reply::new(500, "text/plain", "bug in ebs-sim\n")
        }
    };
    Ok(match reply {
        Reply::Answer { status, content_type, headers, body } => {
            let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, content_type);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drop => {
            peer.cut.store(true, Ordering::Relaxed);
            plain(StatusCode::NO_CONTENT)
        }
    })
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
