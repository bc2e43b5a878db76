//! DuckDB as judge: over the same files it must answer as we do, wherever SQL can say what a query says. Left out are floats that
//! the two write differently (with an exponent), numbers in text beyond 32 digits, and `_rxid`.
//!
//! `make test-tools` installs DuckDB; `tests/duckdb/judge.py` translates the queries.

use super::File;
use super::group::Limits;
use super::write::write_within;
use crate::codec::StoredReport;
use crate::disk::RealDisk;
use crate::sim::Choices;
use columns::{Block, Dictionaries, Needed, Source, evaluate};
use model::{
    Aggregate, AggregateOp, Attachment, Attributes, Cell, Condition, Derived, Function, Granularity, Operator, ProjectId, Query, Report,
    ReportId, Stamp, Table, Tx, Value, oracle,
};
use serde_json::{Value as Json, json};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const FILES: u64 = 100;
const QUERIES: u64 = 22;
const START_SECS: u64 = 1_800_000_000;
/// Names of attributes: some differ only in case, some look like columns of ours or of other attributes.
const SENT: [&str; 15] =
    ["a", "A", "b", "c", "d", "a|int", "a|text", "x y", "it's \"ä\"", "", "_raw", "_tx", "timestamp", "app.version", "release"];
/// What queries name beside these.
const MORE: [&str; 6] = ["_tx", "timestamp.received", "report.delay", "version", "application.version", "none"];

fn pick<T: Clone>(choices: &mut Choices, of: &[T]) -> T {
    of[choices.below(of.len() as u64) as usize].clone()
}

/// A value of a manner: attributes of one type throughout, and mixed ones.
fn value(choices: &mut Choices, manner: u64) -> Value {
    match manner {
        0 => Value::Text(pick(choices, &["x", "y", "X", "", "Ä", "ä", "ß", "a b", "it's", "%", "a\nb", "zebra"]).to_owned()),
        1 => Value::Int(choices.below(7) as i64 - 3),
        2 => Value::Float(choices.below(40) as f64 / 4.0 - 5.0),
        3 => pick(choices, &["5", "05", "5.", "5.0", "+5", "-3", "1e2", "12 apples", "0x10", "-", "1_0", " 1", "2.5", "true"]).into(),
        4 => Value::Bool(choices.below(2) == 0),
        5 => pick(
            choices,
            &[
                Value::Int(i64::MAX),
                Value::Int(i64::MIN),
                Value::UInt(u64::MAX),
                Value::Int((1 << 53) + 1),
                Value::Float(9_007_199_254_740_992.0),
                Value::Float(-0.0),
                Value::Float(0.1),
                Value::Float(1e15),
            ],
        ),
        6 => Value::Int((START_SECS + choices.below(400)) as i64 - 200),
        _ => {
            let manner = choices.below(6);
            value(choices, manner)
        }
    }
}

fn reports(choices: &mut Choices) -> Vec<StoredReport> {
    let manners: Vec<u64> = SENT.iter().map(|name| if *name == "timestamp" { 6 } else { choices.below(12) }).collect();
    let presence: Vec<u64> = SENT.iter().map(|_| choices.below(5)).collect();
    let mut stamp = Stamp::from_secs(START_SECS);
    let rows = 1 + choices.below(150);
    let report = |tx: u64| {
        stamp = stamp.plus_micros(choices.below(3) * 700_000);
        let mut pairs = Vec::new();
        for ((name, manner), presence) in SENT.iter().zip(&manners).zip(&presence) {
            if choices.below(4) < *presence {
                pairs.push(((*name).to_owned(), value(choices, *manner)));
            }
        }
        let report = Report { project: ProjectId(1), tx: Tx(tx * 3), stamp, attributes: Attributes::from_pairs(pairs) };
        StoredReport { report, id: None, raw: b"{}".to_vec(), attachments: Vec::new() }
    };
    (1..=rows).map(report).collect()
}

