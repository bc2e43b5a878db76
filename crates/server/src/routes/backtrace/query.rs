//! `POST /api/query`: reads a request, finds its rows, answers. What is computed is decided in `model::backtrace`.

use super::meta::{About, Counts, Phases, Stopwatch, meta};
use super::{Asker, Denied, describe, issue, json_body, reply};
use crate::app::App;
use crate::ask::ask;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use catalog::{IssueEdit, Project, Scope};
use model::backtrace::{self, Action, Fault, ISSUE_PREFIX, Request, TableName};
use model::{Attributes, Query, Report, Selected, Selection, Stamp, Table, Tx, Value, oracle};
use reports::{Cancel, Change, EvaluateError, ReadError, View};
use serde_json::{Value as Json_, json};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All time: a time frame is a condition on `timestamp` like any other.
pub(super) const EVER: Range<Stamp> = Stamp::ZERO..Stamp::from_micros(u64::MAX);
/// Most values in one answer.
const ANSWER_VALUES: usize = 2_000_000;
/// Most values that are held at one time to join issues to reports.
const JOIN_VALUES: usize = 10_000_000;
/// Attributes that a report has by its number and stamp.
const COMPUTED: [&str; 4] = ["_tx", "_rxid", "timestamp.received", "report.delay"];

/// Numbers answers since the start.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// Answers a request, or describes the columns it may name.
pub(super) async fn run(State(app): State<Arc<App>>, asker: Asker, body: Result<Bytes, BytesRejection>) -> Result<Json<Json_>, Denied> {
    let describes = asker.parameters.get("action") == Some("describe");
    let body = match body {
        Ok(empty) if empty.is_empty() && describes => json!({}),
        body => json_body(body)?,
    };
    let table = backtrace::table(&body, asker.parameters.get("table"))?;
    if describes || body.get("action").and_then(Json_::as_str) == Some("describe") {
        let project = asker.project(&app, Scope::Query)?;
        return Ok(Json(describe::answer(&describe::columns(&app, &project, table))));
    }
    let changes = body.get("set").is_some_and(|set| !set.is_null());
    let project = asker.project(&app, if changes { Scope::Edit } else { Scope::Query })?;
    let (shared, of) = (app.clone(), project.clone());
    let work = move |cancel: &Cancel| Run { app: &shared, project: &of, table, cancel }.run(&body);
    let done = ask(&app.queries, work).await??;
    let Done { found, mut phases, counts, tx } = done;
    let mut watch = Stopwatch::start();
    let response = match found {
        Found::Answer(response) => response,
        Found::Reports(txs, changes) => {
            app.reports.amend(project.id, &txs, &changes).await.map_err(|error| Denied::internal(&error))?;
            phases.set = watch.lap();
            reply::changed()
        }
        Found::Issues(fingerprints, edit) => {
            issue::save(&app, &project, fingerprints, edit, &asker.caller.name()).await?;
            phases.set = watch.lap();
            reply::changed()
        }
    };
    let user = asker.caller.name();
    let about = About { user: &user, universe: &app.universe, project: &project.name, tx };
    Ok(Json(json!({"response": response, "_": meta(&about, &phases, &counts)})))
}

/// The reports that pass the filter of a request about them, such as that of a deletion. Blocks.
pub(super) fn matching(app: &App, project: &Project, body: &Json_, cancel: &Cancel) -> Result<Vec<Tx>, Fault> {
    let run = Run { app, project, table: TableName::Objects, cancel };
    let columns = describe::columns(app, project, TableName::Objects);
    run.matching(&backtrace::read(&json!({"filter": body.get("filter"), "virtual_columns": body.get("virtual_columns")}), &columns)?)
        .map(|(_, selected)| selected.rows.into_iter().map(|(tx, _)| tx).collect())
}

/// A request being answered.
struct Run<'a> {
    app: &'a App,
    project: &'a Project,
    table: TableName,
    cancel: &'a Cancel,
}

/// What a request came to.
struct Done {
    found: Found,
    phases: Phases,
    counts: Counts,
    /// Highest object number there was.
    tx: u64,
}

enum Found {
    Answer(Json_),
    /// Reports to change.
    Reports(Vec<Tx>, Vec<Change>),
    /// Issues to change, by fingerprint.
    Issues(Vec<String>, IssueEdit),
}

/// Where the rows of a request are.
enum Rows {
    /// In the report store.
    Reports,
    /// Made for this request.
    Made(Vec<Report>),
}

