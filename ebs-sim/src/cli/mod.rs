//! The command line.
//!
//! In: arguments. Out: one call of the module that does it. What scripts read goes to stdout, all else to
//! stderr; it must never mix the two.

mod account;
mod faults;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::env::Reach;
use crate::error::Error;
use crate::ready::Ready;
use crate::scenario::{Scenario, VolumeSpec};
use crate::serve::Source;
use crate::units::Bytes;
use crate::{client, env, host, imds, run, serve, state, view};
use account::{ClockArgs, FillArgs};
use faults::FaultsVerb;

/// A stand-in for EC2 and IMDS over real block devices: volumes are loop devices, and a snapshot is a
/// point-in-time clone of them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the volumes and serve EC2 and IMDS until SIGTERM or SIGINT.
    ///
    /// When ready, prints one line of JSON with endpoints, credentials and devices, which is in
    /// DIR/ebs-sim.json too.
    Serve(ServeArgs),
    /// Run a command that sees the volumes as EBS disks in /sys.
    ///
    /// The command gets a mount namespace of its own, the AWS_… variables that lead to the simulation,
    /// and EBS_SIM_DIR. Its exit status is passed through.
    Exec(ExecArgs),
    /// Serve and run a command together, with IMDS at its real address.
    ///
    /// Both live in a new network namespace in which 169.254.169.254:80 answers. Afterwards everything
    /// is taken down, and the command's exit status is passed through.
    Run(RunArgs),
    /// Print lines for a shell that lead its AWS clients to a running ebs-sim.
    ///
    /// eval "$(ebs-sim env --dir DIR)"; aws ec2 describe-volumes. Static key and Region are always among
    /// them.
    Env(EnvArgs),
    /// Stop the ebs-sim that serves from DIR, or clean up after one that was killed.
    Stop(StopArgs),
    /// Make a device of a private copy of a snapshot, and print its path.
    SnapshotDevice(SnapshotDeviceArgs),
    /// Take a device down that snapshot-device made.
    ReleaseDevice(ReleaseDeviceArgs),
    /// Make one EC2 call, signed with the static key, and print the XML.
    ///
    /// The exit status is 1 when EC2 answers with an error.
    Call(CallArgs),
    /// Make the volumes the disks of a QEMU, and let it run.
    ///
    /// From now on AttachVolume and DetachVolume plug disks into it and pull them, which look like EBS on Nitro. QEMU is
    /// started with -S, without disks, with ports for them (-device pcie-root-port,id=portN,…) and with memory that is
    /// shared (-object memory-backend-memfd,share=on).
    Guest(GuestArgs),
    /// Set, show or forget faults.
    #[command(subcommand)]
    Faults(FaultsVerb),
    /// Forget snapshots, images, faults, log and denials; volumes and their data stay.
    Reset(DirArg),
    /// Show the account's clock, or move it on.
    ///
    /// It is the time that locks, the archive and the Recycle Bin go by, and what new snapshots say. Signatures and
    /// the Date header go by the machine's clock.
    Clock(ClockArgs),
    /// Add very many completed snapshots that have no data.
    Fill(FillArgs),
    /// Print the request log as JSON.
    Requests(DirArg),
    /// Print the snapshots as JSON, with the files that hold their data.
    Snapshots(DirArg),
}

#[derive(Debug, Args)]
struct DirArg {
    /// The folder that serve was given.
    #[arg(long, env = "EBS_SIM_DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Remove what --keep kept, too.
    #[arg(long)]
    discard: bool,
}

