//! What one project has over a span, block by block: recent reports from memory, older ones from the archive through the cache of
//! columns, and what is in neither from the log.

use crate::archive::{Archive, Opening};
use crate::cache::Cache;
use crate::codec::Entry;
use crate::manifest::Archived;
use crate::memory::{Held, Memory};
use crate::overlay::Amended;
use crate::parquet::{END_BYTES, File};
use crate::segment::{Chunk, Name, Segment};
use columns::{Bits, Block, Builder, Column, Dictionaries, MISSING, Needed, Sieve};
use model::query::received;
use model::{ProjectId, Query, Selection, Stamp, Tx, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Which reports a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As they were accepted: what windows are sealed from, whatever people do to the reports meanwhile.
    Accepted,
    /// As people have left them: deleted ones are gone, changed attributes changed.
    Current,
}

/// Where some of the blocks come from.
enum Part {
    Held(Arc<Block>),
    Archived(Name, Archived),
    Log(Name),
    /// Of which nobody asks more than how many there are: that is known without their files.
    Counted(u64),
}

/// What a question reads.
pub(crate) struct Reads<'q> {
    needed: Needed,
    /// The rows that anybody will look at; `None`: all.
    sieve: Option<Sieve<'q>>,
    /// Outside of which nobody will look at any.
    pub(crate) received: Range<Stamp>,
}

impl<'q> Reads<'q> {
    pub(crate) fn queries(project: ProjectId, queries: &[&'q Query]) -> Reads<'q> {
        let received = queries.iter().map(|query| received(&query.filter, &query.derived));
        let hull = |a: Range<Stamp>, b: Range<Stamp>| a.start.min(b.start)..a.end.max(b.end);
        let received = received.reduce(hull).unwrap_or(Stamp::ZERO..Stamp::ZERO);
        Reads { needed: Needed::by(queries), sieve: Sieve::of_queries(project, queries), received }
    }

    pub(crate) fn selection(project: ProjectId, selection: &'q Selection) -> Reads<'q> {
        let received = received(&selection.filter, &selection.derived);
        Reads { needed: Needed::by_selection(selection), sieve: Sieve::of_selection(project, selection), received }
    }
}

/// A span's parts, oldest first. Each can be loaded apart, by any thread.
pub(crate) struct Extent<'a> {
    archive: &'a Archive,
    cache: &'a Cache,
    project: ProjectId,
    reads: &'a Reads<'a>,
    sieves: bool,
    /// Of the parts that are not in memory.
    older: Range<Stamp>,
    amended: Option<Arc<Amended>>,
    dictionaries: Arc<Dictionaries>,
    parts: Vec<Part>,
    ahead: Ahead<File>,
}

impl<'a> Extent<'a> {
    pub(crate) fn new(
        memory: &RwLock<Memory>,
        archive: &'a Archive,
        cache: &'a Cache,
        project: ProjectId,
        span: &Range<Stamp>,
        view: View,
        reads: &'a Reads<'a>,
    ) -> Extent<'a> {
        let needed = &reads.needed;
        // Memory and overlay at one moment, then the shelf: what compaction takes from the overlay is in the files by then.
        let (held, amended) = {
            let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
            (memory.held(project, span, &needed.attributes), if view == View::Current { memory.overlay.of(project) } else { None })
        };
        let Held { blocks, complete_from, dictionaries } = held;
        let older = span.start..span.end.min(complete_from);
        let mut parts = Vec::new();
        if !older.is_empty() {
            let are_counted = needed == &Needed::default() && amended.is_none();
            let mut counted = 0;
            for part in archive.shelf.ordered().into_iter().filter_map(|name| part_of(archive, name, project, &older)) {
                match part {
                    Part::Archived(_, file) if are_counted && is_within(&file, &older) => counted += file.reports,
                    part => parts.push(part),
                }
            }
            if counted > 0 {
                parts.push(Part::Counted(counted));
            }
        }
        // The unfinished block may still have what files tell by now.
        let recent = complete_from..Stamp::from_micros(u64::MAX);
        parts.extend(blocks.into_iter().map(|block| Part::Held(clip(block, &recent))));
        // A row with another value may pass where it would not as it is in the file.
        let is_changed = |amended: &Arc<Amended>| amended.values.keys().any(|name| needed.attributes.contains(name));
        let sieves = !amended.as_ref().is_some_and(is_changed);
        Extent { archive, cache, project, reads, sieves, older, amended, dictionaries, parts, ahead: Ahead::default() }
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Loads one part.
    pub(crate) fn load(&self, part: usize) -> io::Result<Vec<Arc<Block>>> {
        let blocks = match &self.parts[part] {
            Part::Held(block) => vec![block.clone()],
            Part::Counted(reports) => return Ok(vec![Arc::new(Block::without_places(*reports as usize))]),
            older => {
                self.read_ahead(part);
                self.load_older(older, self.ahead.take(part))?
            }
        };
        Ok(match &self.amended {
            None => blocks,
            Some(amended) => blocks.iter().map(|block| amend(block, amended, &self.reads.needed.attributes, &self.dictionaries)).collect(),
        })
    }

    /// Has the next files come while this one is worked at: their ends, which say where everything is, earlier than their columns.
    fn read_ahead(&self, part: usize) {
        let files = |parts: Range<usize>| {
            let named = |at: usize| if let Part::Archived(name, file) = &self.parts[at] { Some((at, *name, file)) } else { None };
            let missing = |(at, name, file)| (at, name, file, self.cache.missing(name, file, &self.needed_of(file)));
            parts.filter_map(named).map(missing).filter(|(.., missing)| *missing != Needed::default())
        };
        for (_, name, file, _) in files(self.ahead.ends(part, self.parts.len())) {
            let end = file.bytes.saturating_sub(END_BYTES)..file.bytes;
            self.archive.will_read(name, file, std::slice::from_ref(&end));
        }
        for (at, name, file, missing) in files(self.ahead.columns(part, self.parts.len())) {
            // What is wrong with it is said when its turn comes.
            if !self.ahead.has_come(at)
                && let Ok(opened) = self.archive.open(name, file)
            {
                self.archive.will_read(name, file, &opened.parts_of(&missing));
                self.ahead.put(at, opened);
            }
        }
    }

    fn load_older(&self, part: &Part, opened: Option<File>) -> io::Result<Vec<Arc<Block>>> {
        let (name, loaded) = match part {
            Part::Archived(name, file) => (*name, self.load_file(&self.archive.opening(*name, file, opened))),
            Part::Log(name) => (*name, self.load_log(*name)),
            Part::Held(_) | Part::Counted(_) => unreachable!("nothing is left to load of it"),
        };
        let blocks = match loaded {
            // It has been moved or rewritten since the parts were listed: look again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match part_of(self.archive, name, self.project, &self.older) {
                Some(again) if !again.is_same(part) => return self.load_older(&again, None),
                None => return Ok(Vec::new()),
                Some(_) => return Err(error),
            },
            loaded => loaded?,
        };
        // What memory has must not be seen twice.
        Ok(blocks.into_iter().map(|block| clip(block, &self.older)).collect())
    }

    fn load_file(&self, opening: &Opening<'_>) -> io::Result<Vec<Arc<Block>>> {
        let sieve = self.reads.sieve.as_ref().filter(|_| self.sieves);
        self.cache.load(opening, &self.needed_of(opening.archived), sieve, &self.dictionaries)
    }

    /// What is read of a file: stamps too where they tell which rows are in the span, numbers where they tell which have been changed.
    fn needed_of(&self, file: &Archived) -> Needed {
        let Needed { attributes, numbers, stamps } = self.reads.needed.clone();
        Needed { attributes, numbers: numbers || self.amended.is_some(), stamps: stamps || !is_within(file, &self.older) }
    }

    fn load_log(&self, name: Name) -> io::Result<Vec<Arc<Block>>> {
        // Not kept, so it shares no dictionary with what is.
        let mut builder = Builder::new(Arc::default());
        let places = self.archive.shelf.places(name, |chunk| chunk.is_over(&self.older));
        if self.archive.shelf.is_archived(name) {
            // There are no places left then, or soon no file.
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment has left the log"));
        }
        for place in places {
            let stretch = self.archive.shelf.load(name, place)?;
            if !stretch.unreadable.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a stretch of the log is damaged"));
            }
            for entry in stretch.entries {
                if let Entry::Report(stored) = entry
                    && stored.report.project == self.project
                {
                    builder.add(&stored.report);
                }
            }
        }
        Ok(if builder.rows() == 0 { Vec::new() } else { vec![Arc::new(builder.freeze())] })
    }
}

