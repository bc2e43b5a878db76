//! Targets of the intake: whole submissions, forms written here and read there, compressed bodies. The oracles know the limits and the
//! meaning of JSON, not the code.

use crate::source::{FIELD, RECORD, first_line, split, text};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ingest::{Format, Limits, Parsed, Rejection, Submission, inflate as undo, parse, parse_late};
use model::{ReportId, Value};
use serde::de::IgnoredAny;
use serde_json::Value as Json;
use std::io::Write;

/// Limits that small inputs reach.
const SMALL: Limits = Limits {
    total_bytes: 3_000,
    body_bytes: 1_000,
    attachment_bytes: 200,
    depth: 5,
    attributes: 6,
    value_bytes: 60,
    parts: 4,
    name_bytes: 24,
    inflate_ratio: 10,
    inflate_free_bytes: 300,
};

/// Names that no client can set.
const SERVER_NAMES: [&str; 7] = ["_tx", "_rxid", "_deleted", "_compressed", "timestamp.received", "report.delay", "fingerprint;original"];
/// Attributes that the intake may add to those that were sent.
const DERIVED_MAX: usize = 12;

/// The first line has the limits, the format, the query and the Content-Type, with blanks between them; the body follows.
pub(crate) fn submission(input: &[u8]) -> String {
    let (line, body) = first_line(input);
    let line = text(line);
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let limits = if word() == "small" { &SMALL } else { &Limits::DEFAULT };
    let format = match Format::read(word()) {
        Ok(format) => format,
        Err(rejection) => return refused("format", &rejection),
    };
    let query: Vec<(String, String)> = url::form_urlencoded::parse(word().as_bytes()).into_owned().collect();
    let content_type = Some(word()).filter(|text| !text.is_empty());
    let submission = Submission { format, content_type, query: &query, body };

    let late = parse_late(&submission, limits);
    match &late {
        Ok(file) => {
            assert_eq!(file.bytes, body, "a late file is the body");
            assert!(is_name(&file.name, limits) && file.bytes.len() <= limits.attachment_bytes, "{file:?}");
        }
        Err(rejection) => drop(refused("late", rejection)),
    }
    let parsed = parse(&submission, limits);
    assert_eq!(parsed, parse(&submission, limits), "the same bytes twice");
    match parsed {
        Err(rejection) => refused(format.name(), &rejection),
        Ok(parsed) => {
            check(&parsed, limits);
            let multipart = content_type.is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("multipart"));
            if !multipart && parsed.report.attachments.is_empty() {
                check_json(&parsed, body, query.is_empty());
            }
            let has = |name| u8::from(parsed.report.attributes.get(name).is_some());
            format!(
                "{} {multipart} {} {} {}{}{}{}",
                format.name(),
                parsed.report.attributes.len().min(9),
                parsed.report.attachments.len().min(3),
                has("callstack"),
                has("callstack.files"),
                has("classifiers"),
                u8::from(parsed.report.id.is_some()),
            )
        }
    }
}

/// What holds for every rejection.
fn refused(what: &str, rejection: &Rejection) -> String {
    assert_eq!(rejection.status, rejection.reason.status());
    let shown = &rejection.problem.field;
    assert!(shown.len() <= 900 && !shown.chars().any(char::is_control), "a field that cannot be shown: {shown:?}");
    assert!(!rejection.problem.detail.is_empty() && rejection.problem.detail.len() < 400, "{rejection}");
    format!("{what} refused as {}", rejection.reason.label())
}

