//! Stamps, periods and windows: the arithmetic that decides which window a report is counted in.
//! Pure; the clock that makes stamps lives in `reports`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A moment of the service clock, in microseconds since the Unix epoch. Stamps never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// The epoch: before every real stamp.
    pub const ZERO: Stamp = Stamp(0);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: u64) -> Stamp {
        Stamp(micros)
    }

    /// From whole seconds since the epoch; saturates at the end of time.
    pub const fn from_secs(seconds: u64) -> Stamp {
        Stamp(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This stamp moved forward by some microseconds.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Stamp {
        Stamp(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this stamp; 0 when `earlier` is later.
    pub const fn since(self, earlier: Stamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Seconds between the points of a store: 1 to 86,400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Period(u32);

impl Period {
    /// The longest period: one day.
    pub const MAX_SECS: u32 = 86_400;

    /// A period of `seconds`; `None` outside 1..=86,400.
    pub const fn new(seconds: u32) -> Option<Period> {
        if seconds >= 1 && seconds <= Self::MAX_SECS { Some(Period(seconds)) } else { None }
    }

    /// Seconds.
    pub const fn secs(self) -> u32 {
        self.0
    }

    /// Microseconds.
    pub const fn micros(self) -> u64 {
        self.0 as u64 * 1_000_000
    }

    /// The window of this period's grid that holds `stamp`.
    pub const fn window_at(self, stamp: Stamp) -> Window {
        Window { start: stamp.secs() / self.0 as u64 * self.0 as u64, period: self }
    }

    /// The first window that starts at or after `stamp`: where a new configuration begins to count.
    pub const fn first_window_from(self, stamp: Stamp) -> Window {
        let holding = self.window_at(stamp);
        if holding.start().0 == stamp.0 { holding } else { holding.next() }
    }
}

impl TryFrom<u32> for Period {
    type Error = String;
    fn try_from(seconds: u32) -> Result<Period, String> {
        Period::new(seconds).ok_or_else(|| format!("{seconds} is not between 1 and {}", Period::MAX_SECS))
    }
}

impl From<Period> for u32 {
    fn from(period: Period) -> u32 {
        period.0
    }
}

/// The half-open span `[start, start + period)` that one point covers; `start` is a multiple of the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    start: u64,
    period: Period,
}

impl Window {
    /// The window of `period` that starts at `start_secs`, or `None` when that is not on the grid.
    pub const fn new(start_secs: u64, period: Period) -> Option<Window> {
        if start_secs.is_multiple_of(period.0 as u64) { Some(Window { start: start_secs, period }) } else { None }
    }

    /// First second of the window, Unix time.
    pub const fn start_secs(self) -> u64 {
        self.start
    }

    /// First second after the window, Unix time.
    pub const fn end_secs(self) -> u64 {
        self.start + self.period.0 as u64
    }

    /// The stamp at which the window begins.
    pub const fn start(self) -> Stamp {
        Stamp::from_secs(self.start)
    }

    /// The first stamp that is no longer in the window.
    pub const fn end(self) -> Stamp {
        Stamp::from_secs(self.end_secs())
    }

    /// The grid's period.
    pub const fn period(self) -> Period {
        self.period
    }

    /// The window that follows without a gap.
    #[must_use]
    pub const fn next(self) -> Window {
        Window { start: self.end_secs(), period: self.period }
    }

    /// Whether a report with this stamp is counted in this window.
    pub const fn contains(self, stamp: Stamp) -> bool {
        self.start().0 <= stamp.0 && stamp.0 < self.end().0
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn period(seconds: u32) -> Period {
        Period::new(seconds).expect("a legal period")
    }

    #[test]
    fn a_period_is_one_second_to_one_day() {
        for (seconds, legal) in [(0, false), (1, true), (7, true), (86_400, true), (86_401, false), (u32::MAX, false)] {
            assert_eq!(Period::new(seconds).is_some(), legal, "{seconds}");
        }
    }

    #[test]
    fn edges_belong_to_the_window_they_open() {
        let window = period(60).window_at(Stamp::from_secs(119));
        assert_eq!((window.start_secs(), window.end_secs()), (60, 120));
        assert!(window.contains(Stamp::from_micros(60_000_000)));
        assert!(window.contains(Stamp::from_micros(119_999_999)));
        assert!(!window.contains(Stamp::from_micros(120_000_000)));
        assert!(!window.contains(Stamp::from_micros(59_999_999)));
    }

    #[test]
    fn a_change_on_the_edge_counts_from_that_edge() {
        assert_eq!(period(10).first_window_from(Stamp::from_secs(30)).start_secs(), 30);
        assert_eq!(period(10).first_window_from(Stamp::from_micros(30_000_001)).start_secs(), 40);
    }

    proptest! {
        #[test]
        fn every_stamp_is_in_exactly_one_window(micros in 0u64..4_000_000_000_000_000, seconds in 1u32..=86_400) {
            let (stamp, window) = (Stamp::from_micros(micros), period(seconds).window_at(Stamp::from_micros(micros)));
            prop_assert!(window.contains(stamp));
            prop_assert!(!window.next().contains(stamp));
            prop_assert_eq!(window.end(), window.next().start());
            prop_assert_eq!(window.start_secs() % u64::from(seconds), 0);
        }
    }
}
