//! What a start makes of whatever the last run, a crash or a person left in the log's folder. The rules:
//!
//! - Segments are ordered by the sequences in them, not by their names. One whose every commit is in another is superseded and
//!   removed; of two that contradict each other the later made one counts and the other is set aside. Gaps are counted.
//! - Damage with valid commits behind it, and a torn end, are kept aside and counted; all else is read.
//! - The valid commits of the last segment are copied to a new one and synced before they count as durable: what the page cache
//!   shows after a kill need not be on the disk.
//! - Nothing that cannot be read is ever thrown away.
//! - A segment with a manifest is in the archive: what the log still has of it is removed.

use crate::archive::{self, Archive};
use crate::codec::{self, Entry};
use crate::disk::{Disk, UNFINISHED, write_whole};
use crate::frame::{self, Frame, Piece, VERSION};
use crate::ids::Closed;
use crate::index::{self, Digest, Hashes, Index};
use crate::log::{Buffers, Log, checkpoint, new_salt};
use crate::manifest::{MANIFEST, Manifest};
use crate::memory::Memory;
use crate::names::Names;
use crate::overlay::Kept;
use crate::resolve::{Resolved, resolve};
use crate::segment::{INDEX, LOG, Name, Segment, Shelf};
use model::{ProjectId, Stamp, Tx};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed; nothing was changed that cannot be continued.
    #[error("cannot {doing} {}", path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log was written by a later program.
    #[error("the log segment {} has format {found}, and this program knows up to {VERSION}; start a newer program", path.display())]
    Newer {
        /// Which segment.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// A commit is undamaged and yet makes no sense: a program other than this one wrote it.
    #[error("the log segment {} has a commit at byte {offset} that no crashmeter of this version wrote", path.display())]
    Foreign {
        /// Which segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// Another process has the folder open.
    #[error("the data folder {} is in use by another process", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> io::Error {
        match error {
            OpenError::Disk { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last stamp in the log: nothing was accepted from then until `started`. Zero in a new log.
    pub last_durable: Stamp,
    /// Where the service clock starts.
    pub started: Stamp,
    /// Reports in the log.
    pub reports: u64,
    /// Bytes of an unfinished commit at the end, cut off and kept aside.
    pub torn_bytes: u64,
    /// Damaged stretches with valid commits behind them, kept aside: (segment, offset, bytes).
    pub damaged: Vec<(u64, u64, u64)>,
    /// Commits that are in no segment although later ones are.
    pub missing_commits: u64,
    /// Segments set aside because others contradict them.
    pub set_aside: Vec<u64>,
}

/// An opened log and what was learnt from it.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) archive: Archive,
    /// Of the open segment.
    pub(crate) digest: Digest,
    pub(crate) closed_ids: Closed,
    /// Of the closed segments.
    pub(crate) fingerprints: Hashes,
    /// Last number given in each project.
    pub(crate) last_tx: HashMap<ProjectId, Tx>,
    pub(crate) recovery: Recovery,
}

/// Opens or makes the log and the archive in `root`, and fills `memory` with the latest reports.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    root: &Path,
    segment_bytes: u64,
    memory_bytes: usize,
    memory: &mut Memory,
) -> Result<Opened, OpenError> {
    let (folder, files) = (&root.join("log"), root.join("parquet"));
    disk.create_folder(folder).map_err(failed("make", folder))?;
    let start = Start { disk: disk.as_ref(), folder };
    let listed = start.list()?;
    let mut recovery = Recovery::default();
    let (archived, in_log) = start.archived(&listed, &mut recovery)?;
    let number = archived.iter().map(|(name, _)| name).chain(&listed.segments).map(|name| name.number).max().unwrap_or(0) + 1;
    let Resolved { kept, superseded } = resolve(start, &in_log, archived, &mut recovery)?;
    let amendments = Kept::load(start.disk, folder).map_err(failed("read the overlay in", folder))?;
    let mut replay = Replay { sequence: amendments.given_up.commit, ..Replay::default() };
    let (mut closed_ids, mut fingerprints, mut segments) = (Closed::default(), Hashes::default(), BTreeMap::new());
    let last = kept.last().filter(|last| last.archive.is_none()).map(|last| last.name);
    for found in kept.into_iter().filter(|found| Some(found.name) != last) {
        let index = match (found.index, &found.archive) {
            (Some(index), _) => index,
            (None, None) => start.build_index(found.name)?,
            (None, Some(manifest)) => archive::build_index(start, &files, &disk, found.name, manifest)?,
        };
        let segment = found.archive.map_or(index.segment, Segment::from);
        replay.closed(&segment, &mut recovery);
        for (offset, bytes) in &segment.damaged {
            recovery.damaged.push((found.name.number, *offset, *bytes));
        }
        memory.names.merge(&index.names);
        fingerprints.extend(index.fingerprints);
        closed_ids.push(index.ids);
        segments.insert(found.name, segment);
    }
    let shelf = Shelf::new(disk.clone(), folder, segments);
    let kept = Arc::new(Mutex::new(amendments.clone()));
    let archive = Archive { disk: disk.clone(), log: folder.clone(), folder: files, shelf: shelf.clone(), kept };
    archive.tidy()?;
    memory.overlay = amendments.overlay.clone();
    shelf.read(|chunk| !chunk.amended.is_empty(), &mut |entry| memory.overlay.note(&entry)).map_err(failed("read", folder))?;
    fill(&shelf, memory_bytes, memory).map_err(failed("read", folder))?;

    let name = Name { number, salt: new_salt() };
    let Carried { beginning, segment, digest } = start.carry(last, name, &mut replay, memory, &mut recovery)?;
    let file = write_whole(start.disk, &name.log(folder), &beginning).map_err(failed("write", &name.log(folder)))?;
    disk.sync_folder(folder).map_err(failed("sync", folder))?;
    // Only now is what the old files hold on the disk elsewhere.
    let indexes = listed.indexes.iter().filter(|name| !shelf.has(**name)).map(|name| name.index(folder));
    for path in superseded.into_iter().chain(last).map(|name| name.log(folder)).chain(indexes) {
        disk.remove(&path).map_err(failed("remove the superseded", &path))?;
    }
    recovery.last_durable = replay.stamp;
    let (bytes, sequence) = (segment.bytes, replay.sequence);
    shelf.put(name, segment);
    let buffers = Buffers::default();
    let log = Log { disk, folder: folder.clone(), shelf, segment_bytes, name, file, bytes, sequence, buffers };
    Ok(Opened { log, archive, digest, closed_ids, fingerprints, last_tx: replay.last_tx, recovery })
}

/// Where copies of what cannot be read are kept, and segments set aside.
pub(crate) const ASIDE: &str = "damaged";

/// Bytes of reports brought into memory at a start, beside those of the last segment: what is older is read from the log when it is
/// asked for, so that a start does not wait for it.
const START_BYTES: usize = 64 << 20;

#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) folder: &'a Path,
}

