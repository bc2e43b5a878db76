//! What a scan has gathered for one filter and group-by: the reports and the state of each aggregate, group by group.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::dictionary::{Dictionary, MISSING};
use crate::distinct::Distinct;
use crate::space::{NONE, pays};
use hashbrown::HashMap;
use model::sum::ExactSum;
use model::{AggregateOp, Cell, Number, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// The rows of a block that pass, and the group of each row.
pub(crate) struct Rows<'a> {
    pub(crate) block: &'a Block,
    /// Ascending; `None`: all.
    pub(crate) chosen: Option<&'a [u32]>,
    /// The group of each row that passes; `None`: all are in group 0.
    pub(crate) groups: Option<&'a [u32]>,
    /// One more than the greatest group.
    pub(crate) groups_length: usize,
    /// About how many rows the scan will come upon in all.
    pub(crate) expected: usize,
}

impl Rows<'_> {
    /// Every row that passes, with its group.
    #[inline(always)]
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        match (self.chosen, self.groups) {
            (None, None) => (0..self.block.rows()).for_each(|row| visit(row, 0)),
            (None, Some(groups)) => groups.iter().enumerate().for_each(|(row, group)| visit(row, *group as usize)),
            (Some(chosen), None) => chosen.iter().for_each(|row| visit(*row as usize, 0)),
            (Some(chosen), Some(groups)) => chosen.iter().zip(groups).for_each(|(row, group)| visit(*row as usize, *group as usize)),
        }
    }

    /// How many rows pass.
    pub(crate) fn count(&self) -> usize {
        self.chosen.map_or(self.block.rows(), <[u32]>::len)
    }

    /// The same from the last row on.
    #[inline(always)]
    fn each_back(&self, mut visit: impl FnMut(usize, usize)) {
        match (self.chosen, self.groups) {
            (None, None) => (0..self.block.rows()).rev().for_each(|row| visit(row, 0)),
            (None, Some(groups)) => groups.iter().enumerate().rev().for_each(|(row, group)| visit(row, *group as usize)),
            (Some(chosen), None) => chosen.iter().rev().for_each(|row| visit(*row as usize, 0)),
            (Some(chosen), Some(groups)) => chosen.iter().zip(groups).rev().for_each(|(row, group)| visit(*row as usize, *group as usize)),
        }
    }

    /// Every row that passes and has a value, with its group.
    #[inline(always)]
    fn each_with(&self, column: &Column, mut visit: impl FnMut(usize, usize)) {
        match column {
            Column::Codes(codes, _) => self.each(|row, group| {
                if codes[row] != MISSING {
                    visit(row, group);
                }
            }),
            Column::Ints(_, None) | Column::Floats(_, None) => self.each(visit),
            Column::Ints(_, Some(present)) | Column::Floats(_, Some(present)) => self.each(|row, group| {
                if present.has(row) {
                    visit(row, group);
                }
            }),
        }
    }

    /// Gives every number of the rows that pass to what takes them.
    #[inline(always)]
    fn each_number(&self, column: &Column, readings: &Readings, takes: &mut impl Takes) {
        match column {
            Column::Ints(values, _) => self.each_with(column, |row, group| takes.whole(group, values[row])),
            Column::Floats(values, _) => self.each_with(column, |row, group| takes.number(group, Number::from_float(values[row]))),
            Column::Codes(codes, dictionary) => match readings.of(dictionary, codes) {
                Some(table) => self.each(|row, group| match table[codes[row] as usize] {
                    Reading::Nothing => {}
                    Reading::Whole(n) => takes.whole(group, n),
                    Reading::Real(n) => takes.real(group, n),
                    Reading::Wide => dictionary.value(codes[row]).number().into_iter().for_each(|number| takes.number(group, number)),
                }),
                None => self.each_with(column, |row, group| {
                    dictionary.value(codes[row]).number().into_iter().for_each(|number| takes.number(group, number));
                }),
            },
        }
    }
}

/// What can be done with numbers by group.
trait Takes {
    /// A whole number of 64 bits.
    fn whole(&mut self, group: usize, n: i64);

