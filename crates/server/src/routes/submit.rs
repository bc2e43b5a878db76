//! The door for reports: every URL form that SDKs use, their bodies, CORS for browsers, and the exact replies they need.
//!
//! The token alone decides the project. Nothing of a body is read before the token is known, and bytes are bounded before and
//! after inflating.

use crate::app::App;
use crate::reply::refused_submission;
use crate::share::{NoRoom, Place};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Scope, token_hash};
use http_body_util::BodyExt;
use ingest::{Format, Rejection, Submission};
use model::{ProjectId, Tx};
use reports::{AppendError, Receipt};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a whole body may take; the SDKs themselves give up after 4 to 15 s (backtrace-api 1.7).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// After how long one who was told to come back may do so.
const COME_BACK: Duration = Duration::from_secs(5);
/// A body and what is parsed from it live side by side.
const PARSED: usize = 2;
/// Bodies from this size on are read on a thread of their own, so that they delay no other connection.
const LARGE_BODY: usize = 256 << 10;

/// What a submission's address says.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    token: String,
    format: Option<String>,
    query: Vec<(String, String)>,
}

/// Where the addresses begin that SDKs are given (`App::submission_url`). With a public URL that has a path they have that before it, where
/// no proxy takes it away; like the other forms of [`read_target`] they go by the table of routes then, and are answered alike.
pub(crate) const ADDRESSES: &str = "/submit.backtrace.io/";

/// Everything that no other route takes: submissions, their CORS preflights, and addresses that do not exist.
pub(crate) async fn any(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(&app, request).await
}

