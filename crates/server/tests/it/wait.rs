//! Waiting for something to become true, with an end: no test sleeps and hopes.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `probe` until it gives a value. Panics with the last reason it gave when `limit` has passed.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() > limit => panic!("{what}: not within {limit:?}: {reason}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
