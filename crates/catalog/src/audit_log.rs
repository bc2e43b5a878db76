//! The audit log as it is read: who changed what and when, newest first. It is written with each change (`edit`) and never changed.

use crate::{Catalog, CatalogError};
use model::{ProjectId, Stamp};
use rusqlite::params;

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number: later entries have greater ones.
    pub id: u64,
    /// When.
    pub at: Stamp,
    /// Who: `user NAME`, `token NUMBER`, or a part of the server.
    pub actor: String,
    /// The project it was done in; none for what belongs to the whole server, and unknown for the oldest entries.
    pub project: Option<String>,
    /// What was done.
    pub action: String,
    /// What it was done to; never a secret.
    pub subject: String,
}

/// Which entries are asked for: those that fit everything given.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Entries before the one of this number.
    pub before: Option<u64>,
    /// Entries of this project.
    pub project: Option<ProjectId>,
    /// What this actor did.
    pub actor: Option<String>,
}

impl Catalog {
    /// The newest entries of the audit log that fit, newest first, at most `limit`.
    pub fn audit_log(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditEntry>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT audit.id, at, actor, project.name, action, subject FROM audit LEFT JOIN project ON project.id = audit.project
             WHERE (?1 IS NULL OR audit.id < ?1) AND (?2 IS NULL OR audit.project = ?2) AND (?3 IS NULL OR actor = ?3)
             ORDER BY audit.id DESC LIMIT ?4",
        )?;
        let before = filter.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
        let entries = statement.query_map(params![before, filter.project.map(|project| project.0), filter.actor, limit], |row| {
            let n = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(AuditEntry {
                id: n(0)?,
                at: Stamp::from_micros(n(1)?),
                actor: row.get(2)?,
                project: row.get(3)?,
                action: row.get(4)?,
                subject: row.get(5)?,
            })
        })?;
        Ok(entries.collect::<Result<_, _>>()?)
    }
}
