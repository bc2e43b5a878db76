//! Folds: what each is computed from, and what it comes to. Everything is derived from the aggregates of `model::aggregate`.

use super::Shown;
use crate::aggregate::{Aggregate, AggregateOp, Cell};
use crate::query::order;
use crate::value::{Number, Value};
use std::cmp::Reverse;

/// A fold of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// Of what.
    pub column: Shown,
    /// Which.
    pub op: Op,
}

/// Fold operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Value of the earliest report that has one.
    Head,
    /// Value of the latest.
    Tail,
    /// Another name of `Head`.
    First,
    /// Another name of `Tail`.
    Last,
    /// Least: of numbers by value, of text by its bytes.
    Min,
    /// Greatest, likewise.
    Max,
    /// Distinct values.
    Unique,
    /// Values.
    Count,
    /// Sum of numbers.
    Sum,
    /// Mean of numbers.
    Mean,
    /// Least and greatest.
    Range,
    /// Every value and how often it occurs.
    Histogram,
    /// So many most frequent values, and how many there are beside them.
    Distribution(usize),
    /// How many numbers lie in each of so many equal spans.
    Bin(usize, Option<BinSpan>),
    /// Highest object number of the group.
    Object,
}

/// From the first number, inclusive, to the second, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinSpan(pub i128, pub i128);

/// What a fold of a group comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum FoldCell {
    /// A value of the column, or of its sum or mean; `None` where there is none.
    Value(Option<Value>),
    /// A number of things.
    Count(u64),
    /// Least and greatest.
    Range(Option<(Value, Value)>),
    /// Written values and how often they occur, the most frequent first.
    Histogram(Vec<(String, u64)>),
    /// The most frequent values.
    Distribution {
        /// Distinct values.
        keys: u64,
        /// Those shown, with how often they occur.
        shown: Vec<(String, u64)>,
        /// Reports of the group that have none of those shown.
        tail: u64,
    },
    /// From, to, how many; spans that hold none are left out.
    Bins(Vec<(i128, i128, u64)>),
    /// An object number.
    Object(u64),
}

impl Op {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Head => "head",
            Op::Tail => "tail",
            Op::First => "first",
            Op::Last => "last",
            Op::Min => "min",
            Op::Max => "max",
            Op::Unique => "unique",
            Op::Count => "count",
            Op::Sum => "sum",
            Op::Mean => "mean",
            Op::Range => "range",
            Op::Histogram => "histogram",
            Op::Distribution(_) => "distribution",
            Op::Bin(..) => "bin",
            Op::Object => "object",
        }
    }
}

impl Fold {
    /// The aggregates it is computed from.
    pub(super) fn needs(&self) -> Vec<Aggregate> {
        use AggregateOp as A;
        let numbers = self.column.kind.is_number();
        let ops: &[AggregateOp] = match self.op {
            Op::Head | Op::First => &[A::First],
            Op::Tail | Op::Last => &[A::Last],
            Op::Min if numbers => &[A::Min],
            Op::Max if numbers => &[A::Max],
            Op::Range if numbers => &[A::Min, A::Max],
            Op::Unique => &[A::Unique],
            Op::Count => &[A::Count],
            Op::Sum => &[A::Sum],
            Op::Mean => &[A::Mean],
            Op::Min | Op::Max | Op::Range | Op::Histogram | Op::Distribution(_) | Op::Bin(..) => &[A::Histogram],
            Op::Object => return vec![Aggregate { op: A::Max, attribute: "_tx".to_owned() }],
        };
        ops.iter().map(|&op| Aggregate { op, attribute: self.column.name.clone() }).collect()
    }

    /// What the cells of those aggregates come to in a group of `rows` reports.
    pub(super) fn finish(&self, cells: &[&Cell], rows: u64) -> FoldCell {
        let scalar = |at: usize| cells[at].scalar().cloned();
        let count = || scalar(0).and_then(|n| whole(&n)).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        match (self.op, cells[0]) {
            (Op::Unique | Op::Count, _) => FoldCell::Count(count()),
            (Op::Object, _) => FoldCell::Object(count()),
            (Op::Min, Cell::Histogram(counts)) => FoldCell::Value(counts.first().map(|(value, _)| Value::Text(value.clone()))),
            (Op::Max, Cell::Histogram(counts)) => FoldCell::Value(counts.last().map(|(value, _)| Value::Text(value.clone()))),
            (Op::Range, Cell::Histogram(counts)) => {
                let text = |(value, _): &(String, u64)| Value::Text(value.clone());
                FoldCell::Range(counts.first().map(text).zip(counts.last().map(text)))
            }
            (Op::Range, _) => FoldCell::Range(scalar(0).zip(scalar(1))),
            (Op::Histogram, Cell::Histogram(counts)) => FoldCell::Histogram(by_frequency(counts)),
            (Op::Distribution(most), Cell::Histogram(counts)) => {
                let mut shown = by_frequency(counts);
                let keys = shown.len() as u64;
                shown.truncate(most);
                let tail = rows.saturating_sub(shown.iter().map(|(_, count)| count).sum());
                FoldCell::Distribution { keys, shown, tail }
            }
            (Op::Bin(bins, span), Cell::Histogram(counts)) => FoldCell::Bins(bin(counts, self.column.kind.is_number(), bins, span)),
            (Op::Sum | Op::Mean, _) => FoldCell::Value(scalar(0)),
            // A cell is compared as what it shows: true and false are digits among numbers, words among text.
            _ if self.column.kind.is_number() => FoldCell::Value(scalar(0).map(digit)),
            _ => FoldCell::Value(scalar(0).map(|value| Value::Text(value.written().into_owned()))),
        }
    }
}

