//! Reads line protocol twice, by the parser of version 3 and as version 1 reads it, and demands that both see the same.

use super::{Adapter, EXAMPLES, Sample, StoredSeries, batch, golden, object, push_of, series, text};
use crate::{HeaderText, HttpRequest, Outgoing};
use flate2::read::GzDecoder;
use influxdb_line_protocol::{FieldValue, parse_lines};
use std::collections::BTreeMap;
use std::io::Read;

pub(super) fn read(body: &[u8]) -> Result<Vec<Sample>, String> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut samples = Vec::new();
    for line in body.lines() {
        if line.chars().any(|c| c.is_control()) || line.is_empty() {
            return Err(format!("a blank line or control character: {line:?}"));
        }
        let parsed: Vec<_> = parse_lines(line).collect::<Result<_, _>>().map_err(|error| format!("{error}: {line:?}"))?;
        let [parsed] = &parsed[..] else { return Err(format!("not one line: {line:?}")) };
        let by_v3 = Line {
            measurement: parsed.series.measurement.to_string(),
            tags: parsed.series.tag_set.iter().flatten().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            fields: parsed
                .field_set
                .iter()
                .map(|(key, value)| (key.to_string(), value.clone()))
                .map(|(key, value)| Ok((key, float(&value)?)))
                .collect::<Result<_, String>>()?,
            time: parsed.timestamp.ok_or(format!("no time: {line:?}"))?,
        };
        let by_v1 = read_v1(line)?;
        if by_v1 != by_v3 {
            return Err(format!("two versions differ: {by_v1:?} and {by_v3:?}"));
        }
        check(&by_v1, line)?;
        let labels: BTreeMap<String, String> = by_v1.tags.iter().cloned().collect();
        samples.extend(by_v1.fields.iter().map(|(field, value)| Sample {
            series: StoredSeries { name: format!("{}\0{field}", by_v1.measurement), labels: labels.clone() },
            value: *value,
            time: Some(by_v1.time),
        }));
    }
    Ok(samples)
}

#[derive(Debug, PartialEq)]
struct Line {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, f64)>,
    time: i64,
}

fn float(value: &FieldValue<'_>) -> Result<f64, String> {
    if let FieldValue::F64(value) = value { Ok(*value) } else { Err(format!("not a float: {value:?}")) }
}

/// Version 1: a backslash before a delimiter takes its meaning, any other backslash is itself (metric-stores 6.2).
fn read_v1(line: &str) -> Result<Line, String> {
    let words = split(line, ' ');
    let [key, fields, time] = &words[..] else { return Err(format!("not three words: {line:?}")) };
    let mut parts = split(key, ',').into_iter();
    let measurement = unescaped(parts.next().unwrap_or_default(), &[',', ' ']);
    let pair = |part: &str| match &split(part, '=')[..] {
        [name, value] => Ok((unescaped(name, &[',', '=', ' ']), unescaped(value, &[',', '=', ' ']))),
        _ => Err(format!("not a pair: {part:?}")),
    };
    let tags = parts.map(pair).collect::<Result<_, _>>()?;
    let fields = split(fields, ',').into_iter().map(|part| {
        let (name, value) = pair(part)?;
        let plain =
            value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-')) && !value.starts_with('.') && !value.ends_with('.');
        Ok((name, value.parse().ok().filter(|_| plain).ok_or(format!("no float: {part:?}"))?))
    });
    let fields = fields.collect::<Result<_, String>>()?;
    Ok(Line { measurement, tags, fields, time: time.parse().map_err(|_| format!("no time: {line:?}"))? })
}

/// Splits where the delimiter does not follow a backslash.
fn split(text: &str, delimiter: char) -> Vec<&str> {
    let (mut parts, mut start, mut before) = (Vec::new(), 0, ' ');
    for (at, c) in text.char_indices() {
        if c == delimiter && before != '\\' {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        before = c;
    }
    parts.push(&text[start..]);
    parts
}

fn unescaped(text: &str, special: &[char]) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek().is_some_and(|next| special.contains(next)) {
            continue;
        }
        out.push(c);
    }
    out
}

