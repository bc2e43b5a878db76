//! Metric stores: where sets are exported to, how it is going, and the exact bytes.

use super::metric_sets::expected_revision;
use super::parameters::Parameters;
use super::projects::{Body, check_name};
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use ::adapters::{Adapter, Field, Pull};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Delivery, Ledger, Metric, Scope, SecretEdits, Store, StoreDraft, StoreSettings};
use export::OverBudget;
use model::{PathTemplate, Period, Problem, ProjectId, Secret, Stamp, Window};
use serde::Deserialize;
use serde_json::{Map, Value as Json_, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Not;
use std::sync::Arc;

/// Default and longest horizon (design.md 2): 72 h.
pub(crate) const HORIZON_SECS: u64 = 72 * 3_600;
/// First node of every path unless the store says otherwise.
pub(crate) const PREFIX: &str = "crashmeter";
/// Labels that one store may add.
pub(crate) const MAX_LABELS: usize = 20;
/// Fields of every store, whatever its adapter.
pub(crate) const COMMON: [&str; 9] = ["adapter", "period", "sets", "prefix", "template", "labels", "label_names", "horizon", "enabled"];
/// Gaps told of in a status, and for how long, in seconds.
const GAPS_TOLD: u32 = 20;
const GAPS_TOLD_SECS: u64 = 72 * 3_600;
/// What is shown of a store and is not for its editor to set: a store read by GET can be edited and put back as it is.
const SHOWN_ONLY: [&str; 9] =
    ["name", "revision", "paused", "secrets_set", "first_window_start", "warnings", "scrape_config", "url", "old_url_until"];

/// A span of the ledger.
#[derive(Deserialize, utoipa::IntoParams)]
pub(crate) struct Span {
    /// First second.
    from: Option<u64>,
    /// First second after it.
    to: Option<u64>,
}

/// The project's metric stores.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores", params(("project" = String, Path)), responses((status = 200, body = [serde_json::Value])))]
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller, Path(project): Path<String>) -> Result<Json<Vec<Json_>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let stores = caller.snapshot().stores.iter().filter(|store| store.project == project.id && store.deleted.is_none());
    Ok(Json(stores.map(|store| shown(&app, store, caller.needs(Scope::Edit).is_ok())).collect()))
}

/// Saves a metric store. A secret left out is kept, null clears it; a changed host needs it again.
#[utoipa::path(put, path = "/api/v1/projects/{project}/metric-stores/{store}", request_body = serde_json::Value,
    params(("project" = String, Path), ("store" = String, Path), ("If-Match" = Option<String>, Header, description = "the revision you edit")),
    responses((status = 200, body = serde_json::Value), (status = 412, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body<Map<String, Json_>>,
) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Edit)?;
    check_name("store", &name)?;
    let expected = expected_revision(&headers)?;
    let known = caller.snapshot().store(project.id, &name).cloned();
    let (draft, mut warnings) = check(&app, &project.sets, known.as_ref(), body)?;
    // Of two who make one store at once, only the first gets its credentials made.
    let expected = expected.or((known.is_none() && draft.pull).then_some(0));
    let (actor, id, of) = (caller.name(), project.id, name.clone());
    app.catalog(move |app, now| app.catalog.put_store(id, &of, &draft, expected, &actor, now)).await?;
    let snapshot = app.catalog.published();
    let saved = snapshot.store(id, &name).ok_or_else(|| Refusal::missing("such store any more: it was deleted meanwhile"))?;
    let mut shown = shown(&app, saved, true);
    let (from, gap_secs) = saved.newest_governs_from();
    if gap_secs > 0 {
        warnings.push(format!(
            "the old and the new period have no near boundary in common: there are no points for {gap_secs} s before {}",
            from.secs()
        ));
    }
    shown["warnings"] = json!(warnings);
    Ok(([(header::ETAG, format!("\"{}\"", saved.newest().number))], Json(shown)).into_response())
}

/// One metric store.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn show(State(app): State<Arc<App>>, caller: Caller, Path(path): Path<(String, String)>) -> Result<Response, Refusal> {
    let store = find(&caller, &path, Scope::Query)?;
    let etag = format!("\"{}\"", store.newest().number);
    Ok(([(header::ETAG, etag)], Json(shown(&app, &store, caller.needs(Scope::Edit).is_ok()))).into_response())
}

