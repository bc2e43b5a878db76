//! How often the ledger of each project has changed since the process started: whoever shows a project looks again when the count has
//! moved. Kept in memory alone; no account of anything.

use crate::{Catalog, StoreId};
use model::ProjectId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Counts by project.
#[derive(Default)]
pub(crate) struct LedgerChanges(Mutex<HashMap<ProjectId, u64>>);

impl LedgerChanges {
    /// Counts a change, after it was committed.
    pub(crate) fn count(&self, project: ProjectId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(project).or_default() += 1;
    }
}

impl Catalog {
    /// Changes of a project's ledger since the start: windows sealed or recorded as gaps, attempts, points settled, reads.
    pub fn ledger_changes(&self, project: ProjectId) -> u64 {
        self.ledger_changes.0.lock().unwrap_or_else(PoisonError::into_inner).get(&project).copied().unwrap_or_default()
    }

    pub(crate) fn count_change(&self, store: StoreId) {
        let snapshot = self.published();
        if let Some(store) = snapshot.store_by_id(store) {
            self.ledger_changes.count(store.project);
        }
    }
}
