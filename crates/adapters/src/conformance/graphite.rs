//! Reads Graphite lines as Carbon does (metric-stores 3.1 and 3.2), but refuses where Carbon drops or repairs.

use super::{Adapter, Sample, StoredSeries, batch, object, push_of, series, text};
use crate::{Outgoing, Reply, Verdict};
use model::{Label, Period};
use std::collections::BTreeMap;

pub(super) fn read_tagged(body: &[u8]) -> Result<Vec<Sample>, String> {
    read(body, |metric| {
        let mut parts = metric.split(';');
        let name = parts.next().unwrap_or_default().to_owned();
        check_path(&name)?;
        let mut labels = BTreeMap::new();
        for tag in parts {
            let (key, value) = tag.split_once('=').ok_or(format!("no tag: {tag:?}"))?;
            let key_sound =
                !key.is_empty() && key != "name" && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            if !key_sound || value.is_empty() || value.starts_with('~') || value.chars().count() > 200 {
                return Err(format!("a tag that is refused: {tag:?}"));
            }
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("the tag {key:?} twice"));
            }
        }
        Ok(StoredSeries { name, labels })
    })
}

pub(super) fn read_path(body: &[u8]) -> Result<Vec<Sample>, String> {
    read(body, |metric| {
        check_path(metric)?;
        if metric.len() > 230 {
            return Err(format!("a file name that is too long: {metric:?}"));
        }
        Ok(StoredSeries { name: metric.to_owned(), labels: BTreeMap::new() })
    })
}

fn read(body: &[u8], series_of: impl Fn(&str) -> Result<StoredSeries, String>) -> Result<Vec<Sample>, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let Some(text) = text.strip_suffix('\n') else {
        return if text.is_empty() { Ok(Vec::new()) } else { Err("the last line does not end".to_owned()) };
    };
    let sample = |line: &str| {
        // Python's `split` takes these control characters for blanks too.
        let tokens: Vec<&str> = line.split(|c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')).collect();
        let [metric, value, time] = tokens[..] else { return Err(format!("not three tokens: {line:?}")) };
        if metric.contains('{') && metric.ends_with("\"}") {
            return Err(format!("OpenMetrics syntax: {line:?}"));
        }
        let plain = !value.contains(['e', 'E', '+']) && value.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let value = value.parse().ok().filter(|value: &f64| plain && value.is_finite()).ok_or(format!("no number: {line:?}"))?;
        let time = time.parse().map_err(|_| format!("no time: {line:?}"))?;
        Ok(Sample { series: series_of(metric)?, value, time: Some(time) })
    };
    text.split('\n').map(sample).collect()
}

fn check_path(path: &str) -> Result<(), String> {
    let sound =
        |node: &str| !node.is_empty() && node.len() <= 110 && node.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if path.split('.').all(sound) { Ok(()) } else { Err(format!("a path that cannot be queried: {path:?}")) }
}

fn graphite(fields: &str) -> Adapter {
    Adapter::parse("graphite", &object(fields)).expect("sound settings")
}

fn lines(fields: &str, series: model::Series) -> String {
    let payloads = push_of(&graphite(fields)).encode(&batch([series])).payloads;
    String::from_utf8(payloads[0].body()).expect("text")
}

const PATH: &str = r#"{"host": "h", "layout": "path"}"#;
const TAGGED: &str = r#"{"host": "h"}"#;

#[test]
fn lines_say_what_was_meant() {
    for (value, tagged, path) in [
        ("SIGSEGV", "SIGSEGV", "SIGSEGV"),
        ("1.2.3", "1.2.3", "1_2_3"),
        ("1_2_3", "1_2_3", "1_2_3_x68bd845e"),
        ("x86_64", "x86_64", "x86_64"),
        ("std::bad_alloc", "std::bad_alloc", "std__bad_alloc_xb0f42ad4"),
        ("Access violation", "Access_violation_x8b6a39eb", "Access_violation_x8b6a39eb"),
    ] {
        let one = series(&["crashmeter", "Project X", "Set", "Metric"], "count", &[("error.type", text(value))]);
        assert_eq!(lines(TAGGED, one.clone()), format!("crashmeter.Project_X.Set.Metric.count;error.type={tagged} 0.25 1700000040\n"));
        assert_eq!(lines(PATH, one), format!("crashmeter.Project_X.Set.Metric.error_type.{path}.count 0.25 1700000040\n"));
    }
}

