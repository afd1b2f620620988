//! The messages between the process that holds a freeze, the command that started it, and `thaw`.
//!
//! In: the socket of the command that waits for the freeze; a socket `runs/RUN.sock` in the run folder, made
//! before anything is frozen. Out: the request to thaw; the record, sent to both and kept as `runs/RUN.held`,
//! so that a `thaw` that comes after the end gets the same record. Must never: do more than send and receive
//! while frozen, or hold a freeze that nobody was informed of.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::held_record::HeldFreezeRecord;
use super::journal::{self, Journal};
use crate::host::file::{self, Lasts};
use crate::ids::RunId;

/// The request that `thaw` sends.
const THAW: &str = "thaw\n";
/// The immediate answer to it.
const THAWING: &str = "thawing\n";
/// Sent by the command that started the freeze once it has printed the record: from then on the freeze
/// outlives it.
const CONFIRMED: &str = "confirmed\n";
/// Longest time a peer may take for its line.
const LINE_LIMIT: Duration = Duration::from_secs(1);
/// Longest time `thaw` waits for the first answer: a process that is stopped sends none.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Pause after a client that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

fn socket_of(run_dir: &Path, run: &RunId) -> PathBuf {
    journal::folder(run_dir).join(format!("{run}.sock"))
}

fn record_of(run_dir: &Path, run: &RunId) -> PathBuf {
    journal::folder(run_dir).join(format!("{run}.held"))
}

/// The file that the process that holds the freeze logs to.
#[must_use]
pub(crate) fn log_of(run_dir: &Path, run: &RunId) -> PathBuf {
    journal::folder(run_dir).join(format!("{run}.log"))
}

/// The control socket, on the side of the process that holds the freeze.
#[derive(Debug)]
pub struct ControlSocket {
    run_dir: PathBuf,
    run: RunId,
    caller: OwnedWriteHalf,
    requested: watch::Receiver<bool>,
    answer: watch::Sender<Option<Arc<str>>>,
    waiting: Arc<AtomicUsize>,
}

