//! Deliveries and attempts: what each push store was owed, what became of it, in points; and who read the pull stores.
//!
//! due = confirmed + sent + refused + excluded + open + expired + cancelled holds in every row by a CHECK of the table.

use crate::config::StoreId;
use crate::{Catalog, CatalogError};
use model::{Period, Stamp, Window};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use std::collections::BTreeMap;

/// Attempts kept for each store's page.
const ATTEMPTS_KEPT: i64 = 1_000;
/// Different reasons kept of one delivery's fate; points of further ones are counted together.
const REASONS_KEPT: usize = 20;
/// Characters kept of a reason.
const REASON_CHARS: usize = 200;
/// Where the points of further reasons are counted.
const OTHER_REASONS: &str = "other reasons";

/// A window of one store: its live delivery, or the one of a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The window.
    pub window: Window,
    /// The backfill's number; 0 for the live delivery.
    pub backfill: i64,
}

impl From<Window> for Slot {
    fn from(window: Window) -> Slot {
        Slot { window, backfill: 0 }
    }
}

/// One (store, window) in the ledger, in points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// First second of the window.
    pub window_start: u64,
    /// Its period in seconds.
    pub period: u32,
    /// What became of its points.
    #[serde(flatten)]
    pub points: Ledger,
    /// Tries so far.
    pub attempts: u64,
    /// Set aside so that later windows could pass.
    pub aside: bool,
    /// The backfill that made it due; 0 for a live window.
    pub backfill: i64,
    /// Why points were refused, left out or expired, in points by fate and reason.
    pub reasons: Vec<Reason>,
    /// What a person should know, such as that bytes had gone out without a verdict.
    pub note: Option<String>,
}

/// Why some points came to their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `refused`, `excluded` or `expired`.
    pub fate: String,
    /// In words.
    pub reason: String,
    /// How many.
    pub points: u64,
}

/// The account of one store, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Windows with a delivery.
    pub windows: u64,
    /// Their points.
    #[serde(flatten)]
    pub points: Ledger,
    /// Tries at them.
    pub attempts: u64,
}

/// Points by fate. All but `open` are final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Owed in total.
    pub due: u64,
    /// The reply vouches for them.
    pub confirmed: u64,
    /// Gone out to a store that cannot or does not say.
    pub sent: u64,
    /// The store refused them.
    pub refused: u64,
    /// The encoder left them out.
    pub excluded: u64,
    /// Still to be sent.
    pub open: u64,
    /// Too old to be sent.
    pub expired: u64,
    /// Their store was deleted.
    pub cancelled: u64,
}

impl Ledger {
    /// Adds another account to this one.
    pub fn add(&mut self, other: &Ledger) {
        for (sum, one) in self.parts_mut().into_iter().zip(other.parts()) {
            *sum += one;
        }
    }

    /// `due` and its fates, in the order of the table's columns.
    pub(crate) fn parts(&self) -> [u64; 8] {
        [self.due, self.confirmed, self.sent, self.refused, self.excluded, self.open, self.expired, self.cancelled]
    }

    fn parts_mut(&mut self) -> [&mut u64; 8] {
        [
            &mut self.due,
            &mut self.confirmed,
            &mut self.sent,
            &mut self.refused,
            &mut self.excluded,
            &mut self.open,
            &mut self.expired,
            &mut self.cancelled,
        ]
    }

    /// `due` less everything it should be the sum of: 0 unless the ledger is broken.
    pub fn imbalance(&self) -> i128 {
        let parts = [self.confirmed, self.sent, self.refused, self.excluded, self.open, self.expired, self.cancelled];
        i128::from(self.due) - parts.into_iter().map(i128::from).sum::<i128>()
    }
}

/// A delivery with points still to be sent.
#[derive(Clone, Debug)]
pub struct OpenDelivery {
    /// The window.
    pub window: Window,
    /// The backfill that made it due; 0 for a live window.
    pub backfill: i64,
    /// The second in which a backfilled one became due.
    pub made: u64,
    /// What became of its points so far.
    pub points: Ledger,
    /// What is still to be sent, as `export` packed it before the first attempt; `None` before that.
    pub payload: Option<Vec<u8>>,
    /// Whether bytes have gone out without a verdict.
    pub unknown: bool,
}

