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
mod disk;
mod log;
mod memory;
pub mod oracle;
mod writer;

pub use clock::{Clock, ClockStatus, Reading, SystemClock};
pub use codec::StoredReport;
pub use core::Receipt;
pub use disk::{Appender, Disk, RealDisk};
pub use log::{OpenError, Recovery};
pub use memory::AttributeSummary;
pub use writer::Figures;

use attachments::Attachments;
use codec::Entry;
use core::{Core, Outcome, Request, SharedClock};
use memory::Memory;
use model::{Attachment, NewAttachment, NewReport, ProjectId, Query, Report, Stamp, Table, Tx};
use oracle::Oracle;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use writer::{Shared, Writer};

/// How long a report waits for a place in the writer's queue before it is refused as busy.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

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
}

/// A segment could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log")]
pub struct ReadError(#[from] io::Error);

/// The report store. Share it by `Arc`.
pub struct Reports {
    shared: Arc<Shared>,
    writer: Writer,
    clock: Arc<SharedClock>,
    attachments: Attachments,
    /// One late attachment at a time, so that numbers within a report are given once.
    late: tokio::sync::Mutex<()>,
    pinned: watch::Sender<Stamp>,
}

impl Reports {
    /// Opens or makes the store in `folder`, which the process holds by a lock (see `lock_folder`). Stamps will come after `floor` and after everything in the log.
    pub fn open(
        folder: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        floor: Stamp,
        settings: Settings,
    ) -> Result<(Reports, Recovery), OpenError> {
        let tell = |source| OpenError::Disk { doing: "use", path: folder.to_owned(), source };
        disk.create_folder(folder).map_err(tell)?;
        let mut memory = Memory::new(settings.memory_bytes);
        let mut late: HashMap<(ProjectId, Tx), Vec<Attachment>> = HashMap::new();
        let (core, clock, recovery) =
            Core::open(&folder.join("log"), disk.clone(), clock, floor, settings.segment_bytes, &mut |entry| match entry {
                Entry::Report(stored) => memory.add(Arc::new(stored.report.clone())),
                Entry::Attachment { project, tx, attachment } => late.entry((*project, *tx)).or_default().push(attachment.clone()),
                Entry::Checkpoint(_) => {}
            })?;
        let attachments = Attachments::open(disk, &folder.join("attachments")).map_err(tell)?;
        let shelf = core.log.shelf();
        let segments = core.log.segments.clone();
        let shared = Arc::new(Shared::new(memory, late, segments, shelf, recovery.last_durable));
        let writer = Writer::start(core, shared.clone());
        let pinned = watch::Sender::new(Stamp::ZERO);
        Ok((Reports { shared, writer, clock, attachments, late: tokio::sync::Mutex::new(()), pinned }, recovery))
    }

    /// Takes a report; returns when it and its files are on the disk. A repeat gets the first one's number, and waits for it
    /// when it is still in flight.
    pub async fn append(self: &Arc<Self>, project: ProjectId, mut report: NewReport) -> Result<Receipt, AppendError> {
        let files = std::mem::take(&mut report.attachments);
        let attachments = if files.is_empty() { Vec::new() } else { self.store(files, 1).await? };
        match self.writer.submit(Request::Report { project, report, attachments }, QUEUE_TIMEOUT).await? {
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
    ) -> Result<Vec<Result<Table, EvaluateError>>, ReadError> {
        let mut oracles: Vec<Result<Oracle<'_>, EvaluateError>> = queries.iter().map(|query| Ok(Oracle::new(query))).collect();
        self.scan(project, &span, &mut |report| {
            for oracle in &mut oracles {
                if let Ok(running) = oracle {
                    running.add(report);
                    if running.groups() > oracle::MAX_GROUPS {
                        *oracle = Err(EvaluateError::TooManyGroups);
                    }
                }
            }
        })?;
        Ok(oracles.into_iter().map(|oracle| oracle.map(Oracle::finish)).collect())
    }

    /// Reports accepted in a span.
    pub fn accepted(&self, project: ProjectId, span: Range<Stamp>) -> Result<u64, ReadError> {
        let memory = self.shared.memory.read().unwrap_or_else(PoisonError::into_inner);
        if memory.complete_from() <= span.start {
            return Ok(memory.count(project, &span));
        }
        drop(memory);
        let mut count = 0;
        self.scan(project, &span, &mut |_| count += 1)?;
        Ok(count)
    }

    /// Shows the project's reports in a span: what memory no longer has comes from the log.
    fn scan(&self, project: ProjectId, span: &Range<Stamp>, visit: &mut dyn FnMut(&Report)) -> Result<(), ReadError> {
        let (rows, complete_from) = {
            let memory = self.shared.memory.read().unwrap_or_else(PoisonError::into_inner);
            (memory.rows(project, span), memory.complete_from())
        };
        if span.start < complete_from {
            let older = span.start..span.end.min(complete_from);
            for number in self.shared.segments_over(&older) {
                self.shared.shelf.read(number, &mut |entry| {
                    if let Entry::Report(stored) = entry
                        && stored.report.project == project
                        && older.contains(&stored.report.stamp)
                    {
                        visit(&stored.report);
                    }
                })?;
            }
        }
        rows.iter().for_each(|report| visit(report));
        Ok(())
    }

    /// Attributes of the project's reports that are or were in memory since the start, by name.
    pub fn attributes(&self, project: ProjectId) -> Vec<AttributeSummary> {
        self.shared.memory.read().unwrap_or_else(PoisonError::into_inner).attributes(project)
    }

    /// One report with its body and files. Blocks.
    pub fn report(&self, project: ProjectId, tx: Tx) -> Result<Option<StoredReport>, ReadError> {
        let mut found = None;
        for number in self.shared.segments_with(project, tx) {
            self.shared.shelf.read(number, &mut |entry| match entry {
                Entry::Report(stored) if stored.report.project == project && stored.report.tx == tx => found = Some(*stored),
                _ => {}
            })?;
        }
        if let Some(stored) = &mut found {
            stored.attachments.extend(self.shared.late_attachments(project, tx));
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
        self.writer.figures()
    }
}

/// Holds a folder for this process as long as it lives.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] std::fs::File);

/// Takes a folder for this process, making it where there is none; a second process is refused.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, OpenError> {
    let tell = |source| OpenError::Disk { doing: "use", path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(tell)?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("lock")).map_err(tell)?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(tell(error)),
    }
}

type Locked<T> = RwLock<T>;
type Reply = oneshot::Sender<Outcome>;
