//! One suite for every adapter: a new one joins by its rows in `EXAMPLES`, with a reader that shares no code with its encoder.
//!
//! Each point of a test batch has a value of its own, so a reader's samples say where each point ended up.

mod at_once;
mod circonus;
mod datadog;
mod docs;
mod golden;
mod grafana;
mod graphite;
mod hostile;
mod influxdb;
mod laws;
mod prometheus;
mod remote_write;
mod snippets;

use crate::{Accept, Adapter, Encoded, Excluded, Outgoing, Preset, Push};
use crate::{Field, Kind, description, descriptions};
use model::{Batch, Label, Page, PageSeries, Period, Point, Series, Shape, Window};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A store to run the suite against.
struct Example {
    /// Names its golden file: `testdata/<adapter>/<name>.txt`.
    name: &'static str,
    adapter: &'static str,
    /// The user's settings as JSON.
    fields: &'static str,
    /// Texts of those settings that nobody may see.
    secrets: &'static [&'static str],
    /// What a reader of a page asks for.
    accept: Option<&'static str>,
    /// Most pieces and bytes in one request.
    limits: (usize, usize),
    /// Reads a body as strictly as the store's strictest parser.
    read: fn(&[u8]) -> Result<Vec<Sample>, String>,
}

const EXAMPLES: &[Example] = &[
    Example {
        name: "tagged",
        adapter: "graphite",
        fields: r#"{"host": "graphite.example.com"}"#,
        secrets: &[],
        accept: None,
        limits: (usize::MAX, 1 << 20),
        read: graphite::read_tagged,
    },
    Example {
        name: "path",
        adapter: "graphite",
        fields: r#"{"host": "graphite.example.com", "port": 2013, "layout": "path", "tls": true, "step": 60}"#,
        secrets: &[],
        accept: None,
        limits: (usize::MAX, 1 << 20),
        read: graphite::read_path,
    },
    Example {
        name: "v1",
        adapter: "influxdb",
        fields: r#"{"url": "http://influx.example.com:8086/write?db=crashes&rp=month", "username": "writer", "password": "pa55word"}"#,
        secrets: &["pa55word", "d3JpdGVyOnBhNTV3b3Jk"],
        accept: None,
        limits: (5_000, 1 << 20),
        read: influxdb::read,
    },
    Example {
        name: "v2",
        adapter: "influxdb",
        fields: r#"{"url": "https://influx.example.com", "org": "acme", "bucket": "crashes", "token": "t0ken-of-v2"}"#,
        secrets: &["t0ken-of-v2"],
        accept: None,
        limits: (5_000, 1 << 20),
        read: influxdb::read,
    },
    Example {
        name: "v3",
        adapter: "influxdb",
        fields: r#"{"url": "https://influx.example.com/api/v3/write_lp", "db": "crashes", "token": "t0ken-of-v3"}"#,
        secrets: &["t0ken-of-v3"],
        accept: None,
        limits: (5_000, 1 << 20),
        read: influxdb::read,
    },
    Example {
        name: "v2",
        adapter: "datadog",
        fields: r#"{"api_key": "0123456789abcdef0123456789abcdef", "app_key": "fedcba9876543210fedcba9876543210fedcba98"}"#,
        secrets: &["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210fedcba98"],
        accept: None,
        limits: (usize::MAX, 5_242_880),
        read: datadog::read_v2,
    },
    Example {
        name: "v1",
        adapter: "datadog",
        fields: r#"{"url": "https://collect.example.com/datadog", "api_key": "0123456789abcdef0123456789abcdef", "version": "v1"}"#,
        secrets: &["0123456789abcdef0123456789abcdef"],
        accept: None,
        limits: (usize::MAX, 5_242_880),
        read: datadog::read_v1,
    },
    Example {
        name: "shared",
        adapter: "grafana",
        fields: r#"{"url": "https://graphite-us-central1.grafana.net/metrics", "instance_id": "12345", "api_key": "glc_of-sh4red"}"#,
        secrets: &["glc_of-sh4red"],
        accept: None,
        limits: (5_000, 1 << 20),
        read: grafana::read,
    },
    Example {
        name: "dedicated",
        adapter: "grafana",
        fields: r#"{"url": "https://tsdb-123-name.hosted-metrics.grafana.net/graphite", "api_key": "glc_of-ded1cated"}"#,
        secrets: &["glc_of-ded1cated"],
        accept: None,
        limits: (5_000, 1 << 20),
        read: grafana::read,
    },
    Example {
        name: "text",
        adapter: "prometheus",
        fields: r#"{"username": "scraper", "password": "pa55word"}"#,
        secrets: &["pa55word"],
        accept: Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"),
        limits: (usize::MAX, usize::MAX),
        read: prometheus::read_text,
    },
    Example {
        name: "openmetrics",
        adapter: "prometheus",
        fields: r#"{"bearer": "t0ken-of-scraper"}"#,
        secrets: &["t0ken-of-scraper"],
        accept: Some(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ),
        limits: (usize::MAX, usize::MAX),
        read: prometheus::read_open_metrics,
    },
    Example {
        name: "stream_tags",
        adapter: "circonus_push",
        fields: r#"{"url": "https://trap.noit.circonus.net/module/httptrap/0a1b2c3d-0000-4000-8000-0123456789ab/s3cr3t-of-trap"}"#,
        secrets: &["s3cr3t-of-trap", "0a1b2c3d"],
        accept: None,
        limits: (1_000, 1 << 20),
        read: circonus::read_push,
    },
    Example {
        name: "path",
        adapter: "circonus_push",
        fields: r#"{"url": "https://broker.example.com:43191/module/httptrap/0a1b2c3d-0000-4000-8000-0123456789ab/s3cr3t-of-trap", "layout": "path", "ca_pem": "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}"#,
        secrets: &["s3cr3t-of-trap", "0a1b2c3d"],
        accept: None,
        limits: (1_000, 1 << 20),
        read: circonus::read_push,
    },
    Example {
        name: "page",
        adapter: "circonus_pull",
        fields: r#"{"username": "0123456789abcdef", "password": "pa55word-of-check"}"#,
        secrets: &["pa55word-of-check"],
        accept: Some("*/*"),
        limits: (usize::MAX, usize::MAX),
        read: circonus::read_pull,
    },
    Example {
        name: "request",
        adapter: "remote_write",
        fields: r#"{"url": "https://prometheus.example.com/api/v1/write", "username": "writer", "password": "pa55word-of-writer"}"#,
        secrets: &["pa55word-of-writer", "d3JpdGVyOnBhNTV3b3JkLW9mLXdyaXRlcg=="],
        accept: None,
        limits: (2_000, 1 << 20),
        read: remote_write::read,
    },
];

