//! Segments: their file names, what is known of each without reading it, and reading the parts that a question needs.

use crate::codec::{self, Entry};
use crate::disk::Disk;
use crate::frame::{self, Frame, Piece};
use crate::manifest::{MANIFEST, Manifest};
use crate::memory::row_bytes;
use model::{ProjectId, Stamp, Tx};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A chunk takes no more commits once it has this many bytes: reading one report reads one chunk.
const CHUNK_BYTES: u64 = 64 << 10;

/// A segment's name: its number, and the salt of its frames (see `frame`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) number: u64,
    pub(crate) salt: u32,
}

impl Name {
    /// Reads a name with this ending; `None` for any other file.
    pub(crate) fn read(name: &str, ending: &str) -> Option<Name> {
        let (number, salt) = name.strip_suffix(ending)?.split_once('-')?;
        let read = Name { number: number.parse().ok()?, salt: u32::from_str_radix(salt, 16).ok()? };
        (read.with(ending) == name).then_some(read)
    }

    /// The segment's file.
    pub(crate) fn log(self, folder: &Path) -> PathBuf {
        folder.join(self.with(LOG))
    }

    /// The file with what is known of the segment (see `index`).
    pub(crate) fn index(self, folder: &Path) -> PathBuf {
        folder.join(self.with(INDEX))
    }

    /// The file that says where its reports are once they have left the log (see `manifest`).
    pub(crate) fn manifest(self, folder: &Path) -> PathBuf {
        folder.join(self.with(MANIFEST))
    }

    pub(crate) fn with(self, ending: &str) -> String {
        format!("{:012}-{:08x}{ending}", self.number, self.salt)
    }
}

/// Ending of a segment.
pub(crate) const LOG: &str = ".log";
/// Ending of an index.
pub(crate) const INDEX: &str = ".idx";

/// What is known of a segment without reading it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Segment {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// The sequence after which its commits come.
    pub(crate) base: u64,
    /// That of its last commit, or `base`.
    pub(crate) last: u64,
    /// Of the last commit in it or before it.
    pub(crate) stamp: Stamp,
    /// Commits between `base` and `last` that cannot be read.
    pub(crate) missing: u64,
    pub(crate) reports: u64,
    /// Stretches that are no frames: offset and length.
    pub(crate) damaged: Vec<(u64, u64)>,
    /// Where things lie in the log.
    pub(crate) chunks: Vec<Chunk>,
    /// Where its reports are once they have left the log; there are no chunks then.
    pub(crate) archive: Option<Manifest>,
}

/// Frames that lie one behind the other and are read together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Of its first and last commit.
    pub(crate) stamps: (Stamp, Stamp),
    /// What its reports take in memory.
    pub(crate) row_bytes: u64,
    /// Reports.
    pub(crate) reports: Vec<Numbers>,
    /// Reports whose late attachments or changes are here.
    pub(crate) amended: Vec<Numbers>,
}

/// A stretch of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    offset: u64,
    bytes: usize,
}

/// What a stretch holds.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    pub(crate) entries: Vec<Entry>,
    /// Bytes that cannot be read, with their offsets in the segment.
    pub(crate) unreadable: Vec<(u64, Vec<u8>)>,
}

/// Least and greatest number of some reports of a project.
pub(crate) type Numbers = (ProjectId, Tx, Tx);

