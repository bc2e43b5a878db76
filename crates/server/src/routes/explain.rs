//! From a point back to its reports: which ones were counted in a series of a sealed window. Nothing is kept for it: the window's
//! reports are evaluated again, and what comes out is shown beside what was sealed.

use super::{audit, query};
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::StatusCode;
use catalog::{Metric, MetricRevision, Scope, SealedMetric, SealedSeries, SeriesKey, Store};
use model::{Condition, Direction, Filter, Key, Label, Operator, ProjectId, Query, Selection, TableRow, Tx, Value, Window, grammar};
use reports::{Cancel, EvaluateError, ReadError, Reports, View};
use serde::Serialize;
use serde_json::{Value as Json_, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reports listed at once, at most and by default.
const MOST_LISTED: usize = 1_000;
const LISTED: usize = 100;
/// Reports looked through at once for those of `__other__`, and how often for one answer.
const CHUNK: usize = 10_000;
const CHUNKS: usize = 100;

/// The series of a window that is asked about.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    window: Option<u64>,
    period: Option<String>,
    store: Option<String>,
    other: bool,
    missing: Vec<String>,
    labels: Vec<(String, String)>,
    after: u64,
    limit: Option<usize>,
}

impl Asked {
    /// Reads the parameters; every one that is not ours is a label.
    fn read(parameters: Vec<(String, String)>) -> Result<Asked, Refusal> {
        let mut asked = Asked::default();
        for (name, value) in parameters {
            let number = || value.parse::<u64>().map_err(|_| Refusal::invalid(&name, "must be a whole number"));
            match name.as_str() {
                "window" => asked.window = Some(number()?),
                "after" => asked.after = number()?,
                "limit" => {
                    let limit = usize::try_from(number()?).unwrap_or(usize::MAX);
                    if limit > MOST_LISTED {
                        return Err(Refusal::invalid("limit", format!("must be 0 to {MOST_LISTED}")));
                    }
                    asked.limit = Some(limit);
                }
                "period" => asked.period = Some(value),
                "store" => asked.store = Some(value),
                "other" => asked.other = value != "false",
                "missing" => asked.missing.push(value),
                _ => asked.labels.push((name, value)),
            }
        }
        Ok(asked)
    }

    /// The series among those sealed. Without a store, values are as reports have them, or as stores show them; with one, as it
    /// shows them first.
    fn series<'a>(&self, query: &Query, store: Option<&Store>, sealed: &'a SealedMetric) -> Result<&'a SealedSeries, Refusal> {
        let renamed = |attribute: &str| store.and_then(|store| store.newest().settings.label_names.get(attribute));
        let names = |name: &str, attribute: &str| {
            name == attribute
                || renamed(attribute).is_some_and(|new| adapters::may_be_name(name, new))
                || adapters::may_be_name(name, attribute)
        };
        // A name that is an attribute as it stands is no spelling of another.
        let of = |name: &str| {
            let exact = query.group.iter().position(|attribute| attribute == name);
            exact.or_else(|| query.group.iter().position(|attribute| names(name, attribute)))
        };
        let mut given: Vec<Option<&str>> = vec![None; query.group.len()];
        for (name, value) in &self.labels {
            let at = of(name).ok_or_else(|| Refusal::invalid(name, "is no label of this metric"))?;
            given[at] = Some(value);
        }
        for name in &self.missing {
            of(name).ok_or_else(|| Refusal::invalid("missing", format!("{name:?} is no label of this metric")))?;
        }
        for (at, attribute) in query.group.iter().enumerate() {
            if given[at].is_none() && !self.other && !self.missing.iter().any(|name| of(name) == Some(at)) {
                return Err(Refusal::invalid(
                    attribute,
                    "is not given, and the metric is grouped by it; `missing` names an attribute that reports lack, `other` means all other series",
                ));
            }
        }
        let is_raw = |value: &str, label: &Label| matches!(label, Label::Text(text) if text == value);
        let ways: [Reading<'_>; 3] = match store {
            Some(_) => [&adapters::may_be_value, &is_raw, &in_any_case],
            None => [&|value, label| is_raw(value, label) || adapters::may_be_value(value, label), &in_any_case, &in_any_case],
        };
        for is_meant in ways {
            let fits = |at: usize, label: &Label| match given[at] {
                _ if self.other => *label == Label::Other,
                Some(value) => is_meant(value, label),
                None => *label == Label::Missing,
            };
            let live = sealed.series.iter().filter(|one| one.live);
            let mut found = live.filter(|one| one.key.iter().enumerate().all(|(at, label)| fits(at, label)));
            match (found.next(), found.next()) {
                (Some(one), None) => return Ok(one),
                (Some(one), Some(two)) => {
                    let at = (0..one.key.len()).find(|at| one.key[*at] != two.key[*at]).unwrap_or(0);
                    return Err(Refusal::invalid(
                        &query.group[at],
                        format!(
                            "{:?} may be {} or {}: name the `store` and give the value as it is shown there, or say that {} is `missing`",
                            given[at].unwrap_or_default(),
                            shown(&one.key[at]),
                            shown(&two.key[at]),
                            query.group[at]
                        ),
                    ));
                }
                (None, _) => {}
            }
        }
        Err(Refusal::missing("series of these labels in that window"))
    }
}

