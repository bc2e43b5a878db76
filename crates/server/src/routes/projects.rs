//! Projects, what their reports hold, and single reports.

use crate::app::App;
use crate::auth::Caller;
use crate::reply::{Refusal, disposition};
use axum::Json;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::Scope;
use model::Tx;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value as JsonValue, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest name of a project, metric set, metric or store, in bytes.
const NAME_BYTES: usize = 128;

/// A JSON body whose faults are told in our own form.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Body<T>, Refusal> {
        let text = match Json::<Box<RawValue>>::from_request(request, app).await {
            Ok(Json(text)) => text,
            Err(error) => return Err(Refusal::new(error.status(), "", inner(&error))),
        };
        read(text.get()).map(Body).map_err(|Fault { field, detail }| Refusal::invalid(&field, detail))
    }
}

/// What is wrong with a body, and where.
pub(super) struct Fault {
    /// Empty when it is the body as a whole.
    pub(super) field: String,
    /// May quote the body.
    pub(super) detail: String,
}

/// What it says of a field that is not there.
pub(super) const IS_MISSING: &str = "is missing";

/// Reads a body that is JSON.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let (path, fault) = (error.path().to_string(), error.inner().to_string());
        // The line says nothing to people whose program wrote it.
        let fault = fault.rsplit_once(" at line ").map_or(fault.as_str(), |(fault, _)| fault);
        let path = if path == "." { "" } else { &path };
        match fault.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            Some(name) if path.is_empty() => Fault { field: name.to_owned(), detail: IS_MISSING.to_owned() },
            Some(name) => Fault { field: format!("{path}.{name}"), detail: IS_MISSING.to_owned() },
            None => Fault { field: path.to_owned(), detail: fault.to_owned() },
        }
    })
}

fn inner(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A name that people will see in URLs, pages and dashboards.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(Refusal::invalid(field, format!("a name has 1 to {NAME_BYTES} bytes")));
    }
    if matches!(name, "." | "..") || name.contains('/') {
        return Err(Refusal::invalid(field, "a name is no path: it holds no slash and is neither . nor .."));
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "a name has no control characters and no blanks at its ends"));
    }
    Ok(())
}

/// A project to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    /// Its name: a node of every series path.
    name: String,
}

/// A project just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeProject {
    name: String,
    /// Its submission token: 64 hex digits, may only submit.
    token: String,
    /// The URL to configure in SDKs.
    submission_url: String,
}

/// A project.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownProject {
    name: String,
    /// Unix seconds.
    created: u64,
    metric_sets: Vec<String>,
    /// URLs to configure in SDKs, one a live submission token.
    submission_urls: Vec<String>,
}

/// An attribute that reports of the project have.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownAttribute {
    name: String,
    /// Reports in which it was text.
    texts: u64,
    /// Reports in which it was a number.
    numbers: u64,
    /// Reports in which it was true or false.
    booleans: u64,
}

/// Projects the caller may see.
#[utoipa::path(get, path = "/api/v1/projects", responses((status = 200, body = [String])))]
pub(crate) async fn list(caller: Caller) -> Result<Json<Vec<String>>, Refusal> {
    caller.needs(Scope::Query)?;
    Ok(Json(caller.projects().map(|project| project.name.clone()).collect()))
}

/// Makes a project with its first submission token.
#[utoipa::path(post, path = "/api/v1/projects", request_body = NewProject, responses((status = 201, body = MadeProject), (status = 409, body = crate::reply::ProblemBody)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(new): Body<NewProject>,
) -> Result<(StatusCode, Json<MadeProject>), Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()?;
    check_name("name", &new.name)?;
    let (actor, name) = (caller.name(), new.name.clone());
    let (_, token) = app.catalog(move |app, now| app.catalog.create_project(&name, &actor, now)).await?;
    let made = MadeProject { name: new.name, token: token.reveal().to_owned(), submission_url: app.submission_url(token.reveal()) };
    Ok((StatusCode::CREATED, Json(made)))
}

