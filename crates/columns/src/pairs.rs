//! Numbers for the keys of a scan that have more than one part: pairs of the number of what comes before and that of the next value. They
//! are shared by all threads, as those of values are (`space`).

use crate::bits::Bits;
use crate::space::{NONE, SMALL_TABLE, put_numbers};
use hashbrown::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest table of pairs.
const LONGEST_TABLE: usize = 1 << 23;

/// The keys of a list of group-by attributes, beyond the first: pairs of the number of what comes before and that of the next value.
#[derive(Default)]
pub(crate) struct Pairs(Mutex<Keys>);

/// In one of three ways: as they come (a table, or where that would be too long a map), all at once in order, or as products.
#[derive(Default)]
struct Keys {
    /// By number; none where numbers are products.
    pairs: Vec<u64>,
    /// One more than a pair's number: at `before * width + next`, or where pairs are far fewer than such places, by pair.
    table: Option<(usize, Arc<[AtomicU32]>)>,
    few: HashMap<u64, u32>,
    ordered: Option<Ordered>,
    product: Option<Product>,
}

/// Where every pair that may be has a number: `before * width + next`.
#[derive(Clone, Copy)]
struct Product {
    width: u32,
    length: u32,
}

/// Where pairs were numbered all at once: those with the same part before lie together.
struct Ordered {
    /// Where those of each part before begin, and where the last ones end.
    starts: Vec<u32>,
    /// By row.
    numbers: Arc<[u32]>,
}

/// The two parts of the pairs of a block by row, and which rows are asked for.
pub(crate) type Parts<'a> = ((&'a [u32], &'a [u32]), Option<Bits>);

impl Pairs {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more than the greatest number given.
    pub(crate) fn length(&self) -> usize {
        let keys = self.lock();
        keys.product.map_or(keys.pairs.len(), |product| product.length as usize)
    }

    /// Lists the numbers of pairs by row; of rows that are not among `some` they mean nothing. `lengths` is beyond every number of either
    /// part; about `expected` rows will be asked for in all.
    pub(crate) fn numbers(
        &self,
        (before, next): (&[u32], &[u32]),
        lengths: (usize, usize),
        expected: usize,
        some: Option<&Bits>,
        numbers: &mut Vec<u32>,
    ) {
        let mut keys = self.lock();
        let Some((width, table)) = keys.table(lengths, expected) else {
            return put_numbers(numbers, before.len(), some, |row| keys.of_few(pair(before[row], next[row])));
        };
        drop(keys);
        let mut locked = None;
        put_numbers(numbers, before.len(), some, |row| {
            let place = before[row] as usize * width + next[row] as usize;
            match table[place].load(Ordering::Relaxed) {
                NONE => locked.get_or_insert_with(|| self.lock()).of_place(&table, place, pair(before[row], next[row])),
                number => number - 1,
            }
        });
    }

    /// The same, where `lengths` will not grow and are so small that each pair that may be has a number.
    pub(crate) fn products(&self, (before, next): (&[u32], &[u32]), (befores, nexts): (usize, usize), numbers: &mut Vec<u32>) {
        let width = nexts as u32;
        self.lock().product = Some(Product { width, length: befores as u32 * width });
        numbers.clear();
        numbers.extend(before.iter().zip(next).map(|(before, next)| before * width + next));
    }

