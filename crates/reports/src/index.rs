//! The index of a closed segment: everything a start needs to know of it, so that it is not read. Derived: one that is missing,
//! damaged or of another length than its segment is built anew.
//!
//! Layout, little-endian: magic `CMIX`; version u8; three zero bytes; length of the first part u32; CRC-32C of that part, salted
//! like the segment's frames, u32; that part in varints; then the ids (see `ids`), whose directory is in the first part.

use crate::codec::{Entry, Reader, StoredReport, put, put_bytes};
use crate::disk::{Disk, write_whole};
use crate::ids::{self, Ids, Seen, Table};
use crate::names::Names;
use crate::segment::{Chunk, Name, Numbers, Segment};
use hashbrown::DefaultHashBuilder;
use model::{Attributes, ProjectId, Stamp, Tx, Value};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

const MAGIC: [u8; 4] = *b"CMIX";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
/// Distinct fingerprints remembered of one segment, to tell the first report of its kind.
const MAX_FINGERPRINTS: usize = 1_000_000;

/// A set of hashes, which are looked up by a quick hash of their own, drawn anew for each set.
pub(crate) type Hashes = HashSet<u64, DefaultHashBuilder>;

/// What is known of the reports in a segment, beside where they lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Digest {
    pub(crate) ids: Ids,
    /// Short hashes of (project, fingerprint).
    pub(crate) fingerprints: Hashes,
    pub(crate) names: Names,
}

impl Digest {
    /// Takes in a commit, except for the names: the writer counts those once for several uses.
    pub(crate) fn note(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Entry::Report(stored) = entry else { continue };
            self.note_report(stored, short_hash(stored.report.project, fingerprint(&stored.report.attributes)));
        }
    }

    /// Takes in a report, except for the names, with the short hash of its fingerprint.
    pub(crate) fn note_report(&mut self, stored: &StoredReport, kind: u64) {
        let report = &stored.report;
        if let Some(id) = stored.id {
            self.ids.insert((report.project, id), Seen { tx: report.tx, secs: ids::secs(report.stamp) });
        }
        if self.fingerprints.len() < MAX_FINGERPRINTS {
            self.fingerprints.insert(kind);
        }
    }
}

/// The report's fingerprint: 64 hex digits, zeros where it has none.
pub(crate) fn fingerprint(attributes: &Attributes) -> &str {
    match attributes.get("fingerprint") {
        Some(Value::Text(text)) => text,
        _ => NO_FINGERPRINT,
    }
}