    /// A number with a fraction, or one too great to be exact.
    fn real(&mut self, group: usize, n: f64);

    /// Any other whole number.
    fn wide(&mut self, group: usize, n: i128);

    fn number(&mut self, group: usize, number: Number) {
        match number {
            Number::Whole(n) => match i64::try_from(n) {
                Ok(n) => self.whole(group, n),
                Err(_) => self.wide(group, n),
            },
            Number::Real(n) => self.real(group, n),
        }
    }
}

/// What values read as; shared by all threads.
#[derive(Default)]
pub(crate) struct Readings(Mutex<Vec<OfDictionary>>);

/// A dictionary, and what each of its values reads as.
type OfDictionary = (Arc<Dictionary>, Arc<[Reading]>);

#[derive(Clone, Copy)]
enum Reading {
    Nothing,
    Whole(i64),
    Real(f64),
    /// A whole number of more than 64 bits.
    Wide,
}

impl Readings {
    /// What the values of a dictionary read as, long enough for these codes; `None` when these are far more than the rows.
    fn of(&self, dictionary: &Arc<Dictionary>, codes: &[u32]) -> Option<Arc<[Reading]>> {
        let length = dictionary.length();
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match tables.iter().position(|(one, _)| Arc::ptr_eq(one, dictionary)) {
            Some(at) => at,
            None if !pays(length as usize, codes.len()) => return None,
            None => {
                tables.push((dictionary.clone(), Arc::new([Reading::Nothing])));
                tables.len() - 1
            }
        };
        let table = &mut tables[at].1;
        // Most values that come while the scan runs are in no block of it.
        if table.len() < length as usize && codes.iter().any(|code| *code as usize >= table.len()) {
            let more = (table.len() as u32..length).map(|code| match dictionary.value(code).number() {
                None => Reading::Nothing,
                Some(Number::Whole(n)) => i64::try_from(n).map_or(Reading::Wide, Reading::Whole),
                Some(Number::Real(n)) => Reading::Real(n),
            });
            *table = table.iter().copied().chain(more).collect();
        }
        Some(table.clone())
    }
}

/// What an aggregate reads of a block.
pub(crate) struct Input<'a> {
    pub(crate) column: Option<&'a Column>,
    pub(crate) readings: &'a Readings,
    /// The numbers of its values, for what counts distinct ones, and one more than the greatest of them.
    pub(crate) numbers: &'a [u32],
    pub(crate) numbers_length: usize,
}

/// Reports by group.
#[derive(Default)]
pub(crate) struct Matched {
    pub(crate) reports: Vec<u64>,
    /// Groups with reports.
    pub(crate) groups: usize,
}

impl Matched {
    pub(crate) fn add(&mut self, rows: &Rows<'_>) {
        reach(&mut self.reports, rows.groups_length);
        if rows.groups.is_none() {
            self.reports[0] += rows.count() as u64;
            self.groups = usize::from(self.reports[0] > 0);
            return;
        }
        let (reports, mut new) = (&mut self.reports[..], 0);
        rows.each(|_, group| {
            new += usize::from(reports[group] == 0);
            reports[group] += 1;
        });
        self.groups += new;
    }

    pub(crate) fn merge(&mut self, other: Matched) {
        add_up(&mut self.reports, other.reports);
        self.groups = self.reports.iter().filter(|reports| **reports > 0).count();
    }
}

/// An aggregate's state in every group.
pub(crate) enum State {
    Count(Vec<u64>),
    Unique(Distinct),
    Extreme(Extremes),
    Sum(Sums),
    Mean(Sums, Vec<u64>),
    Placed(Placed),
    /// Occurrences by group and value; then in that order.
    Histogram(HashMap<(u32, u32), u64>, Vec<((u32, u32), u64)>),
}

