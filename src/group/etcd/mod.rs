//! etcd v3, by its JSON gateway.
//!
//! ```text
//! tls       whose certificate is trusted, and this host's own      tls.rs
//! lane      connections to every endpoint, one call at a time      lane.rs
//! words     what is sent and what is answered                      words.rs
//! watch     the stream of changes, in a task of its own            watch.rs
//! ```
//!
//! An entry is the key `PREFIX/GROUP/MEMBER`, with a lease that a task keeps alive on connections of its own.
//!
//! In: the settings. Out: an [`Engine`]. Must never: open a connection or resolve a name while the gate is shut.

mod lane;
mod tls;
mod watch;
mod words;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::lane::{Lane, Reached};
use self::words::{Keys, Refusal};
use super::engine::{Doing, Engine, EngineError, Heard, Read, Version, Written};
use crate::config::settings::GroupSettings;
use crate::gate;

/// How often everything is read while the watch tells what changes.
const LOOK: Duration = Duration::from_millis(500);
/// The same where it does not.
const LOOK_ALONE: Duration = Duration::from_millis(20);
/// Changes that wait to be heard; more than these are read at once.
const WAITING: usize = 256;

/// Why no client could be made. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NoClient {
    what: String,
    /// What to do about it.
    pub hint: String,
}

impl NoClient {
    fn new(what: String, hint: &str) -> Self {
        Self { what, hint: hint.to_owned() }
    }
}

/// etcd, for one member.
#[derive(Debug)]
pub struct Etcd {
    link: Arc<Link>,
    changes: tokio::sync::Mutex<mpsc::Receiver<Heard>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Set while the watch is connected.
    watched: Arc<AtomicBool>,
    sender: mpsc::Sender<Heard>,
}

/// What the tasks share.
#[derive(Debug)]
struct Link {
    keys: Keys,
    /// For reading and writing.
    main: Lane,
    /// For keeping the lease alive.
    alive: Lane,
    user: Option<(String, String)>,
    token: Mutex<Option<String>>,
    lease: Mutex<Option<i64>>,
    ttl: Duration,
    limit: Duration,
}

impl Etcd {
    /// Reads the files that the settings name. Connects to nothing.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(settings: &GroupSettings) -> Result<Self, NoClient> {
        let tls = tls::config(settings)?;
        let user = match (&settings.user, &settings.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), tls::password(file)?)),
            _ => None,
        };
        let lane = || Lane::new(&settings.endpoints, tls.as_ref());
        let link = Link {
            keys: Keys::new(&settings.prefix, &settings.name, &settings.member),
            main: lane(),
            alive: lane(),
            user,
            token: Mutex::default(),
            lease: Mutex::default(),
            ttl: settings.lease,
            limit: settings.call_timeout,
        };
        let (sender, changes) = mpsc::channel(WAITING);
        Ok(Self {
            link: Arc::new(link),
            changes: tokio::sync::Mutex::new(changes),
            tasks: Mutex::default(),
            watched: Arc::default(),
            sender,
        })
    }

    /// Starts the watch and what keeps the lease alive, once.
    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            let link = Arc::clone(&self.link);
            tasks.push(tokio::spawn(async move { link.keep_alive().await }));
            let (link, watched, sender) =
                (Arc::clone(&self.link), Arc::clone(&self.watched), self.sender.clone());
            tasks.push(tokio::spawn(async move { watch::watch(&link, &watched, &sender).await }));
        }
    }

    async fn try_write(&self, value: Vec<u8>, replaces: Version) -> Result<Written, EngineError> {
        let lease = self.link.lease().await?;
        self.start();
        let answer = self.link.ask("kv/txn", &self.link.keys.write(&value, replaces, lease)).await?;
        let read = self.link.keys.of_txn(&answer)?;
        Ok(if answer["succeeded"] == true { Written::Done(read) } else { Written::Other(read) })
    }

    async fn try_probe(&self) -> Result<String, EngineError> {
        let link = &self.link;
        let mut unreachable = Vec::new();
        for endpoint in link.main.endpoints() {
            if let Err(why) = link.main.open(endpoint, link.limit).await {
                unreachable.push(format!("{endpoint}: {why}"));
            }
        }
        if unreachable.len() == link.main.endpoints().count() {
            return Err(EngineError::Unreachable(unreachable.join("; ")));
        }
        let answer = link.ask("kv/txn", &link.keys.dry_run()).await?;
        if answer["succeeded"] == true {
            return Err(EngineError::Answer("a transaction that cannot succeed has".to_owned()));
        }
        link.keys.of_txn(&answer)?;
        let as_whom = link.user.as_ref().map_or_else(String::new, |(user, _)| format!(" as {user}"));
        let mut said = format!("{}{as_whom}: {} may be written", link.main.names(), link.keys.own_name());
        if !unreachable.is_empty() {
            said = format!("{said}; not reached: {}", unreachable.join("; "));
        }
        Ok(said)
    }
}

