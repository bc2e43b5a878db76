//! What the URL of a store that speaks HTTP says beside its path.

use url::Url;

/// Scheme, host and port, for status texts.
pub(crate) fn target(url: &Url) -> String {
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Host and port, for the egress policy.
pub(crate) fn host_and_port(url: &Url) -> (String, u16) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default())
}