/// Deletes a metric store: what it was still owed is cancelled.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/metric-stores/{store}", params(("project" = String, Path), ("store" = String, Path)), responses((status = 204)))]
pub(crate) async fn delete(State(app): State<Arc<App>>, caller: Caller, Path(path): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    change(&app, &caller, &path, |app, project, name, actor, now| app.catalog.delete_store(project, name, actor, now)).await
}

/// Stops sending; points go on becoming due.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/pause", params(("project" = String, Path), ("store" = String, Path)), responses((status = 204)))]
pub(crate) async fn pause(State(app): State<Arc<App>>, caller: Caller, Path(path): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    needs_push(&caller, &path)?;
    change(&app, &caller, &path, |app, project, name, actor, now| app.catalog.pause_store(project, name, true, actor, now)).await
}

/// Goes on sending, oldest window first.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/resume", params(("project" = String, Path), ("store" = String, Path)), responses((status = 204)))]
pub(crate) async fn resume(State(app): State<Arc<App>>, caller: Caller, Path(path): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    needs_push(&caller, &path)?;
    change(&app, &caller, &path, |app, project, name, actor, now| app.catalog.pause_store(project, name, false, actor, now)).await
}

/// Gives a pull store a new URL; the old one is served for one hour more. User name and password stay.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/rotate", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Json_>, Refusal> {
    let store = find(&caller, &path, Scope::Edit)?;
    if ::adapters::is_push(&store.newest().settings.adapter) {
        return Err(Refusal::invalid("store", "only a store that is read by URL has one to rotate"));
    }
    change(&app, &caller, &path, |app, project, name, actor, now| app.catalog.rotate_pull_secret(project, name, actor, now)).await?;
    let snapshot = app.catalog.published();
    let rotated = snapshot.store_by_id(store.id).ok_or_else(|| Refusal::missing("such store any more: it was deleted meanwhile"))?;
    let mut shown = shown(&app, rotated, true);
    let ends = snapshot.pulls.values().filter(|url| url.store == store.id).filter_map(|url| url.until);
    shown["old_url_until"] = json!(ends.max().map(|until| until.secs()));
    Ok(Json(shown))
}

/// Tries what is sealed and not yet sent at once.
#[utoipa::path(post, path = "/api/v1/projects/{project}/metric-stores/{store}/send-now", params(("project" = String, Path), ("store" = String, Path)), responses((status = 202)))]
pub(crate) async fn send_now(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let store = find(&caller, &path, Scope::Edit)?;
    app.export.send_now(store.id);
    Ok(StatusCode::ACCEPTED)
}

/// How it is going: computed from the ledger, never stored.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/status", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Json_>, Refusal> {
    let store = find(&caller, &path, Scope::Query)?;
    let settings = &store.newest().settings;
    let (id, project, period) = (store.id, store.project, settings.period);
    let owned = store.clone();
    let (ledger, (open_windows, oldest), attempts, read, newest, over_budget, expiring, gaps, backfill) = app
        .catalog(move |app, _| {
            let catalog = &app.catalog;
            // All of one moment: a window sealed between two of these reads would count as sealed and not as open.
            catalog.at_one_moment(|| {
                let backlog = catalog.backlog(id)?;
                Ok((
                    catalog.ledger(id)?,
                    backlog,
                    catalog.attempts(id, 30)?,
                    catalog.pull_read(id)?,
                    catalog.newest_sealed(project, period)?,
                    app.export.over_budget(&owned)?,
                    backlog.1.map(|oldest| will_expire(app, &owned, oldest)).transpose()?.flatten(),
                    catalog.gaps(project, period, app.reports.now().secs().saturating_sub(GAPS_TOLD_SECS), GAPS_TOLD)?,
                    catalog.backfills(id, 1)?.pop(),
                ))
            })
        })
        .await?;
    let push = ::adapters::is_push(&settings.adapter);
    let now = app.reports.now();
    let state = if !settings.enabled {
        json!({"state": "disabled"})
    } else if push {
        json!(app.export.phase(id))
    } else {
        json!({"state": pull_state(read.as_ref().map(|read| read.at), now.secs(), period)})
    };
    let gaps = gaps.into_iter().map(|(from, to)| {
        let detail = format!("the server took no reports from {from} to {to}: there are no points, because a 0 would be a lie");
        json!({"from": from, "to": to, "detail": detail})
    });
    Ok(Json(json!({
        "adapter": settings.adapter, "period": period.secs(), "detail": words(&state, open_windows), "status": state,
        "will_expire": expiring, "gaps": gaps.collect::<Vec<_>>(), "backfill": backfill,
        "newest_sealed_window": newest.map(|window| window.start_secs()),
        "next_window_end": period.window_at(now).end_secs(),
        "points": ledger, "imbalance": ledger.imbalance().to_string(),
        "open_windows": open_windows, "oldest_open_window": oldest,
        "last_success": push.then(|| app.export.delivery_figures(id).last_success).filter(|at| *at > 0),
        "last_read": read, "attempts": attempts,
        "metadata": push.then(|| app.export.metadata(id)).filter(|metadata| *metadata != export::Metadata::default()),
        "over_budget": over_budget.iter().map(|(metric, over)| shown_over_budget(metric, over)).collect::<Vec<_>>(),
    })))
}

