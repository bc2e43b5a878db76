//! Decoders for query replies, as strict as the strictest of the real clients: what one of them crashes on is a panic here.

use serde_json::Value;
use std::collections::BTreeMap;

/// A group: key, reports, cells by `op(attribute)` in the order of the reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) key: Value,
    pub(super) count: u64,
    pub(super) cells: Vec<(String, Value)>,
}

/// A decoded aggregation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aggregation {
    pub(super) groups: Vec<Group>,
    /// Reports and groups: before `having`, after it.
    pub(super) initial: (u64, u64),
    pub(super) having: (u64, u64),
}

/// A decoded select.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    /// Object number and values, by column.
    pub(super) rows: Vec<(u64, BTreeMap<String, Value>)>,
    /// Rows there are beside those shown.
    pub(super) total: u64,
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// The parts that every reply has. `morgue --verbose` reads all of these times.
fn envelope(reply: &Value) -> &Value {
    assert!(reply.get("error").is_none(), "{reply}");
    let runtime = &reply["_"]["runtime"];
    for part in ["filter", "group_by", "sort", "set", "render", "having"] {
        number(&runtime[part]["time"]);
    }
    for part in ["pre_sort", "post_sort"] {
        number(&runtime["aggregate"][part]);
    }
    for name in ["user", "universe", "project", "latency"] {
        assert!(reply["_"][name].is_string(), "{name} is missing in {reply}");
    }
    number(&reply["_"]["tx"]);
    let toplevel = &runtime["toplevel"];
    let times = ["parse_end", "execute_begin", "execute_end", "print_begin", "print_end"].map(|name| number(&toplevel[name]));
    assert!(times.is_sorted() && times[4] == number(&runtime["total_time"]), "{runtime}");
    &reply["response"]
}

/// Column labels; checks that both descriptions of the columns say the same.
fn columns(response: &Value, folds: bool) -> Vec<String> {
    assert_eq!((&response["version"], &response["encoding"]), (&Value::from("1.2.0"), &Value::from("rle")));
    number(&response["seq"]);
    number(&response["pagination"]["limit"]);
    number(&response["pagination"]["offset"]);
    let (columns, described) = (list(&response["columns"]), list(&response["columns_desc"]));
    assert_eq!(columns.len(), described.len());
    let label = |(column, described): (&Value, &Value)| {
        let name = described["name"].as_str().expect("a name");
        let label = match described.get("op") {
            Some(op) => format!("{}({name})", op.as_str().expect("text")),
            None => name.to_owned(),
        };
        assert_eq!(described.get("op").is_some(), folds, "{described}");
        assert_eq!(list(column), [Value::from(label.as_str()), described["format"].clone()]);
        assert!(described["type"].is_string());
        label
    };
    columns.iter().zip(described).map(label).collect()
}

/// Decodes the reply to an aggregation.
pub(super) fn aggregation(reply: &Value, grouped: bool) -> Aggregation {
    let response = envelope(reply);
    assert!(response.get("objects").is_none(), "morgue takes a reply with objects for a select");
    let labels = columns(response, true);
    assert_eq!(response.get("factors_desc").is_some(), grouped, "{response}");
    let group = |row: &Value| {
        let [key, cells, count] = list(row) else { panic!("{row} has not three parts") };
        assert_eq!(list(cells).len(), labels.len());
        assert!(key.is_string());
        for cell in list(cells) {
            list(cell);
        }
        Group { key: key.clone(), count: number(count), cells: labels.iter().cloned().zip(list(cells).iter().cloned()).collect() }
    };
    let size = |name: &str| {
        let size = &response["cardinalities"][name];
        (number(&size["rows"]), number(&size["groups"]))
    };
    assert_eq!(size("pagination"), size("having"), "the total is of all pages");
    assert_eq!(number(&reply["_"]["runtime"]["filter"]["rows"]), size("initial").0);
    assert_eq!(number(&reply["_"]["runtime"]["group_by"]["groups"]), size("initial").1);
    Aggregation { groups: list(&response["values"]).iter().map(group).collect(), initial: size("initial"), having: size("having") }
}

/// Decodes the reply to a select.
pub(super) fn selection(reply: &Value) -> Selection {
    let response = envelope(reply);
    let names = columns(response, false);
    let [objects] = list(&response["objects"]) else { panic!("not one group of objects: {response}") };
    assert_eq!(objects[0], "*");
    let mut rows: Vec<(u64, BTreeMap<String, Value>)> = Vec::new();
    for run in list(&objects[1]) {
        let (first, more) = match list(run) {
            [first] => (number(first), 0),
            [first, more] => (number(first), number(more)),
            _ => panic!("{run} is no run"),
        };
        rows.extend((first..=first + more).map(|number| (number, BTreeMap::new())));
    }
    assert_eq!(list(&response["values"]).len(), names.len());
    for (name, column) in names.iter().zip(list(&response["values"])) {
        let [star, runs @ ..] = list(column) else { panic!("{column} is empty") };
        assert_eq!(star, "*");
        let values = runs.iter().flat_map(|run| match list(run) {
            [value, times] => std::iter::repeat_n(value.clone(), number(times) as usize),
            _ => panic!("{run} is no run"),
        });
        let values: Vec<Value> = values.collect();
        assert_eq!(values.len(), rows.len(), "{name} has not a value a row");
        for (row, value) in rows.iter_mut().zip(values) {
            row.1.insert(name.clone(), value);
        }
    }
    Selection { rows, total: number(&reply["_"]["runtime"]["filter"]["rows"]) }
}

/// Decodes a refusal.
pub(super) fn fault(reply: &Value) -> &str {
    number(&reply["error"]["code"]);
    assert!(reply.get("response").is_none());
    reply["error"]["message"].as_str().expect("a message")
}
