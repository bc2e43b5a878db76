//! Tokens: made, listed, revoked. A token's text is shown once; submission tokens, which count as public, again.

use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::{Scope, TokenSummary};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// `submit`, `query`, `edit` or `admin`.
    scope: String,
    /// The project it is bound to; needed for `submit`.
    project: Option<String>,
}

/// A token just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// Its text. Keep it: other than a submission token's it is not shown again.
    token: String,
    /// What it may do.
    scope: String,
}

/// A live token.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedToken {
    id: i64,
    scope: String,
    project: Option<String>,
    /// Unix seconds.
    created: u64,
    /// Only of submission tokens.
    token: Option<String>,
}

impl From<TokenSummary> for ListedToken {
    fn from(token: TokenSummary) -> ListedToken {
        ListedToken { id: token.id, scope: token.scope.to_string(), project: token.project, created: token.created, token: token.token }
    }
}

/// Live tokens of all projects.
#[utoipa::path(get, path = "/api/v1/tokens", responses((status = 200, body = [ListedToken])))]
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Vec<ListedToken>>, Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()?;
    let tokens = app.catalog(|app, _| app.catalog.tokens(None)).await?;
    Ok(Json(tokens.into_iter().map(ListedToken::from).collect()))
}

/// Makes a token.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = NewToken, responses((status = 201, body = MadeToken)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    super::projects::Body(new): super::projects::Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Refusal> {
    caller.needs(Scope::Admin)?;
    let scope: Scope = new.scope.parse().map_err(|detail: String| Refusal::invalid("scope", detail))?;
    let project = match &new.project {
        Some(name) => Some(caller.project(name, Scope::Admin)?.id),
        None if scope == Scope::Submit => return Err(Refusal::invalid("project", "a submission token needs a project")),
        None => {
            caller.unbound()?;
            None
        }
    };
    let actor = caller.name();
    let token = app.catalog(move |app, now| app.catalog.create_token(scope, project, &actor, now)).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token: token.reveal().to_owned(), scope: scope.to_string() })))
}

/// Takes a token out of use.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", params(("id" = i64, Path)), responses((status = 204)))]
pub(crate) async fn revoke(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<i64>) -> Result<StatusCode, Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()?;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.revoke_token(id, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