fn check(line: &Line, raw: &str) -> Result<(), String> {
    let refused = |name: &str| name.is_empty() || name == "time" || name.starts_with('_') || name.contains('\\');
    let fault = if line.measurement.is_empty() || line.measurement.starts_with(['_', '#']) {
        "a measurement that is refused"
    } else if line.tags.iter().any(|(key, value)| refused(key) || value.is_empty() || value.ends_with('\\')) {
        "a tag that is refused"
    } else if !line.tags.is_sorted_by(|a, b| a.0 < b.0) {
        "tags out of order or twice"
    } else if line.fields.iter().any(|(name, _)| refused(name) || line.tags.iter().any(|(key, _)| key == name)) {
        "a field that is lost or read back under another name"
    } else if raw.len() > 64 << 10 {
        "a line that is too long"
    } else {
        return Ok(());
    };
    Err(format!("{fault}: {raw:?}"))
}

fn influxdb(fields: &str) -> Adapter {
    Adapter::parse("influxdb", &object(fields)).expect("sound settings")
}

fn request(fields: &str) -> HttpRequest {
    let adapter = influxdb(fields);
    let payload = push_of(&adapter).encode(&golden::batch()).payloads.swap_remove(0);
    let Outgoing::Http(request) = push_of(&adapter).request(&payload) else { panic!("not HTTP") };
    request
}

