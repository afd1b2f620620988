//! Buffered writers, one a file, and how long each of them had to wait: what a freeze costs the applications.
//! For scripts/bench.
//!
//! In: a pause between two writes in microseconds, and files; on stdin a line to start counting anew, another
//! one to be told. Out: for every second line, the longest wait of each writer since, in nanoseconds, as one
//! JSON list. Ends with its stdin.

use std::fs::File;
use std::io::{BufRead as _, Error, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let pause = arguments.next().and_then(|p| p.parse().ok()).map(Duration::from_micros);
    let pause = pause.ok_or_else(|| Error::other("the pause is no number"))?;
    let mut longest = Vec::new();
    for path in arguments {
        let file = File::create(path)?;
        let longest_of_it = Arc::new(AtomicU64::new(0));
        longest.push(Arc::clone(&longest_of_it));
        std::thread::spawn(move || {
            loop {
                let began = Instant::now();
                if file.write_all_at(&[1; 4096], 0).is_err() {
                    std::process::exit(1);
                }
                let waited = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                longest_of_it.fetch_max(waited, Ordering::SeqCst);
                std::thread::sleep(pause);
            }
        });
    }
    let mut counting = false;
    for line in std::io::stdin().lock().lines() {
        line?;
        let told: Vec<u64> = longest.iter().map(|l| l.swap(0, Ordering::SeqCst)).collect();
        let told = if counting { told } else { Vec::new() }; // it counts from here
        writeln!(std::io::stdout(), "{told:?}")?;
        counting = !counting;
    }
    Ok(())
}
