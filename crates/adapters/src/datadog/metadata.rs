//! What Datadog is told about the metrics: type, unit and a sentence for people (metric-stores 2.1).

use crate::names::{Name, Names};
use model::{Batch, Shape};
use serde_json::json;
use std::collections::BTreeSet;

/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 300;
/// Aggregates that count reports, and Datadog's unit for what a report tells of.
const REPORTS: [&str; 2] = ["count", "tx_unique"];
const REPORTS_UNIT: &str = "error";

/// Name and body of each metric of the batch, in the order of their first points.
pub(super) fn bodies(batch: &Batch, names: &Names) -> Vec<(String, Vec<u8>)> {
    let mut known = BTreeSet::new();
    let firsts = (0..batch.points.len()).filter(|&at| batch.points[at].value.is_finite() && known.insert(names.place(at)));
    let body = |at: usize| {
        let point = &batch.points[at];
        let shown = Name::of(&point.series, point.shape).shown();
        let description = match point.shape {
            Shape::Health => shown,
            Shape::Additive | Shape::Gauge => format!("{shown}, over one window of {} s", batch.window.period().secs()),
        };
        let clean: String = description.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DESCRIPTION_CHARS_MAX).collect();
        let kind = if point.shape == Shape::Additive { "count" } else { "gauge" };
        let mut body = json!({"type": kind, "description": clean});
        if point.shape == Shape::Additive && REPORTS.contains(&point.series.aggregate.as_str()) {
            body["unit"] = REPORTS_UNIT.into();
        }
        (names.of(at).to_owned(), body.to_string().into_bytes())
    };
    firsts.map(body).collect()
}
