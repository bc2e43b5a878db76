//! Pages read without a value of its own for each row: numbers as they are, texts as codes of a dictionary, of which each in a page's
//! own dictionary is looked up once. Reads only what `write` writes, or did: first versions of pages, one level of presence.
//! (Format: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.)

use super::delta::bits;
use super::{damaged, delta};
use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageReader};
use ::parquet::errors::Result as ParquetResult;
use bytes::Bytes;
use columns::{Bits, Dictionary, MISSING};

/// The whole numbers of a column that has one in every row and keeps them as differences.
pub(super) fn numbers(pages: &mut dyn PageReader, rows: usize) -> ParquetResult<Vec<u64>> {
    let mut numbers = Vec::with_capacity(rows);
    while let Some(page) = pages.get_next_page()? {
        let Page::DataPage { buf, num_values, encoding: Encoding::DELTA_BINARY_PACKED, .. } = page else {
            return Err(damaged("a page of numbers is not as it is written").into());
        };
        if num_values as usize > rows - numbers.len() {
            return Err(damaged("a column is too long").into());
        }
        delta::numbers(&buf, num_values as usize, |number, times| numbers.extend(std::iter::repeat_n(number as u64, times)))
            .ok_or_else(|| damaged("a page of numbers is not as it is written"))?;
    }
    if numbers.len() == rows { Ok(numbers) } else { Err(damaged("a column is too short").into()) }
}

/// Texts looked up at one time: what that takes in memory is used again and again.
const BATCH: usize = 4_096;

/// Puts the codes of a column's texts into the rows that have one; the others stay as they are. Of rows that are not `wanted` none
/// is looked up.
pub(super) fn codes(pages: &mut dyn PageReader, dictionary: &Dictionary, wanted: Option<&Bits>, codes: &mut [u32]) -> ParquetResult<()> {
    let (mut words, mut from) = (Words::default(), 0);
    while let Some(page) = pages.get_next_page()? {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                words = Words::read(buf, num_values as usize).ok_or_else(|| damaged("a page of texts is not as it is written"))?;
                if wanted.is_none() {
                    words.look_up_all(dictionary).ok_or_else(|| damaged("a text is not UTF-8"))?;
                }
            }
            Page::DataPage { buf, num_values, encoding, .. } => {
                let rows = codes.get_mut(from..from + num_values as usize).ok_or_else(|| damaged("a column is too long"))?;
                let page = DataPage { from, buf, encoding, wanted };
                page.read(&mut words, dictionary, rows).ok_or_else(|| damaged("a page is not as it is written"))?;
                from += num_values as usize;
            }
            Page::DataPageV2 { .. } => return Err(damaged("a page is of a version that is not written").into()),
        }
    }
    if from == codes.len() { Ok(()) } else { Err(damaged("a column is too short").into()) }
}

/// The length of the levels, the levels, the values.
struct DataPage<'w> {
    /// Its first row.
    from: usize,
    buf: Bytes,
    encoding: Encoding,
    wanted: Option<&'w Bits>,
}

/// Where a value is among those of a page, and its row there.
type Asked = (u32, u32);

impl DataPage<'_> {
    fn read(&self, words: &mut Words, dictionary: &Dictionary, rows: &mut [u32]) -> Option<()> {
        let (length, rest) = self.buf.split_first_chunk::<4>()?;
        let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let present = present(levels, rows.len())?;
        let count = present.as_ref().map_or(rows.len(), Vec::len);
        let asked = || self.asked(rows.len(), present.as_deref());
        match self.encoding {
            Encoding::PLAIN | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                let is_plain = self.encoding == Encoding::PLAIN;
                let texts = if is_plain { Texts::one_by_one(values, count)? } else { Texts::after_lengths(values, count)? };
                for asked in asked().chunks(BATCH) {
                    let codes = texts.codes(values, asked.iter().map(|(value, _)| *value), dictionary)?;
                    asked.iter().zip(codes).for_each(|((_, row), code)| rows[*row as usize] = code);
                }
            }
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                let (width, places) = match values.split_first() {
                    Some((width, places)) => (*width, places),
                    None if count == 0 => return Some(()),
                    None => return None,
                };
                if self.wanted.is_none() && present.is_none() {
                    // Mostly all is asked for, and all of it is there.
                    expand(places, width, rows)?;
                    for row in rows {
                        *row = *words.codes.get(*row as usize)?;
                    }
                    return Some(());
                }
                let mut place_of = vec![0; count];
                expand(places, width, &mut place_of)?;
                let asked = asked();
                words.look_up(dictionary, asked.iter().map(|(value, _)| place_of[*value as usize]))?;
                asked.iter().for_each(|(value, row)| rows[*row as usize] = words.codes[place_of[*value as usize] as usize]);
            }
            _ => return None,
        }
        Some(())
    }

    /// What is wanted of the values, ascending.
    fn asked(&self, rows: usize, present: Option<&[u32]>) -> Vec<Asked> {
        let is_wanted = |row: u32| self.wanted.is_none_or(|wanted| wanted.has(self.from + row as usize));
        match (present, self.wanted) {
            (None, None) => (0..rows as u32).map(|row| (row, row)).collect(),
            (None, Some(wanted)) => {
                let rows = wanted.within(self.from..self.from + rows).map(|row| (row - self.from) as u32);
                rows.map(|row| (row, row)).collect()
            }
            (Some(present), _) => (0..).zip(present.iter().copied()).filter(|(_, row)| is_wanted(*row)).collect(),
        }
    }
}

