//! A TCP connection, with TLS or without, that can be cut, reset or stalled from outside.
//!
//! In: an accepted connection. Out: a stream for the HTTP server, and a [`Control`] that says what happens to
//! what is written. A connection must never let more through than its control allows.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How many bytes a stalled answer still gets through: a TLS record's head and a little of the record, or a
/// little of an HTTP head.
const BEFORE_STALL: u32 = 24;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const RESET: u8 = 2;
const STALLED: u8 = 3;

/// What is known of a connection, and what is to happen to what is written to it.
#[derive(Debug)]
pub struct Control {
    pub number: u64,
    pub tls: bool,
    fate: AtomicU8,
    left: AtomicU32,
    /// The IP TTL of what is sent from now on.
    hops: AtomicU32,
    usual_hops: u32,
}

impl Control {
    /// A connection to which nothing happens.
    pub fn new(number: u64, tls: bool, stream: &TcpStream) -> Self {
        let usual_hops = stream.ttl().unwrap_or(64);
        Self {
            number,
            tls,
            fate: AtomicU8::new(OPEN),
            left: AtomicU32::new(BEFORE_STALL),
            hops: AtomicU32::new(usual_hops),
            usual_hops,
        }
    }

    /// Nothing more is written; the connection ends with a FIN.
    pub fn cut(&self) {
        self.fate.store(CLOSED, Ordering::Relaxed);
    }

    /// Nothing more is written; the connection ends with a RST.
    pub fn reset(&self) {
        self.fate.store(RESET, Ordering::Relaxed);
    }

    /// A few more bytes are written, and then nothing, while the connection stays open.
    pub fn stall(&self) {
        self.fate.store(STALLED, Ordering::Relaxed);
    }

    /// How many hops the next bytes may travel; as many as usual when absent.
    pub fn limit_hops(&self, hops: Option<u8>) {
        self.hops.store(hops.map_or(self.usual_hops, u32::from), Ordering::Relaxed);
    }
}

/// The TCP stream under everything.
#[derive(Debug)]
pub struct ControlledTcp {
    stream: TcpStream,
    control: std::sync::Arc<Control>,
    hops: u32,
}

impl ControlledTcp {
    /// A TCP stream that does what `control` says.
    pub fn new(stream: TcpStream, control: std::sync::Arc<Control>) -> Self {
        let hops = control.usual_hops;
        Self { stream, control, hops }
    }
}

impl AsyncRead for ControlledTcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ControlledTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let hops = self.control.hops.load(Ordering::Relaxed);
        if hops != self.hops {
            self.stream.set_ttl(hops)?;
            self.hops = hops;
        }
        match self.control.fate.load(Ordering::Relaxed) {
            OPEN => Pin::new(&mut self.stream).poll_write(cx, buf),
            STALLED => {
                let left = self.control.left.load(Ordering::Relaxed);
                let most = buf.len().min(usize::try_from(left).unwrap_or(0));
                if most == 0 {
                    // Nobody wakes this: it ends with the connection.
                    return Poll::Pending;
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?;
                self.control.left.fetch_sub(u32::try_from(written).unwrap_or(left), Ordering::Relaxed);
                Poll::Ready(Ok(written))
            }
            fate => {
                if fate == RESET {
                    self.stream.set_zero_linger()?;
                }
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the HTTP server reads from and writes to.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// What happens to it.
    pub control: std::sync::Arc<Control>,
}

#[derive(Debug)]
enum Stream {
    Plain(ControlledTcp),
    Tls(Box<TlsStream<ControlledTcp>>),
}

impl Connection {
    /// A connection without TLS.
    pub fn plain(tcp: ControlledTcp) -> Self {
        Self { control: tcp.control.clone(), stream: Stream::Plain(tcp) }
    }

    /// A connection whose handshake is done.
    pub fn tls(stream: TlsStream<ControlledTcp>) -> Self {
        Self { control: stream.get_ref().0.control.clone(), stream: Stream::Tls(Box::new(stream)) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
