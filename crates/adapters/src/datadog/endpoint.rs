//! Where Datadog takes requests: a site of the vendor's, or the base URL of something that takes the same requests.

use crate::fields::Fields;
use url::Url;

/// The sites that the vendor's interface description lists (metric-stores 2.1).
pub(super) const SITES: [&str; 9] = [
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "uk1.datadoghq.com",
    "datadoghq.eu",
    "ddog-gov.com",
    "us2.ddog-gov.com",
];
/// Ends of a URL that people copy from the vendor's documents; ours are added to what stands before. The longest match decides.
const API_PATHS: [&str; 6] = ["/api/v2/series", "/api/v1/series", "/api/v1/validate", "/api/v2", "/api/v1", "/api"];

/// A base URL.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    /// What stands before the paths of the API.
    pub(super) base: Url,
    /// The field that says so.
    pub(super) field: &'static str,
}

impl Endpoint {
    /// Reads `url`, or `site` where it is empty.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Endpoint> {
        let site = fields.choice("site");
        let Some(mut base) = fields.url("url") else {
            let base = Url::parse(&format!("https://api.{site}")).expect("the vendor's own host");
            return Some(Endpoint { base, field: "site" });
        };
        if base.query().is_some() {
            fields.fault("url", "must not hold a query; leave out ? and what follows, and put the key into api_key");
            return None;
        }
        let host = base.host_str().unwrap_or_default();
        if let Some(site) = SITES.iter().find(|site| host.strip_prefix("app.").unwrap_or(host) == **site) {
            fields.fault("url", format!("is where people look at Datadog; leave it out and choose the site {site}"));
            return None;
        }
        let path = base.path().trim_end_matches('/');
        let path = API_PATHS.iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path).trim_end_matches('/').to_owned();
        base.set_path(&path);
        Some(Endpoint { base, field: "url" })
    }

    /// The URL of a path of the API.
    pub(super) fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}
