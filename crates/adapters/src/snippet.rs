//! Ready-made texts for a store's own side: configuration, queries, panels, checks, an alert for when Crashmeter falls silent. For
//! people to paste; nothing here is sent. What one kind of store needs is written in that adapter's file, by the spelling that sends;
//! here is what several of them share.

use crate::names;
use model::{Batch, Page, Point, Series, Shape};
use serde::Serialize;
use serde_json::{Value, json};

/// A text to paste.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// What it is for, for a heading.
    pub title: &'static str,
    /// What it is written in: `yaml`, `json`, `sh`, `promql`, `sql`...
    pub language: &'static str,
    /// The text.
    pub text: String,
}

impl Snippet {
    pub(crate) fn new(title: &'static str, language: &'static str, text: impl Into<String>) -> Snippet {
        Snippet { title, language, text: text.into() }
    }
}

/// The store that snippets are about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its name.
    pub store: &'a str,
    /// A window as the store gets it.
    pub page: &'a Page,
    /// Where the store reads us, for those who may know.
    pub url: Option<&'a str>,
    /// Whether passwords and tokens that a store shows to us are written out: for those who may see them.
    pub reveal: bool,
}

/// Title of the alert, in every store.
pub(crate) const SILENT: &str = "Crashmeter is silent";
/// Stands where a person puts the data source of their own Grafana.
const DATA_SOURCE: &str = "YOUR-DATA-SOURCE-UID";
/// Seconds that points may come later than their window ends, before silence is called so: evaluation, sending, the store's own delay.
const GRACE_SECS: u64 = 120;

impl<'a> About<'a> {
    /// The window as a push store encodes it.
    pub(crate) fn batch(&self) -> Batch {
        let point = |series: Series, shape, value: Option<f64>| Some(Point { series, shape, value: value? });
        let points = self.page.series.iter().filter_map(|one| point(one.series.clone(), one.shape, one.value)).collect();
        Batch { window: self.page.window, points }
    }

    /// Seconds from point to point.
    pub(crate) fn period_secs(&self) -> u64 {
        u64::from(self.page.window.period().secs())
    }

    /// After so many seconds without a point something is wrong: three windows, as a stale page is called stale.
    pub(crate) fn silent_secs(&self) -> u64 {
        3 * self.period_secs() + GRACE_SECS
    }

    /// Where the store reads us, or words in its place.
    pub(crate) fn url_or_words(&self, page_name: &str) -> String {
        self.url.map_or_else(|| format!("https://YOUR-CRASHMETER/pull/SECRET/{page_name}"), str::to_owned)
    }
}

/// The two series that the texts show: one of a metric (of the exporter's health where there is no metric yet), and `up`.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) metric: usize,
    pub(crate) up: usize,
}

/// Finds them; `None` for a window without health series, which no store gets.
pub(crate) fn shown<'a>(series: impl Iterator<Item = (&'a Series, Shape)> + Clone) -> Option<Shown> {
    let health = |aggregate| series.clone().position(|(one, shape)| shape == Shape::Health && one.aggregate == aggregate);
    let up = health("up")?;
    let metric = series.clone().position(|(_, shape)| shape != Shape::Health).or(health("reports_accepted")).unwrap_or(up);
    Some(Shown { metric, up })
}

/// The same of a batch.
pub(crate) fn shown_points(batch: &Batch) -> Option<Shown> {
    shown(batch.points.iter().map(|point| (&point.series, point.shape)))
}

/// A Grafana panel with one query: paste it into a dashboard's JSON, or over a panel's (Inspect, Panel JSON).
pub(crate) fn grafana_panel(about: &About<'_>, title: &str, data_source: &str, target: Value) -> Snippet {
    let mut target = target;
    target["refId"] = json!("A");
    let panel = json!({
        "type": "timeseries",
        "title": title,
        "datasource": {"type": data_source, "uid": DATA_SOURCE},
        "interval": format!("{}s", about.period_secs()),
        "fieldConfig": {"defaults": {"min": 0, "custom": {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal"}}}, "overrides": []},
        "options": {"legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]}},
        "gridPos": {"h": 9, "w": 24, "x": 0, "y": 0},
        "targets": [target],
    });
    Snippet::new("Grafana panel", "json", pretty(&panel))
}

/// A rule for Grafana's own alerting, as a provisioning file: `query` must give 1 while all is well.
pub(crate) fn grafana_alert(about: &About<'_>, query: Value) -> Snippet {
    let mut query = query;
    query["refId"] = json!("A");
    let expression = |of: Value| json!({"refId": of["refId"], "datasourceUid": "__expr__", "model": of});
    let data = [
        json!({"refId": "A", "datasourceUid": DATA_SOURCE, "relativeTimeRange": {"from": about.silent_secs(), "to": 0}, "model": query}),
        expression(json!({"refId": "B", "type": "reduce", "expression": "A", "reducer": "max", "settings": {"mode": "dropNN"}})),
        expression(
            json!({"refId": "C", "type": "threshold", "expression": "B", "conditions": [{"evaluator": {"type": "lt", "params": [1]}}]}),
        ),
    ];
    // JSON values are YAML values too.
    let data: String = data.iter().map(|one| format!("          - {one}\n")).collect();
    let text = format!(
        "apiVersion: 1\ngroups:\n  - orgId: 1\n    name: crashmeter\n    folder: Crashmeter\n    interval: 1m\n    rules:\n      - uid: {}\n        title: {}\n        condition: C\n        noDataState: Alerting\n        execErrState: Error\n        for: 0s\n        annotations:\n          summary: {}\n        data:\n{data}",
        json!(uid(about.store)),
        json!(format!("{SILENT} ({})", about.store)),
        json!(format!("No window has reached the store {} for {} s.", about.store, about.silent_secs())),
    );
    Snippet::new("Alert rule: Crashmeter is silent (Grafana)", "yaml", text)
}

/// An alert's identity in Grafana: at most 40 letters, digits, `-` and `_`
/// (<https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning/>).
fn uid(store: &str) -> String {
    const ROOM: usize = 40 - "crashmeter-silent-".len();
    let plain: String = store.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = match plain == store && plain.len() <= ROOM {
        true => plain,
        false => format!("{}{}", names::cut(&plain, ROOM - names::MARK_CHARS), names::mark(store.as_bytes())),
    };
    format!("crashmeter-silent-{name}")
}

/// The series of a check by hand, beside `up`: its name ends where the labels begin.
pub(crate) fn test_series(up: &str, labels_begin: &str) -> String {
    let (name, labels) = up.split_at(up.find(labels_begin).unwrap_or(up.len()));
    match name.strip_suffix("up") {
        Some(parent) => format!("{parent}test{labels}"),
        None => format!("{name}_test{labels}"),
    }
}

/// JSON for people.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A text as one word of a shell's command line.
pub(crate) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_the_command_line_is_one_word() {
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("it's; rm"), "'it'\\''s; rm'");
    }

    #[test]
    fn an_alerts_identity_is_short_and_plain() {
        assert_eq!(uid("main"), "crashmeter-silent-main");
        assert!(uid("a b").starts_with("crashmeter-silent-a-b_x"));
        assert_ne!(uid("a b"), uid("a.b"));
        assert_eq!(uid(&"x".repeat(99)).len(), 40);
    }
}
