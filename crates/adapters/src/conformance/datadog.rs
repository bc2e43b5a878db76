//! Reads bodies as Datadog's schema has them, and cleans names and tags as Datadog does (metric-stores 2.3, 2.5 and 2.7): whatever it
//! would change is refused here.

use super::{Adapter, Batch, EXAMPLES, Example, Sample, StoredSeries, batch, golden, object, push_of, series, text, window};
use crate::{HeaderText, HttpRequest, Outgoing, Reply, Verdict};
use flate2::read::GzDecoder;
use model::{Label, Point, Shape};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<S> {
    series: Vec<S>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesV2 {
    metric: String,
    #[serde(default)]
    tags: Vec<String>,
    r#type: u8,
    interval: Option<u32>,
    points: Vec<PointV2>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointV2 {
    timestamp: i64,
    value: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesV1 {
    metric: String,
    #[serde(default)]
    tags: Vec<String>,
    r#type: String,
    interval: Option<u32>,
    points: Vec<(i64, f64)>,
}

pub(super) fn read_v2(body: &[u8]) -> Result<Vec<Sample>, String> {
    let body: Body<SeriesV2> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let samples = body.series.into_iter().map(|one| {
        let points: Vec<_> = one.points.iter().map(|point| (point.timestamp, point.value)).collect();
        let additive = match one.r#type {
            1 => true,
            3 => false,
            other => return Err(format!("no type for us: {other}")),
        };
        sample(&one.metric, &one.tags, additive, one.interval, &points)
    });
    samples.collect()
}

pub(super) fn read_v1(body: &[u8]) -> Result<Vec<Sample>, String> {
    let body: Body<SeriesV1> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let samples = body.series.into_iter().map(|one| {
        let additive = match one.r#type.as_str() {
            "count" => true,
            "gauge" => false,
            other => return Err(format!("no type for us: {other}")),
        };
        sample(&one.metric, &one.tags, additive, one.interval, &one.points)
    });
    samples.collect()
}

fn sample(metric: &str, tags: &[String], additive: bool, interval: Option<u32>, points: &[(i64, f64)]) -> Result<Sample, String> {
    let [(time, value)] = points[..] else { return Err(format!("not one point: {points:?}")) };
    if additive != interval.is_some_and(|seconds| seconds > 0) || (!additive && interval.is_some()) {
        return Err(format!("an interval of {interval:?} for a count: {additive}"));
    }
    if metric != cleaned_name(metric) || metric.len() > 200 {
        return Err(format!("a name that is changed: {metric:?} to {:?}", cleaned_name(metric)));
    }
    let mut labels = BTreeMap::new();
    for tag in tags {
        if *tag != cleaned_tag(tag) || tag.chars().count() > 200 {
            return Err(format!("a tag that is changed: {tag:?} to {:?}", cleaned_tag(tag)));
        }
        let (key, value) = tag.split_once(':').ok_or(format!("no key: {tag:?}"))?;
        if matches!(key, "host" | "device") || key.starts_with("dd.internal") || value.is_empty() {
            return Err(format!("a tag with a meaning of its own, or without value: {tag:?}"));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the tag {key:?} twice"));
        }
    }
    Ok(Sample { series: StoredSeries { name: metric.to_owned(), labels }, value, time: Some(time) })
}

/// A letter first; other characters become `_`; none twice, beside a dot or at the end.
fn cleaned_name(name: &str) -> String {
    let mut clean = String::new();
    for c in name.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).chars() {
        match c {
            c if c.is_ascii_alphanumeric() => clean.push(c),
            '.' if clean.ends_with('_') => {
                clean.pop();
                clean.push('.');
            }
            '.' if clean.ends_with('.') => {}
            '.' => clean.push('.'),
            _ if clean.ends_with(['_', '.']) => {}
            _ => clean.push('_'),
        }
    }
    clean.trim_end_matches('_').to_owned()
}

