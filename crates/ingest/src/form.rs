//! What the pieces of a submission are: the report, its dump, attachments, attributes. Decided by label and first bytes,
//! never by a part's Content-Type.

use crate::multipart::{self, Part};
use crate::sent::{Sent, check_name};
use crate::submission::parameter;
use crate::{Format, Limits, Reason, Rejection, Submission};
use model::{NewAttachment, Value};

/// The files of one submission.
#[derive(Debug, Default)]
pub(crate) struct Files<'a> {
    /// The JSON report.
    pub(crate) report: Option<&'a [u8]>,
    /// The dump and what kind it is.
    pub(crate) dump: Option<(Format, NewAttachment)>,
    /// The other files.
    pub(crate) attachments: Vec<NewAttachment>,
}

/// The label of the part with the report or dump, and the one that only a dump has.
const REPORT_LABEL: &str = "upload_file";
const DUMP_LABEL: &str = "upload_file_minidump";

/// The type of a file whose sender names none.
const ANY_TYPE: &str = "application/octet-stream";

/// The first bytes of every minidump (Windows' `MINIDUMP_HEADER.Signature`).
const MINIDUMP_MAGIC: &[u8] = b"MDMP";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<'a> Files<'a> {
    /// Sorts a body; the form fields of a multipart body go to `sent`.
    pub(crate) fn read(submission: &Submission<'a>, limits: &Limits, sent: &mut Sent<'_>) -> Result<Files<'a>, Rejection> {
        let mut files = Files::default();
        let Some(boundary) = multipart::boundary(submission.content_type.unwrap_or_default()) else {
            let file = File { field: "body", name: REPORT_LABEL, content_type: submission.content_type, bytes: submission.body };
            files.take_report(file, kind(submission.format, submission.body), limits)?;
            return Ok(files);
        };
        let mut fields_bytes = 0;
        for part in multipart::split(submission.body, &boundary?, limits)? {
            fields_bytes += files.take_part(part, submission.format, limits, sent)?;
            if fields_bytes > limits.body_bytes {
                return Err(too_large(limits));
            }
        }
        Ok(files)
    }

    /// Takes one part by its label, which is its name or, where that is missing, its file name. Answers how many bytes
    /// count towards report and form.
    fn take_part(&mut self, part: Part<'a>, format: Format, limits: &Limits, sent: &mut Sent<'_>) -> Result<usize, Rejection> {
        let label = part.name.as_deref().filter(|name| !name.is_empty()).or(part.file_name.as_deref()).unwrap_or_default();
        let file = File { field: label, name: label, content_type: part.content_type.as_deref(), bytes: part.bytes };
        let attachment = ["attachment_", "attachment."].iter().find_map(|prefix| label.strip_prefix(prefix));
        if label == REPORT_LABEL || label == DUMP_LABEL {
            let kind = if label == DUMP_LABEL { Format::Minidump } else { kind(format, part.bytes) };
            self.take_report(File { name: part.file_name.as_deref().unwrap_or(label), ..file }, kind, limits)
        } else if let Some(name) = attachment.or(part.file_name.is_some().then_some(label)) {
            self.attachments.push(File { name, ..file }.checked(limits)?);
            Ok(0)
        } else {
            let text = std::str::from_utf8(part.bytes).map_err(|error| {
                let detail = format!("must be UTF-8, and byte {} is not; bytes can be sent as a file", error.valid_up_to());
                Rejection::new(Reason::MalformedMultipart, label, detail)
            })?;
            sent.take("", label.to_owned(), Some(Value::from(text)))?;
            Ok(part.bytes.len())
        }
    }

    fn take_report(&mut self, file: File<'_, 'a>, kind: Format, limits: &Limits) -> Result<usize, Rejection> {
        let twice = Rejection::new(Reason::NotOneReport, file.field, "a submission holds one report and one dump at most");
        if kind == Format::Json {
            if file.bytes.len() > limits.body_bytes {
                return Err(too_large(limits));
            }
            // The mark says only that this is UTF-8; a reader of the kept report would trip over it.
            let report = file.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file.bytes);
            return if self.report.replace(report).is_none() { Ok(file.bytes.len()) } else { Err(twice) };
        }
        if kind == Format::Minidump && !file.bytes.starts_with(MINIDUMP_MAGIC) {
            return Err(Rejection::new(Reason::MalformedDump, file.field, "a minidump begins with the letters MDMP"));
        }
        if file.bytes.is_empty() {
            return Err(Rejection::new(Reason::MalformedDump, file.field, "the dump is empty"));
        }
        if self.dump.replace((kind, file.checked(limits)?)).is_none() { Ok(0) } else { Err(twice) }
    }
}