/// Whether a value that was given means a label.
type Reading<'a> = &'a dyn Fn(&str, &Label) -> bool;

/// As a store shows it that changes capitals.
fn in_any_case(value: &str, label: &Label) -> bool {
    matches!(label, Label::Text(text) if text.to_lowercase() == value.to_lowercase())
}

/// For people.
fn shown(label: &Label) -> String {
    match label {
        Label::Text(text) => format!("the text {text:?}"),
        Label::Missing => "a missing value".to_owned(),
        Label::Other => "all other series".to_owned(),
    }
}

/// What a point is made of.
#[derive(Serialize)]
pub(crate) struct Explanation {
    window_start: u64,
    window_end: u64,
    period: u32,
    revision: u32,
    /// Label values; null where missing. `__other__` is told by `other`.
    labels: Json_,
    other: bool,
    /// One an aggregate: what was sealed, and what the reports that are there now give.
    values: Vec<Json_>,
    /// Whether both are the same for each.
    reproduced: bool,
    /// Reports counted.
    matched: u64,
    /// What of the whole metric was sealed.
    metric: Json_,
    /// The reports in the Backtrace grammar, to be asked for from `window_start` to `window_end`. For `__other__` they are those that
    /// pass and are in none of the series in `except`.
    filter: Json_,
    except: Option<Vec<Key>>,
    /// Their numbers, ascending.
    tx: Vec<u64>,
    /// Ask for more with `after`; null when there are no more.
    next_after: Option<u64>,
    detail: String,
}

/// Tells which reports were counted in a point: those of the sealed window that are in the series, by number.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}/explain",
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path),
        ("window" = u64, Query, description = "first second of the window"),
        ("period" = Option<String>, Query, description = "seconds of the window; by default that of the store"),
        ("store" = Option<String>, Query, description = "a store whose period and label names are meant"),
        ("other" = Option<bool>, Query, description = "the series of all groups beyond the budget"),
        ("missing" = Option<String>, Query, description = "an attribute that the reports lack; may be repeated. Every other parameter is a label of the point, named and spelt as in reports or as the store shows it"),
        ("after" = Option<u64>, Query, description = "list reports after this number"),
        ("limit" = Option<usize>, Query, description = "most reports listed, to 1,000; by default 100")),
    responses((status = 200, body = serde_json::Value), (status = 404, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn explain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set, name)): Path<(String, String, String)>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Json<Explanation>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let metric = caller.snapshot().metric(project, &set, &name).ok_or_else(|| Refusal::missing(&format!("metric {set}/{name}")))?.clone();
    let asked = Asked::read(parameters)?;
    let store = match &asked.store {
        Some(name) => Some(caller.snapshot().store(project, name).ok_or_else(|| Refusal::missing(&format!("metric store {name:?}")))?),
        None => None,
    };
    let period = match (store, &asked.period) {
        (Some(store), None) => store.newest().settings.period,
        (_, period) => audit::period(&caller, project, &set, period.as_deref())?,
    };
    let start = asked.window.ok_or_else(|| Refusal::invalid("window", "is missing: the first second of the window"))?;
    let window = Window::new(start, period)
        .ok_or_else(|| Refusal::invalid("window", format!("must be the start of a window of {} s in Unix seconds", period.secs())))?;
    let (revision, sealed) = sealed(&app, &metric, window).await?;
    let series = asked.series(&revision.query, store, &sealed)?.clone();
    let (limit, after) = (asked.limit.unwrap_or(LISTED), Tx(asked.after));
    let (ask_for, key) = (revision.query.clone(), series.key.clone());
    let is_other = !key.is_empty() && key.iter().all(|label| *label == Label::Other);
    let kept: Option<BTreeSet<Key>> = is_other.then(|| {
        let own = sealed.series.iter().filter(|one| one.live && !one.key.contains(&Label::Other));
        own.map(|one| text_key(&one.key)).collect()
    });
    let (of_series, except) = (of_series(&revision.query, &key, is_other), kept.clone());
    let (found, _) = query::answer(&app, move |reports, cancel| {
        let at = Place { reports, project, window, cancel };
        match kept {
            Some(kept) => at.other(&ask_for, &kept, after, limit),
            None => at.own(&of_series, &text_key(&key), after, limit),
        }
    })
    .await?;
    Ok(Json(told(window, &revision, &sealed, &series, is_other, found, except)))
}

