//! Reads remote-write requests with a protobuf and a Snappy reader of its own, as strictly as the receivers' strictest rules.

use super::{Accept, Adapter, EXAMPLES, Sample, StoredSeries, batch, golden, object, prometheus, push_of, series, text, window};
use crate::{HttpRequest, Outgoing, Reply, Verdict};
use model::{Batch, Point, Shape};
use std::collections::{BTreeMap, BTreeSet};

/// One field of a message.
#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Eight(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers.
fn fields(mut message: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut message)?),
            1 => {
                let (eight, rest) = message.split_first_chunk::<8>().ok_or("a number that is cut off")?;
                message = rest;
                Field::Eight(u64::from_le_bytes(*eight))
            }
            2 => {
                let length = varint(&mut message)? as usize;
                let (bytes, rest) = message.split_at_checked(length).ok_or("a text that is cut off")?;
                message = rest;
                Field::Bytes(bytes)
            }
            other => return Err(format!("wire type {other}")),
        };
        fields.push((tag >> 3, field));
    }
    Ok(fields)
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("a varint that is cut off")?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err("a varint longer than it need be".to_owned()) } else { Ok(number) };
        }
    }
    Err("a varint that does not end".to_owned())
}

pub(super) fn read(body: &[u8]) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for field in fields(body)? {
        let (1, Field::Bytes(series)) = field else { return Err(format!("not a time series: {field:?}")) };
        samples.push(read_series(series)?);
    }
    Ok(samples)
}

fn read_series(message: &[u8]) -> Result<Sample, String> {
    let (mut labels, mut sample) = (Vec::new(), None);
    for field in fields(message)? {
        match field {
            (1, Field::Bytes(label)) if sample.is_none() => labels.push(read_label(label)?),
            (2, Field::Bytes(bytes)) if sample.is_none() => sample = Some(read_sample(bytes)?),
            other => return Err(format!("labels after samples, a second sample, or something else: {other:?}")),
        }
    }
    if !labels.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(format!("labels out of order or twice: {labels:?}"));
    }
    let mut labels: BTreeMap<String, String> = labels.into_iter().collect();
    let name = labels.remove("__name__").ok_or("no name")?;
    let sound =
        |name: &str| !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    if !sound(&name) || labels.iter().any(|(key, value)| !sound(key) || key.is_empty() || key.starts_with("__") || value.is_empty()) {
        return Err(format!("a name, a label or a value that is refused: {name:?} {labels:?}"));
    }
    let (value, millis) = sample.ok_or("no sample")?;
    if millis % 1_000 != 0 || labels.values().any(|value| value.chars().count() > 200) {
        return Err(format!("a time between seconds, or a long value: {millis} {labels:?}"));
    }
    Ok(Sample { series: StoredSeries { name, labels }, value, time: Some(millis / 1_000) })
}

fn read_label(message: &[u8]) -> Result<(String, String), String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
    match &fields(message)?[..] {
        [(1, Field::Bytes(name)), (2, Field::Bytes(value))] => Ok((text(name)?, text(value)?)),
        other => Err(format!("not a label: {other:?}")),
    }
}

/// A value that is left out is 0.
fn read_sample(message: &[u8]) -> Result<(f64, i64), String> {
    let (value, millis) = match fields(message)?[..] {
        [(2, Field::Varint(millis))] => (0.0, millis),
        [(1, Field::Eight(bits)), (2, Field::Varint(millis))] => (f64::from_bits(bits), millis),
        ref other => return Err(format!("not a sample: {other:?}")),
    };
    if value.is_finite() { Ok((value, millis as i64)) } else { Err("not a finite number".to_owned()) }
}

/// Snappy's block format: a length, then literals and copies of what was already written.
fn inflate(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let length = varint(&mut rest)? as usize;
    let mut out: Vec<u8> = Vec::with_capacity(length);
    let take = |rest: &mut &[u8], count: usize| {
        let (taken, after) = rest.split_at_checked(count).ok_or("cut off")?;
        *rest = after;
        Ok::<_, String>(taken.to_vec())
    };
    let little = |bytes: Vec<u8>| bytes.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
    while let Some((&tag, after)) = rest.split_first() {
        rest = after;
        let high = usize::from(tag >> 2);
        let (copied, offset) = match tag & 3 {
            0 => {
                let length = if high < 60 { high } else { little(take(&mut rest, high - 59)?) } + 1;
                out.extend(take(&mut rest, length)?);
                continue;
            }
            1 => (4 + (high & 7), (high >> 3) << 8 | little(take(&mut rest, 1)?)),
            2 => (high + 1, little(take(&mut rest, 2)?)),
            _ => (high + 1, little(take(&mut rest, 4)?)),
        };
        let start = out.len().checked_sub(offset).filter(|_| offset > 0).ok_or("a copy from before the beginning")?;
        for at in start..start + copied {
            out.push(out[at]);
        }
    }
    if out.len() == length { Ok(out) } else { Err(format!("{} bytes instead of {length}", out.len())) }
}

fn adapter(fields: &str) -> Adapter {
    Adapter::parse("remote_write", &object(fields)).expect("sound settings")
}

fn request(adapter: &Adapter, batch: &Batch) -> (crate::Payload, HttpRequest) {
    let payload = push_of(adapter).encode(batch).payloads.swap_remove(0);
    let Outgoing::Http(request) = push_of(adapter).request(&payload) else { panic!("not HTTP") };
    (payload, request)
}

const URL: &str = "https://prometheus.example.com/api/v1/write";

