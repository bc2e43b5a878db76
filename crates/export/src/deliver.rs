//! One task per push store: takes the oldest window due, encodes it once, sends, has the reply judged, records.
//!
//! One request is in flight per store, windows go oldest first, and what a store does to its own task touches no other. Stopping
//! anywhere is safe: the bytes of the first attempt are kept, a later attempt sends those, and every store overwrites.

use crate::backfill;
use crate::backoff::{Backoff, PROBE};
use crate::batch;
use crate::pending::{Next, Pending};
use crate::pull;
use crate::send::{Door, Failure};
use crate::source::ReportSource;
use adapters::{Adapter, Description, Outgoing, Push, Reply, Verdict};
use catalog::{Attempt, Catalog, CatalogError, OpenDelivery, Settled, Slot, Snapshot, Store, StoreId, StoreRevision};
use model::{Batch, Stamp, Window};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Points this much younger than a store's age limit are no longer risked (design.md 2: the limit less 5 minutes).
const AGE_MARGIN_SECS: u64 = 300;
/// Longest spread of the first attempts of many stores (design.md 4).
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// A window that draws server errors for so long lets the next one try (design.md 4).
const ASIDE_AFTER: Duration = Duration::from_secs(600);
/// How often a task with nothing to do looks around.
const IDLE: Duration = Duration::from_secs(30);

/// What a store's task is doing, in words for its page. Computed, never stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Phase {
    /// Everything due is sent.
    Idle,
    /// A delivery is in flight or about to be.
    Sending,
    /// The last attempt failed; the next comes by itself.
    Retrying {
        /// What happened.
        reason: String,
        /// Unix seconds of the next attempt.
        next_attempt: u64,
    },
    /// The store is busy or asked us to wait; the next attempt comes by itself.
    Throttled {
        /// What it said.
        reason: String,
        /// Unix seconds of the next attempt.
        next_attempt: u64,
    },
    /// Somebody has to mend the configuration; a probe goes out once a minute.
    NeedsAttention {
        /// What happened.
        reason: String,
        /// Unix seconds of the next probe.
        next_attempt: u64,
    },
    /// Paused by a person.
    Paused,
    /// Held because the clock cannot be trusted.
    Held {
        /// Why.
        reason: String,
    },
}

/// Counts of one store since the process started, for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeliveryFigures {
    /// Attempts made.
    pub attempts: u64,
    /// Attempts without success.
    pub failures: u64,
    /// Body bytes sent.
    pub bytes: u64,
    /// Unix seconds of the last success; 0 before the first.
    pub last_success: u64,
}

/// What a store was told about the metrics themselves, since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Requests the store took.
    pub told: u64,
    /// Why it did not take the last one; points are not touched by that, and the next window tries again.
    pub failure: Option<String>,
}

/// What is known of the running tasks.
#[derive(Default)]
pub(crate) struct Board(Mutex<HashMap<StoreId, Entry>>);

struct Entry {
    phase: Phase,
    figures: DeliveryFigures,
    metadata: Metadata,
    hasten: Arc<Notify>,
}

impl Board {
    fn with<T>(&self, store: StoreId, edit: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        edit(entries.entry(store).or_insert_with(|| Entry {
            phase: Phase::Idle,
            figures: DeliveryFigures::default(),
            metadata: Metadata::default(),
            hasten: Arc::new(Notify::new()),
        }))
    }

    pub(crate) fn phase(&self, store: StoreId) -> Phase {
        self.with(store, |entry| entry.phase.clone())
    }

    pub(crate) fn figures(&self, store: StoreId) -> DeliveryFigures {
        self.with(store, |entry| entry.figures)
    }

    pub(crate) fn metadata(&self, store: StoreId) -> Metadata {
        self.with(store, |entry| entry.metadata.clone())
    }

    /// Ends the wait of a store's task.
    pub(crate) fn hasten(&self, store: StoreId) {
        self.with(store, |entry| entry.hasten.clone()).notify_one();
    }