/// What a store's state means, in a sentence.
fn words(state: &Json_, open_windows: u64) -> String {
    let text = |name: &str| state[name].as_str().unwrap_or_default();
    let waiting = match open_windows {
        0 => "nothing waits".to_owned(),
        1 => "1 window waits".to_owned(),
        many => format!("{many} windows wait, oldest first"),
    };
    let next = || format!("the next attempt is at {}", state["next_attempt"]);
    match text("state") {
        "disabled" => "it is disabled: no window becomes due".to_owned(),
        "idle" => "everything sealed is sent".to_owned(),
        "sending" => format!("it is being sent to; {waiting}"),
        "retrying" => format!("the store is down or fails: {}; {waiting}; {}", text("reason"), next()),
        "throttled" => format!("the store is busy or asks us to wait: {}; {waiting}; {}", text("reason"), next()),
        "needs-attention" => format!("its configuration has to be mended: {}; {waiting}; {}", text("reason"), next()),
        "paused" => format!("it was paused by a person; {waiting}"),
        "held" => format!("sending is held: {}; {waiting}", text("reason")),
        "never-read" => "nobody has read its page yet".to_owned(),
        "not-read" => "nobody has read its page for three periods".to_owned(),
        _ => "its page is being read".to_owned(),
    }
}

/// What of a store's backlog expires soon, told before it does: within the last hour of its life, or the last quarter where that is
/// shorter.
fn will_expire(app: &App, store: &Store, oldest: u64) -> Result<Option<Json_>, catalog::CatalogError> {
    let period = store.in_force(Stamp::from_secs(oldest)).unwrap_or_else(|| store.newest()).settings.period;
    let Some(window) = Window::new(oldest, period) else { return Ok(None) };
    let (now, last) = (app.reports.now().secs(), app.export.last_second(store, window));
    let told_from = last.saturating_sub((last.saturating_sub(window.end_secs()) / 4).min(3_600));
    if now < told_from {
        return Ok(None);
    }
    // Windows of one store live equally long.
    let (windows, points) = app.catalog.open_before(store.id, oldest + (now - told_from) + 1)?;
    let detail =
        format!("{points} points of {windows} windows are lost for this store unless it takes them: the first expires after {last}");
    Ok(Some(json!({"windows": windows, "points": points, "first_expires_after": last, "detail": detail})))
}

/// What of a metric was folded into `__other__`, and the words for it.
fn shown_over_budget(metric: &Metric, over: &OverBudget) -> Json_ {
    let budget = metric.newest().series_budget;
    let limit = if over.day_used_up { "the new series of one day".to_owned() } else { format!("its budget of {budget} series") };
    let detail = format!(
        "metric {}/{}: {} groups with {} reports are beyond {limit} and together one series, __other__; {} has values such as {}",
        metric.set,
        metric.name,
        over.groups,
        over.reports,
        over.attribute,
        over.samples.join(", ")
    );
    json!({
        "set": metric.set, "metric": metric.name, "attribute": over.attribute, "samples": over.samples, "groups": over.groups,
        "reports": over.reports, "window_start": over.window_start, "series_budget": budget, "detail": detail,
    })
}

/// The newest windows with the fate of their points.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/deliveries", params(("project" = String, Path), ("store" = String, Path)), responses((status = 200, body = [serde_json::Value])))]
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
) -> Result<Json<Vec<Delivery>>, Refusal> {
    let id = find(&caller, &path, Scope::Query)?.id;
    Ok(Json(app.catalog(move |app, _| app.catalog.deliveries(id, 0, i64::MAX as u64, 100)).await?))
}

