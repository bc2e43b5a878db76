//! The query API of our own as Explore asks it, compared with plain arithmetic over what was submitted.

use crate::crashmeter::{Crashmeter, Project};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

const KINDS: [&str; 3] = ["Exception", "Hang", "Crash"];

/// Submits reports: their kind, user and age follow from their numbers; every seventh has no user.
fn submit(project: &Project, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let mut attributes = json!({"error.type": KINDS[n as usize % 3], "process.age": n, "app.version": format!("1.{}", n % 2)});
        if n % 7 != 0 {
            attributes["user"] = json!(format!("u{}", n % 5));
        }
        project.submit(&json!({"uuid": format!("{n:032x}"), "timestamp": now(), "attributes": attributes})).expect("an answer").expect(200);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn groups_totals_and_courses_over_time_add_up() {
    let server = Crashmeter::start();
    let project = server.project("p");
    submit(&project, 0..60);
    let (from, to) = (now() - 120, now() + 2);
    let query = json!({"group": ["error.type"], "fold": {"_tx": [["count"]], "user": [["unique"]], "process.age": [["max"]]}});
    let ask = |extra: Value| {
        let mut body = json!({"query": query, "from": from, "to": to});
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        project.ask("POST", "query", body)
    };
    let answer = ask(json!({"order": {"by": "process_age_max", "direction": "ascending"}, "series": {"step": 10}})).expect(200).json();
    let expected: Vec<Value> = ["Exception", "Hang", "Crash"]
        .iter()
        .enumerate()
        .map(|(at, kind)| {
            let of_kind: Vec<u64> = (0..60).filter(|n| n % 3 == at as u64).collect();
            let users: BTreeSet<u64> = of_kind.iter().filter(|n| *n % 7 != 0).map(|n| n % 5).collect();
            json!([kind, of_kind.len(), users.len(), of_kind.iter().max()])
        })
        .collect();
    assert_eq!(answer["columns"], json!(["error.type", "count", "user_unique", "process_age_max"]));
    assert_eq!(answer["rows"], json!(expected));
    assert_eq!((&answer["totals"], &answer["matched"], &answer["rows_read"]), (&json!([60, 5, 59]), &json!(60), &json!(60)));
    assert_eq!((&answer["groups"], &answer["truncated"]), (&json!(3), &json!(false)));
    let series = &answer["series"];
    let starts: Vec<u64> = serde_json::from_value(series["starts"].clone()).expect("numbers");
    assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + 10) && starts[0] <= from && to <= starts[starts.len() - 1] + 10);
    for (line, row) in series["lines"].as_array().expect("lines").iter().zip(&expected) {
        assert_eq!(line["key"][0], row[0]);
        let matched: u64 = line["matched"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum();
        let counted: u64 = line["values"][0].as_array().expect("a list").iter().filter_map(Value::as_u64).sum();
        let greatest = line["values"][2].as_array().expect("a list").iter().filter_map(Value::as_u64).max();
        assert_eq!((json!(matched), json!(counted), json!(greatest)), (row[1].clone(), row[1].clone(), row[3].clone()));
    }
    let second = ask(json!({"order": {"by": "group", "direction": "ascending"}, "offset": 1, "limit": 1})).expect(200).json();
    assert_eq!((&second["rows"][0][0], &second["groups"], &second["truncated"]), (&json!("Exception"), &json!(3), &json!(true)));
    for (extra, field) in [
        (json!({"order": {"by": "nothing", "direction": "ascending"}}), "order.by"),
        (json!({"series": {"step": 0}}), "series.step"),
        (json!({"limit": 0}), "limit"),
        (json!({"from": to + 1}), "from"),
    ] {
        assert_eq!(ask(extra).expect(422).json()["field"], field);
    }
}

#[test]
fn reports_are_listed_latest_first_with_the_columns_asked_for() {
    let server = Crashmeter::start();
    let project = server.project("p");
    submit(&project, 0..20);
    let list = |body: Value| project.ask("POST", "reports", body).expect(200).json();
    let answer = list(json!({"columns": ["error.type", "user", "release"], "limit": 3, "offset": 1}));
    // Report n has the number n + 1.
    let row = |n: u64| json!({"tx": n + 1, "values": [KINDS[n as usize % 3], (!n.is_multiple_of(7)).then(|| format!("u{}", n % 5)), format!("1.{}", n % 2)]});
    assert_eq!(answer["rows"], json!([row(18), row(17), row(16)]));
    assert_eq!((&answer["matched"], &answer["truncated"]), (&json!(20), &json!(true)));
    let filtered =
        list(json!({"columns": [], "filter": [{"user": [["is-not-set"]]}], "order": {"by": "process.age", "direction": "ascending"}}));
    let numbers: Vec<&Value> = filtered["rows"].as_array().expect("rows").iter().map(|row| &row["tx"]).collect();
    assert_eq!(json!(numbers), json!([1, 8, 15]));
}

#[test]
fn values_are_offered_by_frequency_under_other_filters() {
    let server = Crashmeter::start();
    let project = server.project("p");
    submit(&project, 0..40);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    (0..40u64).filter(|n| n % 7 != 0 && n % 2 == 0).for_each(|n| *counts.entry(format!("u{}", n % 5)).or_default() += 1);
    let mut expected: Vec<(String, u64)> = counts.into_iter().collect();
    expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let filter = "%5B%7B%22release%22%3A%5B%5B%22equal%22%2C%221.0%22%5D%5D%7D%5D";
    let answer = project.ask("GET", &format!("attributes/user/values?filter={filter}"), Value::Null).expect(200).json();
    let told: Vec<(String, u64)> = answer["values"]
        .as_array()
        .expect("values")
        .iter()
        .map(|value| (value["value"].as_str().expect("text").to_owned(), value["reports"].as_u64().expect("a count")))
        .collect();
    assert_eq!(told, expected);
    let missing = (0..40u64).filter(|n| n % 7 == 0 && n % 2 == 0).count();
    assert_eq!((&answer["missing"], &answer["distinct"]), (&json!(missing), &json!(expected.len())));
    let some = project.ask("GET", "attributes/error.type/values?prefix=H&limit=1", Value::Null).expect(200).json();
    assert_eq!((&some["values"][0]["value"], &some["distinct"], &some["truncated"]), (&json!("Hang"), &json!(1), &json!(false)));
}
