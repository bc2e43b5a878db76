//! What a pull store shows: the newest sealed window, whole. Two readers between two seals get the same page.

use crate::batch;
use crate::deliver::blocking;
use catalog::{Catalog, CatalogError, Snapshot, Store, StoreId, StoreRevision};
use model::{Page, Stamp, Window};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A page whose window is older than so many periods keeps only its health series (design.md 4).
const STALE_AFTER_PERIODS: u64 = 3;

/// Pages as last built, one a store.
#[derive(Default)]
pub(crate) struct Pages(Mutex<HashMap<StoreId, (u64, Arc<Page>)>>);

impl Pages {
    /// The store's page, or `None` until a window is sealed for it.
    pub(crate) async fn page(&self, catalog: &Arc<Catalog>, store: &Store, now: Stamp) -> Result<Option<Arc<Page>>, CatalogError> {
        let (shared, snapshot, owned) = (catalog.clone(), catalog.published(), store.clone());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&store.id).cloned();
        let built = blocking(move || newest_page(&shared, &snapshot, &owned, known)).await?;
        let Some((version, page)) = built else { return Ok(None) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(store.id, (version, page.clone()));
        let age = now.secs().saturating_sub(page.window.end_secs());
        let stale = age > STALE_AFTER_PERIODS * u64::from(page.window.period().secs());
        Ok(Some(if stale { Arc::new(batch::stale(&page)) } else { page }))
    }
}

fn newest_page(
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    known: Option<(u64, Arc<Page>)>,
) -> Result<Option<(u64, Arc<Page>)>, CatalogError> {
    // After a change of period the new grid's first window replaces the old grid's last; until then that one stays.
    let mut newest = None;
    for revision in store.revisions.iter().rev() {
        let Some(window) = catalog.newest_sealed(store.project, revision.settings.period)? else { continue };
        if store.in_force(window.start()).is_some_and(|in_force| in_force.settings.period == window.period()) {
            newest = Some(window);
            break;
        }
    }
    let Some(window) = newest else { return Ok(None) };
    if let Some((version, page)) = known
        && (page.window == window && version == snapshot.version || page.window.end() > window.end())
    {
        return Ok(Some((version, page)));
    }
    let Some(revision) = store.in_force(window.start()) else { return Ok(None) };
    let page = sealed_page(catalog, snapshot, store, revision, window)?;
    Ok(page.map(|page| (snapshot.version, Arc::new(page))))
}

/// A sealed window as a store gets it; `None` when the window is not sealed.
pub(crate) fn sealed_page(
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    revision: &StoreRevision,
    window: Window,
) -> Result<Option<Page>, CatalogError> {
    let Some(facts) = catalog.window_facts(store.project, window)? else { return Ok(None) };
    let project = snapshot.projects.iter().find(|project| project.id == store.project).map_or("", |project| &project.name);
    let mut sealed = Vec::new();
    for (metric, metric_revision) in snapshot.metrics_due(store.project, window, &revision.settings.sets) {
        sealed.push((metric, metric_revision, catalog.sealed_metric(metric_revision.id, window)?));
    }
    let sealed: Vec<batch::Sealed<'_>> =
        sealed.iter().filter_map(|(metric, revision, sealed)| Some((*metric, *revision, sealed.as_ref()?))).collect();
    Ok(Some(batch::page(project, store, &revision.settings, window, &facts, &sealed)))
}
