//! Sealed windows: what was evaluated, once and for ever, and how far each grid has come. One transaction a seal.

use crate::config::{MetricId, RevisionId, StoreId};
use crate::{Catalog, CatalogError, delivery};
use model::{Counter, Label, Period, ProjectId, Stamp, Window};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

/// zstd level of stored points: they are small and written once a window.
const POINTS_LEVEL: i32 = 1;

/// A group's label values in the order of the query's group-by.
pub type SeriesKey = Vec<Label>;

/// Everything one seal writes.
#[derive(Clone, Debug)]
pub struct SealedWindow {
    /// Whose window.
    pub project: ProjectId,
    /// Which window.
    pub window: Window,
    /// About the window as a whole.
    pub facts: WindowFacts,
    /// Each metric due in it.
    pub metrics: Vec<SealedMetric>,
    /// Series states that changed, as `export` encodes them.
    pub states: Vec<(MetricId, Vec<u8>)>,
    /// Points that push stores now have to get.
    pub due: Vec<(StoreId, u64)>,
}

/// What is known of a window apart from metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowFacts {
    /// Share of its time in which reports were accepted, above 0 to 1.
    pub coverage: f64,
    /// Reports accepted.
    pub accepted: u64,
    /// Submissions refused, by reason.
    pub refused: Vec<(String, u64)>,
}

/// One metric's outcome in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedMetric {
    /// The metric's revision in force at the window's start.
    pub revision: RevisionId,
    /// Why it could not be evaluated; it then has no series.
    pub failure: Option<String>,
    /// Reports that passed its filter: own + folded.
    pub matched: u64,
    /// Of these, in series of their own.
    pub own: u64,
    /// Of these, in `__other__`.
    pub folded: u64,
    /// Values that no store takes (text, not finite), left out.
    pub left_out: u64,
    /// Its series, in key order.
    pub series: Vec<SealedSeries>,
}

/// What became of a metric in one window, or in a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricOutcome {
    /// First second.
    pub start: u64,
    /// First second after it.
    pub end: u64,
    /// `sealed`, `failed` or `gap`.
    pub outcome: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Reports that passed the filter: own + folded.
    pub matched: u64,
    /// Of these, in series of their own.
    pub own: u64,
    /// Of these, in `__other__`.
    pub folded: u64,
    /// Values that no store takes.
    pub left_out: u64,
    /// Filled later from stored reports.
    pub backfilled: bool,
}

/// One series of a sealed metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealedSeries {
    /// The group.
    pub key: SeriesKey,
    /// Whether the series is exported in this window; otherwise only its counters are still shown.
    pub live: bool,
    /// One per aggregate of the query.
    pub cells: Vec<SealedCell>,
}

/// One aggregate of one series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealedCell {
    /// The window's value.
    pub value: Option<f64>,
    /// The running total a pull page shows, for additive aggregates.
    pub counter: Option<Counter>,
}

