//! Aggregates: their names, what they accept, and their states, which two halves of a group can merge exactly.

use crate::point::Shape;
use crate::report::Report;
use crate::sum::ExactSum;
use crate::time::Stamp;
use crate::value::{Number, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// What is computed from the values of one attribute in a group: one scalar each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregateOp {
    /// Reports that have a value; of `_tx` simply the reports.
    Count,
    /// Distinct values, as they are written.
    Unique,
    /// Least number.
    Min,
    /// Greatest number.
    Max,
    /// Sum of numbers, independent of order.
    Sum,
    /// Sum divided by how many numbers there were.
    Mean,
    /// Value of the earliest report by (stamp, number) that has one.
    First,
    /// Value of the latest report by (stamp, number) that has one.
    Last,
    /// How often each value occurs, as it is written: a list, so for Explore only and never for a metric.
    Histogram,
}

impl AggregateOp {
    /// Every aggregate that is one scalar, in the order in which pages offer them.
    pub const ALL: [AggregateOp; 8] = {
        use AggregateOp::*;
        [Count, Unique, Min, Max, Sum, Mean, First, Last]
    };

    /// The word for it in queries and series names.
    pub const fn name(self) -> &'static str {
        match self {
            AggregateOp::Count => "count",
            AggregateOp::Unique => "unique",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Sum => "sum",
            AggregateOp::Mean => "mean",
            AggregateOp::First => "first",
            AggregateOp::Last => "last",
            AggregateOp::Histogram => "histogram",
        }
    }

    /// Reads the word; `head` and `tail` are Backtrace's other names for first and last.
    pub fn read(word: &str) -> Option<AggregateOp> {
        match word {
            "head" => Some(AggregateOp::First),
            "tail" => Some(AggregateOp::Last),
            _ => AggregateOp::ALL.into_iter().find(|op| op.name() == word),
        }
    }

    /// Whether a window without reports has the value 0 (a count of nothing) rather than none (a minimum of nothing).
    pub const fn zero_when_empty(self) -> bool {
        matches!(self, AggregateOp::Count | AggregateOp::Unique | AggregateOp::Sum)
    }
}

/// An aggregate of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregate {
    /// What is computed.
    pub op: AggregateOp,
    /// Of which attribute; `_tx` stands for the report itself.
    pub attribute: String,
}

impl Aggregate {
    /// The name in series: `count` for the reports themselves, else attribute and aggregate: `tx_unique`, `process_age_max`.
    pub fn name(&self) -> String {
        if self.op == AggregateOp::Count && self.attribute == "_tx" {
            return "count".to_owned();
        }
        let mut name: String = self.attribute.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        while name.starts_with('_') {
            name.remove(0);
        }
        format!("{}_{}", if name.is_empty() { "attribute" } else { &name }, self.op.name())
    }

    /// Whether windows may be added up. A sum of an attribute that can be negative may not: its counter would fall.
    pub fn shape(&self) -> Shape {
        match self.op {
            AggregateOp::Count => Shape::Additive,
            AggregateOp::Unique if self.attribute == "_tx" => Shape::Additive,
            _ => Shape::Gauge,
        }
    }

    /// The state before any report.
    pub fn start(&self) -> Partial {
        match self.op {
            AggregateOp::Count => Partial::Count(0),
            // Every report has its own number, so its distinct values are just counted.
            AggregateOp::Unique if self.attribute == "_tx" => Partial::Count(0),
            AggregateOp::Unique => Partial::Unique(HashSet::new()),
            AggregateOp::Min => Partial::Min(None),
            AggregateOp::Max => Partial::Max(None),
            AggregateOp::Sum => Partial::Sum(ExactSum::default()),
            AggregateOp::Mean => Partial::Mean(ExactSum::default(), 0),
            AggregateOp::First => Partial::First(None),
            AggregateOp::Last => Partial::Last(None),
            AggregateOp::Histogram => Partial::Histogram(BTreeMap::new()),
        }
    }
}

/// The state of an aggregate over some reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Partial {
    /// Values seen.
    Count(u64),
    /// Distinct written values.
    Unique(HashSet<String>),
    /// Least so far.
    Min(Option<Number>),
    /// Greatest so far.
    Max(Option<Number>),
    /// Sum so far.
    Sum(ExactSum),
    /// Sum and number of addends so far.
    Mean(ExactSum, u64),
    /// Earliest value so far, with its place.
    First(Option<((Stamp, u64), Value)>),
    /// Latest value so far, with its place.
    Last(Option<((Stamp, u64), Value)>),
    /// Occurrences of each written value.
    Histogram(BTreeMap<String, u64>),
}

