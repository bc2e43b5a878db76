//! What an adapter for a store that reads from us can do, and who may read.

use crate::description::Description;
use crate::fields::Fields;
use crate::push::{Excluded, Note};
use crate::snippet::{About, Snippet};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Page, Period, Secret};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A store that reads a page of the newest window.
pub trait Pull: Send + Sync {
    /// What the adapter says about itself.
    fn description(&self) -> &'static Description;

    /// The last part of its address, behind the secret.
    fn page_name(&self) -> &'static str;

    /// A document beside the page that tells a reader where and how often to read: the last part of its address, and its text.
    fn discovery(&self, _url: &str, _period: Period, _store: &str) -> Option<(&'static str, Value)> {
        None
    }

    /// The page. The same page and preferences give the same bytes.
    fn render(&self, page: &Page, accept: &Accept) -> Rendered;

    /// What a reader must show, beside the secret URL.
    fn credentials(&self) -> &Credentials;

    /// Texts to paste on the store's side, about these very series.
    fn snippets(&self, about: &About<'_>) -> Vec<Snippet>;

    /// Whether the text of an `Authorization` header, if there was one, lets the reader in.
    fn authorises(&self, authorization: Option<&str>) -> bool {
        self.credentials().authorises(authorization)
    }

    /// The text of `WWW-Authenticate` for a reader who is not let in.
    fn challenge(&self) -> &'static str {
        match self.credentials() {
            Credentials::Bearer(_) => r#"Bearer realm="crashmeter""#,
            Credentials::Basic { .. } | Credentials::None => r#"Basic realm="crashmeter", charset="UTF-8""#,
        }
    }
}

/// A page in a store's own format.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The `Content-Type` of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Samples on the page.
    pub samples: u64,
    /// What was left out, by its number on the page.
    pub excluded: Vec<Excluded>,
    /// Series that are not spelt as a reader would expect; at most [`crate::NOTES_MAX`].
    pub notes: Vec<Note>,
}

/// What a reader must show, beside the secret URL, or what we show to a store.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// Nothing: the URL is enough.
    None,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
}

impl Credentials {
    /// Reads `username`, `password` and `bearer`; `None` after a fault.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Credentials> {
        let credentials = match (fields.text("username"), fields.secret("password"), fields.secret("bearer")) {
            (None, None, None) => Ok(Credentials::None),
            (None, None, Some(token)) => Ok(Credentials::Bearer(token)),
            (Some(username), Some(password), None) if !username.contains(':') => Ok(Credentials::Basic { username, password }),
            (Some(_), Some(_), None) => Err(("username", "must not hold a colon: HTTP ends a user name there")),
            (Some(_), None, None) => Err(("password", "is missing; it belongs to the user name")),
            (None, Some(_), None) => Err(("username", "is missing; it belongs to the password")),
            (_, _, Some(_)) => Err(("bearer", "cannot stand beside a user name and password; give one or the other")),
        };
        credentials.map_err(|(field, detail)| fields.fault(field, detail)).ok()
    }

    /// The text of the `Authorization` header that shows them.
    pub(crate) fn header(&self) -> Option<Secret> {
        match self {
            Credentials::None => None,
            Credentials::Basic { username, password } => {
                Some(Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal())))))
            }
            Credentials::Bearer(token) => Some(Secret::new(format!("Bearer {}", token.reveal()))),
        }
    }

    /// Compares without telling by its duration how much of a guess was right.
    fn authorises(&self, authorization: Option<&str>) -> bool {
        let (scheme, shown) = authorization.and_then(|text| text.trim().split_once(' ')).unwrap_or_default();
        match self {
            Credentials::None => true,
            Credentials::Bearer(token) => scheme.eq_ignore_ascii_case("bearer") && same(shown.trim().as_bytes(), token.reveal().as_bytes()),
            Credentials::Basic { username, password } => {
                let expected = format!("{username}:{}", password.reveal());
                let shown = STANDARD.decode(shown.trim()).unwrap_or_default();
                scheme.eq_ignore_ascii_case("basic") && same(&shown, expected.as_bytes())
            }
        }
    }
}

/// Digests have one length, so not even the length of the expected text shows.
fn same(shown: &[u8], expected: &[u8]) -> bool {
    Sha256::digest(shown).as_slice().ct_eq(Sha256::digest(expected).as_slice()).into()
}

/// What formats a reader takes: its `Accept` header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accept(Vec<MediaRange>);

/// One entry of an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MediaRange {
    /// `type/subtype`, lower case.
    pub(crate) kind: String,
    /// The `version` parameter.
    pub(crate) version: Option<String>,
    /// Weight from 0 to 1.
    pub(crate) q: f32,
}

impl Accept {
    /// Reads the header, if there was one. What cannot be read is passed over: a preference is no demand.
    pub fn read(header: Option<&str>) -> Accept {
        Accept(header.unwrap_or_default().split(',').filter_map(read_range).collect())
    }

    /// The greatest weight among the entries that match.
    pub(crate) fn weight(&self, matches: impl Fn(&MediaRange) -> bool) -> f32 {
        self.0.iter().filter(|range| matches(range)).map(|range| range.q).fold(0.0, f32::max)
    }
}

fn read_range(entry: &str) -> Option<MediaRange> {
    let mut parts = entry.split(';').map(str::trim);
    let kind = parts.next().filter(|kind| kind.contains('/'))?.to_ascii_lowercase();
    let mut range = MediaRange { kind, version: None, q: 1.0 };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => range.q = value.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))?,
            "version" => range.version = Some(value.trim().trim_matches('"').to_owned()),
            _ => {}
        }
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read() {
        let basic = Credentials::Basic { username: "u".into(), password: Secret::new("p:w") };
        let bearer = Credentials::Bearer(Secret::new("t0k"));
        for (header, with_none, with_basic, with_bearer) in [
            (None, true, false, false),
            (Some(""), true, false, false),
            (Some("Basic dTpwOnc="), true, true, false),
            (Some("basic  dTpwOnc= "), true, true, false),
            (Some("Basic dTpwOnc"), true, false, false),
            (Some("Basic dTpwOng="), true, false, false),
            (Some("Basic"), true, false, false),
            (Some("Bearer dTpwOnc="), true, false, false),
            (Some("Bearer t0k"), true, false, true),
            (Some("bearer t0k"), true, false, true),
            (Some("Bearer t0K"), true, false, false),
            (Some("Bearer "), true, false, false),
            (Some("t0k"), true, false, false),
            (Some("Digest t0k"), true, false, false),
        ] {
            let let_in = [&Credentials::None, &basic, &bearer].map(|credentials| credentials.authorises(header));
            assert_eq!(let_in, [with_none, with_basic, with_bearer], "{header:?}");
        }
    }

    #[test]
    fn accept_headers_are_read_leniently() {
        let accept = Accept::read(Some(
            "application/openmetrics-text;version=1.0.0;q=0.6, TEXT/plain;version=\"0.0.4\" ; q=0.3,*/*;q=2,nonsense,,a/b;q=x",
        ));
        let versions: Vec<_> = accept.0.iter().map(|range| (range.kind.as_str(), range.version.as_deref(), range.q)).collect();
        assert_eq!(versions, [("application/openmetrics-text", Some("1.0.0"), 0.6), ("text/plain", Some("0.0.4"), 0.3)]);
        assert_eq!(Accept::read(None), Accept::default());
    }
}
