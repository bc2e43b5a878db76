//! Frames: the checksummed envelope of one commit, and how frames are found in a segment that may be damaged.
//!
//! Layout, little-endian: magic `CMLG`; version u8; flags u8; check of the header u16; length of the body u32; checksum u32;
//! sequence u64; stamp u64; the body. Every later version keeps these places and both checksums, so that an older program can
//! tell a newer log from a damaged one. Both CRC-32C start from the segment's salt, a number drawn when the segment was made and
//! kept in its name: bytes that a client sent, found inside a damaged frame, do not pass for a frame.

use model::Stamp;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Cursor;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

/// Marks the start of a frame; recovery looks for it behind damage.
const MAGIC: [u8; 4] = *b"CMLG";
/// Version of the frame and of everything in it.
pub(crate) const VERSION: u8 = 1;
/// Bytes before the body.
const HEADER_BYTES: usize = 32;
/// The body is zstd.
const FLAG_ZSTD: u8 = 1;
/// Bodies from this size on are compressed.
const COMPRESS_FROM_BYTES: usize = 512;
/// zstd level: about 400,000 reports a second and core at ratio 12 (engine.md 4).
const LEVEL: i32 = 1;

/// A frame whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) version: u8,
    /// 1, 2, 3, ... over all segments; a checkpoint has that of the last commit before its segment.
    pub(crate) sequence: u64,
    /// Of the commit and of every report in it.
    pub(crate) stamp: Stamp,
    /// The whole frame.
    pub(crate) bytes: &'a [u8],
}

/// A stretch of a segment, with its offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    Frame(u64, Frame<'a>),
    /// Bytes that are no frame.
    Rubbish(u64, &'a [u8]),
}

thread_local! {
    /// Their tables are large: to make them for each commit takes longer than to use them.
    static COMPRESSOR: RefCell<Compressor<'static>> = RefCell::new(Compressor::new(LEVEL).expect("a level that zstd has"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::new(Decompressor::new().expect("there is memory for one"));
}

/// Makes a frame of a body.
pub(crate) fn encode(salt: u32, sequence: u64, stamp: Stamp, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_into(&mut frame, salt, sequence, stamp, body);
    frame
}

/// The same in memory that is used again and again; what was there before goes.
pub(crate) fn encode_into(frame: &mut Vec<u8>, salt: u32, sequence: u64, stamp: Stamp, body: &[u8]) {
    frame.clear();
    frame.extend(MAGIC);
    // Flags, both checksums and the length of the body are put in below.
    frame.extend([VERSION, 0, 0, 0]);
    frame.extend([0; 8]);
    frame.extend(sequence.to_le_bytes());
    frame.extend(stamp.micros().to_le_bytes());
    if body.len() >= COMPRESS_FROM_BYTES && compress(frame, body) {
        frame[5] |= FLAG_ZSTD;
    } else {
        frame.extend_from_slice(body);
    }
    let length = u32::try_from(frame.len() - HEADER_BYTES).expect("groups are cut far below 4 GiB");
    frame[8..12].copy_from_slice(&length.to_le_bytes());
    seal(salt, frame);
}

/// Adds a body in fewer bytes than it has; `false`: it has not become shorter, and nothing is added.
fn compress(frame: &mut Vec<u8>, body: &[u8]) -> bool {
    frame.reserve(compress_bound(body.len()));
    let mut end = Cursor::new(&mut *frame);
    end.set_position(HEADER_BYTES as u64);
    let compressed = COMPRESSOR.with_borrow_mut(|compressor| compressor.compress_to_buffer(body, &mut end));
    let is_shorter = compressed.expect("there is room for any body") < body.len();
    if !is_shorter {
        frame.truncate(HEADER_BYTES);
    }
    is_shorter
}

/// Reads the frame at the start of `bytes`, when it is complete and undamaged.
pub(crate) fn read(salt: u32, bytes: &[u8]) -> Option<Frame<'_>> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    if header[..4] != MAGIC || header[6..8] != header_check(salt, header).to_le_bytes() {
        return None;
    }
    let frame = bytes.get(..HEADER_BYTES + number::<4>(header, 8) as usize)?;
    (number::<4>(header, 12) == u64::from(checksum(salt, frame))).then(|| Frame {
        version: header[4],
        sequence: number::<8>(header, 16),
        stamp: Stamp::from_micros(number::<8>(header, 24)),
        bytes: frame,
    })
}

