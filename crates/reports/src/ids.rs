//! Which client ids were seen, to recognise repeats: those of the open segment in memory, those of closed ones in sorted tables
//! on disk behind a small filter in memory.
//!
//! A table is blocks of 128 records of 32 bytes (project u32 and id big-endian, so that bytes sort like keys; number u64 and
//! seconds u32 little-endian), each block followed by its CRC-32C. The directory has every block's first key and a Bloom filter.

use crate::codec::{Reader, put, put_bytes};
use crate::disk::Disk;
use crate::segment::Name;
use hashbrown::DefaultHashBuilder;
use model::{ProjectId, ReportId, Stamp, Tx};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;

/// A repeat is recognised for 7 days or 20 million reports, whichever ends first (design.md 2).
const KEPT_SECS: u64 = 7 * 86_400;
const KEPT_IDS: u64 = 20_000_000;
const RECORD_BYTES: usize = 32;
const KEY_BYTES: usize = 20;
const BLOCK_RECORDS: usize = 128;
/// A block with its checksum.
const BLOCK_BYTES: usize = BLOCK_RECORDS * RECORD_BYTES + 4;
/// 12 bits a record and 8 probes let one in 300 strangers through.
const FILTER_BITS_PER_RECORD: u64 = 12;
const FILTER_PROBES: u64 = 8;

/// What a client calls a report.
pub(crate) type Id = (ProjectId, ReportId);

/// Reports by their ids. Looked into once or twice for every report: a quick hash, drawn anew for each table.
pub(crate) type Ids = HashMap<Id, Seen, DefaultHashBuilder>;

/// The report that had an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) tx: Tx,
    /// When, in seconds of the service clock.
    pub(crate) secs: u32,
}

/// A stamp as tables keep it.
pub(crate) fn secs(stamp: Stamp) -> u32 {
    u32::try_from(stamp.secs()).unwrap_or(u32::MAX)
}

/// Whether a report seen then still counts as the first of its repeats.
pub(crate) fn is_fresh(seen: Seen, now: Stamp) -> bool {
    now.secs().saturating_sub(u64::from(seen.secs)) <= KEPT_SECS
}

/// The tables of all closed segments, oldest first.
#[derive(Default)]
pub(crate) struct Closed(VecDeque<Table>);

impl Closed {
    pub(crate) fn push(&mut self, table: Table) {
        self.0.push_back(table);
    }

    /// Puts another table of the same segment in place of one, or takes it away.
    pub(crate) fn replace(&mut self, name: Name, table: Option<Table>) {
        if let Some(at) = self.0.iter().position(|one| one.name == name) {
            match table {
                Some(table) => self.0[at] = table,
                None => _ = self.0.remove(at),
            }
        }
    }

    /// Lets go of tables whose every id is too old, or has 20 million later ones behind it.
    pub(crate) fn forget(&mut self, now: Stamp) {
        let mut later: u64 = self.0.iter().skip(1).map(|table| table.directory.records).sum();
        while let Some(oldest) = self.0.front() {
            if now.since(oldest.until) <= KEPT_SECS * 1_000_000 && later < KEPT_IDS {
                return;
            }
            self.0.pop_front();
            later -= self.0.front().map_or(0, |next| next.directory.records);
        }
    }

    /// The latest report with this id. `Err` names the segment whose table cannot be read.
    pub(crate) fn find(&self, disk: &dyn Disk, folder: &Path, id: &Id) -> Result<Option<Seen>, (Name, io::Error)> {
        let key = key(id);
        let hash = Hash::of(&key);
        let mut possible = self.0.iter().rev().filter(|table| table.directory.filter.may_have(hash));
        possible.find_map(|table| table.find(disk, folder, &key).map_err(|error| (table.name, error)).transpose()).transpose()
    }
}

/// The ids of one closed segment.
pub(crate) struct Table {
    name: Name,
    /// Where the records begin in the file.
    offset: u64,
    directory: Directory,
    /// No id in it is later.
    until: Stamp,
}

