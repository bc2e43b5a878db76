//! The log: numbered segments of frames, appended and synced commit by commit, and what a start makes of whatever a crash left.
//!
//! A segment is written under a temporary name, synced, then renamed: one that has its final name has its whole beginning. On
//! start the valid frames of the last segment are copied to a new one and synced before they count as durable, because what
//! the page cache shows after a kill need not be on the platter. The old one is then superseded; should its removal be undone
//! by a crash, it is recognised: the later segment begins at or before the same sequence.

use crate::codec::{self, Checkpoint, Entry, Header, MAGIC, VERSION};
use crate::disk::{Appender, Disk};
use model::{ProjectId, Stamp, Tx};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// Another process has the folder open.
    #[error("the data folder {} is in use by another process", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
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
}

/// What is known of a segment without reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    /// Stamps of its first and last commit.
    pub(crate) stamps: Option<RangeInclusive<Stamp>>,
    /// Least and greatest report number of each project in it.
    pub(crate) numbers: HashMap<ProjectId, (Tx, Tx)>,
    pub(crate) bytes: u64,
}

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: Box<dyn Appender>,
    number: u64,
    sequence: u64,
    segment_bytes: u64,
    pub(crate) segments: BTreeMap<u64, Segment>,
    last_numbers: Vec<(ProjectId, Tx)>,
}

