//! Metric sets and the metrics in them: queries in the Backtrace grammar, without time.

use super::attributes::{advice, is_text};
use super::projects::{Body, check_name};
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Metric, MetricDraft, Project, Scope, Snapshot};
use model::{AggregateOp, ProjectId, grammar};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json_;
use std::sync::Arc;
use utoipa::ToSchema;

/// Series of one metric unless it says otherwise (design.md 2, cardinality budget).
pub(crate) const SERIES_BUDGET: u32 = 1_000;
/// Most series that one metric may ask for.
pub(crate) const SERIES_BUDGET_MAX: u32 = 100_000;
/// Longest `zero_for`, in seconds: 30 days.
pub(crate) const ZERO_FOR_MAX: u64 = 30 * 86_400;

/// A metric to save.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMetric {
    /// `{"filter": [...], "group": [...], "fold": {...}}` in the Backtrace grammar.
    #[schema(value_type = Object)]
    pub(crate) query: Json_,
    /// Seconds for which a group without reports is still exported as 0: one period at least, by default max(1 h, 3 periods).
    #[serde(default)]
    pub(crate) zero_for: Option<u64>,
    /// Most series of this metric; the rest becomes one exact `__other__`.
    #[serde(default)]
    pub(crate) series_budget: Option<u32>,
}

/// A metric.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownMetric {
    name: String,
    set: String,
    #[schema(value_type = Object)]
    query: Json_,
    zero_for: Option<u64>,
    series_budget: u32,
    revision: u32,
    /// The revision governs windows that start at or after this second.
    begins: u64,
    /// What a person should know, such as an attribute that no report has had yet.
    warnings: Vec<String>,
}

/// A metric set with its metrics.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownSet {
    name: String,
    metrics: Vec<ShownMetric>,
    /// Metric stores it is attached to.
    stores: Vec<String>,
}

/// The project's metric sets.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets", params(("project" = String, Path)), responses((status = 200, body = [ShownSet])))]
pub(crate) async fn list(caller: Caller, Path(project): Path<String>) -> Result<Json<Vec<ShownSet>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    Ok(Json(project.sets.iter().map(|set| shown_set(caller.snapshot(), &project, set)).collect()))
}

/// One metric set.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets/{set}", params(("project" = String, Path), ("set" = String, Path)), responses((status = 200, body = ShownSet)))]
pub(crate) async fn show_set(caller: Caller, Path((project, set)): Path<(String, String)>) -> Result<Json<ShownSet>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    if !project.sets.contains(&set) {
        return Err(Refusal::missing(&format!("metric set {set:?}")));
    }
    Ok(Json(shown_set(caller.snapshot(), &project, &set)))
}

/// Makes an empty metric set; one that exists stays as it is.
#[utoipa::path(put, path = "/api/v1/projects/{project}/metric-sets/{set}", params(("project" = String, Path), ("set" = String, Path)), responses((status = 204)))]
pub(crate) async fn put_set(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    check_name("set", &set)?;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.put_set(project, &set, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a metric set with its metrics.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/metric-sets/{set}", params(("project" = String, Path), ("set" = String, Path)), responses((status = 204)))]
pub(crate) async fn delete_set(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.delete_set(project, &set, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Saves a metric, and its set with it. What was there goes on until the next window begins.
#[utoipa::path(put, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}", request_body = NewMetric,
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path), ("If-Match" = Option<String>, Header, description = "the revision you edit")),
    responses((status = 200, body = ShownMetric), (status = 412, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn put_metric(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set, metric)): Path<(String, String, String)>,
    headers: HeaderMap,
    Body(new): Body<NewMetric>,
) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Edit)?;
    check_name("set", &set)?;
    check_name("metric", &metric)?;
    let expected = expected_revision(&headers)?;
    let (draft, mut warnings) = check(&app, Some(project.id), &new)?;
    let (actor, id, name) = (caller.name(), project.id, (set.clone(), metric.clone()));
    app.catalog(move |app, now| app.catalog.put_metric(id, &name.0, &name.1, &draft, expected, &actor, now)).await?;
    let snapshot = app.catalog.published();
    let saved = snapshot.metric(id, &set, &metric).ok_or_else(|| Refusal::missing("metric any more: it was deleted meanwhile"))?;
    let mut shown = shown_metric(saved);
    shown.warnings.append(&mut warnings);
    Ok(([(header::ETAG, format!("\"{}\"", shown.revision))], Json(shown)).into_response())
}