/// What of a table is kept in memory.
pub(crate) struct Directory {
    records: u64,
    firsts: Vec<[u8; KEY_BYTES]>,
    filter: Filter,
}

/// Makes a table: its records, and its directory.
pub(crate) fn encode(salt: u32, ids: &Ids) -> (Vec<u8>, Directory) {
    let mut sorted: Vec<([u8; KEY_BYTES], Seen)> = ids.iter().map(|(id, seen)| (key(id), *seen)).collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    let mut filter = Filter::new(sorted.len() as u64);
    let (mut records, mut firsts) = (Vec::with_capacity(sorted.len() * (RECORD_BYTES + 1)), Vec::new());
    for block in sorted.chunks(BLOCK_RECORDS) {
        firsts.push(block[0].0);
        let start = records.len();
        for (key, seen) in block {
            filter.add(Hash::of(key));
            records.extend(key);
            records.extend(seen.tx.0.to_le_bytes());
            records.extend(seen.secs.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(salt, &records[start..]);
        records.extend(crc.to_le_bytes());
    }
    (records, Directory { records: sorted.len() as u64, firsts, filter })
}

impl Table {
    pub(crate) fn new(name: Name, offset: u64, directory: Directory, until: Stamp) -> Table {
        Table { name, offset, directory, until }
    }

    /// Length of the records.
    pub(crate) fn bytes(&self) -> u64 {
        self.directory.records * RECORD_BYTES as u64 + self.directory.firsts.len() as u64 * 4
    }

    fn find(&self, disk: &dyn Disk, folder: &Path, key: &[u8; KEY_BYTES]) -> io::Result<Option<Seen>> {
        let Some(block) = self.directory.firsts.partition_point(|first| first <= key).checked_sub(1) else { return Ok(None) };
        let start = (block * BLOCK_BYTES) as u64;
        let length = (self.bytes() - start).min(BLOCK_BYTES as u64) as usize;
        let content = disk.read_at(&self.name.index(folder), self.offset + start, length)?;
        let (records, crc) = content.split_last_chunk().ok_or(io::ErrorKind::InvalidData)?;
        if crc32c::crc32c_append(self.name.salt, records) != u32::from_le_bytes(*crc) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the id table is damaged"));
        }
        let (records, _) = records.as_chunks::<RECORD_BYTES>();
        let found = records.binary_search_by(|record| record[..KEY_BYTES].cmp(key)).ok();
        Ok(found.map(|at| {
            let value = &records[at][KEY_BYTES..];
            let tx = u64::from_le_bytes(*value.first_chunk().expect("a record has 32 bytes"));
            Seen { tx: Tx(tx), secs: u32::from_le_bytes(*value.last_chunk().expect("a record has 32 bytes")) }
        }))
    }
}

impl Directory {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put(out, self.records);
        put(out, self.firsts.len() as u64);
        self.firsts.iter().for_each(|first| out.extend(first));
        put_bytes(out, &self.filter.0);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Directory> {
        let (records, firsts) = (reader.number()?, reader.many(Reader::array)?);
        let filter = Filter(reader.bytes()?.to_vec());
        let fits = firsts.len() as u64 == records.div_ceil(BLOCK_RECORDS as u64) && !filter.0.is_empty();
        fits.then_some(Directory { records, firsts, filter })
    }
}

fn key((project, id): &Id) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&project.0.to_be_bytes());
    key[4..].copy_from_slice(&id.0);
    key
}

/// A Bloom filter.
struct Filter(Vec<u8>);

/// Two independent numbers from a key. On disk, so it may never change within a version: multiply and xorshift, as splitmix64.
#[derive(Clone, Copy)]
struct Hash(u64, u64);

impl Hash {
    fn of(key: &[u8; KEY_BYTES]) -> Hash {
        let part = |at: usize| u64::from_le_bytes(*key[at..].first_chunk().expect("within the key"));
        let mix = |n: u64| {
            let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ n >> 31
        };
        let first = mix(part(0) ^ mix(part(8) ^ mix(part(12))));
        Hash(first, mix(first ^ 0x9e37_79b9_7f4a_7c15) | 1)
    }
}

