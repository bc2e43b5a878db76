//! Single reports: fetched whole or in part, their attachments, changed, deleted.
//!
//! What is fetched is a file for its client, so a refusal there has a status of its own: a 200 would be saved as the file.

use super::{Asker, Denied, Parameters, json_body};
use crate::app::App;
use crate::ask::ask;
use crate::reply::disposition;
use crate::routes::submit;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Project, Scope};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::backtrace::{Columns, Fault, Request as Asked};
use model::{ProjectId, Selection, Tx};
use reports::{Change, Reports, StoredReport, View};
use serde_json::{Map, Value as Json_, json};
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

/// Most objects deleted by one request that names them.
const MAX_OBJECTS: usize = 10_000;

/// A file to hand out.
struct File {
    name: String,
    content_type: String,
    gzip: bool,
    bytes: Vec<u8>,
}

/// `GET /api/get`: a report in some form, or one of its attachments.
pub(super) async fn get(State(app): State<Arc<App>>, request: Request) -> Result<Response, Denied> {
    let (mut parts, _) = request.into_parts();
    let forbidden = |denied: Denied| denied.with(StatusCode::FORBIDDEN);
    let missing = |denied: Denied| denied.with(StatusCode::NOT_FOUND);
    let asker = Asker::from_request_parts(&mut parts, &app).await.map_err(forbidden)?;
    let project = asker.project(&app, Scope::Query).map_err(missing)?;
    let tx = object(&asker.parameters, &project).map_err(missing)?;
    let parameter = |name: &str| asker.parameters.get(name).map(str::to_owned);
    let (resource, id, name) = (parameter("resource"), parameter("attachment_id"), parameter("attachment_name"));
    let reports = app.reports.clone();
    let file = move || match (id, name) {
        (None, None) => whole(&reports, project.id, tx, resource.as_deref().unwrap_or("raw")),
        (id, name) => attached(&reports, project.id, tx, id.as_deref(), name.as_deref()),
    };
    let file = tokio::task::spawn_blocking(file).await.expect("a panic while reading stops the request").map_err(missing)?;
    let content_type = HeaderValue::from_str(&file.content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, disposition(&file.name))];
    let mut response = (headers, file.bytes).into_response();
    if file.gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// `GET /api/list`: the attachments of a report.
pub(super) async fn list(State(app): State<Arc<App>>, asker: Asker) -> Result<Json<Json_>, Denied> {
    let project = asker.project(&app, Scope::Query)?;
    let tx = object(&asker.parameters, &project)?;
    let reports = app.reports.clone();
    let stored = move || report(&reports, project.id, tx);
    let stored = tokio::task::spawn_blocking(stored).await.expect("a panic while reading stops the request")?;
    let attachments = stored
        .attachments
        .iter()
        .map(|one| json!({"id": one.id, "name": one.name, "size": one.size, "content_type": one.content_type, "inline": false}));
    Ok(Json(json!({"attachments": attachments.collect::<Json_>()})))
}