/// Lower case, a letter first; other characters become `_`, none twice; no `_` and no colon at the end.
fn cleaned_tag(tag: &str) -> String {
    let lower = tag.to_lowercase();
    let kept = |c: char| c.is_alphabetic() || c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | '/');
    let words = lower.split(|c| !kept(c));
    let mut clean = String::new();
    for (at, word) in words.enumerate() {
        if at > 0 && !clean.ends_with('_') {
            clean.push('_');
        }
        clean.push_str(word);
    }
    clean.trim_start_matches(|c: char| !c.is_alphabetic()).trim_end_matches(['_', ':']).to_owned()
}

const KEY: &str = r#""api_key": "k3y""#;

fn example() -> &'static Example {
    EXAMPLES.iter().find(|example| example.adapter == "datadog").expect("an example")
}

fn datadog(fields: &str) -> Adapter {
    Adapter::parse("datadog", &object(fields)).expect("sound settings")
}

fn one_line(adapter: &Adapter, one: &Batch) -> String {
    let body = String::from_utf8(push_of(adapter).encode(one).payloads[0].body()).expect("text");
    let lines: Vec<&str> = body.lines().collect();
    let [r#"{"series":["#, line, "]}"] = lines[..] else { panic!("not one line: {body}") };
    line.to_owned()
}

fn requests(adapter: &Adapter, batch: &Batch) -> Vec<HttpRequest> {
    let push = push_of(adapter);
    let requests = push.encode(batch).payloads.into_iter().map(|payload| match push.request(&payload) {
        Outgoing::Http(request) => request,
        Outgoing::Tcp(_) => panic!("not HTTP"),
    });
    requests.collect()
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| match value {
        HeaderText::Plain(text) => text.as_str(),
        HeaderText::Secret(secret) => secret.reveal(),
    })
}

#[test]
fn what_can_be_added_up_is_a_count_with_its_interval() {
    for (shape, v2, v1) in [
        (
            Shape::Additive,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":1,"interval":60,"points":[{"timestamp":1700000040,"value":17}]}"#,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":"count","interval":60,"points":[[1700000040,17]]}"#,
        ),
        (
            Shape::Gauge,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":3,"points":[{"timestamp":1700000040,"value":17}]}"#,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":"gauge","points":[[1700000040,17]]}"#,
        ),
        (
            Shape::Health,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":3,"points":[{"timestamp":1700000040,"value":17}]}"#,
            r#"{"metric":"p.q.count","tags":["os:linux"],"type":"gauge","points":[[1700000040,17]]}"#,
        ),
    ] {
        let point = Point { series: series(&["p", "q"], "count", &[("os", text("linux"))]), value: 17.0, shape };
        let one = Batch { window: window(), points: vec![point] };
        assert_eq!(one_line(&datadog(&format!("{{{KEY}}}")), &one), v2);
        assert_eq!(one_line(&datadog(&format!("{{{KEY}, \"version\": \"v1\"}}")), &one), v1);
    }
}

#[test]
fn names_are_written_as_datadog_keeps_them() {
    for (path, aggregate, expected) in [
        (&["crashmeter", "Project X", "Set", "Metric"][..], "count", "crashmeter.Project_X.Set.Metric.count"),
        (&["1st", "b"], "count", "metric.1st.b.count"),
        (&["_a_", "__b"], "c_", "a.b.c"),
        (&["a.b", "c-d", "e/f"], "x.y_max", "a_b.c_d.e_f.x_y_max"),
    ] {
        assert_eq!(sole(&series(path, aggregate, &[])).series.name, expected);
    }
    // Cut names keep their start, and a mark of all of the name tells them apart.
    let (long, cut) = ("n".repeat(99), format!("{0}.{1}_x", "n".repeat(99), "n".repeat(90)));
    let [count, max] = ["count", "max"].map(|aggregate| sole(&series(&[&long, &long], aggregate, &[])).series.name);
    assert!(count != max && [count, max].iter().all(|name| name.len() == 200 && name.starts_with(&cut)), "{cut}");
}

fn sole(one: &model::Series) -> Sample {
    let payloads = push_of(&datadog(&format!("{{{KEY}}}"))).encode(&batch([one.clone()])).payloads;
    read_v2(&payloads[0].body()).expect("sound").remove(0)
}

