//! Backfills: windows from before a store, or a metric of it, began, filled from stored reports for a stated span. What is kept of
//! one: how far it has come, the series it goes on from, and the points it has sealed. They are no part of live sealing, which
//! neither waits for them nor reads them.

use crate::config::{MetricId, StoreId};
use crate::delivery::{self, Slot};
use crate::edit::{Now, store_id};
use crate::seal::{SealedMetric, WindowFacts, insert_metric, insert_window};
use crate::{Catalog, CatalogError};
use model::{Period, ProjectId, Stamp, Window};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

/// What is to be filled.
#[derive(Clone, Debug)]
pub struct BackfillDraft {
    /// Whose windows: the store's period.
    pub period: Period,
    /// First second of the first window.
    pub since: u64,
    /// First second after the last window.
    pub until: u64,
    /// Which metric sets.
    pub sets: Vec<String>,
}

/// A backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backfill {
    /// Its number, over all stores.
    pub id: i64,
    /// Whose it is.
    #[serde(skip)]
    pub store: StoreId,
    /// Seconds of a window.
    pub period: u32,
    /// First second of the first window.
    pub from: u64,
    /// First second of the next window to be filled.
    pub next: u64,
    /// First second after the last window.
    pub to: u64,
    /// Which metric sets.
    pub sets: Vec<String>,
    /// When it was asked for; metrics made later are none of its.
    #[serde(skip)]
    pub created: Stamp,
    /// When it ended, Unix seconds.
    pub ended: Option<u64>,
    /// How: `done`, or `cancelled`.
    pub outcome: Option<String>,
    /// Windows filled.
    pub windows: u64,
    /// Windows passed over: nothing was accepted in them, or nothing of them is missing.
    pub passed_over: u64,
    /// Windows filled of which points are still to be sent.
    pub open_windows: u64,
    /// Their open points.
    pub open_points: u64,
}

impl Backfill {
    /// The next window to be filled; `None` once it has ended.
    pub fn next_window(&self) -> Option<Window> {
        let period = Period::new(self.period)?;
        Window::new(self.next, period).filter(|_| self.ended.is_none() && self.next < self.to)
    }
}

/// One filled window.
#[derive(Clone, Debug)]
pub struct BackfilledWindow {
    /// Whose.
    pub project: ProjectId,
    /// Which.
    pub window: Window,
    /// Of a window that was not sealed before.
    pub facts: Option<WindowFacts>,
    /// Metrics that were not sealed in it before.
    pub metrics: Vec<SealedMetric>,
    /// Series to go on from, as `export` encodes them; `None`: the next window begins anew.
    pub states: Vec<(MetricId, Option<Vec<u8>>)>,
    /// Points the store has to get.
    pub due: u64,
}

const COLUMNS: &str = "SELECT id, store, period, since, next, until, sets, created, ended, outcome, windows, passed_over,
    (SELECT count(*) FROM delivery WHERE delivery.store = backfill.store AND delivery.backfill = backfill.id AND open > 0),
    (SELECT coalesce(sum(open), 0) FROM delivery WHERE delivery.store = backfill.store AND delivery.backfill = backfill.id AND open > 0)
    FROM backfill";