/// The account of a span, window by window, and its sum.
#[utoipa::path(get, path = "/api/v1/projects/{project}/metric-stores/{store}/ledger", params(("project" = String, Path), ("store" = String, Path), Span), responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn ledger(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    Parameters(span): Parameters<Span>,
) -> Result<Json<Json_>, Refusal> {
    let id = find(&caller, &path, Scope::Query)?.id;
    let (from, to) = (span.from.unwrap_or(0), span.to.unwrap_or(i64::MAX as u64));
    let (windows, all) = app
        .catalog(move |app, _| {
            let catalog = &app.catalog;
            catalog.at_one_moment(|| Ok((catalog.deliveries(id, from, to, 10_000)?, catalog.ledger(id)?)))
        })
        .await?;
    let mut sum = Ledger::default();
    for points in windows.iter().map(|window| window.points) {
        sum.add(&points);
    }
    Ok(Json(json!({"windows": windows, "sum": sum, "all_time": all, "imbalance": all.imbalance().to_string()})))
}

/// A pull store that nobody has read for three periods is not being pulled (metric-stores 5.7).
pub(crate) fn pull_state(last_read: Option<u64>, now: u64, period: Period) -> &'static str {
    match last_read {
        None => "never-read",
        Some(at) if now.saturating_sub(at) > 3 * u64::from(period.secs()) => "not-read",
        Some(_) => "read",
    }
}

/// Only what we send can be held back; a page is there for whoever reads it.
fn needs_push(caller: &Caller, path: &(String, String)) -> Result<(), Refusal> {
    let store = find(caller, path, Scope::Edit)?;
    if ::adapters::is_push(&store.newest().settings.adapter) {
        return Ok(());
    }
    Err(Refusal::invalid("store", "is read by URL, so there is nothing to pause; set enabled to false to stop its page"))
}

pub(crate) fn find(caller: &Caller, (project, name): &(String, String), scope: Scope) -> Result<Store, Refusal> {
    let project = caller.project(project, scope)?;
    caller.snapshot().store(project.id, name).cloned().ok_or_else(|| Refusal::missing(&format!("metric store {name:?}")))
}

