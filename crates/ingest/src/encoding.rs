//! Content-Encoding: gzip, deflate and zstd, one layer, inflated into a vector that cannot outgrow the limits.
//!
//! A body has to be one whole stream: cut short, damaged or followed by anything else it is refused, because what was
//! acknowledged must be what was sent.

use crate::{Limits, Reason, Rejection};
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use std::borrow::Cow;
use std::io::{self, Read};

const FIELD: &str = "Content-Encoding";

/// Bytes inflated between two looks at the limits.
const STEP_BYTES: usize = 64 << 10;

/// RFC 9659: a zstd body sent over HTTP uses a window of at most 8 MiB, 2^23 bytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Undoes a Content-Encoding: `gzip`, `deflate` or `zstd`, one layer; `identity` or nothing borrows the body as it is.
///
/// # Errors
/// 415 for other encodings and for several at once, 413 for a body that inflates too far, 400 for one that is damaged.
pub fn inflate<'a>(encoding: &str, body: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, Rejection> {
    let bound = Bound::of(body.len(), limits);
    let inflated = match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => {
            bound.check(body.len())?;
            return Ok(Cow::Borrowed(body));
        }
        "gzip" | "x-gzip" => gzip(body, bound)?,
        "deflate" => deflate(body, bound)?,
        "zstd" => zstd(body, bound)?,
        _ => {
            return Err(Rejection::new(Reason::UnsupportedEncoding, FIELD, "must be gzip, deflate or zstd, and only one of them"));
        }
    };
    Ok(Cow::Owned(inflated))
}

fn gzip(body: &[u8], bound: Bound) -> Result<Vec<u8>, Rejection> {
    let mut decoder = GzDecoder::new(body);
    let inflated = read_bounded(&mut decoder, bound)?;
    whole(decoder.into_inner())?;
    Ok(inflated)
}

/// HTTP's `deflate` is a zlib stream (RFC 9110, 8.4.1.2), but some clients send the bare deflate stream inside it.
///
/// flate2's readers take a stream that stops early for one that has ended, so this drives the decompressor itself.
fn deflate(body: &[u8], bound: Bound) -> Result<Vec<u8>, Rejection> {
    let mut decoder = Decompress::new(has_zlib_header(body));
    let mut inflated = Vec::new();
    loop {
        let before = (decoder.total_in(), decoder.total_out());
        inflated.reserve(STEP_BYTES);
        let rest = &body[before.0 as usize..];
        let status = decoder.decompress_vec(rest, &mut inflated, FlushDecompress::None).map_err(|_| damaged())?;
        bound.check(inflated.len())?;
        if status == Status::StreamEnd {
            whole(&body[decoder.total_in() as usize..])?;
            return Ok(inflated);
        }
        if (decoder.total_in(), decoder.total_out()) == before {
            return Err(damaged());
        }
    }
}

/// RFC 1950, 2.2: method 8 in the low half of the first byte, and both bytes together a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

fn zstd(body: &[u8], bound: Bound) -> Result<Vec<u8>, Rejection> {
    let mut rest = body;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut rest).map_err(|_| damaged())?.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| damaged())?;
    let inflated = read_bounded(&mut decoder, bound)?;
    whole(decoder.finish())?;
    Ok(inflated)
}

fn read_bounded(decoder: &mut impl Read, bound: Bound) -> Result<Vec<u8>, Rejection> {
    let mut inflated = Vec::new();
    loop {
        let read = decoder.by_ref().take(STEP_BYTES as u64).read_to_end(&mut inflated);
        // The bound comes first: a bomb with a damaged end is still a bomb.
        bound.check(inflated.len())?;
        match read {
            Ok(0) => return Ok(inflated),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(damaged()),
        }
    }
}

/// Refuses what follows the end of a stream. A second gzip member or zstd frame is refused too: no client sends one.
fn whole(rest: &[u8]) -> Result<(), Rejection> {
    if rest.is_empty() {
        return Ok(());
    }
    let detail = format!("{} bytes follow the end of the compressed stream", rest.len());
    Err(Rejection::new(Reason::MalformedEncoding, FIELD, detail))
}

