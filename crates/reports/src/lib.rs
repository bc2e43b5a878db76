//! Append and evaluate reports. The only crate that knows how reports are kept: a synced log, recent rows in memory, files by
//! content.
//!
//! One writer thread owns the log. Whoever appends waits for the commit that holds the report to be on the disk; commits take
//! along everything that waits, so one sync serves many. A failed write or sync ends the writer: the process must then stop.

mod attachments;
mod clock;
mod codec;
mod core;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
mod disk;
mod frame;
mod ids;
mod index;
mod lock;
mod log;
mod memory;
mod names;
mod recovery;
mod resolve;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;
mod writer;

pub use clock::{Clock, ClockStatus, Reading, SystemClock};
pub use codec::StoredReport;
pub use core::Receipt;
pub use disk::{Appender, Disk, RealDisk};
pub use lock::{FolderLock, lock_folder};
pub use names::AttributeSummary;
pub use recovery::{OpenError, Recovery};
pub use writer::Figures;

use attachments::Attachments;
use codec::Entry;
use core::{Core, Outcome, Request, SharedClock};
use memory::Memory;
use model::oracle::{self, Oracle};
use model::{Attachment, Key, NewAttachment, NewReport, ProjectId, Query, Report, Selected, Selection, Stamp, Table, TableRow, Tx};
use recovery::failed;
use segment::Shelf;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;
use writer::{Shared, Writer, weight};

/// How long a report waits for a place in the writer's queue before it is refused as busy.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest report without its files, in bytes: far above what any intake lets through, far below what a frame can hold.
pub const REPORT_MAX_BYTES: usize = 128 << 20;

/// Bounds of the report store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A segment of the log is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// Bytes of recent reports kept in memory.
    pub memory_bytes: usize,
}

