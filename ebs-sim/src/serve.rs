//! Serving: set up, announce, wait, take down.
//!
//! In: a folder and a scenario. Out: two servers until a signal comes. Whatever ends it, it must never leave
//! a loop device or mount of its own behind without saying so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error as Failure;
use crate::host::{self, Host, Store};
use crate::imds::Tokens;
use crate::keys::Keys;
use crate::publish::Publisher;
use crate::ready::{self, Credentials, Ready};
use crate::scenario::Scenario;
use crate::sim::Sim;
use crate::state::Saved;
use crate::units::Bytes;
use crate::world::{Sizes, Snapshot, World};
use crate::{control, ec2, http, imds, lifecycle, measure, run, view};

/// The servers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken or not there.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The runtime or its signals could not be set up, or a child could not be started.
    #[error("cannot {what}")]
    Runtime {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Listen { .. } => Some("port 0 takes any free port".into()),
            Error::Runtime { .. } => None,
        }
    }

    /// Says what was tried.
    pub fn runtime(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Error::Runtime { what, source }
    }
}

/// Where a simulation comes from.
#[derive(Debug)]
pub enum Source {
    /// It begins.
    New(Box<Scenario>),
    /// It goes on.
    Saved(Box<Saved>),
}

/// What to serve and where.
#[derive(Debug)]
pub struct Settings {
    /// The folder.
    pub dir: PathBuf,
    /// What to simulate.
    pub source: Source,
    /// Whether the state outlives the server.
    pub keep: bool,
    /// EC2's port; 0 for any.
    pub port: u16,
    /// The metadata service's address.
    pub imds: SocketAddr,
    /// The size of the host image, when it is not to be derived.
    pub host_size: Option<Bytes>,
}

/// A simulation that is being served. Dropping it takes it down.
#[derive(Debug)]
pub struct Serving {
    /// What clients need to know.
    pub ready: Ready,
    sim: Arc<Sim>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// SIGINT, SIGTERM and SIGHUP, caught from the beginning so that nothing half made is left.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to catch them.
    pub fn catch() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::runtime("catch signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    pub async fn any(&mut self) -> nix::sys::signal::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => nix::sys::signal::Signal::SIGINT,
            _ = self.terminate.recv() => nix::sys::signal::Signal::SIGTERM,
            _ = self.hangup.recv() => nix::sys::signal::Signal::SIGHUP,
        }
    }
}

/// The runtime that everything asynchronous runs on.
pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::runtime("start the runtime"))
}

/// `ebs-sim serve`
pub fn serve(settings: Settings) -> Result<ExitCode, Failure> {
    host::preflight(&settings.dir, false)?;
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let mut serving = Serving::start(settings).await?;
        println!("{}", serving.ready.to_line());
        signals.any().await;
        Ok(serving.stop())
    })
}

impl Serving {
    /// Makes the devices, then the servers, and announces them.
    pub async fn start(settings: Settings) -> Result<Self, Failure> {
        let mut host = Host::open(&settings.dir)?;
        let dir = host.dir().to_owned();
        let (mut world, keys, store) = match settings.source {
            Source::New(scenario) => begin(&scenario, &mut host, settings.host_size)?,
            Source::Saved(saved) => resume(*saved, &mut host)?,
        };
        for volume in &mut world.volumes {
            volume.loop_device = match (volume.window, volume.has_device()) {
                (Some(window), true) => Some(host.expose(&store, window)?),
                _ => None,
            };
        }

        let view = view::Live::new(&host.mount_view()?)?;

        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), settings.port);
        let (ec2_listener, ec2_address) = listen(local).await?;
        let (imds_listener, imds_address) = listen(settings.imds).await?;
        let keep = settings.keep.then_some(dir.as_path());
        let sim = Arc::new(Sim::new(world, keys, host, store, keep));
        sim.save();
        let ready = ready(&sim, &dir, ec2_address, imds_address);

        let connections = Arc::new(AtomicU64::new(0));
        let tokens = Arc::new(Tokens::default());
        let tasks = vec![
            tokio::spawn(http::serve(ec2_listener, connections.clone(), {
                let sim = sim.clone();
                move |call: http::Call| route(sim.clone(), call)
            })),
            tokio::spawn(http::serve(imds_listener, connections, {
                let sim = sim.clone();
                move |call: http::Call| imds::handle(sim.clone(), tokens.clone(), call)
            })),
        ];
        sim.set_publisher(Publisher::new(dir, ready.clone(), view)?);
        go_on(&sim);
        Ok(Self { ready, sim, tasks })
    }

    /// Takes everything down. Names what is still in use, which makes the exit code 1.
    pub fn stop(&mut self) -> ExitCode {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.sim.save();
        let (in_use, errors) = self.sim.host().close();
        for user in &in_use {
            eprintln!("ebs-sim: {user}");
        }
        if !in_use.is_empty() {
            eprintln!("hint: unmount it; the device goes when its last user does");
        }
        let failed = !errors.is_empty() || !in_use.is_empty();
        for error in errors {
            Failure::from(error).print();
        }
        ExitCode::from(u8::from(failed))
    }
}