/// The metric as sealed in a window, or why it is not.
async fn sealed(app: &Arc<App>, metric: &Metric, window: Window) -> Result<(MetricRevision, SealedMetric), Refusal> {
    // Before a metric's first revision a backfill may have sealed it by that one.
    let revision = metric.in_force(window.start()).unwrap_or(&metric.revisions[0]).clone();
    let (id, project) = (revision.id, metric.project);
    let (sealed, counted, gap) = app
        .catalog(move |app, _| {
            let catalog = &app.catalog;
            catalog.at_one_moment(|| {
                Ok((catalog.sealed_metric(id, window)?, catalog.is_metric_sealed(id, window)?, catalog.in_gap(project, window)?))
            })
        })
        .await?;
    let conflict = |detail: &str| Refusal::new(StatusCode::CONFLICT, "window", detail);
    let sealed = sealed.ok_or_else(|| match (counted, gap) {
        (true, _) => conflict("its points are past their keeping; the counts are in the metric's ledger"),
        (_, true) => conflict("is a gap: the server took no reports in it"),
        _ => conflict(&format!(
            "is not sealed for this metric in windows of {} s: not yet, or it was attached to no store of this period; name the `store` \
             whose window is meant if it has another",
            window.period().secs()
        )),
    })?;
    match &sealed.failure {
        Some(reason) => Err(conflict(&format!("was sealed as failed: {reason}"))),
        None => Ok((revision, sealed)),
    }
}

/// What was found of a series: its reports as one row, and the numbers of some.
struct Found {
    row: Option<TableRow>,
    tx: Vec<u64>,
    next_after: Option<u64>,
    filter: Filter,
}

type Answered<T> = Result<Result<T, EvaluateError>, ReadError>;

/// Where to look.
struct Place<'a> {
    reports: &'a Reports,
    project: ProjectId,
    window: Window,
    cancel: &'a Cancel,
}

