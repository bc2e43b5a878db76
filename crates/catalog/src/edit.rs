//! Changes of configuration: each one transaction, stamped by the service clock, audited, and published as a new snapshot.

use crate::config::{Snapshot, Store, StoreId, StoreSettings};
use crate::secrets::random_bytes;
use crate::token::{Scope, token_hash};
use crate::{Catalog, CatalogError, delivery, load};
use model::{ProjectId, Query, Secret, Stamp};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads the service clock while the writer's lock is held.
pub type Now<'a> = &'a dyn Fn() -> Stamp;

/// A checked metric to save.
#[derive(Clone, Debug)]
pub struct MetricDraft {
    /// What is evaluated.
    pub query: Query,
    /// Seconds for which an empty group is still exported as 0.
    pub zero_for: Option<u64>,
    /// Most series.
    pub series_budget: u32,
}

/// Changes of a store's secret fields: a text to set, `None` to clear; fields not named are kept.
pub type SecretEdits = BTreeMap<String, Option<Secret>>;

/// A checked store to save.
#[derive(Clone, Debug)]
pub struct StoreDraft {
    /// Everything but secrets.
    pub settings: StoreSettings,
    /// Secrets to change.
    pub secrets: SecretEdits,
    /// Whether the store is read by URL and so needs a pull secret.
    pub pull: bool,
}

/// Seconds for which a pull URL is still served after it was rotated away.
pub const PULL_OVERLAP_SECS: u64 = 3_600;

/// The secret field that holds the last path piece of a pull store's URL.
pub(crate) const PULL_SECRET: &str = "pull_secret";

/// One change of configuration while it is made.
pub(crate) struct Change<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    pub(crate) stamp: Stamp,
    audit: Vec<Audited>,
}

/// What the audit log is to say of a change.
struct Audited {
    project: Option<ProjectId>,
    action: &'static str,
    subject: String,
}

impl Change<'_> {
    /// Tells the audit log what is done to what. Without a project it is something of the whole server.
    pub(crate) fn audit(&mut self, project: Option<ProjectId>, action: &'static str, subject: &str) {
        self.audit.push(Audited { project, action, subject: subject.to_owned() });
    }
}

impl Catalog {
    /// Runs one change. The stamp is taken under the lock and never before an earlier change's or a sealed window's end.
    pub(crate) fn change<T>(
        &self,
        actor: &str,
        now: Now<'_>,
        edit: impl FnOnce(&mut Change<'_>) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let mut connection = self.write();
        let transaction = connection.transaction()?;
        let stamp = now().max(floor(&transaction)?);
        let mut change = Change { transaction: &transaction, stamp, audit: Vec::new() };
        let done = edit(&mut change)?;
        let audit = change.audit;
        for Audited { project, action, subject } in audit {
            write_audit(&transaction, stamp, actor, project, action, &subject)?;
        }
        transaction.execute(
            "INSERT INTO meta (key, value) VALUES ('last_config_stamp', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [stamp.micros().to_string()],
        )?;
        let version = version(&transaction)? + 1;
        transaction.execute(
            "INSERT INTO meta (key, value) VALUES ('config_version', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [version.to_string()],
        )?;
        let snapshot = load::snapshot(&transaction, &self.cipher, version)?;
        transaction.commit()?;
        self.snapshot.send_replace(Arc::new(snapshot));
        Ok(done)
    }

    /// The least stamp the service clock may give: no window sealed and no change made before a restart comes after it.
    pub fn floor(&self) -> Result<Stamp, CatalogError> {
        floor(&self.read())
    }

    /// Makes a project with its first submission token.
    pub fn create_project(&self, name: &str, actor: &str, now: Now<'_>) -> Result<(ProjectId, Secret), CatalogError> {
        self.change(actor, now, |change| self.insert_project(change, name))
    }

    pub(crate) fn insert_project(&self, change: &mut Change<'_>, name: &str) -> Result<(ProjectId, Secret), CatalogError> {
        if project_id(change.transaction, name)?.is_some() {
            return Err(CatalogError::Exists(format!("project called {name:?}")));
        }
        change.transaction.execute("INSERT INTO project (name, created) VALUES (?1, ?2)", params![name, change.stamp.micros() as i64])?;
        let id = ProjectId(u32::try_from(change.transaction.last_insert_rowid()).map_err(|_| CatalogError::Damaged("project number"))?);
        change.audit(Some(id), "create project", name);
        let token = self.insert_token(change.transaction, Scope::Submit, Some(id), change.stamp)?;
        Ok((id, token))
    }

    /// Makes an empty metric set; making one that exists changes nothing.
    pub fn put_set(&self, project: ProjectId, set: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| save_set(change, project, set))
    }