/// What an attempt settled, in points, and what it left.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Vouched for.
    pub confirmed: u64,
    /// Gone out.
    pub sent: u64,
    /// Refused.
    pub refused: u64,
    /// Why, in points by reason; those without one were not named by the store.
    pub refused_for: Vec<(String, u64)>,
    /// Left out by the encoder.
    pub excluded: u64,
    /// Why, in points by reason.
    pub excluded_for: Vec<(String, u64)>,
    /// Too old.
    pub expired: u64,
    /// What is still to be sent.
    pub payload: Option<Vec<u8>>,
    /// Whether bytes went out without a verdict.
    pub unknown: bool,
    /// A note for people; `None` keeps the old one.
    pub note: Option<String>,
}

/// One try at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// First second of the window.
    pub window_start: u64,
    /// When it ended, Unix seconds.
    pub at: u64,
    /// The class of the reply: `ok`, `partial`, `drop`, `split`, `throttle`, `retry`, `config`.
    pub outcome: String,
    /// The reply or failure in words, without secrets.
    pub text: String,
    /// Points in it.
    pub points: u64,
    /// Bytes of its body.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// The last read of a pull store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PullRead {
    /// First second of the newest window served.
    pub window_start: u64,
    /// Windows read at least once.
    pub windows_read: u64,
    /// When, Unix seconds.
    pub at: u64,
    /// Address and user agent of the reader.
    pub reader: String,
    /// Bytes of the page.
    pub bytes: u64,
}

impl Catalog {
    /// The store's oldest window with open points. Windows set aside come after all others, those of a backfill after all live
    /// ones. `skip` leaves one out.
    pub fn oldest_open(&self, store: StoreId, skip: Option<Slot>) -> Result<Option<OpenDelivery>, CatalogError> {
        let (skipped, backfill) = skip.map_or((-1, -1), |slot| (slot.window.start_secs() as i64, slot.backfill));
        Ok(self
            .read()
            .prepare_cached(
                "SELECT period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, payload, unknown, backfill, made
                 FROM delivery WHERE store = ?1 AND open > 0 AND (start != ?2 OR backfill != ?3) ORDER BY backfill, aside, start LIMIT 1",
            )?
            .query_row(params![store.0, skipped, backfill], |row| {
                Ok(OpenDelivery {
                    window: window(row, 0)?,
                    points: ledger(row, 2)?,
                    payload: row.get(10)?,
                    unknown: row.get(11)?,
                    backfill: row.get(12)?,
                    made: row.get::<_, i64>(13)?.unsigned_abs(),
                })
            })
            .optional()?)
    }

    /// Keeps the bytes of a delivery before its first attempt, and settles the points the encoder left out.
    pub fn keep_payload(&self, store: StoreId, slot: impl Into<Slot>, settled: &Settled) -> Result<(), CatalogError> {
        self.settle(store, slot.into(), settled, 0)
    }

