//! Numbers as text for line formats: whole numbers without exponent or fraction, others in their shortest round-trip form.

use std::io::Write;

/// Why a point with such a value is left out: every store refuses it, drops it, or breaks on it (metric-stores 1.7).
pub(crate) const NOT_FINITE: &str = "its value is not a finite number";

/// Appends a finite number. `Display` of a float never writes an exponent, so the text is plain decimal digits at any size, and -0
/// is written as 0.
pub(crate) fn push(out: &mut Vec<u8>, value: f64) {
    /// Whole numbers up to here are exact and fit an integer.
    const EXACT: u64 = 1 << 53;
    // A conversion keeps to the bounds of the integer, so a number beyond them differs from what became of it, or is not exact.
    let whole = value as i64;
    if whole as f64 == value && whole.unsigned_abs() <= EXACT {
        return out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    }
    // Writing into memory cannot fail.
    let _written = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        push(&mut out, value);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn numbers_are_plain_decimals() {
        for (value, written) in [
            (0.0, "0"),
            (-0.0, "0"),
            (17.0, "17"),
            (-3.5, "-3.5"),
            (0.1, "0.1"),
            (1e21, "1000000000000000000000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (1.5e-7, "0.00000015"),
        ] {
            assert_eq!(text(value), written);
        }
        assert_eq!(text(1e308).len(), 309);
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(value in prop::num::f64::ANY.prop_filter("finite", |value| value.is_finite())) {
            let written = text(value);
            prop_assert_eq!(written.parse::<f64>(), Ok(value));
            prop_assert!(written.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-')));
        }
    }
}