/// Reads a file that is added to a report that exists: the body is the file, whatever its type says, and its name is the
/// parameter `attachment_name` (see [`Submission::late_object`]).
///
/// # Errors
/// 400 for an unusable name, 413 for a file over the limit.
pub fn parse_late(submission: &Submission<'_>, limits: &Limits) -> Result<NewAttachment, Rejection> {
    let name = parameter(submission.query, "attachment_name").unwrap_or_default();
    File { field: "attachment_name", name, content_type: submission.content_type, bytes: submission.body }.checked(limits)
}

/// What the report's bytes are: what `format` says, except that a minidump is known by its first bytes.
fn kind(format: Format, bytes: &[u8]) -> Format {
    if format == Format::Json && bytes.starts_with(MINIDUMP_MAGIC) { Format::Minidump } else { format }
}

/// A file as it was sent.
#[derive(Clone, Copy)]
struct File<'n, 'a> {
    /// What a rejection calls it.
    field: &'n str,
    name: &'n str,
    content_type: Option<&'n str>,
    bytes: &'a [u8],
}

impl File<'_, '_> {
    fn checked(self, limits: &Limits) -> Result<NewAttachment, Rejection> {
        check_name(self.name, || self.field.to_owned(), limits)?;
        if self.bytes.len() > limits.attachment_bytes {
            let detail = format!("the file has {} bytes and may have {}", self.bytes.len(), limits.attachment_bytes);
            return Err(Rejection::new(Reason::AttachmentTooLarge, self.field, detail));
        }
        // java writes the word `null`; whatever is no media type says nothing.
        let content_type = self.content_type.filter(|text| is_media_type(text)).unwrap_or(ANY_TYPE);
        Ok(NewAttachment { name: self.name.to_owned(), content_type: content_type.to_owned(), bytes: self.bytes.to_vec() })
    }
}

