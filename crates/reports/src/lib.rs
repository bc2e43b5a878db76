//! Append and evaluate reports. The only crate that knows how reports are kept: a synced log, recent rows in memory, files by
//! content.
//!
//! One writer thread owns the log. Whoever appends waits for the commit that holds the report to be on the disk; commits take
//! along everything that waits, so one sync serves many. A failed write or sync ends the writer: the process must then stop.

mod archive;
mod archiver;
mod attachments;
mod cache;
mod clock;
mod codec;
mod copy;
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
mod manifest;
mod memory;
mod names;
mod overlay;
mod parquet;
mod reader;
mod recovery;
mod resolve;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;
mod writer;

pub use archive::Retention;
pub use clock::{Clock, ClockStatus, Reading, SystemClock};
pub use codec::StoredReport;
pub use copy::{Copied, copy};
pub use core::Receipt;
pub use disk::{Appender, Disk, RealDisk};
pub use lock::{FolderLock, lock_folder};
pub use names::AttributeSummary;
pub use overlay::Change;
pub use reader::View;
pub use recovery::{OpenError, Recovery};
pub use writer::Figures;

use archive::Archive;
use archiver::{Archiver, Work};
use attachments::{Attachments, Hold};
use cache::Cache;
use codec::Entry;
use core::{Core, Outcome, Request, SharedClock, Started};
use memory::Memory;
use model::oracle;
use model::{
    Attachment, Keep, Key, Most, NewAttachment, NewReport, Parted, ProjectId, Query, Selected, Selection, Stamp, Table, TableRow, Top, Tx,
};
use reader::{Extent, Reads};
use recovery::failed;
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
/// Threads that one scan may use.
const THREADS: usize = 2;
/// Most reports that one change may speak of.
const MAX_CHANGED: usize = 1_000_000;
/// Largest report without its files, in bytes: far above what any intake lets through, far below what a frame can hold.
pub const REPORT_MAX_BYTES: usize = 128 << 20;

/// Bounds of the report store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A segment of the log is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// Bytes of columns kept in memory: half for recent reports, half for what is read from files.
    pub memory_bytes: usize,
    /// What is given up.
    pub retention: Retention,
}

impl Default for Settings {
    /// Segments of 32 MiB, so that a restart copies little; 512 MiB of columns; nothing is given up.
    fn default() -> Settings {
        Settings { segment_bytes: 32 << 20, memory_bytes: 512 << 20, retention: Retention::default() }
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
    /// More reports are to be changed at once than the overlay takes.
    #[error("at most {MAX_CHANGED} reports can be changed at once; narrow the filter")]
    TooMany,
    /// A file could not be stored.
    #[error("cannot store an attachment")]
    Attachment(#[source] io::Error),
    /// A late attachment for a report that was never accepted.
    #[error("there is no such report")]
    NoSuchReport,
}

/// Why a query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// More groups than fit.
    #[error("the query has more than {} groups; group by something with fewer values", oracle::MAX_GROUPS)]
    TooManyGroups,
    /// Whoever asked has gone.
    #[error("the query was cancelled")]
    Cancelled,
    /// Some of the reports are unreadable for good.
    #[error("reports of this time cannot be read: their file is damaged; the server's log names it")]
    Damaged,
}

impl From<columns::Failure> for EvaluateError {
    fn from(failure: columns::Failure) -> EvaluateError {
        match failure {
            columns::Failure::TooManyGroups => EvaluateError::TooManyGroups,
            columns::Failure::Cancelled => EvaluateError::Cancelled,
        }
    }
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
    archive: Archive,
    cache: Cache,
    writer: Writer,
    archiver: Archiver,
    clock: Arc<SharedClock>,
    attachments: Arc<Attachments>,
    /// One late attachment at a time, so that numbers within a report are given once.
    late: tokio::sync::Mutex<()>,
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
        let bounds = (settings.segment_bytes, settings.memory_bytes / 2);
        let Started { core, memory, archive, clock, recovery } = Core::open(folder, disk.clone(), clock, floor, bounds)?;
        let files = folder.join("attachments");
        let attachments = Arc::new(Attachments::open(disk, &files).map_err(failed("open", &files))?);
        let shared = Arc::new(Shared { memory: RwLock::new(memory), durable: watch::Sender::new(recovery.last_durable) });
        let writer = Writer::start(core, shared.clone()).map_err(failed("start the writer of", folder))?;
        let work = Work::new(archive.clone(), shared.clone(), attachments.clone(), clock.clone(), settings.retention);
        let archiver = Archiver::start(work);
        let archiver = archiver.map_err(failed("start the archiver of", folder))?;
        let cache = Cache::new(settings.memory_bytes / 2);
        Ok((Reports { shared, archive, cache, writer, archiver, clock, attachments, late: tokio::sync::Mutex::new(()) }, recovery))
    }

