//! What goes over a store's wire, for people: the exact requests or page of a window, and a test of a store. Made by the very
//! encoders that send; secrets are masked. Nothing here is in the ledger.

use super::metric_stores;
use super::parameters::Parameters;
use super::preview::DAY_SECS;
use super::projects::{Body, check_name};
use crate::app::App;
use crate::ask::ask;
use crate::auth::Caller;
use crate::forecast;
use crate::reply::Refusal;
use ::adapters::{About, Accept, Adapter, Outgoing, Reply, Snippet, Verdict};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::{Metric, MetricDraft, MetricId, MetricRevision, Project, RevisionId, Scope, Store, StoreId, StoreRevision};
use export::DraftError;
use model::{Page, Series, Stamp, Window};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json_, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// Body bytes shown per request.
const SHOWN_BYTES: usize = 64 << 10;
/// Bytes shown of a store's answer to a test.
const REPLY_BYTES: usize = 2 << 10;
/// The name of a store that has none yet: its health series carry it.
const UNNAMED: &str = "unnamed";

/// Which window.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Which {
    /// Its start in Unix seconds; by default the newest sealed one.
    window: Option<u64>,
}

/// What a sealed window looks like on this store's wire: made by the very encoder that sends, secrets masked.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/preview", params(("project" = String, Path), ("store" = String, Path), Which), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Parameters(which): Parameters<Which>,
) -> Result<Json<Json_>, Refusal> {
    let store = metric_stores::find(&caller, &path, Scope::Query)?;
    let newest = store.newest();
    let adapter = Adapter::parse(&newest.settings.adapter, &store.fields(newest))?;
    let window = match which.window {
        None => None,
        Some(start) => Some(Window::new(start, newest.settings.period).ok_or_else(|| {
            Refusal::invalid("window", format!("must be the start of a window of {} s in Unix seconds", newest.settings.period.secs()))
        })?),
    };
    if adapter.as_pull().is_some() && window.is_none() {
        let page = app.export.page(&store).await?.ok_or_else(not_sealed)?;
        return Ok(Json(shown(&adapter, Arc::unwrap_or_clone(page))));
    }
    let shared = app.clone();
    let page = app.catalog(move |_, _| shared.export.sealed_page(&store, window)).await?.ok_or_else(not_sealed)?;
    Ok(Json(shown(&adapter, page)))
}

fn not_sealed() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "", "no such window is sealed for this store yet; the first is after one whole period")
}

/// A store as it is saved, or as a person is about to save it.
pub(crate) struct Draft {
    pub(crate) store: Store,
    pub(crate) warnings: Vec<String>,
}

/// Reads a store to preview or to try: the name of a saved one, or the body that would save one. A body may have a `name`; where a
/// store of that name is saved, its secrets are kept, as a PUT would keep them.
pub(crate) fn read_store(app: &App, caller: &Caller, project: &Project, given: &Json_) -> Result<Draft, Refusal> {
    let body = match given {
        Json_::String(name) => {
            let saved = caller.snapshot().store(project.id, name).cloned();
            let store = saved.ok_or_else(|| Refusal::missing(&format!("metric store {name:?}")))?;
            return Ok(Draft { store, warnings: Vec::new() });
        }
        Json_::Object(body) => body.clone(),
        _ => return Err(Refusal::invalid("store", "must be a saved store's name or the body that would save one")),
    };
    let name = match body.get("name") {
        None => UNNAMED.to_owned(),
        Some(name) => name.as_str().map(str::to_owned).ok_or_else(|| Refusal::invalid("store.name", "must be text"))?,
    };
    check_name("store.name", &name)?;
    let known = caller.snapshot().store(project.id, &name);
    let (draft, warnings) = metric_stores::check(app, &project.sets, known, body).map_err(|refusal| refusal.below("store"))?;
    let mut secrets = known.map(|known| known.secrets.clone()).unwrap_or_default();
    for (field, secret) in draft.secrets {
        match secret {
            Some(secret) => drop(secrets.insert(field, secret)),
            None => drop(secrets.remove(&field)),
        }
    }
    let revision = StoreRevision { number: 0, begins: app.reports.now(), settings: draft.settings };
    let id = known.map_or(StoreId(0), |known| known.id);
    let store = Store { id, project: project.id, name, deleted: None, paused: false, secrets, revisions: vec![revision] };
    Ok(Draft { store, warnings })
}

