//! Waiting for something to become true, with an end: no test sleeps and hopes.

use std::time::{Duration, Instant, SystemTime};

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

/// Waits until the machine's clock has reached this Unix second.
pub(crate) fn until_second(second: u64) {
    let target = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    // Looked at again, because a sleep may end early when the clock is set back.
    while let Some(left) = target.duration_since(SystemTime::now()).ok().filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
}
