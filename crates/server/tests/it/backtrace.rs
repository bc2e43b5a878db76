//! The API of Backtrace's own clients: recorded requests of the real `morgue`, decoded as strictly as the strictest client does and
//! compared with what plain code works out from the submitted attributes; random requests likewise; and everything around queries.

mod around;
mod decode;
mod issue;
mod plain;

use crate::crashmeter::{Crashmeter, Project, number_in};
use crate::http::{self, Reply};
use plain::{Kind, Plain, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Requests that the real `morgue` sent, with the command lines that made it; tokens taken out, tenant and project as they were.
const RECORDED: &str = include_str!("../data/morgue-requests.json");

/// A client of one project.
struct Client {
    base: String,
    token: String,
    project: &'static str,
}

impl Client {
    fn of(server: &Crashmeter, project: &'static str) -> Client {
        let token = server.authorization().trim_start_matches("Bearer ").to_owned();
        Client { base: server.url(), token, project }
    }

    fn url(&self, path: &str, more: &[(&str, &str)]) -> String {
        let mut pairs = vec![("token", self.token.as_str()), ("universe", "main"), ("project", self.project)];
        pairs.extend(more);
        http::with_query(&format!("{}{path}", self.base), &pairs)
    }

    /// Posts JSON; whatever the server says of it is 200 and JSON of exactly this type.
    fn post(&self, path: &str, more: &[(&str, &str)], body: &Value) -> Value {
        let headers = [("Content-Type", "application/json")];
        let reply = http::call("POST", &self.url(path, more), &headers, body.to_string()).expect("an answer").expect(200);
        assert_eq!(reply.header("content-type"), "application/json");
        reply.json()
    }

    fn query(&self, body: &Value) -> Value {
        self.post("/api/query", &[], body)
    }

    fn get(&self, path: &str, more: &[(&str, &str)]) -> Reply {
        http::get(&self.url(path, more)).expect("an answer")
    }

    /// One cell of an ungrouped aggregation.
    fn cell(&self, filter: Value, column: &str, op: &str) -> Value {
        let reply = self.query(&json!({"filter": filter, "fold": {column: [[op]]}}));
        let found = decode::aggregation(&reply, false);
        found.groups.first().map_or(Value::Null, |group| group.cells[0].1[0].clone())
    }
}

/// Submits a report and gives the columns that it has, its number among them.
fn submit(project: &Project, report: &Value) -> Row {
    let reply = project.submit(report).expect("an answer").expect(200).json();
    let rxid = reply["_rxid"].as_str().expect("a receipt");
    let mut row: Row = report["attributes"].as_object().expect("attributes").clone();
    row.insert("_tx".into(), json!(number_in(rxid)));
    row.insert("_rxid".into(), json!(rxid));
    for name in ["timestamp", "fingerprint"] {
        row.insert(name.into(), report[name].clone());
    }
    row
}

fn kinds(pairs: &[(&str, Kind)]) -> BTreeMap<String, Kind> {
    let stock = [
        ("_tx", Kind::Number),
        ("timestamp", Kind::Number),
        ("_rxid", Kind::Id),
        ("guid", Kind::Id),
        ("_deleted", Kind::Bit),
        ("process.age", Kind::Number),
        ("vm.rss.size", Kind::Number),
    ];
    stock.iter().chain(pairs).map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
}

/// The twelve reports that the recorded requests were made for.
fn recorded_reports(project: &Project) -> Plain {
    let report = |n: u64| {
        let stack = [&["assert", "handle_request", "main"][..], &["abort", "parse", "main"], &["raise", "main"]][n as usize % 3];
        let frames: Vec<Value> = stack.iter().map(|name| json!({"funcName": name})).collect();
        let mut report = json!({
            "uuid": format!("{n:032x}"), "timestamp": 1_795_392_000 - 3_600 * n, "lang": "c", "agent": "demo",
            "fingerprint": format!("a1{:062x}", n % 3), "mainThread": "main", "threads": {"main": {"fault": true, "stack": frames}},
            "classifiers": ["abort", "stop"],
            "attributes": {
                "hostname": format!("host-{}", n % 4), "guid": format!("00000000-0000-4000-8000-{:012}", n % 5), "application": "shooter",
                "application.version": (["1.0.0", "1.0.1", "1.1.0"][n as usize % 3]), "error.message": (["assertion failed", "bad input"][n as usize % 2]),
                "error.type": (["Crash", "Exception", "Message"][n as usize % 3]), "process.age": 10 * n, "client.ip": 167_772_161 + n,
                "is.beta": n % 2 == 1, "fault.address": 3_735_879_680_u64 + n,
            },
        });
        if n % 2 == 1 {
            report["attributes"]["vm.rss.size"] = json!(100_000 + 17 * n);
        }
        report
    };
    let row = |n: u64| {
        let report = report(n);
        let mut row = submit(project, &report);
        let frames: Vec<&Value> =
            report["threads"]["main"]["stack"].as_array().expect("frames").iter().map(|frame| &frame["funcName"]).collect();
        row.insert("callstack".into(), json!(json!({"frame": frames}).to_string()));
        row.insert("classifiers".into(), json!("abort stop"));
        row
    };
    let own = [("client.ip", Kind::Number), ("is.beta", Kind::Bit), ("fault.address", Kind::Number), ("object.size", Kind::Number)];
    Plain { rows: (0..12).map(row).collect(), kinds: kinds(&own) }
}

#[test]
fn recorded_requests_of_morgue_are_answered_as_plain_code_answers_them() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let mut plain = recorded_reports(&project);
    let client = Client::of(&server, "shooter");
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).expect("JSON");
    let mut answered = 0;
    for one in recorded.iter().filter(|one| one["path"] == "/api/query") {
        let (name, body) = (one["name"].as_str().expect("a name"), &one["body"]);
        let more: Vec<(&str, &str)> = one["query"]
            .as_object()
            .expect("parameters")
            .iter()
            .filter(|(name, _)| !["universe", "project"].contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let reply = client.post("/api/query", &more, body);
        answered += 1;
        match name {
            "morgue-list-set-clear" => {
                assert_eq!(
                    (&reply["response"]["result"], &reply["_"]["runtime"]["filter"]["rows"]),
                    (&json!("success"), &json!(1)),
                    "{reply}"
                );
                let row = &mut plain.rows[2];
                row.insert("application".into(), json!("foo"));
                row.remove("hostname");
            }
            "morgue-list-unknown-column" => assert!(decode::fault(&reply).starts_with("aggregation column not found"), "{reply}"),
            "morgue-list-table-unique-aggregations" => assert!(decode::fault(&reply).starts_with("invalid parameter 'table'"), "{reply}"),
            name if name.starts_with("morgue-describe") => {
                for column in reply["describe"].as_array().expect("columns") {
                    assert!(["name", "type", "format", "description", "state"].iter().all(|field| column[field].is_string()), "{column}");
                    assert!(column["filter"].is_array() && column["aggregate"].is_array() && column["custom"].is_boolean(), "{column}");
                    assert!(column["statistics"]["used"].is_boolean() && column["group"].is_boolean(), "{column}");
                }
            }
            _ if body.get("select").is_some() || body.get("select_wildcard").is_some() || body.get("template").is_some() => {
                let mut found = decode::selection(&reply);
                let columns: Vec<String> = match body.get("select") {
                    Some(select) => select.as_array().expect("a list").iter().map(|name| name.as_str().expect("text").to_owned()).collect(),
                    None if body.get("template").is_some() => {
                        ["timestamp", "fingerprint", "callstack", "classifiers"].map(str::to_owned).to_vec()
                    }
                    None => plain.rows[1].keys().cloned().collect(),
                };
                // A wildcard also brings what only the server knows, such as the time of arrival.
                found.rows.iter_mut().for_each(|(_, row)| row.retain(|name, _| columns.contains(name)));
                assert_eq!(found, plain.select(body, &columns), "{name}: {body}");
            }
            _ => {
                let found = decode::aggregation(&reply, body.get("group").is_some());
                assert_eq!(found, plain.aggregate(body), "{name}: {body}");
            }
        }
    }
    assert_eq!(answered, 70);
    let foo = json!({"filter": [{"application": [["equal", "foo"]]}], "fold": {"_tx": [["head"]], "hostname": [["head"]]}});
    assert_eq!(decode::aggregation(&client.query(&foo), false), plain.aggregate(&foo));
    let all = json!({"group": ["hostname"], "fold": {"application": [["histogram"]]}});
    assert_eq!(decode::aggregation(&client.query(&all), true), plain.aggregate(&all));
}

