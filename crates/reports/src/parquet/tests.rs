//! What is written comes back, as reports and as columns; what is damaged comes back as an error; a disk that fails leaves nothing.

use super::group::Limits;
use super::read::Columns;
use super::schema::OURS;
use super::write::write_within;
use super::{File, write};
use crate::codec::StoredReport;
use crate::disk::{Appender, Disk};
use crate::sim::{Choices, Fault, SimDisk};
use columns::{Bits, Block, Builder, Column, Dictionaries, Needed};
use model::{Attachment, Attributes, ProjectId, Report, ReportId, Stamp, Tx, Value};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PATH: &str = "/reports.parquet";

fn stored(tx: u64, pairs: &[(&str, Value)]) -> StoredReport {
    let attributes = Attributes::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let report = Report { project: ProjectId(3), tx: Tx(tx), stamp: Stamp::from_micros(1_800_000_000_000_000 + tx), attributes };
    StoredReport { report, id: None, raw: format!("{{\"tx\":{tx}}}").into_bytes(), attachments: Vec::new() }
}

fn value() -> impl Strategy<Value = Value> {
    let extreme = prop::sample::select(vec![
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::UInt(u64::MAX),
        Value::UInt(1 << 63),
        Value::Float(0.0),
        Value::Float(-0.0),
        Value::Float(f64::MIN_POSITIVE),
        Value::Float(5e-324),
        Value::Float(f64::MAX),
        Value::Float(f64::MIN),
        Value::Float(0.1),
        Value::from(""),
        Value::from("\0"),
        Value::from("5"),
        Value::Int(5),
        Value::Float(5.0),
        Value::Bool(true),
        Value::from("true"),
    ]);
    prop_oneof![
        extreme,
        any::<bool>().prop_map(Value::Bool),
        (-3..3i64).prop_map(Value::Int),
        any::<i64>().prop_map(Value::Int),
        ((1u64 << 63)..).prop_map(Value::UInt),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        "[a-c]{0,2}".prop_map(Value::Text),
        ".{0,20}".prop_map(Value::Text),
    ]
}

/// Few names, so that they come again; some look like ours or like those of columns.
fn name() -> impl Strategy<Value = String> {
    let known = ["a", "A", "b", "a|int", "a|text", "|bool", "_tx", "_TX", "_raw", "_more", "_uuid", "", "app.version", "ä\"'\0", "x y"];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-f]|.{0,6}"]
}

fn attachment() -> impl Strategy<Value = Attachment> {
    (any::<u32>(), ".{0,9}", ".{0,9}", any::<u64>(), any::<[u8; 32]>()).prop_map(|(id, name, content_type, size, sha256)| Attachment {
        id,
        name,
        content_type,
        size,
        sha256,
    })
}

