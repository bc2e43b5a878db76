//! From sealed windows to what an adapter encodes: the batch of a push store, the page of a pull store. Pure.

use catalog::{Metric, MetricRevision, SealedMetric, Store, StoreSettings, WindowFacts};
use model::{Batch, Label, Page, PageSeries, Point, Series, Shape, Window};

/// Label that names the store on its health series, so that two stores of a project keep apart in one target.
const STORE_LABEL: &str = "store";

/// A metric sealed in a window, with what it was sealed by.
pub(crate) type Sealed<'a> = (&'a Metric, &'a MetricRevision, &'a SealedMetric);

/// What a push store gets of a page: its values. Counters are for those who read.
pub(crate) fn batch(page: Page) -> Batch {
    let points = page.series.into_iter().filter_map(|one| Some(Point { value: one.value?, series: one.series, shape: one.shape }));
    Batch { window: page.window, points: points.collect() }
}

/// What a pull store shows for a window: health first, then each metric's series in key order.
pub(crate) fn page(
    project: &str,
    store: &Store,
    settings: &StoreSettings,
    window: Window,
    facts: &WindowFacts,
    metrics: &[Sealed<'_>],
) -> Page {
    let failed = metrics.iter().filter(|(_, _, sealed)| sealed.failure.is_some()).count();
    let mut series = health(project, store, settings, window, facts, failed);
    for (metric, revision, sealed) in metrics {
        let path = settings.template.path(&settings.prefix, project, &metric.set, &metric.name);
        let label_names: Vec<&String> = revision.query.group.iter().map(|name| settings.label_names.get(name).unwrap_or(name)).collect();
        for one in &sealed.series {
            let group = label_names.iter().map(|name| (*name).clone()).zip(one.key.iter().cloned());
            let labels: Vec<(String, Label)> = group.chain(own_labels(settings)).collect();
            for (aggregate, cell) in revision.query.aggregates.iter().zip(&one.cells) {
                if cell.value.is_none() && cell.counter.is_none() {
                    continue;
                }
                series.push(PageSeries {
                    series: Series { path: path.clone(), aggregate: aggregate.name(), labels: labels.clone() },
                    shape: aggregate.shape(),
                    value: cell.value,
                    counter: cell.counter,
                });
            }
        }
    }
    Page { window, series }
}

/// The series by which users notice that a store, or the whole exporter, has gone silent.
fn health(project: &str, store: &Store, settings: &StoreSettings, window: Window, facts: &WindowFacts, failed: usize) -> Vec<PageSeries> {
    let path = health_path(project, settings);
    let one = |aggregate: &str, reason: Option<&str>, value: f64| {
        let mut labels: Vec<(String, Label)> = health_labels(store, settings).collect();
        if let Some(reason) = reason {
            labels.insert(1, ("reason".to_owned(), Label::Text(reason.to_owned())));
        }
        let series = Series { path: path.clone(), aggregate: aggregate.to_owned(), labels };
        PageSeries { series, shape: Shape::Health, value: Some(value), counter: None }
    };
    let mut series = vec![
        one("up", None, 1.0),
        one("coverage", None, facts.coverage),
        one("reports_accepted", None, facts.accepted as f64),
        one("metrics_failed", None, failed as f64),
        one("window_end_timestamp_seconds", None, window.end_secs() as f64),
    ];
    series.extend(facts.refused.iter().map(|(reason, count)| one("reports_refused", Some(reason), *count as f64)));
    series
}

/// Where a store's health series stand.
pub(crate) fn health_path(project: &str, settings: &StoreSettings) -> Vec<String> {
    [settings.prefix.as_str(), project, "health"].map(str::to_owned).into()
}

/// The labels of every health series of a store, the store's name first.
pub(crate) fn health_labels<'a>(store: &'a Store, settings: &'a StoreSettings) -> impl Iterator<Item = (String, Label)> {
    [(STORE_LABEL.to_owned(), Label::Text(store.name.clone()))].into_iter().chain(own_labels(settings))
}

/// The page of a store whose newest sealed window is too old to be shown: only its health is left.
pub(crate) fn stale(page: &Page) -> Page {
    let mut series: Vec<PageSeries> = page.series.iter().filter(|series| series.shape == Shape::Health).cloned().collect();
    for one in &mut series {
        if one.series.aggregate == "up" {
            one.value = Some(0.0);
        }
    }
    Page { window: page.window, series }
}

fn own_labels(settings: &StoreSettings) -> impl Iterator<Item = (String, Label)> {
    settings.labels.iter().map(|(name, value)| (name.clone(), Label::Text(value.clone())))
}