impl Catalog {
    /// Seals a window: points, series states, deliveries due and position, all or nothing. A window already sealed, or one
    /// that does not follow the last, is refused by the database: no window is sealed twice.
    pub fn seal(&self, sealed: &SealedWindow, now: Stamp) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let (window, period) = (sealed.window, sealed.window.period().secs());
        advance(&transaction, sealed.project, window, window.end_secs())?;
        insert_window(&transaction, sealed.project, window, &sealed.facts, now)?;
        for metric in &sealed.metrics {
            insert_metric(&transaction, window, metric, 0)?;
        }
        {
            let mut update = transaction.prepare_cached(
                "INSERT INTO series_state (metric, period, state) VALUES (?1, ?2, ?3)
                 ON CONFLICT (metric, period) DO UPDATE SET state = excluded.state",
            )?;
            for (metric, state) in &sealed.states {
                update.execute(params![metric.0, period, state])?;
            }
            for (store, points) in &sealed.due {
                delivery::owe(&transaction, *store, window.into(), *points, now)?;
            }
        }
        transaction.commit()?;
        self.ledger_changes.count(sealed.project);
        Ok(())
    }

    /// Records that nothing was accepted from the window's start until `until_secs`, and moves the grid there.
    pub fn record_gap(&self, project: ProjectId, window: Window, until_secs: u64) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        advance(&transaction, project, window, until_secs)?;
        transaction.execute(
            "INSERT INTO gap (project, period, start, until) VALUES (?1, ?2, ?3, ?4)",
            params![project.0, window.period().secs(), window.start_secs() as i64, until_secs as i64],
        )?;
        transaction.commit()?;
        self.ledger_changes.count(project);
        Ok(())
    }

    /// Moves a grid on over windows in which nothing was due, so that the floor of the service clock follows.
    pub fn sealed_end(&self, project: ProjectId, period: Period) -> Result<Option<u64>, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT sealed_end FROM position WHERE project = ?1 AND period = ?2")?
            .query_row(params![project.0, period.secs()], |row| row.get::<_, i64>(0))
            .optional()?
            .map(i64::unsigned_abs))
    }

    /// The newest window of a grid that is sealed (gaps apart).
    pub fn newest_sealed(&self, project: ProjectId, period: Period) -> Result<Option<Window>, CatalogError> {
        let start: Option<i64> = self
            .read()
            .prepare_cached("SELECT max(start) FROM sealed_window WHERE project = ?1 AND period = ?2")?
            .query_row(params![project.0, period.secs()], |row| row.get(0))?;
        Ok(start.and_then(|start| Window::new(start.unsigned_abs(), period)))
    }

    /// What is known of a sealed window, or `None` when it is not sealed.
    pub fn window_facts(&self, project: ProjectId, window: Window) -> Result<Option<WindowFacts>, CatalogError> {
        let row: Option<(f64, i64, String)> = self
            .read()
            .prepare_cached("SELECT coverage, accepted, refused FROM sealed_window WHERE project = ?1 AND period = ?2 AND start = ?3")?
            .query_row(params![project.0, window.period().secs(), window.start_secs() as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        row.map(|(coverage, accepted, refused)| {
            let refused = serde_json::from_str(&refused).map_err(|_| CatalogError::Damaged("count of refusals"))?;
            Ok(WindowFacts { coverage, accepted: accepted.unsigned_abs(), refused })
        })
        .transpose()
    }

    /// A metric's sealed outcome in a window; `None` when it was not due or its points are past their keeping.
    pub fn sealed_metric(&self, revision: RevisionId, window: Window) -> Result<Option<SealedMetric>, CatalogError> {
        type Row = (Option<String>, [i64; 4], Option<Vec<u8>>);
        let row: Option<Row> = self
            .read()
            .prepare_cached(
                "SELECT failure, matched, own, folded, left_out, points FROM sealed_metric WHERE revision = ?1 AND period = ?2 AND start = ?3",
            )?
            .query_row(params![revision.0, window.period().secs(), window.start_secs() as i64], |row| {
                Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?], row.get(5)?))
            })
            .optional()?;
        let Some((failure, counts, Some(points))) = row else { return Ok(None) };
        let [matched, own, folded, left_out] = counts.map(i64::unsigned_abs);
        Ok(Some(SealedMetric { revision, failure, matched, own, folded, left_out, series: unpack(&points)? }))
    }

    /// Whether a metric was ever sealed in a window, its points kept or not.
    pub fn is_metric_sealed(&self, revision: RevisionId, window: Window) -> Result<bool, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM sealed_metric WHERE revision = ?1 AND period = ?2 AND start = ?3)")?
            .query_row(params![revision.0, window.period().secs(), window.start_secs() as i64], |row| row.get(0))?)
    }

    /// What became of a metric in the windows and gaps of a span, oldest first.
    pub fn metric_outcomes(
        &self,
        project: ProjectId,
        metric: MetricId,
        period: Period,
        (from_secs, to_secs): (u64, u64),
        limit: u32,
    ) -> Result<Vec<MetricOutcome>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT start, start + period, iif(failure IS NULL, 'sealed', 'failed'), failure, matched, own, folded, left_out, backfill
               FROM sealed_metric WHERE revision IN (SELECT id FROM metric_revision WHERE metric = ?2) AND period = ?3 AND start >= ?4 AND start < ?5
             UNION ALL SELECT start, until, 'gap', NULL, 0, 0, 0, 0, 0
               FROM gap WHERE project = ?1 AND period = ?3 AND until > ?4 AND start < ?5
             ORDER BY 1 LIMIT ?6",
        )?;
        let bound = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![project.0, metric.0, period.secs(), bound(from_secs), bound(to_secs), limit], |row| {
            let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(MetricOutcome {
                start: n(0)?,
                end: n(1)?,
                outcome: row.get(2)?,
                failure: row.get(3)?,
                matched: n(4)?,
                own: n(5)?,
                folded: n(6)?,
                left_out: n(7)?,
                backfilled: row.get::<_, i64>(8)? != 0,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest gaps of a grid that end after a second, newest first.
    pub fn gaps(&self, project: ProjectId, period: Period, after_secs: u64, limit: u32) -> Result<Vec<(u64, u64)>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT start, until FROM gap WHERE project = ?1 AND period = ?2 AND until > ?3 ORDER BY start DESC LIMIT ?4",
        )?;
        let rows = statement.query_map(params![project.0, period.secs(), after_secs as i64, limit], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The state of a metric's series on one grid.
    pub fn series_state(&self, metric: MetricId, period: Period) -> Result<Option<Vec<u8>>, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT state FROM series_state WHERE metric = ?1 AND period = ?2")?
            .query_row(params![metric.0, period.secs()], |row| row.get(0))
            .optional()?)
    }

    /// End in Unix seconds of the last window of a grid in which a metric was sealed, be it as failed.
    pub fn metric_sealed_until(&self, metric: MetricId, period: Period) -> Result<Option<u64>, CatalogError> {
        let start: Option<i64> = self
            .read()
            .prepare_cached(
                "SELECT max((SELECT max(start) FROM sealed_metric WHERE revision = metric_revision.id AND period = ?2))
                 FROM metric_revision WHERE metric = ?1",
            )?
            .query_row(params![metric.0, period.secs()], |row| row.get(0))?;
        Ok(start.map(|start| start.unsigned_abs() + u64::from(period.secs())))
    }

    /// Drops the points (not the counts) of windows that ended before `before_secs`, unless a delivery still needs them.
    pub fn drop_points(&self, before_secs: u64) -> Result<usize, CatalogError> {
        Ok(self.write().execute(
            "UPDATE sealed_metric SET points = NULL WHERE points IS NOT NULL AND start < ?1
             AND NOT EXISTS (SELECT 1 FROM delivery WHERE open > 0 AND delivery.start = sealed_metric.start AND delivery.period = sealed_metric.period)",
            [before_secs as i64],
        )?)
    }

    /// Remembers a span in which nothing was accepted.
    pub fn record_downtime(&self, since: Stamp, until: Stamp) -> Result<(), CatalogError> {
        self.write().execute(
            "INSERT INTO downtime (since, until) VALUES (?1, ?2) ON CONFLICT (since) DO UPDATE SET until = max(until, excluded.until)",
            params![since.micros() as i64, until.micros() as i64],
        )?;
        Ok(())
    }

    /// Spans without acceptance that end after `after`, oldest first.
    pub fn downtimes(&self, after: Stamp) -> Result<Vec<(Stamp, Stamp)>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached("SELECT since, until FROM downtime WHERE until > ?1 ORDER BY since")?;
        let rows = statement.query_map([after.micros() as i64], |row| {
            Ok((Stamp::from_micros(row.get::<_, i64>(0)?.unsigned_abs()), Stamp::from_micros(row.get::<_, i64>(1)?.unsigned_abs())))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

pub(crate) fn insert_window(
    transaction: &Transaction<'_>,
    project: ProjectId,
    window: Window,
    facts: &WindowFacts,
    now: Stamp,
) -> Result<(), CatalogError> {
    let refused = serde_json::to_string(&facts.refused).map_err(|_| CatalogError::Damaged("count of refusals"))?;
    let (period, start, sealed_at) = (window.period().secs(), window.start_secs() as i64, now.micros() as i64);
    transaction
        .prepare_cached(
            "INSERT INTO sealed_window (project, period, start, coverage, accepted, refused, sealed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![project.0, period, start, facts.coverage, facts.accepted as i64, refused, sealed_at])?;
    Ok(())
}

/// `backfill` is 0 for what live sealing has sealed.
pub(crate) fn insert_metric(
    transaction: &Transaction<'_>,
    window: Window,
    metric: &SealedMetric,
    backfill: i64,
) -> Result<(), CatalogError> {
    let [matched, own, folded, left_out] = [metric.matched, metric.own, metric.folded, metric.left_out].map(|n| n as i64);
    let (period, start, points) = (window.period().secs(), window.start_secs() as i64, pack(&metric.series)?);
    transaction
        .prepare_cached(
            "INSERT INTO sealed_metric (revision, period, start, failure, matched, own, folded, left_out, points, backfill)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![metric.revision.0, period, start, metric.failure, matched, own, folded, left_out, points, backfill])?;
    Ok(())
}

/// Moves a grid's position from the window's start to `end_secs`; an overlap with what is sealed is an error.
fn advance(transaction: &Transaction<'_>, project: ProjectId, window: Window, end_secs: u64) -> Result<(), CatalogError> {
    let moved = transaction
        .prepare_cached(
            "INSERT INTO position (project, period, sealed_end) VALUES (?1, ?2, ?4)
             ON CONFLICT (project, period) DO UPDATE SET sealed_end = excluded.sealed_end WHERE position.sealed_end <= ?3",
        )?
        .execute(params![project.0, window.period().secs(), window.start_secs() as i64, end_secs as i64])?;
    if moved == 1 { Ok(()) } else { Err(CatalogError::Exists(format!("sealed window {window}"))) }
}

pub(crate) fn pack(series: &[SealedSeries]) -> Result<Vec<u8>, CatalogError> {
    let json = serde_json::to_vec(series).map_err(|_| CatalogError::Damaged("point"))?;
    zstd::bulk::compress(&json, POINTS_LEVEL).map_err(|_| CatalogError::Damaged("point"))
}

pub(crate) fn unpack(points: &[u8]) -> Result<Vec<SealedSeries>, CatalogError> {
    let json = zstd::stream::decode_all(points).map_err(|_| CatalogError::Damaged("point"))?;
    serde_json::from_slice(&json).map_err(|_| CatalogError::Damaged("point"))
}