/// Numbers that only look random: the same for the same seed (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

const COLUMNS: [&str; 10] = ["level", "mixed", "score", "digits", "beta", "process.age", "guid", "timestamp", "_tx", "vm.rss.size"];

fn random_reports(project: &Project, dice: &mut Dice) -> Plain {
    let rows = (0..60).map(|n| {
        let some = |dice: &mut Dice, values: &[Value]| if dice.below(5) == 0 { Value::Null } else { dice.pick(values) };
        let attributes = json!({
            "level": some(dice, &[json!("one"), json!("two"), json!("Zwei ü"), json!("a,b;c"), json!("")]),
            "mixed": some(dice, &[json!(1), json!("1"), json!(2.5), json!(true), json!("x"), json!("-3"), json!(1.0)]),
            "score": some(dice, &[json!(-7), json!(0), json!(3), json!(12.25), json!(1000), json!(12)]),
            "digits": some(dice, &[json!("9"), json!("10"), json!("1.50"), json!("1.5"), json!("100")]),
            "beta": some(dice, &[json!(true), json!(false)]),
            "process.age": some(dice, &[json!(5), json!("5"), json!(77), json!("300"), json!(0)]),
            "guid": some(dice, &[json!("00000000-0000-4000-8000-000000000001"), json!("00000000-0000-4000-8000-000000000002"), json!("pc-7")]),
        });
        let report = json!({"uuid": format!("{:032x}", n + 1), "timestamp": 1_700_000_000 + 50_000 * dice.below(9), "fingerprint": format!("{:064x}", n % 5 + 1), "attributes": attributes});
        submit(project, &report)
    });
    let own = [("score", Kind::Number), ("beta", Kind::Bit), ("step", Kind::Number), ("day", Kind::Number)];
    Plain { rows: rows.collect(), kinds: kinds(&own) }
}

