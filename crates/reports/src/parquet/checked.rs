//! The bytes of a file under checksums, so that a reader gets what was written or an error. Of Parquet it knows only the end.
//!
//! Everything before the footer is cut into blocks. Between the last block and the footer stand the blocks' CRC-32Cs, where other
//! readers of Parquet do not look: they find by offset. A read checks the blocks that it touches.
//!
//! ```text
//! blocks | CRC-32C of each, u32 | bytes of all blocks, u64 | CRC-32C of all but the blocks, u32 | footer | its length, u32 | PAR1
//! ```
//! Numbers are little-endian.

use super::damaged;
use crate::disk::{Appender, Disk};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Small, because one report is read in many small parts; the checksums still take only 1/4096.
const BLOCK_BYTES: usize = 16 << 10;
/// How much is handed to the disk at once.
const APPEND_BYTES: usize = 1 << 20;
/// Read from the end of a file at first; most footers and checksums fit.
pub(crate) const END_BYTES: u64 = 64 << 10;
/// At both ends of a Parquet file.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";
/// What stands behind the footer: its length and the magic.
const AFTER_FOOTER: usize = 8;
/// What stands between the blocks' checksums and the footer.
const BEFORE_FOOTER: usize = 12;

/// Writes a file block by block.
pub(super) struct Sink<'a> {
    file: &'a mut dyn Appender,
    /// Not yet handed to the disk.
    waiting: Vec<u8>,
    /// Bytes of the blocks.
    bytes: u64,
    /// Of the blocks, the one that is being filled included.
    checks: Vec<u32>,
    /// What comes after `hold`.
    held: Option<Vec<u8>>,
}

