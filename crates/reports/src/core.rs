//! What the single writer does, without its thread: recognise repeats, number, stamp, commit. Deterministic given disk and clock,
//! so that tests can crash it at every step.

use crate::archive::{self, Archive};
use crate::clock::{Clock, ClockStatus, ServiceClock};
use crate::codec::{Entry, StoredReport};
use crate::disk::Disk;
use crate::ids::{self, Closed, Id, Seen, Table};
use crate::index::{self, Digest, Hashes, fingerprint, short_hash};
use crate::log::{CommitError, Log};
use crate::memory::Memory;
use crate::names::Names;
use crate::overlay::{Change, Run};
use crate::recovery::{self, OpenError, Recovery, Start};
#[cfg(test)]
use crate::segment::Shelf;
use crate::segment::{Name, Segment};
use hashbrown::DefaultHashBuilder;
use model::{Attachment, NewReport, ProjectId, Report, Stamp, Tx};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Fingerprints remembered to tell the first of its kind; beyond it nothing is called first any more.
const MAX_FINGERPRINTS: usize = 5_000_000;
/// Seconds after which an index that could not be written is written again.
const INDEX_PAUSE_SECS: u64 = 10;

/// What was done with a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the project; of a repeat, the first one's.
    pub tx: Tx,
    /// Its stamp; of a repeat, the moment at which it was recognised.
    pub stamp: Stamp,
    /// Whether the report was there already.
    pub duplicate: bool,
    /// 64 hex digits.
    pub fingerprint: String,
    /// Whether it is the first with its fingerprint.
    pub first_of_fingerprint: bool,
}

/// Something to commit.
pub(crate) enum Request {
    Report { project: ProjectId, report: NewReport, attachments: Vec<Attachment> },
    Attachment { project: ProjectId, tx: Tx, attachment: Attachment },
    Change { project: ProjectId, runs: Vec<Run>, change: Change },
    Tick,
}

/// What came of a request, once the commit it is in is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Report(Receipt),
    /// A report that was not taken: whether it is a repeat cannot be told now.
    Refused,
    Attachment,
    Change,
    Tick,
}

/// A commit that has become durable.
pub(crate) struct Committed {
    pub(crate) stamp: Stamp,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) reports: Vec<Report>,
    /// Late attachments and changes.
    pub(crate) amendments: Vec<Entry>,
    pub(crate) names: Names,
    pub(crate) bytes: u64,
}

pub(crate) struct Core {
    log: Log,
    archive: Archive,
    clock: Arc<SharedClock>,
    last_tx: HashMap<ProjectId, Tx>,
    last_stamp: Stamp,
    /// Of the open segment.
    digest: Digest,
    closed_ids: Closed,
    fingerprints: Hashes,
    /// Of the segment closed last, until its index is there.
    closing: Option<Closing>,
    /// Whether somebody asks for `index_to_write` after each commit.
    pub(crate) leaves_indexes: bool,
}

/// A closed segment whose index is to be written, which may be done in another thread while commits go on.
struct Closing {
    index: Arc<Unindexed>,
    /// From whoever writes it.
    written: Option<Receiver<io::Result<Table>>>,
    /// Nobody is asked to write it before.
    from: Stamp,
}

/// What an index is made of.
pub(crate) struct Unindexed {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    name: Name,
    segment: Segment,
    digest: Digest,
}

impl Unindexed {
    fn write(&self) -> io::Result<Table> {
        index::write(self.disk.as_ref(), &self.folder, self.name, &self.segment, &self.digest)
    }
}

/// An index to write.
pub(crate) struct IndexToWrite {
    index: Arc<Unindexed>,
    written: SyncSender<io::Result<Table>>,
}

impl IndexToWrite {
    /// Writes it, and tells the writer of the log.
    pub(crate) fn write(self) {
        // The writer may be gone: then the next start finds what was written, or makes it anew.
        let _ = self.written.send(self.index.write());
    }
}

/// The service clock, read by the writer for stamps and by others for the time.
pub(crate) struct SharedClock {
    source: Arc<dyn Clock>,
    clock: Mutex<ServiceClock>,
}

impl SharedClock {
    pub(crate) fn now(&self) -> Stamp {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        // Read inside the lock: a reading taken before another thread's later one would not move the clock.
        let reading = self.source.read();
        clock.read(reading)
    }

    pub(crate) fn status(&self) -> ClockStatus {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).status()
    }
}

/// A group being put together. Nothing of it is part of the core before it is durable.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    outcomes: Vec<Outcome>,
    last_tx: HashMap<ProjectId, Tx>,
    ids: HashMap<Id, Tx, DefaultHashBuilder>,
    /// Short hash of the fingerprint of each report.
    kinds: Vec<u64>,
    /// Those that were not known.
    fingerprints: Hashes,
}

/// What `Core::open` comes to.
pub(crate) struct Started {
    pub(crate) core: Core,
    pub(crate) memory: Memory,
    pub(crate) archive: Archive,
    pub(crate) clock: Arc<SharedClock>,
    pub(crate) recovery: Recovery,
}