fn name(choices: &mut Choices) -> String {
    if choices.below(4) == 0 { pick(choices, &MORE) } else { pick(choices, &SENT) }.to_owned()
}

fn condition(choices: &mut Choices) -> Condition {
    use Operator::*;
    let operator = pick(
        choices,
        &[
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
        ],
    );
    let manner = choices.below(8);
    let operand = if matches!(operator, RegularExpression | InverseRegularExpression) {
        pick(choices, &["^[xy]", "5$", ".", "ä|B", "^$", "a.b", "[0-9]{2}"]).into()
    } else {
        value(choices, manner)
    };
    Condition::new(&name(choices), operator, operand, choices.below(2) == 0).expect("legal")
}

fn query(choices: &mut Choices) -> Query {
    let mut few = |most: u64| choices.below(most + 1) as usize;
    let (alternatives, conditions, group, aggregates, derived) = (few(2), few(2), few(2), few(4), few(1));
    let filter = (0..alternatives).map(|_| (0..conditions).map(|_| condition(choices)).collect()).collect();
    let derive = |choices: &mut Choices| {
        let function = match choices.below(2) {
            0 => Function::Quantize { size: 1 + choices.below(100), offset: choices.below(100) as i64 - 50 },
            _ => Function::Truncate(pick(choices, &[Granularity::Day, Granularity::Month, Granularity::Quarter, Granularity::Year])),
        };
        let source = pick(choices, &["timestamp", "timestamp.received", "b", "release", "_tx"]).to_owned();
        // Named like an attribute that is sent, it hides this.
        Derived { name: pick(choices, &["c", "new"]).to_owned(), source, function }
    };
    let derived: Vec<Derived> = (0..derived).map(|_| derive(choices)).collect();
    let named = |choices: &mut Choices| match derived.first() {
        Some(derived) if choices.below(2) == 0 => derived.name.clone(),
        _ => name(choices),
    };
    let group = (0..group).map(|_| named(choices)).collect();
    let ops: Vec<AggregateOp> = AggregateOp::ALL.into_iter().chain([AggregateOp::Histogram]).collect();
    let aggregates = (0..aggregates).map(|_| Aggregate { op: pick(choices, &ops), attribute: named(choices) }).collect();
    Query { filter, group, aggregates, derived }
}

/// The answer from the columns of the file.
fn answer(file: &File, query: &Query) -> Table {
    let blocks = file.blocks(&Needed::by(&[query]), &Dictionaries::default()).expect("read");
    let blocks: Vec<Arc<Block>> = blocks.into_iter().map(Arc::new).collect();
    let load = |_| Ok::<_, Infallible>(blocks.clone());
    let span = Stamp::ZERO..Stamp::from_micros(u64::MAX);
    let source = Source { project: ProjectId(1), parts: 1, load: &load, span, threads: 1, cancelled: &|| false };
    let Ok(mut tables) = evaluate(&source, &[query]);
    tables.pop().expect("one answer").unwrap_or_else(|_| panic!("there are few groups"))
}

fn cell(cell: &Cell) -> Json {
    match cell {
        Cell::Scalar(None) => Json::Null,
        Cell::Scalar(Some(value)) => {
            let kind = match value {
                Value::Text(_) => "text",
                Value::Int(_) => "int",
                Value::UInt(_) => "uint",
                Value::Float(_) => "float",
                Value::Bool(_) => "bool",
            };
            json!(format!("{kind}:{}", value.written()))
        }
        Cell::Histogram(counts) => json!(counts),
    }
}

