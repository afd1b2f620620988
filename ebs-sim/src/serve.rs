//! Serving: set up, announce, wait, take down.
//!
//! In: a folder and a scenario. Out: two servers until a signal comes. Whatever ends it, it must never leave
//! a loop device or mount of its own behind without saying so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::host::{self, Host, Store};
use crate::imds::Tokens;
use crate::keys::Keys;
use crate::publish::{self, Publisher};
use crate::ready::{self, Account, Credentials, Ready};
use crate::scenario::Scenario;
use crate::sim::Sim;
use crate::state::Saved;
use crate::tls::{self, Identity};
use crate::units::Bytes;
use crate::world::{InstanceState, Launch, Sizes, Snapshot, Stage, World};
use crate::{control, ec2, env, http, imds, lifecycle, measure, rest, view, window};

/// The servers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Devices, mounts or files could not be made or taken down.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The devices could not be announced.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    #[error(transparent)]
    View(#[from] view::Error),
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot {what}")]
    Runtime { what: String, source: std::io::Error },
}

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Listen { .. } => Some("port 0 takes any free port".into()),
            Error::Host(error) => error.hint(),
            Error::View(error) => error.hint(),
            Error::Publish(_) | Error::Tls(_) | Error::Runtime { .. } => None,
        }
    }

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

impl Source {
    pub fn scenario(&self) -> &Scenario {
        match self {
            Source::New(scenario) => scenario,
            Source::Saved(saved) => &saved.world.scenario,
        }
    }
}

/// What to serve and where.
#[derive(Debug)]
pub struct Settings {
    pub dir: PathBuf,
    /// What to simulate.
    pub source: Source,
    /// Whether the state outlives the server.
    pub keep: bool,
    /// EC2's port; 0 for any.
    pub port: u16,
    /// EC2's port with TLS; 0 for any.
    pub tls_port: u16,
    /// The metadata service's address, when it has no listener yet.
    pub imds: SocketAddr,
    /// Its listener, when that is in another network namespace.
    pub imds_listener: Option<std::net::TcpListener>,
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
pub fn serve(settings: Settings) -> Result<ExitCode, Error> {
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
    pub async fn start(settings: Settings) -> Result<Self, Error> {
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

        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let ec2_listener = listen(local(settings.port)).await?;
        let tls_listener = listen(local(settings.tls_port)).await?;
        // A way of its own, which faults on EC2's connections do not close.
        let control_listener = listen(local(0)).await?;
        let imds_listener = match settings.imds_listener {
            None => listen(settings.imds).await?,
            Some(listener) => TcpListener::from_std(listener)
                .map_err(Error::runtime("take the metadata service's listener"))?,
        };
        let identity = Identity::make(world.regions())?;
        let authority = dir.join(tls::FILE);
        std::fs::write(&authority, &identity.authority)
            .map_err(Error::runtime(format!("write {}", authority.display())))?;
        let keep = settings.keep.then_some(dir.as_path());
        let sim = Arc::new(Sim::new(world, keys, host, store, keep));
        sim.save();
        let ready = ready(&sim, &dir, &[&ec2_listener, &tls_listener, &control_listener, &imds_listener])?;

        let connections = Arc::new(AtomicU64::new(0));
        let tokens = Arc::new(Tokens::default());
        let endpoint = |listener, tls| http::Endpoint { listener, connections: connections.clone(), tls };
        let admit = |imds| {
            let sim = sim.clone();
            move |connection, tls| sim.admit(imds, connection, tls)
        };
        let both = {
            let sim = sim.clone();
            move |call: http::Call| route(sim.clone(), call)
        };
        let only_ec2 = {
            let sim = sim.clone();
            move |call: http::Call| aws(sim.clone(), call)
        };
        let only_imds = {
            let sim = sim.clone();
            move |call: http::Call| imds::handle(sim.clone(), tokens.clone(), call)
        };
        let tls = Some(identity.acceptor);
        let tasks = vec![
            tokio::spawn(http::serve(endpoint(ec2_listener, None), admit(false), both.clone())),
            tokio::spawn(http::serve(endpoint(tls_listener, tls), admit(false), only_ec2)),
            tokio::spawn(http::serve(endpoint(control_listener, None), |_, _| http::Admission::Serve, both)),
            tokio::spawn(http::serve(endpoint(imds_listener, None), admit(true), only_imds)),
        ];
        sim.set_publisher(Publisher::new(dir, ready.clone(), view)?);
        resume_all(&sim);
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
            eprintln!("ebs-sim: {}", host::chain(&error));
        }
        ExitCode::from(u8::from(failed))
    }
}