impl Core {
    /// Opens or makes log and archive in a folder.
    pub(crate) fn open(
        folder: &Path,
        disk: Arc<dyn Disk>,
        source: Arc<dyn Clock>,
        floor: Stamp,
        (segment_bytes, memory_bytes): (u64, usize),
    ) -> Result<Started, OpenError> {
        let mut memory = Memory::new(memory_bytes);
        let opened = recovery::open(disk, folder, segment_bytes, memory_bytes, &mut memory)?;
        let (log, digest, last_tx, mut recovery) = (opened.log, opened.digest, opened.last_tx, opened.recovery);
        let clock = ServiceClock::start(source.read(), floor.max(recovery.last_durable.plus_micros(1)));
        let clock = Arc::new(SharedClock { source, clock: Mutex::new(clock) });
        recovery.started = clock.now();
        let mut fingerprints = opened.fingerprints;
        fingerprints.extend(&digest.fingerprints);
        let (last_stamp, closed_ids) = (recovery.last_durable, opened.closed_ids);
        let archive = opened.archive;
        let (closing, leaves_indexes) = (None, false);
        let (log_archive, log_clock) = (archive.clone(), clock.clone());
        let core = Core {
            log,
            archive: log_archive,
            clock: log_clock,
            last_tx,
            last_stamp,
            digest,
            closed_ids,
            fingerprints,
            closing,
            leaves_indexes,
        };
        Ok(Started { core, memory, archive, clock, recovery })
    }

    /// Where readers find what is committed.
    #[cfg(test)]
    pub(crate) fn shelf(&self) -> Shelf {
        self.log.shelf.clone()
    }