    /// Takes a report; returns when it and its files are on the disk. A repeat gets the first one's number, and waits for it
    /// when it is still in flight.
    pub async fn append(self: &Arc<Self>, project: ProjectId, mut report: NewReport) -> Result<Receipt, AppendError> {
        let files = std::mem::take(&mut report.attachments);
        let (attachments, hold) = if files.is_empty() { (Vec::new(), None) } else { self.store(files, 1).await? };
        let request = Request::Report { project, report, attachments };
        if weight(&request) > REPORT_MAX_BYTES {
            return Err(AppendError::TooLarge);
        }
        match self.writer.submit(request, hold, QUEUE_TIMEOUT).await? {
            Outcome::Report(receipt) => Ok(receipt),
            other => unreachable!("a report comes back as {other:?}"),
        }
    }

    /// Adds a file to an accepted report.
    pub async fn attach(self: &Arc<Self>, project: ProjectId, tx: Tx, file: NewAttachment) -> Result<Attachment, AppendError> {
        let this = self.clone();
        // To its end although whoever asked hangs up: else the next one would take the same number before this one is seen.
        tokio::spawn(async move { this.attach_next(project, tx, file).await }).await.map_err(|_| AppendError::Stopped)?
    }

    async fn attach_next(self: &Arc<Self>, project: ProjectId, tx: Tx, file: NewAttachment) -> Result<Attachment, AppendError> {
        let _one_at_a_time = self.late.lock().await;
        let this = self.clone();
        let found = tokio::task::spawn_blocking(move || this.report(project, tx)).await.map_err(|_| AppendError::Stopped)?;
        let stored = found.map_err(|error| AppendError::Attachment(error.0))?.ok_or(AppendError::NoSuchReport)?;
        let id = stored.attachments.iter().map(|attachment| attachment.id).max().unwrap_or(0) + 1;
        let (mut attachments, hold) = self.store(vec![file], id).await?;
        let attachment = attachments.pop().expect("one was stored");
        self.writer.submit(Request::Attachment { project, tx, attachment: attachment.clone() }, hold, QUEUE_TIMEOUT).await?;
        Ok(attachment)
    }

    /// Changes or deletes accepted reports, for readers of the current view; returns when that is on the disk. Windows already
    /// sealed stay as they are, and those yet to be sealed count the reports as they were accepted.
    pub async fn amend(&self, project: ProjectId, txs: &[Tx], changes: &[Change]) -> Result<u64, AppendError> {
        if txs.len() > MAX_CHANGED {
            return Err(AppendError::TooMany);
        }
        let mut txs = txs.to_vec();
        txs.sort_unstable();
        txs.dedup();
        let runs = overlay::runs(txs.iter().copied());
        if !runs.is_empty() {
            for change in changes {
                let request = Request::Change { project, runs: runs.clone(), change: change.clone() };
                self.writer.submit(request, None, QUEUE_TIMEOUT).await?;
            }
        }
        Ok(txs.len() as u64)
    }

