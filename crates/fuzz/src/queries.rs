//! Targets of the two query grammars and of the evaluator: what is read can be written and read again, and both evaluators agree.

use crate::source::{PROJECT, first_line, reports};
use columns::{Block, Builder, Dictionaries, Needed, Source};
use model::backtrace::{Action, Aggregated, Aggregation, Columns, Seen, Step, Term, read, table};
use model::{Operator, Query, Report, Selection, Stamp, Table, Value, grammar, oracle};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Most rows of a selection.
const ROWS_MAX: usize = 10;

/// The whole input is a query of a metric.
pub(crate) fn grammar(input: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice(input) else { return "no JSON".to_owned() };
    match grammar::parse(&json) {
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let part = problems[0].field.split(['.', '[']).nth(1).unwrap_or_default();
            let known = ["filter", "group", "fold", "virtual_columns"].into_iter().find(|known| *known == part);
            format!("refused {}", known.unwrap_or("another key"))
        }
        Ok(parsed) => {
            let query = parsed.query;
            let written = grammar::write(&query);
            let again = grammar::parse(&written).unwrap_or_else(|problems| panic!("{written} is not taken: {problems:?}"));
            assert_eq!(again.query, query, "read from {written}");
            assert!(again.warnings.is_empty(), "{:?}", again.warnings);
            check_kept(&query);
            let conditions: usize = query.filter.iter().map(Vec::len).sum();
            format!("{} {} {} {}", query.filter.len().min(3), conditions.min(5), query.group.len().min(3), query.aggregates.len().min(4))
        }
    }
}

/// A query that is kept as JSON is the same query when it is read again, patterns included.
fn check_kept(query: &Query) {
    let kept = serde_json::to_string(query).expect("JSON");
    let mut again: Query = serde_json::from_str(&kept).expect("its own JSON");
    again.compile().expect("patterns that were compiled before");
    assert_eq!(again, *query, "kept as {kept}");
    let values = [Value::from("a"), Value::Int(5), Value::Bool(true)];
    for (one, other) in query.filter.iter().flatten().zip(again.filter.iter().flatten()) {
        for value in values.iter().map(Some).chain([None]) {
            assert_eq!(one.holds(value), other.holds(value), "{one:?} on {value:?}");
        }
    }
}

/// The first line is a query of a metric; the others are reports.
pub(crate) fn columns(input: &[u8]) -> String {
    let (line, lines) = first_line(input);
    let Ok(json) = serde_json::from_slice(line) else { return "no JSON".to_owned() };
    let Ok(parsed) = grammar::parse(&json) else { return "refused".to_owned() };
    let table = agreed(&reports(lines), &parsed.query);
    format!("{} groups, {} reports", table.rows.len().min(5), table.matched.min(5))
}