impl ControlSocket {
    /// Opens the socket: from now on `thaw` can connect. `caller` is the socket of the command that started
    /// this process.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(run_dir: &Path, run: &RunId, caller: OwnedFd) -> std::io::Result<Self> {
        sweep(run_dir, run);
        let caller = std::os::unix::net::UnixStream::from(caller);
        caller.set_nonblocking(true)?;
        let (from_caller, to_caller) = UnixStream::from_std(caller)?.into_split();
        tokio::spawn(async move {
            let mut line = String::new();
            let _ = BufReader::new(from_caller).read_line(&mut line).await;
            if line != CONFIRMED {
                // The command ended before it printed that there is a freeze: nobody would ever ask for the
                // thaw.
                let _ = raise(Signal::SIGHUP);
            }
        });
        let listener = UnixListener::bind(socket_of(run_dir, run))?;
        let (ask, requested) = watch::channel(false);
        let (answer, answered) = watch::channel(None);
        let waiting = Arc::new(AtomicUsize::new(0));
        let clients = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                // There is no fd or no memory for this client: later clients must still be accepted.
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                };
                let (ask, answered, clients) = (ask.clone(), answered.clone(), Arc::clone(&clients));
                tokio::spawn(async move {
                    clients.fetch_add(1, Ordering::SeqCst);
                    let _ = serve(client, &ask, answered).await;
                    clients.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self {
            run_dir: run_dir.to_path_buf(),
            run: run.clone(),
            caller: to_caller,
            requested,
            answer,
            waiting,
        })
    }

    /// Waits until somebody asks for the thaw.
    pub(crate) async fn thaw_requested(&mut self) {
        if self.requested.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has somebody requested the thaw already?
    #[must_use]
    pub(crate) fn is_thaw_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Sends one record to the command that started this process. That command may have ended.
    pub async fn send(&mut self, record: &HeldFreezeRecord) {
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        let _ = self.caller.write_all(&line).await;
    }

    /// Keeps the record for a later `thaw`. Called when nothing is frozen.
    pub fn keep(&self, record: &HeldFreezeRecord) {
        keep(&self.run_dir, record);
        sweep_records(&self.run_dir, &self.run);
    }

    /// Sends the record to every client that waits.
    pub async fn close(mut self, record: &HeldFreezeRecord) {
        self.keep(record);
        let _ = std::fs::remove_file(socket_of(&self.run_dir, &self.run));
        let text = serde_json::to_string(record).unwrap_or_default();
        let _ = self.answer.send(Some(Arc::from(text)));
        self.send(record).await;
        let end = Instant::now() + LINE_LIMIT;
        while self.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn serve(
    client: UnixStream,
    ask: &watch::Sender<bool>,
    mut answered: watch::Receiver<Option<Arc<str>>>,
) -> std::io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut line = String::new();
    // A client that sends nothing within the limit is dropped; it does not end the freeze.
    let mut read = BufReader::new(read.take(64));
    let _ = tokio::time::timeout(LINE_LIMIT, read.read_line(&mut line)).await;
    if line != THAW {
        return Ok(());
    }
    let _ = ask.send(true);
    write.write_all(THAWING.as_bytes()).await?;
    let text = answered.wait_for(Option::is_some).await.ok().and_then(|text| text.clone());
    write.write_all(text.as_deref().unwrap_or_default().as_bytes()).await?;
    write.shutdown().await
}

/// Removes the sockets of runs before this one, and what an earlier run of the same id kept. The records of
/// other runs stay until this run keeps its own: it may never freeze anything, and a late `thaw` of theirs
/// still needs them.
fn sweep(run_dir: &Path, run: &RunId) {
    swept(run_dir, |name| {
        let own = name.strip_prefix(run.as_str()).is_some_and(|rest| rest == ".held");
        own || [".sock", ".held.new"].iter().any(|end| name.ends_with(end))
    });
}

/// Removes the records and logs of runs before this one.
fn sweep_records(run_dir: &Path, run: &RunId) {
    swept(run_dir, |name| {
        !name.starts_with(run.as_str()) && [".held", ".log"].iter().any(|end| name.ends_with(end))
    });
}

fn swept(run_dir: &Path, goes: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(journal::folder(run_dir)) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&goes) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Used by the command that started the freeze: reads the next record; none when the holder has ended.
pub async fn next_record(from: &mut BufReader<UnixStream>) -> Option<HeldFreezeRecord> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// Confirms to the holder that the freeze was printed: from here on it lasts without this process.
///
/// # Errors
/// When the holder is gone.
pub async fn confirm(to: &mut BufReader<UnixStream>) -> std::io::Result<()> {
    to.get_mut().write_all(CONFIRMED.as_bytes()).await
}

/// The journal of the freeze that is held now; with `run`, only if it is that run.
#[must_use]
pub fn held(run_dir: &Path, run: Option<&RunId>) -> Option<Journal> {
    let wanted =
        |j: &Journal| j.state.held_freeze.is_some() && run.is_none_or(|r| *r == j.state.run) && j.lives();
    Journal::all(run_dir).into_iter().flatten().find(wanted)
}

/// Keeps the record of a freeze for a later `thaw`.
pub fn keep(run_dir: &Path, record: &HeldFreezeRecord) {
    let path = record_of(run_dir, &record.run_id);
    let kept = serde_json::to_vec_pretty(record)
        .map_err(std::io::Error::from)
        .and_then(|bytes| file::replace(&path, &bytes, 0o600, Lasts::UntilShutdown));
    if let Err(e) = kept {
        tracing::warn!("cannot keep the record in {}: {e}", path.display());
    }
}

/// The record of a freeze that has ended; without `run`, of the last one since boot.
#[must_use]
pub fn kept(run_dir: &Path, run: Option<&RunId>) -> Option<HeldFreezeRecord> {
    let read = |path: &Path| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    if let Some(run) = run {
        return read(&record_of(run_dir, run));
    }
    let entries = std::fs::read_dir(journal::folder(run_dir)).ok()?;
    let paths = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "held"));
    let newest = paths.max_by_key(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok())?;
    read(&newest)
}

/// What came of a request to thaw.
#[derive(Debug)]
pub enum ThawReply {
    /// Everything is thawed and released.
    Done(Box<HeldFreezeRecord>),
    /// Nobody accepts connections any more: the holder has ended, or is about to.
    Ending,
    /// The holder is alive and does not answer.
    Silent,
}

/// Asks the holder for the thaw, and waits until everything is released.
pub async fn request_thaw(run_dir: &Path, run: &RunId) -> ThawReply {
    let connected = UnixStream::connect(socket_of(run_dir, run)).await;
    let Ok(mut stream) = connected else { return ThawReply::Ending };
    let first = async {
        stream.write_all(THAW.as_bytes()).await.ok()?;
        let mut word = [0; THAWING.len()];
        stream.read_exact(&mut word).await.ok().filter(|_| word == THAWING.as_bytes())
    };
    match tokio::time::timeout(ANSWER_LIMIT, first).await {
        Err(_) => return ThawReply::Silent,
        Ok(None) => return ThawReply::Ending,
        Ok(Some(_)) => {}
    }
    // No limit here: this takes as long as the post hooks, and each of those has one.
    let mut text = String::new();
    let read = stream.read_to_string(&mut text).await;
    match read.ok().and_then(|_| serde_json::from_str(&text).ok()) {
        Some(record) => ThawReply::Done(Box::new(record)),
        None => ThawReply::Ending,
    }
}
