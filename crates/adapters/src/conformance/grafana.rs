//! Reads arrays as the gateway does (metric-stores 4.2), but refuses where it takes what is missing for 0, and what it could store but
//! nobody could ask for.

use super::{Adapter, EXAMPLES, Sample, StoredSeries, batch, golden, object, push_of, series, text};
use crate::{HeaderText, HttpRequest, Outgoing, Reply, Verdict};
use model::Label;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metric {
    name: String,
    interval: u32,
    value: f64,
    time: i64,
    mtype: String,
    unit: String,
    tags: Vec<String>,
}

pub(super) fn read(body: &[u8]) -> Result<Vec<Sample>, String> {
    let metrics: Vec<Metric> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    metrics.into_iter().map(sample).collect()
}

fn sample(metric: Metric) -> Result<Sample, String> {
    let node = |node: &str| !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !metric.name.split('.').all(node) {
        return Err(format!("a name that cannot be queried: {:?}", metric.name));
    }
    if metric.interval == 0 || metric.time <= 0 || metric.mtype != "gauge" || !metric.unit.is_empty() {
        return Err(format!("interval {}, time {}, mtype {}, unit {}", metric.interval, metric.time, metric.mtype, metric.unit));
    }
    let mut labels = BTreeMap::new();
    for tag in &metric.tags {
        let (key, value) = tag.split_once('=').ok_or(format!("no tag: {tag:?}"))?;
        let key_sound = !key.is_empty() && key != "name" && !key.contains([';', '!', '^', '=']) && !key.contains(char::is_whitespace);
        let value_sound = !value.is_empty() && !value.starts_with('~') && !value.contains(';') && value.trim() == value;
        let clean = !tag.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        if !key_sound || !value_sound || !clean || value.chars().count() > 200 {
            return Err(format!("a tag that is refused: {tag:?}"));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the tag {key:?} twice"));
        }
    }
    Ok(Sample { series: StoredSeries { name: metric.name, labels }, value: metric.value, time: Some(metric.time) })
}

const DEDICATED: &str = r#"{"url": "https://tsdb-1-x.hosted-metrics.grafana.net/graphite", "api_key": "k3y"}"#;

fn grafana(fields: &str) -> Adapter {
    Adapter::parse("grafana", &object(fields)).expect("sound settings")
}

fn request(fields: &str) -> HttpRequest {
    let adapter = grafana(fields);
    let payload = push_of(&adapter).encode(&golden::batch()).payloads.swap_remove(0);
    let Outgoing::Http(request) = push_of(&adapter).request(&payload) else { panic!("not HTTP") };
    request
}

