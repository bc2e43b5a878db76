//! Where an InfluxDB takes lines: which version a URL speaks, and the query it must carry.

use crate::fields::Fields;
use crate::outgoing;
use url::Url;

/// Which version's write API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// `/write`.
    V1,
    /// `/api/v2/write`.
    V2,
    /// `/api/v3/write_lp`.
    V3,
}

/// Paths by which a flavour is known (metric-stores 6.1). The longest match decides.
const PATHS: [(&str, Flavour); 3] = [("/api/v2/write", Flavour::V2), ("/api/v3/write_lp", Flavour::V3), ("/write", Flavour::V1)];

/// A write URL, complete but for credentials.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) flavour: Flavour,
    pub(super) url: Url,
}

impl Endpoint {
    /// Reads `url`, `db`, `org` and `bucket`. The user's own query parameters stay, but for the precision.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Endpoint> {
        let (db, org, bucket) = (fields.text("db"), fields.text("org"), fields.text("bucket"));
        let mut url = fields.url("url")?;
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        if query.iter().any(|(name, _)| matches!(name.as_str(), "u" | "p")) {
            fields.fault("url", "must not hold u or p in its query; put them into username and password");
            return None;
        }
        for name in ["db", "org", "orgID", "bucket", "rp"] {
            if query.iter().filter(|(given, _)| given == name).count() > 1 {
                fields.fault("url", format!("names {name} more than once; leave one"));
                return None;
            }
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let flavour = match PATHS.iter().find(|(end, _)| path.ends_with(end)) {
            Some((_, flavour)) => {
                url.set_path(&path);
                *flavour
            }
            None => {
                let flavour = if org.is_some() || bucket.is_some() { Flavour::V2 } else { Flavour::V1 };
                let end = PATHS.iter().find(|(_, known)| *known == flavour).map_or("", |(end, _)| end);
                url.set_path(&format!("{path}{end}"));
                flavour
            }
        };
        let mut sound = true;
        for (name, given) in [("db", db), ("org", org), ("bucket", bucket)] {
            let belongs = (name == "db") != (flavour == Flavour::V2);
            let in_url =
                query.iter().find(|(known, _)| known == name || (name == "org" && known == "orgID")).map(|(_, value)| value.clone());
            let fault = match (in_url, given) {
                (Some(known), Some(given)) if known != given => {
                    format!("differs from the one in the url, {known:?}; leave one of them out")
                }
                (None, None) if belongs => "is missing, and the url does not name it".to_owned(),
                (None, Some(_)) if !belongs => format!("is not taken by {}; leave it out, or give that version's url", spoken(flavour)),
                (None, Some(given)) => {
                    query.push((name.to_owned(), given));
                    continue;
                }
                _ => continue,
            };
            fields.fault(name, fault);
            sound = false;
        }
        query.retain(|(name, _)| name != "precision");
        // Spelt wrongly, version 1 takes it for nanoseconds without a word; left out, version 3 guesses by magnitude.
        query.push(("precision".to_owned(), if flavour == Flavour::V3 { "second" } else { "s" }.to_owned()));
        url.query_pairs_mut().clear().extend_pairs(&query);
        sound.then_some(Endpoint { flavour, url })
    }

    /// What the write URL says of `db`, `org` or `bucket`.
    pub(super) fn parameter(&self, name: &str) -> String {
        self.url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    /// The URL of another path of the same server, behind the same prefix.
    pub(super) fn asking(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let prefix = PATHS.iter().find_map(|(end, _)| url.path().strip_suffix(end)).unwrap_or_default().to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url.set_query(None);
        url
    }

    /// Scheme, host and port.
    pub(super) fn target(&self) -> String {
        outgoing::target(&self.url)
    }

    /// Whether one bad line makes the server write none of a body (metric-stores 6.3).
    pub(super) fn refuses_whole_bodies(&self) -> bool {
        let all_or_nothing = self.url.query_pairs().any(|(name, value)| name == "accept_partial" && value == "false");
        self.flavour == Flavour::V2 || (self.flavour == Flavour::V3 && all_or_nothing)
    }
}

fn spoken(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::V1 => "InfluxDB 1",
        Flavour::V2 => "InfluxDB 2",
        Flavour::V3 => "InfluxDB 3",
    }
}