impl State {
    pub(crate) fn new(op: AggregateOp) -> State {
        match op {
            AggregateOp::Count => State::Count(Vec::new()),
            AggregateOp::Unique => State::Unique(Distinct::default()),
            AggregateOp::Min => State::Extreme(Extremes::new(Extreme::Least)),
            AggregateOp::Max => State::Extreme(Extremes::new(Extreme::Greatest)),
            AggregateOp::Sum => State::Sum(Sums::default()),
            AggregateOp::Mean => State::Mean(Sums::default(), Vec::new()),
            AggregateOp::First => State::Placed(Placed::new(End::Earliest)),
            AggregateOp::Last => State::Placed(Placed::new(End::Latest)),
            AggregateOp::Histogram => State::Histogram(HashMap::new(), Vec::new()),
        }
    }

    /// Takes in the rows of a block.
    pub(crate) fn add(&mut self, rows: &Rows<'_>, input: &Input<'_>) {
        let Some(column) = input.column else { return };
        match self {
            State::Count(counts) => {
                reach(counts, rows.groups_length);
                rows.each_with(column, |_, group| counts[group] += 1);
            }
            State::Unique(distinct) => distinct.add(rows, input.numbers, input.numbers_length),
            State::Extreme(extremes) => {
                extremes.reach(rows.groups_length);
                match extremes.extreme {
                    Extreme::Least => rows.each_number(column, input.readings, &mut Least(extremes)),
                    Extreme::Greatest => rows.each_number(column, input.readings, &mut Greatest(extremes)),
                }
            }
            State::Sum(sums) => {
                reach(&mut sums.whole, rows.groups_length);
                rows.each_number(column, input.readings, sums);
            }
            State::Mean(sums, counts) => {
                reach(&mut sums.whole, rows.groups_length);
                reach(counts, rows.groups_length);
                rows.each_number(column, input.readings, &mut Counted(sums, counts));
            }
            State::Placed(placed) => placed.add(rows, column),
            State::Histogram(counts, _) => rows.each(|row, group| {
                if input.numbers[row] != NONE {
                    *counts.entry((group as u32, input.numbers[row])).or_default() += 1;
                }
            }),
        }
    }

    /// Takes in what another thread has found.
    pub(crate) fn merge(&mut self, other: State) {
        match (self, other) {
            (State::Count(ours), State::Count(theirs)) => add_up(ours, theirs),
            (State::Unique(ours), State::Unique(theirs)) => ours.merge(theirs),
            (State::Histogram(ours, _), State::Histogram(theirs, _)) => {
                theirs.into_iter().for_each(|(pair, n)| *ours.entry(pair).or_default() += n);
            }
            (State::Extreme(ours), State::Extreme(theirs)) => ours.merge(theirs),
            (State::Sum(ours), State::Sum(theirs)) => ours.merge(theirs),
            (State::Mean(ours, counts), State::Mean(theirs, more)) => {
                ours.merge(theirs);
                add_up(counts, more);
            }
            (State::Placed(ours), State::Placed(theirs)) => ours.merge(theirs),
            _ => unreachable!("both threads gather the same"),
        }
    }

    /// Some groups taken as one, group 0, once settled. Not of distinct values, which cannot be put together from how many there are.
    pub(crate) fn together(&self, groups: &Bits) -> State {
        let known = |length: usize| groups.iter().take_while(move |group| *group < length);
        match self {
            State::Count(counts) => State::Count(vec![known(counts.len()).map(|group| counts[group]).sum()]),
            State::Unique(_) => unreachable!("distinct values are counted anew"),
            State::Extreme(extremes) => State::Extreme(extremes.together(groups)),
            State::Sum(sums) => State::Sum(sums.together(groups)),
            State::Mean(sums, counts) => State::Mean(sums.together(groups), vec![known(counts.len()).map(|group| counts[group]).sum()]),
            State::Placed(placed) => State::Placed(placed.together(groups)),
            State::Histogram(_, sorted) => {
                let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
                let of_groups = sorted.iter().filter(|((group, _), _)| groups.has(*group as usize));
                of_groups.for_each(|((_, number), n)| *counts.entry((0, *number)).or_default() += n);
                let mut together = State::Histogram(counts, Vec::new());
                together.settle(1);
                together
            }
        }
    }

    /// Takes less room, when more rows will come only later.
    pub(crate) fn shrink(&mut self) {
        if let State::Unique(distinct) = self {
            distinct.shrink();
        }
    }

