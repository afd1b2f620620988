//! What the servers share.
//!
//! In: the world, the host side, faults, keys and log. Out: short locked looks at each. A lock must never
//! be held over an await or over disk work; the one exception is `commit`, which is there for that.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::faults::{CONNECTION, Faults, Held, Hit, IMDS_CONNECTION, Kind, Moment, Target};
use crate::guest::Guest;
use crate::host::{Host, Store};
use crate::http::Admission;
use crate::ids::InstanceId;
use crate::keys::Keys;
use crate::log::{Entry, Log, unix_nanos};
use crate::publish::Publisher;
use crate::throttle::Throttle;
use crate::world::World;

/// Where the state is kept, and how much of it the file holds.
#[derive(Debug)]
struct Kept {
    dir: PathBuf,
    written: Mutex<Option<(u64, usize)>>,
}

#[derive(Debug)]
pub struct Sim {
    world: Mutex<World>,
    host: Mutex<Host>,
    faults: Mutex<Faults>,
    keys: Mutex<Keys>,
    log: Mutex<Log>,
    throttle: Mutex<Throttle>,
    changes: AtomicU64,
    kept: Option<Kept>,
    publisher: Mutex<Option<Publisher>>,
    /// The requests that faults hold.
    pub held: Held,
    /// The pool and its clones.
    pub store: Store,
    /// Held from checking the limits of a creation until its snapshots are known.
    pub commit: tokio::sync::Mutex<()>,
    /// The QEMUs that the devices are plugged into, of the instances that have one.
    pub guests: tokio::sync::Mutex<BTreeMap<InstanceId, Guest>>,
}

/// A panic in one request must not take the whole simulation down with poisoned locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// Puts the parts together. `keep` is the folder whose `state.json` follows every change.
    pub fn new(world: World, keys: Keys, host: Host, store: Store, keep: Option<&Path>) -> Self {
        let faults = Faults::new(&world.scenario.faults);
        let log = Log::new(world.scenario.log.keep);
        Self {
            world: Mutex::new(world),
            host: Mutex::new(host),
            faults: Mutex::new(faults),
            keys: Mutex::new(keys),
            log: Mutex::new(log),
            throttle: Mutex::new(Throttle::default()),
            changes: AtomicU64::new(0),
            kept: keep.map(|dir| Kept { dir: dir.to_owned(), written: Mutex::new(None) }),
            publisher: Mutex::new(None),
            held: Held::default(),
            store,
            commit: tokio::sync::Mutex::new(()),
            guests: tokio::sync::Mutex::new(BTreeMap::new()),
        }
    }

    /// The account, to look at.
    pub fn world(&self) -> impl Deref<Target = World> {
        lock(&self.world)
    }

    /// The account, to change. Each call counts as a change, so that `save` writes the state again.
    pub fn change(&self) -> impl DerefMut<Target = World> {
        let world = lock(&self.world);
        // Counted under the lock: otherwise `save` could take a change for written that it has not read.
        self.changes.fetch_add(1, Ordering::Relaxed);
        world
    }

    /// Writes what has changed, before it is answered: EC2 does not forget what it has said.
    pub fn save(&self) {
        let Some(kept) = &self.kept else { return };
        let mut written = lock(&kept.written);
        let (now, text) = {
            let world = self.world();
            let keys = self.keys();
            let now = (self.changes.load(Ordering::Relaxed), keys.rotations());
            if *written == Some(now) {
                return;
            }
            (now, crate::state::text(&world, &keys))
        };
        match crate::state::write(&kept.dir, &text) {
            Ok(()) => *written = Some(now),
            Err(error) => {
                tracing::error!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            }
        }
    }

    /// Devices and mounts.
    pub fn host(&self) -> MutexGuard<'_, Host> {
        lock(&self.host)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    /// The token buckets.
    pub fn throttle(&self) -> MutexGuard<'_, Throttle> {
        lock(&self.throttle)
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// From now on, `publish` has somewhere to publish to.
    pub fn set_publisher(&self, publisher: Publisher) {
        *lock(&self.publisher) = Some(publisher);
    }

    /// Shows the devices that there are now in the view and in `ebs-sim.json`. It writes files: not for the
    /// threads that serve.
    pub fn publish(&self) {
        let mut publisher = lock(&self.publisher);
        let Some(publisher) = publisher.as_mut() else { return };
        // The last look at the world is the one that is shown, as nobody else publishes meanwhile.
        let (volumes, launched) = {
            let world = self.world();
            (crate::ready::volumes(&world), crate::ready::launched(&world))
        };
        if let Err(error) = publisher.update(volumes, launched) {
            tracing::error!("devices are not shown as they are: {error}");
        }
    }

    /// Counts a request and takes the faults that hit it, and notes them in the log.
    pub fn strike(&self, number: u64, moment: Moment, target: &Target<'_>) -> Vec<Hit> {
        let hits = self.faults().strike(moment, target);
        if !hits.is_empty() {
            self.note(number, |entry| entry.add_faults(&hits));
        }
        hits
    }

    /// Forgets all faults. What they hold goes on.
    pub fn clear_faults(&self) {
        self.faults().clear();
        self.held.release_all();
    }

    /// Decides about a new connection. One that a fault hits gets an entry in the log of its own.
    pub fn admit(&self, imds: bool, connection: u64, tls: bool) -> Admission {
        let action = if imds { IMDS_CONNECTION } else { CONNECTION };
        let target = Target { action, tls, ..Target::default() };
        let hits = self.faults().strike(Moment::Connection, &target);
        let Some(hit) = hits.first() else {
            return Admission::Serve;
        };
        let mut entry =
            Entry { connection, tls, action: action.into(), started_ns: unix_nanos(), ..Entry::default() };
        entry.add_faults(&hits);
        let number = self.log().begin(entry);
        self.note(number, |entry| entry.outcome = hit.fault.kind.name());
        match hit.fault.kind {
            Kind::TlsStall => Admission::Ignore,
            _ => Admission::Reset,
        }
    }

    /// Changes a request's log entry.
    pub fn note(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        self.log().update(number, change);
    }
}
