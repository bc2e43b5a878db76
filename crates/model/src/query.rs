//! Queries and their answers. A query holds no time: which reports it sees is an argument of its evaluation, so a metric
//! ignores the time frame of the page it was made on by type.

use crate::aggregate::{Aggregate, Cell};
use crate::derived::{Derived, lookup};
use crate::report::{Report, Tx};
use crate::time::Stamp;
use crate::value::{Number, Value};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

/// Which reports, grouped how, aggregated to what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Which reports.
    pub filter: Filter,
    /// Attributes to group by; none: one row for all.
    pub group: Vec<String>,
    /// One cell of each row.
    pub aggregates: Vec<Aggregate>,
    /// Attributes computed for this query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<Derived>,
}

/// A report passes when every condition of at least one alternative holds; no alternatives: every report passes.
pub type Filter = Vec<Vec<Condition>>;

/// Which reports themselves, and what of them is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Which reports.
    pub filter: Filter,
    /// Attributes computed for this selection.
    pub derived: Vec<Derived>,
    /// Attributes shown.
    pub columns: Vec<String>,
    /// By which attributes reports are sorted, the first deciding; ties in the order of their numbers. None: by number.
    pub order: Vec<(String, Direction)>,
    /// Reports passed over.
    pub offset: usize,
    /// Most reports shown.
    pub limit: usize,
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Least first, missing values before all.
    Ascending,
    /// Greatest first, missing values last.
    Descending,
}

/// One comparison of an attribute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// The attribute.
    pub attribute: String,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with; ignored by `is-set` and `is-not-set`.
    pub operand: Value,
    /// Only for the text operators.
    #[serde(default)]
    pub case_insensitive: bool,
    #[serde(skip)]
    pattern: Option<Regex>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        (&self.attribute, self.operator, &self.operand, self.case_insensitive)
            == (&other.attribute, other.operator, &other.operand, other.case_insensitive)
    }
}

/// Outside of which no report passes a filter, by what it asks of `timestamp.received`. More may be within than passes.
pub fn received(filter: &[Vec<Condition>], derived: &[Derived]) -> Range<Stamp> {
    let ever = Stamp::ZERO..Stamp::from_micros(u64::MAX);
    if derived.iter().any(|derived| derived.name == RECEIVED) {
        return ever;
    }
    let of_alternative = |all: &Vec<Condition>| {
        all.iter().filter(|condition| condition.attribute == RECEIVED).fold(ever.clone(), |span, condition| {
            let Some(number) = condition.number() else { return span };
            // Beyond both ends of time, these saturate.
            let second = match number {
                Number::Whole(n) => n.clamp(0, i128::from(u64::MAX)) as u64,
                Number::Real(n) => n as u64,
            };
            let (from, to) = (Stamp::from_secs(second), Stamp::from_secs(second.saturating_add(2)));
            match condition.operator {
                Operator::Equal => span.start.max(from)..span.end.min(to),
                Operator::AtLeast | Operator::GreaterThan => span.start.max(from)..span.end,
                Operator::AtMost | Operator::LessThan => span.start..span.end.min(to),
                _ => span,
            }
        })
    };
    let hull = |a: Range<Stamp>, b: Range<Stamp>| a.start.min(b.start)..a.end.max(b.end);
    filter.iter().map(of_alternative).reduce(hull).unwrap_or(ever)
}

/// The attribute that every report has by its stamp, in whole seconds.
const RECEIVED: &str = "timestamp.received";

/// Comparisons, spelt as in the Backtrace grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// Written the same, or the same number.
    Equal,
    /// Not `equal`; also true of a missing value.
    NotEqual,
    /// >=
    AtLeast,
    /// <=
    AtMost,
    /// >
    GreaterThan,
    /// <
    LessThan,
    /// The written value has this text in it.
    Contains,
    /// Not `contains`; also true of a missing value.
    NotContains,
    /// The pattern matches somewhere.
    RegularExpression,
    /// The pattern matches nowhere; also true of a missing value.
    InverseRegularExpression,
    /// There is a value.
    IsSet,
    /// There is none.
    IsNotSet,
}

/// Longest pattern, in bytes.
pub const PATTERN_MAX_BYTES: usize = 1024;
/// Largest compiled pattern, in bytes; the `regex` crate is linear in the text, this bounds the other factor.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

impl Condition {
    /// A checked condition, or what is wrong with it in words.
    pub fn new(attribute: &str, operator: Operator, operand: Value, case_insensitive: bool) -> Result<Condition, String> {
        let mut condition = Condition { attribute: attribute.to_owned(), operator, operand, case_insensitive, pattern: None };
        condition.compile()?;
        Ok(condition)
    }

