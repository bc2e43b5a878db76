//! What holds for every adapter and every batch.

use super::*;
use crate::Payload;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Where each point of a batch ended up. Every point is in exactly one place or excluded, and no two share a place.
fn places(example: &Example, batch: &Batch) -> BTreeMap<usize, StoredSeries> {
    let written = example.write(batch);
    let mut places = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for sample in written.samples {
        assert!(taken.insert(sample.series.clone()), "{}: two points are one series: {:?}", example.label(), sample.series);
        let known = places.insert(place_of(sample.value), sample.series);
        assert_eq!(known, None, "{}: a point was written twice", example.label());
        let description = example.adapter().description();
        let time = (!description.is_pull()).then_some(description.time_secs(batch.window) as i64);
        assert_eq!(sample.time, time, "{}", example.label());
    }
    let mut all: Vec<usize> = places.keys().copied().chain(written.excluded.iter().map(|excluded| excluded.point as usize)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..batch.points.len()).collect::<Vec<_>>(), "{}", example.label());
    places
}

#[test]
fn an_empty_batch_is_nothing_to_send() {
    for example in EXAMPLES {
        let adapter = example.adapter();
        if let Some(push) = adapter.as_push() {
            assert_eq!(push.encode(&batch([])), Encoded::default(), "{}", example.label());
        }
        assert!(example.write(&batch([])).samples.is_empty());
    }
}

#[test]
fn one_point_is_one_sample() {
    let one = batch([series(&["crashmeter", "ProjectX", "Set", "Metric"], "count", &[])]);
    for example in EXAMPLES {
        assert_eq!(places(example, &one).len(), 1);
    }
}

#[test]
fn hostile_texts_stay_where_they_were_put() {
    let hostile = hostile::batch();
    for example in EXAMPLES {
        let written = places(example, &hostile).len();
        let excluded = example.write(&hostile).excluded;
        assert!(excluded.is_empty(), "{}: {excluded:?}", example.label());
        assert_eq!(written, hostile.points.len(), "{}", example.label());
    }
}

#[test]
fn values_that_are_no_numbers_are_left_out_and_counted() {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e308, 5e-324, 9_007_199_254_740_993.0, -17.5];
    let points = values.iter().enumerate().map(|(at, &value)| {
        let label = ("at", text(&at.to_string()));
        Point { series: series(&["p", "q", "r", "s"], "max", &[label]), value, shape: Shape::Gauge }
    });
    let batch = Batch { window: window(), points: points.collect() };
    for example in EXAMPLES {
        let written = example.write(&batch);
        let excluded: Vec<u32> = written.excluded.iter().map(|excluded| excluded.point).collect();
        assert_eq!(excluded, [0, 1, 2], "{}", example.label());
        let read: Vec<u64> = written.samples.iter().map(|sample| sample.value.to_bits()).collect();
        let expected = [0.0, 1e308, 5e-324, 9_007_199_254_740_992.0, -17.5].map(f64::to_bits);
        assert_eq!(read, expected, "{}", example.label());
    }
}

#[test]
fn points_carry_the_start_of_their_window_or_what_the_store_still_takes() {
    for (start, period, aged) in [
        (1_700_000_040, 60, 1_700_000_040),
        (1_699_999_200, 1_800, 1_699_999_200),
        (1_699_999_080, 1_860, 1_699_999_140),
        (1_699_999_200, 3_600, 1_700_001_000),
        (1_699_920_000, 86_400, 1_700_004_600),
    ] {
        let window = Window::new(start, Period::new(period).expect("legal")).expect("on the grid");
        let one = Batch { window, ..batch([series(&["p", "q", "r", "s"], "count", &[])]) };
        for example in EXAMPLES.iter().filter(|example| !example.adapter().description().is_pull()) {
            let takes_old = example.adapter().description().takes_old_points;
            let time = example.write(&one).samples[0].time;
            assert_eq!(time, Some(if takes_old { start as i64 } else { aged }), "{} {period}", example.label());
        }
    }
}

