//! Bytes of a submission to a report, or a rejection that names the field. Pure: no I/O, no clock, no state.
//!
//! A submission walks through here as [`inflate`] (Content-Encoding) -> [`parse`] (format, multipart, JSON, derived
//! attributes) -> [`model::NewReport`]. Nothing here knows projects, tokens, stamps or whether a report is a repeat.

mod cursor;
mod derive;
mod encoding;
mod form;
mod json;
mod limits;
mod multipart;
mod rejection;
mod report;
mod sent;
mod stack;
mod submission;

pub use encoding::inflate;
pub use form::parse_late;
pub use limits::Limits;
pub use rejection::{Reason, Rejection};
pub use submission::{Format, Options, Parsed, Submission};

use derive::Grouping;
use form::Files;
use model::{NewReport, ReportId, Value};
use report::Body;
use sent::Sent;

/// Reads a submission that makes a new report.
///
/// Attributes of the report win over form fields, and those over query parameters. What the server says itself (`_tx`,
/// `fingerprint`, ...) no client can set.
///
/// # Errors
/// 400 for what cannot be read, 413 for what is over a limit; the problem names the field.
pub fn parse(submission: &Submission<'_>, limits: &Limits) -> Result<Parsed, Rejection> {
    if submission.body.len() > limits.total_bytes {
        let detail = format!("a submission may have {} bytes", limits.total_bytes);
        return Err(Rejection::new(Reason::TooLarge, "body", detail));
    }
    let mut sent = Sent::new(limits);
    sent.take_query(submission.query)?;
    let files = Files::read(submission, limits, &mut sent)?;
    let mut body = match files.report {
        Some(bytes) => Body::read(bytes, limits, &mut sent)?,
        None => Body::default(),
    };
    let size_bytes = match (files.report, &files.dump) {
        (Some(bytes), _) => bytes.len(),
        (None, Some((_, dump))) => dump.bytes.len(),
        (None, None) => return Err(Rejection::new(Reason::NotOneReport, "upload_file", "neither a report nor a dump was sent")),
    };

    let (fingerprint, factor) = (sent.fingerprint.take(), sent.factor.take());
    let mut attributes = sent.into_attributes();
    let dump_name = files.dump.as_ref().map(|(_, dump)| dump.name.as_str());
    let id = identity(body.uuid.take().as_ref().or_else(|| attributes.get("uuid")), dump_name);
    let grouping = Grouping { fingerprint: fingerprint.as_deref(), factor: factor.as_deref() };
    derive::complete(&mut attributes, body, grouping, size_bytes);
    if let Some((kind, _)) = files.dump.as_ref().filter(|_| attributes.get("classifiers").is_none()) {
        attributes.set("classifiers", Value::from(kind.name()));
    }

    let raw = files.report.map(<[u8]>::to_vec).unwrap_or_default();
    let attachments = files.dump.into_iter().map(|(_, dump)| dump).chain(files.attachments).collect();
    Ok(Parsed { report: NewReport { id, attributes, raw, attachments }, options: Options::from_query(submission.query) })
}

/// The report's `uuid`, else the UUID that crashpad makes the dump's file name.
fn identity(uuid: Option<&Value>, dump_name: Option<&str>) -> Option<ReportId> {
    match uuid {
        Some(uuid) => derive::report_id(&uuid.written()),
        None => dump_name.and_then(|name| ReportId::read(name.strip_suffix(".dmp")?)),
    }
}