/// What a group comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A scalar, or `None` where the group had no value to speak of. A sum beyond the range of floats is infinite.
    Scalar(Option<Value>),
    /// Written values and how often each occurs, in the order of their bytes.
    Histogram(Vec<(String, u64)>),
}

impl Partial {
    /// Takes one report's value of the aggregate's attribute.
    pub fn add(&mut self, report: &Report, value: Option<&Value>) {
        let Some(value) = value else { return };
        let place = (report.stamp, report.tx.0);
        match self {
            Partial::Count(n) => *n += 1,
            Partial::Unique(values) => {
                let written = value.written();
                if !values.contains(written.as_ref()) {
                    values.insert(written.into_owned());
                }
            }
            Partial::Min(least) => {
                if let Some(n) = value.number().filter(|n| least.is_none_or(|least| n.compare(least).is_lt())) {
                    *least = Some(n);
                }
            }
            Partial::Max(greatest) => {
                if let Some(n) = value.number().filter(|n| greatest.is_none_or(|greatest| n.compare(greatest).is_gt())) {
                    *greatest = Some(n);
                }
            }
            Partial::Sum(sum) => value.number().into_iter().for_each(|n| sum.add(n)),
            Partial::Mean(sum, addends) => {
                if let Some(n) = value.number() {
                    sum.add(n);
                    *addends += 1;
                }
            }
            Partial::First(first) => {
                if first.as_ref().is_none_or(|(earliest, _)| place < *earliest) {
                    *first = Some((place, value.clone()));
                }
            }
            Partial::Last(last) => {
                if last.as_ref().is_none_or(|(latest, _)| place > *latest) {
                    *last = Some((place, value.clone()));
                }
            }
            Partial::Histogram(counts) => *counts.entry(value.written().into_owned()).or_default() += 1,
        }
    }

    /// Joins another group's state of the same aggregate.
    ///
    /// # Panics
    /// When the two are states of different aggregates: a defect of the caller.
    pub fn merge(&mut self, other: &Partial) {
        match (self, other) {
            (Partial::Count(a), Partial::Count(b)) => *a += b,
            (Partial::Unique(a), Partial::Unique(b)) => a.extend(b.iter().cloned()),
            (Partial::Min(a), Partial::Min(Some(b))) => {
                if a.is_none_or(|a| b.compare(a).is_lt()) {
                    *a = Some(*b);
                }
            }
            (Partial::Max(a), Partial::Max(Some(b))) => {
                if a.is_none_or(|a| b.compare(a).is_gt()) {
                    *a = Some(*b);
                }
            }
            (Partial::Min(_), Partial::Min(None)) | (Partial::Max(_), Partial::Max(None)) => {}
            (Partial::Sum(a), Partial::Sum(b)) => a.merge(b),
            (Partial::Mean(a, n), Partial::Mean(b, m)) => {
                a.merge(b);
                *n += m;
            }
            (Partial::First(a), Partial::First(b)) => {
                if let Some((place, value)) = b
                    && a.as_ref().is_none_or(|(earliest, _)| place < earliest)
                {
                    *a = Some((*place, value.clone()));
                }
            }
            (Partial::Last(a), Partial::Last(b)) => {
                if let Some((place, value)) = b
                    && a.as_ref().is_none_or(|(latest, _)| place > latest)
                {
                    *a = Some((*place, value.clone()));
                }
            }
            (Partial::Histogram(a), Partial::Histogram(b)) => {
                b.iter().for_each(|(value, count)| *a.entry(value.clone()).or_default() += count);
            }
            (one, other) => unreachable!("merging {one:?} with {other:?}"),
        }
    }

    /// What the state comes to.
    pub fn cell(&self) -> Cell {
        let scalar = match self {
            Partial::Count(n) => Some(Value::from(*n)),
            Partial::Unique(values) => Some(Value::from(values.len() as u64)),
            Partial::Min(n) | Partial::Max(n) => n.map(Number::value),
            Partial::Sum(sum) => Some(sum.total().value()),
            Partial::Mean(_, 0) => None,
            Partial::Mean(sum, addends) => Some(Value::Float(sum.total().float() / *addends as f64)),
            Partial::First(found) | Partial::Last(found) => found.as_ref().map(|(_, value)| value.clone()),
            Partial::Histogram(counts) => return Cell::Histogram(counts.iter().map(|(value, count)| (value.clone(), *count)).collect()),
        };
        Cell::Scalar(scalar)
    }
}