impl Place<'_> {
    /// A series of its own: what its reports have in common is a filter.
    fn own(&self, query: &Query, key: &Key, after: Tx, limit: usize) -> Answered<Found> {
        let span = self.window.start()..self.window.end();
        let row = match self.reports.evaluate(self.project, span, View::Accepted, &[query], self.cancel)?.pop() {
            Some(Ok(table)) => table.rows.into_iter().find(|row| row.key == *key),
            Some(Err(error)) => return Ok(Err(error)),
            None => None,
        };
        let (rows, more) = match self.list(&query.filter, Vec::new(), after, limit)? {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        let tx: Vec<u64> = rows.into_iter().map(|(tx, _)| tx.0).collect();
        let next_after = tx.last().copied().filter(|_| more);
        Ok(Ok(Found { row, tx, next_after, filter: query.filter.clone() }))
    }

    /// `__other__`: every report that passes and is in none of the window's own series.
    fn other(&self, query: &Query, kept: &BTreeSet<Key>, mut after: Tx, limit: usize) -> Answered<Found> {
        let span = self.window.start()..self.window.end();
        let row = match self.reports.rests(self.project, span, View::Accepted, &[(query, kept)], self.cancel)?.pop() {
            Some(Ok(row)) => Some(row),
            Some(Err(error)) => return Ok(Err(error)),
            None => None,
        };
        let (mut tx, mut next_after) = (Vec::new(), None);
        for _ in 0..CHUNKS {
            if tx.len() == limit {
                break;
            }
            let (rows, more) = match self.list(&query.filter, query.group.clone(), after, CHUNK)? {
                Ok(listed) => listed,
                Err(error) => return Ok(Err(error)),
            };
            next_after = None;
            let last = rows.len().checked_sub(1);
            for (at, (number, values)) in rows.into_iter().enumerate() {
                after = number;
                let key: Key = values.iter().map(|value| value.as_ref().map(|value| value.written().into_owned())).collect();
                if !kept.contains(&key) {
                    tx.push(number.0);
                }
                if tx.len() == limit && (more || Some(at) != last) {
                    next_after = Some(number.0);
                    break;
                }
            }
            if !more || next_after.is_some() {
                break;
            }
            next_after = Some(after.0);
        }
        Ok(Ok(Found { row, tx, next_after, filter: query.filter.clone() }))
    }

    /// Reports of the window that pass, by number; and whether there are more.
    #[expect(clippy::type_complexity, reason = "rows as a selection has them")]
    fn list(&self, filter: &Filter, columns: Vec<String>, after: Tx, limit: usize) -> Answered<(Vec<(Tx, Vec<Option<Value>>)>, bool)> {
        let later = Condition::new("_tx", Operator::GreaterThan, Value::from(after.0), false).expect("no pattern that could be wrong");
        let alternatives = if filter.is_empty() { vec![Vec::new()] } else { filter.clone() };
        let filter = alternatives.into_iter().map(|all| all.into_iter().chain([later.clone()]).collect()).collect();
        let order = vec![("_tx".to_owned(), Direction::Ascending)];
        let selection = Selection { filter, derived: Vec::new(), columns, order, offset: 0, limit };
        let span = self.window.start()..self.window.end();
        let selected = self.reports.select(self.project, span, View::Accepted, &selection, self.cancel)?;
        Ok(selected.map(|selected| (selected.matched > selected.rows.len() as u64, selected.rows)).map(|(more, rows)| (rows, more)))
    }
}

/// The metric's query for the reports of one group alone.
fn of_series(query: &Query, key: &SeriesKey, is_other: bool) -> Query {
    let mut query = query.clone();
    if !is_other && !key.is_empty() {
        let of_group: Vec<Condition> = query.group.iter().zip(key).map(|(attribute, label)| is_in(attribute, label)).collect();
        let alternatives = if query.filter.is_empty() { vec![Vec::new()] } else { std::mem::take(&mut query.filter) };
        query.filter = alternatives.into_iter().map(|all| all.into_iter().chain(of_group.clone()).collect()).collect();
    }
    query
}

/// True of the reports in a group, and of no others: a text that reads as a number would also equal other spellings of it.
fn is_in(attribute: &str, label: &Label) -> Condition {
    let Label::Text(text) = label else {
        return Condition::new(attribute, Operator::IsNotSet, Value::Bool(true), false).expect("no pattern that could be wrong");
    };
    let equal = Condition::new(attribute, Operator::Equal, Value::Text(text.clone()), false).expect("no pattern that could be wrong");
    if equal.number().is_none() {
        return equal;
    }
    let spelt: String = text.chars().flat_map(|c| [Some('\\').filter(|_| c.is_ascii_punctuation()), Some(c)]).flatten().collect();
    Condition::new(attribute, Operator::RegularExpression, Value::Text(format!("\\A{spelt}\\z")), false).unwrap_or(equal)
}

fn text_key(key: &SeriesKey) -> Key {
    key.iter().map(|label| if let Label::Text(text) = label { Some(text.clone()) } else { None }).collect()
}

