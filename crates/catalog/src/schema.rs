//! The tables, as migrations that only go forward. Each runs in one transaction with its new version number.

use crate::CatalogError;
use rusqlite::Connection;

/// One entry a version; the database's `user_version` counts how many have run. Never edit a landed entry: append.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

    CREATE TABLE project (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, created INTEGER NOT NULL, deleted INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX project_name ON project (name) WHERE deleted IS NULL;

    -- `hash` is SHA-256 of the token's text. `shown` is the encrypted text of a submission token, which ships inside
    -- applications and so may be shown again; other tokens are shown once.
    CREATE TABLE token (
        id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, project INTEGER REFERENCES project (id),
        hash BLOB NOT NULL UNIQUE, shown BLOB, created INTEGER NOT NULL, revoked INTEGER
    ) STRICT;

    CREATE TABLE metric_set (
        id INTEGER PRIMARY KEY AUTOINCREMENT, project INTEGER NOT NULL REFERENCES project (id), name TEXT NOT NULL,
        created INTEGER NOT NULL, deleted INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX metric_set_name ON metric_set (project, name) WHERE deleted IS NULL;

    CREATE TABLE metric (
        id INTEGER PRIMARY KEY AUTOINCREMENT, metric_set INTEGER NOT NULL REFERENCES metric_set (id), name TEXT NOT NULL,
        created INTEGER NOT NULL, deleted INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX metric_name ON metric (metric_set, name) WHERE deleted IS NULL;
    CREATE TABLE metric_revision (
        id INTEGER PRIMARY KEY AUTOINCREMENT, metric INTEGER NOT NULL REFERENCES metric (id), number INTEGER NOT NULL,
        begins INTEGER NOT NULL, query TEXT NOT NULL, zero_for INTEGER, series_budget INTEGER NOT NULL,
        UNIQUE (metric, number)
    ) STRICT;

    CREATE TABLE store (
        id INTEGER PRIMARY KEY AUTOINCREMENT, project INTEGER NOT NULL REFERENCES project (id), name TEXT NOT NULL,
        created INTEGER NOT NULL, deleted INTEGER, paused INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX store_name ON store (project, name) WHERE deleted IS NULL;
    CREATE TABLE store_revision (
        id INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL REFERENCES store (id), number INTEGER NOT NULL,
        begins INTEGER NOT NULL, settings TEXT NOT NULL, UNIQUE (store, number)
    ) STRICT;
    CREATE TABLE store_secret (
        store INTEGER NOT NULL REFERENCES store (id), field TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (store, field)
    ) STRICT, WITHOUT ROWID;
    -- Secrets of pull URLs, looked up by hash; the text itself is a store secret.
    CREATE TABLE pull_secret (hash BLOB PRIMARY KEY, store INTEGER NOT NULL REFERENCES store (id)) STRICT, WITHOUT ROWID;

    -- How far each grid is sealed. `sealed_end` is in seconds.
    CREATE TABLE position (
        project INTEGER NOT NULL REFERENCES project (id), period INTEGER NOT NULL, sealed_end INTEGER NOT NULL,
        PRIMARY KEY (project, period)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sealed_window (
        project INTEGER NOT NULL REFERENCES project (id), period INTEGER NOT NULL, start INTEGER NOT NULL,
        coverage REAL NOT NULL, accepted INTEGER NOT NULL, refused TEXT NOT NULL, sealed_at INTEGER NOT NULL,
        PRIMARY KEY (project, period, start)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE gap (
        project INTEGER NOT NULL REFERENCES project (id), period INTEGER NOT NULL, start INTEGER NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (project, period, start)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sealed_metric (
        revision INTEGER NOT NULL REFERENCES metric_revision (id), period INTEGER NOT NULL, start INTEGER NOT NULL,
        failure TEXT, matched INTEGER NOT NULL, own INTEGER NOT NULL, folded INTEGER NOT NULL, left_out INTEGER NOT NULL,
        points BLOB, PRIMARY KEY (revision, period, start)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX sealed_metric_kept ON sealed_metric (start) WHERE points IS NOT NULL;
    CREATE TABLE series_state (
        metric INTEGER NOT NULL REFERENCES metric (id), period INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (metric, period)
    ) STRICT, WITHOUT ROWID;

    -- The ledger of push stores, in points: due = confirmed + sent + refused + excluded + open + expired + cancelled.
    CREATE TABLE delivery (
        store INTEGER NOT NULL REFERENCES store (id), period INTEGER NOT NULL, start INTEGER NOT NULL,
        due INTEGER NOT NULL, confirmed INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0, excluded INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL,
        expired INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, aside INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
        note TEXT, payload BLOB, PRIMARY KEY (store, period, start),
        CHECK (due = confirmed + sent + refused + excluded + open + expired + cancelled),
        CHECK (min(confirmed, sent, refused, excluded, open, expired, cancelled) >= 0)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivery_open ON delivery (store, aside, start) WHERE open > 0;
    CREATE TABLE attempt (
        id INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL REFERENCES store (id), start INTEGER NOT NULL,
        at INTEGER NOT NULL, outcome TEXT NOT NULL, text TEXT NOT NULL, points INTEGER NOT NULL, bytes INTEGER NOT NULL,
        millis INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX attempt_of_store ON attempt (store, id);

    -- Pull stores: the newest window each has served, so that a page never goes back, and who read it last.
    CREATE TABLE pull_read (
        store INTEGER PRIMARY KEY REFERENCES store (id), start INTEGER NOT NULL, windows_read INTEGER NOT NULL,
        at INTEGER NOT NULL, reader TEXT NOT NULL, bytes INTEGER NOT NULL
    ) STRICT;

    -- Spans in which nothing was accepted, in microseconds.
    CREATE TABLE downtime (since INTEGER PRIMARY KEY, until INTEGER NOT NULL) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- People. `hash` is the argon2id hash of the password in PHC form. A name may be given again once its user is deleted.
    CREATE TABLE user (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, role TEXT NOT NULL, hash TEXT NOT NULL,
        created INTEGER NOT NULL, disabled INTEGER, deleted INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX user_name ON user (name) WHERE deleted IS NULL;
    -- `hash` is SHA-256 of the session's token. `used` may lie a minute behind.
    CREATE TABLE session (
        hash BLOB PRIMARY KEY, user INTEGER NOT NULL REFERENCES user (id), created INTEGER NOT NULL, used INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- What people declare of attributes. `attribute` is the first of its aliases; `revision` counts the edits.
    CREATE TABLE attribute_setting (
        project INTEGER NOT NULL REFERENCES project (id), attribute TEXT NOT NULL, revision INTEGER NOT NULL, type TEXT,
        format TEXT NOT NULL, description TEXT NOT NULL, personal INTEGER NOT NULL, non_negative INTEGER NOT NULL,
        PRIMARY KEY (project, attribute)
    ) STRICT, WITHOUT ROWID;
    ",
    "
    -- What people have said about groups of reports; `modified` is in microseconds.
    CREATE TABLE issue (
        project INTEGER NOT NULL REFERENCES project (id), fingerprint TEXT NOT NULL, state TEXT NOT NULL, tags TEXT, ticket TEXT,
        assignee TEXT, modified INTEGER NOT NULL, modified_by TEXT NOT NULL, PRIMARY KEY (project, fingerprint)
    ) STRICT, WITHOUT ROWID;

    -- Queries that people keep, as their clients write them.
    CREATE TABLE view (
        id INTEGER PRIMARY KEY AUTOINCREMENT, project INTEGER NOT NULL REFERENCES project (id), name TEXT NOT NULL,
        queries TEXT NOT NULL, payload TEXT NOT NULL, UNIQUE (project, name)
    ) STRICT;
    ",
    // A pull URL that was rotated away is still served until this stamp, in microseconds.
    "
    ALTER TABLE pull_secret ADD COLUMN until INTEGER;
    ",
    "
    -- A span of windows from before a store, or a metric of it, began: filled from stored reports. `next` is how far it has come.
    CREATE TABLE backfill (
        id INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL REFERENCES store (id), period INTEGER NOT NULL,
        since INTEGER NOT NULL, next INTEGER NOT NULL, until INTEGER NOT NULL, sets TEXT NOT NULL, created INTEGER NOT NULL,
        ended INTEGER, outcome TEXT, windows INTEGER NOT NULL DEFAULT 0, passed_over INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE backfill_state (
        backfill INTEGER NOT NULL REFERENCES backfill (id), metric INTEGER NOT NULL REFERENCES metric (id), state BLOB NOT NULL,
        PRIMARY KEY (backfill, metric)
    ) STRICT, WITHOUT ROWID;
    -- Points that a backfill has sealed: live sealing owes none for them.
    ALTER TABLE sealed_metric ADD COLUMN backfill INTEGER NOT NULL DEFAULT 0;

    -- The deliveries again: those of a backfill stand beside the live ones, whose `backfill` is 0. `made` is the second in which a
    -- backfilled one became due.
    CREATE TABLE delivery_made_anew (
        store INTEGER NOT NULL REFERENCES store (id), period INTEGER NOT NULL, start INTEGER NOT NULL, backfill INTEGER NOT NULL DEFAULT 0,
        due INTEGER NOT NULL, confirmed INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0, excluded INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL,
        expired INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, aside INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
        made INTEGER NOT NULL DEFAULT 0, note TEXT, payload BLOB, PRIMARY KEY (store, period, start, backfill),
        CHECK (due = confirmed + sent + refused + excluded + open + expired + cancelled),
        CHECK (min(confirmed, sent, refused, excluded, open, expired, cancelled) >= 0)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO delivery_made_anew (store, period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts, aside,
                                    unknown, note, payload)
        SELECT store, period, start, due, confirmed, sent, refused, excluded, open, expired, cancelled, attempts, aside, unknown, note, payload
        FROM delivery;
    DROP TABLE delivery;
    ALTER TABLE delivery_made_anew RENAME TO delivery;
    CREATE INDEX delivery_open ON delivery (store, backfill, aside, start) WHERE open > 0;

    -- Why points were refused, left out or expired: the sum of a delivery's reasons is its points of these fates.
    CREATE TABLE delivery_reason (
        store INTEGER NOT NULL REFERENCES store (id), period INTEGER NOT NULL, start INTEGER NOT NULL, backfill INTEGER NOT NULL,
        fate TEXT NOT NULL, reason TEXT NOT NULL, points INTEGER NOT NULL, PRIMARY KEY (store, period, start, backfill, fate, reason)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO delivery_reason SELECT store, period, start, 0, 'refused', coalesce(note, 'not kept'), refused FROM delivery WHERE refused > 0;
    INSERT INTO delivery_reason SELECT store, period, start, 0, 'excluded', coalesce(note, 'not kept'), excluded FROM delivery WHERE excluded > 0;
    INSERT INTO delivery_reason SELECT store, period, start, 0, 'expired', coalesce(note, 'not kept'), expired FROM delivery WHERE expired > 0;

    -- The sums of each store's deliveries, kept in the transactions that change them; an audit compares both.
    CREATE TABLE ledger_total (
        store INTEGER PRIMARY KEY REFERENCES store (id), windows INTEGER NOT NULL, due INTEGER NOT NULL, confirmed INTEGER NOT NULL,
        sent INTEGER NOT NULL, refused INTEGER NOT NULL, excluded INTEGER NOT NULL, open INTEGER NOT NULL, expired INTEGER NOT NULL,
        cancelled INTEGER NOT NULL, attempts INTEGER NOT NULL
    ) STRICT;
    INSERT INTO ledger_total
        SELECT store, count(*), sum(due), sum(confirmed), sum(sent), sum(refused), sum(excluded), sum(open), sum(expired), sum(cancelled),
               sum(attempts) FROM delivery GROUP BY store;
    ",
    // In which project something was changed; unknown for entries of before, none for what belongs to the whole server.
    "
    ALTER TABLE audit ADD COLUMN project INTEGER REFERENCES project (id);
    ",
    // A view is either a Backtrace client's (`queries`, `payload`) or a search of Explore. And which windows points are still needed for.
    "
    ALTER TABLE view ADD COLUMN search TEXT;
    ALTER TABLE view ADD COLUMN saved_by TEXT;
    CREATE INDEX delivery_needed ON delivery (period, start) WHERE open > 0;
    ",
];

/// Brings a database to this program's version; refuses one that a newer program has written.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), CatalogError> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?.try_into().unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(CatalogError::Newer { found: version, known: MIGRATIONS.len() });
    }
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", (at + 1) as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Refuses a database of another version: who only reads cannot bring it up.
pub(crate) fn expect_current(connection: &Connection) -> Result<(), CatalogError> {
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?.try_into().unwrap_or(usize::MAX);
    match found.cmp(&MIGRATIONS.len()) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(CatalogError::Older { found, known: MIGRATIONS.len() }),
        std::cmp::Ordering::Greater => Err(CatalogError::Newer { found, known: MIGRATIONS.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements that made a database's tables and indices.
    fn schema(connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").expect("a table");
        statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("texts")
    }

    #[test]
    fn a_database_of_any_earlier_version_is_brought_up_with_its_rows() {
        let mut new = Connection::open_in_memory().expect("opens");
        migrate(&mut new).expect("made");
        for version in 1..=MIGRATIONS.len() {
            let mut old = Connection::open_in_memory().expect("opens");
            MIGRATIONS[..version].iter().for_each(|migration| old.execute_batch(migration).expect("it once ran"));
            old.pragma_update(None, "user_version", version as i64).expect("set");
            old.execute("INSERT INTO project (name, created) VALUES ('kept', 1)", []).expect("a row");
            migrate(&mut old).expect("brought up");
            assert_eq!(schema(&old), schema(&new), "from version {version}");
            let kept: String = old.query_row("SELECT name FROM project", [], |row| row.get(0)).expect("a row");
            assert_eq!(kept, "kept");
        }
    }

    #[test]
    fn deliveries_of_before_there_were_sums_get_theirs_and_pull_urls_no_end() {
        let mut old = Connection::open_in_memory().expect("opens");
        MIGRATIONS[..3].iter().for_each(|migration| old.execute_batch(migration).expect("it once ran"));
        old.pragma_update(None, "user_version", 3).expect("set");
        old.execute_batch(
            "INSERT INTO project (id, name, created) VALUES (1, 'p', 1);
             INSERT INTO store (id, project, name, created) VALUES (7, 1, 's', 1);
             INSERT INTO pull_secret (hash, store) VALUES (x'01', 7);
             INSERT INTO delivery (store, period, start, due, refused, expired, open, attempts, note) VALUES (7, 60, 0, 9, 4, 5, 0, 2, 'HTTP 400');
             INSERT INTO delivery (store, period, start, due, open, payload) VALUES (7, 60, 60, 3, 3, x'02');",
        )
        .expect("rows");
        migrate(&mut old).expect("brought up");
        let texts = |sql: &str| -> Vec<String> {
            let mut statement = old.prepare(sql).expect("sound");
            statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("texts")
        };
        assert_eq!(texts("SELECT concat_ws(' ', windows, due, refused, expired, open, attempts) FROM ledger_total"), ["2 12 4 5 3 2"]);
        assert_eq!(
            texts("SELECT concat_ws(' ', start, fate, points, reason) FROM delivery_reason ORDER BY fate"),
            ["0 expired 5 HTTP 400", "0 refused 4 HTTP 400"]
        );
        assert_eq!(texts("SELECT concat_ws(' ', start, backfill, hex(payload)) FROM delivery WHERE open > 0"), ["60 0 02"]);
        assert_eq!(texts("SELECT coalesce(until, 'none') FROM pull_secret"), ["none"]);
    }
}
