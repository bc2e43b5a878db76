//! Logging in and out, and one's own account. A session's token is sent like any other: `Authorization: Bearer`. A browser gets it as a
//! cookie that no script can read.

use super::projects::{self, IS_MISSING};
use crate::app::App;
use crate::auth::{Caller, SESSION_COOKIE};
use crate::reply::Refusal;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{LoginError, Scope, Session, SessionAccess, check_password};
use model::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

/// A JSON body that may hold a password: its faults are told without quoting it, as they go into the log too.
pub(super) struct Private<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Private<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Private<T>, Refusal> {
        match Json::<Box<RawValue>>::from_request(request, app).await {
            Ok(Json(text)) => projects::read(text.get()).map(Private).map_err(|fault| match fault.detail.as_str() {
                IS_MISSING => Refusal::invalid(&fault.field, IS_MISSING),
                _ => Refusal::invalid("", "the body has another form than /api/openapi.json gives for this address"),
            }),
            Err(JsonRejection::JsonSyntaxError(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "", "the body is not JSON")),
            Err(error) => Err(Refusal::new(error.status(), "", error.body_text())),
        }
    }
}

/// Who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    user: String,
    #[schema(value_type = String)]
    password: Secret,
    /// Whether the token is to be a cookie instead of a part of the answer: for browsers.
    #[serde(default)]
    cookie: bool,
}

/// A session just opened.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenedSession {
    /// Its token, 64 hex digits, to be sent as `Authorization: Bearer`. It is not shown again. Missing where it became a cookie.
    token: Option<String>,
    user: String,
    /// `viewer`, `editor` or `admin`.
    role: String,
    /// When it ends, Unix seconds; 12 hours without a request end it before.
    expires: u64,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// How the audit log names the caller.
    name: String,
    /// The user, when the token is of a session.
    user: Option<String>,
    /// The user's role: `viewer`, `editor` or `admin`.
    role: Option<String>,
    /// What the token may do: `query`, `edit` or `admin`.
    scope: String,
    /// The project that the token is bound to.
    project: Option<String>,
    /// When the session ends at the latest, Unix seconds.
    expires: Option<u64>,
}

/// A new password for oneself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPassword {
    #[schema(value_type = String)]
    old: Secret,
    /// 10 to 1,024 bytes.
    #[schema(value_type = String)]
    new: Secret,
}

/// Opens a session. Every way in by password goes through here.
pub(crate) async fn open_session(app: &Arc<App>, user: &str, password: &Secret) -> Result<Session, LoginError> {
    // Before there is anything to wait for: too many guesses cost nothing but this.
    let guess = app.catalog.admit(user, app.reports.now())?;
    let password = password.clone();
    app.hashing(move |app, now| app.catalog.login(guess, &password, now)).await
}

fn refused(error: LoginError) -> Response {
    let detail = error.to_string();
    match error {
        LoginError::Wrong => Refusal::new(StatusCode::UNAUTHORIZED, "", detail).into_response(),
        LoginError::TooMany(error) => {
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "", detail);
            ([(header::RETRY_AFTER, error.wait_secs.to_string())], refusal).into_response()
        }
        LoginError::Catalog(error) => Refusal::from(error).into_response(),
    }
}

/// The session of the caller; API tokens have none.
fn own(caller: &Caller) -> Result<&SessionAccess, Refusal> {
    caller.session().ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, "Authorization", "this is for the token that a login has opened"))
}

/// Logs in with a name and a password. Wrong ones are answered alike, whichever is wrong, and are slowed down.
#[utoipa::path(post, path = "/api/v1/login", request_body = Credentials, security(()),
    responses((status = 200, body = OpenedSession), (status = 401, body = crate::reply::ProblemBody), (status = 429, body = crate::reply::ProblemBody)))]
pub(crate) async fn log_in(State(app): State<Arc<App>>, Private(given): Private<Credentials>) -> Response {
    match open_session(&app, &given.user, &given.password).await {
        Ok(session) => {
            let token = session.token.reveal();
            let seconds = session.expires.secs().saturating_sub(app.reports.now().secs());
            let cookie = given.cookie.then(|| cookie(&app, token, seconds));
            let opened = OpenedSession {
                token: (!given.cookie).then(|| token.to_owned()),
                user: session.user.clone(),
                role: session.role.to_string(),
                expires: session.expires.secs(),
            };
            let mut response = Json(opened).into_response();
            response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
            response
        }
        Err(error) => refused(error),
    }
}

/// The cookie of a session: no script reads it, no other site's page sends it.
fn cookie(app: &App, token: &str, seconds: u64) -> HeaderValue {
    let secure = if app.public_url.scheme() == "https" { "; Secure" } else { "" };
    let text = format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).expect("hexadecimal digits and our own words")
}

/// Ends the session whose token is sent.
#[utoipa::path(post, path = "/api/v1/logout", responses((status = 204)))]
pub(crate) async fn log_out(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Refusal> {
    let hash = own(&caller)?.hash;
    let forget = cookie(&app, "", 0);
    app.catalog(move |app, now| app.catalog.logout(&hash, now)).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, forget)]).into_response())
}

/// Who asks, and what they may do.
#[utoipa::path(get, path = "/api/v1/me", responses((status = 200, body = Me)))]
pub(crate) async fn me(caller: Caller) -> Result<Json<Me>, Refusal> {
    caller.needs(Scope::Query)?;
    let session = caller.session();
    let project = caller.bound().and_then(|_| caller.projects().next());
    Ok(Json(Me {
        name: caller.name(),
        user: session.map(|session| session.user.clone()),
        role: session.map(|session| session.role.to_string()),
        scope: caller.scope().to_string(),
        project: project.map(|project| project.name.clone()),
        expires: session.map(|session| session.expires.secs()),
    }))
}

/// Changes one's own password. All other sessions of the user end.
#[utoipa::path(put, path = "/api/v1/me/password", request_body = OwnPassword,
    responses((status = 204), (status = 422, body = crate::reply::ProblemBody), (status = 429, body = crate::reply::ProblemBody)))]
pub(crate) async fn change_password(State(app): State<Arc<App>>, caller: Caller, Private(given): Private<OwnPassword>) -> Response {
    let session = match own(&caller) {
        Ok(session) => session.clone(),
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(detail) = check_password(&given.new) {
        return Refusal::invalid("new", detail).into_response();
    }
    let guess = match app.catalog.admit(&session.user, app.reports.now()) {
        Ok(guess) => guess,
        Err(error) => return refused(error.into()),
    };
    let changed = app.hashing(move |app, now| app.catalog.change_password(guess, &given.old, &given.new, &session.hash, now)).await;
    match changed {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        // Not 401: the session is as good as before.
        Err(LoginError::Wrong) => Refusal::invalid("old", "is not your password").into_response(),
        Err(error) => refused(error),
    }
}
