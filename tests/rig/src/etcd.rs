//! Debian's etcd: a server of the test's own, plain or with TLS and users, and wires to it that can be cut.
//!
//! In: what a server should be like. Out: URLs, and what is stored there. Must never: outlive the test, or listen
//! anywhere but on this machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

use crate::MEMORY;
use crate::program::await_within;

/// The user that a secured server knows, beside root.
pub const USER: &str = "stillpoint";
/// Its password.
pub const PASSWORD: &str = "a secret of this test";

/// A running etcd of one member, which dies with the test.
pub struct Etcd {
    dir: TempDir,
    port: u16,
    peer: u16,
    secured: bool,
    users: bool,
    child: Child,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// Without TLS and users.
    pub fn plain() -> Self {
        let dir = tempfile::Builder::new().prefix("stillpoint-etcd-").tempdir_in(MEMORY).unwrap();
        Self::new(dir, false)
    }

    /// With TLS, which asks for a client's certificate, and with a user who may use the keys of this group alone.
    pub fn secured(group: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("stillpoint-etcd-").tempdir_in(MEMORY).unwrap();
        certificates(dir.path());
        let mut etcd = Self::new(dir, true);
        let keys = format!("/stillpoint/{group}/");
        for words in [
            &["user", "add", "root:root"][..],
            &["role", "add", "group"],
            &["role", "grant-permission", "group", "readwrite", "--prefix=true", &keys],
            &["user", "add", &format!("{USER}:{PASSWORD}")],
            &["user", "grant-role", USER, "group"],
            &["auth", "enable"],
        ] {
            etcd.ctl(words);
        }
        etcd.users = true;
        let file = etcd.file("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        crate::sh("chmod", &["600", file.to_str().unwrap()]);
        etcd
    }

    fn new(dir: TempDir, secured: bool) -> Self {
        let (port, peer) = (free_port(), free_port());
        let child = start(dir.path(), port, peer, secured);
        let etcd = Self { dir, port, peer, secured, users: false, child };
        etcd.await_ready();
        etcd
    }

    /// It answers.
    pub fn await_ready(&self) {
        await_within("etcd answers", crate::patience::SERVER, || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            self.try_ctl(&["endpoint", "health"]).ok().map(drop)
        });
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same at the end of a wire.
    pub fn url_at(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.secured { "https" } else { "http" })
    }

    /// A wire to it.
    pub fn wire(&self) -> Wire {
        Wire::to(self.port)
    }

    /// `ca.pem`, `client.pem`, `client.key`, `password`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a member's section says of it, with this URL.
    pub fn section(&self, url: &str) -> String {
        let mut text = format!("endpoints = [\"{url}\"]\n");
        if self.secured {
            for (key, name) in [("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")] {
                text += &format!("{key} = \"{}\"\n", self.file(name).display());
            }
            text += &format!("user = \"{USER}\"\npassword_file = \"{}\"\n", self.file("password").display());
        }
        text
    }

    /// Runs etcdctl as root; it must succeed.
    pub fn ctl(&self, words: &[&str]) -> String {
        self.try_ctl(words).unwrap_or_else(|said| panic!("etcdctl {words:?}: {said}"))
    }

    fn try_ctl(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.url())
            .args(["--command-timeout=20s", "--dial-timeout=20s"]);
        if self.secured {
            for (flag, name) in [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")] {
                command.arg(flag).arg(self.file(name));
            }
        }
        if self.users {
            command.args(["--user", "root:root"]);
        }
        let said =
            command.args(words).output().expect("etcdctl (package etcd-client) is needed by this test");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
    }

    /// The entries of a group, by member.
    pub fn entries(&self, group: &str) -> Vec<Value> {
        let all = self.ctl(&["get", "--prefix", "--print-value-only", &format!("/stillpoint/{group}/")]);
        all.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The phase that this member's entry says; none where there is no entry.
    pub fn phase(&self, group: &str, member: &str) -> Option<String> {
        let entry = self.entries(group).into_iter().find(|entry| entry["member"] == member)?;
        Some(entry["phase"].as_str().unwrap().to_owned())
    }

    /// How many leases there are: none that a run has left stays.
    pub fn leases(&self) -> usize {
        self.ctl(&["lease", "list"]).lines().filter(|line| !line.starts_with("found ")).count()
    }

    /// Stops it where it stands, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it had stored.
    pub fn restart(&mut self) {
        self.kill();
        self.child = start(self.dir.path(), self.port, self.peer, self.secured);
        self.await_ready();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(dir: &Path, port: u16, peer: u16, secured: bool) -> Child {
    let scheme = if secured { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let log = File::create(dir.join("etcd.log")).unwrap();
    // setpriv: whatever becomes of this test, no server is left.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "etcd", "--name", "one", "--data-dir"]).arg(dir.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}"), "--logger", "zap"]);
    if secured {
        command.arg("--client-cert-auth");
        for (flag, name) in
            [("--cert-file", "server.pem"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.pem")]
        {
            command.arg(flag).arg(dir.join(name));
        }
    }
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
    child.expect("setpriv (package util-linux) is needed by this test")
}

/// An authority, and what it has signed for the server and for a client.
fn certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let sign = |name: &str, usages: Vec<ExtendedKeyUsagePurpose>| {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = usages;
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
            .unwrap();
        let file = dir.join(format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).unwrap();
        crate::sh("chmod", &["600", file.to_str().unwrap()]);
    };
    // etcd's gateway is a client of etcd's own, with the server's certificate.
    sign("server", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    sign("client", vec![ExtendedKeyUsagePurpose::ClientAuth]);
}

/// A connection between a member and etcd that can be cut: what is sent then is kept, and nobody is told.
pub struct Wire {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// New connections are closed at once.
    refuses: bool,
    open: Vec<TcpStream>,
}

impl Wire {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = Arc::clone(&wire.state);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if lock(&state).refuses {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                lock(&state).open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                pump(&state, near.try_clone().unwrap(), far.try_clone().unwrap());
                pump(&state, far, near);
            }
        });
        wire
    }

    /// The near end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, either way.
    pub fn cut(&self) {
        lock(&self.state).cut = true;
    }

    /// It passes again, and so does what was kept.
    pub fn mend(&self) {
        let mut state = lock(&self.state);
        state.cut = false;
        state.refuses = false;
        self.state.1.notify_all();
    }

    /// Every connection is closed, and no new one is taken.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.refuses = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock(state: &(Mutex<State>, Condvar)) -> std::sync::MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pump(state: &Arc<(Mutex<State>, Condvar)>, mut from: TcpStream, mut to: TcpStream) {
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            let mut held = lock(&state);
            while held.cut {
                held = state.1.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
            drop(held);
            if to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
