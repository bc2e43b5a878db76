//! The naive evaluator: row by row, nothing clever. It stays for ever as what every faster one is compared with.

use crate::aggregate::{Aggregate, Partial};
use crate::derived::lookup;
use crate::query::{Direction, Key, Most, Parted, Query, Selected, Selection, Table, TableRow, Top, order, passes};
use crate::report::Report;
use crate::value::Value;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Most groups one query may have in memory; beyond it the query fails with a reason, and others go on.
pub const MAX_GROUPS: usize = 1_000_000;

/// A query being evaluated: give it every report of the span, then finish.
pub struct Oracle<'a> {
    query: &'a Query,
    matched: u64,
    groups: BTreeMap<Key, Group>,
}

/// A group's reports so far.
struct Group {
    matched: u64,
    partials: Vec<Partial>,
}

impl<'a> Oracle<'a> {
    /// Before any report.
    pub fn new(query: &'a Query) -> Oracle<'a> {
        Oracle { query, matched: 0, groups: BTreeMap::new() }
    }

    /// Takes one report into account.
    pub fn add(&mut self, report: &Report) {
        if self.query.passes(report) {
            self.matched += 1;
            self.groups.entry(key(self.query, report)).or_insert_with(|| Group::new(self.query)).add(self.query, report);
        }
    }

    /// Groups so far.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The table, rows in key order; an ungrouped query has its row also when nothing passed.
    pub fn finish(mut self) -> Table {
        if self.query.group.is_empty() && self.groups.is_empty() {
            self.groups.insert(Vec::new(), Group::new(self.query));
        }
        Table { matched: self.matched, rows: self.groups.into_iter().map(|(key, group)| group.finish(key)).collect() }
    }
}

impl Group {
    fn new(query: &Query) -> Group {
        Group { matched: 0, partials: query.aggregates.iter().map(Aggregate::start).collect() }
    }

    fn add(&mut self, query: &Query, report: &Report) {
        self.matched += 1;
        for (partial, aggregate) in self.partials.iter_mut().zip(&query.aggregates) {
            partial.add(report, lookup(&query.derived, report, &aggregate.attribute).as_deref());
        }
    }

    fn finish(self, key: Key) -> TableRow {
        TableRow { key, matched: self.matched, cells: self.partials.iter().map(Partial::cell).collect() }
    }
}

fn key(query: &Query, report: &Report) -> Key {
    query.group.iter().map(|name| lookup(&query.derived, report, name).map(|value| value.written().into_owned())).collect()
}

/// Evaluates a query over some reports.
pub fn evaluate<'r>(reports: impl IntoIterator<Item = &'r Report>, query: &Query) -> Table {
    let mut oracle = Oracle::new(query);
    reports.into_iter().for_each(|report| oracle.add(report));
    oracle.finish()
}

/// Evaluates a query for some of its groups.
pub fn evaluate_most<'r>(reports: impl IntoIterator<Item = &'r Report>, query: &Query, most: Most<'_>) -> Top {
    evaluate(reports, query).into_most(most)
}

/// The reports that pass and whose groups are not among those kept, aggregated as one group. Its key is empty.
pub fn rest<'r>(reports: impl IntoIterator<Item = &'r Report>, query: &Query, kept: &BTreeSet<Key>) -> TableRow {
    let mut group = Group::new(query);
    let of_the_rest = |report: &&Report| query.passes(report) && !kept.contains(&key(query, report));
    reports.into_iter().filter(of_the_rest).for_each(|report| group.add(query, report));
    group.finish(Vec::new())
}

/// Evaluates a query for some of its groups, and what is not kept of them as one.
pub fn evaluate_parted<'r, R: IntoIterator<Item = &'r Report> + Clone>(
    reports: R,
    query: &Query,
    most: Most<'_>,
    keep: impl FnOnce(&Top) -> Option<Vec<usize>>,
) -> Parted {
    let top = evaluate_most(reports.clone(), query, most);
    let rest = keep(&top).map(|rows| rest(reports, query, &rows.into_iter().map(|row| top.table.rows[row].key.clone()).collect()));
    Parted { top, rest }
}