const NO_FINGERPRINT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Stands for a fingerprint of a project; two are taken for one with a chance of 2^-64.
pub(crate) fn short_hash(project: ProjectId, fingerprint: &str) -> u64 {
    let hash = Sha256::new().chain_update(project.0.to_le_bytes()).chain_update(fingerprint.as_bytes()).finalize();
    u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// What an index says.
pub(crate) struct Index {
    pub(crate) segment: Segment,
    pub(crate) fingerprints: Hashes,
    pub(crate) names: Names,
    pub(crate) ids: Table,
}

/// Writes the index of a segment that takes no more commits.
pub(crate) fn write(disk: &dyn Disk, folder: &Path, name: Name, segment: &Segment, digest: &Digest) -> io::Result<Table> {
    let (records, directory) = ids::encode(name.salt, &digest.ids);
    let mut first = Vec::new();
    put_segment(&mut first, segment);
    put(&mut first, digest.fingerprints.len() as u64);
    digest.fingerprints.iter().for_each(|hash| first.extend(hash.to_le_bytes()));
    put_names(&mut first, &digest.names);
    directory.put(&mut first);
    let mut file = Vec::with_capacity(HEADER_BYTES + first.len() + records.len());
    file.extend(MAGIC);
    file.extend([VERSION, 0, 0, 0]);
    file.extend(u32::try_from(first.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_le_bytes());
    file.extend(crc32c::crc32c_append(name.salt, &first).to_le_bytes());
    file.extend_from_slice(&first);
    let offset = file.len() as u64;
    file.extend(records);
    let path = name.index(folder);
    write_whole(disk, &path, &file)?;
    Ok(Table::new(name, offset, directory, segment.stamp))
}

/// Reads the index of a segment of this length in the log, or of an archived one; `None` where there is none that can be used.
pub(crate) fn read(disk: &dyn Disk, folder: &Path, name: Name, segment_bytes: Option<u64>) -> io::Result<Option<Index>> {
    let path = name.index(folder);
    let Some(length) = disk.length(&path)?.filter(|length| *length >= HEADER_BYTES as u64) else { return Ok(None) };
    let header = disk.read_at(&path, 0, HEADER_BYTES)?;
    let number = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("within the header"));
    if header[..5] != [&MAGIC[..], &[VERSION]].concat() || HEADER_BYTES as u64 + u64::from(number(8)) > length {
        return Ok(None);
    }
    let first = disk.read_at(&path, HEADER_BYTES as u64, number(8) as usize)?;
    if crc32c::crc32c_append(name.salt, &first) != number(12) {
        return Ok(None);
    }
    let offset = (HEADER_BYTES + first.len()) as u64;
    let fits = |index: &Index| segment_bytes.is_none_or(|bytes| index.segment.bytes == bytes) && offset + index.ids.bytes() == length;
    Ok(decode(&first, name, offset).filter(fits))
}

fn decode(first: &[u8], name: Name, offset: u64) -> Option<Index> {
    let mut reader = Reader(first);
    let segment = read_segment(&mut reader)?;
    let fingerprints = reader.many(|reader| reader.array().map(u64::from_le_bytes))?.into_iter().collect();
    let names = read_names(&mut reader)?;
    let directory = ids::Directory::read(&mut reader)?;
    let stamp = segment.stamp;
    reader.is_at_end().then(|| Index { segment, fingerprints, names, ids: Table::new(name, offset, directory, stamp) })
}

fn put_segment(out: &mut Vec<u8>, segment: &Segment) {
    // An index is written while the reports are in the log.
    let Segment { bytes, base, last, stamp, missing, reports, damaged, chunks, archive: _ } = segment;
    [*bytes, *base, *last, stamp.micros(), *missing, *reports].into_iter().for_each(|number| put(out, number));
    put(out, damaged.len() as u64);
    damaged.iter().flat_map(|(offset, bytes)| [*offset, *bytes]).for_each(|number| put(out, number));
    put(out, chunks.len() as u64);
    for Chunk { offset, bytes, stamps, row_bytes, reports, amended } in chunks {
        [*offset, *bytes, stamps.0.micros(), stamps.1.micros(), *row_bytes].into_iter().for_each(|number| put(out, number));
        for numbers in [reports, amended] {
            put(out, numbers.len() as u64);
            numbers.iter().flat_map(|(project, first, last)| [u64::from(project.0), first.0, last.0]).for_each(|number| put(out, number));
        }
    }
}

fn read_segment(reader: &mut Reader<'_>) -> Option<Segment> {
    let stamp = |reader: &mut Reader<'_>| reader.number().map(Stamp::from_micros);
    let numbers = |reader: &mut Reader<'_>| -> Option<Vec<Numbers>> {
        reader.many(|reader| Some((reader.project()?, Tx(reader.number()?), Tx(reader.number()?))))
    };
    Some(Segment {
        bytes: reader.number()?,
        base: reader.number()?,
        last: reader.number()?,
        stamp: stamp(reader)?,
        missing: reader.number()?,
        reports: reader.number()?,
        damaged: reader.many(|reader| Some((reader.number()?, reader.number()?)))?,
        chunks: reader.many(|reader| {
            Some(Chunk {
                offset: reader.number()?,
                bytes: reader.number()?,
                stamps: (stamp(reader)?, stamp(reader)?),
                row_bytes: reader.number()?,
                reports: numbers(reader)?,
                amended: numbers(reader)?,
            })
        })?,
        archive: None,
    })
}

fn put_names(out: &mut Vec<u8>, names: &Names) {
    put(out, names.beyond);
    put(out, names.projects.len() as u64);
    for (project, names) in &names.projects {
        put(out, u64::from(project.0));
        put(out, names.len() as u64);
        for (name, counts) in names {
            put_bytes(out, name.as_bytes());
            counts.iter().for_each(|count| put(out, *count));
        }
    }
}

fn read_names(reader: &mut Reader<'_>) -> Option<Names> {
    let beyond = reader.number()?;
    let projects = reader.many(|reader| {
        let project = reader.project()?;
        let names = reader.many(|reader| Some((reader.text()?, [reader.number()?, reader.number()?, reader.number()?])))?;
        Some((project, BTreeMap::from_iter(names)))
    })?;
    Some(Names { projects: HashMap::from_iter(projects), beyond })
}
