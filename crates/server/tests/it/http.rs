//! A small blocking HTTP client for the tests: any status is a reply, never an error.

use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;
use ureq::http::{HeaderMap, Request};
use ureq::{Agent, Error};

/// A reply, whatever its status.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body as text.
    pub(crate) body: String,
}

impl Reply {
    /// The reply itself when it has this status; panics with the body otherwise.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "unexpected status; the body is: {}", self.body);
        self
    }

    /// A header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; panics when it is not.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// A GET without further headers.
pub(crate) fn get(url: &str) -> Result<Reply, Error> {
    call("GET", url, &[], "")
}

/// Any request. The error is one of connecting, writing or reading.
pub(crate) fn call(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Result<Reply, Error> {
    static AGENT: LazyLock<Agent> = LazyLock::new(|| {
        // Kept connections would meet a server that a test has just restarted, and a proxy has no business on loopback.
        let config = Agent::config_builder().http_status_as_error(false).max_idle_connections(0).proxy(None);
        config.timeout_global(Some(Duration::from_secs(20))).allow_non_standard_methods(true).build().new_agent()
    });
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body: Vec<u8> = body.into();
    let request = request.body(body).unwrap_or_else(|error| panic!("{method} {url} cannot be asked: {error}"));
    let mut response = AGENT.run(request)?;
    let headers = response.headers().clone();
    Ok(Reply { status: response.status().as_u16(), headers, body: response.body_mut().read_to_string()? })
}

/// The value of an `Authorization` header for basic authentication.
pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `base` with a query string of these pairs.
pub(crate) fn with_query(base: &str, pairs: &[(&str, &str)]) -> String {
    url::Url::parse_with_params(base, pairs).unwrap_or_else(|error| panic!("{base} is no URL: {error}")).into()
}