    /// Deletes a metric set with its metrics. Stores keep its name and find nothing under it.
    pub fn delete_set(&self, project: ProjectId, set: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| remove_set(change, project, set))
    }

    /// Saves a metric: a new one, or a new revision that begins with the next window. Saving what is there changes nothing.
    /// `expected` is the revision number the editor had seen. Returns the newest revision's number.
    #[expect(clippy::too_many_arguments, reason = "a metric's place, its draft, and who changes it when: each is another thing")]
    pub fn put_metric(
        &self,
        project: ProjectId,
        set: &str,
        name: &str,
        draft: &MetricDraft,
        expected: Option<u32>,
        actor: &str,
        now: Now<'_>,
    ) -> Result<u32, CatalogError> {
        self.change(actor, now, |change| self.save_metric(change, project, set, name, draft, expected))
    }

    /// Saves a metric. Returns the newest revision's number.
    pub(crate) fn save_metric(
        &self,
        change: &mut Change<'_>,
        project: ProjectId,
        set: &str,
        name: &str,
        draft: &MetricDraft,
        expected: Option<u32>,
    ) -> Result<u32, CatalogError> {
        let query = serde_json::to_string(&draft.query).map_err(|_| CatalogError::Damaged("query"))?;
        change.audit(Some(project), "put metric", &format!("{set}/{name}"));
        if let Some(attribute) = self.snapshot.borrow().personal_label(project, &draft.query) {
            return Err(CatalogError::Personal(attribute.to_owned()));
        }
        let set = ensure_set(change, project, set)?;
        let stamp = change.stamp.micros() as i64;
        let found: Option<i64> = change
            .transaction
            .query_row("SELECT id FROM metric WHERE metric_set = ?1 AND name = ?2 AND deleted IS NULL", params![set, name], |row| {
                row.get(0)
            })
            .optional()?;
        let metric = match found {
            Some(metric) => metric,
            None => {
                change
                    .transaction
                    .execute("INSERT INTO metric (metric_set, name, created) VALUES (?1, ?2, ?3)", params![set, name, stamp])?;
                change.transaction.last_insert_rowid()
            }
        };
        let newest: Option<(u32, String, Option<i64>, u32)> = change
            .transaction
            .query_row(
                "SELECT number, query, zero_for, series_budget FROM metric_revision WHERE metric = ?1 ORDER BY number DESC LIMIT 1",
                [metric],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()?;
        let number = newest.as_ref().map_or(0, |newest| newest.0);
        expect_revision(expected, number)?;
        let zero_for = draft.zero_for.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        if newest == Some((number, query.clone(), zero_for, draft.series_budget)) {
            return Ok(number);
        }
        change.transaction.execute(
            "INSERT INTO metric_revision (metric, number, begins, query, zero_for, series_budget) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![metric, number + 1, stamp, query, zero_for, draft.series_budget],
        )?;
        Ok(number + 1)
    }

    /// Deletes a metric; windows that have begun are still sealed with it.
    pub fn delete_metric(&self, project: ProjectId, set: &str, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| remove_metric(change, project, set, name))
    }

    /// Saves a store: a new one, or a new revision. Secrets apply at once. Returns the newest revision's number.
    pub fn put_store(
        &self,
        project: ProjectId,
        name: &str,
        draft: &StoreDraft,
        expected: Option<u32>,
        actor: &str,
        now: Now<'_>,
    ) -> Result<u32, CatalogError> {
        self.change(actor, now, |change| self.save_store(change, project, name, draft, expected))
    }

    /// Saves a store. Returns the newest revision's number.
    pub(crate) fn save_store(
        &self,
        change: &mut Change<'_>,
        project: ProjectId,
        name: &str,
        draft: &StoreDraft,
        expected: Option<u32>,
    ) -> Result<u32, CatalogError> {
        let settings = serde_json::to_string(&draft.settings).map_err(|_| CatalogError::Damaged("store setting"))?;
        change.audit(Some(project), "put metric store", name);
        let stamp = change.stamp.micros() as i64;
        let found = store_id(change.transaction, project, name)?;
        let store = match found {
            Some(store) => store,
            None => {
                change
                    .transaction
                    .execute("INSERT INTO store (project, name, created) VALUES (?1, ?2, ?3)", params![project.0, name, stamp])?;
                StoreId(change.transaction.last_insert_rowid())
            }
        };
        let newest: Option<(u32, String)> = change
            .transaction
            .query_row("SELECT number, settings FROM store_revision WHERE store = ?1 ORDER BY number DESC LIMIT 1", [store.0], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let mut number = newest.as_ref().map_or(0, |newest| newest.0);
        expect_revision(expected, number)?;
        // The same settings written in another order are the same.
        let same = |text: &str| serde_json::from_str::<StoreSettings>(text).is_ok_and(|newest| newest == draft.settings);
        if newest.is_none_or(|newest| !same(&newest.1)) {
            number += 1;
            change.transaction.execute(
                "INSERT INTO store_revision (store, number, begins, settings) VALUES (?1, ?2, ?3, ?4)",
                params![store.0, number, stamp, settings],
            )?;
        }
        for (field, secret) in &draft.secrets {
            match secret {
                Some(secret) => self.set_secret(change, store, field, secret)?,
                None => {
                    change.transaction.execute("DELETE FROM store_secret WHERE store = ?1 AND field = ?2", params![store.0, field])?;
                }
            }
        }
        if draft.pull && found.is_none() {
            self.new_pull_secret(change, store)?;
        }
        Ok(number)
    }

    /// Deletes a store: what it still owed becomes cancelled, its pull URL dies.
    pub fn delete_store(&self, project: ProjectId, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| remove_store(change, project, name))
    }

    /// Pauses or resumes sending; points go on becoming due.
    pub fn pause_store(&self, project: ProjectId, name: &str, paused: bool, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), if paused { "pause metric store" } else { "resume metric store" }, name);
            let store =
                store_id(change.transaction, project, name)?.ok_or_else(|| CatalogError::Missing(format!("metric store {name:?}")))?;
            change.transaction.execute("UPDATE store SET paused = ?2 WHERE id = ?1", params![store.0, paused])?;
            Ok(())
        })
    }

    /// Gives a pull store a new secret URL. The old one is served for [`PULL_OVERLAP_SECS`] more, so that its reader can be changed
    /// without losing a window; ones that were rotated away before keep their own end.
    pub fn rotate_pull_secret(&self, project: ProjectId, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "rotate pull URL", name);
            let store =
                store_id(change.transaction, project, name)?.ok_or_else(|| CatalogError::Missing(format!("metric store {name:?}")))?;
            let until = change.stamp.plus_micros(PULL_OVERLAP_SECS * 1_000_000);
            change.transaction.execute("DELETE FROM pull_secret WHERE until <= ?1", [change.stamp.micros() as i64])?;
            change
                .transaction
                .execute("UPDATE pull_secret SET until = ?2 WHERE store = ?1 AND until IS NULL", params![store.0, until.micros() as i64])?;
            self.new_pull_secret(change, store)
        })
    }

    fn new_pull_secret(&self, change: &Change<'_>, store: StoreId) -> Result<(), CatalogError> {
        let secret = Secret::new(hex::encode(random_bytes::<32>()));
        change
            .transaction
            .execute("INSERT INTO pull_secret (hash, store) VALUES (?1, ?2)", params![token_hash(secret.reveal()), store.0])?;
        self.set_secret(change, store, PULL_SECRET, &secret)
    }

    fn set_secret(&self, change: &Change<'_>, store: StoreId, field: &str, secret: &Secret) -> Result<(), CatalogError> {
        change.transaction.execute(
            "INSERT INTO store_secret (store, field, sealed) VALUES (?1, ?2, ?3)
             ON CONFLICT (store, field) DO UPDATE SET sealed = excluded.sealed",
            params![store.0, field, self.cipher.encrypt(secret.reveal(), &secret_place(store, field))],
        )?;
        Ok(())
    }
}