    /// Makes files durable, and holds them until the commit that names them.
    async fn store(self: &Arc<Self>, files: Vec<NewAttachment>, first_id: u32) -> Result<(Vec<Attachment>, Option<Hold>), AppendError> {
        let this = self.clone();
        let store = move || {
            let mut hold = this.attachments.hold();
            let stored = files.iter().zip(first_id..).map(|(file, id)| this.attachments.store(id, file, &mut hold));
            Ok((stored.collect::<io::Result<Vec<_>>>()?, Some(hold)))
        };
        tokio::task::spawn_blocking(store).await.map_err(|_| AppendError::Stopped)?.map_err(AppendError::Attachment)
    }

    /// Commits an empty group, so that the durable stamp catches up with the clock.
    pub async fn tick(&self) -> Result<Stamp, AppendError> {
        self.writer.submit(Request::Tick, None, QUEUE_TIMEOUT).await?;
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
        view: View,
        queries: &[&Query],
        cancel: &Cancel,
    ) -> Result<Vec<Result<Table, EvaluateError>>, ReadError> {
        let reads = Reads::queries(project, queries);
        let asked = self.scan(project, span, view, &reads, cancel, |source| columns::evaluate(source, queries))?;
        Ok(match asked {
            Ok(tables) => tables.into_iter().map(|table| table.map_err(EvaluateError::from)).collect(),
            Err(error) => queries.iter().map(|_| Err(error)).collect(),
        })
    }