/// The one tag of a series.
fn tag(key: &str, label: Label) -> String {
    let sample = sole(&series(&["p", "q"], "count", &[(key, label)]));
    let (key, value) = sample.series.labels.into_iter().next().expect("a tag");
    format!("{key}:{value}")
}

#[test]
fn tags_are_written_as_datadog_keeps_them() {
    for (key, value, expected) in [
        ("error.type", "sigsegv", "error.type:sigsegv"),
        ("app.version", "1.2.3", "app.version:1.2.3"),
        ("App Version", "1.2.3", "app_version:1.2.3"),
        ("url", "http://h/a-b", "url:http://h/a-b"),
        ("k", "a:b:c", "k:a:b:c"),
        ("k", "_a", "k:_a"),
        ("k", "\u{438}\u{43c}\u{44f}", "k:\u{438}\u{43c}\u{44f}"),
        ("\u{43a}\u{43b}", "x", "\u{43a}\u{43b}:x"),
        ("k:l", "x", "k_l:x"),
        ("host", "h", "label_host:h"),
        ("HOST", "h", "label_host:h"),
        ("device", "d", "label_device:d"),
        ("dd.internal.resource", "x", "label_dd.internal.resource:x"),
        ("0abc", "x", "label_0abc:x"),
        ("__name__", "x", "name:x"),
        ("-a", "x", "label_-a:x"),
    ] {
        assert_eq!(tag(key, text(value)), expected);
    }
}

#[test]
fn a_value_that_datadog_would_change_carries_a_mark() {
    for (value, stem) in [
        ("SIGSEGV", "sigsegv"),
        ("A b", "a_b"),
        ("A_b", "a_b"),
        ("a b", "a_b"),
        ("a,b", "a_b"),
        ("a__b", "a_b"),
        ("a_", "a"),
        ("a:", "a"),
        ("a:_", "a"),
        (":", ""),
        ("___", ""),
        ("_other", "_other"),
        ("__other__", "_other"),
        ("_empty", "_empty"),
        ("none", "none"),
        ("a_x0a1b2c3d", "a_x0a1b2c3d"),
        ("\u{130}", "i"),
        ("\u{1c5}", "\u{1c6}"),
        ("\u{930}\u{940}", ""),
        ("e\u{301}", "e"),
    ] {
        let expected = format!("k:{stem}{}", crate::names::mark(value.as_bytes()));
        assert_eq!(tag("k", text(value)), expected, "{value:?}");
    }
    assert_eq!(tag("k", text("a_b")), "k:a_b");
    // As docs/adapters/datadog.md has it.
    assert_eq!(tag("k", text("SIGSEGV")), "k:sigsegv_x4ae729a7");
    assert_eq!(
        (tag("k", Label::Missing), tag("k", Label::Other), tag("k", text(""))),
        ("k:none".into(), "k:_other".into(), "k:_empty".into())
    );
}

#[test]
fn no_tag_is_longer_than_200_characters() {
    let keys = ["k".to_owned(), "k".repeat(89), "k".repeat(90), "k".repeat(91), "k".repeat(150), format!("{}_kk", "k".repeat(79))];
    for length in 80..=205 {
        for (middle, end) in [("x", 4), ("_x", 4), ("_", 0), ("\u{44f}", 20), ("_x", 20)] {
            for key in &keys {
                let value = format!("{}{middle}{}", "v".repeat(length), "y".repeat(end));
                let written = tag(key, text(&value));
                let whole = format!("{key}:{value}");
                assert!(written.chars().count() <= 200, "{written}");
                if key.len() <= 90 && whole.chars().count() <= 200 && !value.contains('_') {
                    assert_eq!(written, whole);
                }
            }
        }
    }
}

