//! The stream of changes.
//!
//! In: a connection of its own. Out: what has changed, into a channel. Must never: be relied on: what it does not
//! tell is found by reading every now and then; nor connect while the gate is shut.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Link;
use crate::gate;
use crate::group::engine::Heard;

/// Pause before it connects again.
const PAUSE: Duration = Duration::from_millis(200);
/// More than one message needs, bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Watches for as long as the task lives.
pub(super) async fn watch(link: &Link, watched: &AtomicBool, sender: &mpsc::Sender<Heard>) {
    loop {
        if !gate::is_shut() {
            let _ = once(link, watched, sender).await;
            watched.store(false, Ordering::Relaxed);
            tell(watched, sender, Heard::Look);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the stream ends.
async fn once(link: &Link, watched: &AtomicBool, sender: &mpsc::Sender<Heard>) -> Result<(), String> {
    let token = link.token().await.map_err(|e| e.to_string())?;
    let (mut open, authority) = link.main.another(link.limit).await?;
    let body = Bytes::from(link.keys.watch().to_string());
    let answer = open.send("watch", body, token.as_deref(), &authority).await?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("HTTP {}", answer.status()));
    }
    let mut stream = answer.into_body();
    let mut text = Vec::new();
    while let Some(frame) = stream.frame().await {
        let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() else { continue };
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let message: Value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
            let Some(changes) = link.keys.of_watch(&message) else { return Ok(()) };
            if !watched.swap(true, Ordering::Relaxed) {
                // What changed before it began.
                tell(watched, sender, Heard::Look);
            }
            changes.into_iter().for_each(|raw| tell(watched, sender, Heard::Entry(raw)));
        }
        if text.len() > MAX_MESSAGE {
            return Err("a message without an end".to_owned());
        }
    }
    Ok(())
}

/// Where the channel is full, whoever reads it has more to read than this, and looks at everything then.
fn tell(watched: &AtomicBool, sender: &mpsc::Sender<Heard>, heard: Heard) {
    if sender.try_send(heard).is_err() {
        watched.store(false, Ordering::Relaxed);
    }
}
