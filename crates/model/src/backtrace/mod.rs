//! The whole query language of Backtrace clients (`POST /api/query`), lowered to `Query` and `Selection`, and what is computed from
//! their answers: folds, `having`, order, pages. Pure: tables and rows come in, cells go out; no JSON is written here.
//!
//! The grammar of saved metrics is the smaller one in `model::grammar`.

mod column;
mod fold;
mod read;
mod rows;

pub use column::{Column, Columns, Declared, ISSUE_PREFIX, Seen, Type};
pub use fold::{BinSpan, Fold, FoldCell, Op};
pub use read::{read, table};
pub use rows::{Aggregated, Group, Size};

use crate::derived::Derived;
use crate::query::{Direction, Filter, Operator, Selection};
use crate::value::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Why a request has no answer. Clients tell faults apart by the beginning of the text, so it is theirs and not ours to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A number of our own: the genuine codes are not known but for `EMPTY_BODY`.
    pub code: u32,
    /// The text that clients print and compare.
    pub message: String,
}

impl Fault {
    /// A request without a body; the one genuine code that was recorded.
    pub const EMPTY_BODY: u32 = 32_769;
    /// A column that is not there.
    pub const NO_COLUMN: u32 = 32_770;
    /// Any other fault of a request.
    pub const INVALID: u32 = 32_771;

    /// A faulty request.
    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault { code: Fault::INVALID, message: message.into() }
    }

    /// A faulty part of a request, named as clients expect.
    pub fn parameter(name: &str, detail: &str) -> Fault {
        Fault::invalid(format!("invalid parameter '{name}': {detail}"))
    }

    fn column(message: String) -> Fault {
        Fault { code: Fault::NO_COLUMN, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Of what a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableName {
    /// The reports.
    Objects,
    /// One row a fingerprint: how far people have come with it.
    Issues,
}

/// A checked request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Which rows.
    pub filter: Filter,
    /// Virtual columns, and the server's constants that are asked for.
    pub derived: Vec<Derived>,
    /// What of them.
    pub action: Action,
    /// Most rows or groups shown; `None`: all.
    pub limit: Option<usize>,
    /// Rows or groups passed over.
    pub offset: usize,
    /// Whether columns of the issues are asked for beside those of reports.
    pub joins_issues: bool,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Groups and their folds.
    Aggregate(Aggregation),
    /// The rows themselves.
    Select(Select),
    /// A change of every row that passes: a value, or `None` to clear.
    Set(Vec<(String, Option<Value>)>),
}

/// A column as the reply shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// As the client named it.
    pub name: String,
    /// Its storage type.
    pub kind: Type,
    /// How clients print it.
    pub format: String,
}

/// Groups, folds, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregation {
    /// The factor; none: one group of all.
    pub group: Option<Shown>,
    /// In the order of the request, folds of one attribute together.
    pub folds: Vec<Fold>,
    /// The first term decides.
    pub order: Vec<(Term, Direction)>,
    /// A condition on groups in postfix form; all that is left at its end must hold.
    pub having: Vec<Step>,
}

/// What groups are sorted by or compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// The group's value.
    Group,
    /// Its reports.
    Count,
    /// A value in a fold's cell.
    Cell {
        /// Which of `Aggregation::folds`.
        fold: usize,
        /// Which of its values: the upper end of a range, the tail of a distribution.
        value: usize,
    },
}

/// One step of `having`.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Compares a value of the group.
    Compare(Term, Operator, Value),
    /// Joins the last two outcomes.
    And,
    /// Likewise.
    Or,
}

/// Rows to show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    /// What of each row.
    pub columns: Vec<Shown>,
    /// The first attribute decides; ties in the order of object numbers.
    pub order: Vec<(String, Direction)>,
}

impl Request {
    /// The selection that answers a select with at most `most` rows, or finds the rows of a change.
    pub fn selection(&self, most: usize) -> Selection {
        let (columns, order) = match &self.action {
            Action::Select(select) => (select.columns.iter().map(|column| column.name.clone()).collect(), select.order.clone()),
            Action::Aggregate(_) | Action::Set(_) => (Vec::new(), Vec::new()),
        };
        let limit = self.limit.unwrap_or(usize::MAX).min(most);
        Selection { filter: self.filter.clone(), derived: self.derived.clone(), columns, order, offset: self.offset, limit }
    }

    /// Every attribute of reports that the request needs.
    pub fn attributes(&self) -> BTreeSet<&str> {
        let mut names: BTreeSet<&str> = self.filter.iter().flatten().map(|condition| condition.attribute.as_str()).collect();
        match &self.action {
            Action::Aggregate(aggregation) => {
                names.extend(aggregation.group.iter().map(|column| column.name.as_str()));
                names.extend(aggregation.folds.iter().map(|fold| fold.column.name.as_str()));
            }
            Action::Select(select) => {
                names.extend(select.columns.iter().map(|column| column.name.as_str()));
                names.extend(select.order.iter().map(|(name, _)| name.as_str()));
            }
            Action::Set(_) => {}
        }
        names.retain(|name| self.derived.iter().all(|derived| derived.name != *name));
        names.extend(self.derived.iter().map(|derived| derived.source.as_str()));
        names
    }
}
