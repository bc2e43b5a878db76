//! The series of one metric on one grid from window to window: who holds a seat, what is zero-filled, what the counters say.
//!
//! Pure: a state, a window's table and the rules of the metric go in; the sealed series and the next state come out. The state
//! is kept by the catalog in the transaction that seals the window, so a restart continues exactly here.

use catalog::{SealedCell, SealedSeries, SeriesKey};
use model::aggregate::NotExportable;
use model::{Aggregate, Cell, Counter, Key, Label, Query, Shape, Stamp, Table, TableRow, Window};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long a counter stays on the page after its last report, in seconds (design: 24 h); then it is forgotten.
const COUNTER_KEPT_SECS: u64 = 24 * 3600;
/// Sealed windows after a counter's birth in which 0 is shown, so that a scraper at the period sees the rise from 0.
const SHOWN_AS_ZERO: u8 = 2;

/// What is remembered of a metric's series between windows of one grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeriesState {
    /// Group-by attributes the keys belong to; another list is another set of series.
    group: Vec<String>,
    series: Vec<(SeriesKey, Memory)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// End of the last window with a report of this series, Unix seconds.
    last_seen: u64,
    /// Whether it is exported.
    live: bool,
    /// By aggregate name, for additive aggregates.
    counters: BTreeMap<String, Running>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Running {
    total: u64,
    created: Stamp,
    /// Sealed windows still to be shown as 0.
    hidden: u8,
}

/// How a metric's series behave.
pub(crate) struct Rules<'a> {
    pub(crate) query: &'a Query,
    pub(crate) zero_for_secs: u64,
    pub(crate) series_budget: u32,
}

/// One metric's share of a seal.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) series: Vec<SealedSeries>,
    pub(crate) own: u64,
    pub(crate) folded: u64,
    pub(crate) left_out: u64,
    pub(crate) next: SeriesState,
}

/// What is beyond a metric's budget in one window.
#[derive(Debug)]
pub(crate) struct Folded {
    /// Groups that are series of their own.
    pub(crate) kept: BTreeSet<Key>,
    /// All other groups, evaluated as one.
    pub(crate) rest: TableRow,
}

/// A group's reports in the window.
struct Found<'a> {
    matched: u64,
    cells: &'a [Cell],
}

impl SeriesState {
    pub(crate) fn decode(bytes: &[u8]) -> Option<SeriesState> {
        serde_json::from_slice(&zstd::stream::decode_all(bytes).ok()?).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a state is plain data");
        zstd::bulk::compress(&json, 1).expect("compressing into memory cannot fail")
    }

    /// The groups that keep or take seats, when others have to be folded into `__other__`; `None` when all have seats.
    pub(crate) fn kept(&self, table: &Table, rules: &Rules<'_>, window: Window) -> Option<BTreeSet<Key>> {
        let memory = self.remembered(rules, window);
        let rows: BTreeMap<SeriesKey, &TableRow> = table.rows.iter().map(|row| (series_key(&row.key), row)).collect();
        let folded = choose_folded(&memory, &rows, rules.series_budget as usize);
        (!folded.is_empty()).then(|| {
            let kept = rows.into_iter().filter(|(key, _)| !folded.contains(key));
            kept.map(|(_, row)| row.key.clone()).collect()
        })
    }

    /// Seals one window: the table's groups are series, those beyond the budget are already in `rest`; silent series are
    /// zero-filled or retire.
    pub(crate) fn step(&self, table: &Table, folded: Option<&Folded>, rules: &Rules<'_>, window: Window) -> Step {
        let query = rules.query;
        let mut memory = self.remembered(rules, window);
        let mut found: BTreeMap<SeriesKey, Found<'_>> = BTreeMap::new();
        for row in &table.rows {
            if folded.is_none_or(|folded| folded.kept.contains(&row.key)) {
                found.insert(series_key(&row.key), Found { matched: row.matched, cells: &row.cells });
            }
        }
        let own = found.values().map(|group| group.matched).sum();
        if let Some(Folded { rest, .. }) = folded {
            found.insert(vec![Label::Other; query.group.len()], Found { matched: rest.matched, cells: &rest.cells });
        }
        let folded = folded.map_or(0, |folded| folded.rest.matched);

        // A series is remembered once a report was seen in it; the ungrouped one is there from its attachment.
        for (key, group) in &found {
            if group.matched > 0 || query.group.is_empty() {
                memory.entry(key.clone()).or_insert_with(|| Memory { last_seen: 0, live: true, counters: BTreeMap::new() });
            }
        }
        let mut left_out = 0;
        let mut series = Vec::with_capacity(memory.len());
        for (key, memory) in &mut memory {
            let group = found.get(key).filter(|group| group.matched > 0);
            if group.is_some() || query.group.is_empty() {
                memory.last_seen = window.end_secs();
                memory.live = true;
            }
            let cells = query.aggregates.iter().enumerate().map(|(at, aggregate)| {
                let value = match group.map(|group| group.cells[at].point()) {
                    Some(Ok(value)) => value,
                    Some(Err(NotExportable)) => {
                        left_out += 1;
                        None
                    }
                    None => aggregate.op.zero_when_empty().then_some(0.0),
                };
                let counter = (aggregate.shape() == Shape::Additive).then(|| memory.count(aggregate, value.unwrap_or(0.0), window));
                SealedCell { value: value.filter(|_| memory.live), counter }
            });
            let cells = cells.collect();
            series.push(SealedSeries { key: key.clone(), live: memory.live, cells });
        }
        let next = SeriesState { group: query.group.clone(), series: memory.into_iter().collect() };
        Step { series, own, folded, left_out, next }
    }
}

