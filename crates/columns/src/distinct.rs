//! Counts distinct values by group, exactly: by bits where these are few, else by pairs that are put in the order of groups from time
//! to time, so that one group's values are looked at together, with bits for just these.

use crate::bits::Bits;
use crate::gather::Rows;
use crate::space::NONE;
use std::ops::Range;

/// Most words of bits of all groups (4 MiB): what a processor has at hand.
const MOST_WORDS: usize = 1 << 19;
/// Pairs gathered beyond twice those known to be distinct before they are sifted.
const SLACK: usize = 1 << 21;

/// The values seen in each group.
#[derive(Default)]
pub(crate) struct Distinct {
    bits: Option<Table>,
    /// Group and value.
    pairs: Vec<Vec<u64>>,
    /// How many pairs there are, and how many of these are known to be distinct.
    length: usize,
    distinct: usize,
    /// Beyond every group and every value so far.
    groups: usize,
    values: usize,
    counts: Vec<u64>,
}

/// One bit for each group and value.
struct Table {
    words: Vec<u64>,
    /// Words of a group.
    width: usize,
}

impl Distinct {
    /// How many there are of each group, counted elsewhere.
    pub(crate) fn counted(counts: Vec<u64>) -> Distinct {
        Distinct { counts, ..Distinct::default() }
    }

    /// Takes in some rows; `values` are the numbers of their values, below `length`.
    pub(crate) fn add(&mut self, rows: &Rows<'_>, values: &[u32], length: usize) {
        (self.groups, self.values) = (self.groups.max(rows.groups_length), self.values.max(length));
        if self.bits.is_none() && self.length == 0 {
            // More bits than rows would take longer to clear and to count than pairs take to be sifted.
            self.bits = Table::new(self.groups, self.values, MOST_WORDS.min(rows.expected));
        }
        if let Some(bits) = &mut self.bits {
            if bits.widen(self.groups, self.values) {
                // The bit of the missing value is not counted.
                rows.each(|row, group| bits.put(group, values[row]));
                return;
            }
            self.unpack();
        }
        let mut pairs = Vec::with_capacity(rows.count());
        rows.each(|row, group| {
            if values[row] != NONE {
                pairs.push(pair(group, values[row]));
            }
        });
        self.length += pairs.len();
        self.pairs.push(pairs);
        if self.length > 2 * self.distinct + SLACK {
            self.sift();
        }
    }

    /// Takes in what another thread has found.
    pub(crate) fn merge(&mut self, mut other: Distinct) {
        (self.groups, self.values) = (self.groups.max(other.groups), self.values.max(other.values));
        if let (Some(ours), Some(theirs)) = (&mut self.bits, &other.bits)
            && ours.widen(self.groups, self.values)
        {
            ours.or(theirs);
            return;
        }
        self.unpack();
        other.unpack();
        self.pairs.append(&mut other.pairs);
        self.length += other.length;
        self.distinct = self.distinct.max(other.distinct);
    }

    /// Takes less room, when more will come only later.
    pub(crate) fn shrink(&mut self) {
        match &self.bits {
            Some(bits) if bits.words.iter().map(|word| word.count_ones() as usize).sum::<usize>() < bits.words.len() => self.unpack(),
            Some(_) => {}
            None => self.sift(),
        }
    }

    /// Counts; nothing may come after this.
    pub(crate) fn settle(&mut self, threads: usize) {
        if let Some(bits) = self.bits.take() {
            self.counts = (0..self.groups).map(|group| bits.count(group)).collect();
            return;
        }
        if self.length == 0 {
            return;
        }
        let starts = self.starts();
        let mut counts = vec![0; self.groups];
        // Each thread has groups with about as many pairs as the others.
        let threads = if self.length < SLACK { 1 } else { threads };
        let cut = |thread: usize| starts.partition_point(|start| *start < self.length * thread / threads).min(self.groups);
        std::thread::scope(|scope| {
            let mut left = &mut counts[..];
            for thread in 1..=threads {
                let groups = if thread == 1 { 0 } else { cut(thread - 1) }..if thread == threads { self.groups } else { cut(thread) };
                let (ours, rest) = left.split_at_mut(groups.len());
                left = rest;
                let (distinct, starts, first) = (&*self, &starts[..], groups.start);
                let work = move || distinct.each_distinct(groups, starts, |group, _| ours[group - first] += 1);
                if thread == threads { work() } else { _ = scope.spawn(work) }
            }
        });
        (self.counts, self.pairs) = (counts, Vec::new());
    }