    /// Makes ready for cells, when all rows have come.
    pub(crate) fn settle(&mut self, threads: usize) {
        match self {
            State::Unique(distinct) => distinct.settle(threads),
            State::Histogram(counts, sorted) => {
                *sorted = counts.drain().collect();
                sorted.sort_unstable();
            }
            _ => {}
        }
    }

    /// What a group has come to, once settled. `written` tells how values are written.
    pub(crate) fn cell(&self, group: usize, written: &dyn Fn(&[u32]) -> Vec<Option<String>>) -> Cell {
        Cell::Scalar(match self {
            State::Count(counts) => Some(Value::from(counts.get(group).copied().unwrap_or(0))),
            State::Unique(distinct) => Some(Value::from(distinct.count(group))),
            State::Extreme(extremes) => extremes.found(group).map(Number::value),
            State::Sum(sums) => Some(sums.total(group).value()),
            State::Mean(sums, counts) => match counts.get(group).copied().unwrap_or(0) {
                0 => None,
                count => Some(Value::Float(sums.total(group).float() / count as f64)),
            },
            State::Placed(placed) => placed.values.get(group).cloned().flatten(),
            State::Histogram(_, sorted) => {
                let from = sorted.partition_point(|((of, _), _)| (*of as usize) < group);
                let to = sorted.partition_point(|((of, _), _)| *of as usize <= group);
                let numbers: Vec<u32> = sorted[from..to].iter().map(|((_, number), _)| *number).collect();
                let texts = written(&numbers).into_iter().map(Option::unwrap_or_default);
                let mut counts: Vec<(String, u64)> = texts.zip(sorted[from..to].iter().map(|(_, n)| *n)).collect();
                counts.sort_unstable();
                return Cell::Histogram(counts);
            }
        })
    }
}

/// The least or the greatest number of each group: apart by kind, as most are of the first.
pub(crate) struct Extremes {
    extreme: Extreme,
    whole: Vec<Option<i64>>,
    real: Vec<Option<f64>>,
    wide: HashMap<usize, i128>,
}

/// Which extreme.
#[derive(Clone, Copy)]
enum Extreme {
    Least,
    Greatest,
}

struct Least<'e>(&'e mut Extremes);

struct Greatest<'e>(&'e mut Extremes);

impl Takes for Least<'_> {
    #[inline(always)]
    fn whole(&mut self, group: usize, n: i64) {
        let found = &mut self.0.whole[group];
        *found = Some(found.map_or(n, |least| least.min(n)));
    }

    fn real(&mut self, group: usize, n: f64) {
        let found = self.0.real_of(group);
        *found = Some(found.map_or(n, |least| least.min(n)));
    }

    fn wide(&mut self, group: usize, n: i128) {
        let found = self.0.wide.entry(group).or_insert(n);
        *found = n.min(*found);
    }
}

impl Takes for Greatest<'_> {
    #[inline(always)]
    fn whole(&mut self, group: usize, n: i64) {
        let found = &mut self.0.whole[group];
        *found = Some(found.map_or(n, |greatest| greatest.max(n)));
    }

    fn real(&mut self, group: usize, n: f64) {
        let found = self.0.real_of(group);
        *found = Some(found.map_or(n, |greatest| greatest.max(n)));
    }

    fn wide(&mut self, group: usize, n: i128) {
        let found = self.0.wide.entry(group).or_insert(n);
        *found = n.max(*found);
    }
}

impl Extremes {
    fn new(extreme: Extreme) -> Extremes {
        Extremes { extreme, whole: Vec::new(), real: Vec::new(), wide: HashMap::new() }
    }

    fn reach(&mut self, groups: usize) {
        reach(&mut self.whole, groups);
    }

    fn real_of(&mut self, group: usize) -> &mut Option<f64> {
        if self.real.len() <= group {
            self.real.resize(self.whole.len(), None);
        }
        &mut self.real[group]
    }

    fn merge(&mut self, other: Extremes) {
        self.reach(other.whole.len());
        let all = (0..other.whole.len()).flat_map(|group| other.numbers(group).map(move |number| (group, number)));
        match self.extreme {
            Extreme::Least => all.for_each(|(group, number)| Least(self).number(group, number)),
            Extreme::Greatest => all.for_each(|(group, number)| Greatest(self).number(group, number)),
        }
    }

