//! A store that is down for ten windows and comes back, beside one that never is.

use crate::crashmeter::Crashmeter;
use crate::process::free_port;
use crate::receivers::graphite::Graphite;
use crate::receivers::influx::Influx;
use crate::receivers::{VISIBLE, now_s};
use crate::relay::Relay;
use crate::wait;
use serde_json::json;
use std::time::Duration;

/// Windows for which the store is down.
const WINDOWS: u64 = 10;

#[test]
fn after_ten_windows_down_all_arrive_in_order_and_the_other_store_never_noticed() {
    let mut graphite = Graphite::start_without_carbon();
    graphite.start_carbon();
    let port = free_port();
    let relay = Relay::start(port, graphite.line_port());
    let influx = Influx::shared();
    influx.create_database("outage");

    let server = Crashmeter::start();
    let project = server.project("outage");
    project.metric("all", "reports", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let down = json!({"adapter": "graphite", "period": 1, "sets": ["all"], "host": "127.0.0.1", "port": port});
    let first = project.store("down", down)["first_window_start"].as_u64().expect("the first window");
    project.store("well", json!({"adapter": "influxdb", "period": 1, "sets": ["all"], "url": influx.url(), "db": "outage"}));
    // Each by its own stamp: on a loaded machine a report may slip into the next window.
    let submit = |n: u64| {
        let report = json!({"uuid": format!("{n:032x}"), "timestamp": now_s(), "attributes": {}});
        let reply = project.submit(&report).expect("the server answers").expect(200).json();
        let kept = project.report(reply["_rxid"].as_str().expect("a receipt"));
        kept["attributes"]["timestamp.received"].as_u64().expect("every report is stamped")
    };

    project.settle("down", first);
    drop(relay);
    graphite.stop_carbon();
    let outage = now_s() + 1;
    let mut stamps = Vec::new();
    for k in 0..WINDOWS {
        wait::until_second(outage + k);
        // One more in every window, so that none can be taken for another.
        for _ in 0..=k {
            stamps.push(submit(stamps.len() as u64 + 1));
        }
    }
    let last = outage + WINDOWS - 1;
    let reports_in = |second: u64| stamps.iter().filter(|stamp| **stamp == second).count() as f64;
    let expected: Vec<(u64, f64)> = (outage..=last).map(|second| (second * 1_000, reports_in(second))).collect();

    // The other store has it all while the first is still down, each window at its first attempt.
    project.settle("well", last);
    let of_influx = influx.read("outage", "crashmeter.outage.all.reports", "tx_unique");
    let of_outage: Vec<_> = of_influx[0].samples.iter().copied().filter(|(at, _)| (outage * 1_000..=last * 1_000).contains(at)).collect();
    assert_eq!(of_outage, expected);
    let well = project.ledger("well");
    for window in well["windows"].as_array().expect("a list of windows") {
        assert!(window["attempts"].as_u64().is_some_and(|attempts| attempts <= 1), "the well store was asked twice: {window}");
    }
    let open = project.status("down");
    assert!(open["open_windows"].as_u64().is_some_and(|windows| windows >= WINDOWS), "the windows wait: {open}");

    graphite.start_carbon();
    let relay = Relay::start(port, graphite.line_port());
    project.settle("down", last);
    wait::until("all ten windows are in Graphite", VISIBLE, || {
        let series = graphite.render("crashmeter.outage.all.reports.tx_unique", outage, last + 1);
        if series.first().is_some_and(|series| series.samples == expected) { Ok(()) } else { Err(format!("{series:?}")) }
    });
    let arrived = arrival_order(&relay.lines());
    assert!(arrived.is_sorted(), "out of order: {arrived:?}");
    let after: Vec<u64> = arrived.iter().copied().filter(|second| (outage..=last).contains(second)).collect();
    assert_eq!(after, (outage..=last).collect::<Vec<_>>(), "every window of the outage came once");
    project.assert_all_delivered("down", last);
    project.assert_all_delivered("well", last);
}

/// The timestamps of the test's metric in the order in which its lines came.
fn arrival_order(lines: &[String]) -> Vec<u64> {
    let ours = lines.iter().filter(|line| line.starts_with("crashmeter.outage.all.reports.tx_unique "));
    ours.map(|line| line.rsplit(' ').next().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("a line without time: {line}")))
        .collect()
}

/// A store that nobody listens for keeps no other from being configured, and its fate is told.
#[test]
fn a_store_that_was_never_there_is_shown_with_the_reason() {
    let server = Crashmeter::start();
    let project = server.project("lonely");
    project.metric("all", "reports", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let port = free_port();
    project.store("nowhere", json!({"adapter": "graphite", "period": 1, "sets": ["all"], "host": "127.0.0.1", "port": port}));
    wait::until("the status names the reason", Duration::from_secs(20), || {
        let status = project.status("nowhere");
        let reason = status["status"]["reason"].as_str().unwrap_or_default();
        let told = reason.contains("refused") && reason.contains(&port.to_string());
        if told { Ok(()) } else { Err(status.to_string()) }
    });
}
