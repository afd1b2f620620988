//! A mount namespace in which nobody but the test has mounted the rig's volumes.
//!
//! Every command in ebs-sim's view gets a copy of the host's mounts, so a filesystem that the host has
//! mounted could never be unmounted there for good. Here the volumes are mounted in one namespace only, and
//! every command of the test runs in it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::program::{Ended, HOST_PROGRAMS, Run, await_some, put_executable, wait};
use crate::window::{InWindow, in_the_window_of};
use crate::{Fs, Rig};

/// Shell function: `keep FILE COMMAND…` runs a command in a mount namespace of its own, which FILE keeps from
/// then on. The kernel binds only what has a higher number than the namespace that it is bound in (EINVAL,
/// fs/namespace.c, mnt_ns_loop), and since 6.18 each CPU gives out numbers of its own. On the CPU where the
/// older one was made they grow.
pub const KEEP: &str = r#"keep() {
    for cpu in $(seq 0 "$(($(nproc --all) - 1))"); do
        taskset -c "$cpu" unshare --mount="$@" && return
    done
    return 1
}"#;

/// A rig whose volumes are mounted in a namespace of their own.
pub struct Namespace {
    holder: Child,
    pub rig: Rig,
}

impl Namespace {
    /// Volumes by name, formatted and mounted at `TEMP/NAME`.
    pub fn start(volumes: &[(&str, Fs)]) -> Self {
        let space = Self::empty(volumes);
        for (name, _) in volumes {
            space.mount(name, "defaults");
        }
        space
    }

    /// Nothing mounted.
    pub fn empty(volumes: &[(&str, Fs)]) -> Self {
        Self::with(volumes, "")
    }

    /// Nothing mounted, and this scenario for ebs-sim.
    pub fn with(volumes: &[(&str, Fs)], scenario: &str) -> Self {
        let rig = Rig::formatted(volumes, scenario);
        let mut holder = rig
            .view("sh", &["-c", "echo ready; exec cat >/dev/null"])
            .stdin(Stdio::piped()) // ends with the test, however that ends
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let space = Self { holder, rig };
        // Copies of what other tests have mounted would keep their devices busy.
        space.sh(
            "awk '$5 ~ /stillpoint-test-/ {print $5}' /proc/self/mountinfo | tac | xargs -r -n 1 umount -l",
        );
        space
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.rig.path(name)
    }