    /// Compiles the pattern; needed after deserialising.
    pub fn compile(&mut self) -> Result<(), String> {
        if !matches!(self.operator, Operator::RegularExpression | Operator::InverseRegularExpression) {
            return Ok(());
        }
        let text = self.operand.written();
        if text.len() > PATTERN_MAX_BYTES {
            return Err(format!("the pattern is {} bytes long; {PATTERN_MAX_BYTES} are allowed", text.len()));
        }
        let pattern = RegexBuilder::new(&text)
            .case_insensitive(self.case_insensitive)
            .size_limit(PATTERN_SIZE_LIMIT)
            .dfa_size_limit(PATTERN_SIZE_LIMIT)
            .nest_limit(50)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "the pattern is too large when compiled; make it simpler".to_owned(),
                other => format!("not a legal pattern: {}", other.to_string().replace('\n', " ")),
            })?;
        self.pattern = Some(pattern);
        Ok(())
    }

    /// The operand as a number, where it reads as one: clients send one and the same number as `5`, `"5"`, `"5."` and `"0xa"`.
    pub fn number(&self) -> Option<Number> {
        operand_number(&self.operand)
    }

    /// Whether a value passes.
    pub fn holds(&self, value: Option<&Value>) -> bool {
        use Operator::*;
        let Some(value) = value else {
            return matches!(self.operator, NotEqual | NotContains | InverseRegularExpression | IsNotSet);
        };
        match self.operator {
            IsSet => true,
            IsNotSet => false,
            Equal => self.equals(value),
            NotEqual => !self.equals(value),
            AtLeast => self.order(value).is_some_and(Ordering::is_ge),
            AtMost => self.order(value).is_some_and(Ordering::is_le),
            GreaterThan => self.order(value).is_some_and(Ordering::is_gt),
            LessThan => self.order(value).is_some_and(Ordering::is_lt),
            Contains => self.contains(value),
            NotContains => !self.contains(value),
            RegularExpression => self.matches(value),
            InverseRegularExpression => !self.matches(value),
        }
    }

    fn equals(&self, value: &Value) -> bool {
        let (have, want) = (value.written(), self.operand.written());
        if have == want || self.case_insensitive && have.to_lowercase() == want.to_lowercase() {
            return true;
        }
        // Text is compared as text ("1.10" is not "1.1"); a true number also equals any spelling of itself.
        !value.is_text() && numbers(value, &self.operand).is_some_and(|(a, b)| a.compare(b).is_eq())
    }

    /// Numeric where both sides read as numbers, else by text.
    fn order(&self, value: &Value) -> Option<Ordering> {
        if let Some((have, want)) = numbers(value, &self.operand) {
            return Some(have.compare(want));
        }
        Some(value.written().as_ref().cmp(self.operand.written().as_ref()))
    }

    fn contains(&self, value: &Value) -> bool {
        let (have, want) = (value.written(), self.operand.written());
        if self.case_insensitive { have.to_lowercase().contains(&want.to_lowercase()) } else { have.contains(want.as_ref()) }
    }

    fn matches(&self, value: &Value) -> bool {
        self.pattern.as_ref().expect("compiled when the condition was made").is_match(&value.written())
    }
}

fn numbers(value: &Value, operand: &Value) -> Option<(Number, Number)> {
    Some((value.number()?, operand_number(operand)?))
}

/// An operand as a number: clients send one and the same number as `5`, `"5"`, `"5."` and `"0xa"`.
fn operand_number(operand: &Value) -> Option<Number> {
    if let Value::Text(text) = operand {
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            return u64::from_str_radix(digits, 16).ok().map(|n| Number::Whole(i128::from(n)));
        }
        if let Some(whole) = text.strip_suffix('.') {
            return Number::read(whole);
        }
    }
    operand.number()
}

/// Whether a report passes a filter over these derived attributes.
pub fn passes(filter: &[Vec<Condition>], derived: &[Derived], report: &Report) -> bool {
    let holds = |condition: &Condition| condition.holds(lookup(derived, report, &condition.attribute).as_deref());
    filter.is_empty() || filter.iter().any(|all| all.iter().all(holds))
}

