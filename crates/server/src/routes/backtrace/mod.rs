//! The API of Backtrace's own clients (`morgue`, `@backtrace/forensics`, `coroner-client`): login, queries, objects, configuration.
//!
//! Faults are a reply 200 with `{"error": {"code", "message"}}`, because `morgue` prints the message of no other; the Content-Type is
//! exactly `application/json`, because `forensics` compares it as a whole. Submissions are not here but in `routes::submit`.

mod bpg;
mod describe;
mod issue;
mod meta;
mod object;
mod query;
mod reply;
mod session;

use super::API_BODY_BYTES;
use crate::app::App;
use crate::ask::Unanswered;
use crate::auth::Caller;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use catalog::{CatalogError, Project, Scope};
use model::backtrace::Fault;
use serde_json::{Value as Json_, json};
use std::sync::Arc;

/// The routes, by their whole addresses.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/login", post(session::login))
        .route("/api/logout", any(session::logout))
        .route("/api/is_configured", get(session::is_configured))
        .route("/api/config", get(session::config))
        .route("/api/query", post(query::run))
        .route("/api/issue", post(issue::edit))
        .route("/api/get", get(object::get))
        .route("/api/list", get(object::list))
        .route("/api/delete", post(object::delete))
        .route("/api/post", any(object::post))
        .route("/api/bpg", post(bpg::run))
        .route("/api/control", any(not_here))
        .route("/api/svclayer", any(not_here))
        .route("/api/alerts/{*rest}", any(not_here))
        .route("/api/symbold/{*rest}", any(not_here))
        .route("/api/workflows/{*rest}", any(not_here))
        .route("/api/metrics-importer/{*rest}", any(not_here))
        .layer(DefaultBodyLimit::max(API_BODY_BYTES))
}

/// Parts of the real service that this server has nothing for.
async fn not_here() -> Denied {
    Denied::from(Fault::invalid(
        "this server has no alerts, workflows, symbols or other side services; it exports metrics to the systems that have alerts",
    ))
}

/// A request that is not served.
#[derive(Debug)]
struct Denied {
    status: StatusCode,
    fault: Fault,
}

impl Denied {
    fn new(message: impl Into<String>) -> Denied {
        Denied::from(Fault::invalid(message))
    }

    /// The same with an HTTP status of its own, for addresses whose 200 would be taken for the file asked for.
    fn with(self, status: StatusCode) -> Denied {
        Denied { status, ..self }
    }

    /// Something failed on our side: the cause goes to the log, not to the client.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Denied {
        tracing::error!(error, "request failed");
        Denied::new("the server could not do this; its log says why")
    }
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Denied {
        Denied { status: StatusCode::OK, fault }
    }
}

impl From<CatalogError> for Denied {
    fn from(error: CatalogError) -> Denied {
        match error {
            CatalogError::Missing(_)
            | CatalogError::Exists(_)
            | CatalogError::Changed { .. }
            | CatalogError::Grouped { .. }
            | CatalogError::LastAdmin(_)
            | CatalogError::Personal(_) => Denied::new(error.to_string()),
            other => Denied::internal(&other),
        }
    }
}

impl From<Unanswered> for Denied {
    fn from(unanswered: Unanswered) -> Denied {
        Denied::new(unanswered.to_string())
    }
}

impl From<BytesRejection> for Denied {
    fn from(rejection: BytesRejection) -> Denied {
        Denied::new(format!("the body cannot be read: {}", rejection.body_text()))
    }
}

/// Longest text of a refusal, in characters: it may quote what a client sent.
const MESSAGE_CHARS: usize = 1_000;

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let message: String = self.fault.message.chars().take(MESSAGE_CHARS).collect();
        tracing::info!(status = self.status.as_u16(), detail = message, "refused");
        (self.status, Json(json!({"error": {"code": self.fault.code, "message": message}}))).into_response()
    }
}

/// A caller with a valid token, and what the address says.
struct Asker {
    caller: Caller,
    parameters: Parameters,
}

/// The parameters of an address.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: &str) -> Parameters {
        Parameters(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The last value of a name; an empty one is none.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Where clients other than `morgue` put the token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-coroner-token");

impl Asker {
    /// Finds out who a token is of.
    fn of(app: &Arc<App>, token: &str) -> Result<Caller, Denied> {
        let caller = Caller::of_token(app, token).ok_or_else(|| Denied::new("invalid token"))?;
        // A submission token ships inside applications: it opens nothing here.
        caller.needs(Scope::Query).map_err(|_| Denied::new("invalid token"))?;
        Ok(caller)
    }

    /// Refuses a caller whose token may do less than `scope`.
    fn needs(&self, scope: Scope) -> Result<(), Denied> {
        self.caller.needs(scope).map_err(|_| Denied::new(format!("this needs a token of scope {scope}")))
    }

    /// The project that the address names, if the caller may see it with `scope`.
    fn project(&self, app: &App, scope: Scope) -> Result<Project, Denied> {
        self.project_named(app, self.parameters.get("universe"), self.parameters.get("project").unwrap_or_default(), scope)
    }

    /// A project by name; the same answer for a hidden and a missing one.
    fn project_named(&self, app: &App, universe: Option<&str>, name: &str, scope: Scope) -> Result<Project, Denied> {
        if let Some(other) = universe.filter(|universe| *universe != app.universe) {
            return Err(Denied::new(format!("no such universe '{other}'")));
        }
        self.needs(scope)?;
        self.caller.project(name, scope).map_err(|_| Denied::new(format!("no such project '{name}'")))
    }
}

impl FromRequestParts<Arc<App>> for Asker {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Asker, Denied> {
        let parameters = Parameters::read(parts.uri.query().unwrap_or(""));
        let in_header = || parts.headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
        let bearer = || parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = parameters.get("token").or_else(in_header).or_else(bearer).unwrap_or_default().trim().to_owned();
        Ok(Asker { caller: Asker::of(app, &token)?, parameters })
    }
}

/// A body that must be JSON.
fn json_body(body: Result<Bytes, BytesRejection>) -> Result<Json_, Denied> {
    let body = body?;
    if body.is_empty() {
        return Err(Fault { code: Fault::EMPTY_BODY, message: "empty body".to_owned() }.into());
    }
    serde_json::from_slice(&body).map_err(|error| Denied::new(format!("the body is not JSON: {error}")))
}