fn told(
    window: Window,
    revision: &MetricRevision,
    sealed: &SealedMetric,
    series: &SealedSeries,
    other: bool,
    found: Found,
    except: Option<BTreeSet<Key>>,
) -> Explanation {
    let row = found.row.as_ref().filter(|row| row.matched > 0);
    let mut reproduced = true;
    let values = revision.query.aggregates.iter().zip(&series.cells).enumerate().map(|(at, (aggregate, cell))| {
        let now = match row.map(|row| row.cells[at].point()) {
            Some(value) => value.ok().flatten(),
            None => aggregate.op.zero_when_empty().then_some(0.0),
        };
        reproduced &= now == cell.value;
        json!({"aggregate": aggregate.name(), "sealed": cell.value, "reports": now})
    });
    let values = values.collect();
    let matched = row.map_or(0, |row| row.matched);
    reproduced &= !other || matched == sealed.folded;
    let detail = if reproduced {
        format!("{matched} reports received from {} up to {} make this point", window.start_secs(), window.end_secs())
    } else {
        "reports of this window are no longer there, so they make less than what was sealed; what is sealed stays".to_owned()
    };
    let labels: serde_json::Map<String, Json_> =
        revision.query.group.iter().cloned().zip(text_key(&series.key).into_iter().map(|value| json!(value))).collect();
    Explanation {
        window_start: window.start_secs(),
        window_end: window.end_secs(),
        period: window.period().secs(),
        revision: revision.number,
        labels: Json_::Object(if other { serde_json::Map::new() } else { labels }),
        other,
        values,
        reproduced,
        matched,
        metric: json!({"matched": sealed.matched, "own": sealed.own, "folded": sealed.folded, "left_out": sealed.left_out}),
        filter: grammar::write(&Query { filter: found.filter, ..Query::default() })["filter"].take(),
        except: except.map(|keys| keys.into_iter().collect()),
        tx: found.tx,
        next_after: found.next_after,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_whose_value_reads_as_a_number_is_told_by_its_spelling() {
        let holds = |label: &str, value: Value| is_in("a", &Label::Text(label.to_owned())).holds(Some(&value));
        assert!(holds("5", Value::from(5u64)) && holds("5", Value::Text("5".into())));
        assert!(!holds("5.0", Value::from(5u64)) && !holds("5", Value::Text("5.0".into())) && !holds("5.", Value::from(5u64)));
        assert!(holds("-1.5e3", Value::Text("-1.5e3".into())) && !holds("1.5", Value::Text("1x5".into())));
        assert!(holds("a.b", Value::Text("a.b".into())) && !holds("a.b", Value::Text("axb".into())));
        assert!(is_in("a", &Label::Missing).holds(None));
    }

    #[test]
    fn a_label_is_read_as_reports_have_it_or_as_the_store_shows_it() {
        let text = |text: &str| Label::Text(text.to_owned());
        let key = |a: Label, b: &str| vec![a, text(b)];
        let keys = [key(Label::Missing, "x"), key(text("none"), "x"), key(text(""), "x"), key(text("Crash"), "x"), key(text("hang"), "y")];
        let series = |key: &SeriesKey| SealedSeries { key: key.clone(), cells: vec![], live: true };
        let series = keys.iter().map(series).collect();
        let sealed = SealedMetric { revision: catalog::RevisionId(1), failure: None, matched: 0, own: 0, folded: 0, left_out: 0, series };
        let query = Query { group: vec!["error.type".into(), "os".into()], ..Query::default() };
        let read = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let asked = Asked::read(pairs)?;
            asked.series(&query, None, &sealed).map(|one| one.key.clone())
        };
        for (pairs, meant) in [
            (&[("error.type", "Crash"), ("os", "x")][..], &keys[3]),
            (&[("error_type", "crash"), ("os", "x")], &keys[3]),
            (&[("error.type", "__empty__"), ("os", "x")], &keys[2]),
            (&[("missing", "error.type"), ("os", "x")], &keys[0]),
            (&[("missing", "error_type"), ("os", "x")], &keys[0]),
        ] {
            assert_eq!(read(pairs).ok().as_ref(), Some(meant), "{pairs:?}");
        }
        let refused = read(&[("error.type", "none"), ("os", "x")]).expect_err("a missing value or the text");
        assert!(format!("{refused:?}").contains("may be"), "{refused:?}");
        for pairs in [&[("error.type", "hang"), ("os", "x")][..], &[("error.type", "hang")], &[("missing", "colour"), ("os", "x")]] {
            assert!(read(pairs).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_no_parameter_is_a_label() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let asked = Asked::read(pairs(&[("window", "60"), ("error.type", "x"), ("missing", "m"), ("limit", "7")])).expect("legal");
        assert_eq!((asked.window, asked.limit, asked.missing), (Some(60), Some(7), vec!["m".to_owned()]));
        assert_eq!(asked.labels, pairs(&[("error.type", "x")]));
        assert!(Asked::read(pairs(&[("window", "x")])).is_err() && Asked::read(pairs(&[("limit", "1001")])).is_err());
    }
}
