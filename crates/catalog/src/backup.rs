//! A copy of the catalog while a server may be writing to it, and what a restored one has to forget. Does not know where backups
//! are kept, nor the reports that belong to them.

use crate::seal::{pack, unpack};
use crate::{CatalogError, connect, schema};
use rusqlite::{Connection, OpenFlags, params};
use std::path::Path;

/// The database's name in a data folder.
const FILE: &str = "catalog.sqlite";

/// Writes the catalog of `folder` as it is at one moment into the folder `to`, where there may be none yet. Secrets stay encrypted
/// under the key file, which is not copied. Blocks; a server goes on meanwhile.
pub fn copy(folder: &Path, to: &Path) -> Result<(), CatalogError> {
    let connection = Connection::open_with_flags(folder.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA busy_timeout = 10000; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    schema::expect_current(&connection)?;
    connection.execute("VACUUM INTO ?1", [to.join(FILE).to_string_lossy()])?;
    Ok(())
}

/// Whether the catalog of a folder holds secrets that only its key file opens.
pub fn needs_key(folder: &Path) -> Result<bool, CatalogError> {
    let connection = Connection::open_with_flags(folder.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    encrypts(&connection)
}

pub(crate) fn encrypts(connection: &Connection) -> Result<bool, CatalogError> {
    let query = "SELECT EXISTS (SELECT 1 FROM store_secret) OR EXISTS (SELECT 1 FROM token WHERE shown IS NOT NULL)";
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

/// Makes the running totals of all series begin anew. What was scraped after the backup is above what a restored total would say, and
/// a scraper takes any fall for a fresh start from 0: it would count the whole total once more. `anew` makes of a kept state of
/// series one without totals; `None` says that it cannot be read.
pub fn begin_counters_anew(folder: &Path, anew: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Result<(), CatalogError> {
    let mut connection = connect(&folder.join(FILE))?;
    schema::migrate(&mut connection)?;
    let transaction = connection.transaction()?;
    {
        let mut states = transaction.prepare("SELECT metric, period, state FROM series_state")?;
        let rows = states.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?)))?;
        for row in rows.collect::<Result<Vec<_>, _>>()? {
            let state = anew(&row.2).ok_or(CatalogError::Damaged("series state"))?;
            transaction.execute("UPDATE series_state SET state = ?3 WHERE metric = ?1 AND period = ?2", params![row.0, row.1, state])?;
        }
        // Pages show the newest window of each metric.
        let mut newest = transaction.prepare(
            "SELECT revision, period, start, points FROM sealed_metric AS one
             WHERE points IS NOT NULL AND start = (SELECT max(start) FROM sealed_metric WHERE revision = one.revision AND period = one.period)",
        )?;
        let rows = newest.query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get::<_, Vec<u8>>(3)?)))?;
        for ((revision, period, start), points) in rows.collect::<Result<Vec<((i64, i64, i64), _)>, _>>()? {
            let mut series = unpack(&points)?;
            series.iter_mut().flat_map(|one| &mut one.cells).for_each(|cell| cell.counter = None);
            transaction.execute(
                "UPDATE sealed_metric SET points = ?4 WHERE revision = ?1 AND period = ?2 AND start = ?3",
                params![revision, period, start, pack(&series)?],
            )?;
        }
    }
    transaction.commit()?;
    Ok(())
}
