//! The query API of our own, which Explore and `crashmeter query` ask: groups with their totals and their course over time, the
//! reports themselves, and the values of an attribute.

use super::parameters::Parameters;
use super::projects::Body;
use crate::app::App;
use crate::ask::ask;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use catalog::Scope;
use model::{
    Aggregate, AggregateOp, Cell, Condition, Derived, Direction, Filter, Function, Key, Most, Operator, Query, Selection, Stamp, Table,
    TableRow, Top, Value, grammar,
};
use reports::{Cancel, EvaluateError, ReadError, Reports, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json_, json};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::{IntoParams, ToSchema};

/// Groups or reports returned unless the query says otherwise, and at most.
const ROWS: usize = 1_000;
/// Groups whose course over time is told, and at most.
const LINES: usize = 20;
/// Most steps of a course over time.
const STEPS: u64 = 2_000;
/// Name of the derived attribute that is a report's step: no client can send a name with a control character.
const STEP: &str = "\u{1}step";

/// A query and its time frame.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewQuery {
    /// `{"filter": [...], "group": [...], "fold": {...}}` in the Backtrace grammar.
    #[schema(value_type = Object)]
    query: Json_,
    /// First second of the time frame; by default one hour before its end.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
    /// What groups are sorted by; by default their reports, most first.
    order: Option<Order>,
    /// Groups passed over.
    #[serde(default)]
    offset: usize,
    /// Most groups; at most 1,000.
    limit: Option<usize>,
    /// Asks for the course over time of the first groups.
    series: Option<NewSeries>,
}

/// What groups are sorted by.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// `matched`, `group`, or the name of an aggregate as in `columns`.
    by: String,
    #[schema(value_type = String)]
    direction: Direction,
}

/// Which course over time.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSeries {
    /// Seconds of a step: at most 2,000 steps.
    step: u64,
    /// Of how many groups; by default, and at most, 20.
    limit: Option<usize>,
}

/// A table.
#[derive(Serialize, ToSchema)]
pub(crate) struct Answer {
    /// Group-by attributes, then aggregates.
    columns: Vec<String>,
    /// Group values (null where missing), then one value an aggregate: a list of value and reports for `histogram`.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<Json_>>,
    /// Reports in each row.
    row_matched: Vec<u64>,
    /// One value an aggregate over all groups, those not shown included.
    #[schema(value_type = Vec<Object>)]
    totals: Vec<Json_>,
    /// Reports that passed the filter.
    matched: u64,
    /// Groups there are, those not shown included.
    groups: usize,
    /// Whether groups after the shown ones were left out.
    truncated: bool,
    /// The course over time, when it was asked for.
    series: Option<SeriesAnswer>,
    /// The time frame, Unix seconds.
    from: u64,
    to: u64,
    /// Reports in the time frame, which the query has looked at.
    rows_read: u64,
    took_micros: u64,
    /// What is probably not meant, such as an attribute that no report has had.
    warnings: Vec<String>,
}

/// Courses over time.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesAnswer {
    /// Seconds of a step.
    step: u64,
    /// Starts of the steps, Unix seconds; the first and the last may be cut by the time frame.
    starts: Vec<u64>,
    /// One a group, in the order of the rows.
    lines: Vec<Line>,
}

/// The course of one group.
#[derive(Serialize, ToSchema)]
pub(crate) struct Line {
    /// The group's values.
    key: Vec<Option<String>>,
    /// Reports by step.
    matched: Vec<u64>,
    /// By aggregate, its values by step.
    #[schema(value_type = Vec<Vec<Object>>)]
    values: Vec<Vec<Json_>>,
}

