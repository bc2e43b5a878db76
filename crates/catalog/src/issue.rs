//! Issues: how far people have come with a group of reports, one row a fingerprint. Kept only for groups that somebody has touched.

use crate::edit::Now;
use crate::{Catalog, CatalogError};
use model::{ProjectId, Stamp};
use rusqlite::params;

/// What a group is before anybody says otherwise.
pub const OPEN: &str = "open";

/// What people have said about a group of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The group: 64 hex digits.
    pub fingerprint: String,
    /// `open`, `in-progress`, `resolved` or `muted` in Backtrace's console; any text from other clients.
    pub state: String,
    /// Words, separated by spaces.
    pub tags: Option<String>,
    /// Where it is being worked on: a URL, or JSON from clients that know several.
    pub ticket: Option<String>,
    /// Who works on it.
    pub assignee: Option<String>,
    /// When any of these was last changed.
    pub modified: Stamp,
    /// By whom.
    pub modified_by: String,
}

/// A change of issues: a field left out is kept, `None` in it clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssueEdit {
    /// Cleared, it is `open` again.
    pub state: Option<Option<String>>,
    /// Replaced as a whole.
    pub tags: Option<Option<String>>,
    /// Likewise.
    pub ticket: Option<Option<String>>,
    /// Likewise.
    pub assignee: Option<Option<String>>,
}

impl Catalog {
    /// The issues of a project that somebody has touched, by fingerprint.
    pub fn issues(&self, project: ProjectId) -> Result<Vec<Issue>, CatalogError> {
        let connection = self.read();
        let mut statement = connection.prepare_cached(
            "SELECT fingerprint, state, tags, ticket, assignee, modified, modified_by FROM issue WHERE project = ?1 ORDER BY fingerprint",
        )?;
        let issues = statement.query_map([project.0], |row| {
            Ok(Issue {
                fingerprint: row.get(0)?,
                state: row.get(1)?,
                tags: row.get(2)?,
                ticket: row.get(3)?,
                assignee: row.get(4)?,
                modified: Stamp::from_micros(row.get::<_, i64>(5)?.unsigned_abs()),
                modified_by: row.get(6)?,
            })
        })?;
        Ok(issues.collect::<Result<_, _>>()?)
    }

    /// Changes the issues of some fingerprints in one transaction.
    pub fn edit_issues(
        &self,
        project: ProjectId,
        fingerprints: &[String],
        edit: &IssueEdit,
        actor: &str,
        now: Now<'_>,
    ) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "edit issues", &fingerprints.len().to_string());
            let modified = change.stamp.micros() as i64;
            for fingerprint in fingerprints {
                change
                    .transaction
                    .prepare_cached(
                        "INSERT INTO issue (project, fingerprint, state, modified, modified_by) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (project, fingerprint) DO UPDATE SET modified = excluded.modified, modified_by = excluded.modified_by",
                    )?
                    .execute(params![project.0, fingerprint, OPEN, modified, actor])?;
                for (column, value) in
                    [("state", &edit.state), ("tags", &edit.tags), ("ticket", &edit.ticket), ("assignee", &edit.assignee)]
                {
                    let Some(value) = value else { continue };
                    let value = value.as_deref().or((column == "state").then_some(OPEN));
                    change
                        .transaction
                        .prepare_cached(&format!("UPDATE issue SET {column} = ?3 WHERE project = ?1 AND fingerprint = ?2"))?
                        .execute(params![project.0, fingerprint, value])?;
                }
            }
            Ok(())
        })
    }
}
