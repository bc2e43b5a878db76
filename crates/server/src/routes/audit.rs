//! The ledger for people: the audit of every identity, and what became of a metric window by window. It only reads; what an audit
//! checks is in `catalog`.

use super::metric_stores::read_period;
use super::parameters::Parameters;
use crate::app::App;
use crate::auth::Caller;
use crate::intake::ProjectTotals;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use catalog::{Audit, CatalogError, MetricOutcome, Scope};
use model::{Period, ProjectId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Windows told at once.
const WINDOWS: u32 = 10_000;

/// An audit, and what came in at the door since the process started.
#[derive(Serialize)]
pub(crate) struct Answer {
    #[serde(flatten)]
    audit: Audit,
    /// By project.
    intake: BTreeMap<String, ProjectTotals>,
}

/// Checks every identity of the ledger over the whole history of every project; the first imbalance is named in words.
#[utoipa::path(get, path = "/api/v1/audit", responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn of_all(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Answer>, Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()?;
    run(&app, &caller, None).await
}

/// Checks every identity of one project's ledger over its whole history.
#[utoipa::path(get, path = "/api/v1/projects/{project}/audit", params(("project" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn of_project(State(app): State<Arc<App>>, caller: Caller, Path(project): Path<String>) -> Result<Json<Answer>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    run(&app, &caller, Some(project)).await
}

async fn run(app: &Arc<App>, caller: &Caller, only: Option<ProjectId>) -> Result<Json<Answer>, Refusal> {
    let projects = caller.projects().filter(|project| only.is_none_or(|only| only == project.id));
    let intake = projects.map(|project| (project.name.clone(), app.intake.project(project.id))).collect();
    // Counted among the queries: it reads much, and two at once are enough.
    let shared = app.clone();
    let audit = crate::ask::ask(&app.queries, move |_| shared.catalog.audit(only, &::adapters::is_push)).await?;
    Ok(Json(Answer { audit: audit.map_err(|error: CatalogError| Refusal::internal(&error))?, intake }))
}

/// Which windows.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Windows {
    /// Seconds of a window; by default the period of the first store that the metric's set is attached to.
    period: Option<String>,
    /// First second; by default one day before the end.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
}

/// What became of a metric in the windows and gaps of a span: sealed, failed or gap; matched = own + folded.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-sets/{set}/metrics/{metric}/ledger",
    params(("project" = String, Path), ("set" = String, Path), ("metric" = String, Path), Windows), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn of_metric(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, set, metric)): Path<(String, String, String)>,
    Parameters(asked): Parameters<Windows>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let found = caller.snapshot().metric(project, &set, &metric).ok_or_else(|| Refusal::missing(&format!("metric {set}/{metric}")))?;
    let id = found.id;
    let period = period(&caller, project, &set, asked.period.as_deref())?;
    let to = asked.to.unwrap_or_else(|| app.reports.now().secs());
    let span = (asked.from.unwrap_or(to.saturating_sub(86_400)), to);
    let windows = app.catalog(move |app, _| app.catalog.metric_outcomes(project, id, period, span, WINDOWS)).await?;
    let count = |outcome: &str| windows.iter().filter(|one| one.outcome == outcome).count();
    let sum = |part: fn(&MetricOutcome) -> u64| windows.iter().map(part).sum::<u64>();
    Ok(Json(json!({
        "period": period.secs(), "from": span.0, "to": span.1,
        "sum": {"sealed": count("sealed"), "failed": count("failed"), "gaps": count("gap"),
            "matched": sum(|one| one.matched), "own": sum(|one| one.own), "folded": sum(|one| one.folded)},
        "truncated": windows.len() as u32 == WINDOWS, "windows": windows,
    })))
}

/// The period asked for, or that of the first store a set is attached to.
pub(crate) fn period(caller: &Caller, project: ProjectId, set: &str, asked: Option<&str>) -> Result<Period, Refusal> {
    if let Some(asked) = asked {
        return read_period(&json!(asked)).map_err(|detail| Refusal::invalid("period", detail));
    }
    let mut stores = caller.snapshot().stores.iter().filter(|store| store.project == project && store.deleted.is_none());
    let attached = stores.find(|store| store.newest().settings.sets.iter().any(|one| one == set));
    let none = || Refusal::invalid("period", "is missing, and the metric's set is attached to no store that would have one");
    Ok(attached.ok_or_else(none)?.newest().settings.period)
}
