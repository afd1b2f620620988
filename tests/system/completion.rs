//! Completion in real shells: a person types, presses TAB and Enter, and the shell runs what is on the line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::patience::RUN;
use rig::program::{await_some, wait};
use rig::{Fs, Rig, sh, stillpoint};

const SET: &str = "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11";
/// A name that would be three commands, if a shell took it for words.
const HOSTILE: &str = "my $(touch pwned) `touch pwned`;touch pwned& 'x\"";
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// A folder with a configuration, a record, and the scripts as the program prints them.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("made.toml"), "[plan.orders]\n[plan.other]\n").unwrap();
        fs::create_dir_all(path.join("state/sets")).unwrap();
        let record = format!(
            r#"{{"run_id": "{SET}", "achieved": "filesystem", "times": {{"started": "2027-01-31T03:00:00Z"}},
                "snapshots": [{{"id": "snap-0123456789abcdef0", "volume_id": "vol-0123456789abcdef0"}}],
                "plan": {{"name": "orders"}}}}"#
        );
        fs::write(path.join(format!("state/sets/{SET}.json")), record).unwrap();
        for shell in SHELLS {
            let script = sh(stillpoint(), &["completions", shell]);
            let name = if shell == "zsh" { "_stillpoint".to_owned() } else { format!("stillpoint.{shell}") };
            fs::write(path.join(name), script).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What comes before each word that is completed.
    fn line(&self, words: &str) -> String {
        let folder = self.folder.path().display();
        format!("stillpoint --config {folder}/made.toml --state-dir {folder}/state {words}")
    }

    /// The shell, with a function in the place of the program that writes down its arguments. The completion asks the
    /// program itself.
    fn shell(&self, name: &str) -> Command {
        let folder = self.folder.path().display();
        let heard = format!("printf '%s\\n' \"$@\" >{folder}/new && mv {folder}/new {folder}/heard");
        // The terminal becomes the one of its session.
        let mut command = Command::new("setsid");
        command.args(["--ctty", name]);
        match name {
            "bash" => {
                let rc =
                    format!("PS1='ready> '; source {folder}/stillpoint.bash\nstillpoint() {{ {heard}; }}\n");
                fs::write(self.path("rc"), rc).unwrap();
                command.args(["--noprofile", "--rcfile"]).arg(self.path("rc")).arg("-i");
            }
            "zsh" => {
                let rc = format!(
                    "PS1='ready> '; fpath=({folder} $fpath)\nautoload -Uz compinit && compinit -u -d {folder}/dump\n\
                     stillpoint() {{ {heard} }}\n"
                );
                fs::write(self.path(".zshrc"), rc).unwrap();
                command.args(["-d", "-i"]).env("ZDOTDIR", self.folder.path());
            }
            _ => {
                let rc = format!(
                    "function fish_prompt; echo 'ready> '; end\nsource {folder}/stillpoint.fish\n\
                     function stillpoint; printf '%s\\n' $argv >{folder}/new && mv {folder}/new {folder}/heard; end\n"
                );
                fs::write(self.path("rc.fish"), rc).unwrap();
                command.args(["--no-config", "-i", "-C"]).arg(format!("source {folder}/rc.fish"));
            }
        }
        let programs = Path::new(stillpoint()).parent().unwrap().display();
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("TERM", "xterm")
            .env("LANG", "C.UTF-8")
            .env("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
        command
    }
}

/// A shell at a terminal.
struct Terminal {
    child: Child,
    keys: fs::File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let end = fs::File::from(pty.slave);
        command.stdin(end.try_clone().unwrap()).stdout(end.try_clone().unwrap()).stderr(end);
        let child = command.spawn().unwrap();
        // The command has the terminal open as well, which would then never end.
        drop(command);
        let keys = fs::File::from(pty.master);
        let (mut screen, seen) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let into = Arc::clone(&seen);
        // A terminal that nobody reads stops the shell. It ends with the shell.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n) = screen.read(&mut piece) {
                if n == 0 {
                    break;
                }
                into.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Self { child, keys, seen }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn await_prompt(&self) {
        await_some("the prompt", || self.screen().contains("ready> ").then_some(()));
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = wait(&mut self.child, RUN);
    }
}

/// The shells that are here; what is not is said.
fn shells() -> impl Iterator<Item = &'static str> {
    SHELLS.into_iter().filter(|shell| {
        let is_here = Command::new(shell).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_here {
            println!("skipped: there is no {shell} here");
        }
        is_here
    })
}

/// The arguments that the shell has run the program with, after these keys and Enter.
fn completed(host: &Host, shell: &str, keys: &str) -> Vec<String> {
    let _ = fs::remove_file(host.path("heard"));
    let mut terminal = Terminal::start(host.shell(shell));
    terminal.await_prompt();
    terminal.types(&format!("{keys}\t\r"));
    let heard = await_some(&format!("{shell}: {keys}"), || fs::read_to_string(host.path("heard")).ok());
    heard.lines().map(str::to_owned).collect()
}