fn reports() -> impl Strategy<Value = Vec<StoredReport>> {
    let rows = (
        prop::collection::vec((name(), value()), 0..9),
        prop::option::of(any::<[u8; 16]>()),
        prop::collection::vec(any::<u8>(), 0..40),
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(attachment(), 0..3)],
        (1..5u64, 0..9u64),
    );
    let start = prop::sample::select(vec![1, 1 << 40, u64::MAX - 1_000]);
    (prop::collection::vec(rows, 1..30), start, any::<u32>()).prop_map(|(rows, start, project)| {
        let (mut tx, mut stamp) = (start, Stamp::from_secs(1_800_000_000));
        let row = |(pairs, id, raw, attachments, (later, micros)): (_, Option<[u8; 16]>, _, _, _)| {
            tx += later;
            stamp = stamp.plus_micros(micros);
            let report = Report { project: ProjectId(project), tx: Tx(tx), stamp, attributes: Attributes::from_pairs(pairs) };
            StoredReport { report, id: id.map(ReportId), raw, attachments }
        };
        rows.into_iter().map(row).collect()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let small = (1..9usize, 500..4_000usize, 0..8usize).prop_map(|(rows, bytes, columns)| Limits { rows, bytes, columns });
    prop_oneof![Just(Limits::default()), small]
}

fn written(limits: Limits, reports: &[StoredReport]) -> SimDisk {
    let disk = SimDisk::default();
    write_within(limits, &disk, Path::new(PATH), reports.iter().cloned().map(Ok)).expect("written");
    disk
}

fn open(disk: &SimDisk) -> io::Result<File> {
    File::open(Arc::new(disk.clone()), Path::new(PATH))
}

/// A block's rows as text: 0 and -0 are equal but not the same.
fn rows_of(blocks: &[Block], names: &BTreeSet<String>) -> Vec<String> {
    let row = |block: &Block, row: usize| {
        let values = names.iter().map(|name| block.columns.get(name).and_then(|column| column.value(row)));
        format!("{} {} {:?}", block.tx[row], block.stamp[row], values.collect::<Vec<_>>())
    };
    blocks.iter().flat_map(|block| (0..block.rows()).map(|at| row(block, at)).collect::<Vec<_>>()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_written_comes_back(reports in reports(), limits in limits()) {
        let disk = SimDisk::default();
        let summary = write_within(limits, &disk, Path::new(PATH), reports.iter().cloned().map(Ok)).expect("written");
        let (first, last) = (&reports[0].report, &reports[reports.len() - 1].report);
        prop_assert_eq!((summary.reports, summary.txs, summary.stamps), (reports.len() as u64, (first.tx, last.tx), (first.stamp, last.stamp)));
        prop_assert_eq!(Some(summary.bytes), disk.length(Path::new(PATH)).expect("there"));
        let file = open(&disk).expect("opened");
        let back: Vec<StoredReport> = file.reports().collect::<io::Result<_>>().expect("read");
        // Compared as text: 0 and -0 are equal but not the same.
        prop_assert_eq!(format!("{back:?}"), format!("{reports:?}"));
        for one in &reports {
            let found = file.report(one.report.tx).expect("read");
            prop_assert_eq!(format!("{found:?}"), format!("{:?}", Some(one)));
        }
        let taken: BTreeSet<Tx> = reports.iter().map(|one| one.report.tx).collect();
        for tx in [0, 1, first.tx.0 - 1, first.tx.0 + 1, last.tx.0.wrapping_add(1), u64::MAX].map(Tx) {
            prop_assert_eq!(file.report(tx).expect("read").is_some(), taken.contains(&tx));
        }
    }

    #[test]
    fn columns_are_those_of_the_reports(
        reports in reports(), limits in limits(), asked in prop::collection::btree_set(name(), 0..6), every in 1..9u64,
    ) {
        let (dictionaries, mut builder) = (Arc::new(Dictionaries::default()), Builder::new(Arc::default()));
        reports.iter().for_each(|one| builder.add(&one.report));
        // Something is in the dictionaries already, as in use.
        dictionaries.of("a").intern_all([Value::from("c"), Value::from("b"), Value::Int(0)].iter());
        let file = open(&written(limits, &reports)).expect("opened");
        let blocks = file.blocks(&needed(&asked), &dictionaries).expect("read");
        prop_assert_eq!(rows_of(&blocks, &asked), rows_of(&[builder.freeze()], &asked));
        let wanted: Vec<Bits> = blocks.iter().map(|block| Bits::from_fn(block.rows(), |row| block.tx[row] % every == 0)).collect();
        let some = file.columns_of(&asked, &wanted, &Dictionaries::default()).expect("read");
        for (block, (wanted, some)) in blocks.iter().zip(wanted.iter().zip(&some)) {
            for (name, row) in asked.iter().flat_map(|name| wanted.iter().map(move |row| (name, row))) {
                let value = |columns: &Columns| columns.get(name).and_then(|column| column.value(row).map(Cow::into_owned));
                prop_assert_eq!(format!("{:?}", value(some)), format!("{:?}", value(&block.columns)));
            }
        }
        for block in &blocks {
            prop_assert!(block.rows() <= limits.rows);
            for (name, column) in &block.columns {
                prop_assert!(asked.contains(name));
                prop_assert_eq!(column.rows(), block.rows());
                prop_assert!((0..block.rows()).any(|row| column.has(row)), "a column without values is none");
                if let Column::Codes(_, dictionary) = column.as_ref() {
                    prop_assert!(Arc::ptr_eq(dictionary, &dictionaries.of(name)));
                }
            }
        }
    }
}

#[test]
fn numbers_stay_numbers_where_all_are_of_one_type() {
    let reports = [
        stored(1, &[("int", Value::Int(7)), ("float", Value::Float(0.5)), ("some", Value::Int(1)), ("mixed", Value::Int(1))]),
        stored(2, &[("int", Value::Int(-7)), ("float", Value::Float(-0.0)), ("mixed", Value::from("1"))]),
    ];
    let names = ["int", "float", "some", "mixed", "none"].map(str::to_owned).into();
    let blocks =
        open(&written(Limits::default(), &reports)).and_then(|file| file.blocks(&needed(&names), &Dictionaries::default())).expect("read");
    let column = |name: &str| blocks[0].columns.get(name).map(|column| column.as_ref());
    assert!(matches!(column("int"), Some(Column::Ints(values, None)) if *values == [7, -7]));
    assert!(matches!(column("float"), Some(Column::Floats(values, None)) if values[1].is_sign_negative()));
    assert!(matches!(column("some"), Some(Column::Ints(_, Some(present))) if present.iter().eq([0])));
    assert!(matches!(column("mixed"), Some(Column::Codes(..))));
    assert!(column("none").is_none());
}

#[test]
fn a_row_group_has_at_most_131072_rows_and_no_column_starts_late() {
    let late = 131_072;
    let report = |tx: u64| if tx == late { stored(tx, &[("late", Value::from("x"))]) } else { stored(tx, &[("a", Value::Int(1))]) };
    let disk = SimDisk::default();
    write(&disk, Path::new(PATH), (0..=late).map(|tx| Ok(report(tx)))).expect("written");
    let file = open(&disk).expect("opened");
    let blocks = file.blocks(&needed(&["a", "late"].map(str::to_owned).into()), &Dictionaries::default()).expect("read");
    assert_eq!(blocks.iter().map(Block::rows).collect::<Vec<_>>(), [131_072, 1]);
    let columns = |block: &Block| block.columns.keys().cloned().collect::<Vec<_>>();
    assert_eq!((columns(&blocks[0]), columns(&blocks[1])), (vec!["a".to_owned()], vec!["late".to_owned()]));
    assert_eq!(file.report(Tx(late)).expect("read"), Some(report(late)));
}

/// More rows than a page has, and more texts than are looked up at one time: one in every row, one in few rows and none of a whole page,
/// and one that comes again, so that it has a dictionary.
#[test]
fn texts_of_many_pages_come_back_whole_and_in_the_rows_wanted() {
    const ROWS: u64 = 45_000;
    let dense = |tx: u64| Some(format!("{tx:x} of many"));
    let sparse = |tx: u64| {
        (tx % 3 == 1 && !(19_000..41_000).contains(&tx)).then(|| format!("{} seldom", "y".repeat(tx as usize % 11) + &tx.to_string()))
    };
    let again = |tx: u64| (!tx.is_multiple_of(3)).then(|| format!("{} again", tx % 9_001));
    type Text<'t> = &'t dyn Fn(u64) -> Option<String>;
    let texts: [(&str, Text<'_>); 3] = [("dense", &dense), ("sparse", &sparse), ("again", &again)];
    let report = |tx: u64| {
        let pairs = texts.iter().filter_map(|(name, text)| Some((*name, Value::Text(text(tx)?))));
        stored(tx, &pairs.collect::<Vec<_>>())
    };
    let disk = SimDisk::default();
    write(&disk, Path::new(PATH), (0..ROWS).map(|tx| Ok(report(tx)))).expect("written");
    let file = open(&disk).expect("opened");
    let names: BTreeSet<String> = texts.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (name, has_dictionary) in [("dense", false), ("sparse", false), ("again", true)] {
        assert_eq!(file.pages_of(0, name), (vec![20_480, 20_480, 4_040], has_dictionary), "{name}");
    }
    let rows = ROWS as usize;
    let compare = |columns: &Columns, wanted: &Bits| {
        for (name, text) in &texts {
            for row in wanted.iter() {
                let value = columns[*name].value(row).map(|value| value.written().into_owned());
                assert_eq!(value, text(row as u64), "{name} in row {row}");
            }
        }
    };
    let blocks = file.blocks(&needed(&names), &Dictionaries::default()).expect("read");
    assert_eq!(blocks.len(), 1);
    compare(&blocks[0].columns, &Bits::from_fn(rows, |_| true));
    for wanted in [
        Bits::from_fn(rows, |_| true),
        Bits::from_fn(rows, |row| row % 2 == 1),
        Bits::from_fn(rows, |row| row % 1_009 == 5),
        Bits::from_fn(rows, |row| row > 40_000),
        Bits::from_fn(rows, |row| row == rows - 1),
    ] {
        let columns = file.columns_of(&names, std::slice::from_ref(&wanted), &Dictionaries::default()).expect("read");
        compare(&columns[0], &wanted);
    }
}

#[test]
fn a_row_group_ends_when_its_memory_does() {
    let limits = Limits { bytes: 100_000, ..Limits::default() };
    let reports: Vec<_> = (1..=40).map(|tx| stored(tx, &[("a", Value::Text(format!("{tx}{}", "x".repeat(10_000))))])).collect();
    let blocks =
        open(&written(limits, &reports)).and_then(|file| file.blocks(&needed(&BTreeSet::new()), &Dictionaries::default())).expect("read");
    assert_eq!(blocks.iter().map(Block::rows).collect::<Vec<_>>(), [10; 4]);
}

#[test]
fn the_most_frequent_attributes_have_the_columns() {
    let rare: Vec<String> = (0..1_500).map(|n| format!("rare{n:04}")).collect();
    let pairs = |tx: u64| {
        let own = rare.iter().skip(tx as usize * 100).take(100).map(|name| (name.as_str(), Value::Int(1)));
        own.chain([("often", Value::Int(tx as i64))]).collect::<Vec<_>>()
    };
    let reports: Vec<_> = (0..15).map(|tx| stored(tx, &pairs(tx))).collect();
    let file = open(&written(Limits::default(), &reports)).expect("opened");
    let names: Vec<&str> = file.columns().collect();
    assert_eq!(names.len(), OURS.len() + 1_000);
    assert!(names.contains(&"often") && names.contains(&"rare0998") && !names.contains(&"rare0999"));
    assert_eq!(file.reports().collect::<io::Result<Vec<_>>>().expect("read"), reports);
    let blocks = file.blocks(&needed(&["rare1499".to_owned()].into()), &Dictionaries::default()).expect("read");
    assert_eq!(blocks[0].columns["rare1499"].value(14).as_deref(), Some(&Value::Int(1)));
}

/// Something of every column, in several row groups, a few kilobytes.
fn small() -> (Vec<StoredReport>, SimDisk) {
    let values = [Value::from("x"), Value::Int(1), Value::UInt(u64::MAX), Value::Float(0.5), Value::Bool(true)];
    let report = |tx: u64| StoredReport {
        id: Some(ReportId([tx as u8; 16])),
        attachments: vec![Attachment { id: 1, name: "a".into(), content_type: "b".into(), size: 3, sha256: [tx as u8; 32] }],
        ..stored(tx, &[("a", values[tx as usize % 5].clone()), ("b", Value::from("word")), ("c", Value::Int(tx as i64))])
    };
    let reports: Vec<_> = (1..=12).map(report).collect();
    let disk = written(Limits { rows: 8, columns: 5, ..Limits::default() }, &reports);
    (reports, disk)
}

fn needed(names: &BTreeSet<String>) -> Needed {
    Needed { attributes: names.clone(), numbers: true, stamps: true }
}

/// Everything that can be read.
fn everything(disk: &SimDisk) -> io::Result<(Vec<StoredReport>, Vec<String>)> {
    let file = open(disk)?;
    let names = ["a", "b", "c"].map(str::to_owned).into();
    let rows = rows_of(&file.blocks(&needed(&names), &Dictionaries::default())?, &names);
    file.report(Tx(9))?;
    Ok((file.reports().collect::<io::Result<_>>()?, rows))
}

#[test]
fn damage_anywhere_is_an_error_and_never_another_answer() {
    let (reports, disk) = small();
    assert_eq!(everything(&disk).expect("whole").0, reports);
    let whole = disk.files()[Path::new(PATH)].clone();
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged.push(flipped);
        damaged.push(whole[..at].to_vec());
    }
    let mut choices = Choices::new(5);
    for _ in 0..300 {
        let (mut torn, from) = (whole.clone(), choices.below(whole.len() as u64) as usize);
        let to = (from + 1 + choices.below(600) as usize).min(whole.len());
        torn[from..to].iter_mut().for_each(|byte| *byte = choices.below(256) as u8);
        damaged.push(torn);
        damaged.push([&whole[..from], &whole[to..]].concat());
        damaged.push([&whole[..to], &whole[from..]].concat());
    }
    for content in damaged.into_iter().filter(|content| *content != whole) {
        disk.overwrite(Path::new(PATH), content);
        let error = everything(&disk).expect_err("damage is found");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}

#[test]
fn a_failing_disk_leaves_nothing_and_says_what_failed() {
    let (reports, disk) = small();
    let steps = disk.steps();
    for after in 0..steps {
        let disk = SimDisk::default();
        disk.arm(after, Fault::Once(io::ErrorKind::StorageFull));
        let limits = Limits { rows: 8, columns: 5, ..Limits::default() };
        let error = write_within(limits, &disk, Path::new(PATH), reports.iter().cloned().map(Ok)).expect_err("it failed");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(disk.files().is_empty());
        write_within(limits, &disk, Path::new(PATH), reports.iter().cloned().map(Ok)).expect("written");
        assert_eq!(everything(&disk).expect("whole").0, reports);
    }
}

#[test]
fn an_error_of_the_source_is_passed_on_and_no_reports_are_no_file() {
    let disk = SimDisk::default();
    let broken = [Ok(stored(1, &[])), Err(io::ErrorKind::TimedOut.into())];
    assert_eq!(write(&disk, Path::new(PATH), broken.into_iter()).expect_err("passed on").kind(), io::ErrorKind::TimedOut);
    assert_eq!(write(&disk, Path::new(PATH), std::iter::empty()).expect_err("no file").kind(), io::ErrorKind::InvalidInput);
    assert!(disk.files().is_empty());
    assert_eq!(open(&disk).err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
}

/// A disk that counts what is read.
struct Counting(SimDisk, AtomicU64);

impl Disk for Counting {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.create_folder(folder)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        self.0.create(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.1.fetch_add(length as u64, Ordering::Relaxed);
        self.0.read_at(path, offset, length)
    }
    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.length(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_folder(folder)
    }
}

#[test]
fn reading_takes_only_what_is_asked_for() {
    // Bodies that cannot be compressed, 40 MB of them.
    let mut choices = Choices::new(1);
    let mut noise = move |bytes: usize| (0..bytes).map(|_| choices.below(256) as u8).collect::<Vec<u8>>();
    let mut report = |tx: u64| StoredReport { raw: noise(1_000), ..stored(tx, &[("a", Value::Int(tx as i64)), ("b", Value::from("x"))]) };
    let disk = SimDisk::default();
    let summary = write(&disk, Path::new(PATH), (0..40_000).map(|tx| Ok(report(tx)))).expect("written");
    assert!(summary.bytes > 40_000_000);
    let disk = Arc::new(Counting(disk, AtomicU64::new(0)));
    let read = || disk.1.swap(0, Ordering::Relaxed);
    let file = File::open(disk.clone(), Path::new(PATH)).expect("opened");
    assert!(read() < 100_000, "opening");
    file.blocks(&needed(&["a".to_owned()].into()), &Dictionaries::default()).expect("read");
    assert!(read() < 500_000, "a column");
    assert!(file.report(Tx(39_999)).expect("read").is_some());
    assert!(read() < 2_500_000, "a report: a page of bodies");
    assert!(file.report(Tx(50_000)).expect("read").is_none());
    assert_eq!(read(), 0, "what cannot be there");
}
