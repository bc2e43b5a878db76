//! What goes out: a request or lines with address and credentials in place. Sending it is `export`'s part.

use model::Secret;
use url::Url;

/// Query parameters whose values are shown to people. Every other value may be a key.
const SHOWN_PARAMETERS: &[&str] = &["accept_partial", "bucket", "consistency", "db", "no_sync", "org", "orgID", "precision", "rp"];

/// One thing to send, complete.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// An HTTP request.
    Http(HttpRequest),
    /// Lines over a TCP connection.
    Tcp(TcpLines),
}

/// An HTTP request.
#[derive(Clone, PartialEq)]
pub struct HttpRequest {
    /// `POST`, mostly.
    pub method: &'static str,
    /// Where to. It may hold a secret, so `Debug` and pages show [`HttpRequest::masked_url`].
    pub url: Url,
    /// Whether the path is a key too.
    pub secret_path: bool,
    /// Headers beside host and length.
    pub headers: Vec<(&'static str, HeaderText)>,
    /// The body as it goes out, compressed if the headers say so.
    pub body: Vec<u8>,
    /// Further certificates to trust, as PEM.
    pub ca_pem: Option<String>,
}

impl HttpRequest {
    /// A request of JSON, or of nothing.
    pub(crate) fn json(method: &'static str, url: Url, mut headers: Vec<(&'static str, HeaderText)>, body: Vec<u8>) -> HttpRequest {
        if !body.is_empty() {
            // Without a charset: Grafana's gateway compares the text (metric-stores 4.2).
            headers.insert(0, ("content-type", HeaderText::Plain("application/json".to_owned())));
        }
        HttpRequest { method, url, headers, body, ca_pem: None, secret_path: false }
    }

    /// The URL as it may be shown: without user name and password, without a path that is a key, and of the query only the values
    /// known to be harmless.
    pub fn masked_url(&self) -> String {
        if self.secret_path {
            return format!("{}/***", self.url.origin().ascii_serialization());
        }
        let mut shown = self.url[..url::Position::BeforeUsername].to_owned();
        shown.push_str(&self.url[url::Position::BeforeHost..url::Position::AfterPath]);
        for (at, (name, value)) in self.url.query_pairs().enumerate() {
            shown.push(if at == 0 { '?' } else { '&' });
            shown.push_str(&name);
            shown.push('=');
            shown.push_str(if SHOWN_PARAMETERS.contains(&name.as_ref()) { &value } else { "***" });
        }
        shown
    }
}

impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, url, headers, bytes) = (self.method, self.masked_url(), &self.headers, self.body.len());
        f.debug_struct("HttpRequest")
            .field("method", &method)
            .field("url", &url)
            .field("headers", headers)
            .field("body_bytes", &bytes)
            .finish()
    }
}

/// A URL that is a key: `Debug` shows only where it leads.
#[derive(Clone, PartialEq)]
pub(crate) struct SecretUrl(pub(crate) Url);

impl SecretUrl {
    /// Scheme, host and port.
    pub(crate) fn target(&self) -> String {
        target(&self.0)
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/***", self.target())
    }
}

/// Where a URL leads: scheme, host and port.
pub(crate) fn target(url: &Url) -> String {
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The text of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderText {
    /// May be shown.
    Plain(String),
    /// Must not be shown.
    Secret(Secret),
}

impl HeaderText {
    /// The text as it may be shown.
    pub fn masked(&self) -> &str {
        match self {
            HeaderText::Plain(text) => text,
            HeaderText::Secret(_) => "***",
        }
    }
}

/// Lines for a TCP connection of their own, which is closed after them.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpLines {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The lines, each with its line end.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_credentials() {
        for (url, shown) in [
            ("https://u:p@h.example:8086/write?db=x&rp=y", "https://h.example:8086/write?db=x&rp=y"),
            ("https://h.example/write?api_key=abc&db=x", "https://h.example/write?api_key=***&db=x"),
            ("https://h.example/write", "https://h.example/write"),
            ("http://[::1]:1/a?b", "http://[::1]:1/a?b=***"),
        ] {
            let request = request(url, false);
            assert_eq!(request.masked_url(), shown);
            assert!(!format!("{request:?}").contains("abc"), "{request:?}");
        }
    }

    #[test]
    fn a_path_that_is_a_key_is_not_shown() {
        for (url, shown) in [
            ("https://u:p@h.example:43191/module/httptrap/abc/s3cret?db=s3cret", "https://h.example:43191/***"),
            ("https://h.example/s3cret", "https://h.example/***"),
            ("http://[::1]:2609/write/s3cret", "http://[::1]:2609/***"),
        ] {
            let request = request(url, true);
            assert_eq!(request.masked_url(), shown);
            let seen = format!("{request:?} {:?}", SecretUrl(request.url.clone()));
            assert!(!seen.contains("s3cret") && !seen.contains("abc") && !seen.contains("u:p"), "{seen}");
        }
    }

    fn request(url: &str, secret_path: bool) -> HttpRequest {
        HttpRequest { method: "POST", url: url.parse().expect("a URL"), secret_path, headers: Vec::new(), body: Vec::new(), ca_pem: None }
    }
}
