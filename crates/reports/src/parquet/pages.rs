//! Pages of text as codes of a dictionary: each text of a page's own dictionary is looked up once, and rows get their codes
//! without a text of their own. Reads only what `write` writes: first versions of pages, one level of presence.
//! (Format: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.)

use super::damaged;
use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageReader};
use ::parquet::errors::Result as ParquetResult;
use columns::Dictionary;
use model::Value;

/// Puts the codes of a column's texts into the rows that have one; the others stay as they are.
pub(super) fn codes(pages: &mut dyn PageReader, dictionary: &Dictionary, codes: &mut [u32]) -> ParquetResult<()> {
    let (mut words, mut from) = (Vec::new(), 0);
    while let Some(page) = pages.get_next_page()? {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => words = intern(&buf, num_values as usize, dictionary)?,
            Page::DataPage { buf, num_values, encoding, .. } => {
                let rows = codes.get_mut(from..from + num_values as usize).ok_or_else(|| damaged("a column is too long"))?;
                from += num_values as usize;
                data_page(&buf, encoding, &words, dictionary, rows).ok_or_else(|| damaged("a page is not as it is written"))?;
            }
            Page::DataPageV2 { .. } => return Err(damaged("a page is of a version that is not written").into()),
        }
    }
    if from == codes.len() { Ok(()) } else { Err(damaged("a column is too short").into()) }
}

/// A page is the length of the levels, the levels, the values.
fn data_page(page: &[u8], encoding: Encoding, words: &[u32], dictionary: &Dictionary, rows: &mut [u32]) -> Option<()> {
    let (length, rest) = page.split_first_chunk::<4>()?;
    let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let levels = expand(levels, 1, rows.len())?;
    let count = levels.iter().filter(|level| **level == 1).count();
    let present = rows.iter_mut().zip(&levels).filter(|(_, level)| **level == 1).map(|(row, _)| row);
    match encoding {
        Encoding::PLAIN => present.zip(intern(values, count, dictionary).ok()?).for_each(|(row, code)| *row = code),
        Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
            let places = match values.split_first() {
                Some((width, places)) => expand(places, *width, count)?,
                None if count == 0 => Vec::new(),
                None => return None,
            };
            for (row, place) in present.zip(places) {
                *row = *words.get(place as usize)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The codes of texts that lie one behind the other, each after its length.
fn intern(texts: &[u8], count: usize, dictionary: &Dictionary) -> ParquetResult<Vec<u32>> {
    let mut left = texts;
    let mut next = || {
        let (length, rest) = left.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        left = rest;
        Some(Value::Text(str::from_utf8(text).ok()?.to_owned()))
    };
    let values: Option<Vec<Value>> = (0..count).map(|_| next()).collect();
    Ok(dictionary.intern_all(values.ok_or_else(|| damaged("a page of texts is not as it is written"))?.iter()))
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
    let (mut bits, mut held, mut bytes) = (0u64, 0, packed.iter());
    let mask = (1u64 << width) - 1;
    for _ in 0..count {
        while held < width {
            bits |= u64::from(*bytes.next().expect("a group of eight has as many bytes as bits each")) << held;
            held += 8;
        }
        into.push((bits & mask) as u32);
        bits >>= width;
        held -= width;
    }
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
