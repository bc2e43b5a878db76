//! What a store would get were it saved as it stands: evaluated now, sealed in memory by the very steps that seal a window, and
//! recorded nowhere. It is for people before they save; nothing is delivered from it.

use crate::batch;
use crate::sealer;
use crate::series::SeriesState;
use crate::source::{ReportSource, Unreadable};
use catalog::{Catalog, CatalogError, Metric, MetricRevision, Project, SealedMetric, Store, WindowFacts};
use model::{Batch, Label, Page, Point, Series, Shape, Window};

/// Why there is no draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The reports cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A metric has no answer in that window.
    #[error("metric {metric} cannot be evaluated: {reason}")]
    Metric {
        /// As set/name.
        metric: String,
        /// What the evaluation says.
        reason: String,
    },
}

/// The page of a closed window. Metrics are taken in their newest revision; saved ones go on from their series as last sealed.
pub(crate) fn page(
    source: &impl ReportSource,
    catalog: &Catalog,
    project: &Project,
    store: &Store,
    metrics: &[&Metric],
    window: Window,
) -> Result<Page, DraftError> {
    let mut states: Vec<SeriesState> = Vec::with_capacity(metrics.len());
    for metric in metrics {
        states.push(match catalog.series_state(metric.id, window.period())? {
            Some(bytes) => SeriesState::decode(&bytes).ok_or(CatalogError::Damaged("series state"))?,
            None => SeriesState::default(),
        });
    }
    let asked: Vec<(&MetricRevision, &SeriesState)> = metrics.iter().map(|metric| metric.newest()).zip(&states).collect();
    let mut sealed: Vec<(&Metric, &MetricRevision, SealedMetric)> = Vec::with_capacity(metrics.len());
    for (metric, step) in metrics.iter().zip(sealer::steps(source, project.id, window, &asked)?) {
        let failed = |reason| DraftError::Metric { metric: format!("{}/{}", metric.set, metric.name), reason };
        let step = step.map_err(failed)?;
        let revision = metric.newest();
        let one = SealedMetric {
            revision: revision.id,
            failure: None,
            matched: step.matched,
            own: step.own,
            folded: step.folded,
            left_out: step.left_out,
            series: step.series,
        };
        sealed.push((metric, revision, one));
    }
    let sealed: Vec<batch::Sealed<'_>> = sealed.iter().map(|(metric, revision, one)| (*metric, *revision, one)).collect();
    let facts = WindowFacts { coverage: 1.0, accepted: source.accepted(project.id, window)?, refused: source.refused(project.id, window) };
    Ok(batch::page(&project.name, store, &store.newest().settings, window, &facts, &sealed))
}

/// One harmless point under the store's own prefix, to see whether the store takes it.
pub(crate) fn canary(project: &Project, store: &Store, window: Window) -> Batch {
    let settings = &store.newest().settings;
    let labels = batch::health_labels(store, settings).collect::<Vec<(String, Label)>>();
    let series = Series { path: batch::health_path(&project.name, settings), aggregate: "test".to_owned(), labels };
    Batch { window, points: vec![Point { series, value: 1.0, shape: Shape::Health }] }
}
