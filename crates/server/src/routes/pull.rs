//! Pages that scrapers and checks read: one sealed window, whole, behind an address that cannot be guessed.
//!
//! An unknown, rotated or deleted address is 404 whatever else is wrong; credentials are asked for only at a known one. Every answer
//! but the page is plain text: Circonus makes metrics of whatever parses as JSON, at any status (metric-stores 7.5).

use crate::app::App;
use crate::reply::Refusal;
use ::adapters::{Accept, Adapter, Pull};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{Store, content_hash};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

/// Pages from this size on are worth compressing, in bytes.
const GZIP_FROM: usize = 1_024;

/// A store's page.
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Path((secret, name)): Path<(String, String)>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let unknown = || (StatusCode::NOT_FOUND, "there is nothing at this address\n").into_response();
    let snapshot = app.catalog.published();
    let Some(store) = snapshot.store_at(&secret, app.reports.now()) else { return unknown() };
    let newest = store.newest();
    let served = match Adapter::parse(&newest.settings.adapter, &store.fields(newest)) {
        Ok(adapter) => match adapter.as_pull().filter(|pull| pull.page_name() == name) {
            Some(pull) => serve(&app, store, pull, peer, &method, &headers).await,
            None => match adapter.as_pull().and_then(|pull| discovery(&app, store, pull, &secret, &name, &headers)) {
                Some(document) => return document,
                None => return unknown(),
            },
        },
        Err(problems) => {
            tracing::error!(store = store.name, ?problems, "the settings of this store cannot be read any more");
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the settings of this store cannot be read any more"))
        }
    };
    served.unwrap_or_else(|refusal| {
        let status = refusal.into_response().status();
        (status, "the server could not make this page; its log says why\n").into_response()
    })
}

/// The document that says where the page is, for a reader who may read the page.
fn discovery(app: &App, store: &Store, pull: &dyn Pull, secret: &str, name: &str, headers: &HeaderMap) -> Option<Response> {
    let url = app.public(&format!("pull/{secret}/{}", pull.page_name()));
    let (known, document) = pull.discovery(&url, store.newest().settings.period, &store.name)?;
    if known != name {
        return None;
    }
    let in_order = pull.authorises(text(headers, header::AUTHORIZATION.as_str()));
    Some(if in_order { axum::Json(document).into_response() } else { locked(pull) })
}

fn locked(pull: &dyn Pull) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, pull.challenge())];
    (StatusCode::UNAUTHORIZED, challenge, "the user name, password or token is wrong\n").into_response()
}

async fn serve(
    app: &Arc<App>,
    store: &Store,
    pull: &dyn Pull,
    peer: SocketAddr,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let newest = store.newest();
    if !pull.authorises(text(headers, header::AUTHORIZATION.as_str())) {
        return Ok(locked(pull));
    }
    if !newest.settings.enabled {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, "this store is disabled\n").into_response());
    }
    let page = app.export.page(store).await?;
    let Some(page) = page else {
        let retry = [(header::RETRY_AFTER, newest.settings.period.secs().to_string())];
        return Ok(
            (StatusCode::SERVICE_UNAVAILABLE, retry, "no window is sealed yet; the first page comes after one period\n").into_response()
        );
    };
    let rendered = pull.render(&page, &Accept::read(text(headers, header::ACCEPT.as_str())));
    let etag = format!("\"{}\"", hex::encode(&content_hash(&rendered.body)[..16]));
    if method == Method::GET {
        record(app, store, &page, peer, headers, rendered.body.len());
    }
    let content_type = HeaderValue::from_static(rendered.content_type);
    let etag = HeaderValue::from_str(&etag).map_err(|error| Refusal::internal(&error))?;
    let wants_gzip = text(headers, header::ACCEPT_ENCODING.as_str()).is_some_and(takes_gzip);
    let body = if wants_gzip && rendered.body.len() >= GZIP_FROM { gzip(&rendered.body) } else { None };
    let mut response = match body {
        Some(body) => ([(header::CONTENT_ENCODING, "gzip")], body).into_response(),
        None => rendered.body.into_response(),
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, content_type);
    out.insert(header::ETAG, etag);
    out.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

/// Remembers the read off the request's path; a read that cannot be recorded is still a read.
fn record(app: &Arc<App>, store: &Store, page: &model::Page, peer: SocketAddr, headers: &HeaderMap, bytes: usize) {
    let agent = text(headers, header::USER_AGENT.as_str()).unwrap_or("unnamed reader");
    let agent: String = agent.chars().filter(|c| !c.is_control()).take(100).collect();
    let reader = format!("{} {agent}", peer.ip());
    let (app, id, window) = (app.clone(), store.id, page.window);
    tokio::spawn(async move {
        let recorded = app.catalog(move |app, now| app.catalog.record_read(id, window, now(), &reader, bytes as u64)).await;
        if let Err(error) = recorded {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot record a read");
        }
    });
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether gzip is among the accepted encodings and not refused by `q=0`.
fn takes_gzip(accept: &str) -> bool {
    accept.split(',').any(|one| {
        let (name, q) = one.split_once(';').unwrap_or((one, ""));
        let refused = matches!(q.trim().strip_prefix("q=").map(str::parse::<f64>), Some(Ok(q)) if q == 0.0);
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 8), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::takes_gzip;

    #[test]
    fn gzip_is_sent_only_to_those_who_take_it() {
        for (accept, takes) in
            [("gzip", true), ("gzip, deflate", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("identity", false), ("*", true)]
        {
            assert_eq!(takes_gzip(accept), takes, "{accept}");
        }
    }
}