#[derive(Debug, Args)]
struct Simulation {
    /// What to simulate, as a TOML file.
    #[arg(long, value_name = "FILE.toml")]
    scenario: Option<PathBuf>,
    /// A volume, added to those of the scenario. Can be repeated.
    ///
    /// name=data,size=1GiB[,device=/dev/sdf][,type=gp3][,kind=nvme|xen|instance-store][,boot]
    /// [,id=vol-…][,encrypted][,detached][,iops=N][,throughput=N][,tag:Key=Value]
    #[arg(long = "volume", value_name = "SPEC")]
    volumes: Vec<VolumeSpec>,
    /// EC2's port on 127.0.0.1; 0 takes any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep volumes, snapshots, tags and keys in DIR at the end, and go on with them at the next start.
    ///
    /// That start takes no --scenario and no --volume. Tokens, the request log and devices of snapshots are
    /// not kept; faults are the scenario's again.
    #[arg(long)]
    keep: bool,
    /// EC2's port with TLS on 127.0.0.1; 0 takes any.
    #[arg(long, default_value_t = 0)]
    tls_port: u16,
    /// The size of the filesystem that holds volumes and snapshots, when DIR is not on one that can clone.
    #[arg(long, value_name = "SIZE")]
    host_size: Option<Bytes>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder to work in; it is made when it is not there.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    simulation: Simulation,
    /// IMDS's port on 127.0.0.1; 0 takes any.
    #[arg(long, default_value_t = 0)]
    imds_port: u16,
    /// Stop when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
}

#[derive(Debug, Args)]
struct ExecArgs {
    #[command(flatten)]
    dir: DirArg,
    #[command(flatten)]
    reach: Reach,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct EnvArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Lead to the TLS port, and trust the simulation's authority alone.
    #[arg(long)]
    tls: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The folder to work in; a temporary one when absent.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    simulation: Simulation,
    #[command(flatten)]
    reach: Reach,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct SnapshotDeviceArgs {
    #[command(flatten)]
    dir: DirArg,
    /// The snapshot's id.
    snapshot: String,
    /// Make the device read-only.
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Args)]
struct ReleaseDeviceArgs {
    #[command(flatten)]
    dir: DirArg,
    /// The device, /dev/loopN.
    device: PathBuf,
}

#[derive(Debug, Args)]
struct GuestArgs {
    #[command(flatten)]
    dir: DirArg,
    /// QEMU's -qmp unix:SOCKET,server=on,wait=off.
    #[arg(long, value_name = "SOCKET", required_unless_present = "none")]
    qmp: Option<PathBuf>,
    /// It has ended: volumes are plugged into nothing.
    #[arg(long, conflicts_with = "qmp")]
    none: bool,
    /// An instance that was launched; the scenario's when absent, and with --none all of them.
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
}

#[derive(Debug, Args)]
struct CallArgs {
    /// The Region to ask; the instance's when absent.
    #[arg(long)]
    region: Option<String>,
    /// Sign with the key of the account's root user, which neither denials nor a policy concern.
    #[arg(long, conflicts_with = "account")]
    admin: bool,
    /// Sign with the key of another account.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    #[command(flatten)]
    dir: DirArg,
    /// The action, such as DescribeVolumes.
    action: String,
    /// Parameters as EC2's Query API writes them, such as VolumeId.1=vol-….
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    params: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".into())
}

impl Simulation {
    fn settings(self, dir: PathBuf, imds: SocketAddr) -> Result<serve::Settings, Error> {
        let given = self.scenario.is_some() || !self.volumes.is_empty();
        let source = match state::read(&dir)? {
            Some(saved) if self.keep && !given => Source::Saved(Box::new(saved)),
            Some(_) => return Err(state::Error::Kept(dir).into()),
            None => Source::New(Box::new(Scenario::load(self.scenario.as_deref(), &self.volumes)?)),
        };
        Ok(serve::Settings {
            dir,
            source,
            keep: self.keep,
            port: self.port,
            tls_port: self.tls_port,
            imds,
            imds_listener: None,
            host_size: self.host_size,
        })
    }
}

