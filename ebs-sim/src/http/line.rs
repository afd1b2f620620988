//! A TCP connection, with TLS or without, that can be cut, reset or stalled from outside.
//!
//! In: an accepted connection. Out: a stream for the HTTP server, and a [`Wire`] that tells what happens to
//! it. What is decided on the wire must never let one more byte through than was asked for.

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
pub struct Wire {
    pub number: u64,
    pub tls: bool,
    fate: AtomicU8,
    left: AtomicU32,
    /// The IP TTL of what is sent from now on.
    hops: AtomicU32,
    usual_hops: u32,
}

impl Wire {
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
pub struct Tap {
    stream: TcpStream,
    wire: std::sync::Arc<Wire>,
    hops: u32,
}

impl Tap {
    /// Puts a connection under a wire's control.
    pub fn new(stream: TcpStream, wire: std::sync::Arc<Wire>) -> Self {
        let hops = wire.usual_hops;
        Self { stream, wire, hops }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let hops = self.wire.hops.load(Ordering::Relaxed);
        if hops != self.hops {
            self.stream.set_ttl(hops)?;
            self.hops = hops;
        }
        match self.wire.fate.load(Ordering::Relaxed) {
            OPEN => Pin::new(&mut self.stream).poll_write(cx, buf),
            STALLED => {
                let left = self.wire.left.load(Ordering::Relaxed);
                let most = buf.len().min(usize::try_from(left).unwrap_or(0));
                if most == 0 {
                    // Nobody wakes this: it ends with the connection.
                    return Poll::Pending;
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?;
                self.wire.left.fetch_sub(u32::try_from(written).unwrap_or(left), Ordering::Relaxed);
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
pub struct Line {
    stream: Stream,
    /// What happens to it.
    pub wire: std::sync::Arc<Wire>,
}

#[derive(Debug)]
enum Stream {
    Plain(Tap),
    Tls(Box<TlsStream<Tap>>),
}

impl Line {
    /// A connection without TLS.
    pub fn plain(tap: Tap) -> Self {
        Self { wire: tap.wire.clone(), stream: Stream::Plain(tap) }
    }

    /// A connection whose handshake is done.
    pub fn tls(stream: TlsStream<Tap>) -> Self {
        Self { wire: stream.get_ref().0.wire.clone(), stream: Stream::Tls(Box::new(stream)) }
    }
}

impl AsyncRead for Line {
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

impl AsyncWrite for Line {
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