/// The texts of a column chunk's own dictionary.
#[derive(Default)]
struct Words {
    page: Bytes,
    texts: Texts,
    /// `MISSING`: not looked up yet.
    codes: Vec<u32>,
}

impl Words {
    fn read(page: Bytes, count: usize) -> Option<Words> {
        let texts = Texts::one_by_one(&page, count)?;
        Some(Words { page, texts, codes: vec![MISSING; count] })
    }

    /// Sees to it that all have their codes; `None` when one is not UTF-8.
    fn look_up_all(&mut self, dictionary: &Dictionary) -> Option<()> {
        for (codes, first) in self.codes.chunks_mut(BATCH).zip((0..).step_by(BATCH)) {
            let found = self.texts.codes(&self.page, first..first + codes.len() as u32, dictionary)?;
            codes.copy_from_slice(&found);
        }
        Some(())
    }

    /// Sees to it that these have their codes; `None` when there is no such text.
    fn look_up(&mut self, dictionary: &Dictionary, places: impl Iterator<Item = u32>) -> Option<()> {
        let mut asked = Vec::new();
        for place in places {
            if *self.codes.get(place as usize)? == MISSING {
                self.codes[place as usize] = u32::MAX;
                asked.push(place);
            }
        }
        for asked in asked.chunks(BATCH) {
            let codes = self.texts.codes(&self.page, asked.iter().copied(), dictionary)?;
            asked.iter().zip(codes).for_each(|(place, code)| self.codes[*place as usize] = code);
        }
        Some(())
    }
}

/// Where texts are in some bytes.
#[derive(Default)]
struct Texts {
    /// Where each begins, and where one more would.
    starts: Vec<u32>,
    /// Bytes between the end of one and the beginning of the next.
    between: u32,
}

impl Texts {
    /// So many texts, each after its length.
    fn one_by_one(bytes: &[u8], count: usize) -> Option<Texts> {
        let mut starts = Vec::with_capacity(count + 1);
        let mut start = 4u32;
        starts.push(start);
        for _ in 0..count {
            let length = bytes.get(start as usize - 4..)?.first_chunk::<4>()?;
            start = start.checked_add(u32::from_le_bytes(*length))?;
            if start as usize > bytes.len() {
                return None;
            }
            start = start.checked_add(4)?;
            starts.push(start);
        }
        Some(Texts { starts, between: 4 })
    }

    /// The lengths of so many texts, then these, nothing between them and nothing behind.
    fn after_lengths(bytes: &[u8], count: usize) -> Option<Texts> {
        let mut starts = Vec::with_capacity(count + 1);
        starts.push(0);
        let mut start = Some(0u32);
        let letters = delta::numbers(bytes, count, |length, times| {
            let length = u32::try_from(length).ok();
            // The last start is the greatest, and one beyond 32 bits is beyond the bytes.
            let last = length.zip(u32::try_from(times).ok()).and_then(|(length, times)| start?.checked_add(length.checked_mul(times)?));
            if let (Some(start), Some(length), Some(_)) = (start, length, last) {
                starts.extend((1..=times as u32).map(|times| start + length * times));
            }
            start = last;
        })?;
        let first = u32::try_from(bytes.len() - letters.len()).ok()?;
        if start? as usize != letters.len() || u32::try_from(bytes.len()).is_err() {
            return None;
        }
        starts.iter_mut().for_each(|start| *start += first);
        Some(Texts { starts, between: 0 })
    }