#[test]
fn a_large_batch_is_sent_in_requests_below_the_limits() {
    let many = batch((0..20_000).map(|at| {
        let labels = [("user.name", text(&format!("{at:0>180}"))), ("os", text("linux"))];
        series(&["crashmeter", "ProjectX", "Set", "Metric"], if at % 2 == 0 { "count" } else { "process_age_max" }, &labels)
    }));
    for example in EXAMPLES {
        assert_eq!(places(example, &many).len(), many.points.len(), "{}", example.label());
        let adapter = example.adapter();
        let Some(push) = adapter.as_push() else { continue };
        let payloads = push.encode(&many).payloads;
        let (pieces_max, bytes_max) = example.limits;
        assert!(payloads.len() > 1, "{}", example.label());
        assert!(payloads.iter().all(|payload| payload.len() <= pieces_max && payload.body().len() <= bytes_max), "{}", example.label());
    }
}

#[test]
fn many_short_lines_are_sent_in_requests_below_the_limits() {
    let many = batch((0..12_000).map(|at| series(&["p", "q", "r", "s"], "count", &[("a", text(&at.to_string()))])));
    for example in EXAMPLES {
        let adapter = example.adapter();
        let Some(push) = adapter.as_push() else { continue };
        let payloads = push.encode(&many).payloads;
        assert!(payloads.iter().all(|payload| payload.len() <= example.limits.0), "{}", example.label());
    }
}

#[test]
fn split_bodies_carry_the_same_points_in_the_same_bytes() {
    let hostile = hostile::batch();
    for example in EXAMPLES {
        let adapter = example.adapter();
        let Some(push) = adapter.as_push() else { continue };
        let whole = push.encode(&hostile).payloads;
        let mut left: Vec<Payload> = whole.clone();
        let (mut points, mut samples) = (Vec::new(), Vec::new());
        while let Some(payload) = left.pop() {
            assert_eq!(Payload::from_bytes(&payload.to_bytes()).as_ref(), Some(&payload));
            match payload.halves() {
                Some((first, second)) => left.extend([second, first]),
                None => {
                    samples.extend((example.read)(&payload.body()).expect("a piece alone is a sound body"));
                    points.extend(payload.points());
                }
            }
        }
        let expected: Vec<u32> = whole.iter().rev().flat_map(Payload::points).collect();
        assert_eq!(points, expected, "{}", example.label());
        assert_eq!(samples.len(), expected.len(), "{}", example.label());
    }
}

#[test]
fn the_same_series_twice_is_one_series() {
    let one = series(&["p", "q", "r", "s"], "count", &[("a", text("x"))]);
    for example in EXAMPLES {
        let written = example.write(&batch([one.clone(), one.clone()]));
        assert_eq!(written.samples.len(), 1, "{}", example.label());
        assert_eq!(written.excluded.iter().map(|excluded| excluded.point).collect::<Vec<_>>(), [1], "{}", example.label());
    }
}

#[test]
fn what_is_missing_folded_or_empty_is_told_from_the_words_for_it() {
    let labels = [Label::Missing, Label::Other, text(""), text("none"), text("__other__"), text("__empty__"), text(" "), text("None")];
    let all = batch(labels.into_iter().map(|label| series(&["p", "q", "r", "s"], "count", &[("a.b", label)])));
    for example in EXAMPLES {
        let shown: Vec<String> = places(example, &all).into_values().map(|series| shown(&series)).collect();
        for (place, word) in [(0, "none"), (1, "__other__"), (2, "__empty__")].map(|(place, word)| (place, kept(example, word))) {
            assert!(shown[place].contains(&word) && !shown[place].contains("_x"), "{}: {}", example.label(), shown[place]);
        }
        for (place, word) in [(3, "none"), (4, "__other__"), (5, "__empty__")].map(|(place, word)| (place, kept(example, word))) {
            assert!(shown[place].contains(&format!("{word}_x")), "{}: {}", example.label(), shown[place]);
        }
    }
}

