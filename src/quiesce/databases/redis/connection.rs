//! The connection to a server: where it is, who asks, and what its refusals mean.
//!
//! In: the section's settings, a password file or a systemd credential. Out: answers, or a [`Refusal`] with
//! what to do. Must never: say the password, or wait for anything itself (every wait is bounded by the
//! caller).

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisError,
};

use super::Refusal;
use super::info::Info;
use super::local::{CREDENTIALS, PORT};
use crate::config::settings::Redis;

const HOST: &str = "127.0.0.1";
/// What the longest password may be, in bytes.
const LONGEST: u64 = 64 * 1024;

/// A connection.
pub(super) struct Connection {
    /// Where it leads, for messages.
    pub at: String,
    /// The ACL user, for messages.
    user: String,
    client: Client,
    inner: MultiplexedConnection,
}

/// Why there is no connection.
pub(super) enum ConnectError {
    /// Nobody listens there.
    NotRunning(Refusal),
    /// Anything else.
    Refused(Refusal),
}

impl From<ConnectError> for Refusal {
    fn from(no: ConnectError) -> Self {
        let (ConnectError::NotRunning(refusal) | ConnectError::Refused(refusal)) = no;
        refusal
    }
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(settings: &Redis) -> Result<Self, ConnectError> {
        let (address, at) = address(settings);
        let user = settings.user.clone().unwrap_or_else(|| "default".to_owned());
        let mut login =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        if let Some(user) = &settings.user {
            login = login.set_username(user);
        }
        if let Some(password) = password(settings).map_err(ConnectError::Refused)? {
            login = login.set_password(password);
        }
        let info = address.into_connection_info().map(|i| i.set_redis_settings(login));
        let client = info.and_then(Client::open);
        let client =
            client.map_err(|e| ConnectError::Refused(Refusal::new(format!("cannot reach {at}: {e}"))))?;
        let inner = connect(&client).await.map_err(|e| {
            let refused = refused(&e, &at, &user, "AUTH");
            if e.is_connection_refusal() {
                ConnectError::NotRunning(refused)
            } else {
                ConnectError::Refused(refused)
            }
        })?;
        Ok(Self { at, user, client, inner })
    }

