//! Recent reports as columns, for evaluation without reading files. Bounded in bytes: the oldest go first.

use crate::codec::Entry;
use crate::names::Names;
use crate::overlay::Overlay;
use columns::{Block, Builder, Dictionaries};
use model::{Attributes, ProjectId, Report, Stamp, Value};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of a block: few enough that copying the unfinished one for a reader takes a fraction of a millisecond.
const BLOCK_ROWS: usize = 16_384;
/// What a report and one of its attributes cost in the queue and in a start's accounts, beside their texts.
const ROW_BYTES: usize = 128;
const ATTRIBUTE_BYTES: usize = 88;
/// A project's dictionaries are begun anew when they take this share of the memory; the old ones go with the last of their blocks.
const DICTIONARY_SHARE: usize = 4;

pub(crate) struct Memory {
    projects: HashMap<ProjectId, Recent>,
    /// Of all reports ever, not only those here.
    pub(crate) names: Names,
    pub(crate) overlay: Overlay,
    /// No project is complete before this.
    floor: Stamp,
    limit_bytes: usize,
    generations: Arc<Generations>,
    /// Finished blocks, oldest first.
    order: VecDeque<(ProjectId, usize)>,
    /// Of finished and unfinished blocks, with what they have added to dictionaries.
    bytes: usize,
}

/// One project's reports, in the order of stamp and number.
struct Recent {
    blocks: VecDeque<Arc<Block>>,
    builder: Builder,
    dictionaries: Arc<Dictionaries>,
    /// Bytes of the dictionaries when the unfinished block was begun.
    dictionary_bytes: usize,
    /// Reports stamped at or after this are all here.
    complete_from: Stamp,
}

/// A project's recent reports for a reader.
pub(crate) struct Held {
    /// Oldest first.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// What is stamped earlier has to be looked for elsewhere.
    pub(crate) complete_from: Stamp,
    /// The dictionaries that blocks loaded now should share.
    pub(crate) dictionaries: Arc<Dictionaries>,
}

/// The dictionaries that new blocks use, whether they are built from reports or read from files: codes of one dictionary need no
/// translation.
pub(crate) struct Generations {
    limit_bytes: usize,
    current: Mutex<HashMap<ProjectId, Arc<Dictionaries>>>,
}

