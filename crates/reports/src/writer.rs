//! The writer's thread and its queue: takes everything that waits, commits it as one group, answers.

use crate::core::{Core, Outcome, Request};
use crate::log::{Segment, Shelf};
use crate::memory::Memory;
use crate::{AppendError, Locked, Reply};
use model::{Attachment, ProjectId, Stamp, Tx};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that may wait for the writer. Those beyond wait to enter, for a bounded time, and are then refused as busy.
const QUEUE: usize = 4_096;
/// A commit takes no more once it has this many bytes of report bodies, so that no one waits long for a huge one.
const GROUP_BYTES: usize = 4 << 20;

/// Counts of the writer since the start.
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
}

/// What the writer publishes and readers see.
pub(crate) struct Shared {
    pub(crate) memory: Locked<Memory>,
    pub(crate) durable: watch::Sender<Stamp>,
    pub(crate) shelf: Shelf,
    segments: Locked<BTreeMap<u64, Segment>>,
    late: Locked<HashMap<(ProjectId, Tx), Vec<Attachment>>>,
}

impl Shared {
    pub(crate) fn new(
        memory: Memory,
        late: HashMap<(ProjectId, Tx), Vec<Attachment>>,
        segments: BTreeMap<u64, Segment>,
        shelf: Shelf,
        durable: Stamp,
    ) -> Shared {
        Shared {
            memory: RwLock::new(memory),
            durable: watch::Sender::new(durable),
            shelf,
            segments: RwLock::new(segments),
            late: RwLock::new(late),
        }
    }

    /// Segments with commits in the span, oldest first.
    pub(crate) fn segments_over(&self, span: &Range<Stamp>) -> Vec<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let overlaps =
            |segment: &Segment| segment.stamps.as_ref().is_some_and(|stamps| *stamps.start() < span.end && span.start <= *stamps.end());
        segments.iter().filter(|(_, segment)| overlaps(segment)).map(|(number, _)| *number).collect()
    }

    /// Segments in which a report may be.
    pub(crate) fn segments_with(&self, project: ProjectId, tx: Tx) -> Vec<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |segment: &Segment| segment.numbers.get(&project).is_some_and(|(first, last)| (*first..=*last).contains(&tx));
        segments.iter().filter(|(_, segment)| holds(segment)).map(|(number, _)| *number).collect()
    }

    pub(crate) fn late_attachments(&self, project: ProjectId, tx: Tx) -> Vec<Attachment> {
        self.late.read().unwrap_or_else(PoisonError::into_inner).get(&(project, tx)).cloned().unwrap_or_default()
    }
}

#[derive(Default)]
struct Counters {
    appended: AtomicU64,
    duplicates: AtomicU64,
    commits: AtomicU64,
    bytes: AtomicU64,
    sync_micros: AtomicU64,
}

/// The handle of the writer's thread. The thread ends when the handle is dropped or the disk fails.
pub(crate) struct Writer {
    queue: mpsc::Sender<(Request, Reply)>,
    counters: Arc<Counters>,
    alive: watch::Receiver<bool>,
}

impl Writer {
    pub(crate) fn start(core: Core, shared: Arc<Shared>) -> Writer {
        let (queue, requests) = mpsc::channel(QUEUE);
        let (life, alive) = watch::channel(true);
        let counters = Arc::new(Counters::default());
        let counting = counters.clone();
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                write(core, &shared, requests, &counting);
                life.send_replace(false);
            })
            .expect("the system starts one more thread");
        Writer { queue, counters, alive }
    }

    /// Hands a request over and waits until its commit is durable.
    pub(crate) async fn submit(&self, request: Request, patience: Duration) -> Result<Outcome, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send_timeout((request, reply), patience).await.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => AppendError::Busy,
            SendTimeoutError::Closed(_) => AppendError::Stopped,
        })?;
        answer.await.map_err(|_| AppendError::Stopped)
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
            queue_depth: (QUEUE - self.queue.capacity()) as u64,
        }
    }
}

fn write(mut core: Core, shared: &Shared, mut requests: mpsc::Receiver<(Request, Reply)>, counters: &Counters) {
    while let Some(first) = requests.blocking_recv() {
        let mut bytes = weight(&first.0);
        let mut group = vec![first];
        while bytes < GROUP_BYTES {
            let Ok(next) = requests.try_recv() else { break };
            bytes += weight(&next.0);
            group.push(next);
        }
        let (mut work, mut replies) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for (request, reply) in group {
            if let Request::Attachment { project, tx, .. } = &request
                && !core.knows(*project, *tx)
            {
                continue;
            }
            work.push(request);
            replies.push(reply);
        }
        let began = Instant::now();
        let committed = match core.commit(work) {
            Ok(committed) => committed,
            Err(error) => {
                // Nothing is tried again on this file: after a failed sync the kernel may have dropped the pages.
                tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be written; it stops");
                return;
            }
        };
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        add(&counters.sync_micros, began.elapsed().as_micros() as u64);
        add(&counters.commits, 1);
        add(&counters.bytes, committed.bytes);
        add(&counters.appended, committed.reports.len() as u64);
        publish(&core, shared, committed.stamp, committed.reports, committed.attachments);
        for (outcome, reply) in committed.outcomes.into_iter().zip(replies) {
            if matches!(&outcome, Outcome::Report(receipt) if receipt.duplicate) {
                add(&counters.duplicates, 1);
            }
            // Whoever asked may have hung up; the report is kept all the same.
            let _ = reply.send(outcome);
        }
    }
}

/// Makes a durable commit visible, then says that it is.
fn publish(core: &Core, shared: &Shared, stamp: Stamp, reports: Vec<Arc<model::Report>>, attachments: Vec<((ProjectId, Tx), Attachment)>) {
    {
        let (number, segment) = core.log.open_segment();
        let mut segments = shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(number, segment.clone());
    }
    if !attachments.is_empty() {
        let mut late = shared.late.write().unwrap_or_else(PoisonError::into_inner);
        attachments.into_iter().for_each(|(report, attachment)| late.entry(report).or_default().push(attachment));
    }
    if !reports.is_empty() {
        let mut memory = shared.memory.write().unwrap_or_else(PoisonError::into_inner);
        reports.into_iter().for_each(|report| memory.add(report));
    }
    shared.durable.send_replace(stamp);
}

fn weight(request: &Request) -> usize {
    match request {
        Request::Report { report, .. } => report.raw.len() + 1_024,
        Request::Attachment { .. } | Request::Tick => 64,
    }
}