    /// One command. A connection that was lost is made again: what this tool does hangs on no connection, and
    /// servers close idle ones.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, Refusal> {
        self.raw(words).await.map_err(|e| refused(&e, &self.at, &self.user, &name(words)))
    }

    /// The same with the library's error.
    pub(super) async fn raw<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut command = ::redis::Cmd::new();
        words.iter().for_each(|w| {
            command.arg(*w);
        });
        match command.query_async(&mut self.inner).await {
            Err(e) if e.is_io_error() => {
                self.inner = connect(&self.client).await?;
                command.query_async(&mut self.inner).await
            }
            answered => answered,
        }
    }

    /// INFO.
    pub(super) async fn info(&mut self) -> Result<Info, Refusal> {
        self.ask::<String>(&["INFO"]).await.map(|text| Info::parse(&text))
    }

    /// One value of the server's configuration.
    pub(super) async fn config(&mut self, name: &str) -> Result<String, Refusal> {
        let pair: Vec<String> = self.ask(&["CONFIG", "GET", name]).await?;
        let missing = || Refusal::new(format!("{} has no setting `{name}`", self.at));
        pair.into_iter().nth(1).ok_or_else(missing)
    }

    /// What an error of this command means.
    pub(super) fn explain(&self, error: &RedisError, words: &[&str]) -> Refusal {
        refused(error, &self.at, &self.user, &name(words))
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    // The library's own limit on an answer is half a second; a fork for BGSAVE alone can take longer.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(Some(Duration::from_secs(10)));
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn address(settings: &Redis) -> (ConnectionAddr, String) {
    if let Some(socket) = &settings.socket {
        return (ConnectionAddr::Unix(socket.clone()), socket.display().to_string());
    }
    let host = settings.host.clone().unwrap_or_else(|| HOST.to_owned());
    let port = settings.port.unwrap_or(PORT);
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    (ConnectionAddr::Tcp(host, port), at)
}

/// The command's name without its values: CONFIG GET, CLIENT PAUSE.
fn name(words: &[&str]) -> String {
    let container = matches!(words.first(), Some(&("CONFIG" | "CLIENT")));
    words.iter().take(if container { 2 } else { 1 }).copied().collect::<Vec<_>>().join(" ")
}

/// What the server, or the network, said.
fn refused(error: &RedisError, at: &str, user: &str, command: &str) -> Refusal {
    let detail = error.detail().unwrap_or_default();
    match error.code().unwrap_or_default() {
        "NOPERM" => Refusal::new(format!("{at} does not let the user `{user}` run {command}"))
            .hint(format!("in redis-cli: ACL SETUSER {user} {RIGHTS}")),
        "NOAUTH" => Refusal::new(format!("{at} asks for a password"))
            .hint("give the section a `password_file` or a `credential`, and a `user` where ACLs are used"),
        "WRONGPASS" => wrong_password(at, user),
        "LOADING" => Refusal::new(format!("{at} is still loading its data")).hint("run again when it has started"),
        "BUSY" => Refusal::new(format!("{at} runs a script that does not end"))
            .hint("see what runs (redis-cli SLOWLOG GET); SCRIPT KILL ends it if it has written nothing"),
        "ERR" if detail.contains("unknown command") => {
            Refusal::new(format!("{at} does not know the command {command}: was it renamed or disabled?"))
                .hint("stillpoint needs CLIENT, CONFIG GET, INFO and BGSAVE by their names: take the `rename-command` out and use an ACL user")
        }
        _ if error.kind() == ErrorKind::AuthenticationFailed => wrong_password(at, user),
        _ if error.is_io_error() => {
            Refusal::new(format!("cannot reach {at} for {command}: {error}")).hint("is it running, and is this its `socket`, or its `host` and `port`?")
        }
        code => Refusal::new(format!("{at} refused {command}: {code} {detail}")),
    }
}

fn wrong_password(at: &str, user: &str) -> Refusal {
    Refusal::new(format!("{at} refused the password of the user `{user}`"))
        .hint("see `user` and `password_file` (or `credential`) of the section")
}

/// What the user needs: no access to any key.
pub(super) const RIGHTS: &str =
    "resetkeys +ping +info +time +config|get +client|pause +client|unpause +bgsave";

/// The password, where one is configured.
fn password(settings: &Redis) -> Result<Option<String>, Refusal> {
    let path = match (&settings.password_file, &settings.credential) {
        (Some(path), _) => path.clone(),
        (None, Some(name)) => credential(name)?,
        (None, None) => return Ok(None),
    };
    let shown = path.display();
    let unreadable = |e: std::io::Error| Refusal::new(format!("cannot read the password file {shown}: {e}"));
    let file = File::open(&path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Refusal::new(format!("the password file {shown} is no file")));
    }
    if meta.permissions().mode() & 0o066 != 0 {
        return Err(Refusal::new(format!(
            "others than its owner can read or change the password file {shown}"
        ))
        .hint(format!("chmod 600 {shown}")));
    }
    let mut line = String::new();
    BufReader::new(file.take(LONGEST)).read_line(&mut line).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Refusal::new(format!("the password file {shown} is no text")),
        _ => unreadable(e),
    })?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Refusal::new(format!("the first line of the password file {shown} is empty")));
    }
    Ok(Some(password.to_owned()))
}

fn credential(name: &str) -> Result<PathBuf, Refusal> {
    let Some(folder) = std::env::var_os(CREDENTIALS) else {
        return Err(Refusal::new(format!(
            "there is no systemd credential `{name}`: this is no service with credentials"
        ))
        .hint(format!("LoadCredential={name}:/PATH in stillpoint's unit; by hand, use `password_file`")));
    };
    Ok(Path::new(&folder).join(name))
}