    /// The codes of some texts; `None` when one is not there, or not UTF-8.
    fn codes(&self, bytes: &[u8], places: impl ExactSizeIterator<Item = u32>, dictionary: &Dictionary) -> Option<Vec<u32>> {
        let mut texts = Vec::with_capacity(places.len());
        for place in places {
            texts.push(self.get(bytes, place)?);
        }
        Some(dictionary.intern_texts(&texts))
    }

    /// A text; `None` when there is no such one, or it is not UTF-8.
    fn get<'b>(&self, bytes: &'b [u8], at: u32) -> Option<&'b str> {
        let [start, next] = self.starts.get(at as usize..)?.first_chunk::<2>()?;
        str::from_utf8(bytes.get(*start as usize..next.checked_sub(self.between)? as usize)?).ok()
    }
}

/// The rows that have a value; `None` within: all of them.
fn present(levels: &[u8], rows: usize) -> Option<Option<Vec<u32>>> {
    let mut rest = levels;
    // Mostly one run says so.
    if varint(&mut rest)? == (rows as u64) << 1 && rest == [1] {
        return Some(None);
    }
    let mut expanded = vec![0; rows];
    expand(levels, 1, &mut expanded)?;
    Some(Some(expanded.into_iter().zip(0..).filter(|(level, _)| *level == 1).map(|(_, row)| row).collect()))
}

/// Numbers in runs of one value and stretches of `width` bits each; `None` where the bytes do not say that.
fn expand(mut bytes: &[u8], width: u8, mut into: &mut [u32]) -> Option<()> {
    let width = usize::from(width);
    if width > 32 {
        return None;
    }
    while !into.is_empty() {
        let head = varint(&mut bytes)?;
        let length = usize::try_from(head >> 1).ok().filter(|length| *length > 0)?;
        let taken = if head & 1 == 0 {
            let (value, rest) = bytes.split_at_checked(width.div_ceil(8))?;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            let taken = length.min(into.len());
            into[..taken].fill(value);
            bytes = rest;
            taken
        } else {
            let (packed, rest) = bytes.split_at_checked(length.checked_mul(width)?)?;
            let taken = length.saturating_mul(8).min(into.len());
            unpack(packed, width, &mut into[..taken]);
            bytes = rest;
            taken
        };
        into = &mut into[taken..];
    }
    Some(())
}

