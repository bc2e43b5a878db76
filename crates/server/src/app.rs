//! What every request handler shares.

use crate::disk;
use crate::intake::Intake;
use crate::routes::events::Streams;
use crate::share::{Pace, Room};
use crate::source::Source;
use catalog::{Catalog, CatalogError};
use export::Export;
use export::egress::EgressPolicy;
use ingest::Limits;
use model::Stamp;
use reports::Reports;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use url::Url;

/// Bytes of submissions being read, parsed or stored at one time, over all connections.
pub(crate) const INFLIGHT_BYTES: usize = 256 << 20;
/// Queries being evaluated at one time for people; the sealer is not among them. A further one is refused with 503.
const QUERIES: usize = 2;
/// Passwords being hashed at one time, each on a core and in 19 MiB of its own. A further one waits; how many can wait is bounded
/// by the guesses that `catalog` admits.
const PASSWORDS: usize = 2;

pub(crate) struct App {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) export: Export<Source>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) limits: Limits,
    pub(crate) public_url: Url,
    pub(crate) universe: String,
    pub(crate) egress: EgressPolicy,
    /// For submissions being read, parsed or stored.
    pub(crate) room: Arc<Room>,
    /// Of submissions, by token.
    pub(crate) pace: Pace<[u8; 32]>,
    /// The disk of the data folder.
    pub(crate) disk: Arc<disk::Room>,
    pub(crate) queries: Arc<Semaphore>,
    /// Event streams that are open.
    pub(crate) streams: Arc<Streams>,
    /// Turns true when the server is told to stop: what would last ends then.
    pub(crate) stopping: watch::Receiver<bool>,
    passwords: Arc<Semaphore>,
    pub(crate) started: std::time::Instant,
}

/// What `App::new` needs.
pub(crate) struct Parts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) export: Export<Source>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) public_url: Url,
    pub(crate) universe: String,
    pub(crate) egress: EgressPolicy,
    /// Reports a second of one token.
    pub(crate) rate: Option<u32>,
    pub(crate) disk: Arc<disk::Room>,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> App {
        App {
            catalog: parts.catalog,
            reports: parts.reports,
            export: parts.export,
            intake: parts.intake,
            limits: Limits::DEFAULT,
            public_url: parts.public_url,
            universe: parts.universe,
            egress: parts.egress,
            room: Room::new(INFLIGHT_BYTES),
            pace: Pace::new(parts.rate),
            disk: parts.disk,
            queries: Arc::new(Semaphore::new(QUERIES)),
            streams: Arc::default(),
            stopping: parts.stopping,
            passwords: Arc::new(Semaphore::new(PASSWORDS)),
            started: std::time::Instant::now(),
        }
    }

    /// Runs catalog work off the async threads.
    pub(crate) async fn catalog<T: Send + 'static>(
        self: &Arc<App>,
        work: impl FnOnce(&App, &dyn Fn() -> Stamp) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.blocking(work).await
    }

    /// Runs catalog work that hashes a password: off the async threads, and little of it at one time.
    pub(crate) async fn hashing<T: Send + 'static, E: Send + 'static>(
        self: &Arc<App>,
        work: impl FnOnce(&App, &dyn Fn() -> Stamp) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let slot = self.passwords.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.blocking(move |app, now| {
            // Whoever asked may hang up; the hashing goes on, and counts until it has ended.
            let _slot = slot;
            work(app, now)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(self: &Arc<App>, work: impl FnOnce(&App, &dyn Fn() -> Stamp) -> T + Send + 'static) -> T {
        let app = self.clone();
        match tokio::task::spawn_blocking(move || work(&app, &|| app.reports.now())).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down and has dropped the work: so will it drop the request.
            Err(_) => std::future::pending().await,
        }
    }

    /// An address below the public URL.
    pub(crate) fn public(&self, path: &str) -> String {
        format!("{}/{}", self.public_url.as_str().trim_end_matches('/'), path.trim_start_matches('/'))
    }

    /// The URL to give to SDKs. Its form makes every SDK find universe and token in it (backtrace-api 1.1).
    pub(crate) fn submission_url(&self, token: &str) -> String {
        self.public(&format!("submit.backtrace.io/{}/{token}/json", self.universe))
    }
}
