//! Attribute values, and the one rule by which two of them are the same: they are written the same.
//!
//! SDKs disagree about types: a number in one is text in the next. A value keeps what was sent; for `equal`, grouping and
//! `unique` its written form counts, and where a number is needed, text that reads as a number is one.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;

/// One attribute value as it was sent. `null` is not a value: the attribute is then missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits `i64`.
    Int(i64),
    /// A whole number above `i64::MAX`.
    UInt(u64),
    /// Any other finite number.
    Float(f64),
    /// Text of any length within the intake's bounds.
    Text(String),
}

/// A number to compare or add up: whole numbers are exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Whole.
    Whole(i128),
    /// Finite, with a fraction or beyond the exact whole numbers.
    Real(f64),
}

impl Value {
    /// How the value is written: what `equal`, group keys and `unique` go by. Whole floats are written as whole numbers.
    pub fn written(&self) -> Cow<'_, str> {
        match self {
            Value::Bool(true) => Cow::Borrowed("true"),
            Value::Bool(false) => Cow::Borrowed("false"),
            Value::Int(n) => Cow::Owned(n.to_string()),
            Value::UInt(n) => Cow::Owned(n.to_string()),
            Value::Float(n) => Cow::Owned(Number::from_float(*n).written()),
            Value::Text(text) => Cow::Borrowed(text),
        }
    }

    /// The value as a number: numbers, booleans as 0 and 1, and text that is wholly a decimal number.
    pub fn number(&self) -> Option<Number> {
        match self {
            Value::Bool(b) => Some(Number::Whole(i128::from(*b))),
            Value::Int(n) => Some(Number::Whole(i128::from(*n))),
            Value::UInt(n) => Some(Number::Whole(i128::from(*n))),
            Value::Float(n) => Some(Number::from_float(*n)),
            Value::Text(text) => Number::read(text),
        }
    }

    /// Whether the value was sent as text.
    pub fn is_text(&self) -> bool {
        matches!(self, Value::Text(_))
    }
}

impl Number {
    /// A finite float, whole where it is whole and small enough (below 2^63) to be written exactly.
    pub fn from_float(n: f64) -> Number {
        if n.fract() == 0.0 && n.abs() < 9_223_372_036_854_775_808.0 { Number::Whole(n as i128) } else { Number::Real(n) }
    }

    /// Reads decimal text: an optional sign, digits, an optional fraction and exponent, nothing else; `None` for anything
    /// else, also for text that reads as an infinity.
    pub fn read(text: &str) -> Option<Number> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) || text.len() > 400 {
            return None;
        }
        if digits.bytes().all(|b| b.is_ascii_digit())
            && let Ok(whole) = text.parse::<i128>()
        {
            return Some(Number::Whole(whole));
        }
        let real: f64 = text.parse().ok()?;
        real.is_finite().then(|| Number::from_float(real))
    }

    /// The nearest float.
    pub fn float(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Real(n) => n,
        }
    }

    /// The number as a value: whole where it is whole and fits.
    pub fn value(self) -> Value {
        match self {
            Number::Whole(n) => {
                i64::try_from(n).map(Value::Int).or_else(|_| u64::try_from(n).map(Value::UInt)).unwrap_or(Value::Float(n as f64))
            }
            Number::Real(n) => Value::Float(n),
        }
    }

    /// Decimal text without an exponent for whole numbers, shortest round-trip text for others.
    pub fn written(self) -> String {
        match self {
            Number::Whole(n) => n.to_string(),
            Number::Real(n) => n.to_string(),
        }
    }

    /// Total order by numeric value; whole numbers are compared exactly.
    pub fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.cmp(&b),
            // A whole number and a real one meet as floats; where that rounding makes them equal, the exact whole decides.
            (Number::Whole(a), Number::Real(b)) => compare_mixed(a, b),
            (Number::Real(a), Number::Whole(b)) => compare_mixed(b, a).reverse(),
            (Number::Real(a), Number::Real(b)) => a.total_cmp(&b),
        }
    }
}

fn compare_mixed(whole: i128, real: f64) -> Ordering {
    // `real` is never NaN. Beyond the range of i128 its sign decides; within, its integral part is exact.
    if real >= 1.7e38 {
        return Ordering::Less;
    }
    if real <= -1.7e38 {
        return Ordering::Greater;
    }
    let floor = real.floor();
    match whole.cmp(&(floor as i128)) {
        Ordering::Equal if real > floor => Ordering::Less,
        order => order,
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(n: u64) -> Value {
        i64::try_from(n).map_or(Value::UInt(n), Value::Int)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_when_they_are_written_the_same() {
        for (value, written) in [
            (Value::Int(-0), "0"),
            (Value::Float(-0.0), "0"),
            (Value::Float(17.0), "17"),
            (Value::Float(0.25), "0.25"),
            (Value::UInt(u64::MAX), "18446744073709551615"),
            (Value::Bool(true), "true"),
            (Value::Text("1.10".into()), "1.10"),
        ] {
            assert_eq!(value.written(), written);
        }
    }

    #[test]
    fn text_reads_as_a_number_only_when_it_is_one() {
        for (text, read) in [
            ("17", Some(17.0)),
            ("-3", Some(-3.0)),
            ("1e3", Some(1000.0)),
            ("0.5", Some(0.5)),
            ("", None),
            ("-", None),
            ("inf", None),
            ("NaN", None),
            ("1e999", None),
            ("0x10", None),
            (" 1", None),
            ("1_000", None),
            ("12 apples", None),
        ] {
            assert_eq!(Number::read(text).map(Number::float), read, "{text:?}");
        }
    }

    #[test]
    fn whole_and_real_numbers_compare_by_value() {
        let big = Number::Whole((1i128 << 53) + 1);
        assert_eq!(big.compare(Number::Real(9_007_199_254_740_992.5)), Ordering::Greater);
        assert_eq!(Number::Real(0.5).compare(Number::Whole(0)), Ordering::Greater);
        assert_eq!(Number::Real(-0.5).compare(Number::Whole(0)), Ordering::Less);
        assert_eq!(Number::Whole(1).compare(Number::Real(1e300)), Ordering::Less);
    }
}