fn damaged() -> Rejection {
    Rejection::new(Reason::MalformedEncoding, FIELD, "the body is damaged or cut short, or is not compressed in this way")
}

/// How large a body may get.
#[derive(Clone, Copy)]
struct Bound {
    bytes_max: usize,
    reason: Reason,
}

impl Bound {
    fn of(compressed_bytes: usize, limits: &Limits) -> Bound {
        let ratio_bytes = compressed_bytes.saturating_mul(limits.inflate_ratio).max(limits.inflate_free_bytes);
        if ratio_bytes < limits.total_bytes {
            Bound { bytes_max: ratio_bytes, reason: Reason::InflatesTooFar }
        } else {
            Bound { bytes_max: limits.total_bytes, reason: Reason::TooLarge }
        }
    }

    fn check(self, bytes: usize) -> Result<(), Rejection> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        let detail = format!("a body of this length may hold at most {} bytes once inflated", self.bytes_max);
        Err(Rejection::new(self.reason, "body", detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    const ENCODINGS: [&str; 4] = ["gzip", "zlib", "raw deflate", "zstd"];

    fn compress(encoding: &str, body: &[u8]) -> Vec<u8> {
        fn through<W: Write>(mut encoder: W, body: &[u8], finish: impl FnOnce(W) -> io::Result<Vec<u8>>) -> Vec<u8> {
            encoder.write_all(body).expect("a vector takes everything");
            finish(encoder).expect("a vector takes everything")
        }
        match encoding {
            "gzip" => through(GzEncoder::new(Vec::new(), Compression::best()), body, GzEncoder::finish),
            "zlib" => through(ZlibEncoder::new(Vec::new(), Compression::best()), body, ZlibEncoder::finish),
            "raw deflate" => through(DeflateEncoder::new(Vec::new(), Compression::best()), body, DeflateEncoder::finish),
            "zstd" => zstd::encode_all(body, 3).expect("a vector takes everything"),
            other => panic!("{other}"),
        }
    }

    fn header(encoding: &str) -> &str {
        if encoding.ends_with("deflate") || encoding == "zlib" { "deflate" } else { encoding }
    }

    fn reason(encoding: &str, body: &[u8]) -> Result<usize, Reason> {
        inflate(encoding, body, &Limits::DEFAULT).map(|body| body.len()).map_err(|rejection| rejection.reason)
    }

    #[test]
    fn one_layer_of_known_encodings_is_undone() {
        let body = b"{\"uuid\":\"7d7c1f5e\"}".repeat(20);
        for encoding in ENCODINGS {
            assert_eq!(inflate(header(encoding), &compress(encoding, &body), &Limits::DEFAULT).expect(encoding), body, "{encoding}");
            assert_eq!(inflate(header(encoding), &compress(encoding, b""), &Limits::DEFAULT).expect(encoding), &b""[..], "{encoding}");
        }
        assert_eq!(inflate(" GZip ", &compress("gzip", &body), &Limits::DEFAULT).expect("case does not matter"), body);
        assert!(matches!(inflate("identity", &body, &Limits::DEFAULT), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn several_layers_and_other_encodings_are_refused() {
        let body = compress("gzip", b"{}");
        for encoding in ["br", "gzip, gzip", "gzip,gzip,gzip", "compress", "gzip;q=1", "*"] {
            assert_eq!(reason(encoding, &body), Err(Reason::UnsupportedEncoding), "{encoding}");
        }
    }

    #[test]
    fn damaged_cut_and_continued_streams_are_refused() {
        let body: Vec<u8> = (0..5_000u32).flat_map(u32::to_le_bytes).collect();
        for encoding in ENCODINGS {
            let whole = compress(encoding, &body);
            for cut in [0, 1, 2, 5, whole.len() / 2, whole.len() - 1] {
                assert_eq!(reason(header(encoding), &whole[..cut]), Err(Reason::MalformedEncoding), "{encoding} cut to {cut}");
            }
            let garbage = [&whole[..], b"x"].concat();
            assert_eq!(reason(header(encoding), &garbage), Err(Reason::MalformedEncoding), "{encoding} and garbage");
            let twice = [&whole[..], &whole[..]].concat();
            assert_eq!(reason(header(encoding), &twice), Err(Reason::MalformedEncoding), "{encoding} twice");
            assert_eq!(reason(header(encoding), b"{\"uuid\":\"not compressed at all\"}"), Err(Reason::MalformedEncoding), "{encoding}");
        }
    }

    #[test]
    fn bombs_are_stopped_by_ratio_and_by_size() {
        let zeros = vec![0; 128 << 20];
        for encoding in ["gzip", "zlib", "zstd"] {
            let bomb = compress(encoding, &zeros);
            assert!(bomb.len() < 200 << 10, "{encoding} makes {}", bomb.len());
            assert_eq!(reason(header(encoding), &bomb), Err(Reason::InflatesTooFar), "{encoding}");
        }
        // Ratio 99, so only the size stops it.
        let limits = Limits { total_bytes: 1 << 20, ..Limits::DEFAULT };
        let mixed: Vec<u8> = (0..2u32 << 20).map(|n| if n % 64 == 0 { (n.wrapping_mul(2_654_435_761) >> 24) as u8 } else { 0 }).collect();
        let refused = inflate("gzip", &compress("gzip", &mixed), &limits).expect_err("2 MiB");
        assert_eq!((refused.status, refused.reason), (413, Reason::TooLarge));
        assert_eq!(inflate("", &mixed, &limits).expect_err("2 MiB").reason, Reason::TooLarge);
    }

    #[test]
    fn a_short_body_of_one_letter_is_no_bomb() {
        let zeros = vec![0; 64 << 10];
        assert_eq!(reason("gzip", &compress("gzip", &zeros)), Ok(64 << 10));
        assert_eq!(reason("gzip", &compress("gzip", &vec![0; (64 << 10) + 1])), Err(Reason::InflatesTooFar));
    }

    #[test]
    fn a_zstd_window_beyond_8_mib_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("level 3");
        encoder.window_log(27).expect("a legal window");
        encoder.long_distance_matching(true).expect("supported");
        encoder.include_contentsize(false).expect("supported");
        encoder.write_all(&[7; 100_000]).expect("a vector takes everything");
        let body = encoder.finish().expect("a vector takes everything");
        assert_eq!(reason("zstd", &body), Err(Reason::MalformedEncoding));
    }

    proptest! {
        #[test]
        fn inflating_gives_back_what_was_compressed(body in prop::collection::vec(any::<u8>(), 0..4_000), which in 0usize..4) {
            let compressed = compress(ENCODINGS[which], &body);
            prop_assert_eq!(inflate(header(ENCODINGS[which]), &compressed, &Limits::DEFAULT).expect("whole").into_owned(), body);
        }

        #[test]
        fn nothing_inflates_past_its_bound(mut body in prop::collection::vec(any::<u8>(), 0..400), letter in any::<u8>(), times in 0usize..40_000, which in 0usize..4) {
            body.extend(std::iter::repeat_n(letter, times));
            let limits = Limits { total_bytes: 20_000, inflate_ratio: 10, inflate_free_bytes: 2_000, ..Limits::DEFAULT };
            let compressed = compress(ENCODINGS[which], &body);
            let bound = (compressed.len() * 10).clamp(2_000, 20_000);
            match inflate(header(ENCODINGS[which]), &compressed, &limits) {
                Ok(inflated) => prop_assert!(inflated.len() <= bound),
                Err(rejection) => prop_assert!(rejection.status == 413 && body.len() > bound),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300), which in 0usize..3) {
            let _ = inflate(["gzip", "deflate", "zstd"][which], &body, &Limits::DEFAULT);
        }
    }
}