#[test]
fn plans_sets_and_files_are_completed_in_real_shells() {
    let host = Host::new();
    let toml = host.path("made.toml").display().to_string();
    for shell in shells() {
        let last = |keys: &str| completed(&host, shell, keys).pop().unwrap();
        assert_eq!(last(&host.line("snapshot ord")), "orders", "{shell}");
        assert_eq!(last(&host.line("show 0197")), SET, "{shell}");
        assert_eq!(last(&host.line("restore --mount /x snap-")), "snap-0123456789abcdef0", "{shell}");
        assert_eq!(last("stillpoint snapshot --exclude-boot"), "--exclude-boot-volume", "{shell}");
        assert_eq!(last("stillpoint snapshot --consistency=app"), "--consistency=application", "{shell}");
        let begun = toml.strip_suffix("de.toml").unwrap();
        assert_eq!(last(&format!("stillpoint plan --config {begun}")), toml, "{shell}");
        assert_eq!(last(&format!("stillpoint plan --config={begun}")), format!("--config={toml}"), "{shell}");
    }
}

/// The name of a mount point is whatever somebody has called a folder.
#[test]
fn a_hostile_mount_point_is_one_word_for_every_shell() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let host = Host::new();
    let place = host.path(HOSTILE);
    fs::create_dir(&place).unwrap();
    sh("mount", &["--bind", rig.mount("a").to_str().unwrap(), place.to_str().unwrap()]);
    let begun = host.path("my").display().to_string();
    for shell in shells() {
        for (keys, prefix) in
            [(format!("plan --mount {begun}"), ""), (format!("plan --mount={begun}"), "--mount=")]
        {
            let heard = completed(&host, shell, &host.line(&keys));
            let expected = format!("{prefix}{}", place.display());
            assert_eq!(heard.last().unwrap(), &expected, "{shell}");
        }
        assert!(!host.path("pwned").exists(), "{shell} has run a part of the name");
    }
    sh("umount", &[place.to_str().unwrap()]);
}

fn asked(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["__complete", "zsh", "--", "stillpoint"]).args(words).stdin(Stdio::null());
    command
}

/// A configuration that cannot be read to its end: whoever has pressed TAB gets the prompt back.
#[test]
fn a_file_that_does_not_answer_keeps_nobody_waiting() {
    let host = Host::new();
    let pipe = host.path("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = asked(stillpoint().as_ref(), &["--config", pipe.to_str().unwrap(), "snapshot", ""]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Without the limit it would wait for as long as nobody writes into the pipe.
    wait(&mut child, RUN).expect("it still waits");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b""[..]));
    let left = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let ours = |e: fs::DirEntry| {
            let line = fs::read(e.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(pipe.to_str().unwrap()).then_some(())
        };
        all.filter_map(ours).next()
    };
    await_some("the end of the one that reads", || left().is_none().then_some(()));
}

/// No root, no network, no file that is written, nothing on standard error; what may not be read is not offered.
#[test]
fn an_ordinary_user_is_offered_what_he_may_read_and_nobody_is_asked() {
    const CALLS: &str =
        "trace=network,openat,open,creat,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2";
    let host = Host::new();
    // Whatever folder the program was built in, everybody may run this copy.
    let program = host.path("program");
    fs::copy(stillpoint(), &program).unwrap();
    sh("chmod", &["0755", host.folder.path().to_str().unwrap(), program.to_str().unwrap()]);
    sh("chmod", &["0700", host.path("state").to_str().unwrap()]);
    let (toml, state) = (host.path("made.toml"), host.path("state"));
    let given = ["--config", toml.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let of_nobody = |before: &[&str], words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).args(before);
        let asked = asked(&program, &[&given, words].concat());
        let output = command.arg(asked.get_program()).args(asked.get_args()).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let plans = "words\ndefault\tplan\norders\tplan\nother\tplan\n";
    for (words, expected, read) in
        [(["snapshot", ""], plans, "made.toml"), (["show", "0"], "words\n", "state/sets")]
    {
        assert_eq!(of_nobody(&[], &words), (expected.to_owned(), String::new()));
        let (out, calls) = of_nobody(&["strace", "-f", "-e", CALLS], &words);
        assert_eq!(out, expected);
        assert!(calls.contains(read), "strace has seen nothing: {calls}");
        for call in calls.lines().filter(|line| !line.contains("/dev/null")) {
            for told in [
                "socket(", "connect(", "O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "unlink", "rename", "creat(",
            ] {
                assert!(!call.contains(told), "{call}");
            }
        }
    }
    let by_root = asked(&program, &[&given[..], &["show", "0"]].concat()).output().unwrap();
    assert!(String::from_utf8_lossy(&by_root.stdout).contains(SET));
}
