//! Writers that append and fsync all the time, and know when they were held up.

use std::collections::VecDeque;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A write that takes longer was held up.
const HELD_UP_NS: i128 = 1_000_000;
/// Length of the file.
const MOST: u64 = 2 << 20;
/// How many writes are remembered: some seconds.
const REMEMBERED: usize = 16 * 1024;

/// Unix nanoseconds, as in ebs-sim's log and the agent's events.
pub fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

/// Beginning and end of each write, the latest last.
type Writes = Arc<Mutex<VecDeque<(i128, i128)>>>;

/// A writer on one filesystem. It ends with the process, or when it is told to and not blocked.
pub struct Load {
    writes: Writes,
    /// Why it ended by itself.
    failed: Arc<Mutex<Option<std::io::Error>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub fn start(mount: &Path) -> Self {
        let mut file = std::fs::File::create(mount.join("load")).unwrap();
        let load = Self { writes: Arc::default(), failed: Arc::default(), stop: Arc::default() };
        let (writes, failed, stop) =
            (Arc::clone(&load.writes), Arc::clone(&load.failed), Arc::clone(&load.stop));
        std::thread::spawn(move || {
            if let Err(e) = write(&mut file, &writes, &stop) {
                *failed.lock().unwrap() = Some(e);
            }
        });
        load
    }

    /// Did a write fail? Then no more follow.
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap().as_ref().map(ToString::to_string)
    }

    /// Has a write that began after this time gone through?
    pub fn wrote_after(&self, time: i128) -> bool {
        self.writes.lock().unwrap().back().is_some_and(|w| w.0 > time)
    }

    /// The end of the write that was held up at this time.
    pub fn let_go(&self, time: i128) -> Option<i128> {
        let around = |w: &&(i128, i128)| w.0 < time + 5_000_000 && w.1 > time && w.1 - w.0 > HELD_UP_NS;
        self.writes.lock().unwrap().iter().find(around).map(|w| w.1)
    }

    /// Did a write go through between these times? Then it was not frozen all the while. One that began before does not count:
    /// FIFREEZE waits for it, and on a busy machine the writer may look at the clock only after that.
    pub fn wrote_between(&self, from: i128, to: i128) -> bool {
        self.writes.lock().unwrap().iter().any(|w| w.0 > from && w.1 < to)
    }
}

fn write(file: &mut std::fs::File, writes: &Writes, stop: &AtomicBool) -> std::io::Result<()> {
    let mut length = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = now();
        file.write_all(&[b'x'; 4096])?;
        let ended = now();
        {
            let mut writes = writes.lock().unwrap();
            writes.push_back((began, ended));
            if writes.len() > REMEMBERED {
                writes.pop_front();
            }
        }
        file.sync_data()?;
        length += 4096;
        if length > MOST {
            file.set_len(0)?;
            file.rewind()?;
            length = 0;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
