//! Tables for the reader: forms that clients send, and the texts by which they know a fault.

use super::*;
use crate::backtrace::Seen;
use serde_json::json;

fn columns() -> Columns {
    let seen = |name, texts, numbers| Seen { name, texts, numbers };
    Columns::of_reports([seen("level", 1, 0), seen("score", 0, 1), seen("beta", 0, 0), seen("a;b", 0, 1)], [])
}

fn request(body: Json) -> Request {
    read(&body, &columns()).unwrap_or_else(|fault| panic!("{body}: {fault}"))
}

fn fault(body: Json) -> String {
    read(&body, &columns()).expect_err(&body.to_string()).message
}

fn aggregation(body: Json) -> Aggregation {
    match request(body).action {
        Action::Aggregate(aggregation) => aggregation,
        other => panic!("{other:?}"),
    }
}

fn select(body: Json) -> (Vec<String>, Vec<(String, Direction)>) {
    match request(body).action {
        Action::Select(select) => (select.columns.into_iter().map(|column| column.name).collect(), select.order),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_number_has_many_spellings() {
    for (operand, value) in [
        (json!(5), Value::Int(5)),
        (json!("5"), Value::Int(5)),
        (json!("5."), Value::Int(5)),
        (json!("18446744073709551615."), Value::UInt(u64::MAX)),
        (json!("0xa"), Value::Int(10)),
        (json!("18446744073709551615"), Value::UInt(u64::MAX)),
        (json!("2.5"), Value::Float(2.5)),
        (json!("soon"), Value::from("soon")),
    ] {
        let filter = request(json!({"filter": [{"score": [["equal", operand]]}]})).filter;
        assert_eq!(filter[0][0].operand, value, "{operand}");
    }
    let text = request(json!({"filter": [{"level": [["equal", "5."]]}]})).filter;
    assert_eq!(text[0][0].operand, Value::from("5."));
    let id = request(json!({"filter": [{"guid": [["equal", "7D7C1F5E5A0B4E0C9F0E2F6B1C1D0A01"]]}]})).filter;
    assert_eq!(id[0][0].operand, Value::from("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01"));
    let flag = request(json!({"filter": [{"beta": [["equal", "true"], ["not-equal", "0"]]}]})).filter;
    assert_eq!((&flag[0][0].operand, &flag[0][1].operand), (&Value::Bool(true), &Value::Int(0)));
}

#[test]
fn filters_are_alternatives_of_conditions() {
    let filter = request(json!({"filter": [
        {"level": [["contains", "x", {"case_insensitive": true}], ["is-set"]], "score": [["at-least", 1]]}, {"level": [["is-not-set"]]}
    ]}))
    .filter;
    assert_eq!(filter.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    assert!(filter[0][0].case_insensitive && !filter[0][1].case_insensitive);
    for open in [json!([]), json!([{}]), json!(null), json!([{"level": [["is-set"]]}, {}])] {
        assert!(request(json!({"filter": open})).filter.is_empty(), "{open}");
    }
}

#[test]
fn what_is_asked_for_decides_the_kind_of_request() {
    assert_eq!(aggregation(json!({})), Aggregation::default());
    assert_eq!(aggregation(json!({"virtual_columns": [], "filter": [{}], "unknown": 7})), Aggregation::default());
    assert_eq!(select(json!({"select": ["level", "object", "level"], "fold": {"nosuch": [["head"]]}})).0, ["level"]);
    assert_eq!(select(json!({"template": "workflow", "fold": {}})).0, WORKFLOW);
    assert!(select(json!({"select": ["object"]})).0.is_empty());
    let physical = select(json!({"select_wildcard": {"physical": true}})).0;
    assert!(
        physical.contains(&"level".to_owned()) && physical.contains(&"_deleted".to_owned()) && !physical.contains(&"hostname".to_owned())
    );
    let joined = select(json!({"select_wildcard": {"physical": false, "derived": true}})).0;
    assert!(joined.contains(&"fingerprint;issues;state".to_owned()) && joined.len() == 6, "{joined:?}");
    let vcol = json!([{"name": "day", "type": "quantize_uint", "quantize_uint": {"backing_column": "timestamp", "size": "86400", "offset": -14400}}]);
    assert_eq!(select(json!({"select_wildcard": {"virtual": true}, "virtual_columns": vcol})).0, ["day"]);
    let set = request(json!({"set": {"score": "7.", "level": null, "new": true}, "fold": {"_tx": [["unique"]]}})).action;
    let expected = [("score", Some(Value::Int(7))), ("level", None), ("new", Some(Value::Bool(true)))];
    assert_eq!(set, Action::Set(expected.map(|(name, value)| (name.to_owned(), value)).to_vec()));
}

#[test]
fn pages_are_numbers_in_any_spelling() {
    for (limit, offset, expected) in [
        (json!(20), json!(5), (Some(20), 5)),
        (json!("20"), json!("5"), (Some(20), 5)),
        (json!(null), json!(null), (None, 0)),
        (json!(0), json!(0), (None, 0)),
    ] {
        let request = request(json!({"limit": limit, "offset": offset}));
        assert_eq!((request.limit, request.offset), expected);
    }
}

#[test]
fn groups_are_flat_or_nested() {
    let of = |group: Json| aggregation(json!({"group": group})).group.map(|column| (column.name, column.kind));
    assert_eq!(of(json!(["score"])), Some(("score".to_owned(), Type::Uint(64))));
    for none in [json!([["score"]]), json!([]), json!(["*"]), json!(null)] {
        assert_eq!(of(none), None);
    }
    assert!(fault(json!({"group": [["nosuch"]]})).starts_with("column not found"));
}

#[test]
fn folds_keep_their_order_and_arguments() {
    let folds = aggregation(json!({"fold": {
        "score": [["head"], ["tail"], ["first"], ["last"], ["min"], ["max"], ["unique"], ["count"], ["sum"], ["mean"], ["range"], ["histogram"],
                  ["object"], ["distribution"], ["distribution", "5"], ["bin"], ["bin", 4], ["bin", 4, "0", "200."]],
        "level": [["head"]],
    }}))
    .folds;
    let ops: Vec<Op> = folds.iter().map(|fold| fold.op).collect();
    use Op::*;
    let expected = [
        Head,
        Tail,
        First,
        Last,
        Min,
        Max,
        Unique,
        Count,
        Sum,
        Mean,
        Range,
        Histogram,
        Object,
        Distribution(3),
        Distribution(5),
        Bin(32, None),
        Bin(4, None),
        Bin(4, Some(BinSpan(0, 200))),
        Head,
    ];
    assert_eq!(ops, expected);
    assert_eq!(folds[18].column.name, "level");
}

#[test]
fn order_and_having_point_at_folds() {
    let body = |order: Json, having: Json| json!({"fold": {"level": [["head"], ["distribution", 2]], "a;b": [["range"], ["max"]]}, "order": order, "having": having});
    let orders = aggregation(body(
        json!([{"name": ";count", "ordering": "descending"}, {"name": ";group"}, {"name": "level;1", "ordering": "ascending"}, {"name": "a;b;1"}]),
        json!([]),
    ))
    .order;
    let cell = |fold, value| Term::Cell { fold, value };
    use Direction::{Ascending, Descending};
    assert_eq!(orders, [(Term::Count, Descending), (Term::Group, Ascending), (cell(1, 0), Ascending), (cell(3, 0), Ascending)]);
    let steps = aggregation(body(
        json!(null),
        json!([{"op": ">", "params": [1], "property": [";count"]}, {"op": "<=", "params": ["5."], "property": ["level;1;1"]},
               {"op": "boolean", "params": ["and"]}, {"op": "!=", "params": ["x"], "property": ["a;b;0;1"]}, {"op": "boolean", "params": ["or"]}]),
    ))
    .having;
    assert_eq!(
        steps,
        [
            Step::Compare(Term::Count, Operator::GreaterThan, Value::Int(1)),
            Step::Compare(cell(1, 1), Operator::AtMost, Value::from("5.")),
            Step::And,
            Step::Compare(cell(2, 1), Operator::NotEqual, Value::from("x")),
            Step::Or,
        ]
    );
}

#[test]
fn virtual_columns_take_the_format_of_their_source() {
    let vcol = |kind: &str, settings: Json| json!([{"name": "v", "type": kind, kind: settings}]);
    let day = vcol("truncate_timestamp", json!({"backing_column": "timestamp", "granularity": "day"}));
    let group = aggregation(json!({"group": ["v"], "virtual_columns": day})).group.expect("a group");
    assert_eq!((group.kind, group.format.as_str()), (Type::Uint(64), "unix_timestamp"));
    let request = request(json!({"filter": [{"_deleted": [["equal", "0"]], "v": [["at-least", 1]]}], "virtual_columns": day}));
    assert_eq!(request.derived.iter().map(|derived| derived.name.as_str()).collect::<Vec<_>>(), ["v", "_deleted"]);
    assert_eq!(request.attributes().into_iter().collect::<Vec<_>>(), ["_tx", "timestamp"]);
}

#[test]
fn faults_have_the_texts_that_clients_compare() {
    let vcol = |kind: &str, settings: Json| json!({"virtual_columns": [{"name": "v", "type": kind, kind: settings}]});
    for (body, start) in [
        (json!({"filter": [{"nosuch": [["is-set"]]}]}), "Filter column not found: column not found"),
        (json!({"fold": {"nosuch": [["head"]]}}), "aggregation column not found"),
        (json!({"select": ["nosuch"]}), "column not found"),
        (json!({"select": ["level"], "order": [{"name": "nosuch"}]}), "column not found"),
        (json!({"group": ["nosuch"]}), "column not found"),
        (json!({"filter": [{"score": [["regular-expression", "1"]]}]}), "regexec unsupported"),
        (json!({"filter": [{"guid": [["inverse-regular-expression", "1"]]}]}), "regexec unsupported"),
        (json!({"filter": [{"level": [["regular-expression", "("]]}]}), "invalid parameter 'filter'"),
        (json!({"filter": [{"level": [["like", "1"]]}]}), "invalid parameter 'filter'"),
        (json!({"filter": [{"level": [["equal", "1", "2"]]}]}), "invalid parameter 'filter'"),
        (json!({"filter": [{"level": [["equal"]]}]}), "invalid parameter 'filter'"),
        (json!({"filter": [{"level": [["equal", null]]}]}), "invalid parameter 'filter'"),
        (json!({"filter": {"level": []}}), "invalid parameter 'filter'"),
        (json!({"fold": {"level": [["median"]]}}), "invalid parameter 'fold'"),
        (json!({"fold": {"level": [["bin", 0]]}}), "invalid parameter 'fold'"),
        (json!({"fold": {"level": [["bin", 5, 7]]}}), "invalid parameter 'fold'"),
        (json!({"fold": {"level": [["bin", 5, 7, 7]]}}), "invalid parameter 'fold'"),
        (json!({"fold": {"level": [["distribution", 0]]}}), "invalid parameter 'fold'"),
        (json!({"group": ["level", "score"]}), "invalid parameter 'group'"),
        (json!({"limit": -1}), "limit must be positive"),
        (json!({"limit": "x"}), "limit must be positive"),
        (json!({"offset": "-1"}), "offset must be positive"),
        (json!({"template": "other"}), "Template not found"),
        (json!({"select": [], "set": {"level": "x"}}), "invalid parameter 'set'"),
        (json!({"set": {"level": {}}}), "invalid parameter 'set'"),
        (json!({"order": [{"name": "level;0"}]}), "column not found for aggregate value term"),
        (json!({"fold": {"level": [["head"]]}, "order": [{"name": "level;1"}]}), "index not found for aggregate value term"),
        (
            json!({"fold": {"level": [["head"]]}, "having": [{"op": "==", "params": [1], "property": ["level;0;1"]}]}),
            "index not found for aggregate value term",
        ),
        (json!({"having": [{"op": "==", "params": [1], "property": ["score;0;0"]}]}), "column not found for aggregate value term"),
        (json!({"having": [{"op": "boolean", "params": ["and"]}]}), "invalid parameter 'having'"),
        (
            json!({"having": [{"op": ">", "params": [1], "property": [";count"]}, {"op": "boolean", "params": ["and"]}]}),
            "invalid parameter 'having'",
        ),
        (
            vcol("quantize_uint", json!({"backing_column": "nosuch", "size": 1, "offset": 0})),
            "quantize_uint vcol: backing column not found",
        ),
        (vcol("quantize_uint", json!({"backing_column": "score", "size": 0})), "invalid parameter 'virtual_columns'"),
        (
            vcol("truncate_timestamp", json!({"backing_column": "nosuch", "granularity": "day"})),
            "truncate_timestamp vcol: backing column not found",
        ),
        (
            vcol("truncate_timestamp", json!({"backing_column": "timestamp", "granularity": "hour"})),
            "truncate_timestamp vcol: unrecognized granularity",
        ),
        (json!([]), "the body must be an object"),
    ] {
        let message = fault(body.clone());
        assert!(message.starts_with(start), "{body}: {message}");
    }
}

#[test]
fn the_table_is_named_in_the_body_or_the_address() {
    use TableName::*;
    assert_eq!(table(&json!({}), None), Ok(Objects));
    assert_eq!(table(&json!({"table": "objects"}), Some("issues")), Ok(Objects));
    assert_eq!(table(&json!({"table": "issues"}), None), Ok(Issues));
    assert_eq!(table(&json!({}), Some("issues")), Ok(Issues));
    let unknown = table(&json!({"table": "unique_aggregations"}), None).expect_err("not here");
    assert!(unknown.message.starts_with("invalid parameter 'table'"), "{unknown}");
}
