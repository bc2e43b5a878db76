//! Where a hosted Graphite takes metrics: its pages show the URL for queries as often as the one for writing (metric-stores 4.1).

use crate::fields::Fields;
use url::Url;

/// Hosts that belong to one instance: there `/graphite` is for queries, and `/metrics` stands beside it.
const DEDICATED: &str = ".hosted-metrics.grafana.net";
/// Grafana's other hosts serve many instances.
const SHARED: &str = ".grafana.net";

/// Reads `url` and makes it the one to post to.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Url> {
    let mut url = fields.url("url")?;
    if url.query().is_some() {
        fields.fault("url", "must not hold a query; leave out ? and what follows");
        return None;
    }
    let path = url.path().trim_end_matches('/');
    let path = match path.strip_suffix("/graphite") {
        Some(before) if is_dedicated(&url) => format!("{before}/metrics"),
        _ if path.ends_with("/metrics") => path.to_owned(),
        _ => format!("{path}/metrics"),
    };
    url.set_path(&path);
    Some(url)
}

/// Whether the host serves many instances, so that the key alone does not say which.
pub(super) fn is_shared(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.ends_with(SHARED)) && !is_dedicated(url)
}

fn is_dedicated(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.ends_with(DEDICATED))
}
