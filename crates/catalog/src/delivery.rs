//! Deliveries and attempts: what each push store was owed, what became of it, in points; and who read the pull stores.
//!
//! due = confirmed + sent + refused + excluded + open + expired + cancelled holds in every row by a CHECK of the table.

use crate::config::StoreId;
use crate::{Catalog, CatalogError};
use model::{Period, Stamp, Window};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

/// Attempts kept for each store's page.
const ATTEMPTS_KEPT: i64 = 1_000;

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
    /// What a person should know, such as that bytes had gone out without a verdict.
    pub note: Option<String>,
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
    /// Left out by the encoder.
    pub excluded: u64,
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
    /// The store's oldest window with open points; windows set aside come after all others. `skip` leaves one window out.
    pub fn oldest_open(&self, store: StoreId, skip: Option<Window>) -> Result<Option<OpenDelivery>, CatalogError> {
        let skip = skip.map_or(-1, |window| window.start_secs() as i64);
        let found = self
            .read()
            .prepare_cached(
                "SELECT period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, payload, unknown FROM delivery
                 WHERE store = ?1 AND open > 0 AND start != ?2 ORDER BY aside, start LIMIT 1",
            )?
            .query_row(params![store.0, skip], |row| Ok((window(row, 0)?, ledger(row, 2)?, row.get(10)?, row.get(11)?)))
            .optional()?;
        Ok(found.map(|(window, points, payload, unknown)| OpenDelivery { window, points, payload, unknown }))
    }

    /// Keeps the bytes of a delivery before its first attempt, and settles the points the encoder left out.
    pub fn keep_payload(&self, store: StoreId, window: Window, settled: &Settled) -> Result<(), CatalogError> {
        self.settle(store, window, settled, 0)
    }

    /// Records an attempt and what it settled, in one transaction.
    pub fn record_attempt(&self, store: StoreId, window: Window, attempt: &Attempt, settled: &Settled) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        settle(&transaction, store, window, settled, 1)?;
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
        let newest = transaction.last_insert_rowid();
        if newest % 100 == 0 {
            transaction.execute(
                "DELETE FROM attempt WHERE store = ?1 AND id <= (SELECT id FROM attempt WHERE store = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![store.0, ATTEMPTS_KEPT],
            )?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Settles points without an attempt: those that have become too old.
    pub fn expire(&self, store: StoreId, window: Window, open: u64, note: &str) -> Result<(), CatalogError> {
        self.settle(store, window, &Settled { expired: open, note: Some(note.to_owned()), ..Settled::default() }, 0)
    }

    /// Lets later windows pass one that keeps failing; it is retried behind them.
    pub fn set_aside(&self, store: StoreId, window: Window) -> Result<(), CatalogError> {
        self.write().execute(
            "UPDATE delivery SET aside = 1 WHERE store = ?1 AND period = ?2 AND start = ?3",
            params![store.0, window.period().secs(), window.start_secs() as i64],
        )?;
        Ok(())
    }

    fn settle(&self, store: StoreId, window: Window, settled: &Settled, attempts: i64) -> Result<(), CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        settle(&transaction, store, window, settled, attempts)?;
        transaction.commit()?;
        Ok(())
    }

    /// The store's account over all its windows.
    pub fn ledger(&self, store: StoreId) -> Result<Ledger, CatalogError> {
        Ok(self
            .read()
            .prepare_cached(
                "SELECT coalesce(sum(due), 0), coalesce(sum(confirmed), 0), coalesce(sum(sent), 0), coalesce(sum(refused), 0),
                        coalesce(sum(excluded), 0), coalesce(sum(open), 0), coalesce(sum(expired), 0), coalesce(sum(cancelled), 0)
                 FROM delivery WHERE store = ?1",
            )?
            .query_row([store.0], |row| ledger(row, 0))?)
    }

    /// Windows with open points, and the first second of the oldest.
    pub fn backlog(&self, store: StoreId) -> Result<(u64, Option<u64>), CatalogError> {
        Ok(self
            .read()
            .prepare_cached("SELECT count(*), min(start) FROM delivery WHERE store = ?1 AND open > 0")?
            .query_row([store.0], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs))))?)
    }

    /// The store's newest windows, or those of a span, newest first.
    pub fn deliveries(&self, store: StoreId, from_secs: u64, to_secs: u64, limit: u32) -> Result<Vec<Delivery>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts, aside, note FROM delivery
             WHERE store = ?1 AND start >= ?2 AND start < ?3 ORDER BY start DESC LIMIT ?4",
        )?;
        let until = i64::try_from(to_secs).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![store.0, from_secs as i64, until, limit], |row| {
            Ok(Delivery {
                period: row.get(0)?,
                window_start: row.get::<_, i64>(1)?.unsigned_abs(),
                points: ledger(row, 2)?,
                attempts: row.get::<_, i64>(10)?.unsigned_abs(),
                aside: row.get(11)?,
                note: row.get(12)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
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

fn settle(
    transaction: &rusqlite::Transaction<'_>,
    store: StoreId,
    window: Window,
    settled: &Settled,
    attempts: i64,
) -> Result<(), CatalogError> {
    let final_points = settled.confirmed + settled.sent + settled.refused + settled.excluded + settled.expired;
    let [confirmed, sent, refused, excluded, expired, final_points] =
        [settled.confirmed, settled.sent, settled.refused, settled.excluded, settled.expired, final_points].map(|n| n as i64);
    // A store deleted meanwhile has had its open points cancelled: what the attempt settled is no longer open then.
    transaction
        .prepare_cached(
            "UPDATE delivery SET
               confirmed = confirmed + ?4, sent = sent + ?5, refused = refused + ?6, excluded = excluded + ?7, expired = expired + ?8,
               open = open - ?9, attempts = attempts + ?10, unknown = ?11, note = coalesce(?12, note),
               payload = iif(open - ?9 > 0, ?13, NULL)
             WHERE store = ?1 AND period = ?2 AND start = ?3 AND open >= ?9 AND open > 0",
        )?
        .execute(params![
            store.0,
            window.period().secs(),
            window.start_secs() as i64,
            confirmed,
            sent,
            refused,
            excluded,
            expired,
            final_points,
            attempts,
            settled.unknown,
            settled.note,
            settled.payload
        ])?;
    Ok(())
}

fn window(row: &Row<'_>, at: usize) -> rusqlite::Result<Window> {
    let (period, start) = (row.get::<_, u32>(at)?, row.get::<_, i64>(at + 1)?);
    Period::new(period)
        .and_then(|period| Window::new(start.unsigned_abs(), period))
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(at, start))
}

fn ledger(row: &Row<'_>, at: usize) -> rusqlite::Result<Ledger> {
    let n = |offset: usize| row.get::<_, i64>(at + offset).map(i64::unsigned_abs);
    Ok(Ledger { due: n(0)?, confirmed: n(1)?, sent: n(2)?, refused: n(3)?, excluded: n(4)?, open: n(5)?, expired: n(6)?, cancelled: n(7)? })
}
