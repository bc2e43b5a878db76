//! The exact bytes of one small batch, kept as files: a diff of bytes is a diff of behaviour. `GOLDEN=write` renews them.

use super::{Accept, Batch, EXAMPLES, Example, Outgoing, Period, Shape, series, text, window};
use model::{Counter, Label, Page, PageSeries, Point, Stamp};
use std::path::PathBuf;

/// A count, a group with a missing and a folded value, a gauge and a health series.
pub(super) fn batch() -> Batch {
    let errors = ["crashmeter", "ProjectX", "Errors and users", "ByType"];
    let group = |label: Label| [("error.type", label), ("app.version", text("1.2.3"))];
    let points = [
        (series(&["crashmeter", "ProjectX", "Errors and users", "All"], "tx_unique", &[]), 17.0, Shape::Additive),
        (series(&errors, "count", &group(text("Access violation"))), 12.0, Shape::Additive),
        (series(&errors, "process_age_mean", &group(text("Access violation"))), 3.75, Shape::Gauge),
        (series(&errors, "count", &group(Label::Missing)), 4.0, Shape::Additive),
        (series(&errors, "count", &group(Label::Other)), 0.0, Shape::Additive),
        (series(&["crashmeter", "ProjectX", "health"], "coverage", &[("store", text("main"))]), 1.0, Shape::Health),
    ];
    let points = points.into_iter().map(|(series, value, shape)| Point { series, value, shape });
    Batch { window: window(), points: points.collect() }
}

/// The same on a page, with counters and with when the window ended.
pub(super) fn page() -> Page {
    let counter = Counter { total: 1_234.0, created: Stamp::from_micros(1_699_990_000_250_000) };
    let mut series: Vec<PageSeries> = batch()
        .points
        .into_iter()
        .map(|point| PageSeries {
            series: point.series,
            shape: point.shape,
            value: Some(point.value),
            counter: (point.shape == Shape::Additive).then_some(counter),
        })
        .collect();
    let end = super::series(&["crashmeter", "ProjectX", "health"], "window_end_timestamp_seconds", &[("store", text("main"))]);
    series.push(PageSeries { series: end, shape: Shape::Health, value: Some(1_700_000_100.0), counter: None });
    Page { window: window(), series }
}

pub(super) fn file(example: &Example) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata", example.adapter, &format!("{}.txt", example.name)].iter().collect()
}

fn wire(example: &Example) -> String {
    let adapter = example.adapter();
    let mut wire = String::new();
    let mut add = |bytes: &[u8]| wire.push_str(std::str::from_utf8(bytes).expect("text"));
    if let Some(pull) = adapter.as_pull() {
        let rendered = pull.render(&page(), &Accept::read(example.accept));
        add(format!("Content-Type: {}\n\n", rendered.content_type).as_bytes());
        add(&rendered.body);
        return wire;
    }
    let push = super::push_of(&adapter);
    for payload in push.encode(&batch()).payloads {
        if let Outgoing::Http(request) = push.request(&payload) {
            add(format!("{} {}\n", request.method, request.masked_url()).as_bytes());
            request.headers.iter().for_each(|(name, value)| add(format!("{name}: {}\n", value.masked()).as_bytes()));
            add(b"\n");
        }
        let body = payload.body();
        if std::str::from_utf8(&body).is_ok() { add(&body) } else { add(crate::dump(&body).as_bytes()) }
    }
    wire
}

#[test]
fn the_bytes_on_the_wire_are_those_on_file() {
    for example in EXAMPLES {
        let (file, wire) = (file(example), wire(example));
        if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(&file, &wire).expect("a written file");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(wire, kept, "{}", example.label());
    }
}

#[test]
fn the_scrape_configuration_is_the_one_on_file() {
    let url = "https://crashes.example.com/pull/0123456789abcdef/metrics";
    let period = Period::new(60).expect("legal");
    for (example, password, kept) in [
        ("text", "<password>", include_str!("../../testdata/prometheus/scrape_config.yml")),
        ("openmetrics", "<bearer>", include_str!("../../testdata/prometheus/scrape_config_bearer.yml")),
    ] {
        let example = EXAMPLES.iter().find(|known| known.name == example).expect("an example");
        let crate::Adapter::Prometheus(prometheus) = example.adapter() else { panic!("not prometheus") };
        assert_eq!(prometheus.scrape_config(url, period, "crashes"), kept);
        let with_credentials = prometheus.scrape_config_with_credentials(url, period, "crashes");
        assert_eq!(with_credentials, kept.replace(password, example.secrets[0]));
    }
}
