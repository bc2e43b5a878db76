//! What the stores must hold, worked out from the submissions alone in the plainest way: the oracle of the end-to-end tests.

use std::collections::{BTreeMap, BTreeSet};

/// One submission that was confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// The second in which the server stamped it: with a period of one second, its window.
    pub(crate) second: u64,
    /// The value of the attribute that the metric groups by, or the placeholder where it has none.
    pub(crate) group: String,
    /// Whom it hit.
    pub(crate) user: String,
    /// A number on it.
    pub(crate) score: f64,
}

/// Series by group value, with Unix milliseconds and value.
pub(crate) type Points = BTreeMap<String, Vec<(u64, f64)>>;

/// The aggregates of the tests' metrics, as series names spell them.
pub(crate) const AGGREGATES: [&str; 5] = ["tx_unique", "user_unique", "score_sum", "score_max", "score_mean"];

/// The fold for [`AGGREGATES`] in the Backtrace grammar.
pub(crate) fn fold() -> serde_json::Value {
    serde_json::json!({"_tx": [["unique"]], "user": [["unique"]], "score": [["sum"], ["max"], ["mean"]]})
}

/// The points of one aggregate in the windows from `first` to `last`, one series a group, or a single one named "" when `grouped`
/// is false. A window without reports is 0 where that is what an empty window counts, and has no point otherwise; a group begins
/// with its first report.
pub(crate) fn points(counted: &[Counted], aggregate: &str, grouped: bool, first: u64, last: u64) -> Points {
    let group_of = |one: &Counted| if grouped { one.group.clone() } else { String::new() };
    let mut points = Points::new();
    if !grouped {
        points.insert(String::new(), Vec::new());
    }
    for second in first..=last {
        for one in counted.iter().filter(|one| one.second == second) {
            points.entry(group_of(one)).or_default();
        }
        for (group, series) in &mut points {
            let of_window: Vec<&Counted> = counted.iter().filter(|one| one.second == second && group_of(one) == *group).collect();
            series.extend(value(&of_window, aggregate).map(|value| (second * 1_000, value)));
        }
    }
    points.retain(|_, series| !series.is_empty());
    points
}

fn value(reports: &[&Counted], aggregate: &str) -> Option<f64> {
    let scores = reports.iter().map(|one| one.score);
    let sum: f64 = scores.clone().sum();
    match aggregate {
        "tx_unique" => Some(reports.len() as f64),
        "user_unique" => Some(reports.iter().map(|one| &one.user).collect::<BTreeSet<_>>().len() as f64),
        "score_sum" => Some(sum),
        "score_max" => scores.reduce(f64::max),
        "score_mean" => (!reports.is_empty()).then(|| sum / reports.len() as f64),
        other => panic!("no such aggregate here: {other}"),
    }
}

/// `None` when both are the same, else the first difference in words. Values may differ by `tolerance`, a share of the value.
pub(crate) fn difference(found: &Points, expected: &Points, tolerance: f64) -> Option<String> {
    let same = |found: &[(u64, f64)], expected: &[(u64, f64)]| {
        let close = |found: f64, expected: f64| (found - expected).abs() <= tolerance * expected.abs();
        found.len() == expected.len() && found.iter().zip(expected).all(|(one, other)| one.0 == other.0 && close(one.1, other.1))
    };
    let groups: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    groups.into_iter().find_map(|group| match (found.get(group), expected.get(group)) {
        (Some(found), Some(expected)) if same(found, expected) => None,
        (found, expected) => Some(format!("series {group:?}:\n   found {found:?}\nexpected {expected:?}")),
    })
}

#[test]
fn the_oracle_counts_by_hand_made_numbers() {
    let one = |second, group: &str, user: &str, score| Counted { second, group: group.into(), user: user.into(), score };
    let counted = [one(11, "a", "u", 3.0), one(11, "a", "u", 5.0), one(12, "b", "v", 1.0)];
    let series = |group: &str, values: &[(u64, f64)]| (group.to_owned(), values.to_vec());
    let of = |aggregate, grouped| points(&counted, aggregate, grouped, 10, 13);
    assert_eq!(of("tx_unique", false), Points::from([series("", &[(10_000, 0.0), (11_000, 2.0), (12_000, 1.0), (13_000, 0.0)])]));
    let by_group = [series("a", &[(11_000, 1.0), (12_000, 0.0), (13_000, 0.0)]), series("b", &[(12_000, 1.0), (13_000, 0.0)])];
    assert_eq!(of("user_unique", true), Points::from(by_group));
    assert_eq!(of("score_mean", true), Points::from([series("a", &[(11_000, 4.0)]), series("b", &[(12_000, 1.0)])]));
    assert_eq!(difference(&of("score_max", true), &of("score_max", true), 0.0), None);
    assert!(difference(&of("score_max", true), &of("score_sum", true), 0.1).is_some());
}