impl Default for Settings {
    /// Segments of 32 MiB, so that a restart copies little; 256 MiB of recent reports.
    fn default() -> Settings {
        Settings { segment_bytes: 32 << 20, memory_bytes: 256 << 20 }
    }
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The writer's queue stayed full.
    #[error("the log is busy")]
    Busy,
    /// The writer has stopped after a failed write or sync; whether the report is kept is unknown.
    #[error("the log has stopped")]
    Stopped,
    /// There is no room on the disk; the report was not kept, and later ones may be.
    #[error("the disk is full")]
    Full,
    /// The report is larger than one commit may be.
    #[error("the report is larger than {} bytes", REPORT_MAX_BYTES)]
    TooLarge,
    /// A file could not be stored.
    #[error("cannot store an attachment")]
    Attachment(#[source] io::Error),
    /// A late attachment for a report that was never accepted.
    #[error("there is no such report")]
    NoSuchReport,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// More groups than fit.
    #[error("the query has more than {} groups; group by something with fewer values", oracle::MAX_GROUPS)]
    TooManyGroups,
    /// Whoever asked has gone.
    #[error("the query was cancelled")]
    Cancelled,
}

/// Tells a running query to stop. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the query soon.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the query is to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A segment could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log")]
pub struct ReadError(#[from] io::Error);

/// The report store. Share it by `Arc`.
pub struct Reports {
    shared: Arc<Shared>,
    shelf: Shelf,
    writer: Writer,
    clock: Arc<SharedClock>,
    attachments: Attachments,
    /// One late attachment at a time, so that numbers within a report are given once.
    late: tokio::sync::Mutex<()>,
    pinned: watch::Sender<Stamp>,
}

impl Reports {
    /// Opens or makes the store in `folder`, which the process holds by a lock (see `lock_folder`). Stamps will come after `floor`
    /// and after everything in the log.
    pub fn open(
        folder: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        floor: Stamp,
        settings: Settings,
    ) -> Result<(Reports, Recovery), OpenError> {
        let bounds = (settings.segment_bytes, settings.memory_bytes);
        let (core, memory, clock, recovery) = Core::open(&folder.join("log"), disk.clone(), clock, floor, bounds)?;
        let files = folder.join("attachments");
        let attachments = Attachments::open(disk, &files).map_err(failed("open", &files))?;
        let shelf = core.shelf();
        let shared = Arc::new(Shared { memory: RwLock::new(memory), durable: watch::Sender::new(recovery.last_durable) });
        let writer = Writer::start(core, shared.clone()).map_err(failed("start the writer of", folder))?;
        let pinned = watch::Sender::new(Stamp::ZERO);
        Ok((Reports { shared, shelf, writer, clock, attachments, late: tokio::sync::Mutex::new(()), pinned }, recovery))
    }

    /// Takes a report; returns when it and its files are on the disk. A repeat gets the first one's number, and waits for it
    /// when it is still in flight.
    pub async fn append(self: &Arc<Self>, project: ProjectId, mut report: NewReport) -> Result<Receipt, AppendError> {
        let files = std::mem::take(&mut report.attachments);
        let attachments = if files.is_empty() { Vec::new() } else { self.store(files, 1).await? };
        let request = Request::Report { project, report, attachments };
        if weight(&request) > REPORT_MAX_BYTES {
            return Err(AppendError::TooLarge);
        }
        match self.writer.submit(request, QUEUE_TIMEOUT).await? {
            Outcome::Report(receipt) => Ok(receipt),
            other => unreachable!("a report comes back as {other:?}"),
        }
    }

    /// Adds a file to an accepted report.
    pub async fn attach(self: &Arc<Self>, project: ProjectId, tx: Tx, file: NewAttachment) -> Result<Attachment, AppendError> {
        let _one_at_a_time = self.late.lock().await;
        let this = self.clone();
        let found = tokio::task::spawn_blocking(move || this.report(project, tx)).await.map_err(|_| AppendError::Stopped)?;
        let stored = found.map_err(|error| AppendError::Attachment(error.0))?.ok_or(AppendError::NoSuchReport)?;
        let id = stored.attachments.iter().map(|attachment| attachment.id).max().unwrap_or(0) + 1;
        let attachment = self.store(vec![file], id).await?.pop().expect("one was stored");
        self.writer.submit(Request::Attachment { project, tx, attachment: attachment.clone() }, QUEUE_TIMEOUT).await?;
        Ok(attachment)
    }

    async fn store(self: &Arc<Self>, files: Vec<NewAttachment>, first_id: u32) -> Result<Vec<Attachment>, AppendError> {
        let this = self.clone();
        let store = move || files.iter().zip(first_id..).map(|(file, id)| this.attachments.store(id, file)).collect::<io::Result<Vec<_>>>();
        tokio::task::spawn_blocking(store).await.map_err(|_| AppendError::Stopped)?.map_err(AppendError::Attachment)
    }

    /// Commits an empty group, so that the durable stamp catches up with the clock.
    pub async fn tick(&self) -> Result<Stamp, AppendError> {
        self.writer.submit(Request::Tick, QUEUE_TIMEOUT).await?;
        Ok(*self.shared.durable.borrow())
    }

    /// Everything stamped at or below this is on the disk and visible to `evaluate`, and nothing else will be.
    pub fn durable_stamp(&self) -> watch::Receiver<Stamp> {
        self.shared.durable.subscribe()
    }

    /// The service clock.
    pub fn now(&self) -> Stamp {
        self.clock.now()
    }

    /// How the service clock stands to the wall clock.
    pub fn clock_status(&self) -> ClockStatus {
        self.clock.status()
    }

    /// Whether the writer lives.
    pub fn is_open(&self) -> bool {
        self.writer.is_alive()
    }

    /// Ends when the writer has stopped: the process must then stop too.
    pub async fn stopped(&self) {
        self.writer.stopped().await;
    }

    /// Evaluates many queries over a span in one scan. Blocks. Of recent spans nothing is read from the disk.
    pub fn evaluate(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        queries: &[&Query],
        cancel: &Cancel,
    ) -> Result<Vec<Result<Table, EvaluateError>>, ReadError> {
        let mut oracles: Vec<Result<Oracle<'_>, EvaluateError>> = queries.iter().map(|query| Ok(Oracle::new(query))).collect();
        self.scan(project, &span, &mut |report| {
            if cancel.is_set() {
                return;
            }
            for oracle in &mut oracles {
                if let Ok(running) = oracle {
                    running.add(report);
                    if running.groups() > oracle::MAX_GROUPS {
                        *oracle = Err(EvaluateError::TooManyGroups);
                    }
                }
            }
        })?;
        let finish = |oracle: Oracle<'_>| if cancel.is_set() { Err(EvaluateError::Cancelled) } else { Ok(oracle.finish()) };
        Ok(oracles.into_iter().map(|oracle| oracle.and_then(finish)).collect())
    }

    /// Evaluates a query over the reports of a span whose groups are not among those kept, as one group with an empty key. Blocks.
    pub fn rest(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        query: &Query,
        kept: &BTreeSet<Key>,
        cancel: &Cancel,
    ) -> Result<Result<TableRow, EvaluateError>, ReadError> {
        let reports = self.collect(project, &span, cancel)?;
        Ok(reports.map(|reports| oracle::rest(&reports, query, kept)))
    }

    /// Selects reports of a span. Blocks.
    pub fn select(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        selection: &Selection,
        cancel: &Cancel,
    ) -> Result<Result<Selected, EvaluateError>, ReadError> {
        let reports = self.collect(project, &span, cancel)?;
        Ok(reports.map(|reports| oracle::select(&reports, selection)))
    }

    fn collect(&self, project: ProjectId, span: &Range<Stamp>, cancel: &Cancel) -> Result<Result<Vec<Report>, EvaluateError>, ReadError> {
        let mut reports = Vec::new();
        self.scan(project, span, &mut |report| {
            if !cancel.is_set() {
                reports.push(report.clone());
            }
        })?;
        Ok(if cancel.is_set() { Err(EvaluateError::Cancelled) } else { Ok(reports) })
    }

    /// Reports accepted in a span. Blocks.
    pub fn accepted(&self, project: ProjectId, span: Range<Stamp>) -> Result<u64, ReadError> {
        {
            let memory = self.memory();
            if memory.complete_from() <= span.start {
                return Ok(memory.rows(project, &span).len() as u64);
            }
        }
        let mut count = 0;
        self.scan(project, &span, &mut |_| count += 1)?;
        Ok(count)
    }

    /// Shows the project's reports in a span: what memory no longer has comes from the log.
    fn scan(&self, project: ProjectId, span: &Range<Stamp>, visit: &mut dyn FnMut(&Report)) -> Result<(), ReadError> {
        let (rows, complete_from) = {
            let memory = self.memory();
            (memory.rows(project, span).cloned().collect::<Vec<_>>(), memory.complete_from())
        };
        if span.start < complete_from {
            let older = span.start..span.end.min(complete_from);
            self.shelf.read(|chunk| chunk.is_over(&older), &mut |entry| {
                if let Entry::Report(stored) = entry
                    && stored.report.project == project
                    && older.contains(&stored.report.stamp)
                {
                    visit(&stored.report);
                }
            })?;
        }
        rows.iter().for_each(|report| visit(report));
        Ok(())
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.shared.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attributes that the project's reports have or had, by name: at most 10,000.
    pub fn attributes(&self, project: ProjectId) -> Vec<AttributeSummary> {
        self.memory().names.of(project)
    }

    /// One report with its body and files. Blocks.
    pub fn report(&self, project: ProjectId, tx: Tx) -> Result<Option<StoredReport>, ReadError> {
        let (mut found, mut late) = (None, Vec::new());
        self.shelf.read(|chunk| chunk.speaks_of(project, tx), &mut |entry| match entry {
            Entry::Report(stored) if (stored.report.project, stored.report.tx) == (project, tx) => found = Some(*stored),
            Entry::Attachment { project: of, tx: to, attachment } if (of, to) == (project, tx) => late.push(attachment),
            _ => {}
        })?;
        if let Some(stored) = &mut found {
            stored.attachments.extend(late);
        }
        Ok(found)
    }

    /// One file of a report. Blocks.
    pub fn attachment(&self, project: ProjectId, tx: Tx, id: u32) -> Result<Option<(Attachment, Vec<u8>)>, ReadError> {
        let Some(attachment) = self.report(project, tx)?.and_then(|stored| stored.attachments.into_iter().find(|one| one.id == id)) else {
            return Ok(None);
        };
        let bytes = self.attachments.load(&attachment)?;
        Ok(Some((attachment, bytes)))
    }

    /// Everything before this stamp is sealed: retention may take it.
    pub fn pin(&self, stamp: Stamp) {
        self.pinned.send_replace(stamp);
    }

    /// Counts since the start.
    pub fn figures(&self) -> Figures {
        let (segments, unreadable_bytes) = self.shelf.counts();
        Figures { segments, unreadable_bytes, ..self.writer.figures() }
    }
}
