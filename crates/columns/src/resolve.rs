//! The columns behind the names in a query: those that are stored, those that follow from number and stamp, those that go by several
//! names, and those that the query derives.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::dictionary::{Dictionary, MISSING};
use hashbrown::HashMap;
use model::report::{aliases, delay};
use model::{Aggregate, AggregateOp, Condition, Derived, ProjectId, Query, Selection, Tx, Value};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What is read of reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Stored attributes.
    pub attributes: BTreeSet<String>,
    /// Whether their numbers are read, too.
    pub numbers: bool,
    /// Whether their stamps are.
    pub stamps: bool,
}

impl Needed {
    /// What queries read.
    pub fn by(queries: &[&Query]) -> Needed {
        let mut needed = Needed::default();
        for query in queries {
            needed.add_filter(&query.filter, &query.derived);
            query.group.iter().for_each(|name| needed.add(name, &query.derived));
            for aggregate in query.aggregates.iter().filter(|aggregate| !counts_all(aggregate, &query.derived)) {
                needed.add(&aggregate.attribute, &query.derived);
                let is_placed = matches!(aggregate.op, AggregateOp::First | AggregateOp::Last);
                needed.numbers |= is_placed;
                needed.stamps |= is_placed;
            }
        }
        needed
    }

    /// What a selection reads.
    pub fn by_selection(selection: &Selection) -> Needed {
        let mut needed = Needed { numbers: true, stamps: true, ..Needed::default() };
        needed.add_filter(&selection.filter, &selection.derived);
        let sorted_by = selection.order.iter().map(|(name, _)| name);
        sorted_by.chain(&selection.columns).for_each(|name| needed.add(name, &selection.derived));
        needed
    }

    pub(crate) fn add_filter(&mut self, filter: &[Vec<Condition>], derived: &[Derived]) {
        filter.iter().flatten().for_each(|condition| self.add(&condition.attribute, derived));
    }

    fn add(&mut self, name: &str, derived: &[Derived]) {
        let name = derived.iter().find(|derived| derived.name == name).map_or(name, |derived| &derived.source);
        match name {
            "_tx" | "_rxid" => self.numbers = true,
            "timestamp.received" => self.stamps = true,
            "report.delay" => {
                self.stamps = true;
                self.attributes.insert("timestamp".to_owned());
            }
            name => {
                self.attributes.insert(name.to_owned());
                self.attributes.extend(aliases(name).iter().map(|&alias| alias.to_owned()));
            }
        }
    }
}

/// Whether an aggregate comes to the number of reports: it counts what every report has, or distinct ones of what each has its own.
pub(crate) fn counts_all(aggregate: &Aggregate, derived: &[Derived]) -> bool {
    let name = aggregate.attribute.as_str();
    let is_of_all = match aggregate.op {
        AggregateOp::Count => matches!(name, "_tx" | "_rxid" | "timestamp.received"),
        AggregateOp::Unique => name == "_tx",
        _ => false,
    };
    is_of_all && !derived.iter().any(|derived| derived.name == name)
}

/// Makes columns that are not stored. Shared by all threads of a scan, so that equal names give codes of one dictionary.
#[derive(Default)]
pub(crate) struct Resolver {
    made: Mutex<HashMap<String, Arc<Dictionary>>>,
}

impl Resolver {
    pub(crate) fn new() -> Resolver {
        Resolver::default()
    }