    /// Ends the wait of a task that has nothing to do; one that waits for its store to recover goes on waiting.
    pub(crate) fn hasten_idle(&self, store: StoreId) {
        let hasten = self.with(store, |entry| (entry.phase == Phase::Idle).then(|| entry.hasten.clone()));
        if let Some(hasten) = hasten {
            hasten.notify_one();
        }
    }

    fn forget(&self, store: StoreId) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&store);
    }
}

/// What all delivery tasks share.
pub(crate) struct Courier<S> {
    pub(crate) source: Arc<S>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) door: Door,
    pub(crate) board: Arc<Board>,
    /// Changes with every seal.
    pub(crate) sealed: watch::Receiver<crate::sealer::SealFigures>,
    pub(crate) turns: Turns,
}

impl<S> Clone for Courier<S> {
    fn clone(&self) -> Courier<S> {
        Courier {
            source: self.source.clone(),
            catalog: self.catalog.clone(),
            door: self.door.clone(),
            board: self.board.clone(),
            sealed: self.sealed.clone(),
            turns: self.turns.clone(),
        }
    }
}

/// Why the task waits before its next look.
enum Pause {
    None,
    /// Until something is sealed or changed.
    Idle,
    For(Duration),
}

/// What one store's task remembers between attempts; none of it outlives the process, and nothing depends on that.
#[derive(Default)]
struct Course {
    backoff: Backoff,
    /// The window that draws server errors, and since when.
    failing: Option<(Slot, Instant)>,
    metadata: Untold,
}

/// What the store has yet to be told about the metrics of the newest windows.
#[derive(Default)]
struct Untold {
    /// Digests of what it was told since the process started.
    told: HashSet<[u8; 32]>,
    waiting: VecDeque<(Outgoing, Window)>,
}

impl Untold {
    /// Takes the place of what waited of an earlier window.
    fn replace(&mut self, requests: Vec<Outgoing>, window: Window) {
        let new = requests.into_iter().filter(|outgoing| digest(outgoing).is_some_and(|digest| !self.told.contains(&digest)));
        self.waiting = new.map(|outgoing| (outgoing, window)).collect();
    }
}

/// Tells requests apart by where they go and what they hold; `None` for what is not HTTP.
fn digest(outgoing: &Outgoing) -> Option<[u8; 32]> {
    let Outgoing::Http(request) = outgoing else { return None };
    let mut hasher = Sha256::new();
    hasher.update(request.url.as_str());
    hasher.update([0]);
    hasher.update(&request.body);
    Some(hasher.finalize().into())
}

