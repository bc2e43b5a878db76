//! The ledger as people meet it: the audit over the API and the command line, a point traced to its reports, a span filled later.

use crate::crashmeter::{Crashmeter, Project, number_in};
use crate::http::with_query;
use crate::process::{free_port, program};
use crate::receivers::capture::Capture;
use crate::receivers::graphite::Graphite;
use crate::receivers::{VISIBLE, now_s};
use crate::wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Runs the command line against a server; its exit code and output.
fn crashmeter(server: &Crashmeter, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = program(env!("CARGO_BIN_EXE_crashmeter"));
    command.arg(arguments[0]).arg("--url").arg(server.url()).arg("--data").arg(server.data());
    let output = command.args(&arguments[1..]).output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr))
}

/// Submits reports of a kind and gives the number and the second of each.
fn submit(project: &Project, from: u64, kinds: &[&str]) -> Vec<(u64, u64)> {
    let reports = kinds.iter().zip(from..).map(|(kind, n)| {
        let report = json!({"uuid": format!("{n:032x}"), "timestamp": now_s(), "attributes": {"kind": kind}});
        let reply = project.submit(&report).expect("the server answers").expect(200).json();
        let rxid = reply["_rxid"].as_str().expect("a receipt").to_owned();
        let second = project.report(&rxid)["attributes"]["timestamp.received"].as_u64().expect("every report is stamped");
        (number_in(&rxid), second)
    });
    reports.collect()
}

fn explain(project: &Project, pairs: &[(&str, &str)]) -> crate::http::Reply {
    project.ask("GET", &with_query("http://x/metric-sets/all/metrics/by/explain", pairs)["http://x/".len()..], Value::Null)
}

fn accounts(audit: &Value) -> &Value {
    assert_eq!((&audit["balances"], &audit["imbalances"]), (&json!(true), &json!(0)), "{audit}");
    &audit["projects"][0]
}

#[test]
fn the_audit_names_what_became_of_everything_and_a_point_its_reports() {
    let graphite = Graphite::shared();
    let mut server = Crashmeter::start();
    let project = server.project("ledger");
    let by_kind = json!({"query": {"group": ["kind"], "fold": {"_tx": [["count"]]}}, "series_budget": 1});
    project.metric("all", "by", by_kind);
    let push = json!({"adapter": "graphite", "period": 1, "sets": ["all"], "host": "127.0.0.1", "port": graphite.line_port()});
    let first = project.store("carbon", push)["first_window_start"].as_u64().expect("the first window");
    project.store("prom", json!({"adapter": "prometheus", "period": 1, "sets": ["all"]}));
    wait::until_second(first + 1);
    // A group of two and two of one: the budget is one, so two are folded, and all of one second to be one window's.
    let mut sent = Vec::new();
    let second = loop {
        let more = submit(&project, sent.len() as u64 + 1, &["crash", "crash", "hang", "oom"]);
        let seconds: Vec<u64> = more.iter().map(|(_, second)| *second).collect();
        sent.extend(more.clone());
        if seconds.iter().all(|second| *second == seconds[0]) {
            sent = more;
            break seconds[0];
        }
        // A report slipped into the next window; the next try begins with a second of its own.
        wait::until_second(now_s() + 2);
    };
    project.settle("carbon", second);

    let whole = server.ask("GET", "/api/v1/audit", Value::Null).expect(200).json();
    let of_one = project.ask("GET", "audit", Value::Null).expect(200).json();
    for audit in [&whole, &of_one] {
        let grid = &accounts(audit)["grids"][0];
        assert_eq!(
            (&grid["period"], &grid["matched"]),
            (&json!(1), &json!(grid["own"].as_u64().unwrap() + grid["folded"].as_u64().unwrap()))
        );
        assert!(grid["matched"].as_u64() >= Some(4) && grid["folded"].as_u64() >= Some(2), "{grid}");
        let came = &audit["intake"]["ledger"];
        assert_eq!(came["submissions"], came["accepted"], "{came}");
    }
    let outcomes = project.ask("GET", &format!("metric-sets/all/metrics/by/ledger?from={second}&to={}", second + 1), Value::Null);
    let outcomes = outcomes.expect(200).json();
    let expected = json!({"sealed": 1, "failed": 0, "gaps": 0, "matched": 4, "own": 2, "folded": 2});
    assert_eq!(outcomes["sum"], expected, "{outcomes}");

    // The point of the group with a seat, and that of all others.
    let window = second.to_string();
    let crash = explain(&project, &[("window", &window), ("kind", "crash")]).expect(200).json();
    let numbers = |at: &[usize]| at.iter().map(|at| sent[*at].0).collect::<Vec<_>>();
    assert_eq!((&crash["tx"], &crash["reproduced"]), (&json!(numbers(&[0, 1])), &json!(true)), "{crash}");
    assert_eq!(crash["values"][0]["sealed"], 2.0);
    let other = explain(&project, &[("window", &window), ("other", "true"), ("store", "carbon")]).expect(200).json();
    assert_eq!((&other["tx"], &other["reproduced"]), (&json!(numbers(&[2, 3])), &json!(true)), "{other}");
    let page = explain(&project, &[("window", &window), ("other", "true"), ("limit", "1")]).expect(200).json();
    assert_eq!((&page["tx"], &page["next_after"]), (&json!(numbers(&[2])), &json!(sent[2].0)), "{page}");
    // Labels may be given as the store shows them.
    let shown = explain(&project, &[("window", &window), ("Kind", "__other__"), ("store", "carbon")]).expect(200).json();
    assert_eq!(shown["tx"], other["tx"]);
    for (pairs, status, field) in [
        (vec![("window", window.as_str())], 422, "kind"),
        (vec![("window", &window), ("kind", "none such")], 404, ""),
        (vec![("window", &window), ("kind", "crash"), ("colour", "red")], 422, "colour"),
        (vec![("window", "x"), ("kind", "crash")], 422, "window"),
        (vec![("window", "4102444800"), ("kind", "crash")], 409, "window"),
    ] {
        let refused = explain(&project, &pairs).expect(status).json();
        assert_eq!(refused["field"].as_str().unwrap_or_default(), field, "{refused}");
    }

    // The command line says the same.
    let (code, text) = crashmeter(&server, &["audit"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("everything balances\n") && text.contains("carbon: ") && text.contains("prom: "), "{text}");
    let explained =
        crashmeter(&server, &["explain", "ledger", "all", "by", "--window", &window, "--label", "kind=crash", "--store", "carbon"]);
    assert_eq!(explained.0, Some(0), "{}", explained.1);
    assert!(explained.1.contains(&format!("reports: {} {}", sent[0].0, sent[1].0)), "{}", explained.1);

    // Of a folder in use, of one at rest, and of one in which a point went missing.
    let offline = |server: &Crashmeter| crashmeter(server, &["audit", "--offline"]);
    assert_eq!(offline(&server).0, Some(0));
    server.kill();
    assert_eq!(offline(&server).0, Some(0));
    lose_a_window(&server.data());
    let (code, text) = offline(&server);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("DOES NOT BALANCE: project ledger"), "{text}");
}

