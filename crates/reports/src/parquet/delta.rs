//! Whole numbers that are kept as differences (DELTA_BINARY_PACKED): a block says the least of its differences, and how many bits the
//! rest of each takes. (Format: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.)

use super::pages::varint;

/// Hands over so many numbers, and how often each comes at once; returns what comes behind them, `None` where the bytes do not say that.
pub(super) fn numbers(mut bytes: &[u8], count: usize, mut take: impl FnMut(i64, usize)) -> Option<&[u8]> {
    let (block, parts, total) = (varint(&mut bytes)?, varint(&mut bytes)?, varint(&mut bytes)?);
    let mut number = signed(varint(&mut bytes)?);
    if total != count as u64 || block == 0 || block % 128 != 0 || parts == 0 || block % parts != 0 || block / parts % 32 != 0 {
        return None;
    }
    let (parts, of_part) = (usize::try_from(parts).ok()?, usize::try_from(block / parts).ok()?);
    if count > 0 {
        take(number, 1);
    }
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let least = signed(varint(&mut bytes)?);
        let (widths, rest) = bytes.split_at_checked(parts)?;
        bytes = rest;
        for width in widths {
            // What a last block does not need of its parts is not there.
            if left == 0 {
                break;
            }
            let width = usize::from(*width);
            if width > 64 {
                return None;
            }
            let (packed, rest) = bytes.split_at_checked(of_part.checked_mul(width)? / 8)?;
            bytes = rest;
            let within = left.min(of_part);
            left -= within;
            if width == 0 && least == 0 {
                take(number, within);
                continue;
            }
            for at in 0..within {
                number = number.wrapping_add(least).wrapping_add(bits(packed, at * width, width) as i64);
                take(number, 1);
            }
        }
    }
    Some(bytes)
}

/// Small numbers of either sign have small codes.
fn signed(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

/// So many bits from a place, at most 64.
#[inline]
pub(super) fn bits(packed: &[u8], from: usize, width: usize) -> u64 {
    if width == 0 {
        return 0;
    }
    let (byte, bit) = (from / 8, from % 8);
    let word = match packed.get(byte..).and_then(<[u8]>::first_chunk::<16>) {
        Some(word) => u128::from_le_bytes(*word),
        None => packed[byte..].iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte)),
    };
    (word >> bit) as u64 & (u64::MAX >> (64 - width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::basic::Encoding;
    use ::parquet::column::page::Page;
    use ::parquet::data_type::Int64Type;
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn read(bytes: &[u8], count: usize) -> Option<(Vec<i64>, &[u8])> {
        let mut found = Vec::new();
        let rest = numbers(bytes, count, |number, times| found.extend(std::iter::repeat_n(number, times)))?;
        Some((found, rest))
    }

    /// Pages of numbers as the crate writes them, each with how many it has.
    fn pages(numbers: &[i64], rows_of_page: usize) -> Vec<(Bytes, usize)> {
        let schema = Arc::new(parse_message_type("message m { required int64 n; }").expect("a schema"));
        let how = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BINARY_PACKED);
        let how = how.set_data_page_row_count_limit(rows_of_page).set_write_batch_size(1).build();
        let mut file = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(how)).expect("a writer");
        let mut group = writer.next_row_group().expect("a row group");
        let mut column = group.next_column().expect("no error").expect("a column");
        column.typed::<Int64Type>().write_batch(numbers, None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
        let reader = SerializedFileReader::new(Bytes::from(file)).expect("a reader");
        let mut pages = reader.get_row_group(0).and_then(|group| group.get_column_page_reader(0)).expect("pages");
        let next = || match pages.get_next_page().expect("a page")? {
            Page::DataPage { buf, num_values, encoding: Encoding::DELTA_BINARY_PACKED, .. } => Some((buf, num_values as usize)),
            _ => panic!("another page"),
        };
        std::iter::from_fn(next).collect()
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_another_program_writes_them(
            runs in prop::collection::vec((prop_oneof![any::<i64>(), -9..9i64, 0..1i64 << 40], 1..90usize), 1..12), rows in 1..400usize,
        ) {
            let written: Vec<i64> = runs.iter().flat_map(|(number, times)| std::iter::repeat_n(*number, *times)).collect();
            let mut found = Vec::new();
            for (page, count) in pages(&written, rows) {
                let (numbers, rest) = read(&page, count).expect("as it is written");
                prop_assert!(rest.is_empty());
                found.extend(numbers);
                for cut in 0..page.len() {
                    prop_assert_eq!(read(&page[..cut], count), None);
                }
            }
            prop_assert_eq!(found, written);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0..200usize) {
            for head in [&[][..], &[128, 1, 4], &[128, 1, 4, (count & 127) as u8, 0]] {
                read(&[head, &bytes].concat(), count & 127);
            }
        }
    }

    #[test]
    fn a_block_is_as_the_format_says() {
        // 128 numbers a block in 4 parts, 5 of them, the first 7; differences from -2 on in 2 bits: 3, 0, 1, 2.
        let bytes = [128, 1, 4, 5, 14, 3, 2, 0, 0, 0, 0b1001_0011, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(read(&bytes, 5), Some((vec![7, 8, 6, 5, 5], &[9][..])));
        for (count, bytes) in [
            (4, &bytes[..]),
            (5, &bytes[..17]),
            (1, &[0, 4, 1, 14]),
            (1, &[128, 1, 0, 1, 14]),
            (1, &[128, 1, 3, 1, 14]),
            (1, &[128, 1, 8, 1, 14]),
            (1, &[100, 4, 1, 14]),
            (2, &[128, 1, 4, 2, 14, 0, 65, 0, 0, 0]),
        ] {
            assert_eq!(read(bytes, count), None, "{count} of {bytes:?}");
        }
        assert_eq!(read(&[128, 1, 4, 0, 0, 9], 0), Some((vec![], &[9][..])));
    }
}