fn random_filter(dice: &mut Dice, more: &[&str]) -> Value {
    let alternatives = (0..dice.below(3)).map(|_| {
        let mut alternative = serde_json::Map::new();
        for _ in 0..dice.below(3) {
            let mut columns =
                vec!["level", "mixed", "score", "digits", "beta", "process.age", "timestamp", "_tx", "_deleted", "vm.rss.size"];
            columns.extend(more);
            let column = dice.pick(&columns);
            let mut ops = vec![
                "equal",
                "not-equal",
                "at-least",
                "at-most",
                "greater-than",
                "less-than",
                "contains",
                "not-contains",
                "is-set",
                "is-not-set",
            ];
            if ["level", "mixed", "digits"].contains(&column) || more.contains(&column) {
                ops.extend(["regular-expression", "inverse-regular-expression"]);
            }
            let mut operands = vec![json!("5."), json!(12), json!("1"), json!(0), json!("100")];
            operands.extend(match column {
                "level" => vec![json!("two"), json!("ZWEI Ü"), json!("e"), json!("")],
                "score" | "process.age" => vec![json!("0xc"), json!(12.25), json!(-7), json!("300."), json!(5)],
                name if more.contains(&name) => vec![json!("open"), json!("resolved"), json!("slow network"), json!("e")],
                "beta" => vec![json!(true), json!("false"), json!("0")],
                "timestamp" => vec![json!("1700100000."), json!(1_700_250_000)],
                _ => vec![json!("x"), json!(2.5), json!("9"), json!(true)],
            });
            let terms = (0..1 + dice.below(2)).map(|_| {
                let op = dice.pick(&ops);
                match op {
                    "is-set" | "is-not-set" => json!([op]),
                    "regular-expression" | "inverse-regular-expression" => {
                        let pattern = dice.pick(&["^1", "o", "[0-9]+$", "T.O", "^$"]);
                        if dice.below(2) == 0 { json!([op, pattern]) } else { json!([op, pattern, {"case_insensitive": true}]) }
                    }
                    "contains" | "not-contains" | "equal" | "not-equal" if dice.below(3) == 0 => {
                        json!([op, dice.pick(&operands), {"case_insensitive": true}])
                    }
                    _ => json!([op, dice.pick(&operands)]),
                }
            });
            let terms: Vec<Value> = terms.collect();
            alternative.insert(column.to_owned(), json!(terms));
        }
        Value::Object(alternative)
    });
    alternatives.collect()
}

