//! Where connections come in: TCP, and the TLS handshake when there is one.
//!
//! In: a listener and who decides about connections. Out: connections ready for HTTP. A handshake that does
//! not come to its end must never keep others waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, Control, ControlledTcp};

/// How long a client may take for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// A listener, with TLS or without.
pub struct Endpoint {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Numbers connections, over all endpoints.
    pub connections: Arc<AtomicU64>,
    /// The certificate, when it is TLS.
    pub tls: Option<TlsAcceptor>,
}

/// What is done with a connection before anything is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Serve,
    /// It is ended with a RST.
    Reset,
    /// It stays open, and nothing is ever sent.
    Ignore,
}

/// Accepts connections until the future is dropped. `admit` decides about each, by its number and whether
/// it is TLS.
pub async fn accept(
    mut endpoint: Endpoint,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
    admit: impl Fn(u64, bool) -> Admission,
) {
    loop {
        let (stream, address) = Listener::accept(&mut endpoint.listener).await;
        // Without this an answer in two writes would wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        let number = endpoint.connections.fetch_add(1, Ordering::Relaxed) + 1;
        match admit(number, endpoint.tls.is_some()) {
            Admission::Serve => {
                let control = Arc::new(Control::new(number, endpoint.tls.is_some(), &stream));
                tokio::spawn(prepare(
                    ControlledTcp::new(stream, control),
                    address,
                    endpoint.tls.clone(),
                    ready.clone(),
                ));
            }
            Admission::Reset => {
                let _ = stream.set_zero_linger();
            }
            Admission::Ignore => {
                tokio::spawn(ignore(stream));
            }
        }
    }
}

async fn prepare(
    stream: ControlledTcp,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let connection = match tls {
        None => Connection::plain(stream),
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Connection::tls(stream),
            Ok(Err(error)) => return tracing::info!("a TLS handshake failed: {error}"),
            Err(_) => return,
        },
    };
    // Fails when the server has ended.
    let _ = ready.send((connection, address)).await;
}

/// Reads what the client sends until it goes away.
async fn ignore(mut stream: TcpStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// The connections that are ready, as axum wants them.
pub struct Connections {
    /// Those that come.
    pub ready: mpsc::Receiver<(Connection, SocketAddr)>,
    /// The listener's own address.
    pub address: SocketAddr,
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