fn is_media_type(text: &str) -> bool {
    text.len() <= 256 && text.contains('/') && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn too_large(limits: &Limits) -> Rejection {
    let detail = format!("report and form fields may have {} bytes together; send large texts as attachments", limits.body_bytes);
    Rejection::new(Reason::TooLarge, "body", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of a form's parts, given as (disposition parameters, Content-Type, content).
    fn sorted(format: Format, parts: &[(&str, &str, &str)]) -> Result<Vec<String>, Rejection> {
        let mut body = String::new();
        for (parameters, content_type, content) in parts {
            let content_type = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
            body += &format!("--b\r\nContent-Disposition: form-data; {parameters}\r\n{content_type}\r\n{content}\r\n");
        }
        body += "--b--\r\n";
        let limits = Limits { attachment_bytes: 100, body_bytes: 200, ..Limits::DEFAULT };
        let mut sent = Sent::new(&limits);
        let content_type = Some("multipart/form-data; boundary=b");
        let files = Files::read(&Submission { format, content_type, query: &[], body: body.as_bytes() }, &limits, &mut sent)?;
        let written = |file: &NewAttachment| format!("{} ({}) {}", file.name, file.content_type, String::from_utf8_lossy(&file.bytes));
        let report = files.report.map(|bytes| format!("report {}", String::from_utf8_lossy(bytes)));
        let dump = files.dump.map(|(kind, file)| format!("{} {}", kind.name(), written(&file)));
        let attachments = files.attachments.iter().map(|file| format!("file {}", written(file)));
        let attributes = sent.into_attributes();
        let fields = attributes.iter().map(|(name, value)| format!("{name}={}", value.written()));
        Ok(report.into_iter().chain(dump).chain(attachments).chain(fields).collect())
    }

    #[test]
    fn the_label_decides_what_a_part_is() {
        const ANY: &str = "application/octet-stream";
        for (format, part, expected) in [
            (Format::Json, ("name=upload_file", "", "{}"), "report {}".to_owned()),
            (Format::Json, ("name=upload_file; filename=x.json", "image/png", "{}"), "report {}".to_owned()),
            (Format::Json, ("filename=upload_file", "", "{}"), "report {}".to_owned()),
            (Format::Json, ("name=\"\"; filename=upload_file", "", "{}"), "report {}".to_owned()),
            (
                Format::Json,
                ("name=upload_file; filename=a.dmp", "application/json", "MDMP"),
                "minidump a.dmp (application/json) MDMP".to_owned(),
            ),
            (Format::Minidump, ("name=upload_file", "", "MDMP"), format!("minidump upload_file ({ANY}) MDMP")),
            (Format::Json, ("name=upload_file_minidump; filename=a.dmp", "", "MDMP"), format!("minidump a.dmp ({ANY}) MDMP")),
            (Format::PlCrash, ("name=upload_file", "", "plcrash"), format!("plcrash upload_file ({ANY}) plcrash")),
            (Format::Json, ("name=attachment_a.log; filename=b.log", "text/plain", "x"), "file a.log (text/plain) x".to_owned()),
            (Format::Json, ("name=attachment.a.log", "null", "x"), format!("file a.log ({ANY}) x")),
            (Format::Json, ("filename=attachment_a.log", "", "x"), format!("file a.log ({ANY}) x")),
            (Format::Json, ("name=a.log; filename=a.log", "", "x"), format!("file a.log ({ANY}) x")),
            (Format::Json, ("name=../../etc/passwd; filename=p", "", "x"), format!("file ../../etc/passwd ({ANY}) x")),
            (Format::Json, ("name=level", "application/json", "7"), "level=7".to_owned()),
            (Format::Json, ("name=attachment", "", "7"), "attachment=7".to_owned()),
        ] {
            assert_eq!(sorted(format, &[part]).expect(part.0), [expected], "{part:?}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_label() {
        let long = "x".repeat(101);
        let report = ("name=upload_file", "", "{}");
        for (format, parts, reason, field) in [
            (Format::Json, &[report, report][..], Reason::NotOneReport, "upload_file"),
            (
                Format::Minidump,
                &[("name=upload_file", "", "MDMP"), ("name=upload_file_minidump", "", "MDMP")],
                Reason::NotOneReport,
                "upload_file_minidump",
            ),
            (Format::Minidump, &[report], Reason::MalformedDump, "upload_file"),
            (Format::Minidump, &[("name=upload_file", "", "")], Reason::MalformedDump, "upload_file"),
            (Format::Btt, &[("name=upload_file", "", "")], Reason::MalformedDump, "upload_file"),
            (Format::Json, &[report, ("name=attachment_a", "", &long)], Reason::AttachmentTooLarge, "attachment_a"),
            (Format::Json, &[("name=attachment_", "", "x")], Reason::WrongName, "attachment_"),
            (Format::Json, &[("name=\"a\nb\"; filename=x", "", "x")], Reason::WrongName, "a\u{fffd}b"),
            (Format::Json, &[("name=a", "", &long), ("name=b", "", &long)], Reason::TooLarge, "body"),
        ] {
            let refused = sorted(format, parts).expect_err(field);
            assert_eq!((refused.reason, refused.problem.field.as_str()), (reason, field), "{parts:?}");
        }
        let binary = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--b--";
        let submission =
            Submission { format: Format::Json, content_type: Some("multipart/form-data; boundary=b"), query: &[], body: binary };
        let refused = Files::read(&submission, &Limits::DEFAULT, &mut Sent::new(&Limits::DEFAULT)).expect_err("not UTF-8");
        assert_eq!((refused.reason, refused.problem.field.as_str()), (Reason::MalformedMultipart, "a"));
    }

    #[test]
    fn a_late_file_takes_its_name_from_the_query() {
        let late = |pairs: &[(&str, &str)], limits: &Limits| {
            let query: Vec<_> = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let submission = Submission { format: Format::Json, content_type: None, query: &query, body: b"late data" };
            submission.late_object().map(|object| (object.to_owned(), parse_late(&submission, limits)))
        };
        let both = [("object", "ce"), ("attachment_name", "late.txt")];
        let file = NewAttachment { name: "late.txt".into(), content_type: ANY_TYPE.into(), bytes: b"late data".to_vec() };
        assert_eq!(late(&both, &Limits::DEFAULT), Some(("ce".to_owned(), Ok(file))));
        assert_eq!(late(&[("guid", "g"), ("product", "p")], &Limits::DEFAULT), None);
        assert_eq!(late(&[("object", "ce")], &Limits::DEFAULT), None);
        assert_eq!(late(&[("attachment_name", "late.txt")], &Limits::DEFAULT), None);

        let refused = |pairs, limits| late(pairs, limits).expect("both parameters").1.expect_err("refused");
        let nameless = refused(&[("object", "ce"), ("attachment_name", "")], &Limits::DEFAULT);
        assert_eq!((nameless.reason, nameless.problem.field.as_str()), (Reason::WrongName, "attachment_name"));
        assert_eq!(refused(&both, &Limits { attachment_bytes: 8, ..Limits::DEFAULT }).reason, Reason::AttachmentTooLarge);
    }
}
