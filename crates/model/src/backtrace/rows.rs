//! From the table of a query to the groups of a reply: folds are finished, `having` decides who stays, then order and pages.

use super::{Aggregation, FoldCell, Request, Step, Term};
use crate::aggregate::{Aggregate, Cell};
use crate::query::{Condition, Direction, Operator, Query, Table, TableRow, order};
use crate::value::Value;
use std::cmp::Ordering;

/// How much there is at one point of the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Reports.
    pub rows: u64,
    /// Groups.
    pub groups: u64,
}

/// Groups with everything but their page.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregated {
    /// Before `having`.
    pub initial: Size,
    /// After it.
    pub kept: Size,
    /// Those kept, in the order of the table until they are sorted.
    pub groups: Vec<Group>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The factor's value as it is written; `None` for reports without one, and without a factor.
    pub key: Option<String>,
    /// Its reports.
    pub rows: u64,
    /// One a fold.
    pub cells: Vec<FoldCell>,
}

impl Aggregation {
    /// The query whose table the folds are computed from.
    pub fn query(&self, request: &Request) -> Query {
        let mut aggregates: Vec<Aggregate> = Vec::new();
        for aggregate in self.folds.iter().flat_map(|fold| fold.needs()) {
            if !aggregates.contains(&aggregate) {
                aggregates.push(aggregate);
            }
        }
        let group = self.group.iter().map(|column| column.name.clone()).collect();
        Query { filter: request.filter.clone(), group, aggregates, derived: request.derived.clone() }
    }

    /// Finishes the folds of that query's table and keeps the groups that `having` lets through.
    pub fn finish(&self, query: &Query, table: &Table) -> Aggregated {
        let place = |aggregate: &Aggregate| query.aggregates.iter().position(|have| have == aggregate).expect("the query has them all");
        let places: Vec<Vec<usize>> = self.folds.iter().map(|fold| fold.needs().iter().map(place).collect()).collect();
        let group = |row: &TableRow| {
            let cell = |(fold, places): (&super::Fold, &Vec<usize>)| {
                let cells: Vec<&Cell> = places.iter().map(|&at| &row.cells[at]).collect();
                fold.finish(&cells, row.matched)
            };
            let key = row.key.first().cloned().flatten();
            Group { key, rows: row.matched, cells: self.folds.iter().zip(&places).map(cell).collect() }
        };
        // The one row of an ungrouped query is there even when nothing passed; for clients there is then no group.
        let all = || table.rows.iter().filter(|row| row.matched > 0);
        let groups: Vec<Group> = all().map(group).filter(|group| self.keeps(group)).collect();
        let kept = Size { rows: groups.iter().map(|group| group.rows).sum(), groups: groups.len() as u64 };
        Aggregated { initial: Size { rows: table.matched, groups: all().count() as u64 }, kept, groups }
    }

    /// Sorts groups: by the terms asked for, then most reports first, then by key.
    pub fn sort(&self, groups: &mut [Group]) {
        groups.sort_by(|a, b| {
            let term = |(term, direction): &(Term, Direction)| match direction {
                Direction::Ascending => order(term.of(a).as_ref(), term.of(b).as_ref()),
                Direction::Descending => order(term.of(b).as_ref(), term.of(a).as_ref()),
            };
            let asked = self.order.iter().map(term).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
            asked.then(b.rows.cmp(&a.rows)).then_with(|| order(Term::Group.of(a).as_ref(), Term::Group.of(b).as_ref()))
        });
    }

    fn keeps(&self, group: &Group) -> bool {
        let mut outcomes: Vec<bool> = Vec::new();
        for step in &self.having {
            let outcome = match step {
                Step::Compare(term, operator, value) => holds(*operator, term.of(group).as_ref(), value),
                Step::And | Step::Or => {
                    let (last, before) = (outcomes.pop().expect("checked when read"), outcomes.pop().expect("checked when read"));
                    if *step == Step::And { before && last } else { before || last }
                }
            };
            outcomes.push(outcome);
        }
        outcomes.into_iter().all(|holds| holds)
    }
}