    fn together(&self, groups: &Bits) -> Extremes {
        let mut together = Extremes::new(self.extreme);
        together.reach(1);
        for number in groups.iter().take_while(|group| *group < self.whole.len()).flat_map(|group| self.numbers(group)) {
            match self.extreme {
                Extreme::Least => Least(&mut together).number(0, number),
                Extreme::Greatest => Greatest(&mut together).number(0, number),
            }
        }
        together
    }

    fn numbers(&self, group: usize) -> impl Iterator<Item = Number> + use<> {
        let whole = self.whole.get(group).copied().flatten().map(|n| Number::Whole(i128::from(n)));
        let real = self.real.get(group).copied().flatten().map(Number::Real);
        let wide = self.wide.get(&group).copied().map(Number::Whole);
        [whole, real, wide].into_iter().flatten()
    }

    fn found(&self, group: usize) -> Option<Number> {
        if self.real.is_empty() && self.wide.is_empty() {
            return self.whole.get(group).copied().flatten().map(|n| Number::Whole(i128::from(n)));
        }
        match self.extreme {
            Extreme::Least => self.numbers(group).min_by(|a, b| a.compare(*b)),
            Extreme::Greatest => self.numbers(group).max_by(|a, b| a.compare(*b)),
        }
    }
}

/// Sums by group: whole numbers of 64 bits apart, as most are.
#[derive(Default)]
pub(crate) struct Sums {
    whole: Vec<i64>,
    /// What did not fit there, far from the edge of 128 bits: 2^64 numbers of 64 bits fit.
    high: HashMap<usize, i128>,
    other: Vec<Option<Box<ExactSum>>>,
}

impl Takes for Sums {
    #[inline(always)]
    fn whole(&mut self, group: usize, n: i64) {
        let sum = &mut self.whole[group];
        match sum.checked_add(n) {
            Some(next) => *sum = next,
            None => *self.high.entry(group).or_default() += i128::from(std::mem::replace(sum, n)),
        }
    }

    fn real(&mut self, group: usize, n: f64) {
        self.other_of(group).add(Number::Real(n));
    }

    fn wide(&mut self, group: usize, n: i128) {
        self.other_of(group).add(Number::Whole(n));
    }
}

impl Sums {
    fn other_of(&mut self, group: usize) -> &mut ExactSum {
        if self.other.len() <= group {
            self.other.resize(self.whole.len(), None);
        }
        self.other[group].get_or_insert_default()
    }

    fn merge(&mut self, other: Sums) {
        reach(&mut self.whole, other.whole.len());
        other.whole.into_iter().enumerate().for_each(|(group, sum)| self.whole(group, sum));
        other.high.into_iter().for_each(|(group, sum)| *self.high.entry(group).or_default() += sum);
        for (group, sum) in other.other.into_iter().enumerate() {
            sum.into_iter().for_each(|sum| self.other_of(group).merge(&sum));
        }
    }

    fn together(&self, groups: &Bits) -> Sums {
        let mut together = Sums { whole: vec![0], ..Sums::default() };
        for group in groups.iter().take_while(|group| *group < self.whole.len()) {
            together.whole(0, self.whole[group]);
            self.high.get(&group).into_iter().for_each(|high| *together.high.entry(0).or_default() += high);
            self.other.get(group).into_iter().flatten().for_each(|sum| together.other_of(0).merge(sum));
        }
        together
    }

    fn total(&self, group: usize) -> Number {
        let low = i128::from(self.whole.get(group).copied().unwrap_or(0));
        let whole = Number::Whole(low + self.high.get(&group).copied().unwrap_or(0));
        match self.other.get(group) {
            Some(Some(other)) => {
                let mut sum = other.as_ref().clone();
                sum.add(whole);
                sum.total()
            }
            _ => whole,
        }
    }
}

/// Sums and how many numbers they are of.
struct Counted<'s>(&'s mut Sums, &'s mut [u64]);

