//! What the servers share.
//!
//! In: the world, the host side, faults, keys and log. Out: short locked looks at each. A lock must never
//! be held over an await or over disk work; the one exception is `commit`, which is there for that.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::faults::{CONNECTION, Faults, Hit, IMDS_CONNECTION, Kind, Stage, Target};
use crate::host::{Host, Store};
use crate::http::Welcome;
use crate::keys::Keys;
use crate::log::{Entry, Log, unix_nanos};
use crate::world::World;

/// One running simulation.
#[derive(Debug)]
pub struct Sim {
    world: Mutex<World>,
    host: Mutex<Host>,
    faults: Mutex<Faults>,
    keys: Mutex<Keys>,
    log: Mutex<Log>,
    changes: AtomicU64,
    /// The pool and its clones.
    pub store: Store,
    /// Held from checking the limits of a creation until its snapshots are known.
    pub commit: tokio::sync::Mutex<()>,
}

/// A panic in one request must not take the whole simulation down with poisoned locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// Puts the parts together.
    pub fn new(world: World, host: Host, store: Store) -> Self {
        let faults = Faults::new(&world.scenario.faults);
        let keys = Keys::new(world.scenario.imds.credentials_lifetime);
        let log = Log::new(world.scenario.log.keep);
        Self {
            world: Mutex::new(world),
            host: Mutex::new(host),
            faults: Mutex::new(faults),
            keys: Mutex::new(keys),
            log: Mutex::new(log),
            changes: AtomicU64::new(0),
            store,
            commit: tokio::sync::Mutex::new(()),
        }
    }

    /// The account, to look at.
    pub fn world(&self) -> impl Deref<Target = World> {
        lock(&self.world)
    }

    /// The account, to change: whatever has to outlive this process is known to have changed.
    pub fn change(&self) -> impl DerefMut<Target = World> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        lock(&self.world)
    }

    /// Devices and mounts.
    pub fn host(&self) -> MutexGuard<'_, Host> {
        lock(&self.host)
    }

    /// The faults that are set.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// The access keys.
    pub fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    /// The request log.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Counts a request and takes the faults that hit it, and notes them in the log.
    pub fn strike(&self, number: u64, stage: Stage, target: &Target<'_>) -> Vec<Hit> {
        let hits = self.faults().strike(stage, target);
        if !hits.is_empty() {
            self.note(number, |entry| entry.add_faults(&hits));
        }
        hits
    }

    /// Decides about a new connection. One that a fault hits gets an entry in the log of its own.
    pub fn welcome(&self, imds: bool, connection: u64, tls: bool) -> Welcome {
        let action = if imds { IMDS_CONNECTION } else { CONNECTION };
        let target = Target { action, tls, ..Target::default() };
        let hits = self.faults().strike(Stage::Connection, &target);
        let Some(hit) = hits.first() else {
            return Welcome::Served;
        };
        let mut entry =
            Entry { connection, tls, action: action.into(), started_ns: unix_nanos(), ..Entry::default() };
        entry.add_faults(&hits);
        let number = self.log().begin(entry);
        self.note(number, |entry| entry.outcome = hit.fault.kind.name());
        match hit.fault.kind {
            Kind::TlsStall => Welcome::Silence,
            _ => Welcome::Reset,
        }
    }

    /// Changes a request's log entry.
    pub fn note(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        self.log().update(number, change);
    }
}