impl Snapshot {
    /// The last path piece of a pull store's URL.
    pub fn pull_secret(&self, store: StoreId) -> Option<&Secret> {
        self.store_by_id(store)?.secrets.get(PULL_SECRET)
    }
}

impl Store {
    /// The secret fields that the adapter knows (the pull URL's own secret is the server's).
    pub fn adapter_secrets(&self) -> impl Iterator<Item = (&String, &Secret)> {
        self.secrets.iter().filter(|(field, _)| *field != PULL_SECRET)
    }
}

/// Binds a ciphertext to its row; store numbers are never reused, so the project is implied.
pub(crate) fn secret_place(store: StoreId, field: &str) -> String {
    format!("store_secret store={} field={field}", store.0)
}

pub(crate) fn save_set(change: &mut Change<'_>, project: ProjectId, set: &str) -> Result<(), CatalogError> {
    change.audit(Some(project), "put metric set", set);
    ensure_set(change, project, set).map(|_| ())
}

pub(crate) fn remove_set(change: &mut Change<'_>, project: ProjectId, set: &str) -> Result<(), CatalogError> {
    change.audit(Some(project), "delete metric set", set);
    let id = set_id(change.transaction, project, set)?.ok_or_else(|| CatalogError::Missing(format!("metric set {set:?}")))?;
    let stamp = change.stamp.micros() as i64;
    change.transaction.execute("UPDATE metric SET deleted = ?2 WHERE metric_set = ?1 AND deleted IS NULL", params![id, stamp])?;
    change.transaction.execute("UPDATE metric_set SET deleted = ?2 WHERE id = ?1", params![id, stamp])?;
    Ok(())
}