/// `POST /api/delete`: reports that are named, or that pass a filter.
pub(super) async fn delete(State(app): State<Arc<App>>, asker: Asker, body: Result<Bytes, BytesRejection>) -> Result<Json<Json_>, Denied> {
    let body = json_body(body)?;
    let text = |name: &str| body.get(name).and_then(Json_::as_str).or(asker.parameters.get(name));
    let project = asker.project_named(&app, text("universe"), text("project").unwrap_or_default(), Scope::Edit)?;
    let query = body.get("query").filter(|query| !query.is_null()).cloned();
    let wanted = match (body.get("objects"), &query) {
        (Some(Json_::Array(objects)), None) if objects.len() <= MAX_OBJECTS => named(objects, &project)?,
        (Some(Json_::Array(_)), None) => return Err(Denied::new(format!("at most {MAX_OBJECTS} objects can be named at one time"))),
        (None, Some(query)) if query.is_object() => Vec::new(),
        _ => return Err(Denied::new("invalid parameter 'objects': name objects in a list, or give a query with a filter")),
    };
    let (shared, of) = (app.clone(), project.clone());
    let txs = ask(&app.queries, move |cancel| match query {
        Some(query) => super::query::matching(&shared, &of, &query, cancel),
        None => {
            let selection = Selection { limit: usize::MAX, ..Selection::default() };
            let there = super::query::read(shared.reports.select(of.id, super::query::EVER, View::Current, &selection, cancel))?;
            let there: HashSet<Tx> = there.rows.into_iter().map(|(tx, _)| tx).collect();
            match wanted.iter().find(|tx| !there.contains(tx)) {
                Some(missing) => Err(Fault::invalid(format!("no such object '{}'; nothing was deleted", missing.hex()))),
                None => Ok(wanted),
            }
        }
    })
    .await??;
    let deleted = app.reports.amend(project.id, &txs, &[Change::Delete]).await.map_err(|error| Denied::internal(&error))?;
    tracing::info!(project = project.id.0, deleted, by = asker.caller.name(), "reports deleted");
    Ok(Json(json!({"response": "ok", "deleted": deleted})))
}

/// `/api/post`: attributes of one report with `resource=_kv`; everything else is a submission.
pub(super) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let parameters = Parameters::read(request.uri().query().unwrap_or(""));
    if request.method() == Method::POST && parameters.get("resource") == Some("_kv") {
        return modify(&app, request).await.map_or_else(Denied::into_response, |body| Json(body).into_response());
    }
    submit::any(State(app), request).await
}

async fn modify(app: &Arc<App>, request: Request) -> Result<Json_, Denied> {
    let (mut parts, body) = request.into_parts();
    let asker = Asker::from_request_parts(&mut parts, app).await?;
    let project = asker.project(app, Scope::Edit)?;
    let tx = object(&asker.parameters, &project)?;
    let body = json_body(Bytes::from_request(Request::from_parts(parts, body), app).await)?;
    let asked = model::backtrace::read(&json!({"set": body}), &Columns::of_reports([], []))?;
    let Asked { action: model::backtrace::Action::Set(changes), .. } = asked else {
        return Err(Denied::new("the body must be an object of attributes"));
    };
    if let Some((name, _)) = changes.iter().find(|(name, _)| name.starts_with('_')) {
        return Err(Denied::new(format!("invalid parameter 'set': the column '{name}' cannot be set")));
    }
    let reports = app.reports.clone();
    let there = move || report(&reports, project.id, tx).map(|_| ());
    tokio::task::spawn_blocking(there).await.expect("a panic while reading stops the request")?;
    let changes: Vec<Change> = changes.into_iter().map(|(attribute, value)| Change::Set { attribute, value }).collect();
    app.reports.amend(project.id, &[tx], &changes).await.map_err(|error| Denied::internal(&error))?;
    Ok(json!({"response": "ok", "_rxid": tx.receipt(project.id).to_string(), "object": tx.hex()}))
}

fn object(parameters: &Parameters, project: &Project) -> Result<Tx, Denied> {
    let text = parameters.get("object").unwrap_or_default();
    Tx::read(text, project.id).ok_or_else(|| Denied::new(format!("invalid parameter 'object': {text:?} is no object number")))
}

/// The objects that a deletion names. An attachment cannot go alone.
fn named(objects: &[Json_], project: &Project) -> Result<Vec<Tx>, Denied> {
    let one = |object: &Json_| {
        if object.get("attachment_id").is_some() {
            return Err(Denied::new("attachments cannot be deleted alone here; delete their object"));
        }
        let text = object.as_str().or_else(|| object.get("id").and_then(Json_::as_str));
        let tx = text.and_then(|text| Tx::read(text, project.id));
        tx.ok_or_else(|| Denied::new(format!("invalid parameter 'objects': {object} is no object number")))
    };
    objects.iter().map(one).collect()
}