/// One project.
#[utoipa::path(get, path = "/api/v1/projects/{project}", params(("project" = String, Path)), responses((status = 200, body = ShownProject)))]
pub(crate) async fn show(State(app): State<Arc<App>>, caller: Caller, Path(project): Path<String>) -> Result<Json<ShownProject>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let id = project.id;
    let tokens = app.catalog(move |app, _| app.catalog.tokens(Some(id))).await?;
    let submission_urls = tokens.iter().filter_map(|token| token.token.as_deref()).map(|token| app.submission_url(token)).collect();
    Ok(Json(ShownProject { name: project.name, created: project.created.secs(), metric_sets: project.sets, submission_urls }))
}

/// Attributes that the project's reports have or had.
#[utoipa::path(get, path = "/api/v1/projects/{project}/attributes", params(("project" = String, Path)), responses((status = 200, body = [ShownAttribute])))]
pub(crate) async fn attributes(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<ShownAttribute>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let attributes = app.reports.attributes(project.id).into_iter();
    Ok(Json(
        attributes.map(|one| ShownAttribute { name: one.name, texts: one.texts, numbers: one.numbers, booleans: one.booleans }).collect(),
    ))
}

/// The newest submissions that were refused since the server started, newest first, as their senders were told: 20 at most.
#[utoipa::path(get, path = "/api/v1/projects/{project}/refusals", params(("project" = String, Path)), responses((status = 200, body = [crate::intake::Refusal])))]
pub(crate) async fn refusals(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<Vec<crate::intake::Refusal>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    Ok(Json(app.intake.newest(project)))
}

/// One of a report's files, to be saved and never shown: it holds whatever its sender put into it.
#[utoipa::path(get, path = "/api/v1/projects/{project}/reports/{tx}/attachments/{id}",
    params(("project" = String, Path), ("tx" = u64, Path, description = "`_tx`, decimal"), ("id" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 404, body = crate::reply::ProblemBody)))]
pub(crate) async fn attachment(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, tx, id)): Path<(String, u64, String)>,
) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let missing = || Refusal::missing(&format!("attachment {id:?} of report {tx}"));
    let number = id.parse().map_err(|_| missing())?;
    let reports = app.reports.clone();
    let read = tokio::task::spawn_blocking(move || reports.attachment(project.id, Tx(tx), number));
    let found = read.await.expect("a panic while reading stops the request").map_err(|error| Refusal::internal(&error))?;
    let (attachment, bytes) = found.ok_or_else(missing)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, disposition(&attachment.name)),
    ];
    Ok((headers, bytes).into_response())
}

/// One report: its attributes, its attachments, and the body as it was sent.
#[utoipa::path(get, path = "/api/v1/projects/{project}/reports/{tx}", params(("project" = String, Path), ("tx" = u64, Path, description = "`_tx`, decimal")), responses((status = 200, body = JsonValue)))]
pub(crate) async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, tx)): Path<(String, u64)>,
) -> Result<Json<JsonValue>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let reports = app.reports.clone();
    let found =
        tokio::task::spawn_blocking(move || reports.report(project.id, Tx(tx))).await.expect("a panic while reading stops the request");
    let stored = found.map_err(|error| Refusal::internal(&error))?.ok_or_else(|| Refusal::missing(&format!("report {tx}")))?;
    let mut attributes: Map<String, JsonValue> =
        stored.report.attributes.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    for name in ["_tx", "_rxid", "timestamp.received", "report.delay"] {
        if let Some(value) = stored.report.get(name) {
            attributes.insert(name.to_owned(), json!(value));
        }
    }
    let attachments: Vec<JsonValue> = stored
        .attachments
        .iter()
        .map(|one| json!({"id": one.id, "name": one.name, "content_type": one.content_type, "size": one.size, "sha256": hex::encode(one.sha256)}))
        .collect();
    let raw: JsonValue = serde_json::from_slice(&stored.raw).unwrap_or(JsonValue::Null);
    Ok(Json(json!({"tx": tx, "attributes": attributes, "attachments": attachments, "report": raw})))
}
