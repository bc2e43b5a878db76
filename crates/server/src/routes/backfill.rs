//! Backfills of a store: asked for, watched and cancelled here; `export` does the work.

use super::metric_stores::find;
use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::{Backfill, BackfillDraft, Scope, Store};
use model::Window;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Windows of one backfill.
const MOST_WINDOWS: u64 = 100_000;
/// Backfills shown of a store.
const SHOWN: u32 = 20;

/// A span to fill.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBackfill {
    /// First second; windows that begin before it are not filled.
    from: u64,
    /// First second after it; windows that have not closed are left to live sealing.
    to: u64,
    /// Which metric sets; by default every one that is attached to the store.
    sets: Option<Vec<String>>,
}

/// Begins to fill windows from before the store, or a metric of its sets, began, from stored reports: behind live windows, which are
/// never delayed. Points that the store was owed already are left out.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/backfill", request_body = NewBackfill,
    params(("project" = String, Path), ("store" = String, Path)),
    responses((status = 202, body = serde_json::Value), (status = 409, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Body(new): Body<NewBackfill>,
) -> Result<(StatusCode, Json<Backfill>), Refusal> {
    let store = find(&caller, &path, Scope::Edit)?;
    let draft = check(&app, &store, new)?;
    let (actor, project, name) = (caller.name(), store.project, path.1);
    let begun = app.catalog(move |app, now| {
        let id = app.catalog.start_backfill(project, &name, &draft, &actor, now)?;
        app.catalog.backfill(id)?.ok_or_else(|| catalog::CatalogError::Missing("such backfill any more".into()))
    });
    Ok((StatusCode::ACCEPTED, Json(begun.await?)))
}

fn check(app: &App, store: &Store, new: NewBackfill) -> Result<BackfillDraft, Refusal> {
    let settings = &store.newest().settings;
    if !::adapters::is_push(&settings.adapter) {
        return Err(Refusal::invalid(
            "store",
            "is read by URL, and a page shows the newest window only; only a store that is sent to can be filled",
        ));
    }
    if !settings.enabled {
        return Err(Refusal::invalid("store", "is disabled"));
    }
    if new.from >= new.to {
        return Err(Refusal::invalid("from", "must be before to"));
    }
    let (since, until) = app.export.backfill_bounds(store, new.from, new.to);
    let secs = u64::from(settings.period.secs());
    if since >= until {
        return Err(Refusal::invalid("to", format!("leaves no whole window of {secs} s that has closed")));
    }
    if (until - since) / secs > MOST_WINDOWS {
        return Err(Refusal::invalid("from", format!("makes more than {MOST_WINDOWS} windows; fill the span in parts")));
    }
    let oldest = Window::new(since, settings.period).ok_or_else(|| Refusal::invalid("from", "is no second that a window can begin in"))?;
    if let Some(reason) = app.export.refuses_as_old(store, oldest) {
        return Err(Refusal::invalid("store", format!("{} {reason}: it would refuse points of that time", settings.adapter)));
    }
    let sets = new.sets.unwrap_or_else(|| settings.sets.clone());
    if let Some(other) = sets.iter().find(|set| !settings.sets.contains(set)) {
        return Err(Refusal::invalid("sets", format!("{other:?} is not attached to this store")));
    }
    Ok(BackfillDraft { period: settings.period, since, until, sets })
}

/// The store's backfills, newest first: how far each has come.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/backfill", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = [serde_json::Value])))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Vec<Backfill>>, Refusal> {
    let id = find(&caller, &path, Scope::Query)?.id;
    Ok(Json(app.catalog(move |app, _| app.catalog.backfills(id, SHOWN)).await?))
}

/// Ends the store's newest backfill: what of it is not sent is cancelled; what is sealed stays sealed.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/metric-stores/{store}/backfill", params(("project" = String, Path), ("store" = String, Path)), responses((status = 204)))]
pub(crate) async fn cancel(State(app): State<Arc<App>>, caller: Caller, Path(path): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    let store = find(&caller, &path, Scope::Edit)?;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.cancel_backfill(store.project, &path.1, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
