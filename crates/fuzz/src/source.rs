//! Reads what targets need out of bytes: lines, fields, texts, JSON. Anything can be read out of any bytes; nothing here fails.

use model::{Attributes, ProjectId, Report, Stamp, Tx, Value};

/// Between records of an input that is not text: the ASCII record separator.
pub(crate) const RECORD: u8 = 0x1e;
/// Between the fields of a record: the ASCII unit separator.
pub(crate) const FIELD: u8 = 0x1f;
/// Between the nodes of a path: the ASCII group separator.
pub(crate) const NODE: u8 = 0x1d;

/// Whose the reports are.
pub(crate) const PROJECT: ProjectId = ProjectId(3);
/// Most reports that one input makes.
const REPORTS_MAX: usize = 24;

/// The first line, and what follows it.
pub(crate) fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// The pieces between separators; there is always one.
pub(crate) fn split(input: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    input.split(move |&byte| byte == separator)
}

/// Bytes as text; what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line as a value: JSON where it is a scalar, else its text.
pub(crate) fn value(line: &[u8]) -> Value {
    match serde_json::from_slice(line) {
        // A float that is no number is not a value that a client can send.
        Ok(Value::Float(number)) if !number.is_finite() => Value::Text(text(line)),
        Ok(value) => value,
        Err(_) => Value::Text(text(line)),
    }
}

/// Lines as reports in the order of their stamps: each is a JSON object of attributes; other lines are passed over.
pub(crate) fn reports(lines: &[u8]) -> Vec<Report> {
    let objects = split(lines, b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).ok());
    let report = |(at, object): (usize, serde_json::Map<String, serde_json::Value>)| {
        let pairs = object.into_iter().filter_map(|(name, json)| Some((name, serde_json::from_value(json).ok()?)));
        let stamp = Stamp::from_secs(1_800_000_000).plus_micros(at as u64 * 700_000);
        Report { project: PROJECT, tx: Tx(at as u64 + 1), stamp, attributes: Attributes::from_pairs(pairs) }
    };
    objects.take(REPORTS_MAX).enumerate().map(report).collect()
}