impl Segment {
    /// Takes in a commit that lies at `offset`.
    pub(crate) fn note(&mut self, offset: u64, frame: &Frame<'_>, entries: &[Entry]) {
        let bytes = frame.bytes.len() as u64;
        self.missing += frame.sequence - self.last - 1;
        self.last = frame.sequence;
        self.stamp = frame.stamp;
        self.bytes = self.bytes.max(offset + bytes);
        let goes_on = self.chunks.last().is_some_and(|last| last.offset + last.bytes == offset && last.bytes + bytes <= CHUNK_BYTES);
        if !goes_on {
            self.chunks.push(Chunk { offset, stamps: (frame.stamp, frame.stamp), ..Chunk::default() });
        }
        let chunk = self.chunks.last_mut().expect("there is one now");
        chunk.bytes += bytes;
        chunk.stamps.1 = frame.stamp;
        for entry in entries {
            match entry {
                Entry::Report(stored) => {
                    widen(&mut chunk.reports, stored.report.project, stored.report.tx);
                    self.reports += 1;
                    chunk.row_bytes += row_bytes(&stored.report) as u64;
                }
                Entry::Attachment { project, tx, .. } => widen(&mut chunk.amended, *project, *tx),
                Entry::Change { project, runs, .. } => {
                    runs.iter().for_each(|(first, last)| [first, last].into_iter().for_each(|tx| widen(&mut chunk.amended, *project, *tx)));
                }
                Entry::Checkpoint(_) => {}
            }
        }
    }
}

impl Chunk {
    /// Whether a report of the span may be in it.
    pub(crate) fn is_over(&self, span: &Range<Stamp>) -> bool {
        self.stamps.0 < span.end && span.start <= self.stamps.1
    }

    /// Whether a report may be in it.
    pub(crate) fn may_have(&self, project: ProjectId, tx: Tx) -> bool {
        self.reports.iter().any(|(of, first, last)| *of == project && (*first..=*last).contains(&tx))
    }
}

impl From<Manifest> for Segment {
    fn from(manifest: Manifest) -> Segment {
        let Manifest { base, last, stamp, missing, .. } = manifest;
        Segment { base, last, stamp, missing, reports: manifest.reports(), archive: Some(manifest), ..Segment::default() }
    }
}

fn widen(all: &mut Vec<Numbers>, project: ProjectId, tx: Tx) {
    match all.iter_mut().find(|(of, ..)| *of == project) {
        Some((_, first, last)) => (*first, *last) = ((*first).min(tx), (*last).max(tx)),
        None => all.push((project, tx, tx)),
    }
}

/// All segments; reads what is asked for while the writer adds to the last one. Clones see the same.
#[derive(Clone)]
pub(crate) struct Shelf {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segments: Arc<RwLock<BTreeMap<Name, Segment>>>,
    unreadable_bytes: Arc<AtomicU64>,
}

