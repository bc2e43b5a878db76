//! Pages of text as codes of a dictionary: each text of a page's own dictionary is looked up once, and rows get their codes
//! without a text of their own. Reads only what `write` writes: first versions of pages, one level of presence.
//! (Format: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.)

use super::damaged;
use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageReader};
use ::parquet::errors::Result as ParquetResult;
use bytes::Bytes;
use columns::{Bits, Dictionary, MISSING};

/// Puts the codes of a column's texts into the rows that have one; the others stay as they are. Of rows that are not `wanted` none
/// is looked up.
pub(super) fn codes(pages: &mut dyn PageReader, dictionary: &Dictionary, wanted: Option<&Bits>, codes: &mut [u32]) -> ParquetResult<()> {
    let (mut words, mut from) = (Words::default(), 0);
    while let Some(page) = pages.get_next_page()? {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                words = Words::read(&buf, num_values as usize).ok_or_else(|| damaged("a page of texts is not as it is written"))?;
                if wanted.is_none() {
                    words.look_up(dictionary, 0..num_values).ok_or_else(|| damaged("a text is not UTF-8"))?;
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

impl DataPage<'_> {
    fn read(&self, words: &mut Words, dictionary: &Dictionary, rows: &mut [u32]) -> Option<()> {
        let (length, rest) = self.buf.split_first_chunk::<4>()?;
        let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let present = present(levels, rows.len())?;
        let count = present.as_ref().map_or(rows.len(), Vec::len);
        // The row of each value.
        let row_of = |value: usize| present.as_ref().map_or(value, |present| present[value] as usize);
        let is_wanted = |value: &usize| self.wanted.is_none_or(|wanted| wanted.has(self.from + row_of(*value)));
        match self.encoding {
            Encoding::PLAIN => {
                let (mut asked, mut found) = (Vec::new(), Vec::new());
                for (value, text) in texts(values, count).enumerate() {
                    if is_wanted(&value) {
                        asked.push(row_of(value));
                        found.push(str::from_utf8(text?).ok()?);
                    } else {
                        text?;
                    }
                }
                asked.iter().zip(dictionary.intern_texts(&found)).for_each(|(row, code)| rows[*row] = code);
            }
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                let places = match values.split_first() {
                    Some((width, places)) => expand(places, *width, count)?,
                    None if count == 0 => Vec::new(),
                    None => return None,
                };
                let asked: Vec<usize> = (0..count).filter(is_wanted).collect();
                words.look_up(dictionary, asked.iter().map(|value| places[*value]))?;
                asked.iter().for_each(|value| rows[row_of(*value)] = words.codes[places[*value] as usize]);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The texts of a column chunk's own dictionary.
#[derive(Default)]
struct Words {
    texts: Vec<Bytes>,
    /// `MISSING`: not looked up yet.
    codes: Vec<u32>,
}

impl Words {
    fn read(page: &Bytes, count: usize) -> Option<Words> {
        let texts: Option<Vec<Bytes>> = texts(page, count).map(|text| Some(page.slice_ref(text?))).collect();
        Some(Words { texts: texts?, codes: vec![MISSING; count] })
    }

    /// Sees to it that these have their codes; `None` when there is no such text.
    fn look_up(&mut self, dictionary: &Dictionary, places: impl Iterator<Item = u32>) -> Option<()> {
        let mut asked = Vec::new();
        for place in places {
            if *self.codes.get(place as usize)? == MISSING {
                self.codes[place as usize] = u32::MAX;
                asked.push(place as usize);
            }
        }
        let texts: Option<Vec<&str>> = asked.iter().map(|place| str::from_utf8(&self.texts[*place]).ok()).collect();
        let codes = dictionary.intern_texts(&texts?);
        asked.iter().zip(codes).for_each(|(place, code)| self.codes[*place] = code);
        Some(())
    }
}

/// So many texts that lie one behind the other, each after its length; `None` for one that is not there.
fn texts(mut bytes: &[u8], count: usize) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::repeat_with(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(text)
    })
    .take(count)
}

/// The rows that have a value; `None` within: all of them.
fn present(levels: &[u8], rows: usize) -> Option<Option<Vec<u32>>> {
    let mut rest = levels;
    // Mostly one run says so.
    if varint(&mut rest)? == (rows as u64) << 1 && rest == [1] {
        return Some(None);
    }
    let levels = expand(levels, 1, rows)?;
    Some(Some(levels.into_iter().zip(0..).filter(|(level, _)| *level == 1).map(|(_, row)| row).collect()))
}

/// Numbers in runs of one value and stretches of `width` bits each; `None` where the bytes do not say that.
fn expand(mut bytes: &[u8], width: u8, count: usize) -> Option<Vec<u32>> {
    let width = usize::from(width);
    if width > 32 {
        return None;
    }
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let head = varint(&mut bytes)?;
        let wanted = count - numbers.len();
        if head & 1 == 0 {
            let (value, rest) = bytes.split_at_checked(width.div_ceil(8))?;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            numbers.extend(std::iter::repeat_n(value, wanted.min((head >> 1) as usize)));
            if head == 0 {
                return None;
            }
            bytes = rest;
        } else {
            let groups = (head >> 1) as usize;
            let (packed, rest) = bytes.split_at_checked(groups.checked_mul(width)?)?;
            unpack(packed, width, wanted.min(groups * 8), &mut numbers);
            if groups == 0 {
                return None;
            }
            bytes = rest;
        }
    }
    Some(numbers)
}

fn unpack(packed: &[u8], width: usize, count: usize, into: &mut Vec<u32>) {
    let mask = (1u64 << width) - 1;
    let number = |at: usize| {
        let (byte, bit) = (at * width / 8, at * width % 8);
        let word = match packed.get(byte..).and_then(<[u8]>::first_chunk::<8>) {
            Some(word) => u64::from_le_bytes(*word),
            None => packed[byte..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        (word >> bit & mask) as u32
    };
    into.extend((0..count).map(number));
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
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
            assert_eq!(expand(bytes, width, count), numbers, "{bytes:?} in {width} bits");
        }
    }
}