fn is_name(name: &str, limits: &Limits) -> bool {
    (1..=limits.name_bytes).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// What holds for every report that is taken.
fn check(parsed: &Parsed, limits: &Limits) {
    let attributes = &parsed.report.attributes;
    assert!(attributes.len() <= limits.attributes + DERIVED_MAX, "{} attributes", attributes.len());
    let names: Vec<&str> = attributes.iter().map(|(name, _)| name).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once: {names:?}");
    for (name, value) in attributes.iter() {
        assert!(is_name(name, limits) || name.len() <= 24, "the name {name:?}");
        assert!(!SERVER_NAMES.contains(&name) && !name.starts_with("_mod_"), "{name} is not a client's to set");
        match value {
            // A fingerprint has its own length.
            Value::Text(text) => assert!(text.len() <= limits.value_bytes || name == "fingerprint", "{name} has {} bytes", text.len()),
            Value::Float(number) => assert!(number.is_finite(), "{name} is {number}"),
            Value::Bool(_) | Value::Int(_) | Value::UInt(_) => {}
        }
    }
    let fingerprint = attributes.get("fingerprint").expect("every report has a fingerprint").written().into_owned();
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{fingerprint}");
    for name in ["callstack", "callstack.functions", "callstack.files", "callstack.modules"] {
        let Some(frames) = attributes.get(name).filter(|frames| frames.written().starts_with("{\"frame\":")) else { continue };
        serde_json::from_str::<IgnoredAny>(&frames.written()).expect("a list of frames is JSON");
    }
    assert_ne!(parsed.report.id, Some(ReportId([0; 16])), "the nil id identifies nothing");
    for file in &parsed.report.attachments {
        assert!(is_name(&file.name, limits) && file.bytes.len() <= limits.attachment_bytes, "{file:?}");
        assert!(file.content_type.contains('/') && !file.content_type.chars().any(char::is_control), "{:?}", file.content_type);
    }
    assert!(parsed.report.raw.is_empty() || parsed.report.raw.len() <= limits.body_bytes);
}

/// The report of a body of JSON is the body, and its attributes are those that a usual reader of JSON finds.
fn check_json(parsed: &Parsed, body: &[u8], no_query: bool) {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    assert_eq!(parsed.report.raw, body, "the raw report");
    serde_json::from_slice::<IgnoredAny>(body).expect("what is taken as JSON is JSON");
    // A number beyond all floats, which may stand where it is not indexed, is nothing for the usual reader.
    let Ok(report) = serde_json::from_slice::<Json>(body) else { return };
    let bare = ["uuid", "timestamp", "attributes", "threads"].iter().all(|name| report.get(name).is_none());
    let report = report.get("body").filter(|body| bare && body.is_object()).unwrap_or(&report);
    let no_attributes = serde_json::Map::new();
    let sent = report.get("attributes").and_then(Json::as_object).unwrap_or(&no_attributes);
    let derived = ["fingerprint", "object.size", "timestamp", "classifiers", "lang.name", "lang.version", "guid", "backtrace.agent"];
    let is_derived = |name: &str| derived.contains(&name) || name.starts_with("callstack") || name == "backtrace.version";
    let is_ours = |name: &str| is_derived(name) || SERVER_NAMES.contains(&name) || name.starts_with("_mod_");
    for (name, json) in sent.iter().filter(|(name, _)| !is_ours(name)) {
        let expected = match json {
            Json::Bool(flag) => Some(Value::Bool(*flag)),
            Json::String(text) => Some(Value::Text(text.clone())),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => Some(Value::Int(whole)),
                (_, Some(whole), _) => Some(Value::UInt(whole)),
                // The usual reader takes `-0` for a float.
                (_, _, Some(0.0)) => continue,
                (_, _, real) => real.map(Value::Float),
            },
            Json::Null | Json::Array(_) | Json::Object(_) => None,
        };
        assert_eq!(parsed.report.attributes.get(name), expected.as_ref(), "the attribute {name:?}");
    }
    if no_query {
        let strange = parsed.report.attributes.iter().find(|(name, _)| !is_ours(name) && !sent.contains_key(*name));
        assert_eq!(strange, None, "an attribute that nobody sent");
    }
}

