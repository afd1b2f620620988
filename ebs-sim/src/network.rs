//! The instance's network: a namespace with its private address, and the metadata service one link away.
//!
//! ```text
//!  instance's namespace                       the service's namespace
//!  lo 127.0.0.1 (EC2)   eth0 10.0.0.10 ─ veth ─ eth0 169.254.169.254:80
//! ```
//!
//! In: the instance's address. Out: this thread in the instance's namespace, and the service's listener. The
//! service must never be in the instance's own namespace: the hop limit of its tokens counts from outside.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::host::{self, run};
use crate::imds;
use crate::world::MAC;

/// Sets up the network of this thread's namespace, which is new. It must be the process's only thread.
/// Without a listener the service is to listen here, at the address that was put on `lo`.
pub fn make(instance: Ipv4Addr) -> Result<Option<TcpListener>, host::Error> {
    let address = imds::ADDRESS.ip();
    ip("link set lo up")?;
    let service = std::thread::spawn(move || serve_beside(instance));
    let listener = service.join().unwrap_or_else(|_| {
        let source = std::io::Error::other("its thread ended abnormally");
        Err(host::Error::Io { what: "make the metadata service's network".into(), source })
    })?;
    if listener.is_some() {
        ip(&format!("address add {instance}/32 dev eth0"))?;
        ip("link set eth0 up")?;
        ip(&format!("route add {address}/32 dev eth0 src {instance}"))?;
    } else {
        ip(&format!("address add {address}/32 dev lo"))?;
    }
    Ok(listener)
}

/// In a thread of its own: a second namespace, a link to the first, and the listener at its end. The listener
/// keeps the namespace alive.
fn serve_beside(instance: Ipv4Addr) -> Result<Option<TcpListener>, host::Error> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| host::Error::Io { what, source }
    };
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(std::io::Error::from)
        .map_err(failed("make the metadata service's network namespace"))?;
    // The main thread's namespace is the process's.
    let instance_namespace = std::process::id();
    let link =
        format!("link add name eth0 type veth peer name eth0 address {MAC} netns {instance_namespace}");
    if let Err(error) = ip(&link) {
        tracing::warn!("the metadata service is not a link away, so hop limits do not count: {error}");
        return Ok(None);
    }
    ip(&format!("address add {}/32 dev eth0", imds::ADDRESS.ip()))?;
    ip("link set eth0 up")?;
    ip(&format!("route add {instance}/32 dev eth0"))?;
    // Whoever is behind the instance is reached through it.
    ip(&format!("route add default via {instance} dev eth0 onlink"))?;
    TcpListener::bind(imds::ADDRESS)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| Some(listener)))
        .map_err(failed("listen at 169.254.169.254"))
}

fn ip(arguments: &str) -> Result<(), host::Error> {
    run(Command::new("ip").args(arguments.split(' '))).map(drop)
}
