//! The series of one metric on one grid from window to window: who holds a seat, what is zero-filled, what the counters say.
//!
//! Pure: a state, a window's table and the rules of the metric go in; the sealed series and the next state come out. The state
//! is kept by the catalog in the transaction that seals the window, so a restart continues exactly here.
//!
//! A seat is held until its series retires. Free seats go to the newcomers with most reports in the window; one with at least
//! twice what the smallest holder had over `zero_for` takes that seat. Nothing is remembered of groups without a seat, so a
//! flood of values costs no memory.

use catalog::{MetricRevision, SealedCell, SealedSeries, SeriesKey};
use model::aggregate::NotExportable;
use model::{Aggregate, Beyond, Counter, Key, Label, Period, Query, Shape, Stamp, Table, TableRow, Top, Window};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How long a counter stays on the page after its last report, in seconds (design: 24 h); then it is forgotten.
const COUNTER_KEPT_SECS: u64 = 24 * 3600;
/// Sealed windows after a counter's birth in which 0 is shown, so that a scraper at the period sees the rise from 0.
const SHOWN_AS_ZERO: u8 = 2;
/// Groups of one metric that may become series in one day of Unix time (design.md 2, cardinality budget).
const NEW_SERIES_A_DAY: u32 = 5_000;
/// Parts of `zero_for` in which a series' reports are counted: its total over `zero_for` is short by at most one of them.
const PARTS: u64 = 8;
/// How long it is told that groups were folded, in seconds.
const FOLD_TOLD_SECS: u64 = 24 * 3600;
/// Values shown of what was folded, and characters of each.
const SAMPLES: usize = 5;
const SAMPLE_CHARS: usize = 64;

/// Seconds for which a group without reports is exported as 0 on this grid: as set, but one period at least, so that a store
/// sees a series end with 0; by default max(1 h, 3 periods).
pub fn zero_for_secs(set: Option<u64>, period: Period) -> u64 {
    let period_secs = u64::from(period.secs());
    set.unwrap_or((3 * period_secs).max(3600)).max(period_secs)
}

/// What is remembered of a metric's series between windows of one grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeriesState {
    /// Group-by attributes the keys belong to; another list is another set of series.
    group: Vec<String>,
    series: Vec<(SeriesKey, Memory)>,
    #[serde(default)]
    births: Births,
    #[serde(default)]
    over: Option<OverBudget>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// End of the last window with a report of this series, Unix seconds.
    last_seen: u64,
    /// Whether it is exported: whether it holds a seat.
    live: bool,
    /// Reports by part of `zero_for`, each part with its first second; oldest first.
    #[serde(default)]
    recent: Vec<(u64, u64)>,
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

/// Groups that became series on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Births {
    /// Days since the Unix epoch.
    day: u64,
    count: u32,
}

/// What was folded into `__other__` in the last window in which something was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverBudget {
    /// That window's first second.
    pub window_start: u64,
    /// Groups without a seat.
    pub groups: u64,
    /// Their reports.
    pub reports: u64,
    /// The group-by attribute with most values among them, of large numbers roughly.
    pub attribute: String,
    /// Some of its values, those with most reports first.
    pub samples: Vec<String>,
    /// Whether the day's new series were used up, so that free seats stayed free.
    pub day_used_up: bool,
}

/// How a metric's series behave.
pub(crate) struct Rules<'a> {
    pub(crate) query: &'a Query,
    pub(crate) zero_for_secs: u64,
    pub(crate) series_budget: u32,
}

/// Who holds a seat in one window.
#[derive(Debug)]
pub(crate) struct Seating {
    /// What is remembered of holders, and of counters still shown.
    memory: BTreeMap<SeriesKey, Memory>,
    /// The window's reports.
    matched: u64,
    /// The window's groups with a seat, by the place of the row of each.
    own: BTreeMap<SeriesKey, usize>,
    /// Whether it has others.
    is_folded: bool,
    births: Births,
    over: Option<OverBudget>,
}

/// One metric's share of a seal.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) series: Vec<SealedSeries>,
    /// Reports that passed the filter.
    pub(crate) matched: u64,
    pub(crate) own: u64,
    pub(crate) folded: u64,
    pub(crate) left_out: u64,
    pub(crate) next: SeriesState,
}