/// Reads the command line and does what it says.
pub fn dispatch() -> Result<ExitCode, Error> {
    match Cli::parse().command {
        Verb::Serve(args) => {
            if args.die_with_parent {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
                    .map_err(|errno| serve::Error::runtime("watch the parent")(errno.into()))?;
            }
            let imds = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.imds_port);
            Ok(serve::serve(args.simulation.settings(args.dir, imds)?)?)
        }
        Verb::Exec(args) => match view::exec(&Ready::read(&args.dir.dir)?, args.reach, &args.command)? {},
        Verb::Run(args) => {
            let dir = args.dir.unwrap_or_else(|| {
                let name = format!("ebs-sim-{}", uuid::Uuid::new_v4().simple());
                std::env::temp_dir().join(name)
            });
            let settings = args.simulation.settings(dir, imds::ADDRESS)?;
            run::run(settings, args.reach, &args.command)
        }
        Verb::Env(args) => {
            let reach = Reach { tls: args.tls, static_credentials: true };
            print!("{}", env::lines(&Ready::read(&args.dir.dir)?, reach));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Stop(args) => {
            host::stop(&args.dir.dir)?;
            if args.discard {
                state::discard(&args.dir.dir)?;
                host::stop(&args.dir.dir)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::SnapshotDevice(args) => {
            let body = json!({ "snapshot_id": args.snapshot, "read_only": args.read_only });
            let answer = control(&args.dir, "POST", "devices", Some(body))?;
            println!("{}", answer["device"].as_str().unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Verb::ReleaseDevice(args) => {
            let name = args.device.file_name().unwrap_or_default().to_string_lossy();
            let answer = control(&args.dir, "DELETE", &format!("devices/{name}"), None)?;
            match answer["in_use"].as_str() {
                None => Ok(ExitCode::SUCCESS),
                Some(in_use) => {
                    eprintln!("ebs-sim: {in_use}");
                    Ok(ExitCode::FAILURE)
                }
            }
        }
        Verb::Guest(args) => {
            match args.qmp {
                Some(socket) => {
                    let body = json!({ "qmp": socket, "instance": args.instance });
                    control(&args.dir, "POST", "guest", Some(body))?
                }
                None => {
                    let of = args.instance.map(|id| format!("/{id}")).unwrap_or_default();
                    control(&args.dir, "DELETE", &format!("guest{of}"), None)?
                }
            };
            Ok(ExitCode::SUCCESS)
        }
        Verb::Call(args) => {
            let ready = Ready::read(&args.dir.dir)?;
            let key = match &args.account {
                None if args.admin => &ready.admin_credentials,
                None => &ready.credentials,
                Some(id) => {
                    let found = ready.accounts.iter().find(|account| account.id == *id);
                    let found =
                        found.ok_or_else(|| client::Error::Refused(format!("there is no account {id}")))?;
                    &found.credentials
                }
            };
            let region = args.region.as_deref();
            let answer = client::call(&ready, key, region, &args.action, &args.params)?;
            println!("{}", answer.body);
            Ok(ExitCode::from(u8::from(answer.status != 200)))
        }
        Verb::Faults(FaultsVerb::Add(args)) => {
            let answer = control(&args.dir, "POST", "faults", Some(json!(args.fault())))?;
            println!("{}", answer["id"]);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Faults(FaultsVerb::Wait(args)) => {
            let ready = Ready::read(&args.fault.dir.dir)?;
            let path = args.path();
            print!("{}", client::control_within(&ready, "GET", &path, "", args.within)?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Faults(FaultsVerb::Release(args)) => {
            control(&args.dir, "POST", &format!("faults/{}/release", args.id), None)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Faults(FaultsVerb::Held(dir)) => show(&dir, "held"),
        Verb::Faults(FaultsVerb::Remove(args)) => {
            control(&args.dir, "DELETE", &format!("faults/{}", args.id), None)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Faults(FaultsVerb::List(dir)) => show(&dir, "faults"),
        Verb::Faults(FaultsVerb::Clear(dir)) => {
            control(&dir, "DELETE", "faults", None)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Reset(dir) => {
            control(&dir, "POST", "reset", None)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Clock(args) => {
            let (method, body) = match args.body() {
                None => ("GET", None),
                Some(body) => ("POST", Some(body)),
            };
            println!("{}", control(&args.dir, method, "clock", body)?["now"].as_str().unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Fill(args) => {
            println!("{}", control(&args.dir, "POST", "fill", Some(args.body()))?["made"]);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Requests(dir) => show(&dir, "requests"),
        Verb::Snapshots(dir) => show(&dir, "snapshots"),
    }
}

fn control(dir: &DirArg, method: &str, path: &str, body: Option<Value>) -> Result<Value, Error> {
    let ready = Ready::read(&dir.dir)?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let answer = client::control(&ready, method, path, &body)?;
    Ok(serde_json::from_str(&answer).unwrap_or(Value::Null))
}

fn show(dir: &DirArg, path: &str) -> Result<ExitCode, Error> {
    let ready = Ready::read(&dir.dir)?;
    print!("{}", client::control(&ready, "GET", path, "")?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
