//! What an unsaved metric or store would come to: series now and to be expected, when the first point comes, the exact bytes.

use super::metric_sets::{self, NewMetric};
use super::metric_stores::read_period;
use super::projects::{Body, check_name};
use super::wire;
use crate::app::App;
use crate::auth::Caller;
use crate::forecast::{self, Asked, Beyond};
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use catalog::{MetricDraft, Scope};
use model::{Period, ProjectId, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json_, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Seconds between points where neither a store nor a period is given.
const USUAL_PERIOD_SECS: u32 = 60;
/// How far back all groups are counted and a window to show is looked for, in seconds.
pub(super) const DAY_SECS: u64 = 86_400;

/// What to preview: a metric, a store, or a metric in a store; saved or not.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPreview {
    /// A metric that is not saved.
    #[serde(default)]
    metric: Option<NewMetric>,
    /// The metric set it is to be in.
    #[serde(default)]
    set: Option<String>,
    /// Its name to be.
    #[serde(default)]
    name: Option<String>,
    /// The period it would be exported with: `60`, `"60s"` or `"1m"`; by default the store's, or a minute.
    #[serde(default)]
    #[schema(value_type = Object)]
    period: Option<Json_>,
    /// A saved store's name, or the body that would save one: then the exact requests are made, secrets masked.
    #[serde(default)]
    #[schema(value_type = Object)]
    store: Option<Json_>,
}

/// What it would come to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Preview {
    /// Of the metric, where one is given.
    series: Option<SeriesForecast>,
    /// The first window it would be sealed in, were it saved now: Unix seconds of its start.
    first_window_start: u64,
    /// When its first point comes: the end of that window.
    first_point: u64,
    /// What the store would get for the last whole window: of the metric, or without one of all metrics of the store's sets. In the
    /// form of a saved store's preview.
    #[schema(value_type = Option<Object>)]
    store: Option<Json_>,
    /// What a person should know.
    warnings: Vec<String>,
}

/// Series, each group one.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesForecast {
    /// In the last whole window.
    now: u64,
    /// That window's first second.
    window_start: Option<u64>,
    /// Seconds for which a group without reports stays a series.
    zero_for: u64,
    /// Series to expect: the groups of the last `zero_for` seconds, a budget's worth of them and `__other__`.
    forecast: u64,
    /// Groups of the last `zero_for` seconds.
    groups_within_zero_for: u64,
    /// Groups of the last 24 hours.
    groups_last_day: u64,
    /// Values a series has in each window: aggregates.
    values_each: u64,
    series_budget: u32,
    /// Whether groups would be folded into `__other__`.
    over_budget: bool,
    /// Which ones, when they would.
    beyond: Option<Beyond>,
}

/// Names of a metric that has none yet.
const UNNAMED: (&str, &str) = ("set", "metric");

/// Shows what a metric or a store would come to, before it is saved: series to be expected, and the exact bytes.
#[utoipa::path(post, path = "/api/v1/projects/{project}/preview", request_body = NewPreview, params(("project" = String, Path)),
    responses((status = 200, body = Preview), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewPreview>,
) -> Result<Json<Preview>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.clone();
    if new.metric.is_none() && new.store.is_none() {
        return Err(Refusal::invalid("metric", "give a metric, a store, or both"));
    }
    let (set, name) = (new.set.as_deref().unwrap_or(UNNAMED.0), new.name.as_deref().unwrap_or(UNNAMED.1));
    check_name("set", set)?;
    check_name("name", name)?;
    let store = new.store.as_ref().map(|given| wire::read_store(&app, &caller, &project, given)).transpose()?;
    let of_store = store.as_ref().map(|draft| draft.store.newest().settings.period);
    let period: Period = match (&new.period, of_store) {
        (None, Some(period)) => period,
        (given, _) => {
            let given = given.clone().unwrap_or(json!(USUAL_PERIOD_SECS));
            read_period(&given).map_err(|detail| Refusal::invalid("period", detail))?
        }
    };
    if of_store.is_some_and(|of_store| of_store != period) {
        return Err(Refusal::invalid("period", "is not the store's; leave it out"));
    }
    let (mut metric, mut warnings) = (None, Vec::new());
    if let Some(given) = &new.metric {
        let (draft, of_metric) = metric_sets::check(&app, Some(project.id), given).map_err(|refusal| refusal.below("metric"))?;
        (metric, warnings) = (Some(draft), of_metric);
    }
    let series = match &metric {
        Some(draft) => Some(forecast_series(&app, project.id, draft, period).await?),
        None => None,
    };
    let metric = metric.map(|draft| wire::unsaved_metric(&app, &caller, &project, set, name, draft));
    let store = match store {
        Some(draft) => Some(wire::draft(&app, &caller, project, draft, metric).await?),
        None => None,
    };
    let first = period.first_window_from(app.reports.now());
    Ok(Json(Preview { series, first_window_start: first.start_secs(), first_point: first.end_secs(), store, warnings }))
}

async fn forecast_series(app: &Arc<App>, project: ProjectId, draft: &MetricDraft, period: Period) -> Result<SeriesForecast, Refusal> {
    let now = app.reports.now();
    let zero_for = export::zero_for_secs(draft.zero_for, period);
    let back = |seconds: u64| Stamp::from_secs(now.secs().saturating_sub(seconds))..now;
    let last = forecast::last_window(period, now);
    let spans = [last.map_or(now..now, |window| window.start()..window.end()), back(zero_for), back(DAY_SECS)];
    let asked = spans.map(|span| Asked { query: draft.query.clone(), span, series_budget: draft.series_budget });
    let mut counted = Vec::with_capacity(asked.len());
    for one in forecast::count(app, project, asked.into()).await? {
        counted.push(one.map_err(|detail| Refusal::invalid("metric.query", detail))?);
    }
    let [in_window, expected, of_day] = counted.try_into().expect("three were asked for");
    Ok(SeriesForecast {
        now: in_window.series,
        window_start: last.map(model::Window::start_secs),
        zero_for,
        forecast: expected.series,
        groups_within_zero_for: expected.groups,
        groups_last_day: of_day.groups,
        values_each: draft.query.aggregates.len() as u64,
        series_budget: draft.series_budget,
        over_budget: expected.over.is_some(),
        beyond: expected.over,
    })
}