/// What is in the folder.
#[derive(Default)]
struct Listed {
    segments: Vec<Name>,
    indexes: Vec<Name>,
    manifests: Vec<Name>,
}

/// Segments of the archive, and those of the log.
type Parted = (Vec<(Name, Manifest)>, Vec<Name>);

/// The last segment as it goes on under a new name.
struct Carried {
    beginning: Vec<u8>,
    segment: Segment,
    digest: Digest,
}

/// What replaying has come to.
#[derive(Default)]
struct Replay {
    sequence: u64,
    stamp: Stamp,
    last_tx: HashMap<ProjectId, Tx>,
}

impl Start<'_> {
    fn list(self) -> Result<Listed, OpenError> {
        let mut listed = Listed::default();
        for file in self.disk.list(self.folder).map_err(failed("list", self.folder))? {
            if let Some(name) = Name::read(&file, LOG) {
                listed.segments.push(name);
            } else if let Some(name) = Name::read(&file, INDEX) {
                listed.indexes.push(name);
            } else if let Some(name) = Name::read(&file, MANIFEST) {
                listed.manifests.push(name);
            } else if file.ends_with(UNFINISHED) {
                // A copy that was never finished: all it would hold is still where it was made from.
                let path = self.folder.join(file);
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(listed)
    }

    /// Parts the segments into those of the archive and those of the log. Where a segment is in both, the log has not been removed
    /// yet, or somebody has put it there again.
    fn archived(self, listed: &Listed, recovery: &mut Recovery) -> Result<Parted, OpenError> {
        let mut archived = Vec::new();
        let mut in_log = listed.segments.clone();
        for &name in &listed.manifests {
            let path = name.manifest(self.folder);
            match Manifest::read(self.disk, self.folder, name).map_err(failed("read", &path))? {
                Some(manifest) => {
                    if in_log.contains(&name) {
                        in_log.retain(|other| *other != name);
                        self.disk.remove(&name.log(self.folder)).map_err(failed("remove the archived", &path))?;
                    }
                    archived.push((name, manifest));
                }
                // Its files stay where they are, and no start will read them before somebody has brought the manifest back.
                None => recovery.damaged.push((name.number, 0, self.disk.length(&path).map_err(failed("look at", &path))?.unwrap_or(0))),
            }
        }
        Ok((archived, in_log))
    }

    pub(crate) fn content(self, name: Name) -> Result<Vec<u8>, OpenError> {
        let path = name.log(self.folder);
        self.disk.read(&path).map_err(failed("read", &path))
    }

    /// Copies bytes that are no frame to a file of their own.
    pub(crate) fn keep(self, name: Name, offset: u64, rubbish: &[u8]) -> Result<(), OpenError> {
        // A file system may lengthen a file before it has the data: zeros hold nothing.
        if rubbish.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let aside = self.folder.join(ASIDE);
        let path = aside.join(format!("{}-{offset}-{:08x}.bin", name.with(""), crc32c::crc32c(rubbish)));
        let work = || {
            self.disk.create_folder(&aside)?;
            if self.disk.length(&path)?.is_none() {
                write_whole(self.disk, &path, rubbish)?;
            }
            self.disk.sync_folder(&aside)
        };
        work().map_err(failed("write", &path))
    }

    fn entries(self, name: Name, offset: u64, frame: &Frame<'_>) -> Result<Vec<Entry>, OpenError> {
        let entries = frame.body().and_then(|body| codec::decode(&body));
        entries.ok_or_else(|| OpenError::Foreign { path: name.log(self.folder), offset })
    }

    /// Reads a closed segment that has no usable index, and writes one.
    pub(crate) fn build_index(self, name: Name) -> Result<Index, OpenError> {
        let content = self.content(name)?;
        let mut segment = Segment { bytes: content.len() as u64, ..Segment::default() };
        let mut digest = Digest::default();
        let mut begun = false;
        for piece in frame::pieces(name.salt, &content) {
            match piece {
                Piece::Rubbish(offset, rubbish) => {
                    self.keep(name, offset, rubbish)?;
                    segment.damaged.push((offset, rubbish.len() as u64));
                }
                Piece::Frame(offset, frame) => {
                    let entries = self.entries(name, offset, &frame)?;
                    let is_checkpoint = matches!(entries.first(), Some(Entry::Checkpoint(_)));
                    if !begun {
                        begun = true;
                        segment.base = if is_checkpoint { frame.sequence } else { frame.sequence - 1 };
                        (segment.last, segment.stamp) = (segment.base, frame.stamp);
                    }
                    if !is_checkpoint && frame.sequence > segment.last {
                        segment.note(offset, &frame, &entries);
                        digest.note(&entries);
                        note_names(&mut digest.names, &entries);
                    }
                }
            }
        }
        let ids =
            index::write(self.disk, self.folder, name, &segment, &digest).map_err(failed("write the index of", &name.log(self.folder)))?;
        let Digest { fingerprints, names, .. } = digest;
        Ok(Index { segment, fingerprints, names, ids })
    }

    /// Reads the last segment and makes what the new one begins with.
    fn carry(
        self,
        last: Option<Name>,
        name: Name,
        replay: &mut Replay,
        memory: &mut Memory,
        recovery: &mut Recovery,
    ) -> Result<Carried, OpenError> {
        let content = last.map(|last| self.content(last)).transpose()?.unwrap_or_default();
        let pieces = last.map(|last| frame::pieces(last.salt, &content)).unwrap_or_default();
        let mut carried: Option<Carried> = None;
        for (at, piece) in pieces.iter().enumerate() {
            let last = last.expect("there are pieces, so there is a segment");
            match piece {
                Piece::Rubbish(offset, rubbish) => {
                    self.keep(last, *offset, rubbish)?;
                    if at + 1 == pieces.len() {
                        recovery.torn_bytes += rubbish.len() as u64;
                    } else {
                        recovery.damaged.push((last.number, *offset, rubbish.len() as u64));
                    }
                }
                Piece::Frame(offset, frame) => {
                    let entries = self.entries(last, *offset, frame)?;
                    if let Some(Entry::Checkpoint(checkpoint)) = entries.first() {
                        replay.checkpoint(frame, checkpoint, recovery);
                        carried.get_or_insert_with(|| Carried::begin(name, replay.sequence, replay));
                    } else if frame.sequence > replay.sequence {
                        let carried = carried.get_or_insert_with(|| Carried::begin(name, frame.sequence - 1, replay));
                        replay.commit(frame, &entries, recovery);
                        carried.add(name, frame, &entries);
                        remember(memory, &entries);
                        entries.iter().for_each(|entry| memory.amend(entry));
                    }
                }
            }
        }
        let mut carried = carried.unwrap_or_else(|| Carried::begin(name, replay.sequence, replay));
        carried.segment.bytes = carried.beginning.len() as u64;
        memory.names.merge(&carried.digest.names);
        Ok(carried)
    }
}

impl Carried {
    /// Begins a segment whose commits come after `base`.
    fn begin(name: Name, base: u64, replay: &Replay) -> Carried {
        let segment = Segment { base, last: base, stamp: replay.stamp, ..Segment::default() };
        Carried { beginning: checkpoint(name.salt, base, replay.stamp, &replay.last_tx), segment, digest: Digest::default() }
    }

    fn add(&mut self, name: Name, frame: &Frame<'_>, entries: &[Entry]) {
        let salted = frame.with_salt(name.salt);
        let carried = frame::read(name.salt, &salted).expect("it was just made");
        self.segment.note(self.beginning.len() as u64, &carried, entries);
        self.digest.note(entries);
        note_names(&mut self.digest.names, entries);
        self.beginning.extend(salted);
    }
}

impl Replay {
    fn closed(&mut self, segment: &Segment, recovery: &mut Recovery) {
        recovery.missing_commits += segment.base.saturating_sub(self.sequence) + segment.missing;
        recovery.reports += segment.reports;
        self.sequence = segment.last;
        self.stamp = self.stamp.max(segment.stamp);
        for (project, _, tx) in segment.chunks.iter().flat_map(|chunk| &chunk.reports) {
            self.number(*project, *tx);
        }
        for file in segment.archive.iter().flat_map(|manifest| &manifest.files) {
            self.number(file.project, file.txs.1);
        }
    }

    fn checkpoint(&mut self, frame: &Frame<'_>, checkpoint: &codec::Checkpoint, recovery: &mut Recovery) {
        recovery.missing_commits += frame.sequence.saturating_sub(self.sequence);
        self.sequence = self.sequence.max(frame.sequence);
        self.stamp = self.stamp.max(frame.stamp);
        checkpoint.last_tx.iter().for_each(|(project, tx)| self.number(*project, *tx));
    }

    fn commit(&mut self, frame: &Frame<'_>, entries: &[Entry], recovery: &mut Recovery) {
        recovery.missing_commits += frame.sequence - self.sequence - 1;
        self.sequence = frame.sequence;
        self.stamp = self.stamp.max(frame.stamp);
        for entry in entries {
            if let Entry::Report(stored) = entry {
                recovery.reports += 1;
                self.number(stored.report.project, stored.report.tx);
            }
        }
    }

    fn number(&mut self, project: ProjectId, tx: Tx) {
        let last = self.last_tx.entry(project).or_insert(tx);
        *last = (*last).max(tx);
    }
}

/// Fills the memory with the latest reports of closed segments that are still in the log.
fn fill(shelf: &Shelf, memory_bytes: usize, memory: &mut Memory) -> io::Result<()> {
    let left_out = shelf.latest_fitting(memory_bytes.min(START_BYTES) as u64).max(shelf.archived_until());
    memory.leave_out(left_out.unwrap_or(Stamp::ZERO));
    shelf.read(|chunk| left_out.is_none_or(|left_out| chunk.stamps.0 > left_out), &mut |entry| remember(memory, &[entry]))
}

fn note_names(names: &mut Names, entries: &[Entry]) {
    for entry in entries {
        if let Entry::Report(stored) = entry {
            names.note(&stored.report);
        }
    }
}

fn remember(memory: &mut Memory, entries: &[Entry]) {
    for entry in entries {
        if let Entry::Report(stored) = entry {
            memory.add(&stored.report);
        }
    }
}

/// Wraps the disk's error with what was tried.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Disk { doing, path, source }
}
