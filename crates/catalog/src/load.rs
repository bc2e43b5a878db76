//! Reads the whole configuration into a snapshot.

use crate::attribute::{self, AttributeSetting};
use crate::config::*;
use crate::secrets::Cipher;
use crate::token::Access;
use crate::user::User;
use crate::{CatalogError, edit};
use model::{ProjectId, Query, Secret, Stamp};
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, HashMap, HashSet};

pub(crate) fn snapshot(connection: &Connection, cipher: &Cipher, version: u64) -> Result<Snapshot, CatalogError> {
    // What was deleted before the earliest window still to be sealed or encoded governs nothing any more.
    let sealed: i64 = connection.query_row(
        "SELECT min(coalesce((SELECT min(sealed_end) FROM position), 0), coalesce((SELECT min(start) FROM delivery WHERE open > 0), ?1)) * 1000000",
        [i64::from(u32::MAX)],
        |row| row.get(0),
    )?;
    let needed_since = sealed.min(first_of_new_grids(connection)?);
    Ok(Snapshot {
        version,
        projects: projects(connection)?,
        metrics: metrics(connection, needed_since)?,
        stores: stores(connection, Some(cipher), needed_since)?,
        tokens: tokens(connection)?,
        pulls: pulls(connection)?,
        users: users(connection)?,
        attribute_settings: attribute_settings(connection)?,
    })
}

/// Where the first window begins, in microseconds, of those grids of which none has been sealed yet.
fn first_of_new_grids(connection: &Connection) -> Result<i64, CatalogError> {
    let mut statement = connection.prepare("SELECT project, period FROM position")?;
    let sealed = statement.query_map([], |row| Ok((ProjectId(row.get(0)?), row.get(1)?)))?;
    let sealed: HashSet<(ProjectId, u32)> = sealed.collect::<Result<_, _>>()?;
    let mut first = i64::MAX;
    for store in stores(connection, None, -1)? {
        for (at, revision) in store.revisions.iter().enumerate() {
            let settings = &revision.settings;
            let window = settings.period.first_window_from(store.takes_over(at).1);
            // One that was replaced or deleted before its first window made no grid.
            let governs = store.in_force(window.start()).is_some_and(|one| one.number == revision.number);
            if settings.enabled && governs && !sealed.contains(&(store.project, settings.period.secs())) {
                first = first.min(window.start().micros() as i64);
            }
        }
    }
    Ok(first)
}

