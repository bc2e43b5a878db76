//! The service clock: gives stamps that never go back, whatever the wall clock does (reliability 2.4, as design.md 2 words it).
//!
//! It runs on the time since boot, which counts suspends and ignores steps, and is led towards the wall slowly. Pure but for
//! `SystemClock`: readings go in, stamps come out.

use model::Stamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where readings come from; the seam for tests.
pub trait Clock: Send + Sync {
    /// Both clocks at one moment.
    fn read(&self) -> Reading;
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock; may be wrong and may step.
    pub wall: Stamp,
    /// Microseconds since boot, suspends included; only runs forward.
    pub boot_micros: u64,
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let boot = clock_gettime(ClockId::Boottime);
        Reading { wall: Stamp::from_micros(wall), boot_micros: boot.tv_sec as u64 * 1_000_000 + boot.tv_nsec as u64 / 1_000 }
    }
}

/// Led towards the wall by at most 500 parts per million, as NTP slews.
const SLEW_PPM: i128 = 500;
/// A forward step of the wall beyond this is suspect; a lead over the wall beyond this is run down at half speed.
const STEP_MICROS: i128 = 5_000_000;
/// A suspect step is accepted once it has stood for so long.
const STAND_MICROS: u64 = 600_000_000;
/// At a start, a wall this far past everything known is suspect as a whole: 30 days.
const FAR_MICROS: i128 = 30 * 86_400 * 1_000_000;
/// Beyond this lead over the wall, nothing is pushed: points would carry times in the stores' future.
const HOLD_MICROS: i128 = 300_000_000;

/// Floors up to this are those of a new log, past which every wall is far.
const FIRST_FLOOR: Stamp = Stamp::from_micros(1);

/// The state of the service clock.
#[derive(Clone, Debug)]
pub(crate) struct ServiceClock {
    now: Stamp,
    boot_micros: u64,
    /// What is left of slewing below one microsecond, in millionths.
    remainder: i128,
    /// Running at half speed until level with the wall.
    slowed: bool,
    /// Since when (boot time) the wall has been suspiciously far ahead.
    suspect_since: Option<u64>,
    /// Started suspiciously far past everything known.
    far: bool,
    /// Service clock less wall clock at the last reading.
    lead_micros: i128,
}

/// How the service clock stands to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockStatus {
    lead_micros: i128,
    suspect: bool,
}

impl ServiceClock {
    /// Starts at the wall, or at `floor` when the wall is behind it. A wall more than 30 days past the floor is taken, but stays
    /// suspect for the whole run: a clock set wrong must not make windows of years be sealed unseen.
    pub(crate) fn start(reading: Reading, floor: Stamp) -> ServiceClock {
        let now = reading.wall.max(floor);
        let far = floor > FIRST_FLOOR && lead(now, floor) > FAR_MICROS;
        let lead_micros = lead(now, reading.wall);
        ServiceClock { now, boot_micros: reading.boot_micros, remainder: 0, slowed: false, suspect_since: None, far, lead_micros }
    }

    /// The stamp at a reading; never before an earlier one.
    pub(crate) fn read(&mut self, reading: Reading) -> Stamp {
        let elapsed = i128::from(reading.boot_micros.saturating_sub(self.boot_micros));
        self.boot_micros = self.boot_micros.max(reading.boot_micros);
        // The lead over the wall if this time is passed at full speed.
        let ahead = lead(self.now, reading.wall) + elapsed;
        let mut advance = elapsed;
        if ahead < -STEP_MICROS {
            let since = *self.suspect_since.get_or_insert(self.boot_micros);
            if self.boot_micros - since >= STAND_MICROS {
                self.suspect_since = None;
                advance -= ahead;
            }
        } else {
            self.suspect_since = None;
            self.slowed |= ahead > STEP_MICROS;
            if self.slowed {
                advance -= (elapsed / 2).min(ahead);
                self.slowed = elapsed / 2 < ahead;
            } else {
                advance += self.slew(elapsed, ahead);
            }
        }
        self.now = self.now.plus_micros(advance.clamp(0, i128::from(u64::MAX)) as u64);
        self.lead_micros = lead(self.now, reading.wall);
        self.now
    }

    /// How much to lead towards the wall in `elapsed`, without overshooting.
    fn slew(&mut self, elapsed: i128, lead: i128) -> i128 {
        self.remainder += elapsed * SLEW_PPM;
        let most = self.remainder / 1_000_000;
        self.remainder %= 1_000_000;
        (-lead).clamp(-most, most)
    }

    pub(crate) fn status(&self) -> ClockStatus {
        ClockStatus { lead_micros: self.lead_micros, suspect: self.far || self.suspect_since.is_some() }
    }
}

