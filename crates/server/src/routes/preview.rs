//! What an unsaved metric would come to: series now and to be expected, and when its first point comes.

use super::metric_sets::{self, NewMetric};
use super::metric_stores::read_period;
use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::forecast::{self, Asked, Beyond};
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use catalog::Scope;
use model::{Period, Problem, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json_, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// How far back all groups are counted, in seconds.
const DAY_SECS: u64 = 86_400;

/// A metric that is not saved, and the period it would be exported with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPreview {
    metric: NewMetric,
    /// `60`, `"60s"` or `"1m"`; by default a minute.
    #[serde(default)]
    #[schema(value_type = Object)]
    period: Option<Json_>,
}

/// What it would come to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Preview {
    series: SeriesForecast,
    /// The first window it would be sealed in, were it saved now: Unix seconds of its start.
    first_window_start: u64,
    /// When its first point comes: the end of that window.
    first_point: u64,
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

/// Forecasts the series of a metric that is not saved.
#[utoipa::path(post, path = "/api/v1/projects/{project}/preview", request_body = NewPreview, params(("project" = String, Path)),
    responses((status = 200, body = Preview), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewPreview>,
) -> Result<Json<Preview>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let period: Period = read_period(&new.period.unwrap_or(json!(60))).map_err(|detail| Refusal::invalid("period", detail))?;
    let checked = metric_sets::check(&app, Some(project.id), &new.metric);
    let (draft, warnings) = checked.map_err(|refusal| {
        let below = |Problem { field, detail }| Problem { field: format!("metric.{field}"), detail };
        Refusal::from(refusal.into_problems().into_iter().map(below).collect::<Vec<_>>())
    })?;
    let now = app.reports.now();
    let zero_for = export::zero_for_secs(draft.zero_for, period);
    let back = |seconds: u64| Stamp::from_secs(now.secs().saturating_sub(seconds))..now;
    let last = forecast::last_window(period, now);
    let spans = [last.map_or(now..now, |window| window.start()..window.end()), back(zero_for), back(DAY_SECS)];
    let asked = spans.map(|span| Asked { query: draft.query.clone(), span, series_budget: draft.series_budget });
    let mut counted = Vec::with_capacity(asked.len());
    for one in forecast::count(&app, project.id, asked.into()).await? {
        counted.push(one.map_err(|detail| Refusal::invalid("metric.query", detail))?);
    }
    let [in_window, expected, of_day] = counted.try_into().expect("three were asked for");
    let first = period.first_window_from(now);
    Ok(Json(Preview {
        series: SeriesForecast {
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
        },
        first_window_start: first.start_secs(),
        first_point: first.end_secs(),
        warnings,
    }))
}