    /// `TEMP/NAME` as text, for scripts.
    pub fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn mount(&self, name: &str, options: &str) {
        self.sh(&format!("mount -o {options} {} {}", self.rig.device(name), self.at(name)));
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).args(["--", "sh", "-euc", script]);
        command
    }

    /// A script in the namespace; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        let output = self.shell(script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A script in the namespace, and whether it succeeded.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        let output = self.shell(script).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A script that goes on in the namespace and has said `ready`.
    pub fn background(&self, script: &str) -> Background {
        let mut child = self.shell(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{script}");
        Background(child)
    }

    /// An automount at `TEMP/NAME` that waits for the first access, and then mounts this.
    pub fn automount(&self, device: &str, name: &str) -> Background {
        let script = self.path("automount.pl");
        std::fs::write(&script, include_str!("automount.pl")).unwrap();
        self.background(&format!("exec perl {} {device} {}", script.display(), self.at(name)))
    }

    /// Replaces what /etc/fstab says.
    pub fn fstab(&self, text: &str) {
        std::fs::write(self.path("fstab"), text).unwrap();
        self.sh(&format!("mount --bind {} /etc/fstab", self.at("fstab")));
    }

    /// What mountinfo says of the rig's mounts, without what no program can restore: ids, and the numbers of
    /// peer groups (which are numbered here in order of appearance) and of devices.
    pub fn table(&self) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        let temp = self.at("");
        let text = self.sh("cat /proc/self/mountinfo");
        let mut table = Vec::new();
        let mut lines: Vec<&str> =
            text.lines().filter(|l| l.contains(&temp) && !l.contains("/sim/")).collect();
        // The kernel lists them in the order in which they were made.
        lines.sort_by_key(|l| l.split(' ').nth(4));
        for line in lines {
            let mut words: Vec<String> = line.split(' ').skip(3).map(str::to_owned).collect();
            for word in &mut words {
                let Some((kind @ ("shared" | "master"), id)) = word.split_once(':') else { continue };
                let at = groups.iter().position(|g| g == id).unwrap_or_else(|| {
                    groups.push(id.to_owned());
                    groups.len() - 1
                });
                *word = format!("{kind}:{at}");
            }
            table.push(words.join(" "));
        }
        table
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.rig.command_in(self.pid(), arguments)
    }

    pub fn spawn(&self, arguments: &[&str]) -> Run {
        Run::start(self.command(arguments))
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.spawn(arguments).end()
    }

    /// Takes a set, and waits until it is completed. Returns its id.
    pub fn take(&self) -> String {
        let taken = self.run(&["snapshot", "-o", "json"]);
        let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
        self.rig.await_quiet();
        set
    }

    /// Writes forty files on what these volumes are mounted at, and syncs each: a journal then has something to replay until
    /// it is frozen or unmounted.
    pub fn write(&self, volumes: &[&str], name: &str) {
        for of in volumes.iter().map(|volume| self.at(volume)) {
            self.sh(&format!(
                "for n in $(seq 40); do echo {name} >{of}/{name}-$n; sync {of}/{name}-$n; done"
            ));
        }
    }

    /// A run in which strace injects this into system calls, such as `umount2:error=EBUSY:when=2`.
    pub fn run_injected(&self, inject: &str, arguments: &[&str]) -> Ended {
        self.spawn_injected(inject, arguments).end()
    }

    fn spawn_injected(&self, inject: &str, arguments: &[&str]) -> Run {
        let plain = self.command(arguments);
        let words: Vec<_> = plain.get_args().map(std::ffi::OsStr::to_os_string).collect();
        let split = words.iter().position(|w| w == "--").unwrap() + 1;
        let mut command = Command::new(plain.get_program());
        command.args(&words[..split]).args(["strace", "-f", "-o", "/dev/null", "-e"]);
        command.arg(format!("inject={inject}")).args(&words[split..]);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Run::start(command)
    }

    /// A run that strace holds right before a thread's `nth` call of this name, until [`HeldCall::go_on`].
    pub fn held_before(&self, call: (&str, i64), nth: u32, arguments: &[&str]) -> HeldCall {
        let (call, number) = call;
        let run = self.spawn_injected(&format!("{call}:delay_enter=1000s:when={nth}"), arguments);
        let strace = run.pid().as_raw();
        let pid = await_some("the call", || {
            let threads = glob_threads();
            threads.into_iter().find_map(|(pid, thread)| {
                let read = |file: &str| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
                let traced = read("status").lines().any(|l| l == format!("TracerPid:\t{strace}"));
                (traced && read("syscall").starts_with(&format!("{number} "))).then_some(pid)
            })
        });
        HeldCall { run, pid }
    }

    /// A run that stands in its window.
    pub fn in_the_window(&self, arguments: &[&str]) -> InWindow<'_> {
        in_the_window_of(&self.rig, self.command(arguments))
    }

    /// A systemctl that keeps each unit's state in `units/NAME`, does what is in `stopping/NAME`, and notes
    /// what it is told in `log`. A mask is a file in `masks`, which does not count for a unit in `etc`, and cannot
    /// be made for one in `in-run`, as in systemd: a link in /run/systemd/system.control counts for all.
    pub fn with_systemctl(&self, units: &[(&str, &str)]) {
        for folder in ["bin", "units", "stopping", "bound", "triggers", "masks", "etc", "in-run"] {
            std::fs::create_dir_all(self.path(folder)).unwrap();
        }
        for (unit, state) in units {
            std::fs::write(self.path("units").join(unit), state).unwrap();
        }
        let script = format!(
            "#!/bin/sh\ncd {}\nverb=$1; for unit in \"$@\"; do :; done\n\
             masked() {{ [ -L /run/systemd/system.control/$1 ] || [ -e masks/$1 -a ! -e etc/$1 ]; }}\n\
             case $verb in\n\
             show) if [ -e units/$unit ]; then \
             if masked $unit; then echo LoadState=masked; else echo LoadState=loaded; fi; \
             echo ActiveState=$(cat units/$unit); else echo LoadState=not-found; echo ActiveState=inactive; fi; \
             echo BoundBy=$(cat bound/$unit 2>/dev/null); echo TriggeredBy=$(cat triggers/$unit 2>/dev/null);;\n\
             stop) shift; for unit in \"$@\"; do [ $unit != -- ] || continue; echo stop $unit >> log; \
             echo inactive > units/$unit; [ ! -e stopping/$unit ] || . ./stopping/$unit; done;;\n\
             mask|unmask) [ $2 = --runtime ] || exit 9; shift 2; for unit in \"$@\"; do [ $unit != -- ] || continue; \
             [ $verb = unmask -o ! -e in-run/$unit ] || {{ echo $unit exists >&2; exit 1; }}; \
             echo $verb $unit >> masking; rm -f masks/$unit; [ $verb = unmask ] || : > masks/$unit; \
             [ ! -e stopping/$verb-$unit ] || . ./stopping/$verb-$unit; done;;\n\
             daemon-reload) ;;\n\
             start) shift; for unit in \"$@\"; do [ $unit != -- ] || continue; \
             ! masked $unit || {{ echo $unit is masked >&2; exit 1; }}; echo start $unit >> log; \
             [ ! -e stopping/start-$unit ] || . ./stopping/start-$unit; echo active > units/$unit; done;;\n\
             *) exit 9;; esac\n",
            self.at("")
        );
        put_executable(&self.path("bin/systemctl"), script);
        self.sh(&format!(
            "mount -t tmpfs -o mode=755 stillpoint-test {HOST_PROGRAMS}; cp {} {HOST_PROGRAMS}/",
            self.at("bin/systemctl")
        ));
    }

    /// The units that are masked now, and what systemctl was told about masks.
    pub fn masks(&self) -> (Vec<String>, Vec<String>) {
        let folder = std::fs::read_dir(self.path("masks")).unwrap().flatten();
        let mut now: Vec<String> = folder.map(|e| e.file_name().into_string().unwrap()).collect();
        now.sort();
        let told = std::fs::read_to_string(self.path("masking")).unwrap_or_default();
        (now, told.lines().map(str::to_owned).collect())
    }

    /// What systemctl was told, but for masks.
    pub fn told(&self) -> Vec<String> {
        crate::hooks::log(&self.rig)
    }

    /// Configures the method `unmount` for these.
    pub fn unmounting(&self, names: &[&str], more: &str) {
        let methods: Vec<_> = names.iter().map(|n| format!("\"{}\" = \"unmount\"", self.at(n))).collect();
        self.rig.configure(&format!("[defaults]\n{more}\nmethods = {{ {} }}\n", methods.join(", ")));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = wait(&mut self.holder, Duration::from_secs(5));
    }
}

/// Every thread of every process: its process, and its folder in /proc.
fn glob_threads() -> Vec<(i32, PathBuf)> {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let pids =
        entries("/proc".into()).filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path())));
    pids.flat_map(|(pid, folder)| entries(folder.join("task")).map(move |t| (pid, t.path()))).collect()
}

/// A run that strace holds before a call.
pub struct HeldCall {
    run: Run,
    pid: i32,
}

impl HeldCall {
    /// Lets it make the call, and waits for its end: the kernel lets go of what a tracer held that is gone.
    /// The exit code is then not seen.
    pub fn go_on(self) -> Ended {
        self.run.signal(nix::sys::signal::Signal::SIGKILL);
        let status = format!("/proc/{}/status", self.pid);
        await_some("the end of the run", || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
        self.run.end()
    }
}

/// A process that ends with this value.
pub struct Background(Child);

impl Background {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
