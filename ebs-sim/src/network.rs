//! The instance's network: a namespace with its private address, and the metadata service one link away.
//!
//! ```text
//!  instance's namespace                       the service's namespace
//!  lo 127.0.0.1 (EC2)   eth0 10.0.0.10 ─ veth ─ eth0 169.254.169.254:80
//! ```
//!
//! In: the instance's address. Out: this thread in the instance's namespace, and the service's listener. The service
//! must never be in the instance's own namespace: the hop limit of its tokens counts from outside.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::host::{self, run};
use crate::imds;
use crate::world::MAC;

/// Sets up the network of this thread's namespace, which is new. It must be the process's only thread.
pub fn make(instance: Ipv4Addr) -> Result<TcpListener, host::Error> {
    ip("link set lo up")?;
    let service = std::thread::spawn(move || serve_beside(instance));
    service.join().unwrap_or_else(|_| {
        let source = std::io::Error::other("its thread ended abnormally");
        Err(host::Error::Io { what: "make the metadata service's network".into(), source })
    })
}

/// In a thread of its own: a second namespace, a link to the first, and the listener at its end. The listener keeps
/// the namespace alive.
fn serve_beside(instance: Ipv4Addr) -> Result<TcpListener, host::Error> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| host::Error::Io { what, source }
    };
    let address = imds::ADDRESS.ip();
    let pid = std::process::id();
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(std::io::Error::from)
        .map_err(failed("make the metadata service's network namespace"))?;
    // The main thread's namespace is the process's.
    ip(&format!("link add name eth0 type veth peer name eth0 address {MAC} netns {pid}"))?;
    ip(&format!("address add {address}/32 dev eth0"))?;
    ip("link set eth0 up")?;
    // Whoever is behind the instance is reached through it.
    ip(&format!("route add {instance}/32 dev eth0"))?;
    ip(&format!("route add default via {instance} dev eth0 onlink"))?;
    let inside = |arguments: &str| {
        let words = arguments.split(' ');
        run(Command::new("nsenter").args(["--net", "--target", &pid.to_string(), "ip"]).args(words)).map(drop)
    };
    inside(&format!("address add {instance}/32 dev eth0"))?;
    inside("link set eth0 up")?;
    inside(&format!("route add {address}/32 dev eth0 src {instance}"))?;
    TcpListener::bind(SocketAddr::new(address, imds::ADDRESS.port()))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(failed("listen at 169.254.169.254"))
}

fn ip(arguments: &str) -> Result<(), host::Error> {
    run(Command::new("ip").args(arguments.split(' '))).map(drop)
}