impl SeriesState {
    /// The series as they stand at the window's start.
    fn remembered(&self, rules: &Rules<'_>, window: Window) -> BTreeMap<SeriesKey, Memory> {
        let mut memory = if self.group == rules.query.group { self.series.iter().cloned().collect() } else { BTreeMap::new() };
        retire(&mut memory, rules.zero_for_secs, window);
        memory
    }
}

fn series_key(key: &Key) -> SeriesKey {
    key.iter().map(|value| value.clone().map_or(Label::Missing, Label::Text)).collect()
}

impl Memory {
    /// Adds the window to the counter and says what the page shows: 0 while the counter is new, then the total.
    fn count(&mut self, aggregate: &Aggregate, increment: f64, window: Window) -> Counter {
        let running = self.counters.entry(aggregate.name()).or_insert(Running { total: 0, created: window.start(), hidden: SHOWN_AS_ZERO });
        running.total = running.total.saturating_add(increment as u64);
        let shown = if running.hidden > 0 { 0 } else { running.total };
        running.hidden = running.hidden.saturating_sub(1);
        Counter { total: shown as f64, created: running.created }
    }
}

/// A series without reports for `zero_for` gives up its seat; its counters stay until they are forgotten.
fn retire(memory: &mut BTreeMap<SeriesKey, Memory>, zero_for_secs: u64, window: Window) {
    memory.retain(|key, memory| {
        if key.is_empty() {
            return true;
        }
        memory.live &= memory.last_seen + zero_for_secs > window.start_secs();
        memory.live || !memory.counters.is_empty() && memory.last_seen + COUNTER_KEPT_SECS > window.start_secs()
    });
}

/// Seats are kept by those who hold them; free ones go to the newcomers with most reports (ties by key). The rest is folded.
fn choose_folded(memory: &BTreeMap<SeriesKey, Memory>, found: &BTreeMap<SeriesKey, &TableRow>, budget: usize) -> BTreeSet<SeriesKey> {
    let seated = memory.iter().filter(|(key, memory)| memory.live && !is_other(key)).count();
    let mut newcomers: Vec<(&SeriesKey, u64)> = found
        .iter()
        .filter(|(key, _)| !key.is_empty() && memory.get(*key).is_none_or(|memory| !memory.live))
        .map(|(key, row)| (key, row.matched))
        .collect();
    newcomers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    newcomers.into_iter().skip(budget.saturating_sub(seated)).map(|(key, _)| key.clone()).collect()
}