    /// Commits a group: all its new reports get one stamp, one frame, one sync.
    pub(crate) fn commit(&mut self, requests: Vec<Request>) -> Result<Committed, CommitError> {
        self.take_index();
        if self.log.is_due() {
            self.rotate()?;
        }
        // Each commit's stamp is its own, so that a stamp once published says that no report at or below it can come any more.
        let stamp = self.clock.now().max(self.last_stamp.plus_micros(1));
        let mut group = Group::default();
        for request in requests {
            let outcome = match request {
                Request::Tick => Outcome::Tick,
                Request::Attachment { project, tx, attachment } => {
                    group.entries.push(Entry::Attachment { project, tx, attachment });
                    Outcome::Attachment
                }
                Request::Change { project, runs, change } => {
                    group.entries.push(Entry::Change { project, runs, change });
                    Outcome::Change
                }
                Request::Report { project, report, attachments } => match self.stage(&mut group, stamp, project, report, attachments) {
                    Ok(receipt) => Outcome::Report(receipt),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "the ids of earlier reports cannot be read");
                        Outcome::Refused
                    }
                },
            };
            group.outcomes.push(outcome);
        }
        let bytes = self.log.commit(stamp, &group.entries)?;
        let Group { entries, outcomes, last_tx, ids: _, kinds, fingerprints } = group;
        self.last_stamp = stamp;
        self.last_tx.extend(last_tx);
        self.fingerprints.extend(fingerprints);
        let mut kinds = kinds.into_iter();
        let (mut reports, mut amendments) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in entries {
            match entry {
                Entry::Report(stored) => {
                    self.digest.note_report(&stored, kinds.next().expect("each report has one"));
                    reports.push(stored.report);
                }
                Entry::Attachment { .. } | Entry::Change { .. } => amendments.push(entry),
                Entry::Checkpoint(_) => {}
            }
        }
        let mut names = Names::default();
        reports.iter().for_each(|report| names.note(report));
        self.digest.names.merge(&names);
        self.closed_ids.forget(stamp);
        Ok(Committed { stamp, outcomes, reports, amendments, names, bytes })
    }

    /// Adds a report to the group, unless it is a repeat: of an earlier commit, or of another report in the group. Fails when that
    /// cannot be told; the group is as it was then.
    fn stage(
        &mut self,
        group: &mut Group,
        stamp: Stamp,
        project: ProjectId,
        report: NewReport,
        attachments: Vec<Attachment>,
    ) -> io::Result<Receipt> {
        let fingerprint = fingerprint(&report.attributes).to_owned();
        if let Some(id) = report.id.map(|id| (project, id)) {
            let seen = match group.ids.get(&id) {
                Some(tx) => Some(*tx),
                None => self.find(&id)?.filter(|seen| ids::is_fresh(*seen, stamp)).map(|seen| seen.tx),
            };
            if let Some(tx) = seen {
                return Ok(Receipt { tx, stamp, duplicate: true, fingerprint, first_of_fingerprint: false });
            }
        }
        let last = group.last_tx.get(&project).or(self.last_tx.get(&project)).copied().unwrap_or(Tx(0));
        let tx = Tx(last.0 + 1);
        group.last_tx.insert(project, tx);
        group.ids.extend(report.id.map(|id| ((project, id), tx)));
        let kind = short_hash(project, &fingerprint);
        let has_room = self.fingerprints.len() + group.fingerprints.len() < MAX_FINGERPRINTS;
        let first_of_fingerprint = has_room && !self.fingerprints.contains(&kind) && group.fingerprints.insert(kind);
        group.kinds.push(kind);
        let NewReport { id, attributes, raw, .. } = report;
        let report = Report { project, tx, stamp, attributes };
        group.entries.push(Entry::Report(Box::new(StoredReport { report, id, raw, attachments })));
        Ok(Receipt { tx, stamp, duplicate: false, fingerprint, first_of_fingerprint })
    }

    /// The latest report with a client's id. A table that is lost is made anew from its segment, which takes a moment once.
    fn find(&mut self, id: &Id) -> io::Result<Option<Seen>> {
        let closing = self.closing.as_ref().map(|closing| &closing.index.digest);
        if let Some(seen) = self.digest.ids.get(id).or_else(|| closing?.ids.get(id)) {
            return Ok(Some(*seen));
        }
        let mut made = None;
        loop {
            let (name, error) = match self.closed_ids.find(self.log.disk.as_ref(), &self.log.folder, id) {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            if !is_lost(&error) {
                return Err(error);
            }
            tracing::error!(segment = name.number, error = &error as &dyn std::error::Error, "an id table is unreadable");
            let table = if made == Some(name) { Err(error) } else { self.build_ids(name) };
            made = Some(name);
            match table {
                Ok(table) => self.closed_ids.replace(name, Some(table)),
                Err(error) if is_lost(&error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(segment = name.number, error, "it cannot be made anew: repeats of its reports count as new ones");
                    self.closed_ids.replace(name, None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the id table of a closed segment anew.
    fn build_ids(&self, name: Name) -> io::Result<Table> {
        let Log { disk, folder, shelf, .. } = &self.log;
        let start = Start { disk: disk.as_ref(), folder };
        let of_archive = |manifest| Ok(archive::build_index(start, &self.archive.folder, disk, name, &manifest)?.ids);
        if let Some(manifest) = shelf.archive(name) {
            return of_archive(manifest);
        }
        match (start.build_index(name).map_err(io::Error::from), shelf.archive(name)) {
            // It has left the log meanwhile.
            (Err(error), Some(manifest)) if error.kind() == io::ErrorKind::NotFound => of_archive(manifest),
            (index, _) => Ok(index?.ids),
        }
    }

    /// Closes the open segment and begins the next; what is known of the closed one is written at once, or left to others.
    fn rotate(&mut self) -> Result<(), CommitError> {
        // One at a time is kept in memory.
        self.finish_index().map_err(CommitError::of_new_file)?;
        let (name, segment) = (self.log.name, self.log.open_segment());
        self.log.rotate(&self.last_tx)?;
        let (disk, folder, digest) = (self.log.disk.clone(), self.log.folder.clone(), std::mem::take(&mut self.digest));
        let index = Arc::new(Unindexed { disk, folder, name, segment, digest });
        self.closing = Some(Closing { index, written: None, from: Stamp::ZERO });
        if self.leaves_indexes { Ok(()) } else { self.finish_index().map_err(CommitError::of_new_file) }
    }

    /// The index of a segment that was closed, for another thread to write: once, and again a while after it could not be written.
    pub(crate) fn index_to_write(&mut self) -> Option<IndexToWrite> {
        let last_stamp = self.last_stamp;
        let closing = self.closing.as_mut().filter(|closing| closing.written.is_none() && closing.from <= last_stamp)?;
        let (written, receiver) = sync_channel(1);
        closing.written = Some(receiver);
        Some(IndexToWrite { index: closing.index.clone(), written })
    }

    /// Takes in an index that others have written meanwhile. Until it is there its segment stays in the log, and so do all later ones.
    fn take_index(&mut self) {
        let Some(closing) = &mut self.closing else { return };
        let Some(written) = closing.written.as_ref().map(Receiver::try_recv) else { return };
        let failed = match written {
            Ok(Ok(table)) => return self.indexed(table),
            Err(TryRecvError::Empty) => return,
            Ok(Err(error)) => error,
            Err(TryRecvError::Disconnected) => io::Error::other("the thread that was to write it is not there"),
        };
        let (segment, error) = (closing.index.name.number, &failed as &dyn std::error::Error);
        tracing::warn!(segment, error, "the index of a segment was not written; until it is, nothing leaves the log");
        (closing.written, closing.from) = (None, self.last_stamp.plus_micros(INDEX_PAUSE_SECS * 1_000_000));
    }

    /// Waits until the index of the last closed segment is written, or writes it.
    pub(crate) fn finish_index(&mut self) -> io::Result<()> {
        let Some(closing) = &self.closing else { return Ok(()) };
        let written = closing.written.as_ref().and_then(|written| written.recv().ok()?.ok());
        let table = written.map_or_else(|| closing.index.write(), Ok)?;
        self.indexed(table);
        Ok(())
    }

    fn indexed(&mut self, table: Table) {
        self.closed_ids.push(table);
        self.closing = None;
    }
}

/// Whether a file is gone or damaged for good, so that reading it again would not help.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}