/// What a store would take from a body.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// Name and labels as the store tells series apart by them.
    series: StoredSeries,
    value: f64,
    /// Unix seconds, where the body says.
    time: Option<i64>,
}

/// Name and labels, the labels in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StoredSeries {
    name: String,
    labels: BTreeMap<String, String>,
}

/// A batch as a store sees it.
struct Written {
    samples: Vec<Sample>,
    excluded: Vec<Excluded>,
    /// The bodies.
    bodies: Vec<Vec<u8>>,
}

impl Example {
    fn adapter(&self) -> Adapter {
        Adapter::parse(self.adapter, &object(self.fields)).expect("sound settings")
    }

    fn label(&self) -> String {
        format!("{}/{}", self.adapter, self.name)
    }

    /// Encodes or renders the batch and reads it back.
    fn write(&self, batch: &Batch) -> Written {
        let adapter = self.adapter();
        let (bodies, excluded) = match (adapter.as_push(), adapter.as_pull()) {
            (Some(push), _) => {
                let Encoded { payloads, excluded, .. } = push.encode(batch);
                (payloads.iter().map(crate::Payload::body).collect(), excluded)
            }
            (_, Some(pull)) => {
                let rendered = pull.render(&page(batch), &Accept::read(self.accept));
                (vec![rendered.body], rendered.excluded)
            }
            _ => unreachable!("an adapter is one of the two"),
        };
        let samples = bodies.iter().flat_map(|body: &Vec<u8>| {
            (self.read)(body).unwrap_or_else(|fault| panic!("{}: {fault} in\n{}", self.label(), String::from_utf8_lossy(body)))
        });
        Written { samples: samples.collect(), excluded, bodies }
    }
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).expect("a JSON object")
}

fn window() -> Window {
    Window::new(1_700_000_040, Period::new(60).expect("legal")).expect("on the grid")
}

fn text(value: &str) -> Label {
    Label::Text(value.to_owned())
}

fn series(path: &[&str], aggregate: &str, labels: &[(&str, Label)]) -> Series {
    Series {
        path: path.iter().map(|&node| node.to_owned()).collect(),
        aggregate: aggregate.to_owned(),
        labels: labels.iter().map(|(name, label)| ((*name).to_owned(), label.clone())).collect(),
    }
}

/// A batch of the series, each with a value that no other has.
fn batch(series: impl IntoIterator<Item = Series>) -> Batch {
    let points = series.into_iter().enumerate().map(|(at, series)| Point { series, value: value_of(at), shape: Shape::Gauge });
    Batch { window: window(), points: points.collect() }
}