/// Selects among some reports.
pub fn select<'r>(reports: impl IntoIterator<Item = &'r Report>, selection: &Selection) -> Selected {
    let value = |report: &'r Report, name: &str| lookup(&selection.derived, report, name).map(Cow::into_owned);
    let mut passed: Vec<(&Report, Vec<Option<Value>>)> = reports
        .into_iter()
        .filter(|report| passes(&selection.filter, &selection.derived, report))
        .map(|report| (report, selection.order.iter().map(|(name, _)| value(report, name)).collect()))
        .collect();
    passed.sort_by(|(a, of_a), (b, of_b)| {
        let mut terms = selection.order.iter().zip(of_a.iter().zip(of_b)).map(|((_, direction), (x, y))| match direction {
            Direction::Ascending => order(x.as_ref(), y.as_ref()),
            Direction::Descending => order(y.as_ref(), x.as_ref()),
        });
        terms.find(|order| order.is_ne()).unwrap_or(Ordering::Equal).then(a.tx.cmp(&b.tx))
    });
    let shown = passed.iter().skip(selection.offset).take(selection.limit);
    let row = |(report, _): &(&'r Report, _)| (report.tx, selection.columns.iter().map(|name| value(report, name)).collect());
    Selected { matched: passed.len() as u64, rows: shown.map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AggregateOp, Attributes, Condition, Operator, ProjectId, Stamp, Tx};

    fn query(group: &[&str], filter: Option<(&str, Operator, &str)>, fold: &[(&str, AggregateOp)]) -> Query {
        let condition = |(attribute, operator, operand): (&str, Operator, &str)| {
            Condition::new(attribute, operator, Value::from(operand), false).expect("legal")
        };
        Query {
            filter: filter.map(condition).map(|condition| vec![vec![condition]]).unwrap_or_default(),
            group: group.iter().map(|&name| name.to_owned()).collect(),
            aggregates: fold.iter().map(|&(attribute, op)| Aggregate { op, attribute: attribute.to_owned() }).collect(),
            derived: Vec::new(),
        }
    }

    fn report(tx: u64, pairs: &[(&str, &str)]) -> Report {
        let attributes = Attributes::from_pairs(pairs.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))));
        Report { project: ProjectId(1), tx: Tx(tx), stamp: Stamp::from_secs(tx), attributes }
    }

    #[test]
    fn groups_filters_and_counts() {
        use AggregateOp::{Count, Unique};
        let reports = [
            report(1, &[("kind", "a"), ("user", "x")]),
            report(2, &[("kind", "b"), ("user", "x")]),
            report(3, &[("user", "y")]),
            report(4, &[("kind", "a"), ("user", "y")]),
            report(5, &[("kind", "a")]),
        ];
        let table = evaluate(&reports, &query(&["kind"], None, &[("_tx", Unique), ("user", Unique)]));
        let shown: Vec<_> = table.rows.iter().map(|row| (row.key[0].as_deref(), row.matched, row.cells[1].scalar().cloned())).collect();
        assert_eq!(shown, [(None, 1, Some(Value::Int(1))), (Some("a"), 3, Some(Value::Int(2))), (Some("b"), 1, Some(Value::Int(1)))]);
        let filtered = evaluate(&reports, &query(&[], Some(("user", Operator::Equal, "x")), &[("_tx", Count)]));
        assert_eq!((filtered.matched, filtered.rows.len()), (2, 1));
        let nothing = evaluate(&reports, &query(&[], Some(("user", Operator::Equal, "nobody")), &[("_tx", Count)]));
        assert_eq!((nothing.matched, nothing.rows[0].cells[0].scalar().cloned()), (0, Some(Value::Int(0))));
        assert!(evaluate(&[], &query(&["kind"], None, &[("_tx", Count)])).rows.is_empty());
    }
}
