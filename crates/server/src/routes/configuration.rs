//! Configuration as code over the API: the format's schema, the configuration as a document, what a document would change, and
//! that change as one transaction.

use super::parameters::Parameters;
use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::configuration::difference::{self, Action, Change, Difference, Kind, SeriesChange, draft_of};
use crate::configuration::document::{self, Wanted};
use crate::configuration::schema;
use crate::forecast::{self, Asked, Counted};
use crate::reply::Refusal;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Metric, MetricDraft, Project, Scope, Snapshot, StoreSettings};
use model::{Period, Problem, ProjectId, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json_;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use utoipa::ToSchema;

/// The period by which a metric is forecast that no store is attached to.
const USUAL_PERIOD_SECS: u32 = 60;

/// A document to compare or apply.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewConfiguration {
    /// `{"crashmeter": 1, "projects": {...}}`, as the schema says, but with secrets as plain text.
    #[schema(value_type = Object)]
    document: Json_,
    /// Whether metric sets, metrics and stores that the document does not have are removed from the projects it names.
    #[serde(default)]
    prune: bool,
}

/// What a document would change, or has changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The configuration's version that the plan is made for; the `If-Match` of its application.
    version: u64,
    /// Whether the changes have been made.
    applied: bool,
    changes: Vec<Change>,
    summary: Summary,
    /// What is configured in the named projects, is not in the document, and stays.
    left_alone: Vec<String>,
    /// What a person should know, each with its field of the document.
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<Problem>,
    /// Submission URLs of the projects just made, by name.
    submission_urls: BTreeMap<String, String>,
}

/// How many.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Summary {
    added: usize,
    changed: usize,
    removed: usize,
    /// Series of the metrics concerned, each counted once, in the newest sealed windows; only in a plan.
    series_now: Option<u64>,
    /// The same after the changes; null when some cannot be counted.
    series_forecast: Option<u64>,
    /// Metric stores that some change reaches.
    targets: usize,
}

/// Which projects.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Which {
    /// Only this project.
    project: Option<String>,
}

/// The JSON Schema of a configuration document as people write it.
#[utoipa::path(get, path = "/api/v1/schema", responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn schema() -> Json<Json_> {
    Json(schema::schema())
}

/// The configuration as a document; secrets are placeholders.
#[utoipa::path(get, path = "/api/v1/configuration", params(Which), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn show(caller: Caller, Parameters(which): Parameters<Which>) -> Result<Response, Refusal> {
    caller.needs(Scope::Query)?;
    let projects: Vec<Project> = match &which.project {
        Some(name) => vec![caller.project(name, Scope::Query)?],
        None => caller.projects().cloned().collect(),
    };
    let document = document::write(caller.snapshot(), projects.iter());
    Ok((etag(caller.snapshot().version), Json(document)).into_response())
}