impl Takes for Counted<'_> {
    #[inline(always)]
    fn whole(&mut self, group: usize, n: i64) {
        self.1[group] += 1;
        self.0.whole(group, n);
    }

    fn real(&mut self, group: usize, n: f64) {
        self.1[group] += 1;
        self.0.real(group, n);
    }

    fn wide(&mut self, group: usize, n: i128) {
        self.1[group] += 1;
        self.0.wide(group, n);
    }
}

/// The value of the earliest or the latest report of each group that has one.
pub(crate) struct Placed {
    end: End,
    /// Meaningless where there is no value.
    places: Vec<Place>,
    values: Vec<Option<Value>>,
}

/// No row of a block.
const NOWHERE: u32 = u32::MAX;

/// Stamp and number of a report.
type Place = (u64, u64);

/// Which end.
#[derive(Clone, Copy)]
enum End {
    Earliest,
    Latest,
}

impl Placed {
    fn new(end: End) -> Placed {
        Placed { end, places: Vec::new(), values: Vec::new() }
    }

    fn reach(&mut self, groups: usize) {
        // The other end of time: every report but one there is better, and that one is when there is no value yet.
        let worst = match self.end {
            End::Earliest => (u64::MAX, u64::MAX),
            End::Latest => (0, 0),
        };
        if self.places.len() < groups {
            self.places.resize(groups, worst);
        }
        reach(&mut self.values, groups);
    }

    fn add(&mut self, rows: &Rows<'_>, column: &Column) {
        self.reach(rows.groups_length);
        let (tx, stamp) = (&rows.block.tx[..], &rows.block.stamp[..]);
        if rows.groups_length <= rows.count() {
            // Rows ascend: written over and over, the place of a group at last holds the one that counts in this block.
            let mut at = vec![NOWHERE; rows.groups_length];
            let mut put = |row: usize, group: usize| {
                if column.has(row) {
                    at[group] = row as u32;
                }
            };
            match self.end {
                End::Earliest => rows.each_back(&mut put),
                End::Latest => rows.each(&mut put),
            }
            for (group, row) in at.into_iter().enumerate().filter(|(_, row)| *row != NOWHERE) {
                let row = row as usize;
                self.keep(group, (stamp[row], tx[row]), || column.value(row).map(|value| value.into_owned()));
            }
            return;
        }
        // Of many groups nearly always only the first row is better than what there is.
        match self.end {
            End::Earliest => rows.each(|row, group| {
                if column.has(row) {
                    self.keep(group, (stamp[row], tx[row]), || column.value(row).map(|value| value.into_owned()));
                }
            }),
            End::Latest => rows.each_back(|row, group| {
                if column.has(row) {
                    self.keep(group, (stamp[row], tx[row]), || column.value(row).map(|value| value.into_owned()));
                }
            }),
        }
    }

    fn together(&self, groups: &Bits) -> Placed {
        let mut together = Placed::new(self.end);
        together.reach(1);
        for group in groups.iter().take_while(|group| *group < self.values.len()).filter(|group| self.values[*group].is_some()) {
            together.keep(0, self.places[group], || self.values[group].clone());
        }
        together
    }

    #[inline(always)]
    fn keep(&mut self, group: usize, place: Place, value: impl FnOnce() -> Option<Value>) {
        let have = self.places[group];
        let is_better = match self.end {
            End::Earliest => place < have,
            End::Latest => place > have,
        };
        if is_better || place == have && self.values[group].is_none() {
            self.places[group] = place;
            self.values[group] = value();
        }
    }

    fn merge(&mut self, other: Placed) {
        self.reach(other.places.len());
        for (group, (place, value)) in other.places.into_iter().zip(other.values).enumerate() {
            if value.is_some() {
                self.keep(group, place, || value);
            }
        }
    }
}

/// Makes a list at least this long.
fn reach<T: Default + Clone>(list: &mut Vec<T>, length: usize) {
    if list.len() < length {
        list.resize(length, T::default());
    }
}

fn add_up(ours: &mut Vec<u64>, theirs: Vec<u64>) {
    reach(ours, theirs.len());
    ours.iter_mut().zip(theirs).for_each(|(n, more)| *n += more);
}
