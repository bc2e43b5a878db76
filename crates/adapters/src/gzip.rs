//! Compression of request bodies, the same bytes each time.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// The body as gzip. The header holds no time and no file name.
pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("compressing into memory cannot fail")
}
