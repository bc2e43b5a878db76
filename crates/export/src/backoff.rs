//! How long to wait before trying a store again: full jitter from 1 s to 60 s, or what the store asked for.

use std::time::Duration;

/// First ceiling of the wait.
const FIRST_MILLIS: u64 = 1_000;
/// Highest ceiling of the wait.
const CEILING_MILLIS: u64 = 60_000;
/// A store that needs a person is probed this often.
pub(crate) const PROBE: Duration = Duration::from_secs(60);

/// Failures in a row of one store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `random` is uniform over u64; full jitter keeps many stores from coming back at once.
    pub(crate) fn failed(&mut self, asked_secs: Option<u64>, random: u64) -> Duration {
        let ceiling = FIRST_MILLIS.saturating_mul(1 << self.failures.min(16)).min(CEILING_MILLIS);
        self.failures = self.failures.saturating_add(1);
        let jittered = Duration::from_millis(random % (ceiling + 1));
        // A wait of nothing would be a hot loop against a store that refuses at once.
        let own = jittered.max(Duration::from_millis(FIRST_MILLIS / 10));
        asked_secs.map_or(own, |asked| own.max(Duration::from_secs(asked.clamp(1, 600))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_to_a_minute_and_a_success_starts_over() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..8).map(|failures| FIRST_MILLIS.saturating_mul(1 << failures).min(CEILING_MILLIS)).collect();
        for ceiling in ceilings {
            assert_eq!(backoff.failed(None, ceiling), Duration::from_millis(ceiling));
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(None, 1_000), Duration::from_secs(1));
        assert_eq!(backoff.failed(None, 0), Duration::from_millis(100));
    }

    #[test]
    fn the_stores_own_wish_is_a_floor_within_bounds() {
        for (asked, waited) in [(0, 1), (7, 7), (u64::MAX, 600)] {
            assert_eq!(Backoff::default().failed(Some(asked), 0), Duration::from_secs(waited));
        }
    }
}
