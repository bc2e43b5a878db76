//! The archiver's thread: moves sealed segments from the log to the archive, compacts, keeps to the retention. Nothing waits for it;
//! what it cannot do it tries again, and the log keeps the reports meanwhile.

use crate::archive::{Archive, COMPACT_EVERY_SECS, Retention};
use crate::core::SharedClock;
use crate::writer::Shared;
use model::Stamp;
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

/// The handle of the archiver's thread, which ends when the handle is dropped.
pub(crate) struct Archiver {
    pinned: Arc<Mutex<Stamp>>,
    /// `None` only while being dropped.
    life: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    pub(crate) fn start(archive: Archive, shared: Arc<Shared>, clock: Arc<SharedClock>, retention: Retention) -> io::Result<Archiver> {
        let (life, ended) = sync_channel(1);
        let pinned = Arc::new(Mutex::new(Stamp::ZERO));
        let work = Work { archive, shared, clock, retention, pinned: pinned.clone(), compacted: Instant::now(), retained: None };
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

struct Work {
    archive: Archive,
    shared: Arc<Shared>,
    clock: Arc<SharedClock>,
    retention: Retention,
    pinned: Arc<Mutex<Stamp>>,
    compacted: Instant,
    retained: Option<Instant>,
}

impl Work {
    fn run(mut self, ended: &Receiver<()>) {
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

    /// One piece of work; whether there was one.
    fn step(&mut self) -> io::Result<bool> {
        let pinned = *self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = &self.shared.memory;
        if let Some(name) = self.archive.due(pinned).first() {
            self.archive.move_in(*name, memory)?;
            tracing::info!(segment = name.number, "a segment has left the log for the archive");
            return Ok(true);
        }
        let all = self.compacted.elapsed() >= Duration::from_secs(COMPACT_EVERY_SECS);
        if let Some(name) = self.archive.compactable(memory, all) {
            self.archive.compact(name, memory)?;
            tracing::info!(segment = name.number, "deletions and changes are in the files now");
            return Ok(true);
        }
        if all {
            self.compacted = Instant::now();
        }
        if self.retention != Retention::default() && self.retained.is_none_or(|at| at.elapsed() >= RETAIN_EVERY) {
            self.retained = Some(Instant::now());
            let gone = self.archive.retain(self.clock.now(), self.retention, memory)?;
            if gone > 0 {
                tracing::info!(reports = gone, "retention has given up reports");
            }
        }
        Ok(false)
    }
}