/// Records of (kind, name, file name, Content-Type, content) become a form in the usual spelling, whose parts must come back as they
/// were: a kind that begins with `f` is a form field, with `n` a file that only has a file name, any other an attachment.
pub(crate) fn form(input: &[u8]) -> String {
    let parts: Vec<Vec<&[u8]>> = split(input, RECORD).take(12).map(|record| split(record, FIELD).collect()).collect();
    let mut boundary = "b".to_owned();
    while input.windows(boundary.len()).any(|bytes| bytes == boundary.as_bytes()) {
        boundary.push('7');
    }
    let (mut body, mut files, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    let mut write = |parameters: &str, content_type: &str, content: &[u8]| {
        let typed = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        let head = format!("--{boundary}\r\n{typed}Content-Disposition: form-data; {parameters}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    write("name=\"upload_file\"; filename=\"upload_file.json\"", "application/json", b"{}");
    for part in parts.iter().filter(|part| part.len() == 5) {
        let (name, file_name, content) = (label(part[1]), label(part[2]), part[4]);
        let content_type: String = text(part[3]).chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
        match part[0].first() {
            Some(b'f') => {
                // A prefix keeps it apart from names with a meaning.
                write(&format!("name={}", quoted(&format!("f.{name}"))), &content_type, text(content).as_bytes());
                fields.push((format!("f.{name}"), text(content)));
            }
            Some(b'n') => {
                write(&format!("filename={}", quoted(&format!("attachment.{file_name}"))), &content_type, content);
                files.push((file_name, content));
            }
            _ => {
                let parameters = format!("name={}; filename={}", quoted(&format!("attachment_{name}")), quoted(&file_name));
                write(&parameters, &content_type, content);
                files.push((name, content));
            }
        }
    }
    body.extend_from_slice(format!("--{boundary}--").as_bytes());

    let content_type = format!("multipart/form-data; boundary=\"{boundary}\"");
    let submission = Submission { format: Format::Json, content_type: Some(&content_type), query: &[], body: &body };
    let parsed = parse(&submission, &Limits::DEFAULT).expect("a sound form");
    check(&parsed, &Limits::DEFAULT);
    assert_eq!(parsed.report.raw, b"{}");
    let read: Vec<(String, &[u8])> = parsed.report.attachments.iter().map(|file| (file.name.clone(), file.bytes.as_slice())).collect();
    assert_eq!(read, files, "the files");
    for (at, (name, value)) in fields.iter().enumerate() {
        if fields[at + 1..].iter().all(|(later, _)| later != name) {
            assert_eq!(parsed.report.attributes.get(name), Some(&Value::Text(value.clone())), "the field {name:?}");
        }
    }
    format!("{} files, {} fields", files.len().min(4), fields.len().min(4))
}

/// A legal name out of any bytes.
fn label(bytes: &[u8]) -> String {
    let mut name: String = text(bytes).chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(200));
    if name.is_empty() { "x".to_owned() } else { name }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The first byte names an encoding; the rest is taken as a stream of it, and as a body to put through it.
pub(crate) fn inflate(input: &[u8]) -> String {
    let Some((&first, body)) = input.split_first() else { return "nothing".to_owned() };
    let words = ["gzip", "deflate", "deflate", "zstd", "identity", "br", "x-gzip", "gzip, gzip"];
    let encoding = words[usize::from(first) % words.len()];
    let limits = if first & 8 == 0 { &SMALL } else { &Limits::DEFAULT };
    let most = |length: usize| limits.total_bytes.min(limits.inflate_free_bytes.max(length * limits.inflate_ratio));
    let read = undo(encoding, body, limits);
    let outcome = match &read {
        Ok(inflated) => {
            assert!(inflated.len() <= most(body.len()), "{} bytes of {}", inflated.len(), body.len());
            format!("{encoding} inflates")
        }
        Err(rejection) => refused(encoding, rejection),
    };

    let packed = match first % words.len() as u8 {
        0 | 6 => through(GzEncoder::new(Vec::new(), Compression::fast()), body, GzEncoder::finish),
        1 => through(ZlibEncoder::new(Vec::new(), Compression::fast()), body, ZlibEncoder::finish),
        2 => through(DeflateEncoder::new(Vec::new(), Compression::fast()), body, DeflateEncoder::finish),
        3 => zstd::bulk::compress(body, 1).expect("in memory"),
        _ => return outcome,
    };
    match undo(encoding, &packed, limits) {
        Ok(inflated) => assert_eq!(inflated, body, "inflated again"),
        Err(_) => assert!(body.len() > most(packed.len()), "a sound stream of {} bytes is refused", packed.len()),
    }
    assert!(undo(encoding, &packed[..packed.len() - 1], limits).is_err(), "a stream that is cut short");
    assert!(undo(encoding, &[&packed[..], b"x"].concat(), limits).is_err(), "a stream with something behind it");
    outcome
}

fn through<W: Write>(mut encoder: W, body: &[u8], finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    encoder.write_all(body).expect("in memory");
    finish(encoder).expect("in memory")
}