/// A request of any kind; `more` are columns beside those of all reports.
fn random_query(dice: &mut Dice, more: &[&'static str]) -> Value {
    let mut query = json!({"filter": random_filter(dice, more), "unknown key": {}});
    let vcols = [
        json!({"name": "step", "type": "quantize_uint", "quantize_uint": {"backing_column": "score", "size": dice.pick(&[json!(5), json!("100")]), "offset": dice.pick(&[0, -3, 7])}}),
        json!({"name": "day", "type": "truncate_timestamp", "truncate_timestamp": {"backing_column": "timestamp", "granularity": "day"}}),
    ];
    let vcols = match dice.below(3) {
        0 => vcols.to_vec(),
        _ => vec![],
    };
    let mut columns: Vec<&str> = COLUMNS.iter().chain(more).copied().collect();
    columns.extend(vcols.iter().map(|vcol| if vcol["name"] == "day" { "day" } else { "step" }));
    query["virtual_columns"] = json!(vcols);
    if dice.below(2) == 0 {
        query["limit"] = dice.pick(&[json!(3), json!("4"), json!(1000), json!("2.")]);
    }
    if dice.below(3) == 0 {
        query["offset"] = dice.pick(&[json!(1), json!("2"), json!(0)]);
    }
    let direction = |dice: &mut Dice| dice.pick(&["ascending", "descending"]);
    if dice.below(4) == 0 {
        let mut select: Vec<&str> = (0..1 + dice.below(5)).map(|_| dice.pick(&columns)).collect();
        select.sort_unstable();
        select.dedup();
        let order: Vec<Value> = (0..dice.below(3)).map(|_| json!({"name": dice.pick(&columns), "ordering": direction(dice)})).collect();
        query["select"] = json!(select);
        query["order"] = json!(order);
        return query;
    }
    if dice.below(4) > 0 {
        let name = dice.pick(&columns);
        query["group"] = if dice.below(8) == 0 { json!([[name]]) } else { json!([name]) };
    }
    let mut fold = serde_json::Map::new();
    let mut places = vec![";group".to_owned(), ";count".to_owned()];
    for _ in 0..dice.below(4) {
        let column = dice.pick(&columns);
        if fold.contains_key(column) {
            continue;
        }
        let ops: Vec<Value> = (0..1 + dice.below(4))
            .map(|_| {
                dice.pick(&[
                    json!(["head"]),
                    json!(["tail"]),
                    json!(["first"]),
                    json!(["last"]),
                    json!(["min"]),
                    json!(["max"]),
                    json!(["unique"]),
                    json!(["count"]),
                    json!(["sum"]),
                    json!(["mean"]),
                    json!(["range"]),
                    json!(["histogram"]),
                    json!(["distribution"]),
                    json!(["distribution", 2]),
                    json!(["distribution", "1"]),
                    json!(["bin"]),
                    json!(["bin", 3]),
                    json!(["bin", 4, 0, "100"]),
                    json!(["object"]),
                ])
            })
            .collect();
        for (at, op) in ops.iter().enumerate() {
            places.push(format!("{column};{at}"));
            if op[0] == "range" || op[0] == "distribution" {
                places.push(format!("{column};{at};1"));
            }
        }
        fold.insert(column.to_owned(), json!(ops));
    }
    query["fold"] = json!(fold);
    query["order"] = (0..dice.below(3)).map(|_| json!({"name": dice.pick(&places), "ordering": direction(dice)})).collect();
    let mut having: Vec<Value> = Vec::new();
    for at in 0..dice.below(3) {
        // What a group of true and false is called is decided by the reply, so it is not compared here.
        let place = dice.pick(&places[1..]);
        having.push(json!({"op": dice.pick(&["==", "!=", "<", ">", "<=", ">="]), "params": [dice.pick(&[json!(1), json!(3), json!("5"), json!(12.25), json!("one"), json!(0)])], "property": [place]}));
        if at > 0 && dice.below(4) > 0 {
            having.push(json!({"op": "boolean", "params": [dice.pick(&["and", "or"])]}));
        }
    }
    query["having"] = json!(having);
    query
}

#[test]
fn random_requests_are_answered_as_plain_code_answers_them() {
    let server = Crashmeter::start();
    let project = server.project("shooter");
    let mut dice = Dice(0x5eed);
    let plain = random_reports(&project, &mut dice);
    let client = Client::of(&server, "shooter");
    let (mut groups, mut rows) = (0, 0);
    for round in 0..600 {
        let (more_groups, more_rows) = compare(&client, &plain, &random_query(&mut dice, &[]), round);
        (groups, rows) = (groups + more_groups, rows + more_rows);
    }
    assert!(groups > 500 && rows > 500, "the requests are not all empty: {groups} {rows}");
}

/// Asks the server and plain code; returns how many groups and rows the answer has.
fn compare(client: &Client, plain: &Plain, query: &Value, round: usize) -> (usize, usize) {
    let reply = client.query(query);
    if let Some(select) = query.get("select") {
        let columns: Vec<String> = select.as_array().expect("a list").iter().map(|name| name.as_str().expect("text").to_owned()).collect();
        let found = decode::selection(&reply);
        assert_eq!(found, plain.select(query, &columns), "round {round}: {query}");
        return (0, found.rows.len());
    }
    let found = decode::aggregation(&reply, query["group"][0].is_string());
    assert_eq!(found, plain.aggregate(query), "round {round}: {query}");
    (found.groups.len(), 0)
}