/// The first line is a request as Backtrace's clients send it; the others are reports.
pub(crate) fn backtrace(input: &[u8]) -> String {
    let (line, lines) = first_line(input);
    let Ok(json) = serde_json::from_slice(line) else { return "no JSON".to_owned() };
    let reports = reports(lines);
    let mut seen: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, value) in reports.iter().flat_map(|report| report.attributes.iter()) {
        let (texts, numbers) = seen.entry(name).or_default();
        match value {
            Value::Text(_) => *texts += 1,
            Value::Bool(_) => {}
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => *numbers += 1,
        }
    }
    let columns = Columns::of_reports(seen.into_iter().map(|(name, (texts, numbers))| Seen { name, texts, numbers }), []);
    // Fault and request alike must come without a panic, for issues too.
    let _of_issues = (table(&json, None), read(&json, &Columns::of_issues()));
    let request = match read(&json, &columns) {
        Err(fault) => {
            assert!(!fault.message.is_empty());
            return fault.message.split(' ').take(2).filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())).collect();
        }
        Ok(request) => request,
    };
    let selection = request.selection(ROWS_MAX);
    assert!(selection.limit <= ROWS_MAX);
    let _names = request.attributes();
    match &request.action {
        Action::Aggregate(aggregation) => {
            let query = aggregation.query(&request);
            let table = agreed(&reports, &query);
            let mut answer = aggregation.finish(&query, &table);
            check_having(aggregation, &answer, &Aggregation { having: Vec::new(), ..aggregation.clone() }.finish(&query, &table));
            let before = answer.groups.len();
            aggregation.sort(&mut answer.groups);
            assert_eq!(answer.groups.len(), before, "sorting loses nothing");
            let page = request.page(&answer.groups);
            assert!(page.len() <= request.limit.unwrap_or(usize::MAX));
            format!("{} folds, {} groups, {} having", aggregation.folds.len().min(5), before.min(4), aggregation.having.len().min(3))
        }
        Action::Select(select) => {
            let expected = oracle::select(&reports, &selection);
            assert!(expected.rows.len() <= ROWS_MAX && expected.rows.iter().all(|(_, row)| row.len() == select.columns.len()));
            let blocks = blocks(&reports, &Needed::by_selection(&selection));
            let found = with_source(&blocks, |source| columns::select(source, &selection)).expect("nobody cancels");
            assert_eq!(found, expected, "the selection {selection:?}");
            format!("select {} of {}, order {}", select.columns.len().min(3), expected.rows.len().min(3), select.order.len().min(2))
        }
        Action::Set(changes) => {
            let _matched = oracle::select(&reports, &Selection { limit: 1, ..selection });
            format!("set {}", changes.len().min(3))
        }
    }
}

/// What `having` keeps is a part of all groups; where it compares their reports with a number, it is the right part.
fn check_having(aggregation: &Aggregation, kept: &Aggregated, all: &Aggregated) {
    assert_eq!((kept.initial, all.kept), (all.initial, all.initial));
    assert_eq!(kept.kept.groups, kept.groups.len() as u64);
    assert_eq!(kept.kept.rows, kept.groups.iter().map(|group| group.rows).sum::<u64>());
    assert!(kept.groups.iter().chain(&all.groups).all(|group| group.cells.len() == aggregation.folds.len()));
    let mut groups = all.groups.iter();
    assert!(kept.groups.iter().all(|group| groups.any(|other| other == group)), "groups that are not among all");
    if let [Step::Compare(Term::Count, Operator::GreaterThan, Value::Int(least))] = aggregation.having[..] {
        let right = all.groups.iter().filter(|group| i128::from(group.rows) > i128::from(least));
        assert!(right.eq(&kept.groups), "groups of more than {least} reports");
    }
}

/// The table, by the evaluator of columns; it is the one of the naive evaluator.
fn agreed(reports: &[Report], query: &Query) -> Table {
    let expected = oracle::evaluate(reports, query);
    let blocks = blocks(reports, &Needed::by(&[query]));
    let answers = with_source(&blocks, |source| columns::evaluate(source, &[query]));
    let found = answers.into_iter().next().expect("one query has one answer").expect("few groups, and nobody cancels");
    assert_eq!(found, expected, "the query {query:?}");
    found
}

/// The reports in two blocks: a finished one, and a copy of an unfinished one.
fn blocks(reports: &[Report], needed: &Needed) -> Vec<Arc<Block>> {
    let mut builder = Builder::new(Arc::new(Dictionaries::default()));
    let (first, second) = reports.split_at(reports.len() / 2);
    first.iter().for_each(|report| builder.add(report));
    let finished = builder.freeze();
    second.iter().for_each(|report| builder.add(report));
    vec![Arc::new(finished), Arc::new(builder.snapshot(&needed.attributes))]
}

fn with_source<T>(blocks: &[Arc<Block>], answer: impl FnOnce(&Source<'_, Infallible>) -> Result<T, Infallible>) -> T {
    let load = |part: usize| Ok(vec![blocks[part].clone()]);
    let span = Stamp::ZERO..Stamp::from_micros(u64::MAX);
    let Ok(answered) = answer(&Source { project: PROJECT, parts: blocks.len(), load: &load, span, threads: 1, cancelled: &|| false });
    answered
}
