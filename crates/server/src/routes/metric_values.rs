//! What was exported of a metric over time: the values as they were sealed, window by window. Nothing is evaluated again, and a window
//! without a sealed value has none: it is never shown as 0.

use super::audit;
use super::parameters::Parameters;
use crate::app::App;
use crate::ask::ask;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use catalog::{Catalog, CatalogError, Metric, MetricOutcome, MetricRevision, Scope, SealedMetric, SeriesKey};
use model::{Label, Period, Window};
use reports::Cancel;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Most windows told at once.
const WINDOWS: u64 = 2_000;
/// Series whose values are told.
const SERIES: usize = 20;
/// Seconds of the span when none is asked for.
const SPAN: u64 = 86_400;

/// Which windows.
#[derive(Deserialize, IntoParams)]
pub(crate) struct Asked {
    /// Seconds of a window; by default the period of the first store that the metric's set is attached to.
    period: Option<String>,
    /// First second; by default one day before the end, or 2,000 windows if these are less.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
}

/// Sealed values.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetricValues {
    /// Seconds of a window.
    period: u32,
    /// The span, Unix seconds: windows that start in it.
    from: u64,
    to: u64,
    /// What is told of each series, those of the newest revision first.
    aggregates: Vec<ShownAggregate>,
    /// Windows and gaps, oldest first.
    windows: Vec<ValuesWindow>,
    /// Those with the largest sum first, 20 at most.
    series: Vec<ValuesSeries>,
    /// Series with values in the span that are not told.
    more: usize,
}

/// An aggregate.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownAggregate {
    /// As in series names.
    name: String,
    operator: String,
    attribute: String,
}

/// A window, or a gap of several.
#[derive(Serialize, ToSchema)]
pub(crate) struct ValuesWindow {
    /// First second.
    start: u64,
    /// First second after it.
    end: u64,
    /// `sealed`; `failed`: could not be evaluated; `gap`: the server took no reports; `dropped`: the values are past their keeping, the
    /// counts are still there.
    outcome: String,
    /// Why it failed.
    failure: Option<String>,
    /// The revision it was sealed with.
    revision: Option<u32>,
    /// Reports that passed the filter.
    matched: u64,
    /// Of these, in the series of all others.
    folded: u64,
    /// Series that were exported; null where there are no values.
    series: Option<usize>,
    /// Filled later from stored reports.
    backfilled: bool,
}

/// A series.
#[derive(Serialize, ToSchema)]
pub(crate) struct ValuesSeries {
    /// Values by attribute, null where missing; empty for the series of all others.
    labels: BTreeMap<String, Option<String>>,
    /// Whether it is the one of all series beyond the budget.
    other: bool,
    /// Sum over the span of the first aggregate that it has.
    sum: f64,
    /// By aggregate, its values by window: null where none was sealed.
    values: Vec<Vec<Option<f64>>>,
}

/// The values of a metric as they were sealed, over at most 2,000 windows.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}/values",
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path), Asked),
    responses((status = 200, body = MetricValues), (status = 404, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set, name)): Path<(String, String, String)>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Json<MetricValues>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let metric = caller.snapshot().metric(project, &set, &name).ok_or_else(|| Refusal::missing(&format!("metric {set}/{name}")))?.clone();
    let period = audit::period(&caller, project, &set, asked.period.as_deref())?;
    let longest = WINDOWS * u64::from(period.secs());
    let to = asked.to.unwrap_or_else(|| app.reports.now().secs());
    let from = asked.from.unwrap_or_else(|| to.saturating_sub(longest.min(SPAN)));
    if from >= to {
        return Err(Refusal::invalid("from", "must be before to"));
    }
    if to - from > longest {
        let detail = format!("must be at most {longest} s before to: {WINDOWS} windows of {} s", period.secs());
        return Err(Refusal::invalid("from", detail));
    }
    let id = metric.id;
    // Twice: gaps are there beside the windows.
    let most = 2 * WINDOWS as u32;
    let outcomes = app.catalog(move |app, _| app.catalog.metric_outcomes(project, id, period, (from, to), most)).await?;
    let shared = app.clone();
    let read = ask(&app.queries, move |cancel| read(&shared.catalog, &metric, period, outcomes, cancel)).await?;
    let (aggregates, windows, series, more) = read.map_err(|error| Refusal::internal(&error))?;
    Ok(Json(MetricValues { period: period.secs(), from, to, aggregates, windows, series, more }))
}

type Read = (Vec<ShownAggregate>, Vec<ValuesWindow>, Vec<ValuesSeries>, usize);

