//! A set of small whole numbers, one bit each.

use std::ops::Range;

/// Grows to the greatest number put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// None of the numbers below `length`.
    pub fn none(length: usize) -> Bits {
        Bits(vec![0; length.div_ceil(64)])
    }

    /// All numbers below `length`.
    pub fn all(length: usize) -> Bits {
        let mut words = vec![u64::MAX; length.div_ceil(64)];
        if let Some(last) = words.last_mut()
            && !length.is_multiple_of(64)
        {
            *last = (1 << (length % 64)) - 1;
        }
        Bits(words)
    }

    /// The numbers below `length` for which the test is true.
    pub fn from_fn(length: usize, mut test: impl FnMut(usize) -> bool) -> Bits {
        let word = |at: usize| (at * 64..length.min(at * 64 + 64)).fold(0, |word, bit| word | u64::from(test(bit)) << (bit % 64));
        Bits((0..length.div_ceil(64)).map(word).collect())
    }

    /// The places of the values for which the test is true. A simple test is made of many values at a time.
    pub fn of_values<T>(values: &[T], test: impl Fn(&T) -> bool) -> Bits {
        let (whole, rest) = values.as_chunks::<64>();
        let mut words = Vec::with_capacity(values.len().div_ceil(64));
        for values in whole {
            let mut passes = [0; 64];
            passes.iter_mut().zip(values).for_each(|(passes, value)| *passes = u8::from(test(value)));
            words.push(packed(&passes));
        }
        if !rest.is_empty() {
            words.push(rest.iter().zip(0..).fold(0, |word, (value, bit)| word | u64::from(test(value)) << bit));
        }
        Bits(words)
    }

    /// Whether a number is in it.
    pub fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Puts a number in; whether it is new.
    pub fn put(&mut self, number: usize) -> bool {
        if number / 64 >= self.0.len() {
            self.0.resize(number / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Keeps the numbers for which the test is true.
    pub(crate) fn retain(&mut self, mut test: impl FnMut(usize) -> bool) {
        for (at, word) in self.0.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if !test(at * 64 + bit as usize) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Takes these out, among which are all that are in it.
    pub(crate) fn clear(&mut self, numbers: &[u32]) {
        if numbers.len() < self.0.len() {
            numbers.iter().for_each(|number| self.0[*number as usize / 64] = 0);
        } else {
            self.0.fill(0);
        }
    }

    /// How many are in it.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Keeps what is in both.
    pub fn and(&mut self, other: &Bits) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, with)| *word &= with);
    }

    /// Adds what is in the other.
    pub fn or(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, with)| *word |= with);
    }

    /// Takes away what is in the other.
    pub fn and_not(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, without)| *word &= !without);
    }

    /// The numbers in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }

    /// The numbers in it that are within a range, ascending.
    pub fn within(&self, range: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let words = range.start / 64..range.end.div_ceil(64).min(self.0.len());
        words.flat_map(move |at| {
            let mut left = self.0[at];
            if at == range.start / 64 {
                left &= u64::MAX << (range.start % 64);
            }
            if at == range.end / 64 {
                left &= !(u64::MAX << (range.end % 64));
            }
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }

    /// All of them in a list.
    pub(crate) fn list(&self) -> Vec<u32> {
        let mut numbers = Vec::new();
        self.list_to(&mut numbers);
        numbers
    }

    /// Adds the numbers in it to a list.
    pub(crate) fn list_to(&self, numbers: &mut Vec<u32>) {
        let start = numbers.len();
        numbers.resize(start + self.count() as usize, 0);
        let mut left = &mut numbers[start..];
        for (word, at) in self.0.iter().zip((0u32..).step_by(64)) {
            let (places, others) = left.split_at_mut(word.count_ones() as usize);
            left = others;
            if *word == u64::MAX {
                places.iter_mut().zip(at..).for_each(|(place, number)| *place = number);
                continue;
            }
            let mut bits = *word;
            for place in places {
                *place = at + bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
            }
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.0.len() * 8
    }
}

/// 64 bytes that are 0 or 1 as bits. The product moves the lowest bit of each of eight bytes to a place of its own in the highest byte.
fn packed(bytes: &[u8; 64]) -> u64 {
    let (eights, _) = bytes.as_chunks::<8>();
    let byte = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().zip((0..64).step_by(8)).fold(0, |word, (eight, place)| word | byte(eight) << place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(a in prop::collection::btree_set(0..300usize, 0..60), b in prop::collection::btree_set(0..300usize, 0..60), length in 0..300usize, from in 0..300usize) {
            let bits = |numbers: &BTreeSet<usize>| {
                let mut bits = Bits::default();
                numbers.iter().for_each(|number| assert!(bits.put(*number) && !bits.put(*number)));
                bits
            };
            let changed = |change: fn(&mut Bits, &Bits)| {
                let mut changed = bits(&a);
                change(&mut changed, &bits(&b));
                changed.iter().collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(changed(Bits::and), &a & &b);
            prop_assert_eq!(changed(Bits::or), &a | &b);
            prop_assert_eq!(changed(|bits, other| bits.retain(|number| other.has(number))), &a & &b);
            prop_assert_eq!(changed(Bits::and_not), &a - &b);
            prop_assert_eq!(bits(&a).count(), a.len() as u64);
            prop_assert!(bits(&a).list().into_iter().map(|number| number as usize).eq(bits(&a).iter()));
            prop_assert_eq!(bits(&a).within(from..length).collect::<Vec<_>>(), a.range(from.min(length)..length).copied().collect::<Vec<_>>());
            prop_assert!((0..400).all(|number| bits(&a).has(number) == a.contains(&number)));
            prop_assert_eq!(Bits::from_fn(length, |number| a.contains(&number)).iter().collect::<Vec<_>>(), a.range(..length).copied().collect::<Vec<_>>());
            let values: Vec<usize> = (0..length).collect();
            prop_assert_eq!(Bits::of_values(&values, |number| a.contains(number)), Bits::from_fn(length, |number| a.contains(&number)));
            prop_assert_eq!(Bits::all(length).iter().collect::<Vec<_>>(), (0..length).collect::<Vec<_>>());
            prop_assert_eq!(Bits::none(length).count(), 0);
        }
    }
}
