//! The audit: every identity of the ledger, checked over the whole history in one read of the database that nothing can change
//! meanwhile. It opens the file by itself and only reads, so it works beside a running server and holds none of its connections.
//!
//! It trusts no sum: what ought to be there is worked out anew from the configuration's history, what is there is read row by row.

use crate::config::{Metric, Snapshot, Store, StoreId};
use crate::delivery::{self, Total};
use crate::{CatalogError, load};
use model::{Period, ProjectId, Stamp, Window};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imbalances told in words; further ones are only counted.
const TOLD: usize = 20;

/// What an audit found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// Every identity holds.
    pub balances: bool,
    /// Identities that do not.
    pub imbalances: u64,
    /// The first of them in words.
    pub told: Vec<String>,
    /// Project by project.
    pub projects: Vec<ProjectAudit>,
}

/// One project's accounts.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectAudit {
    /// Its name.
    pub project: String,
    /// Its grids: what was sealed and what is a gap.
    pub grids: Vec<GridAudit>,
    /// Its stores: what they were owed and what became of it.
    pub stores: Vec<StoreAudit>,
}

/// All windows of one period.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GridAudit {
    /// Seconds of a window.
    pub period: u32,
    /// First second of the first window or gap.
    pub from: u64,
    /// First second after the last.
    pub to: u64,
    /// Windows sealed.
    pub windows: u64,
    /// Gaps recorded.
    pub gaps: u64,
    /// Seconds in them.
    pub gap_seconds: u64,
    /// Reports accepted in the sealed windows.
    pub accepted: u64,
    /// Submissions refused in them, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Metrics sealed with points, over all windows.
    pub metrics_sealed: u64,
    /// Metrics sealed as failed.
    pub metrics_failed: u64,
    /// Reports that passed the metrics' filters: own + folded.
    pub matched: u64,
    /// Of these, in series of their own.
    pub own: u64,
    /// Of these, in `__other__`.
    pub folded: u64,
}

/// One store.
#[derive(Clone, Debug, Serialize)]
pub struct StoreAudit {
    /// Its name.
    pub store: String,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The account of a push store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Total>,
    /// Why points were refused, left out or expired, by fate.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// The account of a pull store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullAccount>,
}

/// The windows of a pull store: sealed = current + read + unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PullAccount {
    /// Windows sealed for it.
    pub sealed: u64,
    /// The one that is shown.
    pub current: u64,
    /// Shown before it, and read at least once.
    pub read: u64,
    /// Shown before it, and never read.
    pub unread: u64,
}

