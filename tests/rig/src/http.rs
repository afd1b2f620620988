//! HTTP servers of a test's own: a proxy, and one that gives every request the same answer.
//!
//! In: where the proxy leads, or the answer. Out: a URL, and every head that was received. Must never: reach
//! anything outside of this machine, or outlive the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

type Heads = Arc<Mutex<Vec<String>>>;

/// A server on a port of its own, in threads that end with the process.
pub struct Server {
    address: String,
    heads: Heads,
}

impl Server {
    /// A proxy that knows one place, whatever name it is asked for: `HOST:PORT`. Requests by CONNECT are
    /// tunnelled there, and others are passed on.
    pub fn proxy(place: &str) -> Self {
        let place = place.to_owned();
        Self::start(move |stream, head| {
            let (line, rest) = head.split_once("\r\n").unwrap_or((head, ""));
            let onward = TcpStream::connect(&place)?;
            if line.starts_with("CONNECT ") {
                (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            } else {
                // `POST http://name/ HTTP/1.1` is `POST / HTTP/1.1` for the server itself.
                let mut words = line.splitn(3, ' ');
                let (method, url, version) = (words.next(), words.next(), words.next());
                let path = url.and_then(|u| u.splitn(4, '/').nth(3)).unwrap_or_default();
                let (method, version) = (method.unwrap_or_default(), version.unwrap_or_default());
                write!(&onward, "{method} /{path} {version}\r\n{rest}")?;
            }
            tunnel(stream, onward)
        })
    }

    /// Gives every request this answer.
    pub fn answering(status: &str, body: &str) -> Self {
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        Self::start(move |stream, _| (&stream).write_all(answer.as_bytes()))
    }

    fn start(serve: impl Fn(TcpStream, &str) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Heads::default();
        let (serve, kept) = (Arc::new(serve), Arc::clone(&heads));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serve, kept) = (Arc::clone(&serve), Arc::clone(&kept));
                std::thread::spawn(move || {
                    let head = head(&stream)?;
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
                    serve(stream, &head)
                });
            }
        });
        Self { address, heads }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far, request line and header fields.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The request lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.heads().iter().map(|h| h.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

/// Reads up to the empty line, and not a byte further: what follows is for whoever the head is passed on to.
fn head(mut stream: &TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn tunnel(one: TcpStream, other: TcpStream) -> std::io::Result<()> {
    let (back, forth) = (one.try_clone()?, other.try_clone()?);
    std::thread::spawn(move || copy(&other, &one));
    copy(&back, &forth);
    Ok(())
}

fn copy(from: &TcpStream, mut to: &TcpStream) {
    let mut reader = BufReader::new(from);
    while let Ok(bytes) = reader.fill_buf() {
        let length = bytes.len();
        if length == 0 || to.write_all(bytes).is_err() {
            break;
        }
        reader.consume(length);
    }
    let _ = to.shutdown(Shutdown::Write);
}
