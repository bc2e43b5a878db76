//! The naive evaluator: row by row, nothing clever. It stays for ever as what every faster one is compared with.

use model::{Aggregate, Partial, Query, Report, Table, TableRow};
use std::collections::BTreeMap;

/// Most groups one query may have in memory; beyond it the query fails with a reason, and others go on.
pub const MAX_GROUPS: usize = 1_000_000;

/// A query being evaluated: give it every report of the span, then finish.
pub struct Oracle<'a> {
    query: &'a Query,
    matched: u64,
    groups: BTreeMap<Vec<Option<String>>, (u64, Vec<Partial>)>,
}

impl<'a> Oracle<'a> {
    /// Before any report.
    pub fn new(query: &'a Query) -> Oracle<'a> {
        Oracle { query, matched: 0, groups: BTreeMap::new() }
    }

    /// Takes one report into account.
    pub fn add(&mut self, report: &Report) {
        if !self.query.passes(report) {
            return;
        }
        self.matched += 1;
        let key: Vec<Option<String>> =
            self.query.group.iter().map(|name| report.get(name).map(|value| value.written().into_owned())).collect();
        let (matched, partials) = self.groups.entry(key).or_insert_with(|| (0, start(self.query)));
        *matched += 1;
        for (partial, aggregate) in partials.iter_mut().zip(&self.query.aggregates) {
            partial.add(report, report.get(&aggregate.attribute).as_deref());
        }
    }

    /// Groups so far.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The table, rows in key order; an ungrouped query has its row also when nothing passed.
    pub fn finish(mut self) -> Table {
        if self.query.group.is_empty() && self.groups.is_empty() {
            self.groups.insert(Vec::new(), (0, start(self.query)));
        }
        let rows = self.groups.into_iter().map(|(key, (matched, partials))| TableRow { key, matched, partials });
        Table { matched: self.matched, rows: rows.collect() }
    }
}

/// Evaluates a query over some reports.
pub fn evaluate<'r>(reports: impl IntoIterator<Item = &'r Report>, query: &Query) -> Table {
    let mut oracle = Oracle::new(query);
    reports.into_iter().for_each(|report| oracle.add(report));
    oracle.finish()
}

fn start(query: &Query) -> Vec<Partial> {
    query.aggregates.iter().map(Aggregate::start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AggregateOp, Attributes, Condition, Operator, ProjectId, Stamp, Tx, Value};

    fn query(group: &[&str], filter: Option<(&str, Operator, &str)>, fold: &[(&str, AggregateOp)]) -> Query {
        let condition = |(attribute, operator, operand): (&str, Operator, &str)| {
            Condition::new(attribute, operator, Value::from(operand), false).expect("legal")
        };
        Query {
            filter: filter.map(condition).map(|condition| vec![vec![condition]]).unwrap_or_default(),
            group: group.iter().map(|&name| name.to_owned()).collect(),
            aggregates: fold.iter().map(|&(attribute, op)| Aggregate { op, attribute: attribute.to_owned() }).collect(),
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
        let shown: Vec<_> = table.rows.iter().map(|row| (row.key[0].as_deref(), row.matched, row.partials[1].value())).collect();
        assert_eq!(shown, [(None, 1, Some(Value::Int(1))), (Some("a"), 3, Some(Value::Int(2))), (Some("b"), 1, Some(Value::Int(1)))]);
        let filtered = evaluate(&reports, &query(&[], Some(("user", Operator::Equal, "x")), &[("_tx", Count)]));
        assert_eq!((filtered.matched, filtered.rows.len()), (2, 1));
        let nothing = evaluate(&reports, &query(&[], Some(("user", Operator::Equal, "nobody")), &[("_tx", Count)]));
        assert_eq!((nothing.matched, nothing.rows[0].partials[0].value()), (0, Some(Value::Int(0))));
        assert!(evaluate(&[], &query(&["kind"], None, &[("_tx", Count)])).rows.is_empty());
    }
}