    /// The numbers of the pairs of all rows there will ever be, below 2^32, block behind block; of rows that are not asked for they mean
    /// nothing. Faster than looking each pair up where there are too many for a table.
    pub(crate) fn all_numbers<'p>(&self, (befores, nexts): (usize, usize), parts: impl FnOnce() -> Vec<Parts<'p>>) -> Arc<[u32]> {
        let mut keys = self.lock();
        if let Some(ordered) = &keys.ordered {
            return ordered.numbers.clone();
        }
        let (pairs, ordered) = in_order_of_befores(&parts(), (befores, nexts));
        let numbers = ordered.numbers.clone();
        *keys = Keys { pairs, ordered: Some(ordered), ..Keys::default() };
        numbers
    }

    /// The numbers of pairs that have one.
    pub(crate) fn find(&self, pairs: &[Option<(u32, u32)>]) -> Vec<Option<u32>> {
        let keys = self.lock();
        if let Some(Product { width, .. }) = keys.product {
            return pairs.iter().map(|pair| pair.map(|(before, next)| before * width + next)).collect();
        }
        match (&keys.table, &keys.ordered) {
            (Some((width, table)), _) => {
                let find = |(before, next): (u32, u32)| {
                    let number = table.get((before as usize).checked_mul(*width)? + next as usize)?.load(Ordering::Relaxed);
                    ((next as usize) < *width && number != NONE).then(|| number - 1)
                };
                pairs.iter().map(|pair| find((*pair)?)).collect()
            }
            (None, Some(ordered)) => ordered.find(&keys.pairs, pairs),
            (None, None) => pairs.iter().map(|found| found.and_then(|(before, next)| keys.few.get(&pair(before, next)).copied())).collect(),
        }
    }

    /// The parts of pairs.
    pub(crate) fn parts(&self, numbers: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let keys = self.lock();
        if let Some(Product { width, .. }) = keys.product {
            return (numbers.iter().map(|number| number / width).collect(), numbers.iter().map(|number| number % width).collect());
        }
        let pairs = || numbers.iter().map(|number| keys.pairs[*number as usize]);
        (pairs().map(|pair| (pair >> 32) as u32).collect(), pairs().map(|pair| pair as u32).collect())
    }

    /// Whether there are at most so many pairs that may be.
    pub(crate) fn are_few((befores, nexts): (usize, usize), pairs: usize) -> bool {
        befores.saturating_mul(nexts) <= pairs.min(LONGEST_TABLE)
    }

    /// Forgets all pairs.
    pub(crate) fn clear(&self) {
        *self.lock() = Keys::default();
    }
}