/// Runs a query over a time frame.
#[utoipa::path(post, path = "/api/v1/projects/{project}/query", request_body = NewQuery, params(("project" = String, Path)),
    responses((status = 200, body = Answer), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewQuery>,
) -> Result<Json<Answer>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let parsed = grammar::parse(&new.query)?;
    let (query, mut warnings) = (parsed.query, parsed.warnings);
    warnings.extend(super::attributes::advice(&app.reports.attributes(project.id), &query));
    let span = time_frame(&app, new.from, new.to)?;
    let limit = bounded("limit", new.limit, ROWS)?;
    let columns: Vec<String> = query.group.iter().cloned().chain(query.aggregates.iter().map(Aggregate::name)).collect();
    let sort = Sort::read(new.order.as_ref(), &query)?;
    let course = new.series.as_ref().map(|series| Course::read(series, &span)).transpose()?;
    let (frame, offset) = (span.clone(), new.offset);
    let question = move |reports: &Reports, cancel: &Cancel| {
        let totals = Query { group: Vec::new(), ..query.clone() };
        let none = BTreeSet::new();
        let most = Most { groups: sort.groups_needed(offset, limit), also: &none };
        let tops = reports.evaluate_most(project.id, frame.clone(), View::Current, &[(&query, most), (&totals, most)], cancel)?;
        let [top, Top { table: totals, .. }] = match <[_; 2]>::try_from(tops) {
            Ok([Ok(top), Ok(totals)]) => [top, totals],
            Ok([Err(error), _] | [_, Err(error)]) => return Ok(Err(error)),
            Err(_) => unreachable!("two queries have two answers"),
        };
        let rows_read = reports.accepted(project.id, frame.clone())?;
        let shown = Shown::of(top, &sort, offset, limit);
        let series = match course {
            None => None,
            Some(course) => {
                let keys: Vec<Key> = shown.rows.iter().take(course.limit).map(|row| row.key.clone()).collect();
                let by_step = course.query(&query, &keys);
                match reports.evaluate(project.id, frame, View::Current, &[&by_step], cancel)?.pop() {
                    Some(Ok(table)) => Some(course.answer(&query, keys, table)),
                    Some(Err(error)) => return Ok(Err(error)),
                    None => unreachable!("one query has one answer"),
                }
            }
        };
        Ok(Ok((shown, totals, series, rows_read)))
    };
    let ((shown, totals, series, rows_read), took) = answer(&app, question).await?;
    let row = |row: &TableRow| row.key.iter().map(|value| json!(value)).chain(row.cells.iter().map(shown_cell)).collect();
    Ok(Json(Answer {
        columns,
        rows: shown.rows.iter().map(row).collect(),
        row_matched: shown.rows.iter().map(|row| row.matched).collect(),
        totals: totals.rows.first().map(|row| row.cells.iter().map(shown_cell).collect()).unwrap_or_default(),
        matched: totals.matched,
        groups: shown.groups,
        truncated: shown.truncated,
        series,
        from: span.start.secs(),
        to: span.end.secs(),
        rows_read,
        took_micros: took.as_micros() as u64,
        warnings,
    }))
}

/// Which reports to list.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSelection {
    /// `[{attribute: [[operator, value], ...]}, ...]` in the Backtrace grammar.
    #[schema(value_type = Vec<Object>)]
    #[serde(default)]
    filter: Json_,
    /// Attributes to show, at most 100.
    columns: Vec<String>,
    /// First second of the time frame; by default one hour before its end.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
    /// Attribute to sort by; by default the latest report comes first.
    order: Option<Order>,
    /// Reports passed over.
    #[serde(default)]
    offset: usize,
    /// Most reports; at most 1,000.
    limit: Option<usize>,
}

/// Reports of a time frame.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReportsAnswer {
    columns: Vec<String>,
    /// One a report: its number, and the value of each column (null where missing).
    rows: Vec<ShownReport>,
    /// Reports that passed the filter.
    matched: u64,
    /// Whether reports after the shown ones were left out.
    truncated: bool,
    from: u64,
    to: u64,
    took_micros: u64,
}

/// One of the reports.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownReport {
    tx: u64,
    #[schema(value_type = Vec<Object>)]
    values: Vec<Option<Value>>,
}