/// A kept state of series with the same seats and no running totals, as after a restore; `None` when it cannot be read.
pub fn without_counters(state: &[u8]) -> Option<Vec<u8>> {
    let mut state = SeriesState::decode(state)?;
    state.series.iter_mut().for_each(|(_, memory)| memory.counters.clear());
    Some(state.encode())
}

impl SeriesState {
    pub(crate) fn decode(bytes: &[u8]) -> Option<SeriesState> {
        serde_json::from_slice(&zstd::stream::decode_all(bytes).ok()?).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a state is plain data");
        zstd::bulk::compress(&json, 1).expect("compressing into memory cannot fail")
    }

    /// What was folded within the last day.
    pub(crate) fn over_budget(&self, now_secs: u64) -> Option<&OverBudget> {
        self.over.as_ref().filter(|over| now_secs < over.window_start + FOLD_TOLD_SECS)
    }

    /// The groups that a window must be asked for, however few reports they have.
    pub(crate) fn remembered(&self, query: &Query) -> BTreeSet<Key> {
        if self.group != query.group {
            return BTreeSet::new();
        }
        let value = |label: &Label| match label {
            Label::Text(text) => Some(Some(text.clone())),
            Label::Missing => Some(None),
            Label::Other => None,
        };
        self.series.iter().filter_map(|(key, _)| key.iter().map(value).collect()).collect()
    }

    /// Decides who holds a seat in a window, of which the groups remembered and enough newcomers are known.
    pub(crate) fn seat(&self, Top { table, beyond }: &Top, rules: &Rules<'_>, window: Window) -> Seating {
        let same = self.group == rules.query.group;
        let mut memory: BTreeMap<_, _> = if same { self.series.iter().cloned().collect() } else { BTreeMap::new() };
        retire(&mut memory, rules.zero_for_secs, window);
        let mut own: BTreeMap<SeriesKey, usize> = table.rows.iter().enumerate().map(|(at, row)| (series_key(&row.key), at)).collect();
        let reports = |row: &usize| table.rows[*row].matched;

        let day = window.start_secs() / 86_400;
        let mut births = if self.births.day == day { self.births } else { Births { day, count: 0 } };
        let mut day_used_up = false;
        // Those who held a seat before the window, the weakest first.
        let total = |key: &SeriesKey, memory: &Memory| {
            let now = own.get(key).map_or(0, reports);
            (now + memory.total(rules.zero_for_secs, window)).max(1)
        };
        let mut holders: Vec<(u64, SeriesKey)> =
            memory.iter().filter(|(key, memory)| memory.live && !is_fixed(key)).map(|(key, one)| (total(key, one), key.clone())).collect();
        holders.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let budget = rules.series_budget as usize;
        let mut free = budget.saturating_sub(holders.len());
        // A budget made smaller takes its seats from the weakest.
        let too_many = holders.len().saturating_sub(budget);
        let mut unseated: Vec<SeriesKey> = holders.drain(..too_many).map(|(_, key)| key).collect();
        let mut holders = holders.into_iter().peekable();

        let mut newcomers: Vec<(&SeriesKey, u64)> = own
            .iter()
            .filter(|(key, _)| !is_fixed(key) && memory.get(*key).is_none_or(|memory| !memory.live))
            .map(|(key, row)| (key, reports(row)))
            .collect();
        newcomers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let mut seated: BTreeSet<SeriesKey> = BTreeSet::new();
        for (key, matched) in newcomers {
            let is_new = !memory.contains_key(key);
            let weaker = |holder: &(u64, SeriesKey)| holder.0.saturating_mul(2) <= matched;
            if free == 0 && !holders.peek().is_some_and(weaker) {
                continue;
            }
            if is_new && births.count >= NEW_SERIES_A_DAY {
                day_used_up = true;
                continue;
            }
            births.count += u32::from(is_new);
            if free > 0 {
                free -= 1;
            } else {
                unseated.extend(holders.next().map(|(_, key)| key));
            }
            seated.insert(key.clone());
        }
        for key in unseated {
            memory.get_mut(&key).expect("it held a seat").live = false;
        }
        for key in seated {
            memory.entry(key).or_insert_with(Memory::newborn).live = true;
        }
        forget(&mut memory, budget);

        let has_seat = |key: &SeriesKey| key.is_empty() || memory.get(key).is_some_and(|memory| memory.live);
        let mut folded: Vec<&TableRow> = own.extract_if(.., |key, _| !has_seat(key)).map(|(_, row)| &table.rows[row]).collect();
        folded.sort_by_key(|row| Reverse(row.matched));
        let told = self.over_budget(window.start_secs()).filter(|_| same).cloned();
        let is_folded = !folded.is_empty() || beyond.groups > 0;
        let over = if is_folded { Some(OverBudget::of(&folded, beyond, rules.query, window, day_used_up)) } else { told };
        Seating { memory, matched: table.matched, own, is_folded, births, over }
    }
}

