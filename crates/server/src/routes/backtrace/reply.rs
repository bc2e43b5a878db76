//! Answers in the layout that clients decode: columns, rows and runs, numbers as the real service writes them.
//!
//! Inside folds whole numbers are decimal text, in ranges and bins and selects they are JSON numbers; what JSON readers cannot hold
//! exactly (from 2^53 on) is text everywhere.

use model::Value;
use model::backtrace::{Action, Aggregated, Aggregation, FoldCell, Group, Op, Request, Select, Shown, Type};
use model::{Direction, Selected, Tx};
use serde_json::{Map, Value as Json, json};

/// The largest whole number up to which JavaScript has every one.
const EXACT: u128 = 1 << 53;

/// What every answer begins with.
fn head(sequence: u64, request: &Request) -> Map<String, Json> {
    let limit = request.limit.unwrap_or(0);
    let head = json!({
        "version": "1.2.0", "encoding": "rle", "seq": sequence, "pagination": {"limit": limit, "offset": request.offset},
    });
    match head {
        Json::Object(head) => head,
        _ => unreachable!("written as an object"),
    }
}

/// The answer to an aggregation: the page of its sorted groups.
pub(super) fn aggregation(sequence: u64, request: &Request, asked: &Aggregation, found: &Aggregated) -> Json {
    let mut answer = head(sequence, request);
    let columns = asked.folds.iter().map(|fold| json!([format!("{}({})", fold.op.name(), fold.column.name), fold.column.format]));
    answer.insert("columns".into(), columns.collect());
    let described = asked.folds.iter().map(|fold| {
        let mut described = describe(&fold.column);
        described["op"] = json!(fold.op.name());
        described
    });
    answer.insert("columns_desc".into(), described.collect());
    if let Some(group) = &asked.group {
        answer.insert("factors_desc".into(), json!([describe(group)]));
    }
    let row = |group: &Group| {
        let cells = asked.folds.iter().zip(&group.cells).map(|(fold, cell)| fold_cell(fold.column.kind, fold.op, cell));
        let kind = asked.group.as_ref().map_or(Type::Dictionary, |group| group.kind);
        json!([group.key.as_ref().map_or("*", |key| bit(kind, key)), cells.collect::<Json>(), group.rows])
    };
    answer.insert("values".into(), request.page(&found.groups).iter().map(row).collect());
    let size = |size: &model::backtrace::Size| json!({"rows": size.rows, "groups": size.groups});
    // Of the pages together, not of the one shown: clients take this for the total.
    let cardinalities = json!({"initial": size(&found.initial), "having": size(&found.kept), "pagination": size(&found.kept)});
    answer.insert("cardinalities".into(), cardinalities);
    answer.into()
}

/// The answer to a select.
pub(super) fn selection(sequence: u64, request: &Request, asked: &Select, found: &Selected) -> Json {
    let mut answer = head(sequence, request);
    answer.insert("columns".into(), asked.columns.iter().map(|column| json!([column.name, column.format])).collect());
    answer.insert("columns_desc".into(), asked.columns.iter().map(describe).collect());
    if !asked.order.is_empty() {
        let order = asked.order.iter().map(
            |(name, direction)| json!({"name": name, "order": if *direction == Direction::Ascending { "ascending" } else { "descending" }}),
        );
        answer.insert("order".into(), order.collect());
    }
    answer.insert("objects".into(), json!([["*", objects(found.rows.iter().map(|(tx, _)| *tx))]]));
    let values = asked.columns.iter().enumerate().map(|(at, column)| {
        let mut runs = vec![json!("*")];
        runs.extend(runs_of(found.rows.iter().map(|(_, values)| select_cell(column.kind, values[at].as_ref()))));
        Json::Array(runs)
    });
    answer.insert("values".into(), values.collect());
    answer.into()
}

/// The answer to a change.
pub(super) fn changed() -> Json {
    json!({"result": "success"})
}

fn describe(column: &Shown) -> Json {
    json!({"name": column.name, "format": column.format, "type": column.kind.name()})
}

/// Runs of following numbers: the first, and how many more.
fn objects(numbers: impl Iterator<Item = Tx>) -> Vec<Json> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for Tx(number) in numbers {
        match runs.last_mut() {
            Some((first, more)) if *first + *more + 1 == number => *more += 1,
            _ => runs.push((number, 0)),
        }
    }
    runs.into_iter().map(|(first, more)| if more == 0 { json!([first]) } else { json!([first, more]) }).collect()
}