/// A metric that is not saved. One that is saved under the same name lends its series.
pub(crate) fn unsaved_metric(app: &App, caller: &Caller, project: &Project, set: &str, name: &str, draft: MetricDraft) -> Metric {
    let revision = MetricRevision {
        id: RevisionId(0),
        number: 0,
        begins: app.reports.now(),
        query: draft.query,
        zero_for: draft.zero_for,
        series_budget: draft.series_budget,
    };
    let id = caller.snapshot().metric(project.id, set, name).map_or(MetricId(0), |saved| saved.id);
    Metric { id, project: project.id, set: set.to_owned(), name: name.to_owned(), deleted: None, revisions: vec![revision] }
}

/// What a store would get for the last whole window: of one metric, or of all metrics of its sets. For one metric it is the last window
/// of the day in which it matched reports, as an empty one shows nothing.
pub(crate) async fn draft(
    app: &Arc<App>,
    caller: &Caller,
    project: Project,
    draft: Draft,
    metric: Option<Metric>,
) -> Result<Json_, Refusal> {
    let revision = draft.store.newest();
    let adapter = Adapter::parse(&revision.settings.adapter, &draft.store.fields(revision))?;
    let last = last_window(app, &draft.store)?;
    let window = match &metric {
        Some(metric) => {
            let day = Stamp::from_secs(last.end_secs().saturating_sub(DAY_SECS))..last.end();
            let newest = forecast::newest_match(app, project.id, &metric.newest().query, last.period(), day);
            newest.await?.unwrap_or(last)
        }
        None => last,
    };
    let mut shown = shown(&adapter, draft_page(app, caller, project, draft.store, metric, window).await?);
    shown["warnings"] = json!(draft.warnings);
    Ok(shown)
}

fn last_window(app: &App, store: &Store) -> Result<Window, Refusal> {
    forecast::last_window(store.newest().settings.period, app.reports.now()).ok_or_else(not_sealed)
}

async fn draft_page(
    app: &Arc<App>,
    caller: &Caller,
    project: Project,
    store: Store,
    metric: Option<Metric>,
    window: Window,
) -> Result<Page, Refusal> {
    let settings = &store.newest().settings;
    let metrics: Vec<Metric> = match metric {
        Some(metric) => vec![metric],
        None => {
            let of_project = caller.snapshot().metrics.iter().filter(|metric| metric.project == project.id && metric.deleted.is_none());
            of_project.filter(|metric| settings.sets.contains(&metric.set)).cloned().collect()
        }
    };
    let shared = app.clone();
    let page = ask(&app.queries, move |_| shared.export.draft(&project, &store, &metrics.iter().collect::<Vec<_>>(), window));
    page.await?.map_err(|error| match error {
        DraftError::Metric { .. } => Refusal::invalid("metric.query", error.to_string()),
        DraftError::Catalog(_) | DraftError::Unreadable(_) => Refusal::internal(&error),
    })
}

/// Texts to paste on the store's side, about its own series: configuration, queries, a panel, checks, an alert for when nothing comes.
/// Those who may edit the store see a pull store's address and credentials in them; a push store's secrets are never there.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/snippets", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn snippets(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Vec<Snippet>>, Refusal> {
    let project = caller.project(&path.0, Scope::Query)?.clone();
    let store = metric_stores::find(&caller, &path, Scope::Query)?;
    let revision = store.newest();
    let adapter = Adapter::parse(&revision.settings.adapter, &store.fields(revision))?;
    let reveal = caller.needs(Scope::Edit).is_ok();
    let url = adapter.as_pull().filter(|_| reveal).and_then(|pull| metric_stores::pull_url(&app, &store, pull));
    let (shared, of) = (app.clone(), store.clone());
    let page = match app.catalog(move |_, _| shared.export.sealed_page(&of, None)).await? {
        Some(page) => page,
        None => draft_page(&app, &caller, project, store.clone(), None, last_window(&app, &store)?).await?,
    };
    Ok(Json(adapter.snippets(&About { store: &store.name, page: &page, url: url.as_deref(), reveal })))
}