/// Looks at each row that is asked for, with the parts of its pair.
fn each_pair(parts: &[Parts<'_>], mut visit: impl FnMut(u32, u32, u32)) {
    let mut start = 0;
    for ((before, next), some) in parts {
        let mut visit_row = |row: usize| visit(start + row as u32, before[row], next[row]);
        match some {
            None => (0..before.len()).for_each(&mut visit_row),
            Some(some) => some.iter().for_each(&mut visit_row),
        }
        start += before.len() as u32;
    }
}

/// Numbers pairs in the order of their parts before, which are below the first length as those that come next are below the second.
fn in_order_of_befores(parts: &[Parts<'_>], (befores, nexts): (usize, usize)) -> (Vec<u64>, Ordered) {
    let rows: usize = parts.iter().map(|((before, _), _)| before.len()).sum();
    // Rows and what comes next in them, in the order of what comes before.
    let mut ends = vec![0u32; befores + 1];
    each_pair(parts, |_, before, _| ends[before as usize + 1] += 1);
    (0..befores).for_each(|at| ends[at + 1] += ends[at]);
    let mut of_rows = vec![(0u32, 0u32); ends[befores] as usize];
    each_pair(parts, |row, before, next| {
        let end = &mut ends[before as usize];
        of_rows[*end as usize] = (row, next);
        *end += 1;
    });
    let (mut pairs, mut starts, mut numbers) = (Vec::new(), Vec::with_capacity(befores + 1), vec![0; rows]);
    // One more than the number that each value had when it last came: with the same part before if that is beyond the first of those.
    let mut last = vec![0u32; nexts];
    let mut from = 0;
    for (before, end) in (0u64..).zip(ends.iter().take(befores)) {
        let start = pairs.len() as u32;
        starts.push(start);
        for (row, next) in &of_rows[from..*end as usize] {
            let last = &mut last[*next as usize];
            if *last <= start {
                pairs.push(before << 32 | u64::from(*next));
                *last = pairs.len() as u32;
            }
            numbers[*row as usize] = *last - 1;
        }
        from = *end as usize;
    }
    starts.push(pairs.len() as u32);
    (pairs, Ordered { starts, numbers: numbers.into() })
}

impl Ordered {
    fn find(&self, pairs: &[u64], sought: &[Option<(u32, u32)>]) -> Vec<Option<u32>> {
        let mut by_before: Vec<(u32, u32, usize)> =
            sought.iter().enumerate().filter_map(|(at, pair)| pair.map(|(before, next)| (before, next, at))).collect();
        by_before.sort_unstable();
        let mut found = vec![None; sought.len()];
        for together in by_before.chunk_by(|a, b| a.0 == b.0) {
            let before = together[0].0 as usize;
            let Some(&[start, end]) = self.starts.get(before..before + 2) else { continue };
            let nexts: HashMap<u32, usize> = together.iter().map(|(_, next, at)| (*next, *at)).collect();
            for number in start..end {
                if let Some(at) = nexts.get(&(pairs[number as usize] as u32)) {
                    found[*at] = Some(number);
                }
            }
        }
        found
    }
}

impl Keys {
    /// The width of the table, and the table; `None` when it does not pay.
    fn table(&mut self, (befores, nexts): (usize, usize), expected: usize) -> Option<(usize, Arc<[AtomicU32]>)> {
        // Another thread may have seen more of the one and less of the other.
        let (have_befores, have_nexts) = self.table.as_ref().map_or((0, 0), |(width, table)| (table.len() / width, *width));
        if let Some((width, table)) = &self.table
            && befores <= have_befores
            && nexts <= have_nexts
        {
            return Some((*width, table.clone()));
        }
        let (befores, nexts) = (befores.max(have_befores), nexts.max(have_nexts));
        if !self.few.is_empty() || befores.saturating_mul(nexts) > LONGEST_TABLE.min(SMALL_TABLE.max(expected.saturating_mul(4))) {
            if self.table.take().is_some() {
                self.few = self.pairs.iter().copied().zip(0..).collect();
            }
            return None;
        }
        // There is room for some more of both.
        let (width, height) = (nexts + nexts / 4, befores + befores / 4);
        let table: Arc<[AtomicU32]> = (0..width * height).map(|_| AtomicU32::new(NONE)).collect();
        for (pair, number) in self.pairs.iter().zip(1..) {
            table[(pair >> 32) as usize * width + *pair as u32 as usize].store(number, Ordering::Relaxed);
        }
        self.table = Some((width, table.clone()));
        Some((width, table))
    }

    fn of_few(&mut self, pair: u64) -> u32 {
        let Keys { few, pairs, .. } = self;
        *few.entry(pair).or_insert_with(|| {
            pairs.push(pair);
            pairs.len() as u32 - 1
        })
    }

    /// The number of a pair whose place in this table was empty when it was looked at.
    fn of_place(&mut self, table: &Arc<[AtomicU32]>, place: usize, pair: u64) -> u32 {
        let number = table[place].load(Ordering::Relaxed);
        if number != NONE {
            return number - 1;
        }
        // Another thread may have given it one in the table that has come in this one's stead.
        let number = match &self.table {
            Some((_, newer)) if Arc::ptr_eq(newer, table) => self.push(pair),
            Some((width, newer)) => {
                let place = (pair >> 32) as usize * width + pair as u32 as usize;
                match newer[place].load(Ordering::Relaxed) {
                    NONE => {
                        let newer = newer.clone();
                        let number = self.push(pair);
                        newer[place].store(number + 1, Ordering::Relaxed);
                        number
                    }
                    number => number - 1,
                }
            }
            None => self.of_few(pair),
        };
        table[place].store(number + 1, Ordering::Relaxed);
        number
    }

    fn push(&mut self, pair: u64) -> u32 {
        self.pairs.push(pair);
        self.pairs.len() as u32 - 1
    }
}

fn pair(before: u32, next: u32) -> u64 {
    u64::from(before) << 32 | u64::from(next)
}
