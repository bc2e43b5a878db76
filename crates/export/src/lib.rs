//! Windows due -> evaluate -> seal -> encode -> send -> judge -> record. All outbound I/O and the egress policy live here.
//!
//! Export knows reports only through `ReportSource`. Everything it must remember is in the catalog, so stopping is the same as
//! crashing: nothing is drained, nothing needs to be.

mod backfill;
mod backoff;
mod batch;
mod deliver;
mod draft;
pub mod egress;
mod pending;
mod pull;
mod sealer;
pub mod send;
mod series;
mod source;

pub use deliver::{DeliveryFigures, Metadata, Phase};
pub use draft::DraftError;
pub use sealer::SealFigures;
pub use series::{OverBudget, without_counters, zero_for_secs};
pub use source::{ReportSource, SourceStopped, Unreadable};

use adapters::{Outgoing, Reply};
use catalog::{Catalog, CatalogError, Metric, Project, Store, StoreId};
use deliver::{Board, Courier, Turns};
use model::{Batch, Page, Stamp, Window};
use pull::Pages;
use sealer::Sealer;
use send::{Door, Failure};
use series::SeriesState;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a person waits for a store's answer to a test.
const TRY_OUT: Duration = Duration::from_secs(10);

/// A page as the batch that a push store gets: its values, without counters.
pub fn as_batch(page: Page) -> Batch {
    batch::batch(page)
}

/// The running export: sealing and delivering in the background.
pub struct Export<S> {
    source: Arc<S>,
    catalog: Arc<Catalog>,
    board: Arc<Board>,
    pages: Pages,
    door: Door,
    sealed: watch::Receiver<SealFigures>,
    courier: tokio::task::JoinHandle<()>,
    filler: tokio::task::JoinHandle<()>,
}

impl<S> Drop for Export<S> {
    /// Deliveries end with what started them.
    fn drop(&mut self) {
        self.courier.abort();
        self.filler.abort();
    }
}

impl<S: ReportSource> Export<S> {
    /// Starts sealing and delivering. The task ends only when the report log has stopped: the process must then stop too.
    pub fn start(source: Arc<S>, catalog: Arc<Catalog>, door: Door) -> (Export<S>, tokio::task::JoinHandle<SourceStopped>) {
        let (figures, sealed) = watch::channel(SealFigures::default());
        let board = Arc::new(Board::default());
        let courier = Courier {
            source: source.clone(),
            catalog: catalog.clone(),
            door: door.clone(),
            board: board.clone(),
            sealed: sealed.clone(),
            turns: Turns::default(),
        };
        let courier = tokio::spawn(courier.run());
        let told = board.clone();
        let filler = tokio::spawn(backfill::run(source.clone(), catalog.clone(), move |store| told.hasten_idle(store)));
        let sealer = tokio::spawn(Sealer::new(source.clone(), catalog.clone(), figures).run());
        (Export { source, catalog, board, pages: Pages::default(), door, sealed, courier, filler }, sealer)
    }

    /// What a pull store shows now; `None` until a window is sealed for it.
    pub async fn page(&self, store: &Store) -> Result<Option<Arc<Page>>, CatalogError> {
        self.pages.page(&self.catalog, store, self.source.now()).await
    }

    /// A sealed window as a store shows it, the newest one where none is named; `None` when there is none such.
    pub fn sealed_page(&self, store: &Store, window: Option<Window>) -> Result<Option<Page>, CatalogError> {
        let window = match window {
            Some(window) => Some(window),
            None => self.catalog.newest_sealed(store.project, store.newest().settings.period)?,
        };
        let Some(window) = window else { return Ok(None) };
        let revision = store.in_force(window.start()).unwrap_or_else(|| store.newest());
        pull::sealed_page(&self.catalog, &self.catalog.published(), store, revision, window)
    }

    /// What a store would show for a closed window with these metrics in their newest revisions, saved or not: nothing is recorded.
    /// Blocks.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn draft(&self, project: &Project, store: &Store, metrics: &[&Metric], window: Window) -> Result<Page, DraftError> {
        draft::page(self.source.as_ref(), &self.catalog, project, store, metrics, window)
    }

    /// A batch of one harmless point, to try a store with.
    pub fn canary(&self, project: &Project, store: &Store) -> Batch {
        let period = store.newest().settings.period;
        let before = self.source.now().secs().saturating_sub(u64::from(period.secs()));
        draft::canary(project, store, period.window_at(Stamp::from_secs(before)))
    }

    /// Sends what is in no ledger: a person's test of a store.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn try_out(&self, outgoing: &Outgoing) -> Result<Reply, Failure> {
        self.door.send(outgoing, TRY_OUT).await
    }

    /// The metrics of a store of which groups were folded into `__other__` within the last day.
    pub fn over_budget(&self, store: &Store) -> Result<Vec<(Metric, OverBudget)>, CatalogError> {
        let (settings, snapshot) = (&store.newest().settings, self.catalog.published());
        let (now_secs, mut found) = (self.source.now().secs(), Vec::new());
        for metric in snapshot.metrics.iter().filter(|metric| metric.project == store.project && metric.deleted.is_none()) {
            if !settings.sets.contains(&metric.set) {
                continue;
            }
            let Some(bytes) = self.catalog.series_state(metric.id, settings.period)? else { continue };
            let state = SeriesState::decode(&bytes).ok_or(CatalogError::Damaged("series state"))?;
            found.extend(state.over_budget(now_secs).map(|over| (metric.clone(), over.clone())));
        }
        Ok(found)
    }

    /// The span of whole, closed windows that a backfill of a store can fill within one that was asked for.
    pub fn backfill_bounds(&self, store: &Store, from_secs: u64, to_secs: u64) -> (u64, u64) {
        backfill::bounds(store, from_secs, to_secs, self.source.now())
    }

    /// Why a push store would take none of the points of a window as old as this one, or `None`.
    pub fn refuses_as_old(&self, store: &Store, window: Window) -> Option<String> {
        let description = adapters::description(&store.newest().settings.adapter)?;
        if !description.takes_old_points {
            return Some("takes points only in order and of late".to_owned());
        }
        deliver::too_old_for(description, window, self.source.now())
    }

    /// The last second in which a live window may still be sent to a push store; then it expires.
    pub fn last_second(&self, store: &Store, window: Window) -> u64 {
        deliver::last_second(store, window)
    }

    /// What a push store's task is doing.
    pub fn phase(&self, store: StoreId) -> Phase {
        self.board.phase(store)
    }

    /// A push store's counts since the start.
    pub fn delivery_figures(&self, store: StoreId) -> DeliveryFigures {
        self.board.figures(store)
    }

    /// What a push store was told about the metrics themselves.
    pub fn metadata(&self, store: StoreId) -> Metadata {
        self.board.metadata(store)
    }

    /// Ends the wait of a store's task: what is sealed is tried now.
    pub fn send_now(&self, store: StoreId) {
        self.board.hasten(store);
    }

    /// Counts of sealing since the start.
    pub fn seal_figures(&self) -> SealFigures {
        *self.sealed.borrow()
    }

    /// Changes with every seal.
    pub fn seals(&self) -> watch::Receiver<SealFigures> {
        self.sealed.clone()
    }

    /// The service clock.
    pub fn now(&self) -> Stamp {
        self.source.now()
    }
}
