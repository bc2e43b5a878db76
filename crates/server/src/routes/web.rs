//! The web page: files built from `web/` and held by the binary. A page's address below `/p/` and the like is `index.html`; an unknown
//! file is 404, never a page.

use crate::app::App;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::content_hash;
use std::sync::Arc;

/// Name in `web/dist` and bytes. Empty when the page was not built before the server.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

/// Scripts, styles and requests of our own only; nothing inline, no frame (reliability 5.3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page, at every address that is one.
pub(crate) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match served("index.html", "text/html; charset=utf-8", &headers) {
        Some(mut response) => {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        None => without_page(&app).into_response(),
    }
}

/// One of the page's files; its name changes with its content.
pub(crate) async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let kind = match file.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("md" | "txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    match served(&format!("assets/{file}"), kind, &headers) {
        Some(mut response) => {
            let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, kept);
            response
        }
        None => (StatusCode::NOT_FOUND, "there is no such file in this version\n").into_response(),
    }
}

/// Names the page that this binary serves: another build has another. `None` where there is none.
pub(super) fn edition() -> Option<String> {
    find("index.html").map(etag)
}

fn etag(file: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&content_hash(file)[..8]))
}

fn find(name: &str) -> Option<&'static [u8]> {
    FILES.binary_search_by_key(&name, |(name, _)| name).ok().map(|at| FILES[at].1)
}

fn served(name: &str, kind: &'static str, headers: &HeaderMap) -> Option<Response> {
    let plain = find(name)?;
    let etag = etag(plain);
    let told = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    if told(header::IF_NONE_MATCH).split(',').any(|known| known.trim().trim_start_matches("W/") == etag) {
        return Some((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let takes = |encoding: &str| told(header::ACCEPT_ENCODING).split(',').any(|one| one.trim() == encoding);
    let packed = [("br", "br"), ("gzip", "gz")].into_iter().find_map(|(encoding, end)| {
        let bytes = if takes(encoding) { find(&format!("{name}.{end}")) } else { None }?;
        Some((encoding, bytes))
    });
    let mut response = match packed {
        Some((encoding, bytes)) => ([(header::CONTENT_ENCODING, encoding)], bytes).into_response(),
        None => plain.into_response(),
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    out.insert(header::ETAG, HeaderValue::from_str(&etag).expect("hexadecimal digits"));
    Some(response)
}

/// What stands in the page's place in a binary that was built without Node.
fn without_page(app: &App) -> String {
    format!(
        "Crashmeter {}\n\n\
         This build has no web page. Run `make web` (it needs Node), then build again.\n\n\
         Send reports to  {}\n\
         API              {}  (described by {})\n\
         Health           {}  {}  {}\n",
        crate::VERSION,
        app.submission_url("<token>"),
        app.public("api/v1"),
        app.public("api/openapi.json"),
        app.public("healthz"),
        app.public("readyz"),
        app.public("metrics"),
    )
}