/// How far the reading of a span's files is ahead of who works at them.
struct Ahead<F> {
    /// Parts whose ends have been asked for are before this, those whose columns have been before the other.
    ends: AtomicUsize,
    columns: AtomicUsize,
    /// Files of parts whose turn has not come; `None`: it has.
    opened: Mutex<BTreeMap<usize, Option<F>>>,
}

/// Parts ahead of the one that is loaded.
const ENDS_AHEAD: usize = 8;
const COLUMNS_AHEAD: usize = 3;

impl<F> Ahead<F> {
    /// Parts whose ends are to be asked for when one of so many is loaded; no two threads get the same.
    fn ends(&self, part: usize, parts: usize) -> Range<usize> {
        claim(&self.ends, parts.min(part + 1 + ENDS_AHEAD))
    }

    /// The same for columns.
    fn columns(&self, part: usize, parts: usize) -> Range<usize> {
        claim(&self.columns, parts.min(part + 1 + COLUMNS_AHEAD))
    }

    /// Keeps a file until its part's turn, which may have come while the file was opened: then another thread has opened it as well, and
    /// this one is closed.
    fn put(&self, part: usize, file: F) {
        self.lock().entry(part).or_insert(Some(file));
    }

    /// The turn of a part has come.
    fn take(&self, part: usize) -> Option<F> {
        self.lock().insert(part, None).flatten()
    }

