//! Replays requests that real SDKs, `morgue` and `curl` sent (and a few written by hand from the source of crashpad and
//! unity), as the bytes they were, and compares all that was read. One file of `testdata` per request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Compression, write::GzEncoder};
use ingest::{Format, Limits, Submission, inflate, parse, parse_late};
use model::{NewAttachment, ReportId, Value};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// The recordings leave the boundary out.
const BOUNDARY: &str = "----------------------------f1x7u4e";

#[derive(Deserialize)]
struct Recording {
    request: Request,
    expected: Expected,
}

#[derive(Deserialize)]
struct Request {
    format: String,
    query: Vec<(String, String)>,
    content_type: Option<String>,
    content_encoding: String,
    body: Content,
}

/// A body, a part or a file: its bytes in one of four spellings. JSON is kept raw, because reading and writing a number
/// again can change its last digit.
#[derive(Deserialize)]
struct Content {
    name: Option<String>,
    filename: Option<String>,
    content_type: Option<String>,
    json: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
    multipart: Option<Vec<Content>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Late { late: Late },
    Report { id: Option<String>, sync: bool, attributes: BTreeMap<String, Value>, attachments: Vec<File> },
}

#[derive(Deserialize)]
struct Late {
    object: String,
    #[serde(flatten)]
    file: File,
}

#[derive(Deserialize)]
struct File {
    name: String,
    content_type: String,
    text: Option<String>,
    base64: Option<String>,
}

/// A request as the server would hand it over, before Content-Encoding is undone.
pub(crate) struct Recorded {
    name: String,
    format: Format,
    query: Vec<(String, String)>,
    content_type: Option<String>,
    pub(crate) content_encoding: String,
    pub(crate) body: Vec<u8>,
    expected: Expected,
}

/// Every recording, by name.
pub(crate) fn all() -> Vec<Recorded> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("testdata").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |file: &PathBuf| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).expect("a readable file");
        let recording = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Recorded::of(name, recording)
    };
    files.iter().map(read).collect()
}

impl Recorded {
    fn of(name: String, Recording { request, expected }: Recording) -> Recorded {
        let plain = request.body.bytes();
        // What was captured before compression is compressed again; what was captured after it is sent as it is.
        let compress = request.content_encoding == "gzip" && request.body.base64.is_none();
        Recorded {
            name,
            format: Format::read(&request.format).expect("a format that is taken"),
            query: request.query,
            content_type: request.content_type.map(|text| text.replace('…', BOUNDARY)),
            content_encoding: request.content_encoding,
            body: if compress { gzip(&plain) } else { plain },
            expected,
        }
    }

    pub(crate) fn submission<'a>(&'a self, body: &'a [u8]) -> Submission<'a> {
        Submission { format: self.format, content_type: self.content_type.as_deref(), query: &self.query, body }
    }
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match (&self.multipart, &self.json) {
            (Some(parts), _) => framed(parts),
            (None, Some(json)) => json.get().as_bytes().to_vec(),
            (None, None) => bytes(self.text.as_deref(), self.base64.as_deref()),
        }
    }
}

impl File {
    fn attachment(&self) -> NewAttachment {
        let bytes = bytes(self.text.as_deref(), self.base64.as_deref());
        NewAttachment { name: self.name.clone(), content_type: self.content_type.clone(), bytes }
    }
}

fn bytes(text: Option<&str>, base64: Option<&str>) -> Vec<u8> {
    let decoded = || BASE64.decode(base64.expect("text or base64")).expect("base64");
    text.map_or_else(decoded, |text| text.as_bytes().to_vec())
}

fn framed(parts: &[Content]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let mut header = format!("--{BOUNDARY}\r\nContent-Disposition: form-data");
        for (parameter, value) in [("name", &part.name), ("filename", &part.filename)] {
            header += &value.as_ref().map(|value| format!("; {parameter}=\"{value}\"")).unwrap_or_default();
        }
        header += &part.content_type.as_ref().map(|text| format!("\r\nContent-Type: {text}")).unwrap_or_default();
        body.extend([header.as_bytes(), b"\r\n\r\n", &part.bytes(), b"\r\n"].concat());
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// One attribute a line, so that a failure shows what differs. `Debug` tells text, whole and real numbers apart.
fn lines<'a>(attributes: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    attributes.map(|(name, value)| format!("{name} = {value:?}\n")).collect()
}

#[test]
fn recorded_requests_are_read_as_they_were_meant() {
    let recordings = all();
    assert_eq!(recordings.len(), 44, "a recording was lost or is new");
    for recorded in &recordings {
        let name = &recorded.name;
        let body = inflate(&recorded.content_encoding, &recorded.body, &Limits::DEFAULT).expect(name);
        let submission = recorded.submission(&body);
        let (id, sync, attributes, attachments) = match &recorded.expected {
            Expected::Report { id, sync, attributes, attachments } => (id, sync, attributes, attachments),
            Expected::Late { late } => {
                assert_eq!(submission.late_object(), Some(late.object.as_str()), "{name}");
                assert_eq!(parse_late(&submission, &Limits::DEFAULT).expect(name), late.file.attachment(), "{name}");
                continue;
            }
        };
        assert_eq!(submission.late_object(), None, "{name}");
        let parsed = parse(&submission, &Limits::DEFAULT).expect(name);
        let report = &parsed.report;
        let attributes = lines(attributes.iter().map(|(name, value)| (name.as_str(), value)));
        assert_eq!(lines(report.attributes.iter()), attributes, "{name}");
        assert_eq!(report.id, id.as_ref().map(|id| ReportId::read(id).expect(name)), "{name}");
        assert_eq!(report.attachments, attachments.iter().map(File::attachment).collect::<Vec<_>>(), "{name}");
        assert_eq!(parsed.options.sync, *sync, "{name}");
        if !report.raw.is_empty() {
            let raw: serde_json::Value = serde_json::from_slice(&report.raw).expect(name);
            assert_eq!(raw["uuid"].as_str().and_then(ReportId::read), report.id, "{name}");
        }
    }
}