#[test]
fn values_and_names_are_read_back_as_they_were() {
    let values = ["a b", "a,b", "a=b", "a\"b", "back\\slash", "C:\\Program Files\\x", "\u{418}\u{43c}\u{44f}", "  ", "a\\nb", "1.2.3"];
    for value in values {
        let one = series(&["crashmeter", "Project X", "a,b", "c=d"], "count", &[("error.type", text(value)), ("x y", text("z"))]);
        let payloads = push_of(&influxdb(EXAMPLES[2].fields)).encode(&batch([one])).payloads;
        let samples = read(&payloads[0].body()).expect("sound lines");
        let labels: BTreeMap<String, String> =
            [("error.type", value), ("x y", "z")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(samples[0].series, StoredSeries { name: "crashmeter.Project X.a,b.c=d\0count".to_owned(), labels });
    }
}

#[test]
fn one_line_holds_all_aggregates_of_a_row() {
    let row = |aggregate, value| series(&["p", "q", "r", "s"], aggregate, &[("a", text(value))]);
    let encoded = push_of(&influxdb(EXAMPLES[2].fields)).encode(&batch([row("count", "x"), row("count", "y"), row("a_max", "x")]));
    assert_eq!(
        String::from_utf8(encoded.payloads[0].body()).expect("text"),
        "p.q.r.s,a=x count=0.25,a_max=2.25 1700000040\np.q.r.s,a=y count=1.25 1700000040\n"
    );
    let points: Vec<Vec<u32>> = encoded.payloads[0].pieces().map(|piece| piece.points.to_vec()).collect();
    assert_eq!(points, [vec![0, 2], vec![1]]);
}

#[test]
fn large_bodies_are_compressed_and_the_same_each_time() {
    let adapter = influxdb(EXAMPLES[3].fields);
    let push = push_of(&adapter);
    let large = batch((0..100).map(|at| series(&["p", "q", "r", "s"], "count", &[("a", text(&at.to_string()))])));
    let payload = push.encode(&large).payloads.swap_remove(0);
    let (Outgoing::Http(one), Outgoing::Http(other)) = (push.request(&payload), push.request(&payload)) else { panic!("not HTTP") };
    assert_eq!(one, other);
    assert!(one.headers.contains(&("content-encoding", HeaderText::Plain("gzip".into()))));
    let mut body = Vec::new();
    GzDecoder::new(&one.body[..]).read_to_end(&mut body).expect("gzip");
    assert_eq!(body, payload.body());
}

#[test]
fn each_version_is_spoken_to_in_its_own_words() {
    for (fields, url, authorization) in [
        (r#"{"url": "http://h:8086/write?db=d"}"#, "http://h:8086/write?db=d&precision=s", None),
        (r#"{"url": "http://h:8086/", "db": "d"}"#, "http://h:8086/write?db=d&precision=s", None),
        (r#"{"url": "http://h/proxy", "db": "d"}"#, "http://h/proxy/write?db=d&precision=s", None),
        (r#"{"url": "http://h/proxy/write/", "db": "d"}"#, "http://h/proxy/write?db=d&precision=s", None),
        (
            r#"{"url": "http://h/write?precision=us&db=d&consistency=all&precision=ns"}"#,
            "http://h/write?db=d&consistency=all&precision=s",
            None,
        ),
        (
            r#"{"url": "http://h/write?db=a%20b", "username": "u", "password": "p"}"#,
            "http://h/write?db=a+b&precision=s",
            Some("Basic dTpw"),
        ),
        (r#"{"url": "http://h/write?db=d", "token": "t"}"#, "http://h/write?db=d&precision=s", Some("Token t")),
        (
            r#"{"url": "http://h", "org": "o", "bucket": "b", "token": "t"}"#,
            "http://h/api/v2/write?org=o&bucket=b&precision=s",
            Some("Token t"),
        ),
        (
            r#"{"url": "http://h/api/v2/write?orgID=1&bucket=b", "token": "t"}"#,
            "http://h/api/v2/write?orgID=1&bucket=b&precision=s",
            Some("Token t"),
        ),
        (
            r#"{"url": "http://h/api/v2/write", "org": "o", "bucket": "d", "username": "u", "password": "p"}"#,
            "http://h/api/v2/write?org=o&bucket=d&precision=s",
            Some("Token u:p"),
        ),
        (
            r#"{"url": "http://h/api/v3/write_lp?db=d&no_sync=false", "token": "t"}"#,
            "http://h/api/v3/write_lp?db=d&no_sync=false&precision=second",
            Some("Bearer t"),
        ),
    ] {
        let request = request(fields);
        assert_eq!((request.method, request.url.as_str()), ("POST", url), "{fields}");
        let shown = request.headers.iter().find_map(|(name, value)| match value {
            HeaderText::Secret(secret) if *name == "authorization" => Some(secret.reveal()),
            _ => None,
        });
        assert_eq!(shown, authorization, "{fields}");
        assert!(request.headers.contains(&("content-type", HeaderText::Plain("text/plain; charset=utf-8".into()))));
    }
}

#[test]
fn settings() {
    for (fields, faulty) in [
        (r#"{}"#, &["url"][..]),
        (r#"{"url": "h"}"#, &["url"]),
        (r#"{"url": "ftp://h/write?db=d"}"#, &["url"]),
        (r#"{"url": "http://u:p@h/write?db=d"}"#, &["url"]),
        (r#"{"url": "http://h/write?db=d&u=x&p=y"}"#, &["url"]),
        (r#"{"url": "http://h/write?db=d#x"}"#, &["url"]),
        (r#"{"url": "http://h/write?db=d&db=e"}"#, &["url"]),
        (r#"{"url": "http://h/write?db=d\nx"}"#, &["url"]),
        (r#"{"url": "http://h/write"}"#, &["db"]),
        (r#"{"url": "http://h"}"#, &["db"]),
        (r#"{"url": "http://h/api/v2/write"}"#, &["org", "bucket"]),
        (r#"{"url": "http://h", "org": "o"}"#, &["bucket"]),
        (r#"{"url": "http://h", "db": "d", "org": "o", "bucket": "b"}"#, &["db"]),
        (r#"{"url": "http://h/write?db=d", "db": "e"}"#, &["db"]),
        (r#"{"url": "http://h/write?db=d", "db": "d"}"#, &[]),
        (r#"{"url": "http://h/write?db=d", "username": "u"}"#, &["password"]),
        (r#"{"url": "http://h/write?db=d", "password": "p"}"#, &["username"]),
        (r#"{"url": "http://h/write?db=d", "username": "u:v", "password": "p"}"#, &["username"]),
        (r#"{"url": "http://h/write?db=d", "username": "u", "password": "p", "token": "t"}"#, &["token"]),
        (r#"{"url": "http://h/api/v3/write_lp?db=d", "username": "u", "password": "p"}"#, &["username"]),
        (r#"{"url": "x", "token": "t\n", "db": 1}"#, &["token", "db", "url"]),
    ] {
        let problems = Adapter::parse("influxdb", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}: {problems:?}");
    }
}

#[test]
fn only_versions_that_refuse_whole_bodies_are_halved() {
    for (fields, isolates) in [
        (r#"{"url": "http://h/write?db=d"}"#, false),
        (r#"{"url": "http://h/api/v2/write?org=o&bucket=b"}"#, true),
        (r#"{"url": "http://h/api/v3/write_lp?db=d"}"#, false),
        (r#"{"url": "http://h/api/v3/write_lp?db=d&accept_partial=false"}"#, true),
    ] {
        assert_eq!(push_of(&influxdb(fields)).isolates(), isolates, "{fields}");
    }
}