fn projects(connection: &Connection) -> Result<Vec<Project>, CatalogError> {
    let mut sets: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in connection
        .prepare("SELECT project, name FROM metric_set WHERE deleted IS NULL ORDER BY name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
    {
        let (project, name) = row?;
        sets.entry(project).or_default().push(name);
    }
    let mut statement = connection.prepare("SELECT id, name, created FROM project WHERE deleted IS NULL ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        let id: u32 = row.get(0)?;
        Ok(Project { id: ProjectId(id), name: row.get(1)?, created: stamp(row, 2)?, sets: sets.remove(&id).unwrap_or_default() })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn metrics(connection: &Connection, needed_since: i64) -> Result<Vec<Metric>, CatalogError> {
    let mut statement = connection.prepare(
        "SELECT metric.id, metric_set.project, metric_set.name, metric.name, metric.deleted,
                revision.id, revision.number, revision.begins, revision.query, revision.zero_for, revision.series_budget
         FROM metric JOIN metric_set ON metric_set.id = metric.metric_set JOIN metric_revision AS revision ON revision.metric = metric.id
         WHERE metric.deleted IS NULL OR metric.deleted > ?1
         ORDER BY metric_set.project, metric_set.name, metric.name, metric.id, revision.number",
    )?;
    let mut metrics: Vec<Metric> = Vec::new();
    let mut rows = statement.query([needed_since])?;
    while let Some(row) = rows.next()? {
        let id = MetricId(row.get(0)?);
        if metrics.last().is_none_or(|metric| metric.id != id) {
            metrics.push(Metric {
                id,
                project: ProjectId(row.get(1)?),
                set: row.get(2)?,
                name: row.get(3)?,
                deleted: optional_stamp(row, 4)?,
                revisions: Vec::new(),
            });
        }
        let mut query: Query = serde_json::from_str(&row.get::<_, String>(8)?).map_err(|_| CatalogError::Damaged("query"))?;
        query.compile().map_err(|_| CatalogError::Damaged("query"))?;
        let revision = MetricRevision {
            id: RevisionId(row.get(5)?),
            number: row.get(6)?,
            begins: stamp(row, 7)?,
            query,
            zero_for: row.get::<_, Option<i64>>(9)?.map(|seconds| seconds.unsigned_abs()),
            series_budget: row.get(10)?,
        };
        metrics.last_mut().expect("pushed above").revisions.push(revision);
    }
    Ok(metrics)
}

/// Stores, without their secrets where there is no cipher.
pub(crate) fn stores(connection: &Connection, cipher: Option<&Cipher>, needed_since: i64) -> Result<Vec<Store>, CatalogError> {
    let mut secrets: HashMap<i64, BTreeMap<String, Secret>> = HashMap::new();
    let mut statement = connection.prepare("SELECT store, field, sealed FROM store_secret")?;
    let mut rows = statement.query([])?;
    while let (Some(row), Some(cipher)) = (rows.next()?, cipher) {
        let (store, field): (i64, String) = (row.get(0)?, row.get(1)?);
        let text = cipher.decrypt(&row.get::<_, Vec<u8>>(2)?, &edit::secret_place(StoreId(store), &field))?;
        secrets.entry(store).or_default().insert(field, Secret::new(text));
    }
    let mut statement = connection.prepare(
        "SELECT store.id, store.project, store.name, store.deleted, store.paused, revision.number, revision.begins, revision.settings
         FROM store JOIN store_revision AS revision ON revision.store = store.id
         WHERE store.deleted IS NULL OR store.deleted > ?1
         ORDER BY store.project, store.name, store.id, revision.number",
    )?;
    let mut stores: Vec<Store> = Vec::new();
    let mut rows = statement.query([needed_since])?;
    while let Some(row) = rows.next()? {
        let id = StoreId(row.get(0)?);
        if stores.last().is_none_or(|store| store.id != id) {
            stores.push(Store {
                id,
                project: ProjectId(row.get(1)?),
                name: row.get(2)?,
                deleted: optional_stamp(row, 3)?,
                paused: row.get(4)?,
                secrets: secrets.remove(&id.0).unwrap_or_default(),
                revisions: Vec::new(),
            });
        }
        let settings = serde_json::from_str(&row.get::<_, String>(7)?).map_err(|_| CatalogError::Damaged("store setting"))?;
        stores.last_mut().expect("pushed above").revisions.push(StoreRevision { number: row.get(5)?, begins: stamp(row, 6)?, settings });
    }
    Ok(stores)
}

fn tokens(connection: &Connection) -> Result<HashMap<[u8; 32], Access>, CatalogError> {
    let mut statement = connection.prepare(
        "SELECT token.hash, token.id, token.scope, token.project FROM token LEFT JOIN project ON project.id = token.project
         WHERE token.revoked IS NULL AND project.deleted IS NULL",
    )?;
    let rows = statement.query_map([], |row| {
        let scope: String = row.get(2)?;
        Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, scope, row.get::<_, Option<u32>>(3)?))
    })?;
    let mut tokens = HashMap::new();
    for row in rows {
        let (hash, id, scope, project) = row?;
        let scope = scope.parse().map_err(|_| CatalogError::Damaged("token scope"))?;
        tokens.insert(hash, Access { id, scope, project: project.map(ProjectId) });
    }
    Ok(tokens)
}

fn pulls(connection: &Connection) -> Result<HashMap<[u8; 32], PullUrl>, CatalogError> {
    let mut statement = connection.prepare(
        "SELECT pull_secret.hash, store.id, pull_secret.until
         FROM pull_secret JOIN store ON store.id = pull_secret.store WHERE store.deleted IS NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, PullUrl { store: StoreId(row.get(1)?), until: optional_stamp(row, 2)? })))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn users(connection: &Connection) -> Result<Vec<User>, CatalogError> {
    let mut statement = connection.prepare("SELECT id, name, role, created, disabled FROM user WHERE deleted IS NULL ORDER BY name")?;
    let mut users = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let role = row.get::<_, String>(2)?.parse().map_err(|_| CatalogError::Damaged("user's role"))?;
        users.push(User { id: UserId(row.get(0)?), name: row.get(1)?, role, created: stamp(row, 3)?, disabled: optional_stamp(row, 4)? });
    }
    Ok(users)
}

fn attribute_settings(connection: &Connection) -> Result<Vec<AttributeSetting>, CatalogError> {
    let mut statement = connection.prepare(
        "SELECT project, attribute, revision, type, format, description, personal, non_negative FROM attribute_setting
         ORDER BY project, attribute",
    )?;
    let mut settings = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        settings.push(AttributeSetting {
            project: ProjectId(row.get(0)?),
            attribute: row.get(1)?,
            revision: row.get(2)?,
            declared: attribute::read(row, 3)?,
        });
    }
    Ok(settings)
}

fn stamp(row: &Row<'_>, at: usize) -> rusqlite::Result<Stamp> {
    Ok(Stamp::from_micros(row.get::<_, i64>(at)?.unsigned_abs()))
}

fn optional_stamp(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Stamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(|micros| Stamp::from_micros(micros.unsigned_abs())))
}