/// Lists reports of a time frame.
#[utoipa::path(post, path = "/api/v1/projects/{project}/reports", request_body = NewSelection, params(("project" = String, Path)),
    responses((status = 200, body = ReportsAnswer), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn select(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewSelection>,
) -> Result<Json<ReportsAnswer>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let filter = read_filter(new.filter)?;
    let span = time_frame(&app, new.from, new.to)?;
    let limit = bounded("limit", new.limit, ROWS)?;
    if new.columns.len() > grammar::MAX_CONDITIONS {
        return Err(Refusal::invalid("columns", format!("at most {} attributes can be shown", grammar::MAX_CONDITIONS)));
    }
    let order = new.order.map_or_else(|| vec![("_tx".to_owned(), Direction::Descending)], |order| vec![(order.by, order.direction)]);
    let selection = Selection { filter, derived: Vec::new(), columns: new.columns.clone(), order, offset: new.offset, limit };
    let (frame, last) = (span.clone(), new.offset.saturating_add(limit) as u64);
    let (selected, took) =
        answer(&app, move |reports, cancel| reports.select(project.id, frame, View::Current, &selection, cancel)).await?;
    Ok(Json(ReportsAnswer {
        columns: new.columns,
        rows: selected.rows.into_iter().map(|(tx, values)| ShownReport { tx: tx.0, values }).collect(),
        matched: selected.matched,
        truncated: selected.matched > last,
        from: span.start.secs(),
        to: span.end.secs(),
        took_micros: took.as_micros() as u64,
    }))
}

/// Which values of an attribute.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ValuesOf {
    /// Only values that begin with this.
    #[serde(default)]
    prefix: String,
    /// Only of reports that pass this filter: JSON, as in a query.
    filter: Option<String>,
    /// First second of the time frame; by default one day before its end.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
    /// Most values; at most 1,000.
    limit: Option<usize>,
}

/// Values of an attribute.
#[derive(Serialize, ToSchema)]
pub(crate) struct ValuesAnswer {
    /// Most frequent first.
    values: Vec<CountedValue>,
    /// Distinct values there are, those not shown included.
    distinct: usize,
    /// Reports without a value.
    missing: u64,
    /// Whether values were left out.
    truncated: bool,
}

/// A value.
#[derive(Serialize, ToSchema)]
pub(crate) struct CountedValue {
    value: String,
    reports: u64,
}

/// Seconds of the time frame in which values are looked for unless the caller says otherwise.
const VALUES_SECS: u64 = 86_400;

/// Values of an attribute, by how often they occur.
#[utoipa::path(get, path = "/api/v1/projects/{project}/attributes/{attribute}/values",
    params(("project" = String, Path), ("attribute" = String, Path), ValuesOf),
    responses((status = 200, body = ValuesAnswer), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn values(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, attribute)): Path<(String, String)>,
    Parameters(of): Parameters<ValuesOf>,
) -> Result<Json<ValuesAnswer>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let filter = of.filter.as_deref().map(serde_json::from_str).transpose();
    let filter = filter.map_err(|error| Refusal::invalid("filter", format!("must be JSON: {error}")))?.unwrap_or_default();
    let to = of.to.unwrap_or_else(|| app.reports.now().secs() + 1);
    let span = time_frame(&app, of.from.or(Some(to.saturating_sub(VALUES_SECS))), Some(to))?;
    let limit = bounded("limit", of.limit, ROWS)?;
    let query = Query { filter: read_filter(filter)?, group: vec![attribute], ..Query::default() };
    let question = move |reports: &Reports, cancel: &Cancel| {
        Ok(reports.evaluate(project.id, span, View::Current, &[&query], cancel)?.pop().expect("one query has one answer"))
    };
    let (table, _) = answer(&app, question).await?;
    let missing = table.rows.iter().filter(|row| row.key == [None]).map(|row| row.matched).sum();
    let mut values: Vec<CountedValue> = table
        .rows
        .into_iter()
        .filter_map(|mut row| Some(CountedValue { value: row.key.pop()??, reports: row.matched }))
        .filter(|counted| counted.value.starts_with(&of.prefix))
        .collect();
    values.sort_by(|a, b| b.reports.cmp(&a.reports).then_with(|| a.value.cmp(&b.value)));
    let distinct = values.len();
    values.truncate(limit);
    Ok(Json(ValuesAnswer { values, distinct, missing, truncated: distinct > limit }))
}