/// Reads the sealed windows twice, one at a time: once to find the largest series, once for their values. So no more is held than one
/// window and a sum for each series, whatever the budget.
fn read(catalog: &Catalog, metric: &Metric, period: Period, outcomes: Vec<MetricOutcome>, cancel: &Cancel) -> Result<Read, CatalogError> {
    let mut windows: Vec<ValuesWindow> = Vec::new();
    let mut sealed: Vec<(usize, Window, &MetricRevision)> = Vec::new();
    for outcome in outcomes {
        let window = Window::new(outcome.start, period).filter(|_| outcome.outcome != "gap");
        // Before a metric's first revision a backfill may have sealed it by that one.
        let revision = window.map(|window| metric.in_force(window.start()).unwrap_or(&metric.revisions[0]));
        if let (Some(window), Some(revision), "sealed") = (window, revision, outcome.outcome.as_str()) {
            sealed.push((windows.len(), window, revision));
        }
        windows.push(ValuesWindow {
            start: outcome.start,
            end: outcome.end,
            outcome: outcome.outcome,
            failure: outcome.failure,
            revision: revision.map(|revision| revision.number),
            matched: outcome.matched,
            folded: outcome.folded,
            series: None,
            backfilled: outcome.backfilled,
        });
    }
    let aggregates = distinct(sealed.iter().rev().flat_map(|(_, _, revision)| &revision.query.aggregates));
    let groups = distinct(sealed.iter().rev().map(|(_, _, revision)| &revision.query.group));
    // The same labels are the same series, whichever revision sealed them.
    let place = |revision: &MetricRevision| groups.iter().position(|group| **group == revision.query.group).unwrap_or(0);

    let mut sums: HashMap<(usize, SeriesKey), f64> = HashMap::new();
    each(catalog, &sealed, &mut windows, cancel, |_, revision, window| {
        let group = place(revision);
        for one in window.series.into_iter().filter(|one| one.live) {
            let value = one.cells.first().and_then(|cell| cell.value).unwrap_or(0.0);
            *sums.entry((group, one.key)).or_default() += value;
        }
    })?;
    let mut largest: Vec<((usize, SeriesKey), f64)> = sums.into_iter().collect();
    largest.sort_unstable_by(|(key, sum), (other, other_sum)| other_sum.total_cmp(sum).then_with(|| key.cmp(other)));
    let more = largest.len().saturating_sub(SERIES);
    largest.truncate(SERIES);

    let nothing = vec![vec![None; windows.len()]; aggregates.len()];
    let mut values: HashMap<(usize, SeriesKey), Vec<Vec<Option<f64>>>> =
        largest.iter().map(|(key, _)| (key.clone(), nothing.clone())).collect();
    each(catalog, &sealed, &mut windows, cancel, |at, revision, window| {
        let group = place(revision);
        for one in window.series.into_iter().filter(|one| one.live) {
            let Some(values) = values.get_mut(&(group, one.key)) else { continue };
            for (aggregate, cell) in revision.query.aggregates.iter().zip(&one.cells) {
                if let Some(line) = aggregates.iter().position(|known| *known == aggregate) {
                    values[line][at] = cell.value;
                }
            }
        }
    })?;
    let series = largest.into_iter().map(|(key, sum)| {
        let values = values.remove(&key).unwrap_or_default();
        let (labels, other) = labels(groups[key.0], &key.1);
        ValuesSeries { labels, other, sum, values }
    });
    let series = series.collect();
    let aggregates = aggregates.into_iter().map(|aggregate| ShownAggregate {
        name: aggregate.name(),
        operator: aggregate.op.name().to_owned(),
        attribute: aggregate.attribute.clone(),
    });
    Ok((aggregates.collect(), windows, series, more))
}

/// Hands out each window's sealed metric, and notes how many series it has, or that its values are gone.
fn each(
    catalog: &Catalog,
    sealed: &[(usize, Window, &MetricRevision)],
    windows: &mut [ValuesWindow],
    cancel: &Cancel,
    mut take: impl FnMut(usize, &MetricRevision, SealedMetric),
) -> Result<(), CatalogError> {
    for &(at, window, revision) in sealed {
        if cancel.is_set() {
            break;
        }
        match catalog.sealed_metric(revision.id, window)? {
            Some(metric) => {
                windows[at].series = Some(metric.series.iter().filter(|one| one.live).count());
                take(at, revision, metric);
            }
            None => {
                windows[at].series = None;
                windows[at].outcome = "dropped".to_owned();
            }
        }
    }
    Ok(())
}

/// Each once, in the order of first appearance.
fn distinct<'a, T: PartialEq + ?Sized>(all: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut found: Vec<&T> = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// A series' labels by attribute, and whether it is the one of all others.
fn labels(group: &[String], key: &SeriesKey) -> (BTreeMap<String, Option<String>>, bool) {
    if key.contains(&Label::Other) {
        return (BTreeMap::new(), true);
    }
    let text = |label: &Label| if let Label::Text(text) = label { Some(text.clone()) } else { None };
    (group.iter().cloned().zip(key.iter().map(text)).collect(), false)
}