fn is_other(key: &SeriesKey) -> bool {
    !key.is_empty() && key.iter().all(|label| *label == Label::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AggregateOp, Period, Value};
    use proptest::prelude::*;

    fn query(group: &[&str]) -> Query {
        let aggregate = |op, attribute: &str| Aggregate { op, attribute: attribute.into() };
        Query {
            group: group.iter().map(|&name| name.to_owned()).collect(),
            aggregates: vec![aggregate(AggregateOp::Count, "_tx"), aggregate(AggregateOp::Max, "age")],
            ..Query::default()
        }
    }

    fn table(groups: &[(&str, u64)]) -> Table {
        let rows = groups.iter().map(|(name, reports)| TableRow {
            key: vec![if name.is_empty() { None } else { Some((*name).to_owned()) }],
            matched: *reports,
            cells: vec![Cell::Scalar(Some(Value::from(*reports))), Cell::Scalar(Some(Value::Int(7)))],
        });
        Table { matched: groups.iter().map(|group| group.1).sum(), rows: rows.collect() }
    }

    /// Steps as the sealer does: what has no seat is one row.
    fn step(state: &SeriesState, table: &Table, rules: &Rules<'_>, window: Window) -> Step {
        let folded = state.kept(table, rules, window).map(|kept| {
            let matched = table.rows.iter().filter(|row| !kept.contains(&row.key)).map(|row| row.matched).sum();
            let cells = vec![Cell::Scalar(Some(Value::from(matched))), Cell::Scalar(Some(Value::Int(7)))];
            Folded { kept, rest: TableRow { key: Vec::new(), matched, cells } }
        });
        state.step(table, folded.as_ref(), rules, window)
    }

    fn window(at: u64) -> Window {
        Window::new(at * 10, Period::new(10).expect("legal")).expect("on the grid")
    }

    /// Steps through windows 100, 101, ... and shows each as `name value/counter` lines.
    fn run(budget: u32, zero_for_secs: u64, windows: &[&[(&str, u64)]]) -> Vec<String> {
        let query = query(&["kind"]);
        let rules = Rules { query: &query, zero_for_secs, series_budget: budget };
        let mut state = SeriesState::default();
        let mut shown = Vec::new();
        for (at, groups) in windows.iter().enumerate() {
            let table = table(groups);
            let step = step(&state, &table, &rules, window(100 + at as u64));
            assert_eq!(step.own + step.folded, table.matched, "every report is in exactly one series");
            state = SeriesState::decode(&step.next.encode()).expect("its own encoding");
            assert_eq!(state, step.next);
            shown.push(step.series.iter().map(show).collect::<Vec<_>>().join(" "));
        }
        shown
    }

    fn show(series: &SealedSeries) -> String {
        let name = match &series.key[0] {
            Label::Text(text) => text.clone(),
            Label::Missing => "none".into(),
            Label::Other => "__other__".into(),
        };
        let value = |value: Option<f64>| value.map_or("-".to_owned(), |value| value.to_string());
        let counter = series.cells[0].counter.expect("count is additive").total;
        format!("{name}={},{}/{counter}", value(series.cells[0].value), value(series.cells[1].value))
    }

    #[test]
    fn a_counter_shows_0_for_two_windows_and_then_its_total() {
        assert_eq!(run(10, 1000, &[&[("a", 1)], &[], &[("a", 2)], &[]]), ["a=1,7/0", "a=0,-/0", "a=2,7/3", "a=0,-/3"]);
    }

    #[test]
    fn a_silent_series_is_zero_filled_then_retires_and_its_counter_lingers() {
        assert_eq!(run(10, 20, &[&[("a", 1)], &[], &[], &[], &[("a", 1)]]), ["a=1,7/0", "a=0,-/0", "a=0,-/1", "a=-,-/1", "a=1,7/2"],);
    }

    #[test]
    fn missing_is_a_series_of_its_own() {
        assert_eq!(run(10, 1000, &[&[("", 1), ("none", 2)]]), ["none=2,7/0 none=1,7/0"]);
    }

    #[test]
    fn beyond_the_budget_the_rest_is_one_exact_series() {
        assert_eq!(
            run(2, 1000, &[&[("a", 1), ("b", 5), ("c", 3), ("d", 1)], &[("a", 9), ("b", 1)]]),
            ["b=5,7/0 c=3,7/0 __other__=2,7/0", "b=1,7/0 c=0,-/0 __other__=9,7/0"],
        );
    }

    #[test]
    fn an_ungrouped_series_is_there_from_the_first_window() {
        let query = query(&[]);
        let rules = Rules { query: &query, zero_for_secs: 10, series_budget: 1000 };
        let empty = Table {
            matched: 0,
            rows: vec![TableRow { key: vec![], matched: 0, cells: query.aggregates.iter().map(|one| one.start().cell()).collect() }],
        };
        let step = step(&SeriesState::default(), &empty, &rules, window(1));
        assert_eq!(step.series.len(), 1);
        assert_eq!(
            step.series[0].cells[0],
            SealedCell { value: Some(0.0), counter: Some(Counter { total: 0.0, created: Stamp::from_secs(10) }) }
        );
        assert_eq!(step.series[0].cells[1].value, None);
        let much_later = step.next.step(&empty, None, &rules, window(1_000_000));
        assert!(much_later.series[0].live);
    }

    #[test]
    fn another_group_by_is_another_set_of_series() {
        let (by_kind, by_host) = (query(&["kind"]), query(&["host"]));
        let rules = |query| Rules { query, zero_for_secs: 1000, series_budget: 10 };
        let first = step(&SeriesState::default(), &table(&[("a", 1)]), &rules(&by_kind), window(1));
        let second = step(&first.next, &table(&[("h", 1)]), &rules(&by_host), window(2));
        assert_eq!(second.series.iter().map(|series| series.key.clone()).collect::<Vec<_>>(), [vec![Label::Text("h".into())]]);
    }

    proptest! {
        #[test]
        fn counters_never_fall_and_add_up_to_the_reports(windows in prop::collection::vec(prop::collection::btree_map("[a-f]", 1u64..5, 0..6), 1..40), budget in 1u32..4) {
            let query = query(&["kind"]);
            // Retirement would let counters be forgotten and born again; here none retires.
            let rules = Rules { query: &query, zero_for_secs: 1_000_000, series_budget: budget };
            let mut state = SeriesState::default();
            let (mut reports, mut last) = (0.0, BTreeMap::new());
            let quiet = vec![BTreeMap::new(), BTreeMap::new()];
            for (at, groups) in windows.iter().chain(&quiet).enumerate() {
                let groups: Vec<_> = groups.iter().map(|(name, n)| (name.as_str(), *n)).collect();
                reports += groups.iter().map(|group| group.1 as f64).sum::<f64>();
                let step = step(&state, &table(&groups), &rules, window(at as u64));
                prop_assert!(step.series.iter().filter(|series| !is_other(&series.key)).count() <= budget as usize);
                for series in &step.series {
                    let total = series.cells[0].counter.expect("additive").total;
                    prop_assert!(total >= last.insert(series.key.clone(), total).unwrap_or(0.0));
                }
                state = step.next;
            }
            prop_assert_eq!(last.values().sum::<f64>(), reports);
        }
    }
}