/// What was under way when a predecessor ended.
fn go_on(sim: &Arc<Sim>) {
    let volumes = sim.world().volumes.clone();
    for volume in &volumes {
        lifecycle::go_on(sim, volume);
    }
    let unmeasured: Vec<_> = {
        let world = sim.world();
        let waits = |snapshot: &&Snapshot| snapshot.sizes == Sizes::Measuring;
        world.snapshots.values().filter(waits).map(|snapshot| snapshot.id.clone()).collect()
    };
    if !unmeasured.is_empty() {
        let sim = sim.clone();
        tokio::task::spawn_blocking(move || measure::measure(&sim, &unmeasured));
    }
}

/// A simulation at its beginning.
fn begin(
    scenario: &Scenario,
    host: &mut Host,
    image: Option<Bytes>,
) -> Result<(World, Keys, Store), host::Error> {
    let sizes: Vec<u64> = scenario.volumes.iter().map(|v| v.size.0).collect();
    let windows = host::lay_out(&sizes);
    let pool = windows.last().map_or(0, |last| last.offset + last.length);
    let store = host.make_store(pool, image)?;
    let keys = Keys::new(scenario.imds.credentials_lifetime);
    Ok((World::new(scenario, &windows, Timestamp::now()), keys, store))
}

/// A simulation that goes on.
fn resume(saved: Saved, host: &mut Host) -> Result<(World, Keys, Store), host::Error> {
    let Saved { world, keys } = saved;
    let windows = world.volumes.iter().filter_map(|volume| volume.window);
    let pool = windows.map(|window| window.offset + window.length).max().unwrap_or(0);
    let store = host.open_store(pool)?;
    let images = world.snapshots.values().filter_map(|snapshot| snapshot.image.as_ref());
    let sources = world.volumes.iter().filter_map(|volume| volume.source.as_ref());
    store.remove_orphans(&images.chain(sources).map(|image| image.path.as_path()).collect::<Vec<_>>());
    Ok((world, keys, store))
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A second stop finds nothing left to do.
        let _ = self.stop();
    }
}

async fn route(sim: Arc<Sim>, call: http::Call) -> http::Reply {
    if call.uri.path().starts_with(control::PREFIX) {
        control::handle(sim, call).await
    } else {
        ec2::handle(sim, call).await
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    Ok((listener, bound))
}

fn ready(sim: &Sim, dir: &Path, ec2: SocketAddr, imds: SocketAddr) -> Ready {
    let world = sim.world();
    let instance = &world.scenario.instance;
    let endpoint = format!("http://{ec2}");
    let is_real = imds == run::IMDS_ADDRESS;
    let imds = match imds.port() {
        80 => format!("http://{}", imds.ip()),
        _ => format!("http://{imds}"),
    };
    let mut env = BTreeMap::from([("AWS_ENDPOINT_URL_EC2".to_owned(), endpoint.clone())]);
    if !is_real {
        env.insert(view::IMDS_VARIABLE.to_owned(), imds.clone());
    }
    let keys = sim.keys();
    Ready {
        pid: std::process::id(),
        dir: dir.to_owned(),
        env,
        endpoint,
        imds,
        region: instance.region.clone(),
        availability_zone: instance.zone(),
        account_id: instance.account_id.clone(),
        instance_id: instance.id.clone(),
        credentials: Credentials {
            access_key_id: keys.fixed().access_key_id.clone(),
            secret_access_key: keys.fixed().secret_access_key.clone(),
        },
        volumes: ready::volumes(&world),
    }
}