impl<S: ReportSource> Courier<S> {
    /// Keeps one task per live push store until the catalog is gone.
    pub(crate) async fn run(self) {
        let mut changes = self.catalog.changes();
        // Dropping the set ends its tasks: they live no longer than this one.
        let mut tasks = JoinSet::new();
        let mut running: HashMap<StoreId, AbortHandle> = HashMap::new();
        loop {
            let snapshot = changes.borrow_and_update().clone();
            while tasks.try_join_next().is_some() {}
            running.retain(|_, task| !task.is_finished());
            for store in
                snapshot.stores.iter().filter(|store| store.deleted.is_none() && adapters::is_push(&store.newest().settings.adapter))
            {
                running.entry(store.id).or_insert_with(|| tasks.spawn(self.clone().serve(store.id)));
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                // Only a deleted store's task ends by itself; one that panicked begins again.
                Some(_) = tasks.join_next() => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Delivers to one store until it is deleted.
    async fn serve(mut self, id: StoreId) {
        let mut changes = self.catalog.changes();
        let hasten = self.board.with(id, |entry| entry.hasten.clone());
        let mut course = Course::default();
        loop {
            let snapshot = changes.borrow_and_update().clone();
            let Some(store) = snapshot.store_by_id(id).filter(|store| store.deleted.is_none()) else {
                self.board.forget(id);
                return;
            };
            self.sealed.borrow_and_update();
            let pause = match self.advance(store, &mut course).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(store = store.name, error = &error as &dyn std::error::Error, "cannot use the catalog; trying again");
                    Pause::For(Duration::from_secs(1))
                }
            };
            match pause {
                Pause::None => {}
                Pause::Idle => tokio::select! {
                    _ = changes.changed() => {}
                    _ = self.sealed.changed() => {}
                    () = hasten.notified() => {}
                    () = tokio::time::sleep(IDLE) => {}
                },
                // A changed configuration may have mended what is waited for.
                Pause::For(wait) => tokio::select! {
                    _ = changes.changed() => {}
                    () = hasten.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                },
            }
        }
    }

    /// Looks at the oldest window due and makes at most one delivery's worth of progress.
    async fn advance(&self, store: &Store, course: &mut Course) -> Result<Pause, CatalogError> {
        let id = store.id;
        let set = |phase: Phase| self.board.with(id, |entry| entry.phase = phase);
        let Some(open) = self.oldest_open(id, course).await? else {
            set(if store.paused { Phase::Paused } else { Phase::Idle });
            if !store.paused && self.tell_one(store, &mut course.metadata).await {
                return Ok(Pause::None);
            }
            return Ok(Pause::Idle);
        };
        let now = self.source.now();
        let slot = Slot { window: open.window, backfill: open.backfill };
        if let Some(note) = too_old(store, &open, now) {
            let note = if open.unknown { format!("{note}; bytes had gone out without a verdict") } else { note };
            tracing::warn!(store = store.name, window = open.window.start_secs(), points = open.points.open, "expired");
            let catalog = self.catalog.clone();
            self.turns.run(move || catalog.expire(id, slot, open.points.open, &note)).await?;
            return Ok(Pause::None);
        }
        if store.paused {
            set(Phase::Paused);
            return Ok(Pause::Idle);
        }
        if let Some(reason) = self.source.holds_push() {
            set(Phase::Held { reason });
            return Ok(Pause::For(Duration::from_secs(5)));
        }
        let first = open.window.end().plus_micros(spread(id, open.window).as_micros() as u64);
        if open.payload.is_none() && open.backfill == 0 && now < first {
            return Ok(Pause::For(Duration::from_micros(first.since(now))));
        }
        set(Phase::Sending);
        self.deliver(store, open, course).await
    }

    /// Tells the store about one metric, when no points wait: false when there is nothing to tell or the store did not take it.
    async fn tell_one(&self, store: &Store, untold: &mut Untold) -> bool {
        let Some((outgoing, window)) = untold.waiting.pop_front() else { return false };
        let failure = match self.door.send(&outgoing, deadline(window)).await {
            Ok(Reply::Http { status: 200..=299, .. }) => None,
            Ok(Reply::Http { status, body, .. }) => Some(adapters::reason(status, &body)),
            Ok(_) => Some("the answer is not HTTP".to_owned()),
            Err(failure) => Some(failure.to_string()),
        };
        let taken = failure.is_none();
        if let Some(failure) = &failure {
            tracing::warn!(store = store.name, failure, "the store was not told about a metric");
            // The next window brings them back.
            untold.waiting.clear();
        } else {
            untold.told.extend(digest(&outgoing));
        }
        self.board.with(store.id, |entry| {
            entry.metadata.told += u64::from(taken);
            entry.metadata.failure = failure;
        });
        taken
    }

    async fn oldest_open(&self, id: StoreId, course: &Course) -> Result<Option<OpenDelivery>, CatalogError> {
        let skip = course.failing.filter(|(_, since)| since.elapsed() >= ASIDE_AFTER).map(|(window, _)| window);
        let catalog = self.catalog.clone();
        self.turns
            .run(move || match (catalog.oldest_open(id, skip)?, skip) {
                (None, Some(_)) => catalog.oldest_open(id, None),
                (found, _) => Ok(found),
            })
            .await
    }

    /// Sends the pending payloads of a window until it is settled or has to wait.
    async fn deliver(&self, store: &Store, open: OpenDelivery, course: &mut Course) -> Result<Pause, CatalogError> {
        let (id, window) = (store.id, open.window);
        let slot = Slot { window, backfill: open.backfill };
        let newest = store.newest();
        let adapter = match Adapter::parse(&newest.settings.adapter, &store.fields(newest)) {
            Ok(adapter) => adapter,
            Err(problems) => {
                return Ok(self.attention(
                    id,
                    &mut course.backoff,
                    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                ));
            }
        };
        let Some(push) = adapter.as_push() else { return Ok(Pause::Idle) };
        let mut pending = match open.payload.as_deref().map(Pending::unpack) {
            Some(Some(pending)) => pending,
            Some(None) => return Err(CatalogError::Damaged("payload")),
            None => {
                let (pending, metadata) = self.encode(id, slot, open.points.due).await?;
                course.metadata.replace(metadata, window);
                pending
            }
        };
        let mut unknown = open.unknown;
        while let Some(payload) = pending.first().cloned() {
            let (points, body_bytes) = (payload.points().count() as u64, payload.body().len() as u64);
            let outgoing = push.request(&payload);
            let began = Instant::now();
            let answer = self.door.send(&outgoing, deadline(window)).await;
            let millis = began.elapsed().as_millis() as u64;
            let verdict = match &answer {
                Ok(reply) => push.judge(&payload, reply),
                Err(failure) => verdict_of(failure),
            };
            unknown |= matches!(&answer, Err(Failure::TimedOut | Failure::Broken(_)));
            let (mut settled, next) = pending.apply(&verdict, push, unknown);
            settled.unknown = unknown;
            let (outcome, text) = describe(&verdict, &push.target());
            let now = self.source.now();
            let attempt = Attempt {
                window_start: window.start_secs(),
                at: now.secs(),
                outcome: outcome.to_owned(),
                text: text.clone(),
                points,
                bytes: body_bytes,
                millis,
            };
            let failed = !matches!(next, Next::GoOn);
            self.board.with(id, |entry| {
                entry.figures.attempts += 1;
                entry.figures.bytes += body_bytes;
                entry.figures.failures += u64::from(failed);
                if matches!(verdict, Verdict::Accepted { .. } | Verdict::Partial { .. }) {
                    entry.figures.last_success = now.secs();
                }
            });
            tracing::info!(store = store.name, window = window.start_secs(), outcome, points, bytes = body_bytes, millis, text, "attempt");
            let catalog = self.catalog.clone();
            self.turns.run(move || catalog.record_attempt(id, slot, &attempt, &settled)).await?;
            match next {
                Next::GoOn => {
                    course.backoff.succeeded();
                    self.let_pass(id, slot, course).await?;
                }
                Next::Wait { asked_secs } => {
                    note_failure(course, push, slot, &answer);
                    let wait = course.backoff.failed(asked_secs, jitter(id, now));
                    let next_attempt = self.source.now().plus_micros(wait.as_micros() as u64).secs();
                    let throttled = matches!(verdict, Verdict::Throttle { .. });
                    self.board.with(id, |entry| {
                        entry.phase = if throttled {
                            Phase::Throttled { reason: text, next_attempt }
                        } else {
                            Phase::Retrying { reason: text, next_attempt }
                        }
                    });
                    return Ok(Pause::For(wait));
                }
                Next::Attention => return Ok(self.attention(id, &mut course.backoff, text)),
            }
        }
        Ok(Pause::None)
    }

    /// A store that answers for a later window shows that the failing one is at fault: it is retried behind the others.
    async fn let_pass(&self, id: StoreId, delivered: Slot, course: &mut Course) -> Result<(), CatalogError> {
        match course.failing.take() {
            Some((failing, _)) if failing != delivered => {
                let catalog = self.catalog.clone();
                self.turns.run(move || catalog.set_aside(id, failing)).await
            }
            _ => Ok(()),
        }
    }

    fn attention(&self, id: StoreId, backoff: &mut Backoff, reason: String) -> Pause {
        backoff.succeeded();
        let next_attempt = self.source.now().plus_micros(PROBE.as_micros() as u64).secs();
        self.board.with(id, |entry| entry.phase = Phase::NeedsAttention { reason, next_attempt });
        Pause::For(PROBE)
    }

    /// Encodes a window under the settings that were in force at its start, and keeps the bytes before anything is sent. Beside them, what
    /// the store may be told about the metrics.
    async fn encode(&self, id: StoreId, slot: Slot, due: u64) -> Result<(Pending, Vec<Outgoing>), CatalogError> {
        let catalog = self.catalog.clone();
        self.turns
            .run(move || {
                // Asked for after the window was found sealed: what governed it is in this snapshot.
                let snapshot = catalog.snapshot();
                let store = snapshot.store_by_id(id).ok_or_else(|| CatalogError::Missing("such store any more".into()))?;
                let window = slot.window;
                let revision = store.in_force(window.start()).unwrap_or_else(|| store.newest());
                let batch = match slot.backfill {
                    0 => sealed_batch(&catalog, &snapshot, store, revision, window)?,
                    backfill => backfill::sealed_batch(&catalog, &snapshot, store, backfill, window)?,
                };
                if batch.points.len() as u64 != due {
                    return Err(CatalogError::Damaged("count of points due"));
                }
                // Fields of then may not go with the secrets of now, after a change of login: the settings of now then encode as well.
                let newest = store.newest();
                let adapter = Adapter::parse(&revision.settings.adapter, &store.fields(revision))
                    .or_else(|_| Adapter::parse(&newest.settings.adapter, &store.fields(newest)))
                    .map_err(|_| CatalogError::Damaged("store setting"))?;
                let push = adapter.as_push().ok_or(CatalogError::Damaged("store setting"))?;
                let encoded = push.encode(&batch);
                let pending = Pending::new(encoded.payloads);
                let note = encoded.excluded.first().map(|excluded| format!("left out: {}", excluded.reason));
                let settled = Settled {
                    excluded: encoded.excluded.len() as u64,
                    excluded_for: encoded.excluded.iter().map(|excluded| (excluded.reason.to_string(), 1)).collect(),
                    payload: Some(pending.pack()),
                    note,
                    ..Settled::default()
                };
                catalog.keep_payload(store.id, slot, &settled)?;
                Ok((pending, push.metadata(&batch)))
            })
            .await
    }
}

/// The points of a sealed window for one store.
pub(crate) fn sealed_batch(
    catalog: &Catalog,
    snapshot: &Snapshot,
    store: &Store,
    revision: &StoreRevision,
    window: Window,
) -> Result<Batch, CatalogError> {
    let page = pull::sealed_page(catalog, snapshot, store, revision, window)?.ok_or(CatalogError::Damaged("sealed window"))?;
    Ok(batch::batch(page))
}

/// Why a window may no longer be sent, or `None`. The horizon of a backfilled one counts from when it became due.
fn too_old(store: &Store, open: &OpenDelivery, now: Stamp) -> Option<String> {
    let settings = &store.newest().settings;
    let since = if open.backfill == 0 { open.window.end_secs() } else { open.made };
    if now.secs().saturating_sub(since) > settings.horizon_secs {
        return Some(format!("older than the horizon of {} s", settings.horizon_secs));
    }
    too_old_for(adapters::description(&settings.adapter)?, open.window, now)
}

/// Why the store itself would refuse a window's points, or `None`: it goes by the time that they carry.
pub(crate) fn too_old_for(description: &Description, window: Window, now: Stamp) -> Option<String> {
    let limit = description.max_age_secs?.saturating_sub(AGE_MARGIN_SECS);
    (now.secs().saturating_sub(description.time_secs(window)) > limit).then(|| format!("older than the {limit} s the store takes"))
}

/// The last second in which a live window may still be sent.
pub(crate) fn last_second(store: &Store, window: Window) -> u64 {
    let settings = &store.newest().settings;
    let horizon = window.end_secs() + settings.horizon_secs;
    let description = adapters::description(&settings.adapter);
    let limit = description.and_then(|one| Some(one.time_secs(window) + one.max_age_secs?.saturating_sub(AGE_MARGIN_SECS)));
    limit.map_or(horizon, |limit| limit.min(horizon))
}

/// Where in the first moments after a window's end a store's first attempt falls: the same for every window.
fn spread(id: StoreId, window: Window) -> Duration {
    let span = SPREAD_MAX.min(Duration::from_secs(u64::from(window.period().secs())) / 4);
    let hash = Sha256::digest(id.0.to_le_bytes());
    span.mul_f64(f64::from(hash[0]) / 256.0)
}

/// 10 to 30 s for a whole request, the period where that lies between (metric-stores 1.5).
fn deadline(window: Window) -> Duration {
    Duration::from_secs(u64::from(window.period().secs()).clamp(10, 30))
}

fn verdict_of(failure: &Failure) -> Verdict {
    let reason = failure.to_string();
    if failure.needs_attention() { Verdict::Config { reason } } else { Verdict::Retry { reason } }
}

/// Remembers since when a window draws server errors; a store that cannot be reached says nothing about the window, and one that
/// takes windows only in order would refuse it behind a later one.
fn note_failure(course: &mut Course, push: &dyn Push, window: Slot, answer: &Result<adapters::Reply, Failure>) {
    let answered = !push.in_order() && matches!(answer, Ok(adapters::Reply::Http { status: 500..=599, .. }));
    match course.failing {
        Some((failing, _)) if answered && failing == window => {}
        Some(_) if answered => {}
        _ => course.failing = answered.then(|| (window, Instant::now())),
    }
}

/// The class of a verdict and its text for the attempt's row.
fn describe(verdict: &Verdict, target: &str) -> (&'static str, String) {
    match verdict {
        Verdict::Accepted { confirmed: true } => ("ok", format!("{target} confirmed")),
        Verdict::Accepted { confirmed: false } => ("ok", format!("sent to {target}, which does not confirm")),
        Verdict::Partial { reason, .. } => ("partial", reason.clone()),
        Verdict::Drop { reason } => ("drop", reason.clone()),
        Verdict::Split => ("split", format!("{target} says the request is too large")),
        Verdict::Throttle { reason, .. } => ("throttle", reason.clone()),
        Verdict::Retry { reason } => ("retry", reason.clone()),
        Verdict::Config { reason } => ("config", reason.clone()),
    }
}

/// As good as random, and the same again for the same store and moment.
fn jitter(id: StoreId, now: Stamp) -> u64 {
    let digest = Sha256::new().chain_update(id.0.to_le_bytes()).chain_update(now.micros().to_le_bytes()).finalize();
    u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

/// Runs catalog work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down and has dropped the work: so will it drop us.
        Err(_) => std::future::pending().await,
    }
}

