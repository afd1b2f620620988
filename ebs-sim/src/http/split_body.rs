//! A body of which half is sent first.
//!
//! In: a whole body. Out: its first half; then an error in place of the rest, or the rest when it is
//! released. The first half must never be lost with the error: it is given time to leave.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body::Frame;

use crate::faults::Hold;

/// How long what was sent has to leave before the connection is closed.
const LEAVE: Duration = Duration::from_millis(50);

/// The two halves of a body, and what is waited for between them.
pub struct SplitBody {
    first: Option<Bytes>,
    between: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// What comes then; nothing once it has come.
    second: Option<io::Result<Bytes>>,
}

impl SplitBody {
    /// A body that breaks off.
    pub fn cut_off(body: Bytes) -> Self {
        Self {
            first: Some(body.slice(..body.len() / 2)),
            between: Box::pin(tokio::time::sleep(LEAVE)),
            second: Some(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }

    /// A body whose second half is held.
    pub fn held(body: Bytes, hold: Hold) -> Self {
        let middle = body.len() / 2;
        Self {
            first: Some(body.slice(..middle)),
            between: Box::pin(hold.until_released()),
            second: Some(Ok(body.slice(middle..))),
        }
    }
}

impl HttpBody for SplitBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.second.is_some() {
            ready!(self.between.as_mut().poll(cx));
        }
        Poll::Ready(self.second.take().map(|second| second.map(Frame::data)))
    }
}