#[test]
fn metrics_say_what_was_meant() {
    for (label, value) in [
        (text("SIGSEGV"), "SIGSEGV"),
        (text("Access violation"), "Access violation"),
        (text("a=b"), "a=b"),
        (text("say \"hi\" \\o/"), r#"say \"hi\" \\o/"#),
        (text("\u{418}\u{43c}\u{44f}"), "\u{418}\u{43c}\u{44f}"),
        (Label::Missing, "none"),
        (Label::Other, "__other__"),
    ] {
        assert_eq!(one_line(label), line(value));
    }
    for (raw, stem) in
        [("a;b", "a_b"), ("~x", "_x"), ("~", "_"), (" x ", "x"), ("  ", ""), (" ~x", "_x"), ("a\nb", "a_b"), ("a\u{a0}b", "a_b")]
    {
        assert_eq!(one_line(text(raw)), line(&format!("{stem}{}", crate::names::mark(raw.as_bytes()))), "{raw:?}");
    }
}

/// The one metric of a body.
fn one_line(label: Label) -> String {
    let one = series(&["crashmeter", "Project X", "Set", "Metric"], "count", &[("error.type", label), ("app", text("p"))]);
    let body = String::from_utf8(push_of(&grafana(DEDICATED)).encode(&batch([one])).payloads[0].body()).expect("text");
    let lines: Vec<&str> = body.lines().collect();
    let ["[", line, "]"] = lines[..] else { panic!("not one line: {body}") };
    line.to_owned()
}

fn line(value: &str) -> String {
    let start = r#"{"name":"crashmeter.Project_X.Set.Metric.count","tags":["app=p","error.type="#;
    format!(r#"{start}{value}"],"interval":60,"value":0.25,"time":1700000040,"mtype":"gauge","unit":""}}"#)
}

#[test]
fn the_tag_that_carries_the_name_is_not_taken() {
    let one = series(&["p"], "count", &[("name", text("x")), ("a;b!c^d=e f", text("y"))]);
    let body = push_of(&grafana(DEDICATED)).encode(&batch([one])).payloads[0].body();
    let labels: BTreeMap<String, String> =
        [("label_name", "x"), ("a_b_c_d_e_f", "y")].map(|(key, value)| (key.into(), value.into())).into();
    assert_eq!(read(&body).expect("sound")[0].series.labels, labels);
}

#[test]
fn tags_have_no_order_in_the_store() {
    let labels = [("a", text("x")), ("b", text("y"))];
    let turned = [labels[1].clone(), labels[0].clone()];
    let both = batch([series(&["p"], "count", &labels), series(&["p"], "count", &turned)]);
    let samples = read(&push_of(&grafana(DEDICATED)).encode(&both).payloads[0].body()).expect("sound");
    assert_ne!(samples[0].series, samples[1].series);
}

#[test]
fn urls_are_made_the_ones_to_post_to() {
    for (url, posted) in [
        ("https://graphite-us-central1.grafana.net/metrics", "https://graphite-us-central1.grafana.net/metrics"),
        ("https://graphite-us-central1.grafana.net/metrics/", "https://graphite-us-central1.grafana.net/metrics"),
        ("https://graphite-us-central1.grafana.net", "https://graphite-us-central1.grafana.net/metrics"),
        ("https://graphite-us-central1.grafana.net/graphite", "https://graphite-us-central1.grafana.net/graphite/metrics"),
        ("https://tsdb-123-name.hosted-metrics.grafana.net/graphite", "https://tsdb-123-name.hosted-metrics.grafana.net/metrics"),
        ("https://tsdb-123-name.hosted-metrics.grafana.net/graphite/", "https://tsdb-123-name.hosted-metrics.grafana.net/metrics"),
        (
            "https://tsdb-123-name.hosted-metrics.grafana.net/graphite/metrics",
            "https://tsdb-123-name.hosted-metrics.grafana.net/graphite/metrics",
        ),
        ("https://tsdb-123-name.hosted-metrics.grafana.net/", "https://tsdb-123-name.hosted-metrics.grafana.net/metrics"),
        ("https://graphite-prod-1.grafana.net/graphite/metrics", "https://graphite-prod-1.grafana.net/graphite/metrics"),
        ("http://127.0.0.1:8080/graphite", "http://127.0.0.1:8080/graphite/metrics"),
        ("http://gateway:81/x/metrics", "http://gateway:81/x/metrics"),
        ("http://gateway:81/mymetrics", "http://gateway:81/mymetrics/metrics"),
        ("https://evil-hosted-metrics.grafana.net.example/graphite", "https://evil-hosted-metrics.grafana.net.example/graphite/metrics"),
    ] {
        let request = request(&format!(r#"{{"url": "{url}", "instance_id": "1", "api_key": "k"}}"#));
        assert_eq!((request.method, request.url.as_str(), request.masked_url().as_str()), ("POST", posted, posted));
    }
    let adapter = grafana(DEDICATED);
    assert_eq!(push_of(&adapter).target(), "https://tsdb-1-x.hosted-metrics.grafana.net:443");
    assert_eq!(push_of(&adapter).address(), ("url", "tsdb-1-x.hosted-metrics.grafana.net".to_owned(), 443));
}

#[test]
fn the_instance_stands_before_the_key_where_there_is_one() {
    for (fields, authorization) in [
        (r#"{"url": "https://graphite-us-central1.grafana.net/metrics", "instance_id": "12345", "api_key": "k3y"}"#, "Bearer 12345:k3y"),
        (
            r#"{"url": "https://tsdb-1-x.hosted-metrics.grafana.net/graphite", "instance_id": "api_key", "api_key": "k3y"}"#,
            "Bearer api_key:k3y",
        ),
        (DEDICATED, "Bearer k3y"),
    ] {
        let headers = request(fields).headers;
        let [("content-type", HeaderText::Plain(kind)), ("authorization", HeaderText::Secret(shown))] = &headers[..] else {
            panic!("{headers:?}")
        };
        // The gateway compares the whole text: with a charset it answers 400.
        assert_eq!((kind.as_str(), shown.reveal()), ("application/json", authorization));
    }
}

#[test]
fn bodies_are_never_compressed_and_the_same_each_time() {
    let adapter = grafana(DEDICATED);
    let push = push_of(&adapter);
    let large = batch((0..100).map(|at| series(&["p", "q", "r", "s"], "count", &[("a", text(&at.to_string()))])));
    let payload = push.encode(&large).payloads.swap_remove(0);
    let (Outgoing::Http(one), Outgoing::Http(other)) = (push.request(&payload), push.request(&payload)) else { panic!("not HTTP") };
    assert_eq!(one, other);
    assert_eq!(one.body, payload.body());
    assert!(one.body.len() > 4_096 && !one.headers.iter().any(|(name, _)| *name == "content-encoding"));
}

#[test]
fn settings() {
    for (fields, faulty) in [
        (r#"{}"#, &["url", "api_key"][..]),
        (r#"{"url": "https://graphite-us-central1.grafana.net/metrics", "api_key": "k"}"#, &["instance_id"]),
        (r#"{"url": "https://GRAPHITE-x.grafana.net/metrics", "api_key": "k", "instance_id": ""}"#, &["instance_id"]),
        (r#"{"url": "https://graphite-prod-1.grafana.net/graphite/metrics", "api_key": "k"}"#, &["instance_id"]),
        (r#"{"url": "https://graphite-us-central1.grafana.net/metrics", "api_key": "k", "instance_id": "1"}"#, &[]),
        (r#"{"url": "https://tsdb-1-x.hosted-metrics.grafana.net/graphite", "api_key": "k"}"#, &[]),
        (r#"{"url": "http://127.0.0.1:8080/metrics", "api_key": "k"}"#, &[]),
        (r#"{"url": "http://h/metrics", "api_key": "k", "instance_id": "1:2"}"#, &["instance_id"]),
        (r#"{"url": "http://h/metrics", "api_key": "k", "instance_id": "1 2"}"#, &["instance_id"]),
        (r#"{"url": "http://h/metrics", "api_key": "k", "instance_id": "1\r\nX: y"}"#, &["instance_id"]),
        (r#"{"url": "http://h/metrics", "api_key": "k", "instance_id": "\u00e4"}"#, &["instance_id"]),
        (r#"{"url": "http://h/metrics?x=y", "api_key": "k"}"#, &["url"]),
        (r#"{"url": "http://u:p@h/metrics", "api_key": "k"}"#, &["url"]),
        (r#"{"url": "h/metrics", "api_key": "k\r\n"}"#, &["url", "api_key"]),
    ] {
        let problems = Adapter::parse("grafana", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}: {problems:?}");
    }
}

#[test]
fn the_settings_are_tested_with_an_empty_array() {
    let adapter = EXAMPLES.iter().find(|example| example.adapter == "grafana").expect("an example").adapter();
    let probe = push_of(&adapter).probe().expect("a probe");
    let Outgoing::Http(request) = &probe.outgoing else { panic!("not HTTP") };
    assert_eq!((request.method, &request.body[..]), ("POST", &b"[]"[..]));
    assert!(request.headers.iter().any(|(name, _)| *name == "authorization"));
    let judge = |status, body: &str| (probe.judge)(&Reply::Http { status, retry_after: None, body: body.into() });
    assert_eq!(judge(200, r#"{"Invalid":0,"Published":0,"ValidationErrors":{}}"#), Verdict::Accepted { confirmed: true });
    assert!(matches!(judge(401, ""), Verdict::Config { .. }));
    assert!(matches!(judge(400, "unknown content-type"), Verdict::Drop { .. }));
}

#[test]
fn windows_go_in_order_and_a_refused_array_is_halved() {
    let adapter = grafana(DEDICATED);
    let push = push_of(&adapter);
    assert!(push.in_order() && push.isolates() && push.confirms());
    for (reason, known) in [
        ("HTTP 400: the sample has been rejected because ... (err-mimir-sample-out-of-order)", true),
        ("HTTP 400: ... (err-mimir-sample-duplicate-timestamp)", true),
        ("Duplicate sample for timestamp", true),
        ("out of order sample", true),
        ("interval cannot be 0", false),
        ("HTTP 400: unknown content-type", false),
    ] {
        assert_eq!(push.has_already(reason), known, "{reason}");
    }
}

#[test]
fn refused_elements_are_told_by_their_points() {
    let adapter = grafana(DEDICATED);
    let push = push_of(&adapter);
    let mut some = golden::batch();
    // Left out, so that places in the array are not numbers in the batch.
    some.points[1].value = f64::NAN;
    let payload = push.encode(&some).payloads.swap_remove(0);
    let body = r#"{"Invalid":2,"Published":3,"ValidationErrors":{"interval cannot be 0":{"Count":2,"ExampleIds":[1,4]}}}"#;
    let Verdict::Partial { refused, unnamed, reason } =
        push.judge(&payload, &Reply::Http { status: 200, retry_after: None, body: body.into() })
    else {
        panic!("not partial")
    };
    assert_eq!(refused, [(2, "interval cannot be 0".to_owned()), (5, "interval cannot be 0".to_owned())]);
    assert_eq!(unnamed, 0);
    assert!(reason.contains("ExampleIds"), "{reason}");
}
