//! Saved views: queries that people keep under a name. Those of Backtrace's clients are kept in whatever form the client writes them,
//! those of Explore as the part of its address that holds the query; neither sees the other's, but no two have one name.

use crate::edit::Now;
use crate::{Catalog, CatalogError};
use model::ProjectId;
use rusqlite::{OptionalExtension, params};

/// A view of a Backtrace client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its number.
    pub id: i64,
    /// Its name in the project.
    pub name: String,
    /// The client's queries, as the client wrote them.
    pub queries: String,
    /// Whatever else the client keeps with them.
    pub payload: String,
}

/// A view of a Backtrace client to save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewDraft {
    /// Its name.
    pub name: String,
    /// The client's queries.
    pub queries: String,
    /// Whatever else.
    pub payload: String,
}

/// A search of Explore under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSearch {
    /// Its name in the project.
    pub name: String,
    /// What stands in Explore's address from the question mark on.
    pub search: String,
    /// Who saved it last, as the audit log names them.
    pub saved_by: String,
}

impl Catalog {
    /// The searches of a project, by name.
    pub fn searches(&self, project: ProjectId) -> Result<Vec<SavedSearch>, CatalogError> {
        let connection = self.read();
        let sql = "SELECT name, search, coalesce(saved_by, '') FROM view WHERE project = ?1 AND search IS NOT NULL ORDER BY name";
        let mut statement = connection.prepare_cached(sql)?;
        let searches =
            statement.query_map([project.0], |row| Ok(SavedSearch { name: row.get(0)?, search: row.get(1)?, saved_by: row.get(2)? }))?;
        Ok(searches.collect::<Result<_, _>>()?)
    }

    /// Saves a search, in place of one of that name.
    pub fn save_search(&self, project: ProjectId, name: &str, search: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "save view", name);
            let saved = change.transaction.execute(
                "INSERT INTO view (project, name, queries, payload, search, saved_by) VALUES (?1, ?2, '', '', ?3, ?4)
                 ON CONFLICT (project, name) DO UPDATE SET search = excluded.search, saved_by = excluded.saved_by WHERE search IS NOT NULL",
                params![project.0, name, search, actor],
            )?;
            if saved == 1 { Ok(()) } else { Err(CatalogError::Exists(format!("view called {name:?}, of a Backtrace client"))) }
        })
    }

    /// Deletes a search.
    pub fn delete_search(&self, project: ProjectId, name: &str, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "delete view", name);
            let sql = "DELETE FROM view WHERE project = ?1 AND name = ?2 AND search IS NOT NULL";
            let deleted = change.transaction.execute(sql, params![project.0, name])?;
            if deleted == 1 { Ok(()) } else { Err(CatalogError::Missing(format!("view called {name:?}"))) }
        })
    }

    /// The views of a project's Backtrace clients, by number.
    pub fn views(&self, project: ProjectId) -> Result<Vec<View>, CatalogError> {
        let connection = self.read();
        let mut statement =
            connection.prepare_cached("SELECT id, name, queries, payload FROM view WHERE project = ?1 AND search IS NULL ORDER BY id")?;
        let views = statement
            .query_map([project.0], |row| Ok(View { id: row.get(0)?, name: row.get(1)?, queries: row.get(2)?, payload: row.get(3)? }))?;
        Ok(views.collect::<Result<_, _>>()?)
    }

    /// Makes a view and returns its number.
    pub fn create_view(&self, project: ProjectId, draft: &ViewDraft, actor: &str, now: Now<'_>) -> Result<i64, CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "create view", &draft.name);
            let taken = change.transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM view WHERE project = ?1 AND name = ?2)",
                params![project.0, draft.name],
                |row| row.get::<_, bool>(0),
            )?;
            if taken {
                return Err(CatalogError::Exists(format!("view called {:?}", draft.name)));
            }
            change.transaction.execute(
                "INSERT INTO view (project, name, queries, payload) VALUES (?1, ?2, ?3, ?4)",
                params![project.0, draft.name, draft.queries, draft.payload],
            )?;
            Ok(change.transaction.last_insert_rowid())
        })
    }

    /// Replaces a view.
    pub fn put_view(&self, project: ProjectId, id: i64, draft: &ViewDraft, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            change.audit(Some(project), "put view", &draft.name);
            let changed = change.transaction.execute(
                "UPDATE view SET name = ?3, queries = ?4, payload = ?5 WHERE project = ?1 AND id = ?2 AND search IS NULL",
                params![project.0, id, draft.name, draft.queries, draft.payload],
            )?;
            if changed == 1 { Ok(()) } else { Err(CatalogError::Missing(format!("view {id}"))) }
        })
    }

    /// Deletes a view.
    pub fn delete_view(&self, project: ProjectId, id: i64, actor: &str, now: Now<'_>) -> Result<(), CatalogError> {
        self.change(actor, now, |change| {
            let sql = "DELETE FROM view WHERE project = ?1 AND id = ?2 AND search IS NULL RETURNING name";
            let name: Option<String> = change.transaction.query_row(sql, params![project.0, id], |row| row.get(0)).optional()?;
            let name = name.ok_or_else(|| CatalogError::Missing(format!("view {id}")))?;
            change.audit(Some(project), "delete view", &name);
            Ok(())
        })
    }
}