fn table(table: &Table) -> Json {
    let row =
        |row: &model::TableRow| json!({"key": row.key, "matched": row.matched, "cells": row.cells.iter().map(cell).collect::<Vec<_>>()});
    json!({"matched": table.matched, "rows": table.rows.iter().map(row).collect::<Vec<_>>()})
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Runs the judge; what it says is the test's failure.
fn judge(arguments: &[&Path]) {
    let python = repository("tests/duckdb/.venv/bin/python");
    assert!(python.exists(), "`make test-tools` installs DuckDB");
    let output = Command::new(python).arg(repository("tests/duckdb/judge.py")).args(arguments).output().expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(20_000).collect::<String>();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn duckdb_answers_two_thousand_queries_as_we_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cases = Vec::new();
    for seed in 0..FILES {
        let mut choices = Choices::new(seed);
        let (stored, name) = (reports(&mut choices), format!("{seed}.parquet"));
        let path = folder.path().join(&name);
        let rows = if choices.below(2) == 0 { 1 + choices.below(60) as usize } else { 131_072 };
        let limits = Limits { rows, ..Limits::default() };
        write_within(limits, &RealDisk, &path, stored.iter().cloned().map(Ok)).expect("written");
        let file = File::open(Arc::new(RealDisk), &path).expect("opened");
        for _ in 0..QUERIES {
            let query = query(&mut choices);
            let answer = answer(&file, &query);
            assert_eq!(answer, oracle::evaluate(stored.iter().map(|stored| &stored.report), &query), "seed {seed}: {query:?}");
            cases.push(json!({"file": name, "query": query, "answer": table(&answer)}));
        }
    }
    let json = serde_json::to_vec(&cases).expect("values are JSON");
    fs::write(folder.path().join("cases.json"), json).expect("written");
    judge(&[folder.path()]);
}

/// A report of the data that the page shows: seconds after the start, attributes, the number of files.
type Sample<'a> = (u64, &'a [(&'a str, Value)], usize);

#[test]
fn the_queries_of_the_page_give_the_answers_of_the_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let project = folder.path().join("parquet/1");
    fs::create_dir_all(&project).expect("made");
    let text = |text: &str| Value::Text(text.to_owned());
    let (type_error, timeout) = (("error.type", text("TypeError")), ("error.type", text("Timeout")));
    let (ann, bob, eve) = (("guid", text("ann")), ("guid", text("bob")), ("guid", text("eve")));
    let version = |version: &str| ("app.version", text(version));
    let first: [Sample<'_>; 4] = [
        (0, &[type_error.clone(), ann.clone(), version("1.0"), ("process.age", Value::Int(12))], 0),
        (5, &[type_error.clone(), bob, version("1.0"), ("process.age", text("30 s")), ("shard", Value::Int(7))], 2),
        (65, &[timeout.clone(), ann.clone(), version("1.1"), ("process.age", Value::Int(40))], 0),
        (70, &[type_error.clone(), eve, version("1.1"), ("process.age", text("8"))], 0),
    ];
    let second: [Sample<'_>; 2] = [
        (3_600, &[timeout, ann.clone(), version("1.1"), ("process.age", Value::Float(2.5)), ("http.status", Value::Int(504))], 0),
        (3_601, &[type_error, ann, version("1.1")], 0),
    ];
    let mut tx = 0;
    for (name, samples) in [("000000000001-5eed5eed-0.parquet", &first[..]), ("000000000002-5eed5eed-0.parquet", &second[..])] {
        let reports = samples.iter().map(|(secs, pairs, files)| {
            tx += 1;
            let attributes = Attributes::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            let report = Report { project: ProjectId(1), tx: Tx(tx), stamp: Stamp::from_secs(START_SECS + secs), attributes };
            let file = |id: usize| Attachment {
                id: id as u32,
                name: format!("log{id}.txt"),
                content_type: "text/plain".to_owned(),
                size: 100 * id as u64,
                sha256: [id as u8; 32],
            };
            let raw = format!(r#"{{"lang":"{}"}}"#, if tx % 2 == 0 { "java" } else { "node" }).into_bytes();
            Ok(StoredReport { report, id: Some(ReportId([tx as u8; 16])), raw, attachments: (1..=*files).map(file).collect() })
        });
        // Few columns, so that a rare attribute has none.
        write_within(Limits { columns: 5, ..Limits::default() }, &RealDisk, &project.join(name), reports).expect("written");
    }
    judge(&[folder.path(), &repository("docs/reports-on-disk.md")]);
}