impl Catalog {
    /// Begins a backfill of a store; one at a time.
    pub fn start_backfill(
        &self,
        project: ProjectId,
        name: &str,
        draft: &BackfillDraft,
        actor: &str,
        now: Now<'_>,
    ) -> Result<i64, CatalogError> {
        let sets = serde_json::to_string(&draft.sets).map_err(|_| CatalogError::Damaged("list of metric sets"))?;
        self.change(actor, now, |change| {
            change.audit(Some(project), "start backfill", &format!("{name} from {} to {}", draft.since, draft.until));
            let store =
                store_id(change.transaction, project, name)?.ok_or_else(|| CatalogError::Missing(format!("metric store {name:?}")))?;
            let running: bool = change.transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM backfill WHERE store = ?1 AND ended IS NULL)",
                [store.0],
                |row| row.get(0),
            )?;
            if running {
                return Err(CatalogError::Exists("backfill of this store under way".into()));
            }
            change.transaction.execute(
                "INSERT INTO backfill (store, period, since, next, until, sets, created) VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)",
                params![store.0, draft.period.secs(), draft.since as i64, draft.until as i64, sets, change.stamp.micros() as i64],
            )?;
            Ok(change.transaction.last_insert_rowid())
        })
    }

    /// Ends a store's backfill: what of it is still to be sent is cancelled.
    pub fn cancel_backfill(&self, project: ProjectId, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "cancel backfill", name);
            let store =
                store_id(change.transaction, project, name)?.ok_or_else(|| CatalogError::Missing(format!("metric store {name:?}")))?;
            // One that is all sealed but not all sent is still to be cancelled.
            let newest: Option<i64> =
                change.transaction.query_row("SELECT max(id) FROM backfill WHERE store = ?1", [store.0], |row| row.get(0))?;
            let Some(id) = newest else { return Err(CatalogError::Missing("backfill of this store".into())) };
            change.transaction.execute(
                "UPDATE backfill SET ended = ?2, outcome = 'cancelled' WHERE id = ?1 AND ended IS NULL",
                params![id, change.stamp.secs() as i64],
            )?;
            change.transaction.execute("DELETE FROM backfill_state WHERE backfill = ?1", [id])?;
            delivery::cancel_open(change.transaction, store, Some(id))
        })
    }

    /// A store's backfills, newest first.
    pub fn backfills(&self, store: StoreId, limit: u32) -> Result<Vec<Backfill>, CatalogError> {
        self.list_backfills("WHERE store = ?1 ORDER BY id DESC LIMIT ?2", params![store.0, limit])
    }

    /// Those that have windows left to fill, oldest first.
    pub fn running_backfills(&self) -> Result<Vec<Backfill>, CatalogError> {
        self.list_backfills("WHERE ended IS NULL ORDER BY id", params![])
    }

    /// One of them.
    pub fn backfill(&self, id: i64) -> Result<Option<Backfill>, CatalogError> {
        Ok(self.list_backfills("WHERE id = ?1", params![id])?.pop())
    }

    fn list_backfills(&self, rest: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<Backfill>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(&format!("{COLUMNS} {rest}"))?;
        let mut rows = statement.query(parameters)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(backfill(row)?);
        }
        Ok(found)
    }

    /// The series that a backfill goes on from for a metric.
    pub fn backfill_state(&self, backfill: i64, metric: MetricId) -> Result<Option<Vec<u8>>, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT state FROM backfill_state WHERE backfill = ?1 AND metric = ?2")?
            .query_row(params![backfill, metric.0], |row| row.get(0))
            .optional()?)
    }

    /// Records a filled window: points, series, delivery and progress, all or nothing. `false`: the backfill has ended meanwhile.
    pub fn seal_backfilled(&self, backfill: &Backfill, filled: &BackfilledWindow, now: Stamp) -> Result<bool, CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let window = filled.window;
        let went_on = transaction.execute(
            "UPDATE backfill SET next = ?3, windows = windows + ?5, passed_over = passed_over + 1 - ?5,
               ended = iif(?3 >= until, ?4, NULL), outcome = iif(?3 >= until, 'done', NULL)
             WHERE id = ?1 AND next = ?2 AND ended IS NULL",
            params![backfill.id, window.start_secs() as i64, window.end_secs() as i64, now.secs() as i64, i64::from(filled.due > 0)],
        )?;
        if went_on == 0 {
            return Ok(false);
        }
        if let Some(facts) = &filled.facts {
            insert_window(&transaction, filled.project, window, facts, now)?;
        }
        for metric in &filled.metrics {
            insert_metric(&transaction, window, metric, backfill.id)?;
        }
        for (metric, state) in &filled.states {
            match state {
                Some(state) => transaction.execute(
                    "INSERT INTO backfill_state (backfill, metric, state) VALUES (?1, ?2, ?3)
                     ON CONFLICT (backfill, metric) DO UPDATE SET state = excluded.state",
                    params![backfill.id, metric.0, state],
                )?,
                None => {
                    transaction.execute("DELETE FROM backfill_state WHERE backfill = ?1 AND metric = ?2", params![backfill.id, metric.0])?
                }
            };
        }
        if window.end_secs() >= backfill.to {
            transaction.execute("DELETE FROM backfill_state WHERE backfill = ?1", [backfill.id])?;
        }
        if filled.due > 0 {
            delivery::owe(&transaction, backfill.store, Slot { window, backfill: backfill.id }, filled.due, now)?;
        }
        transaction.commit()?;
        self.ledger_changes.count(filled.project);
        Ok(true)
    }

    /// Whether a window lies in a recorded gap.
    pub fn in_gap(&self, project: ProjectId, window: Window) -> Result<bool, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM gap WHERE project = ?1 AND period = ?2 AND start <= ?3 AND until > ?3)")?
            .query_row(params![project.0, window.period().secs(), window.start_secs() as i64], |row| row.get(0))?)
    }
}

fn backfill(row: &Row<'_>) -> Result<Backfill, CatalogError> {
    let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(Backfill {
        id: row.get(0)?,
        store: StoreId(row.get(1)?),
        period: row.get(2)?,
        from: n(3)?,
        next: n(4)?,
        to: n(5)?,
        sets: serde_json::from_str(&row.get::<_, String>(6)?).map_err(|_| CatalogError::Damaged("list of metric sets"))?,
        created: Stamp::from_micros(n(7)?),
        ended: row.get::<_, Option<i64>>(8)?.map(i64::unsigned_abs),
        outcome: row.get(9)?,
        windows: n(10)?,
        passed_over: n(11)?,
        open_windows: n(12)?,
        open_points: n(13)?,
    })
}
