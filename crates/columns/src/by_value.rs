//! The rows of a batch by the values of one attribute: the rows of a value lie together, so that what is asked of distinct values by group
//! takes one look at each row, however many groups there are. Values with as many rows lie together, too, when these are few: identifiers
//! have mostly one row in a minute, or two. All are in the order of their first rows, so that most looks go forward through the rows.

use crate::bits::Bits;
use crate::gather::Rows;
use crate::space::NONE;

#[derive(Default)]
pub(crate) struct ByValue {
    /// The rows of each value that has one, two, three, four.
    ones: Vec<[u32; 1]>,
    twos: Vec<[u32; 2]>,
    threes: Vec<[u32; 3]>,
    fours: Vec<[u32; 4]>,
    /// The rows of values that have more: twice the row, and one more for the first row of a value. So it takes no branch to tell values
    /// apart, which would be guessed wrong too often.
    many: Vec<u32>,
}

/// The place of each row of a batch, and another one for rows that have none. They are as short as their number lets them be: most are looked
/// at in no order, and a processor has more of the short ones at hand.
pub(crate) enum Places {
    Bytes(Vec<u8>),
    Shorts(Vec<u16>),
    Words(Vec<u32>),
}

/// A place as it is kept.
trait Place: Copy + Eq {
    fn of(place: usize) -> Self;

    fn place(self) -> usize;
}

impl ByValue {
    /// By block the numbers of the values of its rows, all below `length`.
    pub(crate) fn new(numbers: &[&[u32]], length: usize) -> ByValue {
        let all = || (0u32..).zip(numbers.iter().flat_map(|of_block| of_block.iter().copied())).filter(|(_, number)| *number != NONE);
        let mut counts = vec![0u32; length];
        all().for_each(|(_, number)| counts[number as usize] += 1);
        let mut values = [0; 4];
        let mut rows_of_many = 0;
        for count in &counts {
            match count {
                0 => {}
                1..=4 => values[*count as usize - 1] += 1,
                count => rows_of_many += count,
            }
        }
        let mut by_value = ByValue {
            ones: Vec::with_capacity(values[0]),
            twos: Vec::with_capacity(values[1]),
            threes: Vec::with_capacity(values[2]),
            fours: Vec::with_capacity(values[3]),
            many: vec![0; rows_of_many as usize],
        };
        // Once the first row of a value was seen: where the next one goes, and how many came.
        let (mut seen, mut next) = (vec![(0u32, 0u32); length], 0);
        for (row, number) in all() {
            let count = counts[number as usize];
            let (place, came) = &mut seen[number as usize];
            match count {
                1 => by_value.ones.push([row]),
                2 => put(&mut by_value.twos, row, place, *came),
                3 => put(&mut by_value.threes, row, place, *came),
                4 => put(&mut by_value.fours, row, place, *came),
                _ => {
                    if *came == 0 {
                        *place = next;
                        next += count;
                    }
                    by_value.many[(*place + *came) as usize] = row * 2 + u32::from(*came == 0);
                }
            }
            *came += 1;
        }
        by_value
    }

    /// How many distinct values the rows at each of `length` places have.
    pub(crate) fn count(&self, places: &Places, length: usize) -> Vec<u64> {
        match places {
            Places::Bytes(places) => self.count_at(places, length),
            Places::Shorts(places) => self.count_at(places, length),
            Places::Words(places) => self.count_at(places, length),
        }
    }

    fn count_at<P: Place>(&self, places: &[P], length: usize) -> Vec<u64> {
        // One more for all rows that have no place.
        let mut counts = vec![0u64; length + 1];
        count_few(&self.ones, places, &mut counts);
        count_few(&self.twos, places, &mut counts);
        count_few(&self.threes, places, &mut counts);
        count_few(&self.fours, places, &mut counts);
        if !self.many.is_empty() {
            // Of each place the value that was counted last, the first being 1, and how many were.
            let mut of_place = vec![(0u32, 0u32); length + 1];
            let mut value = 0;
            for row in &self.many {
                value += row & 1;
                let (last, count) = &mut of_place[places[*row as usize / 2].place()];
                *count += u32::from(*last != value);
                *last = value;
            }
            counts.iter_mut().zip(of_place).for_each(|(count, (_, more))| *count += u64::from(more));
        }
        counts.truncate(length);
        counts
    }

    /// How many distinct values the rows at some of `length` places have, all these taken as one.
    pub(crate) fn count_within(&self, places: &Places, within: &Bits, length: usize) -> u64 {
        let is_within: Vec<u64> = (0..=length).map(|place| u64::from(place < length && within.has(place))).collect();
        match places {
            Places::Bytes(places) => self.count_some(places, &is_within),
            Places::Shorts(places) => self.count_some(places, &is_within),
            Places::Words(places) => self.count_some(places, &is_within),
        }
    }

    fn count_some<P: Place>(&self, places: &[P], is_within: &[u64]) -> u64 {
        let is_meant = |row: u32| is_within[places[row as usize].place()];
        let (mut count, mut is_counted) = (0, 0);
        for row in &self.many {
            is_counted &= u64::from(row & 1) ^ 1;
            let is_new = is_meant(row / 2) & (is_counted ^ 1);
            count += is_new;
            is_counted |= is_new;
        }
        count + any(&self.ones, is_meant) + any(&self.twos, is_meant) + any(&self.threes, is_meant) + any(&self.fours, is_meant)
    }
}