#[test]
fn long_keys_that_fall_together_are_told_apart() {
    // In each pair the mark would stand behind a `_`, were the key not shortened first.
    for stem in [format!("{}_aa", "k".repeat(89)), format!("{}_", "k".repeat(99))] {
        let one = series(&["p"], "count", &[(&stem, text("v")), (&stem.to_uppercase(), text("w"))]);
        assert_eq!(sole(&one).series.labels.len(), 2);
    }
}

#[test]
fn what_the_store_would_take_for_one_series_is_kept_apart() {
    let labels = [("a", text("x")), ("b", text("y"))];
    let turned = [labels[1].clone(), labels[0].clone()];
    let point = |shape, labels: &[(&str, Label)]| Point { series: series(&["p", "q"], "sum", labels), value: 1.0, shape };
    let points = vec![point(Shape::Additive, &labels), point(Shape::Additive, &turned), point(Shape::Gauge, &[])];
    let payloads = push_of(&example().adapter()).encode(&Batch { window: window(), points }).payloads;
    let samples = read_v2(&payloads[0].body()).expect("sound");
    // Tags have no order there.
    assert_ne!(samples[0].series, samples[1].series);
    // A metric has one type there.
    assert_ne!(samples[0].series.name, samples[2].series.name);
}

#[test]
fn both_limits_are_kept_where_values_hardly_compress() {
    let adapter = datadog(&format!("{{{KEY}}}"));
    // Digests: four bits of chance in each character.
    let long = |at: u32| (0..20).map(|part| crate::names::mark(&(at * 32 + part).to_le_bytes())[2..].to_owned()).collect::<String>();
    let many = batch((0..14_000).map(|at| series(&["p", "q", "r", "s"], "count", &[("k", text(&long(at)))])));
    let payloads = push_of(&adapter).encode(&many).payloads;
    let mut seen = BTreeSet::new();
    for (payload, request) in payloads.iter().zip(requests(&adapter, &many)) {
        // 90 % of what version 2 takes, which is less than what version 1 takes.
        assert!(payload.body_bytes() <= 4_718_592 && request.body.len() <= 460_800, "{} {}", payload.body_bytes(), request.body.len());
        assert!(request.body.len() > 100_000, "needlessly small: {}", request.body.len());
        seen.extend(payload.points());
    }
    assert_eq!(seen.len(), many.points.len());
    let whole: usize = payloads.iter().map(crate::Payload::body_bytes).sum();
    assert!(whole < 4_718_592 && payloads.len() > 1, "the limit before compression alone would do: {whole}");
}

#[test]
fn large_bodies_are_compressed_and_the_same_each_time() {
    let adapter = datadog(&format!("{{{KEY}}}"));
    let large = batch((0..100).map(|at| series(&["p", "q", "r", "s"], "count", &[("a", text(&at.to_string()))])));
    let payload = push_of(&adapter).encode(&large).payloads.swap_remove(0);
    let (one, other) = (requests(&adapter, &large), requests(&adapter, &large));
    assert_eq!(one, other);
    assert_eq!(header(&one[0], "content-encoding"), Some("gzip"));
    let mut body = Vec::new();
    GzDecoder::new(&one[0].body[..]).read_to_end(&mut body).expect("gzip");
    assert_eq!(body, payload.body());
    let small = requests(&adapter, &batch([series(&["p"], "count", &[])]));
    assert_eq!((header(&small[0], "content-encoding"), small[0].body.first()), (None, Some(&b'{')));
}

