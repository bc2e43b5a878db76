//! Counts distinct values by group, exactly: bits where there is about one for each row that comes, else pairs that are put in order
//! of group from time to time.

use crate::gather::Rows;
use crate::space::NONE;

/// Words of bits up to this many are kept whatever the rows.
const FEW_WORDS: usize = 1 << 14;
/// Most words of bits (64 MiB).
const MOST_WORDS: usize = 1 << 23;
/// Pairs gathered beyond twice those known to be distinct before they are looked through.
const SLACK: usize = 1 << 20;

/// The values seen in each group.
#[derive(Default)]
pub(crate) struct Distinct {
    bits: Option<Table>,
    /// Group and value; the first `distinct` of them are distinct and in the order of groups.
    pairs: Vec<u64>,
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
    /// Takes in some rows; `values` are the numbers of their values, below `length`.
    pub(crate) fn add(&mut self, rows: &Rows<'_>, values: &[u32], length: usize) {
        (self.groups, self.values) = (self.groups.max(rows.groups_length), self.values.max(length));
        let most = FEW_WORDS.max(rows.expected).min(MOST_WORDS);
        if self.bits.is_none() && self.pairs.is_empty() {
            self.bits = Table::new(self.groups, self.values, most);
        }
        if let Some(bits) = &mut self.bits {
            if bits.widen(self.groups, self.values, most) {
                // The bit of the missing value is not counted.
                rows.each(|row, group| bits.put(group, values[row]));
                return;
            }
            self.unpack();
        }
        rows.each(|row, group| {
            if values[row] != NONE {
                self.pairs.push(pair(group, values[row]));
            }
        });
        if self.pairs.len() > 2 * self.distinct + SLACK {
            self.sift();
        }
    }

    /// Takes in what another thread has found.
    pub(crate) fn merge(&mut self, mut other: Distinct) {
        (self.groups, self.values) = (self.groups.max(other.groups), self.values.max(other.values));
        if let (Some(ours), Some(theirs)) = (&mut self.bits, &other.bits)
            && ours.widen(self.groups, self.values, MOST_WORDS)
        {
            ours.or(theirs);
            return;
        }
        self.unpack();
        other.unpack();
        self.pairs.append(&mut other.pairs);
        self.sift();
    }

    /// Takes less room, when more will come only later.
    pub(crate) fn shrink(&mut self) {
        if let Some(bits) = &self.bits
            && bits.words.iter().map(|word| word.count_ones() as usize).sum::<usize>() < bits.words.len()
        {
            self.unpack();
        }
    }

    /// Counts; nothing may come after this.
    pub(crate) fn settle(&mut self) {
        self.counts = match self.bits.take() {
            Some(bits) => (0..self.groups).map(|group| bits.count(group)).collect(),
            None => {
                self.sift();
                let mut counts = vec![0; self.groups];
                std::mem::take(&mut self.pairs).iter().for_each(|pair| counts[(pair >> 32) as usize] += 1);
                counts
            }
        };
    }

    /// The distinct values of a group, once settled.
    pub(crate) fn count(&self, group: usize) -> u64 {
        self.counts.get(group).copied().unwrap_or(0)
    }

    /// Turns bits into pairs.
    fn unpack(&mut self) {
        if let Some(bits) = self.bits.take() {
            self.pairs = bits.pairs();
            self.distinct = self.pairs.len();
        }
    }

    /// Drops pairs that are there twice, and puts the others in the order of groups.
    fn sift(&mut self) {
        if self.pairs.len() == self.distinct {
            return;
        }
        if self.pairs.len() < (self.groups + self.values) / 8 {
            self.pairs.sort_unstable();
            self.pairs.dedup();
        } else {
            self.sift_many();
        }
        self.distinct = self.pairs.len();
    }

    /// The same in two passes: values into the order of groups, then group by group those that were seen there before are left out.
    fn sift_many(&mut self) {
        let mut ends = vec![0usize; self.groups + 1];
        self.pairs.iter().for_each(|pair| ends[(pair >> 32) as usize + 1] += 1);
        for group in 1..ends.len() {
            ends[group] += ends[group - 1];
        }
        let mut values = vec![NONE; self.pairs.len()];
        for pair in &self.pairs {
            let place = &mut ends[(pair >> 32) as usize];
            values[*place] = *pair as u32;
            *place += 1;
        }
        // Now every entry is where its group ends.
        let mut last_group = vec![u32::MAX; self.values];
        self.pairs.clear();
        let mut from = 0;
        for (group, &end) in ends[..self.groups].iter().enumerate() {
            for &value in &values[from..end] {
                if std::mem::replace(&mut last_group[value as usize], group as u32) != group as u32 {
                    self.pairs.push(pair(group, value));
                }
            }
            from = end;
        }
    }
}

impl Table {
    fn new(groups: usize, values: usize, most: usize) -> Option<Table> {
        let width = values.div_ceil(64);
        (groups.saturating_mul(width) <= most).then(|| Table { words: vec![0; groups * width], width })
    }

    /// Makes room for more groups and values; `false`: that would be too much.
    fn widen(&mut self, groups: usize, values: usize, most: usize) -> bool {
        let needed = values.div_ceil(64);
        if needed > self.width {
            let groups = groups.max(self.groups());
            // Some room ahead, where there is any.
            let width = if groups.saturating_mul(needed * 2) <= most { needed * 2 } else { needed };
            let Some(mut wider) = Table::new(groups, width * 64, most) else { return false };
            wider.or(self);
            *self = wider;
        }
        if groups.saturating_mul(self.width) > most.max(self.words.len()) {
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

    #[inline]
    fn put(&mut self, group: usize, value: u32) {
        self.words[group * self.width + (value >> 6) as usize] |= 1 << (value & 63);
    }

    /// Adds the bits of another that is no wider and has no more groups.
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