/// Runs of the same value: the value, and how often it comes.
fn runs_of(values: impl Iterator<Item = Json>) -> Vec<Json> {
    let mut runs: Vec<(Json, u64)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((last, times)) if *last == value => *times += 1,
            _ => runs.push((value, 1)),
        }
    }
    runs.into_iter().map(|(value, times)| json!([value, times])).collect()
}

fn fold_cell(kind: Type, op: Op, cell: &FoldCell) -> Json {
    let counts = |counts: &[(String, u64)]| counts.iter().map(|(value, count)| json!([bit(kind, value), count])).collect::<Json>();
    match cell {
        FoldCell::Value(Some(value)) if op == Op::Mean => json!([number(value)]),
        FoldCell::Value(Some(value)) if op == Op::Sum => json!([decimal(value)]),
        FoldCell::Value(Some(value)) if kind.is_number() => json!([decimal(value)]),
        FoldCell::Value(Some(value)) => json!([value.written()]),
        // Whole numbers have no null inside folds.
        FoldCell::Value(None) if kind.zero_for_missing() && matches!(op, Op::Head | Op::Tail | Op::First | Op::Last) => json!(["0"]),
        FoldCell::Value(None) => json!([]),
        FoldCell::Count(n) => json!([n]),
        FoldCell::Range(Some((least, greatest))) if kind.is_number() => json!([number(least), number(greatest)]),
        FoldCell::Range(Some((least, greatest))) => json!([least.written(), greatest.written()]),
        FoldCell::Range(None) => json!([]),
        FoldCell::Histogram(values) => counts(values),
        FoldCell::Distribution { keys, shown, tail } => {
            let mut cell = json!({"keys": keys, "vals": counts(shown)});
            if *tail > 0 {
                cell["tail"] = json!(tail);
            }
            json!([cell])
        }
        FoldCell::Bins(bins) => bins.iter().map(|(from, to, count)| json!([whole(*from), whole(*to), count])).collect(),
        FoldCell::Object(number) => json!([Tx(*number).hex()]),
    }
}

/// A value of a row.
fn select_cell(kind: Type, value: Option<&Value>) -> Json {
    match value {
        None if kind.zero_for_missing() => json!(0),
        None => Json::Null,
        Some(value) if kind.is_number() => number(value),
        Some(value) => json!(value.written()),
    }
}

/// A number as a JSON number; what is none stays text.
fn number(value: &Value) -> Json {
    use model::value::Number;
    match value.number() {
        Some(Number::Whole(n)) => whole(n),
        Some(Number::Real(n)) if n.is_finite() => json!(n),
        _ => json!(value.written()),
    }
}

/// A whole number as decimal text, a fraction as a JSON number; what is none stays text.
fn decimal(value: &Value) -> Json {
    match number(value) {
        Json::Number(n) if n.is_i64() || n.is_u64() => json!(n.to_string()),
        other => other,
    }
}

fn whole(n: i128) -> Json {
    match i64::try_from(n) {
        Ok(small) if n.unsigned_abs() <= EXACT => json!(small),
        _ => json!(n.to_string()),
    }
}

/// A written value of a column; those of a bit are digits.
fn bit(kind: Type, written: &str) -> &str {
    match (kind, written) {
        (Type::Bitmap, "true") => "1",
        (Type::Bitmap, "false") => "0",
        _ => written,
    }
}

