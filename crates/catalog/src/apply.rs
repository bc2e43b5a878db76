//! Many changes of configuration as one: all of them in one transaction with one stamp, or none.

use crate::edit::{self, Change};
use crate::{Catalog, CatalogError, MetricDraft, Now, StoreDraft};
use model::{ProjectId, Secret};

/// One change among many. Projects are named, because one may be made by an earlier edit of the same list.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Makes a project with its first submission token.
    CreateProject {
        /// Its name.
        project: String,
    },
    /// Makes an empty metric set; one that exists stays as it is.
    PutSet {
        /// Whose.
        project: String,
        /// Its name.
        set: String,
    },
    /// Deletes a metric set with its metrics.
    DeleteSet {
        /// Whose.
        project: String,
        /// Its name.
        set: String,
    },
    /// Saves a metric, and its set with it.
    PutMetric {
        /// Whose.
        project: String,
        /// Its set.
        set: String,
        /// Its name.
        metric: String,
        /// What to save.
        draft: MetricDraft,
    },
    /// Deletes a metric.
    DeleteMetric {
        /// Whose.
        project: String,
        /// Its set.
        set: String,
        /// Its name.
        metric: String,
    },
    /// Saves a metric store.
    PutStore {
        /// Whose.
        project: String,
        /// Its name.
        store: String,
        /// What to save.
        draft: StoreDraft,
    },
    /// Deletes a metric store.
    DeleteStore {
        /// Whose.
        project: String,
        /// Its name.
        store: String,
    },
}

/// What an application made.
#[derive(Debug)]
pub struct Applied {
    /// Projects made, each with its submission token.
    pub projects: Vec<(String, Secret)>,
}

impl Catalog {
    /// Makes all edits in order, in one transaction, or none of them. `seen` is the version of the snapshot they were made for.
    ///
    /// # Errors
    /// `Outdated` when the configuration has changed since that snapshot; else the first edit's error.
    pub fn apply(&self, edits: &[Edit], seen: u64, actor: &str, now: Now<'_>) -> Result<Applied, CatalogError> {
        self.change(actor, now, |change| {
            if edit::version(change.transaction)? != seen {
                return Err(CatalogError::Outdated);
            }
            let mut applied = Applied { projects: Vec::new() };
            for edit in edits {
                self.apply_one(change, edit, &mut applied)?;
            }
            Ok(applied)
        })
    }

    fn apply_one(&self, change: &mut Change<'_>, edit: &Edit, applied: &mut Applied) -> Result<(), CatalogError> {
        match edit {
            Edit::CreateProject { project } => {
                let (_, token) = self.insert_project(change, project)?;
                applied.projects.push((project.clone(), token));
                Ok(())
            }
            Edit::PutSet { project, set } => edit::save_set(change, find(change, project)?, set),
            Edit::DeleteSet { project, set } => edit::remove_set(change, find(change, project)?, set),
            Edit::PutMetric { project, set, metric, draft } => {
                self.save_metric(change, find(change, project)?, set, metric, draft, None).map(|_| ())
            }
            Edit::DeleteMetric { project, set, metric } => edit::remove_metric(change, find(change, project)?, set, metric),
            Edit::PutStore { project, store, draft } => self.save_store(change, find(change, project)?, store, draft, None).map(|_| ()),
            Edit::DeleteStore { project, store } => edit::remove_store(change, find(change, project)?, store),
        }
    }
}

fn find(change: &Change<'_>, project: &str) -> Result<ProjectId, CatalogError> {
    let found = edit::project_id(change.transaction, project)?;
    found.map(ProjectId).ok_or_else(|| CatalogError::Missing(format!("project {project:?}")))
}