/// The order of two values: missing ones first, then numbers by value, then text that is no number, by its bytes.
pub fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let rank = |value: &Value| value.number().map_or((1, None), |number| (0, Some(number)));
    match (a, b) {
        (Some(a), Some(b)) => match (rank(a), rank(b)) {
            ((_, Some(x)), (_, Some(y))) => x.compare(y).then_with(|| a.written().cmp(&b.written())),
            ((x, _), (y, _)) => x.cmp(&y).then_with(|| a.written().cmp(&b.written())),
        },
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

impl Query {
    /// Whether a report is among those the query speaks of.
    pub fn passes(&self, report: &Report) -> bool {
        passes(&self.filter, &self.derived, report)
    }

    /// Compiles the patterns of a deserialised query.
    pub fn compile(&mut self) -> Result<(), String> {
        self.filter.iter_mut().flatten().try_for_each(Condition::compile)
    }
}

/// The answer to one query over one span: rows in key order.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Reports that passed the filter.
    pub matched: u64,
    /// One row per group that some report fell in; an ungrouped query always has exactly one.
    pub rows: Vec<TableRow>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct TableRow {
    /// Which group.
    pub key: Key,
    /// Reports in the group.
    pub matched: u64,
    /// One per aggregate.
    pub cells: Vec<Cell>,
}

/// Which groups of a table are wanted when not all are: so many with most reports, of equals those whose keys come first (a missing
/// value last, as in labels), and also some that are named, which are not among the so many.
#[derive(Clone, Copy, Debug)]
pub struct Most<'a> {
    /// How many.
    pub groups: usize,
    /// The others; those without a report have no row all the same.
    pub also: &'a BTreeSet<Key>,
}

/// The part of a table that was wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// All reports, and the rows that were wanted.
    pub table: Table,
    /// Groups without a row.
    pub beyond: Beyond,
}

/// The answer to a query in two parts: some of its groups, and the reports of all groups that are not kept, as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Parted {
    /// The groups.
    pub top: Top,
    /// All reports that are in none of the groups kept, with an empty key; `None`: nobody asked for these.
    pub rest: Option<TableRow>,
}

/// Decides which rows of an answer stand for themselves, by the place of the query: their places in the table, ascending. The reports
/// of all other groups are evaluated as one, exact for every aggregate. `None`: nobody asks for these. It may be asked by several
/// threads at one time, and is asked once for each query that has an answer.
pub type Keep<'a> = dyn Fn(usize, &Top) -> Option<Vec<usize>> + Sync + 'a;

impl Table {
    /// Leaves only the rows that are wanted; the one of an ungrouped query always is.
    pub fn into_most(self, most: Most<'_>) -> Top {
        let Table { matched, rows } = self;
        let (mut shown, mut others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.key.is_empty() || most.also.contains(&row.key));
        let label = |row: &TableRow| row.key.iter().map(|value| (value.is_none(), value.clone())).collect::<Vec<_>>();
        others.sort_by(|a, b| b.matched.cmp(&a.matched).then_with(|| label(a).cmp(&label(b))));
        let beyond = others.split_off(most.groups.min(others.len()));
        shown.append(&mut others);
        shown.sort_by(|a, b| a.key.cmp(&b.key));
        let values = |at: usize| beyond.iter().map(|row| &row.key[at]).collect::<BTreeSet<_>>().len() as u64;
        let attributes = beyond.first().map_or(0, |row| row.key.len());
        let values = (0..attributes).map(values).collect();
        let beyond = Beyond { groups: beyond.len() as u64, matched: beyond.iter().map(|row| row.matched).sum(), values };
        Top { table: Table { matched, rows: shown }, beyond }
    }
}

/// What there is to say of groups that have reports and no row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beyond {
    /// How many there are.
    pub groups: u64,
    /// Their reports.
    pub matched: u64,
    /// How many different values each group-by attribute has among them; empty when there are none.
    pub values: Vec<u64>,
}

/// A group's values in the order of `group`, as they are written; `None` where the attribute is missing.
pub type Key = Vec<Option<String>>;