/// What no code of ours does: a window vanishes.
fn lose_a_window(data: &Path) {
    let database = rusqlite::Connection::open(data.join("catalog.sqlite")).expect("a database");
    let gone = database.execute("DELETE FROM sealed_window WHERE start = (SELECT max(start) FROM sealed_window)", []).expect("deleted");
    assert_eq!(gone, 1);
}

#[test]
fn a_new_store_is_filled_from_stored_reports_without_touching_live_windows() {
    let graphite = Graphite::shared();
    let server = Crashmeter::start();
    let project = server.project("filled");
    let begun = now_s();
    let mut expected: BTreeMap<u64, f64> = BTreeMap::new();
    for n in 0..5 {
        wait::until_second(begun + 1 + n);
        for (_, second) in submit(&project, n * 10 + 1, &vec!["crash"; n as usize + 1]) {
            *expected.entry(second).or_default() += 1.0;
        }
    }
    // Only now a metric and a store are made.
    project.metric("all", "by", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let push = json!({"adapter": "graphite", "period": 1, "sets": ["all"], "host": "127.0.0.1", "port": graphite.line_port()});
    let first = project.store("carbon", push)["first_window_start"].as_u64().expect("the first window");
    let (from, to) = (begun.to_string(), (first + 5).to_string());
    wait::until_second(first + 1);
    let (code, text) = crashmeter(&server, &["backfill", "filled", "carbon", "--from", &from, "--to", &to]);
    assert_eq!(code, Some(0), "{text}");
    let again = project.ask("POST", "metric-stores/carbon/backfill", json!({"from": begun, "to": first})).json();
    wait::until("the span is filled and sent", Duration::from_secs(60), || {
        let told = project.ask("GET", "metric-stores/carbon/backfill", Value::Null).json();
        let done = told.as_array().is_some_and(|all| all.iter().all(|one| one["outcome"].is_string() && one["open_points"] == 0));
        if done { Ok(()) } else { Err(format!("{told} {again}")) }
    });
    project.settle("carbon", first + 5);
    let wanted: Vec<(u64, f64)> = expected.iter().map(|(second, count)| (second * 1_000, *count)).collect();
    wait::until("the filled windows are in Graphite", VISIBLE, || {
        let series = graphite.render("crashmeter.filled.all.by.tx_unique", begun, first + 6);
        let samples = series.first().map(|series| series.samples.clone()).unwrap_or_default();
        let counted: Vec<(u64, f64)> = samples.into_iter().filter(|(_, value)| *value > 0.0).collect();
        if counted == wanted { Ok(()) } else { Err(format!("{counted:?} instead of {wanted:?}")) }
    });
    let audit = project.ask("GET", "audit", Value::Null).expect(200).json();
    accounts(&audit);
    let (code, text) = crashmeter(&server, &["backfill", "filled", "carbon"]);
    assert!(code == Some(0) && text.contains(": done, "), "{text}");

    // What cannot be filled says why.
    project.store("prom", json!({"adapter": "prometheus", "period": 1, "sets": ["all"]}));
    project.store("nowhere", json!({"adapter": "graphite", "period": 1, "sets": [], "host": "127.0.0.1", "port": free_port()}));
    for (store, body, field) in [
        ("prom", json!({"from": begun, "to": first}), "store"),
        ("carbon", json!({"from": first, "to": begun}), "from"),
        ("carbon", json!({"from": 1, "to": first}), "from"),
        ("nowhere", json!({"from": begun, "to": first, "sets": ["all"]}), "sets"),
    ] {
        let refused = project.ask("POST", &format!("metric-stores/{store}/backfill"), body).expect(422).json();
        assert_eq!(refused["field"], field, "{refused}");
    }
}

#[test]
fn a_backfill_fills_nothing_from_before_there_was_anybody_to_count() {
    let endpoint = Capture::always(204, "");
    let server = Crashmeter::start();
    let project = server.project("young");
    let made = now_s();
    project.metric("all", "by", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    wait::until_second(made + 3);
    let store = json!({"adapter": "influxdb", "period": 1, "sets": ["all"], "url": endpoint.url("/write?db=x")});
    let first = project.store("influx", store)["first_window_start"].as_u64().expect("the first window");
    project.ask("POST", "metric-stores/influx/backfill", json!({"from": made - 100, "to": first})).expect(202);
    wait::until("it is filled", VISIBLE, || {
        let told = project.ask("GET", "metric-stores/influx/backfill", Value::Null).json();
        if told[0]["outcome"] == "done" && told[0]["open_points"] == 0 { Ok(()) } else { Err(told.to_string()) }
    });
    let times = endpoint.got().iter().flat_map(|request| request.text().lines().map(second_of).collect::<Vec<_>>()).collect::<Vec<_>>();
    assert!(times.iter().any(|second| *second < first), "the windows since then are filled: {times:?}");
    assert!(times.iter().all(|second| *second + 1 >= made), "none is from before {made}: {times:?}");
    assert!(!server.log().contains("\"down_seconds\":1"), "a first start was down for no time");
}

/// The time of a line of InfluxDB's line protocol.
fn second_of(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("a line without time: {line}"))
}

#[test]
fn the_sealed_values_of_a_metric_are_those_of_its_reports_and_what_is_not_sealed_is_no_zero() {
    let mut server = Crashmeter::start();
    let project = server.project("valued");
    let fold = json!({"query": {"group": ["kind"], "fold": {"_tx": [["count"]], "age": [["max"]]}}});
    project.metric("all", "by", fold);
    let first = project.store("prom", json!({"adapter": "prometheus", "period": 1, "sets": ["all"]}))["first_window_start"].as_u64();
    let first = first.expect("the first window");
    wait::until_second(first + 1);

    // What each second has of each kind: how many reports, and the greatest age.
    let mut expected: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
    let mut sent = 0;
    let mut send = |kind: String| {
        sent += 1;
        let report = json!({"uuid": format!("{sent:032x}"), "timestamp": now_s(), "attributes": {"kind": kind, "age": sent * 7 % 50}});
        let reply = project.submit(&report).expect("the server answers").expect(200).json();
        let second = project.report(reply["_rxid"].as_str().expect("a receipt"))["attributes"]["timestamp.received"].as_u64();
        let second = second.expect("every report is stamped");
        let (count, age) = expected.entry((second, kind)).or_default();
        (*count, *age) = (*count + 1, (*age).max(sent * 7 % 50));
        second
    };
    // Twenty kinds come twice, two of them once: these are beyond what is told.
    let frequent: Vec<String> = (0..20).map(|n| format!("kind {n:02}")).collect();
    let begun = send("rare 1".to_owned());
    wait::until_second(begun + 1);
    for kind in &frequent {
        send(kind.clone());
    }
    send("rare 2".to_owned());
    let last = frequent.iter().map(|kind| send(kind.clone())).last().expect("twenty");
    project.settle("prom", last);
    server.kill();
    let down = now_s();
    wait::until_second(down + 3);
    server.resume();
    let again = send("kind 00".to_owned());
    project.settle("prom", again);

    // What no code of ours does in a test's time: of two windows with reports one failed, one has lost its points.
    server.kill();
    let database = rusqlite::Connection::open(server.data().join("catalog.sqlite")).expect("a database");
    let failed = database.execute("UPDATE sealed_metric SET failure = 'planted' WHERE start = ?1", [begun as i64]).expect("planted");
    let dropped = database.execute("UPDATE sealed_metric SET points = NULL WHERE start = ?1", [again as i64]).expect("planted");
    assert_eq!((failed, dropped), (1, 1));
    drop(database);
    server.resume();

    let values = |query: &str| project.ask("GET", &format!("metric-sets/all/metrics/by/values?{query}"), Value::Null);
    let told = values(&format!("from={}&to={}", first, again + 1)).expect(200).json();
    assert_eq!((&told["period"], &told["more"]), (&json!(1), &json!(2)), "{told}");
    let names: Vec<&str> = told["aggregates"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    let at = |name: &str| names.iter().position(|have| *have == name).expect("both are told");
    let (count, age) = (at("count"), at("age_max"));
    let windows = told["windows"].as_array().expect("a list");
    let series = told["series"].as_array().expect("a list");
    let mut compared = 0;
    for (place, window) in windows.iter().enumerate() {
        let start = window["start"].as_u64().expect("a second");
        let outcome = match start {
            _ if start == begun => "failed",
            _ if start == again => "dropped",
            _ => window["outcome"].as_str().expect("a word"),
        };
        assert_eq!(window["outcome"], outcome, "{window}");
        assert_eq!(window["series"].is_u64(), outcome == "sealed", "{window}");
        for one in series {
            let of = (start, one["labels"]["kind"].as_str().expect("a kind").to_owned());
            let have = [&one["values"][count][place], &one["values"][age][place]];
            match (outcome, expected.get(&of)) {
                ("sealed", Some((reports, age))) => {
                    assert_eq!(have.map(Value::as_f64), [Some(*reports as f64), Some(*age as f64)], "{of:?}");
                    compared += reports;
                }
                ("sealed", None) => assert!((have[0].is_null() || have[0] == 0.0) && have[1].is_null(), "{of:?}: {have:?}"),
                _ => assert_eq!(have, [&Value::Null; 2], "{of:?} in a window that is {outcome}"),
            }
        }
    }
    let shown = |kind: &str| series.iter().any(|one| one["labels"]["kind"] == kind);
    let due = expected.iter().filter(|((second, kind), _)| *second != begun && *second != again && shown(kind));
    assert_eq!(compared, due.map(|(_, (reports, _))| reports).sum::<u64>());
    assert!(compared >= 40 && series.len() == 20, "{told}");
    let outcomes: Vec<&str> = windows.iter().filter_map(|window| window["outcome"].as_str()).collect();
    assert!(["sealed", "failed", "dropped", "gap"].iter().all(|outcome| outcomes.contains(outcome)), "{outcomes:?}");
    assert_eq!(windows.iter().map(|window| window["matched"].as_u64().expect("a count")).sum::<u64>(), 43);
    let sums: Vec<f64> = series.iter().map(|one| one["sum"].as_f64().expect("a number")).collect();
    assert!(sums.is_sorted_by(|one, next| one >= next), "{sums:?}");

    // By default the newest windows; what cannot be told says why.
    let newest = values("").expect(200).json();
    assert_eq!(newest["to"].as_u64().expect("a second") - newest["from"].as_u64().expect("a second"), 2_000);
    project.metric("nowhere", "by", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    for (path, status, field) in [
        ("all/metrics/by/values?from=x", 422, "from"),
        ("all/metrics/by/values?from=9&to=9", 422, "from"),
        ("all/metrics/by/values?from=1&to=2002", 422, "from"),
        ("all/metrics/by/values?period=0", 422, "period"),
        ("nowhere/metrics/by/values", 422, "period"),
        ("all/metrics/none/values", 404, ""),
    ] {
        let refused = project.ask("GET", &format!("metric-sets/{path}"), Value::Null).expect(status).json();
        assert_eq!(refused["field"], field, "{path}: {refused}");
    }
    let empty = project.ask("GET", "metric-sets/nowhere/metrics/by/values?period=60", Value::Null).expect(200).json();
    assert_eq!((&empty["windows"], &empty["series"], &empty["more"]), (&json!([]), &json!([]), &json!(0)));
}