impl Sink<'_> {
    pub(super) fn new(file: &mut dyn Appender) -> Sink<'_> {
        Sink { file, waiting: Vec::new(), bytes: 0, checks: Vec::new(), held: None }
    }

    /// From here on nothing goes to the disk before `finish`: the footer is to come.
    pub(super) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Writes what was held, with the checksums before the footer; returns the length of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let held = self.held.take().expect("the footer is held");
        let footer = held.len() - AFTER_FOOTER - footer_length(&held[held.len() - AFTER_FOOTER..]) as usize;
        self.add(&held[..footer])?;
        let mut end = Vec::with_capacity(self.checks.len() * 4 + BEFORE_FOOTER + held.len() - footer);
        self.checks.iter().for_each(|check| end.extend(check.to_le_bytes()));
        end.extend(self.bytes.to_le_bytes());
        end.extend(crc32c::crc32c_append(crc32c::crc32c(&end), &held[footer..]).to_le_bytes());
        end.extend(&held[footer..]);
        self.waiting.extend(&end);
        self.file.append(&self.waiting)?;
        Ok(self.bytes + end.len() as u64)
    }

    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend(bytes);
        while !bytes.is_empty() {
            let filled = (self.bytes % BLOCK_BYTES as u64) as usize;
            if filled == 0 {
                self.checks.push(0);
            }
            let (block, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - filled));
            let check = self.checks.last_mut().expect("just seen to");
            *check = crc32c::crc32c_append(*check, block);
            self.bytes += block.len() as u64;
            bytes = rest;
        }
        if self.waiting.len() >= APPEND_BYTES {
            self.file.append(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.held {
            Some(held) => held.extend(bytes),
            None => self.add(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file and checks what it reads. Clones are the same file.
#[derive(Clone)]
pub(super) struct Source(Arc<Opened>);

struct Opened {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Of all blocks.
    bytes: u64,
    checks: Vec<u32>,
}

impl Source {
    /// Opens a file; returns its footer too.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<(Source, Vec<u8>)> {
        let length = disk.length(path)?.ok_or(io::ErrorKind::NotFound)?;
        let mut end = disk.read_at(path, length.saturating_sub(END_BYTES), length.min(END_BYTES) as usize)?;
        let after = end.len().checked_sub(AFTER_FOOTER).ok_or_else(|| damaged("it is too short"))?;
        if !end.ends_with(MAGIC) {
            return Err(damaged("its end is not that of a Parquet file"));
        }
        let footer = footer_length(&end[after..]);
        let before =
            length.checked_sub(AFTER_FOOTER as u64 + footer + BEFORE_FOOTER as u64).ok_or_else(|| damaged("its footer is cut off"))?;
        if length - before > end.len() as u64 {
            end = disk.read_at(path, before, (length - before) as usize)?;
        }
        let at = end.len() - (length - before) as usize;
        let bytes = (&end[at..]).get_u64_le();
        let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
        if blocks.checked_mul(4).and_then(|checks| checks.checked_add(bytes)) != Some(before) {
            return Err(damaged("its checksums are not where they belong"));
        }
        if length - bytes > end.len() as u64 {
            end = disk.read_at(path, bytes, (length - bytes) as usize)?;
        }
        let end = &end[end.len() - (length - bytes) as usize..];
        let (summed, rest) = end.split_at(blocks as usize * 4 + 8);
        let (mut check, rest) = rest.split_at(4);
        if crc32c::crc32c_append(crc32c::crc32c(summed), rest) != check.get_u32_le() {
            return Err(damaged("its end does not have its checksum"));
        }
        let checks = summed[..blocks as usize * 4].chunks_exact(4).map(|mut check| check.get_u32_le()).collect();
        let footer = rest[..rest.len() - AFTER_FOOTER].to_vec();
        Ok((Source(Arc::new(Opened { disk, path: path.to_owned(), bytes, checks })), footer))
    }

    /// Checked bytes of the blocks.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Opened { disk, path, bytes, checks } = self.0.as_ref();
        if range.start > range.end || range.end > *bytes {
            return Err(damaged("a part lies outside of it"));
        }
        let block = BLOCK_BYTES as u64;
        let from = range.start / block * block;
        let to = range.end.next_multiple_of(block).min(*bytes);
        let content = disk.read_at(path, from, (to - from) as usize)?;
        for (content, check) in content.chunks(BLOCK_BYTES).zip(&checks[(from / block) as usize..]) {
            if crc32c::crc32c(content) != *check {
                return Err(damaged("a block does not have its checksum"));
            }
        }
        Ok(Bytes::from(content).slice((range.start - from) as usize..(range.end - from) as usize))
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.0.bytes
    }
}

impl ChunkReader for Source {
    type T = Stream;

    fn get_read(&self, start: u64) -> ParquetResult<Stream> {
        Ok(Stream { source: self.clone(), at: start, ready: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.checked_add(length as u64).ok_or_else(|| ParquetError::EOF("beyond the end".to_owned()))?;
        Ok(self.read(start..end)?)
    }
}

/// A part of a file, read and checked at one time. Places in it are those in the file.
pub(super) struct Whole {
    start: u64,
    content: Bytes,
}

impl Source {
    /// Reads a part at one time.
    pub(super) fn whole(&self, range: Range<u64>) -> io::Result<Whole> {
        Ok(Whole { start: range.start, content: self.read(range)? })
    }
}

impl Whole {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.content.len()).ok_or_else(|| ParquetError::EOF("outside of the part".to_owned()))?;
        Ok(self.content.slice(at..))
    }
}

impl Length for Whole {
    fn len(&self) -> u64 {
        self.start + self.content.len() as u64
    }
}

impl ChunkReader for Whole {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Reader<Bytes>> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut rest = self.from(start)?;
        if rest.len() < length {
            return Err(ParquetError::EOF("beyond the end of the part".to_owned()));
        }
        Ok(rest.split_to(length))
    }
}

/// Reads on from a place, a block at a time.
pub(super) struct Stream {
    source: Source,
    at: u64,
    ready: Bytes,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && self.at < self.source.0.bytes {
            let end = (self.at + 1).next_multiple_of(BLOCK_BYTES as u64).min(self.source.0.bytes);
            self.ready = self.source.read(self.at..end)?;
            self.at = end;
        }
        let length = into.len().min(self.ready.len());
        self.ready.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// The length of the footer, from what stands behind it.
fn footer_length(mut after: &[u8]) -> u64 {
    u64::from(after.get_u32_le())
}