/// The answer to a selection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selected {
    /// Reports that passed the filter, those not shown included.
    pub matched: u64,
    /// Reports shown, in order: number, and the value of each column.
    pub rows: Vec<(Tx, Vec<Option<Value>>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(operator: Operator, operand: impl Into<Value>, value: Option<Value>) -> bool {
        Condition::new("a", operator, operand.into(), false).expect("legal").holds(value.as_ref())
    }

    #[test]
    fn equal_goes_by_spelling_for_text_and_by_value_for_numbers() {
        use Operator::Equal;
        for (operand, value, expected) in [
            ("5", Value::Int(5), true),
            ("5.", Value::Int(5), true),
            ("0x5", Value::Int(5), true),
            ("5.0", Value::Int(5), true),
            ("5.0", Value::Text("5".into()), false),
            ("1.1", Value::Text("1.10".into()), false),
            ("1.10", Value::Text("1.10".into()), true),
            ("true", Value::Bool(true), true),
            ("1", Value::Bool(true), true),
            ("0", Value::Bool(true), false),
            ("", Value::Text(String::new()), true),
        ] {
            assert_eq!(holds(Equal, operand, Some(value.clone())), expected, "{operand:?} {value:?}");
        }
    }

    #[test]
    fn what_passes_was_received_within_what_the_filter_asks() {
        use Operator::*;
        let asked = |operator, operand: &Value| Condition::new(RECEIVED, operator, operand.clone(), false).expect("legal");
        let operands = ["100", "100.5", "99.9", "0x64", "-3", "1e300", "-1e300", "soon", "100."].map(Value::from);
        let operands: Vec<Value> =
            operands.into_iter().chain([Value::Int(100), Value::Int(-1), Value::Float(100.5), Value::UInt(u64::MAX)]).collect();
        let operators = [Equal, NotEqual, AtLeast, AtMost, GreaterThan, LessThan, Contains, RegularExpression, IsSet, IsNotSet];
        let moments =
            [0, 1, 98_999_999, 99_000_000, 99_999_999, 100_000_000, 100_999_999, 101_000_000, 101_999_999, 103_000_000, u64::MAX - 1];
        for (operator, operand) in operators.iter().flat_map(|operator| operands.iter().map(move |operand| (*operator, operand))) {
            let filter = [vec![asked(operator, operand)]];
            for stamp in moments.map(Stamp::from_micros) {
                let passes = filter[0][0].holds(Some(&Value::from(stamp.secs())));
                assert!(!passes || received(&filter, &[]).contains(&stamp), "{operator:?} {operand:?} {stamp:?}");
            }
        }
        let secs = |range: Range<Stamp>| (range.start.secs(), range.end.secs());
        let (from, to) = (asked(AtLeast, &Value::Int(100)), asked(LessThan, &Value::Int(200)));
        assert_eq!(secs(received(&[vec![from.clone(), to.clone()]], &[])), (100, 202));
        // Of alternatives the span over all; one that does not ask is of ever.
        assert_eq!(secs(received(&[vec![asked(Equal, &Value::Int(5))], vec![from.clone(), to]], &[])), (5, 202));
        assert_eq!(received(&[vec![from.clone()], vec![]], &[]), Stamp::ZERO..Stamp::from_micros(u64::MAX));
        assert_eq!(received(&[], &[]), Stamp::ZERO..Stamp::from_micros(u64::MAX));
        let function = crate::Function::Quantize { size: 1, offset: 0 };
        let named_so = Derived { name: RECEIVED.to_owned(), source: "a".to_owned(), function };
        assert_eq!(received(&[vec![from]], &[named_so]), Stamp::ZERO..Stamp::from_micros(u64::MAX));
    }

    #[test]
    fn a_missing_value_passes_only_the_negative_operators() {
        use Operator::*;
        for (operator, expected) in [
            (Equal, false),
            (NotEqual, true),
            (AtLeast, false),
            (AtMost, false),
            (GreaterThan, false),
            (LessThan, false),
            (Contains, false),
            (NotContains, true),
            (RegularExpression, false),
            (InverseRegularExpression, true),
            (IsSet, false),
            (IsNotSet, true),
        ] {
            assert_eq!(holds(operator, "x", None), expected, "{operator:?}");
        }
    }

    #[test]
    fn order_is_numeric_where_both_sides_are_numbers() {
        use Operator::*;
        assert!(holds(AtLeast, "9", Some(Value::Int(10))));
        assert!(holds(LessThan, "1795309458.", Some(Value::Int(5))));
        assert!(holds(GreaterThan, "9", Some(Value::Text("10".into()))));
        assert!(holds(GreaterThan, "abc", Some(Value::Text("abd".into()))));
        assert!(!holds(GreaterThan, "9", Some(Value::Int(9))));
        assert!(holds(AtMost, "9", Some(Value::Int(9))));
    }

    #[test]
    fn patterns_are_unanchored_bounded_and_linear() {
        use Operator::*;
        assert!(holds(RegularExpression, "b.d", Some("abcde".into())));
        assert!(holds(InverseRegularExpression, "^b", Some("abcde".into())));
        let insensitive = Condition::new("a", RegularExpression, "ABC".into(), true).expect("legal");
        assert!(insensitive.holds(Some(&"xabcx".into())));
        let long = "a".repeat(PATTERN_MAX_BYTES + 1);
        for pattern in ["(", "a{1000}{1000}", "\\pL{500}{500}", "(?=a)", "\\1", long.as_str()] {
            assert!(Condition::new("a", RegularExpression, pattern.into(), false).is_err(), "{pattern}");
        }
    }

    #[test]
    fn text_operators_can_ignore_case() {
        for operator in [Operator::Equal, Operator::Contains] {
            assert!(Condition::new("a", operator, "ÄB".into(), true).expect("legal").holds(Some(&"äb".into())));
            assert!(!Condition::new("a", operator, "ÄB".into(), false).expect("legal").holds(Some(&"äb".into())));
        }
    }
}