impl FoldCell {
    /// One of the cell's values, for `order` and `having`. Of a histogram or bins it is how many entries there are.
    pub(super) fn value(&self, at: usize) -> Option<Value> {
        match (self, at) {
            (FoldCell::Value(value), 0) => value.clone(),
            (FoldCell::Count(n) | FoldCell::Object(n), 0) => Some(Value::from(*n)),
            (FoldCell::Range(range), 0) => range.as_ref().map(|(least, _)| least.clone()),
            (FoldCell::Range(range), 1) => range.as_ref().map(|(_, greatest)| greatest.clone()),
            (FoldCell::Distribution { keys, .. }, 0) => Some(Value::from(*keys)),
            (FoldCell::Distribution { tail, .. }, 1) => Some(Value::from(*tail)),
            (FoldCell::Histogram(counts), 0) => Some(Value::from(counts.len() as u64)),
            (FoldCell::Bins(bins), 0) => Some(Value::from(bins.len() as u64)),
            _ => None,
        }
    }
}

/// True and false as numbers.
fn digit(value: Value) -> Value {
    if let Value::Bool(yes) = value { Value::Int(yes.into()) } else { value }
}

/// The most frequent first; among equals numbers by value, then text by its bytes.
fn by_frequency(counts: &[(String, u64)]) -> Vec<(String, u64)> {
    let mut counts: Vec<(Value, u64)> = counts.iter().map(|(value, count)| (Value::Text(value.clone()), *count)).collect();
    counts.sort_by(|(a, n), (b, m)| Reverse(n).cmp(&Reverse(m)).then_with(|| order(Some(a), Some(b))));
    counts.into_iter().map(|(value, count)| (value.written().into_owned(), count)).collect()
}

/// Counts the numbers in `bins` spans of equal width. Without a span given they reach from the least to the greatest number of the
/// group and are ⌊(greatest − least) / bins⌋ + 1 wide; with one, the last ends where it ends, and what lies outside is left out.
/// Both are what recorded replies of the real service show. In a column of numbers true and false are numbers too.
fn bin(counts: &[(String, u64)], are_numbers: bool, bins: usize, span: Option<BinSpan>) -> Vec<(i128, i128, u64)> {
    let read = |written: &String| match written.as_str() {
        "true" if are_numbers => Some(1),
        "false" if are_numbers => Some(0),
        _ => whole(&Value::Text(written.clone())),
    };
    let numbers = || counts.iter().filter_map(|(value, count)| Some((read(value)?, *count)));
    let (Some(least), Some(greatest)) = (numbers().map(|(n, _)| n).min(), numbers().map(|(n, _)| n).max()) else { return Vec::new() };
    let bins = bins as i128;
    let (from, to, width) = match span {
        Some(BinSpan(from, to)) => (from, to, ((to - from) + bins - 1) / bins),
        None => {
            let width = (greatest - least) / bins + 1;
            (least, least + width * bins, width)
        }
    };
    let mut found = std::collections::BTreeMap::new();
    for (number, count) in numbers().filter(|(number, _)| (from..to).contains(number)) {
        *found.entry((number - from) / width).or_insert(0) += count;
    }
    found.into_iter().map(|(at, count)| (from + at * width, (from + (at + 1) * width).min(to), count)).collect()
}

