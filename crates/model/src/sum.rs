//! A sum that does not depend on order: whole numbers in `i128` and a count of its overflows, others in a fixed-point accumulator
//! wide enough for every `f64`, rounded once at the end. Two machines, or two halves of a window added later, get the same bits.

use crate::value::Number;

/// 32 value bits in each `i64` limb leave 31 bits of head-room for carries.
const LIMB_BITS: u32 = 32;
/// Limbs from 2^-1074 (the least subnormal) to beyond 2^1024 times 2^63 addends.
const LIMBS: usize = 70;
/// Weight of the lowest bit: 2^-1074.
const LOWEST_EXPONENT: i32 = -1074;
/// Additions before the carries are settled: each adds less than 2^32 to a limb.
const SETTLE_AFTER: u32 = 1 << 29;

/// Adds up finite numbers exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExactSum {
    whole: i128,
    /// How often `whole` went beyond its range: the sum of the whole numbers is `whole + wraps * 2^128`.
    wraps: i64,
    real: Option<Box<Wide>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Wide {
    limbs: [i64; LIMBS],
    added: u32,
}

impl ExactSum {
    /// Adds one number.
    pub fn add(&mut self, number: Number) {
        match number {
            Number::Whole(n) => {
                let (sum, beyond) = self.whole.overflowing_add(n);
                self.whole = sum;
                if beyond {
                    self.wraps += if n < 0 { -1 } else { 1 };
                }
            }
            Number::Real(n) => self.wide().add(n),
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        self.add(Number::Whole(other.whole));
        self.wraps += other.wraps;
        if let Some(real) = &other.real {
            let wide = self.wide();
            wide.settle();
            let mut settled = real.clone();
            settled.settle();
            for (limb, add) in wide.limbs.iter_mut().zip(settled.limbs) {
                *limb += add;
            }
            wide.settle();
        }
    }

    /// The sum: exact when all addends were whole, else rounded once to the nearest float. Infinite only when the true sum is
    /// beyond the range of `f64`.
    pub fn total(&self) -> Number {
        if self.real.is_none() && self.wraps == 0 {
            return Number::Whole(self.whole);
        }
        let mut wide = self.real.as_deref().cloned().unwrap_or_else(Wide::new);
        // An i128 goes in as exact quarters: each is an exact float, and so is a count of overflows.
        let magnitude = self.whole.unsigned_abs();
        let sign = if self.whole < 0 { -1.0 } else { 1.0 };
        for part in 0..4 {
            let digit = (magnitude >> (32 * part)) as u32;
            wide.add(sign * f64::from(digit) * (32.0 * f64::from(part)).exp2());
        }
        wide.add(self.wraps as f64 * 128.0_f64.exp2());
        match wide.round() {
            sum if sum.is_finite() => Number::from_float(sum),
            sum => Number::Real(sum),
        }
    }

    fn wide(&mut self) -> &mut Wide {
        self.real.get_or_insert_with(|| Box::new(Wide::new()))
    }
}

impl Wide {
    fn new() -> Wide {
        Wide { limbs: [0; LIMBS], added: 0 }
    }

    fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
        let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let offset = (exponent - LOWEST_EXPONENT) as u32;
        let (limb, shift) = ((offset / LIMB_BITS) as usize, offset % LIMB_BITS);
        let shifted = u128::from(mantissa) << shift;
        for part in 0..3 {
            let digit = (shifted >> (LIMB_BITS * part)) as u32;
            let digit = i64::from(digit);
            self.limbs[limb + part as usize] += if value.is_sign_negative() { -digit } else { digit };
        }
        self.added += 1;
        if self.added == SETTLE_AFTER {
            self.settle();
        }
    }