impl Link {
    /// One call on the main lane.
    async fn ask(&self, path: &str, body: &Value) -> Result<Value, EngineError> {
        self.ask_on(&self.main, path, body).await
    }

    async fn ask_on(&self, lane: &Lane, path: &str, body: &Value) -> Result<Value, EngineError> {
        let token = self.token().await?;
        match self.once(lane, path, body, token.as_deref()).await {
            Err(Refusal::Token(_)) if self.user.is_some() => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let token = self.token().await?;
                Ok(self.once(lane, path, body, token.as_deref()).await?)
            }
            other => Ok(other?),
        }
    }

    async fn once(
        &self,
        lane: &Lane,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Value, Refusal> {
        let reached = lane.ask(path, body, token, self.limit).await;
        match reached {
            Ok(Reached { status, body }) => words::answer(status, &body),
            Err(why) => Err(Refusal::Unreachable(why)),
        }
    }

    /// The token of this user; none where there is no user.
    async fn token(&self) -> Result<Option<String>, EngineError> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        if let Some(token) = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(token));
        }
        let body = serde_json::json!({"name": name, "password": password});
        let answer =
            self.once(&self.main, "auth/authenticate", &body, None).await.map_err(
                |refusal| match refusal {
                    Refusal::Other(why) => EngineError::Denied(why),
                    other => other.into(),
                },
            )?;
        let token = answer["token"].as_str().filter(|t| words::is_header(t));
        let Some(token) = token else {
            return Err(EngineError::Answer("an authentication was answered without a token".to_owned()));
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(Some(token.to_owned()))
    }

    /// The lease of this member's entry.
    async fn lease(&self) -> Result<i64, EngineError> {
        if let Some(lease) = *self.lease.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(lease);
        }
        let answer = self.ask("lease/grant", &words::grant(self.ttl)).await?;
        let lease = words::number(&answer["ID"]).filter(|id| *id != 0);
        let lease =
            lease.ok_or_else(|| EngineError::Answer("a lease was granted without an id".to_owned()))?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        Ok(lease)
    }

    /// Keeps the lease alive for as long as the task lives. What fails is tried again: whether the entry is still
    /// there is seen by reading it.
    async fn keep_alive(&self) {
        loop {
            tokio::time::sleep(self.ttl / 4).await;
            let lease = *self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(lease) = lease {
                let _ = self.ask_on(&self.alive, "lease/keepalive", &words::lease(lease)).await;
            }
        }
    }
}

impl Engine for Etcd {
    fn probe(&self) -> Doing<'_, Result<String, EngineError>> {
        Box::pin(self.try_probe())
    }

    fn warm(&self) -> Doing<'_, Result<(), EngineError>> {
        Box::pin(async {
            // A token may be about to expire.
            *self.link.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.link.token().await?;
            for lane in [&self.link.main, &self.link.alive] {
                let opened = lane.open_all(self.link.limit).await;
                opened.map_err(EngineError::Unreachable)?;
            }
            Ok(())
        })
    }

    fn read(&self) -> Doing<'_, Result<Read, EngineError>> {
        Box::pin(async {
            let answer = self.link.ask("kv/range", &self.link.keys.range()).await?;
            self.link.keys.of_range(&answer)
        })
    }

    fn write(&self, value: Vec<u8>, replaces: Version) -> Doing<'_, Result<Written, EngineError>> {
        Box::pin(self.try_write(value, replaces))
    }

    fn changed(&self) -> Doing<'_, Heard> {
        Box::pin(async {
            let pause = match self.watched.load(Ordering::Relaxed) {
                true => LOOK,
                false if gate::is_shut() => LOOK_ALONE,
                false => LOOK / 2,
            };
            let mut changes = self.changes.lock().await;
            tokio::select! {
                biased;
                Some(heard) = changes.recv() => heard,
                () = tokio::time::sleep(pause) => Heard::Look,
            }
        })
    }

    fn let_go(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }

    fn describe(&self) -> String {
        format!("etcd at {}", self.link.main.names())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.let_go();
    }
}
