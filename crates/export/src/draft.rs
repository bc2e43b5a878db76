//! What a store would get were it saved as it stands: evaluated now, sealed in memory by the very steps that seal a window, and
//! recorded nowhere. It is for people before they save; nothing is delivered from it.

use crate::batch;
use crate::sealer;
use crate::series::{Rules, SeriesState, zero_for_secs};
use crate::source::{ReportSource, Unreadable};
use catalog::{Catalog, CatalogError, Metric, MetricRevision, Project, SealedMetric, Store, WindowFacts};
use model::{Batch, Key, Label, Page, Point, Series, Shape, Top, Window};
use std::collections::BTreeSet;

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
    let mut states: Vec<(SeriesState, BTreeSet<Key>)> = Vec::with_capacity(metrics.len());
    for metric in metrics {
        let state = match catalog.series_state(metric.id, window.period())? {
            Some(bytes) => SeriesState::decode(&bytes).ok_or(CatalogError::Damaged("series state"))?,
            None => SeriesState::default(),
        };
        let remembered = state.remembered(&metric.newest().query);
        states.push((state, remembered));
    }
    let queries: Vec<_> = metrics.iter().zip(&states).map(|(metric, (_, remembered))| sealer::ask(metric.newest(), remembered)).collect();
    let tops = source.evaluate(project.id, window, &queries)?;
    let mut sealed: Vec<(&Metric, &MetricRevision, SealedMetric)> = Vec::with_capacity(metrics.len());
    for ((metric, (state, _)), top) in metrics.iter().zip(&states).zip(tops) {
        let failed = |reason| DraftError::Metric { metric: format!("{}/{}", metric.set, metric.name), reason };
        let one = seal(source, project, metric, &top.map_err(failed)?, state, window)?.map_err(failed)?;
        sealed.push((metric, metric.newest(), one));
    }
    let sealed: Vec<batch::Sealed<'_>> = sealed.iter().map(|(metric, revision, one)| (*metric, *revision, one)).collect();
    let facts = WindowFacts { coverage: 1.0, accepted: source.accepted(project.id, window)?, refused: source.refused(project.id, window) };
    Ok(batch::page(&project.name, store, &store.newest().settings, window, &facts, &sealed))
}

fn seal(
    source: &impl ReportSource,
    project: &Project,
    metric: &Metric,
    top: &Top,
    state: &SeriesState,
    window: Window,
) -> Result<Result<SealedMetric, String>, DraftError> {
    let revision = metric.newest();
    let rules = Rules {
        query: &revision.query,
        zero_for_secs: zero_for_secs(revision.zero_for, window.period()),
        series_budget: revision.series_budget,
    };
    let step = sealer::step(source, project.id, window, top, state, &rules)?;
    Ok(step.map(|step| SealedMetric {
        revision: revision.id,
        failure: None,
        matched: top.table.matched,
        own: step.own,
        folded: step.folded,
        left_out: step.left_out,
        series: step.series,
    }))
}

/// One harmless point under the store's own prefix, to see whether the store takes it.
pub(crate) fn canary(project: &Project, store: &Store, window: Window) -> Batch {
    let settings = &store.newest().settings;
    let labels = batch::health_labels(store, settings).collect::<Vec<(String, Label)>>();
    let series = Series { path: batch::health_path(&project.name, settings), aggregate: "test".to_owned(), labels };
    Batch { window, points: vec![Point { series, value: 1.0, shape: Shape::Health }] }
}