impl<'a> Frame<'a> {
    /// What the commit says; `None` when it was not written by this code.
    pub(crate) fn body(&self) -> Option<Cow<'a, [u8]>> {
        let body = &self.bytes[HEADER_BYTES..];
        match self.bytes[5] {
            0 => Some(Cow::Borrowed(body)),
            FLAG_ZSTD => {
                let length = Decompressor::upper_bound(body).filter(|length| *length <= u32::MAX as usize)?;
                DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress(body, length)).ok().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// The same commit as a frame of another segment.
    pub(crate) fn with_salt(&self, salt: u32) -> Vec<u8> {
        let mut frame = self.bytes.to_vec();
        seal(salt, &mut frame);
        frame
    }

    /// Whether both are the same commit, be they of different segments.
    pub(crate) fn same(&self, other: &Frame<'_>) -> bool {
        let commit = |frame: &Frame<'_>| (frame.version, frame.bytes[5], frame.sequence, frame.stamp);
        commit(self) == commit(other) && self.bytes[HEADER_BYTES..] == other.bytes[HEADER_BYTES..]
    }
}

/// Cuts a segment into frames and what is none, in order.
pub(crate) fn pieces(salt: u32, bytes: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut at, mut rubbish) = (0, 0);
    while at < bytes.len() {
        if let Some(frame) = read(salt, &bytes[at..]) {
            if rubbish < at {
                pieces.push(Piece::Rubbish(rubbish as u64, &bytes[rubbish..at]));
            }
            pieces.push(Piece::Frame(at as u64, frame));
            at += frame.bytes.len();
            rubbish = at;
        } else {
            let next = bytes[at + 1..].windows(MAGIC.len()).position(|window| window == MAGIC);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    if rubbish < bytes.len() {
        pieces.push(Piece::Rubbish(rubbish as u64, &bytes[rubbish..]));
    }
    pieces
}

/// Puts both checksums in.
pub(crate) fn seal(salt: u32, frame: &mut [u8]) {
    let header = frame.first_chunk().expect("a frame has a header");
    let check = header_check(salt, header).to_le_bytes();
    frame[6..8].copy_from_slice(&check);
    let checksum = checksum(salt, frame).to_le_bytes();
    frame[12..16].copy_from_slice(&checksum);
}

/// Guards the length: without it, every look-alike header in a damaged stretch would cost a checksum over the rest of the file.
fn header_check(salt: u32, header: &[u8; HEADER_BYTES]) -> u16 {
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &header[4..6]), &header[8..12]);
    crc32c::crc32c_append(crc, &header[16..]) as u16
}

fn checksum(salt: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &frame[4..12]), &frame[16..])
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut whole = [0; 8];
    whole[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let frame = encode(3, 5, Stamp::from_secs(9), b"a commit");
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(3, &flipped).is_none(), "byte {at} bit {bit}");
            }
            assert!(read(3, &frame[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn frames_behind_damage_are_found() {
        let frames: Vec<Vec<u8>> = (1..=5).map(|n| encode(3, n, Stamp::from_secs(n), &vec![n as u8; 100 * n as usize])).collect();
        let mut bytes = frames.concat();
        let damaged_at = frames[0].len();
        bytes[damaged_at + 40] ^= 1;
        bytes.extend(b"CMLG torn");
        let found: Vec<u64> = pieces(3, &bytes)
            .iter()
            .map(|piece| match piece {
                Piece::Frame(_, frame) => frame.sequence,
                Piece::Rubbish(at, rubbish) => 1_000 + at + rubbish.len() as u64,
            })
            .collect();
        let end = bytes.len() as u64;
        assert_eq!(found, [1, 1_000 + (damaged_at + frames[1].len()) as u64, 3, 4, 5, 1_000 + end]);
    }

    #[test]
    fn a_frame_that_a_client_sent_does_not_pass_for_one() {
        // The client knows everything but the salt. The frame around its report is torn, so that the inner one is looked at.
        let forged = encode(0, 7, Stamp::from_secs(9), b"forged");
        let torn = &encode(0x5eed, 6, Stamp::from_secs(8), &forged)[1..];
        assert!(pieces(0x5eed, torn).iter().all(|piece| matches!(piece, Piece::Rubbish(..))));
        assert!(pieces(0, torn).iter().any(|piece| matches!(piece, Piece::Frame(..))), "the test sees what it guards against");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body in prop::collection::vec(any::<u8>(), 0..2_000), salt: u32, sequence: u64, stamp: u64) {
            let bytes = encode(salt, sequence, Stamp::from_micros(stamp), &body);
            let frame = read(salt, &bytes).expect("its own encoding");
            prop_assert_eq!((frame.sequence, frame.stamp.micros(), frame.bytes.len()), (sequence, stamp, bytes.len()));
            let read_body = frame.body().expect("its own body");
            prop_assert_eq!(read_body.as_ref(), body.as_slice());
            let other = frame.with_salt(salt ^ 1);
            prop_assert!(read(salt, &other).is_none());
            prop_assert!(read(salt ^ 1, &other).expect("salted anew").same(&frame));
        }

        #[test]
        fn arbitrary_bytes_are_cut_without_a_gap(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300, count in 0usize..3) {
            for n in 0..count {
                let at = (at + n * 40).min(bytes.len());
                bytes.splice(at..at, encode(1, n as u64, Stamp::ZERO, b"x"));
            }
            let mut end = 0;
            for piece in pieces(1, &bytes) {
                let (offset, piece) = match piece {
                    Piece::Frame(offset, frame) => (offset, frame.bytes),
                    Piece::Rubbish(offset, rubbish) => (offset, rubbish),
                };
                prop_assert_eq!(offset as usize, end);
                end += piece.len();
            }
            prop_assert_eq!(end, bytes.len());
        }
    }
}