/// Asks the reports; returns the answer and how long it took.
pub(super) async fn answer<T: Send + 'static>(
    app: &Arc<App>,
    question: impl FnOnce(&Reports, &Cancel) -> Result<Result<T, EvaluateError>, ReadError> + Send + 'static,
) -> Result<(T, Duration), Refusal> {
    let (reports, began) = (app.reports.clone(), Instant::now());
    let answer = ask(&app.queries, move |cancel| question(&reports, cancel)).await?;
    let answer = answer.map_err(|error| Refusal::internal(&error))?.map_err(|error| Refusal::invalid("query", error.to_string()))?;
    Ok((answer, began.elapsed()))
}

/// The time frame asked for.
fn time_frame(app: &App, from: Option<u64>, to: Option<u64>) -> Result<Range<Stamp>, Refusal> {
    let to = to.map_or_else(|| app.reports.now(), Stamp::from_secs);
    let from = Stamp::from_secs(from.unwrap_or_else(|| to.secs().saturating_sub(3_600)));
    if from > to {
        return Err(Refusal::invalid("from", "must not be after to"));
    }
    Ok(from..to)
}

fn bounded(field: &str, asked: Option<usize>, most: usize) -> Result<usize, Refusal> {
    let limit = asked.unwrap_or(most);
    if limit == 0 || limit > most {
        return Err(Refusal::invalid(field, format!("must be 1 to {most}")));
    }
    Ok(limit)
}

fn read_filter(filter: Json_) -> Result<Filter, Refusal> {
    // A query needs a fold; the filter's problems keep their names.
    Ok(grammar::parse(&json!({"filter": filter, "fold": {"_tx": [["count"]]}}))?.query.filter)
}

fn shown_cell(cell: &Cell) -> Json_ {
    match cell {
        Cell::Histogram(counts) => json!(counts),
        cell => json!(cell.scalar()),
    }
}

/// How groups are sorted.
#[derive(Clone, Copy)]
enum Sort {
    Matched(Direction),
    Group(Direction),
    Aggregate(usize, Direction),
}

impl Sort {
    fn read(order: Option<&Order>, query: &Query) -> Result<Sort, Refusal> {
        let Some(order) = order else { return Ok(Sort::Matched(Direction::Descending)) };
        match order.by.as_str() {
            "matched" => Ok(Sort::Matched(order.direction)),
            "group" => Ok(Sort::Group(order.direction)),
            name => {
                let at = query.aggregates.iter().position(|aggregate| aggregate.name() == name);
                let at = at.ok_or_else(|| Refusal::invalid("order.by", "must be matched, group or the name of an aggregate"))?;
                Ok(Sort::Aggregate(at, order.direction))
            }
        }
    }

    /// How many groups with most reports have all that are shown among them.
    fn groups_needed(self, offset: usize, limit: usize) -> usize {
        match self {
            Sort::Matched(Direction::Descending) => offset.saturating_add(limit),
            _ => usize::MAX,
        }
    }

    /// Of equals the one whose values come first, a missing one last, as in `Most`.
    fn compare(self, a: &TableRow, b: &TableRow) -> Ordering {
        let (order, direction) = match self {
            Sort::Matched(direction) => (a.matched.cmp(&b.matched), direction),
            Sort::Group(direction) => (a.key.cmp(&b.key), direction),
            Sort::Aggregate(at, direction) => (model::query::order(a.cells[at].scalar(), b.cells[at].scalar()), direction),
        };
        let order = if direction == Direction::Descending { order.reverse() } else { order };
        order.then_with(|| a.key.iter().map(label).cmp(b.key.iter().map(label)))
    }
}

/// The groups shown.
struct Shown {
    rows: Vec<TableRow>,
    groups: usize,
    truncated: bool,
}