impl Filter {
    fn new(records: u64) -> Filter {
        Filter(vec![0; (records * FILTER_BITS_PER_RECORD / 8 + 1) as usize])
    }

    fn bits(&self, hash: Hash) -> impl Iterator<Item = (usize, u8)> + use<> {
        let bits = self.0.len() as u64 * 8;
        (0..FILTER_PROBES).map(move |probe| {
            let bit = hash.0.wrapping_add(probe.wrapping_mul(hash.1)) % bits;
            ((bit / 8) as usize, 1 << (bit % 8))
        })
    }

    fn add(&mut self, hash: Hash) {
        self.bits(hash).for_each(|(byte, bit)| self.0[byte] |= bit);
    }

    fn may_have(&self, hash: Hash) -> bool {
        self.bits(hash).all(|(byte, bit)| self.0[byte] & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    const NAME: Name = Name { number: 1, salt: 5 };

    fn id(n: u64) -> Id {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        (ProjectId((n % 3) as u32), ReportId(bytes))
    }

    /// A table of so many ids, its records alone in the file.
    fn table(records: u64) -> (SimDisk, Table) {
        let ids: Ids = (0..records).map(|n| (id(n), Seen { tx: Tx(n), secs: n as u32 })).collect();
        let (content, directory) = encode(NAME.salt, &ids);
        let disk = SimDisk::default();
        disk.overwrite(&NAME.index(Path::new("/")), content);
        (disk, Table::new(NAME, 0, directory, Stamp::from_secs(1)))
    }

    #[test]
    fn exactly_what_is_in_a_table_is_found() {
        for records in [0, 1, 127, 128, 129, 1_000] {
            let (disk, table) = table(records);
            let mut closed = Closed::default();
            closed.push(table);
            for n in 0..records + 500 {
                let found = closed.find(&disk, Path::new("/"), &id(n)).expect("readable");
                assert_eq!(found, (n < records).then_some(Seen { tx: Tx(n), secs: n as u32 }), "{n} of {records}");
            }
        }
    }

    #[test]
    fn the_filter_lets_few_strangers_through() {
        let (_, table) = table(20_000);
        let let_through = (20_000..120_000).filter(|n| table.directory.filter.may_have(Hash::of(&key(&id(*n))))).count();
        assert!(let_through < 100_000 / 200, "{let_through} of 100,000");
    }

    #[test]
    fn a_damaged_block_is_an_error_not_a_stranger() {
        let (disk, table) = table(300);
        let path = NAME.index(Path::new("/"));
        let mut content = disk.files()[&path].clone();
        content[40] ^= 1;
        disk.overwrite(&path, content);
        let mut closed = Closed::default();
        closed.push(table);
        let results: Vec<bool> = (0..300).map(|n| closed.find(&disk, Path::new("/"), &id(n)).is_err()).collect();
        assert_eq!(results.iter().filter(|failed| **failed).count(), BLOCK_RECORDS);
    }

    #[test]
    fn tables_go_once_they_are_a_week_old_or_have_20_million_later_ids_behind_them() {
        let until = |secs: u64, records: u64| {
            let directory = Directory { records, firsts: Vec::new(), filter: Filter::new(0) };
            Table::new(NAME, 0, directory, Stamp::from_secs(secs))
        };
        for (tables, now, left) in [
            (vec![(0, 1), (10, 1)], KEPT_SECS, 2),
            (vec![(0, 1), (10, 1)], KEPT_SECS + 1, 1),
            (vec![(0, 1), (10, 1)], KEPT_SECS + 11, 0),
            (vec![(0, 1), (1, KEPT_IDS - 1), (2, 5)], 3, 2),
            (vec![(0, 1), (1, KEPT_IDS - 10), (2, 5)], 3, 3),
        ] {
            let mut closed = Closed::default();
            tables.iter().for_each(|(secs, records)| closed.push(until(*secs, *records)));
            closed.forget(Stamp::from_secs(now));
            assert_eq!(closed.0.len(), left, "{tables:?} at {now}");
        }
    }
}
