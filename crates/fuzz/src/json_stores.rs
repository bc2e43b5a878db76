//! Targets of the stores that take JSON: Datadog, Grafana, Circonus. Each body is read by its schema, where nothing may be beyond it.

use crate::push::{Sample, Store, check};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The laws of `push` for both versions of Datadog's API, and one type for each metric.
pub(crate) fn datadog(input: &[u8]) -> String {
    let store = |fields, read| Store { adapter: "datadog", fields, frame_lines: 3, bytes_max: 5_242_880, read };
    check(
        input,
        &[
            store(r#"{"api_key": "0123456789abcdef0123456789abcdef", "app_key": "fedcba98"}"#, |_, body| {
                let body: Body<SeriesV2> = serde_json::from_slice(body).expect("the schema of version 2");
                let point = |points: &[PointV2]| points.iter().map(|point| (point.timestamp, point.value)).collect();
                read_datadog(body.series.into_iter().map(|one| (one.metric, one.tags, one.r#type == 1, one.interval, point(&one.points))))
            }),
            store(r#"{"api_key": "0123456789abcdef0123456789abcdef", "version": "v1"}"#, |_, body| {
                let body: Body<SeriesV1> = serde_json::from_slice(body).expect("the schema of version 1");
                read_datadog(body.series.into_iter().map(|one| (one.metric, one.tags, one.r#type == "count", one.interval, one.points)))
            }),
        ],
    )
}

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
    timestamp: u64,
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
    points: Vec<(u64, f64)>,
}

type DatadogSeries = (String, Vec<String>, bool, Option<u32>, Vec<(u64, f64)>);

fn read_datadog(series: impl Iterator<Item = DatadogSeries>) -> Vec<Sample> {
    let mut kinds: BTreeMap<String, bool> = BTreeMap::new();
    let sample = |(metric, tags, is_count, interval, points): DatadogSeries| {
        let sound = metric.len() <= 200
            && metric.starts_with(|c: char| c.is_ascii_alphabetic())
            && metric.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
            && !["__", "..", "_.", "._"].iter().any(|pair| metric.contains(pair))
            && !metric.ends_with(['_', '.']);
        assert!(sound, "the name {metric:?}");
        assert_eq!(*kinds.entry(metric.clone()).or_insert(is_count), is_count, "one type for {metric}");
        assert_eq!(interval.is_some_and(|secs| secs > 0), is_count, "an interval belongs to a count");
        let mut keys = Vec::new();
        for tag in &tags {
            let (key, value) = tag.split_once(':').expect("a tag has a key");
            let clean = |c: char| c.to_lowercase().eq([c]) && (c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '/'));
            assert!(key.starts_with(char::is_alphabetic) && !matches!(key, "host" | "device"), "the tag {tag:?}");
            assert!(!value.is_empty() && tag.chars().count() <= 200 && tag.chars().all(clean), "the tag {tag:?}");
            assert!(!tag.contains("__") && !tag.ends_with(['_', ':']), "the tag {tag:?}");
            assert!(!keys.contains(&key), "the tag {key} twice");
            keys.push(key);
        }
        let [(secs, value)] = points[..] else { panic!("{} points", points.len()) };
        Sample { series: format!("{metric} {tags:?}"), value, secs }
    };
    series.map(sample).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metric {
    name: String,
    tags: Vec<String>,
    interval: u32,
    value: f64,
    time: u64,
    mtype: String,
    unit: String,
}

/// The laws of `push` for Grafana's hosted Graphite.
pub(crate) fn grafana(input: &[u8]) -> String {
    check(
        input,
        &[Store {
            adapter: "grafana",
            fields: r#"{"url": "https://graphite-us.grafana.net/metrics", "instance_id": "12345", "api_key": "glc_sh4red"}"#,
            frame_lines: 3,
            bytes_max: 1 << 20,
            read: |_, body| serde_json::from_slice::<Vec<Metric>>(body).expect("the schema").into_iter().map(grafana_sample).collect(),
        }],
    )
}

fn grafana_sample(metric: Metric) -> Sample {
    let sound = |node: &str| !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    assert!(metric.name.split('.').all(sound), "the name {:?}", metric.name);
    assert!(metric.interval > 0 && metric.mtype == "gauge" && metric.unit.is_empty());
    let mut keys = Vec::new();
    for tag in &metric.tags {
        let (key, value) = tag.split_once('=').expect("a tag has a value");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        assert!(!key.is_empty() && key != "name" && key.chars().all(plain) && !keys.contains(&key), "the tag {tag:?}");
        assert!(!value.is_empty() && !value.contains(';') && !value.starts_with('~') && value.trim() == value, "the tag {tag:?}");
        assert!(!value.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')), "the tag {tag:?}");
        keys.push(key);
    }
    Sample { series: format!("{} {:?}", metric.name, metric.tags), value: metric.value, secs: metric.time }
}

/// The laws of `push` for both layouts of Circonus.
pub(crate) fn circonus(input: &[u8]) -> String {
    let read = |fields: &str, body: &[u8]| {
        let body: Map<String, Value> = serde_json::from_slice(body).expect("an object");
        body.into_iter().map(|(name, metric)| circonus_sample(name, &metric, !fields.contains("layout"))).collect()
    };
    let store = |fields| Store { adapter: "circonus_push", fields, frame_lines: 3, bytes_max: 1 << 20, read };
    check(
        input,
        &[
            store(r#"{"url": "https://trap.noit.circonus.net/module/httptrap/0a1b/s3cr3t"}"#),
            store(r#"{"url": "https://trap.noit.circonus.net/module/httptrap/0a1b/s3cr3t", "layout": "path"}"#),
        ],
    )
}

/// A metric as the broker's parser takes it: printable ASCII, and tags in brackets behind the name.
pub(crate) fn circonus_sample(name: String, metric: &Value, tagged: bool) -> Sample {
    assert!(name.len() <= 4_095 && name.bytes().all(|byte| matches!(byte, b' '..=b'~')), "the name {name:?}");
    let (stem, tags) = name.split_once("|ST[").map_or((name.as_str(), None), |(stem, tags)| (stem, Some(tags)));
    assert!(!stem.is_empty() && stem.trim() == stem && !stem.contains(['|', '[', ']', '{', '}']), "the name {name:?}");
    assert!(tagged || tags.is_none(), "tags in a path: {name:?}");
    if let Some(tags) = tags {
        let mut categories = Vec::new();
        for tag in tags.strip_suffix(']').expect("tags end").split(',') {
            assert!(tag.len() <= 255, "the tag {tag:?}");
            let (category, value) = tag.split_once(':').expect("a tag has a category");
            for side in [category, value] {
                let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-'));
                let base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                let coded = side.strip_prefix("b\"").and_then(|side| side.strip_suffix('"'));
                assert!(!side.is_empty() && coded.map_or(plain(side), base64), "the tag {tag:?}");
            }
            assert!(!categories.contains(&category), "the category {category} twice");
            categories.push(category);
        }
    }
    let known = metric.as_object().expect("an object").keys().all(|key| matches!(key.as_str(), "_type" | "_value" | "_ts"));
    assert!(known && metric.get("_type").is_none_or(|kind| kind == "n"), "{metric}");
    let value = metric["_value"].as_f64().expect("a number");
    Sample { value, secs: metric.get("_ts").map_or(0, |millis| millis.as_u64().expect("a time") / 1_000), series: name }
}
