//! Columns read from the archive, kept for the next query. Bounded in bytes: those unused for longest go first. A query over more
//! than fits has its columns read, used and let go in turn.
//!
//! Of a question that lets only few rows through, what its filters read is loaded first, and of any other attribute only these rows
//! are, which is not kept: long texts of which nearly each is another take most of the time of a first look. Who asks for the
//! attribute a second time gets all of it, and it stays.

use crate::archive::Opening;
use crate::manifest::Archived;
use crate::segment::Name;
use columns::{Bits, Block, Column, Dictionaries, Needed, Sieve};
use model::ProjectId;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Cache {
    limit_bytes: usize,
    files: Mutex<Files>,
}

/// A file: compaction gives it another generation.
type Key = (Name, ProjectId, u64);

#[derive(Default)]
struct Files {
    files: HashMap<Key, Loaded>,
    bytes: usize,
    /// Counts the uses.
    clock: u64,
}

/// What is loaded of a file.
#[derive(Default)]
struct Loaded {
    /// Blocks without columns.
    blocks: Vec<Block>,
    /// Whether these have their numbers.
    numbers: bool,
    /// Whether they have their stamps.
    stamps: bool,
    /// Of these.
    bytes: usize,
    used: u64,
    columns: HashMap<String, LoadedColumn>,
    /// Attributes of which only a few rows were asked for so far.
    tasted: BTreeSet<String>,
}

/// An attribute's columns, one a block; none where it is missing throughout.
struct LoadedColumn {
    columns: Vec<Option<Arc<Column>>>,
    bytes: usize,
    used: u64,
}

/// What is charged for a name that a file does not have.
const NAME_BYTES: usize = 64;
/// Only some rows of a column are read when they are at most one in so many.
const FEW: u64 = 8;

impl Cache {
    pub(crate) fn new(limit_bytes: usize) -> Cache {
        Cache { limit_bytes, files: Mutex::default() }
    }

    /// A file's blocks with what is needed. Rows that do not pass the sieve may be hidden.
    pub(crate) fn load(
        &self,
        opening: &Opening<'_>,
        needed: &Needed,
        sieve: Option<&Sieve<'_>>,
        dictionaries: &Dictionaries,
    ) -> io::Result<Vec<Arc<Block>>> {
        let key = key(opening.name, opening.archived);
        loop {
            let missing = match self.look(key, needed) {
                Ok(blocks) => return Ok(blocks),
                Err(missing) => missing,
            };
            if let Some(sieve) = sieve
                && let Some(blocks) = self.load_few(opening, needed, &missing, sieve, dictionaries)?
            {
                return Ok(blocks);
            }
            // Read without the lock: another thread may read the same meanwhile, and then one of the two copies goes.
            let before = dictionaries.bytes();
            let read = opening.file()?.blocks(&missing, dictionaries)?;
            let grown = dictionaries.bytes().saturating_sub(before);
            if let Some(blocks) = self.keep(key, needed, &missing, read, grown) {
                return Ok(blocks);
            }
        }
    }

    /// The same when few rows pass the sieve, and of some attributes only these were ever asked for; `None` when it is not so.
    fn load_few(
        &self,
        opening: &Opening<'_>,
        needed: &Needed,
        missing: &Needed,
        sieve: &Sieve<'_>,
        dictionaries: &Dictionaries,
    ) -> io::Result<Option<Vec<Arc<Block>>>> {
        let late = &missing.attributes - &sieve.needed().attributes;
        if late.is_empty() {
            return Ok(None);
        }
        let filtered = self.load(opening, sieve.needed(), None, dictionaries)?;
        let passing: Vec<Bits> = filtered.iter().map(|block| sieve.rows(block)).collect();
        let late = match passing.iter().map(Bits::count).sum::<u64>() {
            0 => late,
            rows if rows > opening.archived.reports / FEW => return Ok(None),
            _ => self.taste(key(opening.name, opening.archived), late),
        };
        if late.is_empty() {
            return Ok(None);
        }
        let rest = Needed { attributes: &needed.attributes - &late, ..*needed };
        let blocks = self.load(opening, &rest, None, dictionaries)?;
        let few = opening.file()?.columns_of(&late, &passing, dictionaries)?;
        let with_few = blocks.iter().zip(few).zip(passing).map(|((block, few), passing)| {
            let mut block = Block::clone(block);
            block.columns.extend(few);
            let mut others = Bits::all(block.rows());
            others.and_not(&passing);
            block.hide(others);
            Arc::new(block)
        });
        Ok(Some(with_few.collect()))
    }