    /// The dictionary of a column that is made.
    fn dictionary(&self, name: &str) -> Arc<Dictionary> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }

    /// A block's column of an attribute that reports have under this name; `None`: missing in every row.
    pub(crate) fn attribute(&self, project: ProjectId, block: &Block, name: &str) -> Option<Arc<Column>> {
        match name {
            "_tx" if block.tx.iter().all(|tx| i64::try_from(*tx).is_ok()) => {
                return Some(Arc::new(Column::Ints(block.tx.iter().map(|tx| *tx as i64).collect(), None)));
            }
            "_tx" => return Some(Arc::new(self.values(block.tx.iter().map(|tx| Some(Value::from(*tx))), name))),
            // A million times less than 64 bits hold.
            "timestamp.received" => {
                return Some(Arc::new(Column::Ints(block.stamp.iter().map(|micros| (micros / 1_000_000) as i64).collect(), None)));
            }
            "_rxid" => {
                let dictionary = self.dictionary(name);
                let receipt = |tx: &u64| dictionary.intern(&Value::Text(Tx(*tx).receipt(project).to_string()));
                return Some(Arc::new(Column::Codes(block.tx.iter().map(receipt).collect(), dictionary.clone())));
            }
            "report.delay" => {
                let sent = block.columns.get("timestamp")?;
                let of_row = |row: usize| delay(block.stamp[row] / 1_000_000, sent.value(row)?.as_ref());
                return Some(Arc::new(self.values((0..block.rows()).map(of_row), name)));
            }
            _ => {}
        }
        let names = std::iter::once(name).chain(aliases(name).iter().copied());
        let mut found = names.filter_map(|name| block.columns.get(name));
        let first = found.next()?;
        let others: Vec<_> = found.filter(|other| !Arc::ptr_eq(other, first)).collect();
        let is_whole = |column: &Column| (0..block.rows()).all(|row| column.has(row));
        if others.is_empty() || is_whole(first) {
            return Some(first.clone());
        }
        // Values of dictionaries are looked up once.
        if let Some(coded) = std::iter::once(first).chain(others.iter().copied()).map(|column| coded(column)).collect::<Option<Vec<_>>>() {
            let made = self.dictionary(name);
            let mut known: Vec<HashMap<u32, u32>> = vec![HashMap::new(); coded.len()];
            let of_row = |row: usize| {
                let (at, (codes, dictionary)) = coded.iter().enumerate().find(|(_, (codes, _))| codes[row] != MISSING)?;
                Some(*known[at].entry(codes[row]).or_insert_with(|| made.intern(dictionary.value(codes[row]))))
            };
            let codes = (0..block.rows()).map(of_row).map(|code| code.unwrap_or(MISSING)).collect();
            return Some(Arc::new(Column::Codes(codes, made)));
        }
        let of_row = |row: usize| std::iter::once(first).chain(others.iter().copied()).find_map(|column| column.value(row));
        Some(Arc::new(self.values((0..block.rows()).map(|row| of_row(row).map(Cow::into_owned)), name)))
    }

    /// A block's column of what is derived of the stamps, which ascend: each second is looked at once, and a value looked up when it
    /// is not that of the second before.
    fn derived_of_stamps(&self, block: &Block, derived: &Derived) -> Column {
        let made = self.dictionary(&format!("{derived:?}"));
        let (mut last, mut code) = (None, MISSING);
        let mut codes = Vec::with_capacity(block.rows());
        while let Some(stamp) = block.stamp.get(codes.len()) {
            let second = stamp / 1_000_000;
            let value = derived.function.apply(&Value::Int(second as i64));
            if value != last {
                code = value.as_ref().map_or(MISSING, |value| made.intern(value));
                last = value;
            }
            let rows = before(&block.stamp[codes.len()..], (second + 1) * 1_000_000);
            codes.resize(codes.len() + rows, code);
        }
        Column::Codes(codes, made)
    }

    /// A block's column of a derived attribute.
    pub(crate) fn derived(&self, project: ProjectId, block: &Block, derived: &Derived) -> Option<Arc<Column>> {
        if derived.source == "timestamp.received" {
            return Some(Arc::new(self.derived_of_stamps(block, derived)));
        }
        let source = self.attribute(project, block, &derived.source)?;
        let name = format!("{derived:?}");
        let made = self.dictionary(&name);
        let code = |value: &Value| derived.function.apply(value).map_or(MISSING, |value| made.intern(&value));
        let codes = match source.as_ref() {
            Column::Codes(codes, dictionary) => {
                let mut known: HashMap<u32, u32> = HashMap::from([(MISSING, MISSING)]);
                codes.iter().map(|of| *known.entry(*of).or_insert_with(|| code(dictionary.value(*of)))).collect()
            }
            Column::Ints(values, _) => {
                let mut known: HashMap<i64, u32> = HashMap::new();
                // Times come in runs.
                let mut last = None;
                let of_row = |row: usize| {
                    let of = source.has(row).then_some(values[row])?;
                    match last {
                        Some((before, code)) if before == of => Some(code),
                        _ => {
                            let code = *known.entry(of).or_insert_with(|| code(&Value::Int(of)));
                            last = Some((of, code));
                            Some(code)
                        }
                    }
                };
                (0..block.rows()).map(of_row).map(|code| code.unwrap_or(MISSING)).collect()
            }
            Column::Floats(values, _) => {
                let of_row = |row: usize| if source.has(row) { code(&Value::Float(values[row])) } else { MISSING };
                (0..block.rows()).map(of_row).collect()
            }
        };
        Some(Arc::new(Column::Codes(codes, made)))
    }

    /// A column of values: of whole numbers when all are.
    fn values(&self, values: impl Iterator<Item = Option<Value>>, name: &str) -> Column {
        let mut ints = Vec::with_capacity(values.size_hint().0);
        let mut present = Bits::default();
        let mut count = 0;
        let mut values = values.peekable();
        while let Some(value) = values.next_if(|value| matches!(value, None | Some(Value::Int(_)))) {
            if let Some(Value::Int(n)) = value {
                present.put(ints.len());
                count += 1;
                ints.push(n);
            } else {
                ints.push(0);
            }
        }
        if values.peek().is_none() {
            let some_are_missing = count < ints.len();
            return Column::Ints(ints, some_are_missing.then_some(present));
        }
        let dictionary = self.dictionary(name);
        let code = |value: Option<&Value>| value.map_or(MISSING, |value| dictionary.intern(value));
        let mut codes: Vec<u32> = ints.iter().enumerate().map(|(row, n)| code(present.has(row).then_some(&Value::Int(*n)))).collect();
        codes.extend(values.map(|value| code(value.as_ref())));
        Column::Codes(codes, dictionary)
    }
}

/// The codes of a column that has them.
fn coded(column: &Column) -> Option<(&[u32], &Arc<Dictionary>)> {
    if let Column::Codes(codes, dictionary) = column { Some((codes, dictionary)) } else { None }
}

/// How many of some ascending stamps come before an end, when these are mostly few of them.
fn before(stamps: &[u64], end: u64) -> usize {
    let mut within = 1;
    while stamps.get(within).is_some_and(|stamp| *stamp < end) {
        within *= 2;
    }
    let known = within / 2;
    known + stamps[known..within.min(stamps.len())].partition_point(|stamp| *stamp < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_before_an_end_are_counted_from_any_place() {
        let stamps: Vec<u64> = (0..40u64).map(|n| n * n / 3).collect();
        for from in 0..=stamps.len() {
            for end in 0..=stamps[39] + 1 {
                let expected = stamps[from..].iter().filter(|stamp| **stamp < end).count();
                assert_eq!(before(&stamps[from..], end), expected, "{from} {end}");
            }
        }
    }
}
