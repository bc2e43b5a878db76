//! Points on their way to a store. Names and labels stay raw UTF-8 here; each adapter sanitises for its own wire.

use crate::time::{Stamp, Window};
use serde::{Deserialize, Serialize};

/// The value of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Label {
    /// A value some report had.
    Text(String),
    /// Reports without the attribute: shown as `none`, and kept apart from the text "none".
    Missing,
    /// All series beyond the cardinality budget together: shown as `__other__`, and kept apart from that text.
    Other,
}

/// How a series behaves over time, which decides its type in each store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// Windows may be added up (`count`, `unique(_tx)`): a count in Datadog, gauge and counter in Prometheus.
    Additive,
    /// Each window stands alone.
    Gauge,
    /// About the exporter itself (`up`, `coverage`): a plain gauge under its own name.
    Health,
}

/// Name and labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// Nodes from the root: by default `[prefix, project, set, metric]`. Never empty.
    pub path: Vec<String>,
    /// `count`, `tx_unique`, `process_age_max`, ...
    pub aggregate: String,
    /// In the order of the query's group-by, then the store's own labels.
    pub labels: Vec<(String, Label)>,
}

/// One value of one series for the batch's window. The value is finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Which series.
    pub series: Series,
    /// Its value.
    pub value: f64,
    /// What kind of number it is.
    pub shape: Shape,
}

/// All points of one window for one push store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The window: its start is the time on the wire.
    pub window: Window,
    /// The points, in a fixed order.
    pub points: Vec<Point>,
}

/// A counter beside a gauge on a pull page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// The total to show; never falls between births.
    pub total: f64,
    /// When the counter was born.
    pub created: Stamp,
}

/// One series on a pull page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageSeries {
    /// Which series.
    pub series: Series,
    /// What kind of number it is.
    pub shape: Shape,
    /// The window's value; missing when the aggregate has none in this window.
    pub value: Option<f64>,
    /// The running total, for additive series.
    pub counter: Option<Counter>,
}

/// What a pull store shows: one sealed window, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The window shown.
    pub window: Window,
    /// Its series, in a fixed order.
    pub series: Vec<PageSeries>,
}