async fn change(
    app: &Arc<App>,
    caller: &Caller,
    (project, name): &(String, String),
    edit: impl FnOnce(&App, ProjectId, &str, &str, catalog::Now<'_>) -> Result<(), catalog::CatalogError> + Send + 'static,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(project, Scope::Edit)?.id;
    let (actor, name) = (caller.name(), name.clone());
    app.catalog(move |app, now| edit(app, project, &name, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A store as it is shown: secrets only as "is set", but for a pull store's own URL and credentials, which editors may see.
fn shown(app: &App, store: &Store, editor: bool) -> Json_ {
    let newest = store.newest();
    let settings = &newest.settings;
    let mut body = Map::new();
    body.insert("name".into(), json!(store.name));
    body.extend(settings_of(settings));
    body.insert("paused".into(), json!(store.paused));
    body.insert("revision".into(), json!(newest.number));
    body.insert("first_window_start".into(), json!(settings.period.first_window_from(store.newest_governs_from().0).start_secs()));
    body.insert("secrets_set".into(), json!(store.adapter_secrets().map(|(name, _)| name).collect::<Vec<_>>()));
    if let Some(secret) = caller_may_see(editor, app, store) {
        body.extend(store.adapter_secrets().map(|(name, secret)| (name.clone(), json!(secret.reveal()))));
        let adapter = Adapter::parse(&settings.adapter, &store.fields(newest)).ok();
        let page = adapter.as_ref().and_then(|adapter| adapter.as_pull()).map_or("metrics", |pull| pull.page_name());
        let url = page_url(app, &secret, page);
        if let Some(Adapter::Prometheus(prometheus)) = &adapter {
            let entry = prometheus.scrape_config_with_credentials(&url, settings.period, &format!("crashmeter-{}", store.name));
            let indented: String = entry.lines().map(|line| format!("  {line}\n")).collect();
            body.insert("scrape_config".into(), json!(format!("scrape_configs:\n{indented}")));
        }
        body.entry("username").or_insert(Json_::Null);
        body.insert("url".into(), json!(url));
    }
    Json_::Object(body)
}

/// What a person sets on a store, secrets apart, as it is set.
pub(crate) fn settings_of(settings: &StoreSettings) -> Map<String, Json_> {
    let mut body = Map::new();
    body.insert("adapter".into(), json!(settings.adapter));
    body.insert("period".into(), json!(settings.period.secs()));
    body.insert("sets".into(), json!(settings.sets));
    body.insert("prefix".into(), json!(settings.prefix));
    body.insert("template".into(), json!(settings.template));
    body.insert("labels".into(), json!(settings.labels));
    body.insert("label_names".into(), json!(settings.label_names));
    body.insert("horizon".into(), json!(settings.horizon_secs));
    body.insert("enabled".into(), json!(settings.enabled));
    body.extend(settings.fields.clone());
    body
}

/// Every key that may be set on a store of an adapter.
pub(crate) fn keys(description: &::adapters::Description) -> Vec<&'static str> {
    let own = description.fields.iter().filter(|field| !field.generated).map(|field| field.name);
    COMMON.into_iter().chain(own).collect()
}

/// Where a pull store's page is, for those who may know.
pub(crate) fn pull_url(app: &App, store: &Store, pull: &dyn Pull) -> Option<String> {
    Some(page_url(app, &caller_may_see(true, app, store)?, pull.page_name()))
}

fn page_url(app: &App, secret: &str, page: &str) -> String {
    app.public(&format!("pull/{secret}/{page}"))
}

fn caller_may_see(editor: bool, app: &App, store: &Store) -> Option<String> {
    let snapshot = app.catalog.published();
    snapshot.pull_secret(store.id).filter(|_| editor).map(|secret| secret.reveal().to_owned())
}

/// Checks a store as a person sent it: every fault named by its field, or a draft to save and warnings.
pub(crate) fn check(
    app: &App,
    project_sets: &[String],
    known: Option<&Store>,
    mut body: Map<String, Json_>,
) -> Result<(StoreDraft, Vec<String>), Refusal> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let common: Map<String, Json_> = COMMON.iter().filter_map(|name| body.remove(*name).map(|value| ((*name).to_owned(), value))).collect();
    let adapter = common.get("adapter").and_then(Json_::as_str).unwrap_or_default().to_owned();
    let Some(description) = ::adapters::description(&adapter) else {
        let names: Vec<&str> = ::adapters::descriptions().iter().map(|one| one.name).collect();
        return Err(Refusal::invalid("adapter", format!("must be one of {}", names.join(", "))));
    };
    if known.is_some_and(|known| known.newest().settings.adapter != adapter) {
        return Err(Refusal::invalid("adapter", "cannot be changed; make another store"));
    }
    body = description.canonical(&body).into_owned();
    for name in SHOWN_ONLY {
        if description.field(name).is_none_or(|field| field.generated) {
            body.remove(name);
        }
    }
    let period = match common.get("period").map(read_period) {
        None => {
            problems.push(Problem::new("period", "is missing; 60 is usual"));
            None
        }
        Some(Ok(period)) => Some(period),
        Some(Err(detail)) => {
            problems.push(Problem::new("period", detail));
            None
        }
    };
    let sets: Vec<String> = match common.get("sets").cloned().map(serde_json::from_value) {
        None => Vec::new(),
        Some(Ok(sets)) => sets,
        Some(Err(_)) => {
            problems.push(Problem::new("sets", "must be a list of metric set names"));
            Vec::new()
        }
    };
    warnings.extend(
        sets.iter()
            .filter(|set| !project_sets.contains(set))
            .map(|set| format!("there is no metric set {set:?} yet; it will be exported once it is made")),
    );
    let prefix = match common.get("prefix") {
        None => PREFIX.to_owned(),
        Some(Json_::String(prefix)) if !prefix.is_empty() && prefix.len() <= 128 && !prefix.chars().any(char::is_control) => prefix.clone(),
        Some(_) => {
            problems.push(Problem::new("prefix", "must be text of 1 to 128 bytes without control characters"));
            String::new()
        }
    };
    let labels: BTreeMap<String, String> = match common.get("labels").cloned().map(serde_json::from_value::<BTreeMap<String, String>>) {
        None => BTreeMap::new(),
        Some(Ok(labels))
            if labels.len() <= MAX_LABELS
                && labels.iter().all(|(name, value)| !name.is_empty() && name.len() <= 128 && value.len() <= 256) =>
        {
            labels
        }
        Some(_) => {
            problems.push(Problem::new("labels", format!("must be an object of at most {MAX_LABELS} short texts")));
            BTreeMap::new()
        }
    };
    let template = match common.get("template") {
        None | Some(Json_::Null) => PathTemplate::default(),
        Some(value) => value.as_str().ok_or("must be text".to_owned()).and_then(PathTemplate::parse).unwrap_or_else(|detail| {
            problems.push(Problem::new("template", detail));
            PathTemplate::default()
        }),
    };
    let label_names: BTreeMap<String, String> = match common.get("label_names").cloned().map(serde_json::from_value) {
        None => BTreeMap::new(),
        Some(Ok(names)) => names,
        Some(Err(_)) => {
            problems.push(Problem::new("label_names", "must be an object of texts: the label's name by its attribute"));
            BTreeMap::new()
        }
    };
    problems.extend(label_name_fault(&label_names, &labels).map(|detail| Problem::new("label_names", detail)));
    let horizon_secs = match common.get("horizon") {
        None => HORIZON_SECS,
        Some(value) => value.as_u64().filter(|seconds| (1..=HORIZON_SECS).contains(seconds)).unwrap_or_else(|| {
            problems.push(Problem::new("horizon", format!("must be 1 to {HORIZON_SECS} seconds")));
            HORIZON_SECS
        }),
    };
    if let Some(period) = period
        && horizon_secs < u64::from(period.secs())
    {
        problems.push(Problem::new(
            "horizon",
            format!("must be at least the period, {} s: a point would expire before it is tried again", period.secs()),
        ));
    }
    let enabled = match common.get("enabled") {
        None => true,
        Some(value) => value.as_bool().unwrap_or_else(|| {
            problems.push(Problem::new("enabled", "must be true or false"));
            true
        }),
    };

    // Secrets come and go apart from the other fields: one left out is kept, null clears it.
    let mut secrets = SecretEdits::new();
    for field in description.fields.iter().filter(|field| field.generated && field.required) {
        let kept = known.and_then(|known| known.secrets.get(field.name));
        let sent = body.remove(field.name);
        if sent.is_some_and(|sent| kept.map(Secret::reveal) != sent.as_str()) {
            problems.push(Problem::new(field.name, "is made by the server; leave it out"));
        }
        if kept.is_none() {
            secrets.insert(field.name.to_owned(), Some(made(field)));
        }
    }
    for field in description.fields.iter().filter(|field| field.is_secret() && !field.generated) {
        match body.remove(field.name) {
            None => {}
            Some(Json_::Null) => drop(secrets.insert(field.name.to_owned(), None)),
            Some(Json_::String(text)) => drop(secrets.insert(field.name.to_owned(), Some(Secret::new(text)))),
            Some(_) => problems.push(Problem::new(field.name, "must be text, or null to clear it")),
        }
    }
    let mut whole = body.clone();
    if let Some(known) = known {
        whole.extend(known.adapter_secrets().map(|(name, secret)| (name.clone(), json!(secret.reveal()))));
    }
    for (name, secret) in &secrets {
        match secret {
            Some(secret) => drop(whole.insert(name.clone(), json!(secret.reveal()))),
            None => drop(whole.remove(name)),
        }
    }
    match Adapter::parse(&adapter, &whole) {
        Err(found) => problems.extend(found),
        Ok(parsed) => {
            if let Some(problem) = period.and_then(|period| parsed.check_period(period).err()) {
                problems.push(problem);
            }
            problems.extend(check_target(app, &parsed));
            problems.extend(check_kept_secrets(known, &adapter, &parsed, &secrets));
        }
    }
    let Some(period) = period.filter(|_| problems.is_empty()) else { return Err(Refusal::from(problems)) };
    if 86_400 % period.secs() != 0 {
        warnings.push(format!("{} s does not divide a day: windows drift against the hours of a clock", period.secs()));
    }
    let settings = StoreSettings { adapter, period, sets, prefix, template, label_names, labels, horizon_secs, enabled, fields: body };
    Ok((StoreDraft { settings, secrets, pull: description.is_pull() }, warnings))
}

/// Why attributes cannot be given these label names: each series' labels are told apart by name.
fn label_name_fault(names: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> Option<String> {
    if names.len() > MAX_LABELS {
        return Some(format!("has more than {MAX_LABELS} names"));
    }
    let mut given = BTreeSet::new();
    names.values().find_map(|name| {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            Some(format!("{name:?} must be text of 1 to 128 bytes without control characters"))
        } else if !given.insert(name) || own.contains_key(name) {
            Some(format!("{name:?} is the name of another label too"))
        } else {
            None
        }
    })
}

/// A credential of the server's own making, in characters that every reader can send: 16 for a name, 64 for a secret.
fn made(field: &Field) -> Secret {
    let bytes: [u8; 32] = catalog::random_bytes();
    Secret::new(hex::encode(if field.is_secret() { &bytes[..] } else { &bytes[..8] }))
}

/// Whether we would ever be allowed to connect there; names are judged again, by every address, at each connect.
fn check_target(app: &App, adapter: &Adapter) -> Option<Problem> {
    let push = adapter.as_push()?;
    let (field, host, port) = push.address();
    app.egress.check_host(&host, port).into_iter().next().map(|problem| Problem::new(field, problem.detail))
}

/// A stored secret may not be sent to another host than the one it was given for.
fn check_kept_secrets(known: Option<&Store>, name: &str, parsed: &Adapter, edits: &SecretEdits) -> Vec<Problem> {
    let Some(known) = known else { return Vec::new() };
    let before = Adapter::parse(name, &known.fields(known.newest()));
    let address = |adapter: &Adapter| adapter.as_push().map(|push| push.target());
    let moved = before.is_ok_and(|before| address(&before) == address(parsed)).not();
    let kept = known.adapter_secrets().filter(|(field, _)| !edits.contains_key(*field));
    kept.filter(|_| moved)
        .map(|(field, _)| {
            Problem::new(field.clone(), "give it again: scheme, host or port has changed, and a stored secret goes to no other place")
        })
        .collect()
}

/// `60`, `"60"`, `"60s"`, `"1m"`, `"1h"`.
pub(crate) fn read_period(value: &Json_) -> Result<Period, String> {
    let wrong = || format!("must be whole seconds from 1 to {}, such as 60, \"60s\" or \"1m\"", Period::MAX_SECS);
    let seconds = match value {
        Json_::Number(number) => number.as_u64(),
        Json_::String(text) => {
            let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
                Some(digits) => (
                    digits,
                    if text.ends_with('s') {
                        1
                    } else if text.ends_with('m') {
                        60
                    } else {
                        3_600
                    },
                ),
                None => (text.as_str(), 1),
            };
            digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.checked_mul(unit))
        }
        _ => None,
    };
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).and_then(Period::new).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_whole_seconds_up_to_a_day() {
        for (value, seconds) in [
            (json!(60), Some(60)),
            (json!("60"), Some(60)),
            (json!("60s"), Some(60)),
            (json!("1m"), Some(60)),
            (json!("24h"), Some(86_400)),
            (json!(1), Some(1)),
            (json!(0), None),
            (json!(-1), None),
            (json!(0.5), None),
            (json!("0.5m"), None),
            (json!("+5"), None),
            (json!(86_401), None),
            (json!(4_294_967_297u64), None),
            (json!("99999999999999999999h"), None),
            (json!("1d"), None),
            (json!(null), None),
            (json!([60]), None),
        ] {
            assert_eq!(read_period(&value).ok().map(Period::secs), seconds, "{value}");
        }
    }

    #[test]
    fn every_state_has_its_words() {
        let told = |state: Json_, waiting| words(&state, waiting);
        assert_eq!(told(json!(export::Phase::Idle), 0), "everything sealed is sent");
        let throttled = export::Phase::Throttled { reason: "HTTP 429".into(), next_attempt: 7 };
        assert_eq!(
            told(json!(throttled), 2),
            "the store is busy or asks us to wait: HTTP 429; 2 windows wait, oldest first; the next attempt is at 7"
        );
        let down = export::Phase::Retrying { reason: "refused".into(), next_attempt: 7 };
        assert!(told(json!(down), 1).starts_with("the store is down or fails: refused; 1 window waits"));
        assert!(told(json!(export::Phase::Held { reason: "clock".into() }), 0).contains("held: clock"));
        assert!(told(json!(export::Phase::Paused), 3).contains("paused"));
        let attention = export::Phase::NeedsAttention { reason: "HTTP 401".into(), next_attempt: 7 };
        assert!(told(json!(attention), 3).contains("mended: HTTP 401"));
    }

    #[test]
    fn a_pull_store_unread_for_three_periods_is_not_being_pulled() {
        let period = Period::new(10).expect("legal");
        assert_eq!(pull_state(None, 100, period), "never-read");
        assert_eq!(pull_state(Some(70), 100, period), "read");
        assert_eq!(pull_state(Some(69), 100, period), "not-read");
    }
}
