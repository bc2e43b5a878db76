//! The writer's thread and its queue: takes everything that waits, commits it as one group, answers.

use crate::AppendError;
use crate::attachments::Hold;
use crate::core::{Core, Outcome, Request};
use crate::log::CommitError;
use crate::memory::Memory;
use model::Stamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// KiB of requests that may wait for the writer, each counted as at least one. Those beyond wait to enter, for a bounded time, and
/// are then refused as busy.
const QUEUE_KIB: usize = 64 << 10;
/// A commit takes no more once it has this many bytes, so that no one waits long for a huge one.
const GROUP_BYTES: usize = 4 << 20;

type Reply = oneshot::Sender<Result<Outcome, AppendError>>;

/// A request with its way back and its place in the queue.
struct Waiting {
    request: Request,
    /// Its weight.
    bytes: usize,
    reply: Reply,
    place: OwnedSemaphorePermit,
    /// Of the request's files.
    hold: Option<Hold>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Reports committed.
    pub appended: u64,
    /// Repeats recognised.
    pub duplicates: u64,
    /// Groups committed.
    pub commits: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Microseconds spent in writing and syncing.
    pub sync_micros: u64,
    /// Requests waiting now.
    pub queue_depth: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the log that were asked for and could not be read: damage since they were written.
    pub unreadable_bytes: u64,
}

/// What the writer publishes and readers see.
pub(crate) struct Shared {
    pub(crate) memory: RwLock<Memory>,
    pub(crate) durable: watch::Sender<Stamp>,
}

#[derive(Default)]
struct Counters {
    appended: AtomicU64,
    duplicates: AtomicU64,
    commits: AtomicU64,
    bytes: AtomicU64,
    sync_micros: AtomicU64,
    waiting: AtomicU64,
}

