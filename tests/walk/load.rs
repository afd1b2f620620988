//! Writers that append and fsync all the time, and know when they were held up.

use std::collections::VecDeque;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer writes than this are remembered.
const HELD_UP_NS: i128 = 1_000_000;
const MOST: u64 = 2 << 20;

/// Unix nanoseconds, as in ebs-sim's log and the agent's events.
pub fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

#[derive(Debug, Default)]
struct Seen {
    /// Beginning of the last write that is through.
    last_began: i128,
    /// Beginning and end of writes that took long.
    held_up: VecDeque<(i128, i128)>,
}

/// A writer on one filesystem. It ends with the process, or when it is told to and not blocked.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub fn start(mount: &Path) -> Self {
        let mut file = std::fs::File::create(mount.join("load")).unwrap();
        let load = Self { seen: Arc::default(), stop: Arc::default() };
        let (seen, stop) = (Arc::clone(&load.seen), Arc::clone(&load.stop));
        std::thread::spawn(move || {
            let mut length = 0;
            while !stop.load(Ordering::Relaxed) {
                let began = now();
                file.write_all(&[b'x'; 4096]).unwrap();
                let ended = now();
                {
                    let mut seen = seen.lock().unwrap();
                    seen.last_began = began;
                    if ended - began > HELD_UP_NS {
                        seen.held_up.push_back((began, ended));
                        if seen.held_up.len() > 1000 {
                            seen.held_up.pop_front();
                        }
                    }
                }
                file.sync_data().unwrap();
                length += 4096;
                if length > MOST {
                    file.set_len(0).unwrap();
                    file.rewind().unwrap();
                    length = 0;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        load
    }

    /// Has a write that began after this time gone through?
    pub fn wrote_after(&self, time: i128) -> bool {
        self.seen.lock().unwrap().last_began > time
    }

    /// The end of the write that was held up at this time.
    pub fn let_go(&self, time: i128) -> Option<i128> {
        let around = |w: &&(i128, i128)| w.0 < time + 5_000_000 && w.1 > time;
        self.seen.lock().unwrap().held_up.iter().find(around).map(|w| w.1)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
