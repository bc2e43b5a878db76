//! The log being written: numbered segments of frames, one frame a commit, synced before it counts.
//!
//! A segment is written under an unfinished name with its checkpoint, synced, then renamed, and the folder synced: one that has
//! its final name has its whole beginning, and no report is acknowledged in one whose name could be lost.

use crate::codec::{self, Checkpoint, Entry};
use crate::disk::{Appender, Disk, is_full, write_whole};
use crate::frame;
use crate::segment::{Name, Segment, Shelf};
use model::{ProjectId, Stamp, Tx};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment takes no more commits once it has so many reports: at a start, those of the last segment are all decoded.
const SEGMENT_REPORTS: u64 = 100_000;

/// Why a group was not committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// There is no room; nothing of the group is in the log, which can be used again.
    Full,
    /// What is on the disk is unknown; the log must not be used again.
    Broken(io::Error),
}

impl CommitError {
    /// Judges the failure to write a file of its own, which nothing refers to yet.
    pub(crate) fn of_new_file(error: io::Error) -> CommitError {
        if is_full(&error) { CommitError::Full } else { CommitError::Broken(error) }
    }
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> CommitError {
        CommitError::Broken(error)
    }
}

pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) shelf: Shelf,
    pub(crate) segment_bytes: u64,
    /// The open segment.
    pub(crate) name: Name,
    pub(crate) file: Box<dyn Appender>,
    pub(crate) bytes: u64,
    /// Of the last commit.
    pub(crate) sequence: u64,
    pub(crate) buffers: Buffers,
}

/// What a commit is written into before it goes to the file: kept from one to the next, as the system clears new memory first.
#[derive(Default)]
pub(crate) struct Buffers {
    body: Vec<u8>,
    frame: Vec<u8>,
}

/// More is not kept until the next commit.
const BUFFER_BYTES: usize = 4 << 20;

impl Buffers {
    fn let_go(&mut self) {
        [&mut self.body, &mut self.frame]
            .into_iter()
            .filter(|buffer| buffer.capacity() > BUFFER_BYTES)
            .for_each(|buffer| *buffer = Vec::new());
    }
}

impl Log {
    /// Writes one commit and syncs it. Returns its length in bytes.
    pub(crate) fn commit(&mut self, stamp: Stamp, entries: &[Entry]) -> Result<u64, CommitError> {
        let Buffers { body, frame } = &mut self.buffers;
        codec::encode_into(body, entries);
        frame::encode_into(frame, self.name.salt, self.sequence + 1, stamp, body);
        if let Err(error) = self.file.append(frame) {
            if !is_full(&error) {
                return Err(CommitError::Broken(error));
            }
            self.file.cut(self.bytes)?;
            return Err(CommitError::Full);
        }
        self.file.sync()?;
        let read = frame::read(self.name.salt, frame).expect("it was just made");
        self.shelf.with(self.name, |segment| segment.note(self.bytes, &read, entries));
        let bytes = frame.len() as u64;
        self.sequence += 1;
        self.bytes += bytes;
        self.buffers.let_go();
        Ok(bytes)
    }

    /// Whether the open segment takes no more commits.
    pub(crate) fn is_due(&self) -> bool {
        self.bytes >= self.segment_bytes || self.shelf.with(self.name, |segment| segment.reports >= SEGMENT_REPORTS)
    }

    /// What is known of the open segment.
    pub(crate) fn open_segment(&self) -> Segment {
        self.shelf.with(self.name, |segment| segment.clone())
    }

    /// Closes the open segment and begins the next.
    pub(crate) fn rotate(&mut self, last_tx: &HashMap<ProjectId, Tx>) -> Result<(), CommitError> {
        let stamp = self.shelf.with(self.name, |segment| segment.stamp);
        let name = Name { number: self.name.number + 1, salt: new_salt() };
        let beginning = checkpoint(name.salt, self.sequence, stamp, last_tx);
        self.file = write_whole(self.disk.as_ref(), &name.log(&self.folder), &beginning).map_err(CommitError::of_new_file)?;
        self.disk.sync_folder(&self.folder)?;
        (self.name, self.bytes) = (name, beginning.len() as u64);
        let segment = Segment { bytes: self.bytes, base: self.sequence, last: self.sequence, stamp, ..Segment::default() };
        self.shelf.put(name, segment);
        Ok(())
    }
}

/// The first frame of a segment.
pub(crate) fn checkpoint(salt: u32, sequence: u64, stamp: Stamp, last_tx: &HashMap<ProjectId, Tx>) -> Vec<u8> {
    let mut last_tx: Vec<(ProjectId, Tx)> = last_tx.iter().map(|(project, tx)| (*project, *tx)).collect();
    last_tx.sort_unstable();
    frame::encode(salt, sequence, stamp, &codec::encode(&[Entry::Checkpoint(Checkpoint { last_tx })]))
}

/// A number that no client can know.
pub(crate) fn new_salt() -> u32 {
    // The keys of a RandomState come from the system's source of randomness.
    RandomState::new().build_hasher().finish() as u32
}