/// A page or a batch in the store's own bytes.
fn shown(adapter: &Adapter, page: Page) -> Json_ {
    let start = page.window.start_secs();
    if let Some(pull) = adapter.as_pull() {
        let rendered = pull.render(&page, &Accept::read(None));
        let (body, cut) = shown_body(&rendered.body);
        let excluded = rendered.excluded.iter().map(|one| (&page.series[one.point as usize].series, one.reason));
        return json!({
            "window_start": start, "series": page.series.len(), "points": rendered.samples, "content_type": rendered.content_type,
            "bytes": rendered.body.len(), "body": body, "cut": cut, "excluded": left_out(excluded), "notes": rendered.notes,
        });
    }
    let push = adapter.as_push().expect("what does not pull pushes");
    let series = page.series.len();
    let batch = export::as_batch(page);
    let encoded = push.encode(&batch);
    let requests: Vec<Json_> =
        encoded.payloads.iter().map(|payload| shown_request(&push.request(payload), &payload.body(), payload.points().count())).collect();
    let bytes: usize = encoded.payloads.iter().map(|payload| payload.body().len()).sum();
    let excluded = encoded.excluded.iter().map(|one| (&batch.points[one.point as usize].series, one.reason));
    json!({
        "window_start": start, "series": series, "points": batch.points.len(), "bytes": bytes, "requests": requests,
        "excluded": left_out(excluded), "notes": encoded.notes,
    })
}

fn left_out<'a>(excluded: impl Iterator<Item = (&'a Series, &'static str)>) -> Vec<Json_> {
    excluded.map(|(series, reason)| json!({"series": series, "reason": reason})).collect()
}

fn shown_request(outgoing: &Outgoing, body: &[u8], points: usize) -> Json_ {
    let (text, cut) = shown_body(body);
    let mut shown = shown_head(outgoing);
    shown["points"] = json!(points);
    shown["bytes"] = json!(body.len());
    shown["body"] = json!(text);
    shown["cut"] = json!(cut);
    shown
}

/// Where a request goes, and its headers with secrets masked.
fn shown_head(outgoing: &Outgoing) -> Json_ {
    match outgoing {
        Outgoing::Http(request) => json!({
            "request": format!("{} {}", request.method, request.masked_url()),
            "headers": request.headers.iter().map(|(name, value)| format!("{name}: {}", value.masked())).collect::<Vec<_>>(),
        }),
        Outgoing::Tcp(lines) => {
            json!({"request": format!("TCP {}:{}{}", lines.host, lines.port, if lines.tls { " (TLS)" } else { "" })})
        }
    }
}

/// What is no text is shown in hexadecimal lines.
fn shown_body(body: &[u8]) -> (String, bool) {
    let cut = &body[..body.len().min(SHOWN_BYTES)];
    let text = if std::str::from_utf8(body).is_ok() { String::from_utf8_lossy(cut).into_owned() } else { ::adapters::dump(cut) };
    (text, cut.len() < body.len())
}

/// A store to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTest {
    /// The body that would save the store; with a saved store's `name`, its secrets are kept.
    #[schema(value_type = Object)]
    store: Json_,
}