/// A stretch of a segment.
enum Stretch<'a> {
    Frame(Header, &'a [u8]),
    /// Bytes that are no frame, from this offset.
    Rubbish(u64, &'a [u8]),
}

impl Log {
    /// Opens or makes the log in `folder` and shows every entry, oldest first, to `visit`.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        segment_bytes: u64,
        visit: &mut dyn FnMut(Entry),
    ) -> Result<(Log, Recovery), OpenError> {
        let tell = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Disk { doing, path, source }
        };
        disk.create_folder(folder).map_err(tell("make", folder))?;
        let mut numbers = Vec::new();
        for name in disk.list(folder).map_err(tell("list", folder))? {
            match name.strip_suffix(".log").map(str::parse::<u64>) {
                Some(Ok(number)) if segment_path(folder, number).file_name().is_some_and(|whole| *whole == *name) => numbers.push(number),
                // A copy that was never finished: all it holds is still in the segment it was made from.
                _ if name.ends_with(".new") => disk.remove(&folder.join(&name)).map_err(tell("remove", &folder.join(&name)))?,
                _ => {}
            }
        }
        numbers.sort_unstable();

        let mut contents: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut superseded = Vec::new();
        for number in numbers {
            let path = segment_path(folder, number);
            let bytes = disk.read(&path).map_err(tell("read", &path))?;
            if let Some(header) = codec::read_header(&bytes).filter(|header| header.version > VERSION) {
                return Err(OpenError::Newer { path, found: header.version });
            }
            if let Some(begins) = first_sequence(&bytes) {
                while contents.last().is_some_and(|(_, earlier)| first_sequence(earlier).is_some_and(|earlier| begins <= earlier)) {
                    superseded.push(contents.pop().expect("just looked at").0);
                }
            }
            contents.push((number, bytes));
        }

        let mut recovery = Recovery::default();
        let mut state = Replay::default();
        let mut segments = BTreeMap::new();
        let last = contents.last().map(|(number, _)| *number);
        let mut carried: Vec<u8> = Vec::new();
        let mut carried_base = None;
        for (number, bytes) in &contents {
            let is_last = Some(*number) == last;
            let mut segment = Segment { bytes: bytes.len() as u64, ..Segment::default() };
            let stretches = stretches(bytes);
            let end = stretches.len();
            for (at, stretch) in stretches.into_iter().enumerate() {
                match stretch {
                    Stretch::Frame(header, frame) => {
                        let Some(entries) = codec::decode_entries(&header, frame) else {
                            return Err(OpenError::Newer { path: segment_path(folder, *number), found: header.version });
                        };
                        let checkpoint = matches!(entries.first(), Some(Entry::Checkpoint(_)));
                        if is_last {
                            // Where the checkpoint itself is damaged, the first commit that can be read says where this begins.
                            carried_base.get_or_insert(if checkpoint { header.sequence } else { header.sequence.saturating_sub(1) });
                        }
                        if state.take(&header, entries, &mut segment, &mut recovery, visit) && is_last {
                            carried.extend(frame);
                        }
                    }
                    Stretch::Rubbish(offset, rubbish) => {
                        let torn = is_last && at + 1 == end;
                        keep_aside(disk.as_ref(), folder, *number, offset, rubbish)
                            .map_err(tell("keep a damaged stretch of", &segment_path(folder, *number)))?;
                        if torn {
                            recovery.torn_bytes += rubbish.len() as u64
                        } else {
                            recovery.damaged.push((*number, offset, rubbish.len() as u64))
                        }
                    }
                }
            }
            segments.insert(*number, segment);
        }
        recovery.last_durable = state.stamp;

        // The numbers before the last segment's first commit are those of its checkpoint; here those of the end do as well.
        let number = contents.last().map_or(0, |(number, _)| *number).max(superseded.iter().copied().max().unwrap_or(0)) + 1;
        let base = carried_base.filter(|_| !carried.is_empty()).unwrap_or(state.sequence);
        let checkpoint = codec::encode_frame(base, state.stamp, &[Entry::Checkpoint(state.checkpoint())]);
        let beginning = [checkpoint, carried].concat();
        let path = segment_path(folder, number);
        let file = start_segment(disk.as_ref(), folder, number, &beginning).map_err(tell("write", &path))?;
        if let Some(last) = last {
            let mut carried = segments.remove(&last).unwrap_or_default();
            carried.bytes = beginning.len() as u64;
            segments.insert(number, carried);
            superseded.push(last);
        } else {
            segments.insert(number, Segment { bytes: beginning.len() as u64, ..Segment::default() });
        }
        for number in superseded {
            let path = segment_path(folder, number);
            disk.remove(&path).map_err(tell("remove the superseded", &path))?;
        }
        disk.sync_folder(folder).map_err(tell("sync", folder))?;
        let last_numbers = state.checkpoint().last_tx;
        let log = Log { disk, folder: folder.to_owned(), file, number, sequence: state.sequence, segment_bytes, segments, last_numbers };
        Ok((log, recovery))
    }

    /// Writes one commit and syncs it. After an error the log must not be used any more: what is on the disk is unknown.
    pub(crate) fn commit(&mut self, stamp: Stamp, entries: &[Entry], last_tx: &HashMap<ProjectId, Tx>) -> io::Result<u64> {
        if self.segments[&self.number].bytes >= self.segment_bytes {
            self.rotate(last_tx)?;
        }
        let frame = codec::encode_frame(self.sequence + 1, stamp, entries);
        self.file.append(&frame)?;
        self.file.sync()?;
        self.sequence += 1;
        let segment = self.segments.get_mut(&self.number).expect("the open segment is known");
        segment.bytes += frame.len() as u64;
        segment.note(stamp, entries);
        Ok(frame.len() as u64)
    }

    fn rotate(&mut self, last_tx: &HashMap<ProjectId, Tx>) -> io::Result<()> {
        let stamp = self.segments[&self.number].stamps.as_ref().map_or(Stamp::ZERO, |stamps| *stamps.end());
        let mut last_tx: Vec<(ProjectId, Tx)> = last_tx.iter().map(|(project, tx)| (*project, *tx)).collect();
        last_tx.sort_unstable();
        let beginning = codec::encode_frame(self.sequence, stamp, &[Entry::Checkpoint(Checkpoint { last_tx })]);
        self.file = start_segment(self.disk.as_ref(), &self.folder, self.number + 1, &beginning)?;
        self.number += 1;
        self.segments.insert(self.number, Segment { bytes: beginning.len() as u64, ..Segment::default() });
        Ok(())
    }

    /// The segment being written.
    pub(crate) fn open_segment(&self) -> (u64, &Segment) {
        (self.number, &self.segments[&self.number])
    }

    /// The last number given in each project before this start.
    pub(crate) fn last_numbers(&self) -> &[(ProjectId, Tx)] {
        &self.last_numbers
    }

    /// How to read segments without the log itself.
    pub(crate) fn shelf(&self) -> Shelf {
        Shelf { disk: self.disk.clone(), folder: self.folder.clone() }
    }
}

