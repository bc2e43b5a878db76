//! Archived reports: one project's in one Parquet file, a row a report, which other programs can read as it is. Knows nothing of
//! which files there are or when they come and go.
//!
//! Files are written once and only read from then on. What is read is checked (see `checked`), so damage comes to light as an error
//! of kind `InvalidData` and never as other values.

mod checked;
mod delta;
mod group;
#[cfg(test)]
mod judge;
mod outline;
mod pages;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use checked::END_BYTES;
pub(crate) use read::File;
pub(crate) use write::write;

use ::parquet::errors::ParquetError;
use std::io;

/// Where a file says whose reports it has.
const PROJECT: &str = "crashmeter.project";
/// Where a file says which attributes have values in `_more`, and how many.
const MORE_NAMES: &str = "crashmeter.more";

/// Where a file says in which form it is; one that does not say is in the first, which has no outlines. From the third on texts of
/// which nearly each is another stand behind their lengths.
const FORM: &str = "crashmeter.form";
/// The form that is written.
const FORM_NOW: u32 = 3;

/// A file is not what was once written.
fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file is damaged: {what}"))
}

/// The disk's own error where there is one: a full disk must still be known as such.
fn disk_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::new(io::ErrorKind::InvalidData, other),
        },
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