/// Numbers of `width` bits each; eight of them are as many bytes.
fn unpack(packed: &[u8], width: usize, into: &mut [u32]) {
    let mask = (1u64 << width) - 1;
    let word = |byte: usize| match packed.get(byte..).and_then(<[u8]>::first_chunk::<8>) {
        Some(word) => u64::from_le_bytes(*word),
        None => packed[byte..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    let (eights, rest) = into.as_chunks_mut::<8>();
    let whole = eights.len();
    for (at, eight) in eights.iter_mut().enumerate() {
        if width <= 16 {
            // Four are within eight bytes, also when the first begins in the middle of a byte.
            let (low, high) = (word(at * width), word(at * width + width / 2) >> (width % 2 * 4));
            let (first, second) = eight.split_at_mut(4);
            first.iter_mut().enumerate().for_each(|(at, number)| *number = (low >> (at * width) & mask) as u32);
            second.iter_mut().enumerate().for_each(|(at, number)| *number = (high >> (at * width) & mask) as u32);
        } else {
            eight.iter_mut().zip(at * 8..).for_each(|(number, at)| *number = bits(packed, at * width, width) as u32);
        }
    }
    rest.iter_mut().zip(whole * 8..).for_each(|(number, at)| *number = bits(packed, at * width, width) as u32);
}

/// A number in sevens of bits, the lowest first; what is beyond 64 of them is lost.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_and_stretches_are_the_numbers_that_the_format_says() {
        for (bytes, width, count, numbers) in [
            // The format's own example: 0 to 7 in three bits each.
            (&[0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010][..], 3, 8, Some(vec![0, 1, 2, 3, 4, 5, 6, 7])),
            (&[3 << 1, 5], 3, 3, Some(vec![5; 3])),
            (&[3 << 1, 5], 3, 2, Some(vec![5; 2])),
            (&[2 << 1, 0x34, 0x12], 13, 2, Some(vec![0x1234; 2])),
            (&[2 << 1, 1, 0b11, 0b0000_0101], 1, 5, Some(vec![1, 1, 1, 0, 1])),
            (&[0xc8, 0x01, 1], 1, 100, Some(vec![1; 100])),
            (&[2 << 1], 0, 2, Some(vec![0; 2])),
            (&[], 3, 0, Some(vec![])),
            (&[], 3, 1, None),
            (&[3 << 1], 3, 1, None),
            (&[0b11, 0], 3, 1, None),
            (&[0, 0, 0], 1, 1, None),
            (&[1, 0, 0], 1, 1, None),
            (&[2, 0], 33, 1, None),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1, 1, None),
        ] {
            let mut into = vec![0; count];
            assert_eq!(expand(bytes, width, &mut into).map(|()| into), numbers, "{bytes:?} in {width} bits");
        }
    }

    proptest! {
        /// Against numbers put together bit by bit.
        #[test]
        fn numbers_of_every_width_are_told_apart(
            width in 0..=32u8, groups in 1..20usize, less in 0..8usize, seed in prop::collection::vec(any::<u32>(), 160),
        ) {
            let mask = ((1u64 << width) - 1) as u32;
            let numbers: Vec<u32> = seed[..groups * 8].iter().map(|number| number & mask).collect();
            let mut packed = vec![0u8; groups * usize::from(width)];
            for (at, number) in numbers.iter().enumerate() {
                for bit in (0..usize::from(width)).filter(|bit| number >> bit & 1 == 1) {
                    let place = at * usize::from(width) + bit;
                    packed[place / 8] |= 1 << (place % 8);
                }
            }
            let mut into = vec![0; groups * 8 - less];
            let bytes = [&[(groups << 1 | 1) as u8], &packed[..]].concat();
            prop_assert_eq!(expand(&bytes, width, &mut into), Some(()));
            prop_assert_eq!(&into, &numbers[..into.len()]);
        }

        /// And where bytes say nothing there is no panic, and what is found is within them.
        #[test]
        fn texts_are_found_where_they_are(texts in prop::collection::vec(".{0,9}", 1..200), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let plain: Vec<u8> = texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()).collect();
            let found = Texts::one_by_one(&plain, texts.len()).expect("texts");
            let all = (0..texts.len() as u32 + 1).map(|at| found.get(&plain, at));
            prop_assert!(all.eq(texts.iter().map(|text| Some(text.as_str())).chain([None])));
            prop_assert!(Texts::one_by_one(&plain, texts.len() + 1).is_none());
            for count in 0..70 {
                for found in [Texts::one_by_one(&bytes, count), Texts::after_lengths(&bytes, count)].into_iter().flatten() {
                    (0..count as u32 + 1).for_each(|at| _ = found.get(&bytes, at));
                }
            }
        }
    }

    #[test]
    fn texts_stand_behind_their_lengths() {
        // Three lengths, the first 1, differences from -1 on in 2 bits: 2, 0.
        let lengths = [128, 1, 4, 3, 2, 1, 2, 0, 0, 0, 0b0010, 0, 0, 0, 0, 0, 0, 0];
        let bytes = [&lengths[..], "xäz".as_bytes()].concat();
        let found = Texts::after_lengths(&bytes, 3).expect("texts");
        assert_eq!([0, 1, 2, 3].map(|at| found.get(&bytes, at)), [Some("x"), Some("ä"), Some("z"), None]);
        assert!(Texts::after_lengths(&bytes[..bytes.len() - 1], 3).is_none());
        assert!(Texts::after_lengths(&[&bytes[..], b"y"].concat(), 3).is_none());
        let torn = [&lengths[..], "äxz".as_bytes()].concat();
        assert_eq!(Texts::after_lengths(&torn, 3).expect("texts").get(&torn, 0), None, "half a letter");
        // Forty of two letters each: one length, and no differences.
        let letters: String = (10..50).map(|n| n.to_string()).collect();
        let bytes = [&[128, 1, 4, 40, 4, 0, 0, 0, 0, 0], letters.as_bytes()].concat();
        let found = Texts::after_lengths(&bytes, 40).expect("texts");
        assert!((0..40).all(|at| found.get(&bytes, at) == Some(&(at + 10).to_string())));
        // A length below nothing.
        assert!(Texts::after_lengths(&[128, 1, 4, 1, 1, b'x'], 1).is_none());
    }
}