impl Seating {
    /// The rows of the groups that are series of their own, ascending, when others have to be evaluated as one; `None` when all are.
    pub(crate) fn kept(&self) -> Option<Vec<usize>> {
        self.is_folded.then(|| {
            let mut rows: Vec<usize> = self.own.values().copied().collect();
            rows.sort_unstable();
            rows
        })
    }

    /// Seals the window, of which the table was asked for: groups with a seat are series, `rest` is all others evaluated as one, silent
    /// series are zero-filled.
    pub(crate) fn seal(self, table: &Table, rest: Option<&TableRow>, rules: &Rules<'_>, window: Window) -> Step {
        let (query, mut memory) = (rules.query, self.memory);
        let mut found: BTreeMap<SeriesKey, &TableRow> = self.own.into_iter().map(|(key, row)| (key, &table.rows[row])).collect();
        let own = found.values().map(|row| row.matched).sum();
        for (key, row) in &found {
            // A series is remembered once a report was seen in it; the ungrouped one is there from its attachment.
            if key.is_empty() {
                memory.entry(key.clone()).or_insert_with(Memory::newborn);
            }
            let memory = memory.get_mut(key).expect("it has a seat");
            if row.matched > 0 {
                memory.note(row.matched, rules.zero_for_secs, window);
            }
        }
        if let Some(rest) = rest.filter(|rest| rest.matched > 0) {
            let key = vec![Label::Other; query.group.len()];
            memory.entry(key.clone()).or_insert_with(Memory::newborn);
            found.insert(key, rest);
        }

        let mut left_out = 0;
        let mut series = Vec::with_capacity(memory.len());
        for (key, memory) in &mut memory {
            let group = found.get(key).filter(|row| row.matched > 0);
            if group.is_some() || query.group.is_empty() {
                memory.last_seen = window.end_secs();
                memory.live = true;
            }
            let cells = query.aggregates.iter().enumerate().map(|(at, aggregate)| {
                let value = match group.map(|row| row.cells[at].point()) {
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
        let next = SeriesState { group: query.group.clone(), series: memory.into_iter().collect(), births: self.births, over: self.over };
        Step { series, matched: self.matched, own, folded: rest.map_or(0, |rest| rest.matched), left_out, next }
    }
}

impl Rules<'_> {
    /// How those of a metric behave on a grid.
    pub(crate) fn of(revision: &MetricRevision, period: Period) -> Rules<'_> {
        let zero_for_secs = zero_for_secs(revision.zero_for, period);
        Rules { query: &revision.query, zero_for_secs, series_budget: revision.series_budget }
    }
}

impl OverBudget {
    /// What there is to say of groups without a seat: of those with a row, most reports first, and of those beyond them, which have
    /// fewer reports.
    pub fn of(folded: &[&TableRow], beyond: &Beyond, query: &Query, window: Window, day_used_up: bool) -> OverBudget {
        let of_rows = |at: usize| folded.iter().map(move |row| row.key[at].as_deref()).collect::<BTreeSet<_>>().len() as u64;
        let values = |at: usize| of_rows(at) + beyond.values.get(at).copied().unwrap_or(0);
        // The first of those with most values.
        let at = (0..query.group.len()).rev().max_by_key(|&at| values(at)).unwrap_or(0);
        let mut samples: Vec<String> = Vec::new();
        for row in folded {
            let value: String = row.key[at].as_deref().unwrap_or("none").chars().take(SAMPLE_CHARS).collect();
            if !samples.contains(&value) {
                samples.push(value);
            }
            if samples.len() == SAMPLES {
                break;
            }
        }
        OverBudget {
            window_start: window.start_secs(),
            groups: folded.len() as u64 + beyond.groups,
            reports: folded.iter().map(|row| row.matched).sum::<u64>() + beyond.matched,
            attribute: query.group[at].clone(),
            samples,
            day_used_up,
        }
    }
}

/// How many groups that are not remembered a window is asked for: there cannot be more new seats, and some more, with most reports of
/// those without one, are told as samples.
pub(crate) fn newcomers(series_budget: u32) -> usize {
    series_budget as usize + SAMPLES
}

fn series_key(key: &Key) -> SeriesKey {
    key.iter().map(|value| value.clone().map_or(Label::Missing, Label::Text)).collect()
}

impl Memory {
    fn newborn() -> Memory {
        Memory { last_seen: 0, live: true, recent: Vec::new(), counters: BTreeMap::new() }
    }

    /// Remembers the reports of a window.
    fn note(&mut self, matched: u64, zero_for_secs: u64, window: Window) {
        let start = window.start_secs();
        self.recent.retain(|(begin, _)| begin + zero_for_secs > start);
        match self.recent.last_mut() {
            Some((begin, count)) if start < *begin + zero_for_secs.div_ceil(PARTS) => *count += matched,
            _ => self.recent.push((start, matched)),
        }
    }

    /// Reports over `zero_for` before the window.
    fn total(&self, zero_for_secs: u64, window: Window) -> u64 {
        self.recent.iter().filter(|(begin, _)| begin + zero_for_secs > window.start_secs()).map(|(_, count)| count).sum()
    }

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

/// Of the series without a seat, as many as there are seats keep their counters; those longest silent are forgotten first.
fn forget(memory: &mut BTreeMap<SeriesKey, Memory>, budget: usize) {
    let mut retired: Vec<(u64, SeriesKey)> =
        memory.iter().filter(|(key, memory)| !memory.live && !is_fixed(key)).map(|(key, one)| (one.last_seen, key.clone())).collect();
    let surplus = retired.len().saturating_sub(budget);
    retired.sort();
    for (_, key) in &retired[..surplus] {
        memory.remove(key);
    }
}

/// The series that need no seat: the ungrouped one and `__other__`.
fn is_fixed(key: &SeriesKey) -> bool {
    key.iter().all(|label| *label == Label::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AggregateOp, Cell, Most, Value};
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

    /// A table whole, and as the sealer asks for it.
    fn tops(state: &SeriesState, table: &Table, rules: &Rules<'_>) -> [Top; 2] {
        let remembered = state.remembered(rules.query);
        let whole = Top { table: table.clone(), beyond: Beyond::default() };
        [whole, table.clone().into_most(Most { groups: newcomers(rules.series_budget), also: &remembered })]
    }

    /// Steps as the sealer does: what has no seat is evaluated as one row. It knows enough to do as if it knew all.
    fn step(state: &SeriesState, table: &Table, rules: &Rules<'_>, window: Window) -> Step {
        let [of_all, of_most] = tops(state, table, rules).map(|top| step_of(state, &top, table, rules, window));
        assert_eq!(of_most, of_all);
        of_most
    }

    fn step_of(state: &SeriesState, top: &Top, table: &Table, rules: &Rules<'_>, window: Window) -> Step {
        let seating = state.seat(top, rules, window);
        let rest = seating.kept().map(|kept| {
            let kept: Vec<&Key> = kept.into_iter().map(|row| &top.table.rows[row].key).collect();
            let matched = table.rows.iter().filter(|row| !kept.contains(&&row.key)).map(|row| row.matched).sum();
            let cells = vec![Cell::Scalar(Some(Value::from(matched))), Cell::Scalar(Some(Value::Int(7)))];
            TableRow { key: Vec::new(), matched, cells }
        });
        seating.seal(&top.table, rest.as_ref(), rules, window)
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
            run(2, 1000, &[&[("a", 1), ("b", 5), ("c", 3), ("d", 1)], &[("a", 5), ("b", 1)]]),
            ["b=5,7/0 c=3,7/0 __other__=2,7/0", "b=1,7/0 c=0,-/0 __other__=5,7/0"],
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
        let much_later = self::step(&step.next, &empty, &rules, window(1_000_000));
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

    #[test]
    fn zero_for_is_an_hour_or_three_periods_and_never_less_than_one() {
        for (set, period, seconds) in
            [(None, 60, 3_600), (None, 1_200, 3_600), (None, 1_201, 3_603), (Some(7_200), 60, 7_200), (Some(1), 60, 60), (Some(61), 60, 61)]
        {
            assert_eq!(zero_for_secs(set, Period::new(period).expect("legal")), seconds, "{set:?} {period}");
        }
    }

    #[test]
    fn a_holder_keeps_its_seat_until_a_newcomer_has_twice_its_total() {
        // `a` has 3 reports over zero_for (30 s), then 2: 5 is less than twice 3, 4 is twice 2.
        assert_eq!(
            run(1, 30, &[&[("a", 1)], &[("a", 2)], &[("b", 5)], &[("b", 4)]]),
            ["a=1,7/0", "a=2,7/0", "a=0,-/3 __other__=5,7/0", "a=-,-/3 b=4,7/0 __other__=0,-/0"],
        );
        // What the holder has in the window itself counts for it.
        assert_eq!(run(1, 30, &[&[("a", 2)], &[("a", 1), ("b", 5)]]), ["a=2,7/0", "a=1,7/0 __other__=5,7/0"]);
        assert_eq!(run(1, 30, &[&[("a", 2)], &[("a", 1), ("b", 6)]]), ["a=2,7/0", "a=-,-/0 b=6,7/0 __other__=1,7/0"]);
    }

    #[test]
    fn totals_are_kept_in_few_parts_of_zero_for() {
        let mut memory = Memory::newborn();
        // 8 parts of 20 windows each.
        for at in 0..1_000 {
            memory.note(3, 1_600, window(at));
            let total = memory.total(1_600, window(at));
            let exact = 3 * (at + 1).min(160);
            assert!(total <= exact && exact - total < 60, "window {at}: {total}, not {exact}");
            assert!(memory.recent.len() <= PARTS as usize + 1, "{:?}", memory.recent);
        }
        assert_eq!(memory.total(1_600, window(1_200)), 0);
    }

    #[test]
    fn newcomers_take_the_weakest_seats_first_and_ties_go_by_label_bytes() {
        let seated = |windows: &[&[(&str, u64)]], budget| {
            let last = run(budget, 1000, windows).pop().expect("a window");
            let live = last.split(' ').filter(|one| !one.contains("=-") && !one.starts_with("__other__"));
            live.map(|one| one.split('=').next().expect("a name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(seated(&[&[("c", 1), ("b", 1), ("a", 1)]], 2), ["a", "b"]);
        assert_eq!(seated(&[&[("a", 1), ("b", 1)], &[("c", 2)]], 2), ["a", "c"], "of two weakest the later label goes");
        assert_eq!(seated(&[&[("a", 9), ("b", 2), ("c", 3)], &[("d", 4), ("e", 6), ("f", 100)]], 3), ["a", "e", "f"]);
        assert_eq!(seated(&[&[("a", 9), ("b", 2), ("c", 3)], &[("d", 4), ("e", 4)]], 3), ["a", "c", "d"], "4 is less than twice 3");
        assert_eq!(seated(&[&[("a", 1), ("b", 2), ("c", 3)], &[("c", 1)]], 3), ["a", "b", "c"]);
    }

    #[test]
    fn a_smaller_budget_takes_seats_from_the_weakest() {
        let query = query(&["kind"]);
        let rules = |series_budget| Rules { query: &query, zero_for_secs: 1000, series_budget };
        let first = step(&SeriesState::default(), &table(&[("a", 3), ("b", 1), ("c", 2)]), &rules(3), window(1));
        let second = step(&first.next, &table(&[("b", 1)]), &rules(1), window(2));
        let shown: Vec<String> = second.series.iter().map(show).collect();
        assert_eq!(shown, ["a=0,-/0", "c=-,-/0", "__other__=1,7/0"], "one retired series keeps its counter");
    }

    #[test]
    fn retired_series_keep_no_more_counters_than_there_are_seats() {
        let shown = run(1, 10, &[&[("a", 1)], &[], &[("b", 1)], &[], &[("c", 1)], &[], &[("a", 1)]]);
        assert_eq!(shown[2], "a=-,-/1 b=1,7/0");
        assert_eq!(shown[4], "b=-,-/1 c=1,7/0", "a is forgotten: it was silent for longest");
        assert_eq!(shown[6], "a=1,7/0 c=-,-/1", "and born anew");
    }

    #[test]
    fn a_day_has_only_so_many_new_series_and_those_known_return() {
        let query = query(&["kind"]);
        let rules = Rules { query: &query, zero_for_secs: 10, series_budget: 4_000 };
        let names = |from: u32, to: u32| (from..to).map(|n| format!("{n:05}")).collect::<Vec<_>>();
        let of = |names: &[String]| table(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
        let live = |step: &Step| step.series.iter().filter(|one| one.live && !is_fixed(&one.key)).count();
        let day = 86_400 / 10;
        let first = step(&SeriesState::default(), &of(&names(0, 4_000)), &rules, window(day));
        assert_eq!((live(&first), first.folded, first.next.over.clone()), (4_000, 0, None));
        let second = step(&first.next, &of(&names(4_000, 8_000)), &rules, window(day + 2));
        assert_eq!((live(&second), second.folded), (1_000, 3_000), "5,000 a day");
        let over = second.next.over_budget((day + 2) * 10).expect("told");
        assert!(over.day_used_up && over.groups == 3_000 && over.samples[0] == "05000", "{over:?}");
        let third = step(&second.next, &of(&names(0, 4_001)), &rules, window(day + 4));
        assert_eq!((live(&third), third.folded), (4_000, 1), "a return is no new series");
        let next_day = step(&third.next, &of(&names(8_000, 8_001)), &rules, window(2 * day));
        assert_eq!((live(&next_day), next_day.folded), (1, 0));
    }

    #[test]
    fn what_was_folded_is_told_for_a_day_by_the_attribute_with_most_values() {
        let query = query(&["kind", "user"]);
        let rules = Rules { query: &query, zero_for_secs: 1000, series_budget: 1 };
        let mut table = table(&[("a", 9), ("a", 1), ("a", 3), ("a", 2), ("", 1)]);
        for (row, user) in table.rows.iter_mut().zip([Some("u0"), Some("u1"), None, Some("u3"), Some("u3")]) {
            row.key.push(user.map(str::to_owned));
        }
        let first = step(&SeriesState::default(), &table, &rules, window(100));
        let told = OverBudget {
            window_start: 1_000,
            groups: 4,
            reports: 7,
            attribute: "user".into(),
            samples: ["none", "u3", "u1"].map(str::to_owned).into(),
            day_used_up: false,
        };
        assert_eq!(first.next.over, Some(told.clone()));
        table.rows.truncate(1);
        let later = step(&first.next, &table, &rules, window(101));
        assert_eq!(later.next.over_budget(1_010), Some(&told));
        assert_eq!(later.next.over_budget(1_000 + FOLD_TOLD_SECS), None);
        assert_eq!(step(&later.next, &table, &rules, window(100 + FOLD_TOLD_SECS / 10)).next.over, None);
    }

    proptest! {
        #[test]
        fn every_window_adds_up_and_nothing_moves_backwards(
            windows in prop::collection::vec(prop::collection::btree_map("[a-f]", 1u64..9, 0..6), 1..40),
            budgets in prop::collection::vec(0u32..4, 40..41),
            zero_for_secs in 10u64..80,
        ) {
            let query = query(&["kind"]);
            let mut state = SeriesState::default();
            for (at, groups) in windows.iter().enumerate() {
                let rules = Rules { query: &query, zero_for_secs, series_budget: 1 + budgets[at / 8] };
                let table = table(&groups.iter().map(|(name, n)| (name.as_str(), *n)).collect::<Vec<_>>());
                let [_, top] = tops(&state, &table, &rules);
                let kept = state.seat(&top, &rules, window(at as u64)).kept();
                let step = step(&state, &table, &rules, window(at as u64));

                let live = || step.series.iter().filter(|one| one.live && !is_fixed(&one.key));
                prop_assert!(live().count() <= rules.series_budget as usize);
                let retired = step.series.iter().filter(|one| !one.live && !is_fixed(&one.key)).count();
                prop_assert!(retired <= rules.series_budget as usize);
                let kept: Option<Vec<Key>> = kept.map(|rows| rows.into_iter().map(|row| top.table.rows[row].key.clone()).collect());
                // Those kept are those sealed: with a seat, and with their own value.
                for row in &table.rows {
                    let own = live().find(|one| one.key == series_key(&row.key)).and_then(|one| one.cells[0].value);
                    let has_seat = kept.as_ref().is_none_or(|kept| kept.contains(&row.key));
                    prop_assert_eq!(own, has_seat.then_some(row.matched as f64));
                }
                prop_assert_eq!(step.own + step.folded, table.matched);

                // The rises of all counters, born ones from 0, are the window's reports.
                let totals = |state: &SeriesState| -> BTreeMap<SeriesKey, Running> {
                    state.series.iter().map(|(key, memory)| (key.clone(), memory.counters["count"])).collect()
                };
                let before = totals(&state);
                let mut risen = 0;
                for (key, now) in totals(&step.next) {
                    let same = before.get(&key).filter(|before| before.created == now.created);
                    prop_assert!(same.is_none_or(|before| before.total <= now.total), "a counter fell");
                    risen += now.total - same.map_or(0, |before| before.total);
                    let shown = step.series.iter().find(|one| one.key == key).and_then(|one| one.cells[0].counter).expect("shown");
                    prop_assert!(shown.total == now.total as f64 || shown.total == 0.0);
                }
                prop_assert_eq!(risen, table.matched);
                prop_assert_eq!(SeriesState::decode(&step.next.encode()), Some(step.next.clone()));
                state = step.next;
            }
        }

        #[test]
        fn a_holder_loses_its_seat_only_by_silence_or_to_one_with_twice_its_total(
            windows in prop::collection::vec(prop::collection::btree_map("[a-e]", 1u64..20, 0..5), 2..30),
        ) {
            let query = query(&["kind"]);
            // zero_for of 8 windows: each part is one window, so totals are exact.
            let rules = Rules { query: &query, zero_for_secs: 80, series_budget: 2 };
            let mut state = SeriesState::default();
            let live = |state: &SeriesState| -> BTreeSet<SeriesKey> {
                state.series.iter().filter(|(key, one)| one.live && !is_fixed(key)).map(|(key, _)| key.clone()).collect()
            };
            let count = |at: usize, key: &SeriesKey| match &key[0] {
                Label::Text(name) => windows[at].get(name).copied().unwrap_or(0),
                _ => 0,
            };
            for (at, groups) in windows.iter().enumerate() {
                let table = table(&groups.iter().map(|(name, n)| (name.as_str(), *n)).collect::<Vec<_>>());
                let before = live(&state);
                state = step(&state, &table, &rules, window(at as u64)).next;
                let after = live(&state);
                for lost in before.difference(&after) {
                    // Its own windows: those since it got its seat, of which at most the last 8 count.
                    let total: u64 = (at.saturating_sub(7)..=at).map(|at| count(at, lost)).sum();
                    let silent = (at.saturating_sub(8)..at).all(|at| count(at, lost) == 0);
                    let taken = after.difference(&before).any(|new| count(at, new) >= 2);
                    prop_assert!(silent || taken, "{lost:?} had {total} and nobody took its seat");
                }
                for (name, n) in groups {
                    let key = vec![Label::Text(name.clone())];
                    if !after.contains(&key) {
                        prop_assert_eq!(after.len(), 2, "no seat stays free while {} is folded", name);
                        let weakest = after.iter().map(|holder| {
                            (at.saturating_sub(7)..=at).map(|at| count(at, holder)).sum::<u64>()
                        }).min().expect("two");
                        prop_assert!(*n < 2 * weakest.max(1) || before.contains(&key), "{name} with {n} outside, {weakest} inside");
                    }
                }
            }
        }
    }
}