/// How the store keeps a word of ours: Datadog leaves no `_` twice and none at the end.
fn kept(example: &Example, word: &str) -> String {
    match example.adapter {
        "datadog" => word.trim_end_matches('_').replace("__", "_"),
        _ => word.to_owned(),
    }
}

/// Name and labels in one text, for layouts that put labels into the name too.
fn shown(series: &StoredSeries) -> String {
    format!("{} {:?}", series.name, series.labels.values().collect::<Vec<_>>())
}

#[test]
fn nobody_can_pass_for_another_by_sending_its_mark() {
    let marked = format!("none{}", crate::names::mark(b"none"));
    let both = batch([text("none"), text(&marked)].map(|label| series(&["p", "q", "r", "s"], "count", &[("a", label)])));
    for example in EXAMPLES {
        let together = places(example, &both);
        let alone = |at: usize| places(example, &batch([both.points[at].series.clone()])).remove(&0);
        assert_eq!((together.get(&0), together.get(&1)), (alone(0).as_ref(), alone(1).as_ref()), "{}", example.label());
        assert_ne!(alone(0), alone(1), "{}", example.label());
    }
}

#[test]
fn a_value_of_ten_megabytes_is_cut_and_still_itself() {
    let long = "x".repeat(10 << 20);
    let all =
        batch([format!("{long}1"), format!("{long}2")].iter().map(|value| series(&["p", "q", "r", "s"], "count", &[("a", text(value))])));
    for example in EXAMPLES {
        assert_eq!(places(example, &all).len(), 2, "{}", example.label());
        assert!(example.write(&all).bodies.concat().len() < 2_000, "{}", example.label());
    }
}

/// Texts made of the characters that some parser on the way cares about.
pub(super) fn nasty() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "a",
        "b",
        "A",
        "_",
        "_x0a1b2c3d",
        ".",
        "-",
        " ",
        ";",
        "=",
        ",",
        "\\",
        "\"",
        "\n",
        "\r",
        "\t",
        "~",
        "{",
        "}",
        "#",
        "/",
        "0",
        "1",
        "é",
        "\0",
        "\u{85}",
        "\u{2028}",
        "!",
        "^",
        "none",
        "time",
        "name",
        "count",
        "series",
    ]);
    prop::collection::vec(parts, 0..4).prop_map(|parts| parts.concat())
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![8 => nasty().prop_map(Label::Text), 1 => Just(Label::Missing), 1 => Just(Label::Other)]
}

pub(super) fn any_series() -> impl Strategy<Value = Series> {
    let aggregate = prop_oneof![Just("count".to_owned()), Just("a_max".to_owned()), nasty().prop_filter("named", |name| !name.is_empty())];
    (prop::collection::vec(nasty(), 1..4), aggregate, prop::collection::vec((nasty(), label()), 0..3))
        .prop_map(|(path, aggregate, labels)| Series { path, aggregate, labels })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_series_are_told_apart(all in prop::collection::btree_set(any_series(), 0..40)) {
        let all = batch(all);
        for example in EXAMPLES {
            let places = places(example, &all);
            prop_assert_eq!(places.len(), all.points.len(), "{}", example.label());
            prop_assert_eq!(example.write(&all).bodies, example.write(&all).bodies);
        }
    }

    #[test]
    fn a_value_is_written_the_same_whoever_else_is_there(values in prop::collection::btree_set(label(), 1..12), present in any::<u16>()) {
        let all = batch(values.into_iter().map(|value| series(&["p", "q", "r", "s"], "count", &[("error.type", value), ("os", text("a b"))])));
        let some = Batch { points: all.points.iter().enumerate().filter(|(at, _)| present >> at & 1 == 1).map(|(_, point)| point.clone()).collect(), ..all.clone() };
        for example in EXAMPLES {
            let (with_all, with_some) = (example.write(&all).samples, example.write(&some).samples);
            for sample in &with_some {
                prop_assert!(with_all.contains(sample), "{}: {:?} was renamed", example.label(), sample);
            }
        }
    }
}