    /// Carries upwards until every limb but the highest is in `0..2^32`.
    fn settle(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let sum = *limb + carry;
            *limb = sum & 0xffff_ffff;
            carry = sum >> LIMB_BITS;
        }
        self.limbs[LIMBS - 1] += carry;
        self.added = 0;
    }

    /// The nearest float, ties to even.
    fn round(&mut self) -> f64 {
        self.settle();
        let negative = self.limbs[LIMBS - 1] < 0;
        if negative {
            self.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            self.settle();
        }
        let Some(top) = self.limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        // The leading 64 bits, with everything below folded into the last one ("sticky"), decide the rounding.
        let bit = |at: i64| -> u64 {
            let (limb, shift) = (at / 32, at % 32);
            if at < 0 { 0 } else { self.limbs[limb as usize] as u64 >> shift & 1 }
        };
        let highest = top as i64 * 32 + i64::from(63 - self.limbs[top].leading_zeros());
        // A float keeps 53 bits, fewer when subnormal; the lowest kept bit is never below bit 0 of the accumulator.
        let lowest = (highest - 52).max(0);
        let mut mantissa = (lowest..=highest).rev().fold(0u64, |mantissa, at| mantissa << 1 | bit(at));
        let half = bit(lowest - 1) == 1;
        let beyond = half && (0..lowest - 1).any(|at| bit(at) == 1);
        if half && (beyond || mantissa & 1 == 1) {
            mantissa += 1;
        }
        // mantissa <= 2^53 is exact; the two-step scaling keeps each factor within range.
        let exponent = lowest as i32 + LOWEST_EXPONENT;
        let step = f64::from(exponent / 2).exp2();
        let value = mantissa as f64 * step * f64::from(exponent - exponent / 2).exp2();
        if negative { -value } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|&value| sum.add(Number::from_float(value)));
        sum.total().float()
    }

    #[test]
    fn cancellation_and_carries_are_exact() {
        for (values, expected) in [
            (&[][..], 0.0),
            (&[0.1; 10], 1.0),
            (&[1e308, 1e308, -1e308, 0.5], 1e308),
            (&[1e308, -1e308, 0.5], 0.5),
            (&[1e16, 1.5, -1e16], 1.5),
            (&[5e-324, 5e-324], 1e-323),
            (&[-5e-324, 2.5], 2.5),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-0.25, -0.25], -0.5),
            (&[9_007_199_254_740_993.0, 0.5, -0.5], 9_007_199_254_740_992.0),
        ] {
            assert_eq!(total(values).to_bits(), expected.to_bits(), "{values:?}");
        }
    }

    #[test]
    fn whole_numbers_that_overflow_on_the_way_are_exact_in_any_order() {
        let greatest = i128::MAX;
        for (values, expected) in [
            (&[1, greatest, -greatest][..], Number::Whole(1)),
            (&[greatest, 1, -greatest], Number::Whole(1)),
            (&[greatest, greatest, 9_007_199_254_740_993, i128::MIN, i128::MIN, 2], Number::Whole(9_007_199_254_740_993)),
            (&[greatest, greatest, 2], Number::Real(128.0_f64.exp2())),
            (&[i128::MIN, i128::MIN], Number::Real(-128.0_f64.exp2())),
        ] {
            let sum = |values: &mut dyn Iterator<Item = &i128>| {
                let mut sum = ExactSum::default();
                values.for_each(|&value| sum.add(Number::Whole(value)));
                sum
            };
            assert_eq!(sum(&mut values.iter()).total(), expected, "{values:?}");
            assert_eq!(sum(&mut values.iter().rev()), sum(&mut values.iter()), "{values:?} backwards");
            for cut in 0..=values.len() {
                let mut parts = sum(&mut values[cut..].iter());
                parts.merge(&sum(&mut values[..cut].iter()));
                assert_eq!(parts.total(), expected, "{values:?} in parts");
            }
        }
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(mut values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 0..40), cut in 0usize..40) {
            let forwards = total(&values);
            let cut = cut.min(values.len());
            let (mut left, mut right) = (ExactSum::default(), ExactSum::default());
            values[..cut].iter().for_each(|&v| left.add(Number::from_float(v)));
            values[cut..].iter().for_each(|&v| right.add(Number::from_float(v)));
            left.merge(&right);
            values.reverse();
            prop_assert_eq!(forwards.to_bits(), total(&values).to_bits());
            prop_assert_eq!(forwards.to_bits(), left.total().float().to_bits());
        }

        #[test]
        fn equals_i128_arithmetic_on_scaled_whole_numbers(values in prop::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 0..50)) {
            // Eighths are exact in binary, so the true sum is known.
            let expected = values.iter().map(|&v| i128::from(v)).sum::<i128>() as f64 / 8.0;
            prop_assert_eq!(total(&values.iter().map(|&v| v as f64 / 8.0).collect::<Vec<_>>()), expected);
        }
    }
}