fn report(reports: &Reports, project: ProjectId, tx: Tx) -> Result<StoredReport, Denied> {
    let found = reports.report(project, tx).map_err(|error| Denied::internal(&error))?;
    found.ok_or_else(|| Denied::new(format!("no such object '{}'", tx.hex())))
}

fn whole(reports: &Reports, project: ProjectId, tx: Tx, resource: &str) -> Result<File, Denied> {
    let stored = report(reports, project, tx)?;
    let hex = tx.hex();
    let file = |ending: &str, content_type: &str, gzip: bool, bytes: Vec<u8>| File {
        name: format!("{hex}.{ending}"),
        content_type: content_type.to_owned(),
        gzip,
        bytes,
    };
    match resource {
        // Of a report that came as a dump alone, the dump is what was sent; it is the first of the files.
        "raw" if stored.raw.is_empty() && !stored.attachments.is_empty() => {
            let found = reports.attachment(project, tx, stored.attachments[0].id).map_err(|error| Denied::internal(&error))?;
            let (_, bytes) = found.ok_or_else(|| Denied::new(format!("no such object '{hex}'")))?;
            Ok(file("dmp", "application/octet-stream", false, bytes))
        }
        "raw" => Ok(file("json", "application/json", false, stored.raw)),
        "json" | "json.gz" => Ok(file("json", "application/json", true, zip(processed(&stored).to_string().as_bytes()))),
        "txt" | "txt.gz" => Ok(file("txt", "text/plain; charset=utf-8", true, zip(text(&stored).as_bytes()))),
        other => Err(Denied::new(format!("invalid parameter 'resource': there is no {other:?} here; there are raw, json.gz and txt.gz"))),
    }
}

fn attached(reports: &Reports, project: ProjectId, tx: Tx, id: Option<&str>, name: Option<&str>) -> Result<File, Denied> {
    let missing = || Denied::new(format!("no such attachment of object '{}'", tx.hex()));
    let stored = report(reports, project, tx)?;
    let mut fitting = stored.attachments.iter().filter(|one| match id {
        Some(id) => id.parse() == Ok(one.id),
        None => name == Some(one.name.as_str()),
    });
    let id = fitting.next_back().ok_or_else(missing)?.id;
    let (attachment, bytes) = reports.attachment(project, tx, id).map_err(|error| Denied::internal(&error))?.ok_or_else(missing)?;
    Ok(File { name: attachment.name, content_type: attachment.content_type, gzip: false, bytes })
}

/// The report as it was sent, with the attributes it has now.
fn processed(stored: &StoredReport) -> Json_ {
    let mut report: Map<String, Json_> = serde_json::from_slice(&stored.raw).unwrap_or_default();
    let own = stored.report.attributes.iter().map(|(name, value)| (name.to_owned(), json!(value)));
    let computed = ["_tx", "_rxid", "timestamp.received"].into_iter();
    let computed = computed.filter_map(|name| Some((name.to_owned(), json!(stored.report.get(name)?.as_ref()))));
    report.insert("attributes".to_owned(), own.chain(computed).collect::<Map<_, _>>().into());
    report.into()
}

/// The report for a person's eyes: callstack, then attributes.
fn text(stored: &StoredReport) -> String {
    let mut text = format!("object {}\n", stored.report.tx.hex());
    let callstack = stored.report.attributes.get("callstack").map(|value| value.written());
    let frames: Json_ = callstack.and_then(|frames| serde_json::from_str(&frames).ok()).unwrap_or_default();
    for (at, frame) in frames["frame"].as_array().into_iter().flatten().enumerate() {
        text += &format!("  #{at} {}\n", frame.as_str().unwrap_or_default());
    }
    for (name, value) in stored.report.attributes.iter().filter(|(name, _)| !name.starts_with("callstack")) {
        text += &format!("{name}: {}\n", value.written());
    }
    for attachment in &stored.attachments {
        text += &format!("attachment {}: {} ({} bytes)\n", attachment.id, attachment.name, attachment.size);
    }
    text
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes what is written")
}
