//! The rows of a batch by the values of one attribute: the rows of a value lie together, so that what is asked of distinct values by group
//! takes one look at each row, however many groups there are. Values are in the order of their first rows: most have few, and so most
//! looks go forward through the rows.

use crate::bits::Bits;
use crate::space::NONE;

pub(crate) struct ByValue {
    /// Those that have a value: twice the row, and one more for the first row of a value. So it takes no branch to tell values apart,
    /// which with a row or two for each would be guessed wrong at every other one.
    rows: Vec<u32>,
}

impl ByValue {
    /// By block the numbers of the values of its rows, all below `length`.
    pub(crate) fn new(numbers: &[&[u32]], length: usize) -> ByValue {
        let all = || numbers.iter().flat_map(|of_block| of_block.iter().copied());
        // Of each value how many rows it has, and, once the first of them was seen, where the next one goes.
        let mut of_value = vec![(0u32, 0u32); length];
        all().for_each(|number| of_value[number as usize].0 += 1);
        let count = all().count() - of_value.first().map_or(0, |(missing, _)| *missing as usize);
        let (mut rows, mut next) = (vec![0; count], 0);
        for (row, number) in (0u32..).zip(all()).filter(|(_, number)| *number != NONE) {
            let (count, place) = &mut of_value[number as usize];
            let is_first = *count > 0;
            if is_first {
                *place = next;
                next += std::mem::take(count);
            }
            rows[*place as usize] = row * 2 + u32::from(is_first);
            *place += 1;
        }
        ByValue { rows }
    }

    /// How many distinct values the rows at each place have; rows at none of `length` places are passed over.
    pub(crate) fn count(&self, places: &[u32], length: usize) -> Vec<u64> {
        // Of each place the value that was counted last, the first being 1, and how many were. Another place is for all rows at none.
        let mut of_place = vec![(0u32, 0u32); length + 1];
        let mut value = 0;
        for row in &self.rows {
            value += row & 1;
            let (last, count) = &mut of_place[(places[*row as usize / 2] as usize).min(length)];
            *count += u32::from(*last != value);
            *last = value;
        }
        of_place.truncate(length);
        of_place.into_iter().map(|(_, count)| u64::from(count)).collect()
    }

    /// How many distinct values the rows at some places have, all these places taken as one.
    pub(crate) fn count_within(&self, places: &[u32], within: &Bits, length: usize) -> u64 {
        let is_within: Vec<u64> = (0..=length).map(|place| u64::from(place < length && within.has(place))).collect();
        let (mut count, mut is_counted) = (0, 0);
        for row in &self.rows {
            is_counted &= u64::from(row & 1) ^ 1;
            let is_new = is_within[(places[*row as usize / 2] as usize).min(length)] & (is_counted ^ 1);
            count += is_new;
            is_counted |= is_new;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn distinct_values_are_counted_by_place(
            rows in prop::collection::vec((0..9u32, prop_oneof![3 => 0..4u32, 1 => Just(u32::MAX)]), 0..60),
            cut in 0..60usize,
            within in prop::collection::btree_set(0..4u32, 0..4),
        ) {
            let (numbers, places): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
            let (first, second) = numbers.split_at(cut.min(numbers.len()));
            let by_value = ByValue::new(&[first, second], 9);
            let distinct = |is_meant: &dyn Fn(u32) -> bool| {
                rows.iter().filter(|(number, place)| *number != NONE && is_meant(*place)).map(|(number, _)| number).collect::<BTreeSet<_>>().len() as u64
            };
            let expected: Vec<u64> = (0..4).map(|place| distinct(&|of_row| of_row == place)).collect();
            prop_assert_eq!(by_value.count(&places, 4), expected);
            let mut bits = Bits::none(4);
            within.iter().for_each(|place| _ = bits.put(*place as usize));
            prop_assert_eq!(by_value.count_within(&places, &bits, 4), distinct(&|of_row| within.contains(&of_row)));
        }
    }
}
