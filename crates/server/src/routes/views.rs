//! Saved views: searches of Explore under a name, for everybody who sees the project. Those of Backtrace's clients are served by
//! `backtrace/bpg` and are not among them.

use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::{SavedSearch, Scope};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest name, in characters.
const NAME: usize = 100;
/// Longest search, in bytes: browsers and proxies cut longer addresses.
const SEARCH: usize = 8 << 10;

/// A search of Explore under a name.
#[derive(Serialize, ToSchema)]
pub(crate) struct View {
    name: String,
    /// What stands in Explore's address from the question mark on; empty for the search it begins with.
    search: String,
    /// Who saved it last, as the audit log names them.
    saved_by: String,
}

/// A search to save.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewView {
    /// What stands in Explore's address from the question mark on, at most 8,192 bytes.
    search: String,
}

/// The project's views by name.
#[utoipa::path(get, path = "/api/v1/projects/{project}/views", params(("project" = String, Path)), responses((status = 200, body = [View])))]
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller, Path(project): Path<String>) -> Result<Json<Vec<View>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let searches = app.catalog(move |app, _| app.catalog.searches(project)).await?;
    Ok(Json(searches.into_iter().map(|SavedSearch { name, search, saved_by }| View { name, search, saved_by }).collect()))
}

/// Saves a view, in place of one of that name.
#[utoipa::path(put, path = "/api/v1/projects/{project}/views/{view}", request_body = NewView,
    params(("project" = String, Path), ("view" = String, Path)),
    responses((status = 204), (status = 409, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    Body(new): Body<NewView>,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    if name.trim() != name || name.is_empty() || name.chars().count() > NAME || name.chars().any(char::is_control) {
        return Err(Refusal::invalid("name", format!("has 1 to {NAME} characters, none of control, and no space at its ends")));
    }
    let is_search = new.search.is_empty() || new.search.starts_with('?');
    if !is_search || new.search.len() > SEARCH || new.search.bytes().any(|byte| !byte.is_ascii_graphic()) {
        let detail = format!("is the part of Explore's address from the question mark on, percent-encoded, at most {SEARCH} bytes");
        return Err(Refusal::invalid("search", detail));
    }
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.save_search(project, &name, &new.search, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a view.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/views/{view}", params(("project" = String, Path), ("view" = String, Path)),
    responses((status = 204), (status = 404, body = crate::reply::ProblemBody)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let (project, actor) = (caller.project(&project, Scope::Edit)?.id, caller.name());
    app.catalog(move |app, now| app.catalog.delete_search(project, &name, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