pub(crate) fn remove_metric(change: &mut Change<'_>, project: ProjectId, set: &str, name: &str) -> Result<(), CatalogError> {
    change.audit(Some(project), "delete metric", &format!("{set}/{name}"));
    let changed = change.transaction.execute(
        "UPDATE metric SET deleted = ?4 WHERE name = ?3 AND deleted IS NULL AND metric_set =
           (SELECT id FROM metric_set WHERE project = ?1 AND name = ?2 AND deleted IS NULL)",
        params![project.0, set, name, change.stamp.micros() as i64],
    )?;
    if changed == 1 { Ok(()) } else { Err(CatalogError::Missing(format!("metric {set}/{name}"))) }
}

pub(crate) fn remove_store(change: &mut Change<'_>, project: ProjectId, name: &str) -> Result<(), CatalogError> {
    change.audit(Some(project), "delete metric store", name);
    let store = store_id(change.transaction, project, name)?.ok_or_else(|| CatalogError::Missing(format!("metric store {name:?}")))?;
    change.transaction.execute("UPDATE store SET deleted = ?2 WHERE id = ?1", params![store.0, change.stamp.micros() as i64])?;
    delivery::cancel_open(change.transaction, store, None)?;
    change.transaction.execute(
        "UPDATE backfill SET ended = ?2, outcome = 'cancelled' WHERE store = ?1 AND ended IS NULL",
        params![store.0, change.stamp.secs() as i64],
    )?;
    change.transaction.execute("DELETE FROM store_secret WHERE store = ?1", [store.0])?;
    change.transaction.execute("DELETE FROM pull_secret WHERE store = ?1", [store.0])?;
    Ok(())
}