    /// Which of some attributes are asked for the first time.
    fn taste(&self, key: Key, names: BTreeSet<String>) -> BTreeSet<String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is not here has no room here: there is no second time.
        let Some(loaded) = files.files.get_mut(&key) else { return names };
        names.into_iter().filter(|name| loaded.tasted.insert(name.clone())).collect()
    }

    /// A file's blocks when all that is needed is there, else what has to be read.
    fn look(&self, key: Key, needed: &Needed) -> Result<Vec<Arc<Block>>, Needed> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.clock += 1;
        let clock = files.clock;
        let loaded = files.files.get_mut(&key).ok_or_else(|| needed.clone())?;
        let attributes = needed.attributes.iter().filter(|name| !loaded.columns.contains_key(*name)).cloned().collect();
        let missing = Needed { attributes, numbers: needed.numbers && !loaded.numbers, stamps: needed.stamps && !loaded.stamps };
        if missing == Needed::default() { Ok(loaded.blocks(&needed.attributes, clock)) } else { Err(missing) }
    }

    /// What of it would have to be read.
    pub(crate) fn missing(&self, name: Name, file: &Archived, needed: &Needed) -> Needed {
        self.look(key(name, file), needed).err().unwrap_or_default()
    }

    /// Puts what was read to what is there; returns the blocks with all names, unless another query has let some go meanwhile.
    fn keep(&self, key: Key, needed: &Needed, missing: &Needed, read: Vec<Block>, grown: usize) -> Option<Vec<Arc<Block>>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = &mut *files;
        files.clock += 1;
        let loaded = files.files.entry(key).or_default();
        if loaded.blocks.is_empty() || missing.numbers || missing.stamps {
            let mut blocks: Vec<Block> = read.iter().map(Block::bare).collect();
            blocks.iter_mut().zip(&loaded.blocks).for_each(|(block, before)| block.take_places(before));
            loaded.blocks = blocks;
            loaded.numbers |= missing.numbers;
            loaded.stamps |= missing.stamps;
            let bytes = NAME_BYTES + loaded.blocks.iter().map(Block::bytes).sum::<usize>();
            files.bytes = files.bytes + bytes - std::mem::replace(&mut loaded.bytes, bytes);
        }
        for name in &missing.attributes {
            let columns: Vec<_> = read.iter().map(|block| block.columns.get(name).cloned()).collect();
            let of_columns = columns.iter().flatten().map(|column| column.bytes()).sum::<usize>();
            let column = LoadedColumn { columns, bytes: of_columns + NAME_BYTES + grown / missing.attributes.len(), used: files.clock };
            files.bytes += column.bytes;
            files.bytes -= loaded.columns.insert(name.clone(), column).map_or(0, |twice| twice.bytes);
        }
        let is_placed = loaded.numbers >= needed.numbers && loaded.stamps >= needed.stamps;
        let is_whole = is_placed && needed.attributes.iter().all(|name| loaded.columns.contains_key(name));
        let blocks = is_whole.then(|| loaded.blocks(&needed.attributes, files.clock));
        files.shrink(self.limit_bytes);
        blocks
    }
}

fn key(name: Name, file: &Archived) -> Key {
    (name, file.project, file.generation)
}

impl Loaded {
    fn blocks(&mut self, names: &BTreeSet<String>, clock: u64) -> Vec<Arc<Block>> {
        self.used = clock;
        let mut blocks = self.blocks.clone();
        for name in names {
            let loaded = self.columns.get_mut(name).expect("looked for");
            loaded.used = clock;
            for (block, column) in blocks.iter_mut().zip(&loaded.columns) {
                block.columns.extend(column.iter().map(|column| (name.clone(), column.clone())));
            }
        }
        blocks.into_iter().map(Arc::new).collect()
    }
}

