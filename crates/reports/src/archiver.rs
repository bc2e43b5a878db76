//! The archiver's thread: moves sealed segments from the log to the archive, compacts, keeps to the retention,
//! removes files of reports that have gone. Nothing waits for it; what it cannot do it tries again, and the log keeps the reports
//! meanwhile. What fails holds up nothing else: retention above all goes on, as it is what makes room on a full disk.

use crate::archive::{Archive, COMPACT_EVERY_SECS, Retention};
use crate::attachments::Attachments;
use crate::core::SharedClock;
use crate::segment::Name;
use crate::writer::Shared;
use model::Stamp;
use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks for work.
const EVERY: Duration = Duration::from_secs(1);
/// Between tries after a failure: a full disk does not empty sooner.
const RETRY: Duration = Duration::from_secs(30);
/// How often retention is looked at.
const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// How often files that no report names are looked for, when reports have gone.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// About as many files are looked at in one go: what a sweep takes in memory.
const SWEEP_FILES: usize = 500_000;

/// Its thread's nice value: a tenth of the weight of others where they compete for a core (sched(7)), so that whoever sends reports
/// waits less; the log keeps for longer what has to wait.
const NICE: i32 = 10;

/// The handle of the archiver's thread, which ends when the handle is dropped.
pub(crate) struct Archiver {
    pinned: Arc<Mutex<Stamp>>,
    /// `None` only while being dropped.
    life: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    pub(crate) fn start(mut work: Work) -> io::Result<Archiver> {
        let (life, ended) = sync_channel(1);
        let pinned = work.pinned.clone();
        // A start has enough to do.
        (work.compacted, work.swept) = (Some(Instant::now()), Some(Instant::now()));
        let thread = std::thread::Builder::new().name("archiver".into()).spawn(move || work.run(&ended))?;
        Ok(Archiver { pinned, life: Some(life), thread: Some(thread) })
    }

    /// Everything before this stamp is sealed.
    pub(crate) fn pin(&self, stamp: Stamp) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        *pinned = stamp.max(*pinned);
    }
}

impl Drop for Archiver {
    /// Waits for the step in hand, so that nobody opens the folder while this thread still writes to it.
    fn drop(&mut self) {
        self.life = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct Work {
    archive: Archive,
    shared: Arc<Shared>,
    clock: Arc<SharedClock>,
    retention: Retention,
    /// Everything before this stamp is sealed.
    pub(crate) pinned: Arc<Mutex<Stamp>>,
    /// When there was last nothing left to compact.
    compacted: Option<Instant>,
    retained: Option<Instant>,
    /// Segments with a file that cannot be compacted as it is damaged; looked at again after the next start.
    damaged: BTreeSet<Name>,
    attachments: Arc<Attachments>,
    /// Whether reports may have gone whose files are still there: also at a start, as the last run may have been cut off.
    unswept: bool,
    /// Whether the last sweep has left some files for the next.
    goes_on: bool,
    swept: Option<Instant>,
}

impl Work {
    pub(crate) fn new(
        archive: Archive,
        shared: Arc<Shared>,
        attachments: Arc<Attachments>,
        clock: Arc<SharedClock>,
        retention: Retention,
    ) -> Work {
        let (pinned, damaged) = (Arc::new(Mutex::new(Stamp::ZERO)), BTreeSet::new());
        let (compacted, retained, swept) = (None, None, None);
        let (unswept, goes_on) = (true, false);
        Work { archive, shared, clock, retention, pinned, compacted, retained, damaged, attachments, unswept, goes_on, swept }
    }

    fn run(mut self, ended: &Receiver<()>) {
        // On Linux each thread has a priority of its own. Nothing depends on it.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(error = &error as &dyn std::error::Error, "the archiver works at the priority of all threads");
        }
        let mut wait = EVERY;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
            wait = match self.step() {
                // There may be more to do.
                Ok(true) => Duration::ZERO,
                Ok(false) => EVERY,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the archive cannot be written; trying again");
                    RETRY
                }
            };
        }
    }

    /// One piece of work of each kind; whether there was one.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let retained = self.retain();
        let moved = self.move_in();
        let compacted = self.compact();
        let swept = self.sweep();
        retained.and(swept)?;
        Ok(moved? | compacted?)
    }

    fn retain(&mut self) -> io::Result<()> {
        if self.retention == Retention::default() || self.retained.is_some_and(|at| at.elapsed() < RETAIN_EVERY) {
            return Ok(());
        }
        self.retained = Some(Instant::now());
        let gone = self.archive.retain(self.clock.now(), self.retention, &self.shared.memory)?;
        if gone > 0 {
            self.unswept = true;
            tracing::info!(reports = gone, "retention has given up reports");
        }
        Ok(())
    }

    fn move_in(&mut self) -> io::Result<bool> {
        let pinned = *self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = self.archive.due(pinned).first().copied() else { return Ok(false) };
        self.archive.move_in(name, &self.shared.memory)?;
        tracing::info!(segment = name.number, "a segment has left the log for the archive");
        Ok(true)
    }

    fn compact(&mut self) -> io::Result<bool> {
        let memory = &self.shared.memory;
        let all = self.compacted.is_none_or(|at| at.elapsed() >= Duration::from_secs(COMPACT_EVERY_SECS));
        let Some(name) = self.archive.compactable(memory, all, &self.damaged) else {
            if all {
                self.compacted = Some(Instant::now());
            }
            return Ok(false);
        };
        match self.archive.compact(name, memory) {
            Ok(()) => {
                self.unswept = true;
                tracing::info!(segment = name.number, "deletions and changes are in the files now");
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // The overlay goes on to tell what was deleted and changed.
                self.damaged.insert(name);
                let (segment, error) = (name.number, &error as &dyn std::error::Error);
                tracing::error!(segment, error, "a damaged file cannot be compacted; what it holds of deleted reports stays on the disk");
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Removes files that no report names any more.
    fn sweep(&mut self) -> io::Result<()> {
        if !(self.unswept || self.goes_on) || self.swept.is_some_and(|at| at.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        self.swept = Some(Instant::now());
        if let Some(unread) = self.archive.unread()? {
            tracing::warn!(unread, "files of reports that have gone stay on the disk: this may name them and cannot be read");
            return Ok(());
        }
        let swept = self.attachments.sweep(SWEEP_FILES, |files| self.archive.spare_named(&self.shared.memory, files))?;
        // What goes from here on may have had files among those that were passed already.
        if !self.goes_on {
            self.unswept = false;
        }
        self.goes_on = !swept.to_the_end;
        if swept.removed > 0 {
            tracing::info!(files = swept.removed, "files of reports that have gone are removed");
        }
        Ok(())
    }
}
