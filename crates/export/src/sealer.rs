//! Seals windows as they close: evaluates once for all metrics due, hands the points to the catalog in one transaction.
//!
//! A window is closed when the durable stamp has passed its end: a fact, so there is no grace to wait for late reports. The
//! windows of a grid (project and period) are sealed strictly in order, after any outage from where the position stands.

use crate::batch;
use crate::deliver;
use crate::series::{Rules, Seating, SeriesState, Step, newcomers};
use crate::source::{ReportSource, SourceStopped, Unreadable};
use catalog::{Catalog, CatalogError, Metric, MetricId, MetricRevision, SealedMetric, SealedWindow, Snapshot, WindowFacts};
use model::{Key, Most, Parted, Period, ProjectId, Query, Stamp, Top, Window};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// The log gets a sign of life this often, so that after a crash the time in which nothing was accepted is known this well.
const HEARTBEAT_MICROS: u64 = 1_000_000;
/// Between tries when the catalog's disk refuses a seal; nothing is lost meanwhile, windows only come late.
const RETRY: Duration = Duration::from_secs(1);
/// How often points past their keeping are dropped.
const DROP_EVERY_SECS: u64 = 600;
/// Points are kept for the longest horizon or 7 days, whichever is longer (design.md 3).
const POINTS_KEPT_SECS: u64 = 7 * 86_400;

/// Counts and times of sealing, for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealFigures {
    /// Windows sealed since the start.
    pub windows: u64,
    /// Points in them.
    pub points: u64,
    /// Metrics sealed as failed.
    pub metrics_failed: u64,
    /// Gaps recorded.
    pub gaps: u64,
    /// Microseconds from the end of the last sealed window to the end of its seal.
    pub last_lag_micros: u64,
}