/// The handle of the writer's thread, which ends when the handle is dropped or the disk fails.
pub(crate) struct Writer {
    /// `None` only while being dropped.
    queue: Option<mpsc::Sender<Waiting>>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    alive: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

/// A thread that is waited for, however its work ends.
struct Helper(Option<JoinHandle<()>>);

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// Says that the thread has ended, however it did.
struct Life(watch::Sender<bool>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Writer {
    pub(crate) fn start(mut core: Core, shared: Arc<Shared>) -> std::io::Result<Writer> {
        // The room is what bounds the queue: every request has a place in it before it is sent, so the channel is never full.
        let (queue, requests) = mpsc::channel(QUEUE_KIB);
        let (life, alive) = watch::channel(true);
        let counters = Arc::new(Counters::default());
        let counting = counters.clone();
        core.leaves_indexes = true;
        let work = move || {
            // Waited for last: when the log stops, this is told before.
            let mut indexing = Helper(None);
            let _life = Life(life);
            let is_whole = write(&mut core, &shared, requests, &counting, &mut indexing);
            // So that the next start does not make it.
            if is_whole && let Err(error) = core.finish_index() {
                tracing::warn!(error = &error as &dyn std::error::Error, "the index of a segment is left to the next start");
            }
        };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(work)?;
        Ok(Writer { queue: Some(queue), room: Arc::new(Semaphore::new(QUEUE_KIB)), counters, alive, thread: Some(thread) })
    }

    /// Hands a request over and waits until its commit is durable.
    pub(crate) async fn submit(&self, request: Request, hold: Option<Hold>, patience: Duration) -> Result<Outcome, AppendError> {
        let bytes = weight(&request);
        let places = bytes.div_ceil(1024).clamp(1, QUEUE_KIB) as u32;
        let room = self.room.clone().acquire_many_owned(places);
        let place = tokio::time::timeout(patience, room).await.map_err(|_| AppendError::Busy)?.map_err(|_| AppendError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(AppendError::Stopped)?;
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        queue.try_send(Waiting { request, bytes, reply, place, hold }).map_err(|_| AppendError::Stopped)?;
        answer.await.map_err(|_| AppendError::Stopped)?
    }

    pub(crate) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    pub(crate) async fn stopped(&self) {
        let mut alive = self.alive.clone();
        // An error means that the thread is gone without saying so: it has stopped all the same.
        let _ = alive.wait_for(|alive| !alive).await;
    }

    pub(crate) fn figures(&self) -> Figures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            appended: count(&self.counters.appended),
            duplicates: count(&self.counters.duplicates),
            commits: count(&self.counters.commits),
            bytes: count(&self.counters.bytes),
            sync_micros: count(&self.counters.sync_micros),
            queue_depth: count(&self.counters.waiting),
            ..Figures::default()
        }
    }
}

impl Drop for Writer {
    /// Waits for the commit in hand, so that nobody opens the folder while this thread still writes to it.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Commits until there is nobody left to ask for it, or (`false`) until the log cannot be written.
fn write(core: &mut Core, shared: &Shared, mut requests: mpsc::Receiver<Waiting>, counters: &Counters, indexing: &mut Helper) -> bool {
    while let Some(first) = requests.blocking_recv() {
        let (mut bytes, mut next) = (0, Some(first));
        let (mut work, mut replies) = (Vec::new(), Vec::new());
        while let Some(Waiting { request, bytes: weight, reply, place, hold }) = next {
            bytes += weight;
            work.push(request);
            replies.push((reply, (place, hold)));
            next = if bytes < GROUP_BYTES { requests.try_recv().ok() } else { None };
        }
        counters.waiting.fetch_sub(work.len() as u64, Ordering::Relaxed);
        let began = Instant::now();
        let committed = match core.commit(work) {
            Ok(committed) => committed,
            Err(CommitError::Full) => {
                tracing::warn!(reports = replies.len(), "the disk is full; reports are refused");
                replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(AppendError::Full))));
                continue;
            }
            Err(CommitError::Broken(error)) => {
                // Nothing is tried again on this file: after a failed sync the kernel may have dropped the pages.
                tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be written; it stops");
                // The next start may find the commit all the same: its files must be there.
                replies.into_iter().for_each(|(_, (_, hold))| std::mem::forget(hold));
                return false;
            }
        };
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        add(&counters.sync_micros, began.elapsed().as_micros() as u64);
        add(&counters.commits, 1);
        add(&counters.bytes, committed.bytes);
        add(&counters.appended, committed.reports.len() as u64);
        if !committed.reports.is_empty() || !committed.amendments.is_empty() {
            let mut memory = shared.memory.write().unwrap_or_else(PoisonError::into_inner);
            memory.names.merge(&committed.names);
            committed.reports.iter().for_each(|report| memory.add(report));
            committed.amendments.iter().for_each(|entry| memory.amend(entry));
        }
        // Visible first, then said to be.
        shared.durable.send_replace(committed.stamp);
        for (outcome, (reply, _)) in committed.outcomes.into_iter().zip(replies) {
            if matches!(&outcome, Outcome::Report(receipt) if receipt.duplicate) {
                add(&counters.duplicates, 1);
            }
            // Whoever asked may have hung up; the report is kept all the same.
            let _ = reply.send(match outcome {
                Outcome::Refused => Err(AppendError::Busy),
                outcome => Ok(outcome),
            });
        }
        if let Some(index) = core.index_to_write() {
            // Where there is no thread, it is asked for again.
            let thread = std::thread::Builder::new().name("log-index".into()).spawn(move || index.write());
            *indexing = Helper(thread.ok());
        }
    }
    true
}

/// Bytes of a request, roughly.
pub(crate) fn weight(request: &Request) -> usize {
    match request {
        Request::Report { report, .. } => report.raw.len() + crate::memory::attribute_bytes(&report.attributes),
        Request::Change { runs, .. } => 64 + runs.len() * 4,
        Request::Attachment { .. } | Request::Tick => 64,
    }
}