    /// The same for only some groups of each query: see `model::Most`.
    pub fn evaluate_most(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        view: View,
        queries: &[(&Query, Most<'_>)],
        cancel: &Cancel,
    ) -> Result<Vec<Result<Top, EvaluateError>>, ReadError> {
        let reads = Reads::queries(project, &queries.iter().map(|(query, _)| *query).collect::<Vec<_>>());
        let asked = self.scan(project, span, view, &reads, cancel, |source| columns::evaluate_most(source, queries))?;
        Ok(match asked {
            Ok(tops) => tops.into_iter().map(|top| top.map_err(EvaluateError::from)).collect(),
            Err(error) => queries.iter().map(|_| Err(error)).collect(),
        })
    }

    /// The same, and beside it the reports of all groups that `keep` does not keep of an answer, as one: see `model::Keep`. Blocks.
    pub fn evaluate_parted(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        view: View,
        queries: &[(&Query, Most<'_>)],
        keep: &Keep<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<Result<Parted, EvaluateError>>, ReadError> {
        let reads = Reads::queries(project, &queries.iter().map(|(query, _)| *query).collect::<Vec<_>>());
        let asked = self.scan(project, span, view, &reads, cancel, |source| columns::evaluate_parted(source, queries, keep))?;
        Ok(match asked {
            Ok(all) => all.into_iter().map(|parted| parted.map_err(EvaluateError::from)).collect(),
            Err(error) => queries.iter().map(|_| Err(error)).collect(),
        })
    }

    /// Evaluates each query over the reports of a span whose groups are not among those kept, as one group with an empty key, all in
    /// one scan. Blocks.
    pub fn rests(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        view: View,
        queries: &[(&Query, &BTreeSet<Key>)],
        cancel: &Cancel,
    ) -> Result<Vec<Result<TableRow, EvaluateError>>, ReadError> {
        let reads = Reads::queries(project, &queries.iter().map(|(query, _)| *query).collect::<Vec<_>>());
        let asked = self.scan(project, span, view, &reads, cancel, |source| columns::rests(source, queries))?;
        Ok(match asked {
            Ok(rows) => rows.into_iter().map(|row| row.map_err(EvaluateError::from)).collect(),
            Err(error) => queries.iter().map(|_| Err(error)).collect(),
        })
    }

    /// Selects reports of a span. Blocks.
    pub fn select(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        view: View,
        selection: &Selection,
        cancel: &Cancel,
    ) -> Result<Result<Selected, EvaluateError>, ReadError> {
        let reads = Reads::selection(project, selection);
        let asked = self.scan(project, span, view, &reads, cancel, |source| columns::select(source, selection))?;
        Ok(asked.and_then(|selected| selected.map_err(EvaluateError::from)))
    }

    /// The highest number of a project's reports; one that was deleted counts until its file is written anew.
    pub fn newest(&self, project: ProjectId) -> Option<Tx> {
        self.archive.shelf.newest(project)
    }

    /// Reports accepted in a span. Blocks.
    pub fn accepted(&self, project: ProjectId, span: Range<Stamp>) -> Result<u64, ReadError> {
        let query = Query::default();
        let tables = self.evaluate(project, span, View::Accepted, &[&query], &Cancel::default())?;
        match tables.into_iter().next() {
            Some(Ok(table)) => Ok(table.matched),
            other => Err(ReadError(io::Error::other(format!("reports cannot be counted: {other:?}")))),
        }
    }

    /// Runs a scan over what there is of a span. Damage that no retry mends is an answer, not an error.
    fn scan<T>(
        &self,
        project: ProjectId,
        span: Range<Stamp>,
        view: View,
        reads: &Reads<'_>,
        cancel: &Cancel,
        ask: impl FnOnce(&columns::Source<'_, io::Error>) -> io::Result<T>,
    ) -> Result<Result<T, EvaluateError>, ReadError> {
        let span = span.start.max(reads.received.start)..span.end.min(reads.received.end);
        let extent = Extent::new(&self.shared.memory, &self.archive, &self.cache, project, &span, view, reads);
        let load = |part: usize| extent.load(part);
        let cancelled = || cancel.is_set();
        let source = columns::Source { project, parts: extent.parts(), load: &load, span, threads: THREADS, cancelled: &cancelled };
        match ask(&source) {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(error = &error as &dyn std::error::Error, "reports are unreadable");
                Ok(Err(EvaluateError::Damaged))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.shared.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attributes that the project's reports have or had, by name: at most 10,000.
    pub fn attributes(&self, project: ProjectId) -> Vec<AttributeSummary> {
        let memory = self.memory();
        let mut known = memory.names.of(project);
        for (name, value) in memory.overlay.of(project).iter().flat_map(|amended| &amended.names) {
            names::Names::know(&mut known, name, value);
        }
        known
    }

    /// One report with its body and files, as people have left it. Blocks.
    pub fn report(&self, project: ProjectId, tx: Tx) -> Result<Option<StoredReport>, ReadError> {
        loop {
            // Overlay first, then the files: what compaction takes from it is in the files by then.
            let overlay = self.memory().overlay.within(project, (tx, tx));
            let mut found = None;
            self.archive.shelf.read(|chunk| chunk.may_have(project, tx), &mut |entry| {
                if let Entry::Report(stored) = entry
                    && (stored.report.project, stored.report.tx) == (project, tx)
                {
                    found = Some(*stored);
                }
            })?;
            if found.is_none()
                && let Some((name, file)) = self.archive.file_of(project, tx)
            {
                match self.archive.open(name, &file).and_then(|file| file.report(tx)) {
                    Ok(stored) => found = stored,
                    // Rewritten meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && self.archive.file_of(project, tx) != Some((name, file)) => {
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(found.and_then(|stored| overlay.apply(stored)));
        }
    }

    /// One file of a report. Blocks.
    pub fn attachment(&self, project: ProjectId, tx: Tx, id: u32) -> Result<Option<(Attachment, Vec<u8>)>, ReadError> {
        let Some(attachment) = self.report(project, tx)?.and_then(|stored| stored.attachments.into_iter().find(|one| one.id == id)) else {
            return Ok(None);
        };
        match self.attachments.load(&attachment) {
            Ok(bytes) => Ok(Some((attachment, bytes))),
            // The report has gone meanwhile, and its file with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.report(project, tx)?.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reports up to this stamp were given up by retention; zero when none were. Blocks while a segment moves.
    pub fn given_up_until(&self) -> Stamp {
        self.archive.kept.lock().unwrap_or_else(PoisonError::into_inner).given_up.until
    }

    /// Everything before this stamp is sealed: retention may take it.
    pub fn pin(&self, stamp: Stamp) {
        self.archiver.pin(stamp);
    }

    /// Counts since the start.
    pub fn figures(&self) -> Figures {
        let (segments, unreadable_bytes) = self.archive.shelf.counts();
        Figures { segments, unreadable_bytes, ..self.writer.figures() }
    }
}