impl Run<'_> {
    fn run(&self, body: &Json_) -> Result<Done, Fault> {
        let mut watch = Stopwatch::start();
        let columns = describe::columns(self.app, self.project, self.table);
        let request = backtrace::read(body, &columns)?;
        let mut phases = Phases { parse: watch.lap(), ..Phases::default() };
        let mut counts = Counts { filters: request.filter.iter().map(Vec::len).sum(), folds: reply::folds(&request), ..Counts::default() };
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let tx = self.app.reports.newest(self.project.id).map_or(0, |tx| tx.0);
        let found = match &request.action {
            Action::Aggregate(asked) => {
                let query = asked.query(&request);
                let table = self.evaluate(&self.rows(&request)?, &query)?;
                phases.scan = watch.lap();
                let mut found = asked.finish(&query, &table);
                phases.folds = watch.lap();
                asked.sort(&mut found.groups);
                phases.sort = watch.lap();
                let values: usize = request.page(&found.groups).iter().map(weight).sum();
                if values > ANSWER_VALUES {
                    return Err(Fault::invalid(format!("the answer has {values} values; add a limit, {ANSWER_VALUES} values fit")));
                }
                (counts.rows, counts.groups) = (found.initial.rows, found.initial.groups);
                counts.kept = (found.kept.rows, found.kept.groups);
                let answer = reply::aggregation(sequence, &request, asked, &found);
                phases.render = watch.lap();
                Found::Answer(answer)
            }
            Action::Select(asked) => {
                let most = ANSWER_VALUES / (asked.columns.len() + 1);
                let rows = self.rows(&request)?;
                let selected = self.select(&rows, &request.selection(most))?;
                phases.scan = watch.lap();
                let left = (selected.matched as usize).saturating_sub(request.offset);
                if request.limit.unwrap_or(usize::MAX).min(left) > selected.rows.len() {
                    return Err(Fault::invalid(format!("the answer has {left} rows; add a limit of at most {most}")));
                }
                let groups = u64::from(selected.matched > 0);
                (counts.rows, counts.groups, counts.kept) = (selected.matched, groups, (selected.matched, groups));
                let answer = reply::selection(sequence, &request, asked, &selected);
                phases.render = watch.lap();
                Found::Answer(answer)
            }
            Action::Set(changes) => {
                let (rows, selected) = self.matching(&request)?;
                phases.scan = watch.lap();
                let groups = u64::from(selected.matched > 0);
                (counts.rows, counts.groups, counts.kept) = (selected.matched, groups, (selected.matched, groups));
                self.change(&rows, selected, changes)?
            }
        };
        Ok(Done { found, phases, counts, tx })
    }

    /// Every row that passes a request's filter; pages are for what is shown.
    fn matching(&self, request: &Request) -> Result<(Rows, Selected), Fault> {
        let rows = self.rows(request)?;
        let selection = Selection { offset: 0, limit: usize::MAX, ..request.selection(usize::MAX) };
        let selected = self.select(&rows, &selection)?;
        Ok((rows, selected))
    }

    fn change(&self, rows: &Rows, selected: Selected, changes: &[(String, Option<Value>)]) -> Result<Found, Fault> {
        let fixed = |name: &str| Fault::parameter("set", &format!("the column '{name}' cannot be set"));
        let txs: Vec<Tx> = selected.rows.into_iter().map(|(tx, _)| tx).collect();
        if let (TableName::Issues, Rows::Made(rows)) = (self.table, rows) {
            let mut edit = IssueEdit::default();
            for (name, value) in changes {
                let field = match name.as_str() {
                    "state" => &mut edit.state,
                    "tags" => &mut edit.tags,
                    "ticket" => &mut edit.ticket,
                    "assignee" => &mut edit.assignee,
                    other => return Err(fixed(other)),
                };
                *field = Some(value.as_ref().map(|value| value.written().into_owned()));
            }
            let fingerprints = txs.iter().map(|tx| issue::fingerprint(&rows[tx.0 as usize - 1])).collect();
            return Ok(Found::Issues(fingerprints, edit));
        }
        if let Some((name, _)) =
            changes.iter().find(|(name, _)| name.starts_with('_') || name.contains(';') || COMPUTED.contains(&name.as_str()))
        {
            return Err(fixed(name));
        }
        let changes = changes.iter().map(|(attribute, value)| Change::Set { attribute: attribute.clone(), value: value.clone() });
        Ok(Found::Reports(txs, changes.collect()))
    }

    fn rows(&self, request: &Request) -> Result<Rows, Fault> {
        match self.table {
            TableName::Issues => Ok(Rows::Made(issue::rows(self.app, self.project, self.cancel)?)),
            TableName::Objects if request.joins_issues => Ok(Rows::Made(self.joined(request)?)),
            TableName::Objects => Ok(Rows::Reports),
        }
    }

    /// Reports with the columns of their issues beside their own, as far as the request needs either.
    fn joined(&self, request: &Request) -> Result<Vec<Report>, Fault> {
        let needed = request.attributes();
        let (of_issues, mut columns): (Vec<&str>, Vec<&str>) = needed.into_iter().partition(|name| name.starts_with(ISSUE_PREFIX));
        columns.retain(|name| !COMPUTED.contains(name) && !["fingerprint", "timestamp"].contains(name));
        columns.splice(0..0, ["timestamp.received", "fingerprint", "timestamp"]);
        // Where several alternatives are given, what one of them refuses another may let through.
        let filter = match request.filter.as_slice() {
            [all] => vec![all.iter().filter(|condition| !condition.attribute.starts_with(ISSUE_PREFIX)).cloned().collect()],
            _ => Vec::new(),
        };
        let names = columns.iter().map(|&name| name.to_owned()).collect();
        let limit = JOIN_VALUES / columns.len();
        let selection = Selection { filter, derived: request.derived.clone(), columns: names, order: Vec::new(), offset: 0, limit };
        let found = read(self.app.reports.select(self.project.id, EVER, View::Current, &selection, self.cancel))?;
        if found.matched as usize > found.rows.len() {
            let message = format!("{} reports are too many to be joined with issues; add a filter that leaves {limit}", found.matched);
            return Err(Fault::invalid(message));
        }
        let issues = issue::rows(self.app, self.project, self.cancel)?;
        let issues: HashMap<String, &Report> = issues.iter().map(|issue| (issue::fingerprint(issue), issue)).collect();
        let report = |(tx, values): (Tx, Vec<Option<Value>>)| {
            let issue = values[1].as_ref().and_then(|fingerprint| issues.get(fingerprint.written().as_ref()));
            let received = values[0].as_ref().and_then(Value::number).map_or(0, |secs| secs.float() as u64);
            let own = columns.iter().zip(&values).skip(1).filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
            let joined = of_issues.iter().filter_map(|name| {
                let value = issue?.attributes.get(name.strip_prefix(ISSUE_PREFIX)?)?;
                Some(((*name).to_owned(), value.clone()))
            });
            let attributes = Attributes::from_pairs(own.chain(joined));
            Report { project: self.project.id, tx, stamp: Stamp::from_secs(received), attributes }
        };
        Ok(found.rows.into_iter().map(report).collect())
    }

    /// A query's table.
    fn evaluate(&self, rows: &Rows, query: &Query) -> Result<Table, Fault> {
        match rows {
            Rows::Made(rows) => Ok(oracle::evaluate(rows, query)),
            Rows::Reports => {
                let tables = self.app.reports.evaluate(self.project.id, EVER, View::Current, &[query], self.cancel).map_err(unreadable)?;
                tables.into_iter().next().expect("one table a query").map_err(refused)
            }
        }
    }

    fn select(&self, rows: &Rows, selection: &Selection) -> Result<Selected, Fault> {
        match rows {
            Rows::Made(rows) => Ok(oracle::select(rows, selection)),
            Rows::Reports => read(self.app.reports.select(self.project.id, EVER, View::Current, selection, self.cancel)),
        }
    }
}

/// Values that a group adds to an answer.
fn weight(group: &backtrace::Group) -> usize {
    use backtrace::FoldCell::{Bins, Distribution, Histogram};
    let of_cell = |cell: &backtrace::FoldCell| match cell {
        Histogram(values) | Distribution { shown: values, .. } => values.len(),
        Bins(bins) => bins.len(),
        _ => 1,
    };
    1 + group.cells.iter().map(of_cell).sum::<usize>()
}

/// The answer of the report store, or why there is none.
pub(super) fn read<T>(answer: Result<Result<T, EvaluateError>, ReadError>) -> Result<T, Fault> {
    answer.map_err(unreadable)?.map_err(refused)
}

fn refused(error: EvaluateError) -> Fault {
    Fault::invalid(error.to_string())
}

fn unreadable(error: ReadError) -> Fault {
    tracing::error!(error = &error as &dyn std::error::Error, "a query failed");
    Fault::invalid("the server could not read its reports; its log says why")
}