#[test]
fn names_that_fall_together_are_marked_but_for_the_plain_one() {
    let all = batch(["a_b", "a b", "a.b"].map(|metric| series(&["p", "q", "r", metric], "count", &[])));
    let encoded = push_of(&graphite(TAGGED)).encode(&all);
    let body = String::from_utf8(encoded.payloads[0].body()).expect("text");
    let names: Vec<&str> = body.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names[0], "p.q.r.a_b.count");
    assert!(names[1..].iter().all(|name| name.starts_with("p.q.r.a_b.count_x")), "{names:?}");
    assert_eq!(
        encoded.notes.iter().map(|note| note.raw.as_str()).collect::<Vec<_>>(),
        ["p / q / r / a b / count", "p / q / r / a.b / count"]
    );
}

#[test]
fn a_path_too_long_for_a_file_is_left_out_with_the_reason() {
    let labels: Vec<(String, Label)> = (0..5).map(|at| (format!("key{at}"), text(&"v".repeat(60)))).collect();
    let long = model::Series { labels, ..series(&["p", "q", "r", "s"], "count", &[]) };
    let encoded = push_of(&graphite(PATH)).encode(&batch([long.clone()]));
    assert!(encoded.payloads.is_empty() && encoded.excluded[0].reason.contains("230 bytes"), "{encoded:?}");
    assert_eq!(push_of(&graphite(TAGGED)).encode(&batch([long])).excluded, []);
}

#[test]
fn settings() {
    for (fields, faulty) in [
        (r#"{}"#, &["host"][..]),
        (r#"{"host": ""}"#, &["host"]),
        (r#"{"host": "h:2003"}"#, &["host"]),
        (r#"{"host": "tcp://h"}"#, &["host"]),
        (r#"{"host": "a b"}"#, &["host"]),
        (r#"{"host": "h\nx"}"#, &["host"]),
        (r#"{"host": "h", "port": 0}"#, &["port"]),
        (r#"{"host": "h", "port": 65536}"#, &["port"]),
        (r#"{"host": "h", "port": -1}"#, &["port"]),
        (r#"{"host": "h", "layout": "pickle"}"#, &["layout"]),
        (r#"{"host": "h", "tls": "yes", "step": 0.5}"#, &["tls", "step"]),
        (r#"{"host": 1, "port": "x", "step": "y"}"#, &["host", "port", "step"]),
        (r#"{"host": "h", "port": "2003", "step": "", "layout": null}"#, &[]),
        (r#"{"host": "::1"}"#, &[]),
        (r#"{"host": "[::1]"}"#, &[]),
    ] {
        let problems = Adapter::parse("graphite", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}");
    }
}

#[test]
fn a_retention_step_above_the_period_is_refused() {
    let stepped = graphite(r#"{"host": "h", "step": 60}"#);
    for (period, sound) in [(30, false), (59, false), (60, true), (300, true)] {
        assert_eq!(stepped.check_period(Period::new(period).expect("legal")).is_ok(), sound, "{period}");
    }
    assert_eq!(graphite(TAGGED).check_period(Period::new(1).expect("legal")), Ok(()));
}

#[test]
fn written_lines_are_sent_but_never_confirmed() {
    let adapter = graphite(r#"{"host": "::1", "tls": true}"#);
    let push = push_of(&adapter);
    let payload = crate::Payload::new(b"", b"", b"");
    assert_eq!(push.judge(&payload, &Reply::Tcp), Verdict::Accepted { confirmed: false });
    assert!(matches!(push.judge(&payload, &Reply::Http { status: 400, retry_after: None, body: Vec::new() }), Verdict::Config { .. }));
    assert_eq!(push.target(), "tls://[::1]:2003");
    assert_eq!(push.address(), ("host", "::1".to_owned(), 2003));
    assert!(matches!(push.request(&payload), Outgoing::Tcp(lines) if lines.tls && lines.port == 2003));
}