impl ClockStatus {
    /// Seconds by which stamps are ahead of the wall clock; negative when behind.
    pub fn offset_seconds(&self) -> f64 {
        self.lead_micros as f64 / 1e6
    }

    /// Whether the wall clock has stepped forward and is not believed yet, or was far past everything known at the start.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Why nothing may be pushed just now.
    pub fn holds_push(&self) -> Option<String> {
        (self.lead_micros > HOLD_MICROS).then(|| {
            format!(
                "stamps are {} s ahead of the wall clock; set the clock right, or wait until it has caught up",
                self.lead_micros / 1_000_000
            )
        })
    }
}

fn lead(stamp: Stamp, wall: Stamp) -> i128 {
    i128::from(stamp.micros()) - i128::from(wall.micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const NOON: u64 = 1_800_000_000;

    /// Runs the clock through (seconds since the start, wall offset in seconds) and returns its own offset from true time.
    fn run(floor_secs: u64, readings: &[(u64, i64)]) -> Vec<i64> {
        let reading = |(elapsed, offset): (u64, i64)| Reading {
            wall: Stamp::from_micros(((NOON + elapsed) * SECOND).saturating_add_signed(offset * SECOND as i64)),
            boot_micros: 77 * SECOND + elapsed * SECOND,
        };
        let mut clock = ServiceClock::start(reading(readings[0]), Stamp::from_secs(floor_secs));
        let mut last = Stamp::ZERO;
        let step = |&at: &(u64, i64)| {
            let stamp = clock.read(reading(at));
            assert!(stamp >= last, "stamps never go back");
            last = stamp;
            (stamp.micros() as i64 - ((NOON + at.0) * SECOND) as i64) / SECOND as i64
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn a_step_back_is_ignored_and_run_down_at_half_speed() {
        // 100 s behind after a step: the lead halves away as true time passes.
        assert_eq!(run(0, &[(0, 0), (10, -100), (20, -100), (210, -100)]), [0, -5, -10, -100]);
    }

    #[test]
    fn a_small_step_is_slewed_at_500_ppm() {
        assert_eq!(run(0, &[(0, 0), (1_000, 3), (2_000, 3), (8_000, 3)]), [0, 0, 1, 3]);
    }

    #[test]
    fn a_large_step_forward_has_to_stand_for_ten_minutes() {
        assert_eq!(run(0, &[(0, 0), (10, 3_600), (300, 3_600), (609, 3_600), (611, 3_600)]), [0, 0, 0, 0, 3_600]);
        assert_eq!(run(0, &[(0, 0), (10, 3_600), (300, 0), (620, 3_600), (1_000, 3_600)]), [0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_restart_behind_the_floor_starts_at_the_floor() {
        assert_eq!(run(NOON + 50, &[(0, 0), (10, 0), (120, 0)]), [50, 45, 0]);
    }

    #[test]
    fn far_ahead_of_the_wall_nothing_is_pushed() {
        let reading = Reading { wall: Stamp::from_secs(NOON), boot_micros: 0 };
        assert!(ServiceClock::start(reading, Stamp::from_secs(NOON + 299)).status().holds_push().is_none());
        assert!(ServiceClock::start(reading, Stamp::from_secs(NOON + 301)).status().holds_push().is_some());
    }

    #[test]
    fn a_start_more_than_30_days_on_is_taken_but_suspect() {
        let day = 86_400;
        for (floor, suspect) in [
            (Stamp::ZERO, false),
            (FIRST_FLOOR, false),
            (Stamp::from_secs(NOON - 30 * day), false),
            (Stamp::from_secs(NOON - 31 * day), true),
        ] {
            let reading = Reading { wall: Stamp::from_secs(NOON), boot_micros: 0 };
            let mut clock = ServiceClock::start(reading, floor);
            assert_eq!((clock.read(reading), clock.status().is_suspect()), (Stamp::from_secs(NOON), suspect), "{floor:?}");
        }
    }

    #[test]
    fn extreme_walls_neither_panic_nor_go_back() {
        let mut clock = ServiceClock::start(Reading { wall: Stamp::from_secs(NOON), boot_micros: 0 }, Stamp::ZERO);
        let mut last = Stamp::ZERO;
        for (at, wall) in [0, u64::MAX, 1, u64::MAX, NOON * SECOND, 0].into_iter().enumerate() {
            let stamp = clock.read(Reading { wall: Stamp::from_micros(wall), boot_micros: at as u64 * 700 * SECOND });
            assert!(stamp >= last);
            last = stamp;
        }
    }
}