/// How often the configuration was changed.
pub(crate) fn version(connection: &rusqlite::Connection) -> Result<u64, CatalogError> {
    let version: Option<String> =
        connection.prepare_cached("SELECT value FROM meta WHERE key = 'config_version'")?.query_row([], |row| row.get(0)).optional()?;
    version.map_or(Ok(0), |text| text.parse()).map_err(|_| CatalogError::Damaged("configuration version"))
}

fn floor(connection: &rusqlite::Connection) -> Result<Stamp, CatalogError> {
    let sealed: Option<i64> = connection.prepare_cached("SELECT max(sealed_end) FROM position")?.query_row([], |row| row.get(0))?;
    let changed: Option<String> =
        connection.prepare_cached("SELECT value FROM meta WHERE key = 'last_config_stamp'")?.query_row([], |row| row.get(0)).optional()?;
    let changed: u64 = changed.map_or(Ok(0), |text| text.parse()).map_err(|_| CatalogError::Damaged("configuration stamp"))?;
    Ok(Stamp::from_secs(sealed.unwrap_or(0).unsigned_abs()).max(Stamp::from_micros(changed)))
}

pub(crate) fn write_audit(
    transaction: &Transaction<'_>,
    stamp: Stamp,
    actor: &str,
    project: Option<ProjectId>,
    action: &str,
    subject: &str,
) -> Result<(), CatalogError> {
    transaction.execute(
        "INSERT INTO audit (at, actor, project, action, subject) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![stamp.micros() as i64, actor, project.map(|project| project.0), action, subject],
    )?;
    Ok(())
}

pub(crate) fn expect_revision(expected: Option<u32>, found: u32) -> Result<(), CatalogError> {
    match expected {
        Some(expected) if expected != found => Err(CatalogError::Changed { expected, found }),
        _ => Ok(()),
    }
}

pub(crate) fn project_id(transaction: &Transaction<'_>, name: &str) -> Result<Option<u32>, CatalogError> {
    Ok(transaction.query_row("SELECT id FROM project WHERE name = ?1 AND deleted IS NULL", [name], |row| row.get(0)).optional()?)
}

fn set_id(transaction: &Transaction<'_>, project: ProjectId, set: &str) -> Result<Option<i64>, CatalogError> {
    Ok(transaction
        .query_row("SELECT id FROM metric_set WHERE project = ?1 AND name = ?2 AND deleted IS NULL", params![project.0, set], |row| {
            row.get(0)
        })
        .optional()?)
}

fn ensure_set(change: &Change<'_>, project: ProjectId, set: &str) -> Result<i64, CatalogError> {
    if let Some(id) = set_id(change.transaction, project, set)? {
        return Ok(id);
    }
    change.transaction.execute(
        "INSERT INTO metric_set (project, name, created) VALUES (?1, ?2, ?3)",
        params![project.0, set, change.stamp.micros() as i64],
    )?;
    Ok(change.transaction.last_insert_rowid())
}

pub(crate) fn store_id(transaction: &Transaction<'_>, project: ProjectId, name: &str) -> Result<Option<StoreId>, CatalogError> {
    Ok(transaction
        .query_row("SELECT id FROM store WHERE project = ?1 AND name = ?2 AND deleted IS NULL", params![project.0, name], |row| {
            row.get(0).map(StoreId)
        })
        .optional()?)
}