/// The same for one that has found its way without the table of routes.
pub(crate) async fn answer(app: &Arc<App>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let query = read_query(head.uri.query().unwrap_or(""));
    let Some(target) = read_target(head.uri.path(), query) else {
        return (StatusCode::NOT_FOUND, Json(json!({"error": {"code": 404, "message": "there is nothing at this address"}})))
            .into_response();
    };
    let mut response = match head.method {
        Method::OPTIONS => preflight(),
        Method::POST => match submit(app, target, head.headers, body).await {
            Ok(reply) => taken(reply),
            Err(refused) => refused.into_response(app),
        },
        _ => {
            let mut response = refused_submission(StatusCode::METHOD_NOT_ALLOWED, "reports are submitted by POST");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
            response
        }
    };
    // Pages of any origin may report; the token in the URL is the only credential, so no cookie is at stake.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The answer to a submission that was taken.
fn taken(json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Headers of an answer, those that every reply carries included.
const HEADERS: usize = 8;

/// A submission that was not taken.
struct Refused {
    status: StatusCode,
    reason: &'static str,
    message: String,
    project: Option<ProjectId>,
    come_back: Duration,
}

impl Refused {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Refused {
        Refused { status, reason, message: message.into(), project: None, come_back: COME_BACK }
    }

    fn of(self, project: ProjectId) -> Refused {
        Refused { project: Some(project), ..self }
    }

    fn into_response(self, app: &App) -> Response {
        app.intake.refuse(self.project, self.status.as_u16(), self.reason, &self.message, app.reports.now());
        tracing::info!(
            status = self.status.as_u16(),
            reason = self.reason,
            project = self.project.map(|project| project.0),
            "submission refused"
        );
        let mut response = refused_submission(self.status, &self.message);
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.come_back.as_secs().max(1)));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE || self.status == StatusCode::REQUEST_TIMEOUT {
            // The rest of the body is not read, so the connection cannot be used again.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Refused {
        let status = StatusCode::from_u16(rejection.status).unwrap_or(StatusCode::BAD_REQUEST);
        Refused::new(status, rejection.reason.label(), rejection.problem.to_string())
    }
}

async fn submit(app: &Arc<App>, target: Target, headers: HeaderMap, body: Body) -> Result<String, Refused> {
    let (project, token) = project_of(app, &target)?;
    let admitted = app.pace.take(token, Instant::now()).map_err(over_rate);
    let taken = match admitted {
        Ok(()) => accept(app, project, target, headers, body).await,
        Err(refused) => Err(refused),
    };
    taken.map_err(|refused| refused.of(project))
}

fn project_of(app: &App, target: &Target) -> Result<(ProjectId, [u8; 32]), Refused> {
    if target.token.is_empty() {
        return Err(Refused::new(StatusCode::FORBIDDEN, "no_token", "the URL has no token; use the submission URL of your project"));
    }
    let unknown = || Refused::new(StatusCode::FORBIDDEN, "unknown_token", "invalid token: it is unknown here or was revoked");
    let snapshot = app.catalog.published();
    let token = token_hash(&target.token);
    let access = snapshot.tokens.get(&token).ok_or_else(unknown)?;
    let project = match (access.scope, access.project) {
        (Scope::Submit, Some(project)) => Ok(project),
        // People's tools send their own token and name the project.
        (Scope::Edit | Scope::Admin, bound) => {
            let nameless = || {
                Refused::new(
                    StatusCode::FORBIDDEN,
                    "unknown_token",
                    "project: is missing or not yours; a person's token needs project=<name>",
                )
            };
            let named = parameter(&target.query, "project").and_then(|name| snapshot.project(name)).map(|project| project.id);
            named.filter(|named| bound.is_none_or(|bound| bound == *named)).ok_or_else(nameless)
        }
        _ => Err(unknown()),
    }?;
    Ok((project, token))
}

async fn accept(app: &Arc<App>, project: ProjectId, target: Target, headers: HeaderMap, body: Body) -> Result<String, Refused> {
    if app.disk.is_low() {
        return Err(disk_full());
    }
    let mut place = app.room.enter(project).map_err(no_room)?;
    let body = read_body(app, body, &mut place).await?;
    // How large a compressed body is shows only when it is inflated.
    let large = body.len() >= LARGE_BODY || headers.contains_key(header::CONTENT_ENCODING);
    let (app, shared) = (app.clone(), app.clone());
    let read = move || read_submission(&shared, &target, &headers, &body, &mut place).map(|work| (work, place));
    // The bytes are held until they are stored, and so is their place.
    let (work, _place) =
        if large { tokio::task::spawn_blocking(read).await.expect("a panic while parsing stops the request") } else { read() }?;
    match work {
        Work::Report { report, sync } => {
            let size = report.raw.len();
            let receipt = app.reports.append(project, report).await.map_err(|error| unavailable(&error))?;
            app.intake.accept(project, receipt.duplicate);
            tracing::debug!(project = project.0, tx = receipt.tx.0, duplicate = receipt.duplicate, bytes = size, "report accepted");
            Ok(report_reply(project, &receipt, sync))
        }
        Work::Late { object, attachment } => {
            let missing =
                || Refused::new(StatusCode::NOT_FOUND, "wrong_value", format!("object: there is no report {object:?} in this project"));
            let tx = Tx::read(&object, project).ok_or_else(missing)?;
            match app.reports.attach(project, tx, attachment).await {
                Ok(stored) => Ok(json!({
                    "response": "ok", "_rxid": tx.receipt(project).to_string(), "attachment_name": stored.name,
                    "attachment_id": stored.id.to_string(), "object": tx.hex(),
                })
                .to_string()),
                Err(AppendError::NoSuchReport) => Err(missing()),
                Err(error) => Err(unavailable(&error)),
            }
        }
    }
}

enum Work {
    Report { report: model::NewReport, sync: bool },
    Late { object: String, attachment: model::NewAttachment },
}

fn read_submission(app: &App, target: &Target, headers: &HeaderMap, body: &[u8], place: &mut Place) -> Result<Work, Refused> {
    let encoding = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ");
    let body = ingest::inflate(&encoding, body, &app.limits)?;
    place.grow(body.len() * PARSED).map_err(no_room)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = match &target.format {
        Some(word) => Format::read(word)?,
        // `morgue attachment add` names no format; only a late attachment can do without.
        None if parameter(&target.query, "object").is_some() => Format::Json,
        None => return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unsupported_format", "format: is missing; add format=json")),
    };
    let submission = Submission { format, content_type, query: &target.query, body: &body };
    if let Some(object) = submission.late_object() {
        return Ok(Work::Late { object: object.to_owned(), attachment: ingest::parse_late(&submission, &app.limits)? });
    }
    let parsed = ingest::parse(&submission, &app.limits)?;
    Ok(Work::Report { report: parsed.report, sync: parsed.options.sync })
}

/// Reads the body within the limits and the room there is for it.
async fn read_body(app: &Arc<App>, body: Body, place: &mut Place) -> Result<Bytes, Refused> {
    let limit = app.limits.total_bytes;
    let too_large = || {
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {limit} bytes; send fewer or smaller attachments"),
        )
    };
    let read = async {
        let mut body = body;
        // Most bodies come in one piece, which is not copied.
        let (mut first, mut bytes) = (Bytes::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "wrong_value", "the body ended early or is not framed rightly"))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = first.len().max(bytes.len()) + data.len();
            if length > limit {
                return Err(too_large());
            }
            if first.is_empty() {
                first = data;
            } else {
                if bytes.is_empty() {
                    bytes.extend_from_slice(&first);
                }
                bytes.extend_from_slice(&data);
            }
            place.grow(length * PARSED).map_err(no_room)?;
        }
        Ok(if bytes.is_empty() { first } else { bytes.into() })
    };
    let late = || Refused::new(StatusCode::REQUEST_TIMEOUT, "timed_out", format!("the body took longer than {} s", BODY_TIMEOUT.as_secs()));
    tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_| late())?
}