    /// Records an attempt and what it settled, in one transaction.
    pub fn record_attempt(&self, store: StoreId, slot: impl Into<Slot>, attempt: &Attempt, settled: &Settled) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        settle(&transaction, store, slot.into(), settled, 1)?;
        transaction
            .prepare_cached(
                "INSERT INTO attempt (store, start, at, outcome, text, points, bytes, millis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                store.0,
                attempt.window_start as i64,
                attempt.at as i64,
                attempt.outcome,
                attempt.text,
                attempt.points as i64,
                attempt.bytes as i64,
                attempt.millis as i64
            ])?;
        // Each time, as numbers are shared by all stores; it is one step in the index.
        transaction
            .prepare_cached(
                "DELETE FROM attempt WHERE store = ?1 AND id <= (SELECT id FROM attempt WHERE store = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![store.0, ATTEMPTS_KEPT])?;
        transaction.commit()?;
        self.count_change(store);
        Ok(())
    }

    /// Settles points without an attempt: those that have become too old.
    pub fn expire(&self, store: StoreId, slot: impl Into<Slot>, open: u64, note: &str) -> Result<(), CatalogError> {
        self.settle(store, slot.into(), &Settled { expired: open, note: Some(note.to_owned()), ..Settled::default() }, 0)
    }

    /// Lets later windows pass one that keeps failing; it is retried behind them.
    pub fn set_aside(&self, store: StoreId, slot: impl Into<Slot>) -> Result<(), CatalogError> {
        let Slot { window, backfill } = slot.into();
        self.write().execute(
            "UPDATE delivery SET aside = 1 WHERE store = ?1 AND period = ?2 AND start = ?3 AND backfill = ?4",
            params![store.0, window.period().secs(), window.start_secs() as i64, backfill],
        )?;
        Ok(())
    }

    fn settle(&self, store: StoreId, slot: Slot, settled: &Settled, attempts: i64) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        settle(&transaction, store, slot, settled, attempts)?;
        transaction.commit()?;
        self.count_change(store);
        Ok(())
    }

    /// The store's account over all its windows, as kept beside them: it costs the same however many there are.
    pub fn ledger(&self, store: StoreId) -> Result<Ledger, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT due, confirmed, sent, refused, excluded, open, expired, cancelled FROM ledger_total WHERE store = ?1")?
            .query_row([store.0], |row| ledger(row, 0))
            .optional()?
            .unwrap_or_default())
    }

    /// The accounts of every store there ever was: one row a store.
    pub fn totals(&self) -> Result<Vec<(StoreId, Total)>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT store, windows, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts FROM ledger_total",
        )?;
        let rows = statement.query_map([], |row| {
            let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok((StoreId(row.get(0)?), Total { windows: n(1)?, points: ledger(row, 2)?, attempts: n(10)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Open points of a store's live windows that start before a second, and how many windows they are in.
    pub fn open_before(&self, store: StoreId, before_secs: u64) -> Result<(u64, u64), CatalogError> {
        Ok(self
            .read()
            .prepare_cached(
                "SELECT count(*), coalesce(sum(open), 0) FROM delivery WHERE store = ?1 AND open > 0 AND backfill = 0 AND start < ?2",
            )?
            .query_row(params![store.0, before_secs as i64], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })?)
    }

    /// Live windows with open points, and the first second of the oldest.
    pub fn backlog(&self, store: StoreId) -> Result<(u64, Option<u64>), CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT count(*), min(start) FROM delivery WHERE store = ?1 AND open > 0 AND backfill = 0")?
            .query_row([store.0], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs))))?)
    }

    /// The store's newest windows, or those of a span, newest first.
    pub fn deliveries(&self, store: StoreId, from_secs: u64, to_secs: u64, limit: u32) -> Result<Vec<Delivery>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts, aside, note, backfill
             FROM delivery WHERE store = ?1 AND start >= ?2 AND start < ?3 ORDER BY start DESC LIMIT ?4",
        )?;
        let until = i64::try_from(to_secs).unwrap_or(i64::MAX);
        let from = i64::try_from(from_secs).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![store.0, from, until, limit], |row| {
            Ok(Delivery {
                period: row.get(0)?,
                window_start: row.get::<_, i64>(1)?.unsigned_abs(),
                points: ledger(row, 2)?,
                attempts: row.get::<_, i64>(10)?.unsigned_abs(),
                aside: row.get(11)?,
                note: row.get(12)?,
                backfill: row.get(13)?,
                reasons: Vec::new(),
            })
        })?;
        let mut deliveries = rows.collect::<Result<Vec<Delivery>, _>>()?;
        let mut reasons = connection.prepare_cached(
            "SELECT fate, reason, points FROM delivery_reason WHERE store = ?1 AND period = ?2 AND start = ?3 AND backfill = ?4
             ORDER BY fate, reason",
        )?;
        for one in deliveries.iter_mut().filter(|one| one.points.refused + one.points.excluded + one.points.expired > 0) {
            let rows = reasons.query_map(params![store.0, one.period, one.window_start as i64, one.backfill], |row| {
                Ok(Reason { fate: row.get(0)?, reason: row.get(1)?, points: row.get::<_, i64>(2)?.unsigned_abs() })
            })?;
            one.reasons = rows.collect::<Result<_, _>>()?;
        }
        Ok(deliveries)
    }

    /// The store's newest attempts, newest first.
    pub fn attempts(&self, store: StoreId, limit: u32) -> Result<Vec<Attempt>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT start, at, outcome, text, points, bytes, millis FROM attempt WHERE store = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![store.0, limit], |row| {
            let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(Attempt {
                window_start: n(0)?,
                at: n(1)?,
                outcome: row.get(2)?,
                text: row.get(3)?,
                points: n(4)?,
                bytes: n(5)?,
                millis: n(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records that a pull store was read. The newest window served never goes back.
    pub fn record_read(&self, store: StoreId, window: Window, at: Stamp, reader: &str, bytes: u64) -> Result<(), CatalogError> {
        self.write().execute(
            "INSERT INTO pull_read (store, start, windows_read, at, reader, bytes) VALUES (?1, ?2, 1, ?3, ?4, ?5)
             ON CONFLICT (store) DO UPDATE SET windows_read = windows_read + iif(excluded.start > start, 1, 0),
               start = max(start, excluded.start), at = excluded.at, reader = excluded.reader, bytes = excluded.bytes",
            params![store.0, window.start_secs() as i64, at.secs() as i64, reader, bytes as i64],
        )?;
        self.count_change(store);
        Ok(())
    }

    /// The last read of a pull store.
    pub fn pull_read(&self, store: StoreId) -> Result<Option<PullRead>, CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT start, windows_read, at, reader, bytes FROM pull_read WHERE store = ?1")?
            .query_row([store.0], |row| {
                let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
                Ok(PullRead { window_start: n(0)?, windows_read: n(1)?, at: n(2)?, reader: row.get(3)?, bytes: n(4)? })
            })
            .optional()?)
    }
}

fn settle(transaction: &Transaction<'_>, store: StoreId, slot: Slot, settled: &Settled, attempts: i64) -> Result<(), CatalogError> {
    let (period, start) = (slot.window.period().secs(), slot.window.start_secs() as i64);
    let final_points = settled.confirmed + settled.sent + settled.refused + settled.excluded + settled.expired;
    let [confirmed, sent, refused, excluded, expired, final_points] =
        [settled.confirmed, settled.sent, settled.refused, settled.excluded, settled.expired, final_points].map(|n| n as i64);
    // A store deleted meanwhile has had its open points cancelled: what the attempt settled is no longer open then.
    let settled_rows = transaction
        .prepare_cached(
            "UPDATE delivery SET
               confirmed = confirmed + ?4, sent = sent + ?5, refused = refused + ?6, excluded = excluded + ?7, expired = expired + ?8,
               open = open - ?9, attempts = attempts + ?10, unknown = ?11, note = coalesce(?12, note),
               payload = iif(open - ?9 > 0, ?13, NULL)
             WHERE store = ?1 AND period = ?2 AND start = ?3 AND backfill = ?14 AND open >= ?9 AND open > 0",
        )?
        .execute(params![
            store.0,
            period,
            start,
            confirmed,
            sent,
            refused,
            excluded,
            expired,
            final_points,
            attempts,
            settled.unknown,
            settled.note,
            settled.payload,
            slot.backfill
        ])?;
    if settled_rows == 0 {
        return Ok(());
    }
    let note = settled.note.as_deref().unwrap_or("not named by the store");
    for (fate, points, named) in [
        ("refused", settled.refused, settled.refused_for.as_slice()),
        ("excluded", settled.excluded, &settled.excluded_for),
        ("expired", settled.expired, &[]),
    ] {
        for (reason, points) in reasons(points, named, note) {
            count_reason(transaction, store, slot, fate, &reason, points)?;
        }
    }
    add_to_total(transaction, store, 0, [0, confirmed, sent, refused, excluded, -final_points, expired, 0], attempts)
}

/// The reasons of so many points, the unnamed ones under `note`; never more points than there are.
fn reasons(points: u64, named: &[(String, u64)], note: &str) -> BTreeMap<String, u64> {
    let (mut left, mut sum) = (points, BTreeMap::new());
    for (reason, count) in named {
        let taken = left.min(*count);
        left -= taken;
        *sum.entry(reason.chars().take(REASON_CHARS).collect()).or_default() += taken;
    }
    *sum.entry(note.chars().take(REASON_CHARS).collect()).or_default() += left;
    sum.retain(|_, points| *points > 0);
    sum
}

fn count_reason(
    transaction: &Transaction<'_>,
    store: StoreId,
    slot: Slot,
    fate: &str,
    reason: &str,
    points: u64,
) -> Result<(), CatalogError> {
    let (period, start) = (slot.window.period().secs(), slot.window.start_secs() as i64);
    let known: i64 = transaction
        .prepare_cached(
            "SELECT count(*) FROM delivery_reason
             WHERE store = ?1 AND period = ?2 AND start = ?3 AND backfill = ?4 AND fate = ?5 AND reason != ?6",
        )?
        .query_row(params![store.0, period, start, slot.backfill, fate, reason], |row| row.get(0))?;
    let reason = if known as usize >= REASONS_KEPT { OTHER_REASONS } else { reason };
    transaction
        .prepare_cached(
            "INSERT INTO delivery_reason (store, period, start, backfill, fate, reason, points) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET points = points + excluded.points",
        )?
        .execute(params![store.0, period, start, slot.backfill, fate, reason, points as i64])?;
    Ok(())
}

/// Keeps a store's sums in step with its deliveries. `points` are `due` and its fates, in the order of the columns.
pub(crate) fn add_to_total(
    transaction: &Transaction<'_>,
    store: StoreId,
    windows: i64,
    points: [i64; 8],
    attempts: i64,
) -> Result<(), CatalogError> {
    let [due, confirmed, sent, refused, excluded, open, expired, cancelled] = points;
    transaction
        .prepare_cached(
            "INSERT INTO ledger_total (store, windows, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (store) DO UPDATE SET windows = windows + excluded.windows, due = due + excluded.due,
               confirmed = confirmed + excluded.confirmed, sent = sent + excluded.sent, refused = refused + excluded.refused,
               \"excluded\" = ledger_total.\"excluded\" + ?7, open = open + excluded.open, expired = expired + excluded.expired,
               cancelled = cancelled + excluded.cancelled, attempts = attempts + excluded.attempts",
        )?
        .execute(params![store.0, windows, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts])?;
    Ok(())
}

/// Owes a store the points of a window; a store deleted since the window began owes nothing.
pub(crate) fn owe(transaction: &Transaction<'_>, store: StoreId, slot: Slot, points: u64, made: Stamp) -> Result<(), CatalogError> {
    let made = if slot.backfill == 0 { 0 } else { made.secs() as i64 };
    let owed: Option<(i64, i64)> = transaction
        .prepare_cached(
            "INSERT INTO delivery (store, period, start, backfill, due, open, cancelled, made)
             SELECT id, ?2, ?3, ?4, ?5, iif(deleted IS NULL, ?5, 0), iif(deleted IS NULL, 0, ?5), ?6 FROM store WHERE id = ?1
             RETURNING open, cancelled",
        )?
        .query_row(
            params![store.0, slot.window.period().secs(), slot.window.start_secs() as i64, slot.backfill, points as i64, made],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match owed {
        Some((open, cancelled)) => add_to_total(transaction, store, 1, [points as i64, 0, 0, 0, 0, open, 0, cancelled], 0),
        None => Ok(()),
    }
}

/// Cancels what a store, or one backfill of it, still owed.
pub(crate) fn cancel_open(transaction: &Transaction<'_>, store: StoreId, backfill: Option<i64>) -> Result<(), CatalogError> {
    let open: i64 = transaction.query_row(
        "SELECT coalesce(sum(open), 0) FROM delivery WHERE store = ?1 AND open > 0 AND backfill = coalesce(?2, backfill)",
        params![store.0, backfill],
        |row| row.get(0),
    )?;
    transaction.execute(
        "UPDATE delivery SET cancelled = cancelled + open, open = 0, payload = NULL
         WHERE store = ?1 AND open > 0 AND backfill = coalesce(?2, backfill)",
        params![store.0, backfill],
    )?;
    if open > 0 { add_to_total(transaction, store, 0, [0, 0, 0, 0, 0, -open, 0, open], 0) } else { Ok(()) }
}

pub(crate) fn window(row: &Row<'_>, at: usize) -> rusqlite::Result<Window> {
    let (period, start) = (row.get::<_, u32>(at)?, row.get::<_, i64>(at + 1)?);
    Period::new(period)
        .and_then(|period| Window::new(start.unsigned_abs(), period))
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(at, start))
}

pub(crate) fn ledger(row: &Row<'_>, at: usize) -> rusqlite::Result<Ledger> {
    let n = |offset: usize| row.get::<_, i64>(at + offset).map(|n| n.max(0).unsigned_abs());
    Ok(Ledger { due: n(0)?, confirmed: n(1)?, sent: n(2)?, refused: n(3)?, excluded: n(4)?, open: n(5)?, expired: n(6)?, cancelled: n(7)? })
}