/// One metric.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}",
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path)), responses((status = 200, body = ShownMetric)))]
pub(crate) async fn show_metric(caller: Caller, Path((project, set, metric)): Path<(String, String, String)>) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let found = caller.snapshot().metric(project.id, &set, &metric).ok_or_else(|| Refusal::missing(&format!("metric {set}/{metric}")))?;
    let shown = shown_metric(found);
    Ok(([(header::ETAG, format!("\"{}\"", shown.revision))], Json(shown)).into_response())
}

/// Deletes a metric; windows that have begun are still sealed with it.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}",
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path)), responses((status = 204)))]
pub(crate) async fn delete_metric(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set, metric)): Path<(String, String, String)>,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.delete_metric(project, &set, &metric, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The revision an editor says it edits: `If-Match: "3"`.
pub(crate) fn expected_revision(headers: &HeaderMap) -> Result<Option<u32>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    revision
        .map(Some)
        .ok_or_else(|| Refusal::new(StatusCode::PRECONDITION_FAILED, "If-Match", "must be the revision from the ETag, such as \"3\""))
}

/// Checks a metric as a person sent it: every fault named by its field, or a draft to save and warnings. A project that is still
/// to be made has no reports to compare with.
pub(crate) fn check(app: &App, project: Option<ProjectId>, new: &NewMetric) -> Result<(MetricDraft, Vec<String>), Refusal> {
    let parsed = grammar::parse(&new.query)?;
    let attributes = project.map(|project| app.reports.attributes(project)).unwrap_or_default();
    let mut warnings = parsed.warnings;
    warnings.extend(advice(&attributes, &parsed.query));
    for aggregate in &parsed.query.aggregates {
        let is_text = is_text(&attributes, &aggregate.attribute);
        if matches!(aggregate.op, AggregateOp::First | AggregateOp::Last) && is_text {
            return Err(Refusal::invalid(
                &format!("query.fold.{}", aggregate.attribute),
                format!(
                    "{} of {} is text, and metric stores take numbers; use count or unique, or group by it",
                    aggregate.op.name(),
                    aggregate.attribute
                ),
            ));
        }
    }
    let series_budget = new.series_budget.unwrap_or(SERIES_BUDGET);
    if series_budget == 0 || series_budget > SERIES_BUDGET_MAX {
        return Err(Refusal::invalid("series_budget", format!("must be 1 to {SERIES_BUDGET_MAX}")));
    }
    if new.zero_for.is_some_and(|seconds| seconds == 0 || seconds > ZERO_FOR_MAX) {
        return Err(Refusal::invalid("zero_for", format!("must be 1 to {ZERO_FOR_MAX} seconds; it lasts one period at least")));
    }
    warnings.sort();
    warnings.dedup();
    Ok((MetricDraft { query: parsed.query, zero_for: new.zero_for, series_budget }, warnings))
}

fn shown_set(snapshot: &Snapshot, project: &Project, set: &str) -> ShownSet {
    let metrics = snapshot.metrics.iter().filter(|metric| metric.project == project.id && metric.set == set && metric.deleted.is_none());
    let stores = snapshot.stores.iter().filter(|store| {
        store.project == project.id && store.deleted.is_none() && store.newest().settings.sets.iter().any(|attached| attached == set)
    });
    ShownSet {
        name: set.to_owned(),
        metrics: metrics.map(shown_metric).collect(),
        stores: stores.map(|store| store.name.clone()).collect(),
    }
}

fn shown_metric(metric: &Metric) -> ShownMetric {
    let newest = metric.newest();
    ShownMetric {
        name: metric.name.clone(),
        set: metric.set.clone(),
        query: grammar::write(&newest.query),
        zero_for: newest.zero_for,
        series_budget: newest.series_budget,
        revision: newest.number,
        begins: newest.begins.secs(),
        warnings: Vec::new(),
    }
}