impl Files {
    fn shrink(&mut self, limit_bytes: usize) {
        if self.bytes <= limit_bytes {
            return;
        }
        // A file without columns goes by its own last use.
        let mut by_use: Vec<(u64, Key, Option<String>)> = Vec::new();
        for (key, loaded) in &self.files {
            by_use.push((loaded.used, *key, None));
            by_use.extend(loaded.columns.iter().map(|(name, column)| (column.used, *key, Some(name.clone()))));
        }
        by_use.sort_unstable_by_key(|(used, key, name)| (*used, *key, name.is_none()));
        for (_, key, name) in by_use {
            if self.bytes <= limit_bytes {
                return;
            }
            let loaded = self.files.get_mut(&key).expect("each goes once");
            match name {
                Some(name) => self.bytes -= loaded.columns.remove(&name).map_or(0, |column| column.bytes),
                None => {
                    // Its columns were used no later than itself, so they have gone.
                    self.bytes -= loaded.bytes;
                    self.files.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: usize, names: &[&str]) -> Block {
        let column = || Arc::new(Column::Ints(vec![7; rows], None));
        let columns = names.iter().map(|name| ((*name).to_owned(), column())).collect();
        Block::new(vec![1; rows], vec![1; rows]).with_columns(columns)
    }

    fn needed(names: &[&str], places: bool) -> Needed {
        Needed { attributes: names.iter().map(|name| (*name).to_owned()).collect(), numbers: places, stamps: places }
    }

    fn of(number: u64) -> Key {
        (Name { number, salt: 0 }, ProjectId(1), 0)
    }

    #[test]
    fn what_was_unused_for_longest_goes_first_and_all_is_accounted_for() {
        // Each column of 100 rows takes 864 bytes, the rest of a file 1,664.
        let cache = Cache::new(5_650);
        for (number, asked) in [(1, needed(&["a"], true)), (2, needed(&["a", "b"], true)), (1, needed(&["b"], false))] {
            let missing = cache.look(of(number), &asked).err().expect("not there yet");
            assert_eq!(missing, asked);
            let read = vec![block(100, &["a"])];
            let blocks = cache.keep(of(number), &asked, &missing, read, 0).expect("whole");
            assert!(blocks[0].columns.keys().eq(asked.attributes.iter().filter(|name| *name == "a")));
        }
        // 1/a, 2/a, 2/b and 1/b have all found room: an attribute that is missing takes little.
        assert!(cache.look(of(1), &needed(&["a", "b"], true)).is_ok());
        let read = vec![block(100, &["c"])];
        cache.keep(of(1), &needed(&["c"], true), &needed(&["c"], false), read, 0).expect("whole");
        // The second file was unused for longest.
        assert_eq!(cache.look(of(2), &needed(&["a"], true)).err(), Some(needed(&["a"], false)));
        assert!(cache.look(of(1), &needed(&["a", "b", "c"], true)).is_ok());
        is_accounted_for(&cache);
    }

    #[test]
    fn places_come_when_they_are_asked_for() {
        let cache = Cache::new(5_000);
        let without = || Block::without_places(100).with_columns(block(100, &["a"]).columns);
        let blocks = cache.keep(of(1), &needed(&["a"], false), &needed(&["a"], false), vec![without()], 0).expect("whole");
        assert_eq!((blocks[0].rows(), blocks[0].tx.len()), (100, 0));
        assert_eq!(cache.look(of(1), &needed(&["a"], true)).err(), Some(needed(&[], true)));
        let blocks = cache.keep(of(1), &needed(&["a"], true), &needed(&[], true), vec![block(100, &[])], 0).expect("whole");
        assert_eq!((blocks[0].tx.len(), blocks[0].columns.len()), (100, 1));
        // They stay when somebody reads something else without them.
        cache.keep(of(1), &needed(&["b"], false), &needed(&["b"], false), vec![without()], 0).expect("whole");
        assert!(cache.look(of(1), &needed(&["a", "b"], true)).is_ok_and(|blocks| blocks[0].tx.len() == 100));
        is_accounted_for(&cache);
    }

    #[test]
    fn numbers_and_stamps_come_apart_and_are_put_together() {
        let cache = Cache::new(5_000);
        let asked = |numbers, stamps| Needed { numbers, stamps, ..Needed::default() };
        let read = |numbers: u64, stamps: u64| {
            let mut block = Block::without_places(100);
            block.tx = Arc::new(vec![1; 100 * numbers as usize]);
            block.stamp = Arc::new(vec![2; 100 * stamps as usize]);
            vec![block]
        };
        let places = |blocks: &[Arc<Block>]| (blocks[0].tx.len(), blocks[0].stamp.len());
        let stamps = cache.keep(of(1), &asked(false, true), &asked(false, true), read(0, 1), 0).expect("whole");
        assert_eq!(places(&stamps), (0, 100));
        let missing = cache.look(of(1), &asked(true, true)).err().expect("no numbers yet");
        assert_eq!(missing, asked(true, false));
        let both = cache.keep(of(1), &asked(true, true), &missing, read(1, 0), 0).expect("whole");
        assert_eq!(places(&both), (100, 100));
        assert!(cache.look(of(1), &asked(true, true)).is_ok_and(|blocks| places(&blocks) == (100, 100)));
        is_accounted_for(&cache);
    }

    #[test]
    fn more_than_fits_is_answered_and_let_go() {
        let cache = Cache::new(1_000);
        let asked = needed(&["a"], true);
        let blocks = cache.keep(of(1), &asked, &asked, vec![block(1_000, &["a"])], 0).expect("whole");
        assert_eq!((blocks.len(), blocks[0].columns.len()), (1, 1));
        let files = cache.files.lock().expect("no panic while held");
        assert_eq!((files.bytes, files.files.len()), (0, 0));
    }

    fn is_accounted_for(cache: &Cache) {
        let files = cache.files.lock().expect("no panic while held");
        let sum = |loaded: &Loaded| loaded.bytes + loaded.columns.values().map(|column| column.bytes).sum::<usize>();
        assert_eq!(files.bytes, files.files.values().map(sum).sum::<usize>());
        assert!(files.bytes <= cache.limit_bytes);
    }
}