#[test]
fn each_version_has_its_path_behind_any_base() {
    for (fields, url, target) in [
        ("", "https://api.datadoghq.com/api/v2/series", "https://api.datadoghq.com:443"),
        (r#", "version": "v1""#, "https://api.datadoghq.com/api/v1/series", "https://api.datadoghq.com:443"),
        (r#", "site": "us3.datadoghq.com""#, "https://api.us3.datadoghq.com/api/v2/series", "https://api.us3.datadoghq.com:443"),
        (r#", "site": "datadoghq.eu", "url": """#, "https://api.datadoghq.eu/api/v2/series", "https://api.datadoghq.eu:443"),
        (r#", "url": "http://127.0.0.1:8125""#, "http://127.0.0.1:8125/api/v2/series", "http://127.0.0.1:8125"),
        (r#", "url": "https://h/proxy/", "version": "v1""#, "https://h/proxy/api/v1/series", "https://h:443"),
        (r#", "url": "https://h/proxy/api/v1/series/""#, "https://h/proxy/api/v2/series", "https://h:443"),
        (
            r#", "url": "https://api.datadoghq.eu/api/v1/validate""#,
            "https://api.datadoghq.eu/api/v2/series",
            "https://api.datadoghq.eu:443",
        ),
        (r#", "url": "https://h/api/v2/", "site": "datadoghq.eu""#, "https://h/api/v2/series", "https://h:443"),
    ] {
        let adapter = datadog(&format!("{{{KEY}{fields}}}"));
        let request = requests(&adapter, &batch([series(&["p"], "count", &[])])).remove(0);
        assert_eq!((request.method, request.url.as_str()), ("POST", url), "{fields}");
        assert_eq!(push_of(&adapter).target(), target);
        assert_eq!(header(&request, "dd-api-key"), Some("k3y"));
        assert_eq!(header(&request, "content-type"), Some("application/json"));
    }
    let address = |fields: &str| push_of(&datadog(fields)).address();
    assert_eq!(address(&format!("{{{KEY}}}")), ("site", "api.datadoghq.com".to_owned(), 443));
    assert_eq!(address(&format!("{{{KEY}, \"url\": \"http://h:81/x\"}}")), ("url", "h".to_owned(), 81));
}

#[test]
fn settings() {
    for (fields, faulty) in [
        (r#"{}"#, &["api_key"][..]),
        (r#"{"api_key": "k"}"#, &[]),
        (r#"{"DD_CLIENT_API_KEY": "k"}"#, &[]),
        (r#"{"DD_CLIENT_API_KEY": "k", "api_key": "l"}"#, &["DD_CLIENT_API_KEY"]),
        (r#"{"DD_CLIENT_API_KEY": "k\n"}"#, &["api_key"]),
        (r#"{"DD_CLIENT_API_KEY": null}"#, &["api_key"]),
        (r#"{"api_key": "k", "site": "datadoghq.con"}"#, &["site"]),
        (r#"{"api_key": "k", "site": "https://api.datadoghq.com"}"#, &["site"]),
        (r#"{"api_key": "k", "site": null, "url": "", "version": ""}"#, &[]),
        (r#"{"api_key": "k", "version": "v3"}"#, &["version"]),
        (r#"{"api_key": "k", "url": "api.datadoghq.com"}"#, &["url"]),
        (r#"{"api_key": "k", "url": "https://h/api/v2/series?api_key=k"}"#, &["url"]),
        (r#"{"api_key": "k", "url": "https://u:p@h"}"#, &["url"]),
        (r#"{"api_key": "k", "url": "https://app.datadoghq.com/account"}"#, &["url"]),
        (r#"{"api_key": "k", "url": "https://us5.datadoghq.com"}"#, &["url"]),
        (r#"{"api_key": 1, "app_key": "k\u0000", "url": "x"}"#, &["api_key", "app_key", "url"]),
    ] {
        let problems = Adapter::parse("datadog", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}: {problems:?}");
    }
}

#[test]
fn the_key_is_checked_without_writing() {
    let adapter = datadog(r#"{"api_key": "k3y", "site": "datadoghq.eu"}"#);
    let probe = push_of(&adapter).probe().expect("a probe");
    let Outgoing::Http(request) = &probe.outgoing else { panic!("not HTTP") };
    assert_eq!((request.method, request.url.as_str()), ("GET", "https://api.datadoghq.eu/api/v1/validate"));
    assert_eq!((header(request, "dd-api-key"), header(request, "content-type"), request.body.len()), (Some("k3y"), None, 0));
    let reply = |status, body: &str| Reply::Http { status, retry_after: None, body: body.into() };
    assert_eq!((probe.judge)(&reply(200, r#"{"valid":true}"#)), Verdict::Accepted { confirmed: true });
    assert!(matches!((probe.judge)(&reply(403, "")), Verdict::Config { .. }));
}

#[test]
fn metadata_is_told_once_for_each_metric_and_only_with_an_application_key() {
    assert!(push_of(&datadog(&format!("{{{KEY}}}"))).metadata(&golden::batch()).is_empty());
    let adapter = example().adapter();
    let told: Vec<(String, String)> = push_of(&adapter)
        .metadata(&golden::batch())
        .iter()
        .map(|outgoing| {
            let Outgoing::Http(request) = outgoing else { panic!("not HTTP") };
            assert_eq!((request.method, header(request, "content-type")), ("PUT", Some("application/json")));
            assert_eq!(
                [header(request, "dd-api-key"), header(request, "dd-application-key")],
                [Some(example().secrets[0]), Some(example().secrets[1])]
            );
            assert!(!example().secrets.iter().any(|secret| format!("{request:?}").contains(secret)));
            (request.url.to_string(), String::from_utf8(request.body.clone()).expect("text"))
        })
        .collect();
    let url = |name: &str| format!("https://api.datadoghq.com/api/v1/metrics/crashmeter.ProjectX.{name}");
    assert_eq!(
        told,
        [
            (
                url("Errors_and_users.All.tx_unique"),
                r#"{"type":"count","description":"crashmeter / ProjectX / Errors and users / All / tx_unique, over one window of 60 s","unit":"error"}"#.to_owned()
            ),
            (
                url("Errors_and_users.ByType.count"),
                r#"{"type":"count","description":"crashmeter / ProjectX / Errors and users / ByType / count, over one window of 60 s","unit":"error"}"#.to_owned()
            ),
            (
                url("Errors_and_users.ByType.process_age_mean"),
                r#"{"type":"gauge","description":"crashmeter / ProjectX / Errors and users / ByType / process_age_mean, over one window of 60 s"}"#.to_owned()
            ),
            (url("health.coverage"), r#"{"type":"gauge","description":"crashmeter / ProjectX / health / coverage"}"#.to_owned()),
        ]
    );
}

#[test]
fn metadata_goes_by_the_names_of_the_series_and_stays_short() {
    let adapter = example().adapter();
    let long = "n\n".repeat(3_000);
    let points = [("a b", 1.0), ("a-b", 2.0), ("a_b", 3.0), ("gone", f64::NAN), (long.as_str(), 4.0)];
    let points = points.map(|(set, value)| Point { series: series(&["p", set], "x_sum", &[]), value, shape: Shape::Additive });
    let batch = Batch { window: window(), points: points.to_vec() };
    let sent: BTreeSet<String> = push_of(&adapter)
        .encode(&batch)
        .payloads
        .iter()
        .flat_map(|payload| read_v2(&payload.body()).expect("sound"))
        .map(|sample| sample.series.name)
        .collect();
    let told: BTreeSet<String> = push_of(&adapter)
        .metadata(&batch)
        .iter()
        .map(|outgoing| {
            let Outgoing::Http(request) = outgoing else { panic!("not HTTP") };
            assert!(request.body.len() < 400 && !request.body.windows(4).any(|part| part == b"unit"), "{request:?}");
            request.url.path().trim_start_matches("/api/v1/metrics/").to_owned()
        })
        .collect();
    assert_eq!((told.len(), &told), (4, &sent));
}

#[test]
fn what_is_left_of_a_partly_refused_body_is_sent_not_confirmed() {
    let adapter = example().adapter();
    let push = push_of(&adapter);
    assert!(!push.confirms() && push.isolates() && !push.in_order());
    let payload = push.encode(&golden::batch()).payloads.swap_remove(0);
    let judge = |status, body: &str| push.judge(&payload, &Reply::Http { status, retry_after: None, body: body.into() });
    assert_eq!(judge(202, r#"{"errors":[]}"#), Verdict::Accepted { confirmed: false });
    assert!(matches!(judge(202, r#"{"errors":["x"]}"#), Verdict::Partial { unnamed: 1, .. }));
}