impl Cell {
    /// The scalar; `None` also of a histogram.
    pub fn scalar(&self) -> Option<&Value> {
        match self {
            Cell::Scalar(value) => value.as_ref(),
            Cell::Histogram(_) => None,
        }
    }

    /// The scalar as a finite number for export.
    pub fn point(&self) -> Result<Option<f64>, NotExportable> {
        match self {
            Cell::Histogram(_) => Err(NotExportable),
            Cell::Scalar(None) => Ok(None),
            Cell::Scalar(Some(value)) => {
                let number = value.number().map(Number::float).filter(|n| n.is_finite());
                // -0 is written as 0 so that every store shows one zero.
                number.map(|n| Some(n + 0.0)).ok_or(NotExportable)
            }
        }
    }
}

/// The group has a value, but it is text or not finite, and no metric store takes that. It is left out and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotExportable;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Attributes, ProjectId, Tx};

    fn report(tx: u64, value: Option<Value>) -> Report {
        let attributes = Attributes::from_pairs(value.map(|value| ("a".to_owned(), value)));
        Report { project: ProjectId(1), tx: Tx(tx), stamp: Stamp::from_secs(100 + tx / 2), attributes }
    }

    fn run(op: AggregateOp, values: &[Option<Value>]) -> (Option<Value>, Option<Value>) {
        let aggregate = Aggregate { op, attribute: "a".into() };
        let mut whole = aggregate.start();
        let (mut even, mut odd) = (aggregate.start(), aggregate.start());
        for (at, value) in values.iter().enumerate() {
            let report = report(at as u64 + 1, value.clone());
            let value = report.get("a");
            whole.add(&report, value.as_deref());
            if at % 2 == 0 { &mut even } else { &mut odd }.add(&report, value.as_deref());
        }
        odd.merge(&even);
        (whole.cell().scalar().cloned(), odd.cell().scalar().cloned())
    }

    #[test]
    fn every_aggregate_over_mixed_values_whole_and_merged() {
        let mixed = [Some(Value::Int(3)), None, Some("x".into()), Some("10".into()), Some(Value::Float(-0.5)), Some(Value::Int(3))];
        for (op, expected) in [
            (AggregateOp::Count, Some(Value::Int(5))),
            (AggregateOp::Unique, Some(Value::Int(4))),
            (AggregateOp::Min, Some(Value::Float(-0.5))),
            (AggregateOp::Max, Some(Value::Int(10))),
            (AggregateOp::Sum, Some(Value::Float(15.5))),
            (AggregateOp::Mean, Some(Value::Float(3.875))),
            (AggregateOp::First, Some(Value::Int(3))),
            (AggregateOp::Last, Some(Value::Int(3))),
        ] {
            assert_eq!(run(op, &mixed), (expected.clone(), expected), "{op:?}");
        }
    }

    #[test]
    fn nothing_is_zero_for_counts_and_missing_for_the_rest() {
        for op in AggregateOp::ALL {
            let (whole, merged) = run(op, &[None, None]);
            assert_eq!(whole.is_some(), op.zero_when_empty(), "{op:?}");
            assert_eq!(whole, merged);
        }
    }

    #[test]
    fn series_names_say_attribute_and_aggregate() {
        for (op, attribute, name) in [
            (AggregateOp::Count, "_tx", "count"),
            (AggregateOp::Unique, "_tx", "tx_unique"),
            (AggregateOp::Max, "process.age", "process_age_max"),
            (AggregateOp::Count, "__", "attribute_count"),
        ] {
            assert_eq!(Aggregate { op, attribute: attribute.into() }.name(), name);
        }
    }

    #[test]
    fn text_and_infinities_cannot_be_points() {
        let aggregate = Aggregate { op: AggregateOp::Last, attribute: "a".into() };
        let mut last = aggregate.start();
        assert_eq!(last.cell().point(), Ok(None));
        let text = report(1, Some("x".into()));
        last.add(&text, text.get("a").as_deref());
        assert_eq!(last.cell().point(), Err(NotExportable));
        let mut sum = Aggregate { op: AggregateOp::Sum, attribute: "a".into() }.start();
        for tx in 1..=2 {
            let huge = report(tx, Some(Value::Float(f64::MAX)));
            sum.add(&huge, huge.get("a").as_deref());
        }
        assert_eq!(sum.cell().point(), Err(NotExportable));
    }
}
