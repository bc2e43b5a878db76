//! Backfills: fills windows from before a store, or a metric of it, began from stored reports, by the very steps that seal live
//! windows. It runs behind them: one window at a time, only while nothing live waits to be sealed, resting as long as it worked.
//!
//! What is sealed stays as it is: a metric that was sealed in a window is sent as sealed, one that the store was owed live is left
//! out. A metric of now is taken in the revision of then, and before its first in its first.

use crate::batch;
use crate::deliver::blocking;
use crate::sealer::{coverage, gap_until, seal_metrics};
use crate::series::SeriesState;
use crate::source::{ReportSource, Unreadable};
use catalog::{
    Backfill, BackfilledWindow, Catalog, CatalogError, Metric, MetricId, MetricRevision, SealedMetric, Snapshot, Store, StoreRevision,
    WindowFacts,
};
use model::{Batch, Shape, Stamp, Window};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Filled windows that may wait to be sent; then filling waits.
const OPEN_WINDOWS: u64 = 100;
/// How long it rests after a window at least, and when there is nothing it can do.
const REST: Duration = Duration::from_millis(2);
const WAIT: Duration = Duration::from_millis(100);
/// How often it looks for a backfill that nobody has told of.
const IDLE: Duration = Duration::from_secs(30);

/// Why a window cannot be filled just now.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("the catalog cannot take the window")]
    Catalog(#[from] CatalogError),
    #[error("the window cannot be evaluated")]
    Source(#[from] Unreadable),
}

/// What a look at the backfills came to.
enum Progress {
    /// Nothing is asked for.
    Nothing,
    /// Live windows, or the store, come first.
    Waits,
    /// A window was filled; `made_due` when the store has something to send for it.
    Filled { store: catalog::StoreId, made_due: bool },
}

/// Fills windows until the catalog is gone.
pub(crate) async fn run<S: ReportSource>(source: Arc<S>, catalog: Arc<Catalog>, told: impl Fn(catalog::StoreId) + Send) {
    let mut changes: watch::Receiver<Arc<Snapshot>> = catalog.changes();
    loop {
        changes.borrow_and_update();
        let (began, shared) = (Instant::now(), (source.clone(), catalog.clone()));
        let pause = match blocking(move || step(shared.0.as_ref(), &shared.1)).await {
            Ok(Progress::Nothing) => IDLE,
            Ok(Progress::Waits) => WAIT,
            Ok(Progress::Filled { store, made_due }) => {
                if made_due {
                    told(store);
                }
                tokio::time::sleep(began.elapsed().max(REST)).await;
                continue;
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot fill a window; trying again");
                WAIT
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Fills the next window of the oldest backfill that can go on.
fn step(source: &impl ReportSource, catalog: &Catalog) -> Result<Progress, FillError> {
    let running = catalog.running_backfills()?;
    if running.is_empty() {
        return Ok(Progress::Nothing);
    }
    let snapshot = catalog.snapshot();
    for backfill in running {
        let (Some(window), Some(store)) = (backfill.next_window(), snapshot.store_by_id(backfill.store)) else { continue };
        if backfill.open_windows >= OPEN_WINDOWS || !live_is_sealed(source, catalog, &snapshot, store, window)? {
            continue;
        }
        let filled = fill(source, catalog, &snapshot, store, &backfill, window)?;
        let went_on = catalog.seal_backfilled(&backfill, &filled, source.now())?;
        return Ok(Progress::Filled { store: store.id, made_due: went_on && filled.due > 0 });
    }
    Ok(Progress::Waits)
}

/// Whether live sealing has done what it has to in this window and in every window of the store's grid that has closed.
fn live_is_sealed(
    source: &impl ReportSource,
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    window: Window,
) -> Result<bool, CatalogError> {
    let closed = *source.durable_stamp().borrow();
    if window.end() > closed {
        return Ok(false);
    }
    let position = catalog.sealed_end(store.project, window.period())?.unwrap_or(0);
    if snapshot.stores_due(store.project, window).next().is_some() && position < window.end_secs() {
        return Ok(false);
    }
    let newest = window.period().window_at(closed);
    let before = newest.start_secs().checked_sub(u64::from(window.period().secs())).and_then(|start| Window::new(start, window.period()));
    let behind = before.is_some_and(|last| position < last.end_secs() && snapshot.stores_due(store.project, last).next().is_some());
    Ok(!behind)
}

/// The metrics of a backfill in a window, in the revisions that govern it. Which they are depends on nothing that may change while
/// the window waits to be sent.
fn metrics<'a>(
    snapshot: &'a Snapshot,
    store: &'a Store,
    backfill: &'a Backfill,
    window: Window,
) -> impl Iterator<Item = (&'a Metric, &'a MetricRevision)> {
    let live = live_revision(store, window);
    snapshot.metrics.iter().filter_map(move |metric| {
        let of_backfill = metric.project == store.project
            && backfill.sets.contains(&metric.set)
            && metric.revisions[0].begins <= backfill.created
            && metric.deleted.is_none_or(|deleted| deleted > backfill.created);
        let in_force = metric.in_force(window.start());
        let owed_live = in_force.is_some() && live.is_some_and(|revision| revision.settings.sets.contains(&metric.set));
        (of_backfill && !owed_live).then(|| (metric, in_force.unwrap_or(&metric.revisions[0])))
    })
}

/// The store's revision by which it was owed the window live, if it was.
fn live_revision(store: &Store, window: Window) -> Option<&StoreRevision> {
    store.in_force(window.start()).filter(|revision| revision.settings.enabled && revision.settings.period == window.period())
}

/// Evaluates what is missing of a window, in memory.
fn fill(
    source: &impl ReportSource,
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    backfill: &Backfill,
    window: Window,
) -> Result<BackfilledWindow, FillError> {
    let mut filled = BackfilledWindow { project: store.project, window, facts: None, metrics: Vec::new(), states: Vec::new(), due: 0 };
    let downtimes = catalog.downtimes(window.start())?;
    // There was no project to send reports to yet, or its reports are gone: a 0 would be a lie.
    let unborn = snapshot.projects.iter().any(|project| project.id == store.project && window.start() < project.created);
    if unborn || window.start() <= source.given_up_until() {
        return Ok(filled);
    }
    if gap_until(&downtimes, window).is_some() || catalog.in_gap(store.project, window)? {
        return Ok(filled);
    }
    let facts = match catalog.window_facts(store.project, window)? {
        Some(facts) => facts,
        None => {
            let facts = WindowFacts {
                coverage: coverage(&downtimes, window),
                accepted: source.accepted(store.project, window)?,
                refused: source.refused(store.project, window),
            };
            filled.facts = Some(facts.clone());
            facts
        }
    };
    let mut sealed: Vec<(&Metric, &MetricRevision, SealedMetric)> = Vec::new();
    let mut missing: Vec<(&Metric, &MetricRevision)> = Vec::new();
    for (metric, revision) in metrics(snapshot, store, backfill, window) {
        match catalog.sealed_metric(revision.id, window)? {
            Some(one) => {
                // As in live sealing, what follows a time in which another store had it begins anew.
                filled.states.push((metric.id, None));
                sealed.push((metric, revision, one));
            }
            // Its points are past their keeping: they cannot be had again, and are not made anew.
            None if catalog.is_metric_sealed(revision.id, window)? => filled.states.push((metric.id, None)),
            None => missing.push((metric, revision)),
        }
    }
    let states = missing.iter().map(|(metric, _)| state(catalog, backfill, metric.id)).collect::<Result<Vec<_>, _>>()?;
    let asked: Vec<_> = missing.iter().zip(&states).map(|((_, revision), state)| (*revision, state)).collect();
    let outcomes = seal_metrics(source, store.project, window, &asked)?;
    for ((metric, revision), (one, next)) in missing.into_iter().zip(outcomes) {
        filled.states.push((metric.id, Some(next.encode())));
        filled.metrics.push(one.clone());
        sealed.push((metric, revision, one));
    }
    filled.due = batch(snapshot, store, window, &facts, &sealed).points.len() as u64;
    Ok(filled)
}

fn state(catalog: &Catalog, backfill: &Backfill, metric: MetricId) -> Result<SeriesState, CatalogError> {
    match catalog.backfill_state(backfill.id, metric)? {
        Some(bytes) => SeriesState::decode(&bytes).ok_or(CatalogError::Damaged("series state")),
        None => Ok(SeriesState::default()),
    }
}

/// What the store gets of a filled window: with its health series only where it got none live.
fn batch(
    snapshot: &Snapshot,
    store: &Store,
    window: Window,
    facts: &WindowFacts,
    sealed: &[(&Metric, &MetricRevision, SealedMetric)],
) -> Batch {
    let live = live_revision(store, window);
    let settings = &live.unwrap_or_else(|| store.newest()).settings;
    let project = snapshot.projects.iter().find(|project| project.id == store.project).map_or("", |project| &project.name);
    let by_name: Vec<batch::Sealed<'_>> = sealed.iter().map(|(metric, revision, one)| (*metric, *revision, one)).collect();
    let mut page = batch::page(project, store, settings, window, facts, &by_name);
    if live.is_some() || sealed.is_empty() {
        page.series.retain(|series| series.shape != Shape::Health);
    }
    if sealed.is_empty() {
        page.series.clear();
    }
    batch::batch(page)
}

/// The points of a filled window as they were sealed.
pub(crate) fn sealed_batch(
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    backfill: i64,
    window: Window,
) -> Result<Batch, CatalogError> {
    let backfill = catalog.backfill(backfill)?.ok_or(CatalogError::Damaged("backfill"))?;
    let facts = catalog.window_facts(store.project, window)?.ok_or(CatalogError::Damaged("sealed window"))?;
    let mut sealed = Vec::new();
    for (metric, revision) in metrics(snapshot, store, &backfill, window) {
        if let Some(one) = catalog.sealed_metric(revision.id, window)? {
            sealed.push((metric, revision, one));
        }
    }
    // Evaluated metrics came after those that were sealed before; the order of the names is the same either way.
    Ok(batch(snapshot, store, window, &facts, &sealed))
}

/// The windows that may be filled for a store: whole ones of its period that have closed.
pub(crate) fn bounds(store: &Store, from_secs: u64, to_secs: u64, now: Stamp) -> (u64, u64) {
    let period = store.newest().settings.period;
    let from = period.first_window_from(Stamp::from_secs(from_secs)).start_secs();
    (from, period.window_at(Stamp::from_secs(to_secs).min(now)).start_secs())
}