fn no_room(reason: NoRoom) -> Refused {
    match reason {
        NoRoom::Share => {
            Refused::new(StatusCode::TOO_MANY_REQUESTS, "over_share", "this project sends more at once than its share; try again soon")
        }
        NoRoom::Busy => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many submissions are being read; try again soon"),
    }
}

fn disk_full() -> Refused {
    Refused::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", "the server's disk is full; try again later")
}

fn over_rate(wait: Duration) -> Refused {
    let refused =
        Refused::new(StatusCode::TOO_MANY_REQUESTS, "over_rate", "this token sends more reports a second than it may; try again later");
    Refused { come_back: wait + Duration::from_millis(999), ..refused }
}

/// Exactly 200 with `_rxid` is success to every SDK; `_mod_sync` asks for more.
fn report_reply(project: ProjectId, receipt: &Receipt, sync: bool) -> String {
    let id = receipt.tx.receipt(project);
    if !sync {
        return format!(r#"{{"response":"ok","_rxid":"{id}"}}"#);
    }
    let (object, fingerprint, unique) = (receipt.tx.hex(), &receipt.fingerprint, receipt.first_of_fingerprint);
    json!({"response": "ok", "_rxid": id.to_string(), "object": object, "fingerprint": fingerprint, "unique": unique}).to_string()
}

fn unavailable(error: &AppendError) -> Refused {
    tracing::warn!(error = error as &dyn std::error::Error, "report not kept");
    match error {
        AppendError::Full => disk_full(),
        AppendError::TooLarge => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()),
        AppendError::Busy => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the log is busy; try again soon"),
        _ => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "log", "the report could not be stored; try again later"),
    }
}

/// A browser asks before it sends JSON to another origin; no token is asked for here (backtrace-api 1.8a).
fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type, content-encoding"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Tells submission addresses from others: `/post` and `/api/post` with parameters, `/{universe}/{token}/{format}`, and that
/// last form behind any prefix that ends in `submit.backtrace.io/`. Doubled slashes count as one.
fn read_target(path: &str, query: Vec<(String, String)>) -> Option<Target> {
    let path = path.split_once("submit.backtrace.io/").map_or(path, |(_, rest)| rest);
    let pieces: Vec<&str> = path.split('/').filter(|piece| !piece.is_empty()).collect();
    let given = |name| parameter(&query, name).map(str::to_owned);
    match pieces.as_slice() {
        ["post"] | ["api", "post"] => Some(Target { token: given("token").unwrap_or_default(), format: given("format"), query }),
        [_universe, token, format] if token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(Target { token: (*token).to_owned(), format: Some((*format).to_owned()), query })
        }
        _ => None,
    }
}

fn read_query(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    #[test]
    fn every_url_form_of_the_sdks_is_understood() {
        for (path, query, expected) in [
            (format!("/main/{TOKEN}/json"), "", Some((TOKEN, Some("json")))),
            (format!("/submit.backtrace.io/main/{TOKEN}/minidump"), "guid=1", Some((TOKEN, Some("minidump")))),
            (format!("/crashes/submit.backtrace.io/main/{TOKEN}/json"), "", Some((TOKEN, Some("json")))),
            ("/post".into(), "format=json&token=abc", Some(("abc", Some("json")))),
            ("//post".into(), "token=abc&format=json", Some(("abc", Some("json")))),
            ("/api/post".into(), "token=abc&object=1&attachment_name=x", Some(("abc", None))),
            ("/api/post".into(), "", Some(("", None))),
            ("/main/short/json".into(), "", None),
            (format!("/{TOKEN}/json"), "", None),
            ("/api/v1/nothing".into(), "", None),
        ] {
            let target = read_target(&path, read_query(query));
            assert_eq!(target.as_ref().map(|target| (target.token.as_str(), target.format.as_deref())), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_the_last_of_a_name_counts() {
        let query = read_query("attachment_name=a%20b%2Fc&x=1&x=2&plus=a+b");
        assert_eq!(parameter(&query, "attachment_name"), Some("a b/c"));
        assert_eq!(parameter(&query, "x"), Some("2"));
        assert_eq!(parameter(&query, "plus"), Some("a b"));
    }
}