/// Reads segments while the log is written.
#[derive(Clone)]
pub(crate) struct Shelf {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl Shelf {
    /// Shows every entry of a segment that is readable. A commit in the middle of being written is passed over.
    pub(crate) fn read(&self, number: u64, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let bytes = self.disk.read(&segment_path(&self.folder, number))?;
        for stretch in stretches(&bytes) {
            if let Stretch::Frame(header, frame) = stretch {
                codec::decode_entries(&header, frame).unwrap_or_default().into_iter().for_each(&mut *visit);
            }
        }
        Ok(())
    }
}

/// What replaying has come to.
#[derive(Default)]
struct Replay {
    sequence: u64,
    stamp: Stamp,
    last_tx: HashMap<ProjectId, Tx>,
}

impl Replay {
    /// Takes a frame in; false when it is a checkpoint or a repeat of one already taken.
    fn take(
        &mut self,
        header: &Header,
        entries: Vec<Entry>,
        segment: &mut Segment,
        recovery: &mut Recovery,
        visit: &mut dyn FnMut(Entry),
    ) -> bool {
        if let Some(Entry::Checkpoint(checkpoint)) = entries.first() {
            for (project, tx) in &checkpoint.last_tx {
                self.number(*project, *tx);
            }
            recovery.missing_commits += header.sequence.saturating_sub(self.sequence);
            self.sequence = self.sequence.max(header.sequence);
            self.stamp = self.stamp.max(header.stamp);
            return false;
        }
        if header.sequence <= self.sequence {
            return false;
        }
        recovery.missing_commits += header.sequence - self.sequence - 1;
        self.sequence = header.sequence;
        self.stamp = self.stamp.max(header.stamp);
        segment.note(header.stamp, &entries);
        for entry in entries {
            if let Entry::Report(stored) = &entry {
                recovery.reports += 1;
                self.number(stored.report.project, stored.report.tx);
            }
            visit(entry);
        }
        true
    }

    fn number(&mut self, project: ProjectId, tx: Tx) {
        let last = self.last_tx.entry(project).or_insert(tx);
        *last = (*last).max(tx);
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut last_tx: Vec<(ProjectId, Tx)> = self.last_tx.iter().map(|(project, tx)| (*project, *tx)).collect();
        last_tx.sort_unstable();
        Checkpoint { last_tx }
    }
}

impl Segment {
    fn note(&mut self, stamp: Stamp, entries: &[Entry]) {
        let first = self.stamps.as_ref().map_or(stamp, |stamps| *stamps.start());
        self.stamps = Some(first..=stamp);
        for entry in entries {
            if let Entry::Report(stored) = entry {
                let (project, tx) = (stored.report.project, stored.report.tx);
                let numbers = self.numbers.entry(project).or_insert((tx, tx));
                *numbers = (numbers.0.min(tx), numbers.1.max(tx));
            }
        }
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

/// Writes the beginning of a segment and gives it its name once it is on the disk.
fn start_segment(disk: &dyn Disk, folder: &Path, number: u64, beginning: &[u8]) -> io::Result<Box<dyn Appender>> {
    let unfinished = folder.join(format!("{number:020}.new"));
    let mut file = disk.create(&unfinished)?;
    file.append(beginning)?;
    file.sync()?;
    disk.rename(&unfinished, &segment_path(folder, number))?;
    disk.sync_folder(folder)?;
    Ok(file)
}

/// The sequence after which a segment's commits come: that of its checkpoint, or the one before its first readable commit.
fn first_sequence(bytes: &[u8]) -> Option<u64> {
    let (header, frame) = codec::read_frame(bytes)?;
    match codec::decode_entries(&header, frame)?.first() {
        Some(Entry::Checkpoint(_)) => Some(header.sequence),
        _ => header.sequence.checked_sub(1),
    }
}

/// Cuts a segment into frames and what is none, in order.
fn stretches(bytes: &[u8]) -> Vec<Stretch<'_>> {
    let mut stretches = Vec::new();
    let (mut at, mut rubbish) = (0, 0);
    while at < bytes.len() {
        match codec::read_frame(&bytes[at..]) {
            Some((header, frame)) => {
                if rubbish < at {
                    stretches.push(Stretch::Rubbish(rubbish as u64, &bytes[rubbish..at]));
                }
                stretches.push(Stretch::Frame(header, frame));
                at += frame.len();
                rubbish = at;
            }
            None => {
                let next = bytes[at + 1..].windows(MAGIC.len()).position(|window| window == MAGIC);
                at = next.map_or(bytes.len(), |next| at + 1 + next);
            }
        }
    }
    if rubbish < bytes.len() {
        stretches.push(Stretch::Rubbish(rubbish as u64, &bytes[rubbish..]));
    }
    stretches
}

/// Copies bytes that are no frame into the folder `damaged`: nothing that cannot be read is ever thrown away.
fn keep_aside(disk: &dyn Disk, folder: &Path, number: u64, offset: u64, rubbish: &[u8]) -> io::Result<()> {
    // A file system may extend a file before its data: zeros hold nothing.
    if rubbish.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let aside = folder.join("damaged");
    disk.create_folder(&aside)?;
    let name = format!("{number:020}-{offset}-{:08x}.bin", crc32c::crc32c(rubbish));
    if disk.list(&aside)?.contains(&name) {
        return Ok(());
    }
    let mut file = disk.create(&aside.join(name))?;
    file.append(rubbish)?;
    file.sync()?;
    disk.sync_folder(&aside)
}
