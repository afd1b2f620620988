//! HTTP/1.1 with connections that stay open, over TCP or TLS, and that can be cut.
//!
//! In: a listener and a handler. Out: requests with whole bodies; answers, silence, or a closed connection.
//! A request must never be given up because its client went away: EC2 does what it was asked all the same.

mod accept;
mod split_body;
mod connection;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts as _, Request};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use axum::serve::IncomingStream;

pub use accept::{Admission, Endpoint};

use crate::faults::Hold;
use accept::Connections;
use connection::Control;
use split_body::SplitBody;

/// No request of EC2's is larger.
const MAX_BODY: usize = 1 << 20;

/// A request with its whole body.
#[derive(Debug)]
pub struct Call {
    /// GET, POST …
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The number of the TCP connection.
    pub connection: u64,
    /// Whether it came over TLS.
    pub tls: bool,
}

impl Call {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// How many hops its packets may travel; as many as usual when absent.
    pub hops: Option<u8>,
}

impl Answer {
    /// An answer without further headers.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into(), hops: None }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    Answer(Answer),
    /// Content-Length promises the whole body, half of it is sent, and the connection is closed.
    Truncated(Answer),
    /// Half of it is sent, and the rest when it is released.
    Held(Answer, Hold),
    /// The answer stops in its first bytes, and the connection stays open.
    Stalled(Answer),
    /// It is never answered, and the connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Drop,
    /// The connection is reset without an answer.
    Reset,
}

impl Reply {
    /// An answer without further headers.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Reply::Answer(Answer::new(status, content_type, body))
    }

    /// JSON, pretty, as people read it in a terminal.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        let mut body = serde_json::to_string_pretty(value).unwrap_or_default();
        body.push('\n');
        Self::new(status, "application/json", body)
    }
}

#[derive(Clone)]
struct Peer(Arc<Control>);

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Peer(stream.io().control.clone())
    }
}

/// Serves until the future is dropped.
pub async fn serve<H, F>(endpoint: Endpoint, admit: impl Fn(u64, bool) -> Admission, handler: H)
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let address = match endpoint.listener.local_addr() {
        Ok(address) => address,
        Err(error) => return tracing::error!("the listener has no address: {error}"),
    };
    let (sender, ready) = tokio::sync::mpsc::channel(64);
    let app = axum::Router::new()
        .fallback(move |request: Request| answer(request, handler.clone()))
        .into_make_service_with_connect_info::<Peer>();
    tokio::select! {
        () = accept::accept(endpoint, sender, admit) => {}
        ended = axum::serve(Connections { ready, address }, app) => {
            if let Err(error) = ended {
                tracing::error!("the server ended: {error}");
            }
        }
    }
}

async fn answer<H, F>(request: Request, handler: H) -> Result<Response<Body>, Infallible>
where
    H: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let peer = ConnectInfo::<Peer>::from_request_parts(&mut parts, &()).await;
    let Ok(ConnectInfo(Peer(control))) = peer else {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let call = Call {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
        connection: control.number,
        tls: control.tls,
    };
    // A task of its own, so that a client that hangs up does not stop it half way.
    let reply = match tokio::spawn(handler(call)).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::error!("a request ended abnormally: {error}");
            Reply::new(500, "text/plain", "bug in ebs-sim\n")
        }
    };
    Ok(match reply {
        Reply::Answer(answer) => response(&control, answer, Body::from),
        Reply::Truncated(mut answer) => {
            answer.headers.push((header::CONTENT_LENGTH.as_str(), answer.body.len().to_string()));
            response(&control, answer, |body| Body::new(SplitBody::cut_off(body)))
        }
        Reply::Held(mut answer, hold) => {
            answer.headers.push((header::CONTENT_LENGTH.as_str(), answer.body.len().to_string()));
            response(&control, answer, |body| Body::new(SplitBody::held(body, hold)))
        }
        Reply::Stalled(answer) => {
            control.stall();
            response(&control, answer, Body::from)
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drop => {
            control.cut();
            plain(StatusCode::NO_CONTENT)
        }
        Reply::Reset => {
            control.reset();
            plain(StatusCode::NO_CONTENT)
        }
    })
}

fn response(control: &Control, answer: Answer, body: impl FnOnce(Bytes) -> Body) -> Response<Body> {
    control.limit_hops(answer.hops);
    let mut response =
        Response::builder().status(answer.status).header(header::CONTENT_TYPE, answer.content_type);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(body(answer.body)).unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