#[test]
fn the_request_is_the_one_that_receivers_take() {
    for (login, authorization) in [
        (r#""username": "writer", "password": "pa55word""#, Some("Basic d3JpdGVyOnBhNTV3b3Jk")),
        (r#""bearer": "t0ken""#, Some("Bearer t0ken")),
        (r#""username": """#, None),
    ] {
        let adapter = adapter(&format!(r#"{{"url": "{URL}", {login}}}"#));
        let (payload, request) = request(&adapter, &golden::batch());
        assert_eq!((request.method, request.url.as_str(), &request.ca_pem), ("POST", URL, &None));
        let headers: Vec<(&str, String)> = request
            .headers
            .iter()
            .map(|(name, value)| match value {
                crate::HeaderText::Plain(text) => (*name, text.clone()),
                crate::HeaderText::Secret(secret) => (*name, secret.reveal().to_owned()),
            })
            .collect();
        let mut expected = vec![
            ("content-type", "application/x-protobuf".to_owned()),
            ("content-encoding", "snappy".to_owned()),
            ("x-prometheus-remote-write-version", "0.1.0".to_owned()),
        ];
        expected.extend(authorization.map(|text| ("authorization", text.to_owned())));
        assert_eq!(headers, expected);
        assert_eq!(inflate(&request.body), Ok(payload.body()));
        assert_eq!(Outgoing::Http(request), push_of(&adapter).request(&payload), "the same bytes each time");
        assert_eq!(push_of(&adapter).target(), "https://prometheus.example.com:443");
        assert_eq!(push_of(&adapter).address(), ("url", "prometheus.example.com".to_owned(), 443));
        let answer =
            |status| push_of(&adapter).judge(&payload, &Reply::Http { status, retry_after: None, body: b"out of bounds".to_vec() });
        assert_eq!(answer(204), Verdict::Accepted { confirmed: true });
        assert!(matches!(answer(400), Verdict::Partial { unnamed: 6, .. }));
        assert!(push_of(&adapter).isolates());
    }
}

#[test]
fn a_large_body_is_far_smaller_compressed_and_still_itself() {
    let many = batch((0..2_000).map(|at| series(&["p", "q", "r", "s"], "count", &[("user", text(&at.to_string()))])));
    let (payload, request) = request(&adapter(&format!(r#"{{"url": "{URL}"}}"#)), &many);
    assert!(request.body.len() < payload.body().len() / 2, "{} of {}", request.body.len(), payload.body().len());
    assert_eq!(inflate(&request.body), Ok(payload.body()));
}

#[test]
fn names_are_those_of_the_page() {
    let names = |samples: Vec<Sample>| samples.into_iter().map(|sample| sample.series).collect::<BTreeSet<_>>();
    let pull = Adapter::parse("prometheus", &object("{}")).expect("sound settings");
    for batch in [golden::batch(), super::hostile::batch()] {
        let pushed = push_of(&adapter(&format!(r#"{{"url": "{URL}"}}"#))).encode(&batch).payloads;
        let pushed = pushed.iter().flat_map(|payload| read(&payload.body()).expect("a sound body")).collect();
        let page = pull.as_pull().expect("a pull adapter").render(&super::page(&batch), &Accept::default());
        assert_eq!(names(pushed), names(prometheus::read_text(&page.body).expect("a sound page")));
    }
}

#[test]
fn one_series_byte_by_byte() {
    let point = Point { series: series(&["p", "q"], "count", &[("zone", text("a")), ("App", text("b"))]), value: 1.5, shape: Shape::Gauge };
    let zero = Point { value: -0.0, ..point.clone() };
    let body = |point: Point| {
        let one = Batch { window: window(), points: vec![point] };
        push_of(&adapter(&format!(r#"{{"url": "{URL}"}}"#))).encode(&one).payloads[0].body()
    };
    let labels =
        [&b"\x0a\x08\x0a\x03App\x12\x01b"[..], b"\x0a\x1c\x0a\x08__name__\x12\x10p_q_count_window", b"\x0a\x09\x0a\x04zone\x12\x01a"]
            .concat();
    // 1,700,000,040,000 ms
    let time = b"\x10\xc0\x88\x98\xff\xbc\x31";
    let sample = [&b"\x12\x10\x09\x00\x00\x00\x00\x00\x00\xf8\x3f"[..], time].concat();
    assert_eq!(body(point), [&[0x0a, (labels.len() + sample.len()) as u8][..], &labels, &sample].concat());
    let sample = [&b"\x12\x07"[..], time].concat();
    assert_eq!(body(zero), [&[0x0a, (labels.len() + sample.len()) as u8][..], &labels, &sample].concat());
}

#[test]
fn settings_of_a_receiver() {
    for (fields, faulty) in [
        (r#"{}"#, &["url"][..]),
        (r#"{"url": "https://prometheus.example.com"}"#, &["url"]),
        (r#"{"url": "https://u:p@prometheus.example.com/api/v1/write"}"#, &["url"]),
        (r#"{"url": "https://h.example/api/v1/write", "username": "u"}"#, &["password"]),
        (r#"{"url": "https://h.example/api/v1/write", "password": "p"}"#, &["username"]),
        (r#"{"url": "https://h.example/api/v1/write", "username": "a:b", "password": "p"}"#, &["username"]),
        (r#"{"url": "https://h.example/api/v1/write", "username": "u", "password": "p", "bearer": "t"}"#, &["bearer"]),
        (r#"{"url": "https://h.example/api/v1/push?tenant=7", "bearer": "t"}"#, &[]),
    ] {
        let problems = Adapter::parse("remote_write", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}");
    }
    assert!(EXAMPLES.iter().any(|example| example.adapter == "remote_write"));
}