impl Shelf {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: &Path, segments: BTreeMap<Name, Segment>) -> Shelf {
        Shelf { disk, folder: folder.to_owned(), segments: Arc::new(RwLock::new(segments)), unreadable_bytes: Arc::default() }
    }

    pub(crate) fn put(&self, name: Name, segment: Segment) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(name, segment);
    }

    pub(crate) fn has(&self, name: Name) -> bool {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).contains_key(&name)
    }

    /// Looks at one segment, if it is there.
    pub(crate) fn look<T>(&self, name: Name, work: impl FnOnce(&Segment) -> T) -> Option<T> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&name).map(work)
    }

    /// Looks at or changes one segment.
    pub(crate) fn with<T>(&self, name: Name, work: impl FnOnce(&mut Segment) -> T) -> T {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        work(segments.get_mut(&name).expect("segments stay on the shelf"))
    }

    /// Shows every entry of the chunks that are wanted, of segments in the log, oldest first. What has become unreadable since it
    /// was written is passed over and counted.
    pub(crate) fn read(&self, wanted: impl Fn(&Chunk) -> bool, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        for name in self.ordered() {
            for place in self.places(name, &wanted) {
                match self.load(name, place) {
                    Ok(read) => read.entries.into_iter().for_each(&mut *visit),
                    // It has left for the archive meanwhile, where the caller looks next.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_archived(name) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The segments, oldest first.
    pub(crate) fn ordered(&self) -> Vec<Name> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = segments.iter().map(|(name, segment)| (segment.base, *name)).collect();
        // Numbers are as old as their segments unless a person has renamed one: sequences never lie.
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// The wanted stretches of a segment in the log.
    pub(crate) fn places(&self, name: Name, wanted: impl Fn(&Chunk) -> bool) -> Vec<Place> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let chunks = segments.get(&name).into_iter().flat_map(|segment| &segment.chunks);
        chunks.filter(|chunk| wanted(chunk)).map(|chunk| Place { offset: chunk.offset, bytes: chunk.bytes as usize }).collect()
    }

    /// Reads a stretch of a segment in the log.
    pub(crate) fn load(&self, name: Name, place: Place) -> io::Result<Stretch> {
        let content = self.disk.read_at(&name.log(&self.folder), place.offset, place.bytes)?;
        let mut stretch = Stretch::default();
        for piece in frame::pieces(name.salt, &content) {
            let entries = match &piece {
                Piece::Frame(_, frame) => frame.body().and_then(|body| codec::decode(&body)),
                Piece::Rubbish(..) => None,
            };
            match (entries, piece) {
                (Some(entries), _) => stretch.entries.extend(entries),
                (None, Piece::Frame(at, Frame { bytes: lost, .. }) | Piece::Rubbish(at, lost)) => {
                    let offset = place.offset + at;
                    self.unreadable_bytes.fetch_add(lost.len() as u64, Ordering::Relaxed);
                    tracing::error!(segment = name.number, offset, bytes = lost.len(), "a stretch of the log is unreadable");
                    stretch.unreadable.push((offset, lost.to_vec()));
                }
            }
        }
        Ok(stretch)
    }

    /// Where a segment's reports are, once they have left the log.
    pub(crate) fn archive(&self, name: Name) -> Option<Manifest> {
        self.look(name, |segment| segment.archive.clone()).flatten()
    }

    pub(crate) fn is_archived(&self, name: Name) -> bool {
        self.look(name, |segment| segment.archive.is_some()).unwrap_or(false)
    }

    /// The last stamp in the archive.
    pub(crate) fn archived_until(&self) -> Option<Stamp> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().filter(|segment| segment.archive.is_some()).map(|segment| segment.stamp).max()
    }

    /// Takes a segment off the shelf.
    pub(crate) fn remove(&self, name: Name) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
    }

    /// The last stamp of which the reports up to it do not all fit in `row_bytes` of memory, when the latest are taken first.
    pub(crate) fn latest_fitting(&self, row_bytes: u64) -> Option<Stamp> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut chunks: Vec<_> =
            segments.values().flat_map(|segment| &segment.chunks).map(|chunk| (chunk.stamps.1, chunk.row_bytes)).collect();
        chunks.sort_unstable();
        let mut taken = 0;
        let left_out = chunks.into_iter().rev().find(|(_, row_bytes_here)| {
            taken += row_bytes_here;
            taken > row_bytes
        });
        left_out.map(|(stamp, _)| stamp)
    }

    /// The highest number of a project's reports, of those that are kept.
    pub(crate) fn newest(&self, project: ProjectId) -> Option<Tx> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let of_segment = |segment: &Segment| {
            let logged = segment.chunks.iter().flat_map(|chunk| &chunk.reports).filter(|(of, ..)| *of == project).map(|(.., last)| *last);
            let files = segment.archive.iter().flat_map(|manifest| &manifest.files);
            logged.chain(files.filter(|file| file.project == project).map(|file| file.txs.1)).max()
        };
        segments.values().filter_map(of_segment).max()
    }

    /// Segments, and bytes that reading came upon and could not read.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).len();
        (segments as u64, self.unreadable_bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_segments() {
        let name = Name { number: 7, salt: 0xbeef };
        assert_eq!(name.with(LOG), "000000000007-0000beef.log");
        for (text, read) in [
            ("000000000007-0000beef.log", Some(name)),
            ("7-0000beef.log", None),
            ("000000000007-beef.log", None),
            ("000000000007-0000BEEF.log", None),
            ("000000000007-0000beef.log.new", None),
            ("copy of 000000000007-0000beef.log", None),
            ("000000000007-0000beef.idx", None),
        ] {
            assert_eq!(Name::read(text, LOG), read, "{text}");
        }
    }
}