/// Compares as filters do; a missing value is only unequal.
fn holds(operator: Operator, have: Option<&Value>, want: &Value) -> bool {
    let condition = Condition::new("", operator, want.clone(), false).expect("a comparison has no pattern");
    match operator {
        // Here, text that reads as the same number is the same: clients send numbers as text.
        Operator::Equal | Operator::NotEqual => {
            let at = |operator| Condition::new("", operator, want.clone(), false).expect("no pattern").holds(have);
            (at(Operator::AtLeast) && at(Operator::AtMost)) == (operator == Operator::Equal)
        }
        _ => condition.holds(have),
    }
}

impl Term {
    fn of(self, group: &Group) -> Option<Value> {
        match self {
            Term::Group => group.key.clone().map(Value::Text),
            Term::Count => Some(Value::from(group.rows)),
            Term::Cell { fold, value } => group.cells[fold].value(value),
        }
    }
}

impl Request {
    /// The part of a list that is to be shown.
    pub fn page<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let from = self.offset.min(all.len());
        let shown = self.limit.unwrap_or(usize::MAX).min(all.len() - from);
        &all[from..from + shown]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(key: Option<&str>, rows: u64, cells: Vec<FoldCell>) -> Group {
        Group { key: key.map(str::to_owned), rows, cells }
    }

    fn sorted(order: Vec<(Term, Direction)>) -> Vec<String> {
        let number = |n: i64| vec![FoldCell::Value(Some(Value::Int(n)))];
        let mut groups = [
            group(Some("10"), 1, number(5)),
            group(Some("9"), 1, number(5)),
            group(None, 1, vec![FoldCell::Value(None)]),
            group(Some("b"), 3, number(-1)),
        ];
        Aggregation { order, ..Aggregation::default() }.sort(&mut groups);
        groups.map(|group| group.key.unwrap_or("*".to_owned())).to_vec()
    }

    #[test]
    fn groups_come_in_the_order_asked_for_and_else_the_largest_first() {
        use Direction::*;
        assert_eq!(sorted(vec![]), ["b", "*", "9", "10"]);
        assert_eq!(sorted(vec![(Term::Group, Ascending)]), ["*", "9", "10", "b"]);
        assert_eq!(sorted(vec![(Term::Group, Descending)]), ["b", "10", "9", "*"]);
        assert_eq!(sorted(vec![(Term::Count, Ascending)]), ["*", "9", "10", "b"]);
        let cell = Term::Cell { fold: 0, value: 0 };
        assert_eq!(sorted(vec![(cell, Descending), (Term::Group, Descending)]), ["10", "9", "b", "*"]);
        assert_eq!(sorted(vec![(cell, Ascending)]), ["*", "b", "9", "10"]);
    }

    #[test]
    fn having_is_read_as_postfix_and_what_is_left_must_hold() {
        let keeps = |having: Vec<Step>| {
            let cells = vec![FoldCell::Range(Some((Value::Int(2), Value::Int(8)))), FoldCell::Value(None)];
            Aggregation { having, ..Aggregation::default() }.keeps(&group(Some("k"), 5, cells))
        };
        let is = |term, operator, value: &str| Step::Compare(term, operator, Value::from(value));
        let (yes, no) = (|| is(Term::Count, Operator::Equal, "5."), || is(Term::Count, Operator::GreaterThan, "5"));
        let cell = |fold, value| Term::Cell { fold, value };
        for (having, expected) in [
            (vec![], true),
            (vec![yes()], true),
            (vec![no()], false),
            (vec![yes(), no()], false),
            (vec![yes(), no(), Step::And], false),
            (vec![yes(), no(), Step::Or], true),
            (vec![no(), yes(), Step::Or, yes(), Step::And], true),
            (vec![is(Term::Count, Operator::NotEqual, "5")], false),
            (vec![is(cell(0, 0), Operator::Equal, "2")], true),
            (vec![is(cell(0, 1), Operator::AtLeast, "8")], true),
            (vec![is(cell(0, 1), Operator::LessThan, "8")], false),
            (vec![is(cell(1, 0), Operator::Equal, "0")], false),
            (vec![is(cell(1, 0), Operator::NotEqual, "0")], true),
            (vec![is(Term::Group, Operator::Equal, "k")], true),
        ] {
            assert_eq!(keeps(having.clone()), expected, "{having:?}");
        }
    }
}