/// Pieces of deliveries' catalog work at one time.
const TURNS: usize = 8;

/// [`blocking`] for deliveries, which are many: work beyond [`TURNS`] waits without a thread.
///
/// The catalog does one after the other anyway, and each thread keeps some MiB of memory: without the bound a thousand stores
/// that wait for one window are hundreds of threads. Sealing never waits here. A stop drops what waits, an attempt's record among
/// it, as a kill would: the window is sent again, and stores overwrite.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Turns {
        Turns(Arc::new(Semaphore::new(TURNS)))
    }
}

impl Turns {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _turn = self.0.acquire().await.expect("it is never closed");
        blocking(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adapters::Reply;
    use model::Period;
    use serde_json::json;

    #[tokio::test]
    async fn the_catalog_work_of_many_deliveries_takes_few_threads() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (turns, inside, most) = (Turns::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut deliveries = JoinSet::new();
        for _ in 0..200 {
            let (turns, inside, most) = (turns.clone(), inside.clone(), most.clone());
            deliveries.spawn(async move {
                let work = move || {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                    inside.fetch_sub(1, Ordering::SeqCst);
                };
                turns.run(work).await;
            });
        }
        assert_eq!(deliveries.join_all().await.len(), 200, "each has its turn");
        assert!(most.load(Ordering::SeqCst) <= TURNS, "{most:?} at once");
    }

    #[test]
    fn a_window_that_fails_is_let_pass_only_where_the_store_takes_another_first() {
        let window = Period::new(60).expect("legal").window_at(Stamp::from_secs(1_700_000_000));
        for (adapter, fields, status, noted) in [
            ("influxdb", json!({"url": "http://h/write?db=d"}), 500, true),
            ("datadog", json!({"api_key": "k"}), 502, true),
            ("datadog", json!({"api_key": "k"}), 429, false),
            ("grafana", json!({"url": "http://h/metrics", "api_key": "k"}), 500, false),
        ] {
            let settings = Adapter::parse(adapter, fields.as_object().expect("an object")).expect("sound settings");
            let mut course = Course::default();
            let answer = Ok(Reply::Http { status, retry_after: None, body: Vec::new() });
            note_failure(&mut course, settings.as_push().expect("a push adapter"), window.into(), &answer);
            assert_eq!(course.failing.is_some(), noted, "{adapter} {status}");
        }
    }

    fn store(adapter: &str, period: u32) -> Store {
        let settings = catalog::StoreSettings {
            adapter: adapter.into(),
            period: Period::new(period).expect("legal"),
            sets: Vec::new(),
            prefix: "p".into(),
            template: model::PathTemplate::default(),
            label_names: Default::default(),
            labels: Default::default(),
            horizon_secs: 72 * 3_600,
            enabled: true,
            fields: Default::default(),
        };
        Store {
            id: StoreId(1),
            project: model::ProjectId(1),
            name: "s".into(),
            deleted: None,
            paused: false,
            secrets: Default::default(),
            revisions: vec![StoreRevision { number: 1, begins: Stamp::ZERO, settings }],
        }
    }

    #[test]
    fn the_age_a_store_goes_by_is_that_of_the_time_its_points_carry() {
        for (adapter, period, after_end, expires) in [
            ("datadog", 60, 0, false),
            ("datadog", 60, 3_240, false),
            ("datadog", 60, 3_241, true),
            ("grafana", 1_800, 1_500, false),
            ("grafana", 1_800, 1_501, true),
            ("datadog", 3_600, 0, false),
            ("datadog", 86_400, 0, false),
            ("grafana", 86_400, 1_500, false),
            ("grafana", 86_400, 1_501, true),
            ("graphite", 60, 1_000_000, false),
            ("influxdb", 86_400, 1_000_000, false),
        ] {
            let window = Period::new(period).expect("legal").window_at(Stamp::from_secs(1_700_000_000));
            let now = Stamp::from_secs(window.end_secs() + after_end);
            let description = adapters::description(adapter).expect("known");
            assert_eq!(too_old_for(description, window, now).is_some(), expires, "{adapter} {period} {after_end}");
            let store = store(adapter, period);
            let last = last_second(&store, window);
            assert!(too_old_for(description, window, Stamp::from_secs(last)).is_none(), "{adapter} {period}: it is announced in time");
            let open = OpenDelivery { window, backfill: 0, made: 0, points: Default::default(), payload: None, unknown: false };
            assert!(
                too_old(&store, &open, Stamp::from_secs(last)).is_none() && too_old(&store, &open, Stamp::from_secs(last + 1)).is_some()
            );
        }
    }
}
