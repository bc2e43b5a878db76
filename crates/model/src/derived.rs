//! Attributes that a query computes from others: Backtrace's virtual columns. Pure arithmetic; no time zones but the offset given.

use crate::report::Report;
use crate::value::{Number, Value};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An attribute computed from another one. Within its query it hides a sent attribute of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Derived {
    /// Its name in the query.
    pub name: String,
    /// The attribute it is computed from, one that reports have: not another derived one.
    pub source: String,
    /// How.
    pub function: Function,
}

/// What is done with a number; what is no number gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// The start of the number's step: steps are `size` long and one begins at `-offset`.
    Quantize {
        /// Length of a step, at least 1.
        size: u64,
        /// For days of a time zone, its offset from UTC in seconds.
        offset: i64,
    },
    /// The start of the Unix time's day, month, quarter or year in UTC.
    Truncate(Granularity),
}

/// Spans of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// From midnight.
    Day,
    /// From the 1st.
    Month,
    /// From the 1st of January, April, July or October.
    Quarter,
    /// From the 1st of January.
    Year,
}

/// Seconds of a day.
const DAY: i128 = 86_400;
/// Unix times beyond the year 9999 (or as far back) are no dates.
const MAX_SECS: i128 = 253_402_300_800;

impl Function {
    /// The derived value of a value.
    pub fn apply(self, value: &Value) -> Option<Value> {
        let whole = match value.number()? {
            Number::Whole(n) => n,
            Number::Real(n) if n.abs() < 1e38 => n.floor() as i128,
            Number::Real(_) => return None,
        };
        let start = match self {
            Function::Quantize { size, offset } => {
                let (size, offset) = (i128::from(size.max(1)), i128::from(offset));
                // Beyond the range of i128 the start is far from any that can be told.
                whole.checked_add(offset)?.div_euclid(size).checked_mul(size)?.checked_sub(offset)?
            }
            Function::Truncate(_) if whole.unsigned_abs() >= MAX_SECS.unsigned_abs() => return None,
            Function::Truncate(granularity) => granularity.start(whole),
        };
        i64::try_from(start).map(Value::Int).ok().or_else(|| u64::try_from(start).map(Value::UInt).ok())
    }
}

impl Granularity {
    fn start(self, secs: i128) -> i128 {
        let days = secs.div_euclid(DAY);
        let (year, month, day_of_month) = civil(days);
        let first_of_month = days - (day_of_month - 1);
        let first = match self {
            Granularity::Day => days,
            Granularity::Month => first_of_month,
            Granularity::Quarter => days_from_civil(year, month - (month - 1) % 3),
            Granularity::Year => days_from_civil(year, 1),
        };
        first * DAY
    }
}

/// Year, month and day of the month of a day since 1970-01-01 in the proleptic Gregorian calendar, by years that begin in March.
fn civil(days: i128) -> (i128, i128, i128) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i128::from(month <= 2), month, day)
}

/// The day since 1970-01-01 of the first of a month.
fn days_from_civil(year: i128, month: i128) -> i128 {
    let year = year - i128::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A report's value of a name in a query with these derived attributes.
pub fn lookup<'r>(derived: &[Derived], report: &'r Report, name: &str) -> Option<Cow<'r, Value>> {
    match derived.iter().find(|derived| derived.name == name) {
        Some(derived) => derived.function.apply(report.get(&derived.source)?.as_ref()).map(Cow::Owned),
        None => report.get(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_where_the_offset_says() {
        for (value, size, offset, start) in [
            (Value::Int(125), 60, 0, Some(120)),
            (Value::Int(-1), 60, 0, Some(-60)),
            (Value::from("125"), 60, 0, Some(120)),
            (Value::Float(125.9), 60, 0, Some(120)),
            // 02:00 UTC is still the day before, four hours west: that day began at 04:00 UTC.
            (Value::Int(86_400 + 7_200), 86_400, -14_400, Some(14_400)),
            (Value::Int(86_400 + 7_200), 86_400, 3_600, Some(86_400 - 3_600)),
            (Value::from("soon"), 60, 0, None),
            (Value::Float(1e300), 60, 0, None),
            // The least and the greatest whole number that text can hold.
            (Value::from("-170141183460469231731687303715884105728"), 60, 0, None),
            (Value::from("-170141183460469231731687303715884105728"), 1, i64::MAX, None),
            (Value::from("170141183460469231731687303715884105727"), 1, -1, None),
        ] {
            let function = Function::Quantize { size, offset };
            assert_eq!(function.apply(&value), start.map(Value::Int), "{value:?} {size} {offset}");
        }
    }

    #[test]
    fn calendar_spans_begin_at_their_first_midnight() {
        use Granularity::*;
        // 2024-08-29 12:34:56 UTC, a leap year.
        let at = Value::Int(1_724_934_896);
        for (granularity, start) in [(Day, 1_724_889_600), (Month, 1_722_470_400), (Quarter, 1_719_792_000), (Year, 1_704_067_200)] {
            assert_eq!(Function::Truncate(granularity).apply(&at), Some(Value::Int(start)), "{granularity:?}");
        }
        assert_eq!(Function::Truncate(Year).apply(&Value::Int(-1)), Some(Value::Int(-31_536_000)));
        assert_eq!(Function::Truncate(Day).apply(&Value::UInt(u64::MAX)), None);
        assert_eq!(Function::Truncate(Day).apply(&Value::from("-170141183460469231731687303715884105728")), None);
    }

    #[test]
    fn days_and_dates_lead_to_each_other() {
        for days in (-800_000..800_000).step_by(13) {
            let (year, month, day) = civil(days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            assert_eq!(days_from_civil(year, month) + day - 1, days);
        }
    }
}
