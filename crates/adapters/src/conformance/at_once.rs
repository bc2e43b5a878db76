//! What is quick must say what is careful: batches written in one walk, values copied without a look at their characters.

use super::laws::{any_series, nasty};
use super::{Batch, batch, series, text, value_of, window};
use crate::datadog::tag;
use crate::names::{Clean, Plain, Speller, VALUE_CHARS_MAX, as_it_is, mark};
use crate::prometheus::{Format, render_at_once, render_with_care};
use crate::{grafana, graphite, influxdb, prometheus};
use model::{Counter, Label, Page, PageSeries, Series, Shape, Stamp};
use proptest::prelude::*;

/// Groups of two metrics with several aggregates each, as windows hold them.
fn ordinary() -> Vec<Series> {
    let group = |metric: &'static str, key: &'static str| {
        ["count", "tx_unique", "guid_unique"]
            .map(|aggregate| series(&["p", "q", metric], aggregate, &[("a.b", text(key)), ("c", text("1.2 x"))]))
    };
    [("m", "x"), ("m", "y"), ("n", "x"), ("n", "z")].into_iter().flat_map(|(metric, key)| group(metric, key)).collect()
}

fn page(batch: &Batch, without: u32) -> Page {
    let one = |(at, point): (usize, &model::Point)| PageSeries {
        series: point.series.clone(),
        shape: point.shape,
        value: (without >> (at % 32) & 1 == 0).then_some(value_of(at)),
        counter: (point.shape == Shape::Additive).then_some(Counter { total: at as f64, created: Stamp::from_secs(at as u64) }),
    };
    Page { window: window(), series: batch.points.iter().enumerate().map(one).collect() }
}

/// Whether both were written in one walk; then they must be as if they had been written with care.
fn at_once(batch: &Batch, without: u32) -> [bool; 2] {
    let page = page(batch, without);
    let mut is_page = true;
    for format in [Format::Text, Format::OpenMetrics] {
        let rendered = render_at_once(&page, format);
        is_page &= rendered.is_some();
        if let Some(rendered) = rendered {
            assert_eq!(rendered, render_with_care(&page, format));
        }
    }
    let lines = influxdb::write_at_once(batch);
    let are_lines = lines.is_some();
    if let Some(lines) = lines {
        assert_eq!(lines, influxdb::write_with_care(batch));
    }
    [is_page, are_lines]
}

#[test]
fn ordinary_batches_are_written_at_once() {
    let mut all = batch([series(&["p", "health"], "up", &[])].into_iter().chain(ordinary()));
    all.points[0].shape = Shape::Health;
    all.points.iter_mut().filter(|point| point.series.aggregate == "count").for_each(|point| point.shape = Shape::Additive);
    assert_eq!(at_once(&all, 0b101), [true, true]);
    assert_eq!(at_once(&batch([]), 0), [true, true]);
}

#[test]
fn what_falls_together_or_stands_apart_is_written_with_care() {
    let of = |path: &str, aggregate: &str, value: &str| series(&[path], aggregate, &[("k", text(value))]);
    let long = "\u{20ac}".repeat(VALUE_CHARS_MAX);
    let many: Vec<(String, Label)> = (0..120).map(|at| (format!("k{at}"), text(&long))).collect();
    for (all, expected) in [
        (vec![of("a", "n", "x"), of("a", "n", "x")], [false, false]),
        (vec![of("a", "n", "x"), of("a", "m", "x"), of("a", "n", "x")], [false, false]),
        (vec![of("a", "n", "x"), of("a", "n", "y"), of("a", "m", "x")], [true, false]),
        (vec![of("a.b", "n", "x"), of("a-b", "n", "x")], [false, true]),
        (vec![of("a\\b", "n", "x"), of("a_b", "n", "x")], [false, false]),
        (vec![Series { labels: many, ..of("a", "n", "x") }], [true, false]),
    ] {
        assert_eq!(at_once(&batch(all.clone()), 0), expected, "{all:?}");
    }
    for value in [f64::NAN, f64::INFINITY] {
        let mut one = batch([of("a", "n", "x")]);
        one.points[0].value = value;
        assert!(influxdb::write_at_once(&one).is_none());
    }
}

/// Whether a value is written as it would be without a short cut.
fn is_same<'a>(
    raw: &'a Label,
    chars_max: usize,
    plain: &Plain,
    clean: impl Fn(&'a str) -> Clean<'a> + Copy,
    escape: fn(&str, &mut Vec<u8>),
) -> bool {
    let (mut quick, mut careful) = (Vec::new(), Vec::new());
    let [mut one, mut other] = [(); 2].map(|()| Speller::default());
    one.write(raw, chars_max, plain, clean, escape, &mut quick);
    escape(&other.value(raw, chars_max, clean), &mut careful);
    quick == careful && one.finish() == other.finish()
}

fn check(raw: &str) {
    let label = text(raw);
    assert!(is_same(&label, VALUE_CHARS_MAX, &prometheus::PLAIN, prometheus::label_value, prometheus::escape), "prometheus: {raw:?}");
    assert!(is_same(&label, VALUE_CHARS_MAX, &influxdb::PLAIN, influxdb::tag_value, influxdb::escape_tag), "influxdb: {raw:?}");
    assert!(is_same(&label, VALUE_CHARS_MAX, &graphite::PLAIN, graphite::tag_value, as_it_is), "graphite: {raw:?}");
    assert!(is_same(&label, VALUE_CHARS_MAX, &grafana::PLAIN, grafana::tag_value, grafana::write_json), "grafana: {raw:?}");
    assert!(is_same(&label, 150, &tag::PLAIN, |raw| tag::value(raw, 150), as_it_is), "datadog: {raw:?}");
}

#[test]
fn values_that_might_stand_for_others_are_not_copied_as_they_are() {
    let long = "x".repeat(VALUE_CHARS_MAX + 1);
    for raw in ["", "none", "__other__", "__empty__", "_other", "_empty", &mark(b"a"), &format!("a{}", mark(b"a")), &long, &long[1..]] {
        check(raw);
    }
    (0..=0x2ff)
        .filter_map(char::from_u32)
        .for_each(|c| [format!("{c}"), format!("a{c}b"), format!("{c}b"), format!("a{c}")].iter().for_each(|raw| check(raw)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn values_are_written_as_without_a_short_cut(raw in prop_oneof![nasty(), "[ -~]{0,12}", "[a-z_0-9.-]{0,12}"]) {
        check(&raw);
    }

    #[test]
    fn what_is_written_at_once_is_what_is_written_with_care(
        all in prop::collection::vec(prop_oneof![prop::sample::select(ordinary()), any_series()], 0..8),
        shapes in prop::collection::vec(prop::sample::select(vec![Shape::Gauge, Shape::Additive, Shape::Health]), 8),
        without in any::<u32>(),
    ) {
        let mut all = batch(all);
        all.points.iter_mut().zip(shapes).for_each(|(point, shape)| point.shape = shape);
        at_once(&all, without);
    }
}