/// Folds that a request asks for.
pub(super) fn folds(request: &Request) -> usize {
    match &request.action {
        Action::Aggregate(aggregation) => aggregation.folds.len(),
        Action::Select(_) | Action::Set(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_genuine_replies_have_them() {
        let int = |n: i64| FoldCell::Value(Some(Value::Int(n)));
        let text = |text: &str| FoldCell::Value(Some(Value::from(text)));
        let uint = Type::Uint(64);
        for (kind, op, cell, expected) in [
            (uint, Op::Head, int(16_395_388), json!(["16395388"])),
            (uint, Op::Max, text("16395388"), json!(["16395388"])),
            (uint, Op::Sum, int(660), json!(["660"])),
            (Type::Dictionary, Op::Sum, int(660), json!(["660"])),
            (uint, Op::Sum, FoldCell::Value(Some(Value::Float(0.5))), json!([0.5])),
            (uint, Op::Sum, FoldCell::Value(Some(Value::Float(f64::INFINITY))), json!(["inf"])),
            (uint, Op::Mean, FoldCell::Value(Some(Value::Float(2.5))), json!([2.5])),
            (uint, Op::Head, FoldCell::Value(None), json!(["0"])),
            (uint, Op::Min, FoldCell::Value(None), json!([])),
            (Type::Float64, Op::Head, FoldCell::Value(None), json!([])),
            (Type::Dictionary, Op::Head, FoldCell::Value(None), json!([])),
            (Type::Dictionary, Op::Head, int(5), json!(["5"])),
            (Type::Bitmap, Op::Head, FoldCell::Value(Some(Value::Bool(true))), json!(["1"])),
            (uint, Op::Head, FoldCell::Value(Some(Value::UInt(u64::MAX))), json!(["18446744073709551615"])),
            (uint, Op::Unique, FoldCell::Count(4), json!([4])),
            (uint, Op::Range, FoldCell::Range(Some((Value::Int(0), Value::Int(110)))), json!([0, 110])),
            (Type::Dictionary, Op::Range, FoldCell::Range(Some(("a".into(), "b".into()))), json!(["a", "b"])),
            (uint, Op::Range, FoldCell::Range(None), json!([])),
            (uint, Op::Histogram, FoldCell::Histogram(vec![("7".into(), 2)]), json!([["7", 2]])),
            (Type::Bitmap, Op::Histogram, FoldCell::Histogram(vec![("true".into(), 2)]), json!([["1", 2]])),
            (uint, Op::Object, FoldCell::Object(0x1c653d), json!(["1c653d"])),
            (uint, Op::Bin(32, None), FoldCell::Bins(vec![(7731, 7732, 1)]), json!([[7731, 7732, 1]])),
        ] {
            assert_eq!(fold_cell(kind, op, &cell), expected, "{op:?} {cell:?}");
        }
        let distribution = |tail| FoldCell::Distribution { keys: 2, shown: vec![("a".into(), 3)], tail };
        assert_eq!(fold_cell(Type::Dictionary, Op::Distribution(1), &distribution(1)), json!([{"keys": 2, "vals": [["a", 3]], "tail": 1}]));
        assert_eq!(fold_cell(Type::Dictionary, Op::Distribution(1), &distribution(0)), json!([{"keys": 2, "vals": [["a", 3]]}]));
    }

    #[test]
    fn rows_have_numbers_zeros_and_nulls() {
        for (kind, value, expected) in [
            (Type::Uint(64), Some(Value::Int(5)), json!(5)),
            (Type::Uint(64), Some(Value::from("5")), json!(5)),
            (Type::Uint(64), Some(Value::from("soon")), json!("soon")),
            (Type::Uint(64), Some(Value::UInt(1 << 63)), json!("9223372036854775808")),
            (Type::Uint(64), Some(Value::Int(-(1 << 53))), json!(-9_007_199_254_740_992_i64)),
            (Type::Uint(64), Some(Value::Int((1 << 53) + 1)), json!("9007199254740993")),
            (Type::Uint(64), None, json!(0)),
            (Type::Int64, None, json!(null)),
            (Type::Bitmap, Some(Value::Bool(true)), json!(1)),
            (Type::Bitmap, None, json!(0)),
            (Type::Dictionary, Some(Value::Int(5)), json!("5")),
            (Type::Dictionary, None, json!(null)),
            (Type::Uuid, None, json!(null)),
        ] {
            assert_eq!(select_cell(kind, value.as_ref()), expected, "{kind:?} {value:?}");
        }
    }

    #[test]
    fn runs_are_as_long_as_they_can_be() {
        assert_eq!(json!(objects([9, 4, 5, 2].map(Tx).into_iter())), json!([[9], [4, 1], [2]]));
        assert_eq!(json!(objects([1, 2, 3, 3].map(Tx).into_iter())), json!([[1, 2], [3]]));
        assert_eq!(json!(objects([1, 3].map(Tx).into_iter())), json!([[1], [3]]));
        let values = [json!(1), json!(1), json!(null), json!("1"), json!("1"), json!(1)];
        assert_eq!(json!(runs_of(values.into_iter())), json!([[1, 2], [null, 1], ["1", 2], [1, 1]]));
    }
}