/// Why a window cannot be sealed just now.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("the catalog cannot take the seal")]
    Catalog(#[from] CatalogError),
    #[error("the window cannot be evaluated")]
    Source(#[from] Unreadable),
}

/// A metric's series on one grid as last sealed.
struct Known {
    state: SeriesState,
    /// End of the last window in which the metric was sealed there, Unix seconds.
    sealed_until: Option<u64>,
}

/// Seals until the source stops.
pub(crate) struct Sealer<S> {
    source: Arc<S>,
    catalog: Arc<Catalog>,
    figures: watch::Sender<SealFigures>,
    /// End of the last sealed window of each grid, Unix seconds.
    positions: HashMap<(ProjectId, Period), Option<u64>>,
    states: HashMap<(MetricId, Period), Known>,
    dropped_at_secs: u64,
}

impl<S: ReportSource> Sealer<S> {
    pub(crate) fn new(source: Arc<S>, catalog: Arc<Catalog>, figures: watch::Sender<SealFigures>) -> Sealer<S> {
        Sealer { source, catalog, figures, positions: HashMap::new(), states: HashMap::new(), dropped_at_secs: 0 }
    }

    pub(crate) async fn run(mut self) -> SourceStopped {
        let mut changes = self.catalog.changes();
        let durable = self.source.durable_stamp();
        loop {
            // The snapshot is asked for after the durable stamp: a change stamped before a closed window's start is in it.
            let closed = *durable.borrow();
            let (sealer, outcome) = blocking(self, move |sealer| sealer.seal_closed(closed)).await;
            self = sealer;
            let next_end = match outcome {
                Ok(next_end) => next_end,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot seal; trying again");
                    // What is in memory may be ahead of what was committed: read it again.
                    self.positions.clear();
                    self.states.clear();
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let heartbeat = closed.plus_micros(HEARTBEAT_MICROS);
            let wake = next_end.map_or(heartbeat, |end| end.min(heartbeat));
            let now = self.source.now();
            if now < wake {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_micros(wake.since(now))) => {}
                    changed = changes.changed() => if changed.is_err() { return SourceStopped },
                }
            } else if *durable.borrow() < wake && self.source.tick().await.is_err() {
                return SourceStopped;
            }
        }
    }

    /// Seals every window that ends at or before `closed`, oldest end first. Returns the end of the next window to close.
    fn seal_closed(&mut self, closed: Stamp) -> Result<Option<Stamp>, SealError> {
        loop {
            let snapshot = self.catalog.snapshot();
            let mut next: Option<(ProjectId, Window)> = None;
            let mut unsealed_from: Option<Stamp> = None;
            for ((project, period), changes) in snapshot.grids() {
                let position = match self.positions.get(&(project, period)) {
                    Some(position) => *position,
                    None => {
                        let position = self.catalog.sealed_end(project, period)?;
                        self.positions.insert((project, period), position);
                        position
                    }
                };
                let window = next_window(&snapshot, project, period, position, &changes);
                unsealed_from = [unsealed_from, window.map(Window::start)].into_iter().flatten().min();
                next = [next, window.map(|window| (project, window))]
                    .into_iter()
                    .flatten()
                    .min_by_key(|(project, window)| (window.end(), *project));
            }
            let Some((project, window)) = next else {
                // A metric or store made later begins after `closed`: no window before it will ever be sealed.
                self.source.pin(closed);
                return Ok(None);
            };
            if window.end() > closed {
                self.source.pin(unsealed_from.unwrap_or_else(|| window.start()));
                self.drop_points(&snapshot, closed)?;
                return Ok(Some(window.end()));
            }
            let sealed_end = self.seal(&snapshot, project, window)?;
            self.positions.insert((project, window.period()), Some(sealed_end));
        }
    }

    /// Seals one window, or records the gap it begins. Returns where the grid then stands.
    fn seal(&mut self, snapshot: &Snapshot, project: ProjectId, window: Window) -> Result<u64, SealError> {
        let downtimes = self.catalog.downtimes(window.start())?;
        if let Some(until) = gap_until(&downtimes, window) {
            self.catalog.record_gap(project, window, until)?;
            self.figures.send_modify(|figures| figures.gaps += 1);
            tracing::warn!(project = project.0, from = window.start_secs(), until, "nothing was accepted: recorded as a gap");
            return Ok(until);
        }
        let stores: Vec<_> = snapshot.stores_due(project, window).collect();
        let sets: HashSet<&String> = stores.iter().flat_map(|(_, revision)| &revision.settings.sets).collect();
        let sets: Vec<String> = sets.into_iter().cloned().collect();
        let metrics: Vec<(&Metric, &MetricRevision)> = snapshot.metrics_due(project, window, &sets).collect();
        let changes = snapshot.attachment_changes(project);
        let mut is_unbroken = Vec::with_capacity(metrics.len());
        for (metric, _) in &metrics {
            let until = self.known(metric.id, window.period())?.sealed_until;
            is_unbroken.push(until.is_some_and(|until| due_since(snapshot, metric, until, window, &changes)));
        }
        let born_anew = SeriesState::default();
        let state = |(metric, is_unbroken): (&Metric, bool)| match is_unbroken {
            true => &self.states[&(metric.id, window.period())].state,
            false => &born_anew,
        };
        let asked: Vec<(&MetricRevision, &SeriesState)> =
            metrics.iter().zip(is_unbroken).map(|((metric, revision), is_unbroken)| (*revision, state((metric, is_unbroken)))).collect();
        let outcomes = seal_metrics(self.source.as_ref(), project, window, &asked)?;

        let mut sealed = SealedWindow {
            project,
            window,
            facts: WindowFacts {
                coverage: coverage(&downtimes, window),
                accepted: self.source.accepted(project, window)?,
                refused: self.source.refused(project, window),
            },
            metrics: Vec::with_capacity(metrics.len()),
            states: Vec::new(),
            due: Vec::new(),
        };
        let mut changed: Vec<(MetricId, SeriesState)> = Vec::new();
        for ((metric, _), (one, next)) in metrics.iter().zip(outcomes) {
            if let Some(reason) = &one.failure {
                tracing::warn!(metric = metric.name, window = %window, reason, "sealed as failed");
            }
            if next != self.states[&(metric.id, window.period())].state {
                sealed.states.push((metric.id, next.encode()));
                changed.push((metric.id, next));
            }
            sealed.metrics.push(one);
        }
        let by_name: Vec<batch::Sealed<'_>> =
            metrics.iter().zip(&sealed.metrics).map(|((metric, revision), one)| (*metric, *revision, one)).collect();
        for (store, revision) in &stores {
            if !adapters::is_push(&revision.settings.adapter) {
                continue;
            }
            let of_store: Vec<_> = by_name.iter().filter(|(metric, ..)| revision.settings.sets.contains(&metric.set)).copied().collect();
            // Names do not change how many points there are, so any project name gives the same count.
            let points = batch::batch(batch::page("", store, &revision.settings, window, &sealed.facts, &of_store)).points.len();
            sealed.due.push((store.id, points as u64));
        }
        let now = self.source.now();
        self.catalog.seal(&sealed, now)?;
        for (metric, _) in &metrics {
            self.known(metric.id, window.period())?.sealed_until = Some(window.end_secs());
        }
        for (metric, state) in changed {
            self.known(metric, window.period())?.state = state;
        }
        self.figures.send_modify(|figures| {
            figures.windows += 1;
            figures.points += sealed.metrics.iter().flat_map(|metric| &metric.series).map(|series| series.cells.len() as u64).sum::<u64>();
            figures.metrics_failed += sealed.metrics.iter().filter(|metric| metric.failure.is_some()).count() as u64;
            figures.last_lag_micros = self.source.now().since(window.end());
        });
        tracing::info!(
            project = project.0,
            window = window.start_secs(),
            period = window.period().secs(),
            reports = sealed.facts.accepted,
            metrics = sealed.metrics.len(),
            "window sealed"
        );
        Ok(window.end_secs())
    }

    fn known(&mut self, metric: MetricId, period: Period) -> Result<&mut Known, CatalogError> {
        Ok(match self.states.entry((metric, period)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let state = match self.catalog.series_state(metric, period)? {
                    Some(bytes) => SeriesState::decode(&bytes).ok_or(CatalogError::Damaged("series state"))?,
                    None => SeriesState::default(),
                };
                place.insert(Known { state, sealed_until: self.catalog.metric_sealed_until(metric, period)? })
            }
        })
    }

    fn drop_points(&mut self, snapshot: &Snapshot, now: Stamp) -> Result<(), CatalogError> {
        if now.secs() < self.dropped_at_secs + DROP_EVERY_SECS {
            return Ok(());
        }
        self.dropped_at_secs = now.secs();
        let horizon = snapshot.stores.iter().map(|store| store.newest().settings.horizon_secs).max().unwrap_or(0);
        self.catalog.drop_points(now.secs().saturating_sub(horizon.max(POINTS_KEPT_SECS)))?;
        Ok(())
    }
}