/// Tries a saved store: the vendor's own check of address and credentials, or one point of a series of its own.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/test", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = Outcome)))]
pub(crate) async fn test(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Outcome>, Refusal> {
    let project = caller.project(&path.0, Scope::Edit)?;
    let store = metric_stores::find(&caller, &path, Scope::Edit)?;
    try_out(&app, &project, &store).await.map(Json)
}

/// Tries a store that is not saved.
#[utoipa::path(post, path = "/api/v1/projects/{project}/test", request_body = NewTest, params(("project" = String, Path)),
    responses((status = 200, body = Outcome), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn test_unsaved(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewTest>,
) -> Result<Json<Outcome>, Refusal> {
    let project = caller.project(&project, Scope::Edit)?;
    let draft = read_store(&app, &caller, &project, &new.store)?;
    try_out(&app, &project, &draft.store).await.map(Json)
}

/// What became of a test.
#[derive(Serialize, ToSchema)]
pub(crate) struct Outcome {
    /// `check` (the vendor's own, nothing is written), `canary` (one point was sent) or `page` (the store reads from us).
    kind: &'static str,
    /// `confirmed`, `sent` (the store does not say), `partial`, `refused`, `throttled`, `unavailable`, `unreachable`,
    /// `misconfigured`; of a page `read`, `not-read` or `never-read`.
    outcome: &'static str,
    /// The same in words, with the store's own reason.
    detail: String,
    /// What was sent, secrets masked.
    #[schema(value_type = Option<Object>)]
    request: Option<Json_>,
    /// The status code and the beginning of the answer.
    #[schema(value_type = Option<Object>)]
    reply: Option<Json_>,
    took_ms: u64,
}

async fn try_out(app: &Arc<App>, project: &Project, store: &Store) -> Result<Outcome, Refusal> {
    let revision = store.newest();
    let adapter = Adapter::parse(&revision.settings.adapter, &store.fields(revision))?;
    let began = Instant::now();
    let Some(push) = adapter.as_push() else {
        let id = store.id;
        let read = app.catalog(move |app, _| app.catalog.pull_read(id)).await?;
        let outcome = metric_stores::pull_state(read.as_ref().map(|read| read.at), app.reports.now().secs(), revision.settings.period);
        let detail = match outcome {
            "read" => "the page is being read",
            "not-read" => "the page was read once, but not for three periods; look at the store's own log of its reads",
            _ => "nobody has read the page yet: give the store the URL, and the user name and password if there are any",
        };
        return Ok(Outcome { kind: "page", outcome, detail: detail.to_owned(), request: None, reply: None, took_ms: 0 });
    };
    let (kind, shown, answer, verdict) = match push.probe() {
        Some(probe) => {
            let answer = app.export.try_out(&probe.outgoing).await;
            let verdict = answer.as_ref().ok().map(|reply| (probe.judge)(reply));
            ("check", shown_head(&probe.outgoing), answer, verdict)
        }
        None => {
            let encoded = push.encode(&app.export.canary(project, store));
            let payload = encoded.payloads.first().ok_or_else(|| Refusal::invalid("store", "its names leave nothing to send"))?;
            let outgoing = push.request(payload);
            let answer = app.export.try_out(&outgoing).await;
            let verdict = answer.as_ref().ok().map(|reply| push.judge(payload, reply));
            ("canary", shown_request(&outgoing, &payload.body(), 1), answer, verdict)
        }
    };
    let (outcome, detail) = match (&answer, verdict) {
        (Err(failure), _) if failure.needs_attention() => ("misconfigured", failure.to_string()),
        (Err(failure), _) => ("unreachable", failure.to_string()),
        (Ok(_), None) => unreachable!("an answer is judged"),
        (Ok(_), Some(verdict)) => told(kind, verdict),
    };
    let reply = answer.ok().map(|reply| match reply {
        Reply::Http { status, body, .. } => {
            json!({"status": status, "body": String::from_utf8_lossy(&body[..body.len().min(REPLY_BYTES)])})
        }
        Reply::Tcp => json!({"status": null, "body": "the connection took every line"}),
    });
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Outcome { kind, outcome, detail, request: Some(shown), reply, took_ms })
}

/// A verdict in words for a person.
fn told(kind: &str, verdict: Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Accepted { .. } if kind == "check" => {
            ("confirmed", "address and credentials are right by the store's own check; nothing was written".to_owned())
        }
        Verdict::Accepted { confirmed: true } => ("confirmed", "the store took the point".to_owned()),
        Verdict::Accepted { confirmed: false } => {
            ("sent", "the point was sent; this store does not say whether it keeps it, so look for it there".to_owned())
        }
        Verdict::Partial { reason, .. } => ("partial", reason),
        Verdict::Drop { reason } => ("refused", reason),
        Verdict::Split => ("refused", "one point is too large for the store".to_owned()),
        Verdict::Throttle { reason, .. } => ("throttled", reason),
        Verdict::Retry { reason } => ("unavailable", reason),
        Verdict::Config { reason } => ("misconfigured", reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_word_and_keeps_the_stores_reason() {
        let reason = || "because".to_owned();
        for (verdict, word) in [
            (Verdict::Partial { refused: Vec::new(), unnamed: 1, reason: reason() }, "partial"),
            (Verdict::Drop { reason: reason() }, "refused"),
            (Verdict::Throttle { after_secs: None, reason: reason() }, "throttled"),
            (Verdict::Retry { reason: reason() }, "unavailable"),
            (Verdict::Config { reason: reason() }, "misconfigured"),
        ] {
            assert_eq!(told("canary", verdict), (word, reason()));
        }
        assert_eq!(told("canary", Verdict::Accepted { confirmed: false }).0, "sent");
        assert_eq!(told("canary", Verdict::Accepted { confirmed: true }).0, "confirmed");
        // What a check vouches for is not a point.
        assert!(told("check", Verdict::Accepted { confirmed: true }).1.contains("nothing was written"));
    }
}