/// A value as a whole number, fractions cut off downwards; `None` for what is no number or too large for a span.
fn whole(value: &Value) -> Option<i128> {
    let number = match value.number()? {
        Number::Whole(n) => n,
        Number::Real(n) if n.abs() < 1e30 => n.floor() as i128,
        Number::Real(_) => return None,
    };
    (number.unsigned_abs() < 1 << 100).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtrace::Type;

    fn histogram(pairs: &[(&str, u64)]) -> Cell {
        let mut counts: Vec<_> = pairs.iter().map(|&(value, count)| (value.to_owned(), count)).collect();
        counts.sort();
        Cell::Histogram(counts)
    }

    fn finish(op: Op, kind: Type, cell: Cell, rows: u64) -> FoldCell {
        Fold { column: Shown { name: "a".into(), kind, format: "none".into() }, op }.finish(&[&cell], rows)
    }

    #[test]
    fn bins_are_as_wide_as_recorded_replies_show() {
        let numbers = |numbers: &[i128]| {
            histogram(
                &numbers.iter().map(|n| (n.to_string(), 1)).collect::<Vec<_>>().iter().map(|(n, c)| (n.as_str(), *c)).collect::<Vec<_>>(),
            )
        };
        for (op, values, expected) in [
            (Op::Bin(32, None), &[7731][..], &[(7731, 7732, 1)][..]),
            (Op::Bin(32, None), &[700, 855], &[(700, 705, 1), (855, 860, 1)]),
            (Op::Bin(32, None), &[700, 859], &[(700, 705, 1), (855, 860, 1)]),
            (Op::Bin(4, None), &[0, 10, 27, 28, 110], &[(0, 28, 3), (28, 56, 1), (84, 112, 1)]),
            (Op::Bin(4, Some(BinSpan(0, 200))), &[0, 49, 50, 199, 200, -1], &[(0, 50, 2), (50, 100, 1), (150, 200, 1)]),
            // The last span ends where it was asked to.
            (Op::Bin(3, Some(BinSpan(0, 10))), &[9], &[(8, 10, 1)]),
            (Op::Bin(1, Some(BinSpan(5, 6))), &[5, 6], &[(5, 6, 1)]),
            (Op::Bin(32, None), &[], &[]),
        ] {
            assert_eq!(finish(op, Type::Uint(64), numbers(values), 9), FoldCell::Bins(expected.to_vec()), "{op:?} {values:?}");
        }
        let text = histogram(&[("x", 5), ("2.75", 2)]);
        assert_eq!(finish(Op::Bin(32, None), Type::Dictionary, text, 7), FoldCell::Bins(vec![(2, 3, 2)]));
        let flags = || histogram(&[("true", 5), ("false", 2)]);
        assert_eq!(finish(Op::Bin(32, None), Type::Bitmap, flags(), 7), FoldCell::Bins(vec![(0, 1, 2), (1, 2, 5)]));
        assert_eq!(finish(Op::Bin(32, None), Type::Dictionary, flags(), 7), FoldCell::Bins(vec![]));
    }

    #[test]
    fn a_distribution_names_the_most_frequent_and_counts_the_rest() {
        let cell = histogram(&[("16395388", 1), ("8580858", 1), ("x", 56), ("y", 1)]);
        let distribution = finish(Op::Distribution(3), Type::Dictionary, cell, 371);
        let shown = vec![("x".to_owned(), 56), ("8580858".to_owned(), 1), ("16395388".to_owned(), 1)];
        assert_eq!(distribution, FoldCell::Distribution { keys: 4, shown, tail: 313 });
        assert_eq!(
            (distribution.value(0), distribution.value(1), distribution.value(2)),
            (Some(Value::Int(4)), Some(Value::Int(313)), None)
        );
    }

    #[test]
    fn text_has_a_least_and_a_greatest_by_its_bytes() {
        let cell = || histogram(&[("10", 1), ("9", 2), ("Z", 1), ("a", 1)]);
        let text = |value: &str| Value::Text(value.to_owned());
        assert_eq!(finish(Op::Min, Type::Dictionary, cell(), 5), FoldCell::Value(Some(text("10"))));
        assert_eq!(finish(Op::Max, Type::Uuid, cell(), 5), FoldCell::Value(Some(text("a"))));
        assert_eq!(finish(Op::Range, Type::Dictionary, cell(), 5), FoldCell::Range(Some((text("10"), text("a")))));
        assert_eq!(finish(Op::Range, Type::Dictionary, histogram(&[]), 5), FoldCell::Range(None));
        assert_eq!(finish(Op::Max, Type::Dictionary, histogram(&[]), 5), FoldCell::Value(None));
        let flag = || Cell::Scalar(Some(Value::Bool(true)));
        assert_eq!(finish(Op::Last, Type::Dictionary, flag(), 5), FoldCell::Value(Some(text("true"))));
        assert_eq!(finish(Op::Last, Type::Bitmap, flag(), 5), FoldCell::Value(Some(Value::Int(1))));
    }
}