/// Checks the catalog in a data folder, all of it or one project; nothing is written. `is_push` tells the adapters that send.
///
/// # Errors
/// The database cannot be read.
pub fn audit(folder: &Path, only: Option<ProjectId>, is_push: &dyn Fn(&str) -> bool) -> Result<Audit, CatalogError> {
    let mut connection = Connection::open_with_flags(folder.join("catalog.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA busy_timeout = 10000; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    let transaction = connection.transaction()?;
    crate::schema::expect_current(&transaction)?;
    let snapshot =
        Snapshot { metrics: load::metrics(&transaction, -1)?, stores: load::stores(&transaction, None, -1)?, ..Snapshot::default() };
    let mut auditor = Auditor { connection: &transaction, snapshot: &snapshot, is_push, found: Audit::default() };
    auditor.run(only)?;
    let mut found = auditor.found;
    found.balances = found.imbalances == 0;
    Ok(found)
}

/// Points by period, window start, whether it is of a backfill, and fate.
type Reasons = BTreeMap<(u32, i64, i64, String), u64>;

struct Auditor<'a> {
    connection: &'a Connection,
    snapshot: &'a Snapshot,
    is_push: &'a dyn Fn(&str) -> bool,
    found: Audit,
}

/// The sealed windows of a grid, by start, with the reports accepted in each.
#[derive(Default)]
struct Sealed {
    starts: Vec<u64>,
    accepted: Vec<u64>,
}

impl Sealed {
    /// Reports accepted in the window that starts there.
    fn accepted_at(&self, start: u64) -> Option<u64> {
        self.starts.binary_search(&start).ok().map(|at| self.accepted[at])
    }
}

/// Starts that lie in a span.
fn within(starts: &[u64], from: Stamp, to: Stamp) -> &[u64] {
    let first = starts.partition_point(|start| Stamp::from_secs(*start) < from);
    let last = starts.partition_point(|start| Stamp::from_secs(*start) < to);
    &starts[first..last]
}

impl Auditor<'_> {
    fn tell(&mut self, imbalance: impl FnOnce() -> String) {
        self.found.imbalances += 1;
        if self.found.told.len() < TOLD {
            self.found.told.push(imbalance());
        }
    }

    fn run(&mut self, only: Option<ProjectId>) -> Result<(), CatalogError> {
        let mut statement = self.connection.prepare("SELECT id, name FROM project WHERE deleted IS NULL ORDER BY name")?;
        let projects =
            statement.query_map([], |row| Ok((ProjectId(row.get(0)?), row.get::<_, String>(1)?)))?.collect::<Result<Vec<_>, _>>()?;
        for (id, name) in projects {
            if only.is_some_and(|only| only != id) {
                continue;
            }
            let mut sealed: BTreeMap<u32, Sealed> = BTreeMap::new();
            let mut grids = Vec::new();
            for period in self.periods(id)? {
                let (grid, windows) = self.grid(id, &name, period)?;
                sealed.insert(period.secs(), windows);
                grids.push(grid);
            }
            for metric in self.snapshot.metrics.iter().filter(|metric| metric.project == id) {
                for grid in &mut grids {
                    self.metric(&name, metric, grid, &sealed[&grid.period])?;
                }
            }
            let mut stores = Vec::new();
            for store in self.snapshot.stores.iter().filter(|store| store.project == id) {
                stores.push(if (self.is_push)(&store.newest().settings.adapter) {
                    self.push_store(&name, store, &sealed)?
                } else {
                    self.pull_store(&name, store, &sealed)?
                });
            }
            self.found.projects.push(ProjectAudit { project: name, grids, stores });
        }
        Ok(())
    }

    /// Every period that something was ever sealed or recorded in.
    fn periods(&self, project: ProjectId) -> Result<BTreeSet<Period>, CatalogError> {
        let mut statement = self.connection.prepare(
            "SELECT period FROM position WHERE project = ?1 UNION SELECT period FROM sealed_window WHERE project = ?1
             UNION SELECT period FROM gap WHERE project = ?1
             UNION SELECT period FROM delivery JOIN store ON store.id = delivery.store WHERE project = ?1
             UNION SELECT sealed_metric.period FROM metric_set JOIN metric ON metric.metric_set = metric_set.id
               JOIN metric_revision ON metric_revision.metric = metric.id JOIN sealed_metric ON sealed_metric.revision = metric_revision.id
               WHERE metric_set.project = ?1",
        )?;
        let mut rows = statement.query([project.0])?;
        let mut periods = BTreeSet::new();
        while let Some(row) = rows.next()? {
            periods.insert(Period::new(row.get(0)?).ok_or(CatalogError::Damaged("period"))?);
        }
        Ok(periods)
    }

    /// Windows and gaps tile the grid: without overlap, and without a hole in which a window was due.
    fn grid(&mut self, project: ProjectId, name: &str, period: Period) -> Result<(GridAudit, Sealed), CatalogError> {
        let place = format!("project {name}, period {} s", period.secs());
        let changes = self.snapshot.attachment_changes(project);
        let mut grid = GridAudit { period: period.secs(), ..GridAudit::default() };
        let mut sealed = Sealed::default();
        let mut end: Option<u64> = None;
        let mut statement = self.connection.prepare(
            "SELECT start, start + period, accepted, refused FROM sealed_window WHERE project = ?1 AND period = ?2
             UNION ALL SELECT start, until, NULL, NULL FROM gap WHERE project = ?1 AND period = ?2 ORDER BY 1, 2",
        )?;
        let mut rows = statement.query(params![project.0, period.secs()])?;
        while let Some(row) = rows.next()? {
            let (start, until) = (row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs());
            let step = u64::from(period.secs());
            if !start.is_multiple_of(step) || !until.is_multiple_of(step) || until <= start {
                self.tell(|| format!("{place}: [{start}, {until}) is not on the grid"));
            }
            match end {
                Some(end) if start < end => self.tell(|| format!("{place}: what starts at {start} overlaps what ends at {end}")),
                _ => self.hole(&place, project, period, &changes, end.unwrap_or(0), start),
            }
            grid.from = if end.is_none() { start } else { grid.from };
            end = end.max(Some(until));
            match row.get::<_, Option<i64>>(2)? {
                Some(accepted) => {
                    sealed.starts.push(start);
                    sealed.accepted.push(accepted.unsigned_abs());
                    grid.windows += 1;
                    grid.accepted += accepted.unsigned_abs();
                    let refused: Vec<(String, u64)> =
                        serde_json::from_str(&row.get::<_, String>(3)?).map_err(|_| CatalogError::Damaged("count of refusals"))?;
                    for (reason, count) in refused {
                        *grid.refused.entry(reason).or_default() += count;
                    }
                }
                None => {
                    grid.gaps += 1;
                    grid.gap_seconds += until.saturating_sub(start);
                }
            }
        }
        grid.to = end.unwrap_or(0);
        let position: Option<i64> = self
            .connection
            .query_row("SELECT sealed_end FROM position WHERE project = ?1 AND period = ?2", params![project.0, period.secs()], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(position) = position.map(i64::unsigned_abs)
            && position != grid.to
        {
            // Windows filled later lie before the position, never after it.
            self.hole(&place, project, period, &changes, grid.to, position);
            if position < grid.to {
                self.tell(|| format!("{place}: the position {position} is before the end {} of the last window or gap", grid.to));
            }
        }
        Ok((grid, sealed))
    }

    /// Tells of the first window that was due in a span in which nothing is recorded.
    fn hole(&mut self, place: &str, project: ProjectId, period: Period, changes: &[Stamp], from_secs: u64, to_secs: u64) {
        let (mut from, to) = (Stamp::from_secs(from_secs), Stamp::from_secs(to_secs));
        while from < to {
            let window = period.first_window_from(from);
            if window.start() >= to {
                return;
            }
            if let Some((store, _)) = self.snapshot.stores_due(project, window).next() {
                self.tell(|| {
                    format!(
                        "{place}: neither a window nor a gap from {} to {to_secs}, though store {} was due",
                        window.start_secs(),
                        store.name
                    )
                });
                return;
            }
            match changes.iter().find(|change| **change > window.start()) {
                Some(change) => from = *change,
                None => return,
            }
        }
    }

    /// In every sealed window in which a metric was due it has exactly one outcome, and matched = own + folded.
    fn metric(&mut self, project: &str, metric: &Metric, grid: &mut GridAudit, sealed: &Sealed) -> Result<(), CatalogError> {
        let period = Period::new(grid.period).ok_or(CatalogError::Damaged("period"))?;
        let place = format!("project {project}, metric {}/{}, period {} s", metric.set, metric.name, grid.period);
        let mut live: Vec<u64> = Vec::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT start, failure IS NOT NULL, matched, own, folded, backfill FROM sealed_metric WHERE revision = ?1 AND period = ?2",
        )?;
        for revision in &metric.revisions {
            let mut rows = statement.query(params![revision.id.0, grid.period])?;
            while let Some(row) = rows.next()? {
                let start = row.get::<_, i64>(0)?.unsigned_abs();
                let (failed, backfill): (bool, i64) = (row.get(1)?, row.get(5)?);
                let [matched, own, folded]: [i64; 3] = [row.get(2)?, row.get(3)?, row.get(4)?];
                if matched != own + folded || own < 0 || folded < 0 || (failed && matched != 0) {
                    self.tell(|| format!("{place}, window {start}: {matched} reports matched, but own {own} + folded {folded}"));
                }
                match sealed.accepted_at(start) {
                    None => self.tell(|| format!("{place}: sealed in window {start}, which is not a sealed window")),
                    Some(accepted) if matched > accepted as i64 => {
                        self.tell(|| format!("{place}, window {start}: {matched} reports matched of {accepted} accepted"));
                    }
                    Some(_) => {}
                }
                grid.metrics_sealed += u64::from(!failed);
                grid.metrics_failed += u64::from(failed);
                grid.matched += matched.unsigned_abs();
                grid.own += own.unsigned_abs();
                grid.folded += folded.unsigned_abs();
                if backfill == 0 {
                    if metric.in_force(Stamp::from_secs(start)).is_none_or(|in_force| in_force.id != revision.id) {
                        self.tell(|| format!("{place}, window {start}: sealed by revision {}, which was not in force", revision.number));
                    }
                    live.push(start);
                }
            }
        }
        live.sort_unstable();
        if let Some(pair) = live.windows(2).find(|pair| pair[0] == pair[1]) {
            self.tell(|| format!("{place}, window {}: sealed twice", pair[0]));
        }
        let mut changes = self.snapshot.attachment_changes(metric.project);
        changes.extend(metric.revisions.iter().map(|revision| revision.begins).chain(metric.deleted));
        let due = |window: Window| {
            let mut stores = self.snapshot.stores_due(metric.project, window);
            metric.in_force(window.start()).is_some() && stores.any(|(_, revision)| revision.settings.sets.contains(&metric.set))
        };
        self.expect(&place, "outcome", period, changes, &due, &sealed.starts, &live);
        Ok(())
    }

    /// Between two changes of configuration either every sealed window has its row, or none has.
    #[expect(clippy::too_many_arguments, reason = "what is compared with what, and the words for it")]
    fn expect(
        &mut self,
        place: &str,
        what: &str,
        period: Period,
        mut changes: Vec<Stamp>,
        due: &dyn Fn(Window) -> bool,
        windows: &[u64],
        rows: &[u64],
    ) {
        changes.push(Stamp::ZERO);
        changes.sort_unstable();
        changes.dedup();
        let mut told = Vec::new();
        for (at, from) in changes.iter().enumerate() {
            let to = changes.get(at + 1).copied().unwrap_or(Stamp::from_micros(u64::MAX));
            let (windows, rows) = (within(windows, *from, to), within(rows, *from, to));
            let Some(first) = windows.first().or(rows.first()) else { continue };
            let Some(window) = Window::new(*first, period) else { continue };
            if due(window) {
                if let Some(missing) = windows.iter().find(|start| rows.binary_search(start).is_err()) {
                    told.push(format!("{place}, window {missing}: sealed without its {what}"));
                }
            } else if let Some(row) = rows.first() {
                told.push(format!("{place}, window {row}: has its {what} though it was not due"));
            }
        }
        for one in told {
            self.tell(|| one);
        }
    }

    /// due = confirmed + sent + refused + excluded + open + expired + cancelled in every row and in the sums kept beside them.
    fn push_store(&mut self, project: &str, store: &Store, sealed: &BTreeMap<u32, Sealed>) -> Result<StoreAudit, CatalogError> {
        let place = format!("project {project}, store {}", store.name);
        let reasons = self.reasons(store.id)?;
        let (mut sum, mut by_reason, mut live): (Total, BTreeMap<String, u64>, BTreeMap<u32, Vec<u64>>) = Default::default();
        let mut explained = 0;
        let mut statement = self.connection.prepare_cached(
            "SELECT period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts, backfill
             FROM delivery WHERE store = ?1 ORDER BY period, start",
        )?;
        let mut rows = statement.query([store.id.0])?;
        while let Some(row) = rows.next()? {
            let (period, start, backfill): (u32, i64, i64) = (row.get(0)?, row.get(1)?, row.get(11)?);
            let points = delivery::ledger(row, 2)?;
            let at = format!("{place}, window {start} of {period} s");
            if points.imbalance() != 0 {
                let [due, parts @ ..] = points.parts();
                self.tell(|| {
                    format!("{at}: {due} points due, but confirmed, sent, refused, excluded, open, expired and cancelled are {parts:?}")
                });
            }
            for (fate, count) in [("refused", points.refused), ("excluded", points.excluded), ("expired", points.expired)] {
                let of_fate = reasons.get(&(period, start, backfill, fate.to_owned())).copied().unwrap_or(0);
                explained += of_fate;
                if of_fate != count {
                    self.tell(|| format!("{at}: {count} points {fate}, but {of_fate} with a reason"));
                }
                if count > 0 {
                    *by_reason.entry(fate.to_owned()).or_default() += count;
                }
            }
            if points.open > 0 && store.deleted.is_some() {
                self.tell(|| format!("{at}: {} points open, though the store is deleted", points.open));
            }
            if sealed.get(&period).and_then(|grid| grid.accepted_at(start.unsigned_abs())).is_none() {
                self.tell(|| format!("{at}: owed, but the window is not sealed"));
            }
            if backfill == 0 {
                live.entry(period).or_default().push(start.unsigned_abs());
            }
            sum.windows += 1;
            sum.attempts += row.get::<_, i64>(10)?.unsigned_abs();
            sum.points.add(&points);
        }
        let all: u64 = reasons.values().sum();
        if all != explained {
            self.tell(|| format!("{place}: reasons are kept of {} points that no delivery has", all - explained));
        }
        let kept = self.kept_total(store.id)?;
        if kept != sum {
            self.tell(|| format!("{place}: the sums kept are {kept:?}, its windows add up to {sum:?}"));
        }
        let none = Vec::new();
        for (secs, windows) in sealed {
            let period = Period::new(*secs).ok_or(CatalogError::Damaged("period"))?;
            let due = |window: Window| self.snapshot.stores_due(store.project, window).any(|(one, _)| one.id == store.id);
            let changes = self.snapshot.attachment_changes(store.project);
            let place = format!("{place}, period {secs} s");
            self.expect(&place, "delivery", period, changes, &due, &windows.starts, live.get(secs).unwrap_or(&none));
        }
        Ok(StoreAudit { store: store.name.clone(), deleted: store.deleted.is_some(), push: Some(sum), reasons: by_reason, pull: None })
    }

    /// Points by delivery and fate, summed over their reasons.
    fn reasons(&self, store: StoreId) -> Result<Reasons, CatalogError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT period, start, backfill, fate, sum(points) FROM delivery_reason WHERE store = ?1 GROUP BY period, start, backfill, fate",
        )?;
        let rows = statement
            .query_map([store.0], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?), row.get::<_, i64>(4)?.unsigned_abs())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn kept_total(&self, store: StoreId) -> Result<Total, CatalogError> {
        Ok(self
            .connection
            .query_row(
                "SELECT windows, attempts, due, confirmed, sent, refused, excluded, open, expired, cancelled FROM ledger_total WHERE store = ?1",
                [store.0],
                |row| {
                    let n = |at: usize| row.get::<_, i64>(at).map(|n| n.max(0).unsigned_abs());
                    Ok(Total { windows: n(0)?, attempts: n(1)?, points: delivery::ledger(row, 2)? })
                },
            )
            .optional()?
            .unwrap_or_default())
    }

    /// sealed = current + read + unread.
    fn pull_store(&mut self, project: &str, store: &Store, sealed: &BTreeMap<u32, Sealed>) -> Result<StoreAudit, CatalogError> {
        let place = format!("project {project}, store {}", store.name);
        let (mut count, mut newest) = (0u64, None);
        for (secs, windows) in sealed {
            let period = Period::new(*secs).ok_or(CatalogError::Damaged("period"))?;
            let mut changes = self.snapshot.attachment_changes(store.project);
            changes.push(Stamp::ZERO);
            changes.sort_unstable();
            for (at, from) in changes.iter().enumerate() {
                let to = changes.get(at + 1).copied().unwrap_or(Stamp::from_micros(u64::MAX));
                let windows = within(&windows.starts, *from, to);
                let Some(window) = windows.first().and_then(|first| Window::new(*first, period)) else { continue };
                if self.snapshot.stores_due(store.project, window).any(|(one, _)| one.id == store.id) {
                    count += windows.len() as u64;
                    newest = newest.max(windows.last().copied());
                }
            }
        }
        let read: Option<(i64, i64)> = self
            .connection
            .query_row("SELECT start, windows_read FROM pull_read WHERE store = ?1", [store.id.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (read_start, windows_read) = read.map_or((None, 0), |(start, read)| (Some(start.unsigned_abs()), read.unsigned_abs()));
        let current = u64::from(newest.is_some());
        let before = windows_read.saturating_sub(u64::from(read_start.is_some() && read_start == newest));
        if current + before > count || read_start > newest {
            self.tell(|| {
                format!("{place}: {windows_read} windows read, the last {read_start:?}, of {count} sealed for it, the last {newest:?}")
            });
        }
        let unread = count.saturating_sub(current + before);
        let pull = PullAccount { sealed: count, current, read: before, unread };
        let deleted = store.deleted.is_some();
        Ok(StoreAudit { store: store.name.clone(), deleted, push: None, reasons: BTreeMap::new(), pull: Some(pull) })
    }
}