fn value_of(at: usize) -> f64 {
    at as f64 + 0.25
}

fn place_of(value: f64) -> usize {
    (value - 0.25) as usize
}

/// The page that shows the same values.
fn page(batch: &Batch) -> Page {
    let series = batch.points.iter().map(|point| PageSeries {
        series: point.series.clone(),
        shape: point.shape,
        value: Some(point.value),
        counter: None,
    });
    Page { window: batch.window, series: series.collect() }
}

#[test]
fn every_adapter_has_an_example_and_a_sound_description() {
    for description in descriptions() {
        assert!(EXAMPLES.iter().any(|example| example.adapter == description.name), "{}", description.name);
        assert!(description.fields.iter().all(is_sound), "{}", description.name);
        let json = serde_json::to_value(description).expect("JSON");
        assert_eq!(json["fields"].as_array().map(Vec::len), Some(description.fields.len()));
    }
    for example in EXAMPLES {
        let adapter = example.adapter();
        assert_eq!(adapter.name(), example.adapter);
        assert_eq!(adapter.as_pull().is_some(), description(example.adapter).is_some_and(|description| description.is_pull()));
        assert_eq!(adapter.as_push().is_none(), adapter.as_pull().is_some());
        assert_eq!(crate::is_push(example.adapter), adapter.as_push().is_some());
    }
}

/// Whether the default fits the field's kind, and a choice has its default first.
fn is_sound(field: &Field) -> bool {
    let default_fits = match (field.kind, field.default) {
        (_, None) => true,
        (Kind::Choice, Some(Preset::Text(text))) => field.choices.first() == Some(&text),
        (Kind::Bool, Some(Preset::Flag(_))) | (Kind::Port | Kind::Integer, Some(Preset::Integer(_))) => true,
        _ => false,
    };
    default_fits && (field.kind == Kind::Choice) != field.choices.is_empty() && !(field.required && field.default.is_some())
}

#[test]
fn no_secret_is_seen_where_people_look() {
    for example in EXAMPLES {
        let adapter = example.adapter();
        let mut seen = format!("{adapter:?}");
        if let Some(push) = adapter.as_push() {
            let payload = push.encode(&golden::batch()).payloads.swap_remove(0);
            let outgoing = push.request(&payload);
            seen.push_str(&format!("{outgoing:?} {}", push.target()));
            if let Outgoing::Http(request) = &outgoing {
                seen.push_str(&request.masked_url());
                let shown = request.secret_path || !example.secrets.iter().any(|secret| request.url.as_str().contains(secret));
                assert!(shown, "{}", example.label());
            }
        }
        for secret in example.secrets {
            assert!(!seen.contains(secret), "{}: {seen}", example.label());
        }
    }
}

#[test]
fn a_fault_in_a_secret_does_not_repeat_it() {
    for example in EXAMPLES {
        let Some(description) = description(example.adapter) else { panic!("no {}", example.adapter) };
        for field in description.fields.iter().filter(|field| field.is_secret()) {
            for bad in ["hunter2\r\nX-Evil: 1", "hunter2\0", "hunter2\u{e4}", &"hunter2".repeat(1_000)] {
                let mut fields = object(example.fields);
                fields.insert(field.name.to_owned(), bad.into());
                let problems = Adapter::parse(example.adapter, &fields).expect_err("refused");
                assert!(problems.iter().any(|problem| problem.field == field.name), "{problems:?}");
                assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
            }
        }
    }
}

#[test]
fn fields_that_are_unknown_missing_or_generated_are_named() {
    for example in EXAMPLES {
        let description = example.adapter().description();
        for field in description.fields {
            let mut fields = object(example.fields);
            fields.remove(field.name);
            let missing = Adapter::parse(example.adapter, &fields).err().unwrap_or_default();
            assert_eq!(
                missing.iter().any(|problem| problem.field == field.name) && field.required,
                field.required,
                "{}: {missing:?}",
                field.name
            );
            if field.generated && !field.required {
                fields.insert(field.name.to_owned(), "https://x.example".into());
                let problems = Adapter::parse(example.adapter, &fields).expect_err("refused");
                assert_eq!(problems[0].field, field.name);
            }
        }
        let mut fields = object(example.fields);
        fields.insert("colour".to_owned(), "blue".into());
        let problems = Adapter::parse(example.adapter, &fields).expect_err("refused");
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["colour"]);
    }
    assert_eq!(Adapter::parse("opentsdb", &Map::new()).expect_err("refused")[0].field, "adapter");
}

fn push_of(adapter: &Adapter) -> &dyn Push {
    adapter.as_push().expect("a push adapter")
}
