//! The shapes of queries that pages ask and the metrics that a window evaluates, over slim reports in memory. Prints a table of
//! times; what is counted is checked against the data as it was made. Arguments: millions of rows, runs of each shape. With `guard Q2 TIMES`
//! it asks one shape so often of 20,000 rows, for `bench/guard.py` to count the instructions.

#![allow(clippy::print_stdout)]

use columns::{Bits, Block, Column, Dictionary, Source, evaluate, evaluate_parted};
use model::{
    Aggregate, AggregateOp, Condition, Derived, Function, Key, Most, Operator, Parted, ProjectId, Query, Stamp, Table, Top, Value,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of a block.
const BLOCK_ROWS: usize = 131_072;
/// Two, as the machine that the goals are set for has cores.
const THREADS: usize = 2;
/// Rows of a guarded shape.
const GUARDED_ROWS: usize = 20_000;
/// Rows of the window that the metrics see.
const WINDOW_ROWS: usize = 1_200_000;
/// Metrics of a window.
const METRICS: usize = 1_000;
/// Series of a metric, as design.md has it.
const SEATS: usize = 1_000;
/// The first stamp, in seconds.
const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    // `Q2`: only shapes of that name; `metrics`: only these.
    let only = std::env::args().skip(1).find(|word| word.starts_with(['Q', 'm']));
    let millions = numbers.first().copied().unwrap_or(10);
    let runs = numbers.get(1).copied().unwrap_or(7) as usize;
    let began = Instant::now();
    let data = Data::new();
    let guarded = std::env::args().any(|word| word == "guard");
    let (rows, runs) = if guarded { (GUARDED_ROWS, millions as usize) } else { (millions as usize * 1_000_000, runs) };
    let day = data.blocks(rows, DAY);
    println!("{rows} rows in {} blocks made in {:.1} s", day.len(), began.elapsed().as_secs_f64());
    let whole = Stamp::from_secs(START)..Stamp::from_secs(START + DAY);
    let last_hour = Stamp::from_secs(START + DAY - DAY / 24)..whole.end;
    for (name, query, span, goal) in [
        ("Q1 rows, unique(_tx)", query(&[], &[], &[("unique", "_tx")]), &whole, None),
        ("Q2 rows, unique(guid) by app.version", query(&["app.version"], &[], &[("unique", "guid")]), &whole, Some(150)),
        ("Q3 rows by fingerprint", query(&["fingerprint"], &[], &[]), &whole, Some(50)),
        ("Q4 unique(user.id) by error.type, filtered", filtered(), &whole, Some(100)),
        ("Q5 five of process.age by device.model, 1/24", ages(), &last_hour, Some(10)),
        ("Q6 rows by minute and error.type", by_minute(), &whole, Some(100)),
        ("Q7 unique(guid) by fingerprint", query(&["fingerprint"], &[], &[("unique", "guid")]), &whole, None),
    ] {
        if only.as_ref().is_some_and(|only| !name.starts_with(only.as_str())) {
            continue;
        }
        if guarded {
            for _ in 0..runs {
                assert!(ask(&day, span, &[&query])[0].is_some(), "{name} is answered");
            }
            continue;
        }
        let mut times = Vec::new();
        let mut answer = String::new();
        let cpu = cpu_time();
        for _ in 0..runs {
            let began = Instant::now();
            let tables = ask(&day, span, &[&query]);
            times.push(began.elapsed());
            answer = shown(tables[0].as_ref());
        }
        times.sort();
        let goal = goal.map_or(String::new(), |goal| format!(", goal {goal} ms"));
        let (least, median, cpu) = (ms(times[0]), ms(times[runs / 2]), ms(cpu_time() - cpu) / runs as f64);
        println!("{name:45} median {median:7.1} ms, least {least:7.1}, CPU {cpu:7.1}{goal}; {answer}");
    }
    drop(day);
    if only.is_some_and(|only| only != "metrics") {
        return;
    }
    let window = data.blocks(WINDOW_ROWS, 60);
    let span = Stamp::from_secs(START)..Stamp::from_secs(START + 60);
    let metrics = metrics(METRICS);
    // As sealed windows take them: the series of the window before, and as many newcomers as there are seats.
    let mut seated: Vec<BTreeSet<Key>> = vec![BTreeSet::new(); METRICS];
    for run in 0..=runs {
        let most = seated.iter().map(|also| Most { groups: SEATS, also });
        let asked: Vec<(&Query, Most<'_>)> = metrics.iter().zip(most).collect();
        let (began, cpu) = (Instant::now(), cpu_time());
        let parts = ask_parted(&window, &span, &asked);
        let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
        let rows: usize = parts.iter().flatten().map(|parted| parted.top.table.rows.len()).sum();
        let rests = parts.iter().flatten().filter(|parted| parted.rest.is_some()).count();
        println!(
            "{METRICS} metrics over {WINDOW_ROWS} rows, window {run}: {:.2} s CPU, {:.2} s; {rows} groups, {rests} rests",
            cpu.as_secs_f64(),
            wall.as_secs_f64()
        );
        seated = parts.into_iter().map(|parted| largest(parted.map(|parted| parted.top.table), SEATS)).collect();
    }
    println!("greatest resident size {}", resident());
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ask(blocks: &[Arc<Block>], span: &Range<Stamp>, queries: &[&Query]) -> Vec<Option<Table>> {
    let load = |part: usize| Ok::<_, Infallible>(vec![blocks[part].clone()]);
    let source =
        Source { project: ProjectId(1), parts: blocks.len(), load: &load, span: span.clone(), threads: THREADS, cancelled: &|| false };
    let Ok(tables) = evaluate(&source, queries);
    tables.into_iter().map(Result::ok).collect()
}

/// As a window is sealed: the groups with most reports have the seats.
fn ask_parted(blocks: &[Arc<Block>], span: &Range<Stamp>, queries: &[(&Query, Most<'_>)]) -> Vec<Option<Parted>> {
    let load = |part: usize| Ok::<_, Infallible>(vec![blocks[part].clone()]);
    let source =
        Source { project: ProjectId(1), parts: blocks.len(), load: &load, span: span.clone(), threads: THREADS, cancelled: &|| false };
    let keep = |_: usize, top: &Top| {
        let rows = &top.table.rows;
        let mut places: Vec<usize> = (0..rows.len()).collect();
        places.sort_by_key(|place| Reverse(rows[*place].matched));
        places.truncate(SEATS);
        (rows.len() > SEATS || top.beyond.groups > 0).then_some(places)
    };
    let Ok(answers) = evaluate_parted(&source, queries, &keep);
    answers.into_iter().map(Result::ok).collect()
}

/// The keys of the groups with most reports.
fn largest(table: Option<Table>, groups: usize) -> BTreeSet<Key> {
    let mut rows = table.map(|table| table.rows).unwrap_or_default();
    rows.sort_by_key(|row| Reverse(row.matched));
    rows.into_iter().take(groups).map(|row| row.key).collect()
}

fn shown(table: Option<&Table>) -> String {
    let Some(table) = table else { return "failed".to_owned() };
    let uniques = table.rows.iter().filter_map(|row| match row.cells.first()?.scalar()? {
        Value::Int(n) => Some(*n),
        _ => None,
    });
    format!("{} matched, {} groups, first cells add up to {}", table.matched, table.rows.len(), uniques.map(i128::from).sum::<i128>())
}

/// Processor time of this process: the kernel counts it in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

fn aggregate((op, attribute): &(&str, &str)) -> Aggregate {
    Aggregate { op: AggregateOp::read(op).expect("an aggregate"), attribute: (*attribute).to_owned() }
}

fn condition(attribute: &str, operator: Operator, operand: impl Into<Value>) -> Condition {
    Condition::new(attribute, operator, operand.into(), false).expect("legal")
}

fn query(group: &[&str], filter: &[Condition], aggregates: &[(&str, &str)]) -> Query {
    Query {
        filter: if filter.is_empty() { Vec::new() } else { vec![filter.to_vec()] },
        group: group.iter().map(|&name| name.to_owned()).collect(),
        aggregates: aggregates.iter().map(aggregate).collect(),
        derived: Vec::new(),
    }
}

fn filtered() -> Query {
    let application = condition("application", Operator::Equal, "app-3");
    let hostname = condition("hostname", Operator::RegularExpression, "^host-[0-4].*7$");
    query(&["error.type"], &[application, hostname], &[("unique", "user.id")])
}

fn ages() -> Query {
    let ages = ["min", "max", "sum", "first", "last"].map(|op| (op, "process.age"));
    query(&["device.model"], &[], &ages)
}

fn by_minute() -> Query {
    let function = Function::Quantize { size: 60, offset: 0 };
    let derived = vec![Derived { name: "minute".into(), source: "timestamp.received".into(), function }];
    Query { derived, ..query(&["minute", "error.type"], &[], &[]) }
}

/// Attributes that metrics group by, the ones with most values first.
const GROUPS: [&str; 8] =
    ["fingerprint", "hostname", "device.model", "app.version", "http.status", "application", "error.type", "uname.sysname"];

/// 20 % ungrouped, 60 % by one attribute, 20 % by two; half with one or two conditions; one to three aggregates.
fn metrics(count: usize) -> Vec<Query> {
    let mut random = Random(77);
    let operators = [Operator::Equal, Operator::Equal, Operator::NotEqual, Operator::Contains, Operator::RegularExpression];
    let metric = |_| {
        let groups = match random.below(10) {
            0..2 => 0,
            2..8 => 1,
            _ => 2,
        };
        let mut names: Vec<&str> = Vec::new();
        if groups > 0 {
            names.push(GROUPS[random.below(8) as usize]);
        }
        if groups > 1 {
            let others: Vec<&str> = GROUPS.into_iter().filter(|name| *name != names[0]).collect();
            names.push(others[random.below(7) as usize]);
        }
        let conditions = if random.below(2) == 0 { 0 } else { 1 + random.below(2) };
        let filter: Vec<Condition> = (0..conditions)
            .map(|_| match random.below(6) {
                0 => condition("process.age", Operator::GreaterThan, Value::Int(random.below(5) as i64 * 5_000)),
                1 => condition("http.status", Operator::AtLeast, Value::Int(400 + random.below(3) as i64 * 50)),
                2 => condition("hostname", operators[3 + random.below(2) as usize], format!("{}", random.below(30))),
                3 => condition("app.version", operators[random.below(3) as usize], format!("1.{}.{}", random.below(4), random.below(10))),
                4 => condition("error.type", operators[random.below(3) as usize], format!("error-{}", random.below(8))),
                _ => condition("application", operators[random.below(3) as usize], format!("app-{}", random.below(20))),
            })
            .collect();
        let aggregates: Vec<(&str, &str)> = (0..1 + random.below(3))
            .map(|_| match random.below(10) {
                0..3 => ("unique", "_tx"),
                3 => ("count", "http.status"),
                4 => ("unique", "guid"),
                5 => ("unique", "user.id"),
                6 => ("max", "process.age"),
                7 => ("sum", "memory.rss"),
                8 => ("mean", "process.age"),
                _ => ("last", "memory.rss"),
            })
            .collect();
        query(&names, &filter, &aggregates)
    };
    (0..count).map(metric).collect()
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Less than `bound`, small ones more often: about as often as words of a language by rank.
    fn zipf(&mut self, bound: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((bound as f64).powf(unit) as u64 - 1).min(bound - 1)
    }
}

/// The dictionaries of all attributes of text.
struct Data(Vec<(&'static str, Arc<Dictionary>, Draw)>);

/// Which value a row has.
#[derive(Clone, Copy)]
enum Draw {
    Even,
    Zipf,
    /// In one of 20 rows.
    Sparse,
}

impl Data {
    fn new() -> Data {
        let attribute = |name, count: u64, draw, word: &dyn Fn(u64) -> Value| {
            let dictionary = Arc::new(Dictionary::default());
            (0..count).for_each(|n| _ = dictionary.intern(&word(n)));
            (name, dictionary, draw)
        };
        let id = |n: u64| Value::from(format!("{:08x}-{:04x}-4000-8000-{:012x}", n.wrapping_mul(0x9e37_79b9) as u32, n as u16, n));
        let word = |stem: &'static str| move |n: u64| Value::from(format!("{stem}{n}"));
        Data(vec![
            attribute("guid", 2_000_000, Draw::Even, &id),
            attribute("fingerprint", 50_000, Draw::Zipf, &|n| Value::from(format!("{:064x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))),
            attribute("app.version", 200, Draw::Zipf, &|n| Value::from(format!("1.{}.{}", n % 10, n / 10))),
            attribute("error.type", 8, Draw::Even, &word("error-")),
            attribute("application", 20, Draw::Even, &word("app-")),
            attribute("hostname", 5_000, Draw::Even, &word("host-")),
            attribute("uname.sysname", 6, Draw::Even, &word("system-")),
            attribute("device.model", 1_500, Draw::Zipf, &word("model-")),
            attribute("user.id", 1_000_000, Draw::Even, &id),
            attribute("http.status", 60, Draw::Sparse, &|n| Value::from(400 + n)),
        ])
    }

    /// Rows spread over some seconds from the start.
    fn blocks(&self, rows: usize, secs: u64) -> Vec<Arc<Block>> {
        let block = |from: usize| {
            let tx: Vec<u64> = (from..rows.min(from + BLOCK_ROWS)).map(|row| row as u64 + 1).collect();
            let stamp: Vec<u64> = tx.iter().map(|tx| START * 1_000_000 + (tx - 1) * secs * 1_000_000 / rows as u64).collect();
            let mut random = Random(from as u64 + 1);
            let mut columns = BTreeMap::new();
            for (name, dictionary, draw) in &self.0 {
                let words = u64::from(dictionary.length()) - 1;
                let code = |_| match draw {
                    Draw::Even => 1 + random.below(words) as u32,
                    Draw::Zipf => 1 + random.zipf(words) as u32,
                    Draw::Sparse if random.below(20) == 0 => 1 + random.below(words) as u32,
                    Draw::Sparse => 0,
                };
                let codes = tx.iter().map(code).collect();
                columns.insert((*name).to_owned(), Arc::new(Column::Codes(codes, dictionary.clone())));
            }
            let present: Option<Bits> = None;
            let ages = tx.iter().map(|_| random.below(30_000) as i64).collect();
            columns.insert("process.age".to_owned(), Arc::new(Column::Ints(ages, present.clone())));
            let sizes = tx.iter().map(|_| (random.below(4_000_000) * 4_096) as i64).collect();
            columns.insert("memory.rss".to_owned(), Arc::new(Column::Ints(sizes, present)));
            Arc::new(Block::new(tx, stamp).with_columns(columns))
        };
        (0..rows).step_by(BLOCK_ROWS).map(block).collect()
    }
}
