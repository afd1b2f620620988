//! Where the sockets of a process listen.
//!
//! In: `/proc/PID/net` of that process, whose network may not be the host's, and the inodes of its sockets.
//! Out: paths and addresses. Must never: connect, or take a socket of another process for one of these.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The inode of a socket, by the link of a descriptor (`socket:[77]`).
pub(crate) fn inode(link: &Path) -> Option<&str> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')
}

/// Where the sockets with these inodes listen that this process has.
pub(crate) fn listening(root: &Path, pid: i32, inodes: &[String]) -> (Vec<PathBuf>, Vec<SocketAddr>) {
    let net = root.join(format!("proc/{pid}/net"));
    let table = |name: &str| fs::read_to_string(net.join(name)).unwrap_or_default();
    let ours = |inode: Option<&&str>| inode.is_some_and(|i| inodes.iter().any(|o| o == i));
    let mut paths = Vec::new();
    for line in table("unix").lines().skip(1) {
        // Num RefCount Protocol Flags Type St Inode Path; the flag 10000 is a socket that listens
        // (net/unix/af_unix.c).
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3).is_some_and(|f| *f == "00010000");
        let path = fields.get(7).filter(|p| p.starts_with('/'));
        paths.extend(path.filter(|_| listens && ours(fields.get(6))).map(PathBuf::from));
    }
    let mut addresses = Vec::new();
    for line in
        ["tcp", "tcp6"].iter().flat_map(|name| table(name).lines().map(str::to_owned).collect::<Vec<_>>())
    {
        // sl local_address rem_address st … inode; the state 0A is one that listens
        // (include/net/tcp_states.h).
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(3) == Some(&"0A") && ours(fields.get(9)) {
            addresses.extend(fields.get(1).and_then(|a| address(a)));
        }
    }
    paths.sort();
    paths.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    (paths, addresses)
}

/// `0100007F:1538`: words of the address as this machine stores them, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len() / 8)
        .map(|i| Some(u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let ip = match words?.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip([a, b, c, d].into_iter().flatten()).for_each(|(to, from)| *to = *from);
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_in_the_order_of_this_machine() {
        let v4 = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(address(&format!("{v4:08X}:1538")), Some("127.0.0.1:5432".parse().unwrap()));
        let last = u32::from_ne_bytes([0, 0, 0, 1]);
        let v6 = format!("{:024}{last:08X}:1538", 0);
        assert_eq!(address(&v6), Some("[::1]:5432".parse().unwrap()));
        assert_eq!(address("0100:1538"), None);
    }
}
