//! Columns read from the archive, kept for the next query. Bounded in bytes: those unused for longest go first. A query over more
//! than fits has its columns read, used and let go in turn.

use crate::archive::Archive;
use crate::manifest::Archived;
use crate::segment::Name;
use columns::{Block, Column, Dictionaries};
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
struct Loaded {
    /// Blocks without columns.
    blocks: Vec<Block>,
    /// Of these.
    bytes: usize,
    used: u64,
    columns: HashMap<String, LoadedColumn>,
}

/// An attribute's columns, one a block; none where it is missing throughout.
struct LoadedColumn {
    columns: Vec<Option<Arc<Column>>>,
    bytes: usize,
    used: u64,
}

/// What is charged for a name that a file does not have.
const NAME_BYTES: usize = 64;

impl Cache {
    pub(crate) fn new(limit_bytes: usize) -> Cache {
        Cache { limit_bytes, files: Mutex::default() }
    }

    /// A file's blocks with the named columns.
    pub(crate) fn load(
        &self,
        archive: &Archive,
        name: Name,
        file: &Archived,
        names: &BTreeSet<String>,
        dictionaries: &Dictionaries,
    ) -> io::Result<Vec<Arc<Block>>> {
        let key = (name, file.project, file.generation);
        loop {
            let missing = match self.look(key, names) {
                Ok(blocks) => return Ok(blocks),
                Err(missing) => missing,
            };
            // Read without the lock: another thread may read the same meanwhile, and then one of the two copies goes.
            let before = dictionaries.bytes();
            let read = archive.open(name, file)?.blocks(&missing, dictionaries)?;
            let grown = dictionaries.bytes().saturating_sub(before);
            if let Some(blocks) = self.keep(key, names, &missing, read, grown) {
                return Ok(blocks);
            }
        }
    }

    /// A file's blocks when all names are there, else the names that have to be read.
    fn look(&self, key: Key, names: &BTreeSet<String>) -> Result<Vec<Arc<Block>>, BTreeSet<String>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.clock += 1;
        let clock = files.clock;
        let loaded = files.files.get_mut(&key).ok_or_else(|| names.clone())?;
        let missing: BTreeSet<String> = names.iter().filter(|name| !loaded.columns.contains_key(*name)).cloned().collect();
        if missing.is_empty() { Ok(loaded.blocks(names, clock)) } else { Err(missing) }
    }

    /// Puts what was read to what is there; returns the blocks with all names, unless another query has let some go meanwhile.
    fn keep(
        &self,
        key: Key,
        names: &BTreeSet<String>,
        read_names: &BTreeSet<String>,
        read: Vec<Block>,
        grown: usize,
    ) -> Option<Vec<Arc<Block>>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = &mut *files;
        files.clock += 1;
        let bare = |block: &Block| Block { tx: block.tx.clone(), stamp: block.stamp.clone(), ..Block::default() };
        let loaded = files.files.entry(key).or_insert_with(|| {
            let blocks: Vec<Block> = read.iter().map(bare).collect();
            let bytes = blocks.iter().map(Block::bytes).sum();
            files.bytes += bytes;
            Loaded { blocks, bytes, used: 0, columns: HashMap::new() }
        });
        for name in read_names {
            let columns: Vec<_> = read.iter().map(|block| block.columns.get(name).cloned()).collect();
            let of_columns = columns.iter().flatten().map(|column| column.bytes()).sum::<usize>();
            let column = LoadedColumn { columns, bytes: of_columns + NAME_BYTES + grown / read_names.len(), used: files.clock };
            files.bytes += column.bytes;
            files.bytes -= loaded.columns.insert(name.clone(), column).map_or(0, |twice| twice.bytes);
        }
        let is_whole = names.iter().all(|name| loaded.columns.contains_key(name));
        let blocks = is_whole.then(|| loaded.blocks(names, files.clock));
        files.shrink(self.limit_bytes);
        blocks
    }
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
        Block { tx: Arc::new(vec![1; rows]), stamp: Arc::new(vec![1; rows]), columns, hidden: None }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn key(number: u64) -> Key {
        (Name { number, salt: 0 }, ProjectId(1), 0)
    }

    #[test]
    fn what_was_unused_for_longest_goes_first_and_all_is_accounted_for() {
        // Each column of 100 rows takes 864 bytes, the rest of a file 1,600.
        let cache = Cache::new(5_500);
        for (number, asked) in [(1, names(&["a"])), (2, names(&["a", "b"])), (1, names(&["b"]))] {
            let missing = cache.look(key(number), &asked).err().expect("not there yet");
            assert_eq!(missing, asked);
            let read = vec![block(100, &["a"])];
            let blocks = cache.keep(key(number), &asked, &missing, read, 0).expect("whole");
            assert_eq!(blocks[0].columns.keys().cloned().collect::<BTreeSet<_>>(), &asked & &names(&["a"]));
        }
        // 1/a, 2/a, 2/b and 1/b have all found room: an attribute that is missing takes little.
        assert!(cache.look(key(1), &names(&["a", "b"])).is_ok());
        let read = vec![block(100, &["c"])];
        cache.keep(key(1), &names(&["c"]), &names(&["c"]), read, 0).expect("whole");
        // The second file was unused for longest.
        assert_eq!(cache.look(key(2), &names(&["a"])).err(), Some(names(&["a"])));
        assert!(cache.look(key(1), &names(&["a", "b", "c"])).is_ok());
        let files = cache.files.lock().expect("no panic while held");
        let sum = |loaded: &Loaded| loaded.bytes + loaded.columns.values().map(|column| column.bytes).sum::<usize>();
        assert_eq!(files.bytes, files.files.values().map(sum).sum::<usize>());
        assert!(files.bytes <= 5_500);
    }

    #[test]
    fn more_than_fits_is_answered_and_let_go() {
        let cache = Cache::new(1_000);
        let blocks = cache.keep(key(1), &names(&["a"]), &names(&["a"]), vec![block(1_000, &["a"])], 0).expect("whole");
        assert_eq!((blocks.len(), blocks[0].columns.len()), (1, 1));
        let files = cache.files.lock().expect("no panic while held");
        assert_eq!((files.bytes, files.files.len()), (0, 0));
    }
}
