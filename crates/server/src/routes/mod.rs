//! Every route on one screen. Handlers are one file a noun; submission URLs take many forms and are told apart in `submit`.

mod adapters;
mod attributes;
mod audit;
mod audit_log;
mod backfill;
mod backtrace;
mod configuration;
pub(crate) mod events;
mod explain;
mod health;
mod login;
pub(crate) mod metric_sets;
pub(crate) mod metric_stores;
mod metric_values;
mod openapi;
mod parameters;
mod preview;
pub(crate) mod projects;
mod pull;
mod query;
mod submit;
mod tokens;
mod users;
mod views;
mod web;
mod wire;

use crate::app::App;
use crate::reply::Refusal;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use std::net::SocketAddr;
use std::sync::Arc;
use tower::Service;

/// Largest body of our own API, in bytes; submissions have their own limits.
const API_BODY_BYTES: usize = 1 << 20;

fn router(app: Arc<App>) -> Router {
    let of_project = Router::new()
        .route("/", get(projects::show))
        .route("/attributes", get(projects::attributes))
        .route("/attributes/{attribute}/values", get(query::values))
        .route("/reports", post(query::select))
        .route("/attribute-settings", get(attributes::list))
        .route("/attribute-settings/{attribute}", put(attributes::put).delete(attributes::delete))
        .route("/reports/{tx}", get(projects::report))
        .route("/reports/{tx}/attachments/{id}", get(projects::attachment))
        .route("/query", post(query::run))
        .route("/events", get(events::stream))
        .route("/refusals", get(projects::refusals))
        .route("/views", get(views::list))
        .route("/views/{view}", put(views::put).delete(views::delete))
        .route("/preview", post(preview::run))
        .route("/test", post(wire::test_unsaved))
        .route("/metric-sets", get(metric_sets::list))
        .route("/metric-sets/{set}", put(metric_sets::put_set).get(metric_sets::show_set).delete(metric_sets::delete_set))
        .route(
            "/metric-sets/{set}/metrics/{metric}",
            put(metric_sets::put_metric).get(metric_sets::show_metric).delete(metric_sets::delete_metric),
        )
        .route("/audit", get(audit::of_project))
        .route("/metric-sets/{set}/metrics/{metric}/ledger", get(audit::of_metric))
        .route("/metric-sets/{set}/metrics/{metric}/values", get(metric_values::show))
        .route("/metric-sets/{set}/metrics/{metric}/explain", get(explain::explain))
        .route("/metric-stores", get(metric_stores::list))
        .route("/metric-stores/{store}", put(metric_stores::put).get(metric_stores::show).delete(metric_stores::delete))
        .route("/metric-stores/{store}/status", get(metric_stores::status))
        .route("/metric-stores/{store}/deliveries", get(metric_stores::deliveries))
        .route("/metric-stores/{store}/ledger", get(metric_stores::ledger))
        .route("/metric-stores/{store}/backfill", get(backfill::show).post(backfill::start).delete(backfill::cancel))
        .route("/metric-stores/{store}/preview", get(wire::preview))
        .route("/metric-stores/{store}/snippets", get(wire::snippets))
        .route("/metric-stores/{store}/test", post(wire::test))
        .route("/metric-stores/{store}/send-now", post(metric_stores::send_now))
        .route("/metric-stores/{store}/pause", post(metric_stores::pause))
        .route("/metric-stores/{store}/resume", post(metric_stores::resume))
        .route("/metric-stores/{store}/rotate", post(metric_stores::rotate));
    let api = Router::new()
        .route("/projects", get(projects::list).post(projects::create))
        .nest("/projects/{project}", of_project)
        .route("/audit", get(audit::of_all))
        .route("/audit-log", get(audit_log::list))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{name}", put(users::edit).delete(users::delete))
        .route("/login", post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/me", get(login::me))
        .route("/me/password", put(login::change_password))
        .route("/adapters", get(adapters::list))
        .route("/schema", get(configuration::schema))
        .route("/configuration", get(configuration::show))
        .route("/plan", post(configuration::plan))
        .route("/apply", post(configuration::apply))
        .fallback(|| async { Refusal::missing("such address in the API; /api/openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "", "this address takes other methods; /api/openapi.json lists them")
        })
        .layer(DefaultBodyLimit::max(API_BODY_BYTES));
    Router::new()
        .route("/", get(web::page))
        .route("/login", get(web::page))
        .route("/system", get(web::page))
        .route("/account", get(web::page))
        .route("/audit-log", get(web::page))
        .route("/p/{*page}", get(web::page))
        .route("/assets/{*file}", get(web::asset))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/openapi.json", get(openapi::show))
        .nest("/api/v1", api)
        .merge(backtrace::router())
        .route("/pull/{secret}/{page}", get(pull::page))
        .fallback(submit::any)
        .with_state(app)
        .layer(axum::middleware::map_response(harden))
}

/// What answers every request.
#[derive(Clone)]
pub(crate) struct Door {
    app: Arc<App>,
    router: Router,
}

impl Door {
    pub(crate) fn new(app: Arc<App>) -> Door {
        Door { router: router(app.clone()), app }
    }

    /// Submissions at the addresses that SDKs are given pass by the table of routes, where they would come to the same handler last.
    pub(crate) async fn answer(mut self, mut request: Request, peer: SocketAddr) -> Response {
        if request.method() == Method::POST && request.uri().path().starts_with(submit::ADDRESSES) {
            return harden(submit::answer(&self.app, request).await).await;
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        // A router is always ready.
        match Service::<Request>::call(&mut self.router, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Headers that every reply carries: nothing here is a page to be framed, sniffed or kept by a proxy.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}
