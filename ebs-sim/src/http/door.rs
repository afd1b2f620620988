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

use super::line::{Line, Tap, Wire};

/// How long a client may take for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// A listener, with TLS or without.
pub struct Door {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Numbers connections, over all doors.
    pub connections: Arc<AtomicU64>,
    /// The certificate, when it is TLS.
    pub tls: Option<TlsAcceptor>,
}

/// What is done with a connection before anything is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    Served,
    /// It is ended with a RST.
    Reset,
    /// It stays open, and nothing is ever sent.
    Silence,
}

/// Accepts connections until the future is dropped. `welcome` decides about each, by its number and whether
/// it is TLS.
pub async fn accept(
    mut door: Door,
    ready: mpsc::Sender<(Line, SocketAddr)>,
    welcome: impl Fn(u64, bool) -> Welcome,
) {
    loop {
        let (stream, address) = Listener::accept(&mut door.listener).await;
        // Without this an answer in two writes would wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        let number = door.connections.fetch_add(1, Ordering::Relaxed) + 1;
        match welcome(number, door.tls.is_some()) {
            Welcome::Served => {
                let wire = Arc::new(Wire::new(number, door.tls.is_some(), &stream));
                tokio::spawn(prepare(Tap::new(stream, wire), address, door.tls.clone(), ready.clone()));
            }
            Welcome::Reset => {
                let _ = stream.set_zero_linger();
            }
            Welcome::Silence => {
                tokio::spawn(ignore(stream));
            }
        }
    }
}

async fn prepare(
    tap: Tap,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Line, SocketAddr)>,
) {
    let line = match tls {
        None => Line::plain(tap),
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(tap)).await {
            Ok(Ok(stream)) => Line::tls(stream),
            Ok(Err(error)) => return tracing::info!("a TLS handshake failed: {error}"),
            Err(_) => return,
        },
    };
    // Fails when the server has ended.
    let _ = ready.send((line, address)).await;
}

/// Reads what the client sends until it goes away.
async fn ignore(mut stream: TcpStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// The connections that are ready, as axum wants them.
pub struct Lines {
    /// Those that come.
    pub ready: mpsc::Receiver<(Line, SocketAddr)>,
    /// The listener's own address.
    pub address: SocketAddr,
}

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        match self.ready.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