impl Shown {
    fn of(Top { mut table, beyond }: Top, sort: &Sort, offset: usize, limit: usize) -> Shown {
        let groups = table.rows.len() + beyond.groups as usize;
        table.rows.sort_unstable_by(|a, b| sort.compare(a, b));
        let truncated = groups > offset.saturating_add(limit);
        Shown { rows: table.rows.into_iter().skip(offset).take(limit).collect(), groups, truncated }
    }
}

/// A group's value as labels are sorted.
fn label(value: &Option<String>) -> (bool, &Option<String>) {
    (value.is_none(), value)
}

/// A course over time that was asked for.
struct Course {
    step: u64,
    limit: usize,
    starts: Vec<u64>,
}

impl Course {
    fn read(new: &NewSeries, span: &Range<Stamp>) -> Result<Course, Refusal> {
        let secs = span.end.secs().saturating_sub(span.start.secs());
        if new.step == 0 || secs / new.step >= STEPS {
            return Err(Refusal::invalid("series.step", format!("must make at most {STEPS} steps of the time frame")));
        }
        let first = span.start.secs() / new.step * new.step;
        let starts = (0..).map(|step| first + step * new.step).take_while(|start| Stamp::from_secs(*start) < span.end).collect();
        Ok(Course { step: new.step, limit: bounded("series.limit", new.limit, LINES)?, starts })
    }

    /// The query that tells the course of these groups: one group a step and key.
    fn query(&self, query: &Query, keys: &[Key]) -> Query {
        let step = Derived {
            name: STEP.to_owned(),
            source: "timestamp.received".to_owned(),
            function: Function::Quantize { size: self.step, offset: 0 },
        };
        let mut by_step = Query { derived: vec![step], ..query.clone() };
        by_step.group.push(STEP.to_owned());
        if !query.group.is_empty() {
            let alternatives: Vec<Vec<Condition>> = if query.filter.is_empty() { vec![Vec::new()] } else { query.filter.clone() };
            let with = |all: &Vec<Condition>, key: &Key| all.iter().cloned().chain(is_of(&query.group, key)).collect();
            by_step.filter = alternatives.iter().flat_map(|all| keys.iter().map(move |key| with(all, key))).collect();
        }
        by_step
    }

    fn answer(&self, query: &Query, keys: Vec<Key>, table: Table) -> SeriesAnswer {
        let mut lines: Vec<Line> =
            keys.into_iter().map(|key| Line { key, matched: vec![0; self.starts.len()], values: self.empty(&query.aggregates) }).collect();
        let places: HashMap<Key, usize> = lines.iter().enumerate().map(|(at, line)| (line.key.clone(), at)).collect();
        for mut row in table.rows {
            let step =
                row.key.pop().flatten().and_then(|start| start.parse().ok()).and_then(|start| self.starts.binary_search(&start).ok());
            // A condition that is true of a group's values can be true of others too: those have no line.
            if let (Some(step), Some(&line)) = (step, places.get(&row.key)) {
                lines[line].matched[step] = row.matched;
                lines[line].values.iter_mut().zip(&row.cells).for_each(|(values, cell)| values[step] = shown_cell(cell));
            }
        }
        SeriesAnswer { step: self.step, starts: self.starts.clone(), lines }
    }

    /// A step without reports: 0 of what counts, nothing of the rest.
    fn empty(&self, aggregates: &[Aggregate]) -> Vec<Vec<Json_>> {
        let nothing = |op: AggregateOp| if op.zero_when_empty() { json!(0) } else { Json_::Null };
        aggregates.iter().map(|aggregate| vec![nothing(aggregate.op); self.starts.len()]).collect()
    }
}

/// Conditions that hold of the reports in a group.
fn is_of(group: &[String], key: &Key) -> Vec<Condition> {
    let condition = |(name, value): (&String, &Option<String>)| {
        let (operator, operand) = match value {
            Some(text) => (Operator::Equal, Value::Text(text.clone())),
            None => (Operator::IsNotSet, Value::Bool(true)),
        };
        Condition::new(name, operator, operand, false).expect("no pattern that could be wrong")
    };
    group.iter().zip(key).map(condition).collect()
}