/// What was under way when a predecessor ended.
fn resume_all(sim: &Arc<Sim>) {
    let (volumes, launches) = {
        let world = sim.world();
        (world.volumes.clone(), world.launches.clone())
    };
    // What goes on with them attaches and detaches their volumes, too.
    let under_way =
        |launch: &&Launch| matches!(launch.state, InstanceState::Pending | InstanceState::ShuttingDown);
    for volume in &volumes {
        let instance = volume.attachment.as_ref().and_then(|attachment| attachment.instance.as_ref());
        let is_theirs = launches.iter().filter(under_way).any(|launch| Some(&launch.id) == instance);
        if !is_theirs || volume.stage == Stage::Creating {
            lifecycle::resume(sim, volume);
        }
    }
    for launch in launches.iter().filter(under_way) {
        match launch.state {
            InstanceState::Pending => lifecycle::launch(sim, &launch.id),
            _ => lifecycle::terminate(sim, &launch.id),
        }
    }
    let tasks = sim.world().root_tasks.clone();
    for task in tasks.iter().filter(|task| !task.state.is_over()) {
        lifecycle::replace_root(sim, &task.id);
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
    let windows = window::lay_out(&sizes);
    let pool = windows.last().map_or(0, |last| last.offset + last.length);
    let store = host.make_store(pool, image)?;
    let accounts = scenario.accounts.iter().map(|account| account.id.as_str());
    let keys = Keys::new(scenario.imds.credentials_lifetime, accounts);
    Ok((World::new(scenario, &windows, Timestamp::now()), keys, store))
}

/// A simulation that goes on.
fn resume(saved: Saved, host: &mut Host) -> Result<(World, Keys, Store), host::Error> {
    let Saved { world, keys } = saved;
    let windows = world.volumes.iter().filter_map(|volume| volume.window);
    let pool = windows.map(|window| window.offset + window.length).max().unwrap_or(0);
    let store = host.open_store(pool)?;
    let images =
        world.snapshots.values().chain(world.bin.values()).filter_map(|snapshot| snapshot.image.as_ref());
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
    if call.uri.path().starts_with(ready::CONTROL) {
        control::handle(sim, call).await
    } else {
        aws(sim, call).await
    }
}

/// EC2, and the services that answer on its ports too.
async fn aws(sim: Arc<Sim>, call: http::Call) -> http::Reply {
    if rest::is_path(call.uri.path()) { rest::handle(sim, call).await } else { ec2::handle(sim, call).await }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// What is announced. The listeners are EC2's, EC2's with TLS, the control API's and the metadata service's.
fn ready(sim: &Sim, dir: &Path, listeners: &[&TcpListener; 4]) -> Result<Ready, Error> {
    let world = sim.world();
    let instance = &world.scenario.instance;
    let address = |n: usize| listeners[n].local_addr().map_err(Error::runtime("tell a listener's address"));
    let endpoint = format!("http://{}", address(0)?);
    let tls_endpoint = format!("https://{}", address(1)?);
    let imds_address = address(3)?;
    let imds = match imds_address.port() {
        80 => format!("http://{}", imds_address.ip()),
        _ => format!("http://{imds_address}"),
    };
    let ca_bundle = dir.join(tls::FILE);
    let authority = ca_bundle.to_string_lossy();
    let env = env::usual(
        &endpoint,
        (imds_address != imds::ADDRESS).then_some(imds.as_str()),
        world.scenario.endpoint.tls.then_some((tls_endpoint.as_str(), authority.as_ref())),
    );
    let keys = sim.keys();
    Ok(Ready {
        pid: std::process::id(),
        dir: dir.to_owned(),
        env,
        endpoint,
        tls_endpoint,
        control: format!("http://{}", address(2)?),
        ca_bundle: ca_bundle.clone(),
        imds,
        region: instance.region.clone(),
        availability_zone: instance.zone(),
        account_id: instance.account_id.clone(),
        instance_id: instance.id.clone(),
        credentials: Credentials::of(keys.fixed()),
        admin_credentials: Credentials::of(keys.admin()),
        accounts: keys
            .others()
            .iter()
            .map(|(id, key)| Account { id: id.clone(), credentials: Credentials::of(key) })
            .collect(),
        volumes: ready::volumes(&world),
        launched: ready::launched(&world),
    })
}