/// Puts a row where its value's rows are, of which some came before.
fn put<const N: usize>(values: &mut Vec<[u32; N]>, row: u32, place: &mut u32, came: u32) {
    if came == 0 {
        *place = values.len() as u32;
        values.push([row; N]);
    } else {
        values[*place as usize][came as usize] = row;
    }
}

/// Counts values with as many rows each: at every place that one of these rows is the first to have.
fn count_few<P: Place, const N: usize>(values: &[[u32; N]], places: &[P], counts: &mut [u64]) {
    for rows in values {
        let of_rows = rows.map(|row| places[row as usize]);
        for (at, place) in of_rows.iter().enumerate() {
            let is_first = of_rows[..at].iter().fold(true, |is_first, before| is_first & (before != place));
            counts[place.place()] += u64::from(is_first);
        }
    }
}

/// How many of the values have a row that is meant.
fn any<const N: usize>(values: &[[u32; N]], is_meant: impl Fn(u32) -> u64) -> u64 {
    values.iter().map(|rows| rows.iter().fold(0, |any, row| any | is_meant(*row))).sum()
}

impl Places {
    /// Makes them those of a batch of so many rows, which has parts: the row before each, and its rows with their places.
    pub(crate) fn fill<'r>(&mut self, rows: usize, length: usize, parts: impl Iterator<Item = (usize, Rows<'r>)>) {
        // The memory of the last ones is used again where they were as short, as they mostly were.
        *self = match (length, std::mem::take(self)) {
            (..=0xff, Places::Bytes(list)) => Places::Bytes(filled(list, rows, length, parts)),
            (..=0xff, _) => Places::Bytes(filled(Vec::new(), rows, length, parts)),
            (..=0xffff, Places::Shorts(list)) => Places::Shorts(filled(list, rows, length, parts)),
            (..=0xffff, _) => Places::Shorts(filled(Vec::new(), rows, length, parts)),
            (_, Places::Words(list)) => Places::Words(filled(list, rows, length, parts)),
            (_, _) => Places::Words(filled(Vec::new(), rows, length, parts)),
        }
    }
}

impl Default for Places {
    fn default() -> Places {
        Places::Bytes(Vec::new())
    }
}

fn filled<'r, P: Place>(mut list: Vec<P>, rows: usize, length: usize, parts: impl Iterator<Item = (usize, Rows<'r>)>) -> Vec<P> {
    list.clear();
    list.resize(rows, P::of(length));
    for (start, rows) in parts {
        let of_block = &mut list[start..][..rows.block.rows()];
        rows.each(|row, place| of_block[row] = P::of(place));
    }
    list
}

impl Place for u8 {
    fn of(place: usize) -> u8 {
        place as u8
    }

    fn place(self) -> usize {
        self.into()
    }
}

impl Place for u16 {
    fn of(place: usize) -> u16 {
        place as u16
    }

    fn place(self) -> usize {
        self.into()
    }
}

impl Place for u32 {
    fn of(place: usize) -> u32 {
        place as u32
    }

    fn place(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Block;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn distinct_values_are_counted_by_place(
            rows in prop::collection::vec((0..12u32, prop_oneof![3 => Just(true), 1 => Just(false)], 0..4usize), 0..60),
            cut in 0..60usize,
            within in prop::collection::btree_set(0..4usize, 0..4),
            // As short as places can be, and longer.
            more in prop_oneof![Just(0usize), Just(251), Just(252), Just(0xfffb), Just(0xfffc)],
        ) {
            let numbers: Vec<u32> = rows.iter().map(|(number, _, _)| *number).collect();
            let (first, second) = numbers.split_at(cut.min(numbers.len()));
            let by_value = ByValue::new(&[first, second], 12);
            let mut places = Places::default();
            let starts = [0, first.len()];
            let blocks = [Block::without_places(first.len()), Block::without_places(second.len())];
            let parts: Vec<(Vec<u32>, Vec<u32>)> = starts.iter().zip(&blocks).map(|(start, block)| {
                let taken = (0..block.rows()).filter(|row| rows[start + row].1);
                taken.map(|row| (row as u32, (more + rows[start + row].2) as u32)).unzip()
            }).collect();
            let of_parts = starts.iter().zip(&blocks).zip(&parts).map(|((start, block), (chosen, groups))| {
                (*start, Rows { block, chosen: Some(chosen), groups: Some(groups), groups_length: more + 4, expected: 0 })
            });
            places.fill(rows.len(), more + 4, of_parts);
            let distinct = |is_meant: &dyn Fn(usize) -> bool| {
                let meant = rows.iter().filter(|(number, is_taken, place)| *number != NONE && *is_taken && is_meant(*place));
                meant.map(|(number, _, _)| number).collect::<BTreeSet<_>>().len() as u64
            };
            let expected: Vec<u64> = (0..4).map(|place| distinct(&|of_row| of_row == place)).collect();
            let counts = by_value.count(&places, more + 4);
            prop_assert_eq!(&counts[more..], &expected[..]);
            prop_assert!(counts[..more].iter().all(|count| *count == 0));
            let mut bits = Bits::none(more + 4);
            within.iter().for_each(|place| _ = bits.put(more + *place));
            prop_assert_eq!(by_value.count_within(&places, &bits, more + 4), distinct(&|of_row| within.contains(&of_row)));
        }
    }
}
