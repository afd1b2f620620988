//! A body that breaks off.
//!
//! In: the part that is sent. Out: that part, and then an error in place of the rest. The part must never be lost
//! with the error: it is given time to leave.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::Frame;
use tokio::time::Sleep;

/// How long what was sent has to leave before the connection is closed.
const LEAVE: Duration = Duration::from_millis(50);

/// The first part of a body.
pub struct Half {
    part: Option<Bytes>,
    leaves: Pin<Box<Sleep>>,
}

impl Half {
    /// A body that breaks off after `part`.
    pub fn new(part: Bytes) -> Self {
        Self { part: Some(part), leaves: Box::pin(tokio::time::sleep(LEAVE)) }
    }
}

impl HttpBody for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(part) = self.part.take() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        ready!(self.leaves.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}
