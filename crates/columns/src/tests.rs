//! Random queries over random reports in random blocks equal the naive evaluator, whatever the blocks and threads.

use crate::scan::{Bounds, evaluate_within, parted_within, rests_within};
use crate::{
    Bits, Block, Builder, Column, Dictionaries, Failure, MISSING, Needed, Sieve, Source, evaluate, evaluate_parted, rests, select,
};
use model::{
    Aggregate, AggregateOp, Attributes, Condition, Derived, Direction, Function, Granularity, Key, Most, Operator, Parted, ProjectId,
    Query, Report, Selection, Stamp, Top, Tx, Value, oracle,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

const PROJECT: ProjectId = ProjectId(3);
/// Attributes that reports have; the versions are one attribute under several names.
const SENT: [&str; 7] = ["a", "b", "c", "timestamp", "app.version", "release", "version"];
/// Attributes that queries name: also some that no report has, and derived ones.
const NAMED: [&str; 13] = [
    "a",
    "b",
    "c",
    "timestamp",
    "app.version",
    "application.version",
    "version",
    "_tx",
    "_rxid",
    "timestamp.received",
    "report.delay",
    "none",
    "d",
];

fn value() -> impl Strategy<Value = Value> {
    let small = (0..4i64).prop_map(Value::Int);
    // Written the same though sent as different types, and not the same though they look it.
    let twins = prop::sample::select(vec![
        Value::from("1"),
        Value::Int(1),
        Value::Float(1.0),
        Value::Bool(true),
        Value::from("true"),
        Value::from("1.0"),
        Value::from("01"),
        Value::from(""),
    ]);
    let extreme = prop::sample::select(vec![
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::Int(i64::MAX - 1),
        Value::Int(i64::MIN + 1),
        Value::UInt(u64::MAX),
        Value::Float(1e308),
        Value::Float(-1e308),
        Value::Float(0.1),
        Value::Float(5e-324),
        Value::from("170141183460469231731687303715884105727"),
        Value::from("1e400"),
        Value::from("NaN"),
    ]);
    let times = (0..200i64).prop_map(|secs| Value::Int(1_799_999_900 + secs));
    let text = prop_oneof!["[a-cA-C]{0,3}", "[äÄ€𝄞ß\\x00 ]{0,2}"].prop_map(Value::Text);
    prop_oneof![4 => small, 2 => twins, 1 => extreme, 2 => times, 3 => text, 1 => (-8..8i64).prop_map(|n| Value::Float(n as f64 / 4.0))]
}

/// Attributes as they were drawn.
type Sent = Vec<(&'static str, Value)>;

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let attributes = prop::collection::vec((prop::sample::select(SENT.to_vec()), value()), 0..6);
    // Some attributes are of one type throughout, as most are.
    let plain = (0..3i64, 0..1_000u32, any::<bool>());
    prop::collection::vec((attributes, plain, 0..3u64), 0..40).prop_map(|rows| {
        let mut stamp = Stamp::from_secs(1_800_000_000);
        let report = |(number, (attributes, (whole, real, has), micros)): (usize, (Sent, _, u64))| {
            stamp = stamp.plus_micros(micros * 700_000);
            let mut pairs: Vec<(String, Value)> = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            pairs.push(("c".to_owned(), Value::Int(whole)));
            if has {
                pairs.push(("b".to_owned(), Value::Float(f64::from(real) + 0.25)));
            }
            Report { project: PROJECT, tx: Tx(number as u64 + 1), stamp, attributes: Attributes::from_pairs(pairs) }
        };
        rows.into_iter().enumerate().map(report).collect()
    })
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(NAMED.to_vec()).prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = Condition> {
    use Operator::*;
    let operators = vec![
        Equal,
        NotEqual,
        AtLeast,
        AtMost,
        GreaterThan,
        LessThan,
        Contains,
        NotContains,
        RegularExpression,
        InverseRegularExpression,
        IsSet,
        IsNotSet,
    ];
    let pattern = prop::sample::select(vec!["a", "^[ab]", "1$", ".", "ä|B", "^$"]).prop_map(Value::from);
    let spelt = prop::sample::select(vec!["1.", "0x1", "2", "1800000000."]).prop_map(Value::from);
    (name(), prop::sample::select(operators), prop_oneof![3 => value(), 1 => spelt], pattern, any::<bool>()).prop_map(
        |(name, operator, operand, pattern, insensitive)| {
            let operand = if matches!(operator, RegularExpression | InverseRegularExpression) { pattern } else { operand };
            Condition::new(&name, operator, operand, insensitive).expect("legal")
        },
    )
}

fn filter() -> impl Strategy<Value = Vec<Vec<Condition>>> {
    prop::collection::vec(prop::collection::vec(condition(), 0..3), 0..3)
}

fn derived() -> impl Strategy<Value = Vec<Derived>> {
    let function = prop_oneof![
        (1..100u64, -50..50i64).prop_map(|(size, offset)| Function::Quantize { size, offset }),
        prop::sample::select(vec![Granularity::Day, Granularity::Month, Granularity::Quarter, Granularity::Year])
            .prop_map(Function::Truncate),
    ];
    let source = prop::sample::select(vec!["timestamp", "timestamp.received", "a", "c", "release"]);
    // One hides an attribute that reports have.
    let name = prop::sample::select(vec!["d", "d", "d", "b"]);
    prop::collection::vec((name, source, function), 0..2).prop_map(|all| {
        all.into_iter().map(|(name, source, function)| Derived { name: name.into(), source: source.into(), function }).collect()
    })
}

fn query() -> impl Strategy<Value = Query> {
    let mut ops = AggregateOp::ALL.to_vec();
    ops.push(AggregateOp::Histogram);
    let aggregate = (prop::sample::select(ops), name()).prop_map(|(op, attribute)| Aggregate { op, attribute });
    (filter(), prop::collection::vec(name(), 0..4), prop::collection::vec(aggregate, 0..5), derived())
        .prop_map(|(filter, group, aggregates, derived)| Query { filter, group, aggregates, derived })
}

fn selection() -> impl Strategy<Value = Selection> {
    let direction = prop::sample::select(vec![Direction::Ascending, Direction::Descending]);
    let order = prop::collection::vec((name(), direction), 0..3);
    (filter(), derived(), prop::collection::vec(name(), 0..4), order, 0..5usize, 0..20usize)
        .prop_map(|(filter, derived, columns, order, offset, limit)| Selection { filter, derived, columns, order, offset, limit })
}

/// How the rows are cut into blocks, and what else must make no difference.
#[derive(Clone, Debug)]
struct Layout {
    cuts: BTreeSet<usize>,
    /// Whether each block has dictionaries of its own.
    apart: bool,
    /// Whether blocks are copies of unfinished ones with only the columns needed.
    copied: bool,
    /// Whether only the rows that pass some filter have values of what filters do not read, and places are left out where none is asked.
    sieved: bool,
    threads: usize,
    hidden: BTreeSet<usize>,
    span: (u64, u64),
}

fn layout() -> impl Strategy<Value = Layout> {
    let rows = prop::collection::btree_set(0..40usize, 0..6);
    let hidden = prop_oneof![Just(BTreeSet::new()), prop::collection::btree_set(0..40usize, 0..6)];
    let span = prop_oneof![2 => Just((0, 100)), 1 => (0..30u64, 0..40u64)];
    let ways = (any::<bool>(), any::<bool>(), any::<bool>());
    (rows, ways, 1..3usize, hidden, span).prop_map(|(cuts, (apart, copied, sieved), threads, hidden, (from, length))| Layout {
        cuts,
        apart,
        copied,
        sieved,
        threads,
        hidden,
        span: (from, from + length),
    })
}

impl Layout {
    fn span(&self) -> Range<Stamp> {
        Stamp::from_secs(1_800_000_000 + self.span.0)..Stamp::from_secs(1_800_000_000 + self.span.1)
    }

    fn blocks(&self, reports: &[Report], needed: &Needed, sieve: Option<Sieve<'_>>) -> Vec<Arc<Block>> {
        let shared = Arc::new(Dictionaries::default());
        let mut blocks = Vec::new();
        let mut from = 0;
        for to in self.cuts.iter().copied().filter(|cut| *cut < reports.len()).chain([reports.len()]) {
            let mut builder = Builder::new(if self.apart { Arc::default() } else { shared.clone() });
            reports[from..to].iter().for_each(|report| builder.add(report));
            let mut block = if self.copied { builder.snapshot(&needed.attributes) } else { builder.freeze() };
            if self.sieved {
                block = self.sieve(block, needed, sieve.as_ref());
            }
            if self.hidden.iter().any(|row| (from..to).contains(row)) {
                block.hide(Bits::from_fn(to - from, |row| self.hidden.contains(&(from + row))));
            }
            blocks.push(Arc::new(block));
            from = to;
        }
        blocks
    }

    /// As a reader of files leaves a block that nobody will look at as a whole.
    fn sieve(&self, mut block: Block, needed: &Needed, sieve: Option<&Sieve<'_>>) -> Block {
        if let Some(sieve) = sieve {
            let passing = sieve.rows(&block);
            for (_, column) in block.columns.iter_mut().filter(|(name, _)| !sieve.needed().attributes.contains(*name)) {
                if let Column::Codes(codes, dictionary) = column.as_ref() {
                    let code = |(row, code): (usize, &u32)| if passing.has(row) { *code } else { MISSING };
                    *column = Arc::new(Column::Codes(codes.iter().enumerate().map(code).collect(), dictionary.clone()));
                }
            }
            let mut others = Bits::all(block.rows());
            others.and_not(&passing);
            block.hide(others);
        }
        let is_within = |stamp: u64| self.span().contains(&Stamp::from_micros(stamp));
        let is_whole = block.stamps().is_some_and(|(first, last)| is_within(first) && is_within(last));
        if !needed.stamps && is_whole {
            block.stamp = Arc::default();
        }
        if !needed.numbers {
            block.tx = Arc::default();
        }
        block
    }

    /// The rows that readers see.
    fn seen<'r>(&self, reports: &'r [Report]) -> Vec<&'r Report> {
        let span = self.span();
        let seen = |(row, report): &(usize, &Report)| !self.hidden.contains(row) && span.contains(&report.stamp);
        reports.iter().enumerate().filter(seen).map(|(_, report)| report).collect()
    }

    fn ask<T>(&self, blocks: &[Arc<Block>], ask: impl FnOnce(&Source<'_, Infallible>) -> Result<T, Infallible>) -> T {
        let load = |part: usize| Ok(vec![blocks[part].clone()]);
        let source =
            Source { project: PROJECT, parts: blocks.len(), load: &load, span: self.span(), threads: self.threads, cancelled: &|| false };
        let Ok(answer) = ask(&source);
        answer
    }
}

/// A scan in every way it can go about its work.
fn bounds() -> impl Strategy<Value = Bounds> {
    (0..5usize, 1..60usize, 1..3usize, 0..3usize, 0..20usize).prop_map(|(few_jobs, batch_rows, jobs_at_a_time, few_filters, few_pairs)| {
        Bounds { few_jobs, batch_rows, jobs_at_a_time, few_filters, few_pairs }
    })
}

fn counted(columns: &[&str], group: &[&str]) -> Query {
    let count = |name: &&str| Aggregate { op: AggregateOp::Count, attribute: (*name).to_owned() };
    Query {
        group: group.iter().map(|name| (*name).to_owned()).collect(),
        aggregates: columns.iter().map(count).collect(),
        ..Query::default()
    }
}

#[test]
fn whoever_has_gone_gets_no_part_of_an_answer() {
    let block = Arc::new(Block::new(vec![1], vec![1]));
    let loaded = std::sync::atomic::AtomicUsize::new(0);
    let load = |_: usize| {
        loaded.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, Infallible>(vec![block.clone()])
    };
    let cancelled = || loaded.load(std::sync::atomic::Ordering::SeqCst) >= 3;
    let source =
        Source { project: PROJECT, parts: 1_000, load: &load, span: Stamp::ZERO..Stamp::from_secs(1), threads: 2, cancelled: &cancelled };
    let query = counted(&["_tx"], &[]);
    assert_eq!(evaluate(&source, &[&query, &query]), Ok(vec![Err(Failure::Cancelled), Err(Failure::Cancelled)]));
    assert_eq!(rests(&source, &[(&query, &BTreeSet::new())]), Ok(vec![Err(Failure::Cancelled)]));
    assert_eq!(select(&source, &Selection::default()), Ok(Err(Failure::Cancelled)));
    assert!(loaded.load(std::sync::atomic::Ordering::SeqCst) <= 5);
}

#[test]
fn more_groups_than_fit_fail_their_query_and_no_other() {
    let rows = oracle::MAX_GROUPS as u64 + 1;
    for (rows, fits) in [(rows - 1, true), (rows, false)] {
        let block = Arc::new(Block::new((0..rows).collect(), vec![1; rows as usize]));
        let load = |_: usize| Ok::<_, Infallible>(vec![block.clone()]);
        let source =
            Source { project: PROJECT, parts: 1, load: &load, span: Stamp::ZERO..Stamp::from_secs(1), threads: 1, cancelled: &|| false };
        let (by_number, all) = (counted(&[], &["_tx"]), counted(&["_tx"], &[]));
        let Ok(tables) = evaluate(&source, &[&by_number, &all]);
        assert_eq!(tables[0].as_ref().map(|table| table.rows.len()), if fits { Ok(rows as usize) } else { Err(&Failure::TooManyGroups) });
        assert_eq!(tables[1].as_ref().map(|table| table.matched), Ok(rows));
        // The same where answers are kept apart from all else, of which nobody is asked where there is no answer.
        let seats = BTreeSet::new();
        let most = [(&by_number, Most { groups: rows as usize, also: &seats }), (&all, Most { groups: 1, also: &seats })];
        let keep = |query: usize, top: &Top| {
            assert!(fits || query == 1, "an answer that there is not");
            Some((0..top.table.rows.len()).collect())
        };
        let Ok(parted) = evaluate_parted(&source, &most, &keep);
        let kept = |parted: &Parted| (parted.top.table.rows.len(), parted.rest.as_ref().map(|rest| rest.matched));
        let parted: Vec<_> = parted.iter().map(|answer| answer.as_ref().map(kept)).collect();
        let of_numbers = if fits { Ok((rows as usize, Some(0))) } else { Err(&Failure::TooManyGroups) };
        assert_eq!(parted, [of_numbers, Ok((1, Some(0)))]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn queries_equal_the_oracle(
        reports in reports(), queries in prop::collection::vec(query(), 1..5), layout in layout(), bounds in bounds(),
    ) {
        let asked: Vec<&Query> = queries.iter().collect();
        let blocks = layout.blocks(&reports, &Needed::by(&asked), Sieve::of_queries(PROJECT, &asked));
        let tables = layout.ask(&blocks, |source| evaluate_within(bounds, source, &asked, &[]));
        for (table, query) in tables.into_iter().zip(&queries) {
            prop_assert_eq!(table.map(|top| top.table), Ok(oracle::evaluate(layout.seen(&reports), query)), "{:?}", query);
        }
    }

    #[test]
    fn some_groups_of_queries_equal_the_oracle(
        reports in reports(),
        queries in prop::collection::vec((query(), 0..4usize, 1..4usize), 1..5),
        is_twice in any::<bool>(),
        layout in layout(),
        bounds in bounds(),
    ) {
        // Named are groups of all reports, so that some of them are not in the span, and some that no report is in.
        let named = |(query, groups, every): &(Query, usize, usize)| {
            let rows = oracle::evaluate(&reports, query).rows.into_iter().map(|row| row.key);
            let nowhere = [vec![Some("nowhere".to_owned()); query.group.len()], Vec::new()];
            (query.clone(), *groups, rows.step_by(*every + 1).chain(nowhere).collect::<BTreeSet<Key>>())
        };
        let mut asked: Vec<(Query, usize, BTreeSet<Key>)> = queries.iter().map(named).collect();
        if is_twice {
            // The same groups, of which other ones are wanted.
            asked.push((asked[0].0.clone(), 1, BTreeSet::new()));
        }
        let queries: Vec<&Query> = asked.iter().map(|(query, ..)| query).collect();
        let most: Vec<Most<'_>> = asked.iter().map(|(_, groups, also)| Most { groups: *groups, also }).collect();
        let blocks = layout.blocks(&reports, &Needed::by(&queries), Sieve::of_queries(PROJECT, &queries));
        let tops = layout.ask(&blocks, |source| evaluate_within(bounds, source, &queries, &most));
        for ((top, query), most) in tops.into_iter().zip(queries).zip(most) {
            prop_assert_eq!(top, Ok(oracle::evaluate_most(layout.seen(&reports), query, most)), "{:?} {:?}", query, most);
        }
    }

    #[test]
    fn groups_that_are_kept_and_the_rest_equal_the_oracle(
        reports in reports(),
        queries in prop::collection::vec((query(), 0..4usize, 0..3usize, 0..4usize), 1..5),
        layout in layout(),
        bounds in bounds(),
    ) {
        // Of some queries everything is kept and nothing asked for beside it, of others every row but each so many-th.
        let keep = |every: usize, rows: usize| (every > 0).then(|| (0..rows).filter(|row| row % every > 0).collect::<Vec<usize>>());
        let named = |(query, groups, also, every): &(Query, usize, usize, usize)| {
            let rows = oracle::evaluate(&reports, query).rows.into_iter().map(|row| row.key);
            (query.clone(), *groups, if *also > 0 { rows.step_by(*also).collect() } else { BTreeSet::new() }, *every)
        };
        let mut asked: Vec<(Query, usize, BTreeSet<Key>, usize)> = queries.iter().map(named).collect();
        // The same groups in another order, of which other ones are kept.
        let mut turned = asked[0].clone();
        turned.0.group.reverse();
        (turned.1, turned.2, turned.3) = (1, BTreeSet::new(), 2);
        asked.push(turned);
        let queries: Vec<&Query> = asked.iter().map(|(query, ..)| query).collect();
        let most: Vec<Most<'_>> = asked.iter().map(|(_, groups, also, _)| Most { groups: *groups, also }).collect();
        let blocks = layout.blocks(&reports, &Needed::by(&queries), Sieve::of_queries(PROJECT, &queries));
        let of_query = |query: usize, top: &model::Top| keep(asked[query].3, top.table.rows.len());
        let told = layout.ask(&blocks, |source| parted_within(bounds, source, &queries, &most, &of_query));
        for ((told, (query, _, _, every)), most) in told.into_iter().zip(&asked).zip(most) {
            let parted = oracle::evaluate_parted(layout.seen(&reports), query, most, |top| keep(*every, top.table.rows.len()));
            prop_assert_eq!(told, Ok(parted), "{:?} {:?} {}", query, most, every);
        }
    }

    #[test]
    fn the_rest_equals_the_oracle(
        reports in reports(), queries in prop::collection::vec((query(), 1..4usize), 1..5), layout in layout(), bounds in bounds(),
    ) {
        let kept = |(query, every): &(Query, usize)| -> BTreeSet<Key> {
            oracle::evaluate(&reports, query).rows.into_iter().map(|row| row.key).step_by(*every).collect()
        };
        let kept: Vec<BTreeSet<Key>> = queries.iter().map(kept).collect();
        let mut asked: Vec<(&Query, &BTreeSet<Key>)> = queries.iter().map(|(query, _)| query).zip(&kept).collect();
        // The same groups, none of which is left out.
        let none = BTreeSet::new();
        asked.push((asked[0].0, &none));
        let queries: Vec<&Query> = asked.iter().map(|(query, _)| *query).collect();
        let blocks = layout.blocks(&reports, &Needed::by(&queries), Sieve::of_queries(PROJECT, &queries));
        let rows = layout.ask(&blocks, |source| rests_within(bounds, source, &asked));
        for (row, (query, kept)) in rows.into_iter().zip(asked) {
            prop_assert_eq!(row, Ok(oracle::rest(layout.seen(&reports), query, kept)), "{:?} without {:?}", query, kept);
        }
    }

    #[test]
    fn selections_equal_the_oracle(reports in reports(), selection in selection(), layout in layout()) {
        let blocks = layout.blocks(&reports, &Needed::by_selection(&selection), Sieve::of_selection(PROJECT, &selection));
        let selected = layout.ask(&blocks, |source| select(source, &selection));
        prop_assert_eq!(selected, Ok(oracle::select(layout.seen(&reports), &selection)), "{:?}", selection);
    }
}