    /// The distinct values of a group, once settled.
    pub(crate) fn count(&self, group: usize) -> u64 {
        self.counts.get(group).copied().unwrap_or(0)
    }

    /// Turns bits into pairs.
    fn unpack(&mut self) {
        if let Some(bits) = self.bits.take() {
            let pairs = bits.pairs();
            (self.length, self.distinct) = (pairs.len(), pairs.len());
            self.pairs = vec![pairs];
        }
    }

    /// Drops pairs that are there twice.
    fn sift(&mut self) {
        if self.length > self.distinct {
            let mut pairs = Vec::with_capacity(self.length / 2);
            self.each_distinct(0..self.groups, &self.starts(), |group, value| pairs.push(pair(group, value)));
            (self.length, self.distinct) = (pairs.len(), pairs.len());
            self.pairs = vec![pairs];
        }
    }

    /// How many pairs come before each group's in the order of groups, and how many there are.
    fn starts(&self) -> Vec<usize> {
        let mut starts = vec![0; self.groups + 1];
        self.pairs.iter().flatten().for_each(|pair| starts[(pair >> 32) as usize + 1] += 1);
        for group in 0..self.groups {
            starts[group + 1] += starts[group];
        }
        starts
    }

    /// Visits the distinct pairs of some groups in the order of groups.
    fn each_distinct(&self, groups: Range<usize>, starts: &[usize], mut visit: impl FnMut(usize, u32)) {
        let first = starts[groups.start];
        let mut values = vec![NONE; starts[groups.end] - first];
        let mut places: Vec<usize> = starts[groups.clone()].iter().map(|start| start - first).collect();
        for pair in self.pairs.iter().flatten() {
            let group = (pair >> 32) as usize;
            if groups.contains(&group) {
                let place = &mut places[group - groups.start];
                values[*place] = *pair as u32;
                *place += 1;
            }
        }
        let mut seen = Bits::none(self.values);
        for group in groups {
            let of_group = &values[starts[group] - first..starts[group + 1] - first];
            of_group.iter().filter(|value| seen.put(**value as usize)).for_each(|value| visit(group, *value));
            seen.clear(of_group);
        }
    }
}

impl Table {
    fn new(groups: usize, values: usize, most: usize) -> Option<Table> {
        let width = values.div_ceil(64);
        (groups.saturating_mul(width) <= most).then(|| Table { words: vec![0; groups * width], width })
    }

    /// Makes room for more groups and values; `false`: that would be too much.
    fn widen(&mut self, groups: usize, values: usize) -> bool {
        let needed = values.div_ceil(64);
        if needed > self.width {
            // With room for some more values.
            let Some(mut wider) = Table::new(groups.max(self.groups()), (needed + needed / 2) * 64, MOST_WORDS) else { return false };
            wider.or(self);
            *self = wider;
        }
        if groups.saturating_mul(self.width) > MOST_WORDS {
            return false;
        }
        if groups > self.groups() {
            self.words.resize(groups * self.width, 0);
        }
        true
    }

    fn groups(&self) -> usize {
        self.words.len() / self.width
    }

    #[inline(always)]
    fn put(&mut self, group: usize, value: u32) {
        self.words[group * self.width + (value >> 6) as usize] |= 1 << (value & 63);
    }

    /// Adds the bits of another that has no more groups and, but for room, is no wider.
    fn or(&mut self, other: &Table) {
        for (ours, theirs) in self.words.chunks_mut(self.width).zip(other.words.chunks(other.width)) {
            ours.iter_mut().zip(theirs).for_each(|(word, with)| *word |= with);
        }
    }

    fn count(&self, group: usize) -> u64 {
        let words = self.words.get(group * self.width..(group + 1) * self.width).unwrap_or_default();
        let missing = words.first().map_or(0, |word| word & 1);
        words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() - missing
    }

    fn pairs(&self) -> Vec<u64> {
        let mut pairs = Vec::new();
        for (group, words) in self.words.chunks(self.width).enumerate() {
            for (at, &word) in words.iter().enumerate() {
                let mut left = if at == 0 { word & !1 } else { word };
                while left != 0 {
                    pairs.push(pair(group, at as u32 * 64 + left.trailing_zeros()));
                    left &= left - 1;
                }
            }
        }
        pairs
    }
}

fn pair(group: usize, value: u32) -> u64 {
    (group as u64) << 32 | u64::from(value)
}