impl Generations {
    fn current(&self, project: ProjectId) -> Arc<Dictionaries> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let dictionaries = current.entry(project).or_default();
        if dictionaries.bytes() > self.limit_bytes {
            *dictionaries = Arc::default();
        }
        dictionaries.clone()
    }
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize) -> Memory {
        Memory {
            projects: HashMap::new(),
            names: Names::default(),
            overlay: Overlay::default(),
            floor: Stamp::ZERO,
            limit_bytes,
            generations: Arc::new(Generations { limit_bytes: limit_bytes / DICTIONARY_SHARE, current: Mutex::default() }),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes a report that is later than all that are here.
    pub(crate) fn add(&mut self, report: &Report) {
        let generations = &self.generations;
        let recent = self.projects.entry(report.project).or_insert_with(|| Recent::new(generations.current(report.project)));
        let before = recent.builder.bytes();
        recent.builder.add(report);
        self.bytes += recent.builder.bytes() - before;
        if recent.builder.rows() >= BLOCK_ROWS || recent.builder.bytes() > self.limit_bytes / 8 {
            self.finish_block(report.project);
        }
        self.shrink();
    }

    /// Puts a project's unfinished block to the finished ones.
    fn finish_block(&mut self, project: ProjectId) {
        let Some(recent) = self.projects.get_mut(&project) else { return };
        self.bytes -= recent.builder.bytes();
        let bytes = recent.finish_block(self.generations.current(project));
        self.bytes += bytes;
        self.order.push_back((project, bytes));
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit_bytes {
            if self.order.is_empty() {
                // Many projects have a few reports each: the one with most gives way.
                let unfinished = self.projects.iter().filter(|(_, recent)| recent.builder.rows() > 0);
                let Some((project, _)) = unfinished.max_by_key(|(_, recent)| recent.builder.bytes()) else { return };
                self.finish_block(*project);
            }
            let Some((project, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            if let Some(recent) = self.projects.get_mut(&project)
                && let Some(block) = recent.blocks.pop_front()
            {
                // Of the reports with its last stamp some may be in the next block: only what is later is complete.
                recent.complete_from = recent.complete_from.max(last_stamp(&block).plus_micros(1));
            }
        }
    }

    /// Says that reports up to this stamp may be missing here.
    pub(crate) fn leave_out(&mut self, stamp: Stamp) {
        self.floor = self.floor.max(stamp.plus_micros(1));
    }

    /// Lets go of all reports up to this stamp: files tell them differently now.
    pub(crate) fn let_go(&mut self, stamp: Stamp) {
        self.leave_out(stamp);
        let floor = self.floor;
        for (project, recent) in &mut self.projects {
            while let Some(block) = recent.blocks.pop_front_if(|block| last_stamp(block) < floor) {
                let at = self.order.iter().position(|(of, _)| of == project).expect("a finished block is in the order");
                let (_, bytes) = self.order.remove(at).expect("just found");
                self.bytes -= bytes;
                drop(block);
            }
        }
    }

    /// From which stamp on a project's reports are all here.
    pub(crate) fn complete_from(&self, project: ProjectId) -> Stamp {
        self.projects.get(&project).map_or(self.floor, |recent| recent.complete_from.max(self.floor))
    }

    /// The project's reports in the span as far as they are here, with the named attributes of the unfinished block.
    pub(crate) fn held(&self, project: ProjectId, span: &Range<Stamp>, names: &BTreeSet<String>) -> Held {
        let complete_from = self.complete_from(project);
        let dictionaries = self.generations.current(project);
        let Some(recent) = self.projects.get(&project) else { return Held { blocks: Vec::new(), complete_from, dictionaries } };
        let overlaps = |first: u64, last: u64| first < span.end.micros() && span.start.micros().max(complete_from.micros()) <= last;
        let finished = recent.blocks.iter().filter(|block| block.stamps().is_some_and(|(first, last)| overlaps(first, last)));
        let mut blocks: Vec<Arc<Block>> = finished.cloned().collect();
        if recent.builder.stamps().is_some_and(|(first, last)| overlaps(first, last)) {
            blocks.push(Arc::new(recent.builder.snapshot(names)));
        }
        Held { blocks, complete_from, dictionaries }
    }

    /// Takes in an amendment.
    pub(crate) fn amend(&mut self, entry: &Entry) {
        self.overlay.note(entry);
    }
}

impl Recent {
    fn new(dictionaries: Arc<Dictionaries>) -> Recent {
        Recent {
            blocks: VecDeque::new(),
            builder: Builder::new(dictionaries.clone()),
            dictionary_bytes: dictionaries.bytes(),
            dictionaries,
            complete_from: Stamp::ZERO,
        }
    }

    /// Puts the unfinished block to the finished ones; returns its bytes, with those by which it has made the dictionaries grow.
    fn finish_block(&mut self, dictionaries: Arc<Dictionaries>) -> usize {
        let block = self.builder.freeze();
        let bytes = block.bytes() + self.dictionaries.bytes().saturating_sub(self.dictionary_bytes);
        self.blocks.push_back(Arc::new(block));
        if !Arc::ptr_eq(&dictionaries, &self.dictionaries) {
            self.builder = Builder::new(dictionaries.clone());
            self.dictionaries = dictionaries;
        }
        self.dictionary_bytes = self.dictionaries.bytes();
        bytes
    }
}

fn last_stamp(block: &Block) -> Stamp {
    block.stamps().map_or(Stamp::ZERO, |(_, last)| Stamp::from_micros(last))
}

/// What a report takes in memory as a row, roughly.
pub(crate) fn row_bytes(report: &Report) -> usize {
    ROW_BYTES + attribute_bytes(&report.attributes)
}

/// What attributes take in memory as they came, roughly.
pub(crate) fn attribute_bytes(attributes: &Attributes) -> usize {
    let text = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
    attributes.iter().map(|(name, value)| ATTRIBUTE_BYTES + name.len() + text(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Tx;

    #[test]
    fn many_projects_and_long_texts_stay_within_the_bound() {
        for projects in [1, 50] {
            let mut memory = Memory::new(200_000);
            for n in 0..2_000u64 {
                let attributes = Attributes::from_pairs([("text".to_owned(), Value::from(format!("{n:01000}")))]);
                let project = ProjectId((n % projects) as u32);
                memory.add(&Report { project, tx: Tx(n / projects + 1), stamp: Stamp::from_micros(n + 1), attributes });
                assert!(memory.bytes <= 200_000);
            }
            let all = Stamp::ZERO..Stamp::from_micros(u64::MAX);
            let mut rows = 0;
            for project in (0..projects).map(|project| ProjectId(project as u32)) {
                let held = memory.held(project, &all, &BTreeSet::new());
                let stamps: Vec<u64> = held.blocks.iter().flat_map(|block| block.stamp.iter().copied()).collect();
                let complete =
                    (1..=2_000).filter(|stamp| (stamp - 1) % projects == u64::from(project.0) && *stamp >= held.complete_from.micros());
                assert_eq!(
                    stamps.iter().copied().filter(|stamp| *stamp >= held.complete_from.micros()).collect::<Vec<_>>(),
                    complete.collect::<Vec<_>>()
                );
                rows += stamps.len();
            }
            assert!((50..200).contains(&rows), "{rows} texts of 1,000 letters are in 200,000 bytes");
        }
    }
}
