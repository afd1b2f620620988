//! For tests: what libpq reads from its files, told by psql to a server that only asks for the password.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

/// What psql said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The port that it was asked on.
    pub port: u16,
    pub user: Option<String>,
    pub database: Option<String>,
    /// None where it has found none.
    pub password: Option<String>,
    /// It came.
    pub connected: bool,
}

/// Has psql connect to a port of this process by `to`, a connection string. None where there is no psql, which
/// is said.
pub(super) fn asked(vars: &[(&str, &str)], to: impl Fn(u16) -> String) -> Option<Said> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = format!("{} sslmode=disable gssencmode=disable", to(port));
    let psql = Command::new("psql")
        .args(["-w", "-Atc", "select 1", &to])
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent")])
        .envs(vars.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut psql = match psql {
        Ok(psql) => psql,
        Err(e) => {
            eprintln!("\n*** NOT TESTED against psql: {e} ***\n");
            return None;
        }
    };
    // psql ends in any case; then a connection of this process's own ends the wait for one of its.
    let ended = std::thread::spawn(move || {
        let _ = psql.wait();
        let _ = TcpStream::connect(("127.0.0.1", port));
    });
    let (client, _) = listener.accept().unwrap();
    let said = Said { port, ..talk(client).unwrap_or_default() };
    drop(listener);
    ended.join().unwrap();
    Some(said)
}

/// The beginning of the protocol (PostgreSQL documentation, "Message formats"): start-up, a request for a
/// password in clear text, the password.
fn talk(mut client: TcpStream) -> Option<Said> {
    let body = message(&mut client)?;
    let mut words = body.get(4..)?.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    let mut said = Said { connected: true, ..Said::default() };
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        match key.as_str() {
            "user" => said.user = Some(value),
            "database" => said.database = Some(value),
            _ => {}
        }
    }
    client.write_all(b"R\0\0\0\x08\0\0\0\x03").ok()?;
    let mut kind = [0];
    if client.read_exact(&mut kind).is_ok() {
        let password = message(&mut client)?;
        said.password = Some(String::from_utf8_lossy(password.strip_suffix(b"\0")?).into_owned());
    }
    Some(said)
}

fn message(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    client.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?.checked_sub(4)?];
    client.read_exact(&mut body).ok()?;
    Some(body)
}
