//! Reads a window with hostile names, labels and values out of bytes. The same bytes give the page of a pull store and the batch of a
//! push store.

use crate::source::{FIELD, NODE, RECORD, split, text};
use model::{Batch, Counter, Label, Page, PageSeries, Period, Point, Series, Shape, Stamp};

/// Most series of one window.
const SERIES_MAX: usize = 26;
/// Windows begin before this second.
const LAST_SECS: u64 = 1 << 36;

/// The first record is the window (period, number on the grid) and a reader's `Accept`. Each other is a series: value and, behind
/// semicolons, counter and its birth; shape and path; aggregate; then labels, each a name and a value, where `\x01` alone is a missing
/// value and `\x02` alone all others together.
pub(crate) fn page(input: &[u8]) -> (Page, String) {
    let mut records = split(input, RECORD);
    let mut head = split(records.next().unwrap_or_default(), FIELD);
    let mut number = |usual: u64| text(head.next().unwrap_or_default()).parse().unwrap_or(usual);
    let period = Period::new((number(60) % 86_400) as u32).unwrap_or(Period::new(60).expect("legal"));
    let window = period.window_at(Stamp::from_secs((number(28_333_334) % LAST_SECS).saturating_mul(u64::from(period.secs())) % LAST_SECS));
    let accept = text(head.next().unwrap_or_default());
    (Page { window, series: records.take(SERIES_MAX).map(series).collect() }, accept)
}

/// The points of a page that have a value.
pub(crate) fn batch(page: &Page) -> Batch {
    let point = |one: &PageSeries| Some(Point { series: one.series.clone(), value: one.value?, shape: one.shape });
    Batch { window: page.window, points: page.series.iter().filter_map(point).collect() }
}

fn series(record: &[u8]) -> PageSeries {
    let mut fields = split(record, FIELD);
    let mut field = || fields.next().unwrap_or_default();
    let (numbers, path, aggregate) = (text(field()), field(), text(field()));
    let mut numbers = numbers.split(';').map(|text| text.parse::<f64>().ok());
    let value = numbers.next().flatten();
    let counter = numbers.next().flatten().map(|total| Counter {
        total,
        created: Stamp::from_micros(numbers.next().flatten().unwrap_or_default().abs() as u64 % (LAST_SECS * 1_000_000)),
    });
    let (shape, path) = match path.split_first() {
        Some((b'+', rest)) => (Shape::Additive, rest),
        Some((b'!', rest)) => (Shape::Health, rest),
        _ => (Shape::Gauge, path),
    };
    let mut labels = Vec::new();
    while let Some(name) = fields.next() {
        let label = match fields.next().unwrap_or_default() {
            b"\x01" => Label::Missing,
            b"\x02" => Label::Other,
            value => Label::Text(text(value)),
        };
        labels.push((text(name), label));
    }
    let counter = counter.filter(|_| shape == Shape::Additive);
    PageSeries { series: Series { path: split(path, NODE).map(text).collect(), aggregate, labels }, shape, value, counter }
}

/// Whether a series must find a place in every store: it is short.
pub(crate) fn is_short(series: &Series) -> bool {
    let label = |(name, label): &(String, Label)| {
        name.len()
            + match label {
                Label::Text(text) => text.len(),
                Label::Missing | Label::Other => 10,
            }
    };
    let bytes = series.path.iter().map(String::len).sum::<usize>() + series.labels.iter().map(label).sum::<usize>();
    series.path.len() + 2 * series.labels.len() <= 8 && bytes + series.aggregate.len() <= 60
}
