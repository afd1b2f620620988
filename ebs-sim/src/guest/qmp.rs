//! QEMU's machine protocol: a line of JSON each way, and events in between, which are passed over.
//!
//! In: commands. Out: what QEMU returns. Must never wait for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::Error;

/// How long an answer may take: a machine that is busy takes its time, one that hangs is noticed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Qmp {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    /// QEMU's process.
    pub pid: i32,
}

impl Qmp {
    /// # Errors
    /// When nobody listens there, or it is not QEMU.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let gone = |error| Error::Gone(socket.to_owned(), error);
        let stream = UnixStream::connect(socket).await.map_err(gone)?;
        let listener = stream.peer_cred().map_err(gone)?.pid();
        let pid = listener.ok_or_else(|| gone(std::io::Error::other("the socket has no process")))?;
        let mut qmp = Self { socket: socket.to_owned(), stream: BufReader::new(stream), pid };
        let greeting = qmp.patiently(Self::line).await?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.gone(std::io::Error::other("what listens there is not QEMU")));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Has one command executed.
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let request = json!({ "execute": command, "arguments": arguments });
        let answer = self.patiently(async |qmp| qmp.ask(&request).await).await?;
        match answer.get("error") {
            None => Ok(answer["return"].clone()),
            Some(error) => Err(Error::Refused {
                command: command.to_owned(),
                why: error["desc"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    async fn ask(&mut self, request: &Value) -> std::io::Result<Value> {
        self.stream.write_all(format!("{request}\n").as_bytes()).await?;
        loop {
            let answer = self.line().await?;
            if answer.get("event").is_none() {
                return Ok(answer);
            }
        }
    }

    async fn line(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    async fn patiently(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> std::io::Result<Value>,
    ) -> Result<Value, Error> {
        let done = tokio::time::timeout(PATIENCE, work(self)).await;
        done.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|error| self.gone(error))
    }

    fn gone(&self, error: std::io::Error) -> Error {
        Error::Gone(self.socket.clone(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A QEMU that answers each line with the next of these, and an event before each.
    async fn scripted(answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            for answer in answers {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let text = format!("{{\"event\": \"STOP\"}}\n{answer}\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        (folder, path)
    }

    #[tokio::test]
    async fn an_answer_is_told_from_an_event_and_an_error_and_an_end() {
        let answers = &[
            "{\"return\": {}}",
            "{\"return\": {\"running\": true}}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}",
        ];
        let (_folder, path) = scripted(answers).await;
        let mut qmp = Qmp::connect(&path).await.unwrap();
        assert_eq!(qmp.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(qmp.execute("query-status", json!({})).await.unwrap()["running"], json!(true));
        let refused = qmp.execute("device_del", json!({})).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused device_del: no such device");
        let gone = qmp.execute("cont", json!({})).await.unwrap_err();
        assert!(matches!(gone, Error::Gone(..)), "{gone}");
    }
}