    fn has_come(&self, part: usize) -> bool {
        matches!(self.lock().get(&part), Some(None))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Option<F>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Default for Ahead<F> {
    fn default() -> Ahead<F> {
        Ahead { ends: AtomicUsize::new(0), columns: AtomicUsize::new(0), opened: Mutex::default() }
    }
}

/// What is between a mark and where it is moved to.
fn claim(mark: &AtomicUsize, to: usize) -> Range<usize> {
    mark.fetch_max(to, Ordering::Relaxed)..to
}

impl Part {
    fn is_same(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Archived(_, a), Part::Archived(_, b)) => a.generation == b.generation,
            (Part::Log(_), Part::Log(_)) => true,
            _ => false,
        }
    }
}

/// Whether all reports of a file are in a span.
fn is_within(file: &Archived, span: &Range<Stamp>) -> bool {
    span.start <= file.stamps.0 && file.stamps.1 < span.end
}

/// Where a segment's reports of a project are, if it has any in the span.
fn part_of(archive: &Archive, name: Name, project: ProjectId, span: &Range<Stamp>) -> Option<Part> {
    let part = |segment: &Segment| match &segment.archive {
        Some(manifest) => {
            let file = manifest.files.iter().find(|file| file.project == project)?;
            (file.stamps.0 < span.end && span.start <= file.stamps.1).then(|| Part::Archived(name, file.clone()))
        }
        None => {
            let has = |chunk: &Chunk| chunk.is_over(span) && chunk.reports.iter().any(|(of, ..)| *of == project);
            segment.chunks.iter().any(has).then_some(Part::Log(name))
        }
    };
    archive.shelf.look(name, part).flatten()
}

/// Hides the rows outside of a span.
fn clip(block: Arc<Block>, span: &Range<Stamp>) -> Arc<Block> {
    let is_within = |stamp: u64| span.contains(&Stamp::from_micros(stamp));
    if block.stamps().is_none_or(|(first, last)| is_within(first) && is_within(last)) {
        return block;
    }
    let mut clipped = Block::clone(&block);
    clipped.hide(Bits::from_fn(block.rows(), |row| !is_within(block.stamp[row])));
    Arc::new(clipped)
}

/// Rows with their new values; `None`: missing from now on.
type Changes<'a> = Vec<(usize, Option<&'a Value>)>;

/// Lays a project's amendments over a block, as far as they concern these attributes.
fn amend(block: &Arc<Block>, amended: &Amended, names: &BTreeSet<String>, dictionaries: &Dictionaries) -> Arc<Block> {
    let Some((first, last)) = block.tx.first().zip(block.tx.last()).map(|(first, last)| (Tx(*first), Tx(*last))) else {
        return block.clone();
    };
    // Rows are in the order of their numbers.
    let row_of = |tx: &Tx| block.tx.binary_search(&tx.0).ok();
    let deleted: Vec<usize> = amended.deleted.range(first..=last).filter_map(row_of).collect();
    let values = amended.values.iter().filter(|(name, _)| names.contains(*name));
    let changed: Vec<(&String, Changes<'_>)> = values
        .map(|(name, values)| (name, values.range(first..=last).filter_map(|(tx, value)| Some((row_of(tx)?, value.as_ref()))).collect()))
        .filter(|(_, changes): &(_, Vec<_>)| !changes.is_empty())
        .collect();
    if deleted.is_empty() && changed.is_empty() {
        return block.clone();
    }
    let mut seen = Block::clone(block);
    if !deleted.is_empty() {
        let mut hidden = Bits::none(block.rows());
        deleted.into_iter().for_each(|row| _ = hidden.put(row));
        seen.hide(hidden);
    }
    for (name, changes) in changed {
        let dictionary = dictionaries.of(name);
        let missing = || Arc::new(Column::Codes(vec![MISSING; block.rows()], dictionary.clone()));
        let before = block.columns.get(name).cloned().unwrap_or_else(missing);
        seen.columns.insert(name.clone(), Arc::new(before.with(&dictionary, &changes)));
    }
    Arc::new(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_opened_after_its_turn_does_not_stay_open() {
        let ahead = Ahead::default();
        let files: Vec<Arc<usize>> = (0..4).map(Arc::new).collect();
        let are_open = || files.iter().map(|file| Arc::strong_count(file) > 1).collect::<Vec<_>>();
        // One thread has claimed parts and opens them; another takes the second before its file is there.
        let claimed = ahead.columns(0, 4);
        assert_eq!((claimed.clone(), ahead.columns(1, 4)), (0..4, 4..4));
        assert_eq!((ahead.has_come(1), ahead.take(1), ahead.has_come(1)), (false, None, true));
        claimed.for_each(|part| ahead.put(part, files[part].clone()));
        assert_eq!(are_open(), [true, false, true, true]);
        for (part, file) in files.iter().enumerate() {
            assert_eq!(ahead.take(part).as_ref(), (part != 1).then_some(file));
            assert_eq!(ahead.take(part), None);
        }
        assert_eq!(are_open(), [false; 4]);
    }
}
