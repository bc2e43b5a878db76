//! Which of the two text formats a reader of a page prefers.

/// What a reader accepts. OpenMetrics is rendered only when it is asked for by name; everything else, an absent header too,
/// gets text 0.0.4, which every reader takes (metric-stores 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// OpenMetrics 1.0 is preferred over text.
    pub openmetrics: bool,
}

impl Accept {
    /// Reads an `Accept` header with its q values; parameters other than `q` do not matter.
    pub fn read(header: Option<&str>) -> Accept {
        let (mut openmetrics, mut text) = (0.0, 0.0);
        for one in header.unwrap_or("").split(',') {
            let mut parts = one.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("").to_ascii_lowercase();
            let q: f64 = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
            match kind.as_str() {
                "application/openmetrics-text" => openmetrics = f64::max(openmetrics, q),
                "text/plain" => text = f64::max(text, q),
                _ => {}
            }
        }
        Accept { openmetrics: openmetrics > 0.0 && openmetrics >= text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_readers_get_what_they_prefer() {
        for (header, openmetrics) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), true),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), false),
            (Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5"), true),
            (Some("application/openmetrics-text;q=0.3,text/plain;q=0.9"), false),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("rubbish;;q=x,,"), false),
        ] {
            assert_eq!(Accept::read(header).openmetrics, openmetrics, "{header:?}");
        }
    }
}