/// Seals metrics in memory, each with the state that its series were left in: what is sealed, and the state to go on from.
pub(crate) fn seal_metrics(
    source: &impl ReportSource,
    project: ProjectId,
    window: Window,
    metrics: &[(&MetricRevision, &SeriesState)],
) -> Result<Vec<(SealedMetric, SeriesState)>, Unreadable> {
    let outcome = |((revision, state), step): (&(&MetricRevision, &SeriesState), Result<Step, String>)| {
        let empty = SealedMetric { revision: revision.id, failure: None, matched: 0, own: 0, folded: 0, left_out: 0, series: Vec::new() };
        match step {
            Ok(Step { series, matched, own, folded, left_out, next }) => {
                (SealedMetric { matched, own, folded, left_out, series, ..empty }, next)
            }
            Err(reason) => (SealedMetric { failure: Some(reason), ..empty }, (*state).clone()),
        }
    };
    Ok(metrics.iter().zip(steps(source, project, window, metrics)?).map(outcome).collect())
}

/// Evaluates metrics: who holds a seat is decided as soon as a metric's groups are known, and what is beyond its budget is evaluated while
/// their reports are at hand, where all of them are in memory together.
pub(crate) fn steps(
    source: &impl ReportSource,
    project: ProjectId,
    window: Window,
    metrics: &[(&MetricRevision, &SeriesState)],
) -> Result<Vec<Result<Step, String>>, Unreadable> {
    let remembered: Vec<BTreeSet<Key>> = metrics.iter().map(|(revision, state)| state.remembered(&revision.query)).collect();
    let most = |((revision, _), also): (&(&MetricRevision, _), _)| Most { groups: newcomers(revision.series_budget), also };
    let queries: Vec<(&Query, Most<'_>)> = metrics.iter().zip(&remembered).map(|both| (&both.0.0.query, most(both))).collect();
    let rules: Vec<Rules<'_>> = metrics.iter().map(|(revision, _)| Rules::of(revision, window.period())).collect();
    let seatings: Vec<OnceLock<Seating>> = metrics.iter().map(|_| OnceLock::new()).collect();
    let keep = |metric: usize, top: &Top| seatings[metric].get_or_init(|| metrics[metric].1.seat(top, &rules[metric], window)).kept();
    let answers = source.evaluate(project, window, &queries, &keep)?;
    assert_eq!(answers.len(), queries.len(), "a source answers every query");
    let step = |((answer, seating), rules): ((Result<Parted, String>, OnceLock<Seating>), &Rules<'_>)| {
        let Parted { top, rest } = answer?;
        let seating = seating.into_inner().expect("a source asks what is kept of every answer");
        Ok(seating.seal(&top.table, rest.as_ref(), rules, window))
    };
    Ok(answers.into_iter().zip(seatings).zip(&rules).map(step).collect())
}

/// Whether the metric was due in every window of the grid from `since_secs` up to the window. Where it was not, its set was
/// detached or the period another one: what was counted before has ended, and its counters are born anew.
fn due_since(snapshot: &Snapshot, metric: &Metric, since_secs: u64, window: Window, changes: &[Stamp]) -> bool {
    let due = |window: Window| {
        let mut stores = snapshot.stores_due(metric.project, window);
        stores.any(|(_, revision)| revision.settings.sets.contains(&metric.set))
    };
    // Between two changes nothing starts or ends, so the first window after each stands for all up to the next.
    let since = Stamp::from_secs(since_secs);
    let begins = changes.iter().copied().filter(|change| *change > since).chain([since]);
    begins.map(|begin| window.period().first_window_from(begin)).filter(|begun| begun.start() < window.start()).all(due)
}

/// The next window of a grid in which some store is due, from the position on.
fn next_window(snapshot: &Snapshot, project: ProjectId, period: Period, position: Option<u64>, changes: &[Stamp]) -> Option<Window> {
    let sealed_end = position.map(Stamp::from_secs);
    let mut from = sealed_end.or_else(|| changes.first().copied())?;
    loop {
        let window = period.first_window_from(from);
        if snapshot.stores_due(project, window).next().is_some() {
            return Some(window);
        }
        from = *changes.iter().find(|change| **change > window.start())?;
    }
}

/// Where the gap ends that begins with this window: the window lies wholly in a span without acceptance.
pub(crate) fn gap_until(downtimes: &[(Stamp, Stamp)], window: Window) -> Option<u64> {
    let (_, until) = downtimes.iter().find(|(since, until)| *since <= window.start() && window.end() <= *until)?;
    Some(window.period().window_at(*until).start_secs())
}

/// The share of the window in which reports were accepted.
pub(crate) fn coverage(downtimes: &[(Stamp, Stamp)], window: Window) -> f64 {
    let down: u64 = downtimes.iter().map(|(since, until)| (*until).min(window.end()).since((*since).max(window.start()))).sum();
    1.0 - down.min(window.period().micros()) as f64 / window.period().micros() as f64
}

/// Runs blocking work that needs the whole of `state`, and gives it back.
async fn blocking<T: Send + 'static, R: Send + 'static>(mut state: T, work: impl FnOnce(&mut T) -> R + Send + 'static) -> (T, R) {
    deliver::blocking(move || {
        let done = work(&mut state);
        (state, done)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: u64) -> Window {
        Window::new(start, Period::new(10).expect("legal")).expect("on the grid")
    }

    fn span(since_secs: u64, until_secs: u64) -> (Stamp, Stamp) {
        (Stamp::from_secs(since_secs), Stamp::from_secs(until_secs))
    }

    #[test]
    fn a_window_wholly_without_acceptance_begins_a_gap_up_to_the_window_of_the_restart() {
        for (downtimes, gap) in [
            (vec![], None),
            (vec![span(100, 110)], Some(110)),
            (vec![span(95, 137)], Some(130)),
            (vec![span(101, 137)], None),
            (vec![span(95, 109)], None),
            (vec![span(0, 5), span(99, 120)], Some(120)),
        ] {
            assert_eq!(gap_until(&downtimes, window(100)), gap, "{downtimes:?}");
        }
    }

    #[test]
    fn coverage_is_the_share_of_time_in_which_reports_were_accepted() {
        for (downtimes, share) in
            [(vec![], 1.0), (vec![span(0, 105)], 0.5), (vec![span(101, 102), span(109, 200)], 0.8), (vec![span(110, 120)], 1.0)]
        {
            assert!((coverage(&downtimes, window(100)) - share).abs() < 1e-9, "{downtimes:?}");
        }
    }
}