/// Says what a document would change; nothing is changed.
#[utoipa::path(post, path = "/api/v1/plan", request_body = NewConfiguration,
    responses((status = 200, body = Plan), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn plan(State(app): State<Arc<App>>, caller: Caller, Body(new): Body<NewConfiguration>) -> Result<Response, Refusal> {
    let now = app.reports.now();
    let (mut plan, _, wanted) = prepare(&app, &caller, &new, now)?;
    forecast_changes(&app, caller.snapshot(), &wanted, &mut plan, now).await?;
    Ok((etag(plan.version), Json(plan)).into_response())
}

/// Makes the changes of a document, all or none.
#[utoipa::path(post, path = "/api/v1/apply", request_body = NewConfiguration,
    params(("If-Match" = Option<String>, Header, description = "the version of the plan you have seen")),
    responses((status = 200, body = Plan), (status = 412, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn apply(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(new): Body<NewConfiguration>,
) -> Result<Response, Refusal> {
    let seen = caller.snapshot().version;
    if let Some(expected) = headers.get(header::IF_MATCH) {
        let expected = expected.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
        if expected != Some(seen) {
            let detail = format!("the configuration was changed meanwhile: its version is {seen}; look at a new plan");
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "If-Match", detail));
        }
    }
    // Without the forecast: a change that was decided on waits for nobody's queries.
    let now = app.reports.now();
    let (mut plan, edits, _) = prepare(&app, &caller, &new, now)?;
    if !edits.is_empty() {
        let actor = caller.name();
        let applied = app.catalog(move |app, now| app.catalog.apply(&edits, seen, &actor, now)).await?;
        plan.version = app.catalog.published().version;
        let urls = applied.projects.iter().map(|(name, token)| (name.clone(), app.submission_url(token.reveal())));
        plan.submission_urls = urls.collect();
    }
    plan.applied = true;
    Ok((etag(plan.version), Json(plan)).into_response())
}

fn etag(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// Checks a document and compares it with what there is.
fn prepare(app: &App, caller: &Caller, new: &NewConfiguration, now: Stamp) -> Result<(Plan, Vec<catalog::Edit>, Wanted), Refusal> {
    caller.needs(Scope::Edit)?;
    let snapshot = caller.snapshot().clone();
    let open = |name: &str| match caller.projects().find(|project| project.name == name) {
        Some(project) => Ok(Some(project.clone())),
        // Making a project is more than editing one, and its name may be that of one the caller may not see.
        None => caller.unbound().and_then(|()| caller.needs(Scope::Admin)).map(|()| None).map_err(|_| {
            Refusal::new(StatusCode::NOT_FOUND, "", format!("there is no project {name:?}, and making one needs a token of scope admin"))
        }),
    };
    let mut wanted = document::check(app, &snapshot, &open, &new.document)?;
    let Difference { changes, edits, left_alone } = difference::difference(&snapshot, &wanted, new.prune, now);
    let of = |action: Action| changes.iter().filter(|change| change.action == action).count();
    let targets: BTreeSet<_> = changes.iter().flat_map(|change| change.targets.iter().map(|target| (&change.project, target))).collect();
    let summary = Summary {
        added: of(Action::Add),
        changed: of(Action::Change),
        removed: of(Action::Remove),
        series_now: None,
        series_forecast: None,
        targets: targets.len(),
    };
    let plan = Plan {
        version: snapshot.version,
        applied: false,
        summary,
        changes,
        left_alone,
        warnings: std::mem::take(&mut wanted.warnings),
        submission_urls: BTreeMap::new(),
    };
    Ok((plan, edits, wanted))
}

/// A metric by project, set and name.
type Place = (String, String, String);

/// What is known of a metric's series.
#[derive(Default)]
struct Outlook {
    now: u64,
    /// After the change; `None` when it cannot be counted.
    after: Option<Counted>,
    removed: bool,
}

/// Fills in each change's series and sums up.
async fn forecast_changes(app: &Arc<App>, snapshot: &Arc<Snapshot>, wanted: &Wanted, plan: &mut Plan, now: Stamp) -> Result<(), Refusal> {
    let changes = &mut plan.changes;
    let concerned: BTreeSet<Place> = changes
        .iter()
        .flat_map(|change| change.metrics.iter().map(|(set, name)| (change.project.clone(), set.clone(), name.clone())))
        .collect();
    let mut outlooks: BTreeMap<Place, Outlook> = BTreeMap::new();
    for project in &wanted.projects {
        let id = project.known.as_ref().map(|known| known.id);
        let removed: Vec<&str> = changes
            .iter()
            .filter(|change| change.action == Action::Remove && change.project == project.name)
            .map(|change| change.name.as_str())
            .collect();
        let mut asked: Vec<Asked> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        for place in concerned.iter().filter(|(of, ..)| *of == project.name) {
            let (_, set, name) = place;
            let known = id.and_then(|id| snapshot.metric(id, set, name));
            let live = match known {
                Some(metric) => live_series(app, snapshot, metric).await?,
                None => 0,
            };
            let removed = removed.contains(&format!("{set}/{name}").as_str());
            outlooks.insert(place.clone(), Outlook { now: live, after: None, removed });
            if removed {
                continue;
            }
            let draft = project.metrics.iter().find(|metric| metric.set == *set && metric.name == *name).map(|metric| metric.draft.clone());
            let draft = draft.or_else(|| known.map(draft_of)).expect("a change is about a metric before or after it");
            let periods = periods(snapshot, id, project.stores.iter().map(|(name, draft)| (name.as_str(), &draft.settings)), set);
            asked.push(ask(draft, &periods, now));
            places.push(place.clone());
        }
        let counted = match id {
            Some(id) => forecast::count(app, id, asked).await?,
            // A project without a past has one series for an ungrouped metric and none else yet.
            None => asked.iter().map(|one| Ok(Counted::of_nothing(&one.query))).collect(),
        };
        for (place, counted) in places.into_iter().zip(counted) {
            outlooks.entry(place).or_default().after = counted.ok();
        }
    }
    for change in changes.iter_mut() {
        if !matches!(change.kind, Kind::Metric | Kind::MetricStore) {
            continue;
        }
        let gone = change.action == Action::Remove;
        let of_change = change.metrics.iter().filter_map(|(set, name)| {
            let place = (change.project.clone(), set.clone(), name.clone());
            outlooks.get(&place).map(|outlook| (format!("{set}/{name}"), outlook))
        });
        let mut series = SeriesChange { forecast: Some(0), ..SeriesChange::default() };
        for (name, outlook) in of_change {
            series.now += outlook.now;
            if gone || outlook.removed {
                continue;
            }
            series.forecast = series.forecast.zip(outlook.after.as_ref()).map(|(sum, counted)| sum + counted.series);
            if let Some(over) = outlook.after.as_ref().and_then(|counted| counted.over.clone()) {
                series.over_budget.insert(name, over);
            }
        }
        change.series = Some(series);
    }
    let after = |outlook: &Outlook| if outlook.removed { Some(0) } else { outlook.after.as_ref().map(|counted| counted.series) };
    plan.summary.series_now = Some(outlooks.values().map(|outlook| outlook.now).sum());
    plan.summary.series_forecast = outlooks.values().map(after).sum();
    Ok(())
}

/// Periods of the stores that a set is attached to, as they are after the change.
fn periods<'a>(
    snapshot: &Snapshot,
    project: Option<ProjectId>,
    wanted: impl Iterator<Item = (&'a str, &'a StoreSettings)> + Clone,
    set: &str,
) -> Vec<Period> {
    let kept = snapshot.stores.iter().filter(|store| Some(store.project) == project && store.deleted.is_none());
    let kept = kept.filter(|store| !wanted.clone().any(|(name, _)| name == store.name)).map(|store| &store.newest().settings);
    let all = wanted.clone().map(|(_, settings)| settings).chain(kept);
    all.filter(|settings| settings.enabled && settings.sets.iter().any(|one| one == set)).map(|settings| settings.period).collect()
}

/// Asks for a metric's groups over the longest `zero_for` of its grids.
fn ask(draft: MetricDraft, periods: &[Period], now: Stamp) -> Asked {
    let usual = Period::new(USUAL_PERIOD_SECS).expect("legal");
    let zero_for = periods.iter().copied().map(|period| export::zero_for_secs(draft.zero_for, period)).max();
    let zero_for = zero_for.unwrap_or_else(|| export::zero_for_secs(draft.zero_for, usual));
    let start = Stamp::from_secs(now.secs().saturating_sub(zero_for));
    Asked { query: draft.query, span: start..now, series_budget: draft.series_budget }
}

/// Live series of a metric in the newest sealed window, on the grid that has most.
async fn live_series(app: &Arc<App>, snapshot: &Arc<Snapshot>, metric: &Metric) -> Result<u64, Refusal> {
    let (snapshot, metric) = (snapshot.clone(), metric.clone());
    let most = app
        .catalog(move |app, _| {
            let periods = periods(&snapshot, Some(metric.project), std::iter::empty(), &metric.set);
            let mut most = 0;
            for period in periods {
                let Some(window) = app.catalog.newest_sealed(metric.project, period)? else { continue };
                let Some(revision) = metric.in_force(window.start()) else { continue };
                let sealed = app.catalog.sealed_metric(revision.id, window)?;
                most = most.max(sealed.map_or(0, |sealed| sealed.series.iter().filter(|one| one.live).count() as u64));
            }
            Ok(most)
        })
        .await?;
    Ok(most)
}
