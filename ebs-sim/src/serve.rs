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
use crate::host::{self, Host};
use crate::imds::Tokens;
use crate::publish::Publisher;
use crate::ready::{self, Credentials, Ready};
use crate::scenario::Scenario;
use crate::sim::Sim;
use crate::units::Bytes;
use crate::world::World;
use crate::{control, ec2, http, imds, run, view};

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

/// What to serve and where.
#[derive(Debug)]
pub struct Settings {
    /// The folder.
    pub dir: PathBuf,
    /// What to simulate.
    pub scenario: Scenario,
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
        let sizes: Vec<u64> = settings.scenario.volumes.iter().map(|v| v.size.0).collect();
        let windows = host::lay_out(&sizes);
        let pool = windows.last().map_or(0, |last| last.offset + last.length);
        let store = host.make_store(pool, settings.host_size)?;
        let mut world = World::new(&settings.scenario, &windows, Timestamp::now());
        for (volume, &window) in world.volumes.iter_mut().zip(&windows) {
            if volume.attachment.is_some() {
                volume.loop_device = Some(host.expose(&store, window)?);
            }
        }

        let view = view::Live::new(&host.mount_view()?)?;

        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), settings.port);
        let (ec2_listener, ec2_address) = listen(local).await?;
        let (imds_listener, imds_address) = listen(settings.imds).await?;
        let sim = Arc::new(Sim::new(world, host, store));
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
        Ok(Self { ready, sim, tasks })
    }

    /// Takes everything down. Names what is still in use, which makes the exit code 1.
    pub fn stop(&mut self) -> ExitCode {
        for task in self.tasks.drain(..) {
            task.abort();
        }
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
